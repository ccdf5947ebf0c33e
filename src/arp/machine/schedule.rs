//! When to send the next frame for each address: four lanes by urgency, and one bound on the rate of all frames.
//! Floor 1. It does not know what the frames are for; `machine` does.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use crate::arp::settings::{FRAME_BURST, FRAME_SPACING};

/// Which of the frames that are due goes first, in the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Traffic may go to the wrong node until this frame is sent.
    Urgent,
    /// A Service waits for the verdict of the probes.
    Probe,
    /// It was sent before, and is repeated for neighbours that missed it.
    Repeat,
    Refresh,
}

/// The frames that wait to be sent on one link: one entry for each address.
///
/// Put and take entries; call `poll` until it answers `None`, and `spend` for each frame sent; come back at
/// `next_deadline`. Time must not go backwards.
#[derive(Debug, Default)]
pub struct Schedule {
    lanes: [BTreeSet<(Instant, IpAddr)>; 4],
    pace: Pace,
}

impl Schedule {
    pub fn put(&mut self, lane: Lane, due: Instant, address: IpAddr) {
        self.lane(lane).insert((due, address));
    }

    pub fn take(&mut self, lane: Lane, due: Instant, address: IpAddr) {
        self.lane(lane).remove(&(due, address));
    }

    pub fn clear(&mut self) {
        self.lanes = Default::default();
    }

    /// Takes the most urgent entry that is due, if the pace allows a frame now.
    pub fn poll(&mut self, now: Instant) -> Option<IpAddr> {
        if !self.pace.allows(now) {
            return None;
        }
        let lane = self.lanes.iter_mut().find(|lane| lane.first().is_some_and(|(due, _)| *due <= now))?;
        lane.pop_first().map(|(_, address)| address)
    }

    /// This many frames were sent.
    pub fn spend(&mut self, frames: u32, now: Instant) {
        self.pace.spend(frames, now);
    }

    /// When to poll again; at once, if that is in the past. `None`: there is nothing to send.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = self.lanes.iter().filter_map(|lane| lane.first()).map(|(due, _)| *due).min()?;
        Some(self.pace.earliest(due))
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeSet<(Instant, IpAddr)> {
        let [urgent, probe, repeat, refresh] = &mut self.lanes;
        match lane {
            Lane::Urgent => urgent,
            Lane::Probe => probe,
            Lane::Repeat => repeat,
            Lane::Refresh => refresh,
        }
    }
}

/// Spreads frames over time, so that answers pass between them and no switch takes them for a storm: one frame each
/// `FRAME_SPACING` on average, and up to `FRAME_BURST` at once after a silence.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// When the frames sent so far would be over if each took `FRAME_SPACING`.
    paid_until: Option<Instant>,
}

impl Pace {
    fn allows(&self, now: Instant) -> bool {
        self.earliest(now) <= now
    }

    fn spend(&mut self, frames: u32, now: Instant) {
        self.paid_until = Some(self.paid_until.map_or(now, |paid| paid.max(now)) + FRAME_SPACING * frames);
    }

    /// The first moment from `due` on that allows a frame.
    fn earliest(&self, due: Instant) -> Instant {
        let free = self.paid_until.and_then(|paid| paid.checked_sub(FRAME_SPACING * (FRAME_BURST - 1)));
        free.map_or(due, |free| due.max(free))
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
        schedule.put(Lane::Refresh, start, address(1));
        schedule.put(Lane::Repeat, start, address(2));
        schedule.put(Lane::Probe, later, address(3));
        schedule.put(Lane::Probe, start, address(4));
        schedule.put(Lane::Urgent, later, address(5));
        schedule.put(Lane::Urgent, start, address(6));
        schedule.take(Lane::Urgent, start, address(6));
        let order: Vec<_> = std::iter::from_fn(|| schedule.poll(later)).collect();
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
                schedule.spend(2, now);
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
