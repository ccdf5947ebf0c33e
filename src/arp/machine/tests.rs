use std::collections::BTreeMap as Map;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::arp::settings::{CENSUS_PATIENCE, CONFLICT_OF_NODES_OVER, CONFLICT_OVER};
use crate::claim::Station;
use crate::clock;

mod segment;

const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x50]);
const FOREIGN: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
const LOWER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x01]);
const AN_HOUR: Duration = Duration::from_secs(3600);

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + n).into()
}

fn taking_over() -> Acquisition {
    Acquisition::TakeOver { from: "node1".into(), suspect: false }
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The claims with a virtual clock: what was sent, in milliseconds since the start.
struct Bench {
    claims: Claims,
    start: Instant,
    now: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Probe,
    Announce,
    AskNode,
    PassOn,
}

impl Bench {
    fn new() -> Bench {
        let start = clock::now();
        let mut claims = Claims::default();
        claims.handle_surroundings(Surroundings { mac: OUR_MAC, ..Surroundings::default() });
        claims.handle_link_up(start);
        Bench { claims, start, now: start }
    }

    fn own(&mut self, n: u32, acquisition: Acquisition) {
        self.claims.handle_owned(address(n), &acquisition.into(), self.now);
    }

    /// The station belongs to a node of which this is heard.
    fn meet(&mut self, mac: MacAddress, hearing: Hearing) {
        let stations = Arc::new([(mac, Station { node: "node2".into(), hearing })].into());
        let surroundings = Surroundings { mac: OUR_MAC, stations, ..Surroundings::default() };
        self.claims.handle_surroundings(surroundings);
    }

    /// `is_member`: by a node whose pulses are heard. Else by a foreign host.
    fn claimed_by(&mut self, n: u32, mac: MacAddress, is_member: bool) {
        if is_member {
            self.meet(mac, Hearing::Heard);
        }
        self.claims.handle_claimant(Claimant { address: address(n), mac }, self.now);
        self.claims.handle_surroundings(Surroundings { mac: OUR_MAC, ..Surroundings::default() });
    }

    /// A node claims the address whose pulses are not heard.
    fn claimed_unheard(&mut self, n: u32, mac: MacAddress) {
        self.meet(mac, Hearing::Unheard);
        self.claims.handle_claimant(Claimant { address: address(n), mac }, self.now);
    }

    /// Lets the time pass; what was sent meanwhile.
    fn pass(&mut self, time: Duration) -> Vec<(u128, Sent, IpAddr)> {
        let until = self.now + time;
        let mut sent = Vec::new();
        loop {
            while let Some(action) = self.claims.poll_action(self.now) {
                let (what, address) = match action {
                    Action::Probe(address) => (Sent::Probe, address),
                    Action::Announce(address) => (Sent::Announce, address),
                    Action::PassOn { address, to: _ } => (Sent::PassOn, address),
                    Action::AskNode(address) | Action::AskOthers(address) => {
                        self.claims.handle_asked();
                        (Sent::AskNode, address)
                    }
                };
                sent.push(((self.now - self.start).as_millis(), what, address));
            }
            match self.claims.next_deadline() {
                Some(deadline) if deadline <= until => {
                    assert!(deadline > self.now, "a deadline that does not move the clock would spin");
                    self.now = deadline;
                }
                Some(_) | None => {
                    self.now = until;
                    return sent;
                }
            }
        }
    }

    /// The times at which something was sent for address 1.
    fn times(&mut self, time: Duration, wanted: Sent) -> Vec<u128> {
        self.pass(time).into_iter().filter(|(_, what, _)| *what == wanted).map(|(at, ..)| at).collect()
    }

    fn reports(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.claims.poll_report()).collect()
    }

    fn ownership(&self, n: u32) -> Ownership {
        self.claims.ownership(address(n))
    }
}

fn conflict(n: u32, mac: MacAddress, kind: ConflictKind) -> Report {
    Report::Conflict { claimant: Claimant { address: address(n), mac }, kind, frames: 1 }
}

