//! BIRD 2 as a router: started with a configuration, asked over its control socket.
//!
//! Pitfalls: an eBGP session is refused unless it says what it imports and what it exports; one BIRD cannot hold two BGP sessions to the same neighbor address (the second stays Idle); run several
//! BIRDs with `strict bind on` for that.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::Namespace;
use crate::need::program;
use crate::pairing::{Pairing, ROUTER, Router};
use crate::process::Process;
use crate::wait::{Deadline, eventually, secs};

/// Configuration that puts BIRD's routes of both families into the kernel's table, several equal ones as multipath.
pub const KERNEL: &str = "
protocol device { scan time 1; }
protocol kernel kernel4 { ipv4 { export all; import none; }; merge paths on limit 64; }
protocol kernel kernel6 { ipv6 { export all; import none; }; merge paths on limit 64; }
";

/// Stands before the test's own configuration: a log with sessions' events, to the microsecond.
const HEAD: &str = "
log stderr all;
debug protocols { states, events };
timeformat log iso long us;
timeformat protocol iso long;
";

/// Logged each time a session comes up, after its name.
const ESTABLISHED: &str = ": BGP session established";

/// A running BIRD.
#[derive(Debug)]
pub struct Bird {
    process: Process,
    configuration: PathBuf,
    socket: PathBuf,
}

/// A BGP session as a router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `Established`, `Active`, `Idle`, … as RFC 4271 §8.2.2 names the states.
    pub state: String,
    /// When it came into this state, in the router's own words.
    pub since: String,
    /// How often it was established since the router started: the same number later means that it has not flapped.
    pub times_established: usize,
    /// Why it is not established, if the router says so.
    pub last_error: String,
}

impl Session {
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }
}

/// One route as BIRD holds it; there is one for each peer that announced the prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub prefix: String,
    pub next_hops: BTreeSet<IpAddr>,
    /// The protocol that it came from: for BGP the session's name.
    pub protocol: String,
    /// `BGP.as_path` → `64513`, `BGP.local_pref` → `100`, `BGP.community` → `(64512,100)`, as BIRD prints them.
    pub attributes: BTreeMap<String, String>,
}

impl Namespace {
    /// Starts BIRD in here with `configuration` (see [`KERNEL`] for what it nearly always holds) and waits until it
    /// answers.
    #[track_caller]
    pub fn bird(&self, configuration: &str) -> Bird {
        self.bird_named("bird", configuration)
    }

    /// A second BIRD in the same namespace needs a name of its own.
    #[track_caller]
    pub fn bird_named(&self, name: &str, configuration: &str) -> Bird {
        let stem = format!("{}.{name}", self.name());
        let file = self.rack().write(&format!("{stem}.conf"), &format!("{HEAD}{configuration}"));
        let socket = self.rack().folder().join(format!("{stem}.sock"));
        // One that was killed leaves its socket.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(program("bird").unwrap_or_else(|| panic!("no BIRD on this machine")));
        command.arg("-f").arg("-c").arg(&file).arg("-s").arg(&socket);
        command.arg("-P").arg(self.rack().folder().join(format!("{stem}.pid")));
        let bird = Bird { process: self.start(name, command), configuration: file, socket };
        eventually("BIRD answers on its control socket", secs(10), || {
            bird.process.expect_running();
            ask(&bird.socket, "show status")
        });
        bird
    }
}

impl Namespace {
    /// Starts BIRD with one session, called `crier`, to crier.
    #[track_caller]
    pub fn bird_paired(&self, pairing: &Pairing) -> PairedBird {
        PairedBird(self.bird(&paired(pairing)))
    }
}

/// A BIRD with one session, to crier.
#[derive(Debug)]
pub struct PairedBird(pub Bird);

impl Router for PairedBird {
    fn process(&self) -> &Process {
        &self.0.process
    }

    fn session(&self) -> Session {
        self.0.session(PAIRED)
    }

    fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        self.0.routes()
    }

    fn route_count(&self) -> usize {
        self.0.count_from(PAIRED)
    }

    fn ask_again(&self) {
        self.0.command(&format!("reload in {PAIRED}"));
    }

    fn shut_down(&self, text: &str) -> String {
        self.0.command(&format!("disable {PAIRED} \"{text}\""));
        text.to_owned()
    }
}

/// What the session of a [`PairedBird`] is called.
const PAIRED: &str = "crier";

fn paired(pairing: &Pairing) -> String {
    let families: String =
        pairing.families.iter().map(|family| format!(" {} {{ import all; export none; }};", family.word())).collect();
    let password = pairing.password.as_ref().map(|password| format!(" password \"{password}\";"));
    format!(
        "router id {};\nprotocol device {{}}\nprotocol bgp {PAIRED} {{ local {} as {}; neighbor {} as {}; direct; hold time {}; \
         connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 1;{}{}{}{families} }}\n",
        ROUTER.0,
        pairing.router_address(),
        pairing.router_asn,
        pairing.crier_address(),
        pairing.crier_asn,
        pairing.hold_time_secs,
        if pairing.router_dials { "" } else { " passive;" },
        if pairing.ttl_security { " ttl security on;" } else { "" },
        password.unwrap_or_default(),
    )
}

impl Bird {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Any command of `birdc`; the answer's lines without their codes.
    ///
    /// # Panics
    /// When BIRD has ended or refuses the command.
    #[track_caller]
    pub fn command(&self, command: &str) -> String {
        ask(&self.socket, command).unwrap_or_else(|error| {
            self.process.expect_running();
            panic!("{}: `{command}`: {error}", self.process.name())
        })
    }

