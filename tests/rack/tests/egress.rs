//! Outbound connections of pods leave with their Service's address or not at all: by the owner, from every node, whatever dies or is flushed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};

use rack::cni::Cni;
use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, PORT, Pinging, Scene, Senders, heard, leaks, pings, rows, socket};
use rack::lan::problems;
use rack::{Metal, Need, Pod, Rack, Service, bird, eventually, eventually_equal, millis, rest, secs, throughout};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Nft, Need::Crier];

#[test]
fn what_pods_open_has_the_services_address_from_every_node_and_nothing_else_ever_leaves() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let lan = &scene.lan;
    let mut agents = lan.agents();
    {
        // What this test calls a leak is there to be seen before the Service is.
        let captures = [(lan.site.client.port.capture(), lan.site.client.port.mac())];
        let senders = Senders::start(&scene);
        eventually("packets have the nodes' addresses without a Service", secs(10), || {
            let leaks = leaks(&captures);
            if leaks.iter().any(|leak| leak.starts_with("192.168.35.1")) { Ok(()) } else { Err(format!("{leaks:?}")) }
        });
        senders.end();
    }
    scene.serve("service-ip");
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);

    let client = &lan.site.client;
    let ends = [IpAddr::from(client.address), client.address6.into()].map(|address| socket(client, address, PORT));
    let captures = [client, &lan.site.router].map(|host| (host.port.capture(), host.port.mac()));
    let senders = Senders::start(&scene);
    let pinging: Vec<Pinging> = scene.pods.iter().map(|pod| Pinging::start(pod, client.address, millis(100))).collect();
    let served = |what: &str| {
        for (end, address) in ends.iter().zip(ADDRESSES) {
            eventually(&format!("{what}: packets come from {address}"), secs(10), || {
                let sources = heard(end);
                if sources.contains(address) { Ok(()) } else { Err(format!("{sources:?}")) }
            });
        }
    };
    served("at first");

    // TCP, from each pod.
    let listener = client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
    for pod in &scene.pods {
        let _open = client_of(pod, scene.client(false));
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), IpAddr::from(ADDRESS), "the source of a connection of {}", pod.name());
    }
    // Inside of the cluster a pod keeps its own address.
    let [one, two] = [&scene.pods[0], &scene.pods[1]];
    let inside = socket(two, two.address.into(), 7000);
    socket(one, one.address.into(), 0).send_to(b"inside", (two.address, 7000)).expect("there is a route");
    let (_, from) = inside.recv_from(&mut [0; 16]).expect("pods reach each other");
    assert_eq!(from.ip(), IpAddr::from(one.address));
    eventually("pings come from the Service's address", secs(10), || {
        let pings = pings(&captures[0].0);
        if pings == [ADDRESS.to_string()].into() { Ok(()) } else { Err(format!("{pings:?}")) }
    });
    assert_eq!(leaks(&captures), BTreeSet::new());

    // Every ruleset is flushed: crier's table belongs to crier.
    for node in &lan.site.nodes {
        node.sh("nft flush ruleset");
    }
    served("after a flush");
    assert_eq!(leaks(&captures), BTreeSet::new(), "after a flush");

    // The owner's agent dies.
    agents[owner].kill();
    let heir = 1 - owner;
    eventually_equal("the other node answers", secs(10), &heir, || lan.owner(ADDRESS));
    let expected: Vec<String> = ADDRESSES.map(|address| format!("{address} local 2")).to_vec();
    eventually_equal("egress on the heir", secs(10), &expected, || rows(&agents[heir]));
    served("after the death of the owner");
    assert_eq!(leaks(&captures), BTreeSet::new(), "after the death of the owner");
    agents[owner] = lan.agent_with(owner, &scene.configuration);
    agents[owner].wait_ready(secs(30));
    // It is the better node, and has the address handed back.
    scene.leave_by(&agents, owner);
    served("after its return");
    assert_eq!(leaks(&captures), BTreeSet::new(), "after its return");

    // The Service goes, and its pods still send.
    lan.manifests.remove("web.yaml");
    for agent in &agents {
        eventually_equal("no egress any more", secs(10), &Vec::new(), || rows(agent));
    }
    heard(&ends[0]);
    rest(millis(500));
    assert_eq!(leaks(&captures), BTreeSet::new(), "after the Service was deleted");
    senders.end();
    drop(pinging);
    assert_eq!(pings(&captures[0].0), [ADDRESS.to_string()].into(), "the sources of all pings");

    // Only the command lets the pods go.
    for agent in &mut agents {
        agent.stop(secs(10));
    }
    for (agent, node) in agents.iter().zip(&lan.site.nodes) {
        assert!(node.sh("nft list ruleset").contains("table inet crier"), "the table stays when the agent stops");
        let cleaned =
            agent.verb(&format!("cleanup --config {}", agent.socket().with_file_name("crier.toml").display()));
        assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
        assert!(!node.sh("nft list ruleset").contains("table inet crier"), "and is gone after crier cleanup");
        assert!(!node.ip("rule show").contains("fwmark"), "and so are the rules");
    }
}

