//! Former holders on one link: stations of nodes that this node took addresses from, because they did not answer any more. Such a
//! node may have been cut off, go on answering on its side of the cut, and be there again without a pulse or an announcement that
//! tells of it. Floor 1. It remembers and answers; `machine` acts.
//!
//! Each of them is asked again and again for one of these addresses. One that answers, or claims any address, is asked for all of them at once,
//! and this node gives way for each that it has. Whoever claims an address, or asks for one that this node answers for as such a node does in its
//! turn, and answers no question does not hear this node: then all that was taken from it is its again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::address::MacAddress;
use crate::arp::settings::{
    DISPUTE_INTERVAL, FORMER_INTERVAL, FORMER_LONGEST, FORMER_PART, FORMER_QUESTIONS, FORMER_SPACING, HASTEN_INTERVAL,
    SETTLED_FOR,
};

/// The former holders of one link: at most one for each address announced.
#[derive(Debug, Default)]
pub struct Formers {
    by_station: BTreeMap<MacAddress, Former>,
    /// Whom each address was taken from.
    taken_from: BTreeMap<IpAddr, MacAddress>,
    /// The earliest time for a question that recurs.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Former {
    taken: BTreeSet<IpAddr>,
    /// When to ask again, and for which address that was last.
    due: Instant,
    last: Option<IpAddr>,
    /// Since when it is silent in pulses and on the link alike: its pulses will tell of its return, so questions become rarer. `None`: it
    /// answered while its pulses were not heard.
    silent_since: Option<Instant>,
    /// What is to be asked for at once, and when that began.
    hurried: VecDeque<IpAddr>,
    hurried_at: Option<Instant>,
    trial: Option<Trial>,
    /// When it last answered a question of this node.
    hears_us: Option<Instant>,
}

/// Whether the station hears this node.
#[derive(Debug, Clone, Copy)]
struct Trial {
    began: Instant,
    asked: u32,
    /// `None`: it is over.
    due: Option<Instant>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask the link for an address that this node answers for. `hurried`: not in its turn, because the station is there again.
    Ask { address: IpAddr, hurried: bool },
    /// Ask the station for its Node's address.
    AskNode(MacAddress),
    /// The station claims addresses and does not hear this node.
    Deaf(MacAddress),
}

impl Formers {
    /// This node answers for an address that this station, a node's, answered for and does not any more. `unheard`: it did so while its
    /// pulses were not heard, so they will not tell of its return.
    pub fn handle_taken(&mut self, address: IpAddr, mac: MacAddress, unheard: bool, now: Instant) {
        self.forget(address);
        self.taken_from.insert(address, mac);
        let former = self.by_station.entry(mac).or_insert_with(|| Former {
            taken: BTreeSet::new(),
            due: now + FORMER_INTERVAL,
            last: None,
            silent_since: Some(now),
            hurried: VecDeque::new(),
            hurried_at: None,
            trial: None,
            hears_us: None,
        });
        former.taken.insert(address);
        former.silent_since.take_if(|_| unheard);
    }

    /// This node does not answer for the address any more.
    pub fn forget(&mut self, address: IpAddr) {
        let Some(mac) = self.taken_from.remove(&address) else { return };
        let Some(former) = self.by_station.get_mut(&mac) else { return };
        former.taken.remove(&address);
        if former.taken.is_empty() {
            self.by_station.remove(&mac);
        }
    }

    /// Forgets all stations but these.
    pub fn retain(&mut self, keeps: impl Fn(MacAddress) -> bool) {
        self.by_station.retain(|mac, _| keeps(*mac));
        let known = &self.by_station;
        self.taken_from.retain(|_, mac| known.contains_key(mac));
    }

    pub fn is_empty(&self) -> bool {
        self.by_station.is_empty()
    }

    /// The address was taken from this station.
    pub fn is_from(&self, address: IpAddr, mac: MacAddress) -> bool {
        self.taken_from.get(&address) == Some(&mac)
    }

