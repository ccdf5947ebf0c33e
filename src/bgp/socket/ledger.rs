//! The ledger of an established session, in memory that outlives this process together with the socket; and a session that is
//! rebuilt from both after a crash. Floor 2. What the octets mean is `bgp::ledger`'s, where they lie meanwhile the agent's.
//!
//! What is to be written is noted before the kernel is given it, and what was read right after. So of the first there is never too
//! little; of the second there may be, for the moment between two system calls, and then the counts differ.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, MemfdFlags};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::warn;

use super::describe;
use super::kept::{KeptConnection, KeptError};
use super::options::{Taken, taken};
use crate::bgp::kept::{self, KeptSession};
use crate::bgp::ledger::{ENTRY_LEN, Entry, Uncertain, rebuild};
use crate::bgp::wire::MAX_EXTENDED_MESSAGE_LEN;
use crate::clock;
use crate::names::PeerName;

/// The sessions whose sockets are to outlive this process, each with its ledger. Newest wins.
pub type Entrusted = BTreeMap<PeerName, Arc<Trust>>;

/// What is to be stored of one session: two descriptors of this process's, beside those that it works with.
#[derive(Debug)]
pub struct Trust {
    pub socket: OwnedFd,
    pub ledger: OwnedFd,
}

/// Where sessions are entrusted to whoever stores them. Cloned, it is the same place.
#[derive(Debug, Clone)]
pub struct Safe(Arc<watch::Sender<Entrusted>>);

impl Safe {
    pub fn new() -> (Safe, watch::Receiver<Entrusted>) {
        let (sender, receiver) = watch::channel(Entrusted::new());
        (Safe(Arc::new(sender)), receiver)
    }
}

/// The ledger of one connection. Dropped, the session is entrusted to nobody any more.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    entry: Entry,
    /// Which octet of the stream the kernel is given next, by its own count.
    written: u64,
    /// Up to here the log has what is to be written. Never less than `written`.
    logged: u64,
    /// Where the next text and log can be.
    end: u64,
    begun: Instant,
    entrusted: Handle,
}

#[derive(Debug)]
struct Handle {
    safe: Safe,
    peer: PeerName,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.safe.0.send_modify(|entrusted| drop(entrusted.remove(&self.peer)));
    }
}

/// A page: what lies in one is written whole or not at all.
const PAGE: u64 = 4096;

/// Two places for what was read and not judged, used in turn; more than a connection reads ahead.
const UNREAD_ROOM: u64 = 256 << 10;

/// A log that is longer begins anew as soon as it can.
const LONG: u64 = 1 << 20;

/// How long a log with routes runs at least, for each started [`TEXT`] of the session's text: a new one begins with a text of all routes
/// that were sent, which takes the longer the more there are.
const RENEW_AFTER: Duration = Duration::from_secs(10);

/// Some 40,000 routes.
const TEXT: u64 = 1 << 20;

impl Ledger {
    /// Begins with a session that stands as `state` says. Nothing of it may be in the queue but whole messages that carry no routes.
    pub(super) fn begin(stream: &TcpStream, state: &KeptSession, unread: &[u8], safe: &Safe) -> io::Result<Ledger> {
        let text = state.emit().map_err(io::Error::other)?;
        let file = File::from(rustix::fs::memfd_create("crier-bgp-ledger", MemfdFlags::CLOEXEC)?);
        let Taken { written, read } = taken(stream.as_fd())?;
        let first = Entry { unread_at: PAGE, read, ..Entry::default() };
        let end = PAGE + 2 * UNREAD_ROOM;
        let trust = Trust { socket: stream.as_fd().try_clone_to_owned()?, ledger: file.try_clone()?.into() };
        let entrusted = Handle { safe: safe.clone(), peer: state.peer.clone() };
        let begun = clock::now();
        let mut ledger = Ledger { file, entry: first, written, logged: written, end, begun, entrusted };
        ledger.note_unread(0, unread)?;
        ledger.begin_log(&text)?;
        let Handle { safe, peer } = &ledger.entrusted;
        safe.0.send_modify(|entrusted| drop(entrusted.insert(peer.clone(), Arc::new(trust))));
        Ok(ledger)
    }

