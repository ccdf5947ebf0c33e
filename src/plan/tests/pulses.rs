//! What pulses tell of who is alive, and what the plan makes of it, as stories.

use super::*;

/// What the tests below say of others: alive and eligible, with these claims.
pub(super) fn roster(members: &[(&str, &[&str])], silent: &[&str]) -> Fact {
    let member = |(number, (name, claims)): (usize, &(&str, &[&str]))| {
        let member = crate::roster::Member {
            mac: crate::address::MacAddress([2, 0, 0, 0, 1, u8::try_from(number).unwrap()]),
            eligibility: crate::roster::Eligibility::Eligible,
            owner: !claims.is_empty(),
            labels: Labels::default(),
            claims: Arc::new(claims.iter().map(|address| address.parse().unwrap()).collect()),
            occupied: Arc::default(),
        };
        (NodeName::from(*name), member)
    };
    Fact::Roster(
        2,
        Some(Arc::new(crate::roster::Roster {
            settled: true,
            members: members.iter().enumerate().map(member).collect(),
            silent: silent.iter().map(|name| (NodeName::from(*name), Duration::from_millis(303))).collect(),
            left: Default::default(),
        })),
    )
}

/// A story with pulses, a Service on .103, and an endpoint somewhere. By MetalLB's order: b, c, a.
pub(super) fn with_pulses(sticky: bool) -> Story {
    let mut config = configuration();
    config.l2[0].sticky = sticky;
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec!["192.168.35.103".parse().unwrap()], ..service() });
    story.endpoints("web", &["b"]);
    story
}

impl Story {
    pub(super) fn owner(&mut self, fact: Fact) -> String {
        self.tell(fact);
        self.turn();
        match &self.decision("web").announcements[0].l2 {
            crate::plan::decision::L2Verdict { owner: Some(owner), .. } => owner.to_string(),
            crate::plan::decision::L2Verdict { reason, .. } => reason.to_string(),
        }
    }
}

#[test]
fn where_there_are_pulses_they_alone_tell_who_is_alive() {
    let mut story = with_pulses(false);
    // This node is a. Whoever else is first in rank is a candidate only while its pulse is heard, Ready or not.
    let listening = Fact::Roster(2, Some(Arc::default()));
    assert!(story.owner(listening).contains("a: the node has just started"), "who listens owns nothing");
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "b");
    assert_eq!(story.owner(roster(&[], &["b", "c"])), "a");
    story.tell(Fact::Node("b".into(), Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    story.tell(Fact::Node("c".into(), Some(Arc::new(Node { ready: false, ..node(&[]) }))));
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "b", "a pulse is life enough");
    story.tell(Fact::Pulses(crate::world::Pulses::Off));
    story.turn();
    assert_eq!(story.answered(), ["192.168.35.103"], "without pulses a, the only one that is Ready, has it");
}

#[test]
fn how_an_address_came_here_is_told_to_the_responder() {
    use crate::plan::slice::Acquisition;
    let address: std::net::IpAddr = "192.168.35.103".parse().unwrap();
    let mut story = with_pulses(false);
    let first = story.owner(roster(&[("b", &[]), ("c", &[])], &[]));
    assert_ne!(first, "a", "the story is about another's address");
    let rest: Vec<(&str, &[&str])> = Vec::new();
    assert_eq!(story.owner(roster(&rest, &[first.as_str()])), "a");
    let acquisition = story.planner.plan().l2.acquisitions.get(&address).cloned();
    assert_eq!(acquisition, Some(Acquisition::TakeOver { from: first.as_str().into(), suspect: false }));
    story.owner(roster(&[("b", &[]), ("c", &[])], &[]));
    assert_eq!(story.planner.plan().l2.acquisitions.get(&address), None, "it is not ours any more");
    assert_eq!(story.owner(roster(&[], &[])), "a", "the others have left");
    assert_eq!(story.planner.plan().l2.acquisitions.get(&address), Some(&Acquisition::HandOver));
    let heard = |it: &crate::claim::Station| it.hearing == crate::claim::Hearing::Heard;
    assert_eq!(story.planner.plan().l2.stations.values().filter(|it| heard(it)).count(), 0);
}

