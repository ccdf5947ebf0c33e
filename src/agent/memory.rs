//! The last World on disk, so that an agent that starts while the API server is away uses the last known state. Floor 3.
//!
//! The first line names the boot of the kernel in which the file was written; each other line is a Fact, as JSON. Endpoints
//! that another boot saw do not count: no pod of this node outlives a boot. A line that cannot be read is skipped with a
//! warning. Written to another file and renamed, so that a crash leaves the previous file.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::bgp::machine::negotiation::Restart;
use crate::world::{Fact, World};

/// The file of remembered facts in a state folder.
#[derive(Debug, Clone)]
pub struct Memory {
    file: PathBuf,
    /// The kernel's id for this boot; empty where the kernel tells none: then what is remembered counts.
    boot: String,
}

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    boot: String,
}

impl Memory {
    /// Creates the folder if it does not exist. `boot` is the kernel's boot id.
    pub fn open(folder: &Path, boot: &str) -> io::Result<Memory> {
        fs::create_dir_all(folder)?;
        Ok(Memory { file: folder.join("world.jsonl"), boot: boot.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Whether an agent before this one has kept anything, and whether that was in this boot of the kernel.
    pub fn past(&self) -> Restart {
        let Ok(file) = fs::File::open(&self.file) else { return Restart::default() };
        let first = BufReader::new(file).split(b'\n').next().and_then(Result::ok).unwrap_or_default();
        let heading = serde_json::from_slice(&first).ok();
        Restart { restarting: true, forwarding: heading.is_some_and(|Heading { boot }| boot == self.boot) }
    }

    /// What is remembered; nothing if nothing was ever kept.
    pub fn recall(&self) -> io::Result<Vec<Fact>> {
        let file = match fs::File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut facts = Vec::new();
        let mut same_boot = false;
        // Octets, for one that is no text costs its line and not the file.
        for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
            let line = line?;
            if number == 0
                && let Ok(Heading { boot }) = serde_json::from_slice(&line)
            {
                same_boot = boot == self.boot;
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(Fact::EndpointSlice(..)) if !same_boot => {}
                Ok(fact) => facts.push(fact),
                Err(error) => {
                    tracing::warn!(file = %self.file.display(), line = number + 1, %error, "a fact of the state file cannot be read and is skipped");
                }
            }
        }
        Ok(facts)
    }

    /// Keeps the objects of the World. Blocks on the disk.
    pub fn keep(&self, world: &World) -> io::Result<()> {
        let aside = self.file.with_extension("jsonl.new");
        let mut writer = BufWriter::new(fs::File::create(&aside)?);
        serde_json::to_writer(&mut writer, &Heading { boot: self.boot.clone() })?;
        writer.write_all(b"\n")?;
        for fact in world.to_remember() {
            serde_json::to_writer(&mut writer, &fact)?;
            writer.write_all(b"\n")?;
        }
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        fs::rename(&aside, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::ObjectKey;
    use crate::world::EndpointSlice;

    #[test]
    fn what_was_kept_is_recalled_and_a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(&folder.path().join("state"), "this boot").unwrap();
        assert!(memory.recall().unwrap().is_empty(), "nothing was kept yet");

        let mut world = World::default();
        let fact = Fact::Assigned(ObjectKey::new("shop", "web"), vec!["192.0.2.1".parse().unwrap()]);
        world.apply(fact.clone());
        memory.keep(&world).unwrap();
        assert_eq!(memory.recall().unwrap(), std::slice::from_ref(&fact));

        let text = fs::read(memory.path()).unwrap();
        fs::write(memory.path(), [&text[..], b"{\"Assigned\":[\"shop/w"].concat()).unwrap();
        assert_eq!(memory.recall().unwrap(), std::slice::from_ref(&fact));
        fs::write(memory.path(), [&b"{\"boot\":\"this boot\"}\n{\"Assigned\":[\"\xff/w\xfe\"\n"[..], &text].concat())
            .unwrap();
        assert_eq!(memory.recall().unwrap(), [fact], "octets that are no text cost their line");
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
            addresses: Default::default(),
        };
        let slice = Fact::EndpointSlice(ObjectKey::new("shop", "web-1"), Some(Arc::new(web)));
        let promise = Fact::Assigned(ObjectKey::new("shop", "web"), vec!["192.0.2.1".parse().unwrap()]);
        [slice.clone(), promise.clone()].into_iter().for_each(|fact| drop(world.apply(fact)));
        let past = |boot| memory(boot).past();
        assert_eq!(past("first"), Restart { restarting: false, forwarding: false }, "no agent ran before");
        memory("first").keep(&world).unwrap();
        assert_eq!(past("first"), Restart { restarting: true, forwarding: true }, "a restart of the agent");
        assert_eq!(
            past("second"),
            Restart { restarting: true, forwarding: false },
            "a reboot loses what the kernel had"
        );
        assert_eq!(memory("first").recall().unwrap().len(), 2, "a restart of the agent");
        assert_eq!(memory("second").recall().unwrap(), [promise], "a reboot");
    }
}
