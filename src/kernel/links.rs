//! What the kernel has said about the links of this host, as Facts.
//! Floor 2, because it reads netlink messages; it has no socket and no clock. `observe` opens the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{addresses, netlink};
use crate::address::{MacAddress, is_link_local_v6};
use crate::names::InterfaceName;
use crate::world::{Fact, Link};

/// All links and their addresses.
///
/// Feed it with `handle_list` once and after every overrun, and with `handle_message` for each event; then call
/// `poll_fact` until it answers `None`. A Fact comes only for a link that differs from what was last told.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Without their addresses.
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, BTreeMap<Address, Kind>>,
    told: BTreeMap<u32, Link>,
    touched: BTreeSet<u32>,
}

/// An address of a link. A point-to-point link can have one address several times, with different peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Address {
    local: IpNet,
    peer: IpAddr,
}

/// What the kernel says of an address.
#[derive(Debug, Clone, Copy)]
struct Kind {
    life: Life,
    /// It has made the address for the link, and marks it so.
    kernels: bool,
}

/// How long an address will stay, as far as the kernel knows; the longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    /// Without a lifetime.
    Permanent,
    /// It has a lifetime, which DHCP or router advertisements renew.
    Leased,
    /// Temporary (RFC 8981), or a second address in an IPv4 subnet.
    Temporary,
    /// Not for new connections (RFC 4862 §5.5.4).
    Deprecated,
}

impl Links {
    /// Takes in complete lists: they replace what was known.
    pub(super) fn handle_list(&mut self, links: &[RouteNetlinkMessage], addresses: &[RouteNetlinkMessage]) {
        self.touched.extend(self.told.keys().chain(self.links.keys()));
        self.links.clear();
        self.addresses.clear();
        links.iter().chain(addresses).for_each(|message| self.handle_message(message));
    }

    pub(super) fn handle_message(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(message) if is_whole(message) => {
                if let Some(link) = link(message) {
                    self.touched.insert(link.index);
                    self.links.insert(link.index, link);
                }
            }
            RouteNetlinkMessage::DelLink(message) if is_whole(message) => {
                let index = message.header.index;
                self.touched.insert(index);
                self.links.remove(&index);
                self.addresses.remove(&index);
            }
            RouteNetlinkMessage::NewAddress(message) => {
                if let Some(address) = address(message) {
                    let addresses = self.addresses.entry(message.header.index).or_default();
                    if is_the_hosts_own(message) {
                        addresses.insert(address, Kind { life: life(message), kernels: is_marked(message) })
                    } else {
                        addresses.remove(&address)
                    };
                    self.touched.insert(message.header.index);
                }
            }
            RouteNetlinkMessage::DelAddress(message) => {
                if let (Some(address), Some(addresses)) =
                    (address(message), self.addresses.get_mut(&message.header.index))
                {
                    addresses.remove(&address);
                    self.touched.insert(message.header.index);
                }
            }
            // The enum is not ours; no other message was subscribed to.
            _ => {}
        }
    }

    pub(super) fn poll_fact(&mut self) -> Option<Fact> {
        while let Some(index) = self.touched.pop_first() {
            let now = self.link(index);
            if now.as_ref() != self.told.get(&index) {
                match &now {
                    Some(link) => self.told.insert(index, link.clone()),
                    None => self.told.remove(&index),
                };
                return Some(Fact::Link(index, now));
            }
        }
        None
    }

    fn link(&self, index: u32) -> Option<Link> {
        let mut link = self.links.get(&index)?.clone();
        let mut addresses: Vec<(&Address, &Kind)> = self.addresses.get(&index).into_iter().flatten().collect();
        addresses.sort_by_key(|(address, kind)| {
            let net = address.local;
            (net.addr().is_ipv6(), net.prefix_len() == net.max_prefix_len(), kind.life, net)
        });
        let deprecated = addresses.iter().filter(|(_, kind)| kind.life == Life::Deprecated);
        link.deprecated = deprecated.map(|(address, _)| address.local.addr()).collect();
        let of_mac = link.mac.map(link_local_of).map(IpAddr::V6);
        let kernels = addresses.iter().filter_map(|(address, kind)| {
            let ip = address.local.addr();
            (is_link_local_v6(ip) && (kind.kernels || Some(ip) == of_mac)).then_some(ip)
        });
        link.kernels = kernels.collect();
        link.addresses = addresses.into_iter().map(|(address, _)| address.local).collect();
        link.addresses.dedup();
        Some(link)
    }
}

