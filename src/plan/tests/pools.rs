//! What pools give to nobody, to one Service alone, or nothing new of; and several pools for one Service.

use super::*;
use crate::address::Family::{V4, V6};
use crate::names::PoolName;
use crate::reason::HostUse;
use crate::world::DefaultRoute;

fn of_pools(names: &[&str]) -> Service {
    let pools = names.iter().map(|name| PoolName::from(*name)).collect();
    Service { request: Ok(Request { addresses: Vec::new(), pools }), ..service() }
}

fn with_pools(pools: Vec<Pool>) -> Story {
    Story::begin(Config { pools, ..configuration() })
}

fn holding(address: &str) -> Service {
    Service { ingress: vec![address.parse().unwrap()], ..service() }
}

fn reason(story: &Story, name: &str) -> String {
    story.decision(name).allocation.reason.to_string()
}

fn notes(story: &Story, name: &str) -> Vec<String> {
    story.decision(name).allocation.notes.iter().map(|note| note.code()).collect()
}

fn reserve(config: &mut Config, name: &str, addresses: &[&str]) {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    config.reservations.push(Reservation { service: key(name), addresses });
}

#[test]
fn an_excluded_address_is_given_to_nobody_and_kept_by_who_holds_it() {
    let exclude = ["192.168.35.100", "192.168.35.102-192.168.35.103"].map(|text| text.parse().unwrap()).to_vec();
    let lan = Pool { exclude, ..configuration().pools.remove(0) };
    assert_eq!(allocate::capacity(&lan), 8);
    let mut story = with_pools(vec![lan]);
    story.put("one", service());
    story.put("two", service());
    assert_eq!(story.addresses("one"), ["192.168.35.101"]);
    assert_eq!(story.addresses("two"), ["192.168.35.104"]);
    story.put("asks", asking_for(&["192.168.35.103"]));
    assert_eq!(reason(&story, "asks"), "pool lan excludes 192.168.35.103: no Service gets it anew");
    story.put("holds", holding("192.168.35.102"));
    assert_eq!(
        (story.addresses("holds"), notes(&story, "holds")),
        (vec!["192.168.35.102".to_owned()], vec!["address-excluded".to_owned()])
    );
    assert!(story.decision("holds").allocation.complaint.is_none());
    story.delete("holds");
    story.put("three", service());
    assert_eq!(story.addresses("three"), ["192.168.35.105"], "not even when it is free again");
}

#[test]
fn half_of_an_endless_range_can_be_excluded() {
    let lan = Pool { exclude: vec!["fd35::/65".parse().unwrap()], ..pool("lan", &["fd35::/64"]) };
    let mut story = with_pools(vec![lan]);
    story.put("web", Service { families: vec![V6], ..service() });
    assert_eq!(story.addresses("web"), ["fd35::8000:0:0:0"]);
}

