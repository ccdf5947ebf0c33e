//! A socket that receives and sends the messages of router discovery on one link.
//! Floor 2. `machine` says what they mean.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::UdpSocket;

use super::packet::Message;
use crate::names::InterfaceName;

/// A raw ICMPv6 socket bound to one link.
///
/// The standard library has no type for raw sockets; tokio's UDP socket does all that is needed of one: it waits, and it
/// receives and sends whole packets with their addresses.
#[derive(Debug)]
pub(super) struct DiscoverySocket {
    inner: UdpSocket,
    index: u32,
}

impl DiscoverySocket {
    /// Opens a socket on a link that is up. Needs CAP_NET_RAW, and a tokio runtime around it.
    ///
    /// # Errors
    /// ENODEV if there is no such link, EPERM without the capability. Nothing is left open.
    pub(super) fn open(interface: &InterfaceName, index: u32) -> io::Result<DiscoverySocket> {
        let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking().cloexec(), Some(Protocol::ICMPV6))?;
        socket.attach_filter(&filter())?;
        socket.bind_device(Some(interface.as_str().as_bytes()))?;
        socket.set_multicast_if_v6(index)?;
        // RFC 4861 §4.1, §4.2: receivers drop a message that could have passed a router.
        socket.set_multicast_hops_v6(HOP_LIMIT)?;
        socket.set_multicast_loop_v6(false)?;
        // Solicitations go to the group of all routers; every host is a member of the group of all nodes.
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        let inner = UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
        Ok(DiscoverySocket { inner, index })
    }

    /// Waits for the next packet: its sender and as much of it as fits. Safe to cancel.
    pub(super) async fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<(Ipv6Addr, &'b [u8])> {
        let (length, from) = self.inner.recv_from(buffer).await?;
        match from {
            SocketAddr::V6(from) => Ok((*from.ip(), buffer.get(..length).unwrap_or_default())),
            SocketAddr::V4(from) => Err(io::Error::other(format!("an IPv6 packet from {from}"))),
        }
    }

    /// Sends to the group that the message is for. Fails at once if the kernel's queue is full.
    pub(super) fn send(&self, message: Message) -> io::Result<()> {
        let group = match message {
            Message::Solicitation => ALL_ROUTERS,
            Message::Advertisement { .. } | Message::Agent => ALL_NODES,
        };
        let mut octets = BytesMut::with_capacity(message.emitted_len());
        message.emit(&mut octets);
        let to = SocketAddrV6::new(group, 0, 0, self.index);
        self.inner.try_send_to(&octets, to.into()).map(|_whole| ())
    }
}

/// Passes solicitations and advertisements with a hop limit of 255, which were sent on this link (RFC 4861 §6.1). The kernel
/// drops the rest, and everything with a wrong checksum.
fn filter() -> [SockFilter; 7] {
    [
        SockFilter::new(LOAD_BYTE, 0, 0, HOP_LIMIT_FIELD),
        SockFilter::new(JUMP_IF_EQUAL, 0, 4, HOP_LIMIT),
        SockFilter::new(LOAD_BYTE, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, ROUTER_SOLICITATION),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ROUTER_ADVERTISEMENT),
        SockFilter::new(RETURN, 0, 0, ACCEPT_ALL),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

const HOP_LIMIT: u32 = 255;

/// The filter sees the packet from its ICMPv6 header on, and finds the IPv6 header at this special offset.
const HOP_LIMIT_FIELD: u32 = libc::SKF_NET_OFF.cast_unsigned() + 7;

const ROUTER_SOLICITATION: u32 = 133;
const ROUTER_ADVERTISEMENT: u32 = 134;
const ACCEPT_ALL: u32 = u32::MAX;

// The kernel's constants in the types of the fields that they go into; each is far below the least maximum.
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
