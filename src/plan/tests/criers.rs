//! Two criers in one cluster, each with a Lease and pools of its own, that both serve Services without a class, as stories.

use super::pulses::roster;
use super::*;
use crate::plan::removals::NOTICE;
use crate::plan::slice::StatusWrite;

const THEIRS: &str = "kube-system/crier-example.com-b";

/// A crier with these addresses; `None`: of the default class and Lease.
fn crier(class: Option<&str>, addresses: &str) -> Story {
    let class = class.map(|class| format!("class = \"{class}\"\n")).unwrap_or_default();
    crier_with(&class, addresses)
}

/// The file of such a crier.
fn file_of(class: &str, addresses: &str) -> Config {
    let text = format!(
        "[kubernetes]\nin-cluster = true\n{class}[[pool]]\nname = \"lan\"\naddresses = [\"{addresses}\"]\nrest = \"0s\"\n[[l2]]\n"
    );
    let file = SourceFile { path: "crier.toml".to_owned(), text };
    config::parse(&[file], &NoSecrets).expect("it is good")
}

fn crier_with(class: &str, addresses: &str) -> Story {
    let mut story = Story::begin(file_of(class, addresses));
    // One agent is the whole crier, so it agrees with itself.
    for name in ["b", "c"] {
        story.tell(Fact::Node(name.into(), None));
    }
    story.turn();
    story
}

fn other() -> Story {
    crier(Some("example.com/b"), "192.168.35.200-192.168.35.210")
}

