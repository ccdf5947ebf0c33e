//! Path attributes: what is said about all routes of an UPDATE, and RFC 7606's table of what to do where it is wrong.
//! Floor 1. The multiprotocol attributes, which hold routes, are read here and described in their own file.

use std::fmt;
use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::combinator::all_consuming;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::dialect::AsnWidth;
use super::multiprotocol::{Negotiated, is_host};
use super::update::{Complaint, Treatment, UpdateFault};
use super::{
    AS_TRANS, AsPathFault, AsPathSegment, Dialect, MpReach, MpUnreach, MultiprotocolFault, NextHop, as_path, length8,
    length16,
};
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
    /// COMMUNITIES and LARGE_COMMUNITIES together; sorted and without repetition once parsed.
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

/// The type code of a path attribute. Prints its name in the IANA registry where crier knows it.
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

    /// It holds routes, so that losing it means not knowing which.
    fn holds_routes(self) -> bool {
        matches!(self, AttributeCode::MP_REACH_NLRI | AttributeCode::MP_UNREACH_NLRI)
    }

    fn rule(self) -> Option<&'static Rule> {
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
    #[error("it is well-known by its flags, and nobody knows it")]
    Unrecognised,
    #[error("it is there twice")]
    Repeated,
    #[error("it has the flags {0:#04x}")]
    Flags(u8),
    #[error("it is {0} octets long")]
    Length(usize),
    #[error("its value is {0}")]
    Origin(u8),
    #[error("{0} is no address to send to")]
    NextHop(NextHop),
    #[error(transparent)]
    AsPath(#[from] AsPathFault),
    #[error(transparent)]
    Multiprotocol(#[from] MultiprotocolFault),
    #[error("AS 0 in it (RFC 7607)")]
    AsnZero,
    #[error("it does not belong on this kind of session")]
    OutOfPlace,
}

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const PARTIAL: u8 = 0x20;
const EXTENDED_LENGTH: u8 = 0x10;

const WELL_KNOWN: u8 = TRANSITIVE;
const OPTIONAL_TRANSITIVE: u8 = OPTIONAL | TRANSITIVE;

/// What RFC 7606 §7 (and the later RFCs that follow it) says about one attribute.
struct Rule {
    code: AttributeCode,
    name: &'static str,
    /// The Optional and Transitive bits it must have.
    flags: u8,
    length: Length,
    /// What to do where its length or its value is wrong.
    malformed: Treatment,
    heard: Heard,
}

enum Length {
    Exactly(usize),
    /// At least one of so many octets.
    MultipleOf(usize),
    /// An AS number of the session's width and an IPv4 address.
    AsnAndAddress,
    /// The value says it itself.
    Any,
}

/// On which sessions the attribute means something; on others it is left out (RFC 7606 §7.5, §7.9, §7.10; RFC 6793 §4.1).
#[derive(PartialEq, Eq)]
enum Heard {
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
        // Malformed, these two end the session before this table is asked (§7.11, §7.12).
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

/// One attribute as it stands in the octets.
struct RawAttribute<'a> {
    flags: u8,
    code: AttributeCode,
    value: &'a [u8],
    /// All of it, for a NOTIFICATION.
    octets: &'a [u8],
}

impl<'a> RawAttribute<'a> {
    /// `None`: the attribute is longer than what is left of the list.
    fn parse(list: &'a [u8]) -> Option<(&'a [u8], RawAttribute<'a>)> {
        let (rest, (flags, code)) = (be_u8::<_, ()>, be_u8).parse(list).ok()?;
        let value = if flags & EXTENDED_LENGTH == 0 {
            length_data(be_u8::<_, ()>).parse(rest)
        } else {
            length_data(be_u16).parse(rest)
        };
        let (rest, value) = value.ok()?;
        let octets = list.get(..list.len() - rest.len())?;
        Some((rest, RawAttribute { flags, code: AttributeCode(code), value, octets }))
    }

    fn fault(&self, fault: AttributeFault) -> UpdateFault {
        UpdateFault::Attribute { code: self.code, fault, octets: self.octets.to_vec() }
    }
}

/// The attribute list of one UPDATE, read as far as it can be.
pub(super) struct AttributeList<'d> {
    dialect: &'d Dialect,
    pub(super) attributes: Attributes,
    pub(super) mp_reach: Option<MpReach>,
    pub(super) mp_unreach: Option<MpUnreach>,
    pub(super) complaints: Vec<Complaint>,
    /// Every code that was there, readable or not.
    seen: Vec<AttributeCode>,
    as4_path: Option<Vec<AsPathSegment>>,
    aggregator_asn: Option<u32>,
}

