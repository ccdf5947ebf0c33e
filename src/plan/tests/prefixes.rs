//! `prefix-of`: a pool of host parts below the prefix of a link, and what a renumbered prefix means, as stories.

use std::collections::BTreeSet;

use super::*;
use crate::address::Family;
use crate::plan::prefixes::Prefixes;

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

/// The same, where some of them are deprecated.
fn readdress_leaving(story: &mut Story, addresses: &[&str], deprecated: &[&str]) {
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

/// L14 of a review: the condition named an annotation that nobody wrote, and the status grew with each prefix.
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
    fresh.apply(Fact::Leader(true));
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
