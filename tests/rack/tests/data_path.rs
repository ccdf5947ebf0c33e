//! A node draws only traffic that it can serve: its kube-proxy must have written its rules since the boot, and they must
//! stand. Where there is no kube-proxy, the kubelet must have reported since the boot.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use rack::client::Asking;
use rack::crier::Crier;
use rack::{Metal, Need, Pod, Rack, Service, bird, eventually, eventually_equal, millis, secs, throughout};
use serde_json::json;

const NEEDS: [Need; 3] = [Need::Kubernetes, Need::Iptables, Need::Crier];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

const OVER_BGP: &str = r#"
[bgp]
asn = 64513
[[bgp.peer]]
name = "tor"
address = "192.168.35.1"
asn = 64512
connect-retry-time = "1s"
[[bgp.advertisement]]
"#;

const BIRD: &str = "
router id 192.168.35.1;
protocol bgp node1 { local as 64512; neighbor 192.168.35.11 as 64513; ipv4 { import all; export none; }; }
protocol bgp node2 { local as 64512; neighbor 192.168.35.12 as 64513; ipv4 { import all; export none; }; }
protocol bgp node3 { local as 64512; neighbor 192.168.35.13 as 64513; ipv4 { import all; export none; }; }
";

/// Three nodes with an agent and a pod each, and the Service of these pods.
struct Scene {
    agents: Vec<Crier>,
    configuration: String,
    metal: Metal,
    _pods: Vec<Pod>,
}

impl Scene {
    /// With kube-proxy in this mode on every node, on the link.
    fn on_link(rack: &Rack, mode: &str) -> Scene {
        let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
        let scene = Scene::new(
            Metal::in_mode(rack, "192.168.35.0/24", 3, mode),
            &format!("[[l2]]\ninterfaces = [\"eth0\"]\n[pulse]\nkey-file = \"{}\"\n", key.display()),
        );
        scene.client_is_served();
        scene
    }

    fn new(metal: Metal, announcing: &str) -> Scene {
        let pods = (0..3).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[80])).collect();
        let pool = format!("[[pool]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/32\"]\n");
        let configuration = format!("{}{pool}{announcing}", metal.access());
        let agents: Vec<Crier> = metal.site.nodes.iter().map(|node| node.crier(node.name(), &configuration)).collect();
        for agent in &agents {
            agent.wait_ready(secs(30));
        }
        metal.try_apply(&Service::new("web").selects("web").object()).expect("the API server takes the Service");
        Scene { agents, configuration, metal, _pods: pods }
    }

    #[track_caller]
    fn client_is_served(&self) {
        eventually("the client gets the page", secs(30), || {
            self.metal.site.client.get((IpAddr::from(ADDRESS), 80)).map_err(|error| error.to_string())
        });
    }

    fn name(&self, node: usize) -> String {
        self.metal.site.node(node).name().to_owned()
    }

    fn sh(&self, node: usize, command: &str) {
        self.metal.site.node(node).sh(command);
    }

    /// The index of the one node that answers for the address.
    #[track_caller]
    fn owner(&self) -> usize {
        eventually("exactly one node answers", secs(30), || {
            let answering = self.metal.site.answering(ADDRESS);
            let place = |name: &String| self.metal.site.nodes.iter().position(|node| node.name() == name);
            match answering.as_slice() {
                [one] => place(one).ok_or_else(|| one.clone()),
                _ => Err(format!("{answering:?}")),
            }
        })
    }

    /// Another node than this answers for the address, and no second one.
    fn has_left(&self, node: usize) -> Result<(), String> {
        let answering = self.metal.site.answering(ADDRESS);
        if answering.len() == 1 && answering[0] != self.name(node) { Ok(()) } else { Err(format!("{answering:?}")) }
    }

    fn asking(&self) -> Asking {
        self.metal.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(100))
    }

    /// The node loses power: all that is in its kernel is gone, and the API server notices that its kubelet is silent.
    fn lose_power(&self, node: usize) {
        self.agents[node].kill();
        if let Some(proxy) = self.metal.proxies.get(node) {
            proxy.kill();
        }
        self.sh(node, "nft flush ruleset");
        self.metal.set_node_condition_ready(&self.name(node), "Unknown");
    }

    /// Its agent is there before the kubelet and kube-proxy are.
    fn boot(&mut self, node: usize) {
        let host = self.metal.site.node(node);
        self.agents[node] = host.crier_in_boot(1, host.name(), &self.configuration);
        self.agents[node].wait_ready(secs(30));
    }
}

/// What `crier status` says of the data path.
fn data_path(agent: &Crier) -> String {
    let status = agent.status();
    format!("{} {}", status["data_path"], status["problems"])
}

#[track_caller]
fn eventually_told(agent: &Crier, expected: &str) {
    eventually(expected, secs(10), || {
        let told = data_path(agent);
        if told.contains(expected) { Ok(()) } else { Err(told) }
    });
}

const GOOD: &str = "\"state\":\"good\"";

