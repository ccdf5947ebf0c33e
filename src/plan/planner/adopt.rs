//! How a planner takes over another configuration while it runs. Floor 1, a part of [`Planner`].
//!
//! What the planner remembers stays: who holds an address, since when, and what rests. Every Service is judged again by the next
//! turn, and what is decided as before moves nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Planner;
use crate::config::{Config, Kubernetes, Source};
use crate::world::{Fact, Touched};

impl Planner {
    /// Decides by this configuration from the next turn on. It was checked, and no difference needs a restart.
    pub(super) fn adopt(&mut self, config: Arc<Config>) {
        let was_set = self.in_force.config().bgp.router_id.is_some();
        self.note_pools(true);
        self.in_force.adopt(config);
        // One that was chosen stays: with another, every session would begin anew. One that was set goes with its line, as in a restart.
        if was_set || self.in_force.config().bgp.router_id.is_some() {
            let before = self.plan.bgp.router_id.take();
            if before.is_some() {
                self.choose_router_id();
            }
            self.moved.bgp |= self.plan.bgp.router_id != before;
        }
        self.dirty.prefixes = true;
        self.book.follow(self.in_force.config());
        self.note_pools(false);
    }

    /// Remembers what the pools of this file give: a later file may lack them. `prune`: nobody shows an address of a former one.
    pub(super) fn note_pools(&mut self, prune: bool) {
        let config = self.in_force.config();
        if config.is_standalone() {
            return;
        }
        let mut ranges = BTreeSet::clone(&self.world.pools);
        if prune && self.world.listed.services {
            let shown = || self.world.services.values().flat_map(|service| &service.ingress);
            ranges.retain(|(_, first, last)| shown().any(|it| (first..=last).contains(&it)));
        }
        let of_file = config
            .pools
            .iter()
            .flat_map(|pool| pool.addresses.iter().map(|it| (pool.name.clone(), it.first(), it.last())));
        ranges.extend(of_file);
        self.dirty.everything |= self.world.apply(Fact::Pools(Arc::new(ranges))) != Touched::Nothing;
        self.note_leases(prune);
    }

    /// Remembers the Lease of this file: a later file may name another one, or a class that leads to one. `prune`: no condition names it.
    fn note_leases(&mut self, prune: bool) {
        let Source::Kubernetes(Kubernetes { lease, .. }) = &self.in_force.config().source else { return };
        let mut leases = BTreeSet::clone(&self.world.leases);
        if prune && self.world.listed.services {
            let conditions = || self.world.services.values().filter_map(|service| service.condition.as_ref());
            leases.retain(|lease| conditions().any(|condition| condition.is_of(lease)));
        }
        leases.insert(lease.clone());
        self.dirty.everything |= self.world.apply(Fact::Leases(Arc::new(leases))) != Touched::Nothing;
    }

    /// The prefix of a link that a pool names may be another one.
    pub(super) fn renew_prefixes(&mut self, now: Instant) {
        let is_due = self.in_force.prefixes().next_deadline().is_some_and(|at| now >= at);
        if !std::mem::take(&mut self.dirty.prefixes) && !is_due {
            return;
        }
        let leads_anew = std::mem::take(&mut self.dirty.leads_anew) && self.world.allocates;
        if self.in_force.renew_prefixes(&self.me, &self.world, leads_anew, now) {
            self.book.follow(self.in_force.config());
            self.note_pools(false);
            self.dirty.everything = true;
        }
        let away = self.in_force.prefixes().away().map(|(link, away)| (link.clone(), away.clone()));
        self.plan.prefixes_away = Arc::new(away.collect());
    }
}