#[test]
fn an_address_is_asked_for_three_times_in_a_tenth_of_a_second_before_its_first_use() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::FirstUse);
    assert_eq!(bench.times(millis(104), Sent::Probe), [0, 35, 70]);
    assert_eq!(bench.ownership(1), Ownership::Pending, "answered before the verdict");
    assert_eq!(bench.times(millis(5000), Sent::Announce), [105, 1205, 2305, 3405, 4505]);
    assert_eq!(bench.ownership(1), Ownership::Announced);
    assert_eq!(bench.reports(), [], "a claim in which nobody is in the way is no news");
}

#[test]
fn a_take_over_asks_for_fifteen_milliseconds_and_a_hand_over_not_at_all() {
    let mut bench = Bench::new();
    bench.own(1, taking_over());
    assert_eq!(bench.times(millis(14), Sent::Probe), [0, 7]);
    assert_eq!(bench.ownership(1), Ownership::Pending);
    assert_eq!(bench.times(millis(10), Sent::Announce), [15]);

    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    assert_eq!(bench.ownership(1), Ownership::Announced, "it is answered for from the first moment");
    assert_eq!(bench.pass(millis(40)), [(0, Sent::Announce, address(1))]);
}

#[test]
fn what_is_handed_over_is_announced_once_more_behind_what_that_one_may_still_say() {
    for (acquisition, first) in [(Acquisition::HandOver, 0), (taking_over(), 15), (Acquisition::FirstUse, 105)] {
        let mut bench = Bench::new();
        bench.own(1, acquisition.clone());
        let mut expected = vec![first, first + 50, first + 1100];
        if acquisition != Acquisition::HandOver {
            expected.remove(1);
        }
        assert_eq!(bench.times(millis(2000), Sent::Announce), expected, "{acquisition:?}");
    }
    // A candidate that took it in the same moment is heard: who of the two goes on says so as soon.
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(10));
    bench.claimed_by(1, FOREIGN, true);
    assert_eq!(bench.times(millis(1000), Sent::Announce), [60]);
}

#[test]
fn the_last_announcement_of_a_node_that_said_goodbye_is_followed_by_one_of_its_heir() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(200));
    bench.meet(FOREIGN, Hearing::Leaving);
    for _ in 0..100 {
        bench.claims.handle_claimant(Claimant { address: address(1), mac: FOREIGN }, bench.now);
    }
    assert_eq!(bench.times(millis(800), Sent::Announce), [250], "once, however often it speaks");
    assert_eq!(bench.reports(), []);
}

/// Input: a node that says in its pulses that it receives nothing announces an address of this one, again and again.
/// Output: this one goes on, and neighbours hear of it behind each of these announcements.
#[test]
fn what_a_node_announces_that_receives_nothing_is_contradicted_each_time() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(20_000));
    bench.meet(FOREIGN, Hearing::ReceivesNothing);
    for _ in 0..5 {
        bench.claims.handle_claimant(Claimant { address: address(1), mac: FOREIGN }, bench.now);
        let sent = bench.pass(millis(100)).into_iter().filter(|(_, what, _)| *what == Sent::Announce).count();
        assert_eq!((sent, bench.ownership(1)), (2, Ownership::Announced), "at once, and when its own are past");
        bench.pass(millis(1000));
    }
    bench.own(2, Acquisition::TakeOver { from: "node2".into(), suspect: false });
    bench.claims.handle_claimant(Claimant { address: address(2), mac: FOREIGN }, bench.now);
    bench.pass(millis(100));
    assert_eq!(bench.ownership(2), Ownership::Announced, "and it is waited for by nobody");
    // But one that answers a question of this node was quiet, not deaf.
    bench.own(3, Acquisition::TakeOver { from: "node2".into(), suspect: false });
    bench
        .claims
        .handle_heard(Heard { speaker: FOREIGN, says: Some(address(3)), asks: None, answers_us: true }, bench.now);
    bench.claims.handle_claimant(Claimant { address: address(3), mac: FOREIGN }, bench.now);
    bench.pass(millis(100));
    assert_eq!(bench.ownership(3), Ownership::Pending);
}

