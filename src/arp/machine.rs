//! The claims of this node to addresses on one link: probe before the first use, announce, refresh, defend, or defer.
//! Floor 1. Time is an argument; what to send and what to report are answers. `packet` makes the frames, `task::worker`
//! sends them, and `settings` holds every interval. What other stations claim is judged in `machine/contest.rs`.
//!
//! ```text
//!                    a hand-over                                        another station claims it:
//!            ┌───────────────────────────────────────────┐              defended and reported ──┐
//! owned ──► probing ── nobody answered in time ──► announced ◄─────────────────────────────────┘
//!            │  ▲                                   │
//!   another  │  │ a pause                           │ another node whose pulses are not heard claims it, or a
//!   station  │  │                                   │ host that was only slow to answer: within `PROBATION`
//!   has it   ▼  │                                   │ at once, later if that node goes on (`dispute`)
//!           deferred ◄──────────────────────────────┘
//! ```
//!
//! The names of the states are RFC 5227's: an address is probed (§2.1), announced (§2.3) and defended (§2.4).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use self::answer::Ownership;
use self::conflict::Conflicts;
use self::dispute::Disputes;
use self::former::Formers;
use self::load::Load;
use self::missing::Missing;
use self::schedule::{Lane, Schedule};
use self::stations::Stations;
use super::packet::{Claimant, Protocol};
use super::settings::{
    self, DEFEND_INTERVAL, FRAME_SPACING, LEAST_DOUBLED, ONCE_MORE_AFTER, PROBATION, Probing, REFRESH_INTERVAL,
    REFRESH_SPREAD, SPANNING_TREE, UNSETTLED_FOR,
};
use crate::address::MacAddress;
use crate::claim::{Acquisition, Answerer, ConflictKind, Errand, Hearing};
use crate::names::NodeName;

pub use self::answer::Heard;
pub use self::stations::Surroundings;

pub mod answer;
mod conflict;
mod contest;
mod dispute;
mod former;
mod load;
mod missing;
mod schedule;
mod stations;

/// The claims of one link.
///
/// How to drive it:
/// - tell it what happened with the `handle_*` functions;
/// - then call `poll_action` until it answers `None` and do each, and `poll_report` until it answers `None`;
/// - come back at `next_deadline`, or never if there is none.
///
/// Time must not go backwards. Spare calls are harmless. A claim starts on a link that is down: nothing is sent before
/// `handle_link_up`. In every state the frames that it asks for stay within the budget of `schedule`.
#[derive(Debug, Default)]
pub struct Claims {
    up: bool,
    /// When it last came up after it had been down.
    came_up: Option<Instant>,
    was_down: bool,
    claims: BTreeMap<IpAddr, Claim>,
    schedule: Schedule,
    /// Waits that end without a frame: verdicts after the last probe, and pauses after a deferral.
    waits: BTreeSet<(Instant, IpAddr)>,
    stations: Stations,
    conflicts: Conflicts,
    disputes: Disputes,
    formers: Formers,
    load: Load,
    /// The station that conflicts with each claim, as last reported.
    conflicting: BTreeMap<IpAddr, (MacAddress, ConflictKind)>,
    /// The stations to which addresses were left, and that may yet turn out to be nodes.
    unnamed: BTreeMap<IpAddr, MacAddress>,
    /// When all that was left to one station was last asked for at once.
    hastened: Option<(MacAddress, Instant)>,
    reports: VecDeque<Report>,
    /// Addresses of other stations that neighbours are to be told of, because they may believe this one, and since when.
    passes: BTreeMap<IpAddr, (Instant, MacAddress)>,
    /// Addresses whose ownership may have changed.
    turned: BTreeSet<IpAddr>,
    /// Addresses that may be left to another station than before, or to none.
    left: BTreeSet<IpAddr>,
    /// How many claims stand by, and do not answer.
    standing_by: u32,
    /// A standby was answered by nobody, and heard nobody else either: the next frame of anybody has all of them ask anew.
    hears_nobody: bool,
    /// Stations that addresses are left to because they do not hear this node, and when each is asked next whether it does.
    deaf: BTreeMap<MacAddress, Instant>,
    missing: Missing,
    /// The station of the newest frame, if that answered a question of this node.
    answered_by: Option<MacAddress>,
    /// Counts refreshes, to spread them over time.
    refreshes: u32,
}

