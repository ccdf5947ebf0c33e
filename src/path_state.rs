//! Whether the node can serve what it announces: the words that the data path's watcher, the World and the plan share.
//! Floor 0. Told by `data_path::machine`.

use std::fmt;

use crate::address::Family;
use serde::{Deserialize, Serialize};

/// What is known of the path from this node's links to the endpoints of its Services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPath {
    pub state: PathState,
    /// The path was good at some time since the kernel booted, also before this agent started.
    pub good_since_boot: bool,
    pub source: PathSource,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathState {
    Good,
    Bad {
        why: PathFault,
    },
    /// Nothing was seen yet that tells.
    Unknown {
        why: PathFault,
    },
}

/// What tells the state of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathSource {
    /// kube-proxy's health and rules.
    KubeProxy,
    /// The URL of `[node] data-path`.
    Url,
    /// The Ready condition of this Node, written by a kubelet that has reported since the boot.
    NodeReady,
    /// Nothing: the path counts as good.
    None,
}

/// Why the path is not known to be good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum PathFault {
    #[error("{url} was not asked yet")]
    NotAsked { url: String },
    #[error("it was bad when the agent ended, and was not seen good since")]
    WasBad,
    #[error("{url} answers {status} instead of 200")]
    Unhealthy { url: String, status: u16 },
    #[error("{url} does not answer: {error}")]
    Silent { url: String, error: String },
    #[error(
        "{url} answers 200, and was bad {losses} times a short while ago: it counts as good once it has been for {seconds} s"
    )]
    Flaps { url: String, losses: u32, seconds: u64 },
    #[error("kube-proxy is healthy, but the kernel has none of its rules yet")]
    RulesNotSeen,
    #[error("kube-proxy's rules for {family} are gone from the kernel")]
    RulesGone { family: Family },
    #[error("kube-proxy does not answer, and its rules are gone from the kernel")]
    ProxyGone,
    #[error("kube-proxy ran here before the last boot and has not started since")]
    ProxyNotStarted,
    #[error("the API server has not told of this Node yet")]
    NodeNotTold,
    #[error("the Node is not Ready")]
    NodeNotReady,
    #[error("the kubelet has not reported since the boot: status.nodeInfo.bootID of the Node is that of another boot")]
    OtherBoot,
}

/// What the state of the path means for announcing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// The node announces whatever it should.
    Yes,
    /// The path was good since the boot and is bad now: the node gives way to one that serves, and goes on where none does.
    Lost,
    /// The path was not seen good since the boot: the node takes nothing and announces nothing.
    NotSinceBoot,
}

impl DataPath {
    /// The path of a node where nothing tells it: good.
    pub const UNWATCHED: DataPath =
        DataPath { state: PathState::Good, good_since_boot: true, source: PathSource::None };

    pub fn serving(&self) -> Serving {
        match &self.state {
            PathState::Good => Serving::Yes,
            _ if !self.good_since_boot => Serving::NotSinceBoot,
            // A restart of the agent moves nothing: what was good stays so until something is seen.
            PathState::Unknown { .. } => Serving::Yes,
            PathState::Bad { .. } => Serving::Lost,
        }
    }

    /// Something was seen of the path since the agent started. Until then a node goes on with what it has, and takes nothing.
    pub fn is_judged(&self) -> bool {
        !matches!(self.state, PathState::Unknown { why: PathFault::NotAsked { .. } })
    }

    pub fn fault(&self) -> Option<&PathFault> {
        match &self.state {
            PathState::Good => None,
            PathState::Bad { why } | PathState::Unknown { why } => Some(why),
        }
    }
}

impl Serving {
    pub const ALL: [Serving; 3] = [Serving::Yes, Serving::Lost, Serving::NotSinceBoot];

    /// The state of the path as a word for machines: a field of JSON, a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Serving::Yes => "good",
            Serving::Lost => "bad",
            Serving::NotSinceBoot => "not-since-boot",
        }
    }
}

impl Default for DataPath {
    fn default() -> DataPath {
        DataPath::UNWATCHED
    }
}

impl fmt::Display for PathSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathSource::KubeProxy => "kube-proxy",
            PathSource::Url => "url",
            PathSource::NodeReady => "node-ready",
            PathSource::None => "none",
        })
    }
}
