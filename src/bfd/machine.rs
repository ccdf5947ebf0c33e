//! The machine of one BFD session in asynchronous mode (RFC 5880 §6.2 to §6.8): its state, when to send what, and when the path
//! counts as down. Floor 1.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::authentication::{Heard, Key, Sha1};
use super::discard::Discard;
use super::packet::{Authentication, Packet};
use super::settings::{FORMER_KEY_LASTS, LEAST_PAUSE, SLOW, Settings};
use crate::bfd_state::{BfdState, Diagnostic};

/// One session.
///
/// - A. Create it with [`Session::new`].
/// - B. Tell it what happens: `handle_packet`, `handle_settings`, `handle_admin_down`.
/// - C. Call `handle_timeout` after each of them, and at [`Session::next_deadline`]. A late or spare call is harmless.
/// - D. Do what each call answers, in order.
///
/// Read what has come before you call `handle_timeout`: a process that was kept from running finds packets in its sockets, and these
/// count before the detection time does. Time must not go backwards.
#[derive(Debug, Clone)]
pub struct Session {
    settings: Settings,
    discriminator: NonZeroU32,
    state: BfdState,
    diagnostic: Diagnostic,
    remote: Remote,
    /// bfd.DesiredMinTxInterval: what packets say. What is done is `transmit_in_use`.
    transmit: Duration,
    transmit_in_use: Duration,
    /// bfd.RequiredMinRxInterval, as above.
    receive: Duration,
    receive_in_use: Duration,
    poll: Poll,
    /// When the next periodic packet is due, by which interval, and when the last was sent.
    send_at: Option<Instant>,
    send_by: Option<Duration>,
    sent_at: Option<Instant>,
    /// The contents have changed: a packet is due before the periodic one.
    news: bool,
    /// The peer's Poll is to be answered.
    fin: bool,
    /// From when on a packet may be sent that no timer asked for.
    unasked_from: Instant,
    /// When the peer counts as silent; absent while it was not heard.
    silent_at: Option<Instant>,
    heard: Heard,
    /// The key of former settings that the peer uses still, and until when it is taken.
    retired: Option<(Key, Instant)>,
    /// The key that the peer was last heard with, where that is not the one of the settings: it may not know another one yet.
    spoken: Option<Key>,
    /// Why packets for this session were dropped since the peer was last heard: they had no key of this end.
    barred: Option<Discard>,
    /// bfd.XmitAuthSeq
    sequence: u32,
    /// The last packet without its sequence number.
    said: Option<Packet>,
    rng: Rng,
}

/// How a session stands that is Up: what another process must know to go on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub discriminator: NonZeroU32,
    pub diagnostic: Diagnostic,
    pub remote: Remote,
    /// What both ends have agreed to.
    pub transmit: Duration,
    pub receive: Duration,
    /// bfd.XmitAuthSeq
    pub sequence: u32,
}

impl Standing {
    /// All of them: what another process wrote may be anything.
    pub fn intervals(&self) -> [Duration; 4] {
        [self.transmit, self.receive, self.remote.required_min_rx, self.remote.desired_min_tx]
    }
}

/// What the peer's last packet said; RFC 5880 §6.8.1 has what holds before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub state: BfdState,
    pub diagnostic: Diagnostic,
    pub discriminator: Option<NonZeroU32>,
    pub required_min_rx: Duration,
    pub desired_min_tx: Duration,
    pub multiplier: u8,
    /// The peer wants no periodic packets while both ends are up.
    pub demand: bool,
}

impl Remote {
    /// RFC 5880 §6.8.1: "bfd.RemoteMinRxInterval … MUST be initialized to 1."
    const UNHEARD: Remote = Remote {
        state: BfdState::Down,
        diagnostic: Diagnostic::None,
        discriminator: None,
        required_min_rx: Duration::from_micros(1),
        desired_min_tx: Duration::ZERO,
        multiplier: 0,
        demand: false,
    };
}

