//! What the pulse costs at 3, 30 and 300 nodes on one link: the machines and packets of all nodes on one virtual clock, with
//! a key. `cargo bench --bench pulse`. Octets and packets are exact; processor time is that of the pure part, measured, and
//! without the kernel's own work for each datagram.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::address::MacAddress;
use crier::clock;
use crier::names::NodeName;
use crier::pulse::machine::{Incarnations, Machine, Stance};
use crier::pulse::outcome::Outcome;
use crier::pulse::packet::{Key, Keys, Pulse};
use crier::pulse::settings::Settings;
use crier::roster::{Card, Eligibility, Holding, Holdings, L2Number, Stage};
use ipnet::IpNet;

/// Ethernet header and frame check, IPv6, UDP.
const AROUND_A_PULSE: u64 = 18 + 40 + 8;

/// So long the nodes find each other before anything is counted.
const WARM_UP: Duration = Duration::from_secs(6);

/// So long is counted.
const MEASURED: Duration = Duration::from_secs(3);

fn main() {
    println!(
        "{:>5}  {:>6}  {:>11}  {:>11}  {:>9}  {:>11}  {:>13}  {:>13}",
        "nodes", "owners", "link B/s", "sent B/s", "sent /s", "heard /s", "CPU us/s", "CPU us/heard"
    );
    println!("{:>5}  {:>6}  {:>11}  {:>11}  {:>9}  {:>11}", "", "", "", "per node", "per node", "per node");
    for nodes in [3, 30, 300] {
        // One owner, a third of the nodes, all.
        for owners in BTreeSet::from([1, nodes / 3, nodes]) {
            measure(nodes, owners);
        }
    }
}

fn measure(nodes: usize, owners: usize) {
    let mut link = Link::new(nodes, owners);
    link.run(WARM_UP);
    link.settled = true;
    link.cost = Cost::default();
    let before = on_processor();
    link.run(MEASURED);
    let spent = on_processor() - before;
    let Cost { pulses, octets, heard } = link.cost;
    let seconds = MEASURED.as_secs_f64();
    let count = nodes as f64;
    println!(
        "{nodes:>5}  {owners:>6}  {:>11.0}  {:>11.0}  {:>9.1}  {:>11.1}  {:>13.0}  {:>13.2}",
        octets as f64 / seconds,
        octets as f64 / seconds / count,
        pulses as f64 / seconds / count,
        heard as f64 / seconds / count,
        spent.as_secs_f64() * 1e6 / seconds / count,
        spent.as_secs_f64() * 1e6 / heard as f64,
    );
}

/// What was counted on the link.
#[derive(Default)]
struct Cost {
    pulses: u64,
    /// On the wire, headers and all. Each pulse is there once, whoever hears it.
    octets: u64,
    /// By all nodes together.
    heard: u64,
}

/// Processor time of this thread so far: others may be building on the same machine. The scheduler's own file is a tick behind.
fn on_processor() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(spent).expect("time spent is not below nothing")
}

/// What an owner answers for.
fn holdings(number: usize) -> Holdings {
    let address = |place: usize| {
        IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(number * 256 + place).expect("small")))
    };
    (0..HELD).map(|place| (address(place), Holding { weight: 100, stage: Stage::Holds })).collect()
}

/// How many addresses an owner answers for.
const HELD: usize = 60;

struct Link {
    now: Instant,
    key: Key,
    machines: Vec<Machine>,
    /// When each machine wants to be called, and which; an entry that is out of date costs a spare call.
    wakes: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The first of the entries of each machine.
    first_wakes: Vec<Instant>,
    /// They have found each other. Before, who is there is not asked after each pulse: it would only take the bench's time.
    settled: bool,
    cost: Cost,
}

