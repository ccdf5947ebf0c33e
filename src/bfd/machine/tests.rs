//! The whole table of states, and what RFC 5880 §6.8 asks of one end.

use std::num::NonZeroU8;

use super::*;
use crate::bfd::authentication::Key;
use crate::bfd::packet::LONGEST_INTERVAL;
use crate::clock;

const OURS: NonZeroU32 = NonZeroU32::new(2).unwrap();
const THEIRS: NonZeroU32 = NonZeroU32::MIN;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn settings() -> Settings {
    Settings {
        transmit_interval: millis(50),
        receive_interval: millis(60),
        multiplier: NonZeroU8::new(3).unwrap(),
        passive: false,
        key: None,
        old_key: None,
    }
}

/// What the peer says: 300 ms both ways, three times, as the vectors of the founders have it.
pub(in crate::bfd) fn heard(state: BfdState) -> Packet {
    Packet {
        diagnostic: Diagnostic::None,
        state,
        poll: false,
        fin: false,
        control_plane_independent: false,
        demand: false,
        multiplier: NonZeroU8::new(3).unwrap(),
        my_discriminator: THEIRS,
        your_discriminator: Some(OURS),
        desired_min_tx: millis(300),
        required_min_rx: millis(300),
        required_min_echo_rx: Duration::ZERO,
        authentication: None,
    }
}

struct Bench {
    session: Session,
    start: Instant,
    now: Instant,
}

impl Bench {
    fn with(settings: Settings) -> Bench {
        let now = clock::now();
        Bench { session: Session::new(settings, OURS, 7, now), start: now, now }
    }

    fn new() -> Bench {
        Bench::with(settings())
    }

    fn hears(&mut self, packet: &Packet) -> Result<Option<Action>, Discard> {
        self.session.handle_packet(packet, &packet.emit(None), self.now)
    }

    /// The session in this state, with nothing left to say.
    fn at(state: BfdState) -> Bench {
        let mut bench = Bench::new();
        match state {
            BfdState::Down => {}
            BfdState::AdminDown => drop(bench.session.handle_admin_down(bench.now)),
            BfdState::Init => drop(bench.hears(&heard(BfdState::Down))),
            BfdState::Up => {
                bench.hears(&heard(BfdState::Init)).expect("a good packet");
                bench.pass(millis(20));
                let answer = Packet { fin: true, ..heard(BfdState::Up) };
                bench.hears(&answer).expect("a good packet");
            }
        }
        bench.pass(millis(20));
        assert_eq!(bench.session.state(), state);
        bench
    }

    /// Lets time pass from deadline to deadline; the packets that were sent, with their time in milliseconds.
    fn pass(&mut self, time: Duration) -> Vec<(u128, Packet)> {
        let end = self.now + time;
        let mut sent = Vec::new();
        loop {
            for action in self.session.handle_timeout(self.now) {
                if let Action::Send(packet) = action {
                    sent.push(((self.now - self.start).as_millis(), packet));
                }
            }
            match self.session.next_deadline() {
                Some(next) if next <= end => {
                    assert!(next > self.now, "what was due has been done");
                    self.now = next;
                }
                Some(_) | None => break,
            }
        }
        self.now = end;
        sent
    }
}

#[test]
fn every_state_follows_every_state_of_the_peer_as_the_rfc_says() {
    use BfdState::{AdminDown, Down, Init, Up};
    // Our state, theirs, our state after it. RFC 5880 §6.2, §6.8.6.
    let table = [
        (Down, AdminDown, Down),
        (Down, Down, Init),
        (Down, Init, Up),
        (Down, Up, Down),
        (Init, AdminDown, Down),
        (Init, Down, Init),
        (Init, Init, Up),
        (Init, Up, Up),
        (Up, AdminDown, Down),
        (Up, Down, Down),
        (Up, Init, Up),
        (Up, Up, Up),
    ];
    for (ours, theirs, after) in table {
        let mut bench = Bench::at(ours);
        let action = bench.hears(&heard(theirs)).expect("a good packet");
        assert_eq!(bench.session.state(), after, "{ours} hears {theirs}");
        let changed =
            matches!(action, Some(Action::Changed { before, after: now, .. }) if before == ours && now == after);
        assert_eq!(changed, ours != after, "{ours} hears {theirs}: {action:?}");
        let signaled = after == Down && ours != Down;
        let diagnostic = if signaled { Diagnostic::NeighborSignaledDown } else { Diagnostic::None };
        assert_eq!(bench.session.diagnostic(), diagnostic, "{ours} hears {theirs}");
        if let Some(Action::Changed { cause, .. }) = action {
            assert_eq!(cause.is_loss(), theirs == Down && signaled, "only Down is a loss: {cause:?}");
        }
    }
    for theirs in [AdminDown, Down, Init, Up] {
        assert_eq!(Bench::at(AdminDown).hears(&heard(theirs)), Err(Discard::AdminDown));
    }
}

