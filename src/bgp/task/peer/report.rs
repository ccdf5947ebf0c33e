//! What the agent was last told of the session, and when it is to be told again. Floor 2, a part of the peer's task.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::session_state::SessionState;

/// What the agent was last told of the session, and when it is to be told again.
pub(super) struct Report {
    pub(super) state: SessionState,
    pub(super) since: SystemTime,
    pub(super) last_error: Option<Arc<str>>,
    pub(super) counts: Counts,
    pub(super) due: Option<Instant>,
    told_at: Instant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: usize,
    pub(super) received: u64,
    pub(super) pending: usize,
    /// In both directions.
    pub(super) messages: u64,
    /// Not reported: when it changes, so may the number of prefixes that cannot be sent.
    pub(super) wanted: usize,
}

impl Report {
    pub(super) fn new(now: Instant) -> Report {
        Report {
            state: SessionState::Idle,
            since: clock::wall(),
            last_error: None,
            counts: Counts::default(),
            due: Some(now),
            told_at: now,
        }
    }

    /// Whether the state is another than before.
    pub(super) fn observe(&mut self, state: SessionState, counts: Counts, now: Instant) -> bool {
        let moved = state != self.state;
        if moved {
            self.state = state;
            self.since = clock::wall();
            self.due = Some(now);
        }
        if counts != self.counts {
            self.counts = counts;
            self.due = Some(self.due.unwrap_or(self.told_at + COUNTERS_PAUSE));
        }
        moved
    }

    pub(super) fn fail(&mut self, why: Arc<str>, now: Instant) {
        self.last_error = Some(why);
        self.due = Some(now);
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    pub(super) fn told(&mut self, now: Instant) {
        self.due = None;
        self.told_at = now;
    }
}

/// Counts alone are reported this often at most; everything else is at once.
const COUNTERS_PAUSE: Duration = Duration::from_millis(250);
