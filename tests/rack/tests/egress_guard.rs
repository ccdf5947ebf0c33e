//! A node that cannot guard outbound connections of pods announces no address of a Service with egress, and all others.

use std::net::Ipv4Addr;
use std::process::Command;

use rack::crier::Crier;
use rack::egress::{ADDRESS, ADDRESSES, Flows, Scene, Senders, ends, fresh, leaks, rows};
use rack::lan::{problems, service};
use rack::{Metal, Need, Process, Rack, Service, eventually, eventually_equal, secs};

const NEEDS: [Need; 3] = [Need::Namespaces, Need::Nft, Need::Crier];

/// Of a Service without egress.
const PLAIN: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 101);

/// Another program whose socket owns a table of crier's name; it goes with the process.
fn own_table(scene: &Scene, node: usize) -> Process {
    let node = &scene.lan.site.nodes[node];
    node.sh("nft delete table inet crier");
    let mut command = Command::new("sh");
    command.args(["-c", "(echo 'add table inet crier { flags owner; }'; sleep 100000) | nft -i"]);
    let owner = node.start("nft", command);
    eventually("the table is another program's", secs(10), || {
        let tables = node.sh("nft list tables");
        if tables.contains("inet crier") { Ok(()) } else { Err(tables) }
    });
    owner
}

fn announced_by(scene: &Scene, node: usize) {
    let name = scene.lan.site.nodes[node].name().to_owned();
    for address in [ADDRESS, PLAIN] {
        scene.lan.answered_by(address, &[&name]);
    }
}

/// The owner of both addresses.
fn served(scene: &Scene) -> usize {
    scene.serve("service-ip");
    scene.lan.service("plain", &PLAIN.to_string());
    scene.lan.owner(ADDRESS)
}

fn says(agent: &Crier, words: &[&str]) {
    eventually(&format!("{} says {words:?}", agent.node()), secs(20), || {
        let said = problems(agent);
        if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
    });
}

/// Calico's own address management gives a node's pods addresses from wherever its pool is free: the `podCIDRs` say nothing.
#[test]
fn a_pod_without_egress_on_the_owners_node_sends_on_whichever_nodes_network_its_address_is_in() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let file = scene.lan.manifests.path().join("nodes.yaml");
    let nodes = std::fs::read_to_string(file).expect("the scene wrote it");
    let swap = |text: String, a: &str, b: &str| text.replace(a, "swapped").replace(b, a).replace("swapped", b);
    let [of_first, of_second] = [0, 1].map(|node| scene.lan.site.nodes[node].pod_ranges());
    let swapped = of_first.iter().zip(&of_second).fold(nodes.clone(), |text, (a, b)| swap(text, a, b));
    assert_ne!(swapped, nodes);
    scene.lan.manifests.write("nodes.yaml", &swapped);
    let agents = scene.lan.agents();
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let node = scene.lan.site.node(owner);
    let plain = node.pod("plain", &[80]);
    let client = &scene.lan.site.client;
    let _flows = Flows::start(&plain, client);
    for (end, expected) in ends(client).iter().zip([node.address.to_string(), node.address6.to_string()]) {
        eventually("it has its node's address", secs(10), || {
            let sources = fresh(end);
            if sources == [expected.clone()].into() { Ok(()) } else { Err(format!("{sources:?}, not {expected}")) }
        });
    }
}

#[test]
fn a_chain_of_another_program_that_translates_first_is_named_while_the_guard_drops_what_pods_open() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (site, client) = (&scene.lan.site, &scene.lan.site.client);
    let agents = scene.lan.agents();
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let captures = [(client.port.capture(), client.port.mac())];
    let senders = Senders::start(&scene);
    let early = "table inet early { chain post { type nat hook postrouting priority 50; oifname eth0 masquerade; }; }";
    let file = rack.write("early.nft", early);
    for node in &site.nodes {
        node.sh(&format!("nft -f {}", file.display()));
    }
    for (number, agent) in agents.iter().enumerate() {
        let path = if number == owner { "path is local" } else { "path is routed" };
        says(agent, &["table inet early, chain post (priority 50)", "default/web", path]);
        assert_eq!(agent.verb("egress").status.code(), Some(1));
        let doctor = agent.verb("doctor");
        let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(told.contains("chain post (priority 50)"), "{told}");
    }
    for node in &site.nodes {
        node.sh("nft delete table inet early");
    }
    for agent in &agents {
        eventually_equal(&format!("the problems of {}", agent.node()), secs(30), &String::new(), || problems(agent));
    }
    senders.end();
    assert_eq!(leaks(&captures), [].into(), "nothing came through with another address");
}

/// Input: another program gives what a pod sends a mark of its own, behind crier, on the node that leads it to the owner.
#[test]
fn a_chain_of_another_program_that_marks_behind_crier_is_named_while_the_guard_drops_what_it_marks() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (site, client) = (&scene.lan.site, &scene.lan.site.client);
    let agents = scene.lan.agents();
    scene.serve("service-ip");
    let owner = scene.lan.owner(ADDRESS);
    scene.leave_by(&agents, owner);
    let captures = [(client.port.capture(), client.port.mac())];
    let senders = Senders::start(&scene);
    let (node, agent) = (&site.nodes[1 - owner], &agents[1 - owner]);
    let pod = scene.pods[1 - owner].address;
    node.sh("nft add table inet vpn");
    node.sh("nft add chain inet vpn pre { type filter hook prerouting priority 0 ; }");
    node.sh("nft add chain inet vpn marks");
    node.sh(&format!("nft add rule inet vpn marks ip saddr {pod} meta mark set 7"));
    node.sh("nft add rule inet vpn pre jump marks");
    says(agent, &["table inet vpn, chain pre (priority 0)", "default/web", "path is routed"]);
    assert_eq!(problems(&agents[owner]), "", "the owner has no such chain");
    node.sh("nft delete table inet vpn");
    eventually_equal("it is over", secs(30), &String::new(), || problems(agent));
    senders.end();
    assert_eq!(leaks(&captures), [].into(), "nothing came through with another address");
}