    /// Begins the log anew with a session that stands as `state` says. Everything that was queued must have been written.
    pub(super) fn renew(&mut self, stream: &TcpStream, state: &KeptSession) -> io::Result<()> {
        let text = state.emit().map_err(io::Error::other)?;
        let counted = taken(stream.as_fd())?.written;
        if counted != self.written {
            let why = format!("the kernel took {counted} octets by its count, and {} by ours", self.written);
            return Err(io::Error::other(why));
        }
        let before = self.entry.state_at;
        self.begin_log(&text)?;
        // What lies before is not needed any more. Where it cannot be given back, it stays until the session ends.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = rustix::fs::fallocate(&self.file, flags, before, self.entry.state_at.saturating_sub(before));
        Ok(())
    }

    fn begin_log(&mut self, text: &[u8]) -> io::Result<()> {
        let state_at = self.end;
        let state_len = u64::try_from(text.len()).map_err(io::Error::other)?;
        self.file.write_all_at(text, state_at)?;
        let log_at = (state_at + state_len).next_multiple_of(PAGE);
        let entry = Entry { state_at, state_len, log_at, log_begins: self.written, ..self.entry };
        self.write_entry(entry)?;
        (self.end, self.logged, self.begun) = (log_at, self.written, clock::now());
        Ok(())
    }

    fn write_entry(&mut self, entry: Entry) -> io::Result<()> {
        self.file.write_all_at(&entry.emit(), 0)?;
        self.entry = entry;
        Ok(())
    }

    /// Call it before the kernel is given these octets, each slice a message or the rest of one.
    pub(super) fn note_queue(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut at = self.written;
        let mut new = Vec::new();
        for slice in slices {
            let known = usize::try_from(self.logged.saturating_sub(at)).unwrap_or(usize::MAX);
            new.extend_from_slice(slice.get(known..).unwrap_or_default());
            at += u64::try_from(slice.len()).map_err(io::Error::other)?;
        }
        if !new.is_empty() {
            self.file.write_all_at(&new, self.place(self.logged))?;
            self.logged = at;
            self.end = self.end.max(self.place(at).next_multiple_of(PAGE));
        }
        Ok(())
    }

    /// The kernel took so many of them.
    pub(super) fn note_written(&mut self, count: usize) {
        self.written += u64::try_from(count).unwrap_or_default();
        self.logged = self.logged.max(self.written);
    }

    /// Behind so many octets that are queued, something else is to be written than was noted.
    pub(super) fn note_change(&mut self, behind: usize) {
        self.logged = self.logged.min(self.written + u64::try_from(behind).unwrap_or_default());
    }

    /// Call it after the kernel gave `count` octets: `unread` is all that was read and is not judged yet.
    pub(super) fn note_unread(&mut self, count: usize, unread: &[u8]) -> io::Result<()> {
        let unread_len = u64::try_from(unread.len()).map_err(io::Error::other)?;
        if unread_len > UNREAD_ROOM {
            return Err(io::Error::other("more was read ahead than there is room for"));
        }
        // The other place: the one that the entry tells of stays whole until there is a new entry.
        let unread_at = if self.entry.unread_at == PAGE { PAGE + UNREAD_ROOM } else { PAGE };
        self.file.write_all_at(unread, unread_at)?;
        let read = self.entry.read + u64::try_from(count).map_err(io::Error::other)?;
        let read_at = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        self.write_entry(Entry { unread_at, unread_len, read, read_at, ..self.entry })
    }

    /// A new log would be shorter. `has_routes`: this one has UPDATEs.
    pub(super) fn is_due(&self, has_routes: bool, now: Instant) -> bool {
        let is_long = self.written - self.entry.log_begins > LONG.max(self.entry.state_len);
        is_long || (has_routes && now >= self.due())
    }

    /// When the log may begin anew for the UPDATEs in it.
    pub(super) fn due(&self) -> Instant {
        let texts = u32::try_from(self.entry.state_len / TEXT).unwrap_or(u32::MAX).saturating_add(1);
        self.begun + RENEW_AFTER.saturating_mul(texts)
    }

    /// Says that it cannot be kept.
    pub(super) fn give_up(&self, error: &io::Error) {
        let Handle { peer, safe: _ } = &self.entrusted;
        warn!(%peer, reason = describe(error), "the ledger of the session cannot be kept: a crash of the agent would end the session");
    }

    fn place(&self, position: u64) -> u64 {
        self.entry.log_at + (position - self.entry.log_begins)
    }
}

