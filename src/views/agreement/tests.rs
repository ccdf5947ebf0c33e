//! Two nodes on one link, this one and node-2: what pulses say, and the sentences that come of it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::*;
use crate::address::{Family, MacAddress};
use crate::claim::ConflictKind;
use crate::clock;
use crate::config::{NoSecrets, SourceFile, parse};
use crate::names::ObjectKey;
use crate::plan::Planner;
use crate::plan::given_memory::STANDS_AFTER;
use crate::roster::{Holding, Stage};
use crate::selector::Labels;
use crate::views::Counters;
use crate::views::status::status;
use crate::world::{ApiServer, Conflict, Fact, LeaseState, Link, Listing, Node, Refusal, Service};

const CONFIG: &str = r#"
[kubernetes]
in-cluster = true
[[pool]]
name = "lan"
addresses = ["192.0.2.0/28"]
[[l2]]
"#;

fn planner(config: &str) -> Planner {
    planner_of("node-1", config)
}

fn planner_of(node: &str, config: &str) -> Planner {
    let file = SourceFile { path: "test.toml".to_owned(), text: config.to_owned() };
    let config = parse(&[file], &NoSecrets).unwrap_or_else(|complaints| panic!("{complaints}"));
    let mut planner = Planner::new(Arc::new(config), node.into());
    planner.apply(Fact::Pulses(Pulses::On { authenticated: true }));
    for name in ["node-1", "node-2"] {
        let (labels, addresses) = (Labels::default(), Vec::new());
        let node = Node { labels, ready: true, addresses, ..Node::default() };
        planner.apply(Fact::Node(name.into(), Some(Arc::new(node))));
    }
    planner.apply(Fact::Link(2, Some(link())));
    planner.apply(Fact::LinksListed);
    planner.apply(Fact::Listed(Listing::Services(Default::default())));
    planner.apply(Fact::Listed(Listing::EndpointSlices(Default::default())));
    planner.apply(Fact::Listed(Listing::Nodes(["node-1", "node-2"].map(NodeName::from).into())));
    planner.apply(Fact::Listed(Listing::Namespaces(Default::default())));
    planner
}

fn link() -> Link {
    Link { mac: Some(MacAddress([2, 0, 0, 0, 0, 1])), ..Link::carrying(2, "eth0", &["192.0.2.100/24"]) }
}

/// What this node says of itself on the link.
fn card(planner: &mut Planner) -> Card {
    planner.turn(clock::now());
    Card::clone(&planner.plan().pulse.links[&2].card)
}

fn hears(planner: &mut Planner, members: &[(&str, Card)]) {
    let member = |(number, (node, card)): (u8, &(&str, Card))| {
        let member = Member { card: Arc::new(card.clone()), ..Member::eligible(MacAddress([2, 0, 0, 0, 0, number])) };
        (NodeName::from(*node), member)
    };
    let members = (2..).zip(members).map(member).collect();
    planner.apply(Fact::Roster(2, Some(Arc::new(Roster { settled: true, members, ..Roster::default() }))));
}

fn told(planner: &mut Planner) -> Vec<String> {
    planner.turn(clock::now());
    status(&snapshot(planner)).problems
}

fn snapshot(planner: &Planner) -> Snapshot {
    Snapshot::of(planner, Timestamp::UNIX_EPOCH, Counters::default(), clock::now(), clock::wall())
}

#[track_caller]
fn assert_one(problems: &[String], start: &str) {
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(start), "{problems:?}");
}

