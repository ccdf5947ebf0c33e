//! Since when addresses of pods are held back for nobody, over restarts of the agent. Floor 2.
//!
//! A file in the state folder, written whenever that changes. It counts in the boot of the kernel that it was written in, as the
//! table does, and by the kernel's own clock: nobody sets that one.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::machine::Kept;
use crate::kept_text;
use crate::state_file::{self, Outlasts};
use crate::world::PodMark;

/// The file of a state folder.
#[derive(Debug)]
pub struct HeldFile {
    path: PathBuf,
    boot: String,
    /// The addresses in the file; `None` while that is not known.
    written: Option<BTreeMap<IpAddr, Since>>,
    /// It could not be written, and that was said.
    refused: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    boot: String,
    held: BTreeMap<IpAddr, Since>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Since {
    /// In seconds since the boot.
    since: u64,
    pod: Option<PodMark>,
}

const FORMAT: &str = "crier-egress-held";
const VERSION: u32 = 1;

impl HeldFile {
    /// `boot` is the kernel's boot id; empty where the kernel tells none: then nothing is kept.
    pub fn of(folder: &Path, boot: &str) -> HeldFile {
        HeldFile { path: folder.join("egress-held"), boot: boot.to_owned(), written: None, refused: false }
    }

    /// What the previous agent kept, `up` after the boot. Nothing of a file that is damaged, or of another boot: then every address
    /// counts as released just now, as does one whose time is yet to come.
    pub fn read(&mut self, up: Duration) -> BTreeMap<IpAddr, Kept> {
        let read = state_file::read(&self.path).and_then(|text| {
            let content = kept_text::read(FORMAT, VERSION, &text).map_err(io::Error::other)?;
            Ok(serde_json::from_slice::<Content>(content)?)
        });
        let kept = |(address, Since { since, pod }): (IpAddr, Since)| {
            (address, Kept { for_nobody: up.saturating_sub(Duration::from_secs(since)), pod })
        };
        self.written = None;
        match read {
            Ok(Content { boot, held }) if !boot.is_empty() && boot == self.boot => {
                // Written again with every start, it would be rounded up again.
                self.written = Some(held.clone());
                held.into_iter().map(kept).collect()
            }
            Ok(_) => BTreeMap::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                warn!(file = %self.path.display(), %error, "since when addresses of pods are held back for no Service is not known; each is held for all of release-after again");
                BTreeMap::new()
            }
        }
    }

