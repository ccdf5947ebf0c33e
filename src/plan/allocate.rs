//! Which addresses a Service gets: those it asks for, those reserved for it, those of its sharing key, or free ones.
//! Floor 1. The [`AddressBook`] knows who holds what, `pools` what is open to a Service; [`allocate`] chooses and changes nothing.

use std::net::IpAddr;

use crate::address::{AddressRange, Family};
use crate::config::Pool;
use crate::names::PoolName;
use crate::plan::address_book::AddressBook;
use crate::plan::decision::Held;
use crate::plan::partners;
pub use crate::plan::pools::{Applicant, may_keep, pool_of};
use crate::plan::pools::{candidates, leaving, may_have, withheld};
use crate::reason::Reason;
use crate::world::{FamilyPolicy, Request, Service};

/// Finds addresses for a Service that holds `kept`, which stay and are part of the answer.
///
/// The families come from the Service: all of them where its policy requires it, the second where it can be had. A Service that
/// names several pools gets an address of each.
pub fn allocate(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    kept: &[Held],
) -> Result<Vec<Held>, Reason> {
    let mut held = kept.to_vec();
    let mut wanted = wanted_families(pools, applicant, request)?;
    if let (true, [first, ..]) = (goes_by_one_family(applicant, request), kept)
        && !kept.iter().any(|held| wanted.contains(&Family::of(held.address)))
    {
        // What it has is the family that it goes by, whatever pools there are now.
        wanted = vec![Family::of(first.address)];
    }
    for address in request.addresses.iter().filter(|address| !kept.iter().any(|held| held.address == **address)) {
        if !wanted.contains(&Family::of(*address)) {
            return Err(Reason::WrongFamily { address: *address, wanted });
        }
        held.retain(|held| Family::of(held.address) != Family::of(*address));
        held.push(may_have(pools, book, applicant, request, *address)?);
    }
    match request.pools.as_slice() {
        [_, _, ..] if request.addresses.is_empty() => {
            for (pool, families) in named_pools(pools, &wanted, request) {
                let of_pool = Request { pools: vec![pool.clone()], addresses: Vec::new() };
                let missing: Vec<Family> =
                    families.iter().copied().filter(|family| !has(&held, |it| *it == pool, *family)).collect();
                // What one pool does not give, `shortage` tells while others give something.
                let filled = fill(pools, book, applicant, &of_pool, &held, &missing).unwrap_or_default();
                held.extend(filled);
            }
        }
        _ => {
            let missing: Vec<Family> = wanted.iter().copied().filter(|family| !has(&held, |_| true, *family)).collect();
            held.extend(fill(pools, book, applicant, request, &held, &missing)?);
        }
    }
    let lacking = wanted.iter().find(|family| !has(&held, |_| true, **family));
    match lacking {
        _ if held.is_empty() => {
            let candidates = candidates(pools, applicant, request)?;
            Err(nothing_free(book, &candidates, wanted.first().copied().unwrap_or(Family::V4)))
        }
        Some(missing) if applicant.service.family_policy == FamilyPolicy::RequireDualStack => {
            Err(Reason::NoDualStack { missing: *missing })
        }
        Some(_) | None => Ok(in_order(held, kept, &applicant.service.families)),
    }
}

/// Puts an address of a family of which nothing stays in front of what stays of families that come behind it in the Service: one that comes
/// back into a status stands where it stood, for the first one ranks the nodes for all. What stays is in no other order than before.
fn in_order(held: Vec<Held>, kept: &[Held], families: &[Family]) -> Vec<Held> {
    let place = |held: &Held| families.iter().position(|family| *family == Family::of(held.address));
    let (stays, found): (Vec<Held>, Vec<Held>) = held.into_iter().partition(|it| kept.contains(it));
    let is_first = |found: &&Held| {
        let is_of_family = |it: &Held| place(it) == place(found);
        !stays.iter().any(is_of_family) && stays.iter().all(|it| place(found) < place(it))
    };
    let (before, behind): (Vec<Held>, Vec<Held>) = found.iter().cloned().partition(|it| is_first(&it));
    before.into_iter().chain(stays).chain(behind).collect()
}

/// Takes from what a single-stack Service that names no family keeps the addresses of the family that it does not go by: it wanted both
/// before. One that has addresses of one family alone keeps them, whatever pools come.
pub fn second_family(
    pools: &[Pool],
    applicant: &Applicant<'_>,
    request: &Request,
    kept: &mut Vec<Held>,
) -> Vec<(IpAddr, Reason)> {
    let is_single = applicant.service.family_policy == FamilyPolicy::SingleStack;
    if !applicant.service.families.is_empty() || !is_single {
        return Vec::new();
    }
    let wanted = wanted_families(pools, applicant, request).unwrap_or_default();
    let (stays, goes): (Vec<Held>, Vec<Held>) =
        kept.iter().cloned().partition(|held| wanted.contains(&Family::of(held.address)));
    if stays.is_empty() {
        return Vec::new();
    }
    *kept = stays;
    let lost = |held: Held| (held.address, Reason::WrongFamily { address: held.address, wanted: wanted.clone() });
    goes.into_iter().map(lost).collect()
}

