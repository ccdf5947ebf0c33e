//! Peers that have no address in the configuration: the router on a link, and the gateway. And IPv4 routes where there is
//! no IPv4 address to lead them to. Against FRR and BIRD, standalone.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use rack::announcer::{V4, V6};
use rack::bird::Bird;
use rack::crier::Crier;
use rack::frr::Frr;
use rack::net::connect;
use rack::{Namespace, Need, Rack, eventually, eventually_equal, frr, now, secs, throughout};

/// Starts the agent of `node` with these peers.
#[track_caller]
fn agent(node: &Namespace, peers: &str) -> Crier {
    node.announcer(&format!("[bgp]\nasn = 64513\n{peers}"))
}

/// An entry for one peer that is dialed again soon.
fn peer(name: &str, address: &str, more: &str) -> String {
    format!(
        "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{address}\"\nconnect-retry-time = \"1s\"\nhold-time = \"9s\"\n{more}\n"
    )
}

/// As operators write it: the interface, and of the neighbor only whether it is of the same AS.
fn frr_unnumbered(asn: u32, id: &str, interfaces: &[&str], remote_as: &str) -> String {
    let lines = |line: &dyn Fn(&str) -> String| interfaces.iter().map(|name| line(name)).collect::<String>();
    let neighbors = lines(&|name| format!(" neighbor {name} interface remote-as {remote_as}\n"));
    let activate = lines(&|name| format!("  neighbor {name} activate\n"));
    format!(
        "router bgp {asn}\n bgp router-id {id}\n{}{neighbors} address-family ipv4 unicast\n{activate} exit-address-family\n \
         address-family ipv6 unicast\n{activate} exit-address-family\n",
        frr::PLAIN
    )
}

fn link_local(namespace: &Namespace, interface: &str) -> Ipv6Addr {
    eventually(&format!("{} has a link-local address on {interface}", namespace.name()), secs(10), || {
        let shown = namespace.ip_json(&format!("-6 address show dev {interface} scope link -tentative"));
        let address = shown[0]["addr_info"].as_array().into_iter().flatten().find_map(|info| info["local"].as_str());
        address.and_then(|text| text.parse().ok()).ok_or_else(|| shown.to_string())
    })
}

#[track_caller]
fn status_of_peer(agent: &Crier, name: &str) -> serde_json::Value {
    let status = agent.status();
    let peer = status["peers"].as_array().into_iter().flatten().find(|peer| peer["name"] == name).cloned();
    peer.unwrap_or_else(|| panic!("the status has no peer {name}: {status:#}"))
}

#[track_caller]
fn wait_status(agent: &Crier, name: &str, what: &str, is_it: impl Fn(&serde_json::Value) -> bool) {
    eventually(&format!("the status of {name}: {what}"), secs(20), || {
        let peer = status_of_peer(agent, name);
        if is_it(&peer) { Ok(()) } else { Err(peer.to_string()) }
    });
}

#[track_caller]
fn wait_established(agent: &Crier, name: &str, address: &str) {
    wait_status(agent, name, &format!("Established at {address}"), |peer| {
        peer["state"] == "Established" && peer["address"] == address
    });
}

/// The router's kernel leads both prefixes to this address on the link.
#[track_caller]
fn kernel_leads_to(router: &Namespace, hop: IpAddr) {
    for prefix in [format!("{V4}/32"), format!("{V6}/128")] {
        let hops = BTreeSet::from([hop]);
        eventually_equal(&format!("the kernel of {} for {prefix}", router.name()), secs(20), &hops, || {
            router.next_hops(&prefix)
        });
    }
}

fn frr_neighbor_is_up(frr: &Frr, interface: &str) {
    frr.wait_established(interface, secs(20));
}

