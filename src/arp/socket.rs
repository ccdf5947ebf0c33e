//! A socket that hears the ARP of one link and speaks on it.
//! Floor 2. Whole frames in and out; what they mean is the business of `answer`. The only `unsafe` of this folder.

use std::io::{self, Read};

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

/// An AF_PACKET socket bound to one link. It stays with the link by its index, across down, up and rename.
#[derive(Debug)]
pub struct ArpSocket {
    inner: AsyncFd<Socket>,
    index: u32,
}

impl ArpSocket {
    /// Opens a socket on the link with this index, in the network namespace of the calling thread. The link may be down.
    ///
    /// Needs CAP_NET_RAW, and a tokio runtime around it.
    ///
    /// # Errors
    /// ENODEV where there is no such link, EPERM without the capability. Nothing is left behind.
    pub fn open(index: u32) -> io::Result<ArpSocket> {
        // No protocol yet: until the filter and the link are set, the socket would hear the ARP of every link.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), None)?;
        socket.attach_filter(&filter(index))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        // PACKET_IGNORE_OUTGOING has nothing to add: a socket of one EtherType is never shown what this host sends.
        socket.bind(&link_address(index)?)?;
        // SAFETY: the socket owns its descriptor and closes it when dropped, which the AsyncFd does after deregistering;
        // nothing here replaces or gives away the socket inside.
        let inner = unsafe { AsyncFd::register(socket) }?;
        Ok(ArpSocket { inner, index })
    }

    /// Waits for frames and hands out those that are there, no more than `BATCH`, so that the caller gets to look at
    /// its other business in between. Frames longer than an ARP packet and its padding come cut off.
    ///
    /// Safe to cancel: no frame is taken before the wait is over.
    ///
    /// # Errors
    /// ENETDOWN, once, when the link goes down or away: ask `is_bound` which. The frames before it were handed out.
    pub async fn receive(&self, mut handle: impl FnMut(&[u8])) -> io::Result<()> {
        let mut ready = self.inner.readable().await?;
        let mut buffer = [0; FRAME];
        for _ in 0..BATCH {
            match ready.try_io(|inner| inner.get_ref().read(&mut buffer)) {
                Ok(length) => handle(buffer.get(..length?).unwrap_or_default()),
                Err(_would_block) => break,
            }
        }
        Ok(())
    }

    /// Sends a frame, or fails at once where the kernel has no room for it.
    ///
    /// # Errors
    /// ENETDOWN on a link that is down, EAGAIN or ENOBUFS where its queue is full. The frame is lost in every case.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.inner.get_ref().send(frame).map(|_whole_frame| ())
    }

    /// Whether the link that the socket was opened for still exists, up or down. One that does not is never coming
    /// back for this socket, not even under the same index.
    pub fn is_bound(&self) -> bool {
        let Ok(address) = self.inner.get_ref().local_addr() else { return false };
        let mut storage = address.as_storage();
        // SAFETY: a packet socket's name is a sockaddr_ll, which fits into the storage, and every bit pattern is one.
        let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        u32::try_from(link.sll_ifindex).is_ok_and(|index| index == self.index)
    }
}

fn link_address(index: u32) -> io::Result<SockAddr> {
    let out_of_range = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("there is no link {index}"));
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a sockaddr type of this platform and fits into the storage.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = AF_PACKET;
    link.sll_protocol = ETHERTYPE_ARP.to_be();
    link.sll_ifindex = i32::try_from(index).map_err(out_of_range)?;
    // SAFETY: the storage was zeroed and then filled as a sockaddr_ll, whose family says so and whose length this is.
    Ok(unsafe { SockAddr::new(storage, SOCKADDR_LL_LEN) })
}

/// Lets requests and replies pass that were sent to this host or to everybody, on this very link. The rest is dropped
/// in the kernel.
///
/// The link and the kind of the frame have to be asked for although the socket is bound: frames of a VLAN on top of
/// the link are shown to it too, with their tag already taken off. Those of a VLAN that this host has come with the
/// VLAN's own index, those of one that it has not as if they were meant for another host.
fn filter(index: u32) -> [SockFilter; 10] {
    let drop_from = |at: u8| DROP_AT - at - 1;
    let accept_from = |at: u8| ACCEPT_AT - at - 1;
    [
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_IFINDEX)),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(1), index),
        SockFilter::new(LOAD_WORD, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, PACKET_HOST),
        SockFilter::new(JUMP_IF_EQUAL, 0, drop_from(4), PACKET_BROADCAST),
        SockFilter::new(LOAD_HALF, 0, 0, OPERATION_OFFSET),
        SockFilter::new(JUMP_IF_EQUAL, accept_from(6), 0, 1),
        SockFilter::new(JUMP_IF_EQUAL, accept_from(7), drop_from(7), 2),
        SockFilter::new(RETURN, 0, 0, ACCEPT_ALL),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// Where a filter finds what the kernel knows of a frame beside its octets: at the far end of the address space.
const fn ancillary(field: libc::c_int) -> u32 {
    (libc::SKF_AD_OFF + field).cast_unsigned()
}

const ACCEPT_AT: u8 = 8;
const DROP_AT: u8 = 9;

/// A longest ARP frame: the least length of an Ethernet frame, and some more for drivers that pad generously.
const FRAME: usize = 128;

/// Frames handed out in one go.
const BATCH: usize = 64;

/// Octets of received frames that may wait. Enough for some thousand small frames; a deep buffer does not make a
/// busy responder faster, it makes its answers late.
const RECEIVE_BUFFER: usize = 512 << 10;

const OPERATION_OFFSET: u32 = 20;
const ETHERTYPE_ARP: u16 = 0x0806;
const PACKET_HOST: u32 = 0;
const PACKET_BROADCAST: u32 = 1;
const ACCEPT_ALL: u32 = u32::MAX;

// The kernel's constants in the types of the fields that they go into; each is far below the least maximum.
const AF_PACKET: u16 = libc::AF_PACKET as u16;
const SOCKADDR_LL_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
