//! What advertisements say of routes, as stories: aggregates, attributes, disputes and weights.

use super::*;
use crate::plan::join::Disagreement;
use crate::route::RouteAttributes;
use crate::world::NodeCounts;

/// A Service that is announced by this node, with so many endpoints here.
fn announce(story: &mut Story, name: &str, service: Service, here: u32) {
    endpoints_here(story, name, here);
    story.put(name, service);
    story.confirm(name);
}

fn endpoints_here(story: &mut Story, name: &str, here: u32) {
    let serving = NodeCounts::from([("a".into(), here), ("b".into(), 9)]);
    let slice = EndpointSlice {
        service: key(name),
        family: None,
        ready: serving.clone(),
        serving,
        serving_without_node: 0,
        unready: Default::default(),
        addresses: Default::default(),
    };
    story.tell(Fact::EndpointSlice(key(&format!("{name}-1")), Some(Arc::new(slice))));
    story.turn();
}

fn route(story: &Story, peer: &str, prefix: &str) -> Arc<RouteAttributes> {
    let peer = &story.planner.plan().bgp.peers[&PeerName::from(peer)];
    peer.routes.get(&prefix.parse::<ipnet::IpNet>().unwrap()).unwrap_or_else(|| panic!("{prefix} is announced")).clone()
}

fn local() -> Service {
    Service { external_traffic_policy: TrafficPolicy::Local, ..service() }
}

fn with(advertisements: Vec<Advertisement>) -> Config {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.0/24", "fd35::/64"])];
    config.bgp.advertisements = advertisements;
    config
}

#[test]
fn an_aggregate_of_either_family_stays_until_its_last_service_goes() {
    let aggregated = Advertisement { aggregation_length: 28, aggregation_length_v6: 96, ..advertisement() };
    let mut story = Story::begin(with(vec![aggregated]));
    let dual = Service {
        families: vec![crate::address::Family::V4, crate::address::Family::V6],
        family_policy: FamilyPolicy::RequireDualStack,
        ..service()
    };
    announce(&mut story, "one", dual.clone(), 1);
    announce(&mut story, "two", dual, 1);
    assert_eq!(story.routes(), ["192.168.35.0/28", "fd35::/96"]);
    let carriers: Vec<_> = story.decision("two").announcements.iter().flat_map(|it| it.bgp.routes.clone()).collect();
    assert_eq!(
        carriers[0].prefix.to_string(),
        "192.168.35.0/28",
        "the verdict names the route that carries the address"
    );
    story.delete("one");
    assert_eq!(story.routes(), ["192.168.35.0/28", "fd35::/96"]);
    story.endpoints("two", &[]);
    assert!(story.routes().is_empty(), "the last of them serves no more");
}

#[test]
fn two_lengths_of_one_pool_are_two_routes() {
    let whole = Advertisement { aggregation_length: 24, med: Some(50), ..advertisement() };
    let mut story = Story::begin(with(vec![advertisement(), whole]));
    announce(&mut story, "web", service(), 1);
    assert_eq!(story.routes(), ["192.168.35.0/24", "192.168.35.1/32"]);
    assert_eq!(route(&story, "tor", "192.168.35.0/24").med, Some(50));
    assert_eq!(route(&story, "tor", "192.168.35.1/32").med, None, "each has its own attributes");
}

#[test]
fn what_one_advertisement_leaves_open_another_may_say() {
    let first = Advertisement { communities: vec!["no-export".parse().unwrap()], ..advertisement() };
    let second = Advertisement {
        med: Some(7),
        prepend: 3,
        communities: vec!["rt:64512:9".parse().unwrap(), "large:1:2:3".parse().unwrap()],
        ..advertisement()
    };
    let mut story = Story::begin(with(vec![first, second]));
    announce(&mut story, "web", service(), 1);
    let route = route(&story, "tor", "192.168.35.1/32");
    let communities: Vec<_> = route.communities.iter().map(ToString::to_string).collect();
    assert_eq!(communities, ["no-export", "large:1:2:3", "rt:64512:9"]);
    assert_eq!((route.med, route.prepend), (Some(7), 3));
    assert!(story.planner.plan().disputes.is_empty() && story.decision("web").announcements[0].bgp.notes.is_empty());
}

#[test]
fn where_two_disagree_the_first_in_the_file_counts_and_everybody_is_told() {
    let med = |med| Advertisement { med: Some(med), ..advertisement() };
    let mut story = Story::begin(with(vec![med(20), med(10)]));
    endpoints_here(&mut story, "web", 1);
    story.put("web", service());
    let wanted = story.written("web").expect("an address is to be written");
    let written = Service { ingress: wanted, resource_version: "2".to_owned(), ..service() };
    story.tell(Fact::StatusWritten(key("web"), Arc::new(written)));
    let turn = story.turn();
    assert_eq!(route(&story, "tor", "192.168.35.1/32").med, Some(20));
    assert_eq!(turn.disputed.len(), 1, "the log says it once");
    assert_eq!(story.turn().disputed.len(), 0);
    let disputes = story.planner.plan().disputes.values().next().expect("it stands in the plan");
    assert_eq!(**disputes, [Disagreement { key: "med", kept: 20, ignored: 10 }]);
    let notice = story.planner.plan().status.services[&key("web")].notice.clone().expect("an Event");
    assert_eq!((notice.warning, notice.reason.as_str()), (true, "AdvertisementsDisagree"));
    assert!(notice.message.contains("192.168.35.1/32 to peer tor with different med: 20"), "{}", notice.message);
    story.delete("web");
    assert!(story.planner.plan().disputes.is_empty(), "no route, no dispute");
}

