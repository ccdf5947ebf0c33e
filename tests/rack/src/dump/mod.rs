//! `crier-rack bench dump`: what announcing many routes takes, crier beside BIRD, FRR, OpenBGPD and GoBGP in one run.
//!
//! Every speaker runs in one namespace with its table loaded; receivers in another dial it, over a veth pair. A first dump warms
//! everything up and is not counted; then the session is ended and made anew, which is what is measured. Half of the best of
//! the others is the goal for time and processor time, BIRD's peak for memory.

mod sink;
pub mod speak;
mod speakers;

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::Duration;

use rack::{Namespace, Need, Rack, millis, now, rest, secs};

use sink::{Dump, Sink};
use speakers::{Kind, Speaker};

pub const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
pub const SPEAKER_ASN: u32 = 64513;
pub const PEER_ASN: u32 = 64512;
pub const FIRST_ROUTE: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);

/// How long a speaker may take to load its table and accept a session.
const PATIENCE: Duration = secs(240);
/// Work that goes on behind the last route is counted for so long.
const AFTERMATH: Duration = millis(50);
/// Additions of one route.
const ADDITIONS: usize = 40;

/// The address of a receiver, counted from 1.
pub fn peer_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// CLOCK_MONOTONIC, which all processes of a machine share.
pub fn clock() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    now.into()
}

/// One table and who takes it.
#[derive(Debug, Clone, Copy)]
struct Case {
    routes: u32,
    sets: u32,
    peers: u8,
}

/// Medians of one speaker's dumps in one case.
#[derive(Debug, Clone)]
struct Seen {
    kind: Kind,
    first: Duration,
    nearly_all: Duration,
    last: Duration,
    /// When End-of-RIB came: so long behind the last route, or before it.
    end_of_rib: Option<Result<Duration, Duration>>,
    updates: usize,
    octets: usize,
    processor: Duration,
    peak_memory: u64,
}

/// The two ends of the cable.
pub struct Lab {
    rack: Rack,
    node: Namespace,
    router: Namespace,
}

/// Runs the bench with the speakers named, or all; `quick` leaves out the large tables and most repetitions.
pub fn run(quick: bool, names: &[&str]) -> ExitCode {
    if let Err(why) = rack::enter_user_namespace_if_needed() {
        eprintln!("the bench cannot run here: {why}");
        return ExitCode::FAILURE;
    }
    rack::clean_up_on_interrupt();
    if let Err(why) = Need::Namespaces.look() {
        eprintln!("the bench cannot run here: {why}");
        return ExitCode::FAILURE;
    }
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_among(names) && kind.look()).collect();
    let lab = Lab::new();
    println!(
        "| routes / sets / peers | speaker | first | 99 % | last | End-of-RIB | UPDATEs | octets | CPU | peak RSS |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let sizes: &[u32] = if quick { &[10_000, 100_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let mut verdicts = String::new();
    for routes in sizes {
        for (sets, peers) in [(1, 1), (100, 1), (1, 4), (100, 4)] {
            if quick && peers > 1 && *routes > 10_000 {
                continue;
            }
            let case = Case { routes: *routes, sets, peers };
            let repeats = if quick {
                3
            } else if *routes < 1_000_000 {
                7
            } else {
                3
            };
            let mut seen = Vec::new();
            for kind in &kinds {
                if let Some(medians) = lab.measure(*kind, case, repeats) {
                    println!("{}", row(case, &medians));
                    seen.push(medians);
                }
            }
            verdicts += &judge(case, &seen);
        }
    }
    println!(
        "\n| routes / sets / peers | what | crier | best of the others | goal | |\n|---|---|---|---|---|---|\n{verdicts}"
    );
    match lab.one_more() {
        Some(times) => print!("{times}"),
        None => println!("the addition of one route could not be measured"),
    }
    ExitCode::SUCCESS
}

