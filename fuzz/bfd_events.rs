//! A BFD session's whole life from any octets: packets and time, on a virtual clock.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use crier::bfd::authentication::Key;
use crier::bfd::discard::Discard;
use crier::bfd::machine::{Action, Session};
use crier::bfd::packet::Packet;
use crier::bfd::settings::Settings;
use crier::bfd_state::BfdState;
use crier::clock;

/// Timers that one step may run through: a session sends each 7 ms at most, and steps are shorter than 2 s.
const MOST_WAKES: usize = 1000;

/// The first octet is what the session is like. Then each event is a time in units of 8 ms, a length, and as many octets of a packet.
pub fn run(data: &[u8]) {
    let (choice, mut rest) = data.split_first().map_or((0, data), |(choice, rest)| (*choice, rest));
    let now = clock::now();
    let settings = Settings {
        transmit_interval: Duration::from_millis(10),
        receive_interval: Duration::from_millis(10),
        multiplier: NonZeroU8::MIN.saturating_add(choice >> 4),
        passive: choice & 1 != 0,
        key: (choice & 2 != 0).then(|| Key::new(b"fuzz", choice & 4 != 0, 1)).flatten(),
        old_key: None,
    };
    let ours = NonZeroU32::new(2).unwrap_or(NonZeroU32::MIN);
    let mut life = Life { session: Session::new(settings, ours, 1, now), now, sent_at: [None; 2] };
    while let [step, length, more @ ..] = rest {
        life.pass(Duration::from_millis(u64::from(*step) * 8));
        let (octets, after) = more.split_at(usize::from(*length).min(more.len()));
        life.hear(octets);
        rest = after;
    }
    life.pass(Duration::from_secs(2));
}

struct Life {
    session: Session,
    now: Instant,
    /// The last two packets that are no answers to Polls.
    sent_at: [Option<Instant>; 2],
}

impl Life {
    fn hear(&mut self, octets: &[u8]) {
        let before = (self.session.state(), *self.session.remote());
        let outcome = Packet::parse(octets)
            .map_err(Discard::from)
            .and_then(|packet| self.session.handle_packet(&packet, octets, self.now));
        match outcome {
            Err(discard) => {
                assert!(!discard.in_words().is_empty() && Discard::ALL.contains(&discard));
                let after = (self.session.state(), *self.session.remote());
                assert_eq!(before, after, "a packet that is dropped changes nothing");
            }
            Ok(action) => self.note(before.0, action),
        }
        assert_eq!(self.session.detection_time().is_some(), self.session.remote().discriminator.is_some());
    }

    /// The state changes exactly if the machine says so.
    fn note(&mut self, before: BfdState, action: Option<Action>) {
        match action {
            Some(Action::Changed { before: was, after, cause: _ }) => {
                assert_eq!((was, after), (before, self.session.state()));
                assert_ne!(was, after);
            }
            Some(Action::Send(packet)) => panic!("{packet} is sent by no packet, only by a timer"),
            None => assert_eq!(before, self.session.state()),
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MOST_WAKES {
            let before = self.session.state();
            for action in self.session.handle_timeout(self.now) {
                match action {
                    Action::Changed { .. } => assert_ne!(before, self.session.state()),
                    Action::Send(packet) => self.send(&packet),
                }
            }
            match self.session.next_deadline() {
                Some(next) if next <= end => {
                    assert!(next > self.now, "what was due has been done");
                    self.now = next;
                }
                Some(_) | None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("more than {MOST_WAKES} timers in {time:?}");
    }

    fn send(&mut self, packet: &Packet) {
        let octets = packet.emit(self.session.key());
        assert_eq!(Packet::parse(&octets), Ok(*packet), "what is sent can be read");
        assert!(!packet.demand, "{packet}");
        assert!(!packet.poll || !packet.fin, "{packet}");
        let up = packet.state == BfdState::Up;
        assert!(up || packet.desired_min_tx >= Duration::from_secs(1), "slow until it is up: {packet}");
        if !packet.fin {
            // News of a state may follow a periodic packet at once, but not a third packet.
            let [last, before] = self.sent_at;
            let pause = before.map(|at| self.now - at);
            assert!(pause.is_none_or(|pause| pause >= Duration::from_millis(5)), "three within {pause:?}: {packet}");
            self.sent_at = [Some(self.now), last];
        }
    }
}
