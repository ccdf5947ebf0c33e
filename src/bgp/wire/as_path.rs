//! AS_PATH and AS4_PATH (RFC 4271 §5.1.2, RFC 6793 §4.2, RFC 7606 §7.2, RFC 7607, RFC 9774). Floor 1.

use std::fmt;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::multi::count;
use nom::number::complete::{be_u8, be_u16, be_u32};

use super::dialect::AsnWidth;
use super::{AS_TRANS, length8};

/// At least one AS number, at most 255 on the wire (a longer one is split when emitted).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsPathSegment {
    pub set: bool,
    pub asns: Vec<u32>,
}

/// Why the value of AS_PATH or AS4_PATH is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AsPathFault {
    #[error("a segment of the unknown type {0}")]
    SegmentType(u8),
    /// RFC 5065 §5: valid only inside a confederation, and crier is never in one.
    #[error("a confederation segment (type {0}), although this node is in no confederation")]
    Confederation(u8),
    #[error("a segment without AS numbers")]
    EmptySegment,
    #[error("a segment that is longer than the rest of the path")]
    Truncated,
    #[error("AS 0 in the path (RFC 7607)")]
    AsnZero,
    #[error("a set of AS numbers, which RFC 9774 forbids")]
    Set,
    #[error("a path that begins with {}, from AS {peer}", match first { Some(asn) => format!("AS {asn}"), None => "no AS".to_owned() })]
    FirstAsn { first: Option<u32>, peer: u32 },
}

const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// The most AS numbers that one segment can hold.
const MAX_SEGMENT: usize = 255;

pub(super) fn parse(value: &[u8], width: AsnWidth) -> Result<Vec<AsPathSegment>, AsPathFault> {
    let mut segments = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let Ok((numbers, (segment_type, len))) = (be_u8::<_, ()>, be_u8).parse(rest) else {
            return Err(AsPathFault::Truncated);
        };
        let set = match segment_type {
            AS_SET => true,
            AS_SEQUENCE => false,
            AS_CONFED_SEQUENCE | AS_CONFED_SET => return Err(AsPathFault::Confederation(segment_type)),
            _ => return Err(AsPathFault::SegmentType(segment_type)),
        };
        if len == 0 {
            return Err(AsPathFault::EmptySegment);
        }
        let asns = match width {
            AsnWidth::Two => count(be_u16::<_, ()>.map(u32::from), usize::from(len)).parse(numbers),
            AsnWidth::Four => count(be_u32, usize::from(len)).parse(numbers),
        };
        let Ok((next, asns)) = asns else {
            return Err(AsPathFault::Truncated);
        };
        if asns.contains(&0) {
            return Err(AsPathFault::AsnZero);
        }
        segments.push(AsPathSegment { set, asns });
        rest = next;
    }
    Ok(segments)
}

/// Writes the value. Segments of more than 255 numbers are split, and empty segments are left out.
pub(super) fn emit(path: &[AsPathSegment], width: AsnWidth) -> BytesMut {
    let mut value = BytesMut::new();
    for AsPathSegment { set, asns } in path {
        for chunk in asns.chunks(MAX_SEGMENT) {
            value.put_u8(if *set { AS_SET } else { AS_SEQUENCE });
            value.put_u8(length8(chunk.len()));
            for asn in chunk {
                match width {
                    // RFC 6793 §4.2.2
                    AsnWidth::Two => value.put_u16(u16::try_from(*asn).unwrap_or(AS_TRANS)),
                    AsnWidth::Four => value.put_u32(*asn),
                }
            }
        }
    }
    value
}

/// Whether some number in the path does not fit two octets.
pub(super) fn needs_four_octets(path: &[AsPathSegment]) -> bool {
    path.iter().flat_map(|segment| &segment.asns).any(|asn| u16::try_from(*asn).is_err())
}

