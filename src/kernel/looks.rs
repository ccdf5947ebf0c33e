//! When observers of egress look at the host again: nothing tells them of a change there. Floor 2, a part of `bypass` and `reverse_path`.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::plan::slice::EgressSlice;

/// Looks follow each other while there is anything to see, and come at once when that begins or ends.
pub(super) struct Looks {
    slices: watch::Receiver<EgressSlice>,
    again: Interval,
    is_wanted: fn(&EgressSlice) -> bool,
    wanted: bool,
}

/// Pods are held to anything.
pub(super) fn for_pods(slice: &EgressSlice) -> bool {
    !slice.pods.is_empty()
}

impl Looks {
    pub(super) fn new(
        mut slices: watch::Receiver<EgressSlice>,
        every: Duration,
        is_wanted: fn(&EgressSlice) -> bool,
    ) -> Looks {
        let mut again = interval(every);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let wanted = is_wanted(&slices.borrow_and_update());
        Looks { slices, again, is_wanted, wanted }
    }

    /// Waits for the next look, which is for this slice: there may be nothing to see any more. `None` once there are no
    /// slices.
    pub(super) async fn next(&mut self) -> Option<EgressSlice> {
        loop {
            tokio::select! {
                changed = self.slices.changed() => {
                    changed.ok()?;
                    let is_wanted = (self.is_wanted)(&self.slices.borrow_and_update());
                    let before = std::mem::replace(&mut self.wanted, is_wanted);
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
