//! `crier-rack bench dump`: what announcing many routes takes, crier beside BIRD, FRR, OpenBGPD and GoBGP in one run.
//!
//! Every speaker runs in one namespace with its table loaded; receivers in another dial it, over a veth pair. A first dump warms
//! everything up and is not counted; then the session is ended and made anew, which is what is measured. Half of the best of
//! the others is the goal for time and processor time, BIRD's peak for memory. What one route more takes is in `addition`.

mod addition;
mod sink;
pub mod speak;
mod speakers;

use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::Duration;

use rack::{Namespace, Need, Rack, eventually, millis, now, rest, secs};

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
/// Dumps of one speaker in one case that are counted at most, where they are over soon.
const MOST_DUMPS: usize = 7;
/// As many where the bench has to be quick.
const FEW_DUMPS: usize = 2;
/// The dump that begins later than this is the last of its case.
const DUMPING_TIME: Duration = secs(3);
/// Sessions of one case that may fail: FRR still holds the one before for a while.
const FAILURES: usize = 5;
/// Who takes each table, one case after the other.
const PEERS: [u8; 2] = [1, 4];

/// The address of a receiver: counted from 1, beside [`SPEAKER`]'s own number.
pub fn peer_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// CLOCK_MONOTONIC, which all processes of a machine share.
pub fn clock() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    now.into()
}

/// What is announced.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    pub routes: u32,
    /// Attribute sets that alternate from route to route.
    pub sets: u32,
}

/// One table and how many take it.
#[derive(Debug, Clone, Copy)]
struct Case {
    table: Table,
    peers: u8,
}

/// Medians of one speaker's dumps in one case.
#[derive(Debug, Clone)]
struct Seen {
    kind: Kind,
    case: Case,
    dumps: usize,
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

/// Runs the bench with the sizes and speakers named, or all; `quick` leaves out the smallest and the largest table and most
/// repetitions.
pub fn run(quick: bool, words: &[&str]) -> ExitCode {
    if !rack::bench_can_run(&[Need::Namespaces]) {
        return ExitCode::FAILURE;
    }
    let mut sizes: Vec<u32> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let names: Vec<&str> = words.iter().filter(|word| word.parse::<u32>().is_err()).copied().collect();
    if sizes.is_empty() {
        sizes.extend(if quick { &[10_000, 100_000][..] } else { &[1_000, 10_000, 100_000, 1_000_000] });
    }
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_among(&names) && kind.look()).collect();
    let lab = Lab::new();
    let most = if quick { FEW_DUMPS } else { MOST_DUMPS };
    println!(
        "| routes / sets / peers | speaker | dumps | first | 99 % | last | End-of-RIB | UPDATEs | octets | CPU | peak RSS |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut verdicts = String::new();
    for table in sizes.iter().flat_map(|routes| [1, 100].map(|sets| Table { routes: *routes, sets })) {
        let seen: Vec<Seen> = kinds.iter().flat_map(|kind| lab.measure(*kind, table, most)).collect();
        for peers in PEERS {
            let of_case: Vec<&Seen> = seen.iter().filter(|seen| seen.case.peers == peers).collect();
            of_case.iter().for_each(|seen| println!("{}", row(seen)));
            verdicts += &judge(&of_case);
        }
    }
    println!(
        "\n| routes / sets / peers | what | crier | best of the others | goal | |\n|---|---|---|---|---|---|\n{verdicts}"
    );
    print!("{}", addition::compare(&lab, &kinds));
    if kinds.contains(&Kind::Crier) {
        println!("{}", lab.extended());
    }
    ExitCode::SUCCESS
}

impl Lab {
    fn new() -> Lab {
        let rack = Rack::new("dump");
        let (node, router) = (rack.namespace("node"), rack.namespace("router"));
        rack::net::connect(&node, "eth0", &router, "eth0");
        node.up("eth0", &[&format!("{SPEAKER}/24")]);
        let receivers = (1..=9).chain(speakers::FRESH_RECEIVERS);
        let receivers: Vec<String> = receivers.map(|number| format!("{}/24", peer_address(number))).collect();
        router.up("eth0", &receivers.iter().map(String::as_str).collect::<Vec<_>>());
        Lab { rack, node, router }
    }

