//! A node with a real systemd, whose unit is crier's own: a container in the node's network namespace.
//!
//! Its root is a copy of the one that `tests/systemd/run` makes, with the binary under test and the unit of this work tree. The
//! agent is started and restarted by `systemctl`, and what it stores is stored by systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::namespace::{Namespace, lossy};
use crate::process::Process;
use crate::wait::{Deadline, eventually, secs};

/// Where the container sees what it [shares](Namespace::boot).
const SHARED: &str = "/srv/";

/// The systemd of which release: `CRIER_SYSTEMD_SUITE`, else Debian 12.
fn suite() -> String {
    std::env::var("CRIER_SYSTEMD_SUITE").unwrap_or_else(|_| "bookworm".to_owned())
}

/// The root that `tests/systemd/run` made.
fn image() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("crier/systemd").join(suite())
}

/// Where the root is, or why no systemd can be booted.
pub(crate) fn look() -> Result<String, String> {
    // Beside the other tests of a full run the two cores are too busy for BFD through restarts.
    if std::env::var_os("CRIER_RACK_SYSTEMD").is_none() {
        return Err("part of make test-systemd: CRIER_RACK_SYSTEMD is not set".to_owned());
    }
    crate::need::program("systemd-nspawn").ok_or("no systemd-nspawn: apt-get install systemd-container")?;
    if !crate::need::may_set_groups() {
        return Err("a container root is booted by root alone".to_owned());
    }
    let image = image();
    if !image.join(".complete").exists() {
        return Err(format!("no root at {}: make test-systemd", image.display()));
    }
    Ok(image.display().to_string())
}

/// A booted container. Dropping it kills all that runs in it.
#[derive(Debug)]
pub struct Booted {
    container: Process,
    root: PathBuf,
    /// Paths here, and the same in the container.
    shares: Vec<(String, String)>,
}

impl Namespace {
    /// Boots a systemd in here and waits until it is up. The unit is installed and not started. The container sees the files and folders
    /// `shares`; a configuration names them by the paths that they have here.
    #[track_caller]
    pub fn boot(&self, configuration: &str, shares: &[&Path]) -> Booted {
        let root = self.rack().folder().join(format!("{}.root", self.name()));
        let copied = Command::new("cp").arg("-a").arg("--reflink=auto").arg(image()).arg(&root).status();
        assert!(copied.is_ok_and(|status| status.success()), "could not copy {}", image().display());
        let shared = |share: &&Path| {
            let name = share.file_name().expect("it has a name").to_string_lossy();
            (share.display().to_string(), format!("{SHARED}{name}"))
        };
        let shares: Vec<(String, String)> = shares.iter().map(shared).collect();
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/rack has a workspace");
        let unit = root.join("usr/lib/systemd/system/crier.service");
        let booted = Booted { container: self.container(&root, &shares), root, shares };
        fs::copy(workspace.join("systemd/crier.service"), unit).expect("the container's root is ours");
        booted.install(&crate::crier::binary());
        booted.configure(configuration);
        booted.is_up();
        booted.systemctl("daemon-reload");
        booted
    }

    /// Waits until the container has shut down by itself, and boots it again from the same root.
    #[track_caller]
    pub fn boot_again(&self, booted: &mut Booted, deadline: impl Into<Deadline>) {
        booted.container.wait(deadline);
        booted.container = self.container(&booted.root, &booted.shares);
        booted.is_up();
    }

    fn container(&self, root: &Path, shares: &[(String, String)]) -> Process {
        let mut command = Command::new("systemd-nspawn");
        command.arg("-D").arg(root).arg(format!("--network-namespace-path={}", self.path().display()));
        command.args(["--boot", "--register=no", "--keep-unit", "--console=pipe"]);
        // ARP is answered in the kernel by a program.
        command.args(["--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF", "--system-call-filter=bpf"]);
        command.args(shares.iter().map(|(here, there)| format!("--bind={here}:{there}")));
        self.start("systemd", command)
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // With the first process of a PID namespace all others end; nspawn, killed, would leave it running.
        for first in self.container.children().iter().filter_map(|pid| i32::try_from(*pid).ok()) {
            let _ = kill(Pid::from_raw(first), Signal::SIGKILL);
        }
    }
}

