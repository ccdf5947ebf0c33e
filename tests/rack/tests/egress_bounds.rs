//! What bounds egress: destinations that it is for, nodes that it leaves by, and the network of the Service's address instead of the
//! address itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, Flows, PORT, Scene, Senders, ends, fresh, leaks, loads_again, rows, socket};
use rack::lan::{Lan, problems};
use rack::net::{Port, Switch};
use rack::{Namespace, Need, Node, Pod, Rack, Site, eventually, eventually_equal, millis, rest, secs};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Nft, Need::Crier];

/// Waits until what a host gets comes from these addresses and no others.
#[track_caller]
fn hears(what: &str, ends: &[UdpSocket; 2], expected: [&BTreeSet<String>; 2]) {
    for (end, expected) in ends.iter().zip(expected) {
        eventually_equal(what, secs(20), expected, || fresh(end));
    }
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

/// Both pods leave with the addresses in the second network by the owner, whose number this is.
#[track_caller]
fn one_owns_and_the_other_leads(agents: &[Crier]) -> usize {
    let all = |way: &str| vec![format!("{} {way} 2", SECOND[0]), format!("{} {way} 2", SECOND[1])];
    eventually("one node is the owner", secs(20), || {
        let ways: Vec<Vec<String>> = agents.iter().map(rows).collect();
        match ways.iter().position(|ways| *ways == all("local")) {
            Some(owner) if ways[1 - owner] == all("routed") => Ok(owner),
            _ => Err(format!("{ways:?}")),
        }
    })
}

/// The addresses of the nodes.
fn of_nodes(scene: &Scene) -> [BTreeSet<String>; 2] {
    let nodes = &scene.lan.site.nodes;
    let all = |address: fn(&Node) -> String| nodes.iter().map(address).collect();
    [all(|node| node.address.to_string()), all(|node| node.address6.to_string())]
}

#[test]
fn only_covered_destinations_see_the_services_address_and_flows_follow_a_changed_list() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    let agents = lan.agents();
    let (covered, excepted, elsewhere) = (&site.client, site.host("excepted", 20), site.outside("elsewhere"));
    let to = ("egress-to", "192.168.35.0/24, fd35::/64");
    let except = format!("{}, {}/128", excepted.address, excepted.address6);
    scene.serve_with(&[("egress", "service-ip"), to, ("egress-except", &except)]);
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);

    let capture = (covered.port.capture(), covered.port.mac());
    let hosts = [covered, &excepted, &elsewhere];
    let _flows: Vec<Flows> = scene.pods.iter().flat_map(|pod| hosts.map(|host| Flows::start(pod, host))).collect();
    let [covered_ends, excepted_ends, elsewhere_ends] = hosts.map(ends);
    let service = [set(&ADDRESSES[..1]), set(&ADDRESSES[1..])];
    let service = || [&service[0], &service[1]];
    let nodes = of_nodes(&scene);
    let nodes = || [&nodes[0], &nodes[1]];
    hears("a covered destination gets packets from the Service's address", &covered_ends, service());
    hears("an excepted one from the nodes of the pods", &excepted_ends, nodes());
    hears("one that -to does not name too", &elsewhere_ends, nodes());
    for agent in &agents {
        let row = &agent.json("egress")["services"][0];
        assert_eq!(row["to"], serde_json::json!(["192.168.35.0/24", "fd35::/64"]), "{row}");
        assert_eq!(problems(agent), "");
    }

    // The flows go on and follow the lists.
    scene.serve_with(&[("egress", "service-ip"), to]);
    hears("what was excepted is covered", &excepted_ends, service());
    hears("and what was covered stays so", &covered_ends, service());
    scene.serve_with(&[("egress", "service-ip"), to, ("egress-except", &except)]);
    hears("what was covered is excepted", &excepted_ends, nodes());
    scene.serve("service-ip");
    hears("without lists all is covered", &elsewhere_ends, service());
    let exempt = |node: &Node| node.sh("nft list table inet crier").matches("chain exempt").count();
    for node in &site.nodes {
        eventually_equal("no chain of a list is left", secs(5), &0, || exempt(node));
    }
    // One family alone is covered.
    scene.serve_with(&[("egress", "service-ip"), ("egress-to", "192.168.35.0/24")]);
    hears("of IPv6 nothing is covered", &excepted_ends, [service()[0], nodes()[1]]);
    scene.serve_with(&[("egress", "service-ip"), to]);
    hears("both are covered again", &excepted_ends, service());
    let of_covered: Vec<String> = leaks(&[capture]).into_iter().filter(|leak| leak.contains('.')).collect();
    assert_eq!(of_covered, [""; 0], "of IPv4, which was always covered");
}

