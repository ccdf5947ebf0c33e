//! What was seen of the data path, kept on disk across restarts of the agent. Floor 2.
//!
//! One small file in the state folder, written aside and renamed. It carries the kernel's boot id, so what another boot has
//! written is known as such.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::state_file::{self, Outlasts};

use super::machine::Record;

/// The kernel's name for this boot, a new one at each.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// # Errors
/// Where there is no such file, as without /proc.
pub(super) fn boot_id() -> io::Result<String> {
    fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned())
}

/// The file in a state folder.
pub(super) fn file(folder: &Path) -> PathBuf {
    folder.join("data-path.json")
}

/// What is recorded; nothing if nothing was ever.
///
/// # Errors
/// When the file is there and cannot be read; what it held does not count then.
pub(super) fn load(file: &Path) -> io::Result<Record> {
    match state_file::read(file) {
        Ok(octets) => serde_json::from_slice(&octets).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(error),
    }
}

/// Blocks on the disk.
///
/// # Errors
/// The file of before stands.
pub(super) fn store(file: &Path, record: &Record) -> io::Result<()> {
    state_file::replace(file, &serde_json::to_vec(record)?, Outlasts::PowerLoss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_loaded_and_a_torn_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        assert_eq!(load(&file).unwrap(), Record::default(), "nothing was stored yet");
        let record = Record { boot: boot_id().unwrap(), good: true, ..Record::default() };
        store(&file, &record).unwrap();
        assert_eq!(load(&file).unwrap(), record);
        fs::write(&file, "{\"boot\":").unwrap();
        assert!(load(&file).is_err());
    }
}
