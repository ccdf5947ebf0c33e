//! Outbound connections of pods leave with their Service's address also where the owner is on another link: it gets there by a tunnel, over
//! IPv4 and over IPv6, and nothing else comes out of the tunnel or passes it by.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use rack::capture::Capture;
use rack::crier::Crier;
use rack::egress::{ADDRESSES, Flows, PORT, ends, fresh, leaks, loads_again, rows, socket};
use rack::lan::problems;
use rack::packet::Mac;
use rack::{
    Manifests, Namespace, Need, Node, Pod, Rack, Racks, Service, bird, eventually, eventually_equal, millis, secs,
    throughout,
};

const NEEDS: [Need; 5] = [Need::Namespaces, Need::Nft, Need::Bird, Need::Crier, Need::LinkType("vxlan")];

const DEVICE: &str = "crier-egress";

/// As the default of `[egress] tunnel-port`.
const TUNNEL: u16 = 4790;

/// A CNI whose routers know the way to pods, and that masquerades what pods send to the outside.
const CNI: &str = "table inet cni {
  chain post { type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
    ip6 saddr fd44::/48 ip6 daddr != fd44::/48 masquerade
  }
}
";

/// Which addresses the Nodes have, and so what the tunnel goes over.
#[derive(Clone, Copy, PartialEq)]
enum Underlay {
    V4,
    V6,
}

/// Three nodes in subnets of their own with a pod of the Service `web` each, and a router that hears them by BGP.
struct Scene {
    racks: Racks,
    manifests: Manifests,
    pods: Vec<Pod>,
    underlay: Underlay,
    _bird: bird::Bird,
}

impl Scene {
    fn new(rack: &Rack, underlay: Underlay) -> Scene {
        let racks = Racks::new(rack, 3);
        let manifests = Manifests::new(rack);
        let cni = rack.write("cni.nft", CNI);
        let start = |node: &Node| {
            // No packet comes in by a link that its answer would not leave by.
            node.sysctl("net/ipv4/conf/all/rp_filter", "1");
            node.sh(&format!("nft -f {}", cni.display()));
            node.pod(&format!("pod-on-{}", node.name()), &[80])
        };
        let pods: Vec<Pod> = racks.nodes.iter().map(start).collect();
        let session = |node: &Node| {
            let name = node.name().replace('-', "");
            format!(
                "protocol bgp {name}v4 {{ local as 64512; neighbor {} as 64513; ipv4 {{ import all; export none; }}; }}\n\
                 protocol bgp {name}v6 {{ local as 64512; neighbor {} as 64513; ipv6 {{ import all; export none; }}; }}\n",
                node.address, node.address6
            )
        };
        let sessions: String = racks.nodes.iter().map(session).collect();
        let bird = racks.router.bird(&format!("router id 198.51.100.1;{}{sessions}", bird::KERNEL));
        let scene = Scene { racks, manifests, pods, underlay, _bird: bird };
        scene.nodes(&[]);
        scene
    }

    /// The Nodes, without those of these indices: they are not Ready.
    fn nodes(&self, dead: &[usize]) {
        let mut nodes = String::new();
        for (number, node) in self.racks.nodes.iter().enumerate() {
            let [range, range6] = node.pod_ranges();
            let address = match self.underlay {
                Underlay::V4 => IpAddr::from(node.address),
                Underlay::V6 => node.address6.into(),
            };
            let ready = if dead.contains(&number) { "False" } else { "True" };
            nodes += &format!(
                "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {} }}\nspec: {{ podCIDRs: [\"{range}\", \"{range6}\"] }}\n\
                 status: {{ addresses: [{{ type: InternalIP, address: \"{address}\" }}], \
                 conditions: [{{ type: Ready, status: \"{ready}\" }}] }}\n",
                node.name()
            );
        }
        self.manifests.write("nodes.yaml", &nodes);
    }

    fn serve(&self) {
        let service = Service::new("web").addresses(&ADDRESSES.join(",")).annotation("crier.dev/egress", "service-ip");
        self.manifests.service(&self.pods.iter().fold(service, Service::pod));
    }

    fn agent(&self, number: usize) -> Crier {
        self.agent_with(number, "")
    }

