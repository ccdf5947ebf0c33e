//! A connection to the kernel by rtnetlink: whole lists, single changes, and events.
//! Floor 2. It does not interpret messages: `links`, `routes`, `addresses` and `blackholes` do.
//!
//! Tasks: one for each of the two sockets, owned by the `Netlink` and ended when it is dropped. Events have a socket of
//! their own, so that a burst of events never costs the answer to a request.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol};
use netlink_packet_route::rule::RuleMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinSet;

use super::next_hops;
use crate::address::{Family, host_prefix};
use crate::names::InterfaceName;

pub(super) struct Netlink {
    handle: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    _connections: JoinSet<()>,
}

/// What the kernel sends without being asked.
#[derive(Debug)]
pub(super) enum Event {
    Message(RouteNetlinkMessage),
    /// More happened than the socket could hold. What is known may be wrong until everything is listed again.
    Overrun,
    /// There will be no more events on this connection.
    Closed,
}

/// Why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetlinkError {
    /// Nothing was opened.
    #[error("netlink cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// The kernel changed nothing.
    #[error("the kernel refused: {0}")]
    Refused(#[source] io::Error),
    /// It is not known whether the kernel made the change.
    #[error("the netlink connection ended before the kernel had answered")]
    Ended,
    /// No list was complete, because its entries kept changing.
    #[error("the kernel's list changed while it was read, {LIST_ATTEMPTS} times in a row")]
    Interrupted,
}

/// How the kernel sends a packet on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Led {
    /// By this table.
    By(u32),
    /// It drops it.
    Nowhere,
    /// It has no way to who is to send it.
    Unknown,
}

