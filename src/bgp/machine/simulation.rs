//! Two peerings against each other on one virtual clock, over a network that delays, loses and resets; and random
//! sequences of events with invariants after each.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::Ipv4Addr;

use bytes::BytesMut;
use fastrand::Rng;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::tests::{RETRY, offer};
use super::*;
use crate::bgp::wire::{ExpectedAsn, HeaderFault, Open, OpenError, ParsedUpdate, RefreshKind, RouteRefresh, Update};

/// What a network does to what is sent over it.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// The longest time that a segment takes; the shortest is a tenth of it.
    delay: Duration,
    /// How many of a thousand dials are lost: nobody ever answers them.
    lost_dials: u32,
    /// How many of the others are refused at once.
    refused_dials: u32,
    /// How many of the others are so late that the dialler may have given up: another dial overtakes them.
    late_dials: u32,
    /// How many of the others are answered, and the dialler never hears of it: the other end alone has a connection.
    half_open: u32,
    /// How many of a thousand segments reset their connection instead of arriving.
    resets: u32,
}

/// What arrives at an end of the network.
#[derive(Debug, Clone)]
enum Arrival {
    /// A dial's first segment.
    Dial(ConnectionId),
    /// The answer to it.
    Answer(ConnectionId),
    /// The other answer.
    Refusal(ConnectionId),
    Octets(Pipe, BytesMut),
    /// The other end has closed, after its last word was read.
    Closed(Pipe),
}

/// One TCP connection, by the dial that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pipe {
    dialler: usize,
    dial: ConnectionId,
}

/// Two peerings and the network between them.
struct Town {
    ends: [Peering; 2],
    start: Instant,
    now: Instant,
    rng: Rng,
    weather: Weather,
    /// By time, then by order of sending.
    in_flight: BinaryHeap<Reverse<(Instant, u64)>>,
    letters: BTreeMap<u64, (usize, Arrival)>,
    next_letter: u64,
    /// What each end calls a pipe; gone when that end has closed it.
    names: [BTreeMap<Pipe, ConnectionId>; 2],
    /// TCP keeps the order: nothing arrives on a pipe before what was sent earlier.
    arrived_until: BTreeMap<(Pipe, usize), Instant>,
    /// Nothing that is sent on these arrives.
    half_open: BTreeSet<Pipe>,
    /// Sessions that came up, at either end.
    ups: u32,
}

impl Weather {
    fn calm(delay: Duration) -> Weather {
        Weather { delay, lost_dials: 0, refused_dials: 0, late_dials: 0, half_open: 0, resets: 0 }
    }
}

impl Town {
    fn new(seed: u64, weather: Weather) -> Town {
        let mut rng = Rng::with_seed(seed);
        let start = crate::clock::now();
        let identifiers = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        // Every fourth pair is distinguished by the AS number alone.
        let ours = |end: usize| LocalOffer {
            local_asn: [65001, 65002][end],
            expected_asn: ExpectedAsn::Is([65002, 65001][end]),
            identifier: if seed.is_multiple_of(4) { identifiers[0] } else { identifiers[end] },
            ..offer()
        };
        let ends = [0, 1].map(|end| {
            let born = start + Duration::from_micros(rng.u64(0..1000));
            Peering::new(ours(end), rng.u64(..), born)
        });
        Town {
            ends,
            start,
            now: start,
            rng,
            weather,
            in_flight: BinaryHeap::new(),
            letters: BTreeMap::new(),
            next_letter: 0,
            names: [BTreeMap::new(), BTreeMap::new()],
            arrived_until: BTreeMap::new(),
            half_open: BTreeSet::new(),
            ups: 0,
        }
    }

