//! By which network of this node packets leave that are to leave by the network of a Service's address, and with which address.
//! Floor 1. The networks with their numbers in the marks are those of `plan::returns`; where packets go is in `egress_table`.
//!
//! The network is the VRF of the address's pool, else the link with a subnet that holds the address. A node that has no such network
//! has no way out: its default route leads elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Family;
use crate::names::{InterfaceName, NodeName};
use crate::plan::slice::{Exit, ReturnNetwork, ReturnTable};
use crate::reason::Reason;
use crate::world::{Link, World};

/// This node, with its networks beside that of the default route: what an exit depends on besides the address.
#[derive(Debug, Clone, Copy)]
pub struct OwnNetworks<'a> {
    pub world: &'a World,
    pub me: &'a NodeName,
    pub networks: &'a [ReturnNetwork],
    /// Links that were such networks, and are none now.
    pub away: &'a [Away],
}

/// A link that was a network of its own in this family: it is down, or has no default route any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    pub link: InterfaceName,
    pub family: Family,
    pub subnets: Vec<IpNet>,
}

/// How packets leave by the network of the address, of the address's family. `before`: how they left until now.
///
/// # Errors
/// Why this node cannot send them so.
pub fn exit(
    OwnNetworks { world, me, networks, away: _ }: OwnNetworks<'_>,
    address: IpAddr,
    vrf: Option<&InterfaceName>,
    before: Option<Exit>,
) -> Result<Exit, Reason> {
    let (network, link) = match vrf {
        Some(vrf) => {
            let network = of_vrf(networks, vrf)?;
            (Some(network), link_of_vrf(world, network, address)?)
        }
        None => {
            let link = link_with(world, address)?;
            let network = of_link(networks, link);
            if let (None, Some(device)) = (network, link.vrf) {
                let vrf = world.links.get(&device).map_or_else(|| link.name.clone(), |it| it.name.clone());
                return Err(Reason::NoEgressVrf { vrf });
            }
            (network, link)
        }
    };
    let before = before.filter(|before| before.link == link.index).map(|before| before.source);
    let node = world.nodes.get(me);
    let is_preferred = |own: &IpAddr| {
        let of_node = node.is_some_and(|node| node.addresses.contains(own));
        // Nothing is known of before: an earlier life of the agent may have used one.
        (of_node, before.map_or_else(|| world.egress_sources.contains(own), |before| before == *own))
    };
    let source = source(world, link, address, is_preferred)
        .ok_or_else(|| Reason::NoEgressSource { link: link.name.clone(), family: Family::of(address) })?;
    Ok(Exit { slot: network.map(|network| network.slot), link: link.index, source })
}

/// The number in the marks of the network that the address is in, by which packets leave that have it as their source. `None`: they
/// leave by the main table, which knows the way out of every other subnet, and where no subnet has the address.
///
/// # Errors
/// This node has not the VRF of the address's pool, or the network of the address is away: by the main table packets would get into another
/// network.
pub fn network(own: OwnNetworks<'_>, address: IpAddr, vrf: Option<&InterfaceName>) -> Result<Option<u8>, Reason> {
    let OwnNetworks { world, me: _, networks, away } = own;
    if let Some(vrf) = vrf {
        return Ok(Some(of_vrf(networks, vrf)?.slot));
    }
    let family = Family::of(address);
    let has = |subnets: &[IpNet]| subnets.iter().any(|net| net.contains(&address));
    let away_link = match link_with(world, address) {
        Ok(link) => {
            let leads = |network: &&ReturnNetwork| match &network.table {
                ReturnTable::Vrf(_) => true,
                ReturnTable::Own { gateways, subnets: _ } => gateways.contains_key(&family),
            };
            if let Some(network) = of_link(networks, link).filter(leads) {
                return Ok(Some(network.slot));
            }
            away.iter().any(|it| it.link == link.name && it.family == family).then_some(&link.name)
        }
        Err(Reason::NoEgressNetwork { .. }) => {
            // A link that is down and never was a network beside the way out says nothing: others may lead there as well.
            let was = away.iter().find(|it| it.family == family && has(&it.subnets)).map(|it| &it.link);
            let is_network = |link: &&Link| link.vrf.is_none() && of_link(networks, link).is_some();
            let mut without_carrier = world.links.values().filter(is_network);
            let has_it = |link: &&Link| link.in_subnets().any(|net| net.contains(&address));
            was.or_else(|| without_carrier.find(has_it).map(|link| &link.name))
        }
        // One of several in the same subnet, or none.
        Err(_) => None,
    };
    match away_link {
        Some(link) => Err(Reason::EgressNetworkAway { address, link: link.clone(), family }),
        None => Ok(None),
    }
}

