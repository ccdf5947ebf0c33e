//! Capabilities: what a speaker can do beyond RFC 4271 (RFC 5492). Floor 1.

use std::fmt;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::combinator::all_consuming;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::{AfiSafi, EmitError, OpenFault, length8};

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
    /// RFC 7313, code 70.
    EnhancedRouteRefresh,
    Unknown {
        code: u8,
        /// At most 255 octets.
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

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_ASN: u8 = 65;
const ENHANCED_ROUTE_REFRESH: u8 = 70;

/// RFC 4724 §3, from the left: R, RFC 8538 §2: N.
const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
/// RFC 4724 §3: the forwarding state bit of one family.
const FORWARDING: u8 = 0x80;

impl Capability {
    /// The code and the length before every value.
    const FIXED_LEN: usize = 2;

    /// All capabilities of one optional parameter.
    ///
    /// A value that does not fit its code is an error: if it were half understood, both sides would misread each other for as
    /// long as the session lasts. Codes 2, 6 and 70 have no value; a value that comes anyway is not read.
    pub fn parse_all(parameter: &[u8]) -> Result<Vec<Capability>, OpenFault> {
        let mut capabilities = Vec::new();
        let mut rest = parameter;
        while !rest.is_empty() {
            let Ok((next, (code, value))) = (be_u8::<_, ()>, length_data(be_u8)).parse(rest) else {
                return Err(OpenFault::CapabilityOverrun { octets: rest.to_vec() });
            };
            let capability = Capability::parse(code, value)
                .ok_or_else(|| OpenFault::CapabilityValue { code, value: value.to_vec() })?;
            capabilities.push(capability);
            rest = next;
        }
        Ok(capabilities)
    }

    /// `None`: the value does not fit this code.
    fn parse(code: u8, value: &[u8]) -> Option<Capability> {
        Some(match code {
            MULTIPROTOCOL => {
                let (_, (afi, _reserved, safi)) = all_consuming((be_u16::<_, ()>, be_u8, be_u8)).parse(value).ok()?;
                Capability::Multiprotocol(AfiSafi { afi, safi })
            }
            ROUTE_REFRESH => Capability::RouteRefresh,
            EXTENDED_NEXT_HOP => {
                // RFC 8950 §4: the SAFI has two octets here. No SAFI above 255 exists.
                let triple = (be_u16::<_, ()>, be_u16, be_u16);
                let (_, triples) = all_consuming(many0(triple)).parse(value).ok()?;
                let known = triples.into_iter().filter_map(|(afi, safi, next_hop_afi)| {
                    Some((AfiSafi { afi, safi: u8::try_from(safi).ok()? }, next_hop_afi))
                });
                Capability::ExtendedNextHop(known.collect())
            }
            EXTENDED_MESSAGE => Capability::ExtendedMessage,
            GRACEFUL_RESTART => {
                let family = (be_u16::<_, ()>, be_u8, be_u8);
                let (_, (bits, families)) = all_consuming((be_u16, many0(family))).parse(value).ok()?;
                Capability::GracefulRestart(GracefulRestart {
                    restarting: bits & RESTARTING != 0,
                    notification: bits & NOTIFICATION != 0,
                    restart_time_secs: bits & RESTART_TIME,
                    families: families
                        .into_iter()
                        .map(|(afi, safi, flags)| (AfiSafi { afi, safi }, flags & FORWARDING != 0))
                        .collect(),
                })
            }
            FOUR_OCTET_ASN => {
                let (_, asn) = all_consuming(be_u32::<_, ()>).parse(value).ok()?;
                Capability::FourOctetAsn(asn)
            }
            ENHANCED_ROUTE_REFRESH => Capability::EnhancedRouteRefresh,
            code => Capability::Unknown { code, value: value.to_vec() },
        })
    }

    pub fn code(&self) -> u8 {
        match self {
            Capability::Multiprotocol(_) => MULTIPROTOCOL,
            Capability::RouteRefresh => ROUTE_REFRESH,
            Capability::ExtendedNextHop(_) => EXTENDED_NEXT_HOP,
            Capability::ExtendedMessage => EXTENDED_MESSAGE,
            Capability::GracefulRestart(_) => GRACEFUL_RESTART,
            Capability::FourOctetAsn(_) => FOUR_OCTET_ASN,
            Capability::EnhancedRouteRefresh => ENHANCED_ROUTE_REFRESH,
            Capability::Unknown { code, .. } => *code,
        }
    }

    /// The same capability, whatever else its value says; those of two address families are two.
    pub fn is_same_kind(&self, other: &Capability) -> bool {
        match (self, other) {
            (Capability::Multiprotocol(family), Capability::Multiprotocol(other)) => family == other,
            (_, _) => self.code() == other.code(),
        }
    }

    fn value_len(&self) -> usize {
        match self {
            Capability::Multiprotocol(_) | Capability::FourOctetAsn(_) => 4,
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => 0,
            Capability::ExtendedNextHop(triples) => 6 * triples.len(),
            Capability::GracefulRestart(restart) => 2 + 4 * restart.families.len(),
            Capability::Unknown { value, .. } => value.len(),
        }
    }

    /// An error if the length of the value does not fit one octet.
    pub(super) fn check(&self) -> Result<(), EmitError> {
        match u8::try_from(self.value_len()) {
            Ok(_) => Ok(()),
            Err(_) => Err(EmitError::CapabilityTooLong { code: self.code(), len: self.value_len() }),
        }
    }

    pub fn emitted_len(&self) -> usize {
        Capability::FIXED_LEN + self.value_len()
    }

    /// Appends code, length and value, which must be at most 255 octets.
    pub(super) fn emit(&self, out: &mut BytesMut) {
        out.put_u8(self.code());
        out.put_u8(length8(self.value_len()));
        match self {
            Capability::Multiprotocol(family) => {
                out.put_u16(family.afi);
                out.put_u8(0);
                out.put_u8(family.safi);
            }
            Capability::RouteRefresh | Capability::ExtendedMessage | Capability::EnhancedRouteRefresh => {}
            Capability::ExtendedNextHop(triples) => {
                for (family, next_hop_afi) in triples {
                    out.put_u16(family.afi);
                    out.put_u16(u16::from(family.safi));
                    out.put_u16(*next_hop_afi);
                }
            }
            Capability::GracefulRestart(restart) => restart.emit(out),
            Capability::FourOctetAsn(asn) => out.put_u32(*asn),
            Capability::Unknown { value, .. } => out.put_slice(value),
        }
    }
}

impl GracefulRestart {
    fn emit(&self, out: &mut BytesMut) {
        let GracefulRestart { restarting, notification, restart_time_secs, families } = self;
        let mut bits = restart_time_secs & RESTART_TIME;
        if *restarting {
            bits |= RESTARTING;
        }
        if *notification {
            bits |= NOTIFICATION;
        }
        out.put_u16(bits);
        for (family, forwarding) in families {
            out.put_u16(family.afi);
            out.put_u8(family.safi);
            out.put_u8(if *forwarding { FORWARDING } else { 0 });
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Capability::Multiprotocol(family) => write!(f, "multiprotocol {family}"),
            Capability::RouteRefresh => f.write_str("route refresh"),
            Capability::ExtendedNextHop(triples) => {
                f.write_str("extended next hop")?;
                triples.iter().try_for_each(|(family, afi)| write!(f, " [{family} by AFI {afi}]"))
            }
            Capability::ExtendedMessage => f.write_str("extended message"),
            Capability::GracefulRestart(restart) => {
                write!(f, "graceful restart {} s", restart.restart_time_secs)?;
                if restart.restarting {
                    f.write_str(" restarting")?;
                }
                if restart.notification {
                    f.write_str(" notification")?;
                }
                restart.families.iter().try_for_each(|(family, forwarding)| {
                    write!(f, " [{family}{}]", if *forwarding { " forwarding" } else { "" })
                })
            }
            Capability::FourOctetAsn(asn) => write!(f, "4-octet AS {asn}"),
            Capability::EnhancedRouteRefresh => f.write_str("enhanced route refresh"),
            Capability::Unknown { code, .. } => write!(f, "code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(capability: &Capability) -> Vec<Capability> {
        let mut octets = BytesMut::new();
        capability.emit(&mut octets);
        assert_eq!(octets.len(), capability.emitted_len(), "{capability}");
        Capability::parse_all(&octets).expect("own octets are readable")
    }

    #[test]
    fn every_capability_reads_back_what_it_writes() {
        let all = [
            Capability::Multiprotocol(AfiSafi::IPV6_UNICAST),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop(vec![(AfiSafi::IPV4_UNICAST, 2), (AfiSafi { afi: 1, safi: 128 }, 2)]),
            Capability::ExtendedMessage,
            Capability::GracefulRestart(GracefulRestart {
                restarting: true,
                notification: true,
                restart_time_secs: 4095,
                families: vec![(AfiSafi::IPV4_UNICAST, true), (AfiSafi::IPV6_UNICAST, false)],
            }),
            Capability::FourOctetAsn(4_200_000_000),
            Capability::EnhancedRouteRefresh,
            Capability::Unknown { code: 250, value: b"abc".to_vec() },
        ];
        for capability in all {
            assert_eq!(round_trip(&capability), [capability]);
        }
    }

    #[test]
    fn a_value_of_the_wrong_length_is_named() {
        let fault = Capability::parse_all(&[65, 2, 0xfd, 0xea]).unwrap_err();
        assert_eq!(fault, OpenFault::CapabilityValue { code: 65, value: vec![0xfd, 0xea] });
        assert!(Capability::parse_all(&[64, 3, 0, 120, 0]).is_err(), "half a family in graceful restart");
        assert!(Capability::parse_all(&[1]).is_err(), "a code without a length");
    }

    #[test]
    fn a_restart_time_beyond_its_twelve_bits_does_not_become_a_flag() {
        let restart =
            GracefulRestart { restarting: false, notification: false, restart_time_secs: 0xffff, families: Vec::new() };
        let expected = GracefulRestart { restart_time_secs: 4095, ..restart.clone() };
        assert_eq!(round_trip(&Capability::GracefulRestart(restart)), [Capability::GracefulRestart(expected)]);
    }
}
