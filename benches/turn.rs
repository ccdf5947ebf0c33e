//! What a turn of the planner costs: one Service changed among 100 and among 10,000, and everything judged anew.
//! `cargo bench --bench turn`. Read the ratios: a turn about one Service should hardly depend on how many there are.

mod filled;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::clock;
use crier::names::ObjectKey;
use crier::plan::Planner;
use crier::world::{EndpointSlice, Fact};

use crate::filled::{filled, key, node, service};

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
        let slice = EndpointSlice {
            service: middle.clone(),
            family: None,
            ready: Default::default(),
            serving,
            serving_without_node: 0,
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
