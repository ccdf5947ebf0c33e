//! Agents of a cluster whose link does not pass what it should: no pulse at all, a node on another segment, a bridge instead of
//! an interface, an agent that stops while it is cut off. The exchanges stay few, the cause is named, and what runs stays.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rack::crier::Crier;
use rack::faults::Faults;
use rack::kubernetes::Proof;
use rack::lan::Lan;
use rack::{Metal, Need, Rack, Service, eventually, eventually_equal, lan, millis, secs, throughout};

const NEEDS: [Need; 3] = [Need::Kubernetes, Need::Crier, Need::Nft];

/// The pool, `[[l2]]` with these lines, and the pulse with a key.
fn file(rack: &Rack, l2: &str) -> String {
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    format!("[[pool]]\nname = \"lan\"\n{}[[l2]]\n{l2}\n[pulse]\nkey-file = \"{}\"\n", lan::POOL, key.display())
}

fn doctor(agent: &Crier) -> String {
    String::from_utf8_lossy(&agent.verb("doctor").stdout).into_owned()
}

#[test]
fn where_every_firewall_drops_pulses_a_new_service_costs_a_few_exchanges_and_the_port_is_named() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    for node in &metal.site.nodes {
        node.sh("nft add table inet wall");
        node.sh("nft add chain inet wall in { type filter hook input priority 0 ; }");
        node.sh("nft add rule inet wall in udp dport 7473 drop");
    }
    let agents = metal.agents(&file(&rack, "interfaces = [\"eth0\"]"));
    let _pod = metal.pod(0, "web-1", "web", &[80]);
    metal.try_apply(&Service::new("web").selects("web").object()).expect("the API server takes it");
    eventually("it has an address", secs(20), || match metal.ingress("service/web").as_slice() {
        [_] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let written = |metal: &Metal| -> (Vec<String>, String) {
        let version = metal.get("service/web").unwrap_or_default()["metadata"]["resourceVersion"].to_string();
        (metal.ingress("service/web"), version)
    };
    throughout("the first exchanges pass", secs(4), || Ok::<(), String>(()));
    let before = written(&metal);
    let address: Ipv4Addr = before.0[0].parse().expect("an address of the pool");
    assert!(address <= Ipv4Addr::new(192, 168, 35, 103), "not more than a few addresses were tried: {address}");
    throughout("the status is written no more, and one node at most answers", secs(10), || {
        let seen = metal.site.answering(address);
        let now = written(&metal);
        if now == before && seen.len() == 1 { Ok(()) } else { Err(format!("{now:?}, before {before:?}, {seen:?}")) }
    });
    let events = metal.events("Service", "web");
    assert!(events.len() <= 8, "{events:#?}");
    for agent in &agents {
        let problems = lan::problems(agent);
        for word in ["3 Nodes are known", "no pulse", "UDP port 7473"] {
            assert!(problems.contains(word), "{}: no {word:?} in {problems}", agent.node());
        }
    }
}

#[test]
fn a_node_on_another_segment_that_sends_no_pulse_leaves_no_address_without_an_owner() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    let far = metal.site.node(2);
    // It has an address of another subnet; the control plane and the other nodes reach it through the router.
    metal.site.router.ip("address add 192.168.99.1/24 dev eth0");
    far.ip("address add 192.168.99.13/24 dev eth0");
    far.ip(&format!("address del {}/24 dev eth0", far.address));
    far.ip("route replace default via 192.168.99.1");
    metal.patch_status(
        "node/node-3",
        &serde_json::json!({ "addresses": [{ "type": "InternalIP", "address": "192.168.99.13" }] }),
    );
    let file = file(&rack, "interfaces = [\"eth0\"]");
    let without_pulse = file.split("[pulse]").next().expect("there is one").to_owned();
    let agents = metal.agents(&without_pulse);
    for number in 0..9 {
        let name = format!("web-{number}");
        let service = Service::new(&name).load_balancer_ip(&format!("192.168.35.{}", 100 + number));
        metal.try_apply(&service.selects("web").object()).expect("the API server takes it");
    }
    let _pod = metal.pod(0, "web-1", "web", &[80]);
    let addresses: Vec<Ipv4Addr> = (0..9).map(|number| Ipv4Addr::new(192, 168, 35, 100 + number)).collect();
    eventually("each address is answered by a node of the segment", secs(20), || {
        let owners: Vec<_> = addresses.iter().map(|address| metal.site.answering(*address)).collect();
        let near = |names: &Vec<String>| matches!(names.as_slice(), [name] if name == "node-1" || name == "node-2");
        if owners.iter().all(near) { Ok(()) } else { Err(format!("{owners:?}")) }
    });
    let report = agents[0].json("l2");
    let rows = report["addresses"].as_array().cloned().unwrap_or_default();
    assert!(rows.len() == 9 && rows.iter().all(|row| row["owner"] != "node-3"), "{report:#}");
}

