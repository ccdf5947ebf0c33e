//! The entry points of the fuzz targets over seeded mutations of the founders' vectors and over noise, so that
//! `cargo test` alone shows that no octets make a decoder panic or break its promises.

#[path = "../fuzz/entry.rs"]
mod entry;

use crier::address::MacAddress;
use crier::arp::frame::Frame;
use fastrand::Rng;

const VECTORS: &str = include_str!("vectors/bgp.json");
const HEADER_LEN: usize = 19;
const ROUNDS: usize = 40_000;

/// The messages of the vectors, as many as have a header.
fn messages() -> Vec<Vec<u8>> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let hex = rows.iter().filter_map(|row| row["hex"].as_str()).filter(|hex| hex.len() > 2 * HEADER_LEN);
    let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect("hexadecimal");
    hex.map(|hex| hex.as_bytes().chunks(2).map(octet).collect()).collect()
}

/// A few octets changed, left out, doubled or put in.
fn mutate(octets: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(0..6) {
        let place = random.usize(0..=octets.len());
        match random.u8(0..5) {
            0 => octets.insert(place, random.u8(..)),
            1 => octets.truncate(place),
            2 if place < octets.len() => octets[place] = random.u8(..),
            3 if place < octets.len() => octets[place] = *random.choice(&[0, 1, 4, 127, 128, 254, 255]).unwrap(),
            4 => {
                let piece = octets[place..].iter().take(random.usize(0..32)).copied().collect::<Vec<_>>();
                octets.splice(place..place, piece);
            }
            _ => {}
        }
    }
}

/// Half mutations of what `seeds` hold, half noise.
fn run(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    assert!(!seeds.is_empty(), "there is something to start from");
    let mut random = Rng::with_seed(0xc41e4);
    for round in 0..ROUNDS {
        let mut octets = match round % 2 {
            0 => random.choice(seeds).cloned().unwrap_or_default(),
            _ => (0..random.usize(0..64)).map(|_| random.u8(..)).collect(),
        };
        mutate(&mut octets, &mut random);
        target(&octets);
    }
}

/// The bodies of one type of message, each behind the octet that chooses the session where `chosen`.
fn bodies(type_code: u8, chosen: bool) -> Vec<Vec<u8>> {
    let of_type = messages().into_iter().filter(|message| message[HEADER_LEN - 1] == type_code);
    let choice: &[u8] = if chosen { &[0] } else { &[] };
    of_type.map(|message| [choice, &message[HEADER_LEN..]].concat()).collect()
}

/// The octets between the header of an UPDATE and its routes.
fn attribute_lists() -> Vec<Vec<u8>> {
    bodies(2, true).into_iter().filter_map(|body| Some([&body[..1], body.get(5..)?].concat())).collect()
}

#[test]
fn no_stream_makes_framing_panic() {
    run(entry::frame, &messages().into_iter().map(|message| [vec![0], message].concat()).collect::<Vec<_>>());
}

#[test]
fn no_octets_make_open_panic() {
    run(entry::open, &bodies(1, false));
}

#[test]
fn no_octets_make_update_panic() {
    run(entry::update, &bodies(2, true));
}

#[test]
fn no_octets_make_a_path_attribute_panic() {
    run(entry::path_attribute, &attribute_lists());
}

#[test]
fn no_octets_make_mp_reach_panic() {
    let value = |list: Vec<u8>| {
        let place = list.windows(2).position(|pair| pair == [0x80, 14])?;
        Some([&[0], list.get(place + 3..)?].concat())
    };
    run(entry::mp_reach, &attribute_lists().into_iter().filter_map(value).collect::<Vec<_>>());
}

#[test]
fn no_octets_make_notification_panic() {
    run(entry::notification, &bodies(3, false));
}

/// A frame of each kind about an address of the family.
fn frames(address: &str) -> Vec<Vec<u8>> {
    let (address, mac) = (address.parse().expect("an address"), MacAddress([2, 0, 0, 0, 0, 0x0b]));
    let probe = Frame::probe(address, mac);
    let answer = probe.answer(mac).expect("a probe asks");
    Frame::announcements(address, mac).chain([probe, answer]).map(|frame| frame.emit().as_ref().to_vec()).collect()
}

#[test]
fn no_frame_makes_arp_panic() {
    run(entry::arp, &frames("192.0.2.1"));
}

#[test]
fn no_frame_makes_ndp_panic() {
    run(entry::ndp, &frames("fd35::1"));
}
