//! The planner's decisions, as stories: facts in, decisions and slices out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::claim::ConflictKind;
use crate::clock;
use crate::config::{self, *};
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::decision::Decision;
use crate::plan::forecast::turn_and_tell;
use crate::reason::Reason;
use crate::selector::Labels;
use crate::world::{
    Condition, EndpointSlice, Fact, FamilyPolicy, Link, Listing, Node, PoolsTold, Request, RequestError, Service,
    TrafficPolicy,
};

mod advertisements;
mod criers;
mod data_path;
mod drains;
mod egress;
mod endpoints_first;
mod forecasts;
mod incremental;
mod keeping;
mod links;
mod metallb;
mod model;
mod new_pods;
mod patience;
mod placements;
mod pools;
mod prefixes;
mod proxies;
mod pulses;
mod reload;
mod renumber;
mod restarts;
mod sharing;
mod sockets;
mod two_links;

/// A planner with the facts of a small cluster, and the verbs of the stories.
struct Story {
    planner: Planner,
    pools: Vec<Pool>,
    now: Instant,
}

/// Kubernetes, one pool, both protocols, one peer: every key that the stories do not set has its default.
const CONFIGURATION: &str = r#"
[kubernetes]
in-cluster = true
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.110"]
rest = "0s"
[[l2]]
[bgp]
asn = 64513
listen = []
[[bgp.peer]]
name = "tor"
address = "10.0.0.1"
asn = 64512
[[bgp.advertisement]]
"#;

fn configuration() -> Config {
    let file = SourceFile { path: "crier.toml".to_owned(), text: CONFIGURATION.to_owned() };
    config::parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"))
}

fn pool(name: &str, addresses: &[&str]) -> Pool {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), addresses, ..configuration().pools.remove(0) }
}

fn peer(name: &str) -> config::Peer {
    config::Peer { name: name.into(), ..configuration().bgp.peers.remove(0) }
}

fn advertisement() -> Advertisement {
    configuration().bgp.advertisements.remove(0)
}

fn standalone() -> Config {
    Config { source: Source::Manifests(Manifests { folder: "/etc/crier/manifests".into() }), ..configuration() }
}

fn service() -> Service {
    Service {
        uid: "u".to_owned(),
        resource_version: "1".to_owned(),
        load_balancer: true,
        families: vec![crate::address::Family::V4],
        ..Service::default()
    }
}

fn story_ingress() -> Service {
    Service { ingress: vec!["192.168.35.100".parse().unwrap()], ..service() }
}