/// A11 of the field cases.
#[test]
fn what_hosts_and_subnets_use_themselves_is_given_to_no_service() {
    let mut story = with_pools(vec![pool("lan", &["192.168.35.0/24", "fd35::/120"])]);
    let addresses =
        vec!["192.168.35.3/24".parse().unwrap(), "fd35::1/64".parse().unwrap(), "192.168.35.6/32".parse().unwrap()];
    let link = story.planner.world().links[&2].clone();
    story.tell(Fact::Link(2, Some(Link { addresses, ..link })));
    let gateway = |text: &str| DefaultRoute::via(text, 2, 0);
    story.tell(Fact::DefaultRoutes(vec![gateway("192.168.35.1")]));
    let ips = |text: &str| vec![text.parse().unwrap()];
    let b = Node { addresses: ips("192.168.35.2"), external_ips: ips("192.168.35.5"), ..node(&[]) };
    story.tell(Fact::Node("b".into(), Some(Arc::new(b))));
    story.turn();
    story.put("v4", service());
    story.put("v6", Service { families: vec![V6], ..service() });
    assert_eq!(story.addresses("v4"), ["192.168.35.4"]);
    assert_eq!(story.addresses("v6"), ["fd35::2"]);
    for (address, what) in [
        ("192.168.35.0", HostUse::Network { net: "192.168.35.0/24".parse().unwrap() }),
        ("192.168.35.1", HostUse::Gateway { interface: "eth0".into() }),
        ("192.168.35.2", HostUse::Node { node: "b".into() }),
        ("192.168.35.5", HostUse::Node { node: "b".into() }),
        ("192.168.35.3", HostUse::Link { interface: "eth0".into() }),
        ("192.168.35.255", HostUse::Broadcast { net: "192.168.35.0/24".parse().unwrap() }),
        ("fd35::", HostUse::SubnetRouters { net: "fd35::/64".parse().unwrap() }),
        ("fd35::1", HostUse::Link { interface: "eth0".into() }),
    ] {
        let families = if address.contains(':') { vec![V6] } else { vec![V4] };
        story.put("asks", Service { families, ..asking_for(&[address]) });
        let refused = Reason::AddressOfHost { address: address.parse().unwrap(), what };
        assert_eq!(story.decision("asks").allocation.reason, refused);
    }
    story.put("asks", asking_for(&["192.168.35.6"]));
    assert_eq!(
        story.addresses("asks"),
        ["192.168.35.6"],
        "a host prefix may well be a Service's own, put there by kube-proxy"
    );
    story.put("asks", asking_for(&["192.168.35.2"]));
    story.tell(Fact::Node("b".into(), Some(Arc::new(node(&[])))));
    story.turn();
    assert_eq!(story.addresses("asks"), ["192.168.35.2"], "granted when the Node has it no more");
}

#[test]
fn a_service_that_holds_the_address_of_a_host_keeps_it_and_is_told() {
    let mut story = with_pools(vec![pool("lan", &["192.168.35.0/24"])]);
    story.put("web", holding("192.168.35.11"));
    assert_eq!(
        (story.addresses("web"), notes(&story, "web")),
        (vec!["192.168.35.11".to_owned()], vec!["address-of-host".to_owned()])
    );
}

/// Input: Services ask for what the subnet and the default route use; then the link loses its addresses, has another
/// netmask, or the node another default route, for a moment. Output: they stay refused for ten minutes, and have it then where nothing
/// uses it any more.
#[test]
fn what_a_subnet_uses_is_given_to_nobody_for_a_while_after_it_went_away() {
    let mut story = with_pools(vec![pool("lan", &["192.168.35.0/24"])]);
    let link = story.planner.world().links[&2].clone();
    let to = |text: &str| Fact::DefaultRoutes(vec![DefaultRoute::via(text, 2, 0)]);
    story.tell(to("192.168.35.1"));
    story.turn();
    for last in [0, 1, 255] {
        story.put(&format!("asks-{last}"), asking_for(&[&format!("192.168.35.{last}")]));
    }
    let given = |story: &Story| [0, 1, 255].map(|last| story.addresses(&format!("asks-{last}")).len());
    let with = |nets: &[&str]| {
        Fact::Link(2, Some(Link { addresses: nets.iter().map(|net| net.parse().unwrap()).collect(), ..link.clone() }))
    };
    let flaps = [
        (to("192.168.35.51"), to("192.168.35.1")),
        (Fact::DefaultRoutes(Vec::new()), to("192.168.35.1")),
        (with(&["192.168.35.11/16"]), with(&["192.168.35.11/24"])),
        (with(&[]), with(&["192.168.35.11/24"])),
    ];
    for (away, back) in flaps {
        story.tell(away);
        story.turn();
        assert_eq!(given(&story), [0, 0, 0]);
        story.now += Duration::from_secs(5);
        story.tell(back);
        story.turn();
        assert_eq!(given(&story), [0, 0, 0]);
    }
    story.tell(to("192.168.35.51"));
    story.turn();
    story.now += crate::plan::own_addresses::KEPT_FOR - Duration::from_secs(1);
    story.turn();
    assert_eq!(given(&story), [0, 0, 0]);
    story.now = story.planner.next_deadline().expect("they wait");
    story.turn();
    assert_eq!(given(&story), [0, 1, 0], "the router has another address for good");
}

