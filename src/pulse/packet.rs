//! A pulse on the wire: who sends it, how soon the next one comes, and what the sender says of itself; authenticated with
//! the key of the cluster. Floor 1. Octets in and out; `machine` says what a pulse means.
//!
//! All numbers are in network order: magic (2), version (1), flags (1), key id (4), incarnation (8), sequence (8),
//! MAC (6), interval in milliseconds (2), multiplier (1), eligibility (1), version of the card (4), version of the claims (4), length
//! of the node's name (1) and the name; then sections, each a type (1), a length (2) and as many octets; then the seal,
//! HMAC-SHA-256 over everything before it (32), absent if the key id is 0. A reader skips sections of unknown type.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use ring::hmac;
use sha2::{Digest, Sha256};

use crate::address::MacAddress;
use crate::names::NodeName;
use crate::roster::Eligibility;
use crate::selector::Labels;

/// One pulse. It speaks for the link that it was sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    pub node: NodeName,
    /// Of the sender's end of the link.
    pub mac: MacAddress,
    /// A number for this life of the sender on this link: it grows with every start of the agent. It is also the challenge
    /// that an answer has to repeat.
    pub incarnation: u64,
    /// Grows with every pulse of one incarnation.
    pub sequence: u64,
    /// The next pulse comes within this time: 1 ms to 65535 ms, whole milliseconds.
    pub interval: Duration,
    /// The sender counts as silent after this many missing pulses.
    pub multiplier: NonZeroU8,
    pub eligibility: Eligibility,
    /// The sender answers for addresses.
    pub owner: bool,
    /// Every node that hears this pulse is asked for an answer.
    pub hello: bool,
    /// The sender has no IPv6 on this link: it hears only what comes over IPv4.
    pub needs_ipv4: bool,
    /// The labels changed if this number changed.
    pub card_version: u32,
    /// The claims changed if this number changed.
    pub claims_version: u32,
    /// The nodes that are asked for an answer, by their tickets.
    pub asks: Vec<Ticket>,
    /// The incarnations of the nodes that asked the sender; this pulse is the answer to them.
    pub answers: Vec<u64>,
    pub labels: Option<Labels>,
    pub claims: Option<ClaimsPage>,
    /// Addresses that the sender found in use by foreign hosts, the newest findings first.
    pub occupied: Vec<IpAddr>,
}

/// A page of the addresses that the sender answers for and would keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimsPage {
    /// From 0, and less than `of`.
    pub page: u16,
    pub of: u16,
    pub addresses: Vec<IpAddr>,
}

/// A node's name as a number, for lists of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    pub fn of(node: &NodeName) -> Ticket {
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(node.as_str()).into();
        Ticket(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The key that authenticates the pulses of one cluster. Never printed.
#[derive(Clone)]
pub struct Key {
    /// Absent: pulses are neither authenticated nor checked.
    seal: Option<hmac::Key>,
    id: u32,
}

impl Key {
    /// The least length of a key in octets; a shorter one could be guessed.
    pub const LEAST: usize = 16;

    /// `None` where the secret is shorter than [`Key::LEAST`].
    pub fn of_secret(secret: &[u8]) -> Option<Key> {
        if secret.len() < Key::LEAST {
            return None;
        }
        let seal = hmac::Key::new(hmac::HMAC_SHA256, secret);
        // Identifies the key and reveals nothing else about it; 0 means that there is no key.
        let named = hmac::sign(&seal, b"crier pulse key id");
        let id = named.as_ref().iter().take(4).fold(0, |id: u32, octet| (id << 8) | u32::from(*octet)).max(1);
        Some(Key { seal: Some(seal), id })
    }

    /// No key: pulses of every host on the link are accepted.
    pub fn none() -> Key {
        Key { seal: None, id: 0 }
    }

    pub fn is_none(&self) -> bool {
        self.seal.is_none()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "Key(none)" } else { "Key(...)" })
    }
}

