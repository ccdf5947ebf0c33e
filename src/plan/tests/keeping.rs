//! Nothing is taken away: other writers, other files, other classes, lost statuses.

use super::pulses::roster;
use super::*;
use crate::plan::removals::{NOTICE, TRUST, Wait};
use crate::plan::slice::StatusWrite;
use crate::world::{ApiServer, ClusterConfig, Condition, LeaseState, PoolsTold, Renumber, RequestError};

const OURS: &str = "192.168.35.100";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn showing(address: &str) -> Service {
    Service { ingress: vec![ip(address)], ..service() }
}

/// A status as crier writes it.
fn given(address: &str) -> Service {
    let condition = Condition::given(true, "assigned", &[ip(address)], &["lan".into()], None);
    Service { condition: Some(Arc::new(condition)), ..showing(address) }
}

impl Story {
    /// The same Service with a newer version.
    pub(super) fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = Service::clone(&self.planner.world().services[&key(name)]);
        service.resource_version = (service.resource_version.parse::<u64>().unwrap() + 1).to_string();
        change(&mut service);
        self.put(name, service);
    }

    fn write(&self, name: &str) -> Option<StatusWrite> {
        self.planner.plan().status.services.get(&key(name)).and_then(|status| status.write.clone())
    }

    fn event(&self, name: &str) -> String {
        let status = &self.planner.plan().status.services[&key(name)];
        status.notice.as_ref().filter(|_| !status.told).map(|notice| notice.reason.clone()).unwrap_or_default()
    }

    fn announced(&self, name: &str) -> Vec<String> {
        self.decision(name).announcements.iter().map(|it| it.address.to_string()).collect()
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
        self.turn();
    }

    /// An agent leads that agrees with nobody yet: the Node b is Ready and says nothing of its file.
    fn alone(config: Config) -> Story {
        let mut story = Story::begin(config);
        story.tell(Fact::Lease(Box::new(LeaseState { inherited: false, ..LeaseState::default() })));
        story.turn();
        story
    }

    fn inherits(&mut self) {
        self.tell(Fact::Lease(Box::new(LeaseState { inherited: true, ..LeaseState::default() })));
        self.turn();
    }
}

#[test]
fn a_status_that_crier_did_not_write_is_left_and_told_and_its_address_stays_reserved_and_announced() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", given(OURS));
    for foreign in [vec![ip("10.0.0.5")], vec![ip("10.0.0.5"), ip("10.0.0.6")]] {
        story.change("web", |service| service.ingress = foreign);
        let write = story.write("web").expect("the condition tells it");
        assert_eq!(write.ingress, None, "the foreign addresses are left");
        let condition = write.condition.expect("a condition");
        assert!(!condition.allocated && condition.message.contains("10.0.0.5"), "{condition:?}");
        assert_eq!((condition.reason.as_str(), condition.addresses()), ("ForeignStatus", vec![ip(OURS)]));
        assert_eq!((story.announced("web"), story.event("web")), (vec![OURS.to_owned()], "StatusNotOurs".to_owned()));
        story.put("next", service());
        assert_eq!(story.addresses("next"), ["192.168.35.101"], "the address is reserved");
    }
}

#[test]
fn a_host_name_in_a_status_is_foreign_too() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { host_names: vec!["lb.example.com".to_owned()], ..service() });
    assert_eq!(story.written("web"), None);
    assert_eq!(story.decision("web").allocation.reason.code(), "foreign-status");
}

#[test]
fn an_address_of_a_pool_is_adopted_from_whoever_wrote_it() {
    let mut story = Story::begin(configuration());
    story.put("web", showing("192.168.35.107"));
    let write = story.write("web").expect("the condition is new");
    assert_eq!((write.ingress, story.addresses("web")), (None, vec!["192.168.35.107".to_owned()]));
    assert!(write.condition.is_some_and(|it| it.allocated && it.addresses() == [ip("192.168.35.107")]));
    story.confirm("web");
    assert_eq!(story.write("web"), None, "no rewrite where nothing changed");
    story.tell(Fact::Allocates(false));
    story.turn();
    story.tell(Fact::Allocates(true));
    story.turn();
    assert_eq!((story.write("web"), story.event("web")), (None, String::new()), "nor by the next allocator");
}

#[test]
fn an_emptied_status_gets_its_own_address_back_also_from_the_next_leader() {
    for allocates in [true, false] {
        let mut story = Story::begin(configuration());
        story.put("first", given(OURS));
        story.put("web", given("192.168.35.105"));
        story.tell(Fact::Allocates(allocates));
        story.delete("first");
        story.change("web", |service| service.ingress.clear());
        assert_eq!(story.announced("web"), ["192.168.35.105"], "nothing else is shown");
        story.tell(Fact::Allocates(true));
        story.turn();
        assert_eq!(story.written("web"), Some(vec![ip("192.168.35.105")]), "allocates {allocates}");
    }
}

#[test]
fn a_service_that_is_deleted_and_made_again_has_its_address_back_unless_another_got_it() {
    let mut story = Story::begin(configuration());
    story.put("first", given(OURS));
    story.put("web", given("192.168.35.105"));
    story.delete("first");
    story.delete("web");
    story.put("web", Service { uid: "v".to_owned(), ..service() });
    assert_eq!(story.addresses("web"), ["192.168.35.105"]);
    story.delete("web");
    story.put("other", asking_for(&["192.168.35.105"]));
    story.put("web", Service { uid: "w".to_owned(), ..service() });
    assert_eq!(story.addresses("web"), [OURS], "the lowest that is free");
}

/// Input: somebody writes a Service's address into the status of one that comes first by name, and another agent
/// leads. Output: it stays with the Service that crier gave it to, also once the notice to the other one is written.
#[test]
fn the_notice_to_a_service_that_shows_anothers_address_does_not_say_that_crier_gave_it() {
    let mut story = Story::begin(configuration());
    story.tell(Fact::Allocates(false));
    story.put("web", given(OURS));
    story.put("api", Service { ingress: vec![ip(OURS)], ..given("192.168.35.105") });
    story.tell(Fact::Allocates(true));
    story.turn();
    story.confirm("api");
    assert_eq!(story.planner.world().services[&key("api")].given(), [ip("192.168.35.105")]);
    story.later(NOTICE * 2);
    assert_eq!(story.addresses("web"), [OURS]);
    assert_ne!(story.addresses("api"), [OURS]);
}

#[test]
fn addresses_that_any_service_has_are_taken_and_take_nothing_from_their_holder() {
    let mut story = Story::begin(configuration());
    let class = Some("example.com/other".to_owned());
    story.put("theirs", Service { class, ..showing(OURS) });
    story.put("plain", Service { load_balancer: false, external_ips: vec![ip("192.168.35.101")], ..service() });
    story.put("web", service());
    assert_eq!(story.addresses("web"), ["192.168.35.102"]);
    story.confirm("web");
    story.put("a-later-one", Service { load_balancer: false, external_ips: vec![ip("192.168.35.102")], ..service() });
    assert_eq!(story.addresses("web"), ["192.168.35.102"], "what crier gave is not taken away by an external address");
    story.delete("theirs");
    story.put("next", service());
    assert_eq!(story.addresses("next"), [OURS], "free again");
}

/// Input: while no agent looks, a Service becomes a ClusterIP and then one of another class, so that its status is
/// emptied and crier's words stay. Output: they are taken back, and the address is free. What another crier says, of that class and with
/// pools of its own, stays.
#[test]
fn what_crier_said_of_a_service_that_is_anothers_now_is_taken_back() {
    let class = || Some("example.com/other".to_owned());
    let mut story = Story::begin(configuration());
    story.put("web", Service { class: class(), ingress: Vec::new(), ..given(OURS) });
    let write = story.write("web").expect("the condition goes");
    assert_eq!((write.ingress, write.condition, write.pools), (None, None, Vec::new()));
    story.change("web", |web| web.condition = None);
    assert!(story.write("web").is_none());
    story.put("next", service());
    assert_eq!(story.addresses("next"), [OURS]);
    let of_another = Condition::given(true, "assigned", &[ip("192.168.35.105")], &["theirs".into()], None);
    let condition = Some(Arc::new(of_another));
    story.put("theirs", Service { class: class(), condition, ..service() });
    assert!(story.write("theirs").is_none());
    story.put("shows", Service { class: class(), ..given("192.168.35.106") });
    assert!(story.write("shows").is_none(), "somebody of that class shows the address");
}

#[test]
fn what_the_status_shows_is_announced_until_it_shows_something_else() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", given(OURS));
    story.change("web", |service| service.request = asking_for(&["192.168.35.105"]).request);
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.105")]));
    let status = story.planner.plan().status.services[&key("web")].clone();
    let warning = status.warning.clone().expect("the loss is told first");
    assert!(warning.warning && warning.message.contains(OURS), "{warning:?}");
    story.tell(Fact::StatusRefused(key("web"), "403 forbidden".to_owned()));
    story.turn();
    assert_eq!(story.announced("web"), [OURS]);
    story.confirm("web");
    assert_eq!(story.announced("web"), ["192.168.35.105"]);
}

