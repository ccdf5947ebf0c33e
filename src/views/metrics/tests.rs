//! The table against snapshots: every series, every label, and the page of the documents.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::address::{Family, ScopedAddress};
use crate::agent::counters::{LinkCounters, TurnCounters};
use crate::arp::machine::answer::NoAnswer;
use crate::arp::packet::Protocol;
use crate::bfd::discard::Discard;
use crate::bfd_state::{BfdState, Diagnostic};
use crate::claim::ConflictKind;
use crate::config::{NoSecrets, SourceFile, parse};
use crate::egress::ruleset::{Content, Count};
use crate::manifests::document::{self, Format};
use crate::manifests::scene::{Extent, Scene};
use crate::names::ObjectKey;
use crate::plan::Planner;
use crate::plan::placement::Cause;
use crate::plan::slice::Mapping;
use crate::pulse::outcome::Outcome;
use crate::roster::Roster;
use crate::views::Counters;
use crate::views::counters::Direction as MoveDirection;
use crate::views::drain::Flows;
use crate::views::egress::egress;
use crate::views::egress_path::Path;
use crate::world::{
    BfdReport, Conflict, Direction, Egress, EndpointSlice, Fact, Link, MessageCounts, NotificationCount, Request,
    Service, SessionDetail, SessionReport, SessionState,
};
use crate::{clock, world};

const CONFIG: &str = r#"
[manifests]
folder = "/m"
[[pool]]
name = "lan"
addresses = ["192.0.2.0/28"]
[bgp]
asn = 64513
[[bgp.peer]]
name = "tor"
address = "10.0.0.1"
asn = 64512
bfd = "fast"
[[bfd]]
name = "fast"
[[bgp.advertisement]]
[egress]
new-pods = "hold"
"#;

fn planner() -> Planner {
    let file = SourceFile { path: "test.toml".to_owned(), text: CONFIG.to_owned() };
    Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into())
}

fn snapshot(planner: &Planner, counters: Counters) -> Snapshot {
    let flows = Flows { first: Some(9), left: Some(7), silent: Some(3), trouble: None };
    Snapshot { flows, ..Snapshot::of(planner, Timestamp::UNIX_EPOCH, counters, clock::now(), clock::wall()) }
}

#[track_caller]
fn assert_lines(snapshot: &Snapshot, lines: &[&str]) {
    let text = String::from_utf8(text(snapshot).unwrap()).unwrap();
    for line in lines {
        assert!(text.lines().any(|it| it == *line), "{line} is not in\n{text}");
    }
}

#[test]
fn every_pool_and_peer_has_its_numbers_even_before_the_first_plan() {
    assert_lines(
        &snapshot(&planner(), Counters::default()),
        &[
            "crier_pool_addresses{pool=\"lan\"} 16",
            "crier_pool_addresses_held{pool=\"lan\"} 0",
            "crier_allocates 1",
            "crier_data_path{state=\"good\"} 1",
            "crier_data_path{state=\"not-since-boot\"} 0",
            "crier_services{held=\"true\"} 0",
            "crier_egress_new_pods_held 0",
            "crier_egress_new_pods_dropped_total 0",
        ],
    );
}

fn session() -> SessionReport {
    let hold_timer = NotificationCount { direction: Direction::Sent, code: 4, subcode: 0, count: 2 };
    let detail = SessionDetail {
        times_established: 3,
        messages_sent: MessageCounts { update: 7, ..MessageCounts::default() },
        notifications: vec![hold_timer],
        prefixes_pending: 3,
        ..SessionDetail::default()
    };
    SessionReport {
        state: SessionState::Established,
        since: Timestamp::from_second(1_700_000_000).unwrap().into(),
        last_error: None,
        local_address: None,
        hold_time_secs: Some(90),
        prefixes_sent: 5,
        prefixes_unsendable: 1,
        prefixes_received: 4,
        detail: Box::new(detail),
    }
}

/// A Service with a pod, whose packets are held back for it has no address yet.
fn with_egress() -> [Fact; 2] {
    let key = || ObjectKey::new("shop", "web");
    let service = Service {
        load_balancer: true,
        families: vec![Family::V4],
        request: Ok(Request { pools: vec!["none".into()], ..Request::default() }),
        egress: Some(Egress::ServiceAddress),
        ..Service::default()
    };
    let slice = EndpointSlice {
        service: key(),
        family: Some(Family::V4),
        ready: Default::default(),
        serving: Default::default(),
        serving_without_node: 1,
        unready: Default::default(),
        addresses: vec!["10.244.1.2".parse().unwrap()].into(),
    };
    [
        Fact::Service(key(), Some(Arc::new(service))),
        Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(slice))),
    ]
}

