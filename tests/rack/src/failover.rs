//! The failover bench: how long an address on the link is away when its owner fails, for crier and, in the same rack, for
//! keepalived, as figures of one run.
//!
//! Three nodes hold one address, a client on the link opens a connection every 5 ms, and the owner is hit. The outage is
//! the longest time between two connections that came about; the take-over is the time from the blow to the first ARP
//! with which another node says that the address is its own.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rack::capture::Capture;
use rack::crier::Crier;
use rack::{Deadline, Manifests, Need, Node, Process, Rack, Service, Site, eventually, millis, now, secs};

const NODES: u16 = 3;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const PACE: Duration = millis(5);
const PATIENCE: Duration = secs(30);

/// What is done to the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL; the host lives on, and so does what it had accepted.
    Killed,
    /// The cable carries nothing any more; both ends keep their carrier.
    Cut,
    /// SIGSTOP.
    Frozen,
    /// SIGTERM.
    Stopped,
    /// The Node is labelled out of service.
    HandedOver,
    /// The interface is set down.
    InterfaceDown,
    /// Policy Local: the last endpoint of the node is gone, without having terminated first.
    EndpointGone,
    /// The agent of the best node starts again and takes the address back.
    Returned,
}

impl Blow {
    const ALL: [Blow; 8] = [
        Blow::Killed,
        Blow::Cut,
        Blow::Frozen,
        Blow::Stopped,
        Blow::HandedOver,
        Blow::InterfaceDown,
        Blow::EndpointGone,
        Blow::Returned,
    ];

    fn name(self) -> &'static str {
        match self {
            Blow::Killed => "agent killed (SIGKILL)",
            Blow::Cut => "link cut silently",
            Blow::Frozen => "agent frozen (SIGSTOP)",
            Blow::Stopped => "clean stop (SIGTERM)",
            Blow::HandedOver => "planned hand-over",
            Blow::InterfaceDown => "interface down",
            Blow::EndpointGone => "endpoint gone (Local)",
            Blow::Returned => "node returns",
        }
    }

    /// Nobody could know that it would come.
    fn is_unplanned(self) -> bool {
        matches!(self, Blow::Killed | Blow::Cut | Blow::Frozen | Blow::InterfaceDown | Blow::EndpointGone)
    }

    /// keepalived knows no Nodes and no endpoints.
    fn is_for_keepalived(self) -> bool {
        !matches!(self, Blow::HandedOver | Blow::EndpointGone)
    }
}

/// Who keeps the address available, and how it is set.
#[derive(Clone, Copy, Debug)]
enum Contender {
    /// With this time between the pulses of an owner.
    Crier(&'static str),
    /// With this time between advertisements, in seconds.
    Keepalived(&'static str),
}

impl Contender {
    const ALL: [Contender; 4] =
        [Contender::Crier("100ms"), Contender::Crier("20ms"), Contender::Keepalived("1"), Contender::Keepalived("0.1")];

    /// For so long one node has to hold the address, alone and answering, before the next blow.
    fn calm(self) -> Duration {
        match self {
            Contender::Crier(_) | Contender::Keepalived("0.1") => secs(1),
            Contender::Keepalived(_) => secs(4),
        }
    }

    fn name(self) -> String {
        match self {
            Contender::Crier(interval) => format!("crier, pulse {interval}"),
            Contender::Keepalived(interval) => format!("keepalived, advert {interval} s"),
        }
    }
}

/// Runs the bench: `runs` blows of each kind for each contender, of those rows whose name has `word` in it.
pub fn run(runs: usize, word: &str) -> ExitCode {
    if !rack::bench_can_run(&[Need::Namespaces, Need::Crier, Need::Keepalived]) {
        return ExitCode::FAILURE;
    }
    let measured = std::panic::catch_unwind(|| {
        let mut table = Table::default();
        for contender in Contender::ALL {
            for blow in Blow::ALL {
                let name = format!("{}: {}", contender.name(), blow.name());
                let is_for = matches!(contender, Contender::Crier(_)) || blow.is_for_keepalived();
                if is_for && name.contains(word) {
                    eprintln!("{name}, {runs} times");
                    table.rows.push(Round::prepare(contender, blow).strike(runs));
                }
            }
        }
        table
    });
    match measured {
        Ok(table) => {
            print!("{}", table.text(runs));
            ExitCode::SUCCESS
        }
        // The panic has said what was expected and what was seen.
        Err(_) => ExitCode::FAILURE,
    }
}

/// One contender under one kind of blow, in a rack of its own.
struct Round {
    contender: Contender,
    blow: Blow,
    daemons: Vec<Option<Daemon>>,
    _servers: Vec<Process>,
    manifests: Manifests,
    site: Site,
}

enum Daemon {
    Crier(Crier),
    Keepalived(Process),
}

impl Daemon {
    fn process(&self) -> &Process {
        match self {
            Daemon::Crier(crier) => crier.process(),
            Daemon::Keepalived(process) => process,
        }
    }

    /// keepalived's work is done by a child of the process that was started.
    fn children(&self) -> Vec<Pid> {
        let pid = self.process().pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
    }
}

fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        // One that has ended meanwhile needs no signal.
        let _ = kill(*process, signal);
    }
}

