//! What the World keeps, and what it does not.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::address::Family;
use crate::names::ObjectKey;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn service(load_balancer: bool, ingress: &[&str]) -> Service {
    Service {
        uid: "u".to_owned(),
        resource_version: "1".to_owned(),
        load_balancer,
        ingress: ingress.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Service::default()
    }
}

fn put(world: &mut World, name: &str, service: Service) -> Touched {
    world.apply(Fact::Service(key(name), Some(Arc::new(service))))
}

fn put_slice(world: &mut World, name: &str, of: &str, nodes: &[&str]) {
    let counts: NodeCounts = nodes.iter().map(|node| ((*node).into(), 1)).collect();
    let slice = EndpointSlice {
        service: key(of),
        family: None,
        ready: nodes.iter().map(|node| ((*node).into(), 1)).collect(),
        serving: counts,
        serving_without_node: 0,
        unready: Default::default(),
        addresses: Default::default(),
    };
    world.apply(Fact::EndpointSlice(key(name), Some(Arc::new(slice))));
}

#[test]
fn a_service_of_another_type_is_kept_only_while_its_status_shows_addresses() {
    let mut world = World::default();
    assert_eq!(put(&mut world, "web", service(false, &[])), Touched::Nothing);
    assert!(world.services.is_empty());
    put(&mut world, "web", service(false, &["192.0.2.1"]));
    assert!(world.services.contains_key(&key("web")), "somebody has to empty its status");
    assert_eq!(put(&mut world, "web", service(false, &[])), Touched::Services(vec![key("web")]));
    assert!(world.services.is_empty());
}

/// Input: 6,000 statuses are wiped whole, the first by name first. Output: the addresses of none are forgotten, nor when
/// all of the Services are deleted then.
#[test]
fn a_tool_that_empties_every_status_makes_no_address_forgotten() {
    let mut world = World::default();
    let names: Vec<String> = (0..6000).map(|number| format!("{number:04}")).collect();
    let address = |place: usize| format!("10.0.{}.{}", place / 256, place % 256);
    for (place, name) in names.iter().enumerate() {
        put(&mut world, name, service(true, &[&address(place)]));
    }
    let knows_all = |world: &World| {
        let own =
            |(place, name): (usize, &String)| world.former[&key(name)] == [address(place).parse::<IpAddr>().unwrap()];
        names.iter().enumerate().all(own)
    };
    for name in &names {
        put(&mut world, name, service(true, &[]));
    }
    assert!(knows_all(&world));
    for name in &names {
        world.apply(Fact::Service(key(name), None));
    }
    assert!(knows_all(&world));
}

#[test]
fn a_load_balancer_that_changes_its_type_is_forgotten_with_all_that_was_promised_to_it() {
    let mut world = World::default();
    put(&mut world, "web", service(true, &[]));
    world.apply(Fact::Assigned(key("web"), vec!["192.0.2.1".parse().unwrap()]));
    assert_eq!(put(&mut world, "web", service(false, &[])), Touched::Services(vec![key("web")]));
    assert!(world.services.is_empty() && world.assigned.is_empty());
    put(&mut world, "web", service(true, &[]));
    assert!(world.services.contains_key(&key("web")), "and it may come back");
}

