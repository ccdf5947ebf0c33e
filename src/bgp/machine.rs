//! One peer: when to dial it, and which of two connections to keep when both ends dialled (RFC 4271 §6.8, RFC 6286 §2.3).
//! Floor 1. Idle, Connect and Active of RFC 4271 §8.2.2 are here; a connection from its socket on is a `session::Session`.

pub mod negotiation;
pub mod session;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::bgp::machine::negotiation::{LocalOffer, Negotiated};
use crate::bgp::machine::session::{Effect, End, PROOF_TIME, Received, Session, Standing, jittered};
use crate::bgp::wire::{
    AfiSafi, Capability, Cease, Dialect, Frame, Message, Notification, NotificationReason, Open, Parsed, WireError,
};
use crate::session_state::SessionState;

/// One peer and every connection to it.
///
/// - A. Create it with [`Peering::new`]; that is RFC 4271's ManualStart. It wants to be called at once.
/// - B. Tell it what happens: `handle_connected`, `handle_dial_failed`, `handle_accepted`, `handle_frame`,
///   `handle_malformed`, `handle_lost`, `handle_sent`, `handle_address_gone`, `handle_proof`, `handle_stop`.
/// - C. Call `handle_timeout` at [`Peering::next_deadline`]. A late or spare call is harmless.
/// - D. Do what each call answers, in order. Events of a connection that was closed here are ignored, so a late "lost"
///   of one connection never affects another.
///
/// Time must not go backwards. Every connection has a full machine of its own from its socket on. Two are compared once both
/// have received the peer's OPEN, so a connection that the peer has given up is never preferred.
#[derive(Debug, Clone)]
pub struct Peering {
    offer: Arc<LocalOffer>,
    approach: Approach,
    /// At most one that we dialled, one that was accepted and waits for its OPEN, one that was accepted and got it.
    connections: Vec<Connection>,
    next_connection: u64,
    /// Sessions that ended in error since the last one that held, RFC 4271's ConnectRetryCounter.
    failures: u32,
    /// Connections that the peer's operator ended soon, since the last session that held.
    wishes: u32,
    /// Nothing is dialled or accepted while BFD does not say that the path is up: `bfd-strict`.
    needs_path: bool,
    path_is_up: bool,
    rng: Rng,
}

/// Names one connection or dial of a peer; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

#[derive(Debug, Clone)]
struct Connection {
    id: ConnectionId,
    opened_by: Side,
    session: Session,
    /// The peer was asked to prove that it still answers on this one.
    question: Option<Question>,
}

/// A KEEPALIVE that the peer is to acknowledge.
#[derive(Debug, Clone, Copy)]
struct Question {
    asked_at: Instant,
    due: Instant,
    doubt: Doubt,
}

/// Why an established connection may be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The peer, or another router on the link of an unnumbered peer, has opened another connection.
    OtherConnection,
    /// BFD has lost a path that it had before the session.
    Path,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// We dialled.
    Us,
    /// We accepted.
    Peer,
}

/// What is done to get another connection.
#[derive(Debug, Clone, Copy)]
enum Approach {
    /// Nothing. `until` is absent after `handle_stop`.
    Idle { until: Option<Instant> },
    /// A dial is under way.
    Connect { dial: ConnectionId, give_up_at: Instant },
    /// Ready for the peer's dial. `dial_at` is absent if we never dial, or need not dial now.
    Active { dial_at: Option<Instant> },
    /// Nothing, until BFD says that the path is up.
    Held,
}