#[test]
fn a_pod_is_held_back_before_its_service_has_an_address_and_that_is_said_once_the_kernel_does_it() {
    let (counters, pod) = (LinkCounters::default(), "10.244.1.2".parse().unwrap());
    counters.egress.read(Count::Dropped, [(pod, 4)]);
    let seen = || snapshot(&busy(), TurnCounters::default().read(&counters));
    let path = || egress(&seen()).services[0].path;
    assert_lines(&seen(), &["crier_egress_pods{path=\"held\"} 0", "crier_egress_pods{path=\"pending\"} 1"]);
    assert_eq!(path(), Path::Pending);
    let said = egress(&seen()).problems;
    assert!(said.iter().any(|it| it.contains("shop/web") && it.contains("are not guarded on this node")), "{said:?}");
    // The table holds another pod, and then this one with what was before.
    let table = |pods: [(IpAddr, Mapping); 1]| Some(Arc::new(Content { pods: pods.into(), ..Content::default() }));
    for other in [("10.244.1.9".parse().unwrap(), Mapping::Held), (pod, Mapping::Steered { slot: 1 })] {
        counters.egress.hold(table([other]));
        assert_eq!(path(), Path::Pending, "{other:?}");
    }
    counters.egress.hold(table([("10.244.1.9".parse().unwrap(), Mapping::Held)]));
    assert_eq!(egress(&seen()).released, ["10.244.1.9".parse::<IpAddr>().unwrap()], "no Service asks for it any more");
    counters.egress.hold(table([(pod, Mapping::Held)]));
    assert_eq!(path(), Path::Held);
    assert!(egress(&seen()).released.is_empty());
    assert_lines(
        &seen(),
        &[
            "crier_egress_pods{path=\"held\"} 1",
            "crier_egress_pods{path=\"local\"} 0",
            "crier_egress_pods{path=\"pending\"} 0",
            "crier_egress_dropped_total{service=\"shop/web\"} 4",
            "crier_egress_translated_total{service=\"shop/web\"} 0",
        ],
    );
    // Another program flushed it.
    counters.egress.hold(None);
    assert_eq!(path(), Path::Pending);
}

/// A planner that has turned, with a session, a link, a roster, a conflict and a Service with egress.
fn busy() -> Planner {
    let mut planner = planner();
    let link = Link::carrying(2, "eth0", &[]);
    let conflict =
        Conflict { mac: "02:00:00:00:00:99".parse().unwrap(), kind: ConflictKind::Contested, since: clock::wall() };
    for fact in [
        Fact::Bfd("tor".into(), Some(Arc::new(bfd()))),
        Fact::Link(2, Some(link)),
        Fact::LinksListed,
        Fact::FailStatic,
        Fact::ApiServer(world::ApiServer::Manifests),
        Fact::ClientCertificate(Some(world::ClientCertificate {
            place: "/pki/c.crt".to_owned(),
            begins: std::time::SystemTime::UNIX_EPOCH,
            ends: std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000),
        })),
        Fact::Session("tor".into(), session()),
        Fact::Roster(2, Some(Arc::new(Roster { settled: true, ..Roster::default() }))),
        Fact::Conflict("192.0.2.1".parse().unwrap(), "eth0".into(), Some(conflict)),
    ]
    .into_iter()
    .chain(with_egress())
    {
        planner.apply(fact);
    }
    planner.turn(clock::now());
    planner
}

#[test]
fn a_peer_has_its_messages_notifications_and_times() {
    assert_lines(
        &snapshot(&busy(), Counters::default()),
        &[
            "crier_bgp_messages_total{direction=\"sent\",peer=\"tor\",type=\"update\"} 7",
            "crier_bgp_messages_total{direction=\"received\",peer=\"tor\",type=\"keepalive\"} 0",
            "crier_bgp_notifications_total{code=\"4\",direction=\"sent\",peer=\"tor\",subcode=\"0\"} 2",
            "crier_bgp_session_established_total{peer=\"tor\"} 3",
            "crier_bgp_session_state_since_timestamp_seconds{peer=\"tor\"} 1700000000",
            "crier_bgp_prefixes_pending{peer=\"tor\"} 3",
            "crier_bgp_prefixes_unsendable{peer=\"tor\"} 1",
            "crier_bgp_prefixes_received_total{peer=\"tor\"} 4",
        ],
    );
}

