//! Leads replies out by the network that the requests came in by: rules for the marks of the networks in the egress slice, and
//! routing tables for those that have none of their own. Floor 2. An actuator; it touches only rules and routes that carry crier's
//! number. `egress::task` sets the marks.
//!
//! ```text
//! rule-priority + 1   what comes in by the link and is marked: the main table, as without the mark
//! rule-priority + 2   what is marked: the table of the network
//! ```
//!
//! The first rule is for the request itself. It is marked for the kernel's reverse path filter alone, which asks without the link
//! and so comes to the second. In a VRF the kernel's own rule comes before both.
//!
//! What another program removes is put back when the kernel tells. When the agent stops all of it stays.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::marked::{self, MarkedRule};
use super::netlink::{Complaints, Event, Netlink, NetlinkError, PROTOCOL, address_family, family_of};
use super::routes;
use crate::address::Family;
use crate::config::{EgressSettings, FOR_NETWORKS};
use crate::names::InterfaceName;
use crate::plan::slice::{EgressSlice, ReturnNetwork, ReturnTable};

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps rules and routes as the slice wants them. Never ends by itself, and may be dropped at any time.
pub async fn run(mut slices: watch::Receiver<EgressSlice>, settings: EgressSettings) {
    let mut complaints = Complaints::default();
    loop {
        let Err(error) = follow(&mut slices, &settings).await;
        if complaints.is_new(&error) {
            warn!(%error, "routes for replies by extra networks cannot be set, so replies leave by the default route; trying again");
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Takes away all rules and routes of networks: for `crier cleanup`. Says how many there were.
///
/// # Errors
/// What the kernel refused; some may be gone by then.
pub async fn take_away(settings: &EgressSettings) -> Result<usize, String> {
    marked::take_away::<Part>(settings).await.map_err(|error| error.to_string())
}

async fn follow(
    slices: &mut watch::Receiver<EgressSlice>,
    settings: &EgressSettings,
) -> Result<std::convert::Infallible, NetlinkError> {
    let mut netlink: Option<Netlink> = None;
    let mut tidied = false;
    loop {
        let slice = slices.borrow_and_update().clone();
        // Without networks there is nothing to listen for. The first look takes away what an earlier life left.
        if slice.planned && (!slice.networks.is_empty() || netlink.is_some() || !tidied) {
            let open = match netlink.take() {
                Some(open) => open,
                None => Netlink::open_for(&marked::GROUPS)?,
            };
            let netlink = netlink.insert(open);
            work(&wanted(&slice), settings, netlink).await?;
            tidied = true;
        }
        if slice.networks.is_empty() {
            netlink = None;
        }
        tokio::select! {
            changed = slices.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            concerned = concerned(netlink.as_mut(), settings) => concerned?,
        }
    }
}

/// Waits for an event about a rule, or about a route in one of the tables.
async fn concerned(netlink: Option<&mut Netlink>, settings: &EgressSettings) -> Result<(), NetlinkError> {
    let Some(netlink) = netlink else { return std::future::pending().await };
    loop {
        match netlink.event().await {
            Event::Closed => return Err(NetlinkError::Ended),
            Event::Overrun => break,
            Event::Message(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route))
                if !tables(settings).contains(&routes::table(&route)) => {}
            Event::Message(_) => break,
        }
    }
    // Events of our own changes come too; one look covers all of them.
    while let Some(event) = netlink.pending_event() {
        if let Event::Closed = event {
            return Err(NetlinkError::Ended);
        }
    }
    Ok(())
}

/// One rule or route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// In the own table of a slot.
    Route { slot: u8, to: IpNet, hop: Hop },
    /// Requests that come in by the link and are marked with the slot.
    Request { slot: u8, link: InterfaceName, family: Family },
    /// Replies that are marked with the slot.
    Reply { slot: u8, table: u32, family: Family },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Hop {
    Via {
        via: IpAddr,
        link: u32,
    },
    Link(u32),
    /// On to the next rule: the destination is inside of the cluster.
    Throw,
}

fn wanted(slice: &EgressSlice) -> BTreeSet<Part> {
    slice.networks.iter().flat_map(|network| of_network(network, slice)).collect()
}

fn of_network(network: &ReturnNetwork, slice: &EgressSlice) -> Vec<Part> {
    let ReturnNetwork { name: _, slot, links, table } = network;
    let slot = *slot;
    match table {
        ReturnTable::Vrf(table) => {
            Family::BOTH.map(|family| Part::Reply { slot, table: *table, family }).into_iter().collect()
        }
        ReturnTable::Own { gateways, subnets } => {
            let mut parts = Vec::new();
            let has = |family: &Family| {
                gateways.iter().any(|it| Family::of(*it) == *family)
                    || subnets.iter().any(|it| Family::of(it.addr()) == *family)
            };
            // Replies of another family leave by the main table, marked or not.
            let families: Vec<Family> = Family::BOTH.into_iter().filter(has).collect();
            for family in families.iter().copied() {
                parts.push(Part::Reply { slot, table: 0, family });
                parts.extend(links.values().map(|link| Part::Request { slot, link: link.clone(), family }));
            }
            for index in links.keys() {
                let via = |via: &IpAddr| {
                    let to = super::vrfs::wanted::everything(Family::of(*via));
                    Part::Route { slot, to, hop: Hop::Via { via: *via, link: *index } }
                };
                parts.extend(gateways.iter().map(via));
                let on_link = |net: &IpNet| Part::Route { slot, to: *net, hop: Hop::Link(*index) };
                parts.extend(subnets.iter().map(on_link));
            }
            let cluster: Vec<IpNet> = slice.cluster.iter().copied().collect();
            let of_families = |net: &IpNet| families.contains(&Family::of(net.addr()));
            let inside = IpNet::aggregate(&cluster).into_iter();
            let inside = inside.filter(|net| of_families(net) && !subnets.contains(net));
            parts.extend(inside.map(|to| Part::Route { slot, to, hop: Hop::Throw }));
            parts
        }
    }
}

async fn work(wanted: &BTreeSet<Part>, settings: &EgressSettings, netlink: &mut Netlink) -> Result<(), NetlinkError> {
    let present = marked::present(netlink, settings).await?;
    let wanted: BTreeSet<Part> = wanted.iter().cloned().map(|part| part.with_table(settings)).collect();
    // A route to a gateway that is replaced has to go first, and a rule that leads to a table comes when its routes are there.
    for part in present.difference(&wanted) {
        marked::change(part, false, settings, netlink).await?;
    }
    for part in wanted.difference(&present) {
        marked::change(part, true, settings, netlink).await?;
        if let Part::Reply { table, family, .. } = part {
            info!(table, ?family, "replies to what came in by an extra network leave by it");
        }
    }
    Ok(())
}

fn our_route(route: &RouteMessage, settings: &EgressSettings) -> Option<Part> {
    let number = routes::table(route);
    let slot = (1..=settings.slots()).find(|slot| own_table(settings, *slot) == number)?;
    if route.header.protocol != PROTOCOL {
        return None;
    }
    let (mut gateway, mut link, mut to) = (None, None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Gateway(told) => gateway = address(told),
            RouteAttribute::Destination(told) => to = address(told),
            RouteAttribute::Oif(told) => link = Some(*told),
            // The enum is not ours; nothing else describes a route of ours.
            _ => {}
        }
    }
    let to = match to {
        Some(ip) => IpNet::new(ip, route.header.destination_prefix_length).ok()?,
        None => super::vrfs::wanted::everything(family_of(route.header.address_family)?),
    };
    let hop = match (route.header.kind, gateway, link) {
        (RouteType::Throw, ..) => Hop::Throw,
        (_, Some(via), Some(link)) => Hop::Via { via, link },
        (_, None, Some(link)) => Hop::Link(link),
        (_, _, None) => return None,
    };
    Some(Part::Route { slot, to, hop })
}

fn address(told: &RouteAddress) -> Option<IpAddr> {
    match told {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        // The enum is not ours.
        _ => None,
    }
}

/// The number of the table that crier makes for a slot.
fn own_table(settings: &EgressSettings, slot: u8) -> u32 {
    settings.first_route_table.saturating_add(FOR_NETWORKS).saturating_add(u32::from(slot) - 1)
}

fn tables(settings: &EgressSettings) -> std::ops::RangeInclusive<u32> {
    own_table(settings, 1)..=own_table(settings, settings.slots().max(1))
}

impl Part {
    /// Names the table that a reply is led to, where it is one of crier's own.
    fn with_table(self, settings: &EgressSettings) -> Part {
        match self {
            Part::Reply { slot, table: 0, family } => Part::Reply { slot, table: own_table(settings, slot), family },
            Part::Reply { .. } | Part::Request { .. } | Part::Route { .. } => self,
        }
    }
}

impl marked::Part for Part {
    /// What is there already, or gone already; a host without the address family has no packets of it. A link that went down takes
    /// its routes along, and tells.
    const FINE: &'static [i32] = &[
        libc::EEXIST,
        libc::ESRCH,
        libc::ENOENT,
        libc::ENODEV,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EAFNOSUPPORT,
        libc::EOPNOTSUPP,
    ];

    fn read(message: &RouteNetlinkMessage, settings: &EgressSettings) -> Option<Part> {
        match message {
            RouteNetlinkMessage::NewRule(rule) => {
                let MarkedRule { slot, behind, table, link, family } = MarkedRule::read(rule, settings)?;
                match (behind, link) {
                    (1, Some(link)) => Some(Part::Request { slot, link, family }),
                    (2, None) => Some(Part::Reply { slot, table, family }),
                    (_, _) => None,
                }
            }
            RouteNetlinkMessage::NewRoute(route) => our_route(route, settings),
            // The enum is not ours; nothing else is a rule or a route.
            _ => None,
        }
    }

    fn message(&self, settings: &EgressSettings, new: bool) -> RouteNetlinkMessage {
        match self.clone() {
            Part::Request { slot, link, family } => {
                let (table, link) = (u32::from(RouteHeader::RT_TABLE_MAIN), Some(link));
                MarkedRule { slot, behind: 1, table, link, family }.message(settings, new)
            }
            Part::Reply { slot, table, family } => {
                MarkedRule { slot, behind: 2, table, link: None, family }.message(settings, new)
            }
            Part::Route { slot, to, hop } => {
                let message = route(own_table(settings, slot), &to, &hop);
                if new { RouteNetlinkMessage::NewRoute(message) } else { RouteNetlinkMessage::DelRoute(message) }
            }
        }
    }
}

fn route(table: u32, to: &IpNet, hop: &Hop) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.protocol = PROTOCOL;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.address_family = address_family(Family::of(to.addr()));
    message.header.destination_prefix_length = to.prefix_len();
    message.attributes.push(RouteAttribute::Table(table));
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.addr().into()));
    }
    match hop {
        Hop::Via { via, link } => {
            message.attributes.extend([RouteAttribute::Gateway((*via).into()), RouteAttribute::Oif(*link)]);
        }
        Hop::Link(link) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::Oif(*link));
        }
        Hop::Throw => message.header.kind = RouteType::Throw,
    }
    message
}
