//! Stations that answer for many addresses: foreign hosts with more than a host has (proxy ARP, or a switch that answers for others), and nodes
//! that are not heard. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Snapshot;
use super::service::ServiceReport;
use crate::address::MacAddress;
use crate::names::InterfaceName;
use crate::reason::Reason;

/// The stations that were found with many of the addresses that this node was to answer for. `doubles` are those of [`of_double_names`].
pub(super) fn answering_for_all(
    snapshot: &Snapshot,
    doubles: &BTreeSet<MacAddress>,
) -> BTreeMap<MacAddress, BTreeSet<IpAddr>> {
    let mut stations: BTreeMap<MacAddress, BTreeSet<IpAddr>> = BTreeMap::new();
    for (address, mac) in &snapshot.plan.taken {
        stations.entry(*mac).or_default().insert(*address);
    }
    // It may have been found while its pulses were not heard yet.
    let members = || snapshot.world.rosters.values().flat_map(|roster| roster.members.values());
    let is_node =
        |mac: &MacAddress| members().any(|member| member.macs().any(|its| its == *mac)) || doubles.contains(mac);
    stations.retain(|mac, addresses| addresses.len() >= MANY && !is_node(mac));
    stations
}

/// What is wrong, and the remedies.
pub(super) fn in_words(snapshot: &Snapshot, mac: MacAddress, addresses: &BTreeSet<IpAddr>) -> String {
    let rosters = &snapshot.world.rosters;
    let hears_somebody = rosters.values().any(|roster| !roster.members.is_empty());
    // Who took the advice for routers would make a second owner of what another node has.
    let of_nodes = match (hears_somebody, rosters.is_empty()) {
        (true, _) => "",
        (false, true) => {
            "if it is another node with crier, this one sends and hears no pulses, and must: set [pulse] key-file as there; "
        }
        (false, false) => {
            "if it is another node with crier, its pulses are not heard here: open UDP port 7473 on this host, and use the same \
             pulse key; "
        }
    };
    format!(
        "{mac} answers for {} addresses of the pools, such as {}: {of_nodes}if it is a router or switch that answers for every \
         address (proxy ARP, EVPN), turn that off for the pools or name it in [[l2]] ignore-stations; if it has these addresses, \
         take them out of the pools",
        addresses.len(),
        examples(addresses)
    )
}

/// Hosts whose pulses are dropped because another host has their name: that they answer for addresses follows from it.
pub(super) fn of_double_names(snapshot: &Snapshot) -> BTreeSet<MacAddress> {
    snapshot.world.rosters.values().flat_map(|roster| roster.doubles.values().copied()).collect()
}

/// The stations of nodes that are not heard and answer for many addresses, each with the link. `doubles` as above.
pub(super) fn of_unheard_nodes(
    doubles: &BTreeSet<MacAddress>,
    services: &[ServiceReport],
) -> BTreeMap<(MacAddress, InterfaceName), BTreeSet<IpAddr>> {
    let mut stations = in_the_way(services, |reason| match reason {
        Reason::OwnerStillAnswers { address, link, mac } => Some((*address, link, *mac)),
        _ => None,
    });
    stations.retain(|(mac, _), _| !doubles.contains(mac));
    stations
}

/// The stations that claim many addresses which this node announces, each with the link.
pub(super) fn claiming(services: &[ServiceReport]) -> BTreeMap<(MacAddress, InterfaceName), BTreeSet<IpAddr>> {
    in_the_way(services, |reason| match reason {
        Reason::AddressContested { address, link, mac, node: _ } => Some((*address, link, *mac)),
        _ => None,
    })
}

/// One cause for all of them.
pub(super) fn claiming_in_words((mac, link): &(MacAddress, InterfaceName), addresses: &BTreeSet<IpAddr>) -> String {
    format!(
        "{mac} claimed {} addresses on {link} that this node announces, in the last five minutes, such as {}: look for that host by its \
         MAC, and take the addresses away there",
        addresses.len(),
        examples(addresses)
    )
}

/// The stations that are in the way of many addresses, by what this finds in the reasons.
fn in_the_way(
    services: &[ServiceReport],
    of: impl Fn(&Reason) -> Option<(IpAddr, &InterfaceName, MacAddress)>,
) -> BTreeMap<(MacAddress, InterfaceName), BTreeSet<IpAddr>> {
    let mut stations: BTreeMap<(MacAddress, InterfaceName), BTreeSet<IpAddr>> = BTreeMap::new();
    for announcement in services.iter().flat_map(|service| &service.decision.announcements) {
        if let Some((address, link, mac)) = of(&announcement.l2.reason) {
            stations.entry((mac, link.clone())).or_default().insert(address);
        }
    }
    stations.retain(|_, addresses| addresses.len() >= MANY);
    stations
}

/// One cause for all of them, by the name of the node where it was heard once.
pub(super) fn of_unheard_in_words(
    snapshot: &Snapshot,
    (mac, link): &(MacAddress, InterfaceName),
    addresses: &BTreeSet<IpAddr>,
) -> String {
    let mut silent = snapshot.world.rosters.values().flat_map(|roster| &roster.silent);
    let node = silent.find(|(_, departed)| departed.mac == *mac).map(|(node, _)| node.as_str());
    format!(
        "{} still answers for {} addresses on {link}, such as {}, and this node hears no pulse of it: this node leaves them to it; \
         is UDP port 7473 open on both, does the switch pass multicast, and is the pulse key the same?",
        node.map_or_else(|| mac.to_string(), |node| format!("{node} ({mac})")),
        addresses.len(),
        examples(addresses)
    )
}

fn examples(addresses: &BTreeSet<IpAddr>) -> String {
    let examples: Vec<String> = addresses.iter().take(MANY).map(IpAddr::to_string).collect();
    examples.join(", ")
}

/// From this many addresses on, a host that has its own addresses in the pools is less likely than one that answers for all.
const MANY: usize = 3;
