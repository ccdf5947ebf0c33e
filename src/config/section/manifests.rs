//! `[manifests]`: Services come from files. Floor 1.

use std::path::PathBuf;

use super::{Check, Section, section};
use crate::config::key::path;

section! {
    /// `[manifests]`
    pub struct Manifests = Section::one(
        "manifests",
        "Services come from files, without an API server. Use either this section or [kubernetes].",
    ), written as Written;
    keys {
        pub folder: PathBuf = path("folder", "The directory of *.yaml, *.yml and *.json files. crier reads them again when they change.")
            .set("\"/etc/crier/manifests\""), touches Restart;
    }
}

impl Check for Written {}
