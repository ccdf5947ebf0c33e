//! `crier-rack`: the rack's own command. `serve` is what the rack starts as a backend; `doctor` tells what this machine
//! lacks for the system tests; `demo` tells crier's main job while it happens; `bench` measures it.

mod bench;
mod demo;

use std::process::ExitCode;

use rack::Need;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *words {
        ["serve", name, ref ports @ ..] if !ports.is_empty() => serve(name, ports),
        ["doctor"] => doctor(),
        ["bench"] => bench::run(),
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

fn usage() -> ExitCode {
    eprintln!(
        "usage: crier-rack bench\n       crier-rack demo\n       crier-rack doctor\n       crier-rack serve NAME PORT..."
    );
    ExitCode::from(2)
}
