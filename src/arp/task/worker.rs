//! The worker of one link: a thread that owns its sockets, groups and claims, answers what comes and sends what is due.
//! Floor 2. It follows what the responder tells it and decides nothing: `machine` judges frames and says what is due.
//!
//! It is a thread and not a task, so that an answer never waits for other work of the agent, and that work never waits for a
//! flood of requests: the kernel shares the cores between them.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use tokio::sync::watch;
use tracing::{debug, info, trace, warn};

use crate::address::MacAddress;
use crate::arp::counters::{ByProtocol, Counters};
use crate::arp::machine::answer::{self, Station, Verdict};
use crate::arp::machine::{Action, Claims, Report, Surroundings};
use crate::arp::offload::Offload;
use crate::arp::packet::{Claimant, Frame, Protocol};
use crate::arp::socket::groups::Groups;
use crate::arp::socket::{LinkSender, LinkSocket, wait};
use crate::arp::state::{LinkState, LinkStates, SocketState};
use crate::claim::{Acquisition, Answerer, ConflictKind, Errand};
use crate::clock;
use crate::names::{InterfaceName, NodeName};
use crate::world::Conflict;

/// What the worker of one link has to achieve.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinkSlice {
    pub(super) name: InterfaceName,
    pub(super) mac: MacAddress,
    /// Frames can pass.
    pub(super) up: bool,
    pub(super) other_macs: Arc<[MacAddress]>,
    pub(super) surroundings: Surroundings,
    pub(super) addresses: OrdMap<IpAddr, Errand>,
}

/// What a link worker shares with the responder, beside its slices.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: Arc<ByProtocol>,
    pub(super) states: watch::Sender<LinkStates>,
    /// For how long the kernel may answer without a sign of life from the worker; `None` without offload.
    pub(super) offload_life: Option<Duration>,
}

/// The worker of one link. It owns everything in here but the counters and the states.
pub(super) struct Worker {
    index: u32,
    slices: watch::Receiver<LinkSlice>,
    /// Readable when there is a new slice, or when the slices have ended.
    wake: UnixDatagram,
    counters: Arc<ByProtocol>,
    states: watch::Sender<LinkStates>,
    slice: LinkSlice,
    claims: Claims,
    /// The addresses that are answered for, as shown in the states.
    answering: OrdSet<IpAddr>,
    /// The stations that answer for what is not, as shown there too.
    answerers: OrdMap<IpAddr, Answerer>,
    groups: Groups,
    /// One for each protocol that the slice has addresses of.
    sockets: Vec<(Protocol, LinkSocket)>,
    /// As in [`Shared`].
    offload_life: Option<Duration>,
    offload: Option<Offload>,
    /// The socket's failure was logged: a failure that lasts is logged once.
    failing: bool,
    /// No socket was opened since the start, or since the last failure: whether one can be is found out though no address needs it.
    untried: bool,
    joining_failed: bool,
}

impl Worker {
    pub(super) fn new(
        index: u32,
        slices: watch::Receiver<LinkSlice>,
        wake: UnixDatagram,
        Shared { counters, states, offload_life }: Shared,
    ) -> Worker {
        let slice = LinkSlice { up: false, addresses: OrdMap::new(), ..slices.borrow().clone() };
        Worker {
            index,
            slices,
            wake,
            counters,
            states,
            slice,
            claims: Claims::default(),
            answering: OrdSet::new(),
            answerers: OrdMap::new(),
            groups: Groups::of(index),
            sockets: Vec::new(),
            offload_life,
            offload: None,
            failing: false,
            untried: true,
            joining_failed: false,
        }
    }