    /// Replaces the configuration as `birdc configure` does: sessions that it does not change stay up.
    #[track_caller]
    pub fn configure(&self, configuration: &str) {
        let written = std::fs::write(&self.configuration, format!("{HEAD}{configuration}"));
        written.unwrap_or_else(|error| panic!("could not write {}: {error}", self.configuration.display()));
        self.command("configure");
    }

    /// Every BGP route of every table: prefix → next hops, over all peers that announced it.
    #[track_caller]
    pub fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut table: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for route in routes_in(&self.command("show route where source = RTS_BGP")) {
            table.entry(route.prefix).or_default().extend(route.next_hops);
        }
        table
    }

    /// The BGP routes to exactly `prefix`, one for each peer, with all attributes.
    #[track_caller]
    pub fn route(&self, prefix: &str) -> Vec<Route> {
        let table = if prefix.contains(':') { "master6" } else { "master4" };
        // BIRD answers "Network not found" as an error; here it is an answer like any other.
        match ask(&self.socket, &format!("show route all {prefix} table {table} where source = RTS_BGP")) {
            Ok(text) => routes_in(&text),
            Err(error) => {
                self.process.expect_running();
                assert!(error.to_string().contains("not found"), "{}: {error}", self.process.name());
                Vec::new()
            }
        }
    }

    /// How many IPv4 routes it has from the session that the configuration calls `name`.
    #[track_caller]
    pub fn count_from(&self, name: &str) -> usize {
        // `1000 of 3000 routes for 1000 networks in table master4`
        let text = self.command(&format!("show route table master4 protocol {name} count"));
        let count = text.split_whitespace().next().and_then(|word| word.parse().ok());
        count.unwrap_or_else(|| panic!("{}: this is no count: {text}", self.process.name()))
    }

    /// The BGP session that the configuration calls `name`.
    #[track_caller]
    pub fn session(&self, name: &str) -> Session {
        let text = self.command(&format!("show protocols all {name}"));
        let field = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        // `tor1  BGP  ---  up  2024-01-01 12:00:00.123456  Established`
        let row = text.lines().find(|line| line.split_whitespace().next() == Some(name)).unwrap_or_default();
        let since = row.split_whitespace().skip(4).take(2).collect::<Vec<_>>().join(" ");
        let up = format!("{name}{ESTABLISHED}");
        let times_established = self.process.log().lines().filter(|line| line.ends_with(&up)).count();
        Session { state: field("BGP state:"), since, times_established, last_error: field("Last error:") }
    }

    /// Waits until that session is established, and returns it.
    #[track_caller]
    pub fn wait_established(&self, name: &str, deadline: impl Into<Deadline>) -> Session {
        eventually(&format!("{} has session {name} established", self.process.name()), deadline, || {
            let session = self.session(name);
            if session.is_established() { Ok(session) } else { Err(format!("{session:?}")) }
        })
    }
}

/// One command over the control socket. Lines come as `1007-text` or ` text`; a code of 0 or from 8000 on ends it.
fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "BIRD closed its control socket");
    // The greeting.
    lines.next().ok_or_else(&mut ended)??;
    writeln!(stream, "{command}")?;
    let mut text = String::new();
    for line in lines {
        let line = line?;
        let (code, rest) = match line.get(..4).and_then(|code| code.parse::<u16>().ok()) {
            Some(code) => (Some(code), line.get(5..).unwrap_or_default()),
            None => (None, line.get(1..).unwrap_or_default()),
        };
        if let Some(8000..) = code {
            return Err(io::Error::other(format!("BIRD says: {rest}")));
        }
        text.push_str(rest);
        text.push('\n');
        // A blank after the code marks the last line; codes below 1000 only ever stand there.
        if code.is_some_and(|code| code < 1000) && line.as_bytes().get(4) == Some(&b' ') {
            return Ok(text);
        }
    }
    Err(ended())
}

/// Reads `show route [all]`.
fn routes_in(text: &str) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    let mut prefix = String::new();
    for line in text.lines() {
        if let Some(route) = routes.last_mut()
            && line.starts_with('\t')
        {
            let line = line.trim();
            if let Some(hop) = line.strip_prefix("via ") {
                route
                    .next_hops
                    .extend(hop.split_whitespace().next().and_then(|address| address.parse::<IpAddr>().ok()));
            } else if let Some((key, value)) = line.split_once(": ") {
                route.attributes.insert(key.into(), value.into());
            }
            continue;
        }
        // `10.1.0.0/24  unicast [tor1 TIME from 10.0.0.1] * (100) [AS64513i]`; the prefix only on its first route.
        let Some((before, after)) = line.split_once('[') else { continue };
        let mut words = before.split_whitespace();
        if !line.starts_with(' ') {
            prefix = words.next().unwrap_or_default().into();
        }
        let protocol = after.split([' ', ']']).next().unwrap_or_default().into();
        routes.push(Route {
            prefix: prefix.clone(),
            next_hops: BTreeSet::new(),
            protocol,
            attributes: BTreeMap::new(),
        });
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_from_two_peers_reads_as_two_routes() {
        let text = "Table master4:\n\
            10.1.0.0/24          unicast [a 2024-01-01 12:00:00.000000] * (100) [AS64513i]\n\
            \tvia 10.0.0.11 on eth0\n\
            \tBGP.as_path: 64513\n\
            \x20                    unicast [b 2024-01-01 12:00:00.000000] (100) [AS64513i]\n\
            \tvia 10.0.0.12 on eth0\n";
        let routes = routes_in(text);
        let seen: Vec<_> = routes.iter().map(|route| (&*route.prefix, &*route.protocol)).collect();
        assert_eq!(seen, [("10.1.0.0/24", "a"), ("10.1.0.0/24", "b")]);
        assert_eq!(routes[0].attributes["BGP.as_path"], "64513");
        assert_eq!(routes[1].next_hops, BTreeSet::from(["10.0.0.12".parse().unwrap()]));
    }
}