#[test]
fn nothing_is_chosen_or_lost_while_the_namespace_is_unknown_and_a_pool_depends_on_it() {
    let mut config = configuration();
    let selector = Some("team=web".parse().unwrap());
    config.pools = vec![
        pool("general", &["192.168.35.100-192.168.35.110"]),
        Pool { namespace_selector: selector, ..pool("team", &["192.168.36.0/28"]) },
    ];
    let mut story = Story::begin(config);
    story.put("web", service());
    story.put("api", given("192.168.36.1"));
    assert_eq!(story.decision("web").allocation.reason.code(), "namespace-unknown");
    assert_eq!((story.write("web"), story.write("api")), (None, None));
    let labels = Labels([("team".to_owned(), "web".to_owned())].into_iter().collect());
    story.tell(Fact::Namespace("shop".into(), Some(Arc::new(labels))));
    story.turn();
    assert_eq!(
        (story.addresses("web"), story.addresses("api")),
        (vec!["192.168.36.0".to_owned()], vec!["192.168.36.1".to_owned()])
    );
}

#[test]
fn the_second_family_is_waited_for_and_told() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::1-fd35::1"])];
    let mut story = Story::begin(config);
    let families = vec![crate::address::Family::V4, crate::address::Family::V6];
    let dual = Service { families: families.clone(), family_policy: FamilyPolicy::PreferDualStack, ..service() };
    story.put("first", dual.clone());
    story.confirm("first");
    story.put("web", dual);
    let decision = story.confirm("web");
    assert_eq!(decision.allocation.notes.first().map(Reason::code).as_deref(), Some("family-missing"));
    let condition = story.planner.world().services[&key("web")].condition.clone().expect("a condition");
    assert!(condition.allocated && condition.message.contains("IPv6"), "{condition:?}");
    story.delete("first");
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.101"), ip("fd35::1")]));
}

#[test]
fn a_file_that_lacks_a_pool_takes_no_address_away_while_the_others_may_have_it() {
    let mut story = Story::alone(configuration());
    story.put("web", given("198.51.100.9"));
    let write = story.write("web").expect("the condition tells it");
    assert_eq!((write.ingress, story.event("web").as_str()), (None, "AddressGoes"));
    let condition = write.condition.expect("a condition");
    assert!(condition.allocated && condition.addresses() == [ip("198.51.100.9")], "{condition:?}");
    story.put("new", service());
    assert_eq!(story.addresses("new"), [OURS], "new addresses are given all the same");
    story.later(NOTICE * 10);
    assert_eq!(story.written("web"), None, "nobody agrees");
    story.inherits();
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.101")]), "the holder before had the same file");
    let status = story.planner.plan().status.services[&key("web")].clone();
    assert!(status.warning.as_ref().is_some_and(|warning| warning.message.contains("198.51.100.9")));
}

#[test]
fn a_lasting_holder_trusts_its_own_file_and_one_who_hears_another_file_does_not() {
    let mut story = Story::alone(configuration());
    story.put("web", given("198.51.100.9"));
    story.later(TRUST);
    assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
}

/// Input: no pulses; the agent with yesterday's file, or one that reads another file, holds the Lease, which names the
/// file of the others as the agreed one. Output: time is no agreement. Somebody confirms the file in the Lease, or does not.
#[test]
fn a_holder_whose_file_is_not_the_agreed_one_takes_nothing_until_somebody_confirms_it() {
    for reads_anew in [false, true] {
        let mut story = Story::alone(configuration());
        let digest = story.planner.config().allocation_digest().0;
        let says = |story: &mut Story, agreed| {
            story.tell(Fact::Lease(Box::new(LeaseState { agreed, ..LeaseState::default() })));
            story.turn();
        };
        says(&mut story, Some(if reads_anew { digest } else { 7 }));
        story.put("web", given("198.51.100.9"));
        if reads_anew {
            let mut other = configuration();
            other.pools = vec![pool("other", &["192.168.35.100-192.168.35.105"])];
            assert_ne!(other.allocation_digest().0, digest);
            story.tell(Fact::Config(Arc::new(other)));
        }
        let digest = story.planner.config().allocation_digest().0;
        for wait in [Duration::ZERO, NOTICE, TRUST, TRUST * 100] {
            story.later(wait);
            assert_eq!(story.written("web"), None, "after {wait:?}");
            assert!(story.planner.next_deadline().is_none_or(|at| at > story.now), "it is not waited for in a circle");
        }
        assert_eq!(story.planner.plan().removals_wait, Some(Wait::Confirmation));
        assert_eq!(story.planner.agreed(), None, "it makes its file no agreed one");
        story.put("new", service());
        assert_eq!(story.addresses("new"), [OURS], "new addresses are given all the same");
        says(&mut story, Some(8));
        assert_eq!(story.written("web"), None, "another one is confirmed");
        says(&mut story, Some(digest));
        assert_eq!(story.written("web"), Some(vec![ip("192.168.35.101")]));
        assert_eq!(story.planner.agreed(), Some(digest));
    }
}

#[test]
fn an_address_goes_by_a_changed_namespace_only_after_it_was_told() {
    let mut config = configuration();
    let namespaces = Some("team=web".parse().unwrap());
    config.pools = vec![
        Pool { namespace_selector: namespaces, ..pool("team", &["192.168.36.0/28"]) },
        pool("general", &["192.168.35.100-192.168.35.110"]),
    ];
    // Nobody agrees: it is not the file by which the address goes.
    let mut story = Story::alone(config);
    let labels = |team: &str| Some(Arc::new(Labels([("team".to_owned(), team.to_owned())].into_iter().collect())));
    story.tell(Fact::Namespace("shop".into(), labels("web")));
    story.put("web", given("192.168.36.1"));
    story.tell(Fact::Namespace("shop".into(), labels("other")));
    story.turn();
    assert_eq!((story.written("web"), story.event("web").as_str()), (None, "AddressGoes"));
    story.later(NOTICE);
    assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
}

#[test]
fn of_two_overwrites_within_a_minute_the_second_is_left_and_told_and_tried_again_later() {
    let mut story = Story::begin(configuration());
    story.put("web", given(OURS));
    for round in 0..2 {
        story.change("web", |service| service.ingress.clear());
        if round == 0 {
            assert_eq!(story.written("web"), Some(vec![ip(OURS)]), "what crier gave is put back once");
            story.confirm("web");
        }
    }
    assert_eq!((story.write("web"), story.event("web").as_str()), (None, "StatusNotOurs"));
    assert_eq!(story.announced("web"), [OURS]);
    let deadline = story.planner.next_deadline().expect("it is tried again");
    story.later(deadline - story.now);
    assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
}

/// Input: a controller that knows no conditions writes whole statuses without them, twice within a minute. Output: the
/// Service's former address is answered and reserved all the time, also by nodes that do not allocate, and is put back after the pause.
/// Nobody answered it, and another Service was given it.
#[test]
fn what_a_controller_strips_of_addresses_and_condition_stays_reserved_and_announced() {
    for leads in [true, false] {
        let mut story = Story::begin(configuration());
        story.endpoints("web", &["a"]);
        story.put("web", given(OURS));
        story.tell(Fact::Allocates(leads));
        story.turn();
        for round in 0..2 {
            story.change("web", |service| (service.ingress, service.condition) = (Vec::new(), None));
            assert_eq!(story.announced("web"), [OURS], "leads: {leads}, round {round}");
            if leads && round == 0 {
                assert_eq!(story.written("web"), Some(vec![ip(OURS)]), "what crier gave is put back once");
                story.confirm("web");
            }
        }
        story.put("next", service());
        assert_eq!(story.announced("web"), [OURS], "leads: {leads}");
        if !leads {
            // Whoever allocates knows nothing of it, and gives the address to another one.
            story.put("zoo", given(OURS));
            assert_eq!((story.announced("web"), story.announced("zoo")), (vec![], vec![OURS.to_owned()]));
            continue;
        }
        assert_eq!((story.write("web"), story.event("web").as_str()), (None, "StatusNotOurs"));
        assert_eq!(story.addresses("next"), ["192.168.35.101"], "it is reserved");
        let deadline = story.planner.next_deadline().expect("it is tried again");
        story.later(deadline - story.now);
        assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
        // A host name in its place, also without the condition: whose address it was is told in the next one.
        story.confirm("web");
        story.change("web", |service| {
            (service.ingress, service.condition) = (Vec::new(), None);
            service.host_names = vec!["lb.example.com".to_owned()];
        });
        assert_eq!(story.announced("web"), [OURS]);
        let condition = story.write("web").and_then(|write| write.condition).expect("a condition");
        assert_eq!((condition.reason.as_str(), condition.addresses()), ("ForeignStatus", vec![ip(OURS)]));
    }
}

