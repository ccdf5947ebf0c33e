//! The sockets of BFD: UDP for all sessions to receive on, one for each session to send from, and a wait for all of them.
//! Floor 2. Octets in and out, with where they came from and over how many hops. All `unsafe` of this folder.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use super::settings::SOURCE_PORTS;
use crate::address::{Family, ScopedAddress};
use crate::datagram::{self, ControlMessage};
use crate::names::InterfaceName;

/// RFC 5881 §5: "sent with a TTL or Hop Limit value of 255". RFC 5883 leaves it open, and routers expect the same there.
pub(super) const SENT_TTL: u8 = 255;

/// Internetwork control, as routers mark BFD: it passes before user traffic on a full link.
const TRAFFIC_CLASS: u32 = 0xc0;

/// A datagram as it came.
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    pub source: SocketAddr,
    /// Our address that it was sent to.
    pub to: Option<IpAddr>,
    pub ttl: Option<u8>,
    pub octets: &'a [u8],
}

/// A socket that hears all sessions of one family and port, of the main table or of one device.
#[derive(Debug)]
pub(super) struct Receiver {
    inner: Socket,
}

impl Receiver {
    /// Opens a socket on the port, in the network namespace of the calling thread. With a device, it hears only what comes over
    /// that VRF or link; without one, what comes over no VRF.
    ///
    /// # Errors
    /// EADDRINUSE if another process has the port, such as another BFD daemon. Nothing is left open.
    pub(super) fn open(family: Family, port: u16, device: Option<&InterfaceName>) -> io::Result<Receiver> {
        let inner = open(family, device)?;
        inner.set_recv_buffer_size(RECEIVE_BUFFER)?;
        // A socket of one device beside that of all: both ends must say that they share the port. The general one says so only once
        // it has the port, so that another daemon with the port is noticed.
        if device.is_some() {
            inner.set_reuse_address(true)?;
        }
        let any: SocketAddr = match family {
            Family::V4 => {
                switch_on(&inner, libc::IPPROTO_IP, libc::IP_RECVTTL)?;
                switch_on(&inner, libc::IPPROTO_IP, libc::IP_PKTINFO)?;
                (Ipv4Addr::UNSPECIFIED, port).into()
            }
            Family::V6 => {
                inner.set_recv_hoplimit_v6(true)?;
                switch_on(&inner, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
                (Ipv6Addr::UNSPECIFIED, port).into()
            }
        };
        inner.bind(&any.into())?;
        inner.set_reuse_address(true)?;
        Ok(Receiver { inner })
    }

    /// Hands out the datagrams that are there, at most `most`, and answers how many; never waits.
    pub(super) fn receive(&self, most: usize, mut handle: impl FnMut(Datagram<'_>)) -> io::Result<usize> {
        let mut buffer = [0; LONGEST];
        for taken in 0..most {
            match receive_one(&self.inner, &mut buffer) {
                Ok((length, Some(source), Origin { ttl, to })) => {
                    handle(Datagram { source, to, ttl, octets: buffer.get(..length).unwrap_or_default() });
                }
                Ok((_, None, _)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
        Ok(most)
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

/// The socket that one session sends from, always by the same port.
#[derive(Debug)]
pub(super) struct Sender {
    inner: Socket,
    to: SockAddr,
}

impl Sender {
    /// Opens a socket towards `peer`.
    ///
    /// # Errors
    /// NotFound without the device or link, EADDRNOTAVAIL if `source` is no address of this host now, EADDRINUSE if no source port is
    /// free near `port_hint`. Nothing is left open.
    pub(super) fn open(
        peer: &ScopedAddress,
        port: u16,
        device: Option<&InterfaceName>,
        source: Option<IpAddr>,
        port_hint: u16,
    ) -> io::Result<Sender> {
        let family = Family::of(peer.ip);
        let inner = open(family, device)?;
        // Nobody is to fill the buffer of a socket that is never read.
        inner.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])?;
        match family {
            Family::V4 => {
                inner.set_ttl_v4(SENT_TTL.into())?;
                inner.set_tos_v4(TRAFFIC_CLASS)?;
            }
            Family::V6 => {
                inner.set_unicast_hops_v6(SENT_TTL.into())?;
                inner.set_tclass_v6(TRAFFIC_CLASS)?;
            }
        }
        let scope = peer.interface.as_ref().map(interface_index).transpose()?.unwrap_or(0);
        let any = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        bind_source(&inner, source.unwrap_or(any), scope, port_hint)?;
        Ok(Sender { inner, to: socket_address(peer.ip, port, scope).into() })
    }

    /// Sends a packet. Fails at once if the kernel's queue is full.
    pub(super) fn send(&self, octets: &[u8]) -> io::Result<()> {
        self.inner.send_to(octets, &self.to).map(|_whole_datagram| ())
    }

    /// The address that packets leave from, as the kernel chooses it now.
    pub(super) fn source(&self) -> Option<IpAddr> {
        let bound = self.inner.local_addr().ok()?.as_socket()?.ip();
        if !bound.is_unspecified() {
            return Some(bound);
        }
        // To connect asks the routing table and sends nothing; a further socket, for this one is to follow its route.
        let domain = if bound.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let asking = Socket::new(domain, Type::DGRAM.cloexec(), Some(Protocol::UDP)).ok()?;
        if let Ok(Some(device)) = self.inner.device() {
            asking.bind_device(Some(&device)).ok()?;
        }
        asking.connect(&self.to).ok()?;
        Some(asking.local_addr().ok()?.as_socket()?.ip())
    }
}

fn bind_source(socket: &Socket, source: IpAddr, scope: u32, hint: u16) -> io::Result<()> {
    let (first, last) = (*SOURCE_PORTS.start(), *SOURCE_PORTS.end());
    let count = u32::from(last - first) + 1;
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for turn in 0..PORT_TRIES {
        let offset = (u32::from(hint) + turn) % count;
        let port = first + u16::try_from(offset).unwrap_or(0);
        match socket.bind(&socket_address(source, port, scope).into()) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

fn open(family: Family, device: Option<&InterfaceName>) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if family == Family::V6 {
        socket.set_only_v6(true)?;
    }
    if let Some(device) = device {
        interface_index(device)?;
        socket.bind_device(Some(device.as_str().as_bytes()))?;
    }
    Ok(socket)
}

fn socket_address(ip: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddr::V6(SocketAddrV6::new(v6, port, 0, scope)),
        ip => SocketAddr::new(ip, port),
    }
}

/// The kernel's number for a link, asked anew each time: a link can go and come back with another.
pub(super) fn interface_index(interface: &InterfaceName) -> io::Result<u32> {
    let name = CString::new(interface.as_str())?;
    // SAFETY: `name` is a string that ends in a zero octet and lives until the call returns; the call keeps nothing of it.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}")));
    }
    Ok(index)
}

/// Waits until one of the descriptors is readable or has an error, or until `patience` is over; for ever without one. It may
/// return early.
pub(super) fn wait(ends: impl Iterator<Item = RawFd>, patience: Option<Duration>) -> io::Result<()> {
    let mut polled: Vec<libc::pollfd> = ends.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let patience = patience.map(|patience| libc::timespec {
        tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(patience.subsec_nanos().cast_signed()),
    });
    let patience = patience.as_ref().map_or(std::ptr::null(), |patience| &raw const *patience);
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or_default();
    // SAFETY: `polled` holds `count` pollfd; `patience` is null or a timespec that lives until the end; no signal mask is given. The
    // caller holds the descriptors open for the whole call.
    let outcome = unsafe { libc::ppoll(polled.as_mut_ptr(), count, patience, std::ptr::null()) };
    let error = io::Error::last_os_error();
    if outcome < 0 && error.kind() != io::ErrorKind::Interrupted {
        return Err(error);
    }
    Ok(())
}

/// How the calling thread is scheduled from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// Before all threads that are not real-time.
    RealTime,
    /// Before most other threads.
    Nice,
    /// As all others.
    Plain,
}

/// Gives the calling thread the best priority that this process may have: real-time, else a better nice value. It never fails: BFD
/// runs with any, but a busy host may starve it.
pub(super) fn raise_priority() -> Priority {
    // SAFETY: a structure of numbers for which zeros are valid.
    let mut wanted: libc::sched_param = unsafe { std::mem::zeroed() };
    wanted.sched_priority = LEAST_REAL_TIME;
    // SAFETY: 0 is the calling thread, and the kernel only reads the structure, which lives through the call.
    let refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const wanted) };
    if refused == 0 {
        return Priority::RealTime;
    }
    // SAFETY: no pointers; to Linux, 0 is the calling thread alone.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BETTER_NICE) };
    if refused == 0 { Priority::Nice } else { Priority::Plain }
}

fn switch_on(socket: &Socket, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as the socket is borrowed; the value is an int that lives through the call, and its size
    // is what is said.
    let failed = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), INT_LEN) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel tells of a datagram beside its octets.
