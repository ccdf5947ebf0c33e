//! The nodes that verdicts are based on. Floor 1.

use std::borrow::Cow;
use std::sync::Arc;

use imbl::OrdMap;

use crate::config::Config;
use crate::names::NodeName;
use crate::selector::Labels;
use crate::world::{Node, World};

/// The Nodes of the World. Standalone, with manifests that name none, this host is the only one. Where the exclude label is
/// to count for nothing, none has it.
pub(super) fn known_nodes<'a>(
    config: &Config,
    me: &NodeName,
    world: &'a World,
) -> Cow<'a, OrdMap<NodeName, Arc<Node>>> {
    let alone = config.is_standalone() && world.nodes.is_empty();
    if !alone {
        let is_labelled =
            |node: &Node| config.node.ignore_exclude_label && node.labels.0.contains_key(Node::EXCLUDE_LABEL);
        let mut nodes = Cow::Borrowed(&world.nodes);
        for (name, node) in world.nodes.iter().filter(|(_, node)| is_labelled(node)) {
            let mut node = Node::clone(node);
            node.labels.0.remove(Node::EXCLUDE_LABEL);
            nodes.to_mut().insert(name.clone(), Arc::new(node));
        }
        return nodes;
    }
    let this = Node { labels: labels_of_host(me), ready: true, ..Node::default() };
    Cow::Owned(OrdMap::unit(me.clone(), Arc::new(this)))
}

/// What selectors find of a host where no Node tells its labels.
fn labels_of_host(node: &NodeName) -> Labels {
    Labels([("kubernetes.io/hostname", node.as_str())].into())
}

/// The labels of a node; `None` where there is an API server, or a manifest of Nodes, that has not told of it.
pub fn labels_of<'a>(config: &Config, node: &NodeName, world: &'a World) -> Option<Cow<'a, Labels>> {
    let unknown = config.is_standalone() && world.nodes.is_empty();
    let of_host = || unknown.then(|| Cow::Owned(labels_of_host(node)));
    world.nodes.get(node).map(|node| Cow::Borrowed(&node.labels)).or_else(of_host)
}
