//! What other stations claim, and what becomes of this node's claims then: it defers, defends, disputes, or leaves the
//! decision to the plan. Floor 1. The other half of [`Claims`]: `machine` holds the states and sends.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::answer::Ownership;
use super::conflict::Response;
use super::dispute::Step;
use super::schedule::Lane;
use super::{Action, Claim, Claims, Heard, Next, Report, State, former};
use crate::address::MacAddress;
use crate::arp::packet::{Claimant, Protocol};
use crate::arp::settings::{
    self, DEAF_PAUSE, DEAF_QUESTION, HASTEN_INTERVAL, MEMBER_PATIENCE, ONCE_MORE_AFTER, PROBATION, Probing,
    STANDBY_PATIENCE, STANDBY_SPACING, UNSETTLED_FOR, YIELD_PAUSE,
};
use crate::claim::{Acquisition, ConflictKind, Hearing};

impl Claims {
    /// A valid frame of another station, whatever it is about: it may show a Node's station, or that one hears this node. To be
    /// called before the frame's verdict is acted on.
    pub fn handle_heard(&mut self, heard: Heard, now: Instant) {
        let Heard { speaker, says, asks, answers_us } = heard;
        self.end_silence();
        if std::mem::take(&mut self.hears_nobody) {
            self.ask_anew(now);
        }
        if answers_us {
            self.end_deafness(speaker, now);
        }
        self.answered_by = answers_us.then_some(speaker);
        if says.is_some_and(|address| self.stations.handle_speaker(address, speaker)) {
            self.name(speaker);
        }
        self.stations.note_heard(speaker, now);
        if answers_us {
            self.formers.handle_hears_us(speaker, now);
        }
        if let (Some(asked), Some(_)) = (asks, says)
            && !self.formers.is_empty()
            && self.ownership(asked) == Ownership::Announced
            && self.stations.hearing(speaker) == Some(Hearing::Unheard)
        {
            let askable = self.is_askable(speaker);
            self.formers.handle_question(speaker, askable, now);
        }
        if self.disputes.is_empty() {
            return;
        }
        if answers_us {
            self.disputes.handle_hears_us(speaker, now);
        }
        if let Some(address) = asks.filter(|_| says.is_none()) {
            // It asks as one that does not have it: it gave way, and neighbours may still believe it.
            for address in self.disputes.handle_asker(address, speaker, now) {
                self.announce_by(address, self.lane_of_defence(address, true, now), now);
                self.conflicts.forget(address);
                self.over(address);
            }
        }
    }

