//! Several Services with one address: who gets it, who goes, and that it is announced while one of them wants it.

use std::collections::BTreeMap;

use super::*;
use crate::address::Family::{V4, V6};
use crate::plan::removals::NOTICE;
use crate::reason::Mismatch;
use crate::world::{Renumber, ServicePort, Sharing};

fn port(number: u16) -> ServicePort {
    ServicePort { protocol: "TCP".to_owned(), port: number }
}

/// Shares by the key `k`, under external traffic policy Cluster.
fn on_port(number: u16) -> Service {
    with_key("k", number)
}

fn with_key(key: &str, number: u16) -> Service {
    let sharing = Sharing { key: key.to_owned(), selector: Labels([("app", "web")].into()) };
    Service { sharing: Some(Box::new(sharing)), ports: vec![port(number)], ..service() }
}

fn local(app: &str, number: u16) -> Service {
    let sharing = Sharing { key: "k".to_owned(), selector: Labels([("app", app)].into()) };
    let policy = TrafficPolicy::Local;
    Service { sharing: Some(Box::new(sharing)), external_traffic_policy: policy, ..on_port(number) }
}

fn dual(service: Service) -> Service {
    Service { families: vec![V4, V6], family_policy: FamilyPolicy::RequireDualStack, ..service }
}

fn shows(service: Service, addresses: &[&str]) -> Service {
    Service { ingress: addresses.iter().map(|text| text.parse().unwrap()).collect(), ..service }
}

fn asks(service: Service, address: &str) -> Service {
    Service { request: asking_for(&[address]).request, ..service }
}

fn why(story: &Story, name: &str) -> Option<Mismatch> {
    let allocation = &story.decision(name).allocation;
    let reasons = allocation.notes.iter().chain(&allocation.complaint).chain([&allocation.reason]);
    let why = |reason: &Reason| match reason {
        Reason::AddressNotShared { why, .. } => Some(Mismatch::clone(why)),
        _ => None,
    };
    reasons.filter_map(why).next()
}

/// The Service is changed as its owner edits it: the status stays.
fn edit(story: &mut Story, name: &str, service: Service) {
    story.now += Duration::from_secs(1);
    let known = story.planner.world().services[&key(name)].clone();
    let version = known.resource_version.parse::<u64>().unwrap() + 1;
    story.put(name, Service { ingress: known.ingress.clone(), resource_version: version.to_string(), ..service });
}

#[test]
fn the_second_service_of_a_key_gets_the_address_of_the_first() {
    let mut story = Story::begin(configuration());
    story.put("other", service());
    story.put("web", on_port(80));
    story.put("tls", on_port(443));
    story.put("alone", service());
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
    assert_eq!(story.addresses("tls"), ["192.168.35.101"]);
    assert_eq!(story.addresses("alone"), ["192.168.35.102"], "without a key");
    story.put("elsewhere", with_key("other", 22));
    assert_eq!(story.addresses("elsewhere"), ["192.168.35.103"]);
    assert_eq!(why(&story, "elsewhere"), None, "nobody else has its key");
}

/// Input: more Services share an address than may join it, for they came from MetalLB so; one is deleted and made again, one
/// has its status wiped. Output: both have their address again. A new one does not join.
#[test]
fn one_of_more_sharers_than_may_join_comes_back_to_its_address() {
    let mut story = Story::begin(configuration());
    let name = |number: u16| format!("m{number:03}");
    let shared = ["192.168.35.105"];
    for number in 0..260 {
        story.tell(Fact::Service(key(&name(number)), Some(Arc::new(shows(on_port(number), &shared)))));
    }
    story.turn();
    story.delete("m007");
    story.put("m007", Service { uid: "made again".to_owned(), ..on_port(7) });
    assert_eq!(story.addresses("m007"), shared);
    let version = story.planner.world().services[&key("m200")].resource_version.parse::<u64>().unwrap() + 1;
    story.put("m200", Service { resource_version: version.to_string(), ..on_port(200) });
    assert_eq!(story.addresses("m200"), shared);
    story.put("new", on_port(301));
    assert_ne!(story.addresses("new"), shared);
}

