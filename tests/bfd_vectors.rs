//! The founders' byte vectors of BFD (`tests/vectors/bgp.json`) against packet and machine: what becomes of each, in the words of its
//! `expect` column. The session is the one that the column speaks of: ours has number 2, the peer's number 1.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use crier::bfd::discard::Discard;
use crier::bfd::machine::{Action, Cause, Session};
use crier::bfd::packet::Packet;
use crier::bfd::settings::Settings;
use crier::bfd_state::{BfdState, Diagnostic};
use crier::clock;
use serde::Deserialize;

const VECTORS: &str = include_str!("vectors/bgp.json");

#[derive(Deserialize)]
struct Vector {
    id: String,
    state: String,
    hex: String,
    expect: String,
}

fn octets(hex: &str) -> Vec<u8> {
    let octet = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(octet).collect()
}

fn session(state: &str) -> Session {
    let now = clock::now();
    let settings = Settings {
        transmit_interval: Duration::from_millis(300),
        receive_interval: Duration::from_millis(200),
        multiplier: NonZeroU8::new(5).unwrap(),
        passive: false,
        key: None,
        old_key: None,
    };
    let mut session = Session::new(settings, NonZeroU32::new(2).unwrap(), 1, now);
    if state == "BFD Up" {
        // State Init: the peer hears us.
        let init = octets("208003180000000100000002000493e0000493e000000000");
        session.handle_packet(&Packet::parse(&init).unwrap(), &init, now).expect("a good packet");
        let fin = octets("20d003180000000100000002000493e0000493e000000000");
        session.handle_timeout(now);
        session.handle_packet(&Packet::parse(&fin).unwrap(), &fin, now).expect("a good packet");
    }
    session
}

fn heard(session: &mut Session, octets: &[u8]) -> Result<Option<Action>, Discard> {
    let packet = Packet::parse(octets)?;
    session.handle_packet(&packet, octets, clock::now())
}

#[test]
fn every_vector_of_bfd_ends_as_its_row_says() {
    let rows: Vec<Vector> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let rows: Vec<Vector> = rows.into_iter().filter(|row| row.state.starts_with("BFD")).collect();
    assert_eq!(rows.len(), 10, "the table has ten rows of BFD");
    for Vector { id, state, hex, expect } in rows {
        let mut session = session(&state);
        let before = session.state();
        assert_eq!(before, if state == "BFD Up" { BfdState::Up } else { BfdState::Down }, "{id}");
        let outcome = heard(&mut session, &octets(&hex));
        let changed = |after: BfdState, cause: Cause| Ok(Some(Action::Changed { before, after, cause }));
        match id.as_str() {
            "B1" => {
                assert_eq!(outcome, Ok(None), "{id}: {expect}");
                // Their 3 times the greater of our 200 ms and their 300 ms.
                assert_eq!(session.detection_time(), Some(Duration::from_millis(900)), "{id}");
            }
            "B6" => assert_eq!(outcome, Err(Discard::UnexpectedAuthentication), "{id}: {expect}"),
            "B7" => assert_eq!(outcome, Err(Discard::Multiplier), "{id}: {expect}"),
            "B8" => assert_eq!(outcome, Err(Discard::Multipoint), "{id}: {expect}"),
            "B11" => assert_eq!(outcome, Err(Discard::UnknownDiscriminator), "{id}: {expect}"),
            "B12" => {
                assert_eq!(outcome, changed(BfdState::Down, Cause::SignaledDown(Diagnostic::None)), "{id}: {expect}");
                assert!(Cause::SignaledDown(Diagnostic::None).is_loss(), "{id}: BGP is told");
                assert_eq!(session.diagnostic().number(), 3, "{id}");
            }
            "B13" => {
                assert_eq!(outcome, changed(BfdState::Down, Cause::PeerAdminDown), "{id}: {expect}");
                assert!(!Cause::PeerAdminDown.is_loss(), "{id}: BGP is not reset");
                assert_eq!(session.diagnostic().number(), 3, "{id}");
            }
            "B15" => assert_eq!(outcome, changed(BfdState::Init, Cause::Heard), "{id}: {expect}"),
            "B17" => {
                assert_eq!(outcome, Ok(None), "{id}: {expect}");
                let answers = session.handle_timeout(clock::now() + Duration::from_millis(5));
                let is_final = |action: &Action| matches!(action, Action::Send(packet) if packet.fin && !packet.poll);
                assert!(answers.iter().any(is_final), "{id}: {answers:?}");
            }
            "B18" => {
                assert_eq!((outcome, session.transmit_interval()), (Ok(None), None), "{id}: {expect}");
                assert_eq!(session.state(), BfdState::Up, "{id}");
            }
            other => panic!("nobody judges {other}: {expect}"),
        }
    }
}