    /// Serves the link until nobody can send slices any more. Gives the program that answers in the kernel, if there is one.
    pub(super) fn run(mut self) -> Option<Offload> {
        self.slices.mark_changed();
        loop {
            let outcome = self.serve();
            let Err(error) = outcome else {
                self.counters.set_hears_nobody(false);
                return self.offload;
            };
            // A link that vanished leaves the slice as soon as the plan has heard of that from the kernel.
            let is_gone = is(&error, libc::ENODEV) || is(&error, libc::ENETDOWN);
            if is_gone {
                debug!(link = %self.slice.name, %error, "socket lost its link");
            } else if !self.failing {
                self.failing = true;
                warn!(link = %self.slice.name, %error, "socket failed; addresses on this link are not answered for until it can be opened again");
            }
            self.offload = None;
            self.sockets.clear();
            self.claims.handle_link_down();
            self.counters.set_hears_nobody(false);
            self.slice.up = false;
            self.untried = true;
            self.report(|state| {
                state.socket = if is_gone { SocketState::Opening } else { SocketState::Failed(error.to_string()) };
                state.offloaded = false;
                state.answering.clear();
            });
            // If waiting fails too, the socket is tried again at once.
            let _ = wait([Some(self.wake.as_fd())], Some(REOPEN_INTERVAL));
            self.drain_wake();
            self.slices.mark_changed();
        }
    }

