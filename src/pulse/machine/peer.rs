//! Another node on the link: what was heard of it, and when to look at it next. Floor 1, a part of the machine.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{LAST_WORDS, MOST_INCARNATIONS, PATIENCE};
use crate::address::MacAddress;
use crate::pulse::holdings::Listener;
use crate::pulse::outcome::Outcome;
use crate::pulse::packet::Pulse;
use crate::pulse::settings::Settings;
use crate::roster::{
    Card, Departed, Eligibility, Holdings, KeyId, LONGEST_RESTART, Member, NodeTicket, Sessions, Unproved,
};

/// When the first peer has to be looked at. Whatever brings a peer's time forward is noted here; what puts it off is not. So
/// these times may be too early and are never too late. They are exact after each look at all peers, which is therefore
/// taken a few times in an interval, not for every pulse of every node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dues {
    /// Until one counts as silent, is awaited no longer, has not answered for too long to be waited for, or has had its last words.
    pub(super) silence: Option<Instant>,
    /// Until one is asked whether it is alive.
    pub(super) ask: Option<Instant>,
}

impl Dues {
    pub(super) fn note(&mut self, peer: &Peer, settings: Settings) {
        let silence = peer.may_fall_silent().then(|| peer.silent_at(settings));
        let silence = silence.into_iter().chain(peer.awaited_until()).chain(peer.new_until(settings));
        let silence = silence.chain(peer.last_words_until()).min();
        let ask = peer.asks_at(settings).into_iter().chain(peer.unproved_others_ask_at(settings)).min();
        self.silence = self.silence.into_iter().chain(silence).min();
        self.ask = self.ask.into_iter().chain(ask).min();
    }

    pub(super) fn of<'a>(peers: impl IntoIterator<Item = &'a Peer>, settings: Settings) -> Dues {
        let mut dues = Dues::default();
        peers.into_iter().for_each(|peer| dues.note(peer, settings));
        dues
    }

    /// Never later than the exact ones.
    pub(super) fn are_early_enough(&self, exact: &Dues) -> bool {
        let early = |known: Option<Instant>, exact: Option<Instant>| {
            exact.is_none_or(|exact| known.is_some_and(|known| known <= exact))
        };
        early(self.silence, exact.silence) && early(self.ask, exact.ask)
    }

    pub(super) fn first(self) -> Option<Instant> {
        self.silence.into_iter().chain(self.ask).min()
    }
}

/// Another node: what was heard of it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) ticket: NodeTicket,
    mac: MacAddress,
    pub(super) life: Life,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) last_heard: Instant,
    /// When the first pulse of this life was heard.
    met: Instant,
    /// That was a moment ago.
    new: bool,
    /// It said goodbye, and that was a moment ago.
    pub(super) just_left: bool,
    /// Since when the plan says that it owns addresses.
    pub(super) expected: Option<Instant>,
    pub(super) next_ask: Instant,
    /// How often it was asked since it was last heard.
    asked: u32,
    /// The pace that it promised.
    promise: Settings,
    pub(super) eligibility: Eligibility,
    owner: bool,
    hears_api_server: bool,
    pub(super) card_version: u32,
    /// As of the newest version that was heard.
    pub(super) card: Option<Arc<Card>>,
    holdings: Listener,
    /// The key that its newest pulse was sealed with.
    key: KeyId,
    /// The keys that it accepts beside.
    accepted: Vec<KeyId>,
    occupied: Arc<BTreeSet<IpAddr>>,
    egress: Option<Arc<BTreeSet<IpAddr>>>,
    over_bgp: Option<Arc<BTreeSet<IpAddr>>>,
    sessions: Option<Sessions>,
    /// What it was before it started anew, until it has proved that it lives.
    former: Option<Departed>,
    /// This node was late to look: until when the peer is given time to be heard after all.
    grace_until: Option<Instant>,
    waits: bool,
    /// It says that its link receives nothing. While it is heard.
    pub(super) receives_nothing: bool,
    /// It is to be known whether it hears this node.
    doubt: Option<Doubt>,
    /// It has not answered for too long since then.
    deaf: bool,
    /// When it answered this node last.
    answered: Option<Instant>,
    /// Its agent restarts, and by its newest pulse it is back by then.
    back_by: Option<Instant>,
    /// What it said before its restart, until it has that again.
    awaited: Option<Awaited>,
    /// Other links of this life of its agent that lie on this wire too, each as if it were a node by itself.
    others: Vec<Peer>,
    /// Of the links of this life that are not kept any more, the highest incarnation.
    dropped: u64,
    /// The life before this one, as far as it was heard.
    earlier: Option<Earlier>,
}

