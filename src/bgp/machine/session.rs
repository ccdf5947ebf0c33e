//! One BGP connection from its socket on: OpenSent, OpenConfirm and Established of RFC 4271 §8.2.2, with its timers.
//! Floor 1. Not for when to dial, and not for a second connection to the same peer: both are in `machine`.
//!
//! Gap (RFC 4271 §8.1.1): no DelayOpen (options 8 and 9), on purpose: it slows down every start to save a collision now
//! and then, and collisions are settled anyway.
//! Gap (RFC 4486 §4): no limit on received prefixes (subcode 1) and no memory to run out of (subcode 8): what is received is
//! counted and dropped, so neither is ever sent.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::bgp::machine::negotiation::{LocalOffer, Negotiated};
use crate::bgp::wire::{
    AfiSafi, Cease, Complaint, Dialect, Frame, FsmError, Message, MessageKind, Notification, NotificationReason,
    Parsed, ParsedUpdate, RefreshKind, RouteRefresh, WireError,
};
use crate::session_state::SessionState;

/// One connection. Create it when its socket is open, then
///
/// - tell it what happens: `handle_frame`, `handle_malformed`, `handle_lost`, `handle_sent`, `handle_timeout`;
/// - do what it answers, in order; after an [`Effect::End`], every call answers with nothing;
/// - call `handle_timeout` at [`Session::next_deadline`]. Spare calls are harmless.
#[derive(Debug, Clone)]
pub struct Session {
    offer: Arc<LocalOffer>,
    state: State,
    rng: Rng,
}

#[derive(Debug, Clone)]
enum State {
    OpenSent { hold_until: Instant },
    OpenConfirm { negotiated: Negotiated, liveness: Option<Liveness> },
    Established { negotiated: Negotiated, liveness: Option<Liveness>, since: Instant, received: Received },
    Ended,
}

/// What crier keeps of the routes it receives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    pub updates: u64,
    /// Prefixes announced in them, each time they were.
    pub prefixes: u64,
    /// UPDATEs with an error that the session survived by RFC 7606. A valid route that is refused for its path, such as one
    /// of a route server, does not count.
    pub malformed: u64,
}

/// How an established session stands at one moment: what another process must know to go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Absent exactly if the session has no hold time.
    pub timers: Option<TimersLeft>,
    /// How long the session has been established.
    pub held: Duration,
    pub received: Received,
}

/// How long each timer of a session still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimersLeft {
    pub hold: Duration,
    pub keepalive: Duration,
    pub send_hold: Duration,
}

/// What a connection asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Send(Message),
    /// The session is established.
    Up(Negotiated),
    /// The peer asks for all routes of a family again (RFC 2918).
    Refresh(AfiSafi),
    /// An UPDATE whose routes cannot be located was left out; the text says why.
    Ignored(String),
    /// The connection is over: send the NOTIFICATION that the [`End`] holds, if any, and close.
    End {
        end: End,
        /// How far the connection had come.
        was: SessionState,
        /// How long the session had been established; zero if it never was.
        held: Duration,
    },
}

/// Why a connection, or the attempt to make one, is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Our dial failed; the text is the kernel's.
    DialFailed(String),
    /// Our dial was not answered at all for the connect-retry time.
    DialTimedOut,
    /// The peer or the network closed the connection without a NOTIFICATION; the text says how.
    Lost(String),
    /// We ended it with a NOTIFICATION.
    Sent { notification: Notification, why: String },
    /// The peer ended it with a NOTIFICATION, which is never answered (RFC 4271 §6.4).
    Received(Notification),
    /// RFC 9687: the peer accepted no data for the send hold time, so it cannot be sent a NOTIFICATION either.
    SendHoldTimerExpired,
    /// Our end's address has left this host: nothing can be sent from it any more, not even a NOTIFICATION.
    AddressGone(IpAddr),
    /// The peer, or another router on its link, opened another connection, and nothing was acknowledged on this one for [`PROOF_TIME`].
    Unanswered,
}