#[test]
fn a_packet_for_another_session_or_for_none_changes_nothing() {
    use BfdState::{AdminDown, Down, Init, Up};
    let other = Packet { your_discriminator: NonZeroU32::new(99), ..heard(Down) };
    let nobody = |state| Packet { your_discriminator: None, ..heard(state) };
    for (packet, discard) in [
        (other, Discard::UnknownDiscriminator),
        (nobody(Up), Discard::YourDiscriminator),
        (nobody(Init), Discard::YourDiscriminator),
        (Packet { authentication: Some(Authentication::Other(1)), ..heard(Down) }, Discard::UnexpectedAuthentication),
    ] {
        let mut bench = Bench::at(Up);
        let before = *bench.session.remote();
        assert_eq!(bench.hears(&packet), Err(discard), "{packet}");
        assert_eq!((bench.session.state(), *bench.session.remote()), (Up, before), "{packet}");
    }
    for state in [Down, AdminDown] {
        assert!(Bench::at(Up).hears(&nobody(state)).is_ok(), "a peer that has restarted does not know us: {state}");
    }
}

#[test]
fn silence_for_the_time_that_the_peers_multiplier_makes_ends_the_session() {
    let mut bench = Bench::at(BfdState::Up);
    // Our 60 ms, but their 300 ms, three times.
    assert_eq!(bench.session.detection_time(), Some(millis(900)));
    let mut last = heard(BfdState::Up);
    last.multiplier = NonZeroU8::new(5).unwrap();
    last.desired_min_tx = millis(10);
    bench.hears(&last).unwrap();
    assert_eq!(bench.session.detection_time(), Some(millis(300)), "five times our 60 ms");
    bench.pass(millis(299));
    assert_eq!(bench.session.state(), BfdState::Up);
    bench.pass(millis(1));
    assert_eq!((bench.session.state(), bench.session.diagnostic()), (BfdState::Down, Diagnostic::DetectionTimeExpired));
    assert_eq!(bench.session.remote().discriminator, None, "RFC 5880 §6.8.1: what the peer said is forgotten");
}

#[test]
fn a_packet_that_waits_in_the_socket_counts_before_the_silence_does() {
    let mut bench = Bench::at(BfdState::Up);
    bench.now += Duration::from_secs(60);
    bench.hears(&heard(BfdState::Up)).unwrap();
    assert!(bench.session.handle_timeout(bench.now).iter().all(|action| matches!(action, Action::Send(_))));
    assert_eq!(bench.session.state(), BfdState::Up);
}

#[test]
fn packets_are_sent_at_the_slower_rate_of_both_ends_with_jitter() {
    for (multiplier, least, most) in [(3, 225, 300), (1, 225, 270)] {
        let mut bench = Bench::with(Settings { multiplier: NonZeroU8::new(multiplier).unwrap(), ..settings() });
        bench.hears(&heard(BfdState::Init)).unwrap();
        let mut times = Vec::new();
        for _ in 0..200 {
            let state = Packet { fin: true, ..heard(BfdState::Up) };
            bench.hears(&state).unwrap();
            times.extend(bench.pass(millis(100)).into_iter().map(|(at, _)| at));
        }
        let pauses: Vec<u128> = times.windows(2).skip(3).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (least - 1..=most).contains(pause)), "x {multiplier}: {pauses:?}");
        let spread = pauses.iter().max().unwrap() - pauses.iter().min().unwrap();
        assert!(spread > 20, "x {multiplier}: jitter is random: {pauses:?}");
    }
}

