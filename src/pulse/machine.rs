//! The pulse of one link as a machine: what to send when, and who else is alive. Floor 1.
//!
//! How to drive it: tell it what the plan says ([`Machine::handle_stance`], [`Machine::handle_expected`]) and what was
//! heard ([`Machine::handle_pulse`]); after each of these, and at [`Machine::next_deadline`], send what
//! [`Machine::poll_pulse`] gives until it gives nothing, and pass on what [`Machine::poll_roster`] has. Spare calls are
//! harmless. Time must not go backwards.
//!
//! The bounds, where I is the interval, D the interval times the multiplier, and pulses arrive at once:
//! - An owner pulses every I at most, another node every [`SLOW`] times I. A node is silent when nothing was heard for as
//!   long as it promised itself, so all other nodes find an owner that dies silent within D.
//! - A node that the plan expects to own is held to D as well, whatever it promised: so if the next in rank has died
//!   unnoticed, the one after it comes at most D later.
//! - In the last third of its time a node is asked repeatedly whether it is alive, and answers at once: a few lost packets
//!   make no node silent. The nodes that ask hear each other, so that not all of them ask.
//! - A node that starts takes nothing before it has listened for D, at most [`PATIENCE`] times D.
//! - A node that looks late, because it was frozen or starved, gives every node a third of D more before it judges.
//!
//! A node whose agent restarts says by when it is back ([`Machine::handle_restarting`]), and is not missed before, nor asked
//! whether it is alive. In its new life it counts as holding what it held, until it says that it has all again that it will have,
//! or until that time is over: then it is dead at once, or holds what it says and no more. No node waits for
//! longer than [`LONGEST_RESTART`](crate::roster::LONGEST_RESTART).
//!
//! A replayed pulse is not believed. Within one incarnation, sequence numbers grow. A node that shows up with a new
//! incarnation is alive only once it has answered the incarnation of this node, which no old recording can hold; a node
//! that goes back to an earlier incarnation is a replay. A host that delays packets on the link by less than D is not
//! detected.
//!
//! A node whose clock went back and whose former incarnation is lost would look like a replay. Who knows a later life of a node that is
//! heard no more says so to whoever pulses by that name ([`Pulse::corrects`]). Only an agent of that name acts on it: it goes on in a new life
//! above that one. A recording gains nothing, because it answers nobody; and a recording of such a word changes only an agent that is
//! below a life that its node once had.
//!
//! Two links of one node may lie on one wire. Their incarnations are of one life, and each is believed by itself: once it has
//! answered, and as long as its sequence numbers grow. The node is what the one says that was alive first, until that one falls
//! silent or says goodbye; then it is what another one says that is heard.
//!
//! While the key of the cluster is changed, `sealing` chooses the key of a pulse, and [`Machine::poll_pulse`] gives it once
//! for each key that it has to be sealed with: the same pulse with the same number, which a reader takes once.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::peer::{ASK_PART, Dues, Life, Peer, around, up_to};
use self::receiving::Received;
use self::sealing::Sealing;
use super::holdings::{SetTeller, Teller};
use super::outcome::Outcome;
use super::packet::{MOST_NUMBERS, Pulse};
use super::settings::Settings;
use crate::address::MacAddress;
use crate::names::NodeName;
use crate::roster::{Card, Eligibility, Holdings, KeyId, NodeTicket, Roster, Sessions};

mod peer;
mod receiving;
mod sealing;

/// How many intervals of an owner lie between two pulses of a node that owns nothing.
pub const SLOW: u32 = 10;

/// A node that starts listens for at most this many times D.
pub const PATIENCE: u32 = 3;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stance {
    /// Of this node's end of the link.
    pub mac: MacAddress,
    /// [`Eligibility::Eligible`], or why not.
    pub eligibility: Eligibility,
    /// This node answers for addresses.
    pub owner: bool,
    /// This node hears its API server, or needs none.
    pub hears_api_server: bool,
    pub card: Arc<Card>,
    /// The addresses that this node holds, asks for or hands over.
    pub holdings: Holdings,
    /// Addresses that this node found in use by foreign hosts, the newest findings first.
    pub occupied: Arc<Vec<IpAddr>>,
    /// The addresses that packets of pods leave with by this node; `None` as long as that is not known.
    pub egress: Option<Arc<BTreeSet<IpAddr>>>,
    /// The addresses that this node announces over BGP, while it hears a node that does not hear its API server.
    pub over_bgp: Option<Arc<BTreeSet<IpAddr>>>,
    /// How the BGP sessions of this node stand.
    pub sessions: Option<Sessions>,
    /// The agent has restarted: by then this node has again what it held before.
    pub back_by: Option<Instant>,
}

