//! Who is there on a link, as its pulses tell: the word that the pulse and the plan share.
//! Floor 0. Told by `pulse::machine`, kept in the World, read by `plan::elect`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::address::MacAddress;
use crate::names::NodeName;
use crate::selector::Labels;

/// Everybody whose pulse was heard on one link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// This node has listened long enough to know who is there: it may own addresses on this link.
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
    /// It answers for addresses.
    pub owner: bool,
    /// Those labels of its Node that the configuration selects by.
    pub labels: Labels,
    /// The addresses that it answers for and would keep: those of a sticky `[[l2]]`.
    pub claims: Arc<BTreeSet<IpAddr>>,
    /// Addresses that it found taken by stations that are no agents.
    #[serde(default)]
    pub occupied: Arc<BTreeSet<IpAddr>>,
}

/// Whether a node may be chosen as an owner, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Eligibility {
    /// It has just started, and listens who is there before it may own anything.
    Listening,
    /// It may be chosen.
    Eligible,
    /// Its Node is kept out of external load balancers.
    Excluded,
    /// Its Node's network is unavailable.
    NetworkUnavailable,
    /// Its Node is not known to it, and with it nothing of what could be held against it.
    NodeUnknown,
    /// It goes. Whatever it owned is free from now on.
    Leaving,
    /// Something that a later version means: it may not be chosen.
    Unknown(u8),
}
