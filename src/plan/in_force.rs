//! The configuration in force: as it was written, and with what the links of this node make of it. Floor 1.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::names::{InterfaceName, NodeName};
use crate::plan::context::l2::Digests;
use crate::plan::prefixes::{Prefixes, Seen};
use crate::roster::Roster;
use crate::world::World;

/// See the module's documentation.
pub struct InForce {
    written: Arc<Config>,
    prefixes: Prefixes,
    /// What everything goes by: pools have whole addresses.
    config: Arc<Config>,
    digests: Digests,
}

impl InForce {
    pub fn new(config: Arc<Config>) -> InForce {
        let digests = Digests::of(&config);
        InForce { written: config.clone(), prefixes: Prefixes::default(), config, digests }
    }

    /// With whole addresses.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// As it was written: the same on all nodes whose files are alike, whatever their links are.
    pub fn written(&self) -> &Arc<Config> {
        &self.written
    }

    /// What the other agents compare with theirs.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// What another planner knows of prefixes.
    pub fn presume(&mut self, prefixes: &Prefixes) {
        self.prefixes = prefixes.only_of(&self.written);
        self.config = self.prefixes.resolve(&self.written);
    }

    /// Takes another configuration over. The prefix of a link that only this one names is not known yet.
    pub fn adopt(&mut self, config: Arc<Config>) {
        self.digests = Digests::of(&config);
        self.written = config;
        self.prefixes = self.prefixes.only_of(&self.written);
        self.config = self.prefixes.resolve(&self.written);
    }

    /// The prefix of a link that a pool names may be another one; true if it is.
    pub fn renew_prefixes(&mut self, me: &NodeName, world: &World, leads_anew: bool, now: Instant) -> bool {
        let prefixes = Prefixes::of(&Seen { config: &self.written, me, world, leads_anew, now }, &self.prefixes);
        let is_other = !prefixes.are_those_of(&self.prefixes);
        self.prefixes = prefixes;
        if is_other {
            self.config = self.prefixes.resolve(&self.written);
        }
        is_other
    }

    /// A pool names the link.
    pub fn follows(&self, link: &InterfaceName) -> bool {
        self.written.pools.iter().any(|pool| pool.prefix_of.as_ref() == Some(link))
    }

    /// Takes in what others say on a link; true where a prefix depends on it.
    pub fn note_roster(&mut self, link: &InterfaceName, roster: &Roster) -> bool {
        self.prefixes.note_roster(link, roster)
    }
}
