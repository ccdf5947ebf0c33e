//! What comes in to a Service by an extra network is answered by that network, from local and remote endpoints, under a strict
//! reverse path filter.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::lan::Lan;
use rack::net::{Port, Switch};
use rack::{Host, Metal, Namespace, Need, Pod, Rack, Service, Site, eventually, rest, secs};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x100);

/// A second network of the nodes, on their `eth1`, with the same router at its end, and a client behind that.
struct Second {
    /// Of each node: its cables to the first and to the second network.
    ports: Vec<[Port; 2]>,
    client: Host,
    _link: Switch,
}

/// What makes a network of the nodes an extra one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    /// A default route of a worse metric in the main table.
    Link,
    /// A `[[vrf]]` that crier makes.
    Vrf,
}

impl Extra {
    /// The `[[vrf]]` of a node, and what its pool has.
    fn configuration(self, node: usize) -> (String, &'static str) {
        let number = node + 10;
        match self {
            Extra::Link => (String::new(), ""),
            Extra::Vrf => (
                format!(
                    "[[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\n\
                     addresses = [\"192.0.2.{number}/24\", \"fd02::{number}/64\"]\nmanage = true\n\
                     routes = [{{ to = \"0.0.0.0/0\", via = \"192.0.2.1\" }}, {{ to = \"::/0\", via = \"fd02::1\" }}]\n"
                ),
                "vrf = \"red\"\n",
            ),
        }
    }

    fn needs(self, others: &[Need]) -> Vec<Need> {
        let of_vrf = (self == Extra::Vrf).then_some(Need::LinkType("vrf"));
        others.iter().copied().chain(of_vrf).collect()
    }
}

impl Second {
    fn new(rack: &Rack, site: &Site) -> Second {
        Second::of(rack, site, Extra::Link)
    }

    fn of(rack: &Rack, site: &Site, extra: Extra) -> Second {
        let link = rack.switch("second-link");
        link.plug(&site.router, "eth2", &["192.0.2.1/24", "fd02::1/64"]);
        let client = site.outside("outside");
        let mut ports = Vec::new();
        for (number, node) in site.nodes.iter().enumerate() {
            let number = number + 10;
            let addresses = [format!("192.0.2.{number}/24"), format!("fd02::{number}/64")];
            let addresses: Vec<&str> = addresses.iter().filter(|_| extra == Extra::Link).map(String::as_str).collect();
            let port = link.plug(node, "eth1", &addresses);
            if extra == Extra::Link {
                node.ip("route add default via 192.0.2.1 dev eth1 metric 200");
                node.ip("-6 route add default via fd02::1 dev eth1 metric 2048");
            }
            for link in ["eth0", "eth1", "pods"] {
                node.sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "1");
            }
            node.sysctl("net/ipv4/conf/eth1/src_valid_mark", "1");
            ports.push([node.port.clone(), port]);
        }
        Second { ports, client, _link: link }
    }
}

/// The sources of packets that a node sent by one of its links, of those that are a Service's.
fn sent(capture: &Capture, port: &Port) -> BTreeSet<IpAddr> {
    let source = |bytes: &[u8]| match bytes.get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(26..30)?).ok()?)),
        [0x86, 0xdd] => Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(22..38)?).ok()?)),
        _ => None,
    };
    let frames = capture.frames();
    let mac = port.mac();
    let own = frames.iter().filter(|frame| frame.bytes.get(6..12) == Some(&mac.0[..]));
    own.filter_map(|frame| source(&frame.bytes))
        .filter(|it| [ADDRESS.into(), IpAddr::from(ADDRESS6)].contains(it))
        .collect()
}

/// What kube-proxy would do: port 80 leads to a pod here, 81 to one of the other node, 82 to this host itself.
fn proxy(rack: &Rack, site: &Site, pods: &[Pod]) {
    let (node, [here, there]) = (site.node(0), [&pods[0], &pods[1]]);
    let rules = format!(
        "table inet kube {{\n chain services {{ type nat hook prerouting priority dstnat;\n\
         ip daddr {ADDRESS} tcp dport 80 dnat ip to {}:80\n ip daddr {ADDRESS} tcp dport 81 dnat ip to {}:80\n\
         ip daddr {ADDRESS} tcp dport 82 dnat ip to {}:80\n ip6 daddr {ADDRESS6} tcp dport 80 dnat ip6 to [{}]:80\n\
         ip6 daddr {ADDRESS6} tcp dport 81 dnat ip6 to [{}]:80\n ip6 daddr {ADDRESS6} tcp dport 82 dnat ip6 to [{}]:80\n }}\n\
         chain post {{ type nat hook postrouting priority srcnat;\n ip daddr {} masquerade\n ip6 daddr {} masquerade\n }}\n}}\n",
        here.address,
        there.address,
        node.address,
        here.address6,
        there.address6,
        node.address6,
        there.address,
        there.address6,
    );
    let file = rack.write("kube.nft", &rules);
    node.sh(&format!("nft -f {}", file.display()));
}

