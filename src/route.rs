//! What crier says about a route it announces. Floor 0: the plan decides it, the speaker puts it into UPDATEs.

use serde::{Deserialize, Serialize};

use crate::community::Community;

/// The part of a route that an advertisement decides; next hop and AS path are the session's to fill in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteAttributes {
    /// LOCAL_PREF, to internal peers only; `None` is [`RouteAttributes::DEFAULT_LOCAL_PREFERENCE`] there.
    pub local_preference: Option<u32>,
    /// MULTI_EXIT_DISC; `None` sends none.
    pub med: Option<u32>,
    /// How often the own AS number is put in front once more, to external peers only.
    pub prepend: u8,
    /// Sorted, without repetition.
    pub communities: Vec<Community>,
}

impl RouteAttributes {
    pub const DEFAULT_LOCAL_PREFERENCE: u32 = 100;
}
