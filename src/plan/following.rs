//! Whether this node is to be drained because its Node or its host says so, and what the Node is to show of a drain. Floor 1.
//! Nothing is drained here: `agent::drain` does that, as for an operator.

use std::time::Duration;

use crate::config::{Config, DrainSettings};
use crate::names::NodeName;
use crate::world::{ApiServer, Node, Shutdown, World};

/// What a drain takes beside its wait for flows: routers and other nodes are to have taken over before the host stops anything.
const HANDING_OVER: Duration = Duration::from_secs(2);

/// What the Node and the host say, as far as `[drain]` follows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeSays {
    /// Nothing is followed, or what is followed was not seen since this agent started: nothing changes.
    #[default]
    Nothing,
    /// No shutdown of the host is under way. The Node is followed too, and was not seen since this agent started.
    HostStays,
    /// It takes part.
    In,
    /// It is to leave, and may wait so long for flows.
    Out { asker: Asker, why: String, timeout: Duration },
}

/// Who asks this node to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// Its Node, by a cordon or a taint.
    Node,
    /// The host, which shuts down: it waits for that, and is gone then.
    Host,
}

/// What the Node is to show of a drain, and what it shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeMark {
    pub wanted: Option<String>,
    pub shown: Option<String>,
}

/// What the Node and the host of this agent say. What was remembered of the Node does not count: it may have changed while nobody ran.
pub fn says(config: &Config, world: &World, node: &NodeName) -> NodeSays {
    let DrainSettings { follow_cordon, follow_taint, follow_shutdown, timeout, annotate_node: _ } = &config.drain;
    let Shutdown { begun, granted, problem: _ } = &world.shutdown;
    let follows_node = *follow_cordon || follow_taint.is_some();
    let seen = world.nodes.get(node).filter(|_| follows_node && world.listed.nodes);
    let why = seen.and_then(|node| why_out(config, node));
    match (follow_shutdown.then_some(*begun), why) {
        (Some(Some(true)), _) => {
            let timeout = granted.saturating_sub(HANDING_OVER).min(*timeout);
            NodeSays::Out { asker: Asker::Host, why: "the host shuts down".to_owned(), timeout }
        }
        (_, Some(why)) => NodeSays::Out { asker: Asker::Node, why, timeout: *timeout },
        (Some(None), None) => NodeSays::Nothing,
        (Some(Some(false)), None) if !follows_node => NodeSays::In,
        (Some(Some(false)), None) => seen.map_or(NodeSays::HostStays, |_| NodeSays::In),
        (None, None) => seen.map_or(NodeSays::Nothing, |_| NodeSays::In),
    }
}

/// Whether the host stops things before flows have had the time of `[drain] timeout`.
pub fn is_hurried(config: &Config, shutdown: &Shutdown) -> bool {
    shutdown.granted.saturating_sub(HANDING_OVER) < config.drain.timeout
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
    use crate::world::{Drain, DrainStage, Fact, Listing, Marks, Node, Ordered};

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
                Some(why) => {
                    NodeSays::Out { asker: Asker::Node, why: why.to_owned(), timeout: Duration::from_secs(600) }
                }
            };
            assert_eq!(says(&config(keys), &listed(world(marks.clone())), &"n1".into()), expected, "{keys}: {marks:?}");
        }
    }

    /// Input: what is followed, what is known of shutdowns, and what the Node says. Output: what counts, and for how many seconds.
    #[test]
    fn a_host_that_shuts_down_goes_before_the_node_and_gives_as_long_as_it_waits() {
        const HOST: &str = "follow-shutdown = true\n";
        const BOTH: &str = "follow-shutdown = true\nfollow-cordon = true\n";
        let (cordoned, open) = (Some(true), Some(false));
        /// `Ok`: it takes part, or of 1 s the host does. `Err`: it leaves.
        type Said = Option<Result<u64, u64>>;
        type Row = (&'static str, Option<bool>, u64, Option<bool>, Said);
        let table: [Row; 12] = [
            ("", Some(true), 5, None, None),
            (HOST, None, 0, None, None),
            (HOST, Some(false), 5, None, Some(Ok(0))),
            (HOST, Some(true), 5, cordoned, Some(Err(3))),
            (HOST, Some(true), 0, None, Some(Err(0))),
            ("follow-shutdown = true\ntimeout = \"10s\"\n", Some(true), 600, None, Some(Err(10))),
            (BOTH, None, 0, open, None),
            (BOTH, Some(false), 5, None, Some(Ok(1))),
            (BOTH, Some(false), 5, open, Some(Ok(0))),
            (BOTH, Some(true), 5, open, Some(Err(3))),
            (BOTH, None, 0, cordoned, Some(Err(600))),
            (BOTH, Some(false), 5, cordoned, Some(Err(600))),
        ];
        for (keys, begun, granted, node, expected) in table {
            let mut world = match node {
                Some(cordoned) => listed(world(Marks { cordoned, ..Marks::default() })),
                None => World::default(),
            };
            world.apply(Fact::Shutdown(Shutdown { begun, granted: Duration::from_secs(granted), problem: None }));
            let said = match says(&config(keys), &world, &"n1".into()) {
                NodeSays::Nothing => None,
                NodeSays::In => Some(Ok(0)),
                NodeSays::HostStays => Some(Ok(1)),
                NodeSays::Out { timeout, .. } => Some(Err(timeout.as_secs())),
            };
            assert_eq!(said, expected, "{keys}: {begun:?}, {granted} s, cordoned: {node:?}");
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
            ordered: Ordered::Operator { reason: Some("new disk".to_owned()), forced: false },
            since,
            until: since,
            timed_out: false,
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
