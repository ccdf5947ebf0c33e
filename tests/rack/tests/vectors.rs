//! The founders' vectors over live sessions: an independent peer plays each against crier, BIRD and FRR side by side,
//! one peer address for each vector. crier must be right in every one; the score of all three is told.
//!
//! What the codec makes of the same vectors is judged by crier's own `tests/wire_vectors.rs`.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use rack::crier::Crier;
use rack::frr::Frr;
use rack::script::{self, Heard, Script};
use rack::{Deadline, Manifests, Namespace, Need, Rack, Service, eventually, millis, net, rest, secs};

const VECTORS: &str = include_str!("../../vectors/bgp.json");

/// The speaker under test; every peer address is in its subnet.
const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// What it announces to everybody: hearing it again, after having asked for it, shows that a session works.
const PROBE: [u8; 5] = [32, 198, 51, 100, 7];
/// Vectors that are played at a time.
const HANDS: usize = 24;

/// Long enough for any answer, however busy the machine is.
const SOON: Duration = secs(15);

#[derive(Clone)]
struct Vector {
    id: String,
    state: String,
    octets: Vec<u8>,
    expect: String,
    peer: Ipv4Addr,
}

impl Vector {
    fn is_internal(&self) -> bool {
        self.state.contains("iBGP")
    }

    /// The peer's number and name in configurations.
    fn name(&self) -> String {
        format!("peer-{}", self.id.to_lowercase())
    }

    fn peer_asn(&self) -> u16 {
        if self.is_internal() { 65001 } else { 65002 }
    }
}

/// All but those about BFD, each with an address from 10.0.0.20 on.
fn vectors() -> Vec<Vector> {
    let rows: Vec<BTreeMap<String, String>> = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect("hexadecimal");
    let bgp = rows.into_iter().filter(|row| !row["state"].starts_with("BFD"));
    let vectors: Vec<_> = (20u8..)
        .zip(bgp)
        .map(|(number, row)| Vector {
            id: row["id"].clone(),
            state: row["state"].clone(),
            octets: row["hex"].as_bytes().chunks(2).map(octet).collect(),
            expect: row["expect"].clone(),
            peer: Ipv4Addr::new(10, 0, 0, number),
        })
        .collect();
    assert_eq!(vectors.len(), 103, "the reference has 113 rows, ten of them about BFD");
    vectors
}

/// How a session went on after the vector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Notified {
        code: u8,
        subcode: u8,
        data: Vec<u8>,
    },
    Closed,
    /// It answers and says KEEPALIVE; `held` is how many routes of the vector the speaker has taken.
    Lives {
        held: usize,
    },
    /// What should not have happened at all.
    Odd(String),
}

/// What a row asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Notified {
        code: u8,
        subcode: u8,
        data: Option<Vec<u8>>,
    },
    Closed,
    /// `None`: it does not matter.
    Lives {
        takes_route: Option<bool>,
    },
}

impl Expected {
    fn of(vector: &Vector) -> Expected {
        let is_update = vector.state.starts_with("Established") && vector.octets.get(18) == Some(&script::UPDATE);
        match vector.id.as_str() {
            // "route not used; no error": crier counts what it does not use.
            "T12" => return Expected::Lives { takes_route: None },
            // "OK on an interface-bound session, else TAW": these sessions are bound to none.
            "P13" => return Expected::Lives { takes_route: Some(false) },
            // "N 6/5 or close"
            "O37" => return Expected::Closed,
            // Three messages, of which the second has the route.
            "H12" => return Expected::Lives { takes_route: Some(true) },
            // End-of-RIB has none.
            "U11" => return Expected::Lives { takes_route: Some(false) },
            _ => {}
        }
        let mut words = vector.expect.split([' ', ',', ';']);
        match words.next() {
            Some("N") => {
                let (code, subcode) = words.next().and_then(|codes| codes.split_once('/')).expect(&vector.expect);
                let hex = if words.next() == Some("data") { words.next() } else { None };
                let octet = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect("hexadecimal");
                let data = hex.map(|hex| hex.as_bytes().chunks(2).map(octet).collect());
                Expected::Notified { code: code.parse().unwrap(), subcode: subcode.parse().unwrap(), data }
            }
            Some("CLOSE") => Expected::Closed,
            Some("TAW" | "IGN") => Expected::Lives { takes_route: Some(false) },
            Some("DISC") => Expected::Lives { takes_route: Some(true) },
            Some("OK") => Expected::Lives { takes_route: is_update.then_some(true) },
            _ => panic!("{}: \"{}\" begins with nothing this test knows", vector.id, vector.expect),
        }
    }

