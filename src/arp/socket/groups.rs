//! Membership in the multicast groups that neighbours send solicitations to: network cards accept the frames, and switches
//! with MLD snooping forward them. Floor 2.
//!
//! The frames themselves come through `socket`, because the kernel drops solicitations for addresses that are not its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

use socket2::{Domain, Socket, Type};

use crate::arp::packet::ndp::solicited_node;

/// The memberships of one link.
#[derive(Debug)]
pub struct Groups {
    index: u32,
    /// The kernel bounds how many groups one socket may join (`net.core.optmem_max`): another socket is opened when the last
    /// is full.
    sockets: Vec<Socket>,
    /// Each group with the addresses that need it and the place of the socket that joined it. Addresses that end alike
    /// share a group.
    joined: BTreeMap<Ipv6Addr, Membership>,
}

#[derive(Debug)]
struct Membership {
    addresses: BTreeSet<Ipv6Addr>,
    socket: usize,
}

impl Groups {
    pub fn of(index: u32) -> Groups {
        Groups { index, sockets: Vec::new(), joined: BTreeMap::new() }
    }

    /// Joins the group of an address.
    ///
    /// # Errors
    /// ENODEV if the link is gone, EADDRNOTAVAIL or EINVAL if it lacks IPv6. The address is not remembered then.
    pub fn join(&mut self, address: Ipv6Addr) -> io::Result<()> {
        let group = solicited_node(address);
        if let Some(membership) = self.joined.get_mut(&group) {
            membership.addresses.insert(address);
            return Ok(());
        }
        let place = match self.sockets.last().map(|socket| socket.join_multicast_v6(&group, self.index)) {
            Some(Ok(())) => self.sockets.len() - 1,
            Some(Err(error)) if !is_full(&error) => return Err(error),
            Some(Err(_)) | None => {
                let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), None)?;
                socket.join_multicast_v6(&group, self.index)?;
                self.sockets.push(socket);
                self.sockets.len() - 1
            }
        };
        self.joined.insert(group, Membership { addresses: [address].into(), socket: place });
        Ok(())
    }

    /// Leaves the group of an address, unless another address needs the group.
    pub fn leave(&mut self, address: Ipv6Addr) {
        let group = solicited_node(address);
        let Some(membership) = self.joined.get_mut(&group) else { return };
        membership.addresses.remove(&address);
        if membership.addresses.is_empty() {
            if let Some(socket) = self.sockets.get(membership.socket) {
                // The link may be gone, and the membership with it.
                let _ = socket.leave_multicast_v6(&group, self.index);
            }
            self.joined.remove(&group);
        }
    }

    /// Every address whose group was joined.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.joined.values().flat_map(|membership| membership.addresses.iter().copied())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}
