//! Where the peer of a session can reach this node, for routes of either family. Floor 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::address::ScopedAddress;
use crate::bgp::outbox::{NextHopV6, NextHops};
use crate::names::InterfaceName;

/// The next hops of a session between `local` and `peer`.
///
/// For the family of the connection it is our end of it. For the other family it is the first global address on the same link, so that
/// the peer sends the traffic where it reaches us anyway; without one the family cannot be announced.
/// A peer on this very host, as another routing daemon may be, would find its own address in our end of the connection and refuse it
/// (RFC 4271 §6.3). It is told the first global address of the host that is not its own, by which it can tell others.
/// Over a link-local connection an IPv4 address of the link need not be one that the peer can reach, so where
/// `ipv4_with_ipv6_next_hop` was agreed on (RFC 8950) there is none, and the IPv6 one serves both families.
pub fn next_hops(
    local: IpAddr,
    peer: &ScopedAddress,
    ipv4_with_ipv6_next_hop: bool,
    local_addresses: &[(InterfaceName, IpNet)],
) -> NextHops {
    if local.is_loopback() || local == peer.ip {
        return on_this_host(local, peer.ip, local_addresses);
    }
    // Where the peer's address is link-local, our own may be on several links.
    let link = peer.interface.as_ref().or_else(|| {
        local_addresses.iter().find(|(_, address)| address.addr() == local).map(|(interface, _)| interface)
    });
    let on_link = || local_addresses.iter().filter(|(name, _)| Some(name) == link).map(|(_, address)| *address);
    let v4 = match local {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) if v6.is_unicast_link_local() && ipv4_with_ipv6_next_hop => None,
        IpAddr::V6(_) => on_link().find_map(global_v4),
    };
    let peer = peer.ip;
    // RFC 2545 §3: the link-local address goes along if, and only if, the peer is on the link.
    let peer_is_on_link =
        is_link_local(peer) || on_link().any(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&peer));
    let link_local = match local {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
        IpAddr::V4(_) | IpAddr::V6(_) => on_link().find_map(link_local_v6),
    };
    let global = match local {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(v6),
        // Without a global address the link-local one stands in both places, as routers do it too.
        IpAddr::V6(v6) => Some(on_link().find_map(global_v6).unwrap_or(v6)),
        IpAddr::V4(_) => on_link().find_map(global_v6),
    };
    let v6 = global.map(|global| NextHopV6 { global, link_local: link_local.filter(|_| peer_is_on_link) });
    NextHops { v4, v6 }
}

