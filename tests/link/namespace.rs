//! Network namespaces for tests, reached through threads: no root, no mount, nothing left behind when the last
//! descriptor is closed. The whole test process first moves into a user namespace of its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

/// Gives this process a network namespace of its own, and a user namespace unless it is privileged enough without: only
/// where it is, programs can be given to the kernel. Call it while there is only one thread.
pub fn leave_the_host() -> io::Result<()> {
    if unshare(libc::CLONE_NEWNET).is_ok() {
        return Ok(());
    }
    // SAFETY: these two take nothing, cannot fail, and touch no memory.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes a number and changes only what kernel namespaces the calling thread is in.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A network namespace. It lasts as long as this and what was opened in it.
pub struct Namespace(File);

impl Namespace {
    /// A new one, whose loopback is up.
    pub fn new() -> Namespace {
        let file = thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(libc::CLONE_NEWNET).expect("a network namespace");
                ip("link set lo up");
                File::open("/proc/thread-self/ns/net").expect("the thread's namespace")
            });
            made.join().expect("a thread in a namespace of its own")
        });
        Namespace(file)
    }

    /// Runs something on a thread in this namespace. The threads that it starts are in it too, and so stay the
    /// sockets that it opens.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let descriptor = self.0.as_raw_fd();
        thread::scope(|scope| {
            let entered = scope.spawn(move || {
                // SAFETY: the descriptor is open for as long as `self` is borrowed; only this thread's namespace changes.
                let entered = unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "entering a namespace: {}", io::Error::last_os_error());
                inside()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// How `ip link set ... netns` can name it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs `ip` in the namespace of this thread; its output.
pub fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|complaint| panic!("ip {arguments}: {complaint}"))
}

/// The same where the kernel may not be able to; what `ip` complained of.
pub fn try_ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip, from iproute2");
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(told(&output.stdout)) } else { Err(told(&output.stderr)) }
}
