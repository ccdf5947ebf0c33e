//! What the pulses of the other nodes do not agree with, or what keeps this node from hearing them, each in one sentence.
//! Floor 1. How addresses are held in spite of it stands in `doc/ownership.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::words::some_of;
use super::{Snapshot, allocator};
use crate::address::MacAddress;
use crate::config::{InterfacePattern, PULSE_PORT, lease_digest};
use crate::names::NodeName;
use crate::plan::context::nodes::labels_of;
use crate::plan::doubles::holds;
use crate::plan::elect;
use crate::roster::{Card, Member, Roster};
use crate::some_of::some;
use crate::world::{Condition, PulseTrouble, Pulses, World};

/// All of it, what concerns most first.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let unheard = of_pulse(snapshot);
    let doubles = doubles(snapshot);
    unheard.into_iter().chain(doubles).chain(differences(snapshot)).chain(pulse_trouble(&snapshot.world)).collect()
}

/// How long several nodes must have held an address: who hears the other gives way before.
const DOUBLE_FOR: Duration = Duration::from_secs(2);

/// Other nodes that hold addresses together: they cannot know it.
fn doubles(Snapshot { world, plan, now, .. }: &Snapshot) -> Vec<String> {
    let mut all: BTreeMap<(u32, BTreeSet<&NodeName>), BTreeSet<IpAddr>> = BTreeMap::new();
    for ((address, link), (nodes, since)) in plan.doubles.iter() {
        let members = world.rosters.get(link).map(|roster| &roster.members);
        let still = |node: &&NodeName| members.and_then(|it| it.get(*node)).is_some_and(|it| holds(it, *address));
        let nodes: BTreeSet<&NodeName> = nodes.iter().filter(still).collect();
        if nodes.len() > 1 && now.saturating_duration_since(*since) >= DOUBLE_FOR {
            all.entry((*link, nodes)).or_default().insert(*address);
        }
    }
    let in_words = |((index, nodes), addresses): ((u32, BTreeSet<&NodeName>), BTreeSet<IpAddr>)| {
        let link = world.links.get(&index).map_or("a link that is gone", |link| link.name.as_str());
        let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        format!(
            "{} answer for {} at the same time, each on its own: this node hears the pulses of {} on {link}, and they do not hear each \
             other; see to the ports and the switch between them (a broken member of a LAG, isolated ports), and to UDP port {}",
            names.join(" and "),
            some_of(&addresses),
            if nodes.len() == 2 { "both" } else { "all" },
            PULSE_PORT
        )
    };
    all.into_iter().map(in_words).collect()
}

fn of_pulse(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, node, world, plan, .. } = snapshot;
    let others = world.nodes.iter().filter(|(name, other)| *name != node && other.ready).count();
    let heard = |roster: &Arc<Roster>| {
        let Roster { members, silent, left, unproved, .. } = &**roster;
        !(members.is_empty() && silent.is_empty() && left.is_empty() && unproved.is_empty())
    };
    match world.pulses {
        Pulses::Off if !config.l2.is_empty() && others > 0 => {
            let slow = "no pulse: [pulse] has no key, so failover on the link takes up to five seconds";
            std::iter::once(slow.to_owned()).chain(segments_unknown(snapshot)).collect()
        }
        Pulses::Off if !config.pulse.interfaces.is_empty() => {
            vec!["no pulse: [pulse] interfaces is set, but [pulse] has no key: set key-file".to_owned()]
        }
        Pulses::Off => Vec::new(),
        Pulses::On { authenticated } => {
            let mut problems = Vec::new();
            if !authenticated {
                problems.push("the pulse is unauthenticated: anybody on the link can take addresses away".to_owned());
            }
            let has_link = |name: &InterfacePattern| plan.pulse.links.values().any(|it| name.matches(&it.link.name));
            for missing in config.pulse.interfaces.iter().filter(|name| !has_link(name)) {
                problems.push(format!(
                    "no pulse on {missing}, which [pulse] interfaces names: this node has no such link that is up"
                ));
            }
            let settled = world.rosters.values().any(|roster| roster.settled);
            if others > 0 && settled && !world.rosters.values().any(heard) {
                problems.push(format!(
                    "{} Nodes are known, and no pulse of another one was heard on {}: is UDP port {} open between the nodes? \
                     does crier run there, with the same key? does the network pass multicast ([pulse] peers)?",
                    world.nodes.len(),
                    links_listened_on(world),
                    PULSE_PORT
                ));
            }
            let of_link = |(index, roster): (&u32, &Arc<Roster>)| {
                [
                    not_heard_by(world, node, *index, roster),
                    without_common_key(world, *index, roster),
                    of_one_mac(snapshot, *index, roster),
                ]
            };
            problems.extend(world.rosters.iter().flat_map(of_link).flatten());
            problems
        }
    }
}

