//! What an operator should look at: the problems that `crier status` and `crier doctor` list, each one sentence. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

mod api_server;

pub(super) use self::api_server::remembers;
use self::api_server::{of_api_server, of_client_certificate};
use super::Snapshot;
use super::bgp::PeerReport;
use super::service::ServiceReport;
use super::words::some_of;
use super::{agreement, allocator, bfd, egress, own_node, stations, unannounced};
use crate::address::{Family, ScopedAddress, host_prefix};
use crate::config::{Config, Kubernetes, L2, Pool, Source, Subnet, lease_digest};
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::path_state::{PathFault, Serving};
use crate::plan::allocate::pool_of;
use crate::plan::context::L2Context;
use crate::plan::context::l2::describe_interfaces;
use crate::plan::decision::{Announcement, Decision};
use crate::plan::elect;
use crate::plan::join::Disagreement;
use crate::plan::own_addresses::{self, Bound, IPVS_LINK};
use crate::plan::prefixes::Away;
use crate::plan::reach;
use crate::plan::slice::PeerSlice;
use crate::reason::{HostUse, Reason};
use crate::roster::Roster;
use crate::world::{ApiServer, Area, ClusterConfig, Condition, Link, Ordered, Pulses, SessionState};

/// All problems, those that concern most first.
pub(super) fn problems(snapshot: &Snapshot, services: &[ServiceReport], peers: &[PeerReport]) -> Vec<String> {
    let world = &snapshot.world;
    let mut problems: Vec<String> = of_api_server(snapshot).into_iter().collect();
    problems.extend(of_client_certificate(snapshot));
    let of_area = |place: Place| {
        let there = world.problems.iter().filter(move |(area, _)| place_of(**area) == place);
        there.flat_map(|(_, problems)| problems).map(ToString::to_string)
    };
    problems.extend(of_area(Place::Credentials));
    problems.extend(snapshot.reloads.problems());
    problems.extend(of_area(Place::Manifests));
    problems.extend(of_cluster_config(snapshot));
    problems.extend(allocator::problems(snapshot));
    problems.extend(own_node::problems(snapshot));
    problems.extend(own_node::pools_of_the_cluster(snapshot));
    problems.extend(own_node::unreadable_addresses(snapshot));
    let doubles = stations::of_double_names(snapshot);
    let stations = stations::answering_for_all(snapshot, &doubles);
    problems.extend(stations.iter().map(|(mac, addresses)| stations::in_words(snapshot, *mac, addresses)));
    let unheard = stations::of_unheard_nodes(&doubles, services);
    problems
        .extend(unheard.iter().map(|(station, addresses)| stations::of_unheard_in_words(snapshot, station, addresses)));
    let claiming = stations::claiming(services);
    problems.extend(claiming.iter().map(|(station, addresses)| stations::claiming_in_words(station, addresses)));
    let named = |reason: &Reason| match reason {
        Reason::AddressContested { mac, link, .. } => claiming.contains_key(&(*mac, link.clone())),
        Reason::AddressOccupied { mac, .. } => stations.contains_key(mac) || doubles.contains(mac),
        Reason::OwnerStillAnswers { mac, link, .. } => {
            unheard.contains_key(&(*mac, link.clone())) || doubles.contains(mac)
        }
        _ => false,
    };
    problems.extend(of_other_writers(services));
    problems.extend(of_nobody(snapshot));
    problems.extend(of_unheard_crier(snapshot));
    problems.extend(of_services(services, named));
    problems.extend(unannounced::problems(snapshot));
    let wanted = |peer: &&PeerReport| !is_left_out(snapshot, &peer.name);
    let told = |peer: &PeerReport| Some(of_peer(peer, peers)? + beyond_the_link(snapshot, &peer.name));
    problems.extend(peers.iter().filter(wanted).filter_map(told));
    problems.extend(without_secret(snapshot));
    problems.extend(sessions_without_carrier(snapshot));
    problems.extend(sessions_without_next_hop(snapshot));
    problems.extend(bfd::problems(snapshot));
    problems.extend(disputes(snapshot));
    problems.extend(of_area(Place::Host));
    let of_reach = world.egress_reach.problem.iter().chain(&world.egress_reach.led_away);
    problems.extend(of_reach.map(ToString::to_string));
    problems.extend(of_area(Place::Networks));
    problems.extend(of_area(Place::Drain));
    problems.extend(world.shutdown.problem.iter().map(ToString::to_string));
    problems.extend(of_area(Place::Agent));
    problems.extend(drained_by_damage(snapshot));
    problems.extend(moved_to_nobody(snapshot));
    problems.extend(unseen_networks(snapshot));
    problems.extend(networks_left_out(snapshot));
    problems.extend(of_data_path(snapshot));
    problems.extend(without_prefix(snapshot));
    problems.extend(prefixes_away(snapshot));
    problems.extend(without_link(snapshot));
    problems.extend(without_socket(snapshot));
    problems.extend(receiving_nothing(snapshot));
    problems.extend(without_v6(snapshot));
    problems.extend(without_v4(snapshot));
    problems.extend(bound_by_others(snapshot));
    problems.extend(left_on_links(snapshot));
    problems.extend(bound_for_bgp(snapshot));
    problems.extend(of_hosts_too(snapshot));
    problems.extend(not_vip(snapshot));
    problems.extend(egress::problems(snapshot));
    problems.extend(own_node::addresses_elsewhere(snapshot));
    problems.extend(agreement::problems(snapshot));
    let not_written = world.refused.iter().map(|(key, why)| (key, format!("status not written: {why}")));
    problems.extend(told_together(not_written));
    problems
}

/// What may be so of all Services of the cluster: one sentence for all of which the same is said.
fn told_together<'a>(said: impl Iterator<Item = (&'a ObjectKey, String)>) -> Vec<String> {
    let mut all: BTreeMap<String, BTreeSet<&ObjectKey>> = BTreeMap::new();
    for (service, what) in said {
        all.entry(what).or_default().insert(service);
    }
    all.into_iter().map(|(what, services)| format!("{}: {what}", some_of(&services))).collect()
}

/// Where in the list the problems of an area are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Credentials,
    Manifests,
    Host,
    Networks,
    Drain,
    Agent,
}

/// Each area has a place, so none is forgotten.
fn place_of(area: Area) -> Place {
    match area {
        Area::Credentials => Place::Credentials,
        Area::Manifests => Place::Manifests,
        Area::Host | Area::Listening | Area::Egress | Area::EgressBypass | Area::EgressFilters => Place::Host,
        Area::Vrfs | Area::Returns | Area::Bind | Area::Blackholes => Place::Networks,
        Area::Drain => Place::Drain,
        Area::NodeMark | Area::State => Place::Agent,
    }
}

/// A drain that nobody can read the orders of.
fn drained_by_damage(snapshot: &Snapshot) -> Option<String> {
    let ordered = &snapshot.world.drain.as_ref()?.ordered;
    let why = ordered.reason().filter(|_| matches!(ordered, Ordered::Unreadable { .. }))?;
    Some(format!("this node is treated as drained and announces nothing: {why}; `crier undrain` returns it to service"))
}

/// Services whose annotation names a node that is none.
fn moved_to_nobody(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let world = &snapshot.world;
    let is_known = world.listed.nodes && !world.nodes.is_empty();
    let ours = snapshot.plan.decisions.keys().filter(move |_| is_known);
    ours.filter_map(|key| {
        let node = world.services.get(key)?.node.as_ref().filter(|node| !world.nodes.contains_key(*node))?;
        Some(format!(
            "{key}: its annotation crier.dev/node names {node}, and there is no such Node, so its addresses are where they would be without \
             it: name another node, or remove the annotation"
        ))
    })
}

/// Addresses that the status shows with another `ipMode` than VIP.
fn not_vip(snapshot: &Snapshot) -> Vec<String> {
    let shown = snapshot.plan.decisions.iter().filter_map(|(key, decision)| {
        let service = snapshot.world.services.get(key).filter(|service| !service.not_vip.is_empty())?;
        let announced = decision.announcements.iter().map(|it| it.address);
        let addresses: Vec<String> =
            announced.filter(|address| service.not_vip.contains(address)).map(|it| it.to_string()).collect();
        let is_left = decision.allocation.notes.iter().any(|note| matches!(note, Reason::ClassLeft { .. }));
        let ObjectKey { namespace, name } = key;
        let remedy = match is_left {
            true => format!(
                "crier writes no status of a class that its file names no more: take ipMode away (kubectl -n {namespace} edit service \
                 {name} --subresource=status)"
            ),
            false => "the agent that allocates writes VIP; if this stays, find who else writes the status (kubectl get service \
                      --show-managed-fields -o yaml)"
                .to_owned(),
        };
        (!addresses.is_empty()).then(|| {
            format!(
                "{key}: the status shows {} with an ipMode other than VIP, so kube-proxy has no rules for it and what clients send \
                 there is lost: {remedy}",
                addresses.join(", ")
            )
        })
    });
    shown.collect()
}

