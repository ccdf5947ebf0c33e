//! The task of one peer: its machine, its sockets, and what it should be told. Floor 2.
//!
//! | task     | owner         | owns                                             | when cancelled                             |
//! |----------|---------------|--------------------------------------------------|--------------------------------------------|
//! | peer     | the speaker   | machine, connections, outbox, the dial under way | sockets close without a NOTIFICATION        |
//! | farewell | the peer task | one connection, for at most `FAREWELL_TIME`      | the peer may miss why the connection closed |
//!
//! Nothing in the task waits for a peer: connections are read and written as far as they go, and routes stay state, in the outbox,
//! until a socket has room. So a peer that stops reading costs its own memory nothing, and neither timers nor what is desired wait.

mod attempts;
mod desired;
mod handover;
mod known_ends;
mod outbound;
mod own_end;
mod path;
mod report;
mod signatures;
mod uptake;

use std::future::{pending, poll_fn};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use self::attempts::{Turns, Warned};
use self::known_ends::KnownEnds;
use self::outbound::Outbound;
use self::path::Path;
use self::report::{Counts, Report};
use self::signatures::Signatures;
use self::uptake::Uptake;
use crate::address::{LocalAddress, ScopedAddress};
use crate::bgp::counters::Counters;
use crate::bgp::kept::Signature;
use crate::bgp::machine::negotiation::{Negotiated, Restart};
use crate::bgp::machine::session::{End, PROOF_TIME};
use crate::bgp::machine::{Action, ConnectionId, Doubt, Peering};
use crate::bgp::outbox::chosen::Memory;
use crate::bgp::outbox::refreshes::{RefreshStep, Refreshes};
use crate::bgp::outbox::{NextHops, Routes};
use crate::bgp::settings;
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::socket::ledger::Safe;
use crate::bgp::socket::{Connection, ConnectionEvent, Endpoint, Protection, describe};
use crate::bgp::wire::{Capability, Cease, Dialect, Message, Notification, NotificationReason};
use crate::clock;
use crate::config;
use crate::in_session::{InSession, Router};
use crate::names::PeerName;
use crate::world::{BfdSessions, Fact, FormerSession, SessionDetail, SessionReport};

/// What the peer should be told, whole; newest wins.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    pub routes: Routes,
    /// The routes are all there is: End-of-RIB may be sent.
    pub complete: bool,
    pub local_addresses: Arc<Vec<LocalAddress>>,
    /// Differ from those before at most in what an open session takes over.
    pub settings: Arc<config::Peer>,
    /// All routes are sent once more whenever the number differs.
    pub refreshes: u32,
}

/// What the listening sockets have for the peer.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A connection that the peer has dialled, with the right keys and TTL.
    Connection(TcpStream),
    /// Why such a connection cannot come, or was not taken.
    Refused(String),
    /// Another router on the peer's link has dialled: it may be there in the peer's place.
    OtherOnLink,
}

/// How the task is to end, and every connection with it.
#[derive(Debug)]
pub(super) enum Leave {
    /// The peer is told the reason.
    End { notification: Notification, why: String },
    /// Another agent follows: the established session goes to this end, and the peer hears nothing. All other connections end.
    Keep(oneshot::Sender<KeptConnection>),
}

/// The ends of the channels between the speaker and one peer that are the peer's.
pub(super) struct Channels {
    pub desired: watch::Receiver<Desired>,
    pub inbound: mpsc::Receiver<Inbound>,
    pub leave: oneshot::Receiver<Leave>,
    pub facts: mpsc::Sender<Fact>,
    /// How the BFD sessions of all peers stand.
    pub bfd: watch::Receiver<BfdSessions>,
    pub in_session: InSession,
    /// `None`: nobody keeps a session over a crash.
    pub safe: Option<Safe>,
    /// The task has told all that it has to tell, and what it knows of its sessions.
    pub done: oneshot::Sender<Handed>,
}

/// What the agents before have left of the peer.
pub(super) struct Before {
    pub restart: Restart,
    /// The task begins with this session.
    pub kept: Option<KeptConnection>,
    pub former: Option<FormerSession>,
    /// Of the task that the peer had a moment ago: see [`Channels::done`]. What it tells comes before what this one tells.
    pub task: Option<oneshot::Receiver<Handed>>,
}

