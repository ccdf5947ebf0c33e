//! OPEN: who a speaker is and what it can do (RFC 4271 §4.2, RFC 5492, RFC 6286, RFC 6793, RFC 7607, RFC 9072). Floor 1.

use std::fmt;
use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::{
    AS_TRANS, AfiSafi, Capability, EmitError, GracefulRestart, Notification, NotificationReason, OpenError, length8,
    length16,
};

/// RFC 4271 §4.2. The version is always 4: any other is a parse error with its own NOTIFICATION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// The two-octet field; `AS_TRANS` if the number does not fit.
    pub asn: u16,
    /// Seconds; 0 or at least 3 once parsed.
    pub hold_time_secs: u16,
    /// Never 0.0.0.0 once parsed.
    pub identifier: Ipv4Addr,
    pub capabilities: Vec<Capability>,
}

/// Why an OPEN is refused. Nothing was changed; the session ends with [`OpenFault::notification`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    #[error("the OPEN ends after {len} octets, within its fixed part")]
    Short { len: usize },
    #[error("the peer speaks BGP version {0}; crier speaks version 4")]
    Version(u8),
    #[error("the peer calls itself AS 0, which is not allowed (RFC 7607)")]
    AsnZero,
    #[error("the peer offers a hold time of {0} s; it must be 0 or at least 3 s")]
    HoldTime(u16),
    #[error("the peer's BGP identifier is 0.0.0.0")]
    IdentifierZero,
    #[error("the optional parameters claim a length of {claimed} octets, but {present} follow")]
    ParametersLength { claimed: usize, present: usize },
    #[error("an optional parameter is longer than the rest of the OPEN: {octets:02x?}")]
    ParameterOverrun { octets: Vec<u8> },
    #[error("the peer sends an optional parameter of type {0}; only capabilities (type 2) are supported")]
    ParameterType(u8),
    #[error("a capability is longer than the rest of its parameter: {octets:02x?}")]
    CapabilityOverrun { octets: Vec<u8> },
    #[error("capability {code} has the value {value:02x?}, which is not valid for that capability")]
    CapabilityValue { code: u8, value: Vec<u8> },
    #[error("the peer is AS {asn}, but {expected} was expected: compare `asn` on both sides")]
    PeerAsn { asn: u32, expected: ExpectedAsn },
    #[error("the peer gives AS {field} in the OPEN but AS {capability} in the 4-octet AS capability")]
    AsnDisagrees { field: u16, capability: u32 },
    #[error("the peer has our own AS {asn} and our own BGP identifier {identifier}: set another router-id on one side")]
    IdentifierIsOurs { asn: u32, identifier: Ipv4Addr },
}

impl OpenFault {
    pub fn notification(&self) -> Notification {
        let (error, data) = match self {
            OpenFault::Short { .. }
            | OpenFault::ParametersLength { .. }
            | OpenFault::ParameterOverrun { .. }
            | OpenFault::CapabilityOverrun { .. }
            // RFC 5492 does not name a subcode. "Unsupported Capability" would mean that one of ours is missing.
            | OpenFault::CapabilityValue { .. } => (OpenError::Unspecific, Vec::new()),
            // RFC 4271 §6.2: "The Data field is a 2-octet unsigned integer, which indicates the largest,
            // locally-supported version number less than the version the remote BGP peer bid".
            OpenFault::Version(_) => (OpenError::UnsupportedVersion, u16::from(VERSION).to_be_bytes().to_vec()),
            OpenFault::AsnZero | OpenFault::PeerAsn { .. } | OpenFault::AsnDisagrees { .. } => {
                (OpenError::BadPeerAs, Vec::new())
            }
            OpenFault::HoldTime(_) => (OpenError::UnacceptableHoldTime, Vec::new()),
            OpenFault::IdentifierZero | OpenFault::IdentifierIsOurs { .. } => (OpenError::BadBgpIdentifier, Vec::new()),
            OpenFault::ParameterType(_) => (OpenError::UnsupportedOptionalParameter, Vec::new()),
        };
        Notification { reason: NotificationReason::Open(error), data }
    }
}

/// Which AS number a peer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedAsn {
    Is(u32),
    /// Any but ours.
    External,
    /// Ours.
    Internal,
}

impl fmt::Display for ExpectedAsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedAsn::Is(asn) => write!(f, "AS {asn}"),
            ExpectedAsn::External => f.write_str("an AS other than ours"),
            ExpectedAsn::Internal => f.write_str("our own AS"),
        }
    }
}

/// What the configuration of a session requires of the peer's OPEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// The AS number that we show this peer.
    pub local_asn: u32,
    pub local_identifier: Ipv4Addr,
    pub peer_asn: ExpectedAsn,
}

