//! Address families as the wire numbers them (RFC 4760 §3). Floor 1.

use std::fmt;

use crate::address::Family;

/// An address family as the wire numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    pub afi: u16,
    pub safi: u8,
}

impl AfiSafi {
    pub const IPV4_UNICAST: AfiSafi = AfiSafi { afi: 1, safi: 1 };
    pub const IPV6_UNICAST: AfiSafi = AfiSafi { afi: 2, safi: 1 };

    pub fn unicast(family: Family) -> AfiSafi {
        match family {
            Family::V4 => AfiSafi::IPV4_UNICAST,
            Family::V6 => AfiSafi::IPV6_UNICAST,
        }
    }

    /// The family, if these are its unicast routes; `None` for every other kind of route.
    pub fn unicast_family(self) -> Option<Family> {
        Family::BOTH.into_iter().find(|family| AfiSafi::unicast(*family) == self)
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unicast_family() {
            Some(family) => write!(f, "{family} unicast"),
            None => write!(f, "AFI {} SAFI {}", self.afi, self.safi),
        }
    }
}
