//! Links that are not as plain as one hopes: two of one node on one wire, filtered multicast, two subnets, a cable that is
//! pulled, an owner that is killed again and again. One node answers for each address, and no alarm is false.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::ndp::{Advertisement, Solicitation};
use rack::net::Port;
use rack::packet::{Frames, PacketSocket};
use rack::{Deadline, Host, Need, Rack, eventually, eventually_equal, millis, now, secs, throughout};

const NEEDS: [Need; 2] = [Need::Crier, Need::Nft];

fn said(agents: &[Crier], text: &str) -> Vec<String> {
    let logs: Vec<String> = agents.iter().map(|agent| agent.process().log()).collect();
    logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(text)).map(str::to_owned).collect()
}

#[test]
fn a_node_with_two_links_on_one_wire_is_no_namesake_of_itself_and_in_its_own_way() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 2);
    lan.site.link.plug(lan.site.node(0), "eth1", &["192.168.35.61/24"]);
    let addresses = lan.services(6);
    let agents =
        lan.agents_with(&lan.configuration_on("[\"eth*\"]", &format!("key-file = \"{}\"\n", lan.key.display())));
    let watch = lan.watch(&addresses);
    throughout("no agent complains", secs(4), || {
        let problems: String = agents.iter().map(lan::problems).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    });
    for text in
        ["uses this node's name", "another station claimed", "in use by another station", "pulses are not heard"]
    {
        assert_eq!(said(&agents, text), Vec::<String>::new(), "{text}");
    }
    watch.end(millis(700));
}

#[test]
fn a_switch_that_filters_the_multicast_of_one_family_silences_nobody() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses = lan.services(6);
    let agents = lan.agents_with(&lan.configuration_on("[\"eth0\"]", &lan.patient_pulse()));
    let before = lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    let switch = lan.site.link.namespace();
    for family in ["ip", "ip6"] {
        switch.sh("nft add table bridge snooping");
        switch.sh("nft add chain bridge snooping between { type filter hook forward priority 0 ; }");
        switch.sh(&format!("nft add rule bridge snooping between meta protocol {family} udp dport 7473 drop"));
        lan.owners_stay(&format!("nothing moves without multicast over {family}"), &before, secs(2));
        switch.sh("nft delete table bridge snooping");
        lan.all_hear(&agents);
    }
    assert_eq!(said(&agents, "node fell silent"), Vec::<String>::new());
    watch.end(millis(700));
}

#[test]
fn a_node_of_another_subnet_on_the_wire_leaves_no_address_without_an_owner() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let stranger = lan.site.node(2);
    stranger.ip("address add 192.168.36.13/24 dev eth0");
    stranger.ip("address del 192.168.35.13/24 dev eth0");
    let addresses = lan.services(11);
    let file = lan.configuration().replace("[[l2]]\n", "[[l2]]\nsubnet = \"require\"\n");
    let mut agents = lan.agents_with(&file);
    let owners = lan.owners(&addresses, secs(3));
    assert!(owners.values().all(|owner| owner != "node-3"), "{owners:?}");
    let watch = lan.watch(&addresses);
    lan.restart(&mut agents, 0, &file);
    lan.all_hear(&agents);
    let owners = lan.owners(&addresses, secs(3));
    assert!(owners.values().all(|owner| owner != "node-3"), "{owners:?}");
    watch.end(millis(900));
}

#[test]
fn a_cable_that_is_pulled_and_plugged_in_again_costs_one_move_there_and_one_back() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    for node in &lan.site.nodes {
        node.sysctl("net/ipv6/conf/all/accept_dad", "1");
        node.sysctl("net/ipv6/conf/eth0/accept_dad", "1");
    }
    let addresses = lan.services(6);
    let pulse = format!("key-file = \"{}\"\ninterval = \"50ms\"\n", lan.key.display());
    let agents = lan.agents_with(&lan.configuration_on("[\"eth0\"]", &pulse));
    let before = lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    let pulled = lan.site.node(0);
    pulled.port.unplug();
    throughout("the cable is pulled", secs(3), || Ok::<(), String>(()));
    pulled.port.restore();
    lan.all_hear(&agents);
    eventually_equal("all is as it was", secs(5), &before, || lan.owners(&addresses, secs(1)));
    // The link-local address is usable again a second later.
    lan.owners_stay("and stays so", &before, secs(3));
    let silences = said(&agents[1..], "node fell silent");
    assert!(silences.len() == 2 && silences.iter().all(|line| line.contains("node=node-1")), "{silences:#?}");
    watch.end(millis(1500));
}

