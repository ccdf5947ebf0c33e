//! A planner for what is not so: the same World under another configuration. Floor 1, a part of [`Planner`] that
//! `plan::forecast` asks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Planner;
use crate::address::Family;
use crate::config::{Config, L2};
use crate::names::{NodeName, ObjectKey};
use crate::plan::context::L2Context;
use crate::plan::decision::Announcement;
use crate::plan::own_addresses::OwnAddresses;
use crate::plan::prefixes::Prefixes;
use crate::plan::ranking::{Ranking, Wishes, covering};
use crate::plan::restraints::Restraints;
use crate::roster::Member;
use crate::world::World;

/// What an agent knows that its links alone do not tell.
#[derive(Debug, Clone, Default)]
pub struct Presumed {
    /// Of links that pools name.
    pub prefixes: Prefixes,
    /// What hosts and subnets used a moment ago.
    pub own: OwnAddresses,
}

impl Planner {
    /// A planner that was told a whole World and has no plan yet. To it all agents have this configuration. `presumed`: of the agent
    /// that asks.
    pub fn of_agreed(config: Arc<Config>, me: NodeName, world: World, presumed: &Presumed) -> Planner {
        let own = presumed.own.clone();
        let mut planner = Planner { world, own, restraints: Restraints::agreed(), ..Planner::new(config, me) };
        planner.in_force.presume(&presumed.prefixes);
        planner.book.follow(planner.in_force.config());
        planner
    }

    /// When the next address has rested enough, while a Service waits for one.
    pub fn rests_until(&self) -> Option<Instant> {
        self.book.next_deadline()
    }

    /// For each address of a Service that may be announced, the node that is ranked first for it on the link, whoever answers
    /// for it now; `None` where no node may, or no `[[l2]]` covers it.
    pub fn ranked_first(&self, key: &ObjectKey) -> Vec<(IpAddr, Option<NodeName>)> {
        let decision = self.plan.decisions.get(key);
        let (Some(decision), Some(service)) = (decision, self.world.services.get(key)) else { return Vec::new() };
        let Some(rank_by) = decision.announcements.first().map(|it| it.address) else { return Vec::new() };
        let holder = self.l2.memory.placements().get(&rank_by).and_then(|placement| placement.owner.as_ref());
        let first = |it: &Announcement| {
            let tenants = self.book.tenants(it.address).iter().filter_map(|tenant| self.world.services.get(tenant));
            let tenants = std::iter::once(&**service).chain(tenants.map(|service| &**service));
            let covering = covering(self.in_force.config(), &self.context, (&it.pool, it.address), tenants.clone());
            let endpoints = self.world.endpoints(key, Family::of(it.address));
            if covering.is_empty() || endpoints.is_empty() {
                return None;
            }
            let ranking = Ranking::of(
                (service, &endpoints),
                (&covering, Wishes::of(tenants, &self.world)),
                &self.me,
                holder,
                (it.address, rank_by),
            );
            ranking.winner(&self.tickets).ok().filter(|node| self.may_serve(node, &covering)).cloned()
        };
        decision.announcements.iter().map(|it| (it.address, first(it))).collect()
    }

    /// What is heard of the node does not speak against it. Where this node has no link of an `[[l2]]` only the Nodes tell who may
    /// answer there, and they do not tell of links.
    fn may_serve(&self, node: &NodeName, covering: &[(&L2, &L2Context)]) -> bool {
        let mut heard = self.world.rosters.values().filter_map(|roster| roster.members.get(node)).peekable();
        let serves = |member: &Member| covering.iter().any(|(_, context)| context.weight_of(member).is_some());
        heard.peek().is_none() || heard.any(serves)
    }
}
