//! The entry points of the fuzz targets over the founders' vectors, the stored corpus, seeded mutations of both and
//! noise, so that `cargo test` alone shows that no octets make a decoder panic or break its promises.

use std::path::{Path, PathBuf};

#[path = "../fuzz/entry.rs"]
mod entry;

use crier::address::MacAddress;
use crier::arp::packet::Frame;
use crier::data_path::packet::{Question, TableFamily};
use crier::names::NodeName;
use crier::pulse::holdings::{Change, Page};
use crier::pulse::packet::{Key, Pulse};
use crier::roster::{Card, Holding, KeyId, L2Number, LinkNumber, NodeTicket, Sessions, Stage};
use fastrand::Rng;

const VECTORS: &str = include_str!("vectors/bgp.json");
const HEADER_LEN: usize = 19;
const ROUNDS: usize = 40_000;

/// The messages of the vectors, as many as have a header.
fn messages() -> Vec<Vec<u8>> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let hex = rows.iter().filter_map(|row| row["hex"].as_str()).filter(|hex| hex.len() > 2 * HEADER_LEN);
    hex.map(octets).collect()
}

fn octets(hex: &str) -> Vec<u8> {
    let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect("hexadecimal");
    hex.as_bytes().chunks(2).map(octet).collect()
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

/// What a target starts from: the vectors that are its business, and the corpus that fuzzing has left.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let first_octet =
        |octet: u8, bodies: Vec<Vec<u8>>| bodies.into_iter().map(move |body| [vec![octet], body].concat());
    let values = |code: u8| {
        let value = move |list: &Vec<u8>| {
            let place = list.windows(2).position(|pair| pair == [0x80, code])?;
            list.get(place + 3..).map(<[u8]>::to_vec)
        };
        attribute_lists().iter().filter_map(value).collect::<Vec<_>>()
    };
    let from_vectors: Vec<_> = match target {
        "frame" => first_octet(0, messages()).collect(),
        "open" => bodies(1),
        "update" => first_octet(0, bodies(2)).collect(),
        "path_attribute" => first_octet(0, attribute_lists()).collect(),
        "mp_reach" => first_octet(0, values(14)).collect(),
        "prefix" => {
            let announced = bodies(2).into_iter().filter_map(|body| body.get(24..).map(<[u8]>::to_vec)).collect();
            let withdrawn = values(15).into_iter().filter_map(|value| value.get(3..).map(<[u8]>::to_vec)).collect();
            first_octet(0, announced).chain(first_octet(1, withdrawn)).collect()
        }
        "notification" => bodies(3),
        "route_refresh" => first_octet(0x20, bodies(5)).collect(),
        "peer_events" => {
            // Dials, is connected, hears a good OPEN and a KEEPALIVE, then the message of the vector.
            let established = [0, 2, 4, 9, 0x2a, 8];
            let event = |message: Vec<u8>| {
                let (header, body) = message.split_at(HEADER_LEN);
                let len = u8::try_from(body.len()).ok()?;
                Some([&established[..], &[10, header[HEADER_LEN - 1], len], body].concat())
            };
            let collision = vec![0x00, 2, 4, 3, 0x19, 0x2a, 9, 0x2a, 8, 0x18, 1, 1, 0xfd];
            messages().into_iter().filter_map(event).chain([collision]).collect()
        }
        "bfd" => {
            let event = |octets: &[u8]| [&[1, u8::try_from(octets.len()).unwrap_or(u8::MAX)], octets].concat();
            let init = event(&octets("208003180000000100000002000493e0000493e000000000"));
            let up = event(&octets("20d003180000000100000002000493e0000493e000000000"));
            let lives = bfd_packets()
                .into_iter()
                .map(|packet| [vec![0x20], init.clone(), up.clone(), event(&packet), init.clone()].concat());
            let keyed = lives.clone().map(|life| [&[0x26], &life[1..]].concat());
            lives.chain(keyed).collect()
        }
        "arp" => frames("192.0.2.1"),
        "ndp" => frames("fd35::1"),
        "router_discovery" => {
            let header = |kind: u8, length: usize| [&[kind][..], &vec![0; length - 1]].concat();
            let option = [1, 1, 2, 0, 0, 0, 0, 1];
            let plain = [header(133, 8), header(134, 16)];
            plain.iter().flat_map(|bare| [bare.clone(), [&bare[..], &option, &option].concat()]).collect()
        }
        "kept_session" => vec![include_bytes!("../src/bgp/kept/version-1.json").to_vec()],
        "nftables" => {
            let (kind, uses) = (0x0a03_u16, [8, 0, 6, 0, 0, 0, 0, 2]);
            let chain = Question::Chain { family: TableFamily::Ipv4, table: "nat", name: "KUBE-SERVICES" }.emit(1);
            let mut present = [&chain[..], &uses].concat();
            let length = u32::try_from(present.len()).unwrap_or_default();
            present[..4].copy_from_slice(&length.to_ne_bytes());
            present[4..6].copy_from_slice(&kind.to_ne_bytes());
            let mut refused = [&chain[..16], &(-2_i32).to_ne_bytes()].concat();
            refused[..6].copy_from_slice(&[20, 0, 0, 0, 2, 0]);
            vec![present, refused]
        }
        "pulse" => {
            let full = full_pulse();
            let bare = Pulse {
                asks: vec![],
                answers: vec![],
                card: None,
                accepts: vec![],
                change: None,
                page: None,
                occupied: vec![],
                egress: None,
                tells_over_bgp: false,
                over_bgp: None,
                sessions: None,
                ..full.clone()
            };
            vec![full.emit(&Key::none()), bare.emit(&Key::none())]
        }
        other => panic!("{other} has nothing to start from"),
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{target}.hex"));
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    from_vectors.into_iter().chain(stored.lines().map(octets)).collect()
}

/// The packets of the vectors of BFD.
fn bfd_packets() -> Vec<Vec<u8>> {
    let rows: Vec<serde_json::Value> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let of_bfd = rows.iter().filter(|row| row["state"].as_str().is_some_and(|state| state.starts_with("BFD")));
    of_bfd.filter_map(|row| row["hex"].as_str()).map(octets).collect()
}

/// The bodies of one type of message.
fn bodies(type_code: u8) -> Vec<Vec<u8>> {
    let of_type = messages().into_iter().filter(|message| message[HEADER_LEN - 1] == type_code);
    of_type.map(|message| message[HEADER_LEN..].to_vec()).collect()
}

/// The octets between the header of an UPDATE and its routes.
fn attribute_lists() -> Vec<Vec<u8>> {
    bodies(2).into_iter().filter_map(|body| body.get(4..).map(<[u8]>::to_vec)).collect()
}

#[test]
fn no_octets_make_a_decoder_or_a_machine_panic_or_break_a_promise() {
    for (name, target) in entry::ALL {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has something to start from");
        seeds.iter().for_each(|seed| target(seed));
        let mut random = Rng::with_seed(0xc41e4);
        for round in 0..ROUNDS {
            let mut octets = match round % 2 {
                0 => random.choice(&seeds).cloned().unwrap_or_default(),
                _ => (0..random.usize(0..64)).map(|_| random.u8(..)).collect(),
            };
            mutate(&mut octets, &mut random);
            target(&octets);
        }
    }
}

#[test]
fn every_target_is_built_by_cargo_fuzz() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for (name, _) in entry::ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is missing in fuzz/Cargo.toml");
    }
    assert_eq!(manifest.matches("[[bin]]").count(), entry::ALL.len(), "and there is no other");
}

