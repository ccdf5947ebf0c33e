//! Egress over BGP alone: one node is elected to announce, and all agree which. And with another configuration or a drain.

use std::time::SystemTime;

use super::pulses::{ADDRESS, answering, heard, roster, with_pulses};
use super::*;
use crate::address::MacAddress;
use crate::claim::ConflictKind;
use crate::plan::session_memory::{AWAY_AFTER, BACK_AFTER};
use crate::plan::slice::{Exit, Mapping};
use crate::plan::tickets::Ticket;
use crate::roster::{Eligibility, NodeTicket, Stage, Unproved};
use crate::world::{
    Area, Conflict, DefaultRoute, Destinations, Drain, DrainStage, Egress, EgressBounds, EndpointAddresses, HeldPod,
    HostProblem, NodeCounts, Ordered, OvnGateway, Pulses, Tenant,
};

const POD: &str = "10.244.1.2";

/// A Service with a pod, whose packets leave with its address. BGP alone.
fn sending_on(me: &str) -> Story {
    let mut story = Story::begin_on(me, Config { l2: Vec::new(), ..configuration() });
    for name in ["a", "b", "c"] {
        let of_node = IpAddr::from([192, 168, 35, 20 + name.as_bytes()[0] - b'a']);
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { addresses: vec![of_node], ..node(&[]) }))));
    }
    story.put("web", Service { egress: Some(Egress::ServiceAddress), ..story_ingress() });
    with_pod(&mut story);
    story
}

fn with_pod(story: &mut Story) {
    with_endpoints(story, &[POD]);
}

/// What the EndpointSlice of the Service says.
fn with_endpoints(story: &mut Story, addresses: &[&str]) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
    with_slice(story, "web", addresses.into());
}

/// The pods by their UIDs that the EndpointSlice of a Service lists.
fn with_pods(story: &mut Story, service: &str, pods: &[(&str, &str)]) {
    let pods: Vec<(IpAddr, Tenant)> =
        pods.iter().map(|(it, uid)| (it.parse().unwrap(), Tenant::of(uid, false))).collect();
    with_slice(story, service, EndpointAddresses::of(&pods));
}

fn with_slice(story: &mut Story, service: &str, addresses: EndpointAddresses) {
    let slice = EndpointSlice {
        service: key(service),
        family: None,
        ready: NodeCounts::from([("b".into(), 1)]),
        serving: NodeCounts::from([("b".into(), 1)]),
        serving_without_node: 0,
        unready: Default::default(),
        addresses,
    };
    story.tell(Fact::EndpointSlice(key(&format!("{service}-1")), Some(Arc::new(slice))));
    story.turn();
}

/// Only nodes with the label rack=a.
fn on_rack_a() -> Option<Arc<EgressBounds>> {
    Some(Arc::new(EgressBounds { nodes: Some("rack=a".parse().unwrap()), destinations: None }))
}

fn labelled(story: &mut Story, name: &str, labels: &[(&str, &str)]) {
    let addresses = story.planner.world().nodes[&NodeName::from(name)].addresses.clone();
    story.tell(Fact::Node(name.into(), Some(Arc::new(Node { addresses, ..node(labels) }))));
    story.turn();
}

fn owner(story: &Story) -> Option<NodeName> {
    story.decision("web").egress.as_ref().and_then(|egress| egress.owners[0].owner.clone())
}

fn mapping(story: &Story) -> Mapping {
    story.planner.plan().egress.pods[&POD.parse::<IpAddr>().unwrap()]
}

fn translated() -> Mapping {
    Mapping::Translated { address: "192.168.35.100".parse().unwrap(), network: None }
}

/// What an EndpointSlice says, although no pod has these addresses: the node itself and its second address, a router, this and another
/// Service's address, and what nobody can have.
#[test]
fn what_is_no_pods_address_is_never_guarded_whatever_an_endpoint_slice_says() {
    let mut story = sending_on("a");
    let mut link = story.planner.world().links[&2].clone();
    link.addresses.push("192.0.2.77/24".parse().unwrap());
    story.tell(Fact::Link(2, Some(link)));
    story.tell(Fact::DefaultRoutes(vec![DefaultRoute::via("192.168.35.1", 2, 0)]));
    let no_pods = [
        "192.168.35.11",
        "192.0.2.77",
        "192.168.35.1",
        "192.168.35.100",
        "192.168.35.101",
        "192.168.35.21",
        "0.0.0.0",
        "255.255.255.255",
        "127.0.0.1",
        "224.0.0.5",
        "169.254.1.1",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
    ];
    with_endpoints(&mut story, &[&no_pods[..], &[POD]].concat());
    let guarded: Vec<String> = story.planner.plan().egress.pods.keys().map(ToString::to_string).collect();
    assert_eq!(guarded, [POD]);
    // The Node's object goes, as in a new registration: the host is no pod all the same.
    story.tell(Fact::Node("a".into(), None));
    story.turn();
    assert!(!story.planner.plan().egress.pods.contains_key(&"192.168.35.11".parse::<IpAddr>().unwrap()));
}

/// What the keeper of the table tells when nobody asks for the pod any more.
fn held_for(uid: &str) -> Fact {
    let held = HeldPod { until: SystemTime::UNIX_EPOCH, pod: Tenant::of(uid, false).pod() };
    Fact::EgressHeld(Arc::new([(POD.parse().unwrap(), held)].into()))
}

fn is_let_go(story: &Story) -> bool {
    let slice = &story.planner.plan().egress;
    let let_go = slice.let_go.get(&POD.parse::<IpAddr>().unwrap());
    assert!(let_go.is_none_or(|pod| Some(*pod) == Tenant::of("web-uid", false).pod()), "it says for whom it was held");
    let_go.is_some()
}

#[test]
fn an_address_that_left_a_service_with_egress_is_let_go_when_a_pod_of_another_uid_has_it() {
    let mut story = sending_on("a");
    with_pods(&mut story, "web", &[(POD, "web-uid")]);
    let mark = story.planner.plan().egress.marks[&POD.parse::<IpAddr>().unwrap()];
    assert_eq!(Some(mark), Tenant::of("web-uid", false).pod());
    // The pod has ended, and the next one of another Service, which is of type ClusterIP, gets its address.
    with_pods(&mut story, "web", &[("10.244.1.3", "web-2-uid")]);
    story.tell(held_for("web-uid"));
    assert!(!story.turn().moved.egress && !is_let_go(&story));
    with_pods(&mut story, "other", &[("10.244.1.9", "x"), (POD, "other-uid")]);
    assert!(is_let_go(&story));
    let newcomer = &story.planner.plan().newcomers[&POD.parse::<IpAddr>().unwrap()];
    assert_eq!(newcomer.services.iter().collect::<Vec<_>>(), [&key("other")]);
    story.tell(Fact::EgressHeld(Arc::default()));
    assert!(story.turn().moved.egress && !is_let_go(&story));
}

#[test]
fn a_pod_whose_service_loses_the_annotation_is_not_let_go_by_another_service_that_has_it_too() {
    let mut story = sending_on("a");
    with_pods(&mut story, "web", &[(POD, "web-uid")]);
    with_pods(&mut story, "headless", &[(POD, "web-uid")]);
    story.change("web", |web| web.egress = None);
    assert!(story.planner.plan().egress.pods.is_empty());
    story.tell(held_for("web-uid"));
    story.turn();
    assert!(!is_let_go(&story));
    // The Service with its EndpointSlice is deleted: the pod goes on in the other one.
    story.tell(Fact::EndpointSlice(key("web-1"), None));
    story.tell(Fact::Service(key("web"), None));
    story.turn();
    assert!(!is_let_go(&story));
}

#[test]
fn two_pods_at_one_address_are_no_pod_that_is_known() {
    let mut story = sending_on("a");
    with_pods(&mut story, "web", &[(POD, "web-uid"), (POD, "web-2-uid")]);
    assert!(story.planner.plan().egress.marks.is_empty());
    with_pods(&mut story, "web", &[(POD, "web-2-uid")]);
    assert_eq!(story.planner.plan().egress.marks.len(), 1);
    story.put("also", Service { egress: Some(Egress::ServiceAddress), ..story_ingress() });
    with_pods(&mut story, "also", &[(POD, "web-uid")]);
    assert!(story.planner.plan().egress.marks.is_empty(), "of two Services with egress");
}

