//! The pulse of one link as a machine: what to send when, and who else is alive. Floor 1.
//!
//! How to drive it: tell it what the plan says ([`Machine::handle_stance`], [`Machine::handle_expected`]) and what was
//! heard ([`Machine::handle_pulse`]); after each of these, and at [`Machine::next_deadline`], send what
//! [`Machine::poll_pulse`] gives until it gives nothing, and pass on what [`Machine::poll_roster`] has. Spare calls are
//! harmless. Time must not go backwards.
//!
//! The bounds, where I is the interval, D the interval times the multiplier, and pulses arrive at once:
//! - An owner pulses every I at most, another node every [`SLOW`] times I. A node is silent when nothing was heard for as
//!   long as it promised itself, so an owner that dies is silent for everybody within D.
//! - A node that the plan expects to own is held to D as well, whatever it promised: so if the next in rank has died
//!   unnoticed, the one after it comes at most D later.
//! - In the last third of its time a node is asked repeatedly whether it is alive, and answers at once: a few lost packets
//!   make no node silent. The nodes that ask hear each other, so that not all of them ask.
//! - A node that starts owns nothing before it has listened for D, at most [`PATIENCE`] times D.
//! - When two owners hear each other again, the lower in rank yields at the first pulse of the higher, which comes within
//!   I. If the higher has restarted meanwhile, the lower yields at its answer to a question that is repeated every
//!   [`PROOF_PART`] of I.
//!
//! A replayed pulse is not believed. Within one incarnation, sequence numbers grow. A node that shows up with a new
//! incarnation is alive only once it has answered the incarnation of this node, which no old recording can hold; a node
//! that goes back to an earlier incarnation is a replay. A host that delays packets on the link by less than D is not
//! detected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::peer::{ASK_PART, Dues, Life, NO_CLAIMS, Peer, around, up_to};
use super::outcome::Outcome;
use super::packet::{ClaimsPage, MOST_NUMBERS, Pulse, Ticket};
use super::settings::Settings;
use crate::address::MacAddress;
use crate::names::NodeName;
use crate::roster::{Eligibility, Roster};
use crate::selector::Labels;

mod peer;

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
    pub labels: Arc<Labels>,
    /// Addresses that this node answers for and would keep.
    pub claims: Arc<BTreeSet<IpAddr>>,
    /// Addresses that this node found in use by foreign hosts, the newest findings first.
    pub occupied: Arc<Vec<IpAddr>>,
    /// There is no IPv6 on the link.
    pub needs_ipv4: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    me: NodeName,
    ticket: Ticket,
    settings: Settings,
    incarnation: u64,
    sequence: u64,
    random: fastrand::Rng,
    began: Instant,
    settled: bool,
    stance: Stance,
    card_version: u32,
    claims_version: u32,
    /// The last version that was not [`NO_CLAIMS`].
    claims_made: u32,
    pages: Vec<ClaimsPage>,
    next_page: usize,
    peers: BTreeMap<NodeName, Peer>,
    /// When the first peer has to be looked at: see [`Dues`].
    dues: Dues,
    expected: BTreeSet<NodeName>,
    /// The incarnations of the nodes that wait for an answer.
    to_answer: BTreeSet<u64>,
    answer_at: Option<Instant>,
    next_pulse: Instant,
    last_pulse: Option<Instant>,
    /// How many pulses are still to follow quickly, because something changed that must not get lost.
    urgent: u8,
    /// How many pulses still carry the labels, because they changed.
    cards: u8,
    leaving: bool,
    roster: Roster,
    roster_moved: bool,
}

