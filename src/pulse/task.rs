//! The pulse of this node: one machine and its sockets on every link of the slice; what they hear becomes facts.
//! Floor 2. An actuator and a source: it sends what its slice says and decides nothing. The machine says who is alive.
//!
//! Tasks: `run` is one, owned by the caller. It starts one more for each link, which owns that link's machine and sockets,
//! so that nothing else this agent does delays a pulse or the notice that there is none. Told to stop, each says goodbye
//! and ends within the time of its last pulses; cancelled, it is silent, which the others notice in their time.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tracing::{debug, error, info, trace, warn};

use super::counters::Counters;
use super::machine::{Incarnations, Machine, Stance};
use super::outcome::Outcome;
use super::packet::{Keys, Pulse};
use super::refused::RefusedSenders;
use super::settings::Settings;
use super::socket::{Datagram, HOP_LIMIT, PulseSocket};
use crate::address::{Family, MacAddress, is_link_local_v6};
use crate::by_link::ByLink;
use crate::clock;
use crate::config::PULSE_PORT;
use crate::names::{InterfaceName, NodeName};
use crate::plan::slice::{PulseLink, PulseSlice};
use crate::roster::{Card, Eligibility, Roster};
use crate::world::{Fact, Link, PulseTrouble};

/// What does not change while the agent runs.
pub struct Setup {
    pub node: NodeName,
    pub settings: Settings,
    /// The newest counts, from the next pulse on.
    pub voice: watch::Receiver<Voice>,
    /// Greater than any that this node ever used: see [`Incarnations`]. Links count up from here.
    pub incarnation: u64,
    /// When the agent's loop was last seen to turn. A pulse says that somebody decides here.
    pub turned: watch::Receiver<Instant>,
    /// The agent has restarted: by then this node has again what it held before.
    pub back_by: Option<Instant>,
    /// Whether nobody at all is heard on a link, as those know who ask there by ARP and NDP.
    pub hears_nobody: Box<dyn Fn(&InterfaceName) -> bool + Send + Sync>,
}

/// How this node parts from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// What it holds is free.
    Leave,
    /// The agent restarts, and has by then again what this node holds.
    Restart { back_by: Instant },
}

/// How pulses are sealed, and whom they are sent to besides the group.
#[derive(Debug, Clone)]
pub struct Voice {
    pub keys: Keys,
    /// Nodes on the same link.
    pub peers: Vec<IpAddr>,
    /// For how long the others are asked to wait when the agent restarts; zero: not at all.
    pub restart_grace: Duration,
}

/// How long the loop of the agent may not have turned before pulses cease. The longest turn, over everything that a large
/// cluster has, takes a part of it.
const HUNG_AFTER: Duration = Duration::from_secs(10);

/// How long a node that has said goodbye listens for the heir of addresses that packets of pods leave with: those of its own pods go
/// there from then on, and nobody could tell this node later.
const HEIR_HEARD: Duration = Duration::from_secs(1);

/// Pulses on the links of the newest slice until `shutdown` completes or the sender of slices is dropped.
///
/// A link begins by listening, and does so again when it comes back. What is heard becomes a [`Fact::Roster`]; so does the
/// end of the pulses on a link. `counters` counts what is sent and heard on each link.
pub async fn run(
    mut slices: watch::Receiver<PulseSlice>,
    facts: mpsc::Sender<Fact>,
    setup: Setup,
    counters: Arc<ByLink<Counters>>,
    shutdown: impl Future<Output = Parting>,
) {
    let (life, _) = watch::channel(setup.incarnation);
    let mut number = 0;
    let setup = Arc::new(setup);
    let (stop, _) = watch::channel(None);
    let mut tasks = JoinSet::new();
    let mut links: BTreeMap<u32, watch::Sender<LinkSlice>> = BTreeMap::new();
    tokio::pin!(shutdown);
    let parting = loop {
        let slice = slices.borrow_and_update().clone();
        // Dropping a link drops its sender; that ends the task.
        links.retain(|index, _| slice.links.contains_key(index));
        while tasks.try_join_next().is_some() {}
        for (index, PulseLink { link, card }) in slice.links.iter() {
            let Some(of_link) = LinkSlice::of(&slice, link, card) else { continue };
            match links.get(index) {
                Some(sender) => drop(sender.send_replace(of_link)),
                None => {
                    number += 1;
                    let first = *life.borrow();
                    let (sender, slices) = watch::channel(of_link);
                    links.insert(*index, sender);
                    let task = LinkTask {
                        index: *index,
                        voice: setup.voice.borrow().clone(),
                        incarnations: Incarnations { first, this: first + number },
                        life: life.clone(),
                        setup: setup.clone(),
                        facts: facts.clone(),
                        counters: counters.of(&link.name),
                    };
                    tasks.spawn(task.run(slices, stop.subscribe()));
                }
            }
        }
        tokio::select! {
            parting = &mut shutdown => break parting,
            changed = slices.changed() => if changed.is_err() { break Parting::Leave },
        }
    };
    stop.send_replace(Some(parting));
    while tasks.join_next().await.is_some() {}
}

