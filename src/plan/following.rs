//! Whether this node is to be drained because its Node says so, and what the Node is to show of a drain. Floor 1.
//! Nothing is drained here: `agent::drain` does that, as for an operator.

use std::time::Duration;

use crate::config::{Config, DrainSettings};
use crate::names::NodeName;
use crate::world::{ApiServer, Node, World};

/// What the Node says, as far as `[drain]` follows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeSays {
    /// Nothing is followed, or the Node was not seen since this agent started: nothing changes.
    #[default]
    Nothing,
    /// It takes part.
    In,
    /// It is to leave, and may wait so long for flows.
    Out { why: String, timeout: Duration },
}

/// What the Node is to show of a drain, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeMark {
    pub wanted: Option<String>,
    pub shown: Option<String>,
}

/// What the Node of this agent says. What was remembered of it does not count: it may have changed while nobody ran.
pub fn says(config: &Config, world: &World, node: &NodeName) -> NodeSays {
    let DrainSettings { follow_cordon, follow_taint, timeout, annotate_node: _ } = &config.drain;
    let Some(node) = world.nodes.get(node).filter(|_| world.listed.nodes) else { return NodeSays::Nothing };
    if !follow_cordon && follow_taint.is_none() {
        return NodeSays::Nothing;
    }
    why_out(config, node).map_or(NodeSays::In, |why| NodeSays::Out { why, timeout: *timeout })
}

/// Why `[drain]` drains a Node; `None` where it takes part.
pub fn why_out(config: &Config, node: &Node) -> Option<String> {
    let DrainSettings { follow_cordon, follow_taint, .. } = &config.drain;
    let tainted = follow_taint.as_ref().filter(|key| node.marks.taints.contains(key));
    match (*follow_cordon && node.marks.cordoned, tainted) {
        (true, _) => Some("the Node is cordoned".to_owned()),
        (false, Some(key)) => Some(format!("the Node has the taint {key}")),
        (false, None) => None,
    }
}

/// `None` where nothing is to be shown, or the Node is not seen.
pub fn mark(config: &Config, world: &World, node: &NodeName) -> Option<NodeMark> {
    let is_seen = world.listed.nodes && world.api_server != ApiServer::Manifests && config.drain.annotate_node;
    let node = world.nodes.get(node).filter(|_| is_seen)?;
    let wanted = world.drain.as_ref().map(|drain| drain.in_words());
    Some(NodeMark { wanted, shown: node.marks.drain.clone() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::world::{Drain, DrainStage, Fact, Listing, Marks, Node};

    fn config(drain: &str) -> Config {
        let text = format!("[kubernetes]\nin-cluster = true\n[drain]\n{drain}\n");
        parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap()
    }

    fn world(marks: Marks) -> World {
        let node = Node { ready: true, marks, ..Node::default() };
        let mut world = World::default();
        world.apply(Fact::Node("n1".into(), Some(Arc::new(node))));
        world
    }

    fn listed(mut world: World) -> World {
        world.apply(Fact::Listed(Listing::Nodes(["n1".into()].into())));
        world
    }

    #[test]
    fn a_node_leaves_by_what_is_followed_and_by_nothing_else() {
        let cordoned = Marks { cordoned: true, ..Marks::default() };
        let tainted = Marks { taints: vec!["maintenance".to_owned()], ..Marks::default() };
        let table: [(&str, &Marks, Option<&str>); 7] = [
            ("", &cordoned, None),
            ("follow-cordon = true", &cordoned, Some("the Node is cordoned")),
            ("follow-cordon = true", &tainted, Some("")),
            ("follow-taint = \"maintenance\"", &cordoned, Some("")),
            ("follow-taint = \"maintenance\"", &tainted, Some("the Node has the taint maintenance")),
            ("follow-taint = \"other\"", &tainted, Some("")),
            ("follow-cordon = true\nfollow-taint = \"other\"", &cordoned, Some("the Node is cordoned")),
        ];
        for (keys, marks, expected) in table {
            let expected = match expected {
                None => NodeSays::Nothing,
                Some("") => NodeSays::In,
                Some(why) => NodeSays::Out { why: why.to_owned(), timeout: Duration::from_secs(600) },
            };
            assert_eq!(says(&config(keys), &listed(world(marks.clone())), &"n1".into()), expected, "{keys}: {marks:?}");
        }
    }

    #[test]
    fn what_was_remembered_of_the_node_takes_nothing_out_and_brings_nothing_back() {
        let config = config("follow-cordon = true");
        let remembered = world(Marks { cordoned: true, ..Marks::default() });
        assert_eq!(says(&config, &remembered, &"n1".into()), NodeSays::Nothing);
        assert_eq!(says(&config, &listed(remembered), &"n2".into()), NodeSays::Nothing, "there is no such Node");
    }

    #[test]
    fn the_node_shows_a_drain_and_nothing_where_that_is_not_wanted() {
        let since = "2026-11-28T15:00:00Z".parse().unwrap();
        let drain = Drain {
            stage: DrainStage::HandingOver,
            reason: Some("new disk".to_owned()),
            since,
            until: since,
            timed_out: false,
            follows: false,
            forced: false,
        };
        let mut world = listed(world(Marks { drain: Some("old".to_owned()), ..Marks::default() }));
        let shown = Some("old".to_owned());
        assert_eq!(mark(&config(""), &world, &"n1".into()), Some(NodeMark { wanted: None, shown: shown.clone() }));
        world.apply(Fact::Drain(Some(Arc::new(drain))));
        let wanted = Some("handing-over, since 2026-11-28T15:00:00Z: new disk".to_owned());
        assert_eq!(mark(&config(""), &world, &"n1".into()), Some(NodeMark { wanted, shown }));
        assert_eq!(mark(&config("annotate-node = false"), &world, &"n1".into()), None);
    }
}