#[test]
fn frr_and_crier_find_each_other_by_their_links_alone_and_a_client_gets_through() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Frr]) else { return };
    let (node, tor, spine) = (rack.router("node-1"), rack.router("tor"), rack.router("spine"));
    connect(&node, "eth0", &tor, "swp1");
    connect(&node, "eth1", &spine, "swp1");
    let client = rack.namespace("client");
    connect(&client, "eth0", &tor, "swp9");
    client.up("eth0", &["198.51.100.9/24", "fd51::9/64"]);
    tor.up("swp9", &["198.51.100.1/24", "fd51::1/64"]);
    client.ip("route add default via 198.51.100.1");
    client.ip("route add default via fd51::1");
    let (to_tor, to_spine) = (link_local(&node, "eth0"), link_local(&node, "eth1"));
    let (at_tor, at_spine) = (link_local(&tor, "swp1"), link_local(&spine, "swp1"));
    node.ip(&format!("route add 198.51.100.0/24 via inet6 {at_tor} dev eth0"));
    node.ip(&format!("route add fd51::/64 via {at_tor} dev eth0"));
    let _web = node.serve("web", &[80]);

    let started = now();
    let agent =
        agent(&node, &[peer("tor", "eth0", "asn = \"external\""), peer("spine", "eth1", "asn = 64514")].concat());
    let frr = tor.frr(&frr_unnumbered(64512, "192.0.2.1", &["swp1"], "external"));
    frr_neighbor_is_up(&frr, "swp1");
    eprintln!("FRR is Established {:?} after crier and it were started", started.elapsed());
    let other = spine.frr(&frr_unnumbered(64514, "192.0.2.2", &["swp1"], "external"));
    let started = now();
    frr_neighbor_is_up(&other, "swp1");
    eprintln!("the second FRR is Established {:?} after it had started beside a running crier", started.elapsed());
    wait_established(&agent, "tor", &format!("{at_tor}%eth0"));
    wait_established(&agent, "spine", &format!("{at_spine}%eth1"));

    kernel_leads_to(&tor, to_tor.into());
    kernel_leads_to(&spine, to_spine.into());
    for address in [V4, V6] {
        let address: IpAddr = address.parse().unwrap();
        eventually(&format!("the client is answered by {address}"), secs(20), || {
            client.get((address, 80)).map_err(|error| error.to_string())
        });
    }

    // The link to one router goes down and comes back; the other session never notices.
    spine.ip("link set swp1 down");
    wait_status(&agent, "spine", "its link has no carrier", |peer| {
        peer["state"] == "Idle" && peer["last_error"] == "the link eth1 has no carrier"
    });
    spine.ip("link set swp1 up");
    let started = now();
    wait_established(&agent, "spine", &format!("{at_spine}%eth1"));
    eprintln!("Established {:?} after the link came back, duplicate address detection included", started.elapsed());
    kernel_leads_to(&spine, to_spine.into());

    // The router comes back with another address.
    spine.ip("link set swp1 down");
    wait_status(&agent, "spine", "its link is down", |peer| peer["state"] == "Idle");
    spine.ip("link set swp1 address 02:00:00:00:77:01");
    spine.ip("link set swp1 up");
    let moved = link_local(&spine, "swp1");
    assert_ne!(moved, at_spine, "it has another address now");
    wait_established(&agent, "spine", &format!("{moved}%eth1"));

    // An interface that goes, and comes back with another number.
    node.ip("link delete eth1");
    wait_status(&agent, "spine", "its interface is gone", |peer| {
        peer["last_error"] == "there is no interface eth1" && peer["address"] == "eth1"
    });
    connect(&node, "eth1", &spine, "swp1");
    let again = link_local(&spine, "swp1");
    wait_established(&agent, "spine", &format!("{again}%eth1"));
    assert_eq!(frr.session("swp1").times_established, 1, "the session with the first router flapped");
}

#[test]
fn an_unnumbered_router_of_the_same_as_has_the_routes_too() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Frr]) else { return };
    let (node, tor) = (rack.router("node-1"), rack.router("tor"));
    connect(&node, "eth0", &tor, "swp1");
    let (to_tor, at_tor) = (link_local(&node, "eth0"), link_local(&tor, "swp1"));
    let agent = agent(&node, &peer("tor", "eth0", "asn = \"internal\""));
    let frr = tor.frr(&frr_unnumbered(64513, "192.0.2.1", &["swp1"], "internal"));
    frr_neighbor_is_up(&frr, "swp1");
    wait_established(&agent, "tor", &format!("{at_tor}%eth0"));
    kernel_leads_to(&tor, to_tor.into());
    let route = frr.json(&format!("show bgp ipv6 unicast {V6}/128 json"));
    let path = &route["paths"][0];
    assert_eq!((&path["locPrf"], &path["aspath"]["length"]), (&100.into(), &0.into()), "{route:#}");
}