    /// Another station claims an address.
    pub fn handle_claimant(&mut self, claimant: Claimant, now: Instant) {
        let Claimant { address, mac } = claimant;
        let Some(claim) = self.claims.get(&address).filter(|claim| !claim.ignores(mac)) else { return };
        let hearing = self.stations.hearing(mac);
        let asks_first = claim.errand.manner.probe || claim.is_standby();
        let is_announced = matches!(claim.state, State::Announced(_));
        // Who answers this node receives something, whatever its pulses said a moment ago.
        let hearing = match hearing {
            Some(Hearing::ReceivesNothing) if self.answered_by == Some(mac) && !is_announced => Some(Hearing::Unheard),
            hearing => hearing,
        };
        let was_taken = self.formers.is_from(address, mac);
        let state = claim.state;
        if hearing == Some(Hearing::Unheard) && !self.formers.is_empty() {
            let askable = self.is_askable(mac);
            self.formers.handle_claim(mac, askable, now);
        }
        let Some(claim) = self.claims.get(&address) else { return };
        match (state, hearing) {
            // It has said goodbye: these are its last words.
            (State::Probing { .. } | State::Deferred { .. }, Some(Hearing::Leaving | Hearing::ReceivesNothing)) => {}
            // Where nobody is asked before an address is used, only other nodes are given way to.
            (State::Probing { .. } | State::Deferred { .. }, None) if !asks_first => {}
            (State::Probing { .. }, _) => self.defer(claimant, None, now),
            // It answers another station, or asks in its own name: only a new MAC is news.
            (State::Deferred { deaf }, _) => {
                if deaf {
                    self.leave_queue(address);
                    self.enter_queue(address, Next::Wait(now + DEAF_PAUSE));
                }
                self.note_left_to(address, mac);
                self.report_deferral(claimant, now);
            }
            (State::Announced(announced), Some(Hearing::Unheard)) => {
                // While the link was down, the others went on.
                let until = self.came_up.map(|at| at + PROBATION).max(Some(announced.on_probation_until));
                let on_probation = until.is_some_and(|until| now < until);
                // It was only cut off, and had the address before.
                let gives_way = on_probation || was_taken;
                if gives_way { self.defer(claimant, None, now) } else { self.dispute(claimant, now) }
            }
            (State::Announced(_), Some(Hearing::Deaf)) => self.defer(claimant, Some(DEAF_PAUSE), now),
            (State::Announced(_), Some(Hearing::ReceivesNothing)) => {
                // Neighbours believed it, and it answers none of them. Its frames and this node's may arrive in another order.
                let lane = claim.lane(Lane::Repeat, now);
                self.note_conflict(claimant, now);
                self.claims.entry(address).and_modify(|claim| claim.once_more = true);
                self.announce_by(address, lane, now);
            }
            (State::Announced(_), Some(Hearing::Leaving)) => {
                // Its last words, and neighbours may have heard them after those of this node.
                let lane = claim.lane(Lane::Repeat, now);
                if self.note_conflict(claimant, now).defend {
                    self.announce_by(address, lane, now + ONCE_MORE_AFTER);
                }
            }
            (State::Announced(announced), Some(Hearing::Heard)) => {
                // It may have been handed the address this very moment: a repetition of this node would undo its word. Where this
                // one was, too, the better of the two goes on, and says so soon.
                let patience = if announced.is_to_follow() { ONCE_MORE_AFTER } else { MEMBER_PATIENCE };
                self.hold_back(address, now + patience);
                self.defend(claimant, true, now);
            }
            (State::Announced(announced), None) => {
                // A node that handed the address over had it before that host.
                let may_be_late = asks_first && claim.errand.acquisition != Acquisition::HandOver;
                self.stations.handle_stranger(now);
                if may_be_late && now < announced.on_probation_until {
                    self.defer(claimant, None, now);
                } else {
                    self.defend(claimant, false, now);
                }
            }
        }
    }

    /// Another station probes an address that this node probes too. The lower MAC wins: of two agents one has the address at
    /// once, while a foreign host that follows RFC 5227 defers to both.
    pub fn handle_rival(&mut self, claimant: Claimant, now: Instant) {
        self.load.add_rival(now);
        let Claimant { address, mac } = claimant;
        let Some(claim) = self.claims.get(&address).filter(|claim| !claim.ignores(mac)) else { return };
        match claim.state {
            // Whoever else asks takes the address if nobody answers.
            State::Probing { .. } | State::Deferred { deaf: false }
                if claim.is_standby() && claim.patient_until.is_some_and(|until| now < until) =>
            {
                self.leave_question_to_others(address, now);
            }
            State::Probing { .. }
                if mac < self.stations.own_mac()
                    && !matches!(self.stations.hearing(mac), Some(Hearing::Leaving | Hearing::ReceivesNothing)) =>
            {
                // Of a node that is heard the plan knows what it does. The two do not ask at the same moment again, so that each hears a
                // third one that has the address.
                if self.stations.hearing(mac) == Some(Hearing::Heard) {
                    let pause = claim.pause() * 5 / 4;
                    self.leave_to(claimant, Some(pause), now);
                } else {
                    self.defer(claimant, None, now);
                }
            }
            State::Probing { .. } | State::Deferred { .. } | State::Announced(_) => {}
        }
    }

    /// What is due about other stations.
    pub(super) fn end_contests(&mut self, now: Instant) {
        while let Some(address) = self.conflicts.poll_over(now) {
            self.over(address);
        }
        while let Some(step) = self.disputes.poll(self.stations.own_mac(), now) {
            self.take_step(step, now);
        }
        self.ask_the_deaf(now);
        self.ask_the_missed(now);
        if !self.unnamed.is_empty() && self.stations.census_ends().is_none_or(|ends| ends <= now) {
            self.name_all(now);
        }
    }