/// Extra networks beyond those that the marks can tell apart.
fn networks_left_out(snapshot: &Snapshot) -> Option<String> {
    let names: BTreeSet<&InterfaceName> = snapshot.plan.networks_left_out.iter().collect();
    let settings = &snapshot.config.egress;
    (!names.is_empty()).then(|| {
        format!(
            "replies to what comes in by {} of the extra networks ({}) leave by the default route, and no pod leaves by them: [egress] \
             mark-mask {:#010x} has values for {}; give it more bits, or take default routes away that are not to be used",
            names.len(),
            some_of(&names),
            settings.mark_mask,
            settings.slots()
        )
    })
}

/// What is the matter with the ConfigMap of the configuration, with what it means and what to do.
fn of_cluster_config(snapshot: &Snapshot) -> Option<String> {
    let Source::Kubernetes(kubernetes @ Kubernetes { config: Some(name), .. }) = &snapshot.config.source else {
        return None;
    };
    let lacking = lacking(&snapshot.config);
    let kept: BTreeSet<&ObjectKey> =
        snapshot.plan.decisions.iter().filter(|(_, it)| is_of_unknown_pool(it)).map(|(key, _)| key).collect();
    let kept = match kept.is_empty() {
        true => String::new(),
        false => format!("; addresses of no pool that is in use stay with their Services: {}", some_of(&kept)),
    };
    let forgotten = unheld(snapshot);
    let kept = match forgotten.is_empty() || !snapshot.world.lacks_config_map() {
        true => kept,
        false => format!(
            "{kept}; this node does not know their pools from before, and announces nothing of what crier gave to {}",
            some_of(&forgotten)
        ),
    };
    let in_use = match (snapshot.world.cluster_texts.is_empty(), lacking.is_empty()) {
        (false, _) => "the last good one stays in use".to_owned(),
        (true, true) => format!("the files of this host alone are in use{kept}"),
        (true, false) => {
            format!(
                "the files of this host alone are in use, and what they name of it waits for it ({}){kept}",
                some_of(&lacking)
            )
        }
    };
    Some(match &snapshot.world.cluster_config {
        ClusterConfig::NotUsed | ClusterConfig::Current => return None,
        ClusterConfig::Waiting { why } => {
            format!(
                "the ConfigMap {name} has changed; the previous text stays in use until this agent is restarted: {why}"
            )
        }
        ClusterConfig::Refused { why } => format!("the ConfigMap {name} is refused, {in_use}: {why}"),
        ClusterConfig::Missing => {
            format!("there is no ConfigMap {name}, {in_use}: make it, or remove [kubernetes] config")
        }
        ClusterConfig::Unseen { why, refusal } => {
            let remedy = kubernetes
                .remedy_of_config_map(name, refusal.is_about_rights())
                .map(|it| format!("; {it}"))
                .unwrap_or_default();
            format!("the ConfigMap {name} is not seen, {in_use}: {why}{remedy}")
        }
    })
}

/// What crier gave to Services of a class that the file names no more, and this node does not announce. While the ConfigMap lacks, the
/// problem of that tells it.
fn of_nobody(snapshot: &Snapshot) -> Option<String> {
    let all = unheld(snapshot);
    (!all.is_empty() && !snapshot.world.lacks_config_map()).then(|| {
        format!(
            "{}: the status shows an address from this crier, but the file no longer names the class, and no file of this node is known to \
             have had its pool, so this node does not announce it: put the class or the pool back into the file, or empty the status",
            some_of(&all)
        )
    })
}

/// What the crier of another Lease gave to Services of a class that this file does not name, from pools that this file has too, while no agent
/// with that Lease is heard: a sentence for each Lease. It may be this crier as it was before its class led to another Lease, which a node
/// without its former state folder cannot know.
fn of_unheard_crier(snapshot: &Snapshot) -> Vec<String> {
    let Source::Kubernetes(Kubernetes { lease, .. }) = &snapshot.config.source else { return Vec::new() };
    let world = &snapshot.world;
    let mut by_lease: BTreeMap<&str, BTreeSet<&ObjectKey>> = BTreeMap::new();
    for (key, decision) in snapshot.plan.decisions.iter() {
        let Some(service) = world.services.get(key).filter(|service| service.load_balancer) else { continue };
        let is_left = matches!(decision.allocation.reason, Reason::OtherClass { .. });
        let Some(said) = service.condition.as_ref().filter(|said| is_left && !said.is_of(lease)) else { continue };
        let (given, pools) = (said.addresses(), said.pools());
        let is_of_file = |address: &IpAddr| {
            let pool = pool_of(&snapshot.config.pools, *address);
            given.contains(address) && pool.is_some_and(|pool| pools.contains(&pool.name))
        };
        if service.ingress.iter().any(is_of_file) {
            by_lease.entry(said.lease().unwrap_or(Condition::DEFAULT_LEASE)).or_default().insert(key);
        }
    }
    let is_heard = |lease: &str| {
        let mut members = world.rosters.values().flat_map(|roster| roster.members.values());
        members.any(|member| member.card.lease == Some(lease_digest(lease)))
    };
    let unheard = by_lease.into_iter().filter(|(lease, _)| !is_heard(lease));
    let told = unheard.map(|(lease, services)| {
        format!(
            "{}: the status shows addresses that the crier with the Lease {lease} assigned from pools that this file has too, for a class \
             that this file does not name; no agent with that Lease is heard, and this node does not announce them: if that was this crier \
             under its former Lease, set [kubernetes] lease = \"{lease}\", or name the class in the file again",
            some_of(&services)
        )
    });
    told.collect()
}

/// The Services, of a class that the file names no more or while the ConfigMap lacks, whose status shows what crier gave of a pool that this
/// node knows nothing of.
fn unheld(snapshot: &Snapshot) -> BTreeSet<&ObjectKey> {
    let Source::Kubernetes(Kubernetes { lease, .. }) = &snapshot.config.source else { return BTreeSet::new() };
    let world = &snapshot.world;
    let is_unheld = |(key, decision): &(&ObjectKey, &Arc<Decision>)| {
        let Some(service) = world.services.get(*key).filter(|service| service.load_balancer) else { return false };
        let is_left = matches!(decision.allocation.reason, Reason::OtherClass { .. });
        let said = service.condition.as_ref().filter(|condition| condition.is_of(lease));
        let given = said.map(|condition| condition.addresses()).unwrap_or_default();
        let is_held = |address: &IpAddr| decision.allocation.held.iter().any(|held| held.address == *address);
        let is_unknown = |address: &&IpAddr| pool_of(&snapshot.config.pools, **address).is_none() && !is_held(address);
        let mut unknown = given.iter().filter(is_unknown);
        (is_left || world.lacks_config_map()) && unknown.any(|address| service.ingress.contains(address))
    };
    snapshot.plan.decisions.iter().filter(is_unheld).map(|(key, _)| key).collect()
}

/// The problem of the ConfigMap tells it for all Services.
fn is_of_unknown_pool(decision: &Decision) -> bool {
    matches!(decision.allocation.complaint.as_ref().unwrap_or(&decision.allocation.reason), Reason::PoolUnknown { .. })
}

/// The Services whose status another crier or controller writes.
fn of_other_writers(services: &[ServiceReport]) -> Vec<String> {
    told_together(services.iter().filter_map(|service| {
        let allocation = &service.decision.allocation;
        let reason = allocation.complaint.as_ref().unwrap_or(&allocation.reason);
        is_of_other_writer(reason).then(|| (&service.name, reason.to_string()))
    }))
}

fn is_of_other_writer(reason: &Reason) -> bool {
    matches!(reason, Reason::OtherCrier { .. } | Reason::StatusOverwritten { .. })
}

/// What the files of the host name, and only the ConfigMap can have.
fn lacking(config: &Config) -> BTreeSet<String> {
    let of_l2 = config.l2.iter().flat_map(|l2| &l2.pools);
    let pools = of_l2.chain(config.bgp.advertisements.iter().flat_map(|it| &it.pools));
    let pools = pools.filter(|name| !config.pools.iter().any(|pool| pool.name == **name));
    let peers = config.bgp.advertisements.iter().flat_map(|it| &it.peers);
    let peers = peers.filter(|name| !config.bgp.peers.iter().any(|peer| peer.name == **name));
    let profiles = config.bgp.peers.iter().filter_map(|peer| peer.bfd.as_ref());
    let profiles = profiles.filter(|name| !config.bfd.iter().any(|profile| profile.name == **name));
    let pools = pools.map(|name| format!("pool {name}"));
    pools
        .chain(peers.map(|name| format!("peer {name}")))
        .chain(profiles.map(|it| format!("BFD profile {it}")))
        .collect()
}

/// What is the matter with each Service. What is said of many is said once.
fn of_services(services: &[ServiceReport], named: impl Fn(&Reason) -> bool) -> Vec<String> {
    let of_one = |service| of_service(service, &named).into_iter().map(|said| (&service.name, said));
    let said: Vec<(&ObjectKey, String)> = services.iter().flat_map(of_one).collect();
    let mut by_text: BTreeMap<&str, BTreeSet<&ObjectKey>> = BTreeMap::new();
    for (service, text) in &said {
        by_text.entry(text).or_default().insert(service);
    }
    let told = said.iter().filter_map(|(service, text)| {
        let alike = &by_text[text.as_str()];
        match alike.len() < MANY {
            true => Some(format!("{service}: {text}")),
            // With the first of them.
            false => (alike.first() == Some(service)).then(|| format!("{}: {text}", some_of(alike))),
        }
    });
    told.collect()
}

