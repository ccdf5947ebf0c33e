//! Where each BGP peer is to be found: the address that the configuration gives, the router heard on a link, or the
//! default gateway. Floor 1. Why a peer is nowhere is named here too; how to get there is the speaker's business.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use imbl::OrdMap;

use super::bfd::from;
use crate::address::{Family, LocalAddress, ScopedAddress, is_link_local_v6, near};
use crate::config::{self, PeerAddress};
use crate::names::{InterfaceName, PeerName};
use crate::plan::slice::PeerSlice;
use crate::reason::Reason;
use crate::world::{DefaultRoute, Link, SessionReport, SessionState, World};

/// Where the peer is now. `before` is where it was a moment ago, if anywhere; `further` are its further sessions of a moment ago.
///
/// An established session is proof that its peer is there, and better proof than any advertisement, which everybody on a
/// link can send. So it holds a peer on a link at its address as long as the link is up, and a peer at the gateway
/// while there is no default route of the gateway's family. It does not hold a gateway against a default route of
/// that family that leads elsewhere.
pub(super) fn address(
    settings: &config::Peer,
    before: Option<&ScopedAddress>,
    further: &BTreeMap<PeerName, ScopedAddress>,
    world: &World,
) -> Result<ScopedAddress, Reason> {
    if settings.shutdown {
        return Err(Reason::PeerShutDown);
    }
    if world.peer_orders.get(&settings.name).is_some_and(|orders| orders.shut) {
        return Err(Reason::PeerShutByOperator);
    }
    if let Some(vrf) = &settings.vrf {
        usable_vrf(vrf, world)?;
    }
    let session = world.sessions.get(&settings.name);
    match &settings.address {
        PeerAddress::Fixed(address) => Ok(address.clone()),
        PeerAddress::Interface(interface) => {
            let before = before.filter(|before| before.interface.as_ref() == Some(interface));
            let failed = before.is_some_and(|before| session.is_some_and(|session| has_failed(session, before)));
            on_link(interface, before, is_established(&settings.name, world), failed, world)
        }
        PeerAddress::Gateway => gateway(settings, before, further, world),
    }
}

fn is_established(session: &PeerName, world: &World) -> bool {
    world.sessions.get(session).is_some_and(|session| session.state == SessionState::Established)
}

/// Where the peer of an established session is.
pub(super) fn proven_at(session: &PeerName, world: &World) -> Option<ScopedAddress> {
    world.sessions.get(session).filter(|_| is_established(session, world))?.detail.address.clone()
}

/// The links on which routers are looked for: those of unnumbered peers, as far as they can carry a session now.
pub(super) fn unnumbered_links(peers: &[Arc<config::Peer>], world: &World) -> BTreeMap<u32, InterfaceName> {
    let wanted = peers.iter().filter_map(|peer| match &peer.address {
        PeerAddress::Interface(interface) => Some(interface),
        PeerAddress::Fixed(_) | PeerAddress::Gateway => None,
    });
    let usable = wanted.filter_map(|interface| usable_link(interface, world).ok());
    usable.map(|link| (link.index, link.name.clone())).collect()
}

/// Every attempt with this address has failed since it was chosen, or the session with it has ended.
fn has_failed(session: &SessionReport, address: &ScopedAddress) -> bool {
    let detail = &session.detail;
    detail.address.as_ref() == Some(address)
        && detail.last_error_at.is_some()
        && session.state != SessionState::Established
}

/// The candidates are the routers in the order in which they were heard, and who called our port last. The first is tried, and after
/// each failure the next: who advertises itself on a link need not be the router that is meant.
fn on_link(
    interface: &InterfaceName,
    before: Option<&ScopedAddress>,
    proven: bool,
    failed: bool,
    world: &World,
) -> Result<ScopedAddress, Reason> {
    let link = usable_link(interface, world)?;
    if let Some(before) = before.filter(|_| proven) {
        return Ok(before.clone());
    }
    let heard = world.routers.get(&link.index).map(Vec::as_slice).unwrap_or_default();
    let caller = world.callers.get(&link.index).filter(|caller| !heard.contains(caller));
    let candidates: Vec<Ipv6Addr> = heard.iter().chain(caller).copied().collect();
    let tried = before.and_then(|before| candidates.iter().position(|candidate| before.ip == IpAddr::V6(*candidate)));
    let next = match tried {
        Some(tried) if failed => (tried + 1) % candidates.len(),
        Some(tried) => tried,
        None => 0,
    };
    match candidates.get(next) {
        Some(router) => Ok(ScopedAddress { ip: IpAddr::V6(*router), interface: Some(interface.clone()) }),
        None => Err(Reason::NoRouterHeard { interface: interface.clone() }),
    }
}

/// A VRF that is not there, or is down, has no way to any peer.
fn usable_vrf(vrf: &InterfaceName, world: &World) -> Result<(), Reason> {
    match world.links.values().find(|link| link.name == *vrf) {
        Some(device) if device.up => Ok(()),
        Some(_) => Err(Reason::LinkDown { interface: vrf.clone() }),
        None => Err(Reason::NoSuchInterface { interface: vrf.clone() }),
    }
}

fn usable_link<'w>(interface: &InterfaceName, world: &'w World) -> Result<&'w Link, Reason> {
    let interface = interface.clone();
    let Some(link) = world.links.values().find(|link| link.name == interface) else {
        return Err(Reason::NoSuchInterface { interface });
    };
    if !link.up {
        return Err(Reason::LinkDown { interface });
    }
    if !link.carrier {
        return Err(Reason::NoCarrier { interface });
    }
    if !link.addresses.iter().any(|net| is_link_local_v6(net.addr())) {
        return Err(Reason::NoLinkLocalAddress { interface });
    }
    Ok(link)
}