/// A manifest without families that asks for no address of a family either.
fn goes_by_one_family(applicant: &Applicant<'_>, request: &Request) -> bool {
    let Service { families, family_policy, .. } = applicant.service;
    families.is_empty() && *family_policy == FamilyPolicy::SingleStack && request.addresses.is_empty()
}

/// Which of several pools that a Service names gives it nothing, although it has addresses of others.
pub fn shortage(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
) -> Option<Reason> {
    if request.pools.len() < 2 || !request.addresses.is_empty() {
        return None;
    }
    let wanted = wanted_families(pools, applicant, request).ok()?;
    named_pools(pools, &wanted, request).into_iter().find_map(|(pool, families)| {
        let family = *families.iter().find(|family| !has(held, |it| *it == pool, **family))?;
        let of_pool = Request { pools: vec![pool], addresses: Vec::new() };
        Some(match candidates(pools, applicant, &of_pool) {
            Ok(candidates) => nothing_free(book, &candidates, family),
            Err(reason) => reason,
        })
    })
}

/// Of which family a Service has an address that is to be replaced, and none to replace it with.
pub fn without_successor(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    (leaving, stays): (&[Held], &[Held]),
) -> Option<Reason> {
    let mut families = leaving.iter().map(|held| Family::of(held.address));
    let family = families.find(|family| !has(stays, |_| true, *family))?;
    Some(match candidates(pools, applicant, request) {
        Ok(candidates) => nothing_free(book, &candidates, family),
        Err(reason) => reason,
    })
}

/// What is to be said of addresses that a Service has, beside that it has them.
pub fn notes(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
) -> Vec<Reason> {
    let of_address = held.iter().filter_map(|held| match pool_of(pools, held.address) {
        Some(pool) => withheld(pool, book, applicant, held.address),
        None => leaving(applicant, held.address),
    });
    let unshared = partners::unshared(pools, book, applicant, request, held);
    let reserved = reserved_elsewhere(pools, book, applicant, request, held);
    of_address.chain(missing_family(pools, applicant, held)).chain(reserved).chain(unshared).collect()
}

/// An address that is reserved for the Service and that it could have but for another Service, where it has another one of that family and
/// requests none.
fn reserved_elsewhere(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
) -> Option<Reason> {
    let reserved = book.reservations(applicant.key);
    let lacks = |address: &&IpAddr| {
        let mut of_family = held.iter().filter(|held| Family::of(held.address) == Family::of(**address)).peekable();
        of_family.peek().is_some() && !of_family.any(|held| reserved.contains(&held.address))
    };
    let address = *reserved.iter().filter(|_| request.addresses.is_empty()).find(lacks)?;
    let by = match may_have(pools, book, applicant, request, address) {
        Ok(_) if book.is_occupied(address) => return None,
        Ok(_) => None,
        Err(Reason::AddressInUse { by, .. } | Reason::AddressNotShared { with: by, .. }) => Some(by),
        Err(_) => return None,
    };
    Some(Reason::ReservedNotHeld { address, by })
}

/// The second family that a Service would like to have and that some pool has.
fn missing_family(pools: &[Pool], applicant: &Applicant<'_>, held: &[Held]) -> Option<Reason> {
    let Service { family_policy, families, .. } = applicant.service;
    let missing = families.iter().find(|family| !has(held, |_| true, **family));
    let missing = *missing.filter(|_| *family_policy == FamilyPolicy::PreferDualStack)?;
    pools.iter().any(|pool| offers(pool, missing)).then_some(Reason::FamilyMissing { missing })
}

/// An address of each of these families: one that is reserved for the Service, one of its sharing key, or a free one. Families of
/// which there is none are left out.
fn fill(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
    missing: &[Family],
) -> Result<Vec<Held>, Reason> {
    let lacks = |filled: &[Held]| -> Vec<Family> {
        missing.iter().copied().filter(|family| !has(filled, |_| true, *family)).collect()
    };
    let reserved = |family: &Family| {
        let mut of_family = book.reservations(applicant.key).iter().filter(|address| Family::of(**address) == *family);
        of_family.find_map(|address| may_have(pools, book, applicant, request, *address).ok())
    };
    let mut filled: Vec<Held> = missing.iter().filter_map(reserved).collect();
    if request.addresses.is_empty() {
        filled.extend(partners::join(pools, book, applicant, request, &lacks(&filled)));
    }
    let missing = lacks(&filled);
    if missing.is_empty() {
        return Ok(filled);
    }
    let mut candidates = match candidates(pools, applicant, request) {
        Err(_) if !filled.is_empty() || !held.is_empty() => return Ok(filled),
        candidates => candidates?,
    };
    // The second family comes from the pool of the first, where that pool has it.
    candidates.sort_by_key(|pool| !held.iter().chain(&filled).any(|held| held.pool == pool.name));
    // What the Service had it has again.
    let own = |family: &Family| had_before(&candidates, book, applicant, *family);
    filled.extend(missing.iter().filter_map(own));
    filled.extend(lacks(&filled).iter().filter_map(|family| same_host_part(&candidates, book, applicant, *family)));
    let missing = lacks(&filled);
    // A pair from one pool is what people expect of a pool with both families, so that is tried first.
    if missing.len() == 2 {
        let pair = candidates.iter().find_map(|pool| {
            let both: Vec<_> = missing.iter().filter_map(|family| first_free(pool, book, applicant, *family)).collect();
            (both.len() == missing.len()).then_some(both)
        });
        if let Some(both) = pair {
            filled.extend(both);
            return Ok(filled);
        }
    }
    let free = |family: &Family| candidates.iter().find_map(|pool| first_free(pool, book, applicant, *family));
    filled.extend(missing.iter().filter_map(free));
    Ok(filled)
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
    let offered = |family| pools.iter().any(|pool| offers(pool, family));
    let offered: Vec<Family> = Family::BOTH.into_iter().filter(|family| offered(*family)).collect();
    Ok(match service.family_policy {
        FamilyPolicy::SingleStack => offered.into_iter().take(1).collect(),
        FamilyPolicy::PreferDualStack => offered,
        FamilyPolicy::RequireDualStack => Family::BOTH.to_vec(),
    })
}