#[test]
fn the_annotation_on_a_service_that_is_not_ours_is_told_and_guards_nothing() {
    let mut story = sending_on("a");
    story.tell(Fact::Allocates(true));
    story.turn();
    story.change("web", |web| web.load_balancer = false);
    assert_eq!(story.decision("web").allocation.complaint, Some(Reason::EgressNeedsLoadBalancer));
    assert!(story.planner.plan().egress.pods.is_empty(), "the machine holds them as those of a removed annotation");
    let notice = story.planner.plan().status.services[&key("web")].notice.clone().expect("an Event");
    assert_eq!((notice.warning, notice.reason.as_str()), (true, "EgressRefused"));
    assert!(notice.message.contains("needs a Service of type LoadBalancer"), "{}", notice.message);
    // One that never was of the type, and whose status says nothing.
    let plain = Service { resource_version: "1".to_owned(), ..Service::default() };
    story.put("plain", Service { egress: Some(Egress::Network), ..plain.clone() });
    assert_eq!(story.decision("plain").allocation.complaint, Some(Reason::EgressNeedsLoadBalancer));
    story.tell(Fact::Service(key("plain"), Some(Arc::new(plain))));
    story.turn();
    assert!(
        !story.planner.plan().decisions.contains_key(&key("plain")),
        "without the annotation it is no matter of ours"
    );
    let class = Some("example.com/other".to_owned());
    story.put("far", Service { egress: Some(Egress::ServiceAddress), class: class.clone(), ..story_ingress() });
    assert_eq!(story.decision("far").allocation.complaint, Some(Reason::EgressOfOtherClass { class }));
    let notice = story.planner.plan().status.services.get(&key("far")).and_then(|status| status.notice.clone());
    assert_eq!(notice, None, "whose class it is may serve it");
}

