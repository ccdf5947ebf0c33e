//! Several machines on one segment and one virtual clock, with the kernels of their nodes; each direction between two of
//! them can be cut by itself.

use std::collections::VecDeque;

use super::*;
use crate::arp::machine::answer::{Station as End, Verdict, judge};
use crate::arp::packet::Frame;
use crate::arp::settings::PRESENT_FOR;
use crate::claim::Manner;

const FIRST: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const SECOND: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xcc]);
const DELAY: Duration = Duration::from_micros(200);

/// A node: the machine of its link, and its kernel, which answers for the node's own address.
struct Host {
    mac: MacAddress,
    ip: Ipv4Addr,
    claims: Claims,
    /// The frames that it sent without being asked, each with when.
    sent: Vec<Instant>,
    reports: Vec<Report>,
}

struct Segment {
    now: Instant,
    hosts: Vec<Host>,
    /// Frames under way: when they arrive, at which host.
    under_way: VecDeque<(Instant, usize, Frame)>,
    /// What the first of each pair says does not reach the second.
    cut: BTreeSet<(usize, usize)>,
    /// Whom the caches of all clients name for each address.
    caches: Map<IpAddr, MacAddress>,
}

impl Segment {
    /// So many nodes, with MACs in their order. None hears pulses of another; each knows the others' addresses, not their MACs.
    fn of(count: u8) -> Segment {
        let start = clock::now();
        let ip = |n: u8| Ipv4Addr::new(10, 0, 200, n);
        let hosts = (1..=count).map(|n| {
            let mac = MacAddress([2, 0, 0, 0, 0, n]);
            let others = (1..=count).filter(|other| *other != n);
            let addresses = others.map(|n| (IpAddr::V4(ip(n)), NodeName::from(format!("n{n}").as_str()))).collect();
            let mut claims = Claims::default();
            claims.handle_surroundings(Surroundings {
                mac,
                stations: Arc::default(),
                addresses: Arc::new(addresses),
                own: [format!("{}/16", ip(n)).parse().unwrap()].into(),
                ..Surroundings::default()
            });
            claims.handle_link_up(start);
            Host { mac, ip: ip(n), claims, sent: Vec::new(), reports: Vec::new() }
        });
        let hosts = hosts.collect();
        Segment { now: start, hosts, under_way: VecDeque::new(), cut: BTreeSet::new(), caches: Map::new() }
    }

    /// Each node has heard the others' kernels once.
    fn acquainted(mut self) -> Segment {
        let known: Vec<(IpAddr, MacAddress)> = self.hosts.iter().map(|host| (host.ip.into(), host.mac)).collect();
        for host in &mut self.hosts {
            for (ip, mac) in known.iter().filter(|(_, mac)| *mac != host.mac) {
                let heard = Heard { speaker: *mac, says: Some(*ip), asks: None, answers_us: false };
                host.claims.handle_heard(heard, self.now);
            }
        }
        self
    }

    fn own(&mut self, host: usize, n: u32, acquisition: Acquisition) {
        self.hosts[host].claims.handle_owned(address(n), &acquisition.into(), self.now);
    }

    /// Cut in one direction.
    fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    fn answers(&self, n: u32) -> Vec<usize> {
        let answers = |host: &Host| host.claims.ownership(address(n)) == Ownership::Announced;
        (0..self.hosts.len()).filter(|host| answers(&self.hosts[*host])).collect()
    }

    fn send(&mut self, from: usize, frame: Frame) {
        if let Some(says) = frame.says().filter(|says| frame.asks().is_none_or(|asks| asks == says.address)) {
            self.caches.insert(says.address, says.mac);
        }
        let reached = (0..self.hosts.len()).filter(|to| *to != from && !self.cut.contains(&(from, *to)));
        let reached = reached.filter(|to| frame.is_for(self.hosts[*to].mac));
        self.under_way.extend(reached.map(|to| (self.now + DELAY, to, frame)).collect::<Vec<_>>());
    }

