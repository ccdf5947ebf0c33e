//! The bench: how fast crier announces, and what it costs, against a real API server and a real router, as figures of one
//! run beside the goals and what MetalLB needed.
//!
//! Three nodes run the real binary, BIRD 2 is the router of all three over eBGP, and every Service has its EndpointSlice
//! before it is made, so that nothing but crier stands between the API server and the wire. kube-proxy is left out: it
//! would only take processor time from what is measured.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rack::bird::Bird;
use rack::capture::{BgpKind, Capture};
use rack::crier::Crier;
use rack::{Deadline, Metal, Need, Rack, Service, eventually, eventually_equal, millis, now, rest, secs};
use serde_json::{Value, json};

const NODES: u16 = 3;
/// Services made one at a time, for the latency.
const ONE_BY_ONE: usize = 60;
/// Services made at once, for the rest.
const MANY: usize = 1000;
/// Requests in flight while many Services are made.
const SIDE_BY_SIDE: usize = 8;
const RESTARTS: usize = 5;
/// How long the processor time of an idle agent is watched.
const IDLE: Duration = secs(5);
/// How long any single step may take.
const PATIENCE: Duration = secs(60);

const SESSIONS: [&str; NODES as usize] = ["node1", "node2", "node3"];

const CONFIGURATION: &str = r#"
[[pool]]
name = "public"
addresses = ["198.18.0.1-198.18.7.255"]

[bgp]
asn = 64513

[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512

[[bgp.advertisement]]
"#;

/// A router that hears the nodes.
pub(crate) const BIRD: &str = "
router id 192.168.35.1;
protocol device {}
protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64513; ipv4 { import all; export none; }; }
protocol bgp node2 { local as 64512; neighbor 192.168.35.12 as 64513; ipv4 { import all; export none; }; }
protocol bgp node3 { local as 64512; neighbor 192.168.35.13 as 64513; ipv4 { import all; export none; }; }
";

/// Runs the bench and prints its table.
pub fn run() -> ExitCode {
    if !rack::bench_can_run(&[Need::Namespaces, Need::Bird, Need::Kubernetes, Need::Crier]) {
        return ExitCode::FAILURE;
    }
    match std::panic::catch_unwind(|| Bench::begin().measure()) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        // The panic has said what was expected and what was seen.
        Err(_) => ExitCode::FAILURE,
    }
}

struct Bench {
    // Dropped in this order: the agents before the cluster that they watch.
    agents: Vec<Crier>,
    bird: Bird,
    metal: Metal,
    rows: Vec<Row>,
}

/// One line of the table.
struct Row {
    what: String,
    goal: String,
    seen: String,
    /// None where there is no goal.
    met: Option<bool>,
    metallb: &'static str,
}

impl Bench {
    fn begin() -> Bench {
        eprintln!("three nodes, an API server and a router in network namespaces");
        let rack = Rack::new("bench");
        let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", NODES);
        let bird = metal.site.router.bird(BIRD);
        let slices: Vec<Value> =
            (0..ONE_BY_ONE).map(single).chain((0..MANY).map(many)).flat_map(|it| service(&it).slices()).collect();
        create_all(&metal, &slices);
        let agents = metal.agents(CONFIGURATION);
        for session in SESSIONS {
            bird.wait_established(session, PATIENCE);
        }
        let bench = Bench { agents, bird, metal, rows: Vec::new() };
        eventually("one agent allocates", PATIENCE, || bench.leader().ok_or("none does"));
        bench
    }

    fn measure(mut self) -> String {
        eprintln!("{ONE_BY_ONE} Services, one at a time");
        self.one_by_one();
        eprintln!("{MANY} Services at once");
        self.many_at_once();
        eprintln!("the cost of {MANY} Services");
        self.cost();
        eprintln!("{RESTARTS} restarts of an agent");
        self.restarts();
        self.table()
    }

    /// The index of the agent that allocates.
    fn leader(&self) -> Option<usize> {
        self.agents.iter().position(|agent| agent.status()["allocates"] == true)
    }