fn key_of(lease: &str) -> ObjectKey {
    let (namespace, name) = lease.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

/// A cluster with two criers, and one Service.
struct Cluster {
    service: Service,
    criers: [Story; 2],
    writes: usize,
}

impl Cluster {
    fn new(service: Service, criers: [Story; 2]) -> Cluster {
        let mut cluster = Cluster { service, criers, writes: 0 };
        cluster.tell();
        cluster
    }

    fn tell(&mut self) {
        let service = &self.service;
        self.criers.iter_mut().for_each(|crier| drop(crier.put("web", service.clone())));
    }

    fn wanted(&self, crier: usize) -> Option<StatusWrite> {
        let status = self.criers[crier].planner.plan().status.services.get(&key("web"));
        status.and_then(|status| status.write.clone())
    }

    /// Both write what they want, one after the other, each second.
    fn goes_on(&mut self, seconds: u64) {
        for _ in 0..seconds {
            for crier in 0..2 {
                self.criers[crier].now += Duration::from_secs(1);
                self.criers[crier].turn();
                let Some(StatusWrite { ingress, condition, .. }) = self.wanted(crier) else { continue };
                self.writes += 1;
                self.service.ingress = ingress.unwrap_or(std::mem::take(&mut self.service.ingress));
                self.service.condition = condition.map(Arc::new);
                let version = self.service.resource_version.parse::<u64>().expect("a number") + 1;
                self.service.resource_version = version.to_string();
                let fact = Fact::StatusWritten(key("web"), Arc::new(self.service.clone()));
                self.criers[crier].tell(fact);
                self.tell();
            }
        }
    }

    fn shows(&self) -> Vec<String> {
        self.service.ingress.iter().map(IpAddr::to_string).collect()
    }

    fn complaints(&self) -> [Option<String>; 2] {
        [0, 1].map(|crier| {
            let allocation = self.criers[crier].decision("web").allocation.clone();
            let reason = Some(allocation.reason.code()).filter(|_| allocation.held.is_empty());
            allocation.complaint.as_ref().map(Reason::code).or(reason)
        })
    }

    fn lease(&self) -> Option<&str> {
        self.service.condition.as_ref().and_then(|condition| condition.lease())
    }
}

/// Input: both criers serve a Service without a class, and one of them is first. Output: it stays that one's; the other
/// one writes nothing, and says whose it is. There were a hundred writes a second without end, and the address changed every 3 s.
#[test]
fn a_service_stays_with_the_crier_that_gave_it_its_address_and_the_other_one_says_so() {
    let ours = || crier(None, "192.168.35.100-192.168.35.110");
    let mut cluster = Cluster::new(service(), [ours(), other()]);
    cluster.goes_on(1200);
    assert_eq!((cluster.shows(), cluster.lease(), cluster.writes), (vec!["192.168.35.100".to_owned()], None, 1));
    assert_eq!(cluster.complaints(), [None, Some("other-crier".to_owned())]);

    let mut cluster = Cluster::new(service(), [other(), ours()]);
    cluster.goes_on(1200);
    assert_eq!((cluster.shows(), cluster.writes), (vec!["192.168.35.200".to_owned()], 1));
    assert_eq!(cluster.lease(), Some(THEIRS));
    assert_eq!(cluster.complaints(), [None, Some("other-crier".to_owned())]);
    let reason = cluster.criers[1].decision("web").allocation.reason.to_string();
    assert!(reason.contains(THEIRS) && reason.contains("default-class"), "{reason}");
    let notice = cluster.criers[1].planner.plan().status.services[&key("web")].notice.clone().expect("an Event");
    assert!(notice.warning && notice.reason == "StatusNotOurs", "{notice:?}");
    // Somebody empties the status: whoever gave the address gives it back.
    cluster.service.ingress.clear();
    cluster.service.resource_version = "100".to_owned();
    cluster.criers.swap(0, 1);
    cluster.tell();
    cluster.goes_on(60);
    assert_eq!((cluster.shows(), cluster.writes), (vec!["192.168.35.200".to_owned()], 2));
}

/// Input: both criers serve Services without a class, and the operator does what the Event says: the one that gave an
/// address gets `default-class = false`. Output: it goes on announcing what it gave, and writes nothing; once the status is emptied it
/// takes its word back, and the other one gives an address. Nobody announced the address, for good.
#[test]
fn a_crier_that_serves_no_class_any_more_keeps_what_it_gave() {
    let without = || crier_with("class = \"example.com/b\"\ndefault-class = false\n", "192.168.35.200-192.168.35.210");
    let mut cluster = Cluster::new(service(), [other(), crier(None, "192.168.35.100-192.168.35.110")]);
    cluster.goes_on(60);
    cluster.criers[0] = without();
    cluster.tell();
    cluster.goes_on(600);
    assert_eq!((cluster.shows(), cluster.writes), (vec!["192.168.35.200".to_owned()], 1));
    assert_eq!(cluster.complaints(), [None, Some("other-crier".to_owned())]);
    let announced = |crier: &Story| {
        let announcements = &crier.decision("web").announcements;
        announcements.iter().map(|it| it.address.to_string()).collect::<Vec<_>>()
    };
    let mut kept = |leads| {
        cluster.criers[0].tell(Fact::Allocates(leads));
        cluster.criers[0].turn();
        let notes = cluster.criers[0].decision("web").allocation.notes.iter().map(Reason::code).collect::<Vec<_>>();
        (announced(&cluster.criers[0]), notes)
    };
    let expected = (vec!["192.168.35.200".to_owned()], vec!["class-left".to_owned()]);
    assert_eq!(kept(false), expected, "whoever allocates");
    assert_eq!(kept(true), expected);
    // A Service of that class, or one that shows what this crier did not give, is another's.
    for (name, change) in [
        ("another's address", (|it| it.ingress = vec!["192.168.35.201".parse().unwrap()]) as fn(&mut Service)),
        ("a host name", |it| (it.ingress, it.host_names) = (Vec::new(), vec!["a.example.com".to_owned()])),
    ] {
        let mut service = cluster.service.clone();
        change(&mut service);
        cluster.criers[0].put("web", service);
        assert_eq!(cluster.criers[0].decision("web").allocation.reason.code(), "other-class", "{name}");
        assert!(announced(&cluster.criers[0]).is_empty(), "{name}");
    }
    // What others write beside it takes nothing.
    for (name, change) in [
        ("a host name beside it", (|it| it.host_names = vec!["a.example.com".to_owned()]) as fn(&mut Service)),
        ("a foreign address", |it| it.ingress.push("172.16.0.9".parse().unwrap())),
        ("conditions of another writer in place of crier's", |it| it.condition = None),
        ("the same, told again", |it| it.condition = None),
    ] {
        let mut service = cluster.service.clone();
        change(&mut service);
        for leads in [false, true] {
            cluster.criers[0].tell(Fact::Allocates(leads));
            cluster.criers[0].put("web", service.clone());
            assert_eq!(announced(&cluster.criers[0]), ["192.168.35.200"], "{name}, leads: {leads}");
        }
    }
    // Who never saw crier's word, or sees another address, knows nothing of it.
    let mut stripped = Service { condition: None, ..cluster.service.clone() };
    let mut new = without();
    new.put("web", stripped.clone());
    assert_eq!(new.decision("web").allocation.reason.code(), "other-class");
    stripped.ingress = vec!["192.168.35.201".parse().unwrap()];
    cluster.criers[0].put("web", stripped.clone());
    assert_eq!(cluster.criers[0].decision("web").allocation.reason.code(), "other-class");
    stripped.ingress = vec!["192.168.35.200".parse().unwrap()];
    cluster.criers[0].put("web", stripped);
    assert_eq!(cluster.criers[0].decision("web").allocation.reason.code(), "other-class", "it may be another's now");
    cluster.criers[0].put("web", cluster.service.clone());
    cluster.service.ingress.clear();
    cluster.service.resource_version = "100".to_owned();
    cluster.tell();
    cluster.goes_on(60);
    assert_eq!((cluster.shows(), cluster.lease()), (vec!["192.168.35.100".to_owned()], None));
}

/// Input: a crier keeps what it gave to a Service of a class that its file does not name any more, and then its pool
/// shrinks. Output: the address is announced until the status shows something else, and that its pool has left is told. It went off the
/// wire in the second of the change, without a word.
#[test]
fn what_a_crier_keeps_of_a_class_that_it_left_stays_when_its_pool_shrinks() {
    let shrunk = || crier_with("class = \"example.com/b\"\ndefault-class = false\n", "192.168.35.204-192.168.35.210");
    for leads in [true, false] {
        let mut story = other();
        story.put("web", service());
        story.confirm("web");
        let kept = story.planner.world().services[&key("web")].clone();
        let mut next =
            crier_with("class = \"example.com/b\"\ndefault-class = false\n", "192.168.35.200-192.168.35.210");
        next.tell(Fact::Allocates(leads));
        next.put("web", Service::clone(&kept));
        next.tell(Fact::Config(shrunk().planner.config().clone()));
        next.turn();
        let decision = next.decision("web");
        let announced: Vec<String> = decision.announcements.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(announced, ["192.168.35.200"], "leads: {leads}");
        let notes: Vec<String> = decision.allocation.notes.iter().map(Reason::code).collect();
        assert_eq!(notes, ["class-left"]);
        assert_eq!(decision.allocation.complaint.as_ref().map(Reason::code).as_deref(), Some("address-left-pools"));
        assert!(next.planner.plan().status.services.get(&key("web")).is_none_or(|status| status.write.is_none()));
        next.change("web", |web| web.ingress.clear());
        assert_eq!(next.decision("web").allocation.reason.code(), "other-class");
        assert!(next.decision("web").announcements.is_empty(), "the status was emptied");
        // A node whose agent never had such a pool knows nothing of it.
        let mut new = shrunk();
        new.put("web", Service::clone(&kept));
        assert_eq!(new.decision("web").allocation.reason.code(), "other-class");
    }
}

/// Input: a crier of the default class and Lease gets a class of its own, which its Lease follows, and leaves the
/// Services without a class; later its pool shrinks, and an agent of the Lease of before is heard. Output: what it gave stays announced,
/// and is said to; what only a former pool had is that agent's while it is heard. All went off the wire at once, without a word.
#[test]
fn what_a_crier_gave_stays_when_its_lease_follows_another_class() {
    let (all, few) = ("192.168.35.100-192.168.35.110", "192.168.35.105-192.168.35.110");
    let next = |addresses: &str| crier_with("class = \"acme.io/lb\"\ndefault-class = false\n", addresses);
    let mut before = crier(None, all);
    before.put("web", service());
    before.confirm("web");
    let world = before.planner.world();
    let web = Service::clone(&world.services[&key("web")]);
    let kept: Vec<Fact> = world.to_remember().filter(|fact| matches!(fact, Fact::Pools(_) | Fact::Leases(_))).collect();
    assert_eq!(kept.len(), 2, "a restart knows both");
    let announced = |story: &Story| {
        let announcements = &story.decision("web").announcements;
        announcements.iter().map(|it| it.address.to_string()).collect::<Vec<_>>()
    };
    for leads in [true, false] {
        let mut story = next(all);
        story.tell(Fact::Allocates(leads));
        kept.iter().for_each(|fact| story.tell(fact.clone()));
        story.put("web", web.clone());
        assert_eq!(announced(&story), ["192.168.35.100"], "leads: {leads}");
        assert_eq!(story.decision("web").allocation.notes.iter().map(Reason::code).collect::<Vec<_>>(), ["class-left"]);
        assert!(story.planner.plan().status.services.get(&key("web")).is_none_or(|status| status.write.is_none()));
        let Fact::Roster(index, Some(mut heard)) = roster(&[("b", &[])], &[]) else { panic!("it is a roster") };
        for member in Arc::make_mut(&mut heard).members.values_mut() {
            Arc::make_mut(&mut member.card).lease = before.planner.written().lease_digest();
        }
        story.tell(Fact::Roster(index, Some(heard)));
        story.turn();
        assert_eq!(announced(&story), ["192.168.35.100"], "its pool has it, while the agents are restarted one by one");
        story.tell(Fact::Config(next(few).planner.config().clone()));
        story.turn();
        assert_eq!(announced(&story), [""; 0], "the crier of before goes on elsewhere");
        story.tell(roster(&[], &["b"]));
        story.turn();
        assert_eq!(announced(&story), ["192.168.35.100"], "it is gone");
        // A node that never served that crier knows nothing of it.
        let mut new = next(all);
        new.put("web", web.clone());
        assert_eq!(new.decision("web").allocation.reason.code(), "other-class");
    }
}

/// Input: a crier keeps what it gave to a Service of a class that its file does not name any more, and another load balancer gives the
/// Service an address of the same pool beside it, or in its place. Output: crier announces what it gave and the status still shows,
/// nothing else. It announced the other one's too.
#[test]
fn what_another_load_balancer_gives_to_a_class_that_a_crier_left_is_not_announced() {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let (own, own6, other) = (ip("192.168.35.200"), ip("fd35::200"), ip("192.168.35.205"));
    for leads in [true, false] {
        let mut story =
            crier_with("class = \"example.com/b\"\ndefault-class = false\n", "192.168.35.200-192.168.35.210");
        let mut config = Config::clone(story.planner.config());
        config.pools[0].addresses.push("fd35::200-fd35::20f".parse().unwrap());
        story.tell(Fact::Config(Arc::new(config)));
        story.tell(Fact::Allocates(leads));
        for (given, shown, expected) in [
            (&[own][..], &[own, ip("fd35::205")][..], &[own][..]),
            (&[own], &[own, other], &[own]),
            (&[own, own6], &[other, own6], &[own6]),
        ] {
            let condition = Condition::given(true, "assigned", given, &["lan".into()], None).by(&key_of(THEIRS));
            let web = Service { condition: Some(Arc::new(condition)), ingress: shown.to_vec(), ..service() };
            let decision = story.put("web", web);
            let announced: Vec<IpAddr> = decision.announcements.iter().map(|it| it.address).collect();
            assert_eq!(announced, expected, "leads: {leads}, {shown:?}");
            assert_eq!(decision.allocation.notes.iter().map(Reason::code).collect::<Vec<_>>(), ["class-left"]);
        }
    }
}

/// Input: the crier that gave the address is gone, and the operator does what the Event says. Output: the other one gives
/// an address.
#[test]
fn a_service_of_a_crier_that_is_gone_is_served_once_its_status_is_emptied() {
    let mut cluster = Cluster::new(service(), [other(), crier(None, "192.168.35.100-192.168.35.110")]);
    cluster.goes_on(60);
    let reason = cluster.criers[1].decision("web").allocation.reason.to_string();
    assert!(reason.contains("empty status.loadBalancer and remove the condition"), "{reason}");
    (cluster.service.ingress, cluster.service.condition) = (Vec::new(), None);
    cluster.service.resource_version = "100".to_owned();
    cluster.criers[0].tell(Fact::Allocates(false));
    cluster.tell();
    cluster.goes_on(60);
    assert_eq!((cluster.shows(), cluster.lease()), (vec!["192.168.35.100".to_owned()], None));
}

/// Neither has an address to give: there is one word of it, not two in turn.
#[test]
fn two_criers_that_give_nothing_do_not_contradict_each_other_without_end() {
    let v6 = || Service { families: vec![crate::address::Family::V6], ..service() };
    for (first, second) in [(None, Some("example.com/b")), (Some("example.com/b"), None), (Some("a/b"), Some("c/d"))] {
        let criers = [crier(first, "192.168.35.100-192.168.35.101"), crier(second, "192.168.35.200-192.168.35.201")];
        let mut cluster = Cluster::new(v6(), criers);
        cluster.goes_on(600);
        assert!(cluster.writes <= 4, "{first:?} {second:?}: {} writes", cluster.writes);
        // One of them has something to give then.
        cluster.service.families = vec![crate::address::Family::V4];
        cluster.service.resource_version = "100".to_owned();
        let before = cluster.writes;
        cluster.tell();
        cluster.goes_on(600);
        assert_eq!((cluster.shows(), cluster.writes - before), (vec!["192.168.35.100".to_owned()], 1), "{first:?}");
    }
}

/// Input: words of a crier that is gone, of a Service with an address and of one without; then the same again, from one
/// that lives. Output: this crier says its own in their place, whose it is and why; once, and anew when it has something else to say.
#[test]
fn the_words_of_a_crier_that_is_gone_are_replaced() {
    let theirs = |it: Condition| Some(Arc::new(it.by(&key_of(THEIRS))));
    let gives_nothing = Condition::nothing("unknown-pool", "there is no pool \"Two\"");
    let address: IpAddr = "192.168.35.100".parse().unwrap();
    let gave = Condition::given(true, "assigned", &[address], &["lan".into()], None);
    for (condition, ingress) in [(gives_nothing, vec![]), (gave, vec![address])] {
        let families = if ingress.is_empty() { vec![crate::address::Family::V6] } else { Vec::new() };
        let old = Service { condition: theirs(condition), ingress, families, ..service() };
        let mut cluster = Cluster::new(old.clone(), [crier(None, "192.168.35.100-192.168.35.110"), other()]);
        cluster.criers[1].tell(Fact::Allocates(false));
        cluster.tell();
        cluster.goes_on(60);
        assert_eq!((cluster.lease(), cluster.writes), (None, 1), "{:?}", cluster.service.condition);
        cluster.service = Service { resource_version: "100".to_owned(), ..old };
        cluster.tell();
        cluster.goes_on(60);
        assert_eq!((cluster.lease(), cluster.writes), (Some(THEIRS), 1), "it lives");
        if cluster.service.ingress.is_empty() {
            cluster.service.request = asking_for(&["fd00::1"]).request;
            cluster.service.resource_version = "200".to_owned();
            cluster.tell();
            cluster.goes_on(60);
            assert_eq!((cluster.lease(), cluster.writes), (None, 2), "{:?}", cluster.service.condition);
        }
    }
}

/// Input: a crier that contradicted this one, and then was gone (a rollout of `lease`). Output: its words are replaced
/// after ten minutes; of one that says them again after twenty, and so on. They stood until this crier had another allocator.
#[test]
fn the_words_of_a_crier_that_goes_after_a_contradiction_are_replaced_later() {
    let address: IpAddr = "192.168.35.100".parse().unwrap();
    let gave = Condition::given(true, "assigned", &[address], &["lan".into()], None).by(&key_of(THEIRS));
    let theirs = Service { condition: Some(Arc::new(gave)), ingress: vec![address], ..service() };
    let mut cluster = Cluster::new(theirs.clone(), [crier(None, "192.168.35.100-192.168.35.110"), other()]);
    cluster.criers[1].tell(Fact::Allocates(false));
    cluster.goes_on(60);
    assert_eq!((cluster.lease(), cluster.writes), (None, 1));
    for (version, minutes) in [(100, 10), (200, 20)] {
        cluster.service = Service { resource_version: version.to_string(), ..theirs.clone() };
        cluster.tell();
        let before = cluster.writes;
        cluster.goes_on(minutes * 60 - 5);
        assert_eq!((cluster.lease(), cluster.writes), (Some(THEIRS), before), "it lives, {minutes}");
        cluster.goes_on(10);
        assert_eq!((cluster.lease(), cluster.writes), (None, before + 1), "it is gone, {minutes}");
    }
    assert!(cluster.criers[0].planner.next_deadline().is_none_or(|at| at > cluster.criers[0].now));
}

/// Input: two criers that take each other's words for their own, as versions do that do not say whose they are. Output: one of them stops
/// after two overwrites within a minute, says so, and tries again ever more rarely.
#[test]
fn two_criers_that_cannot_be_told_apart_do_not_fight_without_end() {
    let mut cluster = Cluster::new(
        service(),
        [crier(None, "192.168.35.100-192.168.35.110"), crier(None, "192.168.35.200-192.168.35.210")],
    );
    cluster.goes_on(120);
    assert!(cluster.writes < 40, "{} writes", cluster.writes);
    assert!(cluster.complaints().contains(&Some("status-overwritten".to_owned())), "{:?}", cluster.complaints());
    let before = cluster.writes;
    cluster.goes_on(1200);
    assert!(cluster.writes - before < 60, "{} more writes", cluster.writes - before);
}

/// Input: a status is overwritten twice within a minute, while the condition of another crier stands there from before, or
/// with its condition. Output: that crier is named only where the overwrite brought its word.
#[test]
fn a_crier_is_named_for_an_overwrite_only_where_its_word_came_with_it() {
    let [ours, theirs]: [IpAddr; 2] = ["192.168.35.100", "192.168.35.105"].map(|text| text.parse().unwrap());
    let given = |address| Condition::given(true, "assigned", &[address], &["lan".into()], None);
    let showing = |address, condition: Condition| {
        move |web: &mut Service| (web.ingress, web.condition) = (vec![address], Some(Arc::new(condition)))
    };
    let by_them = |address| showing(address, given(address).by(&key_of(THEIRS)));
    for (worded, expected) in [(false, None), (true, Some(THEIRS.to_owned()))] {
        let mut story = crier(None, "192.168.35.100-192.168.35.110");
        story.put("web", service());
        story.change("web", by_them(ours));
        for _ in 0..3 {
            story.now += Duration::from_secs(1);
            story.turn();
            match worded {
                true => story.change("web", showing(ours, given(ours))),
                false => story.change("web", by_them(ours)),
            }
            match worded {
                true => story.change("web", by_them(theirs)),
                false => story.change("web", |web| web.ingress.clear()),
            }
        }
        story.turn();
        let complaint = story.decision("web").allocation.complaint.clone();
        assert_eq!(complaint, Some(Reason::StatusOverwritten { by: expected }), "worded: {worded}");
    }
}

/// Input: a status of the version before, of a crier with another class. Output: the addresses stay, and the condition says whose they
/// are; so also where the pool has left the file since, as far as this agent knows that it had it.
#[test]
fn what_the_version_before_wrote_stays_and_says_whose_it_is_after_the_upgrade() {
    let condition = Condition::given(true, "assigned", &["192.168.35.205".parse().unwrap()], &["lan".into()], None);
    let of_before =
        Service { condition: Some(Arc::new(condition)), ingress: vec!["192.168.35.205".parse().unwrap()], ..service() };
    let mut cluster = Cluster::new(of_before.clone(), [other(), crier(Some("a/b"), "192.168.35.100-192.168.35.110")]);
    cluster.goes_on(60);
    assert_eq!((cluster.shows(), cluster.writes), (vec!["192.168.35.205".to_owned()], 1));
    assert_eq!(cluster.lease(), Some(THEIRS));
    let mut upgraded = other();
    upgraded.put("web", of_before);
    let without = Config { pools: vec![pool("new", &["198.51.100.0/28"])], ..Config::clone(upgraded.planner.config()) };
    upgraded.tell(Fact::Config(Arc::new(without)));
    upgraded.turn();
    assert_eq!(
        upgraded.decision("web").allocation.complaint.as_ref().map(Reason::code).as_deref(),
        Some("address-goes")
    );
}

/// Input: the Lease of the file is changed node by node, so that two agents allocate for a while, by the same pools. Output: no address
/// moves, and the two do not write in turn.
#[test]
fn another_lease_in_the_file_takes_nothing_and_begins_no_fight() {
    let lan = "192.168.35.100-192.168.35.110";
    for (from, to) in [(None, Some("a/b")), (Some("a/b"), None), (Some("a/b"), Some("c/d"))] {
        let mut cluster = Cluster::new(service(), [crier(from, lan), crier(to, lan)]);
        cluster.goes_on(600);
        assert_eq!(cluster.shows(), ["192.168.35.100"], "{from:?} {to:?}");
        assert!(cluster.writes <= 4, "{from:?} {to:?}: {} writes", cluster.writes);
        assert_eq!(cluster.complaints(), [None, None], "{from:?} {to:?}");
    }
}

/// The watch tells what this agent wrote before the answer to the write comes, again and again: that is no fight.
#[test]
fn an_own_write_that_the_watch_tells_first_is_nobodys() {
    let mut story = Story::begin(configuration());
    story.put("web", service());
    for address in ["192.168.35.103", "192.168.35.104", "192.168.35.105", "192.168.35.106"] {
        let wanted = story.planner.plan().status.services[&key("web")].write.clone().expect("a write");
        let mut written = Service::clone(&story.planner.world().services[&key("web")]);
        written.ingress = wanted.ingress.expect("addresses");
        written.condition = wanted.condition.map(Arc::new);
        written.resource_version = (written.resource_version.parse::<u64>().unwrap() + 1).to_string();
        story.put("web", written.clone());
        story.tell(Fact::StatusWritten(key("web"), Arc::new(written)));
        story.turn();
        story.change("web", |it| it.request = asking_for(&[address]).request);
        assert_eq!(story.addresses("web"), [address]);
    }
}

/// Input: another controller, or another crier, writes its address into the status while this one's write is under way.
/// Output: what this one had promised is free for others, and with pools that have the other address too the Service keeps that one.
#[test]
fn a_promise_that_somebody_else_overtook_is_free_for_others() {
    let by_crier = |address: &str| {
        Condition::given(true, "assigned", &[address.parse().unwrap()], &["lan".into()], None).by(&key_of(THEIRS))
    };
    for (theirs, condition) in [("192.168.35.200", Some(by_crier("192.168.35.200"))), ("203.0.113.7", None)] {
        let mut story = crier(None, "192.168.35.100");
        story.put("web", service());
        assert_eq!(story.addresses("web"), ["192.168.35.100"], "a promise");
        story.put("next", service());
        assert!(story.addresses("next").is_empty());
        let told = Service { resource_version: "2".to_owned(), ..service() };
        let ingress = vec![theirs.parse().unwrap()];
        story.put("web", Service { ingress, condition: condition.map(Arc::new), ..told });
        assert_eq!(story.addresses("next"), ["192.168.35.100"], "{theirs}");
        let wider = pool("lan", &["192.168.35.100", theirs, "192.168.35.240"]);
        story.tell(Fact::Config(Arc::new(Config { pools: vec![wider], ..file_of("", "192.168.35.100") })));
        story.turn();
        assert_eq!(story.addresses("web"), [theirs]);
    }
}

/// A newer version of the Service that somebody wrote for another reason ends no promise, and neither does the write itself.
#[test]
fn a_promise_outlives_what_is_written_beside_it() {
    let mut story = crier(None, "192.168.35.100-192.168.35.101");
    story.put("web", service());
    story.put("web", Service { resource_version: "2".to_owned(), labels: Labels([("a", "b")].into()), ..service() });
    story.put("next", service());
    assert_eq!(
        (story.addresses("web"), story.addresses("next")),
        (vec!["192.168.35.100".to_owned()], vec!["192.168.35.101".to_owned()])
    );
    // Another crier without a free address has its say in the condition.
    let word = Condition::nothing("no-free-address", "no free IPv4 address in b").by(&key_of(THEIRS));
    story.put("web", Service { resource_version: "3".to_owned(), condition: Some(Arc::new(word)), ..service() });
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
}

/// Input: a promise stands in the way of the address that crier gave and that the status shows. Output: that one goes as others do, after it
/// was told.
#[test]
fn an_address_in_use_goes_before_a_promise_only_after_its_notice() {
    let mut story = crier(None, "192.168.35.100-192.168.35.101");
    story.put("web", service());
    story.confirm("web");
    story.tell(Fact::Assigned(key("web"), vec!["192.168.35.101".parse().unwrap()]));
    story.turn();
    let goes = |story: &Story| matches!(story.decision("web").allocation.complaint, Some(Reason::AddressGoes { .. }));
    assert!(goes(&story), "it is told");
    assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    story.now += NOTICE;
    story.turn();
    story.now += NOTICE;
    story.turn();
    assert!(!goes(&story));
    assert_eq!(story.written("web"), Some(vec!["192.168.35.101".parse().unwrap()]));
    story.confirm("web");
    assert_eq!(story.addresses("web"), ["192.168.35.101"]);
}
