//! A configuration that is put back unless somebody confirms it: what is kept of the one before, and how it is put back.
//! Floor 3. It stands in one file beside the configuration, so that a restart of the agent or the host forgets nothing, and a
//! configuration that keeps the agent from starting is taken back too. Not for timers: the reloader has them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{SourceFile, load};
use crate::state_file;

/// What is put back, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// When it was ordered. `None` in a file of a former version.
    #[serde(default)]
    pub since: Option<Timestamp>,
    pub until: Timestamp,
    /// Every file of the configuration that was in use before: the main file first, then the drop-ins.
    pub former: Vec<SourceFile>,
}

impl Unconfirmed {
    /// What waits to be confirmed for this main file, if anything does.
    pub fn find(main: &Path) -> io::Result<Option<Unconfirmed>> {
        match state_file::read(&beside(main, "unconfirmed")) {
            Ok(octets) => Ok(Some(serde_json::from_slice(&octets)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How long it waits yet, by the wall clock: never longer than was ordered, wherever the clock was set meanwhile.
    pub fn left(&self, now: Timestamp) -> Duration {
        let until = |from: Timestamp| Duration::try_from(self.until.duration_since(from)).unwrap_or_default();
        until(now).min(self.since.map_or(Duration::MAX, until))
    }

    /// Remembers it across a restart. Call it before the configuration is replaced.
    pub fn keep(&self, main: &Path) -> io::Result<()> {
        // The texts may be those of files that not everybody may read.
        write_whole(&beside(main, "unconfirmed"), &serde_json::to_vec(self)?, None)
    }

    /// Nothing waits to be confirmed any more.
    pub fn forget(main: &Path) -> io::Result<()> {
        state_file::remove(&beside(main, "unconfirmed"))?;
        state_file::sync_folder_of(main)
    }

    /// Makes the files of the configuration what they were. What they say now is kept beside each, as `NAME.rolled-back`. Answers
    /// the files that differed. On an error some may be put back; a next call does the rest.
    pub fn put_back(&self, main: &Path) -> io::Result<Vec<PathBuf>> {
        let mut touched = Vec::new();
        let folder = main.with_file_name("conf.d");
        let mut now = vec![main.to_owned()];
        now.extend(load::drop_ins(&folder).map_err(io::Error::other)?);
        // By their names: the agent may have been started in another folder with a relative path.
        let place = |(number, file): (usize, &SourceFile)| match number {
            0 => main.to_owned(),
            _ => folder.join(Path::new(&file.path).file_name().unwrap_or_default()),
        };
        let former: Vec<(PathBuf, &str)> =
            self.former.iter().enumerate().map(|it| (place(it), it.1.text.as_str())).collect();
        for path in &now {
            let text = fs::read(path).unwrap_or_default();
            let was = former.iter().find(|(file, _)| file == path);
            if was.is_some_and(|(_, was)| was.as_bytes() == text) {
                continue;
            }
            touched.push(path.clone());
            write_whole(&beside(path, "rolled-back"), &text, mode_of(path))?;
            if was.is_none() {
                fs::remove_file(path)?;
            }
        }
        for (path, text) in &former {
            if touched.contains(path) || !path.exists() {
                // The folder of drop-ins may be gone with them.
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                replace(path, text)?;
                if !touched.contains(path) {
                    touched.push(path.clone());
                }
            }
        }
        Unconfirmed::forget(main)?;
        Ok(touched)
    }
}

/// Puts a text in place of the main file, and keeps the text before as `NAME.former`. A symbolic link stays one: what it leads to
/// is replaced. Readers see the one text or the other, whole.
///
/// Where the file says it already, nothing is replaced; if it was edited in place since it was read, what was `in_use` is kept.
pub fn replace_main(main: &Path, text: &str, in_use: Option<&SourceFile>) -> io::Result<()> {
    let before = fs::read(main).ok();
    let there = before.as_deref() == Some(text.as_bytes());
    let in_use = in_use.map(|file| file.text.as_bytes());
    let former = if there { in_use.filter(|used| *used != text.as_bytes()) } else { before.as_deref() };
    if let Some(former) = former {
        write_whole(&beside(main, "former"), former, mode_of(main))?;
    }
    if there { Ok(()) } else { replace(main, text) }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_whole(&real, text.as_bytes(), mode_of(&real))
}

fn mode_of(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|known| known.permissions().mode() & 0o777)
}

/// `/etc/crier/crier.toml.WORD`, which no drop-in can be: it does not end in `.toml`.
fn beside(path: &Path, word: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{word}"));
    path.with_file_name(name)
}

/// Writes to another file and renames it, so that a crash leaves the one or the other. Without a mode it is private.
fn write_whole(path: &Path, octets: &[u8], mode: Option<u32>) -> io::Result<()> {
    let aside = beside(path, "new");
    // One that an earlier attempt left, or that somebody put there as a link to another file.
    state_file::remove(&aside)?;
    fill(&aside, path, octets, mode).inspect_err(|_| {
        // Half a text is of no use to anybody; if it stays, the next attempt removes it.
        let _ = fs::remove_file(&aside);
    })
}

fn fill(aside: &Path, path: &Path, octets: &[u8], mode: Option<u32>) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    file.write_all(octets)?;
    if let Ok(before) = fs::metadata(path) {
        // Not being allowed to give the file away is no reason to fail: the agent can read it.
        let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
    }
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    file.sync_all()?;
    fs::rename(aside, path)?;
    state_file::sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(folder: &Path) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for folder in [folder.to_owned(), folder.join("conf.d")] {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|it| it.path().is_file()) {
                let name = entry.file_name().into_string().unwrap();
                all.push((name, fs::read_to_string(entry.path()).unwrap()));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn what_is_put_back_is_every_file_as_it_was_and_nothing_that_was_written_since_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        let drop_in = |name: &str| folder.path().join("conf.d").join(name);
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        fs::write(&main, "old").unwrap();
        fs::set_permissions(&main, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(drop_in("a.toml"), "a").unwrap();
        fs::write(drop_in("b.toml"), "b").unwrap();
        let kept = Unconfirmed { since: None, until: Timestamp::UNIX_EPOCH, former: load::read(&main).unwrap() };
        kept.keep(&main).unwrap();
        replace_main(&main, "new", None).unwrap();
        fs::remove_file(drop_in("b.toml")).unwrap();
        fs::write(drop_in("c.toml"), "c").unwrap();

        let found = Unconfirmed::find(&main).unwrap();
        assert_eq!(found.as_ref(), Some(&kept), "a restart finds it");
        let touched = found.unwrap().put_back(&main).unwrap();
        assert_eq!(touched, [main.clone(), drop_in("c.toml"), drop_in("b.toml")]);
        let expected = [
            ("a.toml", "a"),
            ("b.toml", "b"),
            ("c.toml.rolled-back", "c"),
            ("crier.toml", "old"),
            ("crier.toml.former", "old"),
            ("crier.toml.rolled-back", "new"),
        ];
        assert_eq!(texts(folder.path()), expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(fs::metadata(&main).unwrap().permissions().mode() & 0o777, 0o640, "its mode is kept");
        assert_eq!(Unconfirmed::find(&main).unwrap(), None, "it is not put back twice");
    }

    #[test]
    fn a_link_to_the_file_stays_a_link_and_a_link_in_the_way_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (main, real, other) =
            (folder.path().join("crier.toml"), folder.path().join("real.toml"), folder.path().join("other"));
        fs::write(&real, "old").unwrap();
        fs::write(&other, "untouched").unwrap();
        std::os::unix::fs::symlink(&real, &main).unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join("real.toml.new")).unwrap();
        replace_main(&main, "new", None).unwrap();
        assert!(fs::symlink_metadata(&main).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::read_to_string(&other).unwrap(), "untouched");
    }

    #[test]
    fn an_agent_that_was_started_with_a_relative_path_loses_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        fs::write(&main, "new").unwrap();
        fs::write(folder.path().join("conf.d/a.toml"), "new a").unwrap();
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let former = vec![file("x/crier.toml", "old"), file("x/conf.d/a.toml", "old a")];
        Unconfirmed { since: None, until: Timestamp::UNIX_EPOCH, former }.put_back(&main).unwrap();
        assert_eq!(fs::read_to_string(&main).unwrap(), "old");
        assert_eq!(fs::read_to_string(folder.path().join("conf.d/a.toml")).unwrap(), "old a");
    }

    #[test]
    fn what_is_put_back_has_its_folder_again() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        fs::write(&main, "new").unwrap();
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let former = vec![file("crier.toml", "old"), file("conf.d/a.toml", "old a")];
        Unconfirmed { since: None, until: Timestamp::UNIX_EPOCH, former }.put_back(&main).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("conf.d/a.toml")).unwrap(), "old a");
    }

    /// The working folder of the tests is the package's: the name is one that nothing else has.
    #[test]
    fn a_file_that_is_named_without_a_folder_is_written_like_any_other() {
        let main = PathBuf::from(format!("unconfirmed-{}.toml", std::process::id()));
        let files = [main.clone(), beside(&main, "former"), beside(&main, "unconfirmed")];
        fs::write(&main, "old").unwrap();
        let kept = Unconfirmed { since: None, until: Timestamp::UNIX_EPOCH, former: Vec::new() };
        let written = kept.keep(&main).and_then(|()| replace_main(&main, "new", None));
        let text = fs::read_to_string(&main);
        let forgotten = Unconfirmed::forget(&main);
        files.iter().for_each(|file| drop(fs::remove_file(file)));
        written.expect("it is written");
        forgotten.expect("it is forgotten");
        assert_eq!(text.unwrap(), "new");
    }

    #[test]
    fn no_step_of_the_clock_makes_it_wait_longer_than_was_ordered() {
        let at = |secs: i64| Timestamp::from_second(secs).unwrap();
        let promise = Unconfirmed { since: Some(at(1000)), until: at(1060), former: Vec::new() };
        assert_eq!(promise.left(at(1020)).as_secs(), 40);
        assert_eq!(promise.left(at(0)).as_secs(), 60, "the clock was lost");
        assert_eq!(promise.left(at(9000)), Duration::ZERO);
    }

    #[test]
    fn what_is_kept_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        Unconfirmed { since: None, until: Timestamp::UNIX_EPOCH, former: Vec::new() }.keep(&main).unwrap();
        let mode = fs::metadata(folder.path().join("crier.toml.unconfirmed")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_former_text_is_what_was_in_use_also_where_the_file_was_edited_in_place_or_applied_twice() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        let in_use = |text: &str| SourceFile { path: main.display().to_string(), text: text.to_owned() };
        let former = || fs::read_to_string(folder.path().join("crier.toml.former")).ok();
        fs::write(&main, "first").unwrap();
        replace_main(&main, "first", Some(&in_use("first"))).unwrap();
        assert_eq!(former(), None, "nothing differs");
        fs::write(&main, "second").unwrap();
        replace_main(&main, "second", Some(&in_use("first"))).unwrap();
        assert_eq!(former().as_deref(), Some("first"), "edited in place");
        replace_main(&main, "second", Some(&in_use("second"))).unwrap();
        assert_eq!(former().as_deref(), Some("first"), "applied twice");
        fs::write(&main, "edited and never in use").unwrap();
        replace_main(&main, "third", Some(&in_use("second"))).unwrap();
        assert_eq!(former().as_deref(), Some("edited and never in use"), "it is nowhere else");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("crier.toml");
        fs::create_dir(folder.path().join("crier.toml.unconfirmed")).unwrap();
        let promise = Unconfirmed { since: None, until: Timestamp::UNIX_EPOCH, former: Vec::new() };
        assert!(promise.keep(&main).is_err(), "a folder is in the way");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
