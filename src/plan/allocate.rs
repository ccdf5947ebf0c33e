//! Which addresses a Service may have: pools, what others hold, what it asks for, with whom it shares.
//! Floor 1. `sharing` has the rules for several Services of one address. The [`AddressBook`] knows who holds what; [`allocate`] chooses and changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{AddressRange, Family};
use crate::config::Pool;
use crate::names::{ObjectKey, PoolName};
use crate::plan::address_book::AddressBook;
use crate::plan::decision::Held;
use crate::plan::sharing::{Refusal, Terms};
use crate::reason::{Mismatch, Reason};
use crate::selector::Labels;
use crate::world::{FamilyPolicy, Request, Service};

/// A Service before the pools.
pub struct Applicant<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a Service,
    /// The labels of its namespace; `None` while the namespace is not known.
    pub namespace_labels: Option<&'a Labels>,
    /// On what terms it shares its addresses.
    pub terms: Option<Terms>,
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

    let missing = |held: &[Held]| -> Vec<Family> {
        let has = |family: &Family| held.iter().any(|held| Family::of(held.address) == *family);
        wanted.iter().copied().filter(|family| !has(family)).collect()
    };
    if request.addresses.is_empty() {
        held.extend(join_partner(pools, book, applicant, request, &missing(&held)));
    }
    let missing = missing(&held);
    if missing.is_empty() {
        return Ok(held);
    }
    let mut candidates = candidate_pools(pools, applicant, request)?;
    // The second family comes from the pool of the first, where that pool has it.
    candidates.sort_by_key(|pool| !held.iter().any(|held| held.pool == pool.name));
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
    match book.admits(address, applicant.key, applicant.terms.as_ref()) {
        Ok(()) => Ok(held),
        Err(Refusal { with, why: Some(why) }) => Err(Reason::AddressNotShared { address, with, why: Box::new(why) }),
        Err(Refusal { with, why: None }) => Err(Reason::AddressInUse { address, by: with }),
    }
}

/// The addresses of a Service with the same sharing key, all of those of the families that are missing or none. Of several
/// Services, the one with most of them counts, then the one with the lowest addresses.
fn join_partner(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    missing: &[Family],
) -> Vec<Held> {
    let joined = partners(book, applicant, missing).into_keys().filter_map(|addresses| {
        let joined = addresses.iter().map(|address| may_join(pools, book, applicant, request, *address));
        joined.collect::<Result<Vec<Held>, Reason>>().ok()
    });
    // The last of equals counts for `max_by_key`.
    joined.collect::<Vec<_>>().into_iter().rev().max_by_key(Vec::len).unwrap_or_default()
}

/// What is to be said of addresses that a Service has, beside that it has them.
pub fn notes(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
) -> Vec<Reason> {
    unshared(pools, book, applicant, request, held).into_iter().collect()
}

/// Why a Service that has a sharing key, and its addresses for itself alone, does not have those of the others with that key.
fn unshared(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
) -> Option<Reason> {
    let alone = held.iter().all(|held| book.is_free_for(held.address, applicant.key));
    let families: Vec<Family> = held.iter().map(|held| Family::of(held.address)).collect();
    let partners = if alone { partners(book, applicant, &families) } else { BTreeMap::new() };
    partners.into_iter().find_map(|(addresses, partner)| {
        let joined = addresses.iter().map(|address| may_join(pools, book, applicant, request, *address));
        let reason = joined.collect::<Result<Vec<Held>, Reason>>().err()?;
        match reason {
            Reason::AddressNotShared { .. } => Some(reason),
            // Of the pool, not of the partner.
            _ => {
                let address = *addresses.first()?;
                let pool = pool_of(pools, address)?.name.clone();
                let why = Box::new(Mismatch::Pool { pool });
                Some(Reason::AddressNotShared { address, with: partner.clone(), why })
            }
        }
    })
}

/// The addresses that Services with the same sharing key have, one of each of these families: each set once, with one of those
/// who have it.
fn partners<'a>(
    book: &'a AddressBook,
    applicant: &'a Applicant<'_>,
    families: &[Family],
) -> BTreeMap<Vec<IpAddr>, &'a ObjectKey> {
    let mut partners = BTreeMap::new();
    let key = applicant.terms.as_ref().map(|terms| terms.key.as_str());
    for (partner, claimed) in key.into_iter().flat_map(|key| book.partners(key, applicant.key)) {
        let first = |family: &Family| claimed.iter().copied().find(|address| Family::of(*address) == *family);
        let addresses: Vec<IpAddr> = families.iter().filter_map(first).collect();
        if !addresses.is_empty() {
            partners.entry(addresses).or_insert(partner);
        }
    }
    partners
}

/// Whether a Service may have an address that others with its sharing key have, without asking for it by name.
fn may_join(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    address: IpAddr,
) -> Result<Held, Reason> {
    let held = take_requested(pools, book, applicant, request, address)?;
    match book.is_occupied(address) {
        true => Err(Reason::AddressAvoided { address, pool: held.pool }),
        false => Ok(held),
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
                && book.is_free_for(*address, service)
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
        .resting()
        .filter(|address| Family::of(*address) == family)
        .filter(|address| candidates.iter().any(|pool| pool.addresses.iter().any(|range| range.contains(*address))))
        .count();
    let pools: Vec<PoolName> = candidates.iter().map(|pool| pool.name.clone()).collect();
    Reason::NoFreeAddress { family, pools, resting }
}
