//! The folder of manifests: read at the start, and again whenever something in it changes. Floor 2.
//!
//! One task, [`run`], owned by the agent; it owns nothing but what it has read, and may be cancelled at any time.
//!
//! The folder is read twice a second rather than watched by inotify. inotify sees nothing on network file systems and loses a
//! folder when the folder itself or a link in its path is replaced, as kubelet does with a ConfigMap. A look at the folder
//! costs only a few microseconds for each file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use crate::manifests::document::{self, Contents, Entry, Fault, Format};
use crate::manifests::scene::{Duplicate, Scene};
use crate::world::{ApiServer, Fact};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A change is read once the folder has been the same for this long: an editor that writes in place empties the file first, and
/// an empty file would withdraw every object of the file.
const SETTLE: Duration = Duration::from_millis(50);
/// A file that was written in place and lost objects, or all of them, is believed once it was the same at so many looks, three
/// seconds: whoever writes it slowly (`kubectl get … > all.yaml`) has not come to the end yet. A file that was replaced or deleted
/// is believed at once.
const STANDS_AFTER: u32 = 6;

/// Tells what the manifests in `folder` say, then what changes, until the receiver of the Facts is gone. A file that cannot be
/// read, or a folder that is gone, withdraws nothing. Folders inside `folder` are not read.
pub async fn run(folder: PathBuf, facts: mpsc::Sender<Fact>) {
    if facts.send(Fact::ApiServer(ApiServer::Manifests)).await.is_err() {
        return;
    }
    let (scene, shrunk) = (Scene::default(), BTreeMap::new());
    let mut reader = Reader { folder, scene, seen: None, shrunk, duplicates: Vec::new(), trouble: None };
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(mut look) = reader.look() else { continue };
        if reader.seen.as_ref() == Some(&look) {
            continue;
        }
        while reader.seen.is_some() {
            sleep(SETTLE).await;
            match reader.look() {
                Some(newer) if newer != look => look = newer,
                _ => break,
            }
        }
        // Thousands of objects take long enough to read that others should not wait for it.
        let read = spawn_blocking(move || {
            let news = reader.read(look);
            (reader, news)
        });
        let Ok((returned, news)) = read.await else { return };
        reader = returned;
        for fact in news {
            if facts.send(fact).await.is_err() {
                return;
            }
        }
    }
}

/// The manifests of a folder, each with what tells one state of the file from the next.
type Looks = BTreeMap<String, Look>;

/// A file has changed if any of this differs. A link of a ConfigMap that now points to another file has another inode.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    inode: (u64, u64),
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Reader {
    folder: PathBuf,
    scene: Scene,
    /// The files as they were when last read; `None` before the first time.
    seen: Option<Looks>,
    /// Files that lost objects, as they are now, and at how many looks they were so.
    shrunk: BTreeMap<String, (Look, u32)>,
    /// The duplicates that were logged.
    duplicates: Vec<Duplicate>,
    /// Why the folder cannot be read; kept so that it is logged once.
    trouble: Option<String>,
}

impl Reader {
    /// The folder as it is now; `None` if it cannot be read.
    fn look(&mut self) -> Option<Looks> {
        match look(&self.folder) {
            Ok(looks) => {
                if self.trouble.take().is_some() {
                    info!(folder = %self.folder.display(), "the folder of manifests can be read again");
                }
                Some(looks)
            }
            Err(error) => {
                let why = error.to_string();
                if self.trouble.as_ref() != Some(&why) {
                    warn!(folder = %self.folder.display(), why, "the folder of manifests cannot be read; its last contents stay in use");
                }
                self.trouble = Some(why);
                None
            }
        }
    }

