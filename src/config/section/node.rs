//! `[node]`: which Kubernetes Node this host is. Floor 1.

use super::{Check, Section, section};
use crate::config::key::{flag, text};
use crate::config::syntax;
use crate::names::NodeName;

section! {
    /// `[node]`
    pub struct Node = Section::one("node", "This host."), written as Written;
    keys {
        /// `None` is `"auto"`: the host name.
        pub name: Option<NodeName> = text(
            "name",
            "a node name, or \"auto\"",
            |text, _| syntax::name(text).map(NodeName::from),
            "The Kubernetes Node that this host is; \"auto\" takes the host name.",
        )
        .or_else("auto");
        /// The label that takes nodes out of load balancing counts for nothing.
        pub ignore_exclude_label: bool = flag(
            "ignore-exclude-label",
            false,
            "Announce also from Nodes with the label node.kubernetes.io/exclude-from-external-load-balancers.",
        )
        .trade("Use the same value on every node: all agents must agree which nodes may announce.");
    }
}

impl Check for Written {}
