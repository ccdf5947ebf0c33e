//! One function for each decoder: any octets in, and what must hold of the answer asserted.
//! The fuzz targets call them with what libFuzzer finds, `tests/wire_never_panics.rs` with the stored corpus and with
//! seeded mutations.
//!
//! A new one is a function here, a row in `ALL`, a file in `fuzz_targets/` and a `[[bin]]` in `Cargo.toml`.

// Every target uses one of them.
#![allow(dead_code)]

#[path = "bfd_events.rs"]
pub mod bfd_events;
#[path = "peer_events.rs"]
pub mod peer_events;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use crier::address::MacAddress;
use crier::arp::machine::answer::{Ownership, Station, Verdict, judge};
use crier::arp::packet::{Frame as LinkFrame, Protocol};
use crier::bgp::kept::KeptSession;
use crier::bgp::machine::Peering;
use crier::bgp::machine::negotiation::{LocalOffer, Negotiated};
use crier::bgp::outbox::{Outbox, Routes};
use crier::bgp::wire::{
    AfiSafi, Dialect, ExpectedAsn, Frame, HEADER_LEN, MAX_EXTENDED_MESSAGE_LEN, MAX_MESSAGE_LEN, Message, MessageKind,
    Notification, NotificationReason, Open, OpenFault, Parsed, RouteRefresh, Treatment, Update, WireError,
};
use crier::data_path::packet::Answer;
use crier::{bfd, discovery, kept_text, pulse};

/// Takes any octets, and panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const ALL: [(&str, Target); 16] = [
    ("frame", frame),
    ("open", open),
    ("update", update),
    ("path_attribute", path_attribute),
    ("mp_reach", mp_reach),
    ("prefix", prefix),
    ("notification", notification),
    ("route_refresh", route_refresh),
    ("peer_events", peer_events::run),
    ("bfd", bfd_events::run),
    ("arp", arp),
    ("ndp", ndp),
    ("router_discovery", router_discovery),
    ("pulse", pulse),
    ("nftables", nftables),
    ("kept_session", kept_session),
];

/// The first octet chooses the session, the rest is for the decoder.
fn session(data: &[u8]) -> (Dialect, &[u8]) {
    let (choice, rest) = data.split_first().unwrap_or((&0, &[]));
    let bit = |place: u8| choice & (1 << place) != 0;
    let negotiated = Negotiated {
        local_asn: 65001,
        peer_asn: if bit(0) { 65001 } else { 65002 },
        peer_identifier: Ipv4Addr::new(10, 0, 0, 2),
        hold_time: None,
        keepalive_time: None,
        four_octet_asn: !bit(1),
        ipv4_unicast: !bit(2),
        ipv6_unicast: !bit(3),
        ipv4_with_ipv6_next_hop: bit(4),
        link_scoped: bit(6),
        route_refresh: true,
        enhanced_refresh: bit(5),
        max_message_len: if bit(5) { MAX_EXTENDED_MESSAGE_LEN } else { MAX_MESSAGE_LEN },
        graceful_restart: false,
        hard_reset: false,
    };
    (Dialect { first_asn_is_peer: !bit(7), ..negotiated.dialect() }, rest)
}

/// The same messages and the same error, whatever the split into reads; never more in the buffer than one message.
pub fn frame(data: &[u8]) {
    let (dialect, stream) = session(data);
    let size = data.first().map_or(1, |choice| 1 + usize::from(*choice));
    let whole = read_all(stream, &dialect, stream.len().max(1));
    let parts = read_all(stream, &dialect, size);
    assert_eq!(whole, parts, "the split into reads of {size} octets made a difference");
    if let Err(error) = whole {
        answer_is_sound(&error);
    }
}

fn read_all(octets: &[u8], dialect: &Dialect, size: usize) -> Result<Vec<Parsed>, WireError> {
    let mut stream = BytesMut::new();
    let mut messages = Vec::new();
    for read in octets.chunks(size) {
        stream.extend_from_slice(read);
        while let Some(frame) = Frame::parse(&mut stream, dialect.max_message_len)? {
            assert!((frame.kind().min_len()..=dialect.max_message_len).contains(&frame.octets().len()));
            messages.push(Message::parse(frame.octets(), dialect)?);
        }
        assert!(stream.len() < dialect.max_message_len, "a whole message is taken off at once");
    }
    Ok(messages)
}

/// The body of an OPEN.
pub fn open(data: &[u8]) {
    match Open::parse(data) {
        Err(fault) => answer_is_sound(&fault.into()),
        Ok(open) => {
            assert!(!open.identifier.is_unspecified() && !matches!(open.hold_time_secs, 1 | 2));
            assert!(open.peer_asn() != 0, "AS 0 is nobody");
            let _ = open.to_string();
            let message = Message::Open(open.clone());
            let mut octets = BytesMut::new();
            if data.len() < 4_000 {
                message.emit(&Dialect::BEFORE_OPEN, &mut octets).expect("what was read can be written");
                assert_eq!(Message::parse(&octets, &Dialect::BEFORE_OPEN), Ok(Parsed::Open(open)));
            }
        }
    }
}

