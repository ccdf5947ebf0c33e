//! Peers that other speakers have trouble with: a routing daemon on the node itself, and routers that each see the node as
//! another AS with another identifier.

use std::net::IpAddr;

use rack::announcer::V6;
use rack::bird::Bird;
use rack::net::connect;
use rack::{Need, Rack, eventually, eventually_equal, secs, throughout};

const PREFIX: &str = "203.0.113.1/32";

/// One attribute of the route as BIRD prints it.
fn attribute(bird: &Bird, name: &str) -> Option<String> {
    bird.route(PREFIX).first().and_then(|route| route.attributes.get(name).cloned())
}

#[test]
fn a_bird_on_the_node_has_the_route_and_tells_the_rack() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, tor) = (rack.router("node-1"), rack.router("tor"));
    connect(&node, "eth0", &tor, "eth0");
    node.up("eth0", &["192.168.35.11/24"]);
    tor.up("eth0", &["192.168.35.1/24"]);
    let at_tor = tor.bird(
        "router id 192.168.35.1;
         protocol device {}
         protocol kernel { ipv4 { export all; import none; }; }
         protocol bgp node { local as 64500; neighbor 192.168.35.11 as 64512; ipv4 { import all; export none; }; }",
    );
    // As where a network plugin brings a BIRD to every node: it has the port of BGP, and crier another.
    let on_node = node.bird(
        "router id 192.168.35.11;
         protocol device {}
         protocol bgp crier { local 127.0.0.1 as 64512; neighbor 127.0.0.1 port 1790 as 64513; multihop;
            connect delay time 1; connect retry time 1; ipv4 { import all; export none; }; }
         protocol bgp tor { local 192.168.35.11 as 64512; neighbor 192.168.35.1 as 64500;
            connect delay time 1; connect retry time 1; ipv4 { import none; export all; next hop self; }; }",
    );
    let _web = node.serve("web", &[80]);
    let _agent = node.announcer(
        "[bgp]\nasn = 64513\nport = 1790\n\
         [[bgp.peer]]\nname = \"calico\"\naddress = \"127.0.0.1\"\nasn = 64512\nconnect-retry-time = \"1s\"",
    );
    on_node.wait_established("crier", secs(30));
    at_tor.wait_established("node", secs(30));
    // Not the end of the session, which would lead nobody anywhere.
    eventually_equal(
        "the next hop that the BIRD on the node is told",
        secs(20),
        &Some("192.168.35.11".to_owned()),
        || attribute(&on_node, "BGP.next_hop"),
    );
    eventually_equal("the route that the rack has", secs(20), &Some("64512 64513".to_owned()), || {
        attribute(&at_tor, "BGP.as_path")
    });
    eventually_equal(
        "where the router sends the traffic",
        secs(20),
        &[IpAddr::from([192, 168, 35, 11])].into(),
        || tor.next_hops(PREFIX),
    );
    eventually("and it arrives", secs(20), || {
        tor.get((IpAddr::from([203, 0, 113, 1]), 80)).map_err(|error| error.to_string())
    });
}

#[test]
fn each_router_sees_the_node_by_a_number_and_an_identifier_of_its_own() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let node = rack.router("node-1");
    let routers = [("left", 1, 64601), ("right", 2, 64602)];
    let birds = routers.map(|(name, number, asn)| {
        let router = rack.router(name);
        let link = format!("eth{number}");
        connect(&node, &link, &router, "eth0");
        node.up(&link, &[&format!("10.0.{number}.11/24")]);
        router.up("eth0", &[&format!("10.0.{number}.1/24")]);
        router.bird(&format!(
            "router id 10.0.{number}.1;
             protocol device {{}}
             protocol bgp node {{ local as 64500; neighbor 10.0.{number}.11 as {asn}; ipv4 {{ import all; export none; }}; }}",
        ))
    });
    let peers = routers.map(|(name, number, asn)| {
        format!(
            "[[bgp.peer]]\nname = \"{name}\"\naddress = \"10.0.{number}.1\"\nasn = 64500\nlocal-asn = {asn}\n\
             router-id = \"192.0.2.{number}\"\nconnect-retry-time = \"1s\"\n"
        )
    });
    // Without a number of the host's own.
    let _agent = node.announcer(&format!("[bgp]\n{}", peers.concat()));
    for (bird, (name, number, asn)) in birds.iter().zip(routers) {
        bird.wait_established("node", secs(30));
        let shown = bird.command("show protocols all node");
        let identifier = shown.lines().find_map(|line| line.trim().strip_prefix("Neighbor ID:"));
        assert_eq!(identifier.map(str::trim), Some(format!("192.0.2.{number}").as_str()), "{name}: {shown}");
        eventually_equal(&format!("the path that {name} has"), secs(20), &Some(asn.to_string()), || {
            attribute(bird, "BGP.as_path")
        });
    }
}