#[test]
fn a_bird_that_only_advertises_itself_is_dialed_and_one_that_only_dials_is_answered() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, one, two) = (rack.router("node-1"), rack.router("one"), rack.router("two"));
    connect(&node, "eth0", &one, "swp1");
    connect(&node, "eth1", &two, "swp1");
    let (to_one, to_two) = (link_local(&node, "eth0"), link_local(&node, "eth1"));
    let (at_one, at_two) = (link_local(&one, "swp1"), link_local(&two, "swp1"));
    let channels = "ipv4 { import all; export none; extended next hop on; }; ipv6 { import all; export none; };";
    // It knows nobody by address: whoever calls on the link is the peer.
    let waiting = one.bird(&format!(
        "router id 192.0.2.1; {}\nprotocol radv {{ interface \"swp1\" {{ min ra interval 3; max ra interval 4; }}; }}\n\
         protocol bgp node {{ local as 64512; neighbor range fe80::/10 external; interface \"swp1\"; dynamic name \"node\"; {channels} }}",
        rack::bird::KERNEL
    ));
    // It advertises nothing and dials.
    let dialing = two.bird(&format!(
        "router id 192.0.2.2; {}\n\
         protocol bgp node {{ local as 64514; neighbor {to_two}%swp1 as 64513; connect delay time 1; {channels} }}",
        rack::bird::KERNEL
    ));
    let agent = agent(
        &node,
        &[peer("one", "eth0", "asn = \"external\""), peer("two", "eth1", "asn = \"external\"\npassive = true")]
            .concat(),
    );
    wait_established(&agent, "one", &format!("{at_one}%eth0"));
    wait_established(&agent, "two", &format!("{at_two}%eth1"));
    kernel_leads_to(&one, to_one.into());
    kernel_leads_to(&two, to_two.into());
    // Virtual addresses come onto the links, as of keepalived.
    node.ip("address add 2001:db8:77::9/64 dev eth0 nodad");
    node.ip("address add 2001:db8:78::9/128 dev eth1 nodad");
    throughout("no floating address is a next hop", secs(4), || {
        for (router, hop) in [(&one, to_one), (&two, to_two)] {
            for prefix in [format!("{V4}/32"), format!("{V6}/128")] {
                let hops = router.next_hops(&prefix);
                if hops != BTreeSet::from([IpAddr::V6(hop)]) {
                    return Err(format!("{prefix} at {}: {hops:?}", router.name()));
                }
            }
        }
        Ok(())
    });
    drop((waiting, dialing));
}