/// The owner, and the node that is elected where the owner is none.
fn first_and_second() -> (NodeName, NodeName) {
    let mut story = sending_on("a");
    let first = owner(&story).expect("there is one");
    story.tell(Fact::Node(first.clone(), Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    story.turn();
    (first, owner(&story).expect("there is another"))
}

/// Input: a pod that has just started, or is about to end, alone in its Service. It may need the outside to become ready.
#[test]
fn a_pod_that_takes_no_connections_leaves_by_the_owner_too() {
    let slice = |ready: NodeCounts, unready: NodeCounts| EndpointSlice {
        service: key("web"),
        family: None,
        serving: ready.clone(),
        ready,
        serving_without_node: 0,
        unready,
        addresses: vec![POD.parse().unwrap()].into(),
    };
    let on = |node: &str| NodeCounts::from([(node.into(), 1)]);
    let (first, _) = first_and_second();
    // With the policy Local only the node of the pod may own the address.
    for (policy, me) in [(TrafficPolicy::Cluster, first.as_str()), (TrafficPolicy::Local, "b")] {
        let mut story = sending_on(me);
        story.change("web", |web| web.external_traffic_policy = policy);
        let with = |story: &mut Story, ready, unready| {
            story.tell(Fact::EndpointSlice(key("web-1"), Some(Arc::new(slice(ready, unready)))));
            story.turn();
        };
        with(&mut story, NodeCounts::default(), on("b"));
        assert_eq!(owner(&story), Some(me.into()), "{policy:?}");
        assert_eq!((story.routes(), mapping(&story)), (vec!["192.168.35.100/32".to_owned()], translated()));
        // A node with a pod that takes connections is the better one.
        with(&mut story, on("c"), on("b"));
        let expected = if policy == TrafficPolicy::Local { "c" } else { me };
        assert_eq!(owner(&story), Some(expected.into()), "{policy:?}");
        with(&mut story, NodeCounts::default(), on("b"));
        story.change("web", |web| web.egress = None);
        assert!(story.routes().is_empty(), "nobody serves it, and it has no egress");
    }
}

#[test]
fn another_node_announces_as_soon_as_the_elected_one_is_not_ready() {
    let (first, second) = first_and_second();
    assert_ne!(first, second);
    let mut story = sending_on(second.as_str());
    assert!(story.routes().is_empty(), "{first} announces");
    assert!(matches!(mapping(&story), Mapping::Steered { .. }), "{:?}", mapping(&story));
    story.tell(Fact::Node(first, Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    story.turn();
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
    assert_eq!(mapping(&story), translated());
}

/// Input: the file and the Nodes' labels say which nodes have a peer to announce the address to. Output: all nodes elect
/// the same of these.
#[test]
fn a_node_without_a_peer_of_a_covering_advertisement_is_passed_over_by_all() {
    let (first, second) = first_and_second();
    let base = || Config { l2: Vec::new(), ..configuration() };
    let on_rack = |peer: &str| config::Peer { nodes: Some("rack=a".parse().unwrap()), ..super::peer(peer) };
    let by_rack = Config { bgp: Bgp { peers: vec![on_rack("tor")], ..base().bgp }, ..base() };
    // A peer of all nodes that the advertisement does not name changes nothing, and none that is shut does.
    let shut = config::Peer { shutdown: true, ..super::peer("shut") };
    let of_tor = Advertisement { peers: vec!["tor".into(), "shut".into()], ..advertisement() };
    let peers = vec![on_rack("tor"), super::peer("other"), shut];
    let named = Config { bgp: Bgp { peers, advertisements: vec![of_tor], ..base().bgp }, ..base() };
    for config in [by_rack, named] {
        for me in ["a", "b", "c"] {
            let mut story = sending_on(me);
            story.tell(Fact::Config(Arc::new(config.clone())));
            story.turn();
            let why = story.decision("web").egress.as_ref().and_then(|egress| egress.owners[0].reason.clone());
            assert_eq!((owner(&story), why), (None, Some(Reason::NoEgressNode)), "{me}");
            assert_eq!(mapping(&story), Mapping::Held, "{me}");
            labelled(&mut story, second.as_str(), &[("rack", "a")]);
            assert_eq!(owner(&story), Some(second.clone()), "{me}");
            let to_tor = story.planner.plan().bgp.peers.get(&PeerName::from("tor")).map(|peer| peer.routes.len());
            assert_eq!(to_tor, (second == me.into()).then_some(1), "{me}");
            labelled(&mut story, first.as_str(), &[("rack", "a")]);
            assert_eq!(owner(&story), Some(first.clone()), "{me}");
        }
    }
    // No peer is in the VRF of the pool.
    let mut config = base();
    config.pools[0].vrf = Some("red".into());
    let mut story = sending_on(first.as_str());
    story.tell(Fact::Config(Arc::new(config)));
    story.turn();
    assert_eq!(owner(&story), None);
}

/// Input: an aggregate, which another Service has every node announce. Output: the owner alone announces the address
/// by itself too, so that the longest prefix leads to it.
#[test]
fn the_owner_announces_a_route_of_the_address_beside_the_aggregate() {
    let (first, second) = first_and_second();
    let mut config = Config { l2: Vec::new(), ..configuration() };
    config.bgp.advertisements[0].aggregation_length = 30;
    for (me, expected) in
        [(first, &["192.168.35.100/30", "192.168.35.100/32"][..]), (second, &["192.168.35.100/30"][..])]
    {
        let mut story = sending_on(me.as_str());
        story.tell(Fact::Config(Arc::new(config.clone())));
        story.put("plain", Service { ingress: vec!["192.168.35.101".parse().unwrap()], ..service() });
        story.endpoints("plain", &["b"]);
        assert_eq!(story.routes(), expected, "{me}");
        story.change("web", |web| web.egress = None);
        assert_eq!(story.routes(), ["192.168.35.100/30"], "{me}: every node announces it");
    }
}

/// Input: the elected node says that it has had no session for some time, and the others that they have one, or none.
#[test]
fn a_node_without_a_bgp_session_gives_way_to_one_that_has_one_and_nothing_moves_where_nobody_has() {
    use crate::roster::Sessions::{Away, Missing, Stand};
    let [first, second, third] = by_place();
    let says = |all: &[(&NodeName, Option<crate::roster::Sessions>)]| {
        let names: Vec<(&str, &[&str])> = all.iter().map(|(name, _)| (name.as_str(), &[][..])).collect();
        heard(roster(&names, &[]), |roster| {
            for (name, sessions) in all {
                roster.members.get_mut(*name).expect("it is a member").sessions = *sessions;
            }
        })
    };
    let mut story = sending_on(third.as_str());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    let owner_of = |story: &mut Story, fact: Fact| {
        story.tell(fact);
        story.turn();
        owner(story).expect("there is one")
    };
    for (of_first, of_second, expected) in [
        (Stand, Stand, &first),
        (Missing, Stand, &first),
        (Away, Stand, &second),
        // A session that comes and goes does not move it back.
        (Away, Missing, &second),
        (Stand, Stand, &first),
        (Away, Away, &third),
    ] {
        let fact = says(&[(&first, Some(of_first)), (&second, Some(of_second))]);
        assert_eq!(owner_of(&mut story, fact), *expected, "{of_first:?} {of_second:?}");
        assert_eq!(story.routes().len(), usize::from(*expected == third), "{of_first:?} {of_second:?}");
    }
    // Who is not heard does not learn of it.
    assert_eq!(owner_of(&mut story, says(&[(&first, Some(Away))])), third);

    // The elected node itself.
    let mut story = sending_on(first.as_str());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    let session = |state| Fact::Session("tor".into(), crate::world::SessionReport::new(state, SystemTime::UNIX_EPOCH));
    let (up, down) = (session(crate::world::SessionState::Established), session(crate::world::SessionState::Active));
    let others = |sessions| says(&[(&second, sessions), (&third, sessions)]);
    story.tell(up.clone());
    assert_eq!(owner_of(&mut story, others(Some(Missing))), first);
    assert_eq!(story.planner.plan().pulse.sessions, Some(Stand));
    let turn = {
        story.tell(down.clone());
        story.turn()
    };
    assert!(turn.moved.pulse, "the others hear it at once");
    story.now += Duration::from_secs(60);
    assert_eq!(owner_of(&mut story, others(Some(Missing))), first, "nobody has one");
    assert_eq!(owner_of(&mut story, others(None)), first, "versions that do not say so would not take it");
    assert_eq!(owner_of(&mut story, others(Some(Stand))), second);
    assert_eq!((story.planner.plan().pulse.sessions, story.routes().len()), (Some(Away), 0));
    assert!(matches!(mapping(&story), Mapping::Steered { .. }), "{:?}", mapping(&story));
    story.tell(up);
    assert_eq!(owner_of(&mut story, others(Some(Stand))), second, "it has to stand for a while");
    assert!(story.planner.next_deadline().is_some_and(|due| due <= story.now + BACK_AFTER));
    story.now += BACK_AFTER;
    story.turn();
    assert_eq!((owner(&story), story.routes().len()), (Some(first.clone()), 1));
    // A session that is back in time moves nothing.
    story.tell(down);
    story.turn();
    story.now += AWAY_AFTER - Duration::from_millis(1);
    story.turn();
    assert_eq!(owner(&story), Some(first));
    story.now += Duration::from_millis(1);
    story.turn();
    assert_eq!(owner(&story), Some(second));
}

#[test]
fn another_node_announces_as_soon_as_the_elected_one_says_that_it_is_drained() {
    let (first, second) = first_and_second();
    let mut story = sending_on(second.as_str());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    let says = |eligibility| {
        heard(roster(&[(first.as_str(), &[])], &[]), |roster| {
            roster.members.values_mut().for_each(|member| member.eligibility = eligibility);
        })
    };
    story.tell(says(Eligibility::Draining));
    story.turn();
    assert_eq!(owner(&story), Some(first.clone()), "it still announces");
    story.tell(says(Eligibility::Drained));
    story.turn();
    assert_eq!((owner(&story), mapping(&story)), (Some(second), translated()));
    story.tell(says(Eligibility::Eligible));
    story.turn();
    assert_eq!(owner(&story), Some(first));
    assert!(story.routes().is_empty());
}

#[test]
fn a_drained_node_sends_packets_to_the_next_owner_where_that_one_knows_and_holds_them_elsewhere() {
    let (first, second) = first_and_second();
    for (pulses, next) in [(Pulses::Off, first.clone()), (Pulses::On { authenticated: true }, second)] {
        let mut story = sending_on(first.as_str());
        story.tell(Fact::Pulses(pulses));
        story.turn();
        assert_eq!(mapping(&story), translated());
        let (since, until) = (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH);
        let drain = Drain { stage: DrainStage::Drained, ordered: Ordered::default(), since, until, timed_out: false };
        story.tell(Fact::Drain(Some(Arc::new(drain))));
        story.turn();
        assert!(story.routes().is_empty());
        assert_eq!(owner(&story), Some(next.clone()));
        match next == first {
            true => assert_eq!(mapping(&story), Mapping::Held, "no other node takes them"),
            false => assert!(matches!(mapping(&story), Mapping::Steered { .. }), "{:?}", mapping(&story)),
        }
    }
}

#[test]
fn pods_of_other_nodes_are_known_by_the_networks_of_all_nodes_and_the_links_that_they_share() {
    let mut story = sending_on("a");
    let mut with = |name: &str, networks: &[&str]| {
        let pod_networks = networks.iter().map(|it| it.parse().unwrap()).collect();
        let addresses = story.planner.world().nodes[&NodeName::from(name)].addresses.clone();
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { addresses, pod_networks, ..node(&[]) }))));
        let turn = story.turn();
        let networks = &story.planner.plan().egress.pod_networks;
        (turn.moved.egress, networks.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(with("a", &["10.244.1.0/24"]), (true, vec!["10.244.1.0/24".to_owned()]));
    assert_eq!(with("b", &["10.244.2.0/24", "fd44:2::/64"]).1, ["10.244.1.0/24", "10.244.2.0/24", "fd44:2::/64"]);
    assert_eq!(with("c", &["10.244.3.1/24"]).1.len(), 4, "a host in the network stands for all of it");
    assert_eq!(with("c", &[]).1.len(), 3);
    // Other Nodes are on the link 2 alone.
    let pod_link = Link { name: "cni0".into(), ..Link::carrying(5, "cni0", &["10.244.1.1/24"]) };
    story.tell(Fact::Link(5, Some(pod_link)));
    story.turn();
    assert_eq!(*story.planner.plan().egress.shared_links, [2].into());
}

/// Input: a Node whose `podCIDRs` hold all the world, or a large part of the Internet. Output: no destination is taken
/// for one in the cluster by it.
#[test]
fn podcidrs_that_are_too_wide_for_pods_are_left_out() {
    let mut story = sending_on("a");
    let wide = ["0.0.0.0/0", "::/0", "203.0.0.0/8", "2001::/16", "2001:db8::/31", "172.0.0.0/10", "100.0.0.0/9"];
    let fit = ["10.0.0.0/8", "11.7.0.0/16", "100.64.0.0/10", "172.16.0.0/12", "2001:db7::/32", "fd00::/16"];
    let pod_networks: Vec<ipnet::IpNet> = wide.iter().chain(&fit).map(|it| it.parse().unwrap()).collect();
    let of_pods = Node { pod_networks, ..node(&[]) };
    story.tell(Fact::Node("b".into(), Some(Arc::new(of_pods))));
    story.turn();
    let egress = &story.planner.plan().egress;
    assert_eq!(egress.pod_networks.iter().map(ToString::to_string).collect::<Vec<_>>(), fit);
    let outside: [IpAddr; 2] = ["203.0.113.9", "2001:db8::9"].map(|it| it.parse().unwrap());
    assert!(
        !egress.cluster.iter().any(|net| outside.iter().any(|address| net.contains(address))),
        "{:?}",
        egress.cluster
    );
}

/// The same of ServiceCIDRs.
#[test]
fn service_cidrs_that_hold_all_the_world_are_left_out() {
    let mut story = sending_on("a");
    let networks = ["0.0.0.0/0", "::/0", "10.96.0.0/12", "fd10::/108"].map(|it| it.parse().unwrap());
    story.tell(Fact::ServiceCidr("kubernetes".to_owned(), Some(Arc::new(networks.into()))));
    story.turn();
    let cluster = &story.planner.plan().egress.cluster;
    let has = |net: &str| cluster.contains(&net.parse().unwrap());
    assert!(has("10.96.0.0/12") && has("fd10::/108") && !has("0.0.0.0/0") && !has("::/0"), "{cluster:?}");
    let wide: Vec<String> =
        story.planner.world().too_wide_for_services().map(|(name, net)| format!("{name} {net}")).collect();
    assert_eq!(wide, ["kubernetes 0.0.0.0/0", "kubernetes ::/0"]);
}

/// Input: a pool that holds the pods' network. Output: what an EndpointSlice names as a pod is guarded as before; an
/// address of the pool that it names nobody for is a Service's, as far as is known.
#[test]
fn a_pod_with_an_address_of_a_pool_is_guarded_where_its_endpoint_slice_names_it() {
    let mut story = sending_on("a");
    let guarded = |story: &Story| {
        story.planner.plan().egress.pods.iter().map(|(pod, mapping)| (pod.to_string(), *mapping)).collect::<Vec<_>>()
    };
    let pod = "192.168.35.105";
    with_pods(&mut story, "web", &[(pod, "web-uid")]);
    let before = guarded(&story);
    assert_eq!(before, [(pod.to_owned(), translated())]);
    with_endpoints(&mut story, &[pod]);
    assert_eq!(guarded(&story), []);
    // A Service has it.
    let ingress = vec![pod.parse().unwrap()];
    story.put("plain", Service { ingress, ..service() });
    story.endpoints("plain", &["b"]);
    story.turn();
    with_pods(&mut story, "web", &[(pod, "web-uid")]);
    assert_eq!(guarded(&story), []);
}

/// Input: OVN-Kubernetes' mode in this Node's annotation. Output: the observer of the host is told.
#[test]
fn the_gateway_mode_of_ovn_kubernetes_is_that_of_this_node() {
    let mut story = sending_on("a");
    let mut with = |name: &str, mode: Option<OvnGateway>| {
        let addresses = story.planner.world().nodes[&NodeName::from(name)].addresses.clone();
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { addresses, ovn_gateway: mode, ..node(&[]) }))));
        let moved = story.turn().moved.egress;
        (moved, story.planner.plan().egress.ovn_gateway)
    };
    let (shared, local) = (Some(OvnGateway::Shared), Some(OvnGateway::Local));
    assert_eq!(with("a", shared), (true, shared));
    assert_eq!(with("b", local).1, shared);
    assert_eq!(with("a", None), (true, None));
}

