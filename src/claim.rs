//! The words about claims to an address that the plan, the World and the responder on the link share.
//! Floor 0.

use serde::{Deserialize, Serialize};

use crate::names::NodeName;

/// How this node acquired an address. It decides how the link is probed before the address is used.
///
/// It counts when the address is new to the responder, and when it changes before the address is announced: a `HandOver`
/// then ends the probing at once. For an address that is announced already it changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Acquisition {
    /// No node is known to have used the address just before: the link is probed before the first answer.
    #[default]
    FirstUse,
    /// Its holder fell silent. A quick probe decides whether that node is dead or only not heard. `suspect`: every node fell
    /// silent at once, so it may be this node that does not hear, and the probe waits longer.
    TakeOver { from: NodeName, suspect: bool },
    /// The previous holder gave it up and said so, or this node itself used it until a moment ago: no probe, no wait.
    HandOver,
}

/// How another station's claim to an address conflicts with this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// The other station used the address first: this node does not answer, and probes again from time to time.
    Occupied,
    /// The other station is the previous owner or another agent. Its pulses are not heard, but it answers on the link. This
    /// node does not take over, and probes again every second.
    AliveUnheard,
    /// The other station came while this node announces the address: this node goes on, and defends the address.
    Contested,
}

impl ConflictKind {
    /// The kind as a label of a metric: the same word as in the JSON.
    pub fn code(self) -> &'static str {
        match self {
            ConflictKind::Occupied => "occupied",
            ConflictKind::AliveUnheard => "alive-unheard",
            ConflictKind::Contested => "contested",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_word() {
        for kind in [ConflictKind::Occupied, ConflictKind::AliveUnheard, ConflictKind::Contested] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.code());
        }
    }
}