#[test]
fn an_l2_without_interfaces_serves_on_the_bridge_that_has_the_nodes_address() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    for node in &metal.site.nodes {
        // As an agent of a virtual network does it: the uplink becomes a port, the addresses move to the bridge.
        let mac = node.port.mac();
        node.ip("link add br-ex type bridge");
        node.ip(&format!("link set br-ex address {mac}"));
        node.ip("address flush dev eth0");
        node.ip("link set eth0 master br-ex");
        node.ip("link set br-ex up");
        node.ip(&format!("address add {}/24 dev br-ex", node.address));
        node.ip(&format!("address add {}/64 dev br-ex nodad", node.address6));
        node.ip(&format!("route replace default via {}", metal.site.router.address));
        for other in metal.site.nodes.iter().filter(|other| other.name() != node.name()) {
            let [range, _] = other.pod_ranges();
            node.ip(&format!("route replace {range} via {}", other.address));
        }
    }
    let agents = metal.agents(&file(&rack, ""));
    for agent in &agents {
        eventually_equal("the agents hear each other", secs(20), &1, || lan::members(agent).len());
    }
    let _pod = metal.pod(0, "web-1", "web", &[80]);
    let service = Service::new("web").selects("web").load_balancer_ip("192.168.35.100");
    metal.try_apply(&service.object()).expect("the API server takes it");
    eventually("one node answers", secs(15), || {
        match metal.site.answering(Ipv4Addr::new(192, 168, 35, 100)).as_slice() {
            [name] if name.starts_with("node-") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    eventually("and serves", secs(20), || {
        let address = IpAddr::from([192, 168, 35, 100]);
        metal.site.client.get((address, 80)).map_err(|error| error.to_string())
    });
}

#[test]
fn an_l2_that_names_a_link_which_a_node_has_not_makes_that_node_no_candidate_and_doctor_says_so() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 2);
    metal.site.node(1).ip("link add lan1 link eth0 type macvlan mode bridge");
    metal.site.node(1).ip("link set lan1 up");
    metal.site.node(1).ip("address add 192.168.35.62/24 dev lan1");
    let agents = metal.agents(&file(&rack, "interfaces = [\"lan1\"]"));
    for number in 0..4 {
        let name = format!("web-{number}");
        let service = Service::new(&name).load_balancer_ip(&format!("192.168.35.{}", 100 + number));
        metal.try_apply(&service.selects("web").object()).expect("the API server takes it");
    }
    let _pod = metal.pod(1, "web-1", "web", &[80]);
    let mac = metal.site.node(1).mac("lan1");
    eventually("the other node answers for all", secs(60), || {
        let all: Vec<_> = (100..104)
            .map(|last| metal.site.client.who_has("eth0", Ipv4Addr::new(192, 168, 35, last), millis(200)))
            .collect();
        if all.iter().all(|macs| macs.as_slice() == [mac]) { Ok(()) } else { Err(format!("{all:?}")) }
    });
    let said = doctor(&agents[0]);
    assert!(said.contains("lan1"), "the node without the link says so: {said}");
}

