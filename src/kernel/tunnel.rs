//! The device of the tunnel that leads packets of pods to owners on other links: netlink's messages about it, and what they say of it.
//! Floor 2, because it reads netlink messages; it has no socket. `steering` sends them.
//!
//! It is one VXLAN-GPE device in external mode: where a packet goes stands in the route that leads to the device, so one device
//! serves all owners, over IPv4 and IPv6, and what it carries is of either family without a frame of Ethernet around it. VXLAN is in
//! every kernel that CNIs run on, and routers spread its UDP ports over equal paths. crier's device is known by its group.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoKind, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel, RouteLwEnCapType, RouteLwTunnelEncap,
    RouteMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use crate::names::InterfaceName;

/// A device that has the name of the tunnel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Ours(Device),
    /// Another program's, of this kind.
    Foreign {
        kind: String,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// Its UDP port; `None` where it is not such a device as crier makes today.
    pub(super) port: Option<u16>,
    /// It is up, and its reverse path filter is loose.
    pub(super) is_set: bool,
}

/// The device of this name in a list of links.
pub(super) fn find(links: &[RouteNetlinkMessage], name: &InterfaceName) -> Option<Found> {
    links.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => has_name(link, name).then(|| found(link)),
        // The enum is not ours; nothing else is a link.
        _ => None,
    })
}

/// crier's device with this port under another name than this one: its index and that name. It has the port, and what keeps strangers out
/// of the tunnel goes by the name.
pub(super) fn renamed(links: &[RouteNetlinkMessage], name: &InterfaceName, port: u16) -> Option<(u32, InterfaceName)> {
    links.iter().find_map(|message| {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let Found::Ours(device) = found(link) else { return None };
        let other = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(told) => Some(InterfaceName::from(told.as_str())),
            // The enum is not ours.
            _ => None,
        })?;
        (device.port == Some(port) && other != *name).then_some((device.index, other))
    })
}

fn has_name(link: &LinkMessage, name: &InterfaceName) -> bool {
    link.attributes.iter().any(|it| matches!(it, LinkAttribute::IfName(told) if told == name.as_str()))
}

fn found(link: &LinkMessage) -> Found {
    let mut device = Device { index: link.header.index, ..Device::default() };
    let (mut kind, mut is_grouped, mut passes) = (None, false, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Group(group) => is_grouped = *group == GROUP,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(told) => kind = Some(told.clone()),
                        LinkInfo::Data(InfoData::Vxlan(data)) => device.port = port(data),
                        // The enum is not ours.
                        _ => {}
                    }
                }
            }
            LinkAttribute::AfSpecUnspec(specs) => passes |= specs.iter().any(passes_packets),
            // The enum is not ours; nothing else tells what crier sets.
            _ => {}
        }
    }
    if kind != Some(InfoKind::Vxlan) || !is_grouped {
        let kind = kind.map_or_else(|| "a link without a kind".to_owned(), |kind| format!("a link of kind {kind}"));
        return Found::Foreign { kind };
    }
    device.is_set = passes && link.header.flags.contains(LinkFlags::Up);
    Found::Ours(device)
}

/// The port of a device that carries packets without frames to wherever routes say.
fn port(data: &[InfoVxlan]) -> Option<u16> {
    let is = |wanted: fn(&InfoVxlan) -> bool| data.iter().any(wanted);
    let is_such = is(|it| matches!(it, InfoVxlan::Gpe)) && is(|it| matches!(it, InfoVxlan::CollectMetadata(true)));
    data.iter().find_map(|it| match it {
        InfoVxlan::Port(port) => is_such.then_some(*port),
        // The enum is not ours.
        _ => None,
    })
}

fn passes_packets(spec: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet(inet) = spec else { return false };
    inet.iter().any(|it| matches!(it, AfSpecInet::DevConf(conf) if conf.rp_filter == LOOSE && conf.forwarding == 1))
}

/// Makes the device. It is down: [`set`] brings it up.
pub(super) fn make(name: &InterfaceName, port: u16) -> RouteNetlinkMessage {
    let data =
        vec![InfoVxlan::CollectMetadata(true), InfoVxlan::Gpe, InfoVxlan::Learning(false), InfoVxlan::Port(port)];
    let info = vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))];
    let attributes =
        [LinkAttribute::IfName(name.to_string()), LinkAttribute::Group(GROUP), LinkAttribute::LinkInfo(info)];
    RouteNetlinkMessage::NewLink(link(0, attributes.to_vec()))
}