/// What the machine asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a TCP connection to the peer; answer with `handle_connected` or `handle_dial_failed`.
    Dial(ConnectionId),
    Send(ConnectionId, Message),
    /// Send the last NOTIFICATION, if there is one, and close; or give up the dial.
    Close {
        connection: ConnectionId,
        last_word: Option<Notification>,
    },
    /// The session is established on this connection.
    Up {
        connection: ConnectionId,
        negotiated: Negotiated,
    },
    /// The session that was established on this connection is over.
    Down {
        connection: ConnectionId,
        end: End,
    },
    /// A connection or a dial has ended without a session.
    Failed {
        connection: ConnectionId,
        end: End,
    },
    /// The peer asks for all routes of a family again.
    Refresh {
        connection: ConnectionId,
        family: AfiSafi,
    },
    /// An UPDATE of the established session was left out, for the reason in the text.
    Ignored {
        connection: ConnectionId,
        why: String,
    },
    /// The peer refused these capabilities. They are not offered to it again, and another attempt is made at once.
    Withheld {
        connection: ConnectionId,
        capabilities: Vec<Capability>,
    },
    /// Has the peer acknowledged anything on the established connection since then? Answer with `handle_proof`.
    Prove {
        connection: ConnectionId,
        asked_at: Instant,
        doubt: Doubt,
    },
}

/// The longest pause after repeated failures, unless the connect-retry time is longer.
pub const LONGEST_IDLE_HOLD_TIME: Duration = Duration::from_secs(60);

/// A session that lasted this long clears the count of failures.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// So many connections in a row the peer's operator may end within [`FORGIVEN_AFTER`] of their beginning. One more counts as a failure.
const MOST_WISHES: u32 = 5;

/// After two connections closed each other, the peer is dialled again within this time. The time is drawn from the whole range,
/// so both ends rarely dial at the same moment again.
const COLLISION_PAUSE: Duration = Duration::from_secs(1);

impl Peering {
    /// Starts with an idle peer. The seed feeds the jitter only.
    pub fn new(offer: LocalOffer, seed: u64, now: Instant) -> Peering {
        let approach =
            if offer.passive { Approach::Active { dial_at: None } } else { Approach::Active { dial_at: Some(now) } };
        Peering {
            offer: Arc::new(offer),
            approach,
            connections: Vec::new(),
            next_connection: 0,
            failures: 0,
            wishes: 0,
            needs_path: false,
            path_is_up: false,
            rng: Rng::with_seed(seed),
        }
    }

    /// Starts with the established session that stood like this in another process `passed` ago, on the connection of that name.
    /// Call `handle_timeout` only once what waits on the connection was read.
    pub fn resumed(
        offer: LocalOffer,
        negotiated: Negotiated,
        standing: Standing,
        passed: Duration,
        seed: u64,
        now: Instant,
    ) -> (Peering, ConnectionId) {
        let mut peering = Peering::new(offer, seed, now);
        peering.approach = Approach::Active { dial_at: None };
        let id = peering.next_id();
        let offer = Arc::clone(&peering.offer);
        let session = Session::resumed(offer, negotiated, standing, passed, peering.rng.u64(..), now);
        // Who opened it matters only until it is established.
        peering.connections.push(Connection { id, opened_by: Side::Us, session, question: None });
        (peering, id)
    }

    /// Forgets a connection that another process goes on with.
    pub fn release(&mut self, id: ConnectionId) {
        self.connections.retain(|connection| connection.id != id);
    }

    /// The OPEN of a connection that is opened now.
    pub fn open_message(&self) -> Open {
        self.offer.open()
    }

    /// How the established session stands, if there is one.
    pub fn standing(&self, now: Instant) -> Option<Standing> {
        self.established().and_then(|connection| connection.session.standing(now))
    }

    /// The same, and the peer is not dialled before then.
    pub fn dialling_from(mut self, when: Instant) -> Peering {
        if let Approach::Active { dial_at: Some(dial_at) } = &mut self.approach {
            *dial_at = (*dial_at).max(when);
        }
        self
    }

    /// The same, with no session before BFD says that the path is up: RFC 5882 §4.1, `bfd-strict`.
    pub fn needing_path(self) -> Peering {
        Peering { needs_path: true, ..self }
    }

