//! The result of two OPEN messages. Floor 1.
//! [`LocalOffer`] is what this node offers, [`Negotiated`] what both sides hold to afterwards, [`OpenRefusal`] why there is no session.
//!
//! Gap (RFC 7911 §3): ADD-PATH is not offered, on purpose: a node has only one path to each of its prefixes, itself.
//! Gap (RFC 4724 §4.2): no routes of a peer that restarts are kept, on purpose: what is received is counted and dropped, and
//! nothing is forwarded by it. What the peer loses it is sent again.
//! Gap (RFC 9494 §4.2): long-lived graceful restart is not offered, on purpose: it keeps routes for hours after their node is
//! gone, and traffic for an address that has moved must not go to the node that had it.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bgp::wire::{
    AS_TRANS, AfiSafi, Capability, Cease, Dialect, Expectation, ExpectedAsn, GracefulRestart, MAX_EXTENDED_MESSAGE_LEN,
    MAX_MESSAGE_LEN, Notification, NotificationReason, Open, OpenError, OpenFault,
};

/// What this node offers to one peer: the settings of the peer, and this node's own AS number and identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalOffer {
    /// Never 0.
    pub local_asn: u32,
    pub expected_asn: ExpectedAsn,
    /// Our BGP identifier, never 0.0.0.0.
    pub identifier: Ipv4Addr,
    /// `None` offers 0, which means no hold timer and no keepalives; else 3 s to 65535 s.
    pub hold_time: Option<Duration>,
    /// `None`: a third of the negotiated hold time. A longer time than that is never used.
    pub keepalive_time: Option<Duration>,
    /// How long one dial may take, and the pause before the next one.
    pub connect_retry_time: Duration,
    /// Never dial, wait for the peer.
    pub passive: bool,
    /// The peer's address is link-local, so that both ends know which link its next hops are on.
    pub link_scoped: bool,
    /// `None`: graceful restart is not offered.
    pub graceful_restart: Option<Restart>,
    /// Not offered, because the peer refused them.
    pub withheld: Vec<Capability>,
}

/// What the capability of graceful restart says of this node (RFC 4724 §3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restart {
    /// The R bit: this agent is not the first of this node, and has not had a session with the peer.
    pub restarting: bool,
    /// The F bit: the kernel still forwards as it did for the last session, be it of a previous agent.
    pub forwarding: bool,
}

/// How long a peer keeps our routes without a session. systemd starts a crashed agent after a second, and the agent dials as soon as
/// it has a plan: 20 s at most. A node that does not come back draws traffic for this long, where nothing else tells the peer.
pub const RESTART_TIME: Duration = Duration::from_secs(60);

/// The outcome of an OPEN exchange that both sides accepted. Exists only from OpenConfirm on.
///
/// It is written down for the agent after this one (`bgp::kept`), so a field that is added has to have a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negotiated {
    pub local_asn: u32,
    pub peer_asn: u32,
    pub peer_identifier: Ipv4Addr,
    /// `None`: no hold timer, no keepalives (RFC 4271 §4.2). Else at least 3 s.
    pub hold_time: Option<Duration>,
    /// `None` exactly if `hold_time` is.
    pub keepalive_time: Option<Duration>,
    /// AS numbers are four octets wide in AS_PATH (RFC 6793).
    pub four_octet_asn: bool,
    /// Both sides may exchange these families.
    pub ipv4_unicast: bool,
    pub ipv6_unicast: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub ipv4_with_ipv6_next_hop: bool,
    /// The session is bound to one link.
    pub link_scoped: bool,
    pub route_refresh: bool,
    /// Routes that are sent again are put between a begin and an end (RFC 7313).
    pub enhanced_refresh: bool,
    /// Octets, header included: 4096, or 65535 with RFC 8654.
    pub max_message_len: usize,
    /// The peer keeps our routes for a while when the connection is lost (RFC 4724).
    #[serde(default)]
    pub graceful_restart: bool,
    /// It does so after a NOTIFICATION too, unless that is a Hard Reset (RFC 8538).
    #[serde(default)]
    pub hard_reset: bool,
}