/// Input: this node answers on an extra network too, where no Node has its address. Output: the others send pods'
/// packets by the link of the Nodes' addresses alone, so no filter of the other one drops any; what must not leave by either stays
/// guarded on both.
#[test]
fn other_nodes_send_by_the_links_of_the_nodes_addresses_where_they_have_one_there() {
    let mut story = sending_on("a");
    let config = configuration();
    let l2 = config.l2.iter().cloned().map(|l2| L2 { interfaces: Vec::new(), ..l2 }).collect();
    story.tell(Fact::Config(Arc::new(Config { l2, ..config })));
    let mac = Some("02:00:00:00:00:07".parse().unwrap());
    story.tell(Fact::Link(7, Some(Link { mac, ..Link::carrying(7, "eth1", &["10.1.0.11/24"]) })));
    let at = |address: &str| Node { addresses: vec![address.parse().unwrap()], ..node(&[]) };
    story.tell(Fact::Node("a".into(), Some(Arc::new(at("192.168.35.11")))));
    story.turn();
    let links = |story: &Story| {
        let egress = &story.planner.plan().egress;
        [&egress.shared_links, &egress.roads].map(|links| links.iter().copied().collect::<Vec<_>>())
    };
    assert_eq!(links(&story), [vec![2, 7], vec![2]]);
    // A VRF with the same network, and with the Node's address in it once more.
    let red = Link { vrf: Some(9), ..Link::carrying(8, "eth2", &["192.168.35.11/24"]) };
    story.tell(Fact::Link(8, Some(red)));
    story.turn();
    assert_eq!(links(&story)[1], [2], "what comes in by the VRF is from another network");
    story.tell(Fact::Link(8, None));
    // A Node of elsewhere may have a link there that nobody tells of.
    story.tell(Fact::Node("c".into(), Some(Arc::new(at("172.16.0.9")))));
    story.turn();
    assert_eq!(links(&story), [vec![2, 7], vec![2, 7]]);
}

#[test]
fn networks_of_pods_that_the_operator_names_count_where_no_node_has_them() {
    let mut story = sending_on("a");
    let mut config = Config { l2: Vec::new(), ..configuration() };
    let named = ["10.240.0.0/12", "10.96.0.0/12", "192.168.0.0/16"];
    config.egress.cluster_networks = named.map(|it| it.parse().unwrap()).into();
    story.tell(Fact::ServiceCidr("kubernetes".to_owned(), Some(Arc::new(vec!["10.96.0.0/16".parse().unwrap()]))));
    story.tell(Fact::Config(Arc::new(config)));
    story.turn();
    let told: Vec<String> = story.planner.plan().egress.pod_networks.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.240.0.0/12"], "the others are those of Services and of the Nodes");
}

#[test]
fn another_configuration_renews_the_networks_of_the_cluster_and_moves_no_pod() {
    let (first, _) = first_and_second();
    let mut story = sending_on(first.as_str());
    let pods = story.planner.plan().egress.pods.clone();
    let mut config = Config { l2: Vec::new(), ..configuration() };
    config.egress.cluster_networks = vec!["10.244.0.0/16".parse().unwrap()];
    story.tell(Fact::Config(Arc::new(config.clone())));
    let turn = story.turn();
    assert!(turn.moved.egress && !turn.moved.bgp, "{:?}", turn.moved);
    let slice = &story.planner.plan().egress;
    assert!(slice.cluster.contains(&"10.244.0.0/16".parse().unwrap()), "{:?}", slice.cluster);
    assert_eq!(slice.pods, pods);
    config.bgp.advertisements.clear();
    story.tell(Fact::Config(Arc::new(config)));
    story.turn();
    assert_eq!(mapping(&story), Mapping::Held, "nobody announces the address any more");
}

#[test]
fn another_node_announces_as_soon_as_the_agent_of_the_elected_one_is_silent_although_its_node_is_ready() {
    let (first, second) = first_and_second();
    let mut story = sending_on(second.as_str());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    let third = ["a", "b", "c"].map(NodeName::from).into_iter().find(|name| *name != first && *name != second);
    let third = third.expect("there are three");
    let of = |members: &[&NodeName], silent: &[&NodeName]| {
        let members: Vec<(&str, &[&str])> = members.iter().map(|name| (name.as_str(), &[][..])).collect();
        let silent: Vec<&str> = silent.iter().map(|name| name.as_str()).collect();
        roster(&members, &silent)
    };
    story.tell(of(&[&first, &third], &[]));
    story.turn();
    assert_eq!(owner(&story), Some(first.clone()));
    story.tell(of(&[&third], &[&first]));
    story.turn();
    assert_eq!((owner(&story), mapping(&story)), (Some(second.clone()), translated()));
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
    story.tell(of(&[&first, &third], &[]));
    story.turn();
    assert_eq!(owner(&story), Some(first.clone()), "it is back");
    // An agent that starts later has never heard it, and knows where it would be heard.
    story.tell(of(&[&third], &[]));
    story.turn();
    assert_eq!(owner(&story), Some(second));
    // Where nobody is heard, nobody is known to be away.
    story.tell(of(&[], &[]));
    story.turn();
    assert_eq!(owner(&story), Some(first));
}

/// What the nodes say: each by whether it hears this node, and by which addresses packets of pods leave with there.
fn saying(nodes: &[(&NodeName, bool, Option<&[&str]>)]) -> Fact {
    let names: Vec<(&str, &[&str])> = nodes.iter().map(|(name, ..)| (name.as_str(), &[][..])).collect();
    heard(roster(&names, &[]), |roster| {
        for (name, hears, egress) in nodes {
            let member = roster.members.get_mut(*name).expect("it is a member");
            member.deaf = !hears;
            member.egress = egress.map(|all| Arc::new(all.iter().map(|it| it.parse().unwrap()).collect()));
        }
    })
}

fn by_place() -> [NodeName; 3] {
    let (first, second) = first_and_second();
    let third = ["a", "b", "c"].map(NodeName::from).into_iter().find(|name| *name != first && *name != second);
    [first, second, third.expect("there are three")]
}