    /// From now on with, or without, `bfd-strict`. An established session stays in either case: the path may be what it is without
    /// BFD. Nothing of it is told to the peer.
    pub fn handle_need_of_path(&mut self, needs_path: bool, now: Instant) -> Vec<Action> {
        if std::mem::replace(&mut self.needs_path, needs_path) == needs_path || self.path_is_up {
            return Vec::new();
        }
        let mut actions = Vec::new();
        match (needs_path, &self.approach) {
            (true, _) => return self.hold(now),
            (false, Approach::Held) => self.start(now, &mut actions),
            (false, Approach::Idle { .. } | Approach::Connect { .. } | Approach::Active { .. }) => {}
        }
        actions
    }

    /// Whether a session waits for the path and for nothing else.
    pub fn is_held(&self) -> bool {
        self.needs_path && !self.path_is_up
    }

    /// Offers this from now on. A connection that has sent its OPEN goes on with what it has offered.
    pub fn handle_offer(&mut self, offer: LocalOffer, now: Instant) -> Vec<Action> {
        let was_passive = std::mem::replace(&mut self.offer, Arc::new(offer)).passive;
        let mut actions = Vec::new();
        match (was_passive, self.offer.passive) {
            (false, true) if !matches!(self.approach, Approach::Idle { .. } | Approach::Held) => {
                self.stop_dialling(&mut actions)
            }
            (true, false) if self.connections.is_empty() => match self.approach {
                Approach::Active { .. } => self.dial(now, &mut actions),
                Approach::Idle { .. } | Approach::Connect { .. } | Approach::Held => {}
            },
            (_, _) => {}
        }
        actions
    }

    /// How far the best connection has come, or what is done to get one.
    pub fn state(&self) -> SessionState {
        let approach = match self.approach {
            Approach::Idle { .. } | Approach::Held => SessionState::Idle,
            Approach::Connect { .. } => SessionState::Connect,
            Approach::Active { .. } => SessionState::Active,
        };
        self.connections.iter().map(|connection| connection.session.state()).fold(approach, SessionState::max)
    }