fn bfd() -> BfdReport {
    BfdReport {
        state: BfdState::Up,
        since: clock::wall(),
        address: ScopedAddress { ip: "10.0.0.1".parse().unwrap(), interface: None },
        local_address: None,
        interface: None,
        multihop: false,
        diagnostic: Diagnostic::None,
        remote_diagnostic: Diagnostic::None,
        remote_state: Some(BfdState::Up),
        held_by_peer: false,
        discriminator: 7,
        remote_discriminator: Some(9),
        remote_multiplier: Some(3),
        detection_time_micros: Some(150_000),
        receive_interval_micros: Some(50_000),
        transmit_interval_micros: Some(50_000),
        remote_demand: false,
        authenticated: false,
        times_up: 4,
        losses: 3,
        last_loss: None,
        problem: None,
    }
}

#[test]
fn a_peer_that_is_watched_has_the_numbers_of_its_bfd_session() {
    assert_lines(
        &snapshot(&busy(), counted()),
        &[
            "crier_bfd_session_up{peer=\"tor\"} 1",
            "crier_bfd_detection_time_microseconds{peer=\"tor\"} 150000",
            "crier_bfd_session_up_total{peer=\"tor\"} 4",
            "crier_bfd_session_lost_total{peer=\"tor\"} 3",
            "crier_bfd_packets_total{outcome=\"sent\",peer=\"tor\"} 1",
            "crier_bfd_packets_total{outcome=\"received\",peer=\"tor\"} 0",
            "crier_bfd_packets_discarded_total{reason=\"ttl\"} 1",
            "crier_bfd_packets_discarded_total{reason=\"forged\"} 0",
        ],
    );
}

fn counted() -> Counters {
    let links = LinkCounters::default();
    let of_eth0 = links.arp.of(&"eth0".into());
    let eth0 = of_eth0.of(Protocol::Arp);
    eth0.count_answer();
    eth0.count_answer();
    eth0.count_gratuitous();
    eth0.count_lost(7);
    eth0.count_ignored(NoAnswer::NotOwned);
    of_eth0.of(Protocol::Ndp).count_answer();
    let pulse = links.pulse.of(&"eth0".into());
    pulse.count_sent(120);
    pulse.count_received(Outcome::Forged);
    pulse.count_received(Outcome::Replayed);
    pulse.count_detection(Duration::from_millis(303));
    links.bfd.of(&"tor".into()).count_sent();
    links.bfd.count_discarded(Discard::Ttl);
    Counters {
        moves: [((MoveDirection::In, "owner-silent".to_owned()), 3_u64)].into_iter().collect(),
        conflicts: [(("eth0".into(), ConflictKind::Contested), 2_u64)].into_iter().collect(),
        ..TurnCounters::default().read(&links)
    }
}

#[test]
fn everything_that_was_counted_on_a_link_has_its_series() {
    assert_lines(
        &snapshot(&planner(), counted()),
        &[
            "crier_l2_requests_total{interface=\"eth0\",protocol=\"arp\"} 3",
            "crier_l2_answers_total{interface=\"eth0\",protocol=\"arp\"} 2",
            "crier_l2_answers_total{interface=\"eth0\",protocol=\"ndp\"} 1",
            "crier_l2_gratuitous_total{interface=\"eth0\",protocol=\"arp\"} 1",
            "crier_l2_frames_lost_total{interface=\"eth0\",protocol=\"arp\"} 7",
            "crier_l2_ignored_total{interface=\"eth0\",protocol=\"arp\",reason=\"not-owned\"} 1",
            "crier_l2_moves_total{cause=\"owner-silent\",direction=\"in\"} 3",
            "crier_l2_moves_total{cause=\"owner-silent\",direction=\"out\"} 0",
            "crier_l2_conflicts_total{interface=\"eth0\",kind=\"contested\"} 2",
            "crier_pulse_sent_bytes_total{interface=\"eth0\"} 120",
            "crier_pulse_received_total{interface=\"eth0\",outcome=\"forged\"} 1",
            "crier_pulse_received_total{interface=\"eth0\",outcome=\"other-key\"} 0",
            "crier_pulse_detection_seconds_bucket{interface=\"eth0\",le=\"0.3\"} 0",
            "crier_pulse_detection_seconds_bucket{interface=\"eth0\",le=\"0.35\"} 1",
            "crier_pulse_detection_seconds_bucket{interface=\"eth0\",le=\"+Inf\"} 1",
            "crier_pulse_detection_seconds_sum{interface=\"eth0\"} 0.303",
        ],
    );
}