impl End {
    /// Whether another connection to the same peer was kept instead, which is no error of either end.
    pub fn is_collision(&self) -> bool {
        match self {
            End::Sent { notification, .. } | End::Received(notification) => {
                notification.reason == NotificationReason::Cease(Cease::ConnectionCollision)
            }
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Lost(_)
            | End::SendHoldTimerExpired
            | End::AddressGone(_)
            | End::Unanswered => false,
        }
    }

    /// Whether the peer is dialled again at once: nothing is wrong with the peer, and another connection may well succeed.
    pub fn calls_for_a_dial(&self) -> bool {
        match self {
            End::AddressGone(_) | End::Unanswered => true,
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Lost(_)
            | End::Sent { .. }
            | End::Received(_)
            | End::SendHoldTimerExpired => false,
        }
    }

    /// Whether it explains why there is no session, as only a NOTIFICATION does.
    pub fn is_telling(&self) -> bool {
        match self {
            End::Sent { .. } | End::Received(_) => !self.is_collision(),
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Lost(_)
            | End::SendHoldTimerExpired
            | End::AddressGone(_)
            | End::Unanswered => false,
        }
    }

    /// Whether the peer's operator ended the session on purpose.
    pub fn is_peers_wish(&self) -> bool {
        match self {
            // RFC 8538 §3.1: a Hard Reset holds its reason inside.
            End::Received(notification) => match notification.hard_reset_cause() {
                Some(cause) => is_wish(cause.reason),
                None => is_wish(notification.reason),
            },
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Lost(_)
            | End::Sent { .. }
            | End::SendHoldTimerExpired
            | End::AddressGone(_)
            | End::Unanswered => false,
        }
    }

    /// Whether BFD, here or at the peer, found that packets do not pass: the path is at fault, not the peer (RFC 9384).
    pub fn is_path_failure(&self) -> bool {
        let bfd_down = NotificationReason::Cease(Cease::BfdDown);
        match self {
            End::Sent { notification, .. } | End::Received(notification) => {
                let cause = notification.hard_reset_cause().map(|cause| cause.reason);
                notification.reason == bfd_down || cause == Some(bfd_down)
            }
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Lost(_)
            | End::SendHoldTimerExpired
            | End::AddressGone(_)
            | End::Unanswered => false,
        }
    }

    /// What to tell the peer before closing.
    pub fn last_word(&self) -> Option<&Notification> {
        match self {
            End::Sent { notification, .. } => Some(notification),
            End::DialFailed(_)
            | End::DialTimedOut
            | End::Lost(_)
            | End::Received(_)
            | End::SendHoldTimerExpired
            | End::AddressGone(_)
            | End::Unanswered => None,
        }
    }
}

fn is_wish(reason: NotificationReason) -> bool {
    reason.cease().is_some_and(|cease| match cease {
        Cease::AdministrativeShutdown
        | Cease::PeerDeconfigured
        | Cease::AdministrativeReset
        | Cease::OtherConfigurationChange => true,
        Cease::MaximumPrefixesReached
        | Cease::ConnectionRejected
        | Cease::ConnectionCollision
        | Cease::OutOfResources
        | Cease::HardReset
        | Cease::BfdDown => false,
    })
}

/// RFC 4271 §4.4 and §8, RFC 9687: the timers that exist only with a hold time.
#[derive(Debug, Clone, Copy)]
struct Liveness {
    hold_time: Duration,
    hold_until: Instant,
    keepalive_time: Duration,
    keepalive_at: Instant,
    /// The next moment by which the socket has to have taken something.
    send_hold_until: Instant,
}

/// RFC 4271 §8.2.2: "A HoldTimer value of 4 minutes is suggested."
pub const OPEN_SENT_HOLD_TIME: Duration = Duration::from_secs(240);

/// How long the peer may take to acknowledge a KEEPALIVE on an established connection after it has opened another one.
pub const PROOF_TIME: Duration = Duration::from_secs(3);

