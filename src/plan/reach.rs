//! Where each BGP peer is to be found: the address that the configuration gives, the router heard on a link, or the
//! default gateway. Floor 1. Why a peer is nowhere is named here too; how to get there is the speaker's business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::ScopedAddress;
use crate::config::{self, PeerAddress};
use crate::names::InterfaceName;
use crate::reason::Reason;
use crate::world::{Link, SessionState, World};

/// Where the peer is now. `before` is where it was a moment ago, if anywhere.
///
/// An established session is proof that its peer is there, and better proof than any advertisement, which everybody on a
/// link can send. So it holds a peer on a link at its address as long as the link is up, and a peer at the gateway
/// while there is no default route. It does not hold a gateway against a default route that leads elsewhere.
pub(super) fn address(
    settings: &config::Peer,
    before: Option<&ScopedAddress>,
    world: &World,
) -> Result<ScopedAddress, Reason> {
    let session = world.sessions.get(&settings.name);
    let proven = before.filter(|_| session.is_some_and(|session| session.state == SessionState::Established));
    match &settings.address {
        PeerAddress::Fixed(address) => Ok(address.clone()),
        PeerAddress::Interface(interface) => on_link(interface, proven, world),
        PeerAddress::Gateway => gateway(world).or_else(|reason| proven.cloned().ok_or(reason)),
    }
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

fn on_link(interface: &InterfaceName, proven: Option<&ScopedAddress>, world: &World) -> Result<ScopedAddress, Reason> {
    let link = usable_link(interface, world)?;
    if let Some(proven) = proven.filter(|proven| proven.interface.as_ref() == Some(interface)) {
        return Ok(proven.clone());
    }
    // Of several routers the one that was heard first is taken, until it falls silent.
    let heard = world.routers.get(&link.index).and_then(|routers| routers.first());
    match heard.or_else(|| world.callers.get(&link.index)) {
        Some(router) => Ok(ScopedAddress { ip: IpAddr::V6(*router), interface: Some(interface.clone()) }),
        None => Err(Reason::NoRouterHeard { interface: interface.clone() }),
    }
}

fn usable_link<'w>(interface: &InterfaceName, world: &'w World) -> Result<&'w Link, Reason> {
    let interface = interface.clone();
    let Some(link) = world.links.values().find(|link| link.name == interface) else {
        return Err(Reason::NoSuchInterface { interface });
    };
    if !link.up || !link.carrier {
        return Err(Reason::LinkDown { interface });
    }
    if !link.addresses.iter().any(|net| is_link_local(net.addr())) {
        return Err(Reason::NoLinkLocalAddress { interface });
    }
    Ok(link)
}

/// The gateway of the preferred default route, of IPv4 if that has one.
///
/// Of a default route with several next hops only the first is a peer; a session to each of them takes
/// as many `[[bgp.peer]]` with their addresses.
fn gateway(world: &World) -> Result<ScopedAddress, Reason> {
    let of_family = |v4: bool| {
        let routes = world.default_routes.iter().filter(move |route| route.gateway.is_ipv4() == v4);
        routes.filter_map(|route| scoped(route.gateway, route.link, world)).next()
    };
    of_family(true).or_else(|| of_family(false)).ok_or(Reason::NoDefaultRoute)
}

/// `None` where the link of a link-local gateway is not known (yet).
fn scoped(ip: IpAddr, link: u32, world: &World) -> Option<ScopedAddress> {
    let interface = match is_link_local(ip) {
        true => Some(world.links.get(&link)?.name.clone()),
        false => None,
    };
    Some(ScopedAddress { ip, interface })
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::time::SystemTime;

    use super::*;
    use crate::config::PeerAsn;
    use crate::world::{DefaultRoute, Fact, SessionReport};

    const ETH0: u32 = 2;
    const A: &str = "fe80::a";
    const B: &str = "fe80::b";

    fn peer(address: PeerAddress) -> config::Peer {
        let defaults = config::tests::one_of_each().bgp.peers.remove(0);
        config::Peer { name: "tor".into(), address, asn: PeerAsn::External, ..defaults }
    }

    fn eth0(up: bool, carrier: bool, addresses: &[&str]) -> Fact {
        let addresses = addresses.iter().map(|net| net.parse().unwrap()).collect();
        let link = Link {
            index: ETH0,
            name: "eth0".into(),
            mac: None,
            up,
            carrier,
            loopback: false,
            arp: true,
            master: None,
            vrf: None,
            addresses,
        };
        Fact::Link(ETH0, Some(link))
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
        let report = SessionReport {
            state,
            since: SystemTime::UNIX_EPOCH,
            last_error: None,
            local_address: None,
            hold_time_secs: None,
            prefixes_sent: 0,
            prefixes_unsendable: 0,
            prefixes_received: 0,
            detail: Default::default(),
        };
        Fact::Session("tor".into(), report)
    }

    /// Each in the words `gateway metric`, all of them over eth0.
    fn default_routes(routes: &[(&str, u32)]) -> Fact {
        let route = |(gateway, metric): &(&str, u32)| DefaultRoute {
            gateway: gateway.parse().unwrap(),
            link: ETH0,
            metric: *metric,
        };
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
        match super::address(&peer(address.clone()), before.as_ref(), &world) {
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
            ("no carrier", held, vec![eth0(true, false, &["fe80::11/64"]), routers(&[A])], "link-down"),
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
            ("a session on a dead link", held, vec![eth0(true, false, &["fe80::11/64"]), established], "link-down"),
        ];
        for (story, before, facts, expected) in table {
            assert_eq!(found(&unnumbered, before, facts), expected, "{story}");
        }
    }

    #[test]
    fn the_gateway_is_the_best_of_ipv4_and_of_ipv6_only_without_it() {
        let established = session(SessionState::Established);
        let table: Vec<(&str, Option<&str>, Vec<Fact>, &str)> = vec![
            ("none", None, vec![default_routes(&[])], "no-default-route"),
            ("not told yet", None, vec![], "no-default-route"),
            ("one", None, vec![default_routes(&[("10.0.0.1", 0)])], "10.0.0.1"),
            ("two", None, vec![default_routes(&[("10.0.0.2", 50), ("10.0.0.1", 100)])], "10.0.0.2"),
            ("IPv6 with a better metric", None, vec![default_routes(&[("fd00::1", 1), ("10.0.0.1", 100)])], "10.0.0.1"),
            ("IPv6 alone", None, vec![default_routes(&[("fd00::1", 1)])], "fd00::1"),
            ("link-local", None, vec![good_eth0(), default_routes(&[("fe80::1", 1024)])], "fe80::1%eth0"),
            ("on an unknown link", None, vec![default_routes(&[("fe80::1", 1), ("fd00::1", 2)])], "fd00::1"),
            ("moved", Some("10.0.0.1"), vec![default_routes(&[("10.0.0.2", 0)]), established.clone()], "10.0.0.2"),
            ("away, with a session", Some("10.0.0.1"), vec![default_routes(&[]), established], "10.0.0.1"),
            ("away, without", Some("10.0.0.1"), vec![default_routes(&[])], "no-default-route"),
        ];
        for (story, before, facts, expected) in table {
            assert_eq!(found(&PeerAddress::Gateway, before, facts), expected, "{story}");
        }
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
