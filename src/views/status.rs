//! What a running agent says of itself as a whole: the JSON behind `crier status`. Floor 1.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::allocator::{self, AllocatorReport};
use super::bgp::{PeerReport, peer_report};
use super::counters::{self, CountersReport};
use super::drain::{self, DrainReport, ShutdownReport};
use super::l2::told_by_link;
use super::problems::{problems, remembers};
use super::reload::Reloads;
use super::service::ServiceReport;
use super::words::some_of;
use super::{SCHEMA_VERSION, Snapshot};
use crate::address::Family;
use crate::claim::ConflictKind;
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::path_state::{DataPath, PathSource};
use crate::plan::allocate::capacity;
use crate::plan::decision::{Announcement, Decision};
use crate::plan::own_addresses;
use crate::reason::Reason;
use crate::roster::{Eligibility, KeyId, KeyUse, Member, Roster};
use crate::session_state::SessionState;
use crate::world::{ApiServer, Area, Conflict, HostProblem, Link, Pulses, Refusal, Service, SessionReport, World};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub schema_version: u32,
    pub node: NodeName,
    pub version: String,
    pub started: Timestamp,
    pub api_server: ApiServerReport,
    /// This agent chooses the addresses.
    pub allocates: bool,
    /// Which agent does, where it is another one.
    #[serde(default)]
    pub allocator: AllocatorReport,
    /// No list was ever complete: the agent acts on what it remembers from before.
    pub fail_static: bool,
    pub pools: Vec<PoolReport>,
    pub peers: Vec<PeerReport>,
    pub links: Vec<LinkReport>,
    #[serde(default)]
    pub pulse: PulseReport,
    /// What was counted on the links since the agent started.
    #[serde(default)]
    pub l2: CountersReport,
    pub services: Vec<ServiceReport>,
    /// Whether this node can serve what it announces.
    #[serde(default)]
    pub data_path: DataPathReport,
    /// How far this node has come with leaving; `None` where it does not.
    #[serde(default)]
    pub drain: Option<DrainReport>,
    /// How a shutdown of this host waits for this node; `None` where it does not.
    #[serde(default)]
    pub shutdown: Option<ShutdownReport>,
    /// How reloads of the configuration went.
    #[serde(default)]
    pub configuration: Reloads,
    /// What is wrong with the settings of this host; the problems below have it too.
    pub host_problems: Vec<HostProblem>,
    /// What somebody should look at, in plain sentences.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiServerReport {
    /// `connecting`, `reachable`, `unreachable`, `unauthorized` where it answers and does not know this agent (401), `forbidden` where
    /// it answers and refuses what crier must read, or `manifests` where a folder takes its place.
    pub state: String,
    pub since: Option<Timestamp>,
    pub error: Option<String>,
    /// Until when the client certificate is good by which it knows this agent; none where it goes by a token.
    #[serde(default)]
    pub client_certificate_until: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DataPathReport {
    /// `good`; `bad`, so this node gives way to nodes that serve; `not-since-boot`, so it announces nothing.
    pub state: String,
    pub source: PathSource,
    /// Why it is not known to be good, in words.
    pub fault: Option<String>,
}