fn of_vrf<'a>(networks: &'a [ReturnNetwork], vrf: &InterfaceName) -> Result<&'a ReturnNetwork, Reason> {
    let is_it = |it: &&ReturnNetwork| it.name == *vrf && matches!(it.table, ReturnTable::Vrf(_));
    networks.iter().find(is_it).ok_or_else(|| Reason::NoEgressVrf { vrf: vrf.clone() })
}

fn of_link<'a>(networks: &'a [ReturnNetwork], link: &Link) -> Option<&'a ReturnNetwork> {
    networks.iter().find(|it| it.links.contains_key(&link.index) && !it.former)
}

/// The link in whose subnet the address is.
fn link_with(world: &World, address: IpAddr) -> Result<&Link, Reason> {
    let holds = |link: &&Link| is_usable(link) && link.in_subnets().any(|net| net.contains(&address));
    let links: Vec<&Link> = world.links.values().filter(holds).collect();
    match links.as_slice() {
        [] => Err(Reason::NoEgressNetwork { address }),
        [link] => Ok(link),
        several => {
            let networks = several.iter().map(|link| link.name.clone()).collect();
            Err(Reason::SeveralEgressNetworks { address, networks })
        }
    }
}

/// The link that the default route of the VRF leads to, else its only one, else the one in whose subnet the address is.
fn link_of_vrf<'a>(world: &'a World, network: &ReturnNetwork, address: IpAddr) -> Result<&'a Link, Reason> {
    let family = Family::of(address);
    let mut ports = network.links.keys().filter_map(|index| world.links.get(index));
    // The best stand first.
    let mut routes = world.default_routes.iter().filter(|it| it.vrf.is_some() && it.family == family);
    let by_route = routes.find(|it| network.links.contains_key(&it.link)).and_then(|it| world.links.get(&it.link));
    let only = || network.links.keys().next().filter(|_| network.links.len() == 1).and_then(|it| world.links.get(it));
    let found =
        by_route.or_else(only).or_else(|| ports.find(|link| link.in_subnets().any(|net| net.contains(&address))));
    found.ok_or_else(|| Reason::NoEgressLink { vrf: network.name.clone(), family })
}

/// The node's address on the link: in the subnet of the Service's address, else in that of a gateway, else any. Of several there, one
/// that the Node shows, else the one that was used before: with another source every connection would end.
fn source(
    world: &World,
    link: &Link,
    address: IpAddr,
    is_preferred: impl Fn(&IpAddr) -> (bool, bool),
) -> Option<IpAddr> {
    let of_family = |net: &&IpNet| Family::of(net.addr()) == Family::of(address);
    let (fresh, old): (Vec<&IpNet>, Vec<&IpNet>) =
        link.in_subnets().filter(of_family).partition(|net| !link.deprecated.contains(&net.addr()));
    let own = if fresh.is_empty() { old } else { fresh };
    let gateways = || world.default_routes.iter().filter(|it| it.link == link.index).filter_map(|it| it.gateway);
    let rank = |net: &&&IpNet| {
        (net.contains(&address), gateways().any(|gateway| net.contains(&gateway)), is_preferred(&net.addr()))
    };
    // Of equal ones the first in the order of the link.
    own.iter().rev().max_by_key(rank).map(|net| net.addr())
}