/// An earlier life of the name. Where it goes on, another host has that name too.
#[derive(Debug, Clone, Copy)]
struct Earlier {
    incarnation: u64,
    /// The newest of it.
    sequence: u64,
    /// When a newer one was heard first, after this life had begun.
    goes_on_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    next_ask: Instant,
    why: Why,
}

/// Why a node is asked whether it hears this one.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// The plan has to know it, for as long as it wants to. `answered`: when the node answered last.
    Plan { answered: Option<Instant> },
    /// Something looks as if it did not, until it answers. `unanswered`: the questions in a row, while it was heard.
    Signs { unanswered: u32 },
}

/// A node as it was when its agent restarted. It counts as holding what it held.
#[derive(Debug, Clone)]
struct Awaited {
    until: Instant,
    heard: Instant,
    before: Member,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Heard, but it has not answered this node.
    Unverified,
    Alive,
    /// It was declared silent. `unheard`: for how long nothing had been heard of it. `suspect`: as in [`Departed`].
    Silent {
        unheard: Duration,
        suspect: bool,
    },
    Left,
    /// It has not answered this node, and is heard no more. What is known of it is in [`Peer::former`].
    Lost,
}

impl Peer {
    pub(super) fn new(pulse: &Pulse, expected: Option<Instant>, now: Instant) -> Peer {
        Peer {
            ticket: NodeTicket::of(&pulse.node),
            mac: pulse.mac,
            life: Life::Unverified,
            incarnation: pulse.incarnation,
            sequence: pulse.sequence,
            last_heard: now,
            met: now,
            new: true,
            just_left: false,
            expected,
            next_ask: now,
            asked: 0,
            promise: Settings { interval: pulse.interval, multiplier: pulse.multiplier },
            eligibility: pulse.eligibility,
            owner: pulse.owner,
            hears_api_server: pulse.hears_api_server,
            card_version: pulse.card_version,
            card: None,
            holdings: Listener::default(),
            key: pulse.key,
            accepted: pulse.accepts.clone(),
            occupied: Arc::default(),
            egress: None,
            over_bgp: None,
            sessions: pulse.sessions,
            former: None,
            grace_until: None,
            waits: pulse.waits,
            receives_nothing: pulse.receives_nothing,
            doubt: None,
            deaf: false,
            answered: None,
            back_by: None,
            awaited: None,
            others: Vec::new(),
            dropped: 0,
            earlier: None,
        }
    }

    /// Whether a pulse is of another link of the same life: one that began earlier or is known, or one that begins while this one is heard.
    /// The only link of a node that begins anew (its carrier was away for a moment) is the same one: what it held there before, it does not hold.
    pub(super) fn is_of_other_link(&self, pulse: &Pulse, settings: Settings, now: Instant) -> bool {
        let is_known = || self.others.iter().any(|other| other.incarnation == pulse.incarnation);
        let is_heard = |peer: &Peer| peer.life == Life::Alive && peer.silent_at(settings) > now;
        let has_another = || pulse.mac != self.mac || self.others.iter().any(|it| it.mac != self.mac && is_heard(it));
        let begins_beside = || is_heard(self) && has_another();
        self.is_of_this_life(pulse.incarnation)
            && (pulse.incarnation < self.incarnation || is_known() || begins_beside())
    }

