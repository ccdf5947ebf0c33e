//! What a ledger adds up to: the place in both streams, and what the peer has, or that it is not certain.

use bytes::BytesMut;

use super::*;
use crate::bgp::kept::tests::kept;
use crate::bgp::wire::{Cease, Notification, NotificationReason};

fn octets(messages: &[Message]) -> Vec<u8> {
    let mut octets = BytesMut::new();
    let dialect = kept().negotiated.dialect();
    for message in messages {
        message.emit(&dialect, &mut octets).expect("it has a form");
    }
    octets.to_vec()
}

fn withdrawal(prefix: &str) -> Message {
    Message::Update(Update { withdrawn: vec![prefix.parse().unwrap()], ..Update::default() })
}

#[test]
fn an_entry_is_read_as_it_was_written_and_refused_when_it_is_anything_else() {
    let entry = Entry { state_at: 1, state_len: 2, log_at: 3, log_begins: u64::MAX, unread_at: 5, ..Entry::default() };
    let octets = entry.emit();
    assert_eq!(octets.len(), ENTRY_LEN);
    assert_eq!(Entry::parse(&octets), Ok(entry));
    for at in 0..octets.len() {
        let mut damaged = octets.clone();
        damaged[at] ^= 1;
        assert_eq!(Entry::parse(&damaged), Err(Uncertain::Entry), "octet {at}");
        assert_eq!(Entry::parse(&octets[..at]), Err(Uncertain::Entry), "only {at} octets");
    }
}

/// Wherever the kernel stopped, the rest of the message is known, and a message that has begun counts as sent.
#[test]
fn a_message_that_was_taken_in_part_is_finished() {
    let messages = [Message::Keepalive, withdrawal("203.0.113.1/32"), withdrawal("203.0.113.2/32")];
    let log = octets(&messages);
    let (first, second) = (octets(&messages[..1]).len(), octets(&messages[..2]).len());
    for written in 0..=log.len() {
        let state = rebuild(kept(), &log, written, b"half", Duration::from_secs(100_001)).expect("it is certain");
        let ends = [0, first, second, log.len()].into_iter().find(|end| *end >= written).expect("one of them");
        assert_eq!(state.unwritten, log[written..ends], "{written} octets were taken");
        let had = match ends {
            end if end <= first => 2,
            end if end == second => 1,
            _ => 0,
        };
        assert_eq!(state.sent.count(), had, "{written} octets were taken");
        assert_eq!(state.unread, b"half");
    }
}

#[test]
fn the_time_goes_on_from_when_the_peer_was_heard_last_and_a_keepalive_is_due() {
    let state = rebuild(kept(), &[], 0, &[], Duration::from_secs(100_007)).expect("it is certain");
    assert_eq!(state.since_boot, Duration::from_secs(100_007));
    assert_eq!(state.standing.held, Duration::from_secs(3607));
    let timers = state.standing.timers.expect("it has a hold time");
    assert_eq!((timers.hold, timers.keepalive), (Duration::from_secs(9), Duration::ZERO));
    assert_eq!(state.sent, kept().sent, "nothing was said since the log began");
    assert_eq!(KeptSession::parse(&state.emit().unwrap()).as_ref(), Ok(&state), "it is one that can be kept");
}

#[test]
fn what_is_not_certain_is_refused() {
    let refused =
        |log: &[u8], written| rebuild(kept(), log, written, &[], Duration::ZERO).expect_err("it is uncertain");
    let log = octets(&[Message::Keepalive, withdrawal("203.0.113.1/32")]);
    assert_eq!(refused(&log, log.len() + 1), Uncertain::Written, "the kernel took more than the log has");
    assert_eq!(
        refused(&log[..log.len() - 1], log.len() - 1),
        Uncertain::Written,
        "the rest of the last message is missing"
    );
    assert!(matches!(refused(&[0; 64], 64), Uncertain::Messages(_)), "no message is so short");
    let end = Message::Notification(Notification::from(NotificationReason::Cease(Cease::AdministrativeShutdown)));
    let end = octets(&[end]);
    assert!(matches!(refused(&end, end.len()), Uncertain::Messages(_)), "the session was about to end");
}