/// What gives the device its MTU, lets packets of pods pass its reverse path filter, and then brings it up; each with its flags.
///
/// The filter is loose on this device alone: replies to a pod go by the CNI's route, so none leads back by the tunnel, and the kernel
/// acts on the larger of the device's value and that of `all`, where 2 is loose and 1 strict. On a device without an address of IPv4 a
/// loose filter is a strict one, so it has one that stands for none.
pub(super) fn set(index: u32, mtu: u32) -> [(RouteNetlinkMessage, u16); 4] {
    let mut conf = InetDevConf::default();
    (conf.rp_filter, conf.forwarding) = (LOOSE, 1);
    let v4 = AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]);
    // Nobody on it could be asked who has an address. A host without IPv6 refuses this alone.
    let v6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let with = |attributes: Vec<LinkAttribute>| (RouteNetlinkMessage::SetLink(link(index, attributes)), 0);
    let mut up = link(index, Vec::new());
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    [
        with(vec![LinkAttribute::Mtu(mtu), LinkAttribute::AfSpecUnspec(vec![v4])]),
        with(vec![LinkAttribute::AfSpecUnspec(vec![v6])]),
        address(index),
        (RouteNetlinkMessage::SetLink(up), 0),
    ]
}

/// What gives the device its address. It is refused where the device has it.
pub(super) fn address(index: u32) -> (RouteNetlinkMessage, u16) {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = 32;
    message.header.scope = AddressScope::Link;
    message.attributes = vec![AddressAttribute::Local(DUMMY.into()), AddressAttribute::Address(DUMMY.into())];
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

pub(super) fn remove(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(link(index, Vec::new()))
}

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

/// What a route says of the packets around those that it leads into the tunnel.
pub(super) fn encapsulation(to: IpAddr, from: IpAddr) -> Option<[RouteAttribute; 2]> {
    let (kind, parts) = match (to, from) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let parts = [RouteIpTunnel::Id(IDENTIFIER), RouteIpTunnel::Destination(to), RouteIpTunnel::Source(from)];
            (RouteLwEnCapType::Ip, parts.map(RouteLwTunnelEncap::Ip).to_vec())
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            // RFC 8200 §8.1: over IPv6 a UDP packet has a checksum.
            let flags = RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum);
            let parts =
                [RouteIp6Tunnel::Id(IDENTIFIER), RouteIp6Tunnel::Destination(to), RouteIp6Tunnel::Source(from), flags];
            (RouteLwEnCapType::Ip6, parts.map(RouteLwTunnelEncap::Ip6).to_vec())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    Some([RouteAttribute::EncapType(kind), RouteAttribute::Encap(parts)])
}

/// The destination and the source of the packets around those that the route leads into a tunnel.
pub(super) fn ends(route: &RouteMessage) -> Option<(IpAddr, IpAddr)> {
    let (mut to, mut from) = (None, None);
    let parts = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Encap(parts) => Some(parts),
        // The enum is not ours.
        _ => None,
    })?;
    for part in parts {
        match part {
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(told)) => to = Some(IpAddr::V4(*told)),
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(told)) => from = Some(IpAddr::V4(*told)),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(told)) => to = Some(IpAddr::V6(*told)),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(told)) => from = Some(IpAddr::V6(*told)),
            // The enum is not ours; the rest is the same in every route of crier's.
            _ => {}
        }
    }
    Some((to?, from?))
}

/// What the packets around cost: the headers of IP, UDP and VXLAN.
pub(super) fn overhead(to: IpAddr) -> u32 {
    match to {
        IpAddr::V4(_) => 20 + 8 + 8,
        IpAddr::V6(_) => 40 + 8 + 8,
    }
}

/// The least MTU that the tunnel is given: below it there is no IPv6 (RFC 8200 §5).
pub(super) const LEAST_MTU: u32 = 1280;

/// The group of crier's device, which it has from its first moment on: the number of crier's routes and rules.
const GROUP: u32 = 67;

/// One network for all: who is meant stands in the destination.
const IDENTIFIER: u64 = 1;