    fn is_met_by(&self, fate: &Fate) -> bool {
        match (self, fate) {
            (
                Expected::Notified { code, subcode, data },
                Fate::Notified { code: told, subcode: told_subcode, data: told_data },
            ) => (code, subcode) == (told, told_subcode) && data.as_ref().is_none_or(|expected| expected == told_data),
            (Expected::Closed, Fate::Closed) => true,
            (Expected::Lives { takes_route }, Fate::Lives { held }) => {
                takes_route.is_none_or(|takes_route| takes_route == (*held > 0))
            }
            (Expected::Notified { .. } | Expected::Closed | Expected::Lives { .. }, _) => false,
        }
    }
}

/// A speaker under test, reached from a namespace that has all the peers' addresses.
struct Subject<'a> {
    name: &'static str,
    peers: Namespace,
    /// How many routes of this vector's peer it has taken.
    held: Box<dyn Fn(&Vector) -> usize + Sync + 'a>,
}

impl Subject<'_> {
    /// Of a row with a † the reference is not certain: there, a router may have another subcode than crier.
    fn is_right(&self, vector: &Vector, fate: &Fate) -> bool {
        let same_code = match (Expected::of(vector), fate) {
            (Expected::Notified { code, .. }, Fate::Notified { code: told, .. }) => code == *told,
            (Expected::Notified { .. } | Expected::Closed | Expected::Lives { .. }, _) => false,
        };
        let is_lenient = self.name != "crier" && vector.expect.contains('†');
        // RFC 7606 §7.11 lets a speaker ignore the family instead. P3 is of the same kind: an attribute whose family is not to
        // be located. A session that ends for it ends on every node of that router at once, in a loop.
        let may_ignore_family = vector.expect.contains("AFI/SAFI disable") || vector.id == "P3";
        let ignores_family = may_ignore_family && matches!(fate, Fate::Lives { held: 0 });
        Expected::of(vector).is_met_by(fate) || (is_lenient && same_code) || ignores_family
    }

    /// Plays one vector. A router that came to something odd gets two more tries, for a busy machine is no fault of its:
    /// only crier has to be right at once.
    fn judge(&self, vector: &Vector) -> Fate {
        let tries = if self.name == "crier" { 1 } else { 3 };
        let mut fate = self.play(vector);
        for _ in 1..tries {
            let Fate::Odd(_) = fate else { break };
            fate = self.play(vector);
        }
        fate
    }

    /// Plays one vector on a new connection.
    fn play(&self, vector: &Vector) -> Fate {
        self.peers.run(|| {
            let mut script = match self.reach(vector) {
                Ok(script) => script,
                // Only one is meant to be refused.
                Err(_) if vector.id == "O37" => return Fate::Closed,
                Err(odd) => return Fate::Odd(odd),
            };
            if vector.state.starts_with("OpenSent") {
                self.after_open_sent(&mut script, vector)
            } else {
                self.after_established(&mut script, vector)
            }
        })
    }

    /// Dials until the speaker says OPEN: some take no connection in their first seconds.
    fn reach(&self, vector: &Vector) -> Result<Script, String> {
        let deadline = Deadline::after(if vector.id == "O37" { secs(1) } else { SOON });
        let to = SocketAddr::from((SPEAKER, 179));
        let mut last = "nothing".to_owned();
        while !deadline.has_passed() {
            match Script::dial(vector.peer.into(), to, SOON) {
                Ok(mut script) => match script.hear(SOON) {
                    Heard::Message { kind: script::OPEN, .. } => return Ok(script),
                    heard => last = format!("{heard:?}"),
                },
                Err(error) => last = error.to_string(),
            }
            rest(millis(200));
        }
        Err(format!("no OPEN: {last}"))
    }

    fn after_open_sent(&self, script: &mut Script, vector: &Vector) -> Fate {
        script.say(&vector.octets);
        match next(script, &[script::KEEPALIVE], SOON) {
            Heard::Message { kind: script::KEEPALIVE, .. } => {}
            other => return fate(other),
        }
        script.say(&script::message(script::KEEPALIVE, &[]));
        match probe(script) {
            Heard::Message { .. } => {}
            other => return fate(other),
        }
        match vector.id.as_str() {
            // Hold time 0: "session must survive > 1 s ... of silence".
            "O8" => match script.hear(millis(1500)) {
                Heard::Silence | Heard::Message { kind: script::UPDATE, .. } => Fate::Lives { held: 0 },
                other => fate(other),
            },
            // Hold time 3: "keepalive 1".
            "O9" => match next(script, &[script::KEEPALIVE], millis(1900)) {
                Heard::Message { .. } => Fate::Lives { held: 0 },
                other => fate(other),
            },
            _ => Fate::Lives { held: 0 },
        }
    }

    fn after_established(&self, script: &mut Script, vector: &Vector) -> Fate {
        if let Err(odd) = establish(script, vector) {
            return Fate::Odd(odd);
        }
        if vector.id == "O34" {
            return self.after_second_connection(script, vector);
        }
        script.say(&vector.octets);
        // What ends the session is heard at once; what does not is seen by an answer to a question asked behind it.
        match next(script, &[], millis(300)) {
            Heard::Silence => self.lives(script, vector),
            other => fate(other),
        }
    }

    /// "N 6/7 on the NEW connection; old one untouched"
    fn after_second_connection(&self, script: &mut Script, vector: &Vector) -> Fate {
        let second = Script::dial(vector.peer.into(), SocketAddr::from((SPEAKER, 179)), SOON);
        let new = match second {
            Ok(mut second) => {
                second.say(&vector.octets);
                fate(next(&mut second, &[], SOON))
            }
            Err(error) => Fate::Odd(error.to_string()),
        };
        match self.lives(script, vector) {
            Fate::Lives { .. } => new,
            old => Fate::Odd(format!("new: {new:?}, old: {old:?}")),
        }
    }

    /// Asks for all routes again, and waits for the next KEEPALIVE.
    fn lives(&self, script: &mut Script, vector: &Vector) -> Fate {
        script.say(&script::message(script::ROUTE_REFRESH, &[0, 1, 0, 1]));
        match probe(script) {
            Heard::Message { .. } => {}
            other => return fate(other),
        }
        script.say(&script::message(script::KEEPALIVE, &[]));
        // Due after a third of the hold time that `establish` offers.
        match next(script, &[script::KEEPALIVE], secs(8)) {
            Heard::Message { .. } => Fate::Lives { held: (self.held)(vector) },
            other => fate(other),
        }
    }
}

