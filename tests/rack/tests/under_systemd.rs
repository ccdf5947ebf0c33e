//! Restarts under a real systemd, in a container: with BIRD and FRR outside it, with BFD and signed sessions, with addresses on the
//! link beside two other nodes, and with clients that ask every 5 ms. Run by `make test-systemd`, skipped elsewhere.
//!
//! `CRIER_SYSTEMD_RESTARTS` says how many in a row (6), `CRIER_OTHER_BIN` names a build with another version, to upgrade to and back
//! (`tests/systemd/run` makes one), `CRIER_SYSTEMD_ROUTES` how many routes a router dumps (100,000).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;

use rack::bird::Bird;
use rack::booted::Booted;
use rack::capture::{BgpKind, Capture};
use rack::client::Asking;
use rack::crier::Crier;
use rack::frr::{self, Frr};
use rack::lan::{Lan, members};
use rack::packet::ArpOperation;
use rack::uplink::ask_web;
use rack::{Host, Namespace, Need, Rack, Service, bird, eventually, eventually_equal, millis, rest, secs};

const NEEDS: [Need; 4] = [Need::Systemd, Need::Crier, Need::Bird, Need::Frr];

/// On the link.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// Three nodes; the agent of the first is a unit of systemd and has the address on the link.
struct Town {
    lan: Lan,
    booted: Booted,
    others: Vec<Crier>,
}

impl Deref for Town {
    type Target = Lan;

    fn deref(&self) -> &Lan {
        &self.lan
    }
}

impl Town {
    /// `all` is more of every node's configuration, `own` of that of the booted node alone.
    #[track_caller]
    fn new(lan: Lan, all: &str, own: &str, shares: &[&Path]) -> Town {
        lan.service("link", &ADDRESS.to_string());
        let on_link = lan.configuration().replace("[pulse]\n", "pools = [\"lan\"]\nsticky = true\n[pulse]\n");
        let on_link = format!("{on_link}{all}");
        let node = lan.site.node(0);
        let shares: Vec<&Path> = shares.iter().copied().chain([lan.manifests.path(), &lan.key]).collect();
        let configuration = format!("{on_link}[node]\nname = \"{}\"\n{own}", node.name());
        let booted = node.boot(&configuration, &shares);
        booted.systemctl("start crier");
        lan.answered_by(ADDRESS, &[node.name()]);
        let others: Vec<Crier> = (1..3).map(|node| lan.agent_with(node, &on_link)).collect();
        for agent in &others {
            agent.wait_ready(secs(30));
            eventually_equal("it hears the others", secs(30), &2, || members(agent).len());
        }
        let town = Town { lan, booted, others };
        town.is_owner();
        town
    }

    /// The agent holds the address, and says so.
    #[track_caller]
    fn is_owner(&self) {
        let node = self.site.node(0).name();
        eventually("the agent answers on the link", secs(20), || {
            let shown = self.booted.json(&format!("l2 {ADDRESS}"))?;
            if shown["addresses"][0]["announced"] == true { Ok(()) } else { Err(format!("{shown:#}")) }
        });
        self.answered_by(ADDRESS, &[node]);
    }

    /// A client on the link that asks for the page there every 5 ms.
    #[track_caller]
    fn asks_on_the_link(&self) -> Asking {
        let page = (IpAddr::from(ADDRESS), 80);
        let client = &self.site.client;
        eventually("the client reaches the page", secs(10), || client.get(page).map(drop).map_err(|it| it.to_string()));
        client.ask_steadily(page, millis(5))
    }

    /// By whom the address was claimed in these frames, by answers and by announcements.
    fn claimed(&self, capture: &Capture) -> Vec<String> {
        let arps = capture.arps();
        let claims = arps
            .iter()
            .map(|(_, arp)| arp)
            .filter(|arp| arp.sender == ADDRESS && (arp.operation == ArpOperation::Reply || arp.is_gratuitous()));
        let mut names: Vec<String> = claims.map(|arp| self.name_of(arp.sender_mac)).collect();
        names.dedup();
        names
    }

    /// The others leave until the first node has the address.
    #[track_caller]
    fn moves_back(&self) {
        self.others.iter().for_each(|agent| assert!(agent.verb("drain --timeout 0s").status.success()));
        self.is_owner();
        self.others.iter().for_each(|agent| assert!(agent.verb("undrain").status.success()));
    }

