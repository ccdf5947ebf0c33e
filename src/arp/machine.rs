//! The claims of this node to addresses on one link: probe before the first use, announce, refresh, defend, or defer.
//! Floor 1. Time is an argument; what to send and what to report are answers. `packet` makes the frames, `task::worker`
//! sends them, and `settings` holds every interval.
//!
//! ```text
//!                    a hand-over                                        another station claims it:
//!            ┌───────────────────────────────────────────┐              defended and reported ──┐
//! owned ──► probing ── nobody answered in time ──► announced ◄─────────────────────────────────┘
//!            │  ▲                                   │
//!   another  │  │ a pause                           │ a foreign host claims it within
//!   station  │  │                                   │ `PROBATION` of a first use
//!   has it   ▼  │                                   │
//!           deferred ◄──────────────────────────────┘
//! ```
//!
//! The names of the states are RFC 5227's: an address is probed (§2.1), announced (§2.3) and defended (§2.4).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::answer::Ownership;
use self::conflict::Conflicts;
use self::schedule::{Lane, Schedule};
use super::packet::{Claimant, Protocol};
use super::settings::{
    self, MEMBER_PATIENCE, PROBATION, Probing, REFRESH_INTERVAL, REFRESH_SPREAD, ROUND_INTERVAL, ROUNDS,
};
use crate::address::MacAddress;
use crate::claim::{Acquisition, ConflictKind};

pub mod answer;
mod conflict;
mod schedule;

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
    /// Waits that end without a frame: verdicts after the last probe, and pauses after a deferral.
    waits: BTreeSet<(Instant, IpAddr)>,
    conflicts: Conflicts,
    /// The station that conflicts with each claim, as last reported.
    conflicting: BTreeMap<IpAddr, (MacAddress, ConflictKind)>,
    reports: VecDeque<Report>,
    /// Addresses whose ownership may have changed.
    turned: BTreeSet<IpAddr>,
    /// Counts refreshes, to spread them over time.
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
    /// `sent` of the probes of `settings::probing` have gone out. The claim deferred `deferrals` times in a row before.
    Probing { sent: u8, deferrals: u32 },
    /// Another station has it: this node does not answer for it, and probes it again after a pause.
    Deferred { deferrals: u32 },
    /// This node answers for it. `round` announcements have gone out since the claim or the link came up.
    Announced { round: usize, on_probation_until: Option<Instant> },
}

/// What the next step of a claim waits for. Nothing, while the link is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Never,
    Frame(Lane, Instant),
    Wait(Instant),
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask all stations whether one has the address.
    Probe(IpAddr),
    /// Tell all stations that this node has it.
    Announce(IpAddr),
}

/// What the log and the World should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Another station claims the address. Reported for the first frame, when the MAC changes, and now and then while it
    /// lasts.
    Conflict { claimant: Claimant, kind: ConflictKind, frames: u64 },
    /// No other station claims this address any more.
    Over(IpAddr),
}

impl Claims {
    /// Whether this node owns an address: `answer` judges frames by this.
    pub fn ownership(&self, address: IpAddr) -> Ownership {
        match self.claims.get(&address).map(|claim| claim.state) {
            Some(State::Announced { .. }) => Ownership::Announced,
            Some(State::Probing { .. } | State::Deferred { .. }) => Ownership::Pending,
            None => Ownership::None,
        }
    }

    /// How many addresses this node is to own, announced or not.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The station that conflicts with each claim.
    pub fn conflicts(&self) -> impl Iterator<Item = (IpAddr, MacAddress, ConflictKind)> {
        self.conflicting.iter().map(|(address, (mac, kind))| (*address, *mac, *kind))
    }

    /// This node is to answer for the address. Harmless for an address that it announces already.
    pub fn handle_owned(&mut self, address: IpAddr, acquisition: &Acquisition, now: Instant) {
        let known = self.claims.get(&address);
        let is_news = known
            .is_none_or(|claim| claim.acquisition != *acquisition && !matches!(claim.state, State::Announced { .. }));
        if is_news {
            self.leave_queue(address);
            let claim = Claim { acquisition: acquisition.clone(), state: beginning(acquisition), next: Next::Never };
            if matches!(claim.state, State::Announced { .. }) {
                self.over(address);
            }
            self.claims.insert(address, claim);
            self.turned.insert(address);
            self.begin(address, now);
        }
    }

