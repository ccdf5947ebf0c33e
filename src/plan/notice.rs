//! The Event that a Service gets by a decision. Floor 1.

use super::decision::{Announcement, Decision};
use super::slice::Notice;
use crate::reason::Reason;
use crate::world::Service;

/// The Event that tells a user how the Service stands. Reasons of Events are words that people filter by.
pub(super) fn notice(service: &Service, decision: &Decision) -> Option<Notice> {
    if !service.load_balancer {
        return None;
    }
    let warning = |reason: &str, why: &Reason| {
        Some(Notice { warning: true, reason: reason.to_owned(), message: why.to_string() })
    };
    let allocation = &decision.allocation;
    if let Some(complaint) = &allocation.complaint {
        return warning("RequestRefused", complaint);
    }
    match &allocation.reason {
        Reason::Assigned { .. } => {
            if decision.announcements.iter().any(Announcement::lacks_node_names) {
                return warning("NotAnnounced", &Reason::EndpointsNameNoNode);
            }
            if let Some(dispute) = decision.announcements.iter().find_map(|it| it.bgp.dispute()) {
                return warning("AdvertisementsDisagree", dispute);
            }
            if let Some(conflict) = decision.announcements.iter().find(|it| it.l2.reason.is_conflict()) {
                return warning("AddressConflict", &conflict.l2.reason);
            }
            let said = allocation.notes.iter().map(ToString::to_string);
            let message = std::iter::once(allocation.reason.to_string()).chain(said).collect::<Vec<_>>().join("; ");
            Some(Notice { warning: false, reason: "IPAllocated".to_owned(), message })
        }
        Reason::OtherClass { .. } | Reason::WaitingForAllocator | Reason::WaitingForLists => None,
        other => warning("AllocationFailed", other),
    }
}
