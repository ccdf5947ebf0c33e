//! Which stations on one link belong to other nodes: as the plan tells, and as the link itself does, because what speaks from
//! a Node's address is that Node's station. Floor 1.
//!
//! A Node whose pulses are not heard is no foreign host. Its MAC is learned from whatever it says from its own address; and
//! when a station that nobody knows claims an address, the Nodes of the link's subnets are asked for theirs: a census.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::address::MacAddress;
use crate::arp::settings::{
    CENSUS_INTERVAL, CENSUS_PATIENCE, CENSUS_SPACING, CONFLICT_OF_NODES_OVER, CONFLICT_OVER, PRESENT_FOR,
};
use crate::claim::{Hearing, Station};
use crate::names::NodeName;

/// What a link worker is told about its link and about the other nodes, beside the addresses that it is to answer for.
#[derive(Debug, Clone, PartialEq)]
pub struct Surroundings {
    /// This node's MAC on the link.
    pub mac: MacAddress,
    pub stations: Arc<BTreeMap<MacAddress, Station>>,
    /// Internal addresses of the other Nodes.
    pub addresses: Arc<BTreeMap<IpAddr, NodeName>>,
    /// This node's own addresses on the link, with their subnets.
    pub own: Arc<[IpNet]>,
    /// Addresses that this node gave up to a node that may not know of it, with that node's MAC.
    pub yields: Arc<BTreeMap<IpAddr, MacAddress>>,
    /// The agent stops: this node answers, and says nothing of itself.
    pub leaving: bool,
}

impl Default for Surroundings {
    /// Nothing is known, not even this node's MAC.
    fn default() -> Surroundings {
        let (stations, addresses, own, yields) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        Surroundings { mac: MacAddress::ZERO, stations, addresses, own, yields, leaving: false }
    }
}

/// The stations of one link.
#[derive(Debug, Default)]
pub struct Stations {
    told: Surroundings,
    /// The station that last spoke from each Node's address: at most one for each.
    learned: BTreeMap<IpAddr, MacAddress>,
    /// One of these for each station.
    addresses_of: BTreeMap<MacAddress, IpAddr>,
    /// When each of these was heard last.
    heard: BTreeMap<MacAddress, Instant>,
    /// When any station was.
    heard_at: Option<Instant>,
    census: Census,
}

#[derive(Debug, Default)]
struct Census {
    begun: Option<Instant>,
    /// The addresses that are still to be asked for.
    queue: VecDeque<IpAddr>,
    /// The earliest time for the next question.
    next: Option<Instant>,
}

impl Stations {
    /// Replaces what the plan tells. What was learned stays as long as the Node has the address.
    pub fn handle_surroundings(&mut self, told: Surroundings) {
        self.told = told;
        let known = &self.told.addresses;
        self.learned.retain(|address, _| known.contains_key(address));
        self.census.queue.retain(|address| known.contains_key(address));
        self.list_by_station();
    }

    /// A station may have several of its Node's addresses, and lose one of them. One on this link, by which it can be asked, goes first.
    fn list_by_station(&mut self) {
        let on_link = |address: &IpAddr| self.told.own.iter().any(|own| own.contains(address));
        let (near, far): (Vec<_>, Vec<_>) = self.learned.iter().partition(|(address, _)| on_link(address));
        self.addresses_of.clear();
        for (address, mac) in near.into_iter().chain(far) {
            self.addresses_of.entry(*mac).or_insert(*address);
        }
        self.heard.retain(|mac, _| self.addresses_of.contains_key(mac));
    }

    /// Whether a station belongs to another node, and what that node's pulses say.
    pub fn hearing(&self, mac: MacAddress) -> Option<Hearing> {
        let heard = self.told.stations.get(&mac).map(|station| station.hearing);
        heard.or_else(|| self.addresses_of.contains_key(&mac).then_some(Hearing::Unheard))
    }

    /// How long a conflict with a station lasts without another claim.
    pub fn lasts(&self, mac: MacAddress) -> Duration {
        if self.hearing(mac).is_some() { CONFLICT_OF_NODES_OVER } else { CONFLICT_OVER }
    }

    /// The node that a station belongs to.
    pub fn node(&self, mac: MacAddress) -> Option<&NodeName> {
        let heard = self.told.stations.get(&mac).map(|station| &station.node);
        heard.or_else(|| self.told.addresses.get(self.addresses_of.get(&mac)?))
    }

    /// A station of a node.
    pub fn station_of(&self, node: &NodeName) -> Option<MacAddress> {
        let told = self.told.stations.iter().find(|(_, station)| station.node == *node).map(|(mac, _)| *mac);
        told.or_else(|| {
            let learned = self.learned.iter().find(|(address, _)| self.told.addresses.get(address) == Some(node));
            learned.map(|(_, mac)| *mac)
        })
    }

    /// A station was heard, whatever it said.
    pub fn note_heard(&mut self, mac: MacAddress, now: Instant) {
        self.heard_at = Some(now);
        if self.addresses_of.contains_key(&mac) {
            self.heard.insert(mac, now);
        }
    }