    /// This node is no longer to answer for the address. Nothing is sent about it from here on, not even a farewell: the new
    /// owner announces it, and neighbours could take a later frame of this node for the newer truth.
    pub fn handle_disowned(&mut self, address: IpAddr) {
        self.leave_queue(address);
        self.claims.remove(&address);
        self.turned.insert(address);
        self.conflicts.forget(address);
        self.over(address);
    }

    /// The link can carry frames (again), or has another MAC: everything announced is announced anew, everything else is
    /// probed anew.
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

    /// Another station claims an address. `is_member`: the station is another agent of the cluster.
    pub fn handle_claimant(&mut self, claimant: Claimant, is_member: bool, now: Instant) {
        let Some(claim) = self.claims.get(&claimant.address) else { return };
        match claim.state {
            State::Probing { deferrals, .. } => self.defer(claimant, deferrals + 1, is_member, now),
            // It answers another station, or asks in its own name: only a new MAC is news.
            State::Deferred { .. } => self.report_deferral(claimant, is_member),
            State::Announced { on_probation_until: Some(end), .. } if now < end && !is_member => {
                self.defer(claimant, 1, is_member, now);
            }
            State::Announced { .. } => self.defend(claimant, is_member, now),
        }
    }

    /// Another station probes an address that this node probes too. The lower MAC wins: of two agents one has the address at
    /// once, while a foreign host that follows RFC 5227 defers to both.
    pub fn handle_rival(&mut self, claimant: Claimant, our_mac: MacAddress, is_member: bool, now: Instant) {
        let Some(claim) = self.claims.get(&claimant.address) else { return };
        match claim.state {
            State::Probing { deferrals, .. } if claimant.mac < our_mac => {
                self.defer(claimant, deferrals + 1, is_member, now);
            }
            State::Probing { .. } | State::Deferred { .. } | State::Announced { .. } => {}
        }
    }

