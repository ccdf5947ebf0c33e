//! Who gets which address, keeps it and loses it, beside a real API server: sharing, what is taken by others, statuses that are emptied,
//! namespaces that come late, refused writes, and what an agent finds that was not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use rack::crier::Crier;
use rack::faults::Faults;
use rack::kubernetes::Proof;
use rack::{Deadline, Metal, Need, Rack, Service, eventually, eventually_equal, millis, rest, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];
const BASE: &str = "[api]\nlisten = \"\"\n[pulse]\nunauthenticated = true\n[[l2]]\ninterfaces = [\"eth0\"]\n";
const NODES: [&str; 2] = ["node-1", "node-2"];

fn pool(name: &str, addresses: &str, more: &str) -> String {
    format!("[[pool]]\nname = \"{name}\"\naddresses = [{addresses}]\nrest = \"0s\"\n{more}")
}

#[track_caller]
fn put(metal: &Metal, service: &Service) {
    let slices = if service.object()["spec"]["selector"].is_null() { service.slices() } else { Vec::new() };
    for object in slices.into_iter().chain([service.object()]) {
        metal.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}: {object:#}"));
    }
}

/// A Service with an endpoint on both nodes.
fn service(name: &str) -> Service {
    NODES.into_iter().fold(Service::new(name), Service::on)
}

#[track_caller]
fn wait(metal: &Metal, name: &str, address: &str) {
    let expected: Vec<String> = address.split_whitespace().map(str::to_owned).collect();
    eventually_equal(&format!("{name} has {address}"), secs(20), &expected, || {
        metal.ingress(&format!("service/{name}"))
    });
}

fn condition(object: &Value) -> Value {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|it| it["type"] == "crier.dev/Allocated").unwrap_or_default()
}

#[track_caller]
fn wait_event(metal: &Metal, name: &str, reason: &str, words: &[&str]) {
    eventually(&format!("an Event {reason} of {name} with {words:?}"), secs(15), || {
        let events = metal.events("Service", name);
        let fits = |text: &str| words.iter().all(|word| text.contains(word));
        let found = events.iter().any(|(_, why, text)| why == reason && fits(text));
        if found { Ok(()) } else { Err(format!("{events:?}")) }
    });
}

/// The one node that answers for an IPv4 address on the link.
#[track_caller]
fn owner(metal: &Metal, address: &str) -> String {
    let address: Ipv4Addr = address.parse().expect("an IPv4 address");
    eventually(&format!("one node answers for {address}"), secs(15), || {
        match metal.site.answering(address).as_slice() {
            [node] => Ok(node.clone()),
            nodes => Err(format!("{nodes:?}")),
        }
    })
}

/// Input: Services with a sharing key under two of its spellings, one of them with a port that is taken; one is deleted;
/// the agents are killed and started; the policy of one changes. Output: one address on one node serves both ports, also after a restart
/// that reads all statuses anew; who does not fit has another address, and its Event names partner and rule.
#[test]
fn services_that_share_an_address_are_served_by_one_node_until_they_do_not_fit_any_more() {
    const SHARED: &str = "192.168.35.100";
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let _pods: Vec<_> = (0..2).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[8080, 8081])).collect();
    let file = format!("{BASE}{}", pool("lan", "\"192.168.35.100-192.168.35.109\"", ""));
    let agents = metal.agents(&file);
    let sharing = |name: &str, annotation: &str, ports: &[(u16, u16)]| {
        Service::new(name).annotation(annotation, "one").selects("web").ports(ports)
    };
    let first = sharing("first", "metallb.io/allow-shared-ip", &[(80, 8080)]);
    let second = sharing("second", "metallb.universe.tf/allow-shared-ip", &[(81, 8081)]);
    put(&metal, &first);
    wait(&metal, "first", SHARED);
    put(&metal, &second);
    wait(&metal, "second", SHARED);
    put(&metal, &sharing("clash", "crier.dev/share", &[(80, 8080)]));
    wait(&metal, "clash", "192.168.35.101");
    wait_event(&metal, "clash", "IPAllocated", &[SHARED, "default/first", "80"]);

    let address: IpAddr = SHARED.parse().expect("an address");
    let served = |port: u16| {
        eventually(&format!("port {port} is served"), secs(20), || {
            metal.site.client.get((address, port)).map_err(|error| error.to_string())
        });
    };
    let node = owner(&metal, SHARED);
    [80, 81].into_iter().for_each(served);

    let asking = metal.site.client.ask_steadily((address, 80), millis(50));
    metal.delete("service/second");
    eventually("its port is served no more", secs(15), || match metal.site.client.get((address, 81)) {
        Ok(_) => Err("it is"),
        Err(_) => Ok(()),
    });
    assert_eq!(owner(&metal, SHARED), node, "the address stays where it was");
    put(&metal, &second);
    wait(&metal, "second", SHARED);
    served(81);
    assert_eq!(asking.stop().lost(), 0, "the other Service did not notice");

    // B6: whoever allocates next reads all statuses before it judges any Service.
    agents.iter().for_each(Crier::kill);
    drop(agents);
    let _agents = metal.agents(&file);
    let names = ["first", "second", "clash"];
    let expected = [SHARED, SHARED, "192.168.35.101"].map(|it| vec![it.to_owned()]);
    throughout("all have what they had", secs(8), || match metal.shown(&names) {
        shown if shown == expected => Ok(()),
        shown => Err(format!("{shown:?}")),
    });
    owner(&metal, SHARED);
    [80, 81].into_iter().for_each(served);

    metal.patch("service/second", &json!({ "spec": { "externalTrafficPolicy": "Local" } }));
    wait(&metal, "second", "192.168.35.102");
    wait_event(&metal, "second", "AddressGoes", &[SHARED]);
    wait_event(
        &metal,
        "second",
        "IPAllocated",
        &["192.168.35.102", SHARED, "default/first", "external traffic policy"],
    );
    assert_eq!(metal.ingress("service/first"), [SHARED]);
    served(80);
}

