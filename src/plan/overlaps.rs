//! Services that are renumbered: how long old and new addresses have stood beside each other in the status. Floor 1.
//!
//! The time runs from when this agent, as the one who allocates, first saw both. An agent that takes over counts anew, so an
//! overlap may last longer than was asked for, and is never shorter, whatever the clocks of the hosts say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::names::ObjectKey;

/// The Services with an overlap under way, each with when it is over.
#[derive(Debug, Default)]
pub struct Overlaps {
    ends: BTreeMap<ObjectKey, Instant>,
    /// Those that are not over yet.
    due: BTreeSet<(Instant, ObjectKey)>,
}

impl Overlaps {
    /// Both stand beside each other now, for so long from the first time on; or they do not.
    pub fn put(&mut self, service: &ObjectKey, overlap: Option<Duration>, now: Instant) {
        match (overlap, self.ends.get(service)) {
            (Some(overlap), None) => {
                let end = now + overlap;
                self.ends.insert(service.clone(), end);
                self.due.insert((end, service.clone()));
            }
            (None, Some(end)) => {
                self.due.remove(&(*end, service.clone()));
                self.ends.remove(service);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    pub fn is_over(&self, service: &ObjectKey, now: Instant) -> bool {
        self.ends.get(service).is_some_and(|end| now >= *end)
    }

    /// The Services whose overlap is over since the last call.
    pub fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        let mut over = Vec::new();
        while let Some((at, service)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, service));
                break;
            }
            over.push(service);
        }
        over
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}
