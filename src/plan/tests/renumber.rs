//! A Service gets another address, and the old one stays beside it for a while, as stories.

use super::*;
use crate::address::Family::{V4, V6};
use crate::world::Renumber;

fn wish(leaving: &[&str], overlap: u64) -> Option<Box<Renumber>> {
    let leaving = leaving.iter().map(|text| text.parse().unwrap()).collect();
    Some(Box::new(Renumber { leaving, overlap: Duration::from_secs(overlap) }))
}

/// The Service as the API server has it, with a change, in a later version.
fn change(story: &mut Story, name: &str, change: impl FnOnce(&mut Service)) {
    let mut service = Service::clone(&story.planner.world().services[&key(name)]);
    change(&mut service);
    service.resource_version = format!("{}", service.resource_version.parse::<u64>().unwrap() + 10);
    story.put(name, service);
}

fn annotation_goes(story: &Story, name: &str) -> bool {
    story.planner.plan().status.services[&key(name)].write.as_ref().is_some_and(|write| write.renumbered)
}

/// A Service with an endpoint and 192.168.35.100, which its status shows.
fn serving() -> Story {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    story
}

fn after(story: &mut Story, secs: u64) {
    story.now += Duration::from_secs(secs);
    story.turn();
}

#[test]
fn both_addresses_are_announced_for_the_overlap_and_then_the_new_one_alone() {
    let mut story = serving();
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 600));
    assert_eq!(story.addresses("web"), ["192.168.35.100", "192.168.35.101"], "the old one in front: nothing moves");
    assert_eq!(story.routes(), ["192.168.35.100/32"], "the new one is not confirmed yet");
    assert!(!annotation_goes(&story, "web"));
    after(&mut story, 3600);
    assert_eq!(story.addresses("web").len(), 2, "the time runs from when both are there");
    story.confirm("web");
    assert_eq!(story.routes(), ["192.168.35.100/32", "192.168.35.101/32"]);
    assert_eq!(story.planner.next_deadline(), Some(story.now + Duration::from_secs(600)));
    after(&mut story, 599);
    assert_eq!(story.addresses("web").len(), 2);
    after(&mut story, 1);
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
    assert_eq!(story.written("web").map(|it| it.len()), Some(1));
    assert!(annotation_goes(&story, "web"), "in the same write");
    let warning = story.planner.plan().status.services[&key("web")].warning.clone().expect("an Event");
    assert!(warning.message.contains("192.168.35.100") && warning.message.contains("renumber"), "{}", warning.message);
    assert_eq!(story.routes().len(), 2, "until the status shows it");
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = None);
    assert_eq!(
        (story.routes(), story.addresses("web")),
        (vec!["192.168.35.101/32".to_owned()], vec!["192.168.35.101".to_owned()])
    );
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.100"], "the old one is free");
}

/// Input: within the overlap the Service requests the address that leaves. Output: it keeps that one, and nothing says that
/// it goes.
#[test]
fn an_address_that_leaves_and_is_requested_stays() {
    let mut story = serving();
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 600));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.100", "192.168.35.101"]);
    change(&mut story, "web", |it| it.request = asking_for(&["192.168.35.100"]).request);
    let goes = |reason: &Reason| matches!(reason, Reason::AddressGoes { address, .. } if address.to_string() == "192.168.35.100");
    assert!(!story.decision("web").allocation.complaint.as_ref().is_some_and(goes));
    after(&mut story, 60);
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
}

#[test]
fn the_next_agent_that_allocates_counts_the_overlap_anew_and_shortens_it_never() {
    let mut story = Story::begin(configuration());
    story.put("web", service());
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 60));
    story.confirm("web");
    after(&mut story, 59);
    story.tell(Fact::Allocates(false));
    story.turn();
    change(&mut story, "web", |_| {});
    after(&mut story, 100);
    assert_eq!(story.addresses("web").len(), 2, "who does not allocate takes nothing away");
    story.tell(Fact::Allocates(true));
    change(&mut story, "web", |_| {});
    assert_eq!(story.addresses("web").len(), 2);
    after(&mut story, 60);
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
}

