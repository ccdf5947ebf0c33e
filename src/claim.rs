//! The words about claims to an address that the plan, the World and the responder on the link share.
//! Floor 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::MacAddress;
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
    /// Without pulses: another node is to answer, and only the link tells whether one does. It is asked from time to time, by the
    /// first node in line mostly, and the address is used once nobody answers. `place` is that in line: 1 or more.
    Standby { place: u32 },
}

/// What this node is to do about an address that it is to answer for on a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errand {
    pub acquisition: Acquisition,
    /// The address is announced again now whenever this number changes.
    pub assertions: u32,
    pub manner: Arc<Manner>,
}

impl From<Acquisition> for Errand {
    /// With nothing to assert, in the default manner.
    fn from(acquisition: Acquisition) -> Errand {
        Errand { acquisition, ..Errand::default() }
    }
}

/// How the addresses of an `[[l2]]` are probed and announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// The link is asked before an address is used. If not, it is asked only after this node gave the address up to a
    /// station that claims it.
    pub probe: bool,
    /// What these stations say of an address counts for nothing.
    pub ignore_stations: BTreeSet<MacAddress>,
    /// When an announcement is repeated, from the first one on; ascending.
    pub announce_again: Vec<Duration>,
}

impl Default for Manner {
    /// Four repetitions. RFC 5227 §1.1 asks for two announcements (ANNOUNCE_NUM), RFC 4861 §10 allows three
    /// (MAX_NEIGHBOR_ADVERTISEMENT); more are for links that lose the first frames while a switch port starts to forward. A
    /// Linux neighbour drops an update that comes within a second of the one before (`locktime`), unless it takes it for
    /// gratuitous, so they lie further apart than that; and RFC 4861 §7.2.6 wants a second between advertisements
    /// (RetransTimer).
    fn default() -> Manner {
        let announce_again = [1100, 2200, 3300, 4400].map(Duration::from_millis).to_vec();
        Manner { probe: true, ignore_stations: BTreeSet::new(), announce_again }
    }
}

/// A station on a link that belongs to another node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    pub node: NodeName,
    pub hearing: Hearing,
}

/// A station that answers for an address which this node does not answer for, as the link shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answerer {
    pub mac: MacAddress,
    /// The node whose station it is; `None` for one that nobody knows.
    pub node: Option<NodeName>,
}

/// The stations of the other nodes, as they are heard on each link of this one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stations {
    /// By the index of the link; of links that pulses are heard on.
    pub by_link: BTreeMap<u32, Arc<BTreeMap<MacAddress, Station>>>,
    /// What is known on whatever link: the best of it.
    pub anywhere: Arc<BTreeMap<MacAddress, Station>>,
}

impl Stations {
    /// Those of a link. Where no pulses are, those of the others tell.
    pub fn on(&self, link: u32) -> Arc<BTreeMap<MacAddress, Station>> {
        self.by_link.get(&link).unwrap_or(&self.anywhere).clone()
    }
}

/// What the pulses of another node say to this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// They are heard: the plan decides which of the two nodes goes on.
    Heard,
    /// It said goodbye a moment ago: what it still says on the link means nothing.
    Leaving,
    /// They are heard, and say that its link receives nothing: it answers nobody, so what it says on the link means nothing.
    ReceivesNothing,
    /// They are not heard. Only what it says on the link tells whether it answers for an address.
    Unheard,
    /// They are heard, and it answers none of this node's. It may take this node for a foreign host, to which no agent gives
    /// an address back: so this node gives way.
    Deaf,
}

/// How another station's claim to an address conflicts with this node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// The other station used the address first: this node does not answer, and probes again from time to time.
    Occupied,
    /// The other station is another node's, or the previous holder. Its pulses are not heard, but it answers on the link. This
    /// node does not answer, and probes again from time to time.
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
