//! OpenBGPD as a router: `bgpd` of the portable release with one session to crier, asked through `bgpctl`.
//!
//! Pitfalls: Debian's FRR calls its daemon bgpd too and keeps it in a folder of its own, so the one in the PATH is
//! OpenBGPD's; its three processes drop to a user and a chroot under /run that must exist, one empty folder for all;
//! its configuration may be readable by nobody else; a route is valid only where its next hop is on a link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bird::Session;
use crate::namespace::{Namespace, lossy};
use crate::need::{may_set_groups, program};
use crate::pairing::{Family, Pairing, ROUTER, Router};
use crate::process::Process;
use crate::wait::{eventually, secs};

/// The home of its user, to which it changes its root.
const CHROOT: &str = "/run/openbgpd";

/// Where it is, or why it cannot run.
pub(crate) fn look() -> Result<String, String> {
    // Only OpenBGPD brings a bgpctl.
    program("bgpctl").and(program("bgpd")).ok_or("no OpenBGPD: apt-get install openbgpd")?;
    if !may_set_groups() {
        return Err("OpenBGPD drops to another user, which a user namespace forbids".into());
    }
    Ok("/usr/sbin/bgpd".into())
}

/// A running bgpd of OpenBGPD.
#[derive(Debug)]
pub struct Openbgpd {
    process: Process,
    namespace: Namespace,
    socket: PathBuf,
    pairing: Pairing,
}

impl Namespace {
    /// Starts OpenBGPD in here and waits until its control socket answers.
    #[track_caller]
    pub fn openbgpd(&self, pairing: &Pairing) -> Openbgpd {
        let made = std::fs::create_dir_all(CHROOT);
        made.unwrap_or_else(|error| panic!("could not make {CHROOT}: {error}"));
        let socket = self.rack().folder().join(format!("{}.openbgpd.sock", self.name()));
        let file = self.rack().write(&format!("{}.openbgpd.conf", self.name()), &configuration(pairing, &socket));
        let closed = std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600));
        closed.unwrap_or_else(|error| panic!("could not close {}: {error}", file.display()));
        let mut command = Command::new("/usr/sbin/bgpd");
        command.args(["-d", "-v", "-f"]).arg(file);
        let process = self.start("openbgpd", command);
        let bgpd = Openbgpd { process, namespace: self.clone(), socket, pairing: pairing.clone() };
        eventually("OpenBGPD answers on its control socket", secs(10), || {
            bgpd.process.expect_running();
            let shown = bgpd.try_command("show")?;
            let known = shown.contains("crier");
            if known { Ok(()) } else { Err(shown) }
        });
        bgpd
    }
}

fn configuration(pairing: &Pairing, socket: &Path) -> String {
    let (v4, v6) = ROUTER;
    let families: String =
        pairing.families.iter().map(|family| format!("  announce {} unicast\n", family.as_openbgpd())).collect();
    let unwanted = if pairing.carries(Family::V4) { "" } else { "  announce IPv4 none\n" };
    let password = pairing.password.as_ref().map(|password| format!("  tcp md5sig password {password}\n"));
    format!(
        "AS {asn}\nrouter-id {v4}\nfib-update no\nlisten on {v4}\nlisten on {v6}\nsocket \"{}\"\n\
         neighbor {} {{\n  descr crier\n  remote-as {}\n  local-address {}\n  holdtime {}\n{families}{unwanted}{}{}{}}}\n\
         allow from any\ndeny to any\n",
        socket.display(),
        pairing.crier_address(),
        pairing.crier_asn,
        pairing.router_address(),
        pairing.hold_time_secs,
        password.unwrap_or_default(),
        if pairing.ttl_security { "  ttl-security yes\n" } else { "" },
        if pairing.router_dials { "" } else { "  passive\n" },
        asn = pairing.router_asn,
    )
}

impl Family {
    fn as_openbgpd(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

impl Openbgpd {
    /// Any command of `bgpctl`.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn command(&self, words: &str) -> String {
        self.try_command(words).unwrap_or_else(|problem| {
            self.process.expect_running();
            panic!("{}: `bgpctl {words}`: {problem}", self.process.name())
        })
    }

    fn try_command(&self, words: &str) -> Result<String, String> {
        let mut command = Command::new("bgpctl");
        let output = self.namespace.output(command.arg("-s").arg(&self.socket).args(words.split_whitespace()));
        let shown = lossy(&output.stdout);
        if output.status.success() { Ok(shown) } else { Err(format!("{shown}{}", lossy(&output.stderr))) }
    }
}

impl Router for Openbgpd {
    fn process(&self) -> &Process {
        &self.process
    }

    fn session(&self) -> Session {
        let shown = self.command(&format!("show neighbor {}", self.pairing.crier_address()));
        // `  BGP state = Established, up for 00:00:01`
        let field = |key: &str| shown.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default();
        let (state, since) = field("BGP state = ").split_once(", ").unwrap_or((field("BGP state = "), ""));
        let log = self.process.log();
        let times_established = log.lines().filter(|line| line.contains("-> Established")).count();
        Session {
            state: state.into(),
            since: since.into(),
            times_established,
            last_error: field("Last received error: ").into(),
        }
    }

    fn routes(&self) -> BTreeMap<String, BTreeSet<IpAddr>> {
        let mut table: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
        // `*>    N 203.0.113.1/32  192.168.35.11  100  0 64513 i`, the flags in up to three words.
        for line in self.command("show rib").lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| word.contains('/')) else { continue };
            if let (Some(prefix), Some(Ok(hop))) = (words.get(at), words.get(at + 1).map(|hop| hop.parse())) {
                table.entry((*prefix).into()).or_default().insert(hop);
            }
        }
        table
    }

    fn route_count(&self) -> usize {
        let shown = self.command("show rib memory");
        // `    1000 IPv4 unicast network entries using 39.1K of memory`
        let line = shown.lines().find(|line| line.contains("IPv4 unicast network entries"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    fn ask_again(&self) {
        self.command(&format!("neighbor {} refresh", self.pairing.crier_address()));
    }

    fn shut_down(&self, text: &str) -> String {
        let neighbor = self.pairing.crier_address().to_string();
        let mut command = Command::new("bgpctl");
        let output =
            self.namespace.output(command.arg("-s").arg(&self.socket).args(["neighbor", &neighbor, "down", text]));
        assert!(output.status.success(), "{}: {}", self.process.name(), lossy(&output.stderr));
        text.to_owned()
    }

    fn words(&self) -> String {
        let shown = self.try_command(&format!("show neighbor {}", self.pairing.crier_address()));
        format!("{}\n{}", self.process.log(), shown.unwrap_or_default())
    }
}
