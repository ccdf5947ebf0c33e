//! Our end of the connections: from which address the peer is dialled, and what follows when addresses of this host come and go. Floor 2,
//! a part of the peer's task.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;

use super::PeerTask;
use crate::address::LocalAddress;
use crate::bgp::machine::ConnectionId;
use crate::bgp::machine::session::End;
use crate::bgp::socket::{Connection, Endpoint};
use crate::bgp::wire::{Cease, NotificationReason};
use crate::clock;
use crate::names::InterfaceName;

impl PeerTask {
    /// From the address that the configuration gives, else from the one that the router knows best.
    pub(super) fn dial(&mut self, id: ConnectionId) -> BoxFuture<'static, io::Result<TcpStream>> {
        let by_kernel = self.endpoint.clone();
        let Endpoint { peer, source, device, .. } = &by_kernel;
        let chosen = match source {
            Some(_) => None,
            None => self.ends.choose(peer, device.as_ref(), &self.desired.local_addresses, clock::now()),
        };
        self.unproven = chosen.map(|_| id);
        let Some(source) = chosen else { return async move { by_kernel.dial().await }.boxed() };
        // It may have just left this host, or is not usable yet. Of IPv6 addresses the kernel would choose the newest then.
        let may_choose = by_kernel.peer.ip.is_ipv4();
        async move {
            match (Endpoint { source: Some(source), ..by_kernel.clone() }).dial().await {
                Err(error) if may_choose && error.kind() == io::ErrorKind::AddrNotAvailable => by_kernel.dial().await,
                dialled => dialled,
            }
        }
        .boxed()
    }

    /// The peer has accepted a connection from the address that was chosen, and closed it without a word: it may not know the address.
    pub(super) fn note_refusal_of_end(&mut self, connection: ConnectionId, end: &End) {
        let is_refusal = match end {
            End::Lost(_) => true,
            End::Received(notification) => notification.reason == NotificationReason::Cease(Cease::ConnectionRejected),
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Sent { .. }
            | End::SendHoldTimerExpired
            | End::AddressGone(_)
            | End::Unanswered => false,
        };
        if self.unproven.take_if(|id| *id == connection).is_some() && is_refusal {
            self.ends.note_refusal();
        }
    }

    /// A connection from an address that has left this host ends, and the peer is dialled once its source address is here.
    pub(super) fn follow_local_addresses(&mut self, before: &[LocalAddress]) {
        let link = self.endpoint.peer.interface.clone();
        self.end_without_address(|ip| is_on(before, &link, ip));
        let after = Arc::clone(&self.desired.local_addresses);
        if self.endpoint.source.is_some_and(|source| !is_on(before, &link, source) && is_on(&after, &link, source)) {
            self.peering.handle_address_came(clock::now());
        }
        let Endpoint { peer, source, device, .. } = &self.endpoint;
        let now = clock::now();
        if source.is_none() && self.ends.follow(peer, device.as_ref(), [before, &after], now) {
            self.peering.handle_address_came(now);
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