/// How this node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// What it held is free.
    Leaves,
    /// It is back by the time that its stance names.
    Restarts,
}

/// The lives of this agent on its links.
#[derive(Debug, Clone, Copy)]
pub struct Incarnations {
    /// The first of this process. Its links count up from here.
    pub first: u64,
    /// Of this link. Greater than any that this node used in an earlier process, on any link: it is what keeps recordings of an
    /// earlier life from being believed, here and elsewhere.
    pub this: u64,
}

/// A host whose name another one has, and whose pulses are dropped for that.
#[derive(Debug, Clone, Copy)]
struct Double {
    mac: MacAddress,
    last_heard: Instant,
}

/// How many links of one process count up from its first incarnation at most.
const MOST_INCARNATIONS: u64 = 1 << 16;

/// How many former lives of this process are remembered. A link leaves the one before as soon as another one has.
const MOST_FORMER: usize = 8;

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    me: NodeName,
    ticket: NodeTicket,
    settings: Settings,
    incarnations: Incarnations,
    /// The first incarnations of the lives that this process had before, the newest in front: its other links may not have left them yet.
    former: VecDeque<u64>,
    sequence: u64,
    random: fastrand::Rng,
    began: Instant,
    settled: bool,
    stance: Stance,
    card_version: u32,
    teller: Teller,
    /// What [`Stance::egress`] says, by turns.
    egress: SetTeller,
    /// What [`Stance::over_bgp`] says, by turns.
    over_bgp: SetTeller,
    sealing: Sealing,
    /// The last pulse, for the keys that it has yet to be sealed with.
    copies: Vec<Pulse>,
    /// When anybody was heard last.
    last_heard: Instant,
    /// How many frames the link has received, since when no more, and when that was counted last; `None` while others are heard.
    received: Option<Received>,
    /// All others are missed, and no frame of anybody is received.
    receives_nothing: bool,
    /// A node is silent that fell silent with all others, and none has been heard since.
    suspects: bool,
    peers: BTreeMap<NodeName, Peer>,
    /// When the first peer has to be looked at: see [`Dues`].
    dues: Dues,
    expected: BTreeSet<NodeName>,
    doubted: BTreeSet<NodeName>,
    /// Names that two hosts have, with the one whose pulses are dropped.
    doubles: BTreeMap<NodeName, Double>,
    /// The incarnations of the nodes that wait for an answer.
    to_answer: BTreeSet<u64>,
    /// A node whose pulses come from before the life that is known of it, which is over, with that life.
    to_correct: Option<(NodeTicket, u64)>,
    answer_at: Option<Instant>,
    next_pulse: Instant,
    last_pulse: Option<Instant>,
    /// How many pulses are still to follow quickly, because something changed that must not get lost.
    urgent: u8,
    /// How many pulses still carry the card, because it changed.
    cards: u8,
    /// Nothing is taken in any more, and a few pulses say why.
    parting: Option<Parting>,
    roster: Roster,
    roster_moved: bool,
}

impl Machine {
    /// This node accepts these keys from now on, the newest in front. As at its start, it seals with each of them until every other
    /// node was due.
    pub fn handle_keys(&mut self, keys: Vec<KeyId>, now: Instant) {
        self.sealing = Sealing::new(keys, self.settings, now);
        self.roster_moved = true;
        // Who hears this node seals for it at once.
        if self.parting.is_none() {
            self.hurry(now);
        }
    }

    /// A machine that begins to listen now. `keys`: those that this node accepts, the newest in front.
    pub fn new(
        me: NodeName,
        settings: Settings,
        keys: Vec<KeyId>,
        incarnations: Incarnations,
        stance: Stance,
        now: Instant,
    ) -> Machine {
        let mut teller = Teller::default();
        teller.set(&stance.holdings);
        let [egress, over_bgp] = [&stance.egress, &stance.over_bgp].map(|said| {
            let mut teller = SetTeller::default();
            if let Some(addresses) = said {
                teller.set(addresses);
            }
            teller
        });
        Machine {
            ticket: NodeTicket::of(&me),
            me,
            settings,
            incarnations,
            former: VecDeque::new(),
            sequence: 0,
            // Not a secret: it only keeps nodes from sending in step.
            random: fastrand::Rng::with_seed(incarnations.this),
            began: now,
            settled: false,
            card_version: 1,
            teller,
            egress,
            over_bgp,
            sealing: Sealing::new(keys, settings, now),
            copies: Vec::new(),
            last_heard: now,
            received: None,
            receives_nothing: false,
            suspects: false,
            stance,
            peers: BTreeMap::new(),
            dues: Dues::default(),
            expected: BTreeSet::new(),
            doubted: BTreeSet::new(),
            doubles: BTreeMap::new(),
            to_answer: BTreeSet::new(),
            to_correct: None,
            answer_at: None,
            next_pulse: now,
            last_pulse: None,
            urgent: 0,
            cards: 1,
            parting: None,
            roster: Roster::default(),
            roster_moved: false,
        }
    }