#[derive(Debug, Clone, Copy, Default)]
struct Origin {
    ttl: Option<u8>,
    to: Option<IpAddr>,
}

/// One datagram: how long it was, from where, and what the kernel tells of it. A longer one than fits is cut.
fn receive_one(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>, Origin)> {
    let mut origin = Origin::default();
    let (length, source) = datagram::receive_one(socket, buffer, |message| origin.note(message))?;
    Ok((length, source, origin))
}

impl Origin {
    fn note(&mut self, message: ControlMessage<'_>) {
        self.ttl = message.hop_limit().or(self.ttl);
        let address_at = |offset: usize| message.octets.get(offset..);
        match (message.level, message.kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let to =
                    address_at(std::mem::offset_of!(libc::in_pktinfo, ipi_addr)).and_then(<[u8]>::first_chunk::<4>);
                self.to = to.map(|to| IpAddr::from(*to)).or(self.to);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let to =
                    address_at(std::mem::offset_of!(libc::in6_pktinfo, ipi6_addr)).and_then(<[u8]>::first_chunk::<16>);
                self.to = to.map(|to| IpAddr::from(*to)).or(self.to);
            }
            _ => {}
        }
    }
}

const INT_LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;

/// Octets that are read of a datagram: the length field of a packet is one octet.
const LONGEST: usize = 256;

/// Size of a receive buffer in octets: some thousand packets. What waits in there longer than a detection time is of no use.
const RECEIVE_BUFFER: usize = 512 << 10;

/// Source ports that are tried.
const PORT_TRIES: u32 = 64;

/// It need not be before other real-time threads, only before all others.
const LEAST_REAL_TIME: libc::c_int = 1;
const BETTER_NICE: libc::c_int = -15;

// The kernel's constant in the type of the field that it goes into.
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
