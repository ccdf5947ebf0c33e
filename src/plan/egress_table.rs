//! The egress table: of every pod whose packets may leave the cluster only with its Service's address, how they do.
//! Floor 1. It keeps what the verdicts ask for; `egress::task` and `kernel::steering` do it.
//!
//! A node that owns addresses has a slot: the number in the mark that leads packets to it. Two Services of one pod: the first
//! by name decides how packets leave. Bounds by destinations count where all of them have the same: what egress of one Service is not
//! for may be what that of another is for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::{OrdMap, OrdSet};

use crate::address::Family;
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::exits::{self, OwnNetworks};
use crate::plan::slice::{Exit, Hop, Mapping, TunnelEnd};
use crate::plan::verdict::EgressWork;
use crate::plan::verdict::egress::Way;
use crate::reason::Reason;
use crate::world::{Destinations, Link, PodMark, World};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct EgressTable {
    /// What each Service wants. Never empty.
    wanted: BTreeMap<ObjectKey, EgressWork>,
    /// The Services of each pod. Never empty.
    claims: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// The Services with addresses whose next owner is awaited.
    awaiting: BTreeSet<ObjectKey>,
    /// The Services with an owner by election among the Nodes.
    elected: BTreeSet<ObjectKey>,
    slots: BTreeMap<NodeName, Slot>,
    /// How many pods lead to each node.
    users: BTreeMap<NodeName, usize>,
    /// Nodes that pods led to until now, and until when they keep their slots.
    former: BTreeMap<NodeName, Instant>,
    /// Of each address the last owner that was another node.
    last_owners: BTreeMap<IpAddr, NodeName>,
    /// Services whose pods go by the former owner until the next one says that they leave by it.
    bridges: BTreeMap<ObjectKey, Bridge>,
    /// How many pods of all nodes leave by this one.
    hosted: usize,
    /// This node's end of the tunnel, if it is to have one.
    tunnel: Option<Arc<TunnelEnd>>,
    /// Whether it needs one may be otherwise since that was worked out.
    tunnel_stale: bool,
    pods: OrdMap<IpAddr, Mapping>,
    /// The Services' addresses that pods leave with, by whichever node, and how many Services have each.
    addresses: OrdSet<IpAddr>,
    sharers: BTreeMap<IpAddr, usize>,
    bounded: OrdMap<IpAddr, Arc<Destinations>>,
    /// Which pod has each address, where that is known.
    marks: OrdMap<IpAddr, PodMark>,
    /// Pods whose Services want different things, with these Services: the first decides.
    contested: BTreeMap<IpAddr, Vec<ObjectKey>>,
    /// By the addresses whose networks pods leave by: the VRF of the pool, how many pods do, and how, once that was worked out.
    exits: BTreeMap<IpAddr, NetworkUse<Exit>>,
    /// The same of the addresses that pods leave with by this node: the number of the network.
    owned: BTreeMap<IpAddr, NetworkUse<Option<u8>>>,
    /// An address is new among these, or gone.
    exits_stale: bool,
    /// What was known, when the exits were last worked out, of the sources that the previous agent used.
    sources: BTreeSet<IpAddr>,
    moved: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bridge {
    until: Instant,
    /// It has lasted as long as it may.
    over: bool,
}

/// For so long at most packets go by the former owner of an address: as long as an agent that stops waits for its heir, and no longer.
const BRIDGED: Duration = Duration::from_millis(900);

/// For so long a former owner keeps its slot. The table and the route change one after the other, and answers to what it
/// translated last go there.
const FORMER: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct NetworkUse<T> {
    vrf: Option<InterfaceName>,
    pods: usize,
    exit: Option<Result<T, Reason>>,
    /// The last one that there was: the link may have been down.
    last: Option<T>,
}

impl NetworkUse<Option<u8>> {
    /// By which network packets leave with the address; `None` where they do not. Most do by none, also before that was worked out.
    fn network(&self) -> Option<Option<u8>> {
        match &self.exit {
            Some(network) => network.as_ref().ok().copied(),
            None => self.vrf.is_none().then_some(None),
        }
    }
}

/// The way to a node that owns addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    number: u8,
    v4: Result<Hop, Reason>,
    v6: Result<Hop, Reason>,
}

/// What the ways to owners depend on besides the World.
#[derive(Debug, Clone, Copy)]
pub struct Roads<'a> {
    pub me: &'a NodeName,
    /// As many nodes can have a slot.
    pub slots: u8,
    /// The device of the tunnel; `None`: none is to be made.
    pub tunnel: Option<&'a InterfaceName>,
}

impl EgressTable {
    /// What a Service wants, with the ways of before for pods that have none now: an agent that leaves sees owners no more, and packets go on as they
    /// went, but for those that another node takes over.
    pub fn or_as_before(&self, service: &ObjectKey, mut wanted: EgressWork) -> EgressWork {
        if let Some(before) = self.wanted.get(service) {
            let lost = wanted.pods.iter_mut().filter(|(_, way)| way.is_none());
            lost.for_each(|(pod, way)| *way = way_of(before, *pod).cloned());
        }
        wanted
    }

    /// What a Service wants, with the ways of before for pods whose address has a new owner that has yet to say that they leave by it: until
    /// then they leave by the former one, where that still `goes_on`. The new owner is ready within a moment, or they are held.
    pub fn or_until_ready(
        &mut self,
        service: &ObjectKey,
        mut wanted: EgressWork,
        goes_on: impl Fn(&NodeName, IpAddr) -> bool,
        now: Instant,
    ) -> EgressWork {
        let Some(before) = self.wanted.get(service).filter(|_| !wanted.awaited.is_empty()) else { return wanted };
        let until = || Bridge { until: now + BRIDGED, over: false };
        if self.bridges.entry(service.clone()).or_insert_with(until).over {
            return wanted;
        }
        let EgressWork { pods, awaited, .. } = &mut wanted;
        for (pod, way) in pods.iter_mut().filter(|(_, way)| way.is_none()) {
            *way = way_of(before, *pod).filter(|way| bridges(way, awaited, &goes_on)).cloned();
        }
        wanted
    }

