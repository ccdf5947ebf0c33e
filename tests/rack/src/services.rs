//! `crier-rack bench services [COUNT]`: many Services that are all there before the agents start, against a real API server: how
//! long until all are announced, what the agents ask of the API server, and what they write to the disk.
//!
//! Three nodes, BIRD as the router of all. What is asked is counted twice: by the API server (`apiserver_request_total`, from which what
//! goes on without agents is taken off; it counts a watch when that ends), and by the agents (`crier_api_requests_total`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rack::bird::Bird;
use rack::crier::Crier;
use rack::kubernetes::Method;
use rack::{Deadline, Metal, Need, Rack, Service, eventually, millis, now, rest, secs};
use serde_json::{Value, json};

use crate::bench;

const NODES: u16 = 3;
const SESSIONS: [&str; NODES as usize] = ["node1", "node2", "node3"];
const SIDE_BY_SIDE: usize = 12;
/// How long any single step may take.
const PATIENCE: Duration = secs(300);
/// How long the API server is watched before there is an agent.
const QUIET: Duration = secs(20);
const IDLE: Duration = secs(120);
const CHURN: Duration = secs(60);
/// Endpoints that come or go in each second of churn.
const CHANGES_PER_SECOND: u32 = 2;
const DAY: f64 = 86_400.0;

const CONFIGURATION: &str = r#"
[api]
listen = ""
[[pool]]
name = "public"
addresses = ["198.18.0.1-198.19.255.254"]
[bgp]
asn = 64513
[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512
[[bgp.advertisement]]
"#;

/// Runs the bench and prints its table.
pub fn run(count: usize) -> ExitCode {
    if !rack::bench_can_run(&[Need::Namespaces, Need::Bird, Need::Kubernetes, Need::Crier]) {
        return ExitCode::FAILURE;
    }
    match std::panic::catch_unwind(|| measure(count)) {
        Ok(()) => ExitCode::SUCCESS,
        // The panic has said what was expected and what was seen.
        Err(_) => ExitCode::FAILURE,
    }
}

fn measure(count: usize) {
    let rack = Rack::new("bench-services");
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", NODES);
    let bird = metal.site.router.bird(bench::BIRD);
    eprintln!("{count} Services with their EndpointSlices are made");
    let began = now();
    create_all(&metal, count, |number| service(number).slices().remove(0));
    create_all(&metal, count, |number| service(number).object());
    row("made, two objects each", &format!("{:.0} s", began.elapsed().as_secs_f64()));
    rest(secs(5));
    let without = asked(&metal);
    rest(QUIET);
    let per_second = difference(&without, &asked(&metal)).into_iter();
    let per_second: Asked = per_second.map(|(what, count)| (what, count / QUIET.as_secs_f64())).collect();

    eprintln!("the agents start");
    let (began, before) = (now(), asked(&metal));
    let agents = metal.agents(CONFIGURATION);
    wait_at_router(&bird, count, SESSIONS);
    row("start of three agents → all given and in the router's table from all three", &seconds(began.elapsed()));
    rest(secs(15));
    told("all that this took", &before, &metal, &per_second, began.elapsed(), &agents);
    for agent in &agents {
        let (state, log) = written(agent);
        let size = mebibytes(
            fs::metadata(agent.socket().with_file_name("state").join("world.jsonl")).map_or(0, |it| it.len()),
        );
        row(
            &format!("{} until then", title(agent)),
            &format!("{} written, log apart {}; the state is {size}", mebibytes(state), mebibytes(log)),
        );
    }

    eprintln!("until what the start left to write is written");
    let states: Vec<_> =
        agents.iter().map(|agent| agent.socket().with_file_name("state").join("world.jsonl")).collect();
    let modified = |state: &Path| fs::metadata(state).and_then(|it| it.modified()).ok();
    end_endpoint(&metal, &service(0));
    let last: Vec<_> = states.iter().map(|state| modified(state)).collect();
    eventually("every agent has written its state once more", secs(400), || {
        let waiting = states.iter().zip(&last).filter(|(state, last)| modified(state) == **last).count();
        rest(secs(1));
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} have not")) }
    });
    eprintln!("idle for {} s", IDLE.as_secs());
    watched("idle", IDLE, &agents, || rest(IDLE));
    let mut changed = 0_u32;
    eprintln!("{CHANGES_PER_SECOND} endpoints a second come or go, for {} s", CHURN.as_secs());
    watched("churn", CHURN, &agents, || {
        let end = Deadline::after(CHURN);
        while !end.has_passed() {
            changed += 1;
            end_endpoint(&metal, &service(usize::try_from(changed).unwrap_or_default() % count));
            rest(secs(1) / CHANGES_PER_SECOND);
        }
    });
    row("changes in that time", &changed.to_string());

    let mut agents = agents;
    for role in [false, true] {
        let index = agents.iter().position(|agent| allocates(agent) == role).expect("one allocates and two do not");
        eprintln!("a restart of {}", agents[index].node());
        agents[index].stop(secs(30));
        wait_at_router(&bird, 0, [SESSIONS[index]]);
        let (began, before) = (now(), asked(&metal));
        agents[index] = metal.agent(index, CONFIGURATION);
        wait_at_router(&bird, count, [SESSIONS[index]]);
        let what = if role { "that allocated" } else { "that does not allocate" };
        row(&format!("start of an agent {what} → its {count} routes in the router's table"), &seconds(began.elapsed()));
        rest(secs(10));
        told("all that this took", &before, &metal, &per_second, began.elapsed(), &agents[index..=index]);
    }
}

