//! Where the peer of a session can reach this node, for routes of either family. Floor 1. The slice says which addresses this
//! host has, and which address of a link is best.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::address::{LocalAddress, ScopedAddress, Stay, has_subnet, is_link_local, is_subnet_of};
use crate::bgp::outbox::chosen::Memory;
use crate::bgp::outbox::{NextHopV6, NextHops};
use crate::names::InterfaceName;

/// What the configuration says about reaching a peer.
#[derive(Debug, Clone, Copy)]
pub struct PeerPath<'a> {
    pub peer: &'a ScopedAddress,
    /// The VRF, or other device, that sockets to the peer are bound to.
    pub device: Option<&'a InterfaceName>,
    /// Where [`links_in_doubt`] names several links: the one that packets to the peer leave by.
    pub link: Option<&'a InterfaceName>,
    /// The configured next hops, which replace those found here.
    pub next_hop: Option<Ipv4Addr>,
    pub next_hop_v6: Option<Ipv6Addr>,
}

/// The next hops of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// What the peer is told.
    pub told: NextHops,
    /// The same without what is configured.
    pub found: NextHops,
}

/// The next hops of a session from `local`.
///
/// For the family of the connection it is our end of it. For the other family it is the first global address of the link that the
/// session runs over, so that the peer sends the traffic where it reaches us anyway; without one the family cannot be announced.
/// `local_addresses` names the addresses of each link in the order of preference.
/// What was chosen `before` stays for as long as it is on that link, and is chosen again when it is back after a moment: an address that
/// comes beside it may be a virtual one, which goes again, to another host. Only one that the Node object names takes its place.
/// A peer on this very host, as another routing daemon may be, would find its own address in our end of the connection and refuse it
/// (RFC 4271 §6.3). It is told the first global address of the host that is not its own, by which it can tell others.
/// Over a link-local connection the link-local address is the IPv6 next hop, unless the Node object names a global one with a subnet.
/// Over a link-local connection an IPv4 address of the link need not be one that the peer can reach, so where
/// `ipv4_with_ipv6_next_hop` was negotiated (RFC 8950) there is none, and the IPv6 one serves both families; over another IPv6
/// connection then only an address with a subnet that the Node object names is one.
pub fn next_hops(
    local: IpAddr,
    path: &PeerPath<'_>,
    ipv4_with_ipv6_next_hop: bool,
    local_addresses: &[LocalAddress],
    before: &Memory,
) -> Choice {
    let found = if local.is_loopback() || local == path.peer.ip {
        on_this_host(local, path.peer.ip, local_addresses)
    } else {
        found(local, path, ipv4_with_ipv6_next_hop, local_addresses, before)
    };
    let v6 = match path.next_hop_v6 {
        // RFC 2545 §3: a link-local address goes along only with a global one of the same node.
        Some(global) if found.v6.is_none_or(|v6| v6.global != global) => Some(NextHopV6 { global, link_local: None }),
        Some(_) | None => found.v6,
    };
    Choice { told: NextHops { v4: path.next_hop.or(found.v4), v6 }, found }
}

fn found(
    local: IpAddr,
    path: &PeerPath<'_>,
    ipv4_with_ipv6_next_hop: bool,
    local_addresses: &[LocalAddress],
    before: &Memory,
) -> NextHops {
    let link = link_of(local, path, local_addresses);
    let of_link = || local_addresses.iter().filter(|local| Some(&local.interface) == link);
    let on_link = || of_link().map(|local| local.net);
    // Any other one, as a virtual one of keepalived, comes and goes, and the peer need not have a way to it.
    let lasting = || of_link().filter(|it| it.stay == Stay::Nodes && has_subnet(&it.net));
    let v4 = match local {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(v6) if v6.is_unicast_link_local() && ipv4_with_ipv6_next_hop => None,
        IpAddr::V6(_) if ipv4_with_ipv6_next_hop => lasting().find_map(|it| global_v4(it.net)),
        IpAddr::V6(_) => choose(of_link(), global_v4, before.v4.before()),
    };
    let peer = path.peer.ip;
    // RFC 2545 §3: the link-local address goes along if, and only if, the peer is on the link.
    let peer_is_on_link = is_link_local(peer) || on_link().any(|net| is_subnet_of(net, peer));
    let link_local = match local {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(v6),
        IpAddr::V4(_) | IpAddr::V6(_) => on_link().find_map(link_local_v6),
    };
    let global = match local {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(v6),
        // Without a lasting global address, the link-local one fills both places, as on routers: the peer reaches it for certain.
        IpAddr::V6(v6) => Some(choose(lasting(), global_v6, before.v6.before()).unwrap_or(v6)),
        IpAddr::V4(_) => choose(of_link(), global_v6, before.v6.before()),
    };
    let v6 = global.map(|global| NextHopV6 { global, link_local: link_local.filter(|_| peer_is_on_link) });
    NextHops { v4, v6 }
}

