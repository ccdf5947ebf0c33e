//! Hosts that are none of ours and have, or take, an address of the pool: found before it is used, fought off while it is
//! used, and told to the operator with their MAC.

use std::net::{IpAddr, Ipv4Addr};

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::packet::Mac;
use rack::{Host, Metal, Need, Rack, Service, eventually, eventually_equal, millis, secs, throughout};
use serde_json::json;

const FIRST: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);

fn foreign_host(lan: &Lan, addresses: &[&str]) -> Host {
    let host = lan.site.host("foreign", 77);
    for address in addresses {
        let no_dad = if address.contains(':') { " nodad" } else { "" };
        host.ip(&format!("address add {address} dev eth0{no_dad}"));
    }
    host
}

/// Waits until `status` and `doctor` of one of the agents name the address together with the MAC, and returns its index.
fn complains(agents: &[Crier], address: &str, mac: &str) -> usize {
    eventually(&format!("one of the agents complains about {mac} with {address}"), secs(20), || {
        let complaints: Vec<String> = agents.iter().map(lan::problems).collect();
        let names_both = |text: &String| text.lines().any(|line| line.contains(address) && line.contains(mac));
        let index = complaints.iter().position(names_both).ok_or_else(|| format!("{complaints:#?}"))?;
        let doctor = agents[index].verb("doctor");
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        if said.contains(mac) && doctor.status.code() == Some(1) { Ok(index) } else { Err(format!("doctor: {said}")) }
    })
}

#[test]
fn an_address_that_a_foreign_host_has_is_not_claimed_until_the_foreign_host_is_gone() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    let foreign = foreign_host(&lan, &["192.168.35.100/24", "fd35::100/64"]);
    let mac = foreign.port.mac().to_string();
    lan.service("web", "192.168.35.100,fd35::100");
    let agents = lan.agents();

    let owner = complains(&agents, "192.168.35.100", &mac);
    complains(&agents, "fd35::100", &mac);
    agents[owner].process().wait_for_log("address is in use by another station", secs(10));
    let conflicts = agents[owner].status()["links"][0]["conflicts"].clone();
    assert!(conflicts.to_string().contains("occupied") && conflicts.to_string().contains(&mac), "{conflicts}");
    let only_the_foreign_host = [format!("a foreign host, {mac}")];
    throughout("nobody else answers for it", secs(3), || {
        let seen = lan.answering(FIRST);
        if seen == only_the_foreign_host { Ok(()) } else { Err(format!("{seen:?}")) }
    });

    foreign.ip("address del 192.168.35.100/24 dev eth0");
    foreign.ip("address del fd35::100/64 dev eth0");
    lan.answered_by(FIRST, &[agents[owner].node()]);
    let client = &lan.site.client;
    let address = IpAddr::from([0xfd35, 0, 0, 0, 0, 0, 0, 0x100]);
    eventually("the IPv6 address is answered for as well", secs(20), || {
        client.poke(address);
        let known = client.neighbors().get(&address).copied();
        if known == Some(lan.site.node(owner).port.mac()) { Ok(()) } else { Err(format!("{known:?}")) }
    });
    eventually_equal("and nobody complains any more", secs(10), &String::new(), || {
        agents.iter().map(lan::problems).collect::<String>()
    });
}

#[test]
fn a_service_that_asks_for_no_address_is_given_one_that_no_foreign_host_has() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 3);
    let foreign = foreign_host(&lan, &["192.168.35.100/24"]);
    let agents = lan.agents();
    lan.service("web", "");
    for agent in &agents {
        eventually_equal(
            &format!("{} gives it the second address", agent.node()),
            secs(20),
            &json!(["192.168.35.101"]),
            || {
                let held = lan::service(agent, "web")["allocation"]["held"].clone();
                let addresses = held.as_array().cloned().unwrap_or_default();
                addresses.into_iter().map(|it| it["address"].clone()).collect()
            },
        );
    }
    lan.owner(SECOND);
    lan.answered_by(FIRST, &[&format!("a foreign host, {}", foreign.port.mac())]);
}

