//! The egress table: of every pod whose packets may leave the cluster only with its Service's address, how they do.
//! Floor 1. It keeps what the verdicts ask for; `egress::task` and `kernel::steering` do it.
//!
//! A node that owns addresses has a slot: the number in the mark that leads packets to it. Two Services of one pod: the first
//! by name decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use imbl::OrdMap;

use crate::address::Family;
use crate::names::{NodeName, ObjectKey};
use crate::plan::slice::{Hop, Mapping};
use crate::plan::verdict::EgressWork;
use crate::plan::verdict::egress::Way;
use crate::reason::Reason;
use crate::world::World;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct EgressTable {
    /// What each Service wants. Never empty.
    wanted: BTreeMap<ObjectKey, EgressWork>,
    /// The Services of each pod. Never empty.
    claims: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// The Services with an owner by election among the Nodes.
    elected: BTreeSet<ObjectKey>,
    slots: BTreeMap<NodeName, Slot>,
    /// How many pods lead to each node.
    users: BTreeMap<NodeName, usize>,
    pods: OrdMap<IpAddr, Mapping>,
    moved: bool,
}

/// The way to a node that owns addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    number: u8,
    v4: Option<Hop>,
    v6: Option<Hop>,
}

impl EgressTable {
    /// All that a Service wants from now on.
    pub fn put(&mut self, service: &ObjectKey, wanted: EgressWork) {
        match wanted.is_elected {
            true => self.elected.insert(service.clone()),
            false => self.elected.remove(service),
        };
        let before = self.wanted.get(service).cloned().unwrap_or_default();
        if before == wanted {
            return;
        }
        let pods: BTreeSet<IpAddr> = before.pods.iter().chain(&wanted.pods).map(|(pod, _)| *pod).collect();
        for (pod, _) in &before.pods {
            if let Some(services) = self.claims.get_mut(pod) {
                services.remove(service);
            }
        }
        for (pod, _) in &wanted.pods {
            self.claims.entry(*pod).or_default().insert(service.clone());
        }
        self.claims.retain(|_, services| !services.is_empty());
        self.count_users(&before, &wanted);
        match wanted.pods.is_empty() {
            true => drop(self.wanted.remove(service)),
            false => drop(self.wanted.insert(service.clone(), wanted)),
        }
        pods.into_iter().for_each(|pod| self.settle(pod));
    }

    /// Works out how the owners are reached. `slots`: as many nodes can have one.
    pub fn renew_hops(&mut self, world: &World, slots: u8) {
        let owners: BTreeSet<NodeName> = self.users.keys().cloned().collect();
        let before = self.slots.clone();
        // The highest numbers may have been taken for networks since.
        self.slots.retain(|owner, slot| owners.contains(owner) && slot.number <= slots);
        for owner in owners {
            let [v4, v6] = Family::BOTH.map(|family| self.hop(&owner, family, world));
            match self.slots.get_mut(&owner) {
                Some(slot) => (slot.v4, slot.v6) = (v4, v6),
                None => {
                    let taken = |number: &u8| self.slots.values().any(|slot| slot.number == *number);
                    if let Some(number) = (1..=slots).find(|number| !taken(number)) {
                        self.slots.insert(owner, Slot { number, v4, v6 });
                    }
                }
            }
        }
        if self.slots != before {
            self.moved = true;
            let pods: Vec<IpAddr> = self.claims.keys().copied().collect();
            pods.into_iter().for_each(|pod| self.settle(pod));
        }
    }

    pub fn pods(&self) -> &OrdMap<IpAddr, Mapping> {
        &self.pods
    }

    /// The Services that what is new of any Node concerns.
    pub fn elected(&self) -> impl Iterator<Item = &ObjectKey> {
        self.elected.iter()
    }

