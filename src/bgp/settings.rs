//! What a `[[bgp.peer]]` of the configuration means to the machine of the peer and to its sockets. Floor 2.

use std::net::Ipv4Addr;

use crate::address::ScopedAddress;
use crate::bgp::machine::negotiation::{LocalOffer, Restart};
use crate::bgp::socket::{Endpoint, Protection};
use crate::bgp::wire::ExpectedAsn;
use crate::config;

/// What is offered and expected in an OPEN; `identifier` is used if the peer's settings have no router id. `restart` is what there
/// is to say of this agent where graceful restart is offered.
pub(super) fn local_offer(
    settings: &config::Peer,
    address: &ScopedAddress,
    identifier: Ipv4Addr,
    restart: Restart,
) -> LocalOffer {
    // A router keeps the routes of a dead node for the restart time, unless BFD tells it.
    let offers_restart = settings.graceful_restart.unwrap_or(settings.bfd.is_some());
    let expected_asn = match settings.asn {
        config::PeerAsn::Is(asn) => ExpectedAsn::Is(asn),
        config::PeerAsn::External => ExpectedAsn::External,
        config::PeerAsn::Internal => ExpectedAsn::Internal,
    };
    LocalOffer {
        local_asn: settings.local_asn,
        expected_asn,
        identifier: settings.router_id.unwrap_or(identifier),
        hold_time: settings.hold_time,
        keepalive_time: settings.keepalive_time,
        connect_retry_time: settings.connect_retry_time,
        passive: settings.passive,
        link_scoped: address.interface.is_some(),
        graceful_restart: offers_restart.then_some(restart),
        withheld: Vec::new(),
    }
}

/// How the settings say that the peer is reached.
pub(super) fn endpoint(settings: &config::Peer, address: ScopedAddress) -> Endpoint {
    let protection = match &settings.password {
        Some(password) => Protection::Md5(password.secret.clone()),
        None if settings.tcp_ao.is_empty() => Protection::None,
        None => Protection::Ao(settings.tcp_ao.clone()),
    };
    Endpoint {
        peer: address,
        port: settings.port,
        source: settings.source_address,
        ttl: settings.multihop,
        link_only: settings.ttl_security,
        device: settings.vrf.clone(),
        protection,
    }
}
