//! BFD against BIRD and FRR's bfdd: sessions come up over one hop and over several, over both families, in a VRF and between
//! link-local addresses; a dead path ends the BGP session at once; and what is no failure of the path ends none.

use rack::announcer::V4;
use rack::bird::Bird;
use rack::crier::Crier;
use rack::frr::Frr;
use rack::net::{Port, connect};
use rack::pairing::{Family, NODE, ROUTER};
use rack::{Namespace, Need, Rack, eventually, eventually_equal, frr, now, rest, secs, throughout};
use serde_json::Value;

/// A node and a router on one switch, whose cables can be cut without any carrier being lost.
struct Link {
    rack: Rack,
    node: Namespace,
    router: Namespace,
    cable: Port,
}

impl Link {
    fn for_test(needs: &[Need]) -> Option<Link> {
        let rack = Rack::for_test(&[&[Need::Crier], needs].concat())?;
        let (node, router) = (rack.namespace("node-1"), rack.namespace("tor"));
        let switch = rack.switch("switch");
        switch.plug(&node, "eth0", &[&format!("{}/24", NODE.0), &format!("{}/64", NODE.1)]);
        let cable = switch.plug(&router, "eth0", &[&format!("{}/24", ROUTER.0), &format!("{}/64", ROUTER.1)]);
        Some(Link { rack, node, router, cable })
    }

    fn bird(&self, family: Family, bfd: &str) -> Bird {
        self.router.bird(&bird(family, bfd, ""))
    }

    fn agent(&self, family: Family, bfd: &str, peer: &str) -> Crier {
        self.node.announcer(&configuration(&router(family), bfd, peer))
    }
}

fn router(family: Family) -> String {
    match family {
        Family::V4 => ROUTER.0.to_string(),
        Family::V6 => ROUTER.1.to_string(),
    }
}

fn node(family: Family) -> String {
    match family {
        Family::V4 => NODE.0.to_string(),
        Family::V6 => NODE.1.to_string(),
    }
}

/// Both routers see their neighbor's hold timer run for 90 s: whatever ends a session sooner is BFD.
fn configuration(address: &str, bfd: &str, peer: &str) -> String {
    format!(
        "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"{address}\"\nasn = \"external\"\nconnect-retry-time = \"1s\"\n\
         bfd = \"fast\"\n{peer}\n[[bfd]]\nname = \"fast\"\n{bfd}"
    )
}

fn times(millis: u64, multiplier: u8) -> String {
    format!("receive-interval = \"{millis}ms\"\ntransmit-interval = \"{millis}ms\"\nmultiplier = {multiplier}\n")
}

/// `bfd` is what stands in the interface or multihop block of the protocol; without any, there is no BFD.
fn bird(family: Family, bfd: &str, session: &str) -> String {
    let on = if bfd.is_empty() { "" } else { "bfd on;" };
    let protocol = if bfd.is_empty() {
        String::new()
    } else {
        format!("protocol bfd {{ interface \"*\" {{ {bfd} }}; multihop {{ {bfd} }}; }}\n")
    };
    format!(
        "router id {};\nprotocol device {{}}\n{protocol}protocol bgp crier {{ local {} as 64512; neighbor {} as 64513; direct; {on} \
         connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 1; {session}\
         ipv4 {{ import all; export none; extended next hop; }}; }}\n",
        ROUTER.0,
        router(family),
        node(family),
    )
}

fn birds_times(millis: u64, multiplier: u8) -> String {
    format!("min rx interval {millis} ms; min tx interval {millis} ms; idle tx interval 1 s; multiplier {multiplier};")
}

/// The one session of `crier bfd`.
fn session(agent: &Crier) -> Result<Value, String> {
    let shown = agent.try_json("bfd")?;
    match shown["sessions"].as_array().map(Vec::as_slice) {
        Some([session]) => Ok(session.clone()),
        _ => Err(shown.to_string()),
    }
}

#[track_caller]
fn wait_bfd(agent: &Crier, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("BFD: {what}"), secs(30), || {
        let session = session(agent)?;
        if is_it(&session) { Ok(session) } else { Err(session.to_string()) }
    })
}

fn peer(agent: &Crier) -> Result<Value, String> {
    agent.try_json("bgp peers").map(|shown| shown["peers"][0].clone())
}

#[track_caller]
fn wait_established(agent: &Crier) -> Value {
    eventually("the BGP session is Established", secs(30), || {
        let peer = peer(agent)?;
        if peer["state"] == "Established" { Ok(peer) } else { Err(peer.to_string()) }
    })
}

/// The path dies, and both ends notice by BFD; then it comes back, and with it the session.
fn is_ended_by_a_dead_path(link: &Link, agent: &Crier, routes: impl Fn() -> usize, millis: u64) {
    let up = wait_bfd(agent, "up at the intervals of both", |session| {
        session["state"] == "up" && session["detection_time_millis"] == 3 * millis
    });
    assert_eq!((&up["transmit_interval_millis"], &up["problem"]), (&millis.into(), &Value::Null), "{up:#}");
    let before = wait_established(agent);
    eventually_equal("the routes that the router has", secs(20), &1, &routes);
    let losses = up["losses"].as_u64().unwrap();
    link.cable.cut();
    // The hold time is 90 s.
    wait_bfd(agent, "lost", |session| session["losses"].as_u64() > Some(losses) && session["state"] != "up");
    let peer = eventually("the BGP session has ended by BFD", secs(5), || {
        let peer = peer(agent)?;
        if peer["session"]["last_notification_sent"]["subcode"] == 10 { Ok(peer) } else { Err(peer.to_string()) }
    });
    assert_eq!(peer["session"]["last_notification_sent"]["code"], 6, "Cease: {peer:#}");
    assert!(peer["last_error"].as_str().is_some_and(|why| why.contains("BFD Down (6/10)")), "{peer:#}");
    eventually_equal("the routes that the router has", secs(5), &0, &routes);
    link.cable.restore();
    wait_bfd(agent, "up again", |session| session["state"] == "up");
    let after = wait_established(agent);
    let count = |peer: &Value| peer["session"]["times_established"].as_u64().unwrap();
    // On a busy machine a router may send too late for 30 ms.
    assert!(count(&after) > count(&before), "another session: {after:#}");
    eventually_equal("the routes that the router has again", secs(20), &1, &routes);
}

