//! Allocation against a simple model: random Services come, go and change, also in the hands of others; pools change under running
//! agents and on one of them alone; the agents restart, hear late or in parts; the lead moves with writes under way, and writes fail.
//! Whatever happened, these hold: nobody has an address against the rules of sharing, nobody loses one that it may still have, nobody
//! is given what no Service is given, nobody waits for what is free, who had an address and lost it to nobody has it again, and an
//! agent that starts with the statuses alone wants nothing else.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::address::Family::{self, V4, V6};
use crate::address::MacAddress;
use crate::names::NamespaceName;
use crate::plan::decision::Allocation;
use crate::plan::slice::StatusWrite;
use crate::roster::{Card, Member, Roster};
use crate::selector::Selector;
use crate::world::{Renumber, ServicePort, Sharing};

type Statuses = BTreeMap<ObjectKey, Vec<IpAddr>>;

/// An API server and two agents that follow it, one of which allocates.
struct Cluster {
    /// The newest file, and those that the agents have.
    newest: Config,
    files: [Config; 2],
    services: BTreeMap<ObjectKey, Service>,
    namespaces: BTreeMap<NamespaceName, Labels>,
    agents: [Planner; 2],
    allocator: usize,
    /// This agent's watches broke off: it is told everything once more at the end of the step.
    deaf: Option<usize>,
    now: Instant,
    version: u64,
    random: fastrand::Rng,
    /// What each Service had when it had something last, as far as both agents know it.
    had: Statuses,
    /// What is to be replaced by a wish of this step, or of one before that could not be fulfilled.
    replaced: BTreeSet<(ObjectKey, IpAddr)>,
    /// What happened in this step.
    log: Vec<String>,
}

const NAMES: [&str; 2] = ["a", "b"];
const OTHER_CLASS: &str = "example.com/second";

fn base() -> Config {
    let mut config = configuration();
    let team: Selector = "team=web".parse().unwrap();
    config.pools = vec![
        pool("lan", &["192.168.35.100-192.168.35.105", "fd35::100-fd35::103"]),
        pool("wan", &["198.51.100.0-198.51.100.3"]),
        Pool { namespace_selector: Some(team), ..pool("team", &["192.168.36.0-192.168.36.1"]) },
    ];
    config
}

fn kubernetes(config: &mut Config) -> &mut Kubernetes {
    match &mut config.source {
        Source::Kubernetes(kubernetes) => kubernetes,
        Source::Manifests(_) => panic!("there is an API server"),
    }
}