    /// Serves timers and arrivals until `end`.
    fn run_until(&mut self, end: Instant) {
        loop {
            let arrival = self.in_flight.peek().map(|Reverse((at, _))| *at);
            let timer = (0..2).filter_map(|end| Some((self.ends[end].next_deadline()?, end))).min();
            let next = [arrival, timer.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if let Some((at, side)) = timer
                && at == next
            {
                let actions = self.ends[side].handle_timeout(self.now);
                self.carry_out(side, actions);
                assert!(self.ends[side].next_deadline() != Some(at), "a served timer must move: {:?}", self.ends[side]);
            } else if let Some(Reverse((_, letter))) = self.in_flight.pop() {
                let (side, arrival) = self.letters.remove(&letter).expect("every letter has its content");
                self.arrive(side, arrival);
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, at: usize, arrival: Arrival) {
        let now = self.now;
        match arrival {
            Arrival::Dial(dial) => {
                let pipe = Pipe { dialler: 1 - at, dial };
                let (id, actions) = self.ends[at].handle_accepted(now);
                self.names[at].insert(pipe, id);
                if self.chance(self.weather.half_open) {
                    self.half_open.insert(pipe);
                } else {
                    self.send(1 - at, pipe, Arrival::Answer(dial));
                }
                self.carry_out(at, actions);
            }
            Arrival::Answer(dial) => {
                let pipe = Pipe { dialler: at, dial };
                let actions = self.ends[at].handle_connected(dial, now);
                if actions.is_empty() {
                    // Given up meanwhile: the handshake is done at the other end, and then comes a reset.
                    self.send(1 - at, pipe, Arrival::Closed(pipe));
                } else {
                    self.names[at].insert(pipe, dial);
                }
                self.carry_out(at, actions);
            }
            Arrival::Refusal(dial) => {
                let actions = self.ends[at].handle_dial_failed(dial, "refused".to_owned(), now);
                self.carry_out(at, actions);
            }
            Arrival::Octets(pipe, mut octets) => {
                if let Some(id) = self.names[at].get(&pipe).copied() {
                    let frame = Frame::parse(&mut octets, self.ends[at].max_message_len(id));
                    let frame = frame.expect("crier writes good headers").expect("a whole message was sent");
                    let actions = self.ends[at].handle_frame(id, &frame, now);
                    self.carry_out(at, actions);
                }
            }
            Arrival::Closed(pipe) => {
                if let Some(id) = self.names[at].remove(&pipe) {
                    let actions = self.ends[at].handle_lost(id, "closed".to_owned(), now);
                    self.carry_out(at, actions);
                }
            }
        }
    }

    fn carry_out(&mut self, side: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(dial) => {
                    let pipe = Pipe { dialler: side, dial };
                    let Weather { delay, lost_dials, refused_dials, late_dials, .. } = self.weather;
                    if self.chance(lost_dials) {
                        continue;
                    }
                    if self.chance(refused_dials) {
                        self.send(side, pipe, Arrival::Refusal(dial));
                        continue;
                    }
                    self.weather.delay = if self.chance(late_dials) { 3 * RETRY } else { delay };
                    self.send(1 - side, pipe, Arrival::Dial(dial));
                    self.weather.delay = delay;
                }
                Action::Send(id, message) => {
                    self.ends[side].handle_sent(id, self.now);
                    self.say(side, id, message);
                }
                Action::Close { connection, last_word } => {
                    if let Some(word) = last_word {
                        self.say(side, connection, Message::Notification(word));
                    }
                    let pipe = self.names[side].iter().find(|(_, id)| **id == connection).map(|(pipe, _)| *pipe);
                    if let Some(pipe) = pipe {
                        self.names[side].remove(&pipe);
                        self.send(1 - side, pipe, Arrival::Closed(pipe));
                    }
                }
                Action::Up { .. } => self.ups += 1,
                Action::Down { .. }
                | Action::Failed { .. }
                | Action::Withheld { .. }
                | Action::Refresh { .. }
                | Action::Ignored { .. } => {}
                // The other end of the simulated network answers as long as there is one.
                Action::Prove { connection, .. } => {
                    let actions = self.ends[side].handle_proof(connection, true, self.now);
                    self.carry_out(side, actions);
                }
            }
        }
    }

    fn say(&mut self, side: usize, id: ConnectionId, message: Message) {
        let pipe = self.names[side].iter().find(|(_, name)| **name == id).map(|(pipe, _)| *pipe);
        let Some(pipe) = pipe else { return };
        if self.rng.u32(0..1000) < self.weather.resets {
            self.send(side, pipe, Arrival::Closed(pipe));
            self.send(1 - side, pipe, Arrival::Closed(pipe));
        } else {
            let mut octets = BytesMut::new();
            message.emit(&Dialect::BEFORE_OPEN, &mut octets).expect("a short message fits");
            self.send(1 - side, pipe, Arrival::Octets(pipe, octets));
        }
    }

    /// One that comes true so many times of a thousand.
    fn chance(&mut self, of_a_thousand: u32) -> bool {
        self.rng.u32(0..1000) < of_a_thousand
    }

    fn send(&mut self, to: usize, pipe: Pipe, arrival: Arrival) {
        if self.half_open.contains(&pipe) {
            return;
        }
        let delay = self.weather.delay * self.rng.u32(100..=1000) / 1000;
        let earliest = self.arrived_until.entry((pipe, to)).or_insert(self.now);
        *earliest = (*earliest).max(self.now + delay);
        self.next_letter += 1;
        self.in_flight.push(Reverse((*earliest, self.next_letter)));
        self.letters.insert(self.next_letter, (to, arrival));
    }

    fn established(&self) -> [usize; 2] {
        [0, 1].map(|side| {
            let established = |connection: &&Connection| connection.session.state() == SessionState::Established;
            self.ends[side].connections.iter().filter(established).count()
        })
    }

    /// The pipe that the established session of this side runs on.
    fn session_pipe(&self, side: usize) -> Option<Pipe> {
        let id = self.ends[side].established()?.id;
        self.names[side].iter().find(|(_, name)| **name == id).map(|(pipe, _)| *pipe)
    }
}

/// X16.
#[test]
fn two_ends_that_start_within_a_millisecond_have_one_session_within_one_connect_retry_time() {
    for seed in 0..1000 {
        for delay_micros in [100, 1_000, 10_000, 100_000] {
            let weather = Weather::calm(Duration::from_micros(delay_micros));
            let mut town = Town::new(seed, weather);
            while town.established() != [1, 1] {
                town.run_until(town.now + Duration::from_millis(10));
                assert!(town.now - town.start <= RETRY, "seed {seed}, {weather:?}: {:?}", town.ends);
            }
            let ups = town.ups;
            town.run_until(town.now + Duration::from_secs(200));
            assert_eq!(town.established(), [1, 1], "seed {seed}, {weather:?}: it stays");
            assert_eq!(town.ups, ups, "seed {seed}, {weather:?}: it is the same session all the time");
            assert_eq!(town.session_pipe(0), town.session_pipe(1), "seed {seed}: both mean the same connection");
            assert_eq!(
                town.ends.each_ref().map(|end| end.connections.len()),
                [1, 1],
                "seed {seed}: nothing is left over"
            );
        }
    }
}

#[test]
fn over_a_network_that_loses_dials_and_resets_connections_the_session_comes_up_all_the_same() {
    for seed in 0..1000 {
        let storm = Weather { lost_dials: 300, resets: 100, ..Weather::calm(Duration::from_millis(200)) };
        let mut town = Town::new(seed, storm);
        town.run_until(town.start + Duration::from_secs(120));
        town.weather = Weather::calm(storm.delay);
        // The longest pause that repeated failures earn, and two rounds of dialling.
        town.run_until(town.now + LONGEST_IDLE_HOLD_TIME + 2 * RETRY);
        assert_eq!(town.established(), [1, 1], "seed {seed}: {:?}", town.ends);
        assert_eq!(town.session_pipe(0), town.session_pipe(1), "seed {seed}: both mean the same connection");
    }
}

#[test]
fn dials_that_fail_come_late_or_stay_half_open_keep_two_ends_apart_no_longer_than_they_last() {
    let mut half_open = 0;
    for seed in 0..1000 {
        let storm = Weather {
            lost_dials: 100,
            refused_dials: 200,
            late_dials: 200,
            half_open: 300,
            ..Weather::calm(Duration::from_millis(50))
        };
        let mut town = Town::new(seed, storm);
        // A session that comes up in such weather is a good one: nothing else is wrong.
        while town.established() != [1, 1] && town.now - town.start < Duration::from_secs(60) {
            town.run_until(town.now + Duration::from_millis(100));
        }
        half_open += town.half_open.len();
        town.weather = Weather::calm(storm.delay);
        town.run_until(town.now + LONGEST_IDLE_HOLD_TIME + 5 * RETRY);
        assert_eq!(town.established(), [1, 1], "seed {seed}: {:?}", town.ends);
        assert_eq!(town.session_pipe(0), town.session_pipe(1), "seed {seed}: both mean the same connection");
        // What is half open is given up when nothing was heard on it for the hold time of OpenSent, and takes nothing with it.
        let ups = town.ups;
        town.run_until(town.now + Duration::from_secs(300));
        assert_eq!((town.ups, town.established()), (ups, [1, 1]), "seed {seed}: it is the same session all the time");
        assert_eq!(town.ends.each_ref().map(|end| end.connections.len()), [1, 1], "seed {seed}: nothing is left over");
    }
    assert!(half_open > 300, "the weather was bad: {half_open} half-open connections");
}

#[test]
fn a_cut_cable_is_noticed_within_the_hold_time_and_the_session_returns() {
    let calm = Weather::calm(Duration::from_millis(1));
    let mut town = Town::new(1, calm);
    town.run_until(town.start + RETRY);
    assert_eq!(town.established(), [1, 1]);
    // Everything in flight is lost, and so is what either end sends from here on: nobody hears a Close.
    let cut = town.now;
    while town.established() != [0, 0] {
        town.in_flight.clear();
        town.letters.clear();
        town.weather.lost_dials = 1000;
        town.run_until(town.now + Duration::from_micros(50));
        town.now += Duration::from_millis(500);
        assert!(town.now - cut <= Duration::from_secs(95), "the hold time is 90 s");
    }
    town.names = [BTreeMap::new(), BTreeMap::new()];
    town.weather = calm;
    town.run_until(town.now + 2 * RETRY);
    assert_eq!(town.established(), [1, 1], "{:?}", town.ends);
}

/// One random thing that happens to a peering, on the newest, the one before, or a connection that never was.
#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Timeout,
    Connected(u64),
    DialFailed(u64),
    Accepted,
    Message(u64, Box<Parsed>),
    Malformed(u64),
    Lost(u64),
    Sent(u64),
    Stop,
}