impl Negotiated {
    /// The last NOTIFICATION of a session, as the peer has to hear it: one that takes our routes back is a Hard Reset where the peer
    /// would keep them else (RFC 8538 §3.1).
    pub fn last_word(&self, notification: Notification) -> Notification {
        match self.hard_reset && takes_routes_back(notification.reason) {
            true => notification.into_hard_reset(),
            false => notification,
        }
    }

    /// How this session's octets are read and written.
    pub fn dialect(&self) -> Dialect {
        Dialect {
            four_octet_asn: self.four_octet_asn,
            internal: self.internal(),
            peer_asn: self.peer_asn,
            first_asn_is_peer: true,
            link_scoped: self.link_scoped,
            ipv4_unicast: self.ipv4_unicast,
            ipv6_unicast: self.ipv6_unicast,
            ipv4_with_ipv6_next_hop: self.ipv4_with_ipv6_next_hop,
            enhanced_refresh: self.enhanced_refresh,
            max_message_len: self.max_message_len,
        }
    }

    /// Whether both ends are in the same AS: LOCAL_PREF is sent and the AS path stays empty.
    pub fn internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }

    /// Whether routes of this family may be exchanged.
    pub fn family(&self, family: AfiSafi) -> bool {
        match family {
            AfiSafi::IPV4_UNICAST => self.ipv4_unicast,
            AfiSafi::IPV6_UNICAST => self.ipv6_unicast,
            AfiSafi { .. } => false,
        }
    }
}

/// Whether the routes are not to be used any more: this node gives them up, or cannot be reached.
fn takes_routes_back(reason: NotificationReason) -> bool {
    reason.cease().is_some_and(|cease| match cease {
        Cease::AdministrativeShutdown | Cease::PeerDeconfigured | Cease::BfdDown => true,
        // A new session follows at once.
        Cease::AdministrativeReset
        | Cease::OtherConfigurationChange
        | Cease::MaximumPrefixesReached
        | Cease::ConnectionRejected
        | Cease::ConnectionCollision
        | Cease::OutOfResources
        | Cease::HardReset => false,
    })
}

/// Why the peer's OPEN was not accepted. Nothing was negotiated; the connection ends with [`OpenRefusal::notification`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    #[error(transparent)]
    Fault(#[from] OpenFault),
    #[error("the peer offers neither IPv4 unicast nor IPv6 unicast")]
    NoCommonFamily,
}

impl OpenRefusal {
    pub fn notification(&self) -> Notification {
        match self {
            OpenRefusal::Fault(fault) => fault.notification(),
            // RFC 5492 §5: the data holds the missing capabilities, encoded as in an OPEN.
            OpenRefusal::NoCommonFamily => Notification {
                reason: NotificationReason::Open(OpenError::UnsupportedCapability),
                data: MULTIPROTOCOL_BOTH.to_vec(),
            },
        }
    }
}

/// Multiprotocol (code 1, four octets) for IPv4 unicast and for IPv6 unicast.
const MULTIPROTOCOL_BOTH: [u8; 12] = [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1];

