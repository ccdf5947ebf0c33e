//! Agents that disagree on one link: files that differ, pulses that are not heard, links that part, and processes that freeze.
//! A client asks every 100 ms; each address has one holder in the end, and nothing moves that no file asks to move.

use std::net::Ipv4Addr;
use std::time::Duration;

use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::manifests::Manifests;
use rack::owners::Owners;
use rack::{Need, Rack, Service, eventually, eventually_equal, millis, secs, throughout};

const NEEDS: [Need; 2] = [Need::Crier, Need::Nft];

/// What a busy machine and the questions of the test itself add to the second within which two owners are one.
const SLACK: Duration = millis(700);

/// The configuration with more lines in its `[[l2]]`.
fn with_l2(lan: &Lan, lines: &str) -> String {
    lan.configuration().replace("[[l2]]\n", &format!("[[l2]]\n{lines}\n"))
}

/// A configuration that prefers the node of this name.
fn prefers(lan: &Lan, node: &str) -> String {
    with_l2(lan, &format!("preference = [{{ nodes = \"host={node}\", weight = 100 }}]"))
}

#[track_caller]
fn owned_by(lan: &Lan, addresses: &[Ipv4Addr], node: &str) {
    eventually(&format!("{node} alone answers for all"), secs(10), || {
        let answering = lan.all_answering(addresses);
        if answering.values().all(|names| names == &[node.to_owned()]) { Ok(()) } else { Err(format!("{answering:?}")) }
    });
}

/// The firewall of node-1 drops the pulses that it sends, and lets ARP pass.
#[track_caller]
fn drop_own_pulses(lan: &Lan, agents: &[Crier]) {
    let node = lan.site.node(0);
    node.sh("nft add table inet wall");
    node.sh("nft add chain inet wall out { type filter hook output priority 0 ; }");
    node.sh("nft add rule inet wall out udp dport 7473 drop");
    agents[1].process().wait_for_log("node fell silent", secs(5));
}

/// The addresses of which this node is the owner.
fn of(owners: &Owners, node: &str) -> Vec<Ipv4Addr> {
    owners.iter().filter(|(_, owner)| *owner == node).map(|(address, _)| *address).collect()
}

#[test]
fn a_preference_that_is_rolled_out_node_by_node_and_back_leaves_no_gap_and_no_second_owner() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    lan.tell_nodes();
    let addresses = lan.services(4);
    let (old, new) = (prefers(&lan, "node-1"), prefers(&lan, "node-2"));
    let mut agents = lan.agents_with(&old);
    owned_by(&lan, &addresses, "node-1");
    let watch = lan.watch(&addresses);
    for (file, preferred) in [(&new, "node-2"), (&old, "node-1")] {
        for node in 0..3 {
            lan.restart(&mut agents, node, file);
            lan.all_hear(&agents);
            lan.owners(&addresses, secs(3));
        }
        owned_by(&lan, &addresses, preferred);
    }
    watch.end(millis(900));
}

#[test]
fn a_node_whose_pulses_its_own_firewall_drops_keeps_what_it_has_while_others_restart() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    lan.tell_nodes();
    let addresses = lan.services(11);
    let mut agents = lan.agents();
    let before = lan.owners(&addresses, secs(5));
    let kept = of(&before, "node-1");
    assert!(!kept.is_empty(), "{before:?}");
    let watch = lan.watch(&addresses);
    drop_own_pulses(&lan, &agents);
    for restarted in [2, 1] {
        lan.restart(&mut agents, restarted, &lan.configuration());
        eventually("the two others hear each other", secs(10), || match lan::members(&agents[restarted]).as_slice() {
            [_, ..] => Ok(()),
            [] => Err("nobody"),
        });
        let owners = lan.owners(&addresses, secs(5));
        assert!(kept.iter().all(|address| owners[address] == "node-1"), "{owners:?}");
    }
    for address in &kept {
        assert!(watch.claims(*address).iter().all(|name| name == "node-1"), "{address}: {:?}", watch.claims(*address));
    }
    watch.end(millis(1500));
}

/// Node-1 hears the others and is not heard; the others start anew and know of no Node.
#[test]
fn a_node_that_nobody_ever_heard_and_one_that_it_hears_do_not_both_go_on() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses = lan.services(11);
    let mut agents = lan.agents();
    lan.owners(&addresses, secs(5));
    drop_own_pulses(&lan, &agents);
    for restarted in [2, 1] {
        lan.restart(&mut agents, restarted, &lan.configuration());
        lan.owners(&addresses, secs(5));
    }
}

#[test]
fn where_no_pulse_passes_a_link_that_is_lost_for_a_moment_leaves_one_owner() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses = lan.services(6);
    let _agents = lan.agents();
    lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    lan.drop_pulses();
    let before = lan.owners(&addresses, secs(5));
    for node in &lan.site.nodes {
        if !of(&before, node.name()).is_empty() {
            node.port.cut();
            throughout("the link is lost", millis(1500), || Ok::<(), String>(()));
            let answered = watch.answers();
            node.port.restore();
            lan.owners(&addresses, secs(6));
            for address in &addresses {
                let doubled = watch.doubled(*address, answered);
                assert!(doubled < millis(1000) + SLACK, "two answered for {address} for {doubled:?}");
            }
        }
        let owners = lan.owners(&addresses, secs(6));
        throughout("and there is one owner", secs(1), || {
            let now = lan.owners(&addresses, secs(0));
            if now == owners { Ok(()) } else { Err(format!("{now:?}, before {owners:?}")) }
        });
    }
    watch.end(secs(4));
}