#[test]
fn ipv4_routes_reach_frr_and_bird_by_an_ipv6_next_hop_over_an_ipv6_session() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Frr, Need::Bird]) else { return };
    let (node, one, two, three) = (rack.router("node-1"), rack.router("one"), rack.router("two"), rack.router("three"));
    for (number, router) in [(1, &one), (2, &two), (3, &three)] {
        connect(&node, &format!("eth{number}"), router, "swp1");
        node.up(&format!("eth{number}"), &[&format!("fd0{number}::11/64")]);
        router.up("swp1", &[&format!("fd0{number}::1/64")]);
    }
    let frr = one.frr(&format!(
        "router bgp 64512\n bgp router-id 192.0.2.1\n{} neighbor fd01::11 remote-as 64513\n neighbor fd01::11 capability extended-nexthop\n \
         address-family ipv4 unicast\n  neighbor fd01::11 activate\n exit-address-family\n address-family ipv6 unicast\n  \
         neighbor fd01::11 activate\n exit-address-family\n",
        frr::PLAIN
    ));
    let bird = |id: &str, peer: &str, option: &str, router: &Namespace| {
        router.bird(&format!(
            "router id {id}; {}\nprotocol bgp node {{ local as 64512; neighbor {peer} as 64513; \
             ipv4 {{ import all; export none; {option} }}; ipv6 {{ import all; export none; }}; }}",
            rack::bird::KERNEL
        ))
    };
    let with = bird("192.0.2.2", "fd02::11", "extended next hop on;", &two);
    let without = bird("192.0.2.3", "fd03::11", "", &three);
    let entry = |number: u32| peer(&format!("peer-{number}"), &format!("fd0{number}::1"), "asn = \"external\"");
    let agent = agent(&node, &[entry(1), entry(2), entry(3)].concat());
    frr.wait_established("fd01::11", secs(20));
    with.wait_established("node", secs(20));
    without.wait_established("node", secs(20));
    // FRR gives its kernel the link-local one of the two.
    kernel_leads_to(&one, link_local(&node, "eth1").into());
    let by_ipv6 = || {
        let hops = [two.next_hops(&format!("{V4}/32")), two.next_hops(&format!("{V6}/128"))];
        let good = |hops: &BTreeSet<IpAddr>| hops.len() == 1 && hops.iter().all(IpAddr::is_ipv6);
        if hops.iter().all(good) { Ok(()) } else { Err(format!("{hops:?}")) }
    };
    eventually("BIRD's kernel leads both families to the node", secs(20), by_ipv6);
    // A virtual address comes onto the link, as of keepalived.
    node.ip("addr add 10.9.9.9/24 dev eth2");
    node.ip("addr add fd02::5/64 dev eth2");
    throughout("no floating address is a next hop", secs(4), by_ipv6);
    // Without the capability there is no way to send it, and the status says so.
    eventually_equal(
        "BIRD without the capability has the IPv6 route alone",
        secs(20),
        &vec![format!("{V6}/128")],
        || without.routes().into_keys().collect::<Vec<_>>(),
    );
    wait_status(&agent, "peer-3", "one prefix cannot be sent", |peer| {
        peer["prefixes_unsendable"] == 1 && peer["prefixes_sent"] == 1
    });
    wait_status(&agent, "peer-1", "everything is sent", |peer| {
        peer["prefixes_unsendable"] == 0 && peer["prefixes_sent"] == 2
    });
}

#[test]
fn the_session_follows_the_default_route_from_one_gateway_to_the_other() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, one, two) = (rack.router("node-1"), rack.router("one"), rack.router("two"));
    let link = rack.switch("link");
    link.plug(&node, "eth0", &["10.0.0.11/24"]);
    link.plug(&one, "eth0", &["10.0.0.1/24"]);
    link.plug(&two, "eth0", &["10.0.0.2/24"]);
    let bird = |id: &str, router: &Namespace| {
        router.bird(&format!(
            "router id {id}; {}\nprotocol bgp node {{ local as 64512; neighbor 10.0.0.11 as 64513; connect delay time 1; error wait time 1, 2; \
             ipv4 {{ import all; export none; }}; ipv6 {{ import all; export none; }}; }}",
            rack::bird::KERNEL
        ))
    };
    let (first, second) = (bird("10.0.0.1", &one), bird("10.0.0.2", &two));
    let agent = agent(&node, &peer("gateway", "gateway", "asn = \"external\""));
    wait_status(&agent, "gateway", "there is none", |peer| {
        peer["address"] == "gateway" && peer["last_error"] == "there is no default route with a next hop"
    });
    node.ip("route add default via 10.0.0.1 metric 100");
    wait_established(&agent, "gateway", "10.0.0.1");
    kernel_v4_leads_to(&one, "10.0.0.11");
    // A better route wins, and the first router forgets.
    node.ip("route add default via 10.0.0.2 metric 50");
    wait_established(&agent, "gateway", "10.0.0.2");
    kernel_v4_leads_to(&two, "10.0.0.11");
    eventually_equal("the first router has no route any more", secs(10), &0, || first.routes().len());
    // It goes away again.
    node.ip("route del default via 10.0.0.2 metric 50");
    wait_established(&agent, "gateway", "10.0.0.1");
    // The same by an object of next hops: when that goes, the kernel tells of no route.
    node.ip("nexthop add id 11 via 10.0.0.2 dev eth0");
    node.ip("route add default nhid 11 metric 50");
    wait_established(&agent, "gateway", "10.0.0.2");
    node.ip("nexthop del id 11");
    wait_established(&agent, "gateway", "10.0.0.1");
    // Without a default route of its family the session stands: nothing says that the router is another. One of the other family
    // does not either.
    link.plug(&rack.router("three"), "eth0", &["fd10::3/64"]);
    node.ip("address add fd10::11/64 dev eth0 nodad");
    node.ip("-6 route add default via fd10::3");
    node.ip("route del default via 10.0.0.1 metric 100");
    throughout("the session stands without a default route", secs(3), || {
        let peer = status_of_peer(&agent, "gateway");
        if peer["state"] == "Established" { Ok(()) } else { Err(peer.to_string()) }
    });
    let times = first.session("node").times_established;
    node.ip("route add default via 10.0.0.1");
    wait_established(&agent, "gateway", "10.0.0.1");
    assert_eq!(first.session("node").times_established, times, "the same gateway again is no change");
    drop(second);
}