    /// The Services to be judged again, because a former owner was gone by for long enough.
    pub fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        let former = self.former.len();
        self.former.retain(|_, until| *until > now);
        self.moved |= self.former.len() != former;
        let due = self.bridges.iter_mut().filter(|(_, bridge)| !bridge.over && bridge.until <= now);
        let end = |(service, bridge): (&ObjectKey, &mut Bridge)| {
            bridge.over = true;
            service.clone()
        };
        due.map(end).collect()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let bridges = self.bridges.values().filter(|bridge| !bridge.over).map(|bridge| bridge.until);
        bridges.chain(self.former.values().copied()).min()
    }

    /// All that a Service wants from now on.
    pub fn put(&mut self, service: &ObjectKey, mut wanted: EgressWork, now: Instant) {
        if wanted.pods.is_empty() {
            // Nothing leaves with them.
            wanted.addresses.clear();
            wanted.awaited.clear();
        }
        if wanted.awaited.is_empty() {
            self.bridges.remove(service);
        }
        match wanted.is_elected {
            true => self.elected.insert(service.clone()),
            false => self.elected.remove(service),
        };
        let before = self.wanted.get(service).cloned().unwrap_or_default();
        if before == wanted {
            return;
        }
        let pods: BTreeSet<IpAddr> = before.pods.iter().chain(&wanted.pods).map(|(pod, _)| *pod).collect();
        for (pod, _) in &wanted.pods {
            self.claims.entry(*pod).or_default().insert(service.clone());
        }
        for (pod, _) in before.pods.iter().filter(|(pod, _)| !has_pod(&wanted, *pod)) {
            let Some(services) = self.claims.get_mut(pod) else { continue };
            services.remove(service);
            if services.is_empty() {
                self.claims.remove(pod);
            }
        }
        match wanted.awaited.is_empty() {
            true => self.awaiting.remove(service),
            false => self.awaiting.insert(service.clone()),
        };
        self.count_addresses(&before, &wanted);
        self.count_users(&before, &wanted, now);
        self.note_owners(&wanted);
        self.count_exits(&before, &wanted);
        match wanted.pods.is_empty() {
            true => drop(self.wanted.remove(service)),
            false => drop(self.wanted.insert(service.clone(), wanted)),
        }
        pods.into_iter().for_each(|pod| self.settle(pod));
        if self.claims.is_empty() {
            self.former.clear();
        }
    }

    /// Works out how the owners are reached, and those that are about to be.
    pub fn renew_hops(&mut self, world: &World, roads: Roads<'_>) {
        let slots = roads.slots;
        let coming = self.awaiting.iter().filter_map(|it| self.wanted.get(it)).flat_map(|work| work.awaited.values());
        let coming: BTreeSet<NodeName> = coming.filter(|owner| *owner != roads.me).cloned().collect();
        let former: Vec<NodeName> = self.former.keys().cloned().collect();
        let before = self.slots.clone();
        // The highest numbers may have been taken for networks since.
        self.slots.retain(|owner, slot| {
            let is_needed = self.users.contains_key(owner) || coming.contains(owner) || former.contains(owner);
            is_needed && slot.number <= slots
        });
        let owners: BTreeSet<NodeName> = self.users.keys().cloned().collect();
        for owner in former.iter().filter(|owner| !owners.contains(*owner) && !coming.contains(*owner)) {
            let [v4, v6] = Family::BOTH.map(|family| self.hop(owner, family, world, roads));
            // One that was reached by the address itself is reached as before.
            let stands = |hop: &Result<Hop, Reason>| match hop {
                Ok(Hop::Link { via, link }) => on_link(world, *via, roads.me) == Some(*link),
                Ok(Hop::Tunnel { .. }) | Err(_) => false,
            };
            if let Some(slot) = self.slots.get_mut(owner) {
                for (hop, now) in [(&mut slot.v4, v4), (&mut slot.v6, v6)] {
                    if now.is_ok() || !stands(hop) {
                        *hop = now;
                    }
                }
            }
        }
        for owner in owners.union(&coming) {
            let [v4, v6] = Family::BOTH.map(|family| self.hop(owner, family, world, roads));
            if let Some(slot) = self.slots.get_mut(owner) {
                (slot.v4, slot.v6) = (v4, v6);
            } else if owners.contains(owner) || v4.is_ok() || v6.is_ok() {
                self.take_slot(owner, [v4, v6], slots);
            }
        }
        if self.slots != before {
            self.moved = true;
            let pods: Vec<IpAddr> = self.claims.keys().copied().collect();
            pods.into_iter().for_each(|pod| self.settle(pod));
        }
    }

    /// A number for a new owner: one that leads the same way already, else one that is free, else that of a former owner.
    fn take_slot(&mut self, owner: &NodeName, [v4, v6]: [Result<Hop, Reason>; 2], slots: u8) {
        let is_former = |name: &NodeName| self.former.contains_key(name) && !self.users.contains_key(name);
        let leads_there =
            |slot: &Slot| slot.v4.as_ref().ok() == v4.as_ref().ok() && slot.v6.as_ref().ok() == v6.as_ref().ok();
        let alike = self.slots.iter().find(|(name, slot)| is_former(name) && leads_there(slot));
        let taken = |number: &u8| self.slots.values().any(|slot| slot.number == *number);
        let free = || (1..=slots).find(|number| !taken(number));
        let spare = || self.slots.keys().find(|name| is_former(name)).cloned();
        let given_up = match alike {
            Some((name, _)) => Some(name.clone()),
            None if free().is_none() => spare(),
            None => None,
        };
        let number = match &given_up {
            Some(name) => self.slots.get(name).map(|slot| slot.number),
            None => free(),
        };
        if let Some(name) = given_up {
            self.slots.remove(&name);
            self.former.remove(&name);
        }
        if let Some(number) = number {
            self.slots.insert(owner.clone(), Slot { number, v4, v6 });
        }
    }

    /// By which slots the owner of an address is reached that another node is, or was until now. It may know a connection that this
    /// node does not.
    pub fn leads(&self) -> OrdMap<IpAddr, u8> {
        let lead = |(address, owner): (&IpAddr, &NodeName)| {
            let slot = self.slots.get(owner)?;
            // What the address itself leads to may be this node.
            let is_of_node = |hop: &Hop| matches!(hop, Hop::Link { via, link: _ } if via != address);
            let hop = slot.hop(Family::of(*address)).as_ref().ok()?;
            is_of_node(hop).then_some((*address, slot.number))
        };
        self.last_owners.iter().filter_map(lead).collect()
    }

    /// Works out how packets leave by networks of this node.
    pub fn renew_exits(&mut self, own: OwnNetworks<'_>) {
        self.exits_stale = false;
        let mut differ = false;
        let sources = &own.world.egress_sources;
        // What was chosen without them is not what packets left with before.
        let is_told = self.sources != *sources;
        self.sources.clone_from(sources);
        for (address, it) in &mut self.exits {
            let before = it.exit.clone().and_then(Result::ok).or(it.last).filter(|_| !is_told);
            let exit = exits::exit(own, *address, it.vrf.as_ref(), before);
            it.last = exit.clone().ok().or(before);
            let exit = Some(exit);
            differ |= it.exit != exit;
            it.exit = exit;
        }
        for (address, it) in &mut self.owned {
            let before = it.network();
            let reason = it.exit.take().and_then(Result::err);
            let network = exits::network(own, *address, it.vrf.as_ref());
            self.moved |= reason.as_ref() != network.as_ref().err();
            it.exit = Some(network);
            differ |= it.network() != before;
        }
        if differ {
            self.moved = true;
            let pods: Vec<IpAddr> = self.claims.keys().copied().collect();
            pods.into_iter().for_each(|pod| self.settle(pod));
        }
    }

    /// Pods leave by networks of this node, or may do so.
    pub fn leaves_by_networks(&self) -> bool {
        !self.exits.is_empty() || !self.owned.is_empty()
    }

    /// Since [`EgressTable::renew_exits`] there are other addresses whose networks pods leave by.
    pub fn exits_are_stale(&self) -> bool {
        self.exits_stale
    }

    /// How packets leave by the networks of addresses, or why they do not.
    pub fn exits(&self) -> BTreeMap<IpAddr, Result<Exit, Reason>> {
        self.exits.iter().filter_map(|(address, it)| Some((*address, it.exit.clone()?))).collect()
    }

    /// Why packets do not leave with addresses that this node has.
    pub fn without_network(&self) -> BTreeMap<IpAddr, Reason> {
        self.owned.iter().filter_map(|(address, it)| Some((*address, it.exit.clone()?.err()?))).collect()
    }

    pub fn pods(&self) -> &OrdMap<IpAddr, Mapping> {
        &self.pods
    }

    /// The Services' addresses that pods leave with, by whichever node.
    pub fn addresses(&self) -> &OrdSet<IpAddr> {
        &self.addresses
    }

    /// The destinations that egress is for, of the pods for which it is not for all.
    pub fn bounded(&self) -> &OrdMap<IpAddr, Arc<Destinations>> {
        &self.bounded
    }

    /// Which pod has each address, where that is known.
    pub fn marks(&self) -> &OrdMap<IpAddr, PodMark> {
        &self.marks
    }

    /// Pods of Services that want different things, with these Services: the first decides.
    pub fn contested(&self) -> &BTreeMap<IpAddr, Vec<ObjectKey>> {
        &self.contested
    }

    /// The Services that what is new of any Node concerns.
    pub fn elected(&self) -> impl Iterator<Item = &ObjectKey> {
        self.elected.iter()
    }

    /// The next hops by the numbers of the slots.
    pub fn hops(&self) -> BTreeMap<u8, [Option<Hop>; 2]> {
        self.slots.values().map(|slot| (slot.number, [slot.v4.clone().ok(), slot.v6.clone().ok()])).collect()
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// There are owners elsewhere, or were.
    pub fn needs_hops(&self) -> bool {
        !self.users.is_empty() || !self.slots.is_empty() || !self.awaiting.is_empty()
    }

    /// Works out whether this node needs an end of the tunnel. `host`: nodes or links may have changed.
    pub fn renew_tunnel(&mut self, world: &World, roads: Roads<'_>, host: bool) {
        let is_stale = std::mem::take(&mut self.tunnel_stale);
        if !is_stale && !host {
            return;
        }
        let is_far = |name: &NodeName| name != roads.me && !shares_link(world, name, roads.me);
        let sends = || self.users.keys().any(is_far);
        // Whoever is far may have pods that leave by this node.
        let receives = || self.hosted > 0 && world.nodes.keys().any(is_far);
        let is_wanted = roads.tunnel.is_some() && (sends() || receives());
        let tunnel = is_wanted.then(|| {
            let others = world.nodes.iter().filter(|(name, _)| *name != roads.me);
            let peers = others.flat_map(|(_, node)| node.addresses.iter().copied()).collect();
            Arc::new(TunnelEnd { peers, foreign: world.egress_reach.foreign, mtu: world.egress_reach.mtu })
        });
        if self.tunnel != tunnel {
            self.tunnel = tunnel;
            self.moved = true;
        }
    }

    pub fn tunnel(&self) -> Option<&Arc<TunnelEnd>> {
        self.tunnel.as_ref()
    }

    /// Why packets do not reach the owners of Services' addresses from here, of each owner and family that is not reached.
    pub fn obstacles(&self) -> BTreeMap<(NodeName, Family), Reason> {
        let both = self.users.keys().flat_map(|owner| Family::BOTH.map(|family| (owner.clone(), family)));
        both.filter_map(|(owner, family)| Some(((owner.clone(), family), self.obstacle(&owner, family)?))).collect()
    }

    fn obstacle(&self, owner: &NodeName, family: Family) -> Option<Reason> {
        match self.slots.get(owner) {
            None => Some(Reason::EgressMarksUsedUp { owner: owner.clone() }),
            Some(slot) => slot.hop(family).as_ref().err().cloned(),
        }
    }

    fn count_addresses(&mut self, before: &EgressWork, wanted: &EgressWork) {
        for address in &wanted.addresses {
            *self.sharers.entry(*address).or_default() += 1;
            self.moved |= self.addresses.insert(*address).is_none();
        }
        for address in &before.addresses {
            let Some(count) = self.sharers.get_mut(address) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sharers.remove(address);
                self.last_owners.remove(address);
                self.moved |= self.addresses.remove(address).is_some();
            }
        }
    }

    /// Who other than this node owns the addresses, or did last.
    fn note_owners(&mut self, wanted: &EgressWork) {
        for (_, way) in &wanted.pods {
            if let Some(Way::Owner { address, owner, here: false, .. }) = way
                && self.sharers.contains_key(address)
            {
                self.last_owners.insert(*address, owner.clone());
            }
        }
    }

    fn count_users(&mut self, before: &EgressWork, wanted: &EgressWork, now: Instant) {
        let elsewhere = |work: &EgressWork| -> Vec<NodeName> {
            let owner = |way: &Way| match way {
                Way::Owner { owner, here: false, .. } => Some(owner.clone()),
                Way::Owner { here: true, .. } | Way::Network { .. } => None,
            };
            work.pods.iter().filter_map(|(_, way)| owner(way.as_ref()?)).collect()
        };
        for owner in elsewhere(wanted) {
            *self.users.entry(owner).or_default() += 1;
        }
        for owner in elsewhere(before) {
            if let Some(count) = self.users.get_mut(&owner) {
                *count = count.saturating_sub(1);
            }
        }
        let until = now + FORMER;
        let unused = self.users.iter().filter(|(_, count)| **count == 0);
        self.former.extend(unused.map(|(owner, _)| (owner.clone(), until)));
        self.users.retain(|_, count| *count > 0);
        self.former.retain(|owner, _| !self.users.contains_key(owner));
        let here = |work: &EgressWork| {
            let is_here = |way: &Way| matches!(way, Way::Owner { here: true, .. });
            work.pods.iter().filter(|(_, way)| way.as_ref().is_some_and(is_here)).count()
        };
        self.hosted = (self.hosted + here(wanted)).saturating_sub(here(before));
        self.tunnel_stale = true;
    }

    fn count_exits(&mut self, before: &EgressWork, wanted: &EgressWork) {
        let by_network = |way: &Way| match way {
            Way::Network { address, vrf } => Some((*address, vrf.clone())),
            Way::Owner { .. } => None,
        };
        let by_owner = |way: &Way| match way {
            Way::Owner { address, here: true, vrf, .. } => Some((*address, vrf.clone())),
            Way::Owner { here: false, .. } | Way::Network { .. } => None,
        };
        self.exits_stale |= count(&mut self.exits, before, wanted, by_network);
        self.exits_stale |= count(&mut self.owned, before, wanted, by_owner);
    }

    /// An address of the node in a subnet of one of this node's links; else an address that it answers for there, which leads to
    /// it all the same; else, for a node that is on none of the links at all, the tunnel.
    fn hop(&self, owner: &NodeName, family: Family, world: &World, roads: Roads<'_>) -> Result<Hop, Reason> {
        let leads_there = |via: IpAddr| {
            let link = (Family::of(via) == family).then(|| on_link(world, via, roads.me)).flatten()?;
            Some(Hop::Link { via, link })
        };
        if let Some(hop) = addresses_of(world, owner).iter().copied().find_map(leads_there) {
            return Ok(hop);
        }
        let answered = |way: &Way| match way {
            Way::Owner { address, owner: of_way, on_link, here: _, vrf: _ } => {
                (*on_link && of_way == owner).then_some(*address)
            }
            Way::Network { .. } => None,
        };
        let ways = self.wanted.values().flat_map(|work| &work.pods);
        let mut answered = ways.filter_map(|(_, way)| answered(way.as_ref()?));
        if let Some(hop) = answered.find_map(leads_there) {
            return Ok(hop);
        }
        if roads.tunnel.is_none() || shares_link(world, owner, roads.me) {
            return Err(Reason::EgressOwnerNotOnLink { owner: owner.clone(), family });
        }
        outer(owner, world, roads.me)
    }

    /// Works out how the packets of a pod leave.
    fn settle(&mut self, pod: IpAddr) {
        let work = self.claims.get(&pod).and_then(|services| self.wanted.get(services.first()?));
        let mapping = work.map(|work| way_of(work, pod).map_or(Mapping::Held, |way| self.mapping(pod, way)));
        let alike_bounds = self.agree(pod, |work| &work.destinations);
        let bound = work.and_then(|work| work.destinations.clone()).filter(|_| alike_bounds);
        let alike = alike_bounds && self.agree(pod, |work| way_of(work, pod));
        match self.claims.get(&pod).filter(|_| !alike) {
            Some(services) => drop(self.contested.insert(pod, services.iter().cloned().collect())),
            None => drop(self.contested.remove(&pod)),
        }
        let mark = work.and_then(|work| work.marks.get(&pod).copied());
        let mark = mark.filter(|_| self.agree(pod, |work| work.marks.get(&pod)));
        self.moved |= settle(&mut self.pods, pod, mapping);
        self.moved |= settle(&mut self.marks, pod, mark);
        self.moved |= settle(&mut self.bounded, pod, bound);
    }

    /// All Services of a pod want the same.
    fn agree<'a, T: PartialEq>(&'a self, pod: IpAddr, of: impl Fn(&'a EgressWork) -> T) -> bool {
        let mut all =
            self.claims.get(&pod).into_iter().flatten().filter_map(|service| self.wanted.get(service)).map(of);
        let first = all.next();
        all.all(|it| Some(it) == first)
    }

    fn mapping(&self, pod: IpAddr, way: &Way) -> Mapping {
        match way {
            Way::Owner { address, here: true, .. } => {
                let network = self.owned.get(address).and_then(NetworkUse::network);
                network.map_or(Mapping::Held, |network| Mapping::Translated { address: *address, network })
            }
            Way::Owner { owner, here: false, .. } => {
                let slot = self.slots.get(owner).filter(|slot| slot.hop(Family::of(pod)).is_ok());
                slot.map_or(Mapping::Held, |slot| Mapping::Steered { slot: slot.number })
            }
            Way::Network { address, vrf: _ } => {
                let exit = self.exits.get(address).and_then(|it| it.exit.as_ref()?.as_ref().ok());
                exit.map_or(Mapping::Held, |exit| Mapping::Networked(*exit))
            }
        }
    }
}