fn client_of(pod: &Pod, to: SocketAddr) -> std::net::TcpStream {
    let connect = || std::net::TcpStream::connect_timeout(&to, secs(5));
    pod.run(connect).unwrap_or_else(|error| panic!("{} connects to {to}: {error}", pod.name()))
}

/// kube-proxy may lead a pod to itself, and the rack's bridge loses some of these.
#[track_caller]
fn reaches(pod: &Pod, to: SocketAddr) {
    eventually(&format!("{} reaches {to}", pod.name()), secs(10), || {
        let connected = pod.run(|| std::net::TcpStream::connect_timeout(&to, millis(500)));
        connected.map(|_| ()).map_err(|error| error.to_string())
    });
}

/// Input: pods that have just started, none of which is ready: each needs the outside to become so. Output: what they open has the
/// Service's address, as before once they are ready.
#[test]
fn pods_that_are_not_ready_leave_by_the_owner_too() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let agents = scene.lan.agents();
    let service = Service::new("web").addresses(&ADDRESSES.join(",")).annotation("crier.dev/egress", "service-ip");
    scene.lan.manifests.service(&scene.pods.iter().fold(service, Service::starting));
    let owner = scene.lan.owner(ADDRESS);
    let client = &scene.lan.site.client;
    let listener = client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
    let captures = [(client.port.capture(), client.port.mac())];
    let leave = |what: &str| {
        scene.leave_by(&agents, owner);
        for pod in &scene.pods {
            let _open = client_of(pod, scene.client(false));
            let (_, from) = listener.accept().expect("a connection");
            assert_eq!(from.ip(), IpAddr::from(ADDRESS), "{what}: the source of a connection of {}", pod.name());
        }
    };
    leave("not ready");
    scene.serve("service-ip");
    leave("ready");
    assert_eq!(leaks(&captures), BTreeSet::new());
}

const KUBERNETES: [Need; 3] = [Need::Kubernetes, Need::Iptables, Need::Crier];