    /// What the plan wants said from now on. What others act on is said at once.
    pub fn handle_stance(&mut self, stance: Stance, now: Instant) {
        // A node that leaves says nothing new, or it would never finish leaving.
        if self.parting.is_some() {
            return;
        }
        let mut moved = self.teller.set(&stance.holdings);
        moved |= stance.egress.as_ref().is_some_and(|egress| self.egress.set(egress));
        moved |= stance.over_bgp.as_ref().is_some_and(|addresses| self.over_bgp.set(addresses));
        let Stance {
            mac,
            eligibility,
            owner,
            hears_api_server,
            card,
            holdings: _,
            occupied,
            egress,
            over_bgp,
            sessions,
            back_by,
        } = &self.stance;
        moved |= egress.is_some() != stance.egress.is_some() || over_bgp.is_some() != stance.over_bgp.is_some();
        if *card != stance.card {
            self.card_version = self.card_version.wrapping_add(1);
            self.cards = URGENT;
            moved = true;
        }
        moved |= (*mac, *eligibility, *owner, *hears_api_server)
            != (stance.mac, stance.eligibility, stance.owner, stance.hears_api_server);
        moved |= *sessions != stance.sessions;
        moved |= *occupied != stance.occupied || *back_by != stance.back_by;
        self.stance = stance;
        if moved {
            self.hurry(now);
        }
    }

    /// The nodes that own addresses by the plan: these are noticed within D when they fall silent, whatever they promised.
    pub fn handle_expected(&mut self, nodes: &BTreeSet<NodeName>, now: Instant) {
        if *nodes == self.expected {
            return;
        }
        self.expected.clone_from(nodes);
        for (name, peer) in &mut self.peers {
            match (nodes.contains(name), peer.expected) {
                (true, None) => {
                    peer.expected = Some(now);
                    peer.plan_ask(self.settings, now, &mut self.random);
                }
                (false, Some(_)) => {
                    peer.expected = None;
                    peer.plan_ask(self.settings, now, &mut self.random);
                }
                (true, Some(_)) | (false, None) => {}
            }
            self.dues.note(peer, self.settings);
        }
    }

    /// The nodes of which the plan has to know whether they hear this one. They are asked again and again, and each is
    /// [`Member::deaf`](crate::roster::Member::deaf) until it answers.
    pub fn handle_doubted(&mut self, nodes: &BTreeSet<NodeName>, now: Instant) {
        if *nodes == self.doubted {
            return;
        }
        self.doubted.clone_from(nodes);
        for (name, peer) in &mut self.peers {
            self.roster_moved |= peer.set_doubted(nodes.contains(name), now);
            self.dues.note(peer, self.settings);
        }
    }