    fn others_logged(&self, text: &str) -> usize {
        self.others.iter().map(|agent| agent.process().log().matches(text).count()).sum()
    }
}

#[test]
fn an_address_on_the_link_is_answered_for_by_the_kernel_while_systemd_restarts_the_agent() {
    let Some(rack) = Rack::for_test(&[Need::Systemd, Need::Crier]) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    let town = Town::new(lan, "", "", &[]);
    let expected = vec![town.site.node(0).name().to_owned()];
    let capture = town.site.client.port.capture_control();
    let asking = town.asks_on_the_link();
    // Much longer than it takes the others to notice that a node is dead.
    town.booted.drop_in("[Service]\nExecStartPre=/bin/sleep 1.5\n");
    for round in 0..3 {
        town.booted.systemctl("restart --no-block crier");
        town.booted.wait_property("SubState", "start-pre", secs(10));
        let stored = town.booted.property("NFileDescriptorStore");
        // An old kernel takes no such program: then nobody answers meanwhile, and the client goes by what it knows.
        let in_kernel = stored == "1";
        let answering = town.answering(ADDRESS);
        assert_eq!(town.booted.property("SubState"), "start-pre", "round {round}: no agent ran while it was asked");
        println!("round {round}: while no agent runs, systemd has {stored} descriptors, and {answering:?} answer");
        assert_eq!(answering, if in_kernel { expected.clone() } else { Vec::new() }, "round {round}");
        town.booted.wait_property("ActiveState", "active", secs(20));
        town.is_owner();
        town.booted.wait_property("NFileDescriptorStore", "0", secs(5));
    }
    // Longer than the nodes wait: by now they would have taken over.
    rest(secs(6));
    let outcomes = asking.stop();
    println!("three restarts of 1.5 s: {outcomes}");
    assert_eq!((outcomes.lost(), outcomes.servers()), (0, expected.clone()), "{outcomes}");
    assert_eq!(town.claimed(&capture), expected, "nobody else announced or answered");
    assert_eq!(town.others_logged("the agent of the node restarts"), 6, "three restarts, heard by two");
    assert_eq!(town.others_logged("node fell silent") + town.others_logged("node left the link"), 0);
}

/// The kernel in here tracks connections, as it does wherever kube-proxy runs.
fn track(namespace: &Namespace) {
    namespace.sh("nft add table inet tracked");
    namespace.sh("nft add chain inet tracked incoming { type filter hook input priority 0 ; }");
    namespace.sh("nft add rule inet tracked incoming ct state new counter");
}

/// Asks over a connection that is open, and reads the answer to its end.
fn finish(mut stream: TcpStream) -> Result<(), String> {
    stream.set_read_timeout(Some(secs(5))).expect("a time-out is taken");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    if answer.contains("200 OK") { Ok(()) } else { Err(answer) }
}

