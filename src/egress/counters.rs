//! What the guard dropped and the translation gave an address, by pod, what the table holds, and what translates before it. Floor 1.
//! The task counts, views read.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::ruleset::{Content, Count};
use crate::plan::slice::Mapping;

/// Shared by the task and its readers.
#[derive(Debug, Default)]
pub struct Counters {
    pods: Mutex<BTreeMap<IpAddr, Pair>>,
    held: Mutex<Option<Arc<Content>>>,
    earlier: Mutex<Arc<Vec<String>>>,
    later_marks: Mutex<Arc<Vec<String>>>,
    new_pods: Mutex<NewPods>,
    removable: AtomicBool,
}

/// What was held back of new pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPods {
    /// Packets, since the agent started.
    pub dropped: u64,
    /// Of which addresses lately, those too that are held no more.
    pub held: BTreeMap<IpAddr, HeldAddress>,
}

/// An address that packets were held back of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldAddress {
    /// What the kernel counted at the last reading.
    pub packets: u64,
    /// At how many readings in a row it was held, the last one included.
    pub readings: usize,
}

impl HeldAddress {
    /// It is no new one any more.
    pub fn is_lasting(&self) -> bool {
        self.readings >= READINGS
    }
}

/// Of one pod since the agent started; these only ever grow while the pod is held to an address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that would have left with a wrong address.
    pub dropped: u64,
    /// Connections that got the Service's address here.
    pub translated: u64,
    /// Of the dropped ones those of the last [`READINGS`] readings, if the table had one way for the pod's packets in all that time and
    /// they were dropped in most of these: else none.
    pub lately: u64,
    /// Packets were dropped in each of these readings, and no connection of the pod passed the translation in that time.
    pub stuck: bool,
}

/// Ten seconds.
const READINGS: usize = 5;

/// In so many of these packets are dropped where that is no accident.
const MOST_READINGS: usize = 3;

#[derive(Debug, Default)]
struct Pair {
    dropped: Reading,
    translated: Reading,
    /// How the table led the pod's packets at the last reading.
    way: Option<Mapping>,
    /// How many were dropped since the reading before, while it led them so, and how many connections passed the translation.
    lately: VecDeque<(u64, u64)>,
    /// Connections that passed the translation, also where they keep the pod's own address.
    passed: Reading,
    /// The same at the last reading of what was dropped.
    passed_before: u64,
}

impl Pair {
    fn read_dropped(&mut self, packets: u64, way: Option<Mapping>) {
        let before = self.dropped.sum();
        self.dropped.read(packets);
        let passed = self.passed.sum().saturating_sub(std::mem::replace(&mut self.passed_before, self.passed.sum()));
        if self.way != way || matches!(way, None | Some(Mapping::Held)) {
            // What was dropped since then may be of the way before.
            (self.way, self.lately) = (way, VecDeque::new());
            return;
        }
        self.lately.push_back((self.dropped.sum().saturating_sub(before), passed));
        if self.lately.len() > READINGS {
            self.lately.pop_front();
        }
    }

    fn lately(&self) -> u64 {
        let packets = || self.lately.iter().map(|(packets, _)| *packets);
        let goes_on = packets().filter(|packets| *packets > 0).count() >= MOST_READINGS;
        if goes_on { packets().sum() } else { 0 }
    }