/// Counts the pods of each address. Whether an address is new, is gone or has another VRF.
fn count<T>(
    uses: &mut BTreeMap<IpAddr, NetworkUse<T>>,
    before: &EgressWork,
    wanted: &EgressWork,
    of_way: impl Fn(&Way) -> Option<(IpAddr, Option<InterfaceName>)>,
) -> bool {
    let mut stale = false;
    let of = |work: &EgressWork| -> Vec<(IpAddr, Option<InterfaceName>)> {
        work.pods.iter().filter_map(|(_, way)| of_way(way.as_ref()?)).collect()
    };
    for (address, vrf) in of(wanted) {
        let it = uses.entry(address).or_insert_with(|| NetworkUse { vrf: None, pods: 0, exit: None, last: None });
        it.pods += 1;
        if it.exit.is_none() || it.vrf != vrf {
            it.vrf = vrf;
            stale = true;
        }
    }
    for (address, _) in of(before) {
        let Some(it) = uses.get_mut(&address) else { continue };
        it.pods = it.pods.saturating_sub(1);
        if it.pods == 0 {
            uses.remove(&address);
            stale = true;
        }
    }
    stale
}

/// The way leads by the owner of before of an address whose owner is awaited, and that one goes on.
fn bridges(way: &Way, awaited: &BTreeMap<IpAddr, NodeName>, goes_on: impl Fn(&NodeName, IpAddr) -> bool) -> bool {
    match way {
        Way::Owner { address, owner, .. } => {
            awaited.get(address).is_some_and(|next| next != owner) && goes_on(owner, *address)
        }
        Way::Network { .. } => false,
    }
}