#[test]
fn without_another_address_the_old_one_stays_and_the_service_says_why() {
    let mut config = configuration();
    config.pools = vec![pool("tiny", &["192.0.2.1"])];
    let mut story = Story::begin(config);
    story.put("web", service());
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = wish(&["192.0.2.1"], 0));
    assert_eq!(story.addresses("web"), ["192.0.2.1"]);
    let complaint = story.decision("web").allocation.complaint.as_ref().map(ToString::to_string);
    assert_eq!(complaint.as_deref(), Some("no free IPv4 address in tiny"));
    assert!(!annotation_goes(&story, "web"), "it waits for one");
}

#[test]
fn of_a_dual_stack_service_one_address_alone_can_be_replaced_and_both_can() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"])];
    let both = Service { families: vec![V4, V6], family_policy: FamilyPolicy::RequireDualStack, ..service() };
    for (leaving, expected) in [
        (&["fd35::100"][..], ["192.168.35.100", "fd35::101"]),
        (&["192.168.35.100", "fd35::100"], ["192.168.35.101", "fd35::101"]),
    ] {
        let mut story = Story::begin(config.clone());
        story.put("web", both.clone());
        story.confirm("web");
        change(&mut story, "web", |it| it.renumber = wish(leaving, 0));
        assert_eq!(story.addresses("web").len(), 2 + leaving.len());
        story.confirm("web");
        assert_eq!(story.addresses("web"), expected, "with no overlap at once");
    }
}

#[test]
fn a_reservation_and_a_sharing_key_do_not_give_the_same_address_again() {
    use crate::world::{ServicePort, Sharing};
    let mut config = configuration();
    config.reservations = vec![Reservation { service: key("web"), addresses: vec!["192.168.35.105".parse().unwrap()] }];
    let mut story = Story::begin(config);
    story.put("web", service());
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.105"]);
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.105"], 60));
    assert_eq!(story.addresses("web"), ["192.168.35.105", "192.168.35.100"]);
    let sharing = |port| Service {
        sharing: Some(Box::new(Sharing { key: "key".to_owned(), selector: Labels::default() })),
        ports: vec![ServicePort { protocol: "TCP".to_owned(), port }],
        ..service()
    };
    let mut story = Story::begin(configuration());
    for (name, port) in [("one", 80), ("two", 81)] {
        story.put(name, sharing(port));
        story.confirm(name);
    }
    assert_eq!(story.addresses("two"), ["192.168.35.100"]);
    change(&mut story, "two", |it| it.renumber = wish(&["192.168.35.100"], 0));
    story.confirm("two");
    assert_eq!(story.addresses("two"), ["192.168.35.101"]);
    assert_eq!(story.addresses("one"), ["192.168.35.100"], "the other keeps it");
}

#[test]
fn a_wish_for_addresses_that_the_service_has_not_does_nothing_and_goes() {
    let mut story = Story::begin(configuration());
    story.put("web", service());
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = wish(&["192.0.2.77"], 60));
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    assert!(annotation_goes(&story, "web"));
}

#[test]
fn an_address_that_begins_to_leave_while_another_leaves_already_stays_as_long() {
    let mut story = serving();
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 60));
    story.confirm("web");
    after(&mut story, 40);
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100", "192.168.35.101"], 60));
    assert_eq!(story.addresses("web"), ["192.168.35.100", "192.168.35.101", "192.168.35.102"]);
    story.confirm("web");
    let begin = story.now;
    while story.addresses("web").len() > 1 {
        assert!(story.now < begin + Duration::from_secs(600), "it ends");
        let written = story.written("web");
        after(&mut story, 1);
        if written.is_some() {
            story.confirm("web");
        }
        let stays = story.addresses("web").contains(&"192.168.35.101".to_owned());
        assert_eq!(stays, story.now < begin + Duration::from_secs(60), "after {:?}", story.now - begin);
    }
}