const VERSION: u8 = 4;
const FIXED_LEN: usize = 10;
const CAPABILITIES: u8 = 2;
/// RFC 9072 §2: the length, and the type in the place of the first parameter's type.
const EXTENDED: u8 = 255;

impl Open {
    /// The octets after the header.
    pub fn parse(body: &[u8]) -> Result<Open, OpenFault> {
        let mut fixed = (be_u8::<_, ()>, be_u16, be_u16, be_u32, be_u8);
        let Ok((parameters, (version, asn, hold_time_secs, identifier, parameters_len))) = fixed.parse(body) else {
            return Err(OpenFault::Short { len: body.len() });
        };
        // RFC 4271 §6.2, in the order of that section.
        if version != VERSION {
            return Err(OpenFault::Version(version));
        }
        // RFC 7607 §2
        if asn == 0 {
            return Err(OpenFault::AsnZero);
        }
        if matches!(hold_time_secs, 1 | 2) {
            return Err(OpenFault::HoldTime(hold_time_secs));
        }
        // RFC 6286 §2.2: any other value is an identifier, even if it is not a valid address.
        if identifier == 0 {
            return Err(OpenFault::IdentifierZero);
        }
        let capabilities = parse_parameters(parameters_len, parameters)?;
        if capabilities.contains(&Capability::FourOctetAsn(0)) {
            return Err(OpenFault::AsnZero);
        }
        Ok(Open { asn, hold_time_secs, identifier: Ipv4Addr::from_bits(identifier), capabilities })
    }

    /// Checks an OPEN against the configuration, and gives the peer's AS number.
    pub fn acceptable(&self, expectation: &Expectation) -> Result<u32, OpenFault> {
        let Expectation { local_asn, local_identifier, peer_asn: expected } = *expectation;
        if let Some(capability) = self.four_octet_asn()
            && self.asn != AS_TRANS
            && u32::from(self.asn) != capability
        {
            return Err(OpenFault::AsnDisagrees { field: self.asn, capability });
        }
        let asn = self.peer_asn();
        let is_expected = match expected {
            ExpectedAsn::Is(expected) => asn == expected,
            ExpectedAsn::External => asn != local_asn,
            ExpectedAsn::Internal => asn == local_asn,
        };
        // RFC 6793 §9 reserves AS_TRANS: no speaker is AS 23456.
        if !is_expected || asn == u32::from(AS_TRANS) {
            return Err(OpenFault::PeerAsn { asn, expected });
        }
        // RFC 6286 §2.2: a speaker of another AS may have our identifier.
        if asn == local_asn && self.identifier == local_identifier {
            return Err(OpenFault::IdentifierIsOurs { asn, identifier: self.identifier });
        }
        Ok(asn)
    }

    /// The AS number, from the capability if there is one (RFC 6793 §4.1).
    pub fn peer_asn(&self) -> u32 {
        self.four_octet_asn().unwrap_or(u32::from(self.asn))
    }

    /// `None`: AS numbers in AS_PATH have two octets.
    pub fn four_octet_asn(&self) -> Option<u32> {
        self.last(|capability| match capability {
            Capability::FourOctetAsn(asn) => Some(*asn),
            _ => None,
        })
    }

    /// RFC 4760 §8: without any multiprotocol capability, IPv4 unicast is implied.
    pub fn offers(&self, family: AfiSafi) -> bool {
        let mut families = self.capabilities.iter().filter_map(|capability| match capability {
            Capability::Multiprotocol(family) => Some(*family),
            _ => None,
        });
        match families.next() {
            None => family == AfiSafi::IPV4_UNICAST,
            Some(first) => first == family || families.any(|other| other == family),
        }
    }

