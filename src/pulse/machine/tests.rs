use std::num::NonZeroU8;

use super::*;
use crate::roster::{Holding, KeyUse, Stage};

const START: fn() -> Instant = crate::clock::now;

fn machine(name: &str, incarnation: u64, now: Instant) -> Machine {
    machine_with(name, &[KeyId::NONE], incarnation, now)
}

/// `incarnation`: which life it is. They lie as far apart as those of agents.
fn machine_with(name: &str, keys: &[KeyId], incarnation: u64, now: Instant) -> Machine {
    let settings =
        Settings { interval: Duration::from_millis(100), multiplier: NonZeroU8::new(3).unwrap_or(NonZeroU8::MIN) };
    let stance = Stance {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        eligibility: Eligibility::Eligible,
        owner: false,
        hears_api_server: true,
        card: Arc::default(),
        holdings: Holdings::new(),
        occupied: Arc::default(),
        egress: None,
        over_bgp: None,
        sessions: None,
        back_by: None,
    };
    Machine::new(
        name.into(),
        settings,
        keys.to_vec(),
        Incarnations { first: incarnation << 20, this: incarnation << 20 },
        stance,
        now,
    )
}

/// Lets two machines speak for a while, and gives everything the second said.
fn speak(a: &mut Machine, b: &mut Machine, now: &mut Instant, time: Duration) -> Vec<Pulse> {
    let end = *now + time;
    let mut recorded = Vec::new();
    while *now < end {
        while let Some(pulse) = a.poll_pulse(*now) {
            b.handle_pulse(pulse, *now);
        }
        while let Some(pulse) = b.poll_pulse(*now) {
            recorded.push(pulse.clone());
            a.handle_pulse(pulse, *now);
        }
        *now += Duration::from_millis(1);
    }
    recorded
}

fn alive(machine: &mut Machine, now: Instant) -> bool {
    machine.roster_moved = true;
    machine.poll_roster(now);
    machine.roster.members.contains_key(&NodeName::from("b"))
}

#[test]
fn no_recording_of_another_life_makes_a_node_alive() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let recording = speak(&mut a, &mut b, &mut now, Duration::from_secs(3));
    assert!(alive(&mut a, now), "it was alive while it was recorded");
    drop(b);
    // Input: everything that b ever said, again, to the one that heard it.
    let (newest, older) = recording.split_last().expect("it said something");
    for pulse in older {
        assert_eq!(a.handle_pulse(pulse.clone(), now), Outcome::Replayed);
    }
    assert_eq!(a.handle_pulse(newest.clone(), now), Outcome::Repeated, "as if it came by the other family");
    for _ in 0..40 {
        now += Duration::from_millis(100);
        a.poll_pulse(now);
    }
    assert!(!alive(&mut a, now), "and it falls silent in its time");
    // And to one that has started since, and knows nothing.
    let mut newcomer = machine("a", 3, now);
    for pulse in &recording {
        assert_eq!(newcomer.handle_pulse(pulse.clone(), now), Outcome::Unverified);
        while newcomer.poll_pulse(now).is_some() {}
        now += Duration::from_millis(10);
    }
    assert!(!alive(&mut newcomer, now));
}

/// Input: the links of b on one wire, of which one was told that its life is too low; and a link that appears later. Output:
/// they are links of one life, each with an incarnation of its own, and none takes another for a namesake.
#[test]
fn links_of_a_node_that_goes_on_in_a_later_life_stay_links_of_one_node() {
    let now = START();
    let of_link = |first, number| {
        let mut machine = machine("b", 2, now);
        machine.incarnations = Incarnations { first, this: first + number };
        machine
    };
    let before = machine("b", 2, now).life();
    let (mut one, mut two) = (of_link(before, 1), of_link(before, 2));
    let word = Pulse {
        corrects: Some((NodeTicket::of(&"b".into()), before << 1)),
        ..machine("c", 3, now).poll_pulse(now).unwrap()
    };
    one.handle_pulse(word.clone(), now);
    assert!(one.life() > before << 1);
    two.handle_life(one.life(), now);
    two.handle_life(before, now);
    let mut later = of_link(one.life(), 3);
    // What the other link says until it learns of it, or what is under way still, is no namesake's.
    let mut slow = of_link(before, 4);
    let late = slow.poll_pulse(now).expect("it says hello");
    assert_eq!(one.handle_pulse(late.clone(), now), Outcome::Own);
    assert_eq!(two.handle_pulse(late, now), Outcome::Own);
    // It hears the same word a moment later.
    two.handle_pulse(word, now);
    let said = [&mut one, &mut two, &mut later].map(|link| link.poll_pulse(now).expect("it says so at once"));
    let incarnations = said.each_ref().map(|pulse| pulse.incarnation - one.life());
    assert_eq!(incarnations, [1, 2, 3]);
    for pulse in &said {
        for link in [&mut one, &mut two, &mut later] {
            assert_eq!(link.handle_pulse(pulse.clone(), now), Outcome::Own);
        }
    }
}

/// Input: b lives, and another host with its name starts, which a hears and which has not answered yet. Output: a corrects
/// neither of them, for both would go on above the other; once that host is heard no more, b is told, and is heard again.
#[test]
fn a_life_that_is_heard_and_was_never_proved_corrects_nobody() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    speak(&mut a, &mut b, &mut now, Duration::from_secs(2));
    let life = b.life();
    let mut other = machine("b", 900, now);
    other.stance.mac = MacAddress([2, 0, 0, 0, 0, 9]);
    let hello = other.poll_pulse(now).expect("it says hello at once");
    assert_eq!(a.handle_pulse(hello, now), Outcome::Unverified);
    speak(&mut a, &mut b, &mut now, Duration::from_millis(200));
    assert_eq!(b.life(), life, "the other one may answer yet");
    speak(&mut a, &mut b, &mut now, Duration::from_secs(10));
    assert!(b.life() > other.life(), "it answered never, and b has to be heard");
    assert!(alive(&mut a, now));
}

/// Input: the clock of b was ahead, and is right when b starts again without its [state] folder. Output: a tells b which life
/// of it is known, and hears it in a moment. Recordings of any life of b change nothing, and a recording of that word nothing either.
#[test]
fn a_node_whose_clock_went_back_is_heard_again_although_its_former_life_is_lost() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 900, now));
    let recording = speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    let mut again = machine("b", 2, now);
    let own = again.life();
    let first = again.poll_pulse(now).expect("it says hello at once");
    assert_eq!(a.handle_pulse(first, now), Outcome::Replayed, "b is alive");
    assert_eq!(a.poll_pulse(now).and_then(|pulse| pulse.corrects), None, "so that may be a recording");
    speak(&mut a, &mut again, &mut now, Duration::from_secs(10));
    assert!(alive(&mut a, now), "it has to be heard, and it is no recording");
    assert!(again.life() > b.life());
    for pulse in &recording {
        assert_eq!(a.handle_pulse(pulse.clone(), now), Outcome::Replayed);
        assert_eq!(a.poll_pulse(now).and_then(|pulse| pulse.corrects), None);
    }
    let life = again.life();
    let word = |known| Pulse {
        corrects: Some((NodeTicket::of(&"b".into()), known)),
        ..machine("c", 3, now).poll_pulse(now).unwrap()
    };
    for known in [own, b.life(), life, life + 1, u64::MAX] {
        again.handle_pulse(word(known), now);
        assert_eq!(again.life(), life, "{known}");
    }
    speak(&mut a, &mut again, &mut now, Duration::from_secs(1));
    assert!(alive(&mut a, now));
    drop(again);
    for pulse in recording.iter().cycle().take(3000) {
        now += Duration::from_millis(10);
        assert_eq!(a.handle_pulse(pulse.clone(), now), Outcome::Replayed);
        while a.poll_pulse(now).is_some() {}
    }
    assert!(!alive(&mut a, now), "a recording makes nobody alive");
}

