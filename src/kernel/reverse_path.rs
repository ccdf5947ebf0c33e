//! Where the kernel's strict reverse path filter (RFC 3704 §2.2) drops what egress sends over this node, or requests that come in by an
//! extra network: it lets a packet in only by the link of the way back to its source. Floor 2. With an overlay the way back to a pod of
//! another node is the overlay, but its packets come to the owner by the link of the nodes; and replies to a pod come by the overlay, but
//! the way back to their source is elsewhere. IPv6 has no such filter in the kernel. A host that forwards nothing drops them too, and is told beside.
//!
//! Task: [`run`], owned by the caller. Cancelling it loses nothing; a sysctl that was set stays set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::host::{Finding, loose, unmarked};
use super::looks::{self, Looks};
use super::netlink::{Complaints, Netlink, NetlinkError, index_and_name, leaves_by};
use super::sysctl;
use crate::address::Family;
use crate::names::InterfaceName;
use crate::plan::slice::{EgressSlice, Mapping, ReturnTable};
use crate::world::{Area, Fact, HostProblem};

/// The kernel tells of no change of a sysctl.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Of how many pods the way back is asked, at most. Nodes have few links, and one pod for each is enough.
const MOST_ASKED: usize = 64;

/// Stands for all outside of the cluster (RFC 5737 §3).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Looks for as long as there are slices, while pods have egress, and reports whenever something else is seen. With `manage` it makes
/// the filter loose where it drops packets.
pub async fn run(slices: watch::Receiver<EgressSlice>, manage: bool, facts: mpsc::Sender<Fact>) {
    let mut reported: Vec<HostProblem> = Vec::new();
    let mut complaints = Complaints::default();
    let mut looks = Looks::new(slices, LOOK_AGAIN, is_concerned);
    while let Some(slice) = looks.next().await {
        let found = match look(&slice).await {
            Ok((findings, _)) if manage && !findings.is_empty() => {
                sysctl::settle(&findings);
                look(&slice).await
            }
            found => found,
        };
        let found: Vec<HostProblem> = match found {
            Ok((findings, links)) => findings.iter().map(Finding::report).chain(unforwarded(&slice, &links)).collect(),
            Err(error) => {
                if complaints.is_new(&error) {
                    warn!(%error, "whether the reverse path filter drops packets of pods with egress cannot be seen; trying again");
                }
                continue;
            }
        };
        if found != reported {
            for problem in found.iter().filter(|problem| !reported.contains(problem)) {
                warn!(%problem, "the kernel drops packets of egress or of extra networks");
            }
            if found.is_empty() {
                info!("no setting of this host drops packets of egress or of extra networks any more");
            }
            reported.clone_from(&found);
            if facts.send(Fact::Problems(Area::EgressFilters, found)).await.is_err() {
                return;
            }
        }
    }
}

fn is_concerned(slice: &EgressSlice) -> bool {
    looks::for_pods(slice) || !marked_on(slice).is_empty()
}

/// The links of this node by which requests to Services come in that are marked. What a VRF has is found by its own rule.
fn marked_on(slice: &EgressSlice) -> BTreeSet<InterfaceName> {
    let networks = slice.networks.iter().filter(|network| match &network.table {
        ReturnTable::Own { gateways, subnets: _ } => !network.former && gateways.contains_key(&Family::V4),
        ReturnTable::Vrf(_) => false,
    });
    match slice.served.iter().any(IpAddr::is_ipv4) {
        true => networks.flat_map(|network| network.links.values().cloned()).collect(),
        false => BTreeSet::new(),
    }
}

/// What keeps this host from passing on packets of pods with egress. No setting of crier's: routers are made on purpose.
fn unforwarded(slice: &EgressSlice, links: &BTreeSet<InterfaceName>) -> Vec<HostProblem> {
    let go = |family: &Family| {
        slice.pods.iter().any(|(pod, mapping)| Family::of(*pod) == *family && *mapping != Mapping::Held)
    };
    sysctl::forwarding(&Family::BOTH.into_iter().filter(go).collect::<Vec<_>>(), links)
}