#[test]
fn a_list_that_changes_while_pods_are_held_or_no_agent_runs_ends_what_is_open_to_its_destinations() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    let mut agents = lan.agents();
    let (covered, excepted) = (&site.client, site.outside("excepted"));
    let except = format!("{}, {}", excepted.address, excepted.address6);
    let all = [("egress", "service-ip")];
    let but = [("egress", "service-ip"), ("egress-except", &except)];
    scene.serve_with(&all);
    let owner = lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let hosts = [covered, &excepted];
    let _flows: Vec<Flows> = scene.pods.iter().flat_map(|pod| hosts.map(|host| Flows::start(pod, host))).collect();
    let [covered_ends, excepted_ends] = hosts.map(ends);
    let (service, nodes) = ([set(&ADDRESSES[..1]), set(&ADDRESSES[1..])], of_nodes(&scene));
    let (service, nodes) = ([&service[0], &service[1]], [&nodes[0], &nodes[1]]);
    hears("all of it has the Service's address", &excepted_ends, service);

    // No node is selected; then, in one edit, each is, and there is a list.
    scene.serve_with(&[("egress", "service-ip"), ("egress-nodes", "gate=nobody")]);
    for agent in &agents {
        let expected = ADDRESSES.map(|address| format!("{address} held 2")).to_vec();
        eventually_equal("the pods are held", secs(20), &expected, || rows(agent));
    }
    scene.serve_with(&but);
    scene.leave_by(&agents, owner);
    hears("what is excepted comes from the nodes", &excepted_ends, nodes);
    hears("what is covered from the Service's address", &covered_ends, service);
    scene.serve_with(&all);
    hears("it is covered again", &excepted_ends, service);

    // No agent sees the edit.
    agents.iter().for_each(Crier::kill);
    scene.serve_with(&but);
    for agent in &mut agents {
        agent.start_again(&scene.configuration);
        agent.wait_ready(secs(30));
    }
    scene.leave_by(&agents, lan.owner(ADDRESS));
    hears("after the restart too", &excepted_ends, nodes);
    hears("and the others go on", &covered_ends, service);
}

/// Input: a host that egress of the pod is not for sends datagrams to a port of the pod itself that is above those of
/// Services. Output: they arrive, and are answered.
#[test]
fn what_a_host_outside_of_the_list_sends_to_a_pods_own_port_arrives() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, client, pod) = (&scene.lan, &scene.lan.site.client, &scene.pods[0]);
    let agents = lan.agents();
    scene.serve_with(&[("egress", "service-ip"), ("egress-to", "198.51.100.0/24, fd51::/64")]);
    scene.leave_by(&agents, lan.owner(ADDRESS));
    client.ip(&format!("route add {}/32 via {}", pod.address, lan.site.node(0).address));
    let (served, asking) = (socket(pod, pod.address.into(), 50_000), socket(client, client.address.into(), 50_001));
    eventually("a datagram is answered", secs(10), || {
        let mut buffer = [0; 8];
        asking.send_to(b"hello", (pod.address, 50_000)).map_err(|error| error.to_string())?;
        let (_, from) = served.recv_from(&mut buffer).map_err(|error| format!("the pod: {error}"))?;
        served.send_to(b"you too", from).map_err(|error| error.to_string())?;
        asking.recv_from(&mut buffer).map(drop).map_err(|error| format!("the host: {error}"))
    });
}