/// What one blow did.
struct Seen {
    outage: Duration,
    lost: usize,
    take_over: Option<Duration>,
}

impl Round {
    fn prepare(contender: Contender, blow: Blow) -> Round {
        let rack = Rack::new("failover");
        let manifests = Manifests::new(&rack);
        let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", NODES);
        for node in &site.nodes {
            // As kube-proxy and its kin have it: no kernel answers for a Service's address by itself.
            node.sysctl("net/ipv4/conf/all/arp_ignore", "1");
            node.sysctl("net/ipv4/conf/all/arp_announce", "2");
        }
        fs::write(rack.folder().join("pulse.key"), "a key for this bench and no other").expect("the folder is ours");
        let servers = site.nodes.iter().map(|node| node.serve(node.name(), &[80])).collect();
        let mut round = Round { contender, blow, daemons: Vec::new(), _servers: servers, manifests, site };
        round.write_nodes(None);
        round.write_service(&[0, 1, 2]);
        round.daemons = (0..usize::from(NODES)).map(|node| Some(round.start(node))).collect();
        round
    }

    fn strike(mut self, runs: usize) -> Row {
        let seen = (0..runs).map(|_| self.strike_once()).collect();
        Row { contender: self.contender, blow: self.blow, seen }
    }

    fn strike_once(&mut self) -> Seen {
        let mut owner = self.calm(None);
        if self.blow == Blow::Returned {
            // It has to be away first.
            self.stop(owner);
            let away = owner;
            self.calm(Some(away));
            owner = away;
        }
        let capture = self.site.client.port.capture();
        let asking = self.site.client.connect_steadily(SocketAddr::from((ADDRESS, 80)), PACE);
        asking.is_served("the client is served before the blow", 20, PATIENCE);
        let struck = now();
        self.hit(owner);
        if self.blow == Blow::Returned {
            self.settle_on(&[owner]);
        } else {
            let others: Vec<usize> = (0..usize::from(NODES)).filter(|node| *node != owner).collect();
            self.settle_on(&others);
        }
        asking.is_served_again("the client is served after the blow", PATIENCE);
        let outcomes = asking.stop_after_the_last();
        let take_over = self.take_over(&capture, struck, owner);
        self.undo(owner);
        Seen { outage: outcomes.longest_gap(), lost: outcomes.lost(), take_over }
    }

    /// Until one node alone has answered for the address for a while, and it is not `away`.
    fn calm(&self, away: Option<usize>) -> usize {
        let settled = (0..usize::from(NODES)).filter(|node| Some(*node) != away).collect::<Vec<_>>();
        let mut owner = self.settle_on(&settled);
        let mut since = now();
        while since.elapsed() < self.contender.calm() {
            let seen = self.settle_on(&settled);
            if seen != owner {
                (owner, since) = (seen, now());
            }
        }
        owner
    }

    /// Waits until exactly one of these nodes answers for the address.
    fn settle_on(&self, nodes: &[usize]) -> usize {
        eventually(&format!("one of the nodes {nodes:?} answers for {ADDRESS}"), Deadline::after(PATIENCE), || {
            let macs = self.site.client.who_has("eth0", ADDRESS, millis(60));
            match macs.as_slice() {
                [mac] => {
                    let owner = nodes.iter().find(|node| self.site.node(**node).port.mac() == *mac);
                    owner.copied().ok_or(format!("{mac} answers, none of them"))
                }
                // A kernel goes on answering for what a dead or frozen keepalived has put on its link.
                macs if self.leaves_the_address() => {
                    let owner = nodes.iter().find(|node| macs.contains(&self.site.node(**node).port.mac()));
                    owner.copied().ok_or(format!("{macs:?} answer, none of them"))
                }
                macs => Err(format!("answers from {macs:?}")),
            }
        })
    }

