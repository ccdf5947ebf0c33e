//! Many nodes, one address: what each hears of the others is the only thing that connects them. Files, hearing and lives
//! change at random; the bounds of `doc/ownership.md` hold all the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::*;
use crate::clock;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const STEP: Duration = Duration::from_millis(10);
const PULSE: Duration = Duration::from_millis(100);
const SILENCE: Duration = Duration::from_millis(300);
/// How long two quick probes take, and three slow ones.
const TAKE_OVER: Duration = Duration::from_millis(15);
const FIRST_USE: Duration = Duration::from_millis(105);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What one node says of the address in a pulse.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    bid: Option<Bid>,
    holds: bool,
    asks: bool,
    grants: Option<NodeName>,
}

#[derive(Debug)]
struct Node {
    name: NodeName,
    alive: bool,
    /// What its file and its host give it; `None`: it cannot serve the address.
    bid: Option<Bid>,
    sticky: bool,
    history: History,
    answers: bool,
    /// While it takes the address: when the link has been asked.
    asked_by: Option<(Acquisition, Instant)>,
    settled_at: Instant,
    said: Option<Said>,
    next_pulse: Instant,
    /// What it heard of each other, and when last.
    heard: BTreeMap<usize, (Said, Instant)>,
    gone: BTreeMap<usize, (Said, bool)>,
}

struct Link {
    now: Instant,
    nodes: Vec<Node>,
    /// Pulses of the first reach the second.
    hears: Vec<Vec<bool>>,
    /// Frames of ARP of the first reach the second.
    arp: Vec<Vec<bool>>,
    random: Rng,
    loss: u8,
    /// Since when nobody answers, and since when several do that hear each other.
    nobody_since: Option<Instant>,
    several_since: Option<Instant>,
    longest_gap: Duration,
    longest_double: Duration,
    moves: u32,
}

impl Link {
    fn new(seed: u64, nodes: usize, loss: u8) -> Link {
        let now = clock::now();
        let mut random = Rng::with_seed(seed);
        let mut node = |number: usize| Node {
            name: format!("node-{number}").as_str().into(),
            alive: true,
            bid: Some(Bid { grade: Grade::Eligible, weight: 0 }),
            sticky: false,
            history: History::default(),
            answers: false,
            asked_by: None,
            settled_at: now + SILENCE,
            said: None,
            next_pulse: now + PULSE.mul_f64(random.f64()),
            heard: BTreeMap::new(),
            gone: BTreeMap::new(),
        };
        Link {
            now,
            nodes: (0..nodes).map(&mut node).collect(),
            hears: vec![vec![true; nodes]; nodes],
            arp: vec![vec![true; nodes]; nodes],
            random,
            loss,
            nobody_since: None,
            several_since: None,
            longest_gap: Duration::ZERO,
            longest_double: Duration::ZERO,
            moves: 0,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for number in 0..self.nodes.len() {
                if self.nodes[number].alive {
                    self.expire(number);
                    self.finish_asking(number);
                    self.think(number);
                }
            }
            for number in 0..self.nodes.len() {
                if self.nodes[number].alive && self.nodes[number].next_pulse <= self.now {
                    self.pulse(number);
                }
            }
            self.measure();
        }
    }

