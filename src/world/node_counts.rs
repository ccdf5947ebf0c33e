//! How many endpoints there are on each node: the bulk of what is kept of a large cluster, so it is kept small.
//! Floor 1. Sorted by node, in one allocation that equal counts and clones share. Not for counts that change often.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::names::NodeName;

/// Numbers of endpoints by node, no node twice. Serialised as a map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<NodeName, u32>", into = "BTreeMap<NodeName, u32>")]
pub struct NodeCounts(Arc<[(NodeName, u32)]>);

impl NodeCounts {
    /// The number for a node; 0 for a node without a number.
    pub fn get(&self, node: &NodeName) -> u32 {
        let found = self.0.binary_search_by(|(name, _)| name.cmp(node)).ok().and_then(|at| self.0.get(at));
        found.map_or(0, |(_, count)| *count)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeName, u32)> {
        self.0.iter().map(|(node, count)| (node, *count))
    }

    /// How many nodes have a number.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces each name by `shared`'s copy of it, unless somebody else holds these counts too.
    pub(super) fn share_names(&mut self, mut shared: impl FnMut(&NodeName) -> NodeName) {
        for (node, _) in Arc::get_mut(&mut self.0).into_iter().flatten() {
            *node = shared(node);
        }
    }

    /// Shares the allocation of `other` where both are equal.
    pub(super) fn share_with(&mut self, other: &NodeCounts) {
        if self == other {
            self.0 = Arc::clone(&other.0);
        }
    }
}

impl From<BTreeMap<NodeName, u32>> for NodeCounts {
    fn from(counts: BTreeMap<NodeName, u32>) -> NodeCounts {
        NodeCounts(counts.into_iter().collect())
    }
}

impl FromIterator<(NodeName, u32)> for NodeCounts {
    fn from_iter<I: IntoIterator<Item = (NodeName, u32)>>(counts: I) -> NodeCounts {
        counts.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<const N: usize> From<[(NodeName, u32); N]> for NodeCounts {
    fn from(counts: [(NodeName, u32); N]) -> NodeCounts {
        BTreeMap::from(counts).into()
    }
}

impl From<NodeCounts> for BTreeMap<NodeName, u32> {
    fn from(counts: NodeCounts) -> BTreeMap<NodeName, u32> {
        counts.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_and_a_missing_one_counts_none() {
        let counts = NodeCounts::from([("c".into(), 3), ("a".into(), 1), ("b".into(), 2)]);
        let numbers: Vec<u32> = ["a", "b", "c", "d"].map(|node| counts.get(&node.into())).into();
        assert_eq!(numbers, [1, 2, 3, 0]);
        assert_eq!(counts.len(), 3);
        assert!(NodeCounts::default().is_empty());
    }

    #[test]
    fn counts_are_written_as_a_map_and_read_back() {
        let counts = NodeCounts::from([("b".into(), 2), ("a".into(), 1)]);
        let text = serde_json::to_string(&counts).unwrap();
        assert_eq!(text, r#"{"a":1,"b":2}"#);
        assert_eq!(serde_json::from_str::<NodeCounts>(&text).unwrap(), counts);
    }

    #[test]
    fn equal_counts_share_one_allocation() {
        let mut ready = NodeCounts::from([("a".into(), 1)]);
        let serving = NodeCounts::from([("a".into(), 1)]);
        ready.share_with(&serving);
        assert!(Arc::ptr_eq(&ready.0, &serving.0));
        ready.share_with(&NodeCounts::default());
        assert_eq!(ready, serving, "other counts change nothing");
    }
}
