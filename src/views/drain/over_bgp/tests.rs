//! A drain withdraws no last route.

use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;

use super::*;
use crate::clock;
use crate::config::{NoSecrets, SourceFile, parse};
use crate::plan::Planner;
use crate::roster::Roster;
use crate::selector::Labels;
use crate::views::drain::nobody_else;
use crate::world::{ApiServer, EndpointSlice, Fact, NodeCounts, Request, SessionReport, SessionState, Shutdown};

const FILE: &str = "[manifests]\nfolder = \"/m\"\n[[pool]]\nname = \"lan\"\naddresses = [\"203.0.113.7\"]\n[bgp]\nasn = 64513\n\
                    [[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\nNODES[[bgp.advertisement]]\n";

const BY_RACK: &str = "nodes = \"rack=a\"\n";

/// node-1, whose session stands, and node-2, which is Ready; a Service with endpoints on these nodes.
struct Scene {
    peer_nodes: &'static str,
    labels_of_other: &'static [(&'static str, &'static str)],
    policy: TrafficPolicy,
    egress: Option<Egress>,
    endpoints: &'static [&'static str],
    /// What node-2 says of itself; `None` without pulses.
    other: Option<Member>,
}

fn scene() -> Scene {
    Scene {
        peer_nodes: "",
        labels_of_other: &[],
        policy: TrafficPolicy::Cluster,
        egress: None,
        endpoints: &["node-1", "node-2"],
        other: Some(says(Some(Sessions::Stand))),
    }
}

fn says(sessions: Option<Sessions>) -> Member {
    Member { sessions, ..Member::eligible("02:00:00:00:00:02".parse().unwrap()) }
}

fn why(scene: Scene, more: &[Fact]) -> Option<String> {
    let text = FILE.replace("NODES", scene.peer_nodes);
    let file = SourceFile { path: "crier.toml".to_owned(), text };
    let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
    let mut planner = Planner::new(Arc::new(config), "node-1".into());
    let node = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Some(Arc::new(Node { labels: Labels(labels), ready: true, ..Node::default() }))
    };
    let web = ObjectKey::new("shop", "web");
    let service = Service {
        load_balancer: true,
        families: vec![Family::V4],
        request: Ok(Request::default()),
        external_traffic_policy: scene.policy,
        egress: scene.egress,
        ..Service::default()
    };
    let on: NodeCounts = scene.endpoints.iter().map(|name| (NodeName::from(*name), 1)).collect();
    let slice = EndpointSlice {
        service: web.clone(),
        family: None,
        ready: on.clone(),
        serving: on,
        serving_without_node: 0,
        unready: Default::default(),
        addresses: vec!["10.244.1.2".parse().unwrap()].into(),
    };
    let pulses = scene.other.is_some();
    let members = scene.other.into_iter().map(|member| ("node-2".into(), member)).collect();
    let roster = Roster { settled: true, members, ..Roster::default() };
    for fact in [
        Fact::ApiServer(ApiServer::Manifests),
        Fact::Node("node-1".into(), node(&[("rack", "a")])),
        Fact::Node("node-2".into(), node(scene.labels_of_other)),
        Fact::LinksListed,
        Fact::Service(web, Some(Arc::new(service))),
        Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(slice))),
        Fact::Pulses(if pulses { Pulses::On { authenticated: true } } else { Pulses::Off }),
        Fact::Session("tor".into(), SessionReport::new(SessionState::Established, SystemTime::UNIX_EPOCH)),
        Fact::FailStatic,
    ] {
        planner.apply(fact);
    }
    if pulses {
        planner.apply(Fact::Roster(2, Some(Arc::new(roster))));
    }
    more.iter().cloned().for_each(|fact| planner.apply(fact));
    planner.turn(clock::now());
    let counters = crate::views::Counters::default();
    nobody_else(&Snapshot::of(&planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall()))
}

#[test]
fn a_node_is_not_drained_where_no_other_has_a_bgp_session() {
    for (sessions, is_drained) in
        [(Some(Sessions::Stand), true), (None, true), (Some(Sessions::Missing), false), (Some(Sessions::Away), false)]
    {
        let scene = || Scene { other: Some(says(sessions)), ..scene() };
        let why_not = why(scene(), &[]);
        assert_eq!(why_not.is_none(), is_drained, "{sessions:?}: {why_not:?}");
        let expected = "no other node would announce 203.0.113.7 of shop/web over BGP: node-2 has no BGP session";
        assert!(why_not.is_none_or(|why| why == expected));
        // Nothing is lost where no router has the route; and the host that shuts down goes in any case.
        let down = Fact::Session("tor".into(), SessionReport::new(SessionState::Active, SystemTime::UNIX_EPOCH));
        assert_eq!(why(scene(), &[down]), None, "{sessions:?}");
        let shuts_down = Fact::Shutdown(Shutdown { begun: Some(true), ..Shutdown::default() });
        assert_eq!(why(scene(), &[shuts_down]), None, "{sessions:?}");
    }
}

#[test]
fn a_node_is_not_drained_where_no_other_has_a_peer_for_the_address() {
    for other in [Some(says(None)), None] {
        let scene = |labels_of_other| Scene { peer_nodes: BY_RACK, labels_of_other, other: other.clone(), ..scene() };
        let refused = why(scene(&[]), &[]).expect("node-1 alone is of the rack");
        assert!(refused.ends_with("node-2 has no [[bgp.peer]] of a [[bgp.advertisement]] of it"), "{refused}");
        assert_eq!(why(scene(&[("rack", "a")]), &[]), None);
    }
}

#[test]
fn a_node_is_not_drained_where_the_policy_is_local_and_no_other_has_an_endpoint() {
    for other in [Some(says(Some(Sessions::Stand))), None] {
        let scene = |policy, endpoints| Scene { policy, endpoints, other: other.clone(), ..scene() };
        let refused = why(scene(TrafficPolicy::Local, &["node-1"]), &[]).expect("node-1 alone has one");
        assert!(refused.ends_with("node-2 has no endpoint of it (externalTrafficPolicy: Local)"), "{refused}");
        assert_eq!(why(scene(TrafficPolicy::Local, &["node-1", "node-2"]), &[]), None);
        assert_eq!(why(scene(TrafficPolicy::Cluster, &["node-1"]), &[]), None);
    }
}

#[test]
fn the_owner_of_an_egress_address_is_not_drained_where_the_next_one_has_no_session() {
    let scene = |sessions| Scene { egress: Some(Egress::ServiceAddress), other: Some(says(Some(sessions))), ..scene() };
    let refused = why(scene(Sessions::Away), &[]).expect("node-1 is the owner, for node-2 has no session");
    assert!(refused.ends_with("node-2 has no BGP session"), "{refused}");
    // Whichever is the owner.
    assert_eq!(why(scene(Sessions::Stand), &[]), None);
}