    /// Forgets what was measured: the next figures are of what comes.
    fn measure_anew(&mut self) {
        self.nobody_since = None;
        self.several_since = None;
        (self.longest_gap, self.longest_double, self.moves) = (Duration::ZERO, Duration::ZERO, 0);
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|it| self.nodes[*it].alive && self.nodes[*it].answers).collect()
    }

    fn measure(&mut self) {
        let owners = self.owners();
        let able = self.nodes.iter().any(|node| node.alive && node.bid.is_some() && node.settled_at <= self.now);
        let gap = owners.is_empty() && able;
        let since = *self.nobody_since.get_or_insert(self.now);
        if gap {
            self.longest_gap = self.longest_gap.max(self.now - since)
        } else {
            self.nobody_since = None
        }
        let hear = |a: &usize, b: &usize| a != b && (self.hears[*a][*b] || self.hears[*b][*a]);
        let double = owners.iter().any(|a| owners.iter().any(|b| hear(a, b)));
        let since = *self.several_since.get_or_insert(self.now);
        if double { self.longest_double = self.longest_double.max(self.now - since) } else { self.several_since = None }
    }

    fn expire(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        let silent: Vec<usize> =
            node.heard.iter().filter(|(_, (_, at))| now > *at + SILENCE).map(|(other, _)| *other).collect();
        for other in silent {
            if let Some((said, _)) = node.heard.remove(&other) {
                node.gone.insert(other, (said, false));
            }
        }
    }

    fn finish_asking(&mut self, number: usize) {
        let Some((acquisition, due)) = self.nodes[number].asked_by.clone() else { return };
        if due > self.now {
            return;
        }
        let answered = acquisition != Acquisition::HandOver
            && self.owners().into_iter().any(|it| it != number && self.arp[it][number] && self.arp[number][it]);
        if answered {
            self.nodes[number].asked_by = Some((acquisition, self.now + ASK_AGAIN));
        } else {
            self.nodes[number].asked_by = None;
            self.nodes[number].answers = true;
            self.moves += 1;
            self.hurry(number);
        }
    }

    fn think(&mut self, number: usize) {
        let now = self.now;
        let names: Vec<NodeName> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let node = &mut self.nodes[number];
        let settled = node.settled_at <= now;
        let own = node.bid.filter(|_| settled).ok_or(Reason::NodeNotSelected);
        let bidder =
            |(other, (said, _)): (&usize, &(Said, Instant))| said.bid.map(|bid| Bidder { node: &names[*other], bid });
        let holder = |it: (&usize, &(Said, Instant))| {
            let (other, (said, _)) = it;
            let bid = said.bid.unwrap_or(Bid { grade: Grade::DataPathBad, weight: 0 });
            said.holds.then(|| Holder {
                bidder: Bidder { node: &names[*other], bid },
                grants_us: said.grants.as_ref() == Some(&node.name),
                cannot_serve: said.bid.is_none(),
                deaf: false,
                on_links: BTreeSet::new(),
            })
        };
        let holders: Vec<Holder<'_>> = node.heard.iter().filter_map(holder).collect();
        if !holders.is_empty() || node.answers {
            node.gone.values_mut().for_each(|(said, _)| said.holds = false);
        }
        let last = node.gone.iter().find(|(_, (said, _))| said.holds);
        let situation = Situation {
            is_still_deaf: false,
            beside_the_deaf: false,
            deaf_holder: None,
            grants: 0,
            leaving: false,
            without_link: false,
            unheeded: false,
            unjudged: false,
            askers_know_more: false,
            me: &names[number],
            rank_by: ADDRESS,
            own,
            answers: node.answers,
            sticky: node.sticky,
            may_ask_from: Some(now),
            knows_all: true,
            holders,
            askers: node.heard.iter().filter(|(_, (said, _))| said.asks).filter_map(bidder).collect(),
            last: match last {
                Some((_, (_, true))) => LastHolder::Left,
                Some((other, (_, false))) => LastHolder::Silent { node: &names[*other], suspect: false },
                None => LastHolder::Unknown,
            },
        };
        let candidates = || Candidates { known: node.heard.iter().filter_map(bidder).collect(), unsure: Vec::new() };
        let course = node.history.decide(&situation, candidates, now);
        let mut said = Said { bid: node.bid, holds: node.answers, asks: false, grants: None };
        match &course {
            Course::Holds => {}
            Course::Grants { to } => said.grants = Some(to.clone()),
            Course::Takes(acquisition) => {
                said.asks = true;
                let time = match acquisition {
                    Acquisition::HandOver => Duration::ZERO,
                    Acquisition::TakeOver { .. } => TAKE_OVER,
                    Acquisition::FirstUse | Acquisition::Standby { .. } => FIRST_USE,
                };
                match &node.asked_by {
                    Some((known, _)) if known == acquisition => {}
                    Some(_) | None => node.asked_by = Some((acquisition.clone(), now + time)),
                }
            }
            Course::Asks { .. } => said.asks = true,
            Course::Watches { .. } | Course::Waits { .. } | Course::Nobody => {}
        }
        if !matches!(course, Course::Takes(_)) {
            node.asked_by = None;
        }
        if !matches!(course, Course::Holds | Course::Grants { .. }) {
            node.answers = false;
            said.holds = false;
        }
        if node.said.as_ref() != Some(&said) {
            node.said = Some(said);
            self.hurry(number);
        }
    }

    fn hurry(&mut self, number: usize) {
        self.nodes[number].next_pulse = self.now;
    }

    fn pulse(&mut self, number: usize) {
        let now = self.now;
        self.nodes[number].next_pulse = now + PULSE;
        let Some(said) = self.nodes[number].said.clone() else { return };
        let said = Said { holds: self.nodes[number].answers, ..said };
        for other in 0..self.nodes.len() {
            if other == number || !self.hears[number][other] || self.random.u8(0..100) < self.loss {
                continue;
            }
            let node = &mut self.nodes[other];
            node.heard.insert(number, (said.clone(), now));
            node.gone.remove(&number);
        }
    }

    fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        (node.alive, node.answers, node.asked_by) = (false, false, None);
    }

    /// A clean stop, heard by all that hear it at all.
    fn leave(&mut self, number: usize) {
        let holds = self.nodes[number].answers;
        self.kill(number);
        for other in 0..self.nodes.len() {
            if self.hears[number][other]
                && let Some((mut said, _)) = self.nodes[other].heard.remove(&number)
            {
                said.holds = holds;
                self.nodes[other].gone.insert(number, (said, true));
            }
        }
    }

    fn start(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        (node.alive, node.settled_at, node.next_pulse) = (true, now + SILENCE, now);
        (node.history, node.said) = (History::default(), None);
        node.heard.clear();
        node.gone.clear();
    }

    fn set_weight(&mut self, number: usize, weight: u32) {
        self.nodes[number].bid = Some(Bid { grade: Grade::Eligible, weight });
    }

    fn split(&mut self, parts: &[u8]) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.hears[from][to] = parts[from] == parts[to];
                self.arp[from][to] = parts[from] == parts[to];
            }
        }
    }
}

