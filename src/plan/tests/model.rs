//! Allocation against a simple model: random Services come, go and change, pools change, the agent restarts, the lead moves
//! with writes under way. Whatever happened, these hold: nobody has an address against the rules of sharing, nobody loses one
//! that it may still have, nobody is given what no Service is given, nobody waits for what is free, and an agent that starts
//! with the statuses alone wants nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::address::Family::{self, V4, V6};
use crate::plan::decision::Allocation;
use crate::plan::slice::StatusWrite;
use crate::world::{ServicePort, Sharing};

type Statuses = BTreeMap<ObjectKey, Vec<IpAddr>>;

/// An API server and two agents that follow it, one of which allocates.
struct Cluster {
    config: Config,
    services: BTreeMap<ObjectKey, Service>,
    agents: [Planner; 2],
    leader: usize,
    now: Instant,
    version: u64,
    random: fastrand::Rng,
}

fn base() -> Config {
    let mut config = configuration();
    config.pools = vec![
        pool("lan", &["192.168.35.100-192.168.35.105", "fd35::100-fd35::103"]),
        pool("wan", &["198.51.100.0-198.51.100.3"]),
    ];
    config
}

fn agent(config: &Config, name: &str, services: &[(&ObjectKey, &Service)]) -> Planner {
    let mut planner = Planner::new(Arc::new(config.clone()), name.into());
    planner.apply(Fact::LinksListed);
    for (key, service) in services {
        planner.apply(Fact::Service((*key).clone(), Some(Arc::new((*service).clone()))));
    }
    let keys = services.iter().map(|(key, _)| (*key).clone()).collect();
    for listing in [
        Listing::EndpointSlices(Default::default()),
        Listing::Nodes(Default::default()),
        Listing::Namespaces(Default::default()),
        Listing::Services(keys),
    ] {
        planner.apply(Fact::Listed(listing));
    }
    planner
}

/// What an agent wants to write: for each Service, the version that it has seen and the write.
fn writes(planner: &Planner) -> Vec<(ObjectKey, String, StatusWrite)> {
    let services = planner.plan().status.services.iter();
    services.filter_map(|(key, it)| Some((key.clone(), it.resource_version.clone(), it.write.clone()?))).collect()
}

