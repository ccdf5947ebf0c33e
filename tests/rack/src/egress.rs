//! Pods of a Service with egress that send to the outside, and what leaves: the scene of the tests of egress.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::capture::Capture;
use crate::crier::Crier;
use crate::lan::Lan;
use crate::namespace::Namespace;
use crate::packet::Mac;
use crate::rack::Rack;
use crate::service::Service;
use crate::site::{Host, Pod};
use crate::wait::{eventually, eventually_equal, millis, now, rest, secs};

/// The Service's address of IPv4.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 100);
/// Those of both families.
pub const ADDRESSES: [&str; 2] = ["192.168.35.100", "fd35::100"];
/// Where the clients are sent to.
pub const PORT: u16 = 9000;

/// A CNI that masquerades what its pods send to the outside, as flannel does it.
const CNI: &str = "table inet cni {
  chain post { type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
    ip6 saddr fd44::/48 ip6 daddr != fd44::/48 masquerade
  }
}
";

/// Two nodes, each with a pod of the Service `web` and a CNI that masquerades.
pub struct Scene {
    pub pods: Vec<Pod>,
    pub lan: Lan,
    pub configuration: String,
}

impl Scene {
    pub fn new(rack: &Rack) -> Scene {
        Scene::of(rack, 2)
    }

    /// The same with so many nodes, and as many pods.
    pub fn of(rack: &Rack, nodes: u16) -> Scene {
        let lan = Lan::new(rack, nodes);
        label(&lan, &vec![""; usize::from(nodes)]);
        let cni = rack.write("cni.nft", CNI);
        let pods = lan.site.nodes.iter().enumerate().map(|(number, node)| {
            node.sh(&format!("nft -f {}", cni.display()));
            node.pod(&format!("web-{number}"), &[80])
        });
        let pods = pods.collect();
        let configuration = lan.configuration();
        Scene { pods, lan, configuration }
    }

    /// The Service of all pods.
    pub fn serve(&self, value: &str) {
        self.serve_with(&[("egress", value)]);
    }

    /// The Service of all pods with these annotations below `crier.dev/`.
    pub fn serve_with(&self, annotations: &[(&str, &str)]) {
        self.serve_at(&ADDRESSES.join(","), annotations);
    }

    /// The same with other addresses.
    pub fn serve_at(&self, addresses: &str, annotations: &[(&str, &str)]) {
        let service = Service::new("web").addresses(addresses).selects("web");
        let annotated =
            |service: Service, (name, value): &(&str, &str)| service.annotation(&format!("crier.dev/{name}"), value);
        let service = annotations.iter().fold(service, annotated);
        self.lan.manifests.service(&self.pods.iter().fold(service, Service::pod));
    }

    /// The Pods of all pods, as a Service that selects them asks for.
    pub fn tell_pods(&self) {
        self.lan.manifests.pods(&self.pods.iter().map(|pod| (pod, "web")).collect::<Vec<_>>());
    }

    /// Gives the Nodes these labels (`"rack: a"`), one text for each.
    pub fn label(&self, labels: &[&str]) {
        label(&self.lan, labels);
    }

    /// Waits until all these agents say how the pods leave by the owner of that index.
    #[track_caller]
    pub fn leave_by(&self, agents: &[impl Borrow<Crier>], owner: usize) {
        for (number, agent) in agents.iter().map(Borrow::borrow).enumerate() {
            let path = if number == owner { "local" } else { "routed" };
            let expected: Vec<String> =
                ADDRESSES.map(|address| format!("{address} {path} {}", self.pods.len())).to_vec();
            eventually_equal(&format!("egress on {}", agent.node()), secs(20), &expected, || rows(agent));
        }
    }

    /// The end of a UDP or TCP path outside of the cluster.
    pub fn client(&self, v6: bool) -> SocketAddr {
        let client = &self.lan.site.client;
        let address = if v6 { IpAddr::from(client.address6) } else { client.address.into() };
        (address, PORT).into()
    }
}

fn label(lan: &Lan, labels: &[&str]) {
    let mut nodes = String::new();
    for (node, labels) in lan.site.nodes.iter().zip(labels) {
        let [range, range6] = node.pod_ranges();
        nodes += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {}, labels: {{ {labels} }} }}\n\
             spec: {{ podCIDRs: [\"{range}\", \"{range6}\"] }}\n\
             status: {{ addresses: [{{ type: InternalIP, address: \"{}\" }}, {{ type: InternalIP, address: \"{}\" }}] }}\n",
            node.name(),
            node.address,
            node.address6
        );
    }
    lan.manifests.write("nodes.yaml", &nodes);
}