#[test]
fn a_start_of_all_ends_with_one_holder_and_it_is_the_best() {
    for seed in 0..20 {
        let mut link = Link::new(seed, 5, 0);
        link.run(Duration::from_secs(3));
        let owners = link.owners();
        assert_eq!(owners.len(), 1, "seed {seed}");
        let bidder = |it: &Node| Ticket::of(&it.name, ADDRESS);
        let best = link.nodes.iter().min_by_key(|it| bidder(it)).unwrap();
        assert_eq!(link.nodes[owners[0]].name, best.name, "seed {seed}");
    }
}

#[test]
fn a_preference_rolled_out_node_by_node_leaves_no_gap_and_makes_no_second_holder() {
    for seed in 0..20 {
        let mut link = Link::new(seed, 4, 0);
        link.set_weight(1, 100);
        link.run(Duration::from_secs(3));
        assert_eq!(link.owners(), [1]);
        link.measure_anew();
        // The new file prefers node-2. Each agent is stopped and started with it, node-1 first.
        for (number, weight) in [(1, 0), (0, 0), (3, 0), (2, 100)] {
            link.leave(number);
            link.set_weight(number, weight);
            link.run(Duration::from_millis(500));
            link.start(number);
            link.run(Duration::from_secs(2));
        }
        assert_eq!(link.owners(), [2]);
        assert!(link.longest_gap <= PULSE, "seed {seed}: nobody for {:?}", link.longest_gap);
        assert!(link.longest_double <= PULSE * 2, "seed {seed}: several for {:?}", link.longest_double);
    }
}