    fn arrive(&mut self, at: usize, frame: Frame) {
        let now = self.now;
        let Host { mac, ip, claims, .. } = &mut self.hosts[at];
        let (mac, own) = (*mac, IpAddr::V4(*ip));
        let end = End { mac, other_macs: &[] };
        let (verdict, heard) = judge(end, |it| claims.ownership(it), Protocol::Arp, frame.emit().as_ref());
        if let Some(heard) = heard {
            claims.handle_heard(heard, now);
        }
        match verdict {
            Verdict::Answer(answer) => self.send(at, answer),
            Verdict::Conflict(claimant) => claims.handle_claimant(claimant, now),
            Verdict::Rival(claimant) => claims.handle_rival(claimant, now),
            Verdict::Ignore(_) if frame.asks() == Some(own) => {
                let answer = frame.answer(mac).expect("it asks");
                self.send(at, answer);
            }
            Verdict::Ignore(_) => {}
        }
    }

    fn attend(&mut self) {
        for at in 0..self.hosts.len() {
            while let Some(action) = self.hosts[at].claims.poll_action(self.now) {
                let Host { mac, ip, .. } = self.hosts[at];
                let frames: Vec<Frame> = match action {
                    Action::Probe(address) => vec![Frame::probe(address, mac)],
                    Action::Announce(address) => Frame::announcements(address, mac).collect(),
                    Action::PassOn { address, to } => Frame::announcements_of(address, to, mac).collect(),
                    Action::AskNode(address) | Action::AskOthers(address) => {
                        Frame::question(address, ip.into(), mac).into_iter().collect()
                    }
                };
                for frame in frames {
                    self.hosts[at].sent.push(self.now);
                    self.send(at, frame);
                }
            }
            while let Some(report) = self.hosts[at].claims.poll_report() {
                self.hosts[at].reports.push(report);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            self.attend();
            while let Some((_, at, frame)) = self.under_way.pop_front_if(|(due, ..)| *due <= self.now) {
                self.arrive(at, frame);
                self.attend();
            }
            let due = self.hosts.iter().filter_map(|host| host.claims.next_deadline());
            let due = due.chain(self.under_way.front().map(|(due, ..)| *due)).min();
            match due.filter(|due| *due <= until) {
                Some(due) => self.now = self.now.max(due),
                None => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// Until the condition holds; how long that took.
    fn until(&mut self, patience: Duration, what: &str, holds: impl Fn(&Segment) -> bool) -> Duration {
        let began = self.now;
        while !holds(self) {
            assert!(self.now < began + patience, "not within {patience:?}: {what}");
            self.pass(millis(1));
        }
        self.now - began
    }

    /// Both nodes have answered for the address for long, in two halves of a segment that was cut.
    fn split(addresses: u32) -> Segment {
        let mut segment = Segment::of(2).acquainted();
        segment.cut(0, 1);
        segment.cut(1, 0);
        for n in 0..addresses {
            segment.own(0, n, Acquisition::HandOver);
            segment.own(1, n, Acquisition::HandOver);
        }
        segment.pass(Duration::from_secs(300));
        segment
    }

    fn one_announces(&mut self, host: usize, n: u32) {
        let errand = Errand { assertions: 1, ..Acquisition::HandOver.into() };
        self.hosts[host].claims.handle_owned(address(n), &errand, self.now);
    }

    /// The most unsolicited frames that a host sent within a second that began at `from` or later.
    fn most_in_a_second(&self, host: usize, from: Instant) -> usize {
        let sent = &self.hosts[host].sent;
        let first = sent.partition_point(|at| *at < from);
        let within = |index: usize| sent.partition_point(|at| *at < sent[index] + Duration::from_secs(1)) - index;
        (first..sent.len()).map(within).max().unwrap_or(0)
    }
}

#[test]
fn two_that_have_long_answered_for_an_address_are_one_within_a_second_of_hearing_each_other() {
    for speaks_first in [0, 1] {
        let mut segment = Segment::split(1);
        assert_eq!(segment.answers(0), [0, 1]);
        segment.cut.clear();
        segment.one_announces(speaks_first, 0);
        segment.until(millis(1000), "one of the two answers", |it| it.answers(0) == [0]);
        segment.pass(millis(1500));
        assert_eq!(segment.answers(0), [0], "the lower MAC goes on");
        assert_eq!(segment.caches.get(&address(0)), Some(&FIRST), "and has announced the address again");
        let kind = ConflictKind::AliveUnheard;
        let given_up = Report::Conflict { claimant: Claimant { address: address(0), mac: FIRST }, kind, frames: 1 };
        assert_eq!(segment.hosts[1].reports.last(), Some(&given_up));
        segment.pass(Duration::from_secs(600));
        assert_eq!(segment.answers(0), [0]);
    }
}

#[test]
fn two_that_hear_each_other_in_one_direction_only_are_one_within_a_second_whichever_direction_that_is() {
    for (deaf, hearing) in [(0, 1), (1, 0)] {
        let mut segment = Segment::split(1);
        segment.cut.remove(&(deaf, hearing));
        segment.one_announces(deaf, 0);
        let took = segment.until(millis(1010), "the one that hears gives way", |it| it.answers(0) == [deaf]);
        assert!(took >= millis(500), "it was given the time to answer");
        segment.pass(millis(10));
        let mac = segment.hosts[deaf].mac;
        assert_eq!(segment.caches.get(&address(0)), Some(&mac), "neighbours were told where the address is");
        segment.pass(Duration::from_secs(600));
        assert_eq!(segment.answers(0), [deaf], "for as long as the refreshes of the deaf one are heard");
        segment.hosts[deaf].claims.handle_disowned(address(0), segment.now);
        segment.pass(Duration::from_secs(160));
        assert_eq!(segment.answers(0), [hearing], "it is gone");
    }
}

#[test]
fn a_node_that_took_an_address_by_mistake_gives_way_to_its_holder_whatever_the_macs() {
    for (holder, other) in [(0, 1), (1, 0)] {
        let mut segment = Segment::of(2).acquainted();
        segment.own(holder, 0, Acquisition::FirstUse);
        segment.pass(Duration::from_secs(60));
        segment.own(other, 0, Acquisition::HandOver);
        segment.until(millis(10), "the newcomer gives way at once", |it| it.answers(0) == [holder]);
        segment.pass(millis(1000));
        assert_eq!(segment.caches.get(&address(0)), Some(&segment.hosts[holder].mac), "the holder announced again");
        assert!(segment.hosts[holder].reports.contains(&Report::Over(address(0))));
    }
}

#[test]
fn what_another_node_answers_is_not_taken_until_it_stops_and_then_within_seconds() {
    let mut segment = Segment::of(2);
    (0..50).for_each(|n| segment.own(1, n, Acquisition::FirstUse));
    segment.pass(Duration::from_secs(60));
    for n in 0..50 {
        segment.own(0, n, Acquisition::TakeOver { from: "n2".into(), suspect: n % 2 == 0 });
    }
    segment.pass(Duration::from_secs(600));
    let taken: Vec<_> = (0..50).filter(|n| segment.answers(*n) != [1]).map(|n| (n, segment.answers(n))).collect();
    assert_eq!(taken, [], "taken from a node that answers");
    (0..50).for_each(|n| segment.hosts[1].claims.handle_disowned(address(n), segment.now));
    segment.until(Duration::from_secs(7), "the first finds them free", |it| (0..50).all(|n| it.answers(n) == [0]));
}

/// Input: no pulses pass, and the link is cut for minutes; then nobody announces anything. Output: who took addresses meanwhile gives
/// them back within a second, whatever the MACs are, and few frames are spent on it.
#[test]
fn who_took_addresses_in_a_long_cut_gives_them_back_within_a_second_of_its_end() {
    for (holder, other) in [(0, 1), (1, 0)] {
        let mut segment = Segment::of(2).acquainted();
        (0..100).for_each(|n| segment.own(holder, n, Acquisition::FirstUse));
        segment.pass(Duration::from_secs(60));
        (0..100).for_each(|n| segment.own(other, n, Acquisition::FirstUse));
        segment.pass(Duration::from_secs(60));
        segment.cut(0, 1);
        segment.cut(1, 0);
        segment.pass(Duration::from_secs(297));
        assert!((0..100).all(|n| segment.answers(n) == [0, 1]), "each half has one");
        let quiet = segment.now;
        segment.pass(Duration::from_secs(3));
        let most = segment.most_in_a_second(other, quiet);
        assert!(most <= 25, "{most} frames in a second");
        segment.cut.clear();
        let all = |it: &Segment| (0..100).all(|n| it.answers(n) == [holder]);
        segment.until(millis(1000), "the one that had them has them", all);
        segment.pass(Duration::from_secs(600));
        assert!(all(&segment), "and keeps them");
    }
}

/// Input: after a cut frames pass in one direction alone, and the node that is not heard announces one of the addresses that it took.
/// Output: the other one gives way for that, and for all that it took from that node, which will never announce these.
#[test]
fn a_claim_of_a_node_that_does_not_hear_this_one_gives_back_all_that_was_taken_from_it() {
    let mut segment = Segment::of(2).acquainted();
    for n in 0..6 {
        segment.own(if n < 3 { 0 } else { 1 }, n, Acquisition::FirstUse);
    }
    segment.pass(Duration::from_secs(60));
    for n in 0..6 {
        segment.own(if n < 3 { 1 } else { 0 }, n, Acquisition::FirstUse);
    }
    segment.pass(Duration::from_secs(60));
    segment.cut(0, 1);
    segment.cut(1, 0);
    segment.pass(Duration::from_secs(300));
    assert!((0..6).all(|n| segment.answers(n) == [0, 1]));
    segment.cut.remove(&(1, 0));
    segment.one_announces(1, 0);
    segment.until(millis(1000), "it gives all back", |it| [0, 3, 4, 5].iter().all(|n| it.answers(*n) == [1]));
    segment.pass(Duration::from_secs(100));
    assert!([3, 4, 5].iter().all(|n| segment.answers(*n) == [1]), "and leaves it there");
}

/// Input: the same, but that the node which is not heard announces nothing: it asks in turn whether anybody has what it took.
/// Output: its questions are enough for the other one to find out that it is not heard, and to give back what it took.
#[test]
fn questions_of_a_node_that_does_not_hear_this_one_give_back_all_that_was_taken_from_it() {
    let mut segment = Segment::of(2).acquainted();
    for n in 0..6 {
        segment.own(if n < 3 { 0 } else { 1 }, n, Acquisition::FirstUse);
    }
    segment.pass(Duration::from_secs(60));
    for n in 0..6 {
        segment.own(if n < 3 { 1 } else { 0 }, n, Acquisition::FirstUse);
    }
    segment.pass(Duration::from_secs(60));
    segment.cut(0, 1);
    segment.cut(1, 0);
    segment.pass(Duration::from_secs(400));
    assert!((0..6).all(|n| segment.answers(n) == [0, 1]));
    segment.cut.remove(&(1, 0));
    segment.until(millis(1600), "it gives back", |it| [3, 4, 5].iter().all(|n| it.answers(*n) == [1]));
    segment.pass(Duration::from_secs(100));
    assert!([3, 4, 5].iter().all(|n| segment.answers(*n) == [1]), "and leaves it there");
}

/// Input: a station that addresses were taken from is there again, and it is its kernel alone that asks for one of them: it hears this node.
/// Output: nothing is given up.
#[test]
fn questions_of_a_node_that_hears_this_one_give_nothing_back() {
    let mut segment = Segment::of(2).acquainted();
    segment.own(1, 0, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(60));
    segment.own(0, 0, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(5));
    segment.hosts[1].claims.handle_disowned(address(0), segment.now);
    segment.until(Duration::from_secs(20), "it is taken", |it| it.answers(0) == [0]);
    for _ in 0..30 {
        let Host { mac, ip, .. } = segment.hosts[1];
        let question = Frame::question(address(0), ip.into(), mac).expect("one family");
        segment.send(1, question);
        segment.pass(Duration::from_secs(1));
        assert_eq!(segment.answers(0), [0]);
    }
}

/// Input: no pulses; one that stands by receives nothing, what it sends passes. Output: it takes nothing, for however long, and
/// nothing moves when it receives again.
#[test]
fn who_hears_nobody_at_all_takes_nothing_as_a_standby() {
    let mut segment = Segment::of(3).acquainted();
    segment.own(0, 0, Acquisition::FirstUse);
    segment.own(2, 1, Acquisition::FirstUse);
    for n in 0..2 {
        segment.own(1, n, Acquisition::Standby { place: 1 });
    }
    segment.pass(Duration::from_secs(20));
    segment.cut(0, 1);
    segment.cut(2, 1);
    for _ in 0..600 {
        segment.pass(millis(100));
        assert_eq!((segment.answers(0), segment.answers(1)), (vec![0], vec![2]));
    }
    segment.cut.clear();
    segment.pass(Duration::from_secs(20));
    assert_eq!((segment.answers(0), segment.answers(1)), (vec![0], vec![2]));
}

/// Input: all others are gone, and then a client asks. Output: the last one takes the address: it is alone, and not deaf.
#[test]
fn the_last_one_takes_what_it_stands_by_for_as_soon_as_anybody_speaks() {
    let mut segment = Segment::of(3).acquainted();
    segment.own(0, 0, Acquisition::FirstUse);
    segment.own(1, 0, Acquisition::Standby { place: 1 });
    segment.pass(Duration::from_secs(20));
    for gone in [0, 2] {
        segment.cut(gone, 1);
        segment.cut(1, gone);
    }
    segment.pass(Duration::from_secs(30));
    assert_eq!(segment.answers(0), [0], "nobody is there who could ask");
    let answers = |it: &Segment| it.answers(0) == [0, 1];
    for _ in 0..4 {
        let question = Frame::question(address(0), Ipv4Addr::new(10, 0, 99, 9).into(), CLIENT).expect("one family");
        segment.arrive(1, question);
        segment.pass(Duration::from_secs(1));
    }
    assert!(answers(&segment));
}

/// Input: a node has been away for long, and then the holder of an address goes, on a link where nobody speaks. Output: the one
/// that stands by takes it: whom it would have to hear was away before.
#[test]
fn a_node_that_is_away_for_long_is_no_reason_to_wait_for_the_last_one() {
    let mut segment = Segment::of(3).acquainted();
    segment.own(0, 0, Acquisition::FirstUse);
    segment.own(1, 0, Acquisition::Standby { place: 1 });
    segment.pass(Duration::from_secs(20));
    for other in [0, 1] {
        segment.cut(other, 2);
        segment.cut(2, other);
    }
    segment.pass(PRESENT_FOR + Duration::from_secs(20));
    segment.cut(0, 1);
    segment.cut(1, 0);
    segment.until(Duration::from_secs(8), "it takes it", |it| it.answers(0) == [0, 1]);
}

/// Input: no pulses; one that receives nothing takes an address, and its holder gives way because it is not heard. Then the
/// other hears again, and is gone a moment later. Output: the address is taken over like any other, and not after `DEAF_PAUSE`.
#[test]
fn what_was_left_to_one_that_does_not_hear_is_asked_for_once_it_does() {
    let mut segment = Segment::of(2).acquainted();
    segment.own(0, 0, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(60));
    segment.cut(0, 1);
    segment.own(1, 0, Acquisition::FirstUse);
    segment.until(Duration::from_secs(5), "it gives way", |it| it.answers(0) == [1]);
    segment.pass(Duration::from_secs(5));
    segment.cut.clear();
    segment.pass(Duration::from_secs(5));
    assert_eq!(segment.answers(0), [1], "it answers for it");
    segment.hosts[1].claims.handle_disowned(address(0), segment.now);
    segment.until(Duration::from_secs(10), "it takes it back", |it| it.answers(0) == [0]);
}

/// Input: no pulses, one that answers, and two that stand by. Output: the link alone decides who answers; a restart moves nothing.
#[test]
fn who_stands_by_takes_an_address_once_nobody_answers_for_it_and_not_before() {
    let mut segment = Segment::of(3).acquainted();
    let all = |segment: &Segment, host: usize| (0..30).all(|n| segment.answers(n) == [host]);
    for n in 0..30 {
        segment.own(0, n, Acquisition::FirstUse);
        segment.own(1, n, Acquisition::Standby { place: 1 });
        segment.own(2, n, Acquisition::Standby { place: 2 });
    }
    segment.pass(Duration::from_secs(60));
    assert!(all(&segment, 0));
    let quiet = segment.now;
    segment.pass(Duration::from_secs(60));
    let most = [1, 2].map(|host| segment.most_in_a_second(host, quiet));
    assert!(most.iter().all(|most| *most <= 45), "{most:?}");
    let sent = [1, 2].map(|host| segment.hosts[host].sent.iter().filter(|at| **at >= quiet).count());
    assert!(sent[1] * 4 < sent[0], "one of them asks, and the other one only now and then: {sent:?}");
    assert_eq!((&segment.hosts[1].reports, &segment.hosts[2].reports), (&vec![], &vec![]), "that is no conflict");
    let ends = |segment: &mut Segment, host: usize| {
        (0..30).for_each(|n| segment.hosts[host].claims.handle_disowned(address(n), segment.now));
    };
    ends(&mut segment, 0);
    segment.pass(millis(900));
    (0..30).for_each(|n| segment.own(0, n, Acquisition::FirstUse));
    segment.pass(Duration::from_secs(10));
    assert!(all(&segment, 0), "its agent was back within a second");
    ends(&mut segment, 0);
    segment.until(Duration::from_secs(5), "the first in line takes all", |it| all(it, 1));
    (0..30).for_each(|n| segment.own(0, n, Acquisition::FirstUse));
    segment.pass(Duration::from_secs(60));
    assert!(all(&segment, 1), "who comes back takes nothing from it");
    ends(&mut segment, 1);
    let one = |it: &Segment| (0..30).all(|n| it.answers(n).len() == 1);
    segment.until(Duration::from_secs(7), "another one takes each", one);
    segment.pass(Duration::from_secs(60));
    assert!(one(&segment), "and one alone");
}

#[test]
fn a_node_that_nobody_knew_is_no_foreign_host() {
    let mut segment = Segment::of(2);
    segment.own(1, 0, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(60));
    segment.own(0, 0, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(2));
    let claimant = Claimant { address: address(0), mac: SECOND };
    let told = [Report::Conflict { claimant, kind: ConflictKind::AliveUnheard, frames: 1 }];
    assert_eq!(segment.hosts[0].reports, told, "asked by its answer, its Node's address was found at the same MAC");
    assert_eq!(segment.hosts[0].claims.node(SECOND), Some(&"n2".into()));
}

#[test]
fn a_foreign_host_is_told_as_one_when_no_node_turned_out_to_be_it() {
    let mut segment = Segment::of(3);
    segment.own(0, 0, Acquisition::FirstUse);
    segment.pass(millis(10));
    let claimant = Claimant { address: address(0), mac: CLIENT };
    segment.hosts[0].claims.handle_claimant(claimant, segment.now);
    segment.pass(millis(100));
    assert_eq!(segment.hosts[0].reports, [], "two Nodes are asked");
    segment.pass(CENSUS_PATIENCE - millis(60));
    let told = [Report::Conflict { claimant, kind: ConflictKind::Occupied, frames: 1 }];
    assert_eq!(segment.hosts[0].reports, told);
}

#[test]
fn of_eight_that_ask_at_once_for_four_hundred_addresses_one_gets_each_and_the_segment_stays_quiet() {
    let mut segment = Segment::of(8);
    for n in 0..400 {
        for host in 0..8 {
            segment.own(host, n, Acquisition::TakeOver { from: "n9".into(), suspect: true });
        }
    }
    segment.pass(Duration::from_secs(10));
    for n in 0..400 {
        assert_eq!(segment.answers(n).len(), 1, "answered for by {:?}", segment.answers(n));
    }
    let quiet = segment.now;
    segment.pass(Duration::from_secs(20));
    for host in 0..8 {
        let most = segment.most_in_a_second(host, quiet);
        assert!(most <= 200, "{most} frames of host {host} in a second");
    }
}

#[test]
fn three_thousand_addresses_of_two_halves_are_settled_within_seconds_and_the_frames_stay_within_the_budget() {
    let mut segment = Segment::split(3000);
    segment.cut.clear();
    for n in 0..3000 {
        segment.one_announces(0, n);
    }
    let all = |it: &Segment| (0..3000).all(|n| it.answers(n) == [0]);
    let took = segment.until(Duration::from_secs(3), "all are settled", all);
    segment.pass(Duration::from_secs(5));
    let wrong = (0..3000).filter(|n| segment.caches.get(&address(*n)) != Some(&FIRST)).count();
    assert_eq!(
        wrong, 0,
        "of 3000 addresses have clients with the wrong station, {took:?} after the two heard each other"
    );
    segment.pass(Duration::from_secs(30));
    let quiet = segment.now;
    segment.pass(Duration::from_secs(120));
    for host in 0..2 {
        let most = segment.most_in_a_second(host, quiet);
        assert!(most <= 200, "{most} frames of host {host} in a second");
    }
}

#[test]
fn with_three_thousand_addresses_in_conflict_for_minutes_no_second_has_more_than_two_hundred_frames() {
    let acquisitions = [
        Acquisition::FirstUse,
        taking_over(),
        Acquisition::HandOver,
        Acquisition::TakeOver { from: "x".into(), suspect: true },
    ];
    for (case, acquisition) in acquisitions.into_iter().enumerate() {
        // Somebody claims each address every ten seconds: a foreign host, a node that is heard, one that is not.
        for hearing in [None, Some(Hearing::Heard), Some(Hearing::Unheard)] {
            let mut bench = Bench::new();
            if let Some(hearing) = hearing {
                bench.meet(LOWER, hearing);
            }
            (0..3000).for_each(|n| bench.own(n, acquisition.clone()));
            let mut frames: Vec<u128> = Vec::new();
            for second in 0..120 {
                for n in (second % 10..3000).step_by(10) {
                    let claimant = Claimant { address: address(n), mac: LOWER };
                    bench.claims.handle_claimant(claimant, bench.now);
                }
                for (at, what, _) in bench.pass(Duration::from_secs(1)) {
                    frames.extend(std::iter::repeat_n(at, if what == Sent::Announce { 2 } else { 1 }));
                }
            }
            let steady = frames.partition_point(|at| *at < 60_000);
            let within = |index: usize| frames.partition_point(|at| *at < frames[index] + 1000) - index;
            let most = (steady..frames.len()).map(within).max().unwrap_or(0);
            assert!(most <= 200, "{most} frames in a second, acquisition {case}, {hearing:?}");
        }
    }
}

#[test]
fn whatever_the_plan_and_the_link_do_the_long_run_has_two_hundred_frames_a_second() {
    let mut bench = Bench::new();
    let mut frames: Vec<u128> = Vec::new();
    for second in 0..240_u32 {
        match second % 4 {
            0 => (0..3000).for_each(|n| bench.own(n, taking_over())),
            1 => bench.claims.handle_link_up(bench.now),
            2 => (0..3000).for_each(|n| {
                let errand = Errand { assertions: second, ..taking_over().into() };
                bench.claims.handle_owned(address(n), &errand, bench.now);
            }),
            _ => (0..3000).for_each(|n| bench.claims.handle_disowned(address(n), bench.now)),
        }
        for (at, what, _) in bench.pass(Duration::from_secs(1)) {
            frames.extend(std::iter::repeat_n(at, if what == Sent::Announce { 2 } else { 1 }));
        }
    }
    let later = frames.iter().filter(|at| **at >= 120_000).count();
    assert!(later <= 120 * 200 + 40, "{later} frames in the last two minutes");
}

#[test]
fn without_probing_an_address_is_used_at_once_and_what_a_foreign_host_says_changes_nothing() {
    let manner = Arc::new(Manner { probe: false, ..Manner::default() });
    let errand = Errand { manner, ..Acquisition::FirstUse.into() };
    let mut bench = Bench::new();
    bench.claims.handle_owned(address(1), &errand, bench.now);
    assert_eq!(bench.ownership(1), Ownership::Announced);
    bench.claimed_by(1, FOREIGN, false);
    assert_eq!(bench.ownership(1), Ownership::Announced);
    bench.claimed_unheard(1, FOREIGN);
    assert_eq!(bench.ownership(1), Ownership::Pending, "to a node it gives way");
}

#[test]
fn what_an_ignored_station_says_counts_for_nothing() {
    let manner = Arc::new(Manner { ignore_stations: [FOREIGN].into(), ..Manner::default() });
    let errand = Errand { manner, ..Acquisition::FirstUse.into() };
    let mut bench = Bench::new();
    bench.claims.handle_owned(address(1), &errand, bench.now);
    bench.pass(millis(10));
    bench.claimed_by(1, FOREIGN, false);
    bench.pass(millis(200));
    assert_eq!(bench.ownership(1), Ownership::Announced);
    bench.claimed_by(1, FOREIGN, false);
    assert_eq!((bench.ownership(1), bench.reports()), (Ownership::Announced, vec![]));
    bench.claimed_by(1, LOWER, false);
    assert_eq!(bench.reports().len(), 1, "another station is not ignored");
}

#[test]
fn announcements_follow_their_schedule_and_an_assertion_begins_it_anew() {
    let announce_again = vec![millis(300), millis(2000)];
    let manner = Arc::new(Manner { announce_again, ..Manner::default() });
    let errand = |assertions| Errand { assertions, manner: manner.clone(), ..Acquisition::HandOver.into() };
    let mut bench = Bench::new();
    bench.claims.handle_owned(address(1), &errand(0), bench.now);
    assert_eq!(bench.times(millis(10_000), Sent::Announce), [0, 50, 300, 2000]);
    bench.claims.handle_owned(address(1), &errand(1), bench.now);
    assert_eq!(bench.times(millis(5_000), Sent::Announce), [10_000, 10_300, 12_000]);
    bench.claims.handle_owned(address(1), &errand(1), bench.now);
    assert_eq!(bench.times(millis(5_000), Sent::Announce), [], "the same number is no news");
    let never = Errand { manner: Arc::new(Manner { announce_again: vec![], ..Manner::default() }), ..errand(1) };
    bench.claims.handle_owned(address(2), &never, bench.now);
    assert_eq!(bench.times(millis(5_000), Sent::Announce), [20_000, 20_050]);
}

#[test]
fn the_last_words_of_a_node_that_said_goodbye_are_no_answer() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::FirstUse);
    bench.pass(millis(10));
    bench.meet(FOREIGN, Hearing::Leaving);
    bench.claims.handle_claimant(Claimant { address: address(1), mac: FOREIGN }, bench.now);
    bench.pass(millis(200));
    assert_eq!((bench.ownership(1), bench.reports()), (Ownership::Announced, vec![]));
}

#[test]
fn a_link_that_comes_up_is_announced_on_again_when_an_old_spanning_tree_has_let_it_pass() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(Duration::from_secs(1000));
    bench.claims.handle_link_down();
    bench.pass(Duration::from_secs(2));
    bench.claims.handle_link_up(bench.now);
    let announced = bench.times(Duration::from_secs(100), Sent::Announce);
    assert!(announced.iter().any(|at| (1_032_000..1_036_000).contains(at)), "{announced:?}");
}

#[test]
fn with_many_addresses_a_verdict_waits_for_the_answers_to_all_probes() {
    let mut bench = Bench::new();
    (0..2000).for_each(|n| bench.own(n, taking_over()));
    let sent = bench.pass(Duration::from_secs(5));
    let last_probe = sent.iter().filter(|(_, what, _)| *what == Sent::Probe).map(|(at, ..)| *at).max().unwrap();
    let last_first =
        (0..2000).filter_map(|n| sent.iter().find(|(_, what, it)| *what == Sent::Announce && *it == address(n)));
    let last_first = last_first.map(|(at, ..)| *at).max().unwrap();
    assert!(last_first >= last_probe + 300, "probed until {last_probe} ms, announced from then until {last_first} ms");
    assert!(last_first <= 2500, "{last_first} ms");
}

/// Input: two nodes hear no pulse of each other; the wire of the holder is away for eight seconds, without loss of carrier. The
/// other one takes its addresses, and all repetitions of the announcement fall into the cut. Then both answered until the first refresh.
#[test]
fn what_was_taken_during_a_cut_is_announced_again_within_twice_its_time() {
    let mut bench = Bench::new();
    bench.own(1, taking_over());
    let times = bench.times(Duration::from_secs(300), Sent::Announce);
    let after = |cut: u128| times.iter().find(|at| **at > cut).map(|at| at - cut);
    for cut in [5_000, 8_000, 20_000, 50_000] {
        assert!(after(cut).is_some_and(|later| later <= cut), "after a cut of {cut} ms: {times:?}");
    }
    assert!(times.len() <= 12, "{times:?}");
}

/// Input: no pulses, a station that has had an address for long, which another one is to have from now on; then the first one gives
/// it up. Output: it is not asked for after a pause of five seconds, but at once and soon again.
#[test]
fn an_address_that_is_to_change_hands_is_asked_for_at_once() {
    let mut segment = Segment::of(2).acquainted();
    segment.own(0, 1, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(1));
    segment.own(1, 1, Acquisition::FirstUse);
    segment.pass(Duration::from_secs(57));
    assert_eq!(segment.answers(1), [0]);
    let errand = Errand { assertions: 1, ..Acquisition::FirstUse.into() };
    segment.hosts[1].claims.handle_owned(address(1), &errand, segment.now);
    segment.pass(millis(200));
    assert_eq!(segment.answers(1), [0], "it has not given it up yet");
    segment.hosts[0].claims.handle_disowned(address(1), segment.now);
    segment.until(millis(400), "the other one takes it", |it| it.answers(1) == [1]);
}
