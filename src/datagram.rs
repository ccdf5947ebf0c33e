//! One datagram off a socket, with what the kernel tells of it beside its octets. Floor 2: the `unsafe` of that, for BFD and for pulses.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::{SockAddr, Socket};

/// One thing that the kernel tells of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct ControlMessage<'a> {
    pub level: libc::c_int,
    pub kind: libc::c_int,
    pub octets: &'a [u8],
}

impl ControlMessage<'_> {
    /// The hop limit that the datagram came with, where this is what is told.
    pub fn hop_limit(self) -> Option<u8> {
        let is_it = matches!(
            (self.level, self.kind),
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
        );
        let number = self.octets.first_chunk().filter(|_| is_it)?;
        u8::try_from(libc::c_int::from_ne_bytes(*number)).ok()
    }
}

/// One datagram: how long it was, and from where. A longer one than fits is cut. `take` is given all that the kernel tells of it.
///
/// # Errors
/// The socket's, such as that nothing is there.
pub fn receive_one(
    socket: &Socket,
    buffer: &mut [u8],
    mut take: impl FnMut(ControlMessage<'_>),
) -> io::Result<(usize, Option<SocketAddr>)> {
    let mut control = Control(MaybeUninit::zeroed());
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let receive = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: a message header of zeros is a message without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = storage.cast();
        // SAFETY: socket2 hands in a valid length.
        message.msg_namelen = unsafe { *length };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_LEN as _;
        // SAFETY: every pointer of the header leads to memory of the length beside it, which outlives the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        // SAFETY: as above.
        unsafe { *length = message.msg_namelen };
        // SAFETY: the kernel has just filled in the control messages, and the header still describes them.
        unsafe { hand_out(&message, &mut take) };
        Ok(received)
    };
    // SAFETY: the closure sets the length to that of the name that the kernel wrote.
    let (length, source) = unsafe { SockAddr::try_init(receive) }?;
    Ok((length, source.as_socket()))
}

/// # Safety
/// The header must be as recvmsg left it, with its control messages still there.
unsafe fn hand_out(message: &libc::msghdr, take: &mut impl FnMut(ControlMessage<'_>)) {
    // SAFETY: the caller says that the header is good; the macros stay within what it describes. What a control message holds lies
    // behind its header, up to the length that the kernel wrote there, and outlives the call of `take`.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = next.as_ref() {
            let (whole, head): (usize, usize) = (header.cmsg_len as _, libc::CMSG_LEN(0) as _);
            let octets = std::slice::from_raw_parts(libc::CMSG_DATA(next), whole.saturating_sub(head));
            take(ControlMessage { level: header.cmsg_level, kind: header.cmsg_type, octets });
            next = libc::CMSG_NXTHDR(message, next);
        }
    }
}

/// Room for control messages, aligned as their headers must be.
#[repr(align(8))]
struct Control(MaybeUninit<[u8; CONTROL_LEN]>);

const CONTROL_LEN: usize = 128;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use socket2::{Domain, Protocol, Type};

    use super::*;

    /// Input: datagrams over the loopback, one of them longer than the room for it. Output: each with its source and its hop limit.
    #[test]
    fn a_datagram_comes_with_its_source_and_its_hop_limit() {
        let table: [(Domain, SocketAddr, libc::c_int, libc::c_int); 2] = [
            (Domain::IPV4, (Ipv4Addr::LOCALHOST, 0).into(), libc::IPPROTO_IP, libc::IP_RECVTTL),
            (Domain::IPV6, (Ipv6Addr::LOCALHOST, 0).into(), libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
        ];
        for (domain, address, level, option) in table {
            let Ok(hears) = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)) else { continue };
            if hears.bind(&address.into()).is_err() {
                // A host without IPv6.
                continue;
            }
            let on: libc::c_int = 1;
            // SAFETY: the value is an int that lives through the call, and its size is what is said.
            let failed = unsafe {
                let size = libc::socklen_t::try_from(size_of_val(&on)).unwrap();
                libc::setsockopt(hears.as_raw_fd(), level, option, (&raw const on).cast(), size)
            };
            assert_eq!(failed, 0);
            let says = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap();
            says.bind(&address.into()).unwrap();
            let (to, from) = (hears.local_addr().unwrap(), says.local_addr().unwrap().as_socket());
            for (octets, seen) in [(&b"pulse"[..], 5), (&[7; 64][..], 16)] {
                match domain {
                    Domain::IPV4 => says.set_ttl_v4(255).unwrap(),
                    _ => says.set_unicast_hops_v6(255).unwrap(),
                }
                says.send_to(octets, &to).unwrap();
                let (mut buffer, mut hops) = ([0; 16], Vec::new());
                let received = receive_one(&hears, &mut buffer, |it| hops.extend(it.hop_limit())).unwrap();
                assert_eq!(received, (seen, from));
                assert_eq!((&buffer[..seen], hops), (&octets[..seen], vec![255]));
            }
        }
    }
}
