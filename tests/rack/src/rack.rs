//! One rack: a name, a temporary folder, and the namespaces made in it. Everything else hangs on a namespace.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::folder::{self, Folder};
use crate::namespace::Namespace;
use crate::need::{self, Need};
use crate::process::{self, read_log, tail};

/// A rack that stands. Declare it first: what is declared after it is dropped before it.
#[derive(Clone)]
pub struct Rack {
    shared: Arc<Shared>,
}

/// What a rack's namespaces and processes share; it goes when the last of them has gone.
pub(crate) struct Shared {
    name: String,
    folder: Folder,
    logs: Mutex<Vec<PathBuf>>,
}

impl Rack {
    /// The rack for the test that calls this, named [as the test is](test_name), or `None` when this machine misses one
    /// of `needs`: then the test is over, after a line `SKIPPED name: why` on standard error and in the file that
    /// `CRIER_RACK_SKIPS` names. Namespaces are always needed and need not be listed.
    ///
    /// # Panics
    /// When something is missing and `CRIER_RACK_STRICT` is set, as where everything is known to be installed.
    #[track_caller]
    pub fn for_test(needs: &[Need]) -> Option<Rack> {
        let name = test_name();
        let missing: Vec<String> =
            [Need::Namespaces].iter().chain(needs).filter_map(|need| need.missing().err()).collect();
        if missing.is_empty() {
            return Some(Rack::new(&name));
        }
        need::skip(&name, &missing.join("; "));
        None
    }

    /// A rack without asking what the machine has.
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[track_caller]
    pub fn new(name: &str) -> Rack {
        let folder = Folder::create().unwrap_or_else(|error| panic!("could not make the rack's folder: {error}"));
        Rack { shared: Arc::new(Shared { name: name.into(), folder, logs: Mutex::default() }) }
    }

    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The temporary folder: sockets, configurations and logs of this rack. Removed with it unless `CRIER_RACK_KEEP` is
    /// set.
    pub fn folder(&self) -> &Path {
        self.shared.folder()
    }

    /// Writes a file of that name into the rack's folder and returns its path.
    #[track_caller]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        self.shared.write(name, text)
    }

    /// A new network namespace with only `lo` in it, up. It forwards nothing yet.
    #[track_caller]
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::create(name, self.shared.clone())
    }

    /// A [namespace](Self::namespace) that forwards packets of both families: a node or a router.
    #[track_caller]
    pub fn router(&self, name: &str) -> Namespace {
        let namespace = self.namespace(name);
        namespace.forward();
        namespace
    }
}

impl Shared {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder of that name in the rack's folder, made if it is not there.
    pub fn subfolder(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("could not make {}: {error}", path.display()));
        path
    }

    /// Writes a file of that name into the rack's folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("could not write {}: {error}", path.display()));
        path
    }

    /// The log file for the process of that name, shown at the end of a test that fails.
    pub fn log_file(&self, process: &str) -> PathBuf {
        let path = self.folder().join(format!("{process}.log"));
        let mut logs = self.logs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !logs.contains(&path) {
            logs.push(path.clone());
        }
        path
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let logs = self.logs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for log in &*logs {
            let name = log.file_stem().unwrap_or_default().display();
            eprintln!("---- rack {}: the end of {name}'s log\n{}", self.name, tail(&read_log(log), 15));
        }
    }
}

/// The name of the running test: the test runner gives each test a thread of its own, named as the test is.
///
/// # Panics
/// On another thread, whose name would tell nobody which test is meant.
#[track_caller]
pub fn test_name() -> String {
    let thread = std::thread::current();
    let name = thread.name().and_then(|path| path.rsplit("::").next()).filter(|name| *name != "main");
    name.expect("called on the thread that the test runner made for a test").to_owned()
}

/// From now on SIGINT, SIGTERM and SIGHUP end this process after it has removed its racks' folders; its processes and
/// namespaces go with it. Call it in `main` before the first rack or thread. Not for tests, whose runner decides.
pub fn clean_up_on_interrupt() {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Blocked here and so in all later threads; the processes that they start have no signal blocked.
    signals.thread_block().expect("a valid signal set can be blocked");
    std::thread::spawn(move || {
        let signal = signals.wait().expect("a valid signal set can be waited for");
        process::kill_all();
        folder::remove_all();
        eprintln!("rack: {signal}: removed the rack");
        std::process::exit(128 + signal as i32);
    });
}

impl std::fmt::Debug for Rack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rack {} in {}", self.name(), self.folder().display())
    }
}
