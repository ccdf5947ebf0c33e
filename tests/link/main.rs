//! crier's ARP and netlink against a real kernel: two network namespaces with a veth pair between them, no root needed.
//! Each test has namespaces of its own. `cargo test --test link -- WORD` runs those with WORD in their name, and
//! `-- --measure` compares the responder's latency with the kernel's own.

mod answers;
mod binds;
mod claims;
mod discovers;
mod host;
mod measures;
mod namespace;
mod neighbors;
mod observes;
mod offload;
mod routes;
mod sessions;
mod wire;

use std::fs::File;
use std::io::Write;
use std::panic::catch_unwind;
use std::process::ExitCode;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tests: Vec<Test> = [
        answers::TESTS,
        neighbors::TESTS,
        claims::TESTS,
        binds::TESTS,
        host::TESTS,
        observes::TESTS,
        offload::TESTS,
        routes::TESTS,
        discovers::TESTS,
        sessions::TESTS,
    ]
    .concat();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == offload::ANSWERING) {
        offload::answer_for_ever();
        return ExitCode::SUCCESS;
    }
    if let Err(error) = namespace::leave_the_host() {
        return skip(&format!("the kernel gives this process no user and network namespace of its own: {error}"));
    }
    if arguments.iter().any(|argument| argument == "--measure") {
        measures::latency();
        return ExitCode::SUCCESS;
    }

    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let began = crier::clock::now();
    let mut failed = Vec::new();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let chosen: Vec<Test> = tests.into_iter().filter(|(name, _)| chosen(name)).collect();
    for (name, test) in &chosen {
        let start = crier::clock::now();
        let passed = catch_unwind(test).is_ok();
        let took = crier::clock::since(start).as_secs_f32();
        println!("test {name} ... {} ({took:.1} s)", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    // As the standard runner ends, for `scripts/run-tests` adds up these lines.
    println!(
        "\ntest result: {}. {} passed; {} failed; finished in {:.1}s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        crier::clock::since(began).as_secs_f32()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says that all of it is skipped, where the rack says it too: its crate doc has the two variables.
fn skip(why: &str) -> ExitCode {
    let line = format!("SKIPPED link: {why}");
    println!("{line}");
    let noted = std::env::var_os("CRIER_RACK_SKIPS").map_or(Ok(()), |path| {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}"))
    });
    if let Err(error) = &noted {
        println!("could not note it: {error}");
    }
    let is_forbidden = std::env::var_os("CRIER_RACK_STRICT").is_some();
    if is_forbidden || noted.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Lists tests by their names.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[$crate::Test] = &[$((stringify!($name), $name)),*];
    };
}