/// Input: a virtual address (keepalived) goes from the link of the agent that allocates, for good. Output: who asks for it, or has it
/// reserved, gets it at once; who does neither waits, and is told why. All waited for ten minutes, and were told that the link has it.
#[test]
fn an_address_that_a_link_had_is_given_at_once_to_who_names_it() {
    for asks in [true, false] {
        let mut config = Config { pools: vec![pool("lan", &["192.168.35.50"])], ..configuration() };
        if !asks {
            reserve(&mut config, "names-it", &["192.168.35.50"]);
        }
        let mut story = Story::begin(config);
        let link = story.planner.world().links[&2].clone();
        let with = |nets: &[&str]| {
            let addresses = nets.iter().map(|net| net.parse().unwrap()).collect();
            Fact::Link(2, Some(Link { addresses, ..link.clone() }))
        };
        story.tell(with(&["192.168.35.11/24", "192.168.35.50/24"]));
        story.put("names-it", if asks { asking_for(&["192.168.35.50"]) } else { service() });
        assert_eq!(story.addresses("names-it"), [""; 0]);
        story.tell(with(&["192.168.35.11/24"]));
        story.turn();
        assert_eq!(story.addresses("names-it"), ["192.168.35.50"], "asks: {asks}");
    }
    let mut story = with_pools(vec![pool("lan", &["192.168.35.0/24"])]);
    story.tell(Fact::DefaultRoutes(vec![DefaultRoute::via("192.168.35.1", 2, 0)]));
    story.put("asks", asking_for(&["192.168.35.1"]));
    story.tell(Fact::DefaultRoutes(Vec::new()));
    story.turn();
    assert_eq!(
        reason(&story, "asks"),
        "192.168.35.1 is left alone still, because until a few minutes ago it was the gateway of eth0: no Service gets it anew"
    );
}

/// An agent that starts before DHCP has answered.
#[test]
fn without_an_api_server_nothing_is_given_before_the_link_has_an_address_or_half_a_minute_is_over() {
    let begin = || {
        let mut story = Story::begin(Config { pools: vec![pool("lan", &["192.168.35.0/24"])], ..standalone() });
        let link = story.planner.world().links[&2].clone();
        let bare = Link { addresses: vec!["fe80::1/64".parse().unwrap()], ..link.clone() };
        story.tell(Fact::Link(2, Some(bare)));
        story.put("web", service());
        story.put("asks", asking_for(&["192.168.35.1"]));
        assert_eq!(
            (reason(&story, "web"), reason(&story, "asks")),
            (Reason::SubnetsUnknown.to_string(), Reason::SubnetsUnknown.to_string())
        );
        story.put("v6", Service { families: vec![V6], ..service() });
        assert!(
            matches!(story.decision("v6").allocation.reason, Reason::NoFreeAddress { .. }),
            "no link tells more of IPv6"
        );
        (story, link)
    };
    let (mut story, link) = begin();
    story.now += Duration::from_secs(6);
    story.tell(Fact::Link(2, Some(link)));
    story.turn();
    assert_eq!(story.addresses("asks"), ["192.168.35.1"], "nothing says that it is the gateway");
    assert_eq!(story.addresses("web"), ["192.168.35.2"]);
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.3"]);
    story.tell(Fact::DefaultRoutes(vec![DefaultRoute::via("192.168.35.3", 2, 0)]));
    story.turn();
    assert_eq!(story.addresses("next"), ["192.168.35.4"], "nobody knows the first one yet");
    let (mut story, _) = begin();
    story.now += crate::plan::own_addresses::AWAITED_FOR - Duration::from_millis(1);
    story.turn();
    assert_eq!(story.addresses("web"), [""; 0]);
    story.now = story.planner.next_deadline().expect("it does not wait for ever");
    story.turn();
    assert_eq!(story.addresses("asks"), ["192.168.35.1"]);
    assert_eq!(story.addresses("web"), ["192.168.35.2"], "the network address of before is still remembered");
}

