//! What a running agent says of outbound connections of pods: the JSON behind `crier egress`. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::egress_path::Path;
use super::new_pods::{self, NewPodsReport};
use super::{SCHEMA_VERSION, Snapshot, egress_signs, egress_unannounced};
use crate::address::{Family, LINK_LOCAL};
use crate::config::taken::Numbers;
use crate::egress::counters::Counts;
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::decision::{EgressOwner, EgressVerdict};
use crate::plan::newcomers::Who;
use crate::plan::slice::Mapping;
use crate::world::Area;

/// `crier egress`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressReport {
    pub schema_version: u32,
    /// The node that says it.
    pub node: NodeName,
    /// One for each address of a Service with egress; one for a Service that has none.
    pub services: Vec<EgressRow>,
    /// Addresses that this node still holds back although no Service asks for it any more, [`MOST_RELEASED`] at most: of pods whose
    /// Service is gone, or that left it (`release-after`).
    #[serde(default)]
    pub released: Vec<IpAddr>,
    /// The same with what is known of each.
    #[serde(default)]
    pub held_back: Vec<HeldBack>,
    /// This node's end of the tunnel to owners on other links, where it is to have one.
    #[serde(default)]
    pub tunnel: Option<TunnelReport>,
    /// What is held back of new pods; `None` where they pass.
    #[serde(default)]
    pub new_pods: Option<NewPodsReport>,
    /// The numbers that this node uses in the kernel; an older agent does not tell them.
    #[serde(default)]
    pub numbers: Option<Numbers>,
    pub problems: Vec<String>,
    /// What is as it was asked for, and may not be what was meant.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl EgressReport {
    /// Packets of pods are held back, or would be.
    pub fn holds_back(&self) -> bool {
        !self.problems.is_empty() || !self.released.is_empty()
    }
}

/// An address that this node holds back although no Service asks for it any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldBack {
    pub address: IpAddr,
    /// When it is let go; `None` while not all objects are known.
    pub until: Option<Timestamp>,
    /// Services without egress whose EndpointSlices list it now, some of many.
    pub services: Vec<ObjectKey>,
}

/// The tunnel that leads packets of pods to owners on other links.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TunnelReport {
    pub device: InterfaceName,
    /// UDP.
    pub port: u16,
    /// The largest packet of a pod that fits; `None` while there is no device.
    pub mtu: Option<u32>,
}

/// More of them tell nobody anything.
pub const MOST_RELEASED: usize = 100;

/// How what the pods of a Service open leaves, as this node does it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressRow {
    pub service: ObjectKey,
    /// The source that packets leave with.
    pub address: Option<IpAddr>,
    /// The node by which they leave; `None` also where they leave by a network from every node.
    pub owner: Option<NodeName>,
    /// The link of this node, or the VRF, by which they leave, where they leave by a network.
    #[serde(default)]
    pub link: Option<InterfaceName>,
    /// The nodes by which alone they leave: a selector.
    #[serde(default)]
    pub nodes: Option<String>,
    /// The destinations that this is for. Empty: all outside of the cluster.
    #[serde(default)]
    pub to: Vec<IpNet>,
    /// But not for these: what the pods send there leaves as without egress.
    #[serde(default)]
    pub except: Vec<IpNet>,
    /// The pods with an address of the same family, on all nodes.
    pub pods: usize,
    pub path: Path,
    /// Connections that got the address here since the agent started.
    pub translated: u64,
    /// Packets that this node held back since the agent started.
    pub dropped: u64,
    /// Why packets are held back, or go by the tunnel.
    pub reason: Option<String>,
}

/// The view.
pub fn egress(snapshot: &Snapshot) -> EgressReport {
    let counts = &snapshot.counters.egress;
    let decisions = snapshot.plan.decisions.iter();
    let with_egress = decisions.filter_map(|(key, decision)| Some((key, decision.egress.as_ref()?)));
    let held_back: Vec<HeldBack> = released(snapshot).take(MOST_RELEASED).map(|it| held_back(snapshot, it)).collect();
    EgressReport {
        schema_version: SCHEMA_VERSION,
        node: snapshot.node.clone(),
        services: with_egress.flat_map(|(key, verdict)| rows(snapshot, key, verdict, counts)).collect(),
        released: held_back.iter().map(|it| it.address).collect(),
        held_back,
        tunnel: tunnel(snapshot),
        new_pods: new_pods::report(snapshot),
        numbers: Some(snapshot.config.egress.numbers()),
        problems: problems(snapshot).into_iter().chain(of_host(snapshot)).collect(),
        notes: notes(snapshot).into_iter().chain(egress_signs::notes(snapshot)).collect(),
    }
}

