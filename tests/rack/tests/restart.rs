//! An agent that is restarted: its routers see no event and no UPDATE, a client loses no request, and another file is told by its
//! difference alone. What comes back from systemd's store and is no session is refused, and a new session follows.

use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use rack::capture::{BgpKind, BgpMessage, Capture};
use rack::crier::Crier;
use rack::uplink::{Uplink, ask_web};
use rack::{
    Manifests, Need, Process, Rack, Service, Site, bird, eventually, eventually_equal, frr, millis, rest, secs,
    throughout,
};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Bird, Need::Crier];

/// The shortest hold time that the sessions use, and so long that KEEPALIVEs go both ways.
const KEEPALIVES: std::time::Duration = std::time::Duration::from_secs(4);

/// A node with two Services and two sessions with a router, one of them signed with TCP MD5, and a client beyond the router.
struct Town {
    uplink: Uplink,
    crier: Crier,
    capture: Capture,
}

impl Deref for Town {
    type Target = Uplink;

    fn deref(&self) -> &Uplink {
        &self.uplink
    }
}

impl Town {
    fn new(rack: &Rack) -> Town {
        let uplink = Uplink::new(rack);
        let Uplink { site, manifests, password, .. } = &uplink;
        manifests.service(&Service::new("other").anywhere().addresses("198.51.100.1"));
        manifests.service(&Service::new("web6").anywhere().families(&["IPv6"]).addresses("2001:db8::1"));
        let node = site.node(0);
        let capture = node.port.capture();
        let crier = node.crier_as_unit(node.name(), &configuration(manifests, password));
        let town = Town { uplink, crier, capture };
        town.crier.wait_ready(secs(30));
        town.wait_established();
        town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
        town
    }

    fn configuration(&self) -> String {
        configuration(&self.manifests, &self.password)
    }

    /// Waits until the router has exactly these routes.
    #[track_caller]
    fn has(&self, prefixes: &[&str]) {
        let mut expected: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        expected.sort();
        eventually_equal("the routes of the router", secs(20), &expected, || {
            let mut routes: Vec<String> = self.bird.routes().into_keys().collect();
            routes.sort();
            routes
        });
    }

    /// Waits until the new agent goes on with so many sessions and is done with them.
    #[track_caller]
    fn goes_on(&self, sessions: usize) {
        self.crier.wait_ready(secs(30));
        eventually_equal("sessions that go on", secs(10), &sessions, || {
            self.log_since_start().lines().filter(|line| line.contains("session goes on")).count()
        });
    }

    /// While the agent runs, systemd has the two sessions that stand, for the case that it dies, and nothing else.
    #[track_caller]
    fn stores_only_what_stands(&self) {
        let expected = ["bgp-live-ledger-", "bgp-live-ledger-", "bgp-live-socket-", "bgp-live-socket-"];
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        eventually_equal("what systemd has of two sessions that stand", secs(5), &expected, || {
            let names = self.crier.unit().stored().into_iter();
            names.map(|name| name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()).collect()
        });
    }

    /// The log of the agent that runs now: those before it wrote into the same file.
    fn log_since_start(&self) -> String {
        let log = self.crier.process().log();
        let start = log.rfind("INFO starting").unwrap_or_default();
        log[start..].to_owned()
    }
}

fn configuration(manifests: &Manifests, password: &std::path::Path) -> String {
    format!(
        r#"
{}
[api]
listen = ""

[[pool]]
name = "public"
addresses = ["203.0.113.0/28", "2001:db8::/120"]
bind = "lo"

[[pool]]
name = "second"
addresses = ["198.51.100.0/28"]
bind = "lo"

[bgp]
asn = 64513
listen = []

[[bgp.peer]]
name = "signed"
address = "192.168.35.1"
asn = 64512
password-file = "{}"
hold-time = "9s"
connect-retry-time = "1s"

[[bgp.peer]]
name = "plain"
address = "fd35::1"
asn = 64512
hold-time = "9s"
connect-retry-time = "1s"

[[bgp.advertisement]]
pools = ["public"]
communities = ["64512:100"]

[[bgp.advertisement]]
pools = ["second"]
"#,
        manifests.section(),
        password.display()
    )
}

/// What went by from the `after`th message on that is no KEEPALIVE, in words.
fn said(capture: &Capture, after: usize) -> Vec<String> {
    let said = capture.bgp().into_iter().skip(after).filter(|message| message.kind != BgpKind::Keepalive);
    said.map(|BgpMessage { from, kind, .. }| format!("{from}: {kind:?}")).collect()
}

