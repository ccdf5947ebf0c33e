//! Services that are renumbered: how long each address that leaves has stood beside a new one in the status. Floor 1.
//!
//! The time runs from when this agent, as the one who allocates, first saw both. An agent that takes over counts anew, so an
//! overlap may last longer than was asked for, and is never shorter, whatever the clocks of the hosts say. Each address has its own
//! time: one that begins to leave while others leave already stays as long as they did.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::names::ObjectKey;

/// What stands beside new addresses in the status of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    pub leaving: Vec<IpAddr>,
    /// How long each of them stays.
    pub lasts: Duration,
}

/// The Services with an overlap under way.
#[derive(Debug, Default)]
pub struct Overlaps {
    running: BTreeMap<ObjectKey, Running>,
    /// When each of them has stood so for long enough, until that was told.
    due: BTreeSet<(Instant, ObjectKey)>,
}

#[derive(Debug)]
struct Running {
    /// Since when each address has stood beside a new one.
    begun: BTreeMap<IpAddr, Instant>,
    lasts: Duration,
}

impl Running {
    fn ends(&self) -> impl Iterator<Item = Instant> {
        self.begun.values().map(|since| *since + self.lasts)
    }
}

impl Overlaps {
    /// These stand beside new ones now; or none does.
    pub fn put(&mut self, service: &ObjectKey, overlap: Option<&Overlap>, now: Instant) {
        let before = self.running.remove(service);
        for end in before.iter().flat_map(Running::ends) {
            self.due.remove(&(end, service.clone()));
        }
        let Some(Overlap { leaving, lasts }) = overlap else { return };
        let since = |address: &IpAddr| before.as_ref().and_then(|before| before.begun.get(address)).copied();
        let begun = leaving.iter().map(|address| (*address, since(address).unwrap_or(now))).collect();
        let running = Running { begun, lasts: *lasts };
        // One that was told already is over for whoever asks.
        self.due.extend(running.ends().filter(|end| *end > now).map(|end| (end, service.clone())));
        self.running.insert(service.clone(), running);
    }

    /// The address has stood beside a new one for so long.
    pub fn is_over(&self, service: &ObjectKey, address: IpAddr, lasts: Duration, now: Instant) -> bool {
        let since = self.running.get(service).and_then(|running| running.begun.get(&address));
        since.is_some_and(|since| now >= *since + lasts)
    }

    /// The Services with an address whose overlap is over since the last call.
    pub fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        let mut over = Vec::new();
        while let Some((at, service)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, service));
                break;
            }
            over.push(service);
        }
        over
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn each_address_has_its_own_time_and_another_duration_counts_from_the_same_beginning() {
        let (mut overlaps, start, key) = (Overlaps::default(), clock::now(), ObjectKey::new("shop", "web"));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let [one, two]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().unwrap());
        let overlap =
            |leaving: &[IpAddr], seconds| Overlap { leaving: leaving.to_vec(), lasts: Duration::from_secs(seconds) };
        let is_over = |overlaps: &Overlaps, address, lasts, seconds| {
            overlaps.is_over(&key, address, Duration::from_secs(lasts), at(seconds))
        };
        overlaps.put(&key, Some(&overlap(&[one], 6)), at(0));
        overlaps.put(&key, Some(&overlap(&[one, two], 6)), at(4));
        assert!(is_over(&overlaps, one, 6, 6) && !is_over(&overlaps, two, 6, 9) && is_over(&overlaps, two, 6, 10));
        assert!(overlaps.take_due(at(5)).is_empty());
        assert_eq!(overlaps.take_due(at(6)), std::slice::from_ref(&key));
        overlaps.put(&key, Some(&overlap(&[two], 6)), at(6));
        assert_eq!(overlaps.next_deadline(), Some(at(10)));
        overlaps.put(&key, Some(&overlap(&[two], 60)), at(7));
        assert_eq!(overlaps.next_deadline(), Some(at(64)));
        assert!(!is_over(&overlaps, two, 60, 63));
        overlaps.put(&key, None, at(8));
        assert!(overlaps.next_deadline().is_none() && !is_over(&overlaps, two, 6, 99));
    }
}