fn tunnel(snapshot: &Snapshot) -> Option<TunnelReport> {
    let settings = &snapshot.config.egress;
    let device = settings.tunnel.clone().filter(|_| snapshot.plan.egress.tunnel.is_some())?;
    Some(TunnelReport { device, port: settings.tunnel_port, mtu: snapshot.world.egress_reach.mtu })
}

/// What this host refuses and no row shows: `crier status` names it among all that the host refuses. Pods of other nodes do not come in by
/// the tunnel, or packets leave by another network.
fn of_host(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let plan = &snapshot.plan;
    let decisions = plan.decisions.values().filter_map(|decision| decision.egress.as_ref());
    let owned = decisions.flat_map(|verdict| &verdict.owners).find(|it| it.owner.as_ref() == Some(&snapshot.node));
    let owned = owned.filter(|_| plan.egress.tunnel.is_some());
    let of_tunnel = owned.zip(snapshot.world.egress_reach.problem.as_ref()).map(|(owner, problem)| {
        let address = owner.address;
        format!("packets of pods on other links do not reach this node, which sends them with {address}: {problem}")
    });
    let by_network = plan.egress.pods.values().any(|mapping| match mapping {
        Mapping::Translated { network, .. } => network.is_some(),
        Mapping::Networked(exit) => exit.slot.is_some(),
        Mapping::Held | Mapping::Steered { .. } => false,
    });
    let of_networks =
        snapshot.world.problems_of(Area::Returns).iter().filter(move |_| by_network).map(ToString::to_string);
    of_tunnel.into_iter().chain(of_networks)
}

/// What the kernel holds back and the plan does not ask for.
fn released(snapshot: &Snapshot) -> impl Iterator<Item = IpAddr> + '_ {
    let table = snapshot.counters.egress_table.iter().flat_map(|table| &table.pods);
    let held = table.filter(|(_, mapping)| **mapping == Mapping::Held).map(|(pod, _)| *pod);
    held.filter(|pod| !snapshot.plan.egress.pods.contains_key(pod))
}

fn held_back(snapshot: &Snapshot, address: IpAddr) -> HeldBack {
    let until = snapshot.world.egress_held.get(&address).and_then(|held| Timestamp::try_from(held.until).ok());
    let newcomer = snapshot.plan.newcomers.get(&address);
    HeldBack {
        address,
        // Nobody counts the milliseconds of minutes.
        until: until.and_then(|until| Timestamp::from_second(until.as_second()).ok()),
        services: newcomer.into_iter().flat_map(|newcomer| newcomer.services.iter().cloned()).collect(),
    }
}

/// Of addresses that are held back for nobody, those that a pod has for all that is known.
fn held_newcomers(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let found = released(snapshot).filter_map(|address| Some((address, snapshot.plan.newcomers.get(&address)?)));
    found.take(MOST_NAMED).map(|(address, newcomer)| {
        let HeldBack { until, services, .. } = held_back(snapshot, address);
        let services: Vec<String> = services.iter().map(ToString::to_string).collect();
        let why = match newcomer.who {
            Who::Same => "no Service has crier.dev/egress for it any more",
            Who::Unknown => {
                "a Service with crier.dev/egress had this address, and nothing tells for certain that another pod has it now \
                 (targetRef in the EndpointSlices)"
            }
            Who::Other => "the pod of a Service with crier.dev/egress had this address, and it is about to be let go",
        };
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        format!(
            "{}: outbound connections of its pod {address} are held back on this node{until}: {why} ([egress] release-after)",
            services.join(", ")
        )
    })
}

/// The Services with the annotation that it does nothing for.
fn without_egress(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let refused = snapshot.plan.decisions.iter().filter_map(|(key, decision)| {
        let complaint = decision.allocation.complaint.as_ref()?;
        complaint.is_about_egress_of_others().then(|| format!("{key}: {complaint}"))
    });
    refused.take(MOST_NAMED)
}