fn bird_notices(family: Family) {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let bird = link.bird(family, &birds_times(300, 3));
    for millis in [300, 50, 10] {
        bird.configure(&self::bird(family, &birds_times(millis, 3), ""));
        let agent = link.agent(family, &times(millis, 3), "");
        is_ended_by_a_dead_path(&link, &agent, || bird.routes().len(), millis);
        agent.stop(secs(10));
    }
}

#[test]
fn bird_and_crier_notice_a_dead_path_over_ipv4() {
    bird_notices(Family::V4);
}

#[test]
fn bird_and_crier_notice_a_dead_path_over_ipv6() {
    bird_notices(Family::V6);
}

fn frr(family: Family, bfd: &str) -> String {
    let neighbor = node(family);
    format!(
        "router bgp 64512\n bgp router-id {}\n{} neighbor {neighbor} remote-as 64513\n neighbor {neighbor} timers connect 1\n\
         \x20neighbor {neighbor} bfd\n{bfd} address-family ipv4 unicast\n  neighbor {neighbor} activate\n exit-address-family\n",
        ROUTER.0,
        frr::PLAIN,
    )
}

fn bfdd(millis: u64) -> String {
    format!(
        "bfd\n profile fast\n  receive-interval {millis}\n  transmit-interval {millis}\n  detect-multiplier 3\n !\n!\n"
    )
}

fn with_profile(family: Family) -> String {
    format!(" neighbor {} bfd profile fast\n", node(family))
}

fn frr_routes(frr: &Frr) -> usize {
    frr.routes().len()
}

#[test]
fn frr_and_crier_notice_a_dead_path_over_both_families() {
    for family in [Family::V4, Family::V6] {
        let Some(link) = Link::for_test(&[Need::Frr]) else { return };
        let frr = link.router.frr_with_bfd(&frr(family, &with_profile(family)), &bfdd(50));
        let agent = link.agent(family, &times(50, 3), "");
        is_ended_by_a_dead_path(&link, &agent, || frr_routes(&frr), 50);
    }
}

#[test]
fn a_session_over_several_hops_uses_its_own_port_and_ends_bgp_too() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird]) else { return };
    let (node, tor, spine) = (rack.namespace("node-1"), rack.router("tor"), rack.namespace("spine"));
    connect(&node, "eth0", &tor, "swp1");
    connect(&tor, "swp2", &spine, "eth0");
    node.up("eth0", &["10.0.1.11/24"]);
    tor.up("swp1", &["10.0.1.1/24"]);
    tor.up("swp2", &["10.0.2.1/24"]);
    spine.up("eth0", &["10.0.2.9/24"]);
    node.ip("route add 10.0.2.0/24 via 10.0.1.1");
    spine.ip("route add 10.0.1.0/24 via 10.0.2.1");
    let bird = spine.bird(&format!(
        "router id 10.0.2.9;\nprotocol device {{}}\nprotocol bfd {{ multihop {{ {} }}; }}\n\
         protocol bgp crier {{ local 10.0.2.9 as 64512; neighbor 10.0.1.11 as 64513; multihop 3; bfd on; connect delay time 1; \
         connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
        birds_times(50, 3)
    ));
    // BIRD sends over several hops with the kernel's TTL of 64, which one router makes 63.
    let near_enough = format!("{}minimum-ttl = 63\n", times(50, 3));
    let agent = node.announcer(&configuration("10.0.2.9", &near_enough, "multihop = 3"));
    let up = wait_bfd(&agent, "up", |session| session["state"] == "up" && session["detection_time_millis"] == 150);
    assert_eq!(up["multihop"], true, "{up:#}");
    wait_established(&agent);
    eventually_equal("the routes that BIRD has", secs(20), &1, || bird.routes().len());
    // What crossed more routers than the profile allows does not count.
    agent.stop(secs(10));
    let strict =
        node.announcer(&configuration("10.0.2.9", &format!("{}minimum-ttl = 64\n", times(50, 3)), "multihop = 3"));
    let told = "packets of the peer are dropped: they crossed more routers than they may";
    wait_bfd(&strict, "told why it does not come up", |session| {
        session["problem"].as_str().is_some_and(|why| why.starts_with(told) && why.ends_with("(TTL 63)"))
    });
    assert!(strict.json("bfd")["discarded"]["ttl"].as_u64().is_some_and(|count| count > 0));
    strict.stop(secs(10));
    let agent = node.announcer(&configuration("10.0.2.9", &near_enough, "multihop = 3"));
    wait_bfd(&agent, "up", |session| session["state"] == "up");
    wait_established(&agent);
    tor.sysctl("net/ipv4/ip_forward", "0");
    wait_bfd(&agent, "lost", |session| session["losses"] == 1);
    eventually_equal("the routes that BIRD has", secs(10), &0, || bird.routes().len());
}