    /// What both sides of the established session negotiated, if there is one.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.established().and_then(|connection| connection.session.negotiated())
    }

    /// What the established session has received.
    pub fn received(&self) -> Received {
        self.established().map(|connection| connection.session.received()).unwrap_or_default()
    }

    /// How often in a row a session has failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When to call `handle_timeout`; `None` when no timer runs. In the past only until it is called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let approach = match self.approach {
            Approach::Idle { until } => until,
            Approach::Connect { give_up_at, .. } => Some(give_up_at),
            Approach::Active { dial_at } => dial_at,
            Approach::Held => None,
        };
        let of = |connection: &Connection| {
            [connection.session.next_deadline(), connection.question.map(|question| question.due)]
        };
        self.connections.iter().flat_map(of).chain([approach]).flatten().min()
    }

    /// When the peer is dialled next; `None` while a connection or a dial is under way, and where it never is.
    pub fn next_attempt(&self) -> Option<Instant> {
        if !self.connections.is_empty() {
            return None;
        }
        match self.approach {
            Approach::Idle { until } => until,
            Approach::Connect { .. } | Approach::Held => None,
            Approach::Active { dial_at } => dial_at,
        }
    }

    /// RFC 4271 events 3, 9, 10, 11 and RFC 9687's: whatever timers are due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let due: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|connection| connection.session.next_deadline().is_some_and(|deadline| deadline <= now))
            .map(|connection| connection.id)
            .collect();
        for id in due {
            actions.extend(self.with_session(id, now, |session| session.handle_timeout(now)));
        }
        for connection in &mut self.connections {
            if let Some(Question { asked_at, due: _, doubt }) = connection.question.take_if(|it| it.due <= now) {
                actions.push(Action::Prove { connection: connection.id, asked_at, doubt });
            }
        }
        match self.approach {
            Approach::Idle { until: Some(until) } if until <= now => self.start(now, &mut actions),
            Approach::Active { dial_at: Some(dial_at) } if dial_at <= now => self.dial(now, &mut actions),
            // RFC 4271 §8.2.2, Connect, event 9: drop the attempt and dial again.
            Approach::Connect { dial, give_up_at } if give_up_at <= now => {
                actions.push(Action::Close { connection: dial, last_word: None });
                actions.push(Action::Failed { connection: dial, end: End::DialTimedOut });
                self.dial(now, &mut actions);
            }
            Approach::Idle { .. } | Approach::Active { .. } | Approach::Connect { .. } | Approach::Held => {}
        }
        actions
    }

    /// RFC 4271 event 16: the dial has become a connection.
    pub fn handle_connected(&mut self, id: ConnectionId, now: Instant) -> Vec<Action> {
        match self.approach {
            Approach::Connect { dial, .. } if dial == id => {
                self.approach = Approach::Active { dial_at: None };
                let mut actions = Vec::new();
                self.open(id, Side::Us, now, &mut actions);
                actions
            }
            Approach::Idle { .. } | Approach::Connect { .. } | Approach::Active { .. } | Approach::Held => Vec::new(),
        }
    }

    /// RFC 4271 event 18 in Connect. The RFC says Idle here; waiting in Active for the connect-retry time is the same to the network,
    /// except that the peer's own dial is accepted meanwhile.
    pub fn handle_dial_failed(&mut self, id: ConnectionId, why: String, now: Instant) -> Vec<Action> {
        match self.approach {
            Approach::Connect { dial, .. } if dial == id => {
                self.await_retry(now);
                vec![Action::Failed { connection: id, end: End::DialFailed(why) }]
            }
            Approach::Idle { .. } | Approach::Connect { .. } | Approach::Active { .. } | Approach::Held => Vec::new(),
        }
    }

    /// RFC 4271 event 17: the peer has dialled. The connection has the id that comes back, and may be closed at once.
    pub fn handle_accepted(&mut self, now: Instant) -> (ConnectionId, Vec<Action>) {
        let id = self.next_id();
        let mut actions = Vec::new();
        if self.is_held() {
            actions.push(Action::Close { connection: id, last_word: None });
            return (id, actions);
        }
        match self.approach {
            // RFC 4271 §8.2.2 refuses every connection in Idle. That is kept for a peer that keeps failing. After a first
            // failure its dial is taken as the automatic start (event 5) instead: a router that has restarted
            // would otherwise wait for its own connect-retry time, which is long on most routers.
            Approach::Idle { until } if until.is_none() || self.failures > 1 => {
                actions.push(Action::Close { connection: id, last_word: None });
                return (id, actions);
            }
            Approach::Idle { .. } => self.await_retry(now),
            Approach::Connect { .. } | Approach::Active { .. } | Approach::Held => {}
        }
        let silent = self.connections.iter().find(|other| other.opened_by == Side::Peer && !other.heard());
        let silent = silent.map(|other| other.id);
        self.open(id, Side::Peer, now, &mut actions);
        // A peer that dials again has given up the connection on which it has sent nothing.
        if let Some(silent) = silent {
            actions.extend(self.lose_collision(silent, now));
        }
        (id, actions)
    }

    /// Octets, header included, that the next message of a connection may be long.
    pub fn max_message_len(&self, id: ConnectionId) -> usize {
        let connection = self.connections.iter().find(|connection| connection.id == id);
        connection.map_or(Dialect::BEFORE_OPEN.max_message_len, |connection| connection.session.max_message_len())
    }

    /// A message came on a connection, not yet read.
    pub fn handle_frame(&mut self, id: ConnectionId, frame: &Frame, now: Instant) -> Vec<Action> {
        self.hear(id, now, |session| session.handle_frame(frame, now))
    }

    /// A message came on a connection.
    pub fn handle_message(&mut self, id: ConnectionId, message: Parsed, now: Instant) -> Vec<Action> {
        self.hear(id, now, |session| session.handle_message(message, now))
    }

    /// RFC 4271 events 21, 22, 24 and 28: what came on a connection cannot be cut into messages.
    pub fn handle_malformed(&mut self, id: ConnectionId, error: &WireError, now: Instant) -> Vec<Action> {
        self.with_session(id, now, |session| session.handle_malformed(error, now))
    }

    /// RFC 4271 event 18: the connection is gone; the text says how.
    pub fn handle_lost(&mut self, id: ConnectionId, how: String, now: Instant) -> Vec<Action> {
        self.with_session(id, now, |session| session.handle_lost(how, now))
    }

    /// The socket of a connection has taken octets. Answers nothing: only moves the send hold timer of RFC 9687.
    pub fn handle_sent(&mut self, id: ConnectionId, now: Instant) {
        if let Some(session) = self.session(id) {
            session.handle_sent(now);
        }
    }

    /// The local address of a connection has left this host. Nothing can be sent on it any more, so it ends at once; the next dial
    /// is at once too, from whatever address there is.
    pub fn handle_address_gone(&mut self, id: ConnectionId, address: IpAddr, now: Instant) -> Vec<Action> {
        self.with_session(id, now, |session| session.handle_address_gone(address, now))
    }

    /// The address to dial from has come onto this host: a dial that waits for its time is made now.
    pub fn handle_address_came(&mut self, now: Instant) {
        match self.approach {
            Approach::Active { dial_at: Some(_) } => self.approach = Approach::Active { dial_at: Some(now) },
            Approach::Active { dial_at: None } | Approach::Idle { .. } | Approach::Connect { .. } | Approach::Held => {}
        }
    }

    /// BFD says that packets pass. A dial that waits for its time is made now, and one that is under way is made anew: its first
    /// packet may have been lost on the dead path.
    pub fn handle_path_up(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if std::mem::replace(&mut self.path_is_up, true) {
            return actions;
        }
        match self.approach {
            Approach::Held => self.start(now, &mut actions),
            Approach::Active { dial_at: Some(_) } => self.dial(now, &mut actions),
            Approach::Connect { dial, .. } => {
                actions.push(Action::Close { connection: dial, last_word: None });
                self.dial(now, &mut actions);
            }
            // A peer that keeps failing is given its time: it was not the path.
            Approach::Active { dial_at: None } | Approach::Idle { .. } => {}
        }
        actions
    }

    /// BFD does not say any more that packets pass. An established session stays: [`Peering::handle_fault`] ends it where BFD says that
    /// they do not. With `bfd-strict` no other connection goes on.
    pub fn handle_path_down(&mut self, now: Instant) -> Vec<Action> {
        self.path_is_up = false;
        if self.needs_path { self.hold(now) } else { Vec::new() }
    }

    /// Ends every connection on which there is no session yet, and dials no more.
    fn hold(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Approach::Connect { dial, .. } = self.approach {
            actions.push(Action::Close { connection: dial, last_word: None });
            self.approach = Approach::Held;
        }
        let open = self.connections.iter().filter(|it| it.session.state() != SessionState::Established);
        let open: Vec<ConnectionId> = open.map(|connection| connection.id).collect();
        for id in open {
            let cease = NotificationReason::Cease(Cease::BfdDown).into();
            actions.extend(self.handle_fault(id, cease, "BFD is not up".to_owned(), now));
        }
        actions
    }

    /// The answer to [`Action::Prove`].
    pub fn handle_proof(&mut self, id: ConnectionId, answered: bool, now: Instant) -> Vec<Action> {
        match answered {
            true => Vec::new(),
            false => self.with_session(id, now, |session| session.handle_unanswered(now)),
        }
    }

    /// One connection cannot go on, for the reason that the NOTIFICATION gives. Others can, and a new one will be tried.
    pub fn handle_fault(
        &mut self,
        id: ConnectionId,
        notification: Notification,
        why: String,
        now: Instant,
    ) -> Vec<Action> {
        self.with_session(id, now, |session| session.stop(notification, why, now))
    }

    /// RFC 4271 event 2: the end, for the reason that the NOTIFICATION gives. No connection is made or accepted any more.
    pub fn handle_stop(&mut self, notification: &Notification, why: &str, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.stop_dialling(&mut actions);
        self.approach = Approach::Idle { until: None };
        let all: Vec<ConnectionId> = self.connections.iter().map(|connection| connection.id).collect();
        for id in all {
            actions
                .extend(self.with_session(id, now, |session| session.stop(notification.clone(), why.to_owned(), now)));
        }
        actions
    }

    fn established(&self) -> Option<&Connection> {
        self.connections.iter().find(|connection| connection.session.state() == SessionState::Established)
    }

    fn session(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.connections.iter_mut().find(|connection| connection.id == id).map(|connection| &mut connection.session)
    }

    fn with_session(
        &mut self,
        id: ConnectionId,
        now: Instant,
        step: impl FnOnce(&mut Session) -> Vec<Effect>,
    ) -> Vec<Action> {
        match self.session(id).map(step) {
            Some(effects) => self.carry_out(id, effects, now),
            None => Vec::new(),
        }
    }

    /// Hands a message to its session, and settles a collision if it was the OPEN.
    fn hear(&mut self, id: ConnectionId, now: Instant, step: impl FnOnce(&mut Session) -> Vec<Effect>) -> Vec<Action> {
        let heard_before = self.connections.iter().any(|connection| connection.id == id && connection.heard());
        let Some(effects) = self.session(id).map(step) else { return Vec::new() };
        let hears_now = self.connections.iter().any(|connection| connection.id == id && connection.heard());
        if !hears_now || heard_before {
            return self.carry_out(id, effects, now);
        }
        // The peer's OPEN was accepted. RFC 4271 §6.8: look for another connection that got this far, and keep one.
        let mut actions = Vec::new();
        while let Some(other) =
            self.connections.iter().find(|other| other.id != id && other.heard()).map(|other| other.id)
        {
            if self.is_superseded(other, now) {
                let why = "the peer has restarted: it opened another connection (RFC 4724)".to_owned();
                actions.extend(self.handle_lost(other, why, now));
            } else if self.prefers(id, other) {
                actions.extend(self.lose_collision(other, now));
            } else {
                actions.extend(self.lose_collision(id, now));
                actions.extend(self.question(other, Doubt::OtherConnection, PROOF_TIME, now));
                return actions;
            }
        }
        self.stop_dialling(&mut actions);
        actions.extend(self.carry_out(id, effects, now));
        actions
    }

    /// The peer is to prove within this time, on its established connection, that it still answers.
    pub fn handle_doubt(&mut self, doubt: Doubt, patience: Duration, now: Instant) -> Vec<Action> {
        let established = self.established().map(|connection| connection.id);
        established.and_then(|id| self.question(id, doubt, patience, now)).into_iter().collect()
    }

    /// A peer that has lost its state opens another connection beside this one. The kernel of such a peer answers the next segment with a
    /// reset, or not at all. Of two questions at a time, the one that is due first counts.
    fn question(&mut self, id: ConnectionId, doubt: Doubt, patience: Duration, now: Instant) -> Option<Action> {
        let connection = self.connections.iter_mut().find(|connection| connection.id == id)?;
        let due = now + patience;
        if connection.session.state() != SessionState::Established
            || connection.question.is_some_and(|before| before.due <= due)
        {
            return None;
        }
        connection.question = Some(Question { asked_at: now, due, doubt });
        Some(Action::Send(id, Message::Keepalive))
    }

    /// RFC 4724 §5: another connection of a peer with graceful restart ends the established session, without a NOTIFICATION. A session
    /// that has just begun may have met a connection that the peer opened before.
    fn is_superseded(&self, older: ConnectionId, now: Instant) -> bool {
        let older = self.connections.iter().find(|connection| connection.id == older);
        older.is_some_and(|older| {
            let lasted = older.session.standing(now).is_some_and(|standing| standing.held >= FORGIVEN_AFTER);
            lasted && older.session.negotiated().is_some_and(|negotiated| negotiated.graceful_restart)
        })
    }

    /// Whether the newer of two connections is kept. Both have received the peer's OPEN.
    fn prefers(&self, newer: ConnectionId, older: ConnectionId) -> bool {
        let find = |id| self.connections.iter().find(|connection| connection.id == id);
        let (Some(newer), Some(older)) = (find(newer), find(older)) else { return false };
        // RFC 4271 §6.8: an established session stays.
        if older.session.state() == SessionState::Established {
            return false;
        }
        match newer.session.negotiated() {
            // The peer opened both, so it uses the newer.
            Some(_) if newer.opened_by == older.opened_by => true,
            Some(negotiated) => newer.opened_by == self.whose_connection_stays(negotiated),
            None => false,
        }
    }

    /// RFC 4271 §6.8: the connection that the side with the higher identifier opened is kept. RFC 6286 §2.3: with equal
    /// identifiers the higher AS number decides; both cannot be equal, such an OPEN is refused.
    fn whose_connection_stays(&self, negotiated: &Negotiated) -> Side {
        let ours = (self.offer.identifier, negotiated.local_asn);
        let theirs = (negotiated.peer_identifier, negotiated.peer_asn);
        if ours > theirs { Side::Us } else { Side::Peer }
    }

    fn lose_collision(&mut self, id: ConnectionId, now: Instant) -> Vec<Action> {
        let reason = NotificationReason::Cease(Cease::ConnectionCollision);
        let notification = Notification { reason, data: Vec::new() };
        self.with_session(id, now, |session| {
            session.stop(notification, "another connection to the peer is kept".to_owned(), now)
        })
    }

    /// Turns what a session asks for into actions, and takes the session out when it is over.
    fn carry_out(&mut self, id: ConnectionId, effects: Vec<Effect>, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send(message) => actions.push(Action::Send(id, message)),
                Effect::Up(negotiated) => actions.push(Action::Up { connection: id, negotiated }),
                Effect::Refresh(family) => actions.push(Action::Refresh { connection: id, family }),
                Effect::Ignored(why) => actions.push(Action::Ignored { connection: id, why }),
                Effect::End { end, was, held } => self.end(id, end, was, held, now, &mut actions),
            }
        }
        actions
    }

    fn end(
        &mut self,
        id: ConnectionId,
        end: End,
        was: SessionState,
        held: Duration,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.connections.retain(|connection| connection.id != id);
        let withheld = self.fall_back(&end);
        match withheld.is_empty() {
            true => self.go_on_after(&end, was, held, now),
            false => self.dial_at(now),
        }
        actions.push(Action::Close { connection: id, last_word: end.last_word().cloned() });
        actions.push(match was {
            SessionState::Established => Action::Down { connection: id, end },
            SessionState::Idle
            | SessionState::Connect
            | SessionState::Active
            | SessionState::OpenSent
            | SessionState::OpenConfirm => Action::Failed { connection: id, end },
        });
        if !withheld.is_empty() {
            actions.push(Action::Withheld { connection: id, capabilities: withheld });
        }
    }

    /// The capabilities that the peer refused with its NOTIFICATION: they are not offered to it any more (RFC 5492 §3). An OPEN that
    /// has nothing left to leave out is offered whole again: the peer may be another one by then.
    fn fall_back(&mut self, end: &End) -> Vec<Capability> {
        let End::Received(notification) = end else { return Vec::new() };
        if !notification.reason.is_about_capabilities() {
            return Vec::new();
        }
        let refused = self.offer.refused(notification);
        let withheld = &mut Arc::make_mut(&mut self.offer).withheld;
        if refused.is_empty() {
            withheld.clear();
        } else {
            withheld.extend(refused.iter().cloned());
        }
        refused
    }

    /// The next attempt, unless one is under way or the peer is stopped.
    fn dial_at(&mut self, when: Instant) {
        if let Approach::Active { .. } = self.approach {
            self.approach = Approach::Active { dial_at: (!self.offer.passive).then_some(when) };
        }
    }

    /// What is done to get another connection after one has ended.
    fn go_on_after(&mut self, end: &End, was: SessionState, held: Duration, now: Instant) {
        let dial_is_due = match self.approach {
            // Stopped, or under way already.
            Approach::Idle { .. } | Approach::Connect { .. } | Approach::Held => return,
            Approach::Active { dial_at } => dial_at.is_some(),
        };
        if let Some(best) = self.connections.iter().map(|connection| connection.session.state()).max() {
            // Do not wait for a connection on which the peer sends nothing.
            let ours = self.connections.iter().any(|connection| connection.opened_by == Side::Us);
            if best == SessionState::OpenSent && !ours && !dial_is_due {
                self.await_retry(now);
            }
            return;
        }
        if held >= FORGIVEN_AFTER {
            (self.failures, self.wishes) = (0, 0);
        }
        if end.calls_for_a_dial() {
            return self.dial_at(now);
        }
        // The path has failed, not the peer: it is dialled as if this were the first time, and at once when BFD is up again.
        if end.is_path_failure() {
            return self.await_retry(now);
        }
        // RFC 4271 §8.2.2, OpenSent, event 18: Active, and the connect-retry timer is started again.
        let never_spoke = was == SessionState::OpenSent && matches!(end, End::Lost(_));
        if never_spoke {
            return self.await_retry(now);
        }
        // RFC 4271 §8.1.1, DampPeerOscillations. An operator who works on a router ends several sessions in a row, and must not wait longer
        // each time; a peer that ends every one as soon as it begins is no operator.
        let is_by_hand = end.is_peers_wish() && {
            self.wishes = self.wishes.saturating_add(u32::from(held < FORGIVEN_AFTER));
            self.wishes <= MOST_WISHES
        };
        self.failures = if is_by_hand { self.failures.max(1) } else { self.failures.saturating_add(1) };
        if !end.is_collision() {
            self.approach = Approach::Idle { until: Some(now + self.idle_hold_time()) };
        } else if self.failures == 1 && !self.offer.passive {
            // Each end kept the connection that the other closed. That is no failure, so the pause is short.
            let pause = COLLISION_PAUSE.min(self.offer.connect_retry_time) * self.rng.u32(0..=1000) / 1000;
            self.approach = Approach::Active { dial_at: Some(now + pause) };
        } else {
            self.await_retry(now);
        }
    }

    /// Doubles with every failure, jittered.
    fn idle_hold_time(&mut self) -> Duration {
        let longest = LONGEST_IDLE_HOLD_TIME.max(self.offer.connect_retry_time);
        let doublings = self.failures.saturating_sub(1).min(16);
        jittered(self.offer.connect_retry_time.saturating_mul(1 << doublings).min(longest), &mut self.rng)
    }

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.offer.passive { self.approach = Approach::Active { dial_at: None } } else { self.dial(now, actions) }
    }

    fn dial(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.is_held() {
            self.approach = Approach::Held;
            return;
        }
        let dial = self.next_id();
        let give_up_at = now + jittered(self.offer.connect_retry_time, &mut self.rng);
        self.approach = Approach::Connect { dial, give_up_at };
        actions.push(Action::Dial(dial));
    }

    /// Active with the connect-retry timer running, where we dial at all.
    fn await_retry(&mut self, now: Instant) {
        let retry = jittered(self.offer.connect_retry_time, &mut self.rng);
        self.approach = Approach::Active { dial_at: (!self.offer.passive).then(|| now + retry) };
    }

    fn stop_dialling(&mut self, actions: &mut Vec<Action>) {
        if let Approach::Connect { dial, .. } = self.approach {
            actions.push(Action::Close { connection: dial, last_word: None });
        }
        self.approach = Approach::Active { dial_at: None };
    }

    fn open(&mut self, id: ConnectionId, opened_by: Side, now: Instant, actions: &mut Vec<Action>) {
        let (session, effect) = Session::new(Arc::clone(&self.offer), self.rng.u64(..), now);
        self.connections.push(Connection { id, opened_by, session, question: None });
        actions.extend(self.carry_out(id, vec![effect], now));
    }

    fn next_id(&mut self) -> ConnectionId {
        self.next_connection += 1;
        ConnectionId(self.next_connection)
    }
}

impl Connection {
    /// The peer's OPEN has come and was accepted.
    fn heard(&self) -> bool {
        self.session.negotiated().is_some()
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