#[test]
fn a_file_that_differs_is_told_by_the_name_of_its_node_and_by_what_differs() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    assert_ne!((own.ownership_digest, own.allocation_digest), (0, 0));
    let other = |change: fn(&mut Card)| {
        let mut card = own.clone();
        change(&mut card);
        card
    };
    hears(&mut planner, &[("node-2", own.clone())]);
    assert!(told(&mut planner).is_empty(), "the same file");
    hears(&mut planner, &[("node-2", other(|card| card.ownership_digest += 1))]);
    assert_one(&told(&mut planner), "the [[l2]] (or the addresses of its pools) of node-2 differ from this node's: ");
    hears(&mut planner, &[("node-2", other(|card| card.allocation_digest += 1))]);
    assert_one(&told(&mut planner), "the pools of node-2 differ from this node's: ");
    let both = |card: &mut Card| {
        card.ownership_digest += 1;
        card.allocation_digest += 1;
    };
    let names = ["node-2", "node-3", "node-4", "node-5", "node-6", "node-7"];
    hears(&mut planner, &names.map(|name| (name, other(both))));
    let problems = told(&mut planner);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("the pools of node-2, node-3, node-4, node-5 and 2 more differ"), "{problems:?}");
}

/// Input: another node's file gives it more weight than this one's, or less. Output: of the first it is said that it takes
/// addresses.
#[test]
fn a_node_that_gives_itself_more_weight_is_said_to_take_addresses() {
    let mut planner = planner(&CONFIG.replace("[[l2]]", "[[l2]]\npreference = [{ nodes = \"a=b\", weight = 5 }]"));
    let own = card(&mut planner);
    let with = |weight: u32| {
        let weights = own.weights.keys().map(|number| (*number, weight)).collect();
        Card { ownership_digest: own.ownership_digest + 1, weights, ..own.clone() }
    };
    let start = "the [[l2]] (or the addresses of its pools) of node-2 differ from this node's: the nodes do not agree where each address \
                 would best be";
    hears(&mut planner, &[("node-2", with(10))]);
    assert_one(
        &told(&mut planner),
        &format!("{start} (node-2 gives itself weight 10, this file gives it 0, so it takes addresses); "),
    );
    hears(&mut planner, &[("node-2", with(0))]);
    assert_one(&told(&mut planner), &format!("{start}, and they stay where they are; "));
}

/// Both lines said that the pools of the same node differ.
#[test]
fn the_holder_of_other_pools_is_named_once() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    let other = Card { allocation_digest: own.allocation_digest + 1, ..own.clone() };
    let lease =
        LeaseState { holder: Some("node-2".into()), digest: Some(other.allocation_digest), ..LeaseState::default() };
    planner.apply(Fact::Lease(Box::new(lease)));
    hears(&mut planner, &[("node-2", other.clone())]);
    assert_one(&told(&mut planner), "the pools of this node differ from those of node-2, which allocates");
    hears(&mut planner, &[("node-2", other.clone()), ("node-3", other.clone())]);
    let problems = told(&mut planner);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].starts_with("the pools of node-3 differ from this node's: "), "{problems:?}");
    planner.apply(Fact::Allocates(true));
    hears(&mut planner, &[("node-2", other)]);
    assert_one(&told(&mut planner), "the pools of node-2 differ from this node's: ");
}

/// Input: a node of another crier of the cluster, with pools of its own, by the same key; and one that does not say whose it is. Output:
/// the first is no node to give the same file to.
#[test]
fn the_file_of_another_crier_may_differ() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    let differs = |lease| Card { ownership_digest: 1, allocation_digest: 1, lease, ..own.clone() };
    hears(&mut planner, &[("node-2", differs(own.lease.map(|lease| lease + 1)))]);
    assert_eq!(told(&mut planner), [""; 0]);
    hears(&mut planner, &[("node-2", differs(None))]);
    assert_eq!(told(&mut planner).len(), 2);
}