/// A node, a router, and a spine behind it, which has BFD and BGP over both families with the node.
fn both_families_over_several_hops(need: Need, start: impl FnOnce(&Namespace) -> Box<dyn Fn() -> usize>) {
    let Some(rack) = Rack::for_test(&[Need::Crier, need]) else { return };
    let (node, tor, spine) = (rack.namespace("node-1"), rack.router("tor"), rack.namespace("spine"));
    connect(&node, "eth0", &tor, "swp1");
    connect(&tor, "swp2", &spine, "eth0");
    node.up("eth0", &["10.0.1.11/24", "fd01::11/64"]);
    tor.up("swp1", &["10.0.1.1/24", "fd01::1/64"]);
    tor.up("swp2", &["10.0.2.1/24", "fd02::1/64"]);
    spine.up("eth0", &["10.0.2.9/24", "fd02::9/64"]);
    node.ip("route add 10.0.2.0/24 via 10.0.1.1");
    node.ip("-6 route add fd02::/64 via fd01::1");
    spine.ip("route add 10.0.1.0/24 via 10.0.2.1");
    spine.ip("-6 route add fd01::/64 via fd02::1");
    let established = start(&spine);
    let second = "[[bgp.peer]]\nname = \"tor6\"\naddress = \"fd02::9\"\nasn = \"external\"\nconnect-retry-time = \"1s\"\n\
                  bfd = \"fast\"\nmultihop = 3\n";
    let agent = node.announcer(&configuration(
        "10.0.2.9",
        &format!("{}minimum-ttl = 63\n", times(100, 3)),
        &format!("multihop = 3\n{second}"),
    ));
    let sessions = || -> Result<Vec<Value>, String> {
        let shown = agent.try_json("bfd")?;
        match shown["sessions"].as_array() {
            Some(sessions) if sessions.len() == 2 => Ok(sessions.clone()),
            _ => Err(shown.to_string()),
        }
    };
    let all = |what: &str, is_it: fn(&Value) -> bool| {
        eventually(&format!("both sessions of BFD: {what}"), secs(30), || {
            let sessions = sessions()?;
            if sessions.iter().all(is_it) { Ok(()) } else { Err(format!("{sessions:?}")) }
        });
    };
    all("up over several hops", |it| {
        it["state"] == "up" && it["multihop"] == true && it["detection_time_millis"] == 300
    });
    eventually_equal("the sessions of the router", secs(30), &2, &established);
    tor.sysctl("net/ipv4/ip_forward", "0");
    tor.sysctl("net/ipv6/conf/all/forwarding", "0");
    all("lost", |it| it["losses"].as_u64() >= Some(1) && it["state"] != "up");
    eventually_equal("the sessions of the router", secs(10), &0, &established);
}

#[test]
fn frr_and_crier_notice_a_dead_path_over_several_hops_over_both_families() {
    both_families_over_several_hops(Need::Frr, |spine| {
        let neighbors = ["10.0.1.11", "fd01::11"];
        let of_each: String = neighbors
            .map(|it| {
                format!(
                    " neighbor {it} remote-as 64513\n neighbor {it} ebgp-multihop 3\n neighbor {it} timers connect 1\n \
                     neighbor {it} bfd\n neighbor {it} bfd profile fast\n"
                )
            })
            .concat();
        let frr = spine.frr_with_bfd(
            &format!(
                "router bgp 64512\n bgp router-id 10.0.2.9\n{}{of_each} address-family ipv4 unicast\n  neighbor 10.0.1.11 activate\n \
                 exit-address-family\n address-family ipv6 unicast\n  neighbor fd01::11 activate\n exit-address-family\n",
                frr::PLAIN
            ),
            &bfdd(100),
        );
        Box::new(move || neighbors.iter().filter(|it| frr.session(it).is_established()).count())
    });
}

#[test]
fn bird_and_crier_notice_a_dead_path_over_several_hops_over_both_families() {
    both_families_over_several_hops(Need::Bird, |spine| {
        let session = |name: &str, ends: &str, family: &str| {
            format!(
                "protocol bgp {name} {{ {ends}; multihop 3; bfd on; connect delay time 1; connect retry time 1; \
                 error wait time 1, 2; {family} {{ import all; export none; }}; }}\n"
            )
        };
        let bird = spine.bird(&format!(
            "router id 10.0.2.9;\nprotocol device {{}}\nprotocol bfd {{ multihop {{ {} }}; }}\n{}{}",
            birds_times(100, 3),
            session("over4", "local 10.0.2.9 as 64512; neighbor 10.0.1.11 as 64513", "ipv4"),
            session("over6", "local fd02::9 as 64512; neighbor fd01::11 as 64513", "ipv6"),
        ));
        Box::new(move || ["over4", "over6"].iter().filter(|it| bird.session(it).is_established()).count())
    });
}