/// The kernel does not say how many frames came.
fn count(machine: &mut Machine, now: Instant) {
    if machine.wants_count(now) {
        machine.handle_received(None, false, now);
    }
}

/// Input: the first pulse of a node that this one never knew, as a recording has it; nothing that follows.
#[test]
fn a_node_that_never_answers_is_new_for_a_detection_time_and_no_longer() {
    let began = START();
    let (mut a, mut b) = (machine("a", 1, began), machine("b", 2, began));
    let first = b.poll_pulse(began).expect("it says hello at once");
    assert_eq!(a.handle_pulse(first, began), Outcome::Unverified);
    for millis in 0..1000 {
        let now = began + Duration::from_millis(millis);
        let due = a.next_deadline().is_some_and(|due| due <= now);
        while a.poll_pulse(now).is_some() {}
        let said = a.poll_roster(now);
        let is_new = a.roster.unproved.get(&NodeName::from("b")).map(|it| it.new);
        assert_eq!(is_new, Some(millis < 300), "after {millis} ms");
        if millis == 300 {
            assert!(due && said.is_some(), "it is looked at although nothing was heard");
        }
    }
}

#[test]
fn a_node_that_started_anew_ends_its_life_before_at_its_first_pulse() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let recording = speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    assert!(alive(&mut a, now));
    let mut again = machine("b", 3, now);
    let first = again.poll_pulse(now).expect("it says hello at once");
    assert!(first.hello && first.eligibility == Eligibility::Listening);
    assert_eq!(a.handle_pulse(first, now), Outcome::Unverified);
    assert!(!alive(&mut a, now), "what it owned before it does not own now");
    let last = recording.last().cloned().expect("it spoke");
    assert_eq!(a.handle_pulse(Pulse { sequence: u64::MAX, ..last }, now), Outcome::Replayed, "an earlier life");
    speak(&mut a, &mut again, &mut now, Duration::from_secs(1));
    assert!(alive(&mut a, now));
}

#[test]
fn who_leaves_says_so_several_times_and_then_nothing() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    b.handle_leaving(now);
    let goodbye = b.poll_pulse(now).expect("at once");
    assert_eq!(a.handle_pulse(goodbye, now), Outcome::Left);
    assert!(!alive(&mut a, now) && a.roster.silent.is_empty(), "it left, it did not fall silent");
    let said = speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    assert_eq!(said.len(), usize::from(URGENT) - 1, "{said:?}");
    assert!(b.has_left() && b.next_deadline().is_none());
}

#[test]
fn what_is_expected_of_an_owner_is_expected_at_once() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    speak(&mut a, &mut b, &mut now, Duration::from_secs(2));
    drop(b);
    // It promised a pulse a second, so it may be silent for three; from the moment on that it is to own it may not.
    a.handle_expected(&[NodeName::from("b")].into(), now);
    let mut asked = 0;
    let end = now + a.settings.detection();
    while now < end {
        asked += std::iter::from_fn(|| a.poll_pulse(now)).filter(|pulse| !pulse.asks.is_empty()).count();
        assert!(alive(&mut a, now), "it has its time");
        now += Duration::from_millis(1);
    }
    assert!(!alive(&mut a, end), "and no more");
    assert!((3..=6).contains(&asked), "it was asked {asked} times whether it is there");
}

#[test]
fn a_namesake_and_our_own_echo_are_told_apart() {
    let now = START();
    let mut a = machine("a", 1, now);
    let echo = a.poll_pulse(now).expect("it says hello");
    assert_eq!(a.handle_pulse(echo.clone(), now), Outcome::Own);
    assert_eq!(a.handle_pulse(Pulse { incarnation: 1 << 40, ..echo }, now), Outcome::Namesake);
}

/// Input: a hears b; another host begins to pulse by that name from another MAC, and both go on. Output: the one that
/// started later is b, and the other is told as another host of that name once it has gone on for a detection time; a recording of what it
/// said before is not, nor is a node whose agent has restarted.
#[test]
fn a_name_that_two_hosts_have_is_told_and_a_recording_or_a_restart_is_not() {
    let mut now = START();
    let (mut a, mut first) = (machine("a", 1, now), machine("b", 2, now));
    let recording = speak(&mut a, &mut first, &mut now, Duration::from_secs(1));
    let mut second = machine("b", 3, now);
    let mac = MacAddress([2, 0, 0, 0, 0, 3]);
    second.handle_stance(Stance { mac, ..second.stance.clone() }, now);
    let end = now + Duration::from_secs(3);
    let (mut replayed, mut goes_on) = (Vec::new(), Vec::new());
    speak(&mut a, &mut second, &mut now, Duration::from_millis(50));
    for pulse in &recording {
        replayed.push(a.handle_pulse(pulse.clone(), now));
        now += Duration::from_millis(20);
    }
    assert!(replayed.iter().all(|it| *it == Outcome::Replayed), "{replayed:?}");
    // Its last pulses may be on their way when it starts anew.
    let last = recording.last().cloned().expect("it spoke");
    assert_eq!(a.handle_pulse(Pulse { mac, sequence: 1000, ..last }, now), Outcome::Replayed);
    while now < end {
        speak(&mut a, &mut second, &mut now, Duration::from_millis(1));
        goes_on.extend(std::iter::from_fn(|| first.poll_pulse(now)).map(|pulse| a.handle_pulse(pulse, now)));
    }
    let place = goes_on.iter().position(|it| *it == Outcome::DoubleName).expect("it goes on");
    let (before, after) = goes_on.split_at(place);
    assert!(before.iter().all(|it| *it == Outcome::Replayed) && after.iter().all(|it| *it == Outcome::DoubleName));
    assert!(alive(&mut a, now), "b is the other one");
    assert_eq!(a.roster.doubles, [("b".into(), MacAddress([2, 0, 0, 0, 0, 1]))].into());
    now += DOUBLE_FOR;
    alive(&mut a, now);
    assert!(a.roster.doubles.is_empty(), "it is gone");
}

#[test]
fn more_names_than_are_kept_in_mind_push_nobody_out_that_is_alive() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let spoken = speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    let sample = spoken.last().cloned().expect("it spoke");
    for number in 0..MOST_PEERS + 10 {
        let pulse = Pulse { node: format!("ghost-{number}").into(), ..sample.clone() };
        assert_eq!(a.handle_pulse(pulse, now), Outcome::Unverified);
    }
    assert!(a.peers.len() <= MOST_PEERS);
    assert!(alive(&mut a, now));
}

const OLD: KeyId = KeyId(1);
const NEW: KeyId = KeyId(2);

/// Machines on one link, each with the keys that it accepts, the newest in front.
struct Rotation {
    now: Instant,
    nodes: Vec<(Vec<KeyId>, Machine)>,
    incarnation: u64,
    /// The keys of the pulses that each sent in the last call of `live`.
    sealed: Vec<BTreeSet<KeyId>>,
}