fn asking_for(addresses: &[&str]) -> Service {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Service { request: Ok(Request { addresses, pools: Vec::new() }), ..service() }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn node(labels: &[(&str, &str)]) -> Node {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Node { labels: Labels(labels), ready: true, ..Node::default() }
}

impl Story {
    /// This node is `a`, of three; it leads; one Ethernet link; nothing listed is missing.
    fn begin(config: Config) -> Story {
        Story::begin_on("a", config)
    }

    /// The story of one of the nodes a, b and c.
    fn begin_on(node_name: &str, config: Config) -> Story {
        Story::begin_knowing(Vec::new(), node_name, config)
    }

    /// The same, of an agent that knows something of an earlier life.
    fn begin_knowing(facts: Vec<Fact>, node_name: &str, config: Config) -> Story {
        Story::begin_at(clock::now(), facts, node_name, config)
    }

    fn begin_at(now: Instant, facts: Vec<Fact>, node_name: &str, config: Config) -> Story {
        let pools = config.pools.clone();
        let mut story = Story { planner: Planner::new(Arc::new(config), node_name.into()), pools, now };
        facts.into_iter().for_each(|fact| story.tell(fact));
        for name in ["a", "b", "c"] {
            story.tell(Fact::Node(name.into(), Some(Arc::new(node(&[])))));
        }
        let mac = Some("02:00:00:00:00:01".parse().unwrap());
        let link = Link { mac, ..Link::carrying(2, "eth0", &["192.168.35.11/24"]) };
        story.tell(Fact::Link(2, Some(link)));
        story.tell(Fact::LinksListed);
        for listing in [
            Listing::Services(Default::default()),
            Listing::EndpointSlices(Default::default()),
            Listing::Nodes(["a", "b", "c"].map(NodeName::from).into()),
            Listing::Namespaces(Default::default()),
        ] {
            story.tell(Fact::Listed(listing));
        }
        story.tell(Fact::Allocates(true));
        story.turn();
        story
    }

    fn tell(&mut self, fact: Fact) {
        self.planner.apply(fact);
    }

    fn turn(&mut self) -> Turn {
        turn_and_tell(&mut self.planner, self.now)
    }

    fn put(&mut self, name: &str, service: Service) -> Arc<Decision> {
        self.tell(Fact::Service(key(name), Some(Arc::new(service))));
        self.turn();
        self.decision(name)
    }

    fn delete(&mut self, name: &str) {
        self.tell(Fact::Service(key(name), None));
        self.turn();
    }

    fn endpoints(&mut self, name: &str, nodes: &[&str]) {
        self.endpoints_of(name, nodes, nodes);
    }

    /// What serves and is not ready terminates.
    fn endpoints_of(&mut self, name: &str, serving: &[&str], ready: &[&str]) {
        let counts = |nodes: &[&str]| nodes.iter().map(|name| (NodeName::from(*name), 1)).collect();
        let slice = EndpointSlice {
            service: key(name),
            family: None,
            ready: counts(ready),
            serving: counts(serving),
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        self.tell(Fact::EndpointSlice(key(&format!("{name}-1")), Some(Arc::new(slice))));
        self.turn();
    }

    /// The API server confirms what the status slice asks for.
    fn confirm(&mut self, name: &str) -> Arc<Decision> {
        let wanted = self.planner.plan().status.services.get(&key(name)).and_then(|status| status.write.clone());
        let wanted = wanted.expect("there is something to write");
        let mut service = Service::clone(&self.planner.world().services[&key(name)]);
        if let Some(ingress) = wanted.ingress {
            (service.ingress, service.not_vip) = (ingress, Vec::new());
        }
        service.pools_told = match service.pools_told {
            PoolsTold::Nothing => PoolsTold::Nothing,
            _ => PoolsTold::Same(super::slice::pools_in_words(&wanted.pools).into()),
        };
        service.condition = wanted.condition.map(Arc::new);
        service.resource_version = format!("{}", service.resource_version.parse::<u64>().unwrap() + 1);
        self.tell(Fact::StatusWritten(key(name), Arc::new(service)));
        self.turn();
        self.decision(name)
    }

    /// What crier says then.
    fn confirm_condition(&mut self, name: &str) -> Condition {
        self.confirm(name);
        let service = self.planner.world().services[&key(name)].clone();
        Condition::clone(service.condition.as_ref().expect("a condition was written"))
    }

    /// The addresses that the status slice wants written.
    fn written(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.planner.plan().status.services[&key(name)].write.as_ref().and_then(|write| write.ingress.clone())
    }

    fn decision(&self, name: &str) -> Arc<Decision> {
        self.planner.plan().decisions.get(&key(name)).expect("the Service was judged").clone()
    }

    fn addresses(&self, name: &str) -> Vec<String> {
        self.decision(name).allocation.held.iter().map(|held| held.address.to_string()).collect()
    }

    fn routes(&self) -> Vec<String> {
        let peer = self.planner.plan().bgp.peers.get(&PeerName::from("tor")).expect("the peer is there");
        peer.routes.keys().map(ToString::to_string).collect()
    }

    fn answered(&self) -> Vec<String> {
        self.planner.plan().l2.addresses.keys().map(ToString::to_string).collect()
    }
}

#[test]
fn the_first_free_address_is_given_and_a_request_is_granted() {
    let mut story = Story::begin(configuration());
    story.put("grafana", asking_for(&["192.168.35.103"]));
    story.put("first", service());
    story.put("second", service());
    assert_eq!(story.addresses("grafana"), ["192.168.35.103"]);
    assert_eq!(story.addresses("first"), ["192.168.35.100"]);
    assert_eq!(story.addresses("second"), ["192.168.35.101"]);
}

#[test]
fn the_lowest_free_address_is_found_whatever_came_and_went() {
    // Input: a thousand random arrivals and departures. Output: each arrival gets the lowest address that nobody holds.
    let mut config = configuration();
    config.pools = vec![pool("one", &["192.0.2.0/28", "198.51.100.4-198.51.100.9"]), pool("two", &["203.0.113.0/29"])];
    let mut story = Story::begin(config);
    let all: Vec<String> = story
        .pools
        .iter()
        .flat_map(|pool| &pool.addresses)
        .flat_map(|range| range.iter())
        .map(|it| it.to_string())
        .collect();
    let mut random = fastrand::Rng::with_seed(3);
    let mut held: std::collections::BTreeMap<String, String> = Default::default();
    for round in 0..1000 {
        if random.u8(..) < 150 {
            let name = format!("s{round}");
            story.put(&name, service());
            let lowest = all.iter().find(|address| !held.values().any(|it| it == *address)).cloned();
            assert_eq!(story.addresses(&name).first().cloned(), lowest, "arrival {round}");
            match lowest {
                Some(address) => drop(held.insert(name, address)),
                None => story.delete(&name),
            }
        } else if let Some(name) = random.choice(held.keys().cloned().collect::<Vec<_>>()) {
            story.delete(&name);
            held.remove(&name);
        }
    }
    assert!(!held.is_empty());
}

#[test]
fn the_capacity_of_a_pool_counts_what_it_hands_out() {
    let avoiding = |addresses: &[&str]| Pool { avoid_network_and_broadcast: true, ..pool("p", addresses) };
    for range in ["192.0.2.0/24", "192.0.2.0/28", "192.0.1.250-192.0.3.3", "192.0.2.255", "192.0.2.0", "10.0.0.0/22"] {
        let pool = avoiding(&[range]);
        let by_hand = pool.addresses[0].iter().filter(|address| match address {
            std::net::IpAddr::V4(v4) => !matches!(v4.octets()[3], 0 | 255),
            std::net::IpAddr::V6(_) => true,
        });
        assert_eq!(allocate::capacity(&pool), by_hand.count() as u64, "{range}");
    }
    assert_eq!(allocate::capacity(&pool("p", &["192.0.2.0/24", "fd35::/120"])), 512);
    assert_eq!(allocate::capacity(&pool("p", &["fd35::/64"])), u64::MAX);
}

#[test]
fn a_wish_by_name_goes_before_chance_in_one_batch() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Service(key("a-without-wish"), Some(Arc::new(service()))));
    story.tell(Fact::Service(key("z-with-wish"), Some(Arc::new(asking_for(&["192.168.35.100"])))));
    story.turn();
    assert_eq!(story.addresses("z-with-wish"), ["192.168.35.100"]);
    assert_eq!(story.addresses("a-without-wish"), ["192.168.35.101"]);
}

