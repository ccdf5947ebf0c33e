//! A turn judges only what a fact can concern. These tests hold it to the plan of planners that judge everything.

use super::*;
use crate::address::MacAddress;
use crate::roster::{Card, Departed, Eligibility, Holding, Member, NodeTicket, Roster, Sessions, Stage};
use crate::world::{ApiServer, Conflict, Pulses, Refusal, SessionReport, SessionState};

const NODES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const SERVICES: usize = 12;

/// Two links, four `[[l2]]`: some nodes preferred, some left out, one of them sticky where that is asked for.
fn many_rules(sticky: bool) -> Config {
    let for_pool = |name: &str| L2 { pools: vec![name.into()], ..configuration().l2.remove(0) };
    let preference = vec![Preference { nodes: "edge=true".parse().unwrap(), weight: 100 }];
    let mut config = configuration();
    config.pools = vec![
        pool("lan", &["192.168.35.100-192.168.35.110"]),
        pool("edge", &["192.168.36.100-192.168.36.110"]),
        pool("both", &["10.0.0.100-10.0.0.110"]),
    ];
    config.l2 = vec![
        L2 { sticky, ..for_pool("lan") },
        L2 { preference, ..for_pool("edge") },
        L2 { interfaces: vec![InterfacePattern::Exact("eth1".into())], ..for_pool("both") },
        L2 { nodes: Some("edge=true".parse().unwrap()), ..for_pool("both") },
    ];
    config
}

fn address(number: usize) -> IpAddr {
    let network = [[192, 168, 35], [192, 168, 36], [10, 0, 0]][number % 3];
    IpAddr::from([network[0], network[1], network[2], 100 + u8::try_from(number / 3).unwrap()])
}

fn link(index: u32, name: &str, net: &str, up: bool) -> Link {
    let mac = Some("02:00:00:00:00:01".parse().unwrap());
    Link { mac, up, carrier: up, ..Link::carrying(index, name, &[net]) }
}

/// Something that happens to a cluster: nodes, links, rosters, Services and endpoints come, change and go.
fn happening(random: &mut fastrand::Rng) -> Fact {
    let name = NODES[random.usize(..NODES.len())];
    let number = random.usize(..SERVICES);
    let service_key = key(&format!("s{number}"));
    match random.u8(0..14) {
        12 | 13 => {
            let (began, ended) = (some_addresses(random, 4), some_addresses(random, 4));
            Fact::Answering { link: "eth0".into(), began, ended }
        }
        0 => Fact::Node(name.into(), None),
        1 | 2 => {
            let labels: &[(&str, &str)] =
                [&[][..], &[("edge", "true")], &[(Node::EXCLUDE_LABEL, "")]][random.usize(..3)];
            let node = Node { ready: random.u8(0..4) > 0, ..node(labels) };
            Fact::Node(name.into(), Some(Arc::new(node)))
        }
        3 => Fact::Link(2, Some(link(2, "eth0", "192.168.35.11/24", random.bool()))),
        4 => Fact::Link(3, random.bool().then(|| link(3, "eth1", "10.0.0.11/24", random.u8(0..4) > 0))),
        5 => Fact::Link(9, random.bool().then(|| link(9, "veth9", "169.254.1.1/32", true))),
        6 | 7 => some_roster(random),
        8 => {
            let ingress = if random.u8(0..4) > 0 { vec![address(number)] } else { Vec::new() };
            let external_traffic_policy = if random.bool() { TrafficPolicy::Cluster } else { TrafficPolicy::Local };
            let service = Service { ingress, external_traffic_policy, ..service() };
            Fact::Service(service_key, (random.u8(0..5) > 0).then(|| Arc::new(service)))
        }
        9 => {
            let mac = MacAddress([2, 0, 0, 0, 9, 9]);
            let kind = [ConflictKind::Occupied, ConflictKind::Contested][random.usize(..2)];
            let conflict = Conflict { mac, kind, since: std::time::SystemTime::UNIX_EPOCH };
            Fact::Conflict(address(number), "eth0".into(), random.bool().then_some(conflict))
        }
        _ => {
            let serving =
                NODES.iter().filter(|_| random.u8(0..3) == 0).map(|node| (NodeName::from(*node), 1)).collect();
            let slice = EndpointSlice {
                service: service_key.clone(),
                family: None,
                ready: Default::default(),
                serving,
                serving_without_node: random.u32(0..2),
                unready: Default::default(),
                addresses: Default::default(),
            };
            Fact::EndpointSlice(service_key, Some(Arc::new(slice)))
        }
    }
}