/// RFC 5880 §6.5: one Poll sequence at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    No,
    /// Every periodic packet has the Poll bit until the peer answers.
    Asking,
    /// Values have changed meanwhile: the answer that is on its way may not be about them, so another sequence follows.
    AskingTwice,
}

/// One of the keys that a session takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhichKey {
    Current,
    /// The former one that the settings name.
    Old,
    /// That of former settings.
    Retired,
}

/// What the machine asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Send(Packet),
    /// The session has another state; it never says so twice.
    Changed {
        before: BfdState,
        after: BfdState,
        cause: Cause,
    },
}

/// Why the state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The peer's packets say so: the session comes up.
    Heard,
    /// Nothing came for the detection time.
    Silence(Duration),
    /// Packets for this session came in the detection time, and none that a key of this end authenticates. They may be the peer's, whose key
    /// was changed, or anybody's: it counts as lost.
    Barred(Duration, Discard),
    /// The peer's state is Down, for this reason.
    SignaledDown(Diagnostic),
    /// The peer's operator holds the session down. That says nothing about the path (RFC 5882 §3.2).
    PeerAdminDown,
    /// This end holds the session down.
    AdminDown,
}

impl Cause {
    /// Whether packets do not pass any more, if the session was Up.
    pub fn is_loss(self) -> bool {
        match self {
            Cause::Silence(_) | Cause::Barred(..) | Cause::SignaledDown(_) => true,
            Cause::Heard | Cause::PeerAdminDown | Cause::AdminDown => false,
        }
    }
}

impl Session {
    /// A session that is Down. Unless it is passive it sends at once. The discriminator is unique on this host and no neighbour of
    /// the last one; the seed feeds jitter and sequence numbers.
    pub fn new(settings: Settings, discriminator: NonZeroU32, seed: u64, now: Instant) -> Session {
        let mut rng = Rng::with_seed(seed);
        let (transmit, receive) = (settings.transmit_interval.max(SLOW), settings.receive_interval);
        Session {
            discriminator,
            state: BfdState::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::UNHEARD,
            transmit,
            transmit_in_use: transmit,
            receive,
            receive_in_use: receive,
            poll: Poll::No,
            send_at: (!settings.passive).then_some(now),
            send_by: (!settings.passive).then_some(transmit),
            sent_at: None,
            news: false,
            fin: false,
            unasked_from: now,
            silent_at: None,
            heard: Heard::default(),
            retired: None,
            spoken: None,
            barred: None,
            sequence: rng.u32(..),
            said: None,
            rng,
            settings,
        }
    }

    /// The session that stood like this in another process. It asks for the intervals of `settings` at once; the peer has the whole
    /// detection time to be heard, and `patience` at least.
    pub fn resumed(settings: Settings, standing: Standing, patience: Duration, seed: u64, now: Instant) -> Session {
        let Standing { discriminator, diagnostic, remote, transmit, receive, sequence } = standing;
        let mut session = Session {
            state: BfdState::Up,
            diagnostic,
            remote,
            transmit,
            transmit_in_use: transmit,
            receive,
            receive_in_use: receive,
            send_at: Some(now),
            sequence,
            ..Session::new(settings, discriminator, seed, now)
        };
        session.silent_at = session.detection_time().map(|time| now + time.max(patience));
        session.renew_intervals();
        session.reschedule(now);
        session
    }

    /// The peer is the one of that session, and may use a former key as it did there.
    pub fn know_keys_of(&mut self, before: &Session) {
        self.retired.clone_from(&before.retired);
        self.spoken.clone_from(&before.spoken);
    }

    /// The peer is asked to wait for as long as this, for this process ends and another one goes on.
    pub fn handle_rest(&mut self, rest: Duration, now: Instant) {
        let multiplier = self.settings.multiplier;
        let settings = Settings {
            transmit_interval: rest / u32::from(multiplier.get()),
            receive_interval: self.settings.receive_interval.max(rest / 3),
            ..self.settings.clone()
        };
        self.handle_settings(settings, now);
    }