#[test]
fn with_the_wish_taken_back_the_new_address_stays_and_the_other_goes_after_its_notice() {
    let mut story = serving();
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 600));
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = None);
    assert_eq!(story.addresses("web").len(), 2, "it is told first");
    after(&mut story, 3);
    assert_eq!(story.written("web").map(|it| it.len()), Some(1));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);

    let mut alone = Story::begin(standalone());
    alone.put("web", service());
    change(&mut alone, "web", |it| it.renumber = wish(&["192.168.35.100"], 600));
    assert_eq!(alone.addresses("web").len(), 2);
    change(&mut alone, "web", |it| it.renumber = None);
    after(&mut alone, 3);
    assert_eq!(alone.addresses("web"), ["192.168.35.101"]);
}

#[test]
fn addresses_that_somebody_adds_to_a_status_are_not_the_services() {
    let mut story = serving();
    let shown = ["192.168.35.104", "192.168.35.100", "192.168.35.103", "192.168.35.100"];
    change(&mut story, "web", |it| it.ingress = shown.iter().map(|text| text.parse().unwrap()).collect());
    // The notice is written before its time is over.
    story.confirm("web");
    let own: Vec<IpAddr> = vec!["192.168.35.100".parse().unwrap()];
    assert_eq!(story.planner.world().services[&key("web")].given(), own, "the notice gives nothing");
    after(&mut story, 3);
    assert_eq!(story.written("web").map(|it| it.len()), Some(1));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    // What comes with a Service from another load balancer stays.
    let two: Vec<IpAddr> = ["192.168.35.108", "192.168.35.109"].iter().map(|text| text.parse().unwrap()).collect();
    story.put("moved", Service { ingress: two.clone(), ..service() });
    assert_eq!(story.addresses("moved"), ["192.168.35.108", "192.168.35.109"]);
    story.confirm("moved");
    after(&mut story, 600);
    assert_eq!(story.addresses("moved"), ["192.168.35.108", "192.168.35.109"]);
}

/// The pool is not the one that the Service asks for, or would ever be given from.
#[test]
fn an_address_of_another_pool_that_somebody_adds_to_a_status_is_not_the_services() {
    let mut config = configuration();
    let other = Pool {
        name: "other".into(),
        addresses: vec!["198.18.0.0/24".parse().unwrap()],
        auto_assign: false,
        ..config.pools[0].clone()
    };
    config.pools.push(other);
    let mut story = Story::begin(config);
    story.put("web", service());
    story.confirm("web");
    let own: Vec<IpAddr> = story.planner.world().services[&key("web")].ingress.clone();
    change(&mut story, "web", |it| it.ingress.push("198.18.0.5".parse().unwrap()));
    story.confirm("web");
    after(&mut story, 3);
    assert_eq!(story.written("web"), Some(own));
}

/// Input: within an overlap somebody empties the status, or writes the old address alone back. Output: both stand there
/// again, none of them is exchanged, and the overlap is not shorter.
#[test]
fn an_overlap_goes_on_beside_somebody_who_writes_the_status() {
    let both = ["192.168.35.100", "192.168.35.101"];
    for shown in [&[][..], &both[..1]] {
        let mut story = serving();
        change(&mut story, "web", |it| it.renumber = wish(&both[..1], 600));
        story.confirm("web");
        after(&mut story, 2);
        story.put("next", service());
        change(&mut story, "web", |it| it.ingress = shown.iter().map(|text| text.parse().unwrap()).collect());
        assert_eq!(story.addresses("web"), both, "{shown:?}");
        assert!(!annotation_goes(&story, "web"));
        assert_eq!(story.written("web").map(|it| it.len()), Some(2));
        story.confirm("web");
        after(&mut story, 599);
        assert_eq!((story.addresses("web"), story.routes().len()), (both.map(str::to_owned).to_vec(), 2), "{shown:?}");
        after(&mut story, 1);
        assert_eq!(story.addresses("web"), both[1..]);
        let status = &story.planner.plan().status.services[&key("web")];
        assert_eq!(status.warning.as_ref().map(|it| it.reason.as_str()), Some("AddressGoes"));
    }
}

/// Pools `old` and `new`; a Service of `old` is renumbered for 600 s, and its status shows both addresses.
fn leaving_a_pool() -> (Story, Config) {
    let mut config = configuration();
    config.pools = vec![pool("old", &["192.168.35.100"]), pool("new", &["198.51.100.0/28"])];
    let mut story = Story::begin(config.clone());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 600));
    story.confirm("web");
    config.pools.remove(0);
    (story, config)
}

