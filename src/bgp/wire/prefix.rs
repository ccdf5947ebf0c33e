//! Prefixes as NLRI writes them: a length in bits, then as many octets as it needs (RFC 4271 §4.3). Floor 1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use ipnet::IpNet;
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::be_u8;

use crate::address::Family;

/// Why a field of prefixes cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixFault {
    #[error("an {family} prefix of length {length}, which is too long")]
    Length { family: Family, length: u8 },
    #[error("a prefix of length {length} with only {present} octets left for it")]
    Truncated { length: u8, present: usize },
}

/// Every prefix of the field. Bits beyond a prefix's length are cleared.
pub(super) fn parse_all(family: Family, field: &[u8]) -> Result<Vec<IpNet>, PrefixFault> {
    let mut prefixes = Vec::new();
    let mut rest = field;
    while let Ok((after_length, length)) = be_u8::<_, ()>(rest) {
        if length > family.host_length() {
            return Err(PrefixFault::Length { family, length });
        }
        let Ok((next, octets)) = take::<_, _, ()>(octets_of(length)).parse(after_length) else {
            return Err(PrefixFault::Truncated { length, present: after_length.len() });
        };
        // The length was compared with the family's above, so there is always such a prefix.
        let Ok(prefix) = IpNet::new(address(family, octets), length) else {
            return Err(PrefixFault::Length { family, length });
        };
        prefixes.push(prefix.trunc());
        rest = next;
    }
    Ok(prefixes)
}

/// How many octets one prefix takes in an UPDATE.
pub(in crate::bgp) fn emitted_len(prefix: &IpNet) -> usize {
    1 + octets_of(prefix.prefix_len())
}

pub(super) fn emitted_len_all(prefixes: &[IpNet]) -> usize {
    prefixes.iter().map(emitted_len).sum()
}

pub(super) fn emit_all(prefixes: &[IpNet], out: &mut BytesMut) {
    prefixes.iter().for_each(|prefix| emit(prefix, out));
}

fn emit(prefix: &IpNet, out: &mut BytesMut) {
    out.put_u8(prefix.prefix_len());
    let len = octets_of(prefix.prefix_len());
    // A prefix is never longer than its address, so there are always that many octets to take.
    match prefix.network() {
        IpAddr::V4(v4) => out.put_slice(v4.octets().get(..len).unwrap_or_default()),
        IpAddr::V6(v6) => out.put_slice(v6.octets().get(..len).unwrap_or_default()),
    }
}

fn octets_of(length: u8) -> usize {
    usize::from(length).div_ceil(8)
}

/// The address that begins with `octets`; the rest is 0.
fn address(family: Family, octets: &[u8]) -> IpAddr {
    fn padded<const N: usize>(octets: &[u8]) -> [u8; N] {
        let mut whole = [0; N];
        whole.iter_mut().zip(octets).for_each(|(place, octet)| *place = *octet);
        whole
    }
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(padded::<4>(octets))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(padded::<16>(octets))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(prefixes: &[IpNet]) -> BytesMut {
        let mut octets = BytesMut::new();
        emit_all(prefixes, &mut octets);
        assert_eq!(octets.len(), emitted_len_all(prefixes));
        octets
    }

    #[test]
    fn every_length_reads_back_what_it_writes() {
        for family in Family::BOTH {
            let address: IpAddr = match family {
                Family::V4 => "203.0.113.255".parse().unwrap(),
                Family::V6 => "2001:db8:ffff::ffff".parse().unwrap(),
            };
            let all: Vec<_> =
                (0..=family.host_length()).map(|length| IpNet::new(address, length).unwrap().trunc()).collect();
            assert_eq!(parse_all(family, &octets(&all)), Ok(all));
        }
    }

    #[test]
    fn a_prefix_has_only_the_octets_it_needs() {
        let parse = |text: &str| text.parse::<IpNet>().unwrap();
        assert_eq!(&octets(&[parse("10.0.0.0/8"), parse("0.0.0.0/0")])[..], [8, 10, 0]);
        assert_eq!(&octets(&[parse("10.1.2.3/9")])[..], [9, 10, 0], "host bits are not sent");
    }

    #[test]
    fn bits_behind_the_length_are_cleared() {
        assert_eq!(parse_all(Family::V4, &[9, 10, 0xff]).unwrap(), ["10.128.0.0/9".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn a_prefix_that_is_too_long_or_cut_is_named() {
        assert_eq!(
            parse_all(Family::V4, &[33, 1, 2, 3, 4, 5]),
            Err(PrefixFault::Length { family: Family::V4, length: 33 })
        );
        assert_eq!(parse_all(Family::V6, &[129; 18]), Err(PrefixFault::Length { family: Family::V6, length: 129 }));
        assert_eq!(parse_all(Family::V4, &[24, 1, 2]), Err(PrefixFault::Truncated { length: 24, present: 2 }));
    }
}
