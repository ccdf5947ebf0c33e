//! A pulse on the wire: who sends it, how soon the next one comes, and what the sender says of itself; authenticated with
//! the key of the cluster. Floor 1. Octets in and out; `machine` says what a pulse means.
//!
//! All numbers are in network order: magic (2), version (1), flags (1), key id (4), incarnation (8), sequence (8),
//! MAC (6), interval in milliseconds (2), multiplier (1), eligibility (1), version of the card (4), version of the holdings
//! (4), length of the node's name (1) and the name; then sections, each a type (1), a length (2) and as many octets; then
//! the seal, HMAC-SHA-256 over everything before it (32), absent if the key id is 0. A reader skips sections of unknown
//! type, so that a later version may add some. Flags and eligibilities that are unknown count as not set and not eligible.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use ipnet::IpNet;
use ring::hmac;

use super::addresses::{self, PLAIN, Writer};
use super::holdings::{Change, Page};
pub use super::key::{Key, Keys, MOST_KEYS};
use crate::address::MacAddress;
use crate::names::NodeName;
use crate::roster::{
    Card, Eligibility, Ends, Given, Holding, KeyId, L2Number, LinkNumber, MOST_ENDS, MOST_GATEWAYS, MOST_SUBNETS,
    NodeTicket, Sessions,
};

/// One pulse. It speaks for the link that it was sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The key that seals it, or that it was sealed with.
    pub key: KeyId,
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
    /// The sender hears its API server, or needs none.
    pub hears_api_server: bool,
    /// The sender waits for nodes that say [`Pulse::back_in`].
    pub waits: bool,
    /// The sender misses all others, and its link receives no frame of anybody: whoever reads this knows better than it that it is not alone.
    pub receives_nothing: bool,
    /// The card changed if this number changed.
    pub card_version: u32,
    /// The holdings changed if this number changed.
    pub holdings_version: u32,
    /// The nodes that are asked for an answer, by their tickets.
    pub asks: Vec<NodeTicket>,
    /// The incarnations of the nodes that asked the sender; this pulse is the answer to them.
    pub answers: Vec<u64>,
    pub card: Option<Card>,
    /// The keys that the sender accepts; empty where that is only [`Pulse::key`].
    pub accepts: Vec<KeyId>,
    pub change: Option<Change>,
    pub page: Option<Page>,
    /// Addresses that the sender found in use by foreign hosts, the newest findings first.
    pub occupied: Vec<IpAddr>,
    /// One stretch of the addresses that packets of pods leave with by the sender, by turns. `None` as long as that is not known.
    pub egress: Option<Page>,
    /// The sender says by turns which addresses it announces over BGP, because it hears a node that does not hear its API server. Where it
    /// says so no more, nothing of this is known any more.
    pub tells_over_bgp: bool,
    /// One stretch of these addresses.
    pub over_bgp: Option<Page>,
    /// How the BGP sessions of the sender stand; `None` where it has no peer to announce to.
    pub sessions: Option<Sessions>,
    /// The agent of the sender restarts: what it held before, it has again within this time. Until then it is not to be taken for
    /// dead, whatever is heard of it. From 1 ms to 65535 ms, whole milliseconds.
    pub back_in: Option<Duration>,
    /// A node that is told that an incarnation above its own is known of it: its clock went back, and what it knew of its former life is
    /// lost. Its pulses are taken for recordings of an earlier life until it goes on above that one.
    pub corrects: Option<(NodeTicket, u64)>,
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
                "they are authenticated with another key; give all nodes the same [pulse] key-file; while the key is \
                 changed node by node, name the former key in old-key-files of every node that has the new one"
                    .to_owned()
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

/// How many asks go into one pulse, and how many answers.
pub const MOST_NUMBERS: usize = 16;

/// How many occupied addresses go into one pulse. Few are enough: addresses are found one at a time, and the readers
/// remember what they were told before.
pub const MOST_OCCUPIED: usize = 8;

/// How many `[[l2]]` a card names.
const MOST_WEIGHTS: usize = 32;

