//! Which nodes could answer for the addresses of an `[[l2]]`, and the order in which they would best.
//! Floor 1. Who does answer is decided in `plan::holder`.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::config::L2;
use crate::names::NodeName;
use crate::path_state::{DataPath, Serving};
use crate::plan::holder::{Bid, Grade};
use crate::plan::tickets::Ticket;
use crate::reason::Reason;
use crate::roster::{Eligibility, L2Number, Roster};
use crate::selector::Labels;
use crate::world::Node;

/// A node that may answer for addresses of an `[[l2]]`, with its score there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeName,
    /// The sum of the weights of the preferences that match; more is better.
    pub weight: u32,
    pub grade: Grade,
}

impl Candidate {
    pub fn bid(&self) -> Bid {
        Bid { grade: self.grade, weight: self.weight }
    }
}

/// The nodes of the cluster under one `[[l2]]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Electorate {
    /// By name.
    candidates: Vec<Candidate>,
    /// The others, each with why.
    pub excluded: Vec<(NodeName, Reason)>,
    /// The best bid of a candidate, and how many make it; `None` without candidates.
    best: (Option<Bid>, usize),
}

impl Electorate {
    pub fn new(mut candidates: Vec<Candidate>, excluded: Vec<(NodeName, Reason)>) -> Electorate {
        candidates.sort_by(|one, other| one.node.cmp(&other.node));
        let best = candidates.iter().map(Candidate::bid).max();
        let count = candidates.iter().filter(|it| Some(it.bid()) == best).count();
        Electorate { candidates, excluded, best: (best, count) }
    }

    /// The same nodes, each with another weight.
    pub fn reweighed(&self, weight: impl Fn(&Candidate) -> u32) -> Electorate {
        let reweighed = |it: &Candidate| Candidate { weight: weight(it), ..it.clone() };
        Electorate::new(self.candidates.iter().map(reweighed).collect(), self.excluded.clone())
    }

    /// The same nodes, but those that `refusal` gives a reason for are no candidates.
    pub fn without(&self, refusal: impl Fn(&NodeName) -> Option<Reason>) -> Electorate {
        let (mut candidates, mut excluded) = (Vec::new(), self.excluded.clone());
        for candidate in &self.candidates {
            match refusal(&candidate.node) {
                Some(reason) => excluded.push((candidate.node.clone(), reason)),
                None => candidates.push(candidate.clone()),
            }
        }
        Electorate::new(candidates, excluded)
    }

    /// By name.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    pub fn candidate(&self, node: &NodeName) -> Option<&Candidate> {
        let place = self.candidates.binary_search_by(|it| it.node.cmp(node)).ok()?;
        self.candidates.get(place)
    }

    /// The candidates with the best bid, by name.
    pub fn best(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(|it| Some(it.bid()) == self.best.0)
    }

    /// How many candidates make the best bid.
    pub fn count_best(&self) -> usize {
        self.best.1
    }
}

/// How this node stands on the links that an `[[l2]]` covers, where pulses tell who is alive.
#[derive(Debug, Clone)]
pub struct Hearing<'a> {
    pub me: &'a NodeName,
    /// What the others call this `[[l2]]`.
    pub number: L2Number,
    /// Of this node's crier.
    pub lease: Option<u64>,
    /// This node's own grade.
    pub grade: Grade,
    /// This node was drained.
    pub drained: bool,
    /// Whether this node can serve what it announces.
    pub path: &'a DataPath,
    /// This node's links of the `[[l2]]`, as far as pulses are heard there.
    pub rosters: Vec<&'a Roster>,
    /// Why this node may not be a candidate itself; the others are judged all the same.
    pub refusal: Option<Reason>,
}

/// Sorts the known nodes into candidates and excluded ones.
///
/// Where pulses are heard they tell who is alive, and nothing else does: a node that was never heard is no candidate, for
/// to hear nothing of it is all that its death would look like. Its weight is its own word: this node's file is not asked about
/// others, so that nodes whose files differ rank each other alike.
///
/// Where none are heard, a node that is not Ready is passed over while another one is: that is as much as the API server
/// can tell of life and death. If no node is Ready the whole cluster is in doubt, and readiness says nothing about any.
pub fn electorate(l2: &L2, nodes: &OrdMap<NodeName, Arc<Node>>, hearing: Option<&Hearing<'_>>) -> Electorate {
    match hearing {
        Some(hearing) => electorate_by_pulse(l2, nodes, hearing),
        None => electorate_by_readiness(l2, nodes),
    }
}

