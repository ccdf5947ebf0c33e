//! `[node]`: which Kubernetes Node this host is. Floor 1.

use std::fmt;

use super::{Check, Section, section};
use crate::config::complaint::Problem;
use crate::config::key::{flag, text};
use crate::config::shape::written;
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
        .or_else("auto"), touches Restart;
        /// The label that takes nodes out of load balancing counts for nothing.
        pub ignore_exclude_label: bool = flag(
            "ignore-exclude-label",
            false,
            "Announce also from Nodes with the label node.kubernetes.io/exclude-from-external-load-balancers.",
        )
        .trade("Use the same value on every node: all agents must agree which nodes may announce."), touches Decisions;
        /// What shows that this node can serve what it draws.
        pub data_path: DataPath = text(
            "data-path",
            "\"auto\", \"none\", \"node-ready\" or an http URL",
            |text, _| data_path(text),
            "The check that this node can forward traffic to endpoints; a node that fails it neither takes nor announces \
             addresses. A URL must answer with status 200, as kube-proxy's health does, and at kube-proxy's port 10256 its \
             rules must be in the kernel too; \"node-ready\" waits until the Node \
             is Ready and its kubelet has reported since the boot; \"auto\" uses kube-proxy's health and its rules in the kernel \
             where kube-proxy is seen, else \"node-ready\", and with [manifests] nothing; \"none\" checks nothing.",
        )
        .default("auto")
        .trade("With \"none\", a node attracts traffic after a boot before it can forward it."), touches Restart;
    }
}

impl Check for Written {}

/// What shows that traffic which this node draws reaches endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataPath {
    /// kube-proxy's health where one is seen, else as `NodeReady`; standalone, as `None`.
    Auto,
    /// Nothing is checked.
    None,
    /// The Node is Ready, and its kubelet has reported since this boot.
    NodeReady,
    /// This `http` URL answers with status 200.
    Http(http::Uri),
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataPath::Auto => f.write_str("auto"),
            DataPath::None => f.write_str("none"),
            DataPath::NodeReady => f.write_str("node-ready"),
            DataPath::Http(url) => url.fmt(f),
        }
    }
}

fn data_path(text: &str) -> Result<DataPath, Problem> {
    const WORDS: [&str; 3] = ["auto", "none", "node-ready"];
    match text {
        "auto" => Ok(DataPath::Auto),
        "none" => Ok(DataPath::None),
        "node-ready" => Ok(DataPath::NodeReady),
        text if !text.contains(':') => Err(syntax::no_such_word("check of the data path", text, &WORDS)),
        text => match text.parse::<http::Uri>() {
            Ok(url) if url.scheme_str() == Some("http") && has_host(&url) => Ok(DataPath::Http(url)),
            _ => {
                let hint = "write \"http://127.0.0.1:10256/healthz\", \"auto\", \"node-ready\" or \"none\"";
                Err(Problem::new(format!("{} is not an http URL", written(text)), hint))
            }
        },
    }
}

/// A host, and with it a port that is one, if any.
fn has_host(url: &http::Uri) -> bool {
    let has_port = |it: &http::uri::Authority| it.port_u16().is_some() || it.as_str().ends_with(it.host());
    url.authority().is_some_and(|it| !it.host().is_empty() && has_port(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_path_is_a_word_or_an_http_url_and_prints_as_it_reads() {
        for text in
            ["auto", "none", "node-ready", "http://127.0.0.1:10256/healthz", "http://[::1]:80/", "http://proxy/"]
        {
            let read = data_path(text).unwrap_or_else(|problem| panic!("{text}: {}", problem.message));
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "",
            "ready",
            "https://127.0.0.1/",
            "127.0.0.1:10256",
            "http://",
            "http:///healthz",
            "ftp://a/",
            ":",
            "http://127.0.0.1:99999/",
        ] {
            assert!(data_path(text).is_err(), "{text}");
        }
        assert_eq!(crate::config::tests::one_of_each().node.data_path, DataPath::Auto);
    }
}