    /// Starts crier on the node of that index with more lines at the end of its file.
    fn agent_with(&self, number: usize, more: &str) -> Crier {
        let node = &self.racks.nodes[number];
        let place = number + 1;
        let peer = |name: &str, address: &str| {
            format!(
                "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{address}\"\nasn = 64512\nconnect-retry-time = \"1s\"\n"
            )
        };
        let configuration = format!(
            "[api]\nlisten = \"\"\n{}[[pool]]\nname = \"public\"\naddresses = [\"{}/32\", \"{}/128\"]\n[bgp]\nasn = 64513\n{}{}\
             [[bgp.advertisement]]\n{more}",
            self.manifests.section(),
            ADDRESSES[0],
            ADDRESSES[1],
            peer("tor4", &format!("10.1.{place}.1")),
            peer("tor6", &format!("fd01:{place}::1")),
        );
        node.crier(node.name(), &configuration)
    }

    fn agents(&self) -> Vec<Crier> {
        (0..self.racks.nodes.len()).map(|number| self.agent(number)).collect()
    }

    /// The node that owns an address as the router sees it.
    fn owner(&self, address: &str) -> usize {
        let length = if address.contains(':') { 128 } else { 32 };
        let prefix = format!("{address}/{length}");
        eventually(&format!("one node alone announces {prefix}"), secs(60), || {
            let hops = self.racks.router.next_hops(&prefix);
            let is_hop = |node: &Node| hops.contains(&node.address.into()) || hops.contains(&node.address6.into());
            let owner = self.racks.nodes.iter().position(is_hop).filter(|_| hops.len() == 1);
            owner.ok_or_else(|| format!("{hops:?}"))
        })
    }

    /// Waits until every one of these agents says how pods leave: at the owner itself, elsewhere by the tunnel.
    fn leave_by(&self, agents: &[(usize, &Crier)], owners: [usize; 2]) {
        for (number, agent) in agents {
            let path = |owner: usize| if owner == *number { "local" } else { "tunnel" };
            let expected: Vec<String> =
                ADDRESSES.iter().zip(owners).map(|(address, owner)| format!("{address} {} 3", path(owner))).collect();
            eventually_equal(&format!("egress on {}", agent.node()), secs(60), &expected, || rows(agent));
        }
    }

    /// Captures at the client and at every link of the router: whatever leaves a node and is no tunnel's is seen there.
    fn captures(&self) -> Vec<(Capture, Mac)> {
        let ports = self.racks.uplinks.iter().chain([&self.racks.client.port]);
        ports.map(|port| (port.capture(), port.mac())).collect()
    }

    fn client(&self, v6: bool) -> IpAddr {
        if v6 { self.racks.client.address6.into() } else { self.racks.client.address.into() }
    }
}

fn only(address: &str) -> BTreeSet<String> {
    [address.to_owned()].into()
}

#[track_caller]
fn served(what: &str, ends: &[UdpSocket; 2]) {
    for (end, address) in ends.iter().zip(ADDRESSES) {
        eventually_equal(&format!("{what}: packets come from {address}"), secs(60), &only(address), || fresh(end));
    }
}

/// Opens a connection from the pod, with the Service's address as its source, and moves a few megabytes each way.
#[track_caller]
fn moves_much(scene: &Scene, pod: &Pod, v6: bool) {
    const MUCH: usize = 4 << 20;
    let any: SocketAddr = (scene.client(v6), 0).into();
    // A port of its own each time: a process that another test starts may hold the last listener until it runs its program.
    let listener = scene.racks.client.run(|| TcpListener::bind(any)).expect("the namespace is ours");
    let to = listener.local_addr().expect("it is bound");
    let mut near = pod.run(|| TcpStream::connect_timeout(&to, secs(20))).expect("a connection, so replies come back");
    let (mut far, from) = listener.accept().expect("a connection");
    assert_eq!(from.ip().to_string(), ADDRESSES[usize::from(v6)], "the source of a connection of {}", pod.name());
    for end in [&near, &far] {
        end.set_read_timeout(Some(secs(20))).expect("a socket takes a timeout");
        end.set_write_timeout(Some(secs(20))).expect("a socket takes a timeout");
    }
    moved(&mut near, &mut far, MUCH, "upload");
    moved(&mut far, &mut near, MUCH, "download");
}

#[track_caller]
fn moved(writer: &mut TcpStream, reader: &mut TcpStream, much: usize, what: &str) {
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(&vec![7; much]).unwrap_or_else(|error| panic!("{what}: {error}")));
        let mut read = vec![0; much];
        reader.read_exact(&mut read).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(read.iter().all(|octet| *octet == 7), "{what}");
    });
}

