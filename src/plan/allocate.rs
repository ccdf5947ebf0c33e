//! Which addresses a Service may have: pools, what others hold, what it asks for.
//! Floor 1. The [`AddressBook`] knows who holds what; [`allocate`] chooses and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use imbl::OrdMap;

use crate::address::{AddressRange, Family};
use crate::config::Pool;
use crate::names::{ObjectKey, PoolName};
use crate::plan::decision::Held;
use crate::reason::Reason;
use crate::selector::Labels;
use crate::world::{FamilyPolicy, Request, Service};

/// Who holds which address, and which were freed a moment ago.
#[derive(Debug, Default)]
pub struct AddressBook {
    /// Normally one Service an address. More only when somebody else wrote a status: then the first by name has it.
    claims: OrdMap<IpAddr, BTreeSet<ObjectKey>>,
    claimed_by: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// For each range of the pools, by its first address: the lowest address that nobody holds, so that a search does not
    /// walk past all that are held.
    lowest: BTreeMap<IpAddr, Lowest>,
    resting: BTreeMap<IpAddr, Rest>,
    /// Addresses that another station on the link has.
    occupied: BTreeSet<IpAddr>,
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
            if let Some(claims) = self.claims.get_mut(address) {
                claims.remove(service);
                concerned.extend(claims.iter().cloned());
                if claims.is_empty() {
                    self.claims.remove(address);
                    if let Some(lowest) = self.lowest_around(*address) {
                        lowest.unheld = Some(lowest.unheld.map_or(*address, |unheld| unheld.min(*address)));
                    }
                    if let Some(until) = rest(*address) {
                        self.resting.insert(*address, Rest { until, last_holder: service.clone() });
                    }
                }
            }
        }
        for address in addresses.iter().filter(|address| !before.contains(address)) {
            let claims = self.claims.entry(*address).or_default();
            concerned.extend(claims.iter().cloned());
            claims.insert(service.clone());
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
        let before = self.resting.len();
        self.resting.retain(|_, rest| rest.until > now);
        self.resting.len() != before
    }

    /// When the next address has rested enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.resting.values().map(|rest| rest.until).min()
    }

    /// The addresses that another station on the link has, all of them. They are not handed out by chance.
    pub fn set_occupied(&mut self, addresses: BTreeSet<IpAddr>) {
        self.occupied = addresses;
    }

    pub fn is_occupied(&self, address: IpAddr) -> bool {
        self.occupied.contains(&address)
    }

    /// All addresses that are held, and the Services that claim each.
    pub fn claims(&self) -> &OrdMap<IpAddr, BTreeSet<ObjectKey>> {
        &self.claims
    }

    /// The addresses of a range of a pool from the lowest on that nobody holds; what comes after it may be held.
    fn unheld_from_lowest(&self, range: &AddressRange) -> impl Iterator<Item = IpAddr> + use<> {
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

    fn move_lowest_past(&mut self, held: IpAddr) {
        let Some(lowest) = self.lowest_around(held).filter(|lowest| lowest.unheld == Some(held)) else { return };
        let rest = AddressRange::new(held, lowest.range.last()).ok();
        let unheld = rest.and_then(|rest| rest.iter().find(|address| !self.claims.contains_key(address)));
        if let Some(lowest) = self.lowest_around(held) {
            lowest.unheld = unheld;
        }
    }

    fn is_resting(&self, address: IpAddr, service: &ObjectKey) -> bool {
        self.resting.get(&address).is_some_and(|rest| rest.last_holder != *service)
    }
}

/// A Service before the pools.
pub struct Applicant<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a Service,
    /// The labels of its namespace; `None` while the namespace is not known.
    pub namespace_labels: Option<&'a Labels>,
}

