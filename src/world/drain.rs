//! How far this node has come with leaving: the words of a drain. Floor 1. `agent::drain` tells, the plan obeys.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::HostProblem;

/// This node is being drained, or is drained. Kept on the disk: only an operator takes it back, or the Node where it `follows` that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub stage: DrainStage,
    /// In the operator's words.
    pub reason: Option<String>,
    pub since: Timestamp,
    /// Flows are waited for until then.
    pub until: Timestamp,
    /// Flows were left when the time was over.
    pub timed_out: bool,
    /// It began because the Node or the host says so (`[drain]`), and ends when neither says so any more.
    #[serde(default)]
    pub follows: bool,
    /// It began because the host shuts down, in the boot of this id, and ends with that.
    #[serde(default)]
    pub boot: Option<String>,
    /// It goes on also where no other node serves.
    #[serde(default)]
    pub forced: bool,
}

impl Drain {
    /// What is said of a drain whose file is damaged, after the folder and before the error.
    pub const UNREADABLE: &'static str = "drain.json cannot be read: ";

    /// Nobody may have ordered it in this life: its file is there and says nothing that this agent understands.
    pub fn is_unreadable(&self) -> bool {
        self.reason.as_ref().is_some_and(|reason| reason.contains(Drain::UNREADABLE))
    }

    /// As the annotation of the Node shows it: the same text for as long as the stage lasts.
    pub fn in_words(&self) -> String {
        let Drain { stage, reason, since, until: _, timed_out: _, follows: _, boot: _, forced: _ } = self;
        let reason = reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        format!("{}, since {since:.0}{reason}", stage.code())
    }
}

/// What systemd-logind says of shutdowns of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// One has begun; `None` where nobody has asked, or none has answered yet.
    pub begun: Option<bool>,
    /// For how long logind holds one up for this node.
    pub granted: Duration,
    /// Why none is held up, or heard of.
    pub problem: Option<HostProblem>,
}

/// In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainStage {
    /// Routes say GRACEFUL_SHUTDOWN (RFC 8326) and have the lowest local preference, so that routers use others; everything
    /// still works. The flows that were open when the drain began are waited for.
    Waiting,
    /// The node's addresses on the link go to other nodes, each once another node takes it.
    HandingOver,
    /// Routes and what is left on the link are given up. The routers are waited for: that each has taken its withdrawals.
    Withdrawing,
    /// The node announces nothing.
    Drained,
}

impl DrainStage {
    pub const ALL: [DrainStage; 4] =
        [DrainStage::Waiting, DrainStage::HandingOver, DrainStage::Withdrawing, DrainStage::Drained];

    pub fn code(self) -> &'static str {
        match self {
            DrainStage::Waiting => "waiting",
            DrainStage::HandingOver => "handing-over",
            DrainStage::Withdrawing => "withdrawing",
            DrainStage::Drained => "drained",
        }
    }
}
