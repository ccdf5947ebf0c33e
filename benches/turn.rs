//! What a turn of the planner costs: one Service changed among 100 and among 10,000, everything judged anew, a node that dies
//! and returns, the links of pods that come and go, and what it costs the loop that somebody asks.
//! `cargo bench --bench turn`. Read the ratios: a turn about one Service should hardly depend on how many there are, and a
//! turn about a node only on what it owned.

mod links;
mod questions;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::address::MacAddress;
use crier::clock;
use crier::config::{self, Config, SourceFile};
use crier::names::{NodeName, ObjectKey};
use crier::plan::Planner;
use crier::plan::context::l2;
use crier::plan::elect::{Candidate, elect};
use crier::plan::holder::Grade;
use crier::roster::{Card, Departed, Holding, Holdings, Member, Roster, Stage};
use crier::world::{EndpointSlice, Fact, Link, Listing, Node, Pulses, Service};
use links::eth0;

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
    measure_node(500, 10_000);
    measure_links(300, 3_000);
    questions::head();
    for count in [100, 10_000] {
        let newer = |address| Fact::Service(key(7), Some(Arc::new(service(address))));
        questions::measure(count, &mut filled(count), newer);
    }
}

/// The first plan, a node that dies and returns as its pulses tell, and everything judged anew.
fn measure_node(nodes: usize, services: usize) {
    let mut planner = empty(&names(nodes));
    planner.apply(Fact::Pulses(Pulses::On { authenticated: true }));
    let holders = ranked_first(nodes, services);
    planner.apply(roster(nodes, &holders, None));
    fill(&mut planner, services);
    let first = timed(&mut planner, []);
    let victim = NodeName::from("node-250");
    let mut owned = 0;
    let (mut deaths, mut returns) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        deaths.push(timed(&mut planner, [roster(nodes, &holders, Some(&victim))]));
        owned = planner.judged();
        returns.push(timed(&mut planner, [roster(nodes, &holders, None)]));
    }
    let everything: Vec<_> = [false, true].map(|allocates| timed(&mut planner, [Fact::Allocates(allocates)])).into();
    println!("{nodes} nodes, {services} Services, with pulses:");
    println!("  the first plan           {:>9.1} ms", micros(first) / 1e3);
    println!("  a node dies              {:>9.1} ms, {owned} Services judged", micros(middle(deaths)) / 1e3);
    println!("  it returns               {:>9.1} ms", micros(middle(returns)) / 1e3);
    println!("  everything judged anew   {:>9.1} ms", micros(middle(everything)) / 1e3);
}

/// Ten pairs of veth that come up and go, with a turn for each fact.
fn measure_links(nodes: usize, services: usize) {
    let mut planner = empty(&names(nodes));
    fill(&mut planner, services);
    planner.turn(clock::now());
    let address = "fe80::ecee:eeff:feee:eeee/64".parse().expect("an address");
    let mut took = Duration::ZERO;
    for pair in 0..10 {
        for end in 0..2 {
            let index = 100 + pair * 2 + end;
            let down = Link {
                index,
                name: format!("veth{index}").as_str().into(),
                up: false,
                carrier: false,
                ..eth0(Vec::new())
            };
            let up = Link { up: true, carrier: true, ..down.clone() };
            let addressed = Link { addresses: vec![address], ..up.clone() };
            for link in [Some(down), Some(up), Some(addressed), None] {
                took += timed(&mut planner, [Fact::Link(index, link)]);
            }
        }
    }
    println!(
        "{nodes} nodes, {services} Services: ten veth pairs come and go {:>6.2} ms in 80 turns",
        micros(took) / 1e3
    );
}

fn names(count: usize) -> Vec<NodeName> {
    (1..=count).map(|number| format!("node-{number}").into()).collect()
}

/// Which of the nodes but this one, node-1, is ranked first for each address.
fn ranked_first(nodes: usize, services: usize) -> Vec<NodeName> {
    let others: Vec<Candidate> =
        names(nodes).into_iter().skip(1).map(|node| Candidate { node, weight: 0, grade: Grade::Eligible }).collect();
    let first = |service| elect(&others, address(service), |_| false).cloned().expect("there are others");
    (0..services).map(first).collect()
}