/// One in so many of all.
fn some_addresses(random: &mut fastrand::Rng, one_in: u8) -> Vec<IpAddr> {
    (0..SERVICES).filter(|_| random.u8(0..one_in) == 0).map(address).collect()
}

fn some_holding(random: &mut fastrand::Rng) -> Holding {
    let stage = match random.u8(0..4) {
        0 => Stage::Asks,
        1 => Stage::Grants { to: NodeTicket::of(&NODES[random.usize(..NODES.len())].into()) },
        _ => Stage::Holds,
    };
    Holding { weight: u32::from(random.u8(0..3)) * 50, stage }
}

fn departed(member: Member, suspect: bool) -> Departed {
    Departed {
        mac: member.mac,
        unheard: Duration::from_millis(303),
        suspect,
        holdings: member.holdings,
        just_left: false,
    }
}

fn some_roster(random: &mut fastrand::Rng) -> Fact {
    let numbers = context::l2::numbers(&many_rules(false));
    let mut roster = Roster { settled: random.u8(0..5) > 0, ..Roster::default() };
    for (number, name) in NODES.iter().enumerate().skip(1) {
        let eligibility = match random.u8(0..8) {
            0 => Eligibility::Listening,
            1 => Eligibility::Excluded,
            _ => Eligibility::Eligible,
        };
        let weights = numbers.iter().map(|number| (*number, u32::from(random.u8(0..3)) * 50)).collect();
        let member = Member {
            mac: MacAddress([2, 0, 0, 0, 1, u8::try_from(number).unwrap()]),
            other_macs: Default::default(),
            eligibility,
            owner: random.bool(),
            hears_api_server: random.u8(0..4) > 0,
            card: Arc::new(Card {
                weights,
                gateways: some_addresses(&mut random.clone(), 20).into_iter().collect(),
                ..Card::default()
            }),
            holdings: some_addresses(random, 6).into_iter().map(|it| (it, some_holding(random))).collect(),
            holdings_known: random.u8(0..6) > 0,
            occupied: Arc::default(),
            egress: None,
            over_bgp: (number != 3).then(|| Arc::new(some_addresses(&mut random.clone(), 9).into_iter().collect())),
            sessions: *random
                .clone()
                .choice(&[None, Some(Sessions::Stand), Some(Sessions::Missing), Some(Sessions::Away)])
                .unwrap(),
            restarting: false,
            waits: true,
            deaf: false,
        };
        // Some of what it answers for, or all, or an older version.
        let member = Member {
            egress: (number != 2).then(|| Arc::new(member.holdings.keys().copied().skip(number % 2).collect())),
            ..member
        };
        match random.u8(0..10) {
            0 => drop(roster.silent.insert((*name).into(), departed(member, random.bool()))),
            1 => drop(roster.left.insert((*name).into(), departed(member, false))),
            _ => drop(roster.members.insert((*name).into(), member)),
        }
    }
    Fact::Roster(random.u32(2..=3), (random.u8(0..6) > 0).then(|| Arc::new(roster)))
}

/// Whether an address that others use is exchanged follows from what happened before.
fn without_gateways(fact: Fact) -> Fact {
    let Fact::Roster(link, Some(roster)) = fact else { return fact };
    let mut roster = Roster::clone(&roster);
    roster.members.values_mut().for_each(|member| Arc::make_mut(&mut member.card).gateways.clear());
    Fact::Roster(link, Some(Arc::new(roster)))
}

/// What a plan says of the present.
fn outcome(planner: &Planner) -> impl PartialEq + std::fmt::Debug + use<> {
    let plan = planner.plan();
    let routes: Vec<_> = plan.bgp.peers.iter().map(|(name, peer)| (name.clone(), peer.clone())).collect();
    let l2 = (plan.l2.addresses.clone(), plan.l2.node_addresses.clone(), plan.l2.links.clone());
    (plan.decisions.clone(), l2, routes, plan.pulse.clone(), plan.status.clone(), plan.disputes.clone())
}