    /// When `end_contests` has something to do.
    pub(super) fn next_contest(&self) -> Option<Instant> {
        let census = self.stations.census_ends().filter(|_| !self.unnamed.is_empty());
        let deaf = self.deaf.values().min().copied();
        let all = [self.conflicts.next_deadline(), self.disputes.next_deadline(), census, deaf, self.next_missed()];
        all.into_iter().flatten().min()
    }

    /// A station to which addresses were left has ceased to answer for one: they are all asked for at once, not each after
    /// its pause.
    pub(super) fn hasten(&mut self, mac: MacAddress, now: Instant) {
        if self.hastened.is_some_and(|(last, at)| last == mac && now < at + HASTEN_INTERVAL) {
            return;
        }
        self.hastened = Some((mac, now));
        let left_to_it = self.claims.iter().filter(|(_, claim)| claim.left_to == Some(mac));
        let addresses: Vec<IpAddr> = left_to_it.map(|(address, _)| *address).collect();
        for address in addresses {
            let Some(claim) = self.claims.get_mut(&address) else { continue };
            if claim.state == (State::Deferred { deaf: false }) && claim.lane(Lane::Urgent, now) == Lane::Urgent {
                claim.state = State::Probing { sent: 0, lane: Lane::Urgent };
                self.leave_queue(address);
                self.enter_queue(address, Next::Frame(Lane::Urgent, now));
            }
        }
    }

    /// Leaves an address to the station that claims it, for `pause` or as long as the acquisition says, and reports it.
    fn defer(&mut self, claimant: Claimant, pause: Option<Duration>, now: Instant) {
        self.leave_to(claimant, pause, now);
        self.report_deferral(claimant, now);
    }

    fn leave_to(&mut self, claimant: Claimant, pause: Option<Duration>, now: Instant) {
        let address = claimant.address;
        self.leave_queue(address);
        self.conflicts.forget(address);
        self.disputes.forget(address);
        self.formers.forget(address);
        self.note_left_to(address, claimant.mac);
        if let Some(claim) = self.claims.get_mut(&address) {
            let was_settled = matches!(claim.state, State::Announced(it) if now >= it.on_probation_until);
            let was_announced = matches!(claim.state, State::Announced(_));
            if was_announced {
                claim.unsettled_until = Some(now + UNSETTLED_FOR);
            }
            claim.deferrals = if was_settled { 1 } else { claim.deferrals.saturating_add(1) };
            claim.state = State::Deferred { deaf: pause == Some(DEAF_PAUSE) };
            self.standing_by = self.standing_by.saturating_add(u32::from(was_announced && claim.is_standby()));
            if pause == Some(DEAF_PAUSE) {
                self.deaf.entry(claimant.mac).or_insert(now + DEAF_QUESTION);
            }
            self.turned.insert(address);
            match pause.or_else(|| (!claim.is_standby()).then(|| claim.pause())) {
                Some(pause) => self.enter_queue(address, Next::Wait(now + pause)),
                None => self.stand_by(address, now),
            }
            // A node that was frozen or cut off for a moment need not have heard the announcement, so it has no reason to announce
            // anything; neighbours believe this node.
            if was_announced && matches!(self.stations.hearing(claimant.mac), Some(Hearing::Unheard | Hearing::Deaf)) {
                self.pass_on(address, claimant.mac, now);
            }
        }
    }

    /// This node hears again: what it stands by for it asks the link for now.
    fn ask_anew(&mut self, now: Instant) {
        let waits = |claim: &Claim| claim.is_standby() && claim.state == State::Deferred { deaf: false };
        let waiting: Vec<IpAddr> = self.claims.iter().filter(|(_, it)| waits(it)).map(|(it, _)| *it).collect();
        for address in waiting {
            self.leave_queue(address);
            self.begin(address, now);
        }
    }

