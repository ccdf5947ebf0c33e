//! Netlink's messages about VRFs: what the lists say, and what makes a change.
//! Floor 2, because it reads netlink messages; it has no socket. `wanted` decides, `vrfs` sends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::wanted::{CLUSTER_PRIORITY, Change, Found, FoundLink, FoundRoute, Hop, L3MDEV_PRIORITY, Route, everything};
use crate::address::{Family, has_subnet, host_prefix};
use crate::kernel::netlink::{self, PROTOCOL, UNREACHABLE_METRIC, address_family, family_of, table_of};
use crate::kernel::routes;
use crate::names::InterfaceName;

/// What the kernel listed.
#[derive(Debug, Default)]
pub struct Lists {
    pub links: Vec<RouteNetlinkMessage>,
    pub addresses: Vec<RouteNetlinkMessage>,
    pub routes: Vec<RouteNetlinkMessage>,
    pub rules: Vec<RouteNetlinkMessage>,
}

impl Lists {
    /// What they say of VRFs; of routes, those in `tables`.
    pub fn found(&self, tables: &BTreeSet<u32>) -> Found {
        let mut found = Found { defaults: routes::of_main(&self.routes), ..Found::default() };
        let mut connected = BTreeSet::new();
        let names: BTreeMap<u32, InterfaceName> = self.links.iter().filter_map(netlink::index_and_name).collect();
        for message in &self.links {
            if let (RouteNetlinkMessage::NewLink(link), Some((_, name))) = (message, netlink::index_and_name(message)) {
                found.links.insert(name, found_link(link, &names));
            }
        }
        for message in &self.addresses {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && let Some(link) = names.get(&address.header.index).and_then(|name| found.links.get_mut(name))
            {
                link.carries.extend(netlink::own_and_peer(address).map(|(local, _)| local));
                match described(address) {
                    Some((net, true)) => drop(link.addresses.insert(net)),
                    Some((net, false)) => drop(link.leased.insert(net)),
                    None => {}
                }
            }
        }
        for message in &self.routes {
            if let RouteNetlinkMessage::NewRoute(route) = message
                && tables.contains(&table_of(route))
            {
                let parts = RouteParts::of(route, &names);
                connected.extend(parts.and_then(|parts| connected_network(route, parts)));
                found.routes.extend(parts.and_then(|parts| found_route(route, parts)));
            }
        }
        note_unrouted(&mut found, &connected);
        for message in &self.rules {
            if let RouteNetlinkMessage::NewRule(rule) = message {
                note_rule(rule, &mut found);
            }
        }
        found
    }
}

/// Notes which addresses of the links in VRFs have lost the kernel's own route to their network: a table, the link, the network.
fn note_unrouted(found: &mut Found, connected: &BTreeSet<(u32, &InterfaceName, IpNet)>) {
    let tables: BTreeMap<InterfaceName, u32> =
        found.links.iter().filter_map(|(name, link)| Some((name.clone(), link.table?))).collect();
    for (name, link) in found.links.iter_mut().filter(|(_, link)| link.up) {
        let Some(table) = link.master.as_ref().and_then(|master| tables.get(master)) else { continue };
        // A host prefix leads to no network.
        let is_unrouted = |net: &&IpNet| has_subnet(net) && !connected.contains(&(*table, name, net.trunc()));
        link.unrouted = link.addresses.iter().filter(is_unrouted).copied().collect();
    }
}

fn found_link(link: &LinkMessage, names: &BTreeMap<u32, InterfaceName>) -> FoundLink {
    let master = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => names.get(index).cloned(),
        // The enum is not ours.
        _ => None,
    });
    FoundLink {
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        table: routes::vrf_table(link),
        master,
        addresses: BTreeSet::new(),
        carries: BTreeSet::new(),
        leased: BTreeSet::new(),
        unrouted: BTreeSet::new(),
    }
}

/// The address with its network, and whether it is without a lifetime: such a one nobody renews, so nobody would put it back.
fn described(message: &AddressMessage) -> Option<(IpNet, bool)> {
    let flags = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        // The enum is not ours.
        _ => None,
    });
    let (local, _) = netlink::own_and_peer(message)?;
    let is_lasting = flags.is_none_or(|flags| flags.contains(AddressFlags::Permanent));
    IpNet::new(local, message.header.prefix_len).ok().map(|net| (net, is_lasting))
}