/// The body of an UPDATE.
pub fn update(data: &[u8]) {
    let (dialect, body) = session(data);
    judge_update(body, &dialect);
}

/// The attribute list of an UPDATE that announces one IPv4 prefix.
pub fn path_attribute(data: &[u8]) {
    let (dialect, list) = session(data);
    judge_update(&body(list, &[24, 203, 0, 113]), &dialect);
}

/// The value of MP_REACH_NLRI in an UPDATE that is good otherwise.
pub fn mp_reach(data: &[u8]) {
    let (dialect, value) = session(data);
    let mut list = BytesMut::from([0x40, 1, 1, 0, 0x40, 2, 0, 0x90, 14].as_slice());
    list.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
    list.put_slice(value);
    judge_update(&body(&list, &[]), &Dialect { internal: true, ..dialect });
}

/// A field of prefixes: with an even first octet the withdrawn routes, else the value of MP_UNREACH_NLRI for IPv6.
pub fn prefix(data: &[u8]) {
    let (choice, field) = data.split_first().unwrap_or((&0, &[]));
    let dialect = Dialect { ipv4_unicast: true, ipv6_unicast: true, ..Dialect::BEFORE_OPEN };
    let mut octets = BytesMut::new();
    if choice & 1 == 0 {
        octets.put_u16(u16::try_from(field.len()).unwrap_or(u16::MAX));
        octets.put_slice(field);
        octets.put_u16(0);
    } else {
        octets = body(&[&[0x90, 15], &length(3 + field.len())[..], &[0, 2, 1], field].concat(), &[]);
    }
    if let Ok(parsed) = Update::parse(&octets, &dialect) {
        let v6 = parsed.update.mp_unreach.iter().flat_map(|unreach| &unreach.prefixes);
        for prefix in parsed.update.withdrawn.iter().chain(v6) {
            assert_eq!(prefix.network(), prefix.addr(), "no bit is set behind the length");
        }
    }
    judge_update(&octets, &dialect);
}