/// Input: two top-of-rack routers, and the link to one of them loses its carrier. Output: its session stays in sight and is
/// a problem; it vanished, and nothing was wrong.
#[test]
fn a_gateway_whose_link_has_no_carrier_stays_in_sight() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, one, two) = (rack.router("node-1"), rack.router("one"), rack.router("two"));
    for (number, router) in [(0, &one), (1, &two)] {
        connect(&node, &format!("eth{number}"), router, "swp1");
        node.up(&format!("eth{number}"), &[&format!("10.0.{number}.11/24")]);
        router.up("swp1", &[&format!("10.0.{number}.1/24")]);
    }
    node.ip("route add default nexthop via 10.0.0.1 dev eth0 nexthop via 10.0.1.1 dev eth1");
    let bird = |number: u8, router: &Namespace| {
        router.bird(&format!(
            "router id 10.0.{number}.1; {}\nprotocol bgp node {{ local as 64512; neighbor 10.0.{number}.11 as 64513; \
             connect delay time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}",
            rack::bird::KERNEL
        ))
    };
    let _birds = (bird(0, &one), bird(1, &two));
    let agent = agent(&node, &peer("tor", "gateway", "asn = \"external\""));
    for (name, router, address, link) in [("tor@10.0.1.1", &two, "10.0.1.1", "eth1"), ("tor", &one, "10.0.0.1", "eth0")]
    {
        wait_established(&agent, name, address);
        router.ip("link set swp1 down");
        let why = format!("the link {link} has no carrier");
        wait_status(&agent, name, &why, |peer| peer["state"] == "Idle" && peer["last_error"] == why.as_str());
        let problems = agent.status()["problems"].to_string();
        assert!(problems.contains(&format!("peer {name} ")) && problems.contains(&why), "{problems}");
        assert!(agent.process().log().contains(&why), "{}", agent.process().log());
        router.ip("link set swp1 up");
        wait_established(&agent, name, address);
    }
    wait_established(&agent, "tor@10.0.1.1", "10.0.1.1");
    // A next hop that the route has no more is no session any more.
    node.ip("route replace default via 10.0.0.1");
    eventually("one session is left", secs(10), || {
        let peers = agent.status()["peers"].as_array().map_or(0, Vec::len);
        if peers == 1 { Ok(()) } else { Err(peers.to_string()) }
    });
    let log = agent.process().log();
    assert!(log.contains("the default route has no such next hop any more"), "{log}");
}

/// Input: the default route leads to a nexthop object, a group of two, as FRR and systemd-networkd make it; one of the two is
/// replaced, and one loses its carrier. Output: each has its session, also where the kernel lists the number of the object alone; the kernel
/// takes the one without a carrier out of the group, and the row says so until somebody puts it back. It vanished, and nothing was wrong.
#[test]
fn the_next_hops_of_an_object_are_gateways_and_one_that_the_kernel_takes_out_stays_in_sight() {
    for compatible in [true, false] {
        let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
        next_hops_of_an_object(&rack, compatible);
    }
}