/// Input: the pulses of all other nodes are missed, and nobody answers questions for their addresses. Output: this node knows
/// that it hears nobody until the next frame of anybody, asks seldom then, and asks nobody as long as some pulse is heard.
#[test]
fn a_node_that_misses_all_others_asks_for_them_and_knows_when_nobody_is_heard() {
    let mut bench = Bench::new();
    let told = |hearing: Hearing| Surroundings {
        mac: OUR_MAC,
        stations: Arc::new([(FOREIGN, Station { node: "node2".into(), hearing })].into()),
        addresses: Arc::new([(address(200), "node2".into())].into()),
        own: [IpNet::new(address(201), 24).unwrap()].into(),
        ..Surroundings::default()
    };
    bench.claims.handle_surroundings(told(Hearing::Heard));
    assert_eq!(bench.pass(millis(5000)), [], "a pulse is heard");
    bench.claims.handle_surroundings(told(Hearing::Unheard));
    let asked = |bench: &mut Bench, time| bench.times(millis(time), Sent::AskNode).len();
    assert_eq!((asked(&mut bench, 1199), bench.claims.hears_nobody()), (4, false));
    assert_eq!((asked(&mut bench, 9999), bench.claims.hears_nobody()), (2, true), "and it asks seldom now");
    let stranger = Heard { speaker: FOREIGN, says: None, asks: Some(address(9)), answers_us: false };
    bench.claims.handle_heard(stranger, bench.now);
    assert!(!bench.claims.hears_nobody());
    bench.claims.handle_surroundings(told(Hearing::Heard));
    assert_eq!((asked(&mut bench, 20_000), bench.claims.hears_nobody()), (0, false));
}

#[test]
fn an_address_that_is_held_is_refreshed_for_ever_below_the_ageing_of_switches() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(5000));
    let refreshed = bench.times(AN_HOUR, Sent::Announce);
    assert!(refreshed.len() >= 27, "{refreshed:?}");
    for pair in refreshed.windows(2) {
        assert!((110_000..=130_000).contains(&(pair[1] - pair[0])), "refreshed at {refreshed:?}");
    }
}

#[test]
fn refreshes_of_addresses_that_came_together_drift_apart() {
    let mut bench = Bench::new();
    (0..640).for_each(|n| bench.own(n, Acquisition::HandOver));
    bench.pass(millis(5000));
    let sent = bench.pass(REFRESH_INTERVAL);
    let fullest =
        sent.iter().map(|(at, ..)| sent.iter().filter(|(other, ..)| (*at..at + 1000).contains(other)).count());
    let fullest = fullest.max().unwrap();
    assert!(fullest < 100, "{fullest} of 640 within one second");
}

#[test]
fn an_address_that_somebody_has_is_not_used_and_asked_for_ever_more_rarely_until_it_is_free() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::FirstUse);
    bench.pass(millis(10));
    bench.claimed_by(1, FOREIGN, false);
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::Occupied)]);
    let mut asked: Vec<(u128, Sent, IpAddr)> = Vec::new();
    for _ in 0..7 {
        // The foreign host answers each first probe at once.
        let before = asked.len();
        while asked.len() == before {
            asked.extend(bench.pass(millis(1)));
        }
        assert_eq!(bench.ownership(1), Ownership::Pending);
        bench.claimed_by(1, FOREIGN, false);
    }
    let pauses: Vec<u128> = asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!((asked[0].0, pauses.as_slice()), (260, [500, 1000, 2000, 4000, 5000, 5000].as_slice()));
    assert_eq!(bench.reports(), [], "the same foreign host is no news");
    assert_eq!(bench.claims.conflicts().collect::<Vec<_>>(), [(address(1), FOREIGN, ConflictKind::Occupied)]);

    assert_eq!(bench.pass(millis(5200)).last().map(|(_, what, _)| *what), Some(Sent::Announce), "it left, and so");
    assert_eq!(bench.reports(), [Report::Over(address(1))]);
    assert_eq!(bench.claims.conflicts().count(), 0);
}

