//! Replaces a small file of the state folder as a whole: whoever reads it finds the former content or the new one.
//! Floor 2. Not for files of the operator, whose owner and mode are kept (`agent::unconfirmed`, `commands::install`).

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What the new content is to outlast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlasts {
    /// The agent alone: nothing is waited for. For what a boot makes void.
    Agent,
    /// A loss of power. Blocks until the disk has it.
    PowerLoss,
}

/// Writes the content aside, readable by nobody else, and renames it.
///
/// # Errors
/// The former content stands.
pub fn replace(file: &Path, octets: &[u8], outlasts: Outlasts) -> io::Result<()> {
    let aside = aside(file);
    // What a killed agent left may have another mode.
    remove(&aside)?;
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    new.write_all(octets)?;
    match outlasts {
        Outlasts::Agent => fs::rename(&aside, file),
        Outlasts::PowerLoss => {
            new.sync_all()?;
            fs::rename(&aside, file)?;
            // The name, too: else the disk may still have the former file under it.
            let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::File::open(folder)?.sync_all()
        }
    }
}

/// Removes a file, if there is one.
///
/// # Errors
/// It is still there.
pub fn remove(file: &Path) -> io::Result<()> {
    // A file system without write refuses to remove also what is not there: it is looked for first.
    match fs::symlink_metadata(file).and_then(|_| fs::remove_file(file)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the folder takes a small file.
///
/// # Errors
/// Why not. Nothing is left there.
pub fn probe(folder: &Path) -> io::Result<()> {
    const OCTETS: [u8; 4096] = [0; 4096];
    let file = folder.join("probe");
    let written = replace(&file, &OCTETS, Outlasts::Agent);
    let left = if written.is_ok() { file } else { aside(&file) };
    written.and(remove(&left))
}

fn aside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_whole_and_private_whatever_a_killed_agent_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("drain.json");
        fs::write(folder.path().join("drain.json.new"), "half of a te").unwrap();
        for (text, outlasts) in [("first", Outlasts::PowerLoss), ("2", Outlasts::Agent)] {
            replace(&file, text.as_bytes(), outlasts).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays aside");
        probe(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays of a probe");
        fs::create_dir(folder.path().join("probe.new")).unwrap();
        assert!(probe(folder.path()).is_err(), "the octets cannot be written");
    }

    #[test]
    fn where_nothing_can_be_written_the_former_content_stands() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record");
        fs::write(&file, "former").unwrap();
        fs::create_dir(folder.path().join("record.new")).unwrap();
        assert!(replace(&file, b"new", Outlasts::PowerLoss).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "former");
    }
}