/// Lists of destinations that leave none.
fn notes(snapshot: &Snapshot) -> Vec<String> {
    let decisions = snapshot.plan.decisions.iter();
    let with_egress = decisions.filter(|(_, decision)| decision.egress.as_ref().is_some_and(|it| !it.closed));
    let notes = with_egress.flat_map(|(key, decision)| {
        let service = snapshot.world.services.get(key);
        let bounds = service.and_then(|service| service.egress_bounds.as_ref());
        let lists = bounds.and_then(|bounds| bounds.destinations.as_ref());
        let families = service.into_iter().flat_map(|service| {
            // A manifest need not name families: then the addresses and the pods tell which there are.
            let held = decision.allocation.held.iter().map(|held| held.address);
            let pods = snapshot.world.endpoint_addresses(key);
            let addresses = service.ingress.iter().copied().chain(held).chain(pods).map(Family::of);
            service.families.iter().copied().chain(addresses).collect::<BTreeSet<Family>>()
        });
        // Of a pod of several Services lists count only where all have the same.
        let count = |family: &Family| {
            let pods = || snapshot.world.endpoint_addresses(key).filter(|pod| Family::of(*pod) == *family);
            let is_bounded = |pod: IpAddr| snapshot.plan.egress.bounded.get(&pod) == lists;
            pods().next().is_none() || pods().any(is_bounded)
        };
        let bare = families.filter(count).filter(|family| {
            let never = || snapshot.plan.egress.cluster.iter().chain(&LINK_LOCAL);
            lists.is_some_and(|lists| lists.leaves_none(*family, never()))
        });
        bare.map(|family| {
            format!(
                "{key}: crier.dev/egress-to and crier.dev/egress-except leave no destination of {family} outside of the cluster: \
                 what its pods send by {family} leaves as without egress"
            )
        })
        .collect::<Vec<_>>()
    });
    notes.collect()
}

/// Whatever keeps packets of pods from leaving with the source that they are to have. A node that is to send only what its own pods
/// open needs no way for those of others.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let decisions = snapshot.plan.decisions.iter();
    let with_egress = decisions.filter_map(|(key, decision)| Some((key, decision.egress.as_ref()?)));
    let has_pods = |key: &ObjectKey| {
        Family::BOTH.iter().any(|family| snapshot.world.endpoints_on(&snapshot.node, key, *family) > 0)
    };
    let concerned = with_egress.filter(|(key, verdict)| verdict.networks.is_empty() || has_pods(key));
    let rows = concerned.flat_map(|(key, verdict)| rows(snapshot, key, verdict, &BTreeMap::new()));
    let in_words = |row: EgressRow| {
        let EgressRow { service, path, reason, .. } = row;
        match path {
            Path::Held => {
                let reason = reason.unwrap_or_else(|| "it has no address yet".to_owned());
                Some(format!("{service}: outbound connections of its pods are held back on this node: {reason}"))
            }
            // The kernel lets them go as it did, and guards them.
            Path::Pending if reason.as_deref() == Some(AS_BEFORE) => None,
            Path::Pending => {
                let reason = reason.unwrap_or_default();
                Some(format!("{service}: outbound connections of its pods are not guarded on this node: {reason}"))
            }
            Path::Local | Path::Routed | Path::Tunnel | Path::Network | Path::NoPods => None,
        }
    };
    let contested = snapshot.plan.contested_pods.iter().take(MOST_NAMED).map(|(pod, services)| {
        let [first, others @ ..] = services.as_slice() else { return String::new() };
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        format!(
            "{}: outbound connections of its pod {pod} leave as egress of {first} says, whose pod it is too, and lists of destinations \
             count only where both have the same; give one of the Services no crier.dev/egress, or other pods",
            others.join(", ")
        )
    });
    let of_others = without_egress(snapshot).chain(held_newcomers(snapshot)).chain(egress_signs::problems(snapshot));
    let of_others = of_others.chain(new_pods::problems(snapshot)).chain(egress_unannounced::problems(snapshot));
    let mut all: Vec<String> = rows.filter_map(in_words).chain(contested).chain(of_others).collect();
    // A Service has a row for each family, and often the same is wrong with both.
    all.dedup();
    all
}

