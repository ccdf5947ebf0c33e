//! The configuration as a whole: complaints held against snapshots, the example, the table, round trips, random bytes.
//! `CRIER_WRITE_SNAPSHOTS=1 cargo test config::` writes the snapshots anew; read the difference before it is committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::key::{Default, Kind};
use super::section::{SECTIONS, Section};
use super::*;
use crate::address::ScopedAddress;
use crate::names::ObjectKey;

const EXAMPLE: &str = include_str!("../../config/crier.toml");
/// The least that is a configuration.
const LEAST: &str = "[manifests]\nfolder = \"/m\"\n";

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_configuration() {
    let text = "[manifests]\nfolder = \"/m\"\n";
    assert_eq!(parse_one(&format!("\u{feff}{text}")).unwrap(), parse_one(text).unwrap());
}

fn parse_one(text: &str) -> Result<Config, Complaints> {
    parse(&[file("crier.toml", text)], &TestSecrets)
}

/// The files with secrets that there are for the tests of this file: by the names below, and none else.
struct TestSecrets;

const SECRET_FILES: [(&str, &[u8]); 11] = [
    ("/etc/crier/tor.ao", b"marlin"),
    ("/etc/crier/two-lines", b"one\ntwo\n"),
    ("/etc/crier/pulse.key", b"0123456789abcdef0123456789abcdef\n"),
    ("/etc/crier/old.key", b"fedcba9876543210fedcba9876543210\n"),
    ("/etc/crier/short.key", b"0123456789abcde\n"),
    ("/etc/crier/tor.md5", b"swordfish\n"),
    ("/etc/crier/bfd.key", b"pelican\n"),
    ("/etc/crier/bfd.old.key", b"heron\n"),
    ("/etc/crier/empty", b"\n"),
    ("/etc/crier/80-octets", &[b'x'; 80]),
    ("/etc/crier/81-octets", &[b'x'; 81]),
];

impl Secrets for TestSecrets {
    fn credential(&self, _name: &std::ffi::OsStr) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let known = SECRET_FILES.iter().find(|(known, _)| path == Path::new(known));
        known.map(|(_, octets)| octets.to_vec()).ok_or(std::io::ErrorKind::NotFound.into())
    }
}

fn secret(path: &str) -> SecretFile {
    let (octets, _) = secrets::find(&TestSecrets, Path::new(path)).unwrap();
    SecretFile { path: Some(path.into()), secret: octets[..].into() }
}

fn ao_keys(id: u8) -> Vec<AoKey> {
    let key = |id, algorithm| AoKey { send_id: id, receive_id: !id, algorithm, secret: secret("/etc/crier/tor.ao") };
    vec![key(id, AoAlgorithm::HmacSha1), key(id.wrapping_add(1), AoAlgorithm::Aes128Cmac)]
}

/// The configuration of a text that is added to the least one.
pub(crate) fn good(text: &str) -> Config {
    parse_one(&format!("{LEAST}{text}")).unwrap_or_else(|complaints| panic!("{complaints}"))
}

/// Whether a text that is added to the least configuration is good.
pub(crate) fn is_good(text: &str) -> bool {
    parse_one(&format!("{LEAST}{text}")).is_ok()
}

/// The complaints about a text that is added to the least configuration.
fn bad(text: &str) -> Complaints {
    parse_one(&format!("{LEAST}{text}")).expect_err(text)
}

/// The cases in tests/config: a file, or a folder with the files of a main file and drop-ins.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        entries.filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "toml")).collect();
    cases.sort();
    cases
}

/// The files of a case, under names that do not tell where the test runs.
fn files(case: &Path) -> Vec<SourceFile> {
    let root = if case.is_dir() { case.to_owned() } else { case.parent().unwrap().to_owned() };
    let main = if case.is_dir() { case.join("crier.toml") } else { case.to_owned() };
    let mut files = if case.is_dir() {
        load::read(&main).unwrap()
    } else {
        vec![file(main.to_str().unwrap(), &fs::read_to_string(&main).unwrap())]
    };
    for file in &mut files {
        file.path = Path::new(&file.path).strip_prefix(&root).unwrap().display().to_string();
    }
    files
}

