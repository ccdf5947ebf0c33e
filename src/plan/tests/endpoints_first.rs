//! Who goes first on the link beside the preferences, as stories: under `prefer-endpoints` nodes with an endpoint, and the node that
//! an operator chose.

use super::pulses::{ADDRESS, answering, heard, roster};
use super::*;
use crate::roster::{Holding, NodeTicket, Roster, Stage};

fn story(preference: &[(&str, u32)]) -> Story {
    let mut config = configuration();
    config.l2[0].prefer_endpoints = true;
    config.l2[0].preference = preference
        .iter()
        .map(|(nodes, weight)| Preference { nodes: nodes.parse().unwrap(), weight: *weight })
        .collect();
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    story
}

fn said(story: &Story) -> Option<Holding> {
    story.planner.plan().pulse.holdings.get(&ADDRESS.parse::<IpAddr>().unwrap()).copied()
}

/// b and c are there, and one of them says this of the address.
fn with(node: &str, weight: u32, stage: Stage) -> Fact {
    let says = |it: &mut Roster| {
        let member = it.members.get_mut(&NodeName::from(node)).unwrap();
        member.holdings = [(ADDRESS.parse::<IpAddr>().unwrap(), Holding { weight, stage })].into_iter().collect();
    };
    heard(roster(&[("b", &[]), ("c", &[])], &[]), says)
}

/// By MetalLB's order: b, c, a.
#[test]
fn an_address_that_nobody_has_goes_to_a_node_with_an_endpoint() {
    let mut story = story(&[]);
    story.endpoints("web", &["a"]);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a", "although b and c are ranked before it");
    assert_eq!(said(&story), Some(Holding { weight: 1, stage: Stage::Asks }), "the others hear why");
    story.endpoints("web", &["c"]);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a", "it has begun to take it");
}

#[test]
fn a_holder_with_an_endpoint_keeps_the_address_and_one_without_hands_it_over() {
    let mut story = story(&[]);
    story.endpoints("web", &["a"]);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
    story.tell(answering());
    story.turn();
    story.endpoints("web", &["a", "b"]);
    story.owner(with("b", 1, Stage::Asks));
    assert_eq!(said(&story).map(|it| it.stage), Some(Stage::Holds), "b has one too, and a keeps its own");
    story.endpoints("web", &["b"]);
    let granted = Stage::Grants { to: NodeTicket::of(&"b".into()) };
    assert_eq!(said(&story), Some(Holding { weight: 0, stage: granted }), "the last endpoint of a is gone");
}

#[test]
fn a_node_asks_for_an_address_when_the_last_endpoint_of_its_holder_has_gone_and_not_before() {
    let mut story = story(&[]);
    story.endpoints("web", &["a", "c"]);
    assert_eq!(story.owner(with("c", 1, Stage::Holds)), "c");
    assert_eq!(said(&story), None, "c has an endpoint as well");
    story.endpoints("web", &["a"]);
    assert_eq!(story.owner(with("c", 0, Stage::Holds)), "c");
    assert_eq!(said(&story), Some(Holding { weight: 1, stage: Stage::Asks }));
}

#[test]
fn a_preference_counts_before_any_endpoint() {
    let mut story = story(&[("edge", 1)]);
    let edge = node(&[("edge", "")]);
    story.tell(Fact::Node("a".into(), Some(Arc::new(edge))));
    story.endpoints("web", &["b"]);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
    assert_eq!(said(&story).map(|it| it.weight), Some(2), "twice its weight, and nothing for an endpoint");
}

#[test]
fn without_an_endpoint_anywhere_in_sight_of_pulses_or_under_local_nothing_is_different() {
    let mut local = story(&[]);
    local.put(
        "web",
        Service { ingress: vec![ADDRESS.parse().unwrap()], external_traffic_policy: TrafficPolicy::Local, ..service() },
    );
    local.endpoints("web", &["a"]);
    assert_eq!(local.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
    assert_eq!(said(&local).map(|it| it.weight), Some(0));
    let mut without_pulses = story(&[]);
    without_pulses.tell(Fact::Pulses(crate::world::Pulses::Off));
    without_pulses.endpoints("web", &["a"]);
    assert_eq!(without_pulses.owner(Fact::LinksListed), "b", "the order of MetalLB, which all nodes know alike");
}

/// The same Service, for which an operator chose a node.
fn choose(story: &mut Story, node: &str) {
    let ingress = vec![ADDRESS.parse().unwrap()];
    story.put("web", Service { ingress, node: Some(node.into()), ..service() });
}

#[test]
fn the_chosen_node_asks_whatever_the_preferences_say_and_its_holder_hands_over() {
    let mut story = story(&[("edge", 7)]);
    story.endpoints("web", &["a", "c"]);
    assert_eq!(story.owner(with("c", 20, Stage::Holds)), "c");
    choose(&mut story, "a");
    story.turn();
    assert_eq!(said(&story), Some(Holding { weight: u32::MAX, stage: Stage::Asks }));

    let mut story = self::story(&[]);
    story.endpoints("web", &["a"]);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
    story.tell(answering());
    choose(&mut story, "b");
    story.turn();
    assert_eq!(said(&story).map(|it| it.stage), Some(Stage::Holds), "b does not ask yet");
    story.owner(with("b", u32::MAX, Stage::Asks));
    let granted = Stage::Grants { to: NodeTicket::of(&"b".into()) };
    assert_eq!(said(&story).map(|it| it.stage), Some(granted));
}

#[test]
fn a_chosen_node_that_is_not_there_is_waited_for_by_nobody() {
    let mut story = story(&[]);
    story.endpoints("web", &["a"]);
    choose(&mut story, "nowhere");
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
}
