//! How long an answer takes, beside the kernel's own answer on the same wire in the same run. Figures to read, not a test.

use std::net::Ipv4Addr;
use std::time::Duration;

use crier::clock;

use crate::wire::{Ear, NODE_IP, Node, SOON, Wire, who_has};

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const QUESTIONS: usize = 20_000;

pub fn latency() {
    let wire = Wire::new();
    wire.run(async || {
        let node = Node::start().await;
        node.own([VIP]);
        let ear = Ear::on(&wire.client, "eth0");
        ear.ask(&who_has(VIP), SOON).expect("an answer of the responder");
        println!("one question outstanding, {QUESTIONS} of them each, in turns of a thousand:");
        let (mut kernel, mut responder) = (Vec::new(), Vec::new());
        for _ in 0..QUESTIONS / 1000 {
            ask(&ear, NODE_IP, &mut kernel);
            ask(&ear, VIP, &mut responder);
        }
        let (kernel, responder) = (figures("kernel", kernel), figures("responder", responder));
        println!("responder / kernel at p50: {:.1}", responder.as_secs_f64() / kernel.as_secs_f64());
        println!("{:?}", node.counters.read());
    });
}

fn ask(ear: &Ear, address: Ipv4Addr, times: &mut Vec<Duration>) {
    for _ in 0..1000 {
        let start = clock::now();
        ear.ask(&who_has(address), SOON).expect("an answer");
        times.push(clock::now() - start);
    }
}

/// Prints the quantiles; the median.
fn figures(who: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    let at = |per_mille: usize| times[(times.len() - 1) * per_mille / 1000];
    println!("{who:>10}: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(500), at(900), at(990), at(1000));
    at(500)
}