#[test]
fn an_owner_that_answers_though_nobody_hears_it_is_not_robbed_and_asked_again_ever_more_rarely_until_it_dies() {
    let mut bench = Bench::new();
    bench.own(1, taking_over());
    bench.pass(millis(1));
    bench.claimed_by(1, FOREIGN, true);
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::AliveUnheard)]);
    let mut probed = bench.pass(millis(400));
    assert_eq!(probed.pop(), Some((401, Sent::Probe, address(1))));
    bench.claimed_by(1, FOREIGN, true);
    assert_eq!(bench.times(millis(820), Sent::Probe), [1201, 1208], "the pause has doubled");
    assert_eq!(bench.ownership(1), Ownership::Announced, "now it is dead");
    assert_eq!(bench.reports(), [Report::Over(address(1))]);
}

#[test]
fn a_hand_over_ends_the_probing_and_the_pause_after_a_deferral() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::FirstUse);
    bench.own(2, Acquisition::FirstUse);
    bench.pass(millis(10));
    bench.claimed_by(2, FOREIGN, true);
    bench.own(1, Acquisition::HandOver);
    bench.own(2, Acquisition::HandOver);
    assert_eq!((bench.ownership(1), bench.ownership(2)), (Ownership::Announced, Ownership::Announced));
    let said: Vec<_> = bench.pass(millis(1)).into_iter().map(|(_, what, address)| (what, address)).collect();
    assert_eq!(said, [(Sent::Announce, address(1)), (Sent::Announce, address(2))]);
}

#[test]
fn a_foreign_host_that_was_only_slow_to_answer_was_there_first_and_one_that_comes_later_is_fended_off() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::FirstUse);
    bench.pass(millis(1500));
    assert_eq!(bench.ownership(1), Ownership::Announced);
    bench.claimed_by(1, FOREIGN, false);
    assert_eq!(bench.ownership(1), Ownership::Pending, "it was there before");
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::Occupied)]);

    let mut bench = Bench::new();
    bench.own(1, Acquisition::FirstUse);
    bench.pass(PROBATION + millis(200));
    bench.claimed_by(1, FOREIGN, false);
    assert_eq!(bench.ownership(1), Ownership::Announced);
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::Contested)]);
    assert_eq!(bench.times(millis(1), Sent::Announce).len(), 1, "defended at once");
}

#[test]
fn a_node_that_is_handed_the_address_is_no_conflict_and_one_that_goes_on_claiming_it_is() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(6000));
    bench.claimed_by(1, FOREIGN, true);
    bench.pass(millis(300));
    bench.claimed_by(1, FOREIGN, true);
    bench.claims.handle_disowned(address(1), bench.now);
    bench.pass(CONFLICT_OVER);
    assert_eq!(bench.reports(), [], "the address went to that node");

    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(6000));
    bench.claimed_by(1, FOREIGN, true);
    bench.pass(millis(1000));
    bench.claimed_by(1, FOREIGN, true);
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::Contested)], "both go on");
    // Status named it for five minutes after the other had given way.
    bench.pass(CONFLICT_OF_NODES_OVER);
    assert_eq!(bench.reports(), [Report::Over(address(1))]);
}

#[test]
fn a_foreign_host_that_insists_is_fended_off_once_in_ten_seconds_and_forgotten_when_it_is_silent() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(6000));
    let mut defended = Vec::new();
    for _ in 0..300 {
        bench.claimed_by(1, FOREIGN, false);
        defended.extend(bench.times(millis(100), Sent::Announce));
    }
    assert_eq!(defended, [6000, 16_000, 26_000]);
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::Contested)]);
    bench.pass(CONFLICT_OVER);
    assert_eq!(bench.reports(), [Report::Over(address(1))]);
    assert_eq!(bench.ownership(1), Ownership::Announced);
}

#[test]
fn another_agent_is_not_fended_off_at_once_but_corrected_if_this_node_still_is_the_owner_after_a_second() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(millis(6000));
    bench.claimed_by(1, FOREIGN, true);
    assert_eq!(bench.times(millis(1500), Sent::Announce), [7000]);

    bench.own(2, Acquisition::HandOver);
    bench.pass(millis(6000));
    bench.claimed_by(2, FOREIGN, true);
    bench.claims.handle_disowned(address(2), bench.now);
    assert_eq!(bench.pass(millis(5000)), [], "the other one is the owner: not a word");
}

