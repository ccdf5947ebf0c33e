//! What a session is to be told of what is desired: its next hops, and the outbox that begins it. Floor 2, a part of the peer's task.

use std::net::IpAddr;

use super::Desired;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::outbox::chosen::Memory;
use crate::bgp::outbox::next_hop::{PeerPath, links_in_doubt, next_hops};
use crate::bgp::outbox::{NextHops, Outbox};
use crate::bgp::socket::{Endpoint, way};
use crate::{clock, config};

impl Desired {
    /// The next hops of a session, and whether they depend on by which of several links packets leave. `before` is what the peer was told,
    /// and `chosen` what of that was a choice.
    pub(super) fn next_hops(
        &self,
        local: IpAddr,
        endpoint: &Endpoint,
        settings: &config::Peer,
        negotiated: &Negotiated,
        before: NextHops,
        chosen: &mut Memory,
    ) -> (NextHops, bool) {
        let path = PeerPath {
            peer: &endpoint.peer,
            device: endpoint.device.as_ref(),
            link: None,
            next_hop: settings.next_hop,
            next_hop_v6: settings.next_hop_v6,
        };
        let links = links_in_doubt(local, &path, &self.local_addresses);
        // Without several links the kernel need not be asked.
        let link = (!links.is_empty()).then(|| way::which(&links, endpoint.peer.ip, local, path.device)).flatten();
        if !links.is_empty() && link.is_none() && before.has(local) {
            // For the moment there is no way to the peer: what it was told stays until there is one, or the session ends.
            return (before, true);
        }
        let path = PeerPath { link, ..path };
        let now = clock::now();
        chosen.settle(now);
        let choice = next_hops(local, &path, negotiated.ipv4_with_ipv6_next_hop, &self.local_addresses, chosen);
        chosen.note(choice.found, now);
        (choice.told, !links.is_empty())
    }

    pub(super) fn outbox(&self, negotiated: &Negotiated, next_hops: NextHops) -> Outbox {
        let mut outbox = Outbox::new(negotiated, next_hops);
        outbox.want(&self.routes);
        outbox.set_complete(self.complete);
        outbox
    }
}
