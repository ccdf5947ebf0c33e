//! The founders' byte vectors (`tests/vectors/bgp.json`) against the codec: what crier makes of each, in the words of
//! its `expect` column. Rows that need a session, and those of BFD, are named in `UNJUDGED`, so that none is lost in silence.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bytes::BytesMut;
use crier::bgp::machine::negotiation::Negotiated;
use crier::bgp::wire::{
    AfiSafi, Dialect, Expectation, ExpectedAsn, Frame, Message, Notification, Open, Parsed, ParsedUpdate, Treatment,
    WireError,
};
use crier::community::Community;
use serde::Deserialize;

const VECTORS: &str = include_str!("vectors/bgp.json");

/// Rows that no codec can judge, each with who does.
const UNJUDGED: [(&str, &str); 14] = [
    ("O30", "whether KEEPALIVE may come now is the session's to say"),
    ("O33", "whether OPEN may come now is the session's to say"),
    ("O34", "two connections: collision detection"),
    ("O37", "no octets: the listener"),
    ("B1", "`bfd_vectors`"),
    ("B6", "`bfd_vectors`"),
    ("B7", "`bfd_vectors`"),
    ("B8", "`bfd_vectors`"),
    ("B11", "`bfd_vectors`"),
    ("B12", "`bfd_vectors`"),
    ("B13", "`bfd_vectors`"),
    ("B15", "`bfd_vectors`"),
    ("B17", "`bfd_vectors`"),
    ("B18", "`bfd_vectors`"),
];

#[derive(Deserialize)]
struct Vector {
    id: String,
    state: String,
    what: String,
    hex: String,
    expect: String,
}

/// What becomes of a message, as the `expect` column has it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// `N c/s`, and the data where the row names it.
    Notify { code: u8, subcode: u8, data: Option<Vec<u8>> },
    /// `CLOSE`
    Close,
    /// `TAW`
    Withdraw,
    /// `DISC`
    Discard,
    /// `IGN`
    Ignore,
    /// `OK`
    Fine,
}

impl Outcome {
    /// The first words of the column; what follows them is checked by id further down.
    fn expected(vector: &Vector) -> Outcome {
        let text = vector.expect.as_str();
        if vector.id == "T12" {
            // "route not used; no error": crier uses no route it hears.
            return Outcome::Fine;
        }
        let mut words = text.split([' ', ',', ';']);
        match words.next() {
            Some("N") => {
                let (code, subcode) = words.next().and_then(|codes| codes.split_once('/')).expect(text);
                let data = (words.next() == Some("data")).then(|| octets(words.next().expect(text)));
                Outcome::Notify { code: code.parse().expect(text), subcode: subcode.parse().expect(text), data }
            }
            Some("CLOSE") => Outcome::Close,
            Some("TAW") => Outcome::Withdraw,
            Some("DISC") => Outcome::Discard,
            Some("IGN") => Outcome::Ignore,
            Some("OK") => Outcome::Fine,
            _ => panic!("{}: \"{text}\" begins with no outcome this test knows", vector.id),
        }
    }

    /// A row without data is met by any.
    fn is(&self, expected: &Outcome) -> bool {
        match (self, expected) {
            (
                Outcome::Notify { code, subcode, data: _ },
                Outcome::Notify { code: expected, subcode: expected_subcode, data: None },
            ) => (code, subcode) == (expected, expected_subcode),
            _ => self == expected,
        }
    }
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|digit| u8::try_from(digit.to_digit(16).expect(hex)).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(VECTORS).expect("the vectors are JSON")
}

fn vector(id: &str) -> Vector {
    vectors().into_iter().find(|vector| vector.id == id).expect(id)
}

/// The session that §6 of the reference assumes, as the row's state changes it.
fn dialect(state: &str) -> Dialect {
    if state.starts_with("OpenSent") {
        return Dialect::BEFORE_OPEN;
    }
    let negotiated = Negotiated {
        local_asn: 65001,
        peer_asn: if state.contains("iBGP") { 65001 } else { 65002 },
        peer_identifier: Ipv4Addr::new(10, 0, 0, 2),
        hold_time: None,
        keepalive_time: None,
        four_octet_asn: !state.contains("2-octet"),
        ipv4_unicast: true,
        ipv6_unicast: true,
        ipv4_with_ipv6_next_hop: false,
        link_scoped: state.contains("scoped"),
        route_refresh: true,
        enhanced_refresh: false,
        max_message_len: 4096,
        graceful_restart: false,
        hard_reset: false,
    };
    negotiated.dialect()
}

