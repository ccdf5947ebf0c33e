//! The harness tries itself: what it starts stands, what it says is true, and nothing is left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rack::capture::BgpKind;
use rack::packet::ArpOperation;
use rack::{Need, Rack, Site, bird, eventually, eventually_equal, frr, millis, net, secs};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn text_of_panic(job: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(job)).expect_err("it should have panicked");
    panic.downcast::<String>().map(|text| *text).unwrap_or_default()
}

/// The names of the links in a namespace, without `lo`.
fn links(namespace: &rack::Namespace) -> Vec<String> {
    let links = namespace.ip_json("link show");
    let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
    names.filter(|name| name != "lo").collect()
}

#[test]
fn a_namespace_is_gone_after_its_drop() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let (stays, goes) = (rack.namespace("stays"), rack.namespace("goes"));
    net::connect(&stays, "near", &goes, "far");
    assert_eq!(links(&stays), ["near"], "the cable is there while both ends are");
    let server = goes.serve("server", &[80]);
    drop(goes);
    assert_eq!(links(&stays), ["near"], "a process in a namespace keeps it");
    drop(server);
    // A cable goes when the namespace of its other end does.
    eventually_equal("the cable to the dropped namespace is gone", secs(10), &Vec::<String>::new(), || links(&stays));
}

#[test]
fn the_hosts_own_network_is_not_touched() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let before = fs::read_to_string("/proc/self/net/dev").unwrap().lines().count();
    let switch = rack.switch("link");
    switch.plug(&rack.namespace("host"), "eth0", &["10.0.0.1/24"]);
    let after = fs::read_to_string("/proc/self/net/dev").unwrap().lines().count();
    assert_eq!(before, after, "no interface came into the namespace of the test");
}

#[test]
fn a_client_reaches_a_server_over_a_switch_in_both_families() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let switch = rack.switch("link");
    let (client, host) = (rack.namespace("client"), rack.namespace("host"));
    switch.plug(&client, "eth0", &["10.0.0.1/24", "fd00::1/64"]);
    switch.plug(&host, "eth0", &["10.0.0.2/24", "fd00::2/64"]);
    let _server = host.serve("web", &[80, 8080]);
    for (to, from) in [("10.0.0.2:80", "10.0.0.1"), ("10.0.0.2:8080", "10.0.0.1"), ("[fd00::2]:80", "fd00::1")] {
        let answer = client.get(address(to)).unwrap_or_else(|error| panic!("{to}: {error}"));
        assert_eq!((answer.status, &*answer.name), (200, "web"), "{to} is answered by the server");
        assert_eq!(answer.source, Some(from.parse::<IpAddr>().unwrap()), "the server sees the client's own address");
    }
    client.get(address("10.0.0.2:81")).expect_err("no server listens on port 81");
}

#[test]
fn an_arp_question_is_answered_by_the_owner_and_shows_in_the_neighbor_table() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let switch = rack.switch("link");
    let (client, host) = (rack.namespace("client"), rack.namespace("host"));
    switch.plug(&client, "eth0", &["10.0.0.1/24"]);
    let port = switch.plug(&host, "eth0", &["10.0.0.2/24"]);
    assert_eq!(client.who_has("eth0", "10.0.0.2".parse().unwrap(), millis(300)), [port.mac()]);
    assert_eq!(client.who_has("eth0", "10.0.0.3".parse().unwrap(), millis(300)), [], "nobody has this one");
    client.get(address("10.0.0.2:80")).expect_err("nobody listens");
    assert_eq!(client.neighbors().get(&"10.0.0.2".parse::<IpAddr>().unwrap()), Some(&port.mac()));
    client.forget_neighbors();
    assert_eq!(client.neighbors().len(), 0, "neighbors are forgotten");
}

