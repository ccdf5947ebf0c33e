//! The sockets that BGP connections are accepted on, and the keys of all peers on them. Floor 2.
//!
//! One socket for each address of `listen`, IPv4 and IPv6 apart, and the same again for each VRF with a peer. The kernel keeps
//! one key for a peer's address on a socket. So where two peers have one address and different keys, each gets a socket of its
//! own: at its source address, or on its link where the address is link-local.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::bgp::socket::options::{self, interface_index};
use crate::bgp::socket::{Endpoint, GTSM_TTL, Protection, describe};
use crate::names::{InterfaceName, PeerName};
pub use crate::plan::slice::Listen;
use crate::world::HostProblem;

/// One address could not be listened on; then no address is.
#[derive(Debug, thiserror::Error)]
#[error("cannot accept BGP connections on {address}{}: {source}{hint}", self.on_device())]
pub struct ListenError {
    pub address: SocketAddr,
    pub device: Option<InterfaceName>,
    pub source: io::Error,
    hint: &'static str,
}

/// The open listening sockets.
#[derive(Debug)]
pub struct Listeners {
    /// As it was wanted: an address family that this host does not have is in it.
    wanted: Listen,
    listen: Listen,
    sockets: BTreeMap<Spot, Listener>,
    /// Why the addresses outside VRFs that are not listened on are not.
    unopened: BTreeMap<Spot, String>,
    /// Which socket is asked first for the next connection. They take turns, so a flood on one socket does not block the others.
    turn: AtomicUsize,
    /// What was logged last of each peer whose connections cannot be accepted.
    deaf: BTreeMap<PeerName, String>,
}

/// A connection that a peer, or any other host, opened.
#[derive(Debug)]
pub struct Arrival {
    pub stream: TcpStream,
    pub from: SocketAddr,
    /// What the kernel asked of its segments, from the first on. `Err` says why a connection from this address cannot be trusted.
    pub signed: Result<Protection, String>,
    /// The local address that the peer dialled.
    pub local: IpAddr,
    /// The device that the connection is bound to: a VRF, or the link of a link-local address.
    pub device: Option<InterfaceName>,
    /// The TTL that it began with: the kernel tells it once.
    ttl: OnceLock<Result<Option<u8>, String>>,
}

/// What one socket listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Spot {
    ip: IpAddr,
    device: Option<InterfaceName>,
}

/// Whether a socket may be opened beside others on the same port. To the kernel an address and a device overlap with "all"; the
/// connection goes to the socket that says more. The first sockets may not, so that another speaker on this host is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    No,
    Yes,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// The number of the device when the socket was bound to it.
    index: Option<u32>,
    /// By the address of the peer; the kernel has no other way to tell them apart.
    keys: BTreeMap<IpAddr, Result<Protection, String>>,
}

/// Connections that the kernel holds until they are accepted.
const LISTEN_BACKLOG: i32 = 128;

/// How often to look after what could not be opened or set, and after devices, which can be made anew under the same name.
pub const RETRY_PAUSE: Duration = Duration::from_secs(5);

impl ListenError {
    /// All addresses of a family were meant, and this host has none: its kernel does not know the family.
    fn is_missing_family(&self) -> bool {
        self.address.ip().is_unspecified() && self.source.raw_os_error() == Some(libc::EAFNOSUPPORT)
    }

    fn on_device(&self) -> String {
        self.device.as_ref().map(|device| format!(" in {device}")).unwrap_or_default()
    }
}

impl Listeners {
    /// As [`Listeners::open`], but goes on without what cannot be opened: [`Listeners::problems`] names it, and it is tried again.
    ///
    /// An address family that this host does not have is no problem where all its addresses were meant, as the default is.
    pub fn open_what_can_be(listen: &Listen) -> Listeners {
        let mut listeners = Listeners::none(listen.clone());
        for ip in listen.addresses.clone() {
            let spot = Spot { ip, device: None };
            match spot.open(listen.port, Sharing::No) {
                Ok(listener) => drop(listeners.sockets.insert(spot, listener)),
                Err(error) if error.is_missing_family() => listeners.listen.addresses.retain(|other| *other != ip),
                Err(error) => drop(listeners.unopened.insert(spot, error.to_string())),
            }
        }
        listeners
    }

