//! While Services, pods, owners, agents and rulesets come, go, die and are flushed at random, no packet of a pod of a Service with
//! egress leaves with a pod's or a node's address.
//!
//! `CRIER_LEAK_SECONDS` says for how long (25), `CRIER_LEAK_SEED` repeats what happened in a run that printed it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rack::capture::Capture;
use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, PORT, Pinging, Scene, leaks, pings, socket};
use rack::manifests::Manifests;
use rack::packet::Mac;
use rack::{Namespace, Need, Pod, Rack, eventually, millis, now, rest, secs};

/// What a pod sends: datagrams and connections of both families to two hosts, and pings of both to one, each every millisecond.
struct Sending {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _pinging: [Pinging; 2],
}

impl Sending {
    fn start(pod: &Pod, scene: &Scene) -> Sending {
        let stop = Arc::new(AtomicBool::new(false));
        let site = &scene.lan.site;
        let mut threads = Vec::new();
        for host in [&site.client, &site.router] {
            let ends: [(IpAddr, IpAddr); 2] =
                [(pod.address.into(), host.address.into()), (pod.address6.into(), host.address6.into())];
            for (from, to) in ends {
                let to: SocketAddr = (to, PORT).into();
                threads.push(datagrams(pod, from, to, stop.clone()));
                threads.push(connections(pod, to, stop.clone()));
            }
        }
        let pinging =
            [Pinging::start(pod, site.client.address, millis(1)), Pinging::start(pod, site.client.address6, millis(1))];
        Sending { stop, threads, _pinging: pinging }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a sender does not panic"));
    }
}

fn datagrams(pod: &Pod, from: IpAddr, to: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let pod = Namespace::clone(pod);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let socket = socket(&pod, from, 0);
            for _ in 0..50 {
                // What is refused or dropped is what the test is about.
                let _ = socket.send_to(b"egress", to);
                rest(millis(1));
            }
        }
    })
}

fn connections(pod: &Pod, to: SocketAddr, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    let pod = Namespace::clone(pod);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            // Nobody listens: the first packet is all that counts.
            pod.run(|| drop(TcpStream::connect_timeout(&to, millis(20))));
            rest(millis(1));
        }
    })
}

/// Repeatable chance: xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("it is below a usize")
    }
}

/// What happens, and what there is.
struct Town {
    scene: Scene,
    /// Of each node; `None` while it is dead.
    agents: Vec<Option<Crier>>,
    senders: Vec<Sending>,
    /// The annotations of the Service; `None` while there is none.
    served: Option<Vec<(&'static str, &'static str)>>,
    gate: Option<usize>,
    pods_made: usize,
    chance: Chance,
}

const WAYS: [&[(&str, &str)]; 5] = [
    &[("egress", "service-ip")],
    &[("egress", "service-ip"), ("egress-nodes", "gate=yes")],
    &[("egress", "service-ip"), ("egress-to", "192.168.35.0/24, fd35::/64")],
    &[("egress", "service-ipp")],
    &[],
];

impl Town {
    fn act(&mut self) -> String {
        let node = self.chance.below(2);
        match self.chance.below(10) {
            0 => self.flush(node),
            1 => self.end(node, "kill"),
            2 => self.end(node, "stop"),
            3 | 4 => self.begin(node),
            5 => self.serve(None),
            6 => {
                let way = self.chance.below(WAYS.len());
                self.serve(Some(WAYS[way].to_vec()))
            }
            7 => {
                let gate = [None, Some(0), Some(1)][self.chance.below(3)];
                self.label(gate)
            }
            8 => {
                let port = &self.scene.lan.site.node(node).port;
                port.cut();
                rest(millis(400));
                port.restore();
                format!("the cable of node-{} is cut for a moment", node + 1)
            }
            _ => self.replace_pod(node),
        }
    }

    /// While no agent runs a flush takes the guard along, as the documents say. Before Linux 6.9 the second guard belongs to the agent's
    /// socket, and the table comes back.
    fn flush(&self, node: usize) -> String {
        let host = self.scene.lan.site.node(node);
        if self.agents[node].is_none() || !host.sh("nft list ruleset").contains("flags owner") {
            return "nothing".to_owned();
        }
        host.sh("nft flush ruleset");
        host.sh(&format!("nft -f {}", self.scene.lan.site.rack.folder().join("cni.nft").display()));
        format!("the ruleset of node-{} is flushed", node + 1)
    }

    fn end(&mut self, node: usize, how: &str) -> String {
        let Some(agent) = self.agents[node].take() else { return "nothing".to_owned() };
        match how {
            "kill" => agent.kill(),
            _ => drop(agent.stop(secs(10))),
        }
        format!("{how} of the agent on node-{}", node + 1)
    }