#[test]
fn the_elected_node_gives_way_to_one_that_says_that_it_is_the_owner_and_does_not_hear_it() {
    let [first, second, third] = by_place();
    let mine: Option<&[&str]> = Some(&["192.168.35.100"]);
    let nothing: Option<&[&str]> = Some(&[]);
    let mut story = sending_on(first.as_str());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    let mut owner_where = |fact: Fact| {
        story.tell(fact);
        story.turn();
        let announces = !story.routes().is_empty();
        (owner(&story).expect("there is one"), announces)
    };
    assert_eq!(owner_where(saying(&[(&second, true, nothing), (&third, true, nothing)])), (first.clone(), true));
    let unheard = [(&second, false, nothing), (&third, false, nothing)];
    assert_eq!(owner_where(saying(&unheard)), (first.clone(), true), "no other node owns it");
    let taken = [(&second, false, mine), (&third, false, nothing)];
    assert_eq!(owner_where(saying(&taken)), (second.clone(), false));
    let by_one = [(&second, true, nothing), (&third, false, mine)];
    assert_eq!(owner_where(saying(&by_one)), (third.clone(), false), "one of two does not hear it");
    let heals = [(&second, true, mine), (&third, true, nothing)];
    assert_eq!(owner_where(saying(&heals)), (first.clone(), true), "the other is about to give way itself");
    // Two nodes; and the same after a restart of this agent, which no node has answered yet.
    assert_eq!(owner_where(saying(&[(&second, false, mine)])), (second.clone(), false));
    let restarted = |egress: &[&str]| {
        let unproved = Unproved {
            mac: MacAddress([2, 0, 0, 0, 1, 0]),
            deaf: false,
            new: true,
            holdings: Default::default(),
            egress: Arc::new(egress.iter().map(|it| it.parse().unwrap()).collect()),
        };
        heard(roster(&[], &[]), |roster| roster.unproved = [(second.clone(), unproved)].into())
    };
    assert_eq!(owner_where(restarted(&["192.168.35.100"])), (second.clone(), false));
    assert_eq!(owner_where(restarted(&["192.168.35.222"])), (first.clone(), true), "that is another Service's");
    assert_eq!(owner_where(restarted(&["192.168.35.100"])), (second.clone(), false));
    assert_eq!(owner_where(saying(&[(&second, true, mine)])), (first, true), "it has answered");
}

#[test]
fn who_hears_both_follows_the_node_that_says_that_it_is_the_owner() {
    let [first, second, third] = by_place();
    let mine: Option<&[&str]> = Some(&["192.168.35.100"]);
    let nothing: Option<&[&str]> = Some(&[]);
    let mut story = sending_on(third.as_str());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    let mut led_to = |of_first: Option<&[&str]>, of_second: Option<&[&str]>| {
        story.tell(saying(&[(&first, true, of_first), (&second, true, of_second)]));
        story.turn();
        assert!(story.routes().is_empty(), "this node is never the owner");
        (owner(&story).expect("there is one"), mapping(&story) != Mapping::Held)
    };
    assert_eq!(led_to(mine, nothing), (first.clone(), true));
    assert_eq!(led_to(nothing, mine), (second.clone(), true), "the first gave way to it");
    assert_eq!(led_to(mine, mine), (first.clone(), true));
    assert_eq!(led_to(nothing, nothing), (first.clone(), false), "it has yet to begin");
    assert_eq!(led_to(None, mine), (first, true), "an agent of a version that does not say so");
}

#[test]
fn only_a_node_that_egress_nodes_selects_owns_the_address_over_bgp_and_without_one_the_pods_are_held() {
    let (first, second) = first_and_second();
    let mut story = sending_on(second.as_str());
    story.change("web", |web| web.egress_bounds = on_rack_a());
    let selector = "rack=a".to_owned();
    let nobody = Reason::NoSelectedEgressNode { selector };
    assert_eq!(owner(&story), None);
    let why = story.decision("web").egress.as_ref().and_then(|egress| egress.owners[0].reason.clone());
    assert_eq!(why, Some(nobody));
    assert_eq!(mapping(&story), Mapping::Held);
    assert!(story.routes().is_empty());
    // A label is all that is new.
    labelled(&mut story, second.as_str(), &[("rack", "a")]);
    assert_eq!((owner(&story), mapping(&story)), (Some(second.clone()), translated()));
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
    labelled(&mut story, first.as_str(), &[("rack", "a")]);
    assert_eq!(owner(&story), Some(first.clone()));
    assert!(matches!(mapping(&story), Mapping::Steered { .. }), "{:?}", mapping(&story));
    labelled(&mut story, first.as_str(), &[("rack", "b")]);
    assert_eq!(owner(&story), Some(second));
}

#[test]
fn on_the_link_the_announcement_follows_egress_nodes() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { egress: Some(Egress::ServiceAddress), egress_bounds: on_rack_a(), ..story_ingress() });
    with_pod(&mut story);
    let on_link = |story: &Story| story.decision("web").announcements[0].l2.clone();
    assert_eq!(on_link(&story).owner, None);
    assert!(on_link(&story).reason.to_string().contains("crier.dev/egress-nodes \"rack=a\""), "{:?}", on_link(&story));
    assert_eq!((mapping(&story), story.answered().len()), (Mapping::Held, 0));
    labelled(&mut story, "c", &[("rack", "a")]);
    assert_eq!(on_link(&story).owner, Some("c".into()));
    labelled(&mut story, "c", &[]);
    labelled(&mut story, "a", &[("rack", "a")]);
    assert_eq!((on_link(&story).owner, mapping(&story)), (Some("a".into()), translated()));
    assert_eq!(story.answered(), ["192.168.35.100"]);
    // It says nothing of a Service whose pods leave as they like.
    story.change("web", |web| web.egress = None);
    labelled(&mut story, "a", &[]);
    assert!(on_link(&story).owner.is_some());
}

#[test]
fn with_pulses_a_selected_node_asks_a_holder_that_is_not_and_that_one_hands_over() {
    let bounds = on_rack_a();
    let stage = |story: &Story| {
        let address: IpAddr = "192.168.35.103".parse().unwrap();
        story.planner.plan().pulse.holdings.get(&address).map(|holding| holding.stage)
    };
    let mut story = super::pulses::with_pulses(false);
    story.tell(roster(&[("b", &[super::pulses::ADDRESS]), ("c", &[])], &[]));
    story.turn();
    assert_eq!(stage(&story), None, "b is ranked before a");
    story.change("web", |web| (web.egress, web.egress_bounds) = (Some(Egress::ServiceAddress), bounds.clone()));
    assert_eq!(stage(&story), None, "a is not selected");
    labelled(&mut story, "a", &[("rack", "a")]);
    story.now += Duration::from_secs(60);
    story.turn();
    assert_eq!(stage(&story), Some(Stage::Asks));
}

#[test]
fn by_the_network_of_the_address_every_node_announces_and_sends_with_its_own_address() {
    for me in ["a", "b", "c"] {
        let mut story = sending_on(me);
        story.change("web", |web| web.egress = Some(Egress::Network));
        let exit = Exit { slot: None, link: 2, source: "192.168.35.11".parse().unwrap() };
        assert_eq!(mapping(&story), Mapping::Networked(exit), "{me}");
        assert_eq!(story.routes(), ["192.168.35.100/32"], "{me} announces it");
        // Without the link there is no such network.
        let link = story.planner.world().links[&2].clone();
        story.tell(Fact::Link(2, Some(Link { addresses: vec!["10.0.0.1/8".parse().unwrap()], ..link.clone() })));
        story.turn();
        assert_eq!(mapping(&story), Mapping::Held, "{me}");
        let address: IpAddr = "192.168.35.100".parse().unwrap();
        let why = Reason::NoEgressNetwork { address };
        assert_eq!(story.planner.plan().exits[&address], Err(why));
        story.tell(Fact::Link(2, Some(link)));
        story.turn();
        assert_eq!(mapping(&story), Mapping::Networked(exit), "{me}");
        story.change("web", |web| web.egress_bounds = on_rack_a());
        assert_eq!(mapping(&story), Mapping::Held, "{me} is not selected");
        assert_eq!(story.routes(), ["192.168.35.100/32"], "{me} announces it all the same");
        labelled(&mut story, me, &[("rack", "a")]);
        assert_eq!(mapping(&story), Mapping::Networked(exit), "{me}");
        story.delete("web");
        assert!(story.planner.plan().egress.pods.is_empty() && story.planner.plan().exits.is_empty());
    }
}

#[test]
fn pods_leave_by_an_extra_network_with_its_mark_also_where_replies_do_not_go_by_networks() {
    let mut config = Config { l2: Vec::new(), ..configuration() };
    config.egress.symmetric_return = false;
    config.pools = vec![pool("lan", &["192.0.2.100"])];
    let mut story = Story::begin(config);
    let route = DefaultRoute::via;
    let eth1 = Link {
        index: 3,
        name: "eth1".into(),
        addresses: vec!["192.0.2.10/24".parse().unwrap()],
        ..story.planner.world().links[&2].clone()
    };
    story.tell(Fact::Link(3, Some(eth1)));
    story.tell(Fact::DefaultRoutes(vec![route("192.168.35.1", 2, 0), route("192.0.2.1", 3, 200)]));
    let ingress = vec!["192.0.2.100".parse().unwrap()];
    story.put("web", Service { egress: Some(Egress::Network), ingress, ..service() });
    assert!(story.planner.plan().egress.networks.is_empty(), "no pod needs it yet");
    with_pod(&mut story);
    let slice = &story.planner.plan().egress;
    assert_eq!(slice.networks.iter().map(|it| (it.name.as_str(), it.slot)).collect::<Vec<_>>(), [("eth1", 15)]);
    assert!(slice.served.is_empty(), "replies leave as they do");
    let exit = Exit { slot: Some(15), link: 3, source: "192.0.2.10".parse().unwrap() };
    assert_eq!(mapping(&story), Mapping::Networked(exit));
}