    /// The station hears this node: what is left to it is asked for like anything else.
    fn end_deafness(&mut self, mac: MacAddress, now: Instant) {
        // Its pulses say that it does not, and it may take this node for a foreign host.
        if self.stations.hearing(mac) == Some(Hearing::Deaf) || self.deaf.remove(&mac).is_none() {
            return;
        }
        for address in self.left_to_deaf(mac) {
            self.leave_queue(address);
            let Some(claim) = self.claims.get_mut(&address) else { continue };
            claim.state = State::Deferred { deaf: false };
            let pause = claim.pause();
            match claim.is_standby() {
                true => self.stand_by(address, now),
                false => self.enter_queue(address, Next::Wait(now + pause)),
            }
        }
    }

    fn left_to_deaf(&self, mac: MacAddress) -> Vec<IpAddr> {
        let is_left = |claim: &Claim| claim.left_to == Some(mac) && claim.state == State::Deferred { deaf: true };
        self.claims.iter().filter(|(_, claim)| is_left(claim)).map(|(address, _)| *address).collect()
    }

    /// Asks stations that do not hear this node whether they do by now.
    fn ask_the_deaf(&mut self, now: Instant) {
        let due: Vec<MacAddress> = self.deaf.iter().filter(|(_, due)| **due <= now).map(|(mac, _)| *mac).collect();
        for mac in due {
            if self.left_to_deaf(mac).is_empty() {
                self.deaf.remove(&mac);
                continue;
            }
            self.deaf.insert(mac, now + DEAF_QUESTION);
            if self.stations.hearing(mac) != Some(Hearing::Deaf) {
                self.stations.ask(mac, now);
            }
        }
    }

