//! What one side of a session must know to read and write the other's octets. Floor 1.

use super::{AfiSafi, MAX_MESSAGE_LEN};

/// The part of a `Negotiated` that decides how octets are read and written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// AS numbers in AS_PATH have four octets (RFC 6793).
    pub four_octet_asn: bool,
    /// Both ends are in the same AS: LOCAL_PREF and the route reflector's attributes are valid.
    pub internal: bool,
    pub peer_asn: u32,
    /// An external peer must stand first in the AS_PATH it sends (RFC 4271 §6.3, a MAY). Off for route servers, which do
    /// not prepend themselves.
    pub first_asn_is_peer: bool,
    /// The session is bound to one interface, so that a link-local next hop alone says where to send.
    pub link_scoped: bool,
    pub ipv4_unicast: bool,
    pub ipv6_unicast: bool,
    /// RFC 8950.
    pub ipv4_with_ipv6_next_hop: bool,
    /// RFC 7313: a ROUTE-REFRESH that marks a beginning or an end has exactly one length.
    pub enhanced_refresh: bool,
    /// Octets, header included.
    pub max_message_len: usize,
}

impl Dialect {
    /// For OPEN, and for every message before the peer's OPEN is accepted.
    pub const BEFORE_OPEN: Dialect = Dialect {
        four_octet_asn: false,
        internal: false,
        peer_asn: 0,
        first_asn_is_peer: false,
        link_scoped: false,
        ipv4_unicast: false,
        ipv6_unicast: false,
        ipv4_with_ipv6_next_hop: false,
        enhanced_refresh: false,
        max_message_len: MAX_MESSAGE_LEN,
    };

    /// Both sides may exchange routes of this family.
    pub fn negotiated(&self, family: AfiSafi) -> bool {
        match family {
            AfiSafi::IPV4_UNICAST => self.ipv4_unicast,
            AfiSafi::IPV6_UNICAST => self.ipv6_unicast,
            AfiSafi { .. } => false,
        }
    }

    /// Octets of one AS number in AS_PATH and AGGREGATOR.
    pub(super) fn asn_width(&self) -> AsnWidth {
        if self.four_octet_asn { AsnWidth::Four } else { AsnWidth::Two }
    }
}

/// How wide an AS number is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AsnWidth {
    Two,
    Four,
}

impl AsnWidth {
    pub(super) fn octets(self) -> usize {
        match self {
            AsnWidth::Two => 2,
            AsnWidth::Four => 4,
        }
    }
}