impl Rotation {
    fn of(keys: &[&[KeyId]]) -> Rotation {
        let mut rotation = Rotation { now: START(), nodes: Vec::new(), incarnation: 0, sealed: Vec::new() };
        for (place, keys) in keys.iter().enumerate() {
            let machine = rotation.started(place, keys);
            rotation.nodes.push((keys.to_vec(), machine));
        }
        rotation
    }

    fn started(&mut self, place: usize, keys: &[KeyId]) -> Machine {
        self.incarnation += 1;
        machine_with(&name(place), keys, self.incarnation, self.now)
    }

    /// Says goodbye, and is back a quarter of a second later with these keys.
    fn restart(&mut self, place: usize, keys: &[KeyId]) {
        self.nodes[place].1.handle_leaving(self.now);
        self.live(Duration::from_millis(250));
        let machine = self.started(place, keys);
        self.nodes[place] = (keys.to_vec(), machine);
    }

    fn live(&mut self, time: Duration) {
        let end = self.now + time;
        self.sealed = vec![BTreeSet::new(); self.nodes.len()];
        while self.now < end {
            for sender in 0..self.nodes.len() {
                while let Some(pulse) = self.nodes[sender].1.poll_pulse(self.now) {
                    self.sealed[sender].insert(pulse.key);
                    let hearers = self.nodes.iter_mut().enumerate().filter(|(hearer, _)| *hearer != sender);
                    for (_, (_, machine)) in hearers.filter(|(_, (keys, _))| keys.contains(&pulse.key)) {
                        machine.handle_pulse(pulse.clone(), self.now);
                    }
                }
                self.nodes[sender].1.poll_roster(self.now);
            }
            self.now += Duration::from_millis(1);
        }
    }

    /// As `live`; panics as soon as a settled node does not hear another that runs.
    fn live_together(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.live(Duration::from_millis(20));
            for (place, (_, machine)) in self.nodes.iter().enumerate().filter(|(_, (_, machine))| machine.settled) {
                for other in (0..self.nodes.len()).filter(|other| *other != place && self.nodes[*other].1.settled) {
                    let hears = machine.peers.get(&NodeName::from(name(other).as_str()));
                    let hears = hears.is_some_and(|peer| peer.life == Life::Alive);
                    assert!(hears, "{} does not hear {}", name(place), name(other));
                }
            }
        }
    }

    fn key_use(&self, place: usize) -> KeyUse {
        self.nodes[place].1.roster.key_use.clone().expect("it has a key")
    }
}

fn name(place: usize) -> String {
    format!("n{place}")
}

fn names(places: &[usize]) -> BTreeSet<NodeName> {
    places.iter().map(|place| NodeName::from(name(*place).as_str())).collect()
}

#[test]
fn while_the_key_is_changed_node_by_node_all_hear_each_other_all_the_time() {
    let mut rotation = Rotation::of(&[&[OLD] as &[KeyId]; 4]);
    rotation.live(Duration::from_secs(2));
    rotation.live_together(Duration::from_secs(2));
    for place in 0..4 {
        rotation.restart(place, &[NEW, OLD]);
        rotation.live(Duration::from_millis(500));
        rotation.live_together(Duration::from_secs(5));
        let untouched: Vec<usize> = (place + 1..4).collect();
        let key_use = rotation.key_use(0);
        assert_eq!(key_use.without_new, names(&untouched), "those that were not restarted have the old key only");
        assert_eq!(key_use.sealing, if untouched.is_empty() { [NEW] } else { [OLD] });
    }
    rotation.live(Duration::from_secs(1));
    assert_eq!(rotation.sealed, vec![BTreeSet::from([NEW]); 4], "all end up on the new key within seconds");
    assert_eq!(rotation.key_use(2).seal_with_old, names(&[]), "and each knows it of the others");
    for place in 0..4 {
        rotation.restart(place, &[NEW]);
        rotation.live(Duration::from_millis(500));
        rotation.live_together(Duration::from_secs(5));
    }
    let after =
        KeyUse { new: NEW, old: vec![], sealing: vec![NEW], without_new: names(&[]), seal_with_old: names(&[]) };
    assert_eq!(rotation.key_use(0), after, "nothing is left of the change");
}

#[test]
fn a_node_that_starts_again_with_the_old_key_alone_is_heard_and_hears() {
    let mut rotation = Rotation::of(&[&[NEW, OLD], &[NEW, OLD], &[OLD]]);
    rotation.live(Duration::from_secs(5));
    rotation.live_together(Duration::from_secs(1));
    // Input: the third dies; half an hour later it is back with the file that it had.
    let (_, dead) = rotation.nodes.pop().expect("there are three");
    rotation.live(Duration::from_secs(10));
    assert_eq!(rotation.sealed, vec![BTreeSet::from([OLD]); 2], "it may only be frozen");
    rotation.live(Duration::from_secs(40));
    rotation.live(Duration::from_secs(1));
    assert_eq!(rotation.sealed, vec![BTreeSet::from([NEW]); 2], "who is gone for long is not waited for");
    drop(dead);
    let machine = rotation.started(2, &[OLD]);
    rotation.nodes.push((vec![OLD], machine));
    rotation.live(Duration::from_millis(400));
    assert!(rotation.nodes[2].1.settled, "it listened for D and no longer");
    rotation.live_together(Duration::from_secs(2));
    assert_eq!(rotation.key_use(0).without_new, names(&[2]));
}

#[test]
fn a_node_between_others_that_have_no_key_in_common_is_heard_by_all_of_them() {
    let mut rotation = Rotation::of(&[&[OLD], &[NEW, OLD], &[NEW]]);
    rotation.live(Duration::from_secs(5));
    rotation.live(Duration::from_secs(5));
    assert_eq!(rotation.sealed, [BTreeSet::from([OLD]), BTreeSet::from([NEW, OLD]), BTreeSet::from([NEW])]);
    assert_eq!(rotation.key_use(1).sealing, [NEW, OLD]);
    for (place, (_, machine)) in rotation.nodes.iter().enumerate().filter(|(place, _)| *place != 1) {
        assert!(machine.roster.members.contains_key(&NodeName::from("n1")), "n{place} hears it");
    }
}

#[test]
fn a_pulse_that_comes_under_two_keys_is_taken_once() {
    let now = START();
    let mut sender = machine_with("a", &[NEW, OLD], 1, now);
    let mut hearer = machine_with("b", &[NEW, OLD], 2, now);
    let said: Vec<Pulse> = std::iter::from_fn(|| sender.poll_pulse(now)).collect();
    assert_eq!(said.iter().map(|pulse| pulse.key).collect::<Vec<_>>(), [OLD, NEW], "it does not know who listens");
    let outcomes: Vec<Outcome> = said.into_iter().map(|pulse| hearer.handle_pulse(pulse, now)).collect();
    assert_eq!(outcomes, [Outcome::Unverified, Outcome::Repeated]);
}

#[test]
fn alone_on_its_link_a_node_uses_the_new_key_and_says_goodbye_with_it() {
    let mut rotation = Rotation::of(&[&[NEW, OLD]]);
    rotation.live(Duration::from_secs(4));
    rotation.live(Duration::from_secs(4));
    assert_eq!(rotation.sealed, [BTreeSet::from([NEW])]);
    rotation.nodes[0].1.handle_leaving(rotation.now);
    rotation.live(Duration::from_secs(1));
    assert_eq!(rotation.sealed, [BTreeSet::from([NEW])]);
    assert!(rotation.nodes[0].1.has_left());
}

