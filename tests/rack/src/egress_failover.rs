//! The bench of egress through the death of the owner: for how long what pods of other nodes open does not get out, and what becomes
//! of a connection that was open.
//!
//! Three nodes, each with a pod of a Service with `service-ip`. The two pods whose node is not the owner open a connection to a
//! host outside every 5 ms, and one of them asks that host again and again over a connection that stays. Then the owner is hit. The
//! outage is the longest time between two connections that came about, of the worse pod; the stall is the longest time that an
//! answer took on the connection that was open before.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rack::client::Asking;
use rack::crier::Crier;
use rack::egress::{ADDRESS, PORT, Scene};
use rack::{Need, Rack, eventually, millis, now, rest, secs};

use crate::failover::{quantile, spread};

const NODES: u16 = 3;
const PACE: Duration = millis(5);
/// Where the connection that stays goes to; new ones go to [`PORT`].
const STAYS: u16 = PORT + 1;
/// A connection that has had no answer for so long is taken for broken.
const BROKEN: Duration = secs(5);

/// What is done to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// The cable carries nothing any more; both ends keep their carrier.
    Cut,
    /// SIGKILL; the host lives on, and so does its ruleset.
    Killed,
    /// SIGSTOP.
    Frozen,
    /// SIGTERM.
    Stopped,
}

impl Blow {
    const ALL: [Blow; 4] = [Blow::Cut, Blow::Killed, Blow::Frozen, Blow::Stopped];

    fn name(self) -> &'static str {
        match self {
            Blow::Cut => "link cut silently",
            Blow::Killed => "agent killed (SIGKILL)",
            Blow::Frozen => "agent frozen (SIGSTOP)",
            Blow::Stopped => "clean stop (SIGTERM)",
        }
    }
}

/// What one blow did.
struct Seen {
    outage: Duration,
    lost: usize,
    /// Nothing where the connection broke.
    stall: Option<Duration>,
}

/// Runs the bench: `runs` blows of each kind.
pub fn run(runs: usize) -> ExitCode {
    if !rack::bench_can_run(&[Need::Namespaces, Need::Nft, Need::Crier]) {
        return ExitCode::FAILURE;
    }
    let measured = std::panic::catch_unwind(|| {
        Blow::ALL.map(|blow| {
            eprintln!("{}, {runs} times", blow.name());
            let mut round = Round::prepare();
            (blow, (0..runs).map(|_| round.strike(blow)).collect::<Vec<_>>())
        })
    });
    // The panic has said what was expected and what was seen.
    let Ok(rows) = measured else { return ExitCode::FAILURE };
    print!("{}", table(runs, &rows));
    ExitCode::SUCCESS
}

fn table(runs: usize, rows: &[(Blow, Vec<Seen>)]) -> String {
    let mut text = format!(
        "{runs} blows each; two pods connect every {} ms; times in ms as p50 / p95 / worst\n\n\
         {:<26}{:>21}{:>6}{:>21}{:>8}   goal\n",
        PACE.as_millis(),
        "blow",
        "outage",
        "lost",
        "stall",
        "broken"
    );
    for (blow, seen) in rows {
        let stalls = seen.iter().filter_map(|seen| seen.stall);
        let lost = seen.iter().map(|seen| seen.lost).max().unwrap_or_default();
        let met = if *blow == Blow::Stopped {
            lost <= 1
        } else {
            quantile(seen.iter().map(|seen| seen.outage), 95) <= millis(450)
        };
        let goal = if *blow == Blow::Stopped { "<= 1 lost" } else { "p95 <= 450 ms" };
        let _ = writeln!(
            text,
            "{:<26}{:>21}{lost:>6}{:>21}{:>8}   {goal}: {}",
            blow.name(),
            spread(seen.iter().map(|seen| seen.outage)),
            spread(stalls.clone()),
            seen.len() - stalls.count(),
            if met { "met" } else { "MISSED" }
        );
    }
    text
}

/// Three nodes with their agents.
struct Round {
    scene: Scene,
    agents: Vec<Option<Crier>>,
    /// Where new connections go to.
    _outside: rack::Process,
    /// Where the one that stays goes to.
    listener: TcpListener,
}

impl Round {
    fn prepare() -> Round {
        let rack = Rack::new("egress-failover");
        let scene = Scene::of(&rack, NODES);
        let client = &scene.lan.site.client;
        let _outside = client.serve("outside", &[PORT]);
        let listener = client.run(|| TcpListener::bind((client.address, STAYS))).expect("the namespace is ours");
        let agents = scene.lan.agents().into_iter().map(Some).collect();
        scene.serve("service-ip");
        Round { scene, agents, _outside, listener }
    }

