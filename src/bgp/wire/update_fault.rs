//! What can be wrong in an UPDATE, and the NOTIFICATION for it (RFC 4271 §6.3). Floor 1. How much of the UPDATE is used
//! all the same is a `Treatment`.

use std::fmt;

use ipnet::IpNet;

use super::treatment::Treatment;
use super::{
    AfiSafi, AsPathFault, AttributeCode, AttributeFault, Notification, NotificationReason, PrefixFault, UpdateError,
};

/// Something wrong in an UPDATE, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub fault: UpdateFault,
    pub treatment: Treatment,
}

/// What can be wrong in an UPDATE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateFault {
    #[error("the withdrawn routes claim a length of {claimed} octets, but {present} follow")]
    WithdrawnLength { claimed: usize, present: usize },
    #[error("the path attributes claim a length of {claimed} octets, but {present} follow")]
    AttributesLength { claimed: usize, present: usize },
    #[error("in the withdrawn routes: {0}")]
    WithdrawnPrefix(PrefixFault),
    #[error("in the announced routes: {0}")]
    AnnouncedPrefix(PrefixFault),
    #[error("the last attribute is longer than the rest of the list: {octets:02x?}")]
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

impl Complaint {
    /// Whether the UPDATE breaks the protocol. Otherwise it holds a valid route that is refused for its path: a path through a
    /// confederation, one with a set, or one that does not begin with the AS number of the peer.
    pub fn is_malformed(&self) -> bool {
        match &self.fault {
            UpdateFault::Attribute { fault: AttributeFault::AsPath(fault), .. } => match fault {
                AsPathFault::Confederation(_) | AsPathFault::Set | AsPathFault::FirstAsn { .. } => false,
                AsPathFault::SegmentType(_)
                | AsPathFault::EmptySegment
                | AsPathFault::Truncated
                | AsPathFault::AsnZero => true,
            },
            UpdateFault::Attribute {
                fault:
                    AttributeFault::Repeated
                    | AttributeFault::Unrecognised
                    | AttributeFault::Flags(_)
                    | AttributeFault::Length(_)
                    | AttributeFault::Origin(_)
                    | AttributeFault::NextHop(_)
                    | AttributeFault::Multiprotocol(_)
                    | AttributeFault::AsnZero
                    | AttributeFault::OutOfPlace,
                ..
            }
            | UpdateFault::WithdrawnLength { .. }
            | UpdateFault::AttributesLength { .. }
            | UpdateFault::WithdrawnPrefix(_)
            | UpdateFault::AnnouncedPrefix(_)
            | UpdateFault::AttributeOverrun { .. }
            | UpdateFault::Missing(_)
            | UpdateFault::MulticastPrefix(_)
            | UpdateFault::NotNegotiated(_) => true,
        }
    }
}

impl UpdateFault {
    /// Whether the routes of a multiprotocol attribute cannot be located while the rest of the message can be read: RFC 7606 §2
    /// lets the session stay without the family.
    pub fn is_unlocatable(&self) -> bool {
        match self {
            UpdateFault::Attribute { fault: AttributeFault::Multiprotocol(_), .. } => true,
            UpdateFault::Attribute { .. }
            | UpdateFault::WithdrawnLength { .. }
            | UpdateFault::AttributesLength { .. }
            | UpdateFault::WithdrawnPrefix(_)
            | UpdateFault::AnnouncedPrefix(_)
            | UpdateFault::AttributeOverrun { .. }
            | UpdateFault::Missing(_)
            | UpdateFault::MulticastPrefix(_)
            | UpdateFault::NotNegotiated(_) => false,
        }
    }

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

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fault, self.treatment)
    }
}
