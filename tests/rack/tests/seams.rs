//! Where a BGP session meets the host: addresses that come and go, a frozen agent, a port that is taken, a router that loses its
//! memory. With real kernels and BIRD; the cases are section D of the project's field cases.

use std::io::Read;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rack::announcer::{V4, V6};
use rack::bird::Bird;
use rack::crier::Crier;
use rack::net::connect;
use rack::{Namespace, Need, Rack, eventually, eventually_equal, millis, secs, throughout};

const ROUTER: &str = "192.168.35.1";

/// A node and a router on one link, with an IPv4 session between them.
struct Pair {
    node: Namespace,
    router: Namespace,
    bird: Bird,
}

impl Pair {
    fn new(rack: &Rack, families: &str, more: &str) -> Pair {
        let (node, router) = (rack.router("node-1"), rack.router("tor"));
        connect(&node, "eth0", &router, "eth0");
        node.up("eth0", &["192.168.35.11/24", "2001:db8::11/64"]);
        router.up("eth0", &["192.168.35.1/24", "2001:db8::1/64"]);
        let bird = router.bird(&format!(
            "router id {ROUTER};
             protocol device {{ scan time 1; }}
             protocol kernel kernel4 {{ ipv4 {{ export all; import none; }}; }}
             protocol kernel kernel6 {{ ipv6 {{ export all; import none; }}; }}
             protocol bgp node {{ local {ROUTER} as 64500; neighbor range 192.168.35.0/24 as 64513; {more}
                connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 1; {families} }}"
        ));
        Pair { node, router, bird }
    }

    fn announcer(&self, more: &str) -> Crier {
        self.node.announcer(&format!(
            "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"{ROUTER}\"\nasn = 64500\n\
             connect-retry-time = \"1s\"\n{more}"
        ))
    }

    /// Of an agent that announces two aggregates, each for the one Service of the announcer.
    fn of_aggregates(&self, more: &str) -> String {
        let folder = self.node.announcers_manifests();
        // Its manifests are those of the next one.
        self.announcer("").stop(secs(10));
        format!(
            "[manifests]\nfolder = \"{}\"\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/24\", \"2001:db8:1::/64\"]\n\
             bind = \"lo\"\n[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"{ROUTER}\"\nasn = 64500\n\
             connect-retry-time = \"1s\"\n{more}[[bgp.advertisement]]\naggregation-length = 24\naggregation-length-v6 = 64\n",
            folder.path().display()
        )
    }

    fn blackholes(&self) -> String {
        self.node.ip("route show table all type blackhole")
    }

    fn has(&self, address: &str) -> bool {
        let length = if address.contains(':') { 128 } else { 32 };
        !self.bird.route(&format!("{address}/{length}")).is_empty()
    }
}

const BOTH: &str = "ipv4 { import all; export none; }; ipv6 { import all; export none; };";

fn peer(agent: &Crier) -> serde_json::Value {
    agent.json("bgp peers")["peers"][0].clone()
}

fn times_established(agent: &Crier) -> u64 {
    peer(agent)["session"]["times_established"].as_u64().unwrap_or_default()
}

#[track_caller]
fn established(agent: &Crier) {
    eventually("the session is established", secs(30), || match times_established(agent) {
        0 => Err(format!("{:#}", peer(agent))),
        _ => Ok(()),
    });
}

