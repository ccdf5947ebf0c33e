//! Path attributes, which apply to all routes of an UPDATE, and RFC 7606's table of what to do about a wrong one.
//! Floor 1. Not for reading a list of attributes (`attribute_list`), nor for attributes that hold routes (`multiprotocol`).

use std::fmt;
use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use super::dialect::AsnWidth;
use super::treatment::Treatment;
use super::{AsPathFault, AsPathSegment, Dialect, MultiprotocolFault, NextHop, as_path, length16};
use crate::community::Community;

/// The path attributes that crier reads or writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub origin: Option<Origin>,
    /// `None` without the attribute; an empty path has no segments.
    pub as_path: Option<Vec<AsPathSegment>>,
    pub next_hop: Option<Ipv4Addr>,
    pub med: Option<u32>,
    pub local_preference: Option<u32>,
    /// COMMUNITIES, LARGE_COMMUNITIES and EXTENDED_COMMUNITIES together; sorted and without duplicates once parsed.
    pub communities: Vec<Community>,
    /// Optional transitive attributes that crier does not know; ascending by code once parsed.
    pub unknown: Vec<UnknownAttribute>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Igp,
    Egp,
    Incomplete,
}

/// RFC 4271 §9: passed on with the Partial bit set, if at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownAttribute {
    pub code: AttributeCode,
    pub value: Vec<u8>,
}

/// The type code of a path attribute. Prints its name in the IANA registry if crier knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributeCode(pub u8);

impl AttributeCode {
    pub const ORIGIN: AttributeCode = AttributeCode(1);
    pub const AS_PATH: AttributeCode = AttributeCode(2);
    pub const NEXT_HOP: AttributeCode = AttributeCode(3);
    pub const MED: AttributeCode = AttributeCode(4);
    pub const LOCAL_PREF: AttributeCode = AttributeCode(5);
    pub const ATOMIC_AGGREGATE: AttributeCode = AttributeCode(6);
    pub const AGGREGATOR: AttributeCode = AttributeCode(7);
    pub const COMMUNITIES: AttributeCode = AttributeCode(8);
    pub const ORIGINATOR_ID: AttributeCode = AttributeCode(9);
    pub const CLUSTER_LIST: AttributeCode = AttributeCode(10);
    pub const MP_REACH_NLRI: AttributeCode = AttributeCode(14);
    pub const MP_UNREACH_NLRI: AttributeCode = AttributeCode(15);
    pub const EXTENDED_COMMUNITIES: AttributeCode = AttributeCode(16);
    pub const AS4_PATH: AttributeCode = AttributeCode(17);
    pub const AS4_AGGREGATOR: AttributeCode = AttributeCode(18);
    pub const IPV6_EXTENDED_COMMUNITIES: AttributeCode = AttributeCode(25);
    pub const LARGE_COMMUNITIES: AttributeCode = AttributeCode(32);
    pub const OTC: AttributeCode = AttributeCode(35);

    /// Whether it holds routes: if such an attribute is lost, its routes are unknown.
    pub(super) fn holds_routes(self) -> bool {
        matches!(self, AttributeCode::MP_REACH_NLRI | AttributeCode::MP_UNREACH_NLRI)
    }

    pub(super) fn rule(self) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.code == self)
    }
}

impl fmt::Display for AttributeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule() {
            Some(rule) => f.write_str(rule.name),
            None => write!(f, "attribute {}", self.0),
        }
    }
}