const MAGIC: u16 = 0xc41e;
const VERSION: u8 = 2;
const SEAL: usize = 32;
const LONGEST_NAME: usize = 253;
const SECTION_HEADER: usize = 3;
/// In the room of how many questions a correction fits.
const CORRECTION_ASKS: usize = 3;
/// What a change or a page needs beside its lists at most.
const STRETCH: usize = 2 * 17;

const FLAG_OWNER: u8 = 1;
const FLAG_HELLO: u8 = 2;
const FLAG_HEARS_API_SERVER: u8 = 4;
const FLAG_WAITS: u8 = 8;
const FLAG_RECEIVES_NOTHING: u8 = 16;
const FLAG_TELLS_OVER_BGP: u8 = 32;

const SECTION_ASKS: u8 = 1;
const SECTION_ANSWERS: u8 = 2;
const SECTION_OCCUPIED: u8 = 3;
const SECTION_CARD: u8 = 4;
const SECTION_CHANGE: u8 = 5;
const SECTION_PAGE: u8 = 6;
const SECTION_KEYS: u8 = 7;
const SECTION_BACK: u8 = 8;
const SECTION_GIVEN: u8 = 9;
const SECTION_EGRESS: u8 = 10;
const SECTION_LEASE: u8 = 11;
const SECTION_ENDS: u8 = 12;
const SECTION_GATEWAYS: u8 = 13;
const SECTION_CORRECTS: u8 = 14;
const SECTION_OVER_BGP: u8 = 15;
const SECTION_SESSIONS: u8 = 16;

impl Pulse {
    /// Reads a pulse and checks its seal against the key that it names.
    pub fn parse(octets: &[u8], keys: &Keys) -> Result<Pulse, Refused> {
        let mut reader = Reader(octets);
        if reader.u16()? != MAGIC {
            return Err(Refused::Malformed);
        }
        let version = reader.u8()?;
        if version != VERSION {
            return Err(Refused::Version(version));
        }
        let flags = reader.u8()?;
        let id = KeyId(reader.u32()?);
        let key = match keys.accepted().find(|key| key.id == id) {
            Some(key) => key,
            None if id == KeyId::NONE => return Err(Refused::Unauthenticated),
            None => return Err(Refused::OtherKey),
        };
        let body = match &key.seal {
            None => octets,
            Some(seal) => {
                let body = octets.len().checked_sub(SEAL).ok_or(Refused::Malformed)?;
                let (body, tag) = octets.split_at_checked(body).ok_or(Refused::Malformed)?;
                hmac::verify(seal, body, tag).map_err(|_| Refused::Forged)?;
                body
            }
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
        let holdings_version = reader.u32()?;
        let name = reader.short_text()?;
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(Refused::Malformed);
        }
        let mut pulse = Pulse {
            key: id,
            node: NodeName::from(name),
            mac,
            incarnation,
            sequence,
            interval,
            multiplier,
            eligibility,
            owner: flags & FLAG_OWNER != 0,
            hello: flags & FLAG_HELLO != 0,
            hears_api_server: flags & FLAG_HEARS_API_SERVER != 0,
            waits: flags & FLAG_WAITS != 0,
            receives_nothing: flags & FLAG_RECEIVES_NOTHING != 0,
            card_version,
            holdings_version,
            asks: Vec::new(),
            answers: Vec::new(),
            card: None,
            accepts: Vec::new(),
            change: None,
            page: None,
            occupied: Vec::new(),
            egress: None,
            tells_over_bgp: flags & FLAG_TELLS_OVER_BGP != 0,
            over_bgp: None,
            sessions: None,
            back_in: None,
            corrects: None,
        };
        let (mut given, mut lease, mut ends, mut gateways) = (None, None, None, BTreeSet::new());
        while !reader.is_empty() {
            let kind = reader.u8()?;
            let length = reader.u16()?;
            let mut section = Reader(reader.take(length.into())?);
            match kind {
                SECTION_ASKS => pulse.asks = section.numbers()?.into_iter().map(NodeTicket).collect(),
                SECTION_ANSWERS => pulse.answers = section.numbers()?,
                SECTION_OCCUPIED => pulse.occupied = section.addresses()?,
                SECTION_CARD => pulse.card = Some(section.card()?),
                SECTION_CHANGE => pulse.change = Some(section.change()?),
                SECTION_PAGE => pulse.page = Some(section.page()?),
                SECTION_KEYS => pulse.accepts = section.key_ids()?,
                SECTION_EGRESS => pulse.egress = Some(section.page()?),
                SECTION_OVER_BGP => pulse.over_bgp = Some(section.page()?),
                // What a later version adds behind it is left out.
                SECTION_SESSIONS => pulse.sessions = self::sessions(section.u8()?),
                SECTION_BACK => pulse.back_in = section.milliseconds()?,
                // What a later version adds behind it is left out.
                SECTION_CORRECTS => pulse.corrects = Some((NodeTicket(section.u64()?), section.u64()?)),
                SECTION_GIVEN => given = Some(section.given()?),
                // What a later version adds behind it is left out.
                SECTION_LEASE => lease = Some(section.u64()?),
                SECTION_ENDS => ends = Some(section.ends()?),
                SECTION_GATEWAYS => gateways = section.addresses()?.into_iter().collect(),
                // A later version may add sections.
                _ => {}
            }
        }
        if let Some(card) = &mut pulse.card {
            (card.given, card.lease, card.ends, card.gateways) = (given, lease, ends, gateways);
        }
        Ok(pulse)
    }

