//! Addresses that are held back although no Service with egress has them any more: who has them now. Another pod is let go.
//! Floor 1.
//!
//! A CNI gives the address of a pod that has ended to the next pod, at times within seconds. That one has another UID. Whoever left
//! a Service with egress, or lost it, has the UID that it had: it stays held, whatever other Service lists it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::names::ObjectKey;
use crate::world::{EndpointSlice, Fact, HeldPod, Listing, PodMark, World};

/// Who is found to have a held address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// The Services whose EndpointSlices list the address, [`MOST_NAMED`] at most. Never empty.
    pub services: BTreeSet<ObjectKey>,
    pub who: Who,
}

/// Whether it is the pod that the address is held back for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// It is.
    Same,
    /// Nothing says which pod it is, or which it was.
    Unknown,
    /// It is another one.
    Other,
}

const MOST_NAMED: usize = 3;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Newcomers {
    all: BTreeMap<IpAddr, Newcomer>,
    /// Since they were looked for, something may have changed.
    stale: bool,
}

impl Newcomers {
    /// To be told before the World takes the fact in.
    pub fn note_fact(&mut self, world: &World, fact: &Fact) {
        let held = &world.egress_held;
        let lists_held = |slice: &EndpointSlice| slice.addresses.iter().any(|address| held.contains_key(&address));
        self.stale |= match fact {
            Fact::EgressHeld(now) => now != held,
            _ if held.is_empty() => false,
            Fact::EndpointSlice(key, after) => {
                let before = world.endpoint_slices.get(key);
                before.into_iter().chain(after).any(|slice| lists_held(slice))
            }
            Fact::Listed(Listing::EndpointSlices(_)) => true,
            _ => false,
        };
    }

    /// Looks for them in the EndpointSlices of all Services, where that may find something new. True: it did.
    pub fn renew(&mut self, world: &World) -> bool {
        if !std::mem::take(&mut self.stale) {
            return false;
        }
        let mut seen: BTreeMap<IpAddr, Seen> = BTreeMap::new();
        let slices = world.endpoint_slices.values().filter(|_| !world.egress_held.is_empty());
        for slice in slices {
            for (address, tenant) in slice.addresses.tenants() {
                let Some(held) = world.egress_held.get(&address) else { continue };
                let seen = seen.entry(address).or_default();
                match (held.pod, tenant.pod()) {
                    (Some(was), Some(is)) if was == is => seen.same = true,
                    // One that terminates may be what had the address before all of this.
                    (Some(_), Some(_)) => seen.other |= !tenant.terminates(),
                    (None, _) | (_, None) => seen.unknown = true,
                }
                if seen.services.len() < MOST_NAMED {
                    seen.services.insert(slice.service.clone());
                }
            }
        }
        let all = seen.into_iter().map(|(address, seen)| (address, seen.newcomer())).collect();
        let differ = self.all != all;
        self.all = all;
        differ
    }

    pub fn all(&self) -> &BTreeMap<IpAddr, Newcomer> {
        &self.all
    }

    /// The addresses that are another pod's, each with the pod that it was held back for.
    pub fn let_go(&self, world: &World) -> BTreeMap<IpAddr, PodMark> {
        let others = self.all.iter().filter(|(_, newcomer)| newcomer.who == Who::Other);
        let was = |address: &IpAddr| world.egress_held.get(address).and_then(|HeldPod { pod, until: _ }| *pod);
        others.filter_map(|(address, _)| Some((*address, was(address)?))).collect()
    }
}

/// What EndpointSlices say of one address.
#[derive(Debug, Default)]
struct Seen {
    services: BTreeSet<ObjectKey>,
    same: bool,
    other: bool,
    unknown: bool,
}