#[test]
fn a_cut_cable_keeps_its_carrier_and_an_unplugged_one_does_not() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let switch = rack.switch("link");
    let (client, host) = (rack.namespace("client"), rack.namespace("host"));
    switch.plug(&client, "eth0", &["10.0.0.1/24"]);
    let port = switch.plug(&host, "eth0", &["10.0.0.2/24"]);
    let _server = host.serve("web", &[80]);
    let works = || client.get_path(address("10.0.0.2:80"), "/", millis(300)).is_ok();
    let carrier = || host.ip_json("link show dev eth0")[0]["operstate"].as_str().unwrap().to_owned();
    eventually("the link works at first", secs(5), || if works() { Ok(()) } else { Err("it does not") });
    port.cut();
    assert!(!works(), "a cut cable carries nothing");
    assert_eq!(carrier(), "UP", "the host of a cut cable is not told");
    port.restore();
    eventually("the restored cable works", secs(5), || if works() { Ok(()) } else { Err("it does not") });
    port.unplug();
    eventually_equal("an unplugged host sees its carrier go", secs(5), &"DOWN".to_owned(), || {
        let state = carrier();
        if state == "LOWERLAYERDOWN" { "DOWN".into() } else { state }
    });
    port.restore();
    eventually("the plugged cable works", secs(5), || if works() { Ok(()) } else { Err("it does not") });
}

#[test]
fn steady_asking_shows_an_outage_and_who_answered() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let switch = rack.switch("link");
    let (client, host) = (rack.namespace("client"), rack.namespace("host"));
    switch.plug(&client, "eth0", &["10.0.0.1/24"]);
    switch.plug(&host, "eth0", &["10.0.0.2/24"]);
    let server = host.serve("one", &[80]);
    let asking = client.ask_steadily(address("10.0.0.2:80"), millis(5));
    let answered_by = |name: &str| {
        let seen = asking.outcomes();
        if seen.servers().iter().any(|server| server == name) { Ok(()) } else { Err(seen.to_string()) }
    };
    eventually("the first server answers", secs(5), || answered_by("one"));
    server.freeze();
    eventually("a request is lost while the server is frozen", secs(5), || {
        let seen = asking.outcomes();
        if seen.lost() > 0 { Ok(()) } else { Err(seen.to_string()) }
    });
    server.kill();
    let _second = host.serve("two", &[80]);
    eventually("the second server answers", secs(5), || answered_by("two"));
    let outcomes = asking.stop();
    assert!(outcomes.longest_gap() >= millis(200), "the outage shows: {outcomes}");
    assert_eq!(outcomes.servers(), ["one", "two"]);
}

#[test]
fn a_time_out_says_what_was_expected_and_what_was_seen() {
    let text = text_of_panic(|| eventually("the moon is full", millis(20), || Err::<(), _>("half a moon")));
    assert!(text.contains("not within 20ms: the moon is full"), "{text}");
    assert!(text.contains("last seen: half a moon"), "{text}");
    let text = text_of_panic(|| eventually_equal("a sum", millis(1), &3, || 4));
    assert!(text.contains("last seen: 4") && text.contains("expected:  3"), "{text}");
    let text = text_of_panic(|| rack::throughout("it holds", secs(5), || Err("it broke")));
    assert!(text.contains("it holds") && text.contains("it broke"), "{text}");
}

#[test]
fn a_process_that_ends_too_early_shows_its_log_at_once() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let mut command = Command::new("sh");
    command.args(["-c", "echo the disk is full >&2; exit 3"]);
    let process = rack.namespace("host").start("failing", command);
    let start = rack::now();
    let text = text_of_panic(|| drop(process.wait_for_log("ready", secs(60))));
    assert!(text.contains("host.failing ended with exit status: 3"), "{text}");
    assert!(text.contains("the disk is full"), "{text}");
    assert!(start.elapsed() < secs(30), "it did not wait for the deadline");
}

#[test]
fn dropping_a_process_ends_those_it_started() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 600 & echo started $!; wait"]);
    let process = rack.namespace("host").start("parent", command);
    let line = process.wait_for_log("started", secs(10));
    let child: u32 = line.split(' ').next_back().unwrap().parse().unwrap();
    let child_of_ours = || fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|c| c.contains("600"));
    eventually("the grandchild runs", secs(10), || if child_of_ours() { Ok(()) } else { Err("it does not") });
    drop(process);
    eventually("the grandchild has ended", secs(10), || if child_of_ours() { Err("it runs") } else { Ok(()) });
}

