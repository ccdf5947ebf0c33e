//! What the table is to hold, over time: what the plan wants, and the pods that it wants no more, held for a while yet.
//! Floor 1.
//!
//! How to drive it: tell it every slice by [`Machine::handle_plan`] and, at the start, what the kernel holds by
//! [`Machine::handle_held`]; put [`Machine::content`] into the kernel, and come back at [`Machine::next_deadline`] for
//! [`Machine::handle_timeout`]. Spare calls are harmless.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ruleset::{Content, Foreign, Hold, Networks, Tunnel};
use crate::address::LINK_LOCAL;
use crate::plan::slice::{EgressSlice, HoldSlice, Hop, Mapping, ReturnTable};
use crate::world::{Destinations, PodMark};

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    release_after: Duration,
    content: Content,
    /// Pods that nobody asks for any more.
    released: BTreeMap<IpAddr, Release>,
    /// What an earlier life of the agent knew of pods that may be nobody's, until all objects are known.
    adopted: BTreeMap<IpAddr, Release>,
    /// Which pod has an address that is held to anything.
    marks: BTreeMap<IpAddr, PodMark>,
    /// Addresses that are another pod's now, of which nobody has asked yet.
    let_go: BTreeSet<IpAddr>,
    /// The highest number that a list of destinations was given.
    last_list: u32,
    /// How packets left in an earlier life of the agent, until this one knows the owners.
    former: Option<Former>,
    /// Whose addresses of new pods an earlier life knew, until this one knows them.
    held_before: Hold,
}

/// The ways that the kernel's table led packets by when the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ways {
    pub pods: BTreeMap<IpAddr, Mapping>,
    /// The next hops to owners.
    pub via: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Former {
    ways: Ways,
    until: Instant,
}

/// For so long at most packets go the way they went before the agent started, where nobody says who owns their address.
const FORMER_WAYS: Duration = Duration::from_secs(5);

/// That a pod is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    pub due: Instant,
    /// The pod that had the address when it was last asked for, where that is known.
    pub pod: Option<PodMark>,
}

/// A pod that an earlier life of the agent guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarded {
    pub pod: IpAddr,
    /// Where it was held to, if not to all destinations outside of the cluster.
    pub destinations: Option<Arc<Destinations>>,
    pub kept: Option<Kept>,
}

/// What is kept over a restart of a pod that nobody asks for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// How long it has been so.
    pub for_nobody: Duration,
    pub pod: Option<PodMark>,
}

type Lists = BTreeMap<u32, Arc<Destinations>>;

impl Machine {
    /// `release_after`: how long a pod is held that no Service asks for any more.
    pub fn new(release_after: Duration) -> Machine {
        Machine {
            release_after,
            content: Content::default(),
            released: BTreeMap::new(),
            adopted: BTreeMap::new(),
            marks: BTreeMap::new(),
            let_go: BTreeSet::new(),
            last_list: 0,
            former: None,
            held_before: Hold::default(),
        }
    }

    /// What the table is to hold.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// No pod is held to an address, no new pod is held back, and there is no extra network.
    pub fn is_idle(&self) -> bool {
        self.content.pods.is_empty() && self.content.networks.is_empty() && self.content.hold.networks.is_empty()
    }

    /// The pods that nobody asks for any more.
    pub fn released(&self) -> &BTreeMap<IpAddr, Release> {
        &self.released
    }

    /// What the next life of the agent is to know, for [`Guarded`].
    pub fn kept(&self, now: Instant) -> BTreeMap<IpAddr, Kept> {
        let kept = |Release { due, pod }: &Release| {
            let left = due.saturating_duration_since(now);
            Kept { for_nobody: self.release_after.saturating_sub(left), pod: *pod }
        };
        self.adopted.iter().chain(&self.released).map(|(address, release)| (*address, kept(release))).collect()
    }