/// Which of these addresses of a link, of one family: one that the Node object names, else the first of those chosen before, else the
/// first.
fn choose<'a, A: Copy + PartialEq>(
    addresses: impl Iterator<Item = &'a LocalAddress>,
    global: fn(IpNet) -> Option<A>,
    mut before: impl Iterator<Item = A>,
) -> Option<A> {
    let all: Vec<(A, Stay)> = addresses.filter_map(|it| Some((global(it.net)?, it.stay))).collect();
    let (first, first_stay) = *all.first()?;
    let stays = |stay: Stay| match (first_stay, stay) {
        (_, Stay::Nodes) | (Stay::Unknown, Stay::Unknown) | (Stay::Deprecated, _) => true,
        (Stay::Nodes | Stay::Unknown, Stay::Unknown | Stay::Deprecated) => false,
    };
    let kept = before.find(|before| all.iter().any(|(address, stay)| address == before && stays(*stay)));
    Some(kept.unwrap_or(first))
}

/// Several links that a session from `local` may run over, as far as the addresses tell. Empty where they tell which one it is.
pub fn links_in_doubt<'a>(
    local: IpAddr,
    path: &PeerPath<'_>,
    local_addresses: &'a [LocalAddress],
) -> Vec<&'a InterfaceName> {
    // A peer on this very host is told an address of any link.
    if path.peer.interface.is_some() || local == path.peer.ip {
        return Vec::new();
    }
    let is_bound_to = |has: &&LocalAddress| has.is_bound_to(path.device);
    let has_local = || local_addresses.iter().filter(|has| has.net.addr() == local).filter(is_bound_to);
    if has_local().any(|has| is_subnet_of(has.net, path.peer.ip)) {
        return Vec::new();
    }
    if has_local().next().is_none() {
        return Vec::new();
    }
    // Packets may leave by none of those that have the address: as where it is alone on another link, or on the loopback.
    let ways = local_addresses.iter().filter(is_bound_to).filter(|has| is_subnet_of(has.net, path.peer.ip));
    let links: BTreeSet<&InterfaceName> = has_local().chain(ways).map(|has| &has.interface).collect();
    if links.len() > 1 { links.into_iter().collect() } else { Vec::new() }
}

/// The link that a session from `local` runs over. Several can have that address: in another VRF, or as a link-local one. Links that
/// the peer's sockets are not bound to are left out, a link whose subnet holds the peer comes first, and then the one that the kernel
/// sends to the peer by.
fn link_of<'a>(local: IpAddr, path: &PeerPath<'a>, local_addresses: &'a [LocalAddress]) -> Option<&'a InterfaceName> {
    // Where the peer's address is link-local, its link is known.
    if let Some(link) = &path.peer.interface {
        return Some(link);
    }
    let is_bound_to = |has: &&LocalAddress| has.is_bound_to(path.device);
    let has_local = || local_addresses.iter().filter(|has| has.net.addr() == local);
    let on_device = || has_local().filter(is_bound_to);
    let shared = on_device().find(|has| is_subnet_of(has.net, path.peer.ip));
    // Where the address is on the loopback too, as with routing on the host, that of the other family may be there alone.
    let others = |link: &InterfaceName| {
        let on_link = local_addresses.iter().filter(|has| has.interface == *link).map(|has| has.net);
        let of_other =
            |net: &IpNet| if local.is_ipv4() { global_v6(*net).is_some() } else { global_v4(*net).is_some() };
        on_link.filter(of_other).collect::<Vec<IpNet>>()
    };
    let leads = || on_device().find(|has| Some(&has.interface) == path.link && !others(&has.interface).is_empty());
    // That of a subnet counts on its own link alone. One without a subnet is routed to, wherever it is.
    let is_routed = |has: &LocalAddress| others(&has.interface).iter().any(|net| !has_subnet(net));
    let elsewhere = || {
        let link = path.link.filter(|link| !others(link).is_empty())?;
        (!on_device().any(is_routed)).then_some(link)
    };
    let of = |has: &'a LocalAddress| &has.interface;
    shared
        .map(of)
        .or_else(|| leads().map(of))
        .or_else(elsewhere)
        .or_else(|| on_device().next().map(of))
        .or_else(|| has_local().next().map(of))
}

