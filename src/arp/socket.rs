//! A socket that receives and sends ARP or NDP frames on one link, and a wait for several of them.
//! Floor 2. Whole frames in and out; `machine::answer` says what they mean. All `unsafe` of packet sockets.
//!
//! Frames come through a ring that is shared with the kernel (TPACKET_V2): no frame costs a system call, so a flood is read
//! as fast as it comes. Version 3 hands blocks over only when they are full or a millisecond old, which is too late here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use super::packet::Protocol;

pub mod groups;

/// An AF_PACKET socket bound to one link. It stays with the link by its index, across down, up and rename.
#[derive(Debug)]
pub struct LinkSocket {
    inner: Socket,
    index: u32,
    ring: Ring,
}

impl LinkSocket {
    /// Opens a socket on the link with this index, in the network namespace of the calling thread. The link may be down.
    ///
    /// Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// ENODEV if there is no such link, EPERM without the capability, ENOMEM without room for the ring. Nothing is left open.
    pub fn open(index: u32, protocol: Protocol) -> io::Result<LinkSocket> {
        // No protocol yet: the socket would hear every link until the filter and the link are set.
        let inner = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        match protocol {
            Protocol::Arp => inner.attach_filter(&arp_filter(index))?,
            Protocol::Ndp => inner.attach_filter(&ndp_filter(index))?,
        }
        let ring = Ring::of(&inner)?;
        // PACKET_IGNORE_OUTGOING has nothing to add: a socket of one EtherType is never shown what this host sends.
        inner.bind(&link_address(index, protocol)?)?;
        Ok(LinkSocket { inner, index, ring })
    }

    /// Hands out the frames that have arrived, at most `most`, and answers how many. Frames that do not fit into `FRAME` are
    /// cut.
    pub fn receive(&mut self, most: usize, mut handle: impl FnMut(&LinkSender<'_>, &[u8])) -> usize {
        let sender = LinkSender(&self.inner);
        (0..most).take_while(|_| self.ring.take(|frame| handle(&sender, frame))).count()
    }

    /// The sending end of the socket.
    pub fn sender(&self) -> LinkSender<'_> {
        LinkSender(&self.inner)
    }

    /// The error since the last call: ENETDOWN, once, when the link goes down or vanishes. `is_bound` tells which.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.inner.take_error()
    }

    /// Whether the link of the socket still exists, up or down. A link that vanished never comes back for this socket, not
    /// even under the same index.
    pub fn is_bound(&self) -> bool {
        let Ok(address) = self.inner.local_addr() else { return false };
        let mut storage = address.as_storage();
        // SAFETY: a packet socket's name is a sockaddr_ll, which fits into the storage, and every bit pattern is one.
        let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        u32::try_from(link.sll_ifindex).is_ok_and(|index| index == self.index)
    }

    /// Frames that were dropped because the ring was full, since the last call. Costs nothing if there are none.
    pub fn take_lost(&mut self) -> u64 {
        if !std::mem::take(&mut self.ring.losing) {
            return 0;
        }
        let mut told = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = STATISTICS_LEN;
        // SAFETY: the kernel writes at most `length` octets to `told`, which is that long, and every bit pattern is one.
        let outcome = unsafe {
            libc::getsockopt(
                self.inner.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut told).cast(),
                &raw mut length,
            )
        };
        if outcome == 0 { u64::from(told.tp_drops) } else { 0 }
    }
}

impl std::os::fd::AsFd for LinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

/// The sending end of a socket.
#[derive(Debug, Clone, Copy)]
pub struct LinkSender<'a>(&'a Socket);

impl LinkSender<'_> {
    /// Sends a frame. Fails at once if the kernel's queue is full.
    ///
    /// # Errors
    /// ENETDOWN on a link that is down, EAGAIN or ENOBUFS if its queue is full. The frame is lost in each case.
    pub fn send(self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(|_whole_frame| ())
    }
}

/// The outcome of a wait for one descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    pub readable: bool,
    /// It has an error; the socket says which.
    pub failed: bool,
}

