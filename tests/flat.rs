//! Memory stays flat: over a day of flaps and churn in virtual time, and over floods of what others send. What a machine holds
//! is counted in octets of heap, so that nothing that grows can be forgotten. The day of whole towns is in `tests/town/day.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crier::address::{Family, MacAddress};
use crier::arp::machine::answer::{self, Station, Verdict};
use crier::arp::machine::{Claims, Surroundings};
use crier::arp::packet::Protocol;
use crier::arp::packet::arp::{Operation, Packet};
use crier::bgp::machine::negotiation::{LocalOffer, Negotiated};
use crier::bgp::machine::{Action as Asked, Peering};
use crier::bgp::outbox::{NextHops, Outbox, Routes};
use crier::bgp::wire::{AfiSafi, ExpectedAsn, Parsed};
use crier::claim::{Acquisition, ConflictKind, Errand};
use crier::clock;
use crier::config::{self, Config, NoSecrets, SourceFile};
use crier::names::{NodeName, ObjectKey};
use crier::plan::Planner;
use crier::pulse::machine::{Incarnations, Machine, Stance};
use crier::pulse::packet::Pulse;
use crier::pulse::settings::Settings;
use crier::roster::{Card, Departed, Eligibility, Holding, Holdings, KeyId, Member, Roster, Stage};
use crier::route::RouteAttributes;
use crier::session_state::SessionState;
use crier::world::{
    ApiServer, Conflict, DefaultRoute, EndpointSlice, Fact, Link, Listing, Node, Pulses, Refusal, Service,
    SessionReport,
};
use fastrand::Rng;

#[path = "town/heap.rs"]
mod heap;

/// What may differ between two moments that are alike: half-filled pages of maps.
const SLACK: isize = 48 * 1024;

/// What the heap held at some moments, in octets.
struct Curve(Vec<(String, isize)>);

impl Curve {
    fn note(&mut self, when: impl Into<String>) {
        self.0.push((when.into(), heap::held()));
    }

