//! One session of the worker: its machine, the socket that it sends from, and what is reported of it. Floor 2.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::own_end::{Known, OwnEnd, Verdict};
use super::receivers::Place;
use crate::bfd::authentication::Key;
use crate::bfd::counters::{Counters, PeerCounters};
use crate::bfd::discard::Discard;
use crate::bfd::kept::{KeptPath, Silence};
use crate::bfd::ledger::{Ledger, Slot};
use crate::bfd::machine::{Action, Cause, Session, Standing};
use crate::bfd::packet::{Authentication, Packet};
use crate::bfd::settings::{HEARD_WITHIN, REST, Settings};
use crate::bfd::socket::{Sender, interface_index};
use crate::bfd_state::BfdState;
use crate::clock;
use crate::config::{BfdAuthentication, BfdProfile};
use crate::names::PeerName;
use crate::plan::slice::BfdPeer;
use crate::world::{BfdLoss, BfdReport};

/// A session, and the peers whose path it watches.
pub(super) struct Watched {
    pub(super) place: Place,
    /// One at least.
    peers: Vec<(PeerName, Arc<PeerCounters>)>,
    profile: Arc<BfdProfile>,
    session: Session,
    own_end: OwnEnd,
    /// The address to send from where the place names none; `None` leaves it to the kernel.
    from: Option<IpAddr>,
    /// The BGP session stands, from that address.
    is_of_session: bool,
    sender: Option<Sender>,
    /// The address that the sender was bound to, if any.
    bound: Option<IpAddr>,
    /// The number of the device when the sender was bound to it.
    index: Option<u32>,
    source_port: u16,
    /// Why nothing can be received, and why nothing can be sent.
    cannot_receive: Option<String>,
    cannot_send: Option<String>,
    local_address: Option<IpAddr>,
    /// The last packet said that the peer's operator holds the session down.
    held_by_peer: bool,
    /// Why the last packet was dropped that has the peer's address; absent while the session is Up.
    refused: Option<(Discard, Option<u8>)>,
    since: SystemTime,
    /// What happened since it was last reported.
    ups: u64,
    losses: u64,
    last_loss: Option<BfdLoss>,
    told: Option<Told>,
    /// From when on it is reported again. A session that was lost is at once.
    tell_from: Instant,
    /// There is something to report then.
    untold: bool,
    /// Something has happened since it was last looked at.
    touched: bool,
    /// It is that of the previous agent, and the peer was not heard since: it may have noticed that nobody sent. How long at least it may take
    /// to be heard.
    doubt: Option<Duration>,
    /// When the peer last said to this agent that it hears it.
    heard: Option<Instant>,
    /// No peer has it any more. It goes on until BGP has told the router so, until then at most.
    leaves_by: Option<Instant>,
    /// Where it is noted before each packet, and as what it stands in the ledger.
    slot: Option<Slot>,
    noted: Option<Noted>,
    /// It may stand otherwise than noted.
    unnoted: bool,
}

/// What a ledger says of a session that is up, but for its sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Noted {
    standing: Standing,
    patience: Duration,
    from: Option<IpAddr>,
    own_end: Option<IpAddr>,
    source_port: u16,
}

/// How often a session is reported at most, whatever its peer, or who writes in its name, does with it.
const REPORT_PAUSE: Duration = Duration::from_millis(100);

/// What was counted of one peer over all of its sessions.
#[derive(Debug, Clone, Default)]
pub(super) struct Flaps {
    times_up: u64,
    losses: u64,
    last_loss: Option<BfdLoss>,
}

/// What was last reported, and to whom.
type Told = (BfdReport, Vec<PeerName>);

impl Watched {
    /// `peers` are all who share the place; `None` without any.
    pub(super) fn new(
        place: Place,
        peers: Vec<(PeerName, BfdPeer)>,
        discriminator: NonZeroU32,
        counters: &Counters,
        now: Instant,
    ) -> Option<Watched> {
        let profile = fastest(&peers)?;
        Some(Watched {
            session: Session::new(settings(&profile), discriminator, fastrand::u64(..), now),
            own_end: OwnEnd::new(now),
            place,
            from: from(&peers),
            is_of_session: of_session(&peers).is_some(),
            peers: counted(peers, counters),
            profile,
            sender: None,
            bound: None,
            index: None,
            source_port: fastrand::u16(..),
            cannot_receive: None,
            cannot_send: None,
            local_address: None,
            held_by_peer: false,
            refused: None,
            since: clock::wall(),
            ups: 0,
            losses: 0,
            last_loss: None,
            told: None,
            tell_from: now,
            untold: false,
            touched: true,
            doubt: None,
            heard: None,
            leaves_by: None,
            slot: None,
            noted: None,
            unnoted: true,
        })
    }

    /// The session that another process left at this place; `None` without a peer.
    pub(super) fn resumed(
        kept: &KeptPath,
        place: Place,
        peers: Vec<(PeerName, BfdPeer)>,
        counters: &Counters,
        now: Instant,
    ) -> Option<Watched> {
        let watched = Watched::new(place, peers, kept.standing.discriminator, counters, now)?;
        let patience = if kept.silence.is_some() { HEARD_WITHIN } else { Duration::ZERO };
        let session = Session::resumed(settings(&watched.profile), kept.standing, patience, fastrand::u64(..), now);
        let own_end = OwnEnd::resumed(kept.own_end, now);
        Some(Watched { session, own_end, source_port: kept.source_port, ups: 1, doubt: Some(patience), ..watched })
    }

