//! Reading the attribute list of an UPDATE, and judging each attribute by its row of RFC 7606's table. Floor 1.
//! An error ends the session. Everything less is a complaint, and the strongest complaint decides about the routes.

use std::net::Ipv4Addr;

use nom::Parser;
use nom::combinator::all_consuming;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32, be_u64};

use super::attribute::{EXTENDED_LENGTH, Heard, Length, OPTIONAL, OPTIONAL_TRANSITIVE, TRANSITIVE, WELL_KNOWN};
use super::dialect::AsnWidth;
use super::multiprotocol::{Negotiated, is_host};
use super::treatment::Treatment;
use super::update_fault::{Complaint, UpdateFault};
use super::{
    AS_TRANS, AsPathFault, AsPathSegment, AttributeCode, AttributeFault, Attributes, Dialect, MpReach, MpUnreach,
    MultiprotocolFault, NextHop, Origin, UnknownAttribute, as_path, length8,
};
use crate::community::Community;

/// One attribute as it was received.
struct RawAttribute<'a> {
    flags: u8,
    code: AttributeCode,
    value: &'a [u8],
    /// The whole attribute, for a NOTIFICATION.
    octets: &'a [u8],
}

impl<'a> RawAttribute<'a> {
    /// `None`: the attribute is longer than the rest of the list.
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
    /// Every code in the list, whether or not its attribute could be read.
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

    /// Whether this is the only attribute.
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
        // RFC 7606 §3(c): the other bits are ignored.
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
        // RFC 4271 §6.3: every speaker must know all well-known attributes.
        if raw.flags & OPTIONAL == 0 {
            return Err(raw.fault(AttributeFault::Unrecognised));
        }
        // RFC 4271 §9: non-transitive ones are dropped silently.
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
            AttributeCode::EXTENDED_COMMUNITIES => {
                let extended = be_u64::<_, ()>.map(Community::Extended);
                let communities = all_consuming(many0(extended)).parse(value);
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
            // The table has checked it. A speaker that only announces has no use for the value.
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

    /// RFC 7606 §4: the rest of the list is shorter than its next attribute claims.
    fn overrun(&mut self, rest: &[u8]) -> Result<(), UpdateFault> {
        let fault = UpdateFault::AttributeOverrun { octets: rest.to_vec() };
        match rest.get(1).copied().map(AttributeCode) {
            // RFC 7606 §3(j): its routes cannot be found, so they cannot be withdrawn.
            Some(code) if code.holds_routes() => {
                let fault = MultiprotocolFault::Truncated(rest.len()).into();
                Err(UpdateFault::Attribute { code, fault, octets: rest.to_vec() })
            }
            code => {
                // An attribute without a code is still one that could not be read; 0 is reserved.
                self.seen.push(code.unwrap_or(AttributeCode(0)));
                self.complain(fault, Treatment::WithdrawAll);
                Ok(())
            }
        }
    }

    /// What can be judged only once all attributes are read.
    fn settle(&mut self) {
        let attributes = &mut self.attributes;
        // RFC 8092 §2, RFC 1997: communities are a set; duplicates count once.
        attributes.communities.sort_unstable();
        attributes.communities.dedup();
        attributes.unknown.sort_by_key(|unknown| unknown.code);
        // RFC 6793 §4.2.3: a two-octet AS has aggregated since AS4_PATH was written, so AS4_PATH is out of date.
        let out_of_date = self.aggregator_asn.is_some_and(|asn| asn != u32::from(AS_TRANS));
        if let Some(as4_path) = self.as4_path.take()
            && let Some(path) = attributes.as_path.take()
        {
            attributes.as_path = Some(if out_of_date { path } else { as_path::merge(path, as4_path) });
        }
    }

    /// Checks that apply only if there are routes: RFC 7606 §3(d), RFC 4271 §6.3.
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
        // RFC 9774 §3: treat-as-withdraw. Checked after parsing, because a set in AS4_PATH counts like one in AS_PATH.
        let has_set = self.attributes.as_path.iter().flatten().any(|segment| segment.set);
        let set = has_set.then_some(AsPathFault::Set);
        for fault in set.into_iter().chain(self.first_asn_fault()) {
            self.complain_again(AttributeCode::AS_PATH, fault.into(), Vec::new());
        }
    }

    /// A fault of an attribute that was read earlier, and whose flags were right.
    fn complain_again(&mut self, code: AttributeCode, fault: AttributeFault, value: Vec<u8>) {
        let mut octets = vec![WELL_KNOWN, code.0, length8(value.len())];
        octets.extend(value);
        self.complain(UpdateFault::Attribute { code, fault, octets }, Treatment::WithdrawAll);
    }

    fn first_asn_fault(&self) -> Option<AsPathFault> {
        let Dialect { internal, first_asn_is_peer, peer_asn: peer, .. } = *self.dialect;
        let path = self.attributes.as_path.as_ref().filter(|_| !internal && first_asn_is_peer)?;
        let first = path.first();
        // A number that does not fit is AS_TRANS, as for a two-octet speaker.
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
