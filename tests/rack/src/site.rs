//! A whole site: nodes, a router and a client on one link, pods behind the nodes, another client behind the router.
//!
//! ```text
//!   outside ──── router .1    client .9    control plane .2    further hosts
//!                  │             │             │                   │
//!   ═══════════════╧═════════════╧═════════════╧═══════╤═══════════╧════  the link
//!                                          node-1 .11 ─┴─ node-2 .12 …
//!                                             │              │
//!                                 10.244.1.0/24 pods      10.244.2.0/24 pods
//! ```
//!
//! Nodes reach all pods; the router and the client reach none, so that only announced addresses lead there. All hosts
//! have an address of each family, and the router is everybody's default route.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::Mutex;

use crate::namespace::Namespace;
use crate::net::{Port, Switch, cable, wait_forwarding};
use crate::packet::Mac;
use crate::process::Process;
use crate::rack::Rack;
use crate::wait::millis;

const ROUTER: u16 = 1;
const CONTROL_PLANE: u16 = 2;
const CLIENT: u16 = 9;
const FIRST_NODE: u16 = 11;

/// All pods' addresses, for kube-proxy's `--cluster-cidr`.
pub const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd44::/48"];

/// Nodes, router and client on one link.
#[derive(Debug)]
pub struct Site {
    pub rack: Rack,
    pub link: Switch,
    pub router: Host,
    pub client: Host,
    pub nodes: Vec<Node>,
    subnet: Subnet,
}

/// A machine on the link; it is also its [`Namespace`].
#[derive(Clone, Debug)]
pub struct Host {
    namespace: Namespace,
    pub address: Ipv4Addr,
    pub address6: Ipv6Addr,
    /// Its cable to the link, on its `eth0`.
    pub port: Port,
}

/// A machine that forwards to pods of its own; it is also a [`Host`].
#[derive(Debug)]
pub struct Node {
    host: Host,
    /// Counts from 1; the third part of its pods' addresses.
    number: u16,
    pods: Mutex<u16>,
}

/// A process with a namespace and addresses of its own behind a node. Dropping it kills the process.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    name: String,
    /// The node's name.
    pub node: String,
    pub address: Ipv4Addr,
    pub address6: Ipv6Addr,
    pub process: Process,
}

#[derive(Clone, Copy, Debug)]
struct Subnet {
    base: Ipv4Addr,
    length: u8,
    base6: Ipv6Addr,
    length6: u8,
}

impl Site {
    /// Builds it: `nodes` nodes called `node-1`, `node-2`, … on a link with these two subnets
    /// (`"10.0.0.0/24"`, `"fd00::/64"`).
    ///
    /// # Panics
    /// When a subnet cannot be read, and whenever the kernel refuses something.
    #[track_caller]
    pub fn new(rack: &Rack, subnet: &str, subnet6: &str, nodes: u16) -> Site {
        let subnet = Subnet::read(subnet, subnet6);
        let link = rack.switch("link");
        let plug = |name: &str, number| subnet.plug(&link, rack.namespace(name), number);
        let router = subnet.plug(&link, rack.router("router"), ROUTER);
        let client = plug("client", CLIENT);
        let nodes: Vec<Node> = (1..=nodes)
            .map(|number| {
                Node::new(subnet.plug(&link, rack.router(&format!("node-{number}")), FIRST_NODE + number - 1), number)
            })
            .collect();
        for node in &nodes {
            for other in nodes.iter().filter(|other| other.number != node.number) {
                let [range, range6] = other.pod_ranges();
                node.ip(&format!("route add {range} via {}", other.address));
                node.ip(&format!("route add {range6} via {}", other.address6));
            }
        }
        Site { rack: rack.clone(), link, router, client, nodes, subnet }
    }

    /// The node of that index, counted from 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// One more host on the link, `number` being the last part of its addresses (not 1, 2, 9, or a node's).
    #[track_caller]
    pub fn host(&self, name: &str, number: u16) -> Host {
        self.subnet.plug(&self.link, self.rack.namespace(name), number)
    }

    /// The host for a control plane.
    #[track_caller]
    pub fn control_plane(&self) -> Host {
        self.host("control-plane", CONTROL_PLANE)
    }

    /// A client behind the router, on a link of its own with 198.51.100.0/24 and fd51::/64. One of them for a site.
    #[track_caller]
    pub fn outside(&self, name: &str) -> Host {
        let subnet = Subnet::read("198.51.100.0/24", "fd51::/64");
        let link = self.rack.switch("outside-link");
        link.plug(&self.router, "eth1", &["198.51.100.1/24", "fd51::1/64"]);
        subnet.plug(&link, self.rack.namespace(name), CLIENT)
    }
}

impl Site {
    /// Who answers on the link for an IPv4 address: nodes by name, others by `a foreign host, MAC`.
    pub fn answering(&self, address: Ipv4Addr) -> Vec<String> {
        let macs = self.client.who_has("eth0", address, millis(200));
        macs.into_iter().map(|mac| self.name_of(mac)).collect()
    }

    /// The node whose `eth0` has this address, as [`answering`](Self::answering) names it.
    pub fn name_of(&self, mac: Mac) -> String {
        let node = self.nodes.iter().find(|node| node.port.mac() == mac);
        node.map_or_else(|| format!("a foreign host, {mac}"), |node| node.name().to_owned())
    }
}