    /// The octets of the pulse, sealed with this key. Lists beyond [`MOST_NUMBERS`], [`MOST_OCCUPIED`], [`MOST_WEIGHTS`],
    /// [`MOST_SUBNETS`], [`MOST_GATEWAYS`] and [`MOST_KEYS`] are cut off. The whole is no longer than [`LONGEST`] if change and page fit into [`Pulse::room`].
    pub fn emit(&self, key: &Key) -> Vec<u8> {
        let mut octets = self.emit_without_holdings(key);
        if let Some(change) = &self.change {
            put_section(&mut octets, SECTION_CHANGE, &change_octets(change));
        }
        if let Some(page) = &self.page {
            put_section(&mut octets, SECTION_PAGE, &page_octets(page));
        }
        if let Some(seal) = &key.seal {
            let tag = hmac::sign(seal, &octets);
            octets.extend(tag.as_ref());
        }
        octets
    }

    /// How many octets the lists of one more change or page may take, beside what the pulse says already.
    pub fn room(&self) -> usize {
        let change = self.change.as_ref().map_or(0, |change| SECTION_HEADER + change_octets(change).len());
        let said = self.emit_without_holdings(&Key::none()).len() + change;
        LONGEST.saturating_sub(said + SEAL + SECTION_HEADER + STRETCH)
    }

