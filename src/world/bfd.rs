//! What the BFD session of a peer tells of itself. Floor 1. No decision reads it; the BGP session of the peer does, and what is shown.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use imbl::OrdMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::address::ScopedAddress;
use crate::bfd_state::{BfdState, Diagnostic};
use crate::names::{InterfaceName, PeerName};

/// How every BFD session stands, by its peer; newest wins. BFD writes it, and the BGP speaker and the loop read it.
pub type BfdSessions = OrdMap<PeerName, Arc<BfdReport>>;

/// Counters run from when the peer came into the configuration, over all of its sessions; the rest is of the session that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdReport {
    pub state: BfdState,
    pub since: SystemTime,
    pub address: ScopedAddress,
    /// Our end, as far as the kernel can say.
    pub local_address: Option<IpAddr>,
    /// The link or the VRF that the session is bound to.
    pub interface: Option<InterfaceName>,
    /// RFC 5883: the peer may be several hops away.
    pub multihop: bool,
    /// Why this end last left Up, or last failed to get there; and the same of the peer's end.
    pub diagnostic: Diagnostic,
    pub remote_diagnostic: Diagnostic,
    /// `None` while the peer is not heard.
    pub remote_state: Option<BfdState>,
    /// The last that was heard of the peer is that its operator holds the session down.
    #[serde(default)]
    pub held_by_peer: bool,
    pub discriminator: u32,
    pub remote_discriminator: Option<u32>,
    /// The multiplier of the peer; the detection time is this times the receive interval.
    pub remote_multiplier: Option<u8>,
    pub detection_time_micros: Option<u64>,
    /// Between two packets of the peer at most.
    pub receive_interval_micros: Option<u64>,
    /// Between two packets of ours at most; `None` while none are sent periodically.
    pub transmit_interval_micros: Option<u64>,
    /// The peer asks for Demand mode (RFC 5880 §6.6).
    pub remote_demand: bool,
    pub authenticated: bool,
    /// How often the session came up.
    pub times_up: u64,
    /// How often it was lost: it was Up, and then packets did not pass any more. An operator who holds it down is no loss.
    pub losses: u64,
    pub last_loss: Option<BfdLoss>,
    /// Why the session cannot send or receive, and stays Down; or what else of the peer's BFD does not fit.
    pub problem: Option<String>,
}

/// The last time that a session was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BfdLoss {
    pub at: Timestamp,
    /// In words: "nothing came for 150 ms".
    pub why: String,
    /// The session is that of the previous agent, and the peer has said to this one at no time that it hears it.
    #[serde(skip)]
    pub is_of_agent_before: bool,
}
