//! What egress costs: a pod more in one of many Services with `crier.dev/egress`, from the EndpointSlice to the kernel's yes.
//! `unshare -n cargo bench --bench egress`, as root: it writes crier's table into the network namespace that it runs in, and refuses
//! one with a link that is up. Read the ratios: a change should hardly depend on how many Services and pods there are, and the
//! number of rules not at all.

mod links;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crier::clock;
use crier::config::{self, Config, SourceFile};
use crier::egress::counters::Counters;
use crier::egress::kept::HeldFile;
use crier::egress::task::{self, Past};
use crier::names::ObjectKey;
use crier::plan::Planner;
use crier::plan::slice::{EgressSlice, Mapping};
use crier::world::{Egress, EndpointAddresses, EndpointSlice, Fact, Listing, Node, Service, Tenant};
use links::eth0;
use tokio::sync::{mpsc, watch};

const CONFIGURATION: &str = r#"
[kubernetes]
in-cluster = true
[[pool]]
name = "public"
addresses = ["10.64.0.0/17"]
[[l2]]
[egress]
release-after = "0s"
"#;

const PODS_OF_A_SERVICE: usize = 10;
const ROUNDS: usize = 200;

fn main() {
    let links = Command::new("ip").args(["-o", "link", "show", "up"]).output().expect("ip is there");
    let others: Vec<String> =
        String::from_utf8_lossy(&links.stdout).lines().filter(|it| !it.contains(": lo:")).map(str::to_owned).collect();
    if !others.is_empty() {
        eprintln!(
            "this is no network namespace of its own: unshare -n cargo bench --bench egress\n{}",
            others.join("\n")
        );
        std::process::exit(2);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("threads can be started");
    println!(
        "{:>8}  {:>6}  {:>11}  {:>10}  {:>10}  {:>5}  {:>9}",
        "Services", "pods", "first table", "plan", "kernel", "rules", "resident"
    );
    let small = measure(&runtime, 1);
    measure(&runtime, 100);
    let large = measure(&runtime, 1000);
    println!("a pod more, 1,000 Services against one: {:.1} times", large.as_secs_f64() / small.as_secs_f64());
}

/// The time from a changed EndpointSlice to the kernel's yes.
fn measure(runtime: &tokio::runtime::Runtime, services: usize) -> Duration {
    let mut planner = planner(services);
    planner.turn(clock::now());
    let counters = Arc::new(Counters::default());
    let (slices, following) = watch::channel(EgressSlice::default());
    let (facts, mut told) = mpsc::channel(16);
    let folder = tempfile::tempdir().expect("there is a folder for what is kept");
    let past = Past { former: None, kept: HeldFile::of(folder.path(), "bench") };
    let (filtered, _) = watch::channel(false);
    let settings = configuration().egress;
    let keeper = runtime.spawn(task::run(following, settings, facts, counters.clone(), filtered, past));
    runtime.spawn(async move { while told.recv().await.is_some() {} });
    let pods = services * PODS_OF_A_SERVICE;
    assert_eq!(planner.plan().egress.pods.len(), pods, "every pod has a way");
    let begun = clock::now();
    slices.send_replace(planner.plan().egress.clone());
    wait(&counters, |table| table == pods);
    let first = clock::since(begun);

    let newcomer: IpAddr = pod(services, 0);
    let (mut planning, mut writing) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let comes = round % 2 == 0;
        let begun = clock::now();
        planner.apply(slice(services / 2, comes.then_some(newcomer)));
        planner.turn(begun);
        planning.push(clock::since(begun));
        let begun = clock::now();
        slices.send_replace(planner.plan().egress.clone());
        wait(&counters, |table| table == pods + usize::from(comes));
        writing.push(clock::since(begun));
        if !comes {
            continue;
        }
        let mapping = planner.plan().egress.pods.get(&newcomer).copied();
        assert!(matches!(mapping, Some(Mapping::Translated { .. })), "this node owns the address: {mapping:?}");
    }
    let (planning, writing) = (median(planning), median(writing));
    println!(
        "{services:>8}  {pods:>6}  {:>8.1} ms  {:>7.0} us  {:>7.0} us  {:>5}  {:>5.1} MiB",
        first.as_secs_f64() * 1e3,
        planning.as_secs_f64() * 1e6,
        writing.as_secs_f64() * 1e6,
        rules(),
        resident(),
    );
    keeper.abort();
    // The next one makes its own.
    Command::new("nft").args(["flush", "ruleset"]).status().expect("nft is there");
    planning + writing
}