#[test]
fn each_bad_file_gets_the_complaints_of_its_snapshot() {
    let write = std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some();
    let cases = cases();
    assert!(cases.len() >= 30, "the bad files are found: {}", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let snapshot = case.with_extension("stderr");
        let complaints = match parse(&files(&case), &TestSecrets) {
            Ok(_) => panic!("{} was accepted", case.display()),
            Err(complaints) => complaints.to_string(),
        };
        if write {
            fs::write(&snapshot, &complaints).unwrap();
        }
        let expected = fs::read_to_string(&snapshot).unwrap_or_default();
        if expected != complaints {
            wrong += &format!("{}:\n{complaints}\ninstead of\n{expected}\n", case.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_example_file_is_what_the_option_table_writes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/crier.toml");
    if std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some() {
        fs::write(&path, example()).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == example(), "config/crier.toml is not what the table writes now");
}

#[test]
fn the_example_is_a_good_configuration_and_with_every_key_set_too() {
    parse_one(EXAMPLE).unwrap_or_else(|complaints| panic!("{complaints}"));
    // A comment that begins with a letter right away is a key or header that is commented out.
    let set = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) || rest.starts_with("[[") => rest.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<String> = EXAMPLE.lines().map(set).collect();
    // One source of Services, one key for its classes, one kind of signature, and whole addresses.
    let others = |line: &&String| {
        let other = ["classes", "tcp-ao", "prefix-of"].iter().any(|key| line.starts_with(key));
        *line != "folder = \"/etc/crier/manifests\"" && !other
    };
    let without = lines.iter().filter(others);
    let all: String = without.map(|line| format!("{line}\n")).collect();
    let config = parse_one(&all).unwrap_or_else(|complaints| panic!("{complaints}"));
    assert_eq!(config.l2[0].preference[0].weight, 100);
    assert_eq!(config.bgp.peers[0].source_address, Some("10.0.0.11".parse().unwrap()));
    assert_eq!(config.bgp.peers[0].local_asn, 64514);
}

#[test]
fn every_key_is_in_the_example() {
    for section in SECTIONS.iter().filter(|section| !section.path.is_empty()) {
        let (inside, key) = section.path.rsplit_once('.').unwrap_or(("", section.path));
        let inline = Section::find(inside).is_some_and(|outer| outer.repeated);
        let start = if inline { format!("{key} = ") } else { format!("{section}\n") };
        let text = EXAMPLE.split(&start).nth(1);
        let text = text.and_then(|text| text.split(if inline { "\n" } else { "\n\n\n" }).next());
        let text = text.unwrap_or_else(|| panic!("{section} is in the example"));
        for row in section.rows {
            let written = text.contains(&format!("\n{} = ", row.key))
                || text.contains(&format!("\n#{} = ", row.key))
                || (inline && text.contains(&format!("{} = ", row.key)));
            assert!(written, "{section} {} is in the example", row.key);
        }
    }
}

/// A section of each kind, with the keys that it requires.
const ONE_OF_EACH: &str = "[[pool]]\nname = \"lan\"\naddresses = [\"10.1.0.0/24\"]\n[[l2]]\n[bgp]\nasn = 64513\n\
     [[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n[[bgp.advertisement]]\n";

/// A pool, an `[[l2]]`, a peer and an advertisement, for tests of other folders to set only what they are about.
pub(crate) fn one_of_each() -> Config {
    good(ONE_OF_EACH)
}

#[test]
fn defaults_are_those_that_the_table_names() {
    let config = one_of_each();
    let expected = Config {
        node: Node { name: None, ignore_exclude_label: false, ..config.node.clone() },
        api: Api {
            socket: "/run/crier/crier.sock".into(),
            listen: Some("127.0.0.1:7472".parse().unwrap()),
            metallb_metrics: false,
        },
        state: State { folder: "/var/lib/crier".into(), max_age: Duration::ZERO },
        source: Source::Manifests(Manifests { folder: "/m".into() }),
        pools: vec![Pool {
            name: "lan".into(),
            addresses: vec!["10.1.0.0/24".parse().unwrap()],
            auto_assign: true,
            avoid_network_and_broadcast: false,
            priority: None,
            namespaces: vec![],
            namespace_selector: None,
            service_selector: None,
            rest: Duration::from_secs(30),
            exclude: vec![],
            draining: false,
            share_across_namespaces: false,
            prefix_of: None,
            vrf: None,
            bind: None,
        }],
        reservations: vec![],
        l2: vec![L2 {
            pools: vec![],
            interfaces: vec![],
            exclude_interfaces: vec![],
            nodes: None,
            preference: vec![],
            sticky: false,
            subnet: Subnet::Prefer,
            ..config.l2[0].clone()
        }],
        pulse: Pulse {
            interval: Duration::from_millis(100),
            multiplier: std::num::NonZeroU8::new(3).unwrap(),
            key: PulseKey::Absent,
            peers: vec![],
            ..config.pulse.clone()
        },
        bgp: Bgp {
            asn: Some(64513),
            router_id: None,
            listen: vec!["0.0.0.0".parse().unwrap(), "::".parse().unwrap()],
            port: 179,
            peers: vec![Peer {
                name: "tor".into(),
                address: PeerAddress::Fixed(ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None }),
                asn: PeerAsn::Is(64512),
                local_asn: 64513,
                hold_time: Some(Duration::from_secs(90)),
                keepalive_time: None,
                connect_retry_time: Duration::from_secs(5),
                source_address: None,
                port: 179,
                passive: false,
                multihop: 1,
                ttl_security: false,
                password: None,
                tcp_ao: vec![],
                vrf: None,
                router_id: None,
                nodes: None,
                ..config.bgp.peers[0].clone()
            }],
            advertisements: vec![Advertisement {
                pools: vec![],
                peers: vec![],
                service_selector: None,
                nodes: None,
                aggregation_length: 32,
                aggregation_length_v6: 128,
                local_preference: None,
                med: None,
                prepend: 0,
                communities: vec![],
                link_bandwidth: false,
                vrf: None,
            }],
        },
        bfd: vec![],
        vrfs: vec![],
        egress: EgressSettings {
            table: "crier".to_owned(),
            priority: 95,
            mark_mask: 0x00f0_0000,
            rule_priority: 1500,
            first_route_table: 6770,
            tunnel: Some("crier-egress".into()),
            tunnel_port: 4790,
            cluster_networks: vec![],
            symmetric_return: true,
            new_pods: NewPods::Pass,
            release_after: Duration::from_secs(600),
        },
        drain: DrainSettings {
            follow_cordon: false,
            follow_shutdown: false,
            follow_taint: None,
            timeout: Duration::from_secs(600),
            annotate_node: true,
        },
        host: Host { manage_sysctls: false, arp_offload: true },
        log: Log { level: "info".to_owned(), format: LogFormat::Auto },
    };
    assert_eq!(config, expected);
    let kubernetes = parse_one("[kubernetes]\nin-cluster = true").unwrap().source;
    let expected = Kubernetes {
        access: Access::InCluster,
        classes: vec!["crier.dev/crier".to_owned()],
        default_class: true,
        lease: ObjectKey::new("kube-system", "crier"),
        servers: vec![],
        config: None,
    };
    assert_eq!(kubernetes, Source::Kubernetes(expected));
}

#[test]
fn the_table_knows_each_key_once_and_its_defaults_are_of_its_types() {
    for section in SECTIONS {
        let mut keys: Vec<&str> = section.keys().collect();
        keys.sort();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{section} has no key twice: {keys:?}");
        for row in section.rows {
            let fits = match (row.kind, row.default) {
                (_, Default::Required | Default::Unset(_)) => true,
                (Kind::Flag, Default::Flag(_)) => true,
                (Kind::FlagOr(words), Default::Text(text)) => words.contains(&text),
                (Kind::Number { least, most, .. }, Default::Number(number)) => (least..=most).contains(&number),
                (Kind::Number { least, most, .. }, Default::Mask(mask)) => (least..=most).contains(&i64::from(mask)),
                (Kind::Duration { least, most }, Default::Text(text)) => {
                    duration::parse(text).is_ok_and(|duration| (least..=most).contains(&duration))
                }
                (Kind::Word(words), Default::Text(text)) => words.contains(&text),
                (Kind::Text(_), Default::Text(_)) | (Kind::Texts(_), Default::Texts(_)) => true,
                _ => false,
            };
            assert!(fits, "the default of {} is {}, not {}", section.join(row.key), row.default, row.kind);
            assert!(row.summary.ends_with('.'), "{} is said in a sentence", section.join(row.key));
        }
    }
}

/// Every key of the design, by section. What is not in this list is the option table's own addition.
#[test]
fn the_table_knows_every_key_of_the_contract() {
    let contract = [
        ("", "node api state kubernetes manifests pool l2 pulse bgp bfd vrf host log"),
        ("node", "name ignore-exclude-label data-path"),
        ("api", "socket listen"),
        ("state", "folder"),
        ("kubernetes", "kubeconfig in-cluster class default-class lease"),
        ("manifests", "folder"),
        (
            "pool",
            "name addresses auto-assign avoid-network-and-broadcast priority namespaces namespace-selector \
             service-selector rest bind",
        ),
        (
            "l2",
            "pools interfaces exclude-interfaces nodes preference sticky subnet preempt-delay probe ignore-stations \
             announce-again",
        ),
        ("l2.preference", "nodes weight"),
        ("pulse", "interval multiplier key-file old-key-files interfaces"),
        ("bgp", "asn router-id listen port peer advertisement communities"),
        (
            "bgp.peer",
            "name address asn hold-time keepalive-time connect-retry-time local-asn source-address port passive \
             multihop ttl-security password-file tcp-ao graceful-restart bfd nodes vrf router-id \
             next-hop next-hop-v6 description shutdown",
        ),
        (
            "bgp.advertisement",
            "pools peers service-selector nodes aggregation-length aggregation-length-v6 local-preference med prepend \
             communities link-bandwidth",
        ),
        ("bgp.peer.tcp-ao", "send-id receive-id algorithm key-file"),
        ("bfd", "name receive-interval transmit-interval multiplier minimum-ttl"),
        ("vrf", "name table interfaces addresses manage routes"),
        ("vrf.routes", "to via"),
        ("host", "manage-sysctls arp-offload"),
        ("log", "level format"),
    ];
    for (path, keys) in contract {
        let section = Section::find(path).unwrap_or_else(|| panic!("there is a section {path}"));
        let known: Vec<&str> = section.keys().collect();
        for key in keys.split_whitespace() {
            assert!(known.contains(&key), "{section} knows {key}");
        }
    }
}

#[test]
fn values_arrive_in_the_configuration() {
    let config = good(
        r#"
        [api]
        listen = ""
        [[pool]]
        name = "lan"
        addresses = ["10.1.0.0/25", "10.1.0.200 - 10.1.0.210", "fd35::7"]
        rest = "1m30s"
        [[pool]]
        name = "public"
        addresses = ["203.0.113.0/24"]
        namespace-selector = "team==web"
        [[l2]]
        interfaces = ["eth0", "bond*", "*"]
        preference = [{ nodes = "edge", weight = 7 }, { nodes = "!edge", weight = 1 }]
        [[bgp.peer]]
        name = "tor"
        address = "fe80::1%eth0"
        asn = "internal"
        local-asn = 4200000000
        hold-time = "0s"
        [[bgp.advertisement]]
        pools = ["public"]
        aggregation-length = 24
        communities = ["64512:9", "blue", "no-export", "64512:9"]
        [bgp.communities]
        blue = "large:1:2:3"
        "#,
    );
    assert_eq!(config.api.listen, None);
    assert_eq!(config.pools[0].addresses[2].to_string(), "fd35::7-fd35::7");
    assert_eq!(config.pools[0].rest, Duration::from_secs(90));
    assert_eq!(config.pools[1].namespace_selector, "team=web".parse().ok());
    let patterns: Vec<String> = config.l2[0].interfaces.iter().map(ToString::to_string).collect();
    assert_eq!(patterns, ["eth0", "bond*", "*"]);
    assert_eq!(config.l2[0].preference[1], Preference { nodes: "!edge".parse().unwrap(), weight: 1 });
    let peer = &config.bgp.peers[0];
    assert_eq!((peer.asn, peer.local_asn, peer.hold_time), (PeerAsn::Internal, 4_200_000_000, None));
    assert_eq!(peer.address.to_string(), "fe80::1%eth0");
    let communities: Vec<String> = config.bgp.advertisements[0].communities.iter().map(ToString::to_string).collect();
    assert_eq!(communities, ["64512:9", "no-export", "large:1:2:3"], "sorted, aliases resolved, none twice");
}

/// How far a peer may be where nobody says it.
#[test]
fn within_an_as_a_peer_may_be_far_and_of_another_as_on_the_link() {
    for (peer, hops) in [
        ("address = \"10.0.0.1\"\nasn = 64512", 1),
        ("address = \"10.0.0.1\"\nasn = \"external\"", 1),
        ("address = \"10.0.0.1\"\nasn = \"internal\"", 255),
        ("address = \"10.0.0.1\"\nasn = 64513", 255),
        ("address = \"10.0.0.1\"\nasn = 64513\nlocal-asn = 64514", 1),
        ("address = \"10.0.0.1\"\nasn = \"internal\"\nttl-security = true", 1),
        ("address = \"10.0.0.1\"\nasn = \"internal\"\nmultihop = 3", 3),
        ("address = \"fe80::1%eth0\"\nasn = \"internal\"", 1),
    ] {
        let config = good(&format!("[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\n{peer}\n"));
        assert_eq!(config.bgp.peers[0].multihop, hops, "{peer}");
    }
}

#[test]
fn a_secret_is_in_the_configuration_and_in_nothing_that_is_printed() {
    let peer = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n";
    let md5 = good(&format!("{peer}password-file = \"/etc/crier/tor.md5\"\n"));
    let ao = good(&format!("{peer}tcp-ao = [{{ send-id = 1, receive-id = 2, key-file = \"/etc/crier/tor.ao\" }}]\n"));
    assert_eq!(md5.bgp.peers[0].password.as_ref().unwrap().secret.expose(), b"swordfish");
    assert_eq!(ao.bgp.peers[0].tcp_ao[0].secret.secret.expose(), b"marlin");
    for config in [md5, ao] {
        assert_eq!(config.secrets().count(), 1);
        let printed = format!("{}\n{config:?}\n{config:#?}", show(&config));
        assert!(!printed.contains("swordfish") && !printed.contains("marlin"), "{printed}");
        // Octets in decimal, as slices print them.
        assert!(!printed.contains("115, 119") && !printed.contains("109, 97"), "{printed}");
    }
}

#[test]
fn drop_ins_override_keys_and_append_sections() {
    let main = "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\nport = 1790\n[[pool]]\nname = \"a\"\naddresses = [\"10.1.0.0/24\"]\n\
                [bgp.communities]\nblue = \"64512:1\"\n";
    let first = "bgp.asn = 64999\npool = [{ name = \"b\", addresses = [\"10.2.0.0/24\"] }]\n[log]\nlevel = \"debug\"\n";
    let second = "[log]\nlevel = \"trace\"\n[bgp.communities]\nblue = \"64512:2\"\n[[bgp.advertisement]]\ncommunities = [\"blue\"]\n";
    let files = [file("crier.toml", main), file("conf.d/1.toml", first), file("conf.d/2.toml", second)];
    let config = parse(&files, &TestSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
    let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(pools, ["a", "b"]);
    assert_eq!((config.bgp.asn, config.bgp.port), (Some(64999), 1790));
    assert_eq!(config.log.level, "trace");
    assert_eq!(config.bgp.advertisements[0].communities, ["64512:2".parse().unwrap()]);
}

#[test]
fn a_mistake_is_reported_once_and_causes_no_second_one() {
    for text in [
        "[bgp]\nasn = 0\n[[bgp.peer]]\nname = \"a\"\naddress = \"10.0.0.1\"\nasn = 1\n",
        "[bgp]\nasn = 1\n[[bgp.peer]]\nname = \"a\"\naddress = \"10.0.0.1\"\nasn = 1\nhold-time = \"x\"\nkeepalive-time = \"30s\"\n",
        "[bgp]\nasn = 1\n[[bgp.peer]]\nname = \"a\"\naddress = \"lan?\"\nasn = 1\n[[bgp.advertisement]]\npeers = [\"a\"]\n",
        "[[pool]]\nname = \"lan\"\naddresses = [\"lan\"]\n[[l2]]\npools = [\"lan\"]\n",
        "[[pool]]\nname = \"lan\"\naddresses = 3\n",
        "[[vrf]]\nname = \"red\"\ntable = \"x\"\n",
        "[[pool]]\nname = \"lan\"\naddresses = [\"10.1.0.7\"]\n[[bgp.advertisement]]\npools = [\"x\"]\naggregation-length = 24\n",
        "[bgp]\nasn = 1\nlisten = [\"x\"]\n[[bgp.peer]]\nname = \"a\"\naddress = \"10.0.0.1\"\nasn = 1\npassive = true\n",
        "bgp = 3\n",
    ] {
        let complaints = bad(text);
        assert_eq!(complaints.iter().count(), 1, "{complaints}");
    }
}

#[test]
fn complaints_tell_their_places_as_data() {
    let complaints = bad("[[pool]]\nname = \"größe\"\naddresses = [\"10.1.0.0/24\", \"10.1.0.9\"]\n");
    let overlap = complaints.iter().nth(1).expect("the second complaint");
    let position = complaints.position(&overlap.place);
    assert_eq!((position.path, position.line, position.column), ("crier.toml", 5, 29));
    let (place, label) = overlap.second.as_ref().expect("the other place");
    assert_eq!((complaints.position(place).column, label.as_str()), (14, "overlaps with this"));
    assert!(complaints.render(true).contains("\u{1b}["), "coloured if asked");
    assert!(!complaints.to_string().contains('\u{1b}'), "plain if not");
    assert_eq!(complaints.summary(), "2 mistakes in crier.toml; nothing was changed");
}

#[test]
fn thousands_of_mistakes_are_all_reported() {
    let text: String = (0..3000).map(|n| format!("key-{n} = 1\n")).collect();
    let complaints = parse_one(&(text + LEAST)).unwrap_err();
    assert_eq!(complaints.render(false).matches("unknown key").count(), 3000);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_move_no_caret() {
    let text = "\u{feff}[manifests]\r\nfolder = \"/m\"\r\n[[l2]]\r\nnodes = \"a b\"\r\n";
    let complaints = parse_one(text).unwrap_err();
    let complaint = complaints.iter().next().unwrap();
    let position = complaints.position(&complaint.place);
    assert_eq!((position.line, position.column), (4, 12), "{complaints}");
    assert_eq!(&text[complaint.place.start..complaint.place.end], "b");
}

#[test]
fn without_any_file_the_complaint_has_no_place_but_a_text() {
    let complaints = parse(&[], &TestSecrets).unwrap_err();
    assert!(complaints.to_string().contains("neither [kubernetes] nor [manifests]"), "{complaints}");
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for text in [
        format!("a = {}{}", "[".repeat(5000), "]".repeat(5000)),
        format!("{}a = 1", "a.".repeat(5000)),
        format!("[{}a]", "a.".repeat(5000)),
        "[a.b]\n".repeat(50) + &"{".repeat(5000),
    ] {
        assert!(parse_one(&text).unwrap_err().to_string().ends_with("nothing was changed\n"));
    }
}

/// Texts that are odd in TOML, in the places of the configuration that take free text.
fn odd_text() -> impl Strategy<Value = String> {
    "[a-z/\"\\\\'#=\\[\\]{} \t\u{7f}\u{1}\u{e9}\u{65e5}]{0,12}".prop_map(|text| format!("/{text}"))
}

proptest! {
    #[test]
    fn a_configuration_reads_back_what_it_shows(
        folder in odd_text(),
        pools in prop::collection::vec((0u8..3, any::<bool>(), prop::option::of(any::<u32>()), 0u64..86_400_000), 0..4),
        peers in prop::collection::vec((1u32..65000, prop::option::of(3u64..65535), any::<u8>(), any::<bool>()), 0..4),
        listen in any::<bool>(),
    ) {
        let base = one_of_each();
        let mut config = good("");
        config.source = Source::Manifests(Manifests { folder: folder.into() });
        config.bgp.listen.truncate(if listen { 2 } else { 1 });
        for (n, (kind, auto_assign, priority, rest)) in pools.into_iter().enumerate() {
            config.pools.push(Pool {
                name: format!("pool-{n}").into(),
                addresses: vec![format!("10.{n}.0.0/24").parse().unwrap(), format!("fd35:{n}::/64").parse().unwrap()],
                auto_assign,
                avoid_network_and_broadcast: kind == 1,
                priority,
                namespaces: if kind == 0 { vec![] } else { vec!["shop".into()] },
                namespace_selector: (kind == 1).then(|| "a in (b, c)".parse().unwrap()),
                service_selector: (kind == 2).then(|| "a!=b, !c".parse().unwrap()),
                rest: Duration::from_millis(rest),
                exclude: vec![format!("10.{n}.0.0-10.{n}.0.{kind}").parse().unwrap()],
                draining: kind == 1,
                share_across_namespaces: kind == 0,
                prefix_of: None,
                vrf: None,
                bind: (kind == 2).then(|| "lo".into()),
            });
            config.reservations.push(Reservation {
                service: ObjectKey::new("shop", &format!("front-{n}")),
                addresses: vec![format!("10.{n}.0.200").parse().unwrap(), format!("fd35:{n}::1").parse().unwrap()],
            });
            config.l2.push(L2 {
                pools: vec![format!("pool-{n}").into()],
                interfaces: vec![InterfacePattern::StartsWith("bond".to_owned())],
                exclude_interfaces: vec![],
                nodes: (kind == 2).then(|| "rack".parse().unwrap()),
                preference: vec![Preference { nodes: "edge=true".parse().unwrap(), weight: 9 }],
                sticky: true,
                subnet: Subnet::Require,
                ..base.l2[0].clone()
            });
        }
        for (n, (asn, hold, small, passive)) in peers.into_iter().enumerate() {
            config.bgp.peers.push(Peer {
                name: format!("peer-{n}").into(),
                address: [
                    PeerAddress::Fixed(ScopedAddress { ip: format!("fe80::{n}").parse().unwrap(), interface: Some("eth0".into()) }),
                    PeerAddress::Interface(format!("eth{n}.100").into()),
                    PeerAddress::Gateway,
                ][if n == 0 { usize::from(small) % 3 } else { usize::from(small) % 2 }].clone(),
                asn: [PeerAsn::Is(64512), PeerAsn::External, PeerAsn::Internal][n % 3],
                local_asn: if asn == 23456 { 1 } else { asn },
                hold_time: hold.map(Duration::from_secs),
                keepalive_time: hold.map(|hold| Duration::from_secs(hold / 3)),
                connect_retry_time: Duration::from_millis(100 + u64::from(small)),
                source_address: passive.then(|| "fe80::9".parse().unwrap()),
                port: 179,
                passive,
                multihop: 1,
                ttl_security: passive,
                password: (n % 3 == 1).then(|| secret("/etc/crier/tor.md5")),
                tcp_ao: if n % 3 == 2 { ao_keys(small) } else { vec![] },
                vrf: (n % 2 == 1).then(|| "red".into()),
                router_id: hold.map(|_| "10.0.0.9".parse().unwrap()),
                nodes: None,
                ..base.bgp.peers[0].clone()
            });
            config.bgp.advertisements.push(Advertisement {
                pools: vec![],
                peers: vec![format!("peer-{n}").into()],
                service_selector: None,
                nodes: None,
                aggregation_length: 28,
                aggregation_length_v6: 100,
                local_preference: hold.map(|_| asn),
                med: None,
                prepend: small % 65,
                communities: vec!["64512:1".parse().unwrap(), "large:1:2:3".parse().unwrap()],
                link_bandwidth: small % 2 == 0,
                vrf: None,
            });
        }
        let shown = show(&config);
        prop_assert_eq!(parse_one(&shown)?, config);
    }

    #[test]
    fn random_bytes_are_read_or_refused_with_a_reason(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_or_refused(&String::from_utf8_lossy(&bytes))?;
    }

    /// The example with pieces cut out, doubled and replaced gets much deeper than random bytes.
    #[test]
    fn a_mangled_example_is_read_or_refused_with_a_reason(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, "[\"\\[\\]{}=,.#%:/0-9a-z\n \u{e9}-]{0,6}"), 1..8),
    ) {
        let mut chars: Vec<char> = live_lines().chars().collect();
        for (place, length, instead) in cuts {
            let start = place.index(chars.len() + 1);
            let end = (start + length).min(chars.len());
            chars.splice(start..end, instead.chars());
        }
        read_or_refused(&chars.into_iter().collect::<String>())?;
    }
}

/// The example without its comments, so that a cut mostly meets a key or value.
fn live_lines() -> String {
    EXAMPLE
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.starts_with("#tcp-ao"))
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect()
}