    /// How the session stands; `None` unless it is Up, and the peer has agreed to what this end last asked for.
    pub fn standing(&self) -> Option<Standing> {
        let agreed = self.state == BfdState::Up && self.remote.discriminator.is_some() && self.poll == Poll::No;
        agreed.then_some(Standing {
            discriminator: self.discriminator,
            diagnostic: self.diagnostic,
            remote: self.remote,
            transmit: self.transmit,
            receive: self.receive,
            sequence: self.sequence,
        })
    }

    /// How long the peer bears that this end is silent, by what packets say (RFC 5880 §6.8.4).
    pub fn detection_time_of_peer(&self) -> Duration {
        self.transmit.max(self.remote.required_min_rx) * u32::from(self.settings.multiplier.get())
    }

    pub fn state(&self) -> BfdState {
        self.state
    }

    /// Why the session last left Up, or last failed to get there.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    pub fn discriminator(&self) -> NonZeroU32 {
        self.discriminator
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The key of the packets that are sent: the one that the peer was last heard with, and where it was not heard, that of the settings.
    pub fn key(&self) -> Option<&Key> {
        self.spoken.as_ref().or(self.settings.key.as_ref())
    }

    /// The peer uses a key that the settings do not have any more.
    pub fn is_with_retired_key(&self) -> bool {
        self.spoken.is_some() && self.spoken.as_ref() == self.retired.as_ref().map(|(key, _)| key)
    }

    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Between two packets of this end, before jitter; `None` while no periodic packets are sent.
    pub fn transmit_interval(&self) -> Option<Duration> {
        let Remote { state, discriminator, required_min_rx, demand, .. } = self.remote;
        // RFC 5880 §6.8.7: the three cases in which periodic packets MUST NOT be sent.
        let unheard = self.settings.passive && discriminator.is_none();
        let on_demand = demand && self.state == BfdState::Up && state == BfdState::Up && matches!(self.poll, Poll::No);
        let sends = !unheard && !on_demand && !required_min_rx.is_zero();
        // RFC 5880 §6.8.2: "the larger of bfd.DesiredMinTxInterval and bfd.RemoteMinRxInterval".
        sends.then(|| self.transmit_in_use.max(required_min_rx))
    }

    /// Between two packets of the peer at most; `None` while the peer was not heard.
    pub fn receive_interval(&self) -> Option<Duration> {
        self.remote.discriminator.map(|_| self.receive_in_use.max(self.remote.desired_min_tx))
    }

    /// How long the peer may be silent; `None` while it was not heard.
    ///
    /// RFC 5880 §6.8.4: "the value of Detect Mult received from the remote system, multiplied by the agreed transmit interval of the
    /// remote system (the greater of bfd.RequiredMinRxInterval and the last received Desired Min TX Interval)."
    pub fn detection_time(&self) -> Option<Duration> {
        self.receive_interval().map(|interval| interval * u32::from(self.remote.multiplier))
    }

    /// When to call `handle_timeout`; `None` when no timer runs.
    pub fn next_deadline(&self) -> Option<Instant> {
        let retires = self.retired.as_ref().map(|(_, until)| *until);
        [self.send_at, self.silent_at, self.unasked_due(), retires].into_iter().flatten().min()
    }

