//! UPDATE: routes announced and withdrawn (RFC 4271 §4.3), and how much of a bad one is used (RFC 7606). Floor 1.
//!
//! Routes of a multiprotocol attribute that cannot be located are an [`UpdateFault::is_unlocatable`] here; the session stays,
//! because it keeps none of the received routes.

use std::collections::BTreeSet;
use std::fmt;

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::be_u16;

use super::attribute;
use super::attribute_list::AttributeList;
use super::treatment::Treatment;
use super::update_fault::{Complaint, UpdateFault};
use super::{AfiSafi, AttributeCode, Attributes, Dialect, MpReach, MpUnreach, length16, prefix};
use crate::address::Family;

/// RFC 4271 §4.3 with the multiprotocol attributes of RFC 4760 taken out of the attribute list.
///
/// crier sends one family, and either announcements or withdrawals, in one UPDATE. What it receives may mix all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// IPv4 prefixes of the withdrawn routes field; once parsed, without those that are announced as well.
    pub withdrawn: Vec<IpNet>,
    /// MP_UNREACH_NLRI.
    pub mp_unreach: Option<MpUnreach>,
    pub attributes: Attributes,
    /// MP_REACH_NLRI.
    pub mp_reach: Option<MpReach>,
    /// IPv4 prefixes of the NLRI field.
    pub announced: Vec<IpNet>,
}

/// An UPDATE that the session survives, and what was wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedUpdate {
    pub update: Update,
    /// RFC 7606 §2, treat-as-withdraw: the prefixes that `update` announces are withdrawn, like those it withdraws.
    pub withdraw_all: bool,
    pub complaints: Vec<Complaint>,
    /// RFC 4724 §2: the peer has sent all it had of this family, which the session carries.
    pub end_of_rib: Option<AfiSafi>,
}

impl Update {
    /// The octets behind the header.
    ///
    /// RFC 7606 §3(h): of all that is wrong, the strongest treatment wins. What ends the session is the error, all else
    /// stands in the complaints.
    pub fn parse(body: &[u8], dialect: &Dialect) -> Result<ParsedUpdate, UpdateFault> {
        let (rest, withdrawn) =
            field(body).map_err(|Overrun { claimed, present }| UpdateFault::WithdrawnLength { claimed, present })?;
        let (announced, list) =
            field(rest).map_err(|Overrun { claimed, present }| UpdateFault::AttributesLength { claimed, present })?;
        let is_empty = withdrawn.is_empty() && list.is_empty() && announced.is_empty();
        // RFC 7606 §5.3: which prefixes are meant must be beyond doubt, so these come first.
        let withdrawn = prefix::parse_all(Family::V4, withdrawn).map_err(UpdateFault::WithdrawnPrefix)?;
        let announced = prefix::parse_all(Family::V4, announced).map_err(UpdateFault::AnnouncedPrefix)?;
        let mut list = AttributeList::parse(list, dialect)?;

        let has_routes = !announced.is_empty() || list.has(AttributeCode::MP_REACH_NLRI);
        if has_routes {
            list.check_for_routes(!announced.is_empty());
        }
        // RFC 7606 §5.2: other attributes, an error, and no route that could be withdrawn for it: "we cannot be confident
        // that the NLRI have been successfully parsed".
        let only_unreach = list.has_only(AttributeCode::MP_UNREACH_NLRI);
        if !has_routes
            && !only_unreach
            && let Some(fault) = take_strongest(&mut list.complaints)
        {
            return Err(fault);
        }

        let ended = match &list.mp_unreach {
            Some(unreach) if only_unreach && unreach.prefixes.is_empty() => Some(unreach.family),
            _ if is_empty => Some(AfiSafi::IPV4_UNICAST),
            _ => None,
        };
        let end_of_rib =
            ended.filter(|family| withdrawn.is_empty() && announced.is_empty() && dialect.negotiated(*family));
        let mut update = Update {
            withdrawn,
            mp_unreach: list.mp_unreach.take(),
            attributes: std::mem::take(&mut list.attributes),
            mp_reach: list.mp_reach.take(),
            announced,
        };
        let mut complaints = list.complaints;
        update.ignore_routes(dialect, &mut complaints);
        update.forget_withdrawals_of_what_is_announced();
        let withdraw_all = complaints.iter().any(|complaint| complaint.treatment == Treatment::WithdrawAll);
        Ok(ParsedUpdate { update, withdraw_all, complaints, end_of_rib })
    }