/// One of the peer's gateways: the one of a moment ago as long as it is one, else the first that has no session yet.
fn gateway(
    settings: &config::Peer,
    before: Option<&ScopedAddress>,
    further: &BTreeMap<PeerName, ScopedAddress>,
    world: &World,
) -> Result<ScopedAddress, Reason> {
    let gateways = gateways(settings, before, further, world);
    let before = before.filter(|before| gateways.contains(before));
    let free = || gateways.iter().find(|gateway| !further.values().any(|taken| taken == *gateway));
    match before.or_else(free) {
        Some(gateway) => Ok(gateway.clone()),
        None if gateways.is_empty() => Err(match &settings.vrf {
            Some(vrf) => Reason::NoDefaultRouteInVrf { vrf: vrf.clone() },
            None => Reason::NoDefaultRoute,
        }),
        None => Err(Reason::NoOtherGateway),
    }
}

/// The gateways that the peer's established sessions prove, as long as there is no default route of their family: a default route of
/// the other family says nothing of them. Else the next hops of the default route of IPv4, or of IPv6 where IPv4 has none, and those
/// that the route still lists, on a link that does not work now, while their sessions stand.
fn gateways(
    settings: &config::Peer,
    own: Option<&ScopedAddress>,
    further: &BTreeMap<PeerName, ScopedAddress>,
    world: &World,
) -> Vec<ScopedAddress> {
    let next_hops = |family: Family| next_hops(settings.vrf.as_ref(), family, world);
    let (v4, v6) = (next_hops(Family::V4), next_hops(Family::V6));
    let sessions = own.map(|own| (&settings.name, own)).into_iter().chain(further);
    let proven = sessions.filter(|(name, _)| is_established(name, world)).map(|(_, gateway)| gateway);
    // A next hop of IPv6 may be one of either family's routes.
    let leads_by_v6 = || v4.iter().chain(&v6).any(|it| it.ip.is_ipv6());
    let is_held = |gateway: &&ScopedAddress| if gateway.ip.is_ipv4() { v4.is_empty() } else { !leads_by_v6() };
    let held: Vec<ScopedAddress> = proven.filter(is_held).cloned().collect();
    let mut gateways = match (held.is_empty(), v4.is_empty()) {
        (false, _) => held,
        (true, false) => v4,
        (true, true) => v6,
    };
    // A link that loses its carrier for a moment ends no session, as with a peer that has an address: where the path has failed, the hold
    // time or BFD does.
    let dead = dead_hops(settings.vrf.as_ref(), world);
    let is_dead = |gateway: &&ScopedAddress| dead.iter().any(|(address, _)| address == *gateway);
    let sessions = own.map(|own| (&settings.name, own)).into_iter().chain(further);
    let stands = sessions.filter(|(name, _)| is_established(name, world)).map(|(_, gateway)| gateway);
    for gateway in stands.filter(is_dead) {
        if !gateways.contains(gateway) {
            gateways.push(gateway.clone());
        }
    }
    gateways
}

/// The next hops of the preferred default route of one family, in the main table or a VRF, in the kernel's order. Two top-of-rack
/// routers are two. A route to a link itself has none.
fn next_hops(vrf: Option<&InterfaceName>, family: Family, world: &World) -> Vec<ScopedAddress> {
    let routes = || world.default_routes.iter().filter(|it| it.family == family && is_of_table(it, vrf, world));
    let found = |route: &DefaultRoute| Some((scoped(route.gateway?, route.link, world)?, route.metric));
    let best = routes().find_map(found).map(|(_, metric)| metric);
    let mut next_hops = Vec::new();
    for (next_hop, metric) in routes().filter_map(found) {
        if Some(metric) == best && !next_hops.contains(&next_hop) {
            next_hops.push(next_hop);
        }
    }
    next_hops
}