impl<'d> AttributeList<'d> {
    /// An error ends the session; everything less is a complaint.
    pub(super) fn parse(list: &[u8], dialect: &'d Dialect) -> Result<AttributeList<'d>, UpdateFault> {
        let mut read = AttributeList {
            dialect,
            attributes: Attributes::default(),
            mp_reach: None,
            mp_unreach: None,
            complaints: Vec::new(),
            seen: Vec::new(),
            as4_path: None,
            aggregator_asn: None,
        };
        let mut rest = list;
        while !rest.is_empty() {
            let Some((next, attribute)) = RawAttribute::parse(rest) else {
                read.overrun(rest)?;
                break;
            };
            read.attribute(&attribute)?;
            rest = next;
        }
        read.settle();
        Ok(read)
    }

    pub(super) fn has(&self, code: AttributeCode) -> bool {
        self.seen.contains(&code)
    }

    /// The only attribute is this one.
    pub(super) fn has_only(&self, code: AttributeCode) -> bool {
        self.seen == [code]
    }

    pub(super) fn complain(&mut self, fault: UpdateFault, treatment: Treatment) {
        self.complaints.push(Complaint { fault, treatment });
    }

    fn attribute(&mut self, raw: &RawAttribute<'_>) -> Result<(), UpdateFault> {
        if self.has(raw.code) {
            // RFC 7606 §3(g)
            if raw.code.holds_routes() {
                return Err(raw.fault(AttributeFault::Repeated));
            }
            self.complain(raw.fault(AttributeFault::Repeated), Treatment::DiscardAttribute);
            return Ok(());
        }
        self.seen.push(raw.code);
        let Some(rule) = raw.code.rule() else {
            return self.unknown(raw);
        };
        // RFC 7606 §3(c): the other bits are not looked at.
        let flags_are_right = raw.flags & OPTIONAL_TRANSITIVE == rule.flags;
        if !flags_are_right {
            self.complain(raw.fault(AttributeFault::Flags(raw.flags)), Treatment::WithdrawAll);
            // RFC 7606 §3(j): the routes to withdraw must still be found.
            if !raw.code.holds_routes() {
                return Ok(());
            }
        }
        let out_of_place = match rule.heard {
            Heard::Everywhere => false,
            Heard::Internal => !self.dialect.internal,
            Heard::FromTwoOctetPeers => self.dialect.four_octet_asn,
        };
        if out_of_place {
            self.complain(raw.fault(AttributeFault::OutOfPlace), Treatment::DiscardAttribute);
            return Ok(());
        }
        let len = raw.value.len();
        let length_is_right = match rule.length {
            Length::Exactly(exactly) => len == exactly,
            Length::MultipleOf(octets) => len > 0 && len.is_multiple_of(octets),
            Length::AsnAndAddress => len == self.dialect.asn_width().octets() + 4,
            Length::Any => true,
        };
        if !length_is_right {
            self.complain(raw.fault(AttributeFault::Length(len)), rule.malformed);
            return Ok(());
        }
        match self.value(raw) {
            Ok(()) => Ok(()),
            Err(AttributeFault::Multiprotocol(fault)) => Err(raw.fault(fault.into())),
            Err(fault) => {
                self.complain(raw.fault(fault), rule.malformed);
                Ok(())
            }
        }
    }

    fn unknown(&mut self, raw: &RawAttribute<'_>) -> Result<(), UpdateFault> {
        // RFC 4271 §6.3: of the well-known attributes, every speaker must know all.
        if raw.flags & OPTIONAL == 0 {
            return Err(raw.fault(AttributeFault::Unrecognised));
        }
        // RFC 4271 §9: the non-transitive ones are dropped silently.
        if raw.flags & TRANSITIVE != 0 {
            self.attributes.unknown.push(UnknownAttribute { code: raw.code, value: raw.value.to_vec() });
        }
        Ok(())
    }

    /// Reads a value whose length is right.
    fn value(&mut self, raw: &RawAttribute<'_>) -> Result<(), AttributeFault> {
        let value = raw.value;
        let attributes = &mut self.attributes;
        match raw.code {
            AttributeCode::ORIGIN => {
                let code = value.first().copied().unwrap_or(u8::MAX);
                attributes.origin = Some(Origin::from_code(code).ok_or(AttributeFault::Origin(code))?);
            }
            AttributeCode::AS_PATH => {
                attributes.as_path = Some(as_path::parse(value, self.dialect.asn_width())?);
            }
            AttributeCode::AS4_PATH => self.as4_path = Some(as_path::parse(value, AsnWidth::Four)?),
            AttributeCode::NEXT_HOP => attributes.next_hop = four(value).map(Ipv4Addr::from_bits),
            AttributeCode::MED => attributes.med = four(value),
            AttributeCode::LOCAL_PREF => attributes.local_preference = four(value),
            AttributeCode::AGGREGATOR => {
                let asn = match self.dialect.asn_width() {
                    AsnWidth::Two => be_u16::<_, ()>.map(u32::from).parse(value),
                    AsnWidth::Four => be_u32(value),
                };
                self.aggregator_asn = Some(nonzero(asn.map_or(0, |(_, asn)| asn))?);
            }
            AttributeCode::AS4_AGGREGATOR => {
                nonzero(be_u32::<_, ()>(value).map_or(0, |(_, asn)| asn))?;
            }
            AttributeCode::COMMUNITIES => {
                let standard = be_u32::<_, ()>.map(Community::Standard);
                let communities = all_consuming(many0(standard)).parse(value);
                attributes.communities.extend(communities.into_iter().flat_map(|(_, all)| all));
            }
            AttributeCode::LARGE_COMMUNITIES => {
                let large = (be_u32::<_, ()>, be_u32, be_u32).map(|(global, local1, local2)| Community::Large {
                    global,
                    local1,
                    local2,
                });
                let communities = all_consuming(many0(large)).parse(value);
                attributes.communities.extend(communities.into_iter().flat_map(|(_, all)| all));
            }
            AttributeCode::MP_REACH_NLRI => match MpReach::parse(value, self.dialect)? {
                Negotiated::Yes(reach) => self.reach(raw, reach),
                Negotiated::No(family) => {
                    self.complain(UpdateFault::NotNegotiated(family), Treatment::IgnoreRoutes);
                }
            },
            AttributeCode::MP_UNREACH_NLRI => match MpUnreach::parse(value, self.dialect)? {
                Negotiated::Yes(unreach) => self.mp_unreach = Some(unreach),
                Negotiated::No(family) => {
                    self.complain(UpdateFault::NotNegotiated(family), Treatment::IgnoreRoutes);
                }
            },
            // Checked by the table, and of no use to a speaker that only announces.
            _ => {}
        }
        Ok(())
    }

    fn reach(&mut self, raw: &RawAttribute<'_>, reach: MpReach) {
        if !reach.next_hop.is_usable(reach.family, self.dialect) {
            self.complain(raw.fault(AttributeFault::NextHop(reach.next_hop)), Treatment::WithdrawAll);
        }
        self.mp_reach = Some(reach);
    }

    /// RFC 7606 §4: what is left of the list is shorter than its next attribute says.
    fn overrun(&mut self, rest: &[u8]) -> Result<(), UpdateFault> {
        let fault = UpdateFault::AttributeOverrun { octets: rest.to_vec() };
        match rest.get(1).copied().map(AttributeCode) {
            // RFC 7606 §3(j): its routes cannot be found, so they cannot be withdrawn.
            Some(code) if code.holds_routes() => {
                let fault = MultiprotocolFault::Truncated(rest.len()).into();
                Err(UpdateFault::Attribute { code, fault, octets: rest.to_vec() })
            }
            code => {
                // Without a code it was still an attribute that nobody could read; 0 is reserved.
                self.seen.push(code.unwrap_or(AttributeCode(0)));
                self.complain(fault, Treatment::WithdrawAll);
                Ok(())
            }
        }
    }

    /// What can only be said once all attributes are read.
    fn settle(&mut self) {
        let attributes = &mut self.attributes;
        // RFC 8092 §2, RFC 1997: a set; a community that is there twice is there once.
        attributes.communities.sort_unstable();
        attributes.communities.dedup();
        attributes.unknown.sort_by_key(|unknown| unknown.code);
        // RFC 6793 §4.2.3: a two-octet AS has aggregated after AS4_PATH was written, so it is out of date.
        let out_of_date = self.aggregator_asn.is_some_and(|asn| asn != u32::from(AS_TRANS));
        if let Some(as4_path) = self.as4_path.take()
            && let Some(path) = attributes.as_path.take()
        {
            attributes.as_path = Some(if out_of_date { path } else { as_path::merge(path, as4_path) });
        }
    }

    /// Checks that need to know that there are routes: RFC 7606 §3(d), RFC 4271 §6.3.
    pub(super) fn check_for_routes(&mut self, next_hop_needed: bool) {
        let mandatory = [AttributeCode::ORIGIN, AttributeCode::AS_PATH];
        let next_hop = next_hop_needed.then_some(AttributeCode::NEXT_HOP);
        for code in mandatory.into_iter().chain(next_hop) {
            if !self.has(code) {
                self.complain(UpdateFault::Missing(code), Treatment::WithdrawAll);
            }
        }
        if let Some(next_hop) = self.attributes.next_hop
            && next_hop_needed
            && !is_host(next_hop)
        {
            let fault = AttributeFault::NextHop(NextHop::V4(next_hop));
            self.complain_again(AttributeCode::NEXT_HOP, fault, next_hop.octets().to_vec());
        }
        if let Some(first) = self.first_asn_fault() {
            self.complain_again(AttributeCode::AS_PATH, first.into(), Vec::new());
        }
    }

    /// Of an attribute that was read long ago, and whose flags were right then.
    fn complain_again(&mut self, code: AttributeCode, fault: AttributeFault, value: Vec<u8>) {
        let mut octets = vec![WELL_KNOWN, code.0, length8(value.len())];
        octets.extend(value);
        self.complain(UpdateFault::Attribute { code, fault, octets }, Treatment::WithdrawAll);
    }

    fn first_asn_fault(&self) -> Option<AsPathFault> {
        let Dialect { internal, first_asn_is_peer, peer_asn: peer, .. } = *self.dialect;
        let path = self.attributes.as_path.as_ref().filter(|_| !internal && first_asn_is_peer)?;
        let first = path.first();
        // To a two-octet speaker such as this one might be, a number that does not fit is AS_TRANS.
        let is_peer = |asn: &u32| {
            *asn == peer
                || (!self.dialect.four_octet_asn && u16::try_from(peer).is_err() && *asn == u32::from(AS_TRANS))
        };
        let begins_with_peer = first.is_some_and(|segment| match segment.set {
            true => segment.asns.iter().any(is_peer),
            false => segment.asns.first().is_some_and(is_peer),
        });
        let first = first.and_then(|segment| segment.asns.first().copied());
        (!begins_with_peer).then_some(AsPathFault::FirstAsn { first, peer })
    }
}

fn four(value: &[u8]) -> Option<u32> {
    be_u32::<_, ()>(value).ok().map(|(_, number)| number)
}

/// RFC 7607 §2
fn nonzero(asn: u32) -> Result<u32, AttributeFault> {
    if asn == 0 { Err(AttributeFault::AsnZero) } else { Ok(asn) }
}

impl Origin {
    fn code(self) -> u8 {
        match self {
            Origin::Igp => 0,
            Origin::Egp => 1,
            Origin::Incomplete => 2,
        }
    }

    fn from_code(code: u8) -> Option<Origin> {
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
        let (mut standard, mut large) = (BytesMut::new(), BytesMut::new());
        for community in communities {
            match community {
                Community::Standard(value) => standard.put_u32(*value),
                Community::Large { global, local1, local2 } => {
                    [global, local1, local2].into_iter().for_each(|part| large.put_u32(*part));
                }
            }
        }
        for (code, value) in [(AttributeCode::COMMUNITIES, standard), (AttributeCode::LARGE_COMMUNITIES, large)] {
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

    /// Octets that [`Attributes::emit`] appends.
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

/// Octets of an attribute with a value of so many.
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
