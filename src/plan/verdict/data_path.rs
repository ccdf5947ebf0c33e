//! What the state of this node's data path and of its view of the cluster forbid it to announce.
//! Floor 1. On the link a lost path is a matter of eligibility, in `plan::elect`.

use std::net::IpAddr;

use super::{Announceable, Inputs};
use crate::names::NodeName;
use crate::path_state::Serving;
use crate::plan::context::PathContext;
use crate::plan::holder::Grade;
use crate::reason::Reason;
use crate::world::TrafficPolicy;

/// Why this node announces nothing at all: its path was not seen good since the boot.
pub fn not_seen(inputs: &Inputs<'_>) -> Option<Reason> {
    let path = &inputs.context.path.path;
    let fault = path.fault().cloned();
    (path.serving() == Serving::NotSinceBoot).then_some(Reason::DataPathNotSeen { fault })
}

/// Why this node does not announce an address of the Service over BGP. One whose path is lost, or whose view is stale, goes on where no other node is known to serve
/// the Service: this gate never empties a cluster.
pub fn gives_way(inputs: &Inputs<'_>, about: &Announceable<'_>, address: IpAddr) -> Option<Reason> {
    if let Some(reason) = not_seen(inputs) {
        return Some(reason);
    }
    let PathContext { path, grade, others, telling } = &inputs.context.path;
    let reason = match grade {
        // What a drain forbids over BGP stands in the context of BGP.
        Grade::Eligible | Grade::Draining => return None,
        Grade::ViewStale => Reason::NodeViewStale,
        Grade::DataPathBad => Reason::DataPathBad { fault: path.fault().cloned() },
    };
    let local = about.service.external_traffic_policy == TrafficPolicy::Local;
    // Where endpoints are now, and who announces what, a stale view does not know: of those that say it themselves their word counts.
    let told = telling.iter().any(|node| announces(inputs, node, address));
    let serves = |node: &_| !local || about.endpoints_of(address).by_node.contains_key(node);
    (told || others.difference(telling).any(serves)).then_some(reason)
}

/// The node is heard, and says that it announces the address over BGP.
fn announces(inputs: &Inputs<'_>, node: &NodeName, address: IpAddr) -> bool {
    let of_node = inputs.world.rosters.values().filter_map(|roster| roster.members.get(node)?.over_bgp.as_ref());
    of_node.into_iter().any(|told| told.contains(&address))
}