#[track_caller]
fn gets(client: &Namespace, to: SocketAddr, name: &str) {
    eventually(&format!("{} gets {to}", client.name()), secs(20), || {
        let answer = client.get(to).map_err(|error| error.to_string())?;
        if answer.name == name { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

/// What leads replies to the extra network.
const LEADING: [&str; 3] =
    ["-4 rule delete priority 1501", "-4 rule delete priority 1502", "-4 route flush table 6984"];

fn standalone(symmetric: bool, extra: Extra) {
    let Some(rack) = Rack::for_test(&extra.needs(&[Need::Namespaces, Need::Nft, Need::Crier])) else { return };
    let lan = Lan::new(&rack, 2);
    let second = Second::of(&rack, &lan.site, extra);
    let node = lan.site.node(0);
    let pods: Vec<Pod> = lan.site.nodes.iter().map(|node| node.pod(&format!("web-{}", node.name()), &[80])).collect();
    let _host = node.serve("host", &[80]);
    proxy(&rack, &lan.site, &pods);
    let of_node = |index: usize| {
        let (node, [range, range6]) = (lan.site.node(index), lan.site.node(index).pod_ranges());
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {} }}\nspec: {{ podCIDRs: [\"{range}\", \"{range6}\"] }}\n\
             status: {{ addresses: [{{ type: InternalIP, address: \"{}\" }}] }}\n",
            node.name(),
            node.address
        )
    };
    lan.manifests.write("nodes.yaml", &(of_node(0) + &of_node(1)));
    lan.manifests.service(&Service::new("web").anywhere().addresses(&format!("{ADDRESS},{ADDRESS6}")));
    let (of_vrf, of_pool) = extra.configuration(0);
    let agent = lan.agent_with(
        0,
        &format!(
            "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"second\"\naddresses = [\"{ADDRESS}/32\", \"{ADDRESS6}/128\"]\n{of_pool}\
             {of_vrf}[[l2]]\ninterfaces = [\"eth1\"]\n[pulse]\nkey-file = \"{}\"\n[egress]\nsymmetric-return = {symmetric}\n",
            lan.manifests.section(),
            lan.key.display()
        ),
    );
    agent.wait_ready(secs(30));
    let captures: Vec<(Capture, &Port)> = second.ports[0].iter().map(|port| (port.capture(), port)).collect();
    let clients = [&second.client, &lan.site.client];
    if !symmetric {
        // What the test is about happens without it: the client of the first network is answered by that, past the router.
        node.sysctl("net/ipv4/conf/eth1/rp_filter", "0");
        gets(clients[1], (IpAddr::from(ADDRESS), 80).into(), "web-node-1");
        rest(secs(1));
        assert!(sent(&captures[0].0, captures[0].1).contains(&ADDRESS.into()), "replies leave by eth0");
        assert!(!node.sh("nft list ruleset").contains("table inet crier"));
        return;
    }
    // A process of the host that is in no VRF takes nothing that came in by one.
    let ports = if extra == Extra::Vrf { 2 } else { 3 };
    for client in clients {
        for address in [IpAddr::from(ADDRESS), ADDRESS6.into()] {
            for (port, name) in [(80, "web-node-1"), (81, "web-node-2"), (82, "host")].into_iter().take(ports) {
                gets(client, (address, port).into(), name);
            }
        }
    }
    // Other programs take away what leads there. Of a VRF `vrfs.rs` shows it.
    let taken = if extra == Extra::Vrf { &[][..] } else { &LEADING[..] };
    for words in taken {
        node.ip(words);
    }
    gets(clients[0], (IpAddr::from(ADDRESS), 80).into(), "web-node-1");
    // A connection to the node itself is no Service's.
    gets(clients[1], (IpAddr::from(node.address), 80).into(), "host");
    let [by_first, by_second] = [&captures[0], &captures[1]].map(|(capture, port)| sent(capture, port));
    assert_eq!(by_second, [ADDRESS.into(), IpAddr::from(ADDRESS6)].into(), "replies leave by eth1");
    assert_eq!(by_first, BTreeSet::new(), "no reply leaves by eth0");
    if extra == Extra::Vrf {
        assert_eq!(rack::lan::problems(&agent), "");
        return;
    }
    // The network goes, and comes back.
    node.ip("route delete default via 192.0.2.1 dev eth1");
    node.ip("-6 route delete default via fd02::1 dev eth1");
    eventually("no rule is left", secs(10), || {
        let rules = node.ip("rule show");
        if rules.contains("fwmark") { Err(rules) } else { Ok(()) }
    });
    node.ip("route add default via 192.0.2.1 dev eth1 metric 200");
    gets(clients[0], (IpAddr::from(ADDRESS), 80).into(), "web-node-1");
    agent.stop(secs(10));
    let cleaned = agent.verb(&format!("cleanup --config {}", agent.file().display()));
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert!(!node.sh("nft list ruleset").contains("table inet crier"), "the table is gone after crier cleanup");
    let left = node.ip("rule show") + &node.ip("route show table all");
    assert!(!left.contains("fwmark") && !left.contains("table 69"), "{left}");
}

#[test]
fn replies_leave_by_the_network_of_the_request_from_pods_here_and_elsewhere_and_from_the_host() {
    standalone(true, Extra::Link);
}

/// The same where the extra network is a `[[vrf]]`.
#[test]
fn replies_leave_by_the_vrf_of_the_request_from_pods_here_and_elsewhere() {
    standalone(true, Extra::Vrf);
}

#[test]
fn without_symmetric_return_replies_leave_by_the_default_route() {
    standalone(false, Extra::Link);
}

/// A node with an extra network on `eth1`, of IPv4: an agent that answers for the address there, and a UDP port of the address that
/// leads to this host itself.
struct Alone {
    lan: Lan,
    second: Second,
    configuration: String,
}

impl Alone {
    fn new(rack: &Rack) -> Alone {
        let lan = Lan::new(rack, 1);
        let second = Second::new(rack, &lan.site);
        let node = lan.site.node(0);
        node.ip("-6 route delete default via fd02::1 dev eth1");
        let rules = format!(
            "table inet kube {{\n chain services {{ type nat hook prerouting priority dstnat;\n\
             ip daddr {ADDRESS} udp dport 90 dnat ip to {}:9090\n }}\n}}\n",
            node.address
        );
        node.sh(&format!("nft -f {}", rack.write("kube.nft", &rules).display()));
        lan.manifests.service(&Service::new("web").anywhere().addresses(&ADDRESS.to_string()));
        let configuration = format!(
            "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"second\"\naddresses = [\"{ADDRESS}/32\"]\n\
             [[l2]]\ninterfaces = [\"eth1\"]\n[pulse]\nkey-file = \"{}\"\n",
            lan.manifests.section(),
            lan.key.display()
        );
        Alone { lan, second, configuration }
    }

    fn node(&self) -> &Namespace {
        self.lan.site.node(0)
    }

    fn agent(&self) -> Crier {
        let agent = self.lan.agent_with(0, &self.configuration);
        agent.wait_ready(secs(30));
        agent
    }

    /// Waits until a table of crier's has the default route that contains `words`.
    #[track_caller]
    fn leads(&self, table: u32, words: &str) {
        let in_table = format!("table {table} ");
        eventually(&format!("table {table} leads {words}"), secs(10), || {
            let routes = self.node().ip("route show table all");
            let mut defaults = routes.lines().filter(|it| it.starts_with("default") && it.contains(&in_table));
            if defaults.any(|it| it.contains(words)) { Ok(()) } else { Err(routes) }
        });
    }

    /// The marks of crier's rules with the links that they are of.
    fn marks(&self) -> BTreeSet<String> {
        let rules = self.node().ip("rule show");
        let of_links = rules.lines().filter(|rule| rule.starts_with("1501:"));
        of_links.map(|rule| rule.split_whitespace().skip(3).take(4).collect::<Vec<_>>().join(" ")).collect()
    }
}

/// A quick down and up of the link, as when a NIC is reset, with the default route back at once.
#[test]
fn a_network_whose_link_goes_down_and_comes_back_at_once_still_answers_by_it() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let alone = Alone::new(&rack);
    let _agent = alone.agent();
    alone.leads(6984, "via 192.0.2.1 dev eth1");
    let batch = "link set eth1 down\nlink set eth1 up\nroute add default via 192.0.2.1 dev eth1 metric 200\n";
    let file = rack.write("flap.batch", batch);
    for _ in 0..25 {
        alone.node().ip(&format!("-batch {}", file.display()));
        rest(secs(1));
        alone.leads(6984, "via 192.0.2.1 dev eth1");
    }
}

/// Gateways outside of every subnet, and of the other family.
#[test]
fn a_gateway_on_the_link_and_one_of_ipv6_lead_replies_of_ipv4() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let alone = Alone::new(&rack);
    let node = alone.node();
    node.ip("route replace default via 172.31.1.1 dev eth1 onlink metric 200");
    let agent = alone.agent();
    alone.leads(6984, "via 172.31.1.1 dev eth1");
    assert_eq!(alone.marks(), ["fwmark 0xf00000/0xf00000 iif eth1".to_owned()].into());
    node.ip("-4 route replace default via inet6 fe80::1 dev eth1 metric 200");
    alone.leads(6984, "via inet6 fe80::1 dev eth1");
    // The way out of the node by a next hop of IPv6, and the extra network by one of IPv4.
    node.ip("route delete default via 192.168.35.1");
    node.ip("route replace default via 192.0.2.1 dev eth1 metric 200");
    node.ip("-4 route add default via inet6 fe80::1 dev eth0");
    alone.leads(6984, "via 192.0.2.1 dev eth1");
    assert!(node.ip("rule show").contains("lookup 6984"), "{}", node.ip("rule show"));
    let problems = agent.status()["problems"].to_string();
    assert!(!problems.contains("extra network"), "{problems}");
}

/// A default route to the link itself, as of PPP, of WireGuard, or with a router that answers for every address.
#[test]
fn a_default_route_without_a_next_hop_is_home_and_an_extra_network_as_others_are() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let alone = Alone::new(&rack);
    let node = alone.node();
    node.ip("route replace default dev eth0");
    let _agent = alone.agent();
    alone.leads(6984, "via 192.0.2.1 dev eth1");
    node.ip("route replace default via 192.168.35.1 dev eth0");
    node.ip("route delete default via 192.0.2.1 dev eth1 metric 200");
    node.ip("route add default dev eth1 metric 200");
    alone.leads(6984, "default dev eth1");
    alone.lan.site.router.sysctl("net/ipv4/conf/eth2/proxy_arp", "1");
    let server = node.run(|| UdpSocket::bind((alone.lan.site.node(0).address, 9090)).expect("a socket"));
    let client = alone.second.client.run(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(secs(2))).expect("a timeout");
    }
    eventually("an answer", secs(20), || {
        let said = |error: std::io::Error| error.to_string();
        client.send_to(b"hello", (ADDRESS, 90)).map_err(said)?;
        let mut text = [0; 16];
        let (length, from) = server.recv_from(&mut text).map_err(said)?;
        server.send_to(&text[..length], from).map_err(said)?;
        client.recv_from(&mut text).map_err(said).map(drop)
    });
}

