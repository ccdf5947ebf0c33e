//! Hardware addresses, ARP packets, and the raw socket that both the prober and the capture read.
//!
//! Written apart from crier's own parsers on purpose: the rack judges them.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Mac = Mac([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Mac, String> {
        let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        bytes.try_into().map(Mac).map_err(|_| format!("{text:?} is no Ethernet address"))
    }
}

/// An ARP packet for IPv4 over Ethernet, with the addresses of the frame around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    pub frame_from: Mac,
    pub frame_to: Mac,
    pub operation: ArpOperation,
    pub sender_mac: Mac,
    pub sender: Ipv4Addr,
    pub target_mac: Mac,
    pub target: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    Request,
    Reply,
}

impl Arp {
    /// Whether it tells about the sender's own address unasked, by request or by reply.
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target && !self.sender.is_unspecified()
    }

    /// RFC 5227 §1.1: a request with an all-zero sender address asks whether the target is in use.
    pub fn is_probe(&self) -> bool {
        self.operation == ArpOperation::Request && self.sender.is_unspecified()
    }

    /// Reads an Ethernet frame; `None` if it holds no ARP for IPv4.
    pub fn read(frame: &[u8]) -> Option<Arp> {
        // Ethernet type ARP; hardware type Ethernet; protocol IPv4; address lengths 6 and 4.
        if frame.get(12..20)? != [0x08, 0x06, 0, 1, 0x08, 0, 6, 4] {
            return None;
        }
        let mac = |at: usize| Some(Mac(frame.get(at..at + 6)?.try_into().ok()?));
        let ip = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
        let operation = match frame.get(20..22)? {
            [0, 1] => ArpOperation::Request,
            [0, 2] => ArpOperation::Reply,
            _ => return None,
        };
        Some(Arp {
            frame_to: mac(0)?,
            frame_from: mac(6)?,
            operation,
            sender_mac: mac(22)?,
            sender: ip(28)?,
            target_mac: mac(32)?,
            target: ip(38)?,
        })
    }

    /// The Ethernet frame, without padding.
    pub fn frame(&self) -> Vec<u8> {
        let operation: u8 = match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
        };
        let mut frame = Vec::with_capacity(42);
        frame.extend(self.frame_to.0);
        frame.extend(self.frame_from.0);
        frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
        frame.extend(self.sender_mac.0);
        frame.extend(self.sender.octets());
        frame.extend(self.target_mac.0);
        frame.extend(self.target.octets());
        frame
    }
}

/// A packet socket on one interface of the namespace it was opened in.
pub struct PacketSocket {
    socket: OwnedFd,
}

/// Which frames a [`PacketSocket`] is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// All, those sent from this interface too.
    All,
    Arp,
}

impl PacketSocket {
    /// Opens it in the calling thread's namespace. [`receive`](Self::receive) comes back after at most `patience`.
    ///
    /// # Errors
    /// The kernel's, as when there is no such interface.
    pub fn open(interface: &str, frames: Frames, patience: Duration) -> io::Result<PacketSocket> {
        let protocol = match frames {
            Frames::All => libc::ETH_P_ALL,
            Frames::Arp => libc::ETH_P_ARP,
        };
        let protocol = u16::try_from(protocol).map_err(io::Error::other)?.to_be();
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: `name` is a terminated string for the length of the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::other(format!("no interface {interface}: {}", io::Error::last_os_error())));
        }
        // Protocol 0: nothing is received before the socket is bound to its interface.
        // SAFETY: a call with plain numbers.
        let socket = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: just opened and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let socket = PacketSocket { socket };
        let (on, buffer): (libc::c_int, libc::c_int) = (1, 32 << 20);
        socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)?;
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeval(patience))?;
        // Needs a right over the host that a user namespace does not give; the ordinary size does for most tests.
        let _ = socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer);
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET.try_into().map_err(io::Error::other)?;
        address.sll_protocol = protocol;
        address.sll_ifindex = index.try_into().map_err(io::Error::other)?;
        let length = u32::try_from(size_of_val(&address)).map_err(io::Error::other)?;
        // SAFETY: `address` is a sockaddr_ll of the length that is given.
        check(unsafe { libc::bind(socket.socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    /// Sends one whole frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length are those of `frame`.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends whole frames in one call. Returns how many it took;
    /// the rest found no room.
    pub fn send_many(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        let mut parts: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: all-zero is a valid mmsghdr.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = std::ptr::from_mut(part);
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let count = u32::try_from(messages.len()).map_err(io::Error::other)?;
        // SAFETY: `messages` holds that many, each with one part that points to a live frame, which the kernel only reads.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Frames that are sent go to the interface directly, past its queue.
    pub fn bypass_queue(&self) -> io::Result<()> {
        self.set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1)
    }

    /// The next frame and when the kernel saw it, or `None` if none came in time.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<(SystemTime, &'b [u8])>> {
        /// Room for one timestamp message, aligned as the kernel writes it.
        #[repr(C, align(8))]
        struct Control([u8; 64]);
        let mut control = Control([0; 64]);
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all-zero is a valid msghdr.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>();
        // SAFETY: all pointers in `message` point to live memory of the lengths given beside them.
        let received = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        let Ok(length) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            let nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if nothing { Ok(None) } else { Err(error) };
        };
        // SAFETY: the kernel has filled in `message`, and `control` lives.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
        let stamp = header.filter(|header| header.cmsg_type == libc::SCM_TIMESTAMPNS).map(|header| {
            // SAFETY: a message of this type holds a timespec.
            unsafe { libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned() }
        });
        let since = stamp.map(|stamp| {
            Duration::new(u64::try_from(stamp.tv_sec).unwrap_or(0), u32::try_from(stamp.tv_nsec).unwrap_or(0))
        });
        let Some(since) = since else { return Err(io::Error::other("a frame came without a timestamp")) };
        Ok(Some((UNIX_EPOCH + since, &buffer[..length])))
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
        // SAFETY: the pointer and the length are those of `value`.
        check(unsafe {
            libc::setsockopt(self.socket.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
        })?;
        Ok(())
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn timeval(length: Duration) -> libc::timeval {
    libc::timeval {
        tv_sec: length.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_usec: length.subsec_micros().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arp_packet_survives_being_written_and_read() {
        let arp = Arp {
            frame_from: Mac([2, 0, 0, 0, 0, 1]),
            frame_to: Mac::BROADCAST,
            operation: ArpOperation::Request,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: Mac([0; 6]),
            target: Ipv4Addr::new(10, 0, 0, 2),
        };
        assert_eq!(Arp::read(&arp.frame()), Some(arp));
    }

    #[test]
    fn a_frame_that_is_cut_short_is_no_arp_packet() {
        let mut frame = vec![0xff; 12];
        frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 2]);
        assert_eq!(Arp::read(&frame), None);
    }

    #[test]
    fn an_ethernet_address_reads_back_as_it_is_printed() {
        let mac = Mac([0x02, 0xab, 0, 1, 2, 0xff]);
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert!("02:ab:00:01:02".parse::<Mac>().is_err());
    }
}