    /// Answers and announces until something fails. `Ok` when the slices have ended.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            match self.slices.has_changed() {
                Ok(true) => self.follow()?,
                Ok(false) => {}
                Err(_ended) => return Ok(()),
            }
            let now = clock::now();
            self.act(now);
            let busy = self.receive(now);
            self.counters.set_hears_nobody(self.claims.hears_nobody());
            let told = self.tell();
            let turned = self.tend_offload(now);
            if told || turned {
                self.report_slice();
            }
            if !busy {
                self.rest()?;
            }
        }
    }

    /// Waits for a frame, a slice or the next deadline.
    fn rest(&mut self) -> io::Result<()> {
        let sign = self.offload.as_ref().and_then(Offload::next_sign);
        let due = self.claims.next_deadline().into_iter().chain(sign).min();
        let patience = due.map(|due| due.saturating_duration_since(clock::now()));
        let mut sockets = self.sockets.iter().map(|(_, socket)| socket.as_fd());
        let ends = [Some(self.wake.as_fd()), sockets.next(), sockets.next()];
        let [woken, first, second] = wait(ends, patience)?;
        if woken.readable {
            self.drain_wake();
        }
        for (place, end) in [first, second].into_iter().enumerate().filter(|(_, end)| end.failed) {
            debug!(link = %self.slice.name, ?end, "socket has an error");
            self.ask_what_failed(place)?;
        }
        Ok(())
    }

    fn ask_what_failed(&mut self, place: usize) -> io::Result<()> {
        let Some((_, socket)) = self.sockets.get(place) else { return Ok(()) };
        match socket.take_error()? {
            None => Ok(()),
            // The link went down; the socket gets frames again once it is up. The rounds start over in case the link is up
            // again before a slice says that it was down.
            Some(error) if is(&error, libc::ENETDOWN) && socket.is_bound() => {
                if self.slice.up {
                    self.claims.handle_link_up(clock::now());
                }
                Ok(())
            }
            Some(error) => Err(error),
        }
    }

    /// Several wake-ups count as one.
    fn drain_wake(&self) {
        while self.wake.recv(&mut [0]).is_ok() {}
    }

    /// Applies the newest slice.
    fn follow(&mut self) -> io::Result<()> {
        let next = self.slices.borrow_and_update().clone();
        self.open(&next)?;
        let now = clock::now();
        let before = std::mem::replace(&mut self.slice, next);
        let after = self.slice.clone();
        if before.surroundings != after.surroundings || self.claims.is_empty() {
            self.claims.handle_surroundings(after.surroundings.clone());
        }
        for item in before.addresses.diff(&after.addresses) {
            match item {
                DiffItem::Add(address, errand) | DiffItem::Update { new: (address, errand), .. } => {
                    self.claims.handle_owned(*address, errand, now);
                }
                DiffItem::Remove(address, _) => {
                    self.claims.handle_disowned(*address, now);
                    if let IpAddr::V6(address) = address {
                        self.groups.leave(*address);
                    }
                }
            }
        }
        self.join();
        if before.mac != after.mac || before.other_macs != after.other_macs {
            self.fill_offload(&before);
        }
        // The offload must not answer for an address that was given up.
        self.tend_offload(now);
        if !after.up {
            self.claims.handle_link_down();
        } else if !before.up || before.mac != after.mac {
            if !after.addresses.is_empty() {
                info!(link = %after.name, mac = %after.mac, addresses = after.addresses.len(), "link came up or changed its MAC; its addresses are announced");
            }
            self.claims.handle_link_up(now);
        }
        self.report_slice();
        Ok(())
    }

    /// Opens a socket for each protocol that the next slice has addresses of, and closes the others.
    fn open(&mut self, next: &LinkSlice) -> io::Result<()> {
        if self.untried {
            Protocol::BOTH.into_iter().try_for_each(|it| LinkSocket::open(self.index, it).map(drop))?;
            self.untried = false;
        }
        for protocol in Protocol::BOTH {
            let addresses = next.addresses.keys().chain(next.surroundings.yields.keys());
            let wanted = addresses.copied().any(|address| Protocol::of(address) == protocol);
            let held = self.sockets.iter().any(|(open, _)| *open == protocol);
            if wanted && !held {
                self.sockets.push((protocol, LinkSocket::open(self.index, protocol)?));
                debug!(link = %next.name, mac = %next.mac, %protocol, "socket opened");
                if let Some(life) = self.offload_life.filter(|_| protocol == Protocol::Arp) {
                    self.start_offload(next, life);
                }
            } else if held && !wanted {
                if protocol == Protocol::Arp {
                    self.offload = None;
                }
                self.sockets.retain(|(open, _)| *open != protocol);
            }
        }
        self.failing = false;
        Ok(())
    }

    /// Starts the offload, if the kernel can.
    fn start_offload(&mut self, next: &LinkSlice, life: Duration) {
        match Offload::start(self.index, life) {
            Ok(offload) => {
                debug!(link = %next.name, "ARP is answered in the kernel");
                self.offload = Some(offload);
                let before = self.slice.clone();
                self.fill_offload(&before);
            }
            Err(error) => {
                debug!(link = %next.name, %error, "the kernel refused the program; ARP is answered by the socket")
            }
        }
    }

    /// Fills the tables of the offload anew; `before` is the slice that they were filled from.
    fn fill_offload(&mut self, before: &LinkSlice) {
        let Some(offload) = &self.offload else { return };
        let macs =
            |slice: &LinkSlice| [slice.mac].into_iter().chain(slice.other_macs.iter().copied()).collect::<Vec<_>>();
        let kept = macs(&self.slice);
        let old = macs(before);
        let outcome = old
            .iter()
            .filter(|mac| !kept.contains(mac))
            .map(|mac| offload.leave_in(*mac))
            .chain(kept.iter().map(|mac| offload.leave_out(*mac)))
            .find(Result::is_err);
        if let Some(Err(error)) = outcome {
            self.end_offload(&error);
            return;
        }
        let announced: Vec<IpAddr> = self.claims.announced().collect();
        announced.into_iter().for_each(|address| self.turn_offload(address));
    }

    /// Tells the offload which addresses have come and gone, and that this thread is alive. True if any have.
    fn tend_offload(&mut self, now: Instant) -> bool {
        let mut turned = false;
        while let Some(address) = self.claims.poll_turned() {
            self.turn_offload(address);
            turned |= match self.claims.ownership(address) {
                answer::Ownership::Announced => self.answering.insert(address).is_none(),
                answer::Ownership::Pending | answer::Ownership::None => self.answering.remove(&address).is_some(),
            };
        }
        while let Some(address) = self.claims.poll_left() {
            let after = self.claims.answerer(address);
            let before = match after.clone() {
                Some(after) => self.answerers.insert(address, after),
                None => self.answerers.remove(&address),
            };
            turned |= before != after;
        }
        let Some(offload) = &mut self.offload else { return turned };
        if offload.next_sign().is_none_or(|due| due <= now) {
            offload.give_sign(now);
            self.counters.of(Protocol::Arp).count_answers(offload.take_answers());
        }
        turned
    }

    fn turn_offload(&mut self, address: IpAddr) {
        let (Some(offload), IpAddr::V4(ip)) = (&self.offload, address) else { return };
        match self.claims.ownership(address) {
            answer::Ownership::Announced => {
                // If the table is full, the socket answers.
                if let Err(error) = offload.hold(ip, self.slice.mac) {
                    debug!(link = %self.slice.name, %address, %error, "answered for by the socket");
                }
            }
            answer::Ownership::Pending | answer::Ownership::None => {
                if let Err(error) = offload.release(ip) {
                    self.end_offload(&error);
                }
            }
        }
    }

    /// Goes back to answering by the socket.
    fn end_offload(&mut self, error: &io::Error) {
        let Some(mut offload) = self.offload.take() else { return };
        self.counters.of(Protocol::Arp).count_answers(offload.take_answers());
        warn!(link = %self.slice.name, %error, "ARP is no longer answered in the kernel, but by the socket");
        self.report(|state| state.offloaded = false);
    }

    /// Joins the groups of addresses that are not joined yet.
    fn join(&mut self) {
        let joined: std::collections::BTreeSet<_> = self.groups.addresses().collect();
        let missing = self.slice.addresses.keys().filter_map(|address| match address {
            IpAddr::V6(address) => Some(*address).filter(|address| !joined.contains(address)),
            IpAddr::V4(_) => None,
        });
        let mut failure = None;
        for address in missing {
            if let Err(error) = self.groups.join(address) {
                failure = Some((address, error));
            }
        }
        match failure {
            Some((address, error)) if !self.joining_failed => {
                self.joining_failed = true;
                warn!(link = %self.slice.name, %address, %error, "the multicast group of the address could not be joined, so neighbours may not find it; is IPv6 disabled on this link?");
            }
            Some(_) => {}
            None => self.joining_failed = false,
        }
    }

    /// Judges a batch of frames from each socket. True if there may be more.
    fn receive(&mut self, now: Instant) -> bool {
        let Worker { slice, claims, counters, sockets, .. } = self;
        let mut busy = false;
        for (protocol, socket) in sockets.iter_mut() {
            let counters = counters.of(*protocol);
            let judged = socket.receive(BATCH, |sender, octets| {
                judge(*protocol, sender, slice, claims, counters, octets, now);
            });
            busy |= judged == BATCH;
            counters.count_lost(socket.take_lost());
        }
        busy
    }

    /// Sends what is due.
    fn act(&mut self, now: Instant) {
        while let Some(action) = self.claims.poll_action(now) {
            let (Action::Probe(address)
            | Action::Announce(address)
            | Action::AskNode(address)
            | Action::AskOthers(address)
            | Action::PassOn { address, to: _ }) = action;
            let protocol = Protocol::of(address);
            let Some((_, socket)) = self.sockets.iter().find(|(open, _)| *open == protocol) else { continue };
            let counters = self.counters.of(protocol);
            match action {
                Action::Probe(address) => {
                    if send(socket.sender(), &self.slice, counters, &Frame::probe(address, self.slice.mac)) {
                        counters.count_probe();
                    }
                }
                Action::AskNode(address) => {
                    let frame = question(address, &self.slice);
                    if frame.is_some_and(|frame| send(socket.sender(), &self.slice, counters, &frame)) {
                        self.claims.handle_asked();
                    }
                }
                Action::AskOthers(address) => {
                    // Without an address in its subnet, as one that has none yet.
                    let frame = question(address, &self.slice);
                    let frame = frame.unwrap_or_else(|| Frame::probe(address, self.slice.mac));
                    send(socket.sender(), &self.slice, counters, &frame);
                }
                Action::PassOn { address, to } => {
                    for frame in Frame::announcements_of(address, to, self.slice.mac) {
                        if send(socket.sender(), &self.slice, counters, &frame) {
                            counters.count_gratuitous();
                        }
                    }
                }
                Action::Announce(address) => {
                    for frame in Frame::announcements(address, self.slice.mac) {
                        if send(socket.sender(), &self.slice, counters, &frame) {
                            counters.count_gratuitous();
                        }
                    }
                }
            }
        }
    }

    /// Logs what the claims report. True if that is to be shown.
    fn tell(&mut self) -> bool {
        let mut told = false;
        let link = &self.slice.name;
        while let Some(report) = self.claims.poll_report() {
            told = true;
            match report {
                Report::Conflict { claimant: Claimant { address, mac }, kind, frames } => {
                    let node = self.claims.node(mac).map_or("no node", NodeName::as_str);
                    match kind {
                        ConflictKind::Occupied => {
                            warn!(%link, %address, claimed_by = %mac, node, "address is in use by another station; not answered for, and probed again");
                        }
                        ConflictKind::AliveUnheard => {
                            warn!(%link, %address, claimed_by = %mac, node, "another node has the address and its pulses are not heard; not answered for, and probed again");
                        }
                        ConflictKind::Contested => {
                            warn!(%link, %address, claimed_by = %mac, node, frames, "another station claimed an address that this node announces");
                        }
                    }
                }
                Report::Over(address) => info!(%link, %address, "no other station claims the address any more"),
            }
        }
        told
    }

    fn report_slice(&self) {
        let LinkSlice { name, mac, up: _, other_macs: _, surroundings: _, addresses } = &self.slice;
        let now = clock::wall();
        self.report(|state| {
            let since = |address: &IpAddr, kind| {
                let before = state.conflicts.get(address).filter(|before| before.kind == kind);
                before.map_or(now, |before| before.since)
            };
            // What it merely stands by for is another node's.
            let is_own = |address: &IpAddr, errand: &Errand| {
                !matches!(errand.acquisition, Acquisition::Standby { .. }) || self.answering.contains(address)
            };
            let conflicts = self.claims.conflicts();
            let conflicts = conflicts
                .map(|(address, mac, kind)| (address, Conflict { mac, kind, since: since(&address, kind) }))
                .collect();
            *state = LinkState {
                name: name.clone(),
                mac: *mac,
                socket: SocketState::Open,
                offloaded: self.offload.is_some(),
                addresses: addresses.iter().filter(|(address, errand)| is_own(address, errand)).count(),
                answering: self.answering.clone(),
                answerers: self.answerers.clone(),
                conflicts,
            };
        });
    }

    /// Changes the state that is shown of this link, unless the link is no longer served.
    fn report(&self, change: impl FnOnce(&mut LinkState)) {
        self.states.send_if_modified(|states| {
            let Some(link) = states.get_mut(&self.index) else { return false };
            let before = link.clone();
            change(link);
            *link != before
        });
    }
}