/// What describes a route of a VRF.
#[derive(Debug, Clone, Copy)]
struct RouteParts<'a> {
    to: IpNet,
    gateway: Option<IpAddr>,
    link: Option<&'a InterfaceName>,
}

impl<'a> RouteParts<'a> {
    /// `None` for a route of another family than VRFs have.
    fn of(message: &RouteMessage, names: &'a BTreeMap<u32, InterfaceName>) -> Option<RouteParts<'a>> {
        let family = family_of(message.header.address_family)?;
        let (mut gateway, mut link, mut to) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(told) => to = address(told),
                RouteAttribute::Gateway(told) => gateway = address(told),
                RouteAttribute::Oif(index) => link = names.get(index),
                // The enum is not ours; nothing else describes a route of a VRF.
                _ => {}
            }
        }
        let to = match to {
            Some(ip) => IpNet::new(ip, message.header.destination_prefix_length).ok()?,
            None => everything(family),
        };
        Some(RouteParts { to, gateway, link })
    }
}

fn found_route(message: &RouteMessage, RouteParts { to, gateway, link }: RouteParts<'_>) -> Option<FoundRoute> {
    let hop = match (message.header.kind, gateway, link) {
        (RouteType::Unreachable, ..) => Hop::Unreachable,
        (RouteType::Unicast, Some(via), Some(link)) => Hop::Via { via, link: link.clone() },
        (_, _, _) => return None,
    };
    let route = Route { table: table_of(message), to, hop };
    Some(FoundRoute { route, ours: message.header.protocol == PROTOCOL })
}

/// The network of an address, where this is the route that the kernel made with it.
fn connected_network<'a>(
    message: &RouteMessage,
    RouteParts { to, gateway: _, link }: RouteParts<'a>,
) -> Option<(u32, &'a InterfaceName, IpNet)> {
    let is_it = message.header.kind == RouteType::Unicast && message.header.protocol == RouteProtocol::Kernel;
    link.filter(|_| is_it).map(|link| (table_of(message), link, to))
}

fn address(told: &RouteAddress) -> Option<IpAddr> {
    match told {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        // The enum is not ours; VRFs have no other addresses.
        _ => None,
    }
}

fn note_rule(rule: &RuleMessage, found: &mut Found) {
    let Some(family) = family_of(rule.header.family) else { return };
    found.families.insert(family);
    let (mut protocol, mut priority, mut table, mut to, mut is_narrow) =
        (None, 0, u32::from(rule.header.table), None, false);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::L3MDev(true) => {
                found.l3mdev.insert(family);
                return;
            }
            RuleAttribute::Destination(ip) => to = IpNet::new(*ip, rule.header.dst_len).ok(),
            RuleAttribute::Priority(told) => priority = *told,
            RuleAttribute::Protocol(told) => protocol = Some(*told),
            RuleAttribute::Table(told) => table = *told,
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::FwMask(_) => {}
            // The enum is not ours; whatever else a rule asks for, it does not hold for every packet to the destination.
            _ => is_narrow = true,
        }
    }
    let is_to_main = rule.header.action == RuleAction::ToTable && table == routes::MAIN && priority < L3MDEV_PRIORITY;
    let Some(to) = to.filter(|_| is_to_main && !is_narrow) else { return };
    match protocol == Some(PROTOCOL) && priority == CLUSTER_PRIORITY {
        true => found.our_rules.insert(to),
        false => found.other_rules.insert(to),
    };
}

