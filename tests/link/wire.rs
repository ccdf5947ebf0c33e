//! A node and a client at the two ends of a veth pair: the node runs crier's own tasks, the client has a kernel and an ear.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use crier::address::MacAddress;
use crier::arp::counters::Counters;
use crier::arp::packet::{Operation, Packet};
use crier::arp::responder::{self, Standing};
use crier::clock;
use crier::kernel::observe;
use crier::names::InterfaceName;
use crier::plan::slice::L2Slice;
use crier::world::Fact;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::namespace::{Namespace, ip};

pub const NODE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 1);
pub const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 2);

/// What has to happen happens within this, on however busy a machine.
pub const SOON: Duration = Duration::from_secs(10);
/// What must not happen would have happened within this.
pub const A_WHILE: Duration = Duration::from_millis(300);

/// The two ends of a link, `eth0` at both.
pub struct Wire {
    pub node: Namespace,
    pub client: Namespace,
}

impl Wire {
    pub fn new() -> Wire {
        let wire = Wire { node: Namespace::new(), client: Namespace::new() };
        wire.plug_in();
        wire
    }

    pub fn plug_in(&self) {
        let client = self.client.path();
        self.node.enter(|| {
            ip(&format!("link add eth0 address {NODE_MAC} type veth peer name plug address {CLIENT_MAC}"));
            ip(&format!("link set plug netns {client} name eth0"));
            ip(&format!("address add {NODE_IP}/24 dev eth0"));
            ip("link set eth0 up");
        });
        self.client.enter(|| {
            ip(&format!("address add {CLIENT_IP}/24 dev eth0"));
            ip("link set eth0 up");
        });
    }

    /// Runs a test in the node's namespace.
    pub fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        self.node.enter(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async { test().await });
        });
    }
}

/// The node's part of crier: the observer of links and the responder, with a plan that is written by hand.
pub struct Node {
    pub slices: Arc<watch::Sender<L2Slice>>,
    pub counters: Arc<Counters>,
    pub standing: watch::Receiver<Standing>,
}

impl Node {
    /// Starts the tasks and waits until the links are known.
    pub async fn start() -> Node {
        let slices = Arc::new(watch::Sender::new(L2Slice::default()));
        let counters = Arc::new(Counters::default());
        let (standing, standing_seen) = watch::channel(Standing::new());
        tokio::spawn(responder::run(slices.subscribe(), counters.clone(), standing, std::future::pending()));

        let (sender, mut facts) = mpsc::channel(16);
        tokio::spawn(observe::run(sender));
        let (listed, mut is_listed) = watch::channel(false);
        let plan = slices.clone();
        tokio::spawn(async move {
            let mut links = BTreeMap::new();
            while let Some(fact) = facts.recv().await {
                match fact {
                    Fact::Link(index, Some(link)) => drop(links.insert(index, link)),
                    Fact::Link(index, None) => drop(links.remove(&index)),
                    Fact::LinksListed => drop(listed.send_replace(true)),
                    other => panic!("the observer of links told {other:?}"),
                }
                plan.send_modify(|slice| slice.links = Arc::new(links.values().cloned().collect()));
            }
        });
        is_listed.wait_for(|listed| *listed).await.expect("the links of the node");
        Node { slices, counters, standing: standing_seen }
    }

    /// Announces addresses on `eth0`, and nothing else.
    pub fn own(&self, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        let eth0 = Arc::new(BTreeSet::from([InterfaceName::from("eth0")]));
        let addresses = addresses.into_iter().map(|address| (IpAddr::V4(address), eth0.clone())).collect();
        self.slices.send_modify(|slice| slice.addresses = addresses);
    }

    /// Waits until the responder says so.
    pub async fn until(&mut self, what: &str, condition: impl FnMut(&Standing) -> bool) {
        let in_time = matches!(timeout(SOON, self.standing.wait_for(condition)).await, Ok(Ok(_)));
        assert!(in_time, "{what} did not come about; the responder stands at {:?}", *self.standing.borrow());
    }
}