#[test]
fn a_promise_stands_while_the_api_server_has_not_answered() {
    let mut story = Story::begin(configuration());
    story.put("m", service());
    story.put("a", service());
    assert_eq!(story.addresses("m"), ["192.168.35.100"], "first come");
    assert_eq!(story.addresses("a"), ["192.168.35.101"], "a name that sorts earlier takes nothing away");
    assert!(story.decision("m").announcements.is_empty(), "not confirmed, not announced");
}

#[test]
fn a_refused_write_is_a_problem_until_one_is_taken() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { ingress: vec!["198.51.100.9".parse().unwrap()], ..asking_for(&["198.51.100.9"]) });
    story.tell(Fact::StatusRefused(key("web"), "500 etcd is away".to_owned()));
    assert_eq!(story.planner.world().refused.len(), 1);
    story.confirm("web");
    assert!(story.addresses("web").is_empty(), "it was written that there is no address");
    assert!(story.planner.world().refused.is_empty(), "{:?}", story.planner.world().refused);
}

#[test]
fn nothing_is_announced_before_the_status_is_written() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["b"]);
    story.put("web", service());
    assert!(story.routes().is_empty());
    story.confirm("web");
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
}

#[test]
fn wishes_that_cannot_be_granted_say_why() {
    let mut story = Story::begin(configuration());
    story.put("holder", asking_for(&["192.168.35.105"]));
    let reason = |story: &Story, name: &str| story.decision(name).allocation.reason.clone();

    story.put("outside", asking_for(&["10.1.2.3"]));
    assert_eq!(reason(&story, "outside"), Reason::AddressOutsidePools { address: "10.1.2.3".parse().unwrap() });
    story.put("taken", asking_for(&["192.168.35.105"]));
    let expected = Reason::AddressInUse { address: "192.168.35.105".parse().unwrap(), by: key("holder") };
    assert_eq!(reason(&story, "taken"), expected);
    story.put("other-family", asking_for(&["fd35::1"]));
    assert_eq!(reason(&story, "other-family").code(), "wrong-family");
    let unknown_pool = Request { addresses: Vec::new(), pools: vec!["wan".into()] };
    story.put("unknown-pool", Service { request: Ok(unknown_pool), ..service() });
    assert_eq!(reason(&story, "unknown-pool").to_string(), "there is no pool \"wan\"; there are: lan");
    let error = RequestError::Malformed {
        field: "annotation crier.dev/addresses".to_owned(),
        value: "1.2.3".to_owned(),
        problem: "not an address".to_owned(),
    };
    story.put("malformed", Service { request: Err(error), ..service() });
    assert_eq!(reason(&story, "malformed").code(), "request-unreadable");
    for name in ["outside", "taken", "other-family", "unknown-pool", "malformed"] {
        let status = &story.planner.plan().status.services[&key(name)];
        assert!(status.notice.as_ref().is_some_and(|it| it.warning), "{name} has a warning Event");
        assert_eq!(story.written(name), None, "{name} has no address to write");
        let condition = status.write.as_ref().and_then(|write| write.condition.as_ref()).expect("a condition");
        assert!(!condition.allocated && condition.message.starts_with("no address: "), "{condition:?}");
    }
}