#[test]
fn a_router_two_hops_away_is_reached_from_a_loopback_address_on_another_port_and_never_expires() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, tor, spine) = (rack.router("node-1"), rack.router("tor"), rack.router("spine"));
    connect(&node, "eth0", &tor, "swp1");
    connect(&tor, "swp2", &spine, "eth0");
    node.up("eth0", &["10.0.1.11/24"]);
    node.ip("address add 192.0.2.11/32 dev lo");
    tor.up("swp1", &["10.0.1.1/24"]);
    tor.up("swp2", &["10.0.2.1/24"]);
    spine.up("eth0", &["10.0.2.9/24"]);
    node.ip("route add 10.0.2.0/24 via 10.0.1.1");
    tor.ip("route add 192.0.2.11/32 via 10.0.1.11");
    spine.ip("route add 192.0.2.11/32 via 10.0.2.1");
    spine.ip("route add 10.0.1.0/24 via 10.0.2.1");
    let bird = spine.bird(
        "router id 10.0.2.9;
         protocol device {}
         protocol bgp node { local 10.0.2.9 port 1179 as 64500; neighbor 192.0.2.11 as 64513; multihop 3; hold time 0;
            connect delay time 1; connect retry time 1; ipv4 { import all; export none; }; }",
    );
    let peer = |multihop: u8| {
        format!(
            "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"spine\"\naddress = \"10.0.2.9\"\nasn = 64500\nport = 1179\n\
             source-address = \"192.0.2.11\"\nmultihop = {multihop}\nhold-time = \"0s\"\nconnect-retry-time = \"1s\""
        )
    };
    // What is sent with too few hops never gets there, in either direction of dialing.
    let too_near = node.announcer(&peer(1));
    throughout("there is no session with one hop", secs(3), || {
        let session = bird.session("node");
        if session.is_established() { Err(format!("{session:?}")) } else { Ok(()) }
    });
    too_near.stop(secs(10));
    let agent = node.announcer(&peer(2));
    bird.wait_established("node", secs(30));
    eventually_equal("the next hop of the route", secs(20), &Some("192.0.2.11".to_owned()), || {
        attribute(&bird, "BGP.next_hop")
    });
    let shown = bird.command("show protocols all node");
    let timer = shown.lines().find_map(|line| line.trim().strip_prefix("Hold timer:"));
    assert_eq!(timer.map(str::trim), Some("0.000/0"), "{shown}");
    let status = agent.status();
    assert_eq!(status["peers"][0]["hold_time_secs"], serde_json::Value::Null, "{:#}", status["peers"]);
}

/// Input: keepalived puts an address into the router's subnet, and the session begins anew: the kernel dials from the
/// address that came last. Output: the session is from the same address as before.
#[test]
fn a_session_that_begins_anew_is_dialled_from_the_address_that_the_router_knows() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, tor) = (rack.router("node-1"), rack.router("tor"));
    connect(&node, "eth0", &tor, "swp1");
    node.ip("link set eth0 up");
    node.ip("address add fd35::11/64 dev eth0 nodad");
    tor.ip("link set swp1 up");
    tor.ip("address add fd35::1/64 dev swp1 nodad");
    let bird = tor.bird(
        "router id 192.0.2.1;
         protocol device {}
         protocol bgp node { local as 64512; neighbor fd35::11 as 64513; passive on; error wait time 1, 2;
            ipv6 { import all; export none; }; }",
    );
    let agent = node.announcer(
        "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"fd35::1\"\nasn = 64512\nconnect-retry-time = \"1s\"",
    );
    bird.wait_established("node", secs(20));
    node.ip("address add fd35::5/64 dev eth0 nodad");
    let again = |how: &str, times: usize| {
        eventually(&format!("a session after {how}"), secs(20), || {
            let session = bird.session("node");
            let is_there = session.is_established() && session.times_established == times;
            if is_there { Ok(()) } else { Err(format!("{session:?}")) }
        });
    };
    bird.command("restart node");
    again("the router has ended it", 2);
    assert!(agent.verb("bgp reset tor").status.success());
    again("an operator has reset it", 3);
}

/// Input: the node's routed address is on two uplinks, and the way to the router moves from one to the other, as a routing
/// daemon moves it. Output: the next hop of the other family goes along.
#[test]
fn the_next_hop_of_the_other_family_follows_the_way_to_the_router() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, tor) = (rack.router("node-1"), rack.router("tor"));
    for (number, net) in [(0, "fd35:"), (1, "fd77:")] {
        connect(&node, &format!("eth{number}"), &tor, &format!("swp{number}"));
        node.ip(&format!("link set eth{number} up"));
        node.ip(&format!("address add 10.0.0.11/32 dev eth{number}"));
        node.ip(&format!("address add {net}:11/64 dev eth{number} nodad"));
        tor.ip(&format!("link set swp{number} up"));
        tor.ip(&format!("address add {net}:1/64 dev swp{number} nodad"));
    }
    tor.ip("address add 10.0.0.1/32 dev lo");
    let lead = |number: u8| {
        tor.ip(&format!("route replace 10.0.0.11/32 dev swp{number} src 10.0.0.1"));
        node.ip(&format!("route replace 10.0.0.1/32 dev eth{number}"));
    };
    lead(0);
    let bird = tor.bird(
        "router id 10.0.0.1;
         protocol device {}
         protocol direct { ipv6; }
         protocol bgp node { local 10.0.0.1 as 64512; neighbor 10.0.0.11 as 64513; multihop 2; passive on;
            ipv4 { import all; export none; }; ipv6 { import all; export none; }; }",
    );
    let _agent = node.announcer(
        "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\nmultihop = 2\n\
         connect-retry-time = \"1s\"",
    );
    bird.wait_established("node", secs(20));
    let next_hop = |expected: &str| {
        eventually_equal("the next hop of the IPv6 route", secs(30), &Some(expected.to_owned()), || {
            bird.route(&format!("{V6}/128")).first().and_then(|route| route.attributes.get("BGP.next_hop").cloned())
        });
    };
    next_hop("fd35::11");
    lead(1);
    next_hop("fd77::11");
    lead(0);
    next_hop("fd35::11");
}