/// Finds addresses for a Service that holds `kept`, which stay and are part of the answer.
///
/// The families come from the Service: all of them where its policy requires it, the second where it can be had.
pub fn allocate(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    kept: &[Held],
) -> Result<Vec<Held>, Reason> {
    let mut held = kept.to_vec();
    let wanted = wanted_families(pools, applicant, request)?;
    for address in request.addresses.iter().filter(|address| !kept.iter().any(|held| held.address == **address)) {
        if !wanted.contains(&Family::of(*address)) {
            return Err(Reason::WrongFamily { address: *address, wanted });
        }
        held.retain(|held| Family::of(held.address) != Family::of(*address));
        held.push(take_requested(pools, book, applicant, request, *address)?);
    }

    let candidates = candidate_pools(pools, applicant, request)?;
    let missing: Vec<Family> =
        wanted.iter().copied().filter(|family| !held.iter().any(|held| Family::of(held.address) == *family)).collect();
    // A pair from one pool is what people expect of a pool with both families, so that is tried first.
    let pair = missing.len() == 2;
    let of_one_pool = candidates.iter().find_map(|pool| {
        let both: Vec<_> = missing.iter().filter_map(|family| first_free(pool, book, applicant.key, *family)).collect();
        (both.len() == missing.len()).then_some(both)
    });
    if let (true, Some(both)) = (pair, of_one_pool) {
        held.extend(both);
        return Ok(held);
    }
    for family in missing {
        match candidates.iter().find_map(|pool| first_free(pool, book, applicant.key, family)) {
            Some(found) => held.push(found),
            None if applicant.service.family_policy == FamilyPolicy::RequireDualStack => {
                return Err(Reason::NoDualStack { missing: family });
            }
            None => {}
        }
    }
    if held.is_empty() {
        return Err(nothing_free(book, &candidates, wanted.first().copied().unwrap_or(Family::V4)));
    }
    Ok(held)
}

/// Whether the Service may go on holding an address that it has, and from which pool.
pub fn may_keep(pools: &[Pool], applicant: &Applicant<'_>, request: &Request, address: IpAddr) -> Result<Held, Reason> {
    let pool = pool_of(pools, address).ok_or(Reason::AddressLeftPools { address })?;
    if !serves(pool, applicant) {
        return Err(Reason::PoolNotForService { pool: pool.name.clone() });
    }
    if let Some(requested) = &request.pool
        && *requested != pool.name
    {
        return Err(Reason::AddressInOtherPool { address, actual: pool.name.clone(), requested: requested.clone() });
    }
    let wanted = &applicant.service.families;
    if !wanted.is_empty() && !wanted.contains(&Family::of(address)) {
        return Err(Reason::WrongFamily { address, wanted: wanted.clone() });
    }
    Ok(Held { address, pool: pool.name.clone() })
}

/// The pool that an address belongs to. Pools do not overlap: the configuration was checked.
pub fn pool_of(pools: &[Pool], address: IpAddr) -> Option<&Pool> {
    pools.iter().find(|pool| pool.addresses.iter().any(|range| range.contains(address)))
}

fn take_requested(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    address: IpAddr,
) -> Result<Held, Reason> {
    let pool = pool_of(pools, address).ok_or(Reason::AddressOutsidePools { address })?;
    let held = may_keep(pools, applicant, request, address)?;
    if avoided(pool, address) {
        return Err(Reason::AddressAvoided { address, pool: pool.name.clone() });
    }
    match book.holder(address) {
        Some(by) if by != applicant.key => Err(Reason::AddressInUse { address, by: by.clone() }),
        Some(_) | None => Ok(held),
    }
}

/// The families to find addresses for, primary first.
fn wanted_families(pools: &[Pool], applicant: &Applicant<'_>, request: &Request) -> Result<Vec<Family>, Reason> {
    let service = applicant.service;
    if !service.families.is_empty() {
        return Ok(match service.family_policy {
            FamilyPolicy::SingleStack => service.families[..1].to_vec(),
            FamilyPolicy::PreferDualStack | FamilyPolicy::RequireDualStack => service.families.clone(),
        });
    }
    // A Service without families comes from a manifest, where no API server filled them in.
    if !request.addresses.is_empty() {
        return Ok(request.addresses.iter().map(|address| Family::of(*address)).collect());
    }
    let offered = |family| pools.iter().any(|pool| pool.addresses.iter().any(|range| range.family() == family));
    let offered: Vec<Family> = Family::BOTH.into_iter().filter(|family| offered(*family)).collect();
    Ok(match service.family_policy {
        FamilyPolicy::SingleStack => offered.into_iter().take(1).collect(),
        FamilyPolicy::PreferDualStack => offered,
        FamilyPolicy::RequireDualStack => Family::BOTH.to_vec(),
    })
}

