//! `prefix-of`: a pool of host parts below the prefix of a link, and what a renumbered prefix means, as stories.

use std::collections::BTreeSet;

use super::pulses::{heard, roster};
use super::*;
use crate::address::Family;
use crate::names::InterfaceName;
use crate::plan::prefixes::{Away, Prefixes};
use crate::plan::removals::TRUST;
use crate::roster::Card;

const NEW: &str = "2001:db8:2::100";
const OLD: &str = "2001:db8:1::100";

fn config() -> Config {
    let mut config = configuration();
    let mut pool = pool("lan", &["192.168.35.100-192.168.35.101", "::100-::101"]);
    pool.prefix_of = Some("eth0".into());
    config.pools = vec![pool];
    config
}

/// eth0 has these addresses now, in the order in which links tell them.
fn readdress(story: &mut Story, addresses: &[&str]) {
    readdress_leaving(story, addresses, &[]);
}

/// The same, where some of them are deprecated. The links of the other nodes have the same prefixes.
fn readdress_leaving(story: &mut Story, addresses: &[&str], deprecated: &[&str]) {
    others_have(story, addresses);
    readdress_alone(story, addresses, deprecated);
}

/// The links of b and c, as their pulses tell, have these.
fn others_have(story: &mut Story, addresses: &[&str]) {
    story.tell(said(&["b", "c"], addresses));
}

/// These nodes are heard, with these addresses; the others of b and c are silent.
fn said(members: &[&str], addresses: &[&str]) -> Fact {
    let silent: Vec<&str> = ["b", "c"].into_iter().filter(|name| !members.contains(name)).collect();
    let members: Vec<(&str, &[&str])> = members.iter().map(|name| (*name, &[][..])).collect();
    let subnets =
        ["fe80::2/64"].iter().chain(addresses).map(|it| it.parse::<ipnet::IpNet>().unwrap().trunc()).collect();
    let card = Arc::new(Card { subnets, ..Card::default() });
    heard(roster(&members, &silent), |roster| roster.members.values_mut().for_each(|it| it.card = card.clone()))
}

/// The link of this node alone.
fn readdress_alone(story: &mut Story, addresses: &[&str], deprecated: &[&str]) {
    let mut link = story.planner.world().links[&2].clone();
    link.addresses = addresses.iter().map(|it| it.parse().unwrap()).collect();
    link.deprecated = deprecated.iter().map(|it| it.parse().unwrap()).collect();
    story.tell(Fact::Link(2, Some(link)));
    story.turn();
}

fn after(story: &mut Story, secs: u64) {
    story.now += Duration::from_secs(secs);
    story.turn();
}

fn of_both_families() -> Service {
    Service { families: vec![Family::V6, Family::V4], family_policy: FamilyPolicy::RequireDualStack, ..service() }
}

fn begin(addresses: &[&str]) -> Story {
    let mut story = Story::begin(config());
    readdress(&mut story, addresses);
    story
}

#[test]
fn an_address_is_the_prefix_of_the_link_and_a_host_part_of_the_pool() {
    let mut story = begin(&["192.168.35.1/24", "fe80::1/64", "2001:db8:1::7/64", "2001:db8:2::7/64"]);
    story.put("web", of_both_families());
    assert_eq!(story.addresses("web"), [OLD, "192.168.35.100"]);
    story.put("two", of_both_families());
    assert_eq!(story.addresses("two"), ["2001:db8:1::101", "192.168.35.101"]);
}

#[test]
fn without_a_prefix_no_ipv6_address_is_given_and_what_a_service_has_it_keeps() {
    let mut story = begin(&["192.168.35.1/24", "fe80::1/64", "2001:db8:1::7/128"]);
    story.put("new", Service { families: vec![Family::V6], ..service() });
    story.put("old", Service { ingress: vec![OLD.parse().unwrap()], families: vec![Family::V6], ..service() });
    assert!(story.addresses("new").is_empty());
    assert_eq!(story.addresses("old"), [OLD], "it is one of the pool's, below whatever prefix");
    readdress(&mut story, &["2001:db8:1::7/64"]);
    assert_eq!(story.addresses("old"), [OLD]);
    assert_eq!(story.addresses("new"), ["2001:db8:1::101"]);
}

