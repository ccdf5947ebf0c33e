//! By the VRF of the Service's address, outbound connections of pods leave with the address of their node in it, or not at all.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener, TcpStream};

use rack::egress::{Flows, Scene, ends, fresh, rows};
use rack::lan::problems;
use rack::{Need, Rack, eventually_equal, secs};

const NEEDS: [Need; 4] = [Need::Namespaces, Need::Nft, Need::Crier, Need::LinkType("vrf")];

const ADDRESSES: [&str; 2] = ["203.0.113.7", "fd13::7"];

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

#[test]
fn by_the_vrf_of_the_pool_packets_leave_with_the_address_of_the_pods_node_in_it_and_none_without_it() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    let link = rack.switch("red-link");
    link.plug(&site.router, "eth2", &["192.0.2.1/24", "fd02::1/64"]);
    let outside = site.outside("outside");
    for (number, node) in site.nodes.iter().enumerate() {
        node.ip("link add red type vrf table 1001");
        node.ip("link set red up");
        link.plug(node, "eth1", &[]);
        node.ip("link set eth1 master red");
        let number = number + 10;
        node.up("eth1", &[&format!("192.0.2.{number}/24"), &format!("fd02::{number}/64")]);
        node.ip("route add default via 192.0.2.1 table 1001");
        node.ip("-6 route add default via fd02::1 table 1001");
        // To the cluster by the main table, before the kernel's rule for VRFs.
        node.ip("rule add to 10.244.0.0/16 lookup main priority 990");
        node.ip("-6 rule add to fd44::/48 lookup main priority 990");
    }
    let configuration = format!(
        "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"red\"\naddresses = [\"{}/32\", \"{}/128\"]\nvrf = \"red\"\n\
         [[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\n\
         [[l2]]\ninterfaces = [\"eth0\", \"eth1\"]\n[pulse]\nkey-file = \"{}\"\n[egress]\nsymmetric-return = false\n",
        lan.manifests.section(),
        ADDRESSES[0],
        ADDRESSES[1],
        lan.key.display()
    );
    let agents = lan.agents_with(&configuration);
    scene.serve_at(&ADDRESSES.join(","), &[("egress", "network")]);
    for (number, agent) in agents.iter().enumerate() {
        let number = number + 10;
        let expected = vec![format!("192.0.2.{number} network 2"), format!("fd02::{number} network 2")];
        eventually_equal(&format!("egress on {}", agent.node()), secs(60), &expected, || rows(agent));
    }
    let outside_ends = ends(&outside);
    let _flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &outside)).collect();
    for (end, expected) in outside_ends.iter().zip([set(&["192.0.2.10", "192.0.2.11"]), set(&["fd02::10", "fd02::11"])])
    {
        eventually_equal("each node sends with its own address in the VRF", secs(60), &expected, || fresh(end));
    }
    for (pod, source) in scene.pods.iter().zip(["192.0.2.10", "192.0.2.11"]) {
        let to = (IpAddr::from(outside.address), 9001);
        let listener = outside.run(|| TcpListener::bind(to)).expect("the namespace is ours");
        let _open = pod.run(|| TcpStream::connect_timeout(&to.into(), secs(20))).expect("replies come back");
        assert_eq!(listener.accept().expect("a connection").1.ip().to_string(), source, "{}", pod.name());
    }
    // Without the VRF a node holds its pods.
    site.node(0).ip("link delete red");
    eventually_equal("the pods of node-1 are held", secs(60), &vec!["- held 2".to_owned(); 2], || rows(&agents[0]));
    assert!(problems(&agents[0]).contains("the VRF red of the pool is not on this node"), "{}", problems(&agents[0]));
    for (end, expected) in outside_ends.iter().zip([set(&["192.0.2.11"]), set(&["fd02::11"])]) {
        eventually_equal("only the other node sends", secs(60), &expected, || fresh(end));
    }
}