#[test]
fn a_node_whose_pulses_are_lost_keeps_its_address_when_a_third_restarts() {
    for seed in 0..20 {
        let mut link = Link::new(seed, 3, 0);
        link.set_weight(0, 10);
        link.run(Duration::from_secs(2));
        assert_eq!(link.owners(), [0]);
        // Its own firewall drops what it sends; ARP passes.
        (link.hears[0][1], link.hears[0][2]) = (false, false);
        link.run(Duration::from_secs(5));
        for restarted in [2, 1] {
            link.kill(restarted);
            link.run(Duration::from_secs(1));
            link.start(restarted);
            link.run(Duration::from_secs(3));
        }
        assert_eq!(link.owners(), [0], "seed {seed}");
    }
}

#[test]
fn two_parts_that_meet_again_have_one_holder_within_a_second() {
    for seed in 0..40 {
        let mut link = Link::new(seed, 6, 10);
        link.run(Duration::from_secs(3));
        let parts: Vec<u8> = (0..6).map(|_| link.random.u8(0..2)).collect();
        link.split(&parts);
        link.run(Duration::from_secs(5));
        link.split(&[0; 6]);
        link.measure_anew();
        link.run(Duration::from_secs(5));
        assert_eq!(link.owners().len(), 1, "seed {seed}");
        assert!(link.longest_double <= Duration::from_secs(1), "seed {seed}: {:?}", link.longest_double);
        assert!(link.longest_gap <= PULSE * 2, "seed {seed}: {:?}", link.longest_gap);
    }
}

#[test]
fn a_rival_that_is_deaf_makes_the_better_one_give_way() {
    for seed in 0..20 {
        let mut link = Link::new(seed, 2, 0);
        link.set_weight(0, 10);
        link.run(Duration::from_secs(2));
        assert_eq!(link.owners(), [0]);
        // Nothing of node-0 reaches node-1 any more.
        (link.hears[0][1], link.arp[0][1]) = (false, false);
        link.measure_anew();
        link.run(Duration::from_secs(5));
        assert_eq!(link.owners(), [1], "seed {seed}: node-1 cannot be told, node-0 can");
        assert!(link.longest_double <= Duration::from_secs(1), "seed {seed}: {:?}", link.longest_double);
    }
}

#[test]
fn a_holder_that_cannot_serve_hands_over_without_a_gap() {
    for seed in 0..20 {
        let mut link = Link::new(seed, 3, 0);
        link.run(Duration::from_secs(2));
        let owner = link.owners()[0];
        link.measure_anew();
        link.nodes[owner].bid = None;
        link.run(Duration::from_secs(2));
        assert!(!link.owners().contains(&owner), "seed {seed}");
        assert_eq!((link.owners().len(), link.longest_gap), (1, Duration::ZERO), "seed {seed}");
    }
}

#[test]
fn those_whose_data_path_is_bad_keep_what_they_have_until_a_better_one_asks() {
    let mut link = Link::new(1, 3, 0);
    link.run(Duration::from_secs(2));
    link.measure_anew();
    for number in 0..3 {
        link.nodes[number].bid = Some(Bid { grade: Grade::DataPathBad, weight: 0 });
    }
    link.run(Duration::from_secs(5));
    assert_eq!((link.owners().len(), link.moves), (1, 0), "nobody is good: it stays");
    let other = (link.owners()[0] + 1) % 3;
    link.set_weight(other, 0);
    link.run(Duration::from_secs(1));
    assert_eq!((link.owners(), link.longest_gap), (vec![other], Duration::ZERO), "one is good: it has it");
}