#[track_caller]
fn a_rebooted_node_takes_nothing_back_before_kube_proxy_has_written_its_rules(mode: &str) {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut scene = Scene::on_link(&rack, mode);
    let first = scene.owner();
    let name = scene.name(first);
    scene.lose_power(first);
    eventually("another node answers", secs(10), || scene.has_left(first));
    scene.client_is_served();

    let asking = scene.asking();
    scene.boot(first);
    throughout("it takes nothing", secs(5), || scene.has_left(first));
    eventually_told(&scene.agents[first], "kube-proxy ran here before the last boot and has not started since");
    eventually_told(&scene.agents[first], "\"state\":\"not-since-boot\"");

    scene.metal.proxies[first] = scene.metal.kube_proxy_in_mode(scene.metal.site.node(first), mode);
    scene.metal.set_node_condition_ready(&name, "True");
    eventually_told(&scene.agents[first], GOOD);
    eventually_equal("it takes its address back", secs(10), &vec![name.clone()], || {
        scene.metal.site.answering(ADDRESS)
    });
    // Beyond the move, so that its price is in the outcome.
    throughout("it keeps the address", secs(2), || {
        let answering = scene.metal.site.answering(ADDRESS);
        if answering == [name.as_str()] { Ok(()) } else { Err(format!("{answering:?}")) }
    });
    let outcomes = asking.stop();
    println!("a reboot with {mode}: {outcomes}");
    assert!(outcomes.lost() <= 1, "{outcomes}");
}

#[track_caller]
fn a_node_whose_rules_are_flushed_gives_way_within_seconds(mode: &str, flush: &str) {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::on_link(&rack, mode);
    let first = scene.owner();
    let asking = scene.asking();
    scene.sh(first, flush);
    eventually("another node answers", secs(5), || scene.has_left(first));
    eventually_told(&scene.agents[first], "kube-proxy's rules for IPv4 are gone from the kernel");
    scene.metal.proxies[first].expect_running();
    scene.client_is_served();
    throughout("it takes nothing back", secs(3), || scene.has_left(first));
    let outcomes = asking.stop();
    println!("{flush} with {mode}: {outcomes}");
    assert!(outcomes.longest_gap() < secs(2), "{outcomes}");

    // With every node's rules gone nobody serves, and somebody still has the address.
    (0..3).for_each(|node| scene.sh(node, flush));
    scene.agents.iter().for_each(|agent| eventually_told(agent, "are gone from the kernel"));
    scene.owner();
    let unserved = scene.metal.site.client.get((IpAddr::from(ADDRESS), 80));
    assert!(unserved.is_err(), "without rules no node serves, so a flush is what it is taken for: {unserved:?}");
}

#[test]
fn a_rebooted_node_takes_nothing_back_before_its_nftables_rules_stand() {
    a_rebooted_node_takes_nothing_back_before_kube_proxy_has_written_its_rules("nftables");
}

#[test]
fn a_rebooted_node_takes_nothing_back_before_its_iptables_rules_stand() {
    a_rebooted_node_takes_nothing_back_before_kube_proxy_has_written_its_rules("iptables");
}

#[test]
fn a_node_whose_nftables_ruleset_is_flushed_gives_way_within_seconds() {
    a_node_whose_rules_are_flushed_gives_way_within_seconds("nftables", "nft flush ruleset");
}

#[test]
fn a_node_whose_table_is_emptied_gives_way_within_seconds() {
    a_node_whose_rules_are_flushed_gives_way_within_seconds("nftables", "nft flush table ip kube-proxy");
}

#[test]
fn a_node_whose_iptables_ruleset_is_flushed_gives_way_within_seconds() {
    a_node_whose_rules_are_flushed_gives_way_within_seconds("iptables", "nft flush ruleset");
}

#[test]
fn a_node_whose_chains_are_emptied_gives_way_within_seconds() {
    a_node_whose_rules_are_flushed_gives_way_within_seconds("iptables", "iptables -t nat -F");
}

/// What firewall scripts do before they add rules of their own. kube-proxy looks for its chains alone.
#[test]
fn a_node_whose_jump_to_the_chains_is_flushed_gives_way_within_seconds() {
    a_node_whose_rules_are_flushed_gives_way_within_seconds("iptables", "iptables -t nat -F PREROUTING");
}

#[test]
fn a_node_whose_base_chain_is_emptied_gives_way_within_seconds() {
    let flush = "nft flush chain ip kube-proxy nat-prerouting";
    a_node_whose_rules_are_flushed_gives_way_within_seconds("nftables", flush);
}

