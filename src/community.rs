//! BGP communities as people write them and as the wire carries them.
//! Floor 0: the configuration reads them, the plan carries them, the speaker sends them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One community: standard (RFC 1997), large (RFC 8092) or extended (RFC 4360).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Community {
    Standard(u32),
    Large {
        global: u32,
        local1: u32,
        local2: u32,
    },
    /// All eight octets, the type first.
    Extended(u64),
}

/// RFC 4360 §3 and §4, RFC 5668, RFC 7153: the first octet of an extended community with an administrator, by the
/// administrator's kind.
const OF_TWO_OCTET_AS: u8 = 0x00;
const OF_IPV4_ADDRESS: u8 = 0x01;
const OF_FOUR_OCTET_AS: u8 = 0x02;

/// The second octet, and the word that routers write for it.
const ROUTE_TARGET: (u8, &str) = (0x02, "rt");
const ROUTE_ORIGIN: (u8, &str) = (0x03, "ro");
const LINK_BANDWIDTH: u8 = 0x04;

/// RFC 4360 §2: the bit that keeps an extended community within the AS that receives it.
const NON_TRANSITIVE: u8 = 0x40;

/// The AS number that stands for one that needs four octets (RFC 6793).
const AS_TRANS: u16 = 23456;

impl Community {
    /// RFC 8326: the route goes away soon; use another one.
    pub const GRACEFUL_SHUTDOWN: Community = Community::Standard(0xffff_0000);

    /// RFC 10005 §3: how much a path can carry, as routers that balance by weight read it. An AS number of four octets
    /// is shown as AS_TRANS; the value in octets per second is rounded to the 24 bits that the format has.
    pub fn link_bandwidth(asn: u32, octets_per_second: u32, transitive: bool) -> Community {
        let kind = if transitive { OF_TWO_OCTET_AS } else { OF_TWO_OCTET_AS | NON_TRANSITIVE };
        let [high, low] = u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes();
        let [a, b, c, d] = float_bits(octets_per_second).to_be_bytes();
        Community::Extended(u64::from_be_bytes([kind, LINK_BANDWIDTH, high, low, a, b, c, d]))
    }
}

/// The bits of the IEEE 754 single that is nearest to `value`, the even one of two: what `f32` would do, in integers.
fn float_bits(value: u32) -> u32 {
    /// Bits of the fraction, and what is added to an exponent.
    const FRACTION: u32 = 23;
    const BIAS: u32 = 127;
    let Some(exponent) = value.checked_ilog2() else { return 0 };
    let Some(dropped) = exponent.checked_sub(FRACTION) else {
        return ((exponent + BIAS) << FRACTION) + ((value << (FRACTION - exponent)) & ((1 << FRACTION) - 1));
    };
    let fraction = (value >> dropped) & ((1 << FRACTION) - 1);
    let truncated = ((exponent + BIAS) << FRACTION) + fraction;
    let rest = value & ((1 << dropped) - 1);
    let half = (1 << dropped) >> 1;
    // A carry out of the fraction lands in the exponent, which is just right.
    let up = rest > half || (rest == half && rest != 0 && fraction & 1 == 1);
    truncated + u32::from(up)
}

/// The well-known communities of the IANA registry that an operator may write by name.
pub const WELL_KNOWN: [(&str, u32); 6] = [
    ("graceful-shutdown", 0xffff_0000), // RFC 8326
    ("accept-own", 0xffff_0001),        // RFC 7611
    ("blackhole", 0xffff_029a),         // RFC 7999
    ("no-export", 0xffff_ff01),         // RFC 1997
    ("no-advertise", 0xffff_ff02),      // RFC 1997
    ("no-peer", 0xffff_ff04),           // RFC 3765
];

/// The text is no community in any of the forms that [`Community`] has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no community; write 64512:100, large:64512:1:2, rt:64512:100, ro:64512:100, ext:0x and 16 digits, or a well-known name such as no-advertise"
)]
pub struct CommunityError(String);

impl FromStr for Community {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || CommunityError(text.to_owned());
        if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
            return Ok(Community::Standard(*value));
        }
        if let Some(rest) = text.strip_prefix("large:") {
            let mut parts = rest.split(':').map(|part| part.parse::<u32>().map_err(|_| error()));
            let mut next = || parts.next().ok_or_else(error)?;
            let community = Community::Large { global: next()?, local1: next()?, local2: next()? };
            return if parts.next().is_none() { Ok(community) } else { Err(error()) };
        }
        for (subtype, word) in [ROUTE_TARGET, ROUTE_ORIGIN] {
            if let Some(rest) = text.strip_prefix(word).and_then(|rest| rest.strip_prefix(':')) {
                return administered(subtype, rest).ok_or_else(error);
            }
        }
        if let Some(digits) = text.strip_prefix("ext:0x") {
            let all_digits = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let value = u64::from_str_radix(digits, 16).ok().filter(|_| all_digits);
            return value.map(Community::Extended).ok_or_else(error);
        }
        let (high, low) = text.split_once(':').ok_or_else(error)?;
        let high: u16 = high.parse().map_err(|_| error())?;
        let low: u16 = low.parse().map_err(|_| error())?;
        Ok(Community::Standard(u32::from(high) << 16 | u32::from(low)))
    }
}