fn begin(config: &Config, pulses: bool, allocates: bool) -> Planner {
    begin_at(clock::now(), config, pulses, allocates)
}

/// Two that start at the same moment: how long there has been no session is counted from there.
fn begin_both(config: &Config, pulses: bool, allocates: bool) -> (Planner, Planner) {
    let now = clock::now();
    (begin_at(now, config, pulses, allocates), begin_at(now, config, pulses, allocates))
}

fn begin_at(now: Instant, config: &Config, pulses: bool, allocates: bool) -> Planner {
    let mut story = Story::begin_at(now, Vec::new(), "a", config.clone());
    story.tell(Fact::Allocates(allocates));
    let pulses = if pulses { Pulses::On { authenticated: true } } else { Pulses::Off };
    story.tell(Fact::Pulses(pulses));
    story.turn();
    story.planner
}

#[test]
fn a_turn_comes_to_the_plan_that_judging_everything_comes_to_whatever_happened() {
    // Input: random happenings, some of them in one turn. Output: after every turn the plan, with its history, of a planner
    // that was told the same and judges every Service in every turn.
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = many_rules(seed % 2 == 0);
        let (pulses, allocates) = (seed % 3 > 0, seed % 5 == 0);
        let (mut one, mut all) = begin_both(&config, pulses, allocates);
        let mut now = clock::now();
        for step in 0..100 {
            for _ in 0..random.u8(1..4) {
                let fact = happening(&mut random);
                one.apply(fact.clone());
                all.apply(fact);
            }
            now += Duration::from_millis(random.u64(0..400));
            all.judge_everything();
            let (turn_one, turn_all) = (one.turn(now), all.turn(now));
            for (key, decision) in &one.plan().decisions {
                assert_eq!(Some(decision), all.plan().decisions.get(key), "seed {seed}, step {step}: {key}");
            }
            let (of_one, of_all) = (one.plan(), all.plan());
            assert_eq!(of_one.pulse, of_all.pulse, "seed {seed}, step {step}");
            assert_eq!(of_one.l2.addresses, of_all.l2.addresses, "seed {seed}, step {step}");
            assert_eq!(outcome(&one), outcome(&all), "seed {seed}, step {step}");
            assert_eq!(turn_one.handovers, turn_all.handovers, "seed {seed}, step {step}");
            let history =
                |planner: &Planner| (planner.plan().placements.clone(), planner.plan().l2.acquisitions.clone());
            assert_eq!(history(&one), history(&all), "seed {seed}, step {step}");
        }
    }
}

/// Input: random happenings, sessions that come and go, and an API server that does. Output: after every turn this node says the same of what
/// it announces over BGP as a planner that was told the same and looks at all of it in every turn.
#[test]
fn what_is_said_of_bgp_is_what_a_look_at_everything_finds() {
    let mut said = 0;
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(2000 + seed);
        let config = many_rules(false);
        let (mut one, mut all) = begin_both(&config, true, true);
        let mut now = clock::now();
        for step in 0..100 {
            let fact = match random.u8(0..8) {
                0 | 1 => {
                    let state = [SessionState::Established, SessionState::Active][random.usize(..2)];
                    Fact::Session("tor".into(), SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH))
                }
                2 => Fact::ApiServer(match random.u8(0..4) {
                    0 => ApiServer::Unreachable {
                        since: std::time::SystemTime::UNIX_EPOCH,
                        why: "no route".to_owned(),
                        refusal: Refusal::NoAnswer,
                    },
                    _ => ApiServer::Reachable,
                }),
                _ => happening(&mut random),
            };
            one.apply(fact.clone());
            all.apply(fact);
            now += Duration::from_millis(random.u64(0..400));
            all.look_over_bgp();
            one.turn(now);
            all.turn(now);
            let of_one = &one.plan().pulse.over_bgp;
            assert_eq!(*of_one, all.plan().pulse.over_bgp, "seed {seed}, step {step}");
            said += usize::from(of_one.as_ref().is_some_and(|said| !said.is_empty()));
        }
    }
    assert!(said > 20, "it was said {said} times");
}

