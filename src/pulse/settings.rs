//! How fast the pulse is. Floor 1.

use std::num::NonZeroU8;
use std::time::Duration;

/// How fast owners pulse, and how many pulses may be missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Of owners. 20 ms to 5 s.
    pub interval: Duration,
    pub multiplier: NonZeroU8,
}

impl Settings {
    /// How long an owner may be silent: D.
    pub fn detection(self) -> Duration {
        self.interval * u32::from(self.multiplier.get())
    }
}