    /// When any station was heard last.
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    /// A station spoke from an address. True if that shows a station to be a node's that was not known to be one.
    pub fn handle_speaker(&mut self, address: IpAddr, mac: MacAddress) -> bool {
        if !self.told.addresses.contains_key(&address) || self.learned.get(&address) == Some(&mac) {
            return false;
        }
        let was_known = self.hearing(mac).is_some();
        if let Some(before) = self.learned.insert(address, mac)
            && self.addresses_of.get(&before) == Some(&address)
        {
            match self.learned.iter().find(|(_, station)| **station == before) {
                Some((other, _)) => drop(self.addresses_of.insert(before, *other)),
                None => {
                    self.addresses_of.remove(&before);
                    self.heard.remove(&before);
                }
            }
        }
        self.addresses_of.entry(mac).or_insert(address);
        !was_known
    }

    /// A station that nobody knows claims an address: the Nodes that were not heard yet are asked, unless they were within
    /// `CENSUS_INTERVAL`.
    pub fn handle_stranger(&mut self, now: Instant) {
        if self.census.begun.is_some_and(|begun| now < begun + CENSUS_INTERVAL) {
            return;
        }
        let on_link = |address: &IpAddr| self.told.own.iter().any(|own| own.contains(address));
        let unknown = self.told.addresses.keys().filter(|it| !self.learned.contains_key(it) && on_link(it));
        self.census.queue = unknown.copied().collect();
        if !self.census.queue.is_empty() {
            self.census.begun = Some(now);
            self.census.next = self.census.next.max(Some(now));
        }
    }

    /// Whether the station of this MAC may still turn out to be a node's: a census goes on.
    pub fn may_be_a_node(&self, mac: MacAddress, now: Instant) -> bool {
        self.hearing(mac).is_none() && self.census_ends().is_some_and(|ends| now < ends)
    }

    /// When the census is over: `CENSUS_PATIENCE` after the last question, as far as can be told now.
    pub fn census_ends(&self) -> Option<Instant> {
        let Census { begun, queue, next } = &self.census;
        let left = u32::try_from(queue.len()).unwrap_or(u32::MAX);
        (*begun)
            .max(*next)
            .filter(|_| begun.is_some())
            .map(|next| next + CENSUS_SPACING.saturating_mul(left) + CENSUS_PATIENCE)
    }

    /// The address by which a node's station can be asked whether it hears this one: its Node's, in a subnet of this link.
    pub fn address_of(&self, mac: MacAddress) -> Option<IpAddr> {
        let on_link = |address: &IpAddr| self.told.own.iter().any(|own| own.contains(address));
        let learned = self.addresses_of.get(&mac).copied().filter(on_link);
        // A station that pulses named need not have spoken from its Node's address yet.
        let told = || {
            let node = &self.told.stations.get(&mac)?.node;
            let of_node = |(address, name): &(&IpAddr, &NodeName)| *name == node && on_link(address);
            self.told.addresses.iter().find(of_node).map(|(address, _)| *address)
        };
        learned.or_else(told)
    }

    /// Asks a node's station for its Node's address.
    pub fn ask(&mut self, mac: MacAddress, now: Instant) {
        let Some(address) = self.address_of(mac) else { return };
        if !self.census.queue.contains(&address) {
            self.census.queue.push_front(address);
            self.census.next = self.census.next.max(Some(now));
        }
    }

    /// Stations of other Nodes than the one of `holder` were heard on this link until it fell silent: one that had not been heard for
    /// [`PRESENT_FOR`] by then is away itself. Where the holder is not known, one of them may be the holder's.
    pub fn knows_others(&self, holder: Option<MacAddress>) -> bool {
        self.others(holder).count() > usize::from(holder.is_none())
    }

    fn others(&self, holder: Option<MacAddress>) -> impl Iterator<Item = MacAddress> {
        let present = |at: Instant| self.heard_at.is_some_and(|last| at + PRESENT_FOR >= last);
        let others = self.heard.iter().filter(move |(mac, at)| Some(**mac) != holder && present(**at));
        others.map(|(mac, _)| *mac)
    }

    /// Asks a few of them for their Nodes' addresses: whether this node hears anybody.
    pub fn ask_others(&mut self, holder: Option<MacAddress>, now: Instant) {
        let others: Vec<MacAddress> = self.others(holder).take(MOST_OTHERS).collect();
        others.into_iter().for_each(|mac| self.ask(mac, now));
    }

    /// No pulse is heard of anybody, though some node's was.
    pub fn misses_all(&self) -> bool {
        let mut hearings = self.told.stations.values().map(|it| it.hearing);
        !self.told.stations.is_empty() && hearings.all(|it| matches!(it, Hearing::Unheard | Hearing::Leaving))
    }

    /// Asks a few of those that are missed for their Nodes' addresses.
    pub fn ask_missed(&mut self, now: Instant) {
        let missed = self.told.stations.iter().filter(|(_, it)| it.hearing == Hearing::Unheard);
        let missed: Vec<MacAddress> = missed.map(|(mac, _)| *mac).take(MOST_OTHERS).collect();
        missed.into_iter().for_each(|mac| self.ask(mac, now));
    }

