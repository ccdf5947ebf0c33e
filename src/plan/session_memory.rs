//! Since when this node has no BGP session, and what it says of that in its pulses. Floor 1, an organ of the planner.
//!
//! What one node alone announces has no route while that node has no session. A session that is lost is often back within seconds, and to move
//! connections costs more than to wait for it: only then other nodes announce, and only where one has a session.

use std::time::{Duration, Instant};

use crate::roster::Sessions;

/// How long no session may be established before others announce what this node alone announces.
pub const AWAY_AFTER: Duration = Duration::from_secs(8);

/// The same after a start, until there is the first one: routers let a host that restarts wait.
pub const AWAY_AFTER_START: Duration = Duration::from_secs(20);

/// How long one must stand again before this node takes part again: one that comes and goes moves nothing.
pub const BACK_AFTER: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct SessionMemory {
    began: Option<Instant>,
    /// There was one in this life of the agent.
    had: bool,
    missing_since: Option<Instant>,
    stands_since: Option<Instant>,
    said: Option<Sessions>,
    due: Option<Instant>,
}

impl SessionMemory {
    pub fn said(&self) -> Option<Sessions> {
        self.said
    }

    /// When [`SessionMemory::renew`] may answer otherwise by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// `stands`: whether a session is established; `None` where this node has no peer to announce to, or nobody to say it to.
    /// `others_stand`: another node says that one of its own is.
    pub fn renew(&mut self, stands: Option<bool>, others_stand: bool, now: Instant) {
        let began = *self.began.get_or_insert(now);
        self.due = None;
        let is_away = self.said == Some(Sessions::Away);
        let after = |since: Instant, time: Duration, due: &mut Option<Instant>| {
            let is_over = now >= since + time;
            *due = (!is_over).then_some(since + time);
            is_over
        };
        self.said = match stands {
            None => {
                (self.missing_since, self.stands_since) = (None, None);
                None
            }
            Some(true) => {
                (self.had, self.missing_since) = (true, None);
                let since = *self.stands_since.get_or_insert(now);
                let is_back = !is_away || after(since, BACK_AFTER, &mut self.due);
                Some(if is_back { Sessions::Stand } else { Sessions::Away })
            }
            Some(false) => {
                self.stands_since = None;
                let missing = *self.missing_since.get_or_insert(now);
                let (since, patience) = if self.had { (missing, AWAY_AFTER) } else { (began, AWAY_AFTER_START) };
                let is_over = is_away || after(since, patience, &mut self.due);
                // That another node has one is a fact that will be told.
                self.due = self.due.filter(|_| others_stand);
                Some(if is_away || (is_over && others_stand) { Sessions::Away } else { Sessions::Missing })
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_session_is_away_after_a_time_and_back_after_a_time_and_never_where_nobody_has_one() {
        use Sessions::{Away, Missing, Stand};
        // Seconds, whether a session stands, whether another node has one, and what is said.
        type Step = (u64, Option<bool>, bool, Option<Sessions>);
        let table: &[&[Step]] = &[
            &[
                (0, Some(true), true, Some(Stand)),
                (10, Some(false), true, Some(Missing)),
                (17, Some(false), true, Some(Missing)),
                (18, Some(false), true, Some(Away)),
                (30, Some(true), true, Some(Away)),
                (33, Some(false), true, Some(Away)),
                (34, Some(true), true, Some(Away)),
                (38, Some(true), true, Some(Away)),
                (39, Some(true), true, Some(Stand)),
                // One that is back in time moves nothing.
                (40, Some(false), true, Some(Missing)),
                (47, Some(true), true, Some(Stand)),
                (48, Some(false), true, Some(Missing)),
                (55, Some(false), true, Some(Missing)),
            ],
            // After a start.
            &[
                (0, Some(false), true, Some(Missing)),
                (19, Some(false), true, Some(Missing)),
                (20, Some(false), true, Some(Away)),
                (60, None, true, None),
            ],
            // Nobody has one, until another node does.
            &[
                (0, Some(true), false, Some(Stand)),
                (1, Some(false), false, Some(Missing)),
                (900, Some(false), false, Some(Missing)),
                (901, Some(false), true, Some(Away)),
                (902, Some(false), false, Some(Away)),
            ],
        ];
        for (number, steps) in table.iter().enumerate() {
            let (mut memory, start) = (SessionMemory::default(), clock::now());
            for (at, stands, others, expected) in *steps {
                memory.renew(*stands, *others, start + Duration::from_secs(*at));
                assert_eq!(memory.said(), *expected, "story {number} at {at}");
            }
        }
    }

    #[test]
    fn what_changes_by_itself_has_a_deadline_and_what_does_not_has_none() {
        let (mut memory, start) = (SessionMemory::default(), clock::now());
        let at = |secs| start + Duration::from_secs(secs);
        memory.renew(Some(true), true, at(0));
        assert_eq!(memory.next_deadline(), None);
        memory.renew(Some(false), true, at(1));
        assert_eq!(memory.next_deadline(), Some(at(9)));
        memory.renew(Some(false), true, at(9));
        assert_eq!((memory.said(), memory.next_deadline()), (Some(Sessions::Away), None));
        memory.renew(Some(true), true, at(20));
        assert_eq!(memory.next_deadline(), Some(at(25)));
        // Nobody else has one: a fact will say when one does.
        let mut alone = SessionMemory::default();
        alone.renew(Some(false), false, at(0));
        alone.renew(Some(false), false, at(20));
        assert_eq!(alone.next_deadline(), None);
    }
}