    /// From the first moment to the last nothing has grown.
    #[track_caller]
    fn assert_flat(self, what: &str) {
        let text = || self.0.iter().map(|(when, held)| format!("{when}: {held}")).collect::<Vec<_>>().join(", ");
        println!("{what}: {}", text());
        let (first, last) = (self.0[0].1, self.0[self.0.len() - 1].1);
        assert!(last - first < SLACK, "{what} grew by {} octets: {}", last - first, text());
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Between two things that happen in a day of churn.
const STEP: Duration = Duration::from_secs(10);

/// What comes and goes has names that were never used before.
struct Churn {
    planner: Planner,
    random: Rng,
    now: Instant,
    count: u64,
    services: Vec<ObjectKey>,
    nodes: Vec<NodeName>,
    links: Vec<u32>,
}

fn configuration(more: &str) -> Arc<Config> {
    let text = format!(
        "[kubernetes]\nin-cluster = true\n[[pool]]\nname = \"lan\"\naddresses = [\"192.168.35.100-192.168.35.199\"]\n\
         rest = \"30s\"\n[[l2]]\n{more}\n[pulse]\nunauthenticated = true\n[bgp]\nasn = 64513\nlisten = []\n\
         [[bgp.peer]]\nname = \"tor\"\naddress = \"192.168.35.1\"\nasn = 64512\n[[bgp.advertisement]]\n"
    );
    let file = SourceFile { path: "crier.toml".to_owned(), text };
    Arc::new(config::parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}")))
}

fn service(ingress: Vec<IpAddr>, version: u64) -> Service {
    Service {
        uid: "u".to_owned(),
        resource_version: version.to_string(),
        load_balancer: true,
        families: vec![Family::V4],
        ingress,
        ..Service::default()
    }
}

fn node(address: Ipv4Addr) -> Option<Arc<Node>> {
    Some(Arc::new(Node { ready: true, addresses: vec![address.into()], ..Node::default() }))
}

fn mac(number: u64) -> MacAddress {
    let [_, _, _, a, b, c, d, e] = number.to_be_bytes();
    MacAddress([2, a, b, c, d, e])
}

fn link(index: u32, carrier: bool) -> Link {
    Link {
        index,
        name: format!("eth{index}").as_str().into(),
        mac: Some(mac(u64::from(index))),
        up: true,
        carrier,
        loopback: false,
        arp: true,
        master: None,
        vrf: None,
        parent: None,
        addresses: vec![format!("192.168.{}.11/24", if index == 2 { 35 } else { index % 30 }).parse().unwrap()],
        deprecated: Default::default(),
        kernels: Default::default(),
    }
}

fn pool_address(random: &mut Rng) -> IpAddr {
    Ipv4Addr::new(192, 168, 35, random.u8(100..200)).into()
}

impl Churn {
    fn begin() -> Churn {
        let me = NodeName::from("a");
        let planner = Planner::new(configuration(""), me.clone());
        let (services, nodes, links) = (Vec::new(), Vec::new(), Vec::new());
        let mut churn =
            Churn { planner, random: Rng::with_seed(7), now: clock::now(), count: 0, services, nodes, links };
        churn.tell(Fact::Pulses(Pulses::On { authenticated: false }));
        churn.tell(Fact::Link(2, Some(link(2, true))));
        churn.tell(Fact::LinksListed);
        churn.tell(Fact::Node(me.clone(), node(Ipv4Addr::new(192, 168, 35, 11))));
        for listing in [
            Listing::Services(BTreeSet::new()),
            Listing::EndpointSlices(BTreeSet::new()),
            Listing::Nodes([me].into()),
            Listing::Namespaces(BTreeSet::new()),
        ] {
            churn.tell(Fact::Listed(listing));
        }
        churn.tell(Fact::ApiServer(ApiServer::Reachable));
        churn.tell(Fact::Allocates(true));
        churn.turn();
        // The addresses of Services that are gone are kept for so many of them: begin where no more fit.
        for _ in 0..17_000 {
            let key = churn.new_key();
            churn.tell(Fact::Service(key.clone(), Some(Arc::new(service(vec!["192.168.35.100".parse().unwrap()], 1)))));
            churn.tell(Fact::Service(key, None));
        }
        churn.turn();
        churn
    }

    fn tell(&mut self, fact: Fact) {
        self.planner.apply(fact);
    }

    /// Turns until nothing is due, as the loop of the agent does, and the API server does what it is asked to.
    fn turn(&mut self) {
        for _ in 0..8 {
            self.planner.turn(self.now);
            let services = self.planner.plan().status.services.iter();
            let writes: Vec<_> = services.filter_map(|(key, it)| Some((key.clone(), it.write.clone()?))).collect();
            for (key, write) in writes {
                let Some(held) = self.planner.world().services.get(&key) else { continue };
                let mut written = Service::clone(held);
                written.ingress = write.ingress.unwrap_or(written.ingress);
                written.condition = write.condition.map(Arc::new);
                self.count += 1;
                written.resource_version = (1_000_000 + self.count).to_string();
                self.tell(Fact::StatusWritten(key, Arc::new(written)));
            }
        }
    }

    fn new_key(&mut self) -> ObjectKey {
        self.count += 1;
        ObjectKey::new(&format!("team-{}", self.count % 40), &format!("s{}", self.count))
    }

    /// One thing happens.
    fn step(&mut self) {
        self.count += 1;
        match self.random.u8(0..16) {
            0 | 1 => self.add_service(),
            2 => self.remove_service(0),
            3 => self.overwrite_status(),
            4 => {
                let name = NodeName::from(format!("n{}", self.count).as_str());
                let [.., last] = self.count.to_be_bytes();
                self.nodes.push(name.clone());
                self.tell(Fact::Node(name, node(Ipv4Addr::new(192, 168, 35, last % 90 + 12))));
            }
            5 => self.remove_node(),
            6 | 7 => self.hear(),
            8 => {
                let name = format!("ns{}", self.count);
                self.tell(Fact::Namespace(name.as_str().into(), Some(Arc::default())));
                self.tell(Fact::Namespace(name.as_str().into(), None));
            }
            9 => self.flap_session(),
            10 => self.flap_link(),
            11 => self.conflict(),
            12 => {
                let state = match self.random.bool() {
                    true => ApiServer::Reachable,
                    false => ApiServer::Unreachable {
                        since: UNIX_EPOCH,
                        why: "no route".to_owned(),
                        refusal: Refusal::NoAnswer,
                    },
                };
                self.tell(Fact::ApiServer(state));
            }
            13 => {
                let leads = self.random.u8(0..4) > 0;
                self.tell(Fact::Allocates(leads));
            }
            14 => {
                let more = ["", "sticky = true", "announce-again = \"1s\""][self.random.usize(0..3)];
                self.tell(Fact::Config(configuration(more)));
            }
            _ => {
                let gateway: IpAddr = Ipv4Addr::new(192, 168, 35, self.random.u8(1..10)).into();
                self.tell(Fact::DefaultRoutes(vec![DefaultRoute {
                    family: Family::of(gateway),
                    gateway: Some(gateway),
                    link: 2,
                    metric: 0,
                    vrf: None,
                    dead: false,
                    dropped: false,
                }]));
                self.tell(Fact::Caller(2, format!("fe80::{}", self.count % 1000).parse().unwrap()));
            }
        }
        self.answer();
        self.turn();
        self.now += STEP;
        self.turn();
    }

    fn add_service(&mut self) {
        let key = self.new_key();
        self.services.push(key.clone());
        self.tell(Fact::Service(key.clone(), Some(Arc::new(service(Vec::new(), self.count)))));
        let slice = EndpointSlice {
            service: key.clone(),
            family: None,
            ready: BTreeMap::new().into(),
            serving: BTreeMap::new().into(),
            serving_without_node: 1,
            unready: Default::default(),
            addresses: Default::default(),
        };
        self.tell(Fact::EndpointSlice(key, Some(Arc::new(slice))));
        if self.services.len() > 20 {
            self.remove_service(0);
        }
    }

    fn remove_service(&mut self, place: usize) {
        if place < self.services.len() {
            let key = self.services.remove(place);
            self.tell(Fact::Service(key.clone(), None));
            self.tell(Fact::EndpointSlice(key, None));
        }
    }

    fn overwrite_status(&mut self) {
        let Some(key) = self.random.choice(&self.services).cloned() else { return };
        let Some(held) = self.planner.world().services.get(&key).cloned() else { return };
        self.count += 1;
        let resource_version = (1_000_000 + self.count).to_string();
        let ingress = vec![Ipv4Addr::new(10, 9, 8, 7).into()];
        self.tell(Fact::Service(key, Some(Arc::new(Service { ingress, resource_version, ..Service::clone(&held) }))));
    }

    fn remove_node(&mut self) {
        if !self.nodes.is_empty() {
            let name = self.nodes.remove(0);
            self.tell(Fact::Node(name, None));
        }
        while self.nodes.len() > 6 {
            let name = self.nodes.remove(0);
            self.tell(Fact::Node(name, None));
        }
    }

    /// Pulses tell of other nodes: some hold addresses, some fell silent, some left.
    fn hear(&mut self) {
        let mut roster = Roster { settled: true, ..Roster::default() };
        for (number, name) in self.nodes.iter().enumerate() {
            let mut holdings = Holdings::new();
            for _ in 0..self.random.usize(0..10) {
                let stage = [Stage::Holds, Stage::Asks][self.random.usize(0..2)];
                holdings.insert(pool_address(&mut self.random), Holding { weight: 0, stage });
            }
            let mac = mac(0x1000 + u64::try_from(number).unwrap() + self.count * 16);
            let unheard = Duration::from_millis(300);
            let departed =
                Departed { mac, unheard, suspect: self.random.bool(), holdings: holdings.clone(), just_left: false };
            let _before = match self.random.u8(0..6) {
                0 => roster.silent.insert(name.clone(), departed).map(drop),
                1 => roster.left.insert(name.clone(), departed).map(drop),
                _ => {
                    let occupied = Arc::new([pool_address(&mut self.random)].into());
                    let member = Member {
                        mac,
                        other_macs: Default::default(),
                        eligibility: Eligibility::Eligible,
                        owner: true,
                        hears_api_server: true,
                        card: Arc::new(Card::default()),
                        holdings,
                        holdings_known: true,
                        occupied,
                        egress: None,
                        over_bgp: None,
                        sessions: None,
                        restarting: false,
                        waits: true,
                        deaf: false,
                    };
                    roster.members.insert(name.clone(), member).map(drop)
                }
            };
        }
        self.tell(Fact::Roster(2, Some(Arc::new(roster))));
    }

    fn flap_session(&mut self) {
        let up = self.random.bool();
        let state = if up { SessionState::Established } else { SessionState::Active };
        let last_error = (!up).then(|| format!("refused, attempt {}", self.count));
        let report = SessionReport { last_error, ..SessionReport::new(state, UNIX_EPOCH) };
        self.tell(Fact::Session("tor".into(), report));
    }

    /// The link of the addresses, or one of a pod.
    fn flap_link(&mut self) {
        let carrier = self.random.bool();
        self.tell(Fact::Link(2, Some(link(2, carrier))));
        let index = u32::try_from(self.count).unwrap() + 100;
        self.links.push(index);
        self.tell(Fact::Link(index, Some(link(index, true))));
        while self.links.len() > 5 {
            let gone = self.links.remove(0);
            self.tell(Fact::Link(gone, None));
        }
    }

    fn conflict(&mut self) {
        let address = pool_address(&mut self.random);
        let kind =
            [ConflictKind::Occupied, ConflictKind::AliveUnheard, ConflictKind::Contested][self.random.usize(0..3)];
        let conflict = Conflict { mac: mac(self.count), kind, since: UNIX_EPOCH };
        self.tell(Fact::Conflict(address, "eth2".into(), Some(conflict)));
        let over: Vec<IpAddr> = self.planner.world().conflicts.keys().copied().collect();
        for address in over.into_iter().rev().skip(5) {
            self.tell(Fact::Conflict(address, "eth2".into(), None));
        }
    }

    /// The responder does what the plan says.
    fn answer(&mut self) {
        let wanted: BTreeSet<IpAddr> = self.planner.plan().l2.addresses.keys().copied().collect();
        let answered: BTreeSet<IpAddr> = self.planner.world().answering.keys().copied().collect();
        let (began, ended) = (wanted.difference(&answered), answered.difference(&wanted));
        let fact =
            Fact::Answering { link: "eth2".into(), began: began.copied().collect(), ended: ended.copied().collect() };
        self.tell(fact);
    }

    /// Everything that came goes, and what is kept for a time is over.
    fn calm(&mut self) {
        while !self.services.is_empty() {
            self.remove_service(0);
        }
        while !self.nodes.is_empty() {
            self.remove_node();
        }
        for index in std::mem::take(&mut self.links) {
            self.tell(Fact::Link(index, None));
        }
        let conflicts: Vec<IpAddr> = self.planner.world().conflicts.keys().copied().collect();
        conflicts.into_iter().for_each(|address| self.tell(Fact::Conflict(address, "eth2".into(), None)));
        self.tell(Fact::Link(2, Some(link(2, true))));
        self.tell(Fact::Roster(2, Some(Arc::new(Roster { settled: true, ..Roster::default() }))));
        self.tell(Fact::ApiServer(ApiServer::Reachable));
        self.tell(Fact::Allocates(true));
        self.tell(Fact::Config(configuration("")));
        for _ in 0..6 {
            self.answer();
            self.turn();
            self.now += Duration::from_secs(300);
        }
    }
}

#[test]
fn a_day_of_flaps_and_of_names_that_are_always_new_leaves_a_planner_as_small_as_it_was() {
    let mut churn = Churn::begin();
    let began = churn.now;
    let mut curve = Curve(Vec::new());
    for hour in 1..=24 {
        while churn.now < began + HOUR * hour - HOUR / 2 {
            churn.step();
        }
        churn.calm();
        if [2, 6, 12, 18, 24].contains(&hour) {
            curve.note(format!("hour {hour}"));
        }
    }
    let world = churn.planner.world();
    assert!(world.conflicts.is_empty() && world.answering.is_empty(), "{:?}", world.conflicts);
    assert!(churn.planner.plan().placements.is_empty() && churn.planner.plan().pulse.holdings.is_empty());
    curve.assert_flat("the planner");
}

#[test]
fn claims_of_stations_that_are_always_new_cost_a_responder_nothing_that_stays() {
    flood_of_claims(true);
    flood_of_claims(false);
}

fn flood_of_claims(is_patient: bool) {
    let start = clock::now();
    let own = mac(1);
    let address = |last: u8| Ipv4Addr::new(192, 168, 35, last);
    let mut claims = Claims::default();
    let nodes = (12..20).map(|last| (address(last).into(), NodeName::from(format!("n{last}").as_str()))).collect();
    let surroundings = Surroundings {
        mac: own,
        addresses: Arc::new(nodes),
        own: ["192.168.35.11/24".parse().unwrap()].into(),
        ..Surroundings::default()
    };
    claims.handle_surroundings(surroundings);
    claims.handle_link_up(start);
    for last in 100..104 {
        claims.handle_owned(address(last).into(), &Errand::from(Acquisition::HandOver), start);
    }
    let mut random = Rng::with_seed(3);
    let mut curve = Curve(Vec::new());
    for round in 0..60_000u64 {
        // Long enough that nothing is on probation, and that a dispute is always open.
        let now = start + Duration::from_secs(20) + Duration::from_millis(20 * round);
        let speaker = mac(1000 + round);
        let ip = address(random.u8(100..104));
        let of_node = address(random.u8(12..20));
        // Of two floods: stations that do all there is, and stations that claim one address again before a dispute can end.
        let ip = if is_patient { ip } else { address(100) };
        let claim = Packet::announcements(ip, speaker);
        let spoken = Packet::announcements(of_node, speaker);
        let probe = Packet::probe(ip, speaker);
        let question = Packet { operation: Operation::Request, target_ip: ip, ..spoken[0] };
        // First it is a Node's station, then it claims.
        let all = [spoken[0], question, claim[0], claim[1], probe];
        let packets = if is_patient { &all[..random.usize(1..6)] } else { &[spoken[0], claim[0]][..] };
        for packet in packets {
            let station = Station { mac: own, other_macs: &[] };
            let (verdict, heard) = answer::judge(station, |it| claims.ownership(it), Protocol::Arp, &packet.emit());
            heard.into_iter().for_each(|heard| claims.handle_heard(heard, now));
            match verdict {
                Verdict::Conflict(claimant) => claims.handle_claimant(claimant, now),
                Verdict::Rival(claimant) => claims.handle_rival(claimant, now),
                Verdict::Answer(_) | Verdict::Ignore(_) => {}
            }
        }
        while claims.poll_action(now).is_some() {}
        while claims.poll_report().is_some() {}
        while claims.poll_turned().is_some() {}
        if round % 15_000 == 14_999 {
            curve.note(format!("{} stations", round + 1));
        }
    }
    curve.assert_flat("the responder");
}

/// A machine that starts, and the first pulse of another node.
fn pulses(start: Instant) -> (Machine, Pulse) {
    let settings = Settings { interval: Duration::from_millis(100), multiplier: NonZeroU8::new(3).unwrap() };
    let stance = Stance {
        mac: mac(1),
        eligibility: Eligibility::Eligible,
        owner: true,
        hears_api_server: true,
        card: Arc::default(),
        holdings: Holdings::new(),
        occupied: Arc::default(),
        egress: None,
        over_bgp: None,
        sessions: None,
        back_by: None,
    };
    let of = |name: &str, incarnation| {
        let incarnations = Incarnations { first: incarnation, this: incarnation };
        Machine::new(name.into(), settings, vec![KeyId::NONE], incarnations, stance.clone(), start)
    };
    (of("a", 1 << 40), of("b", 7).poll_pulse(start).expect("a node that starts says so"))
}

#[test]
fn pulses_of_nodes_that_are_always_new_cost_a_link_no_more_than_it_has_room_for() {
    let start = clock::now();
    let (mut machine, template) = pulses(start);
    let mut curve = Curve(Vec::new());
    for round in 0..8_000u64 {
        let now = start + Duration::from_millis(round);
        let node = NodeName::from(format!("n{round}").as_str());
        machine.handle_pulse(Pulse { node, incarnation: round + 7, hello: true, ..template.clone() }, now);
        // One that starts anew all the time.
        let node = NodeName::from("again");
        machine.handle_pulse(Pulse { node, incarnation: round + 7, hello: true, ..template.clone() }, now);
        while machine.poll_pulse(now).is_some() {}
        if round % 10 == 0 {
            let _news = machine.poll_roster(now);
        }
        if round % 2_000 == 1_999 {
            curve.note(format!("{} nodes", round + 1));
        }
    }
    curve.assert_flat("the pulse");
}

/// A flood that comes at once is answered or dropped, and leaves nothing that waits.
#[test]
fn a_node_that_starts_anew_without_end_at_one_moment_costs_no_more_than_its_answers() {
    let start = clock::now();
    let (mut machine, template) = pulses(start);
    let mut curve = Curve(Vec::new());
    for round in 0..100_000u64 {
        machine.handle_pulse(Pulse { incarnation: round + 7, hello: true, ..template.clone() }, start);
        if round % 25_000 == 24_999 {
            curve.note(format!("{} lives", round + 1));
        }
    }
    curve.assert_flat("the pulse");
}

fn routes(random: &mut Rng) -> Routes {
    let attributes = |random: &mut Rng| Arc::new(RouteAttributes { med: Some(random.u32(0..4)), ..Default::default() });
    let count = random.u32(0..500);
    (0..count).map(|_| (prefix(random.u32(0..1000)), attributes(random))).collect()
}

fn prefix(number: u32) -> ipnet::IpNet {
    ipnet::Ipv4Net::new(Ipv4Addr::from_bits(0xc633_6400 + number), 32).expect("a host prefix").into()
}

#[test]
fn a_day_of_routes_that_come_and_go_leaves_an_outbox_as_small_as_it_was() {
    let negotiated = Negotiated {
        local_asn: 64513,
        peer_asn: 64512,
        peer_identifier: Ipv4Addr::new(10, 0, 0, 2),
        hold_time: None,
        keepalive_time: None,
        four_octet_asn: true,
        ipv4_unicast: true,
        ipv6_unicast: false,
        ipv4_with_ipv6_next_hop: false,
        link_scoped: false,
        route_refresh: true,
        enhanced_refresh: true,
        max_message_len: 4096,
        graceful_restart: false,
        hard_reset: false,
    };
    let reached = NextHops { v4: Some(Ipv4Addr::new(192, 0, 2, 11)), v6: None };
    let nowhere = NextHops { v4: None, v6: None };
    let mut random = Rng::with_seed(5);
    let mut outbox = Outbox::new(&negotiated, reached);
    outbox.set_complete(true);
    let mut curve = Curve(Vec::new());
    // One change in ten seconds.
    for step in 1..=8640 {
        match random.u8(0..8) {
            0 => outbox.refresh(AfiSafi::IPV4_UNICAST),
            1 => drop(outbox.lose_next_hops(&negotiated, nowhere)),
            2 => outbox.change_next_hops(&negotiated, reached),
            _ => outbox.want(&routes(&mut random)),
        }
        // The peer reads slowly, and at times not at all.
        for _ in 0..random.usize(0..3) {
            outbox.poll_message().expect("every message fits");
        }
        assert!(outbox.pending_count() <= 2000, "step {step}: {} are pending", outbox.pending_count());
        if step % 1728 == 0 {
            outbox.change_next_hops(&negotiated, reached);
            outbox.want(&Routes::new());
            while outbox.poll_message().expect("every message fits").is_some() {}
            assert!(outbox.is_idle() && outbox.pending_count() == 0);
            curve.note(format!("step {step}"));
        }
    }
    curve.assert_flat("the outbox");
}

fn offer(local_asn: u32, expected: u32, last: u8) -> LocalOffer {
    LocalOffer {
        local_asn,
        expected_asn: ExpectedAsn::Is(expected),
        identifier: Ipv4Addr::new(10, 0, 0, last),
        hold_time: Some(Duration::from_secs(90)),
        keepalive_time: None,
        connect_retry_time: Duration::from_secs(5),
        passive: false,
        link_scoped: false,
        graceful_restart: None,
        withheld: Vec::new(),
    }
}

/// What the peer's machine does with a hundred thousand connections, each of which says `open`; it has this many of them at
/// the end of each.
fn calls(peering: &mut Peering, open: &Parsed, start: Instant, what: &str) {
    let mut curve = Curve(Vec::new());
    for call in 0..100_000u64 {
        let now = start + Duration::from_millis(100 * call);
        let dials =
            |asked: &[Asked]| asked.iter().find_map(|it| if let Asked::Dial(id) = it { Some(*id) } else { None });
        let asked = peering.handle_timeout(now);
        if let Some(dial) = dials(&asked) {
            peering.handle_dial_failed(dial, "refused".to_owned(), now);
        }
        let (id, _) = peering.handle_accepted(now);
        peering.handle_message(id, open.clone(), now);
        peering.handle_lost(id, "closed by the peer".to_owned(), now);
        if call % 25_000 == 24_999 {
            curve.note(format!("{} connections", call + 1));
        }
    }
    curve.assert_flat(what);
}

#[test]
fn a_hundred_thousand_opens_with_a_wrong_as_number_leave_nothing_behind() {
    let start = clock::now();
    let mut peering = Peering::new(offer(64513, 64512, 1), 1, start);
    let wrong = Parsed::Open(offer(64599, 64513, 2).open());
    calls(&mut peering, &wrong, start, "a peering that hears a wrong AS number");
}

#[test]
fn a_hundred_thousand_refused_connections_leave_nothing_behind_and_the_session_stays() {
    let start = clock::now();
    let mut peering = Peering::new(LocalOffer { hold_time: None, ..offer(64513, 64512, 1) }, 1, start);
    let right = Parsed::Open(LocalOffer { hold_time: None, ..offer(64512, 64513, 2) }.open());
    let (id, _) = peering.handle_accepted(start);
    peering.handle_message(id, right, start);
    peering.handle_message(id, Parsed::Keepalive, start);
    assert_eq!(peering.state(), SessionState::Established);
    let wrong = Parsed::Open(offer(64599, 64513, 2).open());
    calls(&mut peering, &wrong, start, "a peering that refuses further connections");
    assert_eq!(peering.state(), SessionState::Established);
}