#[test]
fn a_node_that_is_heard_and_answers_nothing_is_deaf_in_time_and_alive_as_soon_as_it_answers() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let unproved = |a: &mut Machine, now: Instant| {
        a.poll_roster(now);
        a.roster.unproved.get(&NodeName::from("b")).map(|it| it.deaf)
    };
    let began = now;
    let detection = a.settings.detection();
    let mut seen = Vec::new();
    // What b says reaches a, and nothing that a says reaches b.
    while now < began + detection * (PATIENCE + 5) {
        while let Some(pulse) = b.poll_pulse(now) {
            a.handle_pulse(pulse, now);
        }
        while a.poll_pulse(now).is_some() {}
        let deaf = unproved(&mut a, now);
        assert!(deaf != Some(true) || now >= began + detection * PATIENCE, "after {:?}", now - began);
        seen.push(deaf);
        now += Duration::from_millis(1);
    }
    assert_eq!((seen.first(), seen.last()), (Some(&Some(false)), Some(&Some(true))));
    assert!(!alive(&mut a, now));
    speak(&mut a, &mut b, &mut now, Duration::from_secs(2));
    assert!(alive(&mut a, now));
    assert_eq!(unproved(&mut a, now), None);
}

#[test]
fn a_node_of_which_the_plan_doubts_that_it_hears_is_deaf_until_it_answers_and_when_it_does_so_no_more() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let deaf = |a: &mut Machine, now: Instant| {
        a.poll_roster(now);
        a.roster.members.get(&NodeName::from("b")).map(|it| it.deaf)
    };
    // What b says reaches a, and nothing that a says reaches b.
    let one_way = |a: &mut Machine, b: &mut Machine, now: &mut Instant, time: Duration| {
        let end = *now + time;
        let mut asked = 0;
        while *now < end {
            while let Some(pulse) = b.poll_pulse(*now) {
                a.handle_pulse(pulse, *now);
            }
            while let Some(pulse) = a.poll_pulse(*now) {
                asked += usize::from(pulse.asks.contains(&NodeTicket::of(&NodeName::from("b"))));
            }
            *now += Duration::from_millis(1);
        }
        asked
    };
    speak(&mut a, &mut b, &mut now, Duration::from_secs(2));
    one_way(&mut a, &mut b, &mut now, Duration::from_secs(10));
    assert_eq!(deaf(&mut a, now), Some(true), "b misses a, and asks for it");
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    assert_eq!(deaf(&mut a, now), Some(false));
    let doubted: BTreeSet<NodeName> = ["b".into()].into();
    a.handle_doubted(&doubted, now);
    assert_eq!(deaf(&mut a, now), Some(true));
    let asked = one_way(&mut a, &mut b, &mut now, Duration::from_secs(30));
    assert_eq!(deaf(&mut a, now), Some(true));
    assert!((30..=120).contains(&asked), "asked {asked} times in 30 s");
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    assert_eq!(deaf(&mut a, now), Some(false), "it has answered");
    one_way(&mut a, &mut b, &mut now, Duration::from_secs(5));
    assert_eq!(deaf(&mut a, now), Some(true), "and does not any more");
    // In another life it has to answer before it counts as alive.
    let mut again = machine("b", 3, now);
    one_way(&mut a, &mut again, &mut now, Duration::from_secs(5));
    assert_eq!((deaf(&mut a, now), a.roster.may_be_deaf(&"b".into())), (None, true));
    speak(&mut a, &mut again, &mut now, Duration::from_secs(2));
    assert_eq!((deaf(&mut a, now), a.roster.may_be_deaf(&"b".into())), (Some(false), false));
    one_way(&mut a, &mut again, &mut now, Duration::from_secs(5));
    assert_eq!(deaf(&mut a, now), Some(true), "of the new life the same is asked");
    a.handle_doubted(&BTreeSet::new(), now);
    assert_eq!(deaf(&mut a, now), Some(true), "what is known stays so until it answers");
    speak(&mut a, &mut again, &mut now, Duration::from_secs(1));
    assert_eq!(deaf(&mut a, now), Some(false));
}

/// Lets the machines run for a while. `reaches` says whether what the first sends reaches the second, by their places. How many
/// pulses asked something.
fn live(all: &mut [Machine], now: &mut Instant, time: Duration, reaches: impl Fn(usize, usize) -> bool) -> usize {
    let end = *now + time;
    let mut asking = 0;
    while *now < end {
        for from in 0..all.len() {
            while let Some(pulse) = all[from].poll_pulse(*now) {
                asking += usize::from(!pulse.asks.is_empty());
                for to in (0..all.len()).filter(|to| *to != from && reaches(from, *to)) {
                    all[to].handle_pulse(pulse.clone(), *now);
                }
            }
        }
        *now += Duration::from_millis(1);
    }
    asking
}

fn deaf_to(machine: &mut Machine, now: Instant) -> Vec<String> {
    machine.poll_roster(now);
    let members = machine.roster.members.iter().filter(|(_, it)| it.deaf);
    members.map(|(name, _)| name.to_string()).collect()
}

#[test]
fn a_node_that_runs_and_is_not_heard_any_more_learns_which_nodes_do_not_hear_it_until_they_do() {
    let mut now = START();
    let mut all = ["a", "b", "c"].map(|name| machine(name, 1 + u64::from(name.as_bytes()[0]), now));
    live(&mut all, &mut now, Duration::from_secs(3), |_, _| true);
    let asking = live(&mut all, &mut now, Duration::from_secs(60), |_, _| true);
    assert!(asking < 20, "{asking} pulses asked something although all is well");
    assert_eq!(deaf_to(&mut all[0], now), [""; 0]);
    // Its firewall drops what it sends.
    live(&mut all, &mut now, Duration::from_secs(10), |from, _| from != 0);
    assert_eq!(deaf_to(&mut all[0], now), ["b", "c"]);
    assert_eq!((deaf_to(&mut all[1], now), deaf_to(&mut all[2], now)), (vec![], vec![]), "they hear each other");
    let asking = live(&mut all, &mut now, Duration::from_secs(60), |from, _| from != 0);
    assert!((50..=250).contains(&asking), "{asking} pulses asked in a minute");
    live(&mut all, &mut now, Duration::from_secs(3), |_, _| true);
    assert_eq!(deaf_to(&mut all[0], now), [""; 0], "it is heard again");
    // One of two does not hear it.
    live(&mut all, &mut now, Duration::from_secs(10), |from, to| (from, to) != (0, 2));
    assert_eq!(deaf_to(&mut all[0], now), ["c"]);
    // The link was cut, and comes back in one direction.
    live(&mut all, &mut now, Duration::from_secs(10), |from, to| from != 0 && to != 0);
    assert_eq!(deaf_to(&mut all[0], now), [""; 0], "who is not heard is silent, and nothing else is known");
    live(&mut all, &mut now, Duration::from_secs(10), |from, _| from != 0);
    assert_eq!(deaf_to(&mut all[0], now), ["b", "c"]);
}

#[test]
fn a_node_that_stands_still_for_a_while_is_taken_for_deaf_by_nobody() {
    let mut now = START();
    let mut all = ["a", "b", "c"].map(|name| machine(name, 1 + u64::from(name.as_bytes()[0]), now));
    live(&mut all, &mut now, Duration::from_secs(5), |_, _| true);
    for frozen in [100, 500, 2000, 2900, 3500, 8000] {
        // Nothing passes in either direction, and all hear each other at once afterwards.
        live(&mut all, &mut now, Duration::from_millis(frozen), |from, to| from != 0 && to != 0);
        for _ in 0..50 {
            live(&mut all, &mut now, Duration::from_millis(100), |_, _| true);
            for it in &mut all {
                assert_eq!(deaf_to(it, now), [""; 0], "after {frozen} ms");
            }
        }
    }
}

