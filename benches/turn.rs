//! What a turn of the planner costs: one Service changed among 100 and among 10,000, and everything judged anew.
//! `cargo bench --bench turn`. Read the ratios: a turn about one Service should hardly depend on how many there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::clock;
use crier::config::{self, SourceFile};
use crier::names::ObjectKey;
use crier::plan::Planner;
use crier::world::{EndpointSlice, Fact, FamilyPolicy, Link, Listing, Node, Request, Service, TrafficPolicy};

const CONFIGURATION: &str = r#"
[kubernetes]
in-cluster = true
[[pool]]
name = "public"
addresses = ["10.64.0.0/16"]
[[l2]]
[bgp]
asn = 64513
[[bgp.peer]]
name = "tor"
address = "10.0.0.1"
asn = 64512
[[bgp.advertisement]]
"#;

const ROUNDS: usize = 2000;

fn main() {
    println!("{:>9}  {:>12}  {:>12}  {:>12}", "Services", "one endpoint", "one address", "everything");
    let small = measure(100);
    let large = measure(10_000);
    println!(
        "one endpoint changed, 10,000 Services against 100: {:.1} times",
        large.0.as_secs_f64() / small.0.as_secs_f64()
    );
}

fn measure(count: usize) -> (Duration, Duration, Duration) {
    let mut planner = filled(count);
    let middle = key(count / 2);
    let serving = |number: u32| {
        let serving = [("node-1".into(), number)].into();
        let slice = EndpointSlice { service: middle.clone(), serving, serving_without_node: 0 };
        Fact::EndpointSlice(middle.clone(), Some(Arc::new(slice)))
    };
    // None and one in turn, so that the route and the answer on the link come and go.
    let empty = EndpointSlice { service: middle.clone(), serving: Default::default(), serving_without_node: 0 };
    let endpoint = median(|round| {
        let fact = match round % 2 {
            0 => Fact::EndpointSlice(middle.clone(), Some(Arc::new(empty.clone()))),
            _ => serving(1),
        };
        timed(&mut planner, [fact])
    });
    let newcomer = ObjectKey::new("bench", "newcomer");
    let address = median(|round| {
        let service = (round % 2 == 0).then(|| Arc::new(service(None)));
        timed(&mut planner, [Fact::Service(newcomer.clone(), service)])
    });
    let mut ready = true;
    let started = clock::now();
    for _ in 0..4 {
        ready = !ready;
        timed(&mut planner, [Fact::Node("node-2".into(), Some(Arc::new(node(ready))))]);
    }
    let everything = started.elapsed() / 4;
    println!(
        "{count:>9}  {:>9.1} us  {:>9.1} us  {:>9.1} ms",
        micros(endpoint),
        micros(address),
        micros(everything) / 1e3
    );
    (endpoint, address, everything)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn median(mut round: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(&mut round).collect();
    times.sort();
    times[ROUNDS / 2]
}

fn timed(planner: &mut Planner, facts: impl IntoIterator<Item = Fact>) -> Duration {
    let started: Instant = clock::now();
    facts.into_iter().for_each(|fact| planner.apply(fact));
    std::hint::black_box(planner.turn(started));
    started.elapsed()
}

fn filled(count: usize) -> Planner {
    let file = SourceFile { path: "bench.toml".to_owned(), text: CONFIGURATION.to_owned() };
    let config = config::parse(&[file], &config::NoSecrets).expect("the configuration of the benchmark is good");
    let mut planner = Planner::new(Arc::new(config), "node-1".into());
    for name in ["node-1", "node-2", "node-3"] {
        planner.apply(Fact::Node(name.into(), Some(Arc::new(node(true)))));
    }
    let link = Link {
        index: 2,
        name: "eth0".into(),
        mac: Some("02:00:00:00:00:01".parse().expect("a MAC address")),
        up: true,
        carrier: true,
        loopback: false,
        arp: true,
        master: None,
        vrf: None,
        addresses: Vec::new(),
    };
    planner.apply(Fact::Link(2, Some(link)));
    planner.apply(Fact::LinksListed);
    for number in 0..count {
        let address = std::net::Ipv4Addr::from_bits(0x0a40_0000 + u32::try_from(number).expect("a small number"));
        planner.apply(Fact::Service(key(number), Some(Arc::new(service(Some(address.into()))))));
        let serving = [("node-1".into(), 1)].into();
        let slice = EndpointSlice { service: key(number), serving, serving_without_node: 0 };
        planner.apply(Fact::EndpointSlice(key(number), Some(Arc::new(slice))));
    }
    let keys: std::collections::BTreeSet<_> = (0..count).map(key).collect();
    planner.apply(Fact::Listed(Listing::Services(keys.clone())));
    planner.apply(Fact::Listed(Listing::EndpointSlices(keys)));
    planner.apply(Fact::Listed(Listing::Nodes(["node-1", "node-2", "node-3"].map(Into::into).into())));
    planner.apply(Fact::Listed(Listing::Namespaces(Default::default())));
    planner.apply(Fact::Leader(true));
    planner.turn(clock::now());
    let routes = planner.plan().bgp.peers.values().next().map(|peer| peer.routes.len());
    assert_eq!(routes, Some(count), "every Service is announced before anything is measured");
    planner
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new("bench", &format!("service-{number:05}"))
}

fn node(ready: bool) -> Node {
    Node { labels: Default::default(), ready, network_unavailable: false, addresses: Vec::new() }
}

fn service(address: Option<std::net::IpAddr>) -> Service {
    Service {
        uid: "u".to_owned(),
        resource_version: String::new(),
        load_balancer: true,
        class: None,
        labels: Default::default(),
        families: vec![crier::address::Family::V4],
        family_policy: FamilyPolicy::SingleStack,
        external_traffic_policy: TrafficPolicy::Cluster,
        ports: Vec::new(),
        request: Ok(Request::default()),
        ingress: address.into_iter().collect(),
    }
}