impl Netlink {
    /// Opens a connection with the events about links and addresses.
    pub(super) fn open() -> Result<Netlink, NetlinkError> {
        Netlink::open_for(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr])
    }

    /// Opens a connection with the events of these groups. Events are kept from here on, so a list taken after this misses nothing.
    pub(super) fn open_for(groups: &[MulticastGroup]) -> Result<Netlink, NetlinkError> {
        let (events_connection, _, events) = rtnetlink::new_multicast_connection(groups).map_err(NetlinkError::Open)?;
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        // Without these two, an answer that was cut short looks like one that is complete.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        // The kernel lists only what was asked for. Linux before 4.20 lists all, so each list is filtered here too.
        let _ = connection.socket_mut().socket_ref().set_netlink_get_strict_chk(true);
        let mut connections = JoinSet::new();
        connections.spawn(events_connection);
        connections.spawn(connection);
        Ok(Netlink { handle, events, _connections: connections })
    }

    pub(super) async fn links(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.list(RouteNetlinkMessage::GetLink(request)).await
    }

    /// The addresses of both families.
    pub(super) async fn addresses(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.list(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await
    }

    /// The routes of both families, of every table.
    pub(super) async fn routes(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut list = self.list(RouteNetlinkMessage::GetRoute(RouteMessage::default())).await?;
        next_hops::fill(&mut list).await.map_err(NetlinkError::Refused)?;
        Ok(list)
    }

    /// The routes of both families that have crier's number, of every table. A host may have a million others.
    pub(super) async fn own_routes(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut request = RouteMessage::default();
        request.header.protocol = PROTOCOL;
        self.list_of(request, |route| route.header.protocol == PROTOCOL).await
    }

    /// The default routes of both families, of every table.
    pub(super) async fn default_routes(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let is_default = |route: &RouteMessage| route.header.destination_prefix_length == 0;
        let mut list = self.list_of(RouteMessage::default(), is_default).await?;
        next_hops::fill(&mut list).await.map_err(NetlinkError::Refused)?;
        Ok(list)
    }

    /// The routes of both families that a request for these attributes is about, and of these the ones to `keep`: the others are
    /// forgotten as they come.
    pub(super) async fn list_of(
        &mut self,
        request: RouteMessage,
        keep: impl Fn(&RouteMessage) -> bool,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let keep = |message: &RouteNetlinkMessage| match message {
            RouteNetlinkMessage::NewRoute(route) => keep(route),
            // The enum is not ours; nothing else is a route.
            _ => false,
        };
        self.list_where(RouteNetlinkMessage::GetRoute(request), keep).await
    }

    /// The rules of both families.
    pub(super) async fn rules(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.list(RouteNetlinkMessage::GetRule(RuleMessage::default())).await
    }

    /// The route by which packets of this host to the address leave now; `None` where there is none.
    pub(super) async fn route_to(&mut self, to: IpAddr) -> Result<Option<RouteMessage>, NetlinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = address_family(Family::of(to));
        question.header.destination_prefix_length = host_prefix(to).prefix_len();
        question.attributes.push(RouteAttribute::Destination(to.into()));
        self.ask_route(question).await
    }

    /// How a packet with this mark that comes from the address, by the link that leads there, goes on to the other one.
    pub(super) async fn led(&mut self, from: IpAddr, to: IpAddr, mark: u32) -> Result<Led, NetlinkError> {
        let Some(link) = self.route_to(from).await?.as_ref().and_then(leaves_by) else { return Ok(Led::Unknown) };
        let mut question = RouteMessage::default();
        question.header.address_family = address_family(Family::of(to));
        question.header.destination_prefix_length = host_prefix(to).prefix_len();
        question.header.source_prefix_length = host_prefix(from).prefix_len();
        // The kernel says it of IPv6 without being asked, and refuses the flag there.
        if from.is_ipv4() {
            question.header.flags = RouteFlags::LookupTable;
        }
        question.attributes = vec![
            RouteAttribute::Destination(to.into()),
            RouteAttribute::Source(from.into()),
            RouteAttribute::Iif(link),
            RouteAttribute::Mark(mark),
        ];
        Ok(self.ask_route(question).await?.as_ref().map(table_of).map_or(Led::Nowhere, Led::By))
    }

    async fn ask_route(&mut self, question: RouteMessage) -> Result<Option<RouteMessage>, NetlinkError> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
        request.header.flags = NLM_F_REQUEST;
        let mut answers = self.handle.request(request).map_err(|_| NetlinkError::Ended)?;
        match answers.next().await.map(|answer| answer.payload) {
            Some(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route))) => Ok(Some(route)),
            // Unreachable, or of a family that this host does not have.
            Some(_) => Ok(None),
            None => Err(NetlinkError::Ended),
        }
    }

    /// Whether the kernel would send on a packet that came in by this link, to the address from the other one.
    pub(super) async fn passes(&mut self, link: u32, from: Ipv4Addr, to: Ipv4Addr) -> Result<bool, NetlinkError> {
        let mut question = RouteMessage::default();
        question.header.address_family = AddressFamily::Inet;
        (question.header.source_prefix_length, question.header.destination_prefix_length) = (32, 32);
        question.attributes = vec![
            RouteAttribute::Destination(to.into()),
            RouteAttribute::Source(from.into()),
            RouteAttribute::Iif(link),
        ];
        self.ask_route(question).await.map(|route| route.is_some())
    }

    /// Asks for a change and waits until the kernel has made it.
    pub(super) async fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.request(request).map_err(|_| NetlinkError::Ended)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(verdict) = answer.payload {
                return match verdict.code {
                    None => Ok(()),
                    Some(_) => Err(NetlinkError::Refused(verdict.to_io())),
                };
            }
        }
        Err(NetlinkError::Ended)
    }

    /// Waits for the next event. Safe to cancel.
    pub(super) async fn event(&mut self) -> Event {
        loop {
            match self.events.next().await {
                None => return Event::Closed,
                Some((message, _)) => {
                    if let Some(event) = event(message) {
                        return event;
                    }
                }
            }
        }
    }

    /// The next event, if there is one already.
    pub(super) fn pending_event(&mut self) -> Option<Event> {
        loop {
            let (message, _) = self.events.try_recv().ok()?;
            if let Some(event) = event(message) {
                return Some(event);
            }
        }
    }

    async fn list(&mut self, request: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        self.list_where(request, |_| true).await
    }

    async fn list_where(
        &mut self,
        request: RouteNetlinkMessage,
        keep: impl Fn(&RouteNetlinkMessage) -> bool,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..LIST_ATTEMPTS {
            if let Some(list) = self.list_once(request.clone(), &keep).await? {
                return Ok(list);
            }
        }
        Err(NetlinkError::Interrupted)
    }

    /// `None` if the list changed while it was read: an entry may be missing although nothing happened to it.
    async fn list_once(
        &mut self,
        request: RouteNetlinkMessage,
        keep: &impl Fn(&RouteNetlinkMessage) -> bool,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let mut request = NetlinkMessage::from(request);
        request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.request(request).map_err(|_| NetlinkError::Ended)?;
        let mut list = Vec::new();
        let mut interrupted = false;
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => list.extend(keep(&message).then_some(message)),
                NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(list)),
                NetlinkPayload::Error(refused) => return Err(NetlinkError::Refused(refused.to_io())),
                // The enum is not ours and may grow; its other payloads today carry nothing.
                _ => {}
            }
        }
        Err(NetlinkError::Ended)
    }
}

