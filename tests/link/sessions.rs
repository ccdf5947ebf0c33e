//! BGP's sockets on real links: one address on two links, keys and TTL security over IPv6, link-local peers.
//!
//! This kernel may have no VRF device, so a veth stands in for one: to SO_BINDTODEVICE both are the same.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use crier::address::ScopedAddress;
use crier::bgp::socket::listeners::{Arrival, Listen, Listeners};
use crier::bgp::socket::{Endpoint, Protection};
use crier::names::PeerName;
use crier::secret::Secret;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::namespace::{Namespace, ip};
use crate::tests;

tests![
    peers_of_one_address_on_two_devices_have_sessions_and_keys_of_their_own,
    x29_link_local_peers_of_one_address_have_keys_of_their_own,
    x29_an_ipv6_listener_lets_in_who_has_the_password_and_nobody_else,
    x30_over_ipv6_what_has_passed_a_router_is_dropped,
    a_device_that_is_made_anew_is_listened_on_again,
];

/// A node with a link to each of two routers, which have the same addresses.
struct Fork {
    node: Namespace,
    routers: [Namespace; 2],
    runtime: Runtime,
}

const LINKS: [&str; 2] = ["red", "blue"];

impl Fork {
    fn new() -> Fork {
        let (node, routers) = (Namespace::new(), [Namespace::new(), Namespace::new()]);
        for (link, router) in LINKS.iter().zip(&routers) {
            node.enter(|| {
                ip(&format!("link add {link} type veth peer name uplink netns {}", router.path()));
                fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").expect("the namespace's own sysctl");
                fs::write(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "0").expect("the link's own sysctl");
                addresses(link, "2");
            });
            router.enter(|| addresses("uplink", "1"));
        }
        Fork { node, routers, runtime: Builder::new_current_thread().enable_all().build().expect("a runtime") }
    }

    fn listen(&self, peers: &[(&str, Endpoint)]) -> Listeners {
        let mut listeners = self.node.enter(|| {
            let _guard = self.runtime.enter();
            let listen = Listen { addresses: vec![address("0.0.0.0"), address("::")], port: 179 };
            Listeners::open(&listen).expect("nobody else is in this namespace")
        });
        assert_eq!(self.follow(&mut listeners, peers), Vec::<String>::new());
        listeners
    }

    fn follow(&self, listeners: &mut Listeners, peers: &[(&str, Endpoint)]) -> Vec<String> {
        self.node.enter(|| {
            let _guard = self.runtime.enter();
            let named: Vec<(PeerName, &Endpoint)> =
                peers.iter().map(|(name, endpoint)| (PeerName::from(*name), endpoint)).collect();
            listeners
                .follow(named.iter().map(|(name, endpoint)| (name, *endpoint)))
                .into_iter()
                .map(|(_, why)| why)
                .collect()
        })
    }

    /// Dials the node from a router; `None` if there was silence for longer than an answer takes.
    fn dial(&self, router: usize, to: &Endpoint, patience: Duration) -> Option<TcpStream> {
        self.routers[router]
            .enter(|| self.runtime.block_on(async { tokio::time::timeout(patience, to.dial()).await.ok()?.ok() }))
    }

    fn accept(&self, listeners: &Listeners) -> Arrival {
        let accept = async { tokio::time::timeout(SOON, listeners.accept()).await };
        self.node.enter(|| self.runtime.block_on(accept)).expect("a connection waits").expect("it is accepted")
    }
}

/// However busy the machine is.
const SOON: Duration = Duration::from_secs(20);

/// A SYN that is dropped is sent again after a second; one that is not is answered at once.
const SILENCE: Duration = Duration::from_millis(400);

fn addresses(link: &str, last: &str) {
    // The kernel's own link-local address comes when the link has its carrier, and might be dialled from then.
    ip(&format!("link set {link} addrgenmode none"));
    ip(&format!("link set {link} up"));
    ip(&format!("address add 10.0.0.{last}/24 dev {link}"));
    ip(&format!("address add fd00::{last}/64 dev {link} nodad"));
    ip(&format!("address add fe80::{last}/64 dev {link} nodad"));
}

fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

fn md5(password: &str) -> Protection {
    Protection::Md5(Secret::from(password.as_bytes()))
}

fn endpoint(peer: &str, protection: Protection) -> Endpoint {
    Endpoint {
        peer: ScopedAddress { ip: address(peer), interface: None },
        port: 179,
        source: None,
        ttl: 1,
        link_only: false,
        device: None,
        protection,
    }
}

fn through(device: &str, endpoint: Endpoint) -> Endpoint {
    Endpoint { device: Some(device.into()), ..endpoint }
}

fn on(interface: &str, endpoint: Endpoint) -> Endpoint {
    Endpoint { peer: ScopedAddress { interface: Some(interface.into()), ..endpoint.peer }, ..endpoint }
}

fn peers_of_one_address_on_two_devices_have_sessions_and_keys_of_their_own() {
    let fork = Fork::new();
    let peers = LINKS.map(|link| (link, through(link, endpoint("10.0.0.1", md5(link)))));
    let listeners = fork.listen(&peers);
    let to_node = |key: &str| endpoint("10.0.0.2", md5(key));
    assert!(fork.dial(0, &to_node("blue"), SILENCE).is_none(), "the key of the other device");
    for (at, link) in LINKS.iter().enumerate() {
        let _dialled = fork.dial(at, &to_node(link), SOON).expect(link);
        let arrival = fork.accept(&listeners);
        assert_eq!(arrival.device.as_ref().map(|device| device.as_str()), Some(*link));
        let of: Vec<&str> =
            peers.iter().filter(|(_, endpoint)| arrival.is_of(endpoint)).map(|(name, _)| *name).collect();
        assert_eq!(of, [*link]);
        assert_eq!(arrival.mistrust(&peers[at].1), None);
        // The other way: the node dials the one address twice, and each router hears it on its own.
        let router = fork.routers[at].enter(|| {
            let _guard = fork.runtime.enter();
            let listen = Listen { addresses: vec![address("0.0.0.0")], port: 179 };
            let mut listeners = Listeners::open(&listen).expect("nobody else listens here");
            let (name, node) = (PeerName::from("node"), endpoint("10.0.0.2", md5(link)));
            assert_eq!(listeners.follow([(&name, &node)].into_iter()), []);
            listeners
        });
        let dial = async { tokio::time::timeout(SOON, peers[at].1.dial()).await };
        let dialled = fork.node.enter(|| fork.runtime.block_on(dial)).expect("in time").expect("it connects");
        let heard = fork.routers[at].enter(|| fork.runtime.block_on(router.accept())).expect("it is accepted");
        assert_eq!(heard.from, dialled.local_addr().expect("a local address"));
    }
}

fn x29_link_local_peers_of_one_address_have_keys_of_their_own() {
    let fork = Fork::new();
    let peers = LINKS.map(|link| (link, on(link, endpoint("fe80::1", md5(link)))));
    let listeners = fork.listen(&peers);
    let to_node = |key: &str| on("uplink", endpoint("fe80::2", md5(key)));
    assert!(fork.dial(0, &to_node("blue"), SILENCE).is_none(), "the key of the other link");
    assert!(fork.dial(1, &on("uplink", endpoint("fe80::2", Protection::None)), SILENCE).is_none(), "no key");
    for (at, link) in LINKS.iter().enumerate() {
        let _dialled = fork.dial(at, &to_node(link), SOON).expect(link);
        let arrival = fork.accept(&listeners);
        // The number of a link is that of the node's namespace.
        let is_of = |endpoint: &Endpoint| fork.node.enter(|| arrival.is_of(endpoint));
        let of: Vec<&str> = peers.iter().filter(|(_, endpoint)| is_of(endpoint)).map(|(name, _)| *name).collect();
        assert_eq!(of, [*link]);
        assert_eq!(arrival.mistrust(&peers[at].1), None);
    }
}