/// What a task leaves to the one that follows it for the peer.
#[derive(Debug)]
pub(super) struct Handed {
    /// Where the peer was.
    peer: ScopedAddress,
    ends: KnownEnds,
    chosen: Memory,
    warned: Warned,
    turns: Turns,
    last_error: Option<Arc<str>>,
}

/// How many last NOTIFICATIONs may be under way at once. Beyond that, as in a flood, a connection is closed without one.
const MOST_FAREWELLS: usize = 16;

/// Events read before a timer is judged, however many more wait: a flood must not hold the timers for ever.
const MOST_READ_FIRST: usize = 4096;

/// The kernel is asked so often by which of several links packets to the peer leave.
const LOOK_AT_LINK_EVERY: Duration = Duration::from_secs(10);

/// The kernel counts in ticks, so an acknowledgement may look this much older than it is.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// Messages moved from the outbox to the socket between two looks at everything else: short ones fill one write.
const MESSAGES_PER_TURN: usize = 256;

/// Runs the sessions with one peer until it is told to leave. On the established session of a previous agent nothing is sent
/// that its peer has, as far as that is known, and no route at all before the first desired state that is complete.
pub(super) async fn run(
    name: PeerName,
    settings: Arc<config::Peer>,
    address: ScopedAddress,
    router_id: Ipv4Addr,
    Before { restart, kept, mut former, task: before }: Before,
    channels: Channels,
) {
    let Channels { mut desired, mut inbound, mut leave, facts, mut bfd, in_session, safe, done } = channels;
    let left = match before {
        Some(before) => before.await.ok(),
        None => None,
    };
    let now = clock::now();
    let newest = desired.borrow_and_update().clone();
    let offer = settings::local_offer(&settings, &address, router_id, restart);
    let endpoint = settings::endpoint(&settings, address);
    let (mut dial_from, mut report) = (now, Report::new(now));
    let (ends, chosen, warned, turns) = match left {
        Some(Handed { peer, ends, chosen, warned, turns, last_error: _ }) if peer == endpoint.peer => {
            (ends, chosen, warned, turns)
        }
        Some(Handed { peer, ends, chosen, warned, mut turns, last_error }) => {
            dial_from = turns.turn_to_next(settings.connect_retry_time, now);
            report.last_error = last_error.map(|error| format!("{peer}: {error}").into());
            // What another router took or refused says nothing of this one.
            (KnownEnds::new(ends.last()), chosen, warned, turns)
        }
        None => Default::default(),
    };
    let (peering, resumption) = handover::begin(&name, &endpoint, offer, kept, &mut former, now);
    let mut task = PeerTask {
        peering: if settings.bfd_strict { peering.needing_path() } else { peering }.dialling_from(dial_from),
        endpoint,
        connections: Vec::new(),
        dial: None,
        outbound: None,
        desired: newest,
        farewells: JoinSet::new(),
        report,
        counters: Counters::default(),
        router_id: settings.router_id.unwrap_or(router_id),
        next_hops: NextHops::default(),
        chosen,
        warned,
        turns,
        restart,
        leaving: false,
        path: Path::default(),
        in_session,
        link_due: None,
        ends,
        unproven: None,
        signatures: Signatures::new(now),
        former,
        recovered: None,
        safe,
        name,
        settings,
    };
    if let Some(resumption) = resumption {
        task.resume(resumption);
        for (_, socket) in &mut task.connections {
            socket.mark(task.in_session.mark(Router::new(task.endpoint.peer.clone(), task.endpoint.device.as_ref())));
        }
        task.read_what_waits().await;
        // There may be a plan already, and then it does not change for this.
        task.handle_desired(task.desired.clone());
    }
    task.handle_bfd(&bfd.borrow_and_update().clone());
    let actions = task.peering.handle_timeout(now);
    task.carry_out(actions);
    loop {
        task.fill();
        task.keep_ledger();
        task.observe();
        let deadline = task.next_deadline();
        tokio::select! {
            (id, event) = next_event(&mut task.connections, &task.peering) => task.handle_event(id, event),
            (id, dialled) = next_dial(&mut task.dial) => task.handle_dialled(id, dialled),
            Some(inbound) = inbound.recv() => match inbound {
                Inbound::Connection(stream) => task.handle_inbound(stream),
                Inbound::Refused(why) => task.note_refusal(&why),
                Inbound::OtherOnLink => {
                    let actions = task.peering.handle_doubt(Doubt::OtherConnection, PROOF_TIME, clock::now());
                    task.carry_out(actions);
                }
            },
            Ok(()) = desired.changed() => {
                let newest = desired.borrow_and_update().clone();
                task.handle_desired(newest);
            }
            Ok(()) = bfd.changed() => {
                let newest = bfd.borrow_and_update().clone();
                task.handle_bfd(&newest);
            }
            () = sleep_until(deadline) => {
                task.read_what_waits().await;
                let actions = task.peering.handle_timeout(clock::now());
                task.carry_out(actions);
                task.look_at_link(clock::now());
            }
            // Otherwise each that has ended would be kept until the task ends.
            Some(_) = task.farewells.join_next() => {}
            Ok(permit) = facts.reserve(), if task.report.is_due(clock::now()) => {
                permit.send(task.report_now());
            }
            how = &mut leave => {
                match how {
                    Ok(Leave::End { notification, why }) => task.end(&notification, &why),
                    Ok(Leave::Keep(to)) => return task.hand_over(to).await,
                    // The speaker is gone.
                    Err(_) => {}
                }
                break;
            }
        }
    }
    // No other task reports that this session is over.
    task.observe();
    // The agent may be gone already.
    let _ = facts.send(task.report_now()).await;
    // Nobody may follow.
    let PeerTask { endpoint, ends, chosen, warned, turns, report, .. } = &mut task;
    // Where there was a session, another router is no news of this one.
    let last_error = report.last_error.take().filter(|_| turns.are_in_vain());
    let (ends, warned) = (std::mem::take(ends), std::mem::take(warned));
    let _ = done.send(Handed { peer: endpoint.peer.clone(), ends, chosen: *chosen, warned, turns: *turns, last_error });
    while task.farewells.join_next().await.is_some() {}
}