#[test]
fn a_list_that_cannot_be_read_holds_the_pods_back_from_everything_and_is_told() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, client) = (&scene.lan, &scene.lan.site.client);
    let agents = lan.agents();
    let captures = [(client.port.capture(), client.port.mac())];
    scene.serve_with(&[("egress", "service-ip"), ("egress-to", "192.168.35.0/33")]);
    for agent in &agents {
        eventually_equal("egress is held", secs(20), &vec!["- held 4".to_owned()], || rows(agent));
    }
    for node in &lan.site.nodes {
        // A kernel that loads modules first takes its time.
        eventually("the guard is in the kernel", secs(20), || {
            let rules = node.sh("nft list ruleset");
            if rules.contains("table inet crier") { Ok(()) } else { Err(rules) }
        });
    }
    let client_ends = ends(client);
    let senders = Senders::start(&scene);
    rest(secs(1));
    assert_eq!([fresh(&client_ends[0]), fresh(&client_ends[1])], [set(&[]), set(&[])], "nothing comes through");
    for agent in &agents {
        let told = problems(agent);
        let expected =
            "crier.dev/egress-to is \"192.168.35.0/33\": \"192.168.35.0/33\" is neither an address nor a CIDR";
        assert!(told.contains(expected) && told.contains("are held back"), "{told}");
        assert_eq!(agent.verb("egress").status.code(), Some(1));
    }
    scene.serve_with(&[("egress", "service-ip"), ("egress-to", "192.168.35.0/24, fd35::/64")]);
    let service = [set(&ADDRESSES[..1]), set(&ADDRESSES[1..])];
    hears("once it can be read, packets come through", &client_ends, [&service[0], &service[1]]);
    senders.end();
    assert_eq!(leaks(&captures), BTreeSet::new());
}

#[test]
fn only_selected_nodes_own_the_address_and_without_one_nobody_answers_and_the_pods_are_held() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, client) = (&scene.lan, &scene.lan.site.client);
    // Whoever would own the address by itself, it is the other one that is selected.
    let agents = lan.agents();
    scene.serve("service-ip");
    let unselected = lan.owner(ADDRESS);
    let selected = 1 - unselected;
    let labels = |gate: Option<usize>| [0, 1].map(|node| if gate == Some(node) { "gate: \"yes\"" } else { "" });
    scene.label(&labels(Some(selected)));
    let captures = [(client.port.capture(), client.port.mac())];
    scene.serve_with(&[("egress", "service-ip"), ("egress-nodes", "gate=yes")]);
    eventually_equal("the selected node answers", secs(20), &selected, || lan.owner(ADDRESS));
    scene.leave_by(&agents, selected);
    let client_ends = ends(client);
    let service = [set(&ADDRESSES[..1]), set(&ADDRESSES[1..])];
    let senders = Senders::start(&scene);
    hears("packets come through", &client_ends, [&service[0], &service[1]]);

    // Labels decide, while packets flow.
    scene.label(&labels(Some(unselected)));
    eventually_equal("the node that is selected now answers", secs(20), &unselected, || lan.owner(ADDRESS));
    scene.leave_by(&agents, unselected);
    hears("packets come through by it", &client_ends, [&service[0], &service[1]]);

    scene.label(&labels(None));
    lan.answered_by(ADDRESS, &[]);
    for agent in &agents {
        let expected: Vec<String> = ADDRESSES.map(|address| format!("{address} held 2")).to_vec();
        eventually_equal("the pods are held", secs(20), &expected, || rows(agent));
        assert!(problems(agent).contains("crier.dev/egress-nodes \"gate=yes\""), "{}", problems(agent));
        assert_eq!(agent.verb("egress").status.code(), Some(1));
    }
    assert_eq!(fresh(&client_ends[0]), set(&[]), "nothing comes through");
    scene.label(&labels(Some(selected)));
    hears("packets come through again", &client_ends, [&service[0], &service[1]]);
    senders.end();
    assert_eq!(leaks(&captures), BTreeSet::new());
}