    /// Leaves out routes that cannot be valid.
    fn ignore_routes(&mut self, dialect: &Dialect, complaints: &mut Vec<Complaint>) {
        let mut ignore = |fault| complaints.push(Complaint { fault, treatment: Treatment::IgnoreRoutes });
        let has_ipv4 = !self.announced.is_empty() || !self.withdrawn.is_empty();
        if has_ipv4 && !dialect.ipv4_unicast {
            ignore(UpdateFault::NotNegotiated(AfiSafi::IPV4_UNICAST));
            self.announced.clear();
            self.withdrawn.clear();
        }
        let announced = self.mp_reach.iter_mut().map(|reach| &mut reach.prefixes).chain([&mut self.announced]);
        for prefixes in announced {
            // RFC 4271 §6.3: "If a prefix in the NLRI field is semantically incorrect (e.g., an unexpected multicast IP
            // address), an error SHOULD be logged locally, and the prefix SHOULD be ignored."
            prefixes.retain(|prefix| {
                let multicast = prefix.network().is_multicast();
                if multicast {
                    ignore(UpdateFault::MulticastPrefix(*prefix));
                }
                !multicast
            });
        }
    }

    /// RFC 4271 §4.3: a prefix that stands in both is announced.
    fn forget_withdrawals_of_what_is_announced(&mut self) {
        if self.withdrawn.is_empty() || self.announced.is_empty() {
            return;
        }
        let announced: BTreeSet<_> = self.announced.iter().collect();
        self.withdrawn.retain(|prefix| !announced.contains(prefix));
    }

    /// RFC 4724 §2: tells the peer that it has all routes of this family.
    pub fn end_of_rib(family: AfiSafi) -> Update {
        match family {
            AfiSafi::IPV4_UNICAST => Update::default(),
            family => Update { mp_unreach: Some(MpUnreach { family, prefixes: Vec::new() }), ..Update::default() },
        }
    }

    fn attributes_len(&self, dialect: &Dialect) -> usize {
        let reach = self.mp_reach.as_ref().map_or(0, |reach| attribute::emitted_len(reach.value_len()));
        let unreach = self.mp_unreach.as_ref().map_or(0, |unreach| attribute::emitted_len(unreach.value_len()));
        reach + unreach + self.attributes.emitted_len(dialect)
    }

    /// Octets that [`Update::emit`] appends.
    pub fn emitted_len(&self, dialect: &Dialect) -> usize {
        4 + prefix::emitted_len_all(&self.withdrawn)
            + self.attributes_len(dialect)
            + prefix::emitted_len_all(&self.announced)
    }

    /// Appends the body, which must fit into one message.
    pub(super) fn emit(&self, dialect: &Dialect, out: &mut BytesMut) {
        let Update { withdrawn, mp_unreach, attributes, mp_reach, announced } = self;
        out.put_u16(length16(prefix::emitted_len_all(withdrawn)));
        prefix::emit_all(withdrawn, out);
        out.put_u16(length16(self.attributes_len(dialect)));
        // RFC 7606 §5.1: the routes come first, so that what is wrong behind them cannot hide them.
        if let Some(reach) = mp_reach {
            attribute::emit_multiprotocol_start(AttributeCode::MP_REACH_NLRI, reach.value_len(), out);
            reach.emit(out);
        }
        if let Some(unreach) = mp_unreach {
            attribute::emit_multiprotocol_start(AttributeCode::MP_UNREACH_NLRI, unreach.value_len(), out);
            unreach.emit(out);
        }
        attributes.emit(dialect, out);
        prefix::emit_all(announced, out);
    }
}

/// A field that claims more octets than are there.
struct Overrun {
    claimed: usize,
    present: usize,
}

/// A length of two octets and as many octets; first what is behind the field, as nom has it.
fn field(octets: &[u8]) -> Result<(&[u8], &[u8]), Overrun> {
    let (rest, len) =
        be_u16::<_, ()>(octets).map_err(|_| Overrun { claimed: size_of::<u16>(), present: octets.len() })?;
    let claimed = usize::from(len);
    take::<_, _, ()>(claimed).parse(rest).map_err(|_| Overrun { claimed, present: rest.len() })
}

