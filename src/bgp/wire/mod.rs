//! BGP messages as values and as bytes (RFC 4271, RFC 4760, RFC 5492, RFC 6793, RFC 7606).
//! Floor 1. Every type has `parse`, `emit`, `emitted_len` and `Display`; nothing else in crier touches BGP bytes.

mod notification;

pub use notification::{Cease, FsmError, HeaderError, Notification, NotificationReason, OpenError, UpdateError};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::address::Family;
use crate::community::Community;

/// One message, header excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Open(Open),
    Update(Update),
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

/// RFC 4271 §4.2. The version is always 4: another one is a parse error that knows its NOTIFICATION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; `AS_TRANS` where the number does not fit.
    pub asn: u16,
    /// Seconds; 0 or at least 3 once parsed.
    pub hold_time_secs: u16,
    /// Never 0.0.0.0 once parsed.
    pub identifier: Ipv4Addr,
    pub capabilities: Vec<Capability>,
}

/// RFC 6793: the two-octet number that stands for one that needs four.
pub const AS_TRANS: u16 = 23456;

/// RFC 5492. Codes crier does not know survive as `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// RFC 4760, code 1.
    Multiprotocol(AfiSafi),
    /// RFC 2918, code 2.
    RouteRefresh,
    /// RFC 8950, code 5: (AFI, SAFI, next hop AFI) triples.
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// RFC 8654, code 6.
    ExtendedMessage,
    /// RFC 4724, code 64.
    GracefulRestart(GracefulRestart),
    /// RFC 6793, code 65.
    FourOctetAsn(u32),
    Unknown {
        code: u8,
        value: Vec<u8>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GracefulRestart {
    pub restarting: bool,
    /// RFC 8538: the N bit.
    pub notification: bool,
    /// Seconds, 0 to 4095.
    pub restart_time_secs: u16,
    /// The families, each with its forwarding state bit.
    pub families: Vec<(AfiSafi, bool)>,
}

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
}

/// RFC 4271 §4.3 with the multiprotocol attributes of RFC 4760 taken out of the attribute list.
///
/// crier sends one family, and either announcements or withdrawals, in one UPDATE. What it receives may mix all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// IPv4 prefixes of the withdrawn routes field.
    pub withdrawn: Vec<IpNet>,
    /// MP_UNREACH_NLRI.
    pub mp_unreach: Option<MpUnreach>,
    pub attributes: Attributes,
    /// MP_REACH_NLRI.
    pub mp_reach: Option<MpReach>,
    /// IPv4 prefixes of the NLRI field.
    pub announced: Vec<IpNet>,
}

/// The path attributes that crier reads or writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub origin: Option<Origin>,
    /// `None` without the attribute; an empty path has no segments.
    pub as_path: Option<Vec<AsPathSegment>>,
    pub next_hop: Option<Ipv4Addr>,
    pub med: Option<u32>,
    pub local_preference: Option<u32>,
    /// COMMUNITIES and LARGE_COMMUNITIES together.
    pub communities: Vec<Community>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Igp,
    Egp,
    Incomplete,
}

/// At least one AS number, at most 255 on the wire (a longer one is split when emitted).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsPathSegment {
    pub set: bool,
    pub asns: Vec<u32>,
}

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

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> NextHop {
        match address {
            IpAddr::V4(v4) => NextHop::V4(v4),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

/// RFC 2918 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    pub family: AfiSafi,
    /// RFC 7313; 0 for a plain request.
    pub subtype: u8,
}
