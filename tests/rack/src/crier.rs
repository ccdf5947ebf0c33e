//! Nodes that run the real `crier` binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::namespace::{Namespace, lossy};
use crate::process::{Process, mount_over};
use crate::systemd::{Listener, Unit};
use crate::wait::{Deadline, eventually, secs};

/// The binary under test: `CRIER_BIN`, else what `make build` leaves.
pub fn binary() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/rack has a workspace");
    std::env::var_os("CRIER_BIN").map_or_else(|| workspace.join("target/dist/crier"), PathBuf::from)
}

/// Where the kernel names its boot.
pub const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One running `crier run`. Dropping it kills it.
#[derive(Debug)]
pub struct Crier {
    process: Process,
    namespace: Namespace,
    node: String,
    file: PathBuf,
    socket: PathBuf,
    unit: Unit,
    /// It hears while it is here.
    _listener: Listener,
}

impl Namespace {
    /// Starts `crier run` in here as node `node`, with `configuration` (TOML) and, unless the text says otherwise, its
    /// API socket and its state folder in the rack's folder. The state folder is the same for the same namespace and
    /// node, so that starting again is a restart. Returns at once; see [`Crier::wait_ready`].
    #[track_caller]
    pub fn crier(&self, node: &str, configuration: &str) -> Crier {
        self.crier_with(node, configuration, |_| {})
    }

    /// Like [`crier`](Self::crier), with a chance to add arguments and environment to the command first.
    #[track_caller]
    pub fn crier_with(&self, node: &str, configuration: &str, change: impl FnOnce(&mut Command)) -> Crier {
        self.crier_of(Unit::without_store(), node, configuration, change)
    }

    /// Like [`crier`](Self::crier) as a unit of the service manager that the harness plays, which keeps what the agent stores:
    /// [`Crier::restart`] and [`Crier::crash`] give it to the next start.
    #[track_caller]
    pub fn crier_as_unit(&self, node: &str, configuration: &str) -> Crier {
        self.crier_in(&Unit::default(), node, configuration)
    }

    #[track_caller]
    fn crier_in(&self, unit: &Unit, node: &str, configuration: &str) -> Crier {
        let folder = self.crier_folder(node);
        Unit::set_job(&folder, None);
        self.crier_of(unit.clone(), node, configuration, |command| unit.start(command, &folder))
    }

    fn crier_folder(&self, node: &str) -> PathBuf {
        self.rack().subfolder(&format!("{}.crier.{node}", self.name()))
    }

    #[track_caller]
    fn crier_of(&self, unit: Unit, node: &str, configuration: &str, change: impl FnOnce(&mut Command)) -> Crier {
        let folder = self.crier_folder(node);
        let socket = folder.join("crier.sock");
        let file = folder.join("crier.toml");
        std::fs::write(&file, complete(configuration, &socket))
            .unwrap_or_else(|error| panic!("could not write {}: {error}", file.display()));
        let listener = Listener::open(&folder.join("notify"), &unit)
            .unwrap_or_else(|error| panic!("could not listen for readiness: {error}"));
        let mut command = Command::new(binary());
        command.arg("run").arg("--config").arg(&file).args(["--node", node]);
        command.env("NOTIFY_SOCKET", listener.path()).env_remove("CRIER_SOCKET");
        change(&mut command);
        let process = self.start(&format!("crier.{node}"), command);
        Crier { process, namespace: self.clone(), node: node.into(), file, socket, unit, _listener: listener }
    }
}

impl Namespace {
    /// Starts `crier run` like [`crier`](Namespace::crier) on a node that has rebooted since: in the eyes of the agent the
    /// kernel has another boot id, one for each `boot`.
    #[track_caller]
    pub fn crier_in_boot(&self, boot: u8, node: &str, configuration: &str) -> Crier {
        let file =
            self.rack().write(&format!("boot-{boot}"), &format!("00000000-0000-4000-8000-0000000000{boot:02x}\n"));
        self.crier_with(node, configuration, |command| mount_over(command, file, BOOT_ID.into()))
    }
}

impl Crier {
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its main configuration file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// A configuration as its own file has it: with its API socket and its state folder unless the text says otherwise.
    pub fn complete(&self, configuration: &str) -> String {
        complete(configuration, &self.socket)
    }

    /// Writes another configuration into its file, by renaming as editors do. It is not read before a reload.
    #[track_caller]
    pub fn write_configuration(&self, configuration: &str) {
        let aside = self.file.with_extension("aside");
        let written =
            std::fs::write(&aside, self.complete(configuration)).and_then(|()| std::fs::rename(&aside, &self.file));
        written.unwrap_or_else(|error| panic!("could not write {}: {error}", self.file.display()));
    }

    /// SIGHUP, and waits as systemd does for a unit of `Type=notify-reload`; returns what it then said.
    #[track_caller]
    pub fn reload(&self) -> String {
        let before = self.unit.notices().len();
        self.process.signal(Signal::SIGHUP);
        eventually(&format!("{} has reloaded", self.process.name()), Deadline::after(Duration::from_secs(10)), || {
            let notices = self.unit.notices();
            let since = &notices[before.min(notices.len())..];
            let begun = since.iter().position(|notice| {
                notice.lines().any(|line| line == "RELOADING=1") && notice.contains("MONOTONIC_USEC=")
            });
            let ready = |notice: &&String| notice.lines().any(|line| line == "READY=1");
            begun.and_then(|begun| since[begun..].iter().find(ready).cloned()).ok_or_else(|| format!("{since:?}"))
        })
    }