/// An address is yet to be taken from some Service.
fn goes(planner: &Planner) -> bool {
    let mut decisions = planner.plan().decisions.values();
    decisions.any(|it| {
        let Allocation { complaint, reason, .. } = &it.allocation;
        matches!(complaint.as_ref().unwrap_or(reason), Reason::AddressGoes { .. })
    })
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let config = base();
        let agents = ["a", "b"].map(|name| agent(&config, name, &[]));
        let random = fastrand::Rng::with_seed(seed);
        let services = BTreeMap::new();
        let mut cluster = Cluster { config, services, agents, leader: 0, now: clock::now(), version: 1, random };
        cluster.agents[0].apply(Fact::Leader(true));
        cluster
    }

    fn put(&mut self, key: &ObjectKey, mut service: Service) {
        self.version += 1;
        service.resource_version = self.version.to_string();
        self.services.insert(key.clone(), service.clone());
        let service = Arc::new(service);
        self.agents.iter_mut().for_each(|it| it.apply(Fact::Service(key.clone(), Some(service.clone()))));
    }

    fn delete(&mut self, key: &ObjectKey) {
        self.services.remove(key);
        self.agents.iter_mut().for_each(|it| it.apply(Fact::Service(key.clone(), None)));
    }

    fn turn(&mut self) {
        self.now += Duration::from_secs(1);
        self.agents.iter_mut().for_each(|it| drop(turn_and_tell(it, self.now)));
    }

    /// The API server takes writes until the allocating agent has none left.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.turn();
            let writes = writes(&self.agents[self.leader]);
            if writes.is_empty() && !goes(&self.agents[self.leader]) {
                return;
            }
            for (key, seen, write) in writes {
                let service = self.services.get(&key).filter(|service| service.resource_version == seen);
                if let Some(service) = service.cloned() {
                    let ingress = write.ingress.unwrap_or(service.ingress);
                    self.put(&key, Service { ingress, condition: write.condition.map(Arc::new), ..service });
                }
            }
        }
        panic!("the writes do not end: {:?}", writes(&self.agents[self.leader]));
    }

    fn restart(&mut self) {
        let services: Vec<_> = self.services.iter().collect();
        self.agents = ["a", "b"].map(|name| agent(&self.config, name, &services));
        self.agents[self.leader].apply(Fact::Leader(true));
    }

    fn change_leader(&mut self) {
        self.agents[self.leader].apply(Fact::Leader(false));
        self.leader = 1 - self.leader;
        self.agents[self.leader].apply(Fact::Leader(true));
    }

    fn any_address(&mut self) -> IpAddr {
        let all: Vec<IpAddr> =
            self.config.pools.iter().flat_map(|pool| &pool.addresses).flat_map(|range| range.iter()).collect();
        self.random.choice(all).expect("pools have addresses")
    }

    /// A Service as its owner writes it.
    fn any_service(&mut self) -> Service {
        let mut choose = |of: u32| self.random.u32(0..of);
        let local = choose(4) == 0;
        let sharing = (choose(3) > 0).then(|| {
            let app = ["web", "api"][choose(2) as usize];
            Box::new(Sharing {
                key: ["k", "l"][usize::from(choose(4) == 0)].to_owned(),
                selector: Labels([("app", app)].into()),
            })
        });
        let ports = (0..=choose(2)).map(|_| ServicePort { protocol: "TCP".to_owned(), port: 80 + choose(4) as u16 });
        let ports = ports.collect::<BTreeSet<_>>().into_iter().collect();
        let (families, family_policy) = match choose(5) {
            0 => (vec![V4, V6], FamilyPolicy::PreferDualStack),
            1 => (vec![V6, V4], FamilyPolicy::RequireDualStack),
            2 => (vec![V6], FamilyPolicy::SingleStack),
            _ => (vec![V4], FamilyPolicy::SingleStack),
        };
        let asks = choose(8);
        let request = match asks {
            0 => Request { addresses: vec![self.any_address()], pools: Vec::new() },
            1 => Request { addresses: Vec::new(), pools: vec!["wan".into()] },
            2 => Request { addresses: Vec::new(), pools: vec!["lan".into(), "wan".into()] },
            _ => Request::default(),
        };
        let external_traffic_policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let (uid, request) = (self.random.u64(..).to_string(), Ok(request));
        Service { uid, sharing, ports, families, family_policy, external_traffic_policy, request, ..service() }
    }

    fn change_pools(&mut self) {
        let pool = self.random.usize(0..self.config.pools.len());
        let address = self.any_address();
        let pools = &mut self.config.pools;
        match self.random.u32(0..6) {
            0 => pools[pool].draining = !pools[pool].draining,
            1 => pools[pool].auto_assign = !pools[pool].auto_assign,
            2 => pools[pool].share_across_namespaces = !pools[pool].share_across_namespaces,
            3 => {
                pools[pool].namespaces = match pools[pool].namespaces.is_empty() {
                    true => vec!["shop".into()],
                    false => Vec::new(),
                };
            }
            4 => {
                let exclude = format!("{address}").parse().expect("an address is a range");
                pools.iter_mut().for_each(|pool| pool.exclude.clear());
                let of = pools.iter_mut().find(|pool| pool.addresses.iter().any(|range| range.contains(address)));
                of.expect("the address is of a pool").exclude.push(exclude);
            }
            _ => {
                let service = ObjectKey::new("shop", "s0");
                self.config.reservations = vec![Reservation { service, addresses: vec![address] }];
            }
        }
        self.restart();
    }

    fn step(&mut self) {
        let number = self.random.u32(0..8);
        let key = ObjectKey::new(if number.is_multiple_of(3) { "shop" } else { "bank" }, &format!("s{number}"));
        let known = self.services.get(&key).cloned();
        match (self.random.u32(0..16), known) {
            (0, Some(_)) => self.delete(&key),
            (1, Some(_)) => {
                self.delete(&key);
                let service = self.any_service();
                self.put(&key, service);
            }
            (2, _) => self.restart(),
            (3, _) => self.change_leader(),
            (4 | 5, _) => self.change_pools(),
            (_, known) => {
                let service = self.any_service();
                // Whoever edits it leaves its status as it is.
                let (uid, ingress, condition) = match known {
                    Some(Service { uid, ingress, condition, .. }) => (uid, ingress, condition),
                    None => (service.uid.clone(), Vec::new(), None),
                };
                self.put(&key, Service { uid, ingress, condition, ..service });
            }
        }
        // The writes of what was chosen now may be lost with the lead.
        if self.random.u32(0..5) == 0 {
            self.turn();
            self.change_leader();
        }
    }

    fn statuses(&self) -> Statuses {
        self.services.iter().map(|(key, service)| (key.clone(), service.ingress.clone())).collect()
    }

    fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.config.pools.iter().find(|pool| pool.addresses.iter().any(|range| range.contains(address)))
    }

    /// The pools and the families of the Service allow it to have the address.
    fn suits(&self, key: &ObjectKey, address: IpAddr) -> bool {
        let Some(pool) = self.pool_of(address) else { return false };
        (pool.namespaces.is_empty() || pool.namespaces.contains(&key.namespace))
            && self.services[key].families.contains(&Family::of(address))
    }

    fn request(&self, key: &ObjectKey) -> &Request {
        self.services[key].request.as_ref().expect("all requests can be read")
    }

    /// The Service names no pool, or that of the address.
    fn asks_for_pool_of(&self, key: &ObjectKey, address: IpAddr) -> bool {
        let pools = &self.request(key).pools;
        pools.is_empty() || self.pool_of(address).is_some_and(|pool| pools.contains(&pool.name))
    }

    /// The rules of sharing in another form: everything that differs is named.
    fn go_together(&self, one: &ObjectKey, other: &ObjectKey, address: IpAddr) -> bool {
        let [a, b] = [one, other].map(|key| &self.services[key]);
        let (Some(of_a), Some(of_b)) = (&a.sharing, &b.sharing) else { return false };
        let across = self.pool_of(address).is_some_and(|pool| pool.share_across_namespaces);
        let same_pods = match (a.external_traffic_policy, b.external_traffic_policy) {
            (TrafficPolicy::Cluster, TrafficPolicy::Cluster) => true,
            (TrafficPolicy::Local, TrafficPolicy::Local) => of_a.selector == of_b.selector,
            (TrafficPolicy::Cluster, TrafficPolicy::Local) | (TrafficPolicy::Local, TrafficPolicy::Cluster) => false,
        };
        of_a.key == of_b.key
            && (across || one.namespace == other.namespace)
            && same_pods
            && !a.ports.iter().any(|port| b.ports.contains(port))
    }

    fn fits(&self, key: &ObjectKey, address: IpAddr, statuses: &Statuses) -> bool {
        let mut others = statuses.iter().filter(|(other, held)| *other != key && held.contains(&address));
        others.all(|(other, _)| self.go_together(key, other, address))
    }

    /// Whether an address can be given to a Service that does not have it.
    fn is_given(&self, key: &ObjectKey, address: IpAddr) -> bool {
        let Some(pool) = self.pool_of(address) else { return false };
        let reserved = self.config.reservations.iter().find(|it| it.addresses.contains(&address));
        !pool.draining
            && !pool.exclude.iter().any(|range| range.contains(address))
            && reserved.is_none_or(|reservation| reservation.service == *key)
    }

    fn check(&self, before: &Statuses) {
        let after = self.statuses();
        for (key, held) in &after {
            for address in held {
                assert!(self.suits(key, *address), "{key} may not have {address}");
                assert!(self.fits(key, *address, &after), "{key} has {address} against the rules");
                // What it holds stays while it asks for what it cannot have.
                let had = before.get(key).is_some_and(|held| held.contains(address));
                assert!(had || self.asks_for_pool_of(key, *address), "{key} does not ask for {address}");
                assert!(had || self.is_given(key, *address), "{key} was given {address}");
            }
            self.check_losses(key, before, &after);
            self.check_waiting(key, &after);
        }
    }

    /// Of those who had an address and may have it by themselves, all go on that go together.
    fn check_losses(&self, key: &ObjectKey, before: &Statuses, after: &Statuses) {
        let request = self.request(key);
        for address in before.get(key).into_iter().flatten().filter(|address| !after[key].contains(address)) {
            let asked = request.addresses.iter().any(|asked| after[key].contains(asked));
            let rivals = after.iter().filter(|(other, held)| *other != key && held.contains(address));
            let in_the_way = rivals.filter(|(other, _)| !self.go_together(key, other, *address)).count() > 0;
            let suits = self.suits(key, *address) && self.asks_for_pool_of(key, *address);
            let service = &self.services[key];
            assert!(!suits || asked || in_the_way, "{key} lost {address}: {service:?}");
        }
    }

    /// A Service without any address has no address that it could be given.
    fn check_waiting(&self, key: &ObjectKey, after: &Statuses) {
        let (service, request) = (&self.services[key], self.request(key));
        if !after[key].is_empty() || service.family_policy == FamilyPolicy::RequireDualStack || request.pools.len() > 1
        {
            return;
        }
        let all = self.config.pools.iter().flat_map(|pool| pool.addresses.iter().map(move |range| (pool, range)));
        for (pool, address) in all.flat_map(|(pool, range)| range.iter().map(move |address| (pool, address))) {
            let held = after.values().any(|held| held.contains(&address));
            let asked = request.pools.contains(&pool.name) || (request.pools.is_empty() && pool.auto_assign);
            let could = match request.addresses.is_empty() {
                true => asked && !held,
                false => request.addresses.contains(&address) && self.fits(key, address, after),
            };
            let may = self.suits(key, address) && self.is_given(key, address);
            let wants = service.families.contains(&Family::of(address));
            assert!(!(could && may && wants), "{key} waits, and {address} could be its own");
        }
    }

    /// Agents that begin with the statuses alone, told in any order, want nothing written and decide alike.
    fn check_order(&mut self) {
        let mut services: Vec<_> = self.services.iter().collect();
        let mut outcome = None;
        for _ in 0..2 {
            self.random.shuffle(&mut services);
            let mut planner = agent(&self.config, "a", &services);
            planner.apply(Fact::Leader(true));
            planner.turn(self.now);
            // Why a Service has nothing may be said in other words: what it had before is not known any more.
            let wanted: Vec<_> = writes(&planner).into_iter().filter(|(.., write)| write.ingress.is_some()).collect();
            assert!(wanted.is_empty(), "after a restart: {wanted:?}");
            let decisions = planner.plan().decisions.clone();
            let known = outcome.get_or_insert_with(|| decisions.clone());
            assert!(decisions.iter().eq(known.iter()), "the order of facts decides nothing");
        }
    }
}