/// What `wg-quick` does with AllowedIPs 0.0.0.0/0. The kernel puts rules without a priority in front of crier's.
#[test]
fn a_rule_of_another_program_that_leads_replies_away_is_named_while_it_does() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let alone = Alone::new(&rack);
    let node = alone.node();
    let agent = alone.agent();
    alone.leads(6984, "via 192.0.2.1 dev eth1");
    let named = |expected: bool| {
        eventually(&format!("the rule is named: {expected}"), secs(10), || {
            let problems = agent.status()["problems"].to_string();
            if problems.contains("led into table 51820") == expected { Ok(()) } else { Err(problems) }
        });
    };
    node.ip("rule add not fwmark 51820 table 51820");
    node.ip("rule add table main suppress_prefixlength 0");
    rest(secs(1));
    named(false);
    node.ip("route add default via 192.168.35.1 dev eth0 table 51820");
    named(true);
    node.ip("rule delete not fwmark 51820 table 51820");
    named(false);
    node.ip("rule add pref 32764 not fwmark 51820 table 51820");
    rest(secs(1));
    named(false);
}

/// The default route of the first network gets a worse metric than that of the second one, as NetworkManager does when
/// its check of the connectivity fails, while a client is connected by the second one; then the agent restarts.
#[test]
fn a_connection_goes_on_by_its_network_when_the_default_route_moves_to_it_and_a_restart_deals_no_numbers_anew() {
    let Some(rack) = Rack::for_test(&[Need::Namespaces, Need::Nft, Need::Crier]) else { return };
    let alone = Alone::new(&rack);
    let node = alone.node();
    let agent = alone.agent();
    alone.leads(6984, "via 192.0.2.1 dev eth1");
    let server = node.run(|| UdpSocket::bind((alone.lan.site.node(0).address, 9090)).expect("a socket"));
    let client = alone.second.client.run(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(secs(2))).expect("a timeout");
    }
    let talks = || {
        let said = |error: std::io::Error| error.to_string();
        client.send_to(b"hello", (ADDRESS, 90)).map_err(said)?;
        let mut text = [0; 16];
        let (length, from) = server.recv_from(&mut text).map_err(said)?;
        server.send_to(&text[..length], from).map_err(said)?;
        client.recv_from(&mut text).map_err(said).map(drop)
    };
    eventually("an answer", secs(20), talks);
    node.ip("route delete default via 192.168.35.1 dev eth0");
    node.ip("route add default via 192.168.35.1 dev eth0 metric 20100");
    alone.leads(6983, "via 192.168.35.1 dev eth0");
    alone.leads(6984, "via 192.0.2.1 dev eth1");
    let ports = &alone.second.ports[0];
    let captures: Vec<(Capture, &Port)> = ports.iter().map(|port| (port.capture(), port)).collect();
    for _ in 0..4 {
        talks().expect("the connection goes on");
    }
    rest(secs(1));
    let [by_first, by_second] = [&captures[0], &captures[1]].map(|(capture, port)| sent(capture, port));
    assert_eq!((by_first, by_second), (BTreeSet::new(), [ADDRESS.into()].into()), "replies leave by eth1");
    let marks = alone.marks();
    assert_eq!(marks.len(), 2, "{marks:?}");
    agent.stop(secs(10));
    let agent = alone.agent();
    rest(secs(2));
    assert_eq!(alone.marks(), marks, "numbers stay with their links");
    alone.leads(6983, "via 192.168.35.1 dev eth0");
    talks().expect("the connection goes on");
    drop(agent);
}