/// The body of a ROUTE-REFRESH.
pub fn route_refresh(data: &[u8]) {
    let (dialect, body) = session(data);
    match RouteRefresh::parse(body, &dialect) {
        Err(fault) => answer_is_sound(&fault.into()),
        Ok(refresh) => {
            let mut octets = BytesMut::new();
            refresh.emit(&mut octets);
            assert!(body.starts_with(&octets), "it reads what it would write");
            let _ = (refresh.to_string(), refresh.family == AfiSafi::IPV4_UNICAST);
        }
    }
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

fn body(list: &[u8], announced: &[u8]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(0);
    body.put_u16(u16::try_from(list.len()).unwrap_or(u16::MAX));
    body.put_slice(list);
    body.put_slice(announced);
    body
}

fn judge_update(body: &[u8], dialect: &Dialect) {
    let parsed = match Update::parse(body, dialect) {
        Ok(parsed) => parsed,
        Err(fault) => return answer_is_sound(&fault.into()),
    };
    for complaint in &parsed.complaints {
        let _ = complaint.to_string();
    }
    let withdraws = parsed.complaints.iter().any(|complaint| complaint.treatment == Treatment::WithdrawAll);
    assert_eq!(parsed.withdraw_all, withdraws, "what is complained about is done");
    let _ = parsed.update.to_string();
    if parsed.complaints.is_empty() {
        let wide = Dialect { max_message_len: MAX_EXTENDED_MESSAGE_LEN, ..dialect.clone() };
        let mut octets = BytesMut::new();
        if Message::Update(parsed.update.clone()).emit(&wide, &mut octets).is_ok() {
            let Ok(Parsed::Update(again)) = Message::parse(&octets, &wide) else {
                panic!("{} cannot be read back", parsed.update);
            };
            assert_eq!(again.update, parsed.update);
        }
    }
}

/// A pulse that nothing seals: what is read can be sent, and is the same then.
pub fn pulse(data: &[u8]) {
    let none = pulse::packet::Key::none();
    let unsealed = pulse::packet::Keys::from(none.clone());
    let Ok(pulse) = pulse::packet::Pulse::parse(data, &unsealed) else { return };
    let shown = pulse.to_string();
    assert!(!shown.contains(char::is_control), "{shown:?} is fit for a terminal");
    let again = pulse::packet::Pulse::parse(&pulse.emit(&none), &unsealed).expect("what was read can be written");
    assert_eq!((&again.node, again.sequence, again.eligibility), (&pulse.node, pulse.sequence, pulse.eligibility));
    let key = pulse::packet::Key::of_secret(&[7; 32]).expect("it is long enough");
    assert!(pulse::packet::Pulse::parse(data, &key.into()).is_err(), "nobody can have sealed it");
}

/// The body of a NOTIFICATION.
pub fn notification(data: &[u8]) {
    let Ok(notification) = Notification::parse(data) else {
        assert!(data.len() < 2, "every code and subcode is taken");
        return;
    };
    let shown = notification.to_string();
    assert!(!shown.contains(char::is_control), "{shown:?} is fit for a terminal");
    let _ = notification.hard_reset_cause();
    if data.len() <= MAX_MESSAGE_LEN - HEADER_LEN {
        let mut octets = BytesMut::new();
        Message::Notification(notification).emit(&Dialect::BEFORE_OPEN, &mut octets).expect("it fits");
        assert_eq!(&octets[HEADER_LEN..], data);
    }
}

/// A message of router discovery, from its ICMPv6 header on.
pub fn router_discovery(data: &[u8]) {
    let Ok(message) = discovery::packet::Message::parse(data) else {
        return;
    };
    let mut octets = BytesMut::new();
    message.emit(&mut octets);
    assert_eq!(octets.len(), message.emitted_len());
    assert_eq!(discovery::packet::Message::parse(&octets), Ok(message));
}

/// What the kernel answers to the first question about its rules.
pub fn nftables(data: &[u8]) {
    if let Some(Answer::Refused(code)) = Answer::parse(data, 1) {
        assert_ne!(code, i32::MIN, "a number of an error has its counterpart");
    }
}

/// A frame that an ARP socket has received.
/// What is taken for a session is one that can go on, or be refused, and that is written as it was read.
pub fn kept_session(data: &[u8]) {
    let _ = KeptSession::parse(data);
    let _ = crier::bgp::ledger::Entry::parse(data);
    let _ = bfd::kept::parse(data);
    let _ = bfd::kept::parse(&kept_text::write("crier-bfd-sessions", 1, data));
    let Ok(kept) = KeptSession::parse_content(data) else { return };
    let written = kept.emit().expect("what was read can be written");
    assert_eq!(KeptSession::parse(&written).as_ref(), Ok(&kept), "it is read as it was written");
    if let Ok(mut outbox) = Outbox::resumed(&kept.negotiated, &kept.sent) {
        outbox.want(&Routes::new());
        while let Ok(Some(message)) = outbox.poll_message() {
            assert!(message.len() <= kept.negotiated.max_message_len, "a message is too long");
        }
        assert_eq!(outbox.sent_count(), 0, "all is withdrawn");
    }
    let offer = LocalOffer {
        local_asn: kept.negotiated.local_asn,
        expected_asn: ExpectedAsn::Is(kept.negotiated.peer_asn),
        identifier: kept.router_id,
        hold_time: None,
        keepalive_time: None,
        connect_retry_time: Duration::from_secs(5),
        passive: false,
        link_scoped: false,
        graceful_restart: None,
        withheld: Vec::new(),
    };
    let now = crier::clock::now();
    let (mut peering, _) = Peering::resumed(offer, kept.negotiated, kept.standing, kept.since_boot, 1, now);
    let deadline = peering.next_deadline();
    assert!(deadline.is_none_or(|deadline| deadline >= now), "no timer is due before now");
    peering.handle_timeout(deadline.unwrap_or(now));
}

pub fn arp(data: &[u8]) {
    judge_frame(Protocol::Arp, data);
}

/// A frame that an NDP socket has received.
pub fn ndp(data: &[u8]) {
    judge_frame(Protocol::Ndp, data);
}

/// What can be read can be written and read back; who owns everything answers only those who ask, and never a group.
fn judge_frame(protocol: Protocol, octets: &[u8]) {
    let mac = MacAddress([2, 0, 0, 0, 0, 0x0a]);
    if let Ok(frame) = LinkFrame::parse(protocol, octets) {
        let _ = frame.to_string();
        assert_eq!(LinkFrame::parse(protocol, frame.emit().as_ref()), Ok(frame));
    }
    let ownership = |address: IpAddr| if address.is_unspecified() { Ownership::None } else { Ownership::Announced };
    match judge(Station { mac, other_macs: &[] }, ownership, protocol, octets).0 {
        Verdict::Answer(answer) => {
            assert_eq!(answer.speaker(), mac, "{answer}");
            assert_eq!(LinkFrame::parse(protocol, answer.emit().as_ref()), Ok(answer));
            assert!(answer.asks().is_none() && answer.says().is_some(), "{answer}");
        }
        Verdict::Conflict(claimant) => assert_ne!(claimant.mac, mac),
        Verdict::Rival(_) => panic!("who holds an address has no rivals for it"),
        Verdict::Ignore(reason) => assert!(!reason.code().is_empty()),
    }
}

/// An error is answered with a NOTIFICATION that has a name and fits the shortest maximum, or not at all.
fn answer_is_sound(error: &WireError) {
    let _ = error.to_string();
    let Some(answer) = error.notification() else {
        assert!(
            matches!(error, WireError::Header(fault) if fault.to_string().contains("type 3")),
            "only a NOTIFICATION is not answered: {error}"
        );
        return;
    };
    assert!(!matches!(answer.reason, NotificationReason::Unknown { .. }), "{error} has no name");
    assert_ne!(answer.reason.code(), 0);
    if let WireError::Open(OpenFault::Version(_)) = error {
        assert_eq!(answer.data, [0, 4]);
    }
    let mut octets = BytesMut::new();
    Message::Notification(answer).emit(&Dialect::BEFORE_OPEN, &mut octets).expect("every NOTIFICATION fits");
    assert_eq!(MessageKind::from_code(octets[HEADER_LEN - 1]), Some(MessageKind::Notification));
}