    fn is_of_this_life(&self, incarnation: u64) -> bool {
        incarnation != self.incarnation && incarnation.abs_diff(self.incarnation) < MOST_INCARNATIONS
    }

    /// Whether a pulse of an earlier life is of another host that lives as well: for a detection time pulses came that were not heard
    /// before, from another MAC. No recording of what this node heard has such. Nothing is believed of it.
    pub(super) fn is_superseded_and_goes_on(&mut self, pulse: &Pulse, settings: Settings, now: Instant) -> bool {
        let &Pulse { incarnation, sequence, mac, .. } = pulse;
        if incarnation >= self.incarnation || self.is_of_this_life(incarnation) || mac == self.mac {
            return false;
        }
        let earlier = match &mut self.earlier {
            Some(earlier) if earlier.incarnation == incarnation && earlier.sequence < sequence => earlier,
            Some(earlier) if earlier.incarnation >= incarnation => return false,
            Some(_) | None => self.earlier.insert(Earlier { incarnation, sequence, goes_on_since: None }),
        };
        earlier.sequence = sequence;
        now >= *earlier.goes_on_since.get_or_insert(now) + settings.detection()
    }

    /// The link that was heard before it began anew: its agent may be in the same life, and heard there as well.
    pub(super) fn keep_other(&mut self, mut before: Peer) {
        if !self.is_of_this_life(before.incarnation) {
            return;
        }
        self.others = std::mem::take(&mut before.others);
        self.dropped = before.dropped;
        self.others.push(before);
        self.drop_oldest();
    }

    /// Of more links than are remembered the one that was not heard for longest goes.
    fn drop_oldest(&mut self) {
        if self.others.len() <= MOST_OTHERS {
            return;
        }
        let oldest = self.others.iter().enumerate().min_by_key(|(_, other)| other.last_heard);
        if let Some(place) = oldest.map(|(place, _)| place) {
            self.dropped = self.dropped.max(self.others.swap_remove(place).incarnation);
        }
    }

    /// Takes in a pulse of another link of the same life. It is believed no more than that of a node: it has to be newer than what was
    /// heard of that link, and to have answered once.
    pub(super) fn hear_other(
        &mut self,
        pulse: Pulse,
        answered: bool,
        settings: Settings,
        now: Instant,
    ) -> Result<(), Outcome> {
        let place = |others: &[Peer]| others.iter().position(|other| other.incarnation == pulse.incarnation);
        // One that begins now is no recording.
        let is_full = self.others.len() >= MOST_OTHERS && pulse.incarnation < self.incarnation;
        let known = place(&self.others);
        let other = match known.and_then(|place| self.others.get_mut(place)) {
            Some(other) => match pulse.sequence.cmp(&other.sequence) {
                Ordering::Less => return Err(Outcome::Replayed),
                Ordering::Equal => return Err(Outcome::Repeated),
                Ordering::Greater => other,
            },
            None if is_full || pulse.incarnation <= self.dropped => return Err(Outcome::Replayed),
            None => {
                self.others.push(Peer::new(&pulse, None, now));
                self.drop_oldest();
                let begun = place(&self.others).and_then(|place| self.others.get_mut(place));
                begun.ok_or(Outcome::TooMany)?
            }
        };
        if other.life == Life::Lost {
            other.find_again(now);
        }
        if answered {
            other.note_answer(now);
        }
        other.take(pulse, settings, now);
        other.life = other.life_after(answered);
        Ok(())
    }

    /// This link is heard no more: another one of the same life takes its place, if one is. True if so.
    pub(super) fn change_link(&mut self, settings: Settings, now: Instant) -> bool {
        for other in &mut self.others {
            other.expected = self.expected;
        }
        let heard = self.others.iter().enumerate();
        let heard = heard.filter(|(_, it)| it.life == Life::Alive && it.silent_at(settings) > now);
        let Some((place, _)) = heard.max_by_key(|(_, it)| it.last_heard) else { return false };
        let mut next = self.others.swap_remove(place);
        next.others = std::mem::take(&mut self.others);
        next.dropped = self.dropped;
        next.earlier = self.earlier;
        next.awaited = self.awaited.take();
        next.set_doubted(matches!(self.doubt, Some(Doubt { why: Why::Plan { .. }, .. })), now);
        let before = std::mem::replace(self, next);
        self.others.push(before);
        true
    }

