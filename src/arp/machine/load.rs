//! How long the other stations of a link need to answer the probes that were sent: many at once make a load themselves, and
//! a verdict that does not wait for the answers takes an address from one that has it. Floor 1.

use std::time::{Duration, Instant};

use crate::arp::settings::{ANSWER_TIME, LONGEST_LOAD, SUSPECT_LOAD};
use crate::claim::Acquisition;

/// The probes that are still to be answered.
#[derive(Debug, Default)]
pub struct Load {
    /// If each takes `ANSWER_TIME`. Those of a take-over go out before all others, so they wait for each other only.
    urgent: Backlog,
    /// If each takes `ANSWER_TIME`.
    all: Backlog,
    /// If each takes `SUSPECT_LOAD` times as long.
    suspect: Backlog,
}

#[derive(Debug, Default)]
struct Backlog {
    until: Option<Instant>,
}

impl Load {
    /// A probe is sent.
    pub fn add_probe(&mut self, is_urgent: bool, now: Instant) {
        self.all.add(ANSWER_TIME, now);
        self.suspect.add(ANSWER_TIME * SUSPECT_LOAD, now);
        if is_urgent {
            self.urgent.add(ANSWER_TIME, now);
        }
    }

    /// Another station probes too.
    pub fn add_rival(&mut self, now: Instant) {
        self.add_probe(true, now);
    }

    /// How long the probes that were sent before take, at most `LONGEST_LOAD`, `SUSPECT_LOAD` times as long where all nodes fell
    /// silent at once.
    pub fn to_answer(&self, is_urgent: bool, acquisition: &Acquisition, now: Instant) -> Duration {
        let (backlog, most) = match acquisition {
            Acquisition::TakeOver { suspect: true, .. } => (&self.suspect, LONGEST_LOAD * SUSPECT_LOAD),
            _ if is_urgent => (&self.urgent, LONGEST_LOAD),
            Acquisition::FirstUse
            | Acquisition::HandOver
            | Acquisition::Standby { place: _ }
            | Acquisition::TakeOver { suspect: false, .. } => (&self.all, LONGEST_LOAD),
        };
        backlog.until.map(|until| until.saturating_duration_since(now)).unwrap_or_default().min(most)
    }
}

/// No more probes than these are counted: about as many as other stations answer while the longest verdict waits.
const MOST_PROBES: u32 = 20_000;

impl Backlog {
    fn add(&mut self, answer_time: Duration, now: Instant) {
        // What a flood of probes adds is over soon after the flood.
        let until = self.until.map_or(now, |until| until.max(now)) + answer_time;
        self.until = Some(until.min(now + answer_time * MOST_PROBES));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_verdict_waits_for_the_probes_before_it_and_never_longer_than_the_most() {
        let now = clock::now();
        let mut load = Load::default();
        let first_use = Acquisition::FirstUse;
        let take_over = |suspect| Acquisition::TakeOver { from: "b".into(), suspect };
        (0..100).for_each(|_| load.add_probe(false, now));
        assert_eq!(load.to_answer(false, &first_use, now), 100 * ANSWER_TIME);
        assert_eq!(load.to_answer(true, &take_over(false), now), Duration::ZERO, "a take-over goes first");
        (0..100).for_each(|_| load.add_rival(now));
        assert_eq!(load.to_answer(true, &take_over(false), now), 100 * ANSWER_TIME, "but not before what others ask");
        assert_eq!(load.to_answer(true, &take_over(false), now + 60 * ANSWER_TIME), 40 * ANSWER_TIME);
        assert_eq!(load.to_answer(true, &take_over(true), now), 200 * ANSWER_TIME * SUSPECT_LOAD);
        (0..100_000).for_each(|_| load.add_probe(true, now));
        assert_eq!(load.to_answer(true, &take_over(false), now), LONGEST_LOAD);
        assert_eq!(load.to_answer(true, &take_over(true), now), LONGEST_LOAD * SUSPECT_LOAD);
    }
}