impl LocalOffer {
    /// The OPEN for this offer.
    pub fn open(&self) -> Open {
        let graceful_restart = self.graceful_restart.map(|Restart { restarting, forwarding }| {
            let families = [AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST];
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification: true,
                restart_time_secs: u16::try_from(RESTART_TIME.as_secs()).unwrap_or(0),
                families: families.into_iter().map(|family| (family, forwarding)).collect(),
            })
        });
        let always = [
            Capability::Multiprotocol(AfiSafi::IPV4_UNICAST),
            Capability::Multiprotocol(AfiSafi::IPV6_UNICAST),
            // RFC 8950 §4, offered over either family: it only says what we can read.
            Capability::ExtendedNextHop(vec![(AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST.afi)]),
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
            Capability::ExtendedMessage,
            Capability::FourOctetAsn(self.local_asn),
        ];
        Open {
            asn: u16::try_from(self.local_asn).unwrap_or(AS_TRANS),
            hold_time_secs: self.hold_time_secs(),
            identifier: self.identifier,
            capabilities: always.into_iter().chain(graceful_restart).filter(|it| !self.withheld.contains(it)).collect(),
        }
    }

    /// Which capabilities to leave out from now on after the peer refused our OPEN for them; none where nothing that can be left
    /// out would help. Unsupported Optional Parameter means all of them (RFC 5492 §3), and so does Unsupported Capability that
    /// lists none. One that lists only what we did not offer asks for something that crier does not have (RFC 5492 §5).
    pub fn refused(&self, refusal: &Notification) -> Vec<Capability> {
        let offered = self.open().capabilities;
        let listed = match refusal.reason {
            NotificationReason::Open(OpenError::UnsupportedOptionalParameter) => Vec::new(),
            NotificationReason::Open(OpenError::UnsupportedCapability) => {
                Capability::parse_all(&refusal.data).unwrap_or_default()
            }
            _ => return Vec::new(),
        };
        let is_listed = |capability: &Capability| listed.iter().any(|listed| listed.is_same_kind(capability));
        // A number above 65535 can be told in no other way.
        let is_needed = |capability: &Capability| match capability {
            Capability::FourOctetAsn(asn) => u16::try_from(*asn).is_err(),
            _ => false,
        };
        let refused = offered.into_iter().filter(|it| (listed.is_empty() || is_listed(it)) && !is_needed(it));
        refused.collect()
    }

    /// Compares the peer's OPEN with ours.
    pub fn negotiate(&self, theirs: &Open) -> Result<Negotiated, OpenRefusal> {
        let peer_asn = theirs.acceptable(&Expectation {
            local_asn: self.local_asn,
            local_identifier: self.identifier,
            peer_asn: self.expected_asn,
        })?;
        let ours = self.open();
        let both = |offers: &dyn Fn(&Open) -> bool| offers(&ours) && offers(theirs);
        let ipv4_unicast = both(&|open| open.offers(AfiSafi::IPV4_UNICAST));
        let ipv6_unicast = both(&|open| open.offers(AfiSafi::IPV6_UNICAST));
        if !ipv4_unicast && !ipv6_unicast {
            return Err(OpenRefusal::NoCommonFamily);
        }
        let hold_time = self.negotiate_hold_time(theirs.hold_time_secs);
        let restart = ours.graceful_restart().and_then(|_| theirs.graceful_restart());
        // RFC 8654 §4. A peer that does not offer it is held to the old limit in what it sends as well.
        let extended = both(&Open::offers_extended_message);
        Ok(Negotiated {
            local_asn: self.local_asn,
            peer_asn,
            peer_identifier: theirs.identifier,
            hold_time,
            keepalive_time: hold_time.map(|hold| self.keepalive_time.unwrap_or(hold / 3).min(hold / 3)),
            four_octet_asn: both(&|open| open.four_octet_asn().is_some()),
            ipv4_unicast,
            ipv6_unicast,
            ipv4_with_ipv6_next_hop: ipv4_unicast && both(&|open| open.offers_ipv6_next_hop(AfiSafi::IPV4_UNICAST)),
            link_scoped: self.link_scoped,
            route_refresh: both(&Open::offers_route_refresh),
            enhanced_refresh: both(&Open::offers_enhanced_refresh),
            max_message_len: if extended { MAX_EXTENDED_MESSAGE_LEN } else { MAX_MESSAGE_LEN },
            graceful_restart: restart.is_some(),
            hard_reset: restart.is_some_and(|theirs| theirs.notification),
        })
    }

    /// What we offer, in seconds; the field holds the whole range of the setting.
    fn hold_time_secs(&self) -> u16 {
        self.hold_time.map_or(0, |time| u16::try_from(time.as_secs()).unwrap_or(u16::MAX))
    }

    /// RFC 4271 §4.2: the smaller of the two, and 0 from either side means no hold time.
    fn negotiate_hold_time(&self, theirs_secs: u16) -> Option<Duration> {
        match self.hold_time_secs().min(theirs_secs) {
            0 => None,
            secs => Some(Duration::from_secs(u64::from(secs))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> LocalOffer {
        LocalOffer {
            local_asn: 65001,
            expected_asn: ExpectedAsn::Is(65002),
            identifier: Ipv4Addr::new(10, 0, 0, 1),
            hold_time: Some(Duration::from_secs(90)),
            keepalive_time: None,
            connect_retry_time: Duration::from_secs(5),
            passive: false,
            link_scoped: false,
            graceful_restart: None,
            withheld: Vec::new(),
        }
    }

    fn open(asn: u32, hold_time_secs: u16) -> Open {
        Open {
            hold_time_secs,
            identifier: Ipv4Addr::new(10, 0, 0, 2),
            ..LocalOffer { local_asn: asn, ..offer() }.open()
        }
    }

    fn secs(secs: u64) -> Option<Duration> {
        Some(Duration::from_secs(secs))
    }

    /// X3 of the timer cases, and the first half of X4.
    #[test]
    fn the_smaller_hold_time_counts_and_zero_from_either_side_means_none() {
        let agreed = |ours: Option<Duration>, theirs: u16| {
            let negotiated = LocalOffer { hold_time: ours, ..offer() }.negotiate(&open(65002, theirs)).unwrap();
            (negotiated.hold_time, negotiated.keepalive_time)
        };
        assert_eq!(agreed(secs(90), 30), (secs(30), secs(10)));
        assert_eq!(agreed(secs(9), 240), (secs(9), secs(3)));
        assert_eq!(agreed(secs(90), 0), (None, None));
        assert_eq!(agreed(None, 90), (None, None));
        assert_eq!(agreed(None, 0), (None, None));
    }

    #[test]
    fn a_configured_keepalive_time_is_kept_only_below_a_third_of_the_agreed_hold_time() {
        let offer = LocalOffer { keepalive_time: secs(5), ..offer() };
        assert_eq!(offer.negotiate(&open(65002, 90)).unwrap().keepalive_time, secs(5));
        assert_eq!(offer.negotiate(&open(65002, 9)).unwrap().keepalive_time, secs(3));
    }

    #[test]
    fn an_unexpected_as_number_is_refused_with_both_numbers_in_the_text() {
        let refused = |expected_asn, came| {
            let refusal = LocalOffer { expected_asn, ..offer() }.negotiate(&open(came, 90)).unwrap_err();
            assert_eq!(refusal.notification().reason, NotificationReason::Open(OpenError::BadPeerAs));
            refusal.to_string()
        };
        let text = refused(ExpectedAsn::Is(65002), 65010);
        assert!(text.contains("65010") && text.contains("65002"), "both are named: {text}");
        assert!(refused(ExpectedAsn::External, 65001).contains("other than ours"));
        assert!(refused(ExpectedAsn::Internal, 65002).contains("our own"));
    }

    #[test]
    fn external_and_internal_accept_what_they_say() {
        let asn = |expected_asn, came| {
            let negotiated = LocalOffer { expected_asn, ..offer() }.negotiate(&open(came, 90)).unwrap();
            (negotiated.peer_asn, negotiated.internal())
        };
        assert_eq!(asn(ExpectedAsn::External, 4_200_000_000), (4_200_000_000, false));
        assert_eq!(asn(ExpectedAsn::Internal, 65001), (65001, true));
    }

    #[test]
    fn a_four_octet_as_number_stands_in_the_capability_and_as_trans_in_the_field() {
        let open = LocalOffer { local_asn: 4_200_000_000, ..offer() }.open();
        assert_eq!(open.asn, AS_TRANS);
        assert!(open.capabilities.contains(&Capability::FourOctetAsn(4_200_000_000)));
        let old = Open { capabilities: Vec::new(), ..self::open(65002, 90) };
        assert!(!offer().negotiate(&old).unwrap().four_octet_asn, "no capability: two octets");
    }

    #[test]
    fn within_one_as_the_identifiers_have_to_differ() {
        let offer = LocalOffer { expected_asn: ExpectedAsn::Internal, ..offer() };
        let refusal = offer.negotiate(&offer.open()).unwrap_err();
        assert_eq!(refusal.notification().reason, NotificationReason::Open(OpenError::BadBgpIdentifier));
        let external = LocalOffer { expected_asn: ExpectedAsn::External, ..offer.clone() };
        let same_id = Open { identifier: offer.identifier, ..open(65002, 90) };
        assert!(external.negotiate(&same_id).is_ok(), "RFC 6286: between ASes they may be equal");
    }

    #[test]
    fn long_messages_and_refresh_markers_need_the_offer_of_both_sides() {
        let agreed = |capabilities: Vec<Capability>| {
            let negotiated = offer().negotiate(&Open { capabilities, ..open(65002, 90) }).unwrap();
            (negotiated.max_message_len, negotiated.route_refresh, negotiated.enhanced_refresh)
        };
        assert_eq!(agreed(vec![]), (4096, false, false));
        assert_eq!(agreed(vec![Capability::ExtendedMessage]), (65535, false, false));
        assert_eq!(agreed(vec![Capability::RouteRefresh]), (4096, true, false));
        assert_eq!(agreed(vec![Capability::EnhancedRouteRefresh]), (4096, false, true));
        assert_eq!(agreed(open(65002, 90).capabilities), (65535, true, true));
    }

    #[test]
    fn graceful_restart_needs_both_and_says_of_each_family_what_is_so() {
        let restart = |restarting, forwarding| Some(Restart { restarting, forwarding });
        let offering = |graceful_restart| LocalOffer { graceful_restart, ..offer() };
        let agreed = |ours, theirs: Vec<Capability>| {
            let theirs = Open { capabilities: theirs, ..open(65002, 90) };
            let negotiated = offering(ours).negotiate(&theirs).unwrap();
            (negotiated.graceful_restart, negotiated.hard_reset)
        };
        let with_n = |notification| {
            let families = Vec::new();
            let restart_time_secs = 120;
            Capability::GracefulRestart(GracefulRestart {
                restarting: false,
                notification,
                restart_time_secs,
                families,
            })
        };
        assert_eq!(agreed(None, vec![with_n(true)]), (false, false));
        assert_eq!(agreed(restart(false, false), vec![]), (false, false));
        assert_eq!(agreed(restart(false, false), vec![with_n(false)]), (true, false));
        assert_eq!(agreed(restart(false, false), vec![with_n(true)]), (true, true));
        assert_eq!(offering(None).open().graceful_restart(), None);
        for (restarting, forwarding) in [(false, false), (true, false), (true, true)] {
            let open = offering(restart(restarting, forwarding)).open();
            let said = open.graceful_restart().expect("it is offered");
            assert_eq!((said.restarting, said.notification, said.restart_time_secs), (restarting, true, 60));
            let families = [AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST].map(|family| (family, forwarding));
            assert_eq!(said.families, families);
        }
    }

    /// RFC 8538 §3.1.
    #[test]
    fn a_notification_that_takes_routes_back_is_a_hard_reset_where_the_peer_would_keep_them() {
        let negotiated = offer().negotiate(&open(65002, 90)).unwrap();
        let keeps = Negotiated { graceful_restart: true, hard_reset: true, ..negotiated.clone() };
        let word = |cease| Notification::from(NotificationReason::Cease(cease));
        for cease in [Cease::AdministrativeShutdown, Cease::PeerDeconfigured, Cease::BfdDown] {
            assert_eq!(keeps.last_word(word(cease)).hard_reset_cause(), Some(word(cease)));
            assert_eq!(negotiated.last_word(word(cease)), word(cease), "the peer does not know it");
        }
        for cease in [Cease::AdministrativeReset, Cease::OtherConfigurationChange, Cease::ConnectionCollision] {
            assert_eq!(keeps.last_word(word(cease)), word(cease), "a session follows");
        }
    }

    #[test]
    fn ipv4_goes_by_ipv6_next_hops_when_the_peer_offers_that_too() {
        let by_ipv6 = |capabilities: Vec<Capability>| {
            let theirs = Open { capabilities, ..open(65002, 90) };
            offer().negotiate(&theirs).unwrap().ipv4_with_ipv6_next_hop
        };
        let (v4, v6) =
            (Capability::Multiprotocol(AfiSafi::IPV4_UNICAST), Capability::Multiprotocol(AfiSafi::IPV6_UNICAST));
        let next_hop_offer = |family, afi| Capability::ExtendedNextHop(vec![(family, afi)]);
        let right = next_hop_offer(AfiSafi::IPV4_UNICAST, 2);
        assert!(offer().open().offers_ipv6_next_hop(AfiSafi::IPV4_UNICAST), "we do");
        assert!(by_ipv6(vec![v4.clone(), right.clone()]));
        assert!(!by_ipv6(vec![v4.clone(), v6.clone()]), "not offered");
        assert!(!by_ipv6(vec![v4.clone(), next_hop_offer(AfiSafi::IPV4_UNICAST, 1)]), "offered by IPv4 next hops");
        assert!(!by_ipv6(vec![v4, next_hop_offer(AfiSafi { afi: 1, safi: 128 }, 2)]), "offered for VPN routes");
        assert!(!by_ipv6(vec![v6, right]), "IPv4 itself is not negotiated");
    }

    #[test]
    fn a_family_is_exchanged_when_the_peer_offers_it_and_ipv4_when_it_offers_none_by_name() {
        let families = |capabilities: Vec<Capability>| {
            let theirs = Open { capabilities, ..open(65002, 90) };
            offer().negotiate(&theirs).map(|negotiated| (negotiated.ipv4_unicast, negotiated.ipv6_unicast))
        };
        let multiprotocol = |afi, safi| Capability::Multiprotocol(AfiSafi { afi, safi });
        assert_eq!(families(vec![]), Ok((true, false)));
        assert_eq!(families(vec![multiprotocol(2, 1)]), Ok((false, true)));
        assert_eq!(families(vec![multiprotocol(2, 1), multiprotocol(1, 1)]), Ok((true, true)));
        let refusal = families(vec![multiprotocol(1, 128)]).unwrap_err();
        assert_eq!(refusal.notification().reason, NotificationReason::Open(OpenError::UnsupportedCapability));
    }

    #[test]
    fn what_a_peer_refused_is_left_out_and_what_it_lists_alone_if_it_lists_anything() {
        let refusal =
            |reason, data: &[u8]| Notification { reason: NotificationReason::Open(reason), data: data.to_vec() };
        let extended_message = refusal(OpenError::UnsupportedCapability, &[6, 0]);
        assert_eq!(offer().refused(&extended_message), [Capability::ExtendedMessage]);
        let ipv6 = refusal(OpenError::UnsupportedCapability, &[1, 4, 0, 2, 0, 1]);
        assert_eq!(offer().refused(&ipv6), [Capability::Multiprotocol(AfiSafi::IPV6_UNICAST)], "IPv4 stays");
        // Code 65 with another number than ours in it is ours all the same.
        let asn = refusal(OpenError::UnsupportedCapability, &[65, 4, 0, 0, 0, 0]);
        assert_eq!(offer().refused(&asn), [Capability::FourOctetAsn(65001)]);
        for unlisted in [
            refusal(OpenError::UnsupportedCapability, &[]),
            refusal(OpenError::UnsupportedCapability, &[6, 9, 1]),
            refusal(OpenError::UnsupportedOptionalParameter, &[2, 6]),
        ] {
            assert_eq!(offer().refused(&unlisted), offer().open().capabilities, "{unlisted:?}");
        }
        let wants_add_path = refusal(OpenError::UnsupportedCapability, &[69, 4, 0, 1, 1, 3]);
        assert_eq!(offer().refused(&wants_add_path), [], "nothing that is left out makes up for what is lacking");
        let big = LocalOffer { local_asn: 4_200_000_000, ..offer() };
        let kept: Vec<Capability> = {
            let withheld = big.refused(&refusal(OpenError::UnsupportedOptionalParameter, &[]));
            LocalOffer { withheld, ..big }.open().capabilities
        };
        assert_eq!(kept, [Capability::FourOctetAsn(4_200_000_000)], "the number cannot be told otherwise");
        assert_eq!(offer().refused(&refusal(OpenError::BadPeerAs, &[])), []);
    }

    #[test]
    fn what_this_end_did_not_offer_is_not_used_whatever_the_peer_offers() {
        let bare = LocalOffer { withheld: offer().open().capabilities, ..offer() };
        let negotiated = bare.negotiate(&open(65002, 90)).unwrap();
        assert!(negotiated.ipv4_unicast && !negotiated.ipv6_unicast, "RFC 4760: IPv4 unicast is implied");
        assert!(!negotiated.four_octet_asn && !negotiated.route_refresh && !negotiated.enhanced_refresh);
        assert!(!negotiated.ipv4_with_ipv6_next_hop && !negotiated.graceful_restart);
        assert_eq!(negotiated.max_message_len, MAX_MESSAGE_LEN);
    }
}