#[test]
fn nodes_that_fall_silent_at_once_are_all_suspect_though_one_is_due_before_the_other() {
    let mut link = Rotation::of(&[&[OLD] as &[KeyId]; 3]);
    for (_, machine) in &mut link.nodes {
        let owner = Stance { owner: true, ..machine.stance.clone() };
        machine.handle_stance(owner, link.now);
    }
    link.live(Duration::from_secs(2));
    let silent = |link: &Rotation| -> BTreeMap<NodeName, bool> {
        let departed = link.nodes[0].1.roster.silent.iter();
        departed.map(|(node, departed)| (node.clone(), departed.suspect)).collect()
    };
    // One dies, and half a second later the other: each for itself.
    let mut one_by_one = link.nodes.pop().map(|last| vec![last]).unwrap_or_default();
    link.live(Duration::from_millis(500));
    assert_eq!(silent(&link), [("n2".into(), false)].into());
    one_by_one.extend(link.nodes.pop());
    link.live(Duration::from_millis(500));
    assert_eq!(silent(&link), [("n1".into(), false), ("n2".into(), false)].into());

    // Both at once. Their last pulses came half an interval apart.
    let mut link = Rotation::of(&[&[OLD] as &[KeyId]; 3]);
    for place in 0..3 {
        let machine = &mut link.nodes[place].1;
        let owner = Stance { owner: true, ..machine.stance.clone() };
        machine.handle_stance(owner, link.now);
        link.live(Duration::from_millis(40));
    }
    link.live(Duration::from_secs(2));
    link.nodes.truncate(1);
    link.live(Duration::from_millis(500));
    assert_eq!(silent(&link), [("n1".into(), true), ("n2".into(), true)].into());
}

/// A link of a node that has several, by its number.
fn link_of(name: &str, life: u64, link: u64, now: Instant) -> Machine {
    let mut machine = machine(name, life, now);
    machine.incarnations.this += link;
    machine
}

/// Two links of node b lie on a's wire. a takes both for one node.
#[test]
fn both_links_of_a_node_on_one_wire_learn_that_this_node_lives_whichever_is_heard_first() {
    for newer_first in [false, true] {
        let mut now = START();
        let mut a = machine("a", 1, now);
        let (mut older, mut newer) = (link_of("b", 100, 0, now), link_of("b", 100, 1, now));
        let end = now + Duration::from_secs(3);
        while now < end {
            let mut said: Vec<Pulse> =
                [&mut older, &mut newer].into_iter().filter_map(|it| it.poll_pulse(now)).collect();
            if newer_first {
                said.reverse();
            }
            for pulse in said {
                a.handle_pulse(pulse, now);
            }
            while let Some(pulse) = a.poll_pulse(now) {
                for link in [&mut older, &mut newer] {
                    link.handle_pulse(pulse.clone(), now);
                }
            }
            now += Duration::from_millis(1);
        }
        for link in [&mut older, &mut newer] {
            link.roster_moved = true;
            link.poll_roster(now);
            assert!(link.roster.members.contains_key(&NodeName::from("a")), "{:?}", link.incarnations);
        }
        assert!(alive(&mut a, now));
    }
}

const BACK: Duration = Duration::from_secs(4);