/// The pools to try, best first: those made for some Services before those for all, then by priority, then as written.
fn candidate_pools<'a>(
    pools: &'a [Pool],
    applicant: &Applicant<'_>,
    request: &Request,
) -> Result<Vec<&'a Pool>, Reason> {
    if let Some(requested) = &request.pool {
        let Some(pool) = pools.iter().find(|pool| pool.name == *requested) else {
            let known = pools.iter().map(|pool| pool.name.clone()).collect();
            return Err(Reason::UnknownPool { pool: requested.clone(), known });
        };
        if !serves(pool, applicant) {
            return Err(Reason::PoolNotForService { pool: pool.name.clone() });
        }
        return Ok(vec![pool]);
    }
    let mut candidates: Vec<&Pool> = pools.iter().filter(|pool| pool.auto_assign && serves(pool, applicant)).collect();
    candidates.sort_by_key(|pool| {
        let for_some = is_restricted(pool) || pool.priority.is_some();
        (!for_some, pool.priority.is_none(), pool.priority)
    });
    // A second family may be asked of the pool of a requested address only if that pool assigns by itself.
    if candidates.is_empty() && request.addresses.is_empty() {
        return Err(Reason::NoPoolForService);
    }
    Ok(candidates)
}

fn is_restricted(pool: &Pool) -> bool {
    !pool.namespaces.is_empty() || pool.namespace_selector.is_some() || pool.service_selector.is_some()
}

/// A pool serves a Service when its namespace and its labels both fit; a namespace fits by name or by selector.
fn serves(pool: &Pool, applicant: &Applicant<'_>) -> bool {
    let by_name = pool.namespaces.contains(&applicant.key.namespace);
    let by_selector = pool
        .namespace_selector
        .as_ref()
        .is_some_and(|selector| applicant.namespace_labels.is_some_and(|labels| selector.matches(labels)));
    let any_namespace = pool.namespaces.is_empty() && pool.namespace_selector.is_none();
    let labels_fit = pool.service_selector.as_ref().is_none_or(|selector| selector.matches(&applicant.service.labels));
    (any_namespace || by_name || by_selector) && labels_fit
}

/// The lowest free address of the first range of the family that has one.
fn first_free(pool: &Pool, book: &AddressBook, service: &ObjectKey, family: Family) -> Option<Held> {
    let ranges = pool.addresses.iter().filter(|range| range.family() == family);
    ranges
        .flat_map(|range| book.unheld_from_lowest(range))
        .find(|address| {
            !avoided(pool, *address)
                && !book.is_resting(*address, service)
                && !book.is_occupied(*address)
                && book.holder(*address).is_none_or(|holder| holder == service)
        })
        .map(|address| Held { address, pool: pool.name.clone() })
}

fn avoided(pool: &Pool, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => pool.avoid_network_and_broadcast && matches!(v4.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

/// How many addresses a pool can hand out; `u64::MAX` for that many and more.
pub fn capacity(pool: &Pool) -> u64 {
    let of_range = |range: &AddressRange| {
        let avoided = match (range.first(), range.last()) {
            (IpAddr::V4(first), IpAddr::V4(last)) if pool.avoid_network_and_broadcast => {
                // Of the numbers below `n`, one in 256 ends in .0 and one in .255, but for those of the last block.
                let below = |n: u64| n / 256 * 2 + u64::from(!n.is_multiple_of(256));
                below(u64::from(last.to_bits()) + 1) - below(u64::from(first.to_bits()))
            }
            _ => 0,
        };
        u64::try_from(range.count()).unwrap_or(u64::MAX).saturating_sub(avoided)
    };
    pool.addresses.iter().map(of_range).fold(0, u64::saturating_add)
}

fn nothing_free(book: &AddressBook, candidates: &[&Pool], family: Family) -> Reason {
    let resting = book
        .resting
        .keys()
        .filter(|address| Family::of(**address) == family)
        .filter(|address| candidates.iter().any(|pool| pool.addresses.iter().any(|range| range.contains(**address))))
        .count();
    let pools: Vec<PoolName> = candidates.iter().map(|pool| pool.name.clone()).collect();
    Reason::NoFreeAddress { family, pools, resting }
}