    /// Takes in a pulse that was authenticated.
    pub fn handle_pulse(&mut self, pulse: Pulse, now: Instant) -> Outcome {
        if pulse.node == self.me {
            // Two links of this node may lie on one wire.
            if self.is_own(pulse.incarnation) {
                return Outcome::Own;
            }
            self.note_double(&pulse, now);
            return Outcome::Namesake;
        }
        if let Some((ticket, known)) = pulse.corrects {
            self.handle_correction(ticket, known, now);
        }
        let other_keys = self.peers.get(&pulse.node).is_none_or(|peer| peer.has_other_keys(&pulse));
        if !self.peers.contains_key(&pulse.node) {
            if self.peers.len() >= MOST_PEERS {
                self.forget_one();
            }
            if self.peers.len() >= MOST_PEERS {
                return Outcome::TooMany;
            }
            let expected = self.expected.contains(&pulse.node).then_some(now);
            let mut peer = Peer::new(&pulse, expected, now);
            peer.set_doubted(self.doubted.contains(&pulse.node), now);
            self.peers.insert(pulse.node.clone(), peer);
        } else if let Some(peer) = self.peers.get_mut(&pulse.node) {
            if peer.is_of_other_link(&pulse, self.settings, now) {
                return self.handle_other_link(pulse, now);
            }
            match (pulse.incarnation, pulse.sequence).cmp(&(peer.incarnation, peer.sequence)) {
                Ordering::Less => {
                    let is_alive = peer.life == Life::Alive;
                    if is_alive && peer.is_superseded_and_goes_on(&pulse, self.settings, now) {
                        self.note_double(&pulse, now);
                        return Outcome::DoubleName;
                    }
                    // A life that is heard and has yet to answer may be that of another host, which answers in a moment.
                    let is_over = matches!(peer.life, Life::Silent { .. } | Life::Left | Life::Lost);
                    if is_over && pulse.incarnation < peer.incarnation {
                        self.to_correct = Some((peer.ticket, peer.incarnation));
                        let at = self.last_pulse.map_or(now, |last| (last + self.settings.interval).max(now));
                        self.answer_at = Some(self.answer_at.map_or(at, |known| known.min(at)));
                    }
                    return Outcome::Replayed;
                }
                Ordering::Equal => return Outcome::Repeated,
                Ordering::Greater => {}
            }
            if pulse.incarnation > peer.incarnation {
                self.roster_moved |= matches!(peer.life, Life::Alive | Life::Silent { .. } | Life::Left);
                let next = peer.reborn(&pulse, now);
                let before = std::mem::replace(peer, next);
                peer.keep_other(before);
            }
        }
        self.note_questions(&pulse, now);
        self.last_heard = now;
        self.end_missing_all(now);
        let answered = pulse.answers.contains(&self.incarnations.this);
        // It misses this node, which has not been silent.
        let asks = pulse.asks.contains(&self.ticket);
        let Some(peer) = self.peers.get_mut(&pulse.node) else { return Outcome::TooMany };
        if peer.life == Life::Lost {
            peer.find_again(now);
            self.roster_moved = true;
        }
        let (node, before, was_deaf) = (pulse.node.clone(), peer.life, peer.is_deaf());
        let card_stale = pulse.card.is_none() && pulse.card_version != peer.card_version;
        if answered {
            peer.note_answer(now);
        }
        self.roster_moved |= peer.take(pulse, self.settings, now);
        peer.life = peer.life_after(answered);
        peer.just_left = peer.life == Life::Left;
        // It may leave one of its links alone.
        if peer.life == Life::Left && peer.change_link(self.settings, now) {
            self.roster_moved = true;
        }
        let life = peer.life;
        let shown = self.roster.unproved.get(&node);
        self.roster_moved |=
            life != before || (life == Life::Unverified && shown != Some(&peer.unproved(self.settings)));
        match life {
            Life::Unverified | Life::Lost => {}
            Life::Alive | Life::Silent { .. } | Life::Left => peer.plan_ask(self.settings, now, &mut self.random),
        }
        if life == Life::Alive {
            self.roster_moved |= peer.end_awaiting_by_word();
        }
        // Who was silent may have been so because it did not hear this node's questions, and has long ceased to ask.
        if asks || matches!(before, Life::Silent { .. }) {
            peer.suspect_of_deafness(self.settings, now);
        }
        let found_deaf = peer.is_deaf() && !was_deaf;
        if card_stale {
            peer.next_ask = now;
        }
        self.dues.note(peer, self.settings);
        if found_deaf {
            // Where one does not hear this node, others may not.
            for peer in self.peers.values_mut() {
                peer.suspect_of_deafness(self.settings, now);
                self.dues.note(peer, self.settings);
            }
        }
        if other_keys {
            self.review_keys(now);
        }
        if life == Life::Alive && self.suspects {
            self.end_suspicion(now);
        }
        match life {
            Life::Unverified | Life::Lost => Outcome::Unverified,
            Life::Left => Outcome::Left,
            Life::Alive | Life::Silent { .. } => Outcome::Taken,
        }
    }

    /// Two hosts have the name of this pulse's sender, which is dropped.
    fn note_double(&mut self, pulse: &Pulse, now: Instant) {
        let double = Double { mac: pulse.mac, last_heard: now };
        let known = self.doubles.insert(pulse.node.clone(), double);
        self.roster_moved |= known.is_none_or(|known| known.mac != double.mac);
    }

    /// Others know a later life of this node than this one, and take its pulses for recordings: it begins a life above that one.
    fn handle_correction(&mut self, ticket: NodeTicket, known: u64, now: Instant) {
        let is_own = known < self.incarnations.first.saturating_add(MOST_INCARNATIONS);
        // One that no clock leads to was not said by us.
        if ticket != self.ticket || is_own || known > u64::MAX / 2 {
            return;
        }
        self.begin_life(known + MOST_INCARNATIONS, now);
    }

    /// By another link this process learned that it has to go on in the life that begins with this incarnation. Spare calls are harmless.
    pub fn handle_life(&mut self, first: u64, now: Instant) {
        if first > self.incarnations.first {
            self.begin_life(first, now);
        }
    }

