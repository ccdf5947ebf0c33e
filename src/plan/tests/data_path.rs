//! What a node does whose data path is not good, as stories. This node is `a`; by MetalLB's order b, c, a have .103.

use std::collections::BTreeSet;

use super::pulses::{ADDRESS, answering, roster, with_pulses};
use super::*;
use crate::path_state::{DataPath, PathFault, PathSource, PathState};
use crate::roster::{Eligibility, Holding, Member, Stage};
use crate::world::{Refusal, SessionReport, SessionState};

fn path(state: PathState, good_since_boot: bool) -> Fact {
    Fact::DataPath(DataPath { state, good_since_boot, source: PathSource::KubeProxy })
}

fn good() -> Fact {
    path(PathState::Good, true)
}

fn unseen() -> Fact {
    path(PathState::Unknown { why: PathFault::ProxyNotStarted }, false)
}

fn rules_gone() -> Fact {
    path(PathState::Bad { why: PathFault::RulesGone { family: crate::address::Family::V4 } }, true)
}

fn unhealthy() -> Fact {
    path(
        PathState::Bad { why: PathFault::Unhealthy { url: "http://127.0.0.1:10256/healthz".into(), status: 503 } },
        true,
    )
}

/// The others as they are heard, each with its eligibility.
fn heard(members: &[(&str, Eligibility)]) -> Fact {
    let names: Vec<(&str, &[&str])> = members.iter().map(|(name, _)| (*name, &[][..])).collect();
    let Fact::Roster(link, Some(mut roster)) = roster(&names, &[]) else { panic!("it tells a roster") };
    for (name, eligibility) in members {
        Arc::make_mut(&mut roster).members.get_mut(&NodeName::from(*name)).unwrap().eligibility = *eligibility;
    }
    Fact::Roster(link, Some(roster))
}

/// The same, and one of them says this of the address.
fn saying(fact: Fact, name: &str, stage: Stage) -> Fact {
    let Fact::Roster(link, Some(mut roster)) = fact else { panic!("it tells a roster") };
    let member = Arc::make_mut(&mut roster).members.get_mut(&NodeName::from(name)).unwrap();
    member.holdings =
        [(ADDRESS.parse::<std::net::IpAddr>().unwrap(), Holding { weight: 0, stage })].into_iter().collect();
    Fact::Roster(link, Some(roster))
}

fn eligibility(story: &Story) -> Option<Eligibility> {
    story.planner.plan().pulse.eligibility
}

#[test]
fn a_node_that_has_not_served_since_its_boot_takes_nothing_even_alone() {
    let mut story = with_pulses(false);
    story.tell(unseen());
    let reason = story.owner(heard(&[]));
    assert!(reason.contains("not seen good since its boot (kube-proxy ran here before the last boot"), "{reason}");
    assert!(story.answered().is_empty() && story.routes().is_empty(), "neither on the link nor over BGP");
    assert_eq!(eligibility(&story), Some(Eligibility::DataPathNotSeen), "and it says so");
    assert_eq!(story.owner(good()), "a");
    assert_eq!(story.routes(), ["192.168.35.103/32"]);
}

#[test]
fn a_node_that_lost_its_path_gives_way_to_one_that_serves_and_to_no_other() {
    let mut story = with_pulses(false);
    assert_eq!(story.owner(heard(&[])), "a");
    story.tell(answering());
    assert_eq!(story.owner(unhealthy()), "a", "there is nobody else");
    assert_eq!(story.routes(), ["192.168.35.103/32"]);
    assert_eq!(eligibility(&story), Some(Eligibility::DataPathBad));
    assert_eq!(story.owner(heard(&[("b", Eligibility::DataPathNotSeen)])), "a", "b serves less still");
    let c = || heard(&[("c", Eligibility::Eligible)]);
    assert_eq!(story.owner(saying(c(), "c", Stage::Asks)), "a", "it answers until c does");
    assert_eq!(story.answered(), [ADDRESS]);
    assert_eq!(story.owner(saying(c(), "c", Stage::Holds)), "c");
    assert!(story.answered().is_empty() && story.routes().is_empty());
}

#[test]
fn others_that_lost_their_path_are_passed_over_while_one_serves() {
    let mut story = with_pulses(false);
    let all = |eligibility| heard(&[("b", eligibility), ("c", eligibility)]);
    assert_eq!(story.owner(all(Eligibility::Eligible)), "b");
    assert_eq!(story.owner(all(Eligibility::DataPathBad)), "a");
    story.tell(answering());
    story.tell(rules_gone());
    assert_eq!(story.owner(all(Eligibility::DataPathBad)), "a", "where no node serves the last one goes on");
    assert_eq!(story.routes(), ["192.168.35.103/32"], "and all go on over BGP");
}

