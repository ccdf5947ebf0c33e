//! What MetalLB's end-to-end tests assert of the decisions, as stories: `tests/metallb.md` names them. Where another file of
//! stories asserts the same, it is not repeated here.

use super::*;
use crate::address::Family::{V4, V6};
use crate::address::ScopedAddress;
use crate::plan::slice::PeerSlice;
use crate::world::{ServicePort, SessionReport, SessionState, Sharing};

const HERE: &str = "a";

/// Who answers for the first address of a Service on the link.
fn owner(story: &Story, name: &str) -> Option<String> {
    let announcement = &story.decision(name).announcements[0];
    announcement.l2.owner.as_ref().map(ToString::to_string)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

/// A node of the story gets these labels.
fn label(story: &mut Story, name: &str, pairs: &[(&str, &str)]) {
    story.tell(Fact::Node(name.into(), Some(Arc::new(node(pairs)))));
    story.turn();
}

impl Story {
    /// The Service as one of which the World keeps nothing.
    fn put_gone(&mut self, name: &str, service: Service) {
        self.tell(Fact::Service(key(name), Some(Arc::new(service))));
        self.turn();
    }
}

/// A Service with endpoints on every node, and its address confirmed.
fn serve(story: &mut Story, name: &str, service: Service) {
    story.endpoints(name, &["a", "b", "c"]);
    story.put(name, service);
    story.confirm(name);
}

fn family(families: &[crate::address::Family]) -> Service {
    let family_policy = if families.len() > 1 { FamilyPolicy::RequireDualStack } else { FamilyPolicy::SingleStack };
    Service { families: families.to_vec(), family_policy, ..service() }
}

fn both_families() -> Config {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"])];
    config
}

fn sharing(key: &str, port: u16, families: &[crate::address::Family]) -> Service {
    let ports = vec![ServicePort { protocol: "TCP".to_owned(), port }];
    let sharing = Some(Box::new(Sharing { key: key.to_owned(), selector: Labels::default() }));
    Service { ports, sharing, ..family(families) }
}

fn l2() -> L2 {
    configuration().l2.remove(0)
}

fn preferring(terms: &[(&str, u32)]) -> L2 {
    let preference = |(nodes, weight): &(&str, u32)| Preference { nodes: nodes.parse().unwrap(), weight: *weight };
    L2 { preference: terms.iter().map(preference).collect(), ..l2() }
}

fn selecting(selector: &str) -> L2 {
    L2 { service_selector: Some(selector.parse().unwrap()), ..l2() }
}

fn with_l2(l2: Vec<L2>) -> Story {
    Story::begin(Config { l2, ..both_families() })
}

#[test]
fn a_service_of_two_protocols_has_one_address_that_is_announced() {
    let mut story = with_l2(vec![l2()]);
    let port = |protocol: &str| ServicePort { protocol: protocol.to_owned(), port: 53 };
    serve(&mut story, "dns", Service { ports: vec![port("TCP"), port("UDP")], ..service() });
    assert_eq!(story.addresses("dns"), ["192.168.35.100"]);
    assert!(owner(&story, "dns").is_some());
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
}

#[test]
fn a_node_without_a_network_gives_way_on_the_link_and_over_bgp_until_it_has_one() {
    let mut story = with_l2(vec![l2()]);
    serve(&mut story, "web", service());
    let first = owner(&story, "web").unwrap();
    let cut = |cut| Some(Arc::new(Node { network_unavailable: cut, ..node(&[]) }));
    story.tell(Fact::Node(first.as_str().into(), cut(true)));
    story.turn();
    assert_ne!(owner(&story, "web"), Some(first.clone()));
    story.tell(Fact::Node(HERE.into(), cut(true)));
    story.turn();
    assert!(story.routes().is_empty());
    for name in [first.as_str(), HERE] {
        story.tell(Fact::Node(name.into(), cut(false)));
    }
    story.turn();
    assert_eq!((owner(&story, "web"), story.routes().len()), (Some(first), 1));
}

#[test]
fn a_node_that_loses_the_exclude_label_has_its_address_again() {
    let mut story = with_l2(vec![l2()]);
    serve(&mut story, "web", service());
    let first = owner(&story, "web").unwrap();
    label(&mut story, &first, &[(Node::EXCLUDE_LABEL, "")]);
    assert_ne!(owner(&story, "web"), Some(first.clone()));
    label(&mut story, &first, &[]);
    assert_eq!(owner(&story, "web"), Some(first));
}

#[test]
fn two_services_of_one_key_have_one_address_and_one_node_in_either_family() {
    for families in [&[V4][..], &[V6], &[V4, V6]] {
        let mut story = with_l2(vec![l2()]);
        serve(&mut story, "one", sharing("key", 80, families));
        serve(&mut story, "two", sharing("key", 81, families));
        assert_eq!(story.addresses("one"), story.addresses("two"), "{families:?}");
        assert_eq!(story.addresses("one").len(), families.len());
        assert_eq!(owner(&story, "one"), owner(&story, "two"), "{families:?}");
        let before = story.routes();
        story.delete("one");
        assert_eq!(story.routes(), before, "the route stays for the other");
    }
}

#[test]
fn a_pool_is_asked_for_by_name_whether_or_not_it_assigns_by_itself() {
    for auto_assign in [true, false] {
        let mut config = configuration();
        config.pools = vec![pool("first", &["192.0.2.1"]), Pool { auto_assign, ..pool("named", &["198.51.100.1"]) }];
        let mut story = Story::begin(config);
        let request = Ok(Request { addresses: Vec::new(), pools: vec!["named".into()] });
        story.put("web", Service { request, ..service() });
        assert_eq!(story.addresses("web"), ["198.51.100.1"]);
        let write = story.planner.plan().status.services[&key("web")].write.clone().unwrap();
        assert_eq!(write.pools, ["named".into()], "the annotation names it");
    }
}

#[test]
fn an_address_is_free_for_who_waits_when_its_service_is_no_load_balancer_any_more() {
    let mut config = configuration();
    config.pools = vec![Pool { rest: Duration::ZERO, ..pool("tiny", &["192.0.2.1"]) }];
    let mut story = Story::begin(config);
    story.put("first", service());
    story.confirm("first");
    story.put("second", service());
    assert!(story.addresses("second").is_empty());
    let was = Service::clone(&story.planner.world().services[&key("first")]);
    story.put("first", Service { load_balancer: false, resource_version: "8".to_owned(), ..was });
    assert_eq!(story.written("first"), Some(Vec::new()));
    story.put_gone("first", Service { load_balancer: false, resource_version: "9".to_owned(), ..service() });
    assert_eq!(story.addresses("second"), ["192.0.2.1"]);
}

#[test]
fn a_request_to_share_that_was_refused_is_granted_when_the_policy_or_the_selector_fits() {
    let asks = |policy, selector: &[(&str, &str)]| {
        let sharing = Some(Box::new(Sharing { key: "key".to_owned(), selector: labels(selector) }));
        Service { sharing, external_traffic_policy: policy, ..asking_for(&["192.168.35.105"]) }
    };
    let port = |port| vec![ServicePort { protocol: "TCP".to_owned(), port }];
    let mut story = with_l2(vec![l2()]);
    story.put("one", Service { ports: port(80), ..asks(TrafficPolicy::Local, &[("app", "x")]) });
    story.put("two", Service { ports: port(81), ..asks(TrafficPolicy::Cluster, &[("app", "x")]) });
    assert!(story.addresses("two").is_empty());
    story.put("two", Service { ports: port(81), ..asks(TrafficPolicy::Local, &[("app", "y")]) });
    assert!(story.addresses("two").is_empty());
    story.put("two", Service { ports: port(81), ..asks(TrafficPolicy::Local, &[("app", "x")]) });
    assert_eq!(story.addresses("two"), ["192.168.35.105"]);
}

#[test]
fn a_pool_for_some_serves_by_namespace_labels_of_the_namespace_and_labels_of_the_service() {
    let namespaces = vec!["bank".into()];
    let by_labels = || Some("team=web".parse().unwrap());
    let front = || Some("tier=front".parse().unwrap());
    let for_some = |change: fn(&mut Pool)| {
        let mut it = pool("some", &["198.51.100.1-198.51.100.9"]);
        change(&mut it);
        it
    };
    let table: [(&str, Pool, bool); 5] = [
        ("another namespace", Pool { namespaces: namespaces.clone(), ..for_some(|_| {}) }, false),
        (
            "another namespace, or these labels",
            Pool { namespaces, namespace_selector: by_labels(), ..for_some(|_| {}) },
            true,
        ),
        ("the labels of the Service", Pool { service_selector: front(), ..for_some(|_| {}) }, true),
        ("both", Pool { service_selector: front(), namespace_selector: by_labels(), ..for_some(|_| {}) }, true),
        (
            "one of both",
            Pool {
                service_selector: front(),
                namespace_selector: Some("team=ops".parse().unwrap()),
                ..for_some(|_| {})
            },
            false,
        ),
    ];
    for (what, some, serves) in table {
        let mut story = Story::begin(Config { pools: vec![pool("all", &["192.0.2.1"]), some], ..configuration() });
        story.tell(Fact::Namespace("shop".into(), Some(Arc::new(labels(&[("team", "web")])))));
        story.put("web", Service { labels: labels(&[("tier", "front")]), ..service() });
        let expected = if serves { "198.51.100.1" } else { "192.0.2.1" };
        assert_eq!(story.addresses("web"), [expected], "{what}");
    }
}

#[test]
fn the_primary_family_decides_where_only_one_can_be_had() {
    let mut config = configuration();
    config.pools = vec![pool("v4", &["192.0.2.1-192.0.2.9"]), pool("v6", &["fd36::1-fd36::9"])];
    config.pools[1].auto_assign = false;
    let prefer = |families: &[crate::address::Family]| Service {
        families: families.to_vec(),
        family_policy: FamilyPolicy::PreferDualStack,
        ..service()
    };
    let mut story = Story::begin(config.clone());
    story.put("web", prefer(&[V4, V6]));
    assert_eq!(story.addresses("web"), ["192.0.2.1"]);
    config.pools[0].auto_assign = false;
    config.pools[1].auto_assign = true;
    let mut story = Story::begin(config);
    story.put("web", prefer(&[V6, V4]));
    assert_eq!(story.addresses("web"), ["fd36::1"]);
}

#[test]
fn a_service_that_comes_to_require_both_families_gets_the_second_and_keeps_the_first() {
    let mut story = with_l2(vec![l2()]);
    let of = |families: &[crate::address::Family], family_policy, ingress: Vec<IpAddr>, version: &str| Service {
        families: families.to_vec(),
        family_policy,
        ingress,
        resource_version: version.to_owned(),
        ..service()
    };
    story.put("web", of(&[V4], FamilyPolicy::SingleStack, Vec::new(), "1"));
    story.confirm("web");
    let first = vec!["192.168.35.100".parse().unwrap()];
    story.put("web", of(&[V4, V6], FamilyPolicy::RequireDualStack, first, "8"));
    assert_eq!(story.addresses("web"), ["192.168.35.100", "fd35::100"]);
    story.confirm("web");
    let both = vec!["192.168.35.100".parse().unwrap(), "fd35::100".parse().unwrap()];
    story.put("web", of(&[V4, V6], FamilyPolicy::PreferDualStack, both, "16"));
    assert_eq!(story.addresses("web"), ["192.168.35.100", "fd35::100"], "and back to what it prefers");
}

#[test]
fn only_nodes_that_an_l2_selects_answer_and_more_of_them_when_more_are_labelled() {
    let mut story = with_l2(vec![L2 { nodes: Some("rack=a".parse().unwrap()), ..l2() }]);
    serve(&mut story, "web", service());
    assert_eq!(owner(&story, "web"), None);
    label(&mut story, "c", &[("rack", "a")]);
    assert_eq!(owner(&story, "web").as_deref(), Some("c"));
    label(&mut story, "c", &[]);
    label(&mut story, HERE, &[("rack", "a")]);
    assert_eq!(owner(&story, "web").as_deref(), Some(HERE));
    let of = |nodes: &str| L2 { nodes: Some(nodes.parse().unwrap()), ..l2() };
    let mut story = with_l2(vec![of("rack=a"), of("zone in (x, y)")]);
    label(&mut story, "b", &[("zone", "x")]);
    serve(&mut story, "web", service());
    assert_eq!(owner(&story, "web").as_deref(), Some("b"), "either of two selectors will do");
}

#[test]
fn the_interfaces_of_two_l2_add_up_and_each_counts_only_on_its_nodes() {
    let on = |interface: &str, nodes: Option<&str>| L2 {
        interfaces: vec![InterfacePattern::Exact(interface.into())],
        nodes: nodes.map(|nodes| nodes.parse().unwrap()),
        subnet: Subnet::Ignore,
        ..l2()
    };
    let links = |all: Vec<L2>| {
        let mut story = with_l2(all);
        story.tell(Fact::Node("b".into(), None));
        story.tell(Fact::Node("c".into(), None));
        let eth0 = story.planner.world().links[&2].clone();
        story.tell(Fact::Link(3, Some(Link { index: 3, name: "eth1".into(), addresses: Vec::new(), ..eth0 })));
        serve(&mut story, "web", service());
        let answered = &story.planner.plan().l2.addresses;
        answered.values().flat_map(|links| links.iter().map(ToString::to_string)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(links(vec![on("eth1", None)]), "eth1");
    assert_eq!(links(vec![on("eth0", None), on("eth1", None)]), "eth0 eth1");
    assert_eq!(links(vec![on("eth0", None), on("eth1", Some("rack=b"))]), "eth0");
    assert_eq!(links(vec![on("eth7", None)]), "");
}

#[test]
fn the_preferred_node_answers_while_it_may_and_has_the_address_again_afterwards() {
    let mut story = with_l2(vec![preferring(&[("edge=true", 100)])]);
    serve(&mut story, "web", service());
    let by_order = owner(&story, "web").unwrap();
    let other = ["a", "b", "c"].into_iter().find(|name| *name != by_order).unwrap();
    label(&mut story, other, &[("edge", "true")]);
    assert_eq!(owner(&story, "web").as_deref(), Some(other), "a label that comes at run time counts");
    label(&mut story, other, &[("edge", "true"), (Node::EXCLUDE_LABEL, "")]);
    assert_eq!(owner(&story, "web"), Some(by_order.clone()), "the order of before, without it");
    label(&mut story, other, &[("edge", "true")]);
    assert_eq!(owner(&story, "web").as_deref(), Some(other));
    label(&mut story, other, &[]);
    assert_eq!(owner(&story, "web"), Some(by_order), "none matches: as without any preference");
}

#[test]
fn a_preference_makes_no_node_eligible_that_the_selector_leaves_out() {
    let mut story = with_l2(vec![L2 { nodes: Some("rack=a".parse().unwrap()), ..preferring(&[("edge=true", 100)]) }]);
    label(&mut story, "b", &[("edge", "true")]);
    label(&mut story, "c", &[("rack", "a")]);
    serve(&mut story, "web", service());
    assert_eq!(owner(&story, "web").as_deref(), Some("c"));
}

#[test]
fn weights_add_up_over_the_terms_and_sections_of_a_service() {
    let two = vec![preferring(&[("x", 30), ("y", 30)]), preferring(&[("y", 1)])];
    let mut story = with_l2(two);
    label(&mut story, "a", &[("x", "")]);
    label(&mut story, "b", &[("x", ""), ("y", "")]);
    label(&mut story, "c", &[("y", "")]);
    serve(&mut story, "web", service());
    assert_eq!(owner(&story, "web").as_deref(), Some("b"), "61 against 30 and 31");
    label(&mut story, "b", &[]);
    assert_eq!(owner(&story, "web").as_deref(), Some("c"));
}

#[test]
fn an_l2_with_a_service_selector_announces_these_services_alone_with_its_own_preference() {
    let front = L2 { preference: preferring(&[("edge", 9)]).preference, ..selecting("tier=front") };
    let mut story = with_l2(vec![L2 { nodes: Some("rack=a".parse().unwrap()), ..front }]);
    for name in ["a", "b", "c"] {
        label(&mut story, name, &[("rack", "a")]);
    }
    label(&mut story, "c", &[("rack", "a"), ("edge", "")]);
    serve(&mut story, "front", Service { labels: labels(&[("tier", "front")]), ..service() });
    serve(&mut story, "back", Service { labels: labels(&[("tier", "back")]), ..service() });
    assert_eq!(owner(&story, "front").as_deref(), Some("c"));
    let reason = story.decision("back").announcements[0].l2.reason.to_string();
    assert_eq!(reason, "no [[l2]] covers pool lan and this Service");
    let back = Service::clone(&story.planner.world().services[&key("back")]);
    story.put("back", Service { labels: labels(&[("tier", "front")]), ..back });
    assert_eq!(owner(&story, "back").as_deref(), Some("c"), "a label that comes at run time counts");
}

#[test]
fn pools_and_service_selectors_must_both_fit_and_one_of_several_l2_is_enough() {
    let of = |pools: &[&str], selector: &str| L2 {
        pools: pools.iter().map(|name| (*name).into()).collect(),
        ..selecting(selector)
    };
    let announced = |all: Vec<L2>| {
        let mut story = with_l2(all);
        serve(&mut story, "web", Service { labels: labels(&[("tier", "front")]), ..service() });
        owner(&story, "web").is_some()
    };
    assert!(announced(vec![of(&["lan"], "tier=front")]));
    assert!(!announced(vec![of(&["wan"], "tier=front")]));
    assert!(!announced(vec![of(&["lan"], "tier=back")]));
    assert!(announced(vec![of(&["lan"], "tier=back"), of(&[], "tier in (front, side)")]));
    let elsewhere = L2 { nodes: Some("rack=z".parse().unwrap()), ..of(&[], "tier=front") };
    assert!(!announced(vec![elsewhere, of(&[], "tier=back")]), "none fits both the Service and a node");
}

/// MetalLB does not announce such a Service on the link at all.
#[test]
fn services_that_share_an_address_are_announced_from_one_node_if_an_l2_selects_one_of_them() {
    let mut story = with_l2(vec![selecting("tier=front")]);
    serve(&mut story, "one", Service { labels: labels(&[("tier", "front")]), ..sharing("key", 80, &[V4]) });
    serve(&mut story, "two", sharing("key", 81, &[V4]));
    assert_eq!(story.addresses("one"), story.addresses("two"));
    assert!(owner(&story, "two").is_some());
    assert_eq!(owner(&story, "one"), owner(&story, "two"));
    story.delete("one");
    assert_eq!(owner(&story, "two"), None, "nothing selects it any more");
}

#[test]
fn a_service_on_the_link_and_over_bgp_is_served_by_both_and_by_either_alone() {
    for (on_link, over_bgp) in [(true, true), (false, true), (true, false)] {
        let mut config = both_families();
        config.l2.truncate(usize::from(on_link));
        config.bgp.advertisements.truncate(usize::from(over_bgp));
        let mut story = Story::begin(config);
        serve(&mut story, "web", service());
        assert_eq!((owner(&story, "web").is_some(), story.routes().len()), (on_link, usize::from(over_bgp)));
    }
}

fn route_peers(story: &Story) -> Vec<String> {
    let peers = &story.planner.plan().bgp.peers;
    let told = |(name, peer): (&PeerName, &slice::PeerSlice)| {
        let prefixes: Vec<String> = peer.routes.keys().map(ToString::to_string).collect();
        (!prefixes.is_empty()).then(|| format!("{name}: {}", prefixes.join(" ")))
    };
    peers.iter().filter_map(told).collect()
}

#[test]
fn an_advertisement_reaches_its_peers_only_and_each_with_its_own_communities() {
    let to = |peer: &str, community: &str| Advertisement {
        peers: vec![peer.into()],
        communities: vec![community.parse().unwrap()],
        ..advertisement()
    };
    let mut config = both_families();
    config.bgp.peers = vec![peer("one"), peer("two"), peer("three")];
    config.bgp.advertisements = vec![to("one", "64512:1"), to("two", "64512:2")];
    let mut story = Story::begin(config);
    serve(&mut story, "web", family(&[V4, V6]));
    let all = "192.168.35.100/32 fd35::100/128";
    assert_eq!(route_peers(&story), [format!("one: {all}"), format!("two: {all}")]);
    for (name, expected) in [("one", "64512:1"), ("two", "64512:2")] {
        let routes = &story.planner.plan().bgp.peers[&PeerName::from(name)].routes;
        for attributes in routes.values() {
            let communities: Vec<String> = attributes.communities.iter().map(ToString::to_string).collect();
            assert_eq!(communities, [expected], "to {name}");
        }
    }
}

#[test]
fn advertisements_select_nodes_and_services_and_follow_their_labels() {
    let of = |nodes: Option<&str>, services: Option<&str>, community: &str| Advertisement {
        nodes: nodes.map(|text| text.parse().unwrap()),
        service_selector: services.map(|text| text.parse().unwrap()),
        communities: vec![community.parse().unwrap()],
        ..advertisement()
    };
    let mut config = both_families();
    config.bgp.advertisements = vec![of(Some("rack=a"), None, "64512:1"), of(None, Some("tier=front"), "64512:2")];
    let mut story = Story::begin(config);
    serve(&mut story, "web", service());
    let communities = |story: &Story| -> Vec<String> {
        let routes = &story.planner.plan().bgp.peers[&PeerName::from("tor")].routes;
        routes.values().flat_map(|it| it.communities.iter().map(ToString::to_string)).collect()
    };
    assert!(story.routes().is_empty(), "neither selects");
    label(&mut story, HERE, &[("rack", "a")]);
    assert_eq!(communities(&story), ["64512:1"]);
    let web = Service::clone(&story.planner.world().services[&key("web")]);
    story.put("web", Service { labels: labels(&[("tier", "front")]), ..web.clone() });
    assert_eq!(communities(&story), ["64512:1", "64512:2"], "the communities of both");
    label(&mut story, HERE, &[]);
    assert_eq!(communities(&story), ["64512:2"]);
    story.put("web", web);
    assert!(story.routes().is_empty());
}

#[test]
fn a_peer_is_talked_to_only_from_the_nodes_that_it_selects() {
    let of = |name: &str, nodes: &str| config::Peer { nodes: Some(nodes.parse().unwrap()), ..peer(name) };
    let mut config = both_families();
    config.bgp.peers = vec![of("one", "rack=a"), of("two", "rack=b")];
    let mut story = Story::begin(config);
    serve(&mut story, "web", service());
    assert!(route_peers(&story).is_empty());
    label(&mut story, HERE, &[("rack", "b")]);
    assert_eq!(route_peers(&story), ["two: 192.168.35.100/32"]);
}

/// MetalLB's peer with several node selectors has one session. Input: two peers of one address, as `crier migrate` makes them of it, and
/// the node gets the label of the second, and loses that of the first. Output: one session all the time, and while both match, the other
/// one names the first.
#[test]
fn peers_of_one_router_that_a_label_brings_together_have_one_session_and_say_so() {
    let of = |name: &str, nodes: &str| config::Peer { nodes: Some(nodes.parse().unwrap()), ..peer(name) };
    let mut config = both_families();
    config.bgp.peers = vec![of("tor", "rack=a"), of("tor-2", "row=7")];
    let mut story = Story::begin(config);
    let sessions = |story: &Story| -> Vec<String> {
        let peers = &story.planner.plan().bgp.peers;
        let told = |(name, peer): (&PeerName, &PeerSlice)| match &peer.address {
            Ok(address) => format!("{name} {address}"),
            Err(Reason::SameRouter { peer }) => format!("{name} is {peer}"),
            Err(other) => format!("{name} {other}"),
        };
        peers.iter().map(told).collect()
    };
    assert!(sessions(&story).is_empty());
    label(&mut story, HERE, &[("row", "7")]);
    assert_eq!(sessions(&story), ["tor-2 10.0.0.1"]);
    let report = |story: &mut Story, name: &str, state| {
        let mut report = SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH);
        report.detail.address = Some(ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None });
        story.tell(Fact::Session(name.into(), report));
        story.turn();
    };
    report(&mut story, "tor-2", SessionState::Established);
    label(&mut story, HERE, &[("rack", "a"), ("row", "7")]);
    assert_eq!(sessions(&story), ["tor is tor-2", "tor-2 10.0.0.1"], "the session that stands goes on");
    label(&mut story, HERE, &[("rack", "a")]);
    assert_eq!(sessions(&story), ["tor 10.0.0.1"]);
    report(&mut story, "tor-2", SessionState::Idle);
    report(&mut story, "tor", SessionState::Active);
    label(&mut story, HERE, &[("rack", "a"), ("row", "7")]);
    assert_eq!(sessions(&story), ["tor 10.0.0.1", "tor-2 is tor"], "the first in the file");
}
