//! A node with two links, and an address that both have, as stories.

use super::pulses::{ADDRESS, heard, roster, with_pulses};
use super::*;
use crate::roster::{Eligibility, Roster};

/// The same roster, of the second link.
fn on_eth1(fact: Fact) -> Fact {
    let Fact::Roster(_, roster) = fact else { panic!("no roster") };
    Fact::Roster(3, roster)
}

/// A story of a node with two links that both have the address: the second one's subnet is the wider.
fn on_two_links() -> Story {
    let mut story = with_pulses(false);
    let mac = Some("02:00:00:00:00:02".parse().unwrap());
    story.tell(Fact::Link(3, Some(Link { mac, ..Link::carrying(3, "eth1", &["192.168.0.11/16"]) })));
    story
}

/// b is not heard any more, and c is: it is drained, and so no better than a.
fn without_b() -> Fact {
    heard(roster(&[("c", &[])], &["b"]), drain_c)
}

fn with_b_and_drained_c() -> Fact {
    heard(roster(&[("b", &[ADDRESS]), ("c", &[])], &[]), drain_c)
}

fn drain_c(roster: &mut Roster) {
    roster.members.get_mut(&NodeName::from("c")).expect("it is there").eligibility = Eligibility::Drained;
}

fn address() -> IpAddr {
    ADDRESS.parse().unwrap()
}

fn answers_on(link: &str, begins: bool) -> Fact {
    let address = vec![address()];
    let (began, ended) = if begins { (address, Vec::new()) } else { (Vec::new(), address) };
    Fact::Answering { link: link.into(), began, ended }
}

