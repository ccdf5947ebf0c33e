//! Which addresses a Service has, and what its status should show.
//! Floor 1. Which address is free is `plan::allocate`'s to find.

use std::net::IpAddr;

use super::Inputs;
use crate::config::Source;
use crate::names::ObjectKey;
use crate::plan::allocate::{Applicant, allocate, may_keep, notes, pool_of, shortage};
use crate::plan::decision::{Allocation, Held};
use crate::plan::sharing::{Refusal, Terms};
use crate::reason::Reason;
use crate::world::Service;

/// What becomes of the addresses of a Service.
pub struct Answer {
    pub allocation: Allocation,
    /// Addresses that this agent, as the one who allocates, newly chose.
    pub assigned: Option<Vec<IpAddr>>,
    /// What the status should say; `None` where it is not ours to write, or says it already.
    pub status: Option<Vec<IpAddr>>,
}

pub fn judge(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Answer {
    if let Some(reason) = not_ours(inputs, service) {
        let ours_before = !service.load_balancer
            && !service.ingress.is_empty()
            && service.ingress.iter().all(|address| pool_of(&inputs.config.pools, *address).is_some());
        let status = (ours_before && inputs.world.leader).then(Vec::new);
        return Answer { allocation: Allocation::none(reason), assigned: None, status };
    }
    if !allocates(inputs) {
        return Answer { allocation: as_shown(inputs, key, service), assigned: None, status: None };
    }
    let (allocation, assigned) = choose(inputs, key, service);
    let wanted: Vec<IpAddr> = allocation.held.iter().map(|held| held.address).collect();
    let status = (inputs.world.leader && wanted != service.ingress).then_some(wanted);
    Answer { allocation, assigned, status }
}

/// The addresses that a Service claims: what its status says, and what was promised to it; nothing if it is not
/// ours. Those outside every pool are somebody else's.
pub fn claims(inputs: &Inputs<'_>, key: &ObjectKey) -> Vec<IpAddr> {
    let Some(service) = inputs.world.services.get(key) else { return Vec::new() };
    if not_ours(inputs, service).is_some() {
        return Vec::new();
    }
    let promised = inputs.world.assigned.get(key);
    let mut claims = service.ingress.clone();
    claims.extend(promised.into_iter().flatten().filter(|address| !service.ingress.contains(address)));
    claims.retain(|address| pool_of(&inputs.config.pools, *address).is_some());
    claims
}

/// On what terms a Service shares its addresses with others; `None` where it does not, or is not ours.
pub fn terms(inputs: &Inputs<'_>, key: &ObjectKey) -> Option<Terms> {
    let service = inputs.world.services.get(key)?;
    not_ours(inputs, service).is_none().then(|| Terms::of(service))?
}

/// This agent is the one that chooses addresses, and knows enough to do so. Standalone, a manifest that cannot be read
/// holds the others up only until patience ends: nobody else will choose for them.
pub fn allocates(inputs: &Inputs<'_>) -> bool {
    if inputs.config.is_standalone() {
        inputs.world.listed.all() || inputs.world.fail_static
    } else {
        inputs.world.listed.all() && inputs.world.leader
    }
}

fn not_ours(inputs: &Inputs<'_>, service: &Service) -> Option<Reason> {
    if !service.load_balancer {
        return Some(Reason::NotLoadBalancer);
    }
    let ours = match (&inputs.config.source, &service.class) {
        // Standalone there is nobody else whose Services these could be.
        (Source::Manifests(_), _) => true,
        (Source::Kubernetes(kubernetes), Some(class)) => kubernetes.classes.contains(class),
        (Source::Kubernetes(kubernetes), None) => kubernetes.default_class,
    };
    (!ours).then(|| Reason::OtherClass { class: service.class.clone() })
}

/// The allocation as this agent decides it. What a Service holds rightly stays, also when it requests
/// something that cannot be met: then the request is the complaint.
fn choose(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> (Allocation, Option<Vec<IpAddr>>) {
    let pools = &inputs.config.pools;
    let namespace_labels = inputs.world.namespaces.get(&key.namespace).map(|it| &**it);
    let applicant = Applicant { key, service, namespace_labels, terms: terms(inputs, key) };
    let nothing_asked = Default::default();
    let (request, unreadable) = match &service.request {
        Ok(request) => (request, None),
        Err(error) => (&nothing_asked, Some(Reason::RequestUnreadable { text: error.to_string() })),
    };
    let current = inputs.world.assigned.get(key).unwrap_or(&service.ingress);
    // What the Service would give up for its request; it keeps it where the request cannot be met.
    let mut given_up: Vec<IpAddr> = Vec::new();
    let mut kept: Vec<Held> = Vec::new();
    let fresh = |address: &IpAddr| inputs.book.is_fresh(*address, key);
    for address in current {
        // A foreign host has the address, and no client knows it yet: another address will do. An address that has been in
        // use is never exchanged, whatever is in its way.
        if fresh(address) && inputs.book.is_occupied(*address) && !request.addresses.contains(address) {
            given_up.push(*address);
            continue;
        }
        match claim_of(inputs, key, *address).and_then(|()| may_keep(pools, &applicant, request, *address)) {
            Ok(held) => kept.push(held),
            Err(Reason::AddressInOtherPool { .. }) => given_up.push(*address),
            Err(_) => {}
        }
    }
    if let Some(reason) = unreadable {
        return (Allocation::kept(kept, reason), None);
    }
    match allocate(pools, inputs.book, &applicant, request, &kept) {
        Ok(held) => {
            let chosen = (held != kept).then(|| held.iter().map(|held| held.address).collect());
            let notes = notes(pools, inputs.book, &applicant, request, &held);
            let complaint = shortage(pools, inputs.book, &applicant, request, &held);
            (Allocation { complaint, notes, ..Allocation::assigned(held) }, chosen)
        }
        Err(reason) => {
            // The request alone does not take away what still lies in our pools and is nobody else's.
            let still_ours = |address: &IpAddr| {
                let stays = given_up.contains(address) || kept.iter().any(|held| held.address == *address);
                let pool = pool_of(pools, *address).filter(|_| stays)?;
                claim_of(inputs, key, *address).ok()?;
                Some(Held { address: *address, pool: pool.name.clone() })
            };
            (Allocation::kept(current.iter().filter_map(still_ours).collect(), reason), None)
        }
    }
}

/// The allocation as the status tells it, while another agent decides.
fn as_shown(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Allocation {
    let mut complaint = None;
    let mut held = Vec::new();
    for address in &service.ingress {
        let claim = claim_of(inputs, key, *address);
        let pool = pool_of(&inputs.config.pools, *address);
        match (claim, pool) {
            (Ok(()), Some(pool)) => held.push(Held { address: *address, pool: pool.name.clone() }),
            (Ok(()), None) => complaint = Some(Reason::AddressLeftPools { address: *address }),
            (Err(reason), _) => complaint = Some(reason),
        }
    }
    if held.is_empty() {
        let lists = inputs.world.listed.all() || inputs.world.fail_static;
        let waiting = if lists { Reason::WaitingForAllocator } else { Reason::WaitingForLists };
        return Allocation { held, reason: complaint.unwrap_or(waiting), complaint: None, notes: Vec::new() };
    }
    Allocation { complaint, ..Allocation::assigned(held) }
}

fn claim_of(inputs: &Inputs<'_>, key: &ObjectKey, address: IpAddr) -> Result<(), Reason> {
    inputs.book.standing(address, key).map_err(|refusal| match refusal.clone() {
        Refusal { with, why: Some(why) } => Reason::AddressNotShared { address, with, why: Box::new(why) },
        Refusal { with, why: None } => Reason::AddressClaimedTwice { address, by: with },
    })
}

impl Allocation {
    fn none(reason: Reason) -> Allocation {
        Allocation { held: Vec::new(), reason, complaint: None, notes: Vec::new() }
    }

    fn assigned(held: Vec<Held>) -> Allocation {
        let addresses = held.iter().map(|held| held.address).collect();
        let mut pools: Vec<_> = held.iter().map(|held| held.pool.clone()).collect();
        pools.dedup();
        Allocation { held, reason: Reason::Assigned { addresses, pools }, complaint: None, notes: Vec::new() }
    }

    /// What is kept although something else was requested.
    fn kept(held: Vec<Held>, complaint: Reason) -> Allocation {
        if held.is_empty() {
            return Allocation::none(complaint);
        }
        Allocation { complaint: Some(complaint), ..Allocation::assigned(held) }
    }
}