fn expectation(state: &str) -> Expectation {
    let peer_asn = if state.contains("iBGP") { ExpectedAsn::Internal } else { ExpectedAsn::Is(65002) };
    Expectation { local_asn: 65001, local_identifier: Ipv4Addr::new(10, 0, 0, 1), peer_asn }
}

/// Every message in the octets, or the first error; the stream comes in reads of `size` octets.
fn read(octets: &[u8], dialect: &Dialect, size: usize) -> Result<Vec<Parsed>, WireError> {
    let mut stream = BytesMut::new();
    let mut messages = Vec::new();
    for read in octets.chunks(size) {
        stream.extend_from_slice(read);
        while let Some(frame) = Frame::parse(&mut stream, dialect.max_message_len)? {
            messages.push(Message::parse(frame.octets(), dialect)?);
        }
    }
    assert!(stream.is_empty(), "{} octets left over", stream.len());
    Ok(messages)
}

fn messages(vector: &Vector, dialect: &Dialect) -> Result<Vec<Parsed>, WireError> {
    let octets = octets(&vector.hex);
    let whole = read(&octets, dialect, octets.len().max(1));
    assert_eq!(whole, read(&octets, dialect, 1), "{}: the split into reads made a difference", vector.id);
    let messages = whole?;
    for message in &messages {
        if let Parsed::Open(open) = message {
            open.acceptable(&expectation(&vector.state))?;
        }
    }
    Ok(messages)
}

fn outcome(vector: &Vector, dialect: &Dialect) -> Outcome {
    match messages(vector, dialect) {
        Err(error) => match error.notification() {
            Some(Notification { reason, data }) => {
                Outcome::Notify { code: reason.code(), subcode: reason.subcode(), data: Some(data) }
            }
            None => Outcome::Close,
        },
        Ok(messages) => match messages.as_slice() {
            [Parsed::Notification(_)] => Outcome::Close,
            [Parsed::Update(parsed)] => update_outcome(parsed),
            [Parsed::RouteRefresh(refresh)] if !dialect.negotiated(refresh.family) => Outcome::Ignore,
            _ => Outcome::Fine,
        },
    }
}

fn update_outcome(parsed: &ParsedUpdate) -> Outcome {
    let reach = parsed.update.mp_reach.iter().flat_map(|reach| &reach.prefixes);
    let has_routes = parsed.update.announced.iter().chain(reach).next().is_some();
    match parsed.complaints.iter().map(|complaint| complaint.treatment).max() {
        // "must withdraw, not just skip": the prefixes must still be there to be withdrawn.
        Some(Treatment::WithdrawAll) if parsed.withdraw_all && has_routes => Outcome::Withdraw,
        Some(Treatment::DiscardAttribute) if !parsed.withdraw_all && has_routes => Outcome::Discard,
        Some(Treatment::IgnoreRoutes) if !parsed.withdraw_all => Outcome::Ignore,
        None if !parsed.withdraw_all => Outcome::Fine,
        treatment => panic!("{treatment:?} disagrees with {parsed:?}"),
    }
}

