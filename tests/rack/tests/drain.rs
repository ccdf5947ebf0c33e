//! A node is drained: routes step back first, flows end by themselves, the link hands over, then routes go; and nothing forgets it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use rack::crier::Crier;
use rack::lan::Lan;
use rack::{
    Host, Manifests, Namespace, Need, Rack, Service, Site, bird, eventually, eventually_equal, frr, millis, rest, secs,
    throughout,
};
use serde_json::Value;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// The kernel in here tracks connections, as it does wherever kube-proxy runs.
fn track(namespace: &Namespace) {
    namespace.sh("nft add table inet tracked");
    namespace.sh("nft add chain inet tracked incoming { type filter hook input priority 0 ; }");
    namespace.sh("nft add rule inet tracked incoming ct state new counter");
}

/// Two nodes that track connections, and a Service on both.
fn two_nodes(rack: &Rack) -> Lan {
    let lan = Lan::with_pages(rack, 2);
    lan.site.nodes.iter().for_each(|node| track(node));
    lan.service("web", "192.168.35.100");
    lan
}

fn ordered(agent: &Crier, words: &str) -> (Option<i32>, String) {
    let output = agent.verb(words);
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

fn drain(agent: &Crier) -> Value {
    agent.status()["drain"].clone()
}

/// Asks over a connection that is open, and reads the answer to its end.
fn finish(mut stream: TcpStream) -> Result<String, String> {
    stream.set_read_timeout(Some(secs(5))).expect("a time-out is taken");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    if answer.contains("200 OK") { Ok(answer) } else { Err(answer) }
}

#[test]
fn flows_that_are_open_end_by_themselves_before_the_address_goes_to_another_node() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Nft]) else { return };
    let lan = two_nodes(&rack);
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let (leaving, other) = (&agents[owner], &agents[1 - owner]);
    let client = lan.site.host("client", 77);
    let open: Vec<TcpStream> =
        (0..200).map(|_| client.connect((ADDRESS, 80), secs(5)).expect("the Service answers")).collect();

    let (code, said) = ordered(leaving, "drain --timeout 60s --reason new-disk");
    assert_eq!(code, Some(0), "{said}");
    eventually("every open flow is counted", secs(5), || {
        let drain = drain(leaving);
        if drain["flows"] == 200 && drain["flows_left"] == 200 { Ok(()) } else { Err(drain.to_string()) }
    });
    assert_eq!(drain(leaving)["reason"], "new-disk");
    throughout("the node answers on while flows are open", secs(2), || {
        let drain = drain(leaving);
        if drain["stage"] == "waiting" && drain["addresses_left"] == 1 { Ok(()) } else { Err(drain.to_string()) }
    });
    let outcomes: Vec<_> = open.into_iter().map(finish).collect();
    let lost: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(lost.is_empty(), "{} of {} connections broke: {lost:?}", lost.len(), outcomes.len());
    eventually("it is drained", secs(30), || {
        let drain = drain(leaving);
        if drain["stage"] == "drained" && drain["timed_out"] == false { Ok(()) } else { Err(drain.to_string()) }
    });
    lan.answered_by(ADDRESS, &[other.node()]);
    client.get((ADDRESS, 80)).expect("the other node serves");

    // Nothing forgets it but an operator.
    leaving.kill();
    let again = lan.agent(owner);
    again.wait_ready(secs(30));
    assert_eq!(drain(&again)["stage"], "drained", "a restart does not take it back");
    let (code, said) = ordered(other, "drain");
    assert_eq!(code, Some(1), "the last node does not leave: {said}");
    assert!(said.contains("last node") && said.contains("--force"), "{said}");
    let (code, said) = ordered(&again, "undrain");
    assert_eq!(code, Some(0), "{said}");
    eventually("it takes part again", secs(20), || {
        let (code, said) = ordered(other, "drain --timeout 1s");
        if code == Some(0) { Ok(()) } else { Err(said) }
    });
    lan.answered_by(ADDRESS, &[again.node()]);
}

