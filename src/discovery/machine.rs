//! The machine of one link: which routers are there, whether they are still alive, and when this node sends. Floor 1.
//!
//! How to drive it: feed [`Machine::handle_message`] with what comes from link-local addresses, ask
//! [`Machine::poll_message`] for what to send until it answers `None`, read [`Machine::routers`], and come back at
//! [`Machine::next_deadline`]. Spare calls are harmless. Time must not go backwards.
//!
//! Routers that find unnumbered peers by advertisements, as FRR does, must hear one of ours before they open a session. So
//! this node sends advertisements with a router lifetime of zero and without options.

use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use super::packet::Message;

/// The routers on one link.
#[derive(Debug)]
pub struct Machine {
    /// In the order in which they were first heard.
    routers: Vec<Router>,
    /// Present while the first router is being asked whether it is still alive.
    challenge: Option<Challenge>,
    advertised: Option<Instant>,
    advertise_at: Instant,
    /// How many of the early advertisements were sent.
    early: usize,
    solicit_at: Option<Instant>,
    /// Solicitations still to send if no router answers.
    solicitations_left: u8,
}

#[derive(Debug)]
struct Router {
    address: Ipv6Addr,
    heard: Instant,
}

#[derive(Debug)]
struct Challenge {
    since: Instant,
    until: Instant,
}

/// The pauses after the first advertisements: the two ends of a link seldom start to listen at the same moment.
///
/// Gap (RFC 4861 §6.2.4, §6.2.6): advertisements follow each other faster than 3 s at the start and answers are not
/// delayed at random, because a session waits for them; at most one goes out in a second.
const EARLY_PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// The pause between advertisements after that, as FRR has it for unnumbered neighbors.
const ADVERTISE_PAUSE: Duration = Duration::from_secs(10);

/// The least pause between two advertisements, however many hosts ask.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// RFC 4861 §10: MAX_RTR_SOLICITATIONS, RTR_SOLICITATION_INTERVAL.
const SOLICITATIONS: u8 = 3;
const SOLICIT_PAUSE: Duration = Duration::from_secs(4);

/// How long the first router may be silent, while another is heard, before it is solicited.
const QUIET: Duration = Duration::from_secs(5);

/// How long the first router has to answer, and the pause between solicitations meanwhile. RFC 4861 §10 lets a
/// router take 3.5 s: MIN_DELAY_BETWEEN_RAS and MAX_RA_DELAY_TIME.
const CHALLENGE: Duration = Duration::from_secs(5);
const CHALLENGE_PAUSE: Duration = Duration::from_millis(1500);

/// The most routers that are remembered: a host can make up as many as it likes.
const MOST_ROUTERS: usize = 8;

impl Machine {
    /// The link has just come up.
    pub fn new(now: Instant) -> Machine {
        Machine {
            routers: Vec::new(),
            challenge: None,
            advertised: None,
            advertise_at: now,
            early: 0,
            solicit_at: Some(now),
            solicitations_left: SOLICITATIONS,
        }
    }

    /// A message from the link. An advertisement from an address that is not link-local is ignored.
    pub fn handle_message(&mut self, from: Ipv6Addr, message: Message, now: Instant) {
        match message {
            // A host that starts may ask from the unspecified address.
            Message::Solicitation => self.advertise_soon(now),
            // RFC 4861 §6.1.2. The lifetime does not matter: routers of unnumbered peers mostly are no default routers.
            Message::Advertisement { lifetime: _ } if from.is_unicast_link_local() => self.hear(from, now),
            Message::Advertisement { lifetime: _ } => {}
            // Another node that looks for its router as this one does.
            Message::Agent => {}
        }
    }

    fn hear(&mut self, address: Ipv6Addr, now: Instant) {
        let is_first = self.routers.first().is_none_or(|first| first.address == address);
        if let Some(router) = self.routers.iter_mut().find(|router| router.address == address) {
            router.heard = now;
        } else if self.routers.len() < MOST_ROUTERS {
            self.routers.push(Router { address, heard: now });
            // It may have missed our earlier advertisements.
            self.early = 0;
            self.advertise_soon(now);
        }
        if is_first {
            self.challenge = None;
            self.solicit_at = None;
        } else if self.challenge.is_none() && self.routers.first().is_some_and(|first| first.heard + QUIET <= now) {
            self.challenge = Some(Challenge { since: now, until: now + CHALLENGE });
            self.solicitations_left = SOLICITATIONS;
            self.solicit_at = Some(now);
        }
    }

    fn advertise_soon(&mut self, now: Instant) {
        let earliest = self.advertised.map_or(now, |last| (last + LEAST_PAUSE).max(now));
        self.advertise_at = self.advertise_at.min(earliest);
    }

    /// The next message to send to the link now: advertisements to all nodes, solicitations to all routers.
    pub fn poll_message(&mut self, now: Instant) -> Option<Message> {
        self.judge_silence(now);
        if let Some(at) = self.solicit_at.filter(|at| *at <= now) {
            self.solicitations_left = self.solicitations_left.saturating_sub(1);
            let pause = if self.challenge.is_some() { CHALLENGE_PAUSE } else { SOLICIT_PAUSE };
            self.solicit_at = (self.solicitations_left > 0).then(|| at.max(now) + pause);
            return Some(Message::Solicitation);
        }
        if self.advertise_at <= now {
            let pause = EARLY_PAUSES.get(self.early).copied().unwrap_or(ADVERTISE_PAUSE);
            self.early += 1;
            self.advertised = Some(now);
            self.advertise_at = now + pause;
            return Some(Message::Agent);
        }
        None
    }

