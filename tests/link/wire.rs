//! A node and a client at the two ends of a veth pair: the node runs crier's own tasks, the client has a kernel and an ear.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use crier::address::MacAddress;
use crier::arp::counters::{self, ByProtocol};
use crier::arp::packet::arp::{Operation, Packet};
use crier::arp::packet::{Frame, Protocol as Spoken};
use crier::arp::state::LinkStates;
use crier::arp::task::Parting;
use crier::by_link::ByLink;
use crier::claim::{Acquisition, Answerer};
use crier::clock;
use crier::kernel::observe;
use crier::names::InterfaceName;
use crier::plan::slice::L2Slice;
use crier::world::{Conflict, Fact};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::namespace::{Namespace, ip};

pub const NODE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0a]);
pub const CLIENT_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x0b]);
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 1);
pub const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 35, 2);
pub const CLIENT_IP6: Ipv6Addr = Ipv6Addr::new(0xfd35, 0, 0, 0, 0, 0, 0, 2);

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
            ip(&format!("address add {CLIENT_IP6}/64 dev eth0 nodad"));
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
    counters: Arc<ByProtocol>,
    /// Ends the responder; dropped, it does not.
    pub parting: oneshot::Sender<Parting>,
    pub states: watch::Receiver<LinkStates>,
    /// As the World would be told of them.
    pub conflicts: watch::Receiver<BTreeMap<IpAddr, Conflict>>,
    /// What the World would be told that this node answers for.
    pub answering: watch::Receiver<BTreeSet<IpAddr>>,
    /// Which other stations the World would be told to answer.
    pub answered: watch::Receiver<BTreeMap<IpAddr, Answerer>>,
}

impl Node {
    /// Starts the tasks and waits until the links are known.
    pub async fn start() -> Node {
        Node::start_with(None).await
    }