/// D1, with a router that offers only IPv4 and with one that has both.
#[test]
fn an_ipv6_address_that_leaves_the_link_costs_the_ipv4_session_nothing() {
    for families in ["ipv4 { import all; export none; };", BOTH] {
        let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
        let pair = Pair::new(&rack, families, "");
        let agent = pair.announcer("");
        established(&agent);
        eventually("the route is there", secs(20), || if pair.has(V4) { Ok(()) } else { Err("no route") });
        let carries_v6 = families == BOTH;
        for flap in 0..4 {
            if carries_v6 {
                eventually("IPv6 too", secs(20), || if pair.has(V6) { Ok(()) } else { Err("no IPv6 route") });
            }
            pair.node.ip("-6 address delete 2001:db8::11/64 dev eth0");
            throughout("IPv4 stays", secs(1), || if pair.has(V4) { Ok(()) } else { Err(format!("gone, flap {flap}")) });
            assert!(!pair.has(V6), "the routes that have no next hop any more are withdrawn");
            pair.node.ip("-6 address add 2001:db8::11/64 dev eth0 nodad");
        }
        assert_eq!(times_established(&agent), 1, "{:#}", peer(&agent));
        assert_eq!(peer(&agent)["session"]["last_error"], serde_json::Value::Null);
    }
}

/// D2.
#[test]
fn a_session_whose_local_address_is_deleted_ends_and_returns_from_another_at_once() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    pair.node.ip("address add 192.168.35.12/24 dev eth0");
    let agent = pair.announcer("");
    established(&agent);
    let local = || peer(&agent)["session"]["negotiated"]["local"].as_str().unwrap_or_default().to_owned();
    eventually("from the first address", secs(10), || {
        if local().starts_with("192.168.35.11:") { Ok(()) } else { Err(local()) }
    });
    pair.node.sysctl("net.ipv4.conf.eth0.promote_secondaries", "1");
    pair.node.ip("address delete 192.168.35.11/24 dev eth0");
    // Where the kernel does not promote it, it went with the first.
    pair.node.ip("address replace 192.168.35.12/24 dev eth0");
    eventually("from the second address", secs(3), || {
        if local().starts_with("192.168.35.12:") { Ok(()) } else { Err(format!("{:#}", peer(&agent))) }
    });
}