    /// Its API socket, unless the configuration names another.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether it has sent `READY=1` to the service manager, which the harness plays.
    pub fn is_ready(&self) -> bool {
        self.unit.notices().iter().any(|notice| notice.lines().any(|line| line == "READY=1"))
    }

    /// Waits until it is ready; fails at once with its log if it ends instead.
    #[track_caller]
    pub fn wait_ready(&self, deadline: impl Into<Deadline>) -> &Crier {
        eventually(&format!("{} sends READY=1", self.process.name()), deadline, || {
            if self.is_ready() {
                return Ok(());
            }
            self.process.expect_running();
            Err(format!("notices {:?}; its log ends:\n{}", self.unit.notices(), self.process.log_tail(30)))
        });
        self
    }

    /// Everything it has told the service manager, one text for each message (`READY=1\nSTATUS=…`).
    pub fn notices(&self) -> Vec<String> {
        self.unit.notices()
    }

    /// Any verb against this agent: `crier WORDS` with CRIER_SOCKET, run in its namespace, however it ends.
    #[track_caller]
    pub fn verb(&self, words: &str) -> Output {
        let mut command = Command::new(binary());
        self.namespace.output(command.env("CRIER_SOCKET", &self.socket).args(words.split_whitespace()))
    }

    /// A reading verb with `--json`, read.
    ///
    /// # Panics
    /// When it does not end with 0 or 1, or prints no JSON.
    #[track_caller]
    pub fn json(&self, words: &str) -> Value {
        self.try_json(words).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Like [`json`](Self::json) for pollers, which look again.
    pub fn try_json(&self, words: &str) -> Result<Value, String> {
        let output = self.verb(&format!("{words} --json"));
        let (node, shown) = (&self.node, lossy(&output.stdout));
        // 1: it answered, and shows a problem.
        if !matches!(output.status.code(), Some(0 | 1)) {
            let error = lossy(&output.stderr);
            return Err(format!("{node}: `crier {words} --json` ended with {}: {error}", output.status));
        }
        serde_json::from_str(&shown).map_err(|error| format!("{node}: `crier {words} --json`: {error}\n{shown}"))
    }

    /// `crier status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.json("status")
    }

    /// SIGTERM, and waits: a clean leave.
    #[track_caller]
    pub fn stop(&self, deadline: impl Into<Deadline>) -> std::process::ExitStatus {
        self.process.stop(deadline)
    }

    /// `systemctl restart` of an agent that was started [as a unit](Namespace::crier_as_unit), with another configuration: the one is
    /// told to end, and the next begins with what it stored. Returns at once; see [`wait_ready`](Self::wait_ready).
    #[track_caller]
    pub fn restart(&mut self, configuration: &str) {
        self.end_with_job("restart");
        self.start_again(configuration);
    }

    /// The first half of [`restart`](Self::restart): the agent has ended, and what it stored is there.
    #[track_caller]
    pub fn end_with_job(&self, job: &str) {
        Unit::set_job(&self.namespace.crier_folder(&self.node), Some(job));
        self.stop(secs(10));
    }

    /// The second half of [`restart`](Self::restart), also after a [`kill`](Self::kill).
    #[track_caller]
    pub fn start_again(&mut self, configuration: &str) {
        let (namespace, node, unit) = (self.namespace.clone(), self.node.clone(), self.unit.clone());
        *self = namespace.crier_in(&unit, &node, configuration);
    }

    /// What the service manager knows of it.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// SIGKILL, and waits.
    #[track_caller]
    pub fn kill(&self) {
        self.process.kill();
    }
}

fn complete(configuration: &str, socket: &Path) -> String {
    let text = with_default(configuration, "api", "socket", socket);
    with_default(&text, "state", "folder", &socket.with_file_name("state"))
}

/// Adds `key = "path"` to a TOML text's table of that name, which is added if there is none, unless the key is there.
fn with_default(toml: &str, table: &str, key: &str, path: &Path) -> String {
    let header = format!("[{table}]");
    let line = format!("{key} = \"{}\"", path.display());
    let Some((before, after)) = toml.split_once(&header) else { return format!("{toml}\n{header}\n{line}\n") };
    let is_key = |line: &str| line.split_once('=').is_some_and(|(word, _)| word.trim() == key);
    if after.lines().take_while(|line| !line.trim_start().starts_with('[')).any(is_key) {
        return toml.to_owned();
    }
    format!("{before}{header}\n{line}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_added_to_its_table_once() {
        let path = Path::new("/x");
        let add = |toml: &str| with_default(toml, "api", "socket", path);
        assert_eq!(add("[bgp]\nasn = 1"), "[bgp]\nasn = 1\n[api]\nsocket = \"/x\"\n");
        assert_eq!(add("[api]\nlisten = \"\"\n[bgp]"), "[api]\nsocket = \"/x\"\nlisten = \"\"\n[bgp]");
        assert_eq!(add("[api]\nsocket = \"/y\"\n"), "[api]\nsocket = \"/y\"\n", "the test's own stands");
        assert_eq!(add("[api]\n[x]\nsocket = 1\n"), "[api]\nsocket = \"/x\"\n[x]\nsocket = 1\n", "another table's");
    }
}