#[test]
fn who_asks_steadily_loses_next_to_nothing_while_a_node_leaves_the_link() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Nft]) else { return };
    let lan = two_nodes(&rack);
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let client = lan.site.host("client", 77);
    client.get((ADDRESS, 80)).expect("the Service answers");
    let asking = client.ask_steadily((ADDRESS, 80), millis(5));
    let (code, said) = ordered(&agents[owner], "drain --wait --timeout 20s");
    assert_eq!(code, Some(0), "{said}");
    lan.answered_by(ADDRESS, &[agents[1 - owner].node()]);
    let outcomes = asking.stop();
    // One may be under way between two nodes that share no state.
    assert!(outcomes.lost() <= 1, "{outcomes}");
}

#[test]
fn flows_that_do_not_end_hold_a_drain_no_longer_than_its_time_and_the_command_says_so() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Nft]) else { return };
    let lan = two_nodes(&rack);
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let client = lan.site.host("client", 77);
    let _open = client.connect((ADDRESS, 80), secs(5)).expect("the Service answers");
    let (code, said) = ordered(&agents[owner], "drain --wait --timeout 3s");
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("1 flows were left"), "{said}");
    lan.answered_by(ADDRESS, &[agents[1 - owner].node()]);
}

/// Input: no rule on the nodes asks the kernel to track connections, as without kube-proxy.
#[test]
fn where_the_kernel_tracks_nothing_the_whole_time_is_waited_and_a_family_that_it_tracks_is_believed() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Nft]) else { return };
    let lan = Lan::with_pages(&rack, 2);
    lan.service("web", "192.168.35.100");
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let client = lan.site.host("client", 77);
    let open = client.connect((ADDRESS, 80), secs(5)).expect("the Service answers");
    let waits = std::thread::scope(|scope| {
        let waits = scope.spawn(|| ordered(&agents[owner], "drain --wait --timeout 6s"));
        rest(secs(4));
        finish(open).expect("the flow is not broken");
        waits.join().expect("it is ordered")
    });
    assert_eq!(waits.0, Some(4), "{}", waits.1);
    assert!(
        waits.1.contains("flows cannot be counted (the kernel tracks no IPv4 connections on this host"),
        "{}",
        waits.1
    );
    assert!(waits.1.contains("drained; the whole time was waited"), "{}", waits.1);
    lan.answered_by(ADDRESS, &[agents[1 - owner].node()]);

    assert_eq!(ordered(&agents[owner], "undrain").0, Some(0));
    let other = &agents[1 - owner];
    track(&lan.site.nodes[1 - owner]);
    eventually("no flow is one where a quiet host tracks them", secs(20), || {
        let (code, said) = ordered(other, "drain --wait --timeout 60s");
        if code == Some(0) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn routes_say_graceful_shutdown_first_and_go_last_also_across_a_restart() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Bird, Need::Crier, Need::Nft]) else { return };
    let manifests = Manifests::new(&rack);
    manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let session = "protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64512; passive yes; direct; ipv4 { import all; export none; gateway direct; }; }";
    let bird = site.router.bird(&format!("router id 192.168.35.1;\n{}\n{session}\n", bird::KERNEL));
    let node = site.node(0);
    track(node);
    let _page = node.serve(node.name(), &[80]);
    let configuration = format!(
        "{}\n[api]\nlisten = \"\"\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\nbind = \"lo\"\n\
         [bgp]\nasn = 64512\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = \"internal\"\n\
         connect-retry-time = \"1s\"\n[[bgp.advertisement]]\ncommunities = [\"64512:100\"]\nlocal-preference = 200\n",
        manifests.section()
    );
    let agent = node.crier(node.name(), &configuration);
    agent.wait_ready(secs(30));
    bird.wait_established("node1", secs(20));
    let seen = || {
        let routes = bird.route("203.0.113.1/32");
        routes.first().map_or_else(String::new, |route| {
            let attribute = |name: &str| route.attributes.get(name).cloned().unwrap_or_default();
            format!("{} {}", attribute("BGP.local_pref"), attribute("BGP.community"))
        })
    };
    eventually_equal("the route is there", secs(10), &"200 (64512,100)".to_owned(), seen);
    let client = site.outside("client");
    eventually("the client reaches the Service", secs(10), || {
        client.get(([203, 0, 113, 1], 80)).map(drop).map_err(|error| error.to_string())
    });
    let open = client.connect(([203, 0, 113, 1], 80), secs(5)).expect("the Service answers");

    let (code, said) = ordered(&agent, "drain --timeout 30s");
    assert_eq!(code, Some(1), "there is no other node: {said}");
    let (code, said) = ordered(&agent, "drain --timeout 30s --force");
    assert_eq!(code, Some(0), "{said}");
    eventually_equal("the route steps back", secs(5), &"0 (64512,100) (65535,0)".to_owned(), seen);
    throughout("while a flow is open the route stays", secs(2), || {
        if seen().is_empty() { Err("it went") } else { Ok(()) }
    });
    finish(open).expect("the flow ends by itself");
    eventually_equal("the route goes last", secs(10), &String::new(), seen);
    let (code, said) = ordered(&agent, "undrain");
    assert_eq!(code, Some(0), "{said}");
    eventually_equal("the route is back as it was", secs(5), &"200 (64512,100)".to_owned(), seen);

    // A crash in the middle.
    let _open = client.connect(([203, 0, 113, 1], 80), secs(5)).expect("the Service answers");
    let (code, said) = ordered(&agent, "drain --timeout 8s --force");
    assert_eq!(code, Some(0), "{said}");
    eventually_equal("the route steps back", secs(5), &"0 (64512,100) (65535,0)".to_owned(), seen);
    agent.kill();
    let again = node.crier(node.name(), &configuration);
    again.wait_ready(secs(30));
    throughout("a flow is open still, so it goes on waiting", secs(2), || match drain(&again)["stage"].as_str() {
        Some("waiting") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    eventually_equal("it goes on where it was", secs(30), &"drained".to_owned(), || {
        drain(&again)["stage"].as_str().unwrap_or_default().to_owned()
    });
    eventually_equal("the route is gone", secs(10), &String::new(), seen);
}

/// Two nodes behind a router, with 100 connections from beyond it that are open, when the first node is drained over BGP.
struct TwoBehindRouter {
    site: Site,
    agents: Vec<Crier>,
    open: Vec<TcpStream>,
    asking: rack::client::Asking,
    /// How many of the connections go through the first node.
    through: usize,
    /// Its link to the router goes with it.
    _client: Host,
    _pages: Vec<rack::Process>,
    _manifests: Manifests,
}

const ROUTED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

impl TwoBehindRouter {
    fn new<R>(rack: &Rack, start: impl FnOnce(&Site) -> R) -> (TwoBehindRouter, R) {
        let manifests = Manifests::new(rack);
        manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
        let site = Site::new(rack, "192.168.35.0/24", "fd35::/64", 2);
        // Over ports too: connections of one client go over both nodes.
        site.router.sysctl("net/ipv4/fib_multipath_hash_policy", "1");
        let router = start(&site);
        site.nodes.iter().for_each(|node| track(node));
        let pages = site.nodes.iter().map(|node| node.serve(node.name(), &[80])).collect();
        let configuration = format!(
            "{}\n[api]\nlisten = \"\"\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\nbind = \"lo\"\n\
             [bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n\
             connect-retry-time = \"1s\"\n[[bgp.advertisement]]\n",
            manifests.section()
        );
        let agents: Vec<Crier> = site.nodes.iter().map(|node| node.crier(node.name(), &configuration)).collect();
        for agent in &agents {
            agent.wait_ready(secs(30));
        }
        eventually_equal("the router's kernel has both nodes", secs(30), &2, || {
            site.router.next_hops("203.0.113.1").len()
        });
        let client = site.outside("client");
        eventually("the client reaches both", secs(20), || {
            let servers = client.get_many((ROUTED, 80), 20);
            if servers.len() == 2 { Ok(()) } else { Err(format!("{servers:?}")) }
        });
        let open: Vec<TcpStream> =
            (0..100).map(|_| client.connect((ROUTED, 80), secs(5)).expect("the Service answers")).collect();
        let asking = client.ask_steadily((ROUTED, 80), millis(5));
        let (code, said) = ordered(&agents[0], "drain --timeout 20s --force");
        assert_eq!(code, Some(0), "{said}");
        let through = eventually("every open flow is counted", secs(5), || {
            let drain = drain(&agents[0]);
            drain["flows"].as_u64().ok_or_else(|| drain.to_string())
        });
        let through = usize::try_from(through).expect("a small number");
        assert!((10..=110).contains(&through), "{through} of the connections, and some of who asks steadily");
        (
            TwoBehindRouter {
                site,
                agents,
                open,
                asking,
                through,
                _client: client,
                _pages: pages,
                _manifests: manifests,
            },
            router,
        )
    }

    /// What becomes of the open connections when their clients go on.
    fn broken(&mut self) -> usize {
        self.open.drain(..).map(finish).filter(Result::is_err).count()
    }
}

/// FRR obeys the community: the first node leaves the multipath route, and the packets of its connections come to the second,
/// which does not know them. The drain says so. It ends when its time is over, or when nothing came for a minute (`drain_flows`).
#[test]
fn flows_that_a_router_moves_at_the_step_back_are_told_as_silent_and_new_ones_lose_nothing() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Frr, Need::Crier, Need::Nft]) else { return };
    let (mut town, _frr) = TwoBehindRouter::new(&rack, |site| {
        let neighbors: String = ["192.168.35.11", "192.168.35.12"]
            .map(|it| format!(" neighbor {it} remote-as 64513\n neighbor {it} timers connect 1\n"))
            .concat();
        site.router.frr(&format!(
            "router bgp 64512\n bgp router-id 192.168.35.1\n{}{neighbors} address-family ipv4 unicast\n  \
             neighbor 192.168.35.11 activate\n  neighbor 192.168.35.12 activate\n  maximum-paths 8\n exit-address-family\n",
            frr::PLAIN
        ))
    });
    eventually_equal("the router uses the other node alone", secs(10), &1, || {
        town.site.router.next_hops("203.0.113.1").len()
    });
    let leaving = &town.agents[0];
    eventually("what is left is silent, and told so", secs(15), || {
        let drain = drain(leaving);
        let (left, silent) = (&drain["flows_left"], &drain["flows_silent"]);
        if drain["stage"] == "waiting" && left == silent && left.as_u64() >= Some(10) {
            Ok(())
        } else {
            Err(drain.to_string())
        }
    });
    let status = String::from_utf8_lossy(&leaving.verb("status").stdout).into_owned();
    assert!(status.contains("of them silent since the routes stepped back"), "{status}");
    let broken = town.broken();
    assert!(broken > 0 && broken <= town.through, "{broken} connections broke: doc/operation.md says so");
    eventually("it is drained, and says what was left", secs(30), || {
        let drain = drain(&town.agents[0]);
        if drain["stage"] == "drained" && drain["flows_silent"] == drain["flows_left"] {
            Ok(())
        } else {
            Err(drain.to_string())
        }
    });
    let outcomes = town.asking.stop();
    // Of those that ask by themselves, those which were under way when the route changed moved with it.
    assert!(outcomes.lost() <= 2, "{outcomes}");
}