    /// The addresses that became another pod's since the last call.
    pub fn take_let_go(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.let_go)
    }

    /// Pods that an earlier life of the agent guarded. Until the plan asks for them, or for nobody, they are held.
    pub fn handle_held(&mut self, pods: impl IntoIterator<Item = Guarded>, now: Instant) {
        let mut numbers: BTreeMap<Arc<Destinations>, u32> = numbers(&self.content.lists);
        for Guarded { pod, destinations, kept } in pods {
            if self.content.pods.contains_key(&pod) {
                continue;
            }
            self.content.pods.insert(pod, Mapping::Held);
            if let Some(list) = destinations {
                let number = self.number(&mut numbers, &list);
                self.content.bounded.insert(pod, number);
                self.content.lists.insert(number, list);
            }
            if let Some(Kept { for_nobody, pod: mark }) = kept {
                let due = now + self.release_after.saturating_sub(for_nobody);
                self.adopted.insert(pod, Release { due, pod: mark });
            }
        }
    }

    /// How these pods' packets went in an earlier life of the agent. They go on so while owners are not known yet.
    pub fn handle_ways(&mut self, ways: Ways, now: Instant) {
        self.former = Some(Former { ways, until: now + FORMER_WAYS });
    }

    /// What an earlier life of the agent held back of new pods. What it knew stays known until the Pods are.
    pub fn handle_hold(&mut self, hold: Hold) {
        self.held_before = hold;
    }

    /// The addresses that packets left with then; none once the plan knows better.
    pub fn former_sources(&self) -> BTreeSet<IpAddr> {
        let pods = self.former.iter().flat_map(|former| former.ways.pods.values());
        pods.filter_map(Mapping::translated).collect()
    }

    pub fn handle_plan(&mut self, slice: &EgressSlice, now: Instant) {
        self.former.take_if(|former| slice.settled || former.until <= now);
        let mut pods: BTreeMap<IpAddr, Mapping> = slice.pods.iter().map(|(pod, mapping)| (*pod, *mapping)).collect();
        for pod in self.content.pods.keys().filter(|pod| !slice.pods.contains_key(*pod)) {
            // While the plan lacks what is not listed yet, a pod is not known to be nobody's.
            if slice.complete {
                let begin = || Release { due: now + self.release_after, pod: self.marks.get(pod).copied() };
                let begin = || self.adopted.get(pod).copied().unwrap_or_else(begin);
                let release = *self.released.entry(*pod).or_insert_with(begin);
                if release.pod.is_some() && slice.let_go.get(pod) == release.pod.as_ref() {
                    self.let_go.insert(*pod);
                    continue;
                }
                if release.due <= now {
                    continue;
                }
            }
            pods.insert(*pod, Mapping::Held);
        }
        if let Some(Former { ways, until: _ }) = &self.former {
            let held = pods
                .iter_mut()
                .filter(|(pod, mapping)| **mapping == Mapping::Held && !self.released.contains_key(*pod));
            held.for_each(|(pod, mapping)| *mapping = ways.pods.get(pod).copied().unwrap_or(Mapping::Held));
            // The plan may not have heard yet with which of the node's addresses they left.
            for (pod, mapping) in &mut pods {
                if let (Mapping::Networked(exit), Some(source)) =
                    (mapping, ways.pods.get(pod).and_then(Mapping::translated))
                {
                    exit.source = source;
                }
            }
        }
        self.released.retain(|pod, _| pods.contains_key(pod) && !slice.pods.contains_key(pod));
        self.adopted.retain(|pod, _| !slice.complete && !slice.pods.contains_key(pod));
        let mark = |pod: &IpAddr| match slice.pods.contains_key(pod) {
            true => slice.marks.get(pod).copied(),
            false => self.marks.get(pod).copied(),
        };
        self.marks = pods.keys().filter_map(|pod| Some((*pod, mark(pod)?))).collect();
        let (bounded, lists) = self.lists(&pods, slice);
        let hops = slice.hops.values().flatten().flatten();
        let (former, marking): (Vec<_>, Vec<_>) = slice.networks.iter().partition(|it| it.former);
        let links = marking.iter().flat_map(|it| it.links.keys().map(|link| (*link, it.slot)));
        let alone = marking.iter().filter(|it| matches!(it.table, ReturnTable::Own { .. }));
        let alone = alone.flat_map(|it| it.links.keys().map(|link| (*link, it.slot))).collect();
        let former = former.iter().map(|it| it.slot).collect();
        let by_tunnel = |hop: &Option<Hop>| matches!(hop, Some(Hop::Tunnel { .. }));
        let tunnelled = slice.hops.iter().filter(|(_, hops)| hops.iter().any(by_tunnel)).map(|(slot, _)| *slot);
        let (links, served, tunnelled) = (links.collect(), slice.served.clone(), tunnelled.collect());
        let networks = Networks { links, alone, former, served, tunnelled };
        let next_hop = |hop: &Hop| match hop {
            Hop::Link { via, link: _ } => Some(*via),
            Hop::Tunnel { .. } => None,
        };
        let former = self.former.iter().flat_map(|former| former.ways.via.iter().copied());
        let via = hops.filter_map(next_hop).chain(former).collect();
        // What is on the link of the pod's node is not behind the owner: a metadata service, a cache of names.
        let cluster = slice.cluster.iter().copied().chain(LINK_LOCAL).collect();
        let foreign = if !slice.complete || self.is_taken_for_owner(&pods) {
            Foreign { networks: (*slice.pod_networks).clone(), links: (*slice.shared_links).clone() }
        } else {
            Foreign::default()
        };
        let tunnel = slice
            .tunnel
            .as_ref()
            .filter(|end| !end.foreign)
            .map(|end| Tunnel { peers: end.peers.clone(), mtu: end.mtu });
        let (egress, leads) = (slice.addresses.clone(), slice.leads.clone());
        let (hops, hold) = (slice.hops.clone(), self.hold(slice));
        self.content =
            Content { pods, bounded, lists, cluster, foreign, hold, via, hops, egress, leads, networks, tunnel };
    }

    /// What is held back of new pods. Until the Pods are known an earlier life of the agent knew best. Where there was none and the API server
    /// answers, they are known in a moment, and pods that have been there for long are not to suffer for it.
    fn hold(&mut self, slice: &EgressSlice) -> Hold {
        let uplinks = || (*slice.shared_links).clone();
        let Some(HoldSlice { networks, known, ending }) = slice.hold.as_deref() else { return Hold::default() };
        if let Some(known) = known {
            self.held_before = Hold::default();
            let (known, ending) = (known.clone(), ending.clone());
            return Hold { networks: networks.clone(), known, ending, uplinks: uplinks() };
        }
        match self.held_before.networks.is_empty() && slice.complete {
            true => Hold::default(),
            false => Hold { networks: networks.clone(), uplinks: uplinks(), ..self.held_before.clone() },
        }
    }

    /// Others may send packets of their pods here before this node knows these: it owns an address, or a Service that is gone may come
    /// back.
    fn is_taken_for_owner(&self, pods: &BTreeMap<IpAddr, Mapping>) -> bool {
        !self.released.is_empty() || pods.values().any(|mapping| matches!(mapping, Mapping::Translated { .. }))
    }

    /// The lists of destinations of the pods. A pod that nobody asks for any more is held to where it was held before. A list keeps
    /// its number, and no number ever means another list.
    fn lists(&mut self, pods: &BTreeMap<IpAddr, Mapping>, slice: &EgressSlice) -> (BTreeMap<IpAddr, u32>, Lists) {
        let mut numbers = numbers(&self.content.lists);
        let (mut bounded, mut lists) = (BTreeMap::new(), Lists::new());
        for pod in pods.keys() {
            let before = || self.content.bounded.get(pod).and_then(|number| self.content.lists.get(number));
            let list = if slice.pods.contains_key(pod) { slice.bounded.get(pod) } else { before() };
            let Some(list) = list.cloned() else { continue };
            let number = self.number(&mut numbers, &list);
            bounded.insert(*pod, number);
            lists.insert(number, list);
        }
        (bounded, lists)
    }

    fn number(&mut self, numbers: &mut BTreeMap<Arc<Destinations>, u32>, list: &Arc<Destinations>) -> u32 {
        *numbers.entry(list.clone()).or_insert_with(|| {
            self.last_list = self.last_list.wrapping_add(1);
            self.last_list
        })
    }

    /// Lets go the pods that were held long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<IpAddr> = self.released.iter().filter(|(_, it)| it.due <= now).map(|(pod, _)| *pod).collect();
        for pod in due {
            self.released.remove(&pod);
            self.content.pods.remove(&pod);
            self.content.bounded.remove(&pod);
            self.marks.remove(&pod);
        }
        if !self.is_taken_for_owner(&self.content.pods) {
            self.content.foreign = Foreign::default();
        }
        let used: BTreeSet<u32> = self.content.bounded.values().copied().collect();
        self.content.lists.retain(|number, _| used.contains(number));
    }

    /// When to call [`Machine::handle_timeout`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.released.values().map(|release| release.due).chain(self.former.as_ref().map(|it| it.until)).min()
    }
}

