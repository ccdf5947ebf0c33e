//! Tells the World where this host's default routes lead: once, then at each change.
//! Floor 2. A source of Facts; the Plan decides which of the routes leads to the gateway.
//!
//! The main table is read, and the tables of the VRF devices.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVrf, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType, RouteVia,
};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, TokioSocket};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::netlink::{Event, Netlink, NetlinkError, family_of, table_of};
use crate::address::Family;
use crate::world::{DefaultRoute, Fact};

/// `RTNLGRP_NEXTHOP`.
const NEXT_HOPS_GROUP: u32 = 32;

/// How long to wait before the kernel is asked again after a failure.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// Sends a [`Fact::DefaultRoutes`] at the start and whenever the routes have changed.
///
/// Runs until the receiver of the Facts is gone, and may be dropped at any time. If the kernel cannot be asked, it keeps trying,
/// and the last known routes stay in use.
pub async fn run(facts: mpsc::Sender<Fact>) {
    let mut told = Told::default();
    loop {
        match follow(&facts, &mut told).await {
            Err(Ended::Unwanted) => return,
            Err(Ended::Failed(error)) => {
                warn!(%error, "the default routes of this host cannot be followed; the last known ones stay in use; trying again")
            }
        }
        sleep(REOPEN_INTERVAL).await;
    }
}

/// The default routes at this moment, for the first plan. `None` where the kernel cannot be asked: [`run`] goes on to try.
pub async fn at_start() -> Option<Fact> {
    let routes = async { now(&mut Netlink::open_for(&[])?).await }.await;
    routes.ok().map(Fact::DefaultRoutes)
}

/// The default routes of the main table and of each VRF.
pub(super) async fn now(netlink: &mut Netlink) -> Result<Vec<DefaultRoute>, NetlinkError> {
    let tables = Tables::of(&netlink.links().await?);
    Ok(default_routes(&netlink.default_routes().await?, &tables))
}

/// Why routes are no longer followed.
enum Ended {
    /// The receiver of the Facts is gone.
    Unwanted,
    Failed(NetlinkError),
}

/// What was told last.
#[derive(Debug, Default)]
struct Told {
    routes: Option<Vec<DefaultRoute>>,
    /// The routes of these that lead by objects of next hops.
    by_object: BTreeSet<Place>,
}

/// What tells default routes apart: family, VRF and metric.
type Place = (Family, Option<u32>, u32);

fn place(route: &DefaultRoute) -> Place {
    (route.family, route.vrf, route.metric)
}

async fn follow(facts: &mpsc::Sender<Fact>, told: &mut Told) -> Result<Infallible, Ended> {
    // When a link goes down or loses its last address, its IPv4 routes go too, and the kernel reports only the link or the address.
    let groups =
        [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let mut netlink = Netlink::open_for(&groups).map_err(Ended::Failed)?;
    // With an object of next hops its routes go, and the kernel tells of the object alone, in a message that the library cannot read.
    let open = |error| Ended::Failed(NetlinkError::Open(error));
    let mut objects = TokioSocket::new(NETLINK_ROUTE).map_err(open)?;
    objects.socket_mut().bind_auto().map_err(open)?;
    // Linux before 5.3 has none.
    let _ = objects.socket_mut().add_membership(NEXT_HOPS_GROUP);
    let mut failed = BTreeSet::new();
    loop {
        let routes = netlink.default_routes().await.map_err(Ended::Failed)?;
        // After the routes: a link whose failure took a next hop away shows it.
        let list = netlink.links().await.map_err(Ended::Failed)?;
        let tables = Tables::of(&list);
        failed.extend(list.iter().filter_map(failed_link));
        let (links, by_object) = (default_links(&routes, &tables), by_object(&routes, &tables));
        let leads_by_object = !by_object.is_empty();
        let mut routes = default_routes(&routes, &tables);
        routes.extend(dropped(told, &routes, &by_object, &failed));
        failed.clear();
        if told.routes.as_ref() != Some(&routes) {
            debug!(?routes, "default routes changed");
            facts.send(Fact::DefaultRoutes(routes.clone())).await.map_err(|_| Ended::Unwanted)?;
        }
        // A route that went with its links may come back as it was.
        told.by_object = routes.iter().filter(|it| it.dropped).map(place).chain(by_object).collect();
        told.routes = Some(routes);
        loop {
            let first = tokio::select! {
                event = netlink.event() => event,
                told = objects.recv_from_full() => {
                    while objects.socket_ref().recv_from_full().is_ok() {}
                    match told {
                        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => return Err(open(error)),
                        Ok(_) | Err(_) if leads_by_object => Event::Overrun,
                        Ok(_) | Err(_) => continue,
                    }
                }
                () = facts.closed() => return Err(Ended::Unwanted),
            };
            let mut concerned = false;
            let mut next = Some(first);
            while let Some(event) = next {
                concerned |= match event {
                    Event::Message(message) => {
                        failed.extend(failed_link(&message));
                        may_move_default_routes(&message, &links, &tables)
                    }
                    Event::Overrun => true,
                    Event::Closed => return Err(Ended::Failed(NetlinkError::Ended)),
                };
                next = netlink.pending_event();
            }
            if concerned {
                break;
            }
        }
    }
}

/// The routing tables that are read: the main one, and each VRF's by its number, with the index of the VRF device.
#[derive(Debug, Default)]
struct Tables(BTreeMap<u32, u32>);

impl Tables {
    fn of(links: &[RouteNetlinkMessage]) -> Tables {
        let of_message = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewLink(link) => Some((vrf_table(link)?, link.header.index)),
            // The enum is not ours; nothing else is a link.
            _ => None,
        };
        Tables(links.iter().filter_map(of_message).collect())
    }

    /// The VRF of a default route; nothing for a route to somewhere, or in a table that is not read.
    fn place(&self, route: &RouteMessage) -> Option<Option<u32>> {
        if route.header.destination_prefix_length != 0 {
            return None;
        }
        match table_of(route) {
            MAIN => Some(None),
            other => self.0.get(&other).map(|device| Some(*device)),
        }
    }
}