#[test]
fn below_a_new_prefix_a_service_has_both_addresses_for_ten_minutes_and_then_the_new_one() {
    let mut story = begin(&["2001:db8:1::7/64"]);
    story.put("web", Service { families: vec![Family::V6], ..service() });
    story.confirm("web");
    assert_eq!(story.addresses("web"), [OLD]);
    // A link that loses its addresses for a moment changes nothing.
    readdress(&mut story, &[]);
    assert_eq!(story.addresses("web"), [OLD]);
    readdress_leaving(&mut story, &["2001:db8:2::7/64", "2001:db8:1::7/64"], &["2001:db8:1::7"]);
    assert_eq!(story.addresses("web"), [OLD, NEW]);
    story.confirm("web");
    after(&mut story, 590);
    assert_eq!(story.addresses("web"), [OLD, NEW], "for so long");
    after(&mut story, 20);
    assert_eq!(story.addresses("web"), [NEW]);
}

/// The condition named an annotation that nobody wrote, and the status grew with each prefix.
#[test]
fn prefixes_that_follow_each_other_leave_two_former_addresses_and_are_told_as_what_they_are() {
    let mut story = begin(&["2001:db8:1::7/64"]);
    story.put("web", Service { families: vec![Family::V6], ..service() });
    story.confirm("web");
    for prefix in 2..=6 {
        readdress(&mut story, &[&format!("2001:db8:{prefix}::7/64")]);
        story.confirm("web");
        after(&mut story, 7);
        if story.written("web").is_some() {
            story.confirm("web");
        }
    }
    assert_eq!(story.addresses("web"), ["2001:db8:4::100", "2001:db8:5::100", "2001:db8:6::100"]);
    let condition = story.planner.world().services[&key("web")].condition.clone().expect("it is written");
    let text = format!("{condition:?}");
    assert!(text.contains("its link has another prefix") && !text.contains("annotation"), "{text}");
    after(&mut story, 600);
    assert_eq!(story.addresses("web"), ["2001:db8:6::100"]);
}

#[test]
fn a_further_prefix_of_the_link_renumbers_nobody_wherever_it_stands() {
    let mut story = begin(&["2001:db8:2::7/64"]);
    story.put("web", Service { families: vec![Family::V6], ..service() });
    story.confirm("web");
    assert_eq!(story.addresses("web"), [NEW]);
    for further in ["2001:db8:1::5/64", "2001:db8::/32", "fd00::1/64"] {
        readdress(&mut story, &[further, "2001:db8:2::7/64"]);
        assert_eq!(story.addresses("web"), [NEW], "{further}");
    }
    readdress(&mut story, &["2001:db8:2::7/64"]);
    assert_eq!(story.addresses("web"), [NEW]);
}

#[test]
fn of_two_prefixes_that_stay_the_one_in_use_counts_also_for_an_agent_that_has_just_started() {
    // As links tell them when Services are not known yet; the lower one comes first.
    let mut story = Story::begin(config());
    let mut link = story.planner.world().links[&2].clone();
    link.addresses = ["2001:db8:1::5/64", "2001:db8:2::7/64"].map(|it| it.parse().unwrap()).into();
    let mut fresh = Planner::new(Arc::new(config()), "a".into());
    fresh.apply(Fact::Link(2, Some(link)));
    fresh.apply(Fact::LinksListed);
    let held = Service { ingress: vec![NEW.parse().unwrap()], families: vec![Family::V6], ..service() };
    fresh.apply(Fact::Service(key("web"), Some(Arc::new(held))));
    for listing in [
        Listing::Services(BTreeSet::from([key("web")])),
        Listing::EndpointSlices(Default::default()),
        Listing::Nodes(Default::default()),
        Listing::Namespaces(Default::default()),
    ] {
        fresh.apply(Fact::Listed(listing));
    }
    fresh.apply(Fact::Allocates(true));
    fresh.turn(story.now);
    let held = &fresh.plan().decisions[&key("web")].allocation.held;
    assert_eq!(held.iter().map(|it| it.address.to_string()).collect::<Vec<_>>(), [NEW]);
    story.turn();
}

#[test]
fn an_agent_that_takes_over_within_the_overlap_goes_on_with_it() {
    let mut story = begin(&["2001:db8:2::7/64"]);
    let both = vec![OLD.parse().unwrap(), NEW.parse().unwrap()];
    story.put("web", Service { ingress: both, families: vec![Family::V6], ..service() });
    assert_eq!(story.addresses("web"), [OLD, NEW]);
    after(&mut story, 610);
    assert_eq!(story.addresses("web"), [NEW]);
}