/// Input: a Service has an address that a Node, a gateway or the subnet uses, or none of these. Output: it is named
/// with what that means and what to do.
#[test]
fn an_address_of_a_service_that_hosts_use_too_is_named() {
    let mut planner = planner(CONFIG);
    for (name, last) in [("a", 0), ("b", 3), ("c", 4), ("d", 5)] {
        let address = IpAddr::from([192, 0, 2, last]);
        let service = Service { load_balancer: true, ingress: vec![address], ..Service::default() };
        planner.apply(Fact::Service(ObjectKey::new("d", name), Some(Arc::new(service))));
    }
    let node = Node { ready: true, addresses: vec!["192.0.2.3".parse().unwrap()], ..Node::default() };
    planner.apply(Fact::Node("node-3".into(), Some(Arc::new(node))));
    planner.apply(Fact::DefaultRoutes(vec![crate::world::DefaultRoute::via("192.0.2.4", 2, 0)]));
    let told: Vec<String> = told(&mut planner).into_iter().filter(|it| it.contains(" too, and ")).collect();
    let starts = [
        "d/a: 192.0.2.0 is the network address of 192.0.2.0/24 too, and hosts of that subnet do not reach it: give the Service",
        "d/b: 192.0.2.3 is an address of the Node node-3 too, and a node may answer for it beside that host: give the Service",
        "d/c: 192.0.2.4 is the gateway of eth0 too, and this node does not answer for it: give the Service",
    ];
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
    assert!(told[2].ends_with("and leave 192.0.2.4 out of pool lan: exclude = [\"192.0.2.4\"]"), "{told:?}");
}

/// Input: nodes with another Lease and otherwise the same file; a Service's condition names the Lease. Output: they are
/// named, with the Lease.
#[test]
fn a_node_of_another_lease_with_the_same_addresses_is_named() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    let with = |lease: &str| Card {
        allocation_digest: own.allocation_digest + 1,
        lease: Some(lease_digest(lease)),
        ..own.clone()
    };
    hears(&mut planner, &[("node-2", with("kube-system/crier2")), ("node-3", with("kube-system/crier3"))]);
    let told = |planner: &mut Planner| {
        let mut told: Vec<String> =
            told(planner).into_iter().filter(|it| it.contains("another crier of the cluster")).collect();
        told.sort();
        told
    };
    let all = told(&mut planner);
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all[0].starts_with("node-2 serves another crier of the cluster (another Lease), "), "{all:?}");
    let given =
        crate::world::Condition::given(true, "assigned", &["192.0.2.3".parse().unwrap()], &["lan".into()], None);
    let condition = Some(Arc::new(given.by(&ObjectKey::new("kube-system", "crier2"))));
    let service = Service { load_balancer: true, condition, ..Service::default() };
    planner.apply(Fact::Service(ObjectKey::new("d", "a"), Some(Arc::new(service))));
    let all = told(&mut planner);
    assert!(
        all[0].starts_with("node-2 serves another crier of the cluster (another Lease, kube-system/crier2), "),
        "{all:?}"
    );
    assert!(all[1].starts_with("node-3 serves another crier of the cluster (another Lease), "), "{all:?}");
    let other_pools = Card { ownership_digest: own.ownership_digest + 1, ..with("kube-system/crier2") };
    hears(&mut planner, &[("node-2", other_pools)]);
    assert_eq!(told(&mut planner), [""; 0]);
}

/// Input: another controller, or another crier, overwrites the statuses of many Services. Output: one sentence, with the
/// crier's name.
#[test]
fn services_whose_status_is_overwritten_are_one_problem_that_names_the_other_crier() {
    for (by, expected) in [
        (
            Some(ObjectKey::new("kube-system", "crier2")),
            "another crier, that of the Lease kube-system/crier2, overwrote the status",
        ),
        (None, "another controller overwrote the status"),
    ] {
        let mut planner = planner(CONFIG);
        planner.apply(Fact::Allocates(true));
        let at = clock::now();
        let put = |planner: &mut Planner, name: &str, last: u8| {
            let address = IpAddr::from([192, 0, 2, last]);
            let given = crate::world::Condition::given(true, "assigned", &[address], &["lan".into()], None);
            let condition = match (&by, last < 8) {
                (_, true) => Some(Arc::new(given)),
                (Some(lease), false) => Some(Arc::new(given.by(lease))),
                (None, false) => None,
            };
            let service = Service { load_balancer: true, ingress: vec![address], condition, ..Service::default() };
            planner.apply(Fact::Service(ObjectKey::new("d", name), Some(Arc::new(service))));
            planner.turn(at);
        };
        for (number, name) in (0..).zip(["a", "b", "c"]) {
            for last in [2, 9, 2, 9] {
                put(&mut planner, name, last + number);
            }
        }
        planner.turn(at);
        let told: Vec<String> = status(&snapshot(&planner)).problems;
        let told: Vec<String> = told.into_iter().filter(|it| it.contains("overwrote")).collect();
        assert_one(&told, &format!("d/a, d/b, d/c: {expected}"));
    }
}