impl Seen {
    /// Only what is certain lets an address go.
    fn newcomer(self) -> Newcomer {
        let who = match self {
            Seen { same: true, .. } => Who::Same,
            Seen { other: true, unknown: false, .. } => Who::Other,
            Seen { .. } => Who::Unknown,
        };
        Newcomer { services: self.services, who }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::world::{EndpointAddresses, NodeCounts, Tenant};

    const ADDRESS: &str = "10.244.1.7";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    struct Story {
        world: World,
        newcomers: Newcomers,
    }

    impl Story {
        /// An address is held back for this pod.
        fn holding(uid: Option<&str>) -> Story {
            let mut story = Story { world: World::default(), newcomers: Newcomers::default() };
            let pod = uid.and_then(|uid| Tenant::of(uid, false).pod());
            let held = HeldPod { until: SystemTime::UNIX_EPOCH, pod };
            story.tell(Fact::EgressHeld(Arc::new([(ip(ADDRESS), held)].into())));
            story
        }

        fn tell(&mut self, fact: Fact) {
            self.newcomers.note_fact(&self.world, &fact);
            self.world.apply(fact);
        }

        /// The EndpointSlice of a Service lists the address with this tenant.
        fn list(&mut self, service: &str, tenant: Tenant) {
            let slice = EndpointSlice {
                service: ObjectKey::new("shop", service),
                family: None,
                ready: NodeCounts::default(),
                serving: NodeCounts::default(),
                serving_without_node: 0,
                unready: Default::default(),
                addresses: EndpointAddresses::of(&[(ip("10.244.1.1"), Tenant::of("1", false)), (ip(ADDRESS), tenant)]),
            };
            self.tell(Fact::EndpointSlice(ObjectKey::new("shop", service), Some(Arc::new(slice))));
        }

        /// Who has the address now, and whether it is let go.
        fn look(&mut self) -> (Option<Who>, bool) {
            self.newcomers.renew(&self.world);
            let who = self.newcomers.all().get(&ip(ADDRESS)).map(|newcomer| newcomer.who);
            assert!(self.newcomers.all().len() <= 1, "what is not held is nobody's matter");
            (who, self.newcomers.let_go(&self.world).contains_key(&ip(ADDRESS)))
        }
    }

    #[test]
    fn an_address_is_let_go_once_another_pod_has_it_for_certain_and_not_before() {
        let pod = |uid| Tenant::of(uid, false);
        let mut story = Story::holding(Some("web-1"));
        assert_eq!(story.look(), (None, false), "nobody has it");
        story.list("other", pod("other-1"));
        assert_eq!(story.look(), (Some(Who::Other), true));
        let services: Vec<String> =
            story.newcomers.all()[&ip(ADDRESS)].services.iter().map(|it| it.to_string()).collect();
        assert_eq!(services, ["shop/other"]);
        story.list("plain", pod("web-1"));
        assert_eq!(
            story.look(),
            (Some(Who::Same), false),
            "the pod goes on in another Service, whatever the first one says"
        );
        story.list("plain", Tenant::of("web-1", true));
        assert_eq!(story.look(), (Some(Who::Same), false), "also while it ends");
        story.list("plain", Tenant::default());
        assert_eq!(story.look(), (Some(Who::Unknown), false), "it may be the pod that it was");
        story.tell(Fact::EndpointSlice(ObjectKey::new("shop", "plain"), None));
        assert_eq!(story.look(), (Some(Who::Other), true));
        story.list("other", Tenant::of("other-1", true));
        assert_eq!(story.look(), (Some(Who::Unknown), false), "one that terminates may have had it before");
        story.list("other", pod("other-2"));
        assert!(story.look().1);
        story.tell(Fact::EgressHeld(Arc::default()));
        assert_eq!(story.look(), (None, false), "nothing is held");
    }

    #[test]
    fn an_address_of_a_pod_that_is_not_known_stays_held_and_whoever_lists_it_is_named() {
        let mut story = Story::holding(None);
        story.list("other", Tenant::of("other-1", false));
        assert_eq!(story.look(), (Some(Who::Unknown), false));
        let mut story = Story::holding(Some("web-1"));
        story.list("other", Tenant::default());
        assert_eq!(story.look(), (Some(Who::Unknown), false));
        // The list is complete, and the slice is not in it.
        story.tell(Fact::Listed(Listing::EndpointSlices(BTreeSet::new())));
        assert_eq!(story.look(), (None, false));
    }
}
