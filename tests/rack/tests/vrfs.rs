//! `[[vrf]]`: crier makes VRF devices, mends them and takes away what it made; where the kernel has none it says so.

use std::process::Command;
use std::time::Duration;

use rack::announcer::V4;
use rack::bird;
use rack::crier::Crier;
use rack::lan::problems;
use rack::net::connect;
use rack::{Namespace, Need, Rack, eventually, eventually_equal, secs, skip};

const MADE: [Need; 3] = [Need::Namespaces, Need::Crier, Need::LinkType("vrf")];

const ROUTER: &str = "192.0.2.1";

fn vrf(manage: bool) -> String {
    format!(
        "[[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\naddresses = [\"192.0.2.10/24\", \"fd02::10/64\"]\n\
         manage = {manage}\nroutes = [{{ to = \"0.0.0.0/0\", via = \"{ROUTER}\" }}, {{ to = \"::/0\", via = \"fd02::1\" }}]\n\
         [egress]\ncluster-networks = [\"10.244.0.0/16\", \"fd44::/48\"]\n"
    )
}

/// A node with a cable to a router of another network on its eth1, which has nothing of that network yet.
fn node(rack: &Rack) -> (Namespace, Namespace) {
    let (node, router) = (rack.router("node-1"), rack.namespace("red-router"));
    connect(&node, "eth1", &router, "eth0");
    router.up("eth0", &["192.0.2.1/24", "fd02::1/64"]);
    (node, router)
}

/// Everything of the VRF that is not as the configuration says.
fn missing(node: &Namespace) -> Vec<String> {
    let shown = |words: &str| {
        String::from_utf8_lossy(&node.output(Command::new("ip").args(words.split_whitespace())).stdout).into_owned()
    };
    let parts = [
        ("-d link show dev red", "vrf table 1001"),
        ("link show dev red", "<NOARP,MASTER,UP"),
        ("link show dev eth1", "master red"),
        ("address show dev eth1", "192.0.2.10/24"),
        ("address show dev eth1", "fd02::10/64"),
        ("route show table 1001", "default via 192.0.2.1 dev eth1"),
        ("-4 route show table 1001", "unreachable default"),
        ("-6 route show table 1001", "default via fd02::1 dev eth1"),
        ("-4 rule show", "l3mdev"),
        ("-6 rule show", "l3mdev"),
        ("-4 rule show", "to 10.244.0.0/16 lookup main"),
        ("-6 rule show", "to fd44::/48 lookup main"),
    ];
    let lacks = parts.iter().filter(|(words, part)| !shown(words).contains(part));
    lacks.map(|(words, part)| format!("no {part:?} in: {}", shown(words))).collect()
}

/// A second, as doc/vrf.md says, and what it takes this test to see it, which is twelve calls of `ip`. A processor in software
/// (`tests/kernels`) takes longer for both.
fn mended() -> Duration {
    if std::env::var_os("CRIER_RACK_EMULATED").is_some() { secs(8) } else { secs(2) }
}

#[track_caller]
fn is_whole(node: &Namespace, when: &str) {
    is_whole_within(secs(20), node, when);
}

#[track_caller]
fn is_whole_within(limit: Duration, node: &Namespace, when: &str) {
    eventually(&format!("the VRF is whole {when}"), limit, || {
        let missing = missing(node);
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    });
}

