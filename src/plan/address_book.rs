//! The address book: which Service holds which address, what was freed a moment ago, and what is taken on the link.
//! Floor 1. It records and decides nothing: `allocate` chooses addresses, the verdict about a Service keeps or loses them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use crate::address::AddressRange;
use crate::config::Pool;
use crate::names::ObjectKey;

/// Who holds which address, and which were freed a moment ago.
#[derive(Debug, Default)]
pub struct AddressBook {
    /// In order of name, never empty. Normally one Service an address. More only when somebody else wrote a status: then the
    /// first by name has it.
    claims: OrdMap<IpAddr, Arc<[ObjectKey]>>,
    claimed_by: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// For each range of the pools, by its first address: the lowest address that nobody holds, so that a search does not
    /// walk past all that are held.
    lowest: BTreeMap<IpAddr, Lowest>,
    resting: BTreeMap<IpAddr, Rest>,
    /// Addresses that foreign hosts on the link have.
    occupied: BTreeSet<IpAddr>,
    /// Addresses that this agent chose a moment ago: nobody has used them yet.
    fresh: BTreeMap<IpAddr, Fresh>,
    /// Services that wait for an address: judged again when one becomes free.
    waiting: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Lowest {
    range: AddressRange,
    /// `None` when the whole range is held.
    unheld: Option<IpAddr>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    /// The Service that held it may have it back at once.
    last_holder: ObjectKey,
}

#[derive(Debug)]
struct Fresh {
    until: Instant,
    service: ObjectKey,
}

/// How long a chosen address counts as not used yet. It is asked for on the link within a second of the choice.
const FRESH: Duration = Duration::from_secs(60);

impl AddressBook {
    pub fn new(pools: &[Pool]) -> AddressBook {
        let ranges = pools.iter().flat_map(|pool| &pool.addresses);
        let lowest = ranges.map(|range| (range.first(), Lowest { range: *range, unheld: Some(range.first()) }));
        AddressBook { lowest: lowest.collect(), ..AddressBook::default() }
    }

    /// The Service that has the address.
    pub fn holder(&self, address: IpAddr) -> Option<&ObjectKey> {
        self.claims.get(&address)?.first()
    }

    /// The addresses that a Service claims.
    pub fn claimed_by(&self, service: &ObjectKey) -> &[IpAddr] {
        self.claimed_by.get(service).map(Vec::as_slice).unwrap_or_default()
    }

    /// Records all that a Service claims now, and answers which other Services that may concern.
    /// An address that nobody claims any more rests until the time that `rest` gives for it.
    pub fn claim(
        &mut self,
        service: &ObjectKey,
        addresses: Vec<IpAddr>,
        rest: impl Fn(IpAddr) -> Option<Instant>,
    ) -> Vec<ObjectKey> {
        let before = self.claimed_by.remove(service).unwrap_or_default();
        let mut concerned = Vec::new();
        for address in before.iter().filter(|address| !addresses.contains(address)) {
            let others: Arc<[ObjectKey]> =
                self.claimants(*address).filter(|other| *other != service).cloned().collect();
            concerned.extend(others.iter().cloned());
            if !others.is_empty() {
                self.claims.insert(*address, others);
                continue;
            }
            self.claims.remove(address);
            if let Some(lowest) = self.lowest_around(*address) {
                lowest.unheld = Some(lowest.unheld.map_or(*address, |unheld| unheld.min(*address)));
            }
            if let Some(until) = rest(*address) {
                self.resting.insert(*address, Rest { until, last_holder: service.clone() });
            }
        }
        for address in addresses.iter().filter(|address| !before.contains(address)) {
            concerned.extend(self.claimants(*address).cloned());
            let claimants: BTreeSet<&ObjectKey> = self.claimants(*address).chain([service]).collect();
            let claimants = claimants.into_iter().cloned().collect();
            self.claims.insert(*address, claimants);
            self.resting.remove(address);
            self.move_lowest_past(*address);
        }
        if !addresses.is_empty() {
            self.claimed_by.insert(service.clone(), addresses);
        }
        concerned
    }

    /// Ends the rest of every address whose time is over; true if there was one.
    pub fn wake(&mut self, now: Instant) -> bool {
        self.fresh.retain(|_, fresh| fresh.until > now);
        let before = self.resting.len();
        self.resting.retain(|_, rest| rest.until > now);
        self.resting.len() != before
    }

    /// When the next address has rested enough, if a Service waits for one.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        self.resting.values().map(|rest| rest.until).min()
    }

    /// This agent chose these addresses for a Service just now.
    pub fn note_fresh(&mut self, service: &ObjectKey, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        let fresh = |address| (address, Fresh { until: now + FRESH, service: service.clone() });
        self.fresh.extend(addresses.into_iter().map(fresh));
    }

    /// The address was chosen for the Service a moment ago, by this agent: nobody has used it yet.
    pub fn is_fresh(&self, address: IpAddr, service: &ObjectKey) -> bool {
        self.fresh.get(&address).is_some_and(|fresh| fresh.service == *service)
    }

