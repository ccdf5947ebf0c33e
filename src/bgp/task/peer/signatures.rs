//! Whether the kernel drops segments for their signature while a peer is silent. Floor 2, a part of the peer's task.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::bgp::socket::Protection;
use crate::bgp::socket::refusals::Refusals;
use crate::clock;
use crate::world::RefusedSegments;

/// Looked at while there is no session, and after a change of the keys of an open one, or when it was taken over from another agent, until
/// something comes that they fit.
pub(super) struct Signatures {
    before: Refusals,
    since: Timestamp,
    count: u64,
    /// `None`: a session says that the signatures are right.
    due: Option<Instant>,
}

/// The kernel's counters are read this often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Signatures {
    pub(super) fn new(now: Instant) -> Signatures {
        Signatures { before: Refusals::read(), since: clock::wall_timestamp(), count: 0, due: Some(now + LOOK_EVERY) }
    }

    /// Something came that was signed as it is to be.
    pub(super) fn fit(&mut self) {
        (self.due, self.count) = (None, 0);
    }

    /// There is no session. What was counted already goes on.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.due.is_none() {
            *self = Signatures::new(now);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether there are more of them than at the last look.
    pub(super) fn look(&mut self, protection: &Protection, now: Instant) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = Some(now + LOOK_EVERY);
        let count = Refusals::read().since(self.before, protection);
        std::mem::replace(&mut self.count, count) != count
    }

    pub(super) fn refused(&self) -> Option<RefusedSegments> {
        (self.count > 0).then_some(RefusedSegments { count: self.count, since: self.since })
    }
}
