//! Router advertisements and solicitations (RFC 4861 §4.1, §4.2), from the ICMPv6 header on. Floor 1.
//! Checksum and hop limit are not in here: the kernel computes and checks the one, the socket's filter asks for the other.
//!
//! Gap (RFC 4861 §4.2): prefixes, MTU and addresses in the options are not read. Only the sender matters here.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16, be_u32};

/// A message of router discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Solicitation,
    Advertisement {
        /// For how long the sender is a default router. Zero: it is a router, but not a default router.
        lifetime: Duration,
    },
    /// The advertisement of a crier agent: routers take it for that of a router whose lifetime is zero, and other agents know by an
    /// option that it is none.
    Agent,
}

/// Why octets are not a valid message of router discovery. The message is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PacketFault {
    #[error("{0} octets are too few for the message")]
    Truncated(usize),
    #[error("ICMPv6 type {0} is neither a router solicitation nor an advertisement")]
    Type(u8),
    #[error("code {0} is not 0")]
    Code(u8),
    #[error("an option claims {claimed} octets, but {there} are left")]
    Option { claimed: usize, there: usize },
}

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// The option that marks an agent: type 253, which RFC 4727 §4 leaves to experiments and every receiver skips (RFC 4861 §4.6),
/// one unit of eight octets, and a word that no other experiment has.
const AGENT: [u8; 8] = [253, 1, b'c', b'r', b'i', b'e', b'r', 0];

impl Message {
    /// Reads a message, from its ICMPv6 type on, by the rules of RFC 4861 §6.1.1 and §6.1.2.
    pub fn parse(octets: &[u8]) -> Result<Message, PacketFault> {
        let short = |_: nom::Err<()>| PacketFault::Truncated(octets.len());
        let (rest, (kind, code, _checksum)) = (be_u8, be_u8, be_u16).parse(octets).map_err(short)?;
        let (options, message) = match kind {
            SOLICITATION => {
                let (options, _reserved) = be_u32(rest).map_err(short)?;
                (options, Message::Solicitation)
            }
            ADVERTISEMENT => {
                // Current hop limit, flags, lifetime, reachable time, retransmission timer.
                let fields = (be_u8, be_u8, be_u16, be_u32, be_u32);
                let (options, (_, _, lifetime_secs, _, _)) = { fields }.parse(rest).map_err(short)?;
                let lifetime = Duration::from_secs(u64::from(lifetime_secs));
                (options, Message::Advertisement { lifetime })
            }
            other => return Err(PacketFault::Type(other)),
        };
        if code != 0 {
            return Err(PacketFault::Code(code));
        }
        let of_agent = check_options(options)?;
        match message {
            Message::Advertisement { .. } if of_agent => Ok(Message::Agent),
            Message::Advertisement { .. } | Message::Agent | Message::Solicitation => Ok(message),
        }
    }

    /// The message, its checksum left to the kernel. An advertisement says nothing but that the sender is there.
    pub fn emit(&self, out: &mut BytesMut) {
        match self {
            Message::Agent => {
                Message::Advertisement { lifetime: Duration::ZERO }.emit(out);
                out.put_slice(&AGENT);
            }
            Message::Solicitation => {
                out.put_slice(&[SOLICITATION, 0, 0, 0]);
                out.put_u32(0);
            }
            Message::Advertisement { lifetime } => {
                out.put_slice(&[ADVERTISEMENT, 0, 0, 0]);
                // No advice about the hop limit, and no flag.
                out.put_slice(&[0, 0]);
                out.put_u16(u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX));
                out.put_u64(0);
            }
        }
    }

    /// Octets that [`Message::emit`] writes.
    pub fn emitted_len(&self) -> usize {
        match self {
            Message::Solicitation => 8,
            Message::Advertisement { .. } => 16,
            Message::Agent => 16 + AGENT.len(),
        }
    }
}