/// Why a datagram was refused. Nothing of it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("not a pulse")]
    Malformed,
    #[error("pulse version {0} is not supported")]
    Version(u8),
    #[error("authenticated with another key")]
    OtherKey,
    #[error("not authenticated: the sender has no key")]
    Unauthenticated,
    #[error("the authentication code is wrong: the pulse was forged or altered")]
    Forged,
}

impl Refused {
    /// The same in words for all pulses of one sender, with the remedy.
    pub fn of_many(self) -> String {
        match self {
            Refused::Malformed => "they are not pulses of crier".to_owned(),
            Refused::Version(version) => format!(
                "they have version {version}, which this crier does not support; run the same version on all nodes"
            ),
            Refused::OtherKey => {
                "they are authenticated with another key; give all nodes the same [pulse] key-file".to_owned()
            }
            Refused::Unauthenticated => {
                "they are not authenticated; give all nodes the same [pulse] key-file".to_owned()
            }
            Refused::Forged => "their authentication code is wrong: they were forged or altered".to_owned(),
        }
    }
}

/// No pulse is longer than the least MTU of IPv6 (RFC 8200 §5), without the headers of IPv6 and UDP.
pub const LONGEST: usize = 1280 - 40 - 8;

/// How many octets the sections may take together, for all of them to fit beside the longest name.
const ROOM: usize = LONGEST - FIXED - LONGEST_NAME - SEAL - 5 * SECTION_HEADER;

/// How many asks go into one pulse, and how many answers.
pub const MOST_NUMBERS: usize = 16;

/// How many occupied addresses go into one pulse. Few are enough: addresses are found one at a time, and the readers
/// remember what they were told before.
pub const MOST_OCCUPIED: usize = 8;

/// How many octets of labels, or of claims, fit into a pulse. They share this room.
pub const MOST_TEXT: usize = ROOM - 2 * 8 * MOST_NUMBERS - MOST_OCCUPIED * IPV6_CLAIM;

const MAGIC: u16 = 0xc41e;
const VERSION: u8 = 1;
const FIXED: usize = 43;
const SEAL: usize = 32;
const LONGEST_NAME: usize = 253;
const SECTION_HEADER: usize = 3;
const IPV4_CLAIM: usize = 5;
const IPV6_CLAIM: usize = 17;

const FLAG_OWNER: u8 = 1;
const FLAG_HELLO: u8 = 2;
const FLAG_NEEDS_IPV4: u8 = 4;

const SECTION_ASKS: u8 = 1;
const SECTION_ANSWERS: u8 = 2;
const SECTION_LABELS: u8 = 3;
const SECTION_CLAIMS: u8 = 4;
const SECTION_OCCUPIED: u8 = 5;

