//! MP_REACH_NLRI and MP_UNREACH_NLRI: routes of any family inside an attribute (RFC 4760, RFC 2545, RFC 8950). Floor 1.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;
use nom::Parser;
use nom::combinator::{all_consuming, opt};
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32, be_u128};

use super::{AfiSafi, Dialect, PrefixFault, length8, prefix};
use crate::address::Family;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpReach {
    pub family: AfiSafi,
    pub next_hop: NextHop,
    pub prefixes: Vec<IpNet>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MpUnreach {
    pub family: AfiSafi,
    pub prefixes: Vec<IpNet>,
}

/// RFC 4760 §3, RFC 2545 §3, RFC 8950 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    V4(Ipv4Addr),
    V6 { global: Ipv6Addr, link_local: Option<Ipv6Addr> },
}

/// Why the routes in MP_REACH_NLRI or MP_UNREACH_NLRI cannot be located.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultiprotocolFault {
    #[error("it ends after {0} octets, before its routes")]
    Truncated(usize),
    #[error("its next hop for {family} is {len} octets long")]
    NextHopLength { family: AfiSafi, len: usize },
    #[error(transparent)]
    Prefix(#[from] PrefixFault),
}

/// A multiprotocol attribute of a family that this session carries, or the family that this session does not carry.
pub(super) enum Negotiated<T> {
    Yes(T),
    No(AfiSafi),
}

/// A multiprotocol attribute read as far as its family.
struct Begun<'a> {
    family: AfiSafi,
    address_family: Family,
    rest: &'a [u8],
}

impl<'a> Begun<'a> {
    fn parse(value: &'a [u8], dialect: &Dialect) -> Result<Negotiated<Begun<'a>>, MultiprotocolFault> {
        let Ok((rest, (afi, safi))) = (be_u16::<_, ()>, be_u8).parse(value) else {
            return Err(MultiprotocolFault::Truncated(value.len()));
        };
        let family = AfiSafi { afi, safi };
        Ok(match family.unicast_family() {
            Some(address_family) if dialect.negotiated(family) => {
                Negotiated::Yes(Begun { family, address_family, rest })
            }
            _ => Negotiated::No(family),
        })
    }
}

impl MpReach {
    /// [`NextHop::is_usable`] says whether the next hop can be used.
    pub(super) fn parse(value: &[u8], dialect: &Dialect) -> Result<Negotiated<MpReach>, MultiprotocolFault> {
        let Begun { family, address_family, rest } = match Begun::parse(value, dialect)? {
            Negotiated::Yes(begun) => begun,
            Negotiated::No(family) => return Ok(Negotiated::No(family)),
        };
        // RFC 4760 §3: the octet after the next hop is reserved and ignored.
        let Ok((routes, (next_hop, _reserved))) = (length_data(be_u8::<_, ()>), be_u8).parse(rest) else {
            return Err(MultiprotocolFault::Truncated(value.len()));
        };
        let next_hop = NextHop::parse(address_family, next_hop)
            .ok_or(MultiprotocolFault::NextHopLength { family, len: next_hop.len() })?;
        let prefixes = prefix::parse_all(address_family, routes)?;
        Ok(Negotiated::Yes(MpReach { family, next_hop, prefixes }))
    }

    /// Octets of the attribute's value.
    pub(super) fn value_len(&self) -> usize {
        // AFI, SAFI, length of the next hop, reserved.
        5 + self.next_hop.emitted_len() + prefix::emitted_len_all(&self.prefixes)
    }

    pub(super) fn emit(&self, out: &mut BytesMut) {
        let MpReach { family, next_hop, prefixes } = self;
        out.put_u16(family.afi);
        out.put_u8(family.safi);
        out.put_u8(length8(next_hop.emitted_len()));
        next_hop.emit(out);
        out.put_u8(0);
        prefix::emit_all(prefixes, out);
    }
}

impl MpUnreach {
    pub(super) fn parse(value: &[u8], dialect: &Dialect) -> Result<Negotiated<MpUnreach>, MultiprotocolFault> {
        Ok(match Begun::parse(value, dialect)? {
            Negotiated::Yes(Begun { family, address_family, rest }) => {
                Negotiated::Yes(MpUnreach { family, prefixes: prefix::parse_all(address_family, rest)? })
            }
            Negotiated::No(family) => Negotiated::No(family),
        })
    }

    /// Octets of the attribute's value.
    pub(super) fn value_len(&self) -> usize {
        3 + prefix::emitted_len_all(&self.prefixes)
    }

    pub(super) fn emit(&self, out: &mut BytesMut) {
        let MpUnreach { family, prefixes } = self;
        out.put_u16(family.afi);
        out.put_u8(family.safi);
        prefix::emit_all(prefixes, out);
    }
}

impl NextHop {
    /// `None`: no next hop for routes of this family has this length.
    fn parse(family: Family, octets: &[u8]) -> Option<NextHop> {
        // RFC 8950 §3: IPv4 routes may have a next hop of either family. `is_usable` checks whether that was negotiated.
        if family == Family::V4
            && let Ok((_, v4)) = all_consuming(be_u32::<_, ()>).parse(octets)
        {
            return Some(NextHop::V4(Ipv4Addr::from_bits(v4)));
        }
        let (_, (global, link_local)) = all_consuming((be_u128::<_, ()>, opt(be_u128))).parse(octets).ok()?;
        Some(NextHop::V6 { global: Ipv6Addr::from_bits(global), link_local: link_local.map(Ipv6Addr::from_bits) })
    }

    /// Octets of one address, or of both.
    pub fn emitted_len(&self) -> usize {
        match self {
            NextHop::V4(_) => 4,
            NextHop::V6 { link_local: None, .. } => 16,
            NextHop::V6 { link_local: Some(_), .. } => 32,
        }
    }

    fn emit(&self, out: &mut BytesMut) {
        match self {
            NextHop::V4(v4) => out.put_u32(v4.to_bits()),
            NextHop::V6 { global, link_local } => {
                out.put_u128(global.to_bits());
                if let Some(link_local) = link_local {
                    out.put_u128(link_local.to_bits());
                }
            }
        }
    }

    /// Whether a packet for a route of `family` could be sent there: RFC 4271 §6.3 requires "a valid IP host address".
    ///
    /// A link-local address alone needs a session that is bound to one interface. FRR sends such an address, twice, to
    /// unnumbered peers, and for IPv4 also without having negotiated RFC 8950.
    pub fn is_usable(&self, family: AfiSafi, dialect: &Dialect) -> bool {
        match self {
            NextHop::V4(v4) => is_host(*v4),
            NextHop::V6 { global, link_local: _ } => {
                let reaches = !global.is_unspecified() && !global.is_loopback() && !global.is_multicast();
                let scoped = dialect.link_scoped || !global.is_unicast_link_local();
                let for_family =
                    family != AfiSafi::IPV4_UNICAST || dialect.ipv4_with_ipv6_next_hop || dialect.link_scoped;
                reaches && scoped && for_family
            }
        }
    }
}

/// Not the unspecified address, not loopback, not multicast, not reserved.
pub(super) fn is_host(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && address.octets()[0] < 224
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> NextHop {
        match address {
            IpAddr::V4(v4) => NextHop::V4(v4),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::V4(v4) => v4.fmt(f),
            NextHop::V6 { global, link_local: None } => global.fmt(f),
            NextHop::V6 { global, link_local: Some(link_local) } => write!(f, "{global} ({link_local})"),
        }
    }
}