fn answered_on(story: &Story) -> String {
    let links = story.planner.plan().l2.addresses.get(&address()).cloned().unwrap_or_default();
    links.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What this node says of the address on eth0 and on eth1.
fn said(story: &Story) -> [String; 2] {
    let pulse = &story.planner.plan().pulse;
    let address = address();
    [2, 3].map(|link| {
        let holding = pulse.apart.get(&(link, address)).or(pulse.holdings.get(&address));
        holding.map_or_else(|| "nothing".to_owned(), |it| format!("{:?}", it.stage))
    })
}

/// Input: a switch cuts off the owner b on eth0, and pulses pass on eth1. Output: a answers on eth0, b goes on on eth1; once b is heard
/// on eth0 again, the better of the two, here b, has both.
#[test]
fn an_address_whose_owner_is_heard_on_one_of_two_links_alone_is_answered_on_the_other() {
    use crate::plan::slice::Acquisition;
    let mut story = on_two_links();
    let there = || roster(&[("b", &[ADDRESS])], &[]);
    story.tell(on_eth1(there()));
    assert_eq!(story.owner(there()), "b");
    assert_eq!((answered_on(&story).as_str(), said(&story)), ("", ["nothing", "nothing"].map(str::to_owned)));
    assert_eq!(story.owner(without_b()), "b", "it holds the address on eth1");
    assert_eq!(answered_on(&story), "eth0");
    let acquisition = story.planner.plan().l2.acquisitions.get(&address()).cloned();
    assert_eq!(acquisition, Some(Acquisition::TakeOver { from: "b".into(), suspect: false }));
    let reason = story.decision("web").announcements[0].l2.reason.to_string();
    assert!(reason.contains("b answers for it, but is not heard on eth0"), "{reason}");
    story.owner(answers_on("eth0", true));
    assert_eq!((answered_on(&story).as_str(), said(&story)), ("eth0", ["Holds", "nothing"].map(str::to_owned)));
    // It is back.
    assert_eq!(story.owner(there()), "b");
    assert_eq!((answered_on(&story).as_str(), said(&story)), ("", ["nothing", "nothing"].map(str::to_owned)));
    let yields = &story.planner.plan().l2.yields;
    assert!(yields.contains_key(&(2, address())), "neighbours on eth0 are told: {yields:?}");
}

/// Input: as before, and then b dies altogether. Output: a has both links.
#[test]
fn who_answers_on_one_link_has_all_of_them_when_the_owner_of_the_others_is_gone() {
    let mut story = on_two_links();
    let (there, gone) = (|| roster(&[("b", &[ADDRESS])], &[]), || roster(&[], &["b"]));
    story.tell(on_eth1(there()));
    story.owner(without_b());
    story.owner(answers_on("eth0", true));
    assert_eq!(answered_on(&story), "eth0");
    assert_eq!(story.owner(on_eth1(gone())), "a");
    assert_eq!((answered_on(&story).as_str(), said(&story)), ("eth0 eth1", ["Holds", "Holds"].map(str::to_owned)));
}

/// Input: on eth0, where the owner is not heard, another node is ranked before this one. Output: it goes first there.
#[test]
fn of_several_nodes_on_a_link_without_the_owner_the_first_in_rank_answers() {
    let mut story = on_two_links();
    // By MetalLB's order: b, c, a.
    story.tell(on_eth1(roster(&[("b", &[ADDRESS]), ("c", &[])], &[])));
    assert_eq!(story.owner(roster(&[("c", &[])], &["b"])), "b");
    assert_eq!(answered_on(&story), "", "c is to answer");
    story.owner(roster(&[("c", &[ADDRESS])], &["b"]));
    story.now += Duration::from_secs(60);
    story.turn();
    assert_eq!(answered_on(&story), "", "c answers");
    story.tell(on_eth1(with_b_and_drained_c()));
    story.owner(without_b());
    assert_eq!(answered_on(&story), "eth0", "c is drained and gave it up");
}

/// Input: on eth0 nobody is heard any more, as where its fibre is broken in one direction; or the owner was never
/// heard there, as on isolated ports or where a firewall drops pulses. Output: eth0 has not lost the owner, as far as anybody can tell.
#[test]
fn a_link_where_nobody_or_never_the_owner_was_heard_has_not_lost_it() {
    let there = || roster(&[("b", &[ADDRESS])], &[]);
    let never = || heard(without_b(), |it| it.silent.clear());
    for (case, first, then) in [("deaf", there(), roster(&[], &["b"])), ("isolated", never(), never())] {
        let mut story = on_two_links();
        story.tell(on_eth1(there()));
        assert_eq!(story.owner(first), "b", "{case}");
        assert_eq!(story.owner(then), "b", "{case}");
        story.now += Duration::from_secs(60);
        story.turn();
        assert_eq!(
            (answered_on(&story).as_str(), said(&story)),
            ("", ["nothing", "nothing"].map(str::to_owned)),
            "{case}"
        );
    }
}

/// What a roster says, with the links that each node serves, by its own word on the link of that name.
fn serving(fact: Fact, this: &str, links: &[(&str, &[&str])]) -> Fact {
    use crate::roster::{Card, Ends, LinkNumber};
    heard(fact, |roster| {
        for (node, links) in links {
            let Some(member) = roster.members.get_mut(&NodeName::from(*node)) else { continue };
            let all = links.iter().map(|link| LinkNumber::of(&(*link).into())).collect();
            let ends = Some(Ends { this: LinkNumber::of(&this.into()), all });
            member.card = Arc::new(Card { ends, ..Card::clone(&member.card) });
        }
    })
}

/// Input: two nodes; the owner b, which calls its links otherwise, says on eth1 that it serves that one alone: the other has no carrier.
/// Output: a answers on eth0, not before b is silent there, and where a has just started as well; not any more once b says that it serves
/// both, whether a hears it there or not.
#[test]
fn of_two_nodes_one_answers_on_the_link_that_the_other_says_it_does_not_serve() {
    use crate::plan::slice::Acquisition;
    let holds = || roster(&[("b", &[ADDRESS])], &[]);
    let on_both = |fact, this| serving(fact, this, &[("b", &["lan0", "lan1"])]);
    let on_one = || serving(on_eth1(holds()), "lan1", &[("b", &["lan1"])]);
    let (nobody, gone) = (|| roster(&[], &[]), || roster(&[], &["b"]));
    let pass = |story: &mut Story| {
        story.now += Duration::from_secs(5);
        story.turn();
    };
    let cases = [(on_both(holds(), "lan0"), gone()), (nobody(), nobody())];
    for (first, then) in cases {
        let mut story = on_two_links();
        let was_heard = first != then;
        story.tell(on_both(on_eth1(holds()), "lan1"));
        assert_eq!(story.owner(first), "b");
        assert_eq!(story.owner(on_one()), "b");
        if was_heard {
            assert_eq!(answered_on(&story), "", "b is heard on eth0");
        }
        assert_eq!(story.owner(then), "b");
        assert_eq!(answered_on(&story), "eth0");
        let from_b = Acquisition::TakeOver { from: "b".into(), suspect: false };
        let acquisition = story.planner.plan().l2.acquisitions.get(&address()).cloned();
        assert_eq!(acquisition, Some(if was_heard { from_b } else { Acquisition::FirstUse }));
        story.owner(answers_on("eth0", true));
        pass(&mut story);
        assert_eq!((answered_on(&story).as_str(), said(&story)), ("eth0", ["Holds", "nothing"].map(str::to_owned)));
        // Its carrier is back, and it may be this node that hears nothing of that.
        assert_eq!(story.owner(on_both(on_eth1(holds()), "lan1")), "b");
        pass(&mut story);
        assert_eq!((answered_on(&story).as_str(), said(&story)), ("", ["nothing", "nothing"].map(str::to_owned)));
        assert_eq!(story.owner(on_both(holds(), "lan0")), "b");
        assert_eq!(answered_on(&story), "");
    }
}

/// Input: both links of a lie on one wire, and the owner b has one link. The cable of a's eth0 is pulled out of the switch. Output: it is
/// b's own station that a hears on eth1, so a takes nothing on eth0 although b says that it has no other link; it does where the station
/// on eth1 is another one.
#[test]
fn a_link_that_lies_on_the_wire_of_another_has_not_lost_the_station_that_is_heard_there() {
    for (station, answered) in [(0, ""), (7, "eth0")] {
        let mut story = on_two_links();
        let holds = || serving(roster(&[("b", &[ADDRESS])], &[]), "lan0", &[("b", &["lan0"])]);
        let silent = heard(roster(&[], &["b"]), |roster| {
            let b = roster.silent.get_mut(&NodeName::from("b")).expect("it is silent");
            b.mac = crate::address::MacAddress([2, 0, 0, 0, 1, station]);
            b.suspect = true;
        });
        story.tell(on_eth1(holds()));
        assert_eq!(story.owner(holds()), "b");
        assert_eq!(story.owner(silent), "b");
        for seconds in [0, 1, 60, 7200] {
            story.now += Duration::from_secs(seconds);
            story.turn();
            assert_eq!(answered_on(&story), answered, "after {seconds} s");
        }
    }
}

/// Input: on eth0 a hears nobody, the owner b says that it is not there, and c does not say so, or says nothing; then c does too.
/// Output: it may be a that does not hear c there; then a answers.
#[test]
fn a_link_is_left_alone_while_a_node_that_is_not_heard_may_be_there() {
    for says_links in [true, false] {
        let mut story = on_two_links();
        let there = || roster(&[("b", &[ADDRESS]), ("c", &[])], &[]);
        let of_c: &[(&str, &[&str])] =
            if says_links { &[("b", &["eth1"]), ("c", &["eth0", "eth1"])] } else { &[("b", &["eth1"])] };
        story.tell(on_eth1(there()));
        assert_eq!(story.owner(there()), "b");
        story.owner(roster(&[], &["b", "c"]));
        story.owner(serving(on_eth1(there()), "eth1", of_c));
        story.now += Duration::from_secs(60);
        story.turn();
        assert_eq!(answered_on(&story), "", "c may be on eth0: {says_links}");
        story.owner(serving(on_eth1(there()), "eth1", &[("b", &["eth1"]), ("c", &["eth1"])]));
        assert_eq!(answered_on(&story), "eth0", "{says_links}");
    }
}

/// Input: a node with two links, of which one loses its carrier. Output: each pulse says which link it is of, and that the other is served
/// no more.
#[test]
fn a_node_says_which_links_it_serves() {
    use crate::roster::{Ends, LinkNumber};
    let mut story = on_two_links();
    let [eth0, eth1] = ["eth0", "eth1"].map(|link| LinkNumber::of(&link.into()));
    let ends = |story: &Story| {
        let links = story.planner.plan().pulse.links.values();
        links.map(|link| link.card.ends.clone().expect("few links")).collect::<Vec<_>>()
    };
    story.turn();
    let all: std::collections::BTreeSet<_> = [eth0, eth1].into();
    assert_eq!(ends(&story), [Ends { this: eth0, all: all.clone() }, Ends { this: eth1, all }]);
    let down = Link { carrier: false, ..story.planner.world().links[&2].clone() };
    story.tell(Fact::Link(2, Some(down)));
    story.turn();
    assert_eq!(ends(&story), [Ends { this: eth1, all: [eth1].into() }]);
}

/// Input: the owner, worse than this node, is away from eth0 for a second. Output: it gets eth0 back and keeps eth1; what
/// `sticky` and `preempt-delay` hold is not moved by that.
#[test]
fn what_was_answered_on_one_link_alone_is_given_back_to_the_owner_however_good() {
    let mut story = on_two_links();
    let seen = |members: &[(&str, &[&str])], silent: &[&str]| {
        heard(roster(members, silent), |it| {
            it.members.values_mut().for_each(|member| member.eligibility = Eligibility::DataPathBad);
        })
    };
    let there = || seen(&[("c", &[ADDRESS]), ("b", &[])], &[]);
    let without_c = || seen(&[("b", &[])], &["c"]);
    story.tell(on_eth1(there()));
    assert_eq!(story.owner(there()), "c");
    assert_eq!(story.owner(without_c()), "c");
    assert_eq!(answered_on(&story), "eth0");
    story.owner(answers_on("eth0", true));
    assert_eq!(story.owner(there()), "c");
    assert_eq!(answered_on(&story), "");
    assert!(story.planner.plan().l2.yields.contains_key(&(2, address())));
}

/// Input: a and c are parted on eth0, where b is not heard, each answers there by itself, and then they hear each other; b
/// is heard on eth1. Output: c, the better, goes on, and this node stops; where c is not heard again, this node has eth0.
#[test]
fn of_two_that_answer_on_one_link_by_themselves_one_goes_on() {
    let mut story = on_two_links();
    story.tell(on_eth1(with_b_and_drained_c()));
    story.owner(with_b_and_drained_c());
    story.owner(without_b());
    story.owner(answers_on("eth0", true));
    assert_eq!(answered_on(&story), "eth0");
    let both = |c_is_better: bool| {
        heard(roster(&[("c", &[ADDRESS])], &["b"]), |it| {
            if !c_is_better {
                drain_c(it)
            }
        })
    };
    story.owner(both(false));
    assert_eq!(
        (answered_on(&story).as_str(), said(&story)),
        ("eth0", ["Holds", "nothing"].map(str::to_owned)),
        "a is better"
    );
    story.tell(on_eth1(roster(&[("b", &[ADDRESS]), ("c", &[])], &[])));
    story.owner(both(true));
    assert_eq!(
        (answered_on(&story).as_str(), said(&story)),
        ("", ["nothing", "nothing"].map(str::to_owned)),
        "c is better"
    );
}

/// Input: all nodes fall silent on eth0 at once, and are heard on eth1: this node hears nothing there. Then one of them
/// is heard there again, and not the owner. Output: it takes nothing by itself, and says nothing; then it is the owner that is not there.
#[test]
fn a_node_that_hears_nobody_on_one_of_two_links_takes_nothing_there() {
    let mut story = on_two_links();
    let there = || roster(&[("b", &[ADDRESS]), ("c", &[])], &[]);
    let silent = |members: &[(&str, &[&str])], silent: &[&str], suspect| {
        heard(roster(members, silent), |it| it.silent.values_mut().for_each(|it| it.suspect = suspect))
    };
    story.tell(on_eth1(there()));
    assert_eq!(story.owner(there()), "b");
    // c has promised less, and is due later.
    for gone in [silent(&[("c", &[])], &["b"], true), silent(&[], &["b", "c"], true)] {
        assert_eq!(story.owner(gone), "b");
        for seconds in [0, 1, 60, 7200] {
            story.now += Duration::from_secs(seconds);
            story.turn();
            assert_eq!((answered_on(&story).as_str(), said(&story)), ("", ["nothing", "nothing"].map(str::to_owned)));
        }
    }
    // The address moves meanwhile.
    let other = || roster(&[("b", &[]), ("c", &[ADDRESS])], &[]);
    assert_eq!(story.owner(on_eth1(other())), "c");
    assert_eq!(answered_on(&story), "");
    assert_eq!(story.owner(on_eth1(there())), "b");
    assert_eq!(story.owner(silent(&[("c", &[])], &["b"], false)), "b");
    story.now += Duration::from_secs(5);
    story.turn();
    assert_eq!(answered_on(&story), "eth0", "c, which is ranked before, does not act");
}

/// Input: this node holds the address on both links; on eth0 a worse node says that it holds it and does not stop, on eth1
/// it does not. It stops later. Output: eth0 is left to it, eth1 is not, and eth0 is taken back.
#[test]
fn a_holder_leaves_to_a_rival_that_does_not_hear_it_no_other_link_than_that() {
    use crate::plan::slice::Acquisition;
    let mut story = Story::begin_on("b", configuration());
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.put("web", Service { ingress: vec![address()], ..service() });
    story.endpoints("web", &["b"]);
    let mac = Some("02:00:00:00:00:02".parse().unwrap());
    story.tell(Fact::Link(3, Some(Link { mac, ..Link::carrying(3, "eth1", &["192.168.0.11/16"]) })));
    let (idle, holds) = (|| roster(&[("a", &[]), ("c", &[])], &[]), || roster(&[("a", &[ADDRESS]), ("c", &[])], &[]));
    story.tell(on_eth1(idle()));
    assert_eq!(story.owner(idle()), "b");
    story.tell(answers_on("eth0", true));
    assert_eq!(story.owner(answers_on("eth1", true)), "b");
    assert_eq!((answered_on(&story).as_str(), said(&story)), ("eth0 eth1", ["Holds", "Holds"].map(str::to_owned)));
    assert_eq!(story.owner(holds()), "b", "the better goes on for a moment");
    let pass = |story: &mut Story, millis: u64| {
        for _ in 0..millis / 100 {
            story.now += Duration::from_millis(100);
            story.turn();
        }
    };
    pass(&mut story, 500);
    assert_eq!(answered_on(&story), "eth0 eth1");
    pass(&mut story, 200);
    let on_eth1_alone = ("eth1", ["nothing", "Holds"].map(str::to_owned));
    assert_eq!((answered_on(&story).as_str(), said(&story)), on_eth1_alone);
    let yields = &story.planner.plan().l2.yields;
    assert!(yields.keys().eq([&(2, address())]), "neighbours on eth0 are told: {yields:?}");
    assert_eq!(story.owner(answers_on("eth0", false)), "b");
    pass(&mut story, 60_000);
    assert_eq!((answered_on(&story).as_str(), said(&story)), on_eth1_alone, "for as long as it says so");
    // It hears this node again, and stops.
    assert_eq!(story.owner(idle()), "b");
    assert_eq!((answered_on(&story).as_str(), said(&story)), ("eth0 eth1", ["Holds", "Holds"].map(str::to_owned)));
    let acquisition = story.planner.plan().l2.acquisitions.get(&address()).cloned();
    assert_eq!(acquisition, Some(Acquisition::HandOver));
    assert!(story.planner.plan().l2.yields.is_empty());

    // Once more, and then it says so on both.
    story.owner(answers_on("eth0", true));
    story.owner(holds());
    pass(&mut story, 700);
    story.owner(answers_on("eth0", false));
    assert_eq!((answered_on(&story).as_str(), said(&story)), on_eth1_alone);
    story.owner(on_eth1(holds()));
    assert_eq!(answered_on(&story), "eth1", "the two are rivals");
    pass(&mut story, 700);
    assert_eq!(answered_on(&story), "", "which does not hear this node anywhere");

    // A rival that is gone is succeeded.
    story.tell(on_eth1(idle()));
    story.owner(idle());
    pass(&mut story, 10_000);
    story.tell(answers_on("eth0", true));
    story.owner(answers_on("eth1", true));
    assert_eq!(answered_on(&story), "eth0 eth1");
    story.owner(holds());
    pass(&mut story, 700);
    story.owner(answers_on("eth0", false));
    assert_eq!(answered_on(&story), "eth1");
    story.owner(roster(&[("c", &[])], &["a"]));
    assert_eq!(answered_on(&story), "eth0 eth1");
    let acquisition = story.planner.plan().l2.acquisitions.get(&address()).cloned();
    assert_eq!(acquisition, Some(Acquisition::TakeOver { from: "a".into(), suspect: false }));
}

/// Input: this node holds the address, a rival is heard on eth0 alone. Output: it takes no further link before the rival is gone.
#[test]
fn a_holder_answers_on_a_link_that_comes_back_once_it_has_listened_there_and_no_rival_is_left() {
    let mut story = on_two_links();
    // a is better than nobody: c has no weight here, b is not there.
    let down = Link { carrier: false, ..story.planner.world().links[&2].clone() };
    let up = Link { carrier: true, ..down.clone() };
    story.tell(Fact::Link(2, Some(down)));
    assert_eq!(story.owner(on_eth1(roster(&[], &[]))), "a");
    story.owner(answers_on("eth1", true));
    assert_eq!(answered_on(&story), "eth1");
    story.owner(Fact::Link(2, Some(up)));
    assert_eq!(answered_on(&story), "eth1", "who holds it on eth0 has yet to be heard");
    assert_eq!(story.owner(roster(&[], &[])), "a");
    assert_eq!(answered_on(&story), "eth0 eth1");
}

/// Input: an `[[l2]]` with interfaces that this node does not have, so it hears no pulse there. Output: it says so, and not that the first
/// in rank answers; however long that takes.
#[test]
fn a_node_without_a_link_says_that_it_has_none_and_not_who_answers() {
    let mut config = configuration();
    config.l2[0].interfaces = vec![InterfacePattern::Exact("eth7".into())];
    let mut story = Story::begin(config);
    story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
    story.endpoints("web", &["b"]);
    for seconds in [0, 60] {
        story.now += Duration::from_secs(seconds);
        let decision = story.put("web", Service { ingress: vec![address()], ..service() });
        let l2 = &decision.announcements[0].l2;
        assert!(matches!(&l2.reason, Reason::NoInterface { wanted } if wanted.contains("eth7")), "{l2:?}");
        assert!(!l2.announced);
    }
}

/// Input: the owner b of an IPv6 address has IPv6 on eth0 alone, and says so; then on both again. Output: this node
/// answers on eth1 until then. The same seen by the owner: it goes on on eth0, whatever another node says on eth1.
#[test]
fn an_ipv6_address_whose_owner_has_no_ipv6_on_one_of_two_links_is_answered_there_by_another_node() {
    let address: IpAddr = "fd35::107".parse().unwrap();
    let begin = |node: &str, on_eth1: &[&str]| {
        let mut config = configuration();
        config.pools = vec![pool("lan", &["fd35::100-fd35::1ff"])];
        let mut story = Story::begin_on(node, config);
        story.tell(Fact::Pulses(crate::world::Pulses::On { authenticated: true }));
        let eth0 = story.planner.world().links[&2].clone();
        let nets = |all: &[&str]| all.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
        story.tell(Fact::Link(
            3,
            Some(Link { index: 3, name: "eth1".into(), addresses: nets(on_eth1), ..eth0.clone() }),
        ));
        story.tell(Fact::Link(2, Some(Link { addresses: nets(&["fd35::11/64", "fe80::11/64"]), ..eth0 })));
        let families = vec![crate::address::Family::V6];
        story.put("web", Service { ingress: vec![address], families, ..service() });
        story.endpoints("web", &["b"]);
        story
    };
    let says = |node: &str, subnets: &[&str], holds: bool| {
        heard(roster(&[(node, &[])], &[]), |roster| {
            let member = roster.members.get_mut(&NodeName::from(node)).expect("it is there");
            let mut card = crate::roster::Card::clone(&member.card);
            card.subnets = subnets.iter().map(|net| net.parse().unwrap()).collect();
            member.card = Arc::new(card);
            let holding = crate::roster::Holding { weight: 0, stage: crate::roster::Stage::Holds };
            member.holdings = holds.then_some((address, holding)).into_iter().collect();
        })
    };
    let answered = |story: &Story| {
        let links = story.planner.plan().l2.addresses.get(&address).cloned().unwrap_or_default();
        links.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let (both, v4) = (&["fe80::/64", "fd35::/64"][..], &["10.1.2.0/24"][..]);

    let mut story = begin("a", &["fe80::12/64", "fd35::12/64"]);
    story.tell(on_eth1(says("b", both, true)));
    assert_eq!(story.owner(says("b", both, true)), "b");
    assert_eq!(answered(&story), "");
    assert_eq!(story.owner(on_eth1(says("b", v4, true))), "b", "it holds it on eth0");
    story.now += Duration::from_secs(5);
    story.turn();
    assert_eq!(answered(&story), "eth1");
    let reason = story.decision("web").announcements[0].l2.reason.to_string();
    assert!(reason.contains("b answers for it, but has no link-local IPv6 address on eth1"), "{reason}");
    story.owner(Fact::Answering { link: "eth1".into(), began: vec![address], ended: Vec::new() });
    assert_eq!(answered(&story), "eth1");
    assert_eq!(story.owner(on_eth1(says("b", both, true))), "b");
    assert_eq!(answered(&story), "", "b has both again");

    let mut story = begin("b", &["10.1.2.12/24"]);
    story.tell(on_eth1(says("a", both, false)));
    assert_eq!(story.owner(says("a", both, false)), "b");
    story.owner(Fact::Answering { link: "eth0".into(), began: vec![address], ended: Vec::new() });
    assert_eq!(answered(&story), "eth0");
    story.owner(on_eth1(says("a", both, true)));
    for _ in 0..50 {
        story.now += Duration::from_millis(100);
        story.turn();
        assert_eq!(answered(&story), "eth0");
    }
}
