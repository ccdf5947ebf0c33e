//! The last World on disk, so that an agent that starts while the API server is away uses the last known state. Floor 3.
//!
//! One Fact a line, as JSON; a line that cannot be read is skipped with a warning. Written to another file and
//! renamed, so that a crash leaves the previous file.

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::world::{Fact, World};

/// The file of remembered facts in a state folder.
#[derive(Debug, Clone)]
pub struct Memory {
    file: PathBuf,
}

impl Memory {
    /// Creates the folder if it does not exist.
    pub fn open(folder: &Path) -> io::Result<Memory> {
        fs::create_dir_all(folder)?;
        Ok(Memory { file: folder.join("world.jsonl") })
    }

    pub fn path(&self) -> &Path {
        &self.file
    }

    /// What is remembered; nothing if nothing was ever kept.
    pub fn recall(&self) -> io::Result<Vec<Fact>> {
        let file = match fs::File::open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut facts = Vec::new();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            match serde_json::from_str(&line?) {
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
    use super::*;
    use crate::names::ObjectKey;

    #[test]
    fn what_was_kept_is_recalled_and_a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::open(&folder.path().join("state")).unwrap();
        assert!(memory.recall().unwrap().is_empty(), "nothing was kept yet");

        let mut world = World::default();
        let fact = Fact::Assigned(ObjectKey::new("shop", "web"), vec!["192.0.2.1".parse().unwrap()]);
        world.apply(fact.clone());
        memory.keep(&world).unwrap();
        assert_eq!(memory.recall().unwrap(), std::slice::from_ref(&fact));

        let mut text = fs::read_to_string(memory.path()).unwrap();
        text.push_str("{\"Assigned\":[\"shop/w");
        fs::write(memory.path(), text).unwrap();
        assert_eq!(memory.recall().unwrap(), [fact]);
    }
}
