//! Leads packets of pods to the nodes that own their Services' addresses: for each slot of the egress slice a rule for its mark and
//! a routing table with the owner as the next hop, on a link or by the tunnel, whose device it makes. Floor 2. An actuator; it touches
//! only rules, routes and a device that carry crier's number.
//!
//! A route of another program in such a table is left alone and told: packets of the slot do not reach the owner by it, and the guard drops
//! them. A rule of another program in front of crier's that takes packets of pods is told as well. A table also has an unreachable route, so a packet whose owner has no next hop goes nowhere. What another program removes is put
//! back: rules, routes and the device when the kernel tells. When the agent stops all of it stays: `crier cleanup` takes it away.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::led_away;
use super::marked::{self, MarkedRule};
use super::netlink::{
    Complaints, Event, Netlink, NetlinkError, PROTOCOL, UNREACHABLE_METRIC, address_family, family_of, leaves_by,
};
use super::tunnel::{self, Device, Found};
use crate::address::Family;
use crate::config::EgressSettings;
use crate::names::InterfaceName;
use crate::plan::slice::{EgressSlice, Hop};
use crate::world::{EgressReach, Fact, HostProblem};

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How often the tunnel's device is looked at although nothing was told of it: no message tells of its reverse path filter.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Keeps rules, routes and the device of the tunnel as the slice wants them. Never ends by itself, and may be dropped at any time.
/// `filtered`: nftables keeps strangers out of the tunnel; the device is not made before.
pub async fn run(
    mut slices: watch::Receiver<EgressSlice>,
    settings: EgressSettings,
    filtered: watch::Receiver<bool>,
    facts: mpsc::Sender<Fact>,
) {
    let mut complaints = Complaints::default();
    let mut keeper = Keeper { settings, filtered, facts, told: EgressReach::default() };
    loop {
        let Err(error) = keeper.follow(&mut slices).await;
        if complaints.is_new(&error) {
            warn!(%error, "routes to the owners of egress addresses cannot be set; packets for them are held back; trying again");
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Takes away all rules, routes and the device of egress: for `crier cleanup`. Says how many there were.
///
/// # Errors
/// What the kernel refused; some may be gone by then.
pub async fn take_away(settings: &EgressSettings) -> Result<usize, String> {
    let device = async {
        let Some(name) = &settings.tunnel else { return Ok(0) };
        let mut netlink = Netlink::open_for(&[])?;
        let links = netlink.links().await?;
        let named = match tunnel::find(&links, name) {
            Some(Found::Ours(device)) if device.port == Some(settings.tunnel_port) => Some(device.index),
            Some(Found::Ours(_) | Found::Foreign { .. }) | None => None,
        };
        let renamed = tunnel::renamed(&links, name, settings.tunnel_port).map(|(index, _)| index);
        let mut removed = 0;
        for index in named.into_iter().chain(renamed) {
            netlink.change(tunnel::remove(index), 0).await?;
            removed += 1;
        }
        Ok(removed)
    };
    let parts = marked::take_away::<Part>(settings).await.map_err(|error| error.to_string())?;
    device.await.map(|devices: usize| parts + devices).map_err(|error: NetlinkError| error.to_string())
}

struct Keeper {
    settings: EgressSettings,
    filtered: watch::Receiver<bool>,
    facts: mpsc::Sender<Fact>,
    /// What the World knows.
    told: EgressReach,
}

impl Keeper {
    async fn follow(
        &mut self,
        slices: &mut watch::Receiver<EgressSlice>,
    ) -> Result<std::convert::Infallible, NetlinkError> {
        // Without owners elsewhere there is nothing to do, and nothing to listen for.
        let mut netlink: Option<Netlink> = None;
        let mut is_first = true;
        loop {
            let slice = slices.borrow_and_update().clone();
            let is_needed = netlink.is_some() || !slice.hops.is_empty() || slice.tunnel.is_some();
            let removes = slice.complete && slice.settled;
            // An earlier life may have left something that nobody needs now: a tunnel that nothing keeps strangers out of.
            let is_leftover = is_first && removes && !is_needed;
            if slice.planned && (is_needed || is_leftover) {
                is_first = false;
                let netlink = match &mut netlink {
                    Some(netlink) => netlink,
                    None => netlink.insert(Netlink::open_for(&groups())?),
                };
                let device = self.keep_device(&slice, netlink).await?;
                let refused = work(&wanted(&slice, device), removes, &self.settings, netlink).await?;
                // What nobody answers is asked anew with the next look.
                let led_away = led_away::rules(&slice, &self.settings, netlink).await?;
                self.tell(|reach| (reach.refused, reach.led_away) = (refused, led_away)).await;
            }
            if is_leftover {
                netlink = None;
            }
            // It is tried again as soon as a link or a route changes too.
            let is_refused = !self.told.refused.is_empty();
            let again = if is_refused || self.told.problem.is_some() { RETRY_INTERVAL } else { LOOK_AGAIN };
            tokio::select! {
                changed = slices.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                changed = self.filtered.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                () = sleep(again), if is_refused || slice.tunnel.is_some() => {}
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

    /// Sees to the device of the tunnel, and answers with its index where it stands. What the kernel refuses of it is told, and keeps
    /// nothing else from being done.
    async fn keep_device(&mut self, slice: &EgressSlice, netlink: &mut Netlink) -> Result<Option<u32>, NetlinkError> {
        let Some(name) = self.settings.tunnel.clone() else { return Ok(None) };
        let links = netlink.links().await?;
        let found = tunnel::find(&links, &name);
        let renamed = tunnel::renamed(&links, &name, self.settings.tunnel_port);
        if let Some((index, other)) = renamed.filter(|_| slice.tunnel.is_some() || slice.complete) {
            netlink.change(tunnel::remove(index), 0).await?;
            warn!(device = %name, now = %other, "another program renamed the tunnel; it is removed");
        }
        if slice.tunnel.is_none() {
            if let Some(Found::Ours(device)) = found.filter(|_| slice.complete) {
                netlink.change(tunnel::remove(device.index), 0).await?;
                info!(device = %name, "no owner of an egress address is on another link; the tunnel is removed");
            }
            self.tell(|reach| (reach.mtu, reach.problem, reach.foreign) = (None, None, false)).await;
            return Ok(None);
        }
        let port = self.settings.tunnel_port;
        let foreign = matches!(found, Some(Found::Foreign { .. }));
        let state = match found {
            Some(Found::Foreign { kind }) => Err(HostProblem {
                problem: format!(
                    "{name} is {kind} of another program, so there is no tunnel to owners of egress addresses on other links"
                ),
                remedy: format!("ip link delete {name}; or give [egress] tunnel another name"),
            }),
            found => {
                let found = match found {
                    Some(Found::Ours(device)) => Some(device),
                    Some(Found::Foreign { .. }) | None => None,
                };
                match self.mend_device(found, &name, slice, netlink).await {
                    Ok(device) => Ok(device),
                    Err(NetlinkError::Refused(error)) => Err(HostProblem {
                        problem: format!(
                            "the tunnel {name} (VXLAN-GPE, UDP port {port}) to owners of egress addresses on other links cannot be \
                             made: {error}"
                        ),
                        remedy: format!(
                            "load the kernel's module vxlan; where another VXLAN device has the port, give [egress] tunnel-port another \
                             one on all nodes; a {name} that was moved into another network namespace keeps the port: ip netns exec \
                             NAMESPACE ip link del {name}"
                        ),
                    }),
                    Err(error) => return Err(error),
                }
            }
        };
        let (device, problem) = match state {
            Ok(device) => (device, None),
            Err(problem) => (None, Some(problem)),
        };
        let mtu = device.as_ref().map(|device| device.mtu);
        self.tell(|reach| (reach.mtu, reach.problem, reach.foreign) = (mtu, problem, foreign)).await;
        Ok(device.map(|device| device.index))
    }

    /// The device as it is to be; `None` where it is not made yet, because nothing keeps strangers out.
    async fn mend_device(
        &mut self,
        found: Option<Device>,
        name: &InterfaceName,
        slice: &EgressSlice,
        netlink: &mut Netlink,
    ) -> Result<Option<Device>, NetlinkError> {
        let port = self.settings.tunnel_port;
        let right = match found {
            Some(device) if device.port == Some(port) => Some(device),
            Some(other) => {
                netlink.change(tunnel::remove(other.index), 0).await?;
                None
            }
            None => None,
        };
        let device = match right {
            Some(device) => device,
            None if !*self.filtered.borrow_and_update() => return Ok(None),
            None => {
                netlink.change(tunnel::make(name, port), NLM_F_CREATE | NLM_F_EXCL).await?;
                info!(device = %name, port, "the tunnel to owners of egress addresses on other links is made");
                match tunnel::find(&netlink.links().await?, name) {
                    Some(Found::Ours(device)) => device,
                    // Somebody was faster.
                    Some(Found::Foreign { .. }) | None => return Ok(None),
                }
            }
        };
        let mtu = mtu(slice, netlink).await?.unwrap_or(device.mtu);
        let requests = match device.is_set && device.mtu == mtu {
            true => vec![tunnel::address(device.index)],
            false => tunnel::set(device.index, mtu).to_vec(),
        };
        for (request, flags) in requests {
            match netlink.change(request, flags).await {
                // It is there already; or the host is without IPv6, and so without addresses of it.
                Err(error) if error.is_refusal(libc::EEXIST) || error.is_refusal(libc::EAFNOSUPPORT) => {}
                done => done?,
            }
        }
        Ok(Some(Device { mtu, ..device }))
    }

    /// Tells what has changed, where it did.
    async fn tell(&mut self, change: impl FnOnce(&mut EgressReach)) {
        let mut reach = self.told.clone();
        change(&mut reach);
        if self.told == reach {
            return;
        }
        match (&reach.problem, &self.told.problem) {
            (Some(problem), before) if before.as_ref() != Some(problem) => warn!(%problem, "the tunnel cannot be used"),
            (_, _) => {}
        }
        for (slot, error) in reach.refused.iter().filter(|(slot, error)| self.told.refused.get(slot) != Some(*error)) {
            warn!(
                slot,
                error, "packets of pods are not led to an owner of an egress address, and are held back; trying again"
            );
        }
        for problem in reach.led_away.iter().filter(|problem| !self.told.led_away.contains(problem)) {
            warn!(%problem, "packets of pods are led away");
        }
        self.told = reach.clone();
        // Nobody takes facts any more only when the agent ends.
        let _ = self.facts.send(Fact::EgressReach(reach)).await;
    }
}

/// The largest packet that fits into the tunnel to every owner; `None` while nothing leads into it.
async fn mtu(slice: &EgressSlice, netlink: &mut Netlink) -> Result<Option<u32>, NetlinkError> {
    let owners: BTreeSet<IpAddr> =
        slice.hops.values().flatten().flatten().filter_map(outer).map(|(to, _)| to).collect();
    let mut least: Option<u32> = None;
    if owners.is_empty() {
        return Ok(least);
    }
    let mtus: BTreeMap<u32, u32> = netlink.links().await?.iter().filter_map(index_and_mtu).collect();
    for to in owners {
        let Some(route) = netlink.route_to(to).await? else { continue };
        if let Some(mtu) = leaves_by(&route).and_then(|link| mtus.get(&link)) {
            let inner = mtu.saturating_sub(tunnel::overhead(to)).max(tunnel::LEAST_MTU);
            least = Some(least.map_or(inner, |least| least.min(inner)));
        }
    }
    Ok(least)
}

fn index_and_mtu(message: &RouteNetlinkMessage) -> Option<(u32, u32)> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some((link.header.index, *mtu)),
        // The enum is not ours.
        _ => None,
    })
}

fn outer(hop: &Hop) -> Option<(IpAddr, IpAddr)> {
    match hop {
        Hop::Tunnel { to, from } => Some((*to, *from)),
        Hop::Link { .. } => None,
    }
}

fn groups() -> Vec<MulticastGroup> {
    marked::GROUPS.into_iter().chain([MulticastGroup::Link]).collect()
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
    /// To the owner by the tunnel: the family of the packets, the ends of those around them, and the index of the device.
    Tunnel(u8, Family, [IpAddr; 2], u32),
    /// Marked packets look into the slot's table.
    Rule(u8, Family),
}

/// `device`: the index of the tunnel's, where it stands.
fn wanted(slice: &EgressSlice, device: Option<u32>) -> BTreeSet<Part> {
    let of_slot = |(slot, hops): (&u8, &[Option<Hop>; 2])| {
        let slot = *slot;
        let route = |(family, hop): (Family, &Option<Hop>)| match hop.as_ref()? {
            Hop::Link { via, link } => Some(Part::Route(slot, *via, *link)),
            Hop::Tunnel { to, from } => Some(Part::Tunnel(slot, family, [*to, *from], device?)),
        };
        let routes = Family::BOTH.into_iter().zip(hops).filter_map(route);
        let frame = Family::BOTH.map(|family| [Part::Unreachable(slot, family), Part::Rule(slot, family)]);
        frame.into_iter().flatten().chain(routes).collect::<Vec<_>>()
    };
    slice.hops.iter().flat_map(of_slot).collect()
}

/// Answers with what the kernel refused, of each slot.
async fn work(
    wanted: &BTreeSet<Part>,
    complete: bool,
    settings: &EgressSettings,
    netlink: &mut Netlink,
) -> Result<BTreeMap<u8, String>, NetlinkError> {
    let mut refused = BTreeMap::new();
    let present = marked::present(netlink, settings).await?;
    // A route that is replaced goes first: its table has only one default route.
    let is_replaced = |part: &Part| part.leads().is_some() && wanted.iter().any(|it| it.leads() == part.leads());
    let spare = present.difference(wanted).filter(|part| complete || is_replaced(part));
    for part in spare.collect::<Vec<_>>().into_iter().rev() {
        marked::change(part, false, settings, netlink).await?;
    }
    let led: BTreeSet<u8> = wanted.iter().filter_map(Part::leads).map(|(slot, _)| slot).collect();
    let tables = led.iter().map(|slot| settings.route_table(*slot)).collect();
    let strangers = marked::strangers(tables, netlink).await?;
    let strangers =
        led.iter().filter_map(|slot| Some((*slot, strangers.get(&settings.route_table(*slot))?.to_string())));
    refused.extend(strangers);
    for part in wanted.difference(&present) {
        match (marked::change(part, true, settings, netlink).await, part) {
            // Those of other owners are made all the same.
            (Err(NetlinkError::Refused(error)), part) => {
                let error = format!("the kernel refuses the route to the owner: {error}");
                refused.entry(part.slot()).or_insert(error);
            }
            (Err(error), _) => return Err(error),
            // The kernel may not have taken it.
            (Ok(()), part) if refused.contains_key(&part.slot()) => {}
            (Ok(()), Part::Route(slot, via, _)) => {
                info!(slot, next_hop = %via, "packets of pods are led to the owner of their Service's address");
            }
            (Ok(()), Part::Tunnel(slot, family, [to, _], _)) => {
                info!(slot, %family, node = %to, "packets of pods are led by the tunnel to the owner of their Service's address");
            }
            (Ok(()), Part::Unreachable(..) | Part::Rule(..)) => {}
        }
    }
    Ok(refused)
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
    let slot = (1..=settings.slots()).find(|slot| table == settings.route_table(*slot))?;
    if route.header.protocol != PROTOCOL || route.header.destination_prefix_length != 0 {
        return None;
    }
    let family = family_of(route.header.address_family)?;
    if let (Some((to, from)), Some(link)) = (tunnel::ends(route), link) {
        return Some(Part::Tunnel(slot, family, [to, from], link));
    }
    match (route.header.kind, gateway, link) {
        (RouteType::Unreachable, ..) => Some(Part::Unreachable(slot, family)),
        (_, Some(gateway), Some(link)) => Some(Part::Route(slot, gateway, link)),
        (_, _, _) => None,
    }
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
                let (table, link) = (settings.route_table(*slot), None);
                MarkedRule { slot: *slot, behind: 0, table, link, family: *family }.message(settings, new)
            }
            Part::Route(..) | Part::Tunnel(..) | Part::Unreachable(..) => {
                let route = self.route(settings);
                if new { RouteNetlinkMessage::NewRoute(route) } else { RouteNetlinkMessage::DelRoute(route) }
            }
        }
    }
}