/// Beside the masquerade of a CNI that comes behind, under a strict reverse path filter.
fn served_and_sends(mode: &str, cni: Cni) {
    let Some(rack) = Rack::for_test(&KUBERNETES) else { return };
    let metal = Metal::in_mode(&rack, "192.168.35.0/24", 2, mode);
    for node in &metal.site.nodes {
        cni.install(&rack, node);
        for link in ["all", "eth0", "pods"] {
            node.sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1");
        }
    }
    let pods: Vec<Pod> = (0..2).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[8080])).collect();
    {
        // The masquerade is there to be seen.
        let client = &metal.site.client;
        let listener = client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
        for (pod, node) in pods.iter().zip(&metal.site.nodes) {
            let _open = client_of(pod, (IpAddr::from(client.address), PORT).into());
            let (_, from) = listener.accept().expect("a connection");
            assert_eq!(
                from.ip(),
                IpAddr::from(node.address),
                "without the Service {} has its node's address",
                pod.name()
            );
        }
    }
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let agents = metal.agents(&format!(
        "[[pool]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/32\"]\n[[l2]]\ninterfaces = [\"eth0\"]\n[pulse]\nkey-file = \"{}\"\n",
        key.display()
    ));
    let service = Service::new("web").selects("web").ports(&[(80, 8080)]).annotation("crier.dev/egress", "service-ip");
    metal.try_apply(&service.object()).expect("the API server takes the Service");
    for agent in &agents {
        eventually(&format!("pods on {} have a way out", agent.node()), secs(30), || {
            let rows = rows(agent);
            let has_way = |way: &str| rows == [format!("{ADDRESS} {way} 2")];
            if has_way("local") || has_way("routed") { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }
    // A backend of the Service and a source of its address at once.
    let client = &metal.site.client;
    eventually("the client gets the page", secs(30), || {
        client.get((IpAddr::from(ADDRESS), 80)).map(|_| ()).map_err(|error| error.to_string())
    });
    let listener = client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
    let cluster_address = metal.get("service/web").expect("the Service")["spec"]["clusterIP"].clone();
    let cluster_address: IpAddr = cluster_address.as_str().and_then(|text| text.parse().ok()).expect("an address");
    for pod in &pods {
        let _open = client_of(pod, (IpAddr::from(client.address), PORT).into());
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), IpAddr::from(ADDRESS), "the source of a connection of {}", pod.name());
        reaches(pod, (cluster_address, 80).into());
    }
    // Pods whose Service loses the annotation are held, and reach the cluster all the same.
    metal.patch("service/web", &serde_json::json!({ "metadata": { "annotations": { "crier.dev/egress": null } } }));
    for (agent, pod) in agents.iter().zip(&pods) {
        eventually_equal("no Service with egress", secs(10), &Vec::new(), || rows(agent));
        let outside: SocketAddr = (IpAddr::from(client.address), PORT).into();
        // The plan is told before the kernel has its part: until then it is the Service's address, and never another one.
        eventually(&format!("{} is held", pod.name()), secs(5), || {
            match pod.run(|| std::net::TcpStream::connect_timeout(&outside, millis(500))) {
                Err(_) => Ok(()),
                Ok(_open) => {
                    let (_, from) = listener.accept().expect("a connection");
                    assert_eq!(from.ip(), IpAddr::from(ADDRESS), "the source of a connection of {}", pod.name());
                    Err("it reaches the outside".to_owned())
                }
            }
        });
        reaches(pod, (cluster_address, 80).into());
    }
}

#[test]
fn a_pod_is_backend_and_source_at_once_beside_kube_proxy_in_nftables_mode() {
    served_and_sends("nftables", Cni::Flannel);
}

#[test]
fn a_pod_is_backend_and_source_at_once_beside_kube_proxy_in_iptables_mode() {
    served_and_sends("iptables", Cni::Flannel);
}

#[test]
fn a_pod_is_backend_and_source_at_once_beside_kube_proxy_in_nftables_mode_and_calico() {
    served_and_sends("nftables", Cni::Calico);
}

#[test]
fn a_pod_is_backend_and_source_at_once_beside_kube_proxy_in_iptables_mode_and_calico() {
    served_and_sends("iptables", Cni::Calico);
}

const BGP: [Need; 4] = [Need::Namespaces, Need::Nft, Need::Bird, Need::Crier];

const BIRD: &str = "
router id 192.168.35.1;
protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64513; ipv4 { import all; export none; }; }
protocol bgp node2 { local as 64512; neighbor 192.168.35.12 as 64513; ipv4 { import all; export none; }; }
";

/// The pool is in no subnet of any link: only the route leads there.
fn over_bgp(scene: &Scene) -> String {
    format!(
        "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"public\"\naddresses = [\"203.0.113.0/24\"]\n[bgp]\nasn = 64513\n\
         [[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\nconnect-retry-time = \"1s\"\n\
         [[bgp.advertisement]]\n",
        scene.lan.manifests.section()
    )
}

#[test]
fn over_bgp_one_node_alone_announces_the_address_and_the_pods_of_all_nodes_leave_by_it() {
    let Some(rack) = Rack::for_test(&BGP) else { return };
    let mut scene = Scene::new(&rack);
    scene.configuration = over_bgp(&scene);
    let site = &scene.lan.site;
    let outside = site.outside("outside");
    let _tor = site.router.bird(&format!("{}{BIRD}", bird::KERNEL));
    let agents: Vec<Crier> = (0..2).map(|node| scene.lan.agent_with(node, &scene.configuration)).collect();
    let pods = scene.pods.iter();
    let service = pods.fold(Service::new("web").annotation("crier.dev/egress", "service-ip"), |service, pod| {
        service.at(pod.address.into())
    });
    let address: IpAddr = "203.0.113.7".parse().expect("an address");
    scene.lan.manifests.service(&service.addresses("203.0.113.7"));

    let hops = eventually("one node alone announces the address", secs(30), || {
        let hops = site.router.next_hops("203.0.113.7/32");
        if hops.len() == 1 { Ok(hops) } else { Err(format!("{hops:?}")) }
    });
    let owner = site.nodes.iter().position(|node| hops.contains(&node.address.into())).expect("a node");
    for (number, agent) in agents.iter().enumerate() {
        let path = if number == owner { "local" } else { "routed" };
        let expected = vec![format!("203.0.113.7 {path} 2")];
        eventually_equal(&format!("egress on {}", agent.node()), secs(20), &expected, || rows(agent));
    }
    let listener = outside.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
    for pod in &scene.pods {
        let _open = client_of(pod, (IpAddr::from(outside.address), PORT).into());
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), address, "the source of a connection of {}", pod.name());
    }
    assert_eq!(site.router.next_hops("203.0.113.7/32"), hops, "and it stays the one");
}