/// Input: within the overlap the range of the old address leaves the file of the agent that allocates. Output: both stay
/// announced until the overlap is over, and then the old one goes; nobody calls it a foreign one.
#[test]
fn an_overlap_goes_on_when_the_range_of_the_old_address_leaves_the_file() {
    let (mut story, without) = leaving_a_pool();
    let both = ["192.168.35.100", "198.51.100.0"].map(str::to_owned).to_vec();
    after(&mut story, 10);
    story.tell(Fact::Config(Arc::new(without)));
    story.turn();
    assert_eq!(story.addresses("web"), both);
    assert_eq!(story.routes(), ["192.168.35.100/32", "198.51.100.0/32"]);
    assert_eq!(story.decision("web").allocation.complaint, None);
    let given = story.planner.world().services[&key("web")].given();
    assert_eq!(
        given.iter().map(ToString::to_string).collect::<Vec<_>>(),
        both[1..],
        "the old one is not the Service's"
    );
    after(&mut story, 589);
    assert_eq!(story.addresses("web"), both, "not sooner");
    after(&mut story, 1);
    assert_eq!(story.written("web").map(|it| it.len()), Some(1));
    assert!(annotation_goes(&story, "web"));
    story.confirm("web");
    assert_eq!((story.addresses("web"), story.routes()), (both[1..].to_vec(), vec!["198.51.100.0/32".to_owned()]));
}

/// The same where another agent allocates, and where the range goes before there is another address.
#[test]
fn an_old_address_whose_range_is_gone_is_announced_by_every_agent_that_had_it() {
    let (mut story, without) = leaving_a_pool();
    story.tell(Fact::Allocates(false));
    story.tell(Fact::Config(Arc::new(without.clone())));
    story.turn();
    assert_eq!(story.routes(), ["192.168.35.100/32", "198.51.100.0/32"]);
    assert_eq!(story.decision("web").allocation.complaint, None);
    // One that never had the range announces nothing of it, and takes it for no foreign one: the condition says whose it was.
    let seen = Service::clone(&story.planner.world().services[&key("web")]);
    let mut other = Story::begin(without);
    other.endpoints("web", &["a"]);
    other.put("web", Service { uid: "u".to_owned(), ..seen });
    assert_eq!(other.routes(), ["198.51.100.0/32"]);
    for name in ["b", "c"] {
        other.tell(Fact::Node(name.into(), None));
    }
    other.turn();
    after(&mut other, 3);
    assert_eq!(other.written("web").map(|it| it.len()), Some(1), "it goes");

    let mut config = configuration();
    config.pools = vec![pool("old", &["192.168.35.100"])];
    let mut story = Story::begin(config.clone());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    story.confirm("web");
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100"], 600));
    config.pools = vec![pool("new", &["198.51.100.0/28"])];
    story.tell(Fact::Config(Arc::new(config)));
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.100", "198.51.100.0"]);
    story.confirm("web");
    after(&mut story, 599);
    assert_eq!(story.routes().len(), 2);
    after(&mut story, 1);
    story.confirm("web");
    assert_eq!(story.routes(), ["198.51.100.0/32"]);
}

fn dual_stack(pools: Vec<Pool>, policy: FamilyPolicy) -> Story {
    let mut story = Story::begin(Config { pools, ..configuration() });
    story.put("web", Service { families: vec![V4, V6], family_policy: policy, ..service() });
    story.confirm("web");
    story
}

/// The address stood in the status twice, and nothing was told.
#[test]
fn a_wish_against_the_request_of_the_service_itself_replaces_nothing_and_is_told() {
    let pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::1ff"])];
    let mut story = dual_stack(pools, FamilyPolicy::PreferDualStack);
    change(&mut story, "web", |it| it.request = asking_for(&["192.168.35.100"]).request);
    for (leaving, expected) in [
        (&["192.168.35.100"][..], &["192.168.35.100", "fd35::100"][..]),
        (&["192.168.35.100", "fd35::100"], &["fd35::100", "192.168.35.100", "fd35::101"]),
    ] {
        change(&mut story, "web", |it| it.renumber = wish(leaving, 60));
        assert_eq!(story.addresses("web"), expected);
        assert!(!annotation_goes(&story, "web"));
        let condition = story.confirm_condition("web");
        assert!(condition.allocated && condition.message.contains("requests 192.168.35.100 itself"), "{condition:?}");
    }
    after(&mut story, 60);
    assert_eq!(story.addresses("web"), ["192.168.35.100", "fd35::101"]);
}

