//! How long an answer takes, beside the kernel's own answer and a plain recv/send responder on the same wire in the same
//! run, and how much of a flood is answered while the runtime has other work. Figures to read, not a test.

use std::io::Read;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crier::address::MacAddress;
use crier::arp::offload::life;
use crier::arp::packet::Protocol;
use crier::arp::packet::arp::{Operation, Packet};
use crier::clock;

use crate::answers::owning;
use crate::namespace::ip;
use crate::wire::{Ear, NODE_IP, NODE_MAC, Node, SOON, Wire, who_has};

/// What the responder answers for, and what the plain one does.
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const OFFLOADED: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);
const PLAIN: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 200);
const QUESTIONS: usize = 20_000;

pub fn latency() {
    let wire = Wire::new();
    wire.run(async || {
        let node = owning([VIP]).await;
        // Another agent on the same link, whose answers the kernel gives; without its help, the socket of that one.
        let helped = Node::start_with(Some(life(None))).await;
        helped.own([OFFLOADED]);
        let ear = Ear::on(&wire.client, "eth0");
        ear.ask(&who_has(VIP), SOON).expect("an answer of the responder");
        let _plain = PlainResponder::start(&wire);
        println!("one question outstanding, {QUESTIONS} of them each, in turns of a thousand:");
        ear.ask(&who_has(OFFLOADED), SOON).expect("an answer of the other responder");
        let is_helped = helped.states.borrow().values().any(|link| link.offloaded);
        println!("the kernel {} the program", if is_helped { "takes" } else { "does not take" });
        let (mut kernel, mut plain, mut responder, mut offloaded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..QUESTIONS / 1000 {
            ask(&ear, NODE_IP, &mut kernel);
            ask(&ear, PLAIN, &mut plain);
            ask(&ear, VIP, &mut responder);
            ask(&ear, OFFLOADED, &mut offloaded);
        }
        let kernel = figures("kernel", kernel);
        let offloaded = figures("offloaded", offloaded);
        println!("offloaded / kernel at p50: {:.2}", offloaded.as_secs_f64() / kernel.as_secs_f64());
        let (plain, responder) = (figures("plain recv/send", plain), figures("responder", responder));
        println!("responder / plain at p50: {:.2}", responder.as_secs_f64() / plain.as_secs_f64());
        println!();
        for rate in [10_000, 50_000, 100_000, 200_000] {
            for (who, address) in
                [("kernel", NODE_IP), ("plain recv/send", PLAIN), ("responder", VIP), ("offloaded", OFFLOADED)]
            {
                let before = node.counted(Protocol::Arp);
                let flood = flood(&wire, address, rate, Duration::from_secs(3));
                let after = node.counted(Protocol::Arp);
                println!("{who:>15} at {rate:>6}/s: {flood}; lost in our ring {}", after.lost - before.lost);
            }
        }
    });
}

fn ask(ear: &Ear, address: Ipv4Addr, times: &mut Vec<Duration>) {
    for _ in 0..1000 {
        let start = clock::now();
        let answer = ear.ask(&who_has(address), SOON);
        assert!(answer.is_some(), "no answer for {address} after {} answers", times.len());
        times.push(clock::now() - start);
    }
}

/// Prints the quantiles; the median.
fn figures(who: &str, mut times: Vec<Duration>) -> Duration {
    times.sort();
    println!("{who:>15}: {}", quantiles(&times));
    times[times.len() / 2]
}

fn quantiles(sorted: &[Duration]) -> String {
    let at = |per_mille: usize| sorted[(sorted.len() - 1) * per_mille / 1000];
    format!("p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(500), at(900), at(990), at(1000))
}

/// Questions at a rate, from a station of their own, and meanwhile one question a millisecond from another whose answers
/// are timed; the runtime's clock ticks beside them.
fn flood(wire: &Wire, address: Ipv4Addr, rate: u32, time: Duration) -> String {
    let asking = |mac: u8, from: u8| Packet {
        source: MacAddress([2, 0, 0, 0, 1, mac]),
        sender_mac: MacAddress([2, 0, 0, 0, 1, mac]),
        sender_ip: Ipv4Addr::new(192, 168, 35, from),
        ..who_has(address)
    };
    let (flooding, timed) = (asking(1, 60), asking(2, 61));
    let sent = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let ticks = scope.spawn(|| {
            // What else the agent does has to go on: how late a task wakes from a sleep of a millisecond.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut late = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let start = clock::now();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    late.push((clock::now() - start).saturating_sub(Duration::from_millis(1)));
                }
                late.sort();
                late
            })
        });
        let probe = scope.spawn(|| {
            let ear = Ear::on_for(&wire.client, "eth0", timed.sender_ip);
            let (mut times, mut lost) = (Vec::new(), 0_u32);
            while !over.load(Ordering::Relaxed) {
                let start = clock::now();
                match ear.ask(&timed, Duration::from_millis(200)) {
                    Some(_) => times.push(clock::now() - start),
                    None => lost += 1,
                }
                pause(Duration::from_millis(1));
            }
            times.sort();
            (times, lost)
        });
        let answered_before = received(wire);
        let ear = Ear::mute(&wire.client, "eth0");
        let frame = flooding.emit();
        let start = clock::now();
        while clock::now() - start < time {
            let due = due_after(clock::now() - start, rate);
            let missing = due.saturating_sub(sent.load(Ordering::Relaxed)).min(64);
            if missing == 0 {
                std::hint::spin_loop();
                continue;
            }
            sent.fetch_add(ear.say_many(&frame, missing), Ordering::Relaxed);
        }
        pause(Duration::from_millis(100));
        over.store(true, Ordering::Relaxed);
        let (times, lost) = probe.join().expect("a prober");
        let late = ticks.join().expect("a ticker");
        let asked = sent.load(Ordering::Relaxed) + u64::try_from(times.len()).expect("a count");
        let answered = received(wire) - answered_before;
        let per_second = answered.saturating_mul(1000) / u64::try_from(time.as_millis()).expect("short");
        format!(
            "{asked} asked, {answered} answered ({per_second}/s), {lost} timed ones lost; {}; runtime late by {}",
            quantiles(&times),
            quantiles(&late),
        )
    })
}