    fn leaves_the_address(&self) -> bool {
        matches!(self.contender, Contender::Keepalived(_)) && matches!(self.blow, Blow::Killed | Blow::Frozen)
    }

    fn hit(&mut self, owner: usize) {
        let node = self.site.node(owner);
        match self.blow {
            Blow::Killed => {
                // The parent first: it would start another child.
                let children = self.daemon(owner).children();
                self.daemon(owner).process().kill();
                signal_all(&children, Signal::SIGKILL);
            }
            Blow::Cut => node.port.cut(),
            Blow::Frozen => {
                self.daemon(owner).process().freeze();
                signal_all(&self.daemon(owner).children(), Signal::SIGSTOP);
            }
            Blow::Stopped => self.stop(owner),
            Blow::HandedOver => self.write_nodes(Some(owner)),
            Blow::InterfaceDown => drop(node.ip("link set eth0 down")),
            Blow::EndpointGone => {
                let others: Vec<usize> = (0..usize::from(NODES)).filter(|node| *node != owner).collect();
                self.write_service(&others);
            }
            Blow::Returned => self.daemons[owner] = Some(self.start(owner)),
        }
    }

    fn undo(&mut self, owner: usize) {
        let node = self.site.node(owner);
        match self.blow {
            Blow::Killed | Blow::Stopped => {
                self.daemons[owner] = None;
                if self.leaves_the_address() {
                    node.ip(&format!("address flush dev eth0 to {ADDRESS}/32"));
                }
                self.daemons[owner] = Some(self.start(owner));
            }
            Blow::Cut => node.port.restore(),
            Blow::Frozen => {
                signal_all(&self.daemon(owner).children(), Signal::SIGCONT);
                self.daemon(owner).process().thaw();
            }
            Blow::HandedOver => self.write_nodes(None),
            Blow::InterfaceDown => {
                node.ip("link set eth0 up");
                node.ip(&format!("route replace default via {}", self.site.router.address));
            }
            Blow::EndpointGone => self.write_service(&[0, 1, 2]),
            Blow::Returned => {}
        }
    }

    fn daemon(&self, node: usize) -> &Daemon {
        self.daemons[node].as_ref().expect("it runs until it is hit, and is hit once")
    }

    fn stop(&mut self, node: usize) {
        self.daemon(node).process().stop(PATIENCE);
        self.daemons[node] = None;
    }

    /// From the blow to the first ARP of another node that says that the address is its own.
    fn take_over(&self, capture: &Capture, struck: Instant, owner: usize) -> Option<Duration> {
        let old = self.site.node(owner).port.mac();
        let returned = self.blow == Blow::Returned;
        let arps = capture.arps();
        let first = arps.iter().find(|(at, arp)| {
            *at >= struck && arp.sender == ADDRESS && arp.target == ADDRESS && (arp.sender_mac == old) == returned
        });
        first.map(|(at, _)| *at - struck)
    }

    fn start(&self, number: usize) -> Daemon {
        let node = self.site.node(number);
        match self.contender {
            Contender::Crier(interval) => {
                let agent = node.crier(node.name(), &self.configuration(interval));
                agent.wait_ready(PATIENCE);
                Daemon::Crier(agent)
            }
            Contender::Keepalived(interval) => Daemon::Keepalived(self.keepalived(node, number, interval)),
        }
    }

    fn configuration(&self, interval: &str) -> String {
        format!(
            "[manifests]\nfolder = \"{}\"\n\n[[pool]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/32\"]\nbind = \"lo\"\n\n\
             [[l2]]\ninterfaces = [\"eth0\"]\n\n[pulse]\ninterval = \"{interval}\"\nkey-file = \"{}\"\n",
            self.manifests.path().display(),
            self.site.rack.folder().join("pulse.key").display(),
        )
    }