#[test]
fn a_node_whose_table_cannot_be_written_takes_no_address_of_egress_until_it_can() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let mut agents = scene.lan.agents();
    let owner = served(&scene);
    let plain = scene.lan.owner(PLAIN);
    let heir = 1 - owner;
    scene.leave_by(&agents, owner);
    agents[owner].stop(secs(10));
    eventually_equal("the other node answers", secs(20), &heir, || scene.lan.owner(ADDRESS));

    let other = own_table(&scene, owner);
    agents[owner] = scene.lan.agent_with(owner, &scene.configuration);
    agents[owner].wait_ready(secs(30));
    says(&agents[owner], &["nftables table crier for egress cannot be written", "CAP_NET_ADMIN"]);
    let pending: Vec<String> = ADDRESSES.map(|address| format!("{address} pending 2")).to_vec();
    eventually_equal("the path on that node", secs(20), &pending, || rows(&agents[owner]));
    assert_eq!(agents[owner].verb("egress").status.code(), Some(1));
    // By rank both would be as before.
    eventually_equal("the Service without egress", secs(30), &plain, || scene.lan.owner(PLAIN));
    // The heir leaves, and there is nobody to take the address.
    agents[heir].stop(secs(10));
    eventually("nobody announces the address", secs(20), || {
        let answering = scene.lan.answering(ADDRESS);
        if answering.is_empty() { Ok(()) } else { Err(format!("{answering:?}")) }
    });
    eventually_equal("the Service without egress has its address", secs(20), &owner, || scene.lan.owner(PLAIN));
    assert_eq!(scene.lan.answering(ADDRESS), Vec::<String>::new(), "and the one with egress still has none");
    let why = service(&agents[owner], "web")["announcements"][0]["l2"]["reason"].clone();
    assert_eq!(why["code"], "egress-unguarded", "{why}");

    other.kill();
    announced_by(&scene, owner);
    let local: Vec<String> = ADDRESSES.map(|address| format!("{address} local 2")).to_vec();
    eventually_equal("the path on that node", secs(20), &local, || rows(&agents[owner]));
    assert!(!problems(&agents[owner]).contains("cannot"), "{}", problems(&agents[owner]));
}

#[test]
fn a_node_whose_cni_passes_netfilter_by_gives_addresses_of_egress_up() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let agents = scene.lan.agents();
    let owner = served(&scene);
    let heir = 1 - owner;
    scene.leave_by(&agents, owner);
    let node = &scene.lan.site.nodes[owner];
    let plain = scene.lan.owner(PLAIN);

    node.ip("link add bpfin.cali type bridge");
    says(&agents[owner], &["Calico is in eBPF mode", "bpfin.cali", "linuxDataplane"]);
    eventually_equal("the other node answers", secs(20), &heir, || scene.lan.owner(ADDRESS));
    assert_eq!(scene.lan.owner(PLAIN), plain, "the Service without egress stays");
    node.ip("link delete bpfin.cali");
    eventually("nothing is wrong any more", secs(20), || {
        let said = problems(&agents[owner]);
        if said.contains("Calico") || said.contains("guard") { Err(said) } else { Ok(()) }
    });
    // On the other node too, which then cannot serve.
    scene.lan.site.nodes[heir].ip("link add bpfin.cali type bridge");
    eventually_equal("it is announced here again", secs(30), &owner, || scene.lan.owner(ADDRESS));
}

#[test]
fn the_networks_of_services_that_the_api_server_names_are_inside_of_the_cluster_for_the_guard() {
    let Some(rack) = Rack::for_test(&[Need::Kubernetes, Need::Nft, Need::Crier]) else { return };
    let metal = Metal::without_kube_proxy(&rack, "192.168.35.0/24", 1);
    let _pod = metal.pod(0, "web", "web", &[8080]);
    let agents = metal.agents(&format!(
        "[pulse]\nunauthenticated = true\n[[pool]]\nname = \"lan\"\naddresses = [\"{ADDRESS}/32\"]\n\
         [[l2]]\ninterfaces = [\"eth0\"]\n[node]\ndata-path = \"none\"\n"
    ));
    let web = Service::new("web").selects("web").ports(&[(80, 8080)]).annotation("crier.dev/egress", "service-ip");
    metal.try_apply(&web.object()).expect("the API server takes the Service");
    let local = vec![format!("{ADDRESS} local 1")];
    eventually_equal("the pod has a way out", secs(30), &local, || rows(&agents[0]));
    let node = &metal.site.nodes[0];
    let holds = |set: &str, network: &str| {
        eventually(&format!("{set} has {network}"), secs(20), || {
            let listed = node.sh(&format!("nft list set inet crier {set}"));
            if listed.contains(network) { Ok(()) } else { Err(listed) }
        });
    };
    holds("cluster4", "10.96.0.0/16");
    holds("cluster6", "fd96::/112");
    metal.apply(
        "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [10.99.0.0/24]}}",
    );
    holds("cluster4", "10.99.0.0/24");
}
