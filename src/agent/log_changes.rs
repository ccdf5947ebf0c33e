//! One line in the log for each thing that a turn decided anew. Floor 3.

use std::sync::Arc;

use ipnet::IpNet;
use tracing::{info, warn};

use crate::names::{NodeName, ObjectKey, PeerName, PoolName};
use crate::plan::Change;
use crate::plan::decision::{Allocation, Announcement, Decision};
use crate::plan::join::Disagreement;
use crate::plan::placement::Handover;
use crate::reason::Reason;

/// Logs what differs between the decision of before and the one of now.
/// `handovers` are those of the same turn: they say why an owner changed.
pub fn log_change(change: &Change, node: &NodeName, handovers: &[Handover]) {
    let Change { service, before, after } = change;
    let before = before.as_deref();
    match after.as_deref() {
        Some(after) => {
            log_allocation(service, before.map(|it| &it.allocation), &after.allocation);
            log_announcements(service, announcements(before), &after.announcements, node, handovers);
        }
        None => {
            log_announcements(service, announcements(before), &[], node, handovers);
            if before.is_some_and(|before| !before.allocation.held.is_empty()) {
                info!(%service, "addresses freed: the Service is gone");
            }
        }
    }
}

/// Logs that advertisements disagree about a route, unless that is over already.
pub fn log_dispute((peer, prefix): &(PeerName, IpNet), disputes: Option<&Arc<Vec<Disagreement>>>) {
    for Disagreement { key, kept, ignored } in disputes.into_iter().flat_map(|disputes| disputes.iter()) {
        warn!(%peer, %prefix, key, kept, ignored, "advertisements disagree; the first in the file counts");
    }
}

fn announcements(decision: Option<&Decision>) -> &[Announcement] {
    decision.map(|decision| decision.announcements.as_slice()).unwrap_or_default()
}

fn log_allocation(service: &ObjectKey, before: Option<&Allocation>, after: &Allocation) {
    if before == Some(after) {
        return;
    }
    if before.map(|it| &it.held) != Some(&after.held) && !after.held.is_empty() {
        let addresses = join(after.held.iter().map(|held| held.address));
        let mut pools: Vec<&PoolName> = after.held.iter().map(|held| &held.pool).collect();
        pools.dedup();
        let pools = join(pools);
        info!(%service, addresses, pools, "addresses held");
    }
    let refused = after.complaint.as_ref().or(after.held.is_empty().then_some(&after.reason));
    let refused_before = before.and_then(|it| it.complaint.as_ref().or(it.held.is_empty().then_some(&it.reason)));
    match refused {
        Some(reason) if refused_before == Some(reason) => {}
        Some(Reason::NotLoadBalancer | Reason::OtherClass { .. } | Reason::WaitingForAllocator) | None => {}
        Some(Reason::ToldByAllocator { .. } | Reason::WaitingForLists | Reason::WaitingForStatus) => {}
        Some(reason) => warn!(%service, reason = reason.code(), "{reason}"),
    }
}

fn log_announcements(
    service: &ObjectKey,
    before: &[Announcement],
    after: &[Announcement],
    node: &NodeName,
    handovers: &[Handover],
) {
    for now in after {
        let was = before.iter().find(|it| it.address == now.address);
        let address = now.address;
        let owner_before = was.and_then(|it| it.l2.owner.as_ref());
        if owner_before != now.l2.owner.as_ref() {
            let moved = handovers.iter().find(|it| it.address == address && it.to == now.l2.owner);
            let from = moved.and_then(|it| it.from.as_ref()).map(tracing::field::display);
            let cause = moved.map(|it| it.cause.code());
            let why = moved.map(|it| format!(": {}", it.cause)).unwrap_or_default();
            match &now.l2.owner {
                Some(owner) if owner == node => {
                    info!(%service, %address, %owner, from, cause, "this node answers on the link{why}");
                }
                Some(owner) => info!(%service, %address, %owner, from, cause, "another node answers on the link{why}"),
                None if now.l2.reason.is_of_own_link() => {
                    let reason = now.l2.reason.code();
                    info!(%service, %address, from, cause, reason, "this node hears nothing of the link any more: {}", now.l2.reason);
                }
                None => {
                    info!(%service, %address, from, cause, reason = now.l2.reason.code(), "no node answers on the link{why}")
                }
            }
        }
        if now.l2.owner.as_ref() == Some(node) && !now.l2.announced && was.is_none_or(|it| it.l2 != now.l2) {
            match &now.l2.reason {
                Reason::OwnerKeeps { .. } => {
                    info!(%service, %address, reason = now.l2.reason.code(), "{}", now.l2.reason)
                }
                reason => warn!(%service, %address, reason = reason.code(), "{reason}"),
            }
        }
        let peers_before = was.map(|it| it.bgp.peers.as_slice()).unwrap_or_default();
        if peers_before != now.bgp.peers {
            let peers = join(&now.bgp.peers);
            if now.bgp.peers.is_empty() {
                info!(%service, %address, reason = now.bgp.reason.code(), "not announced over BGP any more");
            } else {
                info!(%service, %address, peers, "announcement over BGP planned");
            }
        }
        if now.lacks_node_names() && !was.is_some_and(Announcement::lacks_node_names) {
            warn!(%service, %address, reason = Reason::EndpointsNameNoNode.code(), "{}", Reason::EndpointsNameNoNode);
        }
    }
    for was in before.iter().filter(|was| !after.iter().any(|now| now.address == was.address)) {
        if was.l2.announced || !was.bgp.peers.is_empty() {
            info!(%service, address = %was.address, "withdrawn");
        }
    }
}

fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