#[test]
fn the_folder_goes_with_the_rack_also_after_a_panic() {
    let mut folder = PathBuf::new();
    text_of_panic(|| {
        let rack = Rack::new("panics");
        folder = rack.folder().to_owned();
        assert!(folder.is_dir(), "there is a folder while the rack stands");
        panic!("{}", "on purpose");
    });
    assert!(folder.is_absolute() && !folder.exists(), "{} is gone", folder.display());
}

/// Not a test: the program that the next test kills.
#[test]
#[ignore = "runs until it is killed; started by the test after it"]
fn stand_until_killed() {
    if std::env::var_os("STAND_UNTIL_KILLED").is_none() {
        return;
    }
    let rack = Rack::new("killed");
    let server = rack.namespace("host").serve("web", &[80]);
    let bird =
        Need::Bird.look().is_ok().then(|| rack.namespace("router").bird("router id 10.0.0.1; protocol device {}"));
    println!("folder {}", rack.folder().display());
    println!("pid {}", server.pid());
    bird.iter().for_each(|bird| println!("pid {}", bird.process().pid()));
    let frr = Need::Frr.look().is_ok().then(|| rack.namespace("frr").frr("router bgp 64512"));
    frr.iter().flat_map(|frr| [frr.zebra(), frr.bgpd()]).for_each(|process| println!("pid {}", process.pid()));
    println!("stands");
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_survives_a_test_program_that_is_killed() {
    let Some(_rack) = Rack::for_test(&[]) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "stand_until_killed"]).env("STAND_UNTIL_KILLED", "1");
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut pids = Vec::new();
    let mut folder = PathBuf::new();
    for line in BufReader::new(program.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(pid) = line.strip_prefix("pid ") {
            pids.push(pid.parse::<u32>().unwrap());
        } else if let Some((_, path)) = line.split_once("folder ") {
            folder = path.into();
        } else if line == "stands" {
            break;
        }
    }
    assert!(!pids.is_empty() && folder.is_dir(), "it stood: {pids:?} in {}", folder.display());
    // A process that waits to be reaped by init counts as ended.
    let lives = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains("State:") && !status.contains("State:\tZ")
    };
    assert!(pids.iter().all(lives), "its processes run");
    program.kill().unwrap();
    program.wait().unwrap();
    eventually("its processes have ended", secs(10), || {
        let living: Vec<_> = pids.iter().filter(|pid| lives(pid)).collect();
        if living.is_empty() { Ok(()) } else { Err(format!("{living:?} live")) }
    });
    // Any next test program's first rack takes the abandoned folder away.
    let reclaiming = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_folder_goes_with_the_rack_also_after_a_panic"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(reclaiming.unwrap().success(), "the next program ran");
    assert!(!folder.exists(), "{} was reclaimed", folder.display());
}