#[test]
fn where_every_data_path_is_bad_and_the_holder_dies_one_of_those_that_were_good_once_has_the_address_in_seconds() {
    for seed in 0..20 {
        let mut link = Link::new(seed, 4, 0);
        link.run(Duration::from_secs(2));
        for number in 0..4 {
            link.nodes[number].bid = Some(Bid { grade: Grade::DataPathBad, weight: 0 });
        }
        let owner = link.owners()[0];
        // One was not seen good since its boot.
        let unseen = (owner + 1) % 4;
        link.nodes[unseen].bid = None;
        link.run(Duration::from_secs(1));
        link.measure_anew();
        link.kill(owner);
        link.run(Duration::from_secs(20));
        let owners = link.owners();
        assert_eq!((owners.len(), link.moves), (1, 1), "seed {seed}: {owners:?}");
        assert!(owners != [unseen] && link.longest_double.is_zero(), "seed {seed}: {owners:?}");
        assert!(link.longest_gap < Duration::from_secs(2), "seed {seed}: {:?}", link.longest_gap);
    }
}

#[test]
fn a_bad_data_path_leaves_what_nobody_holds_to_a_good_one_that_takes_its_time() {
    // Input: all but one are bad, the owner dies, and the good one has listened for 4 s more.
    for seed in 0..10 {
        let mut link = Link::new(seed, 3, 0);
        link.run(Duration::from_secs(2));
        let owner = link.owners()[0];
        for number in 0..3 {
            let grade = if number == (owner + 1) % 3 { Grade::Eligible } else { Grade::DataPathBad };
            link.nodes[number].bid = Some(Bid { grade, weight: 0 });
        }
        link.nodes[owner].bid = Some(Bid { grade: Grade::Eligible, weight: 1 });
        link.run(Duration::from_secs(1));
        link.measure_anew();
        link.nodes[(owner + 1) % 3].settled_at = link.now + Duration::from_secs(4);
        link.kill(owner);
        link.run(Duration::from_secs(6));
        assert_eq!((link.owners(), link.moves), (vec![(owner + 1) % 3], 1), "seed {seed}: only the good one");
    }
}

#[test]
fn a_node_that_is_ranked_first_and_does_not_act_leaves_no_gap_for_long() {
    let mut link = Link::new(1, 3, 0);
    link.set_weight(0, 100);
    link.nodes[0].settled_at = link.now + Duration::from_secs(3600);
    link.run(Duration::from_secs(3));
    assert_eq!(link.owners().len(), 1);
    assert!(link.longest_gap <= FALLBACK_TIME + Duration::from_millis(300), "{:?}", link.longest_gap);
}

#[test]
fn sticky_holders_keep_what_a_node_of_the_same_weight_would_rank_better_for() {
    let mut link = Link::new(1, 3, 0);
    link.nodes.iter_mut().for_each(|node| node.sticky = true);
    link.run(Duration::from_secs(2));
    let best = link.owners()[0];
    link.leave(best);
    link.run(Duration::from_secs(1));
    let second = link.owners()[0];
    link.start(best);
    link.run(Duration::from_secs(3));
    assert_eq!(link.owners(), [second], "it stays");
    link.set_weight(best, 1);
    link.run(Duration::from_secs(1));
    assert_eq!(link.owners(), [best], "a greater weight moves it");
}

#[test]
fn whatever_happens_there_is_one_holder_once_it_is_quiet() {
    for seed in 0..60 {
        let nodes = 2 + usize::try_from(seed % 6).unwrap();
        let mut link = Link::new(seed, nodes, 5);
        for _ in 0..12 {
            let number = link.random.usize(0..nodes);
            match link.random.u8(0..8) {
                0 if link.nodes[number].alive => link.kill(number),
                1 if link.nodes[number].alive => link.leave(number),
                0 | 1 => link.start(number),
                2 => {
                    let parts: Vec<u8> = (0..nodes).map(|_| link.random.u8(0..2)).collect();
                    link.split(&parts);
                }
                3 => link.split(&vec![0; nodes]),
                4 => {
                    let other = link.random.usize(0..nodes);
                    link.hears[number][other] = false;
                    link.arp[number][other] = link.random.bool();
                }
                5 => link.nodes[number].bid = None,
                6 => {
                    let weight = link.random.u32(0..3);
                    link.set_weight(number, weight);
                }
                _ => link.nodes[number].bid = Some(Bid { grade: Grade::ViewStale, weight: 0 }),
            }
            let pause = Duration::from_millis(link.random.u64(10..2000));
            link.run(pause);
        }
        link.split(&vec![0; nodes]);
        for number in 0..nodes {
            if !link.nodes[number].alive {
                link.start(number);
            }
            link.set_weight(number, 0);
        }
        // The longest that one has to wait for those before it.
        link.run(Duration::from_secs(10));
        link.measure_anew();
        link.run(Duration::from_secs(5));
        assert_eq!(link.owners().len(), 1, "seed {seed}");
        assert_eq!((link.longest_gap, link.longest_double, link.moves), Default::default(), "seed {seed}: it is quiet");
    }
}

