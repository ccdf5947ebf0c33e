//! What the state of this node's data path forbids it to announce.
//! Floor 1. On the link a lost path is a matter of eligibility, in `plan::elect`.

use super::{Announceable, Inputs};
use crate::path_state::Serving;
use crate::plan::context::PathContext;
use crate::reason::Reason;
use crate::world::TrafficPolicy;

/// Why this node announces nothing at all: its path was not seen good since the boot.
pub fn not_seen(inputs: &Inputs<'_>) -> Option<Reason> {
    let path = &inputs.context.path.path;
    let fault = path.fault().cloned();
    (path.serving() == Serving::NotSinceBoot).then_some(Reason::DataPathNotSeen { fault })
}

/// Why this node does not announce the Service over BGP. One whose path is lost goes on where no other node is known to serve
/// the Service: this gate never empties a cluster.
pub fn gives_way(inputs: &Inputs<'_>, about: &Announceable<'_>) -> Option<Reason> {
    let PathContext { path, others } = &inputs.context.path;
    match path.serving() {
        Serving::Yes => None,
        Serving::NotSinceBoot => not_seen(inputs),
        Serving::Lost => {
            let local = about.service.external_traffic_policy == TrafficPolicy::Local;
            let serves = |node: &_| !local || about.endpoints.by_node.contains_key(node);
            let another = others.iter().any(serves);
            another.then(|| Reason::DataPathBad { fault: path.fault().cloned() })
        }
    }
}