/// Of problems of one kind; the others are alike.
const MOST_NAMED: usize = 10;

/// One of a Service's addresses, and what is decided about what leaves by it.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// The Service has none yet.
    None,
    Owner(&'a EgressOwner),
    Network(IpAddr),
}

impl Place<'_> {
    /// The Service's address.
    fn address(self) -> Option<IpAddr> {
        match self {
            Place::None => None,
            Place::Owner(owner) => Some(owner.address),
            Place::Network(address) => Some(address),
        }
    }
}

fn rows(
    snapshot: &Snapshot,
    key: &ObjectKey,
    verdict: &EgressVerdict,
    counts: &BTreeMap<IpAddr, Counts>,
) -> Vec<EgressRow> {
    let pods: Vec<IpAddr> = snapshot.world.endpoint_addresses(key).collect();
    let bounds = snapshot.world.services.get(key).and_then(|service| service.egress_bounds.clone()).unwrap_or_default();
    let destinations = bounds.destinations.as_deref().cloned().unwrap_or_default();
    let row = |place: Place<'_>| {
        let of_family = |pod: &&IpAddr| place.address().is_none_or(|it| Family::of(it) == Family::of(**pod));
        let held = pods.iter().filter(of_family).filter_map(|pod| Some((pod, snapshot.plan.egress.pods.get(pod)?)));
        let held: Vec<(&IpAddr, &Mapping)> = held.collect();
        let mut paths = held.iter().map(|(pod, mapping)| Path::of(snapshot, **pod, mapping));
        let first = paths.next().unwrap_or(Path::NoPods);
        let path = if paths.any(|path| path == Path::Pending) { Path::Pending } else { first };
        let sum = |count: fn(&Counts) -> u64| held.iter().filter_map(|(pod, _)| counts.get(*pod)).map(count).sum();
        let (address, owner, link) = match place {
            Place::None => (None, None, None),
            Place::Owner(it) => {
                (Some(it.address), it.owner.clone(), held.iter().find_map(|(_, it)| network(snapshot, it)))
            }
            Place::Network(of_service) => match snapshot.plan.exits.get(&of_service) {
                Some(Ok(exit)) => (Some(exit.source), None, snapshot.world.links.get(&exit.link).map(|it| &it.name)),
                Some(Err(_)) | None => (None, None, None),
            },
        };
        let refused = held.iter().find_map(|(_, mapping)| match mapping {
            Mapping::Steered { slot } => snapshot.world.egress_reach.refused.get(slot),
            Mapping::Held | Mapping::Translated { .. } | Mapping::Networked(_) => None,
        });
        let refused = refused.cloned();
        let far = owner.as_ref().map(|owner| format!("{owner} is not on a link of this node"));
        EgressRow {
            service: key.clone(),
            address,
            owner,
            link: link.cloned(),
            nodes: bounds.nodes.as_ref().map(ToString::to_string),
            to: destinations.to.clone(),
            except: destinations.except.clone(),
            pods: held.len(),
            path,
            translated: sum(|it| it.translated),
            dropped: sum(|it| it.dropped),
            reason: match path {
                Path::Held => refused.or_else(|| reason(snapshot, key, verdict, place)),
                Path::Pending => Some(pending(snapshot, held.iter().map(|(pod, _)| **pod))),
                Path::Tunnel => far,
                Path::Local | Path::Routed | Path::Network | Path::NoPods => None,
            },
        }
    };
    let owned = verdict.owners.iter().map(Place::Owner);
    let places: Vec<Place<'_>> = owned.chain(verdict.networks.iter().copied().map(Place::Network)).collect();
    match places.as_slice() {
        [] => vec![row(Place::None)],
        places => places.iter().copied().map(row).collect(),
    }
}

/// The network beside that of the main table by which packets leave with a Service's address here.
fn network<'a>(snapshot: &'a Snapshot, mapping: &Mapping) -> Option<&'a InterfaceName> {
    let Mapping::Translated { address: _, network } = mapping else { return None };
    let networks = snapshot.plan.egress.networks.iter();
    networks.filter(|it| Some(it.slot) == *network).map(|it| &it.name).next()
}