#[test]
fn every_vector_ends_as_its_row_says() {
    let mut wrong = Vec::new();
    for vector in vectors() {
        if UNJUDGED.iter().any(|(id, _)| *id == vector.id) {
            continue;
        }
        let (actual, expected) = (outcome(&vector, &dialect(&vector.state)), Outcome::expected(&vector));
        if !actual.is(&expected) {
            wrong.push(format!("{} ({}): {actual:?}, expected \"{}\"", vector.id, vector.what, vector.expect));
        }
    }
    assert!(wrong.is_empty(), "{} rows are judged wrongly:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_vector_is_judged_or_named_with_a_reason() {
    let mut rows: BTreeMap<_, _> = vectors().into_iter().map(|vector| (vector.id.clone(), vector)).collect();
    assert_eq!(rows.len(), 113, "the table has as many rows as the reference says, and no id twice");
    for (id, reason) in UNJUDGED {
        assert!(rows.remove(id).is_some(), "{id} ({reason}) is in the table");
    }
    assert_eq!(rows.len(), 99, "all others are judged");
    assert!(rows.keys().all(|id| !id.starts_with('B')), "no BFD row is taken for BGP");
}

// What the rows say beyond their first word.

fn open(id: &str) -> Open {
    let vector = vector(id);
    match messages(&vector, &dialect(&vector.state)).as_deref() {
        Ok([Parsed::Open(open)]) => open.clone(),
        other => panic!("{id} is an OPEN: {other:?}"),
    }
}

fn update(id: &str) -> ParsedUpdate {
    let vector = vector(id);
    match messages(&vector, &dialect(&vector.state)).as_deref() {
        Ok([Parsed::Update(update)]) => update.clone(),
        other => panic!("{id} is an UPDATE: {other:?}"),
    }
}

fn notification(id: &str) -> Notification {
    let vector = vector(id);
    match messages(&vector, &dialect(&vector.state)).as_deref() {
        Ok([Parsed::Notification(notification)]) => notification.clone(),
        other => panic!("{id} is a NOTIFICATION: {other:?}"),
    }
}

fn prefixes(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

#[test]
fn h12_is_three_messages() {
    let vector = vector("H12");
    let messages = messages(&vector, &dialect(&vector.state)).expect("all three are good");
    assert!(matches!(messages.as_slice(), [Parsed::Keepalive, Parsed::Update(_), Parsed::Keepalive]), "{messages:?}");
}

#[test]
fn opens_say_what_their_rows_say() {
    assert_eq!(open("O8").hold_time_secs, 0);
    assert_eq!(open("O9").hold_time_secs, 3);
    assert_eq!(open("O21").capabilities.len(), 3, "the unknown capability is kept");
    assert!(open("O22").offers(AfiSafi::IPV4_UNICAST) && !open("O22").offers(AfiSafi::IPV6_UNICAST));
    assert_eq!(open("O23").graceful_restart().map(|restart| restart.restart_time_secs), Some(60), "the last one wins");
    let one_each = open("O24");
    assert_eq!(one_each.capabilities.len(), 3);
    assert!(one_each.offers(AfiSafi::IPV6_UNICAST) && one_each.four_octet_asn() == Some(65002));
    let bare = open("O25");
    assert!(bare.offers(AfiSafi::IPV4_UNICAST) && bare.four_octet_asn().is_none());
}

#[test]
fn updates_say_what_their_rows_say() {
    let site = prefixes(&["203.0.113.0/24"]);
    assert!(update("U9").update.announced.is_empty(), "the multicast prefix is left out");
    assert_eq!(update("U11").end_of_rib, Some(AfiSafi::IPV6_UNICAST));
    assert_eq!(update("U13").update.announced, site, "found by the length of the whole list");
    let both = update("U15").update;
    assert_eq!((both.announced, both.withdrawn), (site.clone(), Vec::new()), "announced");
    assert_eq!(update("A9").update.announced, site, "there to be withdrawn");
    assert_eq!(update("A11").update.attributes.unknown.len(), 1);
    assert!(update("A12").update.attributes.unknown.is_empty());
    assert_eq!(update("A16").complaints.len(), 2, "both faults are told");
    let large = Community::Large { global: 65002, local1: 1, local2: 2 };
    assert_eq!(update("T35").update.attributes.communities, [large], "without the repetition");
    let path =
        |id| update(id).update.attributes.as_path.expect("there is a path").iter().map(ToString::to_string).collect();
    let (own, four, two): (Vec<_>, Vec<_>, Vec<_>) = (path("T12"), path("T36"), path("T37"));
    assert_eq!((own, four, two), (vec!["65002 65001".into()], vec!["65002".into()], vec!["65002".into()]));
}

#[test]
fn multiprotocol_routes_are_found_where_their_rows_say() {
    let v6 = prefixes(&["2001:db8:1::/48"]);
    for id in ["P6", "P7", "P8", "P9", "P13", "P14"] {
        let reach = update(id).update.mp_reach.unwrap_or_else(|| panic!("{id} reaches"));
        assert_eq!((reach.family, &reach.prefixes), (AfiSafi::IPV6_UNICAST, &v6), "{id}");
    }
    assert!(update("P7").update.announced.is_empty());
    assert_eq!(update("P8").update.announced, prefixes(&["203.0.113.0/24"]), "both families");
    let unscoped = outcome(&vector("P13"), &dialect("Established"));
    assert_eq!(unscoped, Outcome::Withdraw, "a link-local next hop needs a link");
}

#[test]
fn notifications_are_logged_as_their_rows_say() {
    assert_eq!(notification("N2").to_string(), "Cease, Administrative Shutdown (6/2): \"hello\"");
    assert_eq!(notification("N3").to_string(), "Cease, Administrative Shutdown (6/2), data c8616263");
    assert_eq!(notification("N4").text(), Some("x".repeat(255)), "all of it");
    assert_eq!(notification("N5").to_string(), "Cease, Administrative Reset (6/4): \"\\xff\\xfe\\xfd\"");
    assert_eq!(notification("N8").text(), None);
    assert_eq!(notification("N10").to_string(), "Send Hold Timer Expired (8/0)");
    let unsupported = notification("N12").to_string();
    assert!(unsupported.ends_with("Unsupported Capability (2/7), data 010400020001"), "{unsupported}");
}