/// Nodes whose pulses come from one MAC, of which this node may be one: to a switch they are one station, and it sends what is for all of
/// them to whichever spoke last.
fn of_one_mac(Snapshot { node, world, .. }: &Snapshot, index: u32, roster: &Roster) -> Option<String> {
    let link = world.links.get(&index)?;
    let mut nodes: BTreeMap<MacAddress, BTreeSet<&NodeName>> = BTreeMap::new();
    for (name, member) in &roster.members {
        for mac in member.macs() {
            nodes.entry(mac).or_default().insert(name);
        }
    }
    if let Some(mac) = link.mac {
        nodes.entry(mac).or_default().insert(node);
    }
    let told: Vec<String> = nodes
        .into_iter()
        .filter(|(_, nodes)| nodes.len() > 1)
        .map(|(mac, nodes)| {
            let names: Vec<&str> = nodes.iter().map(|name| name.as_str()).collect();
            format!("{} from {mac}", names.join(" and "))
        })
        .collect();
    (!told.is_empty()).then(|| {
        format!(
            "nodes send pulses from the same MAC on {}: {}; the switch sends what is for all of them to the one that spoke last: give each \
             node a MAC of its own (a cloned machine?); a link of a virtual router (keepalived use_vmac) is to be left out by [[l2]] \
             exclude-interfaces",
            link.name,
            told.join("; ")
        )
    })
}

/// Without pulses the Nodes' addresses tell which nodes are on the segment of an address. Where no Node has an address in its
/// subnet they do not.
fn segments_unknown(Snapshot { world, plan, .. }: &Snapshot) -> Option<String> {
    let of_nodes: Vec<IpAddr> = world.nodes.values().flat_map(|node| node.addresses.iter().copied()).collect();
    let subnet_of = |address: &IpAddr| {
        let mut nets = world.links.values().flat_map(|link| &link.addresses);
        nets.find(|net| net.contains(address)).map(IpNet::trunc)
    };
    let subnets: BTreeSet<IpNet> = plan.l2.addresses.keys().filter_map(subnet_of).collect();
    let unknown = subnets.iter().filter(|net| !of_nodes.iter().any(|address| net.contains(address)));
    let unknown: Vec<String> = unknown.map(IpNet::to_string).collect();
    (!unknown.is_empty()).then(|| {
        format!(
            "no Node has an address in {}, so without pulses a node that is on another segment may be elected for its \
             addresses, and nobody answers there: set [pulse] key-file, or [[l2]] nodes",
            unknown.join(", ")
        )
    })
}

fn without_common_key(world: &World, index: u32, roster: &Roster) -> Option<String> {
    let keys = roster.key_use.as_ref().filter(|keys| keys.sealing.len() > 1)?;
    let link = world.links.get(&index).map_or("a link that is gone", |link| link.name.as_str());
    Some(format!(
        "pulses on {link}: the nodes have no key in common, so some of them do not hear each other and addresses may move: {} \
         without the new key {}; name the former key in [pulse] old-key-files of every node that has the new one",
        some_of(&keys.without_new),
        keys.new
    ))
}

