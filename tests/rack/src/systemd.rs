//! The service manager that the harness plays for an agent: it hears what the agent tells over `NOTIFY_SOCKET`, keeps the file
//! descriptors that the agent stores, gives them to the next start, and answers `systemctl list-jobs`.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::{fs, io};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::namespace::lossy;

/// The unit that the agent runs as.
const UNIT: &str = "crier.service";

/// The first descriptor that a process is started with: sd_listen_fds(3).
const FIRST: i32 = 3;

/// What the manager knows of one unit. It outlives the processes of the unit.
#[derive(Debug, Clone, Default)]
pub struct Unit {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// As without `FileDescriptorStoreMax=`: what an agent stores is closed.
    without_store: bool,
    notices: Vec<String>,
    stored: Vec<(String, OwnedFd)>,
}

impl Unit {
    /// One that stores nothing: the connections of an agent end with it.
    pub fn without_store() -> Unit {
        Unit { shared: Arc::new(Mutex::new(Shared { without_store: true, ..Shared::default() })) }
    }

    /// Everything that the agent of the last start has told, one text for each message.
    pub fn notices(&self) -> Vec<String> {
        self.shared().notices.clone()
    }

    /// The names of what is stored now, in order.
    pub fn stored(&self) -> Vec<String> {
        let mut names: Vec<String> = self.shared().stored.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// Puts something into the store that no agent has put there, in the place of what has that name.
    pub fn store(&self, name: &str, descriptor: OwnedFd) {
        let mut shared = self.shared();
        shared.stored.retain(|(known, _)| known != name);
        shared.stored.push((name.to_owned(), descriptor));
    }

    /// Closes everything that is stored, as systemd does when the unit is stopped.
    pub fn forget(&self) {
        self.shared().stored.clear();
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes one message in.
    fn hear(&self, text: &str, mut descriptors: Vec<OwnedFd>) {
        let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let name = fields.get("FDNAME").copied().unwrap_or("stored");
        let mut shared = self.shared();
        if fields.contains_key("FDSTORE") && !shared.without_store {
            // As systemd: what is stored already, under whatever name, is not stored again.
            let news = |descriptor: &OwnedFd| !shared.stored.iter().any(|(_, known)| same_file(known, descriptor));
            descriptors.retain(news);
            shared.stored.extend(descriptors.drain(..).map(|descriptor| (name.to_owned(), descriptor)));
        }
        if fields.contains_key("FDSTOREREMOVE") {
            shared.stored.retain(|(known, _)| known != name);
        }
        // What is left is closed: that is the answer to BARRIER=1.
        shared.notices.push(text.to_owned());
    }

    /// Makes `command` a start of the unit: with what is stored, and with a `systemctl` that tells the job in `folder`.
    pub fn start(&self, command: &mut Command, folder: &Path) {
        let programs = folder.join("programs");
        let systemctl = format!("#!/bin/sh\ncat {} 2>/dev/null\nexit 0\n", job_file(folder).display());
        let made = fs::create_dir_all(&programs).and_then(|()| executable(&programs.join("systemctl"), &systemctl));
        made.unwrap_or_else(|error| panic!("could not make a systemctl in {}: {error}", programs.display()));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", programs.display())).env("CRIER_UNIT", UNIT);
        let stored: Vec<(String, OwnedFd)> = {
            let shared = self.shared();
            let copy = |(name, descriptor): &(String, OwnedFd)| Some((name.clone(), above(descriptor)?));
            shared.stored.iter().filter_map(copy).collect()
        };
        self.shared().notices.clear();
        if stored.is_empty() {
            return;
        }
        let names: Vec<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
        command.env("LISTEN_FDS", stored.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        // The process's own id is known only once there is one: this shell becomes the agent.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\""]).arg(command.get_program()).args(arguments);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        // SAFETY: between fork and exec only dup2 is called, a bare system call; the closure owns the descriptors.
        unsafe {
            shell.pre_exec(move || {
                for (number, (_, descriptor)) in (FIRST..).zip(&stored) {
                    if libc::dup2(descriptor.as_raw_fd(), number) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        *command = shell;
    }

    /// Which job the unit has now, as systemd names it: `restart` or `stop`. `None`: none.
    pub fn set_job(folder: &Path, job: Option<&str>) {
        let text = job.map(|job| format!("1234 {UNIT} {job} running\n")).unwrap_or_default();
        fs::write(job_file(folder), text).unwrap_or_else(|error| panic!("could not write the job: {error}"));
    }
}

fn job_file(folder: &Path) -> PathBuf {
    folder.join("job")
}

fn executable(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // Of a start before: it may be running.
    if path.exists() {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn same_file(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |descriptor: &OwnedFd| rustix::fs::fstat(descriptor).map(|stat| (stat.st_dev, stat.st_ino));
    identity(one).is_ok_and(|one| identity(other) == Ok(one))
}

/// A copy with a number that is in nobody's way.
fn above(descriptor: &OwnedFd) -> Option<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, 200).ok()
}

/// The service manager's end of `NOTIFY_SOCKET`, for one start.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    socket: UnixDatagram,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn open(path: &Path, unit: &Unit) -> io::Result<Listener> {
        // Of the agent that ran here before.
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path)?;
        // Read all the time: the kernel holds only ten messages and then makes the sender wait.
        let thread = std::thread::spawn({
            let (socket, unit) = (socket.try_clone()?, unit.clone());
            move || {
                // After the shutdown in drop, a receive returns nothing for ever.
                while let Ok((text, descriptors)) = receive(&socket)
                    && !text.is_empty()
                {
                    unit.hear(&text, descriptors);
                }
            }
        });
        Ok(Listener { path: path.into(), socket, thread: Some(thread) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn receive(socket: &UnixDatagram) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut buffer = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let rights = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let descriptors = rights.flatten().collect();
    Ok((lossy(&buffer[..received.bytes]), descriptors))
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{eventually_equal, secs};

    #[test]
    fn more_notices_are_taken_than_the_kernel_holds() {
        let rack = crate::Rack::new("notices");
        let path = rack.folder().join("notify");
        let unit = Unit::default();
        let _listener = Listener::open(&path, &unit).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let sent: Vec<String> = (0..40).map(|number| format!("STATUS={number}")).collect();
        for notice in &sent {
            sender.send_to(notice.as_bytes(), &path).unwrap();
        }
        eventually_equal("all notices have come", secs(5), &sent, || unit.notices());
    }
}