    /// Writes down what the next agent is to know, where that differs from what the file says.
    pub fn write(&mut self, kept: &BTreeMap<IpAddr, Kept>, up: Duration) {
        let is_same = |(address, Kept { for_nobody, pod }): (&IpAddr, &Kept)| {
            let since = self.written.as_ref().and_then(|written| written.get(address));
            let now = up.saturating_sub(*for_nobody).as_secs();
            // Rounded twice, it may be one second off.
            since.is_some_and(|it| it.pod == *pod && it.since.abs_diff(now) <= 1)
        };
        let is_known = self.written.as_ref().is_some_and(|written| written.len() == kept.len());
        if self.boot.is_empty() || (is_known && kept.iter().all(is_same)) {
            return;
        }
        let since = |(address, Kept { for_nobody, pod }): (&IpAddr, &Kept)| {
            // Rounded up: none is let go too early.
            let since = up.saturating_sub(*for_nobody).as_secs().saturating_add(1);
            (*address, Since { since, pod: *pod })
        };
        let content = Content { boot: self.boot.clone(), held: kept.iter().map(since).collect() };
        let written = match content.held.is_empty() {
            true => state_file::remove(&self.path),
            false => serde_json::to_vec(&content).map_err(io::Error::from).and_then(|json| {
                // The table does not outlast the boot either.
                state_file::replace(&self.path, &kept_text::write(FORMAT, VERSION, &json), Outlasts::Agent)
            }),
        };
        match written {
            Ok(()) => (self.written, self.refused) = (Some(content.held), false),
            Err(error) => {
                // What the file says is not so any more.
                let stale = state_file::remove(&self.path).is_err();
                self.written = None;
                if !std::mem::replace(&mut self.refused, true) {
                    warn!(file = %self.path.display(), %error, stale, "since when addresses of pods are held back for no Service is not kept; after a restart each is held for all of release-after again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::world::Tenant;

    const SECOND: Duration = Duration::from_secs(1);

    fn kept(for_nobody: Duration) -> BTreeMap<IpAddr, Kept> {
        let pod = Tenant::of("web-1", false).pod();
        [("10.244.1.7".parse().unwrap(), Kept { for_nobody, pod })].into()
    }

    /// How long the address was nobody's, by the file.
    fn for_nobody(file: &mut HeldFile, up: Duration) -> Option<Duration> {
        let read = file.read(up);
        read.values().next().inspect(|it| assert!(it.pod.is_some())).map(|it| it.for_nobody)
    }

    #[test]
    fn what_is_kept_is_read_in_the_same_boot_alone_and_never_makes_an_address_older() {
        let folder = tempfile::tempdir().unwrap();
        let file = |boot: &str| HeldFile::of(folder.path(), boot);
        assert_eq!(for_nobody(&mut file("one"), SECOND), None);
        file("one").write(&kept(100 * SECOND), 1000 * SECOND);
        let later = for_nobody(&mut file("one"), 1050 * SECOND).expect("it is kept");
        assert!(later <= 150 * SECOND && later > 145 * SECOND, "{later:?}");
        assert_eq!(
            for_nobody(&mut file("one"), 10 * SECOND),
            Some(Duration::ZERO),
            "a time that is yet to come is now"
        );
        assert_eq!(for_nobody(&mut file("two"), 1050 * SECOND), None, "the table of that boot is gone");
        file("").write(&kept(SECOND), 2000 * SECOND);
        assert_eq!(for_nobody(&mut file(""), 2050 * SECOND), None);
        assert!(for_nobody(&mut file("one"), 1050 * SECOND).is_some(), "who does not know its boot writes nothing");
        for restart in 1..=20 {
            let (mut next, up) = (file("one"), 1050 * SECOND + restart * SECOND / 3);
            let kept = next.read(up);
            next.write(&kept, up);
            let now = for_nobody(&mut next, 1050 * SECOND);
            assert_eq!(now, Some(later), "no restart makes it younger");
        }
    }

    #[test]
    fn a_file_that_is_damaged_says_nothing_and_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = HeldFile::of(folder.path(), "one");
        file.write(&kept(SECOND), 100 * SECOND);
        let path = folder.path().join("egress-held");
        let text = fs::read(&path).unwrap();
        let mut flipped = text.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&b""[..], b"{}", b"\xff\xfe", &text[..text.len() - 1], &flipped] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(for_nobody(&mut file, 200 * SECOND), None, "{}", String::from_utf8_lossy(damaged));
        }
        let mut next = HeldFile::of(folder.path(), "one");
        next.write(&kept(2 * SECOND), 200 * SECOND);
        assert!(for_nobody(&mut file, 201 * SECOND).is_some());
        next.write(&BTreeMap::new(), 202 * SECOND);
        assert!(!path.exists(), "nothing is held");
    }

    #[test]
    fn it_is_written_only_when_something_else_is_to_be_kept_and_what_cannot_be_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("egress-held");
        let mut file = HeldFile::of(folder.path(), "one");
        file.write(&kept(SECOND), 100 * SECOND);
        fs::remove_file(&path).unwrap();
        file.write(&kept(51 * SECOND), 150 * SECOND);
        assert!(!path.exists(), "it is held since then");
        file.write(&kept(SECOND), 200 * SECOND);
        assert!(path.exists(), "it was somebody's meanwhile");
        fs::create_dir(folder.path().join("egress-held.new")).unwrap();
        file.write(&kept(SECOND), 300 * SECOND);
        assert!(!path.exists(), "what it said is not so any more");
    }
}
