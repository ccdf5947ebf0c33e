//! The BFD bench: how long crier and BIRD take to notice that the path between them is dead, as figures of one run.
//!
//! A cable is cut without any carrier being lost. The time is from before the cut to the line in the log of each, so that it is a
//! little too long: by the time that the cut itself takes, and by a look at the log each millisecond. And how often a session comes down
//! although the path is sound, because an end had no time to send or to read: on a machine with full load.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rack::bird::Bird;
use rack::crier::Crier;
use rack::net::connect;
use rack::{Deadline, Namespace, Need, Process, Rack, eventually, millis, now, rest, secs};

/// The multiplier of both ends, and their intervals in milliseconds.
const MULTIPLIER: u32 = 3;
const NEEDS: [Need; 3] = [Need::Namespaces, Need::Crier, Need::Bird];
const INTERVALS: [u32; 3] = [300, 50, 10];

/// What each writes when it notices.
const CRIER_LOST: &str = "BFD session lost";
const BIRD_LOST: &str = "changed state from Up to Down";

/// The interval of the sessions under load, in milliseconds.
const UNDER_LOAD: u32 = 50;

/// Threads that do nothing but count, for each core.
const BURNERS_PER_CORE: usize = 2;

/// Runs the bench: `runs` cuts at each interval.
pub fn run(runs: usize) -> ExitCode {
    if !rack::bench_can_run(&NEEDS) {
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

/// Runs a session between two agents and one between two BIRDs for so long, while every core is busy.
pub fn run_under_load(time: Duration) -> ExitCode {
    if !rack::bench_can_run(&NEEDS) {
        return ExitCode::FAILURE;
    }
    let flaps = std::panic::catch_unwind(|| {
        let rack = Rack::new("busy");
        let (criers, birds) = (Pair::of_criers(&rack), Pair::of_birds(&rack));
        let before = [criers.flaps(), birds.flaps()];
        let load = Load::begin();
        rest(time);
        let cores = load.end();
        println!(
            "{cores} cores busy for {:.0} s, BFD of crier with real-time priority: {}",
            time.as_secs_f64(),
            criers.is_real_time()
        );
        [criers.flaps() - before[0], birds.flaps() - before[1]]
    });
    // The panic has said what was expected and what was seen.
    let Ok([crier, bird]) = flaps else { return ExitCode::FAILURE };
    println!("| interval x multiplier | time | crier: sessions lost | BIRD: sessions lost |\n|---|---|---|---|");
    println!("| {UNDER_LOAD} ms x {MULTIPLIER} | {:.0} s | {crier} | {bird} |", time.as_secs_f64());
    ExitCode::SUCCESS
}

/// Two speakers of one kind with a session between them.
enum Pair {
    Criers(Vec<Crier>),
    Birds(Vec<Bird>),
}

impl Pair {
    fn nodes(rack: &Rack, kind: &str) -> [Namespace; 2] {
        let nodes = [rack.namespace(&format!("{kind}-1")), rack.namespace(&format!("{kind}-2"))];
        connect(&nodes[0], "eth0", &nodes[1], "eth0");
        nodes.iter().zip(1..).for_each(|(node, number)| node.up("eth0", &[&format!("192.168.35.{number}/24")]));
        nodes
    }

    fn of_criers(rack: &Rack) -> Pair {
        let nodes = Pair::nodes(rack, "crier");
        let agents = [(1, 2), (2, 1)].map(|(own, other)| {
            nodes[own - 1].announcer(&format!(
                "[bgp]\nasn = {}\n[[bgp.peer]]\nname = \"other\"\naddress = \"192.168.35.{other}\"\nasn = {}\n\
                 connect-retry-time = \"1s\"\nbfd = \"fast\"\n[[bfd]]\nname = \"fast\"\nreceive-interval = \"{UNDER_LOAD}ms\"\n\
                 transmit-interval = \"{UNDER_LOAD}ms\"\nmultiplier = {MULTIPLIER}\n",
                64512 + own,
                64512 + other
            ))
        });
        eventually("the session of the agents is up at its intervals", secs(30), || {
            let shown = agents[0].try_json("bfd")?;
            let session = &shown["sessions"][0];
            let steady = session["detection_time_millis"] == UNDER_LOAD * MULTIPLIER;
            if session["state"] == "up" && steady { Ok(()) } else { Err(shown.to_string()) }
        });
        Pair::Criers(agents.into())
    }

    fn of_birds(rack: &Rack) -> Pair {
        let nodes = Pair::nodes(rack, "bird");
        let birds = [(1, 2), (2, 1)].map(|(own, other)| {
            nodes[own - 1].bird(&format!(
                "router id 192.168.35.{own};\nprotocol device {{}}\nprotocol bfd {{ interface \"*\" {{ min rx interval {UNDER_LOAD} ms; \
                 min tx interval {UNDER_LOAD} ms; multiplier {MULTIPLIER}; }}; neighbor 192.168.35.{other}; }}\n"
            ))
        });
        eventually("the session of the BIRDs is up", secs(30), || {
            let shown = birds[0].command("show bfd sessions");
            if shown.contains(" Up ") { Ok(()) } else { Err(shown) }
        });
        // Its intervals are agreed on once it is up.
        rest(secs(2));
        Pair::Birds(birds.into())
    }

    /// How often the session came down: each end notices, at once or by the other.
    fn flaps(&self) -> u64 {
        let by_end: Vec<usize> = match self {
            Pair::Criers(agents) => agents.iter().map(|agent| count(agent.process(), CRIER_LOST)).collect(),
            Pair::Birds(birds) => birds.iter().map(|bird| count(bird.process(), BIRD_LOST)).collect(),
        };
        by_end.into_iter().max().and_then(|count| u64::try_from(count).ok()).unwrap_or_default()
    }

    fn is_real_time(&self) -> bool {
        match self {
            Pair::Criers(agents) => agents.iter().all(|it| count(it.process(), "BFD runs with real-time priority") > 0),
            Pair::Birds(_) => false,
        }
    }
}

/// Threads that keep every core busy.
struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
    cores: usize,
}

impl Load {
    fn begin() -> Load {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let over = Arc::new(AtomicBool::new(false));
        let burn = |over: Arc<AtomicBool>| {
            let mut counted = 0_u64;
            while !over.load(Ordering::Relaxed) {
                counted = std::hint::black_box(counted.wrapping_add(1));
            }
            counted
        };
        let threads = (0..cores * BURNERS_PER_CORE).map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || burn(over))
        });
        Load { threads: threads.collect(), over, cores }
    }

    /// How many cores were busy.
    fn end(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        self.cores
    }
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
