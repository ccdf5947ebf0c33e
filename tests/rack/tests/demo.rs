//! The demo is what a newcomer runs first: it comes to its end, fails where it should, and leaves nothing behind.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rack::{Need, eventually, secs};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Bird, Need::Crier];

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crier-rack"));
    command.arg("demo").env("RUST_BACKTRACE", "0");
    command
}

/// Whether this machine can run the demo; says so if not.
fn can_run() -> bool {
    let missing: Vec<_> = NEEDS.into_iter().filter_map(|need| need.look().err()).collect();
    if !missing.is_empty() {
        rack::skip(&rack::test_name(), &missing.join("; "));
    }
    missing.is_empty()
}

/// The processes that descend from `root`, by pid.
fn descendants(root: u32) -> BTreeSet<u32> {
    let children = |pid: u32| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        texts
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect::<Vec<_>>()
    };
    let mut found = BTreeSet::new();
    let mut to_ask = vec![root];
    while let Some(pid) = to_ask.pop() {
        to_ask.extend(children(pid).into_iter().filter(|child| found.insert(*child)));
    }
    found
}

/// A process that init has yet to reap counts as gone.
fn lives(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("State:") && !status.contains("State:\tZ")
}

#[test]
fn the_demo_comes_to_its_end() {
    if !can_run() {
        return;
    }
    let told = demo().output().expect("the demo starts");
    let text = String::from_utf8_lossy(&told.stdout);
    let error = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "the demo ended with {}:\n{text}\n{error}", told.status);
    for expected in
        ["answered with", "is Established", "through node-1 and node-2", "answered by", "dropped its route after"]
    {
        assert!(text.contains(expected), "the demo does not tell \"{expected}\":\n{text}");
    }
}

#[test]
fn a_demo_without_its_binary_fails() {
    if !can_run() {
        return;
    }
    let told = demo().env("CRIER_BIN", "/nowhere/crier").output().expect("the demo starts");
    assert!(!told.status.success());
    assert!(String::from_utf8_lossy(&told.stderr).contains("/nowhere/crier"), "it names what is missing");
}

#[test]
fn interrupted_it_leaves_no_process_behind() {
    if !can_run() {
        return;
    }
    let mut running = demo().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the demo starts");
    let mut lines = BufReader::new(running.stdout.take().expect("it is piped")).lines();
    // In the middle of it: agents, router and servers run.
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("is Established")))
        .expect("it gets that far")
        .unwrap();
    let started = descendants(running.id());
    assert!(started.len() >= 5, "two agents, a router and two servers run: {started:?}");
    kill(Pid::from_raw(i32::try_from(running.id()).unwrap()), Signal::SIGINT).expect("it is there to be interrupted");
    let ended = running.wait().expect("it can be waited for");
    assert_eq!(ended.code(), Some(130), "Ctrl-C ends it with 128 + SIGINT");
    eventually("all that it started is gone", secs(10), || {
        let left: Vec<_> = started.iter().filter(|pid| lives(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