fn x29_an_ipv6_listener_lets_in_who_has_the_password_and_nobody_else() {
    let fork = Fork::new();
    // The IPv4 address of the same peer has another key: the listening sockets are apart.
    let peers = [
        ("six", through("red", endpoint("fd00::1", md5("right")))),
        ("four", through("red", endpoint("10.0.0.1", md5("4")))),
    ];
    let listeners = fork.listen(&peers);
    for protection in [md5("wrong"), md5("4"), Protection::None] {
        assert!(fork.dial(0, &endpoint("fd00::2", protection.clone()), SILENCE).is_none(), "{protection}");
    }
    for (to, key, name) in [("fd00::2", "right", "six"), ("10.0.0.2", "4", "four")] {
        let _dialled = fork.dial(0, &endpoint(to, md5(key)), SOON).expect(to);
        let arrival = fork.accept(&listeners);
        let of: Vec<&str> =
            peers.iter().filter(|(_, endpoint)| arrival.is_of(endpoint)).map(|(name, _)| *name).collect();
        assert_eq!((of, arrival.signed), (vec![name], Ok(md5(key))));
    }
}

fn x30_over_ipv6_what_has_passed_a_router_is_dropped() {
    let fork = Fork::new();
    for (peer, node) in [("fd00::1", "fd00::2"), ("10.0.0.1", "10.0.0.2")] {
        let near = Endpoint { link_only: true, ..through("red", endpoint(peer, Protection::None)) };
        let listeners = fork.listen(&[("near", near.clone())]);
        for (ttl, trusted) in [(255, true), (254, false)] {
            let dialler = Endpoint { ttl, ..endpoint(node, Protection::None) };
            let dialled = fork.dial(0, &dialler, SOON).expect("the handshake is the kernel's");
            let mut arrival = fork.accept(&listeners);
            let mistrust = arrival.mistrust(&near);
            assert_eq!(mistrust.is_none(), trusted, "{peer} with {ttl}: {mistrust:?}");
            near.dress_accepted(&arrival.stream).expect("options that every kernel has");
            let heard = fork.runtime.block_on(async {
                dialled.writable().await.expect("an open connection");
                dialled.try_write(b"OPEN").expect("an open connection");
                let patience = if trusted { SOON } else { SILENCE };
                let mut octets = [0; 4];
                let read = tokio::time::timeout(patience, arrival.stream.read_exact(&mut octets)).await;
                read.map(|read| read.map(|_| octets))
            });
            assert_eq!(heard.is_ok(), trusted, "data of {peer} with TTL {ttl}: {heard:?}");
        }
        // The answer of the node's listening socket has 255, as a strict peer wants it.
        let strict = Endpoint { link_only: true, ..endpoint(node, Protection::None) };
        assert!(fork.dial(0, &strict, SOON).is_some(), "{node}");
    }
}

fn a_device_that_is_made_anew_is_listened_on_again() {
    let fork = Fork::new();
    let peers = [("red", through("red", endpoint("10.0.0.1", md5("red"))))];
    let mut listeners = fork.listen(&peers);
    fork.node.enter(|| ip("link delete red"));
    let why = fork.follow(&mut listeners, &peers);
    assert!(why.len() == 1 && why[0].contains("there is no interface red"), "{why:?}");
    fork.node.enter(|| {
        ip(&format!("link add red type veth peer name uplink netns {}", fork.routers[0].path()));
        fs::write("/proc/sys/net/ipv4/conf/red/rp_filter", "0").expect("the link's own sysctl");
        addresses("red", "2");
    });
    fork.routers[0].enter(|| addresses("uplink", "1"));
    assert!(listeners.wants_another_look());
    assert_eq!(fork.follow(&mut listeners, &peers), Vec::<String>::new());
    let dialled =
        fork.dial(0, &endpoint("10.0.0.2", md5("red")), SOON).expect("the listening socket is on the new device");
    let from: SocketAddr = dialled.local_addr().expect("a local address");
    assert_eq!(fork.accept(&listeners).from, from);
}