fn read_or_refused(text: &str) -> Result<(), TestCaseError> {
    match parse_one(text) {
        Ok(config) => prop_assert_eq!(parse_one(&show(&config))?, config),
        Err(complaints) => {
            prop_assert!(complaints.iter().count() > 0, "a refusal has a reason");
            prop_assert!(complaints.render(true).contains("nothing was changed"));
            prop_assert!(!complaints.to_string().contains("crier does not know why"), "{}", complaints);
        }
    }
    Ok(())
}

/// The part of README.md between two lines.
fn in_readme(after: &str, before: &str) -> &'static str {
    let (_, rest) = include_str!("../../README.md").split_once(after).expect("README.md has the line before");
    rest.split_once(before).expect("README.md has the line after").0
}

#[test]
fn the_readme_shows_a_good_configuration_and_the_true_complaints_about_two_mistakes_in_it() {
    let shown = in_readme("```toml\n", "```\n");
    parse_one(shown).unwrap_or_else(|complaints| panic!("{complaints}"));
    let addresses = "addresses = [\"192.168.35.100-192.168.35.110\"]\n";
    let mistaken = shown.replacen(addresses, &format!("{addresses}auto-asign = false\n"), 1).replacen(
        "asn = 64512\n",
        "asn = 64512\nhold-time = \"2s\"\n",
        1,
    );
    let complaints = parse(&[file("/etc/crier/crier.toml", &mistaken)], &TestSecrets).expect_err("two mistakes");
    assert_eq!(in_readme("caret and a hint:\n\n```\n", "```\n"), complaints.render(false));
}