/// Nodes in subnets of their own, each behind the router, which has routes to the pods of all; and a client behind it that has none.
///
/// ```text
///   client .9 ════ router ════ node-1 10.1.1.11
///   198.51.100.0/24   ╚════════ node-2 10.1.2.12 …
/// ```
#[derive(Debug)]
pub struct Racks {
    pub router: Namespace,
    pub client: Host,
    pub nodes: Vec<Node>,
    /// The router's ends of the links to the nodes.
    pub uplinks: Vec<Port>,
}

impl Racks {
    #[track_caller]
    pub fn new(rack: &Rack, nodes: u16) -> Racks {
        let router = rack.router("router");
        let outside = Subnet::read("198.51.100.0/24", "fd51::/64");
        let link = rack.switch("outside");
        link.plug(&router, "eth0", &["198.51.100.1/24", "fd51::1/64"]);
        let client = outside.plug(&link, rack.namespace("client"), CLIENT);
        let (nodes, uplinks) = (1..=nodes)
            .map(|number| {
                let subnet = Subnet::read(&format!("10.1.{number}.0/24"), &format!("fd01:{number}::/64"));
                let link = rack.switch(&format!("rack-{number}"));
                let addresses = [format!("10.1.{number}.1/24"), format!("fd01:{number}::1/64")];
                let uplink = link.plug(&router, &format!("eth{number}"), &addresses.each_ref().map(String::as_str));
                let host = subnet.plug(&link, rack.router(&format!("node-{number}")), FIRST_NODE + number - 1);
                let node = Node::new(host, number);
                let [range, range6] = node.pod_ranges();
                router.ip(&format!("route add {range} via {}", node.address));
                router.ip(&format!("route add {range6} via {}", node.address6));
                (node, uplink)
            })
            .unzip();
        Racks { router, client, nodes, uplinks }
    }
}

impl Host {
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl Deref for Host {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Node {
    /// `number` counts from 1.
    #[track_caller]
    fn new(host: Host, number: u16) -> Node {
        let (gateway, gateway6) = (pod_address(number, 1), pod_address6(number, 1));
        host.bridge("pods", &[&format!("{gateway}/24"), &format!("{gateway6}/64")]);
        Node { host, number, pods: Mutex::new(1) }
    }

    /// The ranges of its pods' addresses, one of each family.
    pub fn pod_ranges(&self) -> [String; 2] {
        [format!("{}/24", pod_address(self.number, 0)), format!("{}/64", pod_address6(self.number, 0))]
    }

    /// Starts a pod here that answers HTTP on `ports` with its name.
    #[track_caller]
    pub fn pod(&self, name: &str, ports: &[u16]) -> Pod {
        self.pod_running(name, |namespace| namespace.serve(name, ports))
    }

    /// Starts a pod here whose process is what `start` starts in its namespace.
    #[track_caller]
    pub fn pod_running(&self, name: &str, start: impl FnOnce(&Namespace) -> Process) -> Pod {
        let number = {
            let mut pods = self.pods.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *pods += 1;
            *pods
        };
        let namespace = Namespace::create(name, self.rack().clone());
        let (address, address6) = (pod_address(self.number, number), pod_address6(self.number, number));
        let port = format!("pod{number}");
        cable(self, &port, &namespace, "eth0");
        self.ip(&format!("link set {port} master pods up"));
        namespace.up("eth0", &[&format!("{address}/24"), &format!("{address6}/64")]);
        wait_forwarding(self, &port);
        namespace.ip(&format!("route add default via {}", pod_address(self.number, 1)));
        namespace.ip(&format!("route add default via {}", pod_address6(self.number, 1)));
        let process = start(&namespace);
        Pod { namespace, name: name.into(), node: self.name().into(), address, address6, process }
    }
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Pod {
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Subnet {
    #[track_caller]
    fn read(subnet: &str, subnet6: &str) -> Subnet {
        let read = || {
            let (base, length) = subnet.split_once('/')?;
            let (base6, length6) = subnet6.split_once('/')?;
            Some(Subnet {
                base: base.parse().ok()?,
                length: length.parse().ok()?,
                base6: base6.parse().ok()?,
                length6: length6.parse().ok()?,
            })
        };
        read().unwrap_or_else(|| panic!("{subnet} and {subnet6} are not an IPv4 and an IPv6 subnet"))
    }

    fn address(&self, number: u16) -> (Ipv4Addr, Ipv6Addr) {
        let address = u32::from(self.base) + u32::from(number);
        // The same digits in both families, so that .11 and ::11 are one host.
        let digits = u128::from_str_radix(&number.to_string(), 16).expect("decimal digits are hexadecimal ones too");
        (address.into(), (u128::from(self.base6) + digits).into())
    }

    /// Plugs `namespace` into `link` under `number`; all but the router have it as their default route.
    #[track_caller]
    fn plug(&self, link: &Switch, namespace: Namespace, number: u16) -> Host {
        let (address, address6) = self.address(number);
        let port = link.plug(
            &namespace,
            "eth0",
            &[&format!("{address}/{}", self.length), &format!("{address6}/{}", self.length6)],
        );
        if number != ROUTER {
            let (router, router6) = self.address(ROUTER);
            namespace.ip(&format!("route add default via {router}"));
            namespace.ip(&format!("route add default via {router6}"));
        }
        Host { namespace, address, address6, port }
    }
}

fn pod_address(node: u16, pod: u16) -> Ipv4Addr {
    let base = u32::from(Ipv4Addr::new(10, 244, 0, 0));
    (base + (u32::from(node) << 8) + u32::from(pod)).into()
}

fn pod_address6(node: u16, pod: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd44, 0, 0, node, 0, 0, 0, pod)
}
