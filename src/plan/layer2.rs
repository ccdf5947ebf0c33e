//! What the planner keeps of layer 2: what each Service's judgement wants on the links, what is remembered of addresses and their
//! holders, and how this node stands among the others. Floor 1.

use std::time::Instant;

use crate::plan::holder::Grade;
use crate::plan::holder_memory::HolderMemory;
use crate::plan::link_memory::LinkMemory;
use crate::plan::ownership::Ownership;
use crate::world::World;

/// See the module's documentation.
pub struct Layer2 {
    pub ownership: Ownership,
    pub memory: LinkMemory,
    pub holders: HolderMemory,
    grade: Grade,
    stale: bool,
}

/// What of this node's standing is not what it was at the last turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub graded: bool,
    pub hearing: Hearing,
}

/// Whether this node hears the API server, or did not for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    AsBefore,
    /// It asks nobody any more.
    Lost,
    /// It may be better than holders that it did not ask.
    Back,
}

impl Default for Layer2 {
    fn default() -> Layer2 {
        let (ownership, memory, holders) = <(Ownership, LinkMemory, HolderMemory)>::default();
        Layer2 { ownership, memory, holders, grade: Grade::Eligible, stale: false }
    }
}

impl Layer2 {
    /// This node's own, as of the last turn.
    pub fn grade(&self) -> Grade {
        self.grade
    }

    /// How this node stands among the others now.
    pub fn renew_standing(&mut self, world: &World, now: Instant) -> Standing {
        self.holders.note_time(world, now);
        let grade = self.holders.grade(world, now);
        let stale = self.holders.is_stale(now);
        let graded = std::mem::replace(&mut self.grade, grade) != grade;
        let hearing = match (std::mem::replace(&mut self.stale, stale), stale) {
            (false, true) => Hearing::Lost,
            (true, false) => Hearing::Back,
            (false, false) | (true, true) => Hearing::AsBefore,
        };
        Standing { graded, hearing }
    }

    /// Everything that this node answers for is announced once more.
    pub fn assert_all(&mut self) {
        self.holders.assert_all(self.ownership.answers().keys().copied());
    }
}