fn beside_kube_proxy(mode: &str, extra: Extra) {
    let Some(rack) = Rack::for_test(&extra.needs(&[Need::Kubernetes, Need::Iptables, Need::Crier])) else { return };
    let metal = Metal::in_mode(&rack, "192.168.35.0/24", 2, mode);
    let second = Second::of(&rack, &metal.site, extra);
    let _pods: Vec<Pod> = (0..2).map(|node| metal.pod(node, &format!("web-{node}"), "web", &[8080])).collect();
    let key = rack.write("pulse.key", "0123456789abcdef0123456789abcdef");
    let agent = |node: usize| {
        let (of_vrf, of_pool) = extra.configuration(node);
        metal.agent(
            node,
            &format!(
                "[[pool]]\nname = \"second\"\naddresses = [\"{ADDRESS}/32\"]\n{of_pool}{of_vrf}[[l2]]\ninterfaces = [\"eth1\"]\n\
                 [pulse]\nkey-file = \"{}\"\n",
                key.display()
            ),
        )
    };
    let _agents: Vec<Crier> = (0..2).map(agent).collect();
    let captures: Vec<(Capture, &Port)> = second.ports.iter().map(|[first, _]| (first.capture(), first)).collect();
    for policy in ["Cluster", "Local"] {
        let service = Service::new("web").selects("web").ports(&[(80, 8080)]).policy(policy);
        metal.try_apply(&service.object()).expect("the API server takes the Service");
        for client in [&second.client, &metal.site.client] {
            let to: SocketAddr = (IpAddr::from(ADDRESS), 80).into();
            eventually(&format!("{} gets the page under policy {policy}", client.name()), secs(40), || {
                // Under policy Cluster from the pods of both nodes.
                let names: BTreeSet<String> = (0..8).filter_map(|_| client.get(to).ok()).map(|it| it.name).collect();
                let wanted = if policy == "Cluster" { 2 } else { 1 };
                if names.len() == wanted { Ok(()) } else { Err(format!("{names:?}")) }
            });
        }
    }
    for (capture, port) in &captures {
        assert_eq!(sent(capture, port), BTreeSet::new(), "no reply leaves by eth0");
    }
}

#[test]
fn replies_leave_by_the_network_of_the_request_beside_kube_proxy_in_nftables_mode() {
    beside_kube_proxy("nftables", Extra::Link);
}

#[test]
fn replies_leave_by_the_network_of_the_request_beside_kube_proxy_in_iptables_mode() {
    beside_kube_proxy("iptables", Extra::Link);
}

#[test]
fn replies_leave_by_the_vrf_of_the_request_beside_kube_proxy_in_nftables_mode() {
    beside_kube_proxy("nftables", Extra::Vrf);
}

#[test]
fn replies_leave_by_the_vrf_of_the_request_beside_kube_proxy_in_iptables_mode() {
    beside_kube_proxy("iptables", Extra::Vrf);
}