fn has_pod(work: &EgressWork, pod: IpAddr) -> bool {
    work.pods.binary_search_by_key(&pod, |(pod, _)| *pod).is_ok()
}

/// How the packets of one of its pods leave; `None` where they do not.
fn way_of(work: &EgressWork, pod: IpAddr) -> Option<&Way> {
    let place = work.pods.binary_search_by_key(&pod, |(pod, _)| *pod).ok()?;
    work.pods[place].1.as_ref()
}

impl Slot {
    fn hop(&self, family: Family) -> &Result<Hop, Reason> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// The usable link that the main table of this node leads to another host by, as far as addresses tell: the one with the most specific
/// subnet, of equal ones one with this Node's address. A link in a VRF is left out unless the Node's address is there alone.
fn on_link(world: &World, via: IpAddr, me: &NodeName) -> Option<u32> {
    let is_own = |link: &Link| addresses_of(world, me).iter().any(|address| is_home(world, link, *address));
    let subnets = |link: &Link| {
        let holding = link.addresses.iter().filter(|net| net.contains(&via) && net.addr() != via);
        holding.map(|net| net.prefix_len()).max()
    };
    let usable = world.links.values().filter(|link| link.up && link.carrier && !link.loopback);
    let ranked = usable.filter_map(|link| Some((subnets(link)?, is_own(link), Reverse(link.index), link.vrf)));
    let best = ranked.filter(|(_, is_own, _, vrf)| *is_own || vrf.is_none()).max();
    best.map(|(_, _, Reverse(index), _)| index)
}

/// The link has the address of the Node for the main table: a link in a VRF may have it once more, in a network that has the same numbers.
pub fn is_home(world: &World, link: &Link, address: IpAddr) -> bool {
    let has = |link: &Link| link.addresses.iter().any(|net| net.addr() == address);
    has(link) && (link.vrf.is_none() || !world.links.values().any(|other| other.vrf.is_none() && has(other)))
}

/// Says it of the pod, or nothing. Whether that is news.
fn settle<V: Clone + PartialEq>(all: &mut OrdMap<IpAddr, V>, pod: IpAddr, value: Option<V>) -> bool {
    if all.get(&pod) == value.as_ref() {
        return false;
    }
    match value {
        Some(value) => drop(all.insert(pod, value)),
        None => drop(all.remove(&pod)),
    }
    true
}

/// None of a Node that is not known.
fn addresses_of<'a>(world: &'a World, node: &NodeName) -> &'a [IpAddr] {
    world.nodes.get(node).map(|node| node.addresses.as_slice()).unwrap_or_default()
}