impl Part {
    fn slot(&self) -> u8 {
        match self {
            Part::Unreachable(slot, _) | Part::Route(slot, ..) | Part::Tunnel(slot, ..) | Part::Rule(slot, _) => *slot,
        }
    }

    /// The slot and the family whose packets it leads on.
    fn leads(&self) -> Option<(u8, Family)> {
        match self {
            Part::Route(slot, via, _) => Some((*slot, Family::of(*via))),
            Part::Tunnel(slot, family, ..) => Some((*slot, *family)),
            Part::Unreachable(..) | Part::Rule(..) => None,
        }
    }

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
            Part::Tunnel(slot, of, [to, from], device) => {
                message.header.kind = RouteType::Unicast;
                message.attributes = vec![RouteAttribute::Oif(*device)];
                message.attributes.extend(tunnel::encapsulation(*to, *from).into_iter().flatten());
                (*slot, *of)
            }
            Part::Unreachable(slot, of) | Part::Rule(slot, of) => {
                message.header.kind = RouteType::Unreachable;
                message.attributes = vec![RouteAttribute::Priority(UNREACHABLE_METRIC)];
                (*slot, *of)
            }
        };
        message.header.address_family = address_family(of);
        message.attributes.push(RouteAttribute::Table(settings.route_table(slot)));
        message
    }
}
