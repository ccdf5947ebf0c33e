//! What a running agent says of BGP: the JSON behind `crier bgp peers` and `crier bgp routes`. Floor 1.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, Snapshot};
use crate::address::Family;
use crate::bfd_state::BfdState;
use crate::community::Community;
use crate::config::{self, PeerAsn};
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::join::Disagreement;
use crate::plan::slice::PeerSlice;
use crate::reason::Reason;
use crate::route::RouteAttributes;
use crate::world::{NegotiatedReport, PeerOrder, RefusedSegments, SessionDetail, SessionReport, SessionState};

/// `crier bgp peers`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeersReport {
    pub schema_version: u32,
    pub node: NodeName,
    pub peers: Vec<PeerReport>,
}

/// One peer: what is configured, and what its session tells.
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
    /// It is shut down, by the file or by an operator's order, which lasts over restarts.
    #[serde(default)]
    pub shut: bool,
    /// How the BFD session with the peer stands; `None` where BFD does not watch it.
    #[serde(default)]
    pub bfd: Option<BfdState>,
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

/// `crier bgp routes`: by prefix, and below that by peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoutesReport {
    pub schema_version: u32,
    pub node: NodeName,
    pub routes: Vec<RouteReport>,
}

/// One route to one peer, as the session sends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RouteReport {
    pub prefix: IpNet,
    pub peer: PeerName,
    pub state: RouteState,
    /// Why it is not sent, where it is not.
    pub why: Option<String>,
    /// `None` without a session, and where the session has none for the family.
    pub next_hop: Option<IpAddr>,
    /// `None` as long as no session says whether the peer is internal.
    pub as_path: Option<Vec<u32>>,
    pub med: Option<u32>,
    /// To internal peers only.
    pub local_preference: Option<u32>,
    /// With the link bandwidth; without a session those of the advertisements alone.
    pub communities: Vec<Community>,
    /// How many local endpoints the link bandwidth stands for.
    pub endpoints: Option<u32>,
    /// Whose addresses it carries.
    pub services: Vec<ObjectKey>,
    /// Advertisements that say something else of it.
    pub disputes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteState {
    /// The peer has it.
    Sent,
    /// The session still has something to send, and this may be a part of it.
    Pending,
    /// The session cannot carry it.
    Unsendable,
    /// There is no session.
    Waiting,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteState::Sent => "sent",
            RouteState::Pending => "pending",
            RouteState::Unsendable => "unsendable",
            RouteState::Waiting => "waiting",
        })
    }
}

/// Which peers are asked for: all of them, or one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeersFilter {
    pub peer: Option<PeerName>,
}

/// Which routes are asked for; all fields empty for all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutesFilter {
    pub peer: Option<PeerName>,
    /// The longest route of each peer that holds all of it.
    pub prefix: Option<IpNet>,
}

fn others(known: &[PeerName]) -> String {
    match known {
        [] => ", which has none".to_owned(),
        known => format!("; there are: {}", known.iter().map(PeerName::as_str).collect::<Vec<_>>().join(", ")),
    }
}

/// No peer of this node has the name.
#[derive(Debug, thiserror::Error)]
#[error("there is no peer \"{name}\" on this node{}", others(.known))]
pub struct UnknownPeer {
    pub name: PeerName,
    pub known: Vec<PeerName>,
}

/// The view of `crier bgp peers`.
pub fn peers(snapshot: &Snapshot, filter: &PeersFilter) -> Result<PeersReport, UnknownPeer> {
    let report = |(name, peer): (&PeerName, &PeerSlice)| peer_report(snapshot, name, peer);
    let peers = wanted(snapshot, filter.peer.as_ref())?.into_iter().map(report).collect();
    Ok(PeersReport { schema_version: SCHEMA_VERSION, node: snapshot.node.clone(), peers })
}

