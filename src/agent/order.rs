//! What can be ordered of a running agent, and what becomes of it. Floor 3.
//! Not for carrying it out: `orders`, `reload` and `drain` do.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::config::load::LoadError;
use crate::config::{Change, SourceFile, duration};
use crate::names::PeerName;
use crate::views::SCHEMA_VERSION;
use crate::world::PeerOrder;

/// One order, and who waits to hear what became of it.
#[derive(Debug)]
pub struct Order {
    pub wish: Wish,
    pub answer: oneshot::Sender<Result<Done, Refusal>>,
}

/// What is ordered, as the local API takes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Wish {
    /// Go by what the files of the configuration say.
    Apply {
        /// Replaces the main file first. Without it the files are read again as they are.
        main: Option<SourceFile>,
        /// After so many seconds without [`Wish::Confirm`] the configuration before is put back.
        confirm_secs: Option<u64>,
    },
    /// Keep the configuration that waits to be confirmed.
    Confirm,
    /// Go by these texts of the ConfigMap. Only the watch of the ConfigMap orders it.
    #[serde(skip)]
    Cluster(Vec<SourceFile>),
    /// This node leaves: see `agent::drain`.
    Drain {
        reason: Option<String>,
        /// How long flows are waited for; without it as long as usual, or as long as was ordered before.
        timeout_millis: Option<u64>,
        /// Also where no other node is known to serve.
        force: bool,
    },
    Undrain,
    Peer {
        peer: PeerName,
        order: PeerOrder,
    },
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Done {
    pub schema_version: u32,
    /// In one sentence.
    pub summary: String,
    /// The differences that were taken over, each in one line.
    pub changes: Vec<String>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    pub unconfirmed_until: Option<Timestamp>,
}

impl Done {
    pub(super) fn new(summary: impl Into<String>) -> Done {
        Done {
            schema_version: SCHEMA_VERSION,
            summary: summary.into(),
            changes: Vec::new(),
            warnings: Vec::new(),
            unconfirmed_until: None,
        }
    }
}

/// Longer than anybody waits for a flow.
pub(super) const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why an order was not carried out. Unless said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Load(#[from] LoadError),
    #[error("needs a restart of the agent, so nothing was changed: {}", list(.0))]
    NeedsRestart(Vec<Change>),
    #[error("the files of the configuration changed all the time while they were read; nothing was changed")]
    Unsettled,
    #[error("cannot write {}: {source}; nothing was changed", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The agent goes by what was confirmed last. The files do not say that yet.
    #[error("the files beside {} cannot be put back as they were: {source}; it is tried again, before the agent reads them", path.display())]
    PutBack { path: PathBuf, source: std::io::Error },
    #[error("there is no [[bgp.peer]] {peer}; there are: {known}")]
    NoSuchPeer { peer: PeerName, known: String },
    /// The order is passed on, and there is nothing that could follow it.
    #[error("{0}")]
    NothingDone(String),
    #[error("no configuration waits to be confirmed")]
    NothingToConfirm,
    #[error("flows are waited for {} at most, not for {}; nothing was changed", duration::text(LONGEST_DRAIN), duration::text(*.0))]
    DrainTime(Duration),
    #[error("the time to confirm is from 1 s to 1 day, and not {0} s; nothing was changed")]
    ConfirmTime(u64),
    #[error("this is the last node that serves: {0}. With --force its addresses are served by nobody")]
    LastNode(String),
    #[error("the agent is stopping")]
    Stopping,
}

fn list(changes: &[Change]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Refusal {
    /// In one line, for `status` and systemd.
    pub(super) fn short(&self) -> String {
        match self {
            Refusal::Load(LoadError::Refused(complaints)) => complaints.first_line(),
            other => other.to_string(),
        }
    }
}

/// What is ordered, and who waits for the answer.
#[derive(Debug)]
pub(super) enum Command {
    Drain {
        reason: Option<String>,
        /// Without it as long as usual, or as long as was ordered before.
        timeout: Option<Duration>,
        force: bool,
        answer: oneshot::Sender<Result<Done, Refusal>>,
    },
    Undrain {
        answer: oneshot::Sender<Result<Done, Refusal>>,
    },
}