impl Default for DataPathReport {
    fn default() -> DataPathReport {
        data_path(&DataPath::UNWATCHED)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolReport {
    pub name: PoolName,
    pub addresses: Vec<String>,
    /// Addresses that Services hold.
    pub held: u64,
    /// All addresses that the pool can hand out; `u64::MAX` for that many and more.
    pub total: u64,
    /// Addresses that no Service gets because a host or a subnet uses them, although the configuration does not exclude them.
    #[serde(default)]
    pub withheld: Vec<WithheldReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WithheldReport {
    pub address: IpAddr,
    /// What it is used for, in words.
    pub used_as: String,
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
    /// Nodes whose pulses stopped without a goodbye.
    pub silent: Vec<NodeName>,
    /// `None` where pulses are not authenticated.
    #[serde(default)]
    pub keys: Option<KeysReport>,
}

/// The keys of the pulses on a link. Each is named by eight digits that say nothing else about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeysReport {
    /// That of `key-file`.
    pub new: String,
    /// Those of `old-key-files`.
    pub old: Vec<String>,
    /// Those that this node seals its pulses with.
    pub sealing: Vec<String>,
    /// The nodes that do not accept the new key.
    pub without_new: Vec<NodeName>,
    /// The nodes that accept the new key and still seal with another.
    pub seal_with_old: Vec<NodeName>,
    /// The same in words.
    pub summary: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MemberReport {
    pub node: NodeName,
    pub mac: String,
    pub eligibility: Eligibility,
    pub owner: bool,
}

/// The view.
pub fn status(snapshot: &Snapshot) -> Report {
    let Snapshot { node, started, world, config, plan, counters, .. } = snapshot;
    let (sessions, stays) = (established(snapshot), allocator::stays(snapshot));
    let of_service = |(key, decision): (&ObjectKey, &Arc<Decision>)| {
        let decision = as_heard(snapshot, decision);
        ServiceReport {
            name: key.clone(),
            decision: as_sent(&decision, &sessions),
            summary: summary(&decision, snapshot, &sessions, stays.as_deref()),
            remarks: world.services.get(key).map(|service| remarks(service)).unwrap_or_default(),
        }
    };
    let services: Vec<ServiceReport> = load_balancers(snapshot).map(of_service).collect();
    let peers: Vec<PeerReport> = plan.bgp.peers.iter().map(|(name, peer)| peer_report(snapshot, name, peer)).collect();
    let mut answered = answered(snapshot);
    let links = links(snapshot).map(|link| LinkReport {
        name: link.name.clone(),
        mac: link.mac.map(|mac| mac.to_string()),
        up: link.up && link.carrier,
        answers_for: answered.remove(&link.name).unwrap_or_default(),
        conflicts: conflicts_on(&link.name, world),
    });
    let links: Vec<LinkReport> = links.collect();
    let withheld: Vec<(&PoolName, WithheldReport)> = own_addresses::withheld(config, world)
        .map(|(pool, address, used)| (pool, WithheldReport { address, used_as: used.to_string() }))
        .collect();
    let pools = config.pools.iter().map(|pool| PoolReport {
        name: pool.name.clone(),
        addresses: pool.addresses.iter().map(ToString::to_string).collect(),
        held: snapshot.held_in(pool) as u64,
        total: capacity(pool),
        withheld: withheld.iter().filter(|(name, _)| **name == pool.name).map(|(_, it)| it.clone()).collect(),
    });
    Report {
        schema_version: SCHEMA_VERSION,
        node: node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: *started,
        api_server: api_server(world),
        allocates: allocates(snapshot),
        allocator: allocator::allocator(snapshot),
        fail_static: world.fail_static && remembers(world) && snapshot.outdated.is_none(),
        pools: pools.collect(),
        problems: problems(snapshot, &services, &peers),
        peers,
        links,
        pulse: pulse_report(world),
        l2: counters::report(counters),
        services,
        data_path: data_path(&world.data_path),
        drain: drain::drain(snapshot),
        shutdown: drain::shutdown(snapshot),
        configuration: snapshot.reloads.clone(),
        host_problems: world.problems_of(Area::Host).to_vec(),
    }
}

/// This agent allocates: it holds the Lease, or there is no API server.
pub(super) fn allocates(snapshot: &Snapshot) -> bool {
    snapshot.world.allocates || snapshot.config.is_standalone()
}

/// The Services of type LoadBalancer, with what was decided about each.
pub(super) fn load_balancers(snapshot: &Snapshot) -> impl Iterator<Item = (&ObjectKey, &Arc<Decision>)> {
    let services = &snapshot.world.services;
    let is_one = |key: &ObjectKey| services.get(key).is_some_and(|service| service.load_balancer);
    snapshot.plan.decisions.iter().filter(move |(key, _)| is_one(key))
}

/// The links that an address could be announced on.
pub(super) fn links(snapshot: &Snapshot) -> impl Iterator<Item = &Link> {
    snapshot.world.links.values().filter(|link| !link.loopback)
}

/// The addresses that this node answers for, by link: those of its plan that no other station keeps it from using.
pub(super) fn answered(snapshot: &Snapshot) -> BTreeMap<&InterfaceName, Vec<IpAddr>> {
    let mut answered: BTreeMap<&InterfaceName, Vec<IpAddr>> = BTreeMap::new();
    for (address, links) in &snapshot.plan.l2.addresses {
        let conflicts = snapshot.world.conflicts.get(address);
        for link in links.iter() {
            let conflict = conflicts.and_then(|on_links| on_links.get(link));
            let answers = snapshot.world.answering.get(address).is_some_and(|links| links.contains(link));
            if answers && conflict.is_none_or(|conflict| conflict.kind == ConflictKind::Contested) {
                answered.entry(link).or_default().push(*address);
            }
        }
    }
    answered
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
            keys: roster.key_use.as_ref().map(keys_report),
        })
    };
    PulseReport { state: state.to_owned(), links: world.rosters.iter().filter_map(on_link).collect() }
}