/// Without node ports: there are 2,768 of these.
fn service(number: usize) -> Service {
    let service = Service::new(&format!("many-{number}")).spec("allocateLoadBalancerNodePorts", false);
    (1..=NODES).fold(service, |service, number| service.on(&format!("node-{number}")))
}

/// The Service has one ready endpoint less.
fn end_endpoint(metal: &Metal, service: &Service) {
    let slice = service.slices().remove(0);
    let name = slice["metadata"]["name"].as_str().unwrap_or_default();
    let mut endpoints = slice["endpoints"].clone();
    endpoints[0]["conditions"]["ready"] = Value::Bool(false);
    metal.patch(&format!("endpointslice/{name}"), &json!({ "endpoints": endpoints }));
}

fn create_all(metal: &Metal, count: usize, object: impl Fn(usize) -> Value + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
            metal.create(&object(number)).unwrap_or_else(|refusal| panic!("could not create: {refusal}"));
        }
    };
    std::thread::scope(|scope| (0..SIDE_BY_SIDE).for_each(|_| drop(scope.spawn(work))));
}

#[track_caller]
fn wait_at_router<const N: usize>(bird: &Bird, count: usize, sessions: [&str; N]) {
    let deadline = Deadline::after(PATIENCE);
    for session in sessions {
        eventually(&format!("{count} routes from {session}"), deadline, || {
            let seen = bird.count_from(session);
            // A look costs the router processor time that it needs for the routes.
            rest(millis(50));
            if seen == count { Ok(()) } else { Err(seen) }
        });
    }
}

fn allocates(agent: &Crier) -> bool {
    agent.json("status")["allocates"] == true
}

fn title(agent: &Crier) -> String {
    format!("{} ({})", agent.node(), if allocates(agent) { "allocates" } else { "does not allocate" })
}

/// Requests that the API server has counted, by verb and resource.
type Asked = BTreeMap<(String, String), f64>;