fn held() -> Holdings {
    let holding = |stage| Holding { weight: 0, stage };
    [(address(1), holding(Stage::Holds)), (address(2), holding(Stage::Holds)), (address(3), holding(Stage::Asks))]
        .into_iter()
        .collect()
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// Two that know each other, and the second, which holds addresses, says that it restarts: as the first then is.
fn restarting(back_in: Duration, now: &mut Instant) -> Machine {
    let (mut a, mut b) = (machine("a", 1, *now), machine("b", 2, *now));
    let owner = Stance { owner: true, holdings: held(), ..b.stance.clone() };
    b.handle_stance(owner, *now);
    speak(&mut a, &mut b, now, Duration::from_secs(1));
    assert!(member(&mut a, *now).is_some_and(|it| !it.restarting && it.waits && it.holdings == held()));
    b.handle_restarting(*now + back_in, *now);
    let said = speak(&mut a, &mut b, now, Duration::from_millis(30));
    assert!(said.len() > 1 && said.iter().all(|pulse| pulse.back_in.is_some() && pulse.owner), "{said:?}");
    assert!(b.has_left() && b.next_deadline().is_none());
    a
}

fn member(machine: &mut Machine, now: Instant) -> Option<crate::roster::Member> {
    machine.roster_moved = true;
    machine.poll_roster(now);
    machine.roster.members.get(&NodeName::from("b")).cloned()
}

/// Lets time pass for one that hears nothing, a millisecond at a time, until the other is a member no more. How long that took,
/// and how many questions were asked meanwhile.
fn until_given_up(machine: &mut Machine, now: &mut Instant) -> (Duration, usize) {
    let (began, mut asked) = (*now, 0);
    while member(machine, *now).is_some() {
        asked += std::iter::from_fn(|| machine.poll_pulse(*now)).filter(|pulse| !pulse.asks.is_empty()).count();
        *now += Duration::from_millis(1);
        assert!(*now < began + Duration::from_secs(60), "it is never given up");
    }
    (*now - began, asked)
}

#[test]
fn a_node_that_restarts_is_missed_when_its_time_is_over_and_not_before() {
    let mut now = START();
    let began = now + Duration::from_secs(1);
    let mut a = restarting(BACK, &mut now);
    a.handle_expected(&[NodeName::from("b")].into(), now);
    assert!(member(&mut a, now).is_some_and(|it| it.restarting && it.owner && it.holdings == held()));
    let (_, asked) = until_given_up(&mut a, &mut now);
    let late = (now - began).saturating_sub(BACK);
    assert!(now >= began + BACK && late <= Duration::from_millis(30), "{late:?} too late, or early");
    assert_eq!(asked, 0, "it is not asked whether it lives");
    let departed = a.roster.silent.get(&NodeName::from("b")).expect("it is dead, and did not say goodbye");
    assert_eq!(departed.holdings.keys().copied().collect::<Vec<_>>(), [address(1), address(2)]);
    assert!(!departed.suspect && departed.unheard >= BACK - Duration::from_millis(30), "{departed:?}");
}

#[test]
fn nobody_waits_longer_than_a_restart_may_take_whatever_is_said() {
    let mut now = START();
    let began = now + Duration::from_secs(1);
    let mut a = restarting(Duration::from_secs(3600), &mut now);
    until_given_up(&mut a, &mut now);
    let waited = now - began;
    let most = crate::roster::LONGEST_RESTART;
    assert!(waited >= most && waited <= most + Duration::from_millis(30), "{waited:?}");
}

#[test]
fn a_node_that_is_back_holds_what_it_held_until_it_says_that_it_has_all_that_it_will_have() {
    let mut now = START();
    let mut a = restarting(BACK, &mut now);
    now += Duration::from_secs(1);
    while a.poll_pulse(now).is_some() {}
    let mut again = machine("b", 3, now);
    let back_by = now + BACK - Duration::from_secs(1);
    again.handle_stance(Stance { back_by: Some(back_by), ..again.stance.clone() }, now);
    let first = again.poll_pulse(now).expect("it says hello at once");
    assert_eq!((first.eligibility, first.back_in), (Eligibility::Listening, Some(Duration::from_secs(3))));
    assert_eq!(a.handle_pulse(first, now), Outcome::Unverified);
    let seen = member(&mut a, now).expect("as before");
    assert!(seen.restarting && seen.holdings == held() && seen.eligibility == Eligibility::Eligible);
    assert!(a.roster.silent.is_empty() && a.roster.unproved.is_empty(), "{:?}", a.roster);

    // It listens, and goes on with one of the two. About the other it says that it takes it.
    speak(&mut a, &mut again, &mut now, Duration::from_secs(1));
    assert!(again.settled && member(&mut a, now).is_some_and(|it| it.holdings == held()));
    let [(one, holds), (other, _), (_, asks)] = held().into_iter().collect::<Vec<_>>().try_into().unwrap();
    let stance =
        Stance { owner: true, holdings: [(one, holds), (other, asks)].into_iter().collect(), ..again.stance.clone() };
    again.handle_stance(stance.clone(), now);
    speak(&mut a, &mut again, &mut now, Duration::from_millis(200));
    assert!(member(&mut a, now).is_some_and(|it| it.restarting && it.holdings == held()), "it is on its way");

    // It says that it is back: what it does not hold now is free.
    again.handle_stance(Stance { back_by: None, ..stance.clone() }, now);
    speak(&mut a, &mut again, &mut now, Duration::from_millis(200));
    let seen = member(&mut a, now).expect("it lives");
    assert!(!seen.restarting && seen.holdings == stance.holdings, "{seen:?}");
}

#[test]
fn a_node_that_is_back_and_does_not_take_what_it_held_in_time_loses_it() {
    let mut now = START();
    let began = now + Duration::from_secs(1);
    let mut a = restarting(BACK, &mut now);
    let mut again = machine("b", 3, now);
    let owner = Stance { back_by: Some(began + Duration::from_secs(3600)), ..again.stance.clone() };
    again.handle_stance(owner, now);
    while member(&mut a, now).is_some_and(|it| !it.holdings.is_empty()) {
        speak(&mut a, &mut again, &mut now, Duration::from_millis(5));
        assert!(now < began + BACK * 2, "it says that it restarts for ever, and is believed");
    }
    let waited = now - began;
    assert!(waited >= BACK && waited <= BACK + Duration::from_millis(60), "{waited:?}");
    assert!(alive(&mut a, now), "but it lives");
}

#[test]
fn a_node_that_is_back_as_an_earlier_version_holds_nothing_of_what_it_held() {
    let mut now = START();
    let mut a = restarting(BACK, &mut now);
    let mut earlier = machine("b", 3, now);
    speak(&mut a, &mut earlier, &mut now, Duration::from_secs(1));
    let seen = member(&mut a, now).expect("it lives");
    assert!(!seen.restarting && seen.holdings.is_empty(), "{seen:?}");
}

#[test]
fn a_restart_in_a_restart_is_waited_for_no_longer_than_the_first() {
    let mut now = START();
    let began = now + Duration::from_secs(1);
    let mut a = restarting(BACK, &mut now);
    for incarnation in 3..9 {
        let mut again = machine("b", incarnation, now);
        again.handle_stance(Stance { back_by: Some(now + BACK), ..again.stance.clone() }, now);
        speak(&mut a, &mut again, &mut now, Duration::from_millis(400));
        again.handle_restarting(now + BACK, now);
        speak(&mut a, &mut again, &mut now, Duration::from_millis(100));
    }
    assert!(member(&mut a, now).is_some_and(|it| it.holdings == held()), "its time is not over");
    let mut last = machine("b", 9, now);
    last.handle_stance(Stance { back_by: Some(now + BACK), ..last.stance.clone() }, now);
    while member(&mut a, now).is_some_and(|it| !it.holdings.is_empty()) {
        speak(&mut a, &mut last, &mut now, Duration::from_millis(5));
        assert!(now < began + BACK * 2, "it restarts for ever, and is waited for");
    }
    assert!(now >= began + BACK);
}

/// Its recordings name a time too, and are believed as little as any other.
#[test]
fn a_recording_of_a_node_that_restarts_keeps_no_node_alive() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    b.handle_restarting(now + BACK, now);
    let recording = speak(&mut a, &mut b, &mut now, Duration::from_millis(50));
    until_given_up(&mut a, &mut now);
    for pulse in recording {
        a.handle_pulse(pulse, now);
    }
    assert!(!alive(&mut a, now));
}

/// Input: a node that holds addresses and does not hear this one dies without a word. Output: within its detection
/// time it is as silent as any other, with what it held; heard once more, it has to be silent in its answers for as long as before.
#[test]
fn a_node_that_does_not_hear_this_one_and_dies_is_silent_in_its_time() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let name = NodeName::from("b");
    let owner = Stance { owner: true, holdings: held(), ..b.stance.clone() };
    b.handle_stance(owner, now);
    // What b says reaches a, and nothing that a says reaches b.
    let one_way = |a: &mut Machine, b: &mut Machine, now: &mut Instant| {
        for millis in 0..2000 {
            while a.poll_pulse(*now).is_some() {}
            while let Some(pulse) = b.poll_pulse(*now) {
                assert_eq!(a.handle_pulse(pulse, *now), Outcome::Unverified);
            }
            a.poll_roster(*now);
            let is_heard = !a.roster.unproved.is_empty() || millis < 110;
            assert!(is_heard && a.roster.members.is_empty(), "{:?}", a.roster);
            *now += Duration::from_millis(1);
        }
        assert_eq!(a.roster.unproved.get(&name).map(|it| (it.deaf, it.holdings.len())), Some((true, 2)));
    };
    for _ in 0..2 {
        one_way(&mut a, &mut b, &mut now);
        let died = now;
        while a.roster.unproved.contains_key(&name) {
            now = a.next_deadline().expect("it goes on");
            count(&mut a, now);
            while a.poll_pulse(now).is_some() {}
            a.poll_roster(now);
            assert!(now < died + Duration::from_secs(60), "it is believed for ever");
        }
        assert!(now <= died + a.settings.detection(), "{:?}", now - died);
        let departed = a.roster.silent.get(&name).expect("it is dead, and did not say goodbye");
        assert_eq!(departed.holdings.keys().copied().collect::<Vec<_>>(), [address(1), address(2)]);
        assert!(!departed.suspect);
        // It is not asked any more, and nobody hurries for it.
        let asks = live(std::slice::from_mut(&mut a), &mut now, Duration::from_secs(60), |_, _| false);
        assert_eq!(asks, 0);
        // And is heard again.
        while b.poll_pulse(now).is_some() {}
    }
    // As soon as it hears this node it lives.
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    assert!(member(&mut a, now).is_some_and(|it| it.holdings == held()) && a.roster.silent.is_empty());
}