/// Until the keeper of the table knows that the kernel holds so many pods.
fn wait(counters: &Counters, is_reached: impl Fn(usize) -> bool) {
    let begun = clock::now();
    while !counters.held().is_some_and(|table| is_reached(table.pods.len())) {
        let held = counters.held().map(|table| table.pods.len());
        assert!(clock::since(begun) < Duration::from_secs(60), "the kernel takes the table: {held:?} pods");
        std::thread::yield_now();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn rules() -> usize {
    let listed = Command::new("nft").args(["-j", "list", "table", "inet", "crier"]).output().expect("nft is there");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("nft writes JSON");
    listed["nftables"].as_array().into_iter().flatten().filter(|it| it.get("rule").is_some()).count()
}

/// In MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

fn configuration() -> Config {
    let file = SourceFile { path: "bench.toml".to_owned(), text: CONFIGURATION.to_owned() };
    config::parse(&[file], &config::NoSecrets).expect("the configuration of the benchmark is good")
}

/// Knows everything, and has no plan yet.
fn planner(services: usize) -> Planner {
    let mut planner = Planner::new(Arc::new(configuration()), "node-1".into());
    planner.apply(Fact::Node("node-1".into(), Some(Arc::new(Node { ready: true, ..Node::default() }))));
    planner.apply(Fact::Link(2, Some(eth0(vec!["10.64.255.254/16".parse().expect("a network")]))));
    planner.apply(Fact::LinksListed);
    planner.apply(Fact::Listed(Listing::Nodes(["node-1".into()].into())));
    for number in 0..services {
        planner.apply(Fact::Service(key(number), Some(Arc::new(service(number)))));
        planner.apply(slice(number, None));
    }
    let keys: BTreeSet<ObjectKey> = (0..services).map(key).collect();
    planner.apply(Fact::Listed(Listing::Services(keys.clone())));
    planner.apply(Fact::Listed(Listing::EndpointSlices(keys)));
    planner.apply(Fact::Listed(Listing::Namespaces(Default::default())));
    planner.apply(Fact::Allocates(true));
    planner
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new("bench", &format!("service-{number:05}"))
}

fn service(number: usize) -> Service {
    let address = Ipv4Addr::from_bits(0x0a40_0001 + u32::try_from(number).expect("a small number"));
    Service {
        uid: "u".to_owned(),
        load_balancer: true,
        families: vec![crier::address::Family::V4],
        ingress: vec![address.into()],
        egress: Some(Egress::ServiceAddress),
        ..Service::default()
    }
}

fn pod(service: usize, number: usize) -> IpAddr {
    let offset = u32::try_from(service * PODS_OF_A_SERVICE + number).expect("a small number");
    Ipv4Addr::from_bits(0x0af4_0000 + offset).into()
}

/// The pods of a Service on this node, and one more.
fn slice(service: usize, more: Option<IpAddr>) -> Fact {
    let pods = (0..PODS_OF_A_SERVICE).map(|number| pod(service, number)).chain(more);
    let pods: Vec<(IpAddr, Tenant)> = pods.map(|pod| (pod, Tenant::of(&pod.to_string(), false))).collect();
    let counts: crier::world::NodeCounts =
        [("node-1".into(), u32::try_from(pods.len()).expect("a small number"))].into();
    let slice = EndpointSlice {
        service: key(service),
        family: None,
        ready: counts.clone(),
        serving: counts,
        serving_without_node: 0,
        unready: Default::default(),
        addresses: EndpointAddresses::of(&pods),
    };
    Fact::EndpointSlice(key(service), Some(Arc::new(slice)))
}
