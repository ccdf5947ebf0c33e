//! How a planner takes over another configuration while it runs. Floor 1, a part of [`Planner`].
//!
//! What the planner remembers stays: who holds an address, since when, and what rests. Every Service is judged again by the next
//! turn, and what is decided as before moves nothing.

use std::sync::Arc;

use super::Planner;
use crate::config::Config;

impl Planner {
    /// Decides by this configuration from the next turn on. It was checked, and no difference needs a restart.
    pub(super) fn adopt(&mut self, config: Arc<Config>) {
        // One that was chosen stays: with another, every session would begin anew.
        if config.bgp.router_id.is_some() {
            self.moved.bgp |= self.plan.bgp.router_id.is_some() && self.plan.bgp.router_id != config.bgp.router_id;
            self.plan.bgp.router_id = self.plan.bgp.router_id.and(config.bgp.router_id);
        }
        self.in_force.adopt(config, &self.world);
        self.book.follow(self.in_force.config());
    }

    /// The prefix of a link that a pool names may be another one.
    pub(super) fn renew_prefixes(&mut self) {
        if self.in_force.renew_prefixes(&self.world) {
            self.book.follow(self.in_force.config());
            self.dirty.everything = true;
        }
    }
}
