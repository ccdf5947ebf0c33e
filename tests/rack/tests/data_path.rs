//! A node draws only traffic that it can serve: its kube-proxy must have written its rules since the boot, and they must
//! stand.

use std::net::{IpAddr, Ipv4Addr};

use rack::client::Asking;
use rack::crier::Crier;
use rack::{Metal, Need, Pod, Rack, Service, eventually, eventually_equal, millis, secs, throughout};

const NEEDS: [Need; 2] = [Need::Kubernetes, Need::Crier];

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);

/// Three nodes with an agent and a pod each, and the Service of these pods.
struct Scene {
    agents: Vec<Crier>,
    configuration: String,
    mode: &'static str,
    metal: Metal,
    _pods: Vec<Pod>,
}

impl Scene {
    fn new(rack: &Rack, mode: &'static str) -> Scene {
        let metal = Metal::in_mode(rack, "192.168.35.0/24", 3, mode);
        let pods = (0..3).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[80])).collect();
        let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
        let configuration = format!(
            "{}[[pool]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/32\"]\n[[l2]]\ninterfaces = [\"eth0\"]\n\
             [pulse]\nkey-file = \"{}\"\n",
            metal.access(),
            key.display()
        );
        let agents: Vec<Crier> = metal.site.nodes.iter().map(|node| node.crier(node.name(), &configuration)).collect();
        for agent in &agents {
            agent.wait_ready(secs(30));
        }
        metal.try_apply(&Service::new("web").selects("web").object()).expect("the API server takes the Service");
        let scene = Scene { agents, configuration, mode, metal, _pods: pods };
        eventually("the client gets the page", secs(30), || {
            scene.metal.site.client.get((IpAddr::from(ADDRESS), 80)).map_err(|error| error.to_string())
        });
        scene
    }

    /// The index of the one node that answers for the address.
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

    fn asking(&self) -> Asking {
        self.metal.site.client.ask_steadily((IpAddr::from(ADDRESS), 80), millis(100))
    }
}

/// What `crier status` says of the data path.
fn data_path(agent: &Crier) -> String {
    let status = agent.status();
    format!("{} {}", status["data_path"], status["problems"])
}

fn a_rebooted_node_takes_nothing_back_before_kube_proxy_has_written_its_rules(mode: &'static str) {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let mut scene = Scene::new(&rack, mode);
    let first = scene.owner();
    let name = scene.metal.site.node(first).name().to_owned();

    // The node dies with all that is in its kernel, and the API server notices that its kubelet is silent.
    scene.agents[first].kill();
    scene.metal.proxies[first].kill();
    scene.metal.site.node(first).sh("nft flush ruleset");
    scene.metal.set_node_condition_ready(&name, "Unknown");
    eventually("another node answers", secs(10), || {
        let answering = scene.metal.site.answering(ADDRESS);
        if answering.len() == 1 && answering[0] != name { Ok(()) } else { Err(format!("{answering:?}")) }
    });
    eventually("the client gets the page from there", secs(10), || {
        scene.metal.site.client.get((IpAddr::from(ADDRESS), 80)).map_err(|error| error.to_string())
    });

    // crier is there before kubelet and kube-proxy are.
    let asking = scene.asking();
    let node = scene.metal.site.node(first);
    scene.agents[first] = node.crier_in_boot(1, &name, &scene.configuration);
    scene.agents[first].wait_ready(secs(30));
    throughout("it takes nothing", secs(5), || {
        let answering = scene.metal.site.answering(ADDRESS);
        if answering.len() == 1 && answering[0] != name { Ok(()) } else { Err(format!("{answering:?}")) }
    });
    let told = data_path(&scene.agents[first]);
    assert!(told.contains("kube-proxy ran here before the last boot and has not started since"), "{told}");
    assert!(told.contains("\"good_since_boot\":false"), "{told}");

    scene.metal.proxies[first] = scene.metal.kube_proxy_in_mode(scene.metal.site.node(first), scene.mode);
    scene.metal.set_node_condition_ready(&name, "True");
    eventually("its path is good", secs(10), || {
        let told = data_path(&scene.agents[first]);
        if told.contains("\"state\":\"good\"") { Ok(()) } else { Err(told) }
    });
    eventually_equal("it takes its address back", secs(10), &vec![name.clone()], || {
        scene.metal.site.answering(ADDRESS)
    });
    let outcomes = asking.stop();
    println!("a reboot with {mode}: {outcomes}");
    assert!(outcomes.lost() <= 1, "{outcomes}");
}

fn a_node_whose_ruleset_is_flushed_gives_way_within_seconds(mode: &'static str) {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, mode);
    let first = scene.owner();
    let asking = scene.asking();
    scene.metal.site.node(first).sh("nft flush ruleset");
    let second = eventually("another node answers", secs(5), || {
        let answering = scene.metal.site.answering(ADDRESS);
        let place = scene.metal.site.nodes.iter().position(|node| answering == [node.name()]);
        place.filter(|place| *place != first).ok_or_else(|| format!("{answering:?}"))
    });
    let told = data_path(&scene.agents[first]);
    assert!(told.contains("are gone from the kernel"), "{told}");
    scene.metal.proxies[first].expect_running();
    eventually("the client gets the page from there", secs(5), || {
        scene.metal.site.client.get((IpAddr::from(ADDRESS), 80)).map_err(|error| error.to_string())
    });
    assert_ne!(first, second);
    let outcomes = asking.stop();
    println!("a ruleset flushed with {mode}: {outcomes}");
    assert!(outcomes.longest_gap() < secs(3), "{outcomes}");

    // With every node's rules gone, whoever has the address keeps it.
    for node in &scene.metal.site.nodes {
        node.sh("nft flush ruleset");
    }
    eventually("all agents see it", secs(5), || {
        let good = scene.agents.iter().map(data_path).filter(|told| told.contains("\"state\":\"good\"")).count();
        if good == 0 { Ok(()) } else { Err(format!("{good} are good")) }
    });
    scene.owner();
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
fn a_node_whose_nftables_rules_are_flushed_gives_way_within_seconds() {
    a_node_whose_ruleset_is_flushed_gives_way_within_seconds("nftables");
}

#[test]
fn a_node_whose_iptables_rules_are_flushed_gives_way_within_seconds() {
    a_node_whose_ruleset_is_flushed_gives_way_within_seconds("iptables");
}