    fn agent(&self, node: usize) -> &Crier {
        self.agents[node].as_ref().expect("it runs until it is hit, and is hit once")
    }

    /// The owner, once one node has been it for a while and all agents say how the pods leave by it.
    fn calm(&self) -> usize {
        let lan = &self.scene.lan;
        let (mut owner, mut since) = (lan.owner(ADDRESS), now());
        // Whoever returned may be the better node, and take the address back.
        while since.elapsed() < secs(2) {
            let seen = lan.owner(ADDRESS);
            if seen != owner {
                (owner, since) = (seen, now());
            }
        }
        self.scene.leave_by(&self.agents.iter().flatten().collect::<Vec<_>>(), owner);
        owner
    }

    fn strike(&mut self, blow: Blow) -> Seen {
        let owner = self.calm();
        let others: Vec<usize> = (0..usize::from(NODES)).filter(|node| *node != owner).collect();
        let to = self.scene.client(false);
        let opening: Vec<_> = others.iter().map(|node| self.scene.pods[*node].connect_steadily(to, PACE)).collect();
        let staying = self.stay(others[0]);
        for asking in &opening {
            asking.is_served("the pods get out before the blow", 40, secs(10));
        }
        self.hit(owner, blow);
        eventually("another node owns the address", secs(20), || {
            let answering = self.scene.lan.answering(ADDRESS);
            let is_other = |name: &String| others.iter().any(|node| self.scene.lan.site.node(*node).name() == name);
            if answering.iter().any(is_other) { Ok(()) } else { Err(format!("{answering:?}")) }
        });
        for asking in &opening {
            asking.is_served_again("the pods get out after the blow", secs(20));
        }
        let outcomes = opening.into_iter().map(Asking::stop_after_the_last);
        let (gaps, lost): (Vec<_>, Vec<_>) = outcomes.map(|all| (all.longest_gap(), all.lost())).unzip();
        let stall = staying.end();
        self.undo(owner, blow);
        let worst = gaps.into_iter().max().unwrap_or_default();
        Seen { outage: worst, lost: lost.into_iter().sum(), stall }
    }

    /// A connection of that node's pod which stays.
    fn stay(&self, node: usize) -> Staying {
        let to = (self.scene.lan.site.client.address, STAYS);
        let pod = self.scene.pods[node].connect(to, secs(5)).expect("the pod gets out");
        let (outside, _) = self.listener.accept().expect("a connection");
        Staying::start(pod, outside)
    }

    fn hit(&mut self, owner: usize, blow: Blow) {
        match blow {
            Blow::Cut => self.scene.lan.site.node(owner).port.cut(),
            Blow::Killed => drop(self.agent(owner).process().kill()),
            Blow::Frozen => self.agent(owner).process().freeze(),
            Blow::Stopped => drop(self.agent(owner).process().stop(secs(20))),
        }
    }

    fn undo(&mut self, owner: usize, blow: Blow) {
        match blow {
            Blow::Cut => self.scene.lan.site.node(owner).port.restore(),
            Blow::Frozen => self.agent(owner).process().thaw(),
            Blow::Killed | Blow::Stopped => {
                self.agents[owner] = None;
                let agent = self.scene.lan.agent(owner);
                agent.wait_ready(secs(30));
                self.agents[owner] = Some(agent);
            }
        }
    }
}

/// A pod that asks, and a host outside that answers, again and again over one connection.
struct Staying {
    stop: Arc<AtomicBool>,
    asks: JoinHandle<io::Result<Duration>>,
}

impl Staying {
    fn start(mut pod: TcpStream, mut outside: TcpStream) -> Staying {
        let stop = Arc::new(AtomicBool::new(false));
        for end in [&pod, &outside] {
            end.set_read_timeout(Some(BROKEN)).expect("a socket takes a timeout");
            end.set_nodelay(true).expect("a socket takes no delay");
        }
        std::thread::spawn(move || {
            let mut word = [0; 4];
            while outside.read_exact(&mut word).is_ok() && outside.write_all(&word).is_ok() {}
        });
        let ends = stop.clone();
        let asks = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !ends.load(Ordering::Relaxed) {
                let asked = now();
                pod.write_all(b"ping")?;
                pod.read_exact(&mut [0; 4])?;
                longest = longest.max(asked.elapsed());
                rest(PACE);
            }
            Ok(longest)
        });
        Staying { stop, asks }
    }

    /// The longest time without an answer; nothing where the connection broke.
    fn end(self) -> Option<Duration> {
        // What is under way is waited for, as long as it takes to be taken for broken.
        self.stop.store(true, Ordering::Relaxed);
        self.asks.join().expect("it does not panic").ok()
    }
}
