//! The sockets that carry pulses on one link: UDP to a link-local group of IPv6, of IPv4 too where it is needed.
//! Floor 2. Octets in and out, with where they came from and over how many hops. All `unsafe` of this folder.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::packet::LONGEST;
use crate::address::Family;
use crate::config::PULSE_PORT;
use crate::datagram;

/// Groups of link-local scope for experiments (RFC 4727 §2.1 and §3): no router forwards them, and switches flood those of
/// IPv4 to every port (RFC 4541 §2.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 254);
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x114);

/// The hop limit of a pulse. Every router decrements it, so a datagram that arrives with it was sent on this link.
pub const HOP_LIMIT: u8 = 255;

/// A datagram as it came.
#[derive(Debug)]
pub struct Datagram<'a> {
    pub source: SocketAddr,
    pub hop_limit: Option<u8>,
    pub octets: &'a [u8],
}

/// A socket for one family on one link.
#[derive(Debug)]
pub struct PulseSocket {
    inner: AsyncFd<Socket>,
    family: Family,
    index: u32,
}

impl PulseSocket {
    /// Opens a socket on the link with this index, in the network namespace of the calling thread, and joins the group.
    ///
    /// Needs CAP_NET_RAW, and a tokio runtime around it.
    ///
    /// # Errors
    /// ENODEV if there is no such link, EADDRNOTAVAIL if the link lacks the family, EADDRINUSE if another process has the
    /// port. Nothing is left open.
    pub fn open(family: Family, index: u32) -> io::Result<PulseSocket> {
        let domain = match family {
            Family::V4 => Domain::IPV4,
            Family::V6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        bind_to_link(&socket, index)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        match family {
            Family::V4 => {
                socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PULSE_PORT).into())?;
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
                socket.set_multicast_all_v4(false)?;
                socket.set_multicast_loop_v4(false)?;
                socket.set_multicast_ttl_v4(HOP_LIMIT.into())?;
                socket.set_ttl_v4(HOP_LIMIT.into())?;
                switch_on(&socket, libc::IPPROTO_IP, libc::IP_RECVTTL)?;
            }
            Family::V6 => {
                socket.set_only_v6(true)?;
                socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, PULSE_PORT, 0, 0).into())?;
                socket.join_multicast_v6(&GROUP_V6, index)?;
                socket.set_multicast_all_v6(false)?;
                socket.set_multicast_if_v6(index)?;
                socket.set_multicast_loop_v6(false)?;
                socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
                socket.set_recv_hoplimit_v6(true)?;
            }
        }
        // SAFETY: the socket owns its descriptor and closes it when dropped, which the AsyncFd does after deregistering;
        // nothing here replaces or gives away the socket inside.
        let inner = unsafe { AsyncFd::register(socket) }?;
        Ok(PulseSocket { inner, family, index })
    }

    /// Waits until there may be datagrams. Safe to cancel: nothing is taken.
    pub async fn readable(&self) -> io::Result<()> {
        self.inner.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Hands out the datagrams that are there, no more than `BATCH`; never waits.
    pub fn receive_ready(&self, mut handle: impl FnMut(Datagram<'_>)) -> io::Result<()> {
        let mut buffer = [0; LONGEST + 1];
        for _ in 0..BATCH {
            match self.inner.try_io(Interest::READABLE, |inner| receive_one(inner, &mut buffer)) {
                Ok((length, source, hop_limit)) => {
                    let octets = buffer.get(..length).unwrap_or_default();
                    if let Some(source) = source {
                        handle(Datagram { source, hop_limit, octets });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends to the group. Fails at once if the kernel's queue is full.
    pub fn send_to_group(&self, octets: &[u8]) -> io::Result<()> {
        let group = match self.family {
            Family::V4 => IpAddr::V4(GROUP_V4),
            Family::V6 => IpAddr::V6(GROUP_V6),
        };
        self.send_to(octets, group)
    }

    /// Sends to one host on the link.
    pub fn send_to(&self, octets: &[u8], address: IpAddr) -> io::Result<()> {
        let address: SockAddr = match address {
            IpAddr::V4(v4) => SocketAddrV4::new(v4, PULSE_PORT).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, PULSE_PORT, 0, self.index).into(),
        };
        self.inner.get_ref().send_to(octets, &address).map(|_whole_datagram| ())
    }
}

/// Binds by the index, so that the socket stays with a link that is renamed.
fn bind_to_link(socket: &Socket, index: u32) -> io::Result<()> {
    let out_of_range = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("there is no link {index}"));
    set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, libc::c_int::try_from(index).map_err(out_of_range)?)
}

fn switch_on(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set_option(socket, level, option, 1)
}

fn set_option(socket: &Socket, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as the socket is borrowed; the value is an int that lives through the call,
    // and its size is what is said.
    let failed = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), INT_LEN) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One datagram: how long it was (one more than fits is as good as longer), from where, and its hop limit.
fn receive_one(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>, Option<u8>)> {
    let mut hop_limit = None;
    let (length, source) =
        datagram::receive_one(socket, buffer, |message| hop_limit = message.hop_limit().or(hop_limit))?;
    Ok((length, source, hop_limit))
}

const INT_LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

/// Datagrams handed out by one call.
const BATCH: usize = 64;

/// Size of the receive buffer in octets. It holds some hundreds of datagrams: in a large cluster, so many answers reach a
/// node that starts.
const RECEIVE_BUFFER: usize = 512 << 10;