fn next_hops_of_an_object(rack: &Rack, compatible: bool) {
    let (node, one, two) = (rack.router("node-1"), rack.router("one"), rack.router("two"));
    let cables = [(0, &one), (1, &two)].map(|(number, router)| {
        // The routers do not see the carrier of the node.
        let switch = rack.switch(&format!("switch-{number}"));
        switch.plug(router, "swp1", &[&format!("10.0.{number}.1/24"), &format!("10.0.{number}.2/24")]);
        let cable = switch.plug(&node, &format!("eth{number}"), &[&format!("10.0.{number}.11/24")]);
        (cable, switch)
    });
    let second_cable = &cables[1].0;
    node.sysctl("net/ipv4/nexthop_compat_mode", if compatible { "1" } else { "0" });
    let put_back = || {
        // Refused without a carrier.
        eventually_equal("the carrier of eth1", secs(5), &"UP".to_owned(), || {
            node.ip_json("link show dev eth1")[0]["operstate"].as_str().unwrap_or_default().to_owned()
        });
        node.ip("nexthop replace id 2 via 10.0.1.1 dev eth1");
        node.ip("nexthop replace id 10 group 1/2");
    };
    node.ip("nexthop add id 1 via 10.0.0.1 dev eth0");
    put_back();
    node.ip("route add default nhid 10");
    let bird = |number: u8, router: &Namespace| {
        let session = |last: u8| {
            format!(
                "protocol bgp node{last} {{ local 10.0.{number}.{last} as 64512; neighbor 10.0.{number}.11 as 64513; passive; \
                 error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n"
            )
        };
        router.bird(&format!(
            "router id 10.0.{number}.1; {}\n{}{}",
            rack::bird::KERNEL,
            session(1),
            if number == 0 { session(2) } else { String::new() }
        ))
    };
    let (_first, second) = (bird(0, &one), bird(1, &two));
    let agent = agent(&node, &peer("tor", "gateway", "asn = \"external\""));
    wait_established(&agent, "tor", "10.0.0.1");
    wait_established(&agent, "tor@10.0.1.1", "10.0.1.1");

    node.ip("nexthop replace id 1 via 10.0.0.2 dev eth0");
    wait_established(&agent, "tor", "10.0.0.2");
    wait_established(&agent, "tor@10.0.1.1", "10.0.1.1");

    // The carrier is away for a moment: the session goes on, and nothing is wrong when the next hop is back.
    let times = second.session("node1").times_established;
    second_cable.unplug();
    eventually("the kernel took the next hop out", secs(5), || {
        let objects = node.ip("nexthop show");
        if objects.contains("id 2 ") { Err(objects) } else { Ok(()) }
    });
    second_cable.restore();
    put_back();
    throughout("the session goes on", secs(3), || {
        let peer = status_of_peer(&agent, "tor@10.0.1.1");
        if peer["state"] == "Established" { Ok(()) } else { Err(peer.to_string()) }
    });
    assert_eq!(second.session("node1").times_established, times);

    second_cable.unplug();
    drop(second);
    let gone = "the link eth1 has no carrier";
    wait_status(&agent, "tor@10.0.1.1", gone, |peer| peer["last_error"] == gone);
    second_cable.restore();
    let second = bird(1, &two);
    let lost = "the kernel took the next hop by eth1 out of the default route's nexthop object";
    wait_status(&agent, "tor@10.0.1.1", lost, |peer| {
        peer["last_error"].as_str().is_some_and(|error| error.starts_with(lost))
    });
    let problems = agent.status()["problems"].to_string();
    assert!(problems.contains("peer tor@10.0.1.1 ") && problems.contains(lost), "{problems}");
    wait_established(&agent, "tor", "10.0.0.2");
    put_back();
    wait_established(&agent, "tor@10.0.1.1", "10.0.1.1");
    drop(second);
}