/// What the task of one link has to say.
#[derive(Debug, Clone, PartialEq)]
struct LinkSlice {
    link: Link,
    mac: MacAddress,
    eligibility: Eligibility,
    card: Arc<Card>,
    /// The parts that are the same on every link.
    all: PulseSlice,
}

impl LinkSlice {
    fn of(slice: &PulseSlice, link: &Link, card: &Arc<Card>) -> Option<LinkSlice> {
        let (mac, eligibility) = (link.mac?, slice.eligibility?);
        Some(LinkSlice { link: link.clone(), mac, eligibility, card: card.clone(), all: slice.clone() })
    }

    /// `back_by`: as in [`Setup`].
    fn stance(&self, back_by: Option<Instant>) -> Stance {
        let mut holdings = self.all.holdings.clone();
        let here = self.all.apart.iter().filter(|((link, _), _)| *link == self.link.index);
        holdings.extend(here.map(|((_, address), holding)| (*address, *holding)));
        Stance {
            mac: self.mac,
            eligibility: self.eligibility,
            owner: self.all.owner,
            hears_api_server: self.all.hears_api_server,
            card: self.card.clone(),
            holdings,
            occupied: self.all.occupied.clone(),
            egress: self.all.egress.clone(),
            over_bgp: self.all.over_bgp.clone(),
            sessions: self.all.sessions,
            back_by: back_by.filter(|_| !self.all.kept.is_empty()),
        }
    }
}

/// The sockets of a link: of one family at least.
struct Sockets {
    v4: Option<PulseSocket>,
    v6: Option<PulseSocket>,
}

impl Sockets {
    fn open(link: &Link) -> io::Result<Sockets> {
        match (PulseSocket::open(Family::V4, link.index), Sockets::open_v6(link)) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(Sockets { v4: v4.ok(), v6: v6.ok() }),
        }
    }

    /// IPv6 needs a link-local address to speak from, and a kernel that has it switched on.
    fn open_v6(link: &Link) -> io::Result<PulseSocket> {
        match link.addresses.iter().any(|net| is_link_local_v6(net.addr())) {
            true => PulseSocket::open(Family::V6, link.index),
            false => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
        }
    }

    /// Opens the family that could not be spoken before, if it can be now. The other goes on meanwhile.
    fn open_missing(&mut self, link: &Link) {
        if self.v4.is_none() {
            self.v4 = PulseSocket::open(Family::V4, link.index).ok();
        }
        if self.v6.is_none() {
            self.v6 = Sockets::open_v6(link).ok();
        }
    }

    async fn receive(&self, mut handle: impl FnMut(Datagram<'_>)) -> io::Result<()> {
        let mut take = |datagram: Datagram<'_>| handle(datagram);
        match (&self.v4, &self.v6) {
            (Some(v4), Some(v6)) => tokio::select! {
                received = v4.readable() => received.and_then(|()| v4.receive_ready(&mut take)),
                received = v6.readable() => received.and_then(|()| v6.receive_ready(&mut take)),
            },
            (Some(one), None) | (None, Some(one)) => {
                one.readable().await?;
                one.receive_ready(&mut take)
            }
            (None, None) => std::future::pending().await,
        }
    }
}

/// The task of one link.
struct LinkTask {
    index: u32,
    /// With which it begins.
    incarnations: Incarnations,
    /// The first incarnation of this process: higher once the other nodes of a link knew a later one.
    life: watch::Sender<u64>,
    setup: Arc<Setup>,
    /// As the machine knows it.
    voice: Voice,
    facts: mpsc::Sender<Fact>,
    counters: Arc<Counters>,
}

/// Why the task no longer pulses through its sockets.
enum Ended {
    /// It was told to stop, or the link is no longer wanted.
    Told,
    Failed(io::Error),
}