/// Whether a message is about the link itself. Messages of the family AF_BRIDGE are about ports of a bridge, where RTM_DELLINK
/// only means that a port left its bridge. Wireless events name a link without describing it.
fn is_whole(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
        && !message.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::Wireless(_)))
}

fn link(message: &LinkMessage) -> Option<Link> {
    let flags = message.header.flags;
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let mut name = None;
    let mut mac = None;
    let mut state = State::Unknown;
    let mut master = None;
    let mut in_vrf = false;
    let (mut below, mut is_here, mut on_its_wire) = (None, true, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(InterfaceName::from(text.as_str())),
            LinkAttribute::Address(octets) if ethernet => mac = octets.as_slice().try_into().ok().map(MacAddress),
            LinkAttribute::OperState(told) => state = *told,
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::LinkInfo(told) => {
                in_vrf = told.iter().any(|one| matches!(one, LinkInfo::PortKind(InfoPortKind::Vrf)));
                on_its_wire = told.iter().any(|one| matches!(one, LinkInfo::Kind(kind) if lies_on_anothers_wire(kind)));
            }
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_here = false,
            // The enum is not ours; the rest does not matter to any decision.
            _ => {}
        }
    }
    let loopback = flags.contains(LinkFlags::Loopback);
    Some(Link {
        index: message.header.index,
        name: name?,
        mac,
        up: flags.contains(LinkFlags::Up),
        // If a driver does not report its state, its carrier flag decides.
        carrier: state == State::Up || (state == State::Unknown && flags.contains(LinkFlags::LowerUp)),
        loopback,
        arp: ethernet && !loopback && flags.contains(LinkFlags::Broadcast) && !flags.contains(LinkFlags::Noarp),
        master: master.filter(|_| !in_vrf),
        vrf: master.filter(|_| in_vrf),
        parent: below.filter(|_| is_here && on_its_wire),
        addresses: Vec::new(),
        deprecated: BTreeSet::new(),
        kernels: BTreeSet::new(),
    })
}

/// A VLAN has a wire of its own.
fn lies_on_anothers_wire(kind: &InfoKind) -> bool {
    matches!(kind, InfoKind::MacVlan | InfoKind::MacVtap | InfoKind::IpVlan | InfoKind::IpVtap)
}

fn address(message: &AddressMessage) -> Option<Address> {
    let (local, peer) = netlink::own_and_peer(message)?;
    Some(Address { local: IpNet::new(local, message.header.prefix_len).ok()?, peer })
}

fn life(message: &AddressMessage) -> Life {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        // The enum is not ours.
        _ => None,
    });
    match flags.unwrap_or(AddressFlags::empty()) {
        flags if flags.contains(AddressFlags::Deprecated) => Life::Deprecated,
        // The kernel has one flag for both.
        flags if flags.contains(AddressFlags::Secondary) => Life::Temporary,
        flags if flags.contains(AddressFlags::Permanent) => Life::Permanent,
        _ => Life::Leased,
    }
}

/// Whether the kernel says that it has made the address itself. It does since 5.18, and before of one made with a secret (RFC 7217).
fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::Protocol(protocol) => *protocol == AddressProtocol::LinkLocal,
        AddressAttribute::Flags(flags) => flags.contains(AddressFlags::StablePrivacy),
        // The enum is not ours.
        _ => false,
    })
}