const OVERLAY: [Need; 4] = [Need::Namespaces, Need::Nft, Need::Crier, Need::LinkType("vxlan")];

/// The nodes' ways to each other's pods, of IPv4, by a device of an overlay as flannel makes it.
fn overlay(scene: &Scene) {
    let nodes = &scene.lan.site.nodes;
    const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
    for (number, node) in nodes.iter().enumerate() {
        let (other, far_mac) = (&nodes[1 - number], MACS[1 - number]);
        let (far, range) = (other.address, &other.pod_ranges()[0]);
        node.ip(&format!(
            "link add flannel.1 type vxlan id 1 dstport 8472 local {} remote {far} nolearning",
            node.address
        ));
        node.ip(&format!("link set flannel.1 address {} up", MACS[number]));
        // Without an address of the device even the loose filter drops what comes in by it.
        let network = node.pod_ranges()[0].replace("/24", "/32");
        node.ip(&format!("address add {network} dev flannel.1"));
        node.ip(&format!("route replace {range} via {far} dev flannel.1 onlink"));
        node.ip(&format!("neighbor replace {far} lladdr {far_mac} dev flannel.1 nud permanent"));
        node.sysctl("net/ipv4/conf/all/rp_filter", "1");
    }
}

#[test]
fn a_strict_filter_beside_an_overlay_is_named_with_the_command_that_lets_packets_pass() {
    let Some(rack) = Rack::for_test(&OVERLAY) else { return };
    let scene = Scene::new(&rack);
    overlay(&scene);
    let lan = &scene.lan;
    let mut agents = lan.agents();
    scene.serve("service-ip");
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let other = 1 - owner;
    let listener = lan.site.client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
    let opens = |pod: usize| {
        let connect = || std::net::TcpStream::connect_timeout(&scene.client(false), millis(500));
        scene.pods[pod].run(connect).is_ok()
    };
    assert!(opens(owner), "the owner's own pod is not concerned");
    let (_, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip(), IpAddr::from(ADDRESS));
    assert!(!opens(other), "the kernel drops what the other node leads to the owner");

    // Each end has its own filter in the way, and names it.
    for (number, link) in [(owner, "eth0"), (other, "flannel.1")] {
        let command = format!("sysctl -w net.ipv4.conf.{}.rp_filter=2", link.replace('.', "/"));
        eventually(&format!("{} names its filter on {link}", agents[number].node()), secs(25), || {
            let said = problems(&agents[number]);
            let filters: Vec<&str> = said.lines().filter(|line| line.contains("rp_filter is strict on")).collect();
            let right =
                filters.len() == 1 && filters[0].contains(&format!("strict on {link},")) && said.contains(&command);
            if right { Ok(()) } else { Err(said) }
        });
        lan.site.nodes[number].sh(&command);
    }
    eventually("the other node's pod opens a connection", secs(10), || {
        if opens(other) { Ok(()) } else { Err(scene.lan.site.nodes[other].sh("nstat -az TcpExtIPReversePathFilter")) }
    });
    let (_, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip(), IpAddr::from(ADDRESS), "the source of what the other node's pod opens");
    for agent in &agents {
        eventually(&format!("{} names no filter any more", agent.node()), secs(25), || {
            let said = problems(agent);
            if said.contains("rp_filter") { Err(said) } else { Ok(()) }
        });
    }

    // A host that forwards nothing is told as well.
    lan.site.nodes[owner].sysctl("net/ipv4/ip_forward", "0");
    eventually("the owner says that it does not forward", secs(25), || {
        let said = problems(&agents[owner]);
        if said.contains("net.ipv4.ip_forward is 0") { Ok(()) } else { Err(said) }
    });
    lan.site.nodes[owner].sysctl("net/ipv4/ip_forward", "1");
    // So is one that does not forward what comes in by one link.
    lan.site.nodes[owner].sysctl("net/ipv4/conf/eth0/forwarding", "0");
    eventually("the owner names the link", secs(25), || {
        let said = problems(&agents[owner]);
        let right = said.contains("net.ipv4.conf.eth0.forwarding is 0") && !said.contains("ip_forward");
        if right { Ok(()) } else { Err(said) }
    });
    lan.site.nodes[owner].sysctl("net/ipv4/conf/eth0/forwarding", "1");
    // What a firewall drops in forwarding unless a rule lets it pass, as dockerd makes it.
    let doctor = || String::from_utf8_lossy(&agents[owner].verb("doctor").stdout).into_owned();
    assert!(!doctor().contains("ip filter FORWARD"), "{}", doctor());
    lan.site.nodes[owner].sh("nft add table ip filter");
    lan.site.nodes[owner].sh("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    assert!(doctor().contains("ip filter FORWARD has the policy drop"), "{}", doctor());
    lan.site.nodes[owner].sh("nft delete table ip filter");

    // With leave to do so crier sets it itself.
    for (number, link) in [(owner, "eth0"), (other, "flannel.1")] {
        lan.site.nodes[number].sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1");
        agents[number].stop(secs(10));
        let configuration = format!("{}[host]\nmanage-sysctls = true\n", scene.configuration);
        agents[number] = lan.agent_with(number, &configuration);
    }
    eventually("crier makes both filters loose", secs(40), || {
        let set = |number: usize, link: &str| {
            let path = format!("cat /proc/sys/net/ipv4/conf/{link}/rp_filter");
            lan.site.nodes[number].sh(&path).trim() == "2"
        };
        let owner = lan.owner(ADDRESS);
        if set(owner, "eth0") && set(1 - owner, "flannel.1") { Ok(()) } else { Err(problems(&agents[owner])) }
    });
}

/// A connection of a pod to the client, as both ends have it. What one sends the other sends back.
struct Talk {
    pod: std::net::TcpStream,
    client: std::net::TcpStream,
}

impl Talk {
    fn begin(scene: &Scene, pod: &Pod, listener: &TcpListener) -> Talk {
        let pod = client_of(pod, scene.client(false));
        let (client, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), IpAddr::from(ADDRESS));
        for end in [&pod, &client] {
            end.set_read_timeout(Some(secs(3))).expect("a time");
        }
        Talk { pod, client }
    }

    /// There and back again.
    fn goes_on(&mut self) -> Result<(), String> {
        let mut word = [0; 4];
        let mut exchange = || {
            self.pod.write_all(b"ping")?;
            self.client.read_exact(&mut word)?;
            self.client.write_all(&word)?;
            self.pod.read_exact(&mut word)
        };
        exchange().map_err(|error: std::io::Error| error.to_string())
    }
}