fn keys_report(keys: &KeyUse) -> KeysReport {
    let KeyUse { new, old, sealing, without_new, seal_with_old } = keys;
    let texts = |ids: &[KeyId]| ids.iter().map(KeyId::to_string).collect();
    KeysReport {
        new: new.to_string(),
        old: texts(old),
        sealing: texts(sealing),
        without_new: without_new.iter().cloned().collect(),
        seal_with_old: seal_with_old.iter().cloned().collect(),
        summary: keys_in_words(keys),
    }
}

fn keys_in_words(keys: &KeyUse) -> String {
    let KeyUse { new, old, sealing, without_new, seal_with_old } = keys;
    let used: Vec<String> = sealing.iter().map(KeyId::to_string).collect();
    let used = used.join(" and ");
    if old.is_empty() {
        used
    } else if !without_new.is_empty() {
        format!("{used}; old-key-files are needed: {} without the new key {new}", some_of(without_new))
    } else if !seal_with_old.is_empty() {
        format!("{used}; old-key-files are needed: an old key still seals the pulses of {}", some_of(seal_with_old))
    } else {
        format!("{used}, the new key, on every node that is heard; old-key-files can be removed")
    }
}

fn conflicts_on(link: &InterfaceName, world: &World) -> Vec<ConflictReport> {
    let on_link = world.conflicts.iter().filter_map(|(address, on_links)| Some((*address, *on_links.get(link)?)));
    on_link
        .map(|(address, Conflict { mac, kind, since })| ConflictReport {
            address,
            mac: mac.to_string(),
            kind,
            since: Timestamp::try_from(since).ok(),
        })
        .collect()
}

fn data_path(path: &DataPath) -> DataPathReport {
    DataPathReport {
        state: path.serving().code().to_owned(),
        source: path.source,
        fault: path.fault().map(ToString::to_string),
    }
}

fn api_server(world: &World) -> ApiServerReport {
    let until = world.client_certificate.as_ref();
    let client_certificate_until = until.and_then(|it| Timestamp::try_from(it.ends).ok());
    let plain =
        |state: &str| ApiServerReport { state: state.to_owned(), since: None, error: None, client_certificate_until };
    match &world.api_server {
        ApiServer::Connecting => plain("connecting"),
        ApiServer::Reachable => plain("reachable"),
        ApiServer::Manifests => plain("manifests"),
        ApiServer::Unreachable { since, why, refusal } => ApiServerReport {
            state: match refusal {
                Refusal::Forbidden | Refusal::Anonymous => "forbidden",
                Refusal::Unauthorized => "unauthorized",
                Refusal::NoAnswer | Refusal::Other(_) => "unreachable",
            }
            .to_owned(),
            since: Timestamp::try_from(*since).ok(),
            error: Some(why.clone()),
            client_certificate_until,
        },
    }
}