    fn one_by_one(&mut self) {
        let capture = self.metal.site.router.port.capture();
        let (mut first, mut last, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        // Of another class, so that nobody but us writes its status.
        let other = service("other").spec("loadBalancerClass", "example.com/other").object();
        self.metal.create(&other).unwrap_or_else(|refusal| panic!("a Service was refused: {refusal}"));
        let mut known = BTreeSet::new();
        for number in 0..ONE_BY_ONE {
            // Let everybody finish with the one before: only crier's own time is looked for.
            rest(millis(60));
            let created = self.metal.timed_create(&service(&single(number)).object());
            let (_, answered) = created.unwrap_or_else(|refusal| panic!("a Service was refused: {refusal}"));
            rest(millis(60));
            let (prefix, times) = eventually("a new address is announced by every agent", PATIENCE, || {
                announced(&capture)
                    .into_iter()
                    .find(|(prefix, times)| times.len() == usize::from(NODES) && !known.contains(prefix))
                    .ok_or("it is not yet")
            });
            known.insert(prefix);
            // An UPDATE may be on the wire before the answer to the POST is read.
            let after = |at: &Instant| at.saturating_duration_since(answered);
            first.extend(times.iter().min().map(after));
            last.extend(times.iter().max().map(after));
            let address = format!("192.0.2.{number}");
            let status = json!({ "loadBalancer": { "ingress": [{ "ip": address, "ipMode": "VIP" }] } });
            let asked = now();
            self.metal.patch_status("service/other", &status);
            alone.push(asked.elapsed());
        }
        let mut row = |what: &str, goal, times, metallb| {
            let Spread { p50, p90, max } = Spread::of(times);
            self.rows.push(Row {
                what: format!("Service POST answered → {what} (of {ONE_BY_ONE}, one at a time)"),
                goal: format!("p50 ≤ {}", shown(goal)),
                seen: format!("p50 {}, p90 {}, max {}", shown(p50), shown(p90), shown(max)),
                met: Some(p50 <= goal),
                metallb,
            });
        };
        row("first UPDATE on the wire", millis(4), first, "p50 8.1 ms, max 17.7 ms");
        row("UPDATE of the last of three agents", millis(6), last, "p50 11.5 ms, max 28.8 ms");
        let Spread { p50, p90, max } = Spread::of(alone);
        self.rows.push(Row {
            what: "for comparison: one such status write by the bench's own client, asked → answered".to_owned(),
            goal: String::new(),
            seen: format!("p50 {}, p90 {}, max {}", shown(p50), shown(p90), shown(max)),
            met: None,
            metallb: "",
        });
        self.metal.delete("service/other");
        for number in 0..ONE_BY_ONE {
            self.metal.delete(&format!("service/{}", single(number)));
        }
        self.wait_at_router(0);
    }

    fn many_at_once(&mut self) {
        let services: Vec<Value> = (0..MANY).map(many).map(|name| service(&name).object()).collect();
        let began = now();
        create_all(&self.metal, &services);
        let applied = now();
        self.wait_at_router(MANY);
        let behind = applied.elapsed();
        let goal = secs(1);
        self.rows.push(Row {
            what: format!("{MANY} Services made, {SIDE_BY_SIDE} POSTs in flight"),
            goal: String::new(),
            seen: shown(applied - began),
            met: None,
            metallb: "12.9 s",
        });
        self.rows.push(Row {
            what: format!("end of that → all {MANY} in the router's table from all three nodes"),
            goal: format!("≤ {}", shown(goal)),
            seen: shown(behind),
            met: Some(behind <= goal),
            metallb: "42 s",
        });
    }

    fn cost(&mut self) {
        // What is left to do after the announcing, such as Events and the World on disk, is done and not idle.
        rest(secs(5));
        let before: Vec<Duration> = self.agents.iter().map(|agent| agent.process().processor_time()).collect();
        rest(IDLE);
        let leader = self.leader();
        for (index, (agent, before)) in self.agents.iter().zip(before).enumerate() {
            let role = if leader == Some(index) { "allocates" } else { "does not allocate" };
            let (resident, peak) = (agent.process().resident_memory(), agent.process().peak_memory());
            let used = agent.process().processor_time() - before;
            let goal = 20 << 20;
            let process = agent.node();
            self.rows.push(Row {
                what: format!("memory of {process} with {MANY} Services ({role}): resident, peak"),
                goal: format!("≤ {}", mebibytes(goal)),
                seen: format!("{}, {}", mebibytes(resident), mebibytes(peak)),
                met: Some(resident <= goal),
                metallb: "89 MiB speaker, 65.6 MiB controller",
            });
            self.rows.push(Row {
                what: format!("processor time of {process}, idle ({role})"),
                goal: String::new(),
                seen: format!("{:.1} ms per second", used.as_secs_f64() * 1e3 / IDLE.as_secs_f64()),
                met: None,
                metallb: "2.5 to 3 ms per second",
            });
        }
    }

    fn restarts(&mut self) {
        let leader = self.leader();
        let index = (0..self.agents.len()).find(|index| leader != Some(*index)).unwrap_or(0);
        let configuration = format!("{}{CONFIGURATION}", self.metal.access());
        let mut times = Vec::new();
        for _ in 0..RESTARTS {
            self.agents[index].stop(PATIENCE);
            eventually_equal("the routes of the agent that left", PATIENCE, &0, || {
                self.bird.count_from(SESSIONS[index])
            });
            let node = self.metal.site.node(index);
            let capture = self.metal.site.router.port.capture();
            let began = now();
            self.agents[index] = node.crier(node.name(), &configuration);
            eventually_equal("the routes of the agent that came back", PATIENCE, &MANY, || {
                self.bird.count_from(SESSIONS[index])
            });
            times.push(all_announced_by(&capture, node.address) - began);
        }
        let Spread { p50, max, .. } = Spread::of(times);
        let goal = millis(500);
        self.rows.push(Row {
            what: format!("start of an agent → its {MANY} routes on the wire to the router ({RESTARTS} times)"),
            goal: format!("≤ {}", shown(goal)),
            seen: format!("p50 {}, max {}", shown(p50), shown(max)),
            met: Some(p50 <= goal),
            metallb: "3.3 s",
        });
    }

    /// Waits until BIRD has so many routes from every node.
    fn wait_at_router(&self, count: usize) {
        let deadline = Deadline::after(PATIENCE);
        for session in SESSIONS {
            eventually_equal(&format!("the routes from {session}"), deadline, &count, || {
                let count = self.bird.count_from(session);
                // A look costs the router processor time that it needs for the routes.
                rest(millis(10));
                count
            });
        }
    }

    fn table(&self) -> String {
        let mut text = "| measured | goal | crier | | MetalLB 0.15.2 |\n|---|---|---|---|---|\n".to_owned();
        for Row { what, goal, seen, met, metallb } in &self.rows {
            let verdict = match met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            let _ = writeln!(text, "| {what} | {goal} | {seen} | {verdict} | {metallb} |");
        }
        text
    }
}

/// Every prefix that was announced on the wire, with the first time for each node that did.
fn announced(capture: &Capture) -> Vec<(String, Vec<Instant>)> {
    let mut prefixes: Vec<(String, Vec<Instant>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for message in capture.bgp() {
        let BgpKind::Update(update) = message.kind else { continue };
        for prefix in update.announced {
            if !seen.insert((message.from.ip(), prefix.clone())) {
                continue;
            }
            match prefixes.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, times)) => times.push(message.at),
                None => prefixes.push((prefix, vec![message.at])),
            }
        }
    }
    prefixes
}