#[test]
fn an_agent_that_stops_while_it_is_cut_off_the_api_server_changes_no_running_address() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let metal = Metal::new(&rack, 3);
    let file = file(&rack, "interfaces = [\"eth0\"]");
    let _pods = [metal.pod(0, "web-1", "web", &[80]), metal.pod(1, "web-2", "web", &[80])];
    metal.set_pod_ready("web-2", false);
    let faults = Faults::before(&metal);
    let agents: Vec<Crier> = (0..3)
        .map(|number| {
            let server = if number == 0 { faults.url().to_owned() } else { metal.url() };
            let node = metal.site.node(number);
            node.crier(node.name(), &format!("{}{file}", metal.access_by(Proof::Token, &server)))
        })
        .collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
        eventually_equal("the agents hear each other", secs(20), &2, || lan::members(agent).len());
    }
    metal.try_apply(&Service::new("web").selects("web").policy("Local").object()).expect("the API server takes it");
    let mut address = Ipv4Addr::UNSPECIFIED;
    eventually("node-1 answers", secs(20), || {
        let ingress = metal.ingress("service/web");
        address = ingress.first().and_then(|it| it.parse().ok()).ok_or("no address yet")?;
        let seen = metal.site.answering(address);
        if seen == ["node-1"] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    faults.go_away();
    metal.set_pod_ready("web-1", false);
    metal.set_pod_ready("web-2", true);
    agents[0].stop(secs(10));
    eventually("node-2 answers for the same address", secs(10), || {
        let seen = metal.site.answering(address);
        if seen == ["node-2"] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    throughout("and the Service keeps it", secs(5), || {
        let ingress = metal.ingress("service/web");
        if ingress == [address.to_string()] { Ok(()) } else { Err(format!("{ingress:?}")) }
    });
    eventually("which serves", secs(10), || {
        let answer = metal.site.client.get((IpAddr::from(address), 80)).map_err(|error| error.to_string())?;
        if answer.name == "web-2" { Ok(()) } else { Err(answer.name) }
    });
}

/// Input: no key, and every Node stays Ready; agents stop, die, restart and come back. Output: the link alone tells that an owner
/// is gone; one node answers for each address within seconds, and nothing moves back.
#[test]
fn without_a_key_the_next_node_answers_when_the_agent_of_an_owner_stops_or_dies() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    lan.tell_nodes();
    let addresses = lan.services(6);
    let file = lan.configuration_on("[\"eth0\"]", "");
    let mut agents: Vec<Crier> = (0..3).map(|node| lan.agent_with(node, &file)).collect();
    for agent in &agents {
        agent.wait_ready(secs(20));
    }
    let before = lan.owners(&addresses, secs(10));
    for node in ["node-1", "node-2"] {
        assert!(before.values().any(|owner| owner == node), "{before:?}");
    }
    let watch = lan.watch(&addresses);
    agents[0].stop(secs(10));
    let without_first = lan.owners(&addresses, TAKEN_WITHIN);
    assert!(without_first.values().all(|owner| owner != "node-1"), "{without_first:?}");
    for (address, owner) in before.iter().filter(|(_, owner)| *owner != "node-1") {
        assert_eq!(&without_first[address], owner, "{address} had an owner");
    }
    agents[0] = lan.agent_with(0, &file);
    agents[0].wait_ready(secs(20));
    lan.owners_stay("a node that is back takes nothing that another one answers for", &without_first, secs(8));
    for agent in &agents {
        eventually(&format!("{} names who answers, whoever is ranked first", agent.node()), secs(30), || {
            named(agent, &without_first)
        });
    }
    agents[1].kill();
    let without_second = lan.owners(&addresses, TAKEN_WITHIN);
    assert!(without_second.values().all(|owner| owner != "node-2"), "{without_second:?}");
    lan.restart(&mut agents, 2, &file);
    let after = lan.owners(&addresses, TAKEN_WITHIN);
    lan.owners_stay("and each keeps its owner", &after, secs(5));
    watch.end(TAKEN_WITHIN);
}

/// By `crier l2` and `crier status` of the agent these nodes answer, and no other.
fn named(agent: &Crier, owners: &BTreeMap<Ipv4Addr, String>) -> Result<(), String> {
    let rows = agent.json("l2")["addresses"].as_array().cloned().unwrap_or_default();
    let status = agent.status();
    let services = status["services"].as_array().cloned().unwrap_or_default();
    for (address, owner) in owners {
        let row = rows.iter().find(|row| row["address"] == address.to_string()).cloned().unwrap_or_default();
        let service = row["services"][0].clone();
        let said = services.iter().find(|it| it["name"] == service).cloned().unwrap_or_default();
        let summary = said["summary"].as_str().unwrap_or_default();
        let is_named = match row["reason"]["code"].as_str() {
            _ if owner == agent.node() => summary == "answered here",
            // Of the one that is ranked first.
            Some("owner-keeps") => summary.contains("an address stays with the node that answers for it"),
            _ => summary == format!("answered by {owner}"),
        };
        if row["owner"] != owner.as_str() || !is_named {
            return Err(format!("{address} of {owner}: {row:#} {}", said["summary"]));
        }
    }
    Ok(())
}

/// How long an address may be without an answer where there is no key: `doc/layer2.md` says five seconds.
const TAKEN_WITHIN: std::time::Duration = secs(8);