/// The pools that a Service names, each with the families that it wants of that pool: those that the pool has, or else all.
fn named_pools(pools: &[Pool], wanted: &[Family], request: &Request) -> Vec<(PoolName, Vec<Family>)> {
    let of_pool = |name: &PoolName| {
        let pool = pools.iter().find(|pool| pool.name == *name);
        let has = |family: &Family| pool.is_some_and(|pool| offers(pool, *family));
        let families: Vec<Family> = wanted.iter().copied().filter(has).collect();
        (name.clone(), if families.is_empty() { wanted.to_vec() } else { families })
    };
    request.pools.iter().map(of_pool).collect()
}

fn offers(pool: &Pool, family: Family) -> bool {
    pool.addresses.iter().any(|range| range.family() == family)
}

fn has(held: &[Held], pool: impl Fn(&PoolName) -> bool, family: Family) -> bool {
    held.iter().any(|held| Family::of(held.address) == family && pool(&held.pool))
}

/// The address of the family that the Service had before, where one of these pools has it and it is free. One that is renumbered is not
/// to have again what it gave up.
fn had_before(candidates: &[&Pool], book: &AddressBook, applicant: &Applicant<'_>, family: Family) -> Option<Held> {
    let mut former = applicant.former.iter().rev().filter(|it| Family::of(**it) == family);
    let held = |address: &IpAddr| {
        let pool = candidates.iter().find(|pool| pool.holds(*address) && is_free(pool, book, applicant, *address))?;
        Some(Held { address: *address, pool: pool.name.clone() })
    };
    former.find_map(held).filter(|_| applicant.renumber.is_none())
}

/// The link that the pool names has another prefix: the host part of an address that leaves, below that one.
fn same_host_part(candidates: &[&Pool], book: &AddressBook, applicant: &Applicant<'_>, family: Family) -> Option<Held> {
    let renumber = applicant.renumber.filter(|_| applicant.by_prefix)?;
    let below = |leaving: &IpAddr| {
        let pool = candidates.iter().find(|pool| pool.holds_below_other_prefix(*leaving))?;
        let address = pool.below_present(*leaving).filter(|address| is_free(pool, book, applicant, *address))?;
        Some(Held { address, pool: pool.name.clone() })
    };
    renumber.leaving.iter().rev().filter(|it| Family::of(**it) == family).find_map(below)
}

/// The lowest free address of the first range of the family that has one.
fn first_free(pool: &Pool, book: &AddressBook, applicant: &Applicant<'_>, family: Family) -> Option<Held> {
    let address = book.unheld(&pool.name, family).find(|address| is_free(pool, book, applicant, *address))?;
    Some(Held { address, pool: pool.name.clone() })
}

fn is_free(pool: &Pool, book: &AddressBook, applicant: &Applicant<'_>, address: IpAddr) -> bool {
    let service = applicant.key;
    !book.is_resting(address, service)
        && !book.is_occupied(address)
        && book.is_free_for(address, service)
        && withheld(pool, book, applicant, address).is_none()
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
    pool.given().iter().map(of_range).fold(0, u64::saturating_add)
}

fn nothing_free(book: &AddressBook, candidates: &[&Pool], family: Family) -> Reason {
    let resting = book
        .resting()
        .filter(|address| Family::of(*address) == family)
        .filter(|address| candidates.iter().any(|pool| pool.holds(*address)))
        .count();
    let pools: Vec<PoolName> = candidates.iter().map(|pool| pool.name.clone()).collect();
    let mut foreign = book.foreign().filter(|(address, _)| Family::of(*address) == family);
    let foreign = foreign.find(|(address, _)| candidates.iter().any(|pool| pool.holds(*address)));
    Reason::NoFreeAddress { family, pools, resting, foreign: foreign.map(|(_, service)| service.clone()) }
}