    fn begin_life(&mut self, first: u64, now: Instant) {
        let number = self.incarnations.this - self.incarnations.first;
        self.former.push_front(self.incarnations.first);
        self.former.truncate(MOST_FORMER);
        self.incarnations = Incarnations { first, this: first.saturating_add(number) };
        self.sequence = 0;
        self.cards = URGENT;
        self.hurry(now);
    }

    /// Whether this process has or had this incarnation on one of its links.
    fn is_own(&self, incarnation: u64) -> bool {
        let mut lives = self.former.iter().chain([&self.incarnations.first]);
        lives.any(|first| (*first..first.saturating_add(MOST_INCARNATIONS)).contains(&incarnation))
    }

    /// The first incarnation of the life that this node's pulses are of, on every link.
    pub fn life(&self) -> u64 {
        self.incarnations.first
    }

    /// A pulse of another link of a node that lies on this wire too. It learns that this node lives, whichever of the two was heard
    /// first; and the node lives as long as one of them is heard.
    fn handle_other_link(&mut self, pulse: Pulse, now: Instant) -> Outcome {
        self.note_question_to_us(&pulse, now);
        let answered = pulse.answers.contains(&self.incarnations.this);
        let Some(peer) = self.peers.get_mut(&pulse.node) else { return Outcome::TooMany };
        let known = peer.other_macs();
        if let Err(outcome) = peer.hear_other(pulse, answered, self.settings, now) {
            return outcome;
        }
        self.last_heard = now;
        self.received = None;
        if std::mem::take(&mut self.receives_nothing) {
            self.roster_moved = true;
            (self.urgent, self.next_pulse) = (URGENT, now);
        }
        if answered {
            // By whichever link, it hears this node.
            peer.note_answer(now);
        }
        let changed = peer.life != Life::Alive && peer.change_link(self.settings, now);
        if changed {
            peer.plan_ask(self.settings, now, &mut self.random);
        }
        self.roster_moved |= changed || known != peer.other_macs();
        self.dues.note(peer, self.settings);
        if !changed {
            return Outcome::Repeated;
        }
        self.review_keys(now);
        if self.suspects {
            self.end_suspicion(now);
        }
        Outcome::Taken
    }

    /// This node hears after all: who was not heard again within a detection time, though another is, is silent by itself.
    fn end_suspicion(&mut self, now: Instant) {
        let detection = self.settings.detection();
        self.suspects = false;
        for peer in self.peers.values_mut() {
            let Life::Silent { unheard, suspect: true } = peer.life else { continue };
            if now < peer.last_heard + unheard + detection {
                self.suspects = true;
                continue;
            }
            peer.life = Life::Silent { unheard, suspect: false };
            self.roster_moved = true;
        }
    }

    /// This node leaves. A few pulses that say so follow; after them nothing is sent.
    pub fn handle_leaving(&mut self, now: Instant) {
        if self.parting.is_none() {
            self.parting = Some(Parting::Leaves);
            self.hurry(now);
        }
    }

    /// The agent of this node restarts, and has all again by `back_by` that this node holds now. A few pulses that say so
    /// follow; after them nothing is sent.
    pub fn handle_restarting(&mut self, back_by: Instant, now: Instant) {
        if self.parting.is_none() {
            self.parting = Some(Parting::Restarts);
            self.stance.back_by = Some(back_by);
            self.hurry(now);
        }
    }