#[test]
fn services_that_arrive_together_share_from_the_start() {
    let mut story = Story::begin(configuration());
    for (name, number) in [("a", 80), ("b", 443), ("c", 80)] {
        story.tell(Fact::Service(key(name), Some(Arc::new(on_port(number)))));
    }
    story.tell(Fact::Service(key("z"), Some(Arc::new(asks(on_port(53), "192.168.35.107")))));
    story.turn();
    for name in ["z", "a", "b"] {
        assert_eq!(story.addresses(name), ["192.168.35.107"], "{name}");
    }
    assert_eq!(story.addresses("c"), ["192.168.35.100"], "port 80 is taken there");
    assert_eq!(why(&story, "c"), Some(Mismatch::Port { protocol: "TCP".to_owned(), port: 80 }));
    let notice = story.planner.plan().status.services[&key("c")].notice.clone().unwrap();
    let told = "192.168.35.107 of shop/a is not shared with this Service: both have port 80/TCP";
    assert!(!notice.warning && notice.message.ends_with(told), "{}", notice.message);
}

#[test]
fn a_requested_address_is_shared_or_refused_with_the_rule() {
    let mut story = Story::begin(configuration());
    story.put("web", asks(on_port(80), "192.168.35.105"));
    story.put("tls", asks(on_port(443), "192.168.35.105"));
    assert_eq!(story.addresses("tls"), ["192.168.35.105"]);
    let refused = [
        ("ports", on_port(443), Mismatch::Port { protocol: "TCP".to_owned(), port: 443 }),
        ("key", with_key("K", 22), Mismatch::Key { own: "K".to_owned(), other: "k".to_owned() }),
        ("policy", local("web", 22), Mismatch::Policy { other: "Cluster".to_owned() }),
    ];
    for (name, service, mismatch) in refused {
        story.put(name, asks(service, "192.168.35.105"));
        assert!(story.addresses(name).is_empty(), "{name}");
        assert_eq!(why(&story, name), Some(mismatch), "{name}");
    }
    story.put("none", asking_for(&["192.168.35.105"]));
    let reason = &story.decision("none").allocation.reason;
    assert!(matches!(reason, Reason::AddressInUse { .. }), "without a key there is nothing to compare: {reason}");
    story.delete("tls");
    assert_eq!(story.addresses("ports"), ["192.168.35.105"], "the port became free");
}

#[test]
fn who_holds_an_address_rightly_keeps_it_while_its_request_cannot_be_met() {
    let mut story = Story::begin(configuration());
    story.put("web", asks(on_port(80), "192.168.35.105"));
    story.put("tls", on_port(22));
    story.confirm("web");
    story.confirm("tls");
    story.put("other", service());
    story.confirm("other");
    edit(&mut story, "other", asks(with_key("k", 80), "192.168.35.105"));
    assert_eq!(story.addresses("other"), ["192.168.35.100"]);
    assert!(story.decision("other").allocation.complaint.is_some());
    edit(&mut story, "web", asks(on_port(81), "192.168.35.105"));
    assert_eq!(story.addresses("other"), ["192.168.35.105"], "granted when the port became free");
}

/// B6 of the field cases, also after a restart: every status is known before anybody is judged.
#[test]
fn statuses_that_show_one_address_stay_as_they_are_where_the_rules_allow_it() {
    let mut story = Story::begin(configuration());
    for (name, number) in [("c", 53), ("a", 80), ("b", 443)] {
        let service = shows(asks(on_port(number), "192.168.35.105"), &["192.168.35.105"]);
        story.tell(Fact::Service(key(name), Some(Arc::new(service))));
    }
    story.turn();
    for name in ["a", "b", "c"] {
        assert_eq!(story.addresses(name), ["192.168.35.105"], "{name}");
        assert_eq!(story.written(name), None, "{name}");
    }
}