/// All nodes but this one, each with the addresses that it is ranked first for; `silent` is dead.
fn roster(nodes: usize, first: &[NodeName], silent: Option<&NodeName>) -> Fact {
    let held_by = |name: &NodeName| -> Holdings {
        let held = first.iter().enumerate().filter(|(_, first)| *first == name);
        held.map(|(service, _)| (address(service), Holding { weight: 0, stage: Stage::Holds })).collect()
    };
    let mut roster = Roster { settled: true, ..Roster::default() };
    let config = configuration();
    let weights = l2::numbers(&config).into_iter().map(|number| (number, 0)).collect();
    let card = Arc::new(Card { weights, ..Card::default() });
    for (number, name) in (1_u32..).zip(names(nodes)).skip(1) {
        let [_, _, high, low] = number.to_be_bytes();
        let member = Member {
            owner: true,
            card: card.clone(),
            holdings: held_by(&name),
            ..Member::eligible(MacAddress([2, 0, 0, 0, high, low]))
        };
        match silent == Some(&name) {
            true => {
                let Member { mac, holdings, .. } = member;
                let departed =
                    Departed { mac, unheard: Duration::from_millis(300), suspect: false, holdings, just_left: false };
                drop(roster.silent.insert(name, departed));
            }
            false => drop(roster.members.insert(name, member)),
        }
    }
    Fact::Roster(2, Some(Arc::new(roster)))
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn measure(count: usize) -> (Duration, Duration, Duration) {
    let mut planner = filled(count);
    let middle = key(count / 2);
    let serving = |number: u32| {
        let serving = [("node-1".into(), number)].into();
        let slice = EndpointSlice {
            service: middle.clone(),
            family: None,
            ready: Default::default(),
            serving,
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        Fact::EndpointSlice(middle.clone(), Some(Arc::new(slice)))
    };
    // None and one in turn, so that the route and the answer on the link come and go.
    let empty = EndpointSlice {
        service: middle.clone(),
        family: None,
        ready: Default::default(),
        serving: Default::default(),
        serving_without_node: 0,
        unready: Default::default(),
        addresses: Default::default(),
    };
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
    let started = clock::now();
    for round in 0..4 {
        timed(&mut planner, [Fact::Allocates(round % 2 == 1)]);
    }
    let everything = clock::since(started) / 4;
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
    clock::since(started)
}

fn filled(count: usize) -> Planner {
    let mut planner = empty(&names(3));
    fill(&mut planner, count);
    planner.turn(clock::now());
    let routes = planner.plan().bgp.peers.values().next().map(|peer| peer.routes.len());
    assert_eq!(routes, Some(count), "every Service is announced before anything is measured");
    planner
}

/// A planner of node-1 that knows the nodes and one link.
fn configuration() -> Config {
    let file = SourceFile { path: "bench.toml".to_owned(), text: CONFIGURATION.to_owned() };
    config::parse(&[file], &config::NoSecrets).expect("the configuration of the benchmark is good")
}

fn empty(nodes: &[NodeName]) -> Planner {
    let mut planner = Planner::new(Arc::new(configuration()), "node-1".into());
    for name in nodes {
        planner.apply(Fact::Node(name.clone(), Some(Arc::new(node(true)))));
    }
    planner.apply(Fact::Link(2, Some(eth0(Vec::new()))));
    planner.apply(Fact::LinksListed);
    planner.apply(Fact::Listed(Listing::Nodes(nodes.iter().cloned().collect())));
    planner
}

/// Tells the Services, each with an endpoint; the next turn makes the first plan.
fn fill(planner: &mut Planner, count: usize) {
    for number in 0..count {
        planner.apply(Fact::Service(key(number), Some(Arc::new(service(Some(address(number)))))));
        let serving = [("node-1".into(), 1)].into();
        let slice = EndpointSlice {
            service: key(number),
            family: None,
            ready: Default::default(),
            serving,
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        planner.apply(Fact::EndpointSlice(key(number), Some(Arc::new(slice))));
    }
    let keys: std::collections::BTreeSet<_> = (0..count).map(key).collect();
    planner.apply(Fact::Listed(Listing::Services(keys.clone())));
    planner.apply(Fact::Listed(Listing::EndpointSlices(keys)));
    planner.apply(Fact::Listed(Listing::Namespaces(Default::default())));
    planner.apply(Fact::Allocates(true));
}

fn address(number: usize) -> IpAddr {
    Ipv4Addr::from_bits(0x0a40_0000 + u32::try_from(number).expect("a small number")).into()
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new("bench", &format!("service-{number:05}"))
}

fn node(ready: bool) -> Node {
    Node { ready, ..Node::default() }
}

fn service(address: Option<IpAddr>) -> Service {
    Service {
        uid: "u".to_owned(),
        resource_version: String::new(),
        load_balancer: true,
        families: vec![crier::address::Family::V4],
        ingress: address.into_iter().collect(),
        ..Service::default()
    }
}