    /// The peer is asked to wait for another process.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.session.state() == BfdState::Up && self.leaves_by.is_none() {
            self.session.handle_rest(REST, now);
        }
    }

    /// What another process needs to go on; `None` while the peer has not agreed to wait, and where no peer has the session.
    pub(super) fn kept(&self) -> Option<KeptPath> {
        if self.leaves_by.is_some() {
            return None;
        }
        let Place { address, device, source, multihop } = &self.place;
        Some(KeptPath {
            peers: self.peers.iter().map(|(name, _)| name.clone()).collect(),
            address: address.clone(),
            device: device.clone(),
            source: *source,
            from: self.from,
            own_end: self.own_end.address(),
            multihop: *multihop,
            source_port: self.source_port,
            standing: self.session.standing()?,
            silence: None,
        })
    }

    /// Whether the ledger says something else than how the session stands. It counts as noted then.
    pub(super) fn is_news_to_ledger(&mut self) -> bool {
        if !std::mem::take(&mut self.unnoted) {
            return false;
        }
        let of_standing = |standing| Noted {
            standing: Standing { sequence: 0, ..standing },
            patience: self.session.detection_time_of_peer(),
            from: self.from,
            own_end: self.own_end.address(),
            source_port: self.source_port,
        };
        let stands = self.session.standing().map(of_standing);
        std::mem::replace(&mut self.noted, stands) != stands
    }

    /// What another process needs to go on if this one dies; `None` while the session is not up, or where the ledger is full.
    /// `taken`: the slots of all sessions.
    pub(super) fn in_ledger(&mut self, ledger: &Ledger, taken: &mut BTreeSet<u16>) -> Option<KeptPath> {
        let kept = self.kept()?;
        if self.slot.is_none() {
            let slot = ledger.slot(taken)?;
            slot.note(kept.standing.discriminator, kept.standing.sequence).ok()?;
            taken.insert(slot.number());
            self.slot = Some(slot);
        }
        // The slot says since when.
        let silence = Silence { since_boot: Duration::ZERO, patience: self.session.detection_time_of_peer() };
        Some(KeptPath { silence: Some(silence), ..kept })
    }

    pub(super) fn slot(&self) -> Option<u16> {
        self.slot.as_ref().map(Slot::number)
    }

    /// Whether nothing is to be waited for before another process can go on.
    pub(super) fn is_at_rest(&self) -> bool {
        self.session.state() != BfdState::Up || self.session.standing().is_some()
    }

    /// Other peers share the place now, or their profiles have changed. The session stays.
    pub(super) fn change(&mut self, peers: Vec<(PeerName, BfdPeer)>, counters: &Counters, now: Instant) {
        if let Some(profile) = fastest(&peers).filter(|profile| **profile != *self.profile) {
            self.session.handle_settings(settings(&profile), now);
            self.profile = profile;
        }
        (self.from, self.is_of_session) = (from(&peers), of_session(&peers).is_some());
        self.peers = counted(peers, counters);
        self.touched = true;
        // The names may be others.
        (self.noted, self.unnoted) = (None, true);
        if self.leaves_by.take().is_some() {
            // Nobody was told of it meanwhile.
            self.told = None;
        }
    }

    /// No peer has it any more.
    pub(super) fn leave_by(&mut self, by: Instant) {
        self.leaves_by.get_or_insert(by);
    }

    pub(super) fn leaves_by(&self) -> Option<Instant> {
        self.leaves_by
    }

    pub(super) fn minimum_ttl(&self) -> u8 {
        self.profile.minimum_ttl
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.session.next_deadline(), self.untold.then_some(self.tell_from).filter(|_| self.leaves_by.is_none())]
            .into_iter()
            .flatten()
            .min()
    }

    /// A packet of the peer that came to the address.
    pub(super) fn handle_packet(
        &mut self,
        packet: &Packet,
        to: Option<IpAddr>,
        octets: &[u8],
        now: Instant,
    ) -> Result<(), Discard> {
        let state = self.session.state();
        let verdict = to.map_or(Verdict::Its, |to| self.own_end.judge(to, packet, self.known_end(), state, now));
        let is_down = matches!(packet.state, BfdState::Down | BfdState::AdminDown);
        let verdict = match verdict {
            // It has noticed that the previous agent was gone, or it was started anew itself: that says nothing of the path.
            Verdict::Its if self.doubt.is_some() && is_down => Verdict::Anew,
            verdict => verdict,
        };
        let judged = match verdict {
            Verdict::Its => self.session.handle_packet(packet, octets, now),
            Verdict::Anew => self.begin_anew(packet, octets, now),
            Verdict::Others => {
                to.into_iter().for_each(|to| self.own_end.note_other(to, now));
                self.touched = true;
                return Err(Discard::OtherAddress);
            }
        };
        let action = judged.inspect_err(|discard| self.refuse(*discard, None))?;
        to.into_iter().for_each(|to| self.own_end.note(to, now));
        self.held_by_peer = packet.state == BfdState::AdminDown;
        self.doubt = None;
        if matches!(packet.state, BfdState::Init | BfdState::Up) && self.session.state() == BfdState::Up {
            self.heard = Some(now);
        }
        (self.touched, self.unnoted) = (true, true);
        self.peers.iter().for_each(|(_, counters)| counters.count_received());
        self.carry_out(action);
        Ok(())
    }

    /// The session is with another address of ours from this packet on. That it is not up is no loss: the path was not lost.
    fn begin_anew(&mut self, packet: &Packet, octets: &[u8], now: Instant) -> Result<Option<Action>, Discard> {
        let Watched { session, profile, .. } = self;
        let mut anew = Session::new(settings(profile), session.discriminator(), fastrand::u64(..), now);
        anew.know_keys_of(session);
        let action = anew.handle_packet(packet, octets, now)?;
        *session = anew;
        self.since = clock::wall();
        Ok(action)
    }

    /// The session is with another address than that of the BGP session: its end says nothing of that one's path, as where a virtual address
    /// has moved to another host.
    fn is_elsewhere(&self) -> bool {
        match self.known_end() {
            Known::OfSession(address) => self.own_end.address().is_some_and(|heard| heard != address),
            Known::Set(_) | Known::OfBgp(_) | Known::OfKernel(_) | Known::Nothing => false,
        }
    }

    fn known_end(&self) -> Known {
        match (self.place.source, self.from, self.local_address) {
            (Some(source), ..) => Known::Set(source),
            (None, Some(from), _) if self.is_of_session => Known::OfSession(from),
            (None, Some(from), _) => Known::OfBgp(from),
            (None, None, Some(local)) => Known::OfKernel(local),
            (None, None, None) => Known::Nothing,
        }
    }

    /// A packet with the peer's address was dropped. While the session is not Up, that may be why.
    pub(super) fn refuse(&mut self, discard: Discard, ttl: Option<u8>) {
        if self.session.state() != BfdState::Up {
            self.refused = Some((discard, ttl));
            self.touched = true;
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.session.next_deadline().is_some_and(|at| at <= now) {
            let actions = self.session.handle_timeout(now);
            (self.touched, self.unnoted) = (true, true);
            self.carry_out(actions);
        }
    }

    /// Tells the peer that this end holds the session down, which is no failure of the path.
    pub(super) fn hold_down(&mut self, now: Instant) {
        let action = self.session.handle_admin_down(now);
        self.carry_out(action);
        self.handle_timeout(now);
    }

    /// Opens the sending socket if there is none, or if the device was made anew, or packets are to leave from another address. `cannot_receive` says
    /// why nothing can be received.
    pub(super) fn look(&mut self, cannot_receive: Option<String>, now: Instant) {
        self.cannot_receive = cannot_receive;
        self.own_end.settle(matches!(self.session.state(), BfdState::Init | BfdState::Up), now);
        self.touched = true;
        let index = self.place.device.as_ref().and_then(|device| interface_index(device).ok());
        let moves = self.bound != self.place.source.or(self.from);
        if self.sender.is_none() || self.index != index || moves {
            self.open();
            self.index = index;
        }
        if self.session.state() != BfdState::Up || self.local_address.is_none() || moves {
            self.local_address = self.sender.as_ref().and_then(Sender::source);
        }
    }

    /// By the same port as before, so that the peer sees one session. A session that is up goes on.
    fn open(&mut self) {
        let Place { address, device, source, multihop: _ } = &self.place;
        let open = |source| Sender::open(address, self.place.port(), device.as_ref(), source, self.source_port);
        // The port is free again only once the former socket is closed.
        self.sender = None;
        self.bound = source.or(self.from);
        let opened = open(self.bound).or_else(|error| match error.kind() {
            // It has just left this host. The kernel chooses until it is told of another, or the address is back.
            io::ErrorKind::AddrNotAvailable if source.is_none() && self.bound.is_some() => {
                self.bound = None;
                open(None)
            }
            _ => Err(error),
        });
        match opened {
            Ok(sender) => (self.sender, self.cannot_send) = (Some(sender), None),
            Err(error) => self.cannot_send = Some(format!("cannot send: {error}")),
        }
    }

    fn carry_out(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Send(packet) => self.send(&packet),
                Action::Changed { before, after, cause } => {
                    self.since = clock::wall();
                    if after == BfdState::Up {
                        self.ups += 1;
                        self.refused = None;
                    }
                    if before == BfdState::Up && cause.is_loss() && !self.is_elsewhere() {
                        self.losses += 1;
                        let cause = match (cause, self.doubt) {
                            (Cause::Silence(time), Some(patience)) => Cause::Silence(time.max(patience)),
                            (Cause::Barred(time, why), Some(patience)) => Cause::Barred(time.max(patience), why),
                            (cause, _) => cause,
                        };
                        self.last_loss =
                            Some(BfdLoss { at: clock::wall_timestamp(), why: in_words(cause), heard: self.heard });
                    }
                }
            }
        }
    }

    fn send(&mut self, packet: &Packet) {
        let sequence = match packet.authentication {
            Some(Authentication::Sha1(section)) => section.sequence,
            Some(Authentication::Other(_)) | None => 0,
        };
        // A time that could not be noted is an earlier one: the session is taken for older than it is.
        let _ = self.slot.as_ref().map(|slot| slot.note(self.session.discriminator(), sequence));
        let octets = packet.emit(self.session.key());
        let sent = match &self.sender {
            Some(sender) => sender.send(&octets),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        for (_, counters) in &self.peers {
            if sent.is_ok() { counters.count_sent() } else { counters.count_unsent() }
        }
        match sent {
            Ok(()) => self.cannot_send = None,
            Err(error) if self.sender.is_some() => self.cannot_send = Some(format!("cannot send: {error}")),
            // Why it could not be opened stands there already.
            Err(_) => {}
        }
    }

    /// How the session stands, for each of its peers, if that is news and may be told now.
    pub(super) fn news(
        &mut self,
        flaps: &mut BTreeMap<PeerName, Flaps>,
        now: Instant,
    ) -> Vec<(PeerName, Arc<BfdReport>)> {
        if self.leaves_by.is_some() || (!std::mem::take(&mut self.touched) && !self.untold) {
            return Vec::new();
        }
        let names: Vec<PeerName> = self.peers.iter().map(|(name, _)| name.clone()).collect();
        let told = (self.report(), names);
        if self.ups == 0 && self.losses == 0 && self.told.as_ref() == Some(&told) {
            self.untold = false;
            return Vec::new();
        }
        let was_up = self.told.as_ref().is_some_and(|(report, _)| report.state == BfdState::Up);
        self.untold = now < self.tell_from && !(was_up && self.losses > 0);
        if self.untold {
            return Vec::new();
        }
        self.tell_from = now + REPORT_PAUSE;
        let (ups, losses) = (std::mem::take(&mut self.ups), std::mem::take(&mut self.losses));
        let last = self.last_loss.take();
        let (report, names) = &*self.told.insert(told);
        let of_peer = |name: &PeerName| {
            let counted = flaps.entry(name.clone()).or_default();
            counted.times_up += ups;
            counted.losses += losses;
            if last.is_some() {
                counted.last_loss.clone_from(&last);
            }
            let Flaps { times_up, losses, last_loss } = counted.clone();
            (name.clone(), Arc::new(BfdReport { times_up, losses, last_loss, ..report.clone() }))
        };
        names.iter().map(of_peer).collect()
    }

    /// With nothing counted.
    fn report(&self) -> BfdReport {
        let Place { address, device, source: _, multihop } = &self.place;
        let remote = self.session.remote();
        let heard = remote.discriminator.is_some();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        BfdReport {
            state: self.session.state(),
            since: self.since,
            address: address.clone(),
            local_address: self.local_address,
            interface: device.clone(),
            multihop: *multihop,
            diagnostic: self.session.diagnostic(),
            remote_diagnostic: remote.diagnostic,
            remote_state: heard.then_some(remote.state),
            held_by_peer: self.held_by_peer,
            discriminator: self.session.discriminator().get(),
            remote_discriminator: remote.discriminator.map(NonZeroU32::get),
            remote_multiplier: heard.then_some(remote.multiplier),
            detection_time_micros: self.session.detection_time().map(micros),
            receive_interval_micros: self.session.receive_interval().map(micros),
            transmit_interval_micros: self.session.transmit_interval().map(micros),
            remote_demand: remote.demand,
            authenticated: self.session.settings().key.is_some(),
            times_up: 0,
            losses: 0,
            last_loss: None,
            problem: self.problem(),
        }
    }
}