#[test]
fn with_the_services_address_pods_leave_by_the_network_that_the_address_is_in() {
    let pools = vec![pool("lan", &["192.168.35.100", "192.0.2.100"])];
    let config = Config { l2: Vec::new(), pools, ..configuration() };
    let routes = [DefaultRoute::via("192.168.35.1", 2, 0), DefaultRoute::via("192.0.2.1", 3, 200)];
    let translated = |address: &str, network| Mapping::Translated { address: address.parse().unwrap(), network };
    let cases = [
        ("192.168.35.100", &routes[..], None),
        ("192.0.2.100", &routes[..], Some(15)),
        // Without a default route of its own the link is a part of the main table.
        ("192.0.2.100", &routes[..1], None),
    ];
    for (address, routes, network) in cases {
        // The node that all nodes elect for the address.
        let me = ["a", "b", "c"].into_iter().min_by_key(|name| Ticket::of(&(*name).into(), address.parse().unwrap()));
        let mut story = Story::begin_on(me.unwrap(), config.clone());
        story.tell(Fact::Link(3, Some(Link::carrying(3, "eth1", &["192.0.2.10/24"]))));
        let ingress = vec![address.parse().unwrap()];
        story.put("web", Service { egress: Some(Egress::ServiceAddress), ingress, ..service() });
        with_pod(&mut story);
        story.tell(Fact::DefaultRoutes(routes.to_vec()));
        story.turn();
        assert_eq!(mapping(&story), translated(address, network), "{routes:?}");
        story.delete("web");
        assert!(story.planner.plan().egress.pods.is_empty());
    }
}

#[test]
fn with_the_services_address_pods_leave_by_the_vrf_of_the_pool_and_are_held_where_it_is_not() {
    let mut config = Config { l2: Vec::new(), ..configuration() };
    config.vrfs = config::tests::good("[[vrf]]\nname = \"red\"\ntable = 1001\n").vrfs;
    config.pools[0].vrf = Some("red".into());
    config.bgp.peers[0].vrf = Some("red".into());
    let mut story = Story::begin(config);
    let link = |index: u32, name: &str, vrf, net: &str| {
        Fact::Link(index, Some(Link { vrf, ..Link::carrying(index, name, &[net]) }))
    };
    let address: IpAddr = "192.168.35.100".parse().unwrap();
    story.put("web", Service { egress: Some(Egress::ServiceAddress), ..story_ingress() });
    with_pod(&mut story);
    let why = Reason::NoEgressVrf { vrf: "red".into() };
    assert_eq!((mapping(&story), &story.planner.plan().without_network[&address]), (Mapping::Held, &why));
    story.tell(link(7, "red", None, "127.0.0.1/8"));
    story.tell(link(8, "eth8", Some(7), "198.51.100.10/24"));
    story.turn();
    // The link with the subnet of the address is not the way to it.
    assert_eq!(mapping(&story), Mapping::Translated { address, network: Some(15) });
    assert!(story.planner.plan().without_network.is_empty());
}

#[test]
fn the_destinations_of_a_service_are_those_of_its_pods() {
    let (first, _) = first_and_second();
    let mut story = sending_on(first.as_str());
    let pod: IpAddr = POD.parse().unwrap();
    let list = |net: &str| Arc::new(Destinations { to: vec![net.parse().unwrap()], except: Vec::new() });
    assert_eq!(story.planner.plan().egress.bounded.get(&pod), None);
    for net in ["192.0.2.0/24", "198.51.100.0/24"] {
        let bounds = EgressBounds { nodes: None, destinations: Some(list(net)) };
        story.tell(Fact::Service(
            key("web"),
            Some(Arc::new(Service {
                egress: Some(Egress::ServiceAddress),
                egress_bounds: Some(Arc::new(bounds)),
                ..story_ingress()
            })),
        ));
        let turn = story.turn();
        assert!(turn.moved.egress, "{net}");
        assert_eq!(story.planner.plan().egress.bounded.get(&pod), Some(&list(net)));
        assert_eq!(mapping(&story), translated(), "it leaves as before");
    }
    story.change("web", |web| (web.egress, web.egress_bounds) = (Some(Egress::Closed), None));
    assert_eq!(story.planner.plan().egress.bounded.get(&pod), None, "held to all destinations");
    assert_eq!(mapping(&story), Mapping::Held);
}

/// The guard does not stand, or does again.
fn guard(stands: bool) -> Fact {
    let problem = HostProblem { problem: "EPERM".to_owned(), remedy: "give crier CAP_NET_ADMIN".to_owned() };
    Fact::Problems(Area::Egress, if stands { Vec::new() } else { vec![problem] })
}

#[test]
fn where_the_guard_does_not_stand_addresses_of_services_with_egress_are_not_announced_and_others_are() {
    let (first, _) = first_and_second();
    let mut story = sending_on(first.as_str());
    let plain: IpAddr = "192.168.35.101".parse().unwrap();
    story.put("plain", Service { ingress: vec![plain], ..service() });
    story.endpoints("plain", &["b"]);
    let both = ["192.168.35.100/32", "192.168.35.101/32"];
    assert_eq!(story.routes(), both);
    let bypass = |passed: bool| match guard(!passed) {
        Fact::Problems(_, problems) => Fact::Problems(Area::EgressBypass, problems),
        other => other,
    };
    for facts in [[guard(false), guard(true)], [bypass(true), bypass(false)]] {
        let [gone, back] = facts;
        story.tell(gone);
        story.turn();
        assert_eq!(story.routes(), [both[1]], "the Service without egress stays");
        let why = story.decision("web").announcements[0].bgp.reason.clone();
        assert_eq!(why, Reason::EgressUnguarded { why: "EPERM".to_owned() });
        assert_eq!(mapping(&story), Mapping::Held);
        story.tell(back);
        story.turn();
        assert_eq!((story.routes(), mapping(&story)), (both.map(str::to_owned).to_vec(), translated()));
    }
    for egress in [Egress::Network, Egress::Closed] {
        story.change("web", |web| web.egress = Some(egress));
        story.tell(guard(false));
        story.turn();
        assert_eq!(story.routes(), [both[1]], "{egress:?}");
        story.tell(guard(true));
        story.turn();
    }
}

#[test]
fn on_the_link_a_node_whose_guard_does_not_stand_hands_over_and_takes_nothing() {
    let with_egress = || {
        let mut story = with_pulses(false);
        story.change("web", |web| web.egress = Some(Egress::ServiceAddress));
        story
    };
    let address: IpAddr = ADDRESS.parse().unwrap();
    let stage = |story: &Story| story.planner.plan().pulse.holdings.get(&address).map(|holding| holding.stage);
    let mut story = with_egress();
    assert_eq!(story.owner(roster(&[], &["b", "c"])), "a");
    story.tell(answering());
    story.turn();
    assert_eq!(story.owner(roster(&[("c", &[])], &["b"])), "a", "whoever holds it goes on");
    assert_eq!(story.owner(guard(false)), "a", "until c has it");
    assert_eq!(stage(&story), Some(Stage::Grants { to: NodeTicket::of(&"c".into()) }));
    assert_eq!(story.owner(roster(&[("c", &[ADDRESS])], &["b"])), "c");
    assert_eq!(story.answered().len(), 0);
    // Nobody else is there: it is announced by nobody.
    for held_before in [true, false] {
        let mut story = with_egress();
        if held_before {
            assert_eq!(story.owner(roster(&[], &["b", "c"])), "a");
            story.tell(answering());
            story.turn();
        }
        story.tell(guard(false));
        let said = story.owner(roster(&[], &["b", "c"]));
        assert!(said.contains("cannot guard") && said.contains("EPERM"), "{said}");
        assert_eq!(story.answered().len(), 0, "{held_before}");
        assert_eq!(story.owner(guard(true)), "a", "{held_before}");
        assert_eq!(story.answered(), [ADDRESS]);
    }
    let mut story = with_pulses(false);
    story.tell(guard(false));
    assert_eq!(story.owner(roster(&[], &["b", "c"])), "a", "a Service without egress needs no guard");
}