#[test]
fn a_vrf_is_made_and_mended_whoever_takes_what_away_and_goes_with_cleanup() {
    let Some(rack) = Rack::for_test(&MADE) else { return };
    let (node, router) = node(&rack);
    node.up("eth1", &["198.51.100.7/32", "fd09::7/64"]);
    let mut agent = node.announcer(&vrf(true));
    is_whole(&node, "at first");
    assert!(node.ip("route get vrf red 203.0.113.77").contains(&format!("via {ROUTER} dev eth1")));
    assert!(node.ip("address show dev eth1").contains("fd09::7/64"), "its own IPv6 address stays");
    for drift in [
        "ip link delete red",
        "ip link set eth1 nomaster",
        "ip address flush dev eth1 scope global",
        "ip route flush table 1001",
        "ip rule delete to 10.244.0.0/16",
        "ip -6 rule delete to fd44::/48",
        "ip rule delete l3mdev",
        "ip link set red down",
    ] {
        let told = || agent.process().log().matches("another program changed a VRF").count();
        let before = told();
        node.sh(drift);
        is_whole_within(mended(), &node, &format!("after {drift}"));
        eventually(&format!("the log tells of {drift}"), secs(5), || {
            let after = told();
            if after > before { Ok(()) } else { Err(format!("{before} lines before, {after} after")) }
        });
    }
    assert!(node.ip("route get vrf red 203.0.113.77").contains(&format!("via {ROUTER} dev eth1")));
    assert_eq!(problems(&agent), "");
    // A crash changes nothing, and the next life knows what it made.
    agent.kill();
    is_whole(&node, "while no agent runs");
    agent = node.announcer(&vrf(true));
    node.ip("link delete red");
    is_whole(&node, "in the second life");
    agent.stop(secs(10));
    is_whole(&node, "after a stop");
    let cleaned = agent.verb(&format!("cleanup --config {}", agent.file().display()));
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert!(!node.ip("link show").contains("red"), "the device is gone");
    let rules = node.ip("-4 rule show") + &node.ip("-6 rule show");
    assert!(!rules.contains("lookup main priority 990") && !rules.contains("10.244"), "{rules}");
    let addresses = node.ip("address show dev eth1");
    assert!(!addresses.contains("192.0.2.10") && !addresses.contains("fd02::10"), "{addresses}");
    drop(router);
}

const PEER: &str = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"gateway\"\nasn = 64512\nvrf = \"red\"\n\
                    connect-retry-time = \"1s\"\nbfd = \"fast\"\n[[bfd]]\nname = \"fast\"\n";

fn bgp_in_vrf(node: &Namespace, configuration: &str) -> Crier {
    node.announcer(&format!("{PEER}{configuration}"))
}

#[test]
fn a_peer_at_the_gateway_of_a_vrf_goes_with_the_vrf_and_comes_back_with_it() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Bird, Need::LinkType("vrf")]) else {
        return;
    };
    let (node, router) = node(&rack);
    let bird = router.bird(&format!(
        "router id {ROUTER};\n{}protocol bfd {{ interface \"*\" {{ interval 100 ms; }}; }}\n\
         protocol bgp node1 {{ local as 64512; neighbor 192.0.2.10 as 64513; bfd on; ipv4 {{ import all; export none; }}; \
         ipv6 {{ import all; export none; }}; }}\n",
        bird::KERNEL
    ));
    // A VRF that somebody else manages: it is there, and then it is not.
    let make = |node: &Namespace| {
        node.ip("link add red type vrf table 1001");
        node.ip("link set red up");
        node.ip("link set eth1 master red");
        node.up("eth1", &["192.0.2.10/24", "fd02::10/64"]);
        node.ip(&format!("route add default via {ROUTER} table 1001"));
    };
    make(&node);
    let agent = bgp_in_vrf(&node, "[[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\n");
    bird.wait_established("node1", secs(60));
    eventually_equal("the routes of the Service", secs(20), &2, || bird.routes().len());
    // The IPv6 address is tentative for a second or two.
    eventually_equal("there is no problem", secs(20), &String::new(), || problems(&agent));
    node.ip("link delete red");
    eventually("the agent says that the VRF is gone", secs(20), || {
        let told = problems(&agent);
        if told.contains("there is no interface red") { Ok(()) } else { Err(told) }
    });
    eventually_equal("the routes go", secs(20), &0, || bird.routes().len());
    node.ip("address flush dev eth1 scope global");
    make(&node);
    eventually_equal("the routes are back", secs(60), &2, || bird.routes().len());
    eventually_equal("no problem is left", secs(20), &String::new(), || problems(&agent));
}

#[test]
fn without_manage_the_missing_commands_are_named_and_they_are_enough() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier]) else { return };
    let (node, _router) = node(&rack);
    let agent = node.announcer(&vrf(false));
    let commands = eventually("status names the commands", secs(20), || {
        let told = problems(&agent);
        let commands = told.split_once("ip link add red type vrf table 1001; ");
        commands.map(|(_, rest)| rest.split("; or set manage").next().unwrap_or_default().to_owned()).ok_or(told)
    });
    assert!(commands.contains("ip link set eth1 master red"), "{commands}");
    let doctor = agent.verb("doctor");
    assert_eq!(doctor.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("ip link add red type vrf"), "doctor names them too");
    assert!(!node.ip("link show").contains("red"), "nothing is made");
    if let Err(why) = Need::LinkType("vrf").look() {
        return skip("the commands make a whole VRF", &why);
    }
    node.sh("ip link add red type vrf table 1001");
    commands.split("; ").for_each(|command| drop(node.sh(command)));
    eventually_equal("nothing is missing", secs(20), &String::new(), || problems(&agent));
}

