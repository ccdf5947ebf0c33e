//! Rank tickets: the order that the nodes have for an address where nothing else tells them apart. Kept from one turn to the
//! next, because one ticket costs a SHA-256 digest and a cluster has as many tickets as addresses times nodes.
//! Floor 1. What is kept changes how long an answer takes, never the answer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::names::NodeName;

/// The place of a node in the order for an address, lowest first: `sha256(node + "#" + address)`, as MetalLB does it, so that
/// a migration moves no address. These are the first 16 octets: nobody can make two nodes that share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u128);

impl Ticket {
    pub fn of(node: &NodeName, address: IpAddr) -> Ticket {
        Ticket::of_text(node, &address.to_string())
    }

    fn of_text(node: &NodeName, address: &str) -> Ticket {
        let mut hash = Sha256::new();
        hash.update(node.as_str());
        hash.update("#");
        hash.update(address);
        let digest: [u8; 32] = hash.finalize().into();
        Ticket(digest.iter().take(16).fold(0, |sum, octet| sum << 8 | u128::from(*octet)))
    }
}

/// The lowest tickets of each address that was asked for.
#[derive(Debug, Default)]
pub struct Tickets {
    nodes: BTreeSet<NodeName>,
    by_address: RefCell<BTreeMap<IpAddr, Lowest>>,
}

/// The nodes with the lowest tickets for an address, lowest first.
#[derive(Debug)]
struct Lowest {
    nodes: Vec<(Ticket, NodeName)>,
    /// These are all nodes there are.
    complete: bool,
}

/// So many nodes are kept for each address: the chance that none of them is a candidate is small where most nodes are.
const MOST_NODES: usize = 12;

/// With more addresses than these all are forgotten, and found again as they are asked for.
const MOST_ADDRESSES: usize = 32_768;

impl Tickets {
    /// All nodes that may ever be asked for.
    pub fn set_nodes(&mut self, nodes: BTreeSet<NodeName>) {
        if nodes == self.nodes {
            return;
        }
        let added: Vec<&NodeName> = nodes.difference(&self.nodes).collect();
        let gone: Vec<&NodeName> = self.nodes.difference(&nodes).collect();
        let by_address = self.by_address.get_mut();
        for (address, lowest) in &mut *by_address {
            let text = address.to_string();
            lowest.nodes.retain(|(_, node)| !gone.contains(&node));
            added.iter().for_each(|node| lowest.add(Ticket::of_text(node, &text), node));
        }
        by_address.retain(|_, lowest| lowest.complete || !lowest.nodes.is_empty());
        self.nodes = nodes;
    }

    /// The node with the lowest ticket for the address among those that `is_candidate` takes; `None` where that is not known
    /// without the tickets of all.
    pub fn lowest(&self, address: IpAddr, is_candidate: impl Fn(&NodeName) -> bool) -> Option<NodeName> {
        let mut by_address = self.by_address.borrow_mut();
        if by_address.len() >= MOST_ADDRESSES && !by_address.contains_key(&address) {
            by_address.clear();
        }
        let lowest = by_address.entry(address).or_insert_with(|| Lowest::of(&self.nodes, address));
        lowest.nodes.iter().map(|(_, node)| node).find(|node| is_candidate(node)).cloned()
    }
}

impl Lowest {
    fn of(nodes: &BTreeSet<NodeName>, address: IpAddr) -> Lowest {
        let text = address.to_string();
        let mut all: Vec<(Ticket, &NodeName)> = nodes.iter().map(|node| (Ticket::of_text(node, &text), node)).collect();
        let complete = all.len() <= MOST_NODES;
        if !complete {
            all.select_nth_unstable(MOST_NODES);
            all.truncate(MOST_NODES);
        }
        all.sort_unstable();
        Lowest { nodes: all.into_iter().map(|(ticket, node)| (ticket, node.clone())).collect(), complete }
    }

    fn add(&mut self, ticket: Ticket, node: &NodeName) {
        let place = self.nodes.partition_point(|(known, _)| *known < ticket);
        // Behind the last one there may be others that are not kept.
        if place == self.nodes.len() && !self.complete {
            return;
        }
        self.nodes.insert(place, (ticket, node.clone()));
        if self.nodes.len() > MOST_NODES {
            self.nodes.truncate(MOST_NODES);
            self.complete = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_agrees_with_all_tickets_whatever_nodes_come_and_go() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut tickets = Tickets::default();
        let addresses: Vec<IpAddr> = (0..8u8).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let mut known = 0;
        for _ in 0..500 {
            let share = random.u8(1..=100);
            let all = (0..40).map(|number| NodeName::from(format!("node-{number}")));
            let nodes: BTreeSet<NodeName> = all.filter(|_| random.u8(0..100) < share).collect();
            tickets.set_nodes(nodes.clone());
            let address = addresses[random.usize(..addresses.len())];
            let candidates: BTreeSet<&NodeName> = nodes.iter().filter(|_| random.u8(0..4) > 0).collect();
            let found = tickets.lowest(address, |node| candidates.contains(node));
            let expected = candidates.iter().min_by_key(|node| Ticket::of(node, address)).map(|node| (*node).clone());
            if found.is_some() {
                known += 1;
                assert_eq!(found, expected);
            }
        }
        assert!(known > 400, "most answers are known: {known}");
    }
}