#[test]
fn a_restart_is_no_event_for_the_router_and_costs_no_request() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let client = town.site.outside("client");
    let asking = ask_web(&client);
    for round in 0..3 {
        let (before, heard) = (town.bird.process().log(), town.capture.bgp().len());
        let configuration = town.configuration();
        town.crier.restart(&configuration);
        town.goes_on(2);
        rest(KEEPALIVES);
        assert_eq!(said(&town.capture, heard), Vec::<String>::new(), "round {round}: nothing but KEEPALIVEs went by");
        let events = town.bird.process().log().split_off(before.len());
        assert!(!events.contains("signed") && !events.contains("plain"), "round {round}: the router logged {events}");
        assert_eq!(town.established(), [1, 1]);
        town.stores_only_what_stands();
        let peer = &town.crier.json("bgp peers signed")["peers"][0];
        assert_eq!((&peer["state"], &peer["prefixes_sent"]), (&"Established".into(), &2.into()), "{peer}");
    }
    let keepalives = town.capture.bgp().iter().filter(|message| message.kind == BgpKind::Keepalive).count();
    assert!(keepalives > 4, "{keepalives} KEEPALIVEs: the hold timers are kept from running out");
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn another_file_is_told_by_its_difference_alone() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let client = town.site.outside("client");
    let asking = ask_web(&client);
    let heard = town.capture.bgp().len();
    let without = town.configuration().replace("[[bgp.advertisement]]\npools = [\"second\"]\n", "");
    town.crier.restart(&without);
    town.goes_on(2);
    town.has(&["203.0.113.1/32", "2001:db8::1/128"]);
    let said = said(&town.capture, heard);
    assert_eq!(said.len(), 1, "one withdrawal is all that differs: {said:?}");
    assert!(said[0].contains("withdrawn: [\"198.51.100.1/32\"]"), "{said:?}");

    let heard = town.capture.bgp().len();
    let with_another_community = town.configuration().replace("64512:100", "64512:200");
    town.crier.restart(&with_another_community);
    town.goes_on(2);
    town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
    rest(secs(1));
    let said = self::said(&town.capture, heard);
    assert_eq!(said.len(), 3, "one for each route whose announcement differs: {said:?}");
    assert_eq!(town.established(), [1, 1]);
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn a_session_that_the_new_file_would_negotiate_otherwise_ends_and_the_other_goes_on() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let heard = town.capture.bgp().len();
    let other = town.configuration().replacen("hold-time = \"9s\"", "hold-time = \"30s\"", 1);
    town.crier.restart(&other);
    town.goes_on(1);
    eventually_equal("the changed session is a new one, and the other is not", secs(20), &[2, 1], || {
        town.established()
    });
    let said = said(&town.capture, heard);
    let cease = said.iter().find(|said| said.contains("Notification")).expect("the router is told");
    assert!(cease.contains("code: 6, subcode: 6"), "Other Configuration Change: {cease}");
    let log = town.log_since_start();
    assert!(log.contains("the settings of the peer have changed: hold-time"), "{log}");
    town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
}

#[test]
fn a_stop_withdraws_and_says_cease_and_keeps_nothing() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let town = Town::new(&rack);
    let heard = town.capture.bgp().len();
    town.crier.end_with_job("stop");
    town.has(&[]);
    assert_eq!(town.crier.unit().stored(), Vec::<String>::new());
    let said = said(&town.capture, heard);
    assert_eq!(said.iter().filter(|said| said.contains("code: 6, subcode: 2")).count(), 2, "{said:?}");
}

#[test]
fn a_session_that_the_router_ended_while_nobody_ran_is_a_new_one() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    town.crier.end_with_job("restart");
    assert_eq!(town.crier.unit().stored(), ["bgp-socket-0", "bgp-socket-1", "bgp-state-0", "bgp-state-1"]);
    town.bird.command("restart signed");
    let configuration = town.configuration();
    town.crier.start_again(&configuration);
    eventually_equal("the one is new, and the other is not", secs(20), &[2, 1], || town.established());
    town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
    let log = town.log_since_start();
    assert!(log.contains("Administrative Reset") || log.contains("Administrative Shutdown"), "the log says why: {log}");
}

