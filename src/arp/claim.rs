//! The claims of this node to addresses on one link: ask before the first use, announce, refresh, defend, or give way.
//! Floor 1. Pure: time is an argument, what to send and what to tell are answers. The frames are made by `frame` and sent
//! by `worker`; every time is in `timing`.
//!
//! ```text
//!                   a hand-over                                     somebody claims it: defended,
//!            ┌────────────────────────────────────┐                 reported, never given up ─┐
//! owned ──► Asking ── nobody answered in time ──► Holding ◄─────────────────────────────────────┘
//!            │  ▲                                   │
//!  somebody  │  │ a pause                           │ a stranger, within `PROBATION` of a first use
//!  has it    ▼  │                                   │
//!           Refused ◄───────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::answer::Ownership;
use super::conflict::Conflicts;
use super::frame::{Claimant, Protocol};
use super::schedule::{Lane, Schedule};
use super::timing::{
    self, Asking, MEMBER_PATIENCE, PROBATION, REFRESH_INTERVAL, REFRESH_SPREAD, ROUND_INTERVAL, ROUNDS,
};
use crate::address::MacAddress;
use crate::claim::{Acquisition, ConflictKind};

/// The claims of one link.
///
/// How to drive it:
/// - tell it what happened with the `handle_*` functions;
/// - then call `poll_action` until it answers `None` and do each, and `poll_report` until it answers `None`;
/// - come back at `next_deadline`, or never if there is none.
///
/// Time must not go backwards. Spare calls are harmless. A claim starts on a link that is down: nothing is sent before
/// `handle_link_up`.
#[derive(Debug, Default)]
pub struct Claims {
    up: bool,
    claims: BTreeMap<IpAddr, Claim>,
    schedule: Schedule,
    /// The ends of waits that need no frame: verdicts after the last probe, and pauses after a refusal.
    waits: BTreeSet<(Instant, IpAddr)>,
    contests: Conflicts,
    /// Who is in the way, as last reported.
    in_the_way: BTreeMap<IpAddr, (MacAddress, ConflictKind)>,
    reports: VecDeque<Report>,
    /// Addresses that may have come to be held, or are held no longer.
    turned: BTreeSet<IpAddr>,
    /// Counts refreshes, to move them against each other.
    refreshes: u32,
}

#[derive(Debug)]
struct Claim {
    acquisition: Acquisition,
    state: State,
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many probes of `timing::asking` have gone out. It was refused so often before.
    Asking { sent: u8, refusals: u32 },
    /// Another station has it.
    Refused { refusals: u32 },
    /// It is answered for. So many announcements have gone out since it came or the link came up.
    Holding { round: usize, on_probation_until: Option<Instant> },
}

/// Where the next step of a claim waits. Nowhere, while the link is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Never,
    Frame(Lane, Instant),
    Wait(Instant),
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask everybody whether they have the address.
    Probe(IpAddr),
    /// Tell everybody that this node has it.
    Announce(IpAddr),
}

/// What a person, and the World, should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Another station is in the way. Told for the first frame, when its MAC changes, and now and then while it lasts.
    Conflict { claimant: Claimant, kind: ConflictKind, frames: u64 },
    /// Nobody is in the way of this address any more.
    Over(IpAddr),
}

impl Claims {
    /// Whether this node owns an address: `answer` judges frames by this.
    pub fn ownership(&self, address: IpAddr) -> Ownership {
        match self.claims.get(&address).map(|claim| claim.state) {
            Some(State::Holding { .. }) => Ownership::Announced,
            Some(State::Asking { .. } | State::Refused { .. }) => Ownership::Pending,
            None => Ownership::None,
        }
    }

    /// How many addresses are wanted, held or not.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Who is in the way of which address.
    pub fn conflicts(&self) -> impl Iterator<Item = (IpAddr, MacAddress, ConflictKind)> {
        self.in_the_way.iter().map(|(address, (mac, kind))| (*address, *mac, *kind))
    }

    /// This node is to answer for the address. For one that it holds already that is no news.
    pub fn handle_owned(&mut self, address: IpAddr, acquisition: &Acquisition, now: Instant) {
        let known = self.claims.get(&address);
        let is_news = known
            .is_none_or(|claim| claim.acquisition != *acquisition && !matches!(claim.state, State::Holding { .. }));
        if is_news {
            self.leave_queue(address);
            let claim = Claim { acquisition: acquisition.clone(), state: beginning(acquisition), next: Next::Never };
            if matches!(claim.state, State::Holding { .. }) {
                self.over(address);
            }
            self.claims.insert(address, claim);
            self.turned.insert(address);
            self.begin(address, now);
        }
    }

    /// This node is no longer to answer for the address: not a word about it from here on, not even a farewell. Who took
    /// it over announces it; anything said now could only be believed after that.
    pub fn handle_disowned(&mut self, address: IpAddr) {
        self.leave_queue(address);
        self.claims.remove(&address);
        self.turned.insert(address);
        self.contests.forget(address);
        self.over(address);
    }