/// Also the links by which packets come that go on from here. The kernel is asked itself, so its rules and routes all count.
async fn look(slice: &EgressSlice) -> Result<(Vec<Finding>, BTreeSet<InterfaceName>), NetlinkError> {
    let marked = marked_on(slice).into_iter().filter(sysctl::ignores_marks).map(|link| unmarked(&link));
    let marked: Vec<Finding> = marked.collect();
    let (mut translates, mut steers) = (false, false);
    for mapping in slice.pods.values() {
        translates |= matches!(mapping, Mapping::Translated { .. });
        steers |= matches!(mapping, Mapping::Steered { .. });
    }
    if !translates && !steers {
        return Ok((marked, BTreeSet::new()));
    }
    let mut netlink = Netlink::open_for(&[])?;
    let names: BTreeMap<u32, InterfaceName> = netlink.links().await?.iter().filter_map(index_and_name).collect();
    let Some(outside) = netlink.route_to(OUTSIDE.into()).await?.as_ref().and_then(leaves_by) else {
        return Ok((marked, BTreeSet::new()));
    };
    // By the link of the way to them: one pod of another node, to which a next hop leads, for each; and any pod that is here.
    let (mut elsewhere, mut here) = (BTreeMap::<u32, Ipv4Addr>::new(), None);
    let mut passed: BTreeSet<u32> = slice.shared_links.iter().copied().chain([outside]).collect();
    for pod in sample(slice) {
        let Some(route) = netlink.route_to(pod.into()).await? else { continue };
        let Some(link) = leaves_by(&route) else { continue };
        if has_next_hop(&route) {
            elsewhere.entry(link).or_insert(pod);
        } else {
            here = Some(pod);
            passed.insert(link);
        }
    }
    let name = |index: u32| names.get(&index).cloned();
    let mut findings = BTreeMap::new();
    for (&back, &pod) in &elsewhere {
        let Some(way) = name(back) else { continue };
        for &link in slice.roads.iter().filter(|link| translates && **link != back) {
            let Some(link_name) = name(link).filter(sysctl::filters_strictly) else { continue };
            if !netlink.passes(link, pod, OUTSIDE).await? {
                findings.entry(link_name.clone()).or_insert_with(|| of_pods(&link_name, pod, &way));
            }
        }
        if let (Some(pod), true, Some(outside)) = (here, steers && back != outside, name(outside))
            && sysctl::filters_strictly(&way)
            && !netlink.passes(back, OUTSIDE, pod).await?
        {
            findings.entry(way.clone()).or_insert_with(|| of_replies(&way, &outside));
        }
    }
    Ok((findings.into_values().chain(marked).collect(), passed.into_iter().filter_map(name).collect()))
}

/// Pods with egress from all over their addresses, and where their nodes have none of these an address of the node's pods.
fn sample(slice: &EgressSlice) -> BTreeSet<Ipv4Addr> {
    let v4 = |address: &IpAddr| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    };
    let step = slice.pods.len() / MOST_ASKED + 1;
    let pods = slice.pods.keys().step_by(step).filter_map(v4);
    let of_nodes = slice.pod_networks.iter().filter_map(|network| network.hosts().next()).filter_map(|it| v4(&it));
    pods.chain(of_nodes.take(MOST_ASKED)).collect()
}

fn of_pods(link: &InterfaceName, pod: Ipv4Addr, way: &InterfaceName) -> Finding {
    Finding {
        problem: format!(
            "rp_filter is strict on {link}, by which other nodes send this one what their pods with egress open, and the way back to \
             pods such as {pod} is by {way}: the kernel drops these packets"
        ),
        advice: "make the filter loose",
        settings: vec![loose(link)],
    }
}

fn of_replies(way: &InterfaceName, outside: &InterfaceName) -> Finding {
    Finding {
        problem: format!(
            "rp_filter is strict on {way}, by which owners of Services' addresses on other nodes send replies to pods with egress \
             here, and the way back to the outside is by {outside}: the kernel drops the replies"
        ),
        advice: "make the filter loose",
        settings: vec![loose(way)],
    }
}

fn has_next_hop(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::slice::ReturnNetwork;

    /// Input: BGP alone, and an extra network on eth1. Output: its filter is looked at, though nothing is answered
    /// for on the link.
    #[test]
    fn the_links_are_looked_at_by_which_requests_come_in_that_are_marked() {
        let network = |link: u32, name: &str, table, former| ReturnNetwork {
            name: name.into(),
            slot: 15,
            links: [(link, name.into())].into(),
            table,
            former,
        };
        let own = |gateway: &str| {
            let gateway: IpAddr = gateway.parse().unwrap();
            ReturnTable::Own { gateways: [(Family::of(gateway), Some(gateway))].into(), subnets: Vec::new() }
        };
        let networks = vec![
            network(3, "eth1", own("192.0.2.1"), false),
            network(4, "eth2", own("198.51.100.1"), true),
            network(5, "eth3", own("fd02::1"), false),
            network(6, "eth4", ReturnTable::Vrf(1001), false),
        ];
        let slice = |served: &[&str]| EgressSlice {
            networks: networks.clone().into(),
            served: served.iter().map(|address| address.parse::<IpAddr>().unwrap()).collect(),
            ..EgressSlice::default()
        };
        assert_eq!(marked_on(&slice(&["203.0.113.1"])), ["eth1".into()].into());
        assert!(is_concerned(&slice(&["203.0.113.1"])));
        assert!(!is_concerned(&slice(&["fd00::1"])), "IPv6 has no such filter");
    }
}
