//! Secrets that the configuration names but does not hold, and where each is looked for. Floor 1. Opens nothing: `load` gives
//! the real files, tests give their own. `secret_entries` says what is wrong with a secret.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// The secrets of a host. A mistake in a secret is a mistake of the configuration: a complaint names it, and a running
/// configuration stays in use. A file that is not there is one too, unless [`Secrets::may_lack`] says otherwise.
pub trait Secrets {
    /// The content of the systemd credential of this name; `None` if the service was given no such credential.
    fn credential(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>>;

    /// The content of a file. A file that is too long for every use may be cut, to a length that is still too long.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether the configuration is good without this file: see [`SecretFile::is_missing`].
    fn may_lack(&self, _path: &Path, _need: Need) -> bool {
        false
    }
}

/// Who cannot do without a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The node: without its key, other nodes do not believe its pulses.
    Node,
    /// The peers that name it, alone.
    Peer,
}

/// A host without any secrets, for configurations that name none.
#[derive(Debug, Clone, Copy)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn credential(&self, _name: &OsStr) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A secret, and how the configuration names it. Two are equal only if their octets are, so a reload notices a change of the
/// secret file alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The path that the configuration gives; `None` if the key was left out and its credential was found.
    pub path: Option<PathBuf>,
    /// Empty only where the file is missing.
    pub secret: Secret,
}

impl SecretFile {
    /// The file was not there, and the configuration may lack it. Whoever needs the secret does nothing without it.
    pub fn is_missing(&self) -> bool {
        self.secret.expose().is_empty()
    }

    /// The path of a file that is missing.
    pub fn lacking(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.is_missing())
    }
}

/// Where the secret of a path was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundIn {
    /// The systemd credential with the name of the file.
    Credential,
    File,
}

/// The octets of a secret without one newline at the end: the systemd credential with the file's name if there is one, else the
/// file.
///
/// A credential wins because systemd decrypted it for this service. So one unit file and one configuration serve hosts with
/// credentials and hosts without.
pub fn find(secrets: &dyn Secrets, path: &Path) -> io::Result<(Vec<u8>, FoundIn)> {
    let credential = match path.file_name() {
        Some(name) => secrets.credential(name)?,
        None => None,
    };
    match credential {
        Some(octets) => Ok((without_newline(octets), FoundIn::Credential)),
        None => Ok((without_newline(secrets.file(path)?), FoundIn::File)),
    }
}

/// Editors and `echo` put a newline after what was typed.
pub(super) fn without_newline(mut octets: Vec<u8>) -> Vec<u8> {
    if octets.ends_with(b"\n") {
        octets.truncate(octets.len() - 1);
        if octets.ends_with(b"\r") {
            octets.truncate(octets.len() - 1);
        }
    }
    octets
}
