//! How often pulses are sent, and how many may be missed. Floor 1.

use std::num::NonZeroU8;
use std::time::Duration;

/// The pace of the pulses that a node promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Between two pulses of an owner: 20 ms to 5 s.
    pub interval: Duration,
    /// A node is silent after this many missing pulses.
    pub multiplier: NonZeroU8,
}

impl Settings {
    /// For how long an owner may be silent: D in the bounds of `machine`.
    pub fn detection(self) -> Duration {
        self.interval * u32::from(self.multiplier.get())
    }
}
