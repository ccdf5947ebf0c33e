//! A planned restart, as the node that restarts and the others see it. This node is a; b and c rank before it.

use super::pulses::{ADDRESS, answering, departed, heard, roster, with_pulses};
use super::*;

use crate::address::ScopedAddress;
use crate::claim::Acquisition;
use crate::path_state::{DataPath, PathFault, PathSource, PathState};
use crate::roster::{Member, Roster};
use crate::world::{DefaultRoute, SessionReport, SessionState};

const OTHER: &str = "192.168.35.104";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn kept(addresses: &[&str]) -> Fact {
    Fact::Kept(Arc::new(addresses.iter().map(|text| address(text)).collect()))
}

fn acquisition(story: &Story) -> Option<Acquisition> {
    story.planner.plan().l2.acquisitions.get(&address(ADDRESS)).cloned()
}

fn still_kept(story: &Story) -> Vec<IpAddr> {
    story.planner.plan().pulse.kept.iter().copied().collect()
}

/// What this host accepts on a link of its own.
fn bound(story: &Story) -> Vec<IpAddr> {
    story.planner.plan().bind.addresses.keys().copied().collect()
}

#[test]
fn what_a_node_held_stays_bound_while_it_listens_and_not_where_another_has_it() {
    let mut config = configuration();
    config.l2[0].sticky = false;
    config.pools[0].bind = Some("lo".into());
    config.bgp.advertisements.clear();
    for (kept_before, holder, expected) in
        [(true, None, vec![address(ADDRESS)]), (true, Some("c"), vec![]), (false, None, vec![])]
    {
        let mut story = Story::begin(config.clone());
        story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
        if kept_before {
            story.tell(kept(&[ADDRESS]));
        }
        story.put("web", Service { ingress: vec![address(ADDRESS)], ..service() });
        story.endpoints("web", &["b"]);
        story.owner(listening());
        assert_eq!(bound(&story).len(), usize::from(kept_before), "while it listens");
        let holds: &[&str] = if holder.is_some() { &[ADDRESS] } else { &[] };
        story.owner(roster(&[("b", &[]), ("c", holds)], &[]));
        assert_eq!(bound(&story), expected, "{holder:?} holds it");
    }
}

fn listening() -> Fact {
    heard(roster(&[("b", &[]), ("c", &[])], &[]), |it| it.settled = false)
}

#[test]
fn a_node_goes_on_with_what_it_held_before_those_that_rank_before_it_and_without_asking_the_link() {
    let mut story = with_pulses(false);
    story.tell(kept(&[ADDRESS, OTHER]));
    assert_ne!(story.owner(listening()), "a", "it listens first");
    assert_eq!(still_kept(&story), [address(ADDRESS), address(OTHER)]);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
    assert_eq!(acquisition(&story), Some(Acquisition::HandOver));
    assert_eq!(still_kept(&story), [address(ADDRESS)], "the other is no Service's");
    assert_eq!(story.owner(answering()), "a");
    assert!(still_kept(&story).is_empty(), "it is back");
    let without = with_pulses(false).owner(roster(&[("b", &[]), ("c", &[])], &[]));
    assert_eq!(without, "b", "else the best has it");
}

#[test]
fn a_node_that_finds_another_holder_or_is_too_late_has_no_more_right_than_others() {
    let mut story = with_pulses(false);
    story.tell(kept(&[ADDRESS]));
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[ADDRESS])], &[])), "c");
    assert_eq!((still_kept(&story), acquisition(&story)), (vec![], None));
    let mut story = with_pulses(false);
    story.tell(kept(&[ADDRESS]));
    assert_ne!(story.owner(listening()), "a");
    story.tell(kept(&[]));
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "b");
}

#[test]
fn a_node_that_does_not_know_all_that_others_hold_waits_before_it_goes_on() {
    let mut story = with_pulses(false);
    story.tell(kept(&[ADDRESS]));
    let unknown = |it: &mut Roster| it.members.values_mut().for_each(|member| member.holdings_known = false);
    story.owner(heard(roster(&[("b", &[]), ("c", &[])], &[]), unknown));
    assert_eq!(acquisition(&story), None);
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a");
    assert_eq!(acquisition(&story), Some(Acquisition::HandOver));
}

#[test]
fn a_node_whose_data_path_is_bad_goes_on_with_what_it_held_and_takes_nothing_else() {
    let why = PathFault::RulesGone { family: crate::address::Family::V4 };
    let state = PathState::Bad { why };
    let bad = Fact::DataPath(DataPath { state, good_since_boot: true, source: PathSource::KubeProxy });
    for (told, expected) in [(kept(&[ADDRESS]), Some(Acquisition::HandOver)), (kept(&[]), None)] {
        let mut story = with_pulses(false);
        story.tell(bad.clone());
        story.tell(told);
        story.owner(roster(&[], &[]));
        assert_eq!(acquisition(&story), expected);
    }
}