fn event(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Some(Event::Message(message)),
        NetlinkPayload::Overrun(_) => Some(Event::Overrun),
        // The enum is not ours and may grow; the kernel sends nothing else without being asked.
        _ => None,
    }
}

impl NetlinkError {
    /// Whether the kernel refused with this error number.
    pub(super) fn is_refusal(&self, code: i32) -> bool {
        matches!(self, NetlinkError::Refused(error) if error.raw_os_error() == Some(code))
    }
}

/// What is tried again and again is complained about once for each error.
#[derive(Debug, Default)]
pub(super) struct Complaints(Option<String>);

impl Complaints {
    /// Whether the error is another one than that of the last attempt.
    pub(super) fn is_new(&mut self, error: &NetlinkError) -> bool {
        let text = Some(error.to_string());
        std::mem::replace(&mut self.0, text.clone()) != text
    }
}

/// The protocol of crier's routes and rules: a number that neither the kernel nor another well-known program uses.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(67);

/// Of an unreachable route of crier's: behind every route that leads somewhere.
pub(super) const UNREACHABLE_METRIC: u32 = 4_278_198_272;

pub(super) fn address_family(of: Family) -> AddressFamily {
    match of {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The number of a route's table: beyond 255 the header has no room for it.
pub(super) fn table_of(route: &RouteMessage) -> u32 {
    let told = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        // The enum is not ours.
        _ => None,
    });
    told.unwrap_or_else(|| u32::from(route.header.table))
}

/// `None` for a family that crier has no part in.
pub(super) fn family_of(of: AddressFamily) -> Option<Family> {
    match of {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        // The enum is not ours.
        _ => None,
    }
}

/// What a link is called; `None` of a message that tells of no link, or not that.
pub(super) fn index_and_name(message: &RouteNetlinkMessage) -> Option<(u32, InterfaceName)> {
    // The enum is not ours; nothing else is a link.
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some((link.header.index, InterfaceName::from(name.as_str()))),
        // The enum is not ours.
        _ => None,
    })
}

/// The link by which packets leave by the route.
pub(super) fn leaves_by(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(link) => Some(*link),
        // The enum is not ours.
        _ => None,
    })
}

/// After this many disturbed lists in a row, the caller has to try again later.
const LIST_ATTEMPTS: usize = 8;

/// The address that a message is about, and that of the other end: the same one unless the link is point-to-point.
pub(super) fn own_and_peer(message: &AddressMessage) -> Option<(IpAddr, IpAddr)> {
    let mut local = None;
    let mut peer = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            // The enum is not ours; nothing else identifies an address.
            _ => {}
        }
    }
    // IPv6 names its own address only as IFA_ADDRESS, unless there is a peer.
    let local = local.or(peer)?;
    Some((local, peer.unwrap_or(local)))
}