impl Lab {
    fn new() -> Lab {
        let rack = Rack::new("dump");
        let (node, router) = (rack.namespace("node"), rack.namespace("router"));
        rack::net::connect(&node, "eth0", &router, "eth0");
        node.up("eth0", &[&format!("{SPEAKER}/24")]);
        let receivers: Vec<String> = (1..=9).map(|number| format!("{}/24", peer_address(number))).collect();
        router.up("eth0", &receivers.iter().map(String::as_str).collect::<Vec<_>>());
        Lab { rack, node, router }
    }

    /// A file in the rack's folder.
    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.rack.folder().join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("could not write {}: {error}", path.display()));
        path
    }

    /// Medians of `repeats` dumps; `None`, with a line on standard error, where the speaker does not do it.
    fn measure(&self, kind: Kind, case: Case, repeats: usize) -> Option<Seen> {
        if !kind.can(case.routes) {
            return None;
        }
        let began = now();
        let speaker = kind.start(self, case.routes, case.sets, case.peers);
        let count = usize::try_from(case.routes).ok()?;
        let mut runs = Vec::new();
        for number in 0..=repeats {
            match self.dump(&speaker, count, case.peers) {
                // The first one warms up.
                Ok(_) if number == 0 => {}
                Ok(run) => runs.push(run),
                Err(error) => {
                    eprintln!("{kind:?} with {case:?}, dump {number}: {error}\n{}", speaker.log_tail());
                    return None;
                }
            }
        }
        eprintln!("{kind:?} with {case:?}: {:.1} s", began.elapsed().as_secs_f64());
        let middle = |of: &dyn Fn(&(Dump, Duration)) -> Duration| median(runs.iter().map(of).collect());
        let (last, _) = runs.last()?;
        Some(Seen {
            kind,
            first: middle(&|(dump, _)| dump.first.saturating_sub(dump.established)),
            nearly_all: middle(&|(dump, _)| dump.nearly_all.saturating_sub(dump.established)),
            last: middle(&|(dump, _)| dump.last.saturating_sub(dump.established)),
            end_of_rib: last.end_of_rib.map(|at| at.checked_sub(last.last).ok_or(last.last.saturating_sub(at))),
            updates: last.updates,
            octets: last.octets,
            processor: middle(&|(_, processor)| *processor),
            peak_memory: speaker.peak_memory(),
        })
    }

    /// One dump to every receiver at once: the slowest receiver's times, and the speaker's processor time.
    fn dump(&self, speaker: &Speaker, count: usize, peers: u8) -> std::io::Result<(Dump, Duration)> {
        self.router.run(|| {
            let mut sinks = Vec::new();
            for number in 1..=peers {
                sinks.push(self.dial(speaker, number)?);
            }
            // What the handshakes cost is not of the dump.
            rest(millis(20));
            let before = speaker.processor_time();
            let together = Barrier::new(sinks.len());
            let dumps: Vec<std::io::Result<Dump>> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    sinks.iter_mut().map(|sink| scope.spawn(|| sink.take_dump(count, &together))).collect();
                threads.into_iter().map(|thread| thread.join().expect("a sink does not panic")).collect()
            });
            rest(AFTERMATH);
            let processor = speaker.processor_time().saturating_sub(before);
            sinks.into_iter().for_each(Sink::close);
            let dumps = dumps.into_iter().collect::<std::io::Result<Vec<Dump>>>()?;
            let slowest = dumps.into_iter().max_by_key(|dump| dump.last.saturating_sub(dump.established));
            Ok((slowest.expect("there is a receiver"), processor))
        })
    }

    fn dial(&self, speaker: &Speaker, number: u8) -> std::io::Result<Sink> {
        let began = now();
        loop {
            match Sink::dial(peer_address(number), sink::own_asn()) {
                Ok(sink) => return Ok(sink),
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => rest(millis(50)),
            }
            speaker.expect_running();
        }
    }

    /// One route added to the plan among 100,000, until its UPDATE is read at the other end.
    fn one_more(&self) -> Option<String> {
        const BACKGROUND: u32 = 100_000;
        let speaker = Kind::Crier.start(self, BACKGROUND, 1, 1);
        let mut times = self.router.run(|| {
            let mut sink = self.dial(&speaker, 1).ok()?;
            sink.take_dump(usize::try_from(BACKGROUND).ok()?, &Barrier::new(1)).ok()?;
            let orders = std::net::UdpSocket::bind((peer_address(1), 0)).ok()?;
            let mut times = Vec::new();
            for _ in 0..ADDITIONS {
                rest(millis(20));
                orders.send_to(b"add", (SPEAKER, speak::ORDERS)).ok()?;
                let told = sink.next_update().ok()?;
                let mut planned = [0; 8];
                orders.recv(&mut planned).ok()?;
                times.push(told.saturating_sub(Duration::from_nanos(u64::from_be_bytes(planned))));
            }
            Some(times)
        })?;
        times.sort();
        let goal = Duration::from_micros(500);
        let (p50, p90, max) = (times[times.len() / 2], times[times.len() * 9 / 10], *times.last()?);
        Some(format!(
            "One route added to the plan beside {BACKGROUND} → its UPDATE read by the peer ({ADDITIONS} times): p50 {}, p90 {}, max {}; \
             goal {}: {}\n(elsewhere, from command to wire: BIRD 0.9 ms, GoBGP 1.2 ms, FRR 50 ms)\n",
            shown(p50),
            shown(p90),
            shown(max),
            shown(goal),
            verdict(p50 <= goal)
        ))
    }
}