/// The first fault for which everything would be withdrawn.
fn take_strongest(complaints: &mut Vec<Complaint>) -> Option<UpdateFault> {
    let place = complaints.iter().position(|complaint| complaint.treatment == Treatment::WithdrawAll)?;
    Some(complaints.swap_remove(place).fault)
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Update { withdrawn, mp_unreach, attributes, mp_reach, announced } = self;
        write!(f, "UPDATE{attributes}")?;
        let list = |f: &mut fmt::Formatter<'_>, verb, prefixes: &[IpNet]| {
            if prefixes.is_empty() {
                return Ok(());
            }
            write!(f, " {verb}")?;
            prefixes.iter().try_for_each(|prefix| write!(f, " {prefix}"))
        };
        list(f, "withdraws", withdrawn)?;
        if let Some(MpUnreach { family, prefixes }) = mp_unreach {
            write!(f, " [{family}]")?;
            list(f, "withdraws", prefixes)?;
        }
        if let Some(MpReach { family, next_hop, prefixes }) = mp_reach {
            write!(f, " [{family} next hop {next_hop}]")?;
            list(f, "announces", prefixes)?;
        }
        list(f, "announces", announced)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::bgp::wire::{
        AsPathSegment, EmitError, MAX_EXTENDED_MESSAGE_LEN, Message, NextHop, NotificationReason, Origin, Parsed,
        UnknownAttribute, UpdateError,
    };
    use crate::community::Community;

    fn dialect() -> Dialect {
        Dialect {
            four_octet_asn: true,
            ipv4_unicast: true,
            ipv6_unicast: true,
            peer_asn: 65002,
            ..Dialect::BEFORE_OPEN
        }
    }

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect(text)).collect()
    }

    fn full() -> Update {
        let standard = (0..100).map(Community::Standard);
        let large = Community::Large { global: 65002, local1: 1, local2: 2 };
        Update {
            withdrawn: prefixes(&["198.51.100.0/24"]),
            mp_unreach: Some(MpUnreach { family: AfiSafi::IPV6_UNICAST, prefixes: prefixes(&["2001:db8:2::/48"]) }),
            attributes: Attributes {
                origin: Some(Origin::Incomplete),
                as_path: Some(vec![AsPathSegment { set: false, asns: vec![65002, 4_200_000_000] }]),
                next_hop: Some(Ipv4Addr::new(192, 0, 2, 1)),
                med: Some(10),
                local_preference: Some(200),
                communities: standard.chain([large]).collect(),
                unknown: vec![UnknownAttribute { code: AttributeCode(28), value: vec![7; 300] }],
            },
            mp_reach: Some(MpReach {
                family: AfiSafi::IPV6_UNICAST,
                next_hop: NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: "fe80::1".parse().ok() },
                prefixes: prefixes(&["2001:db8:1::/48", "::/0"]),
            }),
            announced: prefixes(&["203.0.113.0/24", "0.0.0.0/0"]),
        }
    }

    fn body(update: &Update, dialect: &Dialect) -> BytesMut {
        let mut octets = BytesMut::new();
        update.emit(dialect, &mut octets);
        assert_eq!(octets.len(), update.emitted_len(dialect));
        octets
    }

    /// An UPDATE with these attributes and this NLRI.
    fn octets(list: &[u8], announced: &[u8]) -> Vec<u8> {
        let len = u16::try_from(list.len()).unwrap().to_be_bytes();
        [&[0, 0], &len[..], list, announced].concat()
    }

    /// ORIGIN, AS_PATH from 65002, NEXT_HOP.
    const GOOD: [u8; 20] = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2];
    const SITE: [u8; 4] = [24, 203, 0, 113];

    #[test]
    fn an_update_with_everything_reads_back_what_it_writes() {
        for four_octet_asn in [true, false] {
            let dialect = Dialect { four_octet_asn, internal: true, ..dialect() };
            let read = Update::parse(&body(&full(), &dialect), &dialect).expect("own octets are readable");
            assert_eq!(read.complaints, []);
            assert_eq!(read.update, full(), "four-octet AS numbers: {four_octet_asn}");
        }
    }

    #[test]
    fn an_update_that_is_too_long_is_not_written_at_all() {
        let update = Update { announced: prefixes(&["203.0.113.7/32"; 1_000]), ..Update::default() };
        let mut out = BytesMut::from("before");
        let len = 23 + 5_000;
        let too_long = EmitError::MessageTooLong { kind: crate::bgp::wire::MessageKind::Update, len, max: 4096 };
        let message = Message::Update(update);
        assert_eq!(message.emit(&dialect(), &mut out), Err(too_long));
        assert_eq!(&out[..], b"before");
        let extended = Dialect { max_message_len: MAX_EXTENDED_MESSAGE_LEN, ..dialect() };
        assert_eq!(message.emit(&extended, &mut out), Ok(()));
        assert!(matches!(Message::parse(&out[6..], &extended), Ok(Parsed::Update(_))));
    }

    #[test]
    fn end_of_rib_is_told_only_for_a_family_of_the_session() {
        for family in [AfiSafi::IPV4_UNICAST, AfiSafi::IPV6_UNICAST] {
            let octets = body(&Update::end_of_rib(family), &dialect());
            assert_eq!(Update::parse(&octets, &dialect()).unwrap().end_of_rib, Some(family));
            assert_eq!(Update::parse(&octets, &Dialect::BEFORE_OPEN).unwrap().end_of_rib, None);
        }
        let unknown_attribute = octets(&[0x80, 200, 0], &[]);
        assert_eq!(Update::parse(&unknown_attribute, &dialect()).unwrap().end_of_rib, None, "not empty");
    }

    #[test]
    fn wrong_flags_end_the_session_only_where_routes_may_be_lost() {
        let unreach = [0xc0, 15, 3, 0, 2, 1];
        let alone = Update::parse(&octets(&unreach, &[]), &dialect()).expect("RFC 7606 §5.2: nothing can be lost");
        assert!(alone.withdraw_all && alone.complaints.len() == 1);
        let with_origin = [&unreach[..], &[0x40, 1, 1, 0]].concat();
        let fault = Update::parse(&octets(&with_origin, &[]), &dialect()).unwrap_err();
        assert_eq!(fault.notification().reason, NotificationReason::Update(UpdateError::AttributeFlags));
        let stray_octet = [&[0x80, 15, 3, 0, 2, 1], &[0x40][..]].concat();
        assert!(Update::parse(&octets(&stray_octet, &[]), &dialect()).is_err());
    }

    #[test]
    fn routes_of_a_family_that_was_not_negotiated_are_ignored() {
        let only_v6 = Dialect { ipv4_unicast: false, ..dialect() };
        let read = Update::parse(&octets(&GOOD, &SITE), &only_v6).unwrap();
        assert!(read.update.announced.is_empty() && !read.withdraw_all);
        let not_negotiated = UpdateFault::NotNegotiated(AfiSafi::IPV4_UNICAST);
        assert_eq!(read.complaints, [Complaint { fault: not_negotiated, treatment: Treatment::IgnoreRoutes }]);

        // Flow specification, whose routes this file could not even read.
        let flowspec = [&GOOD[..], &[0x80, 14, 9, 0, 1, 133, 0, 0, 3, 1, 0xff, 0xff]].concat();
        let read = Update::parse(&octets(&flowspec, &SITE), &dialect()).unwrap();
        assert_eq!((read.update.mp_reach, read.update.announced), (None, prefixes(&["203.0.113.0/24"])));
        assert_eq!(read.complaints.len(), 1);
    }

    #[test]
    fn an_overrun_of_the_attribute_that_holds_routes_ends_the_session() {
        let fault =
            Update::parse(&octets(&[&GOOD[..], &[0x80, 14, 200, 0, 2]].concat(), &SITE), &dialect()).unwrap_err();
        assert_eq!(fault.notification().reason, NotificationReason::Update(UpdateError::OptionalAttribute));
    }

    #[test]
    fn every_attribute_is_treated_by_its_own_row() {
        let treatment = |dialect: &Dialect, attribute: &[u8]| {
            let read = Update::parse(&octets(&[&GOOD[..], attribute].concat(), &SITE), dialect).expect("it survives");
            assert_eq!(read.update.announced.len(), 1, "the route is there to be withdrawn");
            read.complaints.iter().map(|complaint| complaint.treatment).max()
        };
        let (external, internal) = (dialect(), Dialect { internal: true, ..dialect() });
        let two_octets = Dialect { four_octet_asn: false, internal: true, ..dialect() };
        use Treatment::{DiscardAttribute as Discard, WithdrawAll as Withdraw};
        let rows: [(&str, &Dialect, &[u8], Option<Treatment>); 22] = [
            ("MED of 3 octets", &external, &[0x80, 4, 3, 0, 0, 1], Some(Withdraw)),
            ("LOCAL_PREF from outside", &external, &[0x40, 5, 4, 0, 0, 0, 1], Some(Discard)),
            ("LOCAL_PREF from outside, too short", &external, &[0x40, 5, 1, 0], Some(Discard)),
            ("LOCAL_PREF", &internal, &[0x40, 5, 4, 0, 0, 0, 1], None),
            ("ATOMIC_AGGREGATE", &external, &[0x40, 6, 0], None),
            ("ATOMIC_AGGREGATE with a value", &external, &[0x40, 6, 1, 0], Some(Discard)),
            ("AGGREGATOR", &external, &[0xc0, 7, 8, 0, 0, 0, 1, 1, 2, 3, 4], None),
            ("AGGREGATOR of AS 0", &external, &[0xc0, 7, 8, 0, 0, 0, 0, 1, 2, 3, 4], Some(Discard)),
            ("COMMUNITIES without any", &external, &[0xc0, 8, 0], Some(Withdraw)),
            ("COMMUNITIES of 6 octets", &external, &[0xc0, 8, 6, 0, 0, 0, 0, 0, 0], Some(Withdraw)),
            ("ORIGINATOR_ID from outside", &external, &[0x80, 9, 4, 1, 2, 3, 4], Some(Discard)),
            ("ORIGINATOR_ID of 3 octets", &internal, &[0x80, 9, 3, 1, 2, 3], Some(Withdraw)),
            ("CLUSTER_LIST", &internal, &[0x80, 10, 4, 1, 2, 3, 4], None),
            ("EXTENDED_COMMUNITIES of 8 octets", &external, &[0xc0, 16, 8, 0, 2, 0, 0, 0, 0, 0, 0], None),
            ("AS4_PATH from a four-octet peer", &external, &[0xc0, 17, 0], Some(Discard)),
            ("AS4_AGGREGATOR from a four-octet peer", &external, &[0xc0, 18, 8, 0, 0, 0, 1, 1, 2, 3, 4], Some(Discard)),
            (
                "IPV6_EXTENDED_COMMUNITIES of 8 octets",
                &external,
                &[0xc0, 25, 8, 0, 2, 0, 0, 0, 0, 0, 0],
                Some(Withdraw),
            ),
            (
                "LARGE_COMMUNITIES of 11 octets",
                &external,
                &[0xc0, 32, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                Some(Withdraw),
            ),
            ("ONLY_TO_CUSTOMER of 3 octets", &external, &[0xc0, 35, 3, 0, 0, 1], Some(Withdraw)),
            ("MED twice", &external, &[0x80, 4, 4, 0, 0, 0, 1, 0x80, 4, 4, 0, 0, 0, 2], Some(Discard)),
            ("AS_PATH of four octets from a two-octet peer", &two_octets, &[], Some(Withdraw)),
            ("flags of a well-known attribute on MED", &external, &[0x40, 4, 4, 0, 0, 0, 1], Some(Withdraw)),
        ];
        for (what, dialect, attribute, expected) in rows {
            assert_eq!(treatment(dialect, attribute), expected, "{what}");
        }
    }

    #[test]
    fn of_an_attribute_that_is_there_twice_the_first_counts() {
        let twice = [&GOOD[..], &[0x80, 4, 4, 0, 0, 0, 1, 0x80, 4, 4, 0, 0, 0, 2]].concat();
        assert_eq!(Update::parse(&octets(&twice, &SITE), &dialect()).unwrap().update.attributes.med, Some(1));
    }

    #[test]
    fn an_update_is_shown_in_one_line() {
        let shown = full().to_string();
        assert!(
            shown.starts_with("UPDATE origin incomplete path [65002 4200000000] next hop 192.0.2.1 med 10"),
            "{shown}"
        );
        assert!(shown.ends_with("announces 203.0.113.0/24 0.0.0.0/0"), "{shown}");
    }
}