#[test]
fn an_owner_that_is_killed_again_and_again_is_replaced_each_time_and_leaves_no_second_owner() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses = lan.services(6);
    let mut agents = lan.agents();
    lan.all_hear(&agents);
    let first = lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    for round in 0..6 {
        let victim =
            usize::from(lan.owners(&addresses, secs(5)).values().next().is_some_and(|owner| owner == "node-2"));
        agents[victim].kill();
        // Now before, now after the others noticed.
        if round % 2 == 0 {
            agents[(victim + 1) % 3].process().wait_for_log("node fell silent", secs(5));
        }
        agents[victim] = lan.agent_with(victim, &lan.configuration());
    }
    for agent in &agents {
        agent.wait_ready(secs(20));
    }
    lan.all_hear(&agents);
    // The last one that came back asks for what it is ranked first for.
    eventually_equal("each address is where it was first", secs(10), &first, || lan.owners(&addresses, secs(3)));
    lan.owners_stay("and it is quiet", &first, secs(2));
    watch.end(millis(1500));
}

#[test]
fn the_second_agent_of_one_name_takes_nothing_and_is_named() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses = lan.services(6);
    let agents = [lan.agent(0), lan.agent(1)];
    for agent in &agents {
        agent.wait_ready(secs(20));
    }
    lan.all_hear(&agents);
    let watch = lan.watch(&addresses);
    let before = lan.owners(&addresses, secs(5));
    let _second = lan.site.node(2).crier("node-1", &lan.configuration());
    eventually("it is told", secs(10), || {
        let problems = lan::problems(&agents[0]);
        if problems.contains("node-1") { Ok(()) } else { Err(problems) }
    });
    let name = |mac| lan.name_of(mac);
    let answering = |address: Ipv4Addr| -> Vec<String> {
        lan.site.client.who_has("eth0", address, millis(200)).into_iter().map(name).collect()
    };
    eventually("one node answers for each", secs(15), || {
        let seen: Vec<_> = addresses.iter().map(|address| answering(*address)).collect();
        if seen.iter().all(|names| names.len() == 1) { Ok(()) } else { Err(format!("{seen:?}, before {before:?}")) }
    });
    watch.end(secs(2));
}

/// Input: nodes with a second link that has the addresses too, and pulses that pass there. The owner is cut off from the clients' link by
/// the switch, and then its cable is pulled. Output: both times another node answers the clients, both links have one owner when it is
/// back, and who answers says why.
#[test]
fn clients_of_a_link_that_the_owner_has_lost_are_answered_although_it_is_heard_on_another() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let storage = rack.switch("storage");
    for (node, number) in lan.site.nodes.iter().zip(11..) {
        storage.plug(node, "eth1", &[&format!("192.168.0.{number}/16")]);
    }
    let addresses = lan.services(6);
    let pulse = format!("key-file = \"{}\"\n", lan.key.display());
    let agents = lan.agents_with(&lan.configuration_on("[\"eth*\"]", &pulse));
    let before = lan.owners(&addresses, secs(10));
    assert!(before.values().any(|owner| owner == "node-1"), "{before:?}");
    let port = &lan.site.node(0).port;
    for lose in [Port::cut, Port::unplug] {
        lose(port);
        let without = lan.owners(&addresses, secs(3));
        assert!(without.values().all(|owner| owner != "node-1"), "{without:?}");
        let told = || agents[1..].iter().map(lan::problems).collect::<String>();
        eventually("who answers says why", secs(3), || match told() {
            told if told.contains("node-1 answers for it, but is not heard on eth0") => Ok(()),
            told => Err(told),
        });
        port.restore();
        eventually_equal("nothing is wrong any more", secs(20), &String::new(), || {
            agents.iter().map(lan::problems).collect::<String>()
        });
        // The node that was away is asked to take back what it is first for.
        let after = eventually("each is where all agents rank it first", secs(20), || {
            let owners = lan.owners(&addresses, secs(3));
            let ranks: Vec<_> = agents.iter().map(first_in_rank).collect();
            if ranks.iter().all(|it| *it == owners) { Ok(owners) } else { Err(format!("{owners:?}, ranks {ranks:?}")) }
        });
        lan.owners_stay("each has one owner", &after, secs(3));
    }
}