/// Input: the file of the password is gone when the agent restarts. Output: the session goes on with the key that its
/// connection has, and what ends it is signed: the router ends it at once. It dropped the unsigned Cease, and kept session and routes for
/// the hold time.
#[test]
fn a_session_goes_on_and_ends_signed_while_the_file_of_its_password_is_missing() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let configuration = town.configuration();
    let stands = |town: &Town| {
        throughout("the session stands", secs(11), || match (town.established(), town.bird.session("signed")) {
            ([1, 1], session) if session.is_established() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
    };
    town.crier.end_with_job("restart");
    std::fs::remove_file(&town.password).expect("it is there");
    town.crier.start_again(&configuration);
    town.goes_on(2);
    stands(&town);
    let problems = town.crier.status()["problems"].to_string();
    assert!(problems.contains("tor.md5 is missing: the session goes on"), "{problems}");
    // The file comes back, and is gone once more.
    rack.write("tor.md5", "hunter-one");
    town.crier.reload();
    stands(&town);
    let problems = town.crier.status()["problems"].to_string();
    assert!(!problems.contains("tor.md5"), "{problems}");
    town.crier.end_with_job("restart");
    std::fs::remove_file(&town.password).expect("it is there");
    town.crier.start_again(&configuration);
    town.goes_on(2);
    assert!(town.crier.verb("bgp shutdown signed").status.success());
    eventually("the router ends the session at once", secs(3), || {
        let session = town.bird.session("signed");
        if session.is_established() { Err(format!("{session:?}")) } else { Ok(()) }
    });
    town.has(&["2001:db8::1/128"]);
}

/// A file in memory, sealed as an agent seals it or not.
fn memory(octets: &[u8], sealed: bool) -> OwnedFd {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let memory =
        memfd_create("garbage", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("the kernel has memfd");
    let mut file = File::from(memory);
    file.write_all(octets).expect("there is room");
    if sealed {
        let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&file, all).expect("it can be sealed");
    }
    file.into()
}

#[test]
fn what_comes_back_and_is_no_session_is_refused_and_a_new_session_follows() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    type Garbage = fn() -> (&'static str, OwnedFd);
    let table: [(&str, Garbage); 6] = [
        ("it does not begin with", || ("bgp-state-0", memory(b"\xff\xfe garbage", true))),
        ("it does not begin with", || ("bgp-state-0", memory(b"", true))),
        ("it has version 7", || ("bgp-state-0", memory(b"crier-bgp-session 7 2 00\n{}", true))),
        ("it is not sealed", || ("bgp-state-0", memory(b"crier-bgp-session 1 2 00\n{}", false))),
        ("is no TCP socket", || ("bgp-socket-0", memory(b"no socket", true))),
        ("is not crier's", || ("something-else", memory(b"", true))),
    ];
    for (round, (why, garbage)) in table.into_iter().enumerate() {
        town.crier.end_with_job("restart");
        let (name, descriptor) = garbage();
        town.crier.unit().store(name, descriptor);
        let configuration = town.configuration();
        town.crier.start_again(&configuration);
        town.crier.wait_ready(secs(30));
        let log = town.log_since_start();
        assert!(log.contains(why), "round {round}: {why} is not in {log}");
        town.bird.wait_established("signed", secs(20));
        town.bird.wait_established("plain", secs(20));
        town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
        town.stores_only_what_stands();
    }
    let [one, other] = town.established();
    assert_eq!(one + other, 2 + 5, "the session beside the refused one went on each time");
}

#[test]
fn frr_sees_no_event_of_a_restart_and_no_update() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Frr, Need::Crier]) else { return };
    let manifests = Manifests::new(&rack);
    manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let router = site.router.frr(&frr::waits_for_node(&[], &[]));
    let node = site.node(0);
    let configuration = format!(
        "{}\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\nbind = \"lo\"\n[bgp]\nasn = 64513\nlisten = []\n\
         [[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
         [[bgp.advertisement]]\n",
        manifests.section()
    );
    let mut crier = node.crier_as_unit(node.name(), &configuration);
    crier.wait_ready(secs(30));
    router.wait_established("192.168.35.11", secs(20));
    let counts = || {
        let told = &router.json("show bgp neighbors 192.168.35.11 json")["192.168.35.11"];
        let stats = &told["messageStats"];
        [told["connectionsEstablished"].clone(), stats["updatesRecv"].clone(), stats["opensRecv"].clone()]
    };
    eventually("the route has come", secs(10), || {
        if router.routes().contains_key("203.0.113.1/32") { Ok(()) } else { Err("no route".to_owned()) }
    });
    rest(secs(1));
    let before = counts();
    for _ in 0..3 {
        crier.restart(&configuration);
        crier.wait_ready(secs(30));
        crier.process().wait_for_log("session goes on", secs(10));
        rest(secs(1));
    }
    assert_eq!(counts(), before, "sessions established, UPDATEs and OPENs received");
    assert!(router.routes().contains_key("203.0.113.1/32"));
}

#[test]
fn an_agent_that_knows_nothing_yet_withdraws_nothing() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let heard = town.capture.bgp().len();
    town.crier.end_with_job("restart");
    let folder = town.manifests.path().to_owned();
    let away = folder.with_extension("away");
    std::fs::rename(&folder, &away).expect("it can be renamed");
    std::fs::remove_dir_all(town.crier.socket().with_file_name("state")).expect("the World on disk can be removed");
    let configuration = town.configuration();
    town.crier.start_again(&configuration);
    town.crier.process().wait_for_log("session taken over", secs(10));
    rest(secs(6));
    assert!(!town.crier.is_ready(), "it has no plan");
    assert_eq!(said(&town.capture, heard), Vec::<String>::new(), "nothing but KEEPALIVEs");
    std::fs::rename(&away, &folder).expect("it can be renamed");
    town.goes_on(2);
    rest(secs(1));
    assert_eq!(said(&town.capture, heard), Vec::<String>::new(), "all is as it was");
    assert_eq!(town.established(), [1, 1]);
}

