//! Whether the guard stands: whether the kernel takes crier's table, and whether others leave it there. Floor 1.
//!
//! How to drive it: tell it what happened to the table, ask [`Standing::absence`], and come back at [`Standing::next_deadline`].
//! One refusal of a change, and one flush that is mended, are no absence. A table that the kernel never took is one at once.

use std::time::{Duration, Instant};

/// How long the kernel may refuse a table that it took before, until the guard counts as absent.
pub const GRACE: Duration = Duration::from_secs(1);

/// So many removals within [`WITHIN`] are an absence, for in between packets pass.
const MOST_REMOVALS: usize = 5;
pub const WITHIN: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Standing {
    /// The kernel took the table since the agent started.
    stood: bool,
    /// Since when the kernel refuses the table, and what it said last.
    refused: Option<(Instant, String)>,
    /// The last removals by others, the oldest in front; [`MOST_REMOVALS`] at most.
    removals: Vec<Instant>,
    /// They were too many, and there was no quiet time since.
    unsteady: bool,
}

/// Why the guard counts as absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absence {
    /// The kernel's last word.
    Refused { why: String },
    /// Another program removes the table again and again.
    Removed,
}

impl Standing {
    /// The kernel did not take the table, or a change of it.
    pub fn handle_refused(&mut self, why: String, now: Instant) {
        let since = self.refused.as_ref().map_or(now, |(since, _)| *since);
        self.refused = Some((since, why));
    }

    /// The kernel holds the table as it is wanted.
    pub fn handle_written(&mut self) {
        self.stood = true;
        self.refused = None;
    }

    /// No table is wanted.
    pub fn handle_unneeded(&mut self) {
        self.refused = None;
    }

    /// Another program removed the table, or rules of it.
    pub fn handle_removed(&mut self, now: Instant) {
        self.removals.retain(|at| now.saturating_duration_since(*at) < WITHIN);
        self.removals.push(now);
        if self.removals.len() >= MOST_REMOVALS {
            self.unsteady = true;
            self.removals.remove(0);
        }
    }

    /// Why the guard counts as absent now; `None` where it stands.
    pub fn absence(&mut self, now: Instant) -> Option<Absence> {
        self.removals.retain(|at| now.saturating_duration_since(*at) < WITHIN);
        self.unsteady &= !self.removals.is_empty();
        match &self.refused {
            Some((since, why)) if !self.stood || now.saturating_duration_since(*since) >= GRACE => {
                Some(Absence::Refused { why: why.clone() })
            }
            Some(_) | None => self.unsteady.then_some(Absence::Removed),
        }
    }

    /// When [`Standing::absence`] may answer otherwise although nothing happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let quiet = self.removals.last().filter(|_| self.unsteady).map(|last| *last + WITHIN);
        let grace = self.refused.as_ref().map(|(since, _)| *since + GRACE);
        quiet.into_iter().chain(grace).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_kernel_that_never_took_the_table_has_no_guard_at_once() {
        let (mut standing, start) = (Standing::default(), clock::now());
        standing.handle_unneeded();
        standing.handle_refused("EPERM".to_owned(), start);
        assert_eq!(standing.absence(start), Some(Absence::Refused { why: "EPERM".to_owned() }));
        standing.handle_written();
        assert_eq!(standing.absence(start), None);
    }

    #[test]
    fn a_kernel_that_refuses_the_table_for_a_second_has_no_guard_until_it_takes_it() {
        let (mut standing, start) = (Standing::default(), clock::now());
        standing.handle_written();
        standing.handle_refused("EPERM".to_owned(), start);
        assert_eq!(standing.absence(start), None, "it may be over in a moment");
        assert_eq!(standing.next_deadline(), Some(start + GRACE));
        standing.handle_refused("EOPNOTSUPP".to_owned(), start + GRACE / 2);
        assert_eq!(standing.absence(start + GRACE * 9 / 10), None);
        let refused = Some(Absence::Refused { why: "EOPNOTSUPP".to_owned() });
        assert_eq!(standing.absence(start + GRACE), refused, "counted from the first refusal, with the last word");
        standing.handle_written();
        assert_eq!(standing.absence(start + GRACE), None);
    }

    #[test]
    fn refusals_with_a_success_in_between_do_not_add_up() {
        let (mut standing, start) = (Standing::default(), clock::now());
        standing.handle_written();
        for step in 0..10 {
            let now = start + GRACE * step;
            standing.handle_refused("ENOBUFS".to_owned(), now);
            assert_eq!(standing.absence(now + GRACE / 2), None, "step {step}");
            standing.handle_written();
        }
    }

    #[test]
    fn a_flush_now_and_then_changes_nothing_and_flushes_again_and_again_are_an_absence_until_it_is_quiet() {
        let (mut standing, start) = (Standing::default(), clock::now());
        for step in 0..20 {
            let now = start + WITHIN / 3 * step;
            standing.handle_removed(now);
            assert_eq!(standing.absence(now), None, "three within the time, step {step}");
        }
        let (mut standing, each) = (Standing::default(), Duration::from_millis(500));
        let mut now = start;
        for step in 1..=30 {
            now = start + each * step;
            standing.handle_removed(now);
            standing.handle_written();
            let expected = (step >= 5).then_some(Absence::Removed);
            assert_eq!(standing.absence(now), expected, "step {step}");
        }
        assert!(standing.removals.len() <= MOST_REMOVALS, "what is remembered is bounded");
        assert_eq!(standing.next_deadline(), Some(now + WITHIN));
        assert_eq!(standing.absence(now + WITHIN - each), Some(Absence::Removed));
        assert_eq!(standing.absence(now + WITHIN), None);
        standing.handle_removed(now + WITHIN);
        assert_eq!(standing.absence(now + WITHIN), None, "it begins anew");
    }
}
