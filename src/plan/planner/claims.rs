//! How the planner keeps the address book: what each Service claims, and what is not to be given to any. Floor 1, a part of
//! [`Planner`]: the book says who may have an address, the verdict what a Service claims.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Planner;
use crate::address::MacAddress;
use crate::names::ObjectKey;
use crate::plan::address_book::Claim;
use crate::plan::allocate::pool_of;
use crate::plan::decision::Decision;
use crate::plan::link_memory::OCCUPIED_REST;
use crate::plan::own_addresses::{Renewed, bound_by_others};
use crate::plan::verdict::allocation;

impl Planner {
    pub(super) fn claim(&mut self, key: &ObjectKey, now: Instant) {
        let inputs = self.inputs(now);
        let claims = allocation::claims(&inputs, key);
        let (foreign, given) = allocation::origins(&inputs, key, &claims);
        let terms = allocation::terms(&inputs, key);
        let since = allocation::allocates(&inputs).then_some(now);
        let pools = &self.in_force.config().pools;
        let held = self.book.claimed_by(key);
        let occupied: Vec<IpAddr> = held.iter().copied().filter(|address| self.book.is_occupied(*address)).collect();
        let until = |address| {
            // Nobody asks on the link about an address that nobody holds, so nobody learns when the foreign host leaves.
            let least = if occupied.contains(&address) { OCCUPIED_REST } else { Duration::ZERO };
            pool_of(pools, address).map(|pool| now + pool.rest.max(least)).filter(|until| *until > now)
        };
        let held_some = !held.is_empty();
        let changed = self.book.claim(key, Claim { addresses: claims, foreign, given, terms }, since, until);
        // An address that becomes free may help, and of a shared one a port.
        if changed && held_some {
            self.dirty.services.extend(self.book.waiting().cloned());
        }
    }

    /// What the status of a Service still shows and it is not to have any more stands in the way of nobody else.
    pub(super) fn yield_claims(&mut self, key: &ObjectKey, decision: &Decision, now: Instant) {
        let held = &decision.allocation.held;
        let claimed = self.book.claimed_by(key).iter().copied();
        let given_up: Vec<IpAddr> =
            claimed.filter(|address| !held.iter().any(|held| held.address == *address)).collect();
        if given_up.is_empty() || !allocation::allocates(&self.inputs(now)) {
            return;
        }
        self.book.give_up(key, &given_up, now);
        let concerned = self.book.settle();
        self.dirty.services.extend(concerned.into_iter().filter(|other| other != key));
    }

    /// True if something of it is news.
    pub(super) fn renew_own_addresses(&mut self, now: Instant) -> bool {
        let Renewed { withheld, mut changed, unknown } =
            self.own.renew(self.in_force.config(), &self.me, &self.world, now);
        let moved = self.book.await_subnets(unknown);
        changed.extend(self.book.set_own(withheld));
        if moved || !changed.is_empty() {
            self.dirty.services.extend(self.book.waiting().cloned());
            self.touch(changed.iter().copied());
        }
        !changed.is_empty()
    }

    /// What other programs have on links of this node and no Service has, each with the station that answers for it.
    pub(super) fn bound_by_others(&self) -> impl Iterator<Item = (IpAddr, MacAddress)> {
        let bound = bound_by_others(self.in_force.config(), &self.world);
        // The book answers at once for nearly all.
        let free = bound.filter(|it| self.book.tenants(it.address).is_empty() && it.service(&self.world).is_none());
        free.filter_map(|it| Some((it.address, it.link.mac?)))
    }

    /// The Service asks for a certain address.
    pub(super) fn asks_for_address(&self, key: &ObjectKey) -> bool {
        let request = self.world.services.get(key).and_then(|service| service.request.as_ref().ok());
        request.is_some_and(|request| !request.addresses.is_empty())
    }

    /// The status of the Service showed addresses before.
    pub(super) fn had_address(&self, key: &ObjectKey) -> bool {
        self.world.former.contains_key(key)
    }
}
