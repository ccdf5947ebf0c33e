//! The addresses of a Service that others replace: what is wished, what may go, and what stands beside its successor meanwhile.
//! Floor 1.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Inputs;
use crate::address::Family;
use crate::config::{Pool, duration};
use crate::names::PoolName;
use crate::plan::address_book::AddressBook;
use crate::plan::allocate::{Applicant, allocate};
use crate::plan::decision::Held;
use crate::plan::overlaps::Overlap;
use crate::reason::Reason;
use crate::world::{Renumber, Request, Service};

/// What the Service requests itself it keeps, whatever is wished of it.
pub(super) fn wish_without<'a>(wish: Option<&'a Renumber>, requested: &[IpAddr]) -> Option<Cow<'a, Renumber>> {
    let wish = wish?;
    if !wish.leaving.iter().any(|it| requested.contains(it)) {
        return Some(Cow::Borrowed(wish));
    }
    let leaving: Vec<IpAddr> = wish.leaving.iter().copied().filter(|it| !requested.contains(it)).collect();
    let overlap = wish.overlap;
    (!leaving.is_empty()).then_some(Cow::Owned(Renumber { leaving, overlap }))
}

/// That the wish to replace an address goes against the Service's own request.
pub(super) fn refused_wish(service: &Service, request: &Request) -> Option<Reason> {
    let mut leaving = service.renumber.iter().flat_map(|wish| &wish.leaving);
    let address = *leaving.find(|it| service.ingress.contains(it) && request.addresses.contains(it))?;
    Some(Reason::RenumberRequested { address })
}

/// Finds addresses for a Service that holds `stays`, and `leaving` until there are others. Of one that requires both families each goes by
/// itself: a family of which nothing else is free has what leaves until then.
pub(super) fn found_beside(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    (leaving, stays): (&[Held], &[Held]),
) -> Result<Vec<Held>, Reason> {
    let missing = match allocate(pools, book, applicant, request, stays) {
        Err(Reason::NoDualStack { missing }) => missing,
        found => return found,
    };
    let had: Vec<Held> = leaving.iter().filter(|held| Family::of(held.address) == missing).cloned().collect();
    if had.is_empty() {
        return Err(Reason::NoDualStack { missing });
    }
    let kept: Vec<Held> = had.iter().chain(stays).cloned().collect();
    let found = allocate(pools, book, applicant, request, &kept)?;
    Ok(found.into_iter().filter(|held| !had.contains(held)).collect())
}

/// The addresses that stay, and in front of them those that are still to go: they rank the nodes as before, so no connection moves.
/// One goes when another of its family (of the same pool where the Service lists several), which stays, has stood beside it in the status for long enough.
pub(super) fn beside(
    inputs: &Inputs<'_>,
    applicant: &Applicant<'_>,
    request: &Request,
    leaving: Vec<Held>,
    stays: Vec<Held>,
    lost: &mut Vec<(IpAddr, Reason)>,
) -> (Vec<Held>, Option<Overlap>) {
    let Some(Renumber { overlap: lasts, leaving: _ }) = applicant.renumber else {
        return (stays, None);
    };
    let by_prefix = applicant.by_prefix;
    let shown = |held: &Held| inputs.config.is_standalone() || applicant.service.ingress.contains(&held.address);
    // A family waits for its own successor only, and of a Service that lists several pools each of their addresses does.
    let is_listed = |pool: &PoolName| request.pools.len() > 1 && request.pools.contains(pool);
    let replaces = |it: &Held, held: &Held| {
        let of_family = Family::of(it.address) == Family::of(held.address);
        of_family && (it.pool == held.pool || !is_listed(&held.pool)) && shown(it)
    };
    let is_replaced = |held: &Held| stays.iter().any(|it| replaces(it, held));
    let replaced: Vec<IpAddr> = leaving.iter().filter(|held| is_replaced(held)).map(|held| held.address).collect();
    if replaced.is_empty() {
        return (leaving.into_iter().chain(stays).collect(), None);
    }
    // The oldest stand in front.
    let most = MOST_FORMER * stays.iter().filter(|held| held.address.is_ipv6()).count();
    let surplus = if by_prefix { replaced.len().saturating_sub(most) } else { 0 };
    let is_over = |address: IpAddr| {
        let over = || inputs.restraints.is_overlap_over(applicant.key, address, *lasts, inputs.now);
        replaced.iter().take(surplus).any(|it| *it == address)
            || (replaced.contains(&address) && (lasts.is_zero() || over()))
    };
    let (gone, kept): (Vec<Held>, Vec<Held>) = leaving.into_iter().partition(|held| is_over(held.address));
    lost.extend(gone.into_iter().map(|held| {
        let overlap = duration::text(*lasts);
        (held.address, Reason::AddressRenumbered { address: held.address, overlap, by_prefix })
    }));
    (kept.into_iter().chain(stays).collect(), Some(Overlap { leaving: replaced, lasts: *lasts }))
}

/// The former prefixes below which a Service keeps addresses: a provider that changes its prefix again and again fills no status.
const MOST_FORMER: usize = 2;
