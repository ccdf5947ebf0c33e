//! How the planner keeps the address book: what each Service claims, and what is not to be given to any. Floor 1, a part of
//! [`Planner`]: the book says who may have an address, the verdict what a Service claims.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Planner;
use crate::address::MacAddress;
use crate::config::{Kubernetes, Source};
use crate::names::ObjectKey;
use crate::plan::address_book::Claim;
use crate::plan::allocate::pool_of;
use crate::plan::decision::Decision;
use crate::plan::link_memory::OCCUPIED_REST;
use crate::plan::own_addresses::{Renewed, bound_by_others};
use crate::plan::verdict::allocation;
use crate::world::{Fact, Service, World};

/// Addresses that were chosen for a Service and that its status does not show yet, and the Service as it was known then.
pub(super) struct Promise {
    key: ObjectKey,
    addresses: Vec<IpAddr>,
    before: Arc<Service>,
}

impl Promise {
    pub(super) fn of(world: &World, key: &ObjectKey) -> Option<Promise> {
        let (addresses, before) = (world.assigned.get(key)?.clone(), world.services.get(key)?.clone());
        Some(Promise { key: key.clone(), addresses, before })
    }

    /// Somebody else wrote addresses into the status before this could be written. Of what the condition says that the crier of this Lease
    /// gave, that one wrote it.
    fn is_overtaken(&self, after: &Service, lease: &ObjectKey) -> bool {
        let Promise { key: _, addresses: promised, before } = self;
        let own = after.condition.as_ref().filter(|condition| condition.is_of(lease));
        let said = own.map(|condition| condition.addresses()).unwrap_or_default();
        if said.iter().any(|address| promised.contains(address)) {
            return false;
        }
        let of_others = |address: &IpAddr| {
            !before.ingress.contains(address) && !promised.contains(address) && !said.contains(address)
        };
        let other_word =
            after.condition.as_ref().filter(|it| !it.is_of(lease) && before.condition.as_ref() != Some(it));
        after.ingress.iter().any(of_others)
            || after.host_names.iter().any(|name| !before.host_names.contains(name))
            || other_word.is_some_and(|condition| !condition.addresses().is_empty())
    }
}

impl Planner {
    /// A promise ends when the newer version of the Service shows what somebody else wrote: its addresses are free for others.
    pub(super) fn end_overtaken(&mut self, promise: Promise) {
        let Source::Kubernetes(Kubernetes { lease, .. }) = &self.in_force.config().source else { return };
        let after = self.world.services.get(&promise.key);
        if after.is_some_and(|after| promise.is_overtaken(after, lease)) {
            self.world.apply(Fact::Assigned(promise.key, Vec::new()));
        }
    }

    pub(super) fn claim(&mut self, key: &ObjectKey, now: Instant) {
        let inputs = self.inputs(now);
        let claims = allocation::claims(&inputs, key);
        let (foreign, given) = allocation::origins(&inputs, key, &claims);
        let (terms, leaving) = (allocation::terms(&inputs, key), allocation::leaving(&inputs, key, &claims));
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
        // Whose reservation comes or goes with this.
        let of_others = held.iter().chain(&claims).filter_map(|address| self.book.reserved_for(*address));
        let reserved: Vec<ObjectKey> = of_others.filter(|other| *other != key).cloned().collect();
        let changed = self.book.claim(key, Claim { addresses: claims, foreign, given, leaving, terms }, since, until);
        if changed {
            self.dirty.services.extend(reserved);
        }
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
        let networks = self.world.networks_of_services().copied().collect();
        let moved = self.book.await_subnets(unknown) | self.book.set_networks(networks);
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