#[test]
fn the_one_that_changed_so_that_it_does_not_fit_goes() {
    for changed in ["a", "b"] {
        let mut story = Story::begin(configuration());
        for (name, number) in [("a", 80), ("b", 443)] {
            story.put(name, on_port(number));
            story.confirm(name);
        }
        edit(&mut story, changed, on_port(if changed == "a" { 443 } else { 80 }));
        let stays = if changed == "a" { "b" } else { "a" };
        let complaint = story.decision(changed).allocation.reason.clone();
        assert!(matches!(complaint, Reason::AddressGoes { .. }), "it is told first: {complaint}");
        story.now += NOTICE;
        story.turn();
        assert_eq!(story.addresses(stays), ["192.168.35.100"], "{stays} did not change");
        assert_eq!(story.addresses(changed), ["192.168.35.101"], "{changed} did");
        assert!(matches!(why(&story, changed), Some(Mismatch::Port { .. })));
    }
}

#[test]
fn nobody_goes_for_one_that_goes_itself() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Allocates(false));
    // By name, a goes before b; but it asks for another address.
    story
        .tell(Fact::Service(key("a"), Some(Arc::new(shows(asks(on_port(80), "192.168.35.107"), &["192.168.35.105"])))));
    story.tell(Fact::Service(key("b"), Some(Arc::new(shows(on_port(80), &["192.168.35.105"])))));
    story.turn();
    story.tell(Fact::Allocates(true));
    story.turn();
    assert_eq!(story.addresses("a"), ["192.168.35.107"]);
    assert_eq!(story.addresses("b"), ["192.168.35.105"]);
    assert_eq!(story.written("b"), None);
}

#[test]
fn a_service_that_could_share_now_stays_where_it_is() {
    let mut story = Story::begin(configuration());
    for (name, number) in [("a", 80), ("b", 80)] {
        story.put(name, on_port(number));
        story.confirm(name);
    }
    assert_eq!(story.addresses("b"), ["192.168.35.101"]);
    edit(&mut story, "b", on_port(81));
    assert_eq!(story.addresses("b"), ["192.168.35.101"], "clients know it");
    assert_eq!(why(&story, "b"), None, "no rule is in the way any more");
}

#[test]
fn namespaces_share_where_the_pool_allows_it() {
    for across in [false, true] {
        let mut config = configuration();
        config.pools[0].share_across_namespaces = across;
        let mut story = Story::begin(config);
        story.put("web", on_port(80));
        let bank = ObjectKey::new("bank", "web");
        story.tell(Fact::Service(bank.clone(), Some(Arc::new(on_port(443)))));
        story.turn();
        let allocation = &story.planner.plan().decisions[&bank].allocation;
        let address = allocation.held[0].address.to_string();
        assert_eq!(address, if across { "192.168.35.100" } else { "192.168.35.101" });
        let is_namespace =
            |it: &Reason| matches!(it, Reason::AddressNotShared { why, .. } if **why == Mismatch::Namespace);
        let namespace = allocation.notes.iter().any(is_namespace);
        assert_eq!(namespace, !across, "{:?}", allocation.notes);
    }
}

#[test]
fn both_addresses_of_a_dual_stack_service_are_shared_or_none() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"])];
    let mut story = Story::begin(config);
    story.put("web", dual(on_port(80)));
    assert_eq!(story.addresses("web"), ["192.168.35.100", "fd35::100"]);
    let v6 = Service { families: vec![V6], ..on_port(443) };
    story.put("v6", v6);
    assert_eq!(story.addresses("v6"), ["fd35::100"], "the family that it wants");
    story.put("tls", dual(on_port(443)));
    assert_eq!(story.addresses("tls"), ["192.168.35.101", "fd35::101"], "port 443 is taken on one of the two");
    story.put("dns", dual(on_port(53)));
    assert_eq!(story.addresses("dns"), ["192.168.35.100", "fd35::100"]);
}

