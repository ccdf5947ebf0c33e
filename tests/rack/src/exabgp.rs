//! ExaBGP as a router: one session to crier, and a helper process of ExaBGP's own through which commands go in and what
//! crier said comes out, one JSON text a line. It has no table: what it has been told is added up here.
//!
//! Pitfalls: it is an asker by nature and listens only if `exabgp.tcp.bind` says where; it gives up its user unless told
//! otherwise; while it reads 100,000 routes it answers nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::bird::Session;
use crate::namespace::Namespace;
use crate::need::program;
use crate::pairing::{Family, Pairing, ROUTER, Router};
use crate::process::{Process, read_log};
use crate::wait::{eventually, secs};

/// Where it is, or why it cannot run.
pub(crate) fn look() -> Result<String, String> {
    program("exabgp").ok_or_else(|| "no ExaBGP: apt-get install exabgp".into())
}

/// A running exabgp.
#[derive(Debug)]
pub struct Exabgp {
    process: Process,
    /// What it told its helper.
    told: PathBuf,
    /// Where its helper reads commands.
    commands: PathBuf,
    neighbor: IpAddr,
}

impl Namespace {
    /// Starts ExaBGP in here and waits until it has started its helper.
    #[track_caller]
    pub fn exabgp(&self, pairing: &Pairing) -> Exabgp {
        let rack = self.rack();
        let [told, commands] =
            ["told", "commands"].map(|it| rack.folder().join(format!("{}.exabgp.{it}", self.name())));
        // Of the one that ran here before.
        let _ = std::fs::remove_file(&told);
        if !commands.exists() {
            self.sh(&format!("mkfifo {}", commands.display()));
        }
        // Opened for both directions, so that the reader never sees an end when a writer has gone.
        let helper = rack.write(
            &format!("{}.exabgp.helper", self.name()),
            &format!("exec 3<>{}\ncat <&3 &\nexec cat >{}\n", commands.display(), told.display()),
        );
        let text = configuration(pairing, &format!("/bin/sh {}", helper.display()));
        let file = rack.write(&format!("{}.exabgp.conf", self.name()), &text);
        let mut command = Command::new(program("exabgp").unwrap_or_else(|| panic!("no ExaBGP on this machine")));
        command.arg(file);
        let (v4, v6) = ROUTER;
        for (key, value) in [
            ("exabgp.daemon.user", "root"),
            ("exabgp.daemon.drop", "false"),
            ("exabgp.api.cli", "false"),
            ("exabgp.api.ack", "false"),
            ("exabgp.tcp.bind", &format!("{v4} {v6}")),
        ] {
            command.env(key, value);
        }
        let process = self.start("exabgp", command);
        eventually("ExaBGP has started its helper", secs(20), || {
            process.expect_running();
            if told.exists() { Ok(()) } else { Err(process.log_tail(10)) }
        });
        Exabgp { process, told, commands, neighbor: pairing.crier_address() }
    }
}

fn configuration(pairing: &Pairing, helper: &str) -> String {
    let families: String = pairing.families.iter().map(|family| format!(" {} unicast;", family.word())).collect();
    let password = pairing.password.as_ref().map(|password| format!("  md5-password '{password}';\n"));
    format!(
        "process rack {{ run {helper}; encoder json; }}\n\
         neighbor {} {{\n  router-id {};\n  local-address {};\n  local-as {};\n  peer-as {};\n  hold-time {};\n\
         {}{}{}  capability {{ asn4 enable; route-refresh enable; graceful-restart disable; }}\n\
         family {{{families} }}\n  api {{ processes [ rack ]; neighbor-changes; \
         receive {{ parsed; update; }} }}\n}}\n",
        pairing.crier_address(),
        ROUTER.0,
        pairing.router_address(),
        pairing.router_asn,
        pairing.crier_asn,
        pairing.hold_time_secs,
        if pairing.router_dials { "" } else { "  passive true;\n" },
        match (pairing.ttl_security, pairing.transport) {
            (false, _) => "",
            (true, Family::V4) => "  outgoing-ttl 255;\n  incoming-ttl 255;\n",
            // Of what it accepts it can set the IPv4 kind only.
            (true, Family::V6) => "  outgoing-ttl 255;\n",
        },
        password.unwrap_or_default(),
    )
}

impl Exabgp {
    /// Any command of its API, for all its neighbors.
    #[track_caller]
    pub fn command(&self, command: &str) {
        let pipe = File::options().append(true).open(&self.commands);
        let written = pipe.and_then(|mut pipe| pipe.write_all(format!("{command}\n").as_bytes()));
        written.unwrap_or_else(|error| panic!("could not write to {}: {error}", self.commands.display()));
    }

    /// Everything that it told its helper, in order.
    fn told(&self) -> Vec<Value> {
        read_log(&self.told).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Router for Exabgp {
    fn process(&self) -> &Process {
        &self.process
    }

    fn session(&self) -> Session {
        let told = self.told();
        let states: Vec<&Value> = told.iter().filter(|it| it["type"] == "state").collect();
        let of = |it: &Value, key: &str| it["neighbor"][key].as_str().unwrap_or_default().to_owned();
        let last = states.last();
        let state = match last.map(|it| of(it, "state")).as_deref() {
            Some("up") => "Established",
            Some("connected") => "OpenSent",
            Some(_) | None => "Idle",
        };
        Session {
            state: state.into(),
            since: last.map(|it| it["time"].to_string()).unwrap_or_default(),
            times_established: states.iter().filter(|it| of(it, "state") == "up").count(),
            last_error: states.iter().rev().map(|it| of(it, "reason")).find(|it| !it.is_empty()).unwrap_or_default(),
        }
    }

    fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut table: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        for told in self.told() {
            if told["type"] == "state" && told["neighbor"]["state"] == "down" {
                table.clear();
            }
            let update = &told["neighbor"]["message"]["update"];
            let prefixes = |list: &Value| -> Vec<String> {
                let list = list.as_array().into_iter().flatten();
                list.filter_map(|it| it["nlri"].as_str().or(it.as_str())).map(str::to_owned).collect()
            };
            for withdrawn in update["withdraw"].as_object().into_iter().flatten() {
                for prefix in prefixes(withdrawn.1) {
                    table.remove(&prefix);
                }
            }
            for (_, hops) in update["announce"].as_object().into_iter().flatten() {
                let hops = hops.as_object().into_iter().flatten();
                let mut hops: Vec<(IpAddr, &Value)> =
                    hops.filter_map(|(hop, list)| Some((hop.parse().ok()?, list))).collect();
                // A route with two next hops is told twice; the global one shall be the last.
                hops.sort_by_key(|(hop, _)| !matches!(hop, IpAddr::V6(v6) if v6.is_unicast_link_local()));
                for (hop, list) in hops {
                    table.extend(prefixes(list).into_iter().map(|prefix| (prefix, BTreeSet::from([hop]))));
                }
            }
        }
        table
    }

    fn route_count(&self) -> usize {
        // What was announced, as long as nothing is announced twice or withdrawn.
        read_log(&self.told).matches("\"nlri\"").count()
    }

    fn ask_again(&self) {
        self.command("announce route-refresh ipv4 unicast");
    }

    fn shut_down(&self, _text: &str) -> String {
        // Its command takes the subcode of the Cease only; the subcode's name is the text that it sends.
        self.command(&format!("neighbor {} teardown 2", self.neighbor));
        "Administrative Shutdown".to_owned()
    }

    fn words(&self) -> String {
        format!("{}\n{}", self.process.log(), read_log(&self.told))
    }
}