/// When the last of [`MANY`] prefixes of that node went over the wire.
fn all_announced_by(capture: &Capture, node: Ipv4Addr) -> Instant {
    eventually("every route was seen on the wire", PATIENCE, || {
        let mut prefixes = BTreeSet::new();
        for message in capture.bgp() {
            if let BgpKind::Update(update) = message.kind
                && message.from.ip() == node
            {
                prefixes.extend(update.announced);
                if prefixes.len() == MANY {
                    return Ok(message.at);
                }
            }
        }
        Err(format!("{} of {MANY}", prefixes.len()))
    })
}

/// Creates all objects, [`SIDE_BY_SIDE`] requests in flight, each on a connection of its own.
fn create_all(metal: &Metal, objects: &[Value]) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
            metal.create(object).unwrap_or_else(|refusal| panic!("could not create: {refusal}\n{object:#}"));
        }
    };
    std::thread::scope(|scope| (0..SIDE_BY_SIDE).for_each(|_| drop(scope.spawn(work))));
}

fn single(number: usize) -> String {
    format!("single-{number}")
}

fn many(number: usize) -> String {
    format!("many-{number}")
}

/// Without a selector, so that nobody but us makes its EndpointSlice, and with one endpoint on every node.
fn service(name: &str) -> Service {
    let service = Service::new(name).ports(&[(80, 8080)]);
    (1..=NODES).fold(service, |service, number| service.on(&format!("node-{number}")))
}

struct Spread {
    p50: Duration,
    p90: Duration,
    max: Duration,
}

impl Spread {
    /// By nearest rank; there must be at least one.
    fn of(mut times: Vec<Duration>) -> Spread {
        times.sort();
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Spread { p50: at(50), p90: at(90), max: at(100) }
    }
}

/// In the unit that people would choose.
fn shown(time: Duration) -> String {
    match time {
        _ if time >= secs(10) => format!("{:.1} s", time.as_secs_f64()),
        _ if time >= secs(1) => format!("{:.2} s", time.as_secs_f64()),
        _ if time >= millis(100) => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} ms", time.as_secs_f64() * 1e3),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
