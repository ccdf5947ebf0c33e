//! The configuration in force: as it was written, and with what the links of this node make of it. Floor 1.

use std::sync::Arc;

use crate::config::Config;
use crate::plan::context::l2::Digests;
use crate::plan::prefixes::Prefixes;
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

    /// What the other agents compare with theirs.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Takes another configuration over.
    pub fn adopt(&mut self, config: Arc<Config>, world: &World) {
        self.digests = Digests::of(&config);
        self.written = config;
        self.prefixes = Prefixes::of(&self.written, world, &self.prefixes);
        self.config = self.prefixes.resolve(&self.written);
    }

    /// The prefix of a link that a pool names may be another one; true if it is.
    pub fn renew_prefixes(&mut self, world: &World) -> bool {
        let prefixes = Prefixes::of(&self.written, world, &self.prefixes);
        if prefixes == self.prefixes {
            return false;
        }
        self.prefixes = prefixes;
        self.config = self.prefixes.resolve(&self.written);
        true
    }
}