/// What an agent wants to write: for each Service, the version that it has seen and the write.
fn writes(planner: &Planner) -> Vec<(ObjectKey, String, StatusWrite)> {
    let services = planner.plan().status.services.iter();
    services.filter_map(|(key, it)| Some((key.clone(), it.resource_version.clone(), it.write.clone()?))).collect()
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let config = base();
        let namespaces = [("shop", "web"), ("bank", "money")]
            .map(|(name, team)| (NamespaceName::from(name), Labels([("team", team)].into())));
        let agents = NAMES.map(|name| Planner::new(Arc::new(config.clone()), name.into()));
        let mut cluster = Cluster {
            files: [config.clone(), config.clone()],
            newest: config,
            services: BTreeMap::new(),
            namespaces: namespaces.into(),
            agents,
            allocator: 0,
            deaf: None,
            now: clock::now(),
            version: 1,
            random: fastrand::Rng::with_seed(seed),
            had: Statuses::new(),
            replaced: BTreeSet::new(),
            log: Vec::new(),
        };
        cluster.restart();
        cluster
    }

    /// The file of the agent that allocates.
    fn config(&self) -> &Config {
        &self.files[self.allocator]
    }

    fn files_agree(&self) -> bool {
        self.files[0].allocation_digest() == self.files[1].allocation_digest()
    }

    /// What an agent hears of the other by its pulses.
    fn roster(&self, of: usize) -> Fact {
        let digest = self.files[1 - of].allocation_digest().0;
        let card = Card { allocation_digest: digest, ..Card::default() };
        let member = Member { card: Arc::new(card), ..Member::eligible(MacAddress([2, 0, 0, 0, 0, 2])) };
        let members = [(NodeName::from(NAMES[1 - of]), member)].into();
        Fact::Roster(2, Some(Arc::new(Roster { settled: true, members, ..Roster::default() })))
    }

    fn tell(&mut self, fact: &Fact) {
        let hears = (0..2).filter(|agent| self.deaf != Some(*agent));
        hears.for_each(|agent| self.agents[agent].apply(fact.clone()));
    }

    /// An agent with this file that is told everything, in any order and with turns in between, and perhaps allocates from the start.
    fn agent(&mut self, of: usize, leads: bool, remembered: Vec<Fact>) -> Planner {
        let mut planner = Planner::new(Arc::new(self.files[of].clone()), NAMES[of].into());
        remembered.into_iter().for_each(|fact| planner.apply(fact));
        let services = self.services.iter();
        let services = services.map(|(key, it)| Fact::Service(key.clone(), Some(Arc::new(it.clone()))));
        let namespaces = self.namespaces.iter();
        let namespaces = namespaces.map(|(name, it)| Fact::Namespace(name.clone(), Some(Arc::new(it.clone()))));
        let nodes = NAMES.map(|name| Fact::Node(name.into(), Some(Arc::new(node(&[])))));
        let keys = self.services.keys().cloned().collect();
        let names = self.namespaces.keys().cloned().collect();
        let mut kinds: [Vec<Fact>; 5] = [
            services.chain([Fact::Listed(Listing::Services(keys))]).collect(),
            namespaces.chain([Fact::Listed(Listing::Namespaces(names))]).collect(),
            nodes.into_iter().chain([Fact::Listed(Listing::Nodes(NAMES.map(NodeName::from).into()))]).collect(),
            vec![Fact::Listed(Listing::EndpointSlices(Default::default()))],
            vec![self.roster(of), Fact::LinksListed],
        ];
        for facts in &mut kinds {
            // A list is complete at its end only.
            let last = facts.len() - 1;
            self.random.shuffle(&mut facts[..last]);
            facts.reverse();
        }
        let mut leads = leads;
        loop {
            if leads && self.random.u32(0..6) == 0 {
                planner.apply(Fact::Allocates(true));
                leads = false;
            }
            let open: Vec<usize> = (0..kinds.len()).filter(|kind| !kinds[*kind].is_empty()).collect();
            let Some(kind) = self.random.choice(open) else { break };
            let some = self.random.usize(1..=kinds[kind].len());
            let told = kinds[kind].len() - some;
            kinds[kind].drain(told..).rev().for_each(|fact| planner.apply(fact));
            turn_and_tell(&mut planner, self.now);
            let is_whole = kinds.iter().all(Vec::is_empty);
            assert!(is_whole || writes(&planner).is_empty(), "nothing is written on half a picture");
        }
        if leads {
            planner.apply(Fact::Allocates(true));
        }
        planner
    }

    fn put(&mut self, key: &ObjectKey, mut service: Service) {
        self.version += 1;
        service.resource_version = self.version.to_string();
        self.services.insert(key.clone(), service.clone());
        self.tell(&Fact::Service(key.clone(), Some(Arc::new(service))));
    }

    fn delete(&mut self, key: &ObjectKey) {
        // What it wished goes with it.
        self.replaced.retain(|(of, _)| of != key);
        self.services.remove(key);
        self.tell(&Fact::Service(key.clone(), None));
    }

    fn turn(&mut self) {
        self.now += Duration::from_secs(1);
        let hears = (0..2).filter(|agent| self.deaf != Some(*agent));
        hears.for_each(|agent| drop(turn_and_tell(&mut self.agents[agent], self.now)));
    }

    /// An agent whose watches broke off lists everything anew.
    fn list_anew(&mut self) {
        let Some(agent) = self.deaf.take() else { return };
        let services = self.services.iter();
        for (key, service) in services {
            self.agents[agent].apply(Fact::Service(key.clone(), Some(Arc::new(service.clone()))));
        }
        let keys = self.services.keys().cloned().collect();
        self.agents[agent].apply(Fact::Listed(Listing::Services(keys)));
        for (name, labels) in &self.namespaces {
            self.agents[agent].apply(Fact::Namespace(name.clone(), Some(Arc::new(labels.clone()))));
        }
    }

    /// The API server takes writes until the allocating agent has none left. It refuses some of them for a while, and some answers
    /// overtake the watch.
    fn settle(&mut self) {
        if self.deaf == Some(self.allocator) {
            self.list_anew();
        }
        let mut quiet = 0;
        for round in 0..120 {
            self.turn();
            let writes = writes(&self.agents[self.allocator]);
            quiet = if writes.is_empty() { quiet + 1 } else { 0 };
            // Notices and overlaps are over by then.
            if quiet > 8 {
                self.list_anew();
                return;
            }
            for (key, seen, write) in writes {
                if round < 10 && self.random.u32(0..6) == 0 {
                    self.agents[self.allocator].apply(Fact::StatusRefused(key, "500".to_owned()));
                    continue;
                }
                let service = self.services.get(&key).filter(|service| service.resource_version == seen);
                let Some(service) = service.cloned() else { continue };
                let not_vip = if write.ingress.is_some() { Vec::new() } else { service.not_vip.clone() };
                let ingress = write.ingress.unwrap_or(service.ingress);
                let renumber = service.renumber.filter(|_| !write.renumbered);
                let condition = write.condition.map(Arc::new);
                let service = Service { ingress, not_vip, renumber, condition, ..service };
                if self.random.bool() {
                    let resource_version = (self.version + 1).to_string();
                    let answer = Service { resource_version, ..service.clone() };
                    self.agents[self.allocator].apply(Fact::StatusWritten(key.clone(), Arc::new(answer)));
                }
                self.put(&key, service);
            }
        }
        panic!("the writes do not end: {:?}", writes(&self.agents[self.allocator]));
    }

    /// Both agents start anew, with what they keep on the disk or without it.
    fn restart(&mut self) {
        self.deaf = None;
        for of in 0..2 {
            let remembers = self.random.bool();
            let remembered = self.agents[of].world().to_remember();
            let remembered: Vec<Fact> = remembered.filter(|_| remembers).collect();
            let leads = of == self.allocator;
            self.agents[of] = self.agent(of, leads, remembered);
        }
        // What a Service had that has nothing any more is not kept.
        let held = self.holdings();
        self.had.retain(|key, _| held.get(key).is_some_and(|held| !held.is_empty()));
    }

    fn change_leader(&mut self) {
        // Who takes the Lease knows what was written before.
        self.list_anew();
        self.agents[self.allocator].apply(Fact::Allocates(false));
        self.allocator = 1 - self.allocator;
        self.agents[self.allocator].apply(Fact::Allocates(true));
    }

    fn any_address(&mut self) -> IpAddr {
        let all: Vec<IpAddr> = addresses(&self.newest).collect();
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
        let class = (choose(8) == 0).then(|| OTHER_CLASS.to_owned());
        let asks = choose(8);
        let request = match asks {
            0 => Request { addresses: vec![self.any_address()], pools: Vec::new() },
            1 => Request { addresses: Vec::new(), pools: vec!["wan".into()] },
            2 => Request { addresses: Vec::new(), pools: vec!["lan".into(), "wan".into()] },
            _ => Request::default(),
        };
        let external_traffic_policy = if local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
        let (uid, request) = (self.random.u64(..).to_string(), Ok(request));
        Service { uid, class, sharing, ports, families, family_policy, external_traffic_policy, request, ..service() }
    }

    fn change_pools(&mut self) {
        let pool = self.random.usize(0..self.newest.pools.len());
        let address = self.any_address();
        let served = self.random.bool();
        let pools = &mut self.newest.pools;
        match self.random.u32(0..11) {
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
            5 => {
                let service = ObjectKey::new("shop", "s0");
                self.newest.reservations = vec![Reservation { service, addresses: vec![address] }];
            }
            6 if pools.len() > 1 => drop(pools.remove(pool)),
            7 => {
                // The pools that went come back, and ranges are as they were.
                for was in base().pools {
                    match pools.iter_mut().find(|it| it.name == was.name) {
                        Some(pool) => pool.addresses = was.addresses,
                        None => pools.push(was),
                    }
                }
            }
            8 => {
                let range = self.random.usize(0..pools[pool].addresses.len());
                let (first, last) = (pools[pool].addresses[range].first(), pools[pool].addresses[range].last());
                let whole: Vec<IpAddr> = pools[pool].addresses[range].iter().collect();
                if let [_, .., _] = whole.as_slice() {
                    let shorter = match served {
                        true => (whole[1], last),
                        false => (first, whole[whole.len() - 2]),
                    };
                    pools[pool].addresses[range] = format!("{}-{}", shorter.0, shorter.1).parse().expect("a range");
                }
            }
            9 => {
                let classes = &mut kubernetes(&mut self.newest).classes;
                match classes.iter().position(|class| class == OTHER_CLASS) {
                    Some(place) => drop(classes.remove(place)),
                    None => classes.push(OTHER_CLASS.to_owned()),
                }
            }
            _ => pools[pool].priority = if served { Some(10) } else { None },
        }
        self.log.push("other pools".to_owned());
    }

    /// The newest file comes to both agents or to one, which restarts or goes on.
    fn roll_out(&mut self) {
        let of = [vec![0, 1], vec![0], vec![1], vec![0, 1]];
        let to = self.random.choice(of).expect("some");
        self.log.push(format!("the newest file comes to {to:?}"));
        to.iter().for_each(|agent| self.files[*agent] = self.newest.clone());
        if self.random.u32(0..3) == 0 {
            self.restart();
        } else {
            to.iter().for_each(|agent| self.agents[*agent].apply(Fact::Config(Arc::new(self.newest.clone()))));
            for agent in 0..2 {
                let roster = self.roster(agent);
                self.agents[agent].apply(roster);
            }
        }
    }

    fn step(&mut self) {
        self.log.clear();
        let wishes = self.services.iter().filter_map(|(key, service)| Some((key, service.renumber.as_ref()?)));
        let replaced = wishes.flat_map(|(key, wish)| wish.leaving.iter().map(|address| (key.clone(), *address)));
        self.replaced = replaced.collect();
        // No fight with another writer lasts from one step to the next.
        self.now += Duration::from_secs(7200);
        if self.random.u32(0..6) == 0 {
            self.deaf = Some(self.random.usize(0..2));
        }
        let number = self.random.u32(0..8);
        let key = ObjectKey::new(if number.is_multiple_of(3) { "shop" } else { "bank" }, &format!("s{number}"));
        let known = self.services.get(&key).cloned();
        self.log.push(format!("of {key}, the allocator is {}, deaf is {:?}", self.allocator, self.deaf));
        match (self.random.u32(0..24), known) {
            (0, Some(_)) => self.delete(&key),
            (1, Some(known)) => {
                self.delete(&key);
                let service = self.any_service();
                // Often the same manifest.
                let service = match self.random.bool() {
                    true => Service { uid: service.uid, ingress: Vec::new(), renumber: None, condition: None, ..known },
                    false => service,
                };
                self.put(&key, service);
            }
            (2, _) => self.restart(),
            (3, _) => self.change_leader(),
            (4..=6, _) => {
                self.change_pools();
                self.roll_out();
            }
            (7, _) => self.roll_out(),
            (8, Some(known)) => self.empty(&key, known),
            (9, Some(known)) => self.overwrite(&key, known),
            (10, Some(known)) if !known.ingress.is_empty() && !self.is_left_alone(&key) => {
                self.had.remove(&key);
                self.replaced.retain(|(of, _)| *of != key);
                self.replaced.extend(known.ingress.iter().map(|address| (key.clone(), *address)));
                let overlap = Duration::from_secs(self.random.u64(0..2) * 4);
                let renumber = Some(Box::new(Renumber { leaving: known.ingress.clone(), overlap }));
                self.put(&key, Service { renumber, ..known });
            }
            (11, _) => {
                let team = ["web", "money"][self.random.usize(0..2)];
                let labels = Labels([("team", team)].into());
                self.log.push(format!("{} is of {team}", key.namespace));
                self.namespaces.insert(key.namespace.clone(), labels.clone());
                self.tell(&Fact::Namespace(key.namespace.clone(), Some(Arc::new(labels))));
            }
            (12, Some(known)) => {
                // Of another type, the API server clears its addresses.
                let load_balancer = !known.load_balancer;
                self.put(&key, Service { load_balancer, ingress: Vec::new(), renumber: None, ..known });
            }
            (13, Some(known)) => {
                let external_ips = match known.external_ips.is_empty() {
                    true => vec![self.any_address()],
                    false => Vec::new(),
                };
                self.put(&key, Service { external_ips, ..known });
            }
            (_, known) => {
                let service = self.any_service();
                // Whoever edits it leaves its status as it is, and the class cannot be edited.
                let service = match known {
                    Some(Service { uid, class, ingress, condition, not_vip, external_ips, renumber, .. }) => {
                        Service { uid, class, ingress, condition, not_vip, external_ips, renumber, ..service }
                    }
                    None => service,
                };
                self.put(&key, service);
            }
        }
        self.log.push(format!("{:?}", self.services.get(&key)));
        // The writes of what was chosen now may be lost with the lead.
        if self.random.u32(0..5) == 0 {
            self.turn();
            self.change_leader();
        }
    }

    /// Somebody takes the addresses out of the status, and perhaps the condition with them.
    fn empty(&mut self, key: &ObjectKey, known: Service) {
        // A node that never had the pool of an address does not know it.
        let knows = |config: &Config| known.ingress.iter().all(|address| pool_in(config, *address).is_some());
        if self.files.iter().all(knows) && !self.is_class_left(key) {
            let condition = known.condition.clone().filter(|_| self.random.bool() || self.is_foreign(key));
            self.put(key, Service { ingress: Vec::new(), condition, ..known });
        }
    }

    /// Somebody writes other addresses into the status: of no pool, or such as the Service has, of anybody.
    fn overwrite(&mut self, key: &ObjectKey, known: Service) {
        let is_right = |address: &IpAddr| self.suits(key, *address) && self.asks_for_pool_of(key, *address);
        let asks = !self.request(key).addresses.is_empty() || known.renumber.is_some();
        if known.ingress.is_empty() || !known.ingress.iter().all(is_right) || asks || self.is_left_alone(key) {
            return;
        }
        let others = || addresses(self.config()).filter(|address| !known.ingress.contains(address));
        let of_family = |address: IpAddr| others().filter(move |other| Family::of(*other) == Family::of(address));
        let of_pool = known.ingress.iter().map(|address| of_family(*address).collect::<Vec<_>>());
        let of_pool: Option<Vec<IpAddr>> = of_pool.map(|all| self.random.clone().choice(all)).collect();
        let ingress = match (self.random.u32(0..3), of_pool) {
            (0, Some(of_pool)) if self.files_agree() => of_pool,
            (1, Some(of_pool)) if self.files_agree() => known.ingress.iter().chain(&of_pool).copied().collect(),
            _ => vec!["203.0.113.77".parse().unwrap()],
        };
        self.log.push(format!("overwritten with {ingress:?}"));
        self.put(key, Service { ingress, ..known });
    }

    /// The status shows what is of no pool and crier did not give.
    fn is_foreign(&self, key: &ObjectKey) -> bool {
        let given = self.services[key].given();
        self.services[key].ingress.iter().any(|it| it.to_string() == "203.0.113.77" && !given.contains(it))
    }

    fn is_class_left(&self, key: &ObjectKey) -> bool {
        !self.config().serves_class(self.services[key].class.as_ref())
    }

    /// Nothing is decided of it for now.
    fn is_left_alone(&self, key: &ObjectKey) -> bool {
        !self.services[key].load_balancer || self.is_foreign(key) || self.is_class_left(key)
    }

    /// The addresses of each Service, those apart that somebody else put in their place.
    fn holdings(&self) -> Statuses {
        let of = |(key, service): (&ObjectKey, &Service)| match self.is_foreign(key) {
            true => (key.clone(), service.given()),
            false => (key.clone(), service.ingress.clone()),
        };
        self.services.iter().map(of).collect()
    }

    fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        pool_in(self.config(), address)
    }

    /// The pools and the families of the Service allow it to have the address.
    fn suits(&self, key: &ObjectKey, address: IpAddr) -> bool {
        let Some(pool) = self.pool_of(address) else { return false };
        let selected = pool.namespace_selector.as_ref().map(|it| it.matches(&self.namespaces[&key.namespace]));
        let serves = match (pool.namespaces.contains(&key.namespace), selected) {
            (true, _) | (_, Some(true)) => true,
            (false, None) => pool.namespaces.is_empty(),
            (false, Some(false)) => false,
        };
        serves && self.services[key].families.contains(&Family::of(address))
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

    /// Those that have the address go together with the Service.
    fn fits(&self, key: &ObjectKey, address: IpAddr, statuses: &Statuses) -> bool {
        let mut others = statuses.iter().filter(|(other, held)| *other != key && held.contains(&address));
        others.all(|(other, _)| self.go_together(key, other, address))
    }

    fn is_external(&self, address: IpAddr) -> bool {
        self.services.values().any(|service| service.external_ips.contains(&address))
    }

    /// Whether an address can be given to a Service that does not have it.
    fn is_given(&self, key: &ObjectKey, address: IpAddr) -> bool {
        let Some(pool) = self.pool_of(address) else { return false };
        let reserved = self.config().reservations.iter().find(|it| it.addresses.contains(&address));
        !pool.draining
            && !pool.exclude.iter().any(|range| range.contains(address))
            && reserved.is_none_or(|reservation| reservation.service == *key)
            && !self.replaced.contains(&(key.clone(), address))
    }

    fn check(&mut self, before: &Statuses) {
        let after = self.holdings();
        let decided: Statuses = after.clone().into_iter().filter(|(key, _)| !self.is_left_alone(key)).collect();
        for (key, held) in &decided {
            for address in held {
                let had = before.get(key).is_some_and(|held| held.contains(address));
                // What is to go stays while the agents do not agree on the pools, and what is to be replaced until it is.
                let stays = had && (!self.files_agree() || self.services[key].leaves(*address));
                assert!(stays || self.suits(key, *address), "{key} may not have {address}");
                assert!(stays || self.fits(key, *address, &decided), "{key} has {address} against the rules");
                let mut left_alone =
                    after.iter().filter(|(other, held)| held.contains(address) && self.is_left_alone(other));
                let in_the_way = left_alone.find(|(other, _)| {
                    // It has the address only where it goes with the others that have it.
                    let fits = self.fits(other, *address, &decided_without(&decided, key));
                    fits && !self.go_together(key, other, *address)
                });
                assert!(had || in_the_way.is_none(), "{key} was given {address}, which {in_the_way:?} had");
                // What it holds stays while it asks for what it cannot have.
                assert!(had || self.asks_for_pool_of(key, *address), "{key} does not ask for {address}");
                assert!(had || self.is_given(key, *address), "{key} was given {address}");
                // Who joins others has what they have, whoever names it as external since; or what they name so themselves.
                let joins = self.services.iter().any(|(other, service)| {
                    // Whose status was emptied in this step has it as before.
                    let has =
                        [&decided, before].iter().any(|all| all.get(other).is_some_and(|held| held.contains(address)));
                    let names = || service.external_ips.contains(address) && self.go_together(key, other, *address);
                    other != key && (has || names())
                });
                let own = self.services[key].external_ips.contains(address);
                let others = self.is_external(*address) && !own;
                assert!(had || joins || !others, "{key} was given the external {address}");
            }
            self.check_losses(key, before, &after);
            self.check_waiting(key, &after);
            self.check_again(key, before, &after);
        }
        for (key, held) in after {
            match held.is_empty() {
                true => assert!(self.services[&key].load_balancer || self.services[&key].ingress.is_empty()),
                false => drop(self.had.insert(key, held)),
            }
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
            let replaced = self.replaced.contains(&(key.clone(), *address)) || service.renumber.is_some();
            assert!(!suits || asked || in_the_way || replaced, "{key} lost {address}: {service:?}");
        }
    }

    /// A Service without any address has no addresses that it could be given.
    fn check_waiting(&self, key: &ObjectKey, after: &Statuses) {
        let (service, request) = (&self.services[key], self.request(key));
        if !after[key].is_empty() {
            return;
        }
        let could = |address: &IpAddr| {
            let Some(pool) = self.pool_of(*address) else { return false };
            let held = after.values().any(|held| held.contains(address));
            let asked = request.pools.contains(&pool.name) || (request.pools.is_empty() && pool.auto_assign);
            let mut asked_for = request.addresses.iter().filter(|it| Family::of(**it) == Family::of(*address));
            let free = match asked_for.next() {
                Some(wanted) => wanted == address && self.fits(key, *address, after),
                None => asked && !held,
            };
            free && self.suits(key, *address) && self.is_given(key, *address) && !self.is_external(*address)
        };
        let could_have = |family: &Family| addresses(self.config()).filter(|it| Family::of(*it) == *family).find(could);
        // What is requested it gets, or nothing.
        let requested: Vec<Family> = request.addresses.iter().map(|it| Family::of(*it)).collect();
        let is_vain = requested.iter().any(|family| !service.families.contains(family) || could_have(family).is_none());
        let all = service.families.iter().map(could_have);
        let whole: Option<Vec<IpAddr>> = all.clone().collect();
        let waits_for = match service.family_policy {
            FamilyPolicy::RequireDualStack => whole.unwrap_or_default(),
            FamilyPolicy::PreferDualStack | FamilyPolicy::SingleStack => all.flatten().collect(),
        };
        assert!(is_vain || waits_for.is_empty(), "{key} waits, and {waits_for:?} could be its own: {service:?}");
    }

    /// Who has nothing, had an address, lost it to nobody and wants nothing else, has it again with the first that it gets.
    fn check_again(&self, key: &ObjectKey, before: &Statuses, after: &Statuses) {
        let had_some = before.get(key).is_some_and(|held| !held.is_empty());
        let Some(had) = self.had.get(key).filter(|_| !had_some) else { return };
        let (service, request) = (&self.services[key], self.request(key));
        for address in had {
            let reserved =
                self.config().reservations.iter().any(|it| {
                    it.service == *key && it.addresses.iter().any(|it| Family::of(*it) == Family::of(*address))
                });
            let named = !request.pools.is_empty();
            let by_itself = named || self.pool_of(*address).is_some_and(|pool| pool.auto_assign);
            let may = self.suits(key, *address)
                && self.asks_for_pool_of(key, *address)
                && by_itself
                && self.is_given(key, *address)
                && !self.is_external(*address)
                && self.fits(key, *address, after);
            let wants_else = !request.addresses.is_empty() || reserved || service.renumber.is_some();
            let lacks_other = after[key].is_empty() && service.family_policy == FamilyPolicy::RequireDualStack;
            let has = after[key].contains(address);
            assert!(has || !may || wants_else || lacks_other, "{key} had {address}, and has {:?}", after[key]);
        }
    }

    /// What happened in this step, and what the agent that allocates says of it.
    fn told(&self) -> String {
        let plan = self.agents[self.allocator].plan();
        let of = |(key, it): (&ObjectKey, &Arc<Decision>)| {
            let (allocation, shown) = (&it.allocation, self.services.get(key).map(|service| &service.ingress));
            format!(
                "{key}: {shown:?}, {}, {:?}",
                allocation.reason,
                allocation.complaint.as_ref().map(Reason::to_string)
            )
        };
        let decided = plan.decisions.iter().map(of);
        let waits = format!("files agree: {}, waits: {:?}", self.files_agree(), plan.removals_wait);
        let external = self.services.iter().filter(|(_, service)| !service.external_ips.is_empty());
        let external: Vec<_> = external.map(|(key, service)| (key.to_string(), &service.external_ips)).collect();
        let waits = format!("{waits}, external {external:?}, reserved {:?}", self.config().reservations);
        let pools = self.config().pools.iter().map(|pool| {
            let of_pool = pool.addresses.iter().flat_map(|range| range.iter());
            let of_pool: Vec<String> = of_pool.map(|address| address.to_string()).collect();
            let Pool { name, namespaces, namespace_selector, exclude, draining, auto_assign, .. } = pool;
            let across = pool.share_across_namespaces;
            format!(
                "{name}: {of_pool:?}, for {namespaces:?} {}, exclude {exclude:?}, draining {draining}, auto {auto_assign}, across {across}",
                namespace_selector.is_some()
            )
        });
        self.log.iter().cloned().chain(pools).chain([waits]).chain(decided).collect::<Vec<_>>().join("\n")
    }

    /// Agents that begin with the statuses alone, told in any order, want nothing written and decide alike.
    fn check_order(&mut self) {
        let mut outcome = None;
        for _ in 0..2 {
            let mut planner = self.agent(self.allocator, true, Vec::new());
            planner.turn(self.now);
            // Why a Service has nothing may be said in other words: what it had before is not known any more.
            let wanted: Vec<_> = writes(&planner).into_iter().filter(|(.., write)| write.ingress.is_some()).collect();
            assert!(wanted.is_empty(), "after a restart: {wanted:?}");
            // Who announces it depends on what was there before, and which of several partners a note names on who was told first.
            let decided = planner.plan().decisions.iter();
            let decided: Vec<_> = decided
                .map(|(key, it)| (key.clone(), Allocation { notes: Vec::new(), ..it.allocation.clone() }))
                .collect();
            let known = outcome.get_or_insert_with(|| decided.clone());
            assert_eq!(decided, *known, "the order of facts decides nothing");
        }
    }
}

