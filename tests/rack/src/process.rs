//! Processes in namespaces: started with a log file each, watched, signalled, and never outliving the test.
//!
//! All are started by one thread of the test process that lives as long as the process does, because the kernel sends
//! the parent-death signal when the starting *thread* ends. So a test that is killed, even by SIGKILL, takes its
//! processes with it; a test that ends or panics kills them on drop.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::sys::{prctl, ptrace};
use nix::unistd::{Pid, getppid};

use crate::namespace::{Namespace, lossy};
use crate::wait::{Deadline, eventually, secs};

/// The processes of all racks that were not seen to end: each is our child and not yet waited for, so its id is its own.
static RUNNING: Mutex<BTreeSet<Pid>> = Mutex::new(BTreeSet::new());

/// How many lines of a log a panic message shows.
const TAIL: usize = 30;

/// A running (or ended) process. Dropping it kills it, with the processes that it started itself.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Namespace {
    /// Starts `command` in here. Standard output and error go to the rack's log file `HOST.NAME.log`; a process started
    /// again under the same name appends to it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(&self, name: &str, command: Command) -> Process {
        let full_name = format!("{}.{name}", self.name());
        let log = self.rack().log_file(&full_name);
        let mut command = command;
        let shown = format!("{command:?}");
        let (out, error) = open_log(&log).unwrap_or_else(|error| panic!("could not open {}: {error}", log.display()));
        command.stdin(Stdio::null()).stdout(out).stderr(error).process_group(0);
        self.place(&mut command);
        die_with_this_process(&mut command);
        let child = launch(command).unwrap_or_else(|error| panic!("{full_name}: could not start {shown}: {error}"));
        let pid = Pid::from_raw(child.id().cast_signed());
        running().insert(pid);
        Process { name: full_name, pid, log, child: Mutex::new(child) }
    }
}

