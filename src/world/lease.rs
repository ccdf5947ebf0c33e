//! What this agent knows of the Lease, as far as it decides or is shown. Floor 1.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

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
    /// This agent holds it, and the holder before had the same digest: two agents agree.
    pub inherited: bool,
    /// Why it cannot be read, taken or renewed.
    pub trouble: Option<String>,
}