    /// If the first router did not answer in time, the next one moves up.
    fn judge_silence(&mut self, now: Instant) {
        let Some(challenge) = self.challenge.take_if(|challenge| challenge.until <= now) else { return };
        self.routers.retain(|router| router.heard >= challenge.since);
        self.solicit_at = None;
    }

    /// The routers that are there, in the order in which they were first heard. The first stays first until it falls silent
    /// while another one is heard. A router that is alone stays, because nothing would be gained by forgetting it.
    pub fn routers(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.routers.iter().map(|router| router.address)
    }

    /// When to call [`Machine::poll_message`] again if no message comes. May be in the past.
    pub fn next_deadline(&self) -> Instant {
        let challenge = self.challenge.as_ref().map(|challenge| challenge.until);
        [self.solicit_at, challenge].into_iter().flatten().fold(self.advertise_at, Instant::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const A: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xa);
    const B: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xb);
    const HERE: Message = Message::Advertisement { lifetime: Duration::ZERO };

    /// A link with routers that answer solicitations, or do not, on a virtual clock.
    struct Link {
        machine: Machine,
        start: Instant,
        now: Instant,
        answering: Vec<Ipv6Addr>,
        /// In milliseconds since the start.
        advertised: Vec<u128>,
        solicited: Vec<u128>,
    }

    impl Link {
        fn new(answering: &[Ipv6Addr]) -> Link {
            let start = clock::now();
            let machine = Machine::new(start);
            let answering = answering.to_vec();
            Link { machine, start, now: start, answering, advertised: Vec::new(), solicited: Vec::new() }
        }

        /// Lets time pass from deadline to deadline.
        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            loop {
                while let Some(message) = self.machine.poll_message(self.now) {
                    let at = (self.now - self.start).as_millis();
                    match message {
                        Message::Agent => self.advertised.push(at),
                        Message::Advertisement { .. } => panic!("this node is no router"),
                        Message::Solicitation => {
                            self.solicited.push(at);
                            for router in self.answering.clone() {
                                self.machine.handle_message(router, HERE, self.now);
                            }
                        }
                    }
                }
                let next = self.machine.next_deadline();
                assert!(next > self.now, "what was due has been done");
                if next > end {
                    break;
                }
                self.now = next;
            }
            self.now = end;
        }

        fn hears(&mut self, router: Ipv6Addr) {
            self.machine.handle_message(router, HERE, self.now);
        }

        fn routers(&self) -> Vec<Ipv6Addr> {
            self.machine.routers().collect()
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_link_that_comes_up_asks_at_once_and_no_more_than_three_times() {
        let mut link = Link::new(&[]);
        link.pass(secs(60));
        assert_eq!(link.solicited, [0, 4000, 8000]);
        assert_eq!(link.advertised, [0, 1000, 2000, 4000, 8000, 18000, 28000, 38000, 48000, 58000]);
    }

    #[test]
    fn an_answer_ends_the_asking() {
        let mut link = Link::new(&[A]);
        link.pass(secs(60));
        assert_eq!(link.solicited, [0]);
        assert_eq!(link.routers(), [A]);
    }

    #[test]
    fn a_router_that_comes_later_is_told_of_us_at_once() {
        let mut link = Link::new(&[]);
        link.pass(secs(21));
        link.advertised.clear();
        link.hears(A);
        link.pass(secs(3));
        assert_eq!(link.advertised, [21000, 22000, 23000]);
    }

    #[test]
    fn however_many_ask_there_is_one_answer_in_a_second() {
        let mut link = Link::new(&[]);
        link.pass(secs(100));
        link.advertised.clear();
        for _ in 0..500 {
            link.machine.handle_message(Ipv6Addr::UNSPECIFIED, Message::Solicitation, link.now);
            link.pass(Duration::from_millis(10));
        }
        assert_eq!(link.advertised.len(), 6, "at once, and then once in each of five seconds: {:?}", link.advertised);
    }

    #[test]
    fn of_two_routers_the_first_heard_stays_as_long_as_it_answers() {
        let mut link = Link::new(&[]);
        link.hears(A);
        link.hears(B);
        link.answering = vec![A, B];
        for _ in 0..100 {
            link.pass(secs(10));
            link.hears(B);
        }
        assert_eq!(link.routers(), [A, B]);
    }

    #[test]
    fn a_router_that_is_silent_while_another_speaks_makes_room_for_it() {
        let mut link = Link::new(&[]);
        link.hears(A);
        link.pass(secs(30));
        assert_eq!(link.routers(), [A], "alone it stays");
        link.solicited.clear();
        link.answering = vec![B];
        link.hears(B);
        link.pass(secs(4));
        assert_eq!(link.routers(), [A, B], "it still may answer");
        assert_eq!(link.solicited, [30000, 31500, 33000]);
        link.pass(secs(1));
        assert_eq!(link.routers(), [B]);
    }

    #[test]
    fn only_link_local_senders_are_routers_and_only_a_few_are_kept() {
        let mut link = Link::new(&[]);
        link.hears("2001:db8::1".parse().unwrap());
        link.hears(Ipv6Addr::UNSPECIFIED);
        assert_eq!(link.routers(), [] as [Ipv6Addr; 0]);
        link.hears(A);
        for n in 0..1000 {
            link.hears(Ipv6Addr::from_bits(B.to_bits() + n));
        }
        assert_eq!(link.routers().len(), MOST_ROUTERS);
        assert_eq!(link.routers()[0], A);
    }
}