#[test]
fn a_reboot_of_the_host_waits_for_the_drain_and_the_node_is_back_after_it() {
    let Some(rack) = Rack::for_test(&[Need::Systemd, Need::Crier, Need::Nft]) else { return };
    let lan = Lan::with_quiet_kernels(&rack, 3);
    track(lan.site.node(0));
    let mut town = Town::new(lan, "", "[drain]\nfollow-shutdown = true\n", &[]);
    let name = town.site.node(0).name().to_owned();
    town.booted.write("etc/systemd/logind.conf.d/crier.conf", "[Login]\nInhibitDelayMaxSec=30s\n");
    town.booted.systemctl("restart systemd-logind");
    // A /proc of the unit's own would show the boot of the machine, and not that of the container.
    town.booted.drop_in("[Service]\nProtectProc=default\nProtectKernelTunables=no\nProtectControlGroups=no\n");
    town.booted.systemctl("enable crier");
    town.booted.systemctl("restart crier");
    let said = |town: &Town, key: &str| Ok::<_, String>(town.booted.json("status")?[key].clone());
    eventually("a shutdown waits for 30 s at most", secs(20), || match said(&town, "shutdown")? {
        known if known["waits_secs"] == 30 && known["hurried"] == true && known["begun"] == false => Ok(()),
        known => Err(known.to_string()),
    });
    eventually("the lock is held", secs(10), || match town.booted.printed("systemd-inhibit --list --no-pager")? {
        list if list.contains("crier") && list.contains("drains this node first delay") => {
            println!("{list}");
            Ok(())
        }
        list => Err(list),
    });

    // dbus goes, and comes back: that is told, and a lock is held again.
    town.booted.systemctl("stop dbus.service dbus.socket");
    eventually("the agent tells that it holds no shutdown up", secs(20), || {
        match said(&town, "problems")?.to_string() {
            problems if problems.contains("no shutdown of this host is held up") => {
                println!("{problems}");
                Ok(())
            }
            problems => Err(problems),
        }
    });
    town.booted.systemctl("start dbus.socket dbus.service");
    town.booted.systemctl("restart systemd-logind");
    let until_held = |town: &Town| {
        eventually("the lock is held again, and nothing is wrong", secs(60), || {
            let problems = said(town, "problems")?.to_string();
            let list = town.booted.printed("systemd-inhibit --list --no-pager")?;
            let is_held = list.contains("crier") && !problems.contains("no shutdown");
            if is_held { Ok(()) } else { Err(format!("{problems}; {list}")) }
        });
    };
    until_held(&town);

    // After a restart that was one of another boot by what it saw, another node has the address.
    town.moves_back();

    // A reboot that systemd gives up: the node is drained, and comes back.
    let refuses = "etc/systemd/system/reboot.target.d/refuses.conf";
    town.booted.write(refuses, "[Unit]\nRefuseManualStart=yes\n");
    town.booted.systemctl("daemon-reload");
    town.booted.systemctl("reboot");
    eventually("the node is drained", secs(20), || match said(&town, "drain")? {
        drain if drain["stage"] == "drained" && drain["reason"] == "the host shuts down" => Ok(()),
        drain => Err(drain.to_string()),
    });
    eventually("and takes part again", secs(20), || match said(&town, "drain")? {
        drain if drain.is_null() => Ok(()),
        drain => Err(drain.to_string()),
    });
    town.booted.write(refuses, "");
    town.booted.systemctl("daemon-reload");
    until_held(&town);
    town.moves_back();

    let client = town.site.host("flows", 77);
    let open: Vec<TcpStream> =
        (0..20).map(|_| client.connect((ADDRESS, 80), secs(5)).expect("the Service answers")).collect();
    let asking = town.asks_on_the_link();
    let began = rack::now();
    town.booted.systemctl("reboot");
    eventually("the flows are waited for", secs(5), || match said(&town, "drain")? {
        drain if drain["stage"] == "waiting" && drain["flows_left"].as_u64() >= Some(20) => {
            println!("{drain}");
            Ok(())
        }
        drain => Err(drain.to_string()),
    });
    rest(secs(6));
    assert_eq!(said(&town, "drain").expect("it runs")["stage"], "waiting", "for longer than logind waits by itself");
    let outcomes: Vec<_> = open.into_iter().map(finish).collect();
    let lost: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(lost.is_empty(), "{} of {} connections broke: {lost:?}", lost.len(), outcomes.len());
    let finished = rack::now();
    let node = town.lan.site.node(0);
    node.boot_again(&mut town.booted, secs(60));
    println!(
        "flows ended {:?} after the reboot was ordered, up again {:?} later",
        finished - began,
        finished.elapsed()
    );
    let outcomes = asking.stop();
    println!("a reboot: {outcomes}");
    // One may be under way between two nodes that share no state.
    assert!(outcomes.lost() <= 1, "{outcomes}");
    town.booted.wait_property("ActiveState", "active", secs(30));
    assert!(said(&town, "drain").expect("it runs").is_null(), "the boot is another");
    let journal = town.booted.journal();
    let shown = ["the host is shutting down", "drain", "leaving", "left", "starting", "the host has shut down"];
    let lines = journal.lines().filter(|line| shown.iter().any(|text| line.contains(text)));
    lines.for_each(|line| println!("{line}"));
    let place = |text: &str| journal.rfind(text).unwrap_or_else(|| panic!("{text} is in the journal:\n{journal}"));
    let drained = place("stage=\"drained\"");
    let released = place("the shutdown of the host is released");
    let (leaving, back) = (place("leaving: withdrawing"), place("the host has shut down, and is back"));
    assert!(drained < released && released < leaving && leaving < back, "drained, then stopped, then back");
    town.others.clear();
    town.answered_by(ADDRESS, &[&name]);
}