#[test]
fn two_birds_exchange_routes_and_equal_ones_become_multipath() {
    let Some(rack) = Rack::for_test(&[Need::Bird]) else { return };
    let switch = rack.switch("fabric");
    let router = rack.router("router");
    switch.plug(&router, "eth0", &["10.0.0.1/24"]);
    let speaker = |number: u8| {
        let host = rack.namespace(&format!("speaker{number}"));
        switch.plug(&host, "eth0", &[&format!("10.0.0.1{number}/24")]);
        let bird = host.bird(&format!(
            "router id 10.0.0.1{number};
            protocol device {{}}
            protocol static {{ ipv4; route 192.0.2.1/32 blackhole; }}
            protocol bgp tor {{ local as 64513; neighbor 10.0.0.1 as 64512; ipv4 {{ export all; import none; }}; }}"
        ));
        (host, bird)
    };
    let speakers = [speaker(1), speaker(2)];
    let peers = [1, 2].map(|number| {
        format!(
            "protocol bgp speaker{number} {{
                local as 64512; neighbor 10.0.0.1{number} as 64513; connect delay time 1;
                ipv4 {{ import all; export none; }}; }}\n"
        )
    });
    let bird = router.bird(&format!("router id 10.0.0.1;\n{}{}", bird::KERNEL, peers.concat()));
    let session = bird.wait_established("speaker1", secs(20));
    assert_eq!(session.times_established, 1, "{session:?}");
    bird.wait_established("speaker2", secs(20));
    let both: BTreeSet<IpAddr> = ["10.0.0.11", "10.0.0.12"].map(|hop| hop.parse().unwrap()).into();
    let expected = [("192.0.2.1/32".to_owned(), both.clone())].into();
    eventually_equal("BIRD holds the route from both", secs(10), &expected, || bird.routes());
    eventually_equal("the kernel has both next hops", secs(10), &both, || router.next_hops("192.0.2.1/32"));
    let routes = bird.route("192.0.2.1/32");
    assert_eq!(routes.iter().map(|route| &*route.attributes["BGP.as_path"]).collect::<Vec<_>>(), ["64513", "64513"]);
    assert_eq!(bird.route("192.0.2.2/32"), [], "a route that nobody announced");

    speakers[1].1.process().kill();
    let one: BTreeSet<IpAddr> = ["10.0.0.11".parse().unwrap()].into();
    eventually_equal("the dead speaker's next hop is gone", secs(10), &one, || router.next_hops("192.0.2.1/32"));
    assert!(!bird.session("speaker2").is_established(), "its session is down");
    assert_eq!(bird.session("speaker1").times_established, 1, "the other session has not flapped");
    bird.command("restart speaker1");
    eventually("a session that flapped is seen to have", secs(20), || match bird.session("speaker1") {
        session if session.times_established == 2 => Ok(()),
        session => Err(format!("{session:?}")),
    });
}

#[test]
fn what_is_missing_is_written_where_make_test_finds_it() {
    let folder = Rack::new("skips");
    let file: &Path = &folder.folder().join("skips");
    // In a process of its own: the environment belongs to all threads.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "skip_on_purpose"])
        .env("CRIER_RACK_SKIPS", file)
        .env_remove("CRIER_RACK_STRICT")
        .output()
        .unwrap();
    assert!(output.status.success(), "a skipped test does not fail");
    assert!(String::from_utf8_lossy(&output.stderr).contains("SKIPPED it: no reason"), "it is said past the capture");
    assert_eq!(fs::read_to_string(file).unwrap(), "SKIPPED it: no reason\n");
}

/// Not a test: what the test above runs.
#[test]
#[ignore = "skips on purpose; started by the test before it"]
fn skip_on_purpose() {
    rack::skip("it", "no reason");
}

#[test]
fn at_a_site_every_pod_is_reached_from_every_node_and_from_outside_by_nobody() {
    let Some(rack) = Rack::for_test(&[]) else { return };
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 2);
    let pods = [site.node(0).pod("web-1", &[80]), site.node(1).pod("web-2", &[80])];
    let outside = site.outside("outside");
    for pod in &pods {
        for to in [IpAddr::V4(pod.address), IpAddr::V6(pod.address6)] {
            for node in &site.nodes {
                let answer = node.get((to, 80)).unwrap_or_else(|error| panic!("{} to {to}: {error}", node.name()));
                assert_eq!(answer.name, pod.name());
            }
            outside.get_path((to, 80), "/", millis(300)).expect_err("the router knows no way to pods");
        }
    }
    let server = site.node(0).serve("on-node", &[8080]);
    let answer = outside.get((site.node(0).address, 8080)).expect("the router forwards to nodes");
    assert_eq!(answer.source, Some(IpAddr::V4(outside.address)), "and the node sees the outside address");
    drop(server);
}