/// The same, of a Service that is made anew in between, or ceases to be a load balancer: the former one's address is nobody's.
#[test]
fn what_another_service_of_the_name_had_is_not_announced_for_the_one_without_a_status() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", given(OURS));
    story.tell(Fact::Allocates(false));
    story.tell(Fact::Service(key("web"), None));
    story.put("web", Service { uid: "v".to_owned(), ..service() });
    assert!(story.announced("web").is_empty(), "nobody has given it anything");
    story.put("web", Service { uid: "v".to_owned(), resource_version: "2".to_owned(), ..given(OURS) });
    assert_eq!(story.announced("web"), [OURS]);
    let plain = Service { uid: "v".to_owned(), resource_version: "3".to_owned(), load_balancer: false, ..service() };
    story.tell(Fact::Service(key("web"), Some(Arc::new(plain))));
    story.turn();
    story.put("web", Service { uid: "v".to_owned(), resource_version: "4".to_owned(), ..service() });
    assert!(story.announced("web").is_empty());
}

/// Input: somebody writes another free address of the pool in the place of the one that crier gave. Output: that one
/// stays announced and reserved; the other goes after a notice, and who writes it again within a minute is left with it. The Service
/// moved to it without a word. What the Service requests, or what is renumbered, goes on as before.
#[test]
fn an_address_that_somebody_puts_in_the_place_of_criers_own_takes_nothing_from_the_service() {
    let theirs = "192.168.35.107";
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", given(OURS));
    for round in 0..2 {
        story.change("web", |service| service.ingress = vec![ip(theirs)]);
        assert_eq!(story.announced("web"), [OURS], "round {round}");
        if round == 0 {
            assert_eq!((story.written("web"), story.event("web").as_str()), (None, "AddressGoes"));
            let condition = story.confirm_condition("web");
            assert_eq!(condition.addresses(), [ip(OURS)], "{condition:?}");
            assert_eq!(story.announced("web"), [OURS]);
            story.later(NOTICE);
            assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
            story.confirm("web");
            assert_eq!((story.announced("web"), story.write("web")), (vec![OURS.to_owned()], None));
        }
    }
    assert_eq!((story.write("web"), story.event("web").as_str()), (None, "StatusNotOurs"));
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.101"], "the address is reserved");
    story.tell(Fact::Allocates(false));
    story.turn();
    assert_eq!(story.announced("web"), [OURS], "whoever allocates");

    for asks in [asking_for(&[theirs]), Service { renumber: Some(renumber_of(OURS)), ..service() }] {
        let mut story = Story::begin(configuration());
        story.put("web", given(OURS));
        story.change("web", |web| {
            (web.ingress, web.request, web.renumber) = (vec![ip(theirs)], asks.request, asks.renumber);
        });
        assert_eq!(story.addresses("web"), [theirs]);
    }
}

/// Input: crier gave an address, and its condition stands there still; the Service went to another load balancer and back, which has
/// given it another address of the pool, while no agent ran, or while the file had not its class. Output: that one stays, and nothing
/// tells that it goes. It was off the wire at once, and went after a notice. An agent that does not allocate waits for the word of the
/// one that does, which may have seen more.
#[test]
fn an_address_that_came_while_there_was_no_crier_is_kept_whatever_the_condition_says() {
    let theirs = "192.168.35.107";
    let stale = Service { ingress: vec![ip(theirs)], resource_version: "7".to_owned(), ..given(OURS) };
    let of_disk = Service { resource_version: String::new(), ..given(OURS) };
    let other_class = |service: Service| Service { class: Some("example.com/metallb".to_owned()), ..service };
    let before = [
        vec![],
        vec![of_disk],
        vec![other_class(given(OURS)), other_class(Service { ingress: vec![ip(theirs)], ..given(OURS) })],
    ];
    for told in before {
        let mut story = Story::begin(configuration());
        story.endpoints("web", &["a"]);
        for service in told {
            story.put("web", service);
        }
        story.put("web", stale.clone());
        assert_eq!((story.addresses("web"), story.written("web")), (vec![theirs.to_owned()], None));
        assert_ne!(story.event("web"), "AddressGoes");
        let condition = story.confirm_condition("web");
        assert_eq!((condition.allocated, condition.addresses()), (true, vec![ip(theirs)]), "{condition:?}");
        story.later(NOTICE);
        assert_eq!((story.announced("web"), story.write("web")), (vec![theirs.to_owned()], None));
    }
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.tell(Fact::Allocates(false));
    story.put("web", stale);
    assert_eq!(story.announced("web"), [OURS]);
    story.change("web", |web| web.condition = given(theirs).condition);
    assert_eq!(story.announced("web"), [theirs]);
}

/// Input: somebody writes another address in the place of one of two families. Output: the status has the order of before. The address
/// that came back stood last, so the other one ranked the nodes, and both went to other nodes.
#[test]
fn what_comes_back_into_a_status_of_two_families_has_its_place_again() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::10f"])];
    let both = [ip(OURS), ip("fd35::100")];
    let condition = Condition::given(true, "assigned", &both, &["lan".into()], None);
    for (place, theirs) in [(0, "192.168.35.107"), (1, "fd35::107")] {
        let mut story = Story::begin(config.clone());
        story.put(
            "web",
            Service {
                families: vec![crate::address::Family::V4, crate::address::Family::V6],
                family_policy: FamilyPolicy::RequireDualStack,
                ingress: both.to_vec(),
                condition: Some(Arc::new(condition.clone())),
                ..service()
            },
        );
        assert_eq!(story.announced("web"), [OURS, "fd35::100"]);
        story.change("web", |service| service.ingress[place] = ip(theirs));
        assert_eq!(story.announced("web"), [OURS, "fd35::100"], "{theirs}");
        story.later(NOTICE);
        assert_eq!(story.written("web"), Some(both.to_vec()), "{theirs}");
        story.confirm("web");
        assert_eq!(story.announced("web"), [OURS, "fd35::100"], "{theirs}");
    }
}

fn renumber_of(address: &str) -> Box<Renumber> {
    Box::new(Renumber { leaving: vec![ip(address)], overlap: Duration::ZERO })
}

/// A controller that has the last word: whenever a status shows anything else, it writes its own addresses. Both write once a
/// second. Answers how often crier wrote addresses, how often it wrote at all, and what it told.
fn beside_a_controller(story: &mut Story, theirs: &[IpAddr], time: Duration) -> (usize, usize, Vec<String>) {
    let (mut addresses, mut all, mut told) = (0, 0, Vec::new());
    let end = story.now + time;
    while story.now < end {
        if let Some(write) = story.write("web") {
            told.push(story.event("web"));
            (addresses, all) = (addresses + usize::from(write.ingress.is_some()), all + 1);
            story.confirm("web");
        }
        if story.planner.world().services[&key("web")].ingress != theirs {
            story.change("web", |service| service.ingress = theirs.to_vec());
        }
        assert_eq!(story.announced("web"), [OURS], "what stood before is announced all the time");
        story.later(Duration::from_secs(1));
    }
    told.retain(|event| !event.is_empty());
    (addresses, all, told)
}

/// B2 of the field cases: the ServiceLB of k3s and a cloud controller write the addresses of nodes.
#[test]
fn a_controller_that_writes_its_own_addresses_into_every_status_is_left_at_once_and_told_once() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    story.put("web", service());
    let theirs = [ip("10.0.0.11"), ip("10.0.0.12"), ip("10.0.0.13")];
    let (addresses, all, told) = beside_a_controller(&mut story, &theirs, Duration::from_secs(3600));
    assert_eq!((addresses, told), (1, vec!["IPAllocated".to_owned(), "StatusNotOurs".to_owned()]));
    assert!(all <= 3, "{all} writes in an hour: the address once, and what the condition says of it");
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.101"], "the address stays the Service's");
    // The controller is switched off, and its finalizer empties the status.
    story.change("web", |service| service.ingress.clear());
    assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
}

/// Input: somebody writes `ipMode: Proxy` on the address that crier gave, twice within a minute. Output: it is written back once, the
/// second is left and told.
#[test]
fn an_address_that_is_no_vip_any_more_is_written_back_and_not_without_end() {
    let mut story = Story::begin(configuration());
    story.put("web", given(OURS));
    assert_eq!(story.write("web"), None);
    story.change("web", |service| service.not_vip = vec![ip(OURS)]);
    assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
    story.confirm("web");
    assert_eq!(story.write("web"), None, "it is as it should be");
    story.change("web", |service| service.not_vip = vec![ip(OURS)]);
    assert_eq!((story.write("web"), story.event("web").as_str()), (None, "StatusNotOurs"));
}