    /// RFC 2918.
    pub fn offers_route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// RFC 7313.
    pub fn offers_enhanced_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::EnhancedRouteRefresh)
    }

    /// RFC 8654.
    pub fn offers_extended_message(&self) -> bool {
        self.capabilities.contains(&Capability::ExtendedMessage)
    }

    /// RFC 8950 §4: this family may come with an IPv6 next hop.
    pub fn offers_ipv6_next_hop(&self, family: AfiSafi) -> bool {
        let by_ipv6 = (family, AfiSafi::IPV6_UNICAST.afi);
        self.capabilities.iter().any(|capability| match capability {
            Capability::ExtendedNextHop(triples) => triples.contains(&by_ipv6),
            _ => false,
        })
    }

    /// RFC 4724 §3: of several, only the last one counts.
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.last(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }

    fn last<'a, T>(&'a self, pick: impl Fn(&'a Capability) -> Option<T>) -> Option<T> {
        self.capabilities.iter().rev().find_map(pick)
    }

    pub(super) fn check_capabilities(&self) -> Result<(), EmitError> {
        self.capabilities.iter().try_for_each(Capability::check)
    }

    fn capabilities_len(&self) -> usize {
        self.capabilities.iter().map(Capability::emitted_len).sum()
    }

    /// How many octets [`Open::emit`] appends.
    pub fn emitted_len(&self) -> usize {
        FIXED_LEN + Layout::of(self.capabilities_len()).overhead() + self.capabilities_len()
    }

    /// Appends the body, all capabilities in one optional parameter.
    pub(super) fn emit(&self, out: &mut BytesMut) {
        let Open { asn, hold_time_secs, identifier, capabilities } = self;
        out.put_u8(VERSION);
        out.put_u16(*asn);
        out.put_u16(*hold_time_secs);
        out.put_u32(identifier.to_bits());
        let len = self.capabilities_len();
        let layout = Layout::of(len);
        match layout {
            Layout::Empty => out.put_u8(0),
            Layout::Classic => {
                out.put_u8(length8(len + layout.overhead()));
                out.put_u8(CAPABILITIES);
                out.put_u8(length8(len));
            }
            Layout::Extended => {
                out.put_u8(EXTENDED);
                out.put_u8(EXTENDED);
                out.put_u16(length16(len + layout.overhead() - Layout::EXTENDED_PREFIX));
                out.put_u8(CAPABILITIES);
                out.put_u16(length16(len));
            }
        }
        for capability in capabilities {
            capability.emit(out);
        }
    }
}

/// How the optional parameters are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Empty,
    /// RFC 4271 §4.2: lengths of one octet.
    Classic,
    /// RFC 9072 §2: lengths of two octets.
    Extended,
}

impl Layout {
    /// The type 255 and the length of all parameters.
    const EXTENDED_PREFIX: usize = 3;

    fn of(capabilities_len: usize) -> Layout {
        match capabilities_len {
            0 => Layout::Empty,
            // The type and the length of the parameter count too.
            1..=253 => Layout::Classic,
            _ => Layout::Extended,
        }
    }

    /// Octets between the fixed part and the first capability.
    fn overhead(self) -> usize {
        match self {
            Layout::Empty => 0,
            Layout::Classic => 2,
            Layout::Extended => Layout::EXTENDED_PREFIX + 3,
        }
    }
}

