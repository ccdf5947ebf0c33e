//! The address book: which Services claim which address and which of them may have it together, what was freed a moment ago,
//! and what is taken on the link.
//! Floor 1. It records; `sharing` has the rules, `allocate` chooses addresses, the verdict about a Service keeps or loses them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use ipnet::IpNet;

use crate::address::{AddressRange, Family};
use crate::config::{Config, Pool, Reservation};
use crate::names::{ObjectKey, PoolName};
use crate::plan::sharing::{Claimant, Group, Refusal, Terms};
use crate::plan::unheld::Unheld;
use crate::reason::HostUse;

/// Who holds which address, and which were freed a moment ago.
#[derive(Debug, Default)]
pub struct AddressBook {
    /// In order of name, never empty. Several Services where they share the address, or where somebody else wrote a status.
    claims: OrdMap<IpAddr, Arc<[ObjectKey]>>,
    claimed_by: BTreeMap<ObjectKey, Claims>,
    /// Those that crier has no part in, each with who claims it.
    foreign: BTreeSet<(IpAddr, ObjectKey)>,
    by_sharing_key: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Of the addresses that several Services claim.
    standings: BTreeMap<IpAddr, Standings>,
    /// Addresses with other claimants or other terms than when their standings were worked out.
    unsettled: BTreeSet<IpAddr>,
    /// Sharing keys of which a Service has come, gone or changed since.
    unsettled_keys: BTreeSet<String>,
    /// What the pools give, each in the order in which it does.
    ranges: BTreeMap<PoolName, Vec<AddressRange>>,
    unheld: Unheld,
    /// The ranges of pools with `share-across-namespaces`.
    across: Vec<AddressRange>,
    reserved: BTreeMap<IpAddr, ObjectKey>,
    reservations: BTreeMap<ObjectKey, Vec<IpAddr>>,
    resting: BTreeMap<IpAddr, Rest>,
    /// Addresses that foreign hosts on the link have.
    occupied: BTreeSet<IpAddr>,
    /// Addresses that hosts and subnets use themselves.
    own: BTreeMap<IpAddr, HostUse>,
    /// The networks that the cluster gives the ClusterIPs of Services from.
    networks: Vec<HostUse>,
    awaits_subnets: bool,
    /// Addresses that this agent chose for a Service a moment ago, each until when: nobody has used them yet.
    fresh: BTreeMap<(IpAddr, ObjectKey), Instant>,
    /// The Services that got another address because a foreign host had theirs: how often, and until when that counts.
    exchanges: BTreeMap<ObjectKey, (u32, Instant)>,
    /// Services that wait for an address: judged again when one becomes free.
    waiting: BTreeSet<ObjectKey>,
}

/// All that one Service claims now.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    pub addresses: Vec<IpAddr>,
    /// Of these, the ones that crier has no part in. Any other claimant goes before it.
    pub foreign: Vec<IpAddr>,
    /// Of these, the ones that crier gave it, as its status tells whoever finds it.
    pub given: Vec<IpAddr>,
    /// Of these, the ones that it is to give up for others.
    pub leaving: Vec<IpAddr>,
    /// On what terms it shares its addresses.
    pub terms: Option<Terms>,
}

/// What one Service claims, and since when.
#[derive(Debug, Default, PartialEq)]
struct Claims {
    addresses: Vec<IpAddr>,
    foreign: Vec<IpAddr>,
    given: Vec<IpAddr>,
    leaving: Vec<IpAddr>,
    /// Since when this agent gives each of them to it; `None` where it was found so.
    since: BTreeMap<IpAddr, Instant>,
    terms: Option<Terms>,
}

/// Who has an address that several Services claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Standings {
    /// In the order in which they came.
    tenants: Vec<ObjectKey>,
    refused: BTreeMap<ObjectKey, Refusal>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    /// The Service that held it may have it back at once.
    last_holder: ObjectKey,
}

/// How long a chosen address counts as not used yet. It is asked for on the link within a second of the choice.
const FRESH: Duration = Duration::from_secs(60);

/// So often a Service gets another address because a foreign host has its one; the last it keeps.
const MOST_EXCHANGES: u32 = 4;
/// Exchanges that are further apart have nothing to do with each other.
const EXCHANGES_COUNT: Duration = Duration::from_secs(600);

/// Of a sharing key with more Services, those that have addresses for themselves are not told anew with whom they do not share.
const MOST_TOLD: usize = 100;

