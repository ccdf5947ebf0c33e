//! What this agent knows of the Lease, as far as it decides or is shown. Floor 1.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Trouble;
use crate::names::NodeName;

/// The Lease as it was last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    /// The node whose agent holds it; `None` if nobody does, or nothing was seen yet.
    pub holder: Option<NodeName>,
    /// Since when, by the holder's clock.
    pub held_since: Option<SystemTime>,
    /// What decides allocation in the holder's configuration, in a few digits; `None` if the holder did not say.
    pub digest: Option<u64>,
    /// The class of the Services that the holder serves; `None` if the holder did not say.
    pub class: Option<String>,
    /// This agent holds it, and when it took the Lease this agent's digest was the last on which the agents had agreed.
    pub inherited: bool,
    /// The digest on which the agents last agreed, as the Lease says now. Where it never said so: that of the holder before this agent.
    #[serde(default)]
    pub agreed: Option<u64>,
    /// The holder, another agent, does not renew it.
    #[serde(default)]
    pub silence: Option<Silence>,
    /// Why it cannot be read, taken or renewed.
    pub trouble: Option<Trouble>,
}

impl LeaseState {
    /// The annotation of the Lease with the digest on which the agents last agreed.
    pub const AGREED: &'static str = "crier.dev/agreed-digest";

    /// The annotation by which somebody confirms pools in the place of agents that are not heard.
    pub fn confirmation(digest: u64) -> String {
        format!("{}={digest:016x}", LeaseState::AGREED)
    }
}

/// A Lease that its holder does not renew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Since when this agent has seen it unchanged, by the clock of this host.
    pub since: SystemTime,
    /// The last renewal, by the holder's clock; `None` if the holder did not say.
    pub last_renewal: Option<SystemTime>,
    /// When this agent takes it over, in as much time after `since`; `None` where it never does, for it has no pool.
    pub taken_after: Option<Duration>,
}
