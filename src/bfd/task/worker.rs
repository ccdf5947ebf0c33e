//! The thread that runs every BFD session: it reads the sockets, sends what is due, and says how the sessions stand. Floor 2.
//! It follows what the plan says and decides nothing: `machine` judges packets and silence.

mod own_end;
mod receivers;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::receivers::{Door, Place, Receivers};
use self::watched::{Flaps, Watched};
use crate::bfd::counters::Counters;
use crate::bfd::discard::Discard;
use crate::bfd::kept::KeptPath;
use crate::bfd::ledger::Ledger;
use crate::bfd::packet::Packet;
use crate::bfd::socket::{Datagram, wait};
use crate::clock;
use crate::in_session::{InSession, Router};
use crate::names::PeerName;
use crate::plan::slice::{BfdPeer, BfdSlice};
use crate::world::BfdSessions;

/// Packets read before timers are judged, however many more wait: a flood must not hold the timers for ever.
const MOST_READ_FIRST: usize = 2048;

/// Packets read from one socket before the next has its turn.
const BATCH: usize = 64;

/// After as many packets as [`MOST_READ_FIRST`], the thread leaves the core to others for so long: it has a priority that nobody else has.
const BREATH: Duration = Duration::from_millis(1);

/// How often sockets that could not be opened are tried again, and devices are looked after that may have been made anew.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// For how long a session goes on that no peer has any more, at most: longer than BGP takes to end its own.
const LEAVING: Duration = Duration::from_secs(3);

/// How often it is looked whether BGP has.
const GLANCE: Duration = Duration::from_millis(5);

/// How the sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Each peer is told that this end holds the session down.
    HoldDown,
    /// Another process goes on with those whose peers agree to wait.
    Rest,
}

/// How long peers may take to agree to wait. They answer a Poll at once; at the default interval there is time for three, for a packet
/// may be lost and a router be busy.
const REST_PATIENCE: Duration = Duration::from_secs(1);

/// The thread. It owns everything in here but the counters.
pub(super) struct Worker {
    slices: watch::Receiver<BfdSlice>,
    /// Sessions of the previous agent that no peer has taken up yet.
    kept: Vec<KeptPath>,
    /// For the case that the agent dies, where there is anything that outlives it.
    ledger: Option<Ledger>,
    /// A session that the ledger may have is not here any more.
    unnoted: bool,
    stopping: watch::Receiver<Option<Ending>>,
    /// Readable when there is a new slice, or when it is time to stop.
    wake: UnixDatagram,
    counters: Arc<Counters>,
    sessions: watch::Sender<BfdSessions>,
    in_session: InSession,
    receivers: Receivers,
    /// By our discriminator.
    watched: BTreeMap<NonZeroU32, Watched>,
    /// What was counted of each peer, over all of its sessions.
    flaps: BTreeMap<PeerName, Flaps>,
    look_at: Instant,
}

/// The router at the other end.
fn router(place: &Place) -> Router {
    Router::new(place.address.clone(), place.device.as_ref())
}

impl Worker {
    pub(super) fn new(
        slices: watch::Receiver<BfdSlice>,
        (kept, ledger): (Vec<KeptPath>, Option<Ledger>),
        stopping: watch::Receiver<Option<Ending>>,
        wake: UnixDatagram,
        counters: Arc<Counters>,
        (sessions, in_session): (watch::Sender<BfdSessions>, InSession),
    ) -> Worker {
        Worker {
            slices,
            kept,
            ledger,
            unnoted: false,
            stopping,
            wake,
            counters,
            sessions,
            in_session,
            receivers: Receivers::default(),
            watched: BTreeMap::new(),
            flaps: BTreeMap::new(),
            look_at: clock::now(),
        }
    }

