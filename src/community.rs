//! BGP communities as people write them and as the wire carries them.
//! Floor 0: the configuration reads them, the plan carries them, the speaker sends them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One community, standard (RFC 1997) or large (RFC 8092).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Community {
    Standard(u32),
    Large { global: u32, local1: u32, local2: u32 },
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

/// The text is neither `A:B`, nor `large:A:B:C`, nor a well-known name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no community; write 64512:100, large:64512:1:2, or a well-known name such as no-advertise")]
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
        let (high, low) = text.split_once(':').ok_or_else(error)?;
        let high: u16 = high.parse().map_err(|_| error())?;
        let low: u16 = low.parse().map_err(|_| error())?;
        Ok(Community::Standard(u32::from(high) << 16 | u32::from(low)))
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
        for text in ["64512:100", "large:64512:1:2", "no-advertise", "65535:65535"] {
            assert_eq!(text.parse::<Community>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_community_out_of_range_is_refused() {
        for text in ["65536:1", "1", "large:1:2", "large:1:2:3:4", "blue", "1:2:3"] {
            assert!(text.parse::<Community>().is_err(), "{text} is no community");
        }
    }
}
