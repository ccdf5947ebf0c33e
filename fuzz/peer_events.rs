//! Octets as what happens to one peer: dials, connections, messages, timers and orders, on a clock of its own.
//! What must hold of everything that the machine answers is asserted after each event.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use crier::bgp::machine::negotiation::{LocalOffer, Restart};
use crier::bgp::machine::{Action, ConnectionId, Peering};
use crier::bgp::wire::{
    Cease, Dialect, ExpectedAsn, Frame, HEADER_LEN, Message, MessageKind, Notification, NotificationReason, Open,
};

/// The first octet chooses the settings, each one after it what happens next.
pub fn run(data: &[u8]) {
    let (choice, mut events) = data.split_first().unwrap_or((&0, &[]));
    let start = crier::clock::now();
    let mut town = Town::new(*choice, start);
    // At once, as the machine asks for it.
    town.step(|peering, now| peering.handle_timeout(now));
    while let Some((event, rest)) = events.split_first() {
        events = town.happens(*event, rest);
        town.is_sound();
    }
}

struct Town {
    offer: LocalOffer,
    peering: Peering,
    now: Instant,
    /// Every dial and connection that there ever was, oldest first.
    known: Vec<ConnectionId>,
    dialled: BTreeSet<ConnectionId>,
    opened: BTreeSet<ConnectionId>,
    closed: BTreeSet<ConnectionId>,
    up: Option<ConnectionId>,
    stopped: bool,
}

impl Town {
    fn new(choice: u8, now: Instant) -> Town {
        let bit = |place: u8| choice & (1 << place) != 0;
        let offer = LocalOffer {
            local_asn: 65001,
            expected_asn: match (bit(0), bit(1)) {
                (false, false) => ExpectedAsn::External,
                (true, false) => ExpectedAsn::Internal,
                (_, true) => ExpectedAsn::Is(65002),
            },
            identifier: Ipv4Addr::new(10, 0, 0, 1),
            hold_time: (!bit(2)).then(|| Duration::from_secs(if bit(3) { 3 } else { 90 })),
            keepalive_time: bit(4).then(|| Duration::from_secs(1)),
            connect_retry_time: Duration::from_secs(5),
            passive: bit(5),
            link_scoped: bit(6),
            graceful_restart: bit(7).then_some(Restart { restarting: bit(0), forwarding: bit(1) }),
            withheld: Vec::new(),
        };
        Town {
            peering: Peering::new(offer.clone(), u64::from(choice), now),
            offer,
            now,
            known: Vec::new(),
            dialled: BTreeSet::new(),
            opened: BTreeSet::new(),
            closed: BTreeSet::new(),
            up: None,
            stopped: false,
        }
    }

