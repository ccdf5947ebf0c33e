//! What pulses tell of who is alive, and what the plan makes of it, as stories.

use super::*;

use crate::address::MacAddress;
use crate::plan::context::l2::numbers;
use crate::roster::{Card, Departed, Eligibility, Holding, Holdings, Member, NodeTicket, Roster, Stage, Unproved};

/// The address of the stories.
pub(super) const ADDRESS: &str = "192.168.35.103";

fn held(addresses: &[&str]) -> Holdings {
    addresses.iter().map(|it| (it.parse::<IpAddr>().unwrap(), Holding { weight: 0, stage: Stage::Holds })).collect()
}

pub(super) fn departed(addresses: &[&str]) -> Departed {
    let unheard = Duration::from_millis(303);
    Departed {
        mac: MacAddress([2, 0, 0, 0, 1, 0xff]),
        unheard,
        suspect: false,
        holdings: held(addresses),
        just_left: false,
    }
}

/// What the tests below say of others: alive and eligible, and holding these addresses; and those that fell silent and held the
/// address of the stories.
pub(super) fn roster(members: &[(&str, &[&str])], silent: &[&str]) -> Fact {
    let weights = numbers(&configuration()).into_iter().map(|number| (number, 0)).collect();
    let card = Arc::new(Card { weights, ..Card::default() });
    let member = |(number, (name, holds)): (usize, &(&str, &[&str]))| {
        let member = Member {
            owner: !holds.is_empty(),
            card: card.clone(),
            holdings: held(holds),
            ..Member::eligible(MacAddress([2, 0, 0, 0, 1, u8::try_from(number).unwrap()]))
        };
        (NodeName::from(*name), member)
    };
    Fact::Roster(
        2,
        Some(Arc::new(Roster {
            settled: true,
            members: members.iter().enumerate().map(member).collect(),
            silent: silent.iter().map(|name| (NodeName::from(*name), departed(&[ADDRESS]))).collect(),
            left: Default::default(),
            unproved: Default::default(),
            doubles: Default::default(),
            receive_nothing: Default::default(),
            key_use: None,
        })),
    )
}

/// The same, with a change.
pub(super) fn heard(fact: Fact, change: impl FnOnce(&mut Roster)) -> Fact {
    let Fact::Roster(link, Some(roster)) = fact else { panic!("no roster") };
    let mut roster = Roster::clone(&roster);
    change(&mut roster);
    Fact::Roster(link, Some(Arc::new(roster)))
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
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS]), ("c", &[])], &[])), "b", "a pulse is life enough");
    story.tell(Fact::Pulses(crate::world::Pulses::Off));
    story.turn();
    assert_eq!(story.answered(), ["192.168.35.103"], "without pulses a, the only one that is Ready, has it");
}

/// Input: nodes of another crier of the cluster are heard by the same key; they call their `[[l2]]` as this one does.
/// Output: they are no candidates, also while they listen; a node that does not say whose it is is one.
#[test]
fn nodes_of_another_crier_are_no_candidates() {
    let owner = |is_of: fn(u64) -> Option<u64>, eligibility| {
        let mut story = with_pulses(false);
        let lease = is_of(story.planner.written().lease_digest().expect("a Lease"));
        story.owner(heard(roster(&[("b", &[]), ("c", &[])], &[]), |roster| {
            for member in roster.members.values_mut() {
                member.eligibility = eligibility;
                Arc::make_mut(&mut member.card).lease = lease;
            }
        }))
    };
    assert_eq!(owner(|own| Some(own.wrapping_add(1)), Eligibility::Listening), "a");
    assert_eq!(owner(|own| Some(own.wrapping_add(1)), Eligibility::Eligible), "a");
    assert_eq!(owner(|_| None, Eligibility::Eligible), "b");
    assert_eq!(owner(Some, Eligibility::Eligible), "b");
}

/// Input: the owner restarts and has its address again, all of which this node reads at once. Output: it waits for the answer.
#[test]
fn what_a_node_holds_that_started_anew_a_moment_ago_is_not_known_before_it_has_answered() {
    let heard_anew = |new| {
        let unproved = Unproved {
            mac: MacAddress([2, 0, 0, 0, 1, 0]),
            deaf: false,
            new,
            holdings: held(&[]),
            egress: Arc::default(),
        };
        heard(roster(&[], &[]), |roster| drop(roster.unproved.insert("b".into(), unproved)))
    };
    let mut story = with_pulses(false);
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b");
    story.owner(heard_anew(true));
    assert_eq!(story.answered(), [""; 0]);
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b", "it has answered");
    story.owner(heard_anew(true));
    assert_eq!(story.answered(), [""; 0]);
    assert_eq!(story.owner(heard_anew(false)), "a", "it has had the time to");
    assert_eq!(story.answered(), [ADDRESS]);
}