/// A town whose first node has four sessions: with BIRD over IPv4 with TCP MD5 and over IPv6 without, and with FRR the other way round;
/// and a client beyond BIRD.
struct Uplinks {
    /// By BFD.
    watched: bool,
    town: Town,
    bird: Bird,
    frr: Frr,
    /// Where FRR runs.
    beside: Host,
    outside: Host,
    capture: Capture,
}

const SESSIONS: [&str; 2] = ["signed", "plain6"];
const NEIGHBORS: [&str; 2] = ["192.168.35.11", "fd35::11"];
/// In the order of their texts.
const PREFIXES: [&str; 2] = ["2001:db8::1/128", "203.0.113.1/32"];

impl Deref for Uplinks {
    type Target = Town;

    fn deref(&self) -> &Town {
        &self.town
    }
}

impl Uplinks {
    #[track_caller]
    fn watched(rack: &Rack) -> Uplinks {
        Uplinks::new(rack, true, "")
    }

    /// `more` is of BIRD's configuration.
    #[track_caller]
    fn new(rack: &Rack, watched: bool, more: &str) -> Uplinks {
        let bfd = |text: &'static str| if watched { text } else { "" };
        let lan = Lan::with_quiet_kernels(rack, 3);
        lan.manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
        lan.manifests.service(&Service::new("web6").anywhere().addresses("2001:db8::1"));
        let outside = lan.site.outside("outside");
        let router = lan.site.router.bird(&format!(
            "router id 192.168.35.1;\n{}\n\
             protocol bfd {{ interface \"*\" {{ min rx interval 500 ms; min tx interval 500 ms; multiplier 3; }}; }}\n\
             template bgp node {{ local as 64512; passive yes; error wait time 1, 2; error forget time 1; {} }}\n\
             protocol bgp signed from node {{ neighbor 192.168.35.11 as 64513; password \"hunter-one\"; \
             ipv4 {{ import all; export where source = RTS_STATIC; }}; }}\n\
             protocol bgp plain6 from node {{ neighbor fd35::11 as 64513; ipv6 {{ import all; export none; }}; }}\n{more}",
            bird::KERNEL.replace("export all", "export where source = RTS_BGP"),
            bfd("bfd on;")
        ));
        let beside = lan.site.host("frr", 3);
        let of_bfd = |it: &str| if watched { format!(" neighbor {it} bfd\n") } else { String::new() };
        let neighbors: String = NEIGHBORS
            .map(|it| format!(" neighbor {it} remote-as 64513\n neighbor {it} passive\n{}", of_bfd(it)))
            .concat();
        let frr = beside.frr_with_bfd(
            &format!(
                "router bgp 64512\n bgp router-id 192.168.35.3\n{}{neighbors} neighbor fd35::11 password hunter-one\n \
                 address-family ipv4 unicast\n  neighbor 192.168.35.11 activate\n exit-address-family\n \
                 address-family ipv6 unicast\n  neighbor fd35::11 activate\n exit-address-family\n",
                frr::PLAIN
            ),
            "",
        );
        let password = rack.write("tor.md5", "hunter-one");
        let peers = [
            ("signed", "192.168.35.1", true),
            ("plain6", "fd35::1", false),
            ("plain", "192.168.35.3", false),
            ("signed6", "fd35::3", true),
        ];
        let peers = peers.map(|(name, address, is_signed)| {
            let password =
                if is_signed { format!("password-file = \"{}\"\n", password.display()) } else { String::new() };
            format!(
                "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{address}\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
                 {}{password}",
                bfd("bfd = \"fast\"\n")
            )
        });
        let pool = "[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\", \"2001:db8::/120\"]\nbind = \"lo\"\n";
        let uplink = format!(
            "[bgp]\nasn = 64513\nlisten = []\n{}[[bgp.advertisement]]\npools = [\"public\"]\n{}",
            peers.concat(),
            bfd(
                "[[bfd]]\nname = \"fast\"\nreceive-interval = \"500ms\"\ntransmit-interval = \"500ms\"\nmultiplier = 3\n"
            )
        );
        let capture = lan.site.node(0).port.capture_control();
        let town = Town::new(lan, pool, &uplink, &[&password]);
        let uplinks = Uplinks { watched, town, bird: router, frr, beside, outside, capture };
        uplinks.stands();
        uplinks
    }

