//! Which Services a change of nodes, links or rosters concerns: these are judged again. Floor 1, a part of [`Planner`].

use std::net::IpAddr;
use std::time::Instant;

use super::Planner;
use crate::names::ObjectKey;
use crate::plan::context::Difference;
use crate::plan::holder_memory::RosterChange;
use crate::plan::verdict;
use crate::world::Pulses;

impl Planner {
    /// The Services that have these addresses are judged again.
    pub(super) fn touch(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        self.dirty.services.extend(addresses.flat_map(|address| self.book.tenants(address)).cloned());
    }

    pub(super) fn note_roster_change(&mut self, change: RosterChange) {
        let RosterChange { addresses, nodes, own, returned } = change;
        if returned {
            self.assert_all();
        }
        self.dirty.context |= own || !nodes.is_empty();
        if !nodes.is_empty() {
            // A node that comes or goes matters where there is no holder yet, and where it is the holder.
            self.dirty.services.extend(self.l2.ownership.open().cloned());
            nodes.iter().for_each(|node| self.dirty.services.extend(self.l2.ownership.owned_by(node).cloned()));
        }
        self.touch(addresses.into_iter());
    }

    /// Every Service that is there, and every one that was when it was judged.
    pub(super) fn every_service(&self) -> impl Iterator<Item = &ObjectKey> {
        self.world.services.keys().chain(self.plan.decisions.keys())
    }

    /// The Services that a difference of the context concerns.
    pub(super) fn concerned(&self, difference: Difference, now: Instant) -> Vec<ObjectKey> {
        let nodes = match difference {
            Difference::Everything => return self.every_service().cloned().collect(),
            Difference::Nodes(nodes) => nodes,
        };
        // With pulses, a node that gains asks the holders, and they hear it: what it gains concerns only that node.
        if self.world.pulses != Pulses::Off && nodes.gained.contains(&self.me) {
            return self.every_service().cloned().collect();
        }
        let owned = nodes.changed.iter().flat_map(|node| self.l2.ownership.owned_by(node));
        let mut concerned: Vec<ObjectKey> = owned.chain(self.egress.elected()).cloned().collect();
        if nodes.any {
            concerned.extend(self.l2.ownership.open().cloned());
        }
        if self.world.pulses == Pulses::Off && !nodes.gained.is_empty() {
            let inputs = self.inputs(now);
            let outranked = self.plan.decisions.iter().filter(|(key, it)| verdict::l2::is_outranked(&inputs, key, it));
            concerned.extend(outranked.map(|(key, _)| key.clone()));
            if nodes.gained.contains(&self.me) {
                // What is answered here still goes on, whoever ranks first.
                let answered = self.world.answering.keys().flat_map(|address| self.book.tenants(*address));
                concerned.extend(answered.cloned());
            }
        }
        concerned
    }
}