impl Watched {
    /// Why the session cannot come up, as far as this end knows, or what else of the peer's BFD does not fit.
    fn problem(&self) -> Option<String> {
        let refused = || {
            let (discard, ttl) = self.refused?;
            let ttl = ttl.map_or(String::new(), |ttl| format!(" (TTL {ttl})"));
            Some(format!("packets of the peer are dropped: {}{ttl}", discard.in_words()))
        };
        let elsewhere = || {
            let (other, own) = (self.own_end.other(), self.own_end.address());
            if let Known::OfSession(address) = self.known_end()
                && own != Some(address)
            {
                let other = own.or(other)?;
                return Some(format!(
                    "the peer runs BFD to {other} and not to {address}, which the BGP session is with: it says nothing of that session's \
                     path; switch BFD on for that neighbor at the peer"
                ));
            }
            let other = other?;
            let own = own.map_or(String::new(), |own| format!(" ({own})"));
            Some(format!(
                "the peer also runs BFD to {other}, which is not answered: the session is with one address of this node{own}"
            ))
        };
        let with_former_key = || {
            self.session.is_with_retired_key().then(|| {
                "the peer uses the key that the profile had before: it is accepted for ten minutes after the change; change the key at the \
                 peer, or name the former one in old-key-file of the profile"
                    .to_owned()
            })
        };
        let blocked = self.cannot_receive.clone().or_else(|| self.cannot_send.clone()).or_else(refused);
        blocked.or_else(with_former_key).or_else(elsewhere)
    }
}

