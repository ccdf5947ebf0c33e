//! Signs that packets of pods with egress go otherwise than crier's table has it: what the guard goes on dropping although there is a way,
//! other programs that translate first, pods that may not send through their node, networks of pods that hold all the world. Floor 1, a
//! part of `egress`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Snapshot;
use super::egress_path::Path;
use crate::address::Family;
use crate::egress::counters::Counts;
use crate::egress::earlier;
use crate::names::{InterfaceName, ObjectKey};
use crate::plan::slice::Mapping;
use crate::world::OvnGateway;

/// What is dropped, where that has a known reason.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let known = dropped(snapshot)
        .filter_map(|(service, dropped)| Some(format!("{service}: {dropped}{}", dropped.why(snapshot)?)));
    known.chain(too_wide(snapshot)).chain(of_pools(snapshot)).collect()
}

/// Of each Service, a pod that has an address of a pool. It is guarded where its EndpointSlice names it.
fn of_pools(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    with_egress(snapshot).filter_map(|service| {
        let mut tenants = snapshot.world.endpoint_tenants(service);
        tenants.find_map(|(pod, tenant)| {
            let pool = snapshot.config.pools.iter().find(|pool| pool.holds(pod))?;
            let pool = &pool.name;
            match tenant.pod() {
                Some(_) => Some(format!(
                    "{service}: its pod {pod} has an address of the pool {pool}, so a Service may get the address and the guard of \
                     egress loses the pod; take the network of the pods out of the pool"
                )),
                None if is_of_service(snapshot, pod) => None,
                None => Some(format!(
                    "{service}: its endpoint {pod} has an address of the pool {pool} and counts as no pod, so its outbound connections leave as \
                     without egress; take the network of the pods out of the pool, or name the pod in the EndpointSlice (targetRef)"
                )),
            }
        })
    })
}

fn is_of_service(snapshot: &Snapshot, address: IpAddr) -> bool {
    let held = snapshot.plan.decisions.values().flat_map(|decision| &decision.allocation.held);
    held.map(|held| held.address).any(|it| it == address)
}

/// Nodes whose `podCIDRs` hold what cannot be pods'.
fn too_wide(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let matters = with_egress(snapshot).next().is_some();
    let of_services = snapshot.world.too_wide_for_services().filter(move |_| matters).map(|(name, net)| {
        format!(
            "ServiceCIDR {name} has {net}, which is left out: all destinations there would count as inside of the cluster, and egress \
             would be for none of them; make it anew with the network of the Services, or set [egress] cluster-networks"
        )
    });
    let nodes = snapshot.world.nodes.iter().filter(move |_| matters);
    let of_nodes = nodes.flat_map(|(name, node)| {
        node.too_wide_for_pods().map(move |net| {
            format!(
                "Node {name}: spec.podCIDRs has {net}, which is left out: all destinations there would count as inside of the cluster, \
                 and egress would be for none of them; make the Node anew with the network of its pods"
            )
        })
    });
    of_nodes.chain(of_services)
}

/// The Services with egress.
fn with_egress(snapshot: &Snapshot) -> impl Iterator<Item = &ObjectKey> {
    snapshot.plan.decisions.iter().filter(|(_, decision)| decision.egress.is_some()).map(|(key, _)| key)
}

/// Pods with an address in the network of the nodes themselves, the first of each Service: a CNI that gives pods such (macvlan, ipvlan,
/// SR-IOV) puts them on the wire, and those of some clouds do not. From here both look alike.
fn on_the_wire(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let own = snapshot.world.nodes.get(&snapshot.node).map(|node| node.addresses.as_slice()).unwrap_or_default();
    let links = snapshot.world.links.values().flat_map(|link| link.in_subnets().map(move |net| (link, net)));
    let outer: Vec<_> = links.filter(|(_, net)| own.contains(&net.addr())).collect();
    with_egress(snapshot).filter_map(move |service| {
        let mut pods = snapshot.world.endpoint_addresses(service);
        let (pod, link) = pods.find_map(|pod| {
            let (link, _) = outer.iter().find(|(_, net)| net.contains(&pod) && net.addr() != pod)?;
            snapshot.plan.egress.pods.contains_key(&pod).then_some((pod, link))
        })?;
        Some(format!(
            "{service}: its pod {pod} has an address in the network of {}, as the node has: if it sends by that link itself and not through \
             its node (macvlan, ipvlan, SR-IOV), nothing holds it to the Service's address, and it leaves with its own",
            link.name
        ))
    })
}