#[test]
fn of_two_that_ask_at_once_the_lower_mac_goes_first() {
    let rival = |mac| Claimant { address: address(1), mac };
    for (mac, expected) in [(LOWER, 1), (FOREIGN, 0)] {
        let mut bench = Bench::new();
        bench.own(1, Acquisition::FirstUse);
        bench.pass(millis(1));
        bench.claims.handle_rival(rival(mac), bench.now);
        assert_eq!(bench.reports().len(), expected, "asked by {mac}");
        bench.pass(millis(200));
        assert_eq!(bench.ownership(1), if expected == 1 { Ownership::Pending } else { Ownership::Announced });
    }
}

#[test]
fn a_disowned_address_is_not_mentioned_again_and_its_conflict_is_over() {
    let mut bench = Bench::new();
    for (n, acquisition) in [(1, Acquisition::HandOver), (2, Acquisition::FirstUse), (3, Acquisition::FirstUse)] {
        bench.own(n, acquisition);
    }
    bench.pass(millis(1));
    bench.claimed_by(3, FOREIGN, false);
    bench.reports();
    (1..4).for_each(|n| bench.claims.handle_disowned(address(n), bench.now));
    assert_eq!(bench.reports(), [Report::Over(address(3))]);
    assert_eq!((bench.claims.next_deadline(), bench.claims.is_empty()), (None, true));
    assert_eq!(bench.pass(AN_HOUR), []);
}

#[test]
fn a_link_that_comes_up_again_hears_everything_anew_and_a_link_that_is_down_hears_nothing() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.own(2, Acquisition::FirstUse);
    bench.claims.handle_link_down();
    assert_eq!(bench.pass(AN_HOUR), []);
    bench.claims.handle_link_up(bench.now);
    let said = bench.pass(millis(300));
    let of = |n| said.iter().filter(|(.., who)| *who == address(n)).map(|(_, what, _)| *what).collect::<Vec<_>>();
    assert_eq!(of(1), [Sent::Announce, Sent::Announce]);
    assert_eq!(of(2), [Sent::Probe, Sent::Probe, Sent::Probe, Sent::Announce]);
}

#[test]
fn ten_thousand_addresses_are_no_storm_and_a_take_over_overtakes_them() {
    let mut bench = Bench::new();
    (0..10_000).for_each(|n| bench.own(n, Acquisition::FirstUse));
    let mut sent = bench.pass(millis(2000));
    bench.own(20_000, taking_over());
    let urgent = bench.pass(millis(25));
    let of_it = urgent.iter().filter(|(.., who)| *who == address(20_000)).count();
    assert_eq!(of_it, 3, "two probes and an announcement, whatever else is waiting");
    sent.extend(urgent);
    sent.extend(bench.pass(Duration::from_secs(60)));
    let frames = |what: &Sent| match what {
        Sent::Probe | Sent::AskNode | Sent::PassOn => 1,
        Sent::Announce => 2,
    };
    let per_second = (0..sent.len()).step_by(500).map(|first| {
        let within = sent[first..].iter().take_while(|(at, ..)| *at < sent[first].0 + 1000);
        within.map(|(_, what, _)| frames(what)).sum::<usize>()
    });
    let most = per_second.max().unwrap();
    assert!(most <= 8000 + 40, "{most} frames in a second");
    let announced: BTreeSet<_> =
        sent.iter().filter(|(_, what, _)| *what == Sent::Announce).map(|(.., address)| *address).collect();
    assert_eq!(announced.len(), 10_001);
    let held = sent.iter().filter(|(_, what, _)| *what == Sent::Announce).nth(10_000).unwrap();
    assert!(held.0 < 7000, "the last was announced only after {} ms", held.0);
}

#[test]
fn an_ipv6_address_costs_half_the_frames() {
    let mut bench = Bench::new();
    for n in 0..2000u16 {
        let address = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, n);
        bench.claims.handle_owned(address.into(), &Acquisition::HandOver.into(), bench.now);
    }
    let said = bench.pass(millis(1000));
    let first: BTreeSet<IpAddr> = said[..2000].iter().map(|(_, _, address)| *address).collect();
    assert_eq!((first.len(), said[1999].0 / 10), (2000, 24), "two thousand frames take a quarter of a second");
    assert_eq!((said.len(), said[3999].0 / 10), (4000, 49), "and each is repeated behind all that wait");
}