    /// Reads the files that changed, and answers with what is news.
    fn read(&mut self, mut look: Looks) -> Vec<Fact> {
        let seen = self.seen.take().unwrap_or_default();
        self.shrunk.retain(|file, (as_is, _)| look.get(file) == Some(as_is));
        let mut waiting = Vec::new();
        for gone in seen.keys().filter(|file| !look.contains_key(*file)) {
            self.scene.drop_file(gone);
        }
        for (file, is) in look.iter().filter(|(file, look)| seen.get(*file) != Some(*look)) {
            match read(&self.folder.join(file)) {
                Ok(Contents { entries, .. }) if self.is_to_stand(file, &entries, seen.get(file), is) => {
                    waiting.push(file.clone());
                }
                Ok(Contents { entries, skipped }) => {
                    for kind in skipped {
                        debug!(file, kind, "skipped: nothing that crier reads");
                    }
                    self.scene.take(file, entries);
                }
                Err(Unreadable::Gone) => self.scene.drop_file(file),
                Err(Unreadable::File(error)) => {
                    warn!(file, %error, "a manifest cannot be read; its last contents stay in use");
                    self.scene.spoil(file);
                }
                Err(Unreadable::Text(Fault { line, problem })) => {
                    warn!(file, line, problem, "a manifest has a fault; its last contents stay in use");
                    self.scene.spoil(file);
                }
            }
        }
        // They are looked at again, as if they had not been read.
        for file in waiting {
            if let Some(before) = seen.get(&file) {
                look.insert(file, before.clone());
            }
        }
        self.seen = Some(look);
        let news = self.scene.news();
        for duplicate in news.duplicates.iter().filter(|duplicate| !self.duplicates.contains(duplicate)) {
            let Duplicate { subject, taken, ignored } = duplicate;
            warn!(object = %subject, taken, ignored, "an object is described twice; the first file by name is used");
        }
        self.duplicates = news.duplicates;
        news.facts
    }
}

impl Reader {
    /// The file lost objects while it was written in place, and has not been the same for long enough.
    fn is_to_stand(&mut self, file: &str, entries: &[Entry], before: Option<&Look>, is: &Look) -> bool {
        let in_place = before.is_some_and(|before| before.inode == is.inode);
        if !in_place || !self.scene.lacks_any(file, entries) {
            return false;
        }
        let (_, looks) = self.shrunk.entry(file.to_owned()).or_insert_with(|| {
            info!(file, "a manifest lost objects; they stay until the file has been the same for some seconds");
            (is.clone(), 0)
        });
        *looks += 1;
        *looks <= STANDS_AFTER
    }
}

enum Unreadable {
    Gone,
    File(io::Error),
    Text(Fault),
}

fn read(path: &Path) -> Result<Contents, Unreadable> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unreadable::Gone,
        _ => Unreadable::File(error),
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let format = Format::of(&name).unwrap_or(Format::Yaml);
    document::read(&text, format).map_err(Unreadable::Text)
}