    /// Of its other links on this wire.
    pub(super) fn other_macs(&self) -> BTreeSet<MacAddress> {
        self.others.iter().map(|other| other.mac).filter(|mac| *mac != self.mac).collect()
    }

    /// When another link is asked for the answer that it has yet to give.
    fn unproved_others_ask_at(&self, settings: Settings) -> Option<Instant> {
        let unproved = self.others.iter().filter(|other| other.life == Life::Unverified);
        unproved.filter_map(|other| other.asks_at(settings)).min()
    }

    /// Asks it, and those of its other links that have yet to answer, where that is due. True if so.
    pub(super) fn take_ask(&mut self, settings: Settings, now: Instant, random: &mut fastrand::Rng) -> bool {
        let mut asks = false;
        for other in self.others.iter_mut().filter(|other| other.life == Life::Unverified) {
            asks |= other.take_ask(settings, now, random);
        }
        if self.asks_at(settings).is_none_or(|at| at > now) {
            return asks;
        }
        self.put_off_doubt(settings, now, random);
        if self.next_ask <= now {
            let spacing = match self.life {
                Life::Unverified => settings.interval / PROOF_PART,
                Life::Alive | Life::Silent { .. } | Life::Left | Life::Lost => self.window(settings) / ASK_PART,
            };
            self.next_ask = now + around(spacing, random);
            self.asked += 1;
        }
        true
    }

    /// What it is after a pulse that was taken in.
    pub(super) fn life_after(&self, answered: bool) -> Life {
        match self.life {
            _ if self.eligibility == Eligibility::Leaving => Life::Left,
            Life::Unverified if answered && self.card.is_some() => Life::Alive,
            Life::Unverified | Life::Lost => Life::Unverified,
            // Whoever asks for what it holds gets no answer: it is as good as dead here.
            Life::Alive | Life::Silent { .. } | Life::Left if self.receives_nothing => {
                Life::Silent { unheard: Duration::ZERO, suspect: false }
            }
            Life::Alive | Life::Silent { .. } | Life::Left => Life::Alive,
        }
    }

    /// It is heard, and says that its link receives nothing.
    pub(super) fn says_it_receives_nothing(&self) -> bool {
        self.receives_nothing && matches!(self.life, Life::Silent { .. } | Life::Unverified)
    }

    /// The same node in a new life. It holds nothing of what it held before, unless it said that it would be back by now.
    pub(super) fn reborn(&self, pulse: &Pulse, now: Instant) -> Peer {
        let awaited = match self.life {
            Life::Alive => self.as_awaited().filter(|it| it.until > now),
            Life::Unverified => self.awaited.clone(),
            Life::Silent { .. } | Life::Left | Life::Lost => None,
        };
        let former = match self.life {
            _ if awaited.is_some() => None,
            Life::Alive => Some(self.departed(Duration::ZERO, false)),
            Life::Unverified | Life::Lost => self.former.clone(),
            Life::Silent { unheard, suspect } => Some(self.departed(unheard, suspect)),
            Life::Left => None,
        };
        let earlier = Earlier { incarnation: self.incarnation, sequence: self.sequence, goes_on_since: None };
        let earlier = (!self.is_of_this_life(pulse.incarnation)).then_some(earlier).or(self.earlier);
        let mut peer = Peer { former, awaited, earlier, ..Peer::new(pulse, self.expected, now) };
        peer.set_doubted(matches!(self.doubt, Some(Doubt { why: Why::Plan { .. }, .. })), now);
        peer
    }