fn on_this_host(local: IpAddr, peer: IpAddr, local_addresses: &[LocalAddress]) -> NextHops {
    let others = || local_addresses.iter().map(|local| local.net).filter(|net| net.addr() != peer);
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
    use std::time::Duration;

    use super::*;
    use crate::bgp::outbox::chosen::Kept;
    use crate::clock;

    fn address(interface: &str, net: &str) -> LocalAddress {
        LocalAddress { interface: interface.into(), vrf: None, net: net.parse().unwrap(), stay: Stay::Unknown }
    }

    fn nodes(interface: &str, net: &str) -> LocalAddress {
        LocalAddress { stay: Stay::Nodes, ..address(interface, net) }
    }

    /// Those of a session that is new.
    fn next_hops(
        local: IpAddr,
        path: &PeerPath<'_>,
        ipv4_with_ipv6_next_hop: bool,
        local_addresses: &[LocalAddress],
    ) -> NextHops {
        super::next_hops(local, path, ipv4_with_ipv6_next_hop, local_addresses, &Memory::default()).told
    }

    fn path(peer: &ScopedAddress) -> PeerPath<'_> {
        PeerPath { peer, device: None, link: None, next_hop: None, next_hop_v6: None }
    }

    fn host() -> Vec<LocalAddress> {
        vec![
            address("lo", "127.0.0.1/8"),
            nodes("eth0", "10.0.0.11/24"),
            address("eth0", "fe80::11/64"),
            nodes("eth0", "2001:db8::11/64"),
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
        let NextHops { v4, v6 } = next_hops(local.parse().unwrap(), &path(&peer), ipv4_with_ipv6_next_hop, &host());
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

    /// Input: an IPv6 session with RFC 8950 on a link without IPv4, and keepalived puts a virtual address there,
    /// with a subnet or without. Output: IPv4 goes on by the IPv6 next hop.
    #[test]
    fn an_ipv4_address_that_is_not_the_nodes_is_no_next_hop_where_there_is_a_better_one() {
        let peer = ScopedAddress { ip: "2001:db8::1".parse().unwrap(), interface: None };
        let v4 = |negotiated: bool, other: LocalAddress| {
            let all = [address("eth0", "2001:db8::11/64"), other];
            next_hops("2001:db8::11".parse().unwrap(), &path(&peer), negotiated, &all).v4.map(|v4| v4.to_string())
        };
        for vip in ["10.9.9.9/32", "10.9.9.9/24"] {
            let (agreed, not) = (v4(true, address("eth0", vip)), v4(false, address("eth0", vip)));
            assert_eq!((agreed, not), (None, some("10.9.9.9")), "{vip}");
        }
        assert_eq!(v4(true, nodes("eth0", "10.0.0.11/24")), some("10.0.0.11"));
        assert_eq!(v4(true, nodes("eth0", "10.0.0.11/32")), None);
    }

    /// Input: an IPv4 session whose IPv6 next hop is in use, and a lower global address comes onto the link.
    #[test]
    fn a_next_hop_stays_while_it_is_on_the_link_and_only_the_nodes_own_takes_its_place() {
        let peer = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        let told = |text: &str| Memory::of(Kept { v4: None, v6: (!text.is_empty()).then(|| text.parse().unwrap()) });
        let (lower, higher) = ("2001:db8::5/64", "2001:db8::11/64");
        let any = |net| address("eth0", net);
        let old = |net| LocalAddress { stay: Stay::Deprecated, ..any(net) };
        let table: [(&str, Vec<LocalAddress>, &str); 8] = [
            ("", vec![any(lower), any(higher)], "2001:db8::5"),
            ("2001:db8::11", vec![any(lower), any(higher)], "2001:db8::11"),
            ("2001:db8::11", vec![any(lower)], "2001:db8::5"),
            ("2001:db8::11", vec![nodes("eth0", lower), any(higher)], "2001:db8::5"),
            ("2001:db8::11", vec![nodes("eth0", lower), nodes("eth0", higher)], "2001:db8::11"),
            ("2001:db8::11", vec![any(lower), old(higher)], "2001:db8::5"),
            ("2001:db8::11", vec![old(lower), old(higher)], "2001:db8::11"),
            ("2001:db8::11", vec![any(lower), address("eth1", higher)], "2001:db8::5"),
        ];
        for (before, others, expected) in table {
            let all: Vec<LocalAddress> = std::iter::once(any("10.0.0.11/24")).chain(others).collect();
            let found = super::next_hops("10.0.0.11".parse().unwrap(), &path(&peer), false, &all, &told(before));
            let v6 = found.told.v6.map(|v6| v6.global.to_string());
            assert_eq!(v6.as_deref(), Some(expected), "{before} of {all:?}");
        }
        // The same of IPv4 over an IPv6 connection without RFC 8950.
        let peer = ScopedAddress { ip: "2001:db8::1".parse().unwrap(), interface: None };
        let all = [any("10.0.0.5/24"), any("10.0.0.11/24"), any(higher)];
        let before = Kept { v4: Some([10, 0, 0, 11].into()), v6: None };
        let found = super::next_hops("2001:db8::11".parse().unwrap(), &path(&peer), false, &all, &Memory::of(before));
        assert_eq!(found.told.v4, before.v4);
    }

    /// Input: a flap of the link, after which the virtual address is back before the node's own; `next-hop-v6` is set for
    /// a time; and an address that does not come back. Output: the one that was chosen first is chosen again, unless it was away for long.
    #[test]
    fn a_next_hop_that_was_away_for_a_moment_is_chosen_again() {
        let peer = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        let (own, vip) = ("fd35::ffff:0:0:11", "fd35::1:5");
        let mut memory = Memory::default();
        let start = clock::now();
        let mut told = |second: u64, on_link: &[&str], next_hop_v6: Option<&str>| {
            let now = start + Duration::from_secs(second);
            let nets = on_link.iter().map(|ip| address("eth0", &format!("{ip}/64")));
            let all: Vec<LocalAddress> = std::iter::once(address("eth0", "10.0.0.11/24")).chain(nets).collect();
            let path = PeerPath { next_hop_v6: next_hop_v6.map(|text| text.parse().unwrap()), ..path(&peer) };
            memory.settle(now);
            let choice = super::next_hops("10.0.0.11".parse().unwrap(), &path, false, &all, &memory);
            memory.note(choice.found, now);
            choice.told.v6.map(|v6| v6.global.to_string())
        };
        assert_eq!(told(0, &[own], None), some(own));
        assert_eq!(told(10, &[vip, own], None), some(own));
        assert_eq!(told(100, &[], None), None, "the link is down");
        assert_eq!(told(9000, &[vip], None), some(vip), "it is up again, and keepalived was first");
        assert_eq!(told(9001, &[vip, own], None), some(own));
        assert_eq!(told(9100, &[vip, own], Some("fd35::77")), some("fd35::77"));
        assert_eq!(told(9500, &[vip, own], None), some(own));
        assert_eq!(told(9600, &[vip], None), some(vip));
        assert_eq!(told(9659, &[vip, own], None), some(own));
        assert_eq!(told(9700, &[vip], None), some(vip));
        assert_eq!(told(9760, &[vip, own], None), some(vip), "after a minute that is the choice");
        let kept = Memory::of(memory.kept());
        assert_eq!(kept.v6.before().collect::<Vec<_>>(), [vip.parse::<Ipv6Addr>().unwrap()]);
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
    fn over_a_link_local_connection_the_nodes_global_address_is_used_where_the_link_has_it() {
        assert_eq!(
            of("fe80::11", "fe80::1", Some("eth0")),
            (some("10.0.0.11"), some("2001:db8::11"), some("fe80::11"))
        );
        assert_eq!(of("fe80::11", "fe80::1", Some("eth1")), (some("192.0.2.11"), some("fe80::11"), some("fe80::11")));
    }

    /// Input: keepalived puts a virtual IPv6 address onto the link of an unnumbered session, before it or during it.
    /// Output: the link-local address stays the next hop; BIRD drops all routes by an address that it has no way to.
    #[test]
    fn over_a_link_local_connection_no_global_address_that_is_not_the_nodes_is_a_next_hop() {
        let peer = ScopedAddress { ip: "fe80::1".parse().unwrap(), interface: Some("eth0".into()) };
        let link_local: Ipv6Addr = "fe80::11".parse().unwrap();
        let told = |other: LocalAddress, before: Option<&str>| {
            let all = [address("eth0", "fe80::11/64"), other];
            let before = Memory::of(Kept { v4: None, v6: before.map(|global| global.parse().unwrap()) });
            let v6 = super::next_hops(link_local.into(), &path(&peer), true, &all, &before).told.v6.unwrap();
            assert_eq!(v6.link_local, Some(link_local));
            v6.global.to_string()
        };
        for before in [None, Some("fe80::11"), Some("2001:db8:77::9")] {
            for vip in ["2001:db8:77::9/64", "2001:db8:77::9/128"] {
                assert_eq!(told(address("eth0", vip), before), "fe80::11", "{vip} after {before:?}");
            }
            assert_eq!(told(nodes("eth0", "2001:db8::11/128"), before), "fe80::11", "after {before:?}");
            assert_eq!(told(nodes("eth0", "2001:db8::11/64"), before), "2001:db8::11", "after {before:?}");
        }
    }

    #[test]
    fn a_peer_on_this_host_is_told_an_address_that_is_not_its_own() {
        assert_eq!(of("127.0.0.1", "127.0.0.1", None), (some("10.0.0.11"), some("2001:db8::11"), None));
        assert_eq!(of("::1", "::1", None), (some("10.0.0.11"), some("2001:db8::11"), None));
        assert_eq!(of("10.0.0.11", "10.0.0.11", None), (some("192.0.2.11"), some("2001:db8::11"), None));
        let lonely = [address("lo", "127.0.0.1/8")];
        let peer = ScopedAddress { ip: "127.0.0.1".parse().unwrap(), interface: None };
        let NextHops { v4, v6 } = next_hops(peer.ip, &path(&peer), false, &lonely);
        assert_eq!((v4, v6), (Some(Ipv4Addr::LOCALHOST), None), "there is nothing better");
    }

    #[test]
    fn an_ipv4_address_of_the_link_is_left_out_only_over_a_link_local_connection_with_rfc_8950() {
        assert_eq!(agreed(true, "fe80::11", "fe80::1", Some("eth1")), (None, some("fe80::11"), some("fe80::11")));
        assert_eq!(agreed(true, "2001:db8::11", "2001:db8::1", None).0, some("10.0.0.11"));
        assert_eq!(agreed(true, "10.0.0.11", "10.0.0.1", None).0, some("10.0.0.11"));
    }

    /// D8 of the field cases.
    #[test]
    fn of_two_links_with_one_address_that_of_the_peers_vrf_counts_and_then_that_of_its_subnet() {
        let red = |net: &str| LocalAddress { vrf: Some("red".into()), ..address("eth1", net) };
        let host = [
            address("eth0", "10.0.0.11/24"),
            address("eth0", "2001:db8:a::11/64"),
            red("10.0.0.11/24"),
            red("2001:db8:b::11/64"),
            address("eth2", "10.0.0.11/32"),
            address("eth2", "2001:db8:c::11/64"),
        ];
        let (red, eth2) = (InterfaceName::from("red"), InterfaceName::from("eth2"));
        let peer = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        for (device, expected) in
            [(None, "2001:db8:a::11"), (Some(&red), "2001:db8:b::11"), (Some(&eth2), "2001:db8:c::11")]
        {
            let path = PeerPath { device, ..path(&peer) };
            let v6 = next_hops("10.0.0.11".parse().unwrap(), &path, false, &host).v6.map(|v6| v6.global.to_string());
            assert_eq!(v6.as_deref(), Some(expected), "bound to {device:?}");
        }
        let reversed: Vec<LocalAddress> = host.into_iter().rev().collect();
        let v6 = next_hops("10.0.0.11".parse().unwrap(), &path(&peer), false, &reversed).v6;
        assert_eq!(v6.map(|v6| v6.global.to_string()).as_deref(), Some("2001:db8:a::11"), "the peer is in that subnet");
    }

    /// Input: one routed address on two uplinks. Output: the other family by the link that leads to the peer.
    #[test]
    fn of_two_links_with_one_address_that_by_which_the_kernel_sends_counts() {
        let host = [
            address("eth0", "10.0.0.11/32"),
            address("eth0", "fd35::11/64"),
            address("eth1", "10.0.0.11/32"),
            address("eth1", "fd77::1/64"),
        ];
        let (eth0, eth1) = (InterfaceName::from("eth0"), InterfaceName::from("eth1"));
        let peer = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        let local = "10.0.0.11".parse().unwrap();
        assert_eq!(links_in_doubt(local, &path(&peer), &host), [&eth0, &eth1]);
        for (link, expected) in [(&eth0, "fd35::11"), (&eth1, "fd77::1")] {
            let path = PeerPath { link: Some(link), ..path(&peer) };
            let v6 = next_hops(local, &path, false, &host).v6.map(|v6| v6.global.to_string());
            assert_eq!(v6.as_deref(), Some(expected), "{link}");
        }
        let routed = [address("lo", "10.0.0.11/32"), address("lo", "fd35::11/128"), address("eth0", "10.0.0.11/32")];
        let by_eth0 = PeerPath { link: Some(&eth0), ..path(&peer) };
        let v6 = next_hops(local, &by_eth0, false, &routed).v6.map(|v6| v6.global.to_string());
        assert_eq!(v6.as_deref(), Some("fd35::11"), "it is on the loopback alone");
        let bound = PeerPath { device: Some(&eth1), ..path(&peer) };
        assert!(links_in_doubt(local, &bound, &host).is_empty(), "it is known");
        let in_subnet = [address("eth0", "10.0.0.11/24"), address("eth1", "10.0.0.11/32")];
        assert!(links_in_doubt(local, &path(&peer), &in_subnet).is_empty(), "the subnet tells");
    }

    /// Input: `source-address` moves, alone, to another link than packets to the peer leave by, or to the loopback.
    #[test]
    fn an_address_that_is_alone_on_another_link_does_not_make_that_link_the_way_to_this_host() {
        let eth0 = [address("eth0", "10.0.0.11/24"), address("eth0", "fd35::11/64")];
        let (local, eth0_name) = ("10.0.0.12".parse().unwrap(), InterfaceName::from("eth0"));
        let peer = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        for (link, others, expected) in [
            ("eth1", vec!["fd77::11/64"], "fd35::11"),
            ("eth1", vec![], "fd35::11"),
            ("lo", vec![], "fd35::11"),
            ("lo", vec!["fd99::9/128"], "fd99::9"),
        ] {
            let others = others.iter().map(|net| address(link, net));
            let alone = std::iter::once(address(link, "10.0.0.12/32")).chain(others);
            let host: Vec<LocalAddress> = eth0.iter().cloned().chain(alone).collect();
            assert!(links_in_doubt(local, &path(&peer), &host).contains(&&eth0_name), "the kernel is asked");
            let path = PeerPath { link: Some(&eth0_name), ..path(&peer) };
            let v6 = next_hops(local, &path, false, &host).v6.map(|v6| v6.global.to_string());
            assert_eq!(v6.as_deref(), Some(expected), "{link}");
        }
    }

    #[test]
    fn a_configured_next_hop_stands_in_place_of_what_is_found() {
        let peer = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        let told = |next_hop: Option<&str>, next_hop_v6: Option<&str>| {
            let v4 = next_hop.map(|text| text.parse().unwrap());
            let v6 = next_hop_v6.map(|text| text.parse().unwrap());
            let path = PeerPath { next_hop: v4, next_hop_v6: v6, ..path(&peer) };
            let NextHops { v4, v6 } = next_hops("10.0.0.11".parse().unwrap(), &path, false, &host());
            let v6 = v6.map(|v6| (v6.global.to_string(), v6.link_local.is_some()));
            (v4.map(|v4| v4.to_string()), v6)
        };
        assert_eq!(told(Some("10.0.0.99"), None), (some("10.0.0.99"), Some(("2001:db8::11".to_owned(), true))));
        assert_eq!(told(None, Some("2001:db8::99")), (some("10.0.0.11"), Some(("2001:db8::99".to_owned(), false))));
        assert_eq!(told(None, Some("2001:db8::11")).1, Some(("2001:db8::11".to_owned(), true)), "it is the node's own");
    }
}
