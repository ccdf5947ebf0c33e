//! Whether another node would announce over BGP what this one announces: asked before this node gives it up. Floor 1, a part of `drain`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Snapshot, others};
use crate::address::Family;
use crate::names::{NodeName, ObjectKey};
use crate::plan::carriers::Carriers;
use crate::plan::ranking::egress_nodes;
use crate::plan::verdict::egress::is_away;
use crate::roster::{Eligibility, Member, Sessions};
use crate::world::{Egress, Node, Pulses, Service, TrafficPolicy};

/// An address that routers have by this node, and no node is known that they would have it by then. `None` where the host shuts down: it goes
/// in any case, and what else it announces is better withdrawn before.
pub(super) fn nobody(snapshot: &Snapshot) -> Option<String> {
    if snapshot.world.shutdown.begun == Some(true) {
        return None;
    }
    let established = snapshot.established();
    let stay: BTreeSet<&NodeName> = others(snapshot).map(|(name, _)| name).collect();
    snapshot.plan.decisions.iter().find_map(|(key, decision)| {
        let service = snapshot.world.services.get(key)?;
        let announced = decision.announcements.iter();
        let mut announced = announced.filter(|it| it.bgp.peers.iter().any(|peer| established.contains(peer)));
        announced.find_map(|it| {
            let carriers = Carriers::of(&snapshot.config, &it.pool, service);
            let about = About { key, service, address: it.address, carriers, stay: &stay };
            let why = why_nobody(snapshot, &about)?;
            Some(format!("no other node would announce {} of {key} over BGP: {why}", it.address))
        })
    })
}

struct About<'a> {
    key: &'a ObjectKey,
    service: &'a Service,
    address: IpAddr,
    carriers: Carriers<'a>,
    /// The other Nodes that are Ready, and stay.
    stay: &'a BTreeSet<&'a NodeName>,
}

/// Of each other node why it would not; `None` where one would.
fn why_nobody(snapshot: &Snapshot, about: &About<'_>) -> Option<String> {
    let members = snapshot.world.rosters.values().flat_map(|roster| roster.members.keys());
    let names: BTreeSet<&NodeName> = members.chain(snapshot.world.nodes.keys()).collect();
    let (mut told, mut more) = (Vec::new(), 0_usize);
    for name in names.into_iter().filter(|name| **name != snapshot.node) {
        let why = refusal(snapshot, about, name)?;
        match told.len() < MOST_NAMED {
            true => told.push(format!("{name} {why}")),
            false => more += 1,
        }
    }
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Some(if told.is_empty() { "there is none".to_owned() } else { told.join(", ") })
}

/// So many nodes are named in one sentence.
const MOST_NAMED: usize = 5;

/// Why the node would not announce the address; `None` where it would, as far as is known.
fn refusal(snapshot: &Snapshot, about: &About<'_>, name: &NodeName) -> Option<String> {
    let world = &snapshot.world;
    let node = world.nodes.get(name).map(|node| &**node);
    let by_word = of_itself(snapshot, about, name, node);
    if by_word.is_some() {
        return by_word;
    }
    // What the file and the API server say. Of a node without an object nothing is known but what it says.
    let local = about.service.external_traffic_policy == TrafficPolicy::Local;
    let has_endpoint = || world.endpoints(about.key, Family::of(about.address)).by_node.contains_key(name);
    let bound = about.service.egress.filter(|egress| *egress != Egress::Network).and(egress_nodes(about.service));
    let labels = node.map(|node| &node.labels);
    if labels.is_some_and(|labels| !about.carriers.has_peer(labels)) {
        return Some("has no [[bgp.peer]] of a [[bgp.advertisement]] of it".to_owned());
    }
    if local && !has_endpoint() {
        return Some("has no endpoint of it (externalTrafficPolicy: Local)".to_owned());
    }
    bound
        .zip(labels)
        .filter(|(nodes, labels)| !nodes.matches(labels))
        .map(|_| "is not selected by crier.dev/egress-nodes".to_owned())
}

/// The same by its own word, or where it is not heard by what its Node says.
fn of_itself(snapshot: &Snapshot, about: &About<'_>, name: &NodeName, node: Option<&Node>) -> Option<String> {
    let world = &snapshot.world;
    let lease = snapshot.config.lease_digest();
    let members: Vec<&Member> = world.rosters.values().filter_map(|roster| roster.members.get(name)).collect();
    let without = |member: &&Member| matches!(member.sessions, Some(Sessions::Missing | Sessions::Away));
    let takes = |member: &&Member| member.eligibility == Eligibility::Eligible && !member.card.is_of_other_crier(lease);
    let is_heard = world.pulses != Pulses::Off && !members.is_empty();
    // Whoever is to announce in this node's place alone has to hear that.
    let is_handed_over = world.pulses != Pulses::Off && owns(snapshot, about);
    let why = match is_heard {
        true if !members.iter().any(takes) => "may not announce",
        true if members.iter().any(without) => "has no BGP session",
        true => return None,
        false if !about.stay.contains(name) => "is not Ready, or leaves too",
        false if node.is_some_and(|node| is_away(world, &snapshot.node, name, node)) => "is not heard",
        false if is_handed_over => "hears no pulses of this node",
        false => return None,
    };
    Some(why.to_owned())
}

/// What the pods of the Service open leaves by this node alone.
fn owns(snapshot: &Snapshot, about: &About<'_>) -> bool {
    let egress = snapshot.plan.decisions.get(about.key).and_then(|decision| decision.egress.as_ref());
    let mut owners = egress.into_iter().flat_map(|egress| &egress.owners);
    owners.any(|it| it.address == about.address && it.owner.as_ref() == Some(&snapshot.node))
}

#[cfg(test)]
mod tests;