/// Of so many Services the same is said once.
const MANY: usize = 8;

/// `named`: what is the matter was said already, for several Services at once.
fn of_service(service: &ServiceReport, named: impl Fn(&Reason) -> bool) -> Vec<String> {
    let mut problems = Vec::new();
    let allocation = &service.decision.allocation;
    let waiting = matches!(
        allocation.reason,
        Reason::OtherClass { .. } | Reason::WaitingForAllocator | Reason::PoolUnknown { .. }
    ) || is_of_other_writer(&allocation.reason);
    // What is said of egress, of another writer or of the ConfigMap is said with that of all other Services.
    let of_many = |it: &Reason| {
        it.is_about_egress_of_others() || is_of_other_writer(it) || matches!(it, Reason::PoolUnknown { .. })
    };
    let complaint = allocation.complaint.as_ref().filter(|it| !of_many(it));
    if let Some(complaint) = complaint {
        problems.push(complaint.to_string());
    } else if allocation.held.is_empty() && !waiting {
        problems.push(allocation.reason.to_string());
    }
    let wrong = service.decision.announcements.iter().map(|it| &it.l2).filter(|it| match &it.reason {
        Reason::NotTaken { .. } | Reason::OwnerNotOnLinks { .. } => true,
        // What this node has as its gateway is said where its host's addresses are.
        Reason::GatewayOfLink { node: Some(_), .. } => it.owner.is_none(),
        reason => reason.is_conflict() && !named(reason),
    });
    problems.extend(wrong.map(|it| it.reason.to_string()));
    if service.decision.announcements.iter().any(Announcement::lacks_node_names) {
        problems.push(Reason::EndpointsNameNoNode.to_string());
    }
    problems
}

/// Addresses of pools that another program has on a link of this node: the kernel answers for them.
fn bound_by_others(snapshot: &Snapshot) -> Vec<String> {
    let told = own_addresses::bound_by_others(&snapshot.config, &snapshot.world).map(|bound| {
        let service = bound.service(&snapshot.world);
        let Bound { address, link, pool } = bound;
        let (pool, link, prefix) = (&pool.name, &link.name, host_prefix(address));
        match service {
            Some(service) => {
                let consequence = match announces(snapshot, service, address) {
                    true => "this node announces it, and once another one does, the kernel here answers beside that one",
                    false => "the kernel answers for it beside the node that announces it",
                };
                format!(
                    "{address} of {service} is on {link} of this node, put there by another program: {consequence}; take it away: \
                     ip address del {prefix} dev {link}"
                )
            }
            None => format!(
                "{address} of pool {pool} is on {link} of this node, put there by another program: no Service gets it that does \
                 not ask for it; leave it out of the pool with exclude, or take it away: ip address del {prefix} dev {link}"
            ),
        }
    });
    told.collect()
}

/// This node is the one that announces the address.
fn announces(snapshot: &Snapshot, service: &ObjectKey, address: IpAddr) -> bool {
    let announcements = snapshot.plan.decisions.get(service).into_iter().flat_map(|it| &it.announcements);
    announcements.filter(|it| it.address == address).any(|it| it.l2.owner.as_ref() == Some(&snapshot.node))
}

/// Addresses that are announced on a link although a host or a subnet uses them: given before that was so, or known.
fn of_hosts_too(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, world, plan, .. } = snapshot;
    let uses = own_addresses::all_uses(world);
    // Kubelets take bound addresses for the Node's own.
    let is_bound = |it: &Announcement| config.pools.iter().any(|pool| pool.name == it.pool && pool.bind.is_some());
    let is_internal = |address: IpAddr, used: &HostUse| match used {
        HostUse::Node { node } => world.nodes.get(node).is_some_and(|node| node.addresses.contains(&address)),
        HostUse::Link { .. } | HostUse::Allocator | HostUse::Lately { .. } => true,
        used => used.is_of_subnet(),
    };
    let in_words = |key: &ObjectKey, it: &Announcement| {
        let used = uses.get(&it.address).filter(|used| is_internal(it.address, used))?;
        let is_router = matches!(used, HostUse::Gateway { .. });
        let consequence = match &it.l2.owner {
            _ if matches!(it.l2.reason, Reason::GatewayOfLink { .. }) => "this node does not answer for it".to_owned(),
            _ if used.is_of_subnet() && !is_router => "hosts of that subnet do not reach it".to_owned(),
            Some(owner) => format!("{owner} answers for it beside that host"),
            None => "a node may answer for it beside that host".to_owned(),
        };
        Some(format!(
            "{key}: {address} is {used} too, and {consequence}: give the Service another address (crier renumber, or \
             crier.dev/addresses), and leave {address} out of pool {}: exclude = [\"{address}\"]",
            it.pool,
            address = it.address,
        ))
    };
    let of_service = |(key, decision): (&ObjectKey, &Arc<Decision>)| -> Vec<String> {
        let on_link = decision.announcements.iter().filter(|it| it.is_on_link() && !is_bound(it));
        on_link.filter_map(|it| in_words(key, it)).collect()
    };
    plan.decisions.iter().flat_map(of_service).collect()
}

/// Addresses that other nodes answer for, on links of this node that do no ARP, such as `lo` (a leftover of LVS or keepalived). What
/// crier itself puts there goes with the address, and kube-proxy's own link is told of as such.
fn left_on_links(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { world, plan, .. } = snapshot;
    let links = world
        .links
        .values()
        .filter(|link| world.arp_open && link.up && (link.loopback || !link.arp) && link.name.as_str() != IPVS_LINK);
    let on_links = links.flat_map(|link| link.addresses.iter().map(move |net| (net.addr(), &link.name)));
    // IPv6 answers for what the link itself has.
    let left: BTreeMap<IpAddr, &InterfaceName> =
        on_links.filter(|(it, _)| it.is_ipv4() && !it.is_loopback() && !plan.bind.addresses.contains_key(it)).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let of_service = |(service, decision): (&ObjectKey, &Arc<Decision>)| -> Vec<String> {
        let told = decision.announcements.iter().filter_map(|Announcement { address, l2, .. }| {
            let (link, owner) = (left.get(address)?, l2.owner.as_ref().filter(|owner| **owner != snapshot.node)?);
            Some(format!(
                "{address} of {service} is on {link} of this node, put there by another program, and arp_ignore is 0: the kernel \
                 answers for it beside {owner}; take it away: ip address del {} dev {link}; or: sysctl -w \
                 net.ipv4.conf.all.arp_ignore=1",
                host_prefix(*address)
            ))
        });
        told.collect()
    };
    plan.decisions.iter().flat_map(of_service).collect()
}

/// Addresses that crier binds because BGP announces them from this node too, while other nodes are to answer for them on the link.
fn bound_for_bgp(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { world, plan, .. } = snapshot;
    let mut bound: BTreeMap<(&InterfaceName, &PoolName, &str), BTreeSet<String>> = BTreeMap::new();
    for (service, decision) in plan.decisions.iter().filter(|_| world.arp_open) {
        for Announcement { address, pool, l2, bgp } in &decision.announcements {
            let others = match &l2.owner {
                // Each of them has bound it before one could take it on the link, and none does while the others answer.
                _ if l2.reason.is_conflict() => "other nodes",
                Some(owner) if *owner != snapshot.node => owner.as_str(),
                _ => continue,
            };
            // IPv6 answers for what the link itself has; what an owner that was has bound it is about to take off.
            if let Some(link) = plan.bind.addresses.get(address)
                && address.is_ipv4()
                && !bgp.peers.is_empty()
            {
                bound.entry((link, pool, others)).or_default().insert(format!("{address} of {service}"));
            }
        }
    }
    let told = bound.into_iter().map(|((link, pool, others), addresses)| {
        let (are, them) = if addresses.len() == 1 { ("is", "it") } else { ("are", "them") };
        format!(
            "{} {are} on {link} of this node, bound for BGP (bind of pool {pool}), and arp_ignore is 0: the kernel answers for {them} \
             beside {others}; sysctl -w net.ipv4.conf.all.arp_ignore=1",
            some_of(&addresses)
        )
    });
    told.collect()
}

/// That there is no session is as it should be: the peer is shut down, or its next hops all have sessions of their own.
fn is_left_out(snapshot: &Snapshot, peer: &PeerName) -> bool {
    let address = snapshot.plan.bgp.peers.get(peer).map(|peer| &peer.address);
    matches!(address, Some(Err(Reason::PeerShutDown | Reason::PeerShutByOperator | Reason::NoOtherGateway)))
}