    /// Of a node that says that it restarts. Who restarts again and again is not awaited longer for that.
    fn as_awaited(&self) -> Option<Awaited> {
        let back_by = self.back_by?;
        let until = self.awaited.as_ref().map_or(back_by, |it| it.until.min(back_by));
        Some(Awaited { until, heard: self.last_heard, before: self.member() })
    }

    /// Until when it counts as holding what it held before its restart.
    pub(super) fn awaited_until(&self) -> Option<Instant> {
        match self.life {
            Life::Unverified | Life::Alive => self.awaited.as_ref().map(|it| it.until),
            Life::Silent { .. } | Life::Left | Life::Lost => None,
        }
    }

    /// Its agent restarts, and it has not all again that it held before.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited_until().is_some()
    }

    /// Until when what it holds may be told by an answer that is under way.
    fn new_until(&self, settings: Settings) -> Option<Instant> {
        (self.new && self.life == Life::Unverified).then(|| self.met + settings.detection())
    }

    /// It has had the time to answer. True if that changes the roster.
    pub(super) fn end_new(&mut self, settings: Settings, now: Instant) -> bool {
        let over = self.new_until(settings).is_some_and(|until| until <= now);
        self.new &= !over;
        over
    }

    /// Nothing is heard of it for too long to wait, though it never answered: then it is gone like any other. `suspect`: as in
    /// [`Departed`].
    pub(super) fn lose(&mut self, suspect: bool, settings: Settings, now: Instant) {
        let Unproved { mac, deaf, holdings, .. } = self.unproved(settings);
        // A recording is as silent once it is over. One that was heard for long enough may have answered for what it said.
        if deaf || self.former.is_none() {
            let unheard = now.saturating_duration_since(self.last_heard);
            self.former = Some(Departed { mac, unheard, suspect, holdings, just_left: false });
        }
        self.life = Life::Lost;
    }

    /// It is heard once more, and has as little answered as before. What it holds may have changed.
    pub(super) fn find_again(&mut self, now: Instant) {
        self.life = Life::Unverified;
        (self.met, self.new, self.next_ask) = (now, true, now);
    }

    /// Until when it counts as just having left.
    fn last_words_until(&self) -> Option<Instant> {
        (self.just_left && self.life == Life::Left).then(|| self.last_heard + LAST_WORDS)
    }

    /// It has had the time to cease. True if that changes the roster.
    pub(super) fn end_last_words(&mut self, now: Instant) -> bool {
        let over = self.last_words_until().is_some_and(|until| until <= now);
        self.just_left &= !over;
        over
    }

    /// It is awaited no longer where its time is over. True if that changes the roster.
    pub(super) fn end_awaiting_late(&mut self, now: Instant) -> bool {
        let over = |it: &mut Awaited| it.until <= now;
        let Some(Awaited { until: _, heard, before }) = self.awaited.take_if(over) else { return false };
        if self.life == Life::Unverified {
            let unheard = now.saturating_duration_since(heard);
            let (mac, holdings) = (before.mac, held(&before.holdings));
            self.former = Some(Departed { mac, unheard, suspect: false, holdings, just_left: false });
        }
        true
    }

    /// It is awaited no longer once it says no more that it restarts. True if that changes the roster.
    pub(super) fn end_awaiting_by_word(&mut self) -> bool {
        self.back_by.is_none() && self.knows_all() && self.awaited.take().is_some()
    }

    /// Takes in a newer pulse. True if that changes the roster.
    pub(super) fn take(&mut self, pulse: Pulse, settings: Settings, now: Instant) -> bool {
        let shown = self.shown();
        let mut moved = false;
        // One that stood still, or that this node did not hear while it stood still itself, has yet to answer.
        let missed = now > self.last_heard + self.promise.detection();
        self.sequence = pulse.sequence;
        self.last_heard = now;
        self.grace_until = None;
        self.asked = 0;
        self.promise = Settings { interval: pulse.interval, multiplier: pulse.multiplier };
        self.eligibility = pulse.eligibility;
        self.owner = pulse.owner;
        self.hears_api_server = pulse.hears_api_server;
        self.mac = pulse.mac;
        self.waits = pulse.waits;
        self.receives_nothing = pulse.receives_nothing;
        self.sessions = pulse.sessions;
        self.deaf = match self.doubt.as_mut().map(|doubt| &mut doubt.why) {
            Some(Why::Plan { answered }) => answered.is_none_or(|at| now >= at + settings.detection() * UNANSWERED),
            Some(Why::Signs { unanswered }) => {
                *unanswered = if missed && !self.deaf { 0 } else { *unanswered };
                *unanswered > UNANSWERED
            }
            None => false,
        };
        self.back_by = pulse.back_in.map(|time| now + time.min(LONGEST_RESTART));
        self.key = pulse.key;
        self.accepted = pulse.accepts;
        if let Some(card) = pulse.card {
            moved |= self.card.as_deref() != Some(&card);
            self.card = Some(Arc::new(card));
            self.card_version = pulse.card_version;
        }
        if !pulse.occupied.iter().eq(self.occupied.iter()) {
            let occupied: BTreeSet<IpAddr> = pulse.occupied.iter().copied().collect();
            moved |= *self.occupied != occupied;
            self.occupied = Arc::new(occupied);
        }
        if let Some(page) = pulse.egress {
            moved |= self.egress.is_none();
            moved |= page.update(self.egress.get_or_insert_default());
        }
        if pulse.tells_over_bgp != self.over_bgp.is_some() {
            self.over_bgp = pulse.tells_over_bgp.then(Arc::default);
            moved = true;
        }
        if let (Some(page), Some(told)) = (pulse.over_bgp, &mut self.over_bgp) {
            moved |= page.update(told);
        }
        moved |= self.holdings.take(pulse.holdings_version, pulse.change, pulse.page);
        moved || shown != self.shown()
    }

    /// What every pulse says of its sender.
    fn shown(&self) -> impl Eq + use<> {
        let Peer { eligibility, owner, hears_api_server, mac, waits, receives_nothing, sessions, deaf, .. } = self;
        let of_others = (*hears_api_server, *waits, *receives_nothing, *sessions);
        (*eligibility, *owner, *mac, of_others, *deaf, self.is_restarting())
    }

    /// It says that it restarts. One that listens already is on its way back, and is awaited by those who knew it before.
    fn is_restarting(&self) -> bool {
        self.back_by.is_some() && self.eligibility != Eligibility::Listening
    }

    pub(super) fn key(&self) -> KeyId {
        self.key
    }

    pub(super) fn accepts(&self, key: KeyId) -> bool {
        self.key == key || self.accepted.contains(&key)
    }

    /// What the pulse says of keys is not what the one before said.
    pub(super) fn has_other_keys(&self, pulse: &Pulse) -> bool {
        self.key != pulse.key || self.accepted != pulse.accepts
    }

    pub(super) fn knows_all(&self) -> bool {
        self.holdings.knows_all()
    }

    pub(super) fn member(&self) -> Member {
        if let Some(Awaited { before, .. }) = self.awaited.as_ref().filter(|_| self.is_awaited()) {
            return Member { holdings: self.holdings_awaited(before), restarting: true, ..before.clone() };
        }
        Member {
            mac: self.mac,
            other_macs: self.other_macs(),
            eligibility: self.eligibility,
            owner: self.owner,
            hears_api_server: self.hears_api_server,
            card: self.card.clone().unwrap_or_default(),
            holdings: self.holdings.held().clone(),
            holdings_known: self.holdings.knows_all(),
            occupied: self.occupied.clone(),
            egress: self.egress.clone(),
            over_bgp: self.over_bgp.clone(),
            sessions: self.sessions,
            restarting: self.is_restarting(),
            waits: self.waits,
            deaf: self.deaf,
        }
    }

    /// What it held before its restart, with what it has again.
    fn holdings_awaited(&self, before: &Member) -> Holdings {
        let mut holdings = before.holdings.clone();
        holdings.extend(self.holdings.held().iter().filter(|(_, it)| it.stage.answers()).map(|(at, it)| (*at, *it)));
        holdings
    }

    /// What the others keep of it once it is not heard any more.
    pub(super) fn departed(&self, unheard: Duration, suspect: bool) -> Departed {
        let holdings = match &self.awaited {
            Some(Awaited { before, .. }) => held(&self.holdings_awaited(before)),
            None => held(self.holdings.held()),
        };
        let just_left = self.just_left && self.life == Life::Left;
        Departed { mac: self.mac, unheard, suspect, holdings, just_left }
    }

    /// What is known of it while it has answered none of this node's questions.
    pub(super) fn unproved(&self, settings: Settings) -> Unproved {
        let deaf = self.last_heard >= self.met + settings.detection() * PATIENCE;
        let holdings = if deaf { held(self.holdings.held()) } else { Holdings::default() };
        let egress = self.egress.clone().unwrap_or_default();
        Unproved { mac: self.mac, deaf, new: self.new, holdings, egress }
    }

    /// How it is remembered while it is not heard, or has to prove itself anew.
    pub(super) fn as_silent(&self) -> Option<Departed> {
        match self.life {
            Life::Silent { unheard, suspect } => Some(self.departed(unheard, suspect)),
            Life::Unverified if self.receives_nothing => Some(self.departed(Duration::ZERO, false)),
            Life::Unverified | Life::Lost => self.former.clone(),
            Life::Alive | Life::Left => None,
        }
    }

    /// It is heard, and nothing is awaited of it that is not heard.
    pub(super) fn may_fall_silent(&self) -> bool {
        match self.life {
            Life::Alive => true,
            Life::Unverified => self.awaited.is_none(),
            Life::Silent { .. } => self.receives_nothing,
            Life::Left | Life::Lost => false,
        }
    }

    /// For how long it may be silent: as long as it promised, but no longer than an owner if the plan expects it to be one
    /// and it does not say so yet.
    pub(super) fn window(&self, settings: Settings) -> Duration {
        let promised = self.promise.detection();
        match self.expected {
            Some(_) if !self.owner => promised.min(settings.detection()),
            Some(_) | None => promised,
        }
    }

    /// When it was last heard, or when the plan began to expect it as an owner, whichever is later.
    fn last_proof(&self) -> Instant {
        self.expected.map_or(self.last_heard, |since| since.max(self.last_heard))
    }

    pub(super) fn silent_at(&self, settings: Settings) -> Instant {
        let promised = self.last_heard + self.promise.detection();
        let due = (self.last_proof() + self.window(settings)).min(promised);
        due.max(self.grace_until.unwrap_or(due)).max(self.back_by.unwrap_or(due))
    }

    /// Gives it a third of its time more, once, because this node looks too late to judge by what it has not heard. False
    /// where that was done before.
    pub(super) fn give_grace(&mut self, settings: Settings, now: Instant) -> bool {
        if self.grace_until.is_some() {
            return false;
        }
        self.grace_until = Some(now + self.window(settings) / 3);
        self.next_ask = now;
        true
    }

    /// Sets when to ask it next: in the last third of its time.
    pub(super) fn plan_ask(&mut self, settings: Settings, now: Instant, random: &mut fastrand::Rng) {
        if self.life == Life::Unverified {
            // The question that proves it is under way already.
            return;
        }
        let window = self.window(settings);
        let jitter = up_to(window / ASK_PART, random);
        // One that restarts does not answer.
        self.next_ask = (self.last_proof() + window * 2 / 3 + jitter).max(now).max(self.back_by.unwrap_or(now));
    }

    /// When it is to be asked, if at all.
    pub(super) fn asks_at(&self, settings: Settings) -> Option<Instant> {
        match (self.life, self.doubt) {
            (Life::Alive, Some(doubt)) => Some(self.next_ask.min(doubt.next_ask)),
            (Life::Alive, None) => Some(self.next_ask),
            // A replay never answers, so stop asking until it is heard again.
            (Life::Unverified, _) => (self.asked < u32::from(settings.multiplier.get()) * 2).then_some(self.next_ask),
            (Life::Silent { .. } | Life::Left | Life::Lost, _) => None,
        }
    }

    /// Whether the plan has to know that it hears this node. True if that changes the roster.
    pub(super) fn set_doubted(&mut self, doubted: bool, now: Instant) -> bool {
        if doubted == matches!(self.doubt, Some(Doubt { why: Why::Plan { .. }, .. })) {
            return false;
        }
        let why = match doubted {
            true => Why::Plan { answered: None },
            // Whether it has answered a moment ago, or not for long, is known.
            false => Why::Signs { unanswered: if self.deaf { UNANSWERED + 1 } else { 0 } },
        };
        self.doubt = (doubted || self.deaf).then_some(Doubt { next_ask: now, why });
        self.deaf |= doubted;
        doubted
    }

    /// Something looks as if it did not hear this node: it is asked until it answers.
    pub(super) fn suspect_of_deafness(&mut self, settings: Settings, now: Instant) {
        // Who has just answered hears this node: two that ask each other would go on for ever.
        let answered = self.answered.is_some_and(|at| now < at + settings.detection() / 2);
        if self.life == Life::Alive && self.doubt.is_none() && self.back_by.is_none() && !answered {
            self.doubt = Some(Doubt { next_ask: now, why: Why::Signs { unanswered: 0 } });
        }
    }

    /// It does not hear this node, as far as can be told.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// It has answered this node.
    pub(super) fn note_answer(&mut self, now: Instant) {
        self.answered = Some(now);
        match self.doubt.as_mut().map(|doubt| &mut doubt.why) {
            Some(Why::Plan { answered }) => *answered = Some(now),
            Some(Why::Signs { .. }) => self.doubt = None,
            None => {}
        }
    }

    /// It is asked now.
    fn put_off_doubt(&mut self, settings: Settings, now: Instant, random: &mut fastrand::Rng) {
        let Some(doubt) = &mut self.doubt else { return };
        let spacing = match &mut doubt.why {
            Why::Signs { unanswered } if doubt.next_ask <= now => {
                *unanswered = unanswered.saturating_add(1);
                if *unanswered > UNANSWERED { settings.detection() * DOUBT_SPACING } else { settings.detection() / 2 }
            }
            Why::Signs { .. } => return,
            Why::Plan { .. } => settings.detection() * DOUBT_SPACING,
        };
        doubt.next_ask = now + around(spacing, random);
    }
}

