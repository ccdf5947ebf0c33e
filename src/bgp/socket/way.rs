//! By which of several links this host's packets to a peer leave, as the kernel has it. Floor 2. Not for where a peer is:
//! `plan/reach.rs` finds that.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use socket2::SockRef;

use super::options::interface_index;
use crate::names::InterfaceName;

/// The kernel answers at once.
const SILENCE: Duration = Duration::from_secs(1);

/// The one of these links by which packets from `source` to the peer leave now; `device` is what sockets to the peer are bound to.
/// `None` where it is none of them, or the kernel does not tell.
pub fn which<'a>(
    links: &[&'a InterfaceName],
    peer: IpAddr,
    source: IpAddr,
    device: Option<&InterfaceName>,
) -> Option<&'a InterfaceName> {
    let bound_to = device.map(interface_index).transpose().ok()?;
    let index = link_to(peer, source, bound_to).ok()??;
    links.iter().copied().find(|link| interface_index(link).is_ok_and(|of_link| of_link == index))
}

/// The index of the link; `None` where there is no route.
fn link_to(peer: IpAddr, source: IpAddr, bound_to: Option<u32>) -> io::Result<Option<u32>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    SockRef::from(&socket).set_read_timeout(Some(SILENCE))?;
    socket.send(&request(peer, source, bound_to), 0)?;
    let (octets, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&octets).map_err(io::Error::other)?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) = answer.payload else { return Ok(None) };
    Ok(route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        // The enum is not ours.
        _ => None,
    }))
}

fn request(peer: IpAddr, source: IpAddr, bound_to: Option<u32>) -> Vec<u8> {
    let mut question = RouteMessage::default();
    let (family, length) = match peer {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.header.address_family = family;
    (question.header.source_prefix_length, question.header.destination_prefix_length) = (length, length);
    let addresses =
        [RouteAttribute::Destination(RouteAddress::from(peer)), RouteAttribute::Source(RouteAddress::from(source))];
    question.attributes = addresses.into_iter().chain(bound_to.map(RouteAttribute::Oif)).collect();
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetRoute(question));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut octets = vec![0; request.buffer_len()];
    request.serialize(&mut octets);
    octets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_which_link_it_is() {
        let (lo, other) = (InterfaceName::from("lo"), InterfaceName::from("no-such-link"));
        let local = "127.0.0.1".parse().unwrap();
        assert_eq!(which(&[&other, &lo], local, local, None), Some(&lo));
        assert_eq!(which(&[&other], local, local, None), None);
        assert_eq!(which(&[&lo], local, local, Some(&other)), None, "the device has gone");
    }
}