    /// The Services for which an address was chosen a moment ago.
    pub fn freshly_given(&self) -> impl Iterator<Item = &ObjectKey> {
        self.fresh.values().map(|fresh| &fresh.service)
    }

    /// Whether a Service waits for an address, from now on.
    pub fn set_waiting(&mut self, service: &ObjectKey, waits: bool) {
        match waits {
            true => drop(self.waiting.insert(service.clone())),
            false => drop(self.waiting.remove(service)),
        }
    }

    /// The Services that wait for an address: one that becomes free may help them.
    pub fn waiting(&self) -> impl Iterator<Item = &ObjectKey> {
        self.waiting.iter()
    }

    /// The addresses that foreign hosts on the link have, all of them: none of these is chosen for a Service that does not
    /// ask for it. True if they are others than before.
    pub fn set_occupied(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let moved = self.occupied != addresses;
        self.occupied = addresses;
        moved
    }

    pub fn is_occupied(&self, address: IpAddr) -> bool {
        self.occupied.contains(&address)
    }

    /// All addresses that are held, and the Services that claim each, in order of name.
    pub fn claims(&self) -> &OrdMap<IpAddr, Arc<[ObjectKey]>> {
        &self.claims
    }

    fn claimants(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.claims.get(&address).into_iter().flat_map(|services| services.iter())
    }

    /// The addresses of a range of a pool from the lowest on that nobody holds; what comes after it may be held.
    pub fn unheld_from_lowest(&self, range: &AddressRange) -> impl Iterator<Item = IpAddr> + use<> {
        let unheld = match self.lowest.get(&range.first()) {
            Some(lowest) => lowest.unheld,
            None => Some(range.first()),
        };
        let last = range.last();
        unheld.and_then(|unheld| AddressRange::new(unheld, last).ok()).into_iter().flat_map(|range| range.iter())
    }

    /// The range that an address lies in, if it lies in one: ranges of pools do not overlap.
    fn lowest_around(&mut self, address: IpAddr) -> Option<&mut Lowest> {
        let (_, lowest) = self.lowest.range_mut(..=address).next_back()?;
        lowest.range.contains(address).then_some(lowest)
    }

    /// The addresses that were freed a moment ago and are not handed out yet.
    pub fn resting(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.resting.keys().copied()
    }

    fn move_lowest_past(&mut self, held: IpAddr) {
        let Some(lowest) = self.lowest_around(held).filter(|lowest| lowest.unheld == Some(held)) else { return };
        let rest = AddressRange::new(held, lowest.range.last()).ok();
        let unheld = rest.and_then(|rest| rest.iter().find(|address| !self.claims.contains_key(address)));
        if let Some(lowest) = self.lowest_around(held) {
            lowest.unheld = unheld;
        }
    }

    pub fn is_resting(&self, address: IpAddr, service: &ObjectKey) -> bool {
        self.resting.get(&address).is_some_and(|rest| rest.last_holder != *service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    #[test]
    fn a_freed_address_rests_for_all_but_its_last_holder_and_wakes_only_for_those_who_wait() {
        let (mut book, now) = (AddressBook::default(), clock::now());
        let until = now + Duration::from_secs(30);
        book.claim(&key("one"), vec![ADDRESS], |_| None);
        book.claim(&key("one"), Vec::new(), |_| Some(until));
        assert!(book.is_resting(ADDRESS, &key("two")) && !book.is_resting(ADDRESS, &key("one")));
        assert_eq!(book.next_deadline(), None, "nobody waits for it");
        book.set_waiting(&key("two"), true);
        assert_eq!(book.next_deadline(), Some(until));
        assert!(!book.wake(now) && book.wake(until));
        assert!(!book.is_resting(ADDRESS, &key("two")));
    }

    #[test]
    fn of_services_that_claim_one_address_the_first_by_name_has_it_and_the_next_follows() {
        let mut book = AddressBook::default();
        for name in ["b", "c", "a"] {
            book.claim(&key(name), vec![ADDRESS], |_| None);
        }
        let claimants = |book: &AddressBook| book.claims().get(&ADDRESS).map(|services| services.to_vec());
        assert_eq!(claimants(&book), Some(vec![key("a"), key("b"), key("c")]));
        assert_eq!(book.claim(&key("a"), Vec::new(), |_| None), [key("b"), key("c")], "these two are concerned");
        assert_eq!(book.holder(ADDRESS), Some(&key("b")));
        book.claim(&key("c"), Vec::new(), |_| None);
        book.claim(&key("b"), Vec::new(), |_| None);
        assert_eq!(claimants(&book), None, "nothing is kept of an address that nobody claims");
    }

    #[test]
    fn a_chosen_address_is_fresh_for_its_service_for_a_minute() {
        let (mut book, now) = (AddressBook::default(), clock::now());
        book.note_fresh(&key("one"), [ADDRESS], now);
        assert!(book.is_fresh(ADDRESS, &key("one")) && !book.is_fresh(ADDRESS, &key("two")));
        book.wake(now + FRESH);
        assert!(!book.is_fresh(ADDRESS, &key("one")));
    }
}
