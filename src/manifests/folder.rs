//! The folder of manifests: read at the start, and again whenever something in it changes. Floor 2.
//!
//! One task, [`run`], owned by the agent; it owns nothing but what it has read, and may be cancelled at any time.
//!
//! The folder is read twice a second rather than watched by inotify. inotify sees nothing on network file systems and loses a
//! folder when the folder itself or a link in its path is replaced, as kubelet does with a ConfigMap. A look at the folder
//! costs only a few microseconds for each file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use crate::manifests::document::{self, Contents, Fault, Format};
use crate::manifests::scene::{Duplicate, Extent, Scene, Stay};
use crate::world::{ApiServer, Area, Fact, HostProblem};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A change is read once the folder has been the same for this long: most writers have come to the end then.
const SETTLE: Duration = Duration::from_millis(50);
/// How often it is waited for the folder to be the same. One in which something is written all the time is read all the same.
const SETTLES: usize = 40;
/// What files lost is believed once the folder was the same at so many looks, two seconds. Whoever writes a file slowly
/// (`kubectl get … > all.yaml`), takes files away to write them anew (`git checkout`, `rsync --delete-before`), or puts the
/// outcome of a failure in place, has come to the end by then, or has mended it.
const STANDS_AFTER: u32 = 4;
/// Where something is written all the time, what is lost for so many looks is believed all the same.
const LOST_AFTER: u32 = 5 * STANDS_AFTER;
/// The longest manifest, in octets: several times that of 10,000 Services.
const LONGEST: u64 = 256 << 20;
/// What is told of the folder at once.
const MOST_PROBLEMS: usize = 20;
/// Of how many missing objects the names are told.
const MOST_NAMED: usize = 5;