#[test]
fn a_sticky_address_stays_until_its_owner_goes_or_a_preferred_one_comes() {
    let mut story = with_pulses(true);
    let held = "192.168.35.103";
    let best = story.owner(roster(&[("b", &[]), ("c", &[])], &[]));
    let worst = ["b", "c"].into_iter().find(|name| *name != best).unwrap();
    // The one that says it has it keeps it, whoever is better by chance.
    assert_eq!(story.owner(roster(&[(worst, &[held]), (&best, &[])], &[])), worst);
    assert_eq!(story.owner(roster(&[(&best, &[])], &[worst])), best);
    assert_eq!(story.owner(roster(&[], &[worst, &best])), "a");
    assert!(story.planner.plan().pulse.claims.contains(&held.parse().unwrap()), "now a says that it has it");
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a", "and keeps it when the others come back");
    // Two that have it after a partition: the order decides as ever.
    assert_eq!(story.owner(roster(&[(&best, &[held])], &[])), best);
    let mut unsticky = with_pulses(false);
    assert_eq!(unsticky.owner(roster(&[(worst, &[held]), (&best, &[])], &[])), best);
}

#[test]
fn the_pulse_says_what_this_node_owns_and_whom_it_expects_to() {
    let mut story = with_pulses(false);
    let owner = story.owner(roster(&[("b", &[]), ("c", &[])], &[]));
    let pulse = story.planner.plan().pulse.clone();
    assert_eq!((pulse.owner, pulse.expected.iter().map(ToString::to_string).collect::<Vec<_>>()), (false, vec![owner]));
    assert_eq!(pulse.eligibility, Some(crate::roster::Eligibility::Eligible));
    assert_eq!(pulse.links.keys().copied().collect::<Vec<_>>(), [2]);
    story.owner(roster(&[], &["b", "c"]));
    let pulse = story.planner.plan().pulse.clone();
    assert_eq!((pulse.owner, pulse.expected.len()), (true, 0));
}

/// Input: another agent found the address taken that this one has just chosen too. Output: another address, the same one
/// that the other chooses, and the word is passed on only where it was this node's own finding.
#[test]
fn what_another_agent_found_taken_is_exchanged_here_as_well() {
    let taken: IpAddr = "192.168.35.100".parse().unwrap();
    let hearing_of = |occupied: &[IpAddr]| {
        let Fact::Roster(index, Some(roster)) = roster(&[("b", &[]), ("c", &[])], &[]) else { unreachable!() };
        let mut roster = crate::roster::Roster::clone(&roster);
        let b = roster.members.get_mut(&NodeName::from("b")).unwrap();
        b.occupied = Arc::new(occupied.iter().copied().collect());
        Fact::Roster(index, Some(Arc::new(roster)))
    };
    let mut story = Story::begin(standalone());
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.tell(hearing_of(&[]));
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    story.tell(hearing_of(&[taken]));
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
    assert!(story.planner.plan().pulse.occupied.is_empty(), "it is not this node's finding");

    // This node's own finding is told for as long as the address rests, although nothing is in its way any more.
    let mac = "02:00:00:00:00:99".parse().unwrap();
    let conflict = crate::world::Conflict {
        mac,
        kind: crate::claim::ConflictKind::Occupied,
        since: std::time::SystemTime::UNIX_EPOCH,
    };
    let second: IpAddr = "192.168.35.101".parse().unwrap();
    story.tell(Fact::Conflict(second, "eth0".into(), Some(conflict)));
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.102"]);
    story.tell(Fact::Conflict(second, "eth0".into(), None));
    story.turn();
    assert_eq!(*story.planner.plan().pulse.occupied, [second]);
    story.now += Duration::from_secs(601);
    story.turn();
    assert!(story.planner.plan().pulse.occupied.is_empty());
}

/// Input: an agent that was listening a moment ago owns an address first, for this one listened longer; then this one
/// owns it. Output: this one asks for it like for any address that nobody used, unless the other had it for longer.
#[test]
fn an_address_that_its_owner_had_no_time_to_ask_for_is_no_hand_over() {
    use crate::plan::slice::Acquisition;
    let address: IpAddr = "192.168.35.103".parse().unwrap();
    for (owned_for, expected) in
        [(Duration::from_millis(20), None), (Duration::from_secs(5), Some(Acquisition::HandOver))]
    {
        let mut story = with_pulses(false);
        let Fact::Roster(index, Some(all)) = roster(&[("b", &[]), ("c", &[])], &[]) else { unreachable!() };
        let mut listening = crate::roster::Roster::clone(&all);
        listening.members.values_mut().for_each(|member| member.eligibility = crate::roster::Eligibility::Listening);
        listening.settled = false;
        assert!(story.owner(Fact::Roster(index, Some(Arc::new(listening)))).contains("listens"), "nobody owns it yet");
        let first = story.owner(Fact::Roster(index, Some(all)));
        assert_ne!(first, "a", "the story is about another's address");
        story.now += owned_for;
        assert_eq!(story.owner(roster(&[], &[])), "a", "the others have left");
        assert_eq!(story.planner.plan().l2.acquisitions.get(&address), expected.as_ref(), "after {owned_for:?}");
    }
}