/// From the speaker's OPEN to its first route.
fn establish(script: &mut Script, vector: &Vector) -> Result<(), String> {
    let both_families = [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1];
    let four_octets = [&[65, 4, 0, 0][..], &vector.peer_asn().to_be_bytes()].concat();
    // Without the N bit.
    let graceful_restart = [64, 6, 0, 120, 0, 1, 1, 0];
    let capabilities = [
        &both_families[..],
        &[2, 0],
        if vector.state.contains("2-octet") { &[] } else { &four_octets },
        if vector.state.contains("GR") { &graceful_restart } else { &[] },
    ];
    script.say(&script::open(vector.peer_asn(), 9, [10, 0, 0, 2], &capabilities.concat()));
    match next(script, &[script::KEEPALIVE], SOON) {
        Heard::Message { kind: script::KEEPALIVE, .. } => {}
        other => return Err(format!("no KEEPALIVE to our OPEN: {other:?}")),
    }
    script.say(&script::message(script::KEEPALIVE, &[]));
    match probe(script) {
        Heard::Message { .. } => Ok(()),
        other => Err(format!("no route at first: {other:?}")),
    }
}

/// Passes over messages until one of `kinds`, a NOTIFICATION or the end.
fn next(script: &mut Script, kinds: &[u8], within: Duration) -> Heard {
    let deadline = Deadline::after(within);
    loop {
        match script.hear(deadline.left()) {
            Heard::Message { kind, body: _ } if kind != script::NOTIFICATION && !kinds.contains(&kind) => {}
            heard => return heard,
        }
    }
}

/// Waits for the UPDATE with the route that everybody is told, and keeps the session alive meanwhile.
fn probe(script: &mut Script) -> Heard {
    let deadline = Deadline::after(SOON);
    loop {
        match next(script, &[script::UPDATE], secs(2)) {
            Heard::Message { kind: script::UPDATE, body } if !body.windows(PROBE.len()).any(|part| part == PROBE) => {}
            Heard::Silence if !deadline.has_passed() => script.say(&script::message(script::KEEPALIVE, &[])),
            heard => return heard,
        }
    }
}

/// Of what ended a session, or was heard instead of what had been waited for.
fn fate(heard: Heard) -> Fate {
    match heard {
        Heard::Closed => Fate::Closed,
        Heard::Message { kind: script::NOTIFICATION, body } => match body.as_slice() {
            [code, subcode, data @ ..] => Fate::Notified { code: *code, subcode: *subcode, data: data.to_vec() },
            _ => Fate::Odd("a NOTIFICATION without codes".to_owned()),
        },
        Heard::Message { .. } | Heard::Silence => Fate::Odd(format!("{heard:?}")),
    }
}

