//! Two sessions on one virtual clock, over a path that loses, delays and reorders.

use std::num::NonZeroU8;

use super::*;
use crate::bfd::authentication::Key;
use crate::clock;

/// Both ends, and what is on its way between them.
struct Pair {
    ends: [Session; 2],
    now: Instant,
    start: Instant,
    /// When it arrives, at which end, its octets.
    flying: Vec<(Instant, usize, Vec<u8>)>,
    rng: Rng,
    /// Of 100 packets in each direction.
    loss: [u32; 2],
    /// How long a packet takes; up to twice as long with `reorders`, so that packets overtake each other.
    delay: Duration,
    reorders: bool,
    /// Packets with a key that the other end does not take are no fault.
    keys_differ: bool,
    changes: Vec<(Duration, usize, BfdState, Cause)>,
    sent: [usize; 2],
}

fn settings(transmit: u64, receive: u64, multiplier: u8, key: Option<Key>) -> Settings {
    Settings {
        transmit_interval: Duration::from_millis(transmit),
        receive_interval: Duration::from_millis(receive),
        multiplier: NonZeroU8::new(multiplier).unwrap(),
        passive: false,
        key,
        old_key: None,
    }
}

impl Pair {
    fn new(one: Settings, other: Settings, seed: u64) -> Pair {
        let now = clock::now();
        let discriminator = |number| NonZeroU32::new(number).unwrap();
        Pair {
            ends: [
                Session::new(one, discriminator(11), seed, now),
                Session::new(other, discriminator(22), seed ^ 0xffff, now),
            ],
            now,
            start: now,
            flying: Vec::new(),
            rng: Rng::with_seed(seed),
            loss: [0, 0],
            delay: Duration::from_millis(1),
            reorders: false,
            keys_differ: false,
            changes: Vec::new(),
            sent: [0, 0],
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while let Some(at) = self.flying.iter().position(|(at, ..)| *at <= self.now) {
                let (_, to, octets) = self.flying.swap_remove(at);
                let packet = Packet::parse(&octets).expect("what an end sends can be read");
                let key = self.ends[to].settings().key.is_some();
                let may_differ = self.keys_differ;
                match self.ends[to].handle_packet(&packet, &octets, self.now) {
                    Ok(action) => self.note(to, action.into_iter().collect()),
                    // A packet that was overtaken by a newer one.
                    Err(Discard::Replayed) if key => {}
                    Err(discard) if may_differ && discard.is_of_key() => {}
                    Err(discard) => panic!("{packet} was dropped: {discard:?}"),
                }
            }
            for end in 0..2 {
                let actions = self.ends[end].handle_timeout(self.now);
                self.note(end, actions);
            }
            let timers = self.ends.iter().filter_map(Session::next_deadline);
            let next = timers.chain(self.flying.iter().map(|(at, ..)| *at)).min();
            match next.filter(|next| *next <= end) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        self.now = end;
    }

    fn note(&mut self, end: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Changed { after, cause, .. } => {
                    self.changes.push((self.now - self.start, end, after, cause));
                }
                Action::Send(packet) => {
                    self.sent[end] += 1;
                    if self.rng.u32(0..100) >= self.loss[end] {
                        let more = if self.reorders { self.rng.u32(0..=1000) } else { 0 };
                        let delay = self.delay * (1000 + more) / 1000;
                        let octets = packet.emit(self.ends[end].key());
                        self.flying.push((self.now + delay, 1 - end, octets));
                    }
                }
            }
        }
    }

    fn are_up(&self) -> bool {
        self.ends.iter().all(|end| end.state() == BfdState::Up)
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn two_ends_come_up_within_a_second_and_stay_so_at_the_intervals_that_both_accept() {
    for seed in 0..50 {
        let key = (seed % 2 == 0).then(|| Key::new(b"of both ends", true, 1)).flatten();
        let mut pair = Pair::new(settings(50, 300, 3, key.clone()), settings(20, 10, 5, key), seed);
        pair.pass(secs(1));
        assert!(pair.are_up(), "seed {seed}: {:?}", pair.changes);
        pair.sent = [0, 0];
        pair.pass(secs(60));
        assert!(pair.are_up() && pair.changes.len() <= 4, "seed {seed}: {:?}", pair.changes);
        // 50 ms because the one wants to send no more, and 300 ms because it accepts no more; with jitter.
        assert!((1200..=1610).contains(&pair.sent[0]), "seed {seed}: {:?}", pair.sent);
        assert!((200..=280).contains(&pair.sent[1]), "seed {seed}: {:?}", pair.sent);
        assert_eq!(pair.ends[0].detection_time(), Some(Duration::from_millis(1500)), "five times 300 ms");
        assert_eq!(pair.ends[1].detection_time(), Some(Duration::from_millis(150)), "three times 50 ms");
    }
}

#[test]
fn a_path_that_fails_in_both_directions_is_noticed_within_the_detection_time_and_one_way_by_both_ends() {
    for seed in 0..50 {
        for loss in [[100, 100], [0, 100], [100, 0]] {
            let mut pair = Pair::new(settings(50, 50, 3, None), settings(50, 50, 3, None), seed);
            pair.pass(secs(3));
            assert!(pair.are_up());
            (pair.changes, pair.loss) = (Vec::new(), loss);
            let cut = pair.now - pair.start;
            pair.pass(secs(2));
            let lost: Vec<Duration> = pair
                .changes
                .iter()
                .filter(|(_, _, after, cause)| *after == BfdState::Down && cause.is_loss())
                .map(|(at, ..)| *at - cut)
                .collect();
            assert!(lost.len() >= 2, "seed {seed}, {loss:?}: both ends notice: {:?}", pair.changes);
            assert!(lost[0] <= Duration::from_millis(152), "seed {seed}, {loss:?}: {lost:?}");
            assert!(!pair.are_up());
            pair.loss = [0, 0];
            pair.pass(secs(3));
            assert!(pair.are_up(), "seed {seed}, {loss:?}: it comes back");
        }
    }
}

#[test]
fn loss_of_a_few_packets_and_reordering_end_no_session() {
    for seed in 0..20 {
        let key = (seed % 2 == 0).then(|| Key::new(b"of both ends", seed % 4 == 0, 1)).flatten();
        let mut pair = Pair::new(settings(50, 50, 5, key.clone()), settings(50, 50, 5, key), seed);
        (pair.delay, pair.reorders) = (Duration::from_millis(20), true);
        pair.pass(secs(5));
        assert!(pair.are_up(), "seed {seed}: {:?}", pair.changes);
        pair.changes.clear();
        pair.loss = [2, 2];
        pair.pass(secs(60));
        assert_eq!(pair.changes, [], "seed {seed}");
    }
}

#[test]
fn an_end_that_is_held_down_takes_the_other_down_without_a_loss() {
    let mut pair = Pair::new(settings(50, 50, 3, None), settings(50, 50, 3, None), 1);
    pair.pass(secs(3));
    pair.changes.clear();
    let action = pair.ends[0].handle_admin_down(pair.now);
    pair.note(0, action.into_iter().collect());
    pair.flying.clear();
    for _ in 0..100 {
        for action in pair.ends[0].handle_timeout(pair.now) {
            pair.note(0, vec![action]);
        }
        while let Some((_, to, octets)) = pair.flying.pop() {
            let packet = Packet::parse(&octets).unwrap();
            if to == 1 {
                let action = pair.ends[1].handle_packet(&packet, &octets, pair.now).unwrap();
                pair.note(1, action.into_iter().collect());
            }
        }
        let actions = pair.ends[1].handle_timeout(pair.now);
        pair.note(1, actions);
        pair.now += Duration::from_millis(50);
    }
    assert!(pair.changes.iter().all(|(.., cause)| !cause.is_loss()), "{:?}", pair.changes);
    assert_eq!(pair.ends[1].state(), BfdState::Down);
}

#[test]
fn an_end_that_changes_its_intervals_all_the_time_never_ends_the_session() {
    for seed in 0..20 {
        let mut pair = Pair::new(settings(50, 50, 3, None), settings(50, 50, 3, None), seed);
        pair.pass(secs(3));
        pair.changes.clear();
        for _ in 0..300 {
            let end = pair.rng.usize(0..2);
            let (transmit, receive) = (pair.rng.u64(10..2000), pair.rng.u64(10..2000));
            pair.ends[end].handle_settings(settings(transmit, receive, 3, None), pair.now);
            let pause = Duration::from_millis(pair.rng.u64(0..3000));
            pair.pass(pause);
        }
        assert_eq!(pair.changes, [], "seed {seed}");
    }
}

#[test]
fn an_end_that_restarts_with_another_number_comes_up_again() {
    for seed in 0..20 {
        let mut pair = Pair::new(settings(300, 300, 3, None), settings(300, 300, 3, None), seed);
        pair.pass(secs(3));
        pair.changes.clear();
        pair.flying.clear();
        pair.ends[1] = Session::new(settings(300, 300, 3, None), NonZeroU32::new(33).unwrap(), seed, pair.now);
        // What the other end still sends to the old number finds nobody.
        let now = pair.now;
        for action in pair.ends[1].handle_timeout(now) {
            pair.note(1, vec![action]);
        }
        let (_, _, call) = pair.flying.pop().expect("it calls at once");
        let packet = Packet::parse(&call).unwrap();
        let action = pair.ends[0].handle_packet(&packet, &call, now).unwrap();
        assert!(matches!(action, Some(Action::Changed { cause: Cause::SignaledDown(_), .. })), "{action:?}");
        pair.pass(secs(3));
        assert!(pair.are_up(), "seed {seed}: {:?}", pair.changes);
    }
}

/// RFC 5880 §6.7.1 has more than one key taken, so that the key can be changed.
#[test]
fn a_key_that_is_changed_on_one_side_and_then_on_the_other_ends_no_session() {
    for seed in 0..8 {
        let meticulous = seed % 2 == 0;
        let key = |secret: &[u8], id| Key::new(secret, meticulous, id);
        // Another content under the same number, and another number.
        let (former, new) = (key(b"former", 1), key(b"new", if seed % 4 < 2 { 1 } else { 2 }));
        let mut pair = Pair::new(settings(50, 50, 3, former.clone()), settings(50, 50, 3, former.clone()), seed);
        pair.keys_differ = true;
        pair.pass(secs(3));
        assert!(pair.are_up());
        pair.changes.clear();
        let changed = settings(50, 50, 3, new.clone());
        pair.ends[0].handle_settings(changed.clone(), pair.now);
        pair.pass(secs(60));
        assert!(pair.ends[0].is_with_retired_key(), "the other end has no other");
        pair.ends[1].handle_settings(changed, pair.now);
        pair.pass(FORMER_KEY_LASTS);
        assert_eq!(pair.changes, [], "seed {seed}");
        assert!(pair.are_up());
        assert!(pair.ends.iter().all(|end| end.key() == new.as_ref() && !end.is_with_retired_key()), "seed {seed}");
    }
}

/// The other end is a router that has one key at a time, and changes it at once.
#[test]
fn a_router_with_one_key_may_change_it_at_any_time_while_the_former_one_is_accepted() {
    for seed in 0..4 {
        let key = |secret: &[u8]| Key::new(secret, true, 1);
        let mut pair = Pair::new(settings(50, 50, 3, key(b"former")), settings(50, 50, 3, key(b"former")), seed);
        pair.keys_differ = true;
        pair.pass(secs(3));
        pair.changes.clear();
        let named = seed % 2 == 0;
        let old_key = key(b"former").filter(|_| named);
        pair.ends[0].handle_settings(Settings { old_key, ..settings(50, 50, 3, key(b"new")) }, pair.now);
        pair.pass(secs(if named { 900 } else { 590 }));
        assert_eq!(pair.ends[0].is_with_retired_key(), !named);
        pair.ends[1].settings.key = key(b"new");
        pair.pass(secs(60));
        assert_eq!(pair.changes, [], "seed {seed}");
        assert_eq!(pair.ends[0].key(), key(b"new").as_ref());
    }
}

#[test]
fn a_former_key_is_accepted_no_longer_than_it_lasts_and_the_reason_of_the_loss_names_the_key() {
    for router_first in [false, true] {
        let key = |secret: &[u8]| Key::new(secret, true, 1);
        let mut pair = Pair::new(settings(50, 50, 3, key(b"former")), settings(50, 50, 3, key(b"former")), 7);
        pair.keys_differ = true;
        pair.pass(secs(3));
        pair.changes.clear();
        if router_first {
            pair.ends[1].settings.key = key(b"new");
        } else {
            pair.ends[0].handle_settings(settings(50, 50, 3, key(b"new")), pair.now);
            pair.pass(Duration::from_secs(599));
            assert_eq!(pair.changes, []);
        }
        pair.pass(secs(2));
        let (_, _, after, cause) = *pair.changes.iter().find(|(_, end, ..)| *end == 0).expect("it is lost");
        assert_eq!(after, BfdState::Down);
        assert!(
            matches!(cause, Cause::Barred(time, Discard::Forged) if time == Duration::from_millis(150)),
            "{cause:?}"
        );
        assert!(cause.is_loss());
    }
}

#[test]
fn a_key_that_was_given_up_is_not_accepted_once_the_peer_has_the_new_one() {
    let key = |secret: &[u8]| Key::new(secret, true, 1);
    let mut pair = Pair::new(settings(50, 50, 3, key(b"former")), settings(50, 50, 3, key(b"former")), 7);
    pair.keys_differ = true;
    pair.pass(secs(3));
    pair.ends[0].handle_settings(settings(50, 50, 3, key(b"new")), pair.now);
    pair.ends[1].settings.key = key(b"new");
    pair.pass(secs(1));
    assert!(pair.are_up() && pair.ends[0].retired.is_none());
    pair.ends[1].settings.key = key(b"former");
    pair.changes.clear();
    pair.pass(secs(1));
    assert!(pair.changes.iter().any(|(_, end, _, cause)| *end == 0 && matches!(cause, Cause::Barred(..))));
}
