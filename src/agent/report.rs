//! What a running agent says of itself: the JSON behind `crier status`, the page and the metrics.
//! Floor 3. Fields are only ever added within one [`SCHEMA_VERSION`]; times are RFC 3339, durations are in seconds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::l2_figures::L2Figures;
use crate::claim::ConflictKind;
use crate::config::{Config, PeerAsn};
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::plan::Planner;
use crate::plan::allocate::capacity;
use crate::plan::decision::{Announcement, Decision};
use crate::plan::join::Dispute;
use crate::plan::slice::PeerSlice;
use crate::reason::Reason;
use crate::roster::{Eligibility, Member, Roster};
use crate::world::{ApiServer, Conflict, HostProblem, Pulses, SessionDetail, SessionReport, SessionState, World};

/// Grows when a field is taken away or changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub schema_version: u32,
    pub node: NodeName,
    pub version: String,
    pub started: Timestamp,
    pub api_server: ApiServerReport,
    /// This agent chooses the addresses.
    pub allocates: bool,
    /// No list was ever complete: the agent acts on what it remembers from before.
    pub fail_static: bool,
    pub pools: Vec<PoolReport>,
    pub peers: Vec<PeerReport>,
    pub links: Vec<LinkReport>,
    #[serde(default)]
    pub pulse: PulseReport,
    /// What was counted on the links.
    #[serde(default)]
    pub l2: L2Figures,
    pub services: Vec<ServiceReport>,
    /// What is wrong with the settings of this host; the problems below have it too.
    pub host_problems: Vec<HostProblem>,
    /// What somebody should look at, in plain sentences.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiServerReport {
    /// `connecting`, `reachable`, `unreachable`, or `manifests` where a folder takes its place.
    pub state: String,
    pub since: Option<Timestamp>,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolReport {
    pub name: PoolName,
    pub addresses: Vec<String>,
    /// Addresses that Services hold.
    pub held: u64,
    /// All addresses that the pool can hand out; `u64::MAX` for that many and more.
    pub total: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerReport {
    pub name: PeerName,
    /// As the configuration describes the peer.
    #[serde(default)]
    pub description: Option<String>,
    /// Where the peer is; while that is not known, the address of the configuration: an interface, or "gateway".
    pub address: String,
    /// `None` where any external AS is welcome.
    pub asn: Option<u32>,
    pub local_asn: u32,
    pub state: SessionState,
    pub since: Option<Timestamp>,
    pub local_address: Option<IpAddr>,
    pub hold_time_secs: Option<u16>,
    pub prefixes_wanted: usize,
    pub prefixes_sent: usize,
    pub prefixes_unsendable: usize,
    pub prefixes_received: u64,
    pub last_error: Option<String>,
    pub security: Security,
    pub session: SessionDetail,
}

/// How the peer's connections are protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Segments are signed with TCP MD5 (RFC 2385).
    pub md5: bool,
    /// Segments are signed with TCP-AO (RFC 5925).
    pub tcp_ao: bool,
    /// Packets are taken from the link only: GTSM (RFC 5082), `ttl-security`.
    pub ttl_security: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkReport {
    pub name: InterfaceName,
    pub mac: Option<String>,
    pub up: bool,
    /// The addresses that this node answers for on the link.
    pub answers_for: Vec<IpAddr>,
    /// Other stations that have, or claim, addresses that this node is to answer for.
    #[serde(default)]
    pub conflicts: Vec<ConflictReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConflictReport {
    pub address: IpAddr,
    /// Who was heard last.
    pub mac: String,
    pub kind: ConflictKind,
    pub since: Option<Timestamp>,
}

/// Who is alive on the links, as the pulses tell.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PulseReport {
    /// `off`, `unauthenticated`, or `authenticated`.
    pub state: String,
    pub links: Vec<RosterReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RosterReport {
    pub link: InterfaceName,
    /// This node has listened long enough to own addresses there.
    pub settled: bool,
    pub members: Vec<MemberReport>,
    /// Nodes that fell silent without a word.
    pub silent: Vec<NodeName>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberReport {
    pub node: NodeName,
    pub mac: String,
    pub eligibility: Eligibility,
    pub owner: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceReport {
    pub name: ObjectKey,
    #[serde(flatten)]
    pub decision: Decision,
    /// The reasons above in words, as the table shows them.
    pub summary: String,
}

impl Report {
    pub fn of(planner: &Planner, config: &Config, node: &NodeName, started: Timestamp, l2: L2Figures) -> Report {
        let world = planner.world();
        let plan = planner.plan();
        let services: Vec<ServiceReport> = plan
            .decisions
            .iter()
            .filter(|(key, _)| world.services.get(*key).is_some_and(|service| service.load_balancer))
            .map(|(key, decision)| ServiceReport {
                name: key.clone(),
                decision: Decision::clone(decision),
                summary: summary(decision, world),
            })
            .collect();
        let peers: Vec<PeerReport> =
            plan.bgp.peers.iter().map(|(name, peer)| peer_report(name, peer, world.sessions.get(name))).collect();
        let links = world.links.values().filter(|link| !link.loopback).map(|link| LinkReport {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()),
            up: link.up && link.carrier,
            answers_for: plan
                .l2
                .addresses
                .iter()
                .filter(|(_, interfaces)| interfaces.contains(&link.name))
                .map(|(address, _)| *address)
                .filter(|address| {
                    let conflict = world.conflicts.get(address).and_then(|on_links| on_links.get(&link.name));
                    conflict.is_none_or(|conflict| conflict.kind == ConflictKind::Contested)
                })
                .collect(),
            conflicts: conflicts_on(&link.name, &world.conflicts),
        });
        let pools = config.pools.iter().map(|pool| PoolReport {
            name: pool.name.clone(),
            addresses: pool.addresses.iter().map(ToString::to_string).collect(),
            held: planner.book().held_in(pool) as u64,
            total: capacity(pool),
        });
        let api_server = api_server(&world.api_server);
        let pulse = pulse_report(world);
        let mut problems = problems(&api_server, &services, &peers);
        problems.extend(plan.disputes.iter().flat_map(|((peer, prefix), all)| {
            let in_words = move |it: &Dispute| {
                let Dispute { key, kept, ignored } = it;
                format!("{prefix} to peer {peer}: advertisements disagree about {key}: {kept} is announced, {ignored} is not")
            };
            all.iter().map(in_words).collect::<Vec<_>>()
        }));
        problems.extend(world.host_problems.iter().chain(&world.listen_problems).map(ToString::to_string));
        problems.extend(pulse_problems(config, node, world));
        problems.extend(refused_pulses(world));
        problems.extend(world.refused.iter().map(|(key, why)| format!("{key}: status not written: {why}")));
        Report {
            schema_version: SCHEMA_VERSION,
            node: node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            allocates: world.leader || config.is_standalone(),
            fail_static: world.fail_static && !world.listed.all(),
            pools: pools.collect(),
            peers,
            links: links.collect(),
            pulse,
            l2,
            services,
            api_server,
            host_problems: world.host_problems.clone(),
            problems,
        }
    }
}

fn pulse_report(world: &World) -> PulseReport {
    let state = match world.pulses {
        Pulses::Off => "off",
        Pulses::On { authenticated: false } => "unauthenticated",
        Pulses::On { authenticated: true } => "authenticated",
    };
    let on_link = |(index, roster): (&u32, &Arc<Roster>)| {
        let member = |(node, member): (&NodeName, &Member)| MemberReport {
            node: node.clone(),
            mac: member.mac.to_string(),
            eligibility: member.eligibility,
            owner: member.owner,
        };
        Some(RosterReport {
            link: world.links.get(index)?.name.clone(),
            settled: roster.settled,
            members: roster.members.iter().map(member).collect(),
            silent: roster.silent.keys().cloned().collect(),
        })
    };
    PulseReport { state: state.to_owned(), links: world.rosters.iter().filter_map(on_link).collect() }
}

fn pulse_problems(config: &Config, node: &NodeName, world: &World) -> Vec<String> {
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
                    "no pulse of any other node was heard, although {others} more are Ready: does crier run there, with the                      same key? is UDP port {} let through? does the network pass multicast ([pulse] peers)?",
                    crate::pulse::socket::PORT
                ));
            }
            problems
        }
    }
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