/// RFC 4861 §6.1.2: "All included options have a length that is greater than zero." Whether one of them is [`AGENT`].
fn check_options(mut options: &[u8]) -> Result<bool, PacketFault> {
    let mut of_agent = false;
    while !options.is_empty() {
        let there = options.len();
        let claimed = options.get(1).map_or(0, |units| usize::from(*units) * 8);
        let taken: Result<_, nom::Err<()>> = take(claimed).parse(options);
        match taken {
            Ok((rest, option)) if claimed > 0 => {
                of_agent |= option == AGENT;
                options = rest;
            }
            Ok(_) | Err(_) => return Err(PacketFault::Option { claimed, there }),
        }
    }
    Ok(of_agent)
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Solicitation => f.write_str("router solicitation"),
            Message::Agent => f.write_str("advertisement of a crier agent"),
            Message::Advertisement { lifetime } => write!(f, "router advertisement, lifetime {}s", lifetime.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From FRR 8.4's zebra: lifetime 0, its link-layer address, as an unnumbered neighbor sends it.
    const OF_FRR: [u8; 24] = [
        0x86, 0x00, 0x2c, 0x5f, 0x40, 0x00, 0x00, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x01, 0x02, 0x00, 0x5e, 0x10,
        0x00, 0x01,
    ];

    fn advertisement(lifetime_secs: u64) -> Message {
        Message::Advertisement { lifetime: Duration::from_secs(lifetime_secs) }
    }

    #[test]
    fn an_advertisement_of_frr_is_read_with_its_lifetime_of_zero() {
        assert_eq!(Message::parse(&OF_FRR), Ok(advertisement(0)));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for message in [Message::Solicitation, advertisement(0), advertisement(1800), advertisement(65535)] {
            let mut octets = BytesMut::new();
            message.emit(&mut octets);
            assert_eq!(octets.len(), message.emitted_len());
            assert_eq!(Message::parse(&octets), Ok(message));
        }
    }

    /// D4 of the field cases: two nodes and a router on one bridge.
    #[test]
    fn an_agents_advertisement_is_a_routers_to_everybody_but_another_agent() {
        let mut octets = BytesMut::new();
        Message::Agent.emit(&mut octets);
        assert_eq!(octets.len(), Message::Agent.emitted_len());
        assert_eq!(Message::parse(&octets), Ok(Message::Agent));
        assert_eq!(octets[16..18], [253, 1], "an option that others skip");
        assert_eq!(Message::parse(&octets[..16]), Ok(advertisement(0)), "what is before it");
        octets[20] ^= 1;
        assert_eq!(Message::parse(&octets), Ok(advertisement(0)), "another experiment");
    }

    #[test]
    fn what_rfc_4861_tells_to_drop_is_no_message() {
        let with = |change: fn(&mut Vec<u8>)| {
            let mut octets = OF_FRR.to_vec();
            change(&mut octets);
            Message::parse(&octets)
        };
        assert_eq!(with(|octets| octets.truncate(15)), Err(PacketFault::Truncated(15)));
        assert_eq!(with(|octets| octets[1] = 1), Err(PacketFault::Code(1)));
        assert_eq!(with(|octets| octets[0] = 136), Err(PacketFault::Type(136)));
        assert_eq!(with(|octets| octets[17] = 0), Err(PacketFault::Option { claimed: 0, there: 8 }));
        assert_eq!(with(|octets| octets[17] = 2), Err(PacketFault::Option { claimed: 16, there: 8 }));
        assert_eq!(with(|octets| octets.truncate(17)), Err(PacketFault::Option { claimed: 0, there: 1 }));
        assert_eq!(with(|octets| octets.truncate(16)), Ok(advertisement(0)), "options may be left out");
        assert_eq!(Message::parse(&[133, 0, 0, 0, 0, 0, 0]), Err(PacketFault::Truncated(7)));
        assert_eq!(Message::parse(&[]), Err(PacketFault::Truncated(0)));
    }
}
