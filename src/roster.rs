//! Which nodes are alive on a link, as their pulses say: the words that the pulse and the plan share.
//! Floor 0. Told by `pulse::machine`, kept in the World, read by `plan::elect`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::MacAddress;
use crate::names::NodeName;
use crate::selector::Labels;

/// Every node whose pulse was heard on one link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// This node has listened long enough to know the others: it may own addresses on this link.
    pub settled: bool,
    /// The others that are alive.
    pub members: BTreeMap<NodeName, Member>,
    /// The others that were alive and are not heard any more, although none of them said that it leaves: each with how long
    /// nothing had been heard of it when it was given up.
    pub silent: BTreeMap<NodeName, Duration>,
    /// The others that said goodbye.
    #[serde(default)]
    pub left: BTreeSet<NodeName>,
}

/// What another node says of itself in its pulses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Of its end of the link.
    pub mac: MacAddress,
    pub eligibility: Eligibility,
    /// The node answers for addresses.
    pub owner: bool,
    /// Those labels of its Node that the configuration selects by.
    pub labels: Labels,
    /// The addresses that the node answers for and keeps when a better node comes: those of a sticky `[[l2]]`.
    pub claims: Arc<BTreeSet<IpAddr>>,
    /// Addresses that the node found taken by foreign hosts.
    #[serde(default)]
    pub occupied: Arc<BTreeSet<IpAddr>>,
}

/// Whether a node may be chosen as an owner, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Eligibility {
    /// The node has just started, and listens for others before it may own anything.
    Listening,
    /// The node may be chosen.
    Eligible,
    /// Its Node is excluded from external load balancers.
    Excluded,
    /// Its Node's network is unavailable.
    NetworkUnavailable,
    /// The node does not know its own Node, so it cannot tell whether it is excluded.
    NodeUnknown,
    /// The agent stops. What the node owned is free from now on.
    Leaving,
    /// Its data path is bad: the node keeps what it has only while no node serves.
    DataPathBad,
    /// Its data path was not seen good since its boot: the node takes nothing.
    DataPathNotSeen,
    /// A word of a later version: the node may not be chosen.
    Unknown(u8),
}