/// What crier has no part in, and people look for here when a client is not served, or nothing seems to be missing.
fn remarks(service: &Service) -> Vec<String> {
    const NAMED: usize = 8;
    let ranges = &service.source_ranges;
    let mut named: Vec<&str> = ranges.iter().take(NAMED).map(String::as_str).collect();
    let more = format!("{} more", ranges.len().saturating_sub(NAMED));
    named.extend((ranges.len() > NAMED).then_some(more.as_str()));
    let closed = format!(
        "kube-proxy lets in only clients of {} (loadBalancerSourceRanges); crier announces the address to all",
        named.join(", ")
    );
    let without =
        "it has no node ports (allocateLoadBalancerNodePorts = false): crier sends traffic to none and needs none";
    let closed = (!ranges.is_empty()).then_some(closed);
    closed.into_iter().chain(service.without_node_ports.then(|| without.to_owned())).collect()
}

/// One line about a Service: what it has and where it is announced, or what is in the way.
/// `stays`: why an address that is to go is still there.
fn summary(decision: &Decision, snapshot: &Snapshot, sessions: &Sessions<'_>, stays: Option<&str>) -> String {
    let allocation = &decision.allocation;
    if allocation.held.is_empty() {
        return match &allocation.reason {
            Reason::WaitingForAllocator => allocator::awaited(snapshot),
            reason => reason.to_string(),
        };
    }
    let is_held = |it: &Announcement| allocation.held.iter().any(|held| held.address == it.address);
    let is_dual = Family::BOTH.iter().all(|family| allocation.held.iter().any(|it| Family::of(it.address) == *family));
    let none = Reason::NoEndpoints.to_string();
    let mut parts: Vec<String> = Vec::new();
    for announcement in &decision.announcements {
        let others = parts.len();
        let l2 = &announcement.l2;
        let bgp = &announcement.bgp;
        if l2.announced && l2.reason.is_conflict() {
            parts.push(format!("answered here, but: {}", l2.reason));
        } else if l2.announced && !snapshot.world.answering.contains_key(&announcement.address) {
            parts.push("to be answered here".to_owned());
        } else if l2.announced {
            parts.push("answered here".to_owned());
        } else if let Some(owner) = &l2.owner {
            parts.push(match l2.reason {
                Reason::OwnedBy { .. } => format!("answered by {owner}"),
                ref reason => reason.to_string(),
            });
        }
        if !bgp.peers.is_empty() {
            parts.extend(told(&bgp.peers, Family::of(announcement.address), snapshot, sessions));
        }
        if l2.owner.is_none() && bgp.peers.is_empty() {
            parts.push(not_announced(announcement));
        }
        if is_dual {
            let family = Family::of(announcement.address);
            let half = format!("the Service has no serving {family} endpoint");
            let is_all =
                |it: &Announcement| it.l2.reason == Reason::NoEndpoints || it.bgp.reason == Reason::NoEndpoints;
            let lacks = |part: &&mut String| **part == none && !decision.announcements.iter().all(is_all);
            parts[others..].iter_mut().filter(lacks).for_each(|part| part.clone_from(&half));
        }
        if !is_held(announcement) {
            let address = announcement.address;
            parts[others..].iter_mut().for_each(|part| *part = format!("{address}, which the status shows: {part}"));
        }
    }
    if !decision.announcements.iter().any(is_held) {
        parts.push(Reason::WaitingForStatus.to_string());
    }
    parts.dedup();
    parts.extend(allocation.notes.iter().map(ToString::to_string));
    if let Some(complaint) = &allocation.complaint {
        parts.push(format!("but {complaint}"));
    }
    if let Some(Reason::AddressGoes { .. }) = &allocation.complaint {
        parts.extend(stays.map(str::to_owned));
    }
    parts.join("; ")
}