impl AddressBook {
    pub fn new(config: &Config) -> AddressBook {
        let of_pool = |pool: &Pool| (pool.name.clone(), pool.given());
        let ranges: BTreeMap<PoolName, Vec<AddressRange>> = config.pools.iter().map(of_pool).collect();
        let across = config.pools.iter().filter(|pool| pool.share_across_namespaces);
        let (mut reserved, mut reservations) = (BTreeMap::new(), BTreeMap::<_, Vec<IpAddr>>::new());
        for Reservation { service, addresses } in &config.reservations {
            reserved.extend(addresses.iter().map(|address| (*address, service.clone())));
            reservations.entry(service.clone()).or_default().extend(addresses);
        }
        AddressBook {
            unheld: Unheld::new(ranges.values().flatten()),
            ranges,
            across: across.flat_map(|pool| pool.addresses.iter().copied()).collect(),
            reserved,
            reservations,
            ..AddressBook::default()
        }
    }

    /// Goes by the pools and reservations of another configuration. Who claims what stays, also outside of every pool.
    pub fn follow(&mut self, config: &Config) {
        let AddressBook { ranges, unheld, across, reserved, reservations, .. } = AddressBook::new(config);
        (self.ranges, self.unheld, self.across) = (ranges, unheld, across);
        (self.reserved, self.reservations) = (reserved, reservations);
        self.claims.keys().for_each(|address| self.unheld.take(*address));
        // Where addresses are shared across namespaces may differ.
        self.unsettled.extend(self.standings.keys());
    }

    /// The addresses that are given to a Service alone, in the order in which they are.
    pub fn reservations(&self, service: &ObjectKey) -> &[IpAddr] {
        self.reservations.get(service).map(Vec::as_slice).unwrap_or_default()
    }

    /// The Service that alone is given the address.
    pub fn reserved_for(&self, address: IpAddr) -> Option<&ObjectKey> {
        self.reserved.get(&address)
    }

    /// The addresses that a Service claims.
    pub fn claimed_by(&self, service: &ObjectKey) -> &[IpAddr] {
        self.claimed_by.get(service).map(|claims| claims.addresses.as_slice()).unwrap_or_default()
    }

    /// Of these, the ones that crier gave it, as its status told when it last told anything of that.
    pub fn given_to(&self, service: &ObjectKey) -> &[IpAddr] {
        self.claimed_by.get(service).map(|claims| claims.given.as_slice()).unwrap_or_default()
    }

    /// The Service is gone, or another one of its name is there: crier gave that one nothing.
    pub fn forget_given(&mut self, service: &ObjectKey) {
        if let Some(claims) = self.claimed_by.get_mut(service) {
            claims.given.clear();
        }
    }

    /// The Services that have the address, in the order in which they came. Those that claim it against the rules are left out.
    pub fn tenants(&self, address: IpAddr) -> &[ObjectKey] {
        match self.standings.get(&address) {
            Some(standings) => &standings.tenants,
            None => self.claims.get(&address).map(|claimants| &**claimants).unwrap_or_default(),
        }
    }

    /// Whether a Service that claims the address may have it.
    pub fn standing(&self, address: IpAddr, service: &ObjectKey) -> Result<(), &Refusal> {
        let refusal = self.standings.get(&address).and_then(|standings| standings.refused.get(service));
        refusal.map_or(Ok(()), Err)
    }

    /// Whether a Service that does not have the address may have it together with those that have it.
    pub fn admits(&self, address: IpAddr, service: &ObjectKey, terms: Option<&Terms>) -> Result<(), Refusal> {
        self.others(address, service).admits((service, terms), self.is_shared_across(address))
    }

    /// As `admits`, for a Service that had the address before: however many have it, one that comes back is one that was among them.
    pub fn readmits(&self, address: IpAddr, service: &ObjectKey, terms: Option<&Terms>) -> bool {
        terms.is_some() && self.others(address, service).fits((service, terms), self.is_shared_across(address)).is_ok()
    }

    /// Those that have the address, one Service apart.
    fn others<'a>(&'a self, address: IpAddr, service: &'a ObjectKey) -> Group<'a> {
        let tenants = self.tenants(address).iter().filter(|tenant| *tenant != service);
        Group::of(tenants.map(|tenant| self.claimant(tenant)), self.is_shared_across(address)).0
    }