fn parse_parameters(claimed: u8, octets: &[u8]) -> Result<Vec<Capability>, OpenFault> {
    let length_fault = |claimed| OpenFault::ParametersLength { claimed, present: octets.len() };
    // RFC 9072 §2: the type 255 alone decides, whatever the length before it is, unless that is 0.
    let extended = claimed != 0 && octets.first() == Some(&EXTENDED);
    let mut rest = if extended {
        let Ok((rest, (_, claimed))) = (be_u8::<_, ()>, be_u16).parse(octets) else {
            return Err(length_fault(usize::from(claimed)));
        };
        if usize::from(claimed) != rest.len() {
            return Err(OpenFault::ParametersLength { claimed: usize::from(claimed), present: rest.len() });
        }
        rest
    } else {
        if usize::from(claimed) != octets.len() {
            return Err(length_fault(usize::from(claimed)));
        }
        octets
    };
    let mut capabilities = Vec::new();
    while !rest.is_empty() {
        let parameter = if extended {
            (be_u8::<_, ()>, length_data(be_u16)).parse(rest)
        } else {
            (be_u8, length_data(be_u8)).parse(rest)
        };
        let Ok((next, (kind, value))) = parameter else {
            return Err(OpenFault::ParameterOverrun { octets: rest.to_vec() });
        };
        if kind != CAPABILITIES {
            return Err(OpenFault::ParameterType(kind));
        }
        capabilities.extend(Capability::parse_all(value)?);
        rest = next;
    }
    Ok(capabilities)
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Open { asn: _, hold_time_secs, identifier, capabilities } = self;
        write!(f, "OPEN AS {} identifier {identifier} hold time {hold_time_secs} s", self.peer_asn())?;
        let mut separator = ", capabilities: ";
        for capability in capabilities {
            write!(f, "{separator}{capability}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Open {
        Open {
            asn: 65002,
            hold_time_secs: 90,
            identifier: Ipv4Addr::new(10, 0, 0, 2),
            capabilities: vec![Capability::Multiprotocol(AfiSafi::IPV4_UNICAST), Capability::FourOctetAsn(65002)],
        }
    }

    fn expectation() -> Expectation {
        Expectation { local_asn: 65001, local_identifier: Ipv4Addr::new(10, 0, 0, 1), peer_asn: ExpectedAsn::Is(65002) }
    }

    fn octets(open: &Open) -> BytesMut {
        let mut octets = BytesMut::new();
        open.emit(&mut octets);
        assert_eq!(octets.len(), open.emitted_len());
        octets
    }

    fn error(fault: &OpenFault) -> NotificationReason {
        fault.notification().reason
    }

    #[test]
    fn an_open_reads_back_what_it_writes() {
        for capabilities in [Vec::new(), open().capabilities] {
            let open = Open { capabilities, ..open() };
            assert_eq!(Open::parse(&octets(&open)), Ok(open));
        }
    }

    #[test]
    fn the_extended_form_begins_where_one_octet_no_longer_counts() {
        let with = |len| Open { capabilities: vec![Capability::Unknown { code: 250, value: vec![7; len] }], ..open() };
        let classic = octets(&with(251));
        assert_eq!((classic[9], classic[10]), (255, CAPABILITIES), "253 octets of capabilities");
        let extended = octets(&with(252));
        assert_eq!((extended[9], extended[10]), (EXTENDED, EXTENDED), "254 octets of capabilities");
        for len in [251, 252, 255] {
            assert_eq!(Open::parse(&octets(&with(len))), Ok(with(len)));
        }
    }

    #[test]
    fn the_extended_form_is_read_whatever_the_length_before_it_says() {
        let mut octets = octets(&Open { capabilities: Vec::new(), ..open() });
        octets[9] = 1;
        octets.extend_from_slice(&[EXTENDED, 0, 9, 2, 0, 6, 1, 4, 0, 2, 0, 1]);
        let read = Open::parse(&octets).expect("RFC 9072 §2");
        assert_eq!(read.capabilities, [Capability::Multiprotocol(AfiSafi::IPV6_UNICAST)]);
        octets[9] = 0;
        assert!(Open::parse(&octets).is_err(), "but 0 means that there are none");
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = octets(&open());
        for len in 0..whole.len() {
            assert!(Open::parse(&whole[..len]).is_err(), "{len} octets");
        }
    }

    #[test]
    fn a_peer_of_another_as_is_refused_by_number() {
        let bad_peer_as = NotificationReason::Open(OpenError::BadPeerAs);
        let expecting = |peer_asn| open().acceptable(&Expectation { peer_asn, ..expectation() });
        assert_eq!(expecting(ExpectedAsn::Is(65002)), Ok(65002));
        assert_eq!(expecting(ExpectedAsn::External), Ok(65002));
        assert_eq!(error(&expecting(ExpectedAsn::Internal).unwrap_err()), bad_peer_as);
        let refusal = expecting(ExpectedAsn::Is(65003)).unwrap_err();
        assert!(refusal.to_string().contains("AS 65002") && refusal.to_string().contains("AS 65003"), "{refusal}");
    }

    #[test]
    fn a_four_octet_number_stands_behind_as_trans() {
        let wide = Open { asn: AS_TRANS, capabilities: vec![Capability::FourOctetAsn(4_200_000_000)], ..open() };
        let expecting = |peer_asn| Expectation { peer_asn, ..expectation() };
        assert_eq!(wide.acceptable(&expecting(ExpectedAsn::Is(4_200_000_000))), Ok(4_200_000_000));
        let bare = Open { capabilities: Vec::new(), ..wide.clone() };
        assert!(bare.acceptable(&expecting(ExpectedAsn::External)).is_err(), "nobody is AS 23456");
        let two_numbers = Open { asn: 65003, ..wide };
        assert!(two_numbers.acceptable(&expecting(ExpectedAsn::External)).is_err());
    }

    #[test]
    fn our_identifier_is_refused_only_inside_our_as() {
        let twin = Open { identifier: expectation().local_identifier, ..open() };
        assert_eq!(twin.acceptable(&expectation()), Ok(65002));
        let inside = Expectation { local_asn: 65002, peer_asn: ExpectedAsn::Internal, ..expectation() };
        let refusal = twin.acceptable(&inside).unwrap_err();
        assert_eq!(error(&refusal), NotificationReason::Open(OpenError::BadBgpIdentifier));
    }

    #[test]
    fn ipv4_unicast_goes_without_saying_only_where_nothing_is_said() {
        let silent = Open { capabilities: Vec::new(), ..open() };
        assert!(silent.offers(AfiSafi::IPV4_UNICAST) && !silent.offers(AfiSafi::IPV6_UNICAST));
        let only_v6 = Open { capabilities: vec![Capability::Multiprotocol(AfiSafi::IPV6_UNICAST)], ..open() };
        assert!(!only_v6.offers(AfiSafi::IPV4_UNICAST) && only_v6.offers(AfiSafi::IPV6_UNICAST));
    }
}