/// Waits until a descriptor is readable or has an error, or until `patience` is over; for ever without one. It may return
/// early. The outcomes are in the order of the descriptors.
pub fn wait<const N: usize>(
    ends: [Option<BorrowedFd<'_>>; N],
    patience: Option<Duration>,
) -> io::Result<[Readiness; N]> {
    // The kernel passes over descriptors that are negative.
    let fd = |end: Option<BorrowedFd<'_>>| end.map_or(-1, |end| end.as_raw_fd());
    let mut polled = ends.map(|end| libc::pollfd { fd: fd(end), events: libc::POLLIN, revents: 0 });
    let patience = patience.map(|patience| libc::timespec {
        tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(patience.subsec_nanos().cast_signed()),
    });
    let patience = patience.as_ref().map_or(std::ptr::null(), |patience| &raw const *patience);
    let count = libc::nfds_t::try_from(N).unwrap_or_default();
    // SAFETY: `polled` is an array of `count` pollfd; `patience` is null or a timespec that lives until the end; no signal
    // mask is given. The descriptors are borrowed for the whole call.
    let outcome = unsafe { libc::ppoll(polled.as_mut_ptr(), count, patience, std::ptr::null()) };
    let error = io::Error::last_os_error();
    if outcome < 0 {
        return if error.kind() == io::ErrorKind::Interrupted { Ok([Readiness::default(); N]) } else { Err(error) };
    }
    Ok(polled
        .map(|end| Readiness { readable: end.revents & libc::POLLIN != 0, failed: end.revents & !libc::POLLIN != 0 }))
}

/// The received frames of a socket: memory that the kernel fills and this process empties, one frame at a time in a circle.
#[derive(Debug)]
struct Ring {
    start: NonNull<u8>,
    next: usize,
    /// A frame was marked: others before it were lost.
    losing: bool,
}

// SAFETY: the mapping belongs to this value alone and may be used from any thread, one at a time.
unsafe impl Send for Ring {}

impl Ring {
    fn of(socket: &Socket) -> io::Result<Ring> {
        let version = libc::tpacket_versions::TPACKET_V2;
        set_option(socket, libc::PACKET_VERSION, &version)?;
        let shape = libc::tpacket_req {
            tp_block_size: BLOCK,
            tp_block_nr: FRAMES * FRAME / BLOCK,
            tp_frame_size: FRAME,
            tp_frame_nr: FRAMES,
        };
        set_option(socket, libc::PACKET_RX_RING, &shape)?;
        // SAFETY: a new mapping at a place of the kernel's choice, as long as the ring that was set up the line before.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RING_LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Ring { start, next: 0, losing: false }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// Hands out the next frame, if there is one, and gives its place back.
    fn take(&mut self, handle: impl FnOnce(&[u8])) -> bool {
        const { assert!(FRAME as usize * FRAMES as usize == RING_LEN && BLOCK.is_multiple_of(FRAME)) };
        // SAFETY: `next` is below FRAMES, so the whole place of the frame lies in the mapping.
        let place = unsafe { self.start.add(self.next * FRAME as usize) };
        // SAFETY: a place begins with a tpacket2_hdr at an address that is a multiple of 16, and that with its status, which
        // the kernel and we change in turns; the mapping lives as long as `self`.
        let status = unsafe { AtomicU32::from_ptr(place.as_ptr().cast::<u32>()) };
        let told = status.load(Ordering::Acquire);
        if told & libc::TP_STATUS_USER == 0 {
            return false;
        }
        self.losing |= told & libc::TP_STATUS_LOSING != 0;
        // SAFETY: the same header; with TP_STATUS_USER set the kernel leaves the place alone until the status is given back.
        let header = unsafe { place.cast::<libc::tpacket2_hdr>().read() };
        let (from, length) = (usize::from(header.tp_mac), usize::try_from(header.tp_snaplen).unwrap_or(usize::MAX));
        if from.checked_add(length).is_some_and(|end| end <= FRAME as usize) {
            // SAFETY: the frame was just checked to end within its place, and nobody writes to that meanwhile.
            handle(unsafe { std::slice::from_raw_parts(place.as_ptr().add(from), length) });
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % FRAMES as usize;
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping of `of`, which nothing refers to any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), RING_LEN) };
    }
}

fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the kernel reads `length` octets of `value`, which is that long.
    let outcome =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn link_address(index: u32, protocol: Protocol) -> io::Result<SockAddr> {
    let out_of_range = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("there is no link {index}"));
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a sockaddr type of this platform and fits into the storage.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = AF_PACKET;
    link.sll_protocol = match protocol {
        Protocol::Arp => ETHERTYPE_ARP.to_be(),
        Protocol::Ndp => ETHERTYPE_IPV6.to_be(),
    };
    link.sll_ifindex = i32::try_from(index).map_err(out_of_range)?;
    // SAFETY: the storage was zeroed and then filled as a sockaddr_ll, whose family says so and whose length this is.
    Ok(unsafe { SockAddr::new(storage, SOCKADDR_LL_LEN) })
}

/// Passes requests and replies that were sent to this host or broadcast, on this link. The kernel drops the rest.
///
/// The filter checks the link and the kind of the frame although the socket is bound: the socket also sees frames of a VLAN
/// on top of the link, with their tag removed. Frames of a VLAN of this host carry the index of the VLAN; frames of any other
/// VLAN look as if they were sent to another host.
fn arp_filter(index: u32) -> [SockFilter; 10] {
    let drop_from = |at: u8| 9 - at - 1;
    let accept_from = |at: u8| 8 - at - 1;
    [
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_IFINDEX)),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(1), index),
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, PACKET_HOST),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(4), PACKET_BROADCAST),
        SockFilter::new(LOAD_HALF, 0, 0, ARP_OPERATION_OFFSET),
        SockFilter::new(JUMP_IF_EQUAL, accept_from(6), 0, 1),
        SockFilter::new(JUMP_IF_EQUAL, accept_from(7), drop_from(7), 2),
        SockFilter::new(RETURN, 0, 0, FRAME),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The same for solicitations and advertisements, sent to this host or to a group. The cheap checks come first: all IPv6 of
/// the link passes through here.
fn ndp_filter(index: u32) -> [SockFilter; 12] {
    let drop_from = |at: u8| 11 - at - 1;
    let accept_from = |at: u8| 10 - at - 1;
    [
        SockFilter::new(LOAD_OCTET, 0, 0, IPV6_NEXT_HEADER_OFFSET),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(1), ICMPV6),
        SockFilter::new(LOAD_OCTET, 0, 0, ICMPV6_TYPE_OFFSET),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, SOLICITATION),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(4), ADVERTISEMENT),
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_IFINDEX)),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(6), index),
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
        SockFilter::new(JUMP_IF_EQUAL, accept_from(8), 0, PACKET_HOST),
        SockFilter::new(JUMP_IF_EQUAL, accept_from(9), drop_from(9), PACKET_MULTICAST),
        SockFilter::new(RETURN, 0, 0, FRAME),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// The offset at which a filter reads what the kernel knows of a frame beside its octets.
const fn ancillary(field: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + field).cast_unsigned()
}

/// The size of one frame's place in the ring, in octets. The kernel's header takes some fifty; the rest is more than twice
/// the longest frame of either protocol.
const FRAME: u32 = 256;

/// Frames that may wait: 40 ms of a flood of 200,000 a second, about as long as a busy machine may keep the thread from
/// running. A deeper ring would not make a busy responder faster; it would make its answers late.
const FRAMES: u32 = 8192;

/// The size of one allocation of the kernel for the ring, in octets.
const BLOCK: u32 = 4096;

const RING_LEN: usize = FRAME as usize * FRAMES as usize;

const ARP_OPERATION_OFFSET: u32 = 20;
const IPV6_NEXT_HEADER_OFFSET: u32 = 20;
const ICMPV6_TYPE_OFFSET: u32 = 54;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;
const PACKET_HOST: u32 = 0;
const PACKET_BROADCAST: u32 = 1;
const PACKET_MULTICAST: u32 = 2;

// The kernel's constants in the types of the fields that they go into; each is far below the least maximum.
const AF_PACKET: u16 = libc::AF_PACKET as u16;
const SOCKADDR_LL_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
const STATISTICS_LEN: libc::socklen_t = size_of::<libc::tpacket_stats>() as libc::socklen_t;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LOAD_OCTET: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