#[test]
fn a_node_that_has_not_asked_for_its_data_path_yet_goes_on_with_what_it_held_and_takes_nothing_else() {
    // Input: a restarted agent whose kube-proxy was healthy when the previous agent ended and answers 503 now; b holds the
    // address, or nobody does.
    let state = PathState::Unknown { why: PathFault::NotAsked { url: "http://127.0.0.1:10256/healthz".into() } };
    let unasked = Fact::DataPath(DataPath { state, good_since_boot: true, source: PathSource::KubeProxy });
    let good = || Fact::DataPath(DataPath::UNWATCHED);
    for (told, expected) in [(kept(&[ADDRESS]), Some(Acquisition::HandOver)), (kept(&[]), None)] {
        let mut story = with_pulses(false);
        story.tell(unasked.clone());
        story.tell(told);
        story.owner(roster(&[], &[]));
        assert_eq!(acquisition(&story), expected);
        story.tell(good());
        story.turn();
        assert!(acquisition(&story).is_some(), "a good path takes it");
    }
    let mut story = with_pulses(false);
    story.tell(unasked);
    let c_is_bad = |it: &mut Roster| {
        it.members.values_mut().for_each(|it| it.eligibility = crate::roster::Eligibility::DataPathBad);
    };
    let c = || heard(roster(&[("c", &[ADDRESS])], &[]), c_is_bad);
    let asks = |story: &Story| !story.planner.plan().pulse.holdings.is_empty();
    story.owner(c());
    assert!(!asks(&story), "c has it, and is asked for nothing");
    story.tell(good());
    story.turn();
    assert!(asks(&story), "a better node asks");
}

fn restarting(name: &str) -> impl Fn(&mut Roster) {
    move |it: &mut Roster| it.members.get_mut(&NodeName::from(name)).unwrap().restarting = true
}

#[test]
fn the_others_leave_a_node_that_restarts_what_it_holds_and_nothing_more() {
    let mut story = with_pulses(false);
    assert_eq!(story.owner(roster(&[("b", &[OTHER])], &[])), "b", "the best waits for nobody");
    let (mut story, away) = (with_pulses(false), heard(roster(&[("b", &[OTHER])], &[]), restarting("b")));
    assert_eq!(story.owner(away), "a", "b holds another address, and is not there to take this one");
    let (mut story, away) = (with_pulses(false), heard(roster(&[("b", &[ADDRESS])], &[]), restarting("b")));
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b");
    assert_eq!(story.owner(away), "b");
    story.now += Duration::from_secs(9);
    story.turn();
    assert_eq!((acquisition(&story), story.answered().len()), (None, 0), "however long that takes");
}

#[test]
fn what_a_restarted_node_has_not_again_is_taken_over_after_a_quick_question() {
    let take_over = Some(Acquisition::TakeOver { from: "b".into(), suspect: false });
    let away = || heard(roster(&[("b", &[ADDRESS])], &[]), restarting("b"));
    // It did not come back: the pulse says that it is dead.
    let mut story = with_pulses(false);
    assert_eq!(story.owner(away()), "b");
    let dead = heard(roster(&[], &[]), |it| drop(it.silent.insert("b".into(), departed(&[ADDRESS]))));
    assert_eq!((story.owner(dead), acquisition(&story)), ("a".to_owned(), take_over.clone()));
    // It came back, does not have the address, and cannot take it.
    let mut story = with_pulses(false);
    assert_eq!(story.owner(away()), "b");
    let drained = |it: &mut Member| it.eligibility = crate::roster::Eligibility::Drained;
    let back = heard(roster(&[("b", &[])], &[]), |it| it.members.values_mut().for_each(drained));
    assert_eq!((story.owner(back), acquisition(&story)), ("a".to_owned(), take_over));
}

#[test]
fn a_node_knows_whether_all_others_wait_for_it() {
    let mut story = with_pulses(false);
    story.owner(roster(&[("b", &[]), ("c", &[])], &[]));
    assert!(story.planner.plan().pulse.others_wait);
    let earlier = |it: &mut Roster| it.members.get_mut(&NodeName::from("c")).unwrap().waits = false;
    story.owner(heard(roster(&[("b", &[]), ("c", &[])], &[]), earlier));
    assert!(!story.planner.plan().pulse.others_wait, "c is of an earlier version");
}

/// Input: sessions that were taken over in a restart, with peers that are to be found: next hops of the default route in
/// another order than before, no default route at all, and a router that sends no advertisements. Output: each peer is where its session is.
#[test]
fn a_session_that_was_taken_over_says_where_its_peer_is() {
    let mut config = configuration();
    let found = |name: &str, address| config::Peer { address, ..peer(name) };
    config.bgp.peers = vec![found("gw", PeerAddress::Gateway), found("tor", PeerAddress::Interface("eth0".into()))];
    let mut story = Story::begin(config);
    let at =
        |text: &str, interface: Option<&str>| ScopedAddress { ip: address(text), interface: interface.map(Into::into) };
    let link = story.planner.world().links[&2].clone();
    let addresses = link.addresses.iter().copied().chain(["fe80::11/64".parse().unwrap()]).collect();
    story.tell(Fact::Link(2, Some(Link { addresses, ..link })));
    let sessions =
        [("gw", at("10.0.0.2", None)), ("gw@10.0.0.1", at("10.0.0.1", None)), ("tor", at("fe80::a", Some("eth0")))];
    for (name, address) in &sessions {
        let mut report = SessionReport::new(SessionState::Established, std::time::SystemTime::UNIX_EPOCH);
        report.detail.address = Some(address.clone());
        story.tell(Fact::Session((*name).into(), report));
    }
    let route = |gateway: &str| DefaultRoute {
        gateway: Some(address(gateway)),
        link: 2,
        metric: 7,
        vrf: None,
        dead: false,
        dropped: false,
        family: crate::address::Family::V4,
    };
    for routes in [vec![], vec![route("10.0.0.1"), route("10.0.0.2")]] {
        story.tell(Fact::DefaultRoutes(routes));
        story.turn();
        let peers = &story.planner.plan().bgp.peers;
        let found: Vec<_> = peers.iter().map(|(name, peer)| (name.as_str(), peer.address.clone())).collect();
        assert_eq!(found, sessions.clone().map(|(name, address)| (name, Ok(address))));
    }
}
