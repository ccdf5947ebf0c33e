//! `[state]`: what the agent keeps across a restart. Floor 1.

use std::path::PathBuf;
use std::time::Duration;

use super::{Check, Section, section};
use crate::config::key::{duration, path};

pub(in crate::config) const DEFAULT_FOLDER: &str = "/var/lib/crier";

section! {
    /// `[state]`
    pub struct State = Section::one("state", "What the agent keeps across a restart."), written as Written;
    keys {
        pub folder: PathBuf = path("folder", "The directory for the last known state of the cluster and for allocations.")
            .default(DEFAULT_FOLDER), touches Restart;
        /// Zero: no limit. Judged when an agent starts that cannot reach the API server.
        pub max_age: Duration = duration("max-age", Duration::ZERO, Duration::from_secs(366 * 86_400),
            "How old the last known state of the cluster may be for an agent to start with it while the API server is away; \
             \"0s\" sets no limit.")
            .default("0s")
            .trade("An agent that starts with a state that is too old announces nothing before the API server answers. An agent \
                 that runs goes on without a limit. Without [kubernetes], no state is too old."), touches Restart;
    }
}

impl Check for Written {}
