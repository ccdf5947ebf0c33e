//! A link that falls into two parts, each with a node and a client of its own: both nodes own the address for as long as
//! they cannot know better, and one of them afterwards.

use std::net::{IpAddr, Ipv4Addr};

use rack::lan::{self, Lan};
use rack::{Host, Need, Rack, eventually, eventually_equal, millis, secs};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// Lets nothing pass between the ports of these hosts and the others.
fn part(lan: &Lan, hosts: &[&Host]) {
    let switch = lan.site.link.namespace();
    let ports: Vec<&str> = hosts.iter().map(|host| host.port.name()).collect();
    let ports = ports.join(",");
    switch.sh("nft add table bridge wall");
    switch.sh("nft add chain bridge wall between { type filter hook forward priority 0 ; }");
    switch.sh(&format!("nft add rule bridge wall between iifname {{{ports}}} oifname != {{{ports}}} drop"));
    switch.sh(&format!("nft add rule bridge wall between iifname != {{{ports}}} oifname {{{ports}}} drop"));
}

#[test]
fn two_owners_after_a_partition_become_one_for_every_neighbour() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Nft]) else { return };
    let lan = Lan::new(&rack, 3);
    lan.service("web", "192.168.35.100,fd35::100");
    let far_client = lan.site.host("far-client", 78);
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let far = lan.site.node(owner);
    let both = [IpAddr::from(ADDRESS), IpAddr::from([0xfd35, 0, 0, 0, 0, 0, 0, 0x100])];
    let clients = [&lan.site.client, &far_client];
    for address in both {
        for client in clients {
            client.poke(address);
            lan.known_as(client, address, far.port.mac());
        }
    }

    part(&lan, &[far, &far_client]);
    let near = lan.owner(ADDRESS);
    assert_ne!(near, owner, "the client's part has an owner of its own");
    for address in both {
        lan.known_as(&lan.site.client, address, lan.site.node(near).port.mac());
    }
    assert_eq!(far_client.who_has("eth0", ADDRESS, millis(500)), [far.port.mac()], "and so has the other part");

    lan.site.link.namespace().sh("nft delete table bridge wall");
    // The better by rank is the one that was chosen when all were there.
    lan.answered_by(ADDRESS, &[far.name()]);
    for address in both {
        for client in clients {
            lan.known_as(client, address, far.port.mac());
        }
    }
    for agent in &agents {
        eventually_equal(&format!("{} names the one owner", agent.node()), secs(10), &far.name().to_owned(), || {
            let announcements = lan::service(agent, "web")["announcements"].clone();
            announcements[0]["l2"]["owner"].as_str().unwrap_or_default().to_owned()
        });
    }
    eventually("the other's conflict is over with its claim", secs(10), || {
        let problems = lan::problems(&agents[near]);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    });
}