#[test]
fn each_metric_has_a_name_of_its_own_and_a_value_for_each_of_its_labels() {
    let snapshot = snapshot(&busy(), counted());
    let mut names = std::collections::BTreeSet::new();
    for metric in table() {
        let name = metric.name;
        assert!(names.insert(name), "{name} is there twice");
        let is_counter = metric.kind() == MetricType::COUNTER;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}: a counter, and nothing else, ends in _total");
        assert!(metric.labels.is_sorted(), "{name}: its labels are in the order of their names");
        let (Read::Gauge(read) | Read::Counter(read)) = metric.read else { continue };
        let mut series = Series::default();
        read(&snapshot, &mut series);
        assert!(!series.values.is_empty(), "{name} has no series in a snapshot that has something of everything");
        for values in series.values.keys() {
            assert_eq!(values.len(), metric.labels.len(), "{name}: {values:?} for {:?}", metric.labels);
        }
    }
}

#[test]
fn the_page_of_metrics_says_what_the_table_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/metrics.md");
    let page = super::document();
    if std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "doc/metrics.md is behind the table; run: CRIER_WRITE_SNAPSHOTS=1 cargo test --lib views::metrics"
    );
}

#[test]
fn every_label_of_the_table_is_explained_and_no_other() {
    let explained: Vec<&str> = super::document::labels().map(|(name, _)| name).collect();
    let used: std::collections::BTreeSet<&str> = table().flat_map(|metric| metric.labels).copied().collect();
    assert_eq!(explained, used.into_iter().collect::<Vec<_>>());
}

/// Output: the page lists each value that a series has of a label whose values are words of crier's own. A cause may be a reason too.
#[test]
fn every_value_of_a_label_is_on_the_page() {
    let snapshot = snapshot(&busy(), counted());
    let listed: BTreeMap<&str, Vec<&str>> =
        super::document::labels().filter(|(_, values)| !values.is_empty()).collect();
    let mut seen = 0;
    for metric in table() {
        let (Read::Gauge(read) | Read::Counter(read)) = metric.read else { continue };
        let mut series = Series::default();
        read(&snapshot, &mut series);
        let pairs = series.values.keys().flat_map(|values| metric.labels.iter().zip(values));
        for (label, value) in pairs.filter(|(label, _)| **label != "cause") {
            let Some(values) = listed.get(label) else { continue };
            assert!(values.contains(&value.as_str()), "{}: {label}=\"{value}\" is not among {values:?}", metric.name);
            seen += 1;
        }
    }
    assert!(seen > 50, "the snapshot has something of everything: {seen}");
    assert!(Cause::USUAL.contains(&Cause::OwnerNotAnswering.code().as_str()));
}

/// Input: a file that is refused, as for a profile of BFD that is missing, then a good one; a ConfigMap that is refused, then one that is
/// taken. Output: stale while an older configuration runs.
#[test]
fn the_configuration_is_stale_while_the_newest_one_is_refused() {
    let mut snapshot = snapshot(&busy(), counted());
    let mut config = crate::config::Config::clone(&snapshot.config);
    config.api.metallb_metrics = true;
    snapshot.config = Arc::new(config);
    let stale = |snapshot: &Snapshot, expected: bool| {
        let line = format!("metallb_k8s_client_config_stale_bool {}", u64::from(expected));
        assert_lines(snapshot, &[&line]);
    };
    stale(&snapshot, false);
    let mut reloads = crate::views::reload::Reloads::clone(&snapshot.reloads);
    reloads.note(jiff::Timestamp::UNIX_EPOCH, Some("no [[bfd]] is named fast".to_owned()));
    snapshot.reloads = reloads.clone();
    stale(&snapshot, true);
    reloads.note(jiff::Timestamp::UNIX_EPOCH, None);
    snapshot.reloads = reloads;
    stale(&snapshot, false);
    for (state, expected) in [
        (crate::world::ClusterConfig::Refused { why: "no [[bfd]] is named fast".into() }, true),
        (crate::world::ClusterConfig::Current, false),
    ] {
        let mut world = crate::world::World::clone(&snapshot.world);
        world.cluster_config = state;
        snapshot.world = world;
        stale(&snapshot, expected);
    }
}

