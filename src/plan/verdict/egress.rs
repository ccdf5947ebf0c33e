//! How what the pods of a Service open leaves the cluster: with which address as its source, and by which node.
//! Floor 1. The owner is the node that the announcement already has: one decision, so an address and its egress are in one place.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Announceable, Inputs};
use crate::address::Family;
use crate::config::Advertisement;
use crate::names::{NodeName, ObjectKey};
use crate::plan::decision::{Announcement, EgressOwner, EgressVerdict, Held, L2Verdict};
use crate::plan::elect;
use crate::plan::tickets::Ticket;
use crate::reason::Reason;
use crate::roster::Eligibility;
use crate::world::{DrainStage, Egress, Node, Pulses, Service, TrafficPolicy};

/// The part of the work that is about egress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressWork {
    /// Every pod, with where its packets go. Packets of a pod without a way do not leave the cluster.
    pub pods: Vec<(IpAddr, Option<Way>)>,
    /// An address has its owner by an election among the Nodes, so what is new of any Node concerns the Service.
    pub is_elected: bool,
}

/// Where the packets of a pod get the Service's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What the packets have as their source when they leave.
    pub address: IpAddr,
    pub owner: NodeName,
    /// This node is the owner and announces the address.
    pub here: bool,
}

/// The one node that may announce each of the addresses, where what the pods open leaves by it: `None` for a Service without
/// egress. An address that is on a link has its owner there. Of one that is announced over BGP alone, all nodes elect the same.
pub fn owners(
    inputs: &Inputs<'_>,
    about: &Announceable<'_>,
    on_link: &[L2Verdict],
) -> Option<Vec<Result<NodeName, Reason>>> {
    about.service.egress?;
    let owner = |(held, l2): (&&Held, &L2Verdict)| match (&l2.reason, &l2.owner) {
        (Reason::NoL2ForPool { .. }, _) => elected(inputs, about, held.address),
        (_, Some(owner)) => Ok(owner.clone()),
        (reason, None) => Err(reason.clone()),
    };
    Some(about.held.iter().zip(on_link).map(owner).collect())
}

/// The lowest ticket among the nodes that could announce the address over BGP. A node is drained by its own word, as its pulses tell,
/// and its agent is dead when they end.
/// Standalone and without Nodes, a node knows only itself.
fn elected(inputs: &Inputs<'_>, about: &Announceable<'_>, address: IpAddr) -> Result<NodeName, Reason> {
    let world = inputs.world;
    if world.nodes.is_empty() {
        return Ok(inputs.me.clone());
    }
    let pool = about.held.iter().find(|held| held.address == address).map(|held| &held.pool);
    let covers = |it: &&Advertisement| {
        (it.pools.is_empty() || pool.is_some_and(|pool| it.pools.contains(pool)))
            && it.service_selector.as_ref().is_none_or(|selector| selector.matches(&about.service.labels))
    };
    let covering: Vec<_> = inputs.config.bgp.advertisements.iter().filter(covers).collect();
    let endpoints = about.endpoints_of(address);
    let local = about.service.external_traffic_policy == TrafficPolicy::Local;
    let ignores_label = inputs.config.node.ignore_exclude_label;
    let may = |(name, node): &(&NodeName, &Arc<Node>)| {
        let excluded = elect::exclusion(node).filter(|reason| !(ignores_label && *reason == Reason::NodeExcluded));
        let selected = covering.iter().any(|it| it.nodes.as_ref().is_none_or(|nodes| nodes.matches(&node.labels)));
        let gone = says_drained(inputs, name) || is_away(inputs, name, node);
        node.ready && excluded.is_none() && !gone && selected && (!local || endpoints.by_node.contains_key(*name))
    };
    let first = world.nodes.iter().filter(may).map(|(name, _)| name).min_by_key(|name| Ticket::of(name, address));
    first.cloned().ok_or(Reason::NoEgressNode)
}

/// Without pulses nobody else learns of a drain, so a drained node stays the owner and holds the packets: two nodes that each send
/// them to the other would be worse.
fn says_drained(inputs: &Inputs<'_>, node: &NodeName) -> bool {
    let world = inputs.world;
    if node == inputs.me {
        return world.pulses != Pulses::Off && world.drain_stage() == Some(DrainStage::Drained);
    }
    let mut heard = world.rosters.values().filter_map(|roster| roster.members.get(node));
    heard.any(|member| member.eligibility == Eligibility::Drained)
}

/// The agent of another node left or is dead, though its Node is Ready: its pulses ended, or are missing on a link where it has an
/// address and others are heard. A node that is heard anywhere is there.
fn is_away(inputs: &Inputs<'_>, name: &NodeName, node: &Node) -> bool {
    let world = inputs.world;
    let mut rosters = world.rosters.values();
    if name == inputs.me || rosters.any(|it| it.members.contains_key(name) || it.unproved.contains_key(name)) {
        return false;
    }
    world.rosters.iter().any(|(index, roster)| {
        let ended = roster.left.contains_key(name) || roster.silent.get(name).is_some_and(|it| !it.suspect);
        let subnets = || world.links.get(index).into_iter().flat_map(|link| &link.addresses);
        let is_near = || subnets().any(|net| node.addresses.iter().any(|address| net.contains(address)));
        ended || (roster.settled && !roster.members.is_empty() && is_near())
    })
}

/// Where the pods' packets go. `announcements` are those of this node.
pub fn judge(
    inputs: &Inputs<'_>,
    key: &ObjectKey,
    service: &Service,
    owners: &[Result<NodeName, Reason>],
    announcements: &[Announcement],
) -> (Option<EgressVerdict>, EgressWork) {
    let Some(egress) = service.egress else { return (None, EgressWork::default()) };
    let is_node = |address: &IpAddr| inputs.world.nodes.values().any(|node| node.addresses.contains(address));
    // A pod in the host's network has the node's address, as has the node itself.
    let (of_nodes, mut pods): (Vec<IpAddr>, Vec<IpAddr>) =
        inputs.world.endpoint_addresses(key).partition(|address| is_node(address));
    pods.sort_unstable();
    pods.dedup();
    let way = |pod: &IpAddr| match egress {
        Egress::Closed => None,
        Egress::ServiceAddress => announcements.iter().zip(owners).find_map(|(announcement, owner)| {
            let is_of_family = Family::of(announcement.address) == Family::of(*pod);
            let owner = owner.as_ref().ok().filter(|_| is_of_family)?;
            let here = owner == inputs.me;
            let announced = announcement.l2.announced || !announcement.bgp.peers.is_empty();
            (!here || announced).then(|| Way { address: announcement.address, owner: owner.clone(), here })
        }),
    };
    let pods: Vec<(IpAddr, Option<Way>)> = pods.into_iter().map(|pod| (pod, way(&pod))).collect();
    let held = announcements.iter().map(|it| it.address);
    let owners = held.zip(owners).map(|(address, owner)| {
        let (owner, reason) = (owner.as_ref().ok().cloned(), owner.as_ref().err().cloned());
        EgressOwner { address, owner, reason }
    });
    let owners = owners.collect();
    let verdict =
        EgressVerdict { pods: pods.len(), host_pods: of_nodes.len(), owners, closed: egress == Egress::Closed };
    let is_elected = announcements.iter().any(|it| matches!(it.l2.reason, Reason::NoL2ForPool { .. }));
    (Some(verdict), EgressWork { pods, is_elected })
}