fn any_message() -> impl Strategy<Value = Parsed> {
    let identifier = prop_oneof![Just(0x0a00_0001u32), Just(0x0a00_0002), Just(1)];
    let open = (64999u32..65004, prop_oneof![Just(0u64), Just(3), Just(90)], identifier).prop_map(|(asn, hold, id)| {
        let hold_time = Some(Duration::from_secs(hold)).filter(|time| !time.is_zero());
        Parsed::Open(Open {
            identifier: Ipv4Addr::from_bits(id),
            ..LocalOffer { local_asn: asn, hold_time, ..offer() }.open()
        })
    });
    let kind =
        prop::sample::select(vec![RefreshKind::Request, RefreshKind::Begin, RefreshKind::End, RefreshKind::Unknown(3)]);
    let refresh = (1u16..3, kind)
        .prop_map(|(afi, kind)| Parsed::RouteRefresh(RouteRefresh { family: AfiSafi { afi, safi: 1 }, kind }));
    let notification = Notification { reason: NotificationReason::Open(OpenError::BadPeerAs), data: Vec::new() };
    let update =
        ParsedUpdate { update: Update::default(), withdraw_all: false, complaints: Vec::new(), end_of_rib: None };
    prop_oneof![
        4 => open,
        4 => Just(Parsed::Keepalive),
        2 => Just(Parsed::Update(update)),
        1 => refresh,
        1 => Just(Parsed::Notification(notification)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![Just(1u64), 1u64..5_000, Just(90_000), Just(600_000)].prop_map(Step::Wait),
        4 => Just(Step::Timeout),
        4 => (0u64..3).prop_map(Step::Connected),
        1 => (0u64..3).prop_map(Step::DialFailed),
        3 => Just(Step::Accepted),
        8 => (0u64..3, any_message()).prop_map(|(back, message)| Step::Message(back, Box::new(message))),
        1 => (0u64..3).prop_map(Step::Malformed),
        1 => (0u64..3).prop_map(Step::Lost),
        1 => (0u64..3).prop_map(Step::Sent),
        1 => prop_oneof![9 => Just(Step::Timeout), 1 => Just(Step::Stop)],
    ]
}

/// What must hold of everything that a peering ever answers.
#[derive(Default)]
struct Witness {
    dialled: BTreeSet<ConnectionId>,
    opened: BTreeSet<ConnectionId>,
    closed: BTreeSet<ConnectionId>,
    up: Option<ConnectionId>,
}

impl Witness {
    fn sees(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Dial(id) => assert!(self.dialled.insert(*id), "{id} was dialled before"),
                Action::Send(id, message) => {
                    assert!(!self.closed.contains(id), "{message:?} is sent on {id}, which is closed");
                    assert!(!matches!(message, Message::Notification(_)), "a NOTIFICATION only comes with a close");
                    match message {
                        Message::Open(_) => assert!(self.opened.insert(*id), "a second OPEN on {id}"),
                        _ => assert!(self.opened.contains(id), "{message:?} before OPEN on {id}"),
                    }
                }
                Action::Close { connection, last_word } => {
                    assert!(self.closed.insert(*connection), "{connection} is closed twice");
                    assert!(last_word.is_none() || self.opened.contains(connection), "a last word before OPEN");
                }
                Action::Up { connection, .. } => {
                    assert_eq!(self.up.replace(*connection), None, "one session at a time");
                }
                Action::Down { connection, .. } => assert_eq!(self.up.take(), Some(*connection), "down was up"),
                Action::Failed { connection, .. } | Action::Withheld { connection, .. } => {
                    assert_ne!(self.up, Some(*connection), "an end of the session is a Down")
                }
                Action::Refresh { connection, .. }
                | Action::Ignored { connection, .. }
                | Action::Prove { connection, .. } => {
                    assert_eq!(self.up, Some(*connection));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_sequence_of_events_makes_a_peering_panic_loop_or_speak_out_of_turn(
        steps in prop::collection::vec(any_step(), 1..80),
        seed in any::<u64>(),
        passive in any::<bool>(),
    ) {
        let mut now = crate::clock::now();
        let offer = LocalOffer { passive, expected_asn: ExpectedAsn::External, ..offer() };
        let mut peering = Peering::new(offer, seed, now);
        let mut witness = Witness::default();
        let mut stopped = false;
        for step in steps {
            let newest = peering.next_connection;
            let named = |back: u64| ConnectionId(newest.saturating_sub(back));
            let actions = match step {
                Step::Wait(millis) => {
                    now += Duration::from_millis(millis);
                    Vec::new()
                }
                Step::Timeout => peering.handle_timeout(now),
                Step::Connected(back) => peering.handle_connected(named(back), now),
                Step::DialFailed(back) => peering.handle_dial_failed(named(back), "refused".to_owned(), now),
                Step::Accepted => peering.handle_accepted(now).1,
                Step::Message(back, message) => {
                    let id = named(back);
                    let ends_it = matches!(*message, Parsed::Notification(_));
                    let actions = peering.handle_message(id, *message, now);
                    if ends_it {
                        prop_assert!(
                            !actions.iter().any(|action| matches!(action, Action::Close { last_word: Some(_), .. })),
                            "a NOTIFICATION is answered: {actions:?}"
                        );
                    }
                    actions
                }
                Step::Malformed(back) => {
                    peering.handle_malformed(named(back), &WireError::Header(HeaderFault::Type(9)), now)
                }
                Step::Lost(back) => peering.handle_lost(named(back), "reset".to_owned(), now),
                Step::Sent(back) => {
                    peering.handle_sent(named(back), now);
                    Vec::new()
                }
                Step::Stop => {
                    stopped = true;
                    let reason = NotificationReason::Cease(Cease::AdministrativeShutdown);
                    let notification = Notification { reason, data: Vec::new() };
                    peering.handle_stop(&notification, "the test says so", now)
                }
            };
            witness.sees(&actions);
            // Serving what is due leaves nothing that is due, in a few rounds.
            let mut after = peering.clone();
            for _ in 0..8 {
                after.handle_timeout(now);
            }
            prop_assert!(after.next_deadline().is_none_or(|deadline| deadline > now), "a busy loop: {after:?}");
            prop_assert!(peering.connections.len() <= 3, "connections pile up: {peering:?}");
            if stopped {
                prop_assert_eq!(peering.next_deadline(), None);
                prop_assert!(peering.connections.is_empty());
            }
        }
    }
}
