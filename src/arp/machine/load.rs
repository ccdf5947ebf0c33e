//! How long the other stations of a link need to answer the probes that were sent: many at once make a load themselves, and
//! a verdict that does not wait for the answers takes an address from one that has it. Floor 1.

use std::time::{Duration, Instant};

use crate::arp::settings::{ANSWER_TIME, LONGEST_LOAD};

/// The probes that are still to be answered, if each takes `ANSWER_TIME`. Those of a take-over go out before all others, so
/// they wait for each other only.
#[derive(Debug, Default)]
pub struct Load {
    urgent: Backlog,
    all: Backlog,
}

#[derive(Debug, Default)]
struct Backlog {
    until: Option<Instant>,
}

impl Load {
    /// A probe is sent.
    pub fn add_probe(&mut self, is_urgent: bool, now: Instant) {
        self.all.add(now);
        if is_urgent {
            self.urgent.add(now);
        }
    }

    /// Another station probes too.
    pub fn add_rival(&mut self, now: Instant) {
        self.add_probe(true, now);
    }

    /// How long the probes that were sent before take, at most `LONGEST_LOAD`.
    pub fn to_answer(&self, is_urgent: bool, now: Instant) -> Duration {
        let backlog = if is_urgent { &self.urgent } else { &self.all };
        let left = backlog.until.map(|until| until.saturating_duration_since(now)).unwrap_or_default();
        left.min(LONGEST_LOAD)
    }
}

impl Backlog {
    fn add(&mut self, now: Instant) {
        self.until = Some(self.until.map_or(now, |until| until.max(now)) + ANSWER_TIME);
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
        (0..100).for_each(|_| load.add_probe(false, now));
        assert_eq!(load.to_answer(false, now), 100 * ANSWER_TIME);
        assert_eq!(load.to_answer(true, now), Duration::ZERO, "a take-over goes first");
        (0..100).for_each(|_| load.add_rival(now));
        assert_eq!(load.to_answer(true, now), 100 * ANSWER_TIME, "but not before what others ask");
        assert_eq!(load.to_answer(true, now + 60 * ANSWER_TIME), 40 * ANSWER_TIME);
        (0..100_000).for_each(|_| load.add_probe(true, now));
        assert_eq!(load.to_answer(true, now), LONGEST_LOAD);
    }
}
