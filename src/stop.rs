//! Why this agent stops. Floor 0. What each task does about it stands in `agent/farewell.rs`.

use std::fmt;
use std::time::Instant;

/// Why this agent stops, and so what becomes of what it announces. All code matches on it without a wildcard: a further way
/// to stop does not compile before every task has an answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// This node gives up everything that it announces, and says so, for other nodes to take over at once.
    Leave(Cause),
    /// The next agent of this node starts at once and goes on with the BGP sessions: routers notice nothing.
    Restart {
        /// By then it goes on with the addresses on the link too, and the other nodes wait for that. `None`: these are handed over, as
        /// if the node left.
        back_by: Option<Instant>,
    },
}

/// Why a node leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The operator or systemd asked for it, by the signal of this name.
    Signal(&'static str),
    /// The task of this name ended, and the agent cannot do without it.
    TaskEnded(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Signal(name) => f.write_str(name),
            Cause::TaskEnded(name) => write!(f, "{name} ended"),
        }
    }
}