const SECOND: [&str; 2] = ["192.0.2.100", "fd02::100"];

/// A second network of the nodes, on their `eth1`, with the same router at its end.
struct Second {
    link: Switch,
    /// Of each node, its cable to this network.
    ports: Vec<Port>,
}

impl Second {
    fn new(rack: &Rack, site: &Site) -> Second {
        let link = rack.switch("second-link");
        link.plug(&site.router, "eth2", &["192.0.2.1/24", "fd02::1/64"]);
        let plugged = |(number, node): (usize, &Node)| {
            let number = number + 10;
            let port = link.plug(node, "eth1", &[&format!("192.0.2.{number}/24"), &format!("fd02::{number}/64")]);
            node.ip("route add default via 192.0.2.1 dev eth1 metric 200");
            node.ip("-6 route add default via fd02::1 dev eth1 metric 2048");
            for link in ["eth0", "eth1"] {
                node.sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1");
            }
            node.sysctl("net/ipv4/conf/eth1/src_valid_mark", "1");
            port
        };
        let ports = site.nodes.iter().enumerate().map(plugged).collect();
        Second { link, ports }
    }
}

/// The sources of all datagrams and connections to [`PORT`] that the host at this port sent.
fn sent(capture: &Capture, port: &Port) -> BTreeSet<String> {
    let source = |bytes: &[u8]| {
        let (source, at) = match bytes.get(12..14)? {
            [0x08, 0x00] => (IpAddr::from(<[u8; 4]>::try_from(bytes.get(26..30)?).ok()?), 34),
            [0x86, 0xdd] => (IpAddr::from(<[u8; 16]>::try_from(bytes.get(22..38)?).ok()?), 54),
            _ => return None,
        };
        (bytes.get(at + 2..at + 4)? == PORT.to_be_bytes()).then(|| source.to_string())
    };
    let (frames, mac) = (capture.frames(), port.mac());
    let own = frames.iter().filter(|frame| frame.bytes.get(6..12) == Some(&mac.0[..]));
    own.filter_map(|frame| source(&frame.bytes)).collect()
}

/// Of agents that answer for [`SECOND`] on the second network.
fn configuration_by_second(lan: &Lan) -> String {
    format!(
        "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"second\"\naddresses = [\"{}/32\", \"{}/128\"]\n\
         [[l2]]\ninterfaces = [\"eth1\"]\n[pulse]\nkey-file = \"{}\"\n",
        lan.manifests.section(),
        SECOND[0],
        SECOND[1],
        lan.key.display()
    )
}

fn connects(pod: &Pod, host: &Namespace, to: SocketAddr) -> IpAddr {
    // The connection of before may still hold the port.
    let listener = eventually(&format!("a listener on {to}"), secs(5), || host.run(|| TcpListener::bind(to)));
    let connect = || TcpStream::connect_timeout(&to, secs(5));
    let _open = pod.run(connect).unwrap_or_else(|error| panic!("{} connects to {to}: {error}", pod.name()));
    listener.accept().expect("a connection").1.ip()
}