#[test]
fn where_no_node_takes_the_address_the_reason_names_each_node_with_what_it_lacks() {
    // Input: policy Cluster and endpoints; this node was not seen good, b is bad, c is being drained.
    let mut story = with_pulses(false);
    story.tell(unseen());
    let reason = story.owner(heard(&[("b", Eligibility::DataPathBad), ("c", Eligibility::Draining)]));
    assert!(!reason.contains("policy Local") && !reason.contains("another node"), "{reason}");
    for part in
        ["b: the node's data path is bad", "c: the node is being drained", "a: the node's data path was not seen"]
    {
        assert!(reason.contains(part), "{part}: {reason}");
    }
}

#[test]
fn where_no_node_is_good_this_one_takes_what_nobody_holds_and_waits_for_a_better_one() {
    let mut story = with_pulses(false);
    story.tell(unhealthy());
    let all_bad = heard(&[("b", Eligibility::DataPathNotSeen)]);
    story.owner(all_bad);
    assert!(story.answered().is_empty(), "the path may come back in a moment");
    story.now = story.planner.next_deadline().expect("it waits");
    story.turn();
    assert_eq!(story.answered(), [ADDRESS]);
    let mut story = with_pulses(false);
    story.tell(unhealthy());
    story.owner(heard(&[("b", Eligibility::Eligible)]));
    story.now += Duration::from_secs(9);
    story.turn();
    assert!(story.answered().is_empty(), "b is good and has its time");
}

#[test]
fn without_pulses_only_a_node_whose_rules_are_gone_leaves_bgp_to_ready_nodes() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { ingress: vec!["192.168.35.103".parse().unwrap()], ..service() });
    story.endpoints("web", &["b"]);
    story.tell(unhealthy());
    story.turn();
    assert_eq!(story.routes(), ["192.168.35.103/32"], "its rules still work, and the others may be no better");
    story.tell(rules_gone());
    story.turn();
    assert!(story.routes().is_empty(), "b and c are Ready");
    for name in ["b", "c"] {
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    }
    story.turn();
    assert_eq!(story.routes(), ["192.168.35.103/32"], "nobody else is");
}

#[test]
fn without_pulses_a_kube_proxy_that_is_gone_with_its_rules_leaves_bgp_as_it_is() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { ingress: vec!["192.168.35.103".parse().unwrap()], ..service() });
    story.endpoints("web", &["b"]);
    story.tell(path(PathState::Bad { why: PathFault::ProxyGone }, true));
    story.turn();
    assert_eq!(story.routes(), ["192.168.35.103/32"], "it may have been replaced on every node");
}

#[test]
fn under_policy_local_only_nodes_with_an_endpoint_count() {
    let mut story = with_pulses(false);
    story.put(
        "web",
        Service {
            ingress: vec!["192.168.35.103".parse().unwrap()],
            external_traffic_policy: TrafficPolicy::Local,
            ..service()
        },
    );
    story.endpoints("web", &["a"]);
    let b = || heard(&[("b", Eligibility::Eligible)]);
    story.owner(b());
    story.tell(answering());
    story.tell(rules_gone());
    story.turn();
    assert_eq!(
        (story.answered(), story.routes()),
        (vec!["192.168.35.103".to_owned()], vec!["192.168.35.103/32".to_owned()]),
        "b has no endpoint"
    );
    story.endpoints("web", &["a", "b"]);
    assert!(story.routes().is_empty(), "b has one");
    assert_eq!(story.owner(saying(b(), "b", Stage::Holds)), "b");
    assert!(story.answered().is_empty() && story.routes().is_empty(), "b has one");
}

fn unreachable(story: &mut Story) {
    let since = std::time::SystemTime::UNIX_EPOCH;
    story.tell(Fact::ApiServer(crate::world::ApiServer::Unreachable {
        since,
        why: "timed out".to_owned(),
        refusal: Refusal::NoAnswer,
    }));
    story.turn();
}

/// This of b, as it is heard.
fn of_b(change: fn(&mut Member)) -> Fact {
    let Fact::Roster(link, Some(mut roster)) = heard(&[("b", Eligibility::Eligible)]) else { panic!("a roster") };
    change(Arc::make_mut(&mut roster).members.get_mut(&NodeName::from("b")).unwrap());
    Fact::Roster(link, Some(roster))
}