    /// What keeps connections from being accepted, and what to do about it.
    pub fn problems(&self) -> Vec<HostProblem> {
        let remedy = "stop what holds the port, or set [bgp] listen = [] so that crier only dials its peers; \
                      crier goes on dialling, and tries again every 5 s";
        self.unopened.values().map(|why| HostProblem { problem: why.clone(), remedy: remedy.to_owned() }).collect()
    }

    fn none(listen: Listen) -> Listeners {
        Listeners {
            wanted: listen.clone(),
            listen,
            sockets: BTreeMap::new(),
            unopened: BTreeMap::new(),
            turn: AtomicUsize::new(0),
            deaf: BTreeMap::new(),
        }
    }

    /// Opens all sockets outside VRFs. Needs a runtime, and root or CAP_NET_BIND_SERVICE for a port below 1024.
    pub fn open(listen: &Listen) -> Result<Listeners, ListenError> {
        let mut listen = listen.clone();
        let mut sockets = BTreeMap::new();
        for ip in listen.addresses.clone() {
            let spot = Spot { ip, device: None };
            let listener = spot.open(listen.port, Sharing::No)?;
            if listen.addresses.len() == 1
                && let Ok(address) = listener.socket.local_addr()
            {
                // A port that the kernel chose is that of the sockets to come, too.
                listen.port = address.port();
            }
            sockets.insert(spot, listener);
        }
        Ok(Listeners { sockets, ..Listeners::none(listen) })
    }

    /// Listens elsewhere from the next [`Listeners::follow`] on; true if that is news. Connections that are open go on.
    pub fn turn_to(&mut self, listen: &Listen) -> bool {
        if self.wanted == *listen {
            return false;
        }
        if self.listen.port != listen.port {
            self.sockets.clear();
        }
        (self.wanted, self.listen) = (listen.clone(), listen.clone());
        true
    }

    /// The addresses that are listened on.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.values().filter_map(|listener| listener.socket.local_addr().ok()).collect()
    }

    /// Opens and closes sockets and sets keys, so that exactly these peers can connect. Answers which peers cannot, and why, if
    /// that is news. Call it again after [`RETRY_PAUSE`] while [`Listeners::wants_another_look`].
    pub fn follow<'r>(&mut self, peers: impl Iterator<Item = (&'r PeerName, &'r Endpoint)>) -> Vec<(PeerName, String)> {
        let peers: Vec<(&PeerName, &Endpoint)> = peers.collect();
        let endpoints: Vec<&Endpoint> = peers.iter().map(|(_, endpoint)| *endpoint).collect();
        let arrangement = arrange(&self.listen, &endpoints);
        self.sockets.retain(|spot, listener| arrangement.contains_key(spot) && spot.is_current(listener));
        let mut failures: BTreeMap<Spot, String> = BTreeMap::new();
        self.unopened.clear();
        for (spot, keys) in arrangement {
            let listener = match self.sockets.entry(spot.clone()) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let first = spot.device.is_none() && self.listen.addresses.contains(&spot.ip);
                    let sharing = if first { Sharing::No } else { Sharing::Yes };
                    match spot.open(self.listen.port, sharing) {
                        Ok(listener) => entry.insert(listener),
                        Err(error) if first && error.is_missing_family() => continue,
                        Err(error) => {
                            if first {
                                self.unopened.insert(spot.clone(), error.to_string());
                            }
                            failures.insert(spot, error.to_string());
                            continue;
                        }
                    }
                }
            };
            listener.set_keys(keys);
        }
        let deaf = peers.iter().filter_map(|(name, endpoint)| {
            let unopened = failures.iter().find(|(spot, _)| spot.hears(endpoint)).map(|(_, why)| why.clone());
            let unkeyed = || {
                let hearing = self.sockets.iter().filter(|(spot, _)| spot.hears(endpoint));
                hearing
                    .filter_map(|(_, listener)| listener.keys.get(&endpoint.peer.ip))
                    .find_map(|key| key.clone().err())
            };
            Some(((*name).clone(), unopened.or_else(unkeyed)?))
        });
        let deaf: BTreeMap<PeerName, String> = deaf.collect();
        let before = std::mem::replace(&mut self.deaf, deaf);
        let news = self.deaf.iter().filter(|(name, why)| before.get(*name) != Some(why));
        news.map(|(name, why)| (name.clone(), why.clone())).collect()
    }

    /// Whether something is missing that may come, or present and may be replaced.
    pub fn wants_another_look(&self) -> bool {
        !self.deaf.is_empty() || !self.unopened.is_empty() || self.sockets.keys().any(|spot| spot.device.is_some())
    }

    /// The next connection on any socket. Without a socket it never answers.
    pub async fn accept(&self) -> io::Result<Arrival> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.sockets.len().max(1);
        let (spot, accepted) = poll_fn(|cx| {
            for (spot, listener) in self.sockets.iter().cycle().skip(first).take(self.sockets.len()) {
                if let Poll::Ready(accepted) = listener.socket.poll_accept(cx) {
                    return Poll::Ready(((spot, listener), accepted));
                }
            }
            Poll::Pending
        })
        .await;
        let (stream, from) = accepted?;
        let (spot, listener) = spot;
        let signed = listener.keys.get(&from.ip()).cloned().unwrap_or(Ok(Protection::None));
        // A connection that its peer has closed already still has an address.
        let local = stream.local_addr().map_or(spot.ip, |address| address.ip());
        let bound = SockRef::from(&stream).device().ok().flatten();
        let device = bound.and_then(|name| Some(InterfaceName::from(std::str::from_utf8(&name).ok()?)));
        Ok(Arrival { stream, from, signed, local, device, ttl: OnceLock::new() })
    }
}