    /// The next pulse to send, if one is due, to be sealed with the key that it names.
    pub fn poll_pulse(&mut self, now: Instant) -> Option<Pulse> {
        if let Some(copy) = self.copies.pop() {
            return Some(copy);
        }
        self.expire(now);
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        self.review_keys(now);
        let asks = self.take_asks(now);
        let answers: Vec<u64> = self.to_answer.iter().copied().take(MOST_NUMBERS).collect();
        self.to_answer.retain(|incarnation| !answers.contains(incarnation));
        self.answer_at = (!self.to_answer.is_empty()).then_some(now);
        let corrects = self.to_correct.take();

        let listening = !self.settled;
        let sequence = self.sequence;
        let with_card = !answers.is_empty() || self.cards > 0 || sequence.is_multiple_of(CARD_EVERY);
        self.cards = self.cards.saturating_sub(1);
        self.urgent = self.urgent.saturating_sub(1);
        self.sequence += 1;
        self.last_pulse = Some(now);
        let promise = if self.stance.owner { self.settings.interval } else { self.settings.interval * SLOW };
        // A tenth earlier than promised at most, so that nodes do not fall into step.
        let jitter = up_to(promise / 10, &mut self.random);
        self.next_pulse = now
            + match listening {
                true => self.settings.detection() / 3,
                // Somebody is about to take addresses, and must know all that are held before.
                false if self.teller.pages() > 1 && self.somebody_listens() => {
                    promise.min(self.settings.interval) / HASTE
                }
                // A node that does not hear its API server waits for this to withdraw routes, or to have them again.
                false if self.stance.over_bgp.is_some() && self.over_bgp.is_untold() => {
                    promise.min(self.settings.interval) / HASTE
                }
                false => promise - jitter,
            };
        let mut pulse = Pulse {
            key: KeyId::NONE,
            node: self.me.clone(),
            mac: self.stance.mac,
            incarnation: self.incarnations.this,
            sequence,
            interval: promise,
            multiplier: self.settings.multiplier,
            eligibility: match (self.parting, listening) {
                (Some(Parting::Leaves), _) => Eligibility::Leaving,
                (Some(Parting::Restarts) | None, true) => Eligibility::Listening,
                (Some(Parting::Restarts) | None, false) => self.stance.eligibility,
            },
            owner: self.stance.owner && self.parting != Some(Parting::Leaves),
            hello: listening && sequence < HELLOS,
            hears_api_server: self.stance.hears_api_server,
            waits: true,
            receives_nothing: self.receives_nothing,
            card_version: self.card_version,
            holdings_version: self.teller.version(),
            asks,
            answers,
            card: with_card.then(|| Card::clone(&self.stance.card)),
            accepts: self.sealing.said(),
            change: None,
            page: None,
            occupied: self.stance.occupied.to_vec(),
            egress: None,
            tells_over_bgp: self.stance.over_bgp.is_some(),
            over_bgp: None,
            sessions: self.stance.sessions,
            back_in: self.stance.back_by.map(|by| by.saturating_duration_since(now)).and_then(whole_milliseconds),
            corrects,
        };
        let stretch = |pulse: &Pulse, is_said: bool, teller: &mut SetTeller| {
            let room = (pulse.room() / 2).min(MOST_OF_SET);
            (is_said && room >= LEAST_PAGE).then(|| teller.page(room))
        };
        pulse.egress = stretch(&pulse, self.stance.egress.is_some(), &mut self.egress);
        pulse.over_bgp = stretch(&pulse, self.stance.over_bgp.is_some(), &mut self.over_bgp);
        pulse.change = self.teller.change(pulse.room() / 2);
        let has_page = self.teller.version() > 0 && pulse.room() >= LEAST_PAGE;
        pulse.page = has_page.then(|| self.teller.page(pulse.room()));
        // The oldest key comes first: who has only that one does not wonder about the others.
        if let Some((oldest, newer)) = self.sealing.keys(now).split_last() {
            pulse.key = *oldest;
            self.copies.extend(newer.iter().map(|key| Pulse { key: *key, ..pulse.clone() }));
        }
        Some(pulse)
    }

    fn somebody_listens(&self) -> bool {
        let listens = |peer: &Peer| match peer.life {
            Life::Unverified => true,
            Life::Alive => peer.eligibility == Eligibility::Listening,
            Life::Silent { .. } | Life::Left | Life::Lost => false,
        };
        self.peers.values().any(listens)
    }

    /// The roster, if it changed since the last call.
    pub fn poll_roster(&mut self, now: Instant) -> Option<Roster> {
        self.expire(now);
        if !std::mem::take(&mut self.roster_moved) {
            return None;
        }
        let alive = self.peers.iter().filter(|(_, peer)| peer.life == Life::Alive || peer.is_awaited());
        let members = alive.map(|(name, peer)| (name.clone(), peer.member())).collect();
        let silent = self.peers.iter().filter_map(|(name, peer)| Some((name.clone(), peer.as_silent()?))).collect();
        let numb = self.peers.iter().filter(|(_, peer)| peer.says_it_receives_nothing()).map(|(name, _)| name);
        let receive_nothing = numb.chain(self.receives_nothing.then_some(&self.me)).cloned().collect();
        let left = self.peers.iter().filter(|(_, peer)| peer.life == Life::Left);
        let left = left.map(|(name, peer)| (name.clone(), peer.departed(Duration::ZERO, false))).collect();
        // That a node listens is no news of its keys.
        let key_use = self.sealing.in_use(&self.peers, now).filter(|_| self.settled);
        let is_unproved =
            |peer: &Peer| peer.life == Life::Unverified && !peer.is_awaited() && !peer.says_it_receives_nothing();
        let unproved = self.peers.iter().filter(|(_, peer)| is_unproved(peer));
        let unproved = unproved.map(|(name, peer)| (name.clone(), peer.unproved(self.settings))).collect();
        let doubles = self.doubles.iter().map(|(name, double)| (name.clone(), double.mac)).collect();
        let settled = self.settled;
        let roster = Roster { settled, members, silent, left, unproved, receive_nothing, doubles, key_use };
        if roster == self.roster {
            return None;
        }
        self.roster = roster.clone();
        Some(roster)
    }

