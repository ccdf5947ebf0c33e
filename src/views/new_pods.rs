//! What is held back of new pods of this node (`[egress] new-pods`), and whose it is as far as that is known. Floor 1, a part of `egress`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::config::{NewPods, Source};
use crate::names::ObjectKey;
use crate::plan::new_pods::Selected;
use crate::world::ApiServer;

/// A part of `crier egress`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewPodsReport {
    /// The addresses that packets are held back of: of pods that are not known yet, and of those that no EndpointSlice lists yet.
    /// [`MOST_SHOWN`] at most.
    pub held: Vec<HeldNewPod>,
    /// How many these are.
    pub addresses: usize,
    /// Packets that were held back since the agent started.
    pub dropped: u64,
}

/// An address that is held back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldNewPod {
    pub address: IpAddr,
    /// The pod that has it, where that is known.
    pub pod: Option<ObjectKey>,
    /// Packets since the first one of late.
    pub dropped: u64,
    pub reason: String,
}

/// More of them tell nobody anything.
const MOST_SHOWN: usize = 100;
/// Of problems of one kind; the others are alike.
const MOST_NAMED: usize = 10;

/// `None` where new pods are not held back.
pub(super) fn report(snapshot: &Snapshot) -> Option<NewPodsReport> {
    if snapshot.config.egress.new_pods == NewPods::Pass {
        return None;
    }
    let held = held(snapshot);
    Some(NewPodsReport {
        addresses: held.len(),
        held: held.into_iter().take(MOST_SHOWN).map(|address| held_new_pod(snapshot, address)).collect(),
        dropped: snapshot.counters.egress_new_pods.dropped,
    })
}

/// The addresses that are held back now: of pods that are about to be guarded, and of whoever has sent something of late.
pub(super) fn held(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let Some(table) = snapshot.counters.egress_table.as_ref() else { return BTreeSet::new() };
    let sent = snapshot.counters.egress_new_pods.held.keys();
    let all = snapshot.plan.new_pods.selected.keys().chain(sent).copied();
    all.filter(|address| table.hold.holds(*address) && !table.pods.contains_key(address)).collect()
}

fn held_new_pod(snapshot: &Snapshot, address: IpAddr) -> HeldNewPod {
    let (pod, reason) = whose(snapshot, address);
    let dropped = snapshot.counters.egress_new_pods.held.get(&address).map_or(0, |it| it.packets);
    HeldNewPod { address, pod, dropped, reason }
}

/// Who has the address, and why it is held back.
fn whose(snapshot: &Snapshot, address: IpAddr) -> (Option<ObjectKey>, String) {
    let judged = &snapshot.plan.new_pods;
    if let Some(Selected { pod, service }) = judged.selected.get(&address) {
        return (Some(pod.clone()), format!("it is a pod of {service}, and no EndpointSlice of that lists it yet"));
    }
    if let Some(pod) = judged.ending.get(&address) {
        let reason =
            "it terminates, so its address may be another pod's: open connections go on, and it opens no new ones";
        return (Some(pod.clone()), reason.to_owned());
    }
    (None, unknown(snapshot))
}

fn unknown(snapshot: &Snapshot) -> String {
    let world = &snapshot.world;
    match (&world.pods.unseen, &world.api_server) {
        (Some(why), _) => format!("the API server does not show the Pods of this node to crier: {why}"),
        (None, ApiServer::Connecting) => "the API server has not answered yet".to_owned(),
        (None, ApiServer::Unreachable { why, .. }) => format!("the API server is away, so no new Pod is known: {why}"),
        (None, ApiServer::Manifests) => "no manifest of a Pod on this node has this address (status.podIPs)".to_owned(),
        (None, ApiServer::Reachable) => "no Pod of this node has this address (status.podIPs)".to_owned(),
    }
}

/// What is held for long, and why nothing is held although it is to be.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    if snapshot.config.egress.new_pods == NewPods::Pass {
        return Vec::new();
    }
    let counts = &snapshot.counters.egress_new_pods.held;
    let lasting = held(snapshot).into_iter().filter(|address| counts.get(address).is_some_and(|it| it.is_lasting()));
    // A pod that terminates is held by design, and not for long.
    let lasting = lasting.filter(|address| !snapshot.plan.new_pods.ending.contains_key(address));
    let of_pods = lasting.take(MOST_NAMED).map(|address| {
        let HeldNewPod { pod, dropped, reason, .. } = held_new_pod(snapshot, address);
        let pod = pod.map_or_else(|| format!("the pod with {address}"), |pod| format!("the pod {pod} ({address})"));
        format!(
            "{pod} is new on this node, and its outbound connections are held back for more than ten seconds ([egress] new-pods), \
             {dropped} packets of late: {reason}"
        )
    });
    without_hold(snapshot).into_iter().chain(of_pods).collect()
}