    fn is_stuck(&self) -> bool {
        let nothing_else = |(dropped, passed): &(u64, u64)| *dropped > 0 && *passed == 0;
        self.lately.len() == READINGS && self.lately.iter().all(nothing_else)
    }
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
        let way = |pod: &IpAddr| held.as_ref().and_then(|content| content.pods.get(pod)).copied();
        let is_steered = |pod: &IpAddr| matches!(way(pod), Some(Mapping::Steered { .. }));
        // A panic elsewhere may poison the lock, but it cannot leave this map half changed.
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        for (pod, packets) in elements {
            let pair = pods.entry(pod).or_default();
            match count {
                Count::Dropped => pair.read_dropped(packets, way(&pod)),
                // Its element keeps the pod's own address, and the owner gives the Service's: one node counts a connection.
                Count::Translated => {
                    pair.passed.read(packets);
                    pair.translated.read(if is_steered(&pod) { 0 } else { packets });
                }
            }
        }
    }

    /// The addresses that packets of new pods were held back of in the last while, with how many since the first one.
    pub fn read_new_pods(&self, elements: impl IntoIterator<Item = (IpAddr, u64)>) {
        let table = self.held();
        let is_held = |address: IpAddr| {
            let table = table.as_ref();
            table.is_some_and(|table| table.hold.holds(address) && !table.pods.contains_key(&address))
        };
        let mut new = self.new_pods.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut new.held);
        for (address, packets) in elements {
            let was = before.get(&address).copied().unwrap_or_default();
            // One that was made anew counts from the beginning.
            let more = packets.checked_sub(was.packets).unwrap_or(packets);
            new.dropped = new.dropped.saturating_add(more);
            let readings = if is_held(address) { was.readings.saturating_add(1) } else { 0 };
            new.held.insert(address, HeldAddress { packets, readings });
        }
    }

    /// As of the last reading.
    pub fn new_pods(&self) -> NewPods {
        self.new_pods.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the kernel holds now; `None` where it is not known to hold the table.
    pub fn hold(&self, content: Option<Arc<Content>>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = content;
    }

    /// What the kernel holds, as far as is known.
    pub fn held(&self) -> Option<Arc<Content>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The chains of other programs that translate sources before the table does.
    pub fn tell_earlier(&self, chains: Vec<String>) {
        *self.earlier.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(chains);
    }

    /// The chains of other programs that may mark packets anew.
    pub fn tell_later_marks(&self, chains: Vec<String>) {
        *self.later_marks.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(chains);
    }

    /// As they were told the last time.
    pub fn later_marks(&self) -> Arc<Vec<String>> {
        self.later_marks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As they were told the last time.
    pub fn earlier(&self) -> Arc<Vec<String>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another program may remove the table, and nothing holds packets back meanwhile: this kernel has no tables that belong to a socket.
    pub fn tell_removable(&self, removable: bool) {
        self.removable.store(removable, Ordering::Relaxed);
    }

    /// As it was told the last time.
    pub fn is_removable(&self) -> bool {
        self.removable.load(Ordering::Relaxed)
    }

    /// Forgets all pods but these.
    pub fn keep(&self, is_held: impl Fn(&IpAddr) -> bool) {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).retain(|pod, _| is_held(pod));
    }

    pub fn all(&self) -> BTreeMap<IpAddr, Counts> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |pair: &Pair| Counts {
            dropped: pair.dropped.sum(),
            translated: pair.translated.sum(),
            lately: pair.lately(),
            stuck: pair.is_stuck(),
        };
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
        assert_eq!(counters.all()[&pod], Counts { dropped: 7, ..Counts::default() });
        counters.keep(|_| false);
        assert!(counters.all().is_empty());
    }

    #[test]
    fn an_address_of_a_new_pod_lasts_while_it_is_held_at_each_reading() {
        let counters = Counters::default();
        let address: IpAddr = "10.244.1.2".parse().unwrap();
        let mut table = Content::default();
        table.hold.networks.insert("10.244.1.0/24".parse().unwrap());
        counters.hold(Some(Arc::new(table.clone())));
        let lasts = || counters.new_pods().held.get(&address).map(HeldAddress::is_lasting);
        for packets in 1..=4 {
            counters.read_new_pods([(address, packets)]);
            assert_eq!(lasts(), Some(false), "{packets}");
        }
        counters.read_new_pods([(address, 5)]);
        assert_eq!((lasts(), counters.new_pods().dropped), (Some(true), 5));
        table.hold.known.insert(address);
        counters.hold(Some(Arc::new(table)));
        counters.read_new_pods([(address, 5)]);
        assert_eq!(lasts(), Some(false), "it is known");
        counters.read_new_pods([]);
        counters.read_new_pods([(address, 2)]);
        assert_eq!((lasts(), counters.new_pods().dropped), (Some(false), 7), "the kernel counts from the beginning");
    }

    /// Input: readings of a pod's drops, each with the way that its packets have. Output: how many are dropped
    /// lately, though there is a way.
    #[test]
    fn what_is_dropped_though_it_has_a_way_counts_while_it_goes_on() {
        let pod: IpAddr = "10.244.1.2".parse().unwrap();
        let (here, away) = (
            Mapping::Translated { address: "192.0.2.1".parse().unwrap(), network: None },
            Mapping::Steered { slot: 1 },
        );
        let lately = |readings: &[(Mapping, u64)]| {
            let counters = Counters::default();
            let mut sum = 0;
            for (mapping, dropped) in readings {
                let pods = [(pod, *mapping)].into();
                counters.hold(Some(Arc::new(Content { pods, ..Content::default() })));
                sum += dropped;
                counters.read(Count::Dropped, [(pod, sum)]);
            }
            counters.all()[&pod].lately
        };
        assert_eq!(lately(&[(here, 9), (here, 5), (here, 5), (here, 5)]), 15, "the first may be of before");
        assert_eq!(lately(&[(here, 9), (here, 5), (here, 5)]), 0, "it may be over");
        assert_eq!(lately(&[(here, 0), (here, 700), (here, 0), (here, 0), (here, 3), (here, 0)]), 0, "now and then");
        let long: Vec<(Mapping, u64)> = (0..20).map(|_| (away, 2)).collect();
        assert_eq!(lately(&long), 10, "of ten seconds");
        assert_eq!(lately(&[(Mapping::Held, 5); 9]), 0, "it has no way");
        let mut moved = vec![(Mapping::Held, 5); 9];
        moved.extend([(here, 5), (here, 0), (here, 0), (here, 0)]);
        assert_eq!(lately(&moved), 0);
        let mut over = vec![(here, 5); 9];
        over.extend([(here, 0); 3]);
        assert_eq!(lately(&over), 0, "it is over");
    }

    /// Input: readings of what a steered pod has dropped and of its connections that passed the translation. Output: nothing
    /// gets out, where packets are dropped in each reading of ten seconds and no connection passed.
    #[test]
    fn a_pod_is_stuck_while_each_reading_has_drops_and_no_connection_passes() {
        let pod: IpAddr = "10.244.1.2".parse().unwrap();
        let stuck = |readings: &[(u64, u64)]| {
            let counters = Counters::default();
            let pods = [(pod, Mapping::Steered { slot: 1 })].into();
            counters.hold(Some(Arc::new(Content { pods, ..Content::default() })));
            let (mut all_dropped, mut all_passed) = (0, 7);
            for (dropped, passed) in readings {
                (all_dropped, all_passed) = (all_dropped + dropped, all_passed + passed);
                counters.read(Count::Dropped, [(pod, all_dropped)]);
                counters.read(Count::Translated, [(pod, all_passed)]);
            }
            counters.all()[&pod].stuck
        };
        assert!(stuck(&[(50, 0); 8]));
        assert!(!stuck(&[(50, 0); 4]), "not for long enough");
        assert!(!stuck(&[(50, 1); 8]), "others pass");
        assert!(!stuck(&[(50, 0), (50, 0), (50, 0), (0, 0), (50, 0), (50, 0), (50, 0)]), "now and then");
        assert!(stuck(&[(50, 1), (50, 1), (50, 0), (50, 0), (50, 0), (50, 0), (50, 0), (50, 0)]));
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
