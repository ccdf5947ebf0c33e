//! What an operator should look at: the problems that `crier status` and `crier doctor` list, each one sentence. Floor 1.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Snapshot;
use super::bgp::PeerReport;
use super::status::{ServiceReport, some_of};
use crate::names::PeerName;
use crate::path_state::{PathFault, Serving};
use crate::plan::decision::Announcement;
use crate::plan::join::Dispute;
use crate::pulse;
use crate::reason::Reason;
use crate::roster::Roster;
use crate::world::{ApiServer, Pulses, SessionState, World};

/// All problems, those that concern most first.
pub(super) fn problems(snapshot: &Snapshot, services: &[ServiceReport], peers: &[PeerReport]) -> Vec<String> {
    let world = &snapshot.world;
    let api_server = match &world.api_server {
        ApiServer::Unreachable { since: _, why } => {
            Some(format!("API server unreachable, the last known state stays in use: {why}"))
        }
        ApiServer::Connecting | ApiServer::Reachable | ApiServer::Manifests => None,
    };
    let refused = world.refused.iter().map(|(key, why)| format!("{key}: status not written: {why}"));
    let mut problems: Vec<String> = api_server.into_iter().collect();
    problems.extend(services.iter().flat_map(of_service));
    let wanted = |peer: &&PeerReport| !is_left_out(snapshot, &peer.name);
    problems.extend(peers.iter().filter(wanted).filter_map(of_peer));
    problems.extend(disputes(snapshot));
    problems.extend(world.host_problems.iter().chain(&world.listen_problems).map(ToString::to_string));
    problems.extend(of_data_path(snapshot));
    problems.extend(of_pulse(snapshot));
    problems.extend(refused_pulses(world));
    problems.extend(refused);
    problems
}

fn of_service(service: &ServiceReport) -> Vec<String> {
    let mut problems = Vec::new();
    let allocation = &service.decision.allocation;
    let waiting = matches!(allocation.reason, Reason::OtherClass { .. } | Reason::WaitingForAllocator);
    if let Some(complaint) = &allocation.complaint {
        problems.push(format!("{}: {complaint}", service.name));
    } else if allocation.held.is_empty() && !waiting {
        problems.push(format!("{}: {}", service.name, allocation.reason));
    }
    let in_conflict = service.decision.announcements.iter().filter(|it| it.l2.reason.is_conflict());
    problems.extend(in_conflict.map(|it| format!("{}: {}", service.name, it.l2.reason)));
    if service.decision.announcements.iter().any(Announcement::lacks_node_names) {
        problems.push(format!("{}: {}", service.name, Reason::EndpointsNameNoNode));
    }
    problems
}

/// That there is no session is as it should be: the peer is shut down, or its next hops all have sessions of their own.
fn is_left_out(snapshot: &Snapshot, peer: &PeerName) -> bool {
    let address = snapshot.plan.bgp.peers.get(peer).map(|peer| &peer.address);
    matches!(address, Some(Err(Reason::PeerShutDown | Reason::NoOtherGateway)))
}

fn of_peer(peer: &PeerReport) -> Option<String> {
    if peer.state != SessionState::Established {
        let why = peer.last_error.as_deref().unwrap_or("no session yet");
        return Some(format!("peer {} ({}): {:?}: {why}", peer.name, peer.address, peer.state));
    }
    let unsendable = peer.prefixes_unsendable;
    (unsendable > 0).then(|| {
        format!(
            "peer {}: {unsendable} prefixes are not announced: this node has no next hop of the same address family",
            peer.name
        )
    })
}

fn disputes(snapshot: &Snapshot) -> Vec<String> {
    let of_route = |((peer, prefix), all): (&(PeerName, IpNet), &Arc<Vec<Dispute>>)| {
        let in_words = |Dispute { key, kept, ignored }: &Dispute| {
            format!(
                "{prefix} to peer {peer}: advertisements disagree about {key}: {kept} is announced, {ignored} is not"
            )
        };
        all.iter().map(in_words).collect::<Vec<_>>()
    };
    snapshot.plan.disputes.iter().flat_map(of_route).collect()
}

/// Each fault with what it costs and what to do.
fn of_data_path(snapshot: &Snapshot) -> Option<String> {
    let Snapshot { config, world, .. } = snapshot;
    let path = &world.data_path;
    let fault = path.fault()?;
    let remedy = match fault {
        PathFault::NotAsked { .. } => return None,
        PathFault::Unhealthy { .. } | PathFault::Silent { .. } | PathFault::RulesNotSeen => {
            "see kube-proxy's log on this node"
        }
        PathFault::RulesGone { .. } => "restart kube-proxy on this node; did a firewall flush its rules?",
        PathFault::ProxyGone | PathFault::ProxyNotStarted => {
            "start kube-proxy on this node, or set [node] data-path = \"node-ready\" if it was removed"
        }
        PathFault::NodeNotTold | PathFault::NodeNotReady | PathFault::OtherBoot => "see the kubelet's log on this node",
    };
    let cost = match path.serving() {
        Serving::Yes => return None,
        Serving::Lost if world.pulses == Pulses::Off && !config.l2.is_empty() => {
            "this node goes on answering on the link, for without [pulse] no other node would take over"
        }
        Serving::Lost => "this node gives way to nodes that serve",
        Serving::NotSinceBoot => "this node announces nothing until the data path was seen good once since the boot",
    };
    Some(format!("the data path: {fault}; {cost}; {remedy}"))
}

fn of_pulse(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, node, world, .. } = snapshot;
    let others = world.nodes.iter().filter(|(name, other)| *name != node && other.ready).count();
    let heard = |roster: &Arc<Roster>| !roster.members.is_empty() || !roster.silent.is_empty();
    match world.pulses {
        Pulses::Off if !config.l2.is_empty() && others > 0 => {
            vec!["no pulse: [pulse] has no key, so failover on the link waits for a Node's Ready condition".to_owned()]
        }
        Pulses::Off => Vec::new(),
        Pulses::On { authenticated } => {
            let mut problems = Vec::new();
            if !authenticated {
                problems.push("the pulse is unauthenticated: anybody on the link can take addresses away".to_owned());
            }
            let settled = world.rosters.values().any(|roster| roster.settled);
            if others > 0 && settled && !world.rosters.values().any(heard) {
                problems.push(format!(
                    "no pulse of any other node was heard, although {others} more are Ready: does crier run there, with the \
                     same key? is UDP port {} let through? does the network pass multicast ([pulse] peers)?",
                    pulse::settings::PORT
                ));
            }
            problems
                .extend(world.rosters.iter().filter_map(|(index, roster)| without_common_key(world, *index, roster)));
            problems
        }
    }
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

/// One line for each link and each way of not being believed, with some of those whom it concerns: who invents addresses
/// fills no screen.
fn refused_pulses(world: &World) -> Vec<String> {
    const NAMED: usize = 4;
    let on_link = |(index, refused): (&u32, &Arc<BTreeMap<IpAddr, String>>)| {
        let link = world.links.get(index).map_or("a link that is gone", |link| link.name.as_str());
        let mut by_reason: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for (source, why) in &**refused {
            by_reason.entry(why).or_default().push(*source);
        }
        let line = |(why, sources): (&str, Vec<IpAddr>)| {
            let named: Vec<String> = sources.iter().take(NAMED).map(IpAddr::to_string).collect();
            let more = sources.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("pulses on {link} from {}{more} are dropped: {why}", named.join(", "))
        };
        by_reason.into_iter().map(line).collect::<Vec<_>>()
    };
    world.refused_pulses.iter().flat_map(on_link).collect()
}
