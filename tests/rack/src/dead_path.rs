//! The BFD bench: how long crier and BIRD take to notice that the path between them is dead, as figures of one run.
//!
//! A cable is cut without any carrier being lost. The time is from before the cut to the line in the log of each, so that it is a
//! little too long: by the time that the cut itself takes, and by a look at the log each millisecond.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rack::{Deadline, Need, Process, Rack, eventually, millis, now, rest, secs};

/// The multiplier of both ends, and their intervals in milliseconds.
const MULTIPLIER: u32 = 3;
const INTERVALS: [u32; 3] = [300, 50, 10];

/// What each writes when it notices.
const CRIER_LOST: &str = "BFD session lost";
const BIRD_LOST: &str = "changed state from Up to Down";

/// Runs the bench: `runs` cuts at each interval.
pub fn run(runs: usize) -> ExitCode {
    if let Err(why) = rack::enter_user_namespace_if_needed() {
        eprintln!("the bench cannot run here: {why}");
        return ExitCode::FAILURE;
    }
    rack::clean_up_on_interrupt();
    let missing: Vec<_> =
        [Need::Namespaces, Need::Crier, Need::Bird].into_iter().filter_map(|need| need.look().err()).collect();
    if !missing.is_empty() {
        eprintln!("the bench cannot run here: {}", missing.join("; "));
        return ExitCode::FAILURE;
    }
    println!(
        "| interval x multiplier | cuts | crier median | crier max | of the detection time | BIRD median | BIRD max |"
    );
    println!("|---|---|---|---|---|---|---|");
    for interval in INTERVALS {
        match std::panic::catch_unwind(|| measure(interval, runs)) {
            Ok((crier, bird)) => println!("{}", row(interval, runs, crier, bird)),
            // The panic has said what was expected and what was seen.
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

fn row(interval: u32, runs: usize, mut crier: Vec<Duration>, mut bird: Vec<Duration>) -> String {
    crier.sort();
    bird.sort();
    let of = |all: &[Duration], at: usize| all.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0;
    let (middle, last) = (runs / 2, runs.saturating_sub(1));
    let ratio = of(&crier, last) / f64::from(interval * MULTIPLIER);
    format!(
        "| {interval} ms x {MULTIPLIER} | {runs} | {:.1} ms | {:.1} ms | {ratio:.2} | {:.1} ms | {:.1} ms |",
        of(&crier, middle),
        of(&crier, last),
        of(&bird, middle),
        of(&bird, last),
    )
}

/// How long crier and BIRD took, for each cut.
fn measure(interval: u32, runs: usize) -> (Vec<Duration>, Vec<Duration>) {
    let rack = Rack::new("dead-path");
    let (node, router, switch) = (rack.namespace("node-1"), rack.namespace("tor"), rack.switch("switch"));
    switch.plug(&node, "eth0", &["192.168.35.11/24"]);
    let cable = switch.plug(&router, "eth0", &["192.168.35.1/24"]);
    let bird = router.bird(&format!(
        "router id 192.168.35.1;\nprotocol device {{}}\nprotocol bfd {{ interface \"*\" {{ min rx interval {interval} ms; min tx interval \
         {interval} ms; multiplier {MULTIPLIER}; }}; }}\nprotocol bgp crier {{ local 192.168.35.1 as 64512; neighbor 192.168.35.11 \
         as 64513; direct; bfd on; connect delay time 1; connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n"
    ));
    let agent = node.announcer(&format!(
        "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
         bfd = \"fast\"\n[[bfd]]\nname = \"fast\"\nreceive-interval = \"{interval}ms\"\ntransmit-interval = \"{interval}ms\"\n\
         multiplier = {MULTIPLIER}\n"
    ));
    let mut taken = (Vec::new(), Vec::new());
    for _ in 0..runs {
        eventually("the session is up at the intervals of both", secs(30), || {
            let shown = agent.try_json("bfd")?;
            let session = &shown["sessions"][0];
            let steady = session["detection_time_millis"] == interval * MULTIPLIER;
            if session["state"] == "up" && steady { Ok(()) } else { Err(shown.to_string()) }
        });
        bird.wait_established("crier", secs(30));
        let before = (count(agent.process(), CRIER_LOST), count(bird.process(), BIRD_LOST));
        let began = now();
        cable.cut();
        let (crier, bird) = both_noticed(agent.process(), bird.process(), before, began);
        taken.0.push(crier);
        taken.1.push(bird);
        cable.restore();
    }
    taken
}

fn count(process: &Process, words: &str) -> usize {
    process.log().lines().filter(|line| line.contains(words)).count()
}

/// The time until the log of each has another line with its words.
fn both_noticed(crier: &Process, bird: &Process, before: (usize, usize), began: Instant) -> (Duration, Duration) {
    let deadline = Deadline::after(secs(30));
    let mut taken = (None, None);
    loop {
        if taken.0.is_none() && count(crier, CRIER_LOST) > before.0 {
            taken.0 = Some(began.elapsed());
        }
        if taken.1.is_none() && count(bird, BIRD_LOST) > before.1 {
            taken.1 = Some(began.elapsed());
        }
        if let (Some(crier), Some(bird)) = taken {
            return (crier, bird);
        }
        assert!(!deadline.has_passed(), "crier noticed after {:?}, BIRD after {:?}", taken.0, taken.1);
        rest(millis(1));
    }
}