/// The sessions are in systemd's store while the agent runs: the next one reads on and writes on, and tells the routes once more at most.
#[test]
fn a_killed_agent_is_no_event_for_the_router_and_costs_no_request() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let client = town.site.outside("client");
    let asking = ask_web(&client);
    town.stores_only_what_stands();
    let (before, heard) = (town.bird.process().log(), town.capture.bgp().len());
    town.crier.kill();
    rest(secs(1));
    let configuration = town.configuration();
    town.crier.start_again(&configuration);
    town.goes_on(2);
    rest(KEEPALIVES);
    let unexpected: Vec<BgpMessage> = town.capture.bgp().into_iter().skip(heard).collect();
    let unexpected: Vec<&BgpMessage> = unexpected
        .iter()
        .filter(|message| match &message.kind {
            BgpKind::Keepalive => false,
            BgpKind::Update(update) => !update.withdrawn.is_empty(),
            _ => true,
        })
        .collect();
    assert!(unexpected.is_empty(), "routes may be told again, and nothing else: {unexpected:?}");
    let events = town.bird.process().log().split_off(before.len());
    assert!(!events.contains("signed") && !events.contains("plain"), "the router logged {events}");
    assert_eq!(town.established(), [1, 1]);
    let log = town.log_since_start();
    assert_eq!(log.matches("session taken over from the previous agent").count(), 2, "{log}");
    let peer = &town.crier.json("bgp peers signed")["peers"][0];
    assert_eq!(peer["session"]["former"]["taken-over"]["after_crash"].as_bool(), Some(true), "{peer}");
    town.stores_only_what_stands();
    let outcomes = asking.stop();
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
}

#[test]
fn an_agent_that_dies_again_at_once_leaves_no_session_to_the_next() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let configuration = town.configuration();
    for sessions in [2, 0] {
        town.stores_only_what_stands();
        town.crier.kill();
        town.crier.start_again(&configuration);
        town.crier.wait_ready(secs(30));
        town.bird.wait_established("signed", secs(30));
        town.bird.wait_established("plain", secs(30));
        town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
        let log = town.log_since_start();
        assert_eq!(log.matches("session taken over from the previous agent").count(), sessions, "{log}");
        assert_eq!(log.contains("within 60 s of taking it over"), sessions == 0, "{log}");
    }
    assert_eq!(town.established(), [2, 2]);
}

/// A node with one Service and one session with a router, which tells of it by `routes`, and a client beyond the router.
struct Crash {
    site: Site,
    manifests: Manifests,
    _page: Process,
}

impl Crash {
    fn new(rack: &Rack) -> Crash {
        let manifests = Manifests::new(rack);
        manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
        let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", 1);
        let node = site.node(0);
        let page = node.serve(node.name(), &[80]);
        Crash { site, manifests, _page: page }
    }

    fn configuration(&self, graceful_restart: bool) -> String {
        format!(
            "{}\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\nbind = \"lo\"\n[bgp]\nasn = 64513\nlisten = []\n\
             [[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
             graceful-restart = {graceful_restart}\n[[bgp.advertisement]]\n",
            self.manifests.section()
        )
    }

    /// Kills the agent and starts it again after a second, as systemd does; whether the router had the route all the time.
    #[track_caller]
    fn kill(&self, graceful_restart: bool, has_route: impl Fn() -> bool, sessions: impl Fn() -> usize) -> bool {
        let configuration = self.configuration(graceful_restart);
        let node = self.site.node(0);
        let mut crier = node.crier_as_unit(node.name(), &configuration);
        crier.wait_ready(secs(30));
        eventually("the route has come", secs(20), || if has_route() { Ok(()) } else { Err("no route") });
        rest(secs(3));
        let client = self.site.outside("client");
        let asking = ask_web(&client);
        crier.kill();
        // As where the unit has no FileDescriptorStoreMax: the connection ends with the agent.
        crier.unit().forget();
        let began = rack::now();
        let mut stayed = true;
        while began.elapsed() < secs(1) {
            stayed &= has_route();
            rest(millis(20));
        }
        crier.start_again(&configuration);
        let again = sessions() + 1;
        while sessions() < again && began.elapsed() < secs(30) {
            stayed &= has_route();
            rest(millis(20));
        }
        eventually("the route is there in the end", secs(20), || if has_route() { Ok(()) } else { Err("no route") });
        let former =
            if graceful_restart { "routes kept by graceful restart" } else { "routes withdrawn until the new session" };
        let log = crier.process().log();
        assert!(log.contains(former), "the log says what follows for the routes: {log}");
        let told = crier.json("bgp peers tor")["peers"][0]["session"]["former"]["lost"].clone();
        assert_eq!(told["routes_kept"].as_bool(), Some(graceful_restart), "{told}");
        rest(secs(2));
        stayed &= has_route();
        let outcomes = asking.stop();
        assert_eq!(outcomes.lost() == 0, stayed, "a client notices a route that goes: {outcomes}");
        stayed
    }
}

