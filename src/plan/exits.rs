//! By which network of this node packets leave that are to leave by the network of a Service's address, and with which address.
//! Floor 1. The networks with their numbers in the marks are those of `plan::returns`; where packets go is in `egress_table`.
//!
//! The network is the VRF of the address's pool, else the link with a subnet that holds the address. A node that has no such network
//! has no way out: its default route leads elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::Family;
use crate::names::InterfaceName;
use crate::plan::slice::{Exit, ReturnNetwork, ReturnTable};
use crate::reason::Reason;
use crate::world::{Link, World};

/// How packets leave by the network of the address, of the address's family.
///
/// # Errors
/// Why this node cannot send them so.
pub fn exit(
    world: &World,
    networks: &[ReturnNetwork],
    address: IpAddr,
    vrf: Option<&InterfaceName>,
) -> Result<Exit, Reason> {
    let (network, link) = match vrf {
        Some(vrf) => {
            let is_it = |it: &&ReturnNetwork| it.name == *vrf && matches!(it.table, ReturnTable::Vrf(_));
            let network = networks.iter().find(is_it).ok_or_else(|| Reason::NoEgressVrf { vrf: vrf.clone() })?;
            (Some(network), link_of_vrf(world, network, address)?)
        }
        None => {
            let link = link_with(world, address)?;
            let network = networks.iter().find(|it| it.links.contains_key(&link.index));
            if let (None, Some(device)) = (network, link.vrf) {
                let vrf = world.links.get(&device).map_or_else(|| link.name.clone(), |it| it.name.clone());
                return Err(Reason::NoEgressVrf { vrf });
            }
            (network, link)
        }
    };
    let source = source(world, link, address)
        .ok_or_else(|| Reason::NoEgressSource { link: link.name.clone(), family: Family::of(address) })?;
    Ok(Exit { slot: network.map(|network| network.slot), link: link.index, source })
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
    let mut routes = world.default_routes.iter().filter(|it| it.vrf.is_some() && Family::of(it.gateway) == family);
    let by_route = routes.find(|it| network.links.contains_key(&it.link)).and_then(|it| world.links.get(&it.link));
    let only = || network.links.keys().next().filter(|_| network.links.len() == 1).and_then(|it| world.links.get(it));
    let found =
        by_route.or_else(only).or_else(|| ports.find(|link| link.in_subnets().any(|net| net.contains(&address))));
    found.ok_or_else(|| Reason::NoEgressLink { vrf: network.name.clone(), family })
}

/// The node's address on the link: in the subnet of the Service's address, else in that of a gateway, else the first.
fn source(world: &World, link: &Link, address: IpAddr) -> Option<IpAddr> {
    let own: Vec<&IpNet> = link.in_subnets().filter(|net| Family::of(net.addr()) == Family::of(address)).collect();
    let gateways = || world.default_routes.iter().filter(|it| it.link == link.index).map(|it| it.gateway);
    let near = own.iter().find(|net| net.contains(&address));
    let near = near.or_else(|| own.iter().find(|net| gateways().any(|gateway| net.contains(&gateway))));
    near.or(own.first()).map(|net| net.addr())
}

fn is_usable(link: &Link) -> bool {
    link.up && link.carrier && !link.loopback
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::world::{DefaultRoute, Fact};

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
        let route = |gateway, link, vrf| DefaultRoute { gateway: ip(gateway), link, metric: 0, vrf };
        world.apply(Fact::DefaultRoutes(vec![route("192.168.35.1", 2, None), route("203.0.113.1", 4, Some(9))]));
        world
    }

    fn networks() -> [ReturnNetwork; 2] {
        let network = |name: &str, slot, links: &[(u32, &str)], table| ReturnNetwork {
            name: name.into(),
            slot,
            links: links.iter().map(|(index, name)| (*index, (*name).into())).collect::<BTreeMap<_, _>>(),
            table,
        };
        let own = ReturnTable::Own { gateways: Vec::new(), subnets: Vec::new() };
        [network("eth1", 15, &[(3, "eth1")], own), network("red", 14, &[(4, "eth2")], ReturnTable::Vrf(1001))]
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
            let found = exit(&world(), &networks(), ip(address), vrf.as_ref());
            let expected = expected.map(|(slot, link, source)| Exit { slot, link, source: ip(source) });
            assert_eq!(found.clone().ok(), expected, "{address} {vrf:?}: {found:?}");
        }
    }

    #[test]
    fn a_node_without_the_network_has_no_way_out_and_says_why() {
        let why = |world: &World, networks: &[ReturnNetwork], address, vrf: Option<&str>| {
            let vrf = vrf.map(InterfaceName::from);
            exit(world, networks, ip(address), vrf.as_ref()).expect_err("no way out").code()
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
}