#[test]
fn a_restart_of_any_agent_holds_no_packet_and_ends_no_connection() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let lan = &scene.lan;
    let start = |node: usize| lan.site.node(node).crier_as_unit(lan.site.node(node).name(), &scene.configuration);
    let mut agents: Vec<Crier> = (0..2).map(start).collect();
    for agent in &agents {
        agent.wait_ready(secs(30));
    }
    scene.serve("service-ip");
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let client = &lan.site.client;
    let captures = [client, &lan.site.router].map(|host| (host.port.capture(), host.port.mac()));
    let listener = client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");
    let mut talks: Vec<Talk> = scene.pods.iter().map(|pod| Talk::begin(&scene, pod, &listener)).collect();
    let mut all_go_on = || -> Result<(), String> {
        let mut each = talks.iter_mut().zip(&scene.pods);
        each.try_for_each(|(talk, pod)| talk.goes_on().map_err(|error| format!("{}: {error}", pod.name())))
    };
    eventually("connections go on", secs(5), &mut all_go_on);
    for (restarted, who) in [(1 - owner, "the other node"), (owner, "the owner")] {
        agents[restarted].end_with_job("restart");
        throughout(&format!("while no agent runs on {who}"), millis(1200), &mut all_go_on);
        agents[restarted].start_again(&scene.configuration);
        throughout(&format!("as the next agent on {who} starts"), secs(3), &mut all_go_on);
        scene.leave_by(&agents, owner);
    }
    agents[1 - owner].stop(secs(10));
    throughout("after the other node's agent has stopped", secs(1), &mut all_go_on);
    assert_eq!(leaks(&captures), BTreeSet::new());
}

