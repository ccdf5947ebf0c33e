//! The options of TCP sockets that no library sets: keys of TCP MD5 and TCP-AO, the least TTL, the header of a SYN.
//! Floor 2, and the place of `unsafe` for BGP. Not for deciding who gets which option: that is `Endpoint` and `Listeners`.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::config::{AoAlgorithm, AoKey, LONGEST_PASSWORD};
use crate::names::InterfaceName;

/// Sets the TCP MD5 password (RFC 2385) of a peer on a socket, over the one that it had; an empty one takes it off.
///
/// `vrf` is the index of the VRF device that the socket is bound to. A device of another kind is no scope of keys to the
/// kernel, and needs none: the socket hears nothing but that device.
pub(super) fn set_md5_key(socket: BorrowedFd<'_>, peer: IpAddr, vrf: Option<u32>, password: &[u8]) -> io::Result<()> {
    let mut key = Md5Key {
        peer: PeerAddress::from(peer),
        flags: 0,
        prefix_len: host_bits(peer),
        key_len: u16::try_from(password.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        interface: 0,
        key: [0; LONGEST_PASSWORD],
    };
    let room = key.key.get_mut(..password.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(password);
    if let Some(interface) = vrf.and_then(|index| i32::try_from(index).ok()) {
        key.flags = MD5_PREFIX | MD5_INTERFACE;
        key.interface = interface;
        match set(socket, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &key) {
            // The device is no VRF.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (key.flags, key.interface) = (0, 0),
            done => return done,
        }
    }
    set(socket, libc::IPPROTO_TCP, TCP_MD5SIG, &key)
}

/// Adds a key of TCP-AO (RFC 5925) for a peer. With `first`, our segments are signed with it, and the peer is asked to use it.
pub(super) fn add_ao_key(
    socket: BorrowedFd<'_>,
    peer: IpAddr,
    vrf: Option<u32>,
    key: &AoKey,
    first: bool,
) -> io::Result<()> {
    let secret = key.secret.secret.expose();
    let mut option = AoAdd {
        peer: PeerAddress::from(peer),
        algorithm: [0; 64],
        interface: 0,
        // `set_current` and `set_rnext` are the first two bits; a listening socket takes neither.
        set: if first { first_bits(2) } else { 0 },
        reserved: 0,
        prefix_len: host_bits(peer),
        send_id: key.send_id,
        receive_id: key.receive_id,
        // Both algorithms of RFC 5926 are cut to 96 bits.
        code_len: 12,
        key_flags: 0,
        key_len: u8::try_from(secret.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        key: [0; LONGEST_PASSWORD],
    };
    let name: &[u8] = match key.algorithm {
        AoAlgorithm::HmacSha1 => b"hmac(sha1)",
        AoAlgorithm::Aes128Cmac => b"cmac(aes128)",
    };
    option.algorithm[..name.len()].copy_from_slice(name);
    option.key.get_mut(..secret.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(secret);
    if let Some(interface) = vrf.and_then(|index| i32::try_from(index).ok()) {
        (option.key_flags, option.interface) = (AO_INTERFACE, interface);
        match set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &option) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (option.key_flags, option.interface) = (0, 0),
            done => return done,
        }
    }
    set(socket, libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &option)
}

/// Takes a key of TCP-AO off a listening socket.
pub(super) fn delete_ao_key(socket: BorrowedFd<'_>, peer: IpAddr, vrf: Option<u32>, key: &AoKey) -> io::Result<()> {
    let mut option = AoDelete {
        peer: PeerAddress::from(peer),
        interface: 0,
        set: 0,
        reserved: 0,
        prefix_len: host_bits(peer),
        send_id: key.send_id,
        receive_id: key.receive_id,
        current_key: 0,
        next_key: 0,
        key_flags: 0,
    };
    if let Some(interface) = vrf.and_then(|index| i32::try_from(index).ok()) {
        (option.key_flags, option.interface) = (AO_INTERFACE, interface);
        if set(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &option).is_ok() {
            return Ok(());
        }
        (option.key_flags, option.interface) = (0, 0);
    }
    set(socket, libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &option)
}

/// The kernel drops segments that arrive with a lower TTL or hop limit (RFC 5082); 0 accepts all.
pub(super) fn set_minimum_ttl(socket: BorrowedFd<'_>, peer: IpAddr, ttl: u8) -> io::Result<()> {
    let ttl = libc::c_int::from(ttl);
    match peer {
        IpAddr::V4(_) => set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &ttl),
        IpAddr::V6(_) => set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &ttl),
    }
}