/// Calls the agent from the router's address, with an OPEN of a wrong AS number each time, which is answered with a NOTIFICATION
/// or refused.
fn call(router: &Namespace, count: usize) {
    router.run(move || {
        let mut open = vec![0xff; 16];
        open.extend([0, 29, 1, 4, 0xfb, 0xf5, 0, 90, 192, 168, 35, 1, 0]);
        for _ in 0..count {
            let Ok(mut stream) = TcpStream::connect("192.168.35.11:179") else { continue };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = std::io::Write::write_all(&mut stream, &open);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
}

/// `CRIER_REFUSALS=100000` for the long run.
#[track_caller]
fn stays_flat(router: &Namespace, agent: &Crier) {
    let count = std::env::var("CRIER_REFUSALS").map_or(Ok(4_000), |text| text.parse());
    let count = count.expect("CRIER_REFUSALS is a number of connections");
    call(router, 1_000);
    let before = agent.process().resident_memory();
    call(router, count);
    let grown = agent.process().resident_memory().saturating_sub(before);
    println!("{grown} octets more after {count} refused connections");
    assert!(grown < 4 * 1024 * 1024, "{grown} octets more after {count} connections; it was 4.8 kB for each");
}

/// D3, where there is no session: a router with a wrong AS number that calls all day.
#[test]
fn memory_stays_flat_over_thousands_of_opens_with_a_wrong_as_number() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let Pair { node, router, bird } = Pair::new(&rack, BOTH, "");
    bird.process().kill();
    let agent = node.announcer(&format!(
        "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"{ROUTER}\"\nasn = 64500\npassive = true\n"
    ));
    eventually("the agent listens", secs(20), || {
        router.run(|| TcpStream::connect("192.168.35.11:179").map(drop).map_err(|error| error.to_string()))
    });
    stays_flat(&router, &agent);
    eventually("the reason is shown", secs(10), || {
        let shown = peer(&agent).to_string();
        if shown.contains("Bad Peer AS") { Ok(()) } else { Err(shown) }
    });
}

/// D3: what is kept for each connection that was refused with a NOTIFICATION.
#[test]
fn memory_stays_flat_over_thousands_of_refused_connections() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    let agent = pair.announcer("");
    established(&agent);
    stays_flat(&pair.router, &agent);
    assert_eq!(times_established(&agent), 1, "{:#}", peer(&agent));
}

/// D5: a Service's address on the very link that the session runs over.
#[test]
fn an_address_that_crier_binds_on_the_link_is_neither_the_source_of_a_connection_nor_a_next_hop() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    let agent = pair.announcer("");
    established(&agent);
    // Its manifests are those of the next one.
    agent.stop(secs(10));
    let folder = pair.node.announcers_manifests();
    let agent = pair.node.crier(
        "node-1",
        &format!(
            "[manifests]\nfolder = \"{}\"\n[[pool]]\nname = \"near\"\naddresses = [\"192.168.35.5\", \"2001:db8::5\"]\n\
             bind = \"eth0\"\n[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"{ROUTER}\"\nasn = 64500\n\
             connect-retry-time = \"1s\"\n[[bgp.advertisement]]\n",
            folder.path().display()
        ),
    );
    agent.wait_ready(secs(20));
    eventually("both are bound", secs(10), || {
        let shown = pair.node.ip("address show dev eth0");
        if ["192.168.35.5/32", "2001:db8::5/128"].iter().all(|one| shown.contains(one)) { Ok(()) } else { Err(shown) }
    });
    let source = |to: &str| {
        let route = pair.node.ip_json(&format!("route get {to}"));
        route[0]["prefsrc"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!((source("192.168.35.1").as_str(), source("2001:db8::1").as_str()), ("192.168.35.11", "2001:db8::11"));
    established(&agent);
    eventually_equal("the next hop", secs(20), &["2001:db8::11".parse::<IpAddr>().unwrap()].into(), || {
        let hops = pair.bird.route("2001:db8::5/128").into_iter().flat_map(|route| route.next_hops);
        hops.filter(|hop| !hop.to_string().starts_with("fe80")).collect::<std::collections::BTreeSet<_>>()
    });
}

/// D6, with a hold time of 0: the router is gone without a word, and another one has its address.
#[test]
fn a_router_that_lost_its_memory_is_talked_to_again_although_no_hold_timer_runs() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "hold time 0;");
    let agent = pair.announcer("hold-time = \"0s\"");
    established(&agent);
    // Power is lost: nothing of the router's kernel is left, and nothing was said.
    pair.router.ip("link set eth0 down");
    pair.bird.process().kill();
    throughout("time passes", millis(300), || Ok::<(), String>(()));
    pair.router.ip("link set eth0 up");
    pair.router.ip("-6 address add 2001:db8::1/64 dev eth0 nodad");
    let again = pair.router.bird_named(
        "again",
        &format!(
            "router id {ROUTER};
             protocol device {{ scan time 1; }}
             protocol bgp node {{ local {ROUTER} as 64500; neighbor 192.168.35.11 as 64513; hold time 0;
                connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 1; {BOTH} }}"
        ),
    );
    again.wait_established("node", secs(30));
    eventually("and has the route", secs(20), || {
        if again.route(&format!("{V4}/32")).is_empty() { Err("no route") } else { Ok(()) }
    });
}

/// D7: another program's addresses on the link.
#[test]
fn floating_deprecated_and_second_addresses_never_become_the_next_hop_and_move_without_an_event_of_the_session() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    pair.node.ip("-6 address add 2001:db8::2/64 dev eth0 nodad preferred_lft 0");
    pair.node.ip("-6 address add 2001:db8::3/128 dev eth0 nodad");
    let agent = pair.announcer("");
    established(&agent);
    let hop = || {
        let hops = pair.bird.route(&format!("{V6}/128")).into_iter().flat_map(|route| route.next_hops);
        hops.map(|hop| hop.to_string()).filter(|hop| !hop.starts_with("fe80")).collect::<Vec<_>>()
    };
    eventually_equal("the next hop", secs(20), &vec!["2001:db8::11".to_owned()], hop);
    let updates = || peer(&agent)["session"]["messages_sent"]["update"].as_u64();
    let before = updates();
    for _ in 0..3 {
        pair.node.ip("-6 address delete 2001:db8::3/128 dev eth0");
        pair.node.ip("-6 address add 2001:db8::3/128 dev eth0 nodad");
    }
    throughout("it stays", secs(1), || if hop() == ["2001:db8::11"] { Ok(()) } else { Err(format!("{:?}", hop())) });
    assert_eq!((updates(), times_established(&agent)), (before, 1), "nothing was said of it");
}