#[test]
fn whatever_happens_nobody_shares_against_the_rules_and_nobody_loses_what_it_may_have() {
    for seed in 0..60 {
        let mut cluster = Cluster::new(seed);
        cluster.settle();
        for step in 0..60 {
            let (mut before, objects) = (cluster.statuses(), cluster.services.clone());
            cluster.step();
            cluster.settle();
            // Another Service of the same name has nothing to lose.
            before.retain(|key, _| cluster.services.get(key).is_some_and(|it| it.uid == objects[key].uid));
            let told = format!("seed {seed}, step {step}");
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                cluster.check(&before);
                cluster.check_order();
            }));
            assert!(checked.is_ok(), "{told}: {before:?}");
        }
    }
}

#[test]
fn services_that_arrive_together_get_the_same_in_any_order() {
    for seed in 0..200 {
        let mut cluster = Cluster::new(seed);
        let services: Vec<(ObjectKey, Service)> =
            (0..6).map(|n| (ObjectKey::new("shop", &format!("s{n}")), cluster.any_service())).collect();
        let mut outcome = None;
        for _ in 0..4 {
            let mut order: Vec<_> = services.iter().map(|(key, service)| (key, service)).collect();
            cluster.random.shuffle(&mut order);
            let mut planner = agent(&cluster.config, "a", &order);
            planner.apply(Fact::Leader(true));
            planner.turn(cluster.now);
            let wanted = writes(&planner);
            assert_eq!(*outcome.get_or_insert_with(|| wanted.clone()), wanted, "seed {seed}");
        }
    }
}