/// BIRD over eBGP does not look at the community: connections end by themselves at the node where they began.
#[test]
fn behind_a_router_that_does_not_obey_flows_end_by_themselves_and_nobody_loses_anything() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Bird, Need::Crier, Need::Nft]) else { return };
    let (mut town, bird) = TwoBehindRouter::new(&rack, |site| {
        let sessions: String = ["1", "2"]
            .map(|it| {
                format!(
                    "protocol bgp node{it} {{ local as 64512; neighbor 192.168.35.1{it} as 64513; passive yes; direct; \
                     ipv4 {{ import all; export none; }}; }}\n"
                )
            })
            .concat();
        site.router.bird(&format!("router id 192.168.35.1;\n{}\n{sessions}", bird::KERNEL))
    });
    throughout("the node serves on while flows are open", secs(7), || {
        let drain = drain(&town.agents[0]);
        let hops = town.site.router.next_hops("203.0.113.1").len();
        if drain["stage"] == "waiting" && hops == 2 { Ok(()) } else { Err(format!("{hops} {drain}")) }
    });
    let silent = drain(&town.agents[0])["flows_silent"].as_u64();
    assert!(silent >= Some(1), "idle connections look like moved ones: {silent:?}");
    assert_eq!(town.broken(), 0);
    eventually("it is drained", secs(30), || {
        let drain = drain(&town.agents[0]);
        if drain["stage"] == "drained" && drain["timed_out"] == false { Ok(()) } else { Err(drain.to_string()) }
    });
    eventually_equal("its route is gone", secs(10), &1, || bird.route("203.0.113.1/32").len());
    let outcomes = town.asking.stop();
    assert!(outcomes.lost() <= 1, "{outcomes}");
}

