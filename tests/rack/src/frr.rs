//! FRR as a router: zebra and bgpd with sockets of their own, asked over the daemons' vty sockets.
//!
//! Pitfalls: without `no bgp ebgp-requires-policy` eBGP neither sends nor takes a route; without
//! `no bgp network import-check` a `network` is only announced if the kernel has it; FRR 8.4 offers graceful restart
//! unasked, so that routers which help keep its routes for two minutes after it died, until
//! `bgp graceful-restart-disable`; of two IPv6 next hops it puts the link-local one into the kernel, unless a route map
//! says `set ipv6 next-hop prefer-global`; and what changes goes out after 50 ms, not at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Group;
use serde_json::Value;

use crate::bird::Session;
use crate::namespace::Namespace;
use crate::need::may_set_groups;
use crate::pairing::{Pairing, ROUTER, Router};
use crate::process::Process;
use crate::wait::{Deadline, eventually, secs};

/// What nearly every `router bgp` section of a test holds; see the pitfalls above.
pub const PLAIN: &str = "
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 bgp graceful-restart-disable
";

/// A router at 192.168.35.1 that waits for the first node of a site, which is of AS 64513. `of_neighbor` and `of_family`: more lines of that
/// neighbor (`"bfd"`), and of the family IPv4.
pub fn waits_for_node(of_neighbor: &[&str], of_family: &[&str]) -> String {
    let neighbor = ["remote-as 64513", "passive"].iter().chain(of_neighbor);
    let neighbor: String = neighbor.map(|line| format!(" neighbor 192.168.35.11 {line}\n")).collect();
    let family: String = of_family.iter().map(|line| format!("  {line}\n")).collect();
    format!(
        "router bgp 64512\n bgp router-id 192.168.35.1\n{PLAIN}{neighbor} address-family ipv4 unicast\n  neighbor 192.168.35.11 activate\n\
         {family} exit-address-family\n"
    )
}

/// Where Debian puts FRR's daemons.
const FOLDER: &str = "/usr/lib/frr";
/// The group that its packages name at build time.
const GROUP: &str = "frrvty";

/// Where FRR is, or why it cannot run.
pub(crate) fn look() -> Result<String, String> {
    if !["zebra", "bgpd"].iter().all(|daemon| Path::new(FOLDER).join(daemon).exists()) {
        return Err("no FRR: apt-get install frr".into());
    }
    if may_set_groups() { Ok(FOLDER.into()) } else { Err("FRR sets its groups, which a user namespace forbids".into()) }
}

/// A running zebra and bgpd, with bfdd where it was asked for.
#[derive(Debug)]
pub struct Frr {
    bgpd: Process,
    bfdd: Option<Process>,
    zebra: Process,
    folder: PathBuf,
}

impl Namespace {
    /// Starts FRR in here with `configuration` for bgpd (see [`PLAIN`]) and waits until both daemons answer. zebra puts
    /// the routes into the kernel, several equal ones as multipath.
    #[track_caller]
    pub fn frr(&self, configuration: &str) -> Frr {
        let folder = self.rack().subfolder(&format!("{}.frr", self.name()));
        let zebra = self.start_daemon("zebra", "log timestamp precision 6\n", &folder);
        let configuration = format!("log timestamp precision 6\ndebug bgp neighbor-events\n{configuration}\n");
        let bgpd = self.start_daemon("bgpd", &configuration, &folder);
        Frr { bgpd, zebra, bfdd: None, folder }
    }

    /// The same with bfdd, which has a configuration of its own. It starts last: bgpd registers its sessions with it, and FRR 8.4
    /// loses the registration of one that starts while bgpd does.
    #[track_caller]
    pub fn frr_with_bfd(&self, configuration: &str, bfd: &str) -> Frr {
        let frr = self.frr(configuration);
        let bfdd = self.start_daemon("bfdd", &format!("log timestamp precision 6\n{bfd}"), &frr.folder);
        Frr { bfdd: Some(bfdd), ..frr }
    }

