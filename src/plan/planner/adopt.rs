//! How a planner takes over another configuration while it runs. Floor 1, a part of [`Planner`].
//!
//! What the planner remembers stays: who holds an address, since when, and what rests. Every Service is judged again by the next
//! turn, and what is decided as before moves nothing.

use std::sync::Arc;

use super::Planner;
use crate::config::Config;
use crate::plan::context::l2;
use crate::plan::prefixes::Prefixes;

impl Planner {
    /// Decides by this configuration from the next turn on. It was checked, and no difference needs a restart.
    pub(super) fn adopt(&mut self, config: Arc<Config>) {
        self.digests = l2::Digests::of(&config);
        // One that was chosen stays: with another, every session would begin anew.
        if config.bgp.router_id.is_some() {
            self.moved.bgp |= self.plan.bgp.router_id.is_some() && self.plan.bgp.router_id != config.bgp.router_id;
            self.plan.bgp.router_id = self.plan.bgp.router_id.and(config.bgp.router_id);
        }
        self.written = config;
        self.prefixes = Prefixes::of(&self.written, &self.world, &self.prefixes);
        self.resolve();
    }

    /// The prefix of a link that a pool names may be another one.
    pub(super) fn renew_prefixes(&mut self) {
        let prefixes = Prefixes::of(&self.written, &self.world, &self.prefixes);
        if prefixes != self.prefixes {
            self.prefixes = prefixes;
            self.resolve();
            self.dirty.everything = true;
        }
    }

    fn resolve(&mut self) {
        self.config = self.prefixes.resolve(&self.written);
        self.book.follow(&self.config);
    }
}