/// Peers that share a place have one BGP session at most with an address of ours.
fn from(peers: &[(PeerName, BfdPeer)]) -> Option<IpAddr> {
    of_session(peers).or_else(|| peers.iter().find_map(|(_, peer)| peer.from))
}

/// That from which the BGP session stands.
fn of_session(peers: &[(PeerName, BfdPeer)]) -> Option<IpAddr> {
    peers.iter().find_map(|(_, peer)| peer.from.filter(|_| peer.is_of_session))
}

fn counted(peers: Vec<(PeerName, BfdPeer)>, counters: &Counters) -> Vec<(PeerName, Arc<PeerCounters>)> {
    peers.into_iter().map(|(name, _)| (name.clone(), counters.of(&name))).collect()
}

/// Of the profiles of all who share a path, the one that finds a failure soonest.
fn fastest(peers: &[(PeerName, BfdPeer)]) -> Option<Arc<BfdProfile>> {
    let soonest = |profile: &&Arc<BfdProfile>| {
        let BfdProfile { receive_interval, transmit_interval, multiplier, .. } = &***profile;
        *transmit_interval.max(receive_interval) * u32::from(multiplier.get())
    };
    peers.iter().map(|(_, peer)| &peer.profile).min_by_key(soonest).cloned()
}

fn settings(profile: &BfdProfile) -> Settings {
    let BfdProfile {
        name: _,
        receive_interval,
        transmit_interval,
        multiplier,
        minimum_ttl: _,
        passive,
        key,
        key_id,
        old_key,
        old_key_id,
        authentication,
    } = profile;
    let meticulous = match authentication {
        BfdAuthentication::KeyedSha1 => false,
        BfdAuthentication::MeticulousKeyedSha1 => true,
    };
    Settings {
        transmit_interval: *transmit_interval,
        receive_interval: *receive_interval,
        multiplier: *multiplier,
        passive: *passive,
        // The configuration was checked: the keys have 1 to 20 octets.
        key: key.as_ref().and_then(|key| Key::new(key.secret.expose(), meticulous, *key_id)),
        old_key: old_key.as_ref().and_then(|key| Key::new(key.secret.expose(), meticulous, *old_key_id)),
    }
}