/// Input: somebody edits the annotations about pools, or removes one of them. Output: a write puts them right, and with them nothing else.
#[test]
fn annotations_about_pools_are_put_right_and_a_fight_about_them_ends() {
    let mut story = Story::begin(configuration());
    let whole = || PoolsTold::Same("lan".into());
    story.put("web", Service { pools_told: whole(), ..given(OURS) });
    assert_eq!(story.write("web"), None);
    let mut writes = 0;
    let end = story.now + Duration::from_secs(1000);
    while story.now < end {
        let edited = if writes % 2 == 0 { PoolsTold::Different } else { PoolsTold::Same("nonsense".into()) };
        story.change("web", |service| service.pools_told = edited);
        if let Some(write) = story.write("web") {
            assert_eq!((&write.ingress, write.pools.as_slice()), (&None, &["lan".into()][..]));
            story.confirm("web");
            assert_eq!(story.planner.world().services[&key("web")].pools_told, whole());
            assert_eq!(story.write("web"), None, "it is as it should be");
            writes += 1;
        }
        assert_eq!(story.event("web"), "", "a fight about annotations is no matter of the status");
        story.later(Duration::from_secs(1));
    }
    assert!((3..=12).contains(&writes), "{writes} writes in 1000 s");
}

/// A manifest, and what an older crier remembered, say nothing of annotations; nor does a controller that removes what it did not write.
#[test]
fn annotations_that_are_not_there_are_not_written_by_themselves() {
    let mut story = Story::begin(configuration());
    story.put("web", Service { pools_told: PoolsTold::Same("lan".into()), ..given(OURS) });
    story.change("web", |service| service.pools_told = PoolsTold::Nothing);
    assert_eq!(story.write("web"), None);
    story.change("web", |service| service.pools_told = PoolsTold::Different);
    assert!(story.write("web").is_some());
}

#[test]
fn overwrites_that_are_far_apart_are_each_made_good() {
    let mut story = Story::begin(configuration());
    story.put("web", given(OURS));
    for round in 0..5 {
        story.change("web", |service| service.ingress.clear());
        assert_eq!(story.written("web"), Some(vec![ip(OURS)]), "round {round}");
        story.confirm("web");
        story.later(Duration::from_secs(61));
    }
}

#[test]
fn a_text_that_only_counts_is_no_news() {
    let mut config = configuration();
    config.pools = vec![Pool { rest: Duration::from_secs(30), ..pool("lan", &["192.168.35.100/31"]) }];
    let mut story = Story::begin(config);
    for (name, address) in [("one", OURS), ("two", "192.168.35.101")] {
        story.put(name, given(address));
    }
    story.put("web", service());
    story.confirm("web");
    for name in ["one", "two"] {
        story.delete(name);
        assert_eq!((story.write("web"), story.event("web")), (None, String::new()), "{name} was freed and rests");
    }
}

#[test]
fn endpoints_count_for_the_addresses_of_their_family_only() {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::10f"])];
    let mut story = Story::begin(config);
    let families = vec![crate::address::Family::V4, crate::address::Family::V6];
    let policy = TrafficPolicy::Local;
    let dual = Service {
        families,
        family_policy: FamilyPolicy::RequireDualStack,
        external_traffic_policy: policy,
        ..service()
    };
    let mut slice = |family, name: &str, nodes: &[&str]| {
        let counts = || nodes.iter().map(|name| (NodeName::from(*name), 1)).collect();
        let (ready, serving) = (counts(), counts());
        let slice = EndpointSlice {
            service: key("web"),
            family: Some(family),
            ready,
            serving,
            serving_without_node: 0,
            unready: Default::default(),
            addresses: Default::default(),
        };
        story.tell(Fact::EndpointSlice(key(name), Some(Arc::new(slice))));
    };
    slice(crate::address::Family::V4, "web-4", &["a"]);
    slice(crate::address::Family::V6, "web-6", &[]);
    story.put("web", dual);
    let decision = story.confirm("web");
    let reasons: Vec<String> = decision.announcements.iter().map(|it| it.bgp.reason.code()).collect();
    assert_eq!(reasons, ["announced", "no-endpoints"]);
    let counts = || [(NodeName::from("b"), 1)].into_iter().collect();
    let family = Some(crate::address::Family::V6);
    let slice = EndpointSlice {
        service: key("web"),
        family,
        ready: counts(),
        serving: counts(),
        serving_without_node: 0,
        unready: Default::default(),
        addresses: Default::default(),
    };
    story.tell(Fact::EndpointSlice(key("web-6"), Some(Arc::new(slice))));
    story.turn();
    let owners: Vec<Option<NodeName>> =
        story.decision("web").announcements.iter().map(|it| it.l2.owner.clone()).collect();
    assert_eq!(owners, [Some("a".into()), Some("b".into())], "each where its family has an endpoint");
}

/// Input: a Service of two families has both addresses, and somebody takes away the first one alone; then the primary family is the other one.
/// Output: it has its address again, in its place. It stood last, so the other family ranked the nodes, and both went to other nodes.
#[test]
fn an_address_that_comes_back_stands_where_the_families_of_the_service_have_it() {
    use crate::address::Family::{V4, V6};

    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::10f"])];
    let mut story = Story::begin(config);
    for (name, families) in [("web", vec![V4, V6]), ("shop", vec![V6, V4])] {
        let family_policy = FamilyPolicy::RequireDualStack;
        story.put(name, Service { families: families.clone(), family_policy, ..service() });
        let given = story.written(name).expect("both");
        assert_eq!(given.iter().map(|it| crate::address::Family::of(*it)).collect::<Vec<_>>(), families);
        story.confirm(name);
        for away in [0, 1] {
            story.change(name, |service| {
                service.ingress.remove(away);
            });
            assert_eq!(story.written(name), Some(given.clone()), "{name}: no. {away} is back");
            story.confirm(name);
            story.later(Duration::from_secs(3600));
        }
    }
    // What stands there in another order stays.
    story.change("web", |service| service.ingress.reverse());
    assert_eq!(story.written("web"), None);
}

#[test]
fn agents_on_hosts_with_other_links_write_the_same_condition() {
    // Input: a Service holds an address that is the host's own on one host, its gateway's on another, and neither on a third.
    let condition = |links: &[(&str, &str)]| {
        let mut story = Story::begin(Config { pools: vec![pool("lan", &["192.168.35.0/24"])], ..configuration() });
        for (number, (name, net)) in links.iter().enumerate() {
            let link = story.planner.world().links[&2].clone();
            let index = 2 + u32::try_from(number).unwrap();
            let addresses = vec![net.parse().unwrap()];
            story.tell(Fact::Link(index, Some(Link { index, name: (*name).into(), addresses, ..link })));
        }
        story.turn();
        story.put("holds", Service { ingress: vec![ip("192.168.35.11")], ..service() });
        story.put("asks", asking_for(&["192.168.35.255"]));
        let of = |name: &str| {
            let write = story.planner.plan().status.services[&key(name)].write.clone();
            write.and_then(|write| write.condition).expect("a condition").message
        };
        (of("holds"), of("asks"))
    };
    let (holds, asks) = condition(&[("eth0", "192.168.35.11/24")]);
    assert_eq!(holds, "assigned 192.168.35.11 from lan");
    assert!(asks.contains("192.168.35.255") && !asks.contains("/24"), "{asks}");
    assert_eq!(condition(&[("ens3", "192.168.35.11/24")]), (holds.clone(), asks.clone()));
    assert_eq!(condition(&[("br0", "192.168.35.12/24")]), (holds.clone(), asks));
    assert_eq!(condition(&[("eth0", "10.0.0.1/24")]).0, holds);
}

#[test]
fn standalone_what_a_service_has_stays_when_its_request_cannot_be_read_any_more() {
    let mut story = Story::begin(standalone());
    story.put("web", service());
    story.endpoints("web", &["a"]);
    assert_eq!(story.announced("web"), [OURS]);
    let error = RequestError::Malformed {
        field: "crier.dev/egress-to".to_owned(),
        value: "x".to_owned(),
        problem: "it is neither an address nor a CIDR".to_owned(),
    };
    let refused = Service { request: Err(error.clone()), ..service() };
    for request in [Err(error), Ok(Request::default())] {
        let is_readable = request.is_ok();
        story.change("web", |web| web.request = request);
        assert_eq!(story.announced("web"), [OURS], "{is_readable}");
        assert_eq!(story.decision("web").allocation.complaint.is_none(), is_readable, "it is the complaint");
    }
    story.put("late", refused);
    assert_eq!(story.announced("late"), [""; 0], "who has nothing gets nothing by it");
}

/// What crier gave under another file, to a Service that this node alone serves.
fn left(address: &str) -> Service {
    Service { external_traffic_policy: TrafficPolicy::Local, ..given(address) }
}

/// The Lease's holder, restarted with a file whose pool is another one, while the agents of the other Nodes are dead.
fn with_another_file(change: impl FnOnce(&mut Config)) -> Story {
    let mut config = configuration();
    config.pools = vec![pool("new", &["192.168.35.160-192.168.35.169"])];
    change(&mut config);
    let mut story = Story::alone(config);
    // What the agent kept of its former file.
    let all = ("lan".into(), ip("0.0.0.0"), ip("255.255.255.255"));
    story.tell(Fact::Pools(Arc::new([all].into())));
    story.endpoints("web", &["a"]);
    story
}