/// Input: a recording of a node that this one never knew, of a second, and then of what follows. Output: when it ends, the node is silent;
/// when it goes on, that is no proof of life.
#[test]
fn a_recording_that_goes_on_after_it_had_ended_makes_no_node_alive() {
    let mut now = START();
    let (mut b, mut c) = (machine("b", 2, now), machine("c", 3, now));
    b.handle_stance(Stance { owner: true, holdings: held(), ..b.stance.clone() }, now);
    let recording = speak(&mut c, &mut b, &mut now, Duration::from_secs(4));
    let mut a = machine("a", 4, now);
    for half in recording.chunks(recording.len() / 2) {
        for pulse in half {
            assert_eq!(a.handle_pulse(pulse.clone(), now), Outcome::Unverified);
            while a.poll_pulse(now).is_some() {}
            now += Duration::from_millis(100);
        }
        live(std::slice::from_mut(&mut a), &mut now, Duration::from_secs(4), |_, _| false);
        assert!(!alive(&mut a, now) && a.roster.unproved.is_empty());
        assert!(a.roster.silent.contains_key(&NodeName::from("b")));
    }
}

/// Input: this node hears nobody, for a moment or for hours, and then one of two again. Output: so long it may be its own
/// hearing; once it hears one, the other is silent by itself, or has long been forgotten.
#[test]
fn whether_this_node_does_not_hear_is_in_doubt_until_it_hears_somebody() {
    for hours in [0, 3] {
        let mut now = START();
        let mut all = ["a", "b", "c"].map(|name| machine(name, 1 + u64::from(name.as_bytes()[0]), now));
        for machine in &mut all {
            let owner = Stance { owner: true, ..machine.stance.clone() };
            machine.handle_stance(owner, now);
        }
        live(&mut all, &mut now, Duration::from_secs(2), |_, _| true);
        let silent = |machine: &mut Machine, now: Instant| -> Vec<(String, bool)> {
            machine.poll_roster(now);
            machine.roster.silent.iter().map(|(node, it)| (node.to_string(), it.suspect)).collect()
        };
        let both = |suspect| [("b".to_owned(), suspect), ("c".to_owned(), suspect)];
        live(&mut all, &mut now, Duration::from_secs(1), |_, to| to != 0);
        assert_eq!(silent(&mut all[0], now), both(true));
        for _ in 0..hours {
            now += Duration::from_secs(3600);
            while all[0].poll_pulse(now).is_some() {}
            assert_eq!(silent(&mut all[0], now), both(true));
        }
        live(&mut all, &mut now, Duration::from_secs(1), |from, to| to != 0 || from == 2);
        let rest = silent(&mut all[0], now);
        assert_eq!(rest, both(false)[..usize::from(hours == 0)]);
    }
}

/// Input: a node says goodbye, and nothing follows. Output: it has just left for some seconds, and then it left long ago.
#[test]
fn a_node_that_said_goodbye_has_just_left_for_some_seconds() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    b.handle_leaving(now);
    let began = now;
    speak(&mut a, &mut b, &mut now, Duration::from_secs(1));
    let just_left = |a: &mut Machine, now: Instant| {
        count(a, now);
        while a.poll_pulse(now).is_some() {}
        a.poll_roster(now);
        a.roster.left.get(&NodeName::from("b")).map(|it| it.just_left)
    };
    while just_left(&mut a, now) == Some(true) {
        now = a.next_deadline().expect("it goes on");
        assert!(now < began + Duration::from_secs(60), "it leaves for ever");
    }
    assert_eq!(just_left(&mut a, now), Some(false));
    let waited = now - began;
    assert!(waited >= LAST_WORDS && waited <= LAST_WORDS + Duration::from_millis(100), "{waited:?}");
}

/// Lets a hear two links of one node and be heard by them, as far as they pass: by link, towards a and from a.
fn on_one_wire(
    a: &mut Machine,
    links: &mut [Machine],
    pass: &[(bool, bool)],
    now: &mut Instant,
    time: Duration,
) -> Vec<Vec<Pulse>> {
    let end = *now + time;
    let mut said = vec![Vec::new(); links.len()];
    while *now < end {
        for (place, link) in links.iter_mut().enumerate() {
            while let Some(pulse) = link.poll_pulse(*now) {
                said[place].push(pulse.clone());
                if pass[place].0 {
                    a.handle_pulse(pulse, *now);
                }
            }
        }
        while let Some(pulse) = a.poll_pulse(*now) {
            for (place, link) in links.iter_mut().enumerate().filter(|(place, _)| pass[*place].1) {
                assert!(place < 2);
                link.handle_pulse(pulse.clone(), *now);
            }
        }
        a.poll_roster(*now);
        *now += Duration::from_millis(1);
    }
    said
}

/// Input: two links of a node on one wire, one of which dies, whichever began first and was heard first; it comes back and
/// the other dies; it leaves one of them, and then altogether. Output: the node lives, and holds what it holds, until the end.
#[test]
fn a_node_with_two_links_on_one_wire_lives_as_long_as_one_of_them_is_heard() {
    let both = [(true, true); 2];
    for (late, dies) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut now = START();
        let mut a = machine("a", 1, now);
        let mut links = [link_of("b", 100, 0, now), link_of("b", 100, 1, now)];
        links[1].stance.mac = MacAddress([2, 0, 0, 0, 0, 2]);
        for link in &mut links {
            let owner = Stance { owner: true, holdings: held(), ..link.stance.clone() };
            link.handle_stance(owner, now);
        }
        let mut pass = both;
        pass[late] = (false, false);
        on_one_wire(&mut a, &mut links, &pass, &mut now, Duration::from_secs(2));
        on_one_wire(&mut a, &mut links, &both, &mut now, Duration::from_secs(2));
        let lives = |a: &Machine| {
            let member =
                a.roster.members.get(&NodeName::from("b")).filter(|it| it.holdings == held() && it.holdings_known);
            assert!(member.is_some() && a.roster.silent.is_empty() && a.roster.unproved.is_empty(), "{:?}", a.roster);
            member.map(|it| (it.mac.0[5], it.other_macs.iter().map(|mac| mac.0[5]).collect::<Vec<_>>()))
        };
        let (mac, others) = lives(&a).expect("it lives");
        assert_eq!((3 - mac, others.len()), (others[0], 1), "each MAC is the node's");
        for place in [dies, 1 - dies, dies] {
            let mut pass = both;
            pass[place] = (false, false);
            for _ in 0..100 {
                on_one_wire(&mut a, &mut links, &pass, &mut now, Duration::from_millis(20));
                lives(&a);
            }
            for _ in 0..100 {
                on_one_wire(&mut a, &mut links, &both, &mut now, Duration::from_millis(20));
                lives(&a);
            }
            assert_eq!(a.roster.members.values().filter(|it| it.deaf).count(), 0);
        }
        // The cable of one is pulled and plugged in again: that link begins anew, and its first pulses have no answer yet.
        let former = links[dies].stance.clone();
        links[dies] = link_of("b", 100, 2, now);
        links[dies].handle_stance(former, now);
        for _ in 0..100 {
            on_one_wire(&mut a, &mut links, &both, &mut now, Duration::from_millis(20));
            lives(&a);
        }
        links[dies].handle_leaving(now);
        for _ in 0..50 {
            on_one_wire(&mut a, &mut links, &both, &mut now, Duration::from_millis(20));
            lives(&a);
        }
        links[1 - dies].handle_leaving(now);
        on_one_wire(&mut a, &mut links, &both, &mut now, Duration::from_millis(20));
        assert!(a.roster.members.is_empty() && a.roster.left.contains_key(&NodeName::from("b")), "{:?}", a.roster);
    }
}