fn decided_without(statuses: &Statuses, key: &ObjectKey) -> Statuses {
    statuses.iter().filter(|(other, _)| *other != key).map(|(other, held)| (other.clone(), held.clone())).collect()
}

fn addresses(config: &Config) -> impl Iterator<Item = IpAddr> {
    config.pools.iter().flat_map(|pool| &pool.addresses).flat_map(|range| range.iter())
}

fn pool_in(config: &Config, address: IpAddr) -> Option<&Pool> {
    config.pools.iter().find(|pool| pool.addresses.iter().any(|range| range.contains(address)))
}

/// `CRIER_MODEL_SEEDS` plays other seeds: `first..last`.
fn seeds() -> std::ops::Range<u64> {
    let told = std::env::var("CRIER_MODEL_SEEDS").ok();
    let told = told.as_deref().and_then(|told| told.split_once(".."));
    told.map_or(0..30, |(first, last)| first.parse().expect("a number")..last.parse().expect("a number"))
}

#[test]
fn whatever_happens_nobody_shares_against_the_rules_and_nobody_loses_what_it_may_have() {
    for seed in seeds() {
        let mut cluster = Cluster::new(seed);
        cluster.settle();
        for step in 0..60 {
            let (mut before, objects) = (cluster.holdings(), cluster.services.clone());
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                cluster.step();
                cluster.settle();
                // Another Service of the same name, or of another type, has nothing to lose.
                before.retain(|key, _| {
                    let is_same = |it: &Service| it.uid == objects[key].uid && it.load_balancer;
                    cluster.services.get(key).is_some_and(is_same)
                });
                cluster.check(&before);
                cluster.check_order();
            }));
            assert!(checked.is_ok(), "seed {seed}, step {step}: {before:?}\n{}", cluster.told());
        }
    }
}

#[test]
fn services_that_arrive_together_get_the_same_in_any_order() {
    for seed in 0..200 {
        let mut cluster = Cluster::new(seed);
        for number in 0..6 {
            let service = cluster.any_service();
            cluster.services.insert(ObjectKey::new("shop", &format!("s{number}")), service);
        }
        let mut outcome = None;
        for _ in 0..4 {
            let mut planner = cluster.agent(0, true, Vec::new());
            planner.turn(cluster.now);
            let wanted = writes(&planner);
            assert_eq!(*outcome.get_or_insert_with(|| wanted.clone()), wanted, "seed {seed}");
        }
    }
}