#[test]
fn pods_of_an_owner_whose_agent_stops_leave_by_the_heir() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let lan = &scene.lan;
    let agents = lan.agents();
    scene.serve("service-ip");
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let client = &lan.site.client;
    let captures = [client, &lan.site.router].map(|host| (host.port.capture(), host.port.mac()));
    let listener = client.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("the namespace is ours");

    agents[owner].stop(secs(10));
    let heir = 1 - owner;
    eventually_equal("the other node answers", secs(10), &heir, || lan.owner(ADDRESS));
    // What the stopped agent left in the kernel is all that leads its pods.
    for pod in &scene.pods {
        let _open = client_of(pod, scene.client(false));
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), IpAddr::from(ADDRESS), "the source of a connection of {}", pod.name());
    }
    assert_eq!(leaks(&captures), BTreeSet::new());
}

/// Two nodes that hear each other's pulses, under systemd as it were, of which one announces the address over BGP that all pods leave
/// with.
struct Elected {
    scene: Scene,
    agents: Vec<Crier>,
    /// The index of the node that announces it.
    owner: usize,
    _tor: bird::Bird,
}

impl Elected {
    fn of(rack: &Rack) -> Elected {
        let mut scene = Scene::new(rack);
        let pulses = format!("[pulse]\ninterfaces = [\"eth0\"]\nkey-file = \"{}\"\n", scene.lan.key.display());
        scene.configuration = over_bgp(&scene) + &pulses;
        let site = &scene.lan.site;
        let _tor = site.router.bird(&format!("{}{BIRD}", bird::KERNEL));
        let start = |node: usize| site.node(node).crier_as_unit(site.node(node).name(), &scene.configuration);
        let agents: Vec<Crier> = (0..2).map(start).collect();
        let service = Service::new("web").annotation("crier.dev/egress", "service-ip").addresses("203.0.113.7");
        let at = |service: Service, pod: &Pod| service.at(pod.address.into());
        scene.lan.manifests.service(&scene.pods.iter().fold(service, at));
        let first = eventually("one node alone announces the address", secs(30), || {
            let hops = site.router.next_hops("203.0.113.7/32");
            if hops.len() == 1 { Ok(hops) } else { Err(format!("{hops:?}")) }
        });
        let owner = site.nodes.iter().position(|node| first.contains(&node.address.into())).expect("a node");
        Elected { scene, agents, owner, _tor }
    }
}

#[test]
fn over_bgp_a_restart_of_the_owner_moves_nothing_where_the_nodes_hear_each_other() {
    let Some(rack) = Rack::for_test(&BGP) else { return };
    let Elected { scene, mut agents, owner, _tor } = Elected::of(&rack);
    let site = &scene.lan.site;
    let hops = || site.router.next_hops("203.0.113.7/32");
    let (first, other) = (hops(), 1 - owner);
    let routed = vec!["203.0.113.7 routed 2".to_owned()];
    eventually_equal("the other node leads packets to the owner", secs(20), &routed, || rows(&agents[other]));
    let stays = |agents: &[Crier]| {
        let (hops, rows) = (hops(), rows(&agents[other]));
        if hops == first && rows == routed { Ok(()) } else { Err(format!("{hops:?} {rows:?}")) }
    };
    agents[owner].end_with_job("restart");
    throughout("while no agent runs on the owner", millis(1200), || stays(&agents));
    agents[owner].start_again(&scene.configuration);
    throughout("as the next one starts", secs(4), || stays(&agents));
    eventually_equal("it is the owner", secs(20), &vec!["203.0.113.7 local 2".to_owned()], || rows(&agents[owner]));
}

/// All pods leave with the Service's address: the scene, its agents, which of them is the owner's, and which another node's.
fn leaving_by_owner(rack: &Rack) -> (Scene, Vec<Crier>, usize, usize) {
    let scene = Scene::new(rack);
    let agents = scene.lan.agents();
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    (scene, agents, owner, usize::from(owner == 0))
}