#[test]
fn a_cordoned_node_is_drained_where_that_is_followed_and_an_uncordoned_one_comes_back() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Nft]) else { return };
    let lan = two_nodes(&rack);
    let names: Vec<String> = lan.site.nodes.iter().map(|node| node.name().to_owned()).collect();
    let mark = |cordoned: &[usize], tainted: &[usize]| {
        let node = |(number, name): (usize, &String)| {
            let out = cordoned.contains(&number);
            let taint = "{ key: example.com/maintenance, effect: NoSchedule }";
            let taints = if tainted.contains(&number) { taint } else { "" };
            format!(
                "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {name} }}\nspec: {{ unschedulable: {out}, taints: [{taints}] }}\n"
            )
        };
        lan.manifests.write("nodes.yaml", &names.iter().enumerate().map(node).collect::<String>());
    };
    let cordon = |cordoned: &[usize]| mark(cordoned, &[]);
    cordon(&[]);
    let agents = lan.agents_with(&format!(
        "{}[drain]\nfollow-cordon = true\nfollow-taint = \"example.com/maintenance\"\ntimeout = \"2s\"\n",
        lan.configuration()
    ));
    let owner = lan.owner(ADDRESS);
    let (leaving, other) = (&agents[owner], &agents[1 - owner]);
    cordon(&[owner]);
    eventually("it is drained", secs(30), || {
        let drain = drain(leaving);
        if drain["stage"] == "drained" && drain["follows"] == true { Ok(()) } else { Err(drain.to_string()) }
    });
    assert_eq!(drain(leaving)["reason"], "the Node is cordoned");
    lan.answered_by(ADDRESS, &[other.node()]);
    cordon(&[0, 1]);
    eventually("the last node stays, and says so", secs(20), || {
        let problems = rack::lan::problems(other);
        if problems.contains("the Node is cordoned, and this node is not drained") { Ok(()) } else { Err(problems) }
    });
    assert_eq!(drain(other), Value::Null);
    cordon(&[]);
    eventually("it takes part again", secs(20), || {
        let drain = drain(leaving);
        if drain.is_null() { Ok(()) } else { Err(drain.to_string()) }
    });
    eventually("nothing is left of the refusal", secs(20), || {
        let problems = rack::lan::problems(other);
        if problems.contains("cordoned") { Err(problems) } else { Ok(()) }
    });
    mark(&[], &[owner]);
    eventually("a taint drains it as well", secs(20), || {
        let drain = drain(leaving);
        if drain["stage"] == "drained" && drain["follows"] == true { Ok(()) } else { Err(drain.to_string()) }
    });
    mark(&[], &[]);
    eventually("and it takes part again without", secs(20), || {
        let drain = drain(leaving);
        if drain.is_null() { Ok(()) } else { Err(drain.to_string()) }
    });
}

