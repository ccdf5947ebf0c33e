//! A file or folder that `crier install` puts in place: what should be there, what is there, and the step between. Floor 4.
//! `judge` only compares; `put` is the one function that writes.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use crate::state_file;

/// What should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// As the host knows it, `--root` left out.
    pub path: PathBuf,
    /// The permissions of what is created.
    pub mode: u32,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Folder,
    File { content: Vec<u8>, or_else: OrElse },
}

/// What becomes of a file with another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrElse {
    /// crier's own: another version put it there.
    Replace,
    /// The operator's, who asks for another now: the former is kept beside it.
    KeepFormer,
    /// The operator's, and not crier's to change.
    Leave,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Nothing,
    Folder { mode: u32 },
    File { content: Vec<u8>, mode: u32 },
}

/// What is to be done about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Create,
    Replace,
    /// The former content goes to `NAME.old`.
    ReplaceAndKeep,
    /// A secret that others can read, or a folder that others can write to: only its permissions.
    Restrict,
    /// Another content stays.
    Leave,
    /// A folder where a file should be, or a file where a folder should be.
    Blocked,
}

impl Step {
    pub fn changes(self) -> bool {
        match self {
            Step::Create | Step::Replace | Step::ReplaceAndKeep | Step::Restrict => true,
            Step::Nothing | Step::Leave | Step::Blocked => false,
        }
    }
}

/// The step from what is there to what should be there.
pub fn judge(item: &Item, seen: &Seen) -> Step {
    match (&item.what, seen) {
        (_, Seen::Nothing) => Step::Create,
        (What::Folder, Seen::Folder { mode }) => {
            if mode & 0o022 != 0 {
                Step::Restrict
            } else {
                Step::Nothing
            }
        }
        (What::File { content, .. }, Seen::File { content: there, mode }) if content == there => {
            // A file that is to be seen by its owner alone, and is seen by others.
            if item.mode & 0o077 == 0 && mode & 0o077 != 0 { Step::Restrict } else { Step::Nothing }
        }
        (What::File { or_else, .. }, Seen::File { .. }) => match or_else {
            OrElse::Replace => Step::Replace,
            OrElse::KeepFormer => Step::ReplaceAndKeep,
            OrElse::Leave => Step::Leave,
        },
        (What::Folder, Seen::File { .. }) | (What::File { .. }, Seen::Folder { .. }) => Step::Blocked,
    }
}

/// What is at a path of the host. Symbolic links are followed.
pub fn look(path: &Path) -> io::Result<Seen> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::Nothing),
        Err(error) => Err(error),
        Ok(there) if there.is_dir() => Ok(Seen::Folder { mode: there.permissions().mode() & 0o7777 }),
        Ok(there) if there.is_file() => {
            Ok(Seen::File { content: fs::read(path)?, mode: there.permissions().mode() & 0o7777 })
        }
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a directory")),
    }
}

/// Takes the step. A file is written whole beside its place and moved there, so that nobody sees half of it.
pub fn put(root: &Path, item: &Item, step: Step) -> io::Result<()> {
    let path = below(root, &item.path);
    match (step, &item.what) {
        (Step::Nothing | Step::Leave | Step::Blocked, _) => Ok(()),
        (Step::Restrict, _) => fs::set_permissions(&path, Permissions::from_mode(item.mode)),
        (_, What::Folder) => {
            DirBuilder::new().recursive(true).mode(0o755).create(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(item.mode))
        }
        (Step::ReplaceAndKeep, What::File { content, .. }) => {
            let former = with_end(&path, "old");
            let _ = fs::remove_file(&former);
            let real = behind_link(root, &path);
            // Whoever closed the file to others did not mean to open it.
            let mode = fs::metadata(&real)?.permissions().mode() & item.mode;
            if fs::hard_link(&real, &former).is_err() {
                // The link leads to another file system.
                fs::copy(&real, &former)?;
            }
            write(&real, content, mode)
        }
        (Step::Create | Step::Replace, What::File { content, .. }) => write(&path, content, item.mode),
    }
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(state_file::folder_of(path))?;
    let new = with_end(path, "new");
    // Left by a run that was interrupted.
    let _ = fs::remove_file(&new);
    let written = write_whole(&new, content, mode).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // On a full disk, what was written would keep it full.
        let _ = fs::remove_file(&new);
    }
    written
}

fn write_whole(new: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    file.write_all(content)?;
    // Over the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// What a symbolic link of the operator's leads to, which stays one; else the path itself.
fn behind_link(root: &Path, path: &Path) -> PathBuf {
    match fs::read_link(path) {
        Ok(target) if target.is_absolute() => below(root, &target),
        Ok(target) => state_file::folder_of(path).join(target),
        Err(_) => path.to_owned(),
    }
}

/// The file of the host that a path leads to: symbolic links on the way are the host's, and lead to where it has them. A path that leads
/// round and round, or to nothing, is as it was.
pub fn within(root: &Path, path: &Path) -> PathBuf {
    const MOST_LINKS: usize = 40;
    let (mut links, mut there) = (0, PathBuf::from("/"));
    let mut ahead: Vec<OsString> = components(path);
    while let Some(name) = ahead.pop() {
        if name == ".." {
            there.pop();
            continue;
        }
        let next = there.join(&name);
        match fs::read_link(below(root, &next)) {
            Ok(_) if links == MOST_LINKS => return below(root, path),
            Ok(target) => {
                links += 1;
                if target.is_absolute() {
                    there = PathBuf::from("/");
                }
                ahead.extend(components(&target));
            }
            Err(_) => there = next,
        }
    }
    below(root, &there)
}

/// The names of a path, the last one first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|it| match it {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    });
    names.rev().collect()
}

