//! GoBGP as a router: `gobgpd` with one session to crier, asked through the `gobgp` command.
//!
//! Pitfalls: it dials no sooner than five seconds after it started or lost a session, and somewhat randomly; its API
//! listens on a TCP port of all addresses, which in a namespace of its own disturbs nobody; `softresetin` goes over what
//! it has again and asks the peer for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;

use serde_json::Value;

use crate::bird::Session;
use crate::namespace::{Namespace, lossy};
use crate::need::program;
use crate::pairing::{Family, Pairing, ROUTER, Router};
use crate::process::Process;
use crate::wait::{eventually, secs};

/// Where it is, or why it cannot run.
pub(crate) fn look() -> Result<String, String> {
    program("gobgp").and(program("gobgpd")).ok_or_else(|| "no GoBGP: apt-get install gobgpd".into())
}

/// A running gobgpd.
#[derive(Debug)]
pub struct Gobgp {
    process: Process,
    namespace: Namespace,
    pairing: Pairing,
}

impl Namespace {
    /// Starts GoBGP in here and waits until its API answers.
    #[track_caller]
    pub fn gobgp(&self, pairing: &Pairing) -> Gobgp {
        let file = self.rack().write(&format!("{}.gobgpd.toml", self.name()), &configuration(pairing));
        let mut command = Command::new(program("gobgpd").unwrap_or_else(|| panic!("no GoBGP on this machine")));
        command.args(["--pprof-disable", "--log-plain", "--config-file"]).arg(file);
        let process = self.start("gobgpd", command);
        let gobgp = Gobgp { process, namespace: self.clone(), pairing: pairing.clone() };
        eventually("GoBGP answers", secs(20), || {
            gobgp.process.expect_running();
            gobgp.try_command("neighbor").and_then(|shown| {
                // Asked before it has read its configuration, it knows nobody.
                let known = shown.contains(&pairing.crier_address().to_string());
                if known { Ok(()) } else { Err(shown) }
            })
        });
        gobgp
    }
}

fn configuration(pairing: &Pairing) -> String {
    let (v4, v6) = ROUTER;
    let families: String = pairing
        .families
        .iter()
        .map(|family| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{}-unicast\"\n",
                family.word()
            )
        })
        .collect();
    let password = pairing.password.as_ref().map(|password| format!("auth-password = \"{password}\"\n"));
    let ttl_security =
        if pairing.ttl_security { "[neighbors.ttl-security.config]\nenabled = true\nttl-min = 255\n" } else { "" };
    format!(
        "[global.config]\nas = {}\nrouter-id = \"{v4}\"\nport = 179\nlocal-address-list = [\"{v4}\", \"{v6}\"]\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n{}\
         [neighbors.transport.config]\npassive-mode = {}\nlocal-address = \"{}\"\n\
         [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\nhold-time = {}\nkeepalive-interval = {}\n\
         {ttl_security}{families}",
        pairing.router_asn,
        pairing.crier_address(),
        pairing.crier_asn,
        password.unwrap_or_default(),
        !pairing.router_dials,
        pairing.router_address(),
        pairing.hold_time_secs,
        pairing.hold_time_secs / 3,
    )
}

impl Gobgp {
    /// Any command of `gobgp`.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn command(&self, words: &str) -> String {
        self.try_command(words).unwrap_or_else(|problem| {
            self.process.expect_running();
            panic!("{}: `gobgp {words}`: {problem}", self.process.name())
        })
    }

    fn try_command(&self, words: &str) -> Result<String, String> {
        let output = self.namespace.output(Command::new("gobgp").args(words.split_whitespace()));
        let shown = lossy(&output.stdout);
        if output.status.success() { Ok(shown) } else { Err(format!("{shown}{}", lossy(&output.stderr))) }
    }
}

impl Router for Gobgp {
    fn process(&self) -> &Process {
        &self.process
    }

    fn session(&self) -> Session {
        let text = self.command(&format!("-j neighbor {}", self.pairing.crier_address()));
        let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        // The numbers of its states are those of RFC 4271's MIB, from Idle on.
        let states = ["Unknown", "Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established"];
        let state = told["state"]["session_state"].as_u64().and_then(|number| usize::try_from(number).ok());
        let state = state.and_then(|number| states.get(number)).copied().unwrap_or("Unknown");
        let log = self.process.log();
        let times_established = log.lines().filter(|line| line.contains("Peer Up")).count();
        let last_error = log.lines().rfind(|line| line.contains("notification") || line.contains("expired"));
        Session {
            state: state.into(),
            since: told["timers"]["state"]["uptime"]["seconds"].to_string(),
            times_established,
            last_error: last_error.unwrap_or_default().into(),
        }
    }

    fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut table: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for family in [Family::V4, Family::V6] {
            // `*> 203.0.113.1/32  192.168.35.11  64513  00:00:01  [{Origin: i}]`; "Network not in table" if it has none.
            let shown = self.command(&format!("global rib -a {}", family.word()));
            for line in shown.lines().filter(|line| line.starts_with('*')) {
                let mut words = line.split_whitespace().skip(1);
                let (Some(prefix), Some(hop)) = (words.next(), words.next()) else { continue };
                if let Ok(hop) = hop.parse() {
                    table.entry(prefix.into()).or_default().insert(hop);
                }
            }
        }
        table
    }

    fn route_count(&self) -> usize {
        // `Destination: 1000, Path: 1000`
        let summary = self.command("global rib summary -a ipv4");
        let count = summary.rsplit_once("Path: ").and_then(|(_, count)| count.trim().parse().ok());
        count.unwrap_or_else(|| panic!("{}: this is no count: {summary}", self.process.name()))
    }

    fn ask_again(&self) {
        self.command(&format!("neighbor {} softresetin -a ipv4", self.pairing.crier_address()));
    }

    fn shut_down(&self, text: &str) -> String {
        let neighbor = self.pairing.crier_address().to_string();
        let mut command = Command::new("gobgp");
        let output = self.namespace.output(command.args(["neighbor", &neighbor, "shutdown", "--reason", text]));
        assert!(output.status.success(), "{}: {}", self.process.name(), lossy(&output.stderr));
        text.to_owned()
    }
}
