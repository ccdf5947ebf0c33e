//! Secrets that the configuration names but does not hold, and where one is looked for. Floor 1. Opens nothing: `load` gives
//! the real files, tests give theirs. `secret_entries` says what is wrong with one.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// What there is to be read on this host. A mistake in it is a mistake of the configuration: it is complained about, and a
/// running configuration stays.
pub trait Secrets {
    /// The content of the systemd credential of this name; `None` where the service was given none of that name.
    fn credential(&self, name: &OsStr) -> io::Result<Option<Vec<u8>>>;

    /// The content of a file, or so much of its beginning that it is too long for every use.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;
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

/// A secret, and how the configuration asked for it. It is equal to another only with the same octets, so that a new
/// configuration after a change of the file alone is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The file that was written; `None` where the key was left out and its credential was there.
    pub path: Option<PathBuf>,
    pub secret: Secret,
}

/// Where the secret of a path was found, or is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The systemd credential with the name of the file.
    Credential,
    File,
}

/// The octets of a path, one newline at the end taken off: the systemd credential with the file's name if there is one, else
/// the file.
///
/// A credential wins because it is what systemd decrypted for this service; the path is what one unit file and one
/// configuration have in common with hosts that have no credentials.
pub fn find(secrets: &dyn Secrets, path: &Path) -> io::Result<(Vec<u8>, Origin)> {
    let credential = match path.file_name() {
        Some(name) => secrets.credential(name)?,
        None => None,
    };
    match credential {
        Some(octets) => Ok((without_newline(octets), Origin::Credential)),
        None => Ok((without_newline(secrets.file(path)?), Origin::File)),
    }
}

/// Editors and `echo` put a newline behind what was typed.
pub(super) fn without_newline(mut octets: Vec<u8>) -> Vec<u8> {
    if octets.ends_with(b"\n") {
        octets.truncate(octets.len() - 1);
        if octets.ends_with(b"\r") {
            octets.truncate(octets.len() - 1);
        }
    }
    octets
}
