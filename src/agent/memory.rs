//! The last World on disk, so that an agent that starts while the API server is away uses the last known state. Floor 3.
//!
//! The first line names the boot of the kernel in which the file was written; each other line is a Fact, as JSON. Each line has a
//! checksum in front. Endpoints that another boot saw do not count: no pod of this node outlives a boot. A damaged line is
//! skipped with a warning. Written to another file and renamed, so that a crash leaves the previous file.
//!
//! When the file was last changed is when the World was last known to be what the API server has.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::bgp::machine::negotiation::Restart;
use crate::state_file;
use crate::world::{Fact, World};

/// The file of remembered facts in a state folder.
#[derive(Debug, Clone)]
pub struct Memory {
    file: PathBuf,
    /// The kernel's id for this boot; empty where the kernel tells none: then what is remembered counts.
    boot: String,
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Recalled {
    pub facts: Vec<Fact>,
    /// When this was last known to be so; `None` where nothing was ever kept.
    pub as_of: Option<SystemTime>,
    /// Lines that were skipped because they cannot be read.
    pub damaged: usize,
}

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    boot: String,
    /// Version 1 says none, and has no checksums.
    #[serde(default = "without_checksums")]
    version: u32,
}

fn without_checksums() -> u32 {
    1
}

const VERSION: u32 = 2;

/// Hexadecimal digits of a checksum.
const SUM_LEN: usize = 16;

/// The file is never longer: some file systems leave a length without a content.
const LONGEST: u64 = 1 << 30;

/// Nor is any line. An object of the API server has 3 MiB at most.
const LONGEST_LINE: u64 = 16 << 20;

/// Damaged lines that are warned of one by one.
const MOST_WARNED: usize = 8;

/// Another agent runs with the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse;