/// What is dropped for no known reason, and what may keep packets from leaving as they are to.
pub(super) fn notes(snapshot: &Snapshot) -> Vec<String> {
    let earlier = snapshot.counters.egress_earlier.iter().map(|chain| {
        format!("{chain} translates sources before crier does: what it translates of pods with egress is dropped")
    });
    let is_led = |mapping: &Mapping| matches!(mapping, Mapping::Steered { .. });
    let leads = snapshot.plan.egress.pods.values().any(is_led);
    let later_marks = snapshot.counters.egress_later_marks.iter().filter(|_| leads).map(|chain| {
        format!(
            "{chain}, or what it leads to, gives packets a mark behind crier's: where it changes the bits of [egress] mark-mask of pods with \
             egress, these do not reach the owner and are dropped"
        )
    });
    let many = dropped(snapshot).filter(|(_, dropped)| dropped.packets >= MANY && dropped.why(snapshot).is_none());
    let many = many.map(|(service, dropped)| format!("{service}: {dropped}: {OTHERWISE}"));
    let of_pods = earlier.chain(later_marks).chain(many).chain(on_the_wire(snapshot)).chain(untold_gateway(snapshot));
    of_pods.chain(removable(snapshot)).chain(no_way_out(snapshot)).collect()
}

/// The kernel lets another program remove the table, and packets of pods pass until it is back.
fn removable(snapshot: &Snapshot) -> Option<String> {
    let matters = snapshot.counters.egress_removable && !snapshot.plan.egress.pods.is_empty();
    let table = &snapshot.config.egress.table;
    matters.then(|| {
        format!(
            "a flush of all rules by another program (nft flush ruleset, a restart of nftables.service) takes crier's nftables table {table} \
             along, and the kernel gave crier no second guard {table}-guard that belongs to its socket (Linux 5.12 has such): packets of pods \
             leave without the Service's address until the table is back, for milliseconds; load rules without a flush of all, or use a newer \
             kernel"
        )
    })
}

/// The first pod of each Service whose packets leave by the main table of this node, which has no default route for them. Where more special
/// routes lead to all that they send to, that is as it is to be.
fn no_way_out(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let has_default = |family: Family| {
        let mut routes = snapshot.world.default_routes.iter();
        routes.any(|it| it.vrf.is_none() && it.family == family)
    };
    // Before that nothing is known of routes.
    let is_known = snapshot.world.links_listed;
    with_egress(snapshot).filter(move |_| is_known).filter_map(move |service| {
        let egress = &snapshot.plan.egress;
        let leaves_here = |pod: &IpAddr| matches!(egress.pods.get(pod), Some(Mapping::Translated { network: None, .. }));
        let mut pods = snapshot.world.endpoint_addresses(service).filter(leaves_here);
        let pod = pods.find(|pod| !egress.bounded.contains_key(pod) && !has_default(Family::of(*pod)))?;
        let family = Family::of(pod);
        Some(format!(
            "{service}: this node sends on outbound connections of its pods, such as {pod}, and has no default route of {family}: what \
             goes beyond the networks that its main table names is lost; ip {} route show",
            family.option_of_ip()
        ))
    })
}

/// OVN-Kubernetes is on this node, and the Node does not say by what pods' packets leave it.
fn untold_gateway(snapshot: &Snapshot) -> Option<String> {
    let node = snapshot.world.nodes.get(&snapshot.node);
    let is_told = node.is_some_and(|node| node.ovn_gateway.is_some());
    let is_there = || snapshot.world.links.values().any(|link| link.name.as_str() == OvnGateway::LINK);
    let matters = with_egress(snapshot).next().is_some();
    (matters && !is_told && is_there()).then(|| {
        format!(
            "OVN-Kubernetes is on this node (the link {} is there), and the Node's annotation {} does not say whether it is in shared gateway \
             mode: with that, packets of pods bypass the guard of egress",
            OvnGateway::LINK,
            OvnGateway::ANNOTATION
        )
    })
}

/// What the guard drops.
const OTHERWISE: &str = "these left with another source, by another link, or in no connection that the kernel tracks (a rule with notrack \
                         of another program), or they answered who reached a pod's own address from the outside";

/// Fewer are late packets of connections that are over, as of any server.
const MANY: u64 = 100;