/// A measure keeps to its own times; it waits for nothing here.
#[expect(clippy::disallowed_methods)]
fn pause(time: Duration) {
    thread::sleep(time);
}

fn due_after(time: Duration, rate: u32) -> u64 {
    u64::try_from(time.as_micros() * u128::from(rate) / 1_000_000).expect("a short time")
}

/// Frames that the client's end of the wire has received.
fn received(wire: &Wire) -> u64 {
    let told = wire.client.enter(|| ip("-statistics -oneline link show dev eth0"));
    let rx = told.split("RX:").nth(1).expect("what was received");
    let figures = rx.split('\\').nth(1).expect("a second line");
    figures.split_whitespace().nth(1).and_then(|packets| packets.parse().ok()).expect("a count")
}

/// What one writes first: a thread that waits in `recv` and answers with `send`, as a C program would.
struct PlainResponder(Arc<AtomicBool>);

impl PlainResponder {
    fn start(wire: &Wire) -> PlainResponder {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let ear = Ear::on_for(&wire.node, "eth0", PLAIN);
        ear.0.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        thread::spawn(move || {
            let mut frame = [0; 128];
            while !is_over.load(Ordering::Relaxed) {
                let Ok(length) = (&ear.0).read(&mut frame) else { continue };
                let Ok(packet) = Packet::parse(&frame[..length]) else { continue };
                if packet.operation == Operation::Request && packet.target_ip == PLAIN {
                    let _full = ear.0.send(&Packet::reply_to(&packet, NODE_MAC).emit());
                }
            }
        });
        PlainResponder(over)
    }
}

impl Drop for PlainResponder {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