#[test]
fn nodes_with_other_prefixes_agree_about_pools() {
    let written = Arc::new(config());
    let whole = |address: &str| {
        let story = begin(&[address]);
        story.planner.config().clone()
    };
    assert_ne!(whole("2001:db8:1::7/64").pools, whole("2001:db8:2::7/64").pools);
    let unresolved = Prefixes::default().resolve(&written);
    assert_eq!(unresolved.pools, written.pools);
    assert!(unresolved.pools[0].awaits_prefix());
}

const GLOBAL: &str = "2001:db8:1::7/64";
const LOCAL: &str = "fd00:9::7/64";

/// A cluster whose links have both prefixes; web has an address below the global one.
fn with_both() -> Story {
    let mut story = begin(&[GLOBAL, LOCAL]);
    story.put("web", Service { families: vec![Family::V6], ..service() });
    story.confirm("web");
    assert_eq!(story.addresses("web"), [OLD]);
    story
}

fn away(story: &Story) -> Option<&Away> {
    story.planner.plan().prefixes_away.get(&InterfaceName::from("eth0"))
}

/// Such a node renumbered all Services to unique local addresses, and the others went on with it. Input: the node that
/// allocates loses the global prefix of its link, at once or by way of deprecation as router advertisements fail to come; others have
/// it. Output: nobody is renumbered, new Services get addresses below it, and it is told.
#[test]
fn a_prefix_that_others_have_stays_whatever_the_link_of_the_node_that_allocates_says() {
    for way in [&[LOCAL][..], &["fd00:9::7/64", "2001:db8:3::7/64"], &[GLOBAL, LOCAL]] {
        let mut story = with_both();
        readdress_alone(&mut story, way, if way.contains(&GLOBAL) { &["2001:db8:1::7"] } else { &[] });
        assert_eq!(story.addresses("web"), [OLD], "{way:?}");
        assert!(
            matches!(away(&story), Some(Away::Elsewhere { node, .. }) if node.as_str() == "b"),
            "{:?}",
            away(&story)
        );
        story.put("new", Service { families: vec![Family::V6], ..service() });
        assert_eq!(story.addresses("new"), ["2001:db8:1::101"]);
        after(&mut story, TRUST.as_secs() * 3);
        assert_eq!(story.addresses("web"), [OLD], "however long");
        // The others lost it too.
        story.tell(said(&["b", "c"], &[LOCAL]));
        story.turn();
        assert_eq!(story.addresses("web").len(), 2, "{way:?}");
    }
}

/// Told to the end: the agents of the others stop then, and this one takes the Lease.
#[test]
fn an_agent_that_takes_over_alone_goes_by_what_the_others_said_last() {
    let mut story = with_both();
    story.tell(Fact::Allocates(false));
    readdress_alone(&mut story, &[LOCAL], &[]);
    story.tell(said(&[], &[]));
    story.tell(Fact::Allocates(true));
    story.turn();
    assert_eq!(story.addresses("web"), [OLD]);
    after(&mut story, TRUST.as_secs() * 3);
    assert_eq!(story.addresses("web"), [OLD]);
    // One comes back and has lost it too; the other may be a dead node.
    story.tell(said(&["b"], &[LOCAL]));
    story.turn();
    assert!(matches!(away(&story), Some(Away::Unknown { nodes, .. }) if nodes.len() == 1), "{:?}", away(&story));
    assert_eq!(story.addresses("web"), [OLD]);
    after(&mut story, TRUST.as_secs());
    assert_eq!(story.addresses("web"), [OLD, "fd00:9::100"]);
}

