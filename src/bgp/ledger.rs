//! The ledger of an established session: what an agent that dies without a word leaves of it in memory, beside its socket. Floor 1.
//! Octets in and out, and the [`KeptSession`] that they add up to; `socket::ledger` keeps them and asks the kernel.
//!
//! The kernel counts what it took from us and what it gave us. The ledger has, by the same counts, what was to be written from some
//! moment on, and what was read and is not judged yet. So the place in both streams is certain, or known not to be.
//!
//! Layout: the [`Entry`] in front, room for what was read, and behind that the text of the session as it was when the log began,
//! and the log: every octet that was to be written since, in the order of the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::kept::KeptSession;
use super::machine::session::{TimersLeft, send_hold_time};
use super::outbox::sent::SentRoutes;
use super::wire::{
    AfiSafi, Dialect, HEADER_LEN, Message, MpReach, MpUnreach, Parsed, ParsedUpdate, RefreshKind, RouteRefresh, Update,
};
use crate::address::Family;

/// What changes with each read and with each new log. It fits a page, so that no crash leaves half of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Where the text of the session is, and how long.
    pub state_at: u64,
    pub state_len: u64,
    /// Where the log is, and which octet of the stream is its first, as the kernel counts what it took.
    pub log_at: u64,
    pub log_begins: u64,
    /// Where the octets are that were read and are no whole message yet, or were not judged yet; and how many.
    pub unread_at: u64,
    pub unread_len: u64,
    /// How many octets were read, as the kernel counts what it gave.
    pub read: u64,
    /// When that was: nanoseconds since the kernel booted.
    pub read_at: u64,
}

/// Why nobody can go on with the session of an agent that died.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Uncertain {
    #[error("its ledger is not one of this or an earlier version of crier")]
    Entry,
    #[error("its ledger says {there} octets of {what}, and at most {most} are taken")]
    Length { what: &'static str, there: u64, most: u64 },
    #[error(
        "the kernel gave the agent {given} octets of the peer's, and {noted} of them were noted: the next message cannot be found"
    )]
    Read { given: u64, noted: u64 },
    #[error("the kernel took octets that the ledger does not have: what the peer has of the last message is not known")]
    Written,
    #[error("what was written is no sequence of messages: {0}")]
    Messages(String),
}

/// Version 1.
const MAGIC: [u8; 8] = *b"crierBL1";

/// Octets of an [`Entry`].
pub const ENTRY_LEN: usize = MAGIC.len() + 8 * 8 + SUM_LEN;

const SUM_LEN: usize = 8;

impl Entry {
    pub fn emit(&self) -> Vec<u8> {
        let Entry { state_at, state_len, log_at, log_begins, unread_at, unread_len, read, read_at } = *self;
        let fields = [state_at, state_len, log_at, log_begins, unread_at, unread_len, read, read_at];
        let mut octets = MAGIC.to_vec();
        fields.iter().for_each(|field| octets.extend(field.to_le_bytes()));
        let sum = sum(&octets);
        octets.extend(sum);
        octets
    }

    /// Reads what [`Entry::emit`] wrote. Never panics, whatever the octets.
    pub fn parse(octets: &[u8]) -> Result<Entry, Uncertain> {
        let octets: &[u8; ENTRY_LEN] = octets.first_chunk().ok_or(Uncertain::Entry)?;
        let (content, there) = octets.split_at(ENTRY_LEN - SUM_LEN);
        let fields = content.strip_prefix(&MAGIC).filter(|_| sum(content) == there).ok_or(Uncertain::Entry)?;
        let mut fields = fields.as_chunks().0.iter().map(|field| u64::from_le_bytes(*field));
        let mut next = || fields.next().ok_or(Uncertain::Entry);
        Ok(Entry {
            state_at: next()?,
            state_len: next()?,
            log_at: next()?,
            log_begins: next()?,
            unread_at: next()?,
            unread_len: next()?,
            read: next()?,
            read_at: next()?,
        })
    }
}

fn sum(octets: &[u8]) -> [u8; SUM_LEN] {
    Sha256::digest(octets).first_chunk().copied().unwrap_or_default()
}

