//! How long a node waits before it asks, before it takes, and before it says that another one is late, as stories. By
//! MetalLB's order b, c, a have .103.

use super::pulses::{ADDRESS, heard, roster};
use super::*;
use crate::roster::{Eligibility, Stage};

/// The story of a node, with a `preempt-delay`.
fn of(node: &str, delay: Duration) -> Story {
    let mut config = configuration();
    config.l2[0].preempt_delay = delay;
    let mut story = Story::begin_on(node, config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    story.endpoints("web", &["b"]);
    story
}

impl Story {
    fn says(&self) -> Option<Stage> {
        self.planner.plan().pulse.holdings.get(&ADDRESS.parse::<IpAddr>().unwrap()).map(|it| it.stage)
    }

    /// Time passes; nothing is heard.
    fn wait_for_deadline(&mut self) -> Duration {
        let due = self.planner.next_deadline().expect("there is something to wait for");
        let waited = due.saturating_duration_since(self.now);
        self.now = due;
        self.turn();
        waited
    }
}

#[test]
fn a_node_that_comes_back_asks_for_nothing_before_its_preempt_delay_is_over() {
    // Input: b, which is the best for .103, comes back while a holds the address. Output: b asks after ten seconds.
    let mut story = of("b", Duration::from_secs(10));
    let by_a = || roster(&[("a", &[ADDRESS])], &[]);
    story.owner(heard(by_a(), |it| it.settled = false));
    story.now += Duration::from_secs(60);
    assert_eq!(story.owner(by_a()), "a", "only now it has listened long enough");
    assert_eq!(story.says(), None);
    assert_eq!(story.wait_for_deadline(), Duration::from_secs(10));
    assert_eq!(story.says(), Some(Stage::Asks));
}

#[test]
fn without_a_preempt_delay_a_better_node_asks_as_soon_as_it_is_settled() {
    let mut story = of("b", Duration::ZERO);
    story.owner(roster(&[("a", &[ADDRESS])], &[]));
    assert_eq!(story.says(), Some(Stage::Asks));
    assert_eq!(story.planner.next_deadline(), None, "there is nothing to wait for");
}

#[test]
fn the_preempt_delay_begins_anew_when_a_node_was_not_eligible() {
    let mut story = of("b", Duration::from_secs(10));
    let by_a = || roster(&[("a", &[ADDRESS])], &[]);
    story.owner(by_a());
    story.now += Duration::from_secs(9);
    let excluded = node(&[("node.kubernetes.io/exclude-from-external-load-balancers", "")]);
    story.tell(Fact::Node("b".into(), Some(Arc::new(excluded))));
    story.turn();
    story.now += Duration::from_secs(9);
    story.tell(Fact::Node("b".into(), Some(Arc::new(node(&[])))));
    story.turn();
    assert_eq!(story.says(), None);
    assert_eq!(story.wait_for_deadline(), Duration::from_secs(10));
    assert_eq!(story.says(), Some(Stage::Asks));
}

#[test]
fn the_preempt_delay_leaves_no_address_without_an_owner() {
    let mut story = of("b", Duration::from_secs(3600));
    assert_eq!(story.owner(roster(&[("a", &[ADDRESS])], &[])), "a");
    assert_eq!(story.owner(roster(&[], &["a"])), "b", "a is dead: b takes over at once");
}

/// Input: a holds the address, and its data path is bad, its view stale, or it is being drained; b is eligible since a
/// moment. Output: b asks at once, whatever its `preempt-delay`.
#[test]
fn the_preempt_delay_does_not_keep_a_node_from_relieving_one_that_does_not_serve() {
    for eligibility in [Eligibility::DataPathBad, Eligibility::ViewStale, Eligibility::Draining] {
        let mut story = of("b", Duration::from_secs(3600));
        let by_a = |eligibility| {
            heard(roster(&[("a", &[ADDRESS])], &[]), |it| {
                it.members.get_mut(&NodeName::from("a")).unwrap().eligibility = eligibility;
            })
        };
        assert_eq!(story.owner(by_a(Eligibility::Eligible)), "a");
        assert_eq!(story.says(), None);
        assert_eq!(story.owner(by_a(eligibility)), "a");
        assert_eq!(story.says(), Some(Stage::Asks), "{eligibility:?}");
        story.owner(by_a(Eligibility::Eligible));
        assert_eq!(story.says(), None, "it serves again");
    }
}

#[test]
fn a_node_that_is_first_and_does_not_take_an_address_is_named_after_a_while() {
    // Input: a cannot serve the address, for its Node is excluded, and b is first and does nothing.
    let mut story = of("a", Duration::ZERO);
    let excluded = node(&[("node.kubernetes.io/exclude-from-external-load-balancers", "")]);
    story.tell(Fact::Node("a".into(), Some(Arc::new(excluded))));
    let reason = |story: &Story| story.decision("web").announcements[0].l2.reason.clone();
    assert_eq!(story.owner(roster(&[("b", &[])], &[])), "b");
    assert_eq!(reason(&story).code(), "owned-by");
    assert_eq!(story.wait_for_deadline(), crate::plan::holder::OVERDUE_AFTER);
    assert_eq!(
        reason(&story).to_string(),
        "b ranks first for 192.168.35.103 but does not answer for it; run `crier l2 192.168.35.103` on b"
    );
    assert_eq!(story.planner.next_deadline(), None, "it is said, and there is nothing to wait for");
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b");
    assert_eq!(reason(&story).code(), "owned-by");
    let gone = heard(roster(&[("b", &[])], &[]), |it| {
        it.members.get_mut(&NodeName::from("b")).unwrap().eligibility = Eligibility::Excluded;
    });
    story.owner(gone);
    assert_eq!(reason(&story).code(), "no-eligible-node");
}