/// `crier egress`, a line for each address.
pub fn rows(agent: &Crier) -> Vec<String> {
    let Ok(report) = agent.try_json("egress") else { return Vec::new() };
    let text = |row: &Value| {
        let word = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", word("address"), word("path"), row["pods"])
    };
    report["services"].as_array().into_iter().flatten().map(text).collect()
}

/// A UDP socket that waits a moment for what it is to receive.
pub fn socket(host: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    // One that was closed just now may be there yet.
    let socket = eventually("the port is free", secs(5), || {
        host.run(|| UdpSocket::bind((address, port))).map_err(|error| error.to_string())
    });
    socket.set_read_timeout(Some(millis(100))).expect("a socket takes a timeout");
    socket
}

/// Datagrams of both families from every pod, one of each every millisecond, from a new port every now and then.
pub struct Senders {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Senders {
    pub fn start(scene: &Scene) -> Senders {
        let stop = Arc::new(AtomicBool::new(false));
        let sender = |(pod, v6): (&Pod, bool)| {
            let (to, stop) = (scene.client(v6), stop.clone());
            let address = if v6 { IpAddr::from(pod.address6) } else { pod.address.into() };
            let pod = Namespace::clone(pod);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let socket = socket(&pod, address, 0);
                    for _ in 0..100 {
                        // What is refused or dropped is what the test is about.
                        let _ = socket.send_to(b"egress", to);
                        rest(millis(1));
                    }
                }
            })
        };
        let threads = scene.pods.iter().flat_map(|pod| [(pod, false), (pod, true)]).map(sender).collect();
        Senders { stop, threads }
    }

    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a sender does not panic"));
    }
}

/// Datagrams of one flow of each family from a pod to a host, one of each every few milliseconds, always from the same ports.
/// Dropping it ends it.
pub struct Flows {
    stop: Arc<AtomicBool>,
}

impl Flows {
    pub fn start(pod: &Pod, host: &Host) -> Flows {
        let stop = Arc::new(AtomicBool::new(false));
        let ends: [(IpAddr, IpAddr); 2] =
            [(pod.address.into(), host.address.into()), (pod.address6.into(), host.address6.into())];
        for (from, to) in ends {
            let (socket, stop) = (socket(pod, from, 0), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // What is refused or dropped is what the tests are about.
                    let _ = socket.send_to(b"egress", (to, PORT));
                    rest(millis(5));
                }
            });
        }
        Flows { stop }
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Where a host hears what is sent to it, of IPv4 and of IPv6.
pub fn ends(host: &Host) -> [UdpSocket; 2] {
    [IpAddr::from(host.address), host.address6.into()].map(|address| socket(host, address, PORT))
}

/// The sources of what comes from now on, for a moment.
pub fn fresh(end: &UdpSocket) -> BTreeSet<String> {
    let mut buffer = [0; 64];
    end.set_nonblocking(true).expect("a socket can be asked not to wait");
    while end.recv_from(&mut buffer).is_ok() {}
    end.set_nonblocking(false).expect("and to wait");
    let (begin, mut sources) = (now(), BTreeSet::new());
    while begin.elapsed() < millis(250) {
        sources.extend(end.recv_from(&mut buffer).map(|(_, from)| from.ip().to_string()));
    }
    sources
}

/// A pod that pings a host. Dropping it ends it.
pub struct Pinging {
    stop: Arc<AtomicBool>,
}

impl Pinging {
    pub fn start(pod: &Pod, to: impl Into<IpAddr>, every: Duration) -> Pinging {
        use socket2::{Domain, Protocol, Socket, Type};
        let (to, stop) = (to.into(), Arc::new(AtomicBool::new(false)));
        let ends = stop.clone();
        let (domain, protocol, request) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, ECHO_REQUEST),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, ECHO_REQUEST_V6),
        };
        let open = || Socket::new(domain, Type::DGRAM, Some(protocol));
        let socket = pod.run(open).expect("the rack allows pings");
        std::thread::spawn(move || {
            // An echo request; the kernel fills in the identifier and the sum.
            let echo = [request, 0, 0, 0, 0, 0, 0, 1];
            while !ends.load(Ordering::Relaxed) {
                let _ = socket.send_to(&echo, &SocketAddr::from((to, 0)).into());
                rest(every);
            }
        });
        Pinging { stop }
    }
}