#[test]
fn a_draining_pool_gives_nothing_new_and_takes_nothing_away() {
    let draining = Pool { draining: true, ..pool("old", &["192.0.2.1-192.0.2.9"]) };
    let mut story = with_pools(vec![draining.clone(), pool("new", &["198.51.100.1"])]);
    story.put("holds", holding("192.0.2.1"));
    assert_eq!(
        (story.addresses("holds"), notes(&story, "holds")),
        (vec!["192.0.2.1".to_owned()], vec!["pool-draining".to_owned()])
    );
    story.put("web", service());
    assert_eq!(story.addresses("web"), ["198.51.100.1"], "of the next pool");
    for (name, asks) in [("by-name", of_pools(&["old"])), ("by-address", asking_for(&["192.0.2.2"]))] {
        story.put(name, asks);
        assert_eq!(story.decision(name).allocation.reason, Reason::PoolDraining { pool: "old".into() }, "{name}");
    }
    let mut story = with_pools(vec![draining]);
    story.put("web", service());
    assert_eq!(story.decision("web").allocation.reason, Reason::PoolDraining { pool: "old".into() }, "the only pool");
    story.put("asks", Service { ingress: vec!["192.0.2.2".parse().unwrap()], ..of_pools(&["old"]) });
    assert!(story.decision("asks").allocation.complaint.is_none(), "what it asks for it has");
}

#[test]
fn a_reserved_address_waits_for_its_service() {
    let mut config = configuration();
    config.pools.push(Pool { auto_assign: false, ..pool("by-request", &["192.0.2.1-192.0.2.9"]) });
    reserve(&mut config, "front", &["192.168.35.100", "192.168.35.101"]);
    reserve(&mut config, "api", &["192.0.2.1"]);
    let mut story = Story::begin(config);
    story.put("web", service());
    assert_eq!(story.addresses("web"), ["192.168.35.102"]);
    story.put("asks", asking_for(&["192.168.35.101"]));
    assert_eq!(reason(&story, "asks"), "192.168.35.101 is reserved for shop/front by a [[reservation]]");
    story.put("front", service());
    assert_eq!(story.addresses("front"), ["192.168.35.100"], "in the order of the file");
    story.put("api", service());
    assert_eq!(story.addresses("api"), ["192.0.2.1"], "of a pool that assigns nothing by itself, too");
    story.delete("front");
    story.put("front", asking_for(&["192.168.35.105"]));
    assert_eq!(story.addresses("front"), ["192.168.35.105"], "what it asks for goes before");
}

#[test]
fn a_reservation_moves_nobody() {
    let mut config = configuration();
    reserve(&mut config, "front", &["192.168.35.100"]);
    let mut story = Story::begin(config);
    story.put("web", holding("192.168.35.100"));
    assert_eq!(
        (story.addresses("web"), notes(&story, "web")),
        (vec!["192.168.35.100".to_owned()], vec!["address-reserved".to_owned()])
    );
    story.put("front", service());
    assert_eq!(story.addresses("front"), ["192.168.35.101"], "rather than none");
    // What it had before its status showed nothing is no more than its former address.
    story.confirm("front");
    story.put("other", holding("192.168.35.107"));
    story.delete("web");
    story.delete("front");
    story.put("front", service());
    assert_eq!(story.addresses("front"), ["192.168.35.100"]);
}

#[test]
fn a_service_gets_an_address_of_each_pool_that_it_names() {
    let pools =
        || vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"]), pool("wan", &["198.51.100.1"])];
    let mut story = with_pools(pools());
    story.put("web", of_pools(&["lan", "wan"]));
    assert_eq!(story.addresses("web"), ["192.168.35.100", "198.51.100.1"]);
    let both =
        Service { families: vec![V4, V6], family_policy: FamilyPolicy::RequireDualStack, ..of_pools(&["wan", "lan"]) };
    story.put("late", both.clone());
    assert_eq!(story.addresses("late"), ["192.168.35.101", "fd35::100"]);
    let complaint = story.decision("late").allocation.complaint.as_ref().map(ToString::to_string);
    assert_eq!(complaint.as_deref(), Some("no free IPv4 address in wan"));
    story.delete("web");
    assert_eq!(story.addresses("late"), ["192.168.35.101", "fd35::100", "198.51.100.1"], "as soon as it is free");
    assert!(story.decision("late").allocation.complaint.is_none());
    story.confirm("late");
    let confirmed = story.planner.world().services[&key("late")].ingress.clone();
    let pools_now = Service { ingress: confirmed, resource_version: "9".to_owned(), ..both };
    story.put("late", Service { request: of_pools(&["lan"]).request, ..pools_now });
    assert_eq!(story.addresses("late"), ["192.168.35.101", "fd35::100"], "it names wan no more");

    let mut story = with_pools(pools());
    story.put("nowhere", of_pools(&["lan", "nope"]));
    assert_eq!(story.addresses("nowhere"), ["192.168.35.100"]);
    assert!(matches!(story.decision("nowhere").allocation.complaint, Some(Reason::UnknownPool { .. })));
    story.put("v6-only", Service { families: vec![V6], ..of_pools(&["wan"]) });
    assert_eq!(reason(&story, "v6-only"), "no free IPv6 address in wan");
}

