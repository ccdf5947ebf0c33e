//! Which peers BFD watches, and how: those that name a profile and whose place is known. Floor 1.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::slice::{BfdPeer, BgpSlice, PeerSlice};
use crate::address::{LocalAddress, ScopedAddress};
use crate::config::{self, BfdProfile, Config, PeerAsn};
use crate::names::PeerName;

/// The peers to watch. `before` are those that were watched a moment ago.
pub(super) fn watched(
    config: &Config,
    bgp: &BgpSlice,
    before: &BTreeMap<PeerName, BfdPeer>,
) -> BTreeMap<PeerName, BfdPeer> {
    let of_peer = |(name, peer): (&PeerName, &PeerSlice)| {
        let PeerSlice { settings, address, routes: _, orders: _ } = peer;
        let (wanted, address) = (settings.bfd.as_ref()?, address.as_ref().ok()?);
        let known = before.get(name).filter(|known| known.address == *address);
        let profile = config.bfd.iter().find(|profile| profile.name == *wanted)?;
        let same = known.map(|known| &known.profile).filter(|known| ***known == *profile).cloned();
        // An address that leaves its link for a moment does not make the peer another one, with another port.
        let was_near = known.is_some_and(|known| !known.multihop && known.vrf == settings.vrf);
        let watched = BfdPeer {
            profile: same.unwrap_or_else(|| Arc::new(BfdProfile::clone(profile))),
            address: address.clone(),
            source: settings.source_address,
            vrf: settings.vrf.clone(),
            multihop: !was_near && is_far(settings, address, &bgp.local_addresses),
        };
        Some((name.clone(), watched))
    };
    bgp.peers.iter().filter_map(of_peer).collect()
}

/// Whether the session is one of several hops (RFC 5883): the peer has `multihop`. A peer of the same AS may be anywhere unless
/// `multihop` says otherwise; where it is on a link of this host, its session is one of a single hop, as FRR has it.
fn is_far(settings: &config::Peer, address: &ScopedAddress, local: &[LocalAddress]) -> bool {
    if settings.multihop <= 1 || settings.ttl_security || address.interface.is_some() {
        return false;
    }
    let internal = match settings.asn {
        PeerAsn::Is(asn) => asn == settings.local_asn,
        PeerAsn::Internal => true,
        PeerAsn::External => false,
    };
    let on_link = || local.iter().any(|it| it.vrf == settings.vrf && it.net.contains(&address.ip));
    !(internal && settings.multihop == u8::MAX && on_link())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Stay;

    fn peer(asn: PeerAsn, multihop: u8) -> config::Peer {
        let peer = config::tests::one_of_each().bgp.peers.remove(0);
        config::Peer { asn, local_asn: 64513, multihop, ttl_security: false, vrf: None, ..peer }
    }

    #[test]
    fn a_session_is_of_one_hop_where_bgp_is_or_where_an_internal_peer_is_on_the_link() {
        let local = [LocalAddress {
            interface: "eth0".into(),
            vrf: None,
            net: "10.0.0.11/24".parse().unwrap(),
            stay: Stay::Unknown,
        }];
        let far = |settings: &config::Peer, ip: &str| {
            is_far(settings, &ScopedAddress { ip: ip.parse().unwrap(), interface: None }, &local)
        };
        for (asn, multihop, ip, expected) in [
            (PeerAsn::Is(64512), 1, "10.0.0.1", false),
            (PeerAsn::Is(64512), 2, "10.0.0.1", true),
            (PeerAsn::External, 255, "10.0.0.1", true),
            (PeerAsn::Internal, 255, "10.0.0.1", false),
            (PeerAsn::Is(64513), 255, "10.0.0.1", false),
            (PeerAsn::Is(64513), 255, "10.0.9.1", true),
            (PeerAsn::Internal, 3, "10.0.0.1", true),
            (PeerAsn::Internal, 1, "10.0.9.1", false),
        ] {
            assert_eq!(far(&peer(asn, multihop), ip), expected, "{asn:?}, {multihop} hops, {ip}");
        }
        let secure = config::Peer { ttl_security: true, ..peer(PeerAsn::Internal, 255) };
        assert!(!far(&secure, "10.0.9.1"), "GTSM is for the link");
        let in_vrf = config::Peer { vrf: Some("red".into()), ..peer(PeerAsn::Internal, 255) };
        assert!(far(&in_vrf, "10.0.0.1"), "the address on eth0 is not in the VRF");
    }
}