#[test]
fn by_the_network_of_the_address_packets_leave_with_the_address_of_the_pods_node_there_or_not_at_all() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    let second = Second::new(&rack, site);
    let outside = site.outside("outside");
    let configuration = configuration_by_second(lan);
    let agents: Vec<Crier> = lan.agents_with(&configuration);
    scene.serve_at(&SECOND.join(","), &[("egress", "network")]);
    for (number, agent) in agents.iter().enumerate() {
        let number = number + 10;
        let expected = vec![format!("192.0.2.{number} network 2"), format!("fd02::{number} network 2")];
        eventually_equal(&format!("egress on {}", agent.node()), secs(20), &expected, || rows(agent));
        let row = &agent.json("egress")["services"][0];
        assert_eq!((row["link"].as_str(), row["owner"].as_str()), (Some("eth1"), None), "{row}");
        assert_eq!(problems(agent), "");
    }

    let first: Vec<(Capture, &Port)> = site.nodes.iter().map(|node| (node.port.capture(), &node.port)).collect();
    let by_second: Vec<(Capture, &Port)> = second.ports.iter().map(|port| (port.capture(), port)).collect();
    let outside_ends = ends(&outside);
    let _flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &outside)).collect();
    let both = [set(&["192.0.2.10", "192.0.2.11"]), set(&["fd02::10", "fd02::11"])];
    hears("each node sends with its own address there", &outside_ends, [&both[0], &both[1]]);
    for (number, pod) in scene.pods.iter().enumerate() {
        // Replies come back, under a strict reverse path filter.
        let from = connects(pod, &outside, (IpAddr::from(outside.address), 9001).into());
        assert_eq!(from.to_string(), format!("192.0.2.{}", number + 10), "{}", pod.name());
        connects(pod, &outside, (IpAddr::from(outside.address6), 9002).into());
    }
    // Inside of the cluster a pod keeps its own address.
    let [one, two] = [&scene.pods[0], &scene.pods[1]];
    let inside = socket(two, two.address.into(), 7000);
    socket(one, one.address.into(), 0).send_to(b"inside", (two.address, 7000)).expect("there is a route");
    assert_eq!(inside.recv_from(&mut [0; 16]).expect("pods reach each other").1.ip(), IpAddr::from(one.address));

    // The first node loses the network.
    let node = site.node(0);
    node.ip("link set eth1 down");
    eventually_equal("the pods of node-1 are held", secs(20), &vec!["- held 2".to_owned(); 2], || rows(&agents[0]));
    let told = problems(&agents[0]);
    assert!(told.contains("no link of this node has a subnet with 192.0.2.100"), "{told}");
    assert_eq!(agents[0].verb("egress").status.code(), Some(1));
    let second_node = [set(&["192.0.2.11"]), set(&["fd02::11"])];
    hears("only the other node sends", &outside_ends, [&second_node[0], &second_node[1]]);
    node.up("eth1", &["fd02::10/64"]);
    node.ip("route add default via 192.0.2.1 dev eth1 metric 200");
    node.ip("-6 route add default via fd02::1 dev eth1 metric 2048");
    hears("and both when it has the network again", &outside_ends, [&both[0], &both[1]]);

    // Rules and routes taken away by others hold packets and are put back.
    for words in ["-4 rule delete priority 1502", "-6 rule delete priority 1502", "-4 route flush table 6984"] {
        node.ip(words);
    }
    node.sh("nft flush ruleset");
    rest(millis(300));
    hears("both send after a flush", &outside_ends, [&both[0], &both[1]]);

    // Only nodes that are selected.
    scene.label(&["", "rack: a"]);
    scene.serve_at(&SECOND.join(","), &[("egress", "network"), ("egress-nodes", "rack=a")]);
    hears("only the selected node sends", &outside_ends, [&second_node[0], &second_node[1]]);
    assert!(problems(&agents[0]).contains("crier.dev/egress-nodes \"rack=a\""), "{}", problems(&agents[0]));
    assert_eq!(problems(&agents[1]), "");

    for (capture, port) in &first {
        assert_eq!(sent(capture, port), BTreeSet::new(), "nothing leaves by eth0");
    }
    for (number, (capture, port)) in by_second.iter().enumerate() {
        let number = number + 10;
        assert_eq!(sent(capture, port), set(&[&format!("192.0.2.{number}"), &format!("fd02::{number}")]), "by eth1");
    }
    drop(second.link);
}