/// RFC 9687 §4.2: the send hold time is this, or twice the hold time where that is longer.
pub const LEAST_SEND_HOLD_TIME: Duration = Duration::from_secs(480);

impl Session {
    /// A connection whose socket has just been opened, by either side: says OPEN at once.
    pub fn new(offer: Arc<LocalOffer>, seed: u64, now: Instant) -> (Session, Effect) {
        let open = Effect::Send(Message::Open(offer.open()));
        let state = State::OpenSent { hold_until: now + OPEN_SENT_HOLD_TIME };
        (Session { offer, state, rng: Rng::with_seed(seed) }, open)
    }

    /// The established session that stood like this in another process `passed` ago. It says nothing by itself; timers that ran out
    /// meanwhile are due at once, so what the peer has sent must be read first.
    pub fn resumed(
        offer: Arc<LocalOffer>,
        negotiated: Negotiated,
        standing: Standing,
        passed: Duration,
        seed: u64,
        now: Instant,
    ) -> Session {
        let Standing { timers, held, received } = standing;
        let until = |left: Duration| now + left.saturating_sub(passed);
        let times = negotiated.hold_time.zip(negotiated.keepalive_time);
        let liveness = times.zip(timers).map(|((hold_time, keepalive_time), left)| Liveness {
            hold_time,
            hold_until: until(left.hold),
            keepalive_time,
            keepalive_at: until(left.keepalive),
            send_hold_until: until(left.send_hold),
        });
        let since = now.checked_sub(held.saturating_add(passed)).unwrap_or(now);
        Session {
            offer,
            state: State::Established { negotiated, liveness, since, received },
            rng: Rng::with_seed(seed),
        }
    }

    /// How the session stands; `None` unless it is established.
    pub fn standing(&self, now: Instant) -> Option<Standing> {
        let State::Established { negotiated: _, liveness, since, received } = &self.state else { return None };
        let timers = liveness.map(|timers| TimersLeft {
            hold: timers.hold_until.saturating_duration_since(now),
            keepalive: timers.keepalive_at.saturating_duration_since(now),
            send_hold: timers.send_hold_until.saturating_duration_since(now),
        });
        Some(Standing { timers, held: now.saturating_duration_since(*since), received: *received })
    }

    /// Idle once the connection is over.
    pub fn state(&self) -> SessionState {
        match self.state {
            State::OpenSent { .. } => SessionState::OpenSent,
            State::OpenConfirm { .. } => SessionState::OpenConfirm,
            State::Established { .. } => SessionState::Established,
            State::Ended => SessionState::Idle,
        }
    }