/// B14 of the field cases.
#[test]
fn the_second_family_that_a_service_prefers_is_waited_for_and_told() {
    let mut story = with_pools(vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100"])]);
    story.put("first", Service { families: vec![V6], ..service() });
    let dual = Service { families: vec![V4, V6], family_policy: FamilyPolicy::PreferDualStack, ..service() };
    story.put("web", dual);
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    assert_eq!(notes(&story, "web"), ["family-missing"]);
    story.delete("first");
    assert_eq!(story.addresses("web"), ["192.168.35.100", "fd35::100"]);
    assert!(notes(&story, "web").is_empty());
}

#[test]
fn the_second_family_comes_from_the_pool_of_the_first() {
    let pools = vec![pool("a", &["192.0.2.1", "fd35::1"]), pool("b", &["198.51.100.1", "fd36::1"])];
    let mut story = with_pools(pools);
    let dual =
        Service { families: vec![V4, V6], family_policy: FamilyPolicy::PreferDualStack, ..holding("198.51.100.1") };
    story.put("web", dual);
    assert_eq!(story.addresses("web"), ["198.51.100.1", "fd36::1"]);
}

#[test]
fn each_class_of_the_list_is_served() {
    let mut config = configuration();
    let Source::Kubernetes(kubernetes) = &mut config.source else { panic!("the story has an API server") };
    kubernetes.classes = vec!["a/b".to_owned(), "c/d".to_owned()];
    let mut story = Story::begin(config);
    for (class, ours) in [("a/b", true), ("c/d", true), ("crier.dev/crier", false)] {
        story.put("web", Service { class: Some(class.to_owned()), ..service() });
        assert_eq!(!story.addresses("web").is_empty(), ours, "{class}");
    }
}

/// Input: a Service has an address of each of two pools; one of the two is renamed in the file, or its name is misspelt
/// in the list, or the list names a pool that is full. Output: a list that cannot be met takes nothing away and gives nothing; the list
/// put right gives back nothing else.
#[test]
fn a_list_of_pools_of_which_one_gives_nothing_takes_no_address_away() {
    let lan = |name: &str| pool(name, &["192.168.35.100-192.168.35.110"]);
    let wan = || pool("wan", &["198.51.100.1-198.51.100.9"]);
    let both = ["192.168.35.100", "198.51.100.1"];
    let mut story = with_pools(vec![lan("lan"), wan(), pool("full", &["192.0.2.1"])]);
    story.put("tenant", of_pools(&["full"]));
    story.put("web", of_pools(&["lan", "wan"]));
    story.confirm("web");
    let holds = |story: &mut Story, file: Option<Vec<Pool>>, asks: &[&str]| {
        if let Some(pools) = file {
            story.tell(Fact::Config(Arc::new(Config { pools, ..configuration() })));
        }
        let service = story.planner.world().services[&key("web")].clone();
        let resource_version = (service.resource_version.parse::<u64>().unwrap() + 1).to_string();
        let request = of_pools(asks).request;
        story.put("web", Service { request, resource_version, ..Service::clone(&service) });
        let complaint = story.decision("web").allocation.complaint.as_ref().map(Reason::code);
        (story.addresses("web"), story.written("web"), complaint)
    };
    let as_before = |complaint: Option<&str>| (both.map(str::to_owned).to_vec(), None, complaint.map(str::to_owned));
    assert_eq!(holds(&mut story, None, &["lna", "wan"]), as_before(Some("unknown-pool")));
    assert_eq!(holds(&mut story, None, &["full", "wan"]), as_before(Some("no-free-address")));
    let renamed = Some(vec![lan("lan2"), wan()]);
    assert_eq!(holds(&mut story, renamed, &["lan", "wan"]), as_before(Some("unknown-pool")));
    assert_eq!(holds(&mut story, None, &["lan2", "wan"]), as_before(None));
    // A list that can be met is followed.
    assert_eq!(holds(&mut story, Some(vec![lan("lan2"), wan()]), &["wan"]).0, both[1..]);
    // Who has nothing gets what there is.
    story.put("new", of_pools(&["lan2", "nope"]));
    assert_eq!(story.addresses("new").len(), 1);
}

/// Input: a Service has an IPv4 and an IPv6 address of each of two pools, and the first pool leaves the file. Output:
/// all of them stay announced: the condition names each pool once, not which address is of which.
#[test]
fn of_two_pools_of_a_dual_stack_service_the_one_that_leaves_the_file_goes_on_with_both_families() {
    use crate::address::Family::{V4, V6};
    let first = pool("a", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"]);
    let second = pool("b", &["198.51.100.0/28", "fd36::/120"]);
    let mut story = with_pools(vec![first, second.clone()]);
    story.endpoints("web", &["a"]);
    let families = vec![V4, V6];
    story.put("web", Service { families, family_policy: FamilyPolicy::PreferDualStack, ..of_pools(&["a", "b"]) });
    story.confirm("web");
    let all = ["192.168.35.100/32", "198.51.100.0/32", "fd35::100/128", "fd36::/128"];
    assert_eq!(story.routes(), all);
    story.tell(Fact::Config(Arc::new(Config { pools: vec![second], ..configuration() })));
    story.turn();
    assert_eq!(story.routes(), all);
}

/// Input: a dual-stack Service becomes a single-stack one and a dual-stack one again, while a lower address is free.
/// Output: the address that it had.
#[test]
fn a_family_that_comes_back_has_its_former_address() {
    use crate::address::Family::{V4, V6};
    let lan = pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"]);
    for rest in [0, 30] {
        let mut story = with_pools(vec![Pool { rest: Duration::from_secs(rest), ..lan.clone() }]);
        let dual = || Service { families: vec![V4, V6], family_policy: FamilyPolicy::PreferDualStack, ..service() };
        for name in ["first", "web"] {
            story.put(name, dual());
            story.confirm(name);
        }
        story.delete("first");
        story.change("web", |it| (it.families, it.family_policy) = (vec![V4], FamilyPolicy::SingleStack));
        story.confirm("web");
        assert_eq!(story.addresses("web"), ["192.168.35.101"]);
        story.now += Duration::from_secs(60);
        story.change("web", |it| (it.families, it.family_policy) = (dual().families, dual().family_policy));
        assert_eq!(story.addresses("web"), ["192.168.35.101", "fd35::101"], "rest {rest} s");
        // Another Service has it meanwhile.
        story.confirm("web");
        story.change("web", |it| (it.families, it.family_policy) = (vec![V4], FamilyPolicy::SingleStack));
        story.confirm("web");
        story.now += Duration::from_secs(60);
        story.turn();
        story.put("other", Service { families: vec![V6], ..asking_for(&["fd35::101"]) });
        story.change("web", |it| (it.families, it.family_policy) = (dual().families, dual().family_policy));
        assert_eq!(story.addresses("web"), ["192.168.35.101", "fd35::100"], "rest {rest} s");
    }
}

/// Input: a Service of somebody names addresses of a pool in its externalIPs, one of them while another Service has it;
/// that one is made again. Output: it has its own again, and who finds none free learns who takes them.
#[test]
fn external_ips_take_no_address_from_who_had_it_and_are_named_where_none_is_free() {
    let mut story = Story::begin(Config { pools: vec![pool("lan", &["192.0.2.1-192.0.2.3"])], ..configuration() });
    story.put("web", service());
    story.confirm("web");
    let external_ips = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|it| it.parse().unwrap()).to_vec();
    story.put("evil", Service { load_balancer: false, external_ips, ..service() });
    let reason = story.put("next", service()).allocation.reason.steady().to_string();
    assert!(reason.starts_with("no free IPv4 address in lan; ") && reason.contains("shop/evil"), "{reason}");
    story.delete("web");
    story.put("web", Service { uid: "made again".to_owned(), ..service() });
    assert_eq!(story.addresses("web"), ["192.0.2.1"]);
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.0.2.1"]);
    // In a status it would be another load balancer's.
    story.delete("web");
    let ingress = vec!["192.0.2.1".parse().unwrap()];
    story.put(
        "evil",
        Service { class: Some("example.com/b".to_owned()), ingress, resource_version: "9".to_owned(), ..service() },
    );
    story.put("web", Service { uid: "again".to_owned(), ..service() });
    assert_ne!(story.addresses("web"), ["192.0.2.1"]);
}

/// Input: an address is reserved for a Service while another one has it, which goes then. Output: the Service says who has
/// it, and then that it is free.
#[test]
fn a_reservation_that_does_not_hold_is_told() {
    let reservation = Reservation { service: key("front"), addresses: vec!["192.168.35.100".parse().unwrap()] };
    let mut story = Story::begin(configuration());
    story.put("web", service());
    story.confirm("web");
    story.tell(Fact::Config(Arc::new(Config { reservations: vec![reservation], ..configuration() })));
    story.put("front", service());
    let said = story.confirm_condition("front");
    assert!(
        said.allocated
            && said.message.contains("192.168.35.100, which is reserved for this Service, is in use by shop/web"),
        "{said:?}"
    );
    story.delete("web");
    let said = story.confirm_condition("front");
    assert!(said.message.contains("crier renumber") && said.message.contains("192.168.35.100"), "{said:?}");
    assert_eq!(story.addresses("front"), ["192.168.35.101"]);
}

/// Input: a pool that no file has, and hundreds that it has. Output: a condition that the API server's own schema takes.
#[test]
fn a_condition_does_not_grow_with_the_pools() {
    let name = |number: usize| format!("{:a>55}", number);
    let pools = (0..250).map(|number| pool(&name(number), &[&format!("198.51.100.{number}")])).collect();
    let mut story = Story::begin(Config { pools, ..configuration() });
    let request = Ok(Request { pools: vec!["nope".into()], ..Request::default() });
    story.put("web", Service { request, ..service() });
    let said = story.confirm_condition("web").message;
    assert!(said.len() < 2000 && said.ends_with("and 230 more"), "{said}");
}

/// Input: pools with addresses of the networks that the cluster gives its ClusterIPs from, and a Service whose ClusterIP
/// lies in another pool. Output: nobody is given one of them, and who asks by name is told.
#[test]
fn what_the_cluster_gives_as_cluster_ips_is_given_to_no_service() {
    let mut story = with_pools(vec![
        pool("whole", &["10.96.0.0/12"]),
        pool("half", &["10.95.255.255-10.96.0.3", "10.111.255.255-10.112.0.5"]),
    ]);
    story.tell(Fact::ServiceCidr("kubernetes".to_owned(), Some(Arc::new(vec!["10.96.0.0/12".parse().unwrap()]))));
    story.turn();
    let own = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    story.put(
        "other",
        Service { load_balancer: false, external_ips: own("10.112.0.5"), cluster_ips: own("10.112.0.0"), ..service() },
    );
    for (name, expected) in [("one", "10.95.255.255"), ("two", "10.112.0.1")] {
        story.put(name, service());
        assert_eq!(story.addresses(name), [expected]);
    }
    story.put("asks", asking_for(&["10.96.0.1"]));
    let reason = story.decision("asks").allocation.reason.clone();
    let what = HostUse::ServiceNetwork { net: "10.96.0.0/12".parse().unwrap() };
    assert_eq!(reason, Reason::AddressOfHost { address: "10.96.0.1".parse().unwrap(), what });
    assert_eq!(reason.steady(), reason, "every agent says the same");
    story.put("asks-too", asking_for(&["10.112.0.0"]));
    let by = key("other");
    assert_eq!(
        story.decision("asks-too").allocation.reason,
        Reason::AddressInUse { address: "10.112.0.0".parse().unwrap(), by }
    );
    story.tell(Fact::ServiceCidr("kubernetes".to_owned(), None));
    story.turn();
    assert_eq!(story.addresses("asks"), ["10.96.0.1"]);
}