fn leaves_by_the_tunnel(underlay: Underlay) {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, underlay);
    let racks = &scene.racks;
    let mut agents = scene.agents();
    let outside = ends(&racks.client);
    let captures = scene.captures();
    scene.serve();
    let owners = ADDRESSES.map(|address| scene.owner(address));
    let all: Vec<(usize, &Crier)> = agents.iter().enumerate().collect();
    scene.leave_by(&all, owners);
    let sender = (0..racks.nodes.len()).find(|number| !owners.contains(number)).expect("three nodes, two addresses");
    let row = &agents[sender].json("egress")["services"][0];
    let why = format!("{} is not on a link of this node", racks.nodes[owners[0]].name());
    assert_eq!(row["reason"], why, "{row}");
    // The pods' links take 1500 octets, and the tunnel less.
    let mtu = if underlay == Underlay::V4 { 1464 } else { 1444 };
    eventually("doctor tells the MTU of the tunnel", secs(20), || {
        let told = String::from_utf8_lossy(&agents[sender].verb("doctor").stdout).into_owned();
        if told.contains(&format!("an MTU of {mtu}")) { Ok(()) } else { Err(told) }
    });
    let flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &racks.client)).collect();
    served("at first", &outside);
    for pod in &scene.pods {
        for v6 in [false, true] {
            moves_much(&scene, pod, v6);
        }
    }
    assert_eq!(leaks(&captures), BTreeSet::new(), "at first");
    racks.nodes.iter().for_each(|node| loads_again(&rack, node));

    // The device goes by hand, at a node that sends and at the one that receives.
    for number in [sender, owners[0]] {
        let node = &racks.nodes[number];
        let before = index(node);
        node.ip(&format!("link del {DEVICE}"));
        eventually("the device is made again", secs(20), || match index(node) {
            Some(index) if Some(index) != before => Ok(()),
            other => Err(format!("{other:?}")),
        });
        served("after the device was deleted", &outside);
        moves_much(&scene, &scene.pods[sender], false);
    }
    assert_eq!(leaks(&captures), BTreeSet::new(), "after the device was deleted");

    // Another program makes the filter strict on the device too, as a service for sysctls does.
    let node = &racks.nodes[owners[0]];
    node.sysctl(&format!("net/ipv4/conf/{DEVICE}/rp_filter"), "1");
    eventually("the filter is loose again", secs(30), || {
        let value = node.sh(&format!("cat /proc/sys/net/ipv4/conf/{DEVICE}/rp_filter"));
        if value.trim() == "2" { Ok(()) } else { Err(value) }
    });
    assert_eq!(node.sh("cat /proc/sys/net/ipv4/conf/all/rp_filter").trim(), "1", "the host's own is as it was");

    // The owner dies, and its Node is not Ready any more.
    agents[owners[0]].kill();
    scene.nodes(&[owners[0]]);
    let heirs = eventually("the other nodes own both addresses", secs(60), || {
        let heirs = ADDRESSES.map(|address| scene.owner(address));
        if heirs.contains(&owners[0]) { Err(format!("{heirs:?}")) } else { Ok(heirs) }
    });
    let living: Vec<(usize, &Crier)> = agents.iter().enumerate().filter(|(number, _)| *number != owners[0]).collect();
    scene.leave_by(&living, heirs);
    drop(flows);
    let living_pods = scene.pods.iter().enumerate().filter(|(number, _)| *number != owners[0]);
    let flows: Vec<Flows> = living_pods.clone().map(|(_, pod)| Flows::start(pod, &racks.client)).collect();
    served("after the death of the owner", &outside);
    for (_, pod) in living_pods {
        moves_much(&scene, pod, false);
        moves_much(&scene, pod, true);
    }
    assert_eq!(leaks(&captures), BTreeSet::new(), "after the death of the owner");
    drop(flows);

    // Only the command takes the device away.
    let agent = &mut agents[heirs[0]];
    let node = &racks.nodes[heirs[0]];
    agent.stop(secs(10));
    assert!(index(node).is_some(), "the device stays when the agent stops");
    let cleaned = agent.verb(&format!("cleanup --config {}", agent.file().display()));
    assert!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    assert_eq!(index(node), None, "and is gone after crier cleanup");
}