    /// What was negotiated, from OpenConfirm on.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        match &self.state {
            State::OpenConfirm { negotiated, .. } | State::Established { negotiated, .. } => Some(negotiated),
            State::OpenSent { .. } | State::Ended => None,
        }
    }

    /// What the peer has sent since the session was established; nothing before.
    pub fn received(&self) -> Received {
        match self.state {
            State::Established { received, .. } => received,
            State::OpenSent { .. } | State::OpenConfirm { .. } | State::Ended => Received::default(),
        }
    }

    /// When to call `handle_timeout`; `None` when no timer runs.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::OpenSent { hold_until } => Some(*hold_until),
            State::OpenConfirm { liveness, .. } | State::Established { liveness, .. } => {
                liveness.as_ref().map(|timers| timers.hold_until.min(timers.keepalive_at).min(timers.send_hold_until))
            }
            State::Ended => None,
        }
    }

    /// RFC 4271 events 10 and 11, RFC 9687 §4.3: whatever timer is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Effect> {
        let liveness = match &mut self.state {
            State::OpenSent { hold_until } if *hold_until <= now => {
                let minutes = OPEN_SENT_HOLD_TIME.as_secs() / 60;
                return self.end_with(
                    NotificationReason::HoldTimerExpired,
                    format!("no OPEN came for {minutes} minutes"),
                    now,
                );
            }
            State::OpenConfirm { liveness: Some(liveness), .. }
            | State::Established { liveness: Some(liveness), .. } => liveness,
            State::OpenSent { .. }
            | State::OpenConfirm { liveness: None, .. }
            | State::Established { liveness: None, .. }
            | State::Ended => return Vec::new(),
        };
        if liveness.hold_until <= now {
            let why = format!("nothing came for the hold time of {} s", liveness.hold_time.as_secs());
            return self.end_with(NotificationReason::HoldTimerExpired, why, now);
        }
        if liveness.send_hold_until <= now {
            return self.end(End::SendHoldTimerExpired, now);
        }
        if liveness.keepalive_at <= now {
            liveness.keepalive_at = now + jittered(liveness.keepalive_time, &mut self.rng);
            return vec![Effect::Send(Message::Keepalive)];
        }
        Vec::new()
    }

    /// Octets, header included, that the next message may be long.
    pub fn max_message_len(&self) -> usize {
        self.negotiated().map_or(Dialect::BEFORE_OPEN.max_message_len, |negotiated| negotiated.max_message_len)
    }

    /// A whole message came, not yet read.
    pub fn handle_frame(&mut self, frame: &Frame, now: Instant) -> Vec<Effect> {
        if !self.expects(frame.kind()) {
            return self.refuse(frame.kind(), now);
        }
        let dialect = self.negotiated().map_or(Dialect::BEFORE_OPEN, Negotiated::dialect);
        match Message::parse(frame.octets(), &dialect) {
            Ok(parsed) => self.handle_message(parsed, now),
            Err(error) => self.handle_malformed(&error, now),
        }
    }

    /// A whole message came.
    pub fn handle_message(&mut self, message: Parsed, now: Instant) -> Vec<Effect> {
        let kind = kind_of(&message);
        if !self.expects(kind) {
            return self.refuse(kind, now);
        }
        match (&mut self.state, message) {
            (_, Parsed::Notification(notification)) => self.end(End::Received(notification), now),
            (State::OpenSent { .. }, Parsed::Open(theirs)) => match self.offer.negotiate(&theirs) {
                Ok(negotiated) => self.confirm(negotiated, now),
                Err(refusal) => self.stop(refusal.notification(), refusal.to_string(), now),
            },
            (State::OpenConfirm { negotiated, liveness }, Parsed::Keepalive) => {
                let negotiated = negotiated.clone();
                let mut liveness = *liveness;
                restart_hold_timer(&mut liveness, now);
                let up = Effect::Up(negotiated.clone());
                self.state = State::Established { negotiated, liveness, since: now, received: Received::default() };
                vec![up]
            }
            (State::Established { liveness, .. }, Parsed::Keepalive) => {
                restart_hold_timer(liveness, now);
                Vec::new()
            }
            (State::Established { liveness, received, .. }, Parsed::Update(update)) => {
                restart_hold_timer(liveness, now);
                received.count(&update);
                Vec::new()
            }
            (State::Established { negotiated, .. }, Parsed::RouteRefresh(RouteRefresh { family, kind })) => {
                match kind {
                    // RFC 2918 §4: a family that was not negotiated is ignored.
                    RefreshKind::Request if negotiated.family(family) => vec![Effect::Refresh(family)],
                    // Marks around routes that are dropped anyway. RFC 7313 §5: an unknown subtype is ignored.
                    RefreshKind::Request | RefreshKind::Begin | RefreshKind::End | RefreshKind::Unknown(_) => {
                        Vec::new()
                    }
                }
            }
            // Refused above.
            (
                State::OpenSent { .. } | State::OpenConfirm { .. } | State::Established { .. } | State::Ended,
                Parsed::Open(_) | Parsed::Update(_) | Parsed::Keepalive | Parsed::RouteRefresh(_),
            ) => Vec::new(),
        }
    }

    /// What came cannot be read as a message.
    ///
    /// RFC 7606 §2 allows "AFI/SAFI disable" where routes in a multiprotocol attribute cannot be located. Nothing that is
    /// received is kept, so all there is to disable is this UPDATE: the session stays.
    pub fn handle_malformed(&mut self, error: &WireError, now: Instant) -> Vec<Effect> {
        if let (State::Established { liveness, received, .. }, WireError::Update(fault)) = (&mut self.state, error)
            && fault.is_unlocatable()
        {
            restart_hold_timer(liveness, now);
            received.updates += 1;
            received.malformed += 1;
            return vec![Effect::Ignored(error.to_string())];
        }
        match error.notification() {
            Some(notification) => self.stop(notification, error.to_string(), now),
            None => self.end(End::Lost(error.to_string()), now),
        }
    }

    /// The socket has taken octets since it was last asked: RFC 9687 §4.2 restarts the send hold timer.
    pub fn handle_sent(&mut self, now: Instant) {
        match &mut self.state {
            State::OpenConfirm { liveness: Some(liveness), .. }
            | State::Established { liveness: Some(liveness), .. } => {
                liveness.send_hold_until = now + send_hold_time(liveness.hold_time);
            }
            State::OpenSent { .. }
            | State::OpenConfirm { liveness: None, .. }
            | State::Established { liveness: None, .. }
            | State::Ended => {}
        }
    }

    /// The connection is gone without a NOTIFICATION.
    pub fn handle_lost(&mut self, how: String, now: Instant) -> Vec<Effect> {
        self.end(End::Lost(how), now)
    }

    /// The local address of the connection has left this host.
    pub fn handle_address_gone(&mut self, address: IpAddr, now: Instant) -> Vec<Effect> {
        self.end(End::AddressGone(address), now)
    }

    /// The peer acknowledges nothing on this connection any more. Only an established one is ever asked.
    pub fn handle_unanswered(&mut self, now: Instant) -> Vec<Effect> {
        match self.state {
            State::Established { .. } => self.end(End::Unanswered, now),
            State::OpenSent { .. } | State::OpenConfirm { .. } | State::Ended => Vec::new(),
        }
    }

    /// Ends the connection from our side, for whatever the NOTIFICATION says.
    pub fn stop(&mut self, notification: Notification, why: String, now: Instant) -> Vec<Effect> {
        let notification = match self.negotiated() {
            Some(negotiated) => negotiated.last_word(notification),
            None => notification,
        };
        self.end(End::Sent { notification, why }, now)
    }

    fn confirm(&mut self, negotiated: Negotiated, now: Instant) -> Vec<Effect> {
        let rng = &mut self.rng;
        // RFC 4271 §8.2.2: with a hold time of 0 the timers are stopped, the large one of OpenSent too.
        let liveness =
            negotiated.hold_time.zip(negotiated.keepalive_time).map(|(hold_time, keepalive_time)| Liveness {
                hold_time,
                hold_until: now + hold_time,
                keepalive_time,
                keepalive_at: now + jittered(keepalive_time, rng),
                send_hold_until: now + send_hold_time(hold_time),
            });
        self.state = State::OpenConfirm { negotiated, liveness };
        vec![Effect::Send(Message::Keepalive)]
    }

    /// RFC 4271 §8.2.2: may a message of this kind come in this state?
    fn expects(&self, kind: MessageKind) -> bool {
        match (&self.state, kind) {
            (State::OpenSent { .. }, MessageKind::Open)
            | (State::OpenConfirm { .. }, MessageKind::Keepalive)
            | (State::Established { .. }, MessageKind::Keepalive | MessageKind::Update | MessageKind::RouteRefresh)
            | (_, MessageKind::Notification) => true,
            (State::OpenSent { .. }, MessageKind::Keepalive | MessageKind::Update | MessageKind::RouteRefresh)
            | (State::OpenConfirm { .. }, MessageKind::Open | MessageKind::Update | MessageKind::RouteRefresh)
            | (State::Established { .. }, MessageKind::Open)
            | (
                State::Ended,
                MessageKind::Open | MessageKind::Keepalive | MessageKind::Update | MessageKind::RouteRefresh,
            ) => false,
        }
    }

    /// RFC 6608 §3: the subcode says the state, and the data the type of the unexpected message.
    fn refuse(&mut self, kind: MessageKind, now: Instant) -> Vec<Effect> {
        let error = match self.state {
            State::OpenSent { .. } => FsmError::UnexpectedInOpenSent,
            State::OpenConfirm { .. } => FsmError::UnexpectedInOpenConfirm,
            State::Established { .. } => FsmError::UnexpectedInEstablished,
            State::Ended => return Vec::new(),
        };
        let notification = Notification { reason: NotificationReason::Fsm(error), data: vec![kind.code()] };
        self.stop(notification, format!("{kind} came in state {}", self.state()), now)
    }

    fn end_with(&mut self, reason: NotificationReason, why: String, now: Instant) -> Vec<Effect> {
        self.stop(Notification { reason, data: Vec::new() }, why, now)
    }

    fn end(&mut self, end: End, now: Instant) -> Vec<Effect> {
        let was = self.state();
        let held = match std::mem::replace(&mut self.state, State::Ended) {
            State::Established { since, .. } => now.saturating_duration_since(since),
            State::OpenSent { .. } | State::OpenConfirm { .. } => Duration::ZERO,
            State::Ended => return Vec::new(),
        };
        vec![Effect::End { end, was, held }]
    }
}