    /// The same, with ARP answered in the kernel if it takes the programs, for so long after this process last ran.
    pub async fn start_with(offload: Option<Duration>) -> Node {
        let slices = Arc::new(watch::Sender::new(L2Slice::default()));
        let by_link = Arc::new(ByLink::default());
        let counters = by_link.of(&InterfaceName::from("eth0"));
        let (states, states_seen) = watch::channel(LinkStates::new());
        let (sender, mut facts) = mpsc::channel(16);
        let (parting, parts) = oneshot::channel();
        let parts = async {
            match parts.await {
                Ok(parting) => parting,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::spawn(crier::arp::task::run(slices.subscribe(), sender.clone(), by_link, states, offload, parts));
        tokio::spawn(observe::run(sender));
        let (listed, mut is_listed) = watch::channel(false);
        let (conflicts, conflicts_seen) = watch::channel(BTreeMap::new());
        let (answering, answering_seen) = watch::channel(BTreeSet::new());
        let (answered, answered_seen) = watch::channel(BTreeMap::new());
        let plan = slices.clone();
        tokio::spawn(async move {
            let mut links = BTreeMap::new();
            while let Some(fact) = facts.recv().await {
                match fact {
                    Fact::Link(index, Some(link)) => drop(links.insert(index, link)),
                    Fact::Link(index, None) => drop(links.remove(&index)),
                    Fact::LinksListed => drop(listed.send_replace(true)),
                    Fact::Conflict(address, _, Some(it)) => {
                        conflicts.send_modify(|all| all.extend([(address, it)]));
                    }
                    Fact::Conflict(address, _, None) => conflicts.send_modify(|all| all.retain(|it, _| *it != address)),
                    Fact::Answering { link: _, began, ended } => answering.send_modify(|all| {
                        all.extend(began);
                        all.retain(|address| !ended.contains(address));
                    }),
                    Fact::Answered { link: _, by } => answered.send_modify(|all| {
                        for (address, answerer) in by {
                            match answerer {
                                Some(answerer) => drop(all.insert(address, answerer)),
                                None => drop(all.remove(&address)),
                            }
                        }
                    }),
                    other => panic!("neither the observer of links nor the responder tells {other:?}"),
                }
                plan.send_modify(|slice| slice.links = Arc::new(links.values().cloned().collect()));
            }
        });
        is_listed.wait_for(|listed| *listed).await.expect("the links of the node");
        Node {
            slices,
            counters,
            parting,
            states: states_seen,
            conflicts: conflicts_seen,
            answering: answering_seen,
            answered: answered_seen,
        }
    }

    /// What was counted on `eth0` so far.
    pub fn counted(&self, protocol: Spoken) -> counters::Report {
        self.counters.of(protocol).read()
    }

    /// Announces addresses on `eth0`, and nothing else, as if they had been handed over.
    pub fn own<A: Into<IpAddr>>(&self, addresses: impl IntoIterator<Item = A>) {
        self.own_by(&Acquisition::HandOver, addresses);
    }

    /// The same by another acquisition.
    pub fn own_by<A: Into<IpAddr>>(&self, acquisition: &Acquisition, addresses: impl IntoIterator<Item = A>) {
        let eth0 = Arc::new(BTreeSet::from([InterfaceName::from("eth0")]));
        let addresses: Vec<IpAddr> = addresses.into_iter().map(Into::into).collect();
        self.slices.send_modify(|slice| {
            slice.addresses = addresses.iter().map(|address| (*address, eth0.clone())).collect();
            slice.acquisitions = addresses.iter().map(|address| (*address, acquisition.clone())).collect();
        });
    }

    /// Waits until the World was told so about what is answered for.
    pub async fn until_answering(&mut self, what: &str, condition: impl FnMut(&BTreeSet<IpAddr>) -> bool) {
        let told = timeout(SOON, self.answering.wait_for(condition)).await;
        if !told.is_ok_and(|told| told.is_ok()) {
            panic!("the World was not told {what}: {:?}", self.answering.borrow());
        }
    }

    /// Waits until the World was told so about who else answers.
    pub async fn until_answered(&mut self, what: &str, condition: impl FnMut(&BTreeMap<IpAddr, Answerer>) -> bool) {
        let in_time = matches!(timeout(SOON, self.answered.wait_for(condition)).await, Ok(Ok(_)));
        assert!(in_time, "{what} was not told; told was {:?}", *self.answered.borrow());
    }

    /// Waits until the World was told so about conflicts.
    pub async fn until_told(&mut self, what: &str, condition: impl FnMut(&BTreeMap<IpAddr, Conflict>) -> bool) {
        let in_time = matches!(timeout(SOON, self.conflicts.wait_for(condition)).await, Ok(Ok(_)));
        assert!(in_time, "{what} was not told; told was {:?}", *self.conflicts.borrow());
    }

    /// Waits until the responder says so.
    pub async fn until(&mut self, what: &str, condition: impl FnMut(&LinkStates) -> bool) {
        let in_time = matches!(timeout(SOON, self.states.wait_for(condition)).await, Ok(Ok(_)));
        assert!(in_time, "{what} did not come about; the states of the links are {:?}", *self.states.borrow());
    }
}

/// The client's own eyes on its end of the wire.
pub struct Ear(pub Socket);

impl Ear {
    /// Hears all ARP on one link of a namespace, and can speak there.
    pub fn on(namespace: &Namespace, link: &str) -> Ear {
        Ear::hearing(namespace, link, 0x0806)
    }

    /// The same for all IPv6.
    pub fn for_ipv6(namespace: &Namespace, link: &str) -> Ear {
        Ear::hearing(namespace, link, 0x86dd)
    }

    fn hearing(namespace: &Namespace, link: &str, ethertype: u16) -> Ear {
        namespace.enter(|| {
            let index = index_of(link);
            let protocol = Protocol::from(i32::from(ethertype.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("a packet socket");
            let mut storage = SockAddrStorage::zeroed();
            // SAFETY: sockaddr_ll is a sockaddr type and fits into the storage.
            let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
            address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
            address.sll_protocol = ethertype.to_be();
            address.sll_ifindex = index;
            let length = u32::try_from(size_of::<libc::sockaddr_ll>()).expect("a small number");
            // SAFETY: the storage was filled as a sockaddr_ll, and this is its length.
            socket.bind(&unsafe { SockAddr::new(storage, length) }).expect("binding to a link");
            Ear(socket)
        })
    }

    pub fn say_frame(&self, frame: &Frame) {
        self.say_octets(frame.emit().as_ref());
    }

    /// Hears only ARP for one address, so that a flood of answers to others does not reach it.
    pub fn on_for(namespace: &Namespace, link: &str, address: Ipv4Addr) -> Ear {
        let ear = Ear::on(namespace, link);
        // Of an ARP packet, the target address; equal, and everything passes, else nothing.
        let (load, compare, give) = (0x20, 0x15, 0x06);
        let filter = [
            SockFilter::new(load, 0, 0, 38),
            SockFilter::new(compare, 0, 1, address.to_bits()),
            SockFilter::new(give, 0, 0, u32::MAX),
            SockFilter::new(give, 0, 0, 0),
        ];
        ear.0.attach_filter(&filter).expect("a filter");
        ear
    }

    /// Hears nothing.
    pub fn mute(namespace: &Namespace, link: &str) -> Ear {
        let ear = Ear::on(namespace, link);
        ear.0.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).expect("a filter");
        ear
    }

    /// Says the same so often, in one system call; how often the kernel took it.
    pub fn say_many(&self, frame: &[u8], times: u64) -> u64 {
        let mut part = libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        // SAFETY: a msghdr of zeros is one that says nothing.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iov = &raw mut part;
        message.msg_hdr.msg_iovlen = 1;
        let mut messages = vec![message; usize::try_from(times).expect("a few")];
        let count = u32::try_from(times).expect("a few");
        // SAFETY: as many messages as the count says, each with one part that is read only and lives until the end.
        let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
        u64::try_from(sent).unwrap_or(0)
    }

    pub fn say_octets(&self, frame: &[u8]) {
        self.0.send(frame).expect("sending a frame");
    }

    /// The next frame of a protocol for which `wanted` holds, if one is heard within `patience`.
    pub fn hear_frame(&self, spoken: Spoken, patience: Duration, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        self.hear_octets(patience, |octets| Frame::parse(spoken, octets).ok().filter(|frame| wanted(frame)))
    }

    fn hear_octets<T>(&self, patience: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let deadline = clock::now() + patience;
        let mut frame = [0; 256];
        loop {
            let left = deadline.checked_duration_since(clock::now()).filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left)).expect("a time-out");
            match (&self.0).read(&mut frame) {
                Ok(length) => {
                    if let Some(found) = wanted(&frame[..length]) {
                        return Some(found);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => panic!("listening on the wire: {error}"),
            }
        }
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
        self.hear_octets(patience, |octets| Packet::parse(octets).ok().filter(|packet| wanted(packet)))
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
pub fn kernel_resolves(client: &Namespace, address: impl Into<IpAddr>, patience: Duration) -> Option<MacAddress> {
    let address: IpAddr = address.into();
    let here: IpAddr = if address.is_ipv4() { CLIENT_IP.into() } else { CLIENT_IP6.into() };
    client.enter(|| {
        let socket = UdpSocket::bind((here, 0)).expect("a socket");
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
pub fn neighbour(address: impl Into<IpAddr>) -> Option<MacAddress> {
    let told = ip(&format!("neighbour show {} dev eth0", address.into()));
    let mut words = told.split_whitespace().skip_while(|word| *word != "lladdr");
    words.nth(1).and_then(|mac| mac.parse().ok())
}