#[test]
fn of_two_nodes_that_are_drained_at_once_one_goes_on_serving_until_the_other_is_back() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Crier, Need::Nft]) else { return };
    let lan = two_nodes(&rack);
    let agents = lan.agents();
    let owner = lan.owner(ADDRESS);
    let codes: Vec<Option<i32>> = std::thread::scope(|scope| {
        let both = agents.iter().map(|agent| scope.spawn(|| ordered(agent, "drain --timeout 0s").0));
        let both: Vec<_> = both.collect();
        both.into_iter().map(|it| it.join().expect("it is ordered")).collect()
    });
    // Whoever is second may be refused at once, or stands still.
    let standing = || {
        let stands = |agent: &&Crier| rack::lan::problems(agent).contains("stands still");
        agents.iter().filter(stands).map(|agent| agent.node().to_owned()).collect::<Vec<_>>()
    };
    let refused = codes.iter().filter(|code| **code == Some(1)).count();
    eventually("what nobody else serves is kept, and said so", secs(20), || {
        if refused + standing().len() >= 1 { Ok(()) } else { Err(format!("{codes:?}, {:?}", standing())) }
    });
    throughout("somebody answers", secs(18), || {
        let answering = lan.answering(ADDRESS);
        if answering.is_empty() { Err("nobody answers".to_owned()) } else { Ok(()) }
    });
    let (stays, leaves) = (&agents[1 - owner], &agents[owner]);
    assert_eq!(ordered(stays, "undrain").0, Some(0));
    ordered(leaves, "drain --timeout 0s");
    eventually("the other one leaves", secs(20), || {
        let drain = drain(leaves);
        if drain["stage"] == "drained" { Ok(()) } else { Err(format!("{drain} {}", rack::lan::problems(leaves))) }
    });
    lan.answered_by(ADDRESS, &[stays.node()]);
}