/// Microseconds of the day of a time as the API server writes it.
fn time(value: &Value) -> Option<u64> {
    let clock = value.as_str()?.strip_suffix('Z')?.split_once('T')?.1;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let seconds = clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?))?;
    Some(seconds * 1_000_000 + format!("{fraction:0<6}").parse::<u64>().ok()?)
}

const DAY: u64 = 86_400_000_000;

/// Input: the pool of 300 Services goes, and another one comes. Output: of each Service there is a Warning Event before
/// its address goes, three seconds at the least, and its condition says so meanwhile. Events beyond the budget were dropped, and the notice
/// counted from the decision.
#[test]
fn each_of_three_hundred_services_is_told_before_its_address_goes() {
    const COUNT: usize = 300;
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    let file = |range: &str| format!("{}{BASE}{}", metal.access(), pool("wan", &format!("\"{range}\""), ""));
    let node = metal.site.node(0);
    let agent = node.crier(node.name(), &file("198.18.0.0/23"));
    agent.wait_ready(secs(20));
    let name = |number: usize| format!("s{number:03}");
    (0..COUNT).for_each(|number| drop(metal.try_apply(&Service::new(&name(number)).object()).expect("it is taken")));
    let starting_with = |prefix: &str| {
        let of = |it: &Value| {
            it["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().is_some_and(|ip| ip.starts_with(prefix))
        };
        metal.list("service", "").iter().filter(|it| of(it)).count()
    };
    eventually_equal("all have an address", secs(60), &COUNT, || {
        starting_with("198.18.0.") + starting_with("198.18.1.")
    });

    agent.write_configuration(&file("198.18.2.0/23"));
    agent.reload();
    let mut said = BTreeSet::new();
    let moved = |it: &Value| {
        let ip = it["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().unwrap_or_default();
        ip.starts_with("198.18.2.") || ip.starts_with("198.18.3.")
    };
    let services = eventually("all have moved", secs(120), || {
        let services: Vec<Value> =
            metal.list("service", "").into_iter().filter(|it| it["spec"]["type"] == "LoadBalancer").collect();
        let says = |it: &&Value| condition(it)["reason"] == "AddressGoes";
        said.extend(services.iter().filter(says).map(|it| it["metadata"]["name"].to_string()));
        let count = services.iter().filter(|it| moved(it)).count();
        if count == COUNT { Ok(services) } else { Err(format!("{count} of {COUNT}")) }
    });
    assert_eq!(said.len(), COUNT, "the condition of each said it meanwhile");

    let events = metal.list("event", "");
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for event in events.iter().filter(|event| event["reason"] == "AddressGoes") {
        let name = event["involvedObject"]["name"].as_str().unwrap_or_default().to_owned();
        let at = time(&event["eventTime"]).expect("it has a time");
        told.entry(name).and_modify(|first| *first = at.min(*first)).or_insert(at);
    }
    let moves: BTreeMap<String, u64> = services
        .iter()
        .filter_map(|it| {
            let writes = it["metadata"]["managedFields"].as_array()?;
            let last = writes.iter().filter(|it| it["manager"] == "crier").filter_map(|it| time(&it["time"])).max()?;
            Some((it["metadata"]["name"].as_str()?.to_owned(), last))
        })
        .collect();
    assert_eq!(moves.len(), COUNT);
    // The API server notes whole seconds of a write.
    let notice = |told: u64, moved: u64| (moved + DAY - told) % DAY;
    let in_time = |name: &String, moved: u64| {
        told.get(name).is_some_and(|told| (2_000_000..DAY / 2).contains(&notice(*told, moved)))
    };
    let late: Vec<&String> =
        moves.iter().filter(|(name, moved)| !in_time(name, **moved)).map(|(name, _)| name).collect();
    assert!(late.is_empty(), "{} were not told in time, {} never: {late:?}", late.len(), COUNT - told.len());
    let times = events.iter().filter(|event| event["reason"] == "AddressGoes").count();
    assert_eq!(times, COUNT, "each once");
}

/// Rows B5, B7, B8, B9, B12 and B13 of issue 12, one after the other. What each expects stands at its place.
#[test]
fn what_others_have_is_not_given_and_what_was_given_comes_back() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let faults = Faults::before(&metal);
    let file = format!(
        "{}{BASE}{}{}",
        metal.access_by(Proof::Token, faults.url()),
        pool("lan", "\"192.168.35.100-192.168.35.109\", \"fd35::100-fd35::10f\"", ""),
        pool("team", "\"192.168.35.120-192.168.35.129\"", "namespace-selector = \"team=web\"\n"),
    );
    let start = || -> Vec<Crier> {
        let agents: Vec<Crier> = metal.site.nodes.iter().map(|node| node.crier(node.name(), &file)).collect();
        for agent in &agents {
            agent.wait_ready(secs(20));
        }
        agents
    };
    let agents = start();
    let at = |last: u8| format!("192.168.35.{last}");

    // B7: an address that another one's Service shows, or that a Service has in externalIPs, is not given to an ordinary Service.
    put(&metal, &Service::new("foreign").spec("loadBalancerClass", "example.com/other"));
    metal.patch_status("service/foreign", &json!({ "loadBalancer": { "ingress": [{ "ip": at(100) }] } }));
    let inside = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "inside" },
        "spec": { "externalIPs": [at(101)], "ports": [{ "port": 80 }] } });
    metal.try_apply(&inside).expect("the API server takes the Service");
    put(&metal, &service("one"));
    wait(&metal, "one", &at(102));

    // B12: deleted and made again at once, while a lower address is free.
    put(&metal, &service("two"));
    wait(&metal, "two", &at(103));
    put(&metal, &service("three"));
    wait(&metal, "three", &at(104));
    metal.delete("service/two");
    metal.delete("service/three");
    put(&metal, &service("three"));
    wait(&metal, "three", &at(104));
    // An emptied status, while a lower address is free; by a running agent, and by the next one that allocates.
    let empty = || metal.patch_status("service/three", &json!({ "loadBalancer": { "ingress": null } }));
    empty();
    wait(&metal, "three", &at(104));
    agents.iter().for_each(Crier::kill);
    drop(agents);
    empty();
    let agents = start();
    wait(&metal, "three", &at(104));
    throughout("it keeps it", secs(3), || match metal.ingress("service/three") {
        shown if shown == [at(104)] => Ok(()),
        shown => Err(format!("{shown:?}")),
    });
    put(&metal, &service("two"));
    wait(&metal, "two", &at(103));

    // B8: while a rule refuses the write that changes an address, the former one is shown and answered.
    let left = faults.answer(403, "PATCH services/three/status", 3);
    owner(&metal, &at(104));
    metal.patch("service/three", &json!({ "metadata": { "annotations": { "crier.dev/addresses": at(108) } } }));
    eventually_equal("it is refused", secs(20), &0, || {
        if left.count() > 0 {
            assert_eq!(metal.ingress("service/three"), [at(104)]);
            assert_eq!(metal.site.answering(Ipv4Addr::new(192, 168, 35, 104)).len(), 1, "it is answered");
        }
        left.count()
    });
    wait_event(&metal, "three", "StatusRefused", &["403"]);
    wait(&metal, "three", &at(108));
    owner(&metal, &at(108));

    // B9: a webhook answers 409 although nothing has changed.
    let left = faults.answer(409, "PATCH services/four/status", 3);
    put(&metal, &service("four"));
    wait(&metal, "four", &at(104));
    assert_eq!(left.count(), 0);

    // B13: each family goes where its own endpoints are, and a slice of host names counts for nothing.
    let both = Service::new("both").families(&["IPv4", "IPv6"]).policy("Local").on("node-1").on("node-2");
    let only = |mut slice: Value, node: Option<&str>| {
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        slice["endpoints"] = endpoints.into_iter().filter(|it| it["nodeName"].as_str() == node).collect();
        slice
    };
    let slices = both.slices();
    let names = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "FQDN",
        "metadata": { "name": "both-fqdn", "labels": { "kubernetes.io/service-name": "both" } },
        "endpoints": [{ "addresses": ["example.com"], "nodeName": "node-2", "conditions": { "ready": true } }],
        "ports": [{ "name": "", "port": 80, "protocol": "TCP" }] });
    for object in
        [only(slices[0].clone(), Some("node-1")), only(slices[1].clone(), Some("node-2")), names, both.object()]
    {
        metal.try_apply(&object).unwrap_or_else(|refusal| panic!("{refusal}: {object:#}"));
    }
    wait(&metal, "both", "192.168.35.105 fd35::100");
    eventually_equal("the node with the IPv4 endpoint answers for IPv4", secs(15), &"node-1".to_owned(), || {
        owner(&metal, &at(105))
    });
    eventually_equal("the node with the IPv6 endpoint answers for IPv6", secs(15), &vec!["node-2".to_owned()], || {
        neighbours(&metal, "fd35::100")
    });
    metal.try_apply(&only(slices[1].clone(), None)).expect("the API server takes the slice");
    eventually_equal("nobody answers for IPv6 without an endpoint", secs(15), &Vec::new(), || {
        neighbours(&metal, "fd35::100")
    });
    assert_eq!(owner(&metal, &at(105)), "node-1", "of IPv4 there is one");

    // B5: the labels of a namespace decide, and come late: nothing is given before.
    let held = faults.hold("GET /api/v1/namespaces");
    metal
        .try_apply(&json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "late", "labels": { "team": "web" } } }))
        .expect("the API server takes the namespace");
    let mut late = Service::new("web").object();
    late["metadata"]["namespace"] = "late".into();
    metal.try_apply(&late).expect("the API server takes the Service");
    put(&metal, &service("five"));
    wait(&metal, "five", &at(106));
    throughout("nothing is chosen while the labels are not known", secs(3), || {
        match metal.ingress("service/late/web").as_slice() {
            [] => Ok(()),
            shown => Err(format!("{shown:?}")),
        }
    });
    drop(held);
    eventually_equal("it has an address of its own pool", secs(20), &vec![at(120)], || {
        metal.ingress("service/late/web")
    });
    drop(agents);
}