impl LinkTask {
    async fn run(mut self, mut slices: watch::Receiver<LinkSlice>, mut stop: watch::Receiver<Option<Parting>>) {
        let slice = slices.borrow().clone();
        let now = clock::now();
        let Setup { node, settings, back_by, .. } = &*self.setup;
        let stance = slice.stance(*back_by);
        let mut machine = Machine::new(node.clone(), *settings, self.voice.keys.ids(), self.incarnations, stance, now);
        let mut refused_senders = RefusedSenders::default();
        let mut failing = false;
        loop {
            // A newer address may make the link speak IPv6, so the sockets are opened for the link as it is now.
            let slice = slices.borrow_and_update().clone();
            let ended = match Sockets::open(&slice.link) {
                Ok(sockets) => {
                    if std::mem::take(&mut failing) {
                        let _ = self.facts.send(Fact::PulseTrouble(self.index, PulseTrouble::None)).await;
                    }
                    self.pulse(sockets, slice, &mut machine, &mut refused_senders, &mut slices, &mut stop).await
                }
                Err(error) => Ended::Failed(error),
            };
            let error = match ended {
                Ended::Told => break,
                Ended::Failed(error) => error,
            };
            let link = slices.borrow().link.name.clone();
            if !failing {
                failing = true;
                warn!(%link, %error, "pulses are neither sent nor heard on this link until its sockets can be opened again");
                let is_taken = error.kind() == io::ErrorKind::AddrInUse;
                let by_whom = if is_taken { ", does another agent run on this host?" } else { "" };
                let trouble = PulseTrouble::NoSockets { why: format!("{error}{by_whom}") };
                let _ = self.facts.send(Fact::PulseTrouble(self.index, trouble)).await;
            }
            tokio::select! {
                () = sleep(REOPEN_INTERVAL) => {}
                changed = slices.changed() => if changed.is_err() { break },
                _ = stop.wait_for(Option::is_some) => break,
            }
        }
        // The loop of the agent may be gone already.
        let _ = self.facts.send(Fact::Roster(self.index, None)).await;
        let _ = self.facts.send(Fact::PulseTrouble(self.index, PulseTrouble::None)).await;
    }

    /// Sends and hears through these sockets until they fail, or it is over.
    async fn pulse(
        &mut self,
        mut sockets: Sockets,
        mut slice: LinkSlice,
        machine: &mut Machine,
        refused_senders: &mut RefusedSenders,
        slices: &mut watch::Receiver<LinkSlice>,
        stop: &mut watch::Receiver<Option<Parting>>,
    ) -> Ended {
        let mut roster = None;
        let mut leaving = false;
        // For an heir, until then.
        let mut listens_until: Option<Instant> = None;
        let mut hung = false;
        let mut voice = self.setup.voice.clone();
        voice.mark_changed();
        let mut life = self.life.subscribe();
        life.mark_changed();
        debug!(link = %slice.link.name, ipv4 = sockets.v4.is_some(), ipv6 = sockets.v6.is_some(), "pulse sockets opened");
        let back_by = self.setup.back_by;
        machine.handle_stance(slice.stance(back_by), clock::now());
        loop {
            let now = clock::now();
            let hangs = !leaving && now >= *self.setup.turned.borrow() + HUNG_AFTER;
            if hangs != std::mem::replace(&mut hung, hangs) {
                log_hang(&slice.link, hangs);
            }
            while let Some(pulse) = machine.poll_pulse(now) {
                if !hangs {
                    self.send(&sockets, &slice, &pulse);
                }
            }
            let translates = slice.all.egress.as_ref().is_some_and(|it| !it.is_empty());
            if machine.has_left() && !(translates && listens_until.is_some_and(|until| now < until)) {
                return Ended::Told;
            }
            if machine.wants_count(now) {
                let hears_nobody = (self.setup.hears_nobody)(&slice.link.name);
                machine.handle_received(frames_received(&slice.link.name), hears_nobody, now);
                continue;
            }
            if let Some(newest) = machine.poll_roster(now) {
                log_roster(&slice.link, roster.as_ref(), &newest);
                self.count_detections(roster.as_ref(), &newest);
                roster = Some(newest.clone());
                // The loop takes facts in batches, so there is room but for moments; the newest roster would win anyway.
                if self.facts.send(Fact::Roster(self.index, Some(Arc::new(newest)))).await.is_err() {
                    return Ended::Told;
                }
            }
            if let Some(refused) = refused_senders.poll_refused(now) {
                let dropped = PulseTrouble::Dropped(Arc::new(refused));
                if self.facts.send(Fact::PulseTrouble(self.index, dropped)).await.is_err() {
                    return Ended::Told;
                }
            }
            let deadline = machine.next_deadline().into_iter().chain(listens_until).min();
            tokio::select! {
                biased;
                parting = parting(stop), if !leaving => {
                    leaving = true;
                    match parting {
                        Parting::Leave => {
                            listens_until = Some(clock::now() + HEIR_HEARD);
                            machine.handle_leaving(clock::now());
                        }
                        Parting::Restart { back_by } => machine.handle_restarting(back_by, clock::now()),
                    }
                }
                // Before the deadlines: an agent that was frozen reads what the others said meanwhile, and judges then.
                received = sockets.receive(|datagram| self.handle_datagram(datagram, &slice, machine, refused_senders)) => {
                    if let Err(error) = received {
                        // The kernel reports once that a link went down; the plan hears of that as well.
                        debug!(link = %slice.link.name, %error, "pulse not received");
                    }
                }
                () = reached(deadline) => {}
                Ok(()) = life.changed() => machine.handle_life(*life.borrow_and_update(), clock::now()),
                Ok(()) = voice.changed() => {
                    let newest = voice.borrow_and_update().clone();
                    if newest.keys.ids() != self.voice.keys.ids() {
                        info!(link = %slice.link.name, "the keys of the pulse have changed");
                        machine.handle_keys(newest.keys.ids(), clock::now());
                    }
                    self.voice = newest;
                }
                changed = slices.changed(), if !leaving || listens_until.is_some() => {
                    if changed.is_err() {
                        (leaving, listens_until) = (true, None);
                        machine.handle_leaving(clock::now());
                        continue;
                    }
                    let next = slices.borrow_and_update().clone();
                    let renewed = next.link.addresses != slice.link.addresses;
                    let now = clock::now();
                    // What a node is that has left nobody needs to hear.
                    if !leaving {
                        machine.handle_expected(&next.all.expected, now);
                        machine.handle_doubted(&next.all.doubted, now);
                        machine.handle_stance(next.stance(back_by), now);
                    }
                    slice = next;
                    if renewed {
                        sockets.open_missing(&slice.link);
                    }
                }
            }
        }
    }