/// The requests that make a change, each with its flags; none where what it is about is not there.
pub fn requests(change: &Change, found: &Found) -> Vec<(RouteNetlinkMessage, u16)> {
    let index = |name: &InterfaceName| found.links.get(name).map(|link| link.index);
    let new = NLM_F_CREATE | NLM_F_EXCL;
    let one = match change {
        Change::AddRule(net) => Some((RouteNetlinkMessage::NewRule(cluster_rule(net)), new)),
        Change::RemoveRule(net) => Some((RouteNetlinkMessage::DelRule(cluster_rule(net)), 0)),
        Change::AddL3mdevRule(family) => Some((RouteNetlinkMessage::NewRule(l3mdev_rule(*family)), new)),
        Change::MakeDevice { name, table } => Some((RouteNetlinkMessage::NewLink(device(name, *table)), new)),
        Change::RemoveDevice { name } => {
            index(name).map(|index| (RouteNetlinkMessage::DelLink(link(index, Vec::new())), 0))
        }
        Change::SetUp { name } => index(name).map(|index| (RouteNetlinkMessage::SetLink(up(index)), 0)),
        Change::Enslave { port, vrf, again } => {
            let port = index(port);
            return match (port, index(vrf)) {
                (Some(port), Some(vrf)) => moved(port, vrf, again),
                (_, _) => Vec::new(),
            };
        }
        Change::Release { port, again } => return index(port).map(|port| moved(port, 0, again)).unwrap_or_default(),
        Change::AddAddress { port, net } => index(port).map(|index| added(index, net)),
        Change::RemoveAddress { port, net } => {
            index(port).map(|index| (RouteNetlinkMessage::DelAddress(of_link(index, net)), 0))
        }
        Change::AddRoute(wanted) => route(wanted, found).map(|it| (RouteNetlinkMessage::NewRoute(it), new)),
        Change::RemoveRoute(wanted) => route(wanted, found).map(|it| (RouteNetlinkMessage::DelRoute(it), 0)),
    };
    one.into_iter().collect()
}

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn up(index: u32) -> LinkMessage {
    let mut message = link(index, Vec::new());
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn device(name: &InterfaceName, table: u32) -> LinkMessage {
    let kind = vec![LinkInfo::Kind(InfoKind::Vrf), LinkInfo::Data(InfoData::Vrf(vec![InfoVrf::TableId(table)]))];
    let attributes = vec![LinkAttribute::IfName(name.to_string()), LinkAttribute::LinkInfo(kind)];
    let mut message = link(0, attributes);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// Puts a link into a VRF, or out of any (0), and adds the addresses that this takes away.
fn moved(port: u32, master: u32, again: &[IpNet]) -> Vec<(RouteNetlinkMessage, u16)> {
    let enslave = (RouteNetlinkMessage::SetLink(link(port, vec![LinkAttribute::Controller(master)])), 0);
    std::iter::once(enslave).chain(again.iter().map(|net| added(port, net))).collect()
}

fn added(index: u32, net: &IpNet) -> (RouteNetlinkMessage, u16) {
    (RouteNetlinkMessage::NewAddress(of_link(index, net)), NLM_F_CREATE | NLM_F_EXCL)
}

fn of_link(index: u32, net: &IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = address_family(Family::of(net.addr()));
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    if let IpNet::V4(v4) = net
        && *net != host_prefix(net.addr())
        && v4.prefix_len() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
    }
    message
}

fn cluster_rule(net: &IpNet) -> RuleMessage {
    let mut message = rule(Family::of(net.addr()), CLUSTER_PRIORITY, PROTOCOL);
    message.header.dst_len = net.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes.push(RuleAttribute::Destination(net.addr()));
    message
}

fn l3mdev_rule(family: Family) -> RuleMessage {
    let mut message = rule(family, L3MDEV_PRIORITY, RouteProtocol::Kernel);
    message.attributes.push(RuleAttribute::L3MDev(true));
    message
}

fn rule(of: Family, priority: u32, protocol: RouteProtocol) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(of);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![RuleAttribute::Protocol(protocol), RuleAttribute::Priority(priority)];
    message
}

fn route(wanted: &Route, found: &Found) -> Option<RouteMessage> {
    let Route { table, to, hop } = wanted;
    let mut message = RouteMessage::default();
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.address_family = address_family(Family::of(to.addr()));
    message.header.destination_prefix_length = to.prefix_len();
    message.attributes.push(RouteAttribute::Table(*table));
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.addr().into()));
    }
    match hop {
        Hop::Unreachable => {
            message.header.kind = RouteType::Unreachable;
            message.attributes.push(RouteAttribute::Priority(UNREACHABLE_METRIC));
        }
        Hop::Via { via, link } => {
            message.header.kind = RouteType::Unicast;
            let index = found.links.get(link)?.index;
            message.attributes.extend([RouteAttribute::Gateway((*via).into()), RouteAttribute::Oif(index)]);
        }
    }
    Some(message)
}