/// Which peers have the route, and which are to have it once there is a session with them. One session of several is enough. A peer
/// whose sessions cannot carry the route is named where no peer has it: else another one may carry the other family.
fn told(peers: &[PeerName], family: Family, snapshot: &Snapshot, sessions: &Sessions<'_>) -> Vec<String> {
    let (mut now, mut later, mut never) = (Vec::new(), Vec::new(), Vec::new());
    for peer in peers {
        match carried(peer, family, sessions) {
            Carried::Yes => now.push(peer.to_string()),
            Carried::NoSession => {
                let state = snapshot.session(peer).map_or(SessionState::Idle, |session| session.state);
                later.push(format!("{peer} ({state})"));
            }
            Carried::No { why } => never.push(format!("not announced to {peer}: {why}")),
        }
    }
    if !now.is_empty() {
        never.clear();
    }
    let part = |what: &str, peers: &[String]| (!peers.is_empty()).then(|| format!("{what} {}", peers.join(", ")));
    part("announced to", &now).into_iter().chain(part("to be announced to", &later)).chain(never).collect()
}

/// Whether a peer is sent routes of a family.
enum Carried {
    Yes,
    NoSession,
    No { why: String },
}

/// The established sessions of each peer, which may have several. Looked up once for all Services.
type Sessions<'s> = BTreeMap<PeerName, Vec<&'s SessionReport>>;

fn established(snapshot: &Snapshot) -> Sessions<'_> {
    let mut sessions = Sessions::new();
    for name in snapshot.plan.bgp.peers.keys() {
        let session = snapshot.session(name).filter(|session| session.state == SessionState::Established);
        sessions.entry(snapshot.context.bgp.peer_of(name)).or_default().extend(session);
    }
    sessions
}

fn carried(peer: &PeerName, family: Family, sessions: &Sessions<'_>) -> Carried {
    let mut found = Carried::NoSession;
    for session in sessions.get(peer).into_iter().flatten() {
        let mut families = session.detail.negotiated.iter().flat_map(|negotiated| &negotiated.families);
        match families.find(|it| it.family == family).and_then(|it| it.unsendable.clone()) {
            None => return Carried::Yes,
            Some(why) => found = Carried::No { why },
        }
    }
    found
}

/// Without pulses: with the nodes that answer on the link, whichever are ranked first.
fn as_heard<'a>(snapshot: &Snapshot, decision: &'a Decision) -> Cow<'a, Decision> {
    let mut told = Cow::Borrowed(decision);
    for (place, announcement) in decision.announcements.iter().enumerate() {
        let Some((answerer, reason)) = told_by_link(snapshot, announcement.address, &announcement.l2) else { continue };
        let Some(announcement) = told.to_mut().announcements.get_mut(place) else { continue };
        announcement.l2.reason = reason;
        if let Some(node) = &answerer.node {
            announcement.l2.owner = Some(node.clone());
        }
    }
    told
}