/// Why the kernel does not hold what the plan says.
fn pending(snapshot: &Snapshot, mut pods: impl Iterator<Item = IpAddr>) -> String {
    let table = snapshot.counters.egress_table.as_ref();
    let (obstacle, has_all) =
        (snapshot.world.egress_obstacle(), table.is_some_and(|table| pods.all(|pod| table.pods.contains_key(&pod))));
    let why = || if has_all { AS_BEFORE } else { "the kernel does not hold its pods yet" }.to_owned();
    obstacle.map_or_else(why, ToString::to_string)
}

const AS_BEFORE: &str = "its pods leave as before until more is known of the nodes";

fn reason(snapshot: &Snapshot, key: &ObjectKey, verdict: &EgressVerdict, place: Place<'_>) -> Option<String> {
    if verdict.closed {
        let request = snapshot.world.services.get(key).and_then(|service| service.request.as_ref().err());
        return Some(request.map_or("its annotations cannot be met".to_owned(), ToString::to_string));
    }
    let of_another = || Some("a pod of it belongs to another Service with egress too".to_owned());
    match place {
        Place::None => None,
        Place::Network(address) => {
            let exit = snapshot.plan.exits.get(&address).and_then(|exit| exit.as_ref().err());
            verdict.refusal.as_ref().or(exit).map(ToString::to_string).or_else(of_another)
        }
        Place::Owner(owner) => why_not_by_owner(snapshot, key, owner).or_else(of_another),
    }
}