    fn emit_without_holdings(&self, key: &Key) -> Vec<u8> {
        let Pulse {
            key: _,
            node,
            mac,
            incarnation,
            sequence,
            interval,
            multiplier,
            eligibility,
            owner,
            hello,
            hears_api_server,
            waits,
            receives_nothing,
            card_version,
            holdings_version,
            asks,
            answers,
            card,
            accepts,
            change: _,
            page: _,
            occupied,
            egress,
            tells_over_bgp,
            over_bgp,
            sessions,
            back_in,
            corrects,
        } = self;
        let flag = |set: &bool, flag| if *set { flag } else { 0 };
        let mut octets = Vec::with_capacity(256);
        octets.extend(MAGIC.to_be_bytes());
        octets.push(VERSION);
        let hears = flag(hears_api_server, FLAG_HEARS_API_SERVER);
        let tells = flag(tells_over_bgp, FLAG_TELLS_OVER_BGP);
        let says = flag(waits, FLAG_WAITS) | flag(receives_nothing, FLAG_RECEIVES_NOTHING) | tells;
        octets.push(flag(owner, FLAG_OWNER) | flag(hello, FLAG_HELLO) | hears | says);
        octets.extend(key.id.0.to_be_bytes());
        octets.extend(incarnation.to_be_bytes());
        octets.extend(sequence.to_be_bytes());
        octets.extend(mac.0);
        octets.extend(u16::try_from(interval.as_millis()).unwrap_or(u16::MAX).max(1).to_be_bytes());
        octets.push(multiplier.get());
        octets.push(eligibility_code(*eligibility));
        octets.extend(card_version.to_be_bytes());
        octets.extend(holdings_version.to_be_bytes());
        put_short_text(&mut octets, node.as_str());
        let numbers = |numbers: &mut dyn Iterator<Item = u64>, most| -> Vec<u8> {
            numbers.take(most).flat_map(u64::to_be_bytes).collect()
        };
        // A correction takes the room of questions, which are put again.
        let most_asks = if corrects.is_some() { MOST_NUMBERS - CORRECTION_ASKS } else { MOST_NUMBERS };
        put_list(&mut octets, SECTION_ASKS, &numbers(&mut asks.iter().map(|ticket| ticket.0), most_asks));
        put_list(&mut octets, SECTION_ANSWERS, &numbers(&mut answers.iter().copied(), MOST_NUMBERS));
        // It takes the room that a name of usual length leaves, as do the links below. Where there is none the pulse never says it.
        let of_sessions = sessions.map(|it| [sessions_code(it)]);
        let of_sessions = of_sessions.filter(|it| node.as_str().len() + SECTION_HEADER + it.len() <= LONGEST_NAME);
        if let Some(section) = of_sessions {
            put_section(&mut octets, SECTION_SESSIONS, &section);
        }
        let taken = node.as_str().len() + of_sessions.map_or(0, |it| SECTION_HEADER + it.len());
        let mut section = Vec::new();
        occupied.iter().take(MOST_OCCUPIED).for_each(|address| put_address(&mut section, *address));
        put_list(&mut octets, SECTION_OCCUPIED, &section);
        if let Some(card) = card {
            put_section(&mut octets, SECTION_CARD, &card_octets(card));
            // Parts of the card with a section of their own, so that earlier versions skip them.
            if let Some(Given { services, addresses }) = card.given {
                put_section(&mut octets, SECTION_GIVEN, &[services.to_be_bytes(), addresses.to_be_bytes()].concat());
            }
            if let Some(lease) = card.lease {
                put_section(&mut octets, SECTION_LEASE, &lease.to_be_bytes());
            }
            let ends = card.ends.as_ref().filter(|ends| ends.all.len() <= MOST_ENDS).map(ends_octets);
            if let Some(ends) = ends.filter(|ends| taken + SECTION_HEADER + ends.len() <= LONGEST_NAME) {
                put_section(&mut octets, SECTION_ENDS, &ends);
            }
            let mut gateways = Vec::new();
            card.gateways.iter().take(MOST_GATEWAYS).for_each(|address| put_address(&mut gateways, *address));
            put_list(&mut octets, SECTION_GATEWAYS, &gateways);
        }
        let ids: Vec<u8> = accepts.iter().take(MOST_KEYS).flat_map(|id| id.0.to_be_bytes()).collect();
        put_list(&mut octets, SECTION_KEYS, &ids);
        let back_in = back_in.map_or(0, |time| u16::try_from(time.as_millis()).unwrap_or(u16::MAX));
        if let Some(page) = egress {
            put_section(&mut octets, SECTION_EGRESS, &page_octets(page));
        }
        if let Some(page) = over_bgp {
            put_section(&mut octets, SECTION_OVER_BGP, &page_octets(page));
        }
        if back_in > 0 {
            put_section(&mut octets, SECTION_BACK, &back_in.to_be_bytes());
        }
        if let Some((NodeTicket(node), known)) = corrects {
            put_section(&mut octets, SECTION_CORRECTS, &[node.to_be_bytes(), known.to_be_bytes()].concat());
        }
        octets
    }
}

