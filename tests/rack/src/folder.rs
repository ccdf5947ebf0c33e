//! The temporary folder of one rack: locked while its process lives, removed with the rack, and reclaimed by the next
//! rack on the machine when its process was killed. Not for anything that shall outlive a test.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};

/// Every rack's folder starts with this; with `KEPT` in front once it is to stay.
const PREFIX: &str = "crier-rack.";
/// The file in the folder whose lock says "in use".
const LOCK: &str = "lock";

/// Folders of this process, for [`remove_all`].
static LIVE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// One rack's folder; dropping it removes it, unless `CRIER_RACK_KEEP` is set.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Held, not read: its lock tells other racks that this folder is in use.
    _lock: File,
}

impl Folder {
    /// A new, empty, locked folder. The first call in a process also removes folders that dead processes left.
    pub fn create() -> io::Result<Folder> {
        static RECLAIM: Once = Once::new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = std::env::temp_dir();
        RECLAIM.call_once(|| reclaim(&parent));
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Locked under another name first: under its own name a folder without a lock counts as abandoned.
        let unlocked = parent.join(format!(".{PREFIX}{}.{number}", std::process::id()));
        let path = parent.join(format!("{PREFIX}{}.{number}", std::process::id()));
        // A process of the same id may have died here before.
        let _ = fs::remove_dir_all(&unlocked);
        fs::create_dir(&unlocked)?;
        let lock = File::create(unlocked.join(LOCK))?;
        lock.lock()?;
        let _ = fs::remove_dir_all(&path);
        fs::rename(&unlocked, &path)?;
        live().push(path.clone());
        Ok(Folder { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        live().retain(|path| *path != self.path);
        if std::env::var_os("CRIER_RACK_KEEP").is_some() {
            let kept =
                self.path.with_file_name(format!("kept-{}", self.path.file_name().unwrap_or_default().display()));
            if fs::rename(&self.path, &kept).is_ok() {
                eprintln!("rack: logs kept in {}", kept.display());
            }
            return;
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders of every rack of this process; for the moment before it exits without unwinding.
pub(crate) fn remove_all() {
    for path in live().drain(..) {
        let _ = fs::remove_dir_all(path);
    }
}

fn live() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Removes the folders whose lock nobody holds. Errors are ignored: another rack may be doing the same, and another
/// user's folders are not ours to remove.
fn reclaim(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with(PREFIX)
            && let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