/// `CRIER_FUZZ_CORPUS=folder cargo test --test wire_never_panics` gives libFuzzer its start: a folder for each target.
#[test]
fn the_seeds_are_written_where_the_environment_says() {
    let Some(folder) = std::env::var_os("CRIER_FUZZ_CORPUS").map(PathBuf::from) else { return };
    for (name, _) in entry::ALL {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for (number, seed) in seeds(name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).expect("a file can be written");
        }
    }
}

/// A pulse with everything in it.
fn full_pulse() -> Pulse {
    let node = NodeName::from("node-1");
    Pulse {
        key: KeyId::NONE,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        incarnation: 1_700_000_000_000_000,
        sequence: 9,
        interval: std::time::Duration::from_millis(100),
        multiplier: std::num::NonZeroU8::new(3).unwrap(),
        eligibility: crier::roster::Eligibility::Eligible,
        owner: true,
        hello: true,
        hears_api_server: true,
        waits: true,
        receives_nothing: true,
        back_in: Some(std::time::Duration::from_millis(4321)),
        corrects: Some((NodeTicket::of(&node), 1_800_000_000_000_000)),
        card_version: 1,
        holdings_version: 2,
        asks: vec![NodeTicket::of(&node)],
        answers: vec![1, 2],
        card: Some(Card {
            weights: [(L2Number(7), 100)].into(),
            subnets: ["192.0.2.0/24".parse().unwrap(), "fd35::/64".parse().unwrap()].into(),
            ownership_digest: 1,
            allocation_digest: 2,
            given: Some(crier::roster::Given { services: 3, addresses: 4 }),
            lease: Some(5),
            ends: Some(crier::roster::Ends { this: LinkNumber(6), all: [LinkNumber(6), LinkNumber(7)].into() }),
            gateways: ["192.0.2.254".parse().unwrap()].into(),
        }),
        accepts: vec![KeyId(1), KeyId(2)],
        change: Some(Change {
            since: 1,
            held: vec![("192.0.2.1".parse().unwrap(), Holding { weight: 0, stage: Stage::Asks })],
            released: vec!["192.0.2.2".parse().unwrap()],
        }),
        page: Some(Page {
            after: None,
            through: Some("fd35::9".parse().unwrap()),
            held: vec![
                ("192.0.2.3".parse().unwrap(), Holding { weight: 100, stage: Stage::Holds }),
                ("fd35::1".parse().unwrap(), Holding { weight: 0, stage: Stage::Grants { to: NodeTicket(1) } }),
            ],
        }),
        occupied: vec!["192.0.2.9".parse().unwrap(), "fd35::9".parse().unwrap()],
        tells_over_bgp: true,
        over_bgp: Some(Page {
            after: None,
            through: None,
            held: vec![("192.0.2.3".parse().unwrap(), Holding { weight: 0, stage: Stage::Holds })],
        }),
        sessions: Some(Sessions::Away),
        egress: Some(Page {
            after: None,
            through: Some("fd35::1".parse().unwrap()),
            held: vec![("192.0.2.3".parse().unwrap(), Holding { weight: 0, stage: Stage::Holds })],
        }),
        node,
    }
}

/// A frame of each kind about an address of the family.
fn frames(address: &str) -> Vec<Vec<u8>> {
    let (address, mac) = (address.parse().expect("an address"), MacAddress([2, 0, 0, 0, 0, 0x0b]));
    let probe = Frame::probe(address, mac);
    let answer = probe.answer(mac).expect("a probe asks");
    Frame::announcements(address, mac).chain([probe, answer]).map(|frame| frame.emit().as_ref().to_vec()).collect()
}