#[test]
fn a_kernel_without_vrfs_is_named_and_everything_else_goes_on() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Bird]) else { return };
    if Need::LinkType("vrf").look().is_ok() {
        return skip("a_kernel_without_vrfs_is_named_and_everything_else_goes_on", "this kernel has VRFs");
    }
    let (node, router) = node(&rack);
    node.up("eth1", &["192.0.2.10/24"]);
    let peers = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.0.2.1\"\nasn = 64512\n\
                 [[bgp.peer]]\nname = \"in-red\"\naddress = \"192.0.2.1\"\nasn = 64512\nvrf = \"red\"\n";
    let bird = router.bird(&format!(
        "router id {ROUTER};\n{}protocol bgp node1 {{ local as 64512; neighbor 192.0.2.10 as 64513; ipv4 {{ import all; export none; }}; }}\n",
        bird::KERNEL
    ));
    let agent = node.announcer(&format!("{peers}{}", vrf(true)));
    bird.wait_established("node1", secs(60));
    let prefix = format!("{V4}/32");
    eventually("the Service is announced", secs(20), || {
        bird.routes().get(&prefix).map(drop).ok_or_else(|| format!("{:?}", bird.routes()))
    });
    eventually("status names the kernel", secs(20), || {
        let told = problems(&agent);
        let expected = "the VRF red cannot be made: the kernel has no VRF support; modprobe vrf";
        if told.contains(expected) { Ok(()) } else { Err(told) }
    });
    assert!(problems(&agent).contains("in-red"), "the peer in the VRF is named: {}", problems(&agent));
    assert!(!node.ip("link show dev eth1").contains("master"));
}

/// Input: two VRFs that crier makes, with one network, one address of the node and one router address in both. Output: a
/// session and a route in each, and what somebody does to the one VRF, the other one does not notice.
#[test]
fn two_vrfs_of_one_network_have_a_session_each_and_come_and_go_for_themselves() {
    let needs = [Need::Namespaces, Need::Crier, Need::Bird, Need::LinkType("vrf")];
    let Some(rack) = Rack::for_test(&needs) else { return };
    let node = rack.router("node-1");
    let colours = ["red", "blue"];
    let routers = colours.map(|colour| rack.namespace(&format!("{colour}-router")));
    let mut configuration = String::from("[bgp]\nasn = 64513\n");
    for (number, (colour, router)) in colours.iter().zip(&routers).enumerate() {
        let (number, table) = (number + 1, number + 1001);
        connect(&node, &format!("eth{number}"), router, "eth0");
        router.up("eth0", &["192.0.2.1/24"]);
        configuration += &format!(
            "[[vrf]]\nname = \"{colour}\"\ntable = {table}\ninterfaces = [\"eth{number}\"]\naddresses = [\"192.0.2.10/24\"]\n\
             manage = true\nroutes = [{{ to = \"0.0.0.0/0\", via = \"{ROUTER}\" }}]\n\
             [[bgp.peer]]\nname = \"{colour}\"\naddress = \"gateway\"\nasn = 64512\nvrf = \"{colour}\"\nconnect-retry-time = \"1s\"\n"
        );
    }
    let birds = routers.each_ref().map(|router| {
        router.bird(&format!(
            "router id {ROUTER};\n{}protocol bgp node1 {{ local as 64512; neighbor 192.0.2.10 as 64513; \
             ipv4 {{ import all; export none; }}; }}\n",
            bird::KERNEL
        ))
    });
    let agent = node.announcer(&configuration);
    let prefix = format!("{V4}/32");
    let has_route = |bird: &bird::Bird, when: &str| {
        eventually(&format!("the route of the Service {when}"), secs(60), || {
            bird.routes().get(&prefix).map(drop).ok_or_else(|| format!("{:?}", bird.routes()))
        });
    };
    birds.iter().for_each(|bird| has_route(bird, "at first"));
    let before = birds[1].session("node1");
    node.ip("link delete red");
    eventually("the device is back", secs(20), || {
        let shown = node.ip("link show");
        if shown.contains("red:") { Ok(()) } else { Err(shown) }
    });
    has_route(&birds[0], "once red is back");
    assert_eq!(birds[1].session("node1"), before, "the session in blue does not notice");
    assert_eq!(problems(&agent), "");
}
