//! Another node on the link: what was heard of it, and when to look at it next. Floor 1, a part of the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::MacAddress;
use crate::pulse::packet::{ClaimsPage, Pulse, Ticket};
use crate::pulse::settings::Settings;
use crate::roster::{Eligibility, Member};
use crate::selector::Labels;

/// When the first peer has to be looked at. Whatever brings a peer's time forward is noted here; what puts it off is not. So
/// these times may be too early and are never too late. They are exact after each look at all peers, which is therefore
/// taken a few times in an interval, not for every pulse of every node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Dues {
    /// Until one counts as silent.
    pub(super) silence: Option<Instant>,
    /// Until one is asked whether it is alive.
    pub(super) ask: Option<Instant>,
}

impl Dues {
    pub(super) fn note(&mut self, peer: &Peer, settings: Settings) {
        let silence = (peer.life == Life::Alive).then(|| peer.silent_at(settings));
        let ask = peer.is_asked(settings).then_some(peer.next_ask);
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
    pub(super) ticket: Ticket,
    mac: MacAddress,
    pub(super) life: Life,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) last_heard: Instant,
    /// Since when the plan says that it owns addresses.
    pub(super) expected: Option<Instant>,
    pub(super) next_ask: Instant,
    /// How often it was asked since it was last heard.
    pub(super) asked: u32,
    /// The pace that it promised.
    promise: Settings,
    pub(super) eligibility: Eligibility,
    owner: bool,
    pub(super) card_version: u32,
    pub(super) labels: Option<Labels>,
    claims_version: u32,
    pages: BTreeMap<u16, ClaimsPage>,
    /// Those of the newest version whose pages were all heard.
    claims: Arc<BTreeSet<IpAddr>>,
    pub(super) claims_complete: bool,
    occupied: Arc<BTreeSet<IpAddr>>,
    pub(super) needs_ipv4: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Heard, but it has not answered this node.
    Unverified,
    Alive,
    /// It was declared silent after this time without a pulse.
    Silent(Duration),
    Left,
}

impl Peer {
    pub(super) fn new(pulse: &Pulse, expected: Option<Instant>, now: Instant) -> Peer {
        Peer {
            ticket: Ticket::of(&pulse.node),
            mac: pulse.mac,
            life: Life::Unverified,
            incarnation: pulse.incarnation,
            sequence: pulse.sequence,
            last_heard: now,
            expected,
            next_ask: now,
            asked: 0,
            promise: Settings { interval: pulse.interval, multiplier: pulse.multiplier },
            eligibility: pulse.eligibility,
            owner: pulse.owner,
            card_version: pulse.card_version,
            labels: None,
            claims_version: pulse.claims_version,
            pages: BTreeMap::new(),
            claims: Arc::default(),
            claims_complete: false,
            occupied: Arc::default(),
            needs_ipv4: pulse.needs_ipv4,
        }
    }

    /// Takes in a newer pulse. True if that changes the roster.
    pub(super) fn take(&mut self, pulse: Pulse, now: Instant) -> bool {
        let shown = (self.eligibility, self.owner, self.mac);
        let mut moved = false;
        self.sequence = pulse.sequence;
        self.last_heard = now;
        self.asked = 0;
        self.promise = Settings { interval: pulse.interval, multiplier: pulse.multiplier };
        self.eligibility = pulse.eligibility;
        self.owner = pulse.owner;
        self.mac = pulse.mac;
        self.needs_ipv4 = pulse.needs_ipv4;
        if let Some(labels) = pulse.labels {
            moved |= self.labels.as_ref() != Some(&labels);
            self.labels = Some(labels);
            self.card_version = pulse.card_version;
        }
        if !pulse.occupied.iter().eq(self.occupied.iter()) {
            let occupied: BTreeSet<IpAddr> = pulse.occupied.iter().copied().collect();
            moved |= *self.occupied != occupied;
            self.occupied = Arc::new(occupied);
        }
        if pulse.claims_version != self.claims_version {
            self.claims_version = pulse.claims_version;
            self.pages.clear();
            self.claims_complete = false;
        }
        if pulse.claims_version == NO_CLAIMS && !self.claims_complete {
            self.claims_complete = true;
            moved |= !self.claims.is_empty();
            self.claims = Arc::default();
        }
        if let Some(page) = pulse.claims.filter(|_| !self.claims_complete) {
            let of = usize::from(page.of);
            self.pages.retain(|_, known| known.of == page.of);
            self.pages.insert(page.page, page);
            if self.pages.len() == of {
                let whole: BTreeSet<IpAddr> = self.pages.values().flat_map(|page| &page.addresses).copied().collect();
                self.pages.clear();
                self.claims_complete = true;
                moved |= *self.claims != whole;
                self.claims = Arc::new(whole);
            }
        }
        moved || shown != (self.eligibility, self.owner, self.mac)
    }

    pub(super) fn member(&self) -> Member {
        Member {
            mac: self.mac,
            eligibility: self.eligibility,
            owner: self.owner,
            labels: self.labels.clone().unwrap_or_default(),
            claims: self.claims.clone(),
            occupied: self.occupied.clone(),
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
        (self.last_proof() + self.window(settings)).min(promised)
    }

    /// Sets when to ask it next: in the last third of its time.
    pub(super) fn plan_ask(&mut self, settings: Settings, now: Instant, random: &mut fastrand::Rng) {
        if self.life == Life::Unverified {
            // The question that proves it is under way already.
            return;
        }
        let window = self.window(settings);
        let jitter = up_to(window / ASK_PART, random);
        self.next_ask = (self.last_proof() + window * 2 / 3 + jitter).max(now);
    }

    pub(super) fn is_asked(&self, settings: Settings) -> bool {
        match self.life {
            Life::Alive => true,
            // A replay never answers, so stop asking until it is heard again.
            Life::Unverified => self.asked < u32::from(settings.multiplier.get()) * 2,
            Life::Silent(_) | Life::Left => false,
        }
    }
}

/// A random time from zero to `most`.
pub(super) fn up_to(most: Duration, random: &mut fastrand::Rng) -> Duration {
    Duration::from_nanos(random.u64(0..=u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)))
}

/// A random time from half of `middle` to one and a half times it.
pub(super) fn around(middle: Duration, random: &mut fastrand::Rng) -> Duration {
    middle / 2 + up_to(middle, random)
}

/// Questions to a node follow each other after about this part of its time: four in the last third.
pub(super) const ASK_PART: u32 = 12;

/// The version that stands for no claims; it needs no page.
pub(super) const NO_CLAIMS: u32 = 0;