#[test]
fn a_session_that_is_not_up_sends_once_a_second_at_most_and_says_so() {
    let mut bench = Bench::new();
    let sent = bench.pass(Duration::from_secs(60));
    assert!((60..=80).contains(&sent.len()), "{} in a minute", sent.len());
    assert!(sent.iter().all(|(_, packet)| packet.desired_min_tx == SLOW && packet.your_discriminator.is_none()));
    assert!(sent.iter().all(|(_, packet)| packet.required_min_echo_rx.is_zero() && !packet.demand));
}

#[test]
fn a_passive_end_is_silent_until_it_is_spoken_to() {
    let mut bench = Bench::with(Settings { passive: true, ..settings() });
    assert_eq!(bench.pass(Duration::from_secs(600)), []);
    assert_eq!(bench.session.next_deadline(), None);
    let call = Packet { your_discriminator: None, ..heard(BfdState::Down) };
    bench.hears(&call).unwrap();
    let sent = bench.pass(millis(1));
    assert_eq!(sent.iter().map(|(_, packet)| packet.state).collect::<Vec<_>>(), [BfdState::Init]);
}

#[test]
fn a_poll_is_answered_at_once_in_any_state_and_a_flood_of_them_not_without_limit() {
    for state in [BfdState::Down, BfdState::Init, BfdState::Up] {
        let mut bench = Bench::at(state);
        let poll = Packet { poll: true, ..heard(if state == BfdState::Down { BfdState::Up } else { state }) };
        bench.hears(&poll).unwrap();
        let sent = bench.session.handle_timeout(bench.now);
        let Some(Action::Send(answer)) = sent.first() else { panic!("{state}: {sent:?}") };
        assert!(answer.fin && !answer.poll, "{state}: {answer}");
    }
    let mut bench = Bench::at(BfdState::Up);
    let mut answers = 0;
    for _ in 0..10_000 {
        bench.hears(&Packet { poll: true, ..heard(BfdState::Up) }).unwrap();
        answers += bench.pass(Duration::from_micros(100)).iter().filter(|(_, packet)| packet.fin).count();
    }
    assert!((150..=201).contains(&answers), "{answers} in a second");
}

#[test]
fn a_peer_that_wants_no_packets_gets_none_and_the_session_stays() {
    let mut bench = Bench::at(BfdState::Up);
    let none = Packet { required_min_rx: Duration::ZERO, ..heard(BfdState::Up) };
    for _ in 0..100 {
        bench.hears(&none).unwrap();
        assert_eq!(bench.pass(millis(300)), []);
    }
    let demand = Packet { demand: true, ..heard(BfdState::Up) };
    for _ in 0..100 {
        bench.hears(&demand).unwrap();
        assert_eq!(bench.pass(millis(300)), []);
    }
    assert_eq!(bench.session.state(), BfdState::Up);
    bench.hears(&Packet { poll: true, ..demand }).unwrap();
    assert_eq!(bench.pass(millis(1)).len(), 1, "it asks, and is answered");
    bench.hears(&heard(BfdState::Up)).unwrap();
    assert!(!bench.pass(millis(300)).is_empty());
}

#[test]
fn a_peer_that_wanted_no_packets_and_vanished_is_called_again() {
    let mut bench = Bench::at(BfdState::Up);
    bench.hears(&Packet { required_min_rx: Duration::ZERO, ..heard(BfdState::Up) }).unwrap();
    let sent = bench.pass(Duration::from_secs(5));
    assert!(sent.len() >= 4, "{sent:?}");
    assert!(sent.iter().skip(1).all(|(_, packet)| packet.your_discriminator.is_none()));
}

