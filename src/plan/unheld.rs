//! Which addresses of the pools nobody holds, as runs, so that neither a choice nor a release walks past all that are held.
//! Floor 1. Not for who holds the others, nor for whether an address that nobody holds may be chosen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::AddressRange;

/// The addresses that nobody holds: runs that neither touch nor overlap, each by its first address with its last.
#[derive(Debug, Default)]
pub struct Unheld {
    runs: BTreeMap<IpAddr, IpAddr>,
}

impl Unheld {
    /// Of ranges of which nobody holds anything yet. They do not overlap: the configuration was checked.
    pub fn new<'a>(ranges: impl IntoIterator<Item = &'a AddressRange>) -> Unheld {
        Unheld { runs: ranges.into_iter().map(|range| (range.first(), range.last())).collect() }
    }

    /// Somebody holds the address from now on.
    pub fn take(&mut self, address: IpAddr) {
        let Some((&first, &last)) = self.runs.range(..=address).next_back() else { return };
        if address > last {
            return;
        }
        self.runs.remove(&first);
        if let Some(before) = previous(address).filter(|_| address != first) {
            self.runs.insert(first, before);
        }
        if let Some(after) = next(address).filter(|_| address != last) {
            self.runs.insert(after, last);
        }
    }

    /// Nobody holds the address any more. It lies in a pool.
    pub fn give_back(&mut self, address: IpAddr) {
        let (mut first, mut last) = (address, address);
        if let Some((&start, &end)) = self.runs.range(..=address).next_back() {
            if end >= address {
                return;
            }
            if next(end) == Some(address) {
                first = start;
            }
        }
        if let Some(end) = next(address).and_then(|after| self.runs.remove(&after)) {
            last = end;
        }
        self.runs.insert(first, last);
    }

    /// The addresses of a range that nobody holds, lowest first.
    pub fn within(&self, range: AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
        let (first, last) = (range.first(), range.last());
        let around = self.runs.range(..first).next_back();
        let runs = around.into_iter().chain(self.runs.range(first..=last));
        runs.filter_map(move |(start, end)| AddressRange::new(*start.max(&first), *end.min(&last)).ok())
            .flat_map(|run| run.iter())
    }
}

fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().expect("a range")
    }

    #[test]
    fn whatever_is_taken_and_given_back_the_runs_say_what_a_plain_set_says() {
        let ranges =
            ["255.255.255.250-255.255.255.255", "192.0.2.0/28", "192.0.2.16/28", "::/124", "fd00::10-fd00::1f"]
                .map(range);
        let mut rng = fastrand::Rng::with_seed(7);
        let mut unheld = Unheld::new(&ranges);
        let mut plain: BTreeSet<IpAddr> = ranges.iter().flat_map(AddressRange::iter).collect();
        let all: Vec<IpAddr> = plain.iter().copied().collect();
        for round in 0..20_000 {
            let address = all[rng.usize(..all.len())];
            match rng.bool() {
                true => {
                    unheld.take(address);
                    plain.remove(&address);
                }
                false => {
                    unheld.give_back(address);
                    plain.insert(address);
                }
            }
            for range in &ranges {
                let expected: Vec<_> = plain.iter().copied().filter(|address| range.contains(*address)).collect();
                assert_eq!(unheld.within(*range).collect::<Vec<_>>(), expected, "{range}, round {round}");
            }
            let separate = unheld.runs.iter().zip(unheld.runs.iter().skip(1)).all(|((_, end), (start, _))| end < start);
            assert!(separate, "{:?}", unheld.runs);
        }
    }

    #[test]
    fn an_address_outside_all_runs_changes_nothing_when_it_is_taken() {
        let mut unheld = Unheld::new(&[range("192.0.2.4/30")]);
        for outside in ["192.0.2.3", "192.0.2.8", "::1", "0.0.0.0"] {
            unheld.take(outside.parse().expect("an address"));
        }
        assert_eq!(unheld.within(range("192.0.2.0/24")).count(), 4);
    }
}