#[test]
fn a_peer_is_an_address_an_interface_or_the_gateway() {
    let read = |text: &str| {
        let config = parse_one(&format!(
            "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 1\n[[bgp.peer]]\nname = \"a\"\naddress = \"{text}\"\nasn = \"external\"\n"
        ));
        config.ok().map(|config| config.bgp.peers[0].address.clone())
    };
    let fixed = |ip: &str, interface: Option<&str>| {
        Some(PeerAddress::Fixed(ScopedAddress { ip: ip.parse().unwrap(), interface: interface.map(Into::into) }))
    };
    let table = [
        ("10.0.0.1", fixed("10.0.0.1", None)),
        ("fd35::1", fixed("fd35::1", None)),
        ("fe80::1%eth0", fixed("fe80::1", Some("eth0"))),
        ("eth0", Some(PeerAddress::Interface("eth0".into()))),
        ("eth0.100", Some(PeerAddress::Interface("eth0.100".into()))),
        ("bond0", Some(PeerAddress::Interface("bond0".into()))),
        ("enp1s0f0np0", Some(PeerAddress::Interface("enp1s0f0np0".into()))),
        ("gateway", Some(PeerAddress::Gateway)),
        ("10.0.0.256", None),
        ("tor.example.com", None),
        ("eth0.70000", None),
        ("an-interface-that-is-too-long", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(read(text), expected, "{text:?}");
    }
}

#[test]
fn another_class_has_a_lease_of_its_own_unless_one_is_named() {
    let lease = |text: &str| {
        let text = format!("[kubernetes]\nin-cluster = true\n{text}");
        let file = SourceFile { path: "crier.toml".to_owned(), text };
        match parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}")).source {
            Source::Kubernetes(kubernetes) => kubernetes.lease.to_string(),
            Source::Manifests(_) => panic!("this is a cluster"),
        }
    };
    assert_eq!(lease(""), "kube-system/crier");
    assert_eq!(lease("class = \"example.com/Edge\""), "kube-system/crier-example.com-edge");
    // Kubernetes and `config check` take these classes, and no API server takes them as a name.
    let names = ["example.com/a_b", "example.com/a.b", "example.com/a..b", "example.com/a-.b", "example.com/a-b"];
    let names = names.map(|class| lease(&format!("class = \"{class}\"")).replace("kube-system/", ""));
    assert_eq!((names[1].as_str(), names[4].as_str()), ("crier-example.com-a.b", "crier-example.com-a-b"), "as ever");
    assert!(names.iter().all(|name| crate::selector::is_dns_name(name)), "{names:?}");
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len(), "{names:?}");
    let long = lease(&format!("class = \"{}.com/{}\"", "a".repeat(240), "b".repeat(63))).replace("kube-system/", "");
    assert!(crate::selector::is_dns_name(&long), "{long}");
    assert_eq!(lease("class = \"example.com/edge\"\nlease = \"lb/crier\""), "lb/crier");
}