/// Established sessions whose link carries nothing now. Routers end such a session at once, and with it the routes; a switch between
/// may hide it from them, so this end lets the hold time decide.
fn sessions_without_carrier(snapshot: &Snapshot) -> Vec<String> {
    let of_peer = |name: &PeerName| {
        let session = snapshot.session(name).filter(|session| session.state == SessionState::Established)?;
        let local = session.local_address?;
        let has_it = |link: &&Link| link.addresses.iter().any(|net| net.addr() == local);
        let links: Vec<&Link> = snapshot.world.links.values().filter(has_it).collect();
        let carries = |link: &Link| link.loopback || (link.up && link.carrier);
        let first = links.first().filter(|_| !links.iter().any(|link| carries(link)))?;
        let link = &first.name;
        let (what, remedy) = match first.up {
            true => ("has no carrier", "look at the cable and at the port of the switch".to_owned()),
            false => ("is set down", format!("set it up: ip link set {link} up")),
        };
        Some(format!(
            "peer {name}: its link {link} {what}: the router may have dropped the session and the routes already, and here it ends with \
             its hold time; {remedy}"
        ))
    };
    snapshot.plan.bgp.peers.keys().filter_map(of_peer).collect()
}

/// Established sessions with next hops that the default route has lost for good: nothing is sent by them, and no session follows the one
/// that stands.
fn sessions_without_next_hop(snapshot: &Snapshot) -> Vec<String> {
    let of_peer = |(name, peer): (&PeerName, &PeerSlice)| {
        let dropped = reach::dropped_next_hop(peer, &snapshot.world)?;
        let stands = snapshot.world.sessions.get(name).is_some_and(|it| it.state == SessionState::Established);
        stands.then(|| format!("peer {name}: the session is up, but a new one could not be opened: {dropped}"))
    };
    snapshot.plan.bgp.peers.iter().filter_map(of_peer).collect()
}

/// Sessions that go on although the file of their password or key is missing.
fn without_secret(snapshot: &Snapshot) -> Vec<String> {
    let of_peer = |(name, peer): (&PeerName, &PeerSlice)| {
        let own = snapshot.context.bgp.peer_of(name);
        let settings = snapshot.config.bgp.peers.iter().find(|it| it.name == own)?;
        let stands = snapshot.world.sessions.get(name).is_some_and(|it| it.state == SessionState::Established);
        let path = peer.address.as_ref().ok().filter(|_| stands).and_then(|_| snapshot.config.lacking_of(settings))?;
        Some(format!(
            "peer {name}: the secret {} is missing: the session goes on with the key that its connection has, and no new one can be \
             opened; create the file with mode 0600, then run `systemctl reload crier`",
            path.display()
        ))
    };
    snapshot.plan.bgp.peers.iter().filter_map(of_peer).collect()
}

/// What nothing on the wire tells of a peer that is behind a router, while only the link is reached: packets end at the first hop.
fn beyond_the_link(snapshot: &Snapshot, peer: &PeerName) -> &'static str {
    let state = snapshot.session(peer).map_or(SessionState::Idle, |session| session.state);
    let is_dialled = matches!(state, SessionState::Idle | SessionState::Connect | SessionState::Active);
    let slice = snapshot.plan.bgp.peers.get(peer).filter(|_| is_dialled);
    let Some(ScopedAddress { ip, interface: None }) = slice.and_then(|slice| slice.address.as_ref().ok()) else {
        return "";
    };
    let name = snapshot.context.bgp.peer_of(peer);
    let settings = snapshot.config.bgp.peers.iter().find(|it| it.name == name);
    let is_near = settings.is_some_and(|it| it.multihop == 1 && !it.passive);
    let is_on_link = || snapshot.world.links.values().flat_map(|link| &link.addresses).any(|net| net.contains(ip));
    if !is_near || is_on_link() {
        return "";
    }
    "; no link of this node has its subnet, and with multihop = 1 no packet passes a router: where one is between, write multihop = 255"
}

fn of_peer(peer: &PeerReport, peers: &[PeerReport]) -> Option<String> {
    if peer.state != SessionState::Established {
        let why = peer.last_error.as_deref().unwrap_or(awaited(peer.state, peer.security.ttl_security));
        return Some(format!("peer {} ({}): {:?}: {why}", peer.name, peer.address, peer.state));
    }
    if let Some(refused) = peer.session.refused {
        let why = peer.security.refused(refused);
        return Some(format!(
            "peer {}: nothing is heard from it, and the session ends with its hold time: {why}",
            peer.name
        ));
    }
    if let Some(since) = peer.session.reads_nothing_since {
        let waiting = match peer.session.prefixes_pending {
            0 => "its last routes are pending".to_owned(),
            1 => "one route is pending".to_owned(),
            routes => format!("{routes} routes are pending"),
        };
        return Some(format!(
            "peer {} has not read from its session since {}: {waiting}, and it still uses the routes that it had; check the load of the \
             router's control plane. The session ends after eight minutes without progress, or two hold times if that is longer (RFC \
             9687); `crier bgp reset {0}` restarts it now",
            peer.name,
            since.strftime("%H:%M:%SZ")
        ));
    }
    let told = peer.session.unsendable.iter().filter(|it| !travels_beside(peer, peers, it.family));
    let reasons: Vec<String> = told.map(|it| format!("{} because {}", it.prefixes, it.reason)).collect();
    (!reasons.is_empty()).then(|| format!("peer {}: prefixes not announced: {}", peer.name, reasons.join("; ")))
}

/// What a session that was never established waits for.
fn awaited(state: SessionState, ttl_security: bool) -> &'static str {
    match state {
        SessionState::OpenSent if ttl_security => {
            "no session yet: the peer has taken the connection and has not sent its OPEN; is this node one of its neighbors? With \
             ttl-security, what comes with a TTL below 255 is dropped: does the peer have it too (GTSM, RFC 5082)?"
        }
        SessionState::OpenSent => {
            "no session yet: the peer has taken the connection and has not sent its OPEN; is this node one of its neighbors?"
        }
        SessionState::OpenConfirm => "no session yet: the KEEPALIVE with which the peer takes our OPEN is awaited",
        SessionState::Idle | SessionState::Connect | SessionState::Active | SessionState::Established => {
            "no session yet"
        }
    }
}

/// The session does not carry this family, and another session with the same router does, as where each family has its own. A session of our family is with another router that has the same identifier by mistake.
fn travels_beside(peer: &PeerReport, peers: &[PeerReport], family: Option<Family>) -> bool {
    let (Some(ours), Some(family)) = (&peer.session.negotiated, family) else { return false };
    let runs_over = |peer: &PeerReport| peer.local_address.map(Family::of);
    let is_other = |it: &&PeerReport| it.state == SessionState::Established && runs_over(it) != runs_over(peer);
    let sessions = peers.iter().filter(is_other);
    let mut with_router = sessions
        .filter_map(|it| it.session.negotiated.as_ref())
        .filter(|it| (it.peer_asn, it.peer_router_id) == (ours.peer_asn, ours.peer_router_id));
    with_router.any(|it| it.families.iter().any(|it| it.family == family && it.next_hop.is_some()))
}

fn disputes(snapshot: &Snapshot) -> Vec<String> {
    let of_route = |((peer, prefix), all): (&(PeerName, IpNet), &Arc<Vec<Disagreement>>)| {
        let in_words = |Disagreement { key, kept, ignored }: &Disagreement| {
            format!(
                "{prefix} to peer {peer}: advertisements disagree about {key}: {kept} is announced, {ignored} is not"
            )
        };
        all.iter().map(in_words).collect::<Vec<_>>()
    };
    snapshot.plan.disputes.iter().flat_map(of_route).collect()
}

/// The pools whose addresses lie below the prefix of a link that has none.
fn without_prefix(snapshot: &Snapshot) -> Vec<String> {
    let is_told = |pool: &Pool| pool.prefix_of.as_ref().is_some_and(|it| snapshot.plan.prefixes_away.contains_key(it));
    let waiting = snapshot.config.pools.iter().filter(|pool| pool.awaits_prefix() && !is_told(pool));
    let in_words = |pool: &Pool| {
        let link = pool.prefix_of.as_ref().map_or("", |link| link.as_str());
        format!(
            "[[pool]] {}: the link {link} of this node has no IPv6 prefix (/64 or shorter), so none of its IPv6 addresses is given: \
             check router advertisements there, or prefix-of",
            pool.name
        )
    };
    waiting.map(in_words).collect()
}

/// The prefixes that addresses of Services lie below, and that this node's links do not have.
fn prefixes_away(snapshot: &Snapshot) -> Vec<String> {
    let in_words = |(link, away): (&InterfaceName, &Away)| match away {
        Away::Elsewhere { prefix, node } => format!(
            "the link {link} of this node has no lasting address below {prefix}/64, which addresses of Services lie below (prefix-of) and \
             {node} has: the Services keep them; check router advertisements and addresses of {link} here"
        ),
        Away::Unknown { prefix, instead, nodes, until } => {
            let at = snapshot.timestamp(*until).map(|at| at.strftime("%H:%M:%SZ").to_string()).unwrap_or_default();
            format!(
                "the link {link} of this node, which allocates, has no address below {prefix}/64 any more, which addresses of Services lie \
                 below (prefix-of), and nothing tells whether {} have one: no IPv6 address is given; at {at} the Services begin to move \
                 to {instead}/64. If {prefix}/64 is not gone, put it back on {link}, or start the agents of the other nodes",
                some_of(nodes)
            )
        }
    };
    snapshot.plan.prefixes_away.iter().map(in_words).collect()
}