    /// All four sessions of BGP, and of BFD where it watches them, are up, and both routers have both routes.
    #[track_caller]
    fn stands(&self) {
        SESSIONS.iter().for_each(|name| drop(self.bird.wait_established(name, secs(30))));
        NEIGHBORS.iter().for_each(|neighbor| drop(self.frr.wait_established(neighbor, secs(30))));
        self.routers_have(&PREFIXES);
        if !self.watched {
            return;
        }
        eventually("BFD is up on all four", secs(30), || {
            let shown = self.booted.json("bfd")?;
            let sessions = shown["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let up = sessions.iter().filter(|session| session["state"] == "up").count();
            if up == 4 && self.down_in_frr()?.len() == 2 { Ok(()) } else { Err(format!("{shown:#}")) }
        });
    }

    /// The routes of both routers, all of them.
    #[track_caller]
    fn routers_have(&self, prefixes: &[&str]) {
        let expected: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let ours = |prefix: &String| PREFIXES.contains(&prefix.as_str());
        eventually_equal("the routes of BIRD", secs(20), &expected, || {
            let of_node = PREFIXES.iter().filter(|prefix| !self.bird.route(prefix).is_empty());
            of_node.map(|prefix| (*prefix).to_owned()).collect()
        });
        eventually_equal("the routes of FRR", secs(20), &expected, || {
            sorted(self.frr.routes().into_keys().filter(ours))
        });
    }

    /// What FRR has counted of each session: established, OPENs and UPDATEs received, NOTIFICATIONs.
    fn counted(&self) -> Vec<String> {
        let counted = NEIGHBORS.map(|neighbor| {
            let told = &self.frr.json(&format!("show bgp neighbors {neighbor} json"))[neighbor];
            let stats = &told["messageStats"];
            let [opens, updates, notifications] =
                ["opensRecv", "updatesRecv", "notificationsRecv"].map(|key| stats[key].to_string());
            format!(
                "{neighbor}: {} times up, {opens} OPENs, {updates} UPDATEs, {notifications} NOTIFICATIONs",
                told["connectionsEstablished"]
            )
        });
        counted.to_vec()
    }

    /// How often each BFD session of FRR's went down.
    fn down_in_frr(&self) -> Result<Vec<u64>, String> {
        let shown = self.frr.bfd_json("show bfd peers counters json");
        let sessions = shown.as_array().cloned().unwrap_or_default();
        sessions.iter().map(|it| it["session-down"].as_u64().ok_or_else(|| format!("{shown:#}"))).collect()
    }

    /// What BIRD logged of its sessions, of BGP and of BFD, behind the first `before` octets.
    fn events_of_bird(&self, before: usize) -> Vec<String> {
        let log = self.bird.process().log().split_off(before);
        let is_event = |line: &&str| SESSIONS.iter().chain(&["bfd"]).any(|name| line.contains(name));
        log.lines().filter(is_event).map(str::to_owned).collect()
    }

    /// What went by behind the first `before` messages that is no KEEPALIVE, and no UPDATE of a router's.
    fn said(&self, before: usize) -> Vec<String> {
        let of_node: [IpAddr; 2] = NEIGHBORS.map(|text| text.parse().expect("an address"));
        let messages = self.capture.bgp().into_iter().skip(before);
        let said = messages.filter(|message| match message.kind {
            BgpKind::Keepalive => false,
            BgpKind::Update(_) => of_node.contains(&message.from.ip()),
            BgpKind::Open | BgpKind::Notification { .. } | BgpKind::RouteRefresh | BgpKind::Unreadable => true,
        });
        said.map(|message| format!("{}: {:?}", message.from, message.kind)).collect()
    }

    /// Runs `restart` so many times, and nobody notices: neither router, nor the other nodes, nor a client.
    #[track_caller]
    fn nobody_notices(&self, what: &str, rounds: usize, restart: impl FnMut(usize)) {
        let on_link = self.asks_on_the_link();
        self.no_router_notices(what, rounds, restart);
        self.is_owner();
        let outcomes = on_link.stop();
        println!("{what}, on the link: {outcomes}");
        assert_eq!((outcomes.lost(), outcomes.servers().len()), (0, 1), "{outcomes}");
        let claimed = self.claimed(&self.capture);
        assert_eq!(claimed, [self.site.node(0).name()], "nobody else announced or answered");
    }

    /// The same for the routers and what lies beyond them.
    #[track_caller]
    fn no_router_notices(&self, what: &str, rounds: usize, mut restart: impl FnMut(usize)) {
        let page6: SocketAddr = "[2001:db8::1]:80".parse().expect("an address");
        eventually("the client reaches the page over IPv6", secs(10), || {
            self.outside.get(page6).map(drop).map_err(|it| it.to_string())
        });
        let over6 = self.outside.ask_steadily(page6, millis(5));
        let asking = [ask_web(&self.outside), over6];
        let (log, heard, counted) = (self.bird.process().log().len(), self.capture.bgp().len(), self.counted());
        let (down, taken_over) = (self.down_in_frr(), self.logged("session taken over from the previous agent"));
        let began = rack::now();
        for round in 0..rounds {
            restart(round);
        }
        let took = began.elapsed();
        // Longer than BFD, the other nodes, and a change of routes take to be noticed.
        rest(secs(6));
        println!("{what}: {rounds} restarts in {:.1} s", took.as_secs_f64());
        let journal = self.booted.journal();
        journal.lines().filter(|line| line.contains("handed over")).for_each(|line| println!("the unit: {line}"));
        println!("BFD has real-time priority: {}", self.logged("BFD runs with real-time priority") > 0);
        self.stands();
        assert_eq!(self.said(heard), Vec::<String>::new(), "nothing but KEEPALIVEs went by");
        assert_eq!(self.events_of_bird(log), Vec::<String>::new(), "BIRD logged no event");
        assert_eq!(self.counted(), counted, "FRR counted no event");
        assert_eq!(self.down_in_frr(), down, "BFD went down at FRR");
        let taken_over = self.logged("session taken over from the previous agent") - taken_over;
        assert_eq!(taken_over, 4 * rounds, "each session was taken over by each agent");
        for asking in asking {
            let outcomes = asking.stop();
            println!("{what}: {outcomes}");
            assert_eq!((outcomes.lost(), outcomes.servers().len()), (0, 1), "{outcomes}");
        }
    }

    /// SIGKILL, and systemd starts another agent.
    #[track_caller]
    fn crash(&self) {
        let before = self.booted.property("NRestarts");
        self.booted.kill();
        eventually("systemd has started it again", secs(20), || {
            let now = self.booted.property("NRestarts");
            if now == before { Err(now) } else { Ok(()) }
        });
        self.booted.wait_property("ActiveState", "active", secs(20));
    }

    fn logged(&self, text: &str) -> usize {
        self.booted.journal().matches(text).count()
    }
}

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.sort();
    all
}