/// Input: one of two links of a node on one wire does not hear. Output: the node hears, by the other.
#[test]
fn a_link_that_does_not_hear_makes_no_node_deaf_that_hears_by_another() {
    for deaf in [0, 1] {
        let mut now = START();
        let mut a = machine("a", 1, now);
        let mut links = [link_of("b", 100, 0, now), link_of("b", 100, 1, now)];
        let mut pass = [(true, true); 2];
        pass[deaf].1 = false;
        on_one_wire(&mut a, &mut links, &pass, &mut now, Duration::from_secs(1));
        for _ in 0..500 {
            on_one_wire(&mut a, &mut links, &pass, &mut now, Duration::from_millis(20));
            assert!(
                a.roster.members.contains_key(&NodeName::from("b")) && a.roster.unproved.is_empty(),
                "{:?}",
                a.roster
            );
        }
    }
}

/// Input: recordings of both links of a node, of the life that this node heard, and then of that node's former life. Output: it is dead.
#[test]
fn no_recording_of_one_of_two_links_makes_a_node_alive() {
    let mut now = START();
    let (mut former, mut a) = (machine("a", 1, now), machine("a", 2, now));
    let both = [(true, true); 2];
    let mut links = [link_of("b", 100, 0, now), link_of("b", 100, 1, now)];
    let before = on_one_wire(&mut former, &mut links, &both, &mut now, Duration::from_secs(2));
    let mut links = [link_of("b", 101, 0, now), link_of("b", 101, 1, now)];
    let mut recorded = on_one_wire(&mut a, &mut links, &both, &mut now, Duration::from_secs(2));
    // These were lost on their way, and are of a link that was never heard before.
    let mut third = [link_of("b", 101, 2, now)];
    recorded.extend(on_one_wire(&mut former, &mut third, &[(true, true)], &mut now, Duration::from_secs(2)));
    on_one_wire(&mut a, &mut [], &[], &mut now, Duration::from_secs(4));
    assert!(!alive(&mut a, now));
    for pulse in before.into_iter().flatten() {
        assert_eq!(a.handle_pulse(pulse, now), Outcome::Replayed);
    }
    for pulse in recorded.into_iter().flatten() {
        a.handle_pulse(pulse, now);
        assert!(!alive(&mut a, now));
        on_one_wire(&mut a, &mut [], &[], &mut now, Duration::from_millis(20));
        assert!(!alive(&mut a, now));
    }
}

/// Input: the carrier of the only link of a holder is away for less than its detection time, and the link begins anew. Output:
/// what it held there is free at once, and not believed until the detection time of what it said before is over.
#[test]
fn the_only_link_of_a_node_that_begins_anew_holds_nothing_of_what_it_held() {
    let mut now = START();
    let mut a = machine("a", 1, now);
    let mut links = [link_of("b", 100, 0, now)];
    links[0].handle_stance(Stance { owner: true, holdings: held(), ..links[0].stance.clone() }, now);
    on_one_wire(&mut a, &mut links, &[(true, true)], &mut now, Duration::from_secs(2));
    assert_eq!(a.roster.members.get(&NodeName::from("b")).map(|it| it.holdings.clone()), Some(held()));
    links[0] = link_of("b", 100, 1, now);
    on_one_wire(&mut a, &mut links, &[(true, true)], &mut now, Duration::from_millis(20));
    let holds = a.roster.members.values().any(|it| !it.holdings.is_empty());
    assert!(!holds, "{:?}", a.roster);
}

/// Input: three nodes; one of them receives nothing any more, what it sends passes. Output: it says so, and the others count it
/// as silent with what it held, for as long as it says so; it is alive at once when it hears again.
#[test]
fn a_node_that_receives_nothing_says_so_and_is_as_good_as_silent_to_those_that_hear_it() {
    let mut now = START();
    let mut nodes = [machine("a", 1, now), machine("b", 2, now), machine("c", 3, now)];
    let held = [("192.0.2.1".parse::<IpAddr>().unwrap(), Holding { weight: 0, stage: Stage::Holds })];
    let mut stance = nodes[1].stance.clone();
    (stance.owner, stance.holdings) = (true, held.into_iter().collect());
    nodes[1].handle_stance(stance, now);
    let mut rosters = [Roster::default(), Roster::default(), Roster::default()];
    let mut frames = 0;
    let mut pass = |nodes: &mut [Machine; 3], rosters: &mut [Roster; 3], time: u64, deaf: bool| {
        for _ in 0..time {
            for from in 0..3 {
                while let Some(pulse) = nodes[from].poll_pulse(now) {
                    for to in (0..3).filter(|to| *to != from && !(deaf && *to == 1)) {
                        frames += u64::from(to == 1);
                        nodes[to].handle_pulse(pulse.clone(), now);
                    }
                }
            }
            for (node, roster) in nodes.iter_mut().zip(rosters.iter_mut()) {
                if node.wants_count(now) {
                    node.handle_received(Some(frames), false, now);
                }
                if let Some(newest) = node.poll_roster(now) {
                    *roster = newest;
                }
            }
            now += Duration::from_millis(1);
        }
    };
    let b = NodeName::from("b");
    pass(&mut nodes, &mut rosters, 3000, false);
    assert!(rosters[0].members.contains_key(&b) && rosters[2].members.contains_key(&b));
    pass(&mut nodes, &mut rosters, 4500, true);
    for roster in &rosters {
        assert!(roster.receive_nothing.contains(&b), "{roster:?}");
    }
    for roster in [&rosters[0], &rosters[2]] {
        assert!(!roster.members.contains_key(&b) && roster.unproved.is_empty(), "{roster:?}");
        assert_eq!(roster.silent[&b].holdings.len(), 1);
        assert_eq!(roster.members.len(), 1, "the two hear each other");
    }
    pass(&mut nodes, &mut rosters, 1500, false);
    for roster in &rosters {
        assert!(roster.receive_nothing.is_empty() && roster.members.len() == 2, "{roster:?}");
    }
}

/// A node told what it announces over BGP at 74 addresses a second. Input: 10,000 addresses, of which it ceases to announce
/// every second one, and one datagram of seven is lost. Output: who hears it knows them all within four seconds.
#[test]
fn what_one_ceases_to_announce_over_bgp_is_known_soon_by_all() {
    let mut now = START();
    let (mut a, mut b) = (machine("a", 1, now), machine("b", 2, now));
    let all: BTreeSet<IpAddr> = (0..10_000_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
    let half: BTreeSet<IpAddr> = all.iter().copied().step_by(2).collect();
    let known = |a: &mut Machine, now| {
        a.roster_moved = true;
        a.poll_roster(now);
        let b = a.roster.members.get(&NodeName::from("b"));
        b.and_then(|member| member.over_bgp.clone()).unwrap_or_default()
    };
    for announced in [&all, &half] {
        b.handle_stance(Stance { over_bgp: Some(Arc::new(announced.clone())), ..b.stance.clone() }, now);
        let began = now;
        let mut said = 0;
        while *known(&mut a, now) != *announced {
            assert!(now - began < Duration::from_secs(8), "{} are known", known(&mut a, now).len());
            for _ in 0..10 {
                while let Some(pulse) = a.poll_pulse(now) {
                    b.handle_pulse(pulse, now);
                }
                while let Some(pulse) = b.poll_pulse(now) {
                    said += 1;
                    if said % 7 != 3 {
                        a.handle_pulse(pulse, now);
                    }
                }
                now += Duration::from_millis(5);
            }
        }
    }
    let calm = now;
    let mut said = 0;
    while now < calm + Duration::from_secs(20) {
        said += usize::from(b.poll_pulse(now).is_some());
        now += Duration::from_millis(10);
    }
    assert!(said < 200, "it goes on hurrying: {said}");
}