/// The `[[l2]]` whose nodes this node is one of, and for which it has no link.
fn without_link(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, context, node, world, .. } = snapshot;
    let selected = |l2: &L2| match world.nodes.get(node) {
        Some(node) => elect::weight(l2, &node.labels).is_some(),
        None => config.is_standalone() && l2.nodes.is_none(),
    };
    let without = |(l2, context): &(&L2, &L2Context)| {
        context.interfaces.is_empty() && context.lacks_socket().is_none() && selected(l2)
    };
    let in_words = |(l2, _): (&L2, &L2Context)| {
        let pools: Vec<&str> = l2.pools.iter().map(|pool| pool.as_str()).collect();
        let pools = if pools.is_empty() { "all pools".to_owned() } else { format!("pools {}", pools.join(", ")) };
        format!(
            "[[l2]] of {pools}: this node has no usable link ({}), so it answers for none of their addresses: set interfaces, or \
             leave the node out with nodes",
            describe_interfaces(l2)
        )
    };
    config.l2.iter().zip(&context.l2).filter(without).map(in_words).collect()
}

/// The links whose ends receive nothing, as this node or others say of themselves.
fn receiving_nothing(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { node: me, world, .. } = snapshot;
    let of_link = |(index, roster): (&u32, &Arc<Roster>)| {
        let link = world.links.get(index).map_or_else(|| index.to_string(), |link| link.name.to_string());
        let in_words = |node: &NodeName| {
            if node == me {
                format!(
                    "no frames are received on {link}: this node is alone there, or other nodes take over its addresses; check the cable, \
                     the switch port and the network card: ip -s link show {link}"
                )
            } else {
                format!(
                    "{node} reports that it receives no frames on {link}: other nodes take over its addresses there; check the cable, the \
                     switch port and the network card of {node}"
                )
            }
        };
        // Alone from the beginning it misses nobody.
        let numb = roster.receive_nothing.iter().filter(|node| *node != me || !roster.silent.is_empty());
        numb.map(in_words).collect::<Vec<_>>()
    };
    world.rosters.iter().flat_map(of_link).collect()
}

/// The links where this node answers for nothing because no socket for ARP and NDP can be opened.
fn without_socket(snapshot: &Snapshot) -> Vec<String> {
    let all = snapshot.world.without_socket.iter();
    let in_words = |(link, why): (&InterfaceName, &String)| {
        format!(
            "this node answers for no address on {link}: no socket for ARP and NDP can be opened there ({why}); give the agent CAP_NET_RAW \
             (CapabilityBoundingSet= of the unit, capabilities of the container), and room for open files, threads and memory (LimitNOFILE=, \
             TasksMax=); it is tried again all the time"
        )
    };
    all.map(in_words).collect()
}

/// The links where this node would answer for IPv6 addresses of Services, and takes no IPv6.
fn without_v6(snapshot: &Snapshot) -> Option<String> {
    let announcements = || snapshot.plan.decisions.values().flat_map(|decision| &decision.announcements);
    let is_covered = |l2: &L2| {
        let of_pool = |it: &&Announcement| l2.pools.is_empty() || l2.pools.contains(&it.pool);
        announcements().filter(of_pool).any(|it| it.address.is_ipv6())
    };
    let covering = snapshot.config.l2.iter().zip(&snapshot.context.l2).filter(|(l2, _)| is_covered(l2));
    let links: BTreeSet<&str> =
        covering.flat_map(|(_, context)| context.without_v6()).map(InterfaceName::as_str).collect();
    (!links.is_empty()).then(|| {
        format!(
            "this node answers for no IPv6 address on {}, which has no usable IPv6 address: IPv6 is switched off there, or the link-local \
             address is missing or a duplicate (ip -6 address; sysctl net.ipv6.conf.all.disable_ipv6)",
            links.into_iter().collect::<Vec<_>>().join(", ")
        )
    })
}

/// The links without any IPv4 address where this node would answer for IPv4 addresses of Services, or does.
fn without_v4(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { config, context, plan, world, .. } = snapshot;
    let announced = || plan.decisions.values().flat_map(|decision| &decision.announcements);
    let is_covered = |l2: &L2| {
        let of_pool = |it: &&Announcement| l2.pools.is_empty() || l2.pools.contains(&it.pool);
        announced().filter(of_pool).any(|it| it.address.is_ipv4())
    };
    let given_way = |(l2, _): &(&L2, &L2Context)| l2.subnet == Subnet::Prefer && is_covered(l2);
    let of_l2 = config.l2.iter().zip(&context.l2).filter(given_way);
    let left: BTreeSet<&InterfaceName> = of_l2.flat_map(|(_, context)| context.without_v4()).collect();
    let answers_on = |link: &Link| {
        let answered =
            plan.l2.addresses.iter().filter(|(address, links)| address.is_ipv4() && links.contains(&link.name));
        answered.count()
    };
    let has_way = |link: &Link| {
        link.addresses.iter().any(|net| net.addr().is_ipv4())
            || world.default_routes.iter().any(|it| it.family == Family::V4 && it.link == link.index)
    };
    let leads_nowhere = world.links.values().filter(|link| !has_way(link) && !left.contains(&link.name));
    let leads_nowhere = leads_nowhere.map(|link| (link, answers_on(link))).filter(|(_, count)| *count > 0);
    let given = left.iter().map(|link| {
        format!(
            "this node answers for no IPv4 address on {link}, which has no IPv4 address while other nodes have one there: look at: ip -4 \
             address"
        )
    });
    let kept = leads_nowhere.map(|(Link { name, .. }, count)| {
        format!(
            "this node answers for IPv4 addresses on {name} ({count}), which has no IPv4 address and no default route, and it knows of no \
             other node that has one there: clients get a reply only if another route leads to them; look at: ip -4 address; ip -4 route"
        )
    });
    given.chain(kept).collect()
}

/// That the networks of Services are not shown, where something goes by them.
fn unseen_networks(snapshot: &Snapshot) -> Option<String> {
    let Snapshot { config, world, plan, .. } = snapshot;
    let why = world.service_cidrs_unseen.as_ref()?;
    let matters = !config.vrfs.is_empty() || plan.decisions.values().any(|decision| decision.egress.is_some());
    matters.then(|| {
        format!(
            "the ServiceCIDRs of the cluster are not shown to crier, so packets of pods to addresses of Services may be taken for \
             packets to the outside: apply the objects of `crier rbac` again, or name the networks in [egress] \
             cluster-networks: {why}"
        )
    })
}

