//! Leads packets of pods to the nodes that own their Services' addresses: for each slot of the egress slice a rule for its mark and
//! a routing table with the owner as the next hop. Floor 2. An actuator; it touches only rules and routes that carry crier's number.
//!
//! A table also has an unreachable route, so a packet whose owner has no next hop goes nowhere. What another program removes is put
//! back: rules and routes when the kernel tells. When the agent stops all of it stays: `crier cleanup` takes it away.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::marked::{self, MarkedRule};
use super::netlink::{
    Complaints, Event, Netlink, NetlinkError, PROTOCOL, UNREACHABLE_METRIC, address_family, family_of,
};
use crate::address::Family;
use crate::config::EgressSettings;
use crate::plan::slice::{EgressSlice, Hop};

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps rules and routes as the slice wants them. Never ends by itself, and may be dropped at any time.
pub async fn run(mut slices: watch::Receiver<EgressSlice>, settings: EgressSettings) {
    let mut complaints = Complaints::default();
    loop {
        let Err(error) = follow(&mut slices, &settings).await;
        if complaints.is_new(&error) {
            warn!(%error, "routes to the owners of egress addresses cannot be set; packets for them are held back; trying again");
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Takes away all rules and routes of egress: for `crier cleanup`. Says how many there were.
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
    // Without owners elsewhere there is nothing to do, and nothing to listen for.
    let mut netlink: Option<Netlink> = None;
    loop {
        let slice = slices.borrow_and_update().clone();
        if slice.planned && (netlink.is_some() || !slice.hops.is_empty()) {
            let netlink = match &mut netlink {
                Some(netlink) => netlink,
                None => netlink.insert(Netlink::open_for(&marked::GROUPS)?),
            };
            work(&wanted(&slice), slice.complete, settings, netlink).await?;
        }
        tokio::select! {
            changed = slices.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
            event = event(netlink.as_mut()) => {
                if let Event::Closed = event {
                    return Err(NetlinkError::Ended);
                }
                // Events of our own changes come too; one look covers all of them.
                while let Some(Event::Message(_) | Event::Overrun) = netlink.as_mut().and_then(Netlink::pending_event) {}
            }
        }
    }
}

async fn event(netlink: Option<&mut Netlink>) -> Event {
    match netlink {
        Some(netlink) => netlink.event().await,
        None => std::future::pending().await,
    }
}

/// One rule or route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// The last route of the slot's table.
    Unreachable(u8, Family),
    /// To the owner: the next hop and the index of its link.
    Route(u8, IpAddr, u32),
    /// Marked packets look into the slot's table.
    Rule(u8, Family),
}

fn wanted(slice: &EgressSlice) -> BTreeSet<Part> {
    let of_slot = |(slot, hops): (&u8, &[Option<Hop>; 2])| {
        let slot = *slot;
        let routes = hops.clone().into_iter().flatten().map(move |hop| Part::Route(slot, hop.via, hop.link));
        let frame = Family::BOTH.map(|family| [Part::Unreachable(slot, family), Part::Rule(slot, family)]);
        frame.into_iter().flatten().chain(routes).collect::<Vec<_>>()
    };
    slice.hops.iter().flat_map(of_slot).collect()
}

async fn work(
    wanted: &BTreeSet<Part>,
    complete: bool,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<(), NetlinkError> {
    let present = marked::present(netlink, settings).await?;
    // A route that is replaced goes first: its table has only one default route.
    let is_replaced = |part: &Part| match part {
        Part::Route(slot, via, _) => wanted
            .iter()
            .any(|it| matches!(it, Part::Route(other, to, _) if other == slot && to.is_ipv4() == via.is_ipv4())),
        Part::Unreachable(..) | Part::Rule(..) => false,
    };
    let spare = present.difference(wanted).filter(|part| complete || is_replaced(part));
    for part in spare.collect::<Vec<_>>().into_iter().rev() {
        marked::change(part, false, settings, netlink).await?;
    }
    for part in wanted.difference(&present) {
        marked::change(part, true, settings, netlink).await?;
        if let Part::Route(slot, via, _) = part {
            info!(slot, next_hop = %via, "packets of pods are led to the owner of their Service's address");
        }
    }
    Ok(())
}

fn our_route(route: &RouteMessage, settings: &EgressSettings) -> Option<Part> {
    let mut table = u32::from(route.header.table);
    let (mut gateway, mut link) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(told) => table = *told,
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => gateway = Some(IpAddr::V4(*v4)),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => gateway = Some(IpAddr::V6(*v6)),
            RouteAttribute::Oif(told) => link = Some(*told),
            // The enum is not ours; nothing else describes a default route of ours.
            _ => {}
        }
    }
    let slot = (1..=settings.slots()).find(|slot| table == number(settings, *slot))?;
    if route.header.protocol != PROTOCOL || route.header.destination_prefix_length != 0 {
        return None;
    }
    match (route.header.kind, gateway, link) {
        (RouteType::Unreachable, ..) => Some(Part::Unreachable(slot, family_of(route.header.address_family)?)),
        (_, Some(gateway), Some(link)) => Some(Part::Route(slot, gateway, link)),
        (_, _, _) => None,
    }
}

/// The number of the slot's table.
fn number(settings: &EgressSettings, slot: u8) -> u32 {
    settings.first_route_table.saturating_add(u32::from(slot) - 1)
}

impl marked::Part for Part {
    /// What is there already, or gone already; a host without the address family has no packets of it.
    const FINE: &'static [i32] = &[libc::EEXIST, libc::ESRCH, libc::ENOENT, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];

    fn read(message: &RouteNetlinkMessage, settings: &EgressSettings) -> Option<Part> {
        match message {
            RouteNetlinkMessage::NewRule(rule) => {
                let rule = MarkedRule::read(rule, settings).filter(|rule| rule.behind == 0)?;
                Some(Part::Rule(rule.slot, rule.family))
            }
            RouteNetlinkMessage::NewRoute(route) => our_route(route, settings),
            // The enum is not ours; nothing else is a rule or a route.
            _ => None,
        }
    }

    fn message(&self, settings: &EgressSettings, new: bool) -> RouteNetlinkMessage {
        match self {
            Part::Rule(slot, family) => {
                let (table, link) = (number(settings, *slot), None);
                MarkedRule { slot: *slot, behind: 0, table, link, family: *family }.message(settings, new)
            }
            Part::Route(..) | Part::Unreachable(..) if new => RouteNetlinkMessage::NewRoute(self.route(settings)),
            Part::Route(..) | Part::Unreachable(..) => RouteNetlinkMessage::DelRoute(self.route(settings)),
        }
    }
}

impl Part {
    fn route(&self, settings: &EgressSettings) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.protocol = PROTOCOL;
        message.header.scope = RouteScope::Universe;
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        let (slot, of) = match self {
            Part::Route(slot, via, link) => {
                message.header.kind = RouteType::Unicast;
                message.attributes = vec![RouteAttribute::Gateway((*via).into()), RouteAttribute::Oif(*link)];
                (*slot, Family::of(*via))
            }
            Part::Unreachable(slot, of) | Part::Rule(slot, of) => {
                message.header.kind = RouteType::Unreachable;
                message.attributes = vec![RouteAttribute::Priority(UNREACHABLE_METRIC)];
                (*slot, *of)
            }
        };
        message.header.address_family = address_family(of);
        message.attributes.push(RouteAttribute::Table(number(settings, slot)));
        message
    }
}