#[test]
fn an_address_in_use_is_defended_against_a_foreign_host_who_takes_it() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Arping]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100");
    let mut agents = lan.agents();
    let first = agents.remove(lan.owner(FIRST));
    first.kill();
    let owner = lan.owner(FIRST);
    assert_ne!(lan.site.node(owner).name(), first.node());
    let client = &lan.site.client;
    let (address, mac) = (IpAddr::from(FIRST), lan.site.node(owner).port.mac());
    client.poke(address);
    lan.known_as(client, address, mac);

    // However it took the address, a node gives way at first: the other station may have been there before.
    throughout("the probation passes", secs(11), || match lan.answering(FIRST).as_slice() {
        [one] if one == lan.site.node(owner).name() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let foreign = foreign_host(&lan, &["192.168.35.100/24"]);
    // As a host does that takes an address over: once, to everybody.
    foreign.sh("arping -U -I eth0 -c 1 192.168.35.100");
    agents[0].process().wait_for_log("another station claimed an address that this node announces", secs(10));
    // The client believed the foreign host, if for a moment, and hears the defence.
    lan.known_as(client, address, mac);
    let conflicts = agents[0].status()["links"][0]["conflicts"].clone();
    assert!(conflicts.to_string().contains("contested"), "{conflicts}");
    assert_eq!(complains(&agents, "192.168.35.100", &foreign.port.mac().to_string()), 0);
    let answering = lan.answering(FIRST);
    assert!(answering.contains(&lan.site.node(owner).name().to_owned()), "the owner still answers: {answering:?}");

    foreign.ip("address del 192.168.35.100/24 dev eth0");
    lan.answered_by(FIRST, &[lan.site.node(owner).name()]);
}

#[test]
fn the_allocator_of_a_cluster_hands_out_no_address_that_another_agent_found_taken() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 3);
    let foreign = metal.site.host("foreign", 77);
    let taken = ["192.168.35.100", "192.168.35.101", "192.168.35.102"];
    for address in taken {
        foreign.ip(&format!("address add {address}/24 dev eth0"));
    }
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let agents = metal.agents(&format!(
        "[[pool]]\nname = \"lan\"\n{}[[l2]]\ninterfaces = [\"eth0\"]\n[pulse]\nkey-file = \"{}\"\n",
        lan::POOL,
        key.display()
    ));
    for agent in &agents {
        eventually_equal("the agents hear each other", secs(30), &2, || lan::members(agent).len());
    }
    // Whoever holds the Lease, two of three addresses are on average found taken by somebody else.
    let _pod = metal.pod(0, "web-1", "web", &[80]);
    let service = Service::new("web").selects("web");
    metal.try_apply(&service.object()).expect("the API server takes it");
    eventually_equal("it ends with the first that is free", secs(30), &vec!["192.168.35.103".to_owned()], || {
        metal.ingress("service/web")
    });
    let free: Ipv4Addr = "192.168.35.103".parse().expect("an address");
    eventually("which one node answers for", secs(20), || {
        let macs = metal.site.client.who_has("eth0", free, millis(200));
        let ours = |mac: &Mac| metal.site.nodes.iter().any(|node| node.port.mac() == *mac);
        if macs.len() == 1 && macs.iter().all(ours) { Ok(()) } else { Err(format!("{macs:?}")) }
    });

    // Asked for by name, it is held and not claimed, and the Service says by an Event who is in the way.
    let mac = foreign.port.mac().to_string();
    let asking = Service::new("asking").selects("web").load_balancer_ip("192.168.35.101");
    metal.try_apply(&asking.object()).expect("the API server takes it");
    eventually("the Service has the Event", secs(30), || {
        let events = metal.events("Service", "asking");
        let told = events.iter().any(|(kind, reason, text)| {
            kind == "Warning" && reason == "AddressConflict" && text.contains("192.168.35.101") && text.contains(&mac)
        });
        if told { Ok(()) } else { Err(format!("{events:?}")) }
    });
}