/// Input: both addresses of a dual-stack Service are to be replaced, and there is no other IPv6 address. Output: the
/// IPv4 address is replaced in its time, the Service says what it waits for, and the IPv6 address follows when one is free.
#[test]
fn of_a_dual_stack_service_each_family_is_replaced_when_it_can_be() {
    let pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::101"])];
    let mut story = dual_stack(pools, FamilyPolicy::PreferDualStack);
    let other = Service { families: vec![V6], ..asking_for(&["fd35::101"]) };
    story.put("other", other);
    story.confirm("other");
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100", "fd35::100"], 60));
    let told = |story: &Story| story.decision("web").allocation.complaint.as_ref().map(ToString::to_string);
    let no_other = Some("no free IPv6 address in lan".to_owned());
    assert_eq!(story.addresses("web"), ["192.168.35.100", "fd35::100", "192.168.35.101"]);
    assert_eq!(told(&story), no_other);
    story.confirm("web");
    after(&mut story, 60);
    assert_eq!(
        (story.addresses("web"), told(&story)),
        (vec!["fd35::100".to_owned(), "192.168.35.101".to_owned()], no_other)
    );
    assert!(!annotation_goes(&story, "web"));
    story.confirm("web");
    story.delete("other");
    assert_eq!(story.addresses("web"), ["fd35::100", "192.168.35.101", "fd35::101"]);
    story.confirm("web");
    assert_eq!(told(&story), None);
    after(&mut story, 60);
    assert_eq!(story.addresses("web"), ["192.168.35.101", "fd35::101"]);
    assert!(annotation_goes(&story, "web"));
}

/// Input: a Service with addresses of two pools is renumbered, and one of the pools has no other address. Output: the
/// address of that pool stays until the pool has one, whatever the other pool gave.
#[test]
fn of_a_list_of_pools_each_address_waits_for_a_successor_of_its_own_pool() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100"]), pool("b", &["192.0.2.1-192.0.2.2"])];
    let mut story = Story::begin(config);
    let request = Ok(Request { addresses: Vec::new(), pools: vec!["lan".into(), "b".into()] });
    story.put("web", Service { request, ..service() });
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.100", "192.0.2.1"]);
    change(&mut story, "web", |it| it.renumber = wish(&["192.168.35.100", "192.0.2.1"], 600));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.100", "192.0.2.1", "192.0.2.2"]);
    after(&mut story, 600);
    assert_eq!(story.addresses("web"), ["192.168.35.100", "192.0.2.2"]);
    assert!(!annotation_goes(&story, "web"), "it waits for one");
    let complaint = story.decision("web").allocation.complaint.as_ref().map(ToString::to_string);
    assert_eq!(complaint.as_deref(), Some("no free IPv4 address in lan"));
}

/// The same of the families of one that requires both.
#[test]
fn a_family_without_a_successor_holds_the_other_one_back_from_nothing() {
    let pools = vec![pool("four", &["192.0.2.1"]), pool("six", &["fd35::1-fd35::2"])];
    let mut story = dual_stack(pools, FamilyPolicy::RequireDualStack);
    let had = story.addresses("web");
    assert_eq!(had, ["192.0.2.1", "fd35::1"]);
    change(&mut story, "web", |it| it.renumber = wish(&["192.0.2.1", "fd35::1"], 600));
    assert_eq!(story.addresses("web"), ["192.0.2.1", "fd35::1", "fd35::2"]);
    story.confirm("web");
    after(&mut story, 600);
    assert_eq!(story.addresses("web"), ["192.0.2.1", "fd35::2"]);
    assert!(!annotation_goes(&story, "web"), "IPv4 waits for one");
}
