//! `crier-rack`: the rack's own command. `serve` is what the rack starts as a backend; `doctor` tells what this machine
//! lacks for the system tests; `stand` builds a site to look around in; `demo` tells crier's main job while
//! it happens; `announce` is its speaker with routes made up; `bench` measures it, and `bench dump` what announcing many
//! routes takes (`speak` is crier in there).

mod announce;
mod bench;
mod dead_path;
mod demo;
mod dump;
mod egress_failover;
mod failover;
mod services;

use std::process::ExitCode;

use rack::{Need, Rack, Site};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["serve", name, ref ports @ ..] if !ports.is_empty() => serve(name, ports),
        ["doctor"] => doctor(),
        ["stand", nodes] => nodes.parse().map_or_else(|_| usage(), stand),
        ["bench"] => bench::run(),
        ["bench", "services"] => services::run(10_000),
        ["bench", "services", count] => count.parse().map_or_else(|_| usage(), services::run),
        ["bench", "bfd"] => dead_path::run(20),
        ["bench", "bfd", "load"] => dead_path::run_under_load(rack::secs(600)),
        ["bench", "bfd", "load", seconds] => {
            seconds.parse().map_or_else(|_| usage(), |seconds| dead_path::run_under_load(rack::secs(seconds)))
        }
        ["bench", "bfd", runs] => runs.parse().map_or_else(|_| usage(), dead_path::run),
        ["bench", "failover"] => failover::run(20, ""),
        ["bench", "failover", runs, ref word @ ..] if word.len() <= 1 => {
            runs.parse().map_or_else(|_| usage(), |runs| failover::run(runs, word.first().unwrap_or(&"")))
        }
        ["bench", "egress"] => egress_failover::run(20),
        ["bench", "egress", runs] => runs.parse().map_or_else(|_| usage(), egress_failover::run),
        ["announce", file, first, count] => match (first.parse(), count.parse()) {
            (Ok(first), Ok(count)) => announce::run(file, first, count),
            (Err(_), _) | (_, Err(_)) => usage(),
        },
        ["bench", "dump", "--quick", ref words @ ..] => dump::run(true, words),
        ["bench", "dump", ref words @ ..] => dump::run(false, words),
        ["speak", routes, sets, peers] => match (routes.parse(), sets.parse(), peers.parse()) {
            (Ok(routes), Ok(sets), Ok(peers)) => dump::speak::run(routes, sets, peers),
            _ => usage(),
        },
        ["demo"] => demo::run(),
        _ => usage(),
    }
}

fn serve(name: &str, ports: &[&str]) -> ExitCode {
    let Ok(ports) = ports.iter().map(|port| port.parse()).collect::<Result<Vec<u16>, _>>() else { return usage() };
    match rack::server::serve(name, &ports) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: could not listen on {ports:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn doctor() -> ExitCode {
    if let Ok(true) = rack::enter_user_namespace_if_needed() {
        println!("         not root: looking from a user namespace of its own");
    }
    let mut code = ExitCode::SUCCESS;
    for need in Need::ALL {
        match need.look() {
            Ok(found) => println!("ok       {need:?}: {found}"),
            Err(missing) => {
                println!("MISSING  {need:?}: {missing}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// A site with a server on every node and a pod behind it, until it is interrupted.
fn stand(nodes: u16) -> ExitCode {
    if let Err(why) = rack::enter_user_namespace_if_needed() {
        eprintln!("crier-rack: {why}");
        return ExitCode::FAILURE;
    }
    rack::clean_up_on_interrupt();
    let rack = Rack::new("stand");
    println!("folder {}", rack.folder().display());
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", nodes);
    let pods: Vec<_> = site.nodes.iter().map(|node| node.pod(&format!("pod-{}", node.name()), &[8080])).collect();
    for host in [&site.router, &site.client].into_iter().chain(site.nodes.iter().map(|node| &**node)) {
        println!("{} {} {}: nsenter --net={}", host.name(), host.address, host.address6, host.path().display());
    }
    for pod in &pods {
        println!("{} {} {} pid {}", pod.name(), pod.address, pod.address6, pod.process.pid());
    }
    println!("stands until it is interrupted");
    loop {
        std::thread::park();
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: crier-rack bench\n       crier-rack bench dump [--quick] [ROUTES...] [SPEAKER...]\n       crier-rack bench failover [RUNS [WORD]]\n       crier-rack bench egress [RUNS]\n       crier-rack bench bfd [RUNS]\n       crier-rack bench bfd load [SECONDS]\n       crier-rack bench services [COUNT]\n       crier-rack demo\n       crier-rack doctor\n       crier-rack stand NODES\n       crier-rack serve NAME PORT..."
    );
    ExitCode::from(2)
}
