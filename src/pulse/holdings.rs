//! What a node holds, told piece by piece: a change at once, the whole of it page after page. Floor 1, a part of the packet
//! and of the machine.
//!
//! The set has a version that every pulse names. A *change* gives the newest state of every address that was touched since an
//! older version, so it brings up to date whoever knew any version from there on. A *page* gives all that is held in one
//! stretch of the address space. A reader that missed a change gathers pages until they cover the whole space.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::addresses::{PLAIN, Writer};
use crate::roster::{Holding, Holdings};

/// All that is held behind `after` and up to `through`; `None`: from the beginning, or up to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub after: Option<IpAddr>,
    pub through: Option<IpAddr>,
    pub held: Vec<(IpAddr, Holding)>,
}

/// The newest state of every address that was touched since version `since`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub since: u32,
    pub held: Vec<(IpAddr, Holding)>,
    pub released: Vec<IpAddr>,
}

/// The sender's side.
#[derive(Debug, Default)]
pub struct Teller {
    held: Holdings,
    version: u32,
    /// What each of the last versions touched, the oldest in front.
    touched: VecDeque<Vec<IpAddr>>,
    /// Where the next page begins.
    next: Option<IpAddr>,
}

/// How many versions a change may reach back.
const MOST_VERSIONS: usize = 16;

/// How many single IPv4 addresses go into a page.
const ADDRESSES_OF_A_PAGE: usize = 180;

/// More addresses than these are told by pages alone.
const MOST_TOUCHED: usize = 512;

impl Teller {
    /// The version of what is held now. It starts at 0, with nothing held, and grows with each change.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn held(&self) -> &Holdings {
        &self.held
    }

    /// Takes over what is held now. True if it differs.
    pub fn set(&mut self, held: &Holdings) -> bool {
        let touched: Vec<IpAddr> = self
            .held
            .diff(held)
            .map(|item| match item {
                DiffItem::Add(address, _) | DiffItem::Remove(address, _) => *address,
                DiffItem::Update { new: (address, _), .. } => *address,
            })
            .collect();
        if touched.is_empty() {
            return false;
        }
        self.held = held.clone();
        self.version = self.version.wrapping_add(1).max(1);
        self.touched.push_back(touched);
        while self.touched.len() > MOST_VERSIONS
            || self.touched.iter().map(Vec::len).sum::<usize>() > MOST_TOUCHED && !self.touched.is_empty()
        {
            self.touched.pop_front();
        }
        true
    }

    /// How many pages the whole takes, roughly: one where it is small.
    pub fn pages(&self) -> usize {
        self.held.len() / ADDRESSES_OF_A_PAGE + 1
    }

    /// The change that reaches back as far as fits into `room` octets; `None` where not even the last one does.
    pub fn change(&self, room: usize) -> Option<Change> {
        let mut newest: Option<Change> = None;
        let mut states: BTreeMap<IpAddr, Option<Holding>> = BTreeMap::new();
        for (back, touched) in (1u32..).zip(self.touched.iter().rev()) {
            states.extend(touched.iter().map(|address| (*address, self.held.get(address).copied())));
            let change = Change {
                since: self.version.wrapping_sub(back),
                held: states.iter().filter_map(|(address, holding)| Some((*address, (*holding)?))).collect(),
                released: states.iter().filter(|(_, holding)| holding.is_none()).map(|(address, _)| *address).collect(),
            };
            if !change.fits(room) {
                break;
            }
            newest = Some(change);
        }
        newest
    }

    /// The next page of at most `room` octets, and moves on. The one behind the last is the first again.
    pub fn page(&mut self, room: usize) -> Page {
        let after = self.next;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.held.range((from, Bound::Unbounded));
        let page = Page::of(after, rest.map(|(address, holding)| (*address, *holding)), room);
        self.next = page.through;
        page
    }
}

/// The sender's side of a set of addresses of which nothing more is said.
#[derive(Debug, Default)]
pub struct SetTeller {
    addresses: Arc<BTreeSet<IpAddr>>,
    /// Where the next page begins.
    next: Option<IpAddr>,
    /// How many addresses pages have yet to name until what has changed was told, and told again.
    untold: usize,
}

