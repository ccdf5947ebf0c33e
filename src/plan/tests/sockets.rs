//! Links where this node can open no socket for ARP and NDP, as stories.

use super::pulses::{ADDRESS, answering, roster, with_pulses};
use super::*;
use crate::names::InterfaceName;

fn no_socket(why: Option<&str>) -> Fact {
    Fact::NoSocket("eth0".into(), why.map(str::to_owned))
}

/// Input: the responder can open no socket on the only link of this node, which others can; then it can again. Output: this
/// node owns nothing there and says no weight of its own, its pulses go on, the responder goes on trying, and the address is its again.
#[test]
fn a_node_without_a_socket_on_the_link_owns_nothing_there_until_it_has_one() {
    let mut story = with_pulses(false);
    assert_eq!(story.owner(roster(&[], &[])), "a");
    assert_eq!(story.owner(answering()), "a");
    let with_weight = |story: &Story| {
        let links = story.planner.plan().pulse.links.clone();
        links.values().map(|it| !it.card.weights.is_empty()).collect::<Vec<bool>>()
    };
    assert_eq!(with_weight(&story), [true]);
    story.tell(no_socket(Some("Operation not permitted")));
    story.turn();
    let l2 = story.decision("web").announcements[0].l2.clone();
    assert!(matches!(l2.reason, Reason::NoSocket { .. }) && !l2.announced, "{l2:?}");
    assert_eq!((story.answered().len(), with_weight(&story)), (0, vec![false]));
    assert_eq!(story.planner.plan().pulse.holdings.len(), 0);
    let l2 = &story.planner.plan().l2;
    assert!(l2.may_answer_on.is_empty() && l2.would_answer_on.iter().eq([&InterfaceName::from("eth0")]));
    story.tell(Fact::Answering { link: "eth0".into(), began: vec![], ended: vec![ADDRESS.parse().unwrap()] });
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b");
    story.tell(no_socket(None));
    story.turn();
    assert_eq!(with_weight(&story), [true]);
    assert_eq!(story.owner(roster(&[], &["b"])), "a");
}

/// The same without pulses.
#[test]
fn without_pulses_it_answers_for_nothing_either() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    story.endpoints("web", &["a"]);
    for node in ["b", "c"] {
        story.tell(Fact::Node(node.into(), None));
    }
    story.turn();
    assert_eq!(story.answered(), [ADDRESS]);
    story.tell(no_socket(Some("Too many open files")));
    story.turn();
    assert_eq!(story.answered(), [""; 0]);
    let l2 = story.decision("web").announcements[0].l2.clone();
    assert!(matches!(l2.reason, Reason::NoSocket { .. }), "{l2:?}");
}
