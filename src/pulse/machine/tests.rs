use std::num::NonZeroU8;

use super::*;

const START: fn() -> Instant = crate::clock::now;

fn machine(name: &str, incarnation: u64, now: Instant) -> Machine {
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
    };
    Machine::new(name.into(), settings, Incarnations { first: incarnation, this: incarnation }, stance, now)
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