/// A stale view does not know where the endpoints are now. Input: policy Local, the endpoint of the Service here, as far as this node knows;
/// its way to the API server goes, and b, which it hears, says that it announces the address over BGP. Output: this node's route leaves while b
/// says so, hears its API server and serves, and at no other time.
#[test]
fn under_policy_local_a_stale_view_gives_way_over_bgp_to_a_node_that_says_that_it_announces_the_address() {
    let mut story = with_pulses(true);
    story.change("web", |web| web.external_traffic_policy = TrafficPolicy::Local);
    story.endpoints("web", &["a"]);
    story.tell(Fact::ApiServer(crate::world::ApiServer::Reachable));
    let announces = |member: &mut Member| member.over_bgp = Some(Arc::new([ADDRESS.parse().unwrap()].into()));
    let stale_too = |member: &mut Member| {
        member.over_bgp = Some(Arc::new([ADDRESS.parse().unwrap()].into()));
        member.hears_api_server = false;
    };
    let after = |story: &mut Story, fact: Fact| {
        story.tell(fact);
        story.turn();
        story.routes().len()
    };
    assert_eq!(after(&mut story, of_b(announces)), 1, "a fresh view gives way to nobody");
    unreachable(&mut story);
    story.now = story.planner.next_deadline().expect("the view becomes stale");
    story.turn();
    assert!(story.routes().is_empty());
    assert_eq!(story.decision("web").announcements[0].bgp.reason, crate::reason::Reason::NodeViewStale);
    assert_eq!(after(&mut story, of_b(|_| ())), 1, "b announces it no more");
    assert_eq!(after(&mut story, of_b(announces)), 0);
    assert_eq!(after(&mut story, of_b(stale_too)), 1, "b knows no more than this node");
    assert_eq!(after(&mut story, of_b(announces)), 0);
    assert_eq!(after(&mut story, heard(&[])), 1, "b is gone");
    // This node goes by what it last knew of endpoints only where b does not say what it announces.
    let says_nothing_of_it = |member: &mut Member| member.over_bgp = Some(Arc::default());
    story.endpoints("web", &["a", "b"]);
    for policy in [TrafficPolicy::Local, TrafficPolicy::Cluster] {
        story.change("web", |web| web.external_traffic_policy = policy);
        assert_eq!(after(&mut story, of_b(|_| ())), 0, "as far as this node knows b serves");
        assert_eq!(
            after(&mut story, of_b(says_nothing_of_it)),
            1,
            "b says that it does not: its endpoint has gone, or its session"
        );
        assert_eq!(after(&mut story, of_b(announces)), 0);
    }
}

/// The other end of it. Output: what this node announces by a session that stands, while it hears its API server and another node does not.
#[test]
fn a_node_says_what_it_announces_over_bgp_while_it_hears_one_with_a_stale_view() {
    let mut story = with_pulses(true);
    story.tell(Fact::ApiServer(crate::world::ApiServer::Reachable));
    let said = |story: &Story| story.planner.plan().pulse.over_bgp.as_deref().cloned();
    let stale = |member: &mut Member| member.hears_api_server = false;
    assert_eq!(story.routes(), ["192.168.35.103/32"]);
    story.tell(of_b(stale));
    story.turn();
    assert_eq!(said(&story), Some(BTreeSet::new()), "no router has heard of it");
    let report = SessionReport::new(SessionState::Established, std::time::SystemTime::UNIX_EPOCH);
    story.tell(Fact::Session("tor".into(), report));
    story.turn();
    assert_eq!(said(&story), Some([ADDRESS.parse().unwrap()].into()));
    story.tell(of_b(|_| ()));
    story.turn();
    assert_eq!(said(&story), None, "nobody needs it");
    story.tell(of_b(stale));
    unreachable(&mut story);
    assert_eq!(said(&story), None, "it knows no more than b");
}

#[test]
fn a_file_without_l2_sends_pulses_on_the_links_that_it_names_and_a_stale_view_gives_way_over_bgp() {
    // Input: no [[l2]], [pulse] interfaces = ["eth*"]; this node loses its way to the API server, and b does not.
    let mut config = configuration();
    config.l2 = Vec::new();
    config.pulse.interfaces = vec![config::InterfacePattern::StartsWith("eth".to_owned())];
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    story.endpoints("web", &["a"]);
    let pulse = story.planner.plan().pulse.clone();
    assert_eq!(pulse.links.keys().collect::<Vec<_>>(), [&2]);
    assert!(pulse.links[&2].card.weights.is_empty(), "it takes no part in who holds what on the link");
    assert_eq!(pulse.eligibility, Some(Eligibility::Eligible));

    story.tell(heard(&[("b", Eligibility::Eligible)]));
    story.tell(Fact::ApiServer(crate::world::ApiServer::Reachable));
    story.turn();
    unreachable(&mut story);
    assert_eq!(story.routes(), ["192.168.35.103/32"], "it may come back in a moment");
    story.now = story.planner.next_deadline().expect("the view becomes stale");
    story.turn();
    assert!(story.routes().is_empty());
    assert_eq!(story.decision("web").announcements[0].bgp.reason, crate::reason::Reason::NodeViewStale);
    assert_eq!(eligibility(&story), Some(Eligibility::ViewStale));
    let b_away_too = heard(&[("b", Eligibility::Eligible)]);
    let Fact::Roster(link, Some(mut members)) = b_away_too else { panic!("it tells a roster") };
    Arc::make_mut(&mut members).members.get_mut(&NodeName::from("b")).unwrap().hears_api_server = false;
    story.tell(Fact::Roster(link, Some(members)));
    story.turn();
    assert_eq!(story.routes(), ["192.168.35.103/32"], "with the API server away from all, nothing moves");
}

#[test]
fn a_link_that_only_pulses_pass_on_is_one_of_the_interfaces_that_are_named() {
    let mut config = configuration();
    config.l2 = Vec::new();
    config.pulse.interfaces = vec![config::InterfacePattern::Exact("eth1".into())];
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.turn();
    assert!(story.planner.plan().pulse.links.is_empty(), "eth0 is not named");
}
