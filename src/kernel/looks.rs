//! When observers of egress look at the host again: nothing tells them of a change there. Floor 2, a part of `bypass` and `reverse_path`.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::plan::slice::EgressSlice;

/// Looks follow each other while pods are held to anything, and come at once when that begins or ends.
pub(super) struct Looks {
    slices: watch::Receiver<EgressSlice>,
    again: Interval,
    wanted: bool,
}

impl Looks {
    pub(super) fn new(mut slices: watch::Receiver<EgressSlice>, every: Duration) -> Looks {
        let mut again = interval(every);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = !slices.borrow_and_update().pods.is_empty();
        Looks { slices, again, wanted }
    }

    /// Waits for the next look, which is for this slice: without pods there is nothing to see any more. `None` once there are no
    /// slices.
    pub(super) async fn next(&mut self) -> Option<EgressSlice> {
        loop {
            tokio::select! {
                changed = self.slices.changed() => {
                    changed.ok()?;
                    let before = std::mem::replace(&mut self.wanted, !self.slices.borrow_and_update().pods.is_empty());
                    if before == self.wanted {
                        continue;
                    }
                }
                _ = self.again.tick(), if self.wanted => {}
            }
            return Some(self.slices.borrow().clone());
        }
    }
}