/// Every state, every event: where it leads and what is told.
#[test]
fn the_table_of_states_and_events_holds() {
    type Beginning = (&'static str, fn() -> Bench);
    type Event = (&'static str, fn(&mut Bench));
    let states: [Beginning; 5] = [
        ("probing", || {
            let mut bench = Bench::new();
            bench.own(1, Acquisition::FirstUse);
            bench.pass(millis(50));
            bench
        }),
        ("probing to take over", || {
            let mut bench = Bench::new();
            bench.own(1, taking_over());
            bench.pass(millis(5));
            bench
        }),
        ("deferred", || {
            let mut bench = Bench::new();
            bench.own(1, Acquisition::FirstUse);
            bench.claimed_by(1, FOREIGN, false);
            bench.reports();
            bench
        }),
        ("on probation", || {
            let mut bench = Bench::new();
            bench.own(1, Acquisition::FirstUse);
            bench.pass(millis(200));
            bench
        }),
        ("announced", || {
            let mut bench = Bench::new();
            bench.own(1, Acquisition::HandOver);
            bench.pass(millis(200));
            bench
        }),
    ];
    let events: [Event; 8] = [
        ("owned again", |bench| bench.own(1, Acquisition::FirstUse)),
        ("handed over", |bench| bench.own(1, Acquisition::HandOver)),
        ("a foreign host", |bench| bench.claimed_by(1, LOWER, false)),
        ("another agent", |bench| bench.claimed_by(1, LOWER, true)),
        ("a lower rival", |bench| {
            let rival = Claimant { address: address(1), mac: LOWER };
            bench.claims.handle_rival(rival, bench.now);
        }),
        ("a higher rival", |bench| {
            let rival = Claimant { address: address(1), mac: FOREIGN };
            bench.claims.handle_rival(rival, bench.now);
        }),
        ("link down", |bench| bench.claims.handle_link_down()),
        ("link up", |bench| bench.claims.handle_link_up(bench.now)),
    ];
    let mut table = String::new();
    for (state, make) in states {
        for (event, happen) in events {
            let mut bench = make();
            happen(&mut bench);
            let told = bench.reports();
            let told = match told.as_slice() {
                [] => "",
                [Report::Conflict { kind, .. }] => match kind {
                    ConflictKind::Occupied => ", occupied",
                    ConflictKind::AliveUnheard => ", alive",
                    ConflictKind::Contested => ", contested",
                },
                [Report::Over(_)] => ", over",
                more => panic!("{state}, {event}: {more:?}"),
            };
            let next = bench.claims.next_deadline().map_or("never".to_owned(), |due| {
                format!("{} ms", due.saturating_duration_since(bench.now).as_millis())
            });
            table += &format!("{state} + {event}: {:?}{told}; next {next}\n", bench.ownership(1));
        }
    }
    assert_eq!(table, include_str!("table.txt"), "the table is now:\n{table}");
}

#[derive(Debug, Clone)]
enum Step {
    Own(u32, Acquisition),
    Disown(u32),
    Up,
    Down,
    Claimed(u32, bool),
    Rival(u32, bool),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let acquisition = prop_oneof![Just(Acquisition::FirstUse), Just(taking_over()), Just(Acquisition::HandOver)];
    prop_oneof![
        3 => (0u32..8, acquisition).prop_map(|(n, acquisition)| Step::Own(n, acquisition)),
        1 => (0u32..8).prop_map(Step::Disown),
        1 => Just(Step::Up),
        1 => Just(Step::Down),
        2 => (0u32..8, any::<bool>()).prop_map(|(n, is_member)| Step::Claimed(n, is_member)),
        1 => (0u32..8, any::<bool>()).prop_map(|(n, lower)| Step::Rival(n, lower)),
        3 => (0u64..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nothing_is_announced_that_is_not_held_and_everything_wanted_is_held_in_the_end(
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let mut bench = Bench::new();
        let mut wanted: BTreeSet<IpAddr> = BTreeSet::new();
        let mut link_up = true;
        for step in steps {
            match step {
                Step::Own(n, acquisition) => {
                    wanted.insert(address(n));
                    bench.own(n, acquisition);
                    prop_assert!(!link_up || bench.claims.next_deadline().is_some());
                }
                Step::Disown(n) => {
                    wanted.remove(&address(n));
                    bench.claims.handle_disowned(address(n), bench.now);
                }
                Step::Up => {
                    link_up = true;
                    bench.claims.handle_link_up(bench.now);
                }
                Step::Down => {
                    link_up = false;
                    bench.claims.handle_link_down();
                }
                Step::Claimed(n, is_member) => bench.claimed_by(n, FOREIGN, is_member),
                Step::Rival(n, lower) => {
                    let mac = if lower { LOWER } else { FOREIGN };
                    let rival = Claimant { address: address(n), mac };
                    bench.claims.handle_rival(rival, bench.now);
                }
                Step::Wait(time) => {
                    let mut probes: Map<IpAddr, u128> = Map::new();
                    for (at, what, address) in bench.pass(millis(time)) {
                        prop_assert!(link_up, "spoke on a link that is down");
                        prop_assert!(wanted.contains(&address), "named {address}, which is not wanted");
                        if what == Sent::Probe {
                            probes.insert(address, at);
                        } else if let Some(probed) = probes.get(&address) {
                            prop_assert!(at >= probed + 7, "announced {} ms after a probe", at - probed);
                        }
                    }
                }
            }
            prop_assert_eq!(bench.claims.len(), wanted.len());
            let in_the_way = bench.claims.conflicts().all(|(address, ..)| wanted.contains(&address));
            prop_assert!(in_the_way, "a conflict about an address that is not wanted");
        }
        bench.claims.handle_link_up(bench.now);
        bench.pass(millis(20_000));
        for address in &wanted {
            prop_assert_eq!(bench.claims.ownership(*address), Ownership::Announced, "nobody is in the way any more");
        }
        bench.pass(CONFLICT_OVER);
        prop_assert_eq!(bench.claims.conflicts().count(), 0);
    }
}

#[test]
fn an_address_that_is_announced_is_left_at_once_to_a_node_that_does_not_hear_this_one() {
    let mut bench = Bench::new();
    bench.own(1, Acquisition::HandOver);
    bench.pass(Duration::from_secs(1000));
    bench.meet(FOREIGN, Hearing::Deaf);
    bench.claims.handle_claimant(Claimant { address: address(1), mac: FOREIGN }, bench.now);
    assert_eq!(bench.ownership(1), Ownership::Pending);
    assert_eq!(bench.reports(), [conflict(1, FOREIGN, ConflictKind::AliveUnheard)]);
    let sent: Vec<_> = bench.pass(Duration::from_secs(149)).into_iter().map(|(_, what, _)| what).collect();
    assert_eq!(sent, [Sent::PassOn], "such a node answers no probe, so it is not asked");
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.ownership(1), Ownership::Announced, "nobody has claimed the address since");
}

#[test]
fn neighbours_are_told_once_where_an_address_is_that_was_given_up_to_a_node_that_may_not_know() {
    let mut bench = Bench::new();
    for n in 1..=3 {
        bench.own(n, Acquisition::HandOver);
    }
    bench.pass(Duration::from_secs(1000));
    let yields = Arc::new([(address(1), FOREIGN), (address(2), FOREIGN)].into());
    bench.claims.handle_surroundings(Surroundings { mac: OUR_MAC, yields, ..Surroundings::default() });
    for n in 1..=3 {
        bench.claims.handle_disowned(address(n), bench.now);
    }
    bench.own(2, Acquisition::HandOver);
    let sent: Vec<_> = bench.pass(millis(10)).into_iter().map(|(_, what, who)| (what, who)).collect();
    assert_eq!(sent, [(Sent::Announce, address(2)), (Sent::PassOn, address(1))], "the second was granted again");
}