/// Thousands of Services that another crier serves were as many problems with one text.
#[test]
fn services_of_another_crier_are_one_problem() {
    let mut planner = planner(CONFIG);
    planner.apply(Fact::Allocates(true));
    let address: IpAddr = "198.51.100.7".parse().expect("an address");
    let theirs = crate::world::Condition::given(true, "assigned", &[address], &["theirs".into()], None);
    let theirs = Some(Arc::new(theirs.by(&ObjectKey::new("lb", "b"))));
    for name in ["a", "b", "c"] {
        let (ingress, condition) = (vec![address], theirs.clone());
        let service = Service { load_balancer: true, ingress, condition, ..Service::default() };
        planner.apply(Fact::Service(ObjectKey::new("d", name), Some(Arc::new(service))));
    }
    let told: Vec<String> = told(&mut planner).into_iter().filter(|it| it.contains("another crier")).collect();
    assert_one(&told, "d/a, d/b, d/c: another crier serves this Service, that of the Lease lb/b, ");
}

/// Input: a host's file that names a pool of the ConfigMap, and there is none. Output: the agent runs, and says what waits.
#[test]
fn what_waits_for_the_config_map_is_a_problem() {
    let text =
        "[kubernetes]\nin-cluster = true\nconfig = \"kube-system/crier\"\n[[l2]]\npools = [\"cmlan\"]\n".to_owned();
    let file = SourceFile { path: "test.toml".to_owned(), text };
    let config = crate::config::parse_running(&[file], &[], &NoSecrets).unwrap_or_else(|it| panic!("{it}"));
    let mut planner = Planner::new(Arc::new(config), "node-1".into());
    planner.apply(Fact::ClusterConfig(crate::world::ClusterConfig::Missing, Arc::default()));
    let told = told(&mut planner);
    let told = told.iter().find(|it| it.contains("there is no ConfigMap kube-system/crier")).expect("it is a problem");
    assert!(told.contains("what they name of it waits for it (pool cmlan)"), "{told}");
}

/// A node without an API server, and what its manifests have from the beginning.
fn standalone(node: &str, services: &[&str], now: Instant) -> Planner {
    let mut planner =
        planner_of(node, &CONFIG.replace("[kubernetes]\nin-cluster = true", "[manifests]\nfolder = \"/m\""));
    planner.apply(Fact::ApiServer(ApiServer::Manifests));
    services.iter().for_each(|name| learns(&mut planner, name));
    planner.turn(now);
    planner
}

fn learns(planner: &mut Planner, name: &str) {
    let service = Service { load_balancer: true, families: vec![Family::V4], ..Service::default() };
    planner.apply(Fact::Service(ObjectKey::new("d", name), Some(Arc::new(service))));
}

/// What node-1 says once it has heard what node-2 says of itself at that time, both after a turn.
fn compared([one, two]: &mut [Planner; 2], at: Instant) -> Vec<String> {
    two.turn(at);
    let card = Card::clone(&two.plan().pulse.links[&2].card);
    hears(one, &[("node-2", card)]);
    one.turn(at);
    status(&Snapshot::of(one, Timestamp::UNIX_EPOCH, Counters::default(), at, clock::wall())).problems
}