    /// A standby that does not answer yet: the link is asked after a pause.
    pub(super) fn stand_by(&mut self, address: IpAddr, now: Instant) {
        let pause = self.standby_pause(address);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.state = State::Deferred { deaf: false };
            claim.patient_until = Some(now + pause * STANDBY_PATIENCE);
            self.enter_queue(address, Next::Wait(now + pause));
        }
    }

    fn leave_question_to_others(&mut self, address: IpAddr, now: Instant) {
        self.leave_queue(address);
        let pause = self.standby_pause(address);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.state = State::Deferred { deaf: false };
            self.enter_queue(address, Next::Wait(now + pause));
        }
    }

    /// With many addresses each is asked for less often. The station that answers for them has more of them, and the first that it does not
    /// answer for hastens the others.
    fn standby_pause(&self, address: IpAddr) -> Duration {
        let of_place = self.claims.get(&address).map(Claim::pause).unwrap_or_default();
        of_place.max(STANDBY_SPACING.saturating_mul(self.standing_by))
    }

    fn note_left_to(&mut self, address: IpAddr, mac: MacAddress) {
        if let Some(claim) = self.claims.get_mut(&address)
            && claim.left_to.replace(mac) != Some(mac)
        {
            self.left.insert(address);
        }
    }

    /// This node answers for an address now that nobody answered for. Whose it was may have been cut off.
    pub(super) fn note_taken(&mut self, address: IpAddr, now: Instant) {
        let Some(claim) = self.claims.get_mut(&address) else { return };
        let left_to = claim.left_to.take();
        let silent = match &claim.errand.acquisition {
            Acquisition::TakeOver { from, suspect: _ } => self.stations.station_of(from),
            Acquisition::FirstUse | Acquisition::HandOver | Acquisition::Standby { place: _ } => None,
        };
        let former = left_to.or(silent).filter(|mac| self.stations.hearing(*mac) == Some(Hearing::Unheard));
        if let Some(mac) = former {
            self.formers.handle_taken(address, mac, left_to.is_some(), now);
        }
    }

    /// The next question to a former holder.
    pub(super) fn poll_former(&mut self, now: Instant) -> Option<Action> {
        if !self.up || self.formers.is_empty() {
            return None;
        }
        loop {
            let recurs = self.schedule.allows(Lane::Recurring, now);
            let hurries = self.schedule.allows(Lane::Urgent, now);
            match self.formers.poll(recurs, hurries, now)? {
                former::Step::Ask { address, hurried } => {
                    self.schedule.spend(if hurried { Lane::Urgent } else { Lane::Recurring }, 1, now);
                    return Some(Action::AskOthers(address));
                }
                former::Step::AskNode(mac) => self.stations.ask(mac, now),
                former::Step::Deaf(mac) => self.give_all_back(mac, now),
            }
            if let Some(action) = self.poll_question(now) {
                return Some(action);
            }
        }
    }

    /// When `poll_former` has something to do.
    pub(super) fn next_former(&self) -> Option<Instant> {
        let hurried = self.formers.next_hurried().map(|due| self.schedule.earliest(Lane::Urgent, due));
        let recurring = self.formers.next_recurring().map(|due| self.schedule.earliest(Lane::Recurring, due));
        [hurried, recurring].into_iter().flatten().min().filter(|_| self.up)
    }

    /// The station does not hear this node: what was taken from it is its again, and so is what it was left for a moment.
    fn give_all_back(&mut self, mac: MacAddress, now: Instant) {
        let taken = self.formers.take(mac);
        let left = self.claims.iter().filter(|(_, claim)| {
            claim.left_to == Some(mac) && matches!(claim.state, State::Probing { .. } | State::Deferred { deaf: false })
        });
        let left: Vec<IpAddr> = left.map(|(address, _)| *address).collect();
        for address in taken.into_iter().chain(left) {
            self.defer(Claimant { address, mac }, Some(DEAF_PAUSE), now);
        }
    }

    fn report_deferral(&mut self, claimant: Claimant, now: Instant) {
        let Claimant { address, mac } = claimant;
        let Some(claim) = self.claims.get(&address) else { return };
        let hearing = self.stations.hearing(mac);
        if claim.is_standby() {
            // Another node is to answer. Which stations are nodes' is worth knowing.
            if hearing.is_none() {
                self.stations.handle_stranger(now);
            }
            self.over(address);
            return;
        }
        let kind = match claim.errand.acquisition {
            Acquisition::TakeOver { .. } => ConflictKind::AliveUnheard,
            Acquisition::FirstUse | Acquisition::HandOver if hearing.is_some() => ConflictKind::AliveUnheard,
            Acquisition::FirstUse | Acquisition::HandOver | Acquisition::Standby { place: _ } => ConflictKind::Occupied,
        };
        if hearing.is_none() {
            self.stations.handle_stranger(now);
        }
        if kind == ConflictKind::Occupied && self.stations.may_be_a_node(mac, now) {
            self.unnamed.insert(address, mac);
            return;
        }
        self.unnamed.remove(&address);
        if self.conflicting.insert(address, (mac, kind)) != Some((mac, kind)) {
            self.reports.push_back(Report::Conflict { claimant, kind, frames: 1 });
        }
    }

    /// The station turned out to be a node's: what was left to it was not left to a foreign host.
    fn name(&mut self, mac: MacAddress) {
        let left_to_it = self.claims.iter().filter(|(_, claim)| claim.left_to == Some(mac));
        self.left.extend(left_to_it.map(|(address, _)| *address));
        let told = self.conflicting.iter().filter(|(_, it)| **it == (mac, ConflictKind::Occupied)).map(|(it, _)| *it);
        let untold = self.unnamed.iter().filter(|(_, it)| **it == mac).map(|(it, _)| *it);
        let addresses: Vec<IpAddr> = told.chain(untold).collect();
        for address in addresses {
            self.unnamed.remove(&address);
            let kind = ConflictKind::AliveUnheard;
            self.conflicting.insert(address, (mac, kind));
            self.reports.push_back(Report::Conflict { claimant: Claimant { address, mac }, kind, frames: 1 });
        }
    }

    /// The census is over: stations that are still unknown are foreign hosts.
    fn name_all(&mut self, now: Instant) {
        for (address, mac) in std::mem::take(&mut self.unnamed) {
            self.report_deferral(Claimant { address, mac }, now);
        }
    }

    fn note_conflict(&mut self, claimant: Claimant, now: Instant) -> Response {
        self.conflicts.handle_claimant(claimant, self.stations.lasts(claimant.mac), now)
    }

    /// Goes on beside a foreign host, or beside a node about which the plan decides.
    fn defend(&mut self, claimant: Claimant, is_heard: bool, now: Instant) {
        let address = claimant.address;
        let response = self.note_conflict(claimant, now);
        if response.defend {
            // RFC 5227 §2.4: the defence is an announcement. Against another agent it waits: if that agent is to own the
            // address, this node is about to hear so, and a defence would only steal the neighbours for a moment.
            let due = if is_heard { now + MEMBER_PATIENCE } else { now };
            self.announce_by(address, self.lane_of_defence(address, response.first, now), due);
        }
        // Where the address is handed over, both answer for a moment, and that is no conflict.
        if is_heard && response.lasted < MEMBER_PATIENCE {
            return;
        }
        self.report_contest(claimant, response.report.map(|report| report.frames));
    }

    /// Goes on beside a node that the plan hears nothing of, until one of the two gives way.
    fn dispute(&mut self, claimant: Claimant, now: Instant) {
        let mac = claimant.mac;
        let is_askable = self.is_askable(mac);
        let step = self.disputes.handle_claim(claimant, is_askable, self.stations.own_mac(), now);
        let response = self.note_conflict(claimant, now);
        self.report_contest(claimant, response.report.map(|report| report.frames));
        if let Some(step) = step {
            self.take_step(step, now);
        }
    }

    /// It can be asked whether it hears this node.
    fn is_askable(&self, mac: MacAddress) -> bool {
        self.stations.address_of(mac).is_some_and(|address| self.speaks(Protocol::of(address)))
    }

    fn take_step(&mut self, step: Step, now: Instant) {
        match step {
            Step::Defend { address, mac, first } => {
                self.announce_by(address, self.lane_of_defence(address, first, now), now);
                if !self.disputes.hears_us(mac, now) {
                    self.stations.ask(mac, now);
                }
            }
            Step::Yield { mac, deaf } => {
                let pause = if deaf { DEAF_PAUSE } else { YIELD_PAUSE };
                for address in self.disputes.take_yielded(mac, deaf, now) {
                    self.defer(Claimant { address, mac }, Some(pause), now);
                }
                if deaf {
                    self.give_all_back(mac, now);
                }
            }
            Step::Settled { address } => {
                self.conflicts.forget(address);
                self.over(address);
            }
        }
    }

    /// Only the first defence goes before other frames.
    fn lane_of_defence(&self, address: IpAddr, is_first: bool, now: Instant) -> Lane {
        let claim = self.claims.get(&address).filter(|_| is_first);
        claim.map_or(Lane::Recurring, |claim| claim.lane(Lane::Urgent, now))
    }

    fn report_contest(&mut self, claimant: Claimant, frames: Option<u64>) {
        let kind = ConflictKind::Contested;
        let before = self.conflicting.insert(claimant.address, (claimant.mac, kind));
        if let Some(frames) = frames.or((before.map(|(_, kind)| kind) != Some(kind)).then_some(1)) {
            self.reports.push_back(Report::Conflict { claimant, kind, frames });
        }
    }

    /// Whether frames of this protocol are received at all: there is an address of its family.
    fn speaks(&self, protocol: Protocol) -> bool {
        let ends = [self.claims.first_key_value(), self.claims.last_key_value()];
        ends.into_iter().flatten().any(|(address, _)| Protocol::of(*address) == protocol)
    }
}

impl Claim {
    fn ignores(&self, mac: MacAddress) -> bool {
        self.errand.manner.ignore_stations.contains(&mac)
    }

    /// How long to wait after this number of deferrals in a row.
    fn pause(&self) -> Duration {
        let Probing { first_pause, longest_pause, .. } = settings::probing(&self.errand.acquisition);
        let doublings = self.deferrals.saturating_sub(1).min(16);
        first_pause.saturating_mul(1 << doublings).min(longest_pause)
    }
}