fn electorate_by_pulse(l2: &L2, nodes: &OrdMap<NodeName, Arc<Node>>, hearing: &Hearing<'_>) -> Electorate {
    let heard = hearing.rosters.iter().flat_map(|it| it.members.keys().chain(it.silent.keys()).chain(it.left.keys()));
    let names: BTreeSet<&NodeName> = nodes.keys().chain(heard).collect();
    let (mut candidates, mut excluded) = (Vec::new(), Vec::new());
    for name in names {
        let judged = if name == hearing.me { bid_here(l2, nodes, hearing) } else { bid_there(name, hearing) };
        let judged = judged.map(|Bid { grade, weight }| Candidate { node: name.clone(), weight, grade });
        match judged {
            Ok(candidate) => candidates.push(candidate),
            Err(reason) => excluded.push((name.clone(), reason)),
        }
    }
    Electorate::new(candidates, excluded)
}

fn bid_here(l2: &L2, nodes: &OrdMap<NodeName, Arc<Node>>, hearing: &Hearing<'_>) -> Result<Bid, Reason> {
    let Some(node) = nodes.get(hearing.me) else { return Err(Reason::NodeUnknown { node: hearing.me.clone() }) };
    if let Some(reason) = exclusion(node).or_else(|| hearing.refusal.clone()) {
        return Err(reason);
    }
    if !hearing.rosters.iter().any(|roster| roster.settled) {
        return Err(Reason::NodeListening);
    }
    if hearing.drained {
        return Err(Reason::NodeDrained);
    }
    if hearing.path.serving() == Serving::NotSinceBoot {
        return Err(Reason::DataPathNotSeen { fault: hearing.path.fault().cloned() });
    }
    let weight = weight(l2, &node.labels).ok_or(Reason::NodeNotSelected)?;
    Ok(Bid { grade: hearing.grade, weight })
}

/// One that may answer on any of the links may answer.
fn bid_there(name: &NodeName, hearing: &Hearing<'_>) -> Result<Bid, Reason> {
    let mut refused = None;
    for member in hearing.rosters.iter().filter_map(|roster| roster.members.get(name)) {
        let reason = match (grade(member.eligibility), member.eligibility) {
            _ if member.card.is_of_other_crier(hearing.lease) => Reason::NodeOfOtherCrier,
            (Some(grade), _) => match member.card.weights.get(&hearing.number) {
                Some(weight) => return Ok(Bid { grade, weight: *weight }),
                None => Reason::NodeNotSelected,
            },
            (None, Eligibility::Listening) => Reason::NodeListening,
            (None, Eligibility::Excluded) => Reason::NodeExcluded,
            (None, Eligibility::NetworkUnavailable) => Reason::NodeNetworkUnavailable,
            (None, Eligibility::NodeUnknown) => Reason::NodeUnknown { node: name.clone() },
            (None, Eligibility::Leaving) => Reason::NodeLeaving,
            (None, Eligibility::Drained) => Reason::NodeDrained,
            (None, Eligibility::DataPathNotSeen) => Reason::DataPathNotSeen { fault: None },
            (None, Eligibility::Unknown(eligibility)) => Reason::NodeIneligible { eligibility },
            (
                None,
                Eligibility::Eligible | Eligibility::DataPathBad | Eligibility::ViewStale | Eligibility::Draining,
            ) => Reason::NodeNotSelected,
        };
        refused.get_or_insert(reason);
    }
    let silent = hearing.rosters.iter().any(|roster| roster.silent.contains_key(name));
    let left = hearing.rosters.iter().any(|roster| roster.left.contains_key(name));
    let receives_nothing = hearing.rosters.iter().any(|roster| roster.receive_nothing.contains(name));
    Err(refused.unwrap_or(match (silent, left) {
        _ if receives_nothing => Reason::NodeReceivesNothing,
        (true, _) => Reason::NodeSilent,
        (false, true) => Reason::NodeLeft,
        (false, false) => Reason::NodeNotHeard,
    }))
}

fn electorate_by_readiness(l2: &L2, nodes: &OrdMap<NodeName, Arc<Node>>) -> Electorate {
    let (mut candidates, mut excluded) = (Vec::new(), Vec::new());
    let mut not_ready = Vec::new();
    for (name, node) in nodes {
        match (exclusion(node), weight(l2, &node.labels)) {
            (Some(reason), _) => excluded.push((name.clone(), reason)),
            (None, None) => excluded.push((name.clone(), Reason::NodeNotSelected)),
            (None, Some(weight)) => {
                let candidate = Candidate { node: name.clone(), weight, grade: Grade::Eligible };
                if node.ready { candidates.push(candidate) } else { not_ready.push(candidate) }
            }
        }
    }
    if candidates.is_empty() {
        candidates = not_ready;
    } else {
        let passed_over = not_ready.into_iter().map(|candidate| (candidate.node, Reason::NodeNotReady));
        excluded.extend(passed_over);
    }
    Electorate::new(candidates, excluded)
}