#[test]
fn how_an_address_came_here_is_told_to_the_responder() {
    use crate::plan::slice::Acquisition;
    let address: std::net::IpAddr = ADDRESS.parse().unwrap();
    let mut story = with_pulses(false);
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS]), ("c", &[])], &[])), "b");
    assert_eq!(story.owner(roster(&[], &["b"])), "a");
    let acquisition = |story: &Story| story.planner.plan().l2.acquisitions.get(&address).cloned();
    assert_eq!(acquisition(&story), Some(Acquisition::TakeOver { from: "b".into(), suspect: false }));
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b", "it lives, and says that it holds the address");
    assert_eq!(acquisition(&story), None, "the address is not ours any more");
    let goodbye = heard(roster(&[], &[]), |it| drop(it.left.insert("b".into(), departed(&[ADDRESS]))));
    assert_eq!(story.owner(goodbye), "a");
    assert_eq!(acquisition(&story), Some(Acquisition::HandOver));
    let heard = |it: &crate::claim::Station| it.hearing == crate::claim::Hearing::Heard;
    assert_eq!(story.planner.plan().l2.stations.anywhere.values().filter(|it| heard(it)).count(), 0);
}

/// Input: the owner is heard, does not hear this node, and falls silent. Output: it is left the address while it is
/// heard, and then it is taken over as from any silent owner: the link is asked whether it still answers.
#[test]
fn what_a_node_held_that_did_not_hear_this_one_is_taken_over_when_it_is_silent() {
    use crate::plan::slice::Acquisition;
    let address: std::net::IpAddr = ADDRESS.parse().unwrap();
    let unproved = Unproved {
        mac: MacAddress([2, 0, 0, 0, 1, 0]),
        deaf: true,
        new: false,
        holdings: held(&[ADDRESS]),
        egress: Arc::default(),
    };
    for before in [vec![], vec!["b"]] {
        let mut story = with_pulses(false);
        // In its life before it held nothing.
        let former = |it: &mut Roster| it.silent.values_mut().for_each(|it| it.holdings = held(&[]));
        story.owner(heard(roster(&[], &before), former));
        let deaf =
            heard(heard(roster(&[], &before), former), |it| drop(it.unproved.insert("b".into(), unproved.clone())));
        assert_eq!(story.owner(deaf), "b");
        story.now += Duration::from_secs(60);
        story.turn();
        assert_eq!(story.answered(), [""; 0]);
        assert_eq!(story.owner(roster(&[], &["b"])), "a");
        let acquisition = story.planner.plan().l2.acquisitions.get(&address).cloned();
        assert_eq!(acquisition, Some(Acquisition::TakeOver { from: "b".into(), suspect: false }));
        let station =
            story.planner.plan().l2.stations.anywhere.values().find(|it| it.node == NodeName::from("b")).cloned();
        assert_eq!(station.map(|it| it.hearing), Some(crate::claim::Hearing::Unheard), "if it answers, it lives");
    }
}

#[test]
fn a_node_that_should_have_held_an_address_and_did_not_is_no_predecessor() {
    use crate::plan::slice::Acquisition;
    let address: std::net::IpAddr = ADDRESS.parse().unwrap();
    let goodbye = |it: &mut Roster| drop(it.left.insert("b".into(), departed(&[])));
    let silence = |it: &mut Roster| drop(it.silent.insert("b".into(), departed(&[])));
    for fact in [heard(roster(&[], &[]), goodbye), heard(roster(&[], &[]), silence)] {
        let mut story = with_pulses(false);
        assert_eq!(story.owner(roster(&[("b", &[])], &[])), "b", "it is ranked first");
        assert_eq!(story.owner(fact), "a");
        let acquisition = story.planner.plan().l2.acquisitions.get(&address).cloned();
        assert_eq!(acquisition, Some(Acquisition::FirstUse), "the link is asked in full");
    }
}

/// Tells the planner that the responder has the address.
pub(super) fn answering() -> Fact {
    Fact::Answering { link: "eth0".into(), began: vec![ADDRESS.parse().unwrap()], ended: Vec::new() }
}

fn asks(member: &mut Member, weight: u32) {
    let asks = Holding { weight, stage: Stage::Asks };
    member.holdings = [(ADDRESS.parse::<IpAddr>().unwrap(), asks)].into_iter().collect();
}