impl Received {
    fn count(&mut self, parsed: &ParsedUpdate) {
        let ParsedUpdate { update, withdraw_all, complaints, end_of_rib: _ } = parsed;
        let announced = update.announced.len() + update.mp_reach.as_ref().map_or(0, |reach| reach.prefixes.len());
        self.updates += 1;
        self.malformed += u64::from(complaints.iter().any(Complaint::is_malformed));
        if !withdraw_all {
            self.prefixes += u64::try_from(announced).unwrap_or(u64::MAX);
        }
    }
}

fn kind_of(message: &Parsed) -> MessageKind {
    match message {
        Parsed::Open(_) => MessageKind::Open,
        Parsed::Update(_) => MessageKind::Update,
        Parsed::Notification(_) => MessageKind::Notification,
        Parsed::Keepalive => MessageKind::Keepalive,
        Parsed::RouteRefresh(_) => MessageKind::RouteRefresh,
    }
}

fn restart_hold_timer(liveness: &mut Option<Liveness>, now: Instant) {
    if let Some(liveness) = liveness {
        liveness.hold_until = now + liveness.hold_time;
    }
}

/// RFC 9687 §6: how long a peer may take nothing of what is to be sent.
pub(in crate::bgp) fn send_hold_time(hold_time: Duration) -> Duration {
    LEAST_SEND_HOLD_TIME.max(hold_time * 2)
}