fn row(case: Case, seen: &Seen) -> String {
    let Seen { kind, first, nearly_all, last, end_of_rib, updates, octets, processor, peak_memory } = seen;
    format!(
        "| {} | {kind:?} | {} | {} | {} | {} | {updates} | {octets} | {} | {} |",
        case.shown(),
        shown(*first),
        shown(*nearly_all),
        shown(*last),
        match end_of_rib {
            Some(Ok(behind)) => format!("+{}", shown(*behind)),
            Some(Err(before)) => format!("-{}", shown(*before)),
            None => "none".to_owned(),
        },
        shown(*processor),
        mebibytes(*peak_memory)
    )
}

/// crier against the best of the others. The others' time is taken at 99 % of the routes, crier's at its last.
fn judge(case: Case, seen: &[Seen]) -> String {
    let (crier, others): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.kind == Kind::Crier);
    let mut text = String::new();
    let Some(crier) = crier.first() else { return text };
    let mut compare = |what: &str, own: Duration, best: Option<(Duration, Kind)>| {
        let Some((best, who)) = best else { return };
        let ratio = own.as_secs_f64() / best.as_secs_f64().max(1e-9);
        let _ = writeln!(
            text,
            "| {} | {what} | {} | {who:?} {} | ≤ 0.50 | {ratio:.2} {} |",
            case.shown(),
            shown(own),
            shown(best),
            verdict(ratio <= 0.5)
        );
    };
    let best = |of: &dyn Fn(&Seen) -> Duration| others.iter().map(|seen| (of(seen), seen.kind)).min();
    compare("Established → last UPDATE", crier.last, best(&|seen| seen.nearly_all));
    compare("processor time", crier.processor, best(&|seen| seen.processor));
    if let Some(bird) = others.iter().find(|seen| seen.kind == Kind::Bird) {
        let _ = writeln!(
            text,
            "| {} | peak RSS | {} | Bird {} | no more | {} |",
            case.shown(),
            mebibytes(crier.peak_memory),
            mebibytes(bird.peak_memory),
            verdict(crier.peak_memory <= bird.peak_memory)
        );
    }
    text
}

impl Case {
    fn shown(&self) -> String {
        format!("{} / {} / {}", self.routes, self.sets, self.peers)
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn shown(time: Duration) -> String {
    match time.as_secs_f64() * 1e3 {
        long if long >= 100.0 => format!("{long:.0} ms"),
        long if long >= 10.0 => format!("{long:.1} ms"),
        short => format!("{short:.2} ms"),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