impl Pulse {
    /// Reads a pulse and checks its seal.
    pub fn parse(octets: &[u8], key: &Key) -> Result<Pulse, Refused> {
        let mut reader = Reader(octets);
        if reader.u16()? != MAGIC {
            return Err(Refused::Malformed);
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Refused::Version(version));
        }
        let flags = reader.u8()?;
        let id = reader.u32()?;
        let body = match &key.seal {
            _ if id == key.id && key.is_none() => octets,
            _ if id == 0 => return Err(Refused::Unauthenticated),
            Some(seal) if id == key.id => {
                let body = octets.len().checked_sub(SEAL).ok_or(Refused::Malformed)?;
                let (body, tag) = octets.split_at_checked(body).ok_or(Refused::Malformed)?;
                hmac::verify(seal, body, tag).map_err(|_| Refused::Forged)?;
                body
            }
            Some(_) | None => return Err(Refused::OtherKey),
        };
        let mut reader = Reader(body.get(8..).ok_or(Refused::Malformed)?);
        let incarnation = reader.u64()?;
        let sequence = reader.u64()?;
        let mac = MacAddress(reader.array()?);
        let interval = match reader.u16()? {
            0 => return Err(Refused::Malformed),
            interval => Duration::from_millis(interval.into()),
        };
        let multiplier = NonZeroU8::new(reader.u8()?).ok_or(Refused::Malformed)?;
        let eligibility = self::eligibility(reader.u8()?);
        let card_version = reader.u32()?;
        let claims_version = reader.u32()?;
        let name = reader.short_text()?;
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(Refused::Malformed);
        }
        let mut pulse = Pulse {
            node: NodeName::from(name),
            mac,
            incarnation,
            sequence,
            interval,
            multiplier,
            eligibility,
            owner: flags & FLAG_OWNER != 0,
            hello: flags & FLAG_HELLO != 0,
            needs_ipv4: flags & FLAG_NEEDS_IPV4 != 0,
            card_version,
            claims_version,
            asks: Vec::new(),
            answers: Vec::new(),
            labels: None,
            claims: None,
            occupied: Vec::new(),
        };
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let length = reader.u16()?;
            let mut section = Reader(reader.take(length.into())?);
            match kind {
                SECTION_ASKS => pulse.asks = section.numbers()?.into_iter().map(Ticket).collect(),
                SECTION_ANSWERS => pulse.answers = section.numbers()?,
                SECTION_LABELS => pulse.labels = Some(section.labels()?),
                SECTION_CLAIMS => pulse.claims = Some(section.claims()?),
                SECTION_OCCUPIED => pulse.occupied = section.addresses()?,
                // A later version may add sections.
                _ => {}
            }
        }
        Ok(pulse)
    }

    /// The octets of the pulse, sealed. Lists beyond [`MOST_NUMBERS`] and [`MOST_OCCUPIED`] are cut off, labels that do not
    /// fit are left out (see [`labels_fit`]), and so are claims that do not fit beside the labels.
    pub fn emit(&self, key: &Key) -> Vec<u8> {
        let Pulse {
            node,
            mac,
            incarnation,
            sequence,
            interval,
            multiplier,
            eligibility,
            owner,
            hello,
            needs_ipv4,
            card_version,
            claims_version,
            asks,
            answers,
            labels,
            claims,
            occupied,
        } = self;
        let flag = |set: &bool, flag| if *set { flag } else { 0 };
        let mut octets = Vec::with_capacity(256);
        octets.extend(MAGIC.to_be_bytes());
        octets.push(VERSION);
        octets.push(flag(owner, FLAG_OWNER) | flag(hello, FLAG_HELLO) | flag(needs_ipv4, FLAG_NEEDS_IPV4));
        octets.extend(key.id.to_be_bytes());
        octets.extend(incarnation.to_be_bytes());
        octets.extend(sequence.to_be_bytes());
        octets.extend(mac.0);
        octets.extend(u16::try_from(interval.as_millis()).unwrap_or(u16::MAX).max(1).to_be_bytes());
        octets.push(multiplier.get());
        octets.push(eligibility_code(*eligibility));
        octets.extend(card_version.to_be_bytes());
        octets.extend(claims_version.to_be_bytes());
        put_short_text(&mut octets, node.as_str());
        let numbers = |numbers: &mut dyn Iterator<Item = u64>| -> Vec<u8> {
            numbers.take(MOST_NUMBERS).flat_map(u64::to_be_bytes).collect()
        };
        put_section(&mut octets, SECTION_ASKS, &numbers(&mut asks.iter().map(|ticket| ticket.0)));
        put_section(&mut octets, SECTION_ANSWERS, &numbers(&mut answers.iter().copied()));
        let mut room = MOST_TEXT;
        if let Some(labels) = labels.as_ref().filter(|labels| labels_fit(labels)) {
            let mut section = Vec::new();
            for (name, value) in &labels.0 {
                put_short_text(&mut section, name);
                put_short_text(&mut section, value);
            }
            room -= section.len();
            put_section_even_if_empty(&mut octets, SECTION_LABELS, &section);
        }
        if let Some(claims) = claims.as_ref().filter(|claims| claims.emitted_len() <= room) {
            let ClaimsPage { page, of, addresses } = claims;
            let mut section = [page.to_be_bytes(), of.to_be_bytes()].concat();
            put_addresses(&mut section, addresses);
            put_section_even_if_empty(&mut octets, SECTION_CLAIMS, &section);
        }
        let mut section = Vec::new();
        put_addresses(&mut section, occupied.iter().take(MOST_OCCUPIED));
        put_section(&mut octets, SECTION_OCCUPIED, &section);
        if let Some(seal) = &key.seal {
            let tag = hmac::sign(seal, &octets);
            octets.extend(tag.as_ref());
        }
        octets
    }
}