fn numbers(lists: &Lists) -> BTreeMap<Arc<Destinations>, u32> {
    lists.iter().map(|(number, list)| (list.clone(), *number)).collect()
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::clock;
    use crate::plan::slice::{Exit, ReturnNetwork, TunnelEnd};
    use crate::world::Tenant;

    const RELEASE: Duration = Duration::from_secs(600);

    fn pod(number: u8) -> IpAddr {
        IpAddr::from([10, 244, 1, number])
    }

    fn slice(complete: bool, pods: &[(u8, Mapping)]) -> EgressSlice {
        let pods = pods.iter().map(|(number, mapping)| (pod(*number), *mapping)).collect();
        EgressSlice { complete, pods, ..EgressSlice::default() }
    }

    /// Input: the Pods are known and not known, with and without a table of an earlier life. Output: the known addresses; `None`: nothing is
    /// held.
    #[test]
    fn what_was_known_stays_known_until_the_pods_are_and_after_a_boot_nothing_is() {
        let now = clock::now();
        let networks: BTreeSet<IpNet> = ["10.244.1.0/24".parse().unwrap()].into();
        let plan = |complete: bool, known: Option<&[u8]>| {
            let known = known.map(|known| known.iter().map(|it| pod(*it)).collect());
            let hold = HoldSlice { networks: networks.clone(), known, ending: Default::default() };
            EgressSlice { hold: Some(Arc::new(hold)), ..slice(complete, &[]) }
        };
        let known = |machine: &Machine| {
            let hold = &machine.content().hold;
            (!hold.networks.is_empty()).then(|| hold.known.iter().copied().collect::<Vec<_>>())
        };
        let mut booted = Machine::new(RELEASE);
        booted.handle_plan(&plan(false, None), now);
        assert_eq!(known(&booted), Some(vec![]), "the API server is away: whoever is new is nobody");
        assert!(!booted.is_idle());
        let mut first = Machine::new(RELEASE);
        first.handle_plan(&plan(true, None), now);
        assert_eq!(known(&first), None, "they are about to be listed");
        first.handle_plan(&plan(true, Some(&[1, 2])), now);
        assert_eq!(known(&first), Some(vec![pod(1), pod(2)]));
        let mut restarted = Machine::new(RELEASE);
        let before = Hold { networks: networks.clone(), known: [pod(1)].into_iter().collect(), ..Hold::default() };
        restarted.handle_hold(before);
        restarted.handle_plan(&plan(true, None), now);
        assert_eq!(known(&restarted), Some(vec![pod(1)]));
        restarted.handle_plan(&plan(true, Some(&[2])), now);
        assert_eq!(known(&restarted), Some(vec![pod(2)]), "the first one ended meanwhile");
        restarted.handle_plan(&slice(true, &[]), now);
        assert_eq!(known(&restarted), None, "no Service has egress any more");
        assert!(restarted.is_idle());
    }

    #[test]
    fn after_a_restart_packets_leave_by_a_network_with_the_source_of_before_until_the_plan_has_heard_of_it() {
        let (now, exit) =
            (clock::now(), |source| Mapping::Networked(Exit { slot: None, link: 3, source: pod(source) }));
        let mut machine = Machine::new(RELEASE);
        machine.handle_ways(
            Ways {
                pods: [(pod(1), Mapping::Translated { address: pod(111), network: None })].into(),
                ..Ways::default()
            },
            now,
        );
        assert_eq!(machine.former_sources(), [pod(111)].into());
        let plan = || slice(true, &[(1, exit(104)), (2, exit(104))]);
        machine.handle_plan(&plan(), now);
        assert_eq!(machine.content().pods, [(pod(1), exit(111)), (pod(2), exit(104))].into());
        machine.handle_plan(&EgressSlice { settled: true, ..plan() }, now);
        assert_eq!(machine.content().pods[&pod(1)], exit(104), "the plan decides");
        assert!(machine.former_sources().is_empty());
    }

    #[test]
    fn after_a_restart_packets_go_as_they_went_until_owners_are_known_and_no_longer_than_a_while() {
        let now = clock::now();
        let (to_owner, here) = (Mapping::Steered { slot: 3 }, Mapping::Translated { address: pod(200), network: None });
        let adopt = || {
            let mut machine = Machine::new(RELEASE);
            machine.handle_held((1..=3).map(|it| Guarded { pod: pod(it), destinations: None, kept: None }), now);
            let pods = [(pod(1), to_owner), (pod(2), here)].into();
            machine.handle_ways(Ways { pods, via: [pod(9)].into() }, now);
            machine
        };
        let mut machine = adopt();
        let mappings = |machine: &Machine| machine.content().pods.values().copied().collect::<Vec<_>>();
        // Nothing is listed; then all, and the owners are heard one after the other.
        machine.handle_plan(&slice(false, &[]), now);
        assert_eq!(mappings(&machine), [to_owner, here, Mapping::Held]);
        assert!(machine.content().via.contains(&pod(9)), "the guard passes packets by the former next hop");
        let elsewhere = Mapping::Steered { slot: 1 };
        machine.handle_plan(&slice(true, &[(1, Mapping::Held), (2, elsewhere)]), now);
        assert_eq!(mappings(&machine), [to_owner, elsewhere, Mapping::Held], "the third is nobody's");
        let known = EgressSlice { settled: true, ..slice(true, &[(1, Mapping::Held), (2, elsewhere)]) };
        machine.handle_plan(&known, now);
        assert_eq!(mappings(&machine), [Mapping::Held, elsewhere, Mapping::Held]);
        assert!(!machine.content().via.contains(&pod(9)));
        machine.handle_plan(&slice(true, &[(1, Mapping::Held), (2, elsewhere)]), now);
        assert_eq!(mappings(&machine)[0], Mapping::Held, "what is over does not come back");
        // Nobody is ever heard.
        let mut machine = adopt();
        machine.handle_plan(&slice(true, &[(1, Mapping::Held)]), now);
        let due = machine.next_deadline().expect("the former ways end");
        machine.handle_plan(&slice(true, &[(1, Mapping::Held)]), due);
        assert_eq!(mappings(&machine)[0], Mapping::Held);
    }

    #[test]
    fn a_pod_whose_service_is_gone_is_held_for_a_while_and_then_let_go() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        let translated = Mapping::Translated { address: "192.0.2.1".parse().unwrap(), network: None };
        machine.handle_plan(&slice(true, &[(1, translated)]), now);
        assert_eq!(machine.content().pods[&pod(1)], translated);
        machine.handle_plan(&slice(true, &[]), now);
        assert_eq!(machine.content().pods[&pod(1)], Mapping::Held);
        assert_eq!(machine.next_deadline(), Some(now + RELEASE));
        machine.handle_plan(&slice(true, &[]), now + RELEASE / 2);
        assert_eq!(machine.next_deadline(), Some(now + RELEASE), "asking again does not begin it anew");
        machine.handle_timeout(now + RELEASE);
        assert!(machine.is_idle() && machine.next_deadline().is_none());
    }

    #[test]
    fn pods_that_are_not_known_are_kept_back_while_others_may_take_this_node_for_an_owner() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        let networks: BTreeSet<_> = ["10.244.0.0/16".parse().unwrap()].into();
        let mut put = |pods: &[(u8, Mapping)], complete| {
            let (pod_networks, shared_links) = (Arc::new(networks.clone()), Arc::new([2].into()));
            machine.handle_plan(&EgressSlice { pod_networks, shared_links, ..slice(complete, pods) }, now);
            !machine.content().foreign.links.is_empty() && machine.content().foreign.networks == networks
        };
        let translated = Mapping::Translated { address: "192.0.2.1".parse().unwrap(), network: None };
        assert!(put(&[], false), "not all objects are known");
        assert!(!put(&[(1, Mapping::Held)], true));
        // The nodes here send each other's pods on: whoever is no owner routes what a node behind it has.
        assert!(!put(&[(1, Mapping::Steered { slot: 1 })], true));
        assert!(put(&[(1, translated)], true));
        assert!(put(&[], true), "the Service may come back at once");
        machine.handle_timeout(now + RELEASE);
        assert_eq!(machine.content().foreign, Foreign::default());
    }

    fn mark(uid: &str) -> PodMark {
        Tenant::of(uid, false).pod().expect("it is known")
    }

    /// Whose pod is told, and the addresses that are another's.
    fn told(pods: &[(u8, &str)], let_go: &[(u8, &str)]) -> EgressSlice {
        let mappings: Vec<(u8, Mapping)> = pods.iter().map(|(number, _)| (*number, Mapping::Held)).collect();
        let marks = |all: &[(u8, &str)]| all.iter().map(|(number, uid)| (pod(*number), mark(uid))).collect::<Vec<_>>();
        EgressSlice {
            marks: marks(pods).into_iter().collect(),
            let_go: Arc::new(marks(let_go).into_iter().collect()),
            ..slice(true, &mappings)
        }
    }

    #[test]
    fn an_address_that_is_another_pods_is_let_go_at_once_if_it_was_held_for_that_very_pod() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        machine.handle_plan(&told(&[(1, "web-1"), (2, "web-2")], &[]), now);
        machine.handle_plan(&told(&[], &[]), now);
        assert_eq!(machine.released()[&pod(1)], Release { due: now + RELEASE, pod: Some(mark("web-1")) });
        // What was found out about an earlier pod of the address says nothing about this one.
        machine.handle_plan(&told(&[], &[(1, "before"), (2, "web-2")]), now);
        assert_eq!(machine.content().pods.keys().copied().collect::<Vec<_>>(), [pod(1)]);
        assert_eq!(machine.take_let_go(), BTreeSet::from([pod(2)]), "its connections are to end");
        assert_eq!(machine.take_let_go(), BTreeSet::new());
        machine.handle_plan(&told(&[(1, "web-3")], &[(1, "web-1")]), now);
        assert_eq!(machine.content().pods.len(), 1, "a Service asks for it");
        machine.handle_plan(&told(&[], &[(1, "web-1")]), now);
        assert_eq!(machine.content().pods.len(), 1, "it is held for web-3");
        // Of a pod that is not known nothing is certain.
        machine.handle_plan(&slice(true, &[(4, Mapping::Held)]), now);
        machine.handle_plan(&told(&[], &[(4, "other")]), now);
        assert!(machine.content().pods.contains_key(&pod(4)));
    }

    #[test]
    fn how_long_a_pod_was_nobodys_counts_over_restarts_and_only_once_all_is_known() {
        let now = clock::now();
        let mut machine = Machine::new(RELEASE);
        machine.handle_plan(&told(&[(1, "web-1")], &[]), now);
        machine.handle_plan(&told(&[], &[]), now);
        let mut kept = machine.kept(now + RELEASE / 4);
        assert_eq!(kept[&pod(1)], Kept { for_nobody: RELEASE / 4, pod: Some(mark("web-1")) });
        // Twice, each time before the objects are listed.
        for life in 2..4 {
            let mut machine = Machine::new(RELEASE);
            let guarded =
                |number| Guarded { pod: pod(number), destinations: None, kept: kept.get(&pod(number)).copied() };
            machine.handle_held([1, 2].map(guarded), now);
            machine.handle_plan(&slice(false, &[]), now);
            assert_eq!(machine.next_deadline(), None);
            kept = machine.kept(now + RELEASE / 4);
            assert_eq!(kept[&pod(1)].for_nobody, RELEASE / 4 * life);
            assert!(!kept.contains_key(&pod(2)), "nobody knows yet that it is nobody's");
        }
        let mut machine = Machine::new(RELEASE);
        let guarded = |number| Guarded { pod: pod(number), destinations: None, kept: kept.get(&pod(number)).copied() };
        machine.handle_held([1, 2].map(guarded), now);
        machine.handle_plan(&slice(true, &[]), now);
        assert_eq!(machine.next_deadline(), Some(now + RELEASE / 4));
        machine.handle_timeout(now + RELEASE / 4);
        assert_eq!(machine.content().pods.keys().copied().collect::<Vec<_>>(), [pod(2)]);
        // Longer than that, with the pod that it was: at once, unless a Service asks for it again.
        for asked in [false, true] {
            let mut machine = Machine::new(RELEASE);
            let kept = Some(Kept { for_nobody: RELEASE * 2, pod: None });
            machine.handle_held([Guarded { pod: pod(1), destinations: None, kept }], now);
            assert_eq!(machine.content().pods.len(), 1);
            if asked {
                machine.handle_plan(&slice(false, &[(1, Mapping::Held)]), now);
            }
            machine.handle_plan(&slice(true, &[]), now);
            assert_eq!(machine.is_idle(), !asked);
        }
    }

    #[test]
    fn what_an_earlier_life_held_to_some_destinations_stays_held_to_these() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        let list = |net: &str| Arc::new(Destinations { to: vec![net.parse().unwrap()], except: Vec::new() });
        let bounded = |number, net: &str| Guarded { pod: pod(number), destinations: Some(list(net)), kept: None };
        machine.handle_held(
            [
                bounded(1, "203.0.113.0/24"),
                bounded(2, "203.0.113.0/24"),
                Guarded { pod: pod(3), destinations: None, kept: None },
            ],
            now,
        );
        for complete in [false, true] {
            machine.handle_plan(&slice(complete, &[(2, Mapping::Held)]), now);
            let (content, outside) = (machine.content(), "198.51.100.1".parse().unwrap());
            assert!(content.exempts(pod(1), outside), "it leaves there as it did");
            assert!(!content.exempts(pod(1), "203.0.113.7".parse().unwrap()), "and is held where it had the address");
            assert!(!content.exempts(pod(2), outside), "its Service has no list any more");
            assert!(!content.exempts(pod(3), outside));
            assert_eq!(content.lists.len(), 1);
        }
    }

    #[test]
    fn a_pod_that_is_wanted_again_is_not_let_go() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        machine.handle_plan(&slice(true, &[(1, Mapping::Held)]), now);
        machine.handle_plan(&slice(true, &[]), now);
        machine.handle_plan(&slice(true, &[(1, Mapping::Held)]), now);
        machine.handle_timeout(now + RELEASE);
        assert_eq!(machine.content().pods.len(), 1);
    }

    #[test]
    fn what_an_earlier_life_guarded_stays_guarded_until_all_is_listed_and_for_a_while_then() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        machine.handle_held([1, 2].map(|number| Guarded { pod: pod(number), destinations: None, kept: None }), now);
        machine.handle_plan(&slice(false, &[(2, Mapping::Steered { slot: 1 })]), now);
        assert_eq!(machine.content().pods[&pod(1)], Mapping::Held);
        assert_eq!(machine.content().pods[&pod(2)], Mapping::Steered { slot: 1 });
        machine.handle_timeout(now + 2 * RELEASE);
        assert_eq!(machine.content().pods.len(), 2, "nobody knows yet that it is nobody's");
        machine.handle_plan(&slice(true, &[]), now + 2 * RELEASE);
        machine.handle_timeout(now + 3 * RELEASE);
        assert!(machine.is_idle());
    }

    #[test]
    fn a_pod_that_nobody_asks_for_any_more_is_held_to_the_destinations_that_it_was_held_to() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        let list = |net: &str| Arc::new(Destinations { to: vec![net.parse().unwrap()], except: Vec::new() });
        let with = |bounded: &[(u8, &str)]| {
            let pods: Vec<(u8, Mapping)> = bounded.iter().map(|(number, _)| (*number, Mapping::Held)).collect();
            let lists = bounded.iter().map(|(number, net)| (pod(*number), list(net)));
            EgressSlice { bounded: lists.collect(), ..slice(true, &pods) }
        };
        machine.handle_plan(&with(&[(1, "192.0.2.0/24"), (2, "192.0.2.0/24"), (3, "10.0.0.0/8")]), now);
        let content = machine.content();
        assert_eq!(content.bounded[&pod(1)], content.bounded[&pod(2)], "one list, one number");
        assert_eq!(content.lists.len(), 2);
        let first = content.bounded[&pod(1)];
        // Another list of the same Service has another number, and the pod of the deleted one keeps its own.
        machine.handle_plan(&with(&[(1, "198.51.100.0/24"), (2, "192.0.2.0/24")]), now);
        let content = machine.content();
        assert!(!content.exempts(pod(1), "198.51.100.1".parse().unwrap()));
        assert_eq!(content.bounded[&pod(2)], first);
        assert!(content.exempts(pod(3), "192.0.2.1".parse().unwrap()), "it leaves as it did");
        assert!(!content.exempts(pod(3), "10.1.1.1".parse().unwrap()), "and is held where it had the address");
        machine.handle_timeout(now + RELEASE);
        assert_eq!(machine.content().lists.len(), 2, "the list of the pod that was let go is gone");
    }

    #[test]
    fn nothing_new_is_marked_with_the_number_of_a_former_network_and_its_replies_still_go_by_it() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        let network = |name: &str, link: u32, slot, former| ReturnNetwork {
            name: name.into(),
            slot,
            links: [(link, name.into())].into(),
            table: ReturnTable::Own { gateways: BTreeMap::new(), subnets: Vec::new() },
            former,
        };
        let both = Arc::new(vec![network("eth0", 2, 14, false), network("eth1", 3, 15, true)]);
        machine.handle_plan(&EgressSlice { networks: both, ..slice(true, &[]) }, now);
        let networks = &machine.content().networks;
        assert_eq!((networks.links.clone(), networks.former.clone()), ([(2, 14)].into(), [15].into()));
        let former = Arc::new(vec![network("eth1", 3, 15, true)]);
        machine.handle_plan(&EgressSlice { networks: former, ..slice(true, &[]) }, now);
        assert!(!machine.is_idle(), "the table stays for it alone");
    }

    #[test]
    fn packets_for_the_tunnel_lose_their_mark_once_routed_and_nothing_passes_for_a_device_of_another_program() {
        let (mut machine, now) = (Machine::new(RELEASE), clock::now());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let by_tunnel = Hop::Tunnel { to: ip("10.1.2.12"), from: ip("10.1.1.11") };
        let by_link = Hop::Link { via: ip("192.168.35.12"), link: 2 };
        let with = |foreign: bool| EgressSlice {
            hops: Arc::new([(1, [Some(by_tunnel.clone()), None]), (2, [Some(by_link.clone()), None])].into()),
            tunnel: Some(Arc::new(TunnelEnd { peers: [ip("10.1.2.12")].into(), foreign, mtu: Some(1464) })),
            ..slice(true, &[(1, Mapping::Steered { slot: 1 })])
        };
        machine.handle_plan(&with(false), now);
        let content = machine.content();
        assert_eq!(content.networks.tunnelled, BTreeSet::from([1]), "the outer packets would go round in the tunnel");
        assert_eq!(content.via, BTreeSet::from([ip("192.168.35.12")]));
        assert_eq!(content.tunnel, Some(Tunnel { peers: [ip("10.1.2.12")].into(), mtu: Some(1464) }));
        machine.handle_plan(&with(true), now);
        assert_eq!(machine.content().tunnel, None);
    }

    #[test]
    fn without_a_delay_a_pod_is_let_go_at_once() {
        let (mut machine, now) = (Machine::new(Duration::ZERO), clock::now());
        machine.handle_plan(&slice(true, &[(1, Mapping::Held)]), now);
        machine.handle_plan(&slice(true, &[]), now);
        assert!(machine.is_idle());
    }

    /// Input: pods with egress, and cluster networks. Output: what they send to a link-local address is left alone as what they send to
    /// the cluster is: no address is given to it, no mark leads it to the owner, and nothing holds it.
    #[test]
    fn link_local_destinations_are_left_alone_as_those_in_the_cluster_are() {
        let mut machine = Machine::new(Duration::from_secs(600));
        let inside: IpNet = "10.244.0.0/16".parse().unwrap();
        let pods = slice(true, &[(1, Mapping::Steered { slot: 1 }), (2, Mapping::Held)]);
        machine.handle_plan(&EgressSlice { cluster: Arc::new([inside].into()), ..pods }, clock::now());
        let cluster = &machine.content().cluster;
        for (destination, is_left_alone) in
            [("169.254.169.254", true), ("fe80::1", true), ("10.244.9.9", true), ("192.0.2.1", false)]
        {
            let destination: IpAddr = destination.parse().unwrap();
            assert_eq!(cluster.iter().any(|net| net.contains(&destination)), is_left_alone, "{destination}");
        }
    }
}