fn look(folder: &Path) -> io::Result<Looks> {
    let mut looks = Looks::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A name that is not UTF-8 is not that of a manifest.
        let Ok(name) = entry.file_name().into_string() else { continue };
        if Format::of(&name).is_none() {
            continue;
        }
        // Follows links. A link that points nowhere counts as no file.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if !metadata.is_file() {
            continue;
        }
        let look = Look {
            inode: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        looks.insert(name, look);
    }
    Ok(looks)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::task::JoinSet;

    use super::*;
    use crate::world::Listing;

    /// A folder that is watched. Time is virtual and jumps from one look to the next.
    struct Watched {
        folder: TempDir,
        facts: mpsc::Receiver<Fact>,
        _task: JoinSet<()>,
    }

    impl Watched {
        async fn start(files: &[(&str, &str)]) -> Watched {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            let (sender, mut facts) = mpsc::channel(64);
            let mut task = JoinSet::new();
            task.spawn(run(folder.path().to_owned(), sender));
            assert_eq!(facts.recv().await, Some(Fact::ApiServer(ApiServer::Manifests)));
            Watched { folder, facts, _task: task }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.folder.path().join(name), text).unwrap();
        }

        /// Everything up to the next complete listing: `web:80` or `-web` for each Service told.
        async fn told(&mut self) -> Vec<String> {
            let mut words = Vec::new();
            loop {
                let fact = tokio::time::timeout(Duration::from_secs(60), self.facts.recv()).await;
                match fact.expect("something is told").expect("it runs") {
                    Fact::Service(key, Some(service)) => words.push(format!("{}:{}", key.name, service.ports[0].port)),
                    Fact::Service(key, None) => words.push(format!("-{}", key.name)),
                    Fact::Listed(Listing::EndpointSlices(_)) => return words,
                    Fact::Listed(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        async fn says_nothing(&mut self) {
            let fact = tokio::time::timeout(LOOK_EVERY * 5, self.facts.recv()).await;
            assert!(fact.is_err(), "it said {fact:?}");
        }
    }

    fn service(name: &str, port: u16) -> String {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: {port}}}]}}}}\n"
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_is_told_at_the_start_and_at_each_change() {
        let mut watched =
            Watched::start(&[("b.yaml", &service("dns", 53)), ("a.yml", &service("web", 80)), ("c.txt", "no")]).await;
        assert_eq!(watched.told().await, ["dns:53", "web:80"]);
        watched.says_nothing().await;
        watched.write("a.yml", &service("web", 81));
        assert_eq!(watched.told().await, ["web:81"]);
        watched.write(
            "d.json",
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": {"ports": [{"port": 1}]}}"#,
        );
        assert_eq!(watched.told().await, ["api:1"]);
        fs::remove_file(watched.folder.path().join("b.yaml")).unwrap();
        assert_eq!(watched.told().await, ["-dns"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_typo_withdraws_nothing() {
        let mut watched = Watched::start(&[("a.yaml", &service("web", 80))]).await;
        assert_eq!(watched.told().await, ["web:80"]);
        watched.write("a.yaml", "apiVersion: v1\nkind: [Service\n");
        watched.says_nothing().await;
        fs::write(watched.folder.path().join("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
        watched.says_nothing().await;
        watched.write("a.yaml", &service("web", 82));
        assert_eq!(watched.told().await, ["web:82"]);
    }

    /// B4 of the field cases.
    #[tokio::test(start_paused = true)]
    async fn objects_that_a_file_loses_while_it_is_written_stay_until_it_has_stood() {
        let both = service("dns", 53) + &service("web", 80);
        let mut watched = Watched::start(&[("all.yaml", &both)]).await;
        assert_eq!(watched.told().await, ["dns:53", "web:80"]);
        watched.write("all.yaml", "");
        watched.says_nothing().await;
        watched.write("all.yaml", &service("dns", 53));
        watched.says_nothing().await;
        watched.write("all.yaml", &(service("dns", 54) + &service("web", 80)));
        assert_eq!(watched.told().await, ["dns:54"], "written to the end: only what is new");
        watched.write("all.yaml", &service("dns", 54));
        watched.says_nothing().await;
        assert_eq!(watched.told().await, ["-web"], "it stood");
        fs::remove_file(watched.folder.path().join("all.yaml")).unwrap();
        assert_eq!(watched.told().await, ["-dns"], "deleted is deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_replaced_or_deleted_while_it_stands_is_believed_at_once() {
        let both = service("dns", 53) + &service("web", 80);
        let mut watched = Watched::start(&[("a.yaml", &both)]).await;
        watched.told().await;
        let path = watched.folder.path().to_owned();
        watched.write(".new", &service("web", 80));
        fs::rename(path.join(".new"), path.join("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["-dns"], "put in place whole");
        watched.write("a.yaml", "");
        watched.says_nothing().await;
        fs::remove_file(path.join("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["-web"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_renamed_into_place_is_seen() {
        let mut watched = Watched::start(&[("a.yaml", &service("web", 80))]).await;
        watched.told().await;
        watched.write(".a.yaml.swp", &service("web", 99));
        watched.says_nothing().await;
        let path = watched.folder.path();
        fs::rename(path.join(".a.yaml.swp"), path.join("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["web:99"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_config_map_that_is_swapped_is_seen() {
        let mut watched = Watched::start(&[]).await;
        assert_eq!(watched.told().await, [""; 0]);
        let path = watched.folder.path().to_owned();
        for (version, port) in [("..1", 80), ("..2", 81)] {
            fs::create_dir(path.join(version)).unwrap();
            fs::write(path.join(version).join("a.yaml"), service("web", port)).unwrap();
        }
        std::os::unix::fs::symlink("..1", path.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", path.join("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["web:80"]);
        std::os::unix::fs::symlink("..2", path.join("..new")).unwrap();
        fs::rename(path.join("..new"), path.join("..data")).unwrap();
        assert_eq!(watched.told().await, ["web:81"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_gone_withdraws_nothing() {
        let mut watched = Watched::start(&[("a.yaml", &service("web", 80))]).await;
        watched.told().await;
        let (path, aside) = (watched.folder.path().to_owned(), watched.folder.path().with_extension("aside"));
        fs::rename(&path, &aside).unwrap();
        watched.says_nothing().await;
        fs::rename(&aside, &path).unwrap();
        watched.says_nothing().await;
        watched.write("a.yaml", &service("web", 81));
        assert_eq!(watched.told().await, ["web:81"]);
    }
}