    /// The link can carry frames (again), or has another MAC: everything held is announced anew, everything else asked for
    /// anew.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.up = true;
        let addresses: Vec<IpAddr> = self.claims.keys().copied().collect();
        for address in addresses {
            self.leave_queue(address);
            self.begin(address, now);
        }
    }

    /// The link can carry no frames: nothing is sent until it can.
    pub fn handle_link_down(&mut self) {
        self.up = false;
        self.schedule.clear();
        self.waits.clear();
        self.claims.values_mut().for_each(|claim| claim.next = Next::Never);
    }

    /// Another station said to have an address. `is_member`: it is another agent of the cluster.
    pub fn handle_claimant(&mut self, claimant: Claimant, is_member: bool, now: Instant) {
        let Some(claim) = self.claims.get(&claimant.address) else { return };
        match claim.state {
            State::Asking { refusals, .. } => self.refuse(claimant, refusals + 1, is_member, now),
            // It answers somebody else, or asks in its own name: no news, but for its MAC.
            State::Refused { .. } => self.report_refusal(claimant, is_member),
            State::Holding { on_probation_until: Some(end), .. } if now < end && !is_member => {
                self.refuse(claimant, 1, is_member, now);
            }
            State::Holding { .. } => self.contest(claimant, is_member, now),
        }
    }

    /// Another station asks for an address before it uses it, as this node does. The lower MAC goes first: one of two
    /// agents then has it at once, while a stranger that follows RFC 5227 withdraws from both.
    pub fn handle_rival(&mut self, claimant: Claimant, our_mac: MacAddress, is_member: bool, now: Instant) {
        let Some(claim) = self.claims.get(&claimant.address) else { return };
        match claim.state {
            State::Asking { refusals, .. } if claimant.mac < our_mac => {
                self.refuse(claimant, refusals + 1, is_member, now);
            }
            State::Asking { .. } | State::Refused { .. } | State::Holding { .. } => {}
        }
    }

    /// The next frame to send now. What is urgent goes before what was said before, however much is waiting.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        while let Some((due, address)) = self.waits.first().copied().filter(|(due, _)| *due <= now) {
            self.waits.remove(&(due, address));
            self.end_wait(address, now);
        }
        while let Some(address) = self.contests.poll_over(now) {
            self.over(address);
        }
        let address = self.schedule.poll(now)?;
        let claim = self.claims.get_mut(&address)?;
        match claim.state {
            State::Asking { sent, refusals } => {
                self.schedule.spend(1, now);
                let sent = sent + 1;
                claim.state = State::Asking { sent, refusals };
                claim.next = Next::Never;
                if let Some(Asking { probes, interval, .. }) = timing::asking(&claim.acquisition) {
                    let next = if sent < probes {
                        Next::Frame(lane(&claim.acquisition), now + interval)
                    } else {
                        Next::Wait(now + interval)
                    };
                    self.enter_queue(address, next);
                }
                Some(Action::Probe(address))
            }
            State::Holding { round, on_probation_until } => {
                self.schedule.spend(Protocol::of(address).frames_of_an_announcement(), now);
                let round = round.saturating_add(1);
                claim.state = State::Holding { round, on_probation_until };
                claim.next = Next::Never;
                let next = if round < ROUNDS {
                    Next::Frame(Lane::Repeat, now + ROUND_INTERVAL)
                } else {
                    Next::Frame(Lane::Refresh, now + self.refresh_interval())
                };
                self.enter_queue(address, next);
                Some(Action::Announce(address))
            }
            // A refused claim waits without a frame.
            State::Refused { .. } => None,
        }
    }

    /// What there is to tell, oldest first.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// An address that this node may stand to differently than when it was named last.
    pub fn poll_turned(&mut self) -> Option<IpAddr> {
        self.turned.pop_first()
    }

    /// The addresses that are answered for.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> {
        self.claims
            .iter()
            .filter(|(_, claim)| matches!(claim.state, State::Holding { .. }))
            .map(|(address, _)| *address)
    }

    /// When to poll again; at once, if that is in the past.
    pub fn next_deadline(&self) -> Option<Instant> {
        let wait = self.waits.first().map(|(due, _)| *due);
        [wait, self.schedule.next_deadline(), self.contests.next_deadline()].into_iter().flatten().min()
    }

    /// Puts a claim at its first step on a link that is up.
    fn begin(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address).filter(|_| self.up) else { return };
        let lane = match &mut claim.state {
            State::Holding { round, .. } => {
                *round = 0;
                Lane::Urgent
            }
            State::Asking { sent, .. } => {
                *sent = 0;
                lane(&claim.acquisition)
            }
            State::Refused { refusals } => {
                claim.state = State::Asking { sent: 0, refusals: *refusals };
                lane(&claim.acquisition)
            }
        };
        self.enter_queue(address, Next::Frame(lane, now));
    }

    fn end_wait(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address) else { return };
        claim.next = Next::Never;
        match claim.state {
            State::Asking { .. } => {
                let on_probation_until = (claim.acquisition == Acquisition::FirstUse).then(|| now + PROBATION);
                claim.state = State::Holding { round: 0, on_probation_until };
                self.turned.insert(address);
                self.over(address);
            }
            State::Refused { .. } | State::Holding { .. } => {}
        }
        self.begin(address, now);
    }

    fn refuse(&mut self, claimant: Claimant, refusals: u32, is_member: bool, now: Instant) {
        let address = claimant.address;
        self.leave_queue(address);
        self.contests.forget(address);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.state = State::Refused { refusals };
            self.turned.insert(address);
            let pause = pause(&claim.acquisition, refusals);
            self.enter_queue(address, Next::Wait(now + pause));
        }
        self.report_refusal(claimant, is_member);
    }

    fn report_refusal(&mut self, claimant: Claimant, is_member: bool) {
        let Some(claim) = self.claims.get(&claimant.address) else { return };
        let kind = match claim.acquisition {
            Acquisition::TakeOver { .. } => ConflictKind::AliveUnheard,
            Acquisition::FirstUse | Acquisition::HandOver if is_member => ConflictKind::AliveUnheard,
            Acquisition::FirstUse | Acquisition::HandOver => ConflictKind::Occupied,
        };
        if self.in_the_way.insert(claimant.address, (claimant.mac, kind)) != Some((claimant.mac, kind)) {
            self.reports.push_back(Report::Conflict { claimant, kind, frames: 1 });
        }
    }

    fn contest(&mut self, claimant: Claimant, is_member: bool, now: Instant) {
        let address = claimant.address;
        let response = self.contests.handle_claimant(claimant, now);
        if response.defend {
            // RFC 5227 §2.4: the defence is an announcement. Not against another agent: if that one is to have the address,
            // this node is about to hear so, and would only take the neighbours back from it for a moment.
            let due = if is_member { now + MEMBER_PATIENCE } else { now };
            self.announce_by(address, due);
        }
        let kind = ConflictKind::Contested;
        let before = self.in_the_way.insert(address, (claimant.mac, kind));
        let frames = response.report.map(|report| report.frames);
        if let Some(frames) = frames.or((before.map(|(_, kind)| kind) != Some(kind)).then_some(1)) {
            self.reports.push_back(Report::Conflict { claimant, kind, frames });
        }
    }

    /// Moves the next announcement of a held address forward to `due`, if it would come later.
    fn announce_by(&mut self, address: IpAddr, due: Instant) {
        let waits = self.claims.get(&address).map(|claim| claim.next);
        if let Some(Next::Frame(_, later)) = waits.filter(|next| matches!(next, Next::Frame(_, at) if *at > due)) {
            debug_assert!(later > due);
            self.leave_queue(address);
            self.enter_queue(address, Next::Frame(Lane::Urgent, due));
        }
    }

    fn over(&mut self, address: IpAddr) {
        if self.in_the_way.remove(&address).is_some() {
            self.reports.push_back(Report::Over(address));
        }
    }

    /// Nothing waits on a link that is down.
    fn enter_queue(&mut self, address: IpAddr, next: Next) {
        let Some(claim) = self.claims.get_mut(&address).filter(|_| self.up) else { return };
        claim.next = next;
        match next {
            Next::Never => {}
            Next::Frame(lane, due) => self.schedule.put(lane, due, address),
            Next::Wait(due) => drop(self.waits.insert((due, address))),
        }
    }

    fn leave_queue(&mut self, address: IpAddr) {
        let Some(claim) = self.claims.get_mut(&address) else { return };
        match std::mem::replace(&mut claim.next, Next::Never) {
            Next::Never => {}
            Next::Frame(lane, due) => self.schedule.take(lane, due, address),
            Next::Wait(due) => drop(self.waits.remove(&(due, address))),
        }
    }

    fn refresh_interval(&mut self) -> Duration {
        self.refreshes = self.refreshes.wrapping_add(1);
        // Steps of a 64th, in an order that leaves neighbours in time far apart.
        let step = self.refreshes.wrapping_mul(37) % 64;
        REFRESH_INTERVAL - REFRESH_SPREAD * step / 64
    }
}

/// The state that a claim begins in.
fn beginning(acquisition: &Acquisition) -> State {
    match timing::asking(acquisition) {
        Some(_) => State::Asking { sent: 0, refusals: 0 },
        None => State::Holding { round: 0, on_probation_until: None },
    }
}

/// The lane of the probes of a claim.
fn lane(acquisition: &Acquisition) -> Lane {
    match acquisition {
        Acquisition::TakeOver { .. } | Acquisition::HandOver => Lane::Urgent,
        Acquisition::FirstUse => Lane::Probe,
    }
}

/// How long to wait after so many refusals in a row.
fn pause(acquisition: &Acquisition, refusals: u32) -> Duration {
    // Who comes by a hand-over is not refused.
    let Some(Asking { first_pause, longest_pause, .. }) = timing::asking(acquisition) else { return Duration::ZERO };
    let doublings = refusals.saturating_sub(1).min(16);
    first_pause.saturating_mul(1 << doublings).min(longest_pause)
}

#[cfg(test)]
#[path = "claim/tests.rs"]
mod tests;