/// The digests (8 each), how many weights (1), each with the number of its `[[l2]]` (4, 4), and the subnets, each with its length
/// behind it.
fn card_octets(card: &Card) -> Vec<u8> {
    let Card { weights, subnets, ownership_digest, allocation_digest, given: _, lease: _, ends: _, gateways } = card;
    let mut octets = [ownership_digest.to_be_bytes(), allocation_digest.to_be_bytes()].concat();
    octets.push(u8::try_from(weights.len().min(MOST_WEIGHTS)).unwrap_or(0));
    for (L2Number(number), weight) in weights.iter().take(MOST_WEIGHTS) {
        octets.extend(number.to_be_bytes());
        octets.extend(weight.to_be_bytes());
    }
    // Gateways have a section of their own, and take the room of as many subnets.
    for subnet in subnets.iter().take(MOST_SUBNETS - gateways.len().min(MOST_GATEWAYS)) {
        put_address(&mut octets, subnet.addr());
        octets.push(subnet.prefix_len());
    }
    octets
}

/// The link that this is said by (4), how many links there are (1), and each of them (4).
fn ends_octets(Ends { this, all }: &Ends) -> Vec<u8> {
    let mut octets = this.0.to_be_bytes().to_vec();
    octets.push(u8::try_from(all.len()).unwrap_or(0));
    octets.extend(all.iter().flat_map(|link| link.0.to_be_bytes()));
    octets
}

/// The version that it reaches back to (4), how many octets the holdings take (2) and these, and the addresses that are released.
fn change_octets(change: &Change) -> Vec<u8> {
    let Change { since, held, released } = change;
    let holdings = list_octets(held.iter().copied());
    let mut octets = since.to_be_bytes().to_vec();
    octets.extend(u16::try_from(holdings.len()).unwrap_or(0).to_be_bytes());
    octets.extend(holdings);
    octets.extend(list_octets(released.iter().map(|address| (*address, PLAIN))));
    octets
}

/// The beginning and the end of the stretch, each an address or 0, and the holdings.
fn page_octets(page: &Page) -> Vec<u8> {
    let Page { after, through, held } = page;
    let mut octets = Vec::new();
    for end in [after, through] {
        match end {
            Some(address) => put_address(&mut octets, *address),
            None => octets.push(0),
        }
    }
    octets.extend(list_octets(held.iter().copied()));
    octets
}

fn list_octets(list: impl Iterator<Item = (IpAddr, Holding)>) -> Vec<u8> {
    let mut writer = Writer::default();
    for (address, holding) in list {
        if !writer.add(address, holding, LONGEST) {
            break;
        }
    }
    writer.finish()
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
        7 => Eligibility::ViewStale,
        8 => Eligibility::DataPathNotSeen,
        9 => Eligibility::Draining,
        10 => Eligibility::Drained,
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
        Eligibility::ViewStale => 7,
        Eligibility::DataPathNotSeen => 8,
        Eligibility::Draining => 9,
        Eligibility::Drained => 10,
        Eligibility::Unknown(code) => code,
    }
}

/// `None` for a word of a later version.
fn sessions(code: u8) -> Option<Sessions> {
    match code {
        0 => Some(Sessions::Stand),
        1 => Some(Sessions::Missing),
        2 => Some(Sessions::Away),
        _ => None,
    }
}

fn sessions_code(sessions: Sessions) -> u8 {
    match sessions {
        Sessions::Stand => 0,
        Sessions::Missing => 1,
        Sessions::Away => 2,
    }
}

/// As tcpdump would say it.
impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pulse { node, incarnation, sequence, interval, multiplier, eligibility, owner, hello, back_in, .. } = self;
        write!(f, "pulse {node} {incarnation}.{sequence} {eligibility:?} every {interval:?} x{multiplier}")?;
        if *owner {
            f.write_str(" owner")?;
        }
        if *hello {
            f.write_str(" hello")?;
        }
        if let Some(time) = back_in {
            write!(f, " back in {time:?}")?;
        }
        write!(f, " asks {} answers {}", self.asks.len(), self.answers.len())
    }
}