#[test]
fn frr_takes_routes_from_two_birds_into_the_kernel() {
    let Some(rack) = Rack::for_test(&[Need::Bird, Need::Frr]) else { return };
    let site = Site::new(&rack, "10.0.0.0/24", "fd00::/64", 2);
    let frr = site.router.frr(&format!(
        "router bgp 64512
         bgp router-id 10.0.0.1
         {}
         neighbor nodes peer-group
         neighbor nodes remote-as 64513
         neighbor 10.0.0.11 peer-group nodes
         neighbor 10.0.0.12 peer-group nodes
         address-family ipv4 unicast
          neighbor nodes activate
         exit-address-family
         address-family ipv6 unicast
          neighbor nodes activate
          neighbor nodes route-map global in
         exit-address-family
         route-map global permit 10
          set ipv6 next-hop prefer-global",
        frr::PLAIN
    ));
    let birds = site.nodes.iter().map(|node| {
        node.bird(&format!(
            "router id {};
            protocol device {{}}
            protocol static {{ ipv4; route 192.0.2.1/32 blackhole; }}
            protocol static {{ ipv6; route 2001:db8::1/128 blackhole; }}
            protocol bgp tor {{
                local as 64513; neighbor 10.0.0.1 as 64512;
                ipv4 {{ export where source = RTS_STATIC; import all; }};
                ipv6 {{ export where source = RTS_STATIC; import all; next hop address {}; }}; }}",
            node.address, node.address6
        ))
    });
    let birds: Vec<_> = birds.collect();
    for node in &site.nodes {
        let session = frr.wait_established(&node.address.to_string(), secs(30));
        assert_eq!(session.times_established, 1, "{session:?}");
    }
    let both: BTreeSet<IpAddr> = site.nodes.iter().map(|node| node.address.into()).collect();
    let both6: BTreeSet<IpAddr> = site.nodes.iter().map(|node| node.address6.into()).collect();
    let expected = [("192.0.2.1/32".to_owned(), both.clone()), ("2001:db8::1/128".to_owned(), both6.clone())].into();
    eventually_equal("FRR holds the routes from both", secs(20), &expected, || frr.routes());
    eventually_equal("the kernel has both next hops", secs(10), &both, || site.router.next_hops("192.0.2.1/32"));
    eventually_equal("and for IPv6", secs(10), &both6, || site.router.next_hops("2001:db8::1/128"));
    assert_eq!(frr.route("192.0.2.1/32")["paths"][0]["aspath"]["string"], "64513");

    frr.configure(&["router bgp 64512", "network 198.51.100.0/24"]);
    eventually("a route of FRR's own comes to BIRD", secs(10), || {
        let seen = birds[0].routes();
        if seen.contains_key("198.51.100.0/24") { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    birds[1].process().kill();
    let one = [site.node(0).address.into()].into();
    eventually_equal("the dead one's next hop is gone", secs(10), &one, || site.router.next_hops("192.0.2.1/32"));
    assert!(!frr.session("10.0.0.12").is_established(), "its session is down");
}

#[test]
fn a_capture_sees_arp_and_the_messages_of_a_bgp_session() {
    let Some(rack) = Rack::for_test(&[Need::Bird]) else { return };
    let switch = rack.switch("link");
    let (one, two) = (rack.namespace("one"), rack.namespace("two"));
    let port = switch.plug(&one, "eth0", &["10.0.0.1/24"]);
    switch.plug(&two, "eth0", &["10.0.0.2/24"]);
    let before = rack::now();
    let capture = port.capture();
    let _passive = two.bird(
        "router id 10.0.0.2; protocol device {}
        protocol bgp one { local as 64512; neighbor 10.0.0.1 as 64513; passive; ipv4 { import all; export none; }; }",
    );
    let bird = |routes: &str| {
        format!(
            "router id 10.0.0.1; protocol device {{}}
            protocol static {{ ipv4; {routes} }}
            protocol bgp two {{
                local as 64513; neighbor 10.0.0.2 as 64512; connect delay time 1;
                ipv4 {{ import none; export all; }}; }}"
        )
    };
    let speaker = one.bird(&bird("route 192.0.2.1/32 blackhole; route 198.51.100.0/24 blackhole;"));
    let announced = eventually("the announcement is captured", secs(20), || {
        let messages = capture.announcements("192.0.2.1/32");
        messages.first().cloned().ok_or_else(|| format!("{:?}", capture.bgp()))
    });
    assert_eq!(announced.from.ip(), IpAddr::from([10, 0, 0, 1]), "the speaker announced it");
    assert!(before < announced.at && announced.at <= rack::now(), "its time lies between");
    let opens: BTreeSet<IpAddr> =
        capture.bgp().iter().filter(|m| m.kind == BgpKind::Open).map(|message| message.from.ip()).collect();
    assert_eq!(opens.len(), 2, "both sides sent an OPEN");
    assert_eq!(capture.withdrawals("192.0.2.1/32").len(), 0, "nothing was withdrawn yet");

    speaker.configure(&bird("route 198.51.100.0/24 blackhole;"));
    eventually("the withdrawal is captured", secs(10), || {
        capture.withdrawals("192.0.2.1/32").first().cloned().ok_or_else(|| format!("{:?}", capture.bgp()))
    });
    speaker.process().stop(secs(10));
    eventually("the farewell is captured: Cease", secs(10), || {
        let messages = capture.bgp();
        let has_cease = messages.iter().any(|m| matches!(m.kind, BgpKind::Notification { code: 6, .. }));
        if has_cease { Ok(()) } else { Err(format!("{messages:?}")) }
    });

    let asked: IpAddr = "10.0.0.2".parse().unwrap();
    let arps = capture.arps();
    let question = arps.iter().find(|(_, arp)| arp.operation == ArpOperation::Request && arp.target == asked);
    let (asked_at, question) = question.unwrap_or_else(|| panic!("nobody asked for {asked}: {arps:?}"));
    assert_eq!(question.sender_mac, port.mac(), "the speaker asked");
    assert!(*asked_at < announced.at, "before it could announce");
}

/// What a process of `crier-rack stand` tells of itself before it waits.
struct Standing {
    program: std::process::Child,
    folder: PathBuf,
    pids: Vec<u32>,
}

fn stand(mut command: Command) -> Standing {
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    let (mut folder, mut pids) = (PathBuf::new(), Vec::new());
    for line in BufReader::new(program.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(path) = line.strip_prefix("folder ") {
            folder = path.into();
        } else if let Some((_, pid)) = line.split_once(" pid ") {
            pids.push(pid.trim().parse().unwrap());
        } else if line.starts_with("stands") {
            break;
        }
    }
    assert!(folder.is_dir() && !pids.is_empty(), "it stands: {}, {pids:?}", folder.display());
    Standing { program, folder, pids }
}

fn ends_cleanly_by_interrupt(command: Command) {
    let Standing { mut program, folder, pids } = stand(command);
    let interrupted = Command::new("kill").args(["-INT", &program.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(program.wait().unwrap().code(), Some(130), "it ends as programs do that are interrupted");
    assert!(!folder.exists(), "{} is gone", folder.display());
    for pid in pids {
        let path = PathBuf::from(format!("/proc/{pid}"));
        eventually(
            &format!("process {pid} has gone"),
            secs(10),
            || if path.exists() { Err("it lives") } else { Ok(()) },
        );
    }
}

#[test]
fn an_interrupted_rack_takes_everything_with_it() {
    let Some(_rack) = Rack::for_test(&[]) else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_crier-rack"));
    command.args(["stand", "2"]);
    ends_cleanly_by_interrupt(command);
}

#[test]
fn a_rack_stands_for_a_user_without_rights_where_the_kernel_allows_it() {
    let unprivileged = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
        command
    };
    let allowed = unprivileged("unshare").args(["--user", "--map-root-user", "--net", "true"]).output();
    if !allowed.is_ok_and(|output| output.status.success()) {
        return rack::skip(
            &rack::test_name(),
            "cannot become an unprivileged user, or the kernel gives that none a user namespace",
        );
    }
    // The unprivileged user may not look into the folder that Cargo builds in.
    let rack = Rack::new(&rack::test_name());
    let program = rack.folder().join("crier-rack");
    // By another process: a file that this one has open for writing may be inherited by a child that another thread starts,
    // and is too busy to be run then.
    let copied = Command::new("cp").args([env!("CARGO_BIN_EXE_crier-rack").as_ref(), program.as_os_str()]).status();
    assert!(copied.unwrap().success());
    let mut command = unprivileged(program.to_str().unwrap());
    command.args(["stand", "1"]);
    ends_cleanly_by_interrupt(command);
}