/// Each fault with what it costs and what to do.
fn of_data_path(snapshot: &Snapshot) -> Option<String> {
    let Snapshot { config, world, .. } = snapshot;
    let path = &world.data_path;
    let fault = path.fault()?;
    let remedy = match fault {
        PathFault::NotAsked { .. } | PathFault::WasBad => return None,
        PathFault::Unhealthy { .. } | PathFault::Silent { .. } | PathFault::Flaps { .. } | PathFault::RulesNotSeen => {
            "see kube-proxy's log on this node"
        }
        PathFault::RulesGone { .. } => "restart kube-proxy on this node; did a firewall flush its rules?",
        PathFault::ProxyGone | PathFault::ProxyNotStarted => {
            "start kube-proxy on this node, or set [node] data-path = \"node-ready\" if it was removed"
        }
        PathFault::NodeNotTold if !matches!(world.api_server, ApiServer::Reachable) || !world.listed.nodes => {
            "it will be known when the API server answers this agent"
        }
        PathFault::NodeNotTold | PathFault::NodeNotReady | PathFault::OtherBoot => "see the kubelet's log on this node",
    };
    let cost = match path.serving() {
        Serving::Yes => return None,
        Serving::Lost if world.pulses == Pulses::Off && !config.l2.is_empty() => {
            "this node goes on answering on the link, for without [pulse] no other node would take over"
        }
        Serving::Lost => "this node gives way to nodes that serve",
        Serving::NotSinceBoot => "this node announces nothing until the data path was seen good once since the boot",
    };
    Some(format!("the data path: {fault}; {cost}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::roster::{Card, Member, Roster};
    use crate::views::Counters;
    use crate::world::{ClientCertificate, Condition, Drain, Fact, Listing, Refusal, Service, SessionReport};

    /// Input: the link of an established session loses its carrier; its address is on the loopback too, or is not.
    #[test]
    fn an_established_session_whose_link_has_no_carrier_is_a_problem() {
        const FILE: &str = "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n\
                            [[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n";
        let told = |carrier: bool, on_loopback: bool, state: SessionState| {
            let file = SourceFile { path: "test.toml".to_owned(), text: FILE.to_owned() };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            let eth0 = Link { carrier, ..Link::carrying(2, "eth0", &["10.0.0.11/24"]) };
            let nets: &[&str] = if on_loopback { &["10.0.0.11/32"] } else { &[] };
            let lo = Link { loopback: true, ..Link::carrying(1, "lo", nets) };
            let mut session = SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH);
            session.local_address = Some("10.0.0.11".parse().unwrap());
            for fact in [
                Fact::Link(1, Some(lo)),
                Fact::Link(2, Some(eth0)),
                Fact::LinksListed,
                Fact::Session("tor".into(), session),
                Fact::FailStatic,
            ] {
                planner.apply(fact);
            }
            let now = clock::now();
            planner.turn(now);
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, clock::wall());
            sessions_without_carrier(&snapshot)
        };
        let lost = told(false, false, SessionState::Established);
        assert!(lost.len() == 1 && lost[0].starts_with("peer tor: its link eth0 has no carrier: "), "{lost:?}");
        assert_eq!(told(true, false, SessionState::Established), [""; 0]);
        assert_eq!(told(false, true, SessionState::Established), [""; 0], "it may go another way");
        assert_eq!(told(false, false, SessionState::Active), [""; 0]);
    }

    /// Input: a router behind another one, and one on the link; with multihop, and passive.
    #[test]
    fn a_peer_that_no_link_reaches_is_told_with_its_remedy() {
        let told = |address: &str, more: &str, state: SessionState| {
            let text = format!(
                "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"rs\"\naddress = \"{address}\"\n\
                 asn = 64512\n{more}"
            );
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            for fact in [
                Fact::Link(2, Some(Link::carrying(2, "eth0", &["10.0.0.11/24"]))),
                Fact::LinksListed,
                Fact::Session("rs".into(), SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH)),
                Fact::FailStatic,
            ] {
                planner.apply(fact);
            }
            let now = clock::now();
            planner.turn(now);
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, clock::wall());
            let peers = crate::views::bgp::peers(&snapshot, &Default::default()).unwrap().peers;
            let all = problems(&snapshot, &[], &peers);
            all.into_iter().filter(|it| it.starts_with("peer rs (")).any(|it| it.contains("write multihop = 255"))
        };
        assert!(told("10.99.0.1", "", SessionState::Connect));
        assert!(!told("10.0.0.1", "", SessionState::Connect), "it is on the link");
        assert!(!told("10.99.0.1", "multihop = 2\n", SessionState::Connect));
        assert!(!told("10.99.0.1", "passive = true\n", SessionState::Active), "it dials");
        assert!(!told("10.99.0.1", "", SessionState::OpenSent), "it was reached");
    }

    /// Input: two gateways whose sessions go on without the password file, and one of the sessions ends.
    #[test]
    fn only_a_session_that_stands_is_said_to_go_on_without_its_secret() {
        const FILE: &str = "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n\
                            [[bgp.peer]]\nname = \"tor\"\naddress = \"gateway\"\nasn = 64512\n";
        let told = |further: SessionState| {
            let file = SourceFile { path: "test.toml".to_owned(), text: FILE.to_owned() };
            let mut config = parse(&[file], &NoSecrets).unwrap();
            let password = crate::config::SecretFile { path: Some("/etc/tor.key".into()), secret: b""[..].into() };
            config.bgp.peers.iter_mut().for_each(|peer| peer.password = Some(password.clone()));
            let mut planner = Planner::new(Arc::new(config), "node-1".into());
            let session = |name: &str, at: &str, state: SessionState| {
                let mut report = SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH);
                report.detail.address =
                    Some(crate::address::ScopedAddress { ip: at.parse().unwrap(), interface: None });
                Fact::Session(name.into(), report)
            };
            let routes = ["10.0.0.1", "10.0.0.2"].map(|gateway| crate::world::DefaultRoute::via(gateway, 2, 7));
            for fact in [
                Fact::Link(2, Some(Link::carrying(2, "eth0", &["10.0.0.11/24"]))),
                Fact::DefaultRoutes(routes.to_vec()),
                session("tor", "10.0.0.1", SessionState::Established),
                session("tor@10.0.0.2", "10.0.0.2", SessionState::Established),
                Fact::LinksListed,
                Fact::FailStatic,
            ] {
                planner.apply(fact);
            }
            planner.turn(clock::now());
            planner.apply(session("tor@10.0.0.2", "10.0.0.2", further));
            planner.turn(clock::now());
            let snapshot =
                Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall());
            let where_it_is =
                snapshot.plan.bgp.peers.get(&PeerName::from("tor@10.0.0.2")).expect("it is known").address.clone();
            (where_it_is.err().map(|why| why.code().to_owned()), without_secret(&snapshot).len())
        };
        assert_eq!(told(SessionState::Established), (None, 2));
        assert_eq!(told(SessionState::Active), (Some("secret-missing".to_owned()), 1));
    }

    /// Input: a node without state has left a class, or lacks the ConfigMap's text; a Service shows what this crier
    /// gave it of a pool that the node knows nothing of. Output: that the node does not announce it is told. Nothing was.
    #[test]
    fn what_nobody_announces_of_pools_that_a_node_does_not_remember_is_told() {
        let said = |keys: &str, state: ClusterConfig, address: &str| {
            let text = format!(
                "[kubernetes]\nin-cluster = true\n{keys}[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.0/28\"]\n[[l2]]\n"
            );
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let config = Arc::new(parse(&[file], &NoSecrets).unwrap());
            let Source::Kubernetes(Kubernetes { lease, .. }) = &config.source else { panic!("it is Kubernetes") };
            let address: IpAddr = address.parse().unwrap();
            let condition = Condition::given(true, "assigned", &[address], &["gone".into()], None).by(lease);
            let condition = Some(Arc::new(condition));
            let service = Service { condition, ingress: vec![address], load_balancer: true, ..Service::default() };
            let mut planner = Planner::new(config.clone(), "node-1".into());
            planner.apply(Fact::Service(ObjectKey::new("shop", "web"), Some(Arc::new(service))));
            planner.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["192.0.2.2/24"]))));
            planner.apply(Fact::LinksListed);
            planner.apply(Fact::FailStatic);
            planner.apply(Fact::ClusterConfig(state, Arc::default()));
            let now = clock::now();
            planner.turn(now);
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, clock::wall());
            [of_cluster_config(&snapshot), of_nobody(&snapshot)].map(Option::unwrap_or_default)
        };
        let (left, with) = ("class = \"a/b\"\ndefault-class = false\n", "config = \"kube-system/crier\"\n");
        let lacks = "announces nothing of what crier gave to shop/web";
        let [of_config, more] = said(with, ClusterConfig::Missing, "198.51.100.9");
        assert!(of_config.contains(lacks) && more.is_empty(), "{of_config} {more}");
        let [of_config, _] = said(with, ClusterConfig::Missing, "192.0.2.1");
        assert!(!of_config.contains(lacks), "a pool of the host has it: {of_config}");
        let [_, of_left] = said(left, ClusterConfig::NotUsed, "198.51.100.9");
        assert!(of_left.starts_with("shop/web: ") && of_left.contains("does not announce it"), "{of_left}");
        for keys in ["", left] {
            assert_eq!(said(keys, ClusterConfig::NotUsed, "192.0.2.1")[1], "", "it is announced");
        }
    }

    /// Input: the class of the file, and the Lease with it, is another one; a node without its former state sees a Service that
    /// the crier of the former Lease gave an address of the pool that the file has still. Output: that nobody may announce it is told, with
    /// the setting that has it announced; not while an agent of that Lease is heard, nor of a pool of another name.
    #[test]
    fn what_a_crier_of_a_former_lease_gave_is_told_where_a_node_does_not_remember_that_lease() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let said = |keys: &str, pool: &str, heard: bool| {
            let text = format!(
                "[kubernetes]\nin-cluster = true\nclass = \"a/b\"\ndefault-class = false\n{keys}[[pool]]\nname = \"lan\"\n\
                 addresses = [\"192.0.2.0/28\"]\n[[l2]]\n"
            );
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let config = Arc::new(parse(&[file], &NoSecrets).unwrap());
            let condition = Some(Arc::new(Condition::given(true, "assigned", &[address], &[pool.into()], None)));
            let service = Service { condition, ingress: vec![address], load_balancer: true, ..Service::default() };
            let mut planner = Planner::new(config, "node-1".into());
            planner.apply(Fact::Service(ObjectKey::new("shop", "web"), Some(Arc::new(service))));
            planner.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["192.0.2.2/24"]))));
            planner.apply(Fact::LinksListed);
            planner.apply(Fact::FailStatic);
            if heard {
                let lease = Some(lease_digest(Condition::DEFAULT_LEASE));
                let member = Member {
                    card: Arc::new(Card { lease, ..Card::default() }),
                    ..Member::eligible("02:00:00:00:00:02".parse().unwrap())
                };
                let roster = Roster { members: [("node-2".into(), member)].into(), ..Roster::default() };
                planner.apply(Fact::Roster(2, Some(Arc::new(roster))));
            }
            planner.turn(clock::now());
            let (now, wall) = (clock::now(), clock::wall());
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            let announced = snapshot.plan.decisions[&ObjectKey::new("shop", "web")].allocation.held.len();
            (of_unheard_crier(&snapshot), announced)
        };
        let (told, announced) = said("", "lan", false);
        assert!(
            matches!(&told[..], [it] if it.starts_with("shop/web: ") && it.contains("lease = \"kube-system/crier\""))
        );
        assert_eq!(announced, 0);
        let remedy = said("lease = \"kube-system/crier\"\n", "lan", false);
        assert_eq!(remedy, (Vec::new(), 1), "what it says to do has it announced");
        assert!(said("", "lan", true).0.is_empty(), "that crier is there");
        assert!(said("", "other", false).0.is_empty(), "it is of a pool that this file has not");
    }

    #[test]
    fn a_peer_that_sends_no_open_may_lack_gtsm() {
        assert!(awaited(SessionState::OpenSent, true).contains("GTSM"));
        assert!(!awaited(SessionState::OpenSent, false).contains("GTSM"));
    }

    /// A peer whose router has this identifier, and whose session runs over this address and carries IPv6 or does not.
    fn peer(name: &str, router_id: &str, local: &str, carries_v6: bool) -> PeerReport {
        let why = "IPv6 unicast is not among the families that both sides offered";
        let report = json!({
            "name": name, "address": "192.0.2.1", "asn": 64512, "local_asn": 64513, "state": "Established", "since": null,
            "local_address": local, "hold_time_secs": 90, "prefixes_wanted": 2, "prefixes_sent": 1, "prefixes_unsendable": 1,
            "prefixes_received": 0, "last_error": null, "security": {},
            "session": {
                "unsendable": if carries_v6 { json!([]) } else { json!([{ "family": "IPv6", "reason": why, "prefixes": 1 }]) },
                "negotiated": {
                    "local": "192.0.2.2:179", "remote": null, "local_asn": 64513, "peer_asn": 64512, "local_router_id": "192.0.2.2",
                    "peer_router_id": router_id, "hold_time_secs": 90, "keepalive_time_millis": 30000, "max_message_len": 4096,
                    "families": [{
                        "family": "IPv6",
                        "next_hop": if carries_v6 { json!("2001:db8::2") } else { json!(null) },
                        "unsendable": if carries_v6 { json!(null) } else { json!(why) },
                    }],
                    "capabilities": { "sent": [], "received": [], "negotiated": [] },
                },
            },
        });
        serde_json::from_value(report).expect("the report of a peer")
    }

    #[test]
    fn what_a_session_does_not_carry_is_told_with_its_reason_unless_another_one_with_the_same_router_does() {
        let told = Some(
            "peer tor: prefixes not announced: 1 because IPv6 unicast is not among the families that both sides offered".to_owned(),
        );
        let (v4, v6) = ("192.0.2.2", "2001:db8::2");
        let (other, twin) = (peer("tor-2", "192.0.2.9", v6, true), peer("tor-2", "192.0.2.1", v4, true));
        let (v4, v6) = (peer("tor", "192.0.2.1", v4, false), peer("tor-v6", "192.0.2.1", v6, true));
        assert_eq!(of_peer(&v4, std::slice::from_ref(&v4)), told);
        assert_eq!(of_peer(&v4, &[v4.clone(), v6.clone()]), None);
        assert_eq!(of_peer(&v4, &[v4.clone(), other]), told, "that is another router");
        assert_eq!(
            of_peer(&v4, &[v4.clone(), twin]),
            told,
            "that is another router, with the same identifier by mistake"
        );
        let broken = PeerReport { state: SessionState::Active, ..v6 };
        assert_eq!(of_peer(&v4, &[v4.clone(), broken]), told, "nothing travels there now");
    }

    /// Input: the API server answers 403, or does not answer. Output: the refusal with its remedy, or the absence.
    #[test]
    fn a_right_that_is_missing_is_told_as_such_with_its_remedy() {
        let said = |why: &str, refusal| {
            let file =
                SourceFile { path: "test.toml".to_owned(), text: "[kubernetes]\nin-cluster = true\n".to_owned() };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            let since = std::time::SystemTime::UNIX_EPOCH;
            planner.apply(Fact::ApiServer(ApiServer::Unreachable { since, why: why.to_owned(), refusal }));
            let (now, wall) = (clock::now(), clock::wall());
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            (
                crate::views::status::status(&snapshot).api_server.state,
                of_api_server(&snapshot).expect("it is a problem"),
            )
        };
        let (state, problem) = said("endpointslices: 403 forbidden", Refusal::Forbidden);
        assert_eq!(state, "forbidden");
        assert!(!problem.contains("unreachable"), "{problem}");
        for word in ["the API server refuses", "endpointslices: 403 forbidden", "`crier rbac`"] {
            assert!(problem.contains(word), "{word} in: {problem}");
        }
        // Rights were named as the remedy.
        let anonymous =
            "services: 403 services is forbidden: User \"system:anonymous\" cannot list resource \"services\"";
        let (_, problem) = said(anonymous, Refusal::Anonymous);
        assert!(!problem.contains("crier rbac"), "{problem}");
        for word in ["does not see who asks", "system:anonymous", "credentials of the kubeconfig do not reach it"] {
            assert!(problem.contains(word), "{word} in: {problem}");
        }
        // It was called unreachable.
        let (state, problem) = said("nodes: 401 Unauthorized", Refusal::Unauthorized);
        assert_eq!(state, "unauthorized", "it answers");
        assert!(!problem.contains("unreachable"), "{problem}");
        for word in ["refuses the credentials", "nodes: 401 Unauthorized", "client certificate", "token"] {
            assert!(problem.contains(word), "{word} in: {problem}");
        }
        let (state, problem) = said("nodes: timed out", Refusal::NoAnswer);
        assert_eq!(state, "unreachable");
        assert!(problem.starts_with("API server unreachable, and no earlier state is known, so "), "{problem}");
    }

    /// Input: a Service that is to be on a Node, which goes; and a drain whose file is damaged.
    #[test]
    fn a_service_on_a_node_that_is_none_and_a_drain_that_cannot_be_read_are_problems() {
        let file = SourceFile { path: "test.toml".to_owned(), text: "[kubernetes]\nin-cluster = true\n".to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "n1".into());
        let service = Service { load_balancer: true, node: Some("n9".into()), ..Service::default() };
        planner.apply(Fact::Service(crate::names::ObjectKey::new("shop", "web"), Some(Arc::new(service))));
        planner.apply(Fact::LinksListed);
        planner.apply(Fact::FailStatic);
        let mut said = |fact: Fact| {
            planner.apply(fact);
            planner.turn(clock::now());
            let (now, wall) = (clock::now(), clock::wall());
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            let problems = problems(&snapshot, &[], &[]);
            problems.into_iter().filter(|it| it.contains("n9") || it.contains("drain.json")).collect::<Vec<_>>()
        };
        for name in ["n1", "n9"] {
            assert_eq!(said(Fact::Node(name.into(), Some(Arc::default()))), [""; 0]);
        }
        let all = ["n1", "n9"].map(crate::names::NodeName::from).into();
        assert_eq!(said(Fact::Listed(Listing::Nodes(all))), [""; 0]);
        let told = said(Fact::Node("n9".into(), None));
        assert!(matches!(&told[..], [it] if it.starts_with("shop/web: ") && it.contains("no such Node")), "{told:?}");
        let drain = Drain {
            stage: crate::world::DrainStage::Drained,
            ordered: Ordered::Unreadable { file: "/var/lib/crier/drain.json".into(), why: "expected value".to_owned() },
            since: jiff::Timestamp::UNIX_EPOCH,
            until: jiff::Timestamp::UNIX_EPOCH,
            timed_out: false,
        };
        let reason = Some("as if drain.json cannot be read: by an operator".to_owned());
        let by_operator = Drain { ordered: Ordered::Operator { reason, forced: false }, ..drain.clone() };
        let told = said(Fact::Drain(Some(Arc::new(by_operator))));
        assert!(!told.iter().any(|it| it.contains("drain.json")), "what an operator says is no damage: {told:?}");
        let told = said(Fact::Drain(Some(Arc::new(drain))));
        assert!(
            told.iter().any(|it| it.contains("/var/lib/crier/drain.json") && it.contains("`crier undrain`")),
            "{told:?}"
        );
    }

    /// Input: a pool of one address; seven Services wait for another, or eight do. Output: each is named; all of them in one problem.
    #[test]
    fn what_is_the_matter_with_many_services_is_one_problem() {
        for (waiting, lines) in [(7, 7), (8, 1), (300, 1)] {
            let text = "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.0.2.1\"]\n";
            let file = SourceFile { path: "test.toml".to_owned(), text: text.to_owned() };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            for number in 0..=waiting {
                let service = Service { load_balancer: true, ..Service::default() };
                planner.apply(Fact::Service(ObjectKey::new("shop", &format!("s{number:03}")), Some(Arc::new(service))));
            }
            planner.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["192.0.2.2/24"]))));
            planner.apply(Fact::LinksListed);
            planner.apply(Fact::FailStatic);
            let (now, wall) = (clock::now(), clock::wall());
            planner.turn(now);
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            let problems = crate::views::status::status(&snapshot).problems;
            let of_pool: Vec<_> = problems.iter().filter(|it| it.contains("no free IPv4 address")).collect();
            assert_eq!(of_pool.len(), lines, "{problems:#?}");
            if lines == 1 {
                let more = format!(" and {} more: no free IPv4 address", waiting - 4);
                assert!(of_pool[0].contains(&more), "{more} in: {}", of_pool[0]);
            }
        }
    }

    /// Input: six writes were under way when the API server went, and a seventh is forbidden. Output: two problems.
    #[test]
    fn writes_that_fail_alike_are_one_problem() {
        let file = SourceFile { path: "test.toml".to_owned(), text: "[kubernetes]\nin-cluster = true\n".to_owned() };
        let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
        let key = |name: &str| ObjectKey::new("shop", name);
        for name in ["a", "b", "c", "d", "e", "f"] {
            planner.apply(Fact::StatusRefused(key(name), "no answer in 8 s".to_owned()));
        }
        planner.apply(Fact::StatusRefused(key("g"), "403 forbidden".to_owned()));
        let (now, wall) = (clock::now(), clock::wall());
        let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
        let problems = problems(&snapshot, &[], &[]);
        let of_writes: Vec<_> = problems.iter().filter(|it| it.contains("status not written")).collect();
        assert_eq!(
            of_writes,
            [
                "shop/g: status not written: 403 forbidden",
                "shop/a, shop/b, shop/c, shop/d and 2 more: status not written: no answer in 8 s"
            ]
        );
    }

    /// Input: an agent without a state folder, and one that remembers a Node, at a boot without the API server. Output: only the
    /// second one says that it acts on what it remembers.
    #[test]
    fn an_agent_that_remembers_nothing_does_not_say_that_it_acts_on_that() {
        let said = |remembered: &[Fact]| {
            let file =
                SourceFile { path: "test.toml".to_owned(), text: "[kubernetes]\nin-cluster = true\n".to_owned() };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            remembered.iter().for_each(|fact| planner.apply(fact.clone()));
            let (since, why) = (std::time::SystemTime::UNIX_EPOCH, "nodes: 403 forbidden".to_owned());
            planner.apply(Fact::ApiServer(ApiServer::Unreachable { since, why, refusal: Refusal::Forbidden }));
            planner.apply(Fact::FailStatic);
            let (now, wall) = (clock::now(), clock::wall());
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall);
            let problem = of_api_server(&snapshot).expect("it is a problem");
            (crate::views::status::status(&snapshot).fail_static, problem.contains("the last known state stays in use"))
        };
        assert_eq!(said(&[]), (false, false));
        assert_eq!(said(&[Fact::Node("n2".into(), Some(Arc::default()))]), (true, true));
    }

    /// Input: a client certificate that ended yesterday, ends within a week, or later, and an API server that answers, or says
    /// 401. Output: one problem with its name and its date, unless it is good for longer; what refuses a good one is another cause.
    #[test]
    fn a_client_certificate_that_ends_is_told_by_name_with_its_date() {
        let at = |day: u64| std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(day * 86_400);
        let said = |today: u64, refused: bool| {
            let file =
                SourceFile { path: "test.toml".to_owned(), text: "[kubernetes]\nin-cluster = true\n".to_owned() };
            let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
            let certificate = ClientCertificate { place: "/pki/c.crt".to_owned(), begins: at(0), ends: at(365) };
            planner.apply(Fact::ClientCertificate(Some(certificate)));
            let why = "nodes: 401 Unauthorized".to_owned();
            let api_server = match refused {
                true => ApiServer::Unreachable { since: at(0), why, refusal: Refusal::Unauthorized },
                false => ApiServer::Reachable,
            };
            planner.apply(Fact::ApiServer(api_server));
            let counters = Counters::default();
            let snapshot = Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, counters, clock::now(), at(today));
            let problems = problems(&snapshot, &[], &[]);
            problems.into_iter().filter(|it| it.contains("/pki/c.crt")).collect::<Vec<_>>()
        };
        assert_eq!(said(300, false), [""; 0]);
        for (today, refused, words) in [
            (360, false, "the client certificate /pki/c.crt ends on 1971-01-01T00:00:00Z: from then on"),
            (366, false, "the client certificate /pki/c.crt ended on 1971-01-01T00:00:00Z: from then on"),
            (366, true, "401 Unauthorized; the client certificate /pki/c.crt ended on 1971-01-01T00:00:00Z: renew it"),
            (
                300,
                true,
                "401 Unauthorized; the client certificate /pki/c.crt is valid until 1971-01-01T00:00:00Z, and this API server rejects it",
            ),
        ] {
            let said = said(today, refused);
            assert!(said.len() == 1 && said[0].contains(words), "{words} in: {said:?}");
        }
    }

    /// Input: the API server refuses the ConfigMap of the default crier, and of one with a Lease and a ConfigMap elsewhere.
    /// Output: the Role that gives the right, and the command that makes it; no rights where something else is the matter.
    #[test]
    fn a_config_map_that_may_not_be_read_names_the_role_that_it_takes() {
        let said = |keys: &str, refusal, why: &str| {
            let text = format!("[kubernetes]\nin-cluster = true\n{keys}");
            let mut planner = Planner::new(
                Arc::new(parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).unwrap()),
                "node-1".into(),
            );
            let state = ClusterConfig::Unseen { why: why.to_owned(), refusal };
            planner.apply(Fact::ClusterConfig(state, Arc::default()));
            let (now, wall) = (clock::now(), clock::wall());
            of_cluster_config(&Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, Counters::default(), now, wall))
                .unwrap()
        };
        let default = said("config = \"kube-system/crier\"\n", Refusal::Forbidden, "403 forbidden");
        assert!(
            default.ends_with(
                "the Role crier in the namespace kube-system lets crier read it: apply the objects of `crier rbac`"
            ),
            "{default}"
        );
        let other = "lease = \"lb/b\"\nconfig = \"conf/pools\"\n";
        let refused = said(other, Refusal::Forbidden, "403 forbidden");
        for words in ["the Role b-config in the namespace conf", "`crier rbac --config FILE`"] {
            assert!(refused.contains(words), "{words} in: {refused}");
        }
        assert!(said(other, Refusal::NoAnswer, "timed out").ends_with("timed out"));
    }

    /// Input: the status of a Service shows crier's address with `ipMode: Proxy`; its class is served, or the file does
    /// not name it any more. Output: who writes VIP, or that nobody does and what to do. It was said that the agent that allocates does.
    #[test]
    fn an_ip_mode_is_not_said_to_be_put_right_where_the_class_is_left() {
        let said = |default_class: bool| {
            let text = format!(
                "[kubernetes]\nin-cluster = true\nclass = \"a/b\"\ndefault-class = {default_class}\n[[pool]]\nname = \"lan\"\n\
                 addresses = [\"192.0.2.0/28\"]\n[[l2]]\n"
            );
            let file = SourceFile { path: "test.toml".to_owned(), text };
            let config = Arc::new(parse(&[file], &NoSecrets).unwrap());
            let Source::Kubernetes(kubernetes) = &config.source else { panic!("it is Kubernetes") };
            let address: IpAddr = "192.0.2.1".parse().unwrap();
            let condition = Condition::given(true, "assigned", &[address], &["lan".into()], None).by(&kubernetes.lease);
            let condition = Some(Arc::new(condition));
            let shown = (vec![address], vec![address]);
            let service =
                Service { condition, ingress: shown.0, not_vip: shown.1, load_balancer: true, ..Service::default() };
            let mut planner = Planner::new(config.clone(), "node-1".into());
            planner.apply(Fact::Service(ObjectKey::new("shop", "web"), Some(Arc::new(service))));
            planner.apply(Fact::Link(2, Some(Link::carrying(2, "eth0", &["192.0.2.2/24"]))));
            planner.apply(Fact::LinksListed);
            planner.apply(Fact::FailStatic);
            let now = clock::now();
            planner.turn(now);
            let counters = Counters::default();
            not_vip(&Snapshot::of(&planner, jiff::Timestamp::UNIX_EPOCH, counters, now, clock::wall())).join("\n")
        };
        let served = said(true);
        assert!(served.contains("the agent that allocates writes VIP"), "{served}");
        let left = said(false);
        assert!(
            !left.contains("writes VIP") && left.contains("kubectl -n shop edit service web --subresource=status"),
            "{left}"
        );
    }

    #[test]
    fn a_peer_that_does_not_read_is_a_problem() {
        let stuck = |routes, since: Option<&str>| {
            let mut stuck = peer("slow", "192.0.2.1", "192.0.2.2", true);
            stuck.session.prefixes_pending = routes;
            stuck.session.reads_nothing_since = since.map(|at| at.parse().expect("a time"));
            of_peer(&stuck, std::slice::from_ref(&stuck))
        };
        assert_eq!(stuck(9999, None), None, "it may be slow");
        let told = stuck(9999, Some("2026-11-30T10:00:05Z")).expect("it is a problem");
        assert!(
            told.starts_with("peer slow has not read from its session since 10:00:05Z: 9999 routes are pending, and "),
            "{told}"
        );
        let told = stuck(0, Some("2026-11-30T10:00:05Z")).expect("it is a problem");
        assert!(told.contains(": its last routes are pending, and "), "{told}");
    }

    #[test]
    fn a_session_that_waits_says_for_what() {
        let told = |state, last_error: Option<&str>| {
            let waiting = peer("tor", "192.0.2.1", "192.0.2.2", true);
            let waiting = PeerReport { state, last_error: last_error.map(str::to_owned), ..waiting };
            of_peer(&waiting, std::slice::from_ref(&waiting)).expect("there is no session")
        };
        let silent = told(SessionState::OpenSent, None);
        assert!(
            silent.contains("OpenSent: no session yet: the peer has taken the connection and has not sent its OPEN"),
            "{silent}"
        );
        assert_eq!(told(SessionState::Active, None), "peer tor (192.0.2.1): Active: no session yet");
        assert!(told(SessionState::OpenSent, Some("hold timer expired")).ends_with("OpenSent: hold timer expired"));
    }
}