#[test]
fn what_makes_packets_rarer_is_done_only_once_the_peer_knows() {
    let mut bench = Bench::at(BfdState::Up);
    bench.hears(&Packet { required_min_rx: millis(10), ..heard(BfdState::Up) }).unwrap();
    let rarer = Settings { transmit_interval: millis(200), receive_interval: millis(20), ..settings() };
    bench.session.handle_settings(rarer, bench.now);
    assert_eq!(bench.session.transmit_interval(), Some(millis(50)), "we send as often as before");
    let fast = Packet { required_min_rx: millis(10), desired_min_tx: millis(10), ..heard(BfdState::Up) };
    bench.hears(&fast).unwrap();
    assert_eq!(bench.session.detection_time(), Some(millis(180)), "the peer may still send as rarely as before");
    let sent = bench.pass(millis(40));
    assert!(sent.iter().all(|(_, packet)| packet.poll), "{sent:?}");
    assert_eq!((sent[0].1.desired_min_tx, sent[0].1.required_min_rx), (millis(200), millis(20)));
    bench.hears(&Packet { fin: true, ..fast }).unwrap();
    assert_eq!(bench.session.transmit_interval(), Some(millis(200)));
    assert_eq!(bench.session.detection_time(), Some(millis(60)));
    assert!(bench.pass(millis(50)).iter().all(|(_, packet)| !packet.poll));
    // And what makes them more frequent, at once.
    let more = Settings { transmit_interval: millis(20), receive_interval: millis(100), ..settings() };
    bench.session.handle_settings(more, bench.now);
    assert_eq!(bench.session.transmit_interval(), Some(millis(20)));
    assert_eq!(bench.session.detection_time(), Some(millis(300)));
}

#[test]
fn a_change_during_a_poll_is_told_by_another_one() {
    let mut bench = Bench::at(BfdState::Up);
    for transmit in [100, 150, 200] {
        let settings = Settings { transmit_interval: millis(transmit), ..settings() };
        bench.session.handle_settings(settings, bench.now);
    }
    bench.hears(&Packet { fin: true, ..heard(BfdState::Up) }).unwrap();
    assert_eq!(bench.session.transmit_interval(), Some(millis(300)), "the peer accepts no more anyway");
    let sent = bench.pass(millis(300));
    assert!(sent.iter().all(|(_, packet)| packet.poll), "the answer may be to the first values: {sent:?}");
    bench.hears(&Packet { fin: true, ..heard(BfdState::Up) }).unwrap();
    assert!(bench.pass(millis(600)).iter().all(|(_, packet)| !packet.poll));
}

#[test]
fn held_down_the_peer_is_told_at_once() {
    let mut bench = Bench::at(BfdState::Up);
    let action = bench.session.handle_admin_down(bench.now);
    assert!(matches!(action, Some(Action::Changed { cause: Cause::AdminDown, .. })), "{action:?}");
    let sent = bench.pass(millis(10));
    let said: Vec<_> = sent.iter().map(|(_, packet)| (packet.state, packet.diagnostic)).collect();
    assert_eq!(said, [(BfdState::AdminDown, Diagnostic::AdministrativelyDown)]);
}

fn keyed(meticulous: bool) -> Settings {
    Settings { key: Key::new(b"of-both", meticulous, 5), ..settings() }
}

#[test]
fn only_packets_with_the_key_and_a_new_number_are_taken() {
    let key = Key::new(b"of-both", true, 5).unwrap();
    let section = |sequence| Some(Authentication::Sha1(Sha1 { meticulous: true, key_id: 5, sequence }));
    let mut bench = Bench::with(keyed(true));
    let mut says = |packet: Packet, key: Option<&Key>| {
        let octets = packet.emit(key);
        let read = Packet::parse(&octets).expect("a packet");
        bench.session.handle_packet(&read, &octets, bench.now).map(|_| ())
    };
    let down = heard(BfdState::Down);
    assert_eq!(says(down, None), Err(Discard::Unauthenticated));
    let other = Key::new(b"of-none", true, 5);
    assert_eq!(says(Packet { authentication: section(900), ..down }, other.as_ref()), Err(Discard::Forged));
    let other_id = Some(Authentication::Sha1(Sha1 { meticulous: true, key_id: 6, sequence: 1 }));
    assert_eq!(says(Packet { authentication: other_id, ..down }, Some(&key)), Err(Discard::AuthenticationType));
    assert_eq!(says(Packet { authentication: section(1), ..down }, Some(&key)), Ok(()), "a forgery has moved nothing");
    assert_eq!(says(Packet { authentication: section(1), ..down }, Some(&key)), Err(Discard::Replayed));
    assert_eq!(
        says(Packet { authentication: section(11), ..down }, Some(&key)),
        Err(Discard::Replayed),
        "too far ahead"
    );
    assert_eq!(says(Packet { authentication: section(10), ..down }, Some(&key)), Ok(()));
}