    /// A file in the rack's folder.
    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.rack.folder().join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("could not write {}: {error}", path.display()));
        path
    }

    /// Medians of at most `most` dumps for each number of peers; those are missing, with a line on standard error, that the speaker
    /// does not do.
    fn measure(&self, kind: Kind, table: Table, most: usize) -> Vec<Seen> {
        if !kind.can(table) {
            return Vec::new();
        }
        // The one before may still be giving back its memory, and holds the port as long.
        eventually("nobody listens for BGP any more", secs(30), || {
            self.node.run(|| TcpListener::bind((SPEAKER, 179)).map(drop))
        });
        let began = now();
        let most_peers = PEERS.into_iter().max().unwrap_or(1);
        let mut speaker = kind.start(self, table, most_peers);
        let mut all = Vec::new();
        for case in PEERS.map(|peers| Case { table, peers }) {
            let mut runs = self.dumps(&speaker, case, most);
            if let Err(error) = &runs
                && !speaker.is_running()
            {
                eprintln!("{kind:?} with {case:?} died and is started again: {error}\n{}", speaker.log_tail());
                speaker = kind.start(self, table, most_peers);
                runs = self.dumps(&speaker, case, most);
            }
            match runs {
                Ok(runs) => all.push(Seen::medians(&speaker, case, &runs)),
                Err(error) => eprintln!("{kind:?} with {case:?}: {error}\n{}", speaker.log_tail()),
            }
        }
        eprintln!("{kind:?} with {table:?}: {:.1} s", began.elapsed().as_secs_f64());
        all
    }

    fn dumps(&self, speaker: &Speaker, case: Case, most: usize) -> std::io::Result<Vec<(Dump, Duration)>> {
        let mut runs = Vec::new();
        let mut failures = 0;
        // The first one warms up.
        let mut began = None;
        loop {
            let is_last = began.is_some_and(|began| now() > began + DUMPING_TIME || runs.len() + 1 >= most);
            // BIRD's last message often stands still for three seconds. That is waited for once.
            let to_the_end = speaker.kind != Kind::Bird || is_last;
            match self.dump(speaker, case, to_the_end) {
                Ok((dump, _)) if began.is_none() => {
                    // Loading the table takes none of the time, its dump does.
                    let length = dump.nearly_all.saturating_sub(dump.established);
                    began = Some(now().checked_sub(length).unwrap_or_else(now));
                }
                Ok(run) => runs.push(run),
                Err(error) if failures >= FAILURES || !speaker.is_running() => return Err(error),
                Err(error) => {
                    eprintln!("{:?} with {case:?}, once more: {error}", speaker.kind);
                    failures += 1;
                    rest(millis(300));
                    continue;
                }
            }
            if is_last {
                return Ok(runs);
            }
        }
    }

    /// One dump to every receiver at once: the slowest receiver's times, and the speaker's processor time.
    fn dump(&self, speaker: &Speaker, case: Case, to_the_end: bool) -> std::io::Result<(Dump, Duration)> {
        let count = usize::try_from(case.table.routes).map_err(std::io::Error::other)?;
        self.router.run(|| {
            let mut sinks = Vec::new();
            for number in 1..=case.peers {
                sinks.push(self.dial(speaker, number, false)?);
            }
            // What the handshakes cost is not of the dump.
            rest(millis(20));
            let before = speaker.processor_time();
            let together = Barrier::new(sinks.len());
            let dumps: Vec<std::io::Result<Dump>> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    sinks.iter_mut().map(|sink| scope.spawn(|| sink.take_dump(count, to_the_end, &together))).collect();
                threads.into_iter().map(|thread| thread.join().expect("a sink does not panic")).collect()
            });
            rest(AFTERMATH);
            let processor = speaker.processor_time().saturating_sub(before);
            sinks.into_iter().for_each(Sink::close);
            let dumps = dumps.into_iter().collect::<std::io::Result<Vec<Dump>>>()?;
            let slowest = dumps.into_iter().max_by_key(|dump| dump.nearly_all.saturating_sub(dump.established));
            Ok((slowest.expect("there is a receiver"), processor))
        })
    }

    /// A session with the speaker that lacks the receiver's KEEPALIVE. Call it inside the router's namespace.
    fn dial(&self, speaker: &Speaker, number: u8, extended: bool) -> std::io::Result<Sink> {
        let began = now();
        let receiver = speaker.receiver(number);
        loop {
            speaker.encourage(receiver);
            match Sink::dial(receiver, sink::own_asn(), extended) {
                Ok(sink) => return Ok(sink),
                Err(error) if began.elapsed() > PATIENCE || !speaker.is_running() => return Err(error),
                Err(_) => rest(millis(50)),
            }
        }
    }

    /// How many UPDATEs crier needs for a peer that takes extended messages (RFC 8654).
    fn extended(&self) -> String {
        let table = Table { routes: 100_000, sets: 1 };
        let speaker = Kind::Crier.start(self, table, 1);
        let dump = self.router.run(|| {
            let mut sink = self.dial(&speaker, 1, true)?;
            sink.take_dump(100_000, true, &Barrier::new(1))
        });
        match dump {
            Ok(Dump { updates, octets, .. }) => {
                format!("\nWith extended messages crier announces 100000 routes in {updates} UPDATEs, {octets} octets.")
            }
            Err(error) => format!("\nA dump with extended messages failed: {error}"),
        }
    }
}