/// The route is of the table of this VRF; of the main table where there is none.
fn is_of_table(route: &DefaultRoute, vrf: Option<&InterfaceName>, world: &World) -> bool {
    match (vrf, route.vrf) {
        (None, None) => true,
        (Some(vrf), Some(index)) => world.links.get(&index).is_some_and(|device| device.name == *vrf),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// The next hops of the preferred default route whose links do not work now, or that it has lost with their links, each with what is the
/// matter. As for sessions, IPv6 counts only where IPv4 has no default route.
fn dead_hops(vrf: Option<&InterfaceName>, world: &World) -> Vec<(ScopedAddress, Reason)> {
    let routes = |all: &[DefaultRoute], family: Family| -> Vec<DefaultRoute> {
        all.iter().filter(|it| it.family == family && is_of_table(it, vrf, world)).cloned().collect()
    };
    let of = |family: Family| (routes(&world.default_routes, family), routes(&world.dead_default_routes, family));
    let (mut alive, mut dead) = of(Family::V4);
    if alive.is_empty() && dead.is_empty() {
        (alive, dead) = of(Family::V6);
    }
    // What is worse than a route that works is not used when its link is back either.
    let best = alive.iter().map(|route| route.metric).min();
    let in_use = dead.iter().filter(|route| best.is_none_or(|best| route.metric <= best));
    let found = in_use.filter_map(|route| {
        let Link { name, up, carrier, .. } = world.links.get(&route.link)?;
        let interface = name.clone();
        let why = match (*up, *carrier && route.dropped) {
            (false, _) => Reason::LinkDown { interface },
            (true, false) => Reason::NoCarrier { interface },
            (true, true) => Reason::NextHopDropped { interface },
        };
        Some((scoped(route.gateway?, route.link, world)?, why))
    });
    found.collect()
}

/// Why the default route does not lead to this peer any more, although its link works: it was found by that route, and has its session
/// yet.
pub fn dropped_next_hop(peer: &PeerSlice, world: &World) -> Option<Reason> {
    let address = peer.address.as_ref().ok().filter(|_| peer.settings.address == PeerAddress::Gateway)?;
    let dead = dead_hops(peer.settings.vrf.as_ref(), world);
    let of_peer = |(at, why): &(ScopedAddress, Reason)| at == address && matches!(why, Reason::NextHopDropped { .. });
    dead.into_iter().find(of_peer).map(|(_, why)| why)
}

/// Where the peer's own session is, or why nowhere, and the further ones that are nowhere because the links of their next hops do not
/// work now: a router that has gone is to be seen, not to vanish. `known` tells the names of a moment ago; `further` are the other
/// further ones. The peer's own name stands for a next hop that has none of its own.
pub(super) fn with_dead_hops(
    settings: &config::Peer,
    own: Result<ScopedAddress, Reason>,
    further: &BTreeMap<PeerName, ScopedAddress>,
    known: impl Fn(&PeerName) -> bool,
    world: &World,
) -> (Result<ScopedAddress, Reason>, BTreeMap<PeerName, Reason>) {
    let waits =
        matches!(own, Err(Reason::NoOtherGateway | Reason::NoDefaultRoute | Reason::NoDefaultRouteInVrf { vrf: _ }));
    if settings.address != PeerAddress::Gateway || (own.is_err() && !waits) {
        return (own, BTreeMap::new());
    }
    let has_session =
        |address: &ScopedAddress| own.as_ref() == Ok(address) || further.values().any(|other| other == address);
    let dead = dead_hops(settings.vrf.as_ref(), world).into_iter().filter(|(address, _)| !has_session(address));
    let mut dead: Vec<(PeerName, Reason)> =
        dead.map(|(address, why)| (further_name(&settings.name, &address), why)).collect();
    let nameless = dead.iter().position(|(name, _)| waits && !known(name));
    let own = match nameless.map(|at| dead.remove(at)) {
        Some((_, why)) => Err(why),
        None => own,
    };
    (own, dead.into_iter().collect())
}

/// Marks a further session of `address = "gateway"` in its name, in front of its address.
const FURTHER: char = '@';

/// The `[[bgp.peer]]` that a session belongs to whose name is none of a `[[bgp.peer]]`.
pub fn peer_of(session: &PeerName) -> PeerName {
    match session.as_str().split_once(FURTHER) {
        Some((peer, _)) => PeerName::from(peer),
        None => session.clone(),
    }
}

/// Whether the name is one that a further session of the peer has. A peer may be named like that too.
pub(super) fn is_further_of(session: &PeerName, peer: &PeerName) -> bool {
    session.as_str().strip_prefix(peer.as_str()).is_some_and(|rest| rest.starts_with(FURTHER))
}

fn further_name(peer: &PeerName, address: &ScopedAddress) -> PeerName {
    PeerName::from(format!("{peer}{FURTHER}{address}"))
}

/// The sessions with the further next hops of the default route, beside the one that has the peer's own name. `known` are those
/// of a moment ago, each with its address.
///
/// A name holds the address, so that a session keeps it when another next hop goes or comes.
pub(super) fn further(
    settings: &config::Peer,
    own: Option<&ScopedAddress>,
    known: &BTreeMap<PeerName, ScopedAddress>,
    world: &World,
) -> BTreeMap<PeerName, ScopedAddress> {
    let PeerAddress::Gateway = settings.address else { return BTreeMap::new() };
    let is_shut = world.peer_orders.get(&settings.name).is_some_and(|orders| orders.shut);
    if settings.shutdown || is_shut {
        return BTreeMap::new();
    }
    let named = |address: ScopedAddress| (further_name(&settings.name, &address), address);
    gateways(settings, own, known, world).into_iter().filter(|gateway| Some(gateway) != own).map(named).collect()
}

/// Of several peers that turn out to be one router, spoken to from one address, one has a session: a router takes each for the other, started
/// anew. That is the one whose session stands, else the one that has the router in the plan `before`, and after several attempts that failed
/// the next: those whose address the file gives come first, in the order of the file. The file gives several of one address where their
/// selectors differ and this node matches both.
pub(super) fn keep_one_each(
    sessions: &mut [(PeerName, PeerSlice)],
    before: &OrdMap<PeerName, PeerSlice>,
    local: &[LocalAddress],
    world: &World,
) {
    type Router = (ScopedAddress, u16, Option<InterfaceName>, Option<IpAddr>);
    let mut routers: BTreeMap<Router, Vec<usize>> = BTreeMap::new();
    for is_given in [true, false] {
        for (at, (name, peer)) in sessions.iter().enumerate() {
            let PeerSlice { settings, address: Ok(address), .. } = peer else { continue };
            if matches!(settings.address, PeerAddress::Fixed(_)) == is_given {
                let source =
                    settings.source_address.or_else(|| own_end(settings, address, local, world.sessions.get(name)));
                routers.entry((address.clone(), settings.port, settings.vrf.clone(), source)).or_default().push(at);
            }
        }
    }
    for ((address, ..), of_router) in routers.into_iter().filter(|(_, of_router)| of_router.len() > 1) {
        let name = |at: usize| &sessions[at].0;
        let stands = |at: &usize| proven_at(name(*at), world).as_ref() == Some(&address);
        let has_it = |at: &usize| before.get(name(*at)).is_some_and(|peer| peer.address.as_ref() == Ok(&address));
        let gives_way = |at: usize| {
            let session = world.sessions.get(name(at));
            session.is_some_and(|session| session.detail.fails && has_failed(session, &address))
        };
        let first = match of_router.iter().position(stands) {
            Some(stands) => stands,
            None => match of_router.iter().position(has_it) {
                Some(had) if gives_way(of_router[had]) => (had + 1) % of_router.len(),
                Some(had) => had,
                None => 0,
            },
        };
        let first = of_router[first];
        let peer = name(first).clone();
        for at in of_router.into_iter().filter(|at| *at != first) {
            sessions[at].1.address = Err(Reason::SameRouter { peer: peer.clone() });
        }
    }
}

/// From where a session is, or would be, that leaves it open; `None` where only the kernel knows, before the first one.
fn own_end(
    settings: &config::Peer,
    address: &ScopedAddress,
    local: &[LocalAddress],
    session: Option<&SessionReport>,
) -> Option<IpAddr> {
    let only = || match near(address, settings.vrf.as_ref(), local)[..] {
        [only] => Some(only.net.addr()),
        [] | [_, ..] => None,
    };
    from(settings, address, local, session, None).or_else(only)
}

/// `None` where the link of a link-local gateway is not known (yet).
fn scoped(ip: IpAddr, link: u32, world: &World) -> Option<ScopedAddress> {
    let interface = match is_link_local_v6(ip) {
        true => Some(world.links.get(&link)?.name.clone()),
        false => None,
    };
    Some(ScopedAddress { ip, interface })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::address::Stay;
    use crate::config::PeerAsn;
    use crate::world::{Fact, PeerOrders, SessionDetail};

    const ETH0: u32 = 2;
    const A: &str = "fe80::a";
    const B: &str = "fe80::b";

    fn peer(address: PeerAddress) -> config::Peer {
        let defaults = config::tests::one_of_each().bgp.peers.remove(0);
        config::Peer { name: "tor".into(), address, asn: PeerAsn::External, ..defaults }
    }

    fn eth0(up: bool, carrier: bool, addresses: &[&str]) -> Fact {
        Fact::Link(ETH0, Some(Link { up, carrier, ..Link::carrying(ETH0, "eth0", addresses) }))
    }

    fn good_eth0() -> Fact {
        eth0(true, true, &["10.0.0.11/24", "fe80::11/64"])
    }

    fn routers(routers: &[&str]) -> Fact {
        Fact::Routers(ETH0, routers.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn caller(caller: &str) -> Fact {
        Fact::Caller(ETH0, caller.parse::<Ipv6Addr>().unwrap())
    }

    fn session(state: SessionState) -> Fact {
        Fact::Session("tor".into(), SessionReport::new(state, SystemTime::UNIX_EPOCH))
    }

    /// Each in the words `gateway metric`, all of them over eth0.
    fn default_routes(routes: &[(&str, u32)]) -> Fact {
        let route = |(gateway, metric): &(&str, u32)| DefaultRoute::via(gateway, ETH0, *metric);
        Fact::DefaultRoutes(routes.iter().map(route).collect())
    }

    fn found(address: &PeerAddress, before: Option<&str>, facts: Vec<Fact>) -> String {
        let mut world = World::default();
        for fact in facts {
            world.apply(fact);
        }
        let before = before.map(|text| {
            let (ip, interface) = text.split_once('%').map_or((text, None), |(ip, name)| (ip, Some(name.into())));
            ScopedAddress { ip: ip.parse().unwrap(), interface }
        });
        match super::address(&peer(address.clone()), before.as_ref(), &BTreeMap::new(), &world) {
            Ok(address) => address.to_string(),
            Err(reason) => reason.code(),
        }
    }

    #[test]
    fn a_peer_on_a_link_is_the_router_heard_first_or_else_who_called_last_unless_a_session_proves_another() {
        let unnumbered = PeerAddress::Interface("eth0".into());
        let (established, idle) = (session(SessionState::Established), session(SessionState::Idle));
        let held = Some("fe80::a%eth0");
        let table: Vec<(&str, Option<&str>, Vec<Fact>, &str)> = vec![
            ("no interface", None, vec![], "no-such-interface"),
            ("set down", None, vec![eth0(false, false, &["fe80::11/64"]), routers(&[A])], "link-down"),
            ("no carrier", held, vec![eth0(true, false, &["fe80::11/64"]), routers(&[A])], "no-carrier"),
            ("no IPv6", None, vec![eth0(true, true, &["10.0.0.11/24"])], "no-link-local-address"),
            ("nobody there", None, vec![good_eth0()], "no-router-heard"),
            ("one router", None, vec![good_eth0(), routers(&[A])], "fe80::a%eth0"),
            ("two routers", None, vec![good_eth0(), routers(&[B, A])], "fe80::b%eth0"),
            ("a router gone", held, vec![good_eth0(), routers(&[A]), routers(&[])], "no-router-heard"),
            ("a caller", None, vec![good_eth0(), caller(A)], "fe80::a%eth0"),
            ("the last caller", held, vec![good_eth0(), caller(A), caller(B)], "fe80::b%eth0"),
            ("a router before a caller", None, vec![good_eth0(), caller(B), routers(&[A])], "fe80::a%eth0"),
            (
                "a caller is forgotten with the link",
                None,
                vec![good_eth0(), caller(A), eth0(true, false, &[]), good_eth0()],
                "no-router-heard",
            ),
            ("a session holds", held, vec![good_eth0(), routers(&[B]), caller(B), established.clone()], "fe80::a%eth0"),
            ("no session", held, vec![good_eth0(), routers(&[B]), established.clone(), idle], "fe80::b%eth0"),
            (
                "a session of elsewhere",
                Some("fe80::a%eth1"),
                vec![good_eth0(), routers(&[B]), established.clone()],
                "fe80::b%eth0",
            ),
            ("a session on a dead link", held, vec![eth0(true, false, &["fe80::11/64"]), established], "no-carrier"),
        ];
        for (story, before, facts, expected) in table {
            assert_eq!(found(&unnumbered, before, facts), expected, "{story}");
        }
    }

    /// D4 of the field cases: two nodes and a router on one bridge, each of which advertises itself.
    #[test]
    fn after_a_failure_the_next_who_was_heard_or_who_called_is_tried_and_after_the_last_the_first_again() {
        let unnumbered = PeerAddress::Interface("eth0".into());
        let failed_with = |address: &str| {
            let Fact::Session(name, report) = session(SessionState::Active) else { unreachable!() };
            let address = ScopedAddress { ip: address.parse().unwrap(), interface: Some("eth0".into()) };
            let last_error_at = Some(jiff::Timestamp::UNIX_EPOCH);
            let detail = SessionDetail { address: Some(address), last_error_at, ..SessionDetail::default() };
            Fact::Session(name, SessionReport { detail: Box::new(detail), ..report })
        };
        let there = |session: Option<Fact>| {
            [good_eth0(), routers(&[A, B]), caller("fe80::c")].into_iter().chain(session).collect::<Vec<_>>()
        };
        let table = [
            ("nothing tried yet", None, None, "fe80::a%eth0"),
            ("the first has not failed", Some("fe80::a%eth0"), None, "fe80::a%eth0"),
            ("the first has failed", Some("fe80::a%eth0"), Some(A), "fe80::b%eth0"),
            ("that was told of another before", Some("fe80::b%eth0"), Some(A), "fe80::b%eth0"),
            ("who calls competes", Some("fe80::b%eth0"), Some(B), "fe80::c%eth0"),
            ("after the last", Some("fe80::c%eth0"), Some("fe80::c"), "fe80::a%eth0"),
            ("one that is heard no more", Some("fe80::d%eth0"), Some("fe80::d"), "fe80::a%eth0"),
        ];
        for (story, before, failed, expected) in table {
            assert_eq!(found(&unnumbered, before, there(failed.map(failed_with))), expected, "{story}");
        }
        let alone = vec![good_eth0(), routers(&[A]), failed_with(A)];
        assert_eq!(found(&unnumbered, Some("fe80::a%eth0"), alone), "fe80::a%eth0", "there is no other");
    }

    #[test]
    fn the_gateway_is_the_best_of_ipv4_and_of_ipv6_only_without_it() {
        let established = session(SessionState::Established);
        let best = DefaultRoute { family: Family::V4, ..DefaultRoute::via("fe80::1", ETH0, 0) };
        let by_v6 = Fact::DefaultRoutes(vec![best, DefaultRoute::via("10.0.0.1", ETH0, 200)]);
        let table: Vec<(&str, Option<&str>, Vec<Fact>, &str)> = vec![
            ("none", None, vec![default_routes(&[])], "no-default-route"),
            ("not told yet", None, vec![], "no-default-route"),
            ("one", None, vec![default_routes(&[("10.0.0.1", 0)])], "10.0.0.1"),
            ("two", None, vec![default_routes(&[("10.0.0.2", 50), ("10.0.0.1", 100)])], "10.0.0.2"),
            ("IPv6 with a better metric", None, vec![default_routes(&[("fd00::1", 1), ("10.0.0.1", 100)])], "10.0.0.1"),
            ("IPv6 alone", None, vec![default_routes(&[("fd00::1", 1)])], "fd00::1"),
            ("link-local", None, vec![good_eth0(), default_routes(&[("fe80::1", 1024)])], "fe80::1%eth0"),
            ("on an unknown link", None, vec![default_routes(&[("fe80::1", 1), ("fd00::1", 2)])], "fd00::1"),
            // The best route of IPv4 has a next hop of IPv6.
            ("IPv4 by IPv6", None, vec![good_eth0(), by_v6], "fe80::1%eth0"),
            ("moved", Some("10.0.0.1"), vec![default_routes(&[("10.0.0.2", 0)]), established.clone()], "10.0.0.2"),
            ("away, with a session", Some("10.0.0.1"), vec![default_routes(&[]), established.clone()], "10.0.0.1"),
            (
                "away, with a session, and IPv6 stands",
                Some("10.0.0.1"),
                vec![default_routes(&[("fd00::1", 1)]), established.clone()],
                "10.0.0.1",
            ),
            (
                "IPv6 away, with a session, and IPv4 stands",
                Some("fd00::1"),
                vec![default_routes(&[("10.0.0.1", 1)]), established.clone()],
                "fd00::1",
            ),
            (
                "IPv4 comes beside IPv6",
                Some("fd00::1"),
                vec![default_routes(&[("10.0.0.1", 1), ("fd00::1", 1)]), established],
                "10.0.0.1",
            ),
            ("IPv4 away, without", Some("10.0.0.1"), vec![default_routes(&[("fd00::1", 1)])], "fd00::1"),
            ("away, without", Some("10.0.0.1"), vec![default_routes(&[])], "no-default-route"),
        ];
        for (story, before, facts, expected) in table {
            assert_eq!(found(&PeerAddress::Gateway, before, facts), expected, "{story}");
        }
    }

    fn at(ip: &str) -> ScopedAddress {
        ScopedAddress { ip: ip.parse().unwrap(), interface: None }
    }

    #[test]
    fn of_a_default_route_with_several_next_hops_each_has_a_session_and_keeps_it_when_another_goes() {
        let gateway = peer(PeerAddress::Gateway);
        let mut world = World::default();
        let names = |all: &BTreeMap<PeerName, ScopedAddress>| all.keys().map(ToString::to_string).collect::<Vec<_>>();
        world.apply(default_routes(&[("10.0.0.1", 7), ("10.0.0.2", 7), ("10.0.0.3", 9)]));
        let own = address(&gateway, None, &BTreeMap::new(), &world);
        assert_eq!(own, Ok(at("10.0.0.1")));
        let more = further(&gateway, own.as_ref().ok(), &BTreeMap::new(), &world);
        assert_eq!(names(&more), ["tor@10.0.0.2"], "the third has a higher metric");
        assert_eq!(peer_of(&"tor@10.0.0.2".into()), "tor".into());

        // The first router goes: the session with the second one does not change its name for that.
        world.apply(default_routes(&[("10.0.0.2", 7)]));
        let own = address(&gateway, Some(&at("10.0.0.1")), &more, &world);
        assert_eq!(own, Err(Reason::NoOtherGateway));
        assert_eq!(names(&further(&gateway, None, &more, &world)), ["tor@10.0.0.2"]);
        world.apply(default_routes(&[("10.0.0.2", 7), ("10.0.0.1", 7)]));
        assert_eq!(address(&gateway, None, &more, &world), Ok(at("10.0.0.1")), "and returns to its own");

        // Without a default route what is established holds.
        world.apply(default_routes(&[]));
        assert_eq!(names(&further(&gateway, None, &more, &world)), [""; 0]);
        let Fact::Session(_, report) = session(SessionState::Established) else { unreachable!() };
        world.apply(Fact::Session("tor@10.0.0.2".into(), report));
        assert_eq!(names(&further(&gateway, None, &more, &world)), ["tor@10.0.0.2"]);
        // `crier bgp shutdown tor` shuts all sessions of the peer.
        world.peer_orders.insert(gateway.name.clone(), PeerOrders { shut: true, ..PeerOrders::default() });
        assert_eq!(names(&further(&gateway, None, &more, &world)), [""; 0]);
    }

    /// Input: two top-of-rack routers, and the link to one of them loses its carrier, or is set down.
    /// Output: its session stays in sight, with the reason, under the name that it had, until the default route drops the next hop.
    #[test]
    fn a_next_hop_whose_link_has_no_carrier_stays_a_session_that_says_why() {
        const ETH1: u32 = 3;
        let gateway = peer(PeerAddress::Gateway);
        let hop = |last: u8, link: u32, dead: bool| DefaultRoute {
            dead,
            ..DefaultRoute::via(&format!("10.0.{last}.1"), link, 7)
        };
        let mut known: BTreeMap<PeerName, Result<ScopedAddress, Reason>> = BTreeMap::new();
        let mut now = |dead: [bool; 2], up: bool| {
            let mut world = World::default();
            world.apply(eth0(up, !dead[0], &["10.0.0.11/24"]));
            let eth1 = Link { up, carrier: !dead[1], ..Link::carrying(ETH1, "eth1", &["10.0.1.11/24"]) };
            world.apply(Fact::Link(ETH1, Some(eth1)));
            world.apply(Fact::DefaultRoutes(vec![hop(0, ETH0, dead[0]), hop(1, ETH1, dead[1])]));
            let own = known.get(&gateway.name).and_then(|it| it.clone().ok());
            let others = known.iter().filter(|(name, _)| **name != gateway.name);
            let before = others.filter_map(|(name, it)| Some((name.clone(), it.clone().ok()?))).collect();
            let own = address(&gateway, own.as_ref(), &before, &world);
            let more = further(&gateway, own.as_ref().ok(), &before, &world);
            let (own, nowhere) = with_dead_hops(&gateway, own, &more, |name| known.contains_key(name), &world);
            let more = more.into_iter().map(|(name, it)| (name, Ok(it)));
            let all = more.chain(nowhere.into_iter().map(|(name, why)| (name, Err(why))));
            known = all.chain([(gateway.name.clone(), own)]).collect();
            let text = |it: &Result<ScopedAddress, Reason>| it.as_ref().map_or_else(Reason::code, ToString::to_string);
            known.iter().map(|(name, it)| format!("{name} {}", text(it))).collect::<Vec<_>>()
        };
        let both = ["tor 10.0.0.1", "tor@10.0.1.1 10.0.1.1"];
        assert_eq!(now([false, false], true), both);
        for _ in 0..2 {
            assert_eq!(now([false, true], true), ["tor 10.0.0.1", "tor@10.0.1.1 no-carrier"]);
        }
        assert_eq!(now([false, true], false), ["tor 10.0.0.1", "tor@10.0.1.1 link-down"]);
        assert_eq!(now([false, false], true), both);
        for _ in 0..2 {
            assert_eq!(now([true, false], true), ["tor no-carrier", "tor@10.0.1.1 10.0.1.1"]);
        }
        assert_eq!(now([true, true], true), ["tor no-carrier", "tor@10.0.1.1 no-carrier"]);
        assert_eq!(now([false, false], true), both);
    }

    /// Input: the default route is by FRR's group of two next hops; one link fails for a moment, and the kernel takes its next
    /// hop out of the group. Output: the session goes on if it can, and what is lost is told also when the link is back.
    #[test]
    fn a_next_hop_that_the_kernel_took_out_of_its_object_stays_a_session_that_says_why() {
        let gateway = peer(PeerAddress::Gateway);
        let now = |carrier: bool, state: SessionState| {
            let mut world = World::default();
            world.apply(eth0(true, carrier, &["10.0.0.11/24"]));
            let lost = DefaultRoute { dead: true, dropped: true, ..DefaultRoute::via("10.0.0.2", ETH0, 7) };
            world.apply(Fact::DefaultRoutes(vec![DefaultRoute::via("10.0.0.1", 3, 7), lost]));
            let name = PeerName::from("tor@10.0.0.2");
            world.apply(Fact::Session(name.clone(), SessionReport::new(state, SystemTime::UNIX_EPOCH)));
            let (own, more) = (at("10.0.0.1"), [(name.clone(), at("10.0.0.2"))].into());
            let own = address(&gateway, Some(&own), &more, &world);
            let more = further(&gateway, own.as_ref().ok(), &more, &world);
            let slice = more.get(&name).map(|at| PeerSlice {
                settings: Arc::new(gateway.clone()),
                address: Ok(at.clone()),
                routes: Default::default(),
                orders: PeerOrders::default(),
            });
            // The session stands, and its next hop is told nevertheless.
            let told = slice.and_then(|slice| dropped_next_hop(&slice, &world));
            assert_eq!(told.is_some(), carrier && state == SessionState::Established, "{told:?}");
            let (own, mut nowhere) = with_dead_hops(&gateway, own, &more, |_| true, &world);
            assert_eq!(own, Ok(at("10.0.0.1")));
            more.get(&name).map_or_else(|| nowhere.remove(&name).expect("it is in sight").code(), ToString::to_string)
        };
        assert_eq!(now(false, SessionState::Established), "10.0.0.2");
        assert_eq!(now(true, SessionState::Established), "10.0.0.2");
        assert_eq!(now(false, SessionState::Active), "no-carrier");
        assert_eq!(now(true, SessionState::Active), "next-hop-dropped");
    }

    /// Input: the link to one of two routers has no carrier for 0.3 s, and the router, behind a switch, sees nothing of it.
    /// Output: the session goes on, under its name; once it has ended, it is nowhere, and says why.
    #[test]
    fn a_link_that_loses_its_carrier_does_not_end_the_session_with_its_next_hop() {
        const ETH1: u32 = 3;
        let gateway = peer(PeerAddress::Gateway);
        let hop = |last: u8, link: u32, dead: bool| DefaultRoute {
            dead,
            ..DefaultRoute::via(&format!("10.0.{last}.1"), link, 7)
        };
        let (own, more) = (at("10.0.0.1"), [("tor@10.0.1.1".into(), at("10.0.1.1"))].into());
        let now = |dead: [bool; 2], established: [bool; 2]| {
            let mut world = World::default();
            world.apply(eth0(true, !dead[0], &["10.0.0.11/24"]));
            let eth1 = Link { carrier: !dead[1], ..Link::carrying(ETH1, "eth1", &["10.0.1.11/24"]) };
            world.apply(Fact::Link(ETH1, Some(eth1)));
            world.apply(Fact::DefaultRoutes(vec![hop(0, ETH0, dead[0]), hop(1, ETH1, dead[1])]));
            for (name, established) in ["tor", "tor@10.0.1.1"].into_iter().zip(established) {
                let state = if established { SessionState::Established } else { SessionState::Active };
                world.apply(Fact::Session(name.into(), SessionReport::new(state, SystemTime::UNIX_EPOCH)));
            }
            let own = address(&gateway, Some(&own), &more, &world);
            let now_more = further(&gateway, own.as_ref().ok(), &more, &world);
            let (own, nowhere) =
                with_dead_hops(&gateway, own, &now_more, |name| name.as_str() != "tor@10.0.0.1", &world);
            let own = own.as_ref().map_or_else(Reason::code, ToString::to_string);
            let nowhere = nowhere.iter().map(|(name, why)| format!("{name} {}", why.code()));
            let more = now_more.keys().map(ToString::to_string).chain(nowhere);
            std::iter::once(own).chain(more).collect::<Vec<_>>()
        };
        let both = ["10.0.0.1", "tor@10.0.1.1"];
        for dead in [[false, true], [true, false], [true, true]] {
            assert_eq!(now(dead, [true, true]), both, "{dead:?}");
        }
        assert_eq!(now([false, true], [true, false]), ["10.0.0.1", "tor@10.0.1.1 no-carrier"]);
        assert_eq!(now([true, false], [false, true]), ["no-carrier", "tor@10.0.1.1"]);
    }

    /// Input: one file for all racks names the router by its address and as the gateway, and graceful restart is agreed on.
    /// Output: one session; the two took turns in ending each other.
    #[test]
    fn of_peers_that_turn_out_to_be_one_router_one_has_the_session() {
        let session = |name: &str, of: PeerAddress, found: &str, more: fn(&mut config::Peer)| {
            let mut settings = config::Peer { name: name.into(), ..peer(of) };
            more(&mut settings);
            let (settings, address) = (Arc::new(settings), Ok(at(found)));
            let orders = Default::default();
            (PeerName::from(name), PeerSlice { settings, address, routes: Default::default(), orders })
        };
        let fixed = || PeerAddress::Fixed(at("10.0.0.1"));
        let sessions = vec![
            session("by-gateway", PeerAddress::Gateway, "10.0.0.1", |_| {}),
            session("elsewhere", PeerAddress::Gateway, "10.0.0.2", |_| {}),
            session("again", PeerAddress::Gateway, "10.0.0.2", |_| {}),
            session("tor", fixed(), "10.0.0.1", |_| {}),
            session("other-source", fixed(), "10.0.0.1", |it| it.source_address = Some("10.0.0.9".parse().unwrap())),
            session("in-red", PeerAddress::Gateway, "10.0.0.1", |it| it.vrf = Some("red".into())),
        ];
        let same = |peer: &str| Reason::SameRouter { peer: peer.into() };
        let always = [("by-gateway", same("tor")), ("again", same("elsewhere"))];
        // The other one's source is the only address that this node has there, so it is that of each.
        let own = LocalAddress {
            interface: "eth0".into(),
            vrf: None,
            net: "10.0.0.9/24".parse().unwrap(),
            stay: Stay::Unknown,
        };
        let mut with_source = always.to_vec();
        with_source.insert(2, ("other-source", same("tor")));
        for (local, expected) in [(&[][..], always.to_vec()), (&[own], with_source)] {
            let mut sessions = sessions.clone();
            keep_one_each(&mut sessions, &OrdMap::new(), local, &World::default());
            let refused = sessions.iter().filter_map(|(name, it)| Some((name.as_str(), it.address.clone().err()?)));
            assert_eq!(refused.collect::<Vec<_>>(), expected);
        }
    }

    /// Input: MetalLB's peer with two node selectors, as `crier migrate` writes it, and a node that matches
    /// both; sessions that stand, end and fail. Output: one session, that which stands or stood last; where several attempts have failed,
    /// the other one has its turn.
    #[test]
    fn of_peers_of_one_address_whose_selectors_both_match_one_has_the_router_until_it_fails() {
        let session = |name: &str, port: u16| {
            let fixed = PeerAddress::Fixed(at("10.0.0.1"));
            let settings = config::Peer { name: name.into(), port, ..peer(fixed) };
            let (settings, address) = (Arc::new(settings), Ok(at("10.0.0.1")));
            let orders = Default::default();
            (PeerName::from(name), PeerSlice { settings, address, routes: Default::default(), orders })
        };
        let mut world = World::default();
        let report = |world: &mut World, name: &str, state: SessionState, fails: bool| {
            let last_error_at = fails.then_some(jiff::Timestamp::UNIX_EPOCH);
            let detail =
                SessionDetail { address: Some(at("10.0.0.1")), last_error_at, fails, ..SessionDetail::default() };
            let report = SessionReport::new(state, SystemTime::UNIX_EPOCH);
            world.apply(Fact::Session(name.into(), SessionReport { detail: Box::new(detail), ..report }));
        };
        let mut before = OrdMap::new();
        let mut has_it = |world: &World| {
            let mut sessions = vec![session("tor", 179), session("tor-2", 179), session("other-port", 1790)];
            keep_one_each(&mut sessions, &before, &[], world);
            before = sessions.iter().cloned().collect();
            let refused = |(_, it): &(PeerName, PeerSlice)| it.address.clone().err();
            match &sessions.iter().map(refused).collect::<Vec<_>>()[..] {
                [None, Some(Reason::SameRouter { peer }), None] if peer.as_str() == "tor" => "tor",
                [Some(Reason::SameRouter { peer }), None, None] if peer.as_str() == "tor-2" => "tor-2",
                other => panic!("{other:?}"),
            }
        };
        use SessionState::{Active, Established, Idle};
        assert_eq!(has_it(&world), "tor", "the first in the file");
        report(&mut world, "tor-2", Established, false);
        assert_eq!(has_it(&world), "tor-2", "it stands, as after a restart");
        report(&mut world, "tor-2", Idle, false);
        assert_eq!(has_it(&world), "tor-2", "it stood last");
        report(&mut world, "tor-2", Active, true);
        assert_eq!(has_it(&world), "tor", "its turn");
        report(&mut world, "tor-2", Idle, false);
        assert_eq!(has_it(&world), "tor");
        report(&mut world, "tor", Active, true);
        assert_eq!(has_it(&world), "tor-2", "round about");
        report(&mut world, "tor", Idle, false);
        report(&mut world, "tor-2", Established, true);
        assert_eq!(has_it(&world), "tor-2", "what stands does not give way");
    }

    /// A default route that is renewed is away for a moment, and the other family's stands.
    #[test]
    fn while_the_default_route_of_a_family_is_away_its_proven_gateways_are_the_only_ones_also_in_a_vrf() {
        const RED: u32 = 9;
        let route = |gateway: &str| DefaultRoute { vrf: Some(RED), ..DefaultRoute::via(gateway, ETH0, 7) };
        let tor = config::Peer { vrf: Some("red".into()), ..peer(PeerAddress::Gateway) };
        let mut world = World::default();
        world.apply(Fact::Link(RED, Some(Link { up: true, ..Link::carrying(RED, "red", &[]) })));
        let now = |own: Option<&ScopedAddress>, more: &BTreeMap<PeerName, ScopedAddress>, world: &World| {
            let own = address(&tor, own, more, world);
            let more = further(&tor, own.as_ref().ok(), more, world);
            (own, more)
        };
        let told = |(own, more): &(Result<ScopedAddress, Reason>, BTreeMap<PeerName, ScopedAddress>)| {
            let own = own.as_ref().map_or_else(Reason::code, ToString::to_string);
            std::iter::once(own).chain(more.keys().map(ToString::to_string)).collect::<Vec<_>>()
        };
        let establish = |name: &str, state: SessionState| {
            Fact::Session(name.into(), SessionReport::new(state, SystemTime::UNIX_EPOCH))
        };
        let both = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"].map(route);
        world.apply(Fact::DefaultRoutes(both.to_vec()));
        let at_first = now(None, &BTreeMap::new(), &world);
        assert_eq!(told(&at_first), ["10.0.0.1", "tor@10.0.0.2"]);
        world.apply(establish("tor", SessionState::Established));
        world.apply(establish("tor@10.0.0.2", SessionState::Established));

        world.apply(Fact::DefaultRoutes(both[2..].to_vec()));
        let away = now(at_first.0.as_ref().ok(), &at_first.1, &world);
        assert_eq!(told(&away), ["10.0.0.1", "tor@10.0.0.2"], "no session of IPv6 beside those of IPv4");

        // One of the two ends meanwhile. The other one still proves which family it is.
        world.apply(establish("tor", SessionState::Active));
        let one = now(away.0.as_ref().ok(), &away.1, &world);
        assert_eq!(told(&one), ["no-other-gateway", "tor@10.0.0.2"]);
        world.apply(Fact::DefaultRoutes(both.to_vec()));
        let back = now(one.0.as_ref().ok(), &one.1, &world);
        assert_eq!(told(&back), ["10.0.0.1", "tor@10.0.0.2"]);

        // Nothing is proven any more: the family that has a default route.
        world.apply(Fact::DefaultRoutes(both[2..].to_vec()));
        world.apply(establish("tor@10.0.0.2", SessionState::Idle));
        assert_eq!(told(&now(back.0.as_ref().ok(), &back.1, &world)), ["fd00::1", "tor@fd00::2"]);
    }

    #[test]
    fn a_peer_that_is_shut_down_is_nowhere() {
        let shut = config::Peer { shutdown: true, ..peer(PeerAddress::Gateway) };
        let mut world = World::default();
        world.apply(default_routes(&[("10.0.0.1", 7), ("10.0.0.2", 7)]));
        assert_eq!(address(&shut, None, &BTreeMap::new(), &world), Err(Reason::PeerShutDown));
        assert_eq!(further(&shut, None, &BTreeMap::new(), &world), BTreeMap::new());
    }

    #[test]
    fn routers_are_looked_for_on_the_links_of_unnumbered_peers_that_can_carry_a_session() {
        let peers: Vec<_> =
            [PeerAddress::Interface("eth0".into()), PeerAddress::Interface("eth7".into()), PeerAddress::Gateway]
                .map(|address| Arc::new(peer(address)))
                .into();
        let mut world = World::default();
        assert_eq!(unnumbered_links(&peers, &world), BTreeMap::new());
        world.apply(good_eth0());
        assert_eq!(unnumbered_links(&peers, &world), [(ETH0, "eth0".into())].into());
        assert_eq!(unnumbered_links(&peers[1..], &world), BTreeMap::new(), "nobody asked for eth0");
        world.apply(eth0(true, false, &["fe80::11/64"]));
        assert_eq!(unnumbered_links(&peers, &world), BTreeMap::new());
    }
}