#[derive(Debug, Default)]
struct Dropped {
    packets: u64,
    /// Those of pods none of whose connections got out meanwhile.
    stuck: u64,
    families: BTreeSet<Family>,
    paths: BTreeSet<&'static str>,
    /// Some of these are led to another node, by their mark.
    led: bool,
    /// The links of networks that these are to leave by and that have no default route.
    ways_gone: BTreeSet<(Family, InterfaceName)>,
}

impl Dropped {
    fn why(&self, snapshot: &Snapshot) -> Option<String> {
        if !self.ways_gone.is_empty() {
            let gone: Vec<String> = self.ways_gone.iter().map(|(family, link)| format!("{family} by {link}")).collect();
            return Some(format!(
                ", and there is no default route of {}: the main table leads elsewhere; give the network its default route again",
                gone.join(" and of ")
            ));
        }
        let is_passed = |chain: &&String| self.families.iter().any(|family| earlier::is_of(chain, *family));
        let earlier: Vec<&str> =
            snapshot.counters.egress_earlier.iter().filter(is_passed).map(String::as_str).collect();
        let priority = snapshot.config.egress.priority;
        if !earlier.is_empty() {
            return Some(format!(
                ", and other programs translate before crier does ([egress] priority {priority}): {}; what these give another source is \
                 dropped: give their chains a priority above {priority} (srcnat is 100), or leave pods with egress out of them",
                earlier.join("; ")
            ));
        }
        let later: Vec<&str> =
            snapshot.counters.egress_later_marks.iter().filter(is_passed).map(String::as_str).collect();
        if self.led && self.packets >= MANY && !later.is_empty() {
            return Some(format!(
                ", and other programs give packets a mark behind crier's: {}; a packet that loses the bits of [egress] mark-mask is not led to \
                 the owner: have their rules keep these bits, or leave pods with egress out of them",
                later.join("; ")
            ));
        }
        (self.stuck >= MANY).then(|| {
            format!(
                ", and of {} of them no connection got out in that time: {}; nft list ruleset, ip rule show",
                self.stuck, OTHERWISE
            )
        })
    }
}

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let paths: Vec<&str> = self.paths.iter().copied().collect();
        write!(
            f,
            "within ten seconds this node dropped {} packets of its pods to the outside although their path is {}",
            self.packets,
            paths.join(" or ")
        )
    }
}

/// Of each Service whose pods' packets are dropped.
fn dropped(snapshot: &Snapshot) -> impl Iterator<Item = (&ObjectKey, Dropped)> {
    with_egress(snapshot).filter_map(|key| {
        let mut dropped = Dropped::default();
        for pod in snapshot.world.endpoint_addresses(key) {
            let Counts { lately, stuck, .. } = snapshot.counters.egress.get(&pod).copied().unwrap_or_default();
            let Some(mapping) = snapshot.plan.egress.pods.get(&pod).filter(|_| lately > 0) else { continue };
            let path = Path::of(snapshot, pod, mapping);
            if !matches!(path, Path::Held | Path::Pending | Path::NoPods) {
                dropped.packets += lately;
                dropped.stuck += if stuck { lately } else { 0 };
                dropped.families.insert(Family::of(pod));
                dropped.paths.insert(path.name());
                dropped.led |= matches!(mapping, Mapping::Steered { .. });
                dropped.ways_gone.extend(way_gone(snapshot, mapping));
            }
        }
        (dropped.packets > 0).then_some((key, dropped))
    })
}

