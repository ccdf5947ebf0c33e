//! When to announce what: the schedule of gratuitous ARP for every address that this node owns on one link.
//! Floor 1. Pure: time is an argument, announcements are answers. The frames are made by `packet` and sent by `responder`.
//!
//! Probing before a claim and defending it (RFC 5227 §2.1, §2.4) belong here when they come: an address then passes
//! through more states between `handle_owned` and its first announcement.
//!
//! Gap (RFC 5227 §2.1.1): an address is claimed without a probe before; the Plan alone says that it is free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The claims of one link.
///
/// How to drive it:
/// - tell it what happened with `handle_owned`, `handle_disowned`, `handle_link_up` and `handle_link_down`;
/// - then call `poll_announcement` until it answers `None`, and announce each address it gives, in both forms;
/// - come back at `next_deadline`, or never if there is none.
///
/// Time must not go backwards. Spare calls are harmless. A claim starts on a link that is down: nothing is announced
/// before `handle_link_up`.
#[derive(Debug, Default)]
pub struct Claims {
    up: bool,
    owned: BTreeMap<Ipv4Addr, Progress>,
    /// The same as in `owned`, by round and time: what `poll_announcement` takes from.
    due: [BTreeSet<(Instant, Ipv4Addr)>; ROUNDS],
    pace: Pace,
}

/// How far the announcements of an address have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// All rounds are over, or the link is down.
    Silent,
    Waiting {
        round: usize,
        due: Instant,
    },
}

impl Claims {
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.owned.contains_key(&address)
    }

    /// How many addresses are owned.
    pub fn len(&self) -> usize {
        self.owned.len()
    }

    pub fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// This node has taken the address over. One that it owns already is not announced again.
    pub fn handle_owned(&mut self, address: Ipv4Addr, now: Instant) {
        if !self.owns(address) {
            self.owned.insert(address, Progress::Silent);
            self.schedule(address, 0, now);
        }
    }

    /// This node no longer owns the address: not a word about it from here on, not even a farewell. Who took it over
    /// announces it; anything said now could only be believed after that.
    pub fn handle_disowned(&mut self, address: Ipv4Addr) {
        self.unschedule(address);
        self.owned.remove(&address);
    }

    /// The link can carry frames (again), or has another MAC: everything is announced anew.
    pub fn handle_link_up(&mut self, now: Instant) {
        self.up = true;
        let addresses: Vec<Ipv4Addr> = self.owned.keys().copied().collect();
        for address in addresses {
            self.unschedule(address);
            self.schedule(address, 0, now);
        }
    }

    /// The link can carry no frames: nothing is announced until it can.
    pub fn handle_link_down(&mut self) {
        self.up = false;
        self.due = Default::default();
        self.owned.values_mut().for_each(|progress| *progress = Progress::Silent);
    }

    /// The next address to announce now. First announcements go before repeated ones, however many are waiting.
    pub fn poll_announcement(&mut self, now: Instant) -> Option<Ipv4Addr> {
        if !self.pace.allows(now) {
            return None;
        }
        let (round, address) = self.due.iter().enumerate().find_map(|(round, waiting)| {
            waiting.first().filter(|(due, _)| *due <= now).map(|(_, address)| (round, *address))
        })?;
        self.pace.spend(now);
        self.unschedule(address);
        self.schedule(address, round + 1, now + ROUND_INTERVAL);
        Some(address)
    }

    /// When to poll again; at once, if that is in the past. `None`: everything was said.
    pub fn next_deadline(&self) -> Option<Instant> {
        let due = self.due.iter().filter_map(|waiting| waiting.first()).map(|(due, _)| *due).min()?;
        Some(self.pace.earliest(due))
    }

    fn schedule(&mut self, address: Ipv4Addr, round: usize, due: Instant) {
        let Some(progress) = self.owned.get_mut(&address) else { return };
        let Some(waiting) = self.due.get_mut(round).filter(|_| self.up) else { return };
        *progress = Progress::Waiting { round, due };
        waiting.insert((due, address));
    }

    fn unschedule(&mut self, address: Ipv4Addr) {
        let Some(progress) = self.owned.get_mut(&address) else { return };
        if let Progress::Waiting { round, due } = std::mem::replace(progress, Progress::Silent)
            && let Some(waiting) = self.due.get_mut(round)
        {
            waiting.remove(&(due, address));
        }
    }
}