/// The number of a VRF device's table.
pub(super) fn vrf_table(link: &LinkMessage) -> Option<u32> {
    let described = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(described) => Some(described),
        // The enum is not ours; nothing else describes the kind.
        _ => None,
    })?;
    described.iter().find_map(|one| match one {
        LinkInfo::Data(InfoData::Vrf(data)) => data.iter().find_map(|it| match it {
            InfoVrf::TableId(table) => Some(*table),
            // The enum is not ours.
            _ => None,
        }),
        // The enum is not ours.
        _ => None,
    })
}

pub(super) fn address(told: &RouteAddress) -> Option<IpAddr> {
    match told {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        // The enum is not ours.
        _ => None,
    }
}

/// `RT_TABLE_MAIN`.
pub(super) const MAIN: u32 = 254;

/// `links` are those of the default routes. A yes makes all tables be read again, so links of pods that come and go must not
/// cause it; a new default route over such a link has an event of its own.
fn may_move_default_routes(message: &RouteNetlinkMessage, links: &BTreeSet<u32>, tables: &Tables) -> bool {
    match message {
        // A VRF that is not known yet is read with the event of its device.
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => tables.place(route).is_some(),
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            links.contains(&link.header.index) || vrf_table(link).is_some()
        }
        RouteNetlinkMessage::DelAddress(address) => links.contains(&address.header.index),
        // The enum is not ours; no other message was subscribed to.
        _ => false,
    }
}

/// The default routes that lead to objects of next hops, as those of FRR do.
fn by_object(routes: &[RouteNetlinkMessage], tables: &Tables) -> BTreeSet<Place> {
    let is_object = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::NhId(_));
    let of_message = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRoute(route) if route.attributes.iter().any(is_object) => {
            tables.place(route).map(|vrf| next_hops(route, vrf)).unwrap_or_default()
        }
        // The enum is not ours; nothing else is a route.
        _ => Vec::new(),
    };
    routes.iter().flat_map(of_message).map(|route| place(&route)).collect()
}

/// The link, if it is down or without carrier: the kernel then takes the next hops by it out of their groups.
fn failed_link(message: &RouteNetlinkMessage) -> Option<u32> {
    // The enum is not ours; nothing else is a link.
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let flags = link.header.flags;
    let carries = flags.contains(LinkFlags::Up) && flags.intersects(LinkFlags::Running | LinkFlags::LowerUp);
    (!carries).then_some(link.header.index)
}