/// The link of the network by which packets are to leave, if the main table is to lead there and has no default route by it.
fn way_gone(snapshot: &Snapshot, mapping: &Mapping) -> Option<(Family, InterfaceName)> {
    let Mapping::Networked(exit) = mapping else { return None };
    let family = Family::of(exit.source);
    let leads_there = snapshot.world.default_routes.iter().any(|it| it.link == exit.link && it.family == family);
    let link = snapshot.world.links.get(&exit.link).filter(|_| exit.slot.is_none() && !leads_there)?;
    Some((family, link.name.clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::address::Family;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::egress::ruleset::Content;
    use crate::plan::Planner;
    use crate::plan::slice::Exit;
    use crate::views::Counters;
    use crate::views::egress::{EgressReport, egress};
    use crate::world::{
        ApiServer, DefaultRoute, Egress, EndpointAddresses, EndpointSlice, Fact, Link, Node, NodeCounts, Service,
        Tenant,
    };

    const FILE: &str =
        "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100\"]\n[[l2]]\n";
    const EARLY: &str = "table inet early, chain post (priority 50)";

    /// What an agent says of which pod the plan and the kernel have this way, and so many packets were dropped lately.
    fn report(mapping: Mapping, lately: u64, earlier: &[&str]) -> EgressReport {
        report_of("10.244.1.7", mapping, lately, earlier, Vec::new())
    }

    fn report_of(pod: &str, mapping: Mapping, lately: u64, earlier: &[&str], facts: Vec<Fact>) -> EgressReport {
        report_with((pod, "web-1"), mapping, (lately, false), earlier, facts)
    }

    fn report_with(
        (pod, uid): (&str, &str),
        mapping: Mapping,
        (lately, stuck): (u64, bool),
        earlier: &[&str],
        facts: Vec<Fact>,
    ) -> EgressReport {
        egress(&snapshot_with((pod, uid), mapping, (lately, stuck), earlier, facts))
    }

    fn snapshot_with(
        (pod, uid): (&str, &str),
        mapping: Mapping,
        (lately, stuck): (u64, bool),
        earlier: &[&str],
        facts: Vec<Fact>,
    ) -> Snapshot {
        let file = SourceFile { path: "crier.toml".to_owned(), text: FILE.to_owned() };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let (mut planner, web) = (Planner::new(Arc::new(config), "node-1".into()), ObjectKey::new("shop", "web"));
        let pod: IpAddr = pod.parse().unwrap();
        let tenant = if uid.is_empty() { Tenant::default() } else { Tenant::of(uid, false) };
        let service = Service {
            load_balancer: true,
            families: vec![Family::V4],
            egress: Some(Egress::ServiceAddress),
            ..Service::default()
        };
        let slice = EndpointSlice {
            service: web.clone(),
            family: Some(Family::V4),
            ready: NodeCounts::default(),
            serving: NodeCounts::default(),
            serving_without_node: 0,
            unready: Default::default(),
            addresses: EndpointAddresses::of(&[(pod, tenant)]),
        };
        let first = [
            Fact::ApiServer(ApiServer::Manifests),
            Fact::LinksListed,
            Fact::DefaultRoutes(vec![DefaultRoute::via("10.0.0.1", 2, 0), DefaultRoute::via("fd00::1", 2, 0)]),
            Fact::FailStatic,
            Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(slice))),
            Fact::Service(web, Some(Arc::new(service))),
        ];
        first.into_iter().chain(facts).for_each(|fact| planner.apply(fact));
        planner.turn(clock::now());
        let table = Content { pods: [(pod, mapping)].into(), ..Content::default() };
        let counters = Counters {
            egress: [(pod, Counts { dropped: 900, translated: 0, lately, stuck })].into(),
            egress_table: Some(Arc::new(table)),
            egress_earlier: Arc::new(earlier.iter().map(|chain| (*chain).to_owned()).collect()),
            ..Counters::default()
        };
        let mut snapshot = Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall());
        snapshot.plan.egress.pods.insert(pod, mapping);
        snapshot
    }

    /// Input: another program marks behind crier; the pod's packets are led to the owner, or leave here. Output: it is the
    /// reason where the mark matters, and a note before anything is dropped.
    #[test]
    fn who_marks_behind_crier_is_named_where_packets_are_led_by_their_mark() {
        let chain = "table inet vpn, chain pre (priority 0)".to_owned();
        let report = |mapping, lately| {
            let mut snapshot = snapshot_with(("10.244.1.7", "web-1"), mapping, (lately, false), &[], Vec::new());
            snapshot.counters.egress_later_marks = Arc::new(vec![chain.clone()]);
            let named = |all: Vec<String>| all.iter().filter(|text| text.contains(&chain)).count();
            (named(problems(&snapshot)), named(notes(&snapshot)))
        };
        let led = Mapping::Steered { slot: 1 };
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        assert_eq!([report(led, 900), report(led, 0), report(here, 900)], [(1, 1), (0, 1), (0, 0)]);
    }

    /// Input: a kernel where a flush takes crier's table too, and that gives no second guard. Output: what leaks then is
    /// noted where pods are guarded, and nowhere else.
    #[test]
    fn a_table_that_others_can_remove_is_noted_where_pods_are_guarded() {
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        let mut snapshot = snapshot_with(("10.244.1.7", "web-1"), here, (0, false), &[], Vec::new());
        let notes = |snapshot: &Snapshot| egress(snapshot).notes.concat();
        assert_eq!(notes(&snapshot), "");
        snapshot.counters.egress_removable = true;
        for word in ["Linux 5.12", "nft flush ruleset", "table crier along", "no second guard crier-guard"] {
            assert!(notes(&snapshot).contains(word), "{word}: {}", notes(&snapshot));
        }
        assert!(egress(&snapshot).problems.is_empty(), "it is a note");
        snapshot.plan.egress.pods.clear();
        assert_eq!(notes(&snapshot), "");
    }

    /// Input: all outbound connections of pods are translated by a chain of another program before crier's, and so dropped.
    #[test]
    fn what_is_dropped_though_it_has_a_way_is_told_with_the_chains_that_come_first() {
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        let told = report(here, 3, &[EARLY]);
        let [problem] = &told.problems[..] else { panic!("{:?}", told.problems) };
        for word in ["shop/web: ", "dropped 3 packets", "path is local", EARLY, "[egress] priority 95"] {
            assert!(problem.contains(word), "{word}: {problem}");
        }
        assert!(told.holds_back() && told.notes.iter().any(|note| note.contains(EARLY)), "{:?}", told.notes);
        // The chain alone may be about something else.
        let chain = report(here, 0, &[EARLY]);
        assert_eq!((chain.problems.len(), chain.notes.len()), (0, 1));
        // Late packets of connections that are over are dropped all the time; many say that something is wrong.
        assert_eq!([3, 500].map(|lately| report(here, lately, &[]).notes.len()), [0, 1]);
        assert!(report(here, 500, &[]).problems.is_empty());
        let held = report(Mapping::Held, 500, &[EARLY]);
        assert!(held.problems.iter().all(|problem| !problem.contains(EARLY)), "{:?}", held.problems);
    }

    /// Input: a chain of the other family, which no packet of the pod passes.
    #[test]
    fn a_chain_of_the_other_family_is_no_reason() {
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        let told = |chain: &str| report(here, 25, &[chain]).problems.len();
        assert_eq!(told("table ip6 early, chain post (priority 50)"), 0);
        assert_eq!(told("table ip early, chain post (priority 50)"), 1);
    }

    /// Input: another program's `notrack`: packets are dropped all the time, and no connection of the pod is translated.
    #[test]
    fn where_nothing_of_a_pod_gets_out_what_is_dropped_is_a_problem() {
        let told = |lately: u64, stuck: bool| {
            let steered = Mapping::Steered { slot: 1 };
            report_with(("10.244.1.7", "web-1"), steered, (lately, stuck), &[], Vec::new()).problems
        };
        let [problem] = &told(500, true)[..] else { panic!("{:?}", told(500, true)) };
        assert!(problem.contains("dropped 500 packets") && problem.contains("notrack"), "{problem}");
        assert_eq!([told(500, false), told(20, true)].map(|it| it.len()), [0, 0]);
    }

    /// Input: pods in a pool.
    #[test]
    fn a_pod_with_an_address_of_a_pool_is_told() {
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        let told = |pod: &str, uid: &str| {
            report_with((pod, uid), here, (0, false), &[], vec![wide_pool()]).problems.join("; ")
        };
        let named = told("192.168.35.105", "web-1");
        assert!(named.contains("shop/web: its pod 192.168.35.105 has an address of the pool lan"), "{named}");
        let unnamed = told("192.168.35.105", "");
        assert!(unnamed.contains("counts as no pod") && unnamed.contains("targetRef"), "{unnamed}");
        assert_eq!(told("10.244.1.7", "web-1"), "");
    }

    fn wide_pool() -> Fact {
        let text = FILE.replace("192.168.35.100\"", "192.168.35.100-192.168.35.110\"");
        let file = SourceFile { path: "crier.toml".to_owned(), text };
        Fact::Config(Arc::new(parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"))))
    }

    #[test]
    fn ovn_kubernetes_without_its_annotation_is_noted() {
        let notes = |mode: Option<OvnGateway>, link: &str| {
            let node = Node { ovn_gateway: mode, ..Node::default() };
            let facts = vec![
                Fact::Node("node-1".into(), Some(Arc::new(node))),
                Fact::Link(7, Some(Link::carrying(7, link, &["10.128.0.2/23"]))),
            ];
            let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
            report_of("10.244.1.7", here, 0, &[], facts).notes.len()
        };
        let modes = [None, Some(OvnGateway::Local), Some(OvnGateway::Shared)];
        assert_eq!(modes.map(|mode| notes(mode, OvnGateway::LINK)), [1, 0, 0]);
        assert_eq!(notes(None, "cni0"), 0);
    }

    /// Input: packets are to leave by the network of eth1, whose default route is gone: the main table leads elsewhere,
    /// and the guard drops them.
    #[test]
    fn a_network_without_its_default_route_is_told_while_packets_are_dropped() {
        let by_network = Mapping::Networked(Exit { slot: None, link: 3, source: "10.1.0.11".parse().unwrap() });
        let told = |lately, route: Option<&str>| {
            let routes = route.map(|gateway| DefaultRoute::via(gateway, 3, 0)).into_iter().collect();
            let link = Fact::Link(3, Some(Link::carrying(3, "eth1", &["10.1.0.11/24"])));
            report_of("10.244.1.7", by_network, lately, &[], vec![link, Fact::DefaultRoutes(routes)]).problems
        };
        let [problem] = &told(7, None)[..] else { panic!("{:?}", told(7, None)) };
        assert!(
            problem.contains("path is network") && problem.contains("no default route of IPv4 by eth1"),
            "{problem}"
        );
        assert_eq!(told(0, None), Vec::<String>::new(), "it may be for destinations with routes of their own");
        assert_eq!(told(7, Some("10.1.0.1")), Vec::<String>::new());
        assert_eq!(told(7, Some("fd01::1")).len(), 1, "that is of IPv6");
    }

    /// Input: the owner of the address, with and without a default route.
    #[test]
    fn an_owner_without_a_default_route_is_noted() {
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        let notes = |mapping, route: Option<&str>| {
            let routes = route.map(|gateway| DefaultRoute::via(gateway, 3, 0)).into_iter().collect();
            let link = Fact::Link(3, Some(Link::carrying(3, "eth1", &["10.1.0.11/24"])));
            let facts = vec![link, Fact::DefaultRoutes(routes), Fact::LinksListed];
            report_of("10.244.1.7", mapping, 0, &[], facts).notes
        };
        let [note] = &notes(here, None)[..] else { panic!("{:?}", notes(here, None)) };
        assert!(note.contains("shop/web: ") && note.contains("no default route of IPv4"), "{note}");
        assert_eq!(notes(here, Some("10.1.0.1")), [""; 0]);
        assert_eq!(notes(here, Some("fd01::1")).len(), 1, "that is of IPv6");
        assert_eq!(notes(Mapping::Steered { slot: 1 }, None), [""; 0], "it leaves by another node");
    }

    /// Input: a pod in the network of the node's own link, as macvlan has it. Output: a note, for in some clouds such
    /// pods are behind their nodes all the same.
    #[test]
    fn a_pod_with_an_address_in_the_network_of_the_nodes_is_noted() {
        let notes = |pod: &str| {
            let node = Node { addresses: vec!["10.0.0.11".parse().unwrap()], ..Node::default() };
            let facts = vec![
                Fact::Node("node-1".into(), Some(Arc::new(node))),
                Fact::Link(2, Some(Link::carrying(2, "eth0", &["10.0.0.11/24"]))),
                Fact::Link(5, Some(Link::carrying(5, "cni0", &["10.244.1.1/24"]))),
            ];
            let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
            report_of(pod, here, 0, &[], facts).notes
        };
        let [note] = &notes("10.0.0.112")[..] else { panic!("{:?}", notes("10.0.0.112")) };
        assert!(note.contains("its pod 10.0.0.112") && note.contains("network of eth0"), "{note}");
        assert_eq!(notes("10.244.1.7"), Vec::<String>::new());
    }

    #[test]
    fn a_node_with_all_the_world_in_its_podcidrs_is_told() {
        let node = Node { pod_networks: vec!["0.0.0.0/0".parse().unwrap()], ..Node::default() };
        let facts = vec![Fact::Node("node-2".into(), Some(Arc::new(node)))];
        let here = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None };
        let told = report_of("10.244.1.7", here, 0, &[], facts).problems;
        assert!(told.len() == 1 && told[0].starts_with("Node node-2: spec.podCIDRs has 0.0.0.0/0"), "{told:?}");
    }
}
