//! Egress over BGP alone: one node is elected to announce, and all agree which. And with another configuration or a drain.

use super::pulses::{heard, roster};
use super::*;
use crate::plan::slice::Mapping;
use crate::roster::Eligibility;
use crate::world::{Drain, DrainStage, Egress, NodeCounts, Pulses};

const POD: &str = "10.244.1.2";

/// A Service with a pod, whose packets leave with its address. BGP alone.
fn sending_on(me: &str) -> Story {
    let mut story = Story::begin_on(me, Config { l2: Vec::new(), ..configuration() });
    for name in ["a", "b", "c"] {
        let of_node = IpAddr::from([192, 168, 35, 20 + name.as_bytes()[0] - b'a']);
        story.tell(Fact::Node(name.into(), Some(Arc::new(Node { addresses: vec![of_node], ..node(&[]) }))));
    }
    story.put("web", Service { egress: Some(Egress::ServiceAddress), ..story_ingress() });
    let slice = EndpointSlice {
        service: key("web"),
        family: None,
        ready: NodeCounts::from([("b".into(), 1)]),
        serving: NodeCounts::from([("b".into(), 1)]),
        serving_without_node: 0,
        addresses: vec![POD.parse().unwrap()].into(),
    };
    story.tell(Fact::EndpointSlice(key("web-1"), Some(Arc::new(slice))));
    story.turn();
    story
}

fn owner(story: &Story) -> Option<NodeName> {
    story.decision("web").egress.as_ref().and_then(|egress| egress.owners[0].owner.clone())
}

fn mapping(story: &Story) -> Mapping {
    story.planner.plan().egress.pods[&POD.parse::<IpAddr>().unwrap()]
}

fn translated() -> Mapping {
    Mapping::Translated { address: "192.168.35.100".parse().unwrap() }
}

/// The owner, and the node that is elected where the owner is none.
fn first_and_second() -> (NodeName, NodeName) {
    let mut story = sending_on("a");
    let first = owner(&story).expect("there is one");
    story.tell(Fact::Node(first.clone(), Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    story.turn();
    (first, owner(&story).expect("there is another"))
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
        let drain = Drain { stage: DrainStage::Drained, reason: None, since, until, timed_out: false, follows: false };
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