/// Input: node-1 learns of zz and then of aa, node-2 of both at once. Output: each has given them the other way round, and says so.
#[test]
fn standalone_nodes_that_give_a_service_different_addresses_say_so_once_that_stands() {
    let began = clock::now();
    let mut nodes = [standalone("node-1", &["zz"], began), standalone("node-2", &["aa", "zz"], began)];
    let learned = began + Duration::from_secs(1);
    learns(&mut nodes[0], "aa");
    nodes[0].turn(learned);
    let given = |planner: &Planner| planner.world().assigned[&ObjectKey::new("d", "zz")].clone();
    assert_ne!(given(&nodes[0]), given(&nodes[1]));

    let due = learned + STANDS_AFTER;
    assert_eq!(compared(&mut nodes, due - Duration::from_millis(1)), [""; 0], "a file may be on its way");
    assert!(nodes[0].next_deadline().is_some_and(|at| at <= due));
    assert_one(&compared(&mut nodes, due), "Services have other addresses on node-2 than on this node, ");
    assert_eq!(nodes[0].next_deadline(), None, "what stands needs no further look");

    // Input: node-2 loses a Service. It has other Services then, and says so once that stands.
    nodes[1].apply(Fact::Service(ObjectKey::new("d", "zz"), None));
    let lost = due + Duration::from_secs(1);
    nodes[1].turn(lost);
    assert!(nodes[1].next_deadline().is_some_and(|at| at <= lost), "what it said does not hold any more");
    assert_eq!(compared(&mut nodes, lost), [""; 0]);
    let other = "the manifests on node-2 have other Services than those on this node, ";
    assert_one(&compared(&mut nodes, lost + STANDS_AFTER), other);
}

#[test]
fn nodes_that_give_the_same_do_not_differ_whatever_the_order_and_those_of_a_cluster_are_not_compared() {
    let began = clock::now();
    let mut nodes = [standalone("node-1", &["aa", "zz"], began), standalone("node-2", &["aa"], began)];
    learns(&mut nodes[1], "zz");
    nodes[1].turn(began + Duration::from_secs(1));
    let later = began + Duration::from_secs(60);
    assert_eq!(compared(&mut nodes, later), [""; 0]);
    let said = |planner: &Planner| planner.plan().pulse.links[&2].card.given;
    assert!(said(&nodes[0]).is_some() && said(&nodes[0]) == said(&nodes[1]));

    // An agent of an earlier version says nothing.
    let silent = Card { given: None, ..Card::clone(&nodes[1].plan().pulse.links[&2].card) };
    learns(&mut nodes[0], "mm");
    nodes[0].turn(later);
    nodes[0].turn(later + STANDS_AFTER);
    hears(&mut nodes[0], &[("node-2", silent)]);
    nodes[0].turn(later + STANDS_AFTER);
    let now = later + STANDS_AFTER;
    assert_eq!(
        status(&Snapshot::of(&nodes[0], Timestamp::UNIX_EPOCH, Counters::default(), now, clock::wall())).problems,
        [""; 0]
    );

    let mut of_cluster = planner(CONFIG);
    of_cluster.turn(began);
    of_cluster.turn(later);
    assert_eq!(said(&of_cluster), None);
}

#[test]
fn who_has_not_shown_its_card_or_serves_no_l2_on_the_link_differs_in_no_l2() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    hears(&mut planner, &[("node-2", Card::default())]);
    assert!(told(&mut planner).is_empty());
    let only_bgp = Card { weights: BTreeMap::new(), ownership_digest: own.ownership_digest + 1, ..own };
    hears(&mut planner, &[("node-2", only_bgp)]);
    assert!(told(&mut planner).is_empty());
}

#[test]
fn other_nodes_of_which_no_pulse_is_heard_are_counted() {
    let mut planner = planner(CONFIG);
    hears(&mut planner, &[]);
    assert_one(
        &told(&mut planner),
        "2 Nodes are known, and no pulse of another one was heard on eth0: is UDP port 7473",
    );
    planner.apply(Fact::Roster(2, Some(Arc::default())));
    assert!(told(&mut planner).is_empty(), "it still listens");
}

#[test]
fn a_node_that_is_heard_and_does_not_hear_is_named() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    hears(&mut planner, &[("node-2", own)]);
    let mut roster = Roster::clone(&planner.world().rosters[&2]);
    roster.members.values_mut().for_each(|member| member.deaf = true);
    planner.apply(Fact::Roster(2, Some(Arc::new(roster))));
    assert_one(&told(&mut planner), "pulses on eth0: node-2 does not hear this node's pulses");
}