/// Input: as before, and a node receives nothing by its port of the clients' link; what it sends passes. Output: it takes
/// nothing that is another's: all other addresses stay where they are, on both links.
#[test]
fn a_node_that_receives_nothing_on_one_of_two_links_takes_no_address_of_another() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let storage = rack.switch("storage");
    for (node, number) in lan.site.nodes.iter().zip(11..) {
        storage.plug(node, "eth1", &[&format!("192.168.0.{number}/16")]);
    }
    let addresses = lan.services(8);
    let pulse = format!("key-file = \"{}\"\n", lan.key.display());
    let agents = lan.agents_with(&lan.configuration_on("[\"eth*\"]", &pulse));
    lan.all_hear(&agents);
    let before = lan.owners(&addresses, secs(10));
    let others: BTreeMap<_, _> = before.clone().into_iter().filter(|(_, owner)| owner != "node-1").collect();
    assert!(!others.is_empty() && others.len() < before.len(), "{before:?}");
    let moves = || said(&agents, "on the link: ");
    let moved = moves();
    let port = &lan.site.node(0).port;
    port.deafen();
    lan.owners_stay("nobody takes them", &others, secs(8));
    assert_eq!(moves(), moved, "on either link");
    port.undeafen();
    eventually_equal("all is as it was", secs(10), &before, || lan.owners(&addresses, secs(3)));
    lan.owners_stay("and stays so", &before, secs(2));
}

/// Input: a node receives nothing by its only link; what it sends passes, and its carrier is up. Output: clients go on being
/// answered at every address by the other two, which say why; when it receives again, all is as it was.
#[test]
fn a_node_that_receives_nothing_draws_no_address_and_loses_its_own_to_those_that_hear() {
    a_node_receives(false, Port::deafen, Port::undeafen);
}

/// The same where frames of the switch itself go on coming.
#[test]
fn a_node_that_receives_nothing_but_frames_of_the_switch_draws_no_address_either() {
    a_node_receives(true, Port::isolate, Port::unisolate);
}

/// `nodes`: the agents know the addresses of the Nodes, and can ask for them.
fn a_node_receives(nodes: bool, no_more: fn(&Port), again: fn(&Port)) {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    if nodes {
        lan.tell_nodes();
    }
    let addresses = lan.services(8);
    let agents = lan.agents();
    let before = lan.owners(&addresses, secs(10));
    assert!(before.values().any(|owner| owner == "node-2"), "{before:?}");
    let watch = lan.watch(&addresses);
    let port = &lan.site.node(1).port;
    no_more(port);
    let without = eventually("the others answer for all", secs(5), || {
        let owners = lan.owners(&addresses, secs(3));
        if owners.values().all(|owner| owner != "node-2") { Ok(owners) } else { Err(format!("{owners:?}")) }
    });
    lan.owners_stay("and go on", &without, secs(8));
    for agent in [&agents[0], &agents[2]] {
        let problems = lan::problems(agent);
        assert!(problems.contains("node-2 reports that it receives no frames on eth0"), "{problems}");
    }
    assert!(lan::problems(&agents[1]).contains("no frames are received on eth0"), "{}", lan::problems(&agents[1]));
    again(port);
    eventually_equal("all is as it was", secs(15), &before, || lan.owners(&addresses, secs(3)));
    lan.owners_stay("and stays so", &before, secs(2));
    watch.end(millis(2500));
}