#[test]
fn one_who_waits_for_an_address_gets_it_when_it_becomes_free() {
    let mut story = Story::begin(configuration());
    story.put("holder", asking_for(&["192.168.35.105"]));
    story.put("waiter", asking_for(&["192.168.35.105"]));
    assert!(story.addresses("waiter").is_empty());
    story.delete("holder");
    assert_eq!(story.addresses("waiter"), ["192.168.35.105"]);
}

#[test]
fn a_new_wish_that_cannot_be_granted_leaves_the_address_of_before() {
    let mut story = Story::begin(configuration());
    story.put("other", asking_for(&["192.168.35.105"]));
    story.put("web", service());
    story.confirm("web");
    let service = Service { ingress: vec!["192.168.35.100".parse().unwrap()], ..asking_for(&["192.168.35.105"]) };
    story.put("web", Service { resource_version: "9".to_owned(), ..service });
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    assert!(matches!(story.decision("web").allocation.complaint, Some(Reason::AddressInUse { .. })));
    story.delete("other");
    assert_eq!(story.addresses("web"), ["192.168.35.105"], "granted when it became free");
}

#[test]
fn a_full_pool_says_so_and_a_freed_address_rests() {
    let mut config = configuration();
    config.pools = vec![Pool { rest: Duration::from_secs(30), ..pool("tiny", &["192.0.2.1"]) }];
    let mut story = Story::begin(config);
    story.put("first", service());
    story.put("second", service());
    assert_eq!(story.decision("second").allocation.reason.to_string(), "no free IPv4 address in tiny");
    story.delete("first");
    assert!(story.addresses("second").is_empty(), "the address rests");
    let wake = story.planner.next_deadline().expect("the planner wants to come back when the rest is over");
    assert_eq!(wake, story.now + Duration::from_secs(30));
    story.now = wake;
    story.turn();
    assert_eq!(story.addresses("second"), ["192.0.2.1"]);
    assert_eq!(story.planner.next_deadline(), None);
}

#[test]
fn the_service_that_held_a_resting_address_may_have_it_back() {
    let mut config = configuration();
    config.pools[0].rest = Duration::from_secs(30);
    let mut story = Story::begin(config);
    story.put("web", service());
    story.delete("web");
    story.put("other", service());
    assert_eq!(story.addresses("other"), ["192.168.35.101"]);
    story.put("web", service());
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
}