/// Nothing is held although it is to be.
fn without_hold(snapshot: &Snapshot) -> Option<String> {
    let Snapshot { world, plan, config, .. } = snapshot;
    let matters = plan.decisions.values().any(|decision| decision.egress.is_some());
    if !matters || (plan.egress.hold.is_some() && world.pods.unseen.is_none()) {
        return None;
    }
    if let Some(why) = &world.pods.unseen {
        let what = match world.pods.listed {
            true => "new pods are held back until it does",
            false => "so new pods are not held back, and may send with this node's address",
        };
        return Some(format!(
            "[egress] new-pods is \"hold\", and the API server does not show the Pods of this node to crier, {what}: apply the objects of \
             `crier rbac --config FILE`: {why}"
        ));
    }
    let is_known = world.nodes.contains_key(&snapshot.node) || matches!(config.source, Source::Manifests(_));
    is_known.then(|| {
        "[egress] new-pods is \"hold\", and nothing tells the networks of this node's pods, so new pods are not held back, and may send \
         with this node's address: the Node has no spec.podCIDRs that count; name the networks in [egress] cluster-networks"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::address::Family;
    use crate::clock;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::egress::counters::{self, HeldAddress};
    use crate::egress::ruleset::{Content, Hold};
    use crate::plan::Planner;
    use crate::selector::Labels;
    use crate::views::Counters;
    use crate::views::egress::{EgressReport, egress};
    use crate::world::{Egress, Fact, Listing, Node, Pod, Refusal, Service};

    const FILE: &str = "[kubernetes]\nin-cluster = true\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100\"]\n[[l2]]\n\
                        [egress]\nnew-pods = \"hold\"\n";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn pod(name: &str, app: &str, address: &str, terminates: bool) -> Fact {
        let labels = Labels([("app", app)].into_iter().collect());
        let pod = Pod { node: "node-1".into(), labels, addresses: vec![ip(address)], terminates };
        Fact::Pod(ObjectKey::new("shop", name), Some(Arc::new(pod)))
    }

    fn node(networks: &[&str]) -> Fact {
        let pod_networks = networks.iter().map(|it| it.parse().expect("a network")).collect();
        Fact::Node("node-1".into(), Some(Arc::new(Node { ready: true, pod_networks, ..Node::default() })))
    }

    /// What an agent says that knows this, and that held packets of these addresses back at so many readings.
    fn said(held: &[(&str, usize)], facts: Vec<Fact>) -> EgressReport {
        let file = SourceFile { path: "crier.toml".to_owned(), text: FILE.to_owned() };
        let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
        let mut planner = Planner::new(Arc::new(config), "node-1".into());
        let service = Service {
            load_balancer: true,
            families: vec![Family::V4],
            egress: Some(Egress::ServiceAddress),
            pod_selector: Some(Arc::new(Labels([("app", "web")].into_iter().collect()))),
            ..Service::default()
        };
        let web = ObjectKey::new("shop", "web");
        let first = [
            Fact::LinksListed,
            Fact::Service(web.clone(), Some(Arc::new(service))),
            node(&["10.244.1.0/24"]),
            Fact::Listed(Listing::Services([web].into())),
            Fact::Listed(Listing::EndpointSlices(BTreeSet::new())),
            Fact::Listed(Listing::Nodes(["node-1".into()].into())),
            Fact::Listed(Listing::Namespaces(BTreeSet::new())),
            Fact::ApiServer(ApiServer::Reachable),
        ];
        first.into_iter().chain(facts).for_each(|fact| planner.apply(fact));
        planner.turn(clock::now());
        let mut table = Content::default();
        if let Some(hold) = &planner.plan().egress.hold {
            let known = hold.known.clone().unwrap_or_default();
            table.hold = Hold { networks: hold.networks.clone(), known, ..Hold::default() };
        }
        let address =
            |(address, readings): &(&str, usize)| (ip(address), HeldAddress { packets: 7, readings: *readings });
        let new_pods = counters::NewPods { dropped: 20, held: held.iter().map(address).collect() };
        let table = Some(Arc::new(table));
        let counters = Counters { egress_table: table, egress_new_pods: new_pods, ..Counters::default() };
        egress(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall()))
    }

    /// Only what is about new pods.
    fn about_new_pods(report: &EgressReport) -> Vec<&String> {
        report.problems.iter().filter(|problem| problem.contains("new-pods")).collect()
    }

    fn listed(pods: Vec<Fact>) -> Vec<Fact> {
        let keys = pods.iter().filter_map(|fact| match fact {
            Fact::Pod(key, Some(_)) => Some(key.clone()),
            _ => None,
        });
        let keys = keys.collect();
        pods.into_iter().chain([Fact::Listed(Listing::Pods(keys))]).collect()
    }

    #[test]
    fn whoever_is_held_is_told_with_the_pod_and_the_reason_and_is_a_problem_once_it_lasts() {
        let pods = || {
            listed(vec![
                pod("plain", "plain", "10.244.1.2", false),
                pod("web-1", "web", "10.244.1.3", false),
                pod("old", "plain", "10.244.1.4", true),
            ])
        };
        let sent = ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5"];
        let said_after = |readings: usize| said(&sent.map(|address| (address, readings)), pods());
        let soon = said_after(2);
        let new_pods = soon.new_pods.as_ref().expect("they are held back");
        assert_eq!((new_pods.addresses, new_pods.dropped), (3, 20), "the first one is known");
        let told: Vec<String> = new_pods.held.iter().map(|it| format!("{} {:?}", it.address, it.pod)).collect();
        for (told, (address, pod)) in
            told.iter().zip([("10.244.1.3", "web-1"), ("10.244.1.4", "old"), ("10.244.1.5", "None")])
        {
            assert!(told.contains(address) && told.contains(pod), "{told}");
        }
        assert_eq!(about_new_pods(&soon), Vec::<&String>::new());
        let lasting = said_after(9);
        let [unlisted, unknown] = about_new_pods(&lasting)[..] else { panic!("{:?}", lasting.problems) };
        for word in ["shop/web-1 (10.244.1.3)", "a pod of shop/web", "no EndpointSlice", "7 packets"] {
            assert!(unlisted.contains(word), "{word}: {unlisted}");
        }
        for word in ["the pod with 10.244.1.5", "no Pod of this node has this address"] {
            assert!(unknown.contains(word), "{word}: {unknown}");
        }
        assert!(lasting.holds_back());
    }

    #[test]
    fn with_the_api_server_away_the_reason_says_so() {
        let away =
            ApiServer::Unreachable { since: clock::wall(), why: "no route".to_owned(), refusal: Refusal::NoAnswer };
        let facts = listed(vec![]).into_iter().chain([Fact::ApiServer(away)]).collect();
        let said = said(&[("10.244.1.5", 9)], facts);
        let problems = about_new_pods(&said);
        assert!(
            problems.iter().any(|it| it.contains("the API server is away") && it.contains("no route")),
            "{problems:?}"
        );
    }

    #[test]
    fn who_sees_no_pods_or_knows_no_network_of_them_says_that_nothing_is_held() {
        let unseen = said(&[], vec![Fact::PodsUnseen(Some("403 forbidden".to_owned()))]);
        let [problem] = about_new_pods(&unseen)[..] else { panic!("{:?}", unseen.problems) };
        for word in ["crier rbac --config FILE", "403 forbidden", "not held back"] {
            assert!(problem.contains(word), "{word}: {problem}");
        }
        let facts = listed(vec![]).into_iter().chain([node(&[])]).collect();
        let without = said(&[], facts);
        let [problem] = about_new_pods(&without)[..] else { panic!("{:?}", without.problems) };
        assert!(problem.contains("spec.podCIDRs") && problem.contains("cluster-networks"), "{problem}");
        let later: Vec<Fact> = listed(vec![]).into_iter().chain([Fact::PodsUnseen(Some("403".to_owned()))]).collect();
        let later = said(&[], later);
        assert!(about_new_pods(&later)[0].contains("held back until it does"), "{:?}", later.problems);
        assert_eq!(about_new_pods(&said(&[], listed(vec![]))), Vec::<&String>::new(), "all is well");
    }
}
