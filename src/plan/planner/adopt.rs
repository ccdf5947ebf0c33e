//! How a planner takes over another configuration while it runs. Floor 1, a part of [`Planner`].
//!
//! What the planner remembers stays: who holds an address, since when, and what rests. Every Service is judged again by the next
//! turn, and what is decided as before moves nothing.

use std::sync::Arc;

use super::Planner;
use crate::config::Config;
use crate::plan::context::l2;

impl Planner {
    /// Decides by this configuration from the next turn on. It was checked, and no difference needs a restart.
    pub(super) fn adopt(&mut self, config: Arc<Config>) {
        self.digests = l2::Digests::of(&config);
        self.book.follow(&config);
        // One that was chosen stays: with another, every session would begin anew.
        if config.bgp.router_id.is_some() {
            self.moved.bgp |= self.plan.bgp.router_id.is_some() && self.plan.bgp.router_id != config.bgp.router_id;
            self.plan.bgp.router_id = self.plan.bgp.router_id.and(config.bgp.router_id);
        }
        self.config = config;
    }
}