#[derive(Debug)]
struct Claim {
    errand: Errand,
    state: State,
    next: Next,
    /// How often it deferred, not counting what was before it was last announced for longer than `PROBATION`.
    deferrals: u32,
    /// The station that it was last left to.
    left_to: Option<MacAddress>,
    /// When the link was asked first in the round that is under way, or in the last one.
    asked_at: Option<Instant>,
    /// Of a standby: until when it leaves the question to others that ask.
    patient_until: Option<Instant>,
    /// It was handed over: its first announcement is followed by one more soon.
    once_more: bool,
    /// When an assertion was last announced at once.
    asserted: Option<Instant>,
    /// It was given up to another station after it had been announced, or was gained from one. Until this time it may use no
    /// more frames than what comes again and again: gains and losses may repeat themselves.
    unsettled_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `sent` of the probes of `settings::probing` have gone out, all in one lane.
    Probing { sent: u8, lane: Lane },
    /// Another station has it: this node does not answer for it, and probes it again after a pause. `deaf`: that station is a
    /// node's, and does not hear this one.
    Deferred { deaf: bool },
    /// This node answers for it.
    Announced(Announced),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    /// The first announcement since the claim was made, was asserted or the link came up.
    began: Option<Instant>,
    /// Announcements since then, but for one that was followed by one more soon.
    round: usize,
    on_probation_until: Instant,
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
    /// Tell all stations that another station has it: that one does not know that neighbours may believe this node.
    PassOn { address: IpAddr, to: MacAddress },
    /// Ask for the address of a Node in the name of this one, to learn its station's MAC, or whether that hears this one.
    AskNode(IpAddr),
    /// Ask in the name of this node for an address that it answers for: another node may do so too.
    AskOthers(IpAddr),
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
            Some(State::Announced(_)) => Ownership::Announced,
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

    /// The station that answers for an address that this node does not answer for, as far as it was heard.
    pub fn answerer(&self, address: IpAddr) -> Option<Answerer> {
        let claim = self.claims.get(&address).filter(|claim| !matches!(claim.state, State::Announced(_)))?;
        claim.left_to.map(|mac| Answerer { mac, node: self.node(mac).cloned() })
    }

    /// An address for which `answerer` may say something else since this last named it.
    pub fn poll_left(&mut self) -> Option<IpAddr> {
        self.left.pop_first()
    }

    /// The node that a station belongs to.
    pub fn node(&self, mac: MacAddress) -> Option<&NodeName> {
        self.stations.node(mac)
    }

    /// What surrounds the link is now this. A MAC that is another takes effect for announcements at the next
    /// `handle_link_up`.
    pub fn handle_surroundings(&mut self, surroundings: Surroundings) {
        self.stations.handle_surroundings(surroundings);
        // About a node that is heard (again) the plan decides.
        let stations = &self.stations;
        self.disputes.retain(|mac| stations.hearing(mac) == Some(Hearing::Unheard));
        self.formers.retain(|mac| stations.hearing(mac) == Some(Hearing::Unheard));
    }

    /// This node is to answer for the address. Harmless for an address that it announces already, unless the errand asserts
    /// it: then it is announced again.
    pub fn handle_owned(&mut self, address: IpAddr, errand: &Errand, now: Instant) {
        self.passes.remove(&address);
        let Some(claim) = self.claims.get_mut(&address) else {
            self.claim(address, errand.clone(), now);
            return;
        };
        let is_announced = matches!(claim.state, State::Announced(_));
        // Of a station that does not hear this node the plan knows nothing: it is stayed away from whatever is planned.
        let receives_nothing =
            claim.left_to.is_some_and(|mac| self.stations.hearing(mac) == Some(Hearing::ReceivesNothing));
        let is_left_to_deaf = claim.state == State::Deferred { deaf: true }
            && errand.acquisition != Acquisition::HandOver
            && !receives_nothing;
        if !is_announced && claim.errand.acquisition != errand.acquisition && !is_left_to_deaf {
            self.leave_queue(address);
            self.claim(address, errand.clone(), now);
            return;
        }
        // Its holder is about to give it up.
        let is_asked_anew = !is_announced
            && claim.state != State::Deferred { deaf: true }
            && errand.acquisition == Acquisition::FirstUse
            && claim.errand.assertions != errand.assertions;
        if is_asked_anew {
            self.leave_queue(address);
            self.claim(address, errand.clone(), now);
            return;
        }
        let is_asserted = is_announced && claim.errand.assertions != errand.assertions;
        // The acquisition of an address that is announced is how it came here, whatever the plan says later.
        claim.errand = Errand { acquisition: claim.errand.acquisition.clone(), ..errand.clone() };
        if is_asserted {
            self.assert_now(address, now);
        }
    }