/// Input: the profile changes by reloads. Output: FRR's bfdd sees new intervals in the same session.
#[test]
fn intervals_that_a_reload_changes_end_no_session_with_frr() {
    let Some(link) = Link::for_test(&[Need::Frr]) else { return };
    let frr = link.router.frr_with_bfd(&frr(Family::V4, &with_profile(Family::V4)), &bfdd(100));
    let agent = link.agent(Family::V4, &times(100, 3), "");
    wait_bfd(&agent, "up", |session| session["state"] == "up" && session["detection_time_millis"] == 300);
    wait_established(&agent);
    let text = std::fs::read_to_string(agent.file()).expect("the file is there");
    for (millis, multiplier) in [(300_u64, 3_u64), (120, 5), (700, 2), (100, 6)] {
        let changed = text
            .replace("interval = \"100ms\"", &format!("interval = \"{millis}ms\""))
            .replace("multiplier = 3", &format!("multiplier = {multiplier}"));
        agent.write_configuration(&changed);
        assert!(agent.verb("config apply").status.success());
        wait_bfd(&agent, &format!("at {millis} ms"), |session| {
            session["state"] == "up" && session["detection_time_millis"] == millis * 3
        });
        eventually_equal("the router's detection time", secs(10), &(millis * multiplier), || {
            let shown = frr.bfd_json("show bfd peers json");
            let [interval, times] =
                ["remote-transmit-interval", "remote-detect-multiplier"].map(|key| shown[0][key].as_u64());
            interval.unwrap_or_default() * times.unwrap_or_default()
        });
    }
    let session = session(&agent).unwrap();
    assert_eq!((&session["losses"], &session["times_up"]), (&0.into(), &1.into()), "{session:#}");
    assert_eq!(frr.session(&node(Family::V4)).times_established, 1);
}

/// With BIRD: what it takes of the new intervals shows in when it would count the path as dead.
#[test]
fn intervals_that_a_reload_changes_end_no_session_with_bird() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let bird = link.bird(Family::V4, &birds_times(100, 3));
    let agent = link.agent(Family::V4, &times(100, 3), "");
    wait_bfd(&agent, "up", |session| session["state"] == "up" && session["detection_time_millis"] == 300);
    wait_established(&agent);
    let text = std::fs::read_to_string(agent.file()).expect("the file is there");
    for (millis, multiplier) in [(300_u64, 3_u64), (120, 5), (700, 2), (100, 6)] {
        let changed = text
            .replace("interval = \"100ms\"", &format!("interval = \"{millis}ms\""))
            .replace("multiplier = 3", &format!("multiplier = {multiplier}"));
        agent.write_configuration(&changed);
        assert!(agent.verb("config apply").status.success());
        wait_bfd(&agent, &format!("at {millis} ms"), |session| {
            session["state"] == "up" && session["detection_time_millis"] == millis * 3
        });
        // As BIRD has it: name, interface, state, since, interval, timeout in seconds.
        let timeout = (millis * multiplier) as f64 / 1000.0;
        eventually_equal("the router's detection time", secs(10), &format!("{timeout:.3}"), || {
            let shown = bird.command("show bfd sessions");
            let row = shown.lines().find(|line| line.contains("192.168.35.11")).unwrap_or_default();
            row.split_whitespace().last().unwrap_or_default().to_owned()
        });
    }
    let session = session(&agent).unwrap();
    assert_eq!((&session["losses"], &session["times_up"]), (&0.into(), &1.into()), "{session:#}");
    assert_eq!(bird.session("crier").times_established, 1);
}

#[test]
fn a_router_that_changes_its_intervals_ends_no_session() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let bird = link.bird(Family::V4, &birds_times(150, 3));
    // Slow enough for the processor in software of tests/kernels.
    let agent = link.agent(Family::V4, &times(100, 3), "");
    wait_established(&agent);
    for (millis, multiplier) in [(150, 3), (300, 3), (120, 5), (700, 2), (100, 6)] {
        bird.configure(&self::bird(Family::V4, &birds_times(millis, multiplier), ""));
        wait_bfd(&agent, &format!("at {millis} ms x {multiplier}"), |session| {
            session["state"] == "up" && session["detection_time_millis"] == millis * u64::from(multiplier)
        });
    }
    let session = session(&agent).unwrap();
    assert_eq!((&session["losses"], &session["times_up"]), (&0.into(), &1.into()), "{session:#}");
    assert_eq!(bird.session("crier").times_established, 1);
}

#[test]
fn a_session_that_the_routers_operator_holds_down_does_not_end_bgp() {
    let Some(link) = Link::for_test(&[Need::Frr]) else { return };
    let frr = link.router.frr_with_bfd(&frr(Family::V4, &with_profile(Family::V4)), &bfdd(50));
    let agent = link.agent(Family::V4, &times(50, 3), "");
    wait_bfd(&agent, "up", |session| session["state"] == "up");
    wait_established(&agent);
    frr.configure_bfd(&["bfd", "profile fast", "shutdown"]);
    // How the router stands is forgotten once it is silent (RFC 5880 §6.8.1).
    let down = wait_bfd(&agent, "held down by the router", |session| {
        session["state"] == "down" && session["last_diagnostic"] == "neighbor-signaled-down"
    });
    assert_eq!((&down["losses"], &down["state"]), (&0.into(), &"down".into()), "{down:#}");
    throughout("the BGP session stays", secs(2), || {
        let peer = peer(&agent)?;
        if peer["state"] == "Established" && peer["session"]["times_established"] == 1 {
            Ok(())
        } else {
            Err(peer.to_string())
        }
    });
    frr.configure_bfd(&["bfd", "profile fast", "no shutdown"]);
    wait_bfd(&agent, "up again", |session| session["state"] == "up");
}

