//! A planner that knows so many Services and has turned, for the benchmarks.

use std::sync::Arc;

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

pub fn filled(count: usize) -> Planner {
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
        let slice = EndpointSlice {
            service: key(number),
            family: None,
            ready: Default::default(),
            serving,
            serving_without_node: 0,
        };
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

pub fn key(number: usize) -> ObjectKey {
    ObjectKey::new("bench", &format!("service-{number:05}"))
}

pub fn node(ready: bool) -> Node {
    Node { labels: Default::default(), ready, network_unavailable: false, addresses: Vec::new() }
}

pub fn service(address: Option<std::net::IpAddr>) -> Service {
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