/// Input: standalone, Services go, one of them promised before a restart; the agent
/// starts anew. Output: their addresses are theirs first when they come back; with an API server, a promise of one that is gone is none.
#[test]
fn standalone_what_a_service_had_is_remembered_while_it_is_gone_over_a_restart_too() {
    let promised = |last: u8| vec![IpAddr::from([192, 0, 2, last])];
    for (source, remembered) in [(ApiServer::Manifests, true), (ApiServer::Reachable, false)] {
        let mut world = World::default();
        world.apply(Fact::ApiServer(source.clone()));
        for (number, name) in (1..).zip(["web", "api", "dns"]) {
            if name != "dns" {
                put(&mut world, name, service(true, &[]));
            }
            world.apply(Fact::Assigned(key(name), promised(number)));
        }
        world.apply(Fact::Service(key("web"), None));
        let touched = world.apply(Fact::Listed(Listing::Services([key("api")].into())));
        assert_eq!(touched, Touched::Services(vec![key("dns")]), "it claims nothing any more");
        assert_eq!(world.assigned.keys().collect::<Vec<_>>(), [&key("api")]);
        let knows = |world: &World| (world.former.get(&key("web")).cloned(), world.former.get(&key("dns")).cloned());
        let expected = (Some(promised(1)).filter(|_| remembered), Some(promised(3)).filter(|_| remembered));
        assert_eq!(knows(&world), expected);
        let mut next = World::default();
        world.to_remember().for_each(|fact| drop(next.apply(fact)));
        assert_eq!(knows(&next), expected);
        assert_eq!(next.assigned.keys().collect::<Vec<_>>(), [&key("api")], "nobody is kept from what is free");
    }
}

#[test]
fn endpoints_that_are_told_before_their_service_count_once_it_is_a_load_balancer() {
    let mut world = World::default();
    put_slice(&mut world, "web-1", "web", &["a", "b"]);
    put_slice(&mut world, "web-2", "web", &["b"]);
    put(&mut world, "web", service(false, &[]));
    put(&mut world, "web", service(true, &[]));
    let by_node = |world: &World| world.endpoints(&key("web"), Family::V4).by_node.into_iter().collect::<Vec<_>>();
    assert_eq!(by_node(&world), [("a".into(), 1), ("b".into(), 2)]);
    world.apply(Fact::EndpointSlice(key("web-1"), None));
    assert_eq!(by_node(&world), [("b".into(), 1)]);
    world.apply(Fact::EndpointSlice(key("web-2"), None));
    assert!(world.endpoints(&key("web"), Family::V4).is_empty());
}

#[test]
fn a_slice_that_goes_to_another_service_leaves_the_first() {
    let mut world = World::default();
    put_slice(&mut world, "web-1", "web", &["a"]);
    put_slice(&mut world, "web-1", "api", &["a"]);
    assert!(world.endpoints(&key("web"), Family::V4).is_empty());
    assert!(!world.endpoints(&key("api"), Family::V4).is_empty());
}

#[test]
fn names_that_many_objects_carry_are_kept_once() {
    let mut world = World::default();
    put_slice(&mut world, "web-1", "web", &["a"]);
    put_slice(&mut world, "api-1", "api", &["a"]);
    put(&mut world, "web", service(true, &[]));
    let slices: Vec<_> = world.endpoint_slices.values().collect();
    let name = |slice: &EndpointSlice| slice.serving.iter().next().map(|(node, _)| node.as_str().as_ptr());
    assert_eq!(name(slices[0]), name(slices[1]), "the node");
    let namespaces: BTreeSet<_> = world.endpoint_slices.keys().map(|key| key.namespace.as_str().as_ptr()).collect();
    assert_eq!(namespaces.len(), 1, "the namespace");
    let (service, _) = world.services.get_key_value(&key("web")).unwrap();
    assert!(slices.iter().any(|slice| Arc::ptr_eq(&slice.service.name, &service.name)), "the Service");
}

