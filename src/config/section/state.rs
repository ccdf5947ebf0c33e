//! `[state]`: what the agent keeps across a restart. Floor 1.

use std::path::PathBuf;

use super::{Check, Section, section};
use crate::config::key::path;

section! {
    /// `[state]`
    pub struct State = Section::one("state", "What the agent keeps across a restart."), written as Written;
    keys {
        pub folder: PathBuf = path("folder", "The directory for the last known state of the cluster and for allocations.")
            .default("/var/lib/crier"), touches Restart;
    }
}

impl Check for Written {}