/// D9: the router sends what it has an aggregate for, and the node's default route leads back to the router.
#[test]
fn a_packet_to_an_unused_address_of_an_aggregate_crosses_the_link_once_and_nothing_is_left_behind() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    for host in [&pair.node, &pair.router] {
        host.forward();
    }
    pair.node.ip("route add default via 192.168.35.1");
    let configuration = pair.of_aggregates("");
    let agent = pair.node.crier("node-1", &configuration);
    agent.wait_ready(secs(20));
    established(&agent);
    eventually("the aggregate", secs(20), || {
        if pair.router.ip("route show 203.0.113.0/24").contains("192.168.35.11") { Ok(()) } else { Err("no route") }
    });
    let blackholes = || pair.blackholes();
    eventually("a blackhole for it", secs(10), || {
        if blackholes().contains("203.0.113.0/24") { Ok(()) } else { Err(blackholes()) }
    });
    let received = || -> u64 {
        let text = pair.node.sh("cat /sys/class/net/eth0/statistics/rx_packets");
        text.trim().parse().expect("a number")
    };
    let before = received();
    pair.router.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.send_to(b"anybody there?", "203.0.113.77:9").expect("it is sent");
    });
    throughout("it goes nowhere else", secs(1), || Ok::<(), String>(()));
    let crossed = received() - before;
    assert!(crossed <= 6, "{crossed} packets came in for one that was sent; BGP's own are among them");
    // What this host itself sends goes where it went before.
    let out = pair.node.ip("route get 203.0.113.77");
    assert!(out.contains("via 192.168.35.1"), "{out}");

    agent.kill();
    assert!(blackholes().contains("203.0.113.0/24"), "left over");
    let agent = pair.announcer("");
    eventually("the next start takes it away", secs(10), || {
        if blackholes().contains("203.0.113.0/24") { Err(blackholes()) } else { Ok(()) }
    });
    agent.stop(secs(10));
    assert_eq!(blackholes(), "");
    assert!(!pair.node.ip("rule show").contains("6767"), "{}", pair.node.ip("rule show"));
}