struct PeerTask {
    name: PeerName,
    settings: Arc<config::Peer>,
    endpoint: Endpoint,
    peering: Peering,
    /// At most as many as the machine has connections.
    connections: Vec<(ConnectionId, Connection)>,
    dial: Option<(ConnectionId, BoxFuture<'static, io::Result<TcpStream>>)>,
    /// The established session's; a new session gets a new one.
    outbound: Option<Outbound>,
    desired: Desired,
    farewells: JoinSet<()>,
    report: Report,
    counters: Counters,
    /// Ours to this peer.
    router_id: Ipv4Addr,
    /// Those of the last session.
    next_hops: NextHops,
    /// Which of them were chosen, and not configured.
    chosen: Memory,
    warned: Warned,
    turns: Turns,
    /// What the next OPEN says of this agent.
    restart: Restart,
    /// Sessions that end now end on purpose.
    leaving: bool,
    path: Path,
    in_session: InSession,
    /// The established session may run over several links, and then is looked at which it is.
    link_due: Option<Instant>,
    ends: KnownEnds,
    /// The connection that was dialled from one of them, and on which the peer has sent no OPEN.
    unproven: Option<ConnectionId>,
    signatures: Signatures,
    /// What became of the session of the previous agent.
    former: Option<FormerSession>,
    /// When the session that stands was last taken over from an agent that had died without a word, since the kernel booted.
    recovered: Option<Duration>,
    /// Where the session is entrusted to whoever keeps it over a crash; `None` where nobody does.
    safe: Option<Safe>,
}

impl PeerTask {
    /// Ends every connection for the reason that the NOTIFICATION gives.
    fn end(&mut self, notification: &Notification, why: &str) {
        self.leaving = true;
        let actions = self.peering.handle_stop(notification, why, clock::now());
        self.carry_out(actions);
    }

    /// Moves routes to the established connection while its socket keeps up.
    fn fill(&mut self) {
        let Some(outbound) = self.outbound.as_mut().filter(|outbound| !outbound.awaits_plan) else { return };
        let Some((_, socket)) = self.connections.iter_mut().find(|(id, _)| *id == outbound.connection) else { return };
        for _ in 0..MESSAGES_PER_TURN {
            if !socket.wants_routes() {
                return;
            }
            match outbound.outbox.poll_message() {
                Ok(Some(message)) => {
                    self.counters.sent.update += 1;
                    outbound.has_news = true;
                    outbound.uptake.note_routes(clock::now());
                    socket.queue_routes(message);
                }
                Ok(None) => {
                    let complete = self.desired.complete;
                    // Between two refreshes, not after the last: a peer that asks without end would never hear of it.
                    if outbound.next_hops_due && !outbound.refreshes.is_under_way() {
                        outbound.next_hops_due = false;
                        outbound.outbox.change_next_hops(&outbound.negotiated, outbound.next_hops);
                    } else if let Some(step) = outbound.refreshes.poll_idle(&outbound.negotiated, complete) {
                        let RefreshStep { mark, again } = step;
                        // After the routes, not before them like other control messages.
                        if let Some(mark) = mark {
                            self.counters.note_sent(&mark);
                            socket.queue_routes(octets(&mark));
                        }
                        again.into_iter().for_each(|family| outbound.outbox.refresh(family));
                    } else {
                        return;
                    }
                }
                Err(error) => {
                    let connection = outbound.connection;
                    return self.reset(connection, Cease::OutOfResources, format!("a bug in crier: {error}"));
                }
            }
        }
    }

