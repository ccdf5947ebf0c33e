//! The state of each link that the responder serves, for the report. Floor 2.

use std::collections::BTreeMap;
use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};

use crate::address::MacAddress;
use crate::claim::Answerer;
use crate::names::InterfaceName;
use crate::world::Conflict;

/// The state of each link that the responder was told to serve, by the index of the link.
pub type LinkStates = BTreeMap<u32, LinkState>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState {
    pub name: InterfaceName,
    pub mac: MacAddress,
    pub socket: SocketState,
    /// Plain ARP requests are answered in the kernel.
    pub offloaded: bool,
    /// How many addresses this node is to own on the link, those in conflict included.
    pub addresses: usize,
    /// The addresses that this node answers for on the link.
    pub answering: OrdSet<IpAddr>,
    /// The stations that answer for addresses which this node asks for and does not answer for.
    pub answerers: OrdMap<IpAddr, Answerer>,
    /// Other stations that claim addresses of this node.
    pub conflicts: BTreeMap<IpAddr, Conflict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketState {
    Opening,
    Open,
    /// Why it failed. Opening it is tried again until it works or the link is no longer served.
    Failed(String),
}