/// D9 for host routes. Input: one packet to a port that no Service has, of an address that is announced as a host
/// route, one to its port, which something like kube-proxy translates, and one to an address that another node announces.
/// Output: the first crosses the link once, the second is answered, the third goes on.
#[test]
fn a_packet_to_an_announced_address_at_a_port_that_nothing_takes_crosses_the_link_once() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird, Need::Nft]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    for host in [&pair.node, &pair.router] {
        host.forward();
    }
    pair.node.ip("route add default via 192.168.35.1");
    pair.node.ip("-6 route add default via 2001:db8::1");
    let rules = format!(
        "table inet kube {{\n chain services {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {V4} udp dport 80 dnat ip to 192.168.35.11:8080\n }}\n}}\n"
    );
    pair.node.sh(&format!("nft -f {}", rack.write("kube.nft", &rules).display()));
    let configuration = pair.of_aggregates("").replace("bind = \"lo\"\n", "");
    let configuration = configuration.replace("aggregation-length = 24\naggregation-length-v6 = 64\n", "");
    let pools = [("203.0.113.0/24", format!("{V4}-203.0.113.9")), ("2001:db8:1::/64", format!("{V6}-2001:db8:1::9"))];
    let configuration = pools.iter().fold(configuration, |text, (whole, part)| text.replace(whole, part));
    let agent = pair.node.crier("node-1", &configuration);
    agent.wait_ready(secs(20));
    established(&agent);
    eventually("the routes", secs(20), || if pair.has(V4) && pair.has(V6) { Ok(()) } else { Err("no route") });
    eventually("blackholes for them", secs(10), || {
        let blackholes = pair.blackholes() + &pair.node.ip("-6 route show table all type blackhole");
        if blackholes.contains(V4) && blackholes.contains(V6) { Ok(()) } else { Err(blackholes) }
    });
    let received = || -> u64 {
        let text = pair.node.sh("cat /sys/class/net/eth0/statistics/rx_packets");
        text.trim().parse().expect("a number")
    };
    for to in [format!("{V4}:81"), format!("[{V6}]:81")] {
        let before = received();
        pair.router.run(|| {
            let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.send_to(b"anybody there?", &*to).expect("it is sent");
        });
        throughout("it goes nowhere else", secs(1), || Ok::<(), String>(()));
        let crossed = received() - before;
        assert!(crossed <= 6, "{crossed} packets came in for one to {to}; BGP's own are among them");
    }

    // What the Service has is translated before a route is looked for.
    let server = pair.node.run(|| UdpSocket::bind("192.168.35.11:8080").expect("a socket"));
    let client = pair.router.run(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(secs(5))).expect("a timeout");
    }
    client.send_to(b"hello", (V4, 80)).expect("it is sent");
    let mut text = [0; 16];
    let (length, from) = server.recv_from(&mut text).expect("it was translated");
    server.send_to(&text[..length], from).expect("it is sent");
    let (length, from) = client.recv_from(&mut text).expect("an answer");
    assert_eq!((&text[..length], from.to_string()), (&b"hello"[..], format!("{V4}:80")));

    // Of another node, of this host itself, and by a route of its own.
    let way = |to: &str| pair.node.ip(&format!("route get {to}"));
    assert!(way("203.0.113.2 from 192.168.35.1 iif eth0").contains("via 192.168.35.1"), "another node's address");
    assert!(way(V4).contains("via 192.168.35.1"), "{}", way(V4));
    pair.node.ip("link add antrea type bridge");
    pair.node.ip("link set antrea up");
    pair.node.ip(&format!("route add {V4} dev antrea"));
    let there = format!("{V4} from 192.168.35.1 iif eth0");
    assert!(way(&there).contains("dev antrea"), "{}", way(&there));

    agent.kill();
    assert!(pair.blackholes().contains(V4), "left over");
    let file = agent.file();
    let cleaned = agent.verb(&format!("cleanup --config {}", file.display()));
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    let left = pair.node.ip("rule show") + &pair.node.ip("-6 rule show") + &pair.blackholes();
    assert!(!left.contains("proto 67") && !left.contains(V4), "{left}");
}