#[test]
fn with_the_services_address_packets_leave_by_the_extra_network_that_it_is_in_and_replies_come_back() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    let second = Second::new(&rack, site);
    let outside = site.outside("outside");
    let configuration = configuration_by_second(lan);
    let agents: Vec<Crier> = lan.agents_with(&configuration);
    scene.serve_at(&SECOND.join(","), &[("egress", "service-ip")]);
    let owner = one_owns_and_the_other_leads(&agents);
    let row = &agents[owner].json("egress")["services"][0];
    assert_eq!(row["link"].as_str(), Some("eth1"), "{row}");

    let first: Vec<(Capture, &Port)> = site.nodes.iter().map(|node| (node.port.capture(), &node.port)).collect();
    let by_second = second.ports[owner].capture();
    let outside_ends = ends(&outside);
    let _flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &outside)).collect();
    let both = [set(&[SECOND[0]]), set(&[SECOND[1]])];
    hears("all pods have the address", &outside_ends, [&both[0], &both[1]]);
    for pod in &scene.pods {
        assert_eq!(connects(pod, &outside, (IpAddr::from(outside.address), 9001).into()).to_string(), SECOND[0]);
        connects(pod, &outside, (IpAddr::from(outside.address6), 9002).into());
    }
    // The next agent of the owner goes on so from its start.
    let mut agents = agents;
    agents[owner].restart(&configuration);
    agents[owner].wait_ready(secs(30));
    hears("after a restart too", &outside_ends, [&both[0], &both[1]]);
    for pod in &scene.pods {
        assert_eq!(connects(pod, &outside, (IpAddr::from(outside.address), 9003).into()).to_string(), SECOND[0]);
    }
    for (capture, port) in &first {
        let by_first = sent(capture, port);
        assert!(SECOND.iter().all(|address| !by_first.contains(*address)), "by eth0 leaves {by_first:?}");
    }
    assert_eq!(sent(&by_second, &second.ports[owner]), set(&SECOND), "by eth1");
}

#[test]
fn by_the_network_of_the_default_route_packets_have_the_nodes_address_and_leave_by_that_link_alone() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    // A way out past the first network.
    let second = Second::new(&rack, site);
    let agents = lan.agents();
    let outside = site.outside("outside");
    let past: Vec<(Capture, &Port)> = second.ports.iter().map(|port| (port.capture(), port)).collect();
    scene.serve("network");
    for agent in &agents {
        eventually("pods have a way out", secs(20), || {
            let rows = rows(agent);
            if rows.len() == 2 && rows.iter().all(|row| row.ends_with("network 2")) {
                Ok(())
            } else {
                Err(format!("{rows:?}"))
            }
        });
    }
    let (client_ends, outside_ends) = (ends(&site.client), ends(&outside));
    let _flows: Vec<Flows> =
        scene.pods.iter().flat_map(|pod| [&site.client, &outside].map(|host| Flows::start(pod, host))).collect();
    let nodes = of_nodes(&scene);
    hears("packets have the nodes' addresses", &client_ends, [&nodes[0], &nodes[1]]);
    hears("by the default route too", &outside_ends, [&nodes[0], &nodes[1]]);
    // A better route by the other link leads nowhere.
    for node in &site.nodes {
        node.ip("route add 198.51.100.0/24 via 192.0.2.1 dev eth1");
        node.ip("-6 route add fd51::/64 via fd02::1 dev eth1");
    }
    hears("nothing comes by another link", &outside_ends, [&set(&[]), &set(&[])]);
    for (capture, port) in &past {
        assert_eq!(sent(capture, port), BTreeSet::new(), "by eth1");
    }
}

#[test]
fn a_table_of_another_program_is_left_alone_and_named() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut scene = Scene::new(&rack);
    // The table of the CNI, by a mistake of the operator.
    scene.configuration.push_str("[egress]\ntable = \"cni\"\n");
    let node = scene.lan.site.node(0);
    let before = node.sh("nft list table inet cni");
    let agents = scene.lan.agents_with(&scene.configuration);
    scene.serve("service-ip");
    eventually("it is told", secs(20), || {
        let told = problems(&agents[0]);
        if told.contains("inet cni is another program's") { Ok(()) } else { Err(told) }
    });
    assert_eq!(node.sh("nft list table inet cni"), before);
    for agent in &agents {
        agent.stop(secs(10));
    }
    let cleanup = agents[0].verb(&format!("cleanup --config {}", agents[0].file().display()));
    let said = String::from_utf8_lossy(&cleanup.stdout);
    assert!(cleanup.status.success() && said.contains("inet cni is another program's"), "nothing is crier's: {said}");
    assert_eq!(node.sh("nft list table inet cni"), before, "crier cleanup leaves it too");
}