fn conflicts_on(
    link: &InterfaceName,
    conflicts: &OrdMap<IpAddr, OrdMap<InterfaceName, Conflict>>,
) -> Vec<ConflictReport> {
    let on_link = conflicts.iter().filter_map(|(address, on_links)| Some((*address, *on_links.get(link)?)));
    on_link
        .map(|(address, Conflict { mac, kind, since })| ConflictReport {
            address,
            mac: mac.to_string(),
            kind,
            since: Timestamp::try_from(since).ok(),
        })
        .collect()
}

fn api_server(state: &ApiServer) -> ApiServerReport {
    let plain = |state: &str| ApiServerReport { state: state.to_owned(), since: None, error: None };
    match state {
        ApiServer::Connecting => plain("connecting"),
        ApiServer::Reachable => plain("reachable"),
        ApiServer::Manifests => plain("manifests"),
        ApiServer::Unreachable { since, why } => ApiServerReport {
            state: "unreachable".to_owned(),
            since: Timestamp::try_from(*since).ok(),
            error: Some(why.clone()),
        },
    }
}

pub(super) fn peer_report(name: &PeerName, peer: &PeerSlice, session: Option<&SessionReport>) -> PeerReport {
    let PeerSlice { settings, address, routes } = peer;
    // What the session said last is past when there is nobody to have one with.
    let session = session.filter(|_| address.is_ok());
    let nowhere = address.as_ref().err().map(ToString::to_string);
    PeerReport {
        name: name.clone(),
        description: settings.description.clone(),
        address: address.as_ref().map_or_else(|_| settings.address.to_string(), ToString::to_string),
        asn: match settings.asn {
            PeerAsn::Is(asn) => Some(asn),
            PeerAsn::Internal => Some(settings.local_asn),
            PeerAsn::External => None,
        },
        local_asn: settings.local_asn,
        state: session.map_or(SessionState::Idle, |session| session.state),
        since: session.and_then(|session| Timestamp::try_from(session.since).ok()),
        local_address: session.and_then(|session| session.local_address),
        hold_time_secs: session.and_then(|session| session.hold_time_secs),
        prefixes_wanted: routes.len(),
        prefixes_sent: session.map_or(0, |session| session.prefixes_sent),
        prefixes_unsendable: session.map_or(0, |session| session.prefixes_unsendable),
        prefixes_received: session.map_or(0, |session| session.prefixes_received),
        last_error: nowhere.or_else(|| session.and_then(|session| session.last_error.clone())),
        security: Security {
            md5: settings.password.is_some(),
            tcp_ao: !settings.tcp_ao.is_empty(),
            ttl_security: settings.ttl_security,
        },
        session: session.map(|session| SessionDetail::clone(&session.detail)).unwrap_or_default(),
    }
}