/// A pod's gateway for egress by policy routing, as a CNI or an operator may have it, and a program that takes rules away.
#[test]
fn the_rules_of_other_programs_stay_in_force_beside_the_blackholes_and_a_rule_that_is_taken_away_comes_back() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    pair.node.forward();
    for command in [
        "link add egress type bridge",
        "link set egress up",
        "address add 192.168.60.1/24 dev egress",
        "link add pod0 type bridge",
        "link set pod0 up",
        "address add 10.9.0.1/24 dev pod0",
        "route add default via 192.168.35.1",
        "route add 172.16.0.0/12 via 192.168.35.1",
        "route add default via 192.168.60.2 table 100",
        "rule add from 10.9.0.0/24 lookup 100",
    ] {
        pair.node.ip(command);
    }
    let way = |to: &str| pair.node.ip(&format!("route get {to} from 10.9.0.5 iif pod0"));
    let is_egress = |to: &str| if way(to).contains("dev egress") { Ok(()) } else { Err(way(to)) };
    is_egress("172.16.5.5").expect("by the rule of the other program");
    let agent = pair.node.crier("node-1", &pair.of_aggregates(""));
    agent.wait_ready(secs(20));
    let rules = || pair.node.ip("rule show");
    let has_all = || {
        let rules = rules();
        let last: Vec<&str> = rules.lines().filter(|rule| rule.starts_with("32765:")).collect();
        match last[..] {
            [.., main, blackholes]
                if main.contains("suppress_prefixlength 0")
                    && blackholes.contains("not from all iif lo lookup 6767")
                    && rules.matches("proto 67").count() == 2 =>
            {
                Ok(())
            }
            _ => Err(rules),
        }
    };
    eventually("the rules for the blackholes", secs(20), has_all);
    for to in ["172.16.5.5", "192.168.35.77", "198.51.100.9"] {
        is_egress(to).expect("crier's rules are for what it announces alone");
    }
    pair.node.ip("rule del pref 32765 lookup 6767");
    eventually("what another program took away", secs(10), has_all);
    // A program that sets its own rules anew puts them behind crier's.
    pair.node.ip("rule del from 10.9.0.0/24 lookup 100");
    pair.node.ip("rule add from 10.9.0.0/24 lookup 100 pref 32765");
    eventually("crier's come last again", secs(10), has_all);
    is_egress("172.16.5.5").expect("by the rule of the other program");
    agent.stop(secs(10));
    assert!(pair.blackholes().is_empty() && !rules().contains("proto 67"), "{}", rules());
    is_egress("172.16.5.5").expect("as before");
}

/// Prepared beside a load balancer that still serves the pool.
#[test]
fn a_peer_that_is_shut_down_has_no_blackholes_and_is_no_problem() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    let agent = pair.node.crier("node-1", &pair.of_aggregates("shutdown = true\n"));
    agent.wait_ready(secs(20));
    throughout("nothing is dropped", secs(1), || {
        if pair.blackholes().is_empty() { Ok(()) } else { Err(pair.blackholes()) }
    });
    assert_eq!(agent.status()["problems"], serde_json::json!([]));
}

/// D10.
#[test]
fn a_port_that_another_speaker_has_is_a_problem_and_everything_else_works() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, BOTH, "");
    let taken = pair.node.run(|| TcpListener::bind("0.0.0.0:179").expect("it is free yet"));
    let agent = pair.announcer("");
    established(&agent);
    eventually("the route is there", secs(20), || if pair.has(V4) { Ok(()) } else { Err("no route") });
    let problems = || agent.status()["problems"].to_string();
    assert!(problems().contains("0.0.0.0:179") && problems().contains("listen = []"), "{}", problems());
    drop(taken);
    eventually("it is listened on", secs(15), || if problems().contains(":179") { Err(problems()) } else { Ok(()) });
    pair.router.run(|| TcpStream::connect("192.168.35.11:179").expect("crier accepts now"));
}

/// D10: the kernel knows no IPv6. A module parameter of the running kernel cannot be changed, so this is what is left of it.
#[test]
fn a_host_without_ipv6_addresses_listens_on_what_it_has() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let pair = Pair::new(&rack, "ipv4 { import all; export none; };", "");
    pair.node.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    let agent = pair.announcer("");
    established(&agent);
    assert!(!agent.status()["problems"].to_string().contains("cannot accept"), "{:#}", agent.status()["problems"]);
}

/// D11: the agent was stopped for longer than the hold time, and what the router said meanwhile is in the socket.
#[test]
fn a_frozen_agent_reads_what_waits_before_it_judges_the_hold_timer() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    // The router may give up at that time too, and then says so: what it said is the reason then.
    let pair = Pair::new(&rack, BOTH, "hold time 240; keepalive time 1;");
    let agent = pair.announcer("hold-time = \"3s\"");
    established(&agent);
    for _ in 0..3 {
        agent.process().freeze();
        throughout("time passes", millis(3_300), || Ok::<(), String>(()));
        agent.process().thaw();
        throughout("time passes", millis(1_500), || Ok::<(), String>(()));
    }
    let error = peer(&agent)["session"]["last_error"].to_string();
    assert!(!error.contains("nothing came for the hold time"), "{error}");
}