/// The next hops that the kernel took out of a route by an object when their links failed, and that nobody has put back: those of `told`
/// that `now` lacks. Forgotten with a route that has as many next hops again, or leads by no object.
fn dropped(
    told: &Told,
    now: &[DefaultRoute],
    by_object: &BTreeSet<Place>,
    failed: &BTreeSet<u32>,
) -> Vec<DefaultRoute> {
    let before = told.routes.as_deref().unwrap_or_default();
    let is_dropped = |route: &&DefaultRoute| {
        let of_route = |all: &[DefaultRoute]| all.iter().filter(|it| place(it) == place(route)).count();
        let is_there = |it: &DefaultRoute| (it.gateway, it.link) == (route.gateway, route.link);
        let is_lost = match of_route(now) {
            0 => true,
            left => by_object.contains(&place(route)) && left < of_route(before),
        };
        let failed = told.by_object.contains(&place(route)) && failed.contains(&route.link);
        is_lost && (route.dropped || failed) && !now.iter().any(|it| place(it) == place(route) && is_there(it))
    };
    before.iter().filter(is_dropped).map(|route| DefaultRoute { dead: true, dropped: true, ..route.clone() }).collect()
}

/// The links of all default routes in the list, also of next hops that do not work now.
fn default_links(routes: &[RouteNetlinkMessage], tables: &Tables) -> BTreeSet<u32> {
    let of_attribute = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(several) => several.iter().map(|hop| hop.interface_index).collect(),
        // The enum is not ours; nothing else names a link.
        _ => Vec::new(),
    };
    let of_message = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRoute(route) if tables.place(route).is_some() => {
            route.attributes.iter().flat_map(of_attribute).collect::<Vec<_>>()
        }
        // The enum is not ours; nothing else is a route.
        _ => Vec::new(),
    };
    routes.iter().flat_map(of_message).collect()
}

/// The default routes of the main table alone that work.
pub(super) fn of_main(routes: &[RouteNetlinkMessage]) -> Vec<DefaultRoute> {
    default_routes(routes, &Tables::default()).into_iter().filter(|route| !route.dead).collect()
}

/// The ways of all default routes in the list, best first; equal ones in the kernel's order.
fn default_routes(routes: &[RouteNetlinkMessage], tables: &Tables) -> Vec<DefaultRoute> {
    let of_message = |message: &RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Unicast => {
            tables.place(route).map(|vrf| next_hops(route, vrf)).unwrap_or_default()
        }
        // The enum is not ours; nothing else is a route.
        _ => Vec::new(),
    };
    let mut found: Vec<DefaultRoute> = routes.iter().flat_map(of_message).collect();
    found.sort_by_key(|route| route.metric);
    found
}

fn next_hops(route: &RouteMessage, vrf: Option<u32>) -> Vec<DefaultRoute> {
    let mut metric = 0;
    let mut hops = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(several) => {
                let dead = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
                let hop_of =
                    |hop: &RouteNextHop| (gateway(&hop.attributes), hop.interface_index, hop.flags.intersects(dead));
                hops.extend(several.iter().map(hop_of));
            }
            // The enum is not ours; the single next hop is read below.
            _ => {}
        }
    }
    let link = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        // The enum is not ours.
        _ => None,
    });
    // The kernel takes a single next hop away with its link, or uses it all the same.
    hops.extend(link.map(|link| (gateway(&route.attributes), link, false)));
    let Some(family) = family_of(route.header.address_family) else { return Vec::new() };
    let of_hop = |(gateway, link, dead)| DefaultRoute { family, gateway, link, metric, vrf, dead, dropped: false };
    hops.into_iter().map(of_hop).collect()
}