/// Input: pods that a policy keeps ICMP from, so that none learns of the tunnel's MTU.
#[test]
fn tcp_goes_through_the_tunnel_also_where_no_icmp_reaches_the_pods() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, Underlay::V4);
    let agents = scene.agents();
    let outside = ends(&scene.racks.client);
    scene.serve();
    let owners = ADDRESSES.map(|address| scene.owner(address));
    let all: Vec<(usize, &Crier)> = agents.iter().enumerate().collect();
    scene.leave_by(&all, owners);
    let flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &scene.racks.client)).collect();
    served("at first", &outside);
    drop(flows);
    for pod in &scene.pods {
        for words in [
            "add table inet deaf",
            "add chain inet deaf input { type filter hook input priority 0 ; }",
            "add rule inet deaf input icmp type destination-unreachable drop",
            "add rule inet deaf input icmpv6 type packet-too-big drop",
        ] {
            pod.sh(&format!("nft {words}"));
        }
    }
    let senders = (0..scene.pods.len()).filter(|number| !owners.contains(number));
    for pod in senders.map(|number| &scene.pods[number]) {
        for v6 in [false, true] {
            moves_much(&scene, pod, v6);
        }
    }
}

/// The index of the tunnel's device, where there is one.
fn index(node: &Namespace) -> Option<u64> {
    let links = node.ip_json("link show");
    let link = links.as_array()?.iter().find(|link| link["ifname"] == DEVICE)?;
    link["ifindex"].as_u64()
}

#[test]
fn pods_of_nodes_on_other_links_leave_by_the_owner_over_ipv4() {
    leaves_by_the_tunnel(Underlay::V4);
}

#[test]
fn pods_of_nodes_on_other_links_leave_by_the_owner_over_ipv6() {
    leaves_by_the_tunnel(Underlay::V6);
}

/// A datagram of IPv4 with a packet of the tunnel in it would come from `from`: VXLAN-GPE around UDP from `source` to `to`.
fn forged(source: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(to)) = (source, to) else { panic!("IPv4") };
    // The flags I and P, the next protocol IPv4, the identifier 1.
    let mut octets = vec![0x0c, 0, 0, 1, 0, 0, 1, 0];
    let payload = b"forged";
    let length = u16::try_from(20 + 8 + payload.len()).expect("it is short");
    let mut header = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&length.to_be_bytes());
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&to.octets());
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("ten words of carry fit");
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    octets.extend(header);
    // From 5000 to PORT, without a checksum.
    octets.extend(5000_u16.to_be_bytes());
    octets.extend(PORT.to_be_bytes());
    octets.extend((length - 20).to_be_bytes());
    octets.extend([0, 0]);
    octets.extend(payload);
    octets
}

#[test]
fn nothing_comes_out_of_the_tunnel_but_packets_of_egress_pods_from_other_nodes() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, Underlay::V4);
    let racks = &scene.racks;
    let agents = scene.agents();
    scene.serve();
    let owners = ADDRESSES.map(|address| scene.owner(address));
    scene.leave_by(&agents.iter().enumerate().collect::<Vec<_>>(), owners);
    let owner = &racks.nodes[owners[0]];
    let other = (owners[0] + 1) % racks.nodes.len();
    let (node, pod) = (&racks.nodes[other], &scene.pods[other]);
    eventually("the owner has its end", secs(20), || index(owner).ok_or("no device"));

    let end = socket(&racks.client, racks.client.address.into(), PORT);
    let to = (IpAddr::from(owner.address), TUNNEL);
    let pod_address = IpAddr::from(pod.address);
    // What this test calls forged passes when it comes from a Node's address: so it is the filter that keeps the rest out.
    let honest = socket(node, node.address.into(), 0);
    eventually_equal("a packet from a Node's address leaves with the Service's", secs(20), &only(ADDRESSES[0]), || {
        honest.send_to(&forged(pod_address, racks.client.address.into()), to).expect("there is a route");
        fresh_after_sending(&end)
    });
    let silent = |what: &str, from: &UdpSocket, end: &UdpSocket, packet: &[u8]| {
        throughout(what, millis(1500), || {
            from.send_to(packet, to).expect("there is a route");
            let heard = fresh_after_sending(end);
            if heard.is_empty() { Ok(()) } else { Err(format!("{heard:?}")) }
        });
    };
    let stranger = socket(&racks.client, racks.client.address.into(), 0);
    let packet = forged(pod_address, racks.client.address.into());
    silent("a stranger's packet goes nowhere", &stranger, &end, &packet);
    // A node's own pod that is of no Service with egress, and one that nobody knows.
    for source in ["10.244.9.9", "10.1.3.13", "198.51.100.77"] {
        let packet = forged(source.parse().expect("an address"), racks.client.address.into());
        silent(&format!("a packet of {source} goes nowhere"), &honest, &end, &packet);
    }
    // To the cluster nothing comes by the tunnel: to a pod, and to the host itself.
    let inside = &scene.pods[owners[0]];
    for (host, address) in
        [(Namespace::clone(inside), IpAddr::from(inside.address)), (Namespace::clone(owner), owner.address.into())]
    {
        let end = socket(&host, address, PORT);
        silent(&format!("a packet to {address} goes nowhere"), &honest, &end, &forged(pod_address, address));
    }
}