#[test]
fn endpoints_are_kept_with_their_tenants_and_what_an_earlier_crier_kept_is_read() {
    let read = |json: &str| serde_json::from_str::<EndpointAddresses>(json);
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let old = read(r#"["10.244.1.7","10.244.1.8"]"#).expect("it was written so");
    assert_eq!(old.iter().collect::<Vec<_>>(), [ip("10.244.1.7"), ip("10.244.1.8")]);
    assert!(old.tenants().all(|(_, tenant)| tenant.pod().is_none()));
    let tenants = vec![
        (ip("fd44::7"), Tenant::of("web-1", false)),
        (ip("fd44::8"), Tenant::of("web-2", true)),
        (ip("fd44::9"), Tenant::default()),
    ];
    let addresses = EndpointAddresses::of(&tenants);
    let json = serde_json::to_string(&addresses).unwrap();
    let again = read(&json).expect("what was written");
    assert_eq!(again.tenants().collect::<Vec<_>>(), tenants, "{json}");
    assert!(again.tenants().nth(1).is_some_and(|(_, tenant)| tenant.terminates()));
    for odd in [r#"["10.244.1"]"#, r#"["10.244.1.7 x"]"#, r#"["10.244.1.7 1ffffffff"]"#, r#"[7]"#] {
        let error = read(odd).expect_err(odd).to_string();
        assert!(odd.contains("[7]") || error.contains(odd.trim_matches(['[', ']', '"'])), "{error}");
    }
}

#[test]
fn lists_that_leave_no_destination_of_a_family_are_known() {
    let nets = |nets: &str| nets.split_whitespace().map(|net| net.parse().unwrap()).collect::<Vec<ipnet::IpNet>>();
    // To, except, inside of the cluster; nothing of IPv4, nothing of IPv6.
    let table = [
        ("", "", "10.0.0.0/8", false, false),
        ("", "0.0.0.0/0", "", true, false),
        ("", "0.0.0.0/1 128.0.0.0/2 192.0.0.0/2", "", true, false),
        ("", "0.0.0.0/1 128.0.0.0/2 192.0.0.0/3", "", false, false),
        ("192.0.2.0/24", "", "", false, true),
        ("192.0.2.0/24 fd00::/8", "192.0.2.0/25 192.0.2.128/25", "", true, false),
        ("10.96.0.0/16 10.244.1.0/24", "10.96.0.0/12", "10.244.0.0/16", true, true),
        ("10.96.0.0/16 198.51.100.7/32", "10.96.0.0/12", "10.244.0.0/16", false, true),
        ("fd96::/112", "", "fd96::/112", true, true),
    ];
    for (to, except, inside, none4, none6) in table {
        let (lists, inside) = (Destinations { to: nets(to), except: nets(except) }, nets(inside));
        let leaves_none = [Family::V4, Family::V6].map(|family| lists.leaves_none(family, inside.iter()));
        assert_eq!(leaves_none, [none4, none6], "{lists}");
    }
}

#[test]
fn a_service_of_another_type_is_kept_while_it_asks_for_egress() {
    let mut world = World::default();
    let asks = |egress| Service { egress, ..service(false, &[]) };
    put(&mut world, "web", asks(Some(Egress::ServiceAddress)));
    assert!(world.services.contains_key(&key("web")), "that it gets none is to be told");
    put(&mut world, "web", asks(None));
    assert!(world.services.is_empty());
}

/// Input: the agent wrote a status, the watch told it, and the API server was put back to before that. Output: what is
/// told then counts. A watch that is late tells history, and that does not.
#[test]
fn what_an_api_server_tells_that_went_back_is_no_history() {
    let at =
        |version: &str, ingress: &[&str]| Service { resource_version: version.to_owned(), ..service(true, ingress) };
    let shown = |world: &World| world.services[&key("web")].resource_version.clone();
    let mut world = World::default();
    let write = |world: &mut World| {
        world.apply(Fact::StatusWritten(key("web"), Arc::new(at("9", &["192.0.2.1"]))));
    };
    put(&mut world, "web", at("5", &[]));
    write(&mut world);
    put(&mut world, "web", at("7", &[]));
    assert_eq!(shown(&world), "9", "the watch is late");
    put(&mut world, "web", at("9", &["192.0.2.1"]));
    put(&mut world, "web", at("5", &[]));
    assert_eq!(shown(&world), "5", "the watch had come as far");
    write(&mut world);
    world.apply(Fact::WentBack);
    put(&mut world, "web", at("6", &[]));
    assert_eq!(shown(&world), "6");
}