#[test]
fn pools_made_for_some_go_before_pools_for_all_and_by_priority() {
    let mut config = configuration();
    let shop = |name, addresses: &[&str], priority| Pool {
        namespaces: vec!["shop".into()],
        priority,
        ..pool(name, addresses)
    };
    config.pools = vec![
        pool("all", &["192.0.2.1"]),
        shop("late", &["192.0.2.2"], None),
        shop("second", &["192.0.2.4"], Some(20)),
        shop("first", &["192.0.2.3"], Some(10)),
        Pool { namespaces: vec!["bank".into()], ..pool("bank", &["192.0.2.9"]) },
        Pool { auto_assign: false, ..pool("by-request", &["192.0.2.8"]) },
    ];
    let mut story = Story::begin(config);
    for (name, expected) in [("1", "192.0.2.3"), ("2", "192.0.2.4"), ("3", "192.0.2.2"), ("4", "192.0.2.1")] {
        story.put(name, service());
        assert_eq!(story.addresses(name), [expected]);
    }
    story.put("5", service());
    assert!(story.addresses("5").is_empty(), "neither another namespace's pool nor one that does not assign by itself");
    story.put("asks", asking_for(&["192.0.2.8"]));
    assert_eq!(story.addresses("asks"), ["192.0.2.8"]);
    story.put("not-served", asking_for(&["192.0.2.9"]));
    assert_eq!(story.decision("not-served").allocation.reason, Reason::PoolNotForService { pool: "bank".into() });
}

#[test]
fn dual_stack_takes_a_pair_of_one_pool_if_it_can() {
    use crate::address::Family::{V4, V6};
    let mut config = configuration();
    config.pools = vec![
        pool("v4", &["192.0.2.1-192.0.2.9"]),
        pool("both", &["198.51.100.1", "fd35::1"]),
        pool("v6", &["fd36::1"]),
    ];
    let mut story = Story::begin(config);
    let dual = |policy| Service { families: vec![V4, V6], family_policy: policy, ..service() };
    story.put("1", dual(FamilyPolicy::PreferDualStack));
    assert_eq!(story.addresses("1"), ["198.51.100.1", "fd35::1"], "of one pool");
    story.put("2", dual(FamilyPolicy::RequireDualStack));
    assert_eq!(story.addresses("2"), ["192.0.2.1", "fd36::1"], "of two, rather than none");
    story.put("3", dual(FamilyPolicy::PreferDualStack));
    assert_eq!(story.addresses("3"), ["192.0.2.2"], "one family, rather than none");
    story.put("4", dual(FamilyPolicy::RequireDualStack));
    assert_eq!(story.decision("4").allocation.reason, Reason::NoDualStack { missing: V6 });
}

#[test]
fn the_owner_on_the_link_is_one_node_and_the_same_from_everywhere() {
    let owners: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|me| {
            let mut story = Story::begin(configuration());
            story.planner = {
                let mut planner = Planner::new(Arc::new(configuration()), me.into());
                for fact in story.planner.world().to_remember() {
                    planner.apply(fact);
                }
                planner.apply(Fact::Link(2, story.planner.world().links.get(&2).cloned()));
                planner.apply(Fact::LinksListed);
                planner.apply(Fact::FailStatic);
                planner
            };
            story.endpoints("web", &["b"]);
            let service = Service { ingress: vec!["192.168.35.100".parse().unwrap()], ..service() };
            let decision = story.put("web", service);
            let announced = decision.announcements[0].l2.announced;
            assert_eq!(announced, !story.answered().is_empty());
            (decision.announcements[0].l2.owner.clone().expect("somebody owns it"), announced)
        })
        .collect();
    assert!(owners.iter().all(|(owner, _)| *owner == owners[0].0), "all name the same owner: {owners:?}");
    assert_eq!(owners.iter().filter(|(_, announced)| *announced).count(), 1, "exactly one answers: {owners:?}");
}

#[test]
fn local_policy_announces_only_where_an_endpoint_is() {
    let mut story = Story::begin(configuration());
    let local = Service { external_traffic_policy: TrafficPolicy::Local, ..service() };
    story.put("web", local);
    story.confirm("web");
    assert_eq!(story.decision("web").announcements[0].bgp.reason, Reason::NoEndpoints);
    story.endpoints("web", &["b"]);
    assert_eq!(story.decision("web").announcements[0].bgp.reason, Reason::NoLocalEndpoint);
    assert_eq!(story.decision("web").announcements[0].l2.owner, Some("b".into()));
    assert!(story.routes().is_empty());
    story.endpoints("web", &["a"]);
    assert_eq!(story.routes(), ["192.168.35.100/32"]);
    assert_eq!(story.answered(), ["192.168.35.100"]);
    story.endpoints("web", &[]);
    assert!(story.routes().is_empty() && story.answered().is_empty());
}

