//! Objects of next hops (`ip nexthop`), which the netlink library cannot read. Floor 2. With `net.ipv4.nexthop_compat_mode = 0` the
//! kernel lists a route with the number of its object alone; here it gets what the kernel lists beside the number by default.
//!
//! Not for changes of them: `routes` hears of these and lists everything again.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteNextHop, RouteNextHopFlags};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::flows::{HEADER, attribute, header};

/// An object as the kernel tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Object {
    /// `None` for one to the link itself.
    gateway: Option<IpAddr>,
    link: Option<u32>,
    flags: RouteNextHopFlags,
    /// The numbers of its members, if it is a group.
    members: Vec<u32>,
}

/// Adds to each default route that has the number of an object and nothing else where the object leads.
///
/// # Errors
/// The kernel cannot be asked. An object that is gone is none: its routes go with it.
pub(super) async fn fill(routes: &mut [RouteNetlinkMessage]) -> io::Result<()> {
    let mut objects = None;
    for message in routes {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        let Some(number) = bare_object(route) else { continue };
        let objects = match &mut objects {
            Some(objects) => objects,
            none => none.insert(Objects::open()?),
        };
        let Some(object) = objects.object(number).await? else { continue };
        let mut members = Vec::new();
        for number in &object.members {
            members.extend(objects.object(*number).await?);
        }
        route.attributes.extend(in_words_of_routes(&object, &members));
    }
    Ok(())
}

/// The number of the object of a default route that says nothing else of its next hops.
fn bare_object(route: &RouteMessage) -> Option<u32> {
    let says_more = |it: &RouteAttribute| matches!(it, RouteAttribute::Oif(_) | RouteAttribute::MultiPath(_));
    if route.header.destination_prefix_length != 0 || route.attributes.iter().any(says_more) {
        return None;
    }
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::NhId(number) => Some(*number),
        // The enum is not ours.
        _ => None,
    })
}

/// What the kernel says of such an object in a route.
fn in_words_of_routes(object: &Object, members: &[Object]) -> Vec<RouteAttribute> {
    let gateway = |object: &Object| object.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into()));
    if object.members.is_empty() {
        return object.link.map(RouteAttribute::Oif).into_iter().chain(gateway(object)).collect();
    }
    let hop = |member: &Object| {
        let mut hop = RouteNextHop::default();
        (hop.interface_index, hop.flags) = (member.link?, member.flags);
        hop.attributes.extend(gateway(member));
        Some(hop)
    };
    vec![RouteAttribute::MultiPath(members.iter().filter_map(hop).collect())]
}

/// Objects that were asked for, and the connection to ask for more.
struct Objects {
    socket: TokioSocket,
    known: BTreeMap<u32, Option<Object>>,
}

impl Objects {
    fn open() -> io::Result<Objects> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        Ok(Objects { socket, known: BTreeMap::new() })
    }

    async fn object(&mut self, number: u32) -> io::Result<Option<Object>> {
        if let Some(known) = self.known.get(&number) {
            return Ok(known.clone());
        }
        self.socket.send_to(&request(number), &SocketAddr::new(0, 0)).await?;
        let (answer, _) = self.socket.recv_from_full().await?;
        let object = read(&answer)?;
        self.known.insert(number, object.clone());
        Ok(object)
    }
}

/// Asks for one object.
fn request(number: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&32_u32.to_ne_bytes());
    message.extend_from_slice(&GET.to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    message.extend_from_slice(&[0; 8 + NHMSG]);
    message.extend_from_slice(&8_u16.to_ne_bytes());
    message.extend_from_slice(&NHA_ID.to_ne_bytes());
    message.extend_from_slice(&number.to_ne_bytes());
    message
}

/// The object that an answer describes; `None` where there is none of the number, or the answer makes no sense.
fn read(answer: &[u8]) -> io::Result<Option<Object>> {
    let Some((length, kind)) = header(answer) else { return Ok(None) };
    let Some(body) = answer.get(HEADER..length) else { return Ok(None) };
    match kind {
        NEW => Ok(object(body)),
        ERROR => match number(body) {
            Some(0) | None => Ok(None),
            Some(code) => match code.cast_signed().saturating_abs() {
                libc::ENOENT => Ok(None),
                code => Err(io::Error::from_raw_os_error(code)),
            },
        },
        _ => Ok(None),
    }
}