/// What the eligibility that a node states makes of it; `None` where it has no part in anything.
pub fn grade(eligibility: Eligibility) -> Option<Grade> {
    match eligibility {
        Eligibility::Eligible => Some(Grade::Eligible),
        Eligibility::ViewStale => Some(Grade::ViewStale),
        Eligibility::DataPathBad => Some(Grade::DataPathBad),
        Eligibility::Draining => Some(Grade::Draining),
        Eligibility::Listening
        | Eligibility::Excluded
        | Eligibility::NetworkUnavailable
        | Eligibility::NodeUnknown
        | Eligibility::Leaving
        | Eligibility::DataPathNotSeen
        | Eligibility::Drained
        | Eligibility::Unknown(_) => None,
    }
}

/// What the preferences give a node with these labels; `None` where the selector leaves it out.
pub fn weight(l2: &L2, labels: &Labels) -> Option<u32> {
    if l2.nodes.as_ref().is_some_and(|selector| !selector.matches(labels)) {
        return None;
    }
    let weights = l2.preference.iter().filter(|preference| preference.nodes.matches(labels));
    Some(weights.map(|preference| preference.weight).fold(0, u32::saturating_add))
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

/// The best of the candidates: best grade, highest weight, then one that `keeps` says already has the address and keeps it, then the
/// lowest `sha256(node + "#" + address)`, which is the order of MetalLB, so that a migration moves no address.
pub fn elect<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    address: IpAddr,
    keeps: impl Fn(&Candidate) -> bool,
) -> Option<&'a NodeName> {
    let mut candidates = candidates.into_iter();
    let first = candidates.next()?;
    let Some(second) = candidates.next() else {
        return Some(&first.node);
    };
    let all = [first, second].into_iter().chain(candidates);
    all.min_by_key(|candidate| rank(candidate, address, keeps(candidate))).map(|candidate| &candidate.node)
}

/// All of the candidates, the one that [`elect`] names in front.
pub fn ranked<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    address: IpAddr,
    keeps: impl Fn(&Candidate) -> bool,
) -> Vec<&'a Candidate> {
    let mut all: Vec<_> = candidates.into_iter().collect();
    all.sort_by_cached_key(|candidate| rank(candidate, address, keeps(candidate)));
    all
}

fn rank(candidate: &Candidate, address: IpAddr, keeps: bool) -> impl Ord + use<> {
    (Reverse(candidate.bid()), !keeps, Ticket::of(&candidate.node, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(node: &str, weight: u32) -> Candidate {
        Candidate { node: node.into(), weight, grade: Grade::Eligible }
    }

    fn digest(node: &NodeName, address: IpAddr) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        Sha256::digest(format!("{node}#{address}")).into()
    }

    #[test]
    fn the_order_is_that_of_metallb() {
        // echo -n "node1#192.168.35.100" | sha256sum, and so on: the lowest digest wins.
        let nodes = ["node1", "node2", "node3", "node4"].map(|name| candidate(name, 0));
        let address: IpAddr = "192.168.35.100".parse().unwrap();
        let mut by_digest: Vec<_> = nodes.iter().collect();
        by_digest.sort_by_key(|it| digest(&it.node, address));
        assert_eq!(elect(&nodes, address, |_| false), Some(&by_digest[0].node));
        assert_eq!(ranked(&nodes, address, |_| false), by_digest, "and so is the whole list");
        let hex: String = digest(&"node1".into(), address).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "4d142f37fee6bc18fa5b99902341e0da35527035833fc51f6504d860786ddc2b");
    }

    #[test]
    fn losing_a_node_moves_only_its_own_addresses() {
        let all = ["a", "b", "c"].map(|name| candidate(name, 0));
        let without_b = ["a", "c"].map(|name| candidate(name, 0));
        for last in 0..=255u8 {
            let address = IpAddr::from([192, 0, 2, last]);
            let before = elect(&all, address, |_| false).unwrap();
            let after = elect(&without_b, address, |_| false).unwrap();
            assert!(before.as_str() == "b" || before == after, "{address} moved from {before} to {after}");
        }
    }

    #[test]
    fn a_preferred_node_wins_whatever_the_digest() {
        let nodes = [candidate("a", 0), candidate("b", 100), candidate("c", 0)];
        for last in 0..=255u8 {
            assert_eq!(elect(&nodes, IpAddr::from([192, 0, 2, last]), |_| false).unwrap().as_str(), "b");
        }
    }
}