#[test]
fn a_planner_that_starts_with_all_that_is_known_comes_to_the_same_plan() {
    // Input: random happenings, without pulses. Output: now and then the plan of a new planner that is told the World as it
    // stands. Nothing is allocated here: that follows from what happened before, as does what nodes hold with pulses.
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(1000 + seed);
        let config = many_rules(false);
        let mut planner = begin(&config, false, false);
        let now = clock::now();
        for step in 0..100 {
            planner.apply(without_gateways(happening(&mut random)));
            planner.turn(now);
            if step % 10 == 9 {
                let mut new = Planner::new(Arc::new(config.clone()), "a".into());
                new.apply_world(planner.world().clone());
                new.turn(now);
                let of = |planner: &Planner| {
                    let plan = planner.plan();
                    let peers: Vec<_> = plan.bgp.peers.values().map(|peer| peer.routes.clone()).collect();
                    (plan.decisions.clone(), plan.l2.addresses.clone(), peers, plan.pulse.expected.clone())
                };
                assert_eq!(of(&planner), of(&new), "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn a_link_of_a_pod_moves_nothing() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    let context = story.planner.context().clone();
    let veth = Link { addresses: Vec::new(), ..link(77, "veth1234", "169.254.1.1/32", true) };
    for fact in [Some(veth.clone()), Some(Link { carrier: false, ..veth }), None] {
        story.tell(Fact::Link(77, fact));
        assert_eq!(story.turn().moved, Moved::default());
    }
    assert!(Arc::ptr_eq(&context, story.planner.context()), "the context was not worked out again");
}

#[test]
fn the_death_of_a_node_judges_only_what_it_owned_and_its_return_only_what_it_wins() {
    let mut story = Story::begin(configuration());
    let addresses = 100..=110;
    for last in addresses.clone() {
        let name = format!("s{last}");
        story.endpoints(&name, &["b"]);
        let ingress = vec![format!("192.168.35.{last}").parse().unwrap()];
        story.put(&name, Service { ingress, ..service() });
    }
    let answered = story.planner.plan().l2.addresses.keys().copied().collect();
    story.tell(Fact::Answering { link: "eth0".into(), began: answered, ended: Vec::new() });
    story.turn();
    let owners = |story: &Story| -> Vec<NodeName> {
        let owner = |last| story.decision(&format!("s{last}")).announcements[0].l2.owner.clone().unwrap();
        addresses.clone().map(owner).collect()
    };
    let before = owners(&story);
    let of_b = before.iter().filter(|owner| owner.as_str() == "b").count();
    assert!(of_b > 0 && of_b < before.len());
    for ready in [false, true] {
        story.tell(Fact::Node("b".into(), Some(Arc::new(Node { ready, ..node(&[]) }))));
        let turn = story.turn();
        assert_eq!((turn.changes.len(), story.planner.judged()), (of_b, of_b), "b is Ready: {ready}");
    }
    assert_eq!(owners(&story), before);
}

/// Input: hundreds of peers whose router refuses them: each attempt is told. Output: what one costs grows with the
/// number of peers, not with its cube.
#[test]
fn what_a_failed_attempt_costs_is_in_proportion_to_the_number_of_peers() {
    let cost = |count: u32| {
        let mut config = configuration();
        let address = |n: u32| {
            PeerAddress::Fixed(crate::address::ScopedAddress {
                ip: std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(),
                interface: None,
            })
        };
        let of = |n| config::Peer { address: address(n), ..peer(&format!("tor{n}")) };
        config.bgp.peers = (1..=count).map(of).collect();
        let mut story = Story::begin(config);
        let mut attempt = |n: u32, state| {
            let report = SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH);
            story.tell(Fact::Session(format!("tor{n}").as_str().into(), report));
            let began = clock::now();
            story.turn();
            clock::now().duration_since(began)
        };
        for n in 1..=count {
            attempt(n, SessionState::Active);
        }
        // The state decides where peers are looked for, so each is a look at all of them.
        let states = [SessionState::Established, SessionState::Active].into_iter().cycle();
        states.take(10).map(|state| attempt(1, state)).min().expect("there were some")
    };
    let (few, many) = (cost(50), cost(200));
    assert!(many < few * 16, "50 peers: {few:?}, 200 peers: {many:?}");
}
