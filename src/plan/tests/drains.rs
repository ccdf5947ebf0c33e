//! A node that is drained: it steps back, hands over, and announces nothing; every stage can be taken back.

use super::*;
use crate::community::Community;
use crate::world::{Drain, DrainStage, Ordered};

fn drain(story: &mut Story, stage: Option<DrainStage>) -> Turn {
    let drain = stage.map(|stage| {
        let (since, until) = (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH);
        Arc::new(Drain { stage, ordered: Ordered::default(), since, until, timed_out: false })
    });
    story.tell(Fact::Drain(drain));
    story.turn()
}

fn announcing() -> Story {
    let mut config = configuration();
    config.bgp.advertisements[0].local_preference = Some(200);
    config.bgp.advertisements[0].communities = vec!["64512:100".parse().unwrap()];
    let mut story = Story::begin(config);
    story.endpoints("web", &["b"]);
    story.put("web", service());
    story.confirm("web");
    story
}

fn route(story: &Story) -> Option<(Option<u32>, Vec<Community>)> {
    let peer = &story.planner.plan().bgp.peers[&PeerName::from("tor")];
    peer.routes.values().next().map(|route| (route.local_preference, route.communities.clone()))
}

#[test]
fn routes_step_back_while_flows_are_waited_for_and_go_at_the_end() {
    let mut story = announcing();
    let own: Community = "64512:100".parse().unwrap();
    let before = Some((Some(200), vec![own]));
    assert_eq!(route(&story), before);
    for stage in [DrainStage::Waiting, DrainStage::HandingOver] {
        drain(&mut story, Some(stage));
        assert_eq!(route(&story), Some((Some(0), vec![own, Community::GRACEFUL_SHUTDOWN])), "{stage:?}");
    }
    drain(&mut story, Some(DrainStage::Withdrawing));
    assert_eq!(route(&story), None);
    drain(&mut story, Some(DrainStage::Drained));
    assert_eq!(route(&story), None);
    let reason = story.decision("web").announcements[0].bgp.reason.clone();
    assert_eq!(reason, Reason::NodeDrained, "status says why");
    drain(&mut story, None);
    assert_eq!(route(&story), before, "undrain makes it what it was");
}

#[test]
fn a_drain_frees_no_address_and_changes_no_allocation() {
    let mut story = announcing();
    let held = story.addresses("web");
    for stage in [Some(DrainStage::Waiting), Some(DrainStage::HandingOver), Some(DrainStage::Drained), None] {
        drain(&mut story, stage);
        assert_eq!(story.addresses("web"), held, "{stage:?}");
    }
}

#[test]
fn the_pulse_says_how_far_the_node_is_and_who_drains_takes_nothing() {
    use crate::plan::holder::{Bid, Grade};
    use crate::roster::Eligibility;
    use crate::world::Pulses;
    let mut story = announcing();
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    story.turn();
    let told = |story: &Story| story.planner.plan().pulse.eligibility;
    for (stage, eligibility) in [
        (None, Eligibility::Eligible),
        (Some(DrainStage::Waiting), Eligibility::Eligible),
        (Some(DrainStage::HandingOver), Eligibility::Draining),
        (Some(DrainStage::Withdrawing), Eligibility::Drained),
        (Some(DrainStage::Drained), Eligibility::Drained),
        (None, Eligibility::Eligible),
    ] {
        drain(&mut story, stage);
        assert_eq!(told(&story), Some(eligibility), "{stage:?}");
    }
    let best = Bid { grade: Grade::Draining, weight: u32::MAX };
    assert!(best < Bid { grade: Grade::DataPathBad, weight: 0 }, "any other node goes before it");
    assert_eq!(crate::plan::elect::grade(Eligibility::Draining), Some(Grade::Draining), "others hear it so");
    assert_eq!(crate::plan::elect::grade(Eligibility::Drained), None);
}

/// Output: without pulses nobody hears of a drain, so the node ceases to answer and stands by for nothing; the nodes that stand by
/// find that out.
#[test]
fn without_pulses_a_node_that_hands_over_answers_for_nothing() {
    let mut story = Story::begin(configuration());
    ["b", "c"].into_iter().for_each(|name| story.tell(Fact::Node(name.into(), None)));
    story.endpoints("web", &["a"]);
    story.put("web", story_ingress());
    story.tell(super::pulses::answering());
    for (stage, answered) in [
        (None, 1),
        (Some(DrainStage::Waiting), 1),
        (Some(DrainStage::HandingOver), 0),
        (Some(DrainStage::Withdrawing), 0),
        (Some(DrainStage::Drained), 0),
        (None, 1),
    ] {
        drain(&mut story, stage);
        let l2 = &story.planner.plan().l2;
        assert_eq!((story.answered().len(), l2.standbys.len()), (answered, 0), "{stage:?}");
        let reason = story.decision("web").announcements[0].l2.reason.clone();
        assert_eq!(reason == Reason::NodeDrained, answered == 0, "{stage:?}: {reason}");
    }
}