#[test]
fn a_pool_that_is_not_for_the_service_is_not_shared_by_its_key() {
    let mut config = configuration();
    let for_bank =
        Pool { namespaces: vec!["bank".into()], share_across_namespaces: true, ..pool("bank", &["192.0.2.1"]) };
    config.pools.push(for_bank);
    let mut story = Story::begin(config);
    story.tell(Fact::Service(ObjectKey::new("bank", "web"), Some(Arc::new(on_port(80)))));
    story.turn();
    story.put("web", on_port(443));
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    assert_eq!(why(&story, "web"), Some(Mismatch::Pool { pool: "bank".into() }));
}

#[test]
fn a_shared_address_is_announced_while_one_service_wants_it() {
    let mut config = configuration();
    config.pools[0].bind = Some("lo".into());
    let mut story = Story::begin(config);
    for (name, number) in [("a", 80), ("b", 443)] {
        story.endpoints(name, &["a"]);
        story.put(name, on_port(number));
        story.confirm(name);
    }
    let announced = |story: &Story| {
        let bound = story.planner.plan().bind.addresses.len();
        let placed = story.planner.plan().placements.values().filter(|it| it.owner.is_some()).count();
        (story.routes().len(), bound, placed)
    };
    let owner = |story: &Story, name: &str| story.decision(name).announcements[0].l2.owner.clone();
    assert_eq!(announced(&story), (1, 1, 1));
    assert_eq!(owner(&story, "a"), owner(&story, "b"), "one node for both");
    let answered = story.answered();
    story.endpoints("a", &[]);
    assert_eq!((announced(&story), story.answered()), ((1, 1, 1), answered.clone()), "a has no endpoint any more");
    assert_eq!(story.decision("a").announcements[0].l2.reason, Reason::NoEndpoints);
    story.delete("a");
    assert_eq!((announced(&story), story.answered()), ((1, 1, 1), answered), "a is gone");
    story.endpoints("b", &[]);
    assert_eq!(announced(&story), (0, 0, 0), "nobody wants it");
    story.endpoints("b", &["a"]);
    assert_eq!(announced(&story), (1, 1, 1));
    story.delete("b");
    assert_eq!(announced(&story), (0, 0, 0));
    assert!(story.planner.plan().placements.is_empty());
}

#[test]
fn under_local_the_nodes_of_all_services_of_the_address_draw_its_traffic() {
    let mut story = Story::begin(configuration());
    for (name, number) in [("a", 80), ("b", 443)] {
        story.put(name, local("web", number));
        story.confirm(name);
    }
    assert_eq!(story.addresses("b"), ["192.168.35.100"]);
    // The slice of the one is told before the slice of the other.
    story.endpoints("a", &["b"]);
    assert!(story.routes().is_empty());
    assert_eq!(story.decision("a").announcements[0].l2.owner, Some("b".into()));
    story.endpoints("b", &["a"]);
    assert_eq!(story.routes(), ["192.168.35.100/32"], "this node serves b");
    let owners = ["a", "b"].map(|name| story.decision(name).announcements[0].l2.owner.clone());
    assert_eq!(owners[0], owners[1], "one node answers for both");
    story.endpoints("b", &["b"]);
    assert!(story.routes().is_empty() && story.answered().is_empty());
}

#[test]
fn shared_pods_count_once_in_the_link_bandwidth() {
    let mut config = configuration();
    config.bgp.advertisements[0].link_bandwidth = true;
    let mut story = Story::begin(config);
    for (name, number) in [("a", 80), ("b", 443)] {
        story.endpoints(name, &["a"]);
        story.put(name, local("web", number));
        story.confirm(name);
    }
    let endpoints = |story: &Story| {
        let peer = &story.planner.plan().bgp.peers[&PeerName::from("tor")];
        peer.routes.values().map(|attributes| attributes.endpoints).collect::<Vec<_>>()
    };
    assert_eq!(endpoints(&story), [Some(1)]);
    story.delete("a");
    assert_eq!(endpoints(&story), [Some(1)], "b says it now");
}