/// What is wrong with one path attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeFault {
    #[error("its flags say that it is well-known, but crier does not know it")]
    Unrecognised,
    #[error("it occurs twice")]
    Repeated,
    #[error("its flags {0:#04x} are wrong")]
    Flags(u8),
    #[error("its length of {0} octets is wrong")]
    Length(usize),
    #[error("its value {0} is not valid")]
    Origin(u8),
    #[error("{0} is not a valid next hop")]
    NextHop(NextHop),
    #[error(transparent)]
    AsPath(#[from] AsPathFault),
    #[error(transparent)]
    Multiprotocol(#[from] MultiprotocolFault),
    #[error("it holds AS 0 (RFC 7607)")]
    AsnZero,
    #[error("it is not valid in this kind of session")]
    OutOfPlace,
}

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED_LENGTH: u8 = 0x10;

pub(super) const WELL_KNOWN: u8 = TRANSITIVE;
pub(super) const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;

/// What RFC 7606 §7 (and the later RFCs that follow it) says about one attribute.
pub(super) struct Rule {
    code: AttributeCode,
    name: &'static str,
    /// The Optional and Transitive bits it must have.
    pub(super) flags: u8,
    pub(super) length: Length,
    /// What to do if its length or its value is wrong.
    pub(super) malformed: Treatment,
    pub(super) heard: Heard,
}

pub(super) enum Length {
    Exactly(usize),
    /// At least one element of this many octets.
    MultipleOf(usize),
    /// An AS number of the session's width and an IPv4 address.
    AsnAndAddress,
    /// The value delimits itself.
    Any,
}

/// On which sessions the attribute is valid; on others it is left out (RFC 7606 §7.5, §7.9, §7.10; RFC 6793 §4.1).
#[derive(PartialEq, Eq)]
pub(super) enum Heard {
    Everywhere,
    Internal,
    FromTwoOctetPeers,
}

#[rustfmt::skip]
const RULES: [Rule; 18] = {
    use AttributeCode as Code;
    use Heard::{Everywhere, FromTwoOctetPeers, Internal};
    use Length::{Any, AsnAndAddress, Exactly, MultipleOf};
    use Treatment::{DiscardAttribute as Discard, WithdrawAll as Withdraw};

    const fn rule(
        code: Code, name: &'static str, flags: u8, length: Length, malformed: Treatment, heard: Heard,
    ) -> Rule {
        Rule { code, name, flags, length, malformed, heard }
    }

    [
        rule(Code::ORIGIN, "ORIGIN", WELL_KNOWN, Exactly(1), Withdraw, Everywhere),                                  // 7606 §7.1
        rule(Code::AS_PATH, "AS_PATH", WELL_KNOWN, Any, Withdraw, Everywhere),                                       // §7.2
        rule(Code::NEXT_HOP, "NEXT_HOP", WELL_KNOWN, Exactly(4), Withdraw, Everywhere),                              // §7.3
        rule(Code::MED, "MULTI_EXIT_DISC", OPTIONAL, Exactly(4), Withdraw, Everywhere),                              // §7.4
        rule(Code::LOCAL_PREF, "LOCAL_PREF", WELL_KNOWN, Exactly(4), Withdraw, Internal),                            // §7.5
        rule(Code::ATOMIC_AGGREGATE, "ATOMIC_AGGREGATE", WELL_KNOWN, Exactly(0), Discard, Everywhere),               // §7.6
        rule(Code::AGGREGATOR, "AGGREGATOR", OPTIONAL_TRANSITIVE, AsnAndAddress, Discard, Everywhere),               // §7.7
        rule(Code::COMMUNITIES, "COMMUNITIES", OPTIONAL_TRANSITIVE, MultipleOf(4), Withdraw, Everywhere),            // §7.8
        rule(Code::ORIGINATOR_ID, "ORIGINATOR_ID", OPTIONAL, Exactly(4), Withdraw, Internal),                        // §7.9
        rule(Code::CLUSTER_LIST, "CLUSTER_LIST", OPTIONAL, MultipleOf(4), Withdraw, Internal),                       // §7.10
        // If these two are malformed, the session ends before this table is used (§7.11, §7.12).
        rule(Code::MP_REACH_NLRI, "MP_REACH_NLRI", OPTIONAL, Any, Withdraw, Everywhere),
        rule(Code::MP_UNREACH_NLRI, "MP_UNREACH_NLRI", OPTIONAL, Any, Withdraw, Everywhere),
        rule(Code::EXTENDED_COMMUNITIES, "EXTENDED_COMMUNITIES", OPTIONAL_TRANSITIVE, MultipleOf(8), Withdraw, Everywhere), // §7.14
        rule(Code::AS4_PATH, "AS4_PATH", OPTIONAL_TRANSITIVE, Any, Discard, FromTwoOctetPeers),                      // 6793 §6
        rule(Code::AS4_AGGREGATOR, "AS4_AGGREGATOR", OPTIONAL_TRANSITIVE, Exactly(8), Discard, FromTwoOctetPeers),   // 6793 §6
        rule(Code::IPV6_EXTENDED_COMMUNITIES, "IPV6_EXTENDED_COMMUNITIES", OPTIONAL_TRANSITIVE, MultipleOf(20), Withdraw, Everywhere), // 7606 §7.15
        rule(Code::LARGE_COMMUNITIES, "LARGE_COMMUNITIES", OPTIONAL_TRANSITIVE, MultipleOf(12), Withdraw, Everywhere), // 8092 §6
        rule(Code::OTC, "ONLY_TO_CUSTOMER", OPTIONAL_TRANSITIVE, Exactly(4), Withdraw, Everywhere),                  // 9234 §5
    ]
};

impl Origin {
    fn code(self) -> u8 {
        match self {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Origin> {
        [Origin::Igp, Origin::Egp, Origin::Incomplete].into_iter().find(|origin| origin.code() == code)
    }
}

/// An attribute ready to be written.
struct Ready {
    flags: u8,
    code: AttributeCode,
    value: BytesMut,
}

impl Attributes {
    /// Every attribute that has a value, ascending by code (RFC 4271 §5).
    fn ready(&self, dialect: &Dialect) -> Vec<Ready> {
        let Attributes { origin, as_path, next_hop, med, local_preference, communities, unknown } = self;
        let mut all = Vec::new();
        let mut push = |flags, code, value: &[u8]| all.push(Ready { flags, code, value: value.into() });
        if let Some(origin) = origin {
            push(WELL_KNOWN, AttributeCode::ORIGIN, &[origin.code()]);
        }
        if let Some(path) = as_path {
            let width = dialect.asn_width();
            push(WELL_KNOWN, AttributeCode::AS_PATH, &as_path::emit(path, width));
            // RFC 6793 §4.2.2
            if width == AsnWidth::Two && as_path::needs_four_octets(path) {
                push(OPTIONAL_TRANSITIVE, AttributeCode::AS4_PATH, &as_path::emit(path, AsnWidth::Four));
            }
        }
        if let Some(next_hop) = next_hop {
            push(WELL_KNOWN, AttributeCode::NEXT_HOP, &next_hop.octets());
        }
        if let Some(med) = med {
            push(OPTIONAL, AttributeCode::MED, &med.to_be_bytes());
        }
        if let Some(preference) = local_preference {
            push(WELL_KNOWN, AttributeCode::LOCAL_PREF, &preference.to_be_bytes());
        }
        let (mut standard, mut large, mut extended) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        for community in communities {
            match community {
                Community::Standard(value) => standard.put_u32(*value),
                Community::Large { global, local1, local2 } => {
                    [global, local1, local2].into_iter().for_each(|part| large.put_u32(*part));
                }
                Community::Extended(value) => extended.put_u64(*value),
            }
        }
        for (code, value) in [
            (AttributeCode::COMMUNITIES, standard),
            (AttributeCode::LARGE_COMMUNITIES, large),
            (AttributeCode::EXTENDED_COMMUNITIES, extended),
        ] {
            if !value.is_empty() {
                push(OPTIONAL_TRANSITIVE, code, &value);
            }
        }
        for UnknownAttribute { code, value } in unknown {
            push(OPTIONAL_TRANSITIVE | PARTIAL, *code, value);
        }
        all.sort_by_key(|ready| ready.code);
        all
    }

    /// How many octets [`Attributes::emit`] appends.
    pub(super) fn emitted_len(&self, dialect: &Dialect) -> usize {
        self.ready(dialect).iter().map(|ready| emitted_len(ready.value.len())).sum()
    }

    pub(super) fn emit(&self, dialect: &Dialect, out: &mut BytesMut) {
        for Ready { flags, code, value } in self.ready(dialect) {
            emit_start(flags, code, value.len(), out);
            out.put_slice(&value);
        }
    }
}

/// The octets of an attribute whose value has this many.
pub(super) fn emitted_len(value_len: usize) -> usize {
    value_len + if value_len > usize::from(u8::MAX) { 4 } else { 3 }
}

/// MP_REACH_NLRI or MP_UNREACH_NLRI up to its value.
pub(super) fn emit_multiprotocol_start(code: AttributeCode, value_len: usize, out: &mut BytesMut) {
    emit_start(OPTIONAL, code, value_len, out);
}

fn emit_start(flags: u8, code: AttributeCode, value_len: usize, out: &mut BytesMut) {
    match u8::try_from(value_len) {
        Ok(length) => {
            out.put_u8(flags);
            out.put_u8(code.0);
            out.put_u8(length);
        }
        Err(_) => {
            out.put_u8(flags | EXTENDED_LENGTH);
            out.put_u8(code.0);
            out.put_u16(length16(value_len));
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Igp => "IGP",
            Origin::Egp => "EGP",
            Origin::Incomplete => "incomplete",
        })
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Attributes { origin, as_path, next_hop, med, local_preference, communities, unknown } = self;
        if let Some(origin) = origin {
            write!(f, " origin {origin}")?;
        }
        if let Some(path) = as_path {
            f.write_str(" path [")?;
            for (place, segment) in path.iter().enumerate() {
                write!(f, "{}{segment}", if place == 0 { "" } else { " " })?;
            }
            f.write_str("]")?;
        }
        if let Some(next_hop) = next_hop {
            write!(f, " next hop {next_hop}")?;
        }
        if let Some(med) = med {
            write!(f, " med {med}")?;
        }
        if let Some(preference) = local_preference {
            write!(f, " local preference {preference}")?;
        }
        communities.iter().try_for_each(|community| write!(f, " {community}"))?;
        unknown.iter().try_for_each(|UnknownAttribute { code, value: _ }| write!(f, " {code}"))
    }
}
