//! Which pools, and which of their addresses, are open to a Service. Floor 1.
//! It judges one address or pool at a time; `allocate` chooses among those that are open.

use std::net::IpAddr;

use crate::address::Family;
use crate::config::{Pool, duration};
use crate::names::{ObjectKey, PoolName};
use crate::plan::address_book::AddressBook;
use crate::plan::decision::Held;
use crate::plan::sharing::{Refusal, Terms};
use crate::reason::Reason;
use crate::selector::Labels;
use crate::world::{Renumber, Request, Service};

/// A Service before the pools.
pub struct Applicant<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a Service,
    /// The labels of its namespace; `None` while the namespace is not known.
    pub namespace_labels: Option<&'a Labels>,
    /// On what terms it shares its addresses.
    pub terms: Option<Terms>,
    /// The addresses that its status showed before.
    pub former: &'a [IpAddr],
    /// Which of its addresses it is to give up: none that it requests.
    pub renumber: Option<&'a Renumber>,
    /// Nobody asked for that: the link that the pool names has another prefix.
    pub by_prefix: bool,
}

/// Whether the Service may go on holding an address that it has, and from which pool. What no Service is given anew it may keep.
pub fn may_keep(pools: &[Pool], applicant: &Applicant<'_>, request: &Request, address: IpAddr) -> Result<Held, Reason> {
    let pool = pool_of(pools, address).ok_or(Reason::AddressLeftPools { address })?;
    if !serves(pool, applicant) {
        return Err(Reason::PoolNotForService { pool: pool.name.clone() });
    }
    let wanted = &applicant.service.families;
    if !wanted.is_empty() && !wanted.contains(&Family::of(address)) {
        return Err(Reason::WrongFamily { address, wanted: wanted.clone() });
    }
    if !request.pools.is_empty() && !request.pools.contains(&pool.name) {
        let (actual, requested) = (pool.name.clone(), request.pools.clone());
        return Err(Reason::AddressInOtherPool { address, actual, requested });
    }
    Ok(Held { address, pool: pool.name.clone() })
}

/// Whether the Service may be given an address that it does not have: alone, or with those whose address it is.
pub fn may_have(
    pools: &[Pool],
    book: &AddressBook,
    applicant: &Applicant<'_>,
    request: &Request,
    address: IpAddr,
) -> Result<Held, Reason> {
    let pool = pool_of(pools, address).ok_or(Reason::AddressOutsidePools { address })?;
    let held = may_keep(pools, applicant, request, address)?;
    if let Some(reason) = withheld(pool, book, applicant, address) {
        return Err(reason);
    }
    match book.admits(address, applicant.key, applicant.terms.as_ref()) {
        Ok(()) => Ok(held),
        Err(Refusal { with, why: Some(why) }) => Err(Reason::AddressNotShared { address, with, why: Box::new(why) }),
        Err(Refusal { with, why: None }) => Err(Reason::AddressInUse { address, by: with }),
    }
}

/// Why an address of a pool is not given to the Service, whoever holds it.
pub fn withheld(pool: &Pool, book: &AddressBook, applicant: &Applicant<'_>, address: IpAddr) -> Option<Reason> {
    leaving(applicant, address).or_else(|| unavailable(pool, book, applicant, address))
}

/// The Service is to give the address up.
pub fn leaving(applicant: &Applicant<'_>, address: IpAddr) -> Option<Reason> {
    let renumber = applicant.renumber.filter(|renumber| renumber.leaving.contains(&address))?;
    let by_prefix = applicant.by_prefix;
    Some(Reason::AddressRenumbered { address, overlap: duration::text(renumber.overlap), by_prefix })
}

fn unavailable(pool: &Pool, book: &AddressBook, applicant: &Applicant<'_>, address: IpAddr) -> Option<Reason> {
    let name = || pool.name.clone();
    if let Some(link) = pool.prefix_of.as_ref().filter(|_| pool.holds_below_other_prefix(address)) {
        let present = pool.below_present(address).filter(|_| !pool.awaits_prefix());
        return Some(Reason::AddressOfOtherPrefix { address, pool: name(), link: link.clone(), present });
    }
    if pool.excludes(address) {
        return Some(Reason::AddressExcluded { address, pool: name() });
    }
    // A link that lost its own address for a moment is not what somebody has in mind who names the address.
    let is_meant = || book.reserved_for(address) == Some(applicant.key) || requests(applicant, address);
    if let Some(what) = book.own_use(address).filter(|what| !(what.is_former_of_link() && is_meant())) {
        return Some(Reason::AddressOfHost { address, what: what.clone() });
    }
    if let Some(service) = book.reserved_for(address).filter(|service| *service != applicant.key) {
        return Some(Reason::AddressReserved { address, service: service.clone() });
    }
    if pool.draining {
        return Some(Reason::PoolDraining { pool: name() });
    }
    pool.avoids(address).then(|| Reason::AddressAvoided { address, pool: name() })
}

/// The Service asks for this very address.
fn requests(applicant: &Applicant<'_>, address: IpAddr) -> bool {
    applicant.service.request.as_ref().is_ok_and(|request| request.addresses.contains(&address))
}

/// The pools to try, best first: those made for some Services before those for all, then by priority, then as written.
pub fn candidates<'a>(
    pools: &'a [Pool],
    applicant: &Applicant<'_>,
    request: &Request,
) -> Result<Vec<&'a Pool>, Reason> {
    if !request.pools.is_empty() {
        let named: Vec<&Pool> =
            request.pools.iter().map(|name| named(pools, applicant, name)).collect::<Result<_, _>>()?;
        return Ok(named);
    }
    let open = |pool: &&Pool| pool.auto_assign && !pool.draining && serves(pool, applicant);
    let mut candidates: Vec<&Pool> = pools.iter().filter(open).collect();
    candidates.sort_by_key(|pool| {
        let for_some = is_restricted(pool) || pool.priority.is_some();
        (!for_some, pool.priority.is_none(), pool.priority)
    });
    // A second family may be asked of the pool of a requested address only if that pool assigns by itself.
    if candidates.is_empty() && request.addresses.is_empty() {
        let drained = pools.iter().find(|pool| pool.auto_assign && pool.draining && serves(pool, applicant));
        let drained = drained.map(|pool| Reason::PoolDraining { pool: pool.name.clone() });
        return Err(drained.unwrap_or(Reason::NoPoolForService));
    }
    Ok(candidates)
}

/// A pool that the Service asks for by name.
fn named<'a>(pools: &'a [Pool], applicant: &Applicant<'_>, name: &PoolName) -> Result<&'a Pool, Reason> {
    let Some(pool) = pools.iter().find(|pool| pool.name == *name) else {
        let known = pools.iter().map(|pool| pool.name.clone()).collect();
        return Err(Reason::UnknownPool { pool: name.clone(), known });
    };
    match (serves(pool, applicant), pool.draining) {
        (false, _) => Err(Reason::PoolNotForService { pool: pool.name.clone() }),
        (true, true) => Err(Reason::PoolDraining { pool: pool.name.clone() }),
        (true, false) => Ok(pool),
    }
}

/// The pool that an address belongs to. Pools do not overlap: the configuration was checked. An address below a former prefix of a
/// pool's link is the pool's still, unless another pool has it.
pub fn pool_of(pools: &[Pool], address: IpAddr) -> Option<&Pool> {
    let below_former = || pools.iter().find(|pool| pool.holds_below_other_prefix(address));
    pools.iter().find(|pool| pool.holds(address)).or_else(below_former)
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