impl Machine {
    /// A machine that begins to listen now. `incarnation` must be greater than any that this node used before, on any
    /// link: it is what keeps recordings of an earlier life from being believed, here and elsewhere.
    pub fn new(me: NodeName, settings: Settings, incarnation: u64, stance: Stance, now: Instant) -> Machine {
        let pages = pages(&stance.claims);
        Machine {
            ticket: Ticket::of(&me),
            me,
            settings,
            incarnation,
            sequence: 0,
            // Not a secret: it only keeps nodes from sending in step.
            random: fastrand::Rng::with_seed(incarnation),
            began: now,
            settled: false,
            card_version: 1,
            claims_version: u32::from(!stance.claims.is_empty()),
            claims_made: 1,
            pages,
            stance,
            next_page: 0,
            peers: BTreeMap::new(),
            dues: Dues::default(),
            expected: BTreeSet::new(),
            to_answer: BTreeSet::new(),
            answer_at: None,
            next_pulse: now,
            last_pulse: None,
            urgent: 0,
            cards: 1,
            leaving: false,
            roster: Roster::default(),
            roster_moved: false,
        }
    }

    /// Whether a node on the link hears only IPv4.
    pub fn somebody_needs_ipv4(&self) -> bool {
        self.peers.values().any(|peer| peer.needs_ipv4 && matches!(peer.life, Life::Unverified | Life::Alive))
    }