#[test]
fn bird_keeps_the_routes_of_a_killed_agent_where_graceful_restart_is_asked_for_and_drops_them_else() {
    for graceful_restart in [true, false] {
        let Some(rack) = Rack::for_test(&NEEDS) else { return };
        let crash = Crash::new(&rack);
        let bird = crash.site.router.bird(&format!(
            "router id 192.168.35.1;\n{}\nprotocol bgp tor {{ local as 64512; neighbor 192.168.35.11 as 64513; passive yes; \
             error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
            bird::KERNEL
        ));
        let has_route = || bird.routes().contains_key("203.0.113.1/32");
        let stayed = crash.kill(graceful_restart, has_route, || bird.session("tor").times_established);
        assert_eq!(stayed, graceful_restart);
        let log = bird.process().log();
        assert_eq!(log.contains("Neighbor graceful restart detected"), graceful_restart, "{log}");
    }
}

#[test]
fn frr_keeps_the_routes_of_a_killed_agent_where_graceful_restart_is_asked_for_and_drops_them_else() {
    for graceful_restart in [true, false] {
        let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Frr, Need::Crier]) else { return };
        let crash = Crash::new(&rack);
        let router = crash.site.router.frr(
            &frr::waits_for_node(&[], &[])
                .replace("bgp graceful-restart-disable", "bgp graceful-restart preserve-fw-state"),
        );
        let has_route = || router.routes().contains_key("203.0.113.1/32");
        let stayed = crash.kill(graceful_restart, has_route, || router.session("192.168.35.11").times_established);
        assert_eq!(stayed, graceful_restart);
    }
}

#[test]
fn an_agent_that_stops_takes_its_routes_back_also_where_graceful_restart_would_keep_them() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let crash = Crash::new(&rack);
    let bird = crash.site.router.bird(
        "router id 192.168.35.1;\nprotocol device {}\nprotocol bgp tor { local as 64512; neighbor 192.168.35.11 as 64513; passive yes; \
         ipv4 { import all; export none; }; }\n",
    );
    let node = crash.site.node(0);
    let crier = node.crier_as_unit(node.name(), &crash.configuration(true));
    crier.wait_ready(secs(30));
    eventually("the route has come", secs(20), || {
        if bird.routes().contains_key("203.0.113.1/32") { Ok(()) } else { Err("no route") }
    });
    crier.end_with_job("stop");
    eventually("the route has gone", secs(2), || {
        if bird.routes().contains_key("203.0.113.1/32") { Err("it is there") } else { Ok(()) }
    });
}

/// What a router is told of BFD and graceful restart, and what becomes of the route and the session when the agent dies.
struct Death {
    /// BIRD's `bfd graceful`, FRR's `check-control-plane-failure`.
    keeps: bool,
    /// systemd has the connection and the ledgers.
    stored: bool,
    /// The agent is back within BFD's detection time; else well after it.
    in_time: bool,
    /// The router has the route all the time.
    stays: bool,
    /// The session goes on.
    taken_over: bool,
}

/// The router as the scenes of a death see it.
trait Watches {
    fn has_route(&self) -> bool;
    fn established(&self) -> usize;
    /// How often BFD has come up there.
    fn bfd_up(&self) -> usize;
}

impl Watches for bird::Bird {
    fn has_route(&self) -> bool {
        self.routes().contains_key("203.0.113.1/32")
    }

    fn established(&self) -> usize {
        self.session("tor").times_established
    }

    fn bfd_up(&self) -> usize {
        self.process().log().matches("changed state from Init to Up").count()
            + self.process().log().matches("changed state from Down to Up").count()
    }
}

impl Watches for frr::Frr {
    fn has_route(&self) -> bool {
        self.routes().contains_key("203.0.113.1/32")
    }

    fn established(&self) -> usize {
        self.session("192.168.35.11").times_established
    }

    fn bfd_up(&self) -> usize {
        let shown = self.bfd_json("show bfd peers counters json");
        usize::try_from(shown[0]["session-up"].as_u64().unwrap_or_default()).expect("a small number")
    }
}

impl Crash {
    /// With BFD, and graceful restart as it is then by default.
    fn watched(&self, interval: u32) -> String {
        self.configuration(false).replace("graceful-restart = false\n", "").replace(
            "[[bgp.advertisement]]",
            &format!(
                "bfd = \"fast\"\n[[bfd]]\nname = \"fast\"\nreceive-interval = \"{interval}ms\"\n\
                 transmit-interval = \"{interval}ms\"\nmultiplier = 3\n[[bgp.advertisement]]"
            ),
        )
    }

