//! UPDATE: routes announced and withdrawn (RFC 4271 §4.3), and how much of a bad one is believed (RFC 7606). Floor 1.

use std::collections::BTreeSet;
use std::fmt;

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::be_u16;

use super::attribute::{self, AttributeList};
use super::{
    AfiSafi, AttributeCode, AttributeFault, Attributes, Dialect, MpReach, MpUnreach, Notification, NotificationReason,
    PrefixFault, UpdateError, length16, prefix,
};
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

/// Something wrong in an UPDATE, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub fault: UpdateFault,
    pub treatment: Treatment,
}

/// What RFC 7606 §2 does short of ending the session, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// The routes in question were left out, the rest stands.
    IgnoreRoutes,
    /// The attribute was left out, the rest stands.
    DiscardAttribute,
    /// No announcement of the UPDATE stands.
    WithdrawAll,
}

/// What can be wrong in an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFault {
    #[error("the withdrawn routes are said to take {claimed} octets, and {present} follow")]
    WithdrawnLength { claimed: usize, present: usize },
    #[error("the path attributes are said to take {claimed} octets, and {present} follow")]
    AttributesLength { claimed: usize, present: usize },
    #[error("in the withdrawn routes: {0}")]
    WithdrawnPrefix(PrefixFault),
    #[error("in the announced routes: {0}")]
    AnnouncedPrefix(PrefixFault),
    #[error("the last attribute is longer than what is left of the list: {octets:02x?}")]
    AttributeOverrun { octets: Vec<u8> },
    #[error("{code}: {fault}")]
    Attribute {
        code: AttributeCode,
        fault: AttributeFault,
        /// The attribute, flags and length included.
        octets: Vec<u8>,
    },
    #[error("routes without {0}")]
    Missing(AttributeCode),
    #[error("a route to the multicast prefix {0}")]
    MulticastPrefix(IpNet),
    #[error("routes of {0}, which this session does not carry")]
    NotNegotiated(AfiSafi),
}

impl UpdateFault {
    pub fn notification(&self) -> Notification {
        let (error, data) = match self {
            UpdateFault::WithdrawnLength { .. }
            | UpdateFault::AttributesLength { .. }
            | UpdateFault::AttributeOverrun { .. } => (UpdateError::MalformedAttributeList, Vec::new()),
            UpdateFault::WithdrawnPrefix(_)
            | UpdateFault::AnnouncedPrefix(_)
            | UpdateFault::MulticastPrefix(_)
            | UpdateFault::NotNegotiated(_) => (UpdateError::InvalidNetworkField, Vec::new()),
            // RFC 4271 §6.3: "the Attribute Type Code of the missing, well-known attribute".
            UpdateFault::Missing(code) => (UpdateError::MissingWellKnownAttribute, vec![code.0]),
            UpdateFault::Attribute { code, fault, octets } => attribute_error(*code, fault, octets),
        };
        Notification { reason: NotificationReason::Update(error), data }
    }
}

/// RFC 4271 §6.3: which error a bad attribute is, and whether it goes along as data.
fn attribute_error(code: AttributeCode, fault: &AttributeFault, octets: &[u8]) -> (UpdateError, Vec<u8>) {
    let error = match fault {
        AttributeFault::Repeated => return (UpdateError::MalformedAttributeList, Vec::new()),
        AttributeFault::AsPath(_) if code == AttributeCode::AS_PATH => {
            return (UpdateError::MalformedAsPath, Vec::new());
        }
        AttributeFault::Unrecognised => UpdateError::UnrecognizedWellKnownAttribute,
        AttributeFault::Flags(_) => UpdateError::AttributeFlags,
        AttributeFault::Length(_) => UpdateError::AttributeLength,
        AttributeFault::Origin(_) => UpdateError::InvalidOrigin,
        AttributeFault::NextHop(_) if code == AttributeCode::NEXT_HOP => UpdateError::InvalidNextHop,
        AttributeFault::NextHop(_)
        | AttributeFault::AsPath(_)
        | AttributeFault::Multiprotocol(_)
        | AttributeFault::AsnZero
        | AttributeFault::OutOfPlace => UpdateError::OptionalAttribute,
    };
    (error, octets.to_vec())
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
        // RFC 7606 §5.2: an error, and no route that could be withdrawn for it: there may have been one.
        if !has_routes && let Some(fault) = take_strongest(&mut list.complaints) {
            return Err(fault);
        }

        let end_of_rib = match &list.mp_unreach {
            _ if is_empty => Some(AfiSafi::IPV4_UNICAST).filter(|family| dialect.negotiated(*family)),
            Some(unreach) if unreach.prefixes.is_empty() && withdrawn.is_empty() => {
                list.has_only(AttributeCode::MP_UNREACH_NLRI).then_some(unreach.family).filter(|_| announced.is_empty())
            }
            Some(_) | None => None,
        };
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

    /// Leaves out the routes that nobody can mean.
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

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Treatment::IgnoreRoutes => "routes ignored",
            Treatment::DiscardAttribute => "attribute discarded",
            Treatment::WithdrawAll => "treated as withdrawn",
        })
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fault, self.treatment)
    }
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
