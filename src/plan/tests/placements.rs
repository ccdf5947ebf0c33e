//! Since when an address is where it is, and why: what the plan remembers of each move, as stories.

use super::pulses::{ADDRESS, answering, departed, heard, roster, with_pulses};
use super::*;
use crate::address::Family;
use crate::plan::placement::{Cause, Placement};
use crate::plan::ranking::{Ranking, Score, Wishes, covering};
use crate::roster::Eligibility;
use crate::world::Conflict;

impl Story {
    fn placement(&self) -> Placement {
        let address: IpAddr = ADDRESS.parse().unwrap();
        let placement = self.planner.plan().placements.get(&address);
        Placement::clone(placement.expect("the address is announced on the link"))
    }

    /// The last move, as `from > to: cause`.
    fn last_move(&self) -> String {
        let name = |node: Option<NodeName>| node.map_or("nobody".to_owned(), |node| node.to_string());
        match self.placement().last_move {
            Some(it) => format!("{} > {}: {}", name(it.from), name(it.to), it.cause.code()),
            None => "none".to_owned(),
        }
    }

    /// Every handover of the next turn, as `from > to: cause`.
    fn handovers(&mut self, fact: Fact) -> Vec<String> {
        self.tell(fact);
        let name = |node: &Option<NodeName>| node.as_ref().map_or("nobody".to_owned(), ToString::to_string);
        let turn = self.planner.turn(self.now);
        turn.handovers.iter().map(|it| format!("{} > {}: {}", name(&it.from), name(&it.to), it.cause.code())).collect()
    }

    fn ranking(&self) -> Vec<(String, Result<Score, Reason>)> {
        let (world, plan) = (self.planner.world(), self.planner.plan());
        let config = configuration();
        let covering = covering(
            &config,
            self.planner.context(),
            (&"lan".into(), "192.168.35.100".parse().unwrap()),
            std::iter::empty(),
        );
        let endpoints = world.endpoints(&key("web"), Family::V4);
        let me = NodeName::from("a");
        let about = (&*world.services[&key("web")], &endpoints);
        let address = ADDRESS.parse().unwrap();
        let placement = plan.placements.get(&address);
        let holder = placement.and_then(|placement| placement.owner.as_ref());
        let wishes = Wishes::of(std::iter::empty(), world);
        let ranking = Ranking::of(about, (&covering, wishes), &me, holder, (address, address));
        ranking.nodes().into_iter().map(|it| (it.node.to_string(), it.score)).collect()
    }
}

fn both() -> Fact {
    roster(&[("b", &[ADDRESS]), ("c", &[])], &[])
}

/// A story in which b, the best, has the address of web; c comes next, and this node, a, last.
fn owned_by_b() -> Story {
    let mut story = with_pulses(false);
    story.endpoints("web", &["a", "b", "c"]);
    assert_eq!(story.owner(both()), "b");
    story
}

#[test]
fn every_way_to_lose_an_address_is_named_as_the_cause_of_its_move() {
    let without_b = || roster(&[("c", &[])], &[]);
    // It released the address, and says why.
    let stands = |eligibility| {
        heard(both(), |it| {
            let b = it.members.get_mut(&NodeName::from("b")).unwrap();
            (b.eligibility, b.holdings) = (eligibility, Default::default());
        })
    };
    let table: [(&str, Fact); 7] = [
        ("b > c: owner-silent", roster(&[("c", &[])], &["b"])),
        ("b > c: node-left", heard(without_b(), |it| it.left = [("b".into(), departed(&[ADDRESS]))].into())),
        ("b > c: owner-restarted", without_b()),
        ("b > c: node-excluded", stands(Eligibility::Excluded)),
        ("b > c: node-network-unavailable", stands(Eligibility::NetworkUnavailable)),
        ("b > c: node-leaving", stands(Eligibility::Leaving)),
        ("b > nobody: no-endpoints", Fact::EndpointSlice(key("web-1"), None)),
    ];
    for (expected, fact) in table {
        let mut story = owned_by_b();
        story.now += Duration::from_secs(9);
        assert_eq!(story.handovers(fact.clone()), [expected], "{fact:?}");
        assert_eq!(story.last_move(), expected);
        let placement = story.placement();
        assert_eq!((placement.since, placement.witnessed), (story.now, true));
        assert_eq!(story.handovers(fact), Vec::<String>::new(), "it is told once");
    }
    let mut story = owned_by_b();
    story.handovers(roster(&[("c", &[])], &["b"]));
    let cause = story.placement().last_move.map(|it| it.cause);
    assert_eq!(cause, Some(Cause::OwnerSilent { after: Duration::from_millis(303) }));
    assert_eq!(story.handovers(both()), ["c > b: better-node"]);
}

#[test]
fn under_policy_local_the_last_endpoint_of_the_owner_is_the_cause() {
    let mut story = owned_by_b();
    let local = Service {
        external_traffic_policy: TrafficPolicy::Local,
        ..Service::clone(&story.planner.world().services[&key("web")])
    };
    story.put("web", local);
    assert_eq!(story.last_move(), "none", "it stays where it is");
    story.endpoints("web", &["a", "c"]);
    story.turn();
    assert_eq!(story.last_move(), "none", "b answers until c has the address");
    story.handovers(roster(&[("b", &[]), ("c", &[ADDRESS])], &[]));
    assert_eq!(story.last_move(), "b > c: node-lacks-endpoint");
    let names: Vec<_> = story.ranking().into_iter().map(|(name, score)| (name, score.err())).collect();
    let expected = [("c", None), ("a", None), ("b", Some(Reason::NodeLacksEndpoint))];
    assert_eq!(names, expected.map(|(name, reason)| (name.to_owned(), reason)));
}