/// Has the kernel choose no temporary address (RFC 8981) as the source of a connection: routers know their neighbours by address.
pub(super) fn prefer_public_source(socket: BorrowedFd<'_>) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, &IPV6_PREFER_SRC_PUBLIC)
}

/// Lets a listening socket keep the headers of each SYN until its connection is asked for them.
pub(super) fn keep_syns(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(socket, libc::IPPROTO_TCP, TCP_SAVE_SYN, &on)
}

/// The TTL or hop limit that the SYN of an accepted connection came with; `None` where it was not kept.
pub(super) fn ttl_of_syn(socket: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    // The longest IPv4 header is 60 octets and so is the longest TCP header; IPv6 extension headers may make it more, which the
    // kernel answers with EINVAL.
    let mut headers = [0_u8; 512];
    let mut len = libc::socklen_t::try_from(headers.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to `headers`, whose length is in `len`; the kernel writes no more than that, and the descriptor is
    // borrowed from an open socket.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, TCP_SAVED_SYN, headers.as_mut_ptr().cast(), &mut len)
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = usize::try_from(len).ok().and_then(|len| headers.get(..len)).unwrap_or_default();
    Ok(match kept.first().map(|first| first >> 4) {
        Some(4) => kept.get(8).copied(),
        Some(6) => kept.get(7).copied(),
        _ => None,
    })
}

/// How long ago the other end of a connection acknowledged something, to a tick of the kernel.
pub(super) fn since_acknowledgement(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    // Eight octets, then numbers of 32 bits, of which this is the thirteenth. Every kernel since 2.6 has these.
    const LAST_ACK_RECEIVED: usize = 8 + 12 * 4;
    let info: [u8; LAST_ACK_RECEIVED + 4] = tcp_info(socket)?;
    let millis = info.last_chunk().ok_or(io::ErrorKind::Unsupported)?;
    Ok(Duration::from_millis(u64::from(u32::from_ne_bytes(*millis))))
}

/// How far a connection is, in octets of either direction. The counts begin somewhere near 0; only their differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// What the kernel took from whoever writes, be it sent or acknowledged or not.
    pub(super) written: u64,
    /// What it gave to whoever reads.
    pub(super) read: u64,
}

/// See [`Taken`]. An error also where the connection is not established any more.
pub(super) fn taken(socket: BorrowedFd<'_>) -> io::Result<Taken> {
    // Between two of these questions the peer may acknowledge or send something.
    for _ in 0..100 {
        let before = passed(socket)?;
        let unacknowledged = queued(socket, libc::TIOCOUTQ)?;
        let unread = queued(socket, libc::FIONREAD)?;
        if before == passed(socket)? {
            let (acknowledged, received) = before;
            return Ok(Taken { written: acknowledged + unacknowledged, read: received.saturating_sub(unread) });
        }
    }
    Err(io::Error::other("the peer sends or acknowledges without a pause"))
}

/// How far the peer's host is, in octets since the connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub acknowledged: u64,
    /// What it has sent, be it read here or not.
    pub received: u64,
    /// There is more that it has not acknowledged.
    pub waits: bool,
}

/// See [`Progress`]. An error also where the connection is not established any more.
pub(super) fn progress(socket: BorrowedFd<'_>) -> io::Result<Progress> {
    // What comes between the two questions is not taken for an answer to what is acknowledged then.
    let waits = queued(socket, libc::TIOCOUTQ)? > 0;
    let (acknowledged, received) = passed(socket)?;
    Ok(Progress { acknowledged, received, waits })
}