/// The link-local address that the kernel makes of an Ethernet address (RFC 4291, appendix A).
fn link_local_of(MacAddress([a, b, c, d, e, f]): MacAddress) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Whether others can reach this host at the address: crier did not put it there for a Service, and duplicate address
/// detection has let it pass.
fn is_the_hosts_own(message: &AddressMessage) -> bool {
    let unusable = AddressFlags::Tentative | AddressFlags::Dadfailed;
    addresses::marked_by(message).is_none()
        && !message.attributes.iter().any(
            |attribute| matches!(attribute, AddressAttribute::Flags(flags) if flags.intersects(unusable) && !flags.contains(AddressFlags::Optimistic)),
        )
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::WirelessEvent;

    use super::*;

    const ETH0: u32 = 2;

    fn eth0(change: impl FnOnce(&mut LinkMessage)) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = ETH0;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Broadcast;
        message.attributes = vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 0x0a]),
            LinkAttribute::OperState(State::Up),
        ];
        change(&mut message);
        message
    }

    fn new_link(change: impl FnOnce(&mut LinkMessage)) -> RouteNetlinkMessage {
        RouteNetlinkMessage::NewLink(eth0(change))
    }

    fn on_eth0(net: &str, more: Vec<AddressAttribute>) -> AddressMessage {
        let net: IpNet = net.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.index = ETH0;
        message.header.prefix_len = net.prefix_len();
        message.attributes = vec![AddressAttribute::Address(net.addr())];
        message.attributes.extend(more);
        message
    }

    fn facts(links: &mut Links) -> Vec<Fact> {
        std::iter::from_fn(|| links.poll_fact()).collect()
    }

    /// The addresses in the one fact that is to be told.
    fn told_addresses(links: &mut Links) -> Vec<String> {
        match facts(links).as_slice() {
            [Fact::Link(ETH0, Some(link))] => link.addresses.iter().map(IpNet::to_string).collect(),
            other => panic!("expected one fact about eth0, got {other:?}"),
        }
    }

    fn listed(addresses: &[&str]) -> Links {
        let mut links = Links::default();
        let addresses: Vec<_> =
            addresses.iter().map(|net| RouteNetlinkMessage::NewAddress(on_eth0(net, vec![]))).collect();
        links.handle_list(&[new_link(|_| {})], &addresses);
        assert_eq!(facts(&mut links).len(), 1);
        links
    }

    #[test]
    fn a_link_is_told_whole_once_and_again_only_when_it_changed() {
        let mut links = Links::default();
        let address = RouteNetlinkMessage::NewAddress(on_eth0("192.0.2.7/24", vec![]));
        links.handle_list(&[new_link(|_| {})], std::slice::from_ref(&address));
        let mac = Some(MacAddress([2, 0, 0, 0, 0, 0x0a]));
        let expected = Link { mac, ..Link::carrying(ETH0, "eth0", &["192.0.2.7/24"]) };
        assert_eq!(facts(&mut links), [Fact::Link(ETH0, Some(expected.clone()))]);

        links.handle_message(&new_link(|_| {}));
        links.handle_message(&address);
        links.handle_list(&[new_link(|_| {})], &[address]);
        assert_eq!(facts(&mut links), [], "nothing changed");

        links.handle_message(&new_link(|link| link.header.flags = LinkFlags::Broadcast));
        let down = Link { up: false, ..expected };
        assert_eq!(facts(&mut links), [Fact::Link(ETH0, Some(down))]);
    }

    #[test]
    fn a_list_takes_back_what_it_does_not_name() {
        let mut links = listed(&["192.0.2.7/24", "192.0.2.8/24"]);
        links.handle_list(&[new_link(|_| {})], &[RouteNetlinkMessage::NewAddress(on_eth0("192.0.2.8/24", vec![]))]);
        assert_eq!(told_addresses(&mut links), ["192.0.2.8/24"]);
        links.handle_list(&[], &[]);
        assert_eq!(facts(&mut links), [Fact::Link(ETH0, None)]);
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_still_there() {
        let mut links = listed(&[]);
        links.handle_message(&RouteNetlinkMessage::DelLink(eth0(|link| {
            link.header.interface_family = AddressFamily::Bridge;
        })));
        assert_eq!(facts(&mut links), []);
        links.handle_message(&RouteNetlinkMessage::DelLink(eth0(|_| {})));
        assert_eq!(facts(&mut links), [Fact::Link(ETH0, None)]);
    }

    #[test]
    fn a_wireless_event_does_not_take_the_mac_away() {
        let mut links = listed(&[]);
        links.handle_message(&new_link(|link| {
            link.attributes =
                vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Wireless(WirelessEvent::Other(vec![]))];
        }));
        assert_eq!(facts(&mut links), []);
    }

    #[test]
    fn only_an_ethernet_link_that_broadcasts_does_arp_and_only_a_driver_without_state_is_asked_for_its_carrier() {
        type Change = fn(&mut LinkMessage);
        let unknown = |link: &mut LinkMessage| link.attributes.retain(|a| !matches!(a, LinkAttribute::OperState(_)));
        let table: [(&str, Change, (bool, bool, bool)); 6] = [
            ("as it is", |_| {}, (true, true, true)),
            ("no ARP", |link| link.header.flags |= LinkFlags::Noarp, (true, true, false)),
            ("no broadcast", |link| link.header.flags -= LinkFlags::Broadcast, (true, true, false)),
            ("a tunnel", |link| link.header.link_layer_type = LinkLayerType::Ipgre, (false, true, false)),
            ("no state", unknown, (true, true, true)),
            (
                "no state, no carrier",
                |link| {
                    link.attributes.retain(|a| !matches!(a, LinkAttribute::OperState(_)));
                    link.header.flags -= LinkFlags::LowerUp;
                },
                (true, false, true),
            ),
        ];
        for (what, change, expected) in table {
            let Some(link) = link(&eth0(change)) else { panic!("{what}: no link") };
            assert_eq!((link.mac.is_some(), link.carrier, link.arp), expected, "{what}");
        }
    }

    #[test]
    fn a_part_of_a_vrf_speaks_for_itself_and_a_part_of_a_bond_or_bridge_does_not() {
        let part_of = |kind: InfoPortKind| {
            let told = eth0(|link| {
                link.attributes.push(LinkAttribute::Controller(9));
                link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)]));
            });
            link(&told).map(|link| (link.master, link.vrf))
        };
        assert_eq!(part_of(InfoPortKind::Vrf), Some((None, Some(9))));
        for kind in [InfoPortKind::Bond, InfoPortKind::Bridge, InfoPortKind::Team] {
            assert_eq!(part_of(kind.clone()), Some((Some(9), None)), "a part of a {kind}");
        }
        let unsaid = link(&eth0(|link| link.attributes.push(LinkAttribute::Controller(9))));
        assert_eq!(unsaid.map(|link| (link.master, link.vrf)), Some((Some(9), None)), "when in doubt, silent");
    }

    #[test]
    fn a_macvlan_lies_on_the_wire_of_its_parent_and_a_vlan_does_not() {
        let parent_of = |kind: InfoKind, more: &[LinkAttribute]| {
            let told = eth0(|link| {
                link.attributes.extend([LinkAttribute::Link(9), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])]);
                link.attributes.extend(more.iter().cloned());
            });
            link(&told).and_then(|link| link.parent)
        };
        for kind in [InfoKind::MacVlan, InfoKind::MacVtap, InfoKind::IpVlan, InfoKind::IpVtap] {
            assert_eq!(parent_of(kind.clone(), &[]), Some(9), "{kind}");
            assert_eq!(parent_of(kind, &[LinkAttribute::LinkNetNsId(0)]), None, "its parent is of another namespace");
        }
        for kind in [InfoKind::Vlan, InfoKind::Veth] {
            assert_eq!(parent_of(kind, &[]), None);
        }
    }

    #[test]
    fn an_address_counts_once_it_is_usable_and_until_its_last_peer_is_gone() {
        let mut links = listed(&[]);
        let tentative = on_eth0("fd35::7/64", vec![AddressAttribute::Flags(AddressFlags::Tentative)]);
        links.handle_message(&RouteNetlinkMessage::NewAddress(tentative));
        assert_eq!(facts(&mut links), [], "a tentative address is not there yet");
        links.handle_message(&RouteNetlinkMessage::NewAddress(on_eth0("fd35::7/64", vec![])));
        assert_eq!(told_addresses(&mut links), ["fd35::7/64"]);

        let local = || vec![AddressAttribute::Local("192.0.2.1".parse().unwrap())];
        links.handle_message(&RouteNetlinkMessage::NewAddress(on_eth0("192.0.2.2/32", local())));
        assert_eq!(told_addresses(&mut links), ["192.0.2.1/32", "fd35::7/64"]);
        links.handle_message(&RouteNetlinkMessage::NewAddress(on_eth0("192.0.2.3/32", local())));
        links.handle_message(&RouteNetlinkMessage::DelAddress(on_eth0("192.0.2.2/32", local())));
        assert_eq!(facts(&mut links), [], "one of two peers is left");
        links.handle_message(&RouteNetlinkMessage::DelAddress(on_eth0("192.0.2.3/32", local())));
        assert_eq!(told_addresses(&mut links), ["fd35::7/64"]);
    }

    /// D7 of the field cases: the first of a family is what a BGP peer is told as next hop.
    #[test]
    fn the_address_that_stays_longest_comes_first_and_host_prefixes_last_whatever_their_numbers() {
        let mut links = listed(&[]);
        let flags = |flags| vec![AddressAttribute::Flags(flags)];
        let (permanent, second) = (AddressFlags::Permanent, AddressFlags::Secondary | AddressFlags::Permanent);
        for (net, flags) in [
            ("192.0.2.1/32", permanent),
            ("192.0.2.2/24", second),
            ("192.0.2.9/24", permanent),
            ("2001:db8::1/64", AddressFlags::Deprecated | AddressFlags::Permanent),
            ("2001:db8::2/64", AddressFlags::Secondary),
            ("2001:db8::3/128", permanent),
            ("2001:db8::4/64", AddressFlags::empty()),
            ("2001:db8::5/64", permanent),
        ]
        .map(|(net, one)| (net, flags(one)))
        {
            links.handle_message(&RouteNetlinkMessage::NewAddress(on_eth0(net, flags)));
        }
        let expected = [
            "192.0.2.9/24",
            "192.0.2.2/24",
            "192.0.2.1/32",
            "2001:db8::5/64",
            "2001:db8::4/64",
            "2001:db8::2/64",
            "2001:db8::1/64",
            "2001:db8::3/128",
        ];
        assert_eq!(told_addresses(&mut links), expected);
        let deprecated = flags(AddressFlags::Deprecated | AddressFlags::Permanent);
        links.handle_message(&RouteNetlinkMessage::NewAddress(on_eth0("2001:db8::5/64", deprecated)));
        assert_eq!(told_addresses(&mut links)[3], "2001:db8::4/64", "an address that is deprecated steps back");
    }

    /// Input: keepalived has a link-local virtual address beside the kernel's own, of any way in which kernels make it.
    #[test]
    fn the_link_local_address_that_the_kernel_made_is_told_from_one_that_was_put_there() {
        let flags = |flags| AddressAttribute::Flags(flags);
        for (own, mark) in [
            ("fe80::77/64", AddressAttribute::Protocol(AddressProtocol::LinkLocal)),
            ("fe80::77/64", flags(AddressFlags::Permanent | AddressFlags::StablePrivacy)),
            ("fe80::ff:fe00:a/64", flags(AddressFlags::Permanent)),
        ] {
            let mut links = listed(&[]);
            let vip = on_eth0("fe80::5/64", vec![AddressAttribute::Protocol(AddressProtocol::Other(18))]);
            links.handle_message(&RouteNetlinkMessage::NewAddress(vip));
            links.handle_message(&RouteNetlinkMessage::NewAddress(on_eth0(own, vec![mark])));
            let told = facts(&mut links);
            let [Fact::Link(ETH0, Some(link))] = told.as_slice() else { panic!("{told:?}") };
            let own: IpNet = own.parse().unwrap();
            assert_eq!(link.kernels, [own.addr()].into());
        }
    }

    #[test]
    fn an_address_that_crier_put_there_is_not_the_hosts_own() {
        let mut links = listed(&[]);
        let bound = addresses::message(ETH0, false, "192.168.35.100".parse().unwrap(), 7);
        links.handle_message(&RouteNetlinkMessage::NewAddress(bound));
        assert_eq!(facts(&mut links), []);
    }
}
