//! Whole speakers on loopback: against each other, and against a peer that is scripted octet by octet.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use bytes::BytesMut;
use imbl::OrdMap;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::*;
use crate::address::{LocalAddress, ScopedAddress, Stay};
use crate::bgp::socket::listeners::Listen;
use crate::bgp::wire::{
    AfiSafi, AsPathSegment, Attributes, Capability, Dialect, Frame, MAX_EXTENDED_MESSAGE_LEN, Message, Open, OpenError,
    Origin, Parsed, ParsedUpdate, RefreshKind, RouteRefresh, Update,
};
use crate::config::{PeerAddress, PeerAsn};
use crate::route::RouteAttributes;
use crate::world::{SessionReport, SessionState};

/// Long enough for anything that happens at once, however busy the machine is.
const SOON: Duration = Duration::from_secs(10);

type Routes = OrdMap<IpNet, Arc<RouteAttributes>>;

/// A speaker under test and the agent's ends of its channels.
struct Bench {
    slices: watch::Sender<BgpSlice>,
    facts: mpsc::Receiver<Fact>,
    bfd: watch::Sender<BfdSessions>,
    shutdown: Option<oneshot::Sender<Parting>>,
    task: tokio::task::JoinHandle<()>,
}

fn listeners(address: &str) -> (Listeners, SocketAddr) {
    let listen = Listen { addresses: vec![address.parse().unwrap()], port: 0 };
    let listeners = Listeners::open(&listen).expect("a free port on loopback");
    let address = listeners.local_addresses()[0];
    (listeners, address)
}

impl Bench {
    fn start(listeners: Listeners, slice: BgpSlice) -> Bench {
        Bench::start_after(Past::default(), listeners, slice)
    }

    /// Begins with the sessions of a speaker before.
    fn start_after(past: Past, listeners: Listeners, slice: BgpSlice) -> Bench {
        let (slices, slices_rx) = watch::channel(slice);
        let (facts_tx, facts) = mpsc::channel(1024);
        let (shutdown, shutdown_rx) = oneshot::channel();
        let (bfd, bfd_rx) = watch::channel(BfdSessions::new());
        let stopped = async { shutdown_rx.await.unwrap_or_else(|_| Parting::Leave(String::new())) };
        let task = tokio::spawn(run(slices_rx, facts_tx, listeners, bfd_rx, past, stopped));
        Bench { slices, facts, bfd, shutdown: Some(shutdown), task }
    }

    /// Waits for a report that is as it should be.
    async fn report(&mut self, what: &str, is_it: impl Fn(&SessionReport) -> bool) -> SessionReport {
        let mut last = None;
        let wait = async {
            while let Some(fact) = self.facts.recv().await {
                let Fact::Session(_, report) = fact else { panic!("a speaker reports sessions only, not {fact:?}") };
                if is_it(&report) {
                    return report;
                }
                last = Some(report);
            }
            panic!("the speaker has ended")
        };
        match tokio::time::timeout(SOON, wait).await {
            Ok(report) => report,
            Err(_) => panic!("no report that {what}; the last was {last:?}"),
        }
    }

    async fn stop(mut self, why: &str) {
        let started = clock::now();
        self.shutdown.take().expect("stopped once").send(Parting::Leave(why.to_owned())).expect("the speaker runs");
        self.task.await.expect("the speaker ends well");
        assert!(
            clock::since(started) < Duration::from_secs(2),
            "leaving takes a second at most, and some for a busy machine"
        );
    }
}

fn settings(name: &str, peer: SocketAddr, source: Option<&str>) -> config::Peer {
    config::Peer {
        name: name.into(),
        address: PeerAddress::Fixed(ScopedAddress { ip: peer.ip(), interface: None }),
        asn: PeerAsn::External,
        local_asn: 65001,
        source_address: source.map(|source| source.parse().unwrap()),
        port: peer.port(),
        ..config::tests::one_of_each().bgp.peers.remove(0)
    }
}

fn slice(router_id: [u8; 4], settings: config::Peer, routes: Routes) -> BgpSlice {
    let name = settings.name.clone();
    let PeerAddress::Fixed(address) = settings.address.clone() else { panic!("these peers have addresses") };
    let peer = PeerSlice { settings: Arc::new(settings), address: Ok(address), routes, orders: Default::default() };
    BgpSlice {
        router_id: Some(router_id.into()),
        complete: true,
        peers: [(name, peer)].into_iter().collect(),
        local_addresses: on_lo(&["127.0.0.1/8", "127.0.0.2/8", "fd00::1/64"]),
        unnumbered: Arc::default(),
        weighed: Arc::default(),
        listen: None,
    }
}

fn on_lo(addresses: &[&str]) -> Arc<Vec<LocalAddress>> {
    let local =
        |net: &&str| LocalAddress { interface: "lo".into(), vrf: None, net: net.parse().unwrap(), stay: Stay::Unknown };
    Arc::new(addresses.iter().map(local).collect())
}

/// So many /128, all said the same of. The sessions run over 127.0.0.0/8, which is no next hop for IPv4: a good peer would not
/// take it.
fn routes(count: u32, med: u32) -> Routes {
    let attributes = Arc::new(RouteAttributes { med: Some(med), ..RouteAttributes::default() });
    let first = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits();
    let prefix = |n| IpNet::from(IpAddr::from(Ipv6Addr::from_bits(first + u128::from(n))));
    (0..count).map(|n| (prefix(n), Arc::clone(&attributes))).collect()
}

/// A peer whose every octet the test decides.
struct Script {
    stream: TcpStream,
    inbox: BytesMut,
    rib: BTreeMap<IpNet, Attributes>,
    ends_of_rib: Vec<AfiSafi>,
    /// How often a prefix was announced.
    announcements: usize,
    /// Of the messages that were heard, in octets.
    longest: usize,
}

impl Script {
    /// Dials the speaker. A small `receive_buffer` makes the window close early.
    async fn dial(to: SocketAddr, receive_buffer: Option<u32>) -> Script {
        Script::dial_from("127.0.0.9", to, receive_buffer).await
    }

    async fn dial_from(source: &str, to: SocketAddr, receive_buffer: Option<u32>) -> Script {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(octets) = receive_buffer {
            socket.set_recv_buffer_size(octets).unwrap();
        }
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        let stream = socket.connect(to).await.expect("the speaker listens");
        Script::on(stream)
    }

    /// On a connection that the speaker has dialled.
    fn on(stream: TcpStream) -> Script {
        stream.set_nodelay(true).unwrap();
        Script {
            stream,
            inbox: BytesMut::new(),
            rib: BTreeMap::new(),
            ends_of_rib: Vec::new(),
            announcements: 0,
            longest: 0,
        }
    }