#[test]
fn another_name_of_the_table_leaves_nothing_of_the_former_one_behind() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let mut agents = scene.lan.agents();
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let node = scene.lan.site.node(1 - owner);
    assert!(node.sh("ip rule show").contains("1500:"), "{}", node.sh("ip rule show"));
    let other =
        format!("{}[egress]\ntable = \"other\"\nrule-priority = 1600\nfirst-route-table = 7770\n", scene.configuration);
    agents[1 - owner].restart(&other);
    agents[1 - owner].wait_ready(secs(30));
    eventually("everything has the new name and number", secs(30), || {
        let (tables, rules) = (node.sh("nft list tables"), node.sh("ip rule show"));
        let is_new = tables.contains("inet other") && rules.contains("1600:");
        let is_gone = !tables.contains("inet crier") && !rules.contains("1500:");
        if is_new && is_gone { Ok(()) } else { Err(format!("{tables}\n{rules}")) }
    });
    let routes = node.sh("ip route show table all");
    assert!(!routes.contains("table 6770"), "its routes too: {routes}");
}

/// Without a link or a route of the network packets got into that of the default route, with an address of the other one.
#[test]
fn with_the_services_address_nothing_leaves_by_another_network_while_that_of_the_address_is_away() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    let second = Second::new(&rack, site);
    let outside = site.outside("outside");
    scene.tell_pods();
    let configuration = configuration_by_second(lan) + "[egress]\nnew-pods = \"hold\"\n";
    let agents: Vec<Crier> = lan.agents_with(&configuration);
    scene.serve_at(&SECOND.join(","), &[("egress", "service-ip")]);
    let first: Vec<(Capture, &Port)> = site.nodes.iter().map(|node| (node.port.capture(), &node.port)).collect();
    let outside_ends = ends(&outside);
    let _flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &outside)).collect();
    let both = [set(&[SECOND[0]]), set(&[SECOND[1]])];
    one_owns_and_the_other_leads(&agents);
    hears("all pods have the address", &outside_ends, [&both[0], &both[1]]);
    site.nodes.iter().for_each(|node| loads_again(&rack, node));
    for node in &site.nodes {
        node.ip("link set eth1 down");
    }
    hears("nothing comes", &outside_ends, [&set(&[]), &set(&[])]);
    for (number, node) in site.nodes.iter().enumerate() {
        node.up("eth1", &[&format!("fd02::{}/64", number + 10)]);
    }
    let told = |agents: &[Crier]| {
        eventually("the owner tells that the network is away", secs(20), || {
            let all: Vec<String> = agents.iter().map(problems).collect();
            let at =
                all.iter().position(|told| told.contains("by eth1 alone") && told.contains("default route any more"));
            let at = at.ok_or_else(|| all.join("\n"))?;
            match agents[at].verb("egress").status.code() {
                Some(1) => Ok(()),
                other => Err(format!("crier egress ends with {other:?}")),
            }
        });
    };
    told(&agents);
    rest(secs(1));
    hears("nothing comes while there is no route", &outside_ends, [&set(&[]), &set(&[])]);
    for node in &site.nodes {
        node.ip("route add default via 192.0.2.1 dev eth1 metric 200");
        node.ip("-6 route add default via fd02::1 dev eth1 metric 2048");
    }
    one_owns_and_the_other_leads(&agents);
    hears("and all when it is back", &outside_ends, [&both[0], &both[1]]);
    // The kernel forgets the way before the agent hears of it.
    for node in &site.nodes {
        node.ip("-4 route flush table 6984");
        node.ip("-4 rule delete priority 1502");
    }
    hears("they have it again", &outside_ends, [&both[0], &both[1]]);
    for (capture, port) in &first {
        let by_first = sent(capture, port);
        assert!(SECOND.iter().all(|address| !by_first.contains(*address)), "by eth0 leaves {by_first:?}");
    }
    drop(second.link);
}
