//! What pools hold back and what Services may ask for, beside a real API server: classes, reservations, several pools, sharing between
//! namespaces, the second family, endpoints that are not ready, a pool that drains, a second API server; and what `crier plan` says.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rack::crier::Crier;
use rack::faults::Faults;
use rack::kubernetes::Proof;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, millis, secs, throughout};
use serde_json::{Value, json};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const BASE: &str = "[api]\nlisten = \"\"\n[pulse]\nunauthenticated = true\n[[l2]]\ninterfaces = [\"eth0\"]\n";

const LAN: &str = r#"
[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.109", "fd35::100-fd35::100"]
rest = "0s"
"#;

const WAN: &str = r#"
[[pool]]
name = "wan"
addresses = ["192.168.35.120-192.168.35.129"]
rest = "0s"
auto-assign = false
share-across-namespaces = true
"#;

const RESERVATION: &str = r#"
[[reservation]]
service = "default/front"
addresses = ["192.168.35.105"]
"#;

fn at(last: u8) -> String {
    format!("192.168.35.{last}")
}

#[track_caller]
fn put(metal: &Metal, service: &Value) {
    metal.try_apply(service).unwrap_or_else(|refusal| panic!("{refusal}: {service:#}"));
}

#[track_caller]
fn wait(metal: &Metal, name: &str, addresses: &[String]) {
    let reference = if name.contains('/') { format!("service/{name}") } else { format!("service/default/{name}") };
    eventually_equal(&format!("{name} has {addresses:?}"), secs(20), &addresses.to_vec(), || metal.ingress(&reference));
}

/// What crier says of the Service in its condition.
fn said(metal: &Metal, name: &str) -> String {
    let object = metal.get(&format!("service/default/{name}")).unwrap_or_default();
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let own = all.into_iter().find(|it| it["type"] == "crier.dev/Allocated").unwrap_or_default();
    own["message"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_said(metal: &Metal, name: &str, words: &[&str]) {
    eventually(&format!("{name} says {words:?}"), secs(20), || {
        let said = said(metal, name);
        if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
    });
}

#[track_caller]
fn served(metal: &Metal, address: &str, port: u16) {
    let address: IpAddr = address.parse().expect("an address");
    eventually(&format!("{address} port {port} is served"), secs(20), || {
        metal.site.client.get((address, port)).map_err(|error| error.to_string())
    });
}

fn answering(metal: &Metal, address: &str) -> Vec<String> {
    metal.site.answering(address.parse::<Ipv4Addr>().expect("an IPv4 address"))
}

fn remarks(agent: &Crier, name: &str) -> String {
    let status = agent.status();
    let services = status["services"].as_array().cloned().unwrap_or_default();
    let own = services.iter().find(|it| it["name"] == format!("default/{name}"));
    own.map(|it| it["remarks"].to_string()).unwrap_or_default()
}

/// What each part expects stands at its place.
#[test]
fn what_services_ask_for_and_pools_hold_back() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    let _pods: Vec<_> = (0..2).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[8080, 8081])).collect();
    let faults = Faults::before(&metal);
    let file = |pools: &str| {
        let access = metal.access_by(Proof::Token, faults.url());
        let more =
            format!("servers = [\"{}\"]\nclasses = [\"crier.dev/crier\", \"example.com/second\"]\n", metal.url());
        format!("{access}{more}{BASE}{pools}")
    };
    let pools = [LAN, WAN, RESERVATION].concat();
    let agents: Vec<Crier> = metal.site.nodes.iter().map(|node| node.crier(node.name(), &file(&pools))).collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
    }
    let web = |name: &str| Service::new(name).selects("web").ports(&[(80, 8080)]);

    // Each of two classes is served, and none; another one is not.
    for (name, class) in
        [("first", "crier.dev/crier"), ("second", "example.com/second"), ("other", "example.com/other")]
    {
        put(&metal, &web(name).spec("loadBalancerClass", class).object());
    }
    wait(&metal, "first", &[at(100)]);
    wait(&metal, "second", &[at(101)]);
    put(&metal, &web("plain").object());
    wait(&metal, "plain", &[at(102)]);
    assert_eq!(metal.ingress("service/default/other"), Vec::<String>::new());
    served(&metal, &at(101), 80);

    // What is reserved nobody else gets, not even who asks for it.
    put(&metal, &web("thief").annotation("crier.dev/addresses", &at(105)).object());
    wait_said(&metal, "thief", &[&at(105), "default/front"]);
    put(&metal, &web("front").object());
    wait(&metal, "front", &[at(105)]);
    assert_eq!(metal.ingress("service/default/thief"), Vec::<String>::new());
    metal.delete("service/default/thief");

    // Of two pools it gets an address each, and both are served.
    put(&metal, &web("both").annotation("crier.dev/pool", "lan, wan").object());
    wait(&metal, "both", &[at(103), at(120)]);
    [103, 120].into_iter().for_each(|last| served(&metal, &at(last), 80));

    // Services of two namespaces share an address where the pool lets them, and nowhere else.
    put(&metal, &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "team" } }));
    let shared = |name: &str, pool: &str, namespace: &str, port: u16| {
        let service = web(name).annotation("crier.dev/share", pool).annotation("crier.dev/pool", pool);
        let mut object = service.ports(&[(port, 8080)]).object();
        object["metadata"]["namespace"] = namespace.into();
        object
    };
    put(&metal, &shared("one", "wan", "default", 80));
    wait(&metal, "one", &[at(121)]);
    put(&metal, &shared("two", "wan", "team", 81));
    wait(&metal, "team/two", &[at(121)]);
    served(&metal, &at(121), 80);
    assert_eq!(answering(&metal, &at(121)).len(), 1);
    put(&metal, &shared("three", "lan", "team", 80));
    wait(&metal, "team/three", &[at(104)]);
    put(&metal, &shared("four", "lan", "default", 81));
    wait(&metal, "four", &[at(106)]);
    eventually("why they do not share is told", secs(20), || {
        let events = metal.events("Service", "four");
        let words = ["192.168.35.104", "team/three", "namespace"];
        let found = events.iter().any(|(_, _, text)| words.iter().all(|word| text.contains(word)));
        if found { Ok(()) } else { Err(format!("{events:?}")) }
    });

    // B14: the second family that is missing is told, and comes when it is free; nobody touches the object, and no request is lost.
    let dual = |name: &str, policy: &str| {
        web(name).spec("ipFamilyPolicy", policy).spec("ipFamilies", json!(["IPv4", "IPv6"])).object()
    };
    put(&metal, &dual("holder", "RequireDualStack"));
    wait(&metal, "holder", &[at(107), "fd35::100".to_owned()]);
    put(&metal, &dual("prefers", "PreferDualStack"));
    wait(&metal, "prefers", &[at(108)]);
    wait_said(&metal, "prefers", &["IPv6"]);
    served(&metal, &at(108), 80);
    let asking = metal.site.client.ask_steadily((IpAddr::from([192, 168, 35, 108]), 80), millis(50));
    metal.delete("service/default/holder");
    wait(&metal, "prefers", &[at(108), "fd35::100".to_owned()]);
    served(&metal, "fd35::100", 80);
    assert_eq!(asking.stop().lost(), 0, "its first family did not notice");

    // Endpoints that are not ready count where the Service publishes them.
    let _late = metal.pod(1, "late", "late", &[8080]);
    metal.set_pod_ready("late", false);
    let late = |name: &str| Service::new(name).selects("late").ports(&[(80, 8080)]).annotation("crier.dev/pool", "wan");
    put(&metal, &late("waits").object());
    wait(&metal, "waits", &[at(122)]);
    put(&metal, &late("early").spec("publishNotReadyAddresses", true).object());
    wait(&metal, "early", &[at(123)]);
    served(&metal, &at(123), 80);
    throughout("nobody answers without a ready endpoint", secs(2), || match answering(&metal, &at(122)) {
        nodes if nodes.is_empty() => Ok(()),
        nodes => Err(format!("{nodes:?}")),
    });

    // What kube-proxy keeps from clients, and what needs no node port, is remarked.
    let inside =
        web("inside").annotation("crier.dev/pool", "wan").spec("loadBalancerSourceRanges", json!(["10.0.0.0/8"]));
    put(&metal, &inside.spec("allocateLoadBalancerNodePorts", false).object());
    wait(&metal, "inside", &[at(124)]);
    eventually("both are remarked", secs(10), || {
        let told = remarks(&agents[0], "inside");
        let all = ["10.0.0.0/8 (loadBalancerSourceRanges)", "no node ports (allocateLoadBalancerNodePorts = false)"];
        if all.iter().all(|it| told.contains(it)) { Ok(()) } else { Err(told) }
    });
    assert_eq!(remarks(&agents[0], "plain"), "[]");
    assert_eq!(answering(&metal, &at(124)).len(), 1);
    metal.site.client.get((IpAddr::from([192, 168, 35, 124]), 80)).expect_err("kube-proxy lets this client not in");
    metal.patch("service/default/inside", &json!({ "spec": { "loadBalancerSourceRanges": ["192.168.35.0/24"] } }));
    served(&metal, &at(124), 80);

    // The first API server is gone, and the second one is asked.
    faults.go_away();
    put(&metal, &web("late-comer").object());
    eventually_equal("it has an address by the other server", secs(40), &vec![at(107)], || {
        metal.ingress("service/default/late-comer")
    });
    served(&metal, &at(107), 80);
    faults.come_back();

    // A pool that drains gives nothing more, what it gave stays, and a renumbering leaves it.
    let draining = pools.replace("name = \"lan\"", "name = \"lan\"\ndraining = true");
    let draining = draining.replace("auto-assign = false\n", "");
    for agent in &agents {
        agent.write_configuration(&file(&draining));
        agent.reload();
    }
    metal.delete("service/default/late-comer");
    put(&metal, &web("after").object());
    wait(&metal, "after", &[at(125)]);
    put(&metal, &web("insists").annotation("crier.dev/pool", "lan").object());
    wait_said(&metal, "insists", &["lan", "drain"]);
    assert_eq!(metal.ingress("service/default/insists"), Vec::<String>::new());
    let stays = [("first", 100), ("second", 101), ("plain", 102), ("front", 105)];
    for (name, last) in stays {
        assert_eq!(metal.ingress(&format!("service/default/{name}")), [at(last)], "{name} keeps it");
    }
    served(&metal, &at(102), 80);
    let asking = metal.site.client.ask_steadily((IpAddr::from([192, 168, 35, 102]), 80), millis(50));
    let output = agents[1].verb("renumber default/plain --overlap 8s");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait(&metal, "plain", &[at(102), at(126)]);
    served(&metal, &at(126), 80);
    assert_eq!(asking.stop().lost(), 0, "of the old one, while both are there");
    wait(&metal, "plain", &[at(126)]);
}