/// Input: two links of a node on one wire, and the one that began last loses its cable. Output: the others miss nobody, and
/// both stations are the node's.
#[test]
fn a_node_with_two_links_on_one_wire_is_missed_by_nobody_when_one_of_them_dies() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let second = lan.site.link.plug(lan.site.node(0), "eth1", &["192.168.35.61/24"]);
    lan.services(6);
    let agents = lan.agents_with(&lan.configuration_on("[\"eth*\"]", &lan.patient_pulse()));
    lan.all_hear(&agents);
    for port in [&second, &lan.site.node(0).port] {
        for lose in [Port::cut, Port::unplug] {
            throughout("nobody complains", secs(2), || {
                let problems: String = agents[1..].iter().map(lan::problems).collect();
                if problems.is_empty() { Ok(()) } else { Err(problems) }
            });
            lose(port);
            throughout("and no node is missed", secs(4), || {
                let problems: String = agents[1..].iter().map(lan::problems).collect();
                let silent = said(&agents[1..], "node fell silent");
                if problems.is_empty() && silent.is_empty() { Ok(()) } else { Err(format!("{problems} {silent:?}")) }
            });
            port.restore();
        }
    }
}

/// Input: ten times the owner's link loses IPv6 and has it again; then it loses all addresses of both families. Output: each
/// time another node answers for the IPv6 address, alone, and the owner has it back with IPv6; the IPv4 address stays meanwhile. Where the
/// subnet is required, the IPv4 address moves too once the link has lost it.
#[test]
fn an_owner_whose_link_loses_a_family_leaves_the_addresses_of_that_family_to_others() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 3);
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = ("192.168.35.100".parse().unwrap(), "fd35::100".parse().unwrap());
    lan.service("web", "192.168.35.100,fd35::100");
    let file = lan.configuration_on("[\"eth0\"]\nsubnet = \"require\"", &lan.patient_pulse());
    let agents = lan.agents_with(&file);
    lan.all_hear(&agents);
    let index = lan.owner(v4);
    let (owner, name) = (lan.site.node(index), lan.site.node(index).name().to_owned());
    let [v4_of_owner, v6_of_owner] = addresses_of_eth0(owner);
    let answering = |others: bool| {
        let found = advertising(&lan, v6);
        match found.as_slice() {
            [one] if (*one != name) == others => Ok(()),
            _ => Err(format!("{found:?} answer for {v6}, and {name} had it")),
        }
    };
    eventually("the owner answers for the IPv6 address too", secs(10), || answering(false));
    let give_back_v6 = || {
        owner.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0");
        owner.ip(&format!("address add {v6_of_owner} dev eth0 nodad"));
        eventually("and has it again", secs(15), || answering(false));
    };
    for round in 0..10 {
        owner.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
        eventually(&format!("another one answers, round {round}"), secs(4), || answering(true));
        eventually_equal("the other family stays", secs(2), &vec![name.clone()], || lan.answering(v4));
        give_back_v6();
    }
    let is_moved = || match lan.answering(v4).as_slice() {
        [one] if *one != name => Ok(()),
        found => Err(format!("{found:?} answer for {v4}, and {name} had it")),
    };
    owner.ip("-4 address flush dev eth0");
    eventually("another one answers for the IPv4 address", secs(5), is_moved);
    eventually("the other family stays", secs(2), || answering(false));
    owner.sysctl("net/ipv6/conf/eth0/disable_ipv6", "1");
    eventually("another one answers for the IPv6 address too", secs(5), || answering(true));
    owner.ip(&format!("address add {v4_of_owner} dev eth0"));
    eventually_equal("the IPv4 address is back", secs(15), &vec![name.clone()], || lan.answering(v4));
    give_back_v6();
}