#[test]
fn a_grant_is_taken_back_later_while_many_are_under_way_and_is_in_vain_after_that() {
    let (me, other): (NodeName, NodeName) = ("node-1".into(), "node-2".into());
    let best = Bid { grade: Grade::Eligible, weight: 1 };
    let situation = |grants: u32, now: Instant| Situation {
        me: &me,
        rank_by: ADDRESS,
        own: Ok(Bid { grade: Grade::Eligible, weight: 0 }),
        answers: true,
        leaving: false,
        without_link: false,
        unheeded: false,
        unjudged: false,
        sticky: false,
        grants,
        may_ask_from: Some(now),
        knows_all: true,
        is_still_deaf: false,
        beside_the_deaf: false,
        deaf_holder: None,
        holders: Vec::new(),
        askers: vec![Bidder { node: &other, bid: best }],
        askers_know_more: false,
        last: LastHolder::Unknown,
    };
    let start = clock::now();
    for (grants, last) in [(0, GRANT_TIME), (600, Duration::from_secs(4))] {
        let mut history = History::default();
        let mut course = |after: Duration, grants: u32| {
            let now = start + after;
            let course = history.decide(&situation(grants, now), Candidates::default, now);
            let due = history.next_deadline();
            assert!(due.is_none_or(|due| due > now), "a deadline that is past would spin");
            course
        };
        let granted = Course::Grants { to: other.clone() };
        // The first of many, decided before the others are counted.
        assert_eq!(course(Duration::ZERO, 0), granted);
        assert_eq!(course(last - Duration::from_millis(1), grants), granted);
        assert_eq!(course(last, grants), Course::Holds, "{grants} under way");
        assert_eq!(course(last + GRANT_REST - Duration::from_millis(1), grants), Course::Holds);
        assert_eq!(history.next_deadline(), Some(start + last + GRANT_REST), "who asks on says nothing new");
        let now = start + last + GRANT_REST;
        assert_eq!(history.decide(&situation(grants, now), Candidates::default, now), granted);
    }
}

#[test]
fn a_holder_that_does_not_hear_this_node_is_given_way_to_and_nobody_begins_beside_it() {
    let (me, other): (NodeName, NodeName) = ("node-1".into(), "node-2".into());
    let now = clock::now();
    let situation = |answers: bool, deaf: bool| Situation {
        me: &me,
        rank_by: ADDRESS,
        own: Ok(Bid { grade: Grade::Eligible, weight: 1 }),
        answers,
        leaving: false,
        without_link: false,
        unheeded: false,
        unjudged: false,
        sticky: false,
        grants: 0,
        may_ask_from: Some(now),
        knows_all: true,
        is_still_deaf: false,
        beside_the_deaf: deaf,
        deaf_holder: deaf.then_some(&other),
        holders: Vec::new(),
        askers: Vec::new(),
        askers_know_more: false,
        last: LastHolder::Unknown,
    };
    let watched = Course::Watches { holder: other.clone() };
    let mut history = History::default();
    let mut course = |answers, deaf, after| history.decide(&situation(answers, deaf), Candidates::default, now + after);
    assert_eq!(course(false, true, Duration::ZERO), watched);
    assert_eq!(course(false, true, Duration::from_secs(60)), watched, "it has not begun meanwhile");
    assert!(matches!(course(false, false, Duration::from_secs(61)), Course::Takes(_)), "it says so no longer");
    assert_eq!(course(true, true, Duration::from_secs(62)), watched);
    assert_eq!(history.yielded_to(), Some(&other), "it may not know that there was another");
}