/// The view of `crier bgp routes`.
pub fn routes(snapshot: &Snapshot, filter: &RoutesFilter) -> Result<RoutesReport, UnknownPeer> {
    let mut found: Vec<(IpNet, &PeerName, &Arc<RouteAttributes>)> = Vec::new();
    for (name, peer) in wanted(snapshot, filter.peer.as_ref())? {
        match &filter.prefix {
            None => found.extend(peer.routes.iter().map(|(prefix, route)| (*prefix, name, route))),
            Some(wanted) => {
                let longest = (0..=wanted.prefix_len()).rev().find_map(|length| {
                    let prefix = IpNet::new(wanted.addr(), length).ok()?.trunc();
                    peer.routes.get(&prefix).map(|route| (prefix, name, route))
                });
                found.extend(longest);
            }
        }
    }
    found.sort_by_key(|(prefix, name, _)| (*prefix, (*name).clone()));
    let services = services_of(snapshot, &found);
    let routes = found.into_iter().map(|(prefix, name, route)| {
        // What Services and advertisements name is the peer, of which this may be a further session.
        let peer = (snapshot.context.bgp.peer_of(name), prefix);
        let services = services.get(&peer).cloned().unwrap_or_default();
        let disputes = snapshot.plan.disputes.get(&peer);
        let in_words = |it: &Disagreement| format!("{}: {} is announced, {} is not", it.key, it.kept, it.ignored);
        let disputes = disputes.map(|all| all.iter().map(in_words).collect()).unwrap_or_default();
        RouteReport { services, disputes, ..route_report(prefix, name, route, snapshot.session(name)) }
    });
    let routes = routes.collect();
    Ok(RoutesReport { schema_version: SCHEMA_VERSION, node: snapshot.node.clone(), routes })
}

/// What an order of an operator about a peer does, in one sentence; an error where there is nothing that could follow it. The
/// snapshot is of before the order.
pub fn outcome_of(snapshot: &Snapshot, peer: &PeerName, order: PeerOrder) -> Result<String, String> {
    let of_peer = snapshot.plan.bgp.peers.iter().filter(|(name, _)| snapshot.context.bgp.peer_of(name) == *peer);
    let sessions: Vec<(&PeerName, &PeerSlice)> = of_peer.collect();
    let Some((_, first)) = sessions.first() else {
        return Err(format!("{peer} is no peer of this node now: `crier bgp peers` shows those that are"));
    };
    let is_shut = snapshot.world.peer_orders.get(peer).is_some_and(|orders| orders.shut);
    let by_file = first.settings.shutdown;
    let stands = |(name, _): &(&PeerName, &PeerSlice)| {
        snapshot.session(name).is_some_and(|session| session.state == SessionState::Established)
    };
    let stands = sessions.iter().any(stands);
    match order {
        PeerOrder::Shut if is_shut => Ok(format!("{peer} is shut down already, until `crier bgp enable {peer}`")),
        PeerOrder::Shut => Ok(format!("{peer} is shut down, until `crier bgp enable {peer}`")),
        PeerOrder::Enable if by_file => {
            Err(format!("{peer} stays shut down: its [[bgp.peer]] says shutdown = true; remove that and reload"))
        }
        PeerOrder::Enable if is_shut => Ok(format!("{peer} is enabled")),
        PeerOrder::Enable => Ok(format!("{peer} is enabled already")),
        PeerOrder::Reset if stands => Ok(format!("the session with {peer} is reset")),
        PeerOrder::Refresh if stands => Ok(format!("all routes are sent to {peer} again")),
        PeerOrder::Reset | PeerOrder::Refresh if by_file => {
            Err(format!("{peer} is shut down: its [[bgp.peer]] says shutdown = true; remove that and reload"))
        }
        PeerOrder::Reset | PeerOrder::Refresh if is_shut => {
            Err(format!("{peer} is shut down; `crier bgp enable {peer}` opens the session again"))
        }
        PeerOrder::Reset | PeerOrder::Refresh => {
            let state = snapshot.session(peer).map_or(SessionState::Idle, |session| session.state);
            let error = snapshot.session(peer).and_then(|session| session.last_error.clone());
            let why = first.address.as_ref().err().map(ToString::to_string).or(error);
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            let again = match (order, &first.address) {
                (PeerOrder::Reset, Ok(_)) => "; it is tried anew",
                (PeerOrder::Reset | PeerOrder::Refresh | PeerOrder::Shut | PeerOrder::Enable, _) => "",
            };
            Err(format!("there is no session with {peer} ({state}){why}{again}"))
        }
    }
}