impl SetTeller {
    /// Takes over what is so now. True if it differs: then pages begin anew, with the first address that does.
    pub fn set(&mut self, addresses: &Arc<BTreeSet<IpAddr>>) -> bool {
        let mut differing = self.addresses.symmetric_difference(addresses).copied();
        let Some(first) = differing.next() else { return false };
        let last = differing.last().unwrap_or(first);
        self.addresses = addresses.clone();
        self.untold = self.untold.max(2 * self.addresses.range(first..=last).count().max(1));
        self.next = self.addresses.range(..first).next_back().copied();
        true
    }

    /// As [`Teller::page`].
    pub fn page(&mut self, room: usize) -> Page {
        let after = self.next;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.addresses.range((from, Bound::Unbounded));
        let page = Page::of(after, rest.map(|address| (*address, PLAIN)), room);
        self.next = page.through;
        self.untold = self.untold.saturating_sub(page.held.len().max(1));
        page
    }

    /// Something has changed that pages have not told twice: a datagram may be lost.
    pub fn is_untold(&self) -> bool {
        self.untold > 0
    }
}

impl Page {
    /// As many as fit into `room` octets of all that is behind `after`.
    fn of(after: Option<IpAddr>, rest: impl Iterator<Item = (IpAddr, Holding)>, room: usize) -> Page {
        let mut writer = Writer::default();
        let mut page = Page { after, through: None, held: Vec::new() };
        for (address, holding) in rest {
            if !writer.add(address, holding, room) {
                // Where not even one fits, nothing is said of any.
                page.through = page.held.last().map_or(after, |(last, _)| Some(*last));
                break;
            }
            page.held.push((address, holding));
        }
        page
    }

    /// Brings a set up to date within the stretch. True if that changes it. No set grows beyond [`MOST_OF_A_SET`].
    pub fn update(&self, set: &mut Arc<BTreeSet<IpAddr>>) -> bool {
        let Page { after, through, held } = self;
        let ends = (after.map_or(Bound::Unbounded, Bound::Excluded), through.map_or(Bound::Unbounded, Bound::Included));
        // Of ends the wrong way round nothing is between.
        if matches!((after, through), (Some(after), Some(through)) if after >= through) {
            return false;
        }
        let told: BTreeSet<IpAddr> = held.iter().map(|(it, _)| *it).filter(|it| ends.contains(it)).collect();
        if set.range(ends).eq(told.iter()) {
            return false;
        }
        let mut all: BTreeSet<IpAddr> = set.iter().filter(|it| !ends.contains(*it)).copied().collect();
        let room = MOST_OF_A_SET.saturating_sub(all.len());
        all.extend(told.into_iter().take(room));
        *set = Arc::new(all);
        true
    }
}

/// More than Services have addresses.
const MOST_OF_A_SET: usize = 65_536;

impl Change {
    fn fits(&self, room: usize) -> bool {
        let mut writer = Writer::default();
        let all = self.held.iter().copied().chain(self.released.iter().map(|address| (*address, PLAIN)));
        all.into_iter().all(|(address, holding)| writer.add(address, holding, room))
    }
}

/// The reader's side.
#[derive(Debug)]
pub struct Listener {
    held: Holdings,
    version: u32,
    /// Which stretches are known as of `version`; one from beginning to end once all is known.
    covered: Vec<(Option<IpAddr>, Option<IpAddr>)>,
}

/// Version 0 of any set is the empty one: nothing has to be heard for that.
impl Default for Listener {
    fn default() -> Listener {
        Listener { held: Holdings::new(), version: 0, covered: vec![(None, None)] }
    }
}

/// How many addresses one node may hold on a link; what is beyond is not taken in.
const MOST_HOLDINGS: usize = 1 << 14;

impl Listener {
    pub fn held(&self) -> &Holdings {
        &self.held
    }

    /// Every address that the node holds is known, as of its newest pulse.
    pub fn knows_all(&self) -> bool {
        matches!(self.covered.as_slice(), [(None, None)])
    }