#[test]
fn a_meticulous_end_counts_every_packet_and_another_one_every_change() {
    for meticulous in [true, false] {
        let mut bench = Bench::with(keyed(meticulous));
        let sent = bench.pass(Duration::from_secs(10));
        let numbers: Vec<u32> = sent
            .iter()
            .filter_map(|(_, packet)| match packet.authentication {
                Some(Authentication::Sha1(section)) => Some(section.sequence),
                Some(Authentication::Other(_)) | None => None,
            })
            .collect();
        assert_eq!(numbers.len(), sent.len());
        let step = u32::from(meticulous);
        assert!(numbers.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step), "{meticulous}: {numbers:?}");
    }
}

#[test]
fn the_longest_intervals_overflow_nothing() {
    let mut bench = Bench::at(BfdState::Up);
    let slow = Packet {
        desired_min_tx: LONGEST_INTERVAL,
        required_min_rx: LONGEST_INTERVAL,
        multiplier: NonZeroU8::MAX,
        ..heard(BfdState::Up)
    };
    bench.hears(&slow).unwrap();
    assert_eq!(bench.session.detection_time(), Some(LONGEST_INTERVAL * 255));
    assert_eq!(bench.session.transmit_interval(), Some(LONGEST_INTERVAL));
    bench.pass(Duration::from_secs(1));
}

/// Two ends without a wire between them: what one says the other hears at once, for as long as this.
fn talk(mut ends: [&mut Session; 2], now: &mut Instant, time: Duration) -> Vec<Action> {
    let until = *now + time;
    let mut changes = Vec::new();
    while *now < until {
        for _ in 0..4 {
            let said = ends[0].handle_timeout(*now);
            for action in said {
                match action {
                    Action::Send(packet) => {
                        let octets = packet.emit(ends[0].key());
                        changes.extend(ends[1].handle_packet(&packet, &octets, *now).expect("it is taken"));
                    }
                    changed @ Action::Changed { .. } => changes.push(changed),
                }
            }
            ends.reverse();
        }
        *now += millis(1);
    }
    changes
}

#[test]
fn a_peer_that_was_asked_to_wait_notices_nothing_of_a_pause_and_has_the_former_times_after_it() {
    for key in [None, Key::new(b"secret", true, 1)] {
        let mut now = clock::now();
        let settings = Settings { key, ..settings() };
        let mut ours = Session::new(settings.clone(), OURS, 1, now);
        let mut theirs = Session::new(settings.clone(), THEIRS, 2, now);
        talk([&mut ours, &mut theirs], &mut now, millis(3000));
        assert_eq!((ours.state(), theirs.state()), (BfdState::Up, BfdState::Up));
        let before = theirs.detection_time();

        ours.handle_rest(Duration::from_secs(10), now);
        assert_eq!(ours.standing(), None, "the peer has not agreed yet");
        assert_eq!(talk([&mut ours, &mut theirs], &mut now, millis(200)), []);
        let standing = ours.standing().expect("it has");
        assert!(theirs.detection_time() >= Some(Duration::from_secs(9)), "{:?}", theirs.detection_time());

        // Nobody runs.
        let pause = now + Duration::from_secs(5);
        while now < pause {
            now += millis(1);
            let said = theirs.handle_timeout(now);
            assert!(said.iter().all(|action| matches!(action, Action::Send(_))), "{said:?}");
        }
        let text = serde_json::to_string(&standing).expect("it has a form in JSON");
        let standing = serde_json::from_str(&text).expect("it is read as it was written");
        let mut next = Session::resumed(settings, standing, Duration::ZERO, 3, now);
        assert_eq!(talk([&mut next, &mut theirs], &mut now, millis(2000)), [], "neither end has changed its state");
        assert_eq!((next.state(), theirs.state()), (BfdState::Up, BfdState::Up));
        assert_eq!(theirs.detection_time(), before, "the profile's times count again");

        // And a dead path is found again by the new one.
        let lost = now + millis(300);
        let mut changes = Vec::new();
        while now < lost {
            now += millis(1);
            changes.extend(next.handle_timeout(now));
        }
        assert!(changes.iter().any(|action| matches!(action, Action::Changed { after: BfdState::Down, .. })));
    }
}