fn why_not_by_owner(snapshot: &Snapshot, key: &ObjectKey, owner: &EgressOwner) -> Option<String> {
    if let Some(reason) = &owner.reason {
        return Some(reason.to_string());
    }
    let node = owner.owner.as_ref()?;
    if *node == snapshot.node {
        if let Some(reason) = snapshot.plan.without_network.get(&owner.address) {
            return Some(reason.to_string());
        }
        let decision = snapshot.plan.decisions.get(key)?;
        let announcement = decision.announcements.iter().find(|it| it.address == owner.address)?;
        let why = if announcement.is_on_link() { &announcement.l2.reason } else { &announcement.bgp.reason };
        return Some(format!("this node is to send with {} and does not announce it: {why}", owner.address));
    }
    let obstacle = snapshot.plan.unreached.get(&(node.clone(), Family::of(owner.address)));
    obstacle.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::egress::ruleset::Content;
    use crate::plan::Planner;
    use crate::plan::decision::Decision;
    use crate::plan::slice::TunnelEnd;
    use crate::world::{
        ApiServer, Destinations, Egress, EgressBounds, EgressReach, EndpointAddresses, EndpointSlice, Fact, HeldPod,
        HostProblem, NodeCounts, Request, Service, Tenant,
    };

    const FILE: &str = "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.110\"]\n\
                        [[l2]]\n";

    /// What an agent says whose kernel holds these addresses back.
    fn report(held: &[&str], facts: Vec<Fact>) -> EgressReport {
        egress(&snapshot(held, facts))
    }

    fn snapshot(held: &[&str], facts: Vec<Fact>) -> Snapshot {
        let file = SourceFile { path: "crier.toml".to_owned(), text: FILE.to_owned() };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        let first = [Fact::ApiServer(ApiServer::Manifests), Fact::LinksListed, Fact::FailStatic];
        first.into_iter().chain(facts).for_each(|fact| planner.apply(fact));
        planner.turn(clock::now());
        let pods = held.iter().map(|pod| (pod.parse().unwrap(), Mapping::Held)).collect();
        let table = Some(Arc::new(Content { pods, ..Content::default() }));
        let counters = crate::views::Counters { egress_table: table, ..Default::default() };
        Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall())
    }

    /// Input: what the host refuses on the node that sends with the address: its end of the tunnel, and the way
    /// out by an extra network. Output: `crier egress` says so there too, where packets need it.
    #[test]
    fn what_the_host_refuses_of_a_node_that_sends_is_told_by_it() {
        let problem = |text: &str| HostProblem { problem: text.to_owned(), remedy: "look".to_owned() };
        let reach = EgressReach { problem: Some(problem("no tunnel")), ..EgressReach::default() };
        let facts = || {
            vec![
                Fact::EgressReach(reach.clone()),
                Fact::Problems(Area::Returns, vec![problem("another route")]),
                web(|_| ()),
            ]
        };
        let of = |change: &dyn Fn(&mut Snapshot)| {
            let mut snapshot = snapshot(&[], facts());
            change(&mut snapshot);
            let told = |words: &str| egress(&snapshot).problems.iter().any(|problem| problem.contains(words));
            [told("on other links do not reach this node"), told("another route; look")]
        };
        let owned = |snapshot: &mut Snapshot| {
            let key = ObjectKey::new("shop", "web");
            let mut decision = Decision::clone(&snapshot.plan.decisions[&key]);
            let address = "192.168.35.100".parse().unwrap();
            let owner = EgressOwner { address, owner: Some("node-1".into()), reason: None };
            decision.egress.as_mut().expect("it has egress").owners = vec![owner];
            snapshot.plan.decisions.insert(key, Arc::new(decision));
            let end = TunnelEnd { peers: Default::default(), foreign: false, mtu: None };
            snapshot.plan.egress.tunnel = Some(Arc::new(end));
        };
        let by_network = |snapshot: &mut Snapshot| {
            let mapping = Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: Some(15) };
            snapshot.plan.egress.pods.insert("10.244.1.7".parse().unwrap(), mapping);
        };
        assert_eq!(of(&|_| ()), [false, false]);
        assert_eq!(of(&owned), [true, false]);
        assert_eq!(of(&by_network), [false, true]);
    }

    fn web(change: impl FnOnce(&mut Service)) -> Fact {
        let mut service = Service {
            load_balancer: true,
            families: vec![Family::V4],
            egress: Some(Egress::ServiceAddress),
            ..Service::default()
        };
        change(&mut service);
        Fact::Service(ObjectKey::new("shop", "web"), Some(Arc::new(service)))
    }

    #[test]
    fn what_is_held_for_no_service_is_a_problem_and_whoever_lists_it_is_named_with_the_time() {
        let nothing = report(&[], Vec::new());
        assert!(!nothing.holds_back() && nothing.problems.is_empty());
        let until = SystemTime::UNIX_EPOCH + Duration::from_millis(600_900);
        let held = HeldPod { until, pod: Tenant::of("web-1", false).pod() };
        let pods = ["10.244.1.7", "10.244.1.8"];
        let told = || Fact::EgressHeld(Arc::new(pods.map(|pod| (pod.parse().unwrap(), held)).into()));
        let nobody = report(&pods, vec![told()]);
        assert!(nobody.holds_back() && nobody.problems.is_empty(), "{:?}", nobody.problems);
        assert_eq!(nobody.held_back[0].until.map(|until| until.to_string()).as_deref(), Some("1970-01-01T00:10:00Z"));
        for (uid, why) in
            [("web-1", "no Service has crier.dev/egress for it any more"), ("", "targetRef"), ("x", "let go")]
        {
            let tenant = if uid.is_empty() { Tenant::default() } else { Tenant::of(uid, false) };
            let slice = EndpointSlice {
                service: ObjectKey::new("shop", "other"),
                family: None,
                ready: NodeCounts::default(),
                serving: NodeCounts::default(),
                serving_without_node: 0,
                unready: Default::default(),
                addresses: EndpointAddresses::of(&[(pods[0].parse().unwrap(), tenant)]),
            };
            let slice = Fact::EndpointSlice(ObjectKey::new("shop", "other-1"), Some(Arc::new(slice)));
            let listed = report(&pods, vec![told(), slice]);
            let [problem] = listed.problems.as_slice() else { panic!("{:?}", listed.problems) };
            let names = ["shop/other: ", pods[0], "until 1970-01-01T00:10:00Z", "[egress] release-after", why];
            assert!(names.iter().all(|name| problem.contains(name)), "{problem}");
            assert_eq!(listed.held_back[0].services, [ObjectKey::new("shop", "other")]);
            assert_eq!(listed.released.len(), 2);
        }
    }

    #[test]
    fn the_annotation_on_a_service_of_another_type_is_a_problem_that_names_it() {
        let report = report(&[], vec![web(|web| web.load_balancer = false)]);
        assert!(report.holds_back() && report.services.is_empty());
        let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
        assert!(problem.starts_with("shop/web: crier.dev/egress needs a Service of type LoadBalancer"), "{problem}");
    }

    #[test]
    fn lists_that_leave_no_destination_are_noted_for_the_families_of_the_service() {
        let notes = |except: &str| {
            let except = vec![except.parse().unwrap()];
            let destinations = Some(Arc::new(Destinations { to: Vec::new(), except }));
            let bounds = Arc::new(EgressBounds { nodes: None, destinations });
            report(&[], vec![web(|web| web.egress_bounds = Some(bounds))]).notes
        };
        let [note] = &notes("0.0.0.0/0")[..] else { panic!("one note") };
        assert!(note.starts_with("shop/web: ") && note.contains("no destination of IPv4"), "{note}");
        assert_eq!(notes("0.0.0.0/1"), Vec::<String>::new());
        assert_eq!(notes("::/0"), Vec::<String>::new(), "the Service has no IPv6");
    }

    /// Input: a manifest without spec.ipFamilies and without a status, whose destinations are of one family alone.
    /// Output: the note for the family of the address that it is given; and of its pods, where it has no address yet.
    #[test]
    fn a_service_that_names_no_families_has_those_of_its_addresses_and_pods() {
        let notes = |to: &str, facts: Vec<Fact>, addresses: usize| {
            let destinations = Some(Arc::new(Destinations { to: vec![to.parse().unwrap()], except: Vec::new() }));
            let bounds = Arc::new(EgressBounds { nodes: None, destinations });
            let service = web(|web| {
                web.families = Vec::new();
                web.request = match addresses {
                    0 => Ok(Request { addresses: Vec::new(), pools: vec!["gone".into()] }),
                    _ => Ok(Request::default()),
                };
                web.egress_bounds = Some(bounds);
            });
            let report = report(&[], facts.into_iter().chain([service]).collect());
            assert_eq!(report.services.iter().filter(|row| row.address.is_some()).count(), addresses);
            report.notes
        };
        let [note] = &notes("fd00::/8", Vec::new(), 1)[..] else { panic!("one note") };
        assert!(note.starts_with("shop/web: ") && note.contains("no destination of IPv4"), "{note}");
        assert_eq!(notes("203.0.113.0/24", Vec::new(), 1), Vec::<String>::new(), "the Service has no IPv6");
        let [note] = &notes("203.0.113.0/24", vec![with_pod_of_ipv6("web")], 0)[..] else { panic!("one note") };
        assert!(note.contains("no destination of IPv6"), "{note}");
    }

    /// The Service has the pod fd00::7.
    fn with_pod_of_ipv6(service: &str) -> Fact {
        let slice = EndpointSlice {
            service: ObjectKey::new("shop", service),
            family: Some(Family::V6),
            ready: NodeCounts::default(),
            serving: NodeCounts::default(),
            serving_without_node: 0,
            unready: Default::default(),
            addresses: EndpointAddresses::of(&[("fd00::7".parse().unwrap(), Tenant::of("web-1", false))]),
        };
        Fact::EndpointSlice(ObjectKey::new("shop", &format!("{service}-1")), Some(Arc::new(slice)))
    }

    /// Input: a pod of two Services, whose lists of destinations differ. Output: no note of what these leave out, for
    /// they do not count, and a problem that says so.
    #[test]
    fn lists_that_do_not_count_for_a_pod_of_two_services_are_not_noted() {
        let report = |services: &[&str]| {
            let of = |name: &&str| {
                let to = vec!["203.0.113.0/24".parse().unwrap()];
                let destinations = (*name == "api").then(|| Arc::new(Destinations { to, except: Vec::new() }));
                let service = Service {
                    load_balancer: true,
                    families: vec![Family::V6],
                    egress: Some(Egress::ServiceAddress),
                    egress_bounds: Some(Arc::new(EgressBounds { nodes: None, destinations })),
                    ..Service::default()
                };
                [with_pod_of_ipv6(name), Fact::Service(ObjectKey::new("shop", name), Some(Arc::new(service)))]
            };
            report(&[], services.iter().flat_map(of).collect())
        };
        let alone = report(&["api"]);
        assert!(alone.notes.len() == 1 && alone.notes[0].contains("no destination of IPv6"), "{:?}", alone.notes);
        let both = report(&["api", "web"]);
        assert_eq!(both.notes, Vec::<String>::new());
        let told = |problem: &String| problem.contains("its pod fd00::7") && problem.contains("count only where both");
        assert!(both.problems.iter().any(told), "{:?}", both.problems);
    }
}