    /// The next address of a Node to ask for.
    pub fn poll_question(&mut self, now: Instant) -> Option<IpAddr> {
        self.next_question().filter(|due| *due <= now)?;
        self.census.next = Some(now + CENSUS_SPACING);
        self.census.queue.pop_front()
    }

    /// When `poll_question` has the next; at once, if that is in the past. `None`: there is none.
    pub fn next_question(&self) -> Option<Instant> {
        self.census.queue.front().and(self.census.next)
    }

    /// The agent stops.
    pub fn is_leaving(&self) -> bool {
        self.told.leaving
    }

    /// The station that this node gave the address up to, if that may not know of it.
    pub fn yielded(&self, address: IpAddr) -> Option<MacAddress> {
        self.told.yields.get(&address).copied()
    }

    /// This node's MAC on the link.
    pub fn own_mac(&self) -> MacAddress {
        self.told.mac
    }
}

/// How many stations are asked whether this node hears.
const MOST_OTHERS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn mac(last: u8) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, last])
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last))
    }

    fn of_nodes(count: u8) -> Stations {
        let addresses = (1..=count).map(|n| (address(n), NodeName::from(format!("n{n}").as_str()))).collect();
        let mut stations = Stations::default();
        let own = ["10.0.0.100/24".parse().unwrap()].into();
        stations.handle_surroundings(Surroundings { addresses: Arc::new(addresses), own, ..Surroundings::default() });
        stations
    }

    #[test]
    fn a_station_that_speaks_from_a_nodes_address_is_that_nodes_until_another_station_does() {
        let mut stations = of_nodes(2);
        assert!(!stations.handle_speaker(address(9), mac(9)), "no Node has that address");
        assert!(stations.handle_speaker(address(1), mac(1)));
        assert!(!stations.handle_speaker(address(1), mac(1)), "known");
        assert_eq!(stations.hearing(mac(1)), Some(Hearing::Unheard));
        assert_eq!(stations.node(mac(1)), Some(&"n1".into()));
        assert!(stations.handle_speaker(address(1), mac(7)), "its network card was replaced");
        assert_eq!((stations.hearing(mac(1)), stations.hearing(mac(7))), (None, Some(Hearing::Unheard)));
        stations.handle_surroundings(Surroundings::default());
        assert_eq!(stations.hearing(mac(7)), None, "the Node is gone");
    }

    /// Input: a station speaks from two addresses of its Node; the Node loses the first, or another station has it. Output: it stays the Node's.
    #[test]
    fn a_station_that_loses_one_of_its_nodes_addresses_stays_the_nodes() {
        let two = |kept: &[u8]| {
            let addresses = kept.iter().map(|n| (address(*n), NodeName::from("n1"))).collect();
            Surroundings { addresses: Arc::new(addresses), ..Surroundings::default() }
        };
        let mut stations = Stations::default();
        stations.handle_surroundings(two(&[1, 2]));
        stations.handle_speaker(address(1), mac(1));
        stations.handle_speaker(address(2), mac(1));
        stations.handle_surroundings(two(&[2]));
        assert_eq!(stations.hearing(mac(1)), Some(Hearing::Unheard));
        assert_eq!(stations.node(mac(1)), Some(&"n1".into()));
        stations.handle_surroundings(two(&[1, 2]));
        stations.handle_speaker(address(1), mac(1));
        stations.handle_speaker(address(2), mac(7));
        assert_eq!((stations.node(mac(1)), stations.node(mac(7))), (Some(&"n1".into()), Some(&"n1".into())));
    }

    #[test]
    fn a_stranger_leads_to_one_question_for_each_node_of_the_subnet_a_hundred_a_second_and_once_a_minute() {
        let start = clock::now();
        let mut stations = of_nodes(250);
        stations.handle_speaker(address(1), mac(1));
        let elsewhere: IpAddr = "10.9.0.1".parse().unwrap();
        let mut addresses = BTreeMap::clone(&stations.told.addresses);
        addresses.insert(elsewhere, "far".into());
        stations.handle_surroundings(Surroundings { addresses: Arc::new(addresses), ..stations.told.clone() });
        stations.handle_stranger(start);
        let mut asked = Vec::new();
        let mut now = start;
        while let Some(due) = stations.next_question() {
            now = now.max(due);
            assert!(stations.may_be_a_node(mac(99), now));
            asked.extend(stations.poll_question(now).map(|address| (now - start, address)));
        }
        assert_eq!(asked.len(), 249, "not the one that is known, nor the one elsewhere");
        assert!(asked.iter().all(|(_, address)| *address != elsewhere));
        assert_eq!(asked.iter().filter(|(at, _)| at.as_millis() < 1000).count(), 100);
        assert!(
            !stations.may_be_a_node(mac(99), now + CENSUS_SPACING + CENSUS_PATIENCE),
            "nobody answered: it is none"
        );
        stations.handle_stranger(start + CENSUS_INTERVAL / 2);
        assert_eq!(stations.next_question(), None);
        stations.handle_stranger(start + CENSUS_INTERVAL);
        assert!(stations.next_question().is_some());
    }
}
