//! Foreign hosts that answer for more addresses than a host has: proxy ARP, or a switch that answers for others. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Snapshot;
use crate::address::MacAddress;

/// The stations that were found with many of the addresses that this node was to answer for.
pub(super) fn answering_for_all(snapshot: &Snapshot) -> BTreeMap<MacAddress, BTreeSet<IpAddr>> {
    let mut stations: BTreeMap<MacAddress, BTreeSet<IpAddr>> = BTreeMap::new();
    for (address, mac) in &snapshot.plan.taken {
        stations.entry(*mac).or_default().insert(*address);
    }
    stations.retain(|_, addresses| addresses.len() >= MANY);
    stations
}

/// What is wrong, and both remedies.
pub(super) fn in_words(mac: MacAddress, addresses: &BTreeSet<IpAddr>) -> String {
    let examples: Vec<String> = addresses.iter().take(MANY).map(IpAddr::to_string).collect();
    format!(
        "{mac} answers for {} addresses of the pools, such as {}: if it is a router or switch that answers for every address \
         (proxy ARP, EVPN), turn that off for the pools or name it in [[l2]] ignore-stations; if it has these addresses, take \
         them out of the pools",
        addresses.len(),
        examples.join(", ")
    )
}

/// From this many addresses on, a host that has its own addresses in the pools is less likely than one that answers for all.
const MANY: usize = 3;