/// Output under Local: a node whose endpoints all terminate is relieved while it still serves, if another can take over.
#[test]
fn a_node_whose_endpoints_terminate_is_relieved_as_soon_as_another_is_ready() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { external_traffic_policy: TrafficPolicy::Local, ..service() });
    story.confirm("web");
    story.endpoints_of("web", &["a"], &[]);
    assert_eq!((story.routes().len(), story.answered().len()), (1, 1), "nobody else is there");
    story.endpoints_of("web", &["a", "b"], &["b"]);
    assert_eq!(story.decision("web").announcements[0].l2.owner, Some("b".into()));
    assert_eq!(story.decision("web").announcements[0].bgp.reason, Reason::NoLocalEndpoint);
    assert!(story.routes().is_empty() && story.answered().is_empty());
    story.endpoints_of("web", &["a", "b"], &["a", "b"]);
    assert_eq!(story.routes().len(), 1);
}

#[test]
fn endpoints_that_name_no_node_are_told_to_the_user_under_local() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { external_traffic_policy: TrafficPolicy::Local, ..service() });
    story.confirm("web");
    let slice = EndpointSlice {
        service: key("web"),
        family: None,
        ready: Default::default(),
        serving: Default::default(),
        serving_without_node: 2,
        unready: Default::default(),
        addresses: Default::default(),
    };
    story.tell(Fact::EndpointSlice(key("web-1"), Some(Arc::new(slice))));
    story.turn();
    let announcement = &story.decision("web").announcements[0];
    assert_eq!(announcement.bgp.reason, Reason::EndpointsNameNoNode);
    assert_eq!(announcement.l2.reason, Reason::EndpointsNameNoNode);
    let notice = story.planner.plan().status.services[&key("web")].notice.clone().unwrap();
    assert!(notice.warning && notice.message.contains("name no node"), "{notice:?}");
}

#[test]
fn an_excluded_node_announces_nothing_and_a_cordoned_one_goes_on() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    assert_eq!(story.routes().len(), 1);
    let excluded = node(&[(Node::EXCLUDE_LABEL, "")]);
    story.tell(Fact::Node("a".into(), Some(Arc::new(excluded))));
    story.turn();
    assert!(story.routes().is_empty());
    assert_eq!(story.decision("web").announcements[0].bgp.reason, Reason::NodeExcluded);
    assert_ne!(story.decision("web").announcements[0].l2.owner, Some("a".into()));
}

#[test]
fn the_exclude_label_counts_for_nothing_where_the_configuration_says_so() {
    let mut config = configuration();
    config.node.ignore_exclude_label = true;
    let mut story = Story::begin(config);
    let excluded = || Some(Arc::new(node(&[(Node::EXCLUDE_LABEL, "")])));
    for name in ["a", "b", "c"] {
        story.tell(Fact::Node(name.into(), excluded()));
    }
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    assert_eq!(story.routes().len(), 1);
    assert!(story.decision("web").announcements[0].l2.owner.is_some());
}

#[test]
fn a_node_that_is_not_ready_is_passed_over_unless_all_are() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    let owner = |story: &Story| story.decision("web").announcements[0].l2.owner.clone().unwrap();
    let first = story.confirm("web").announcements[0].l2.owner.clone().unwrap();
    let not_ready = || Some(Arc::new(Node { ready: false, ..node(&[]) }));
    story.tell(Fact::Node(first.clone(), not_ready()));
    story.turn();
    assert_ne!(owner(&story), first);
    for name in ["a", "b", "c"] {
        story.tell(Fact::Node(name.into(), not_ready()));
    }
    story.turn();
    assert_eq!(owner(&story), first, "readiness of none tells nothing of any");
}

