//! The ledger of BFD: how the sessions stand that are up, in memory that outlives this process, for the case that the agent dies
//! without a word. Floor 2. Where the memory lies meanwhile is the agent's affair.
//!
//! A text says how they stand, and is written anew when anything but a sequence number changes. Before each packet, the slot of its
//! session says when it is sent and with which sequence number. Both are writes to memory: the thread of BFD waits for no disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::MemfdFlags;

use super::kept::{self, KeptPath};
use crate::clock;

/// Where the text is and how long it is; then a slot for each session; then two places for the text, used in turn.
///
/// What lies in one page is written whole or not at all.
const PAGE: u64 = 4096;
const SLOT_LEN: usize = 16;
const SLOTS: u16 = 4096;
const TEXTS_AT: u64 = PAGE + (SLOT_LEN as u64) * (SLOTS as u64);

/// The ledger of all sessions of this process.
#[derive(Debug)]
pub struct Ledger {
    file: Arc<File>,
    /// In which of the two places the text is.
    second: bool,
}

/// Where one session is noted before each packet.
#[derive(Debug)]
pub(super) struct Slot {
    file: Arc<File>,
    number: u16,
}

impl Ledger {
    /// An empty one, and the descriptor by which another process reads it.
    ///
    /// # Errors
    /// The kernel has no such memory.
    pub fn begin() -> io::Result<(Ledger, OwnedFd)> {
        let file = File::from(rustix::fs::memfd_create("crier-bfd-ledger", MemfdFlags::CLOEXEC)?);
        let memory = file.try_clone()?.into();
        let mut ledger = Ledger { file: Arc::new(file), second: false };
        ledger.note(&[])?;
        Ok((ledger, memory))
    }

    /// These sessions stand, and no others.
    pub(super) fn note(&mut self, paths: &[KeptPath]) -> io::Result<()> {
        let text = kept::emit(paths).map_err(io::Error::other)?;
        if text.len() > kept::LONGEST {
            return Err(io::Error::other("there are more sessions than a ledger has room for"));
        }
        // The other place: what the head tells of stays whole until there is a new head.
        self.second = !self.second;
        let at = text_at(self.second);
        self.file.write_all_at(&text, at)?;
        let length = u64::try_from(text.len()).map_err(io::Error::other)?;
        self.file.write_all_at(&[at.to_le_bytes(), length.to_le_bytes()].concat(), 0)
    }

    /// One that no session has; `None` where all are taken.
    pub(super) fn slot(&self, taken: &BTreeSet<u16>) -> Option<Slot> {
        let number = (0..SLOTS).find(|number| !taken.contains(number))?;
        Some(Slot { file: Arc::clone(&self.file), number })
    }
}

impl Slot {
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Call it before a packet of the session is sent.
    pub(super) fn note(&self, discriminator: NonZeroU32, sequence: u32) -> io::Result<()> {
        let sent_at = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        let mut octets = [0; SLOT_LEN];
        let (at, rest) = octets.split_at_mut(8);
        at.copy_from_slice(&sent_at.to_le_bytes());
        let (who, which) = rest.split_at_mut(4);
        who.copy_from_slice(&discriminator.get().to_le_bytes());
        which.copy_from_slice(&sequence.to_le_bytes());
        let place = PAGE + u64::from(self.number) * u64::try_from(SLOT_LEN).map_err(io::Error::other)?;
        self.file.write_all_at(&octets, place)
    }
}

/// The sessions in the ledger of a process that has died, each with when it last sent. Never panics, whatever the memory holds.
///
/// # Errors
/// Why it cannot be read. A session without a slot is left out.
pub fn recover(memory: OwnedFd) -> Result<Vec<KeptPath>, String> {
    let file = File::from(memory);
    let read = |length: usize, at: u64| {
        let mut octets = vec![0; length];
        file.read_exact_at(&mut octets, at)
            .map(|()| octets)
            .map_err(|error| format!("its ledger cannot be read: {error}"))
    };
    let head = read(16, 0)?;
    let (at, length) = (number(&head, 0), number(&head, 8));
    let length = usize::try_from(length).ok().filter(|length| *length <= kept::LONGEST);
    let (Some(length), true) = (length, at == text_at(false) || at == text_at(true)) else {
        return Err("its ledger has no text where one must be".to_owned());
    };
    let paths = kept::parse(&read(length, at)?).map_err(|fault| fault.to_string())?;
    if paths.is_empty() {
        return Ok(paths);
    }
    // Where the last slots were never used, the file may end before them.
    let slots = read(SLOT_LEN * usize::from(SLOTS), PAGE)?;
    let slots: BTreeMap<u32, (u64, u32)> = slots
        .chunks_exact(SLOT_LEN)
        .map(|slot| (short(slot, 8), (number(slot, 0), short(slot, 12))))
        .filter(|(discriminator, _)| *discriminator != 0)
        .collect();
    let with_slot = |mut path: KeptPath| {
        let (sent_at, sequence) = slots.get(&path.standing.discriminator.get())?;
        path.standing.sequence = *sequence;
        path.silence.as_mut()?.since_boot = Duration::from_nanos(*sent_at);
        Some(path)
    };
    Ok(paths.into_iter().filter_map(with_slot).collect())
}

