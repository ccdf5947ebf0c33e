//! What the guard dropped and the translation gave an address, by pod, and what the table holds. Floor 1. The task counts, views
//! read.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::ruleset::{Content, Count};
use crate::plan::slice::Mapping;

/// Shared by the task and its readers.
#[derive(Debug, Default)]
pub struct Counters {
    pods: Mutex<BTreeMap<IpAddr, Pair>>,
    held: Mutex<Option<Arc<Content>>>,
}

/// Of one pod since the agent started; these only ever grow while the pod is held to an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that would have left with a wrong address.
    pub dropped: u64,
    /// Connections that got the Service's address here.
    pub translated: u64,
}

#[derive(Debug, Default)]
struct Pair {
    dropped: Reading,
    translated: Reading,
}

/// The kernel's counter begins anew when its element is made anew.
#[derive(Debug, Default)]
struct Reading {
    before: u64,
    last: u64,
}

impl Reading {
    fn read(&mut self, count: u64) {
        if count < self.last {
            self.before = self.before.saturating_add(self.last);
        }
        self.last = count;
    }

    fn sum(&self) -> u64 {
        self.before.saturating_add(self.last)
    }
}

impl Counters {
    /// What the kernel's counters say now.
    pub fn read(&self, count: Count, elements: impl IntoIterator<Item = (IpAddr, u64)>) {
        let held = self.held();
        let is_steered = |pod: &IpAddr| {
            let mapping = held.as_ref().and_then(|content| content.pods.get(pod));
            matches!(mapping, Some(Mapping::Steered { .. }))
        };
        // A panic elsewhere may poison the lock, but it cannot leave this map half changed.
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        for (pod, packets) in elements {
            let pair = pods.entry(pod).or_default();
            match count {
                Count::Dropped => pair.dropped.read(packets),
                // Its element keeps the pod's own address, and the owner gives the Service's: one node counts a connection.
                Count::Translated => pair.translated.read(if is_steered(&pod) { 0 } else { packets }),
            }
        }
    }

    /// What the kernel holds now; `None` where it is not known to hold the table.
    pub fn hold(&self, content: Option<Arc<Content>>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = content;
    }

    /// What the kernel holds, as far as is known.
    pub fn held(&self) -> Option<Arc<Content>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets all pods but these.
    pub fn keep(&self, is_held: impl Fn(&IpAddr) -> bool) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).retain(|pod, _| is_held(pod));
    }

    pub fn all(&self) -> BTreeMap<IpAddr, Counts> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |pair: &Pair| Counts { dropped: pair.dropped.sum(), translated: pair.translated.sum() };
        pods.iter().map(|(pod, pair)| (*pod, counts(pair))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_begins_anew_goes_on_from_where_it_was() {
        let (counters, pod) = (Counters::default(), "10.244.1.2".parse().unwrap());
        for packets in [3, 5, 1, 2] {
            counters.read(Count::Dropped, [(pod, packets)]);
        }
        assert_eq!(counters.all()[&pod], Counts { dropped: 7, translated: 0 });
        counters.keep(|_| false);
        assert!(counters.all().is_empty());
    }

    /// Input: a pod whose packets go to the owner on another node, then this node is the owner, then another one again.
    #[test]
    fn only_the_owner_counts_what_is_translated() {
        let (counters, pod) = (Counters::default(), "10.244.1.2".parse().unwrap());
        let here = Mapping::Translated { address: "192.0.2.1".parse().unwrap(), network: None };
        let mut counted = Vec::new();
        // Another mapping is another element, whose counter begins anew.
        for (mapping, packets) in
            [(Mapping::Steered { slot: 1 }, 8), (here, 3), (here, 5), (Mapping::Steered { slot: 1 }, 2), (here, 1)]
        {
            counters.hold(Some(Arc::new(Content { pods: [(pod, mapping)].into(), ..Content::default() })));
            counters.read(Count::Translated, [(pod, packets)]);
            counted.push(counters.all()[&pod].translated);
        }
        assert_eq!(counted, [0, 3, 5, 5, 6]);
    }
}