    fn handle_event(&mut self, id: ConnectionId, event: ConnectionEvent) {
        let now = clock::now();
        let actions = match event {
            ConnectionEvent::Frame(frame) => {
                self.signatures.fit();
                self.counters.note_frame(id, &frame);
                self.peering.handle_frame(id, &frame, now)
            }
            ConnectionEvent::Malformed(error) => self.peering.handle_malformed(id, &error, now),
            ConnectionEvent::Lost(how) => self.peering.handle_lost(id, how, now),
            ConnectionEvent::Sent => return self.peering.handle_sent(id, now),
        };
        self.carry_out(actions);
    }

    fn handle_dialled(&mut self, id: ConnectionId, dialled: io::Result<TcpStream>) {
        self.dial = None;
        let now = clock::now();
        let actions = match dialled {
            Ok(stream) => {
                self.connections.push((id, Connection::new(stream)));
                self.peering.handle_connected(id, now)
            }
            Err(error) => self.peering.handle_dial_failed(id, describe(&error), now),
        };
        self.carry_out(actions);
    }

    fn handle_inbound(&mut self, stream: TcpStream) {
        if let Err(error) = self.endpoint.dress_accepted(&stream) {
            // The peer has closed it again already, most likely.
            debug!(peer = %self.name, %error, "accepted connection dropped");
            return;
        }
        let (id, actions) = self.peering.handle_accepted(clock::now());
        self.connections.push((id, Connection::new(stream)));
        self.carry_out(actions);
    }

    /// Reported like a failure of a dial, because a passive session has no other.
    fn note_refusal(&mut self, why: &str) {
        if self.outbound.is_none() {
            warn!(peer = %self.name, address = %self.endpoint.peer, reason = why, "no connection of the peer can be accepted");
            self.report.fail(why.into(), false, clock::now());
        }
    }

    fn handle_desired(&mut self, newest: Desired) {
        let before = std::mem::replace(&mut self.desired, newest);
        if !Arc::ptr_eq(&before.local_addresses, &self.desired.local_addresses) {
            self.follow_local_addresses(&before.local_addresses);
        }
        if before.settings != self.desired.settings {
            self.follow_settings(Arc::clone(&self.desired.settings));
        }
        if self.desired.complete && self.outbound.as_ref().is_some_and(|outbound| outbound.awaits_plan) {
            // Nobody looked while no agent ran: what is not there now may have been there before.
            self.end_without_address(|_| true);
        }
        let Some(outbound) = &mut self.outbound else { return };
        if before.refreshes != self.desired.refreshes {
            info!(peer = %self.name, "all routes are sent again: an operator asked for it");
            for family in outbound.families() {
                // One that waits already is sent all the same.
                let _ = outbound.refreshes.ask(family);
            }
        }
        if outbound.awaits_plan && !self.desired.complete {
            return;
        }
        let resumes = std::mem::take(&mut outbound.awaits_plan);
        outbound.outbox.want(&self.desired.routes);
        outbound.outbox.set_complete(self.desired.complete);
        // What was configured and is not any more is no choice that was made.
        let former = NextHops {
            v4: outbound.next_hops.v4.filter(|_| before.settings.next_hop.is_none()),
            v6: outbound.next_hops.v6.filter(|_| before.settings.next_hop_v6.is_none()),
        };
        let (newest, in_doubt) = self.desired.next_hops(
            outbound.local_address,
            &self.endpoint,
            &self.settings,
            &outbound.negotiated,
            former,
            &mut self.chosen,
        );
        self.next_hops = newest;
        self.link_due = in_doubt.then(|| clock::now() + LOOK_AT_LINK_EVERY);
        if outbound.next_hops != newest {
            for (family, before, next_hop) in outbound.new_next_hops(newest) {
                match before {
                    Some(before) => {
                        info!(peer = %self.name, %family, %before, %next_hop, "next hop changed: the routes are sent again")
                    }
                    None => info!(peer = %self.name, %family, %next_hop, "there is a next hop: the routes are sent"),
                }
            }
            outbound.next_hops = newest;
            outbound.next_hops_due = true;
            for family in outbound.outbox.lose_next_hops(&outbound.negotiated, newest) {
                warn!(peer = %self.name, %family, "routes withdrawn: this node has no next hop of the same address family");
            }
        }
        if resumes {
            let (sent, pending) = (outbound.outbox.sent_count(), outbound.outbox.pending_count());
            let next_hops_changed = outbound.next_hops_due;
            info!(peer = %self.name, routes = sent, differ = pending, next_hops_changed, "session goes on: only what differs is sent");
        }
    }

