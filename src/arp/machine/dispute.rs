//! Disputes on one link: this node and another one announce the same address, and hear no pulse of each other. They become
//! one by what is on the wire alone. Floor 1. It remembers and answers; `machine` acts.
//!
//! Both compute the same rule. Each defends the address up to three times, `DISPUTE_INTERVAL` apart (a node that got it a
//! moment ago is on probation, and gives way at the first defence). If both go on, the higher MAC gives way. A node
//! that does not hear this one cannot be told so; whether it hears, the answers to questions for its Node's address tell. To
//! one that goes on and does not hear, this node gives way whatever the MACs are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::address::MacAddress;
use crate::arp::packet::Claimant;
use crate::arp::settings::{DEFENCES, DISPUTE_CALM, DISPUTE_INTERVAL, MOST_DEFENCES, SETTLED_FOR};

/// The disputes of one link: at most one for each address announced, and what is known of at most [`MOST_RIVALS`] stations.
#[derive(Debug, Default)]
pub struct Disputes {
    open: BTreeMap<IpAddr, Dispute>,
    timers: BTreeSet<(Instant, IpAddr)>,
    rivals: BTreeMap<MacAddress, Rival>,
}

#[derive(Debug, Clone, Copy)]
struct Dispute {
    mac: MacAddress,
    defences: u8,
    defended: Instant,
    /// The other node claimed the address again since.
    claimed: bool,
    /// It can be asked whether it hears this node.
    askable: bool,
    timer: Instant,
}

#[derive(Debug, Clone, Copy, Default)]
struct Rival {
    /// When it last showed that it hears this node.
    hears_us: Option<Instant>,
    /// When this node last gave way to it, and whether because it does not hear.
    yielded: Option<(Instant, bool)>,
}

impl Rival {
    /// What is known of it still counts.
    fn is_recent(self, now: Instant) -> bool {
        let recent = |at: Option<Instant>| at.is_some_and(|at| now < at + SETTLED_FOR);
        recent(self.hears_us) || recent(self.yielded.map(|(at, _)| at))
    }
}

/// More stations than a link has nodes.
const MOST_RIVALS: usize = 1024;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Announce the address, and ask the other node whether it hears.
    Defend { address: IpAddr, mac: MacAddress, first: bool },
    /// Give way in all disputes with this station, which `deaf` says does not hear this node.
    Yield { mac: MacAddress, deaf: bool },
    /// The other node does not go on.
    Settled { address: IpAddr },
}

impl Disputes {
    /// Another node claims an address that this node announces. `askable`: it can be asked whether it hears this node.
    pub fn handle_claim(
        &mut self,
        Claimant { address, mac }: Claimant,
        askable: bool,
        own: MacAddress,
        now: Instant,
    ) -> Option<Step> {
        if let Some(dispute) = self.open.get_mut(&address).filter(|dispute| dispute.mac == mac) {
            dispute.claimed = true;
            let yields = dispute.defences >= DEFENCES && own > mac;
            self.set_timer(address, now);
            return yields.then_some(Step::Yield { mac, deaf: false });
        }
        self.forget(address);
        let dispute = Dispute { mac, defences: 1, defended: now, claimed: false, askable, timer: now };
        self.open.insert(address, dispute);
        self.set_timer(address, now);
        self.make_room(mac, now);
        match self.rivals.entry(mac).or_default().yielded {
            Some((at, deaf)) if now < at + SETTLED_FOR => Some(Step::Yield { mac, deaf }),
            Some(_) | None => Some(Step::Defend { address, mac, first: true }),
        }
    }

    /// The station shows that it hears this node.
    pub fn handle_hears_us(&mut self, mac: MacAddress, now: Instant) {
        if let Some(rival) = self.rivals.get_mut(&mac) {
            rival.hears_us = Some(now);
        }
    }

    /// Whether the station showed a moment ago that it hears this node.
    pub fn hears_us(&self, mac: MacAddress, now: Instant) -> bool {
        let at = self.rivals.get(&mac).and_then(|rival| rival.hears_us);
        at.is_some_and(|at| now < at + SETTLED_FOR)
    }