fn restarts() -> usize {
    std::env::var("CRIER_SYSTEMD_RESTARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

#[test]
fn restarts_in_a_row_are_seen_by_no_router_no_node_and_no_client() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let uplinks = Uplinks::watched(&rack);
    uplinks.nobody_notices("systemctl restart", restarts(), |_| drop(uplinks.booted.systemctl("restart crier")));
}

#[test]
fn an_upgrade_to_another_version_and_back_is_seen_by_nobody() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let Some(other) = std::env::var_os("CRIER_OTHER_BIN") else {
        return rack::skip(&rack::test_name(), "CRIER_OTHER_BIN names no build of another version");
    };
    let binaries = [Path::new(&other).to_owned(), rack::crier::binary()];
    let uplinks = Uplinks::watched(&rack);
    let version = || uplinks.booted.json("status").map(|shown| shown["version"].to_string()).unwrap_or_default();
    let before = version();
    uplinks.nobody_notices("an upgrade", 2, |round| {
        uplinks.booted.install(&binaries[round]);
        uplinks.booted.systemctl("restart crier");
        let now = version();
        println!("version {before} before, {now} now");
        assert_eq!(now == before, round == 1, "the other version runs, and then the first one again");
        // A planned restart leaves room before the next one.
        uplinks.is_owner();
    });
}