impl Seen {
    fn medians(speaker: &Speaker, case: Case, runs: &[(Dump, Duration)]) -> Seen {
        let middle =
            |of: &dyn Fn(&Dump) -> Option<Duration>| median(runs.iter().filter_map(|(dump, _)| of(dump)).collect());
        let whole = runs.iter().map(|(dump, _)| dump).rfind(|dump| dump.last.is_some()).copied().unwrap_or_default();
        Seen {
            kind: speaker.kind,
            case,
            dumps: runs.len(),
            first: middle(&|dump| Some(dump.first.saturating_sub(dump.established))),
            nearly_all: middle(&|dump| Some(dump.nearly_all.saturating_sub(dump.established))),
            last: middle(&|dump| Some(dump.last?.saturating_sub(dump.established))),
            end_of_rib: whole
                .end_of_rib
                .zip(whole.last)
                .map(|(at, last)| at.checked_sub(last).ok_or(last.saturating_sub(at))),
            updates: whole.updates,
            octets: whole.octets,
            processor: median(runs.iter().map(|(_, processor)| *processor).collect()),
            peak_memory: speaker.peak_memory(),
        }
    }
}

fn row(seen: &Seen) -> String {
    let Seen { kind, case, dumps, first, nearly_all, last, end_of_rib, updates, octets, processor, peak_memory } = seen;
    format!(
        "| {} | {kind:?} | {dumps} | {} | {} | {} | {} | {updates} | {octets} | {} | {} |",
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
fn judge(seen: &[&Seen]) -> String {
    let (crier, others): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.kind == Kind::Crier);
    let mut text = String::new();
    let Some(crier) = crier.first() else { return text };
    let case = crier.case;
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

impl Table {
    /// The routes of one set.
    pub fn numbers(self, set: u32) -> impl Iterator<Item = u32> {
        (set..self.routes).step_by(usize::try_from(self.sets).unwrap_or(1))
    }
}

impl Case {
    fn shown(&self) -> String {
        format!("{} / {} / {}", self.table.routes, self.table.sets, self.peers)
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