/// Input: a host's file that names a pool of the ConfigMap, as an agent takes it. Output: without the text it is judged for
/// what it says itself, so `crier config check` in front of the agent does not keep it from starting.
#[test]
fn what_a_host_names_of_its_config_map_is_taken_for_granted_where_the_text_is_not_at_hand() {
    let text = |of_cluster: &str, l2: &str| {
        format!("[kubernetes]\nkubeconfig = \"/etc/crier/kubeconfig\"\n{of_cluster}[[l2]]\n{l2}")
    };
    let judged = |text: &str| parse_host(&[file("crier.toml", text)], &NoSecrets);
    let of_cluster = "config = \"kube-system/crier\"\n";
    let (config, awaited) = judged(&text(of_cluster, "pools = [\"lan\"]\n")).expect("the ConfigMap may have it");
    assert_eq!((config.l2[0].pools.len(), awaited), (1, vec!["pool \"lan\"".to_owned()]));
    judged(&text("", "pools = [\"lan\"]\n")).expect_err("nothing else may have it");
    judged(&text(of_cluster, "pols = [\"lan\"]\n")).expect_err("no such key");
    parse_one(&text(of_cluster, "pools = [\"lan\"]\n")).expect_err("both together have to have it");
    // An agent starts without the text, as `config check` and the documents say, and not with one that lacks the pool.
    let runs = |of_cluster: &str, texts: &[SourceFile]| {
        parse_running(&[file("crier.toml", &text(of_cluster, "pools = [\"lan\"]\n"))], texts, &NoSecrets)
    };
    runs(of_cluster, &[]).expect("it waits for the ConfigMap");
    let other = file("a.toml", "[[pool]]\nname = \"other\"\naddresses = [\"192.0.2.0/28\"]\n");
    runs(of_cluster, &[other]).expect_err("the ConfigMap has no such pool");
    runs("", &[]).expect_err("nothing else may have it");
}
