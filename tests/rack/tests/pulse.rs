//! The pulse between standalone nodes on a real link: who dies is replaced within a moment, who leaves at once, and nobody
//! without the key is listened to.

use std::net::{IpAddr, Ipv4Addr};

use rack::client::Asking;
use rack::lan::{Lan, members};
use rack::{Need, Rack, eventually, eventually_equal, millis, secs, throughout};

const NEEDS: [Need; 2] = [Need::Namespaces, Need::Crier];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// Three nodes, each with the page of its name, and the Service they announce.
fn three_nodes(rack: &Rack) -> Lan {
    let lan = Lan::with_pages(rack, 3);
    lan.service("web", "192.168.35.100");
    lan
}

fn ask(lan: &Lan) -> Asking {
    lan.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(5))
}

/// Waits until somebody else than `before` serves the page.
fn served_by_another(asking: &Asking, before: &str) {
    eventually("another node serves the page", secs(10), || match asking.outcomes().servers().last() {
        Some(name) if name != before => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn an_owner_that_is_killed_is_replaced_and_one_that_stops_hands_over_without_a_gap() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = three_nodes(&rack);
    let mut agents = lan.agents();
    let owner = || lan.site.node(lan.owner(ADDRESS)).name().to_owned();
    let first = owner();
    eventually_equal("the owner serves its page", secs(20), &first, || {
        lan.site.client.get((IpAddr::from(ADDRESS), 80)).map(|answer| answer.name).unwrap_or_default()
    });

    let asking = ask(&lan);
    let place = agents.iter().position(|agent| agent.node() == first).expect("the owner is one of the agents");
    let killed = agents.remove(place);
    killed.kill();
    // What was bound by the one that was killed would still answer for it: the node as a whole is dead.
    let node = lan.site.nodes.iter().find(|node| node.name() == first).expect("it is a node");
    node.ip("address del 192.168.35.100/32 dev lo");
    served_by_another(&asking, &first);
    let outcomes = asking.stop();
    println!("SIGKILL: the longest gap was {:?}, {} lost", outcomes.longest_gap(), outcomes.lost());
    let second = owner();
    assert_ne!(second, first);

    let asking = ask(&lan);
    eventually("the next owner is asked", secs(10), || {
        if asking.outcomes().servers().contains(&second) { Ok(()) } else { Err("not yet") }
    });
    let place = agents.iter().position(|agent| agent.node() == second).expect("the owner is one of the agents");
    let stopped = agents.remove(place);
    stopped.stop(secs(10));
    served_by_another(&asking, &second);
    let outcomes = asking.stop();
    println!("SIGTERM: the longest gap was {:?}, {} lost", outcomes.longest_gap(), outcomes.lost());
    assert_ne!(owner(), second);
}

#[test]
fn agents_with_different_keys_do_not_listen_to_each_other_and_say_so() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    rack.write("other.key", "f123456789abcdeff123456789abcdef");
    let lan = three_nodes(&rack);
    let ours = [lan.agent(0), lan.agent(1)];
    let stranger = lan.agent_with(2, &lan.configuration().replace("pulse.key", "other.key"));
    for agent in &ours {
        agent.wait_ready(secs(20));
        agent.process().wait_for_log("authenticated with another key", secs(20));
    }
    stranger.wait_ready(secs(20));
    eventually_equal("the two of one key hear each other", secs(20), &vec!["node-2".to_owned()], || members(&ours[0]));
    throughout("and the third is nobody to them", secs(2), || match members(&ours[0]).as_slice() {
        [one] if one == "node-2" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn where_ipv6_is_off_on_one_node_all_hear_each_other_over_ipv4() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = three_nodes(&rack);
    lan.site.node(1).sysctl("net.ipv6.conf.eth0.disable_ipv6", "1");
    let agents = lan.agents_with(&lan.configuration_on("[\"eth0\"]", "unauthenticated = true\n"));
    let status = agents[0].status();
    assert_eq!(status["pulse"]["state"], "unauthenticated");
    assert!(status["problems"].to_string().contains("unauthenticated"), "{}", status["problems"]);
    throughout("nobody falls silent", secs(4), || {
        let counts: Vec<usize> = agents.iter().map(|agent| members(agent).len()).collect();
        if counts == [2, 2, 2] { Ok(()) } else { Err(format!("{counts:?}")) }
    });
}