/// Why an order is not to be carried out: it would end for good a session that is fine.
pub fn refusal_of(snapshot: &Snapshot, peer: &PeerName, order: PeerOrder) -> Option<String> {
    match order {
        PeerOrder::Reset => {}
        PeerOrder::Refresh | PeerOrder::Shut | PeerOrder::Enable => return None,
    }
    let settings = snapshot.config.bgp.peers.iter().find(|it| it.name == *peer)?;
    let path = snapshot.config.lacking_of(settings)?;
    let stands = snapshot
        .plan
        .bgp
        .peers
        .keys()
        .filter(|name| snapshot.context.bgp.peer_of(name) == *peer)
        .any(|name| snapshot.session(name).is_some_and(|session| session.state == SessionState::Established));
    stands.then(|| {
        format!(
            "the secret {} is missing: the session with {peer} goes on with the key that its connection has, and no new one could be \
             opened; create the file, run `systemctl reload crier`, and then reset it (`crier bgp shutdown {peer}` ends it now)",
            path.display()
        )
    })
}

fn wanted<'s>(
    snapshot: &'s Snapshot,
    name: Option<&PeerName>,
) -> Result<Vec<(&'s PeerName, &'s PeerSlice)>, UnknownPeer> {
    let peers = &snapshot.plan.bgp.peers;
    let wanted: Vec<_> = peers.iter().filter(|(known, _)| name.is_none_or(|name| name == *known)).collect();
    match name {
        Some(name) if wanted.is_empty() => {
            Err(UnknownPeer { name: name.clone(), known: peers.keys().cloned().collect() })
        }
        Some(_) | None => Ok(wanted),
    }
}

/// The Services whose addresses the routes carry, by peer and prefix: one look at every decision, whatever the number of routes.
fn services_of(
    snapshot: &Snapshot,
    routes: &[(IpNet, &PeerName, &Arc<RouteAttributes>)],
) -> BTreeMap<(PeerName, IpNet), Vec<ObjectKey>> {
    let peer_of = |name: &PeerName| snapshot.context.bgp.peer_of(name);
    let mut of: BTreeMap<(PeerName, IpNet), Vec<ObjectKey>> =
        routes.iter().map(|(prefix, name, _)| ((peer_of(name), *prefix), Vec::new())).collect();
    for (key, decision) in &snapshot.plan.decisions {
        for carrier in decision.announcements.iter().flat_map(|announcement| &announcement.bgp.routes) {
            for peer in &carrier.peers {
                if let Some(services) = of.get_mut(&(peer.clone(), carrier.prefix))
                    && services.last() != Some(key)
                {
                    services.push(key.clone());
                }
            }
        }
    }
    of
}

pub(super) fn peer_report(snapshot: &Snapshot, name: &PeerName, peer: &PeerSlice) -> PeerReport {
    let session = snapshot.session(name);
    let PeerSlice { settings, address, routes, orders: _ } = peer;
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
        last_error: nowhere.or_else(|| last_error(snapshot, peer, session)),
        security: Security::of(settings),
        shut: matches!(address, Err(Reason::PeerShutDown | Reason::PeerShutByOperator)),
        bfd: snapshot.bfd(name),
        session: session.map(|session| SessionDetail::clone(&session.detail)).unwrap_or_default(),
    }
}

impl Security {
    fn of(settings: &config::Peer) -> Security {
        Security {
            md5: settings.password.is_some(),
            tcp_ao: !settings.tcp_ao.is_empty(),
            ttl_security: settings.ttl_security,
        }
    }

    /// What it may mean that the kernel has refused these segments.
    pub(super) fn refused(self, RefusedSegments { count, since }: RefusedSegments) -> String {
        let (how, what) = match self {
            Security { md5: true, .. } => ("for their TCP MD5 signature", "is the password the same on both sides"),
            Security { tcp_ao: true, .. } => ("for their TCP-AO signature", "are the keys the same on both sides"),
            Security { .. } => ("that are signed with TCP MD5", "has the peer a password for this node"),
        };
        format!("this kernel has refused segments {how}, {count} since {since:.0}, and does not tell whose: {what}?")
    }
}

/// Why there is no session, as the session tells. What a speaker hears that calls itself explains nothing.
fn last_error(snapshot: &Snapshot, peer: &PeerSlice, session: Option<&SessionReport>) -> Option<String> {
    let session = session?;
    let refused = session.detail.refused.map(|it| Security::of(&peer.settings).refused(it));
    let told: Vec<String> = session.last_error.clone().into_iter().chain(refused).collect();
    let told = (!told.is_empty()).then(|| told.join("; "));
    let Some(address) = peer.address.as_ref().ok().filter(|_| session.state != SessionState::Established) else {
        return told;
    };
    let Snapshot { world, config, .. } = snapshot;
    let own = |net: &IpNet| net.addr() == address.ip;
    let is_own = address.ip.is_loopback() || world.links.values().any(|link| link.addresses.iter().any(own));
    let listens = config.bgp.listen.iter().any(|listens| {
        let all = listens.is_unspecified() && listens.is_ipv4() == address.ip.is_ipv4();
        all || *listens == address.ip
    });
    if !is_own || !listens || peer.settings.port != config.bgp.port || peer.settings.vrf.is_some() {
        return told;
    }
    let hint = format!(
        "{address} is an address of this node, and crier itself listens there: leave this node out of the peer with nodes, or set \
         listen in [bgp]"
    );
    Some(std::iter::once(hint).chain(told).collect::<Vec<_>>().join("; "))
}