#[test]
fn a_router_without_bfd_keeps_its_session_and_strict_waits_for_bfd() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let bird = link.bird(Family::V4, "");
    let agent = link.agent(Family::V4, &times(50, 3), "");
    wait_established(&agent);
    let told = agent.status()["problems"].to_string();
    assert!(told.contains("BFD of peer tor (192.168.35.1): nothing is heard from the peer"), "{told}");
    agent.stop(secs(10));

    let agent = link.agent(Family::V4, &times(50, 3), "bfd-strict = true");
    throughout("no session without BFD", secs(4), || {
        let session = bird.session("crier");
        if session.is_established() { Err(format!("{session:?}")) } else { Ok(()) }
    });
    let shown = peer(&agent).unwrap();
    assert_eq!(shown["last_error"], "waiting for BFD, which is down (bfd-strict)", "{shown:#}");
    bird.configure(&self::bird(Family::V4, &birds_times(50, 3), ""));
    wait_established(&agent);
    wait_bfd(&agent, "up", |session| session["state"] == "up" && session["strict"] == true);
    link.cable.cut();
    wait_bfd(&agent, "lost", |session| session["losses"] == 1);
    link.cable.restore();
    wait_established(&agent);
}

#[test]
fn a_passive_end_says_nothing_first_and_strict_waits_for_bfd_over_ipv6_too() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let bird = link.bird(Family::V6, "");
    let capture = link.cable.capture();
    let passive = format!("{}passive = true\n", times(50, 3));
    let agent = link.agent(Family::V6, &passive, "bfd-strict = true");
    throughout("no session without BFD, and no packet of it", secs(4), || {
        let session = bird.session("crier");
        // UDP over IPv6 to BFD's port.
        let is_bfd = |it: &[u8]| {
            it.get(12..14) == Some(&[0x86, 0xdd]) && it.get(20) == Some(&17) && it.get(56..58) == Some(&[14, 200])
        };
        let heard = capture.frames().iter().filter(|frame| is_bfd(&frame.bytes)).count();
        if session.is_established() || heard > 0 { Err(format!("{heard} {session:?}")) } else { Ok(()) }
    });
    bird.configure(&self::bird(Family::V6, &birds_times(50, 3), ""));
    wait_bfd(&agent, "up", |session| session["state"] == "up" && session["strict"] == true);
    wait_established(&agent);
    link.cable.cut();
    wait_bfd(&agent, "lost", |session| session["losses"] == 1);
    link.cable.restore();
    wait_established(&agent);
}

#[test]
fn packets_are_signed_with_the_key_of_both_and_another_key_brings_no_session() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let key = link.rack.write("bfd.key", "of-both-ends-4a1c\n");
    let other = link.rack.write("other.key", "of-another-8d21\n");
    for (ours, theirs) in [("keyed-sha1", "keyed sha1"), ("meticulous-keyed-sha1", "meticulous keyed sha1")] {
        let signed =
            format!("{} authentication {theirs}; password \"of-both-ends-4a1c\" {{ id 7; }};", birds_times(50, 5));
        let bird = link.bird(Family::V4, &signed);
        let with = |file: &std::path::Path| {
            format!("{}authentication = \"{ours}\"\nkey-id = 7\nkey-file = \"{}\"\n", times(50, 5), file.display())
        };
        let agent = link.agent(Family::V4, &with(&key), "");
        wait_bfd(&agent, "up", |session| session["state"] == "up" && session["authenticated"] == true);
        throughout("it stays", secs(2), || {
            let session = session(&agent)?;
            if session["losses"] == 0 && session["state"] == "up" { Ok(()) } else { Err(session.to_string()) }
        });
        agent.stop(secs(10));
        let agent = link.agent(Family::V4, &with(&other), "");
        eventually("packets are taken for forgeries", secs(20), || {
            let shown = agent.try_json("bfd")?;
            if shown["discarded"]["forged"].as_u64().is_some_and(|count| count > 2) {
                Ok(())
            } else {
                Err(shown.to_string())
            }
        });
        assert_eq!(session(&agent).unwrap()["state"], "down");
        agent.stop(secs(10));
        drop(bird);
    }
}

#[test]
fn a_router_on_the_link_alone_is_watched_by_its_link_local_address() {
    let Some(link) = Link::for_test(&[Need::Frr]) else { return };
    let frr = link.router.frr_with_bfd(
        &format!(
            "router bgp 64512\n bgp router-id {}\n{} neighbor eth0 interface remote-as external\n neighbor eth0 bfd\n \
             neighbor eth0 bfd profile fast\n address-family ipv4 unicast\n  neighbor eth0 activate\n exit-address-family\n",
            ROUTER.0,
            frr::PLAIN
        ),
        &bfdd(50),
    );
    let agent = link.node.announcer(&configuration("eth0", &times(50, 3), ""));
    let up = wait_bfd(&agent, "up", |session| session["state"] == "up" && session["detection_time_millis"] == 150);
    assert_eq!(up["interface"], "eth0", "{up:#}");
    wait_established(&agent);
    eventually("FRR has the route", secs(20), || {
        let routes = frr.routes();
        if routes.contains_key(&format!("{V4}/32")) { Ok(()) } else { Err(format!("{routes:?}")) }
    });
    link.cable.cut();
    wait_bfd(&agent, "lost", |session| session["losses"] == 1);
    eventually_equal("the routes that FRR has", secs(5), &0, || frr_routes(&frr));
}