/// The session as it stood when its agent died. `state` is how it was when the log began, `log` what was to be written since, of
/// which the kernel took the first `written` octets; `unread` is what was read and not judged, at `read_at` since the boot.
///
/// The peer is sent all routes once more that were announced since the log began: with what attributes is not known here.
pub fn rebuild(
    mut state: KeptSession,
    log: &[u8],
    written: usize,
    unread: &[u8],
    read_at: Duration,
) -> Result<KeptSession, Uncertain> {
    let told = Told::read(log, written, &state)?;
    let sent = &mut state.sent;
    for SentRoutes { prefixes, .. } in &mut sent.routes {
        prefixes.retain(|prefix| !told.routes.contains_key(prefix));
    }
    sent.routes.retain(|routes| !routes.prefixes.is_empty());
    sent.outdated.retain(|prefix| !told.routes.contains_key(prefix));
    let announced = told.routes.iter().filter(|(_, announced)| **announced);
    sent.outdated.extend(announced.map(|(prefix, _)| *prefix));
    sent.owes_end_of_rib.retain(|family| !told.ends_of_rib.contains(family));
    sent.owes_refresh.extend(told.open_refreshes);
    state.unwritten = told.unwritten;
    state.unread = unread.to_vec();
    // The peer was heard when something was read last; a KEEPALIVE from here is due at once.
    state.standing.held += read_at.saturating_sub(state.since_boot);
    state.since_boot = read_at;
    let timers = |hold| TimersLeft { hold, keepalive: Duration::ZERO, send_hold: send_hold_time(hold) };
    state.standing.timers = state.negotiated.hold_time.map(timers);
    Ok(state)
}

/// What the peer was told since the log began.
#[derive(Debug, Default)]
struct Told {
    /// The last word about each prefix: whether it was announced.
    routes: BTreeMap<IpNet, bool>,
    ends_of_rib: BTreeSet<Family>,
    /// Families whose routes are sent again, and the end of that was not marked.
    open_refreshes: BTreeSet<Family>,
    /// The rest of a message that the kernel took in part.
    unwritten: Vec<u8>,
}

impl Told {
    fn read(log: &[u8], written: usize, state: &KeptSession) -> Result<Told, Uncertain> {
        // The messages are ours: the peer would take our AS for the first of the path.
        let dialect = Dialect { peer_asn: state.negotiated.local_asn, ..state.negotiated.dialect() };
        let mut told = Told::default();
        let mut at = 0;
        while at < written {
            let rest = log.get(at..).unwrap_or_default();
            let header: &[u8; HEADER_LEN] = rest.first_chunk().ok_or(Uncertain::Written)?;
            let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
            if !(HEADER_LEN..=dialect.max_message_len).contains(&length) {
                return Err(Uncertain::Messages(format!("octet {at} begins a message of {length} octets")));
            }
            let message = rest.get(..length).ok_or(Uncertain::Written)?;
            told.note(message, &dialect)?;
            at += length;
        }
        told.unwritten = log.get(written..at).unwrap_or_default().to_vec();
        Ok(told)
    }

    fn note(&mut self, message: &[u8], dialect: &Dialect) -> Result<(), Uncertain> {
        match Message::parse(message, dialect).map_err(|error| Uncertain::Messages(error.to_string()))? {
            Parsed::Update(ParsedUpdate { update, withdraw_all: _, complaints: _, end_of_rib }) => {
                self.note_update(update);
                self.ends_of_rib.extend(end_of_rib.and_then(AfiSafi::unicast_family));
                Ok(())
            }
            Parsed::RouteRefresh(RouteRefresh { family, kind }) => {
                match (family.unicast_family(), kind) {
                    (Some(family), RefreshKind::Begin) => drop(self.open_refreshes.insert(family)),
                    (Some(family), RefreshKind::End) => drop(self.open_refreshes.remove(&family)),
                    (_, RefreshKind::Request | RefreshKind::Unknown(_)) | (None, _) => {}
                }
                Ok(())
            }
            // An OPEN may have waited in front.
            Parsed::Keepalive | Parsed::Open(_) => Ok(()),
            Parsed::Notification(word) => Err(Uncertain::Messages(format!("the session was about to end: {word}"))),
        }
    }

    fn note_update(&mut self, Update { withdrawn, mp_unreach, attributes: _, mp_reach, announced }: Update) {
        let unreach = mp_unreach.into_iter().flat_map(|MpUnreach { prefixes, .. }| prefixes);
        self.routes.extend(withdrawn.into_iter().chain(unreach).map(|prefix| (prefix, false)));
        let reach = mp_reach.into_iter().flat_map(|MpReach { prefixes, .. }| prefixes);
        self.routes.extend(announced.into_iter().chain(reach).map(|prefix| (prefix, true)));
    }
}

#[cfg(test)]
mod tests;
