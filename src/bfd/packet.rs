//! BFD control packets (RFC 5880 §4.1 to §4.4) as octets. Floor 1.
//! Reads what the rules of §6.8.6 ask of a packet by itself. What they ask of its session is `machine`'s to judge.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use nom::Parser;
use nom::number::complete::{be_u8, be_u32};

use super::authentication::{DIGEST_LEN, Key, SECTION_AT, Sha1};
use crate::bfd_state::{BfdState, Diagnostic};

/// A control packet. Values that the RFC has every receiver discard do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last left the state Up.
    pub diagnostic: Diagnostic,
    pub state: BfdState,
    /// The sender wants an answer with `fin` at once.
    pub poll: bool,
    /// The answer to a packet with `poll`.
    pub fin: bool,
    /// BFD of the sender goes on where its control plane does not.
    pub control_plane_independent: bool,
    /// The sender wants no periodic packets while both ends are up.
    pub demand: bool,
    pub multiplier: NonZeroU8,
    pub my_discriminator: NonZeroU32,
    /// Absent as long as the sender has not heard this end.
    pub your_discriminator: Option<NonZeroU32>,
    /// Whole microseconds below [`LONGEST_INTERVAL`], as the other two.
    pub desired_min_tx: Duration,
    /// Zero: the sender wants no periodic packets at all.
    pub required_min_rx: Duration,
    /// Zero: the sender returns no echo packets.
    pub required_min_echo_rx: Duration,
    pub authentication: Option<Authentication>,
}

/// The authentication section of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Type 4 or 5. The digest stays in the octets: only a key can judge it.
    Sha1(Sha1),
    /// A type that this end does not speak.
    Other(u8),
}

/// Why octets are not a control packet that anybody may take. The packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketFault {
    #[error("{0} octets are too few for a control packet")]
    Truncated(usize),
    #[error("version {0} is not 1")]
    Version(u8),
    #[error("the length field says {claimed}, of {there} octets that came")]
    Length { claimed: u8, there: usize },
    #[error("the detection multiplier is 0")]
    Multiplier,
    #[error("the multipoint bit is set")]
    Multipoint,
    #[error("the sender's discriminator is 0")]
    MyDiscriminator,
    #[error("the poll bit and the final bit are both set")]
    PollAndFinal,
    #[error("the authentication section does not fit: type {kind}, length {len}")]
    Authentication { kind: u8, len: u8 },
}

const VERSION: u8 = 1;

/// Octets before the authentication section.
pub const HEADER_LEN: usize = SECTION_AT;

/// The longest packet that is sent, in octets: with an authentication section of SHA-1.
pub const LONGEST_SENT: usize = HEADER_LEN + SHA1_LEN as usize;

/// Intervals are 32 bits of microseconds on the wire; longer ones are sent as this.
pub const LONGEST_INTERVAL: Duration = Duration::from_micros(u32::MAX as u64);

const SHA1_LEN: u8 = 28;
const KEYED_SHA1: u8 = 4;
const METICULOUS_SHA1: u8 = 5;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATED: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

impl Packet {
    /// Reads a UDP payload. What follows the length that the packet claims is ignored (RFC 5880 §6.8.6 asks only that it is there).
    pub fn parse(octets: &[u8]) -> Result<Packet, PacketFault> {
        let short = |_: nom::Err<()>| PacketFault::Truncated(octets.len());
        let mut start = (be_u8, be_u8, be_u8, be_u8);
        let (rest, (first, flags, multiplier, len)) = start.parse(octets).map_err(short)?;
        if first >> 5 != VERSION {
            return Err(PacketFault::Version(first >> 5));
        }
        let claims = PacketFault::Length { claimed: len, there: octets.len() };
        // RFC 5880 §6.8.6: "less than the minimum correct value (24 if the A bit is clear, or 26 if the A bit is set)".
        let least = HEADER_LEN + if flags & AUTHENTICATED == 0 { 0 } else { 2 };
        if usize::from(len) < least || usize::from(len) > octets.len() {
            return Err(claims);
        }
        let rest = rest.get(..usize::from(len) - 4).ok_or(claims)?;
        let multiplier = NonZeroU8::new(multiplier).ok_or(PacketFault::Multiplier)?;
        if flags & MULTIPOINT != 0 {
            return Err(PacketFault::Multipoint);
        }
        let mut words = (be_u32, be_u32, be_u32, be_u32, be_u32);
        let (rest, (mine, yours, desired_tx, required_rx, required_echo_rx)) = words.parse(rest).map_err(short)?;
        let my_discriminator = NonZeroU32::new(mine).ok_or(PacketFault::MyDiscriminator)?;
        // RFC 5880 §6.5: "A BFD Control packet MUST NOT have both the Poll (P) and Final (F) bits set."
        if flags & POLL != 0 && flags & FINAL != 0 {
            return Err(PacketFault::PollAndFinal);
        }
        let interval = |micros: u32| Duration::from_micros(micros.into());
        Ok(Packet {
            diagnostic: first.into(),
            state: state_of(flags >> 6),
            poll: flags & POLL != 0,
            fin: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator,
            your_discriminator: NonZeroU32::new(yours),
            desired_min_tx: interval(desired_tx),
            required_min_rx: interval(required_rx),
            required_min_echo_rx: interval(required_echo_rx),
            authentication: if flags & AUTHENTICATED == 0 { None } else { Some(Authentication::parse(rest)?) },
        })
    }