/// Who has the IPv6 address, as the client finds by asking its neighbours.
fn neighbours(metal: &Metal, address: &str) -> Vec<String> {
    let client = &metal.site.client;
    client.ip("-6 neigh flush dev eth0");
    client.poke(address.parse().expect("an address"));
    let until = Deadline::after(millis(300));
    loop {
        let entries = client.ip_json(&format!("-6 neigh show to {address}")).as_array().cloned().unwrap_or_default();
        let macs = entries.iter().filter_map(|it| it["lladdr"].as_str()?.parse().ok());
        let names: Vec<String> = macs.map(|mac| metal.site.name_of(mac)).collect();
        if !names.is_empty() || until.has_passed() {
            return names;
        }
        rest(millis(10));
    }
}

/// B17 of issue 12. Input: an agent is killed, and while it is down its last Service goes, or `bind` goes from its file. Output: the next
/// start takes the address off the link.
#[test]
fn an_agent_takes_off_the_link_what_has_gone_while_it_was_down() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    let file = |bind: &str| {
        format!(
            "[api]\nlisten = \"\"\n[bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\n\
             asn = 64512\n[[bgp.advertisement]]\n{}",
            pool("public", "\"203.0.113.0/28\"", bind)
        )
    };
    let bound = || {
        let links = metal.site.node(0).ip_json("addr show dev lo");
        let all = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
        let all: Vec<String> = all.iter().filter_map(|it| Some(it["local"].as_str()?.to_owned())).collect();
        all.into_iter().filter(|it| it.starts_with("203.0.113.")).collect::<Vec<_>>()
    };
    let agent = metal.agent(0, &file("bind = \"lo\"\n"));
    put(&metal, &service("web"));
    let address = eventually("it has an address", secs(20), || metal.ingress("service/web").pop().ok_or("none"));
    eventually_equal("it is bound", secs(15), &vec![address.clone()], bound);
    agent.kill();
    drop(agent);
    assert_eq!(bound(), [address.as_str()], "it stays while no agent is there");
    metal.delete("service/web");
    let agent = metal.agent(0, &file("bind = \"lo\"\n"));
    eventually_equal("what no Service has is gone", secs(20), &Vec::new(), bound);

    put(&metal, &service("next"));
    let address = eventually("it has an address", secs(20), || metal.ingress("service/next").pop().ok_or("none"));
    eventually_equal("it is bound", secs(15), &vec![address.clone()], bound);
    agent.kill();
    drop(agent);
    let _agent = metal.agent(0, &file(""));
    eventually_equal("what is not to be bound is gone", secs(20), &Vec::new(), bound);
    assert_eq!(metal.ingress("service/next"), [address], "the Service keeps it");
}