fn text_at(second: bool) -> u64 {
    let longest = u64::try_from(kept::LONGEST).unwrap_or(u64::MAX);
    if second { TEXTS_AT.saturating_add(longest) } else { TEXTS_AT }
}

fn number(octets: &[u8], at: usize) -> u64 {
    octets.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn short(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bfd::kept::Silence;
    use crate::bfd::kept::tests::path;

    fn live(discriminator: u32) -> KeptPath {
        let mut path = path();
        path.standing.discriminator = NonZeroU32::new(discriminator).unwrap();
        path.silence = Some(Silence { since_boot: Duration::ZERO, patience: Duration::from_millis(900) });
        path
    }

    #[test]
    fn what_was_noted_last_is_recovered_with_the_time_and_sequence_number_of_the_last_packet() {
        let (mut ledger, memory) = Ledger::begin().expect("the kernel has memfd");
        let read = || recover(memory.try_clone().expect("it is open"));
        assert_eq!(read(), Ok(Vec::new()), "none is up");
        let first = ledger.slot(&BTreeSet::new()).expect("there is room");
        let second = ledger.slot(&[first.number()].into()).expect("there is room");
        assert_ne!(first.number(), second.number());
        let before = clock::since_boot();
        first.note(NonZeroU32::new(7).unwrap(), 41).unwrap();
        first.note(NonZeroU32::new(7).unwrap(), 42).unwrap();
        ledger.note(&[live(7), live(8)]).unwrap();
        let there = read().expect("it can be read");
        assert_eq!(there.len(), 1, "the second was never noted before a packet: it is doubtful");
        assert_eq!((there[0].standing.discriminator.get(), there[0].standing.sequence), (7, 42));
        let silence = there[0].silence.expect("it is of an agent that died");
        assert!(silence.since_boot >= before && silence.since_boot <= clock::since_boot(), "{silence:?}");
        second.note(NonZeroU32::new(8).unwrap(), 1).unwrap();
        ledger.note(&[live(8)]).unwrap();
        let there = read().expect("it can be read");
        assert_eq!(there.iter().map(|path| path.standing.discriminator.get()).collect::<Vec<_>>(), [8]);
        ledger.note(&[]).unwrap();
        assert_eq!(read(), Ok(Vec::new()), "none is up any more");
    }

    #[test]
    fn memory_that_is_no_ledger_or_a_damaged_one_is_refused() {
        let (pipe, _other) = io::pipe().expect("a pipe");
        assert!(recover(pipe.into()).is_err());
        let (mut ledger, memory) = Ledger::begin().expect("the kernel has memfd");
        ledger.slot(&BTreeSet::new()).unwrap().note(NonZeroU32::new(7).unwrap(), 1).unwrap();
        ledger.note(&[live(7)]).unwrap();
        let file = &ledger.file;
        let whole = recover(memory.try_clone().unwrap()).expect("it is whole");
        assert_eq!(whole.len(), 1);
        let at = text_at(ledger.second) + 60;
        let mut octet = [0];
        file.read_exact_at(&mut octet, at).unwrap();
        file.write_all_at(&[octet[0] ^ 1], at).unwrap();
        assert!(recover(memory.try_clone().unwrap()).is_err(), "an octet of the text is another one");
        for head in [[0_u8; 16], [0xff; 16]] {
            file.write_all_at(&head, 0).unwrap();
            assert!(recover(memory.try_clone().unwrap()).is_err(), "{head:?}");
        }
    }
}