    fn begin(&mut self, node: usize) -> String {
        if self.agents[node].is_some() {
            return "nothing".to_owned();
        }
        self.agents[node] = Some(self.scene.lan.agent_with(node, &self.scene.configuration));
        format!("the agent on node-{} starts", node + 1)
    }

    fn serve(&mut self, annotations: Option<Vec<(&'static str, &'static str)>>) -> String {
        match (&annotations, &self.served) {
            (Some(annotations), _) => self.scene.serve_with(annotations),
            (None, Some(_)) => self.scene.lan.manifests.remove("web.yaml"),
            (None, None) => {}
        }
        self.served = annotations;
        format!("the Service is {:?}", self.served)
    }

    fn label(&mut self, gate: Option<usize>) -> String {
        self.gate = gate;
        self.scene.label(&[0, 1].map(|node| if gate == Some(node) { "gate: \"yes\"" } else { "" }));
        format!("selected is {gate:?}")
    }

    /// The pod of a node goes, and another one comes. It sends at once: before its Pod is known, and before the Service is told of it.
    fn replace_pod(&mut self, node: usize) -> String {
        let has_egress = self.served.as_ref().is_some_and(|it| !it.is_empty());
        if !has_egress || self.agents[node].is_none() {
            return "nothing".to_owned();
        }
        self.senders.remove(node).end();
        self.pods_made += 1;
        let host = self.scene.lan.site.node(node);
        eventually("new pods are held back: the agent knows of the Service", secs(20), || {
            let listed = host.sh("nft list set inet crier own4") + &host.sh("nft list set inet crier own6");
            if listed.matches("elements").count() == 2 { Ok(()) } else { Err(listed) }
        });
        let pod = host.pod(&format!("web-{}", self.pods_made + 1), &[80]);
        self.senders.insert(node, Sending::start(&pod, &self.scene));
        self.scene.pods[node] = pod;
        rest(millis(u64::try_from(self.chance.below(300)).expect("small")));
        self.scene.tell_pods();
        rest(millis(u64::try_from(self.chance.below(300)).expect("small")));
        self.scene.serve_with(self.served.as_deref().unwrap_or_default());
        let pod = &self.scene.pods[node];
        eventually("the new pod is guarded", secs(20), || {
            let listed = host.sh("nft list set inet crier guard4") + &host.sh("nft list set inet crier guard6");
            let is_in = |address: String| listed.contains(&format!("{address} counter"));
            if is_in(pod.address.to_string()) && is_in(pod.address6.to_string()) { Ok(()) } else { Err(listed) }
        });
        format!("{} replaces the pod of node-{}", pod.name(), node + 1)
    }
}