impl Process {
    /// `HOST.NAME`, as in messages and in the log file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        let ended = self.child().try_wait();
        let ended = ended.unwrap_or_else(|error| panic!("{}: could not be waited for: {error}", self.name));
        if ended.is_some() {
            running().remove(&self.pid);
        }
        ended
    }

    pub fn is_running(&self) -> bool {
        self.ended().is_none()
    }

    /// Panics with the end of its log if it no longer runs. Every wait for something that a process shall do calls this,
    /// so that a process that failed is told at once and not by a time-out.
    #[track_caller]
    pub fn expect_running(&self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}; its log ends:\n{}", self.name, self.log_tail(TAIL));
        }
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn wait(&self, deadline: impl Into<Deadline>) -> ExitStatus {
        eventually(&format!("{} ends", self.name), deadline, || {
            self.ended().ok_or_else(|| format!("it runs; its log ends:\n{}", self.log_tail(TAIL)))
        })
    }

    /// Sends a signal; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // Not yet waited for, so its id is still its own.
        if let Ok(None) = child.try_wait() {
            let _ = kill(self.pid, signal);
        }
    }

    /// SIGTERM, then waits until it has ended.
    #[track_caller]
    pub fn stop(&self, deadline: impl Into<Deadline>) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(deadline)
    }

    /// SIGKILL, then waits until it has ended.
    #[track_caller]
    pub fn kill(&self) -> ExitStatus {
        self.kill_group();
        self.wait(secs(10))
    }

    /// The processes that its main thread has started and that have not ended.
    pub(crate) fn children(&self) -> Vec<u32> {
        let text = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// SIGSTOP to it and the processes that it started: it is there but does nothing, as on a hung machine.
    pub fn freeze(&self) {
        self.signal_group(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal_group(Signal::SIGCONT);
    }

    /// Stops its main thread and no other, as if that hung, until what comes back is dropped. Meanwhile nothing may ask whether the
    /// process has ended.
    ///
    /// # Panics
    /// When the kernel does not let this process trace it.
    #[track_caller]
    pub fn hang_main_thread(&self) -> Hang {
        let hang = || {
            ptrace::seize(self.pid, ptrace::Options::empty())?;
            ptrace::interrupt(self.pid)?;
            // Nobody else is to take the word that it has stopped for its end.
            waitpid(self.pid, Some(WaitPidFlag::__WALL))
        };
        if let Err(error) = hang() {
            panic!("{}: its main thread could not be stopped: {error}", self.name);
        }
        Hang { pid: self.pid, here: PhantomData }
    }

    /// All it has written so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log(), lines)
    }

    /// Waits until a line of its log contains `text`, and returns that line.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, deadline: impl Into<Deadline>) -> String {
        eventually(&format!("{} logs `{text}`", self.name), deadline, || {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            self.expect_running();
            Err(format!("its log ends:\n{}", self.log_tail(TAIL)))
        })
    }

    /// Resident memory in bytes (VmRSS); zero once it has ended.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most resident memory that it ever had, in bytes (VmHWM); zero once it has ended.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
    }

    /// Processor time used so far, user and system, in steps of 10 ms; zero once it has ended.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // Fields 14 and 15; the second field is a name in brackets that may hold blanks.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn kill_group(&self) {
        self.signal_group(Signal::SIGKILL);
    }

    fn signal_group(&self, signal: Signal) {
        // The group's id is the process's own and stays taken until the process has been waited for.
        if let Ok(None) = self.child().try_wait() {
            let _ = killpg(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        running().remove(&self.pid);
        let _ = self.child().wait();
    }
}

/// Kills every process of every rack; for the moment before this process exits without unwinding.
pub(crate) fn kill_all() {
    for pid in std::mem::take(&mut *running()) {
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    }
}

fn running() -> MutexGuard<'static, BTreeSet<Pid>> {
    RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A thread that is stopped: see [`Process::hang_main_thread`]. Only the thread that stopped it can let it go.
#[derive(Debug)]
pub struct Hang {
    pid: Pid,
    here: PhantomData<*const ()>,
}

impl Drop for Hang {
    fn drop(&mut self) {
        // It may have been killed.
        let _ = ptrace::detach(self.pid, None);
    }
}

pub(crate) fn read_log(path: &Path) -> String {
    fs::read(path).map(|bytes| lossy(&bytes)).unwrap_or_default()
}

fn open_log(path: &Path) -> io::Result<(File, File)> {
    let file = File::options().create(true).append(true).open(path)?;
    Ok((file.try_clone()?, file))
}

fn die_with_this_process(command: &mut Command) {
    let parent = Pid::this();
    // SAFETY: between fork and exec only prctl, sigprocmask and getppid are called, bare system calls.
    unsafe {
        command.pre_exec(move || {
            // What this process blocked, as `clean_up_on_interrupt` does, would be blocked in the child for ever.
            SigSet::empty().thread_set_mask()?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above.
            if getppid() != parent { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
        });
    }
}

struct Launch {
    command: Command,
    reply: SyncSender<io::Result<Child>>,
}

/// Starts `command` from the launching thread.
fn launch(command: Command) -> io::Result<Child> {
    static LAUNCHER: OnceLock<Sender<Launch>> = OnceLock::new();
    let launcher = LAUNCHER.get_or_init(|| {
        let (sender, launches) = channel::<Launch>();
        std::thread::spawn(move || {
            for Launch { mut command, reply } in launches {
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = sync_channel(1);
    launcher.send(Launch { command, reply }).map_err(|_| io::Error::other("the launching thread is gone"))?;
    answer.recv().map_err(|_| io::Error::other("the launching thread is gone"))?
}
/// `command` sees the file or folder `source` in the place of `target`; nobody else does.
pub(crate) fn mount_over(command: &mut Command, source: PathBuf, target: PathBuf) {
    let none: Option<&Path> = None;
    // SAFETY: between fork and exec only unshare and mount are called, system calls on paths that need no memory.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            mount(Some(&*source), &*target, none, MsFlags::MS_BIND, none)?;
            Ok(())
        });
    }
}