/// The client's own eyes on its end of the wire.
pub struct Ear(Socket);

impl Ear {
    /// Hears all ARP on one link of a namespace, and can speak there.
    pub fn on(namespace: &Namespace, link: &str) -> Ear {
        namespace.enter(|| {
            let index = index_of(link);
            let protocol = Protocol::from(i32::from(0x0806_u16.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("a packet socket");
            let mut storage = SockAddrStorage::zeroed();
            // SAFETY: sockaddr_ll is a sockaddr type and fits into the storage.
            let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
            address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
            address.sll_protocol = 0x0806_u16.to_be();
            address.sll_ifindex = index;
            let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small number");
            // SAFETY: the storage was filled as a sockaddr_ll, and this is its length.
            socket.bind(&unsafe { SockAddr::new(storage, length) }).expect("binding to a link");
            Ear(socket)
        })
    }

    pub fn say(&self, packet: &Packet) {
        self.0.send(&packet.emit()).expect("sending a frame");
    }

    /// Says it with a VLAN tag in the frame.
    pub fn say_in_vlan(&self, packet: &Packet, vlan: u16) {
        let frame = packet.emit();
        let (macs, rest) = frame.split_at(12);
        let tagged = [macs, &[0x81, 0x00], &vlan.to_be_bytes(), rest].concat();
        self.0.send(&tagged).expect("sending a frame");
    }

    /// The next packet for which `wanted` holds, if one is heard within `patience`.
    pub fn hear(&self, patience: Duration, wanted: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let deadline = clock::now() + patience;
        let mut frame = [0; 128];
        loop {
            let left = deadline.checked_duration_since(clock::now()).filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left)).expect("a time-out");
            match (&self.0).read(&mut frame) {
                Ok(length) => match Packet::parse(&frame[..length]) {
                    Ok(packet) if wanted(&packet) => return Some(packet),
                    Ok(_) | Err(_) => {}
                },
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => panic!("listening on the wire: {error}"),
            }
        }
    }

    /// Asks and waits for the reply.
    pub fn ask(&self, question: &Packet, patience: Duration) -> Option<Packet> {
        self.say(question);
        self.hear(patience, |heard| {
            heard.operation == Operation::Reply && heard.sender_ip == question.target_ip && !heard.is_gratuitous()
        })
    }
}

fn index_of(link: &str) -> i32 {
    let told = ip(&format!("-oneline link show dev {link}"));
    told.split(':').next().and_then(|index| index.parse().ok()).expect("an index before the first colon")
}

pub fn who_has(target_ip: Ipv4Addr) -> Packet {
    Packet {
        destination: MacAddress::BROADCAST,
        source: CLIENT_MAC,
        operation: Operation::Request,
        sender_mac: CLIENT_MAC,
        sender_ip: CLIENT_IP,
        target_mac: MacAddress::ZERO,
        target_ip,
    }
}

/// The MAC that the client's kernel finds for an address when it has something to send there.
pub fn kernel_resolves(client: &Namespace, address: Ipv4Addr, patience: Duration) -> Option<MacAddress> {
    client.enter(|| {
        let socket = UdpSocket::bind((CLIENT_IP, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a time-out");
        socket.send_to(b"?", (address, 9)).expect("sending to the address");
        let deadline = clock::now() + patience;
        loop {
            let known = neighbour(address);
            if known.is_some() || clock::now() > deadline {
                return known;
            }
            let _nothing_comes_this_is_the_wait = socket.recv(&mut [0]);
        }
    })
}

/// What the kernel of this thread's namespace knows, without asking anybody.
pub fn neighbour(address: Ipv4Addr) -> Option<MacAddress> {
    let told = ip(&format!("neighbour show {address} dev eth0"));
    let mut words = told.split_whitespace().skip_while(|word| *word != "lladdr");
    words.nth(1).and_then(|mac| mac.parse().ok())
}