    /// This node is no longer to answer for the address. Nothing is sent about it from here on, not even a farewell: the new
    /// owner announces it, and neighbours could take a later frame of this node for the newer truth. Only of one that may not
    /// know that there was another is said where it is.
    pub fn handle_disowned(&mut self, address: IpAddr, now: Instant) {
        self.leave_queue(address);
        let before = self.claims.remove(&address);
        self.count_standby(before.as_ref(), address);
        self.left.insert(address);
        let before = before.map(|claim| claim.state);
        if let (Some(State::Announced(_)), Some(to)) = (before, self.stations.yielded(address)) {
            self.pass_on(address, to, now);
        }
        self.turned.insert(address);
        self.conflicts.forget(address);
        self.disputes.forget(address);
        self.formers.forget(address);
        self.over(address);
    }

    /// The link can carry frames (again), or has another MAC: everything announced is announced anew, everything else is
    /// probed anew.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.up = true;
        if std::mem::take(&mut self.was_down) {
            self.came_up = Some(now);
        }
        let addresses: Vec<IpAddr> = self.claims.keys().copied().collect();
        for address in addresses {
            self.leave_queue(address);
            self.begin_or_stand_by(address, now);
        }
    }

    /// The link can carry no frames: nothing is sent until it can.
    pub fn handle_link_down(&mut self) {
        self.up = false;
        self.was_down = true;
        self.schedule.clear();
        self.passes.clear();
        self.waits.clear();
        self.disputes.clear();
        self.missing = Missing::default();
        self.claims.values_mut().for_each(|claim| claim.next = Next::Never);
    }

    /// The next frame to send now. Urgent frames go before repetitions, however many wait.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if self.stations.is_leaving() {
            return None;
        }
        while let Some((due, address)) = self.waits.first().copied().filter(|(due, _)| *due <= now) {
            self.waits.remove(&(due, address));
            self.end_wait(address, now);
        }
        self.end_contests(now);
        if let Some(action) = self.poll_question(now).or_else(|| self.poll_former(now)) {
            return Some(action);
        }
        let Some((lane, address)) = self.schedule.poll(now) else { return self.poll_pass(now) };
        let claim = self.claims.get_mut(&address)?;
        claim.next = Next::Never;
        match claim.state {
            State::Probing { sent, .. } => {
                self.schedule.spend(lane, 1, now);
                Some(self.probe(address, sent.saturating_add(1), lane, now))
            }
            State::Announced(announced) => {
                self.schedule.spend(lane, Protocol::of(address).frames_of_an_announcement(), now);
                Some(self.announce(address, announced, now))
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
        self.claims.iter().filter(|(_, claim)| matches!(claim.state, State::Announced(_))).map(|(address, _)| *address)
    }

    /// When to poll again; at once if that is in the past.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.stations.is_leaving() {
            return None;
        }
        let wait = self.waits.first().map(|(due, _)| *due);
        let question = self.stations.next_question().filter(|_| self.up);
        let question = question.map(|due| self.schedule.earliest(Lane::Recurring, due));
        let pass = self.passes.values().map(|(since, _)| *since).min().filter(|_| self.up);
        let pass = pass.map(|due| self.schedule.earliest(Lane::Repeat, due));
        let all = [wait, self.schedule.next_deadline(), pass, question, self.next_contest(), self.next_former()];
        all.into_iter().flatten().min()
    }

    /// Neighbours are told where the address is now.
    fn pass_on(&mut self, address: IpAddr, to: MacAddress, now: Instant) {
        if self.up {
            self.passes.insert(address, (now, to));
        }
    }

    fn poll_pass(&mut self, now: Instant) -> Option<Action> {
        if !self.up || !self.schedule.allows(Lane::Repeat, now) {
            return None;
        }
        let (address, (_, to)) = self.passes.pop_first()?;
        self.schedule.spend(Lane::Repeat, Protocol::of(address).frames_of_an_announcement(), now);
        Some(Action::PassOn { address, to })
    }

    fn poll_question(&mut self, now: Instant) -> Option<Action> {
        if !self.up || !self.schedule.allows(Lane::Recurring, now) {
            return None;
        }
        let address = self.stations.poll_question(now)?;
        self.schedule.spend(Lane::Recurring, 1, now);
        Some(Action::AskNode(address))
    }

    fn probe(&mut self, address: IpAddr, sent: u8, lane: Lane, now: Instant) -> Action {
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.state = State::Probing { sent, lane };
            if sent == 1 {
                claim.asked_at = Some(now);
            }
            let Probing { probes, interval, .. } = settings::probing(&claim.errand.acquisition);
            let is_urgent = lane == Lane::Urgent;
            let next = if sent < probes {
                Next::Frame(lane, now + interval)
            } else {
                Next::Wait(now + interval + self.load.to_answer(is_urgent, &claim.errand.acquisition, now))
            };
            let (is_standby, asked_at, left_to) = (claim.is_standby(), claim.asked_at, claim.left_to);
            self.load.add_probe(is_urgent, now);
            self.enter_queue(address, next);
            if is_standby && sent > 1 && self.stations.heard_at() < asked_at {
                self.stations.ask_others(left_to, now);
            }
        }
        Action::Probe(address)
    }

    fn announce(&mut self, address: IpAddr, announced: Announced, now: Instant) -> Action {
        let began = announced.began.unwrap_or(now);
        let refresh = now + self.refresh_interval();
        // A link that came up may carry the first announcements nowhere.
        let again = self.came_up.map(|came_up| came_up + SPANNING_TREE).filter(|again| *again > now);
        if let Some(claim) = self.claims.get_mut(&address) {
            let once_more = std::mem::take(&mut claim.once_more);
            let round = announced.round.saturating_add(usize::from(!once_more));
            claim.state = State::Announced(Announced { began: Some(began), round, ..announced });
            let next = match claim.errand.manner.announce_again.get(round.saturating_sub(1)) {
                _ if once_more => Next::Frame(claim.lane(Lane::Repeat, now), now + ONCE_MORE_AFTER),
                Some(after) => Next::Frame(claim.lane(Lane::Repeat, now), (began + *after).max(now + FRAME_SPACING)),
                None => {
                    // What this node took while the link was cut, its holder goes on with, and no pulse need pass between the two:
                    // only an announcement tells them of each other.
                    let doubled = now + now.saturating_duration_since(began).max(LEAST_DOUBLED);
                    let doubled = Some(doubled).filter(|_| claim.errand.acquisition != Acquisition::HandOver);
                    let sooner = again.into_iter().chain(doubled).min();
                    Next::Frame(Lane::Recurring, sooner.unwrap_or(refresh).min(refresh))
                }
            };
            self.enter_queue(address, next);
        }
        Action::Announce(address)
    }

    /// Makes a claim, or makes one anew.
    fn claim(&mut self, address: IpAddr, errand: Errand, now: Instant) {
        // `begin` chooses the lane.
        let state = match errand.acquisition {
            Acquisition::Standby { place: _ } => State::Deferred { deaf: false },
            Acquisition::FirstUse | Acquisition::TakeOver { .. } if errand.manner.probe => {
                State::Probing { sent: 0, lane: Lane::Probe }
            }
            Acquisition::FirstUse | Acquisition::TakeOver { .. } | Acquisition::HandOver => announced_at(now),
        };
        let asks = !matches!(state, State::Announced(_));
        if !asks {
            self.over(address);
        }
        // After a take-over the frames of many nodes that ask at once are worth more than a second announcement.
        let once_more = errand.acquisition == Acquisition::HandOver;
        let claim = Claim {
            errand,
            state,
            next: Next::Never,
            deferrals: 0,
            left_to: None,
            asked_at: None,
            patient_until: None,
            once_more,
            asserted: None,
            unsettled_until: None,
        };
        let before = self.claims.insert(address, claim);
        self.count_standby(before.as_ref(), address);
        self.left.insert(address);
        self.formers.forget(address);
        self.turned.insert(address);
        self.begin_or_stand_by(address, now);
    }

    /// The same, but that a standby first waits.
    fn begin_or_stand_by(&mut self, address: IpAddr, now: Instant) {
        match self.claims.get(&address).is_some_and(Claim::stands_by) {
            true => self.stand_by(address, now),
            false => self.begin(address, now),
        }
    }

    /// What the claim of an address was, and is none or another one now.
    fn count_standby(&mut self, before: Option<&Claim>, address: IpAddr) {
        let (was, is) = (before.is_some_and(Claim::stands_by), self.claims.get(&address).is_some_and(Claim::stands_by));
        self.standing_by = self.standing_by.saturating_add(u32::from(is)).saturating_sub(u32::from(was));
    }

    /// Puts a claim at its first step on a link that is up.
    fn begin(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address).filter(|_| self.up) else { return };
        let mut due = now;
        let lane = match &mut claim.state {
            State::Announced(announced) => {
                (announced.began, announced.round) = (None, 0);
                // Before all that is only repeated: the first that is due in a lane goes first.
                due = now.checked_sub(UNSETTLED_FOR).unwrap_or(now);
                claim.lane(Lane::Urgent, now)
            }
            State::Probing { .. } | State::Deferred { .. } => {
                let lane = match &claim.errand.acquisition {
                    // Asked for again and again for as long as the other station has it.
                    _ if claim.deferrals > 0 => Lane::Recurring,
                    Acquisition::Standby { place: _ } => Lane::Recurring,
                    Acquisition::TakeOver { .. } => Lane::Urgent,
                    Acquisition::FirstUse | Acquisition::HandOver => Lane::Probe,
                };
                claim.state = State::Probing { sent: 0, lane };
                lane
            }
        };
        self.enter_queue(address, Next::Frame(lane, due));
    }

    fn end_wait(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address) else { return };
        claim.next = Next::Never;
        if claim.is_standby()
            && matches!(claim.state, State::Probing { .. })
            && self.stations.heard_at() < claim.asked_at
            && self.stations.knows_others(claim.left_to)
        {
            self.hears_nobody = true;
            self.stand_by(address, now);
            return;
        }
        match claim.state {
            State::Probing { lane, .. } => {
                // A standby asks in that lane before it ever had the address.
                if lane == Lane::Recurring && !claim.is_standby() {
                    claim.unsettled_until = Some(now + UNSETTLED_FOR);
                }
                let stood_by = claim.stands_by();
                claim.state = announced_at(now);
                self.standing_by = self.standing_by.saturating_sub(u32::from(stood_by));
                let left_to = claim.left_to;
                self.turned.insert(address);
                self.left.insert(address);
                self.note_taken(address, now);
                if let Some(mac) = left_to {
                    self.hasten(mac, now);
                }
                self.over(address);
            }
            State::Deferred { .. } | State::Announced(_) => {}
        }
        self.begin(address, now);
    }

    /// Announces an address now and as often again as after a move: neighbours may believe another station.
    fn assert_now(&mut self, address: IpAddr, now: Instant) {
        self.leave_queue(address);
        let Some(claim) = self.claims.get_mut(&address) else { return };
        let State::Announced(announced) = &mut claim.state else { return };
        (announced.began, announced.round) = (None, 0);
        // What is asserted again and again waits its turn.
        let at_once = claim.asserted.is_none_or(|asserted| now >= asserted + DEFEND_INTERVAL);
        if at_once {
            claim.asserted = Some(now);
        }
        self.enter_queue(address, Next::Frame(if at_once { Lane::Urgent } else { Lane::Recurring }, now));
    }

    /// Moves the next announcement of an address forward to `due`, if it would come later.
    fn announce_by(&mut self, address: IpAddr, lane: Lane, due: Instant) {
        let waits = self.claims.get(&address).map(|claim| claim.next);
        if waits.is_some_and(|next| matches!(next, Next::Frame(_, at) if at > due)) {
            self.leave_queue(address);
            self.enter_queue(address, Next::Frame(lane, due));
        }
    }

    /// Puts the next frame about an address off until `least`, if it would come earlier.
    fn hold_back(&mut self, address: IpAddr, least: Instant) {
        let waits = self.claims.get(&address).map(|claim| claim.next);
        if let Some(Next::Frame(lane, due)) = waits
            && due < least
        {
            self.leave_queue(address);
            self.enter_queue(address, Next::Frame(lane, least));
        }
    }

    fn over(&mut self, address: IpAddr) {
        self.unnamed.remove(&address);
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

impl Announced {
    /// It was announced once, and is announced once more soon.
    fn is_to_follow(self) -> bool {
        self.began.is_some() && self.round == 0
    }
}

impl Claim {
    fn is_standby(&self) -> bool {
        matches!(self.errand.acquisition, Acquisition::Standby { place: _ })
    }

    fn stands_by(&self) -> bool {
        self.is_standby() && !matches!(self.state, State::Announced(_))
    }

    /// The lane for a frame that would go in this one if the claim were settled.
    fn lane(&self, lane: Lane, now: Instant) -> Lane {
        if self.unsettled_until.is_some_and(|until| now < until) { Lane::Recurring } else { lane }
    }
}

fn announced_at(now: Instant) -> State {
    State::Announced(Announced { began: None, round: 0, on_probation_until: now + PROBATION })
}

#[cfg(test)]
mod tests;