/// Input: whoever may write statuses writes an address with the words of crier. Output: it is announced only where a
/// former file of this agent had it in the pool of that name, and never by an advertisement that is for other pools; a restart knows it.
#[test]
fn an_address_that_no_file_of_this_agent_ever_had_is_announced_by_nobody() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    let forged = |address: &str, pool: &str| {
        let condition = Condition::given(true, "assigned", &[ip(address)], &[pool.into()], None);
        Service { condition: Some(Arc::new(condition)), ..left(address) }
    };
    for (address, pool) in [("203.0.113.77", "gone"), ("203.0.113.77", "lan"), ("192.168.35.147", "gone")] {
        story.put("web", forged(address, pool));
        assert_eq!((story.answered(), story.routes()), (Vec::new(), Vec::new()), "{address} of {pool}");
        story.delete("web");
    }
    story.put("web", left(OURS));
    let new = vec![pool("new", &["192.168.35.160-192.168.35.169"])];
    story.tell(Fact::Lease(Box::default()));
    story.tell(Fact::Config(Arc::new(Config { pools: new.clone(), ..configuration() })));
    story.turn();
    assert_eq!((story.answered(), story.routes()), (vec![OURS.to_owned()], vec![format!("{OURS}/32")]));
    story.put("api", forged("192.168.35.101", "gone"));
    assert_eq!(story.announced("api"), [""; 0], "the pool of that name never had it");
    let kept: Vec<Fact> = story.planner.world().to_remember().filter(|fact| matches!(fact, Fact::Pools(_))).collect();
    assert_eq!(kept.len(), 1, "a restart knows it");
    // It goes when nobody shows an address of that pool any more.
    story.delete("web");
    story.delete("api");
    story.tell(Fact::Config(Arc::new(Config { pools: new.clone(), ..configuration() })));
    story.put("web", left(OURS));
    assert_eq!(story.answered(), [""; 0]);
}

/// Input: the Lease's holder alone reads a file that splits a pool, and running Services ask for the pool by name. Output:
/// the Services did not change, so nothing is taken before it was told and the others agree; what a Service asks for itself is done at once.
#[test]
fn a_file_that_splits_a_pool_asks_for_nothing_in_the_name_of_services() {
    let mut story = Story::begin(configuration());
    let of_lan = || Request { pools: vec!["lan".into()], ..Request::default() };
    story.put("web", Service { request: Ok(of_lan()), ..given(OURS) });
    assert_eq!((story.addresses("web"), story.written("web")), (vec![OURS.to_owned()], None));
    let range = "192.168.35.150-192.168.35.155";
    let split = || Config {
        pools: vec![pool("lan-old", &["192.168.35.100-192.168.35.149"]), pool("lan", &[range])],
        ..configuration()
    };
    story.tell(Fact::Config(Arc::new(split())));
    for wait in [Duration::ZERO, NOTICE, NOTICE] {
        story.later(wait);
        assert_eq!((story.addresses("web"), story.written("web")), (vec![OURS.to_owned()], None), "after {wait:?}");
        let told = story.decision("web").allocation.complaint.as_ref().map(Reason::code);
        assert_eq!(told.as_deref(), Some("address-goes"));
    }
    story.later(TRUST);
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.150")]), "nobody says otherwise");
    story.confirm("web");
    let asks = Request { pools: vec!["lan-old".into()], ..Request::default() };
    story.change("web", |web| web.request = Ok(asks));
    assert_eq!(
        story.written("web"),
        Some(vec![ip("192.168.35.100")]),
        "now the Service asks, under a file that found it right"
    );
}

/// K19 of the field cases: for ten minutes nobody answered for what the statuses showed.
#[test]
fn an_address_of_no_pool_is_announced_while_it_may_not_be_taken_and_until_the_status_shows_another() {
    let mut story = with_another_file(|_| ());
    story.put("web", left("192.168.35.147"));
    let reason = |story: &Story| story.decision("web").allocation.complaint.as_ref().map(Reason::code);
    for wait in [Duration::ZERO, NOTICE, TRUST - NOTICE * 2] {
        story.later(wait);
        assert_eq!(story.answered(), ["192.168.35.147"], "after {wait:?}");
        assert_eq!(story.routes(), ["192.168.35.147/32"]);
        assert_eq!((story.addresses("web"), story.written("web")), (vec!["192.168.35.147".to_owned()], None));
        assert_eq!(reason(&story).as_deref(), Some("address-goes"));
        assert!(story.planner.plan().removals_wait.is_some());
    }
    let condition = story.write("web").and_then(|it| it.condition).expect("the condition tells it");
    assert_eq!(condition.pools(), ["lan".into()], "{condition:?}");
    story.put("next", service());
    assert_eq!(story.addresses("next"), ["192.168.35.160"]);
    story.later(NOTICE);
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.161")]));
    assert_eq!(story.answered(), ["192.168.35.147"], "the status shows it still");
    story.confirm("web");
    assert_eq!(
        (story.answered(), story.announced("web")),
        (vec!["192.168.35.161".to_owned()], vec!["192.168.35.161".to_owned()])
    );
    assert_eq!(story.planner.plan().removals_wait, None);
}

/// Input: an agent that allocates has started without the text of the ConfigMap that its file names; a Service has an address
/// of a pool of it. Output: the Service keeps it for however long that takes, on the wire too, and is not told that it goes.
#[test]
fn an_address_of_a_pool_that_may_be_in_the_config_map_stays() {
    let mut story = with_another_file(|_| ());
    story.tell(Fact::ClusterConfig(ClusterConfig::Missing, Arc::default()));
    story.put("web", left("192.168.35.147"));
    for wait in [Duration::ZERO, NOTICE, TRUST] {
        story.later(wait);
        assert_eq!(story.answered(), ["192.168.35.147"], "after {wait:?}");
        assert_eq!((story.addresses("web"), story.written("web")), (vec!["192.168.35.147".to_owned()], None));
        let code = story.decision("web").allocation.complaint.as_ref().map(Reason::code);
        assert_eq!(code.as_deref(), Some("pool-unknown"));
        assert_eq!(story.write("web"), None, "its condition stays as it is");
    }
    story.tell(Fact::ClusterConfig(ClusterConfig::Current, Arc::default()));
    story.turn();
    let code = story.decision("web").allocation.complaint.as_ref().map(Reason::code);
    assert_eq!(code.as_deref(), Some("address-goes"), "the ConfigMap does not have it");
}

/// Input: the same agent, whether it remembers the pool or not; the status is emptied, with its condition or without, the
/// Service is of another type for a time, or made again. Output: nothing else is chosen for it until the ConfigMap is known. It got an
/// address of the host's own pool at once, and kept that.
#[test]
fn nothing_is_chosen_for_a_service_whose_pool_may_be_in_the_config_map() {
    type Change = fn(&mut Service);
    let emptied: [(&str, Change); 2] = [
        ("emptied", |web| web.ingress.clear()),
        ("emptied with its condition", |web| (web.ingress, web.condition) = (Vec::new(), None)),
    ];
    for (what, change) in emptied {
        for remembers in [true, false] {
            let mut story = with_another_file(|_| ());
            if !remembers {
                story.tell(Fact::Pools(Arc::default()));
            }
            story.tell(Fact::ClusterConfig(ClusterConfig::Missing, Arc::default()));
            story.put("web", left("192.168.35.147"));
            story.change("web", change);
            for wait in [Duration::ZERO, NOTICE, TRUST] {
                story.later(wait);
                let allocation = &story.decision("web").allocation;
                let code = allocation.complaint.as_ref().unwrap_or(&allocation.reason).code();
                assert_eq!(
                    (code.as_str(), story.write("web")),
                    ("pool-unknown", None),
                    "{what}, {remembers}, {wait:?}"
                );
                assert_eq!(story.addresses("web"), [""; 0], "{what}: the status does not show it");
            }
        }
    }
    let mut story = with_another_file(|_| ());
    story.tell(Fact::ClusterConfig(ClusterConfig::Missing, Arc::default()));
    story.put("web", left("192.168.35.147"));
    let of_version = |version: &str| Service { resource_version: version.to_owned(), ..service() };
    let of_other_type = Service { load_balancer: false, ..of_version("2") };
    story.tell(Fact::Service(key("web"), Some(Arc::new(of_other_type))));
    story.turn();
    story.put("web", of_version("3"));
    assert_eq!((story.addresses("web"), story.write("web").and_then(|it| it.ingress)), (Vec::new(), None));
    assert_eq!(story.decision("web").allocation.reason.code(), "pool-unknown");
    story.delete("web");
    story.put("web", service());
    assert_eq!(story.decision("web").allocation.reason.code(), "pool-unknown", "made again");
    story.put("new", service());
    assert_eq!(story.addresses("new"), ["192.168.35.160"], "one that never had another");
    story.tell(Fact::ClusterConfig(ClusterConfig::Current, Arc::default()));
    story.turn();
    assert_eq!(story.addresses("web"), ["192.168.35.161"], "the ConfigMap does not have it");
}

