//! The demo: crier's main job in a rack of network namespaces, told in plain lines while it happens.
//!
//! Two nodes run the real binary in standalone mode, fed with manifests; a top-of-rack router runs BIRD 2; a client
//! asks from the link. Every line that says what happened stands behind a check: a step that does not come true ends
//! the demo with what was expected, what was seen, and how the logs end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rack::crier::Crier;
use rack::{Deadline, Manifests, Need, Rack, Service, Site, bird, eventually, eventually_equal, millis, now, secs};

/// How long any single step may take.
const PATIENCE: Duration = secs(15);

const ON_THE_LINK: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
const OVER_BGP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const LOCAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

const CONFIGURATION: &str = r#"
[manifests]
folder = "FOLDER"

[[pool]]
name = "lan"
addresses = ["192.168.35.100-192.168.35.110"]
bind = "lo"

[[pool]]
name = "public"
addresses = ["203.0.113.0/28"]
avoid-network-and-broadcast = true
bind = "lo"

[[l2]]
pools = ["lan"]
interfaces = ["eth0"]

[pulse]
key-file = "KEY"

[bgp]
asn = 64513

[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512
hold-time = "9s"
connect-retry-time = "1s"

[[bgp.advertisement]]
pools = ["public"]
communities = ["64512:100"]
"#;

/// A Service of a pool: `nodes` are those on which a server for it runs.
fn service(name: &str, pool: &str, policy: &str, wish: &str, nodes: &[&str]) -> Service {
    let service = Service::new(name).annotation("crier.dev/pool", pool).policy(policy);
    let service = if wish.is_empty() { service } else { service.load_balancer_ip(wish) };
    nodes.iter().fold(service, |service, node| service.on(node))
}

/// Runs the demo.
pub fn run() -> ExitCode {
    // First of all: the kernel lets only a process with one thread into a user namespace.
    let own_user_namespace = match rack::enter_user_namespace_if_needed() {
        Ok(entered) => entered,
        Err(why) => {
            eprintln!("the demo cannot run here: {why}");
            return ExitCode::FAILURE;
        }
    };
    rack::clean_up_on_interrupt();
    let missing: Vec<_> =
        [Need::Namespaces, Need::Bird, Need::Crier].into_iter().filter_map(|need| need.look().err()).collect();
    if !missing.is_empty() {
        eprintln!("the demo cannot run here: {}", missing.join("; "));
        return ExitCode::FAILURE;
    }
    let told = std::panic::catch_unwind(|| Story::begin(own_user_namespace).tell());
    match told {
        Ok(()) => ExitCode::SUCCESS,
        // The panic has said what was expected and what was seen.
        Err(_) => {
            eprintln!("\nthe demo failed at the step above; everything it started is gone");
            ExitCode::FAILURE
        }
    }
}

struct Story {
    began: Instant,
    site: Site,
    manifests: Manifests,
}

impl Story {
    fn begin(own_user_namespace: bool) -> Story {
        let began = now();
        let rack = Rack::new("demo");
        let manifests = Manifests::new(&rack);
        rack.write("pulse.key", "a key for this demo and no other");
        let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 2);
        let story = Story { began, site, manifests };
        story.chapter("A rack in network namespaces; nothing of the host's network is touched");
        if own_user_namespace {
            story.say("not root here: all of it runs in a user namespace of its own");
        }
        story.say("node-1 192.168.35.11 and node-2 192.168.35.12, a top-of-rack router .1, a client .9, on one link");
        story
    }

    fn tell(&self) {
        let site = &self.site;
        let addresses: Vec<[IpAddr; 1]> = site.nodes.iter().map(|node| [node.address.into()]).collect();
        let nodes: Vec<_> = site.nodes.iter().zip(&addresses).map(|(node, at)| (node.name(), "", &at[..])).collect();
        self.manifests.nodes(&nodes);
        self.manifests.service(&service("intranet", "lan", "Cluster", "192.168.35.100", &["node-1", "node-2"]));
        self.manifests.service(&service("shop", "public", "Cluster", "", &["node-1", "node-2"]));
        let tor = site.router.bird(&format!(
            "router id 192.168.35.1;\n{}\n\
             protocol bgp node1 {{ local as 64512; neighbor 192.168.35.11 as 64513; ipv4 {{ import all; export none; }}; }}\n\
             protocol bgp node2 {{ local as 64512; neighbor 192.168.35.12 as 64513; ipv4 {{ import all; export none; }}; }}\n",
            bird::KERNEL
        ));
        let servers: Vec<_> = site.nodes.iter().map(|node| node.serve(node.name(), &[80])).collect();
        let agents = [self.agent(0), self.agent(1)];
        for agent in &agents {
            agent.wait_ready(PATIENCE);
        }
        self.say("`crier run` is ready on both nodes: configuration good, sockets open, manifests read");

        self.chapter("Addresses: two Services, fed as manifests, the same answer on both nodes");
        for (name, address) in [("default/intranet", ON_THE_LINK), ("default/shop", OVER_BGP)] {
            for agent in &agents {
                self.holds(agent, name, address);
            }
            self.say(&format!("{name} has {address}"));
        }

        self.chapter("On the link: one node answers who-has for the address");
        let owner = self.owner(&agents, "default/intranet");
        self.answers_with(ON_THE_LINK, &owner);
        self.get(ON_THE_LINK, None);

        self.chapter("Over BGP: both nodes announce to the router, which balances");
        for session in ["node1", "node2"] {
            tor.wait_established(session, PATIENCE);
            self.say(&format!("the router's session {session} is Established"));
        }
        self.route(OVER_BGP, &[0, 1]);
        let attributes = tor.route("203.0.113.1/32");
        let community = attributes.first().and_then(|route| route.attributes.get("BGP.community").cloned());
        assert_eq!(community.as_deref(), Some("(64512,100)"), "the community of the advertisement: {attributes:?}");
        self.say("with community (64512,100), as the advertisement says");
        self.get(OVER_BGP, None);

        self.chapter("External traffic policy Local: only the node with an endpoint announces");
        self.manifests.service(&service("local", "public", "Local", "203.0.113.7", &["node-2"]));
        self.route(LOCAL, &[1]);
        self.get(LOCAL, Some("node-2"));
        self.manifests.service(&service("local", "public", "Local", "203.0.113.7", &["node-1"]));
        self.route(LOCAL, &[0]);
        self.say("the endpoint moved to node-1, and the route with it");

        self.chapter("A node dies: the one that answers on the link, killed without a word");
        let victim = usize::from(owner == "node-2");
        let survivor = 1 - victim;
        let ask = |address: Ipv4Addr| site.client.ask_steadily(SocketAddr::from((address, 80)), millis(5));
        let (asking, asking_on_the_link) = (ask(OVER_BGP), ask(ON_THE_LINK));
        let died = now();
        agents[victim].kill();
        servers[victim].kill();
        // What was bound there goes with a node that dies; here its kernel lives on, and would still answer for it.
        site.node(victim).ip(&format!("address del {ON_THE_LINK}/32 dev lo"));
        self.route(OVER_BGP, &[survivor]);
        let routed_after = died.elapsed();
        eventually("the traffic goes on", PATIENCE, || {
            let outcomes = asking.outcomes();
            let after = outcomes.0.iter().filter(|it| it.at > died + routed_after).count();
            if after > 50 { Ok(()) } else { Err(format!("{after} requests since the route moved")) }
        });
        let outcomes = asking.stop();
        let survived = outcomes
            .0
            .iter()
            .rev()
            .take(20)
            .all(|it| it.result.as_ref().is_ok_and(|server| server == site.node(survivor).name()));
        assert!(survived, "the survivor answers everything in the end:\n{outcomes}");
        self.say(&format!(
            "the router dropped its route after {} ms; the longest gap a client saw was {} ms, {} of {} requests lost",
            routed_after.as_millis(),
            outcomes.longest_gap().as_millis(),
            outcomes.lost(),
            outcomes.0.len()
        ));
        self.answers_with(ON_THE_LINK, site.node(survivor).name());
        self.get(ON_THE_LINK, Some(site.node(survivor).name()));
        let outcomes = asking_on_the_link.stop();
        self.say(&format!(
            "on the link the longest gap a client saw was {} ms, {} of {} requests lost",
            outcomes.longest_gap().as_millis(),
            outcomes.lost(),
            outcomes.0.len()
        ));
        self.show(&agents[survivor], "l2");

        self.chapter("The node comes back");
        let _server = site.node(victim).serve(site.node(victim).name(), &[80]);
        let revived = self.agent(victim);
        revived.wait_ready(PATIENCE);
        self.route(OVER_BGP, &[0, 1]);

        self.chapter("A Service is deleted: withdrawn everywhere, the address is free");
        self.manifests.remove("shop.yaml");
        self.route(OVER_BGP, &[]);

        self.chapter("What `crier status` says in the end");
        let survivor = &agents[survivor];
        self.show(survivor, "status");

        self.chapter("Both agents leave cleanly: SIGTERM, withdraw, Cease");
        for agent in [survivor, &revived] {
            let ended = agent.stop(PATIENCE);
            assert!(ended.success(), "{} ended with {ended}", agent.node());
        }
        self.route(LOCAL, &[]);
        self.say("no route of crier is left at the router, no address on any lo");
        for node in &site.nodes {
            let left = node.ip("-brief address show dev lo");
            assert!(!left.contains("203.0.113.") && !left.contains("192.168.35.10"), "{}: {left}", node.name());
        }
        println!("\ndone in {:.1} s; taking the rack down", self.began.elapsed().as_secs_f64());
    }

    /// What a verb prints.
    fn show(&self, agent: &Crier, verb: &str) {
        let shown = agent.verb(verb);
        // 1: it answered, and shows a problem.
        assert!(
            matches!(shown.status.code(), Some(0 | 1)),
            "crier {verb} failed: {}",
            String::from_utf8_lossy(&shown.stderr)
        );
        for line in String::from_utf8_lossy(&shown.stdout).lines() {
            println!("          | {line}");
        }
    }

    fn agent(&self, node: usize) -> Crier {
        let node = self.site.node(node);
        let key = self.site.rack.folder().join("pulse.key");
        let configuration = CONFIGURATION
            .replace("FOLDER", &self.manifests.path().display().to_string())
            .replace("KEY", &key.display().to_string());
        node.crier(node.name(), &configuration)
    }

    fn holds(&self, agent: &Crier, service: &str, address: Ipv4Addr) {
        let what = format!("{} gives {service} the address {address}", agent.node());
        eventually(&what, PATIENCE, || {
            let status = agent.try_json("status")?;
            let held = find_service(&status, service).map(|it| it["allocation"]["held"][0]["address"].clone());
            if held == Some(address.to_string().into()) { Ok(()) } else { Err(format!("{held:?}")) }
        });
    }

    /// Once both agents have listened long enough to own addresses, and agree.
    fn owner(&self, agents: &[Crier], service: &str) -> String {
        eventually(&format!("an owner for {service}"), PATIENCE, || {
            let mut owners = BTreeSet::new();
            for agent in agents {
                let status = agent.try_json("status")?;
                if status["pulse"]["links"][0]["settled"] != true {
                    return Err(format!("{} is listening still", agent.node()));
                }
                let owner = find_service(&status, service).map(|it| it["announcements"][0]["l2"]["owner"].clone());
                owners.insert(owner.as_ref().and_then(|owner| owner.as_str()).map(str::to_owned));
            }
            match owners.pop_first() {
                Some(Some(owner)) if owners.is_empty() => Ok(owner),
                other => Err(format!("{other:?} and {owners:?}")),
            }
        })
    }

    fn answers_with(&self, address: Ipv4Addr, owner: &str) {
        let node = self.site.nodes.iter().find(|node| node.name() == owner).expect("the owner is a node of the site");
        eventually_equal(&format!("{owner} answers for {address}"), PATIENCE, &vec![node.port.mac()], || {
            self.site.client.who_has("eth0", address, millis(200))
        });
        self.say(&format!(
            "who-has {address}? answered with {}, the MAC of {owner}, and with no other",
            node.port.mac()
        ));
    }

    /// Waits until the router's kernel balances over exactly these nodes.
    fn route(&self, address: Ipv4Addr, nodes: &[usize]) {
        let prefix = format!("{address}/32");
        let hops = nodes.iter().map(|node| IpAddr::from(self.site.node(*node).address)).collect();
        eventually_equal(&format!("the router's next hops for {prefix}"), Deadline::after(PATIENCE), &hops, || {
            self.site.router.next_hops(&prefix)
        });
        let names: Vec<_> = nodes.iter().map(|node| self.site.node(*node).name()).collect();
        match names.as_slice() {
            [] => self.say(&format!("the router has no route to {prefix} any more")),
            names => self.say(&format!("in the router's kernel: {prefix} through {}", names.join(" and "))),
        }
    }

    fn get(&self, address: Ipv4Addr, expected: Option<&str>) {
        let target = SocketAddr::from((address, 80));
        let answer = eventually(&format!("http://{address}/ answers"), PATIENCE, || {
            self.site.client.get(target).map_err(|error| error.to_string())
        });
        if let Some(expected) = expected {
            assert_eq!(answer.name, expected, "who answered http://{address}/");
        }
        let source = Some(IpAddr::from(self.site.client.address));
        assert_eq!(answer.source, source, "the client's address arrives at the server");
        self.say(&format!(
            "curl http://{address}/ answered by {} in {:.1} ms; it saw the client's own address",
            answer.name,
            answer.took.as_secs_f64() * 1000.0
        ));
    }

    fn chapter(&self, title: &str) {
        println!("\n{title}");
    }

    fn say(&self, line: &str) {
        println!("{:7.3} s  {line}", self.began.elapsed().as_secs_f64());
    }
}

fn find_service<'a>(status: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    status["services"].as_array()?.iter().find(|service| service["name"] == name)
}