impl Memory {
    /// Creates the folder if it does not exist. `boot` is the kernel's boot id.
    pub fn open(folder: &Path, boot: &str) -> io::Result<Memory> {
        fs::create_dir_all(folder)?;
        Ok(Memory { file: folder.join("world.jsonl"), boot: boot.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Keeps other agents out of the folder, until the answer is dropped or this process ends, however it does: two agents would
    /// take each other's drain, addresses and sessions for their own. `None` where the folder cannot be locked, as on a disk that
    /// takes no write.
    ///
    /// # Errors
    /// Another agent has it.
    pub fn lock(&self) -> Result<Option<fs::File>, InUse> {
        let file = self.file.with_file_name("lock");
        let opened = state_file::open(&file, fs::OpenOptions::new().create(true).truncate(false).write(true));
        let Ok(file) = opened.inspect_err(|error| {
            warn!(file = %file.display(), %error, "the state folder cannot be locked: a second agent is not kept out of it");
        }) else {
            return Ok(None);
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Err(InUse),
            Err(fs::TryLockError::Error(_)) => Ok(None),
        }
    }

    /// Whether an agent that runs has this state folder.
    pub fn is_in_use(folder: &Path) -> bool {
        let file = state_file::open(&folder.join("lock"), fs::OpenOptions::new().read(true));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Whether a previous agent has kept anything, and whether that was in this boot of the kernel.
    pub fn past(&self) -> Restart {
        let Ok(file) = self.opened() else { return Restart::default() };
        let first = next_line(&mut BufReader::new(file)).ok().flatten().unwrap_or_default();
        let forwarding = heading(&first).is_some_and(|heading| heading.boot == self.boot);
        Restart { restarting: true, forwarding }
    }

    fn opened(&self) -> io::Result<fs::File> {
        state_file::open(&self.file, fs::OpenOptions::new().read(true))
    }

    /// What is remembered; nothing if nothing was ever kept. An error also for a file of a later version and for one without a line: nothing of it is used.
    pub fn recall(&self) -> io::Result<Recalled> {
        let file = match self.opened() {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Recalled::default()),
            Err(error) => return Err(error),
        };
        let known = file.metadata()?;
        if known.len() == 0 {
            // We write a first line into each. Some file systems leave this after a loss of power.
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        let mut recalled = Recalled { as_of: Some(known.modified()?), ..Recalled::default() };
        let (mut same_boot, mut needs_checksum) = (false, false);
        // Octets, for one that is no text costs its line and not the file.
        state_file::is_at_most(&file, LONGEST)?;
        let mut reader = BufReader::new(file.take(LONGEST));
        for number in 0_usize.. {
            let Some(line) = next_line(&mut reader)? else { break };
            if number == 0
                && let Some(Heading { boot, version }) = heading(&line)
            {
                if version > VERSION {
                    let why = format!("it has version {version}, and this crier reads versions 1 to {VERSION}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                (same_boot, needs_checksum) = (boot == self.boot, version > 1);
                continue;
            }
            match fact(&line, needs_checksum) {
                Ok(Fact::EndpointSlice(..)) if !same_boot => {}
                Ok(fact) => recalled.facts.push(fact),
                Err(why) => {
                    recalled.damaged += 1;
                    if recalled.damaged <= MOST_WARNED {
                        warn!(file = %self.file.display(), line = number + 1, reason = why, "a line of the state file is damaged and is skipped");
                    }
                }
            }
        }
        if recalled.damaged > 0 {
            let (damaged, good) = (recalled.damaged, recalled.facts.len());
            warn!(file = %self.file.display(), damaged, good, "the last known state is not whole");
        }
        Ok(recalled)
    }

    /// Keeps the objects of the World, last known to be so at `as_of`. Blocks on the disk. Answers how many octets that took.
    pub fn keep(&self, world: &World, as_of: SystemTime) -> io::Result<u64> {
        let aside = self.file.with_extension("jsonl.new");
        // What a killed agent left, or somebody put there.
        state_file::remove(&aside)?;
        let mut writer = BufWriter::new(fs::File::create_new(&aside)?);
        write_line(&mut writer, &Heading { boot: self.boot.clone(), version: VERSION })?;
        for fact in world.to_remember() {
            write_line(&mut writer, &fact)?;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.set_modified(as_of)?;
        file.sync_all()?;
        let size = file.metadata()?.len();
        fs::rename(&aside, &self.file)?;
        Ok(size)
    }

    /// Says that what was kept was still so at `as_of`. Nothing if nothing was ever kept.
    pub fn confirm(&self, as_of: SystemTime) -> io::Result<()> {
        match state_file::open(&self.file, fs::File::options().append(true)) {
            Ok(file) => file.set_modified(as_of),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The next line without its end, `None` behind the last. Of one that is too long only its beginning, which nobody can read.
fn next_line(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let mut rest = Vec::new();
    while !line.ends_with(b"\n") && !rest.ends_with(b"\n") {
        rest.clear();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut rest)? == 0 {
            return Ok(Some(line));
        }
    }
    line.pop_if(|octet| *octet == b'\n');
    Ok(Some(line))
}

fn write_line(writer: &mut impl Write, content: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(content)?;
    writer.write_all(checksum(&json).as_bytes())?;
    writer.write_all(b" ")?;
    writer.write_all(&json)?;
    writer.write_all(b"\n")
}

/// The first line, of this version or an earlier one.
fn heading(line: &[u8]) -> Option<Heading> {
    serde_json::from_slice(checked(line, false).ok()?).ok()
}

fn fact(line: &[u8], needs_checksum: bool) -> Result<Fact, String> {
    serde_json::from_slice(checked(line, needs_checksum)?).map_err(|error| error.to_string())
}

/// The JSON of a line. Version 1 wrote it without a checksum, and JSON of ours never begins with a digit.
fn checked(line: &[u8], needs_checksum: bool) -> Result<&[u8], String> {
    if !needs_checksum && line.first().is_some_and(|first| *first == b'{') {
        return Ok(line);
    }
    let (sum, rest) = line.split_at_checked(SUM_LEN).ok_or("it is cut off")?;
    let json = rest.strip_prefix(b" ").ok_or("it has no checksum")?;
    match checksum(json).as_bytes() == sum {
        true => Ok(json),
        false => Err("its checksum is wrong".to_owned()),
    }
}

fn checksum(json: &[u8]) -> String {
    Sha256::digest(json).iter().take(SUM_LEN / 2).map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use crate::names::ObjectKey;
    use crate::state_file::hostile::{in_time, make_fifo};
    use crate::world::EndpointSlice;

    fn facts(memory: &Memory) -> Vec<Fact> {
        memory.recall().unwrap().facts
    }

    fn promise(name: &str) -> Fact {
        Fact::Assigned(ObjectKey::new("shop", name), vec!["192.0.2.1".parse().unwrap()])
    }

    #[test]
    fn a_folder_is_one_agents_until_that_one_ends() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["one", "two"].map(|boot| Memory::open(folder.path(), boot).unwrap());
        let lock = first.lock().unwrap().expect("a folder of ours can be locked");
        assert_eq!(second.lock().expect_err("it is the first one's"), InUse);
        assert!(Memory::is_in_use(folder.path()));
        drop(lock);
        assert!(!Memory::is_in_use(folder.path()));
        assert!(second.lock().unwrap().is_some());
    }

    #[test]
    fn an_empty_file_and_a_fifo_are_damage_and_not_a_folder_without_state() {
        for (name, expected) in [("empty", "it is empty"), ("fifo", "it is a FIFO and no regular file")] {
            let folder = tempfile::tempdir().unwrap();
            let memory = Memory::open(folder.path(), "boot").unwrap();
            match name {
                "empty" => fs::write(memory.path(), "").unwrap(),
                _ => {
                    make_fifo(memory.path());
                    make_fifo(&folder.path().join("lock"));
                    make_fifo(&folder.path().join("world.jsonl.new"));
                }
            }
            let (read, path) = (memory.clone(), folder.path().to_owned());
            let refused = in_time(move || {
                assert!(read.lock().is_ok_and(|lock| lock.is_some() == (name == "empty")), "{name}");
                assert!(!Memory::is_in_use(&path), "{name}");
                let _ = read.past();
                drop(read.confirm(clock::wall()));
                read.recall().expect_err(name).to_string()
            });
            assert_eq!(refused, expected);
            let keeps = memory.clone();
            in_time(move || keeps.keep(&World::default(), clock::wall())).expect("it is replaced");
            assert!(memory.recall().is_ok(), "{name}");
        }
    }

    #[test]
    fn what_was_kept_is_recalled_and_a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(&folder.path().join("state"), "this boot").unwrap();
        assert!(facts(&memory).is_empty(), "nothing was kept yet");

        let mut world = World::default();
        let fact = promise("web");
        world.apply(fact.clone());
        memory.keep(&world, clock::wall()).unwrap();
        assert_eq!(facts(&memory), std::slice::from_ref(&fact));

        let text = fs::read(memory.path()).unwrap();
        fs::write(memory.path(), [&text[..], b"0123456789abcdef {\"Assigned\":[\"shop/w"].concat()).unwrap();
        assert_eq!(facts(&memory), std::slice::from_ref(&fact));
        fs::write(memory.path(), [&text[..], b"\xff/w\xfe\n"].concat()).unwrap();
        assert_eq!(facts(&memory), [fact], "octets that are no text cost their line");
    }

    /// A file system may leave a length without a content.
    #[test]
    fn a_huge_file_is_refused_and_a_huge_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), "boot").unwrap();
        let mut world = World::default();
        [promise("a"), promise("b")].into_iter().for_each(|fact| drop(world.apply(fact)));
        memory.keep(&world, clock::wall()).unwrap();
        let text = fs::read(memory.path()).unwrap();
        let at = text.iter().position(|octet| *octet == b'\n').unwrap() + 1;
        let nothing = vec![0; usize::try_from(LONGEST_LINE).unwrap() * 2];
        for end in [&b"\n"[..], b""] {
            let (head, rest) = text.split_at(if end.is_empty() { text.len() } else { at });
            fs::write(memory.path(), [head, &nothing, end, rest].concat()).unwrap();
            let recalled = memory.recall().unwrap();
            assert_eq!((recalled.facts, recalled.damaged), (vec![promise("a"), promise("b")], 1));
        }
        fs::File::create(memory.path()).and_then(|file| file.set_len(16 << 30)).unwrap();
        let refused = memory.recall().expect_err("it is not read").to_string();
        assert_eq!(refused, "it has 17179869184 octets, and crier writes 1073741824 at most");
        assert_eq!(memory.past(), Restart { restarting: true, forwarding: false });
    }

    /// B19 of the field cases: whichever octet of a line is another one, the line is lost and no other, and nothing else is read for it.
    #[test]
    fn a_line_in_which_one_octet_is_wrong_is_lost_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), "boot").unwrap();
        let mut world = World::default();
        let kept = [promise("a"), promise("b"), promise("c")];
        kept.iter().for_each(|fact| drop(world.apply(fact.clone())));
        memory.keep(&world, clock::wall()).unwrap();
        let text = fs::read(memory.path()).unwrap();
        let starts: Vec<usize> =
            text.iter().enumerate().filter(|(_, octet)| **octet == b'\n').map(|(at, _)| at + 1).collect();
        for at in starts[1]..starts[2] - 1 {
            let mut damaged = text.clone();
            damaged[at] ^= 1;
            fs::write(memory.path(), damaged).unwrap();
            let recalled = memory.recall().unwrap();
            assert_eq!(recalled.facts, [kept[0].clone(), kept[2].clone()], "octet {at}");
            assert_eq!(recalled.damaged, 1, "octet {at}");
        }
        // Without the first line nobody knows of which boot it is; the rest counts.
        fs::write(memory.path(), &text[1..]).unwrap();
        assert_eq!((facts(&memory), memory.past().forwarding), (kept.to_vec(), false));
    }

    #[test]
    fn a_file_of_version_1_is_read_and_one_of_a_later_version_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), "boot").unwrap();
        let line = serde_json::to_string(&promise("web")).unwrap();
        fs::write(memory.path(), format!("{{\"boot\":\"boot\"}}\n{line}\n")).unwrap();
        assert_eq!(facts(&memory), [promise("web")]);
        assert!(memory.past().forwarding, "it is of this boot");
        let later = serde_json::to_vec(&Heading { boot: "boot".to_owned(), version: 3 }).unwrap();
        fs::write(memory.path(), format!("{} {}\n", checksum(&later), String::from_utf8(later).unwrap())).unwrap();
        let refused = memory.recall().expect_err("a later crier wrote it").to_string();
        assert_eq!(refused, "it has version 3, and this crier reads versions 1 to 2");
        // In a file with checksums, a line without one is damaged.
        memory.keep(&World::default(), clock::wall()).unwrap();
        let text = fs::read_to_string(memory.path()).unwrap();
        fs::write(memory.path(), format!("{text}{line}\n")).unwrap();
        assert_eq!(memory.recall().unwrap().damaged, 1);
    }

    #[test]
    fn it_is_known_when_the_world_was_last_so() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(folder.path(), "boot").unwrap();
        assert_eq!(memory.recall().unwrap().as_of, None);
        memory.confirm(clock::wall()).expect("there is nothing to confirm");
        let then = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        memory.keep(&World::default(), then).unwrap();
        assert_eq!(memory.recall().unwrap().as_of, Some(then), "and not when it was written");
        let later = then + std::time::Duration::from_secs(60);
        memory.confirm(later).unwrap();
        assert_eq!(memory.recall().unwrap().as_of, Some(later));
    }

    #[test]
    fn endpoints_of_another_boot_are_not_recalled_and_all_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let memory = |boot| Memory::open(folder.path(), boot).unwrap();
        let mut world = World::default();
        let web = EndpointSlice {
            service: ObjectKey::new("shop", "web"),
            family: None,
            ready: Default::default(),
            serving: Default::default(),
            serving_without_node: 1,
            unready: Default::default(),
            addresses: Default::default(),
        };
        let slice = Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(web)));
        let promise = Fact::Assigned(ObjectKey::new("shop", "web"), vec!["192.0.2.1".parse().unwrap()]);
        [slice.clone(), promise.clone()].into_iter().for_each(|fact| drop(world.apply(fact)));
        let past = |boot| memory(boot).past();
        assert_eq!(past("first"), Restart { restarting: false, forwarding: false }, "no agent ran before");
        memory("first").keep(&world, clock::wall()).unwrap();
        assert_eq!(past("first"), Restart { restarting: true, forwarding: true }, "a restart of the agent");
        assert_eq!(
            past("second"),
            Restart { restarting: true, forwarding: false },
            "a reboot loses what the kernel had"
        );
        assert_eq!(facts(&memory("first")).len(), 2, "a restart of the agent");
        assert_eq!(facts(&memory("second")), [promise], "a reboot");
    }
}