/// Input: the file of the agent that allocates lacks a pool, the others do not agree, and somebody empties the status of a
/// Service that has an address of it, with its condition or without. Output: it has its address again, and loses it as any other does. It
/// got another one in the same second.
#[test]
fn an_emptied_status_takes_no_address_while_the_agents_disagree() {
    for stripped in [false, true] {
        let mut story = with_another_file(|_| ());
        story.put("web", left("192.168.35.147"));
        story.change("web", |web| {
            web.ingress.clear();
            web.condition = web.condition.take().filter(|_| !stripped);
        });
        for wait in [Duration::ZERO, NOTICE] {
            story.later(wait);
            assert_eq!(story.written("web"), Some(vec![ip("192.168.35.147")]), "stripped: {stripped}, {wait:?}");
            let code = story.decision("web").allocation.complaint.as_ref().map(Reason::code);
            assert_eq!(code.as_deref(), Some("address-goes"));
        }
        let condition = story.confirm_condition("web");
        assert_eq!(condition.addresses(), [ip("192.168.35.147")], "{condition:?}");
        assert_eq!((story.answered(), story.written("web")), (vec!["192.168.35.147".to_owned()], None));
        story.later(TRUST);
        assert_eq!(story.written("web"), Some(vec![ip("192.168.35.160")]));
    }
    // Its own files never had the address, and those of others may.
    let mut story = with_another_file(|_| ());
    story.tell(Fact::Pools(Arc::default()));
    let Fact::Roster(index, Some(mut heard)) = roster(&[("b", &[])], &[]) else { panic!("it is a roster") };
    for member in Arc::make_mut(&mut heard).members.values_mut() {
        Arc::make_mut(&mut member.card).allocation_digest = 7;
    }
    story.tell(Fact::Roster(index, Some(heard)));
    story.put("web", left("192.168.35.147"));
    story.change("web", |web| web.ingress.clear());
    for wait in [Duration::ZERO, NOTICE, TRUST] {
        story.later(wait);
        assert_eq!((story.addresses("web"), story.write("web")), (Vec::new(), None), "after {wait:?}");
        assert_eq!(story.decision("web").allocation.reason.code(), "address-goes");
    }
    // The others are silent, which is no agreement.
    let mut story = with_another_file(|_| ());
    story.tell(Fact::Pools(Arc::default()));
    story.put("web", left("192.168.35.147"));
    story.change("web", |web| web.ingress.clear());
    for wait in [Duration::ZERO, NOTICE] {
        story.later(wait);
        assert_eq!((story.addresses("web"), story.write("web")), (Vec::new(), None), "after {wait:?}");
        assert_eq!(story.decision("web").allocation.reason.code(), "address-goes");
    }
    story.later(TRUST);
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.160")]));
    // Another Service's address comes back to nobody.
    let mut story = with_another_file(|_| ());
    story.put("other", left("192.168.35.165"));
    story.put("web", left("192.168.35.165"));
    story.change("web", |web| web.ingress.clear());
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.160")]));
}

#[test]
fn an_agent_that_does_not_allocate_announces_what_its_file_lacks_too() {
    let mut story = with_another_file(|_| ());
    story.tell(Fact::Allocates(false));
    story.put("web", left("192.168.35.147"));
    assert_eq!(story.answered(), ["192.168.35.147"]);
    assert_eq!(
        story.decision("web").allocation.complaint.as_ref().map(Reason::code).as_deref(),
        Some("address-left-pools")
    );
    story.endpoints("web", &[]);
    assert_eq!(story.answered(), [""; 0], "it goes with the endpoints, as any other");
    story.endpoints("web", &["a"]);
    story.change("web", |web| web.ingress.clear());
    assert_eq!(story.answered(), [""; 0], "the status shows it no more");
}