fn is_usable(link: &Link) -> bool {
    link.up && link.carrier && !link.loopback
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::world::{DefaultRoute, Fact, Node};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn link(index: u32, name: &str, vrf: Option<u32>, nets: &[&str]) -> Link {
        Link { vrf, ..Link::carrying(index, name, nets) }
    }

    /// eth0, eth1, and red with eth2 in it, which has the same subnet as eth1's second one.
    fn world() -> World {
        let mut world = World::default();
        for link in [
            link(2, "eth0", None, &["192.168.35.11/24", "fd35::11/64", "192.168.35.100/32"]),
            link(3, "eth1", None, &["198.51.100.7/24", "192.0.2.10/24", "fe80::1/64"]),
            link(4, "eth2", Some(9), &["10.9.0.10/24", "203.0.113.10/24"]),
            link(9, "red", None, &[]),
        ] {
            world.apply(Fact::Link(link.index, Some(link)));
        }
        let route = |gateway, link, vrf| DefaultRoute { vrf, ..DefaultRoute::via(gateway, link, 0) };
        world.apply(Fact::DefaultRoutes(vec![route("192.168.35.1", 2, None), route("203.0.113.1", 4, Some(9))]));
        world
    }

    fn networks() -> [ReturnNetwork; 2] {
        let network = |name: &str, slot, links: &[(u32, &str)], table| ReturnNetwork {
            name: name.into(),
            slot,
            links: links.iter().map(|(index, name)| (*index, (*name).into())).collect::<BTreeMap<_, _>>(),
            table,
            former: false,
        };
        let own = ReturnTable::Own { gateways: BTreeMap::new(), subnets: Vec::new() };
        [network("eth1", 15, &[(3, "eth1")], own), network("red", 14, &[(4, "eth2")], ReturnTable::Vrf(1001))]
    }

    fn on<'a>(world: &'a World, networks: &'a [ReturnNetwork]) -> OwnNetworks<'a> {
        OwnNetworks { world, me: &ME, networks, away: &[] }
    }

    static ME: std::sync::LazyLock<NodeName> = std::sync::LazyLock::new(|| "q1".into());

    #[test]
    fn the_source_is_the_nodes_address_else_the_one_that_was_used_and_no_other_address_that_comes() {
        let nets = |nets: &[&str]| Fact::Link(2, Some(link(2, "eth0", None, nets)));
        let mut world = World::default();
        let source = |world: &World, address: &str, before: Option<&str>| {
            let before = before.map(|it| Exit { slot: None, link: 2, source: ip(it) });
            exit(on(world, &[]), ip(address), None, before).map(|exit| exit.source.to_string())
        };
        // Input: a VIP of keepalived with /64, numerically lower than the Node's address.
        world.apply(nets(&["fd31::4/64", "fd31::11/64"]));
        assert_eq!(source(&world, "fd31::100", None), Ok("fd31::4".to_owned()), "the Node is not known");
        assert_eq!(source(&world, "fd31::100", Some("fd31::11")), Ok("fd31::11".to_owned()), "it was used so far");
        assert_eq!(source(&world, "fd31::100", Some("fd31::12")), Ok("fd31::4".to_owned()), "that one is gone");
        world.apply(Fact::EgressSources([ip("fd31::11")].into()));
        assert_eq!(source(&world, "fd31::100", None), Ok("fd31::11".to_owned()), "the previous agent used it");
        assert_eq!(source(&world, "fd31::100", Some("fd31::4")), Ok("fd31::4".to_owned()), "this one has another");
        world.apply(Fact::EgressSources(Default::default()));
        let addresses = vec![ip("fd31::11")];
        world.apply(Fact::Node(ME.clone(), Some(std::sync::Arc::new(Node { addresses, ..Node::default() }))));
        for before in [None, Some("fd31::4"), Some("fd31::11")] {
            assert_eq!(source(&world, "fd31::100", before), Ok("fd31::11".to_owned()), "{before:?}");
        }
        // The network of the Service's address goes first.
        world.apply(nets(&["fd31::11/64", "fd32::5/64"]));
        assert_eq!(source(&world, "fd32::100", Some("fd31::11")), Ok("fd32::5".to_owned()));
        let deprecated = [ip("fd31::11")].into();
        world.apply(Fact::Link(2, Some(Link { deprecated, ..link(2, "eth0", None, &["fd31::4/64", "fd31::11/64"]) })));
        assert_eq!(source(&world, "fd31::100", Some("fd31::11")), Ok("fd31::4".to_owned()), "it is about to go");
    }

    #[test]
    fn packets_leave_by_the_vrf_of_the_pool_else_by_the_link_whose_subnet_has_the_address() {
        // The address, the VRF of its pool; by which network, link and source.
        let table = [
            ("192.168.35.100", None, Some((None, 2, "192.168.35.11"))),
            ("fd35::100", None, Some((None, 2, "fd35::11"))),
            ("192.0.2.100", None, Some((Some(15), 3, "192.0.2.10"))),
            ("10.9.0.100", None, Some((Some(14), 4, "10.9.0.10"))),
            // No subnet has it: the source is in that of the gateway.
            ("172.16.0.1", Some("red"), Some((Some(14), 4, "203.0.113.10"))),
            ("192.168.35.100", Some("red"), Some((Some(14), 4, "203.0.113.10"))),
            ("fd09::1", Some("red"), None),
            ("172.16.0.1", None, None),
            ("10.9.0.100", Some("blue"), None),
        ];
        for (address, vrf, expected) in table {
            let vrf = vrf.map(InterfaceName::from);
            let found = exit(on(&world(), &networks()), ip(address), vrf.as_ref(), None);
            let expected = expected.map(|(slot, link, source)| Exit { slot, link, source: ip(source) });
            assert_eq!(found.clone().ok(), expected, "{address} {vrf:?}: {found:?}");
        }
    }

    #[test]
    fn a_node_without_the_network_has_no_way_out_and_says_why() {
        let why = |world: &World, networks: &[ReturnNetwork], address, vrf: Option<&str>| {
            let vrf = vrf.map(InterfaceName::from);
            exit(on(world, networks), ip(address), vrf.as_ref(), None).expect_err("no way out").code()
        };
        let mut world = world();
        assert_eq!(why(&world, &networks(), "172.16.0.1", None), "no-egress-network");
        assert_eq!(why(&world, &networks(), "172.16.0.1", Some("blue")), "no-egress-vrf");
        assert_eq!(why(&world, &networks()[..1], "10.9.0.100", None), "no-egress-vrf", "no mark is left for red");
        assert_eq!(why(&world, &networks(), "fd09::1", Some("red")), "no-egress-source");
        world.apply(Fact::Link(7, Some(link(7, "eth5", None, &["192.0.2.77/24"]))));
        assert_eq!(why(&world, &networks(), "192.0.2.100", None), "several-egress-networks");
        world.apply(Fact::Link(3, Some(Link { up: false, ..link(3, "eth1", None, &["192.0.2.10/24"]) })));
        world.apply(Fact::Link(7, None));
        assert_eq!(why(&world, &networks(), "192.0.2.100", None), "no-egress-network", "the link is down");
    }

    /// Egress over BGP was held back by a link that is down and was never a network, and by one of two uplinks.
    #[test]
    fn only_a_link_that_was_a_network_beside_the_way_out_holds_packets_back_while_it_is_away() {
        let address = ip("203.0.113.7");
        let mut world = world();
        world.apply(Fact::Link(4, None));
        let of = |world: &World, away: &[Away]| {
            network(OwnNetworks { away, ..on(world, &networks()) }, address, None).map_err(|reason| reason.code())
        };
        let down = Link { up: false, carrier: false, ..link(5, "old0", None, &["203.0.113.250/24"]) };
        world.apply(Fact::Link(5, Some(down)));
        assert_eq!(of(&world, &[]), Ok(None), "a NIC out of use");
        let away = |family| Away { link: "old0".into(), family, subnets: vec!["203.0.113.0/24".parse().unwrap()] };
        assert_eq!(of(&world, &[away(Family::V4)]), Err("egress-network-away".to_owned()), "it was one");
        assert_eq!(of(&world, &[away(Family::V6)]), Ok(None), "of the other family alone");
        // Input: eth1, which is a network still, has lost its carrier.
        let without_carrier = Link { carrier: false, ..link(3, "eth1", None, &["203.0.113.10/24"]) };
        world.apply(Fact::Link(3, Some(without_carrier)));
        assert_eq!(of(&world, &[]), Err("egress-network-away".to_owned()));
    }
}