impl Arrival {
    /// Whether it is a connection of this peer, by the addresses and the device alone.
    pub fn is_of(&self, endpoint: &Endpoint) -> bool {
        endpoint.is_over(self.device.as_ref())
            && endpoint.is_from(self.from)
            && endpoint.source.is_none_or(|source| source == self.local)
    }

    /// Why the connection is not given to the peer although it comes from the peer's address.
    pub fn mistrust(&self, endpoint: &Endpoint) -> Option<String> {
        match &self.signed {
            Err(why) => Some(why.clone()),
            Ok(signed) if *signed != endpoint.protection => {
                Some(format!("an accepted connection is {signed}, and the peer's are {}", endpoint.protection))
            }
            Ok(_) if endpoint.link_only => match self.ttl.get_or_init(|| self.ttl_of_syn()) {
                // RFC 5082 §3: packets from beyond the link are not trusted. The kernel's check begins with `dress_accepted`,
                // and data may have come before.
                Ok(Some(GTSM_TTL)) => None,
                Ok(Some(ttl)) => Some(format!("an accepted connection came with TTL {ttl}, not from the link")),
                Ok(None) => Some("the kernel does not tell what TTL an accepted connection came with".to_owned()),
                Err(why) => Some(format!("the TTL of an accepted connection: {why}")),
            },
            Ok(_) => None,
        }
    }

    fn ttl_of_syn(&self) -> Result<Option<u8>, String> {
        options::ttl_of_syn(self.stream.as_fd()).map_err(|error| describe(&error))
    }
}

/// The sockets that are needed, each with the keys of its peers, by the peer's address.
fn arrange(listen: &Listen, endpoints: &[&Endpoint]) -> BTreeMap<Spot, BTreeMap<IpAddr, Protection>> {
    let mut devices: BTreeSet<Option<InterfaceName>> =
        endpoints.iter().map(|endpoint| endpoint.device.clone()).collect();
    devices.insert(None);
    let at_all = |device: Option<InterfaceName>| {
        listen.addresses.iter().map(move |ip| Spot { ip: *ip, device: device.clone() }).collect::<Vec<_>>()
    };
    let mut spots: BTreeSet<Spot> = devices.into_iter().flat_map(at_all).collect();
    for endpoint in endpoints.iter().filter(|_| !listen.addresses.is_empty()) {
        // Without the link: a key of the kernel's is for an address, on whatever link it is.
        let has_rival = endpoints.iter().any(|other| {
            other.peer.ip == endpoint.peer.ip
                && other.device == endpoint.device
                && other.protection != endpoint.protection
        });
        match (has_rival, &endpoint.peer.interface, endpoint.source) {
            (true, Some(interface), _) => {
                spots.insert(Spot { ip: Ipv6Addr::UNSPECIFIED.into(), device: Some(interface.clone()) });
            }
            (true, None, Some(ip)) => {
                spots.insert(Spot { ip, device: endpoint.device.clone() });
            }
            (true, None, None) | (false, _, _) => {}
        }
    }
    let keys = |spot: &Spot| {
        let mut best: BTreeMap<IpAddr, (u8, &Protection)> = BTreeMap::new();
        for endpoint in endpoints.iter().filter(|endpoint| spot.hears(endpoint)) {
            // A peer that names this socket comes first, then a peer that leaves the address open.
            let rank = match endpoint.source {
                _ if endpoint.peer.interface.is_some() && spot.device == endpoint.peer.interface => 0,
                Some(source) if source == spot.ip => 0,
                None => 1,
                Some(_) => 2,
            };
            let held = best.entry(endpoint.peer.ip).or_insert((rank, &endpoint.protection));
            if rank < held.0 {
                *held = (rank, &endpoint.protection);
            }
        }
        let keyed = best.into_iter().filter(|(_, (_, protection))| **protection != Protection::None);
        keyed.map(|(ip, (_, protection))| (ip, protection.clone())).collect()
    };
    spots.into_iter().map(|spot| (spot.clone(), keys(&spot))).collect()
}