    /// The station claims some address: it is there again. `askable`: it can be asked for its Node's address.
    pub fn handle_claim(&mut self, mac: MacAddress, askable: bool, now: Instant) {
        let Some(former) = self.by_station.get_mut(&mac) else { return };
        if former.hurried_at.is_none_or(|at| now >= at + HASTEN_INTERVAL) {
            former.hurried_at = Some(now);
            former.hurried = former.taken.iter().copied().collect();
        }
        former.begin_trial(askable, now);
    }

    /// The station asks in its own name for an address that this node answers for: it is there again, and may answer for that address too.
    /// `askable` as above.
    pub fn handle_question(&mut self, mac: MacAddress, askable: bool, now: Instant) {
        if let Some(former) = self.by_station.get_mut(&mac) {
            former.begin_trial(askable, now);
        }
    }

    /// The station answered a question of this node.
    pub fn handle_hears_us(&mut self, mac: MacAddress, now: Instant) {
        if let Some(former) = self.by_station.get_mut(&mac) {
            former.hears_us = Some(now);
        }
    }

    /// All that was taken from the station, which is forgotten.
    pub fn take(&mut self, mac: MacAddress) -> Vec<IpAddr> {
        let taken = self.by_station.remove(&mac).map(|former| former.taken).unwrap_or_default();
        self.taken_from.retain(|_, from| *from != mac);
        taken.into_iter().collect()
    }

    /// The next step that is due. `recurs` and `hurries`: a question of that kind may be sent now.
    pub fn poll(&mut self, recurs: bool, hurries: bool, now: Instant) -> Option<Step> {
        for (mac, former) in &mut self.by_station {
            if let Some(step) = former.poll_trial(*mac, now) {
                return Some(step);
            }
            while let Some(address) = former.hurried.front().copied().filter(|_| hurries) {
                former.hurried.pop_front();
                if former.taken.contains(&address) {
                    return Some(Step::Ask { address, hurried: true });
                }
            }
        }
        if !recurs || self.next.is_some_and(|next| now < next) {
            return None;
        }
        let first = self.by_station.values_mut().min_by_key(|former| former.due).filter(|former| former.due <= now)?;
        let after = first.last.and_then(|last| first.taken.iter().find(|it| **it > last));
        let address = *after.or(first.taken.first())?;
        (first.last, first.due) = (Some(address), now + first.interval(now));
        self.next = Some(now + FORMER_SPACING);
        Some(Step::Ask { address, hurried: false })
    }

    /// When a question of a trial, or one that is hurried, is due; at once, if that is in the past.
    pub fn next_hurried(&self) -> Option<Instant> {
        let of = |former: &Former| {
            let trial = former.trial.and_then(|trial| trial.due);
            let hurried = former.hurried_at.filter(|_| !former.hurried.is_empty());
            [trial, hurried].into_iter().flatten().min()
        };
        self.by_station.values().filter_map(of).min()
    }

    /// The same for questions that recur.
    pub fn next_recurring(&self) -> Option<Instant> {
        let due = self.by_station.values().map(|former| former.due).min()?;
        Some(self.next.map_or(due, |next| due.max(next)))
    }
}

impl Former {
    fn interval(&self, now: Instant) -> Duration {
        let silent = self.silent_since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        (silent / FORMER_PART).clamp(FORMER_INTERVAL, FORMER_LONGEST)
    }

    /// Whether it hears this node is found out, unless it was a moment ago.
    fn begin_trial(&mut self, askable: bool, now: Instant) {
        if askable && self.trial.is_none_or(|trial| now >= trial.began + SETTLED_FOR) {
            self.trial = Some(Trial { began: now, asked: 0, due: Some(now) });
        }
    }

    fn poll_trial(&mut self, mac: MacAddress, now: Instant) -> Option<Step> {
        let trial = self.trial.as_mut().filter(|trial| trial.due.is_some_and(|due| due <= now))?;
        if self.hears_us.is_some_and(|at| at >= trial.began) {
            trial.due = None;
            return None;
        }
        if trial.asked >= FORMER_QUESTIONS {
            trial.due = None;
            return Some(Step::Deaf(mac));
        }
        trial.asked += 1;
        trial.due = Some(now + DISPUTE_INTERVAL);
        Some(Step::AskNode(mac))
    }
}