    /// This node gives way to the station: all its disputes with it, each of which is forgotten.
    pub fn take_yielded(&mut self, mac: MacAddress, deaf: bool, now: Instant) -> Vec<IpAddr> {
        self.rivals.entry(mac).or_default().yielded = Some((now, deaf));
        self.take(mac)
    }

    /// The station of a dispute asks for the address as one that does not have it: it gave way. All disputes with it, which
    /// are forgotten; none where the two have no dispute about this address.
    pub fn handle_asker(&mut self, address: IpAddr, mac: MacAddress, now: Instant) -> Vec<IpAddr> {
        if self.open.get(&address).is_none_or(|dispute| dispute.mac != mac) {
            return Vec::new();
        }
        self.handle_hears_us(mac, now);
        self.take(mac)
    }

    /// The address is no longer announced, so there is no dispute.
    pub fn forget(&mut self, address: IpAddr) {
        if let Some(dispute) = self.open.remove(&address) {
            self.timers.remove(&(dispute.timer, address));
        }
    }

    /// Forgets the disputes with all stations but these.
    pub fn retain(&mut self, keeps: impl Fn(MacAddress) -> bool) {
        let over: Vec<IpAddr> =
            self.open.iter().filter(|(_, it)| !keeps(it.mac)).map(|(address, _)| *address).collect();
        over.into_iter().for_each(|address| self.forget(address));
    }

    pub fn clear(&mut self) {
        *self = Disputes::default();
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The next step that is due.
    pub fn poll(&mut self, own: MacAddress, now: Instant) -> Option<Step> {
        while let Some((_, address)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.set_timer(address, now);
            let silent = self.is_silent(address, now);
            let Some(dispute) = self.open.get_mut(&address).filter(|dispute| dispute.timer <= now) else { continue };
            let Dispute { mac, defences, claimed, .. } = *dispute;
            let goes_on = claimed || silent;
            let most = if claimed && own < mac { MOST_DEFENCES } else { DEFENCES };
            if goes_on && defences < most {
                *dispute = Dispute { defences: defences + 1, defended: now, claimed: false, ..*dispute };
                self.set_timer(address, now);
                return Some(Step::Defend { address, mac, first: false });
            }
            if goes_on {
                return Some(Step::Yield { mac, deaf: !claimed || own < mac });
            }
            self.forget(address);
            return Some(Step::Settled { address });
        }
        if self.open.is_empty() {
            self.rivals.retain(|_, rival| rival.is_recent(now));
        }
        None
    }

    /// When to poll again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// A station may come with another MAC for every frame: those that matter no more go when there are too many, then any.
    fn make_room(&mut self, mac: MacAddress, now: Instant) {
        if self.rivals.len() < MOST_RIVALS || self.rivals.contains_key(&mac) {
            return;
        }
        let in_dispute: BTreeSet<MacAddress> = self.open.values().map(|dispute| dispute.mac).collect();
        self.rivals.retain(|mac, rival| rival.is_recent(now) || in_dispute.contains(mac));
        while self.rivals.len() >= MOST_RIVALS {
            self.rivals.pop_first();
        }
    }

    fn take(&mut self, mac: MacAddress) -> Vec<IpAddr> {
        let of_it = self.open.iter().filter(|(_, dispute)| dispute.mac == mac);
        let addresses: Vec<IpAddr> = of_it.map(|(address, _)| *address).collect();
        addresses.iter().for_each(|address| self.forget(*address));
        addresses
    }

    /// Nothing shows that the other node hears this one.
    fn is_silent(&self, address: IpAddr, now: Instant) -> bool {
        self.open.get(&address).is_some_and(|dispute| dispute.askable && !self.hears_us(dispute.mac, now))
    }

    fn set_timer(&mut self, address: IpAddr, now: Instant) {
        let silent = self.is_silent(address, now);
        let Some(dispute) = self.open.get_mut(&address) else { return };
        self.timers.remove(&(dispute.timer, address));
        let soon = dispute.claimed || (silent && dispute.defences < DEFENCES);
        dispute.timer = dispute.defended + if soon { DISPUTE_INTERVAL } else { DISPUTE_CALM };
        self.timers.insert((dispute.timer, address));
    }
}