/// Without pulses nobody says what it has, unless the Nodes show it.
#[test]
fn where_nobody_says_what_it_has_a_new_prefix_waits_and_is_told() {
    let mut story = Story::begin(config());
    readdress_alone(&mut story, &["2001:db8:1::7/64"], &[]);
    story.put("web", Service { families: vec![Family::V6], ..service() });
    story.confirm("web");
    let shows = |address: &str| Node { addresses: vec![address.parse().unwrap()], ..node(&[]) };
    story.tell(Fact::Node("b".into(), Some(Arc::new(shows("2001:db8:1::8")))));
    readdress_alone(&mut story, &["2001:db8:2::7/64"], &[]);
    after(&mut story, TRUST.as_secs() * 2);
    assert_eq!(story.addresses("web"), [OLD]);
    assert!(matches!(away(&story), Some(Away::Elsewhere { .. })));
    // This one's shows the old one too, so Nodes are behind.
    story.tell(Fact::Node("a".into(), Some(Arc::new(shows("2001:db8:1::7")))));
    story.turn();
    assert!(matches!(away(&story), Some(Away::Unknown { nodes, .. }) if nodes.len() == 2), "{:?}", away(&story));
    story.put("new", Service { families: vec![Family::V6], ..service() });
    assert!(story.addresses("new").is_empty(), "below which one is not known");
    story.delete("new");
    assert_eq!(story.planner.next_deadline(), Some(story.now + TRUST));
    after(&mut story, TRUST.as_secs() - 1);
    assert_eq!(story.addresses("web"), [OLD]);
    after(&mut story, 1);
    assert_eq!(story.addresses("web"), [OLD, NEW]);
    assert_eq!(away(&story), None);
    // Whoever allocates goes on with it.
    after(&mut story, 1);
    assert_eq!(story.addresses("web"), [OLD, NEW]);
}

/// What other load balancers gave, and what Services request themselves, is no prefix in use.
#[test]
fn addresses_that_crier_did_not_choose_are_no_prefix_in_use() {
    let mut story = begin(&["2001:db8:2::7/64"]);
    let foreign = ["2001:db8:9::100", "2001:db8:9::101"].map(|it| it.parse().unwrap()).to_vec();
    let class = Some("example.com/other".to_owned());
    story.put("foreign", Service { ingress: foreign, class, families: vec![Family::V6], ..service() });
    story.put("asks", Service { families: vec![Family::V6], ..asking_for(&["2001:db8:1::101"]) });
    story.tell(Fact::Allocates(false));
    story.tell(Fact::Allocates(true));
    story.put("web", Service { families: vec![Family::V6], ..service() });
    assert_eq!(story.addresses("web"), [NEW]);
    assert_eq!(away(&story), None);
}

/// Input: two Services share an address, a third has one for itself, and the prefix of the link changes. Output: the two
/// share an address below the new one, and each host part stays.
#[test]
fn services_that_share_an_address_share_one_below_the_new_prefix_too() {
    use crate::world::{ServicePort, Sharing};
    let of = |key: &str, port| {
        let sharing = Sharing { key: key.to_owned(), selector: Labels::default() };
        let ports = vec![ServicePort { protocol: "TCP".to_owned(), port }];
        Service { sharing: Some(Box::new(sharing)), ports, families: vec![Family::V6], ..service() }
    };
    let mut config = config();
    config.pools[0].addresses = vec!["::100-::1ff".parse().unwrap()];
    let mut story = Story::begin(config);
    readdress(&mut story, &["2001:db8:1::7/64"]);
    let all = [("gone", "g", 80), ("alone", "a", 80), ("tcp", "k", 81), ("udp", "k", 82)];
    for (name, key, port) in all {
        story.put(name, of(key, port));
        story.confirm(name);
    }
    story.delete("gone");
    readdress_leaving(&mut story, &["2001:db8:2::7/64", "2001:db8:1::7/64"], &["2001:db8:1::7"]);
    for (name, host) in [("alone", "101"), ("tcp", "102"), ("udp", "102")] {
        let expected = [format!("2001:db8:1::{host}"), format!("2001:db8:2::{host}")];
        assert_eq!(story.addresses(name), expected, "{name}");
    }
    // Who comes now gets the one that stays.
    story.put("late", of("k", 83));
    assert_eq!(story.addresses("late"), ["2001:db8:2::102"]);
}

/// Input: a request for a host part, and one for an address below a prefix that the link had. Output: the reason names the
/// link and the address that there would be, and no `exclude`, for there is none.
#[test]
fn what_is_below_another_prefix_is_not_called_excluded() {
    let asks = |address| Service { request: asking_for(&[address]).request, families: vec![Family::V6], ..service() };
    let mut story = begin(&["2001:db8:2::7/64"]);
    for asked in ["::101", "2001:db8:1::101"] {
        let said = story.put("web", asks(asked)).allocation.reason.to_string();
        let words = ["lan", "eth0", asked, "2001:db8:2::101"];
        words.iter().for_each(|word| assert!(said.contains(word) && !said.contains("exclude"), "{word} in: {said}"));
        story.delete("web");
    }
}