#[test]
fn a_better_rank_alone_takes_nothing_and_a_better_node_that_asks_is_granted_the_address() {
    let mut story = with_pulses(false);
    assert_eq!(story.owner(roster(&[], &[])), "a");
    assert_eq!(story.owner(answering()), "a");
    assert_eq!(story.owner(roster(&[("b", &[]), ("c", &[])], &[])), "a", "both are ranked before this node");
    let said =
        |story: &Story| story.planner.plan().pulse.holdings.get(&ADDRESS.parse::<IpAddr>().unwrap()).map(|it| it.stage);
    assert_eq!(said(&story), Some(Stage::Holds));
    let asking =
        heard(roster(&[("b", &[]), ("c", &[])], &[]), |it| asks(it.members.get_mut(&NodeName::from("b")).unwrap(), 0));
    assert_eq!(story.owner(asking), "a", "it goes on answering");
    assert_eq!(said(&story), Some(Stage::Grants { to: NodeTicket::of(&"b".into()) }));
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS]), ("c", &[])], &[])), "b");
    assert_eq!((said(&story), story.answered().len()), (None, 0));
}

#[test]
fn a_node_asks_the_holder_that_it_ranks_before_and_takes_what_it_is_granted() {
    let mut story = Story::begin_on("b", configuration());
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec![ADDRESS.parse().unwrap()], ..service() });
    story.endpoints("web", &["b"]);
    assert_eq!(story.owner(roster(&[("a", &[ADDRESS])], &[])), "a");
    let said = story.planner.plan().pulse.holdings.get(&ADDRESS.parse::<IpAddr>().unwrap()).map(|it| it.stage);
    assert_eq!(said, Some(Stage::Asks));
    let granting = heard(roster(&[("a", &[ADDRESS])], &[]), |it| {
        let granted = Holding { weight: 0, stage: Stage::Grants { to: NodeTicket::of(&"b".into()) } };
        let a = it.members.get_mut(&NodeName::from("a")).unwrap();
        a.holdings = [(ADDRESS.parse::<IpAddr>().unwrap(), granted)].into_iter().collect();
    });
    assert_eq!(story.owner(granting), "b");
    assert_eq!(story.answered(), [ADDRESS]);
}

#[test]
fn a_sticky_address_stays_until_its_holder_goes_or_a_preferred_node_asks() {
    let mut story = with_pulses(true);
    assert_eq!(story.owner(roster(&[], &[])), "a");
    story.tell(answering());
    let asking = |weight| {
        heard(roster(&[("b", &[]), ("c", &[])], &[]), |it| {
            asks(it.members.get_mut(&NodeName::from("b")).unwrap(), weight)
        })
    };
    let said =
        |story: &Story| story.planner.plan().pulse.holdings.get(&ADDRESS.parse::<IpAddr>().unwrap()).map(|it| it.stage);
    story.owner(asking(0));
    assert_eq!(said(&story), Some(Stage::Holds), "a better digest is not enough");
    story.owner(asking(1));
    assert_eq!(said(&story), Some(Stage::Grants { to: NodeTicket::of(&"b".into()) }));
}

#[test]
fn of_two_holders_that_hear_each_other_the_worse_stops_and_the_better_announces_again() {
    let mut story = with_pulses(false);
    assert_eq!(story.owner(roster(&[], &[])), "a");
    story.tell(answering());
    assert_eq!(story.owner(roster(&[("b", &[ADDRESS])], &[])), "b", "b is ranked before a");
    assert!(story.answered().is_empty());

    let mut story = with_pulses(false);
    story.owner(roster(&[], &[]));
    story.tell(answering());
    let worse = heard(roster(&[("b", &[ADDRESS])], &[]), |it| {
        it.members.get_mut(&NodeName::from("b")).unwrap().eligibility = Eligibility::ViewStale;
    });
    assert_eq!(story.owner(worse), "a");
    let assertions =
        |story: &Story| story.planner.plan().l2.assertions.get(&ADDRESS.parse::<IpAddr>().unwrap()).copied();
    assert_eq!(assertions(&story), Some(2), "a rival was heard, and it is the first node that is heard at all");
    story.owner(roster(&[("b", &[])], &[]));
    assert_eq!(assertions(&story), Some(3), "the rival is gone");
}

