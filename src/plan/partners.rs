//! The Services with the same sharing key: whose address a Service gets without asking for it, and why it gets none of theirs.
//! Floor 1. The rules of sharing are in `sharing`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::Family;
use crate::config::Pool;
use crate::names::ObjectKey;
use crate::plan::address_book::AddressBook;
use crate::plan::decision::Held;
use crate::plan::pools::{Applicant, leaving, may_have, may_keep, pool_of};
use crate::reason::{Mismatch, Reason};
use crate::world::Request;

/// So many sets of addresses are looked at, those with the lowest addresses first.
const MOST_TRIED: usize = 256;
/// Of so many of them is asked why they are not shared.
const MOST_ASKED: usize = 16;

/// The addresses of a Service with the same sharing key, all of those of the families that are missing or none. Of several
/// Services, the one with most of them counts, then the one with the lowest addresses.
pub fn join(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    missing: &[Family],
) -> Vec<Held> {
    let joined =
        partners(pools, book, applicant, request, missing).into_keys().take(MOST_TRIED).filter_map(|addresses| {
            let joined = addresses.iter().map(|address| may_join(pools, book, applicant, request, *address));
            joined.collect::<Result<Vec<Held>, Reason>>().ok()
        });
    // The last of equals counts for `max_by_key`.
    joined.collect::<Vec<_>>().into_iter().rev().max_by_key(Vec::len).unwrap_or_default()
}

/// Why a Service that has a sharing key, and its addresses for itself alone, does not have those of the others with that key.
pub fn unshared(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    held: &[Held],
) -> Option<Reason> {
    if !held.iter().all(|held| book.is_free_for(held.address, applicant.key)) {
        return None;
    }
    let families: Vec<Family> = held.iter().map(|held| Family::of(held.address)).collect();
    let partners = partners(pools, book, applicant, request, &families);
    // One reason is enough, and who has many partners has one soon.
    partners.into_iter().take(MOST_ASKED).find_map(|(addresses, partner)| {
        let joined = addresses.iter().map(|address| may_join(pools, book, applicant, request, *address));
        match joined.collect::<Result<Vec<Held>, Reason>>() {
            Ok(_) => None,
            // Of the pool, where the other Service is not at fault.
            Err(Reason::PoolNotForService { .. } | Reason::AddressInOtherPool { .. }) => {
                let address = *addresses.first()?;
                let why = Box::new(Mismatch::Pool { pool: pool_of(pools, address)?.name.clone() });
                Some(Reason::AddressNotShared { address, with: partner.clone(), why })
            }
            Err(reason @ Reason::AddressNotShared { .. }) => Some(reason),
            Err(reason) => {
                let address = *addresses.first()?;
                let reason = match reason {
                    Reason::AddressOutsidePools { address } => Reason::AddressLeftPools { address },
                    reason => reason,
                };
                let why = Box::new(Mismatch::Withheld { why: reason.steady().to_string() });
                Some(Reason::AddressNotShared { address, with: partner.clone(), why })
            }
        }
    })
}

/// The addresses that Services with the same sharing key have, one of each of these families, of the requested pools where
/// they have one there: each set once, with one of those who have it. Where one replaces another, the one that comes; and rather one that a
/// pool gives than one whose range has left the file.
fn partners<'a>(
    pools: &[Pool],
    book: &'a AddressBook,
    applicant: &'a Applicant<'_>,
    request: &Request,
    families: &[Family],
) -> BTreeMap<Vec<IpAddr>, &'a ObjectKey> {
    let mut partners = BTreeMap::new();
    let is_requested = |address: &IpAddr| pool_of(pools, *address).is_some_and(|it| request.pools.contains(&it.name));
    let any_pool = Request { addresses: request.addresses.clone(), pools: Vec::new() };
    let is_open = |address: &IpAddr| may_keep(pools, applicant, &any_pool, *address).is_ok();
    let key = applicant.terms.as_ref().map(|terms| terms.key.as_str());
    for (partner, claimed, gives_up) in key.into_iter().flat_map(|key| book.partners(key, applicant.key)) {
        let first = |family: &Family| {
            let of_family =
                claimed.iter().copied().filter(|it| Family::of(*it) == *family && leaving(applicant, *it).is_none());
            let stays = || of_family.clone().filter(|address| !gives_up.contains(address));
            // What its status shows and no pool gives any more stands before what it got in its place.
            let mut open = stays().filter(|address| is_open(address) && book.standing(*address, partner).is_ok());
            let open = open.clone().find(is_requested).or_else(|| open.next());
            open.or_else(|| stays().find(is_requested)).or_else(|| stays().next()).or_else(|| of_family.clone().next())
        };
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
    let held = may_have(pools, book, applicant, request, address)?;
    if book.is_occupied(address) { Err(Reason::AddressTaken { address }) } else { Ok(held) }
}