/// Input: another file, which prefers another node and announces by BGP to a second router. Output: `crier plan` names the
/// owner and the routes that would change, changes nothing, and what it said comes true with the file.
#[test]
fn plan_names_the_owners_and_routes_that_change_and_they_do() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 2);
    let bgp = |routers: &[(&str, &str)]| {
        let peer = |(name, address): &(&str, &str)| {
            format!("[[bgp.peer]]\nname = \"{name}\"\naddress = \"{address}\"\nasn = 64512\n")
        };
        let peers: String = routers.iter().map(peer).collect();
        format!("[bgp]\nasn = 64513\nlisten = []\n{peers}[[bgp.advertisement]]\n")
    };
    let before = format!("{BASE}{LAN}{}", bgp(&[("tor", "192.168.35.201")]));
    let agents = metal.agents(&before);
    let web = Service::new("web").on("node-1").on("node-2");
    for object in web.slices().into_iter().chain([web.object()]) {
        put(&metal, &object);
    }
    wait(&metal, "web", &[at(100)]);
    let owner = || match answering(&metal, &at(100)).as_slice() {
        [node] => Ok(node.clone()),
        nodes => Err(format!("{nodes:?}")),
    };
    let first = eventually("one node answers", secs(20), owner);
    let (other, number) = if first == "node-1" { ("node-2", 1) } else { ("node-1", 0) };
    metal.patch(&format!("node/{other}"), &json!({ "metadata": { "labels": { "edge": "true" } } }));

    let prefers = "interfaces = [\"eth0\"]\npreference = [{ nodes = \"edge=true\", weight = 100 }]\n";
    let after = before.replace("interfaces = [\"eth0\"]\n", prefers);
    let after = after
        .replace(&bgp(&[("tor", "192.168.35.201")]), &bgp(&[("tor", "192.168.35.201"), ("spine", "192.168.35.202")]));
    let path = rack.write("after.toml", &format!("{}{after}", metal.access()));
    let plan = || -> Value { agents[number].json(&format!("plan {}", path.display())) };
    let told = eventually("the label of the Node is known", secs(10), || {
        let told = plan();
        if told["owners"].as_array().is_some_and(|owners| !owners.is_empty()) {
            Ok(told)
        } else {
            Err(told.to_string())
        }
    });
    let owners = json!([{ "address": at(100), "service": "default/web", "before": first, "after": other }]);
    assert_eq!(told["owners"], owners, "{told:#}");
    assert_eq!(told["services"], json!([]), "no address changes: {told:#}");
    let routes = told["routes"].as_array().cloned().unwrap_or_default();
    let named: Vec<(&Value, &Value)> = routes.iter().map(|it| (&it["peer"], &it["prefix"])).collect();
    assert_eq!(named, [(&json!("spine"), &json!("192.168.35.100/32"))], "{told:#}");
    assert!(routes[0]["before"].is_null() && !routes[0]["after"].is_null(), "{told:#}");
    let output = agents[number].verb(&format!("plan {}", path.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(other) && text.contains("spine"), "{text}");
    throughout("asking changes nothing", Duration::from_secs(1), || match owner() {
        Ok(node) if node == first => Ok(()),
        other => Err(format!("{other:?}")),
    });

    for agent in &agents {
        agent.write_configuration(&format!("{}{after}", metal.access()));
        agent.reload();
    }
    eventually_equal("the owner is the one that was named", secs(30), &Ok(other.to_owned()), owner);
    assert_eq!(plan()["owners"], json!([]), "nothing is left to change");
}