/// Input: an address of a pool that the file does not have, as the status names it. Output: what announces it.
#[test]
fn what_names_no_pool_or_has_the_address_on_its_link_stands_in_for_a_pool_that_is_gone() {
    let on_link = |config: &mut Config| config.l2[0].pools = vec!["new".into()];
    let over_bgp = |config: &mut Config| config.bgp.advertisements[0].pools = vec!["new".into()];
    let (near, far) = ("192.168.35.147", "198.51.100.9");
    type Change<'a> = &'a dyn Fn(&mut Config);
    let cases: [(&str, &[Change<'_>], bool, bool); 9] = [
        (near, &[], true, true),
        (far, &[], true, true),
        // Its link has the subnet.
        (near, &[&on_link], true, true),
        // The link announces it, so no peer is told of it that was to know of other pools alone.
        (near, &[&over_bgp], true, false),
        (near, &[&on_link, &over_bgp], true, false),
        (far, &[&on_link], false, true),
        (far, &[&over_bgp], true, false),
        // What is for other pools tells no peer of it.
        (far, &[&on_link, &over_bgp], false, false),
        (far, &[&on_link, &|config| config.bgp.advertisements.clear()], true, false),
    ];
    for (number, (address, changes, answered, routed)) in cases.into_iter().enumerate() {
        let mut story = with_another_file(|config| changes.iter().for_each(|change| change(config)));
        story.put("web", left(address));
        let seen = (!story.answered().is_empty(), !story.routes().is_empty());
        assert_eq!(seen, (answered, routed), "case {number}");
    }
    // What is in a VRF was not for an address of which nobody knows that.
    let mut story = with_another_file(|config| {
        on_link(config);
        over_bgp(config);
        config.pools[0].vrf = Some("red".into());
        config.bgp.peers[0].vrf = Some("red".into());
    });
    story.put("web", left(far));
    assert_eq!((story.answered(), story.routes()), (Vec::new(), Vec::new()));
}

/// Whoever may write statuses could write this. An address of no pool is announced only where crier can have given it.
#[test]
fn an_address_of_no_pool_that_crier_did_not_give_or_that_a_host_uses_is_not_announced() {
    let claims = |message: &str, address: &str| {
        let condition =
            crate::world::Condition { allocated: true, reason: "Assigned".to_owned(), message: message.to_owned() };
        Service { condition: Some(Arc::new(condition)), ..showing(address) }
    };
    let theirs = "assigned 192.168.35.147 from lan; by the crier of the Lease kube-system/other".to_owned();
    for (what, web) in [
        ("no condition", showing("192.168.35.147")),
        ("another address", Service { ingress: vec![ip("192.168.35.147")], ..left("192.168.35.148") }),
        ("this host's own", left("192.168.35.11")),
        ("the broadcast address", left("192.168.35.255")),
        ("multicast", left("224.0.0.18")),
        ("loopback", left("127.0.0.1")),
        ("no pool is named", claims("assigned 192.168.35.147", "192.168.35.147")),
        ("not of type LoadBalancer", Service { load_balancer: false, ..left("192.168.35.147") }),
        (
            "another class, whose crier gave it",
            Service { class: Some("example.com/other".to_owned()), ..claims(&theirs, "192.168.35.147") },
        ),
    ] {
        let mut story = with_another_file(|_| ());
        story.put("web", web);
        assert_eq!((story.answered(), story.routes()), (Vec::new(), Vec::new()), "{what}");
    }
}

#[test]
fn of_two_services_that_show_an_address_of_no_pool_one_announces_it() {
    let mut story = with_another_file(|_| ());
    story.put("web", left("192.168.35.147"));
    story.endpoints("api", &["a"]);
    story.put("api", Service { ingress: vec![ip("192.168.35.147")], ..service() });
    assert_eq!((story.announced("web"), story.announced("api")), (vec!["192.168.35.147".to_owned()], Vec::new()));
}

/// K18 of the field cases: a manifest has no API server that fills its families in.
#[test]
fn standalone_a_service_that_wants_one_family_only_gives_the_second_one_back() {
    let dual = &["192.168.35.100-192.168.35.110", "fd35::100-fd35::10f"][..];
    let both = [OURS.to_owned(), "fd35::100".to_owned()];
    let mut story = Story::begin(Config { pools: vec![pool("lan", dual)], ..standalone() });
    story.endpoints("web", &["a"]);
    story.put("web", Service { families: Vec::new(), family_policy: FamilyPolicy::PreferDualStack, ..service() });
    assert_eq!(story.announced("web"), both);
    story.change("web", |web| web.family_policy = FamilyPolicy::SingleStack);
    assert_eq!((story.announced("web"), story.addresses("web")), (vec![both[0].clone()], vec![both[0].clone()]));
    story.change("web", |web| web.family_policy = FamilyPolicy::PreferDualStack);
    assert_eq!(story.announced("web"), both, "and back");
    // What it asks for counts.
    story.change("web", |web| {
        web.family_policy = FamilyPolicy::SingleStack;
        web.request = asking_for(&["fd35::100"]).request;
    });
    assert_eq!(story.announced("web"), both[1..]);
}

/// The manifest comes from a cluster with another load balancer.
#[test]
fn standalone_all_addresses_that_a_manifest_shows_stay_until_it_asks_for_another() {
    let shown = ["192.168.35.104", "192.168.35.105", "192.168.35.106"];
    let mut story = Story::begin(standalone());
    story.endpoints("web", &["a"]);
    story.put("web", Service { ingress: shown.map(ip).to_vec(), ..service() });
    assert_eq!(story.announced("web"), shown);
    story.put("other", service());
    story.change("web", |_| ());
    assert_eq!(story.addresses("web"), shown, "at the next judgement too");
    // A renumbering that is taken back leaves the new address, as for what crier gave.
    story.change("web", |web| {
        web.renumber = Some(Box::new(Renumber { leaving: shown.map(ip).to_vec(), overlap: Duration::from_secs(600) }));
    });
    assert_eq!(story.addresses("web").len(), 4);
    story.change("web", |web| web.renumber = None);
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
}

/// Input: standalone, the folder is empty for a while, and then another Service is there too, first by name.
/// Output: every Service has its own address again.
#[test]
fn standalone_services_that_come_back_get_their_own_addresses() {
    let mut story = Story::begin(standalone());
    story.tell(Fact::ApiServer(ApiServer::Manifests));
    let names = ["mmm", "aaa", "zzz"];
    for name in names {
        story.put(name, service());
    }
    let addresses = |story: &Story| names.map(|name| story.addresses(name));
    let had = addresses(&story);
    story.tell(Fact::Listed(Listing::Services(Default::default())));
    story.turn();
    for name in ["a", "aaa", "mmm", "zzz"] {
        story.tell(Fact::Service(key(name), Some(Arc::new(service()))));
    }
    story.turn();
    assert_eq!(addresses(&story), had);
}

#[test]
fn standalone_a_service_with_one_family_keeps_it_when_a_pool_with_the_other_comes() {
    let mut story = Story::begin(Config { pools: vec![pool("six", &["fd35::/120"])], ..standalone() });
    story.put("web", Service { families: Vec::new(), ..service() });
    let address = story.addresses("web");
    assert!(address.len() == 1 && address[0].starts_with("fd35::"), "{address:?}");
    let pools = vec![pool("six", &["fd35::/120"]), pool("four", &["192.168.35.100/30"])];
    story.tell(Fact::Config(Arc::new(Config { pools, ..standalone() })));
    story.turn();
    assert_eq!(story.addresses("web"), address);
}

/// K5 of the field cases, as it went on a real API server: the notice of the loss said that crier had given all that the status showed,
/// and so all of it stayed.
#[test]
fn addresses_that_somebody_adds_to_a_status_go_after_their_notice_whatever_is_written_meanwhile() {
    for readable in [true, false] {
        let mut story = Story::begin(configuration());
        story.endpoints("web", &["a"]);
        story.put("web", given(OURS));
        let error = RequestError::Malformed {
            field: "crier.dev/addresses".to_owned(),
            value: "x".to_owned(),
            problem: "it is no address".to_owned(),
        };
        story.change("web", |web| {
            web.ingress = ["192.168.35.109", OURS, "192.168.35.108", OURS].map(ip).to_vec();
            web.request = if readable { Ok(Request::default()) } else { Err(error) };
        });
        assert!(story.write("web").is_some_and(|write| write.ingress.is_none()), "it is told first");
        story.confirm("web");
        let service = &story.planner.world().services[&key("web")];
        assert!(service.given().contains(&ip(OURS)) && !service.given().contains(&ip("192.168.35.109")));
        if !readable {
            assert_eq!(story.write("web"), None, "nothing is taken while nobody knows what it asks for");
            story.change("web", |web| web.request = Ok(Request::default()));
        }
        story.later(NOTICE);
        assert_eq!(story.written("web"), Some(vec![ip(OURS)]), "readable {readable}");
    }
}
/// Once a second whatever is to be written is written and read back, as the status queue does.
fn goes_on(story: &mut Story, names: &[&str], seconds: u64) {
    for _ in 0..seconds {
        for name in names {
            if story.write(name).is_some() {
                story.confirm(name);
            }
        }
        story.later(Duration::from_secs(1));
    }
}

/// Input: somebody writes an address beside the one that crier gave; the notice, too, is written and read back. Output: it goes.
#[test]
fn the_notice_does_not_make_crier_the_giver_of_what_somebody_added() {
    let mut config = configuration();
    config.pools.push(Pool { auto_assign: false, ..pool("wan", &["198.51.100.0/24"]) });
    let condition = given(OURS).condition;
    for (added, condition) in [("192.168.35.107", &condition), ("198.51.100.5", &condition), ("198.51.100.5", &None)] {
        let mut story = Story::begin(config.clone());
        story.put("web", given(OURS));
        story.change("web", |it| (it.ingress, it.condition) = (vec![ip(OURS), ip(added)], condition.clone()));
        goes_on(&mut story, &["web"], 10);
        assert_eq!(story.planner.world().services[&key("web")].ingress, [ip(OURS)], "{added}");
        assert_eq!(story.planner.world().services[&key("web")].given(), [ip(OURS)], "{added}");
    }
    // Who asks for both pools has both.
    let mut story = Story::begin(config);
    let pools = vec!["lan".into(), "wan".into()];
    let both = Service { request: Ok(Request { addresses: Vec::new(), pools }), ..given(OURS) };
    story.put("web", both);
    goes_on(&mut story, &["web"], 10);
    assert_eq!(story.addresses("web"), [OURS, "198.51.100.0"]);
}

/// Input: the first by name shows, by somebody's hand, what crier gave another one, and the Lease changes hands, within the notice too.
/// Output: who was given the address keeps it, and the other one gets its own back, where it had one.
#[test]
fn an_address_that_crier_gave_is_not_lost_to_the_first_by_name_by_a_notice() {
    for own in [Some("192.168.35.108"), None] {
        let mut story = Story::begin(configuration());
        story.put("crown", given(OURS));
        match own {
            Some(own) => {
                story.put("alias", given(own));
                story.change("alias", |it| it.ingress = vec![ip(OURS)]);
            }
            None => drop(story.put("alias", showing(OURS))),
        }
        for _ in 0..3 {
            story.tell(Fact::Allocates(false));
            story.turn();
            story.tell(Fact::Allocates(true));
            story.turn();
            goes_on(&mut story, &["alias", "crown"], 1);
        }
        story.later(TRUST);
        goes_on(&mut story, &["alias", "crown"], 10);
        assert_eq!(story.planner.world().services[&key("crown")].ingress, [ip(OURS)], "{own:?}");
        let alias = story.addresses("alias");
        assert!(alias != [OURS] && own.is_none_or(|own| alias == [own]), "{alias:?}");
    }
}

/// Input: one renumbering after the other, each write told by the watch alone. Output: none of them is somebody else's overwrite, and a
/// real one in an overlap counts.
#[test]
fn what_crier_writes_for_an_overlap_is_no_overwrite() {
    let mut story = Story::begin(configuration());
    story.put("web", given(OURS));
    for round in 0..6 {
        let leaving = story.planner.world().services[&key("web")].ingress.clone();
        let overlap = Duration::from_secs(3);
        story.change("web", |it| it.renumber = Some(Box::new(crate::world::Renumber { leaving, overlap })));
        for _ in 0..8 {
            let Some(write) = story.write("web") else {
                story.later(Duration::from_secs(1));
                continue;
            };
            story.change("web", |it| {
                it.ingress = write.ingress.clone().unwrap_or_else(|| it.ingress.clone());
                it.condition = write.condition.clone().map(Arc::new);
                it.renumber = it.renumber.take().filter(|_| !write.renumbered);
            });
        }
        let shown = story.planner.world().services[&key("web")].ingress.len();
        let complaint = story.decision("web").allocation.complaint.clone();
        assert_eq!((shown, complaint), (1, None), "round {round}");
    }
    for _ in 0..2 {
        story.change("web", |it| it.ingress.clear());
        if story.write("web").is_some() {
            story.confirm("web");
        }
    }
    assert_eq!(story.event("web"), "StatusNotOurs");
}

/// Input: a status is overwritten until crier stops, and the Service is deleted and made again. Output: the new one is served at once.
#[test]
fn a_service_that_is_made_again_does_not_inherit_the_fight_about_the_former_one() {
    let mut story = Story::begin(configuration());
    story.put("web", given(OURS));
    for _ in 0..2 {
        story.change("web", |service| service.ingress.clear());
        if story.write("web").is_some() {
            story.confirm("web");
        }
    }
    assert_eq!(story.event("web"), "StatusNotOurs");
    // Between two turns, so that nobody judges that it is not there.
    story.tell(Fact::Service(key("web"), None));
    story.put("web", Service { uid: "v".to_owned(), ..service() });
    assert_eq!(story.written("web"), Some(vec![ip(OURS)]));
}

/// Found by the model. Input: another controller wrote the status of a Service, which is then made anew. Output: it has again what crier
/// gave it, and not the lowest that is free: what the other one wrote is none that it had.
#[test]
fn what_crier_gave_comes_back_to_a_service_made_anew_whose_status_another_controller_wrote() {
    let mut story = Story::begin(configuration());
    for name in ["low", "web"] {
        story.put(name, service());
        story.confirm(name);
    }
    story.change("web", |web| web.ingress = vec![ip("203.0.113.7")]);
    story.delete("low");
    story.delete("web");
    story.put("web", Service { uid: "w".to_owned(), ..service() });
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
}

/// Found by the model. Input: a Service keeps its address while it requires a family that no pool has, and somebody writes another Service's
/// address in its place. Output: it has its own again; it was left with none.
#[test]
fn what_somebody_overwrites_comes_back_to_a_service_whose_wish_cannot_be_met() {
    use crate::address::Family::{V4, V6};
    let mut story = Story::begin(configuration());
    for name in ["api", "web"] {
        story.put(name, service());
        story.confirm(name);
    }
    story.change("web", |web| (web.families, web.family_policy) = (vec![V4, V6], FamilyPolicy::RequireDualStack));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
    story.change("web", |web| web.ingress = vec![ip(OURS)]);
    story.later(NOTICE * 2);
    assert_eq!(story.written("web"), Some(vec![ip("192.168.35.101")]));
    assert_eq!(
        (story.addresses("web"), story.addresses("api")),
        (vec!["192.168.35.101".to_owned()], vec![OURS.to_owned()])
    );
}

/// Input: a pool goes and takes the address of a Service with it; another one comes that waits too, and goes first by name; the pool is
/// back. Output: who had the address has it again.
#[test]
fn of_those_that_wait_who_had_the_address_has_it_again() {
    let config = |pools: Vec<Pool>| Config { pools, ..configuration() };
    let lan = || pool("lan", &["192.168.35.100"]);
    let other = || Pool { auto_assign: false, ..pool("other", &["198.51.100.0/30"]) };
    let mut story = Story::begin(config(vec![lan()]));
    story.put("web", service());
    story.confirm("web");
    story.tell(Fact::Config(Arc::new(config(vec![other()]))));
    story.later(Duration::ZERO);
    story.later(TRUST);
    story.later(NOTICE);
    assert_eq!(story.written("web"), Some(Vec::new()));
    story.confirm("web");
    story.put("a-new-one", service());
    assert!(story.addresses("a-new-one").is_empty());
    story.tell(Fact::Config(Arc::new(config(vec![lan(), other()]))));
    story.turn();
    assert_eq!((story.addresses("web"), story.addresses("a-new-one")), (vec![OURS.to_owned()], Vec::new()));
}

/// Found by the model. Input: a Service keeps its address while it requires a family that its pool has not, and somebody writes one of
/// another pool beside it. Output: that one goes, as from any other Service; it stayed for good.
#[test]
fn what_somebody_writes_beside_the_address_of_a_service_whose_wish_cannot_be_met_goes() {
    use crate::address::Family::{V4, V6};
    let mut config = configuration();
    config.pools.push(pool("wan", &["198.51.100.0/30"]));
    let mut story = Story::begin(config);
    let of_wan = Ok(Request { addresses: Vec::new(), pools: vec!["wan".into()] });
    story.put("web", Service { request: of_wan, ..service() });
    story.confirm("web");
    story.change("web", |web| (web.families, web.family_policy) = (vec![V6, V4], FamilyPolicy::RequireDualStack));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["198.51.100.0"]);
    story.change("web", |web| web.ingress.push(ip("192.168.35.104")));
    story.later(NOTICE * 2);
    assert_eq!(story.written("web"), Some(vec![ip("198.51.100.0")]));
    assert_eq!(story.addresses("web"), ["198.51.100.0"]);
}

fn dual_given() -> Story {
    let mut config = configuration();
    config.pools = vec![pool("lan", &["192.168.35.100-192.168.35.110", "fd35::100-fd35::110"])];
    let mut story = Story::begin(config);
    story.endpoints("web", &["a"]);
    let families = vec![crate::address::Family::V4, crate::address::Family::V6];
    story.put("web", Service { families, family_policy: FamilyPolicy::RequireDualStack, ..service() });
    story.confirm("web");
    assert_eq!(story.announced("web"), [OURS, "fd35::100"]);
    story
}

/// Input: somebody sorts the addresses of a status. Output: nothing is written, and the first one that crier gave ranks
/// the nodes as before, on every node.
#[test]
fn another_order_of_the_same_addresses_is_not_rewritten_and_moves_nothing() {
    for leader in [true, false] {
        let mut story = dual_given();
        story.tell(Fact::Allocates(leader));
        for _ in 0..3 {
            story.change("web", |service| service.ingress.reverse());
            assert_eq!(
                (story.announced("web"), story.addresses("web")),
                ([OURS, "fd35::100"].map(str::to_owned).into(), [OURS, "fd35::100"].map(str::to_owned).into())
            );
            assert_eq!(story.write("web"), None);
        }
    }
}

/// Input: somebody takes the addresses of one family out of a status again and again. Output: they stay announced by
/// all, also while crier leaves the status to that one.
#[test]
fn a_family_that_is_taken_out_of_a_status_stays_announced() {
    for family in [OURS, "fd35::100"] {
        for leader in [true, false] {
            let mut story = dual_given();
            story.tell(Fact::Allocates(leader));
            for round in 0..3 {
                story.change("web", |service| service.ingress = vec![ip(family)]);
                assert_eq!(story.announced("web"), [OURS, "fd35::100"], "round {round}, {leader}");
                if leader && round < 1 {
                    assert_eq!(story.written("web"), Some(vec![ip(OURS), ip("fd35::100")]));
                }
                if round < 2 {
                    story.change("web", |service| service.ingress = vec![ip(OURS), ip("fd35::100")]);
                }
            }
            assert_eq!(story.write("web"), None, "it is left");
        }
    }
    // A Service that is to have one family now loses the other one.
    let mut story = dual_given();
    story.tell(Fact::Allocates(false));
    story.change("web", |service| {
        (service.families, service.family_policy) = (vec![crate::address::Family::V4], FamilyPolicy::SingleStack);
        service.ingress = vec![ip(OURS)];
    });
    assert_eq!(story.announced("web"), [OURS]);
}

/// Input: somebody writes a condition of crier that names another address than the status shows. Output: the agents that
/// do not allocate go on with what the status shows, and announce nothing that it never showed.
#[test]
fn a_forged_condition_takes_nothing_away_and_gives_nothing() {
    for leader in [true, false] {
        let mut story = Story::begin(configuration());
        story.endpoints("web", &["a"]);
        story.put("web", given(OURS));
        story.tell(Fact::Allocates(leader));
        for _ in 0..3 {
            story.change("web", |service| service.condition = given("192.168.35.107").condition);
            assert_eq!(story.announced("web"), [OURS]);
            story.change("web", |service| service.source_ranges.push("10.0.0.0/8".to_owned()));
            assert_eq!(story.announced("web"), [OURS], "nor later");
        }
        // Crier itself gives another one.
        story.tell(Fact::Allocates(false));
        story.change("web", |service| {
            *service = Service { resource_version: service.resource_version.clone(), ..given("192.168.35.107") }
        });
        assert_eq!(story.announced("web"), ["192.168.35.107"]);
        story.change("web", |service| service.ingress = vec![ip("192.168.35.109")]);
        assert_eq!(story.announced("web"), ["192.168.35.107"], "what replaces it takes nothing, as before");
    }
}

/// Input: a Service that the agent which allocates gives no address, or not the one that it asks for, and says so in the
/// condition. Output: the other agents tell its word, and not that they wait for it.
#[test]
fn what_the_agent_that_allocates_says_of_a_service_the_others_tell_too() {
    let mut story = Story::begin(configuration());
    story.endpoints("web", &["a"]);
    let text = "the requested address 10.1.2.3 is in no pool";
    for (mut service, has) in [(service(), false), (given(OURS), true)] {
        service.request = asking_for(&["10.1.2.3"]).request;
        story.tell(Fact::Allocates(true));
        story.put("web", Service { resource_version: format!("{}", 10 + 10 * u32::from(has)), ..service });
        story.confirm("web");
        let says = story.decision("web").allocation.clone();
        assert_eq!(says.complaint.as_ref().unwrap_or(&says.reason).to_string(), text);
        story.tell(Fact::Allocates(false));
        story.change("web", |_| {});
        let told = story.decision("web").allocation.clone();
        let expected = Reason::ToldByAllocator { why: "AddressOutsidePools".to_owned(), text: text.to_owned() };
        assert_eq!((told.held.len() == 1, told.complaint.as_ref().unwrap_or(&told.reason)), (has, &expected));
        assert!(story.planner.plan().status.services.is_empty(), "one agent tells the user");
    }
    // What the crier of another Lease says is no word of this one's.
    story.change("web", |it| {
        it.ingress = Vec::new();
        let other = Condition::nothing("no-free-address", "none").by(&ObjectKey::new("kube-system", "other"));
        it.condition = Some(Arc::new(other));
    });
    assert_eq!(story.decision("web").allocation.reason, Reason::WaitingForAllocator);
}