/// The decision without the peers that no session can send its routes to.
fn as_sent(decision: &Decision, sessions: &Sessions<'_>) -> Decision {
    let mut decision = decision.clone();
    for announcement in &mut decision.announcements {
        let family = Family::of(announcement.address);
        let bgp = &mut announcement.bgp;
        let mut not_carried = None;
        bgp.peers.retain(|peer| match carried(peer, family, sessions) {
            Carried::Yes | Carried::NoSession => true,
            Carried::No { why } => {
                not_carried = Some(why);
                false
            }
        });
        for route in &mut bgp.routes {
            route.peers.retain(|peer| bgp.peers.contains(peer));
        }
        if let (true, Some(why)) = (bgp.peers.is_empty(), not_carried) {
            bgp.reason = Reason::NotCarried { why };
        }
    }
    decision
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::plan::decision::{Allocation, BgpVerdict, Held, L2Verdict};
    use crate::views::Counters;
    use crate::world::{Condition, Fact, Listing};

    #[test]
    fn what_kube_proxy_keeps_out_and_what_has_no_node_port_is_remarked() {
        let ranges = |count: usize| (0..count).map(|it| format!("10.{it}.0.0/16")).collect();
        let service = |count, without_node_ports| Service {
            source_ranges: ranges(count),
            without_node_ports,
            ..Service::default()
        };
        assert_eq!(remarks(&service(0, false)), Vec::<String>::new());
        let told = remarks(&service(2, true));
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("only clients of 10.0.0.0/16, 10.1.0.0/16 (loadBalancerSourceRanges)"), "{told:?}");
        assert!(told[1].starts_with("it has no node ports (allocateLoadBalancerNodePorts = false)"), "{told:?}");
        let many = remarks(&service(11, false)).remove(0);
        assert!(many.contains("10.7.0.0/16, 3 more (") && !many.contains("10.8.0.0/16"), "{many}");
    }

    /// Input: the API server shows another address of the pool than the one that was written, as a policy has it. Output: what
    /// is said of that one names it; "answered here" was said of the one that nobody answers for.
    #[test]
    fn what_is_said_of_an_address_that_the_status_shows_beside_the_services_own_names_it() {
        let text =
            "[kubernetes]\nin-cluster = true\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n[[l2]]\n";
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        let key = ObjectKey::new("shop", "web");
        let service = Service { load_balancer: true, families: vec![Family::V4], ..Service::default() };
        for fact in [
            Fact::Link(2, Some(Link::carrying(2, "eth0", &["192.0.2.14/28"]))),
            Fact::LinksListed,
            Fact::Listed(Listing::Services(Default::default())),
            Fact::Listed(Listing::EndpointSlices(Default::default())),
            Fact::Listed(Listing::Nodes(Default::default())),
            Fact::Listed(Listing::Namespaces(Default::default())),
            Fact::Allocates(true),
            Fact::Service(key.clone(), Some(Arc::new(service.clone()))),
        ] {
            planner.apply(fact);
        }
        let (now, wall) = (clock::now(), clock::wall());
        planner.turn(now);
        let own = planner.plan().decisions[&key].allocation.held[0].address;
        let other: IpAddr = "192.0.2.9".parse().unwrap();
        let condition = Condition::given(true, "assigned", &[own], &["lan".into()], None);
        let shown = Service { condition: Some(Arc::new(condition)), ingress: vec![other], ..service };
        planner.apply(Fact::Service(key.clone(), Some(Arc::new(shown))));
        planner.turn(now);
        let decision = &planner.plan().decisions[&key];
        assert_eq!((decision.allocation.held[0].address, decision.announcements[0].address), (own, other));
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
        let said = status(&snapshot).services[0].summary.clone();
        assert!(said.starts_with("192.0.2.9, which the status shows: "), "{said}");
        assert!(said.contains(&Reason::WaitingForStatus.to_string()), "{said}");
    }

    /// Input: a Service of both families with endpoints of one, or of none. Output: the family is named where the other one is
    /// served.
    #[test]
    fn of_two_families_the_one_without_endpoints_is_named() {
        let text = "[manifests]\nfolder = \"/m\"\n[[l2]]\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\", \"fd00::/112\"]\n";
        let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        let (now, wall) = (clock::now(), clock::wall());
        let began = vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        planner.apply(Fact::Answering { link: "eth0".into(), began, ended: Vec::new() });
        planner.turn(now);
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
        let said = |reasons: [Option<Reason>; 2]| {
            let addresses: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()];
            let announcements = addresses.into_iter().zip(reasons).map(|(address, reason)| {
                let announced = reason.is_none();
                let l2 = L2Verdict {
                    owner: announced.then(|| "node-1".into()),
                    announced,
                    reason: reason.unwrap_or(Reason::Announced),
                };
                let reason = Reason::NoAdvertisement { pool: "lan".into() };
                let bgp = BgpVerdict { peers: Vec::new(), reason, routes: Vec::new(), notes: Vec::new() };
                Announcement { address, pool: "lan".into(), l2, bgp }
            });
            let held = addresses.map(|address| Held { address, pool: "lan".into() }).to_vec();
            let allocation = Allocation { held, reason: Reason::Announced, complaint: None, notes: Vec::new() };
            let decision = Decision { allocation, announcements: announcements.collect(), egress: None };
            summary(&decision, &snapshot, &Sessions::new(), None)
        };
        let none = || Some(Reason::NoEndpoints);
        assert_eq!(said([None, none()]), "answered here; the Service has no serving IPv6 endpoint");
        assert_eq!(said([none(), None]), "the Service has no serving IPv4 endpoint; answered here");
        assert_eq!(said([none(), none()]), "the Service has no serving endpoint");
    }
}