#[track_caller]
fn kernel_v4_leads_to(router: &Namespace, hop: &str) {
    let hops = BTreeSet::from([hop.parse().unwrap()]);
    eventually_equal(&format!("the kernel of {}", router.name()), secs(20), &hops, || {
        router.next_hops(&format!("{V4}/32"))
    });
}

#[test]
fn a_label_of_the_node_moves_its_session_from_one_peer_to_another_and_no_other_session() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let node = rack.router("node-1");
    let link = rack.switch("link");
    link.plug(&node, "eth0", &["10.0.0.11/24"]);
    let routers: Vec<_> = (1..=3)
        .map(|number| {
            let router = rack.router(&format!("router-{number}"));
            link.plug(&router, "eth0", &[&format!("10.0.0.{number}/24")]);
            let bird = router.bird(&format!(
                "router id 10.0.0.{number}; {}\nprotocol bgp node {{ local as 64512; neighbor 10.0.0.11 as 64513; \
                 connect delay time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}",
                rack::bird::KERNEL
            ));
            (router, bird)
        })
        .collect();
    let entry = |number: u32, nodes: &str| {
        peer(&format!("router-{number}"), &format!("10.0.0.{number}"), &format!("asn = 64512\n{nodes}"))
    };
    let label = |rack_label: &str| {
        node.announcers_manifests().nodes(&[("node-1", &format!("rack: {rack_label}"), &[])]);
    };
    let agent = agent(&node, &[entry(1, "nodes = \"rack=a\""), entry(2, "nodes = \"rack=b\""), entry(3, "")].concat());
    label("a");
    routers[0].1.wait_established("node", secs(20));
    routers[2].1.wait_established("node", secs(20));
    let names = || -> Vec<String> {
        let status = agent.status();
        status["peers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|peer| peer["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    eventually_equal("the peers of rack a", secs(10), &vec!["router-1".to_owned(), "router-3".to_owned()], names);
    label("b");
    routers[1].1.wait_established("node", secs(20));
    eventually_equal("the peers of rack b", secs(10), &vec!["router-2".to_owned(), "router-3".to_owned()], names);
    eventually("router-1 was told why", secs(10), || {
        let log = routers[0].1.process().log();
        if log.contains("Peer de-configured") { Ok(()) } else { Err(log.lines().last().unwrap_or_default().to_owned()) }
    });
    assert_eq!(routers[2].1.session("node").times_established, 1, "router-3 is no concern of the label");
}

/// Input: the router of an unnumbered peer dies without a word behind a switch, and its replacement dials. Output: the new
/// one has the routes within seconds; the session with the dead one does not live on for its hold time.
#[test]
fn a_router_that_is_replaced_behind_a_switch_is_taken_within_seconds() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, former, next) = (rack.router("node-1"), rack.router("former"), rack.router("next"));
    let switch = rack.switch("leaf");
    let _of_node = switch.plug(&node, "eth0", &[]);
    let of_former = switch.plug(&former, "swp1", &[]);
    let of_next = switch.plug(&next, "swp1", &[]);
    let to_node = link_local(&node, "eth0");
    let (at_former, at_next) = (link_local(&former, "swp1"), link_local(&next, "swp1"));
    let dialing = |id: u8| {
        format!(
            "router id 192.0.2.{id}; {}\nprotocol bgp node {{ local as 64512; neighbor {to_node}%swp1 as 64513; \
             connect delay time 1; hold time 240; ipv4 {{ import all; export none; extended next hop on; }}; \
             ipv6 {{ import all; export none; }}; }}",
            rack::bird::KERNEL
        )
    };
    let peer =
        "[[bgp.peer]]\nname = \"tor\"\naddress = \"eth0\"\nasn = \"external\"\npassive = true\nhold-time = \"4m\"\n";
    let agent = agent(&node, peer);
    let died = former.bird(&dialing(1));
    wait_established(&agent, "tor", &format!("{at_former}%eth0"));
    of_former.cut();
    let _replacement = next.bird(&dialing(2));
    wait_established(&agent, "tor", &format!("{at_next}%eth0"));
    kernel_leads_to(&next, to_node.into());
    drop((died, of_next));
}