#[test]
fn all_addresses_of_services_that_share_move_together() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"])];
    let mut story = Story::begin(config);
    story.endpoints("web", &["a"]);
    story.endpoints("v6", &["a"]);
    // By name, the Service with one address comes first.
    story.put("web", shows(dual(on_port(80)), &["192.168.35.103", "fd35::101"]));
    story.put("v6", shows(Service { families: vec![V6], ..on_port(443) }, &["fd35::101"]));
    let owners: Vec<_> = story.decision("web").announcements.iter().map(|it| it.l2.owner.clone()).collect();
    assert_eq!(owners[0], owners[1]);
    assert_eq!(story.decision("v6").announcements[0].l2.owner, owners[0]);
}

/// Services of one key on ports that follow each other, or all on one port; what one more costs, and the Services of each address.
fn many(count: u16, port_of: impl Fn(u16) -> u16) -> (usize, BTreeMap<String, usize>) {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["10.0.0.0/16"])];
    let mut story = Story::begin(config);
    let put = |story: &mut Story, number: u16| {
        let service = on_port(port_of(number));
        story.tell(Fact::Service(key(&format!("s{number:05}")), Some(Arc::new(service))));
    };
    (0..count).for_each(|number| put(&mut story, number));
    story.turn();
    put(&mut story, count);
    story.turn();
    let cost = story.planner.judged();
    let mut shared = BTreeMap::new();
    for number in 0..=count {
        for address in story.addresses(&format!("s{number:05}")) {
            *shared.entry(address).or_default() += 1;
        }
    }
    (cost, shared)
}

#[test]
fn one_more_service_of_a_key_that_many_have_costs_what_its_address_has_and_not_what_the_key_has() {
    let (cost, shared) = many(300, |number| number + 1);
    assert_eq!(shared.values().copied().collect::<Vec<_>>(), [256, 45], "{shared:?}");
    assert!(cost <= 46, "{cost} Services were judged");
    let (cost, shared) = many(300, |_| 80);
    assert_eq!((shared.len(), cost), (301, 1), "each has an address for itself");
}

/// Crier is to give the Service another address than these.
fn renumber(story: &mut Story, name: &str, leaving: &[&str]) {
    let leaving = leaving.iter().map(|text| text.parse().unwrap()).collect();
    let mut service = Service::clone(&story.planner.world().services[&key(name)]);
    service.renumber = Some(Box::new(Renumber { leaving, overlap: Duration::from_secs(60) }));
    service.resource_version = format!("{}", service.resource_version.parse::<u64>().unwrap() + 10);
    story.put(name, service);
}

/// Input: of Services with one address each is renumbered, one after the other, in a pool that drains, before or after the
/// overlap of the one before is over. Output: they have one address again.
#[test]
fn services_that_are_renumbered_one_after_the_other_stay_together() {
    for pause in [1, 120] {
        let mut story = Story::begin(configuration());
        let names = [("a", 80), ("b", 81), ("c", 82)];
        for (name, number) in names {
            story.put(name, on_port(number));
            story.confirm(name);
        }
        let drained = Pool { draining: true, ..pool("lan", &["192.168.35.100-192.168.35.110"]) };
        let pools = vec![drained, pool("b", &["198.51.100.8/30"])];
        story.tell(Fact::Config(Arc::new(Config { pools, ..configuration() })));
        story.turn();
        for (name, _) in names {
            renumber(&mut story, name, &["192.168.35.100"]);
            story.confirm(name);
            assert_eq!(story.addresses(name), ["192.168.35.100", "198.51.100.8"], "{name}");
            story.now += Duration::from_secs(pause);
            story.turn();
        }
        story.now += Duration::from_secs(120);
        story.turn();
        names.iter().for_each(|(name, _)| assert_eq!(story.addresses(name), ["198.51.100.8"], "{name}"));
    }
}

