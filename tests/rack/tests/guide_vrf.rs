//! The guide of OpenShift for symmetric routing, end to end: a network in a VRF with the very addresses of the main one, a peer in it, a
//! Service whose pods leave with its address, from both nodes, under a strict reverse path filter.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::egress::{PORT, Scene, rows};
use rack::lan::problems;
use rack::net::connect;
use rack::{Namespace, Need, Rack, bird, eventually, eventually_equal, secs};

const NEEDS: [Need; 5] = [Need::Namespaces, Need::Nft, Need::Bird, Need::Crier, Need::LinkType("vrf")];

/// Of the Service.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 7);
/// Behind the gateway of the VRF, and, for whoever leaves by the wrong network, behind everything else.
const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
/// Of both networks.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 1);

/// The sources of IPv4 packets to the client in these frames.
fn to_client(capture: &Capture) -> BTreeSet<IpAddr> {
    let frames = capture.frames();
    let source = |bytes: &[u8]| {
        let is_it = bytes.get(12..14)? == [8, 0] && bytes.get(30..34)? == CLIENT.octets();
        is_it.then_some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(26..30)?).ok()?))
    };
    frames.iter().filter_map(|frame| source(&frame.bytes)).collect()
}

/// What kube-proxy and a CNI do: ports 80 and 81 lead to the pods of the two nodes, and what pods send to the outside is masqueraded.
fn proxy(rack: &Rack, scene: &Scene) {
    let [first, second] = [scene.pods[0].address, scene.pods[1].address];
    let rules = format!(
        "table inet kube {{\n chain services {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {ADDRESS} tcp dport 80 dnat ip to {first}:80\n ip daddr {ADDRESS} tcp dport 81 dnat ip to {second}:80\n }}\n\
         chain post {{ type nat hook postrouting priority srcnat;\n\
         ct status dnat ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade\n }}\n}}\n"
    );
    let file = rack.write("kube.nft", &rules);
    for node in &scene.lan.site.nodes {
        node.sh(&format!("nft -f {}", file.display()));
    }
}

#[track_caller]
fn gets_both(client: &Namespace, when: &str) {
    for (port, name) in [(80, "web-0"), (81, "web-1")] {
        let to = SocketAddr::from((ADDRESS, port));
        eventually(&format!("the client in the VRF gets {to} {when}"), secs(60), || {
            let answer = client.get(to).map_err(|error| error.to_string())?;
            if answer.name == name { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
}

#[test]
fn a_service_in_a_vrf_with_the_addresses_of_the_main_network_is_reached_and_left_by_it_alone() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack);
    let (lan, site) = (&scene.lan, &scene.lan.site);
    proxy(&rack, &scene);
    let link = rack.switch("red-link");
    let (gateway, client) = (rack.router("red-gateway"), rack.namespace("red-client"));
    link.plug(&gateway, "eth0", &[&format!("{GATEWAY}/24")]);
    connect(&gateway, "eth1", &client, "eth0");
    gateway.up("eth1", &["203.0.113.1/24"]);
    client.up("eth0", &[&format!("{CLIENT}/24")]);
    client.ip("route add default via 203.0.113.1");
    let mut neighbors = String::new();
    for (number, node) in site.nodes.iter().enumerate() {
        link.plug(node, "eth1", &[]);
        for link in ["all", "eth0", "eth1", "pods"] {
            node.sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1");
        }
        node.sysctl("net/ipv4/conf/eth1/src_valid_mark", "1");
        neighbors += &format!(
            "protocol bgp n{number} {{ local as 200; neighbor {} as 100; ipv4 {{ import all; export none; }}; }}\n",
            node.address
        );
    }
    let bird = gateway.bird(&format!("router id {GATEWAY};\n{}{neighbors}", bird::KERNEL));
    let agent = |number: usize| {
        lan.agent_with(
            number,
            &format!(
                "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"red\"\naddresses = [\"{ADDRESS}/32\"]\nvrf = \"red\"\n\
                 [[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\naddresses = [\"{}/24\"]\nmanage = true\n\
                 routes = [{{ to = \"0.0.0.0/0\", via = \"{GATEWAY}\" }}]\n[pulse]\nkey-file = \"{}\"\ninterfaces = [\"eth0\"]\n\
                 [bgp]\nasn = 100\n[[bgp.peer]]\nname = \"tor\"\naddress = \"gateway\"\nasn = 200\nvrf = \"red\"\n\
                 connect-retry-time = \"1s\"\n[[bgp.advertisement]]\n",
                lan.manifests.section(),
                site.node(number).address,
                lan.key.display()
            ),
        )
    };
    let agents: Vec<Crier> = (0..2).map(agent).collect();
    scene.serve_at(&ADDRESS.to_string(), &[("egress", "service-ip")]);
    for number in 0..2 {
        bird.wait_established(&format!("n{number}"), secs(90));
    }
    let ways = || agents.iter().map(|agent| rows(agent).concat()).collect::<BTreeSet<String>>();
    let expected = ["local", "routed"].map(|path| format!("{ADDRESS} {path} 2")).into();
    eventually_equal("one node sends, and the other one leads there", secs(60), &expected, ways);

    let wrong = [&site.client, &site.router].map(|host| host.port.capture());
    gets_both(&client, "at first");
    let listener = client.run(|| TcpListener::bind((CLIENT, PORT))).expect("the namespace is ours");
    for pod in &scene.pods {
        let open = || TcpStream::connect_timeout(&(CLIENT, PORT).into(), secs(20));
        let _open = pod.run(open).unwrap_or_else(|error| panic!("replies come back to {}: {error}", pod.name()));
        let (_, from) = listener.accept().expect("a connection");
        assert_eq!(from.ip(), IpAddr::from(ADDRESS), "the source of what {} opens", pod.name());
    }
    for capture in &wrong {
        assert_eq!(to_client(capture), BTreeSet::new(), "nothing leaves by the main network");
    }
    for agent in &agents {
        eventually_equal("there is no problem, of the filter neither", secs(30), &String::new(), || problems(agent));
    }

    // The interface still has the Node's own address, which crier gave it.
    for (node, agent) in site.nodes.iter().zip(&agents) {
        node.ip("link delete red");
        eventually(&format!("{} has the VRF again", agent.node()), secs(20), || {
            let shown = node.ip("link show dev eth1");
            if shown.contains("master red") { Ok(()) } else { Err(problems(agent)) }
        });
    }
    gets_both(&client, "once the VRFs are back");
}
