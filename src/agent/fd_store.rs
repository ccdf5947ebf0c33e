//! systemd's file descriptor store: what is put there outlives this process, and comes back to the next one. Floor 3, and the
//! place of `unsafe` for the descriptors that a process is started with.
//!
//! The unit has to allow it (`FileDescriptorStoreMax=`). systemd gives what it stores to the next start of the unit in a restart,
//! and closes it when the unit is stopped. Without systemd nothing is put and nothing comes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tracing::warn;

/// Where systemd listens.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A descriptor that was stored, by the name that it was stored under.
#[derive(Debug)]
pub struct Stored {
    pub name: String,
    pub descriptor: OwnedFd,
}

/// Whether there is a store to put anything into.
pub fn is_there() -> bool {
    address().is_some()
}

/// Everything that this process was started with. Call it once, first of all: a second call gives nothing that can be used.
pub fn take() -> Vec<Stored> {
    match sd_notify::listen_fds_with_names() {
        Ok(all) => all
            .map(|(number, name)| {
                // SAFETY: systemd has opened this descriptor for this process, `listen_fds_with_names` has found it open, and
                // nothing else here owns it: it is taken once, before anything else could use its number.
                let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                Stored { name, descriptor }
            })
            .collect(),
        Err(error) => {
            warn!(%error, "the file descriptors that systemd has kept cannot be taken; sessions begin anew");
            Vec::new()
        }
    }
}

/// Stores a descriptor under a name: at most 255 characters of ASCII, without colons.
///
/// systemd does not say whether it took the descriptor. It is not watched meanwhile: also a connection that the peer has reset
/// comes back.
pub fn put(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    send(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), Some(descriptor))
}

/// Forgets what is stored under a name. What was taken stays open here.
pub fn remove(name: &str) -> io::Result<()> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None)
}

/// Waits until systemd has taken in everything that it was sent: sd_notify_barrier(3). False if it has not within this time.
pub fn settle(within: Duration) -> io::Result<bool> {
    let (ours, theirs) = io::pipe()?;
    send("BARRIER=1", Some(theirs.as_fd()))?;
    drop(theirs);
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // It ends when systemd closes its end.
        let _ = { ours }.read(&mut [0]);
        // Nobody waits any more.
        let _ = done.send(());
    });
    Ok(waiting.recv_timeout(within).is_ok())
}

/// A file in memory that holds these octets and can never be changed again.
pub fn sealed(name: &str, octets: &[u8]) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(octets)?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// What such a file holds.
///
/// # Errors
/// It is no file in memory, not sealed, or longer than `longest` octets.
pub fn unseal(memory: OwnedFd, longest: usize) -> io::Result<Vec<u8>> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let seals = rustix::fs::fcntl_get_seals(&memory).map_err(|_| wrong("it is no file in memory"))?;
    if !seals.contains(SEALS) {
        return Err(wrong("it is not sealed, so it may change while it is read"));
    }
    let file = File::from(memory);
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > longest {
        return Err(wrong("it is longer than any state of a session"));
    }
    let mut octets = vec![0; length];
    file.read_exact_at(&mut octets, 0)?;
    Ok(octets)
}

const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

fn send(text: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let address = address().ok_or_else(|| io::Error::other("there is no systemd"))?;
    let socket = UnixDatagram::unbound()?;
    socket.connect(address)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    rustix::net::sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn address() -> Option<OsString> {
    std::env::var_os(NOTIFY_SOCKET).filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_and_nothing_else_is() {
        let memory = sealed("state", b"octets").expect("the kernel has memfd");
        let again = memory.try_clone().expect("it is open");
        assert_eq!(unseal(memory, 6).expect("it is sealed"), b"octets");
        assert!(File::from(again.try_clone().expect("it is open")).write_all(b"x").is_err(), "it cannot be changed");
        assert_eq!(unseal(again, 5).expect_err("too long").to_string(), "it is longer than any state of a session");

        let open = rustix::fs::memfd_create("open", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("memfd");
        assert!(unseal(open, 6).expect_err("open").to_string().starts_with("it is not sealed"));
        let (pipe, _other) = io::pipe().expect("a pipe");
        assert_eq!(unseal(pipe.into(), 6).expect_err("a pipe").to_string(), "it is no file in memory");
    }
}
