//! Network namespaces that are held by a file descriptor and by nothing else.
//!
//! No name is bound under /run/netns and nothing is moved out of the host's namespace, so there is nothing to clean up:
//! when the last [`Namespace`] is dropped, or this process dies by whatever cause, the kernel removes the namespace with
//! all that is in it. To look inside while a test runs: `nsenter --net=PATH` with [`Namespace::path`].

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

use crate::rack::Shared;

/// One network namespace: a host, a switch, a pod. Clones are the same namespace.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    handle: File,
    rack: Arc<Shared>,
}

/// Set in every new namespace, before any link exists.
const SYSCTLS: &[(&str, &str)] = &[
    // Addresses are usable at once: duplicate address detection would hold each IPv6 address back for a second. A test
    // of DAD itself switches it on again.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv4/ping_group_range", "0 0"),
];

impl Namespace {
    pub(crate) fn create(name: &str, rack: Arc<Shared>) -> Namespace {
        let handle = std::thread::scope(|scope| scope.spawn(create_in_this_thread).join())
            .expect("the thread that makes a namespace does not panic")
            .unwrap_or_else(|error| panic!("could not make the network namespace {name}: {error}"));
        // Out of the way of what a process is started with: sd_listen_fds(3) has its descriptors at 3 and above.
        let handle = rustix::io::fcntl_dupfd_cloexec(&handle, 300).map_or(handle, File::from);
        let namespace = Namespace { inner: Arc::new(Inner { name: name.into(), handle, rack }) };
        for (key, value) in SYSCTLS {
            namespace.sysctl(key, value);
        }
        namespace.ip("link set lo up");
        namespace
    }

    /// The name its maker gave it; it stands in log files and messages and need not be unique.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// A path that opens this namespace for as long as this process lives (`nsenter --net=…`).
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.inner.handle.as_raw_fd()).into()
    }

    pub(crate) fn rack(&self) -> &Arc<Shared> {
        &self.inner.rack
    }

    /// Runs `job` in a thread of its own inside this namespace: sockets that it opens belong here, for ever. A panic in
    /// it goes on in the caller.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter();
                job()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`run`](Self::run) for a thread that goes on by itself.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        what: &str,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = self.clone();
        std::thread::Builder::new()
            .name(format!("{what}@{}", self.name()))
            .spawn(move || {
                namespace.enter();
                // Not held by the thread: sockets opened here keep the namespace for as long as they need it.
                drop(namespace);
                job()
            })
            .unwrap_or_else(|error| panic!("could not start a thread: {error}"))
    }

    /// Moves the calling thread here. Private: a thread that stays must have nothing else to do.
    fn enter(&self) {
        setns(self.inner.handle.as_fd(), CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("could not enter the namespace {}: {error}", self.name()));
    }

    /// Makes `command` run inside this namespace once it is started.
    pub fn place(&self, command: &mut Command) {
        let inner = self.inner.clone();
        // SAFETY: between fork and exec only setns is called, a bare system call that takes no lock and no memory; the
        // closure owns its share of the descriptor, so that it is open.
        unsafe {
            command.pre_exec(move || Ok(setns(inner.handle.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
    }

    /// Runs a command to its end in here and returns all of it.
    ///
    /// # Panics
    /// When it cannot be started. How it ended is for the caller to judge.
    #[track_caller]
    pub fn output(&self, command: &mut Command) -> Output {
        self.place(command);
        command.output().unwrap_or_else(|error| panic!("{}: could not start {command:?}: {error}", self.name()))
    }

    /// Runs a command line, split at blanks, to its end in here, and returns what it wrote to standard output.
    ///
    /// # Panics
    /// When it does not end with success, with what it wrote to standard error.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a command line names a command"));
        let output = self.output(command.args(words));
        if !output.status.success() {
            panic!("{}: `{line}` ended with {}: {}", self.name(), output.status, lossy(&output.stderr).trim());
        }
        lossy(&output.stdout)
    }

    /// `ip WORDS` in here; panics as [`sh`](Self::sh) does.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        self.sh(&format!("ip {words}"))
    }

    /// `ip -j WORDS` in here, read.
    #[track_caller]
    pub fn ip_json(&self, words: &str) -> serde_json::Value {
        let text = self.ip(&format!("-j {words}"));
        // `ip -j` prints nothing at all where there is nothing to list.
        if text.trim().is_empty() {
            return serde_json::Value::Array(Vec::new());
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("`ip -j {words}` printed no JSON: {error}\n{text}"))
    }

    /// Writes a key below /proc/sys, as in `sysctl("net/ipv4/ip_forward", "1")`.
    ///
    /// # Panics
    /// When the kernel does not take it. A key of a protocol that this kernel does not have (no IPv6) is passed over.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{key}");
        match self.run(|| fs::write(&path, value)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("{}: could not write {value} to {path}: {error}", self.name())
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.path().display())
    }
}

/// The calling thread gets a network namespace of its own, returned as an open file. The thread must end afterwards.
fn create_in_this_thread() -> io::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    File::open("/proc/thread-self/ns/net")
}

pub(crate) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