#[test]
fn a_node_whose_kube_proxy_stops_gives_way_and_when_all_stop_the_client_is_still_served() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::on_link(&rack, "nftables");
    let first = scene.owner();
    let asking = scene.asking();
    scene.metal.proxies[first].kill();
    eventually("another node answers", secs(5), || scene.has_left(first));
    eventually_told(
        &scene.agents[first],
        "does not answer: connection refused; this node gives way to nodes that serve",
    );
    for (proxy, agent) in scene.metal.proxies.iter().zip(&scene.agents) {
        proxy.kill();
        eventually_told(agent, "does not answer: connection refused");
    }
    throughout("one node answers", secs(3), || match scene.metal.site.answering(ADDRESS).as_slice() {
        [_] => Ok(()),
        answering => Err(format!("{answering:?}")),
    });
    let outcomes = asking.stop();
    println!("kube-proxy stopped on one node after the other: {outcomes}");
    assert!(outcomes.lost() <= 3, "at most one for each move, the rules work all the time: {outcomes}");
}

#[test]
fn over_bgp_a_rebooted_node_announces_nothing_before_it_serves_and_a_flushed_one_withdraws() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Crier, Need::Bird]) else { return };
    let metal = Metal::new(&rack, 3);
    let tor = metal.site.router.bird(&format!("{}{BIRD}", bird::KERNEL));
    let mut scene = Scene::new(metal, OVER_BGP);
    let hop = |node: usize| -> IpAddr { Ipv4Addr::new(192, 168, 35, 11 + u8::try_from(node).unwrap_or(0)).into() };
    let hops = |nodes: &[usize]| -> BTreeSet<IpAddr> { nodes.iter().map(|node| hop(*node)).collect() };
    let known = || tor.routes().get(&format!("{ADDRESS}/32")).cloned().unwrap_or_default();
    eventually_equal("every node announces", secs(30), &hops(&[0, 1, 2]), known);
    let outside = scene.metal.site.outside("outside");
    eventually("a client behind the router is served", secs(10), || {
        outside.get((IpAddr::from(ADDRESS), 80)).map_err(|error| error.to_string())
    });

    scene.lose_power(0);
    eventually_equal("the router knows the other two", secs(10), &hops(&[1, 2]), known);
    let asking = outside.ask_steadily((IpAddr::from(ADDRESS), 80), millis(100));
    scene.boot(0);
    tor.wait_established("node1", secs(20));
    throughout("it announces nothing", secs(3), || {
        if known() == hops(&[1, 2]) { Ok(()) } else { Err(format!("{:?}", known())) }
    });
    let service = rack::lan::service(&scene.agents[0], "web");
    assert!(service.to_string().contains("data-path-not-seen"), "the reason stands at the Service: {service:#}");
    scene.metal.proxies[0] = scene.metal.kube_proxy(scene.metal.site.node(0));
    scene.metal.set_node_condition_ready("node-1", "True");
    eventually_equal("it announces again", secs(10), &hops(&[0, 1, 2]), known);
    let outcomes = asking.stop();
    println!("a reboot over BGP: {outcomes}");
    assert_eq!(outcomes.lost(), 0, "{outcomes}");

    let asking = outside.ask_steadily((IpAddr::from(ADDRESS), 80), millis(100));
    scene.sh(1, "nft flush ruleset");
    eventually_equal("it withdraws", secs(5), &hops(&[0, 2]), known);
    throughout(
        "and stays so",
        secs(2),
        || {
            if known() == hops(&[0, 2]) { Ok(()) } else { Err(format!("{:?}", known())) }
        },
    );
    let outcomes = asking.stop();
    println!("a ruleset flushed over BGP: {outcomes}");
    assert!(outcomes.longest_gap() < secs(2), "{outcomes}");

    // Nobody says here whether others serve. A kube-proxy that does not answer may have stopped everywhere.
    for proxy in &scene.metal.proxies {
        proxy.kill();
    }
    for node in [0, 2] {
        eventually_told(&scene.agents[node], "does not answer: connection refused");
    }
    throughout("those that announce go on, and no other", secs(3), || {
        if known() == hops(&[0, 2]) { Ok(()) } else { Err(format!("{:?}", known())) }
    });
}

#[test]
fn without_kube_proxy_a_rebooted_node_takes_nothing_before_its_kubelet_has_reported() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let mut scene = Scene::new(
        Metal::without_kube_proxy(&rack, "192.168.35.0/24", 3),
        &format!("[[l2]]\ninterfaces = [\"eth0\"]\n[pulse]\nkey-file = \"{}\"\n", key.display()),
    );
    let first = scene.owner();
    let name = scene.name(first);
    eventually_told(&scene.agents[first], "\"source\":\"node-ready\"");
    scene.lose_power(first);
    eventually("another node answers", secs(10), || scene.has_left(first));
    // The API server has not noticed anything yet, and says what the kubelet said before the boot.
    scene.metal.set_node_condition_ready(&name, "True");
    scene.boot(first);
    throughout("it takes nothing", secs(3), || scene.has_left(first));
    eventually_told(&scene.agents[first], "status.nodeInfo.bootID of the Node is that of another boot");
    let node_info = json!({ "nodeInfo": { "bootID": "00000000-0000-4000-8000-000000000001" } });
    scene.metal.patch_status(&format!("node/{name}"), &node_info);
    eventually_told(&scene.agents[first], GOOD);
    eventually_equal("it takes its address back", secs(10), &vec![name], || scene.metal.site.answering(ADDRESS));
}
