//! Router discovery: whom it hears on a link, whom it must not, and what it says itself.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::sync::Arc;

use crier::discovery;
use crier::plan::slice::BgpSlice;
use crier::world::Fact;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::namespace::ip;
use crate::tests;
use crate::wire::{A_WHILE, SOON, Wire};

tests!(
    a_router_is_heard_and_nobody_else_is,
    a_link_that_the_plan_no_longer_names_has_no_router,
    this_node_asks_and_shows_itself_from_its_link_local_address_with_the_highest_hop_limit,
);

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn wire() -> Wire {
    let wire = Wire::new();
    wire.node.enter(|| {
        ip("address add fe80::1:a/64 dev eth0 nodad");
    });
    wire.client.enter(|| {
        ip("address add fe80::1:b/64 dev eth0 nodad");
        ip("address add fe80::1:c/64 dev eth0 nodad");
        ip("address add fd35::b/64 dev eth0 nodad");
    });
    wire
}

fn index() -> u32 {
    let shown = ip("-o link show dev eth0");
    shown.split(':').next().and_then(|index| index.trim().parse().ok()).expect("an index in front")
}

/// Says something on the link as the client.
fn say(wire: &Wire, from: &str, octets: &[u8], hop_limit: u32) {
    wire.client.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).expect("a raw socket");
        socket.set_multicast_hops_v6(hop_limit).expect("a hop limit");
        let index = index();
        let from: Ipv6Addr = from.parse().expect("an address");
        let scope = if from.is_unicast_link_local() { index } else { 0 };
        socket.bind(&SocketAddrV6::new(from, 0, 0, scope).into()).expect("an address of the client");
        socket.set_multicast_if_v6(index).expect("a link");
        let sent = socket.send_to(octets, &SocketAddrV6::new(ALL_NODES, 0, 0, index).into());
        assert_eq!(sent.expect("room in the queue"), octets.len());
    });
}

struct Discovery {
    slices: watch::Sender<BgpSlice>,
    facts: mpsc::Receiver<Fact>,
}

impl Discovery {
    /// On a thread of the node's, with a plan that names its link.
    fn start() -> Discovery {
        let (slices, slice) = watch::channel(BgpSlice::default());
        let (sender, facts) = mpsc::channel(4);
        tokio::spawn(discovery::task::run(slice, sender));
        slices.send_modify(|slice| slice.unnumbered = Arc::new([(index(), "eth0".into())].into()));
        Discovery { slices, facts }
    }

    /// Until the socket is open nobody is heard; one that speaks twice is told once.
    async fn hear_first(&mut self, wire: &Wire) -> Vec<String> {
        let heard = async {
            loop {
                say(wire, "fe80::1:b", &ADVERTISEMENT, 255);
                if let Ok(told) = timeout(A_WHILE, self.told()).await {
                    return told;
                }
            }
        };
        timeout(SOON, heard).await.expect("the router is heard")
    }

    async fn told(&mut self) -> Vec<String> {
        match timeout(SOON, self.facts.recv()).await.expect("something told") {
            Some(Fact::Routers(_, routers)) => routers.iter().map(ToString::to_string).collect(),
            other => panic!("the task told {other:?}"),
        }
    }
}

fn a_router_is_heard_and_nobody_else_is() {
    let wire = wire();
    wire.run(async || {
        let mut discovery = Discovery::start();
        assert_eq!(discovery.hear_first(&wire).await, ["fe80::1:b"]);
        let with = |change: fn(&mut Vec<u8>)| {
            let mut octets = ADVERTISEMENT.to_vec();
            change(&mut octets);
            octets
        };
        say(&wire, "fe80::1:c", &ADVERTISEMENT, 64);
        say(&wire, "fe80::1:c", &with(|octets| octets[1] = 1), 255);
        say(&wire, "fe80::1:c", &with(|octets| octets.extend([1, 0])), 255);
        say(&wire, "fe80::1:c", &with(|octets| octets.truncate(12)), 255);
        say(&wire, "fe80::1:c", &with(|octets| octets[0] = 136), 255);
        say(&wire, "fd35::b", &ADVERTISEMENT, 255);
        // What comes after them was heard after them.
        say(&wire, "fe80::1:c", &ADVERTISEMENT, 255);
        assert_eq!(discovery.told().await, ["fe80::1:b", "fe80::1:c"]);
    });
}

fn a_link_that_the_plan_no_longer_names_has_no_router() {
    let wire = wire();
    wire.run(async || {
        let mut discovery = Discovery::start();
        assert_eq!(discovery.hear_first(&wire).await, ["fe80::1:b"]);
        discovery.slices.send_modify(|slice| slice.unnumbered = Arc::new(BTreeMap::new()));
        assert_eq!(discovery.told().await, [] as [String; 0]);
    });
}

fn this_node_asks_and_shows_itself_from_its_link_local_address_with_the_highest_hop_limit() {
    let wire = wire();
    let ear = wire.client.enter(|| {
        let ear = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(0x86dd_u16.to_be()))));
        let ear = ear.expect("a packet socket");
        ear.set_read_timeout(Some(SOON)).expect("a timeout");
        ear
    });
    wire.run(async || {
        let _discovery = Discovery::start();
        let heard = tokio::task::spawn_blocking(move || {
            let mut heard = BTreeMap::new();
            while heard.len() < 2 {
                let mut packet = [0; 1500];
                let length = (&ear).read(&mut packet).expect("an IPv6 packet");
                let packet = &packet[..length];
                // Next header ICMPv6, from the node.
                if length > 40 && packet[6] == 58 && (packet[40] == 133 || packet[40] == 134) {
                    let source = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[8..24]).expect("16 octets"));
                    let to = Ipv6Addr::from(<[u8; 16]>::try_from(&packet[24..40]).expect("16 octets"));
                    if source.to_string() != "fe80::1:b" && source.is_unicast_link_local() && length <= 64 {
                        heard.insert(packet[40], (packet[7], to.to_string(), packet[40 + 6..40 + 8].to_vec()));
                    }
                }
            }
            heard
        });
        let heard = heard.await.expect("an ear");
        assert_eq!(heard[&133], (255, "ff02::2".to_owned(), vec![0, 0]), "a solicitation");
        assert_eq!(heard[&134], (255, "ff02::1".to_owned(), vec![0, 0]), "an advertisement with lifetime 0");
    });
}