/// Spreads the announcements of many addresses over time, so that answers pass between them and no switch takes them
/// for a storm: one each `SPACING` on average, and after a silence up to `BURST` at once.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    /// When all that was announced would be over, had each announcement taken `SPACING`.
    paid_until: Option<Instant>,
}

impl Pace {
    fn allows(&self, now: Instant) -> bool {
        self.earliest(now) <= now
    }

    fn spend(&mut self, now: Instant) {
        self.paid_until = Some(self.paid_until.map_or(now, |paid| paid.max(now)) + SPACING);
    }

    /// The first moment from `due` on that allows an announcement.
    fn earliest(&self, due: Instant) -> Instant {
        self.paid_until.and_then(|paid| paid.checked_sub(SPACING * (BURST - 1))).map_or(due, |free| due.max(free))
    }
}

/// How often an address is announced after a take-over. RFC 5227 §1.1 asks for two (ANNOUNCE_NUM); more are for links
/// that lose the first frames while a switch port starts to forward.
pub const ROUNDS: usize = 5;

/// The time between two announcements of one address. A Linux neighbour drops an update that comes within a second of
/// the one before (`locktime`), unless it takes it for gratuitous, so the rounds lie further apart than that.
pub const ROUND_INTERVAL: Duration = Duration::from_millis(1100);

/// The average time between the announcements of two addresses, two frames each: a thousand take a quarter of a second.
const SPACING: Duration = Duration::from_micros(250);