/// Where `subnet` is as by default. Input: the owner's link loses its IPv4 address and has it again; then all links lose
/// theirs. Output: a client is served by another node within seconds, and the owner says why it gave the address up; where nobody has an IPv4
/// address any more the address stays, and its owner says what that means.
#[test]
fn an_owner_whose_link_loses_ipv4_leaves_its_addresses_to_nodes_that_can_reply() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let address: Ipv4Addr = "192.168.35.100".parse().unwrap();
    lan.service("web", "192.168.35.100");
    let agents = lan.agents_with(&lan.configuration_on("[\"eth0\"]", &lan.patient_pulse()));
    lan.all_hear(&agents);
    let index = lan.owner(address);
    let (owner, name) = (lan.site.node(index), lan.site.node(index).name().to_owned());
    let served_by = |by_owner: bool| match lan.site.client.get_path((address, 80), "/", secs(1)) {
        Ok(answer) if (answer.name == name) == by_owner => Ok(()),
        other => Err(format!("{other:?}, and {name} had it")),
    };
    eventually("the owner serves it", secs(10), || served_by(true));
    let [v4_of_owner, _] = addresses_of_eth0(owner);
    for round in 0..5 {
        owner.ip("-4 address flush dev eth0");
        eventually(&format!("another one serves it, round {round}"), secs(4), || served_by(false));
        let said = lan::problems(&agents[index]);
        assert!(
            said.contains("no IPv4 address on eth0, which has no IPv4 address while other nodes have one"),
            "{said}"
        );
        owner.ip(&format!("address add {v4_of_owner} dev eth0"));
        eventually(&format!("the owner has it again, round {round}"), secs(15), || served_by(true));
    }
    let nodes: Vec<usize> = (0..3).filter(|node| *node != index).chain([index]).collect();
    for node in nodes {
        lan.site.node(node).ip("-4 address flush dev eth0");
    }
    let says = |text: &str| {
        let all: Vec<String> = agents.iter().map(lan::problems).collect();
        let count = all.iter().filter(|said| said.contains(text)).count();
        let l2: Vec<_> = agents.iter().map(|agent| agent.json("l2")["addresses"][0].clone()).collect();
        if count == 1 { Ok(()) } else { Err(format!("{count} of {all:?}: {l2:#?}")) }
    };
    eventually("one goes on, and says so", secs(10), || {
        says("this node answers for IPv4 addresses on eth0 (1), which has no IPv4 address")
    });
    throughout("it answers", secs(3), || match lan.answering(address).len() {
        1 => Ok(()),
        count => Err(format!("{count} answer")),
    });
}

/// The addresses of a node's link with their prefix lengths, one of each family, as the rack gave them.
fn addresses_of_eth0(node: &Host) -> [String; 2] {
    ["-4", "-6"].map(|family| {
        let table = node.ip_json(&format!("{family} address show dev eth0 scope global"));
        let net = &table[0]["addr_info"][0];
        format!("{}/{}", net["local"].as_str().unwrap_or_default(), net["prefixlen"])
    })
}

/// Who answers on the link for an IPv6 address, in the order of their first answers.
fn advertising(lan: &Lan, target: Ipv6Addr) -> Vec<String> {
    let client = &lan.site.client;
    let mac = client.port.mac();
    let asked = Solicitation { frame_from: mac, source: client.address6, target, to: None, tells_mac: true };
    let macs = client.run(|| {
        let socket = PacketSocket::open("eth0", Frames::All, millis(5)).expect("the client can listen");
        let deadline = Deadline::after(millis(200));
        let (mut buffer, mut macs, mut again) = ([0; 2048], Vec::new(), now());
        while !deadline.has_passed() {
            if now() >= again {
                socket.send(&asked.frame()).expect("the link is up");
                again = now() + millis(100);
            }
            let Ok(Some((_, frame))) = socket.receive(&mut buffer) else { continue };
            let answer = Advertisement::read(frame).filter(|it| it.target == target && it.solicited);
            if let Some(answer) = answer.filter(|it| !macs.contains(&it.frame_from)) {
                macs.push(answer.frame_from);
            }
        }
        macs
    });
    macs.into_iter().map(|mac| lan.name_of(mac)).collect()
}

/// By address, as this agent knows the nodes.
fn first_in_rank(agent: &Crier) -> BTreeMap<Ipv4Addr, String> {
    let rows = agent.json("l2")["addresses"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let first = |row: &serde_json::Value| Some((text(&row["address"]).parse().ok()?, text(&row["nodes"][0]["node"])));
    rows.iter().filter_map(first).collect()
}