fn in_words(cause: Cause) -> String {
    match cause {
        Cause::Silence(time) => format!("nothing came for {}", spoken(time)),
        Cause::Barred(time, discard) => format!(
            "nothing that this node's key authenticates came for {}, and packets with the session's number did: {}",
            spoken(time),
            discard.in_words()
        ),
        Cause::SignaledDown(diagnostic) => format!("the peer says that it is down: {diagnostic}"),
        Cause::Heard => "the peer was heard".to_owned(),
        Cause::PeerAdminDown => "the peer's operator holds it down".to_owned(),
        Cause::AdminDown => "held down here".to_owned(),
    }
}

fn spoken(time: Duration) -> String {
    let micros = time.as_micros();
    if micros.is_multiple_of(1000) { format!("{} ms", micros / 1000) } else { format!("{micros} us") }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU8;

    use super::*;
    use crate::address::ScopedAddress;
    use crate::bfd::machine::tests::heard;

    fn profile(name: &str, transmit: u64, receive: u64, multiplier: u8) -> BfdProfile {
        BfdProfile {
            name: name.to_owned(),
            receive_interval: Duration::from_millis(receive),
            transmit_interval: Duration::from_millis(transmit),
            multiplier: NonZeroU8::new(multiplier).unwrap(),
            minimum_ttl: 254,
            passive: false,
            key: None,
            old_key: None,
            old_key_id: 1,
            key_id: 1,
            authentication: BfdAuthentication::MeticulousKeyedSha1,
        }
    }

    fn peer(name: &str, profile: BfdProfile) -> (PeerName, BfdPeer) {
        let address = ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None };
        let peer = BfdPeer {
            profile: Arc::new(profile),
            address,
            source: None,
            from: None,
            is_of_session: false,
            vrf: None,
            multihop: false,
        };
        (name.into(), peer)
    }

    fn watched(peers: Vec<(PeerName, BfdPeer)>, now: Instant) -> Watched {
        let place = Place::of(&peers[0].1);
        Watched::new(place, peers, NonZeroU32::MIN, &Counters::default(), now).expect("there is a peer")
    }

    #[test]
    fn peers_that_share_a_path_have_the_profile_that_notices_soonest_and_each_its_report() {
        let now = clock::now();
        let slow = peer("slow", profile("slow", 300, 300, 3));
        let fast = peer("fast", profile("fast", 10, 100, 4));
        let mut shared = watched(vec![slow.clone(), fast], now);
        assert_eq!(shared.profile.name, "fast");
        let mut flaps = BTreeMap::new();
        let told: Vec<PeerName> = shared.news(&mut flaps, now).into_iter().map(|(name, _)| name).collect();
        assert_eq!(told, ["slow".into(), "fast".into()] as [PeerName; 2]);
        shared.change(vec![slow], &Counters::default(), now);
        assert_eq!((shared.profile.name.as_str(), shared.peers.len()), ("slow", 1));
        assert!(
            Watched::new(
                Place::of(&peer("x", profile("x", 10, 10, 1)).1),
                vec![],
                NonZeroU32::MIN,
                &Counters::default(),
                now
            )
            .is_none()
        );
    }

    /// Input: the BGP session of the peer comes up from another address than the kernel would choose, and goes to another one.
    #[test]
    fn packets_leave_from_the_address_of_the_bgp_session_by_the_same_port_and_the_session_stays() {
        let now = clock::now();
        let (name, tor) = peer("tor", profile("fast", 50, 50, 3));
        let address = ScopedAddress { ip: "127.0.0.1".parse().unwrap(), interface: None };
        let at = |from: Option<&str>| {
            let from = from.map(|text| text.parse().unwrap());
            vec![(name.clone(), BfdPeer { address: address.clone(), from, ..tor.clone() })]
        };
        let mut session = watched(at(None), now);
        session.session = Session::new(settings(&session.profile), NonZeroU32::MIN, 7, now);
        let discriminator = session.session.discriminator();
        // The port need not be the hint where another process has that.
        for (from, expected) in [
            (None, "127.0.0.1"),
            (Some("127.0.0.5"), "127.0.0.5"),
            (Some("127.0.0.6"), "127.0.0.6"),
            (Some("192.0.2.1"), "127.0.0.1"),
        ] {
            session.change(at(from), &Counters::default(), now);
            session.look(None, now);
            let sender = session.sender.as_ref().expect("it is open");
            assert_eq!(sender.source(), Some(expected.parse().unwrap()), "{from:?}");
            assert_eq!(session.local_address, Some(expected.parse().unwrap()), "{from:?}");
            assert_eq!((session.session.discriminator(), session.problem()), (discriminator, None));
        }
    }

    fn packet(theirs: u32, ours: Option<NonZeroU32>, state: BfdState) -> Packet {
        Packet {
            my_discriminator: NonZeroU32::new(theirs).unwrap(),
            your_discriminator: ours,
            desired_min_tx: Duration::from_millis(100),
            required_min_rx: Duration::from_millis(100),
            ..heard(state)
        }
    }

    /// Input: the router has a session with 10.0.0.11 and one with 10.0.0.12, both addresses of this host.
    #[test]
    fn sessions_of_the_peer_with_two_addresses_of_this_host_are_not_mixed_up() {
        let start = clock::now();
        let (name, tor) = peer("tor", profile("fast", 100, 100, 3));
        let at = |from: Option<&str>| {
            let from = from.map(|text| text.parse().unwrap());
            vec![(name.clone(), BfdPeer { from, ..tor.clone() })]
        };
        let mut session = watched(at(Some("10.0.0.11")), start);
        let ours = Some(session.session.discriminator());
        let (own, vip) = ("10.0.0.11", "10.0.0.12");
        let hear = |session: &mut Watched, to: &str, theirs, ours, state, millis| {
            let packet = packet(theirs, ours, state);
            let heard = session.handle_packet(
                &packet,
                Some(to.parse().unwrap()),
                &packet.emit(None),
                start + Duration::from_millis(millis),
            );
            (heard, session.session.state())
        };
        let (down, init, up) = (BfdState::Down, BfdState::Init, BfdState::Up);
        let other = Err(Discard::OtherAddress);
        assert_eq!(hear(&mut session, vip, 2, None, down, 1), (other, down));
        assert_eq!(hear(&mut session, own, 1, None, down, 2), (Ok(()), init));
        assert_eq!(hear(&mut session, vip, 2, None, down, 3), (other, init));
        assert_eq!(hear(&mut session, own, 1, ours, init, 4), (Ok(()), up));
        for state in [down, init] {
            assert_eq!(hear(&mut session, vip, 2, ours, state, 5), (other, up), "it has learned our discriminator");
        }
        assert_eq!(hear(&mut session, vip, 2, None, down, 6), (other, up));
        let problem = session.problem().expect("the operator is told");
        assert!(problem.contains("also runs BFD to 10.0.0.12"), "{problem}");
        session.look(None, start + Duration::from_secs(20));
        session.cannot_send = None;
        assert_eq!(session.problem(), None, "it was removed there");

        // The BGP session is from the other address now.
        session.change(at(Some(vip)), &Counters::default(), start);
        assert_eq!(hear(&mut session, own, 1, ours, up, 20_000), (Ok(()), up), "there may be no other session");
        assert_eq!(hear(&mut session, vip, 2, None, down, 20_001), (Ok(()), init));
        assert_eq!(session.losses, 0, "another session begins, and the path was not lost");
        assert_eq!(hear(&mut session, own, 1, ours, down, 20_002), (other, init));
        assert_eq!(hear(&mut session, vip, 2, ours, init, 20_003), (Ok(()), up));
        assert_eq!(hear(&mut session, own, 1, None, down, 20_004), (other, up));
        session.change(at(Some(own)), &Counters::default(), start);
        assert_eq!(hear(&mut session, own, 2, ours, up, 20_005), (Ok(()), up), "the same session by its discriminator");
    }

    /// Input: the BGP session stands from 10.0.0.11, and the router runs BFD to 10.0.0.12 alone, a virtual address on this
    /// host that moves; or it did so before BGP was there. Output: that one is not taken for the session of the BGP peer, and its end ends
    /// no session of BGP.
    #[test]
    fn bfd_to_a_virtual_address_alone_says_nothing_of_a_bgp_session_from_another_one() {
        let start = clock::now();
        let (name, tor) = peer("tor", profile("fast", 100, 100, 3));
        let at = |is_of_session| {
            let from = Some("10.0.0.11".parse().unwrap());
            vec![(name.clone(), BfdPeer { from, is_of_session, ..tor.clone() })]
        };
        let hear = |session: &mut Watched, to: &str, state, millis| {
            let ours = Some(session.session.discriminator()).filter(|_| state != BfdState::Down);
            let (packet, now) = (packet(2, ours, state), start + Duration::from_millis(millis));
            session.handle_packet(&packet, Some(to.parse().unwrap()), &packet.emit(None), now)
        };
        let (own, vip) = ("10.0.0.11", "10.0.0.12");
        let mut session = watched(at(true), start);
        for millis in [1, 3_100, 60_000] {
            assert_eq!(hear(&mut session, vip, BfdState::Down, millis), Err(Discard::OtherAddress));
        }
        session.cannot_send = None;
        let told = "the peer runs BFD to 10.0.0.12 and not to 10.0.0.11, which the BGP session is with";
        let problem = session.problem();
        assert!(problem.as_ref().is_some_and(|problem| problem.starts_with(told)), "{problem:?}");
        assert_eq!(hear(&mut session, own, BfdState::Down, 60_001), Ok(()), "its own");

        let mut session = watched(at(false), start);
        hear(&mut session, vip, BfdState::Down, 3_100).expect("it may be with that address");
        hear(&mut session, vip, BfdState::Init, 3_101).expect("it comes up");
        assert_eq!(session.session.state(), BfdState::Up);
        assert_eq!(session.problem(), None, "it is the only one");
        session.change(at(true), &Counters::default(), start);
        let problem = session.problem();
        assert!(problem.as_ref().is_some_and(|problem| problem.starts_with(told)), "up, and no help: {problem:?}");
        session.handle_timeout(start + Duration::from_secs(60));
        assert_eq!((session.session.state(), session.losses), (BfdState::Down, 0));
    }

    /// Input: the router has a session with an address that is not the one which this end expects, and with no other.
    #[test]
    fn a_session_with_an_address_that_was_not_expected_comes_up_after_a_moment() {
        let start = clock::now();
        let (name, tor) = peer("tor", profile("fast", 100, 100, 3));
        for (from, expected) in [(Some("10.0.0.11"), Err(Discard::OtherAddress)), (None, Ok(()))] {
            let from = from.map(|text| text.parse().unwrap());
            let mut session = watched(vec![(name.clone(), BfdPeer { from, ..tor.clone() })], start);
            let packet = packet(2, None, BfdState::Down);
            let to = Some("10.0.0.12".parse().unwrap());
            let mut hear =
                |millis| session.handle_packet(&packet, to, &packet.emit(None), start + Duration::from_millis(millis));
            assert_eq!(hear(2900), expected, "from {from:?}");
            assert_eq!(hear(3100), Ok(()));
            assert_eq!(session.session.state(), BfdState::Init);
        }
    }

    /// Input: the peer says AdminDown and then nothing, as FRR does with `shutdown`.
    #[test]
    fn that_the_peers_operator_holds_the_session_down_is_known_while_the_peer_is_silent() {
        let now = clock::now();
        let mut session = watched(vec![peer("tor", profile("fast", 100, 100, 3))], now);
        let ours = Some(session.session.discriminator());
        let later = now + Duration::from_secs(60);
        for (state, expected) in [(BfdState::AdminDown, true), (BfdState::Down, false)] {
            let packet = packet(1, ours, state);
            session.handle_packet(&packet, None, &packet.emit(None), now).expect("it fits");
            session.session.handle_timeout(later);
            let report = session.report();
            assert_eq!((report.remote_state, report.held_by_peer), (None, expected), "{state}");
        }
    }

    #[test]
    fn a_session_is_reported_ten_times_a_second_at_most_and_a_loss_at_once() {
        let mut now = clock::now();
        let mut session = watched(vec![peer("tor", profile("fast", 50, 50, 3))], now);
        let mut flaps = BTreeMap::new();
        let mut reports = 0;
        for round in 0..1000_u32 {
            // What a stranger on the link can do to a session that is not up.
            let discard = if round % 2 == 0 { Discard::Forged } else { Discard::Replayed };
            session.refuse(discard, None);
            reports += session.news(&mut flaps, now).len();
            now += Duration::from_millis(1);
        }
        assert!((9..=11).contains(&reports), "{reports} in a second");
        assert!(session.next_deadline().is_some_and(|at| at <= now + REPORT_PAUSE), "the rest is told later");
        let changed = |before, after, cause| Some(Action::Changed { before, after, cause });
        now += Duration::from_secs(1);
        session.carry_out(changed(BfdState::Init, BfdState::Up, Cause::Heard));
        session.touched = true;
        session.told.iter_mut().for_each(|(report, _)| report.state = BfdState::Up);
        session.tell_from = now + REPORT_PAUSE;
        session.carry_out(changed(BfdState::Up, BfdState::Down, Cause::Silence(Duration::from_millis(150))));
        let told = session.news(&mut flaps, now);
        let (_, report) = told.first().expect("a loss is told at once");
        assert_eq!((report.losses, report.times_up), (1, 1));
        assert_eq!(report.last_loss.as_ref().map(|loss| loss.why.as_str()), Some("nothing came for 150 ms"));
    }

    /// What an agent that died left of a session with 100 ms at both ends.
    fn left_by_the_dead(state: BfdState) -> (KeptPath, Vec<(PeerName, BfdPeer)>) {
        let mut kept = crate::bfd::kept::tests::path();
        (kept.standing.transmit, kept.standing.receive) = (Duration::from_millis(100), Duration::from_millis(100));
        kept.standing.remote.state = state;
        kept.silence = Some(Silence { since_boot: Duration::ZERO, patience: Duration::from_millis(300) });
        (kept, vec![peer("tor", profile("fast", 100, 100, 3))])
    }

    /// Input: the previous agent died. The peer has not noticed, or has, or is silent for 1.5 s.
    #[test]
    fn a_session_goes_on_after_a_crash_and_a_peer_that_has_noticed_begins_it_anew_without_a_loss() {
        let start = clock::now();
        let resumed = || {
            let (kept, peers) = left_by_the_dead(BfdState::Up);
            Watched::resumed(&kept, Place::of(&peers[0].1), peers, &Counters::default(), start)
                .expect("there is a peer")
        };
        let own = Some("10.0.0.11".parse().unwrap());
        let hear = |session: &mut Watched, ours, state, millis| {
            let packet = packet(7, ours, state);
            let heard = session.handle_packet(&packet, own, &packet.emit(None), start + Duration::from_millis(millis));
            (heard, session.session.state(), session.losses)
        };
        let (down, init, up) = (BfdState::Down, BfdState::Init, BfdState::Up);
        let mut session = resumed();
        let ours = Some(session.session.discriminator());
        assert_eq!(session.session.state(), up);
        assert_eq!(hear(&mut session, ours, up, 50), (Ok(()), up, 0));
        assert_eq!(hear(&mut session, ours, down, 60), (Ok(()), down, 1), "from then on it is as any other");

        for said in [None, ours] {
            let mut session = resumed();
            assert_eq!(
                hear(&mut session, said, down, 900),
                (Ok(()), init, 0),
                "it has noticed, and the path was not lost"
            );
            assert_eq!(hear(&mut session, ours, up, 901), (Ok(()), up, 0));
        }
        let mut session = resumed();
        assert_eq!(hear(&mut session, ours, BfdState::AdminDown, 900), (Ok(()), down, 0));

        // So it is after a planned restart, where the router was started anew meanwhile.
        let (kept, peers) = left_by_the_dead(BfdState::Up);
        let kept = KeptPath { silence: None, ..kept };
        let place = Place::of(&peers[0].1);
        let mut session = Watched::resumed(&kept, place, peers, &Counters::default(), start).expect("there is a peer");
        assert_eq!(hear(&mut session, None, down, 50), (Ok(()), init, 0));
        assert_eq!(hear(&mut session, ours, up, 51), (Ok(()), up, 0));

        let mut session = resumed();
        for (millis, expected) in [(1499, (up, 0)), (1500, (down, 1))] {
            session.handle_timeout(start + Duration::from_millis(millis));
            assert_eq!((session.session.state(), session.losses), expected, "silent for {millis} ms");
        }
    }

    /// Output: the sequence number goes on behind the last one that was noted, which is noted before its packet is sent.
    #[test]
    fn a_ledger_hears_of_what_changes_and_a_slot_of_each_packet() {
        let start = clock::now();
        let (mut kept, mut peers) = left_by_the_dead(BfdState::Up);
        let key = crate::config::SecretFile { path: None, secret: b"secret"[..].into() };
        let keyed = BfdProfile { key: Some(key), ..BfdProfile::clone(&peers[0].1.profile) };
        peers[0].1.profile = Arc::new(keyed);
        kept.standing.sequence = 1000;
        let place = Place::of(&peers[0].1);
        let mut session = Watched::resumed(&kept, place, peers.clone(), &Counters::default(), start).unwrap();
        let (mut ledger, memory) = Ledger::begin().unwrap();
        let mut taken = BTreeSet::new();
        let mut noted = |session: &mut Watched| {
            let paths: Vec<KeptPath> = session.in_ledger(&ledger, &mut taken).into_iter().collect();
            ledger.note(&paths).unwrap();
        };
        let read = || crate::bfd::ledger::recover(memory.try_clone().unwrap()).unwrap();
        assert!(session.is_news_to_ledger(), "it is up");
        noted(&mut session);
        for millis in [0, 100, 200] {
            session.handle_timeout(start + Duration::from_millis(millis));
            assert!(!session.is_news_to_ledger(), "a periodic packet is none");
        }
        let left = read();
        assert_eq!(left.len(), 1);
        let KeptPath { standing, silence, own_end, source_port, .. } = left[0].clone();
        assert!((1001..=1003).contains(&standing.sequence), "{}", standing.sequence);
        assert_eq!(silence.map(|it| it.patience), Some(Duration::from_millis(300)));
        assert_eq!((own_end, source_port), (kept.own_end, kept.source_port));
        session.change(peers, &Counters::default(), start);
        assert!(session.is_news_to_ledger(), "the names may be others");
        session.hold_down(start + Duration::from_secs(1));
        assert!(session.is_news_to_ledger(), "it is not up any more");
        noted(&mut session);
        assert_eq!(read(), Vec::new());
    }
}
