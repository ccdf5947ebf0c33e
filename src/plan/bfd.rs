//! Which peers BFD watches, and how: those that name a profile and whose place is known. Floor 1.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::slice::{BfdPeer, BgpSlice, PeerSlice};
use crate::address::{LocalAddress, ScopedAddress, source};
use crate::config::{self, BfdProfile, Config};
use crate::names::PeerName;
use crate::world::{SessionReport, SessionState};

/// The peers to watch. `before` are those that were watched a moment ago.
pub(super) fn watched(
    config: &Config,
    bgp: &BgpSlice,
    sessions: &OrdMap<PeerName, SessionReport>,
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
            from: match settings.source_address {
                Some(_) => None,
                None => from(settings, address, &bgp.local_addresses, sessions.get(name), known),
            },
            is_of_session: sessions.get(name).and_then(standing_from).is_some(),
            vrf: settings.vrf.clone(),
            multihop: !was_near && is_far(settings, address, &bgp.local_addresses),
        };
        Some((name.clone(), watched))
    };
    bgp.peers.iter().filter_map(of_peer).collect()
}

/// The address to send from, where the configuration gives none: our end of the BGP session, for the router knows its neighbor by that;
/// while there is no session, that of the last one, the address that it would be dialled from, or the one that packets leave from now.
pub(super) fn from(
    settings: &config::Peer,
    address: &ScopedAddress,
    local: &[LocalAddress],
    session: Option<&SessionReport>,
    known: Option<&BfdPeer>,
) -> Option<IpAddr> {
    let is_here = |from: &IpAddr| local.iter().any(|has| has.net.addr() == *from);
    if let Some(local) = session.and_then(standing_from) {
        return Some(local);
    }
    if let Some(known) = session.and_then(|session| session.detail.known_from).filter(is_here) {
        return Some(known);
    }
    let before = known.and_then(|known| known.from).filter(is_here);
    source(address, settings.vrf.as_ref(), local, before).or(before)
}

/// Our end of the BGP session, while it stands.
fn standing_from(session: &SessionReport) -> Option<IpAddr> {
    session.local_address.filter(|_| session.state == SessionState::Established)
}

/// Whether the session is one of several hops (RFC 5883): the peer has `multihop`. A peer of the same AS may be anywhere unless
/// `multihop` says otherwise; where it is on a link of this host, its session is one of a single hop, as FRR has it.
fn is_far(settings: &config::Peer, address: &ScopedAddress, local: &[LocalAddress]) -> bool {
    if settings.multihop <= 1 || settings.ttl_security || address.interface.is_some() {
        return false;
    }
    let on_link = || local.iter().any(|it| it.vrf == settings.vrf && it.net.contains(&address.ip));
    !(settings.is_internal() && settings.multihop == u8::MAX && on_link())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Stay;
    use crate::config::PeerAsn;

    fn peer(asn: PeerAsn, multihop: u8) -> config::Peer {
        let peer = config::tests::one_of_each().bgp.peers.remove(0);
        config::Peer { asn, local_asn: 64513, multihop, ttl_security: false, vrf: None, ..peer }
    }

    /// Input: a virtual address in the peer's subnet, which the kernel may choose; a session with the peer, or none.
    #[test]
    fn packets_leave_from_our_end_of_the_bgp_session() {
        let own =
            |net: &str, stay| LocalAddress { interface: "eth0".into(), vrf: None, net: net.parse().unwrap(), stay };
        let vip = || own("10.0.0.5/24", Stay::Unknown);
        let named = [vip(), own("10.0.0.11/24", Stay::Nodes)];
        let unnamed = [vip(), own("10.0.0.11/24", Stay::Unknown)];
        let settings = config::Peer { source_address: None, ..peer(PeerAsn::Is(64512), 1) };
        let address = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        let session = |state, local: &str| {
            let session = SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH);
            SessionReport { local_address: Some(local.parse().unwrap()), ..session }
        };
        let known = |from: &str| {
            let mut config = config::tests::good("[[bfd]]\nname = \"fast\"\n");
            let profile = Arc::new(config.bfd.remove(0));
            let from = Some(from.parse().unwrap());
            BfdPeer {
                profile,
                address: address.clone(),
                source: None,
                from,
                is_of_session: false,
                vrf: None,
                multihop: false,
            }
        };
        let of = |local: &[LocalAddress], session: Option<SessionReport>, known: Option<BfdPeer>| {
            from(&settings, &address, local, session.as_ref(), known.as_ref()).map(|from| from.to_string())
        };
        let own = Some("10.0.0.11".to_owned());
        let (up, down) = (SessionState::Established, SessionState::Active);
        assert_eq!(of(&unnamed, Some(session(up, "10.0.0.11")), None), own);
        assert_eq!(of(&named, Some(session(up, "10.0.0.5")), None).as_deref(), Some("10.0.0.5"), "the router knows it");
        assert_eq!(of(&named, None, None), own);
        assert_eq!(of(&unnamed, None, None), None, "the kernel chooses");
        assert_eq!(of(&unnamed, Some(session(down, "10.0.0.5")), Some(known("10.0.0.11"))), own, "as before");
        // What ends a session of BGP is no reason for a session of BFD to end.
        let mut ended = session(down, "10.0.0.5");
        ended.detail.known_from = Some("10.0.0.5".parse().unwrap());
        assert_eq!(of(&named, Some(ended.clone()), None).as_deref(), Some("10.0.0.5"), "the router knows it still");
        assert_eq!(of(&named[1..], Some(ended), None), own, "it has left this host");
        assert_eq!(of(&unnamed[..1], None, Some(known("10.0.0.11"))), None, "it has left this host");
        let far = [LocalAddress { interface: "lo".into(), net: "10.9.9.9/32".parse().unwrap(), ..vip() }];
        assert_eq!(of(&far, None, Some(known("10.9.9.9"))).as_deref(), Some("10.9.9.9"), "a peer beyond a router");
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