#[test]
fn who_left_an_address_to_a_node_that_does_not_hear_it_asks_a_third_one_for_it_once_that_node_hears() {
    let names: [NodeName; 3] = ["node-1".into(), "node-2".into(), "node-3".into()];
    let [me, deaf, third] = &names;
    let start = clock::now();
    fn bid(weight: u32) -> Bid {
        Bid { grade: Grade::Eligible, weight }
    }
    fn holder(node: &NodeName, grants_us: bool) -> Holder<'_> {
        Holder {
            bidder: Bidder { node, bid: bid(1) },
            grants_us,
            cannot_serve: false,
            deaf: false,
            on_links: BTreeSet::new(),
        }
    }
    for unproved in [false, true] {
        let mut history = History::default();
        let mut course = |answers: bool, by: &NodeName, grants_us: bool, is_still_deaf: bool, after: u64| {
            let now = start + Duration::from_millis(after);
            let by_the_deaf = by == deaf && unproved;
            let situation = Situation {
                me,
                rank_by: ADDRESS,
                own: Ok(bid(2)),
                answers,
                leaving: false,
                without_link: false,
                unheeded: false,
                unjudged: false,
                sticky: false,
                grants: 0,
                may_ask_from: Some(start),
                knows_all: true,
                is_still_deaf,
                beside_the_deaf: unproved && is_still_deaf,
                deaf_holder: by_the_deaf.then_some(deaf),
                holders: if by_the_deaf { Vec::new() } else { vec![holder(by, grants_us)] },
                askers: Vec::new(),
                askers_know_more: false,
                last: LastHolder::Unknown,
            };
            let course = history.decide(&situation, Candidates::default, now);
            let due = history.next_deadline();
            assert!(due.is_none_or(|due| due > now), "a deadline that is past would spin");
            course
        };
        let watches = |node: &NodeName| Course::Watches { holder: node.clone() };
        course(true, deaf, false, false, 0);
        assert_eq!(course(true, deaf, false, false, 600), watches(deaf), "it goes on, so it does not hear this node");
        assert_eq!(course(false, third, false, true, 700), watches(third), "the third one has it from that node");
        assert_eq!(
            course(false, third, true, true, 20_000),
            watches(third),
            "which would take it again, and it does not hear"
        );
        assert_eq!(course(false, third, false, false, 20_100), Course::Asks { holder: third.clone() }, "now it does");
        assert_eq!(course(false, third, true, false, 20_200), Course::Takes(Acquisition::HandOver));
    }
}

/// Input: a better node that does not hear this one takes the address from it; then a third node has it and grants it to this one. Output: this
/// node does not take it, as the other would see no holder and take it once more, without end; it does from one that hears it.
#[test]
fn who_yielded_to_a_better_node_that_does_not_hear_it_takes_no_grant_of_a_third_one() {
    let names: [NodeName; 3] = ["node-1".into(), "node-2".into(), "node-3".into()];
    let [me, better, third] = &names;
    let start = clock::now();
    for deaf in [false, true] {
        let mut history = History::default();
        let mut course = |answers: bool, by: &NodeName, grants_us: bool, after: u64| {
            let weight = if by == better { 3 } else { 1 };
            let situation = Situation {
                me,
                rank_by: ADDRESS,
                own: Ok(Bid { grade: Grade::Eligible, weight: 2 }),
                answers,
                leaving: false,
                without_link: false,
                unheeded: false,
                unjudged: false,
                sticky: false,
                grants: 0,
                may_ask_from: Some(start),
                knows_all: true,
                is_still_deaf: deaf,
                beside_the_deaf: false,
                deaf_holder: None,
                holders: vec![Holder {
                    bidder: Bidder { node: by, bid: Bid { grade: Grade::Eligible, weight } },
                    grants_us,
                    cannot_serve: false,
                    deaf: deaf && by == better,
                    on_links: BTreeSet::new(),
                }],
                askers: Vec::new(),
                askers_know_more: false,
                last: LastHolder::Unknown,
            };
            history.decide(&situation, Candidates::default, start + Duration::from_millis(after))
        };
        let watches = |node: &NodeName| Course::Watches { holder: node.clone() };
        assert_eq!(course(true, better, false, 0), watches(better), "it is better");
        let asks = if deaf { watches(third) } else { Course::Asks { holder: third.clone() } };
        assert_eq!(course(false, third, false, 1000), asks);
        let takes = if deaf { watches(third) } else { Course::Takes(Acquisition::HandOver) };
        assert_eq!(course(false, third, true, 1100), takes);
    }
}