/// Who was heard since a packet was sent a moment ago.
fn fresh_after_sending(end: &UdpSocket) -> BTreeSet<String> {
    let mut sources = BTreeSet::new();
    while let Ok((_, from)) = end.recv_from(&mut [0; 64]) {
        sources.insert(from.ip().to_string());
    }
    sources
}

#[test]
fn a_device_of_the_name_that_is_another_programs_is_named_and_left_alone_and_the_pods_are_held() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, Underlay::V4);
    let racks = &scene.racks;
    for node in &racks.nodes {
        node.ip(&format!("link add {DEVICE} type veth peer name other-end"));
    }
    let agents = scene.agents();
    scene.serve();
    let owners = ADDRESSES.map(|address| scene.owner(address));
    let sender = (0..racks.nodes.len()).find(|number| !owners.contains(number)).expect("three nodes, two addresses");
    let (node, agent) = (&racks.nodes[sender], &agents[sender]);
    let held: Vec<String> = ADDRESSES.map(|address| format!("{address} held 3")).to_vec();
    eventually_equal("the pods are held", secs(60), &held, || rows(agent));
    let told = problems(agent);
    assert!(told.contains(&format!("{DEVICE} is a link of kind veth of another program")), "{told}");
    assert!(node.ip(&format!("-d link show {DEVICE}")).contains("veth"), "it is as it was");
    // Once it is gone, there is the tunnel.
    for node in &racks.nodes {
        node.ip(&format!("link del {DEVICE}"));
    }
    scene.leave_by(&agents.iter().enumerate().collect::<Vec<_>>(), owners);
    let outside = ends(&racks.client);
    let _flows: Vec<Flows> = scene.pods.iter().map(|pod| Flows::start(pod, &racks.client)).collect();
    served("after the name was free", &outside);
    assert!(!problems(agent).contains("another program"), "{}", problems(agent));
}

#[test]
fn without_a_tunnel_an_owner_on_another_link_is_refused_by_name() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, Underlay::V4);
    let nodes = 0..scene.racks.nodes.len();
    let agents: Vec<Crier> = nodes.map(|number| scene.agent_with(number, "[egress]\ntunnel = \"\"\n")).collect();
    scene.serve();
    let owners = ADDRESSES.map(|address| scene.owner(address));
    let sender = (0..3).find(|number| !owners.contains(number)).expect("three nodes, two addresses");
    let held: Vec<String> = ADDRESSES.map(|address| format!("{address} held 3")).to_vec();
    eventually_equal("the pods are held", secs(60), &held, || rows(&agents[sender]));
    let owner = scene.racks.nodes[owners[0]].name();
    let told = problems(&agents[sender]);
    assert!(told.contains(&format!("{owner} has no IPv4 address on a link of this node")), "{told}");
    assert!(scene.racks.nodes.iter().all(|node| index(node).is_none()), "nobody has a device");
}

#[test]
fn a_tunnel_that_nobody_needs_any_more_goes_also_where_the_agent_was_away_meanwhile() {
    let Some(rack) = Rack::for_test(&NEEDS) else { return };
    let scene = Scene::new(&rack, Underlay::V4);
    let nodes = &scene.racks.nodes;
    let mut agents = scene.agents();
    scene.serve();
    let owners = ADDRESSES.map(|address| scene.owner(address));
    scene.leave_by(&agents.iter().enumerate().collect::<Vec<_>>(), owners);
    let has_device = |expected: [bool; 3]| {
        eventually_equal("which nodes have the device", secs(30), &expected.to_vec(), || {
            nodes.iter().map(|node| index(node).is_some()).collect()
        });
    };
    has_device([true; 3]);
    agents[0].stop(secs(10));
    scene.manifests.remove("web.yaml");
    has_device([true, false, false]);
    agents[0] = scene.agent(0);
    has_device([false; 3]);
}