/// The nodes that do not hear this one, as their silence tells.
fn not_heard_by(world: &World, me: &NodeName, index: u32, roster: &Roster) -> Option<String> {
    // Another host has this node's name: others listen to that one, and that is told.
    if roster.doubles.contains_key(me) {
        return None;
    }
    let unproved = roster.unproved.iter().filter(|(_, it)| it.deaf).map(|(node, _)| node);
    let members = roster.members.iter().filter(|(_, it)| it.deaf).map(|(node, _)| node);
    let deaf: BTreeSet<NodeName> = unproved.chain(members).cloned().collect();
    let link = world.links.get(&index).map_or("a link that is gone", |link| link.name.as_str());
    (!deaf.is_empty()).then(|| {
        format!(
            "pulses on {link}: {} {} not hear this node's pulses, so this node leaves to them every address that both announce: is \
             UDP port {} filtered from here to there, in the firewall of this node too?",
            some_of(&deaf),
            if deaf.len() == 1 { "does" } else { "do" },
            PULSE_PORT
        )
    })
}

fn links_listened_on(world: &World) -> String {
    let name = |index: &u32| world.links.get(index).map_or("a link that is gone", |link| link.name.as_str());
    world.rosters.keys().map(name).collect::<Vec<_>>().join(", ")
}

/// The nodes whose configuration decides otherwise than this node's.
fn differences(snapshot: &Snapshot) -> Vec<String> {
    let (mut ownership, mut allocation) = (BTreeSet::new(), BTreeSet::new());
    let (mut services, mut given) = (BTreeSet::new(), BTreeSet::new());
    let mut others: BTreeMap<u64, BTreeSet<NodeName>> = BTreeMap::new();
    for (index, link) in snapshot.plan.pulse.links.iter() {
        let members = snapshot.world.rosters.get(index).into_iter().flat_map(|roster| &roster.members);
        for (node, Member { card, .. }) in members {
            // A node that was just heard has not shown its card yet.
            let differs = |digest: fn(&Card) -> u64| digest(card) != 0 && digest(card) != digest(&link.card);
            // A node without an [[l2]] on the link, such as one that only speaks BGP, has no part in who holds what.
            let both_serve = !card.weights.is_empty() && !link.card.weights.is_empty();
            // Another crier of the cluster has a file of its own, with other pools.
            if card.is_of_other_crier(link.card.lease) {
                let same = both_serve && card.ownership_digest == link.card.ownership_digest;
                let lease = card.lease.filter(|_| same && !snapshot.config.pools.is_empty());
                if let Some(lease) = lease {
                    others.entry(lease).or_default().insert(node.clone());
                }
                continue;
            }
            if both_serve && differs(|card| card.ownership_digest) {
                ownership.insert(node.clone());
            }
            if differs(|card| card.allocation_digest) {
                allocation.insert(node.clone());
            }
            // Those that choose for themselves, both.
            let Some((theirs, own)) = card.given.zip(link.card.given) else { continue };
            match (theirs.services == own.services, theirs.addresses == own.addresses) {
                (true, true) => {}
                (true, false) => drop(given.insert(node.clone())),
                (false, _) => drop(services.insert(node.clone())),
            }
        }
    }
    // The one that allocates is named already, with what follows of that.
    if let Some(holder) = allocator::holder_of_other_pools(snapshot) {
        allocation.remove(holder);
    }
    let remedy = "give all nodes the same file: compare `crier config show` there and here";
    let of_ownership = (!ownership.is_empty()).then(|| {
        format!(
            "{}: the nodes do not agree where each address would best be{}; {remedy}",
            differ("[[l2]] (or the addresses of its pools)", &ownership),
            favoured(snapshot, &ownership)
        )
    });
    let of_allocation = (!allocation.is_empty()).then(|| {
        format!(
            "{}: which address a Service gets depends on the agent that allocates; {remedy}",
            differ("pools", &allocation)
        )
    });
    let of_services = (!services.is_empty()).then(|| {
        format!(
            "the manifests on {} have other Services than those on this node, so one address may go to two Services: give all nodes \
             the same files",
            some_of(&services)
        )
    });
    let of_given = (!given.is_empty()).then(|| {
        format!(
            "Services have other addresses on {} than on this node, so clients of an address may reach another Service: compare \
             `crier status` there and here, and name the addresses of each Service in the manifests (crier.dev/addresses)",
            some_of(&given)
        )
    });
    let of_others = others.into_iter().map(|(lease, nodes)| of_other_crier(&snapshot.world, lease, &nodes));
    [of_ownership, of_allocation, of_services, of_given].into_iter().flatten().chain(of_others).collect()
}