/// `crier egress` has a row of packets that are held, with these words in the reason.
fn held_because(agent: &Crier, words: &str) -> Result<(), String> {
    let report = agent.try_json("egress")?;
    let is_told = |row: &serde_json::Value| {
        row["path"] == "held" && row["reason"].as_str().is_some_and(|reason| reason.contains(words))
    };
    if report["services"].as_array().into_iter().flatten().any(is_told) { Ok(()) } else { Err(report.to_string()) }
}

/// Input: the subnet's route is gone for a while, as a network manager does it. Output: `crier egress` says in the kernel's words why the
/// packets are held, and they go on once the route is back.
#[test]
fn a_route_to_the_owner_that_the_kernel_refuses_is_told() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (scene, agents, owner, other) = leaving_by_owner(&rack);
    let node = scene.lan.site.node(other);
    node.ip("route del 192.168.35.0/24 dev eth0");
    node.ip("route flush table 6770");
    eventually("what is held is told with the reason", secs(10), || {
        held_because(&agents[other], "the kernel refuses the route")
    });
    node.ip(&format!("route add 192.168.35.0/24 dev eth0 src {}", node.address));
    scene.leave_by(&agents, owner);
}

/// Input: another program puts a default route into crier's table, in the place of crier's, and then one to the destination
/// alone. Output: `crier egress` says so while packets are held, and they go on once the route is gone.
#[test]
fn a_route_of_another_program_in_criers_table_is_told() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (scene, agents, owner, other) = leaving_by_owner(&rack);
    let node = scene.lan.site.node(other);
    for to in ["default", "203.0.113.0/24"] {
        node.ip(&format!("route replace blackhole {to} table 6770"));
        eventually("what is held is told with the route", secs(10), || {
            held_because(&agents[other], &format!("the route blackhole {to} in crier's table 6770"))
        });
        node.ip(&format!("route del blackhole {to} table 6770"));
        scene.leave_by(&agents, owner);
    }
}

/// Input: a policy rule of another program in front of crier's leads a pod's packets to the main table, as CNIs of clouds
/// write such; and one to a table that leads nowhere. Output: a problem with the rule while the first one is there, and none of the second.
#[test]
fn a_rule_of_another_program_that_takes_packets_of_a_pod_away_is_told() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let (scene, agents, _, other) = leaving_by_owner(&rack);
    let node = scene.lan.site.node(other);
    for ((ip, family), range) in [("", "IPv4"), ("-6 ", "IPv6")].into_iter().zip(node.pod_ranges()) {
        let rule = |verb: &str, priority: u32, table: &str| {
            node.sh(&format!("ip {ip}rule {verb} pref {priority} from {range} lookup {table}"));
        };
        rule("add", 110, "99");
        rule("add", 111, "main");
        let words = format!("priority 111 ({family}, from {range}) leads them into table 254");
        eventually("the rule is told", secs(10), || {
            let said = problems(&agents[other]);
            if said.contains(&words) && !said.contains("priority 110") { Ok(()) } else { Err(said) }
        });
        rule("del", 111, "main");
        eventually("it is gone", secs(10), || {
            let said = problems(&agents[other]);
            if said.contains("policy rule of another program") { Err(said) } else { Ok(()) }
        });
        rule("del", 110, "99");
    }
}

#[test]
fn rules_that_an_earlier_agent_left_are_removed_where_no_service_has_egress_any_more() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let lan = rack::lan::Lan::new(&rack, 1);
    let node = lan.site.node(0);
    node.ip("rule add pref 1500 fwmark 0x100000/0xf00000 lookup 6770 protocol 67");
    let _agent = lan.agent(0);
    eventually("the rule is gone", secs(20), || {
        let rules = node.sh("ip rule show");
        if rules.contains("6770") { Err(rules) } else { Ok(()) }
    });
}