fn object(body: &[u8]) -> Option<Object> {
    let attributes = body.get(NHMSG..)?;
    let gateway = |octets: &[u8]| {
        let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from).ok();
        v4().or_else(|| <[u8; 16]>::try_from(octets).map(IpAddr::from).ok())
    };
    let group = attribute(attributes, NHA_GROUP).unwrap_or_default();
    Some(Object {
        gateway: attribute(attributes, NHA_GATEWAY).and_then(gateway),
        link: attribute(attributes, NHA_OIF).and_then(number),
        // Those of routes are the lowest eight.
        flags: RouteNextHopFlags::from_bits_retain(number(body.get(4..)?)?.to_ne_bytes()[LOWEST]),
        members: group.chunks_exact(MEMBER).filter_map(number).collect(),
    })
}

/// The number in front.
fn number(octets: &[u8]) -> Option<u32> {
    octets.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
}

// From linux/rtnetlink.h and linux/nexthop.h.
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const NEW: u16 = 104;
const GET: u16 = 106;
/// Family, scope, protocol, one that is not used, and flags.
const NHMSG: usize = 8;
/// Number, weight, and what is not used.
const MEMBER: usize = 8;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const LOWEST: usize = if cfg!(target_endian = "little") { 0 } else { 3 };

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of the kernel.
    fn told(flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        body.extend_from_slice(&flags.to_ne_bytes());
        for (kind, value) in attributes {
            body.extend_from_slice(&u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            body.extend_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(value);
        }
        message(NEW, &body)
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut octets = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        octets.extend_from_slice(&kind.to_ne_bytes());
        octets.extend_from_slice(&[0; 10]);
        octets.extend_from_slice(body);
        octets
    }

    fn of(flags: u32, gateway: [u8; 4], link: u32) -> Object {
        let answer = told(flags, &[(NHA_ID, &[0; 4]), (NHA_OIF, &link.to_ne_bytes()), (NHA_GATEWAY, &gateway)]);
        read(&answer).unwrap().expect("an object")
    }

    #[test]
    fn a_route_by_an_object_or_a_group_leads_where_its_objects_lead() {
        let (one, two) = (of(0, [10, 0, 0, 1], 2), of(16, [10, 0, 1, 1], 3));
        let gateway = |octets: [u8; 4]| RouteAttribute::Gateway(IpAddr::from(octets).into());
        assert_eq!(in_words_of_routes(&one, &[]), [RouteAttribute::Oif(2), gateway([10, 0, 0, 1])]);
        let mut members = Vec::new();
        for number in [7_u32, 9] {
            members.extend_from_slice(&number.to_ne_bytes());
            members.extend_from_slice(&[0; 4]);
        }
        let group = read(&told(0, &[(NHA_GROUP, &members)])).unwrap().expect("a group");
        assert_eq!(group.members, [7, 9]);
        let hops = in_words_of_routes(&group, &[one, two]);
        let [RouteAttribute::MultiPath(hops)] = hops.as_slice() else { panic!("{hops:?}") };
        let hops: Vec<_> = hops.iter().map(|hop| (hop.interface_index, hop.flags, hop.attributes.clone())).collect();
        let (good, bad) = (RouteNextHopFlags::empty(), RouteNextHopFlags::Linkdown);
        assert_eq!(hops, [(2, good, vec![gateway([10, 0, 0, 1])]), (3, bad, vec![gateway([10, 0, 1, 1])])]);
        assert_eq!(in_words_of_routes(&group, &[]), [RouteAttribute::MultiPath(Vec::new())], "its members are gone");
    }

    #[test]
    fn only_a_default_route_that_says_nothing_else_is_looked_up() {
        let route = |length: u8, attributes: &[RouteAttribute]| {
            let mut route = RouteMessage::default();
            route.header.destination_prefix_length = length;
            route.attributes = attributes.to_vec();
            bare_object(&route)
        };
        assert_eq!(route(0, &[RouteAttribute::NhId(7)]), Some(7));
        assert_eq!(route(8, &[RouteAttribute::NhId(7)]), None);
        assert_eq!(route(0, &[RouteAttribute::NhId(7), RouteAttribute::Oif(2)]), None);
        assert_eq!(route(0, &[]), None);
    }

    #[test]
    fn an_object_that_is_gone_is_none_and_a_refusal_is_an_error() {
        assert_eq!(read(&message(ERROR, &(-libc::ENOENT).to_ne_bytes())).unwrap(), None);
        let refused = read(&message(ERROR, &(-libc::EPERM).to_ne_bytes())).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        let whole = told(0, &[(NHA_OIF, &[2, 0, 0, 0]), (NHA_GATEWAY, &[10, 0, 0, 1])]);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]).unwrap(), None, "cut");
        }
    }
}