    /// A way that moves to another link tells nobody; the next hop of the other family is to go with it.
    fn look_at_link(&mut self, now: Instant) {
        if self.link_due.take_if(|due| *due <= now).is_some() {
            self.handle_desired(self.desired.clone());
        }
    }

    /// What is open goes on with the new settings.
    fn follow_settings(&mut self, settings: Arc<config::Peer>) {
        let was_strict = std::mem::replace(&mut self.settings, settings).bfd_strict;
        if was_strict != self.settings.bfd_strict {
            let actions = self.peering.handle_need_of_path(self.settings.bfd_strict, clock::now());
            self.carry_out(actions);
            self.note_held(clock::now());
        }
        if let Some(outbound) = &mut self.outbound {
            outbound.has_news = true;
        }
        let endpoint = settings::endpoint(&self.settings, self.endpoint.peer.clone());
        let before = std::mem::replace(&mut self.endpoint, endpoint);
        let now = clock::now();
        self.renew_offer(now);
        if before.protection == self.endpoint.protection {
            return;
        }
        self.signatures = Signatures::new(now);
        if before.protection.lacks_secret()
            && Signature::from(&before.protection) == Signature::from(&self.endpoint.protection)
        {
            if matches!(self.endpoint.protection, Protection::Ao(_)) {
                // The kernel changes nothing about the keys of an open connection, and it has those that it had before.
                info!(peer = %self.name, "the secret that was missing is there: new connections are signed with it");
                return;
            }
            match self.outbound {
                Some(_) => warn!(
                    peer = %self.name,
                    "the password that was missing is there: the open session is signed with it too, and ends with its hold time if \
                     the router has another one"
                ),
                None => {
                    info!(peer = %self.name, "the password that was missing is there: connections are signed with it")
                }
            }
        }
        let mut failed = Vec::new();
        for (id, socket) in &self.connections {
            if let Err(error) = socket.sign_anew(&self.endpoint, &before.protection) {
                failed.push((*id, describe(&error)));
            }
        }
        let open = self.connections.len() - failed.len();
        for (id, why) in failed {
            let why =
                format!("the password has changed, and the kernel cannot change it on the open connection: {why}");
            self.reset(id, Cease::OtherConfigurationChange, why);
        }
        if self.outbound.is_some() && open > 0 && !before.protection.lacks_secret() {
            let hold_time = self.outbound.as_ref().and_then(|outbound| outbound.negotiated.hold_time);
            warn!(
                peer = %self.name,
                hold_time_secs = hold_time.map_or(0, |time| time.as_secs()),
                "the password of the open session has changed: change it on the peer's side too, or the session ends with its hold time"
            );
        }
        // Dialled with the former password.
        if let Some((id, _)) = self.dial.take() {
            let actions = self.peering.handle_dial_failed(id, "the password has changed".to_owned(), now);
            self.carry_out(actions);
        }
        if self.connections.is_empty() {
            self.peering.handle_address_came(now);
        }
    }

    /// The next connection offers what there is to offer now.
    fn renew_offer(&mut self, now: Instant) {
        let offer = settings::local_offer(&self.settings, &self.endpoint.peer, self.router_id, self.restart);
        let actions = self.peering.handle_offer(offer, now);
        self.carry_out(actions);
    }

    /// There is a session: the next one, if it comes to that, is no restart of this agent, and finds the kernel as this one left it.
    fn note_session(&mut self) {
        self.restart = Restart { restarting: false, forwarding: true };
        self.renew_offer(clock::now());
    }