/// Input: a Service of the key comes while another one has its former address beside the new one. Output: it gets the new one, and where
/// there is none the former.
#[test]
fn who_comes_to_a_service_that_is_renumbered_gets_the_address_that_stays() {
    let mut story = Story::begin(configuration());
    story.put("a", on_port(80));
    story.confirm("a");
    renumber(&mut story, "a", &["192.168.35.100"]);
    story.confirm("a");
    story.put("b", on_port(81));
    assert_eq!(story.addresses("b"), ["192.168.35.101"]);
    let one = Config { pools: vec![pool("lan", &["192.168.35.100"])], ..configuration() };
    let mut story = Story::begin(one);
    story.put("a", on_port(80));
    story.confirm("a");
    renumber(&mut story, "a", &["192.168.35.100"]);
    story.put("b", on_port(81));
    assert_eq!(story.addresses("b"), ["192.168.35.100"]);
}

/// Input: the partner's address is one that nobody gets anew: its pool drains, or is gone. Output: what is said names the
/// partner and its address.
#[test]
fn why_a_partners_address_is_not_given_names_the_partner() {
    let drained = Pool { draining: true, ..pool("lan", &["192.168.35.100-192.168.35.110"]) };
    for (pools, why) in [(vec![drained], "draining"), (vec![], "is in no pool any more")] {
        let mut story = Story::begin(configuration());
        story.put("a", on_port(80));
        story.confirm("a");
        let pools = [pools, vec![pool("b", &["198.51.100.8/30"])]].concat();
        story.tell(Fact::Config(Arc::new(Config { pools, ..configuration() })));
        story.turn();
        story.put("b", on_port(81));
        assert_eq!(story.addresses("b"), ["198.51.100.8"]);
        let said: Vec<String> = story.decision("b").allocation.notes.iter().map(ToString::to_string).collect();
        let [said] = said.as_slice() else { panic!("one reason: {said:?}") };
        let words = ["192.168.35.100 of shop/a", why];
        words.iter().for_each(|word| assert!(said.contains(word) && !said.contains("requested"), "{word} in: {said}"));
    }
}

/// Input: the range of addresses that Services share leaves the file, and what is left is too small for one address
/// each. Output: each group has one new address, as the forecast says; nobody is left without.
#[test]
fn those_who_share_an_address_move_together_when_its_range_leaves_the_file() {
    let udp = Service { ports: vec![ServicePort { protocol: "UDP".to_owned(), port: 80 }], ..with_key("m", 80) };
    let services = [
        ("k0", on_port(80)),
        ("k1", on_port(81)),
        ("k2", on_port(82)),
        ("m0", with_key("m", 80)),
        ("m1", udp),
        ("s0", service()),
        ("s1", service()),
    ];
    let mut config = configuration();
    let mut story = Story::begin(config.clone());
    for name in ["b", "c"] {
        story.tell(Fact::Node(name.into(), None));
    }
    for (name, service) in services.clone() {
        story.put(name, service);
        story.confirm(name);
    }
    assert_eq!(story.addresses("k2"), ["192.168.35.100"]);
    config.pools = vec![pool("new", &["198.51.100.0/30"])];
    let (before, after) = (story.planner.config().clone(), Arc::new(config));
    let known = (story.planner.world(), &story.planner.presumed());
    let told = crate::plan::forecast::forecast((&before, &after), story.planner.node(), known, story.now).unwrap();
    story.tell(Fact::Config(after));
    story.turn();
    let names = services.map(|(name, _)| name);
    story.now += NOTICE;
    story.turn();
    names.iter().for_each(|name| drop(story.confirm(name)));
    let expected = |name: &str| match &name[..1] {
        "k" => "198.51.100.0",
        "m" => "198.51.100.1",
        _ if name == "s0" => "198.51.100.2",
        _ => "198.51.100.3",
    };
    for name in names {
        assert_eq!(story.addresses(name), [expected(name)], "{name}");
        let forecast = told.services.iter().find(|it| it.service == key(name)).map(|it| it.after.clone());
        assert_eq!(forecast, Some(vec![expected(name).parse().unwrap()]), "{name}");
    }
}