    /// What the plan wants said from now on. A change is sent at once.
    pub fn handle_stance(&mut self, stance: Stance, now: Instant) {
        // A node that leaves says nothing new, or it would never finish leaving.
        if stance == self.stance || self.leaving {
            return;
        }
        let before = std::mem::replace(&mut self.stance, stance);
        if before.labels != self.stance.labels {
            self.card_version = self.card_version.wrapping_add(1);
            self.cards = URGENT;
        }
        if before.claims != self.stance.claims {
            self.claims_made = self.claims_made.wrapping_add(1).max(1);
            self.claims_version = if self.stance.claims.is_empty() { NO_CLAIMS } else { self.claims_made };
            self.pages = pages(&self.stance.claims);
            self.next_page = 0;
        }
        self.hurry(now);
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

    /// Takes in a pulse that was authenticated.
    pub fn handle_pulse(&mut self, pulse: Pulse, now: Instant) -> Outcome {
        if pulse.node == self.me {
            return if pulse.incarnation == self.incarnation { Outcome::Own } else { Outcome::Namesake };
        }
        if !self.peers.contains_key(&pulse.node) {
            if self.peers.len() >= MOST_PEERS {
                self.forget_one();
            }
            if self.peers.len() >= MOST_PEERS {
                return Outcome::TooMany;
            }
            let expected = self.expected.contains(&pulse.node).then_some(now);
            self.peers.insert(pulse.node.clone(), Peer::new(&pulse, expected, now));
        } else if let Some(peer) = self.peers.get_mut(&pulse.node) {
            if (pulse.incarnation, pulse.sequence) <= (peer.incarnation, peer.sequence) {
                return Outcome::Replayed;
            }
            if pulse.incarnation > peer.incarnation {
                // It has restarted: it owns nothing of what it owned before.
                self.roster_moved |= matches!(peer.life, Life::Alive | Life::Silent(_) | Life::Left);
                *peer = Peer::new(&pulse, peer.expected, now);
            }
        }
        self.note_questions(&pulse, now);
        let answered = pulse.answers.contains(&self.incarnation);
        let Some(peer) = self.peers.get_mut(&pulse.node) else { return Outcome::TooMany };
        let card_stale = pulse.labels.is_none() && pulse.card_version != peer.card_version;
        self.roster_moved |= peer.take(pulse, now);
        let life = match peer.life {
            _ if peer.eligibility == Eligibility::Leaving => Life::Left,
            Life::Unverified if answered && peer.labels.is_some() => Life::Alive,
            Life::Unverified => Life::Unverified,
            Life::Alive | Life::Silent(_) | Life::Left => Life::Alive,
        };
        self.roster_moved |= life != peer.life;
        peer.life = life;
        match life {
            Life::Unverified => {}
            Life::Alive | Life::Silent(_) | Life::Left => peer.plan_ask(self.settings, now, &mut self.random),
        }
        if card_stale {
            peer.next_ask = now;
        }
        self.dues.note(peer, self.settings);
        match life {
            Life::Unverified => Outcome::Unverified,
            Life::Left => Outcome::Left,
            Life::Alive | Life::Silent(_) => Outcome::Taken,
        }
    }

    /// This node leaves. A few pulses that say so follow; after them nothing is sent.
    pub fn handle_leaving(&mut self, now: Instant) {
        if !self.leaving {
            self.leaving = true;
            self.hurry(now);
        }
    }

    /// The next pulse to send, if one is due.
    pub fn poll_pulse(&mut self, now: Instant) -> Option<Pulse> {
        self.expire(now);
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let asks = self.take_asks(now);
        let answers: Vec<u64> = self.to_answer.iter().copied().take(MOST_NUMBERS).collect();
        self.to_answer.retain(|incarnation| !answers.contains(incarnation));
        self.answer_at = (!self.to_answer.is_empty()).then_some(now);

        let listening = !self.settled;
        let sequence = self.sequence;
        let with_labels = !answers.is_empty() || self.cards > 0 || sequence.is_multiple_of(CARD_EVERY);
        // A page may not fit beside labels; it then comes in the next round.
        let claims = self.pages.get(self.next_page).filter(|_| self.claims_version != NO_CLAIMS).cloned();
        if claims.is_some() {
            self.next_page = (self.next_page + 1) % self.pages.len();
        }
        self.cards = self.cards.saturating_sub(1);
        self.urgent = self.urgent.saturating_sub(1);
        self.sequence += 1;
        self.last_pulse = Some(now);
        let promise = if self.stance.owner { self.settings.interval } else { self.settings.interval * SLOW };
        // A tenth earlier than promised at most, so that nodes do not fall into step.
        let jitter = up_to(promise / 10, &mut self.random);
        self.next_pulse = now + if listening { self.settings.detection() / 3 } else { promise - jitter };
        Some(Pulse {
            node: self.me.clone(),
            mac: self.stance.mac,
            incarnation: self.incarnation,
            sequence,
            interval: promise,
            multiplier: self.settings.multiplier,
            eligibility: match (self.leaving, listening) {
                (true, _) => Eligibility::Leaving,
                (false, true) => Eligibility::Listening,
                (false, false) => self.stance.eligibility,
            },
            owner: self.stance.owner && !self.leaving,
            hello: listening && sequence < HELLOS,
            needs_ipv4: self.stance.needs_ipv4,
            card_version: self.card_version,
            claims_version: self.claims_version,
            asks,
            answers,
            labels: with_labels.then(|| Labels::clone(&self.stance.labels)),
            claims,
            occupied: self.stance.occupied.to_vec(),
        })
    }

    /// The roster, if it changed since the last call.
    pub fn poll_roster(&mut self, now: Instant) -> Option<Roster> {
        self.expire(now);
        if !std::mem::take(&mut self.roster_moved) {
            return None;
        }
        let alive = self.peers.iter().filter(|(_, peer)| peer.life == Life::Alive);
        let members = alive.map(|(name, peer)| (name.clone(), peer.member())).collect();
        let silent = self.peers.iter().filter_map(|(name, peer)| match peer.life {
            Life::Silent(after) => Some((name.clone(), after)),
            Life::Unverified | Life::Alive | Life::Left => None,
        });
        let silent = silent.collect();
        let left = self.peers.iter().filter(|(_, peer)| peer.life == Life::Left);
        let left = left.map(|(name, _)| name.clone()).collect();
        let roster = Roster { settled: self.settled, members, silent, left };
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
        self.dues.silence.into_iter().chain(settles).chain([due]).min()
    }

    /// Whether all pulses that say goodbye were sent.
    pub fn has_left(&self) -> bool {
        self.leaving && self.urgent == 0
    }

    /// A change must reach every node soon, even if a packet is lost.
    fn hurry(&mut self, now: Instant) {
        self.urgent = URGENT;
        self.next_pulse = now;
    }

    fn next_due(&self) -> Option<Instant> {
        if self.leaving {
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
            for peer in self.peers.values_mut().filter(|peer| peer.life == Life::Alive) {
                if peer.silent_at(settings) <= now {
                    peer.life = Life::Silent(now.saturating_duration_since(peer.last_heard));
                    self.roster_moved = true;
                }
            }
            self.peers.retain(|_, peer| peer.life == Life::Alive || now < peer.last_heard + FORGET_AFTER);
            self.dues = Dues::of(self.peers.values(), settings);
        }
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
            Life::Alive => !peer.claims_complete,
            Life::Silent(_) | Life::Left => false,
        };
        if self.peers.values().any(unsure) { self.began + self.settings.detection() * PATIENCE } else { listened }
    }