impl Booted {
    #[track_caller]
    fn is_up(&self) {
        eventually("systemd is up", secs(60), || {
            self.container.expect_running();
            let said = self.inside("systemctl is-system-running").map(|output| lossy(&output.stdout))?;
            if ["running", "degraded"].contains(&said.trim()) { Ok(()) } else { Err(said) }
        });
    }

    /// Puts a binary into the place of crier's, as a package does: the one that runs is not touched.
    #[track_caller]
    pub fn install(&self, binary: &Path) {
        let (aside, place) = (self.root.join("usr/bin/crier.new"), self.root.join("usr/bin/crier"));
        let put = fs::copy(binary, &aside).and_then(|_| fs::rename(&aside, &place));
        put.unwrap_or_else(|error| panic!("could not install {}: {error}", binary.display()));
    }

    /// Writes the configuration. It is not read before the unit is started or reloaded.
    #[track_caller]
    pub fn configure(&self, configuration: &str) {
        let folder = self.root.join("etc/crier");
        let place = |text: String, (here, there): &(String, String)| text.replace(here, there);
        let text = self.shares.iter().fold(configuration.to_owned(), place);
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("crier.toml"), text));
        written.expect("the container's root is ours");
    }

    /// A drop-in of the unit with these lines, in force at once.
    #[track_caller]
    pub fn drop_in(&self, lines: &str) {
        self.write("etc/systemd/system/crier.service.d/test.conf", lines);
        self.systemctl("daemon-reload");
    }

    /// Writes a file of the container.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        let file = self.root.join(path);
        let folder = file.parent().expect("it is in a folder");
        let written = fs::create_dir_all(folder).and_then(|()| fs::write(&file, text));
        written.expect("the container's root is ours");
    }

    /// Runs a command line, split at blanks, in the container, however it ends.
    pub fn inside(&self, line: &str) -> Result<Output, String> {
        let first = self.container.children().first().copied().ok_or("the container has no process yet")?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &first.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]).args(line.split_whitespace());
        command.env_remove("CRIER_SOCKET").output().map_err(|error| format!("{line}: {error}"))
    }

    /// What a command line prints in the container, however it ends.
    pub fn printed(&self, line: &str) -> Result<String, String> {
        self.inside(line).map(|output| lossy(&output.stdout))
    }

    /// `systemctl WORDS`; what it printed.
    ///
    /// # Panics
    /// When it fails, with the end of the journal.
    #[track_caller]
    pub fn systemctl(&self, words: &str) -> String {
        let output = self.inside(&format!("systemctl {words}")).unwrap_or_else(|why| panic!("{why}"));
        if !output.status.success() {
            panic!("systemctl {words}: {}{}", lossy(&output.stderr), self.journal_tail());
        }
        lossy(&output.stdout)
    }

    /// A property of the unit.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        self.systemctl(&format!("show crier -P {name}")).trim().to_owned()
    }

    /// Waits until a property of the unit is this.
    #[track_caller]
    pub fn wait_property(&self, name: &str, expected: &str, deadline: impl Into<Deadline>) {
        eventually(&format!("{name} of the unit is {expected}"), deadline, || {
            let there = self.property(name);
            if there == expected { Ok(()) } else { Err(format!("{there}; {}", self.journal_tail())) }
        });
    }

    /// All that the unit has logged.
    pub fn journal(&self) -> String {
        self.inside("journalctl --no-pager -o cat -u crier").map(|output| lossy(&output.stdout)).unwrap_or_default()
    }

    fn journal_tail(&self) -> String {
        let journal = self.journal();
        let lines: Vec<&str> = journal.lines().collect();
        format!("the journal ends:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// A reading verb with `--json`, read.
    pub fn json(&self, words: &str) -> Result<Value, String> {
        let output = self.inside(&format!("/usr/bin/crier {words} --json"))?;
        // 1: it answered, and shows a problem.
        if !matches!(output.status.code(), Some(0 | 1)) {
            return Err(format!("`crier {words} --json` ended with {}: {}", output.status, lossy(&output.stderr)));
        }
        serde_json::from_str(&lossy(&output.stdout)).map_err(|error| format!("`crier {words} --json`: {error}"))
    }

    /// SIGKILL to the agent.
    #[track_caller]
    pub fn kill(&self) {
        self.systemctl("kill --signal=KILL --kill-who=main crier");
    }
}