/// Input: machines with one MAC are heard: two others, or another one and this. Output: they are named.
#[test]
fn nodes_with_one_mac_are_named() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    hears(&mut planner, &[("node-2", own.clone()), ("node-3", own)]);
    assert_eq!(told(&mut planner), [""; 0]);
    for (macs, who) in
        [([7, 7], "node-2 and node-3 from 02:00:00:00:00:07;"), ([1, 2], "node-1 and node-2 from 02:00:00:00:00:01;")]
    {
        let mut roster = Roster::clone(&planner.world().rosters[&2]);
        for (member, last) in roster.members.values_mut().zip(macs) {
            member.mac = MacAddress([2, 0, 0, 0, 0, last]);
        }
        planner.apply(Fact::Roster(2, Some(Arc::new(roster))));
        assert_one(&told(&mut planner), &format!("nodes send pulses from the same MAC on eth0: {who}"));
    }
}

/// Input: two other nodes say that they hold an address, for a moment, for longer, while one of them grants it or restarts,
/// and one of them no more. Output: it is told of what lasts.
#[test]
fn two_nodes_that_hold_an_address_without_hearing_each_other_are_named() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    hears(&mut planner, &[("node-2", own.clone()), ("node-3", own)]);
    let roster = Roster::clone(&planner.world().rosters[&2]);
    let hold = |change: &dyn Fn(&mut Roster)| {
        let mut roster = roster.clone();
        for member in roster.members.values_mut() {
            for last in 1..=6 {
                let holding = Holding { weight: 0, stage: Stage::Holds };
                member.holdings.insert(IpAddr::from([192, 0, 2, last]), holding);
            }
        }
        change(&mut roster);
        Fact::Roster(2, Some(Arc::new(roster)))
    };
    let now = clock::now();
    let told = |planner: &mut Planner, at: Instant| {
        planner.turn(at);
        doubles(&Snapshot::of(planner, Timestamp::UNIX_EPOCH, Counters::default(), at, clock::wall()))
    };
    planner.apply(hold(&|_| {}));
    assert_eq!(told(&mut planner, now), [""; 0]);
    assert_eq!(told(&mut planner, now + DOUBLE_FOR - Duration::from_millis(1)), [""; 0], "they may be about to meet");
    let later = now + DOUBLE_FOR;
    assert_one(
        &told(&mut planner, later),
        "node-2 and node-3 answer for 192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4 and 2 more at the same time, each on its own: ",
    );
    let to = crate::roster::NodeTicket::of(&"node-3".into());
    let node_2 = |roster: &mut Roster, change: &dyn Fn(&mut Member)| {
        roster.members.get_mut(&NodeName::from("node-2")).into_iter().for_each(change);
    };
    let grants = |member: &mut Member| {
        let all = member.holdings.keys().copied().collect::<Vec<_>>();
        let holding = Holding { weight: 0, stage: Stage::Grants { to } };
        member.holdings = all.into_iter().map(|address| (address, holding)).collect();
    };
    planner.apply(hold(&|roster| node_2(roster, &grants)));
    assert_eq!(told(&mut planner, later), [""; 0]);
    planner.apply(hold(&|roster| node_2(roster, &|member| member.restarting = true)));
    assert_eq!(told(&mut planner, later + DOUBLE_FOR), [""; 0]);
    planner.apply(hold(&|_| {}));
    planner.turn(later);
    planner.apply(hold(&|roster| drop(roster.members.remove(&NodeName::from("node-2")))));
    assert_eq!(told(&mut planner, later + DOUBLE_FOR), [""; 0]);
    assert!(planner.plan().doubles.is_empty());
}

#[test]
fn a_view_that_is_stale_says_that_other_nodes_hear_the_api_server() {
    let mut planner = planner(CONFIG);
    let own = card(&mut planner);
    hears(&mut planner, &[("node-2", own)]);
    planner.apply(Fact::ApiServer(ApiServer::Reachable));
    assert!(told(&mut planner).is_empty(), "it has heard it since its start");
    let away = ApiServer::Unreachable { since: clock::wall(), why: "timed out".to_owned(), refusal: Refusal::NoAnswer };
    planner.apply(Fact::ApiServer(away));
    assert_one(&told(&mut planner), "API server unreachable, the last known state stays in use: timed out");
    planner.turn(clock::now() + Duration::from_secs(5));
    let snapshot = snapshot(&planner);
    assert_one(&status(&snapshot).problems, "API server unreachable, but other nodes hear it: ");
}

