//! Who answers for an address on the link: the ranking that every agent computes alike.
//! Floor 1.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::config::L2;
use crate::names::NodeName;
use crate::reason::Reason;
use crate::world::Node;

/// A node that may answer for addresses of an `[[l2]]`, with its score there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeName,
    /// The sum of the weights of the preferences that match; more is better.
    pub weight: u32,
}

/// The nodes of the cluster under one `[[l2]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Electorate {
    pub candidates: Vec<Candidate>,
    /// The others, each with why.
    pub excluded: Vec<(NodeName, Reason)>,
}

/// Sorts the known nodes into candidates and excluded ones.
///
/// A node that is not Ready is passed over while another one is: that is as much as the API server can tell of life
/// and death. If no node is Ready the whole cluster is in doubt, and readiness says nothing about any of them.
pub fn electorate(l2: &L2, nodes: &BTreeMap<NodeName, Arc<Node>>) -> Electorate {
    let mut electorate = Electorate::default();
    let mut not_ready = Vec::new();
    for (name, node) in nodes {
        match exclusion(node) {
            Some(reason) => electorate.excluded.push((name.clone(), reason)),
            None if l2.nodes.as_ref().is_some_and(|selector| !selector.matches(&node.labels)) => {
                electorate.excluded.push((name.clone(), Reason::NodeNotSelected));
            }
            None => {
                let weights = l2.preference.iter().filter(|preference| preference.nodes.matches(&node.labels));
                let weight = weights.map(|preference| preference.weight).fold(0, u32::saturating_add);
                let candidate = Candidate { node: name.clone(), weight };
                if node.ready { electorate.candidates.push(candidate) } else { not_ready.push(candidate) }
            }
        }
    }
    if electorate.candidates.is_empty() {
        electorate.candidates = not_ready;
    } else {
        let passed_over = not_ready.into_iter().map(|candidate| (candidate.node, Reason::NodeNotReady));
        electorate.excluded.extend(passed_over);
    }
    electorate
}

/// Why a node takes no part in announcing at all, over any protocol.
pub fn exclusion(node: &Node) -> Option<Reason> {
    if node.labels.0.contains_key(Node::EXCLUDE_LABEL) {
        Some(Reason::NodeExcluded)
    } else if node.network_unavailable {
        Some(Reason::NodeNetworkUnavailable)
    } else {
        None
    }
}

/// The best of the candidates: highest weight, then the lowest `sha256(node + "#" + address)`, which is the order
/// of MetalLB, so that a migration moves no address.
pub fn elect<'a>(candidates: impl IntoIterator<Item = &'a Candidate>, address: IpAddr) -> Option<&'a NodeName> {
    let mut candidates = candidates.into_iter();
    let first = candidates.next()?;
    let Some(second) = candidates.next() else {
        return Some(&first.node);
    };
    let rank = |candidate: &&Candidate| (Reverse(candidate.weight), ticket(&candidate.node, address));
    [first, second].into_iter().chain(candidates).min_by_key(rank).map(|candidate| &candidate.node)
}

fn ticket(node: &NodeName, address: IpAddr) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(node.as_str());
    hash.update("#");
    hash.update(address.to_string());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(node: &str, weight: u32) -> Candidate {
        Candidate { node: node.into(), weight }
    }

    #[test]
    fn the_order_is_that_of_metallb() {
        // echo -n "node1#192.168.35.100" | sha256sum, and so on: the lowest digest wins.
        let nodes = ["node1", "node2", "node3", "node4"].map(|name| candidate(name, 0));
        let address: IpAddr = "192.168.35.100".parse().unwrap();
        let mut by_digest: Vec<_> = nodes.iter().collect();
        by_digest.sort_by_key(|it| ticket(&it.node, address));
        assert_eq!(elect(&nodes, address), Some(&by_digest[0].node));
        let hex: String = ticket(&"node1".into(), address).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4d142f37fee6bc18fa5b99902341e0da35527035833fc51f6504d860786ddc2b");
    }

    #[test]
    fn losing_a_node_moves_only_its_own_addresses() {
        let all = ["a", "b", "c"].map(|name| candidate(name, 0));
        let without_b = ["a", "c"].map(|name| candidate(name, 0));
        for last in 0..=255u8 {
            let address = IpAddr::from([192, 0, 2, last]);
            let before = elect(&all, address).unwrap();
            let after = elect(&without_b, address).unwrap();
            assert!(before.as_str() == "b" || before == after, "{address} moved from {before} to {after}");
        }
    }

    #[test]
    fn a_preferred_node_wins_whatever_the_digest() {
        let nodes = [candidate("a", 0), candidate("b", 100), candidate("c", 0)];
        for last in 0..=255u8 {
            assert_eq!(elect(&nodes, IpAddr::from([192, 0, 2, last])).unwrap().as_str(), "b");
        }
    }
}