    /// The packet in octets. `key` signs what `authentication` says; without a key there is no section, whatever it says.
    pub fn emit(&self, key: Option<&Key>) -> Vec<u8> {
        let section = match (self.authentication, key) {
            (Some(Authentication::Sha1(section)), Some(key)) => Some((section, key)),
            (Some(Authentication::Sha1(_) | Authentication::Other(_)) | None, _) => None,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = flag(self.poll, POLL)
            | flag(self.fin, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(section.is_some(), AUTHENTICATED)
            | flag(self.demand, DEMAND);
        let mut octets = Vec::with_capacity(LONGEST_SENT);
        octets.push(VERSION << 5 | self.diagnostic.number());
        octets.push(bits_of(self.state) << 6 | flags);
        octets.push(self.multiplier.get());
        octets.push(if section.is_some() { HEADER_OCTETS + SHA1_LEN } else { HEADER_OCTETS });
        let yours = self.your_discriminator.map_or(0, NonZeroU32::get);
        let intervals = [self.desired_min_tx, self.required_min_rx, self.required_min_echo_rx].map(micros);
        for word in [self.my_discriminator.get(), yours].into_iter().chain(intervals) {
            octets.extend(word.to_be_bytes());
        }
        if let Some((Sha1 { meticulous, key_id, sequence }, key)) = section {
            octets.extend([if meticulous { METICULOUS_SHA1 } else { KEYED_SHA1 }, SHA1_LEN, key_id, 0]);
            octets.extend(sequence.to_be_bytes());
            octets.extend([0; DIGEST_LEN]);
            key.sign(&mut octets);
        }
        octets
    }
}

const HEADER_OCTETS: u8 = 24;

impl Authentication {
    /// The section fills what the packet's length leaves, exactly.
    fn parse(octets: &[u8]) -> Result<Authentication, PacketFault> {
        let short = |_: nom::Err<()>| PacketFault::Truncated(HEADER_LEN + octets.len());
        let (rest, (kind, len)) = (be_u8, be_u8).parse(octets).map_err(short)?;
        let misfit = PacketFault::Authentication { kind, len };
        if usize::from(len) != octets.len() {
            return Err(misfit);
        }
        match kind {
            KEYED_SHA1 | METICULOUS_SHA1 if len == SHA1_LEN => {
                let (_, (key_id, _reserved, sequence)) = (be_u8, be_u8, be_u32).parse(rest).map_err(short)?;
                Ok(Authentication::Sha1(Sha1 { meticulous: kind == METICULOUS_SHA1, key_id, sequence }))
            }
            KEYED_SHA1 | METICULOUS_SHA1 => Err(misfit),
            other => Ok(Authentication::Other(other)),
        }
    }
}

/// Of two bits.
fn state_of(bits: u8) -> BfdState {
    match bits & 3 {
        0 => BfdState::AdminDown,
        1 => BfdState::Down,
        2 => BfdState::Init,
        _ => BfdState::Up,
    }
}

fn bits_of(state: BfdState) -> u8 {
    match state {
        BfdState::AdminDown => 0,
        BfdState::Down => 1,
        BfdState::Init => 2,
        BfdState::Up => 3,
    }
}

fn micros(interval: Duration) -> u32 {
    u32::try_from(interval.as_micros()).unwrap_or(u32::MAX)
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BFD {}, diagnostic {}", self.state, self.diagnostic)?;
        let flags = [(self.poll, "poll"), (self.fin, "final"), (self.demand, "demand")];
        flags.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| write!(f, ", {name}"))?;
        let yours = self.your_discriminator.map_or(0, NonZeroU32::get);
        let [tx, rx, _] = [self.desired_min_tx, self.required_min_rx, self.required_min_echo_rx].map(micros);
        write!(f, ", from {} to {yours}, tx {tx} us, rx {rx} us x {}", self.my_discriminator, self.multiplier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Packet {
        Packet {
            diagnostic: Diagnostic::NeighborSignaledDown,
            state: BfdState::Up,
            poll: true,
            fin: false,
            control_plane_independent: false,
            demand: true,
            multiplier: NonZeroU8::MIN,
            my_discriminator: NonZeroU32::MAX,
            your_discriminator: NonZeroU32::new(7),
            desired_min_tx: Duration::from_millis(50),
            required_min_rx: Duration::ZERO,
            required_min_echo_rx: LONGEST_INTERVAL,
            authentication: None,
        }
    }

    #[test]
    fn a_packet_reads_back_as_it_was_written() {
        let plain = packet();
        assert_eq!(Packet::parse(&plain.emit(None)), Ok(plain));
        let key = Key::new(b"secret", false, 9).expect("a key of six octets");
        let section = Sha1 { meticulous: true, key_id: 9, sequence: 0xfedc_ba98 };
        let signed = Packet { authentication: Some(Authentication::Sha1(section)), ..plain };
        let octets = signed.emit(Some(&key));
        assert_eq!((octets.len(), usize::from(octets[3])), (LONGEST_SENT, LONGEST_SENT));
        assert_eq!(Packet::parse(&octets), Ok(signed));
        assert_eq!(Packet::parse(&signed.emit(None)), Ok(plain), "without a key there is no section");
    }

    #[test]
    fn what_follows_the_claimed_length_is_ignored() {
        let plain = packet();
        let mut octets = plain.emit(None);
        octets.extend([0xff; 9]);
        assert_eq!(Packet::parse(&octets), Ok(plain));
    }

    #[test]
    fn every_rule_that_a_packet_can_break_by_itself_has_its_fault() {
        let good = packet().emit(None);
        let with = |at: usize, octet: u8| {
            let mut octets = good.clone();
            octets[at] = octet;
            octets
        };
        let section = |section: &[u8]| {
            let mut octets = with(1, good[1] | AUTHENTICATED);
            octets.extend(section);
            octets[3] = u8::try_from(octets.len()).unwrap();
            octets
        };
        let faults: Vec<(Vec<u8>, PacketFault)> = vec![
            (Vec::new(), PacketFault::Truncated(0)),
            (good[..3].to_vec(), PacketFault::Truncated(3)),
            (good[..23].to_vec(), PacketFault::Length { claimed: 24, there: 23 }),
            (with(0, 0x03), PacketFault::Version(0)),
            (with(0, 0x40), PacketFault::Version(2)),
            (with(3, 23), PacketFault::Length { claimed: 23, there: 24 }),
            (with(3, 25), PacketFault::Length { claimed: 25, there: 24 }),
            (with(2, 0), PacketFault::Multiplier),
            (with(1, good[1] | MULTIPOINT), PacketFault::Multipoint),
            (with(1, good[1] | FINAL), PacketFault::PollAndFinal),
            (with(1, good[1] | AUTHENTICATED), PacketFault::Length { claimed: 24, there: 24 }),
            (section(&[4]), PacketFault::Length { claimed: 25, there: 25 }),
            (section(&[4, 2]), PacketFault::Authentication { kind: 4, len: 2 }),
            (section(&[1, 3]), PacketFault::Authentication { kind: 1, len: 3 }),
            (
                section(&[5, 27].iter().copied().chain([0; 25]).collect::<Vec<_>>()),
                PacketFault::Authentication { kind: 5, len: 27 },
            ),
        ];
        for (octets, fault) in faults {
            assert_eq!(Packet::parse(&octets), Err(fault), "{octets:02x?}");
        }
        let mut nobody = good.clone();
        nobody[4..8].fill(0);
        assert_eq!(Packet::parse(&nobody), Err(PacketFault::MyDiscriminator));
        let password = Packet::parse(&section(&[1, 4, 1, b'x'])).map(|packet| packet.authentication);
        assert_eq!(password, Ok(Some(Authentication::Other(1))), "another type is for the session to judge");
    }
}