impl Spot {
    /// Whether the peer's connections come in here.
    fn hears(&self, endpoint: &Endpoint) -> bool {
        let address = self.ip.is_unspecified() || endpoint.source.is_none_or(|source| source == self.ip);
        endpoint.is_over(self.device.as_ref()) && address && self.ip.is_ipv4() == endpoint.peer.ip.is_ipv4()
    }

    /// Whether the device was not replaced since.
    fn is_current(&self, listener: &Listener) -> bool {
        self.device.as_ref().map(|device| interface_index(device).ok()) == self.device.as_ref().map(|_| listener.index)
    }

    fn open(&self, port: u16, sharing: Sharing) -> Result<Listener, ListenError> {
        let address = SocketAddr::new(self.ip, port);
        self.try_open(address, sharing).map_err(|source| {
            let hint = match source.kind() {
                io::ErrorKind::PermissionDenied => "; a port below 1024 needs root or CAP_NET_BIND_SERVICE",
                io::ErrorKind::AddrInUse => "; does another BGP speaker run on this host?",
                _ => "",
            };
            ListenError { address, device: self.device.clone(), source, hint }
        })
    }

    fn try_open(&self, address: SocketAddr, sharing: Sharing) -> io::Result<Listener> {
        let index = self.device.as_ref().map(interface_index).transpose()?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // The answer to a SYN leaves with the TTL of the listening socket, and RFC 5082 wants 255 there too. To a peer without
        // it this one segment is harmless: what an accepted connection sends has the TTL of its peer.
        if address.is_ipv6() {
            // Otherwise it would collide with the IPv4 listener on the same port, and IPv4 peers would have mapped addresses.
            socket.set_only_v6(true)?;
            // Lets the socket bind to an address that this host does not have yet.
            socket.set_freebind_v6(true)?;
            socket.set_unicast_hops_v6(u32::from(GTSM_TTL))?;
        } else {
            socket.set_freebind_v4(true)?;
            socket.set_ttl_v4(u32::from(GTSM_TTL))?;
        }
        options::keep_syns(socket.as_fd())?;
        socket.bind_device(self.device.as_ref().map(|device| device.as_str().as_bytes()))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(sharing == Sharing::Yes)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(LISTEN_BACKLOG)?;
        socket.set_reuse_port(true)?;
        Ok(Listener { socket: TcpListener::from_std(socket.into())?, index, keys: BTreeMap::new() })
    }
}

impl Listener {
    /// Makes these the keys. Connections that wait to be accepted came in without a new key, so they are closed.
    fn set_keys(&mut self, wanted: BTreeMap<IpAddr, Protection>) {
        let held = std::mem::take(&mut self.keys);
        let mut stricter = false;
        for (ip, key) in &held {
            if wanted.get(ip) != key.as_ref().ok()
                && let Ok(key) = key
            {
                // A key that is gone already counts as removed.
                let _ = key.unset(self.socket.as_fd(), *ip, self.index);
            }
        }
        for (ip, protection) in wanted {
            let key = match held.get(&ip) {
                Some(Ok(key)) if *key == protection => Ok(protection),
                _ => {
                    stricter = true;
                    protection
                        .set(self.socket.as_fd(), ip, self.index, false)
                        .map(|()| protection)
                        .map_err(|error| error.to_string())
                }
            };
            self.keys.insert(ip, key);
        }
        if stricter {
            while SockRef::from(&self.socket).accept().is_ok() {}
        }
    }
}

#[cfg(test)]
mod tests;