/// Input: a router hangs, and its host takes what it is sent. Output: the drain goes on, and says that the router was not
/// heard since, until it is.
#[test]
fn a_router_that_hangs_with_an_open_window_is_told_as_one_that_was_not_heard() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Bird, Need::Crier, Need::Nft]) else { return };
    let manifests = Manifests::new(&rack);
    manifests.service(&Service::new("web").anywhere().addresses("203.0.113.1"));
    let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 1);
    let session = "protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64513; passive yes; ipv4 { import all; export none; }; }";
    let bird = site.router.bird(&format!("router id 192.168.35.1;\n{}\n{session}\n", bird::KERNEL));
    let configuration = format!(
        "{}\n[api]\nlisten = \"\"\n[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/28\"]\n\
         [bgp]\nasn = 64513\nlisten = []\n[[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n\
         hold-time = \"9s\"\n[[bgp.advertisement]]\n",
        manifests.section()
    );
    track(site.node(0));
    let agent = site.node(0).crier("node-1", &configuration);
    agent.wait_ready(secs(30));
    bird.wait_established("node1", secs(20));
    eventually_equal("the route is there", secs(10), &1, || bird.route("203.0.113.1/32").len());
    bird.process().freeze();
    let (code, said) = ordered(&agent, "drain --timeout 0s --force --wait");
    let unheard = "peer tor: acknowledged by TCP, not heard since";
    assert!(code == Some(0) && said.contains(unheard), "{code:?} {said}");
    let status = || String::from_utf8_lossy(&agent.verb("status").stdout).into_owned();
    assert!(status().contains(unheard), "{}", status());
    bird.process().thaw();
    eventually("it is heard", secs(8), || {
        let status = status();
        if status.contains(unheard) { Err(status) } else { Ok(()) }
    });
    assert_eq!(bird.route("203.0.113.1/32").len(), 0);
}
