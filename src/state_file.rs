//! Replaces a small file of the state folder as a whole: whoever reads it finds the former content or the new one. Reads only
//! regular files: a FIFO or a device in the place of one would keep the agent waiting, and is damage.
//! Floor 2. Not for files of the operator, whose owner and mode are kept (`agent::unconfirmed`, `commands::install`).

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the new content is to outlast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlasts {
    /// The agent alone: nothing is waited for. For what a boot makes void.
    Agent,
    /// A loss of power. Blocks until the disk has it.
    PowerLoss,
}

/// No small file of the state folder is longer.
const LONGEST: u64 = 64 << 20;

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
            sync_folder_of(file)
        }
    }
}

/// Has the disk take the names in the folder of a file.
///
/// # Errors
/// A loss of power may bring the former names back.
pub fn sync_folder_of(file: &Path) -> io::Result<()> {
    fs::File::open(folder_of(file))?.sync_all()
}

/// The folder that a file is in. A name alone is in the working folder, and not in the folder "".
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    }
}

/// What a state file holds.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where there is none; [`io::ErrorKind::InvalidData`], with what it is, where it is no regular file or longer
/// than any of ours.
pub fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    let file = open(file, OpenOptions::new().read(true))?;
    is_at_most(&file, LONGEST)?;
    // It may grow.
    file.take(LONGEST).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Refuses a file that is longer: it is none of ours, and memory is not to be filled with it.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`].
pub fn is_at_most(file: &fs::File, longest: u64) -> io::Result<()> {
    match file.metadata()?.len() {
        there if there > longest => {
            let why = format!("it has {there} octets, and crier writes {longest} at most");
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
        _ => Ok(()),
    }
}

/// Opens a state file. Never waits for the other end of a FIFO.
///
/// # Errors
/// As [`read`].
pub fn open(file: &Path, options: &mut OpenOptions) -> io::Result<fs::File> {
    match fs::metadata(file) {
        // To open a device may do something already.
        Ok(known) => is_regular(&known)?,
        // With `create` the options make it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let opened = options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file)?;
    is_regular(&opened.metadata()?)?;
    Ok(opened)
}

fn is_regular(known: &fs::Metadata) -> io::Result<()> {
    let kind = known.file_type();
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is {what} and no regular file")))
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

/// What tests of state files need.
#[cfg(test)]
pub mod hostile {
    use std::path::Path;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    /// A FIFO that nobody writes to: who opens it to read waits.
    pub fn make_fifo(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO can be made");
    }

    /// What the work answers; a panic where it hangs.
    pub fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, outcome) = mpsc::channel();
        std::thread::spawn(move || done.send(work()));
        outcome.recv_timeout(Duration::from_secs(20)).expect("it hangs")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::hostile::{in_time, make_fifo};

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
    fn only_regular_files_are_read_and_nobody_waits_for_the_other_end_of_a_fifo() {
        let folder = tempfile::tempdir().unwrap();
        let [fifo, directory, device] = ["fifo", "directory", "device"].map(|name| folder.path().join(name));
        make_fifo(&fifo);
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
        for (file, what) in [(fifo, "a FIFO"), (directory, "a directory"), (device, "a device")] {
            let refused = in_time(move || read(&file)).expect_err(what);
            let told = (refused.kind(), refused.to_string());
            assert_eq!(told, (io::ErrorKind::InvalidData, format!("it is {what} and no regular file")));
        }
        let huge = folder.path().join("huge");
        fs::File::create(&huge).and_then(|file| file.set_len(1 << 40)).expect("it takes no room");
        let refused = read(&huge).expect_err("it is not read").to_string();
        assert_eq!(refused, "it has 1099511627776 octets, and crier writes 67108864 at most");
        assert_eq!(read(&folder.path().join("none")).expect_err("no file").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_name_alone_is_in_the_working_folder() {
        for (file, folder) in [("c.toml", "."), ("./c.toml", "."), ("x/c.toml", "x"), ("/c.toml", "/")] {
            assert_eq!(folder_of(Path::new(file)), Path::new(folder), "{file}");
        }
        sync_folder_of(Path::new("c.toml")).expect("the working folder is there");
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