    /// Addresses that Services claim and that crier has no part in.
    pub fn foreign(&self) -> impl Iterator<Item = (IpAddr, &ObjectKey)> {
        self.foreign.iter().map(|(address, service)| (*address, service))
    }

    /// No other Service claims the address.
    pub fn is_free_for(&self, address: IpAddr, service: &ObjectKey) -> bool {
        self.claimants(address).all(|claimant| claimant == service)
    }

    /// The other Services with a sharing key, in order of name, each with the addresses that it claims, and those that it is to give up.
    pub fn partners<'a>(
        &'a self,
        key: &str,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a [IpAddr], &'a [IpAddr])> {
        let all = self.by_sharing_key.get(key).into_iter().flatten();
        let claims = |partner| Some((partner, self.claimed_by.get(partner)?));
        let others = all.filter(move |partner| *partner != service).filter_map(claims);
        others.map(|(partner, claims)| (partner, claims.addresses.as_slice(), claims.leaving.as_slice()))
    }

    /// The other Services that have an address of a Service too.
    pub fn shares_with<'a>(&'a self, service: &'a ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let shared = self.claimed_by(service).iter().filter_map(|address| self.standings.get(address));
        shared.flat_map(|standings| &standings.tenants).filter(move |tenant| *tenant != service)
    }

    /// Records all that a Service claims now. Who of several may have an address
    /// is worked out by [`AddressBook::settle`]. True if it claims something else than before, or on other terms.
    ///
    /// `since` is the time for an agent that allocates: who was given an address before goes before who was given it later, or who
    /// changed so that it does not go with the others. An agent that finds claims has `None` there: whom crier gave the address goes
    /// first, then the first by name.
    /// An address that nobody claims any more rests until the time that `rest` gives for it.
    pub fn claim(
        &mut self,
        service: &ObjectKey,
        Claim { addresses, foreign, given, leaving, terms }: Claim,
        since: Option<Instant>,
        rest: impl Fn(IpAddr) -> Option<Instant>,
    ) -> bool {
        let before = self.claimed_by.remove(service).unwrap_or_default();
        let same = before.addresses == addresses && before.foreign == foreign && before.given == given;
        if same && before.terms == terms {
            // Which of them leave concerns those alone who look for one.
            let before = Claims { leaving, ..before };
            if before != Claims::default() {
                self.claimed_by.insert(service.clone(), before);
            }
            return false;
        }
        for address in &before.foreign {
            self.foreign.remove(&(*address, service.clone()));
        }
        self.foreign.extend(foreign.iter().map(|address| (*address, service.clone())));
        self.leave_key(service, before.terms.as_ref());
        self.enter_key(service, terms.as_ref());
        for address in before.addresses.iter().filter(|address| !addresses.contains(address)) {
            self.leave(service, *address, rest(*address));
        }
        let mut order = before.since;
        order.retain(|address, _| addresses.contains(address));
        for address in &addresses {
            let is_new = !before.addresses.contains(address);
            if is_new {
                self.enter(service, *address);
            }
            let claimant = (service, terms.as_ref());
            let fits = || self.others(*address, service).fits(claimant, self.is_shared_across(*address)).is_ok();
            let is_latest = is_new || (before.terms != terms && !fits());
            order.extend(since.filter(|_| is_latest).map(|since| (*address, since)));
            self.unsettled.insert(*address);
        }
        // One that has no address yet may get one of its key, so that is kept too.
        let claims = Claims { addresses, foreign, given, leaving, since: order, terms };
        if claims != Claims::default() {
            self.claimed_by.insert(service.clone(), claims);
        }
        true
    }

    /// Works out who may have each address whose claimants or their terms changed, and answers the Services that this concerns.
    /// Each address costs time in proportion to its claimants, however many of them changed.
    pub fn settle(&mut self) -> BTreeSet<ObjectKey> {
        let mut concerned = BTreeSet::new();
        for address in std::mem::take(&mut self.unsettled) {
            let now = self.standings_of(address);
            let before = match now {
                Some(ref now) => self.standings.insert(address, now.clone()),
                None => self.standings.remove(&address),
            };
            if now != before {
                let left = before.iter().flat_map(|it| it.tenants.iter().chain(it.refused.keys()));
                concerned.extend(left.chain(self.claimants(address)).cloned());
            }
        }
        for key in std::mem::take(&mut self.unsettled_keys) {
            let Some(all) = self.by_sharing_key.get(&key) else { continue };
            // Who shares an address already gets no other one of its key.
            let may_join = |service: &&ObjectKey| {
                self.waiting.contains(*service) || (all.len() <= MOST_TOLD && self.is_alone(service))
            };
            concerned.extend(all.iter().filter(may_join).cloned());
        }
        concerned
    }

    /// The Service shares no address.
    fn is_alone(&self, service: &ObjectKey) -> bool {
        self.claimed_by(service).iter().all(|address| self.is_free_for(*address, service))
    }

    /// The Service has other addresses from now on than these, which its status still shows: all that claim them too go before it.
    pub fn give_up(&mut self, service: &ObjectKey, addresses: &[IpAddr], now: Instant) {
        let Some(claims) = self.claimed_by.get_mut(service) else { return };
        claims.since.extend(addresses.iter().map(|address| (*address, now)));
        self.unsettled.extend(addresses);
    }

    /// All claims count as found: this agent began or ceased to allocate.
    pub fn forget_order(&mut self) {
        self.claimed_by.values_mut().for_each(|claims| claims.since.clear());
        self.unsettled.extend(self.standings.keys());
    }

    /// `None` for an address with at most one claimant.
    fn standings_of(&self, address: IpAddr) -> Option<Standings> {
        let mut claimants: Vec<&ObjectKey> = self.claimants(address).collect();
        if claimants.len() < 2 {
            return None;
        }
        let place = |service: &ObjectKey| {
            let claims = self.claimed_by.get(service);
            let is_in = |of: fn(&Claims) -> &Vec<IpAddr>| claims.is_some_and(|it| of(it).contains(&address));
            let since = claims.and_then(|it| it.since.get(&address));
            (is_in(|it| &it.foreign), since, !is_in(|it| &it.given))
        };
        // Stable: the order of names stays among equals.
        claimants.sort_by_key(|service| place(service));
        let claimants = claimants.into_iter().map(|service| self.claimant(service));
        let (group, refused) = Group::of(claimants, self.is_shared_across(address));
        let refused = refused.into_iter().map(|(service, refusal)| (service.clone(), refusal)).collect();
        Some(Standings { tenants: group.tenants().cloned().collect(), refused })
    }

    fn claimant<'a>(&'a self, service: &'a ObjectKey) -> Claimant<'a> {
        (service, self.claimed_by.get(service).and_then(|claims| claims.terms.as_ref()))
    }

    fn enter(&mut self, service: &ObjectKey, address: IpAddr) {
        let claimants: BTreeSet<&ObjectKey> = self.claimants(address).chain([service]).collect();
        let claimants = claimants.into_iter().cloned().collect();
        self.claims.insert(address, claimants);
        self.resting.remove(&address);
        self.unheld.take(address);
    }

    fn leave(&mut self, service: &ObjectKey, address: IpAddr, rest: Option<Instant>) {
        self.unsettled.insert(address);
        let others: Arc<[ObjectKey]> = self.claimants(address).filter(|other| *other != service).cloned().collect();
        if !others.is_empty() {
            self.claims.insert(address, others);
            return;
        }
        self.claims.remove(&address);
        // Of a pool that another configuration had there may be claims left, and what is excluded is given to nobody.
        if self.ranges.values().flatten().any(|range| range.contains(address)) {
            self.unheld.give_back(address);
        }
        if let Some(until) = rest {
            self.resting.insert(address, Rest { until, last_holder: service.clone() });
        }
    }

    fn enter_key(&mut self, service: &ObjectKey, terms: Option<&Terms>) {
        let Some(Terms { key, .. }) = terms else { return };
        self.by_sharing_key.entry(key.clone()).or_default().insert(service.clone());
        self.unsettled_keys.insert(key.clone());
    }

    fn leave_key(&mut self, service: &ObjectKey, terms: Option<&Terms>) {
        let Some((Terms { key, .. }, all)) = terms.and_then(|it| Some((it, self.by_sharing_key.get_mut(&it.key)?)))
        else {
            return;
        };
        all.remove(service);
        if all.is_empty() {
            self.by_sharing_key.remove(key);
        }
        self.unsettled_keys.insert(key.clone());
    }

    /// Ends the rest of every address whose time is over; true if there was one.
    pub fn wake(&mut self, now: Instant) -> bool {
        self.fresh.retain(|_, until| *until > now);
        self.exchanges.retain(|_, (_, until)| *until > now);
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

    /// This agent chose these addresses for a Service just now, which claims those of before still.
    pub fn note_fresh(&mut self, service: &ObjectKey, addresses: Vec<IpAddr>, now: Instant) {
        let had = |address: &IpAddr| self.is_occupied(*address) && self.is_fresh(*address, service);
        if !addresses.is_empty() && self.claimed_by(service).iter().any(had) {
            let (count, until) = self.exchanges.entry(service.clone()).or_insert((0, now));
            (*count, *until) = (*count + 1, now + EXCHANGES_COUNT);
        }
        let fresh = |address| ((address, service.clone()), now + FRESH);
        self.fresh.extend(addresses.into_iter().map(fresh));
    }

    /// The address was chosen for the Service a moment ago, by this agent: nobody has used it yet.
    pub fn is_fresh(&self, address: IpAddr, service: &ObjectKey) -> bool {
        self.fresh.contains_key(&(address, service.clone()))
    }

    /// The Service has got other addresses so often because foreign hosts had the ones before: it keeps what it has.
    pub fn has_exchanged_enough(&self, service: &ObjectKey) -> bool {
        self.exchanges.get(service).is_some_and(|(count, _)| *count >= MOST_EXCHANGES)
    }

    /// The Services for which an address was chosen a moment ago.
    pub fn freshly_given(&self) -> impl Iterator<Item = &ObjectKey> {
        self.fresh.keys().map(|(_, service)| service)
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

    /// The addresses that hosts and subnets use themselves, all of them: none of these is given to a Service. Answers which of
    /// them are new, or no more.
    pub fn set_own(&mut self, own: BTreeMap<IpAddr, HostUse>) -> Vec<IpAddr> {
        let before = std::mem::replace(&mut self.own, own);
        let addresses = before.keys().chain(self.own.keys().filter(|address| !before.contains_key(address)));
        addresses.filter(|address| before.get(address) != self.own.get(address)).copied().collect()
    }

    /// Whether the subnets of this host are still to be seen, from now on. True if that is news.
    pub fn await_subnets(&mut self, awaits: bool) -> bool {
        std::mem::replace(&mut self.awaits_subnets, awaits) != awaits
    }

    /// What hosts and subnets use is not known yet: nothing new is given.
    pub fn awaits_subnets(&self) -> bool {
        self.awaits_subnets
    }

    /// The networks that the cluster gives the ClusterIPs of Services from, all of them: no address in them is given to a Service. True if
    /// they are others than before.
    pub fn set_networks(&mut self, networks: Vec<IpNet>) -> bool {
        let networks: Vec<HostUse> = networks.into_iter().map(|net| HostUse::ServiceNetwork { net }).collect();
        let moved = self.networks != networks;
        self.networks = networks;
        moved
    }

    /// What a host or a subnet uses the address for itself.
    pub fn own_use(&self, address: IpAddr) -> Option<&HostUse> {
        self.own.get(&address).or_else(|| self.networks.iter().find(|it| is_in(it, address)))
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

    /// The addresses of a family that a pool gives and nobody holds, range by range.
    pub fn unheld(&self, pool: &PoolName, family: Family) -> impl Iterator<Item = IpAddr> {
        let ranges = self.ranges.get(pool).into_iter().flatten().filter(move |range| range.family() == family);
        // Of what lies in such a network as a whole nothing is looked at: it may be large.
        let is_given =
            |range: &&AddressRange| !self.networks.iter().any(|it| is_in(it, range.first()) && is_in(it, range.last()));
        let ranges = ranges.filter(is_given);
        ranges.flat_map(|range| self.unheld.within(*range))
    }

    fn is_shared_across(&self, address: IpAddr) -> bool {
        self.across.iter().any(|range| range.contains(address))
    }

    /// The addresses that were freed a moment ago and are not handed out yet.
    pub fn resting(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.resting.keys().copied()
    }

    pub fn is_resting(&self, address: IpAddr, service: &ObjectKey) -> bool {
        self.resting.get(&address).is_some_and(|rest| rest.last_holder != *service)
    }
}

fn is_in(used: &HostUse, address: IpAddr) -> bool {
    matches!(used, HostUse::ServiceNetwork { net } if net.contains(&address))
}

#[cfg(test)]
mod tests;