/// `tcpi_bytes_acked` and `tcpi_bytes_received` (RFC 4898), which Linux has since 4.1.
fn passed(socket: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // Eight octets, 24 numbers of 32 bits, two of 64 bits, and then these.
    const ACKNOWLEDGED: usize = 8 + 24 * 4 + 2 * 8;
    const ESTABLISHED: u8 = 1;
    let info: [u8; ACKNOWLEDGED + 16] = tcp_info(socket)?;
    if info[0] != ESTABLISHED {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "the peer has closed it"));
    }
    let counts: &[u8; 16] = info.last_chunk().ok_or(io::ErrorKind::Unsupported)?;
    let (acknowledged, received) = counts.split_at(8);
    let number = |octets: &[u8]| octets.first_chunk().map(|octets| u64::from_ne_bytes(*octets));
    number(acknowledged).zip(number(received)).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Whether something that was sent is on its way, or lost. What waits for a peer that does not read is not.
pub(super) fn is_unacknowledged(socket: BorrowedFd<'_>) -> bool {
    // Eight octets and four numbers of 32 bits stand before `tcpi_unacked`.
    const UNACKNOWLEDGED: usize = 8 + 4 * 4;
    let info = tcp_info::<{ UNACKNOWLEDGED + 4 }>(socket);
    info.is_ok_and(|info| info[UNACKNOWLEDGED..].iter().any(|octet| *octet != 0))
}