#[test]
fn whatever_comes_goes_dies_and_is_flushed_no_packet_of_a_pod_has_another_source_than_the_services_address() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let length = Duration::from_secs(number("CRIER_LEAK_SECONDS").unwrap_or(25));
    let seed = number("CRIER_LEAK_SEED").unwrap_or_else(|| std::process::id().into()).max(1);
    println!("CRIER_LEAK_SEED={seed}");

    let mut scene = Scene::new(&rack);
    scene.configuration += "[egress]\nnew-pods = \"hold\"\n";
    scene.tell_pods();
    let agents: Vec<Option<Crier>> = scene.lan.agents_with(&scene.configuration).into_iter().map(Some).collect();
    {
        // What this test calls a leak is there to be seen before the Service is.
        let client = &scene.lan.site.client;
        let captures = [(client.port.capture(), client.port.mac())];
        let sending = Sending::start(&scene.pods[0], &scene);
        eventually("packets have the nodes' addresses without a Service", secs(10), || {
            let leaks = leaks(&captures);
            let is_seen = |what: &str| leaks.iter().any(|leak| leak.starts_with(what) || leak.ends_with(what));
            let expected = [" protocol 1", " protocol 6", " protocol 17", " protocol 58", "192.168.35.1", "fd35::1"];
            if expected.iter().all(|what| is_seen(what)) { Ok(()) } else { Err(format!("{leaks:?}")) }
        });
        sending.end();
    }
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    let running: Vec<&Crier> = agents.iter().flatten().collect();
    for agent in running {
        eventually("the pods are guarded", secs(20), || {
            let rows = rack::egress::rows(agent);
            if rows.len() == 2 && rows.iter().all(|row| !row.contains("held")) {
                Ok(())
            } else {
                Err(format!("{rows:?}"))
            }
        });
    }
    let site = &scene.lan.site;
    let captures: Vec<(Capture, Mac)> =
        [&site.client, &site.router].map(|host| (host.port.capture(), host.port.mac())).into();
    let senders = scene.pods.iter().map(|pod| Sending::start(pod, &scene)).collect();
    let served = Some(WAYS[0].to_vec());
    let mut town = Town { scene, agents, senders, served, gate: None, pods_made: 1, chance: Chance(seed) };
    let mut story = vec![format!("node-{} owns the address", owner + 1)];
    let begin = now();
    while begin.elapsed() < length {
        let at = begin.elapsed();
        let act = town.act();
        if act != "nothing" {
            story.push(format!("{at:.1?} {act}"));
            assert_eq!(leaks(&captures), BTreeSet::new(), "CRIER_LEAK_SEED={seed}\n{}", story.join("\n"));
        }
        rest(millis(u64::try_from(town.chance.below(700)).expect("small")));
    }
    // In the end all is as in the beginning, and packets come through.
    (0..2).for_each(|node| drop(town.begin(node)));
    town.serve(Some(WAYS[0].to_vec()));
    let came = |capture: &Capture, source: &str| {
        let source: IpAddr = source.parse().expect("an address");
        let octets = match source {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let at = if source.is_ipv4() { 26 } else { 22 };
        let mut count = 0_usize;
        capture.each(|frame| count += usize::from(frame.bytes.get(at..at + octets.len()) == Some(&octets[..])));
        count
    };
    let before: Vec<usize> = ADDRESSES.iter().map(|address| came(&captures[0].0, address)).collect();
    for (address, before) in ADDRESSES.iter().zip(before) {
        eventually(&format!("packets come from {address} in the end"), secs(30), || {
            let after = came(&captures[0].0, address);
            if after > before + 100 { Ok(()) } else { Err(format!("{before}, now {after}\n{}", story.join("\n"))) }
        });
    }
    town.senders.drain(..).for_each(Sending::end);
    println!("{}", story.join("\n"));
    let whole = format!("CRIER_LEAK_SEED={seed}\n{}", story.join("\n"));
    assert_eq!(leaks(&captures), BTreeSet::new(), "{whole}");
    let pings = pings(&captures[0].0);
    let expected: BTreeSet<String> = ADDRESSES.map(str::to_owned).into();
    assert_eq!(pings, expected, "the sources of all pings\n{whole}");
}

/// A folder of manifests of one node alone, which shows what all were told when [`View::catch_up`] was called last.
struct View(Manifests);

impl View {
    fn catch_up(&self, all: &Manifests) {
        for file in std::fs::read_dir(all.path()).expect("the rack's folder is ours") {
            let path = file.expect("it can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("the names are ours");
            self.0.write(name, &std::fs::read_to_string(&path).expect("manifests are text"));
        }
    }
}

/// Two agents that hear each other, and know what their views show.
fn agents_with_views(rack: &Rack, scene: &Scene) -> ([Crier; 2], [View; 2]) {
    let views = [0, 1].map(|node| View(Manifests::in_folder(rack.folder().join(format!("view-{node}")))));
    let all = &scene.lan.manifests;
    views.iter().for_each(|view| view.catch_up(all));
    let agents = [0, 1].map(|node| {
        let shared = all.section();
        assert!(scene.configuration.contains(&shared));
        scene.lan.agent_with(node, &scene.configuration.replace(&shared, &views[node].0.section()))
    });
    (agents, views)
}

/// With what the owner knows now.
fn leaves_by_the_owner(scene: &Scene) {
    let client = &scene.lan.site.client;
    let socket = socket(client, client.address.into(), PORT);
    eventually("with the owner's knowledge packets leave by it", secs(20), || {
        let sources = rack::egress::heard(&socket);
        if sources.contains(&ADDRESS.to_string()) { Ok(()) } else { Err(format!("{sources:?}")) }
    });
}

#[test]
fn nothing_is_led_to_a_node_that_is_to_be_the_owner_and_does_not_know_of_the_service() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let scene = Scene::new(&rack);
    scene.label(&["", "gate: \"yes\""]);
    let (agents, views) = agents_with_views(&rack, &scene);
    scene.serve_with(&[("egress", "service-ip"), ("egress-nodes", "gate=yes")]);
    held_until_the_owner_knows(&scene, &agents, &views, 1);
}

#[test]
fn nothing_is_led_to_an_owner_that_answers_for_the_address_and_does_not_know_of_its_egress() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let scene = Scene::new(&rack);
    let (agents, views) = agents_with_views(&rack, &scene);
    scene.serve_with(&[]);
    views.iter().for_each(|view| view.catch_up(&scene.lan.manifests));
    let owner = scene.lan.owner(ADDRESS);
    scene.serve("service-ip");
    held_until_the_owner_knows(&scene, &agents, &views, owner);
}