    /// A process that was stopped, or starved, finds what came meanwhile in its sockets: that counts before any timer does.
    async fn read_what_waits(&mut self) {
        for _ in 0..MOST_READ_FIRST {
            match next_event(&mut self.connections, &self.peering).now_or_never() {
                Some((id, event)) => self.handle_event(id, event),
                // The runtime has not looked at the socket yet.
                None if self.connections.iter().any(|(_, socket)| socket.has_unread()) => {
                    tokio::task::yield_now().await
                }
                None => return,
            }
        }
    }

    /// Does the peer still answer on this connection?
    fn prove(&mut self, id: ConnectionId, asked_at: Instant, doubt: Doubt) {
        let now = clock::now();
        let found = self.connections.iter().find(|(name, _)| *name == id);
        let answered = found.is_some_and(|(_, socket)| {
            // A kernel that does not tell is no reason to end a session.
            socket.since_acknowledgement().is_none_or(|since| since <= now.duration_since(asked_at) + CLOCK_TICK)
        });
        match doubt {
            Doubt::Path if !answered => self.reset(id, Cease::BfdDown, format!("BFD: {}", self.path.lost)),
            Doubt::Path | Doubt::OtherConnection => {
                let actions = self.peering.handle_proof(id, answered, now);
                self.carry_out(actions);
            }
        }
    }

    fn reset(&mut self, connection: ConnectionId, cease: Cease, why: String) {
        let notification = NotificationReason::Cease(cease).into();
        let actions = self.peering.handle_fault(connection, notification, why, clock::now());
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(id) => {
                    self.turns.note_dial(clock::now());
                    self.dial = Some((id, self.dial(id)));
                }
                Action::Send(id, message) => {
                    debug!(peer = %self.name, connection = %id, %message, "message queued");
                    self.counters.note_sent(&message);
                    if let Some((_, socket)) = self.connections.iter_mut().find(|(name, _)| *name == id) {
                        socket.queue_control(octets(&message));
                    }
                }
                Action::Close { connection, last_word } => self.close(connection, last_word),
                Action::Up { connection, negotiated } => self.begin(connection, negotiated),
                Action::Down { connection, end } => {
                    (self.outbound, self.link_due) = (None, None);
                    self.counters.note_end(&end, clock::wall_timestamp());
                    if self.leaving {
                        info!(peer = %self.name, %connection, reason = %end, "session closed");
                    } else {
                        warn!(peer = %self.name, %connection, reason = %end, "session lost");
                    }
                    self.report.fail(end.to_string().into(), end.is_telling(), clock::now());
                    self.note_held(clock::now());
                }
                Action::Failed { connection, end } => {
                    self.counters.note_end(&end, clock::wall_timestamp());
                    self.note_refusal_of_end(connection, &end);
                    self.note_failure(connection, &end);
                    self.note_held(clock::now());
                }
                Action::Withheld { connection, capabilities } => {
                    let capabilities = capabilities.iter().map(Capability::to_string).collect::<Vec<_>>().join(", ");
                    warn!(
                        peer = %self.name, %connection, %capabilities,
                        "the peer refused these capabilities; they are not offered to it again until `crier bgp reset`, a change of \
                         its settings or a restart of the agent"
                    );
                }
                Action::Refresh { connection: _, family } => {
                    if let Some(outbound) = &mut self.outbound
                        && outbound.refreshes.ask(family)
                        && outbound.tells_refresh(family, clock::now())
                    {
                        info!(peer = %self.name, %family, "the peer asked for all routes again");
                    }
                }
                Action::Ignored { connection, why } => {
                    if let Some(outbound) = &mut self.outbound
                        && !std::mem::replace(&mut outbound.ignores, true)
                    {
                        warn!(peer = %self.name, %connection, reason = why, "UPDATE ignored, and any more like it in this session");
                    }
                }
                Action::Prove { connection, asked_at, doubt } => self.prove(connection, asked_at, doubt),
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, last_word: Option<Notification>) {
        if self.dial.as_ref().is_some_and(|(id, _)| *id == connection) {
            self.dial = None;
        }
        let Some(at) = self.connections.iter().position(|(id, _)| *id == connection) else { return };
        let (_, socket) = self.connections.swap_remove(at);
        let has_spoken = self.counters.open_of(connection).is_some();
        self.unproven.take_if(|id| has_spoken && *id == connection);
        self.counters.forget(connection);
        match last_word {
            Some(word) => {
                self.counters.note_last_word(&word, clock::wall_timestamp());
                if self.farewells.len() >= MOST_FAREWELLS {
                    debug!(peer = %self.name, %connection, "closed without a NOTIFICATION: too many are under way");
                    return socket.close();
                }
                self.farewells.spawn(socket.say_farewell(octets(&Message::Notification(word))));
            }
            None => socket.close(),
        }
    }