    /// To the tasks of the other links.
    fn tell_life(&self, newest: u64) {
        self.life.send_if_modified(|life| {
            let is_newer = newest > *life;
            *life = newest.max(*life);
            is_newer
        });
    }

    fn count_detections(&self, before: Option<&Roster>, after: &Roster) {
        for (node, departed) in &after.silent {
            let owned = before.and_then(|before| before.members.get(node)).is_some_and(|member| member.owner);
            if owned && !after.receive_nothing.contains(node) {
                self.counters.count_detection(departed.unheard);
            }
        }
    }

    fn send(&self, sockets: &Sockets, slice: &LinkSlice, pulse: &Pulse) {
        let octets = pulse.emit(self.voice.keys.of(pulse.key));
        trace!(link = %slice.link.name, %pulse, "pulse sent");
        let count = |sent: io::Result<()>| match sent {
            Ok(()) => self.counters.count_sent(octets.len().try_into().unwrap_or(u64::MAX)),
            Err(error) => {
                self.counters.count_unsent();
                debug!(link = %slice.link.name, %error, "pulse not sent");
            }
        };
        // Always over both families: a switch may prune the groups of one of them, and no node would notice.
        for socket in [&sockets.v6, &sockets.v4].into_iter().flatten() {
            count(socket.send_to_group(&octets));
        }
        for peer in &self.voice.peers {
            let socket = if peer.is_ipv4() { &sockets.v4 } else { &sockets.v6 };
            let nets = || slice.link.addresses.iter();
            let here = nets().any(|net| net.contains(peer)) && !nets().any(|net| net.addr() == *peer);
            if let Some(socket) = socket.as_ref().filter(|_| here) {
                count(socket.send_to(&octets, *peer));
            }
        }
    }