/// Two hosts on one cable: the speaker, and all of its peers.
fn pair(rack: &Rack, name: &str, vectors: &[Vector]) -> (Namespace, Namespace) {
    let (speaker, peers) = (rack.namespace(name), rack.namespace(&format!("{name}-peers")));
    net::connect(&speaker, "eth0", &peers, "eth0");
    speaker.up("eth0", &["10.0.0.1/24", "2001:db8::1/64"]);
    let own = vectors.iter().map(|vector| format!("{}/24", vector.peer));
    let all: Vec<_> = own.chain(["10.0.0.2/24".to_owned(), "2001:db8::2/64".to_owned()]).collect();
    peers.up("eth0", &all.iter().map(String::as_str).collect::<Vec<_>>());
    (speaker, peers)
}

/// O37 comes from an address that nobody has configured.
fn configured(vectors: &[Vector]) -> impl Iterator<Item = &Vector> {
    vectors.iter().filter(|vector| vector.id != "O37")
}

fn start_crier(rack: &Rack, speaker: &Namespace, vectors: &[Vector]) -> Crier {
    let manifests = Manifests::new(rack);
    manifests.nodes(&[("node-1", "", &["10.0.0.1".parse().expect("an address")])]);
    manifests.service(&Service::new("probe").on("node-1"));
    let peers: String = configured(vectors)
        .map(|vector| {
            let (name, address, asn) = (vector.name(), vector.peer, vector.peer_asn());
            format!("[[bgp.peer]]\nname = \"{name}\"\naddress = \"{address}\"\nasn = {asn}\npassive = true\n")
        })
        .collect();
    let agent = speaker.crier(
        "node-1",
        &format!(
            "{}[[pool]]\nname = \"probe\"\naddresses = [\"198.51.100.7-198.51.100.7\"]\n\
             [bgp]\nasn = 65001\nrouter-id = \"10.0.0.1\"\n[[bgp.advertisement]]\n{peers}",
            manifests.section()
        ),
    );
    agent.wait_ready(secs(20));
    agent
}

fn bird_configuration(vectors: &[Vector]) -> String {
    let sessions: String = configured(vectors)
        .map(|vector| {
            let (name, address, asn) = (vector.name().replace('-', "_"), vector.peer, vector.peer_asn());
            // T10 and T11 ask for it; this version of BIRD has no option of its own for it.
            let first_as = if vector.is_internal() { "true" } else { "bgp_path.first = 65002" };
            let import = format!("import where {first_as};");
            format!(
                "protocol bgp {name} {{ local 10.0.0.1 as 65001; neighbor {address} as {asn}; direct; passive yes; \
                 hold time 90; error wait time 1, 2; error forget time 1; ipv4 {{ {import} export where source = RTS_STATIC; }}; \
                 ipv6 {{ {import} export none; }}; }}\n"
            )
        })
        .collect();
    format!(
        "router id 10.0.0.1; protocol device {{ }}\n\
         protocol static {{ ipv4; route 198.51.100.7/32 blackhole; }}\n{sessions}"
    )
}

fn frr_configuration(vectors: &[Vector]) -> String {
    let neighbor = |vector: &Vector| {
        let (address, asn) = (vector.peer, vector.peer_asn());
        format!(
            " neighbor {address} remote-as {asn}\n neighbor {address} passive\n \
             neighbor {address} enforce-first-as\n neighbor {address} timers connect 1\n"
        )
    };
    let neighbors: String = configured(vectors).map(neighbor).collect();
    let activate: String = configured(vectors).map(|vector| format!("  neighbor {} activate\n", vector.peer)).collect();
    format!(
        "router bgp 65001\n bgp router-id 10.0.0.1\n{}{neighbors} address-family ipv4 unicast\n  \
         network 198.51.100.7/32\n{activate} exit-address-family\n address-family ipv6 unicast\n{activate} \
         exit-address-family\n",
        rack::frr::PLAIN
    )
}

/// How many paths from this neighbor bgpd has.
fn frr_held(frr: &Frr, vector: &Vector) -> usize {
    let tables = ["ipv4", "ipv6"].map(|family| frr.json(&format!("show bgp {family} unicast json")));
    let paths = tables.iter().flat_map(|table| table["routes"].as_object().into_iter().flatten());
    let paths = paths.flat_map(|(_, paths)| paths.as_array().into_iter().flatten());
    paths.filter(|path| path["peerId"] == vector.peer.to_string()).count()
}