/// Input: the same, and a node is cut off for 25 s. Output: two answer for each address when the link heals, and one a second later,
/// although nobody announces anything at that moment.
#[test]
fn where_no_pulse_passes_a_link_that_was_lost_for_long_leaves_one_owner_within_a_second() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    lan.tell_nodes();
    let addresses = lan.services(6);
    let _agents = lan.agents();
    lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    lan.drop_pulses();
    let before = lan.owners(&addresses, secs(5));
    assert!(!of(&before, "node-2").is_empty(), "{before:?}");
    let node = lan.site.node(1);
    node.port.cut();
    throughout("the link is lost", secs(25), || Ok::<(), String>(()));
    let cut = lan.owners(&addresses, secs(5));
    assert!(of(&cut, "node-2").is_empty(), "{cut:?}");
    let answered = watch.answers();
    node.port.restore();
    let owners = lan.owners(&addresses, secs(4));
    lan.owners_stay("and there is one owner", &owners, secs(2));
    for address in &addresses {
        let doubled = watch.doubled(*address, answered);
        println!("{address}: two answered for {doubled:?}");
        assert!(doubled < millis(1000) + SLACK, "two answered for {address} for {doubled:?}");
    }
    watch.end(secs(8));
}

#[test]
fn where_no_pulse_passes_nothing_moves_and_the_link_is_quiet() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 4);
    let addresses = lan.services(11);
    let _agents = lan.agents();
    let before = lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    lan.drop_pulses();
    let from = watch.frames();
    lan.owners_stay("nothing moves", &before, secs(8));
    let frames = watch.frames() - from;
    println!("{frames} frames of ARP in 8 s, answers to this client among them");
    assert!(frames < 8 * 4 * 200, "{frames} frames in 8 s");
    for (address, owner) in &before {
        assert!(watch.claims(*address).iter().all(|name| name == owner), "{address}: {:?}", watch.claims(*address));
    }
    lan.pass_pulses();
    lan.owners_stay("nor when pulses pass again", &before, secs(2));
    watch.end(millis(700));
}

#[test]
fn a_client_behind_the_owner_that_yields_after_a_split_is_served_by_the_other_at_once() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 2);
    let addresses = lan.services(4);
    let far_client = lan.site.host("far-client", 78);
    let _agents = lan.agents();
    let before = lan.owners(&addresses, secs(5));
    let (near, far) = (&lan.site.nodes[0], &lan.site.nodes[1]);
    let watches = [lan.watch(&addresses), lan.watch_from(&far_client, &addresses)];
    let ports = format!("{},{}", far.port.name(), far_client.port.name());
    let switch = lan.site.link.namespace();
    switch.sh("nft add table bridge wall");
    switch.sh("nft add chain bridge wall between { type filter hook forward priority 0 ; }");
    switch.sh(&format!("nft add rule bridge wall between iifname {{{ports}}} oifname != {{{ports}}} drop"));
    switch.sh(&format!("nft add rule bridge wall between iifname != {{{ports}}} oifname {{{ports}}} drop"));
    owned_by(&lan, &addresses, near.name());
    throughout("each part has an owner", secs(2), || {
        let macs = far_client.who_has("eth0", addresses[0], millis(200));
        if macs == [far.port.mac()] { Ok(()) } else { Err(format!("{macs:?}")) }
    });
    switch.sh("nft delete table bridge wall");
    assert_eq!(lan.owners(&addresses, secs(2)), before, "the better of the two is as it was");
    for watch in watches {
        watch.end(millis(1500));
    }
}