/// Input: the default route of this node is by another link, or it has none; other nodes say that the address of a Service
/// is their gateway, and the router is silent, or answers beside this node. Output: this node does not take the address, and keeps what it
/// answers for only as long as the router does not answer.
#[test]
fn what_is_the_gateway_of_other_nodes_is_not_taken_and_is_left_to_the_router() {
    let mut story = with_pulses(false);
    let address: IpAddr = ADDRESS.parse().unwrap();
    let says = |members: &[(&str, &[&str])]| {
        heard(roster(members, &[]), |roster| {
            let c = roster.members.get_mut(&NodeName::from("c")).unwrap();
            c.card = Arc::new(Card { gateways: [address].into(), ..Card::clone(&c.card) });
        })
    };
    let refused = "192.168.35.103 is the gateway of eth0, says c, so this node does not answer for it: give the Service another address";
    assert_eq!(story.owner(says(&[("c", &[])])), refused);
    assert_eq!(story.owner(says(&[("b", &[ADDRESS]), ("c", &[])])), "b", "the others see who answers");
    assert_eq!(story.owner(says(&[("b", &[]), ("c", &[])])), refused);
    assert_eq!(story.answered(), [""; 0]);
    let unheard = heard(says(&[("c", &[])]), |roster| {
        roster.silent.insert("b".into(), departed(&[ADDRESS]));
        roster.members.get_mut(&NodeName::from("c")).unwrap().eligibility = Eligibility::Drained;
    });
    assert_eq!(story.owner(unheard), "a", "it was in use by a node until now");
    assert_eq!(story.owner(roster(&[], &[])), "a", "nobody says so any more");
    story.owner(answering());
    assert_eq!(story.owner(says(&[("c", &[])])), "a", "it is in use, and c may be mistaken");
    let claimed = |mac: &str| {
        let (kind, since) = (crate::claim::ConflictKind::Contested, std::time::SystemTime::UNIX_EPOCH);
        let conflict = crate::world::Conflict { mac: mac.parse().unwrap(), kind, since };
        Fact::Conflict(address, "eth0".into(), Some(conflict))
    };
    assert_eq!(story.owner(claimed("02:00:00:00:01:00")), "a", "c itself answers for it");
    assert_eq!(story.owner(claimed("02:00:00:00:00:0e")), refused);
    assert_eq!(story.answered(), [""; 0]);
    story.tell(Fact::Answering { link: "eth0".into(), began: Vec::new(), ended: vec![address] });
    assert_eq!(story.owner(Fact::Conflict(address, "eth0".into(), None)), refused, "the router reboots again");
}

/// The same. Input: this node's default routes. Output: its pulses say which addresses of pools are a gateway of the link, and go on for as
/// long as these are left alone; the nodes that hear so give them to no Service.
#[test]
fn the_pulse_says_which_addresses_of_pools_are_gateways_of_the_link() {
    let mut story = with_pulses(false);
    story.owner(roster(&[("b", &[])], &[]));
    let said = |story: &Story| story.planner.plan().pulse.links[&2].card.gateways.clone();
    let route = |to: &str, link| Fact::DefaultRoutes(vec![crate::world::DefaultRoute::via(to, link, 0)]);
    for (fact, expected) in [
        (route(ADDRESS, 2), vec![ADDRESS]),
        (route("192.168.35.1", 2), vec![ADDRESS]),
        (Fact::DefaultRoutes(Vec::new()), vec![ADDRESS]),
    ] {
        story.tell(fact);
        story.turn();
        assert_eq!(said(&story), expected.iter().map(|it| it.parse().unwrap()).collect());
    }
    story.now += crate::plan::own_addresses::KEPT_FOR;
    story.turn();
    assert_eq!(said(&story), [].into());
    let mut other = Story::begin(standalone());
    other.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    other.tell(heard(roster(&[("b", &[])], &[]), |roster| {
        let b = roster.members.get_mut(&NodeName::from("b")).unwrap();
        b.card = Arc::new(Card { gateways: ["192.168.35.100".parse().unwrap()].into(), ..Card::clone(&b.card) });
    }));
    other.put("web", service());
    assert_eq!(other.addresses("web"), ["192.168.35.101"]);
}

#[test]
fn the_pulse_says_what_this_node_owns_and_whom_it_expects_to() {
    let mut story = with_pulses(false);
    let owner = story.owner(roster(&[("b", &[ADDRESS]), ("c", &[])], &[]));
    let pulse = story.planner.plan().pulse.clone();
    assert_eq!((pulse.owner, pulse.expected.iter().map(ToString::to_string).collect::<Vec<_>>()), (false, vec![owner]));
    assert_eq!(pulse.eligibility, Some(Eligibility::Eligible));
    assert_eq!(pulse.links.keys().copied().collect::<Vec<_>>(), [2]);
    story.owner(roster(&[], &["b", "c"]));
    assert!(!story.planner.plan().pulse.owner, "it takes the address, and does not answer yet");
    story.owner(answering());
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
        let mut roster = Roster::clone(&roster);
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