/// An address of the Node, of either family, is in a subnet of a link of this node. Two nodes judge each other alike, so either both
/// have the tunnel or none has. A Node without addresses is not known to be anywhere else.
fn shares_link(world: &World, node: &NodeName, me: &NodeName) -> bool {
    let addresses = addresses_of(world, node);
    addresses.is_empty() || addresses.iter().any(|address| on_link(world, *address, me).is_some())
}

/// The tunnel to a node: from an address of this Node, for the other end takes packets from those alone.
fn outer(owner: &NodeName, world: &World, me: &NodeName) -> Result<Hop, Reason> {
    if let Some(problem) = &world.egress_reach.problem {
        return Err(Reason::EgressTunnelBlocked { owner: owner.clone(), why: problem.problem.clone() });
    }
    let link_of = |address: IpAddr| world.links.values().find(|link| is_home(world, link, address));
    let mut in_vrf = None;
    for to in addresses_of(world, owner) {
        for from in addresses_of(world, me).iter().filter(|from| from.is_ipv4() == to.is_ipv4()) {
            match link_of(*from) {
                Some(link) if link.vrf.is_none() => return Ok(Hop::Tunnel { to: *to, from: *from }),
                Some(link) => in_vrf = Some((*from, link.name.clone())),
                None => {}
            }
        }
    }
    Err(match in_vrf {
        Some((address, link)) => Reason::EgressTunnelInVrf { owner: owner.clone(), address, link },
        None => Reason::EgressTunnelNoSource { owner: owner.clone() },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::clock;
    use crate::world::{EgressReach, Fact, HostProblem, Link, Node};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn way(owner: &str, here: bool) -> Option<Way> {
        Some(Way::Owner { address: ip("192.168.35.100"), owner: owner.into(), here, on_link: true, vrf: None })
    }

    fn work(pods: &[(&str, Option<Way>)]) -> EgressWork {
        let pods = pods.iter().map(|(pod, way)| (ip(pod), way.clone())).collect();
        EgressWork { pods, ..EgressWork::default() }
    }

    /// Of the node `me`.
    fn roads(slots: u8) -> Roads<'static> {
        static NAMES: LazyLock<(NodeName, InterfaceName)> = LazyLock::new(|| ("me".into(), "crier-egress".into()));
        Roads { me: &NAMES.0, slots, tunnel: Some(&NAMES.1) }
    }

    /// With these Nodes, and this one's address of IPv6 on a link too.
    fn cluster(nodes: &[(&str, &[&str])]) -> World {
        let mut world = World::default();
        let nets = ["192.168.35.11/24", "fd35::11/64"];
        world.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &nets))));
        for (name, addresses) in nodes {
            let addresses = addresses.iter().map(|it| ip(it)).collect();
            world.apply(Fact::Node((*name).into(), Some(Arc::new(Node { addresses, ..Node::default() }))));
        }
        world
    }

    /// How packets of IPv4 and of IPv6 get to `far`, which owns an address over BGP alone: it answers for it on no link.
    fn ways(world: &World) -> Vec<Result<Hop, String>> {
        let (address, owner) = (ip("192.168.35.100"), NodeName::from("far"));
        let way = Some(Way::Owner { address, owner, here: false, on_link: false, vrf: None });
        ways_by(world, way)
    }

    fn ways_by(world: &World, way: Option<Way>) -> Vec<Result<Hop, String>> {
        let mut table = EgressTable::default();
        table.put(&ObjectKey::new("shop", "web"), work(&[("10.244.1.2", way)]), clock::now());
        table.renew_hops(world, roads(15));
        let obstacles = table.obstacles();
        let hops = table.hops().remove(&1).expect("a slot");
        let families = Family::BOTH.into_iter().zip(hops);
        let told = |family| obstacles[&("far".into(), family)].to_string();
        families.map(|(family, hop)| hop.ok_or_else(|| told(family))).collect()
    }

    #[test]
    fn an_owner_on_no_link_of_this_node_is_reached_by_the_tunnel_with_packets_of_both_families() {
        let by = |to: &str, from: &str| vec![Ok(Hop::Tunnel { to: ip(to), from: ip(from) }); 2];
        let me = ("me", &["192.168.35.11", "fd35::11"][..]);
        assert_eq!(ways(&cluster(&[me, ("far", &["10.1.2.12"])])), by("10.1.2.12", "192.168.35.11"));
        assert_eq!(ways(&cluster(&[me, ("far", &["fd01:2::12"])])), by("fd01:2::12", "fd35::11"), "over IPv6");
        // Its Node is elsewhere, and it answers for the address on this link all the same.
        let answers = ways_by(&cluster(&[me, ("far", &["10.1.2.12"])]), way("far", false));
        assert_eq!(answers[0], Ok(Hop::Link { via: ip("192.168.35.100"), link: 2 }));
        assert!(matches!(answers[1], Ok(Hop::Tunnel { .. })), "{answers:?}");
        assert_eq!(
            ways(&cluster(&[me, ("far", &["fd01:2::12", "10.1.2.12"])])),
            by("fd01:2::12", "fd35::11"),
            "the owner's first address"
        );
        // One family on a common link: the other one is not sent into a tunnel that the owner does not have.
        let near = ways(&cluster(&[me, ("far", &["192.168.35.12"])]));
        assert_eq!(near[0], Ok(Hop::Link { via: ip("192.168.35.12"), link: 2 }));
        assert!(near[1].as_ref().is_err_and(|why| why.contains("no IPv6 address on a link")), "{near:?}");
    }

    /// Input: other links of this node hold the owner's address too. Output: the one that the kernel's main table would take.
    #[test]
    fn the_next_hop_is_on_the_link_with_the_most_specific_subnet_and_in_no_foreign_vrf() {
        let nodes = [("me", &["192.168.35.11", "fd35::11"][..]), ("far", &["192.168.35.12", "fd35::12"][..])];
        let by = |index: u32, vrf: Option<u32>, nets: &[&str]| {
            let mut world = cluster(&nodes);
            world.apply(Fact::Link(index, Some(Link { vrf, ..Link::carrying(index, "eth9", nets) })));
            let link = |hop: Result<Hop, String>| match hop {
                Ok(Hop::Link { link, via: _ }) => link,
                other => panic!("{other:?}"),
            };
            ways(&world).into_iter().map(link).collect::<Vec<_>>()
        };
        assert_eq!(by(1, None, &["192.168.36.1/16", "fd35::9/48"]), [2, 2], "a wider subnet, such as a VPN's");
        assert_eq!(by(3, None, &["192.168.35.9/25", "fd35::9/80"]), [3, 3], "a narrower one");
        assert_eq!(by(1, None, &["192.168.35.77/24", "fd35::77/64"]), [2, 2], "the same, without the Node's address");
        assert_eq!(by(1, Some(9), &["192.168.35.77/25", "fd35::77/80"]), [2, 2], "another network, in a VRF");
        let twice = by(1, Some(9), &["192.168.35.11/25", "fd35::11/80"]);
        assert_eq!(twice, [2, 2], "another network, in a VRF, where this node has the same address");
        // All that the nodes have in common is a VRF that the Node's address is not in: no packet gets there.
        let mut world = cluster(&nodes);
        let elsewhere = Link { vrf: Some(9), ..Link::carrying(2, "eth0", &["192.168.35.77/24"]) };
        world.apply(Fact::Link(2, Some(elsewhere)));
        assert!(ways(&world)[0].is_err(), "{:?}", ways(&world));
        let own = Link { vrf: Some(9), ..Link::carrying(2, "eth0", &["192.168.35.11/24"]) };
        world.apply(Fact::Link(2, Some(own)));
        assert_eq!(ways(&world)[0], Ok(Hop::Link { via: ip("192.168.35.12"), link: 2 }), "the Node is in the VRF");
    }

    /// Input: nodes between which no packet of the tunnel would be taken. Output: the reason, and no way.
    #[test]
    fn where_no_tunnel_leads_the_reason_is_told() {
        let why = |world: &World| ways(world).swap_remove(0).expect_err("there is no way");
        let far = ("far", &["10.1.2.12"][..]);
        let stranger = why(&cluster(&[("me", &["172.16.0.1"]), far]));
        assert!(
            stranger.contains("far is on no link of this node") && stranger.contains("no tunnel leads there"),
            "{stranger}"
        );
        let other_family = why(&cluster(&[("me", &["fd35::11"]), far]));
        assert!(other_family.contains("no tunnel leads there"), "{other_family}");
        let mut world = cluster(&[("me", &["192.168.35.11"]), far]);
        let problem = HostProblem { problem: "the name is taken".to_owned(), remedy: String::new() };
        world.apply(Fact::EgressReach(EgressReach { problem: Some(problem), ..EgressReach::default() }));
        assert!(why(&world).contains("the name is taken"), "{}", why(&world));
        world.apply(Fact::EgressReach(EgressReach::default()));
        let link = Link { vrf: Some(9), ..world.links[&2].clone() };
        world.apply(Fact::Link(2, Some(link)));
        assert!(why(&world).contains("192.168.35.11 is on eth0") && why(&world).contains("VRF"), "{}", why(&world));
        assert!(
            why(&cluster(&[("me", &["192.168.35.11"])])).contains("far has no IPv4 address on a link"),
            "no Node far"
        );
    }

    #[test]
    fn a_node_has_an_end_of_the_tunnel_where_packets_come_or_go_by_it_and_nowhere_else() {
        let peers = |world: &World, wanted: Option<Way>, tunnel: bool| {
            let mut table = EgressTable::default();
            let roads = Roads { tunnel: roads(15).tunnel.filter(|_| tunnel), ..roads(15) };
            table.put(&ObjectKey::new("shop", "web"), work(&[("10.244.1.2", wanted)]), clock::now());
            table.renew_tunnel(world, roads, false);
            let end =
                table.tunnel().map(|end| (end.peers.iter().map(ToString::to_string).collect::<Vec<_>>(), end.foreign));
            table.put(&ObjectKey::new("shop", "web"), EgressWork::default(), clock::now());
            table.renew_tunnel(world, roads, false);
            assert_eq!(table.tunnel(), None, "without pods nobody needs one");
            end
        };
        let (me, near) = (("me", &["192.168.35.11"][..]), ("near", &["192.168.35.12"][..]));
        let racks = cluster(&[me, near, ("far", &["10.1.2.12"])]);
        let others = Some((vec!["10.1.2.12".to_owned(), "192.168.35.12".to_owned()], false));
        assert_eq!(peers(&racks, way("far", false), true), others, "it sends");
        assert_eq!(peers(&racks, way("me", true), true), others, "pods of far may leave here");
        assert_eq!(peers(&racks, way("near", false), true), None, "the owner is on the link");
        assert_eq!(peers(&racks, way("far", false), false), None, "none is to be made");
        let one_link = cluster(&[me, near]);
        assert_eq!(peers(&one_link, way("me", true), true), None, "all are on the link");
    }

    fn world(up: bool) -> World {
        let mut world = World::default();
        let link = Link { up, carrier: up, ..Link::carrying(2, "eth0", &["192.168.35.11/24"]) };
        world.apply(Fact::Link(2, Some(link)));
        world
    }

    #[test]
    fn a_pod_is_translated_at_the_owner_and_steered_to_it_elsewhere_and_held_without_a_way() {
        let mut table = EgressTable::default();
        let web = ObjectKey::new("shop", "web");
        let (first, second, third) = ("10.244.1.2", "10.244.1.3", "fd44::3");
        table.put(&web, work(&[(first, way("a", true)), (second, way("b", false)), (third, None)]), clock::now());
        assert_eq!(table.pods()[&ip(first)], Mapping::Translated { address: ip("192.168.35.100"), network: None });
        assert_eq!(table.pods()[&ip(second)], Mapping::Held, "nobody knows yet how b is reached");
        table.renew_hops(&world(true), roads(15));
        assert_eq!(table.pods()[&ip(second)], Mapping::Steered { slot: 1 });
        let hop = Hop::Link { via: ip("192.168.35.100"), link: 2 };
        assert_eq!(table.hops()[&1], [Some(hop), None], "the address leads to whoever answers for it");
        assert_eq!(table.pods()[&ip(third)], Mapping::Held);
        table.renew_hops(&world(false), roads(15));
        assert_eq!(table.pods()[&ip(second)], Mapping::Held, "the link is down");
        table.put(&web, EgressWork::default(), clock::now());
        table.renew_hops(&world(true), roads(15));
        assert!(table.pods().is_empty() && table.hops().is_empty() && table.claims.is_empty());
    }

    #[test]
    fn when_the_agent_leaves_packets_go_on_as_they_went_but_for_those_that_another_node_takes_over() {
        let mut table = EgressTable::default();
        let [web, api] = ["web", "api"].map(|name| ObjectKey::new("shop", name));
        let [own, far] = ["10.244.1.2", "10.244.1.3"];
        table.put(&web, work(&[(own, way("a", true))]), clock::now());
        table.put(&api, work(&[(far, way("b", false))]), clock::now());
        table.renew_hops(&world(true), roads(15));
        let hops = table.hops();
        table.put(&web, table.or_as_before(&web, work(&[(own, None)])), clock::now());
        table.put(&api, table.or_as_before(&api, work(&[(far, None)])), clock::now());
        table.renew_hops(&world(true), roads(15));
        assert_eq!(table.pods()[&ip(own)], Mapping::Translated { address: ip("192.168.35.100"), network: None });
        assert_eq!(table.pods()[&ip(far)], Mapping::Steered { slot: 1 });
        assert_eq!(table.hops(), hops, "the route stays too");
        table.put(&web, table.or_as_before(&web, work(&[(own, way("b", false))])), clock::now());
        assert_eq!(table.pods()[&ip(own)], Mapping::Steered { slot: 1 }, "b has taken over");
    }

    /// Input: the address of pods goes from `b` to `c`, and comes here. Output: `c` has a number of its own before any pod leads there,
    /// that of `b` stands for a while yet, and unknown answers go to whoever else may know them.
    #[test]
    fn the_next_owner_has_its_slot_before_pods_lead_there_and_the_former_one_keeps_its_for_a_while() {
        let nodes = [("me", &["192.168.35.11"][..]), ("b", &["192.168.35.12"]), ("c", &["192.168.35.13"])];
        let (world, web, pod) = (cluster(&nodes), ObjectKey::new("shop", "web"), "10.244.1.2");
        let (mut table, address, begin) = (EgressTable::default(), ip("192.168.35.100"), clock::now());
        let work = |owner: Option<Way>, awaited: &[&str]| {
            let awaited = awaited.iter().map(|name| (address, NodeName::from(*name))).collect();
            EgressWork { addresses: vec![address], awaited, ..work(&[(pod, owner)]) }
        };
        let seen = |table: &mut EgressTable| {
            table.renew_hops(&world, roads(15));
            let slots: Vec<u8> = table.hops().into_keys().collect();
            (table.pods()[&ip(pod)], slots, table.leads().get(&address).copied())
        };
        let steered = |slot| Mapping::Steered { slot };
        table.put(&web, work(way("b", false), &[]), begin);
        assert_eq!(seen(&mut table), (steered(1), vec![1], Some(1)));
        let next = table.or_until_ready(&web, work(None, &["c"]), |owner, _| owner.as_str() == "b", begin);
        table.put(&web, next, begin);
        assert_eq!(seen(&mut table), (steered(1), vec![1, 2], Some(1)), "the route to c is made meanwhile");
        table.put(&web, work(way("c", false), &[]), begin);
        assert_eq!(seen(&mut table), (steered(2), vec![1, 2], Some(2)));
        table.put(&web, work(way("me", true), &[]), begin);
        let here = Mapping::Translated { address, network: None };
        assert_eq!(seen(&mut table), (here, vec![1, 2], Some(2)), "c may know connections that are not known here");
        assert_eq!(table.next_deadline(), Some(begin + FORMER));
        table.take_due(begin + FORMER);
        assert_eq!(seen(&mut table), (here, vec![], None));
    }

    #[test]
    fn numbers_of_former_owners_are_given_up_where_there_are_no_others() {
        let (mut table, web) = (EgressTable::default(), ObjectKey::new("shop", "web"));
        let nodes = [("me", &["192.168.35.11"][..]), ("b", &["192.168.35.12"]), ("c", &["192.168.35.13"])];
        let (world, pod) = (cluster(&nodes), "10.244.1.2");
        for owner in ["b", "c", "b"] {
            table.put(&web, work(&[(pod, way(owner, false))]), clock::now());
            table.renew_hops(&world, roads(1));
            assert_eq!(table.pods()[&ip(pod)], Mapping::Steered { slot: 1 }, "{owner}");
        }
        // What leads the same way needs no other number: the next hop is the address itself.
        for owner in ["d", "e"] {
            table.put(&web, work(&[(pod, way(owner, false))]), clock::now());
            table.renew_hops(&world, roads(3));
        }
        assert_eq!(table.hops().into_keys().collect::<Vec<_>>(), [1, 2]);
        assert!(table.leads().is_empty(), "that may lead to this node");
    }

    #[test]
    fn of_two_services_of_one_pod_the_first_by_name_decides() {
        let mut table = EgressTable::default();
        let [one, two] = ["one", "two"].map(|name| ObjectKey::new("shop", name));
        let pod = "10.244.1.2";
        table.put(&two, work(&[(pod, way("a", true))]), clock::now());
        table.put(&one, work(&[(pod, None)]), clock::now());
        assert_eq!(table.pods()[&ip(pod)], Mapping::Held);
        table.put(&one, EgressWork::default(), clock::now());
        assert_eq!(table.pods()[&ip(pod)], Mapping::Translated { address: ip("192.168.35.100"), network: None });
    }

    #[test]
    fn another_service_of_a_pod_opens_nothing_by_its_bounds_and_that_they_differ_is_told() {
        let mut table = EgressTable::default();
        let [web, evil] = [ObjectKey::new("shop", "web"), ObjectKey::new("aaa", "evil")];
        let pod = "10.244.1.2";
        let list = |net: &str| Some(Arc::new(Destinations { to: vec![net.parse().unwrap()], except: Vec::new() }));
        let bounded = |net: &str| EgressWork { destinations: list(net), ..work(&[(pod, way("a", true))]) };
        table.put(&web, work(&[(pod, way("a", true))]), clock::now());
        assert!(table.contested().is_empty());
        table.put(&evil, bounded("192.0.2.255/32"), clock::now());
        assert!(!table.bounded().contains_key(&ip(pod)), "held to all destinations, as shop/web wants it");
        assert_eq!(table.contested()[&ip(pod)], [evil.clone(), web.clone()]);
        table.put(&web, bounded("192.0.2.0/24"), clock::now());
        assert!(!table.bounded().contains_key(&ip(pod)), "the lists differ");
        table.put(&evil, bounded("192.0.2.0/24"), clock::now());
        assert_eq!(table.bounded().get(&ip(pod)), list("192.0.2.0/24").as_ref(), "all want the same");
        assert!(table.contested().is_empty());
        table.put(&evil, work(&[(pod, None)]), clock::now());
        table.put(&web, EgressWork::default(), clock::now());
        assert!(table.contested().is_empty(), "one Service alone");
    }

    #[test]
    fn a_node_beyond_the_last_slot_is_not_reached() {
        let mut table = EgressTable::default();
        for number in 1..=3 {
            let pod = format!("10.244.1.{number}");
            let wanted = work(&[(&pod, way(&format!("node-{number}"), false))]);
            table.put(&ObjectKey::new("shop", &pod), wanted, clock::now());
        }
        table.renew_hops(&world(true), roads(2));
        assert_eq!(table.pods()[&ip("10.244.1.3")], Mapping::Held);
        let used_up = Reason::EgressMarksUsedUp { owner: "node-3".into() };
        assert_eq!(table.obstacles()[&("node-3".into(), Family::V4)], used_up);
    }
}