/// RFC 6793 §4.2.3: the path that a two-octet peer passed on in two attributes.
pub(super) fn merge(as_path: Vec<AsPathSegment>, as4_path: Vec<AsPathSegment>) -> Vec<AsPathSegment> {
    // "If the number of AS numbers in the AS_PATH attribute is less than the number of AS numbers in the AS4_PATH
    // attribute, then the AS4_PATH attribute SHALL be ignored".
    let Some(mut lead) = hops(&as_path).checked_sub(hops(&as4_path)) else {
        return as_path;
    };
    let mut merged = Vec::new();
    for segment in as_path {
        if lead == 0 {
            break;
        }
        let kept = if segment.set {
            lead -= 1;
            segment
        } else {
            let asns: Vec<_> = segment.asns.into_iter().take(lead).collect();
            lead -= asns.len();
            AsPathSegment { set: false, asns }
        };
        merged.push(kept);
    }
    let mut rest = as4_path.into_iter();
    if let (Some(last), Some(first)) = (merged.last_mut(), rest.as_slice().first())
        && !last.set
        && !first.set
        && last.asns.len() + first.asns.len() <= MAX_SEGMENT
    {
        // Only the two attributes cut this segment in two, not the speaker that built the path.
        last.asns.extend(rest.next().into_iter().flat_map(|first| first.asns));
    }
    merged.extend(rest);
    merged
}

/// RFC 4271 §9.1.2.2: a set counts as one.
fn hops(path: &[AsPathSegment]) -> usize {
    path.iter().map(|segment| if segment.set { 1 } else { segment.asns.len() }).sum()
}

impl fmt::Display for AsPathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.set { ("{", "}") } else { ("", "") };
        f.write_str(open)?;
        for (place, asn) in self.asns.iter().enumerate() {
            write!(f, "{}{asn}", if place == 0 { "" } else { " " })?;
        }
        f.write_str(close)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(asns: impl Into<Vec<u32>>) -> AsPathSegment {
        AsPathSegment { set: false, asns: asns.into() }
    }

    fn set(asns: impl Into<Vec<u32>>) -> AsPathSegment {
        AsPathSegment { set: true, asns: asns.into() }
    }

    #[test]
    fn a_path_reads_back_what_it_writes() {
        let path = vec![sequence([65001, 65002]), set([1, 2, 3])];
        for width in [AsnWidth::Two, AsnWidth::Four] {
            assert_eq!(parse(&emit(&path, width), width).as_ref(), Ok(&path));
        }
    }

    #[test]
    fn a_segment_of_more_than_255_is_split() {
        let long = sequence(vec![65001; 256]);
        let read = parse(&emit(&[long], AsnWidth::Four), AsnWidth::Four).unwrap();
        assert_eq!(read, [sequence(vec![65001; 255]), sequence([65001])]);
    }

    #[test]
    fn an_empty_segment_is_never_written() {
        assert!(emit(&[sequence([])], AsnWidth::Four).is_empty());
    }

    #[test]
    fn a_number_that_needs_four_octets_becomes_as_trans_in_two() {
        let read = parse(&emit(&[sequence([4_200_000_000, 7])], AsnWidth::Two), AsnWidth::Two).unwrap();
        assert_eq!(read, [sequence([u32::from(AS_TRANS), 7])]);
    }

    #[test]
    fn a_path_that_is_none_is_named() {
        let fault = |value: &[u8]| parse(value, AsnWidth::Four).unwrap_err();
        assert_eq!(fault(&[5, 1, 0, 0, 0, 1]), AsPathFault::SegmentType(5));
        assert_eq!(fault(&[3, 1, 0, 0, 0, 1]), AsPathFault::Confederation(3));
        assert_eq!(fault(&[2, 0]), AsPathFault::EmptySegment);
        assert_eq!(fault(&[2, 2, 0, 0, 0, 1]), AsPathFault::Truncated);
        assert_eq!(fault(&[2]), AsPathFault::Truncated);
        assert_eq!(fault(&[2, 1, 0, 0, 0, 0]), AsPathFault::AsnZero);
    }

    #[test]
    fn two_attributes_become_the_path_that_was_meant() {
        let trans = u32::from(AS_TRANS);
        let meant = sequence([65010, 4_200_000_000, 7]);
        assert_eq!(merge(vec![sequence([65010, trans, 7])], vec![sequence([4_200_000_000, 7])]), [meant]);
        let shorter = vec![sequence([trans])];
        assert_eq!(merge(shorter.clone(), vec![sequence([1, 2])]), shorter, "AS4_PATH cannot be longer");
        assert_eq!(
            merge(vec![set([1, 2]), sequence([3, trans])], vec![sequence([70000])]),
            [set([1, 2]), sequence([3, 70000])],
            "a set is one hop"
        );
    }
}