    /// Kills the agent, and starts another one in time or not.
    #[track_caller]
    fn die(&self, name: &str, death: &Death, router: &dyn Watches) {
        let Death { keeps, stored, in_time, stays, taken_over } = *death;
        let name = format!("{name}, keeps {keeps}, stored {stored}, in time {in_time}");
        // Nine seconds, which a debug build on a busy machine is back within, against 300 ms.
        let configuration = self.watched(if in_time { 3000 } else { 100 });
        let node = self.site.node(0);
        let mut crier = node.crier_as_unit(node.name(), &configuration);
        crier.wait_ready(secs(30));
        eventually(&format!("{name}: BFD is up"), secs(30), || {
            let shown = crier.try_json("bfd")?;
            if shown["sessions"][0]["state"] == "up" { Ok(()) } else { Err(format!("{shown:#}")) }
        });
        eventually("the route has come", secs(20), || if router.has_route() { Ok(()) } else { Err("no route") });
        // The intervals are agreed, and the ledger knows it; and no route is in flight.
        rest(secs(4));
        let (sessions, ups) = (router.established(), router.bfd_up());
        crier.kill();
        if !stored {
            crier.unit().forget();
        }
        let began = rack::now();
        let mut stayed = true;
        let mut watch = |for_millis: u64| {
            let until = rack::now() + millis(for_millis);
            while rack::now() < until {
                stayed &= router.has_route();
                rest(millis(20));
            }
        };
        watch(if in_time { 100 } else { 1500 });
        crier.start_again(&configuration);
        let away = began.elapsed();
        watch(4000);
        eventually("the route is there in the end", secs(30), || {
            if router.has_route() { Ok(()) } else { Err("no route") }
        });
        eventually(&format!("{name}: BFD is up again"), secs(30), || {
            let shown = crier.try_json("bfd")?;
            if shown["sessions"][0]["state"] == "up" { Ok(()) } else { Err(format!("{shown:#}")) }
        });
        let log = crier.process().log();
        let log = &log[log.rfind("INFO starting").unwrap_or_default()..];
        assert_eq!(stayed, stays, "{name}, away for {away:?}: {log}");
        assert_eq!(router.established() == sessions, taken_over, "{name}: {log}");
        assert_eq!(log.contains("BFD session taken over after a crash"), in_time && stored, "{name}: {log}");
        if in_time && stored {
            assert_eq!(router.bfd_up(), ups, "{name}: BFD at the router did not go down: {log}");
            let shown = crier.json("bfd");
            assert_eq!(shown["sessions"][0]["losses"], 0, "{shown}");
        }
        let former = &crier.json("bgp peers tor")["peers"][0]["session"]["former"];
        assert_eq!(former["taken-over"]["after_crash"] == true, taken_over, "{name}: {former}");
        let claims = former["lost"]["routes_kept"] == true;
        assert!(!claims || stays, "{name}: it claims what is not so: {former}");
        crier.end_with_job("stop");
        eventually("the route has gone", secs(10), || if router.has_route() { Err("it is there") } else { Ok(()) });
    }
}

const DEATHS: [Death; 3] = [
    Death { keeps: false, stored: true, in_time: true, stays: true, taken_over: true },
    Death { keeps: true, stored: true, in_time: false, stays: true, taken_over: false },
    Death { keeps: true, stored: false, in_time: false, stays: true, taken_over: false },
];

/// `bfd` with the graceful restart that is its default.
#[test]
fn a_crash_with_bfd_is_no_event_for_bird_if_the_agent_is_back_in_time_or_bird_is_told_so() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let crash = Crash::new(&rack);
    let configuration = |keeps: bool| {
        format!(
            "router id 192.168.35.1;\n{}\n\
             protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}\n\
             protocol bgp tor {{ local as 64512; neighbor 192.168.35.11 as 64513; passive yes; bfd {}; \
             error wait time 1, 2; error forget time 1; ipv4 {{ import all; export none; }}; }}\n",
            bird::KERNEL,
            if keeps { "graceful" } else { "on" }
        )
    };
    let bird = crash.site.router.bird(&configuration(false));
    let plain = Death { keeps: false, stored: false, in_time: false, stays: false, taken_over: false };
    for death in [plain].iter().chain(&DEATHS) {
        bird.configure(&configuration(death.keeps));
        crash.die("BIRD", death, &bird);
    }
}

#[test]
fn a_crash_with_bfd_is_no_event_for_frr_if_the_agent_is_back_in_time_or_frr_is_told_so() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Frr, Need::Crier]) else { return };
    let crash = Crash::new(&rack);
    let router = crash.site.router.frr_with_bfd(
        &frr::waits_for_node(&["bfd", "bfd profile fast"], &[])
            .replace("bgp graceful-restart-disable", "bgp graceful-restart preserve-fw-state"),
        // Its bfdd has no real-time priority: on a busy machine it loses sessions of 100 ms by itself.
        "bfd\n profile fast\n  receive-interval 400\n  transmit-interval 400\n  detect-multiplier 3\n !\n!\n",
    );
    for death in &DEATHS {
        if death.keeps {
            router.configure(&["router bgp 64512", "neighbor 192.168.35.11 bfd check-control-plane-failure"]);
        }
        // FRR does not end a session that it is told to keep: with the store it goes on.
        let death = Death { taken_over: death.stored, ..*death };
        crash.die("FRR", &death, &router);
    }
}