#[test]
fn of_two_nodes_whose_files_differ_the_lower_digest_begins_and_the_other_waits_for_its_word() {
    let names: [NodeName; 2] = ["node-1".into(), "node-2".into()];
    let [first, second] = match Ticket::of(&names[0], ADDRESS) < Ticket::of(&names[1], ADDRESS) {
        true => [&names[0], &names[1]],
        false => [&names[1], &names[0]],
    };
    let bid = Bid { grade: Grade::Eligible, weight: 0 };
    let start = clock::now();
    let situation = |me| Situation {
        me,
        rank_by: ADDRESS,
        own: Ok(bid),
        answers: false,
        leaving: false,
        without_link: false,
        unheeded: false,
        unjudged: false,
        sticky: false,
        grants: 0,
        may_ask_from: Some(start),
        knows_all: true,
        is_still_deaf: false,
        beside_the_deaf: false,
        deaf_holder: None,
        holders: Vec::new(),
        askers: Vec::new(),
        askers_know_more: false,
        last: LastHolder::Left,
    };
    let taken = Course::Takes(Acquisition::HandOver);
    let unsure = |node| move || Candidates { known: Vec::new(), unsure: vec![node] };
    assert_eq!(History::default().decide(&situation(first), unsure(second), start), taken);
    let mut history = History::default();
    let waits = Course::Waits { first: first.clone() };
    assert_eq!(history.decide(&situation(second), unsure(first), start), waits);
    assert_eq!(history.next_deadline().map(|due| due.min(start + UNSURE_TIME)), Some(start + UNSURE_TIME));
    let mut asked = situation(second);
    asked.askers = vec![Bidder { node: first, bid }];
    assert_eq!(history.decide(&asked, unsure(first), start + UNSURE_TIME), waits, "it takes its time");
    assert_eq!(history.decide(&situation(second), unsure(first), start + UNSURE_TIME), taken, "it says nothing");
}

#[test]
fn who_hands_the_address_over_to_this_node_has_not_taken_it_over_from_it() {
    let (me, other): (NodeName, NodeName) = ("node-1".into(), "node-2".into());
    let bid = Bid { grade: Grade::Eligible, weight: 0 };
    let situation = |grants_us: bool| Situation {
        me: &me,
        rank_by: ADDRESS,
        own: Err(Reason::NodeExcluded),
        answers: true,
        leaving: false,
        without_link: false,
        unheeded: false,
        unjudged: false,
        sticky: false,
        grants: 0,
        may_ask_from: None,
        knows_all: true,
        is_still_deaf: false,
        beside_the_deaf: false,
        deaf_holder: None,
        holders: vec![Holder {
            bidder: Bidder { node: &other, bid },
            grants_us,
            cannot_serve: false,
            deaf: false,
            on_links: BTreeSet::new(),
        }],
        askers: vec![Bidder { node: &other, bid }],
        askers_know_more: false,
        last: LastHolder::Unknown,
    };
    let (mut history, now) = (History::default(), clock::now());
    let granted = Course::Grants { to: other.clone() };
    for _ in 0..3 {
        assert_eq!(history.decide(&situation(true), Candidates::default, now), granted, "both would stop");
    }
    let watched = Course::Watches { holder: other.clone() };
    assert_eq!(history.decide(&situation(false), Candidates::default, now), watched);
}
