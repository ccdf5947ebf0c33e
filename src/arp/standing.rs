//! How the responder stands on each link, for the report. Floor 2, by what it holds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::MacAddress;
use crate::names::InterfaceName;
use crate::world::Conflict;

/// How the responder stands on each link that it was told to serve, by the index of the link.
pub type Standings = BTreeMap<u32, LinkStanding>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStanding {
    pub name: InterfaceName,
    pub mac: MacAddress,
    pub socket: SocketStanding,
    /// Plain ARP requests are answered in the kernel.
    pub offloaded: bool,
    /// How many addresses are wanted, those in conflict included.
    pub addresses: usize,
    /// Other stations that have addresses of ours.
    pub conflicts: BTreeMap<IpAddr, Conflict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketStanding {
    Opening,
    Open,
    /// It is tried again until it works or the link is no longer wanted.
    Failed(String),
}