    /// Runs the sessions until it is told to stop, or no slice can come any more. Gives those that another process can go on with; all
    /// others are held down.
    pub(super) fn run(mut self) -> Vec<KeptPath> {
        self.slices.mark_changed();
        while self.stopping.borrow().is_none() {
            match self.slices.has_changed() {
                Ok(true) => {
                    let slice = self.slices.borrow_and_update().clone();
                    self.follow(&slice);
                }
                Ok(false) => {}
                Err(_ended) => break,
            }
            let now = clock::now();
            if self.look_at <= now {
                self.look(now);
            }
            let taken = self.read();
            let now = clock::now();
            self.watched.values_mut().for_each(|watched| watched.handle_timeout(now));
            self.let_go(now);
            self.note();
            self.publish(now);
            let patience = if taken < MOST_READ_FIRST { self.patience() } else { BREATH };
            let ends = self.receivers.descriptors().filter(|_| taken < MOST_READ_FIRST);
            if wait(ends.chain([self.wake.as_raw_fd()]), Some(patience)).is_err() {
                // Never round without a pause, with this priority.
                let _ = wait([self.wake.as_raw_fd()].into_iter(), Some(BREATH));
            }
            let mut woken = [0; 16];
            while self.wake.recv(&mut woken).is_ok() {}
        }
        let ending = *self.stopping.borrow();
        // From here on, the farewell says how they stand.
        if let Some(mut ledger) = self.ledger.take() {
            let _ = ledger.note(&[]);
        }
        let kept = if ending == Some(Ending::Rest) { self.rest() } else { Vec::new() };
        let now = clock::now();
        self.watched.values_mut().for_each(|watched| watched.hold_down(now));
        kept
    }

    /// Asks the peers to wait, and takes out the sessions of those that agree.
    fn rest(&mut self) -> Vec<KeptPath> {
        let mut now = clock::now();
        let until = now + REST_PATIENCE;
        self.watched.values_mut().for_each(|watched| watched.rest(now));
        while now < until {
            self.read();
            now = clock::now();
            self.watched.values_mut().for_each(|watched| watched.handle_timeout(now));
            if self.watched.values().all(Watched::is_at_rest) {
                break;
            }
            let patience = self.patience().min(until.saturating_duration_since(now));
            if wait(self.receivers.descriptors(), Some(patience)).is_err() {
                break;
            }
        }
        let mut kept = Vec::new();
        self.watched.retain(|_, watched| match watched.kept() {
            Some(path) => {
                kept.push(path);
                false
            }
            None => true,
        });
        kept
    }

    /// Until the next timer.
    fn patience(&self) -> Duration {
        let next = self.watched.values().filter_map(Watched::next_deadline).fold(self.look_at, Instant::min);
        let patience = next.saturating_duration_since(clock::now());
        if self.watched.values().any(|watched| watched.leaves_by().is_some()) { patience.min(GLANCE) } else { patience }
    }

    /// Holds the sessions down that no peer has, once BGP has told their routers so: who keeps the routes when BFD goes down would miss
    /// that the BGP session has ended, and go on by them.
    fn let_go(&mut self, now: Instant) {
        let Worker { watched, in_session, .. } = self;
        let before = watched.len();
        watched.retain(|_, watched| {
            let goes = watched.leaves_by().is_some_and(|by| by <= now || !in_session.has(&router(&watched.place)));
            if goes {
                watched.hold_down(now);
            }
            !goes
        });
        if self.watched.len() < before {
            // There may be one that waits for this.
            self.slices.mark_changed();
        }
    }

    /// Starts, stops and changes sessions as the slice says. Peers that share address, device and source share a session: the path is
    /// the same (RFC 5881 §2).
    fn follow(&mut self, slice: &BfdSlice) {
        let now = clock::now();
        let mut wanted: BTreeMap<Place, Vec<(PeerName, BfdPeer)>> = BTreeMap::new();
        for (name, peer) in slice.peers.iter() {
            wanted.entry(Place::of(peer)).or_default().push((name.clone(), peer.clone()));
        }
        for watched in self.watched.values_mut().filter(|watched| !wanted.contains_key(&watched.place)) {
            watched.leave_by(now + LEAVING);
            self.unnoted = true;
        }
        self.let_go(now);
        self.flaps.retain(|name, _| slice.peers.contains_key(name));
        let gone = |name: &&PeerName| !slice.peers.contains_key(*name);
        let gone: Vec<PeerName> = self.sessions.borrow().keys().filter(gone).cloned().collect();
        if !gone.is_empty() {
            self.sessions.send_modify(|sessions| gone.iter().for_each(|name| drop(sessions.remove(name))));
        }
        for (place, peers) in wanted {
            let leaves = self.leaves(&place);
            match self.watched.values_mut().find(|watched| watched.place == place) {
                Some(watched) => watched.change(peers, &self.counters, now),
                // The router would take the new one for that which leaves.
                None if leaves => {}
                None => {
                    let kept = self.kept.iter().position(|kept| place.is_that_of(kept));
                    let kept = kept.map(|at| self.kept.swap_remove(at));
                    let discriminator =
                        kept.as_ref().map_or_else(|| self.free_discriminator(), |kept| kept.standing.discriminator);
                    let watched = match kept {
                        Some(kept) => Watched::resumed(&kept, place, peers, &self.counters, now),
                        None => Watched::new(place, peers, discriminator, &self.counters, now),
                    };
                    self.watched.extend(watched.map(|watched| (discriminator, watched)));
                }
            }
        }
        self.look_at = now;
    }