#[test]
fn a_router_of_the_same_address_in_a_vrf_is_watched_for_itself() {
    let Some(rack) = Rack::for_test(&[Need::Crier, Need::Bird, Need::LinkType("vrf")]) else { return };
    let (node, routers) = (rack.namespace("node-1"), ["main", "red"].map(|name| rack.namespace(name)));
    node.ip("link add red type vrf table 1001");
    node.ip("link set red up");
    for (router, link) in routers.iter().zip(["eth0", "eth1"]) {
        connect(&node, link, router, "eth0");
        if link == "eth1" {
            node.ip("link set eth1 down");
            node.ip("link set eth1 master red");
        }
        node.up(link, &[&format!("{}/24", NODE.0)]);
        router.up("eth0", &[&format!("{}/24", ROUTER.0)]);
    }
    let birds: Vec<Bird> =
        routers.iter().map(|router| router.bird(&bird(Family::V4, &birds_times(300, 3), ""))).collect();
    let peer = |name: &str, vrf: &str| {
        format!(
            "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{}\"\nasn = 64512\nconnect-retry-time = \"1s\"\nbfd = \"fast\"\n{vrf}\n",
            ROUTER.0
        )
    };
    let agent = node.announcer(&format!(
        "[bgp]\nasn = 64513\n{}{}[[bfd]]\nname = \"fast\"\n{}",
        peer("main", ""),
        peer("red", "vrf = \"red\""),
        times(300, 3)
    ));
    let states = || {
        agent.try_json("bfd").map(|shown| {
            let states = shown["sessions"].as_array().into_iter().flatten().map(|it| it["state"].to_string());
            states.collect::<Vec<_>>()
        })
    };
    eventually("both sessions are up", secs(30), || {
        let states = states()?;
        if states == ["\"up\"", "\"up\""] { Ok(()) } else { Err(format!("{states:?}")) }
    });
    birds.iter().for_each(|bird| drop(bird.wait_established("crier", secs(30))));
    routers[1].ip("link set eth0 down");
    eventually("the one in the VRF is lost", secs(10), || {
        let shown = agent.try_json("bfd")?;
        let losses: Vec<String> =
            shown["sessions"].as_array().into_iter().flatten().map(|it| it["losses"].to_string()).collect();
        if losses == ["0", "1"] { Ok(()) } else { Err(shown.to_string()) }
    });
    assert_eq!(birds[0].session("crier").times_established, 1);
}

/// The node's file without BFD for the peer; what the plan warns of.
fn take_bfd_away(agent: &Crier) -> String {
    let text = std::fs::read_to_string(agent.file()).expect("it is there");
    assert!(text.contains("bfd = \"fast\"\n"));
    let without = text.replace("bfd = \"fast\"\n", "");
    let aside = agent.file().with_extension("without");
    std::fs::write(&aside, &without).expect("it can be written");
    let warned = agent.json(&format!("plan {}", aside.display()))["warnings"].to_string();
    agent.write_configuration(&without);
    agent.reload();
    warned
}

/// AdminDown is no failure of the path (RFC 5882 §3.2), and BIRD and FRR take it for one.
#[test]
fn a_peer_that_loses_bfd_by_a_reload_loses_its_session_as_it_was_told() {
    let Some(link) = Link::for_test(&[Need::Frr]) else { return };
    let frr = link.router.frr_with_bfd(&frr(Family::V4, &with_profile(Family::V4)), &bfdd(300));
    let agent = link.agent(Family::V4, &times(300, 3), "");
    wait_bfd(&agent, "up", |session| session["state"] == "up");
    wait_established(&agent);
    let warned = take_bfd_away(&agent);
    assert!(warned.contains("peer tor loses BFD: BIRD and FRR take"), "{warned}");
    assert!(
        agent.process().log().contains("peer tor loses BFD: BIRD and FRR take"),
        "the reload says it too: {}",
        agent.process().log_tail(20)
    );
    has_ended(&agent, "FRR");
    let again = wait_established(&agent);
    assert_eq!(again["session"]["times_established"], 2, "FRR takes another one: {again:#}");
    drop((agent, frr));

    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let _bird = link.bird(Family::V4, &birds_times(300, 3));
    let agent = link.agent(Family::V4, &times(300, 3), "");
    wait_bfd(&agent, "up", |session| session["state"] == "up");
    wait_established(&agent);
    take_bfd_away(&agent);
    has_ended(&agent, "BIRD");
}

/// BIRD falls silent, FRR says Down and not AdminDown.
#[test]
fn bfd_that_is_taken_from_the_router_looks_like_a_dead_path() {
    let up = |link: &Link| {
        let agent = link.agent(Family::V4, &times(300, 3), "");
        wait_bfd(&agent, "up", |session| session["state"] == "up");
        wait_established(&agent);
        agent
    };
    let ends = |agent: &Crier| {
        eventually("it looks like a dead path", secs(10), || {
            let told = peer(agent)?["session"]["last_notification_sent"].clone();
            if told["subcode"] == 10 { Ok(()) } else { Err(told.to_string()) }
        });
    };
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let with = bird(Family::V4, &birds_times(300, 3), "");
    let bird = link.router.bird(&with);
    let agent = up(&link);
    bird.configure(&with.replace("bfd on;", ""));
    ends(&agent);
    drop((agent, bird));

    let Some(link) = Link::for_test(&[Need::Frr]) else { return };
    let frr = link.router.frr_with_bfd(&frr(Family::V4, &with_profile(Family::V4)), &bfdd(300));
    let agent = up(&link);
    frr.configure(&["router bgp 64512", &format!("no neighbor {} bfd", node(Family::V4))]);
    ends(&agent);
}

