//! The context of all verdicts: nodes, links and peers compared with the configuration, worked out once for all Services
//! and again only when a fact about nodes or links comes in.
//! Floor 1. One file for each question that a verdict answers, as in `plan::verdict`.

pub mod bgp;
pub mod data_path;
mod difference;
pub mod l2;
pub mod nodes;

pub use self::bgp::BgpContext;
pub use self::data_path::PathContext;
pub use self::difference::Difference;
pub use self::l2::{L2Context, PulseContext};
use std::collections::BTreeSet;

use crate::config::Config;
use crate::names::NodeName;
use crate::world::World;

/// What all decisions of this node are based on, apart from the Service itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// In the order of the `[[l2]]` tables.
    pub l2: Vec<L2Context>,
    pub pulse: PulseContext,
    pub bgp: BgpContext,
    pub path: PathContext,
}

impl Context {
    pub fn of(config: &Config, me: &NodeName, world: &World, own: l2::Own<'_>) -> Context {
        let nodes = nodes::known_nodes(config, me, world);
        let node = nodes.get(me).map(|node| &**node);
        let numbered = config.l2.iter().zip(own.digests.l2().iter().copied());
        let l2: Vec<L2Context> = numbered.map(|it| L2Context::of(config, it, me, &nodes, own, world)).collect();
        let pulse = PulseContext::of(config, node, &l2, own, world);
        let path = PathContext::of(me, &nodes, world, own.grade);
        Context { l2, pulse, bgp: BgpContext::of(config, me, node, world.drain_stage()), path }
    }

    /// Every node that some `[[l2]]` takes or refuses.
    pub fn nodes(&self) -> BTreeSet<NodeName> {
        let electorates = self.l2.iter().flat_map(L2Context::electorates);
        let names = electorates.flat_map(|it| {
            it.candidates().iter().map(|candidate| &candidate.node).chain(it.excluded.iter().map(|(node, _)| node))
        });
        names.cloned().collect()
    }
}