/// The path of the host below the root.
pub fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// `NAME.END` beside the file.
pub fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(end);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str, mode: u32, or_else: OrElse) -> Item {
        let content = content.as_bytes().to_vec();
        Item { path: "/etc/crier/file".into(), mode, what: What::File { content, or_else } }
    }

    fn seen(content: &str, mode: u32) -> Seen {
        Seen::File { content: content.as_bytes().to_vec(), mode }
    }

    #[test]
    fn each_file_is_treated_as_belongs_to_its_owner() {
        let folder = Item { path: "/etc/crier".into(), mode: 0o755, what: What::Folder };
        let table = [
            (file("a", 0o644, OrElse::Replace), Seen::Nothing, Step::Create),
            (file("a", 0o644, OrElse::Replace), seen("a", 0o600), Step::Nothing),
            (file("a", 0o644, OrElse::Replace), seen("b", 0o644), Step::Replace),
            (file("a", 0o600, OrElse::KeepFormer), seen("b", 0o600), Step::ReplaceAndKeep),
            (file("a", 0o600, OrElse::KeepFormer), seen("a", 0o640), Step::Restrict),
            (file("a", 0o600, OrElse::Leave), seen("b", 0o644), Step::Leave),
            (file("a", 0o600, OrElse::Leave), Seen::Folder { mode: 0o755 }, Step::Blocked),
            (folder.clone(), Seen::Nothing, Step::Create),
            (folder.clone(), Seen::Folder { mode: 0o750 }, Step::Nothing),
            (folder.clone(), Seen::Folder { mode: 0o777 }, Step::Restrict),
            (folder, seen("", 0o644), Step::Blocked),
        ];
        for (item, seen, expected) in table {
            assert_eq!(judge(&item, &seen), expected, "{item:?} where {seen:?} is");
        }
    }

    /// What fitted of it kept a full disk full. Here the place of the file is a folder.
    #[test]
    fn of_a_file_that_cannot_be_put_in_place_nothing_stays() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/crier/file");
        fs::create_dir_all(path.join("in-the-way")).unwrap();
        put(root.path(), &file("a", 0o600, OrElse::Replace), Step::Replace).expect_err("a folder is there");
        assert!(!with_end(&path, "new").exists());
    }

    #[test]
    fn what_was_put_is_there_and_needs_no_second_step() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/crier/file");
        let steps = [
            (file("a", 0o600, OrElse::KeepFormer), Step::Create, "a", None),
            (file("b", 0o600, OrElse::KeepFormer), Step::ReplaceAndKeep, "b", Some("a")),
            (file("c", 0o600, OrElse::KeepFormer), Step::ReplaceAndKeep, "c", Some("b")),
        ];
        for (item, expected, content, former) in steps {
            let step = judge(&item, &look(&path).unwrap());
            assert_eq!(step, expected, "{content}");
            put(root.path(), &item, step).unwrap();
            let there = look(&path).unwrap();
            assert_eq!(there, seen(content, 0o600));
            assert_eq!(judge(&item, &there), Step::Nothing, "a second run changes nothing");
            let old = fs::read_to_string(with_end(&path, "old")).ok();
            assert_eq!(old.as_deref(), former, "the former is kept");
        }
        assert!(!with_end(&path, "new").exists());
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let item = file("c", 0o600, OrElse::Leave);
        put(root.path(), &item, judge(&item, &look(&path).unwrap())).unwrap();
        assert_eq!(look(&path).unwrap(), seen("c", 0o600), "a secret is closed to others");
    }

    /// Input: links of a host that is a folder: absolute, relative, of a folder on the way, out of the root, and round. Output: all within it.
    #[test]
    fn links_of_a_host_lead_to_where_the_host_has_them() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| below(root.path(), Path::new(path));
        fs::create_dir_all(at("/a/b")).unwrap();
        for (link, target) in [
            ("/a/absolute", "/a/b/file"),
            ("/a/relative", "b/file"),
            ("/a/up", "../../../../a/b/file"),
            ("/folder", "/a/b"),
            ("/round", "/round"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        for path in ["/a/absolute", "/a/relative", "/a/up", "/folder/file", "/a/b/file", "/folder/../b/file"] {
            assert_eq!(within(root.path(), Path::new(path)), at("/a/b/file"), "{path}");
        }
        assert_eq!(within(root.path(), Path::new("/round/x")), at("/round/x"));
        assert_eq!(within(Path::new("/"), Path::new("/nowhere/at/all")), Path::new("/nowhere/at/all"));
    }

    #[test]
    fn a_link_of_the_operators_stays_one_and_a_file_that_was_closed_to_others_stays_closed() {
        let root = tempfile::tempdir().unwrap();
        let (etc, real) = (root.path().join("etc/crier"), root.path().join("srv/file"));
        fs::create_dir_all(&etc).unwrap();
        fs::create_dir(root.path().join("srv")).unwrap();
        fs::write(&real, "a").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        let path = etc.join("file");
        for (target, content, former) in [("/srv/file", "b", "a"), ("../../srv/file", "c", "b")] {
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
            put(root.path(), &file(content, 0o644, OrElse::KeepFormer), Step::ReplaceAndKeep).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "{target}");
            assert_eq!(look(&real).unwrap(), seen(content, 0o640), "{target}");
            assert_eq!(fs::read_to_string(with_end(&path, "old")).unwrap(), former, "{target}");
        }
    }
}