impl Drop for Pinging {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The types of an echo request of ICMP and of ICMPv6.
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// The sources of all echo requests so far, of both families.
pub fn pings(capture: &Capture) -> BTreeSet<String> {
    let mut sources = BTreeSet::new();
    capture.each(|frame| {
        sources.extend(Outer::of(&frame.bytes).filter(Outer::is_echo_request).map(|it| it.source));
    });
    sources.iter().map(ToString::to_string).collect()
}

/// What the header of a packet without extensions says.
struct Outer<'a> {
    source: IpAddr,
    protocol: u8,
    payload: &'a [u8],
}

impl Outer<'_> {
    fn of(frame: &[u8]) -> Option<Outer<'_>> {
        match frame.get(12..14)? {
            [0x08, 0x00] => {
                let source: [u8; 4] = frame.get(26..30)?.try_into().ok()?;
                Some(Outer { source: source.into(), protocol: *frame.get(23)?, payload: frame.get(34..)? })
            }
            [0x86, 0xdd] => {
                let source: [u8; 16] = frame.get(22..38)?.try_into().ok()?;
                Some(Outer { source: source.into(), protocol: *frame.get(20)?, payload: frame.get(54..)? })
            }
            _ => None,
        }
    }

    fn is_echo_request(&self) -> bool {
        let kind = self.payload.first();
        (self.protocol == 1 && kind == Some(&ECHO_REQUEST)) || (self.protocol == 58 && kind == Some(&ECHO_REQUEST_V6))
    }

    /// What only the pods of the tests send to the outside.
    fn is_opened_by_pod(&self) -> bool {
        let to_port = self.payload.get(2..4).map(|port| u16::from_be_bytes([port[0], port[1]]));
        (matches!(self.protocol, 6 | 17) && to_port == Some(PORT)) || self.is_echo_request()
    }
}

/// Whose packets the client gets now.
pub fn heard(socket: &UdpSocket) -> BTreeSet<String> {
    let mut buffer = [0; 64];
    let mut sources = Vec::new();
    // More than the socket holds: the last of them were sent after this began.
    while sources.len() < 1000
        && let Ok((_, from)) = socket.recv_from(&mut buffer)
    {
        sources.push(from.ip().to_string());
    }
    let old = sources.len().saturating_sub(50);
    sources.into_iter().skip(old).collect()
}

/// The sources of what these hosts were sent from inside of the cluster and that is no Service's: of pods, and of nodes where a pod
/// opened it.
pub fn leaks(captures: &[(Capture, Mac)]) -> BTreeSet<String> {
    // Of each source, what it sent and whether a pod opened it: frames are many, and these are few.
    let mut seen: BTreeSet<(IpAddr, u8, bool)> = BTreeSet::new();
    for (capture, mac) in captures {
        capture.each(|frame| {
            let to_host = frame.bytes.get(..6) == Some(&mac.0[..]);
            let packet = Some(&frame.bytes).filter(|_| to_host).and_then(|bytes| Outer::of(bytes));
            seen.extend(packet.map(|it| (it.source, it.protocol, it.is_opened_by_pod())));
        });
    }
    let is_leak = |(source, _, opened_by_pod): &(IpAddr, u8, bool)| {
        let text = source.to_string();
        let of_pod = text.starts_with("10.244.") || text.starts_with("fd44:");
        of_pod || (*opened_by_pod && !ADDRESSES.contains(&text.as_str()))
    };
    let leaks = seen.into_iter().filter(is_leak);
    leaks.map(|(source, protocol, _)| format!("{source} protocol {protocol}")).collect()
}

/// `nft` takes the rules of this host as it lists them, as at a boot after they were saved.
#[track_caller]
pub fn loads_again(rack: &Rack, host: &Namespace) {
    let listed = host.sh("nft list ruleset");
    assert!(listed.contains("table inet crier "), "crier's table is there: {listed}");
    // That of the agent belongs to its socket.
    let file = rack.write("listed.nft", &listed.replace("table inet crier", "table inet saved"));
    host.sh(&format!("nft -c -f {}", file.display()));
}
