//! Other stations that claim addresses which this node announces on one link: when to defend an address, when to report
//! the conflict (again), and when the conflict is over.
//! Floor 1. It remembers and answers; `machine` acts. Addresses that are not announced yet are `machine`'s business alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::address::MacAddress;
use crate::arp::packet::Claimant;
use crate::arp::settings::{DEFEND_INTERVAL, REPORT_INTERVAL};

/// The conflicts of one link: at most one for each address announced, whatever the network sends.
#[derive(Debug, Default)]
pub struct Conflicts {
    seen: BTreeMap<IpAddr, Conflict>,
    /// The same, ordered by when each is over.
    by_end: BTreeSet<(Instant, IpAddr)>,
}

/// Another station's claim to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Conflict {
    /// How many frames claimed the address.
    frames: u64,
    began: Instant,
    /// Unless the address is claimed again.
    over: Instant,
    reported: Instant,
    frames_when_reported: u64,
    defended: Instant,
}

/// What to do about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Announce the address now.
    pub defend: bool,
    /// It is the first claim of this conflict.
    pub first: bool,
    /// How long ago the first claim was.
    pub lasted: Duration,
    pub report: Option<Report>,
}

/// A conflict that should be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub mac: MacAddress,
    /// Frames since the last report, this one included.
    pub frames: u64,
}

impl Conflicts {
    /// Another station claimed an address that this node announces. The first claim calls for a defence and a report. Later
    /// claims call for a defence at most once in `DEFEND_INTERVAL` and for a report at most once in `REPORT_INTERVAL` for
    /// each address, however often and under however many MACs the address is claimed.
    ///
    /// It is over when no claim was heard for as long as `lasts`.
    pub fn handle_claimant(&mut self, claimant: Claimant, lasts: Duration, now: Instant) -> Response {
        let Claimant { address, mac } = claimant;
        let Some(conflict) = self.seen.get_mut(&address) else {
            let first = Conflict {
                frames: 1,
                began: now,
                over: now + lasts,
                reported: now,
                frames_when_reported: 1,
                defended: now,
            };
            self.seen.insert(address, first);
            self.by_end.insert((now + lasts, address));
            let report = Some(Report { mac, frames: 1 });
            return Response { defend: true, first: true, lasted: Duration::ZERO, report };
        };
        self.by_end.remove(&(conflict.over, address));
        conflict.frames = conflict.frames.saturating_add(1);
        conflict.over = now + lasts;
        self.by_end.insert((conflict.over, address));
        // RFC 5227 §2.4 (c): a host "that has been configured to not give up its address under any circumstances" MUST
        // NOT send another defence within DEFEND_INTERVAL, so that two of them do not drown the link.
        let defend = now >= conflict.defended + DEFEND_INTERVAL;
        if defend {
            conflict.defended = now;
        }
        let report = (now >= conflict.reported + REPORT_INTERVAL).then(|| {
            let frames = conflict.frames - conflict.frames_when_reported;
            conflict.reported = now;
            conflict.frames_when_reported = conflict.frames;
            Report { mac, frames }
        });
        let lasted = now.saturating_duration_since(conflict.began);
        Response { defend, first: false, lasted, report }
    }

    /// The address is no longer announced, so there is no conflict.
    pub fn forget(&mut self, address: IpAddr) {
        if let Some(conflict) = self.seen.remove(&address) {
            self.by_end.remove(&(conflict.over, address));
        }
    }

    /// An address that no other station has claimed for long enough. Its conflict is forgotten.
    pub fn poll_over(&mut self, now: Instant) -> Option<IpAddr> {
        let (over, address) = *self.by_end.first()?;
        (now >= over).then(|| {
            self.forget(address);
            address
        })
    }

    /// When to call `poll_over` again.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.by_end.first().map(|(over, _)| *over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arp::settings::CONFLICT_OVER;
    use crate::clock;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 35, 100));

    fn claimant(last: u8) -> Claimant {
        Claimant { address: ADDRESS, mac: MacAddress([2, 0, 0, 0, 0, last]) }
    }

    #[test]
    fn the_first_claim_is_reported_and_defended_and_a_flood_of_them_once_a_minute_and_once_in_ten_seconds() {
        let start = clock::now();
        let mut conflicts = Conflicts::default();
        let responses: Vec<Response> = (0..600u64)
            .map(|tick| {
                conflicts.handle_claimant(
                    claimant((tick % 7) as u8),
                    CONFLICT_OVER,
                    start + Duration::from_millis(200 * tick),
                )
            })
            .collect();
        let reported: Vec<u64> = responses.iter().filter_map(|it| it.report).map(|report| report.frames).collect();
        assert_eq!(reported, [1, 300]);
        let defended: Vec<usize> =
            responses.iter().enumerate().filter_map(|(tick, it)| it.defend.then_some(tick / 5)).collect();
        assert_eq!(defended, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110], "seconds of the defences");
    }

    #[test]
    fn an_address_that_was_given_up_starts_with_a_clean_record() {
        let start = clock::now();
        let mut conflicts = Conflicts::default();
        assert!(conflicts.handle_claimant(claimant(1), CONFLICT_OVER, start).report.is_some());
        conflicts.forget(ADDRESS);
        assert_eq!(conflicts.next_deadline(), None);
        assert!(conflicts.handle_claimant(claimant(1), CONFLICT_OVER, start).report.is_some());
    }

    #[test]
    fn a_claimant_that_falls_silent_is_over_once_and_not_before_its_time() {
        let start = clock::now();
        let mut conflicts = Conflicts::default();
        conflicts.handle_claimant(claimant(1), CONFLICT_OVER, start);
        let heard_again = start + Duration::from_secs(100);
        conflicts.handle_claimant(claimant(1), CONFLICT_OVER, heard_again);
        assert_eq!(conflicts.next_deadline(), Some(heard_again + CONFLICT_OVER));
        assert_eq!(conflicts.poll_over(start + CONFLICT_OVER), None);
        assert_eq!(conflicts.poll_over(heard_again + CONFLICT_OVER), Some(ADDRESS));
        assert_eq!((conflicts.poll_over(heard_again + CONFLICT_OVER), conflicts.next_deadline()), (None, None));
    }
}