/// What the objects say of egress is told to the other node than the owner, and then to the owner too.
fn held_until_the_owner_knows(scene: &Scene, agents: &[Crier], views: &[View], owner: usize) {
    let other = 1 - owner;
    let waits_for = format!("{} is to own", agents[owner].node());
    views[other].catch_up(&scene.lan.manifests);
    eventually("the pod's node holds its packets back and says for whom it waits", secs(20), || {
        let report = agents[other].try_json("egress").map_err(|error| format!("{error:?}"))?;
        let rows = report["services"].as_array().cloned().unwrap_or_default();
        let waits = |row: &serde_json::Value| {
            let reason = row["reason"].as_str().unwrap_or_default();
            row["path"] == "held" && reason.starts_with(&waits_for) && reason.contains("does not say yet")
        };
        if rows.len() == 2 && rows.iter().all(waits) { Ok(()) } else { Err(report.to_string()) }
    });
    let site = &scene.lan.site;
    let outside: Vec<(Capture, Mac)> =
        [&site.client, &site.router].map(|host| (host.port.capture(), host.port.mac())).into();
    let sending = Sending::start(&scene.pods[other], scene);
    eventually("packets are held back", secs(20), || {
        let report = agents[other].try_json("egress").map_err(|error| format!("{error:?}"))?;
        let dropped = |row: &serde_json::Value| row["dropped"].as_u64().unwrap_or_default() > 200;
        let rows = report["services"].as_array().cloned().unwrap_or_default();
        if !rows.is_empty() && rows.iter().all(dropped) { Ok(()) } else { Err(report.to_string()) }
    });
    assert_eq!(leaks(&outside), BTreeSet::new(), "the owner does not know");

    views[owner].catch_up(&scene.lan.manifests);
    leaves_by_the_owner(scene);
    sending.end();
    assert_eq!(leaks(&outside), BTreeSet::new(), "nor later");
}

#[test]
fn a_pod_that_the_owner_does_not_know_yet_is_held_at_the_owner() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let mut scene = Scene::new(&rack);
    let all = scene.lan.manifests.clone();
    scene.serve("service-ip");
    let (agents, views) = agents_with_views(&rack, &scene);
    let mut owner = 0;
    eventually("each pod has its way", secs(30), || {
        let ways = [0, 1].map(|node| rack::egress::rows(&agents[node]));
        let is = |rows: &[String], path: &str| rows.len() == 2 && rows.iter().all(|row| row.contains(path));
        owner = usize::from(is(&ways[1], "local"));
        if is(&ways[owner], "local") && is(&ways[1 - owner], "routed") { Ok(()) } else { Err(format!("{ways:?}")) }
    });

    // The pod's own node hears of it first.
    let behind = scene.lan.site.node(1 - owner).pod("web-late", &[80]);
    let addresses: [IpAddr; 2] = [behind.address.into(), behind.address6.into()];
    scene.pods.push(behind);
    scene.serve("service-ip");
    views[1 - owner].catch_up(&all);
    eventually("its node leads its packets to the owner", secs(20), || {
        let listed = scene.lan.site.node(1 - owner).sh("nft list table inet crier");
        let is_led = |address: &IpAddr| listed.contains(&format!("{address} : goto slot"));
        if addresses.iter().all(is_led) { Ok(()) } else { Err(listed) }
    });
    let site = &scene.lan.site;
    let outside: Vec<(Capture, Mac)> =
        [&site.client, &site.router].map(|host| (host.port.capture(), host.port.mac())).into();
    let (at_owner, mac) = (site.node(owner).port.capture(), site.node(owner).port.mac());
    let of_pod = |frame: &[u8]| {
        let v4 = frame.get(26..30).map(|it| IpAddr::from(<[u8; 4]>::try_from(it).expect("four octets")));
        let v6 = frame.get(22..38).map(|it| IpAddr::from(<[u8; 16]>::try_from(it).expect("sixteen octets")));
        frame.get(..6) == Some(&mac.0[..]) && (v4 == Some(addresses[0]) || v6 == Some(addresses[1]))
    };
    let sending = Sending::start(&scene.pods[2], &scene);
    eventually("packets of the pod are at the owner", secs(20), || {
        let came = at_owner.frames().iter().filter(|frame| of_pod(&frame.bytes)).count();
        if came > 200 { Ok(()) } else { Err(format!("{came} packets")) }
    });
    assert_eq!(leaks(&outside), BTreeSet::new(), "the owner does not know the pod");

    views[owner].catch_up(&all);
    leaves_by_the_owner(&scene);
    sending.end();
    assert_eq!(leaks(&outside), BTreeSet::new(), "nor later");
}