/// Whether these labels fit into a pulse. A single label always does: Kubernetes bounds names and values.
pub fn labels_fit(labels: &Labels) -> bool {
    let length: usize = labels.0.iter().map(|(name, value)| 2 + name.len() + value.len()).sum();
    length <= MOST_TEXT && labels.0.iter().flat_map(|(name, value)| [name, value]).all(|it| it.len() <= LONGEST_NAME)
}

impl ClaimsPage {
    /// The addresses in as few pages as possible. Each page fits into a pulse without labels.
    pub fn pages(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<ClaimsPage> {
        let empty = || ClaimsPage { page: 0, of: 0, addresses: Vec::new() };
        let mut pages = vec![empty()];
        for address in addresses {
            let full = pages.last().is_none_or(|page| page.emitted_len() + IPV6_CLAIM > MOST_TEXT);
            if full {
                pages.push(empty());
            }
            if let Some(page) = pages.last_mut() {
                page.addresses.push(address);
            }
        }
        // The page numbers end at two million addresses; addresses beyond them are not claimed.
        pages.truncate(u16::MAX.into());
        let of = u16::try_from(pages.len()).unwrap_or(u16::MAX);
        for (number, page) in (0..of).zip(&mut pages) {
            (page.page, page.of) = (number, of);
        }
        pages
    }

    fn emitted_len(&self) -> usize {
        let length = |address: &IpAddr| if address.is_ipv4() { IPV4_CLAIM } else { IPV6_CLAIM };
        4 + self.addresses.iter().map(length).sum::<usize>()
    }
}

fn eligibility(code: u8) -> Eligibility {
    match code {
        0 => Eligibility::Listening,
        1 => Eligibility::Eligible,
        2 => Eligibility::Excluded,
        3 => Eligibility::NetworkUnavailable,
        4 => Eligibility::Leaving,
        5 => Eligibility::NodeUnknown,
        6 => Eligibility::DataPathBad,
        8 => Eligibility::DataPathNotSeen,
        code => Eligibility::Unknown(code),
    }
}

fn eligibility_code(eligibility: Eligibility) -> u8 {
    match eligibility {
        Eligibility::Listening => 0,
        Eligibility::Eligible => 1,
        Eligibility::Excluded => 2,
        Eligibility::NetworkUnavailable => 3,
        Eligibility::Leaving => 4,
        Eligibility::NodeUnknown => 5,
        Eligibility::DataPathBad => 6,
        Eligibility::DataPathNotSeen => 8,
        Eligibility::Unknown(code) => code,
    }
}

/// As tcpdump would say it.
impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pulse { node, incarnation, sequence, interval, multiplier, eligibility, owner, hello, .. } = self;
        write!(f, "pulse {node} {incarnation}.{sequence} {eligibility:?} every {interval:?} x{multiplier}")?;
        if *owner {
            f.write_str(" owner")?;
        }
        if *hello {
            f.write_str(" hello")?;
        }
        write!(f, " asks {} answers {}", self.asks.len(), self.answers.len())
    }
}

fn put_section(octets: &mut Vec<u8>, kind: u8, section: &[u8]) {
    if !section.is_empty() {
        put_section_even_if_empty(octets, kind, section);
    }
}

fn put_section_even_if_empty(octets: &mut Vec<u8>, kind: u8, section: &[u8]) {
    // A section is cut to its room long before this would not fit.
    let Ok(length) = u16::try_from(section.len()) else { return };
    octets.push(kind);
    octets.extend(length.to_be_bytes());
    octets.extend(section);
}

/// Each with the number of its octets before it.
fn put_addresses<'a>(section: &mut Vec<u8>, addresses: impl IntoIterator<Item = &'a IpAddr>) {
    for address in addresses {
        match address {
            IpAddr::V4(v4) => section.extend(std::iter::once(4).chain(v4.octets())),
            IpAddr::V6(v6) => section.extend(std::iter::once(16).chain(v6.octets())),
        }
    }
}