    /// A packet of the peer, whose discriminator is this session's or absent; `octets` are those that it was read from. A packet that
    /// is discarded changes nothing but what is said of silence.
    ///
    /// # Errors
    /// The rule of RFC 5880 §6.8.6 that the packet broke.
    pub fn handle_packet(&mut self, packet: &Packet, octets: &[u8], now: Instant) -> Result<Option<Action>, Discard> {
        let down = matches!(packet.state, BfdState::Down | BfdState::AdminDown);
        match packet.your_discriminator {
            Some(ours) if ours != self.discriminator => return Err(Discard::UnknownDiscriminator),
            None if !down => return Err(Discard::YourDiscriminator),
            Some(_) | None => {}
        }
        let authentic = self.authenticate(packet, octets, now);
        if let Err(discard) = authentic
            && discard.is_of_key()
            && packet.your_discriminator.is_some()
        {
            self.barred = Some(discard);
        }
        let authentic = authentic?;
        if self.state == BfdState::AdminDown {
            return Err(Discard::AdminDown);
        }
        self.barred = None;
        if let Some((sequence, key)) = authentic {
            self.heard.note(sequence, now);
            self.answer_with(key);
        }
        self.remote = Remote {
            state: packet.state,
            diagnostic: packet.diagnostic,
            discriminator: Some(packet.my_discriminator),
            required_min_rx: packet.required_min_rx,
            desired_min_tx: packet.desired_min_tx,
            multiplier: packet.multiplier.get(),
            demand: packet.demand,
        };
        if packet.fin {
            self.end_poll();
        }
        self.fin |= packet.poll;
        let action = self.follow(packet.state, packet.diagnostic);
        self.silent_at = self.detection_time().map(|time| now + time);
        self.reschedule(now);
        Ok(action)
    }