/// RFC 4271 §10: a time between three quarters of `time` and the whole of it.
pub(super) fn jittered(time: Duration, rng: &mut Rng) -> Duration {
    time * rng.u32(750..=1000) / 1000
}

impl fmt::Display for End {
    /// One line, in the past tense, with the names of a NOTIFICATION's code and subcode and the text that came with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::DialFailed(why) => write!(f, "cannot connect: {why}"),
            End::DialTimedOut => f.write_str("cannot connect: no answer"),
            End::Lost(how) => write!(f, "connection lost: {how}"),
            // A shutdown communication is the reason already.
            End::Sent { notification, .. } if notification.text().is_some() => {
                write!(f, "NOTIFICATION sent: {notification}")
            }
            End::Sent { notification, why } => write!(f, "NOTIFICATION sent: {notification}: {why}"),
            End::Received(notification) => write!(f, "NOTIFICATION received: {notification}"),
            End::SendHoldTimerExpired => f.write_str("the peer accepted no data for the send hold time (RFC 9687)"),
            End::AddressGone(address) => {
                write!(f, "connection closed: {address} is not an address of this host any more")
            }
            End::Unanswered => write!(
                f,
                "connection closed: another one was opened, and the peer acknowledged nothing on this one for {} s",
                PROOF_TIME.as_secs()
            ),
        }
    }
}