/// RFC 7600 §6: the IPv4 dummy address, which nobody else has and no packet goes to.
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// RFC 3704 §2.4: any route back will do.
const LOOSE: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{Emitable, NetlinkBuffer, NetlinkMessage, NetlinkPayload};

    fn octets(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut octets = vec![0; message.buffer_len()];
        message.emit(&mut octets);
        octets
    }

    /// The same message as the kernel would tell it.
    fn told(message: RouteNetlinkMessage) -> RouteNetlinkMessage {
        let octets = octets(message);
        assert!(NetlinkBuffer::new_checked(&octets).is_ok());
        let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&octets).expect("a message");
        let NetlinkPayload::InnerMessage(message) = read.payload else { panic!("{read:?}") };
        message
    }

    fn contains(all: &[u8], part: &[u8]) -> bool {
        all.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn the_device_is_made_as_one_that_carries_packets_to_where_routes_say() {
        let octets = octets(make(&"crier-egress".into(), 4790));
        assert!(contains(&octets, b"\x11\0\x03\0crier-egress\0"), "IFLA_IFNAME");
        assert!(contains(&octets, &[8, 0, 27, 0, 67, 0, 0, 0]), "IFLA_GROUP, by which it is known again");
        assert!(contains(&octets, b"vxlan"), "the kind");
        assert!(contains(&octets, &[5, 0, 25, 0, 1]), "IFLA_VXLAN_COLLECT_METADATA");
        assert!(contains(&octets, &[4, 0, 27, 0]), "IFLA_VXLAN_GPE");
        assert!(contains(&octets, &[6, 0, 15, 0, 0x12, 0xb6]), "IFLA_VXLAN_PORT in network order");
    }

    #[test]
    fn the_filter_is_loosened_on_the_device_alone() {
        let [settings, v6, address, up] = set(7, 1464).map(|(message, _)| octets(message));
        assert_eq!(
            (up[20], settings[24], settings[28]),
            (7, 0, 0),
            "the index; up comes last, so that no packet is filtered"
        );
        assert!(contains(&address, &[8, 0, 2, 0, 192, 0, 0, 8]), "IFA_LOCAL, without which the filter is not loose");
        let octets = settings;
        // IFLA_INET_CONF with the entries 1 (forwarding) and 8 (rp_filter), each as an attribute of its own.
        assert!(contains(&octets, &[8, 0, 8, 0, 2, 0, 0, 0]), "rp_filter = 2");
        assert!(contains(&octets, &[8, 0, 1, 0, 1, 0, 0, 0]), "forwarding = 1");
        assert!(contains(&octets, &[8, 0, 4, 0, 0xb8, 5, 0, 0]), "IFLA_MTU");
        assert!(contains(&v6, &[5, 0, 8, 0, 1]), "IFLA_INET6_ADDR_GEN_MODE: no address");
    }

    /// Input: links of the tunnel's name: crier's, one of another group, one of another kind, one with another port. Output: only
    /// the first and the last are crier's.
    #[test]
    fn a_device_of_the_name_is_criers_only_with_its_kind_and_its_group() {
        let name: InterfaceName = "crier-egress".into();
        let change = |with: &dyn Fn(&mut LinkMessage)| {
            let RouteNetlinkMessage::NewLink(mut link) = told(make(&name, 4790)) else { panic!("a link") };
            link.header.index = 7;
            with(&mut link);
            find(&[RouteNetlinkMessage::NewLink(link)], &name)
        };
        let Some(Found::Ours(device)) = change(&|_| ()) else { panic!("it is crier's") };
        assert_eq!((device.index, device.port, device.is_set), (7, Some(4790), false), "not up yet");
        let group = |link: &mut LinkMessage| link.attributes.retain(|it| !matches!(it, LinkAttribute::Group(_)));
        let foreign = Found::Foreign { kind: "a link of kind vxlan".to_owned() };
        assert_eq!(change(&group), Some(foreign));
        let dummy = |link: &mut LinkMessage| {
            link.attributes.retain(|it| !matches!(it, LinkAttribute::LinkInfo(_)));
            link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)]));
        };
        assert_eq!(change(&dummy), Some(Found::Foreign { kind: "a link of kind dummy".to_owned() }));
        assert_eq!(find(&[make(&"other".into(), 4790)], &name), None);
        let Some(Found::Ours(device)) = find(&[make(&name, 1)], &name) else { panic!("it is crier's") };
        assert_eq!(device.port, Some(1), "it is to be made anew");
    }

    /// Input: crier's device after `ip link set crier-egress name other0`, with another port, and another program's.
    #[test]
    fn a_device_of_criers_that_was_renamed_is_known() {
        let name: InterfaceName = "crier-egress".into();
        let of = |other: &str, port| renamed(&[told(make(&other.into(), port))], &name, 4790).map(|(_, name)| name);
        assert_eq!(of("other0", 4790), Some("other0".into()));
        assert_eq!(of("crier-egress", 4790), None);
        assert_eq!(of("other0", 4789), None, "it may be of another crier");
        let RouteNetlinkMessage::NewLink(mut link) = told(make(&"other0".into(), 4790)) else { panic!("a link") };
        link.attributes.retain(|it| !matches!(it, LinkAttribute::Group(_)));
        assert_eq!(renamed(&[RouteNetlinkMessage::NewLink(link)], &name, 4790), None);
    }

    #[test]
    fn where_packets_go_is_read_back_from_a_route_in_both_families_and_never_of_two() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (to, from) in [("10.1.2.12", "10.1.1.11"), ("fd01:2::12", "fd01:1::11")] {
            let mut route = RouteMessage::default();
            route.attributes.extend(encapsulation(ip(to), ip(from)).expect("one family"));
            let RouteNetlinkMessage::NewRoute(read) = told(RouteNetlinkMessage::NewRoute(route)) else {
                panic!("a route")
            };
            assert_eq!(ends(&read), Some((ip(to), ip(from))));
        }
        assert_eq!(encapsulation(ip("10.1.2.12"), ip("fd01:1::11")), None);
        assert_eq!(ends(&RouteMessage::default()), None);
    }
}