/// One line about a Service: what it has and where it is announced, or what is in the way.
fn summary(decision: &Decision, world: &World) -> String {
    let allocation = &decision.allocation;
    if allocation.held.is_empty() {
        return allocation.reason.to_string();
    }
    let mut parts = Vec::new();
    for announcement in &decision.announcements {
        let l2 = &announcement.l2;
        let bgp = &announcement.bgp;
        if l2.announced && l2.reason.is_conflict() {
            parts.push(format!("answered here, but: {}", l2.reason));
        } else if l2.announced {
            parts.push("answered here".to_owned());
        } else if let Some(owner) = &l2.owner {
            parts.push(match l2.reason {
                Reason::OwnedBy { .. } => format!("answered by {owner}"),
                ref reason => reason.to_string(),
            });
        }
        if !bgp.peers.is_empty() {
            parts.extend(told(bgp.peers.iter(), world));
        }
        if l2.owner.is_none() && bgp.peers.is_empty() {
            parts.push(not_announced(announcement));
        }
    }
    if decision.announcements.is_empty() {
        parts.push(Reason::WaitingForStatus.to_string());
    }
    parts.dedup();
    if let Some(complaint) = &allocation.complaint {
        parts.push(format!("but {complaint}"));
    }
    parts.join("; ")
}

/// Which peers have the route, and which are to have it once there is a session with them.
fn told<'a>(peers: impl Iterator<Item = &'a PeerName>, world: &World) -> Vec<String> {
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for peer in peers {
        match world.sessions.get(peer).map_or(SessionState::Idle, |session| session.state) {
            SessionState::Established => now.push(peer.to_string()),
            state => later.push(format!("{peer} ({state})")),
        }
    }
    let part = |what: &str, peers: &[String]| format!("{what} {}", peers.join(", "));
    let now = (!now.is_empty()).then(|| part("announced to", &now));
    now.into_iter().chain((!later.is_empty()).then(|| part("to be announced to", &later))).collect()
}

/// Why an address is announced nowhere: the reason of the protocol that covers its pool at all.
fn not_announced(announcement: &Announcement) -> String {
    let by_l2 = !matches!(announcement.l2.reason, Reason::NoL2ForPool { .. });
    let by_bgp = !matches!(announcement.bgp.reason, Reason::NoAdvertisement { .. });
    match (by_l2, by_bgp) {
        (true, true) if announcement.l2.reason == announcement.bgp.reason => announcement.l2.reason.to_string(),
        (true, true) => format!("on the link: {}; over BGP: {}", announcement.l2.reason, announcement.bgp.reason),
        (true, false) => announcement.l2.reason.to_string(),
        (false, true) => announcement.bgp.reason.to_string(),
        (false, false) => format!("pool {} is announced by no [[l2]] and no [[bgp.advertisement]]", announcement.pool),
    }
}

fn problems(api_server: &ApiServerReport, services: &[ServiceReport], peers: &[PeerReport]) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(error) = &api_server.error {
        problems.push(format!("API server unreachable, what was known stands: {error}"));
    }
    for service in services {
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
    }
    for peer in peers {
        if peer.state != SessionState::Established {
            let why = peer.last_error.as_deref().unwrap_or("no session yet");
            problems.push(format!("peer {} ({}): {:?}: {why}", peer.name, peer.address, peer.state));
        } else if peer.prefixes_unsendable > 0 {
            problems.push(format!(
                "peer {}: {} prefixes are not announced: this node has no next hop of the same address family",
                peer.name, peer.prefixes_unsendable
            ));
        }
    }
    problems
}