    fn leaves(&self, place: &Place) -> bool {
        let leaves = |watched: &Watched| watched.leaves_by().is_some() && router(&watched.place) == router(place);
        self.watched.values().any(leaves)
    }

    /// RFC 5880 §6.3: unique on this system, not zero, and random, so that nobody off the path can guess it.
    fn free_discriminator(&self) -> NonZeroU32 {
        loop {
            if let Some(free) = NonZeroU32::new(fastrand::u32(..)).filter(|it| !self.watched.contains_key(it)) {
                return free;
            }
        }
    }

    /// Opens what is not open, and anew what is on a device that was made anew.
    fn look(&mut self, now: Instant) {
        self.look_at = now + LOOK_PAUSE;
        self.receivers.follow(self.watched.values().map(|watched| &watched.place));
        for watched in self.watched.values_mut() {
            watched.look(self.receivers.problem(&watched.place), now);
        }
    }

    /// Reads what has come, and answers how many packets that were.
    fn read(&mut self) -> usize {
        let mut taken = 0;
        loop {
            let before = taken;
            let Worker { receivers, watched, counters, .. } = self;
            receivers.receive(BATCH, |door, datagram| {
                taken += 1;
                if let Err(discard) = hear(watched, door, &datagram) {
                    counters.count_discarded(discard);
                }
            });
            if taken == before || taken >= MOST_READ_FIRST {
                return taken;
            }
        }
    }

    /// Writes down which sessions are up and how they stand, if that is news.
    fn note(&mut self) {
        let Some(ledger) = &mut self.ledger else { return };
        let mut is_news = std::mem::take(&mut self.unnoted);
        for watched in self.watched.values_mut() {
            is_news |= watched.is_news_to_ledger();
        }
        if !is_news {
            return;
        }
        let mut taken: BTreeSet<u16> = self.watched.values().filter_map(Watched::slot).collect();
        let paths = self.watched.values_mut().filter_map(|watched| watched.in_ledger(ledger, &mut taken));
        let paths: Vec<KeptPath> = paths.collect();
        // Memory is short. What stands there may be wrong by now: none is better.
        if ledger.note(&paths).is_err() && ledger.note(&[]).is_err() {
            self.ledger = None;
        }
    }

    /// Says how the sessions stand, if any of them says something new.
    fn publish(&mut self, now: Instant) {
        let mut news: Vec<(PeerName, Arc<_>)> = Vec::new();
        for watched in self.watched.values_mut() {
            news.extend(watched.news(&mut self.flaps, now));
        }
        if !news.is_empty() {
            self.sessions.send_modify(|sessions| sessions.extend(news));
        }
    }
}

/// Finds the session that a datagram is for, and lets it judge (RFC 5880 §6.8.6, RFC 5881 §3 and §5).
fn hear(sessions: &mut BTreeMap<NonZeroU32, Watched>, door: &Door, datagram: &Datagram<'_>) -> Result<(), Discard> {
    if !door.multihop && datagram.ttl != Some(u8::MAX) {
        let of_peer = sessions.values_mut().filter(|watched| watched.place.is_of(door, datagram.source));
        of_peer.for_each(|watched| watched.refuse(Discard::Ttl, datagram.ttl));
        return Err(Discard::Ttl);
    }
    let packet = Packet::parse(datagram.octets)?;
    let is_its = |watched: &Watched| watched.place.is_of(door, datagram.source);
    let watched = match packet.your_discriminator {
        Some(ours) => {
            let watched = sessions.get_mut(&ours).ok_or(Discard::UnknownDiscriminator)?;
            if !is_its(watched) {
                return Err(Discard::OtherSender);
            }
            watched
        }
        // Of two sessions with one address, the one at whose source address it came.
        None => {
            let own = |watched: &&mut Watched| watched.place.source.is_none() || watched.place.source == datagram.to;
            let mut all = sessions.values_mut().filter(|watched| is_its(watched)).filter(own);
            let first = all.next().ok_or(Discard::UnknownSender)?;
            all.fold(first, |best, other| if best.place.source.is_none() { other } else { best })
        }
    };
    if door.multihop && datagram.ttl.is_none_or(|ttl| ttl < watched.minimum_ttl()) {
        watched.refuse(Discard::Ttl, datagram.ttl);
        return Err(Discard::Ttl);
    }
    watched.handle_packet(&packet, datagram.to, datagram.octets, clock::now())
}