    /// Whatever is due: packets to send, and silence of the peer.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.retire(now);
        if self.silent_at.is_some_and(|at| at <= now) {
            actions.extend(self.miss());
            self.reschedule(now);
        }
        if self.unasked_due().is_some_and(|due| due <= now) {
            self.unasked_from = now + LEAST_PAUSE;
            if std::mem::take(&mut self.fin) {
                actions.push(Action::Send(self.packet(true)));
            }
            if std::mem::take(&mut self.news) && self.may_speak() {
                actions.push(self.send(now));
            }
        }
        if self.send_at.is_some_and(|at| at <= now) {
            actions.push(self.send(now));
        }
        actions
    }

    /// This end asks for other values from now on. The session stays as it is: a Poll sequence tells the peer.
    ///
    /// A change of `passive` takes effect at once too. Another key does once the peer is heard with it: until then the one that the peer uses
    /// goes on, for [`FORMER_KEY_LASTS`] where the settings do not have it any more.
    pub fn handle_settings(&mut self, settings: Settings, now: Instant) {
        let used = self.key().cloned();
        self.settings = settings;
        let Settings { key, old_key, .. } = &self.settings;
        self.spoken = None;
        if let (Some(used), Some(key)) = (used, key)
            && used != *key
            && self.remote.discriminator.is_some()
        {
            let is_known = old_key.as_ref() == Some(&used) || self.retired.as_ref().is_some_and(|(it, _)| *it == used);
            if !is_known {
                self.retired = Some((used.clone(), now + FORMER_KEY_LASTS));
            }
            self.spoken = Some(used);
        }
        self.renew_intervals();
        self.reschedule(now);
    }

    /// The session is held down from now on: the peer is told so, and what it sends is discarded.
    pub fn handle_admin_down(&mut self, now: Instant) -> Option<Action> {
        let action = self.enter(BfdState::AdminDown, Diagnostic::AdministrativelyDown, Cause::AdminDown);
        self.silent_at = None;
        // It may be the last chance to say so.
        self.unasked_from = now;
        self.reschedule(now);
        action
    }

    /// RFC 5880 §6.7: the sequence number of a packet that is what the session asks for, and by which of its keys. §6.7.1: more than one
    /// may be taken, so that the key can be changed.
    fn authenticate(&self, packet: &Packet, octets: &[u8], now: Instant) -> Result<Option<(u32, WhichKey)>, Discard> {
        let (section, key) = match (packet.authentication, &self.settings.key) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(Discard::Unauthenticated),
            (Some(_), None) => return Err(Discard::UnexpectedAuthentication),
            (Some(Authentication::Other(_)), Some(_)) => return Err(Discard::AuthenticationType),
            (Some(Authentication::Sha1(section)), Some(key)) => (section, key),
        };
        let old = self.settings.old_key.as_ref().map(|key| (key, WhichKey::Old));
        let retired = self.retired.as_ref().filter(|(_, until)| now < *until).map(|(key, _)| (key, WhichKey::Retired));
        let all = [Some((key, WhichKey::Current)), old, retired].into_iter().flatten();
        let mut fitting =
            all.filter(|(key, _)| (section.meticulous, section.key_id) == (key.meticulous, key.id)).peekable();
        if fitting.peek().is_none() {
            return Err(Discard::AuthenticationType);
        }
        // The RFC has the sequence number judged first; but what a stranger writes there must not count.
        let Some((_, which)) = fitting.find(|(key, _)| key.verifies(octets)) else { return Err(Discard::Forged) };
        let forget_after = self.detection_time().unwrap_or(SLOW) * 2;
        match self.heard.accepts(section, packet.multiplier.get(), forget_after, now) {
            true => Ok(Some((section.sequence, which))),
            false => Err(Discard::Replayed),
        }
    }

    /// The peer was heard with this key. The key of former settings has no use any more once it was heard with the current one.
    fn answer_with(&mut self, which: WhichKey) {
        self.spoken = match which {
            WhichKey::Current => {
                self.retired = None;
                None
            }
            WhichKey::Old => self.settings.old_key.clone(),
            WhichKey::Retired => self.retired.as_ref().map(|(key, _)| key.clone()),
        };
    }

    /// The time of the key of former settings may be over.
    fn retire(&mut self, now: Instant) {
        if let Some((key, _)) = self.retired.take_if(|(_, until)| *until <= now)
            && self.spoken.take_if(|spoken| *spoken == key).is_some()
        {
            // A peer that takes both goes on with the other one.
            self.news = true;
        }
    }

    /// RFC 5880 §6.8.6: the state after a packet with this one.
    fn follow(&mut self, theirs: BfdState, why: Diagnostic) -> Option<Action> {
        let (after, diagnostic, cause) = match (self.state, theirs) {
            (BfdState::AdminDown, _) => return None,
            (BfdState::Down, BfdState::AdminDown) => return None,
            (BfdState::Init | BfdState::Up, BfdState::AdminDown) => {
                (BfdState::Down, Diagnostic::NeighborSignaledDown, Cause::PeerAdminDown)
            }
            (BfdState::Down, BfdState::Down) => (BfdState::Init, self.diagnostic, Cause::Heard),
            // RFC 5880 §6.8.1: the diagnostic stays, for the peer "to determine the reason that the previous session failed".
            (BfdState::Down, BfdState::Init) => (BfdState::Up, self.diagnostic, Cause::Heard),
            (BfdState::Init, BfdState::Init | BfdState::Up) => (BfdState::Up, self.diagnostic, Cause::Heard),
            (BfdState::Up, BfdState::Down) => {
                (BfdState::Down, Diagnostic::NeighborSignaledDown, Cause::SignaledDown(why))
            }
            (BfdState::Down, BfdState::Up)
            | (BfdState::Init, BfdState::Down)
            | (BfdState::Up, BfdState::Init | BfdState::Up) => return None,
        };
        self.enter(after, diagnostic, cause)
    }

    /// Nothing came for the detection time: what the peer said is forgotten, and a peer that has restarted in the meantime is free to
    /// say something else.
    fn miss(&mut self) -> Option<Action> {
        let time = self.detection_time().unwrap_or_default();
        let barred = self.barred.take();
        self.silent_at = None;
        self.remote = Remote::UNHEARD;
        self.poll = Poll::No;
        self.fin = false;
        (self.transmit_in_use, self.receive_in_use) = (self.transmit, self.receive);
        match self.state {
            BfdState::Init | BfdState::Up => {
                let cause = barred.map_or(Cause::Silence(time), |discard| Cause::Barred(time, discard));
                self.enter(BfdState::Down, Diagnostic::DetectionTimeExpired, cause)
            }
            BfdState::Down | BfdState::AdminDown => None,
        }
    }

    fn enter(&mut self, after: BfdState, diagnostic: Diagnostic, cause: Cause) -> Option<Action> {
        self.diagnostic = diagnostic;
        let before = std::mem::replace(&mut self.state, after);
        if before == after {
            return None;
        }
        self.news = true;
        self.renew_intervals();
        Some(Action::Changed { before, after, cause })
    }

    /// RFC 5880 §6.8.3: what this end asks for in its state. While the session is Up, what makes packets rarer is done only once the
    /// peer knows.
    fn renew_intervals(&mut self) {
        let up = self.state == BfdState::Up;
        let wanted = self.settings.transmit_interval;
        let (transmit, receive) = (if up { wanted } else { wanted.max(SLOW) }, self.settings.receive_interval);
        if (transmit, receive) == (self.transmit, self.receive) {
            return;
        }
        (self.transmit, self.receive) = (transmit, receive);
        if !up || transmit < self.transmit_in_use {
            self.transmit_in_use = transmit;
        }
        if !up || receive > self.receive_in_use {
            self.receive_in_use = receive;
        }
        self.news = true;
        // A Poll that nobody is there to answer has no end.
        if self.remote.discriminator.is_some() {
            self.poll = match self.poll {
                Poll::No => Poll::Asking,
                Poll::Asking | Poll::AskingTwice => Poll::AskingTwice,
            };
        } else {
            (self.transmit_in_use, self.receive_in_use) = (transmit, receive);
        }
    }

    fn end_poll(&mut self) {
        match self.poll {
            Poll::No => {}
            Poll::Asking => {
                self.poll = Poll::No;
                (self.transmit_in_use, self.receive_in_use) = (self.transmit, self.receive);
            }
            Poll::AskingTwice => {
                self.poll = Poll::Asking;
                self.news = true;
            }
        }
    }

    /// Plans the next periodic packet anew if the interval has changed: RFC 5880 §6.8.3 has the new one count at once.
    fn reschedule(&mut self, now: Instant) {
        let interval = self.transmit_interval();
        if interval == self.send_by {
            return;
        }
        self.send_by = interval;
        self.send_at = match (interval, self.sent_at) {
            (None, _) => None,
            (Some(_), None) => Some(now),
            (Some(interval), Some(sent)) => Some((sent + self.jittered(interval)).max(now)),
        };
    }

    /// RFC 5880 §6.8.7: "reduced by a random value of 0 to 25%", and with a multiplier of 1 "no more than 90% … and no less than 75%".
    fn jittered(&mut self, interval: Duration) -> Duration {
        let most = if self.settings.multiplier.get() == 1 { 900 } else { 1000 };
        interval * self.rng.u32(750..=most) / 1000
    }

    /// When the next packet goes out that no timer asked for, if there is one to send.
    fn unasked_due(&self) -> Option<Instant> {
        (self.fin || (self.news && self.may_speak())).then_some(self.unasked_from)
    }

    /// RFC 5880 §6.8.7: a passive end is silent until it has heard the peer.
    fn may_speak(&self) -> bool {
        !self.settings.passive || self.remote.discriminator.is_some()
    }

    fn send(&mut self, now: Instant) -> Action {
        self.news = false;
        self.sent_at = Some(now);
        self.send_by = self.transmit_interval();
        self.send_at = self.send_by.map(|interval| now + self.jittered(interval));
        Action::Send(self.packet(false))
    }

    fn packet(&mut self, fin: bool) -> Packet {
        let packet = Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            // RFC 5880 §6.5: never both.
            poll: !fin && !matches!(self.poll, Poll::No),
            fin,
            control_plane_independent: false,
            demand: false,
            multiplier: self.settings.multiplier,
            my_discriminator: self.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.transmit,
            required_min_rx: self.receive,
            required_min_echo_rx: Duration::ZERO,
            authentication: None,
        };
        let Some(key) = self.key().cloned() else { return packet };
        // RFC 5880 §6.7.4: meticulous with each packet, else when the contents change.
        if key.meticulous || self.said != Some(packet) {
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.said = Some(packet);
        let section = Sha1 { meticulous: key.meticulous, key_id: key.id, sequence: self.sequence };
        Packet { authentication: Some(Authentication::Sha1(section)), ..packet }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
pub(in crate::bfd) mod tests;