impl Link {
    fn new(nodes: usize, owners: usize) -> Link {
        let now = clock::now();
        let name = |number: usize| NodeName::from(format!("worker-{number:03}.rack.example.net"));
        let owning: BTreeSet<NodeName> = (0..owners).map(name).collect();
        let settings = Settings { interval: Duration::from_millis(100), multiplier: NonZeroU8::new(3).expect("not 0") };
        let card = Arc::new(Card {
            weights: [(L2Number(1), 100)].into(),
            subnets: [IpNet::from_str("10.0.0.0/16").expect("a subnet")].into(),
            ..Card::default()
        });
        let key = Key::of_secret(b"0123456789abcdef0123456789abcdef").expect("long enough");
        let machine = |number: usize| {
            let short = u16::try_from(number).expect("few nodes").to_be_bytes();
            let stance = Stance {
                mac: MacAddress([2, 0, 0, 0, short[0], short[1]]),
                eligibility: Eligibility::Eligible,
                owner: number < owners,
                hears_api_server: true,
                card: card.clone(),
                holdings: if number < owners { holdings(number) } else { Holdings::new() },
                occupied: Default::default(),
                egress: None,
                over_bgp: None,
                sessions: None,
                back_by: None,
            };
            let incarnation = 1000 + u64::try_from(number).expect("few nodes");
            let incarnations = Incarnations { first: incarnation, this: incarnation };
            let mut machine = Machine::new(name(number), settings, vec![key.id()], incarnations, stance, now);
            machine.handle_expected(&owning.iter().filter(|it| **it != name(number)).cloned().collect(), now);
            machine
        };
        let machines: Vec<Machine> = (0..nodes).map(machine).collect();
        // They do not start in the same instant, or their first pulses would come in step.
        let wakes = (0..nodes).map(|number| {
            let late = Duration::from_micros(u64::try_from(number * 331 % 1000).expect("small") * 100);
            Reverse((now + late, number))
        });
        let first_wakes = vec![now; nodes];
        Link { now, key, wakes: wakes.collect(), first_wakes, settled: false, machines, cost: Cost::default() }
    }

    /// Lets so much virtual time go by.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, number))) = self.wakes.pop() {
            if at >= end {
                self.wakes.push(Reverse((at, number)));
                break;
            }
            self.now = self.now.max(at);
            // One that was put off has a later entry.
            if at >= self.first_wakes[number] {
                self.wake(number);
            }
        }
        self.now = end;
    }

    /// One node has its turn, and all others hear what it says, each as a datagram of its own.
    fn wake(&mut self, number: usize) {
        let mut said = Vec::new();
        if self.machines[number].wants_count(self.now) {
            self.machines[number].handle_received(None, false, self.now);
        }
        while let Some(pulse) = self.machines[number].poll_pulse(self.now) {
            said.push(pulse.emit(&self.key));
        }
        if self.settled {
            std::hint::black_box(self.machines[number].poll_roster(self.now));
        }
        let due = self.machines[number].next_deadline().expect("nobody leaves").max(self.now);
        self.first_wakes[number] = due;
        self.wakes.push(Reverse((due, number)));
        let keys = Keys::from(self.key.clone());
        for octets in &said {
            for (hearer, machine) in self.machines.iter_mut().enumerate().filter(|(hearer, _)| *hearer != number) {
                let pulse = Pulse::parse(octets, &keys).expect("it was sealed with this key");
                let outcome = machine.handle_pulse(pulse, self.now);
                assert!(outcome == Outcome::Taken || outcome == Outcome::Unverified, "{outcome:?}");
                // As the task does after each datagram: an answer may be due at once.
                let due = machine.next_deadline().expect("nobody leaves").max(self.now);
                if self.settled {
                    std::hint::black_box(machine.poll_roster(self.now));
                }
                if due < self.first_wakes[hearer] {
                    self.first_wakes[hearer] = due;
                    self.wakes.push(Reverse((due, hearer)));
                }
            }
        }
        let others = u64::try_from(self.machines.len() - 1).expect("few nodes");
        for octets in &said {
            self.cost.pulses += 1;
            self.cost.octets += u64::try_from(octets.len()).expect("a datagram") + AROUND_A_PULSE;
            self.cost.heard += others;
        }
    }
}