fn asked(metal: &Metal) -> Asked {
    let text = metal.call(Method::GET, "/metrics", None).unwrap_or_else(|refusal| panic!("no metrics: {refusal}"));
    let text = text.as_str().unwrap_or_default();
    let mut asked = Asked::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
        let Some((labels, value)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let resource = [label("resource"), label("subresource")].into_iter().flatten().filter(|it| !it.is_empty());
        let what = (label("verb").unwrap_or_default(), resource.collect::<Vec<_>>().join("/"));
        *asked.entry(what).or_default() += value.parse::<f64>().unwrap_or_default();
    }
    asked
}

fn difference(before: &Asked, after: &Asked) -> Asked {
    let of = |(what, count): (&(String, String), &f64)| (what.clone(), count - before.get(what).unwrap_or(&0.0));
    after.iter().map(of).filter(|(_, count)| *count > 0.0).collect()
}

/// What the API server was asked since `before`, without what it is asked anyway.
fn told(what: &str, before: &Asked, metal: &Metal, per_second: &Asked, time: Duration, agents: &[Crier]) {
    let all = difference(before, &asked(metal)).into_iter().map(|(what, count)| {
        let anyway = per_second.get(&what).unwrap_or(&0.0) * time.as_secs_f64();
        (what, (count - anyway).round())
    });
    let words: Vec<String> = all
        .filter(|(_, count)| *count >= 1.0)
        .map(|((verb, resource), count)| format!("{verb} {resource} {count:.0}"))
        .collect();
    let own: Vec<String> = agents.iter().map(|agent| format!("{} {}", agent.node(), requests(agent))).collect();
    row(&format!("{what}: requests by the API server's count"), &words.join(", "));
    row(&format!("{what}: by the agents' own"), &own.join(", "));
}

/// Requests and octets to the disk of each agent in a time.
fn watched(what: &str, time: Duration, agents: &[Crier], meanwhile: impl FnOnce()) {
    let before: Vec<(u64, (u64, u64), Duration)> =
        agents.iter().map(|agent| (requests(agent), written(agent), agent.process().processor_time())).collect();
    let began = now();
    meanwhile();
    let time = began.elapsed().max(time).as_secs_f64();
    for (agent, (asked, (state, log), used)) in agents.iter().zip(before) {
        let (asked, used) = (requests(agent) - asked, agent.process().processor_time().saturating_sub(used));
        let (state_now, log_now) = written(agent);
        let (state, log) = (state_now.saturating_sub(state), log_now.saturating_sub(log));
        #[expect(clippy::cast_precision_loss, reason = "nobody needs the last octet of a gibibyte")]
        let a_day = state as f64 / time * DAY / f64::from(1 << 30);
        let seen = format!(
            "{asked} requests, {} written ({a_day:.2} GiB a day), log apart {}, {:.1} ms of processor time a second, {} resident",
            mebibytes(state),
            mebibytes(log),
            used.as_secs_f64() * 1e3 / time,
            mebibytes(agent.process().resident_memory()),
        );
        row(&format!("{what} for {time:.0} s: {}", title(agent)), &seen);
    }
}

/// What the process has had written to the disk, its log apart, and its log.
fn written(agent: &Crier) -> (u64, u64) {
    let io = fs::read_to_string(format!("/proc/{}/io", agent.process().pid())).unwrap_or_default();
    let all = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok()).unwrap_or_default();
    let log = fs::metadata(agent.process().log_file()).map_or(0, |it| it.len());
    (all.saturating_sub(log), log)
}

fn requests(agent: &Crier) -> u64 {
    let ask = || -> std::io::Result<String> {
        let mut socket = UnixStream::connect(agent.socket())?;
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: crier\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().unwrap_or_else(|error| panic!("{} does not answer: {error}", agent.node()));
    let value = answer.lines().find_map(|line| line.strip_prefix("crier_api_requests_total "));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no count in\n{answer}"))
}

fn row(what: &str, seen: &str) {
    println!("| {what} | {seen} |");
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn mebibytes(octets: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "nobody needs the last octet of a mebibyte")]
    let size = octets as f64 / f64::from(1 << 20);
    format!("{size:.1} MiB")
}