/// D4. Input: two nodes and a router on one bridge, unnumbered; the router comes up after the nodes, and is away for ten seconds. Output: both
/// nodes find the router, and neither takes the other for it; the routes are there within seconds each time.
#[test]
fn two_nodes_and_a_router_on_one_bridge_find_each_other_whoever_comes_last() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let nodes = [rack.router("node-1"), rack.router("node-2")];
    let tor = rack.router("tor");
    let switch = rack.switch("leaf");
    let _of_nodes = nodes.each_ref().map(|node| switch.plug(node, "eth0", &[]));
    let of_tor = switch.plug(&tor, "swp1", &[]);
    let hops: BTreeSet<IpAddr> = nodes.iter().map(|node| link_local(node, "eth0").into()).collect();
    let at_tor = link_local(&tor, "swp1");
    let agents = nodes.each_ref().map(|node| agent(node, &peer("tor", "eth0", "asn = \"external\"")));
    throughout("without a router there is no session", secs(5), || {
        let states: Vec<_> = agents.iter().map(|agent| status_of_peer(agent, "tor")["state"].clone()).collect();
        if states.iter().all(|state| *state != "Established") { Ok(()) } else { Err(format!("{states:?}")) }
    });
    let file = format!(
        "router id 192.0.2.1; {}\nprotocol radv {{ interface \"swp1\" {{ min ra interval 3; max ra interval 4; }}; }}\n\
         protocol bgp node {{ local as 64512; neighbor range fe80::/10 external; interface \"swp1\"; dynamic name \"node\"; \
         ipv4 {{ import all; export none; extended next hop on; }}; ipv6 {{ import all; export none; }}; }}",
        rack::bird::KERNEL
    );
    let all_lead = |bird: &Bird, what: &str| {
        for prefix in [format!("{V4}/32"), format!("{V6}/128")] {
            eventually_equal(&format!("{what}: {prefix}"), secs(15), &Some(hops.clone()), || {
                bird.routes().get(&prefix).cloned()
            });
        }
        for agent in &agents {
            wait_established(agent, "tor", &format!("{at_tor}%eth0"));
        }
    };
    let first = tor.bird(&file);
    all_lead(&first, "the router came last");
    // As in a reboot: its link goes, and comes back after ten seconds.
    drop(first);
    of_tor.unplug();
    throughout("the router is away", secs(10), || {
        let states: Vec<_> = agents.iter().map(|agent| status_of_peer(agent, "tor")).collect();
        let stood = states.iter().any(|it| it["state"] == "Established" && it["address"] != format!("{at_tor}%eth0"));
        if stood { Err(format!("{states:?}")) } else { Ok(()) }
    });
    of_tor.restore();
    let second = tor.bird(&file);
    all_lead(&second, "the router is back");
}

/// Input: a peer on a link that is in a VRF, which nothing names but the link. Output: as outside of a VRF.
#[test]
fn frr_and_crier_find_each_other_by_a_link_in_a_vrf() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Frr, Need::LinkType("vrf")]) else { return };
    let (node, tor) = (rack.router("node-1"), rack.router("tor"));
    node.ip("link add red type vrf table 1001");
    node.ip("link set red up");
    connect(&node, "eth0", &tor, "swp1");
    node.ip("link set eth0 master red");
    let (to_tor, at_tor) = (link_local(&node, "eth0"), link_local(&tor, "swp1"));
    let agent = agent(&node, &peer("tor", "eth0", "asn = \"external\"\nvrf = \"red\""));
    let frr = tor.frr(&frr_unnumbered(64512, "192.0.2.1", &["swp1"], "external"));
    frr_neighbor_is_up(&frr, "swp1");
    wait_established(&agent, "tor", &format!("{at_tor}%eth0"));
    kernel_leads_to(&tor, to_tor.into());
    node.ip("link delete red");
    wait_status(&agent, "tor", "its VRF is gone", |peer| peer["state"] == "Idle");
}
