//! What it costs the loop that somebody asks, and what it costs whoever asks: a snapshot, a turn while one is held, and each
//! view of it. The first two columns are the loop's: they should hardly depend on how many Services there are.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use crier::agent::counters::{LinkCounters, TurnCounters};
use crier::clock;
use crier::plan::Planner;
use crier::views::bgp::RoutesFilter;
use crier::views::l2::AddressFilter;
use crier::views::{Snapshot, bgp, l2, metrics, status};
use crier::world::Fact;
use jiff::Timestamp;

pub fn head() {
    println!("what a question costs: the loop, then whoever asks");
    println!(
        "{:>9}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}",
        "Services", "snapshot", "turn", "status", "metrics", "l2", "routes"
    );
}

/// `newer` is a fact about one Service: where its status shows an address, and where it shows none.
pub fn measure(count: usize, planner: &mut Planner, newer: impl Fn(Option<IpAddr>) -> Fact) {
    let links = LinkCounters::default();
    for link in ["eth0", "eth1", "eth2"] {
        links.arp.of(&link.into());
        links.pulse.of(&link.into());
    }
    let counters = TurnCounters::default();
    let taken = median(2000, || clocked(|| take(planner, &counters, &links)).0);
    let mut round = 0;
    let turn = median(2000, || {
        let held = take(planner, &counters, &links);
        round += 1;
        let address = (round % 2 == 0).then(|| "10.64.0.7".parse().expect("an address"));
        let fact = newer(address);
        let (took, _) = clocked(|| {
            planner.apply(fact);
            planner.turn(clock::now())
        });
        drop(held);
        took
    });
    let snapshot = take(planner, &counters, &links);
    let status = median(10, || clocked(|| serde_json::to_vec(&status::status(&snapshot)).expect("JSON")).0);
    let metrics = median(10, || clocked(|| metrics::text(&snapshot).expect("metrics")).0);
    let all = AddressFilter::default();
    let l2 =
        median(10, || clocked(|| serde_json::to_vec(&l2::l2(&snapshot, &all).expect("addresses")).expect("JSON")).0);
    let all = RoutesFilter::default();
    let routes =
        median(10, || clocked(|| serde_json::to_vec(&bgp::routes(&snapshot, &all).expect("routes")).expect("JSON")).0);
    let micros = |took: Duration| format!("{:.1} us", took.as_secs_f64() * 1e6);
    let millis = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1e3);
    println!(
        "{count:>9}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}",
        micros(taken),
        micros(turn),
        millis(status),
        millis(metrics),
        millis(l2),
        millis(routes)
    );
}

fn take(planner: &Planner, counters: &TurnCounters, links: &LinkCounters) -> Snapshot {
    Snapshot::of(planner, Timestamp::UNIX_EPOCH, counters.read(links), clock::now(), clock::wall())
}

fn clocked<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = clock::now();
    let done = black_box(work());
    (clock::since(started), done)
}

fn median(rounds: usize, mut round: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..rounds).map(|_| round()).collect();
    times.sort();
    times[rounds / 2]
}