/// The route as its session sends it, with no Services and no disputes.
fn route_report(
    prefix: IpNet,
    peer: &PeerName,
    route: &RouteAttributes,
    session: Option<&SessionReport>,
) -> RouteReport {
    let negotiated = session.and_then(|session| session.detail.negotiated.as_ref());
    let family = Family::of(prefix.addr());
    let carried = negotiated.and_then(|negotiated| negotiated.families.iter().find(|it| it.family == family));
    let pending = session.map_or(0, |session| session.detail.prefixes_pending);
    let (state, why) = match (carried, carried.and_then(|carried| carried.unsendable.clone())) {
        (_, Some(why)) => (RouteState::Unsendable, Some(why)),
        _ if session.is_some_and(|session| session.detail.too_long.contains(&prefix)) => {
            let why = "its attributes alone fill the longest message of this session".to_owned();
            (RouteState::Unsendable, Some(why))
        }
        (None, None) => (RouteState::Waiting, Some("there is no session with the peer".to_owned())),
        (Some(_), None) if pending > 0 => {
            (RouteState::Pending, Some(format!("of this session's routes, {pending} are still to be sent")))
        }
        (Some(_), None) => (RouteState::Sent, None),
    };
    let internal = negotiated.map(|NegotiatedReport { local_asn, peer_asn, .. }| local_asn == peer_asn);
    let path = |negotiated: &NegotiatedReport| match negotiated.local_asn == negotiated.peer_asn {
        true => Vec::new(),
        false => vec![negotiated.local_asn; 1 + usize::from(route.prepend)],
    };
    RouteReport {
        prefix,
        peer: peer.clone(),
        state,
        why,
        next_hop: carried.and_then(|carried| carried.next_hop),
        as_path: negotiated.map(path),
        med: route.med,
        local_preference: match internal {
            Some(true) => Some(route.local_preference.unwrap_or(RouteAttributes::DEFAULT_LOCAL_PREFERENCE)),
            Some(false) | None => None,
        },
        communities: match negotiated {
            Some(negotiated) => route.communities_from(negotiated.local_asn),
            None => route.communities.clone(),
        },
        endpoints: route.endpoints,
        services: Vec::new(),
        disputes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;

    use crate::views::Counters;
    use crate::views::status::status;
    use crate::world::{DefaultRoute, EndpointSlice, Fact, Link, Service, SessionDetail, SessionReport};

    const CONFIG: &str = r#"
[manifests]
folder = "/m"
[[pool]]
name = "wan"
addresses = ["203.0.113.0/28"]
[bgp]
asn = 64513
[[bgp.peer]]
name = "tor"
address = "gateway"
asn = 64512
[[bgp.advertisement]]
"#;

    fn established() -> SessionReport {
        SessionReport {
            state: SessionState::Established,
            since: clock::wall(),
            last_error: None,
            local_address: None,
            hold_time_secs: Some(90),
            prefixes_sent: 1,
            prefixes_unsendable: 0,
            prefixes_received: 0,
            detail: Box::<SessionDetail>::default(),
        }
    }

    /// Input: `reset` of a session that goes on without its password file; and a peer that an operator has shut.
    #[test]
    fn a_session_that_could_not_be_opened_again_is_not_reset_and_a_peer_that_is_shut_says_so() {
        let shown = |missing: bool, fact: Fact| {
            let file = SourceFile { path: "test.toml".to_owned(), text: CONFIG.replace("\"gateway\"", "\"10.0.0.1\"") };
            let mut config = parse(&[file], &NoSecrets).unwrap();
            if missing {
                let secret = b""[..].into();
                let password = config::SecretFile { path: Some("/etc/tor.key".into()), secret };
                config.bgp.peers.iter_mut().for_each(|peer| peer.password = Some(password.clone()));
            }
            let mut planner = Planner::new(Arc::new(config), "node-1".into());
            [Fact::LinksListed, fact, Fact::FailStatic].into_iter().for_each(|fact| planner.apply(fact));
            planner.turn(clock::now());
            Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall())
        };
        let refused = |missing: bool, mut report: SessionReport, order: PeerOrder| {
            let at = crate::address::ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
            report.detail.address = Some(at);
            refusal_of(&shown(missing, Fact::Session("tor".into(), report)), &"tor".into(), order)
        };
        let why = refused(true, established(), PeerOrder::Reset).expect("no new session could be opened");
        assert!(why.contains("/etc/tor.key is missing"), "{why}");
        assert_eq!(refused(false, established(), PeerOrder::Reset), None);
        assert_eq!(refused(true, established(), PeerOrder::Shut), None);
        let active = SessionReport { state: SessionState::Active, ..established() };
        assert_eq!(refused(true, active, PeerOrder::Reset), None);
        for (order, shut) in [(PeerOrder::Shut, true), (PeerOrder::Refresh, false)] {
            let snapshot = shown(false, Fact::Peer("tor".into(), order));
            let peers: Vec<bool> = status(&snapshot).peers.iter().map(|peer| peer.shut).collect();
            assert_eq!(peers, [shut]);
        }
    }

    /// Input: orders about a peer in each of its states. Output: what they do, or why there is nothing that follows them.
    #[test]
    fn an_order_that_nothing_can_follow_is_not_said_to_be_done() {
        let config = CONFIG.replace("\"gateway\"", "\"10.0.0.1\"");
        let outcomes = |more: &str, facts: Vec<Fact>, peer: &str| {
            let text = config.replace("asn = 64512", &format!("asn = 64512\n{more}"));
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            let facts = [Fact::LinksListed].into_iter().chain(facts).chain([Fact::FailStatic]);
            facts.for_each(|fact| planner.apply(fact));
            planner.turn(clock::now());
            let snapshot =
                Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
            [PeerOrder::Reset, PeerOrder::Refresh, PeerOrder::Shut, PeerOrder::Enable]
                .map(|order| outcome_of(&snapshot, &peer.into(), order).unwrap_or_else(|why| format!("no: {why}")))
        };
        let session = |report: SessionReport| Fact::Session("tor".into(), report);
        assert_eq!(
            outcomes("", vec![session(established())], "tor"),
            [
                "the session with tor is reset",
                "all routes are sent to tor again",
                "tor is shut down, until `crier bgp enable tor`",
                "tor is enabled already",
            ]
        );
        let refused = "Connection refused".to_owned();
        let active = SessionReport { state: SessionState::Active, last_error: Some(refused), ..established() };
        let [reset, refresh, ..] = outcomes("", vec![session(active)], "tor");
        assert_eq!(reset, "no: there is no session with tor (Active): Connection refused; it is tried anew");
        assert_eq!(refresh, "no: there is no session with tor (Active): Connection refused");
        let by_operator = "no: tor is shut down; `crier bgp enable tor` opens the session again";
        assert_eq!(
            outcomes("", vec![Fact::Peer("tor".into(), PeerOrder::Shut)], "tor"),
            [by_operator, by_operator, "tor is shut down already, until `crier bgp enable tor`", "tor is enabled",]
        );
        let by_file = "no: tor is shut down: its [[bgp.peer]] says shutdown = true; remove that and reload";
        assert_eq!(
            outcomes("shutdown = true", vec![session(established())], "tor"),
            [
                by_file,
                by_file,
                "tor is shut down, until `crier bgp enable tor`",
                "no: tor stays shut down: its [[bgp.peer]] says shutdown = true; remove that and reload",
            ]
        );
        let elsewhere = "no: spine is no peer of this node now: `crier bgp peers` shows those that are";
        assert_eq!(outcomes("", Vec::new(), "spine"), [elsewhere; 4]);
    }

    /// Input: a default route with two next hops, so the peer has two sessions. Output: the route of each says whose it is.
    #[test]
    fn the_routes_of_every_session_to_a_gateway_name_their_services() {
        let file = SourceFile { path: "test.toml".to_owned(), text: CONFIG.to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        let key = ObjectKey::new("shop", "web");
        let service = Service {
            uid: String::new(),
            resource_version: String::new(),
            load_balancer: true,
            families: vec![Family::V4],
            ..Service::default()
        };
        let slice = EndpointSlice {
            service: key.clone(),
            family: None,
            ready: Default::default(),
            serving: Default::default(),
            serving_without_node: 1,
            unready: Default::default(),
            addresses: Default::default(),
        };
        let hop = |last: u8| DefaultRoute::via(&format!("10.0.0.{last}"), 2, 0);
        for fact in [
            Fact::LinksListed,
            Fact::Service(key.clone(), Some(Arc::new(service))),
            Fact::EndpointSlice(key.clone(), Some(Arc::new(slice))),
            Fact::DefaultRoutes(vec![hop(1), hop(2)]),
            Fact::Session("tor@10.0.0.2".into(), established()),
            Fact::FailStatic,
        ] {
            planner.apply(fact);
        }
        planner.turn(clock::now());
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
        let report = routes(&snapshot, &RoutesFilter::default()).unwrap();
        let found: Vec<_> = report.routes.iter().map(|it| (it.peer.to_string(), it.services.clone())).collect();
        let of = |name: &str| (name.to_owned(), vec![key.clone()]);
        assert_eq!(found, [of("tor"), of("tor@10.0.0.2")]);
        assert_eq!(status(&snapshot).services[0].summary, "announced to tor", "one session of the two is enough");

        let mut without_v4 = established();
        without_v4.detail.negotiated = Some(
            serde_json::from_value(serde_json::json!({
                "local": "10.0.0.11:179", "remote": "10.0.0.2:179", "local_asn": 64513, "peer_asn": 64512,
                "local_router_id": "10.0.0.11", "peer_router_id": "10.0.0.2", "hold_time_secs": 90,
                "keepalive_time_millis": 30000, "max_message_len": 4096,
                "families": [
                    { "family": "IPv4", "next_hop": null, "unsendable": "the peer carries no IPv4" },
                    { "family": "IPv6", "next_hop": "fd00::11", "unsendable": null },
                ],
                "capabilities": { "sent": [], "received": [], "negotiated": [] },
            }))
            .unwrap(),
        );
        planner.apply(Fact::Session("tor@10.0.0.2".into(), without_v4));
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
        let service = status(&snapshot).services.remove(0);
        assert_eq!(service.summary, "not announced to tor: the peer carries no IPv4");
        let bgp = &service.decision.announcements[0].bgp;
        assert!(bgp.peers.is_empty() && bgp.routes.iter().all(|route| route.peers.is_empty()), "{bgp:?}");
        assert_eq!(bgp.reason.code(), "not-carried");
        planner.apply(Fact::Session("tor".into(), established()));
        let snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
        assert_eq!(status(&snapshot).services[0].summary, "announced to tor", "its other session carries it");
    }
    /// One file for all nodes, and the router is one of them.
    #[test]
    fn a_peer_that_is_this_node_itself_is_told_so_unless_another_program_may_answer_there() {
        let told = |more: &str, of_peer: &str| {
            let text = format!(
                "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n{more}\n[[bgp.peer]]\nname = \"self\"\n\
                 address = \"10.0.0.11\"\nasn = 64512\n{of_peer}\n"
            );
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            let refused = Some("Bad Peer AS".to_owned());
            for fact in [
                Fact::Link(2, Some(Link { up: true, carrier: true, ..Link::carrying(2, "eth0", &["10.0.0.11/24"]) })),
                Fact::LinksListed,
                Fact::Session(
                    "self".into(),
                    SessionReport { state: SessionState::Idle, last_error: refused, ..established() },
                ),
                Fact::FailStatic,
            ] {
                planner.apply(fact);
            }
            planner.turn(clock::now());
            let snapshot =
                Snapshot::of(&planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
            peers(&snapshot, &PeersFilter::default()).unwrap().peers.remove(0).last_error.unwrap()
        };
        let told_so = told("", "");
        assert!(
            told_so.starts_with("10.0.0.11 is an address of this node, and crier itself listens there: "),
            "{told_so}"
        );
        assert!(told_so.ends_with("; Bad Peer AS"), "{told_so}");
        for (more, of_peer) in [("listen = []", ""), ("listen = [\"10.0.0.12\"]", ""), ("port = 1179", "")] {
            assert_eq!(told(more, of_peer), "Bad Peer AS", "{more} {of_peer}");
        }
        assert_eq!(told("", "port = 1179"), "Bad Peer AS");
    }
}