    /// Notes what a pulse asks of this node, and which questions its sender has already asked for us.
    fn note_questions(&mut self, pulse: &Pulse, now: Instant) {
        let at = if pulse.asks.contains(&self.ticket) {
            Some(now)
        } else if pulse.hello {
            // Every node answers this, so spread the answers.
            Some(now + up_to(self.settings.interval / 2, &mut self.random))
        } else {
            None
        };
        if let Some(at) = at {
            self.to_answer.insert(pulse.incarnation);
            self.answer_at = Some(self.answer_at.map_or(at, |known| known.min(at)));
        }
        if pulse.asks.is_empty() {
            return;
        }
        for peer in self.peers.values_mut().filter(|peer| peer.life == Life::Alive && pulse.asks.contains(&peer.ticket))
        {
            let spacing = peer.window(self.settings) / ASK_PART;
            peer.next_ask = peer.next_ask.max(now + around(spacing, &mut self.random));
        }
    }

    fn take_asks(&mut self, now: Instant) -> Vec<Ticket> {
        let mut asks = Vec::new();
        let settings = self.settings;
        for peer in self.peers.values_mut().filter(|peer| peer.is_asked(settings) && peer.next_ask <= now) {
            if asks.len() == MOST_NUMBERS {
                break;
            }
            asks.push(peer.ticket);
            let spacing = match peer.life {
                Life::Unverified => settings.interval / PROOF_PART,
                Life::Alive | Life::Silent(_) | Life::Left => peer.window(settings) / ASK_PART,
            };
            peer.next_ask = now + around(spacing, &mut self.random);
            peer.asked += 1;
        }
        asks
    }

    /// Makes room for a name: forgets the node that is not alive and was not heard for the longest time. If that node comes
    /// again, it has to answer first anyway, so nothing is lost.
    fn forget_one(&mut self) {
        let dead = self.peers.iter().filter(|(_, peer)| peer.life != Life::Alive);
        let Some(name) = dead.min_by_key(|(_, peer)| peer.last_heard).map(|(name, _)| name.clone()) else { return };
        self.peers.remove(&name);
        self.roster_moved = true;
    }
}

fn pages(claims: &BTreeSet<IpAddr>) -> Vec<ClaimsPage> {
    ClaimsPage::pages(claims.iter().copied())
}

/// How many pulses follow quickly after a change: two of three may be lost.
const URGENT: u8 = 3;

/// Urgent pulses follow each other after this part of the interval.
const URGENT_PART: u32 = 10;

/// Two pulses are never closer than this part of the interval, except the first that says goodbye.
const GAP_PART: u32 = 20;

/// Questions to a node that has yet to prove that it is not a replay follow each other after about this part of the interval.
const PROOF_PART: u32 = 4;

/// One in so many pulses carries the labels even if no node asked.
const CARD_EVERY: u64 = 10;

/// How many pulses of a new agent ask every node for an answer.
const HELLOS: u64 = 2;

/// How many nodes are remembered on one link: more than could share one.
const MOST_PEERS: usize = 1024;

/// How long a node that is not alive is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