/// `None` for a route to the link itself.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) | RouteAttribute::Via(RouteVia::Inet(v4)) => {
            Some(IpAddr::V4(*v4))
        }
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) | RouteAttribute::Via(RouteVia::Inet6(v6)) => {
            Some(IpAddr::V6(*v6))
        }
        // The enum is not ours.
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::route::RouteHeader;

    use super::*;

    fn route(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.address_family = AddressFamily::Inet;
        message.attributes = attributes;
        message
    }

    fn via(gateway: &str, link: u32, metric: Option<u32>) -> RouteMessage {
        let gateway: IpAddr = gateway.parse().unwrap();
        let mut attributes = vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(link)];
        attributes.extend(metric.map(RouteAttribute::Priority));
        route(attributes)
    }

    fn found(routes: Vec<RouteMessage>) -> Vec<(String, u32, u32)> {
        let messages: Vec<_> = routes.into_iter().map(RouteNetlinkMessage::NewRoute).collect();
        let text = |gateway: Option<IpAddr>| gateway.map_or("dev".to_owned(), |gateway| gateway.to_string());
        let mark = |dead: bool| if dead { " dead" } else { "" };
        let texts =
            |route: DefaultRoute| (format!("{}{}", text(route.gateway), mark(route.dead)), route.link, route.metric);
        default_routes(&messages, &Tables::default()).into_iter().map(texts).collect()
    }

    #[test]
    fn the_default_route_of_a_vrf_is_told_with_the_vrf_and_that_of_another_table_is_not() {
        let in_table = |gateway: &str, number: u32| {
            let mut message = via(gateway, 2, None);
            message.header.table = 0;
            message.attributes.push(RouteAttribute::Table(number));
            RouteNetlinkMessage::NewRoute(message)
        };
        let tables = Tables([(1001, 7)].into());
        let routes = [in_table("10.0.0.1", 1001), in_table("10.0.0.2", 1002), in_table("10.0.0.3", MAIN)];
        let told: Vec<(String, Option<u32>)> =
            default_routes(&routes, &tables).into_iter().map(|it| (it.gateway.unwrap().to_string(), it.vrf)).collect();
        assert_eq!(told, [("10.0.0.1".to_owned(), Some(7)), ("10.0.0.3".to_owned(), None)]);
    }

    #[test]
    fn the_lowest_metric_comes_first_and_none_is_the_lowest() {
        let routes = vec![via("10.0.0.3", 2, Some(200)), via("10.0.0.1", 2, None), via("fe80::1", 3, Some(100))];
        let (first, second, third) = ("10.0.0.1".to_owned(), "fe80::1".to_owned(), "10.0.0.3".to_owned());
        assert_eq!(found(routes), [(first, 2, 0), (second, 3, 100), (third, 2, 200)]);
    }

    #[test]
    fn routes_to_somewhere_in_other_tables_or_to_nowhere_are_no_default_routes() {
        let change = |change: fn(&mut RouteMessage)| {
            let mut message = via("10.0.0.1", 2, None);
            change(&mut message);
            message
        };
        let others = vec![
            change(|route| route.header.destination_prefix_length = 8),
            change(|route| route.header.table = 100),
            change(|route| route.header.kind = RouteType::BlackHole),
            change(|route| drop(route.attributes.remove(1))),
        ];
        assert_eq!(found(others), []);
    }

    /// Of PPP, of WireGuard, of clouds with proxy ARP.
    #[test]
    fn a_default_route_to_a_link_itself_is_one() {
        let mut to_links = [4, 5].map(|link| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = link;
            hop
        });
        to_links[1].attributes = vec![RouteAttribute::Gateway(IpAddr::from([10, 0, 5, 1]).into())];
        let several = vec![RouteAttribute::Priority(9), RouteAttribute::MultiPath(to_links.into())];
        let told = found(vec![route(vec![RouteAttribute::Oif(2)]), via("10.0.0.1", 3, Some(7)), route(several)]);
        let expected = [("dev", 2, 0), ("10.0.0.1", 3, 7), ("dev", 4, 9), ("10.0.5.1", 5, 9)];
        assert_eq!(told, expected.map(|(gateway, link, metric)| (gateway.to_owned(), link, metric)));
    }

    #[test]
    fn of_several_next_hops_all_are_told_in_the_kernels_order_and_which_do_not_work() {
        let hop = |gateway: &str, link: u32, flags: RouteNextHopFlags| {
            let mut hop = RouteNextHop::default();
            hop.flags = flags;
            hop.interface_index = link;
            hop.attributes = vec![RouteAttribute::Gateway(gateway.parse::<IpAddr>().unwrap().into())];
            hop
        };
        let none = RouteNextHopFlags::empty();
        let several = RouteAttribute::MultiPath(vec![
            hop("10.0.1.1", 2, RouteNextHopFlags::Linkdown),
            hop("10.0.2.1", 3, none),
            hop("10.0.3.1", 4, none),
        ]);
        let expected = [("10.0.1.1 dead", 2, 5), ("10.0.2.1", 3, 5), ("10.0.3.1", 4, 5)];
        let expected = expected.map(|(gateway, link, metric)| (gateway.to_owned(), link, metric));
        let routes = vec![route(vec![RouteAttribute::Priority(5), several])];
        assert_eq!(found(routes.clone()), expected);
        let messages: Vec<_> = routes.into_iter().map(RouteNetlinkMessage::NewRoute).collect();
        assert_eq!(of_main(&messages).len(), 2, "what does not work is no way out");
    }

    /// Input: FRR's default route by a group of two next hops; a link loses its carrier. Output: the kernel takes the next
    /// hop out of the group; it stays known until somebody puts it back, or makes another route.
    #[test]
    fn a_next_hop_that_the_kernel_took_out_of_its_object_is_known_until_the_route_has_as_many_again() {
        const PLACE: Place = (Family::V4, None, 7);
        let hop = |last: u8, link: u32| DefaultRoute::via(&format!("10.0.{last}.1"), link, 7);
        let mut told = Told::default();
        let mut read = |hops: &[DefaultRoute], is_object: bool, failed: &[u32]| {
            let by_object = BTreeSet::from_iter(is_object.then_some(PLACE));
            let dropped = dropped(&told, hops, &by_object, &failed.iter().copied().collect());
            told.routes = Some(hops.iter().chain(&dropped).cloned().collect());
            told.by_object = dropped.iter().map(place).chain(by_object).collect();
            assert!(dropped.iter().all(|it| it.dead && it.dropped));
            dropped.iter().map(|it| it.link).collect::<Vec<_>>()
        };
        let (one, two, three) = (hop(0, 2), hop(1, 3), hop(2, 4));
        assert_eq!(read(&[one.clone(), two.clone()], true, &[]), [0; 0]);
        assert_eq!(read(std::slice::from_ref(&one), true, &[3, 9]), [3]);
        assert_eq!(read(std::slice::from_ref(&one), true, &[]), [3], "the link is back, the next hop is not");
        assert_eq!(read(&[], true, &[2]), [2, 3], "with its last next hop the route goes");
        assert_eq!(read(std::slice::from_ref(&two), true, &[]), [2]);
        assert_eq!(read(&[one.clone(), two.clone()], true, &[]), [0; 0]);
        assert_eq!(read(std::slice::from_ref(&two), true, &[]), [0; 0], "an operator took it out");
        assert_eq!(read(&[one.clone(), two.clone()], true, &[]), [0; 0]);
        assert_eq!(read(std::slice::from_ref(&two), true, &[2]), [2]);
        assert_eq!(read(&[two.clone(), three.clone()], true, &[]), [0; 0], "another instead of it");
        assert_eq!(read(std::slice::from_ref(&two), true, &[4]), [4]);
        assert_eq!(read(std::slice::from_ref(&two), false, &[]), [0; 0], "a route without an object");
        assert_eq!(read(&[one, two.clone()], false, &[]), [0; 0]);
        assert_eq!(read(&[two], false, &[2]), [0; 0], "the kernel takes none out of such a route");
    }

    #[test]
    fn a_link_has_failed_that_is_down_or_has_no_carrier() {
        let link = |flags: LinkFlags| {
            let mut link = LinkMessage::default();
            (link.header.index, link.header.flags) = (3, flags);
            failed_link(&RouteNetlinkMessage::NewLink(link))
        };
        assert_eq!(link(LinkFlags::Up | LinkFlags::Running | LinkFlags::LowerUp), None);
        assert_eq!(link(LinkFlags::Up), Some(3));
        assert_eq!(link(LinkFlags::Running), Some(3));
    }

    /// D16 of the field cases.
    #[test]
    fn only_the_links_of_default_routes_ask_for_another_look() {
        let mut dead = RouteNextHop::default();
        (dead.flags, dead.interface_index) = (RouteNextHopFlags::Dead, 4);
        let mut elsewhere = via("10.0.0.1", 5, None);
        elsewhere.header.destination_prefix_length = 8;
        let routes = [via("10.0.0.1", 2, None), route(vec![RouteAttribute::MultiPath(vec![dead])]), elsewhere];
        let tables = Tables::default();
        let links = default_links(&routes.map(RouteNetlinkMessage::NewRoute), &tables);
        assert_eq!(links, BTreeSet::from([2, 4]));
        let event = |index: u32| {
            let mut link = netlink_packet_route::link::LinkMessage::default();
            link.header.index = index;
            may_move_default_routes(&RouteNetlinkMessage::NewLink(link), &links, &tables)
        };
        assert_eq!([2, 4, 5, 77].map(event), [true, true, false, false], "77 is the link of a pod");
    }

    #[test]
    fn an_ipv4_route_through_an_ipv6_neighbor_is_told_as_that_neighbor() {
        let attributes = vec![RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())), RouteAttribute::Oif(7)];
        assert_eq!(found(vec![route(attributes.clone())]), [("fe80::1".to_owned(), 7, 0)]);
        // It stays a route of IPv4.
        let message = RouteNetlinkMessage::NewRoute(route(attributes));
        let families: Vec<Family> =
            default_routes(&[message], &Tables::default()).into_iter().map(|it| it.family).collect();
        assert_eq!(families, [Family::V4]);
    }
}