#[test]
fn an_l2_for_which_this_node_has_no_link_is_named() {
    let mut planner = planner(CONFIG);
    planner.apply(Fact::Link(2, Some(Link { up: false, ..link() })));
    assert_one(&told(&mut planner), "[[l2]] of all pools: this node has no usable link (no Ethernet link is up)");
}

#[test]
fn an_interface_for_pulses_that_is_not_there_is_named() {
    let config = format!("[pulse]\nunauthenticated = true\ninterfaces = [\"eth0\", \"eth9\"]\n{CONFIG}");
    let mut planner = planner(&config.replace("[[l2]]", ""));
    let card = card(&mut planner);
    hears(&mut planner, &[("node-2", card)]);
    assert_one(&told(&mut planner), "no pulse on eth9, which [pulse] interfaces names: ");
}

#[test]
fn a_station_that_answers_for_everything_is_named_once() {
    let mut planner = planner(CONFIG);
    let card = card(&mut planner);
    hears(&mut planner, &[("node-2", card)]);
    let conflict = |kind| Conflict { mac: MacAddress([2, 0, 0, 0, 0, 0x99]), kind, since: clock::wall() };
    let finds = |planner: &mut Planner, last: u8| {
        let occupied = Some(conflict(ConflictKind::Occupied));
        planner.apply(Fact::Conflict([192, 0, 2, last].into(), "eth0".into(), occupied));
        planner.turn(clock::now());
        // The Service gets another address, and nobody asks about this one any more.
        planner.apply(Fact::Conflict([192, 0, 2, last].into(), "eth0".into(), None));
    };
    finds(&mut planner, 1);
    finds(&mut planner, 2);
    assert!(told(&mut planner).is_empty(), "a host may have two");
    finds(&mut planner, 3);
    assert_one(&told(&mut planner), "02:00:00:00:00:99 answers for 3 addresses of the pools, such as 192.0.2.1, ");
    assert!(told(&mut planner)[0].contains("ignore-stations"));
}

/// Input: another host has this node's name, and others do not answer this node. Output: that they do not hear it, with
/// advice for firewalls, is not told: they listen to the other host.
#[test]
fn a_node_whose_name_another_host_has_is_not_told_to_look_for_a_firewall() {
    use crate::address::MacAddress;
    let mut planner = planner(CONFIG);
    let deaf = crate::roster::Unproved {
        mac: MacAddress([2, 0, 0, 0, 0, 9]),
        deaf: true,
        new: false,
        holdings: Default::default(),
        egress: Default::default(),
    };
    let mut roster = Roster { settled: true, unproved: [("n2".into(), deaf)].into(), ..Roster::default() };
    let filtered = |planner: &mut Planner| told(planner).iter().any(|it| it.contains("filtered"));
    planner.apply(Fact::Roster(2, Some(Arc::new(roster.clone()))));
    assert!(filtered(&mut planner));
    roster.doubles = [("node-1".into(), MacAddress([2, 0, 0, 0, 0, 3]))].into();
    planner.apply(Fact::Roster(2, Some(Arc::new(roster))));
    assert!(!filtered(&mut planner));
}