    fn keepalived(&self, node: &Node, number: usize, interval: &str) -> Process {
        let folder = self.site.rack.folder();
        let file = folder.join(format!("keepalived.{number}.conf"));
        let priority = 150 - 50 * number;
        let text = format!(
            "global_defs {{ vrrp_version 3 }}\n\
             vrrp_instance one {{\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n  advert_int {interval}\n  \
             virtual_ipaddress {{ {ADDRESS}/32 dev eth0 }}\n}}\n"
        );
        fs::write(&file, text).expect("the rack's folder is ours");
        let pid = |what: &str| {
            let path = folder.join(format!("keepalived.{number}.{what}"));
            // One that was left by a killed daemon would keep the next from starting.
            let _ = fs::remove_file(&path);
            path
        };
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--use-file"]).arg(&file);
        command.arg("--pid").arg(pid("pid")).arg("--vrrp_pid").arg(pid("vrrp.pid"));
        node.start(&format!("keepalived.{number}"), command)
    }

    /// All nodes as manifests; `out` is labelled out of the load balancers.
    fn write_nodes(&self, out: Option<usize>) {
        let excluded = "node.kubernetes.io/exclude-from-external-load-balancers: \"\"";
        let addresses: Vec<[IpAddr; 1]> = self.site.nodes.iter().map(|node| [node.address.into()]).collect();
        let nodes: Vec<_> = self
            .site
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (node.name(), if out == Some(index) { excluded } else { "" }, &addresses[index][..]))
            .collect();
        self.manifests.nodes(&nodes);
    }

    fn write_service(&self, with_endpoint: &[usize]) {
        let policy = if self.blow == Blow::EndpointGone { "Local" } else { "Cluster" };
        let service = Service::new("web").policy(policy);
        let nodes = with_endpoint.iter().map(|node| self.site.node(*node).name());
        self.manifests.service(&nodes.fold(service, Service::on));
    }
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
}

/// One contender under one kind of blow.
struct Row {
    contender: Contender,
    blow: Blow,
    seen: Vec<Seen>,
}

impl Row {
    /// What the issue asks for, and whether it was met.
    fn goal(&self) -> Option<(String, bool)> {
        let Contender::Crier(interval) = self.contender else { return None };
        let outage = quantile(self.seen.iter().map(|seen| seen.outage), 95);
        if self.blow.is_unplanned() {
            let most = if interval == "20ms" { millis(120) } else { millis(450) };
            return Some((format!("p95 <= {} ms", most.as_millis()), outage <= most));
        }
        let lost = self.seen.iter().map(|seen| seen.lost).max().unwrap_or_default();
        Some(("<= 1 lost".to_owned(), lost <= 1))
    }
}

impl Table {
    fn text(&self, runs: usize) -> String {
        let mut text = format!(
            "{runs} blows each; the client connects every {} ms; times in ms as p50 / p95 / worst\n\n\
             {:<26}{:<26}{:>21}{:>21}{:>6}   {}\n",
            PACE.as_millis(),
            "contender",
            "blow",
            "outage",
            "first ARP",
            "lost",
            "goal"
        );
        for row in &self.rows {
            let outages = row.seen.iter().map(|seen| seen.outage);
            let take_overs = row.seen.iter().filter_map(|seen| seen.take_over);
            let lost = row.seen.iter().map(|seen| seen.lost).max().unwrap_or_default();
            let goal = row
                .goal()
                .map_or(String::new(), |(goal, met)| format!("{goal}: {}", if met { "met" } else { "MISSED" }));
            let _ = writeln!(
                text,
                "{:<26}{:<26}{:>21}{:>21}{lost:>6}   {goal}",
                row.contender.name(),
                row.blow.name(),
                spread(outages),
                spread(take_overs),
            );
        }
        text
    }
}

/// p50, p95 and the worst, in milliseconds; `-` without any.
pub fn spread(times: impl Iterator<Item = Duration> + Clone) -> String {
    let shown = |percent| quantile(times.clone(), percent).as_millis();
    if times.clone().next().is_none() {
        return "-".to_owned();
    }
    format!("{} / {} / {}", shown(50), shown(95), shown(100))
}

/// The smallest time that so many percent are not above; zero without any.
pub fn quantile(times: impl Iterator<Item = Duration>, percent: usize) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}
