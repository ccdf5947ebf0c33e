//! The data path of this node, and where it is lost, which other nodes are known to serve. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::names::NodeName;
use crate::path_state::{DataPath, PathFault, PathState};
use crate::plan::elect;
use crate::plan::holder::Grade;
use crate::roster::{Eligibility, Member};
use crate::world::{Node, World};

/// The state of this node's data path, and what that asks to know of others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PathContext {
    pub path: DataPath,
    /// How good this node is, by its path and by how fresh its view of the cluster is.
    pub grade: Grade,
    /// While the node is not as good as it can be: the other nodes that are known to serve. Empty else, for nobody asks.
    pub others: BTreeSet<NodeName>,
    /// While its view is stale: those of them that say themselves what they announce over BGP.
    pub telling: BTreeSet<NodeName>,
}

impl PathContext {
    pub(super) fn of(me: &NodeName, nodes: &OrdMap<NodeName, Arc<Node>>, world: &World, grade: Grade) -> PathContext {
        let others = if grade == Grade::Eligible { BTreeSet::new() } else { others(me, nodes, world) };
        let members = world.rosters.values().flat_map(|roster| &roster.members);
        let tells = |(name, member): &(&NodeName, &Member)| member.over_bgp.is_some() && others.contains(*name);
        let telling =
            members.filter(|_| grade == Grade::ViewStale).filter(tells).map(|(name, _)| name.clone()).collect();
        PathContext { path: world.data_path.clone(), grade, others, telling }
    }
}

/// A node that is heard says itself whether it serves. Of nodes that are not heard nothing is known but what the API server
/// says: that they are Ready. That is enough only where this node certainly serves nobody, as the rules of its running kube-proxy
/// are gone. A kube-proxy that does not answer may have been stopped or replaced on every node at once.
fn others(me: &NodeName, nodes: &OrdMap<NodeName, Arc<Node>>, world: &World) -> BTreeSet<NodeName> {
    let mut heard: BTreeMap<&NodeName, bool> = BTreeMap::new();
    for (name, member) in world.rosters.values().flat_map(|roster| &roster.members) {
        *heard.entry(name).or_default() |= member.eligibility == Eligibility::Eligible;
    }
    let ready = nodes.iter().filter(|(name, node)| {
        let counts = *name != me && node.ready && elect::exclusion(node).is_none();
        counts && serves_nobody(&world.data_path) && !heard.contains_key(name)
    });
    let by_word = heard.iter().filter(|(_, serves)| **serves).map(|(name, _)| (*name).clone());
    by_word.chain(ready.map(|(name, _)| name.clone())).collect()
}

fn serves_nobody(path: &DataPath) -> bool {
    matches!(path.state, PathState::Bad { why: PathFault::RulesGone { .. } })
}