#[test]
fn services_of_one_aggregate_dispute_by_the_order_of_the_file_not_of_their_names() {
    let of = |label: &str, med| Advertisement {
        aggregation_length: 24,
        med: Some(med),
        service_selector: Some(label.parse().unwrap()),
        ..advertisement()
    };
    let mut story = Story::begin(with(vec![of("tier=gold", 1), of("tier=lead", 2)]));
    let tier = |tier: &str| Service { labels: Labels([("tier".to_owned(), tier.to_owned())].into()), ..service() };
    announce(&mut story, "a", tier("lead"), 1);
    assert_eq!(route(&story, "tor", "192.168.35.0/24").med, Some(2));
    announce(&mut story, "z", tier("gold"), 1);
    assert_eq!(route(&story, "tor", "192.168.35.0/24").med, Some(1), "tier=gold stands first in the file");
    assert_eq!(story.planner.plan().disputes.len(), 1);
    story.delete("z");
    assert_eq!(route(&story, "tor", "192.168.35.0/24").med, Some(2));
    assert!(story.planner.plan().disputes.is_empty());
}

#[test]
fn a_local_preference_is_disputed_only_where_it_is_sent_and_prepending_likewise() {
    let said = |local_preference, prepend| Advertisement {
        local_preference: Some(local_preference),
        prepend,
        ..advertisement()
    };
    let mut config = with(vec![said(100, 1), said(200, 2)]);
    config.bgp.peers = vec![peer("outside"), config::Peer { asn: PeerAsn::Internal, ..peer("inside") }];
    let mut story = Story::begin(config);
    announce(&mut story, "web", service(), 1);
    let disputed = |name: &str| {
        let of = |((peer, _), found): (&(PeerName, _), &Arc<Vec<Disagreement>>)| {
            (peer.as_str() == name).then(|| found.iter().map(|dispute| dispute.key).collect::<Vec<_>>())
        };
        story.planner.plan().disputes.iter().find_map(of).unwrap_or_default()
    };
    assert_eq!(disputed("inside"), ["local-preference"]);
    assert_eq!(disputed("outside"), ["prepend"]);
}

#[test]
fn a_weight_is_the_number_of_local_endpoints_under_policy_local_only() {
    let weighed = Advertisement { link_bandwidth: true, ..advertisement() };
    let mut story = Story::begin(with(vec![weighed]));
    announce(&mut story, "local", local(), 3);
    announce(&mut story, "cluster", service(), 3);
    assert_eq!(route(&story, "tor", "192.168.35.1/32").endpoints, Some(3));
    assert_eq!(route(&story, "tor", "192.168.35.2/32").endpoints, None);
    let notes = |name: &str| story.decision(name).announcements[0].bgp.notes.clone();
    assert_eq!((notes("local"), notes("cluster")), (vec![], vec![Reason::LinkBandwidthNeedsLocal]));
}

#[test]
fn an_endpoint_that_comes_changes_one_route_and_no_other() {
    let weighed = Advertisement { link_bandwidth: true, ..advertisement() };
    let mut story = Story::begin(with(vec![weighed]));
    for name in ["one", "two", "three"] {
        announce(&mut story, name, local(), 2);
    }
    let before = story.planner.plan().bgp.peers[&PeerName::from("tor")].routes.clone();
    let all: Vec<_> = before.values().collect();
    assert!(all.iter().all(|it| Arc::ptr_eq(it, all[0])), "routes of one value share it");
    endpoints_here(&mut story, "two", 5);
    let after = &story.planner.plan().bgp.peers[&PeerName::from("tor")].routes;
    let changed: Vec<_> = after.iter().filter(|(prefix, it)| before.get(*prefix) != Some(*it)).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].0.to_string(), changed[0].1.endpoints), ("192.168.35.2/32".to_owned(), Some(5)));
}

#[test]
fn the_weight_of_an_aggregate_is_the_sum_over_its_services() {
    let weighed = || Advertisement { link_bandwidth: true, aggregation_length: 24, ..advertisement() };
    // Twice: both advertisements speak of the same endpoints.
    let mut story = Story::begin(with(vec![weighed(), weighed()]));
    announce(&mut story, "one", local(), 2);
    assert_eq!(route(&story, "tor", "192.168.35.0/24").endpoints, Some(2));
    announce(&mut story, "two", local(), 5);
    announce(&mut story, "cluster", service(), 7);
    assert_eq!(route(&story, "tor", "192.168.35.0/24").endpoints, Some(7));
    story.delete("one");
    assert_eq!(route(&story, "tor", "192.168.35.0/24").endpoints, Some(5));
}

#[test]
fn endpoints_that_end_count_only_while_there_are_no_others_and_each_family_counts_its_own() {
    let mut story = Story::begin(with(vec![Advertisement { link_bandwidth: true, ..advertisement() }]));
    announce(&mut story, "web", local(), 1);
    let mut told = |family, ready: u32, serving: u32| {
        let on_a = |count| NodeCounts::from([(NodeName::from("a"), count)]);
        let slice = EndpointSlice {
            service: key("web"),
            family: Some(family),
            ready: on_a(ready),
            serving: on_a(serving),
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        let name = if family == crate::address::Family::V4 { "web-1" } else { "web-2" };
        story.tell(Fact::EndpointSlice(key(name), Some(Arc::new(slice))));
        story.turn();
        route(&story, "tor", "192.168.35.1/32").endpoints
    };
    assert_eq!(told(crate::address::Family::V4, 2, 5), Some(2), "three terminate");
    assert_eq!(told(crate::address::Family::V6, 2, 2), Some(2), "the same pods by their other address");
    assert_eq!(told(crate::address::Family::V4, 0, 3), Some(3), "all terminate, and serve still");
}
