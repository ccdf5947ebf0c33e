//! Restarts under a real systemd, in a container: with BIRD and FRR outside it, with BFD and signed sessions, with addresses on the
//! link beside two other nodes, and with clients that ask every 5 ms. Run by `make test-systemd`, skipped elsewhere.
//!
//! `CRIER_SYSTEMD_RESTARTS` says how many in a row (6), `CRIER_OTHER_BIN` names a build with another version, to upgrade to and back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
use rack::{Host, Need, Rack, Service, bird, eventually, eventually_equal, millis, rest, secs};

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

/// A town whose first node has four sessions, each watched by BFD: with BIRD over IPv4 with TCP MD5 and over IPv6 without, and with FRR
/// the other way round; and a client beyond BIRD.
struct Uplinks {
    town: Town,
    bird: Bird,
    frr: Frr,
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
    fn new(rack: &Rack) -> Uplinks {
        let lan = Lan::with_quiet_kernels(rack, 3);
        lan.manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
        lan.manifests.service(&Service::new("web6").anywhere().addresses("2001:db8::1"));
        let outside = lan.site.outside("outside");
        let router = lan.site.router.bird(&format!(
            "router id 192.168.35.1;\n{}\n\
             protocol bfd {{ interface \"*\" {{ min rx interval 500 ms; min tx interval 500 ms; multiplier 3; }}; }}\n\
             template bgp node {{ local as 64512; passive yes; bfd on; }}\n\
             protocol bgp signed from node {{ neighbor 192.168.35.11 as 64513; password \"hunter-one\"; \
             ipv4 {{ import all; export none; }}; }}\n\
             protocol bgp plain6 from node {{ neighbor fd35::11 as 64513; ipv6 {{ import all; export none; }}; }}\n",
            bird::KERNEL
        ));
        let beside = lan.site.host("frr", 3);
        let neighbors: String = NEIGHBORS
            .map(|it| format!(" neighbor {it} remote-as 64513\n neighbor {it} passive\n neighbor {it} bfd\n"))
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
                 bfd = \"fast\"\n{password}"
            )
        });
        let pool = "[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\", \"2001:db8::/120\"]\nbind = \"lo\"\n";
        let uplink = format!(
            "[bgp]\nasn = 64513\nlisten = []\n{}[[bgp.advertisement]]\npools = [\"public\"]\n\
             [[bfd]]\nname = \"fast\"\nreceive-interval = \"500ms\"\ntransmit-interval = \"500ms\"\nmultiplier = 3\n",
            peers.concat()
        );
        let capture = lan.site.node(0).port.capture_control();
        let town = Town::new(lan, pool, &uplink, &[&password]);
        let uplinks = Uplinks { town, bird: router, frr, outside, capture };
        uplinks.stands();
        uplinks
    }

    /// All four sessions of BGP and of BFD are up, and both routers have both routes.
    #[track_caller]
    fn stands(&self) {
        SESSIONS.iter().for_each(|name| drop(self.bird.wait_established(name, secs(30))));
        NEIGHBORS.iter().for_each(|neighbor| drop(self.frr.wait_established(neighbor, secs(30))));
        let expected: Vec<String> = PREFIXES.iter().map(|prefix| (*prefix).to_owned()).collect();
        eventually_equal("the routes of BIRD", secs(20), &expected, || sorted(self.bird.routes().into_keys()));
        eventually_equal("the routes of FRR", secs(20), &expected, || sorted(self.frr.routes().into_keys()));
        eventually("BFD is up on all four", secs(30), || {
            let shown = self.booted.json("bfd")?;
            let sessions = shown["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let up = sessions.iter().filter(|session| session["state"] == "up").count();
            if up == 4 && self.down_in_frr()?.len() == 2 { Ok(()) } else { Err(format!("{shown:#}")) }
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

    /// What went by behind the first `before` messages that is no KEEPALIVE.
    fn said(&self, before: usize) -> Vec<String> {
        let messages = self.capture.bgp().into_iter().skip(before);
        let said = messages.filter(|message| message.kind != BgpKind::Keepalive);
        said.map(|message| format!("{}: {:?}", message.from, message.kind)).collect()
    }

    /// Runs `restart` so many times, and nobody notices: neither router, nor the other nodes, nor a client.
    #[track_caller]
    fn nobody_notices(&self, what: &str, rounds: usize, mut restart: impl FnMut(usize)) {
        let page6: SocketAddr = "[2001:db8::1]:80".parse().expect("an address");
        eventually("the client reaches the page over IPv6", secs(10), || {
            self.outside.get(page6).map(drop).map_err(|it| it.to_string())
        });
        let over6 = self.outside.ask_steadily(page6, millis(5));
        let asking = [ask_web(&self.outside), over6, self.asks_on_the_link()];
        let (log, heard, counted) = (self.bird.process().log().len(), self.capture.bgp().len(), self.counted());
        let (down, taken_over) = (self.down_in_frr(), self.logged("session taken over from the agent before"));
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
        self.is_owner();
        assert_eq!(self.said(heard), Vec::<String>::new(), "nothing but KEEPALIVEs went by");
        assert_eq!(self.events_of_bird(log), Vec::<String>::new(), "BIRD logged no event");
        assert_eq!(self.counted(), counted, "FRR counted no event");
        assert_eq!(self.down_in_frr(), down, "BFD went down at FRR");
        let taken_over = self.logged("session taken over from the agent before") - taken_over;
        assert_eq!(taken_over, 4 * rounds, "each session was taken over by each agent");
        for asking in asking {
            let outcomes = asking.stop();
            println!("{what}: {outcomes}");
            assert_eq!((outcomes.lost(), outcomes.servers().len()), (0, 1), "{outcomes}");
        }
        let claimed = self.claimed(&self.capture);
        assert_eq!(claimed, [self.site.node(0).name()], "nobody else announced or answered");
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
    let uplinks = Uplinks::new(&rack);
    uplinks.nobody_notices("systemctl restart", restarts(), |_| drop(uplinks.booted.systemctl("restart crier")));
}

#[test]
fn an_upgrade_to_another_version_and_back_is_seen_by_nobody() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let Some(other) = std::env::var_os("CRIER_OTHER_BIN") else {
        return rack::skip(&rack::test_name(), "CRIER_OTHER_BIN names no build of another version");
    };
    let binaries = [Path::new(&other).to_owned(), rack::crier::binary()];
    let uplinks = Uplinks::new(&rack);
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