/// What crier counts as announced by this peer, and not withdrawn for an error.
fn crier_held(agent: &Crier, vector: &Vector) -> usize {
    let status = eventually("crier answers", SOON, || agent.try_json("status"));
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    let peer = peers.iter().find(|peer| peer["name"] == vector.name()).expect("every peer is in the report");
    peer["prefixes_received"].as_u64().and_then(|count| usize::try_from(count).ok()).expect("a count")
}

/// The vectors that did not go as their rows say, with what happened instead.
fn play_all(subject: &Subject<'_>, vectors: &[Vector]) -> Vec<(Vector, Fate)> {
    let (waiting, wrong) = (Mutex::new(vectors.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..HANDS {
            scope.spawn(|| {
                loop {
                    let Some(vector) = waiting.lock().unwrap().next() else { return };
                    let fate = subject.judge(vector);
                    if !subject.is_right(vector, &fate) {
                        wrong.lock().unwrap().push((vector.clone(), fate));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort_by_key(|(vector, _)| vector.peer);
    wrong
}

#[test]
fn every_vector_ends_a_live_session_with_crier_as_its_row_says() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird, Need::Frr]) else { return };
    let vectors = vectors();
    let [crier, bird, frr] = ["crier", "bird", "frr"].map(|name| pair(&rack, name, &vectors));
    let agent = start_crier(&rack, &crier.0, &vectors);
    let bird_router = bird.0.bird(&bird_configuration(&vectors));
    let frr_router = frr.0.frr(&frr_configuration(&vectors));
    let bird_held = |vector: &Vector| {
        let protocol = vector.name().replace('-', "_");
        bird_router.command(&format!("show route protocol {protocol}")).lines().filter(|it| it.contains('[')).count()
    };
    let subjects = [
        Subject { name: "crier", peers: crier.1, held: Box::new(|vector| crier_held(&agent, vector)) },
        Subject { name: "BIRD", peers: bird.1, held: Box::new(bird_held) },
        Subject { name: "FRR", peers: frr.1, held: Box::new(|vector| frr_held(&frr_router, vector)) },
    ];
    let wrong = std::thread::scope(|scope| {
        let playing = subjects.each_ref().map(|subject| scope.spawn(|| play_all(subject, &vectors)));
        playing.map(|playing| playing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut told = String::from("\nvectors over live sessions:\n");
    for (subject, wrong) in subjects.iter().zip(&wrong) {
        told += &format!("  {:6} {}/{}\n", subject.name, vectors.len() - wrong.len(), vectors.len());
        for (vector, fate) in wrong {
            told += &format!("         {:4} should be \"{}\", was {fate:?}\n", vector.id, vector.expect);
        }
    }
    // Past the capture of the test's output: the score is part of what this test is for.
    let _ = std::io::stderr().write_all(told.as_bytes());
    assert!(wrong[0].is_empty(), "crier is not right in every vector:{told}");
    agent.process().expect_running();
}

#[test]
fn a_peer_that_announces_a_million_routes_costs_crier_no_memory() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let vectors: Vec<_> = vectors().into_iter().filter(|vector| vector.id == "R1").collect();
    let (speaker, peers) = pair(&rack, "crier", &vectors);
    let agent = start_crier(&rack, &speaker, &vectors);
    let subject = Subject { name: "crier", peers, held: Box::new(|vector| crier_held(&agent, vector)) };
    let vector = &vectors[0];
    let before = agent.process().peak_memory();
    let fate = subject.peers.run(|| {
        let mut script = subject.reach(vector).expect("crier takes the connection");
        establish(&mut script, vector).expect("crier takes the session");
        // ORIGIN, AS_PATH, NEXT_HOP; then 1,000 /24, a thousand times.
        let attributes = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 0, 2];
        for thousand in 0..1_000u32 {
            let prefix = |n: u32| [&[24], &((thousand * 1_000 + n) + (11 << 16)).to_be_bytes()[1..]].concat();
            let announced: Vec<u8> = (0..1_000).flat_map(prefix).collect();
            let body = [&[0, 0, 0, 20][..], &attributes, &announced].concat();
            script.say(&script::message(script::UPDATE, &body));
        }
        subject.lives(&mut script, vector)
    });
    assert_eq!(fate, Fate::Lives { held: 1_000_000 }, "every route is counted and the session stands");
    let grown = agent.process().peak_memory().saturating_sub(before);
    assert!(grown < 8 << 20, "a million routes that are dropped made crier {grown} octets larger");
}