    /// The next frame to send now. Urgent frames go before repetitions, however many wait.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        while let Some((due, address)) = self.waits.first().copied().filter(|(due, _)| *due <= now) {
            self.waits.remove(&(due, address));
            self.end_wait(address, now);
        }
        while let Some(address) = self.conflicts.poll_over(now) {
            self.over(address);
        }
        let address = self.schedule.poll(now)?;
        let claim = self.claims.get_mut(&address)?;
        match claim.state {
            State::Probing { sent, deferrals } => {
                self.schedule.spend(1, now);
                let sent = sent + 1;
                claim.state = State::Probing { sent, deferrals };
                claim.next = Next::Never;
                if let Some(Probing { probes, interval, .. }) = settings::probing(&claim.acquisition) {
                    let next = if sent < probes {
                        Next::Frame(lane(&claim.acquisition), now + interval)
                    } else {
                        Next::Wait(now + interval)
                    };
                    self.enter_queue(address, next);
                }
                Some(Action::Probe(address))
            }
            State::Announced { round, on_probation_until } => {
                self.schedule.spend(Protocol::of(address).frames_of_an_announcement(), now);
                let round = round.saturating_add(1);
                claim.state = State::Announced { round, on_probation_until };
                claim.next = Next::Never;
                let next = if round < ROUNDS {
                    Next::Frame(Lane::Repeat, now + ROUND_INTERVAL)
                } else {
                    Next::Frame(Lane::Refresh, now + self.refresh_interval())
                };
                self.enter_queue(address, next);
                Some(Action::Announce(address))
            }
            // A deferred claim waits and sends nothing.
            State::Deferred { .. } => None,
        }
    }

    /// The next report, oldest first.
    pub fn poll_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    /// An address whose ownership may have changed since this last named it.
    pub fn poll_turned(&mut self) -> Option<IpAddr> {
        self.turned.pop_first()
    }

    /// The addresses that this node answers for.
    pub fn announced(&self) -> impl Iterator<Item = IpAddr> {
        self.claims
            .iter()
            .filter(|(_, claim)| matches!(claim.state, State::Announced { .. }))
            .map(|(address, _)| *address)
    }

    /// When to poll again; at once if that is in the past.
    pub fn next_deadline(&self) -> Option<Instant> {
        let wait = self.waits.first().map(|(due, _)| *due);
        [wait, self.schedule.next_deadline(), self.conflicts.next_deadline()].into_iter().flatten().min()
    }

    /// Puts a claim at its first step on a link that is up.
    fn begin(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address).filter(|_| self.up) else { return };
        let lane = match &mut claim.state {
            State::Announced { round, .. } => {
                *round = 0;
                Lane::Urgent
            }
            State::Probing { sent, .. } => {
                *sent = 0;
                lane(&claim.acquisition)
            }
            State::Deferred { deferrals } => {
                claim.state = State::Probing { sent: 0, deferrals: *deferrals };
                lane(&claim.acquisition)
            }
        };
        self.enter_queue(address, Next::Frame(lane, now));
    }

    fn end_wait(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address) else { return };
        claim.next = Next::Never;
        match claim.state {
            State::Probing { .. } => {
                let on_probation_until = (claim.acquisition == Acquisition::FirstUse).then(|| now + PROBATION);
                claim.state = State::Announced { round: 0, on_probation_until };
                self.turned.insert(address);
                self.over(address);
            }
            State::Deferred { .. } | State::Announced { .. } => {}
        }
        self.begin(address, now);
    }

    fn defer(&mut self, claimant: Claimant, deferrals: u32, is_member: bool, now: Instant) {
        let address = claimant.address;
        self.leave_queue(address);
        self.conflicts.forget(address);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.state = State::Deferred { deferrals };
            self.turned.insert(address);
            let pause = pause(&claim.acquisition, deferrals);
            self.enter_queue(address, Next::Wait(now + pause));
        }
        self.report_deferral(claimant, is_member);
    }

    fn report_deferral(&mut self, claimant: Claimant, is_member: bool) {
        let Some(claim) = self.claims.get(&claimant.address) else { return };
        let kind = match claim.acquisition {
            Acquisition::TakeOver { .. } => ConflictKind::AliveUnheard,
            Acquisition::FirstUse | Acquisition::HandOver if is_member => ConflictKind::AliveUnheard,
            Acquisition::FirstUse | Acquisition::HandOver => ConflictKind::Occupied,
        };
        if self.conflicting.insert(claimant.address, (claimant.mac, kind)) != Some((claimant.mac, kind)) {
            self.reports.push_back(Report::Conflict { claimant, kind, frames: 1 });
        }
    }

    fn defend(&mut self, claimant: Claimant, is_member: bool, now: Instant) {
        let address = claimant.address;
        let response = self.conflicts.handle_claimant(claimant, now);
        if response.defend {
            // RFC 5227 §2.4: the defence is an announcement. Against another agent it waits: if that agent is to own the
            // address, this node is about to hear so, and a defence would only steal the neighbours for a moment.
            let due = if is_member { now + MEMBER_PATIENCE } else { now };
            self.announce_by(address, due);
        }
        let kind = ConflictKind::Contested;
        let before = self.conflicting.insert(address, (claimant.mac, kind));
        let frames = response.report.map(|report| report.frames);
        if let Some(frames) = frames.or((before.map(|(_, kind)| kind) != Some(kind)).then_some(1)) {
            self.reports.push_back(Report::Conflict { claimant, kind, frames });
        }
    }

    /// Moves the next announcement of an address forward to `due`, if it would come later.
    fn announce_by(&mut self, address: IpAddr, due: Instant) {
        let waits = self.claims.get(&address).map(|claim| claim.next);
        if let Some(Next::Frame(_, later)) = waits.filter(|next| matches!(next, Next::Frame(_, at) if *at > due)) {
            debug_assert!(later > due);
            self.leave_queue(address);
            self.enter_queue(address, Next::Frame(Lane::Urgent, due));
        }
    }

    fn over(&mut self, address: IpAddr) {
        if self.conflicting.remove(&address).is_some() {
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
        // Steps of a 64th, in an order that keeps consecutive refreshes far apart.
        let step = self.refreshes.wrapping_mul(37) % 64;
        REFRESH_INTERVAL - REFRESH_SPREAD * step / 64
    }
}

/// The state that a claim begins in.
fn beginning(acquisition: &Acquisition) -> State {
    match settings::probing(acquisition) {
        Some(_) => State::Probing { sent: 0, deferrals: 0 },
        None => State::Announced { round: 0, on_probation_until: None },
    }
}

/// The lane of the probes of a claim.
fn lane(acquisition: &Acquisition) -> Lane {
    match acquisition {
        Acquisition::TakeOver { .. } | Acquisition::HandOver => Lane::Urgent,
        Acquisition::FirstUse => Lane::Probe,
    }
}

/// How long to wait after this number of deferrals in a row.
fn pause(acquisition: &Acquisition, deferrals: u32) -> Duration {
    // A claim that comes by a hand-over is never probed, so it never defers.
    let Some(Probing { first_pause, longest_pause, .. }) = settings::probing(acquisition) else {
        return Duration::ZERO;
    };
    let doublings = deferrals.saturating_sub(1).min(16);
    first_pause.saturating_mul(1 << doublings).min(longest_pause)
}

#[cfg(test)]
mod tests;