impl KeptConnection {
    /// The session of an agent that died: its ledger, and the socket. What is taken for certain is; else the text says what is not.
    ///
    /// A session that was taken over in this way a moment ago is not taken over once more: something in it may be what the agent dies of.
    pub fn recover(ledger: OwnedFd, socket: OwnedFd) -> Result<KeptConnection, (Option<Box<KeptSession>>, KeptError)> {
        let file = File::from(ledger);
        let entry = read_at(&file, 0, len(ENTRY_LEN)).map_err(unreadable)?;
        let entry = Entry::parse(&entry).map_err(uncertain)?;
        let state = bounded(&file, entry.state_at, entry.state_len, "the session", len(kept::LONGEST))?;
        let state = KeptSession::parse(&state).map_err(|fault| (None, fault.into()))?;
        let named = |error: KeptError| (Some(Box::new(state.clone())), error);
        let state = rest(&file, &entry, &state, &socket).map_err(|error| named(error.with_last_word(&socket)))?;
        Ok(KeptConnection { state, socket, after_crash: true, bfd_ended: false })
    }
}

/// How soon after it was taken over from a crashed agent a session counts as what the next one crashed of.
const SUSPECT: Duration = Duration::from_secs(60);

fn rest(file: &File, entry: &Entry, state: &KeptSession, socket: &OwnedFd) -> Result<KeptSession, KeptError> {
    KeptConnection::check(state, socket)?;
    let now = clock::since_boot();
    if state.recovered.is_some_and(|before| now.saturating_sub(before) < SUSPECT) {
        return Err(KeptError::Suspect(SUSPECT.as_secs()));
    }
    let Taken { written, read } = taken(socket.as_fd()).map_err(|error| KeptError::Ended(describe(&error)))?;
    if read != entry.read {
        return Err(Uncertain::Read { given: read, noted: entry.read }.into());
    }
    let written = written.checked_sub(entry.log_begins).ok_or(Uncertain::Written)?;
    let end = file.metadata().map_err(|error| KeptError::Unreadable(describe(&error)))?.len();
    // Behind what was written there may be the rest of a message, and nothing else is of use.
    let log_len = end.saturating_sub(entry.log_at).min(written.saturating_add(len(MAX_EXTENDED_MESSAGE_LEN)));
    let most = len(kept::LONGEST);
    let log = bounded(file, entry.log_at, log_len, "what was written", most).map_err(|(_, error)| error)?;
    let unread =
        bounded(file, entry.unread_at, entry.unread_len, "what was read", UNREAD_ROOM).map_err(|(_, error)| error)?;
    let written = usize::try_from(written).map_err(|_| Uncertain::Written)?;
    let state = rebuild(state.clone(), &log, written, &unread, Duration::from_nanos(entry.read_at))?;
    Ok(KeptSession { recovered: Some(now), ..state })
}

fn bounded(
    file: &File,
    at: u64,
    there: u64,
    what: &'static str,
    most: u64,
) -> Result<Vec<u8>, (Option<Box<KeptSession>>, KeptError)> {
    if there > most {
        return Err(uncertain(Uncertain::Length { what, there, most }));
    }
    read_at(file, at, there).map_err(unreadable)
}

fn read_at(file: &File, at: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut octets = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    file.read_exact_at(&mut octets, at)?;
    Ok(octets)
}