/// SIOCOUTQ or SIOCINQ, as tcp(7) has them under the names of terminals.
fn queued(socket: BorrowedFd<'_>, which: libc::Ioctl) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: both requests write one int, and nothing else, to where the pointer leads; the descriptor is borrowed from an open
    // socket.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), which, &raw mut count) };
    match got {
        0 => u64::try_from(count).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As much of the front of `struct tcp_info` as is asked for, all of it or an error.
fn tcp_info<const LEN: usize>(socket: BorrowedFd<'_>) -> io::Result<[u8; LEN]> {
    let mut info = [0_u8; LEN];
    let mut len = libc::socklen_t::try_from(info.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer is to `info`, whose length is in `len`; the kernel writes no more than that, and the descriptor is
    // borrowed from an open socket.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len)
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    match usize::try_from(len).is_ok_and(|len| len >= info.len()) {
        true => Ok(info),
        false => Err(io::ErrorKind::Unsupported.into()),
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

fn set<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pointer and the length are those of `value`, which the kernel only reads, and only until the call returns; every
    // T of this file is plain octets and numbers. The descriptor is borrowed from an open socket.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn host_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// So many bits as C puts them into a bit field first: from the lowest on with little endian, from the highest with big.
const fn first_bits(count: u32) -> u32 {
    let bits = (1 << count) - 1;
    if cfg!(target_endian = "little") { bits } else { bits << (32 - count) }
}

// From linux/tcp.h, which libc has only in part.
const TCP_MD5SIG: libc::c_int = 14;
const TCP_SAVE_SYN: libc::c_int = 27;
const TCP_SAVED_SYN: libc::c_int = 28;
const TCP_MD5SIG_EXT: libc::c_int = 32;
const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;

// From linux/in6.h, RFC 5014 §3.
const IPV6_ADDR_PREFERENCES: libc::c_int = 72;
const IPV6_PREFER_SRC_PUBLIC: libc::c_int = 2;

/// `TCP_MD5SIG_FLAG_PREFIX`: `prefix_len` counts.
const MD5_PREFIX: u8 = 1;
/// `TCP_MD5SIG_FLAG_IFINDEX`: `interface` counts.
const MD5_INTERFACE: u8 = 2;
/// `TCP_AO_KEYF_IFINDEX`
const AO_INTERFACE: u8 = 1;

/// `struct __kernel_sockaddr_storage`
#[repr(C, align(8))]
struct PeerAddress([u8; 128]);

/// `struct tcp_md5sig`
#[repr(C)]
struct Md5Key {
    peer: PeerAddress,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; LONGEST_PASSWORD],
}

/// `struct tcp_ao_add`
#[repr(C, align(8))]
struct AoAdd {
    peer: PeerAddress,
    algorithm: [u8; 64],
    interface: i32,
    set: u32,
    reserved: u16,
    prefix_len: u8,
    send_id: u8,
    receive_id: u8,
    code_len: u8,
    key_flags: u8,
    key_len: u8,
    key: [u8; LONGEST_PASSWORD],
}

/// `struct tcp_ao_del`
#[repr(C, align(8))]
struct AoDelete {
    peer: PeerAddress,
    interface: i32,
    set: u32,
    reserved: u16,
    prefix_len: u8,
    send_id: u8,
    receive_id: u8,
    current_key: u8,
    next_key: u8,
    key_flags: u8,
}

impl From<IpAddr> for PeerAddress {
    fn from(address: IpAddr) -> PeerAddress {
        let mut octets = [0; 128];
        let family = match address {
            // `sockaddr_in`: family, port, address.
            IpAddr::V4(v4) => {
                octets[4..8].copy_from_slice(&v4.octets());
                libc::AF_INET
            }
            // `sockaddr_in6`: family, port, flow, address. Keys have no scope but a VRF.
            IpAddr::V6(v6) => {
                octets[8..24].copy_from_slice(&v6.octets());
                libc::AF_INET6
            }
        };
        // Both families are small numbers.
        octets[..2].copy_from_slice(&u16::try_from(family).unwrap_or_default().to_ne_bytes());
        PeerAddress(octets)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_structures_are_laid_out_as_linux_tcp_h_says() {
        assert_eq!((size_of::<PeerAddress>(), size_of::<Md5Key>()), (128, 216));
        let md5 = [
            offset_of!(Md5Key, flags),
            offset_of!(Md5Key, prefix_len),
            offset_of!(Md5Key, key_len),
            offset_of!(Md5Key, interface),
            offset_of!(Md5Key, key),
        ];
        assert_eq!(md5, [128, 129, 130, 132, 136]);
        let add = [
            offset_of!(AoAdd, algorithm),
            offset_of!(AoAdd, interface),
            offset_of!(AoAdd, set),
            offset_of!(AoAdd, reserved),
            offset_of!(AoAdd, prefix_len),
            offset_of!(AoAdd, send_id),
            offset_of!(AoAdd, receive_id),
            offset_of!(AoAdd, code_len),
            offset_of!(AoAdd, key_flags),
            offset_of!(AoAdd, key_len),
            offset_of!(AoAdd, key),
            size_of::<AoAdd>(),
        ];
        assert_eq!(add, [128, 192, 196, 200, 202, 203, 204, 205, 206, 207, 208, 288]);
        let delete = [
            offset_of!(AoDelete, interface),
            offset_of!(AoDelete, set),
            offset_of!(AoDelete, reserved),
            offset_of!(AoDelete, prefix_len),
            offset_of!(AoDelete, send_id),
            offset_of!(AoDelete, receive_id),
            offset_of!(AoDelete, current_key),
            offset_of!(AoDelete, next_key),
            offset_of!(AoDelete, key_flags),
            size_of::<AoDelete>(),
        ];
        assert_eq!(delete, [128, 132, 136, 138, 139, 140, 141, 142, 143, 144]);
    }

    #[test]
    fn an_address_stands_where_the_kernel_reads_it() {
        let v4 = PeerAddress::from(IpAddr::from([10, 0, 0, 1])).0;
        assert_eq!((u16::from_ne_bytes([v4[0], v4[1]]), &v4[2..9]), (2, &[0, 0, 10, 0, 0, 1, 0][..]));
        let v6 = PeerAddress::from("fe80::1".parse::<IpAddr>().unwrap()).0;
        assert_eq!(u16::from_ne_bytes([v6[0], v6[1]]), 10);
        assert_eq!((&v6[2..10], &v6[20..25]), (&[0, 0, 0, 0, 0, 0, 0xfe, 0x80][..], &[0, 0, 0, 1, 0][..]));
    }
}