#[test]
fn without_pulses_too_a_node_whose_guard_does_not_stand_answers_for_no_address_of_egress() {
    let mut story = Story::begin(configuration());
    for name in ["b", "c"] {
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    }
    story.put("web", Service { egress: Some(Egress::ServiceAddress), ..story_ingress() });
    with_pod(&mut story);
    assert_eq!(story.answered(), ["192.168.35.100"]);
    story.tell(guard(false));
    story.turn();
    assert_eq!((story.answered().len(), mapping(&story)), (0, Mapping::Held));
    let why = story.decision("web").announcements[0].l2.reason.code();
    assert_eq!(why, "egress-unguarded");
    story.tell(guard(true));
    story.turn();
    assert_eq!((story.answered(), mapping(&story)), (vec!["192.168.35.100".to_owned()], translated()));
}

#[test]
fn the_networks_of_services_are_networks_of_the_cluster_for_egress_and_for_vrfs() {
    let (first, _) = first_and_second();
    let mut story = sending_on(first.as_str());
    let networks = |texts: &[&str]| Some(Arc::new(texts.iter().map(|it| it.parse().unwrap()).collect::<Vec<_>>()));
    let services: [ipnet::IpNet; 2] = ["10.96.0.0/16", "fd00:96::/112"].map(|it| it.parse().unwrap());
    let has = |story: &Story| {
        let plan = story.planner.plan();
        assert_eq!(plan.egress.cluster, plan.vrfs.cluster);
        services.map(|net| plan.egress.cluster.contains(&net))
    };
    assert_eq!(has(&story), [false; 2]);
    story.tell(Fact::ServiceCidr("kubernetes".to_owned(), networks(&["10.96.0.0/16", "fd00:96::/112"])));
    let turn = story.turn();
    assert!(turn.moved.egress && turn.moved.vrfs && !turn.moved.bgp, "{:?}", turn.moved);
    assert_eq!(has(&story), [true; 2]);
    assert_eq!(mapping(&story), translated(), "no pod moves");
    story.tell(Fact::ServiceCidr("more".to_owned(), networks(&["10.97.0.0/16"])));
    story.tell(Fact::Listed(Listing::ServiceCidrs(["more".to_owned()].into())));
    story.turn();
    assert_eq!(has(&story), [false; 2], "a list that lacks an object says that it is gone");
    assert!(story.planner.plan().egress.cluster.contains(&"10.97.0.0/16".parse().unwrap()));
    story.tell(Fact::ServiceCidrsUnseen(Some("403 forbidden".to_owned())));
    story.turn();
    assert!(story.planner.plan().egress.cluster.contains(&"10.97.0.0/16".parse().unwrap()), "what is known stays");
}

#[test]
fn packets_go_to_an_owner_that_answers_for_the_address_only_once_it_says_that_it_gives_it_to_them() {
    let mut story = with_pulses(false);
    let owner_says = |egress: Option<&[&str]>| {
        let egress = egress.map(|all| Arc::new(all.iter().map(|it| it.parse().unwrap()).collect()));
        heard(roster(&[("b", &[ADDRESS])], &[]), |roster| {
            roster.members.values_mut().for_each(|member| member.egress.clone_from(&egress));
        })
    };
    let address = vec!["192.168.35.21".parse().unwrap()];
    story.tell(Fact::Node("b".into(), Some(Arc::new(Node { addresses: address, ..node(&[]) }))));
    story.tell(owner_says(Some(&[])));
    story.turn();
    with_pod(&mut story);
    assert_eq!(story.decision("web").announcements[0].l2.owner, Some("b".into()), "b has it all the while");
    // The annotation comes to this node before it comes to b.
    story.change("web", |web| web.egress = Some(Egress::ServiceAddress));
    let reason =
        |story: &Story| story.decision("web").egress.as_ref().and_then(|egress| egress.owners[0].reason.clone());
    let waits = Some(Reason::EgressOwnerNotReady { owner: "b".into(), address: ADDRESS.parse().unwrap() });
    assert_eq!((mapping(&story), reason(&story)), (Mapping::Held, waits));
    story.tell(owner_says(Some(&["192.168.35.222"])));
    story.turn();
    assert_eq!(mapping(&story), Mapping::Held, "that is another Service's");
    story.tell(owner_says(Some(&[ADDRESS])));
    story.turn();
    assert_eq!((mapping(&story), reason(&story)), (Mapping::Steered { slot: 1 }, None));
    story.tell(owner_says(Some(&[])));
    story.turn();
    assert_eq!(mapping(&story), Mapping::Held, "its table is gone");
    // An agent of a version that does not say so.
    story.tell(owner_says(None));
    story.turn();
    assert_eq!(mapping(&story), Mapping::Steered { slot: 1 });
}

/// This node is `a`, the owner `b`, and the next one `c`.
fn with_owner_b() -> Story {
    let mut story = with_pulses(false);
    for (name, last) in [("b", 21), ("c", 22)] {
        let addresses = vec![IpAddr::from([192, 168, 35, last])];
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { addresses, ..node(&[]) }))));
    }
    story.tell(owners(&[("b", true, &[ADDRESS]), ("c", false, &[])], &[], &[]));
    story.change("web", |web| web.egress = Some(Egress::ServiceAddress));
    with_pod(&mut story);
    story
}

/// The nodes that are heard: whether each answers for the address, and which addresses it says that packets of pods leave with there. Those
/// that said goodbye, and those that fell silent.
fn owners(members: &[(&str, bool, &[&str])], left: &[&str], silent: &[&str]) -> Fact {
    let names: Vec<(&str, &[&str])> =
        members.iter().map(|(name, holds, _)| (*name, if *holds { &[ADDRESS][..] } else { &[] })).collect();
    let gone: Vec<&str> = left.iter().chain(silent).copied().collect();
    heard(roster(&names, &gone), |roster| {
        for (name, _, egress) in members {
            let says = egress.iter().map(|it| it.parse().unwrap()).collect();
            roster.members.get_mut(&NodeName::from(*name)).expect("it is a member").egress = Some(Arc::new(says));
        }
        let names = left.iter().map(|name| NodeName::from(*name));
        roster.left = names.filter_map(|name| roster.silent.remove_entry(&name)).collect();
    })
}

/// Input: this node alone does not hear b, which answers for the address all the while, as its probe tells. Output: its pods
/// go on by b; where another station answers, they do not.
#[test]
fn pods_go_by_a_node_that_is_not_heard_and_answers_for_the_address_all_the_same() {
    let silent = heard(roster(&[], &["b", "c"]), |roster| {
        roster.silent.get_mut(&NodeName::from("b")).expect("it is silent").mac = MacAddress([2, 0, 0, 0, 1, 7]);
    });
    let answered_by = |last: u8| {
        let mut story = with_owner_b();
        story.tell(silent.clone());
        let mac = MacAddress([2, 0, 0, 0, 1, last]);
        let conflict = Conflict { mac, kind: ConflictKind::AliveUnheard, since: SystemTime::UNIX_EPOCH };
        story.tell(Fact::Conflict(ADDRESS.parse().unwrap(), "eth0".into(), Some(conflict)));
        story.turn();
        let l2 = story.decision("web").announcements[0].l2.clone();
        assert!(l2.owner == Some("a".into()) && !l2.announced, "{l2:?}");
        (owner(&story), mapping(&story))
    };
    assert_eq!(answered_by(7), (Some("b".into()), Mapping::Steered { slot: 1 }));
    assert_eq!(answered_by(8).0, Some("a".into()), "nobody knows that station to have had it");
}