    #[track_caller]
    fn start_daemon(&self, daemon: &str, configuration: &str, folder: &Path) -> Process {
        let file = |name: String| folder.join(name);
        let configuration_file = file(format!("{daemon}.conf"));
        let written = std::fs::write(&configuration_file, configuration);
        written.unwrap_or_else(|error| panic!("could not write {}: {error}", configuration_file.display()));
        let mut command = Command::new(Path::new(FOLDER).join(daemon));
        command.arg("-f").arg(configuration_file).arg("-i").arg(file(format!("{daemon}.pid")));
        command.arg("-z").arg(file("zserv".into())).arg("--vty_socket").arg(folder);
        // It stays root, since its own user could not write into the folder, and insists on the group of those who may
        // use vty sockets. It has that group from the start: changing it later would undo the parent-death signal.
        let group = Group::from_name(GROUP).ok().flatten().unwrap_or_else(|| panic!("there is no group {GROUP}"));
        command.gid(group.gid.as_raw()).args(["-u", "root", "-g", GROUP]);
        if daemon == "bfdd" {
            command.arg("--bfdctl").arg(file("bfdd.sock".into()));
        }
        // No telnet port.
        command.args(["-P", "0", "--log", "stdout", "--log-level", "debugging"]);
        let process = self.start(daemon, command);
        eventually(&format!("{daemon} answers on its vty socket"), secs(10), || {
            process.expect_running();
            ask(folder, daemon, "show version")
        });
        process
    }
}

impl Namespace {
    /// Starts FRR with one session, to crier.
    #[track_caller]
    pub fn frr_paired(&self, pairing: &Pairing) -> PairedFrr {
        PairedFrr { frr: self.frr(&paired(pairing)), asn: pairing.router_asn, neighbor: pairing.crier_address() }
    }
}

/// An FRR with one session, to crier.
#[derive(Debug)]
pub struct PairedFrr {
    pub frr: Frr,
    asn: u32,
    neighbor: IpAddr,
}

impl Router for PairedFrr {
    fn process(&self) -> &Process {
        &self.frr.bgpd
    }

    fn session(&self) -> Session {
        self.frr.session(&self.neighbor.to_string())
    }

    fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        self.frr.routes()
    }

    fn route_count(&self) -> usize {
        let summary = self.frr.json("show bgp summary json");
        let count = summary["ipv4Unicast"]["peers"][self.neighbor.to_string()]["pfxRcd"].as_u64();
        count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    fn ask_again(&self) {
        self.frr.command(&format!("clear bgp ipv4 unicast {} soft in", self.neighbor));
    }

    fn shut_down(&self, text: &str) -> String {
        let session = format!("neighbor {} shutdown message {text}", self.neighbor);
        self.frr.configure(&[&format!("router bgp {}", self.asn), &session]);
        text.to_owned()
    }

    fn words(&self) -> String {
        let shown = ask(&self.frr.folder, "bgpd", &format!("show bgp neighbors {}", self.neighbor));
        format!("{}\n{}", self.frr.bgpd.log(), shown.unwrap_or_default())
    }
}

fn paired(pairing: &Pairing) -> String {
    let neighbor = pairing.crier_address();
    let mut lines = vec![
        format!("neighbor {neighbor} remote-as {}", pairing.crier_asn),
        format!("neighbor {neighbor} timers {} {}", pairing.hold_time_secs / 3, pairing.hold_time_secs),
        format!("neighbor {neighbor} timers connect 1"),
        format!("neighbor {neighbor} update-source {}", pairing.router_address()),
    ];
    lines.extend(pairing.password.iter().map(|password| format!("neighbor {neighbor} password {password}")));
    if pairing.ttl_security {
        lines.push(format!("neighbor {neighbor} ttl-security hops 1"));
    }
    if !pairing.router_dials {
        lines.push(format!("neighbor {neighbor} passive"));
    }
    let lines: String = lines.iter().map(|line| format!(" {line}\n")).collect();
    let families: String = pairing
        .families
        .iter()
        .map(|family| {
            let family = family.word();
            format!(" address-family {family} unicast\n  neighbor {neighbor} activate\n exit-address-family\n")
        })
        .collect();
    let asn = pairing.router_asn;
    format!("router bgp {asn}\n bgp router-id {}\n{PLAIN}{lines}{families}", ROUTER.0)
}

impl Frr {
    /// bgpd's process: killing it is what a crash of the router's BGP looks like.
    pub fn bgpd(&self) -> &Process {
        &self.bgpd
    }

    pub fn zebra(&self) -> &Process {
        &self.zebra
    }

    /// Any command of bgpd's, as typed into vtysh in enable mode.
    ///
    /// # Panics
    /// When bgpd has ended or refuses the command.
    #[track_caller]
    pub fn command(&self, command: &str) -> String {
        ask(&self.folder, "bgpd", command).unwrap_or_else(|error| {
            self.bgpd.expect_running();
            panic!("{}: `{command}`: {error}", self.bgpd.name())
        })
    }

    /// Configuration commands one after the other, as after `configure terminal`.
    #[track_caller]
    pub fn configure(&self, commands: &[&str]) {
        let all = ["enable", "configure terminal"].iter().chain(commands);
        converse(&self.folder, "bgpd", all.copied()).unwrap_or_else(|error| {
            self.bgpd.expect_running();
            panic!("{}: {commands:?}: {error}", self.bgpd.name())
        });
    }