/// Which of these nodes give themselves more weight than this file would: they take addresses by it.
fn favoured(snapshot: &Snapshot, nodes: &BTreeSet<NodeName>) -> String {
    let Snapshot { config, context, world, .. } = snapshot;
    let members = |node: &NodeName| world.rosters.values().filter_map(|it| it.members.get(node)).collect::<Vec<_>>();
    let more = |node: &NodeName| {
        let labels = labels_of(config, node, world)?;
        let weights = members(node).into_iter().flat_map(|member| {
            config
                .l2
                .iter()
                .zip(&context.l2)
                .filter_map(|(l2, it)| Some((it.weight_of(member)?, elect::weight(l2, &labels)?)))
        });
        let (theirs, here) = weights.filter(|(theirs, here)| theirs > here).max()?;
        Some(format!("{node} gives itself weight {theirs}, this file gives it {here}, so it takes addresses"))
    };
    let told: BTreeSet<String> = nodes.iter().filter_map(more).collect();
    if told.is_empty() { ", and they stay where they are".to_owned() } else { format!(" ({})", some_of(&told)) }
}

/// Nodes of a crier with another Lease that has the same addresses: one of the two files is wrong.
fn of_other_crier(world: &World, lease: u64, nodes: &BTreeSet<NodeName>) -> String {
    let said = world.services.values().filter_map(|service| service.condition.as_ref());
    // All that they are, each once: a digest costs something, and Services are many.
    let names: BTreeSet<&str> =
        said.filter_map(|condition| condition.lease()).chain([Condition::DEFAULT_LEASE]).collect();
    let name = names.into_iter().find(|name| lease_digest(name) == lease);
    let name = name.map(|name| format!(", {name}")).unwrap_or_default();
    format!(
        "{} serve{} another crier of the cluster (another Lease{name}), and with the same [[l2]] and addresses as this node: two agents \
         allocate side by side, and neither crier takes addresses over from nodes of the other; give all nodes the same [kubernetes] lease \
         and classes, or each crier classes and pools of its own",
        some_of(nodes),
        if nodes.len() == 1 { "s" } else { "" },
    )
}

/// That something of these nodes differs from this node's.
fn differ(what: &str, nodes: &BTreeSet<NodeName>) -> String {
    format!("the {what} of {} differ from this node's", some_of(nodes))
}

/// One line for each link and each way of not being believed, with some of those whom it concerns: who invents addresses
/// fills no screen.
fn pulse_trouble(world: &World) -> Vec<String> {
    const NAMED: usize = 4;
    let on_link = |(index, trouble): (&u32, &PulseTrouble)| {
        let link = world.links.get(index).map_or("a link that is gone", |link| link.name.as_str());
        let dropped = match trouble {
            PulseTrouble::None => return Vec::new(),
            PulseTrouble::NoSockets { why } => {
                return vec![format!("pulses on {link} are neither sent nor heard: {why}")];
            }
            PulseTrouble::Dropped(sources) => sources,
        };
        let mut by_reason: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for (source, why) in &**dropped {
            by_reason.entry(why).or_default().push(*source);
        }
        let line = |(why, sources): (&str, Vec<IpAddr>)| {
            format!("pulses on {link} from {} are dropped: {why}", some(sources.iter(), NAMED))
        };
        by_reason.into_iter().map(line).collect::<Vec<_>>()
    };
    world.pulse_trouble.iter().flat_map(on_link).collect()
}

#[cfg(test)]
mod tests;