    /// The lower half of the octet is what happens, the upper half to which connection, counted from the newest.
    fn happens<'a>(&mut self, event: u8, rest: &'a [u8]) -> &'a [u8] {
        let (what, back) = (event & 0x0f, usize::from(event >> 4));
        let id = self.known.iter().rev().nth(back).or(self.known.first()).copied();
        match (what, id) {
            (0, _) => self.now += Duration::from_millis(250 << back),
            // To the next deadline.
            (1, _) => {
                self.now = self.peering.next_deadline().map_or(self.now, |deadline| deadline.max(self.now));
                self.step(|peering, now| peering.handle_timeout(now));
            }
            (2, _) => self.step(|peering, now| peering.handle_timeout(now)),
            (3, _) => {
                let (id, actions) = self.peering.handle_accepted(self.now);
                self.known.push(id);
                self.sees(&actions);
            }
            (4, Some(id)) => self.step(|peering, now| peering.handle_connected(id, now)),
            (5, Some(id)) => self.step(|peering, now| peering.handle_dial_failed(id, "refused".to_owned(), now)),
            (6, Some(id)) => self.step(|peering, now| peering.handle_lost(id, "reset".to_owned(), now)),
            (7, Some(id)) => self.peering.handle_sent(id, self.now),
            (8, Some(id)) => self.hears(id, &octets(&Message::Keepalive)),
            // A good OPEN; the next octet says whose.
            (9, Some(id)) => {
                let (whose, rest) = rest.split_first().unwrap_or((&0, &[]));
                let open = Open {
                    asn: 65000 + u16::from(whose & 3),
                    hold_time_secs: if whose & 4 == 0 { 90 } else { 0 },
                    identifier: Ipv4Addr::new(10, 0, 0, whose >> 4),
                    capabilities: if whose & 8 == 0 { Vec::new() } else { self.offer.open().capabilities },
                };
                if !open.identifier.is_unspecified() {
                    self.hears(id, &octets(&Message::Open(open)));
                }
                return rest;
            }
            // Any message: its type, the length of its body, its body.
            (10, Some(id)) => {
                let Some((&[kind, len], rest)) = rest.split_first_chunk::<2>() else { return &[] };
                let (body, rest) = rest.split_at_checked(usize::from(len)).unwrap_or((rest, &[]));
                let mut message = BytesMut::new();
                message.put_bytes(0xff, 16);
                message.put_u16(u16::try_from(HEADER_LEN + body.len()).expect("255 octets and a header"));
                message.put_u8(kind);
                message.put_slice(body);
                self.hears(id, &message);
                return rest;
            }
            // A stream that is none.
            (11, Some(id)) => self.hears(id, &[0; HEADER_LEN]),
            (12, Some(id)) => {
                let reason = NotificationReason::Cease(Cease::AdministrativeReset);
                self.step(|peering, now| peering.handle_fault(id, reason.into(), "as told".to_owned(), now));
            }
            (14, Some(id)) => {
                let address = Ipv4Addr::new(10, 0, 0, 11).into();
                self.step(|peering, now| peering.handle_address_gone(id, address, now));
            }
            (15, Some(id)) => self.step(|peering, now| peering.handle_proof(id, back % 2 == 0, now)),
            (13, _) if back == 15 => {
                self.stopped = true;
                let notification = Notification::administrative_shutdown("enough");
                self.step(|peering, now| peering.handle_stop(&notification, "as told", now));
            }
            _ => {}
        }
        rest
    }

    fn hears(&mut self, id: ConnectionId, message: &[u8]) {
        let mut stream = BytesMut::from(message);
        let is_notification = message.get(HEADER_LEN - 1) == Some(&MessageKind::Notification.code());
        let actions = match Frame::parse(&mut stream, self.peering.max_message_len(id)) {
            Ok(Some(frame)) => self.peering.handle_frame(id, &frame, self.now),
            Ok(None) => Vec::new(),
            Err(error) => self.peering.handle_malformed(id, &error, self.now),
        };
        // RFC 4271 §6.4
        let answered = actions.iter().any(|action| matches!(action, Action::Close { last_word: Some(_), .. }));
        assert!(!(is_notification && answered), "a NOTIFICATION is answered: {actions:?}");
        self.sees(&actions);
    }

    fn step(&mut self, step: impl FnOnce(&mut Peering, Instant) -> Vec<Action>) {
        let actions = step(&mut self.peering, self.now);
        self.sees(&actions);
    }

    fn sees(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Dial(id) => {
                    assert!(self.dialled.insert(*id), "{id} was dialled before");
                    assert!(!self.offer.passive, "a passive peering never dials");
                    self.known.push(*id);
                }
                Action::Send(id, message) => {
                    assert!(!self.closed.contains(id), "{message} is sent on {id}, which is closed");
                    let opens = matches!(message, Message::Open(_));
                    assert_eq!(self.opened.insert(*id), opens, "OPEN comes first on {id}, and once: {message}");
                    assert!(!matches!(message, Message::Notification(_)), "a NOTIFICATION comes with a close");
                    octets(message);
                }
                Action::Close { connection, last_word } => {
                    assert!(self.closed.insert(*connection), "{connection} is closed twice");
                    if let Some(word) = last_word {
                        assert!(self.opened.contains(connection), "a last word before OPEN");
                        assert!(!matches!(word.reason, NotificationReason::Unknown { .. }), "{word} has a name");
                        octets(&Message::Notification(word.clone()));
                    }
                }
                Action::Up { connection, .. } => {
                    assert_eq!(self.up.replace(*connection), None, "one session at a time");
                }
                Action::Down { connection, end } => {
                    assert_eq!(self.up.take(), Some(*connection), "what goes down was up");
                    let _ = end.to_string();
                }
                Action::Failed { connection, end } => {
                    assert_ne!(self.up, Some(*connection), "the end of the session is a Down");
                    let _ = end.to_string();
                }
                Action::Withheld { connection, .. } => assert!(self.closed.contains(connection), "it is over"),
                Action::Refresh { connection, .. }
                | Action::Ignored { connection, .. }
                | Action::Prove { connection, .. } => {
                    assert_eq!(self.up, Some(*connection), "of the session");
                }
            }
        }
    }

    fn is_sound(&self) {
        assert_eq!(self.peering.negotiated().is_some(), self.up.is_some(), "an negotiated is that of the session");
        // Serving what is due leaves nothing that is due, in a few rounds.
        let mut after = self.peering.clone();
        for _ in 0..8 {
            after.handle_timeout(self.now);
        }
        assert!(after.next_deadline().is_none_or(|deadline| deadline > self.now), "a busy loop: {after:?}");
        if self.stopped {
            assert_eq!((self.peering.next_deadline(), self.up), (None, None), "nothing follows a stop");
        }
    }
}

fn octets(message: &Message) -> BytesMut {
    let mut octets = BytesMut::new();
    message.emit(&Dialect::BEFORE_OPEN, &mut octets).expect("every control message fits the shortest maximum");
    octets
}
