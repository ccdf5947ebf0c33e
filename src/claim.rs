//! The words about claims to an address that the plan, the World and the responder on the link share.
//! Floor 0.

use serde::{Deserialize, Serialize};

use crate::names::NodeName;

/// How an address came to this node: that decides how the link is asked before the address is used.
///
/// It counts when the address is new to the responder, and when it changes while the address is not held yet: a
/// `HandOver` then ends the asking at once. For an address that is answered for already it changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Acquisition {
    /// Nobody is known to have used it just before: the link is probed before the first answer.
    #[default]
    FirstUse,
    /// Its owner fell silent. One quick probe decides whether it is dead or only not heard.
    TakeOver { from: NodeName },
    /// The node before gave it up and said so, or this node itself used it until a moment ago: no probe, no wait.
    HandOver,
}

/// In what way another station is in this node's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// It was there before this node used the address: this node does not answer, and asks again from time to time.
    Occupied,
    /// It is the owner before, or another agent: silent among the agents, and yet it answers on the link. This node does
    /// not take over, and asks again every second.
    AliveUnheard,
    /// It came while this node answers for the address: this node goes on, and defends it.
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