/// A text of at most 255 octets; of a longer one the beginning.
fn put_short_text(octets: &mut Vec<u8>, text: &str) {
    let end = (0..=LONGEST_NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    let text = text.get(..end.unwrap_or(0)).unwrap_or_default();
    octets.push(u8::try_from(text.len()).unwrap_or(0));
    octets.extend(text.as_bytes());
}

/// Takes octets off the front; each step fails if there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refused::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        self.take(N)?.try_into().map_err(|_| Refused::Malformed)
    }

    fn u8(&mut self) -> Result<u8, Refused> {
        self.array().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, Refused> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Refused> {
        self.array().map(u64::from_be_bytes)
    }

    /// Names and labels are what Kubernetes allows in them: no octet that could play tricks on a terminal.
    fn short_text(&mut self) -> Result<&'a str, Refused> {
        let length = self.u8()?;
        let text = str::from_utf8(self.take(length.into())?).map_err(|_| Refused::Malformed)?;
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) { Err(Refused::Malformed) } else { Ok(text) }
    }

    fn numbers(&mut self) -> Result<Vec<u64>, Refused> {
        let mut numbers = Vec::new();
        while !self.is_empty() {
            numbers.push(self.u64()?);
        }
        Ok(numbers)
    }

    fn labels(&mut self) -> Result<Labels, Refused> {
        let mut labels = Labels::default();
        while !self.is_empty() {
            let name = self.short_text()?.to_owned();
            labels.0.insert(name, self.short_text()?.to_owned());
        }
        Ok(labels)
    }

    fn claims(&mut self) -> Result<ClaimsPage, Refused> {
        let (page, of) = (self.u16()?, self.u16()?);
        let addresses = self.addresses()?;
        if page >= of { Err(Refused::Malformed) } else { Ok(ClaimsPage { page, of, addresses }) }
    }

    fn addresses(&mut self) -> Result<Vec<IpAddr>, Refused> {
        let mut addresses = Vec::new();
        while !self.is_empty() {
            addresses.push(match self.u8()? {
                4 => IpAddr::from(self.array::<4>()?),
                16 => IpAddr::from(self.array::<16>()?),
                _ => return Err(Refused::Malformed),
            });
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::of_secret(b"0123456789abcdef").unwrap()
    }

    fn full() -> Pulse {
        Pulse {
            node: "node-1".into(),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            incarnation: 1_700_000_000_000_000,
            sequence: 7,
            interval: Duration::from_millis(100),
            multiplier: NonZeroU8::new(3).unwrap(),
            eligibility: Eligibility::Eligible,
            owner: true,
            hello: false,
            needs_ipv4: true,
            card_version: 5,
            claims_version: 6,
            asks: vec![Ticket::of(&"node-2".into())],
            answers: vec![1, u64::MAX],
            labels: Some(Labels([("rack".to_owned(), "a".to_owned()), ("empty".to_owned(), String::new())].into())),
            claims: Some(ClaimsPage {
                page: 0,
                of: 1,
                addresses: vec!["192.0.2.1".parse().unwrap(), "fd35::1".parse().unwrap()],
            }),
            occupied: vec!["192.0.2.9".parse().unwrap(), "fd35::9".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_emitted_is_read_back_sealed_or_not() {
        let bare = Pulse { asks: vec![], answers: vec![], labels: None, claims: None, occupied: vec![], ..full() };
        let unlabelled = Pulse { labels: Some(Labels::default()), ..bare.clone() };
        for pulse in [full(), bare, unlabelled, Pulse { eligibility: Eligibility::Unknown(99), ..full() }] {
            for key in [key(), Key::none()] {
                assert_eq!(Pulse::parse(&pulse.emit(&key), &key), Ok(pulse.clone()));
            }
        }
    }

    #[test]
    fn every_altered_octet_is_found_out() {
        let octets = full().emit(&key());
        for place in 0..octets.len() {
            for bit in 0..8 {
                let mut altered = octets.clone();
                altered[place] ^= 1 << bit;
                assert!(Pulse::parse(&altered, &key()).is_err(), "octet {place} bit {bit}");
            }
            assert!(Pulse::parse(&octets[..place], &key()).is_err(), "cut to {place} octets");
        }
    }

    #[test]
    fn another_key_no_seal_and_a_forged_seal_are_told_apart() {
        let other = Key::of_secret(b"another key of 32 octets........").unwrap();
        let forged = {
            let mut octets = full().emit(&key());
            *octets.last_mut().unwrap() ^= 1;
            octets
        };
        let table = [
            (full().emit(&other), key(), Refused::OtherKey),
            (full().emit(&Key::none()), key(), Refused::Unauthenticated),
            (full().emit(&key()), Key::none(), Refused::OtherKey),
            (forged, key(), Refused::Forged),
            (b"hello".to_vec(), key(), Refused::Malformed),
        ];
        for (octets, key, expected) in table {
            assert_eq!(Pulse::parse(&octets, &key), Err(expected));
        }
        assert!(Key::of_secret(b"too short").is_none());
        assert_eq!(format!("{:?}", key()), "Key(...)");
    }

    #[test]
    fn the_longest_pulse_fits_into_one_packet_of_any_link() {
        let name = "n".repeat(LONGEST_NAME);
        let mut labels = Labels::default();
        for number in 0.. {
            let mut more = labels.clone();
            more.0.insert(format!("label-{number}"), "v".repeat(40));
            if !labels_fit(&more) {
                break;
            }
            labels = more;
        }
        assert!(labels.0.len() >= 10, "there is room for some labels: {}", labels.0.len());
        let longest = Pulse {
            node: name.as_str().into(),
            asks: vec![Ticket(1); 500],
            answers: vec![2; 500],
            labels: Some(labels),
            claims: Some(ClaimsPage { page: 0, of: 1, addresses: vec!["fd35::1".parse().unwrap(); 3] }),
            occupied: vec!["fd35::2".parse().unwrap(); 500],
            ..full()
        };
        let octets = longest.emit(&key());
        assert!(octets.len() <= LONGEST, "{} octets", octets.len());
        let read = Pulse::parse(&octets, &key()).unwrap();
        assert_eq!((read.asks.len(), read.answers.len()), (MOST_NUMBERS, MOST_NUMBERS));
        assert_eq!(read.labels, longest.labels);
        assert_eq!(read.occupied, longest.occupied[..MOST_OCCUPIED]);

        let many = ClaimsPage::pages((0..1000u32).map(|number| std::net::Ipv6Addr::from(u128::from(number)).into()));
        assert_eq!(many.iter().map(|page| page.addresses.len()).sum::<usize>(), 1000);
        for page in many {
            let octets = Pulse { labels: None, claims: Some(page.clone()), ..longest.clone() }.emit(&key());
            assert!(octets.len() <= LONGEST, "{} octets", octets.len());
            assert_eq!(Pulse::parse(&octets, &key()).unwrap().claims, Some(page));
        }
    }

    #[test]
    fn a_section_of_a_later_version_is_passed_over_and_nonsense_is_refused() {
        let bare = Pulse { asks: vec![], answers: vec![], labels: None, claims: None, occupied: vec![], ..full() };
        let with = |more: &[u8]| [bare.emit(&Key::none()).as_slice(), more].concat();
        assert_eq!(Pulse::parse(&with(&[200, 0, 2, 1, 2]), &Key::none()), Ok(bare.clone()));
        let nonsense: [&[u8]; 7] = [
            &[SECTION_OCCUPIED, 0, 2, 4, 1],
            &[200, 0, 2, 1],
            &[SECTION_ASKS, 0, 3, 1, 2, 3],
            &[SECTION_LABELS, 0, 4, 1, b'a', 1, b'\n'],
            &[SECTION_CLAIMS, 0, 4, 0, 1, 0, 1],
            &[SECTION_CLAIMS, 0, 5, 0, 0, 0, 1, 9],
            &[SECTION_CLAIMS],
        ];
        for octets in nonsense {
            assert_eq!(Pulse::parse(&with(octets), &Key::none()), Err(Refused::Malformed), "{octets:?}");
        }
    }
}