#[test]
fn with_metallb_metrics_its_names_are_served_beside_criers_and_without_none_of_them() {
    let with = |metallb_metrics: bool| {
        let mut snapshot = snapshot(&busy(), counted());
        let mut config = crate::config::Config::clone(&snapshot.config);
        config.api.metallb_metrics = metallb_metrics;
        snapshot.config = Arc::new(config);
        snapshot
    };
    let text_of = |snapshot: &Snapshot| String::from_utf8(text(snapshot).unwrap()).unwrap();
    assert!(!text_of(&with(false)).contains("metallb_"));
    assert_lines(
        &with(true),
        &[
            "crier_pool_addresses{pool=\"lan\"} 16",
            "metallb_allocator_addresses_total{pool=\"lan\"} 16",
            "metallb_allocator_ipv4_addresses_total{pool=\"lan\"} 16",
            "metallb_allocator_ipv6_addresses_total{pool=\"lan\"} 0",
            "metallb_k8s_client_config_loaded_bool 1",
            "metallb_k8s_client_config_stale_bool 0",
            "# TYPE metallb_allocator_addresses_total gauge",
            "metallb_layer2_requests_received{interface=\"eth0\",protocol=\"arp\"} 2",
            "metallb_layer2_responses_sent{interface=\"eth0\",protocol=\"ndp\"} 1",
            "metallb_layer2_gratuitous_sent{interface=\"eth0\",protocol=\"arp\"} 1",
            "metallb_bgp_session_up{peer=\"10.0.0.1:179\",vrf=\"default\"} 1",
            "metallb_bgp_updates_total{peer=\"10.0.0.1:179\",vrf=\"default\"} 7",
            "metallb_bgp_notifications_sent{peer=\"10.0.0.1:179\",vrf=\"default\"} 2",
            "metallb_bgp_announced_prefixes_total{peer=\"10.0.0.1:179\",vrf=\"default\"} 5",
        ],
    );
}

#[test]
fn an_address_that_this_node_announces_is_in_metallbs_metric_by_service_node_and_protocol() {
    let config = CONFIG.replace("[manifests]", "[[l2]]\n[api]\nmetallb-metrics = true\n[manifests]");
    let file = SourceFile { path: "test.toml".to_owned(), text: config };
    let mut planner = Planner::new(Arc::new(parse(&[file], &NoSecrets).unwrap()), "node-1".into());
    let texts = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {type: LoadBalancer}\n",
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\nstatus: {conditions: [{type: Ready, status: 'True'}]}\n",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}\n\
         endpoints: [{addresses: [10.1.0.1], nodeName: node-1}]\n",
    ];
    let mut scene = Scene::default();
    let entries = document::read(&texts.join("---\n"), Format::Yaml).expect("sound manifests").entries;
    scene.take("all.yaml", entries, Extent::default());
    scene.news().facts.into_iter().for_each(|fact| planner.apply(fact));
    let link = busy().world().links[&2].clone();
    let addresses = vec!["203.0.113.9/24".parse().unwrap()];
    let link = Link { mac: Some("02:00:00:00:00:01".parse().unwrap()), addresses, ..link };
    planner.apply(Fact::Link(2, Some(link)));
    planner.apply(Fact::LinksListed);
    planner.turn(clock::now());
    assert_lines(
        &snapshot(&planner, Counters::default()),
        &[
            "metallb_speaker_announced{ip=\"192.0.2.0\",node=\"node-1\",protocol=\"layer2\",service=\"shop/web\"} 1",
            "metallb_speaker_announced{ip=\"192.0.2.0\",node=\"node-1\",protocol=\"bgp\",service=\"shop/web\"} 1",
            "metallb_allocator_addresses_in_use_total{pool=\"lan\"} 1",
        ],
    );
}

#[test]
fn each_metric_of_metallb_names_metrics_of_crier_and_has_a_value_for_each_of_its_labels() {
    let snapshot = snapshot(&busy(), counted());
    let mut names = std::collections::BTreeSet::new();
    for metallb::Theirs { metric, ours } in &metallb::METRICS {
        assert!(names.insert(metric.name) && metric.name.starts_with("metallb_"), "{}", metric.name);
        assert!(metric.labels.is_sorted(), "{}: its labels are in the order of their names", metric.name);
        for ours in *ours {
            assert!(table().any(|metric| metric.name == *ours), "{}: there is no {ours}", metric.name);
        }
        let (Read::Gauge(read) | Read::Counter(read)) = metric.read else { panic!("{} is a histogram", metric.name) };
        let mut series = Series::default();
        read(&snapshot, &mut series);
        assert!(!series.values.is_empty() || metric.name == "metallb_speaker_announced", "{}", metric.name);
        for values in series.values.keys() {
            assert_eq!(values.len(), metric.labels.len(), "{}: {values:?} for {:?}", metric.name, metric.labels);
        }
    }
}
