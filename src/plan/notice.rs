//! What a user is told of a decision: the condition in the status of the Service, and the Event. Floor 1.
//!
//! The condition holds what follows from the objects alone, so every agent that allocates would write the same one. What this
//! node sees on its links or with its peers is told by an Event and not kept there.

use std::net::IpAddr;

use super::decision::{Announcement, Decision};
use super::slice::Notice;
use super::verdict::Wish;
use crate::names::PoolName;
use crate::reason::{HostUse, Reason};
use crate::world::{Condition, Service};

/// The Event that tells a user how the Service stands. Reasons of Events are words that people filter by.
/// The flag: the condition says the same.
pub(super) fn notice(service: &Service, decision: &Decision) -> Option<(Notice, bool)> {
    let allocation = &decision.allocation;
    if !service.load_balancer {
        // The status of such a Service is not crier's.
        let refused = allocation.complaint.as_ref().filter(|it| matches!(it, Reason::EgressNeedsLoadBalancer));
        return refused.map(|reason| (warning("EgressRefused", reason), false));
    }
    let is_own = |it: &&Reason| !matches!(it, Reason::Assigned { .. } | Reason::ToldByAllocator { .. });
    let trouble = allocation.complaint.as_ref().filter(is_own);
    let trouble = trouble.or_else(|| Some(&allocation.reason).filter(is_own));
    if let Some(reason) = trouble {
        return word(reason, allocation.held.is_empty()).map(|word| (warning(word, reason), true));
    }
    if decision.announcements.iter().any(Announcement::lacks_node_names) {
        return Some((warning("NotAnnounced", &Reason::EndpointsNameNoNode), true));
    }
    if let Some(dispute) = decision.announcements.iter().find_map(|it| it.bgp.dispute()) {
        return Some((warning("AdvertisementsDisagree", dispute), false));
    }
    if let Some(conflict) = decision.announcements.iter().find(|it| it.l2.reason.is_conflict()) {
        return Some((warning("AddressConflict", &conflict.l2.reason), false));
    }
    let said = allocation.notes.iter().map(|note| note.steady().to_string());
    let message = std::iter::once(allocation.reason.to_string()).chain(said).collect::<Vec<_>>().join("; ");
    Some((Notice { warning: false, reason: "IPAllocated".to_owned(), message }, true))
}

/// What the Event is called that tells why a Service has no address, or not the one that it is to have; none where that is
/// nothing to tell.
fn word(reason: &Reason, nothing_held: bool) -> Option<&'static str> {
    match reason {
        Reason::OtherClass { .. } | Reason::WaitingForAllocator | Reason::WaitingForLists => None,
        // That agent told it.
        Reason::ToldByAllocator { .. } => None,
        // Whose class it is may serve it.
        Reason::NamespaceUnknown { .. } | Reason::PoolUnknown { .. } | Reason::EgressOfOtherClass { .. } => None,
        Reason::ForeignStatus { .. } | Reason::OtherCrier { .. } | Reason::StatusOverwritten { .. } => {
            Some("StatusNotOurs")
        }
        Reason::AddressGoes { .. } => Some(Notice::LOSS),
        _ if nothing_held => Some("AllocationFailed"),
        _ => Some("RequestRefused"),
    }
}

/// The Event before an address is taken away.
pub(super) fn loss(lost: &Reason) -> Notice {
    warning(Notice::LOSS, lost)
}

fn warning(reason: &str, why: &Reason) -> Notice {
    Notice { warning: true, reason: reason.to_owned(), message: why.steady().to_string() }
}

/// The condition that goes with what the status should say; none where crier is to say nothing any more.
pub(super) fn condition(wish: &Wish, decision: &Decision) -> Option<Condition> {
    let allocation = &decision.allocation;
    let leaves = |address: &&IpAddr| {
        let of = |note: &Reason| matches!(note, Reason::AddressRenumbered { address: of, .. } if of == *address);
        allocation.notes.iter().any(of)
    };
    let given: Vec<IpAddr> = match wish {
        // One that is to go is not the Service's own any more: if the wish to renumber is taken back, it goes at once.
        Wish::Show(addresses) => match addresses.iter().copied().filter(|it| !leaves(&it)).collect::<Vec<_>>() {
            stays if stays.is_empty() => addresses.clone(),
            stays => stays,
        },
        Wish::Leave { given } => given.clone(),
        Wish::Clear { .. } => return None,
    };
    let given = given.as_slice();
    if given.is_empty() {
        let why = allocation.complaint.as_ref().unwrap_or(&allocation.reason).steady();
        let (code, text) = (why.code(), why.to_string());
        // The status shows an address still, and crier did not give it.
        let is_shown = matches!((wish, &why), (Wish::Leave { .. }, Reason::AddressGoes { .. }));
        return Some(if is_shown { Condition::not_given(&code, text) } else { Condition::nothing(&code, &text) });
    }
    let nameless = decision.announcements.iter().any(Announcement::lacks_node_names);
    let nameless = nameless.then_some(&Reason::EndpointsNameNoNode);
    let complaint = allocation.complaint.as_ref();
    // An address that goes is still there.
    let has_its_own = complaint.is_none_or(|it| matches!(it, Reason::AddressGoes { .. }));
    let is_replaced = |note: &&Reason| matches!(note, Reason::AddressRenumbered { .. });
    let lasting = allocation.notes.iter().find(|note| lasts(note) && !is_replaced(note));
    // Whoever allocates next reads there that crier gave these.
    let replaced = allocation.notes.iter().filter(is_replaced);
    let notes: Vec<String> =
        complaint.or(nameless).or(lasting).into_iter().chain(replaced).map(|it| it.steady().to_string()).collect();
    let code = complaint.map_or_else(|| "assigned".to_owned(), Reason::code);
    let note = Some(notes.join("; ")).filter(|_| !notes.is_empty());
    Some(Condition::given(has_its_own, &code, given, &pools(given, decision), note.as_deref()))
}

/// A note that every agent would write. With whom a Service does not share changes with others, and is no matter of this Service
/// alone; what the links of a host tell, the next agent that allocates does not know.
fn lasts(note: &Reason) -> bool {
    match note {
        Reason::AddressNotShared { .. } => false,
        Reason::AddressOfHost { what, .. } => matches!(what, HostUse::Node { .. } | HostUse::ServiceNetwork { .. }),
        _ => true,
    }
}

/// The pools of these addresses, each once.
pub(super) fn pools(addresses: &[IpAddr], decision: &Decision) -> Vec<PoolName> {
    let held = decision.allocation.held.iter().filter(|held| addresses.contains(&held.address));
    let mut pools: Vec<PoolName> = Vec::new();
    for held in held {
        if !pools.contains(&held.pool) {
            pools.push(held.pool.clone());
        }
    }
    pools
}
