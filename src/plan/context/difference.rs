//! What differs between two contexts, so that a turn judges only the Services that it can concern.
//! Floor 1.

use std::collections::BTreeSet;

use super::Context;
use crate::names::NodeName;
use crate::plan::elect::Electorate;

/// What is new in a context, as far as a Service can notice.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    /// Links, peers, advertisements or the data path: it may concern every Service.
    Everything,
    /// Only which nodes may answer on the links, and with what weight.
    Nodes(NodesDifference),
}

/// See [`Difference::Nodes`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodesDifference {
    /// Some node is taken or refused in another way than before: Services that no node may answer for are concerned.
    pub any: bool,
    /// Nodes that became a candidate, are none any more, or make another bid: the Services that they own are concerned.
    pub changed: BTreeSet<NodeName>,
    /// Of these, the nodes that became a candidate or make a better bid: they may be better than an owner.
    pub gained: BTreeSet<NodeName>,
}

impl Context {
    /// What is new here, compared with the context before. What the pulse says of this node concerns no Service.
    pub fn difference(&self, before: &Context) -> Difference {
        let Context { l2, pulse: _, bgp, path } = self;
        let same_links = || l2.iter().zip(&before.l2).all(|(now, before)| now.has_same_links(before));
        if *bgp != before.bgp || *path != before.path || l2.len() != before.l2.len() || !same_links() {
            return Difference::Everything;
        }
        let mut difference = NodesDifference::default();
        for (now, before) in l2.iter().zip(&before.l2) {
            now.electorates().zip(before.electorates()).for_each(|(now, before)| difference.add(now, before));
        }
        Difference::Nodes(difference)
    }
}

impl NodesDifference {
    fn add(&mut self, now: &Electorate, before: &Electorate) {
        if now == before {
            return;
        }
        self.any = true;
        for candidate in now.candidates() {
            let known = before.candidate(&candidate.node);
            if known.is_none_or(|known| known.bid() != candidate.bid()) {
                self.changed.insert(candidate.node.clone());
            }
            if known.is_none_or(|known| known.bid() < candidate.bid()) {
                self.gained.insert(candidate.node.clone());
            }
        }
        let gone = before.candidates().iter().filter(|it| now.candidate(&it.node).is_none());
        self.changed.extend(gone.map(|it| it.node.clone()));
    }
}