/// Tells what the manifests in `folder` say, then what changes, until the receiver of the Facts is gone. What files lost, and files
/// that are gone, are believed after [`STANDS_AFTER`]. A file that cannot be read, or a folder that is gone, withdraws nothing, and
/// is a problem that is told. Folders inside `folder` are not read.
///
/// `before` tells once what was known before the start: what the folder lacks of that counts as lost.
pub async fn run(folder: PathBuf, before: oneshot::Receiver<Vec<Fact>>, facts: mpsc::Sender<Fact>) {
    if facts.send(Fact::ApiServer(ApiServer::Manifests)).await.is_err() {
        return;
    }
    let mut reader = Reader::of(folder);
    // Whoever tells nothing knows nothing.
    reader.scene.remember(before.await.unwrap_or_default());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let look = reader.look();
        if let Some(problems) = reader.news_of_problems()
            && facts.send(problems).await.is_err()
        {
            return;
        }
        let Some(mut look) = look else {
            for fact in reader.news_without_folder() {
                if facts.send(fact).await.is_err() {
                    return;
                }
            }
            continue;
        };
        let is_same = reader.seen.as_ref() == Some(&look);
        if is_same && !reader.scene.has_lost_any() {
            continue;
        }
        let is_first = reader.seen.is_none();
        for _ in (0..SETTLES).filter(|_| !is_first && !is_same) {
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

/// A file has changed if any of this differs. A link of a ConfigMap that now points to another file has another inode. All is zero
/// where the file is there and nothing can be known of it: a link in a loop or to what is not there, a folder that may not be
/// entered, a stale handle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// At how many looks since the last change the folder was the same.
    same: u32,
    /// How many objects of before the start were missing when that was last logged.
    missing: usize,
    /// What was known before the start was told, without the folder.
    told_before: bool,
    /// The duplicates that were logged.
    duplicates: Vec<Duplicate>,
    /// Why the folder cannot be read; kept so that it is logged once.
    trouble: Option<String>,
    /// The files that cannot be read, each with why.
    faults: BTreeMap<String, String>,
    /// The problems that were told.
    told: Vec<HostProblem>,
}

impl Reader {
    fn of(folder: PathBuf) -> Reader {
        Reader {
            folder,
            scene: Scene::default(),
            seen: None,
            same: 0,
            missing: 0,
            told_before: false,
            duplicates: Vec::new(),
            trouble: None,
            faults: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    /// All that is wrong with the folder, if that is news.
    fn news_of_problems(&mut self) -> Option<Fact> {
        let problems = self.problems();
        if problems == self.told {
            return None;
        }
        self.told.clone_from(&problems);
        Some(Fact::Problems(Area::Manifests, problems))
    }

    /// What was known before the start, once, where the folder could not be read since: it is all that is known, and nobody need wait for more.
    fn news_without_folder(&mut self) -> Vec<Fact> {
        let knows_any = self.scene.missing().len() > 0;
        if self.seen.is_some() || !knows_any || std::mem::replace(&mut self.told_before, true) {
            return Vec::new();
        }
        self.scene.news().facts
    }

    fn problems(&self) -> Vec<HostProblem> {
        let of_folder = self.trouble.iter().map(|why| HostProblem {
            problem: format!("the folder of manifests {} cannot be read: {why}", self.folder.display()),
            remedy: "its last contents stay in use; see [manifests] folder".to_owned(),
        });
        let of_file = self.faults.iter().map(|(file, why)| HostProblem {
            problem: format!("the manifest {file} cannot be read: {why}"),
            remedy: match self.scene.knows(file) {
                true => "its last contents stay in use until it is mended".to_owned(),
                false => "nothing of it is used until it is mended".to_owned(),
            },
        });
        let of_before = self.missing().into_iter();
        let of_object = self.duplicates.iter().map(|Duplicate { subject, taken, ignored }| HostProblem {
            problem: format!("{subject} is described by {taken} and by {ignored}"),
            remedy: format!("{taken} is used; remove it from one of the two"),
        });
        let mut all = of_folder.chain(of_before).chain(of_file).chain(of_object);
        let mut problems: Vec<HostProblem> = all.by_ref().take(MOST_PROBLEMS).collect();
        let more = all.count();
        if more > 0 {
            let problem = format!("{more} more things are wrong with the folder of manifests");
            problems.push(HostProblem { problem, remedy: "see the log of this agent".to_owned() });
        }
        problems
    }

    /// That objects of before the start are in no manifest, once the folder was read.
    fn missing(&self) -> Option<HostProblem> {
        let missing = self.scene.missing();
        let count = missing.len();
        if count == 0 || self.seen.is_none() {
            return None;
        }
        let mut names = missing.take(MOST_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if count > MOST_NAMED {
            names += &format!(", and {} more", count - MOST_NAMED);
        }
        let folder = self.folder.display();
        let problem = format!("no manifest in {folder} describes what this agent knew before it was started: {names}");
        let remedy = match self.scene.stay() {
            Stay::UntilRead => "all of that stays in use until every manifest can be read",
            Stay::Empty => {
                "the folder describes no object at all: all of that stays in use for two minutes after the start; mount the folder, or put \
                 the manifests there"
            }
            Stay::Lacks => {
                "all of that stays in use until the folder has been the same for two seconds; put back what is to stay for longer"
            }
        };
        Some(HostProblem { problem, remedy: remedy.to_owned() })
    }

    /// Logs what has become of the objects of before the start.
    fn log_missing(&mut self) {
        let count = self.scene.missing().len();
        if count == self.missing {
            return;
        }
        match self.missing() {
            Some(problem) => warn!(objects = count, %problem, "objects of before the start are missing"),
            None => info!(
                objects = self.missing,
                "no object of before the start is missing any more, or they were given up"
            ),
        }
        self.missing = count;
    }

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
        self.same = if seen == look { self.same.saturating_add(1) } else { 0 };
        self.scene.count_look();
        for gone in seen.keys().filter(|file| !look.contains_key(*file)) {
            if self.scene.drop_file(gone) {
                info!(
                    file = gone,
                    "a manifest is gone; its objects stay until the folder has been the same for two seconds"
                );
            }
        }
        self.faults.retain(|file, _| look.contains_key(file));
        let mut missed = Vec::new();
        for (file, Look { inode, length, .. }) in look.iter().filter(|(file, look)| seen.get(*file) != Some(*look)) {
            self.faults.remove(file);
            match read(&self.folder.join(file)) {
                Ok(Contents { entries, skipped }) => {
                    for kind in skipped {
                        debug!(file, kind, "skipped: nothing that crier reads");
                    }
                    let extent = Extent { inode: *inode, octets: *length };
                    if self.scene.take(file, entries, extent) {
                        info!(
                            file,
                            "a manifest lost objects, or is shorter and its last object is another; what was stays until the folder has been the same for two seconds"
                        );
                    }
                }
                Err(Unreadable::Gone) => missed.push(file.clone()),
                Err(Unreadable::NoFile(what)) => {
                    warn!(file, what, "a manifest is no file; its last contents stay in use");
                    self.faults.insert(file.clone(), what.to_owned());
                    // It may never have been one, so what the lists lack is not known to be missing.
                    if self.scene.knows(file) {
                        self.scene.spoil(file);
                    }
                }
                Err(Unreadable::File(error)) => {
                    warn!(file, %error, "a manifest cannot be read; its last contents stay in use");
                    self.faults.insert(file.clone(), error.to_string());
                    self.scene.spoil(file);
                }
                Err(Unreadable::Text(Fault { line, problem })) => {
                    warn!(
                        file,
                        line,
                        problem = problem.to_string(),
                        "a manifest has a fault; its last contents stay in use"
                    );
                    self.faults.insert(file.clone(), format!("line {line}: {problem}"));
                    self.scene.spoil(file);
                }
            }
        }
        // The next look tells what became of them.
        for file in missed {
            match seen.get(&file) {
                Some(before) => drop(look.insert(file, before.clone())),
                None => drop(look.remove(&file)),
            }
        }
        self.scene.let_go(if self.same >= STANDS_AFTER { 0 } else { LOST_AFTER });
        self.seen = Some(look);
        let news = self.scene.news();
        for duplicate in news.duplicates.iter().filter(|duplicate| !self.duplicates.contains(duplicate)) {
            let Duplicate { subject, taken, ignored } = duplicate;
            warn!(object = %subject, taken, ignored, "an object is described twice; the first file by name is used");
        }
        self.duplicates = news.duplicates;
        self.log_missing();
        // First of all, so that nobody takes a folder for sound that is not.
        self.news_of_problems().into_iter().chain(news.facts).collect()
    }
}

enum Unreadable {
    Gone,
    /// What it is in the place of a file.
    NoFile(&'static str),
    File(io::Error),
    Text(Fault),
}

fn read(path: &Path) -> Result<Contents, Unreadable> {
    let text = text_of(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let format = Format::of(&name).unwrap_or(Format::Yaml);
    document::read(&text, format).map_err(Unreadable::Text)
}

/// Whatever became of the file since the look at the folder: a pipe is not waited for, and no file fills the memory.
fn text_of(path: &Path) -> Result<String, Unreadable> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => not_found(path),
        _ => Unreadable::File(error),
    };
    must_be_file(&fs::metadata(path).map_err(unreadable)?)?;
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    must_be_file(&file.metadata().map_err(unreadable)?)?;
    let mut text = String::new();
    match file.take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)? {
        octets if octets as u64 > LONGEST => {
            let why = format!("longer than {} MiB", LONGEST >> 20);
            Err(Unreadable::File(io::Error::new(io::ErrorKind::FileTooLarge, why)))
        }
        _ => Ok(text),
    }
}

fn must_be_file(metadata: &fs::Metadata) -> Result<(), Unreadable> {
    match metadata.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(Unreadable::NoFile("it is a folder")),
        _ => Err(Unreadable::NoFile("it is a device, a pipe or a socket")),
    }
}

/// Nothing is there, or a link that points nowhere.
fn not_found(path: &Path) -> Unreadable {
    match fs::read_link(path) {
        Ok(target) => {
            let why = format!("it is a link to {}, which is not there", target.display());
            Unreadable::File(io::Error::new(io::ErrorKind::NotFound, why))
        }
        Err(_) => Unreadable::Gone,
    }
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
        // Follows links. What cannot be looked at is a file that cannot be read, unless it went since the folder was listed.
        let metadata = match fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            Err(_)
                if fs::symlink_metadata(entry.path()).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) =>
            {
                continue;
            }
            Err(_) => {
                looks.insert(name, Look::default());
                continue;
            }
        };
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
            Watched::start_knowing("", files).await
        }

        /// The agent before this one knew what this text says.
        async fn start_knowing(text: &str, files: &[(&str, &str)]) -> Watched {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            let watched = Watched::start_in(folder.path(), text).await;
            Watched { folder, ..watched }
        }

        /// In a folder of any path, with one of its own beside.
        async fn start_in(path: &Path, known: &str) -> Watched {
            let known = document::read(known, Format::Yaml).expect("it is sound").entries;
            let known = known.into_iter().filter_map(|(subject, content)| subject.says(&content)).collect();
            let (sender, mut facts) = mpsc::channel(64);
            let (before, told_before) = oneshot::channel();
            before.send(known).expect("it is kept");
            let mut task = JoinSet::new();
            task.spawn(run(path.to_owned(), told_before, sender));
            assert_eq!(facts.recv().await, Some(Fact::ApiServer(ApiServer::Manifests)));
            Watched { folder: tempfile::tempdir().unwrap(), facts, _task: task }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        /// Written aside and put in place whole.
        fn replace(&self, name: &str, text: &str) {
            self.write(".new", text);
            fs::rename(self.path(".new"), self.path(name)).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Everything up to the next complete listing: `web:80` or `-web` for each Service told.
        async fn told(&mut self) -> Vec<String> {
            let mut words = Vec::new();
            loop {
                let fact = tokio::time::timeout(Duration::from_secs(120), self.facts.recv()).await;
                match fact.expect("something is told").expect("it runs") {
                    Fact::Service(key, Some(service)) => words.push(format!("{}:{}", key.name, service.ports[0].port)),
                    Fact::Service(key, None) => words.push(format!("-{}", key.name)),
                    Fact::Listed(Listing::EndpointSlices(_)) => return words,
                    Fact::Listed(_) | Fact::Problems(Area::Manifests, _) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        /// How many objects are told up to the next complete listing.
        async fn facts_until_listed(&mut self) -> usize {
            let mut objects = 0;
            loop {
                let fact = tokio::time::timeout(Duration::from_secs(120), self.facts.recv()).await;
                match fact.expect("something is told").expect("it runs") {
                    Fact::Listed(Listing::EndpointSlices(_)) => return objects,
                    Fact::Listed(_) | Fact::Problems(..) => {}
                    _ => objects += 1,
                }
            }
        }

        /// Nothing of any object, for longer than anything is waited for.
        async fn says_nothing(&mut self) {
            self.says_nothing_for(2 * LOST_AFTER).await;
        }

        /// Nothing of any object, for now.
        async fn says_nothing_yet(&mut self) {
            self.says_nothing_for(STANDS_AFTER - 1).await;
        }

        async fn says_nothing_for(&mut self, looks: u32) {
            let object = async {
                loop {
                    match self.facts.recv().await {
                        Some(Fact::Problems(Area::Manifests, _)) => {}
                        other => return other,
                    }
                }
            };
            let fact = tokio::time::timeout(LOOK_EVERY * looks, object).await;
            assert!(fact.is_err(), "it said {fact:?}");
        }

        /// The next problems that are told, each in one line.
        async fn complains(&mut self) -> Vec<String> {
            loop {
                let fact = tokio::time::timeout(Duration::from_secs(60), self.facts.recv()).await;
                if let Fact::Problems(Area::Manifests, problems) = fact.expect("something is told").expect("it runs") {
                    return problems.iter().map(ToString::to_string).collect();
                }
            }
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

    /// B15 of the field cases: what keeps objects from being read is a problem with a name.
    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_of_the_folder_is_told_until_it_is_mended() {
        let bad = service("web", 80).replace("ports", "type: 5, ports");
        let mut watched = Watched::start(&[("a.yaml", &service("dns", 53)), ("w.yaml", &bad)]).await;
        let never = "the manifest w.yaml cannot be read: line 2: Service default/web: invalid type: integer `5`, expected a string; \
                     nothing of it is used until it is mended";
        assert_eq!(watched.complains().await, [never]);
        watched.write("w.yaml", &service("web", 80));
        assert_eq!(watched.complains().await, [""; 0], "it is mended");
        assert_eq!(watched.told().await, ["web:80"]);
        watched.write("w.yaml", "{");
        let said = watched.complains().await;
        assert!(said.len() == 1 && said[0].ends_with("its last contents stay in use until it is mended"), "{said:?}");
        let path = watched.folder.path().to_owned();
        watched.write(".new", &service("dns", 54));
        fs::rename(path.join(".new"), path.join("w.yaml")).unwrap();
        let twice =
            "Service default/dns is described by a.yaml and by w.yaml; a.yaml is used; remove it from one of the two";
        assert_eq!(watched.complains().await, [twice]);
        fs::remove_file(path.join("w.yaml")).unwrap();
        assert_eq!(watched.complains().await, [""; 0], "it is gone");
        let aside = path.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        assert!(watched.complains().await[0].starts_with("the folder of manifests "));
        fs::rename(&aside, &path).unwrap();
        assert_eq!(watched.complains().await, [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_there_and_cannot_be_looked_at_withdraws_nothing() {
        let mut watched = Watched::start(&[("a.yaml", &service("web", 80)), ("b.yaml", &service("dns", 53))]).await;
        assert_eq!(watched.told().await, ["dns:53", "web:80"]);
        let path = watched.folder.path().join("b.yaml");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("b.yaml", &path).unwrap();
        assert!(watched.complains().await[0].starts_with("the manifest b.yaml cannot be read: "), "a link to itself");
        watched.says_nothing().await;
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.told().await, ["-dns"], "deleted is deleted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_in_which_a_file_is_written_all_the_time_is_read() {
        let mut watched = Watched::start(&[("a.yaml", &service("web", 80))]).await;
        assert_eq!(watched.told().await, ["web:80"]);
        let busy = watched.folder.path().join("busy.yaml");
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            for number in 0.. {
                fs::write(&busy, "#".repeat(number % 100)).unwrap();
                sleep(SETTLE / 2).await;
            }
        });
        watched.write("b.yaml", &service("dns", 53));
        assert_eq!(watched.told().await, ["dns:53"]);
        fs::remove_file(watched.path("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["-web"], "it is believed in the end");
    }

    /// B4 of the field cases.
    #[tokio::test(start_paused = true)]
    async fn objects_that_a_file_loses_while_it_is_written_stay_until_it_has_stood() {
        let both = service("dns", 53) + &service("web", 80);
        let mut watched = Watched::start(&[("all.yaml", &both)]).await;
        assert_eq!(watched.told().await, ["dns:53", "web:80"]);
        watched.write("all.yaml", "");
        watched.says_nothing_yet().await;
        watched.write("all.yaml", &service("dns", 53));
        watched.says_nothing_yet().await;
        watched.write("all.yaml", &(service("dns", 54) + &service("web", 80)));
        assert_eq!(watched.told().await, ["dns:54"], "written to the end: only what is new");
        watched.write("all.yaml", &service("dns", 54));
        watched.says_nothing_yet().await;
        assert_eq!(watched.told().await, ["-web"], "it stood");
        fs::remove_file(watched.path("all.yaml")).unwrap();
        watched.says_nothing_yet().await;
        assert_eq!(watched.told().await, ["-dns"], "deleted is deleted");
    }

    /// A mount that comes later, a file that is half written, or of which the disk lost all but the name.
    #[tokio::test(start_paused = true)]
    async fn a_start_in_an_empty_or_half_written_folder_withdraws_nothing_before_the_time_is_over() {
        let both = service("dns", 53) + &service("web", 80);
        for (files, stands) in
            [(vec![], 240), (vec![("all.yaml", "")], 240), (vec![("all.yaml", &*service("dns", 53))], 4)]
        {
            let mut watched = Watched::start_knowing(&both, &files).await;
            let said = watched.complains().await;
            assert!(
                said.len() == 1 && said[0].contains("describes what this agent knew before it was started: "),
                "{said:?}"
            );
            assert!(said[0].contains("Service default/web"), "{said:?}");
            assert_eq!(watched.told().await, [""; 0]);
            watched.says_nothing_for(stands - 2).await;
            watched.write("all.yaml", &both);
            assert_eq!(watched.complains().await, [""; 0], "it is all there");
            watched.says_nothing().await;
            watched.write("all.yaml", &(both.clone() + &service("new", 1)));
            assert_eq!(watched.told().await, ["new:1"]);

            let mut watched = Watched::start_knowing(&both, &files).await;
            watched.told().await;
            let began = tokio::time::Instant::now();
            let gone = watched.told().await;
            assert_eq!(gone.last().map(String::as_str), Some("-web"), "it is believed in the end");
            assert_eq!(gone.len(), if stands == 240 { 2 } else { 1 });
            let looks = began.elapsed().as_millis() / LOOK_EVERY.as_millis();
            assert!((stands - 1..=stands + 2).contains(&u32::try_from(looks).unwrap()), "believed after {looks} looks");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_is_not_there_at_the_start_is_no_reason_to_wait_with_what_was_known() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("m"), folder.path().join("aside"));
        let mut watched = Watched::start_in(&path, &service("web", 80)).await;
        assert!(watched.complains().await[0].contains("cannot be read"));
        assert_eq!(watched.told().await, [""; 0], "the lists name what was known");
        watched.says_nothing_for(1000).await;
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("a.yaml"), service("web", 80) + &service("dns", 53)).unwrap();
        fs::rename(&aside, &path).unwrap();
        assert_eq!(watched.told().await, ["dns:53"]);
    }

    /// The text ends within an EndpointSlice, which is one without endpoints as far as it goes.
    #[tokio::test(start_paused = true)]
    async fn a_text_that_ends_within_an_object_changes_nothing_before_it_has_stood() {
        let slice = "---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata:\n  name: web-1\n  labels:\n    \
                     kubernetes.io/service-name: web\naddressType: IPv4\nports:\n- port: 8080\nendpoints:\n- addresses: [10.0.0.1]\n";
        let whole = service("web", 80) + slice;
        let cuts: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).filter(|at| *at < whole.len()).collect();
        for cut in cuts {
            let mut watched = Watched::start(&[("all.yaml", &whole)]).await;
            watched.facts_until_listed().await;
            watched.write("all.yaml", &whole[..cut]);
            watched.says_nothing_yet().await;
            watched.write("all.yaml", &whole);
            watched.says_nothing().await;
        }
        let mut watched = Watched::start(&[("all.yaml", &whole)]).await;
        watched.facts_until_listed().await;
        let none = whole.replace("endpoints:\n- addresses: [10.0.0.1]\n", "endpoints: []\n");
        watched.write("all.yaml", &none);
        watched.says_nothing_yet().await;
        assert_eq!(watched.facts_until_listed().await, 1, "an edit is taken when it has stood");
        watched.write("all.yaml", &whole);
        assert_eq!(watched.facts_until_listed().await, 1);
        watched.replace("all.yaml", &none);
        let replaced = tokio::time::Instant::now();
        assert_eq!(watched.facts_until_listed().await, 1);
        assert!(replaced.elapsed() < LOOK_EVERY * 2, "put in place whole: at once");
    }

    /// What a command that failed puts in place, and what `git checkout` and `rsync` do.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_replaced_by_less_or_away_for_a_moment_withdraws_nothing() {
        let both = service("dns", 53) + &service("web", 80);
        let mut watched = Watched::start(&[("a.yaml", &both)]).await;
        watched.told().await;
        for less in ["", "{kind: List, items: []}", &service("dns", 53)] {
            watched.replace("a.yaml", less);
            watched.says_nothing_yet().await;
            watched.replace("a.yaml", &both);
            watched.says_nothing().await;
        }
        fs::remove_file(watched.path("a.yaml")).unwrap();
        watched.says_nothing_yet().await;
        watched.write("a.yaml", &both);
        watched.says_nothing().await;
        fs::rename(watched.path("a.yaml"), watched.path("b.yaml")).unwrap();
        watched.says_nothing().await;
        watched.replace("b.yaml", &service("web", 80));
        let replaced = tokio::time::Instant::now();
        assert_eq!(watched.told().await, ["-dns"], "it stood");
        let looks = replaced.elapsed().as_millis() / LOOK_EVERY.as_millis();
        assert!((3..=6).contains(&looks), "believed after {looks} looks");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_to_what_is_gone_and_a_path_that_became_a_folder_withdraw_nothing_and_are_told() {
        let mut watched = Watched::start(&[("b.yaml", &service("dns", 53)), ("target", &service("web", 80))]).await;
        assert_eq!(watched.told().await, ["dns:53"]);
        std::os::unix::fs::symlink("target", watched.path("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["web:80"]);
        fs::remove_file(watched.path("target")).unwrap();
        let of_link = "the manifest a.yaml cannot be read: it is a link to target, which is not there; \
                       its last contents stay in use until it is mended";
        assert_eq!(watched.complains().await, [of_link]);
        watched.says_nothing().await;
        watched.write("target", &service("web", 81));
        assert_eq!(watched.told().await, ["web:81"], "it is there again");
        fs::remove_file(watched.path("b.yaml")).unwrap();
        fs::create_dir(watched.path("b.yaml")).unwrap();
        let of_folder =
            "the manifest b.yaml cannot be read: it is a folder; its last contents stay in use until it is mended";
        assert_eq!(watched.complains().await, [of_folder]);
        watched.says_nothing().await;
        fs::create_dir(watched.path("c.yaml")).unwrap();
        let never = "the manifest c.yaml cannot be read: it is a folder; nothing of it is used until it is mended";
        assert_eq!(watched.complains().await, [of_folder, never]);
        fs::remove_file(watched.path("a.yaml")).unwrap();
        assert_eq!(watched.told().await, ["-web"], "the link itself is gone, and all is known");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_becomes_another_type_for_a_moment_is_not_withdrawn() {
        let typed = |kind: &str| {
            let spec = format!("{{type: {kind}, ports: [{{port: 80}}]}}");
            format!("{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {spec}}}")
        };
        let mut watched = Watched::start(&[("a.yaml", &typed("LoadBalancer"))]).await;
        assert_eq!(watched.told().await, ["web:80"]);
        watched.write("a.yaml", &typed("ClusterIP"));
        watched.says_nothing_yet().await;
        watched.write("a.yaml", &typed("LoadBalancer"));
        watched.says_nothing().await;
        watched.write("a.yaml", &typed("ClusterIP"));
        watched.says_nothing_yet().await;
        assert_eq!(watched.told().await, ["web:80"], "of another type now");
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