#[test]
fn losing_the_link_is_told_by_its_name_and_a_node_that_listens_sees_no_moves() {
    let mut config = configuration();
    config.l2[0].interfaces = vec![InterfacePattern::Exact("eth0".into())];
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    story.endpoints("web", &["b"]);
    assert_eq!(story.owner(roster(&[], &[])), "a");
    let eth0 = story.planner.world().links[&2].clone();
    let table = [
        (Link { carrier: false, ..eth0.clone() }, "a > b: no-carrier"),
        (Link { up: false, carrier: false, ..eth0.clone() }, "a > b: link-down"),
    ];
    for (link, expected) in table {
        assert_eq!(story.handovers(Fact::Link(2, Some(link))), [expected]);
        // It comes back, and this node listens: whoever it hears first has had the address before.
        story.tell(Fact::Roster(2, None));
        assert_eq!(story.handovers(Fact::Link(2, Some(eth0.clone()))), Vec::<String>::new());
        let listening = heard(roster(&[("c", &[])], &[]), |it| it.settled = false);
        assert_eq!(story.handovers(listening), Vec::<String>::new());
        assert!(!story.placement().witnessed);
        assert_eq!(story.placement().owner, Some("c".into()));
        assert_eq!(story.last_move(), expected, "the last that was seen");
        story.handovers(roster(&[], &["c"]));
        assert_eq!(story.placement().owner, Some("a".into()));
    }
}

#[test]
fn what_a_node_had_before_its_agent_restarted_and_has_again_did_not_move() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.tell(Fact::Kept(Arc::new([ADDRESS.parse().unwrap()].into())));
    story.endpoints("web", &["a", "b", "c"]);
    // By MetalLB's order b is the first, and says nothing of the address.
    let others = || roster(&[("b", &[]), ("c", &[])], &[]);
    story.tell(heard(others(), |it| it.settled = false));
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    let mut moves = story.handovers(others());
    moves.extend(story.handovers(answering()));
    assert_eq!((story.placement().owner, moves), (Some("a".into()), vec![]));
    assert_eq!((story.last_move().as_str(), story.placement().witnessed), ("none", false));
    assert_eq!(story.handovers(roster(&[("b", &[ADDRESS]), ("c", &[])], &[])), ["a > b: better-node"], "this is one");
}

#[test]
fn what_nobody_had_for_a_while_moved_from_the_one_before() {
    let mut story = owned_by_b();
    story.handovers(Fact::EndpointSlice(key("web-1"), None));
    story.handovers(roster(&[("c", &[])], &["b"]));
    assert_eq!(story.last_move(), "b > nobody: no-endpoints");
    story.now += Duration::from_secs(1);
    story.endpoints("web", &["c"]);
    story.turn();
    assert_eq!(story.last_move(), "b > c: no-endpoints");
}

#[test]
fn a_new_address_is_in_its_first_use_and_one_that_is_gone_is_forgotten() {
    let mut story = Story::begin(standalone());
    story.endpoints("web", &["a"]);
    story.put("web", asking_for(&[ADDRESS]));
    let placement = story.placement();
    assert!(placement.witnessed && placement.owner.is_some());
    assert!(story.last_move().ends_with(": first-use"), "{}", story.last_move());
    story.tell(Fact::Service(key("web"), None));
    story.turn();
    assert!(story.planner.plan().placements.is_empty());
}

#[test]
fn the_last_conflict_is_remembered_when_it_is_over() {
    let mut story = with_pulses(false);
    story.owner(roster(&[], &[]));
    let address: IpAddr = ADDRESS.parse().unwrap();
    let foreign = Conflict {
        mac: "02:00:00:00:00:99".parse().unwrap(),
        kind: ConflictKind::Contested,
        since: std::time::SystemTime::UNIX_EPOCH,
    };
    story.tell(Fact::Conflict(address, "eth0".into(), Some(foreign)));
    let told = story.planner.turn(story.now).conflicts;
    assert_eq!(told, [(address, "eth0".into(), ConflictKind::Contested)]);
    assert_eq!(story.placement().last_conflict.map(|it| (it.conflict, it.over)), Some((foreign, None)));
    story.now += Duration::from_secs(5);
    story.tell(Fact::Conflict(address, "eth0".into(), None));
    assert!(story.planner.turn(story.now).conflicts.is_empty());
    assert_eq!(story.placement().last_conflict.map(|it| (it.conflict, it.over)), Some((foreign, Some(story.now))));
}

#[test]
fn the_rank_list_names_every_node_and_why_it_is_refused() {
    let mut story = owned_by_b();
    let fact = heard(both(), |it| {
        it.silent.insert("d".into(), departed(&[]));
        it.left.insert("e".into(), departed(&[]));
    });
    story.tell(Fact::Node("f".into(), Some(Arc::new(node(&[])))));
    story.handovers(fact);
    let score = Ok(Score { weight: 0, near: false, chosen: false, keeps: false });
    let expected = [
        ("b", score.clone()),
        ("c", score.clone()),
        ("a", score),
        ("d", Err(Reason::NodeSilent)),
        ("e", Err(Reason::NodeLeft)),
        ("f", Err(Reason::NodeNotHeard)),
    ];
    assert_eq!(story.ranking(), expected.map(|(name, score)| (name.to_owned(), score)));
}