    /// Takes in what a pulse of this version says. True if [`Listener::held`] or [`Listener::knows_all`] may have changed.
    pub fn take(&mut self, version: u32, change: Option<Change>, page: Option<Page>) -> bool {
        let before = (self.held.clone(), self.knows_all());
        if version != self.version {
            let reaches = |change: &Change| {
                // Versions wrap: this counts how far each lies behind the newest.
                version.wrapping_sub(change.since) >= version.wrapping_sub(self.version)
            };
            match change.filter(reaches) {
                Some(Change { since: _, held, released }) => {
                    for address in &released {
                        self.held.remove(address);
                    }
                    held.into_iter().for_each(|(address, holding)| self.put(address, holding));
                }
                // What is known of it is of no certain version any more.
                None => self.covered.clear(),
            }
            self.version = version;
        }
        if version == 0 {
            self.held = Holdings::new();
            self.covered = vec![(None, None)];
        }
        if let Some(page) = page.filter(Page::is_in_order) {
            self.read(page);
        }
        before.1 != self.knows_all() || !before.0.ptr_eq(&self.held) && before.0 != self.held
    }

    fn put(&mut self, address: IpAddr, holding: Holding) {
        if (self.held.len() < MOST_HOLDINGS || self.held.contains_key(&address))
            && self.held.get(&address) != Some(&holding)
        {
            self.held.insert(address, holding);
        }
    }

    fn read(&mut self, Page { after, through, held }: Page) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = through.map_or(Bound::Unbounded, Bound::Included);
        // Nearly every page says what is known: a sender repeats them for whoever comes later.
        let known = self.held.range((from, to)).map(|(address, holding)| (*address, *holding));
        if known.eq(held.iter().copied()) {
            self.cover(after, through);
            return;
        }
        let named: BTreeMap<IpAddr, Holding> = held.into_iter().collect();
        let gone: Vec<IpAddr> =
            self.held.range((from, to)).map(|(address, _)| *address).filter(|it| !named.contains_key(it)).collect();
        for address in &gone {
            self.held.remove(address);
        }
        named.into_iter().for_each(|(address, holding)| self.put(address, holding));
        self.cover(after, through);
    }

    /// Joins a stretch to those that are known.
    fn cover(&mut self, after: Option<IpAddr>, through: Option<IpAddr>) {
        if self.knows_all() {
            return;
        }
        self.covered.push((after, through));
        // `None` is the least beginning by itself.
        self.covered.sort();
        let mut joined: Vec<(Option<IpAddr>, Option<IpAddr>)> = Vec::new();
        for (after, through) in self.covered.drain(..) {
            match joined.last_mut() {
                Some((_, end)) if end.is_none_or(|end| after.is_none_or(|after| after <= end)) => {
                    *end = end.zip(through).map(|(one, other)| one.max(other));
                }
                Some(_) | None => joined.push((after, through)),
            }
        }
        // Pages of one sender overlap only where it changed, so there are never more stretches than pages.
        joined.truncate(MOST_STRETCHES);
        self.covered = joined;
    }
}

impl Page {
    /// The addresses lie in the stretch, and the stretch is none that runs backwards.
    fn is_in_order(&self) -> bool {
        let inside = |address: &IpAddr| {
            self.after.is_none_or(|after| *address > after) && self.through.is_none_or(|through| *address <= through)
        };
        let forward = self.after.zip(self.through).is_none_or(|(after, through)| after < through);
        forward && self.held.iter().all(|(address, _)| inside(address))
    }
}