    /// The next hops by the numbers of the slots.
    pub fn hops(&self) -> BTreeMap<u8, [Option<Hop>; 2]> {
        self.slots.values().map(|slot| (slot.number, [slot.v4.clone(), slot.v6.clone()])).collect()
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// There are owners elsewhere, or were.
    pub fn needs_hops(&self) -> bool {
        !self.users.is_empty() || !self.slots.is_empty()
    }

    /// Why packets do not reach the owners of Services' addresses from here, of each owner and family that is not reached.
    pub fn obstacles(&self) -> BTreeMap<(NodeName, Family), Reason> {
        let both = self.users.keys().flat_map(|owner| Family::BOTH.map(|family| (owner.clone(), family)));
        both.filter_map(|(owner, family)| Some(((owner.clone(), family), self.obstacle(&owner, family)?))).collect()
    }

    fn obstacle(&self, owner: &NodeName, family: Family) -> Option<Reason> {
        match self.slots.get(owner) {
            None => Some(Reason::EgressMarksUsedUp { owner: owner.clone() }),
            Some(slot) if slot.hop(family).is_none() => {
                Some(Reason::EgressOwnerNotOnLink { owner: owner.clone(), family })
            }
            Some(_) => None,
        }
    }

    fn count_users(&mut self, before: &EgressWork, wanted: &EgressWork) {
        let elsewhere = |work: &EgressWork| -> Vec<NodeName> {
            let ways = work.pods.iter().filter_map(|(_, way)| way.as_ref());
            ways.filter(|way| !way.here).map(|way| way.owner.clone()).collect()
        };
        for owner in elsewhere(wanted) {
            *self.users.entry(owner).or_default() += 1;
        }
        for owner in elsewhere(before) {
            if let Some(count) = self.users.get_mut(&owner) {
                *count = count.saturating_sub(1);
            }
        }
        self.users.retain(|_, count| *count > 0);
    }

    /// An address of the node in a subnet of one of this node's links; else an address that it answers for there, which leads to
    /// it all the same.
    fn hop(&self, owner: &NodeName, family: Family, world: &World) -> Option<Hop> {
        let on_link = |via: &IpAddr| {
            let mut usable = world.links.values().filter(|link| link.up && link.carrier && !link.loopback);
            usable.find(|link| link.addresses.iter().any(|net| net.contains(via) && net.addr() != *via))
        };
        let of_family = |address: &IpAddr| Family::of(*address) == family;
        let of_node = world.nodes.get(owner).into_iter().flat_map(|node| node.addresses.iter().copied());
        let ways = self.wanted.values().flat_map(|work| &work.pods).filter_map(|(_, way)| way.as_ref());
        let answered = ways.filter(|way| way.owner == *owner).map(|way| way.address);
        of_node.chain(answered).filter(of_family).find_map(|via| Some(Hop { via, link: on_link(&via)?.index }))
    }

    /// Works out how the packets of a pod leave.
    fn settle(&mut self, pod: IpAddr) {
        let mapping = self.claims.get(&pod).and_then(|services| services.first()).map(|service| {
            let pods = self.wanted.get(service).map(|work| work.pods.as_slice()).unwrap_or_default();
            let place = pods.binary_search_by_key(&pod, |(pod, _)| *pod).ok();
            place.and_then(|place| pods[place].1.as_ref()).map_or(Mapping::Held, |way| self.mapping(pod, way))
        });
        let before = self.pods.get(&pod).copied();
        if before == mapping {
            return;
        }
        self.moved = true;
        match mapping {
            Some(mapping) => drop(self.pods.insert(pod, mapping)),
            None => drop(self.pods.remove(&pod)),
        }
    }

    fn mapping(&self, pod: IpAddr, way: &Way) -> Mapping {
        if way.here {
            return Mapping::Translated { address: way.address };
        }
        let slot = self.slots.get(&way.owner).filter(|slot| slot.hop(Family::of(pod)).is_some());
        slot.map_or(Mapping::Held, |slot| Mapping::Steered { slot: slot.number })
    }
}

impl Slot {
    fn hop(&self, family: Family) -> Option<&Hop> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Fact, Link};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn way(owner: &str, here: bool) -> Option<Way> {
        Some(Way { address: ip("192.168.35.100"), owner: owner.into(), here })
    }

    fn work(pods: &[(&str, Option<Way>)]) -> EgressWork {
        EgressWork { pods: pods.iter().map(|(pod, way)| (ip(pod), way.clone())).collect(), is_elected: false }
    }

    fn world(up: bool) -> World {
        let mut world = World::default();
        let link = Link {
            index: 2,
            name: "eth0".into(),
            mac: None,
            up,
            carrier: up,
            loopback: false,
            arp: true,
            master: None,
            vrf: None,
            addresses: vec!["192.168.35.11/24".parse().unwrap()],
        };
        world.apply(Fact::Link(2, Some(link)));
        world
    }

    #[test]
    fn a_pod_is_translated_at_the_owner_and_steered_to_it_elsewhere_and_held_without_a_way() {
        let mut table = EgressTable::default();
        let web = ObjectKey::new("shop", "web");
        let (first, second, third) = ("10.244.1.2", "10.244.1.3", "fd44::3");
        table.put(&web, work(&[(first, way("a", true)), (second, way("b", false)), (third, None)]));
        assert_eq!(table.pods()[&ip(first)], Mapping::Translated { address: ip("192.168.35.100") });
        assert_eq!(table.pods()[&ip(second)], Mapping::Held, "nobody knows yet how b is reached");
        table.renew_hops(&world(true), 15);
        assert_eq!(table.pods()[&ip(second)], Mapping::Steered { slot: 1 });
        let hop = Hop { via: ip("192.168.35.100"), link: 2 };
        assert_eq!(table.hops()[&1], [Some(hop), None], "the address leads to whoever answers for it");
        assert_eq!(table.pods()[&ip(third)], Mapping::Held);
        table.renew_hops(&world(false), 15);
        assert_eq!(table.pods()[&ip(second)], Mapping::Held, "the link is down");
        table.put(&web, EgressWork::default());
        table.renew_hops(&world(true), 15);
        assert!(table.pods().is_empty() && table.hops().is_empty() && table.claims.is_empty());
    }

    #[test]
    fn of_two_services_of_one_pod_the_first_by_name_decides() {
        let mut table = EgressTable::default();
        let [one, two] = ["one", "two"].map(|name| ObjectKey::new("shop", name));
        let pod = "10.244.1.2";
        table.put(&two, work(&[(pod, way("a", true))]));
        table.put(&one, work(&[(pod, None)]));
        assert_eq!(table.pods()[&ip(pod)], Mapping::Held);
        table.put(&one, EgressWork::default());
        assert_eq!(table.pods()[&ip(pod)], Mapping::Translated { address: ip("192.168.35.100") });
    }

    #[test]
    fn a_node_beyond_the_last_slot_is_not_reached() {
        let mut table = EgressTable::default();
        for number in 1..=3 {
            let pod = format!("10.244.1.{number}");
            let wanted = work(&[(&pod, way(&format!("node-{number}"), false))]);
            table.put(&ObjectKey::new("shop", &pod), wanted);
        }
        table.renew_hops(&world(true), 2);
        assert_eq!(table.pods()[&ip("10.244.1.3")], Mapping::Held);
        let used_up = Reason::EgressMarksUsedUp { owner: "node-3".into() };
        assert_eq!(table.obstacles()[&("node-3".into(), Family::V4)], used_up);
    }
}