fn len(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn uncertain(why: Uncertain) -> (Option<Box<KeptSession>>, KeptError) {
    (None, why.into())
}

fn unreadable(error: io::Error) -> (Option<Box<KeptSession>>, KeptError) {
    (None, KeptError::Unreadable(describe(&error)))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::Bytes;
    use tokio::net::TcpListener;

    use super::*;
    use crate::address::ScopedAddress;
    use crate::bgp::kept::tests::kept;
    use crate::bgp::socket::{Connection, ConnectionEvent, LedgerStep};

    const KEEPALIVE: [u8; 19] =
        [255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 19, 4];

    async fn connection() -> (Connection, TcpStream, KeptSession) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let (accepted, peer) =
            tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().expect("it is bound")));
        let (stream, peer) = (accepted.expect("it is accepted").0, peer.expect("it connects"));
        let (local, remote) = (stream.local_addr().expect("it is open"), stream.peer_addr().expect("it is open"));
        let address = ScopedAddress { ip: remote.ip(), interface: None };
        (Connection::new(stream), peer, KeptSession { local, remote, address, unwritten: Vec::new(), ..kept() })
    }

    async fn write_keepalive(connection: &mut Connection) {
        connection.queue_routes(Bytes::from_static(&KEEPALIVE));
        assert!(matches!(poll_fn(|cx| connection.poll_event(4096, cx)).await, ConnectionEvent::Sent));
    }

    fn recover(entrusted: &watch::Receiver<Entrusted>) -> Result<KeptConnection, String> {
        let trust = entrusted.borrow().values().next().cloned().expect("it is entrusted");
        let (ledger, socket) = (trust.ledger.try_clone().expect("open"), trust.socket.try_clone().expect("open"));
        KeptConnection::recover(ledger, socket).map_err(|(_, error)| error.to_string())
    }

    #[tokio::test]
    async fn a_log_that_begins_anew_says_the_same_of_the_stream() {
        let (mut connection, _peer, state) = connection().await;
        let (safe, entrusted) = Safe::new();
        write_keepalive(&mut connection).await;
        connection.keep_ledger(LedgerStep::Begin, &state, &safe).expect("it can begin within a session");
        for round in 0..5 {
            for _ in 0..300 {
                write_keepalive(&mut connection).await;
            }
            let state = KeptSession { open_received: vec![round; 5000], ..state.clone() };
            connection.keep_ledger(LedgerStep::Renew, &state, &safe).expect("everything was written");
            write_keepalive(&mut connection).await;
            let kept = recover(&entrusted).unwrap_or_else(|why| panic!("round {round}: {why}"));
            assert_eq!((kept.state.open_received, kept.state.unwritten), (vec![round; 5000], Vec::new()));
        }
        drop(connection);
        assert!(entrusted.borrow().is_empty(), "a connection that is gone is entrusted to nobody");
    }

    #[tokio::test]
    async fn what_changes_in_the_queue_after_it_was_noted_is_noted_as_it_is_written() {
        let (mut connection, _peer, state) = connection().await;
        let (safe, entrusted) = Safe::new();
        connection.keep_ledger(LedgerStep::Begin, &state, &safe).expect("it can begin");
        // So many that the socket takes some of them only, and then one that overtakes the rest.
        loop {
            connection.queue_routes(Bytes::from(KEEPALIVE.repeat(200)));
            if poll_fn(|cx| std::task::Poll::Ready(connection.poll_event(4096, cx).is_pending())).await {
                tokio::task::yield_now().await;
                if poll_fn(|cx| std::task::Poll::Ready(connection.poll_event(4096, cx).is_pending())).await {
                    break;
                }
            }
        }
        connection.queue_control(Bytes::from_static(&KEEPALIVE));
        let kept = recover(&entrusted).unwrap_or_else(|why| panic!("{why}"));
        assert!(kept.state.unwritten.len() < KEEPALIVE.len(), "at most the rest of one message");
    }

    #[tokio::test]
    async fn what_is_no_ledger_is_refused() {
        let (mut connection, _peer, state) = connection().await;
        let (safe, entrusted) = Safe::new();
        connection.keep_ledger(LedgerStep::Begin, &state, &safe).expect("it can begin");
        let ledger = File::from(entrusted.borrow().values().next().expect("one").ledger.try_clone().expect("open"));
        let good = recover(&entrusted).map(drop);
        assert_eq!(good, Ok(()));
        let entry = read_at(&ledger, 0, len(ENTRY_LEN)).expect("it has one");
        let entry = Entry::parse(&entry).expect("it is one");
        let table = [
            ("and at most", Entry { state_len: u64::MAX, ..entry }),
            ("cannot be read", Entry { state_at: 1 << 40, ..entry }),
            ("does not begin with", Entry { state_at: entry.state_at + 1, state_len: entry.state_len - 1, ..entry }),
            ("and at most", Entry { unread_len: 1 << 30, ..entry }),
            ("were noted", Entry { read: entry.read + 1, ..entry }),
            ("does not have", Entry { log_begins: entry.log_begins + 1, ..entry }),
        ];
        for (why, damaged) in table {
            ledger.write_all_at(&damaged.emit(), 0).expect("there is room");
            let refused = recover(&entrusted).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        }
        ledger.write_all_at(b"garbage", 0).expect("there is room");
        assert!(recover(&entrusted).expect_err("garbage").contains("is not one of this or an earlier version"));
    }
}