    /// The same for bfdd.
    #[track_caller]
    pub fn configure_bfd(&self, commands: &[&str]) {
        let all = ["enable", "configure terminal"].iter().chain(commands);
        converse(&self.folder, "bfdd", all.copied()).unwrap_or_else(|error| {
            self.bfdd.iter().for_each(Process::expect_running);
            panic!("bfdd: {commands:?}: {error}")
        });
    }

    /// A `show … json` of bfdd, read.
    #[track_caller]
    pub fn bfd_json(&self, command: &str) -> Value {
        let text = ask(&self.folder, "bfdd", command).unwrap_or_else(|error| panic!("bfdd: `{command}`: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{command}` printed no JSON: {error}\n{text}"))
    }

    /// A `show … json`, read.
    #[track_caller]
    pub fn json(&self, command: &str) -> Value {
        let text = self.command(command);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("`{command}` printed no JSON: {error}\n{text}"))
    }

    /// Every route in bgpd's tables of both families: prefix → next hops, over all peers that announced it. Where a peer
    /// announced a global and a link-local next hop, the global one.
    #[track_caller]
    pub fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut table: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for family in ["ipv4", "ipv6"] {
            let answer = self.json(&format!("show bgp {family} unicast json"));
            for (prefix, paths) in answer["routes"].as_object().into_iter().flatten() {
                let hops = paths.as_array().into_iter().flatten().filter_map(next_hop);
                table.entry(prefix.clone()).or_default().extend(hops);
            }
        }
        table
    }

    /// All that bgpd knows of one prefix: `paths`, each with `aspath`, `nexthops`, `community`, `locpref`, ….
    #[track_caller]
    pub fn route(&self, prefix: &str) -> Value {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        self.json(&format!("show bgp {family} unicast {prefix} json"))
    }

    /// The session with the neighbor of that address.
    #[track_caller]
    pub fn session(&self, neighbor: &str) -> Session {
        let answer = self.json(&format!("show bgp neighbors {neighbor} json"));
        let told = &answer[neighbor];
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let times = told["connectionsEstablished"].as_u64().unwrap_or(0);
        Session {
            state: text("bgpState"),
            since: told["bgpTimerUpEstablishedEpoch"].to_string(),
            times_established: usize::try_from(times).unwrap_or(usize::MAX),
            last_error: text("lastResetDueTo"),
        }
    }

    /// Waits until that session is established, and returns it.
    #[track_caller]
    pub fn wait_established(&self, neighbor: &str, deadline: impl Into<Deadline>) -> Session {
        eventually(&format!("{} has the session with {neighbor} established", self.bgpd.name()), deadline, || {
            let session = self.session(neighbor);
            if session.is_established() { Ok(session) } else { Err(format!("{session:?}")) }
        })
    }
}

/// One path's next hop; bgpd lists two if it was announced with a link-local one beside.
fn next_hop(path: &Value) -> Option<IpAddr> {
    let hops = path["nexthops"].as_array()?;
    let global = hops.iter().find(|hop| hop["scope"] != "link-local");
    global.or(hops.first())?["ip"].as_str()?.parse().ok()
}

fn ask(folder: &Path, daemon: &str, command: &str) -> io::Result<String> {
    converse(folder, daemon, ["enable", command].into_iter())
}

/// Sends commands one after the other over one vty session and returns what the last one printed. A command ends with a
/// zero byte; its answer with three zero bytes and a status.
fn converse<'c>(folder: &Path, daemon: &str, commands: impl Iterator<Item = &'c str>) -> io::Result<String> {
    /// CMD_SUCCESS, CMD_WARNING (said, and done): FRR's lib/command.h.
    const FINE: [u8; 2] = [0, 1];
    let mut stream = UnixStream::connect(folder.join(format!("{daemon}.vty")))?;
    stream.set_read_timeout(Some(secs(10)))?;
    let mut answer = Vec::new();
    for command in commands {
        stream.write_all(command.as_bytes())?;
        stream.write_all(&[0])?;
        answer.clear();
        let mut buffer = [0; 16384];
        let status = loop {
            if let [.., 0, 0, 0, status] = *answer {
                answer.truncate(answer.len() - 4);
                break status;
            }
            match stream.read(&mut buffer)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon closed its vty socket")),
                length => answer.extend(&buffer[..length]),
            }
        };
        if !FINE.contains(&status) {
            let said = String::from_utf8_lossy(&answer);
            return Err(io::Error::other(format!("`{command}` ended with status {status}: {said}")));
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