/// How many stretches are kept in mind: a node that holds as much as it may needs fewer pages.
const MOST_STRETCHES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Stage;

    fn holding(weight: u32) -> Holding {
        Holding { weight, stage: Stage::Holds }
    }

    fn address(number: u32) -> IpAddr {
        if number.is_multiple_of(5) {
            std::net::Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number * 3)).into()
        } else {
            std::net::Ipv4Addr::from_bits(0xc000_0200 + number * 3).into()
        }
    }

    /// One pulse from the teller to the listener, unless it is lost.
    fn pulse(teller: &mut Teller, listener: &mut Listener, lost: bool) {
        let (version, change, page) = (teller.version(), teller.change(400), teller.page(900));
        if !lost {
            listener.take(version, change, Some(page));
        }
    }

    #[test]
    fn three_thousand_addresses_are_known_after_as_many_pulses_as_they_have_pages() {
        let mut teller = Teller::default();
        teller.set(&(0..3000).map(|number| (address(number), holding(7))).collect());
        let mut listener = Listener::default();
        let mut pulses = 0;
        while pulses == 0 || !listener.knows_all() {
            pulse(&mut teller, &mut listener, false);
            pulses += 1;
            assert!(pulses < 60, "it ends");
        }
        assert!(listener.held() == teller.held(), "they are the same");
        // 600 IPv6 addresses of 17 octets and 2400 IPv4 addresses of 5, in 900 octets each.
        assert!(pulses <= 27, "{pulses} pulses");
    }

    #[test]
    fn a_change_is_known_with_the_next_pulse_that_arrives() {
        let mut teller = Teller::default();
        let mut held: Holdings = (0..3000).map(|number| (address(number), holding(7))).collect();
        teller.set(&held);
        let mut listener = Listener::default();
        (0..60).for_each(|_| pulse(&mut teller, &mut listener, false));
        for round in 0..40 {
            held.remove(&address(round));
            held.insert(address(5000 + round), holding(9));
            assert!(teller.set(&held));
            // Two of three get lost.
            if round % 3 == 2 {
                pulse(&mut teller, &mut listener, false);
                assert!(listener.knows_all(), "round {round}: the change reaches back far enough");
                assert_eq!(listener.held(), teller.held(), "round {round}");
            }
        }
    }

    #[test]
    fn whatever_is_lost_and_however_it_changes_all_is_known_once_it_is_quiet() {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut teller = Teller::default();
            let mut listener = Listener::default();
            let mut held = Holdings::new();
            for _ in 0..200 {
                for _ in 0..random.usize(0..40) {
                    let address = address(random.u32(0..2000));
                    if random.bool() {
                        held.insert(address, holding(random.u32(0..3)))
                    } else {
                        held.remove(&address)
                    };
                }
                teller.set(&held);
                let lost = random.u8(0..10) < 3;
                pulse(&mut teller, &mut listener, lost);
                if listener.knows_all() && !lost {
                    assert_eq!(listener.held(), teller.held(), "seed {seed}: what is known is true");
                }
            }
            (0..60).for_each(|_| pulse(&mut teller, &mut listener, false));
            assert!(listener.knows_all(), "seed {seed}");
            assert_eq!(listener.held(), teller.held(), "seed {seed}");
        }
    }

    #[test]
    fn a_page_that_lies_about_its_stretch_is_not_read() {
        let mut listener = Listener::default();
        let (low, high) = (address(1), address(2));
        let backwards = Page { after: Some(high), through: Some(low), held: Vec::new() };
        let outside = Page { after: None, through: Some(low), held: vec![(high, holding(0))] };
        for page in [backwards, outside] {
            listener.take(3, None, Some(page));
            assert!(!listener.knows_all() && listener.held().is_empty());
        }
    }

    #[test]
    fn a_set_is_told_page_by_page_and_what_changes_first() {
        // No two follow each other, so none take fewer octets together.
        let address = |number: u32| IpAddr::from((0x0a00_0000 + number * 2).to_be_bytes());
        let all: BTreeSet<IpAddr> = (0..500).map(address).collect();
        let (mut teller, mut heard) = (SetTeller::default(), Arc::new(BTreeSet::new()));
        assert!(teller.set(&Arc::new(all.clone())) && !teller.set(&Arc::new(all.clone())));
        let pages = (1..100).find(|_| {
            teller.page(400).update(&mut heard);
            *heard == all
        });
        assert!(pages.is_some_and(|pages| (5..20).contains(&pages)), "{pages:?}");
        assert!(!teller.page(400).update(&mut heard), "no news");
        assert!(teller.is_untold(), "a datagram may be lost");
        let more = (1..100).find(|_| {
            teller.page(400);
            !teller.is_untold()
        });
        assert!(more < pages, "told twice: {more:?} more");
        let mut fewer = all.clone();
        fewer.remove(&address(300));
        teller.set(&Arc::new(fewer.clone()));
        assert!(teller.page(400).update(&mut heard));
        assert_eq!(*heard, fewer, "the first page has what changed");
        teller.set(&Arc::new(BTreeSet::new()));
        teller.page(400).update(&mut heard);
        assert!(heard.is_empty());
        // What another says may be anything.
        let wrong = Page { after: Some(address(9)), through: Some(address(2)), held: vec![(address(5), PLAIN)] };
        assert!(!wrong.update(&mut heard));
        let beyond = Page { after: None, through: Some(address(2)), held: vec![(address(5), PLAIN)] };
        assert!(!beyond.update(&mut heard), "what is outside of the stretch does not count");
    }
}
