//! A router that keeps the routes when BFD goes down (BIRD: `bfd graceful`) hears why a session of BGP ends before BFD goes down, however the
//! session ends: else it goes on by routes that nobody announces. And BFD that outlived its session of BGP ends none that came after.

use rack::announcer::V4;
use rack::bird::Bird;
use rack::crier::Crier;
use rack::net::Switch;
use rack::pairing::{NODE, ROUTER};
use rack::{Manifests, Namespace, Need, Rack, Service, eventually, millis, rest, secs, throughout};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Bird, Need::Crier];

/// A node and a router on one switch, which goes with its last name.
fn two(rack: &Rack) -> (Switch, Namespace, Namespace) {
    let (node, router) = (rack.namespace("node-1"), rack.namespace("tor"));
    let switch = rack.switch("switch");
    switch.plug(&node, "eth0", &[&format!("{}/24", NODE.0)]);
    switch.plug(&router, "eth0", &[&format!("{}/24", ROUTER.0)]);
    (switch, node, router)
}

fn bird(bfd: &str, millis: u32, multiplier: u32) -> String {
    format!(
        "router id {0};\nprotocol device {{}}\n\
         protocol bfd {{ interface \"*\" {{ min rx interval {millis} ms; min tx interval {millis} ms; multiplier {multiplier}; }}; }}\n\
         protocol bgp tor {{ local {0} as 64512; neighbor {1} as 64513; direct; bfd {bfd}; graceful restart; connect delay time 1; \
         connect retry time 1; error wait time 1, 2; error forget time 1; ipv4 {{ import all; export none; }}; }}\n",
        ROUTER.0, NODE.0,
    )
}

fn bgp(millis: u32, multiplier: u32) -> String {
    format!("[bgp]\nasn = 64513\n{}", peer(millis, multiplier))
}

fn peer(millis: u32, multiplier: u32) -> String {
    format!(
        "[[bgp.peer]]\nname = \"tor\"\naddress = \"{}\"\nasn = 64512\nconnect-retry-time = \"1s\"\nbfd = \"fast\"\n[[bfd]]\nname = \"fast\"\n\
         receive-interval = \"{millis}ms\"\ntransmit-interval = \"{millis}ms\"\nmultiplier = {multiplier}\n",
        ROUTER.0
    )
}

fn has_route(bird: &Bird) -> bool {
    bird.routes().contains_key(&format!("{V4}/32"))
}

#[track_caller]
fn wait_up(agent: &Crier, bird: &Bird) {
    eventually("BFD is up, and the route has come", secs(40), || {
        let shown = agent.try_json("bfd")?;
        let is_up = shown["sessions"][0]["state"] == "up";
        if is_up && has_route(bird) { Ok(()) } else { Err(format!("{shown:#}")) }
    });
    // Graceful restart is agreed on, and the last one is over.
    eventually("the routes are no stale ones", secs(10), || {
        let shown = bird.command("show protocols all tor");
        if shown.contains("Neighbor graceful restart active") { Err(shown) } else { Ok(()) }
    });
}

#[track_caller]
fn wait_gone(what: &str, bird: &Bird) {
    // Those that are kept stay for a minute or two.
    eventually(&format!("{what}: the route has gone"), secs(8), || {
        if has_route(bird) { Err(bird.command("show protocols all tor")) } else { Ok(()) }
    });
}

/// The AdminDown was up to a millisecond before the Cease, or too close behind it, in three of eight rounds.
#[test]
fn a_peer_that_is_removed_or_shut_down_leaves_no_routes_where_the_router_keeps_them_when_bfd_goes_down() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (_switch, node, router) = two(&rack);
    let bird = router.bird(&bird("graceful", 100, 5));
    let agent = node.announcer(&bgp(100, 5));
    let text = std::fs::read_to_string(agent.file()).expect("the file is there");
    let apply = |text: &str| {
        agent.write_configuration(text);
        let done = agent.verb("config apply");
        assert!(done.status.success(), "{done:?}");
    };
    let verb = |words: &str| {
        let done = agent.verb(words);
        assert!(done.status.success(), "{done:?}");
    };
    for round in 0..4 {
        wait_up(&agent, &bird);
        apply(&text.replace(&peer(100, 5), ""));
        wait_gone(&format!("removed, round {round}"), &bird);
        apply(&text);
        wait_up(&agent, &bird);
        apply(&text.replace("name = \"tor\"\n", "name = \"tor\"\nshutdown = true\n"));
        wait_gone(&format!("shutdown = true, round {round}"), &bird);
        apply(&text);
        wait_up(&agent, &bird);
        verb("bgp shutdown tor");
        wait_gone(&format!("crier bgp shutdown, round {round}"), &bird);
        verb("bgp enable tor");
    }
}

/// Input: TCP segments to the router are lost for a while, and BFD's packets are not. Output: the Cease, sent again, comes first.
#[test]
fn a_cease_that_is_lost_on_the_way_comes_before_bfd_goes_down_all_the_same() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (_switch, node, router) = two(&rack);
    let bird = router.bird(&bird("graceful", 100, 5));
    let agent = node.announcer(&bgp(100, 5));
    for how in ["shutdown", "stop"] {
        wait_up(&agent, &bird);
        router.sh("nft add table inet lossy");
        router.sh("nft add chain inet lossy in { type filter hook input priority 0; }");
        router.sh("nft add rule inet lossy in meta l4proto tcp drop");
        std::thread::scope(|scope| {
            scope.spawn(|| match how {
                "stop" => drop(agent.stop(secs(10))),
                _ => drop(agent.verb("bgp shutdown tor")),
            });
            // Longer than the first time that it is sent again, and shorter than BFD waits.
            rest(millis(500));
            router.sh("nft delete table inet lossy");
        });
        wait_gone(how, &bird);
        if how == "shutdown" {
            assert!(agent.verb("bgp enable tor").status.success());
        }
    }
}

/// Input: the router is started anew while the agent is. Output: one session of BGP, which the former one's BFD does not end.
#[test]
fn a_router_that_is_started_anew_during_a_restart_has_one_new_session_that_stays() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (_switch, node, router) = two(&rack);
    let manifests = Manifests::new(&rack);
    manifests.service(&Service::new("web").anywhere().addresses(V4));
    let configuration = format!(
        "{}\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\nbind = \"lo\"\n{}\n[[bgp.advertisement]]\n",
        manifests.section(),
        bgp(300, 3)
    );
    let mut agent = node.crier_as_unit("node-1", &configuration);
    agent.wait_ready(secs(30));
    let mut former = router.bird(&bird("on", 300, 3));
    for round in 0..2 {
        wait_up(&agent, &former);
        // The intervals are agreed on, or BFD does not go on.
        rest(secs(3));
        agent.end_with_job("restart");
        former.process().kill();
        former = router.bird_named(&format!("tor-{round}"), &bird("on", 300, 3));
        agent.start_again(&configuration);
        agent.wait_ready(secs(30));
        wait_up(&agent, &former);
        throughout("the new session stays", secs(3), || {
            let shown = agent.try_json("bgp peers tor")?;
            let told = &shown["peers"][0]["session"]["last_notification_sent"];
            let stays = former.session("tor").times_established == 1 && told["subcode"] != 10;
            if stays { Ok(()) } else { Err(format!("{shown:#}")) }
        });
    }
}
