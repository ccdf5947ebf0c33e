//! Our end of the connections: from which address the peer is dialled, and what follows when addresses of this host come and go. Floor 2,
//! a part of the peer's task.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use super::PeerTask;
use crate::address::{LocalAddress, source};
use crate::bgp::machine::ConnectionId;
use crate::bgp::socket::{Connection, Endpoint};
use crate::clock;
use crate::names::InterfaceName;

/// Of so many attempts without a session one is from the address that the kernel chooses.
const KERNEL_CHOOSES_EACH: u32 = 3;

impl PeerTask {
    /// From the address that the configuration gives, else from the one that the router knows best.
    pub(super) fn dial(&mut self) -> BoxFuture<'static, io::Result<TcpStream>> {
        let by_kernel = self.endpoint.clone();
        let (peer, device) = (by_kernel.peer.ip, by_kernel.device.as_ref());
        let chosen = match by_kernel.source {
            Some(_) => None,
            None => source(peer, device, &self.desired.local_addresses, self.last_source),
        };
        self.dials = self.dials.wrapping_add(1);
        // The router may know another one: by turns the kernel chooses.
        let chosen = chosen.filter(|_| !self.dials.is_multiple_of(KERNEL_CHOOSES_EACH));
        async move {
            let Some(source) = chosen else { return by_kernel.dial().await };
            match (Endpoint { source: Some(source), ..by_kernel.clone() }).dial().await {
                // It has just left this host.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => by_kernel.dial().await,
                dialled => dialled,
            }
        }
        .boxed()
    }

    /// A connection from an address that has left this host ends, and the peer is dialled once its source address is here.
    pub(super) fn follow_local_addresses(&mut self, before: &[LocalAddress]) {
        let link = self.endpoint.peer.interface.clone();
        self.end_without_address(|ip| is_on(before, &link, ip));
        let after = Arc::clone(&self.desired.local_addresses);
        if self.endpoint.source.is_some_and(|source| !is_on(before, &link, source) && is_on(&after, &link, source)) {
            self.peering.handle_address_came(clock::now());
        }
    }

    /// Ends every connection from an address that this host does not have, if it had it before.
    pub(super) fn end_without_address(&mut self, had: impl Fn(IpAddr) -> bool) {
        let (now, link) = (clock::now(), self.endpoint.peer.interface.clone());
        let local = |(id, socket): &(ConnectionId, Connection)| Some((*id, socket.local_address().ok()?.ip()));
        let open: Vec<(ConnectionId, IpAddr)> = self.connections.iter().filter_map(local).collect();
        for (id, local) in open {
            if had(local) && !is_on(&self.desired.local_addresses, &link, local) {
                let actions = self.peering.handle_address_gone(id, local, now);
                self.carry_out(actions);
            }
        }
    }
}

/// Whether one of these is `ip`; for a peer that is on a link, there.
fn is_on(all: &[LocalAddress], link: &Option<InterfaceName>, ip: IpAddr) -> bool {
    all.iter().any(|local| local.net.addr() == ip && link.as_ref().is_none_or(|link| *link == local.interface))
}
