//! The text of a kept session: read as it was written, refused when it is anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::address::Family;
use crate::bgp::machine::session::Received;
use crate::bgp::outbox::NextHops;
use crate::bgp::outbox::sent::SentRoutes;
use crate::route::RouteAttributes;

pub(crate) fn kept() -> KeptSession {
    KeptSession {
        peer: "tor".into(),
        address: ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None },
        local: "10.0.0.11:40000".parse().unwrap(),
        remote: "10.0.0.1:179".parse().unwrap(),
        router_id: "10.0.0.11".parse().unwrap(),
        settings: BTreeMap::from([("asn".to_owned(), Some("64512".to_owned())), ("vrf".to_owned(), None)]),
        signature: Signature::Md5,
        open_sent: vec![0xff; 29],
        open_received: Vec::new(),
        negotiated: Negotiated {
            local_asn: 64513,
            peer_asn: 64512,
            peer_identifier: "10.0.0.1".parse().unwrap(),
            hold_time: Some(Duration::from_secs(9)),
            keepalive_time: Some(Duration::from_secs(3)),
            four_octet_asn: true,
            ipv4_unicast: true,
            ipv6_unicast: false,
            ipv4_with_ipv6_next_hop: false,
            link_scoped: false,
            route_refresh: true,
            enhanced_refresh: true,
            max_message_len: 4096,
            graceful_restart: false,
            hard_reset: false,
        },
        standing: Standing {
            timers: Some(TimersLeft {
                hold: Duration::from_millis(8500),
                keepalive: Duration::from_millis(2500),
                send_hold: Duration::from_secs(480),
            }),
            held: Duration::from_secs(3600),
            received: Received { updates: 2, prefixes: 3, malformed: 0 },
        },
        since_boot: Duration::from_secs(100_000),
        established_at: "2026-11-28T10:00:00Z".parse().unwrap(),
        unread: vec![0xff, 0xff],
        unwritten: vec![1, 2, 3],
        sent: Sent {
            routes: vec![SentRoutes {
                attributes: Arc::new(RouteAttributes { med: Some(7), ..RouteAttributes::default() }),
                prefixes: vec!["203.0.113.1/32".parse().unwrap(), "203.0.113.2/32".parse().unwrap()],
            }],
            next_hops: NextHops { v4: Some("10.0.0.11".parse().unwrap()), v6: None },
            owes_end_of_rib: BTreeSet::new(),
            owes_refresh: BTreeSet::from([Family::V4]),
            outdated: Vec::new(),
        },
        recovered: None,
        chosen: Some(Kept { v4: None, v6: Some("fd35::11".parse().unwrap()) }),
    }
}

/// A text with this content, its heading right.
fn text(content: &[u8], version: u32) -> Vec<u8> {
    kept_text::write(FORMAT, version, content)
}

#[test]
fn what_was_written_is_read() {
    let written = kept().emit().expect("it has a form");
    assert_eq!(KeptSession::parse(&written), Ok(kept()));
    assert!(written.starts_with(b"crier-bgp-session 1 "), "the first line is for people too");
}

/// What version 1 wrote. Never change it: a later crier takes over the sessions of this one.
const VERSION_1: &str = include_str!("version-1.json");

#[test]
fn a_session_that_the_first_version_wrote_is_read() {
    let as_written = KeptSession { chosen: None, ..kept() };
    assert_eq!(KeptSession::parse(&text(VERSION_1.trim_end().as_bytes(), 1)), Ok(as_written));
}

#[test]
fn a_later_version_is_refused_by_its_number_and_unknown_fields_are_left_out() {
    let content = serde_json::to_vec(&kept()).unwrap();
    let refused = KeptSession::parse(&text(&content, 2)).expect_err("version 2");
    assert_eq!(
        refused.to_string(),
        "it has version 2, and this crier reads versions 1 to 1: another version of crier wrote it"
    );
    let mut value = serde_json::to_value(kept()).unwrap();
    value["of-a-later-crier"] = serde_json::json!([1, 2]);
    assert_eq!(KeptSession::parse(&text(&serde_json::to_vec(&value).unwrap(), 1)), Ok(kept()));
}

#[test]
fn a_text_that_is_cut_off_anywhere_is_refused() {
    let written = kept().emit().unwrap();
    for length in 0..written.len() {
        let refused = KeptSession::parse(&written[..length]).expect_err("it is cut off");
        let of_length = matches!(refused, KeptFault::Text(TextFault::Length { .. } | TextFault::Format(_)));
        assert!(of_length, "{length} octets: {refused}");
    }
    let longer = KeptSession::parse(&[&written[..], b" "].concat()).expect_err("it is longer");
    assert!(matches!(longer, KeptFault::Text(TextFault::Length { .. })), "{longer}");
}

#[test]
fn a_text_with_any_bit_flipped_is_refused() {
    let written = kept().emit().unwrap();
    for place in 0..written.len() {
        for bit in 0..8 {
            let mut flipped = written.clone();
            flipped[place] ^= 1 << bit;
            assert!(KeptSession::parse(&flipped).is_err(), "bit {bit} of octet {place}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_although_its_checksum_is_right() {
    type Change = fn(&mut KeptSession);
    let table: [(&str, Change); 9] = [
        ("the connection is not with the address", |it| it.remote = "10.0.0.2:179".parse().unwrap()),
        ("an AS number is 0", |it| it.negotiated.peer_asn = 0),
        ("the hold time is out of range", |it| it.negotiated.hold_time = Some(Duration::from_secs(2))),
        ("hold time and keepalive time", |it| it.negotiated.keepalive_time = None),
        ("the keepalive time is out of range", |it| it.negotiated.keepalive_time = Some(Duration::ZERO)),
        ("hold time and timers", |it| it.standing.timers = None),
        ("a timer runs longer", |it| it.standing.timers.as_mut().unwrap().hold = Duration::MAX),
        ("no session has such messages", |it| it.negotiated.max_message_len = 0),
        ("more was read ahead", |it| it.unread = vec![0; MOST_UNREAD + 1]),
    ];
    for (why, change) in table {
        let mut session = kept();
        change(&mut session);
        let refused = KeptSession::parse(&session.emit().unwrap()).expect_err(why);
        assert!(refused.to_string().contains(why), "{refused}, not {why}");
    }
    let refused = KeptSession::parse(&text(b"[1]", 1)).expect_err("not a session");
    assert!(refused.to_string().starts_with("its content cannot be read: invalid"), "{refused}");
}

#[test]
fn a_key_counts_as_changed_only_where_both_versions_have_it() {
    let settings = |pairs: &[(&'static str, Option<&str>)]| {
        pairs.iter().map(|(key, value)| (*key, value.map(str::to_owned))).collect::<BTreeMap<_, _>>()
    };
    let changed = |pairs: &[_]| kept().changed_keys(&settings(pairs));
    assert!(changed(&[("asn", Some("64512")), ("vrf", None), ("of-a-later-crier", Some("1"))]).is_empty());
    assert_eq!(changed(&[("asn", Some("64999")), ("vrf", Some("red"))]), ["asn", "vrf"]);
    assert!(changed(&[]).is_empty());
}
