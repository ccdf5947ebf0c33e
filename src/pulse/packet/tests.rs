//! What a pulse is on the wire, octet for octet, and how it may grow. Floor 1.

use super::*;
use crate::roster::Stage;

fn key() -> Key {
    Key::of_secret(b"0123456789abcdef").unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holding(weight: u32, stage: Stage) -> Holding {
    Holding { weight, stage }
}

fn full() -> Pulse {
    let to = NodeTicket::of(&"node-2".into());
    Pulse {
        key: KeyId::NONE,
        node: "node-1".into(),
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        incarnation: 1_700_000_000_000_000,
        sequence: 7,
        interval: Duration::from_millis(100),
        multiplier: NonZeroU8::new(3).unwrap(),
        eligibility: Eligibility::Eligible,
        owner: true,
        hello: false,
        hears_api_server: true,
        waits: true,
        receives_nothing: true,
        card_version: 5,
        holdings_version: 6,
        asks: vec![to],
        answers: vec![1, u64::MAX],
        card: Some(Card {
            weights: [(L2Number(7), 100), (L2Number(9), 0)].into(),
            subnets: ["192.0.2.1/24".parse().unwrap(), "fd35::1/64".parse().unwrap()].into(),
            ownership_digest: 11,
            allocation_digest: 12,
            given: Some(Given { services: 13, addresses: 14 }),
            lease: Some(15),
            ends: Some(Ends { this: LinkNumber(16), all: [LinkNumber(16), LinkNumber(17)].into() }),
            gateways: [address("192.0.2.254"), address("fd35::fe")].into(),
        }),
        accepts: vec![KeyId(8), KeyId(u32::MAX)],
        change: Some(Change {
            since: 4,
            held: vec![(address("192.0.2.8"), holding(0, Stage::Grants { to }))],
            released: vec![address("192.0.2.7")],
        }),
        page: Some(Page {
            after: None,
            through: Some(address("fd35::1")),
            held: vec![
                (address("192.0.2.1"), holding(0, Stage::Holds)),
                (address("192.0.2.2"), holding(0, Stage::Holds)),
                (address("fd35::1"), holding(100, Stage::Asks)),
            ],
        }),
        occupied: vec![address("192.0.2.9"), address("fd35::9")],
        egress: Some(Page {
            after: Some(address("192.0.2.1")),
            through: None,
            held: vec![
                (address("192.0.2.2"), holding(0, Stage::Holds)),
                (address("fd35::2"), holding(0, Stage::Holds)),
            ],
        }),
        tells_over_bgp: true,
        over_bgp: Some(Page {
            after: None,
            through: None,
            held: vec![(address("192.0.2.3"), holding(0, Stage::Holds))],
        }),
        sessions: Some(Sessions::Missing),
        back_in: Some(Duration::from_millis(4321)),
        corrects: Some((to, 1 << 50)),
    }
}

fn bare() -> Pulse {
    Pulse {
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
        back_in: None,
        corrects: None,
        ..full()
    }
}

#[test]
fn what_is_emitted_is_read_back_sealed_or_not() {
    let unweighted = Pulse { card: Some(Card::default()), ..bare() };
    let empty = Pulse { page: Some(Page { after: None, through: None, held: vec![] }), ..bare() };
    for pulse in [full(), bare(), unweighted, empty, Pulse { eligibility: Eligibility::Unknown(99), ..full() }] {
        for key in [key(), Key::none()] {
            let sealed = Pulse { key: key.id(), ..pulse.clone() };
            assert_eq!(Pulse::parse(&pulse.emit(&key), &key.into()), Ok(sealed));
        }
    }
}

#[test]
fn every_altered_octet_is_found_out() {
    let octets = full().emit(&key());
    let keys = Keys::from(key());
    for place in 0..octets.len() {
        for bit in 0..8 {
            let mut altered = octets.clone();
            altered[place] ^= 1 << bit;
            assert!(Pulse::parse(&altered, &keys).is_err(), "octet {place} bit {bit}");
        }
        assert!(Pulse::parse(&octets[..place], &keys).is_err(), "cut to {place} octets");
    }
}

#[test]
fn another_key_no_seal_and_a_forged_seal_are_told_apart() {
    let other = Key::of_secret(b"another key of 32 octets........").unwrap();
    let forged = {
        let mut octets = full().emit(&key());
        *octets.last_mut().unwrap() ^= 1;
        octets
    };
    let table = [
        (full().emit(&other), key(), Refused::OtherKey),
        (full().emit(&Key::none()), key(), Refused::Unauthenticated),
        (full().emit(&key()), Key::none(), Refused::OtherKey),
        (forged, key(), Refused::Forged),
        (b"hello".to_vec(), key(), Refused::Malformed),
    ];
    for (octets, key, expected) in table {
        assert_eq!(Pulse::parse(&octets, &key.into()), Err(expected));
    }
    assert!(Key::of_secret(b"too short").is_none());
    assert_eq!(format!("{:?}", key()), "Key(...)");
}

#[test]
fn while_a_key_is_changed_both_are_believed_and_a_third_is_not() {
    let keys = ["the first key of all....", "the second key of all...", "the third key of all...."];
    let [old, new, third] = keys.map(|secret| Key::of_secret(secret.as_bytes()).unwrap());
    let accepts_both = Keys::new(new.clone(), vec![old.clone()]);
    let sealed = |key: &Key| Pulse { key: key.id(), ..full() };
    assert_eq!(Pulse::parse(&full().emit(&old), &accepts_both), Ok(sealed(&old)));
    assert_eq!(Pulse::parse(&full().emit(&new), &accepts_both), Ok(sealed(&new)));
    assert_eq!(Pulse::parse(&full().emit(&third), &accepts_both), Err(Refused::OtherKey));
    assert_eq!(Pulse::parse(&full().emit(&Key::none()), &accepts_both), Err(Refused::Unauthenticated));
}

#[test]
fn the_longest_pulse_fits_into_one_packet_of_any_link() {
    for name in [LONGEST_NAME, LONGEST_NAME - (SECTION_HEADER + 5 + 4 * MOST_ENDS) - (SECTION_HEADER + 1)] {
        the_longest_fits("n".repeat(name).as_str().into(), name < LONGEST_NAME);
    }
}

fn the_longest_fits(node: NodeName, has_ends: bool) {
    let mut longest = Pulse {
        node,
        asks: vec![NodeTicket(1); 500],
        answers: vec![2; 500],
        card: Some(Card {
            weights: (0..500).map(|number| (L2Number(number), 1)).collect(),
            subnets: (0..500u32)
                .map(|number| IpNet::new(std::net::Ipv6Addr::from_bits(u128::from(number) << 64).into(), 64).unwrap())
                .collect(),
            given: Some(Given { services: u64::MAX, addresses: u64::MAX }),
            lease: Some(u64::MAX),
            ends: Some(Ends { this: LinkNumber(0), all: (1..17).map(LinkNumber).collect() }),
            gateways: (0..500u32).map(|number| IpAddr::V6(u128::from(number).into())).collect(),
            ..Card::default()
        }),
        accepts: vec![KeyId(3); 500],
        change: None,
        page: None,
        occupied: vec![address("fd35::2"); 500],
        // It is told where there is room for it.
        egress: None,
        tells_over_bgp: false,
        over_bgp: None,
        ..full()
    };
    let mut teller = super::super::holdings::Teller::default();
    let far_apart = |number: u32| IpAddr::V6(std::net::Ipv6Addr::from_bits(u128::from(number * 3)));
    teller.set(&(0..1000).map(|number| (far_apart(number), holding(number % 2, Stage::Holds))).collect());
    longest.page = Some(teller.page(longest.room()));
    let octets = longest.emit(&key());
    assert!(octets.len() <= LONGEST, "{} octets", octets.len());
    let read = Pulse::parse(&octets, &key().into()).unwrap();
    assert_eq!((read.asks.len(), read.answers.len()), (MOST_NUMBERS - CORRECTION_ASKS, MOST_NUMBERS));
    let counts = |card: &Card| (card.weights.len(), card.subnets.len(), card.gateways.len());
    assert_eq!(read.card.as_ref().map(counts), Some((32, 6, 2)));
    let ends = |pulse: &Pulse| pulse.card.as_ref().and_then(|card| card.ends.clone());
    assert_eq!(ends(&read), ends(&longest).filter(|_| has_ends), "a name that is too long leaves no room for them");
    assert_eq!(read.sessions, longest.sessions.filter(|_| has_ends), "as above");
    assert_eq!(read.occupied, longest.occupied[..MOST_OCCUPIED]);
    assert_eq!(read.accepts, longest.accepts[..MOST_KEYS]);
    assert_eq!(read.page, longest.page);
    for _ in 0..200 {
        let mut pulse = Pulse { card: None, change: teller.change(300), ..longest.clone() };
        pulse.page = Some(teller.page(pulse.room()));
        assert!(pulse.emit(&key()).len() <= LONGEST);
        assert_eq!(Pulse::parse(&pulse.emit(&key()), &key().into()).unwrap().page, pulse.page);
    }
}

/// What the next version of crier may do, and this one has to live with.
#[test]
fn a_pulse_of_a_later_crier_that_says_more_is_read_without_what_is_not_known() {
    let with = |more: &[u8]| [bare().emit(&Key::none()).as_slice(), more].concat();
    let later = [200, 0, 2, 1, 2, 201, 0, 0];
    assert_eq!(Pulse::parse(&with(&later), &Key::none().into()), Ok(bare()), "sections of unknown types are skipped");
    let mut octets = bare().emit(&Key::none());
    octets[3] |= 0x80;
    assert_eq!(Pulse::parse(&octets, &Key::none().into()), Ok(bare()), "a flag that is not known is not set");
}

/// Nodes of a version that knows nothing of a change of keys are on the link too.
#[test]
fn a_reader_that_does_not_know_the_section_of_keys_reads_all_the_rest() {
    let says = Pulse { accepts: vec![KeyId(1), KeyId(2)], ..full() };
    let silent = Pulse { accepts: vec![], ..full() };
    let (with, without) = (says.emit(&Key::none()), silent.emit(&Key::none()));
    // One whole section more, with its type and its length, and not an octet else.
    let section = [SECTION_KEYS, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2];
    let at = with.windows(section.len()).position(|octets| octets == section).expect("the section is there");
    assert_eq!([&with[..at], &with[at + section.len()..]].concat(), without);
    let mut unknown = with;
    unknown[at] = 200;
    assert_eq!(Pulse::parse(&unknown, &Key::none().into()), Ok(silent));
}

/// As above, for the crier that a node serves.
#[test]
fn a_reader_that_does_not_know_of_several_criers_reads_all_the_rest() {
    let silent = Pulse { card: full().card.map(|card| Card { lease: None, ..card }), ..full() };
    let mut with = full().emit(&Key::none());
    let section = [SECTION_LEASE, 0, 8, 0, 0, 0, 0, 0, 0, 0, 15];
    let at = with.windows(section.len()).position(|octets| octets == section).expect("the section is there");
    with[at] = 200;
    assert_eq!(Pulse::parse(&with, &Key::none().into()), Ok(silent.clone()));
    with.drain(at..at + section.len());
    assert_eq!(with, silent.emit(&Key::none()));
}

/// As above, for a node whose clock went back.
#[test]
fn a_reader_that_does_not_know_of_corrections_reads_all_the_rest() {
    let silent = Pulse { corrects: None, ..full() };
    let (with, without) = (full().emit(&Key::none()), silent.emit(&Key::none()));
    let at = with.windows(3).position(|octets| octets == [SECTION_CORRECTS, 0, 16]).expect("the section is there");
    assert_eq!([&with[..at], &with[at + 3 + 16..]].concat(), without);
    let mut unknown = with;
    unknown[at] = 200;
    assert_eq!(Pulse::parse(&unknown, &Key::none().into()), Ok(silent));
}

/// As above, for BGP sessions; and a word of a later version about them says nothing.
#[test]
fn a_reader_that_does_not_know_of_sessions_reads_all_the_rest() {
    for (sessions, code) in [(Sessions::Stand, 0), (Sessions::Missing, 1), (Sessions::Away, 2)] {
        let says = Pulse { sessions: Some(sessions), ..full() };
        let silent = Pulse { sessions: None, ..full() };
        let (with, without) = (says.emit(&Key::none()), silent.emit(&Key::none()));
        let section = [SECTION_SESSIONS, 0, 1, code];
        let at = with.windows(section.len()).position(|octets| octets == section).expect("the section is there");
        assert_eq!([&with[..at], &with[at + section.len()..]].concat(), without);
        assert_eq!(Pulse::parse(&with, &Key::none().into()), Ok(says));
        let (mut unknown, mut later) = (with.clone(), with);
        unknown[at] = 200;
        later[at + 3] = 77;
        for octets in [unknown, later] {
            assert_eq!(Pulse::parse(&octets, &Key::none().into()), Ok(silent.clone()));
        }
    }
}

/// As above, for the gateways of a link.
#[test]
fn a_reader_that_does_not_know_of_gateways_reads_all_the_rest() {
    let card = full().card.map(|card| Card { gateways: [].into(), ..card });
    let silent = Pulse { card, ..full() };
    let (with, without) = (full().emit(&Key::none()), silent.emit(&Key::none()));
    let at = with.windows(3).position(|octets| octets == [SECTION_GATEWAYS, 0, 22]).expect("the section is there");
    assert_eq!([&with[..at], &with[at + 3 + 22..]].concat(), without);
    let mut unknown = with;
    unknown[at] = 200;
    assert_eq!(Pulse::parse(&unknown, &Key::none().into()), Ok(silent));
}

/// As above, for a node that restarts: one of an earlier version takes such a pulse for any other, and says that it does.
#[test]
fn a_reader_that_does_not_know_of_restarts_reads_all_the_rest_and_says_that_it_waits_for_nobody() {
    let silent = Pulse { back_in: None, ..full() };
    let (with, without) = (full().emit(&Key::none()), silent.emit(&Key::none()));
    let [high, low] = 4321_u16.to_be_bytes();
    let section = [SECTION_BACK, 0, 2, high, low];
    let at = with.windows(section.len()).position(|octets| octets == section).expect("the section is there");
    assert_eq!([&with[..at], &with[at + section.len()..]].concat(), without);
    let mut unknown = with;
    unknown[at] = 200;
    assert_eq!(Pulse::parse(&unknown, &Key::none().into()), Ok(silent));

    let mut earlier = bare().emit(&Key::none());
    earlier[3] &= !FLAG_WAITS;
    assert_eq!(Pulse::parse(&earlier, &Key::none().into()), Ok(Pulse { waits: false, ..bare() }));
}

/// As above, for what a node gives that has no API server.
#[test]
fn a_reader_that_does_not_know_what_a_node_gives_reads_all_the_rest() {
    let card = full().card.map(|card| Card { given: None, ..card });
    let silent = Pulse { card, ..full() };
    let (with, without) = (full().emit(&Key::none()), silent.emit(&Key::none()));
    let section = [SECTION_GIVEN, 0, 16, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 14];
    let at = with.windows(section.len()).position(|octets| octets == section).expect("the section is there");
    assert_eq!([&with[..at], &with[at + section.len()..]].concat(), without);
    let mut unknown = with;
    unknown[at] = 200;
    assert_eq!(Pulse::parse(&unknown, &Key::none().into()), Ok(silent));
    let without_card = [bare().emit(&Key::none()).as_slice(), &section].concat();
    assert_eq!(Pulse::parse(&without_card, &Key::none().into()), Ok(bare()), "it is a part of the card");
}

/// As above, for the links that a node serves. Of more than a pulse names none is told: a reader has to know all of them.
#[test]
fn a_reader_that_does_not_know_of_other_links_reads_all_the_rest() {
    let with_ends = |ends| Pulse { card: full().card.map(|card| Card { ends, ..card }), ..full() };
    let (with, without) = (full().emit(&Key::none()), with_ends(None).emit(&Key::none()));
    let section = [SECTION_ENDS, 0, 13, 0, 0, 0, 16, 2, 0, 0, 0, 16, 0, 0, 0, 17];
    let at = with.windows(section.len()).position(|octets| octets == section).expect("the section is there");
    assert_eq!([&with[..at], &with[at + section.len()..]].concat(), without);
    let mut unknown = with;
    unknown[at] = 200;
    assert_eq!(Pulse::parse(&unknown, &Key::none().into()), Ok(with_ends(None)));
    let too_many = Ends { this: LinkNumber(1), all: (0..17).map(LinkNumber).collect() };
    assert_eq!(with_ends(Some(too_many)).emit(&Key::none()), without);
    let later = [SECTION_CARD, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 6, 0, 0, 0, 1, 0, 9];
    let read = Pulse::parse(&[bare().emit(&Key::none()).as_slice(), &later].concat(), &Key::none().into());
    let ends = read.unwrap().card.and_then(|card| card.ends);
    assert_eq!(ends, Some(Ends { this: LinkNumber(1), all: [].into() }), "a later version says more");
}

#[test]
fn a_time_of_a_restart_is_read_whatever_it_is_and_zero_is_none() {
    let read = |section: &[u8]| {
        let octets = [bare().emit(&Key::none()).as_slice(), section].concat();
        Pulse::parse(&octets, &Key::none().into()).unwrap().back_in
    };
    assert_eq!(read(&[SECTION_BACK, 0, 2, 0, 0]), None);
    assert_eq!(read(&[SECTION_BACK, 0, 2, 0xff, 0xff]), Some(Duration::from_millis(65_535)));
    assert_eq!(read(&[SECTION_BACK, 0, 3, 0, 9, 1]), Some(Duration::from_millis(9)), "a later version says more");
    let said = |back_in| Pulse { back_in: Some(back_in), ..bare() }.emit(&Key::none());
    assert_eq!(said(Duration::from_micros(999)), bare().emit(&Key::none()), "less than can be said is not said");
    let hour = Pulse::parse(&said(Duration::from_secs(3600)), &Key::none().into()).unwrap().back_in;
    assert_eq!(hour, Some(Duration::from_millis(65_535)), "nor more");
}

#[test]
fn of_more_keys_than_a_node_may_accept_the_last_are_left_out() {
    let mut octets = bare().emit(&Key::none());
    let ids: Vec<u8> = (1..=9u32).flat_map(u32::to_be_bytes).collect();
    put_section(&mut octets, SECTION_KEYS, &ids);
    let read = Pulse::parse(&octets, &Key::none().into()).unwrap();
    assert_eq!(read.accepts, (1..=8).map(KeyId).collect::<Vec<_>>());
    let key = |number: u8| Key::of_secret(&[number; Key::LEAST]).unwrap();
    let keys = Keys::new(key(0), (0..20).map(key).collect());
    assert_eq!(keys.ids(), (0..8).map(|number| key(number).id()).collect::<Vec<_>>(), "a key counts once");
}

#[test]
fn nonsense_is_refused() {
    let with = |more: &[u8]| [bare().emit(&Key::none()).as_slice(), more].concat();
    let nonsense: [&[u8]; 14] = [
        &[SECTION_ENDS, 0, 6, 0, 0, 0, 1, 1, 9],
        &[SECTION_GIVEN, 0, 2, 1, 2],
        &[SECTION_BACK, 0, 1, 9],
        &[SECTION_OCCUPIED, 0, 2, 4, 1],
        &[200, 0, 2, 1],
        &[SECTION_ASKS, 0, 3, 1, 2, 3],
        &[SECTION_CARD, 0, 4, 0, 0, 0, 0],
        &[SECTION_CARD, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[SECTION_CHANGE, 0, 7, 0, 0, 0, 1, 0, 9, 4],
        &[SECTION_CHANGE, 0, 7, 0, 0, 0, 1, 0, 0, 9],
        &[SECTION_PAGE, 0, 1, 0],
        &[SECTION_PAGE, 0, 4, 0, 0, 7, 7],
        &[SECTION_PAGE],
        &[SECTION_KEYS, 0, 5, 0, 0, 0, 1, 0],
    ];
    for octets in nonsense {
        assert_eq!(Pulse::parse(&with(octets), &Key::none().into()), Err(Refused::Malformed), "{octets:?}");
    }
}