    /// The session is established: the peer gets what it should have.
    fn begin(&mut self, connection: ConnectionId, negotiated: Negotiated) {
        let Some((_, socket)) = self.connections.iter_mut().find(|(id, _)| *id == connection) else { return };
        // The connection was just read from. A failure here means that it is gone, which is reported on its own.
        let Ok(local) = socket.local_address() else { return };
        let local_address = local.ip();
        let remote = socket.peer_address().ok();
        socket.mark(self.in_session.mark(Router::new(self.endpoint.peer.clone(), self.endpoint.device.as_ref())));
        self.path.begin_session(clock::now());
        let capabilities = self.counters.capabilities(connection);
        self.counters.times_established += 1;
        let (settings, before) = (&self.settings, self.next_hops);
        let (next_hops, in_doubt) =
            self.desired.next_hops(local_address, &self.endpoint, settings, &negotiated, before, &mut self.chosen);
        self.next_hops = next_hops;
        self.link_due = in_doubt.then(|| clock::now() + LOOK_AT_LINK_EVERY);
        self.ends.note_session(local_address, &self.desired.local_addresses);
        let outbox = self.desired.outbox(&negotiated, next_hops);
        info!(
            peer = %self.name,
            address = %self.endpoint.peer,
            asn = negotiated.peer_asn,
            hold_time_secs = negotiated.hold_time.map_or(0, |time| time.as_secs()),
            %local_address,
            "session established"
        );
        self.warned.note_session();
        self.turns.note_session();
        self.report.forget_failures();
        self.note_session();
        self.outbound = Some(Outbound {
            connection,
            negotiated,
            local_address,
            local,
            remote,
            capabilities,
            next_hops,
            next_hops_due: false,
            awaits_plan: false,
            ignores: false,
            outbox,
            refreshes: Refreshes::default(),
            refreshes_told: Default::default(),
            uptake: Uptake::new(clock::now()),
            has_news: false,
            without_ledger: false,
        });
        self.recovered = None;
        // Before the first route is queued.
        self.begin_ledger();
    }

    /// Logs each reason why there is no session once, not each time.
    fn note_failure(&mut self, connection: ConnectionId, end: &End) {
        let is_alone = self.connections.iter().all(|(id, _)| *id == connection);
        let explains = self.report.explains(end, is_alone);
        if (end.is_collision() && !explains) || self.outbound.is_some() || self.leaving {
            debug!(peer = %self.name, %connection, reason = %end, "connection closed");
            return;
        }
        self.report.note_failure(clock::now());
        let text: Arc<str> = report::reason(end, &self.endpoint).into();
        self.report.fail(Arc::clone(&text), explains, clock::now());
        if !self.warned.is_new(&self.endpoint.peer, &text) {
            debug!(peer = %self.name, %connection, reason = %text, "no session, for the same reason");
            return;
        }
        warn!(peer = %self.name, address = %self.endpoint.peer, reason = %text, "no session");
    }

    fn next_deadline(&self) -> Option<Instant> {
        let now = clock::now();
        let report = self.report.due.filter(|due| *due > now);
        // Where it is due already, what is still to be sent comes first, and wakes this task.
        let ledger = self.ledger_due().filter(|due| *due > now);
        let uptake = self.outbound.as_ref().and_then(|outbound| outbound.uptake.next_deadline(now));
        let all =
            [self.peering.next_deadline(), report, ledger, uptake, self.signatures.next_deadline(), self.link_due];
        all.into_iter().flatten().min()
    }