#[track_caller]
fn has_ended(agent: &Crier, router: &str) {
    eventually(&format!("{router} has ended the session"), secs(10), || {
        let told = peer(agent)?["session"]["last_notification_received"].clone();
        if told["code"] == 6 { Ok(()) } else { Err(told.to_string()) }
    });
}

/// Packets that the router never sent, from its own address and with the TTL of its link, unless they say otherwise.
fn forgeries(discriminator: u32) -> Vec<(u32, Vec<u8>)> {
    let packet = |flags: u8, multiplier: u8, mine: u32, yours: u32| {
        let mut octets = vec![0x20, flags, multiplier, 24];
        octets.extend(mine.to_be_bytes());
        octets.extend(yours.to_be_bytes());
        octets.extend([0x00, 0x04, 0x93, 0xe0, 0x00, 0x04, 0x93, 0xe0, 0, 0, 0, 0]);
        octets
    };
    let (up, down) = (0xc0, 0x40);
    let mut version = packet(down, 3, 7, discriminator);
    version[0] = 0x40;
    let mut longer = packet(down, 3, 7, discriminator);
    longer[3] = 200;
    vec![
        (255, Vec::new()),
        (255, vec![0xff; 300]),
        (255, version),
        (255, longer),
        (255, packet(down, 0, 7, discriminator)),
        (255, packet(down | 1, 3, 7, discriminator)),
        (255, packet(down, 3, 0, discriminator)),
        (255, packet(down | 0x30, 3, 7, discriminator)),
        (255, packet(down | 4, 3, 7, discriminator)),
        (255, packet(down, 3, 7, discriminator ^ 1)),
        (255, packet(up, 3, 7, 0)),
        // From beyond the link: right in all but that it passed a router.
        (254, packet(down, 3, 7, discriminator)),
        (64, packet(down, 3, 7, 0)),
    ]
}

#[test]
fn ten_thousand_forgeries_a_second_end_no_session_and_each_is_counted_by_its_fault() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let bird = link.bird(Family::V4, &birds_times(300, 3));
    let agent = link.agent(Family::V4, &times(300, 3), "");
    let up = wait_bfd(&agent, "up", |session| session["state"] == "up");
    wait_established(&agent);
    let discriminator = u32::try_from(up["local_discriminator"].as_u64().unwrap()).unwrap();
    let forgeries = forgeries(discriminator);
    let sent = link.router.run(|| {
        let socket = std::net::UdpSocket::bind((ROUTER.0, 50_000)).expect("a port for forgeries");
        let (began, mut sent) = (now(), 0_usize);
        while began.elapsed() < secs(3) {
            for (ttl, octets) in &forgeries {
                socket.set_ttl(*ttl).expect("a TTL");
                // A full queue takes no more; that is a flood as well.
                sent += usize::from(socket.send_to(octets, (NODE.0, 3784)).is_ok());
            }
            // 13 each 1.2 ms are 10,000 a second.
            while began.elapsed().as_micros() < (sent as u128) * 100 {
                rest(std::time::Duration::from_micros(200));
            }
        }
        sent
    });
    assert!(sent > 10_000, "{sent} forgeries");
    let shown = agent.json("bfd");
    let session = &shown["sessions"][0];
    assert_eq!((&session["state"], &session["losses"]), (&"up".into(), &0.into()), "{shown:#}");
    assert_eq!(bird.session("crier").times_established, 1);
    for fault in [
        "truncated",
        "version",
        "length",
        "multiplier",
        "multipoint",
        "my-discriminator",
        "poll-and-final",
        "unknown-discriminator",
        "your-discriminator",
        "ttl",
    ] {
        assert!(shown["discarded"][fault].as_u64().is_some_and(|count| count > 100), "{fault}: {shown:#}");
    }
}

#[test]
fn another_host_on_the_link_that_knows_the_number_of_the_session_cannot_end_it() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let _bird = link.bird(Family::V4, &birds_times(300, 3));
    let agent = link.agent(Family::V4, &times(300, 3), "");
    let up = wait_bfd(&agent, "up", |session| session["state"] == "up");
    let discriminator = u32::try_from(up["local_discriminator"].as_u64().unwrap()).unwrap();
    link.router.ip("address add 192.168.35.66/24 dev eth0");
    let mut octets = vec![0x20, 0x40, 3, 24, 0, 0, 0, 7];
    octets.extend(discriminator.to_be_bytes());
    octets.extend([0x00, 0x04, 0x93, 0xe0, 0x00, 0x04, 0x93, 0xe0, 0, 0, 0, 0]);
    link.router.run(|| {
        let socket = std::net::UdpSocket::bind(("192.168.35.66", 50_000)).expect("a port for forgeries");
        socket.set_ttl(255).expect("a TTL");
        (0..100).for_each(|_| drop(socket.send_to(&octets, (NODE.0, 3784))));
    });
    eventually("they are dropped", secs(10), || {
        let shown = agent.try_json("bfd")?;
        if shown["discarded"]["other-sender"].as_u64() == Some(100) { Ok(()) } else { Err(shown.to_string()) }
    });
    assert_eq!(session(&agent).unwrap()["losses"], 0);
}

