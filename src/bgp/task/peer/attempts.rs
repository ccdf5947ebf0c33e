//! What was tried in vain. A peer on a link is tried at one router after the other, where several are heard: how long the next one waits, and
//! what was logged of them. Floor 2, a part of the peer's task.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::ScopedAddress;

/// The failures without a session that were logged since the last session, by place.
#[derive(Debug, Default)]
pub(super) struct Warned(Vec<(ScopedAddress, Arc<str>)>);

impl Warned {
    /// Whether this failure is to be logged.
    pub(super) fn is_new(&mut self, place: &ScopedAddress, why: &Arc<str>) -> bool {
        let failure = (place.clone(), Arc::clone(why));
        if self.0.contains(&failure) {
            return false;
        }
        if self.0.len() >= MOST_WARNED {
            self.0.remove(0);
        }
        self.0.push(failure);
        true
    }

    pub(super) fn note_session(&mut self) {
        self.0.clear();
    }
}

/// So many are kept apart.
const MOST_WARNED: usize = 8;

/// The places in a row in which a peer was dialled and no session came about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turns {
    in_vain: u32,
    dialled_at: Option<Instant>,
}

impl Turns {
    pub(super) fn note_dial(&mut self, now: Instant) {
        self.dialled_at = Some(now);
    }

    pub(super) fn note_session(&mut self) {
        *self = Turns::default();
    }

    /// The peer was dialled, and there was no session since.
    pub(super) fn are_in_vain(&self) -> bool {
        self.dialled_at.is_some()
    }

    /// Goes on to the next place; when that may be dialled. The second is tried at once. From then on each has a second after the one before
    /// was dialled, doubled each time, up to the connect-retry time: routers that refuse in no time are not dialled without end.
    pub(super) fn turn_to_next(&mut self, connect_retry_time: Duration, now: Instant) -> Instant {
        let Some(dialled_at) = self.dialled_at.take() else { return now };
        let pause =
            self.in_vain.checked_sub(1).map(|doublings| FIRST_PAUSE.saturating_mul(1 << doublings.min(MOST_DOUBLINGS)));
        self.in_vain = self.in_vain.saturating_add(1);
        dialled_at + pause.unwrap_or_default().min(connect_retry_time)
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Above this, every connect-retry time is shorter.
const MOST_DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Input: routers that refuse the connection at once. Output: the next one waits longer each time, until there was a session.
    #[test]
    fn each_router_in_a_row_that_refuses_is_dialled_later_up_to_the_connect_retry_time() {
        let (mut turns, now) = (Turns::default(), clock::now());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            turns.note_dial(now);
            pauses.push((turns.turn_to_next(Duration::from_secs(5), now) - now).as_secs());
        }
        assert_eq!(pauses, [0, 1, 2, 4, 5, 5]);
        assert_eq!(turns.turn_to_next(Duration::from_secs(5), now), now, "nobody was dialled");
        turns.note_session();
        turns.note_dial(now);
        assert_eq!(turns.turn_to_next(Duration::from_secs(5), now), now);
    }
}