#[test]
fn a_sticky_owner_of_many_addresses_keeps_them_while_others_restart() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses: Vec<Ipv4Addr> = (0..500u32).map(|n| Ipv4Addr::from_bits(0x0a4d_0001 + n)).collect();
    let services: String = addresses
        .iter()
        .map(|it| rack::Service::new(&format!("s{}", it.to_bits())).anywhere().addresses(&it.to_string()).manifest())
        .collect();
    lan.manifests.write("many.yaml", &services);
    let file =
        with_l2(&lan, "sticky = true\nsubnet = \"ignore\"").replace("addresses = [", "addresses = [\"10.77.0.0/22\", ");
    let first = lan.agent_with(0, &file);
    first.wait_ready(secs(20));
    lan.site.client.ip("route add 10.77.0.0/22 dev eth0");
    let sample: Vec<Ipv4Addr> = addresses.iter().copied().step_by(125).collect();
    owned_by(&lan, &sample, "node-1");
    let mut agents = vec![first, lan.agent_with(1, &file), lan.agent_with(2, &file)];
    let watch = lan.watch(&sample);
    let keeps_all = |agents: &[Crier]| {
        lan.all_hear(agents);
        eventually("all agents name the one owner of all", secs(10), || {
            for agent in agents {
                let report = agent.try_json("l2")?;
                let rows = report["addresses"].as_array().cloned().unwrap_or_default();
                let strays: Vec<_> = rows.iter().filter(|row| row["owner"] != "node-1").take(3).collect();
                if rows.len() != addresses.len() || !strays.is_empty() {
                    return Err(format!("{}: {} rows, {strays:?}", agent.node(), rows.len()));
                }
            }
            Ok(())
        });
    };
    keeps_all(&agents);
    lan.restart(&mut agents, 1, &file);
    keeps_all(&agents);
    agents[2].kill();
    agents[2] = lan.agent_with(2, &file);
    keeps_all(&agents);
    for agent in &agents[1..] {
        let log = agent.process().log();
        assert!(!log.contains("this node answers on the link"), "{}:\n{}", agent.node(), agent.process().log_tail(30));
    }
    for address in &sample {
        assert!(watch.claims(*address).iter().all(|name| name == "node-1"), "{address}: {:?}", watch.claims(*address));
    }
    watch.end(secs(1));
}

#[test]
fn an_agent_that_was_frozen_takes_nothing_from_the_others() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let addresses = lan.services(11);
    let agents = lan.agents();
    let before = lan.owners(&addresses, secs(5));
    let watch = lan.watch(&addresses);
    for (frozen, length) in [(0, 250), (1, 500), (2, 800), (0, 1500)] {
        agents[frozen].process().freeze();
        throughout("it is frozen", millis(length), || Ok::<(), String>(()));
        agents[frozen].process().thaw();
        let after = lan.owners(&addresses, secs(3));
        let foreign: Owners =
            before.iter().filter(|(_, owner)| *owner != agents[frozen].node()).map(|(a, b)| (*a, b.clone())).collect();
        let moved: Vec<_> = foreign.iter().filter(|(address, owner)| after[*address] != **owner).collect();
        assert!(moved.is_empty(), "{} was frozen for {length} ms; {moved:?} moved to {after:?}", agents[frozen].node());
        eventually_equal("all is as it was", secs(5), &before, || lan.owners(&addresses, millis(500)));
    }
    // Twice at most an address was another's and came back.
    for (address, owner) in &before {
        let claims = watch.claims(*address);
        assert!(claims.len() <= 5 && claims.last().is_none_or(|last| last == owner), "{address}: {claims:?}");
    }
    watch.end(millis(1500));
}

/// Each node has manifests of its own, which an operator copies node by node. Node-3 learns of both Services at once.
#[test]
fn standalone_nodes_that_learned_of_services_in_another_order_name_each_other_until_the_addresses_are_named() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let folders: Vec<Manifests> =
        (1..=3).map(|node| Manifests::in_folder(rack.folder().join(format!("manifests-{node}")))).collect();
    let write = |node: usize, name: &str, addresses: Option<&str>| {
        let service = Service::new(name).anywhere();
        folders[node].service(&addresses.map_or(service.clone(), |addresses| service.addresses(addresses)));
    };
    let file = |node: usize| lan.configuration().replace(&lan.manifests.section(), &folders[node].section());
    let agents: Vec<Crier> = (0..3).map(|node| lan.agent_with(node, &file(node))).collect();
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    for agent in &agents {
        eventually_equal("all hear each other", secs(30), &2, || lan::members(agent).len());
    }
    let address = |agent: &Crier, name: &str| {
        lan::service(agent, name)["allocation"]["held"][0]["address"].as_str().map(str::to_owned)
    };
    let has = |node: usize, name: &str, expected: &str| {
        eventually_equal(&format!("{name} of {}", agents[node].node()), secs(10), &Some(expected.to_owned()), || {
            address(&agents[node], name)
        });
    };
    for node in [0, 1] {
        write(node, "zz", None);
        has(node, "zz", "192.168.35.100");
        write(node, "aa", None);
        has(node, "aa", "192.168.35.101");
    }
    write(2, "aa", None);
    has(2, "aa", "192.168.35.100");
    write(2, "zz", None);
    has(2, "zz", "192.168.35.101");
    let told = [(0, "node-3"), (1, "node-3"), (2, "node-1, node-2")];
    for (node, others) in told {
        let line = format!("Services have other addresses on {others} than on this node, ");
        eventually("the others are named", secs(20), || {
            let problems = lan::problems(&agents[node]);
            if problems.contains(&line) { Ok(()) } else { Err(problems) }
        });
    }
    for node in 0..3 {
        write(node, "aa", Some("192.168.35.105"));
        write(node, "zz", Some("192.168.35.106"));
    }
    for agent in &agents {
        eventually("nothing is left to name", secs(20), || {
            let problems = lan::problems(agent);
            let named = problems.contains("other addresses") || problems.contains("other Services");
            let moved = address(agent, "zz").as_deref() == Some("192.168.35.106");
            if moved && !named { Ok(()) } else { Err(problems) }
        });
    }
}
