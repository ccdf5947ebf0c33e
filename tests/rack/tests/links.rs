//! Every sort of link that addresses are announced on, and links that come, go, and change while the agent runs.

use std::net::{IpAddr, Ipv4Addr};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::lan::{self, Lan};
use rack::packet::Mac;
use rack::{Host, Namespace, Need, Rack, eventually, eventually_equal, millis, secs};

const V4: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const BOTH: [IpAddr; 2] = [IpAddr::V4(V4), IpAddr::V6(std::net::Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 0x100))];

/// Waits until the neighbour table of `client` has `mac` for both addresses, asking for them.
fn found_under(client: &Namespace, mac: Mac) {
    for address in BOTH {
        eventually(&format!("{address} is found under {mac}"), secs(20), || {
            client.poke(address);
            match client.neighbors().get(&address) {
                Some(known) if *known == mac => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// One node that announces both addresses on its link `interface`, which `build` makes out of its `eth0`; returns when
/// the client has found them under the MAC of that link.
fn serves(needs: &[Need], interface: &str, build: impl FnOnce(&Lan)) {
    let Some(rack) = Rack::for_test(&[&[Need::Crier], needs].concat()) else { return };
    let lan = Lan::new(&rack, 1);
    build(&lan);
    lan.service("web", "192.168.35.100,fd35::100");
    let pulse = format!("key-file = \"{}\"\n", lan.key.display());
    let agent = lan.agent_with(0, &lan.configuration_on(&format!("[\"{interface}\"]"), &pulse));
    agent.wait_ready(secs(30));
    let mac = lan.site.node(0).mac(interface);
    found_under(&lan.site.client, mac);
    eventually_equal("nobody else answers", secs(10), &vec![mac], || lan.site.client.who_has("eth0", V4, millis(200)));
}

/// Moves the node's own addresses from `eth0` to another link of it.
fn move_addresses(node: &Host, to: &str) {
    let (v4, v6) = (node.address, node.address6);
    node.ip("address flush dev eth0");
    node.ip("link set eth0 up");
    node.up(to, &[&format!("{v4}/24"), &format!("{v6}/64")]);
}

#[test]
fn addresses_are_served_on_a_bridge() {
    serves(&[], "lan0", |lan| {
        let node = lan.site.node(0);
        node.ip("link add lan0 type bridge mcast_snooping 0 forward_delay 0");
        node.ip("link set eth0 master lan0");
        move_addresses(node, "lan0");
    });
}

#[test]
fn addresses_are_served_on_a_macvlan() {
    serves(&[Need::LinkType("macvlan")], "lan0", |lan| {
        let node = lan.site.node(0);
        node.ip("link add link eth0 name lan0 type macvlan mode bridge");
        move_addresses(node, "lan0");
    });
}

#[test]
fn addresses_are_served_on_a_bond() {
    serves(&[Need::LinkType("bond")], "lan0", |lan| {
        let node = lan.site.node(0);
        node.ip("link add lan0 type bond mode active-backup miimon 50");
        node.ip("link set eth0 down");
        node.ip("link set eth0 master lan0");
        move_addresses(node, "lan0");
    });
}

#[test]
fn addresses_are_served_on_a_vlan() {
    serves(&[Need::LinkType("vlan")], "eth0.35", |lan| {
        let node = lan.site.node(0);
        node.ip("link add link eth0 name eth0.35 type vlan id 35");
        move_addresses(node, "eth0.35");
        // The switch takes the tag off for the others.
        let switch = lan.site.link.namespace();
        switch.ip("link set br0 type bridge vlan_filtering 1");
        switch.sh(&format!("bridge vlan add dev {} vid 35", node.port.name()));
        for port in [lan.site.client.port.name(), lan.site.router.port.name()] {
            switch.sh(&format!("bridge vlan add dev {port} vid 35 pvid untagged"));
        }
    });
}

#[test]
fn addresses_are_served_on_the_slave_of_a_vrf() {
    serves(&[Need::LinkType("vrf")], "eth0", |lan| {
        let node = lan.site.node(0);
        node.ip("link add red type vrf table 1001");
        node.ip("link set red up");
        node.ip("link set eth0 master red");
        // The kernel takes IPv6 addresses off a link that changes its table.
        node.ip(&format!("address replace {}/64 dev eth0 nodad", node.address6));
    });
}

/// Input: two links with one network, the one in a VRF, and an `[[l2]]` that names the VRF. Output: ARP and NDP are answered on
/// the link in the VRF alone, with its MAC.
#[test]
fn an_l2_of_a_vrf_answers_on_the_links_in_it_alone() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::LinkType("vrf")]) else { return };
    let lan = Lan::new(&rack, 1);
    let node = lan.site.node(0);
    let link = rack.switch("red-link");
    let client = rack.namespace("red-client");
    link.plug(&client, "eth0", &["192.168.35.9/24", "fd35::9/64"]);
    node.ip("link add red type vrf table 1001");
    node.ip("link set red up");
    link.plug(node, "eth1", &[]);
    node.ip("link set eth1 master red");
    node.up("eth1", &["192.168.35.111/24", "fd35::111/64"]);
    lan.service("web", "192.168.35.100,fd35::100");
    let pulse = format!("key-file = \"{}\"\n", lan.key.display());
    let of_red = lan.configuration_on("[\"eth*\"]", &pulse).replace("[[l2]]\n", "[[l2]]\nvrf = \"red\"\n");
    let agent = lan.agent_with(0, &of_red);
    agent.wait_ready(secs(30));
    found_under(&client, node.mac("eth1"));
    assert_eq!(lan.site.client.who_has("eth0", V4, millis(500)), [], "nobody answers in the main table");
    lan.site.client.poke(BOTH[1]);
    assert_ne!(lan.site.client.neighbors().get(&BOTH[1]), Some(&node.mac("eth0")), "NDP neither");
}

/// One node with an agent that announces on every `eth*`, whose Service nobody can be told of yet: its addresses are of
/// a second link. The client of that link, and the link.
fn with_a_second_link(lan: &Lan) -> (Crier, rack::net::Switch, Namespace) {
    lan.service("web", "192.168.35.100,fd35::100");
    let node = lan.site.node(0);
    node.ip("address flush dev eth0 scope global");
    node.up("eth0", &["10.9.0.11/24"]);
    let pulse = format!("key-file = \"{}\"\n", lan.key.display());
    let agent = lan.agent_with(0, &lan.configuration_on("[\"eth*\", \"wan\"]", &pulse));
    agent.wait_ready(secs(30));
    let link = lan.site.rack.switch("second-link");
    let client = lan.site.rack.namespace("second-client");
    link.plug(&client, "eth0", &["192.168.35.9/24", "fd35::9/64"]);
    assert_eq!(client.who_has("eth0", V4, millis(300)), [], "the node is not there yet");
    (agent, link, client)
}

/// Gratuitous ARP for the address from that MAC.
fn announcements(capture: &Capture, mac: Mac) -> usize {
    capture.arps().iter().filter(|(_, arp)| arp.is_gratuitous() && arp.sender == V4 && arp.sender_mac == mac).count()
}

#[test]
fn a_link_that_is_plugged_in_renamed_and_pulled_while_the_agent_runs_is_served_as_it_is() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    let (agent, link, client) = with_a_second_link(&lan);
    let node = lan.site.node(0);

    let port = link.plug(node, "eth1", &["192.168.35.11/24", "fd35::11/64"]);
    found_under(&client, node.mac("eth1"));

    // A link keeps its index under another name; one that must be down for it loses its IPv6 addresses.
    node.ip("link set eth1 down");
    node.ip("link set eth1 name wan");
    node.up("wan", &["fd35::11/64"]);
    client.forget_neighbors();
    found_under(&client, node.mac("wan"));
    eventually("status has the new name", secs(10), || {
        let links = agent.status()["links"].clone();
        let all = links.as_array().cloned().unwrap_or_default();
        let serving = all.iter().find(|link| link["answers_for"].to_string().contains("192.168.35.100"));
        match serving.and_then(|link| link["name"].as_str()) {
            Some("wan") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // A name that no pattern matches.
    node.ip("link set wan down");
    node.ip("link set wan name other");
    node.up("other", &["fd35::11/64"]);
    eventually_equal("a link that is not covered is silent", secs(10), &Vec::<Mac>::new(), || {
        client.who_has("eth0", V4, millis(200))
    });
    node.ip("link set other down");
    node.ip("link set other name eth1");
    node.up("eth1", &["fd35::11/64"]);
    client.forget_neighbors();
    found_under(&client, node.mac("eth1"));

    node.ip("link delete eth1");
    eventually("status no longer has the link", secs(10), || {
        let links = agent.status()["links"].to_string();
        if links.contains("eth1") { Err(links) } else { Ok(()) }
    });
    // Another one of the same name, with another index and MAC.
    let again = link.plug(node, "eth1", &["192.168.35.11/24", "fd35::11/64"]);
    assert_ne!(again.name(), "", "{port:?}");
    client.forget_neighbors();
    found_under(&client, node.mac("eth1"));
}

#[test]
fn a_link_that_changes_its_mac_or_comes_back_up_is_announced_to_its_neighbours() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 1);
    lan.service("web", "192.168.35.100,fd35::100");
    let agent = lan.agents().remove(0);
    let (node, client) = (lan.site.node(0), &lan.site.client);
    found_under(client, node.port.mac());
    let first = node.port.mac();

    let changed: Mac = "02:00:5e:00:53:01".parse().expect("a MAC");
    node.ip(&format!("link set eth0 address {changed}"));
    for address in BOTH {
        lan.known_as(client, address, changed);
    }
    assert_eq!(client.who_has("eth0", V4, millis(300)), [changed], "and not under {first}");

    let capture = client.port.capture();
    node.ip("link set eth0 down");
    node.up("eth0", &[&format!("{}/64", node.address6)]);
    eventually("it is announced again", secs(20), || {
        let count = announcements(&capture, changed);
        // More than what was left of the rounds before.
        if count >= 2 { Ok(()) } else { Err(format!("{count}")) }
    });
    client.forget_neighbors();
    found_under(client, changed);

    let capture = client.port.capture();
    node.port.unplug();
    eventually("the agent sees the carrier go", secs(10), || {
        let link = agent.status()["links"][0].clone();
        if link["up"] == false { Ok(()) } else { Err(link.to_string()) }
    });
    let before = announcements(&capture, changed);
    node.port.restore();
    client.forget_neighbors();
    found_under(client, changed);
    eventually("it is announced when the carrier is back", secs(20), || {
        if announcements(&capture, changed) > before { Ok(()) } else { Err("nothing") }
    });
}

#[test]
fn a_node_whose_link_goes_down_is_replaced_and_has_the_address_again_when_it_is_up() {
    let Some(rack) = Rack::for_test(&[Need::Crier]) else { return };
    let lan = Lan::new(&rack, 2);
    lan.service("web", "192.168.35.100,fd35::100");
    let agents = lan.agents();
    let owner = lan.owner(V4);
    let client = &lan.site.client;
    found_under(client, lan.site.node(owner).port.mac());
    lan.site.node(owner).ip("link set eth0 down");
    let other = lan.site.node(1 - owner).port.mac();
    for address in BOTH {
        lan.known_as(client, address, other);
    }
    let back = lan.site.node(owner);
    back.up("eth0", &[&format!("{}/64", back.address6)]);
    for address in BOTH {
        lan.known_as(client, address, back.port.mac());
    }
    lan.answered_by(V4, &[back.name()]);
    for agent in &agents {
        eventually_equal("all hear each other again", secs(10), &1, || lan::members(agent).len());
    }
}