/// With BFD on all four sessions. The address on the link goes to another node, once.
#[test]
fn a_crash_is_seen_by_no_router_and_by_no_client_beyond_them() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let uplinks = Uplinks::watched(&rack);
    // By then the ledgers have all attributes, and no route is sent again: they begin anew 10 s after routes have changed.
    rest(secs(12));
    let on_link = uplinks.asks_on_the_link();
    uplinks.no_router_notices("a crash", 1, |_| uplinks.crash());
    assert_eq!(uplinks.logged("after_crash=true"), 4, "each session was taken over after a crash");
    assert_eq!(uplinks.logged("BFD session taken over after a crash"), 4, "and so was BFD");
    let answering = uplinks.answering(ADDRESS);
    assert_eq!(answering.len(), 1, "one node answers on the link: {answering:?}");
    let outcomes = on_link.stop_after_the_last();
    println!("a crash, on the link: {outcomes}, the longest gap {:?}", outcomes.longest_gap());
    assert!(outcomes.longest_gap() < secs(5), "{outcomes}");
}

#[test]
fn a_stop_takes_the_routes_back_at_once_and_hands_the_address_on_the_link_over() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let uplinks = Uplinks::watched(&rack);
    let asking = uplinks.asks_on_the_link();
    let heard = uplinks.capture.bgp().len();
    uplinks.booted.systemctl("stop crier");
    uplinks.routers_have(&[]);
    let [first, others @ ..] = &uplinks.site.nodes[..] else { panic!("there are three nodes") };
    eventually("another node answers on the link", secs(10), || {
        let answering = uplinks.answering(ADDRESS);
        let is_other = |name: &String| others.iter().any(|node| node.name() == name);
        if answering.len() == 1 && is_other(&answering[0]) { Ok(()) } else { Err(format!("{answering:?}")) }
    });
    let said = uplinks.said(heard);
    let from_node = said.iter().filter(|it| it.contains("Notification { code: 6, subcode: 2 }")).count();
    assert_eq!(from_node, 4, "Cease, Administrative Shutdown, in each session: {said:?}");
    assert_eq!(uplinks.booted.property("NFileDescriptorStore"), "0", "nothing is kept");
    let outcomes = asking.stop();
    println!("a stop of {}, on the link: {outcomes}", first.name());
    assert_eq!(outcomes.lost(), 0, "{outcomes}");
    uplinks.booted.systemctl("start crier");
    uplinks.stands();
}

#[test]
fn a_restart_during_a_dump_of_a_router_and_one_while_a_router_is_away_are_no_event() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let count = std::env::var("CRIER_SYSTEMD_ROUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000);
    // Each route has a community of its own, so that each takes a message.
    let routes: String = (0..count)
        .map(|number: usize| {
            format!(
                "route 10.{}.{}.{}/32 blackhole {{ bgp_large_community.add((64512, 1, {number})); }};\n",
                number >> 16 & 0xff,
                number >> 8 & 0xff,
                number & 0xff
            )
        })
        .collect();
    let uplinks = Uplinks::new(&rack, false, &format!("protocol static flood {{ disabled; ipv4;\n{routes} }}\n"));
    let received = || {
        let shown = uplinks.booted.json("bgp peers signed")?;
        shown["peers"][0]["prefixes_received"].as_u64().ok_or(format!("{shown:#}"))
    };
    let mut at_first = 0;
    uplinks.nobody_notices("a restart during a dump", 1, |_| {
        uplinks.bird.command("enable flood");
        at_first = eventually("the dump has begun", secs(60), || {
            received().and_then(|it| if it > 0 { Ok(it) } else { Err(it.to_string()) })
        });
        uplinks.booted.systemctl("restart crier");
        eventually("the session goes on, and the rest of the dump comes", secs(240), || {
            let there = received()?;
            if there == count as u64 { Ok(()) } else { Err(format!("{there} of {count} routes")) }
        });
    });
    println!("restarted after {at_first} of {count} routes");
    assert!(at_first < count as u64, "the dump was over already");

    let log = uplinks.bird.process().log().len();
    let (heard, counted) = (uplinks.capture.bgp().len(), uplinks.counted());
    let ports = [&uplinks.site.router.port, &uplinks.beside.port];
    ports.iter().for_each(|port| port.cut());
    uplinks.booted.systemctl("restart crier");
    rest(secs(3));
    ports.iter().for_each(|port| port.restore());
    uplinks.stands();
    // Two KEEPALIVEs of each, and what waited is sent again by then.
    rest(secs(6));
    assert_eq!(uplinks.said(heard), Vec::<String>::new(), "nothing but KEEPALIVEs went by");
    assert_eq!(uplinks.events_of_bird(log), Vec::<String>::new(), "BIRD logged no event");
    assert_eq!(uplinks.counted(), counted, "FRR counted no event");
}