/// Output: pods go by the former owner until the next one says that they leave by it, where the former one goes on; no longer than its
/// agent waits for that, and not where nobody knows what became of it.
#[test]
fn packets_go_by_a_former_owner_until_the_next_one_says_that_they_leave_by_it() {
    let by_b = Mapping::Steered { slot: 1 };
    let leaves = owners(&[("c", false, &[])], &["b"], &[]);
    let hands_over = owners(&[("b", false, &[ADDRESS]), ("c", true, &[])], &[], &[]);
    for change in [&leaves, &hands_over] {
        let mut story = with_owner_b();
        assert_eq!(mapping(&story), by_b);
        story.tell(change.clone());
        story.turn();
        let reason = story.decision("web").egress.as_ref().and_then(|egress| egress.owners[0].reason.clone());
        let waits = Reason::EgressOwnerNotReady { owner: "c".into(), address: ADDRESS.parse().unwrap() };
        assert_eq!((mapping(&story), reason), (by_b, Some(waits)));
        let hops = story.planner.plan().egress.hops.clone();
        assert_eq!(hops.len(), 2, "the way to c is made already: {hops:?}");
        let mut late = with_owner_b();
        late.tell(change.clone());
        late.turn();
        late.now = late.planner.next_deadline().expect("it is not waited for ever");
        late.turn();
        assert_eq!(mapping(&late), Mapping::Held, "c is not ready in time");
        story.tell(owners(&[("c", true, &[ADDRESS])], &["b"], &[]));
        story.turn();
        assert_eq!(mapping(&story), Mapping::Steered { slot: 2 });
    }
    for change in [
        owners(&[("c", false, &[])], &[], &["b"]),
        owners(&[("b", false, &[]), ("c", true, &[])], &[], &[]),
        owners(&[("b", true, &[]), ("c", false, &[])], &[], &[]),
    ] {
        let mut story = with_owner_b();
        story.tell(change);
        story.turn();
        assert_eq!(mapping(&story), Mapping::Held);
    }
}

#[test]
fn a_former_owner_translates_until_the_next_one_says_that_it_does() {
    let mut story = with_owner_b();
    story.tell(owners(&[("c", false, &[])], &[], &["b"]));
    story.tell(Fact::EgressTranslated(Arc::new([ADDRESS.parse().unwrap()].into())));
    story.now += Duration::from_secs(60);
    story.turn();
    let here = Mapping::Translated { address: ADDRESS.parse().unwrap(), network: None };
    let mut is_here_later = || {
        story.now += Duration::from_secs(5);
        story.turn();
        mapping(&story) == here
    };
    assert!((0..20).any(|_| is_here_later()), "neither takes the address, so this node does");
    story.tell(owners(&[("c", true, &[])], &[], &["b"]));
    story.turn();
    assert_eq!(owner(&story), Some("c".into()));
    assert_eq!(mapping(&story), here, "c does not say yet that it translates");
    story.tell(owners(&[("c", true, &[ADDRESS])], &[], &["b"]));
    story.turn();
    assert!(matches!(mapping(&story), Mapping::Steered { .. }));
}

#[test]
fn pulses_say_which_addresses_packets_of_pods_leave_with_here_once_the_kernel_does_it() {
    let mut story = Story::begin(configuration());
    let said = |story: &Story| story.planner.plan().pulse.egress.clone();
    assert_eq!(said(&story), None, "not known yet");
    story.tell(Fact::EgressTranslated(Arc::new([ADDRESS.parse().unwrap()].into())));
    story.turn();
    assert_eq!(said(&story), Some(Arc::new([ADDRESS.parse().unwrap()].into())));
}

/// Input: without pulses a node stands by, finds that nobody answers, and answers itself; then pods are to leave with the address, and
/// then no more. Output: it leaves the address to the node that all nodes take for the owner, and sends its pods there; a plain address stays.
#[test]
fn without_pulses_an_address_that_pods_leave_with_goes_back_to_the_node_that_all_nodes_name() {
    for me in ["a", "b", "c"] {
        let mut story = Story::begin_on(me, configuration());
        for (name, other) in ["a", "b", "c"].into_iter().zip(["192.168.35.21", "192.168.35.22", "192.168.35.23"]) {
            let own = if name == me { "192.168.35.11" } else { other };
            let node = Node { addresses: vec![own.parse().unwrap()], ..node(&[]) };
            story.tell(Fact::Node(name.into(), Some(Arc::new(node))));
        }
        story.put("web", story_ingress());
        with_pod(&mut story);
        let owner =
            |story: &Story| story.decision("web").announcements[0].l2.owner.clone().expect("a node is the best");
        let best = owner(&story);
        let assertions = |story: &Story| story.planner.plan().l2.assertions.values().copied().collect::<Vec<_>>();
        let is_best = best == me.into();
        assert_eq!(story.planner.plan().l2.standbys.len(), usize::from(!is_best), "{me}");
        assert_eq!(assertions(&story), [0; 0]);
        let began = vec!["192.168.35.100".parse().unwrap()];
        story.tell(Fact::Answering { link: "eth0".into(), began, ended: Vec::new() });
        story.turn();
        assert_eq!((owner(&story), story.answered().len()), (me.into(), 1), "{me} goes on");
        for _ in 0..2 {
            story.change("web", |web| web.egress = Some(Egress::ServiceAddress));
            assert_eq!((owner(&story), story.answered().len()), (best.clone(), usize::from(is_best)), "{me}");
            assert!(story.planner.plan().l2.standbys.is_empty(), "nobody stands by");
            assert_eq!(assertions(&story), vec![1; usize::from(is_best)], "the best asks at once");
            match is_best {
                true => assert_eq!(mapping(&story), translated()),
                false => assert!(matches!(mapping(&story), Mapping::Steered { .. }), "{me}: {:?}", mapping(&story)),
            }
            story.change("web", |web| web.egress = None);
        }
    }
}

/// Input: the network of the Service's address loses its link, its carrier or its default route. Output: the pods are held, and
/// that is told; by the main table they would get into another network. Also where an earlier life of the agent knew the network.
#[test]
fn with_the_services_address_pods_are_held_while_the_network_that_it_is_in_is_away() {
    let address: IpAddr = "192.0.2.100".parse().unwrap();
    let config = Config { l2: Vec::new(), pools: vec![pool("lan", &["192.0.2.100"])], ..configuration() };
    let me = ["a", "b", "c"].into_iter().min_by_key(|name| Ticket::of(&(*name).into(), address));
    let eth1 = Link::carrying(3, "eth1", &["192.0.2.10/24"]);
    let (home, extra) = (DefaultRoute::via("192.168.35.1", 2, 0), DefaultRoute::via("192.0.2.1", 3, 200));
    let begin = |facts: Vec<Fact>| {
        let mut story = Story::begin_knowing(facts, me.unwrap(), config.clone());
        story.tell(Fact::Link(3, Some(eth1.clone())));
        story.put("web", Service { egress: Some(Egress::ServiceAddress), ingress: vec![address], ..service() });
        with_pod(&mut story);
        story
    };
    let mut story = begin(Vec::new());
    let away = |story: &Story| match story.planner.plan().without_network.get(&address) {
        Some(Reason::EgressNetworkAway { link, .. }) => Some((mapping(story), link.to_string())),
        Some(other) => panic!("{other}"),
        None => None,
    };
    let held = Some((Mapping::Held, "eth1".to_owned()));
    let (no_carrier, down) = (Link { carrier: false, ..eth1.clone() }, Link { up: false, ..eth1.clone() });
    let bare = Link { addresses: Vec::new(), ..down.clone() };
    let both = vec![home.clone(), extra.clone()];
    let cases = [
        ("its route is gone", Some(eth1.clone()), vec![home.clone()]),
        ("no carrier, and its route stays", Some(no_carrier), both.clone()),
        ("down", Some(down), vec![home.clone()]),
        ("down, and without its addresses", Some(bare), vec![home.clone()]),
        ("gone", None, vec![home.clone()]),
    ];
    for (what, link, routes) in cases {
        story.tell(Fact::Link(3, Some(eth1.clone())));
        story.tell(Fact::DefaultRoutes(both.clone()));
        story.turn();
        assert_eq!(mapping(&story), Mapping::Translated { address, network: Some(15) }, "before: {what}");
        story.tell(Fact::Link(3, link));
        story.tell(Fact::DefaultRoutes(routes));
        story.turn();
        assert_eq!(away(&story), held, "{what}");
    }
    // It becomes the way out of this node.
    story.tell(Fact::Link(3, Some(eth1.clone())));
    story.tell(Fact::DefaultRoutes(vec![extra.clone()]));
    story.turn();
    assert_eq!((away(&story), mapping(&story)), (None, Mapping::Translated { address, network: None }));
    // An agent that starts meanwhile.
    let links = [("eth1".into(), (15, [crate::address::Family::V4].into()))].into();
    let numbers = crate::world::NetworkNumbers { links, ..Default::default() };
    let mut story = begin(vec![Fact::NetworkNumbers(numbers)]);
    story.tell(Fact::DefaultRoutes(vec![home]));
    story.turn();
    assert_eq!(away(&story), held);
}