/// A list that is empty needs no section.
fn put_list(octets: &mut Vec<u8>, kind: u8, section: &[u8]) {
    if !section.is_empty() {
        put_section(octets, kind, section);
    }
}

fn put_section(octets: &mut Vec<u8>, kind: u8, section: &[u8]) {
    // A section is cut to its room long before this would not fit.
    let Ok(length) = u16::try_from(section.len()) else { return };
    octets.push(kind);
    octets.extend(length.to_be_bytes());
    octets.extend(section);
}

/// With the number of its octets before it.
fn put_address(octets: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => octets.extend(std::iter::once(4).chain(v4.octets())),
        IpAddr::V6(v6) => octets.extend(std::iter::once(16).chain(v6.octets())),
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

    /// Names are what Kubernetes allows in them: no octet that could play tricks on a terminal.
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

    /// A time in milliseconds, or none for 0. What a later version adds behind it is left out.
    fn milliseconds(&mut self) -> Result<Option<Duration>, Refused> {
        let time = self.u16()?;
        Ok((time > 0).then(|| Duration::from_millis(time.into())))
    }

    /// Those beyond [`MOST_KEYS`] are left out.
    fn key_ids(&mut self) -> Result<Vec<KeyId>, Refused> {
        let mut ids = Vec::new();
        while !self.is_empty() {
            ids.push(KeyId(self.u32()?));
        }
        ids.truncate(MOST_KEYS);
        Ok(ids)
    }

    fn card(&mut self) -> Result<Card, Refused> {
        let (ownership_digest, allocation_digest) = (self.u64()?, self.u64()?);
        let mut weights = BTreeMap::new();
        for _ in 0..self.u8()? {
            weights.insert(L2Number(self.u32()?), self.u32()?);
        }
        let mut subnets = BTreeSet::new();
        while !self.is_empty() {
            let address = self.address()?;
            subnets.insert(IpNet::new(address, self.u8()?).map_err(|_| Refused::Malformed)?);
        }
        let card = Card { weights, subnets, ownership_digest, allocation_digest, ..Card::default() };
        Ok(card)
    }

    /// What a later version adds behind it is left out.
    fn given(&mut self) -> Result<Given, Refused> {
        Ok(Given { services: self.u64()?, addresses: self.u64()? })
    }

    /// As above.
    fn ends(&mut self) -> Result<Ends, Refused> {
        let this = LinkNumber(self.u32()?);
        let mut all = BTreeSet::new();
        for _ in 0..self.u8()? {
            all.insert(LinkNumber(self.u32()?));
        }
        Ok(Ends { this, all })
    }

    fn change(&mut self) -> Result<Change, Refused> {
        let since = self.u32()?;
        let length = self.u16()?;
        let held = addresses::read(self.take(length.into())?).ok_or(Refused::Malformed)?;
        let released = addresses::read(self.rest()).ok_or(Refused::Malformed)?;
        Ok(Change { since, held, released: released.into_iter().map(|(address, _)| address).collect() })
    }

    fn page(&mut self) -> Result<Page, Refused> {
        let (after, through) = (self.end()?, self.end()?);
        Ok(Page { after, through, held: addresses::read(self.rest()).ok_or(Refused::Malformed)? })
    }

    /// The end of a stretch: 0 where the address space ends.
    fn end(&mut self) -> Result<Option<IpAddr>, Refused> {
        match self.0.split_first() {
            Some((0, rest)) => {
                self.0 = rest;
                Ok(None)
            }
            Some(_) | None => self.address().map(Some),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn addresses(&mut self) -> Result<Vec<IpAddr>, Refused> {
        let mut addresses = Vec::new();
        while !self.is_empty() {
            addresses.push(self.address()?);
        }
        Ok(addresses)
    }

    fn address(&mut self) -> Result<IpAddr, Refused> {
        match self.u8()? {
            4 => self.array::<4>().map(IpAddr::from),
            16 => self.array::<16>().map(IpAddr::from),
            _ => Err(Refused::Malformed),
        }
    }
}

#[cfg(test)]
#[path = "packet/tests.rs"]
mod tests;