/// Input: the router ends its session with the owner, has it again, and then has none with anybody. Output: the
/// other node takes over the address and its egress, is not drained meanwhile, and gives them back; and where nobody has a session nothing
/// moves, and that is told.
#[test]
fn over_bgp_an_owner_without_a_session_gives_way_to_a_node_that_has_one() {
    let Some(rack) = Rack::for_test(&BGP) else { return };
    let Elected { scene, agents, owner, _tor: tor } = Elected::of(&rack);
    let site = &scene.lan.site;
    let hops = || site.router.next_hops("203.0.113.7/32");
    let other = 1 - owner;
    let [local, routed] = ["local", "routed"].map(|path| vec![format!("203.0.113.7 {path} 2")]);
    let are = |owner: usize| {
        let rows = [owner, 1 - owner].map(|node| rows(&agents[node]));
        if rows == [local.clone(), routed.clone()] { Ok(()) } else { Err(format!("{rows:?}")) }
    };
    let is_owner = |owner: usize| {
        let hops = hops();
        let alone = hops.len() == 1 && hops.contains(&site.node(owner).address.into());
        if alone { are(owner) } else { Err(format!("{hops:?}")) }
    };
    let order = |word: &str, node: usize| drop(tor.command(&format!("{word} node{}", node + 1)));
    let told = |node: usize| {
        let all = problems(&agents[node]);
        if all.contains("no router hears of 203.0.113.7") { Ok(()) } else { Err(all) }
    };
    eventually("both know the owner", secs(20), || is_owner(owner));

    order("disable", owner);
    for node in [owner, other] {
        eventually("both say that no router hears of it", secs(5), || told(node));
    }
    eventually("the other node alone is the owner", secs(30), || is_owner(other));
    let refused = agents[other].verb("drain");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("has no BGP session"), "{words}");
    throughout("it stays so", secs(3), || is_owner(other));
    order("enable", owner);
    eventually("it is the owner again", secs(60), || is_owner(owner));

    for node in [owner, other] {
        order("disable", node);
    }
    eventually("nobody has a session", secs(5), || told(owner));
    throughout("nothing moves", secs(12), || are(owner));
    for node in [owner, other] {
        order("enable", node);
    }
    eventually("the same node is the owner", secs(60), || is_owner(owner));
}

#[test]
fn over_bgp_an_owner_whose_pulses_are_not_heard_gives_way_to_the_one_that_took_its_place_and_says_so() {
    let Some(rack) = Rack::for_test(&BGP) else { return };
    let Elected { scene, mut agents, owner, _tor } = Elected::of(&rack);
    let site = &scene.lan.site;
    let hops = || site.router.next_hops("203.0.113.7/32");
    let other = 1 - owner;
    let [local, routed] = ["local", "routed"].map(|path| vec![format!("203.0.113.7 {path} 2")]);
    let is_owner = |agents: &[Crier], owner: usize| {
        let (hops, rows) = (hops(), [owner, 1 - owner].map(|node| rows(&agents[node])));
        let alone = hops.len() == 1 && hops.contains(&site.node(owner).address.into());
        let is = alone && rows == [local.clone(), routed.clone()];
        if is { Ok(()) } else { Err(format!("{hops:?} {rows:?}")) }
    };
    eventually("both know the owner", secs(20), || is_owner(&agents, owner));
    let says = |agents: &[Crier]| {
        let all = problems(&agents[owner]);
        let words = format!("{} does not hear this node's pulses", site.node(other).name());
        if all.contains(&words) { Ok(()) } else { Err(all) }
    };

    // Its firewall drops what it sends, and nothing else.
    let node = site.node(owner);
    node.sh("nft add table inet wall");
    node.sh("nft add chain inet wall out { type filter hook output priority 0 ; }");
    node.sh("nft add rule inet wall out udp dport 7473 drop");
    eventually("the other node alone is the owner", secs(15), || is_owner(&agents, other));
    eventually("the node that is not heard says so", secs(5), || says(&agents));
    throughout("it stays so", secs(4), || is_owner(&agents, other));
    agents[owner].end_with_job("restart");
    let alone = || {
        let hops = hops();
        let is = hops.len() == 1 && hops.contains(&site.node(other).address.into());
        if is { Ok(()) } else { Err(format!("{hops:?}")) }
    };
    throughout("while no agent runs there", millis(500), alone);
    agents[owner].start_again(&scene.configuration);
    agents[owner].wait_ready(secs(30));
    // Until it hears the first pulse it knows of no other owner.
    eventually("it says that it is not heard", secs(10), || says(&agents));
    eventually("and knows the owner again", secs(15), || is_owner(&agents, other));
    throughout("it stays so", secs(3), || is_owner(&agents, other));

    node.sh("nft delete table inet wall");
    eventually("it is the owner again", secs(15), || is_owner(&agents, owner));
    eventually("nothing is said of pulses", secs(10), || match says(&agents) {
        Ok(()) => Err(problems(&agents[owner])),
        Err(_) => Ok(()),
    });
}
