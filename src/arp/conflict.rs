//! Who else claims the addresses of this node on one link, and when a person should hear of it (again).
//! Floor 1. It only remembers: to yield or to defend by rank (RFC 5227 §2.4) is decided here once ranks are known on
//! the link, and `handle_claimant` will then answer with that too.
//!
//! Gap (RFC 5227 §2.4): a conflict is counted and told, neither yielded to nor defended against.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::answer::Claimant;
use crate::address::MacAddress;

/// The conflicts of one link. Holds at most one entry for each owned address, whatever the network sends.
#[derive(Debug, Default)]
pub struct Conflicts {
    seen: BTreeMap<Ipv4Addr, Conflict>,
}

/// Somebody else's claim to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// Who claimed it last.
    pub mac: MacAddress,
    /// How many frames said so.
    pub frames: u64,
    pub last_seen: Instant,
    reported: Instant,
    frames_when_reported: u64,
}

/// A conflict that a person should hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub claimant: Claimant,
    /// Frames since the last report, this one included.
    pub frames: u64,
}

impl Conflicts {
    /// Somebody else claimed an address of ours. A report comes for the first claim and then at most once in
    /// `REPORT_INTERVAL` for each address, however often and under however many MACs it is claimed.
    pub fn handle_claimant(&mut self, claimant: Claimant, now: Instant) -> Option<Report> {
        let Claimant { address, mac } = claimant;
        let Some(conflict) = self.seen.get_mut(&address) else {
            let first = Conflict { mac, frames: 1, last_seen: now, reported: now, frames_when_reported: 1 };
            self.seen.insert(address, first);
            return Some(Report { claimant, frames: 1 });
        };
        conflict.mac = mac;
        conflict.frames = conflict.frames.saturating_add(1);
        conflict.last_seen = now;
        if now < conflict.reported + REPORT_INTERVAL {
            return None;
        }
        let frames = conflict.frames - conflict.frames_when_reported;
        conflict.reported = now;
        conflict.frames_when_reported = conflict.frames;
        Some(Report { claimant, frames })
    }

    /// The address is no longer ours, so nobody is in our way.
    pub fn handle_disowned(&mut self, address: Ipv4Addr) {
        self.seen.remove(&address);
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &Conflict)> {
        self.seen.iter().map(|(address, conflict)| (*address, conflict))
    }
}

/// How often one address may fill the log. A conflict that lasts is looked up in `status`, not counted in log lines.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

    fn claimant(last: u8) -> Claimant {
        Claimant { address: ADDRESS, mac: MacAddress([2, 0, 0, 0, 0, last]) }
    }

    #[test]
    fn the_first_claim_is_reported_and_a_flood_of_them_once_a_minute() {
        let start = clock::now();
        let mut conflicts = Conflicts::default();
        let reports: Vec<Report> = (0..600u64)
            .filter_map(|tick| {
                conflicts.handle_claimant(claimant((tick % 7) as u8), start + Duration::from_millis(200 * tick))
            })
            .collect();
        assert_eq!(reports.iter().map(|report| report.frames).collect::<Vec<_>>(), [1, 300]);
        let (address, conflict) = conflicts.iter().next().unwrap();
        assert_eq!((address, conflict.frames), (ADDRESS, 600));
    }

    #[test]
    fn an_address_that_was_given_up_starts_with_a_clean_record() {
        let start = clock::now();
        let mut conflicts = Conflicts::default();
        assert!(conflicts.handle_claimant(claimant(1), start).is_some());
        conflicts.handle_disowned(ADDRESS);
        assert_eq!(conflicts.iter().count(), 0);
        assert!(conflicts.handle_claimant(claimant(1), start).is_some());
    }
}