    fn open(asn: u16, hold_time_secs: u16, more: &[Capability]) -> Message {
        Message::Open(Open {
            asn,
            hold_time_secs,
            identifier: Ipv4Addr::new(10, 0, 0, 9),
            capabilities: [
                Capability::Multiprotocol(AfiSafi::IPV4_UNICAST),
                Capability::Multiprotocol(AfiSafi::IPV6_UNICAST),
                Capability::RouteRefresh,
                Capability::FourOctetAsn(u32::from(asn)),
            ]
            .into_iter()
            .chain(more.iter().cloned())
            .collect(),
        })
    }

    async fn say(&mut self, message: &Message) {
        let mut octets = BytesMut::new();
        message.emit(&Dialect::BEFORE_OPEN, &mut octets).unwrap();
        self.stream.write_all(&octets).await.expect("the speaker keeps the connection open");
    }

    /// The next message; `None` at the end of the stream.
    async fn hear(&mut self) -> Option<Parsed> {
        let hear = async {
            loop {
                if let Some(frame) =
                    Frame::parse(&mut self.inbox, MAX_EXTENDED_MESSAGE_LEN).expect("crier's headers are good")
                {
                    let dialect = Dialect {
                        four_octet_asn: true,
                        ipv4_unicast: true,
                        ipv6_unicast: true,
                        max_message_len: MAX_EXTENDED_MESSAGE_LEN,
                        ..Dialect::BEFORE_OPEN
                    };
                    self.longest = self.longest.max(frame.octets().len());
                    return Some(Message::parse(frame.octets(), &dialect).expect("crier's messages are good"));
                }
                let read =
                    self.stream.read_buf(&mut self.inbox).await.expect("the stream ends with FIN, not with a reset");
                if read == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(SOON, hear).await.expect("the speaker says something soon")
    }

    async fn establish(&mut self, hold_time_secs: u16) {
        self.establish_with(hold_time_secs, &[]).await;
    }

    async fn establish_with(&mut self, hold_time_secs: u16, more: &[Capability]) {
        self.say(&Script::open(65009, hold_time_secs, more)).await;
        self.say(&Message::Keepalive).await;
        assert!(matches!(self.hear().await, Some(Parsed::Open(_))));
        assert!(matches!(self.hear().await, Some(Parsed::Keepalive)));
    }

    fn apply(&mut self, update: ParsedUpdate) {
        assert_eq!(update.complaints, [], "crier's UPDATEs are good");
        self.ends_of_rib.extend(update.end_of_rib);
        let Update { withdrawn, mp_unreach, attributes, mp_reach, announced } = update.update;
        for prefix in withdrawn.into_iter().chain(mp_unreach.into_iter().flat_map(|unreach| unreach.prefixes)) {
            self.rib.remove(&prefix);
        }
        for prefix in announced.into_iter().chain(mp_reach.into_iter().flat_map(|reach| reach.prefixes)) {
            self.announcements += 1;
            self.rib.insert(prefix, attributes.clone());
        }
    }

    /// Reads until the routes are as they should be and nothing else is owed.
    async fn read_until(&mut self, what: &str, is_it: impl Fn(&Script) -> bool) {
        while !is_it(self) {
            match self.hear().await {
                Some(Parsed::Update(update)) => self.apply(update),
                Some(Parsed::Keepalive) => {}
                other => panic!("{other:?} came, with {} routes, before {what}", self.rib.len()),
            }
        }
    }

    fn has_exactly(&self, wanted: &Routes) -> bool {
        self.rib.len() == wanted.len()
            && wanted.iter().all(|(prefix, route)| self.rib.get(prefix).is_some_and(|held| held.med == route.med))
    }
}

/// A speaker that only listens, and has one peer: 127.0.0.9, AS 65009.
fn against_a_script(routes: Routes, change: impl FnOnce(&mut config::Peer)) -> (Bench, SocketAddr) {
    let (listeners, address) = listeners("127.0.0.1");
    let mut settings = settings("script", "127.0.0.9:179".parse().unwrap(), None);
    settings.passive = true;
    settings.asn = PeerAsn::Is(65009);
    change(&mut settings);
    (Bench::start(listeners, slice([10, 0, 0, 1], settings, routes)), address)
}

fn change_routes(bench: &Bench, routes: Routes) {
    bench.slices.send_modify(|slice| {
        let name = PeerName::from("script");
        let peer = slice.peers.get(&name).expect("the one peer").clone();
        slice.peers.insert(name, PeerSlice { routes, ..peer });
    });
}

/// Input: a peer opens 3,000 connections. Output: one line, and after a minute one more that says how many were closed.
#[test]
fn of_a_flood_of_connections_one_a_minute_is_logged() {
    let (mut refused, now) = (LogLimit::default(), clock::now());
    assert_eq!(refused.note(now), Some(0));
    assert!((0..3000).all(|_| refused.note(now + Duration::from_secs(9)).is_none()));
    assert_eq!(refused.note(now + LOG_PAUSE), Some(3000));
    assert_eq!(refused.note(now + LOG_PAUSE), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_speakers_that_dial_each_other_exchange_their_routes_and_part_with_a_text() {
    let (one_listens, one_address) = listeners("127.0.0.1");
    let (two_listens, two_address) = listeners("127.0.0.2");
    let one = slice([10, 0, 0, 1], settings("two", two_address, Some("127.0.0.1")), routes(1000, 0));
    let two = config::Peer { local_asn: 65002, ..settings("one", one_address, Some("127.0.0.2")) };
    let two = slice([10, 0, 0, 2], two, routes(3, 0));
    let (mut one, mut two) = (Bench::start(one_listens, one), Bench::start(two_listens, two));

    let of_one =
        one.report("one has sent and received all", |it| (it.prefixes_sent, it.prefixes_received) == (1000, 3)).await;
    let of_two =
        two.report("two has sent and received all", |it| (it.prefixes_sent, it.prefixes_received) == (3, 1000)).await;
    assert_eq!((of_one.state, of_two.state), (SessionState::Established, SessionState::Established));
    assert_eq!(of_one.local_address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!(of_one.hold_time_secs, Some(90));

    one.stop("the node restarts").await;
    let parted = two.report("the session is over", |it| it.state != SessionState::Established).await;
    let why = parted.last_error.expect("the reason is kept");
    assert!(why.contains("Administrative Shutdown") && why.contains("the node restarts"), "{why}");
    two.stop("done").await;
}

#[tokio::test]
async fn two_speakers_that_meet_over_ipv6_exchange_ipv4_routes_too() {
    let route = |prefix: &str| (prefix.parse::<IpNet>().unwrap(), Arc::default());
    let two_of_ipv4 = Routes::from_iter([route("192.0.2.1/32"), route("192.0.2.2/32")]);
    let (one_listens, one_address) = listeners("::1");
    let (two_listens, two_address) = listeners("::1");
    let mut one = slice([10, 0, 0, 1], settings("two", two_address, Some("::1")), two_of_ipv4);
    one.local_addresses = on_lo(&["::1/128", "10.9.9.9/32"]);
    let two = config::Peer { local_asn: 65002, ..settings("one", one_address, Some("::1")) };
    let mut one = Bench::start(one_listens, one);
    let mut two = Bench::start(two_listens, slice([10, 0, 0, 2], two, Routes::new()));
    let report = two.report("the routes came", |it| it.prefixes_received == 2).await;
    assert_eq!(report.local_address, Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    one.report("its session is up", |it| it.state == SessionState::Established).await;
}

#[tokio::test]
async fn x25_the_last_word_is_read_although_input_was_left_unread() {
    let (mut bench, address) = against_a_script(Routes::new(), |_| {});
    let mut script = Script::dial(address, None).await;
    script.say(&Script::open(65010, 90, &[])).await;
    // Much more than the speaker reads at once. It may close before all of it is taken.
    let _ = script.stream.write_all(&[0; 400_000]).await;
    assert!(matches!(script.hear().await, Some(Parsed::Open(_))));
    match script.hear().await {
        Some(Parsed::Notification(notification)) => {
            assert_eq!(notification.reason, NotificationReason::Open(OpenError::BadPeerAs));
        }
        other => panic!("a NOTIFICATION was to come, not {other:?}"),
    }
    assert_eq!(script.hear().await, None, "and then the end of the stream");
    let report = bench.report("the refusal is told", |it| it.last_error.is_some()).await;
    let why = report.last_error.unwrap();
    assert!(why.contains("65010") && why.contains("65009"), "both AS numbers are named: {why}");
}

#[tokio::test]
async fn x9_x11_a_peer_that_stops_reading_ends_with_exactly_what_is_wanted_when_it_reads_again() {
    let (mut bench, address) = against_a_script(routes(10_000, 0), |_| {});
    let mut script = Script::dial(address, Some(4096)).await;
    script.establish(90).await;
    bench
        .report("not all could be sent", |it| it.state == SessionState::Established && it.prefixes_sent < 10_000)
        .await;
    // The window is closed. 5,000 of the prefixes change twice, 1,000 go, 500 are new.
    let mut wanted = routes(10_000, 0);
    for med in [1, 2] {
        wanted = routes(5_000, med).union(wanted);
        change_routes(&bench, wanted.clone());
        tokio::task::yield_now().await;
    }
    wanted = wanted.into_iter().take(9_000).collect();
    wanted = wanted.union(routes(20_500, 3).into_iter().skip(20_000).collect());
    change_routes(&bench, wanted.clone());
    script.read_until("all routes came", |script| script.has_exactly(&wanted) && script.ends_of_rib.len() == 2).await;
    let most = 10_000 + 5_000 + 500;
    assert!(script.announcements <= most, "{} announcements: at most once more for each changed", script.announcements);
    bench.stop("done").await;
}

#[tokio::test]
async fn x9_a_peer_that_stops_reading_keeps_no_other_peer_waiting() {
    let (bench, address) = against_a_script(routes(10_000, 0), |_| {});
    bench.slices.send_modify(|slice| {
        let script = slice.peers.get(&PeerName::from("script")).expect("the one peer");
        let mut settings = config::Peer::clone(&script.settings);
        settings.name = "other".into();
        let address = ScopedAddress { ip: "127.0.0.8".parse().unwrap(), interface: None };
        settings.address = PeerAddress::Fixed(address.clone());
        let other = PeerSlice {
            settings: Arc::new(settings),
            address: Ok(address),
            routes: script.routes.clone(),
            orders: Default::default(),
        };
        slice.peers.insert("other".into(), other);
    });
    let mut silent = Script::dial(address, Some(4096)).await;
    silent.establish(90).await;
    let mut other = Script::dial_from("127.0.0.8", address, None).await;
    other.establish(90).await;
    other.read_until("the other has all", |other| other.rib.len() == 10_000 && other.ends_of_rib.len() == 2).await;
    // What changes reaches the one that reads, and waits for the one that does not.
    for med in 1..=5 {
        let wanted = routes(10, med).union(routes(10_000, 0));
        bench.slices.send_modify(|slice| {
            let peers: Vec<_> = slice.peers.values().cloned().collect();
            for peer in peers {
                slice.peers.insert(peer.settings.name.clone(), PeerSlice { routes: wanted.clone(), ..peer });
            }
        });
        other.read_until("the other has the change", |other| other.has_exactly(&wanted)).await;
    }
    let wanted = routes(10, 5).union(routes(10_000, 0));
    silent.read_until("the silent one reads again", |silent| silent.has_exactly(&wanted)).await;
    assert!(silent.announcements <= 10_000 + 10, "{} announcements", silent.announcements);
}

#[tokio::test]
async fn x9_a_closed_window_keeps_neither_orders_nor_the_hold_timer_waiting() {
    let (mut bench, address) =
        against_a_script(routes(10_000, 0), |peer| peer.hold_time = Some(Duration::from_secs(3)));
    let mut script = Script::dial(address, Some(4096)).await;
    script.establish(90).await;
    let established = bench.report("it is established", |it| it.state == SessionState::Established).await;
    assert_eq!(established.hold_time_secs, Some(3));
    let since = clock::now();
    let lost = bench.report("the silent peer is given up", |it| it.state != SessionState::Established).await;
    assert!(lost.last_error.as_ref().is_some_and(|why| why.contains("Hold Timer Expired")), "{lost:?}");
    assert!(clock::since(since) < Duration::from_secs(6), "after 3 s, and some for a busy machine");

    let mut script = Script::dial(address, Some(4096)).await;
    script.establish(0).await;
    bench.report("it is established again", |it| it.state == SessionState::Established).await;
    // Nothing can be said to this peer any more; leaving takes no longer for it.
    bench.stop("done").await;
}

#[tokio::test]
async fn a_route_refresh_brings_all_routes_again_and_end_of_rib_comes_once() {
    let (bench, address) = against_a_script(routes(10, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    script.read_until("all came", |script| script.rib.len() == 10 && script.ends_of_rib.len() == 2).await;
    script
        .say(&Message::RouteRefresh(RouteRefresh { family: AfiSafi::IPV6_UNICAST, kind: RefreshKind::Request }))
        .await;
    script.read_until("all came again", |script| script.announcements == 20).await;
    assert_eq!(script.ends_of_rib.len(), 2, "one for each family");
    drop(bench);
}

#[tokio::test]
async fn what_is_refreshed_stands_between_a_beginning_and_an_end_where_both_sides_know_them() {
    let (mut bench, address) = against_a_script(routes(10, 0), |_| {});
    bench.slices.send_modify(|slice| slice.complete = false);
    let mut script = Script::dial(address, None).await;
    script.establish_with(90, &[Capability::EnhancedRouteRefresh]).await;
    script.read_until("the routes came", |script| script.rib.len() == 10).await;
    let marker = |kind| RouteRefresh { family: AfiSafi::IPV6_UNICAST, kind };
    for _ in 0..100 {
        script.say(&Message::RouteRefresh(marker(RefreshKind::Request))).await;
    }
    let attributes = Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(vec![AsPathSegment { set: false, asns: vec![65009] }]),
        next_hop: Some(Ipv4Addr::new(10, 0, 0, 9)),
        ..Attributes::default()
    };
    let announced = vec!["203.0.113.0/24".parse().unwrap()];
    let four_octets = Dialect { four_octet_asn: true, ..Dialect::BEFORE_OPEN };
    let mut octets = BytesMut::new();
    Message::Update(Update { attributes, announced, ..Update::default() }).emit(&four_octets, &mut octets).unwrap();
    script.stream.write_all(&octets).await.unwrap();
    bench.report("all that the peer has asked for is read", |it| it.prefixes_received == 1).await;
    // RFC 7313 §4: not before End-of-RIB.
    bench.slices.send_modify(|slice| slice.complete = true);
    script.read_until("the end is told", |script| script.ends_of_rib.len() == 2).await;
    assert_eq!(script.announcements, 10, "nothing was sent again before the End-of-RIB");
    for (kind, announcements) in [(RefreshKind::Begin, 10), (RefreshKind::End, 20)] {
        let refresh = loop {
            match script.hear().await {
                Some(Parsed::Update(update)) => script.apply(update),
                Some(Parsed::RouteRefresh(refresh)) => break refresh,
                Some(Parsed::Keepalive) => {}
                other => panic!("{other:?} came instead of a mark"),
            }
        };
        assert_eq!((refresh, script.announcements), (marker(kind), announcements));
    }
    // However often it was asked for, what had not begun yet was sent once; nothing else follows but what is new.
    change_routes(&bench, routes(11, 0));
    script.read_until("one more route came", |script| script.rib.len() == 11).await;
    assert_eq!(script.announcements, 21);
}

#[tokio::test]
async fn long_messages_go_both_ways_only_where_both_sides_offer_them() {
    for (more, longest, lives) in
        [(vec![Capability::ExtendedMessage], 30_000..=65_535, true), (vec![], 4_000..=4_096, false)]
    {
        let (mut bench, address) = against_a_script(routes(2_000, 0), |_| {});
        let mut script = Script::dial(address, None).await;
        script.establish_with(90, &more).await;
        script.read_until("all came", |script| script.rib.len() == 2_000 && script.ends_of_rib.len() == 2).await;
        assert!(longest.contains(&script.longest), "2,000 /128 in messages of at most {} octets", script.longest);
        // An UPDATE of 60,023 octets that withdraws 15,000 /24.
        let mut long = vec![0xff; 16];
        long.extend([0xea, 0x77, 2, 0xea, 0x60]);
        long.extend([24, 203, 0, 113].repeat(15_000));
        long.extend([0, 0]);
        script.stream.write_all(&long).await.unwrap();
        script
            .say(&Message::RouteRefresh(RouteRefresh { family: AfiSafi::IPV6_UNICAST, kind: RefreshKind::Request }))
            .await;
        match script.hear().await {
            Some(Parsed::Update(_)) => assert!(lives, "it was not offered, and yet taken"),
            Some(Parsed::Notification(notification)) => {
                assert!(!lives, "{notification}");
                assert_eq!((notification.reason.code(), notification.reason.subcode()), (1, 2));
                assert_eq!(notification.data, [0xea, 0x77], "RFC 4271 §6.1: the length");
            }
            other => panic!("{other:?} is no answer"),
        }
        bench.report("it is reported", |it| (it.state == SessionState::Established) == lives).await;
    }
}

#[tokio::test]
async fn end_of_rib_waits_until_the_routes_are_complete() {
    let (bench, address) = against_a_script(routes(10, 0), |_| {});
    bench.slices.send_modify(|slice| slice.complete = false);
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    script.read_until("the routes came", |script| script.rib.len() == 10).await;
    change_routes(&bench, routes(11, 0));
    script.read_until("one more route came", |script| script.rib.len() == 11).await;
    assert_eq!(script.ends_of_rib, [], "more routes may follow");
    bench.slices.send_modify(|slice| slice.complete = true);
    script.read_until("the end is told", |script| script.ends_of_rib.len() == 2).await;
}

#[tokio::test]
async fn a_removed_peer_and_a_changed_one_are_told_so() {
    for (cease, removed) in [(Cease::PeerDeconfigured, true), (Cease::OtherConfigurationChange, false)] {
        let (bench, address) = against_a_script(Routes::new(), |_| {});
        let mut script = Script::dial(address, None).await;
        script.establish(90).await;
        script.read_until("the session is up", |script| script.ends_of_rib.len() == 2).await;
        bench.slices.send_modify(|slice| {
            let name = PeerName::from("script");
            let mut peer = slice.peers.remove(&name).expect("the one peer");
            if !removed {
                Arc::make_mut(&mut peer.settings).hold_time = Some(Duration::from_secs(30));
                slice.peers.insert(name, peer);
            }
        });
        match script.hear().await {
            Some(Parsed::Notification(notification)) => {
                assert_eq!(notification.reason, NotificationReason::Cease(cease))
            }
            other => panic!("a NOTIFICATION was to come, not {other:?}"),
        }
        assert_eq!(script.hear().await, None);
        if !removed {
            let mut script = Script::dial(address, None).await;
            script.establish(90).await;
        }
    }
}

/// Input: a peer with `address = "gateway"` and a session with each of two routers is shut down by an operator; and the agent stops.
/// Output: both routers are told so, in the words of either.
#[tokio::test]
async fn a_further_session_of_a_gateway_peer_is_told_of_a_shutdown_as_the_first_is() {
    for by_operator in [true, false] {
        let (listeners, address) = listeners("127.0.0.1");
        let sessions = [("tor", "127.0.0.9:179"), ("tor@127.0.0.8", "127.0.0.8:179")];
        let peers = sessions.map(|(name, at)| config::Peer {
            passive: true,
            asn: PeerAsn::Is(65009),
            ..settings(name, at.parse().unwrap(), None)
        });
        let mut slice = slice_of([10, 0, 0, 1], peers);
        for (name, _) in sessions {
            let peer = slice.peers.get(&PeerName::from(name)).expect("it is there").clone();
            let settings = config::Peer { address: PeerAddress::Gateway, ..config::Peer::clone(&peer.settings) };
            slice.peers.insert(name.into(), PeerSlice { settings: Arc::new(settings), ..peer });
        }
        let mut bench = Bench::start(listeners, slice);
        let mut scripts = Vec::new();
        for from in ["127.0.0.9", "127.0.0.8"] {
            let mut script = Script::dial_from(from, address, None).await;
            script.establish(90).await;
            scripts.push(script);
        }
        bench.established(&["tor", "tor@127.0.0.8"]).await;
        let expected = match by_operator {
            true => {
                // What the plan does with it.
                bench.slices.send_modify(|slice| {
                    let first = slice.peers.remove(&PeerName::from("tor")).expect("it is there");
                    slice.peers.clear();
                    let shut = PeerSlice { address: Err(Reason::PeerShutByOperator), ..first };
                    slice.peers.insert("tor".into(), shut);
                });
                Notification::administrative_shutdown(&Reason::PeerShutByOperator.to_string())
            }
            false => {
                let leave = Parting::Leave("crier stops".to_owned());
                bench.shutdown.take().expect("once").send(leave).expect("the speaker runs");
                Notification::administrative_shutdown("crier stops")
            }
        };
        for mut script in scripts {
            loop {
                match script.hear().await {
                    Some(Parsed::Notification(said)) => break assert_eq!(said, expected, "{by_operator}"),
                    Some(Parsed::Update(_) | Parsed::Keepalive) => {}
                    other => panic!("{other:?} came in place of a NOTIFICATION"),
                }
            }
        }
    }
}

/// Input: `address = "10.0.0.1"` becomes `"gateway"`, and the default route leads there. Output: the session goes on.
#[tokio::test]
async fn a_peer_that_is_found_in_another_way_at_the_same_address_keeps_its_session() {
    let (listeners, address) = listeners("127.0.0.1");
    let peer = config::Peer {
        passive: true,
        asn: PeerAsn::Is(65009),
        ..settings("tor", "127.0.0.9:179".parse().unwrap(), None)
    };
    let mut bench = Bench::start(listeners, slice([10, 0, 0, 1], peer, routes(1, 7)));
    let mut script = Script::dial_from("127.0.0.9", address, None).await;
    script.establish(90).await;
    bench.established(&["tor"]).await;
    bench.slices.send_modify(|slice| {
        let tor = slice.peers.get_mut(&PeerName::from("tor")).expect("it is there");
        let settings = config::Peer { address: PeerAddress::Gateway, ..config::Peer::clone(&tor.settings) };
        (tor.settings, tor.routes) = (Arc::new(settings), routes(2, 9));
    });
    loop {
        match script.hear().await {
            Some(Parsed::Update(update)) if update.update.attributes.med == Some(9) => break,
            Some(Parsed::Update(_) | Parsed::Keepalive) => {}
            other => panic!("{other:?} came in place of the new routes"),
        }
    }
}

/// Input: an operator resets a peer. Output: the next task knows from where the router had its session, before it has one.
#[tokio::test]
async fn a_reset_does_not_forget_from_where_the_router_knows_this_host() {
    let (mut bench, address) = against_a_script(routes(1, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    bench.report("it is established", |it| it.state == SessionState::Established).await;
    bench.slices.send_modify(|slice| {
        let name = PeerName::from("script");
        let mut peer = slice.peers.get(&name).expect("the one peer").clone();
        peer.orders.resets += 1;
        slice.peers.insert(name, peer);
    });
    let anew = |it: &SessionReport| it.detail.times_established == 0 && it.state != SessionState::Established;
    let report = bench.report("the next task has begun", anew).await;
    assert_eq!(report.detail.known_from, Some("127.0.0.1".parse().unwrap()));
}

#[tokio::test]
async fn a_connection_from_an_address_that_is_no_peers_is_closed() {
    let (_bench, address) = against_a_script(Routes::new(), |_| {});
    let mut caller = TcpStream::connect(address).await.unwrap();
    let read = tokio::time::timeout(SOON, caller.read(&mut [0; 64])).await.expect("closed at once");
    assert!(matches!(read, Ok(0) | Err(_)), "without a word: {read:?}");
}

#[tokio::test]
async fn without_a_router_id_nobody_is_talked_to() {
    let (idle_listeners, _) = listeners("127.0.0.1");
    let peer = settings("nobody", "127.0.0.8:9".parse().unwrap(), None);
    let without = BgpSlice { router_id: None, ..slice([0; 4], peer, Routes::new()) };
    let mut idle = Bench::start(idle_listeners, without);
    idle.slices.send_modify(|slice| slice.complete = false);
    tokio::task::yield_now().await;
    assert!(idle.facts.is_empty(), "there is no session to report");
    idle.slices.send_modify(|slice| slice.router_id = Some(Ipv4Addr::new(10, 0, 0, 7)));
    let first = idle.report("the peer is started with the id", |_| true).await;
    assert_eq!(first.state, SessionState::Connect);
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_is_reported_with_the_kernels_words() {
    let (idle_listeners, _) = listeners("127.0.0.1");
    // Nobody listens on the discard port of loopback.
    let nobody = settings("nobody", "127.0.0.8:9".parse().unwrap(), None);
    let mut bench = Bench::start(idle_listeners, slice([10, 0, 0, 1], nobody, Routes::new()));
    let report = bench.report("the dial failed", |it| it.last_error.is_some()).await;
    assert_eq!(report.last_error.as_deref(), Some("cannot connect: Connection refused"));
    assert_eq!(report.state, SessionState::Active);
}

#[tokio::test]
async fn a_peer_that_is_nowhere_is_talked_to_once_it_is_found_and_its_session_ends_when_it_moves() {
    let (first, at_first) = listeners("127.0.0.1");
    let (second, at_second) = listeners("127.0.0.2");
    let (ours, _) = listeners("127.0.0.1");
    let passive = |name: &str| config::Peer {
        passive: true,
        asn: PeerAsn::External,
        local_asn: 65002,
        ..settings(name, "127.0.0.9:1".parse().unwrap(), None)
    };
    let mut one = Bench::start(first, slice([10, 0, 0, 2], passive("one"), Routes::new()));
    let mut two = Bench::start(second, slice([10, 0, 0, 3], passive("two"), Routes::new()));

    let found = slice([10, 0, 0, 1], settings("gateway", at_first, Some("127.0.0.9")), Routes::new());
    let place = |address: Result<SocketAddr, Reason>| {
        let mut slice = found.clone();
        let peer = slice.peers.get_mut(&PeerName::from("gateway")).expect("the only peer");
        // All of them have the port of the first listener, so the settings say which one is meant.
        peer.settings = match &address {
            Ok(address) => Arc::new(settings("gateway", *address, Some("127.0.0.9"))),
            Err(_) => Arc::clone(&peer.settings),
        };
        peer.address = address.map(|address| ScopedAddress { ip: address.ip(), interface: None });
        slice
    };
    let mut bench = Bench::start(ours, place(Err(Reason::NoDefaultRoute)));
    bench.slices.send_replace(place(Ok(at_first)));
    one.report("the peer was found", |report| report.state == SessionState::Established).await;
    bench.report("it is established", |report| report.state == SessionState::Established).await;
    bench.slices.send_replace(place(Ok(at_second)));
    one.report("the session ended for a change of configuration", |report| {
        report.last_error.as_deref().is_some_and(|why| why.contains("Other Configuration Change"))
    })
    .await;
    two.report("the peer is at the second place", |report| report.state == SessionState::Established).await;
    bench.report("it is established there", |report| report.state == SessionState::Established).await;
    bench.slices.send_replace(place(Err(Reason::NoDefaultRoute)));
    bench.report("it has no session any more", |report| report.state == SessionState::Idle).await;
    two.report("the session ended", |report| report.state != SessionState::Established).await;
    bench.stop("done").await;
    one.stop("done").await;
    two.stop("done").await;
}

fn password(text: &str) -> Option<config::SecretFile> {
    Some(config::SecretFile { path: None, secret: text.as_bytes().into() })
}

/// A slice with several peers.
fn slice_of(router_id: [u8; 4], peers: impl IntoIterator<Item = config::Peer>) -> BgpSlice {
    let mut all = BgpSlice { router_id: Some(router_id.into()), complete: true, ..BgpSlice::default() };
    for settings in peers {
        let name = settings.name.clone();
        let PeerAddress::Fixed(address) = settings.address.clone() else { panic!("{name} has no address") };
        all.peers.insert(
            name,
            PeerSlice {
                settings: Arc::new(settings),
                address: Ok(address),
                routes: Routes::new(),
                orders: Default::default(),
            },
        );
    }
    all
}

impl Bench {
    /// Waits until every one of these peers has an established session.
    async fn established(&mut self, names: &[&str]) {
        let mut up = std::collections::BTreeSet::new();
        let mut last = BTreeMap::new();
        let wait = async {
            while up.len() < names.len() {
                let Some(Fact::Session(name, report)) = self.facts.recv().await else {
                    panic!("the speaker has ended")
                };
                if report.state == SessionState::Established {
                    up.insert(name.to_string());
                } else {
                    up.remove(name.as_str());
                }
                last.insert(name, report);
            }
        };
        if tokio::time::timeout(SOON, wait).await.is_err() {
            panic!("not all of {names:?} came up: {last:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_a_password_comes_up_whoever_dials_and_with_another_one_it_does_not() {
    for (ours, theirs, works) in [("one", "one", true), ("one", "two", false)] {
        let (one_listens, one_address) = listeners("127.0.0.1");
        let (two_listens, two_address) = listeners("127.0.0.2");
        // A dial into silence is given up after the connect-retry time.
        let fast = |peer: config::Peer| config::Peer { connect_retry_time: Duration::from_millis(500), ..peer };
        let one = fast(config::Peer { password: password(ours), ..settings("two", two_address, Some("127.0.0.1")) });
        let two = fast(config::Peer {
            local_asn: 65002,
            password: password(theirs),
            ..settings("one", one_address, Some("127.0.0.2"))
        });
        let mut one = Bench::start(one_listens, slice_of([10, 0, 0, 1], [one]));
        let mut two = Bench::start(two_listens, slice_of([10, 0, 0, 2], [two]));
        if works {
            one.established(&["two"]).await;
            two.established(&["one"]).await;
        } else {
            let report = one.report("the dial failed", |it| it.last_error.is_some()).await;
            assert_ne!(report.state, SessionState::Established);
            assert!(report.last_error.unwrap().starts_with("cannot connect"), "the kernel drops what they send");
        }
    }
}

/// Two routers at one address, and a node with two addresses, AS numbers and router ids: each session has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_one_address_have_each_its_own_local_address_as_number_router_id_and_password() {
    let listen = Listen { addresses: vec!["0.0.0.0".parse().unwrap()], port: 0 };
    let node_listens = Listeners::open(&listen).unwrap();
    let port = node_listens.local_addresses()[0].port();
    let (router_listens, router_address) = listeners("127.0.0.5");
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
    // The node waits, so that all depends on telling apart what comes in.
    let of_node = |name: &str, source: &str, local_asn, last: u8| config::Peer {
        passive: true,
        local_asn,
        router_id: Some(Ipv4Addr::new(10, 9, 9, last)),
        password: password(name),
        ..settings(name, router_address, Some(source))
    };
    let of_router = |name: &str, to: &str, asn| config::Peer {
        local_asn: 65100,
        asn: PeerAsn::Is(asn),
        password: password(name),
        ..settings(name, at(to), Some("127.0.0.5"))
    };
    let node = [of_node("blue", "127.0.0.6", 65006, 6), of_node("green", "127.0.0.7", 65007, 7)];
    let router = [of_router("blue", "127.0.0.6", 65006), of_router("green", "127.0.0.7", 65007)];
    let mut node = Bench::start(node_listens, slice_of([10, 0, 0, 1], node));
    // The keys are there when the router dials.
    node.report("the peers are started", |it| it.state == SessionState::Active).await;
    let mut router = Bench::start(router_listens, slice_of([10, 0, 0, 2], router));
    router.established(&["blue", "green"]).await;
    node.established(&["blue", "green"]).await;
}

#[tokio::test]
async fn a_peer_sees_its_own_router_id_and_ours_is_compared_with_that() {
    let (bench, address) = against_a_script(Routes::new(), |peer| {
        peer.router_id = Some(Ipv4Addr::new(10, 0, 0, 77));
    });
    let mut script = Script::dial(address, None).await;
    script.say(&Script::open(65009, 90, &[])).await;
    match script.hear().await {
        Some(Parsed::Open(open)) => assert_eq!(open.identifier, Ipv4Addr::new(10, 0, 0, 77)),
        other => panic!("an OPEN was to come, not {other:?}"),
    }
    drop(bench);
}

#[tokio::test]
async fn without_a_hold_time_no_keepalive_is_asked_for_and_silence_ends_nothing() {
    let (mut bench, address) = against_a_script(routes(3, 0), |peer| peer.hold_time = None);
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    let report = bench.report("it is established", |it| it.state == SessionState::Established).await;
    assert_eq!(report.hold_time_secs, None, "0 on either side is none (RFC 4271 §4.2)");
    script.read_until("the routes came", |script| script.rib.len() == 3).await;
}

/// D1 of the field cases: an address that has nothing to do with the session comes and goes.
#[tokio::test]
async fn a_family_that_loses_its_next_hop_is_withdrawn_and_comes_back_within_one_session() {
    let v4: IpNet = "192.0.2.1/32".parse().unwrap();
    let both = routes(3, 0).union(Routes::from_iter([(v4, Arc::default())]));
    let (mut bench, address) = against_a_script(both, |_| {});
    let with_v6 = on_lo(&["10.9.9.9/24", "fd00::1/64"]);
    let set = |bench: &Bench, to: Arc<Vec<LocalAddress>>| bench.slices.send_modify(|slice| slice.local_addresses = to);
    set(&bench, Arc::clone(&with_v6));
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    script.read_until("all came", |script| script.rib.len() == 4 && script.ends_of_rib.len() == 2).await;
    for flap in 1..=4 {
        set(&bench, on_lo(&["10.9.9.9/24"]));
        script.read_until("IPv6 is withdrawn", |script| script.rib.keys().eq([&v4])).await;
        set(&bench, Arc::clone(&with_v6));
        script.read_until("IPv6 is back", |script| script.rib.len() == 4).await;
        assert_eq!(script.announcements, 4 + 3 * flap, "IPv4 heard nothing of it");
    }
    let report = bench.report("all is sent", |it| it.prefixes_sent == 4 && it.detail.prefixes_pending == 0).await;
    assert_eq!(
        (report.state, report.last_error, report.detail.times_established),
        (SessionState::Established, None, 1)
    );
    bench.stop("done").await;
}

/// D2 of the field cases.
#[tokio::test]
async fn a_connection_from_an_address_that_leaves_the_host_ends_and_the_peer_is_dialled_anew_at_once() {
    let router = tokio::net::TcpListener::bind("127.0.0.9:0").await.unwrap();
    let (idle_listeners, _) = listeners("127.0.0.1");
    let mut settings = settings("script", router.local_addr().unwrap(), None);
    settings.asn = PeerAsn::Is(65009);
    settings.connect_retry_time = Duration::from_secs(3600);
    let mut of_router = slice([10, 0, 0, 1], settings, routes(1, 0));
    of_router.local_addresses = on_lo(&["127.0.0.1/8", "fd00::1/64"]);
    let mut bench = Bench::start(idle_listeners, of_router);
    for _ in 0..3 {
        let (stream, _) = tokio::time::timeout(SOON, router.accept()).await.expect("the router is dialled").unwrap();
        let mut script = Script::on(stream);
        script.establish(90).await;
        bench.report("it is established", |it| it.state == SessionState::Established).await;
        bench.slices.send_modify(|slice| slice.local_addresses = on_lo(&["fd00::1/64"]));
        let lost = bench.report("it is over", |it| it.state != SessionState::Established).await;
        let why = "connection closed: 127.0.0.1 is not an address of this host any more";
        assert_eq!(lost.last_error.as_deref(), Some(why));
        bench.slices.send_modify(|slice| slice.local_addresses = on_lo(&["127.0.0.1/8", "fd00::1/64"]));
    }
}

/// D6 of the field cases. The peer's kernel is this one, so it acknowledges on the first connection; a router that has lost
/// its state would answer with a reset.
#[tokio::test]
async fn a_second_open_has_a_keepalive_sent_on_the_established_connection_which_stays_where_it_is_acknowledged() {
    let (mut bench, address) = against_a_script(routes(1, 0), |peer| peer.hold_time = None);
    let mut first = Script::dial(address, None).await;
    first.establish(0).await;
    first.read_until("all came", |script| script.ends_of_rib.len() == 2).await;
    let mut second = Script::dial(address, None).await;
    second.say(&Script::open(65009, 0, &[])).await;
    assert!(matches!(second.hear().await, Some(Parsed::Open(_))));
    assert!(matches!(second.hear().await, Some(Parsed::Notification(_))), "RFC 4271 §6.8");
    assert!(matches!(first.hear().await, Some(Parsed::Keepalive)), "is the first still there?");
    tokio::time::sleep(crate::bgp::machine::session::PROOF_TIME + Duration::from_millis(300)).await;
    change_routes(&bench, routes(2, 0));
    first.read_until("the session goes on", |script| script.rib.len() == 2).await;
    // A peer that acknowledges nothing and one that resets end alike: the kernel says so of the connection.
    socket2::SockRef::from(&first.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first);
    bench.report("it is over", |it| it.state != SessionState::Established).await;
}

/// D12 of the field cases.
#[tokio::test]
async fn an_update_whose_routes_cannot_be_located_is_counted_and_the_session_stays() {
    let (mut bench, address) = against_a_script(routes(1, 0), |_| {});
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    // MP_REACH_NLRI of IPv6 unicast with a next hop of 5 octets, and one that ends behind its family.
    for attribute in [&[0x80, 14, 10, 0, 2, 1, 5, 1, 2, 3, 4, 5, 0][..], &[0x80, 14, 3, 0, 2, 1]] {
        let mut octets = vec![0xff; 16];
        octets.extend(u16::try_from(23 + attribute.len()).unwrap().to_be_bytes());
        octets.extend([2, 0, 0, 0, u8::try_from(attribute.len()).unwrap()]);
        octets.extend(attribute);
        script.stream.write_all(&octets).await.unwrap();
    }
    let report = bench.report("both were counted", |it| it.detail.updates_malformed == 2).await;
    assert_eq!((report.state, report.prefixes_received), (SessionState::Established, 0));
    change_routes(&bench, routes(2, 0));
    script.read_until("the session goes on", |script| script.rib.len() == 2).await;
}

/// D16 of the field cases.
#[tokio::test]
async fn a_path_that_is_refused_for_what_it_says_is_not_malformed() {
    let (mut bench, address) = against_a_script(Routes::new(), |_| {});
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    let confederation = [0x40, 2, 6, 3, 1, 0, 0, 0xfd, 0xf1];
    let of_a_route_server = [0x40, 2, 6, 2, 1, 0, 0, 0x12, 0x34];
    let broken = [0x40, 2, 6, 9, 1, 0, 0, 0xfd, 0xf1];
    for path in [confederation, of_a_route_server, broken] {
        let list = [&[0x40, 1, 1, 0][..], &path, &[0x40, 3, 4, 10, 0, 0, 9]].concat();
        let mut octets = vec![0xff; 16];
        octets.extend(u16::try_from(23 + list.len() + 4).unwrap().to_be_bytes());
        octets.extend([2, 0, 0, 0, u8::try_from(list.len()).unwrap()]);
        octets.extend(&list);
        octets.extend([24, 203, 0, 113]);
        script.stream.write_all(&octets).await.unwrap();
    }
    let report = bench.report("three came", |it| it.detail.messages_received.update == 3).await;
    assert_eq!((report.detail.updates_malformed, report.prefixes_received), (1, 0), "none of them is used");
}

/// D16 of the field cases: of several routers the node may be another to each.
#[tokio::test]
async fn the_report_names_the_router_id_that_the_peer_sees() {
    let (mut bench, address) = against_a_script(Routes::new(), |peer| {
        peer.router_id = Some(Ipv4Addr::new(10, 0, 0, 77));
    });
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
    let report = bench.report("it is established", |it| it.state == SessionState::Established).await;
    let ours = report.detail.negotiated.map(|negotiated| negotiated.local_router_id);
    assert_eq!(ours, Some(Ipv4Addr::new(10, 0, 0, 77)));
}

/// D14 of the field cases.
#[tokio::test]
async fn the_reason_for_a_refused_open_stays_visible_when_the_router_only_closes_from_then_on() {
    let router = tokio::net::TcpListener::bind("127.0.0.9:0").await.unwrap();
    let (idle_listeners, _) = listeners("127.0.0.1");
    let mut settings = settings("script", router.local_addr().unwrap(), None);
    settings.asn = PeerAsn::Is(65009);
    settings.connect_retry_time = Duration::from_millis(100);
    let mut bench = Bench::start(idle_listeners, slice([10, 0, 0, 1], settings, Routes::new()));
    let (stream, _) = router.accept().await.unwrap();
    let mut script = Script::on(stream);
    let refusal = Notification::from(NotificationReason::Open(OpenError::BadPeerAs));
    assert!(matches!(script.hear().await, Some(Parsed::Open(_))));
    script.say(&Message::Notification(refusal)).await;
    drop(script);
    drop(router.accept().await.unwrap());
    let told = |it: &SessionReport| it.last_error.as_ref().is_some_and(|why| why.contains("before that"));
    let why = bench.report("both are told", told).await.last_error.unwrap();
    assert!(why.starts_with("connection lost") && why.contains("Bad Peer AS"), "{why}");
}

#[tokio::test]
async fn a_passive_peer_dials_nobody_and_takes_who_comes() {
    let target = tokio::net::TcpListener::bind("127.0.0.9:0").await.unwrap();
    let port = target.local_addr().unwrap().port();
    let (mut bench, address) = against_a_script(Routes::new(), |peer| {
        peer.port = port;
        peer.connect_retry_time = Duration::from_millis(100);
    });
    bench.report("it waits", |it| it.state == SessionState::Active).await;
    let dialled = tokio::time::timeout(Duration::from_millis(500), target.accept()).await;
    assert!(dialled.is_err(), "it is not to dial: {dialled:?}");
    let mut script = Script::dial(address, None).await;
    script.establish(90).await;
}

#[tokio::test]
async fn a_source_address_that_this_host_has_not_is_named_with_the_peer() {
    let (idle_listeners, _) = listeners("127.0.0.1");
    let far = settings("far", "127.0.0.8:9".parse().unwrap(), Some("192.0.2.77"));
    let mut bench = Bench::start(idle_listeners, slice_of([10, 0, 0, 1], [far]));
    let report = bench.report("the dial failed", |it| it.last_error.is_some()).await;
    assert_eq!(
        report.last_error.as_deref(),
        Some("cannot connect: source address 192.0.2.77: Cannot assign requested address")
    );
}

#[tokio::test]
async fn a_passive_peer_whose_key_the_kernel_does_not_take_says_so_and_takes_nobody() {
    let secret = config::SecretFile { path: None, secret: (&b"key"[..]).into() };
    let key = config::AoKey { send_id: 1, receive_id: 1, algorithm: config::AoAlgorithm::HmacSha1, secret };
    let (mut bench, address) = against_a_script(Routes::new(), |peer| peer.tcp_ao = vec![key]);
    let told = async {
        loop {
            let Some(Fact::Session(_, report)) = bench.facts.recv().await else { panic!("the speaker has ended") };
            if let Some(why) = report.last_error {
                return why;
            }
        }
    };
    // A kernel with TCP-AO has nothing to say, and drops what is not signed.
    let Ok(why) = tokio::time::timeout(Duration::from_secs(2), told).await else { return };
    assert_eq!(why, "this kernel has no TCP-AO: it takes Linux 6.7 or later with CONFIG_TCP_AO");
    let mut script = Script::dial(address, None).await;
    let read = tokio::time::timeout(SOON, script.stream.read(&mut [0; 64])).await.expect("closed at once");
    assert!(matches!(read, Ok(0) | Err(_)), "without a word: {read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_ttl_security_on_both_ends_a_session_comes_up_and_with_a_router_between_it_does_not() {
    for (theirs, works) in [(255, true), (254, false)] {
        let (one_listens, one_address) = listeners("127.0.0.1");
        let (two_listens, _) = listeners("127.0.0.2");
        let near = config::Peer {
            passive: true,
            ttl_security: true,
            ..settings("two", "127.0.0.2:179".parse().unwrap(), Some("127.0.0.1"))
        };
        // What is left of the TTL behind a router.
        let two =
            config::Peer { local_asn: 65002, multihop: theirs, ..settings("one", one_address, Some("127.0.0.2")) };
        let mut one = Bench::start(one_listens, slice_of([10, 0, 0, 1], [near]));
        let _two = Bench::start(two_listens, slice_of([10, 0, 0, 2], [two]));
        if works {
            one.established(&["two"]).await;
        } else {
            let report = one.report("it is refused", |it| it.last_error.is_some()).await;
            assert_eq!(
                report.last_error.as_deref(),
                Some("an accepted connection came with TTL 254, not from the link")
            );
        }
    }
}

mod bfd;
mod crash;
mod graceful;
mod kept;