    /// When to poll again if nothing happens before. `None` once this node has left.
    pub fn next_deadline(&self) -> Option<Instant> {
        let settles = (!self.settled).then(|| self.settles_at());
        let due = self.next_due()?;
        self.dues.silence.into_iter().chain(settles).chain(self.counts_at()).chain([due]).min()
    }

    /// Whether all pulses that say goodbye were sent.
    pub fn has_left(&self) -> bool {
        self.parting.is_some() && self.urgent == 0
    }

    /// A change must reach every node soon, even if a packet is lost.
    fn hurry(&mut self, now: Instant) {
        self.urgent = URGENT;
        self.next_pulse = now;
    }

    fn next_due(&self) -> Option<Instant> {
        if self.parting.is_some() {
            let again = |last| last + self.settings.interval / URGENT_PART;
            return (self.urgent > 0).then(|| self.last_pulse.map_or(self.next_pulse, again).min(self.next_pulse));
        }
        let again = (self.urgent > 0).then(|| self.last_pulse.map(|last| last + self.settings.interval / URGENT_PART));
        let due =
            self.dues.ask.into_iter().chain(self.answer_at).chain(again.flatten()).chain([self.next_pulse]).min()?;
        // Answers and questions that fall due together go into one pulse.
        let gap = self.last_pulse.map(|last| last + self.settings.interval / GAP_PART);
        Some(gap.map_or(due, |gap| due.max(gap)))
    }

    /// Declares nodes silent that were not heard in time, and ends the listening.
    fn expire(&mut self, now: Instant) {
        let settings = self.settings;
        debug_assert!(self.dues.are_early_enough(&Dues::of(self.peers.values(), settings)), "a peer would be missed");
        if self.dues.first().is_some_and(|due| due <= now) {
            let late = settings.interval / LATE_PART;
            // Nodes that fall silent at once are due one after the other, as their last pulses came: the second counts the first.
            let recent = |peer: &&Peer| match peer.life {
                Life::Alive => true,
                Life::Silent { .. } => now < peer.last_heard + settings.detection() * 2,
                Life::Unverified => now < peer.last_heard + settings.detection() * 2,
                Life::Left | Life::Lost => false,
            };
            let others = self.peers.values().filter(recent).count() > 1;
            let suspect = others && now >= self.last_heard + settings.detection() / 2;
            for peer in self.peers.values_mut() {
                self.roster_moved |= peer.end_awaiting_late(now);
                self.roster_moved |= peer.end_new(settings, now);
                self.roster_moved |= peer.end_last_words(now);
            }
            for peer in self.peers.values_mut().filter(|peer| peer.may_fall_silent()) {
                let due = peer.silent_at(settings);
                if due > now || now > due + late && peer.give_grace(settings, now) {
                    continue;
                }
                self.roster_moved = true;
                if peer.change_link(settings, now) {
                    peer.plan_ask(settings, now, &mut self.random);
                    continue;
                }
                let unheard = now.saturating_duration_since(peer.last_heard);
                peer.receives_nothing = false;
                match peer.life {
                    Life::Unverified => peer.lose(suspect, settings, now),
                    _ => peer.life = Life::Silent { unheard, suspect },
                }
                self.suspects |= suspect;
            }
            // While nobody is heard, those that fell silent together are the sign that it is this node that does not hear.
            let last_heard = self.last_heard;
            self.peers.retain(|_, peer| match peer.life {
                Life::Alive => true,
                Life::Silent { suspect: true, .. } => last_heard < peer.last_heard + FORGET_AFTER,
                Life::Unverified | Life::Silent { .. } | Life::Left | Life::Lost => {
                    now < peer.last_heard + FORGET_AFTER
                }
            });
            self.dues = Dues::of(self.peers.values(), settings);
        }
        if self.receives_nothing && self.counts_at().is_none() {
            // It misses nobody any more.
            self.end_missing_all(now);
        }
        let doubles = self.doubles.len();
        self.doubles.retain(|_, double| now < double.last_heard + DOUBLE_FOR);
        self.roster_moved |= self.doubles.len() != doubles;
        if !self.settled && self.settles_at() <= now {
            self.settled = true;
            self.roster_moved = true;
            self.hurry(now);
        }
    }