#[test]
fn a_change_of_type_withdraws_and_empties_the_status() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    let before = Service::clone(&story.planner.world().services[&key("web")]);
    story.put("web", Service { load_balancer: false, resource_version: "9".to_owned(), ..before });
    assert!(story.routes().is_empty() && story.answered().is_empty());
    assert_eq!(story.written("web"), Some(Vec::new()));
    let wanted = story.planner.plan().status.services[&key("web")].write.clone().unwrap();
    assert_eq!(wanted.condition, None, "and crier says nothing of it any more");
    let cleared = Service { load_balancer: false, resource_version: "10".to_owned(), ..service() };
    story.tell(Fact::Service(key("web"), Some(Arc::new(cleared))));
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.100"], "the address is free again");
}

#[test]
fn a_service_of_another_class_is_left_alone() {
    let mut story = Story::begin(configuration());
    story.put("theirs", Service { class: Some("metallb.io/metallb".to_owned()), ..service() });
    assert_eq!(story.decision("theirs").allocation.reason.code(), "other-class");
    assert_eq!(story.planner.plan().status.services[&key("theirs")].write, None);
    story.put("ours", Service { class: Some("crier.dev/crier".to_owned()), ..service() });
    assert_eq!(story.addresses("ours"), ["192.168.35.100"]);
}

#[test]
fn one_who_does_not_lead_announces_what_the_status_says_and_writes_nothing() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Allocates(false));
    story.endpoints("web", &["b"]);
    story.put("web", service());
    assert_eq!(story.decision("web").allocation.reason, Reason::WaitingForAllocator);
    let written =
        Service { ingress: vec!["192.168.35.107".parse().unwrap()], resource_version: "2".to_owned(), ..service() };
    story.put("web", written);
    assert_eq!(story.routes(), ["192.168.35.107/32"]);
    assert!(story.planner.plan().status.services.is_empty());
}

#[test]
fn an_address_that_two_statuses_show_is_announced_for_one() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Allocates(false));
    let with_address = || Service { ingress: vec!["192.168.35.107".parse().unwrap()], ..service() };
    story.put("b", with_address());
    story.put("a", with_address());
    assert_eq!(story.addresses("a").len() + story.addresses("b").len(), 1);
    story.delete("a");
    assert_eq!(story.addresses("b"), ["192.168.35.107"]);
}

#[test]
fn a_list_takes_away_what_it_does_not_name() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    story.tell(Fact::Listed(Listing::Services([key("other")].into())));
    story.turn();
    assert!(story.routes().is_empty());
    assert!(story.planner.plan().decisions.is_empty());
}

#[test]
fn history_told_late_does_not_undo_what_is_known() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    story.put("web", service());
    assert_eq!(story.routes(), ["192.168.35.100/32"], "what the watch tells behind the write changes nothing");
    let told =
        Service { ingress: vec!["192.168.35.105".parse().unwrap()], resource_version: "2".to_owned(), ..service() };
    story.put("web", told);
    assert_eq!(story.routes(), ["192.168.35.105/32"], "the watch has caught up: its word counts");
    let restored = Service { resource_version: "1".to_owned(), ..story_ingress() };
    story.put("web", restored);
    assert_eq!(story.routes(), ["192.168.35.100/32"], "an API server restored from a backup counts backwards");
}

#[test]
fn aggregated_services_share_a_route_until_the_last_leaves() {
    let mut config = configuration();
    config.bgp.advertisements[0].aggregation_length = 24;
    let mut story = Story::begin(config);
    for name in ["one", "two"] {
        story.endpoints(name, &["a"]);
        story.put(name, service());
        story.confirm(name);
    }
    assert_eq!(story.routes(), ["192.168.35.0/24"]);
    story.delete("one");
    assert_eq!(story.routes(), ["192.168.35.0/24"]);
    story.delete("two");
    assert!(story.routes().is_empty());
}

#[test]
fn two_advertisements_of_a_prefix_unite_their_communities() {
    let mut config = configuration();
    let with = |text: &str| Advertisement { communities: vec![text.parse().unwrap()], ..advertisement() };
    config.bgp.advertisements = vec![with("64512:2"), Advertisement { med: Some(7), ..with("64512:1") }];
    let mut story = Story::begin(config);
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    let peer = &story.planner.plan().bgp.peers[&PeerName::from("tor")];
    let attributes = peer.routes.values().next().expect("the route is there");
    let communities: Vec<_> = attributes.communities.iter().map(ToString::to_string).collect();
    assert_eq!((communities, attributes.med), (vec!["64512:1".to_owned(), "64512:2".to_owned()], Some(7)));
}