/// Announcements that may follow each other at once. A timer is no finer than a millisecond, so fewer would not keep up
/// with `SPACING`; an answer waits for no more frames than these.
const BURST: u32 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    fn address(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n)
    }

    /// Runs the claims on a virtual clock until they have nothing more to say or `until` is reached, and tells who was
    /// announced when, in milliseconds since `start`.
    fn run(claims: &mut Claims, start: Instant, from: Instant, until: Instant) -> Vec<(u128, Ipv4Addr)> {
        let mut now = from;
        let mut said = Vec::new();
        loop {
            while let Some(address) = claims.poll_announcement(now) {
                said.push(((now - start).as_millis(), address));
            }
            match claims.next_deadline() {
                Some(deadline) if deadline <= until => {
                    assert!(deadline > now, "a deadline that does not move the clock would spin");
                    now = deadline;
                }
                Some(_) | None => return said,
            }
        }
    }

    const AN_HOUR: Duration = Duration::from_secs(3600);

    fn up(now: Instant) -> Claims {
        let mut claims = Claims::default();
        claims.handle_link_up(now);
        claims
    }

    #[test]
    fn a_taken_address_is_announced_at_once_then_repeated_then_never_again() {
        let start = clock::now();
        let mut claims = up(start);
        claims.handle_owned(address(1), start);
        let said = run(&mut claims, start, start, start + AN_HOUR);
        assert_eq!(said, [0, 1100, 2200, 3300, 4400].map(|at| (at, address(1))));
        assert_eq!(claims.next_deadline(), None);
        claims.handle_owned(address(1), start + AN_HOUR);
        assert_eq!(claims.next_deadline(), None, "an address that is owned already is no news");
    }

    #[test]
    fn a_disowned_address_is_not_mentioned_again() {
        let start = clock::now();
        let mut claims = up(start);
        claims.handle_owned(address(1), start);
        assert_eq!(claims.poll_announcement(start), Some(address(1)));
        claims.handle_disowned(address(1));
        assert!(!claims.owns(address(1)));
        assert_eq!(claims.next_deadline(), None);
        assert_eq!(claims.poll_announcement(start + AN_HOUR), None);
    }

    #[test]
    fn a_link_that_comes_up_again_hears_everything_anew_and_a_link_that_is_down_hears_nothing() {
        let start = clock::now();
        let mut claims = Claims::default();
        claims.handle_owned(address(1), start);
        assert_eq!(claims.poll_announcement(start), None, "the link was never up");

        claims.handle_link_up(start);
        assert_eq!(run(&mut claims, start, start, start + AN_HOUR).len(), ROUNDS);

        let later = start + AN_HOUR;
        claims.handle_link_down();
        assert_eq!(claims.poll_announcement(later), None);
        claims.handle_link_up(later);
        let said = run(&mut claims, later, later, later + AN_HOUR);
        assert_eq!(said.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1100, 2200, 3300, 4400]);
    }

    #[test]
    fn a_thousand_addresses_are_spread_over_a_quarter_of_a_second_and_first_words_go_first() {
        let start = clock::now();
        let mut claims = up(start);
        (0..1000).for_each(|n| claims.handle_owned(address(n), start));
        let said = run(&mut claims, start, start, start + AN_HOUR);
        assert_eq!(said.len(), 1000 * ROUNDS);
        let first_words: BTreeSet<_> = said.iter().take(1000).map(|(_, address)| *address).collect();
        assert_eq!(first_words.len(), 1000, "somebody was repeated before everybody was named");
        assert_eq!(said[999].0, 246);
        for at in [0, 1, 2, 100, 245, 1100, 1101, 4400] {
            let in_ten_milliseconds = said.iter().filter(|(other, _)| (at..at + 10).contains(other)).count();
            assert!(in_ten_milliseconds <= 16 + 40, "{in_ten_milliseconds} announcements within 10 ms from {at} ms on");
        }
    }

    #[test]
    fn a_newly_taken_address_overtakes_the_repeats_of_many() {
        let start = clock::now();
        let mut claims = up(start);
        (0..10_000).for_each(|n| claims.handle_owned(address(n), start));
        let busy = start + ROUND_INTERVAL + Duration::from_millis(2000);
        run(&mut claims, start, start, busy);
        claims.handle_owned(address(20_000), busy);
        let said = run(&mut claims, start, busy, busy + SPACING * BURST);
        assert!(said.iter().any(|(_, said)| *said == address(20_000)), "still waiting behind {said:?}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Own(u32),
        Disown(u32),
        Up,
        Down,
        Wait(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u32..8).prop_map(Step::Own),
            (0u32..8).prop_map(Step::Disown),
            Just(Step::Up),
            Just(Step::Down),
            (0u64..3000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_only_owned_addresses_are_named_and_only_on_a_link_that_is_up(
            steps in proptest::collection::vec(any_step(), 0..60),
        ) {
            let start = clock::now();
            let mut now = start;
            let mut claims = Claims::default();
            let mut owned = BTreeSet::new();
            let mut link_up = false;
            for step in steps {
                match step {
                    Step::Own(n) => {
                        let news = owned.insert(address(n));
                        claims.handle_owned(address(n), now);
                        prop_assert!(!(news && link_up) || claims.next_deadline().is_some());
                    }
                    Step::Disown(n) => {
                        owned.remove(&address(n));
                        claims.handle_disowned(address(n));
                    }
                    Step::Up => {
                        link_up = true;
                        claims.handle_link_up(now);
                    }
                    Step::Down => {
                        link_up = false;
                        claims.handle_link_down();
                    }
                    Step::Wait(millis) => {
                        let until = now + Duration::from_millis(millis);
                        for (_, said) in run(&mut claims, start, now, until) {
                            prop_assert!(link_up, "spoke on a link that is down");
                            prop_assert!(owned.contains(&said), "named {said}, which is not owned");
                        }
                        now = until;
                    }
                }
                prop_assert_eq!(claims.len(), owned.len());
            }
            claims.handle_link_up(now);
            let said = run(&mut claims, start, now, now + AN_HOUR);
            prop_assert_eq!(said.len(), owned.len() * ROUNDS, "each address, each round, once");
        }
    }
}
