//! When to send the next frame for each address: four lanes by urgency, and the bounds on the rate of all frames.
//! Floor 1. It does not know what the frames are for; `machine` does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::arp::settings::{
    CREDIT, CREDIT_SPACING, FRAME_BURST, FRAME_SPACING, RECURRING_BURST, RECURRING_SPACING, RESERVE,
};

/// Which of the frames that are due goes first, in the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Traffic may go to the wrong node until this frame is sent.
    Urgent,
    /// A Service waits for the verdict of the probes.
    Probe,
    /// It was sent before, and is repeated for neighbours that missed it.
    Repeat,
    /// It is sent from time to time for as long as a state lasts.
    Recurring,
}

/// The frames that wait to be sent on one link: one entry for each address.
///
/// Put and take entries; call `poll` until it answers `None`, and `spend` for each frame sent; come back at
/// `next_deadline`. Time must not go backwards.
#[derive(Debug, Default)]
pub struct Schedule {
    lanes: [BTreeSet<(Instant, IpAddr)>; 4],
    budget: Budget,
}

impl Schedule {
    pub fn put(&mut self, lane: Lane, due: Instant, address: IpAddr) {
        self.lanes[lane.place()].insert((due, address));
    }

    pub fn take(&mut self, lane: Lane, due: Instant, address: IpAddr) {
        self.lanes[lane.place()].remove(&(due, address));
    }

    pub fn clear(&mut self) {
        self.lanes = Default::default();
    }

    /// Takes the most urgent entry that is due and that the budget allows now, with its lane.
    pub fn poll(&mut self, now: Instant) -> Option<(Lane, IpAddr)> {
        let first = |lane: Lane| self.lanes[lane.place()].first();
        let due = |lane: &Lane| first(*lane).is_some_and(|(due, _)| *due <= now && self.allows(*lane, now));
        let lane = Lane::ALL.into_iter().find(due)?;
        self.lanes[lane.place()].pop_first().map(|(_, address)| (lane, address))
    }

    /// Whether a frame of this lane may be sent now.
    pub fn allows(&self, lane: Lane, now: Instant) -> bool {
        self.budget.earliest(lane, now) <= now
    }

    /// The first moment from `due` on at which a frame of this lane may be sent.
    pub fn earliest(&self, lane: Lane, due: Instant) -> Instant {
        self.budget.earliest(lane, due)
    }

    /// This many frames of this lane were sent.
    pub fn spend(&mut self, lane: Lane, frames: u32, now: Instant) {
        self.budget.spend(lane, frames, now);
    }

    /// When to poll again; at once, if that is in the past. `None`: there is nothing to send.
    pub fn next_deadline(&self) -> Option<Instant> {
        let of = |lane: Lane| self.lanes[lane.place()].first().map(|(due, _)| self.budget.earliest(lane, *due));
        Lane::ALL.into_iter().filter_map(of).min()
    }
}

impl Lane {
    const ALL: [Lane; 4] = [Lane::Urgent, Lane::Probe, Lane::Repeat, Lane::Recurring];

    fn place(self) -> usize {
        match self {
            Lane::Urgent => 0,
            Lane::Probe => 1,
            Lane::Repeat => 2,
            Lane::Recurring => 3,
        }
    }
}

/// What bounds the frames of one link in every state: the pace of a moment, the credit of the long run, and the share of what
/// comes again and again. Whatever is sent counts for the first two.
#[derive(Debug)]
struct Budget {
    pace: Bucket,
    credit: Bucket,
    recurring: Bucket,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            pace: Bucket::new(FRAME_SPACING, FRAME_BURST),
            credit: Bucket::new(CREDIT_SPACING, CREDIT),
            recurring: Bucket::new(RECURRING_SPACING, RECURRING_BURST),
        }
    }
}

impl Budget {
    fn earliest(&self, lane: Lane, due: Instant) -> Instant {
        let Budget { pace, credit, recurring } = self;
        let due = pace.earliest(due, 0);
        match lane {
            Lane::Urgent | Lane::Probe => credit.earliest(due, 0),
            Lane::Repeat => credit.earliest(due, RESERVE),
            Lane::Recurring => recurring.earliest(credit.earliest(due, 0), 0),
        }
    }

    fn spend(&mut self, lane: Lane, frames: u32, now: Instant) {
        self.pace.spend(frames, now);
        self.credit.spend(frames, now);
        if lane == Lane::Recurring {
            self.recurring.spend(frames, now);
        }
    }
}

/// One frame each `spacing` on average, and up to `depth` at once after a silence.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    spacing: Duration,
    depth: u32,
    /// When the frames sent so far would be over if each took `spacing`.
    paid_until: Option<Instant>,
}

impl Bucket {
    fn new(spacing: Duration, depth: u32) -> Bucket {
        Bucket { spacing, depth, paid_until: None }
    }

    fn spend(&mut self, frames: u32, now: Instant) {
        self.paid_until = Some(self.paid_until.map_or(now, |paid| paid.max(now)) + self.spacing * frames);
    }

    /// The first moment from `due` on that allows a frame and leaves room for `kept` others.
    fn earliest(&self, due: Instant, kept: u32) -> Instant {
        let ahead = self.spacing * self.depth.saturating_sub(1 + kept);
        self.paid_until.and_then(|paid| paid.checked_sub(ahead)).map_or(due, |free| due.max(free))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + n).into()
    }

    #[test]
    fn the_urgent_goes_first_then_what_was_due_first() {
        let start = clock::now();
        let mut schedule = Schedule::default();
        let later = start + Duration::from_secs(1);
        schedule.put(Lane::Recurring, start, address(1));
        schedule.put(Lane::Repeat, start, address(2));
        schedule.put(Lane::Probe, later, address(3));
        schedule.put(Lane::Probe, start, address(4));
        schedule.put(Lane::Urgent, later, address(5));
        schedule.put(Lane::Urgent, start, address(6));
        schedule.take(Lane::Urgent, start, address(6));
        let order: Vec<_> = std::iter::from_fn(|| schedule.poll(later)).map(|(_, address)| address).collect();
        assert_eq!(order, [5, 4, 3, 2, 1].map(address));
        assert_eq!(schedule.next_deadline(), None);
    }

    #[test]
    fn no_second_has_more_frames_than_the_budget_however_much_is_due() {
        let start = clock::now();
        let mut schedule = Schedule::default();
        (0..30_000).for_each(|n| schedule.put(Lane::Urgent, start, address(n)));
        let mut now = start;
        let mut sent = Vec::new();
        while let Some(deadline) = schedule.next_deadline() {
            now = now.max(deadline);
            while schedule.poll(now).is_some() {
                schedule.spend(Lane::Urgent, 2, now);
                sent.push(now);
            }
        }
        assert_eq!(sent.len(), 30_000);
        let second = Duration::from_secs(1);
        for (index, from) in sent.iter().enumerate().step_by(100) {
            let within = sent[index..].iter().take_while(|at| **at < *from + second).count();
            assert!(2 * within <= 8_000 + 32 + 2, "{} frames within a second", 2 * within);
        }
    }
}