#[test]
fn standalone_nodes_fed_alike_allocate_alike_and_announce_at_once() {
    let allocate = |me: &str| {
        let mut story = Story::begin(standalone());
        story.planner = Planner::new(Arc::new(standalone()), me.into());
        story.tell(Fact::LinksListed);
        for name in ["web", "api", "mail"] {
            let local = Service { uid: String::new(), resource_version: String::new(), ..service() };
            story.tell(Fact::Service(key(name), Some(Arc::new(local))));
        }
        let keys = ["web", "api", "mail"].map(key).into();
        for listing in [
            Listing::EndpointSlices(Default::default()),
            Listing::Nodes(Default::default()),
            Listing::Namespaces(Default::default()),
            Listing::Services(keys),
        ] {
            story.tell(Fact::Listed(listing));
        }
        story.turn();
        story.endpoints("api", &["a"]);
        (["web", "api", "mail"].map(|name| story.addresses(name)), story.routes())
    };
    assert_eq!(allocate("a"), allocate("b"));
    let (addresses, routes) = allocate("a");
    assert_eq!(addresses[1], ["192.168.35.100"], "by name, not by arrival");
    assert_eq!(routes, ["192.168.35.100/32"]);
}

#[test]
fn an_address_is_put_on_the_bind_link_only_while_announced() {
    let mut config = standalone();
    config.pools[0].bind = Some("lo".into());
    let mut story = Story::begin(config);
    story.put("web", service());
    assert!(story.planner.plan().bind.addresses.is_empty());
    story.endpoints("web", &["b"]);
    assert_eq!(story.planner.plan().bind.addresses.len(), 1);
    story.endpoints("web", &[]);
    assert!(story.planner.plan().bind.addresses.is_empty());
}

#[test]
fn a_turn_without_news_moves_nothing() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    let turn = story.turn();
    assert!(turn.changes.is_empty());
    assert_eq!(turn.moved, Moved::default());
}

#[test]
fn the_plan_is_the_same_in_whatever_order_the_facts_come() {
    // Input: the same final facts about announcing, in a hundred random orders. Output: the same slices.
    let mut facts = Vec::new();
    for (index, name) in ["s1", "s2", "s3", "s4"].into_iter().enumerate() {
        let ingress = vec![format!("192.168.35.{}", 100 + index).parse().unwrap()];
        facts.push(Fact::Service(key(name), Some(Arc::new(Service { ingress, ..service() }))));
        let serving = [(NodeName::from(["a", "b", "c", "a"][index]), 1)].into();
        let slice = EndpointSlice {
            service: key(name),
            family: None,
            ready: Default::default(),
            serving,
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        facts.push(Fact::EndpointSlice(key(&format!("{name}-x")), Some(Arc::new(slice))));
    }
    facts.push(Fact::Node("b".into(), Some(Arc::new(node(&[(Node::EXCLUDE_LABEL, "true")])))));
    let mut random = fastrand::Rng::with_seed(7);
    let mut outcome = None;
    for _ in 0..100 {
        random.shuffle(&mut facts);
        let mut story = Story::begin(configuration());
        story.tell(Fact::Allocates(false));
        for fact in &facts {
            story.tell(fact.clone());
            if random.bool() {
                story.turn();
            }
        }
        story.turn();
        let this = (story.answered(), story.routes());
        assert_eq!(*outcome.get_or_insert(this.clone()), this);
    }
}

#[test]
fn the_first_plan_of_complete_lists_says_what_is_bound_even_where_that_is_nothing() {
    let now = clock::now();
    let mut planner = Planner::new(Arc::new(standalone()), "a".into());
    planner.apply(Fact::LinksListed);
    planner.apply(Fact::FailStatic);
    assert!(!planner.turn(now).moved.bind, "what is remembered is not all: an address stays bound");
    for listing in [
        Listing::Services(Default::default()),
        Listing::EndpointSlices(Default::default()),
        Listing::Nodes(["a"].map(NodeName::from).into()),
        Listing::Namespaces(Default::default()),
    ] {
        planner.apply(Fact::Listed(listing));
    }
    assert!(planner.turn(now).moved.bind, "what an earlier life bound goes");
    assert!(!planner.turn(now).moved.bind);
}