#[test]
fn two_peers_of_one_address_and_two_source_addresses_have_a_session_each() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    link.node.ip("address add 192.168.35.12/24 dev eth0");
    let neighbor = |name: &str, address: &str| {
        format!(
            "protocol bgp {name} {{ local {} as 64512; neighbor {address} as 64513; direct; bfd on; connect delay time 1; \
             connect retry time 1; error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
            ROUTER.0
        )
    };
    let _bird = link.router.bird(&format!(
        "router id {};\nprotocol device {{}}\nprotocol bfd {{ interface \"*\" {{ {} }}; }}\n{}{}",
        ROUTER.0,
        birds_times(50, 3),
        neighbor("one", &NODE.0.to_string()),
        neighbor("another", "192.168.35.12"),
    ));
    let peer = |name: &str, source: &str, profile: &str| {
        format!(
            "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{}\"\nasn = 64512\nsource-address = \"{source}\"\nbfd = \"{profile}\"\n\
             connect-retry-time = \"1s\"\n",
            ROUTER.0
        )
    };

    let agent = link.node.announcer(&format!(
        "[bgp]\nasn = 64513\n{}{}[[bfd]]\nname = \"fast\"\n{}[[bfd]]\nname = \"slow\"\n{}",
        peer("one", &NODE.0.to_string(), "fast"),
        peer("other", "192.168.35.12", "slow"),
        times(50, 3),
        times(400, 3),
    ));
    let of_both = |what: &str, field: &str, expected: [Value; 2]| {
        eventually(what, secs(30), || {
            let shown = agent.try_json("bfd")?;
            let found: Vec<Value> =
                shown["sessions"].as_array().into_iter().flatten().map(|session| session[field].clone()).collect();
            if found == expected { Ok(()) } else { Err(shown.to_string()) }
        });
    };
    of_both("both are up", "state", ["up".into(), "up".into()]);
    of_both("each at its own pace", "detection_time_millis", [150.into(), 1200.into()]);
    link.cable.cut();
    of_both("both are lost", "losses", [1.into(), 1.into()]);
}

/// Input: the router runs BFD to a second address of the node too, as it does for a static route to a virtual address.
/// Output: the session with the first one stays, and so does BGP; that the second one is not answered is told.
#[test]
fn bfd_of_the_router_with_a_second_address_of_the_node_takes_nothing_down() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    link.node.ip("address add 192.168.35.12/24 dev eth0");
    let also = "protocol bfd { neighbor 192.168.35.12 dev \"eth0\"; interface";
    let bird = link.router.bird(&bird(Family::V4, &birds_times(100, 3), "").replace("protocol bfd { interface", also));
    let agent = link.agent(Family::V4, &times(100, 3), "");
    wait_bfd(&agent, "up", |session| session["state"] == "up");
    wait_established(&agent);
    let before = (session(&agent).unwrap()["losses"].clone(), bird.session("crier").times_established);
    wait_bfd(&agent, "the other session is told of", |session| {
        session["problem"].as_str().is_some_and(|problem| problem.contains("also runs BFD to 192.168.35.12"))
    });
    throughout("BFD and BGP stay", secs(8), || {
        let session = session(&agent)?;
        let now = (session["losses"].clone(), bird.session("crier").times_established);
        if session["state"] == "up" && now == before { Ok(()) } else { Err(format!("{now:?} {session}")) }
    });
    let shown = agent.try_json("bfd").unwrap();
    assert!(shown["discarded"]["other-address"].as_u64().is_some_and(|count| count > 3), "{shown:#}");
}

/// Input: another key here by a reload, and some seconds later at BIRD; then at BIRD first. Output: the first ends
/// nothing; the second is told as what it is.
#[test]
fn another_key_here_and_then_at_bird_ends_no_session_and_at_bird_first_is_named() {
    let Some(link) = Link::for_test(&[Need::Bird]) else { return };
    let file = link.rack.write("bfd.key", "of-both-ends-4a1c\n");
    let theirs = |key: &str| {
        let keyed = format!("authentication meticulous keyed sha1; password \"{key}\" {{ id 7; }};");
        self::bird(Family::V4, &format!("{} {keyed}", birds_times(100, 3)), "")
    };
    let bird = link.router.bird(&theirs("of-both-ends-4a1c"));
    let ours = format!("{}key-id = 7\nkey-file = \"{}\"\n", times(100, 3), file.display());
    let agent = link.agent(Family::V4, &ours, "");
    wait_bfd(&agent, "up", |session| session["state"] == "up" && session["authenticated"] == true);
    wait_established(&agent);
    let stays = |what: &str| {
        throughout(what, secs(3), || {
            let (session, peer) = (session(&agent)?, peer(&agent)?);
            let stands = session["losses"] == 0 && session["state"] == "up" && peer["state"] == "Established";
            if stands && bird.session("crier").is_established() { Ok(()) } else { Err(format!("{session} {peer}")) }
        });
    };
    link.rack.write("bfd.key", "of-another-8d21\n");
    agent.reload();
    let log = agent.process().log();
    assert!(log.contains("peer tor: its BFD gets another key"), "the reload says it: {log}");
    wait_bfd(&agent, "told", |session| session["problem"].as_str().is_some_and(|it| it.contains("had before")));
    stays("BIRD has the former key");
    bird.configure(&theirs("of-another-8d21"));
    wait_bfd(&agent, "nothing is told any more", |session| session["problem"].is_null());
    stays("both have the new key");
    bird.configure(&theirs("of-nobody-77"));
    let lost = wait_bfd(&agent, "lost", |session| session["losses"] == 1);
    assert!(lost.to_string().contains("they are authenticated with another key"), "{lost}");
}
