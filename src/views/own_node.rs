//! What keeps this node, or every node, from announcing, as far as Nodes tell. Floor 1.

use super::Snapshot;
use crate::world::Node;

/// Each in one sentence with its remedy.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, node, world, .. } = snapshot;
    // Standalone, Nodes need not be among the manifests.
    if config.is_standalone() || !world.listed.nodes {
        return Vec::new();
    }
    if !world.nodes.contains_key(node) {
        return vec![format!(
            "there is no Node {node}: this agent knows neither labels nor readiness of its node and announces nothing; set [node] name, \
             or `crier run --node`, to the name that `kubectl get nodes` shows"
        )];
    }
    let excluded = |node: &Node| node.labels.0.get(Node::EXCLUDE_LABEL).is_some();
    let all = !config.node.ignore_exclude_label && world.nodes.values().all(|node| excluded(node));
    let label = Node::EXCLUDE_LABEL;
    all.then(|| {
        format!(
            "every Node carries the label {label}, so no node announces anything: remove it (kubectl label node NAME {label}-), or set \
             [node] ignore-exclude-label = true"
        )
    })
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::selector::Labels;
    use crate::views::Counters;
    use crate::world::{Fact, Listing};

    fn said(nodes: &[(&str, bool)], key: &str) -> String {
        let text = format!("[kubernetes]\nin-cluster = true\n{key}");
        let config = parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap();
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        for (name, excluded) in nodes {
            let label = (Node::EXCLUDE_LABEL.to_owned(), String::new());
            let labels = Labels(excluded.then_some(label).into_iter().collect());
            let addresses = Vec::new();
            let node = Node { labels, ready: true, addresses, ..Node::default() };
            planner.apply(Fact::Node((*name).into(), Some(Arc::new(node))));
        }
        let names = nodes.iter().map(|(name, _)| (*name).into()).collect();
        planner.apply(Fact::Listed(Listing::Nodes(names)));
        let counters = Counters::default();
        problems(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall())).join("\n")
    }

    #[test]
    fn a_name_that_is_no_nodes_and_a_label_on_every_node_are_named() {
        assert_eq!(said(&[("node-1", false), ("node-2", true)], ""), "");
        assert!(said(&[("node-1.example", false)], "").contains("there is no Node node-1"));
        assert!(said(&[("node-1", true), ("node-2", true)], "").contains(Node::EXCLUDE_LABEL));
        assert_eq!(said(&[("node-1", true)], "[node]\nignore-exclude-label = true\n"), "");
    }
}