/// A node that hears nobody, and announces these addresses of 192.0.2.0/24, each of a Service of its own.
fn announcing(last: &[u8]) -> Planner {
    let mut planner = planner(CONFIG);
    hears(&mut planner, &[]);
    for last in last {
        let (key, address) = (ObjectKey::new("d", format!("s{last}").as_str()), IpAddr::from([192, 0, 2, *last]));
        let service = Service { load_balancer: true, ingress: vec![address], ..Service::default() };
        planner.apply(Fact::Service(key.clone(), Some(Arc::new(service))));
        let nodes = || [(NodeName::from("node-1"), 1)].into_iter().collect();
        let slice = crate::world::EndpointSlice {
            service: key.clone(),
            family: None,
            ready: nodes(),
            serving: nodes(),
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        planner.apply(Fact::EndpointSlice(key, Some(Arc::new(slice))));
        planner.turn(clock::now());
        planner.apply(Fact::Answering { link: "eth0".into(), began: vec![address], ended: Vec::new() });
    }
    planner
}

/// One host that claims many addresses was as many lines, and each said that it claims them now.
#[test]
fn a_station_that_claims_many_addresses_is_named_once() {
    let mut planner = announcing(&[1, 2, 3]);
    let mac = MacAddress([2, 0, 0, 0, 0, 0x99]);
    let conflict = || Some(Conflict { mac, kind: ConflictKind::Contested, since: clock::wall() });
    let mut claimed = |last: u8| {
        planner.apply(Fact::Conflict([192, 0, 2, last].into(), "eth0".into(), conflict()));
        told(&mut planner).into_iter().filter(|it| it.contains(":99")).collect::<Vec<_>>()
    };
    assert_one(
        &claimed(1),
        "d/s1: announced by this node, but 02:00:00:00:00:99 claimed 192.0.2.1 on eth0 too, in the last ",
    );
    assert_eq!(claimed(2).len(), 2);
    assert_one(
        &claimed(3),
        "02:00:00:00:00:99 claimed 3 addresses on eth0 that this node announces, in the last five minutes, ",
    );
}

/// Input: an address is on a link of the node that announces it. Output: what that means later, not that two answer.
#[test]
fn an_address_on_a_link_of_its_own_announcer_is_not_called_that_of_two() {
    let mut planner = announcing(&[1]);
    let mut on_link = link();
    on_link.addresses.push("192.0.2.1/32".parse().expect("a prefix"));
    planner.apply(Fact::Link(2, Some(on_link)));
    let told = told(&mut planner);
    let line = told.iter().find(|it| it.starts_with("192.0.2.1 of d/s1 is on eth0 of this node")).expect("a line");
    assert!(
        line.contains("this node announces it, and once another one does, the kernel here answers beside"),
        "{line}"
    );
}

/// Input: the host whose pulses are dropped, because another one has its name, answers for addresses. Output: that is no
/// problem of each address.
#[test]
fn what_a_host_answers_whose_name_another_one_has_is_no_problem_by_itself() {
    let mut planner = announcing(&[1, 2, 3, 4]);
    let mac = MacAddress([2, 0, 0, 0, 0, 0x99]);
    for (last, kind) in [
        (1, ConflictKind::AliveUnheard),
        (2, ConflictKind::AliveUnheard),
        (3, ConflictKind::AliveUnheard),
        (4, ConflictKind::Occupied),
    ] {
        let conflict = Some(Conflict { mac, kind, since: clock::wall() });
        planner.apply(Fact::Conflict([192, 0, 2, last].into(), "eth0".into(), conflict));
    }
    let of_station =
        |planner: &mut Planner| told(planner).into_iter().filter(|it| it.contains(":99")).collect::<Vec<_>>();
    assert_eq!(of_station(&mut planner).len(), 2);
    let doubles = [("node-2".into(), mac)].into();
    planner.apply(Fact::Roster(2, Some(Arc::new(Roster { settled: true, doubles, ..Roster::default() }))));
    assert_eq!(of_station(&mut planner), [""; 0]);
}

/// Only the log said it.
#[test]
fn a_link_whose_pulse_sockets_are_taken_is_a_problem() {
    let mut planner = planner(CONFIG);
    let why = "Address already in use, does another agent run on this host?".to_owned();
    planner.apply(Fact::PulseTrouble(2, PulseTrouble::NoSockets { why }));
    let told = told(&mut planner);
    let expected =
        "pulses on eth0 are neither sent nor heard: Address already in use, does another agent run on this host?";
    assert!(told.iter().any(|it| it == expected), "{told:?}");
}