/// Of what a node says, that which it answers for.
fn held(holdings: &Holdings) -> Holdings {
    if holdings.values().all(|it| it.stage.answers()) {
        return holdings.clone();
    }
    holdings.iter().filter(|(_, it)| it.stage.answers()).map(|(address, it)| (*address, *it)).collect()
}

/// A random time from zero to `most`.
pub(super) fn up_to(most: Duration, random: &mut fastrand::Rng) -> Duration {
    Duration::from_nanos(random.u64(0..=u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
}

/// A random time from half of `middle` to one and a half times it.
pub(super) fn around(middle: Duration, random: &mut fastrand::Rng) -> Duration {
    middle / 2 + up_to(middle, random)
}

/// How many other links of a node on one wire are told apart.
const MOST_OTHERS: usize = 8;

/// Questions to a node that has yet to prove that it is not a replay follow each other after about this part of the interval.
const PROOF_PART: u32 = 4;

/// Questions to a node follow each other after about this part of its time: four in the last third.
pub(super) const ASK_PART: u32 = 12;

/// A node of which this one has to know whether it hears it is asked once in so many detection times.
const DOUBT_SPACING: u32 = 2;

/// It does not hear this node where it has not answered for so many detection times, or so many questions: at least five of them,
/// or their answers, were lost.
const UNANSWERED: u32 = 10;
