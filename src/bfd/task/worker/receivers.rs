//! Where sessions are, and the sockets that hear them: for each family and port one socket in the main table, and one on each
//! device that a session is bound to. Floor 2.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use crate::address::{Family, ScopedAddress};
use crate::bfd::kept::KeptPath;
use crate::bfd::settings::{MULTIHOP_PORT, SINGLE_HOP_PORT};
use crate::bfd::socket::{Datagram, Receiver, interface_index};
use crate::names::InterfaceName;
use crate::plan::slice::BfdPeer;

/// What tells one session from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) address: ScopedAddress,
    /// The link of a link-local address, else the VRF.
    pub(super) device: Option<InterfaceName>,
    pub(super) source: Option<IpAddr>,
    pub(super) multihop: bool,
}

/// What one socket hears.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Door {
    family: Family,
    pub(super) multihop: bool,
    device: Option<InterfaceName>,
}

impl Place {
    pub(super) fn of(peer: &BfdPeer) -> Place {
        let BfdPeer { profile: _, address, source, from: _, is_of_session: _, vrf, multihop } = peer;
        Place {
            address: address.clone(),
            device: address.interface.clone().or_else(|| vrf.clone()),
            source: *source,
            multihop: *multihop,
        }
    }

    pub(super) fn is_that_of(&self, kept: &KeptPath) -> bool {
        let KeptPath {
            peers: _,
            address,
            device,
            source,
            from: _,
            own_end: _,
            multihop,
            source_port: _,
            standing: _,
            silence: _,
        } = kept;
        (&self.address, &self.device, &self.source, &self.multihop) == (address, device, source, multihop)
    }

    /// The UDP port of the session at both ends.
    pub(super) fn port(&self) -> u16 {
        port(self.multihop)
    }

    fn door(&self) -> Door {
        Door { family: Family::of(self.address.ip), multihop: self.multihop, device: self.device.clone() }
    }

    /// Whether a datagram that came through this door is from the session's peer. A door of a device hears nothing but the device, so
    /// the link of a link-local address need not be asked for.
    pub(super) fn is_of(&self, door: &Door, source: SocketAddr) -> bool {
        self.address.ip == source.ip() && self.multihop == door.multihop && self.device == door.device
    }
}

fn port(multihop: bool) -> u16 {
    if multihop { MULTIHOP_PORT } else { SINGLE_HOP_PORT }
}

/// The open sockets, and why others are not.
#[derive(Debug, Default)]
pub(super) struct Receivers {
    open: BTreeMap<Door, Open>,
    refused: BTreeMap<Door, String>,
}

#[derive(Debug)]
struct Open {
    socket: Receiver,
    /// The number of the device when the socket was bound to it.
    index: Option<u32>,
}

impl Receivers {
    /// Opens and closes sockets so that these places are heard, and those anew whose device was made anew.
    pub(super) fn follow<'p>(&mut self, places: impl Iterator<Item = &'p Place>) {
        let wanted: BTreeSet<Door> = places.map(Place::door).collect();
        self.refused.retain(|door, _| wanted.contains(door));
        self.open.retain(|door, open| wanted.contains(door) && index_of(door) == open.index);
        for door in wanted {
            if self.open.contains_key(&door) {
                continue;
            }
            let index = index_of(&door);
            match Receiver::open(door.family, port(door.multihop), door.device.as_ref()) {
                Ok(socket) => {
                    self.refused.remove(&door);
                    self.open.insert(door, Open { socket, index });
                }
                Err(error) => drop(self.refused.insert(door.clone(), refusal(&door, &error))),
            }
        }
    }

    /// Why the peer at a place cannot be heard.
    pub(super) fn problem(&self, place: &Place) -> Option<String> {
        self.refused.get(&place.door()).cloned()
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.open.values().map(|open| open.socket.as_raw_fd())
    }

    /// Hands out what has come, of each socket at most `most` datagrams. A socket that fails is opened anew.
    pub(super) fn receive(&mut self, most: usize, mut handle: impl FnMut(&Door, Datagram<'_>)) {
        let refused = &mut self.refused;
        self.open.retain(|door, open| match open.socket.receive(most, |datagram| handle(door, datagram)) {
            Ok(_) => true,
            Err(error) => {
                refused.insert(door.clone(), refusal(door, &error));
                false
            }
        });
    }
}

fn refusal(door: &Door, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; another BFD daemon of this host has the port: stop it",
        _ => "",
    };
    format!("cannot receive on UDP port {} over {}: {error}{hint}", port(door.multihop), door.family)
}

fn index_of(door: &Door) -> Option<u32> {
    door.device.as_ref().and_then(|device| interface_index(device).ok())
}