fn judge(
    protocol: Protocol,
    sender: &LinkSender<'_>,
    slice: &LinkSlice,
    claims: &mut Claims,
    counters: &Counters,
    octets: &[u8],
    now: Instant,
) {
    let station = Station { mac: slice.mac, other_macs: &slice.other_macs };
    let (verdict, heard) = answer::judge(station, |address| claims.ownership(address), protocol, octets);
    if let Some(heard) = heard {
        claims.handle_heard(heard, now);
    }
    match verdict {
        Verdict::Answer(frame) => {
            if send(*sender, slice, counters, &frame) {
                counters.count_answer();
            }
        }
        Verdict::Ignore(reason) => counters.count_ignored(reason),
        Verdict::Conflict(claimant) => {
            counters.count_conflict();
            claims.handle_claimant(claimant, now);
        }
        Verdict::Rival(claimant) => {
            counters.count_conflict();
            claims.handle_rival(claimant, now);
        }
    }
}

/// The frame that asks for a Node's address from this node's own address in the same subnet.
fn question(address: IpAddr, slice: &LinkSlice) -> Option<Frame> {
    let own = slice.surroundings.own.iter().find(|own| own.contains(&address))?;
    Frame::question(address, own.addr(), slice.mac)
}

/// Whether the kernel took the frame. A frame that it refused is not sent later: a station that asked asks again, and
/// announcements are repeated anyway.
fn send(sender: LinkSender<'_>, slice: &LinkSlice, counters: &Counters, frame: &Frame) -> bool {
    match sender.send(frame.emit().as_ref()) {
        Ok(()) => {
            trace!(link = %slice.name, %frame, "sent");
            true
        }
        Err(error) => {
            counters.count_unsent();
            debug!(link = %slice.name, %frame, %error, "not sent");
            false
        }
    }
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

/// How long to wait before a socket that failed is opened again.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);

/// Frames judged before slices and timers get their turn.
const BATCH: usize = 64;