/// `64512:100`, `192.0.2.1:100` or `4200000000:100` behind `rt:` or `ro:`: an administrator and its number. A number of
/// an AS that fits into two octets is written in two, which leaves four for the rest (RFC 5668 §2).
fn administered(subtype: u8, text: &str) -> Option<Community> {
    let (administrator, number) = text.split_once(':')?;
    let [.., n1, n2, n3, n4] = number.parse::<u32>().ok()?.to_be_bytes();
    let short = n1 == 0 && n2 == 0;
    let octets = if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        let [a, b, c, d] = address.octets();
        short.then_some([OF_IPV4_ADDRESS, subtype, a, b, c, d, n3, n4])?
    } else if let Ok(asn) = administrator.parse::<u16>() {
        let [high, low] = asn.to_be_bytes();
        [OF_TWO_OCTET_AS, subtype, high, low, n1, n2, n3, n4]
    } else {
        let [a, b, c, d] = administrator.parse::<u32>().ok()?.to_be_bytes();
        short.then_some([OF_FOUR_OCTET_AS, subtype, a, b, c, d, n3, n4])?
    };
    Some(Community::Extended(u64::from_be_bytes(octets)))
}

/// The text that reads back as the same eight octets.
fn write_extended(value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let [kind, subtype, a, b, c, d, n3, n4] = value.to_be_bytes();
    let word = [ROUTE_TARGET, ROUTE_ORIGIN].into_iter().find(|(known, _)| *known == subtype).map(|(_, word)| word);
    let number = u16::from_be_bytes([n3, n4]);
    let asn = u32::from_be_bytes([a, b, c, d]);
    match (kind, word) {
        (OF_TWO_OCTET_AS, Some(word)) => {
            write!(f, "{word}:{}:{}", u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, n3, n4]))
        }
        (OF_IPV4_ADDRESS, Some(word)) => write!(f, "{word}:{}:{number}", Ipv4Addr::new(a, b, c, d)),
        (OF_FOUR_OCTET_AS, Some(word)) if asn > u32::from(u16::MAX) => write!(f, "{word}:{asn}:{number}"),
        _ => write!(f, "ext:{value:#018x}"),
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Community::Standard(value) => match WELL_KNOWN.iter().find(|(_, known)| known == value) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "{}:{}", value >> 16, value & 0xffff),
            },
            Community::Large { global, local1, local2 } => write!(f, "large:{global}:{local1}:{local2}"),
            Community::Extended(value) => write_extended(*value, f),
        }
    }
}

impl From<Community> for String {
    fn from(community: Community) -> String {
        community.to_string()
    }
}

impl TryFrom<String> for Community {
    type Error = CommunityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_community_reads_back_what_it_prints() {
        for text in [
            "64512:100",
            "large:64512:1:2",
            "no-advertise",
            "65535:65535",
            "rt:64512:100000",
            "rt:192.0.2.1:7",
            "ro:4200000000:65535",
            "ext:0x4004fc010000000a",
            "ext:0x0202000000010001",
        ] {
            assert_eq!(text.parse::<Community>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_community_out_of_range_is_refused() {
        for text in [
            "65536:1",
            "1",
            "large:1:2",
            "large:1:2:3:4",
            "blue",
            "1:2:3",
            "rt:1",
            "rt:4200000000:65536",
            "ro:192.0.2.1:65536",
            "ext:0x1",
            "ext:0x+123456789012345",
        ] {
            assert!(text.parse::<Community>().is_err(), "{text} is no community");
        }
    }

    #[test]
    fn an_extended_community_has_the_octets_of_its_rfc() {
        let octets = |text: &str| match text.parse().expect(text) {
            Community::Extended(value) => value,
            other => panic!("{other} is not extended"),
        };
        assert_eq!(octets("rt:64512:100"), 0x0002_fc00_0000_0064, "RFC 4360 §4");
        assert_eq!(octets("ro:192.0.2.1:7"), 0x0103_c000_0201_0007, "RFC 4360 §5");
        assert_eq!(octets("rt:4200000000:1"), 0x0202_fa56_ea00_0001, "RFC 5668 §2");
    }

    #[test]
    fn integers_become_the_same_bits_as_a_conversion_to_a_float_gives() {
        let mut random = fastrand::Rng::with_seed(7);
        let edges = (0..32).flat_map(|bit| [(1u32 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        let halves = (24..32).flat_map(|bit| (0..64).map(move |odd| (1u32 << bit) + odd * ((1 << bit) >> 24)));
        let wild = std::iter::repeat_with(|| random.u32(..) >> random.u32(0..32)).take(100_000);
        for value in edges.chain(halves).chain([u32::MAX, u32::MAX - 127, u32::MAX - 128]).chain(wild) {
            assert_eq!(float_bits(value), (value as f32).to_bits(), "{value}");
        }
    }

    #[test]
    fn link_bandwidth_names_the_as_the_transitivity_and_the_octets_per_second() {
        let text = |asn, transitive| Community::link_bandwidth(asn, 125_000, transitive).to_string();
        // 125,000 is 1.9073486328125 × 2^16.
        assert_eq!(text(64513, false), "ext:0x4004fc0147f42400");
        assert_eq!(text(64513, true), "ext:0x0004fc0147f42400");
        assert_eq!(text(4_200_000_000, true), "ext:0x00045ba047f42400", "AS_TRANS");
    }
}