/// The router's end of a session that BFD watches at 100 ms x 5, also with a sequence number that grows with each packet.
#[test]
fn bird_and_frr_with_bfd_keep_the_session_over_a_restart() {
    for (router, millis, multiplier, key) in [("bird", 100, 5, false), ("bird", 100, 5, true), ("frr", 100, 5, false)] {
        let need = if router == "bird" { Need::Bird } else { Need::Frr };
        let Some(rack) = Rack::for_test(&[Need::Namespaces, need, Need::Crier]) else { return };
        let crash = Crash::new(&rack);
        let node = crash.site.node(0);
        let authentication = match key {
            true => format!(
                "authentication = \"meticulous-keyed-sha1\"\nkey-id = 7\nkey-file = \"{}\"\n",
                rack.write("bfd.key", "k-4a1c").display()
            ),
            false => String::new(),
        };
        let configuration = crash.configuration(false).replace(
            "[[bgp.advertisement]]",
            &format!(
                "bfd = \"fast\"\n[[bfd]]\nname = \"fast\"\nreceive-interval = \"{millis}ms\"\ntransmit-interval = \"{millis}ms\"\n\
                 multiplier = {multiplier}\n{authentication}[[bgp.advertisement]]"
            ),
        );
        let bird = (router == "bird").then(|| {
            let key = if key { "authentication meticulous keyed sha1; password \"k-4a1c\" { id 7; };" } else { "" };
            crash.site.router.bird(&format!(
                "router id 192.168.35.1;\nprotocol device {{}}\n\
                 protocol bfd {{ interface \"*\" {{ min rx interval {millis} ms; min tx interval {millis} ms; \
                 multiplier {multiplier}; {key} }}; }}\n\
                 protocol bgp tor {{ local as 64512; neighbor 192.168.35.11 as 64513; passive yes; bfd on; \
                 error wait time 1, 2; ipv4 {{ import all; export none; }}; }}\n",
            ))
        });
        let frr = (router == "frr").then(|| {
            crash.site.router.frr_with_bfd(
                &frr::waits_for_node(&["bfd", "bfd profile fast"], &[]),
                &format!(
                    "bfd\n profile fast\n  receive-interval {millis}\n  transmit-interval {millis}\n  detect-multiplier {multiplier}\n \
                     !\n!\n"
                ),
            )
        });
        let established = || match (&bird, &frr) {
            (Some(bird), _) => bird.session("tor").times_established,
            (_, Some(frr)) => frr.session("192.168.35.11").times_established,
            (None, None) => 0,
        };
        let mut crier = node.crier_as_unit(node.name(), &configuration);
        crier.wait_ready(secs(30));
        let bfd_is_up = |crier: &Crier| {
            let shown = crier.try_json("bfd")?;
            if shown["sessions"][0]["state"] == "up" { Ok(()) } else { Err(format!("{shown:#}")) }
        };
        eventually("BFD is up", secs(20), || bfd_is_up(&crier));
        eventually_equal("the session is up", secs(20), &1, established);
        for _ in 0..3 {
            crier.restart(&configuration);
            crier.wait_ready(secs(30));
            eventually("BFD is up again", secs(20), || bfd_is_up(&crier));
            rest(secs(2));
        }
        assert_eq!(established(), 1, "{router} at {millis} ms: no session has ended");
        let shown = crier.json("bfd");
        assert_eq!(shown["sessions"][0]["authenticated"], key, "{shown:#}");
    }
}