    fn handle_datagram(
        &self,
        datagram: Datagram<'_>,
        slice: &LinkSlice,
        machine: &mut Machine,
        refused_senders: &mut RefusedSenders,
    ) {
        let Datagram { source, hop_limit, octets } = datagram;
        let outcome = if hop_limit != Some(HOP_LIMIT) || source.port() != PULSE_PORT {
            Outcome::OffLink
        } else {
            match Pulse::parse(octets, &self.voice.keys) {
                Ok(pulse) => {
                    refused_senders.note_believed(source.ip(), clock::now());
                    trace!(link = %slice.link.name, %source, %pulse, "pulse received");
                    let (node, mac, before) = (pulse.node.clone(), pulse.mac, machine.life());
                    let outcome = machine.handle_pulse(pulse, clock::now());
                    refused_senders.note_host(&node, mac, source.ip(), outcome);
                    if machine.life() != before {
                        self.tell_life(machine.life());
                        warn!(link = %slice.link.name, %source, by = %node, "other nodes knew a later life of this node, which is over: its clock went back and its [state] folder was lost, or another agent ran by this node's name; it goes on above that life, and is heard again");
                    }
                    let why =
                        || format!("the sender uses the name of this node, {node}; give each node a name of its own");
                    if outcome == Outcome::Namesake
                        && refused_senders.is_news(source.ip(), Outcome::Namesake, why, clock::now())
                    {
                        warn!(link = %slice.link.name, %source, %node, "another agent on this link uses this node's name; its pulses are dropped");
                    }
                    if outcome == Outcome::DoubleName {
                        let why = refused_senders.of_double(&node, mac);
                        if refused_senders.is_news(source.ip(), outcome, || why, clock::now()) {
                            warn!(link = %slice.link.name, %source, %node, "two hosts have this name; the pulses of the one whose agent started earlier are dropped");
                        }
                    }
                    outcome
                }
                Err(refused) => {
                    let outcome = Outcome::from(refused);
                    if refused_senders.is_news(source.ip(), outcome, || refused.of_many(), clock::now()) {
                        warn!(link = %slice.link.name, %source, reason = outcome.code(), "pulse dropped: {refused}");
                    }
                    outcome
                }
            }
        };
        self.counters.count_received(outcome);
    }
}

/// How many frames the link has received so far, by the kernel's count.
fn frames_received(link: &InterfaceName) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    let counts = table.lines().find_map(|line| line.trim_start().strip_prefix(link.as_str())?.strip_prefix(':'))?;
    counts.split_whitespace().nth(1)?.parse().ok()
}

fn log_hang(Link { name: link, .. }: &Link, hangs: bool) {
    match hangs {
        true => error!(
            %link,
            hung_secs = HUNG_AFTER.as_secs(),
            "no pulses are sent: the main loop of this agent hangs; restart crier, and report this with the configuration and the log"
        ),
        false => warn!(%link, "pulses are sent again: the main loop of this agent goes on"),
    }
}

fn log_roster(link: &Link, before: Option<&Roster>, after: &Roster) {
    let link = &link.name;
    let sealing = |roster: &Roster| Some(roster.key_use.as_ref()?.sealing.clone());
    if let Some(keys) = sealing(after).filter(|keys| before.and_then(sealing).as_ref() != Some(keys)) {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        info!(%link, keys = keys.join(" "), "chose the key that seals pulses");
    }
    let was = |node: &NodeName| before.is_some_and(|before| before.members.contains_key(node));
    for node in after.members.keys().filter(|node| !was(node)) {
        info!(%link, %node, "node is alive on the link");
    }
    let restarts = |roster: &Roster, node| roster.members.get(node).is_some_and(|member| member.restarting);
    for node in after.members.keys().filter(|node| restarts(after, *node)) {
        if before.is_some_and(|before| was(node) && !restarts(before, node)) {
            info!(%link, %node, "the agent of the node restarts; it keeps what it holds until it is back, for a limited time");
        }
    }
    let received_nothing = |node: &NodeName| before.is_some_and(|before| before.receive_nothing.contains(node));
    let heard = |node: &NodeName| after.silent.contains_key(node) && !received_nothing(node);
    for node in after.receive_nothing.iter().filter(|node| heard(node)) {
        warn!(%link, %node, "the node reports that it receives no frames on this link; others take over its addresses there");
    }
    for node in before.into_iter().flat_map(|before| before.members.keys()) {
        if after.receive_nothing.contains(node) {
            continue;
        }
        if let Some(after) = after.silent.get(node) {
            warn!(%link, %node, unheard_millis = after.unheard.as_millis(), "node fell silent");
        } else if !after.members.contains_key(node) {
            info!(%link, %node, "node left the link or restarted");
        }
    }
}

/// Waits until this node parts from the others.
async fn parting(stop: &mut watch::Receiver<Option<Parting>>) -> Parting {
    // The sender is gone only when the agent is.
    stop.wait_for(Option::is_some).await.ok().and_then(|stop| *stop).unwrap_or(Parting::Leave)
}

/// Waits until the deadline, or for ever without one.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// How long to wait before sockets that failed to open are tried again.
const REOPEN_INTERVAL: Duration = Duration::from_millis(200);