    fn observe(&mut self) {
        let (state, now) = (self.peering.state(), clock::now());
        if let Some(outbound) = &mut self.outbound
            && let Some((_, socket)) = self.connections.iter().find(|(id, _)| *id == outbound.connection)
        {
            let more = !outbound.awaits_plan && outbound.outbox.pending_count() > 0;
            outbound.uptake.look(socket, more, now);
        }
        let outbound = self.outbound.as_ref();
        let counts = Counts {
            sent: outbound.map_or(0, |outbound| outbound.outbox.sent_count()),
            received: self.peering.received().prefixes,
            pending: outbound.map_or(0, |outbound| outbound.outbox.pending_count()),
            messages: self.counters.sent.total() + self.counters.received.total(),
            untaken: outbound.is_some_and(|outbound| outbound.uptake.waits()),
            unheard: outbound.is_some_and(|outbound| outbound.uptake.unheard()),
            silent_since: outbound.and_then(|outbound| outbound.uptake.silent_since(now)),
            wanted: self.desired.routes.len(),
            next_attempt: self.peering.next_attempt(),
        };
        if self.report.observe(state, counts, now) {
            debug!(peer = %self.name, state = %state, "state changed");
        }
        if self.outbound.is_none() {
            self.signatures.watch(now);
        }
        let is_first = self.signatures.refused().is_none();
        if self.signatures.look(&self.endpoint.protection, now) {
            self.report.due = Some(now);
            if is_first && self.outbound.is_some() {
                warn!(
                    peer = %self.name,
                    "the kernel refuses segments for their signature, and nothing comes from the peer that is signed right: the password \
                     of the open session is another one than the peer's, or segments of another host are refused"
                );
            }
        }
    }

    fn report_now(&mut self) -> Fact {
        let outbound = self.outbound.as_ref();
        let (unsendable, too_long) = outbound.map(Outbound::unsendable).unwrap_or_default();
        let report = SessionReport {
            state: self.report.state,
            since: self.report.since,
            last_error: self.report.last_error.as_deref().map(str::to_owned),
            local_address: outbound.map(|outbound| outbound.local_address),
            hold_time_secs: outbound
                .and_then(|outbound| outbound.negotiated.hold_time)
                .and_then(|time| u16::try_from(time.as_secs()).ok()),
            prefixes_sent: self.report.counts.sent,
            prefixes_unsendable: outbound.map_or(0, |outbound| outbound.outbox.unsendable_count()),
            prefixes_received: self.report.counts.received,
            detail: Box::new(SessionDetail {
                negotiated: outbound.map(|outbound| outbound.negotiated(self.router_id)),
                times_established: self.counters.times_established,
                last_error_at: self.counters.last_error_at,
                fails: !self.leaving && self.report.fails(),
                messages_sent: self.counters.sent,
                messages_received: self.counters.received,
                updates_malformed: self.peering.received().malformed,
                notifications: self.counters.notifications(),
                last_notification_sent: self.counters.last_sent.clone(),
                last_notification_received: self.counters.last_received.clone(),
                prefixes_pending: self.report.counts.pending,
                routes_untaken: self.report.counts.untaken,
                routes_unheard: self.report.counts.unheard,
                reads_nothing_since: self.report.counts.silent_since.map(clock::wall_timestamp_since),
                unsendable,
                too_long,
                address: Some(self.endpoint.peer.clone()),
                next_attempt_at: self.report.counts.next_attempt.map(clock::wall_timestamp_of),
                refused: self.signatures.refused(),
                former: self.former.clone(),
                known_from: self.ends.known_to_peer(),
            }),
        };
        self.report.told(clock::now());
        Fact::Session(self.name.clone(), report)
    }
}

/// The next event of any connection. Without a connection it never answers.
async fn next_event(
    connections: &mut [(ConnectionId, Connection)],
    peering: &Peering,
) -> (ConnectionId, ConnectionEvent) {
    poll_fn(|cx: &mut Context<'_>| {
        for (id, socket) in connections.iter_mut() {
            if let Poll::Ready(event) = socket.poll_event(peering.max_message_len(*id), cx) {
                return Poll::Ready((*id, event));
            }
        }
        Poll::Pending
    })
    .await
}

/// The outcome of the dial under way. Without a dial it never answers.
async fn next_dial(
    dial: &mut Option<(ConnectionId, BoxFuture<'static, io::Result<TcpStream>>)>,
) -> (ConnectionId, io::Result<TcpStream>) {
    match dial {
        Some((id, dial)) => (*id, dial.await),
        None => pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// A control message in octets.
fn octets(message: &Message) -> Bytes {
    let mut octets = BytesMut::new();
    if let Err(error) = message.emit(&Dialect::BEFORE_OPEN, &mut octets) {
        // Our OPEN is short, a KEEPALIVE has no body and a NOTIFICATION's data is cut to fit.
        error!(%error, "a control message could not be written, which is a bug in crier");
    }
    octets.freeze()
}