/// How many routes the router has for the agent: `CRIER_RESTART_ROUTES`, else so few that a debug build reads them in a moment.
fn routes_of_the_router() -> usize {
    std::env::var("CRIER_RESTART_ROUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

fn prefix(number: usize) -> String {
    format!("10.{}.{}.{}/32", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff)
}

/// A router that announces many routes, and takes those of the agent.
enum Talkative {
    Bird(bird::Bird),
    Frr(frr::Frr),
}

impl Talkative {
    /// Each route of BIRD's has a community of its own, so that each takes a message; those of FRR are alike.
    fn new(crash: &Crash, name: &str, count: usize) -> Talkative {
        let router = &crash.site.router;
        if name == "bird" {
            let routes: String = (0..count)
                .map(|number| {
                    format!(
                        "route {} blackhole {{ bgp_large_community.add((64512, 1, {number})); }};\n",
                        prefix(number)
                    )
                })
                .collect();
            return Talkative::Bird(router.bird(&format!(
                "router id 192.168.35.1;\nprotocol device {{}}\nprotocol static {{ ipv4;\n{routes} }}\n\
                 protocol kernel {{ ipv4 {{ export where source = RTS_BGP; import none; }}; }}\n\
                 protocol bgp tor {{ local as 64512; neighbor 192.168.35.11 as 64513; passive yes; \
                 ipv4 {{ import all; export where source = RTS_STATIC; }}; }}\n"
            )));
        }
        let routes: String = (0..count).map(|number| format!("route add blackhole {}\n", prefix(number))).collect();
        let file = crash.site.rack.write("routes", &routes);
        router.ip(&format!("-batch {}", file.display()));
        Talkative::Frr(router.frr(&frr::waits_for_node(&[], &["redistribute kernel"])))
    }

    fn session(&self) -> bird::Session {
        match self {
            Talkative::Bird(bird) => bird.session("tor"),
            Talkative::Frr(frr) => frr.session("192.168.35.11"),
        }
    }

    fn has_route(&self) -> bool {
        match self {
            Talkative::Bird(bird) => !bird.route("203.0.113.1/32").is_empty(),
            Talkative::Frr(frr) => {
                let paths = &frr.route("203.0.113.1/32")["paths"];
                paths.as_array().is_some_and(|paths| !paths.is_empty())
            }
        }
    }
}

fn received(crier: &Crier) -> usize {
    let peer = crier.try_json("bgp peers tor").map(|shown| shown["peers"][0]["prefixes_received"].as_u64());
    peer.ok().flatten().and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
}

/// The messages that wait in the socket, those that were read in part, and those that come while nobody runs: each counts once.
/// After the crash they are not counted: what was received is written down only as often as the ledger begins anew.
#[test]
fn a_restart_and_a_crash_within_and_after_a_flood_of_routes_are_no_event_for_bird_and_frr() {
    let count = routes_of_the_router();
    for name in ["bird", "frr"] {
        let need = if name == "bird" { Need::Bird } else { Need::Frr };
        let Some(rack) = Rack::for_test(&[need, Need::Crier]) else { return };
        let crash = Crash::new(&rack);
        let router = Talkative::new(&crash, name, count);
        let node = crash.site.node(0);
        let configuration = crash.configuration(false);
        let mut crier = node.crier_as_unit(node.name(), &configuration);
        crier.wait_ready(secs(30));
        eventually("the flood has begun", secs(60), || {
            let there = received(&crier);
            if there > 0 { Ok(()) } else { Err(format!("{there} routes")) }
        });
        let at_first = received(&crier);
        crier.restart(&configuration);
        crier.wait_ready(secs(30));
        eventually("the session goes on, and the rest of the flood comes", secs(120), || {
            let there = received(&crier);
            // FRR sends the node its own route back.
            let most = count + usize::from(name == "frr");
            if (count..=most).contains(&there) { Ok(()) } else { Err(format!("{there} of {count} routes")) }
        });
        println!("{name}: restarted after {at_first} of {count} routes");
        eventually("the router has the route", secs(30), || if router.has_route() { Ok(()) } else { Err("no route") });
        assert_eq!(router.session().times_established, 1, "{name}: the restart was no event");
        let client = crash.site.outside("client");
        let asking = ask_web(&client);
        crier.kill();
        rest(secs(1));
        crier.start_again(&configuration);
        crier.wait_ready(secs(30));
        crier.process().wait_for_log("session goes on", secs(10));
        rest(secs(3));
        let log = crier.process().log();
        assert!(log.contains("after_crash=true"), "{name}: {log}");
        assert_eq!(router.session().times_established, 1, "{name}: nor was the crash");
        assert!(router.has_route() && router.session().is_established());
        let outcomes = asking.stop();
        println!("{name}: killed with {count} routes of the router's: {outcomes}");
        assert_eq!(outcomes.lost(), 0, "{name}: {outcomes}");
    }
}

#[test]
fn a_router_that_is_away_during_a_restart_is_the_same_one_if_it_is_back_in_time_and_a_new_one_if_it_died() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut town = Town::new(&rack);
    let configuration = town.configuration();
    let heard = town.capture.bgp().len();
    town.site.router.port.cut();
    town.crier.restart(&configuration);
    town.crier.wait_ready(secs(30));
    // The hold time is 9 s.
    rest(secs(3));
    town.site.router.port.restore();
    town.goes_on(2);
    rest(KEEPALIVES);
    assert_eq!(town.established(), [1, 1], "both sessions outlast the pause");
    assert_eq!(said(&town.capture, heard), Vec::<String>::new(), "nothing but KEEPALIVEs");

    // It loses power, and comes back while nobody runs.
    town.site.router.port.cut();
    town.bird.process().kill();
    town.crier.end_with_job("restart");
    town.site.router.port.restore();
    town.uplink.bird = town.site.router.bird(&rack::uplink::router("hunter-one"));
    town.crier.start_again(&configuration);
    town.crier.wait_ready(secs(30));
    town.wait_established();
    town.has(&["198.51.100.1/32", "203.0.113.1/32", "2001:db8::1/128"]);
    eventually_equal("one session each with either router", secs(5), &[2, 2], || town.established());
}