    fn settles_at(&self) -> Instant {
        let listened = self.began + self.settings.detection();
        let unsure = |peer: &Peer| match peer.life {
            Life::Unverified => peer.last_heard + self.settings.detection() > listened,
            Life::Alive => !peer.knows_all(),
            Life::Silent { .. } | Life::Left | Life::Lost => false,
        };
        if self.peers.values().any(unsure) { self.began + self.settings.detection() * PATIENCE } else { listened }
    }

    /// Notes what a pulse asks of this node, and which questions its sender has already asked for us.
    fn note_questions(&mut self, pulse: &Pulse, now: Instant) {
        self.note_question_to_us(pulse, now);
        if pulse.asks.is_empty() {
            return;
        }
        for peer in self.peers.values_mut().filter(|peer| peer.life == Life::Alive && pulse.asks.contains(&peer.ticket))
        {
            let spacing = peer.window(self.settings) / ASK_PART;
            peer.next_ask = peer.next_ask.max(now + around(spacing, &mut self.random));
        }
    }

    fn note_question_to_us(&mut self, pulse: &Pulse, now: Instant) {
        let at = if pulse.asks.contains(&self.ticket) {
            Some(now)
        } else if pulse.hello {
            // Every node answers this, so spread the answers.
            Some(now + up_to(self.settings.interval / 2, &mut self.random))
        } else {
            None
        };
        if let Some(at) = at {
            if self.to_answer.len() < MOST_PEERS {
                self.to_answer.insert(pulse.incarnation);
            }
            self.answer_at = Some(self.answer_at.map_or(at, |known| known.min(at)));
        }
    }

    fn take_asks(&mut self, now: Instant) -> Vec<NodeTicket> {
        let mut asks = Vec::new();
        let settings = self.settings;
        for peer in self.peers.values_mut() {
            if asks.len() == MOST_NUMBERS {
                break;
            }
            if peer.take_ask(settings, now, &mut self.random) {
                asks.push(peer.ticket);
            }
        }
        // Does this node hear at all? Others would answer too.
        if !asks.is_empty() && now >= self.last_heard + settings.interval {
            let alive = self.peers.values().filter(|peer| peer.life == Life::Alive && !asks.contains(&peer.ticket));
            asks.extend(alive.map(|peer| peer.ticket).take(WITNESSES).collect::<Vec<_>>());
        }
        asks
    }

    /// Makes room for a name: forgets the node that is not alive and was not heard for the longest time. If that node comes
    /// again, it has to answer first anyway, so nothing is lost.
    fn forget_one(&mut self) {
        let dead = self.peers.iter().filter(|(_, peer)| peer.life != Life::Alive && !peer.is_awaited());
        let Some(name) = dead.min_by_key(|(_, peer)| peer.last_heard).map(|(name, _)| name.clone()) else { return };
        self.peers.remove(&name);
        self.roster_moved = true;
    }
}

/// As pulses say a time; none for less than one.
fn whole_milliseconds(time: Duration) -> Option<Duration> {
    let time = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    (!time.is_zero()).then_some(time)
}

/// How many pulses follow quickly after a change: two of three may be lost.
const URGENT: u8 = 3;

/// Urgent pulses follow each other after this part of the interval.
const URGENT_PART: u32 = 10;

/// Two pulses are never closer than this part of the interval, except the first that says goodbye.
const GAP_PART: u32 = 20;

/// A node that looks later than this part of the interval after another's time ran out was frozen or starved.
const LATE_PART: u32 = 2;

/// How many nodes are asked for a sign beside the one that is missed, when no node was heard for an interval.
const WITNESSES: usize = 2;

/// How much faster an owner tells its pages while a node listens.
const HASTE: u32 = 4;

/// A page with less room in octets than this might hold no address, and say so that there is none.
const LEAST_PAGE: usize = 64;

/// How many octets of a pulse [`Stance::egress`] takes at most, and [`Stance::over_bgp`].
const MOST_OF_SET: usize = 400;

/// One in so many pulses carries the card even if no node asked.
const CARD_EVERY: u64 = 10;

/// How many pulses of a new agent ask every node for an answer.
const HELLOS: u64 = 2;

/// How many nodes are remembered on one link: more than could share one.
const MOST_PEERS: usize = 1024;

/// For so long after its goodbye a node's station may still speak of addresses without a meaning. A node that stops answers for a
/// fraction of a second more; the rest is for frames and agents that are late.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a name counts as that of two hosts after the last pulse that said so.
const DOUBLE_FOR: Duration = Duration::from_secs(60);

/// How long a node that is not alive is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