fn on_this_host(local: IpAddr, peer: IpAddr, local_addresses: &[(InterfaceName, IpNet)]) -> NextHops {
    let others = || local_addresses.iter().map(|(_, address)| *address).filter(|address| address.addr() != peer);
    let (v4, v6) = match local {
        IpAddr::V4(v4) => (Some(v4), None),
        IpAddr::V6(v6) => (None, Some(v6)),
    };
    let global = others().find_map(global_v6).or(v6);
    NextHops {
        v4: others().find_map(global_v4).or(v4),
        v6: global.map(|global| NextHopV6 { global, link_local: None }),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn global_v4(net: IpNet) -> Option<Ipv4Addr> {
    match net.addr() {
        IpAddr::V4(v4) if !v4.is_link_local() && !v4.is_loopback() => Some(v4),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn global_v6(net: IpNet) -> Option<Ipv6Addr> {
    match net.addr() {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() && !v6.is_loopback() => Some(v6),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn link_local_v6(net: IpNet) -> Option<Ipv6Addr> {
    match net.addr() {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<(InterfaceName, IpNet)> {
        let address = |interface: &str, net: &str| (InterfaceName::from(interface), net.parse().unwrap());
        vec![
            address("lo", "127.0.0.1/8"),
            address("eth0", "10.0.0.11/24"),
            address("eth0", "fe80::11/64"),
            address("eth0", "2001:db8::11/64"),
            address("eth1", "192.0.2.11/24"),
            address("eth1", "fe80::11/64"),
        ]
    }

    type Texts = (Option<String>, Option<String>, Option<String>);

    fn of(local: &str, peer: &str, interface: Option<&str>) -> Texts {
        agreed(false, local, peer, interface)
    }

    fn agreed(ipv4_with_ipv6_next_hop: bool, local: &str, peer: &str, interface: Option<&str>) -> Texts {
        let peer = ScopedAddress { ip: peer.parse().unwrap(), interface: interface.map(InterfaceName::from) };
        let NextHops { v4, v6 } = next_hops(local.parse().unwrap(), &peer, ipv4_with_ipv6_next_hop, &host());
        let link_local = v6.and_then(|v6| v6.link_local);
        (v4.map(|v4| v4.to_string()), v6.map(|v6| v6.global.to_string()), link_local.map(|v6| v6.to_string()))
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_other_family_is_reached_by_the_first_global_address_of_the_same_link() {
        assert_eq!(of("10.0.0.11", "10.0.0.1", None), (some("10.0.0.11"), some("2001:db8::11"), some("fe80::11")));
        assert_eq!(
            of("2001:db8::11", "2001:db8::1", None),
            (some("10.0.0.11"), some("2001:db8::11"), some("fe80::11"))
        );
    }

    #[test]
    fn a_link_without_the_other_family_leaves_it_without_a_next_hop() {
        assert_eq!(of("192.0.2.11", "192.0.2.1", None), (some("192.0.2.11"), None, None));
        assert_eq!(
            of("198.51.100.1", "192.0.2.1", None),
            (some("198.51.100.1"), None, None),
            "no link has this address"
        );
    }

    #[test]
    fn the_link_local_address_goes_along_only_to_a_peer_on_the_link() {
        assert_eq!(of("2001:db8::11", "2001:db8:1::1", None).2, None);
        assert_eq!(of("10.0.0.11", "10.9.9.9", None), (some("10.0.0.11"), some("2001:db8::11"), None));
    }

    #[test]
    fn over_a_link_local_connection_the_links_global_address_is_used_where_there_is_one() {
        assert_eq!(
            of("fe80::11", "fe80::1", Some("eth0")),
            (some("10.0.0.11"), some("2001:db8::11"), some("fe80::11"))
        );
        assert_eq!(of("fe80::11", "fe80::1", Some("eth1")), (some("192.0.2.11"), some("fe80::11"), some("fe80::11")));
    }

    #[test]
    fn a_peer_on_this_host_is_told_an_address_that_is_not_its_own() {
        assert_eq!(of("127.0.0.1", "127.0.0.1", None), (some("10.0.0.11"), some("2001:db8::11"), None));
        assert_eq!(of("::1", "::1", None), (some("10.0.0.11"), some("2001:db8::11"), None));
        assert_eq!(of("10.0.0.11", "10.0.0.11", None), (some("192.0.2.11"), some("2001:db8::11"), None));
        let lonely = [(InterfaceName::from("lo"), "127.0.0.1/8".parse().unwrap())];
        let peer = ScopedAddress { ip: "127.0.0.1".parse().unwrap(), interface: None };
        let NextHops { v4, v6 } = next_hops(peer.ip, &peer, false, &lonely);
        assert_eq!((v4, v6), (Some(Ipv4Addr::LOCALHOST), None), "there is nothing better");
    }

    #[test]
    fn an_ipv4_address_of_the_link_is_left_out_only_over_a_link_local_connection_with_rfc_8950() {
        assert_eq!(agreed(true, "fe80::11", "fe80::1", Some("eth1")), (None, some("fe80::11"), some("fe80::11")));
        assert_eq!(agreed(true, "2001:db8::11", "2001:db8::1", None).0, some("10.0.0.11"));
        assert_eq!(agreed(true, "10.0.0.11", "10.0.0.1", None).0, some("10.0.0.11"));
    }
}
