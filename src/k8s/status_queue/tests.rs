//! The queue of the status writer: what is written, in which order, and what is told.

use super::*;
use crate::clock;

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn writing(addresses: &str) -> StatusWrite {
    let ingress = addresses.split_whitespace().map(|ip| ip.parse().unwrap()).collect();
    StatusWrite { ingress: Some(ingress), condition: None, transition: true, pools: Vec::new(), renumbered: false }
}

fn status(version: &str, write: Option<&str>, notice: Option<(bool, &str)>) -> ServiceStatus {
    ServiceStatus {
        uid: "u".to_owned(),
        resource_version: version.to_owned(),
        told: false,
        warning: None,
        write: write.map(writing),
        notice: notice.map(|(warning, message)| Notice {
            warning,
            reason: "Word".to_owned(),
            message: message.to_owned(),
        }),
    }
}

fn slice(services: &[(&str, ServiceStatus)]) -> StatusSlice {
    let services = services.iter().map(|(name, status)| (key(name), Arc::new(status.clone()))).collect();
    StatusSlice { services }
}

fn said(events: impl IntoIterator<Item = PendingEvent>) -> Vec<String> {
    events.into_iter().map(|event| format!("{}: {}", event.service.name, event.notice.message)).collect()
}

fn overtaken() -> Written {
    Written::Overtaken { why: "409 the object has been modified".to_owned() }
}

fn refused(why: &str) -> Written {
    Written::Refused { why: why.to_owned(), patience: Duration::ZERO, by_rule: false }
}

#[test]
fn a_desired_status_is_written_once() {
    let mut queue = StatusQueue::default();
    let one = slice(&[("web", status("1", Some("192.0.2.1"), None)), ("api", status("2", None, None))]);
    queue.turn_to(one.clone());
    let (web, wanted, addresses) = queue.next_write().expect("web is to be written");
    assert_eq!((web.clone(), addresses), (key("web"), writing("192.0.2.1")));
    assert!(queue.next_write().is_none(), "api has what it should");
    queue.turn_to(one);
    assert!(queue.next_write().is_none(), "it is in flight");
    queue.settle(&web, &wanted, &Written::Done, clock::now());
    assert!(queue.next_write().is_none() && queue.next_deadline().is_none());
}

#[test]
fn a_newer_status_waits_for_the_write_in_flight_and_then_wins() {
    for outcome in [Written::Done, overtaken(), Written::Gone, refused("no")] {
        let mut queue = StatusQueue::default();
        queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), None))]));
        let (web, first, _) = queue.next_write().unwrap();
        queue.turn_to(slice(&[("web", status("2", Some("192.0.2.2"), None))]));
        queue.turn_to(slice(&[("web", status("3", Some("192.0.2.3"), None))]));
        assert!(queue.next_write().is_none(), "one at a time");
        queue.settle(&web, &first, &outcome, clock::now());
        let (_, newest, _) = queue.next_write().expect("the newest is next");
        assert_eq!(newest.resource_version, "3", "after {outcome:?}");
        assert!(queue.next_deadline().is_none(), "the first is not tried again");
    }
}

#[test]
fn a_write_that_is_no_longer_desired_is_not_begun() {
    let mut queue = StatusQueue::default();
    queue.turn_to(slice(&[("a", status("1", Some(""), None)), ("b", status("1", Some("192.0.2.1"), None))]));
    queue.turn_to(slice(&[("a", status("1", None, None))]));
    assert!(queue.next_write().is_none());
}

#[test]
fn a_refused_write_is_retried_ever_later_and_told_once() {
    let mut queue = StatusQueue::default();
    queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), None))]));
    let mut now = clock::now();
    for delay in [1, 2, 4, 8, 16, 30, 30] {
        let (web, wanted, _) = queue.next_write().expect("it is tried again");
        let settled = queue.settle(&web, &wanted, &refused("403 forbidden"), now);
        assert_eq!(settled.refusal.is_some(), delay == 1, "reported the first time only");
        assert!(queue.next_write().is_none(), "not at once");
        assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(delay)));
        queue.wake(now + Duration::from_millis(900));
        assert!(queue.next_write().is_none(), "not too early");
        now += Duration::from_secs(delay);
        queue.wake(now);
    }
    let (web, wanted, _) = queue.next_write().unwrap();
    let settled = queue.settle(&web, &wanted, &refused("500 etcd is away"), now);
    assert_eq!(settled.refusal.as_deref(), Some("500 etcd is away"), "another reason is news");
    let patient = Written::Refused { why: "429".to_owned(), patience: Duration::from_secs(20), by_rule: false };
    queue.turn_to(slice(&[("api", status("1", Some("192.0.2.1"), None))]));
    assert_eq!(queue.next_deadline(), None, "web is gone, and its tries with it");
    let (api, wanted, _) = queue.next_write().unwrap();
    queue.settle(&api, &wanted, &patient, now);
    assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(20)), "as long as the API server asked for");
}

/// The Service was pending, and nobody but the agent's operator saw why.
#[test]
fn what_a_rule_refuses_is_told_by_one_event() {
    let mut queue = StatusQueue::default();
    queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), None))]));
    let mut now = clock::now();
    let mut told = Vec::new();
    for why in ["422 no", "422 no", "422 not at all"] {
        let (web, wanted, _) = queue.next_write().expect("it is tried again");
        let refused = Written::Refused { why: why.to_owned(), patience: Duration::ZERO, by_rule: true };
        told.extend(said(queue.settle(&web, &wanted, &refused, now).event));
        now += Duration::from_secs(30);
        queue.wake(now);
    }
    let expected =
        ["422 no", "422 not at all"].map(|why| format!("web: the API server refuses the status of the Service: {why}"));
    assert_eq!(told, expected);
}

#[test]
fn a_new_notice_about_a_refused_write_does_not_hurry_it() {
    let mut queue = StatusQueue::default();
    queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), None))]));
    let (web, wanted, _) = queue.next_write().unwrap();
    queue.settle(&web, &wanted, &refused("403"), clock::now());
    let reported =
        queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), Some((true, "the write was refused"))))]));
    assert_eq!(said(reported), ["web: the write was refused"]);
    assert!(queue.next_write().is_none());
    queue.turn_to(slice(&[("web", status("2", Some("192.0.2.1"), None))]));
    assert!(queue.next_write().is_some(), "another version is another write");
}

#[test]
fn success_is_reported_once_the_write_has_succeeded() {
    let mut queue = StatusQueue::default();
    let good = Some((false, "assigned"));
    assert_eq!(said(queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), good))]))), [""; 0]);
    let (web, wanted, _) = queue.next_write().unwrap();
    let refusal = queue.settle(&web, &wanted, &refused("403"), clock::now());
    assert_eq!(refusal.event, None, "it is not true");
    queue.wake(clock::now() + LONGEST_DELAY);
    let (web, wanted, _) = queue.next_write().unwrap();
    let done = queue.settle(&web, &wanted, &Written::Done, clock::now());
    assert_eq!(said(done.event), ["web: assigned"]);
    assert_eq!(said(queue.turn_to(slice(&[("web", status("2", None, good))]))), [""; 0], "once");
    let other = Some((false, "moved"));
    assert_eq!(said(queue.turn_to(slice(&[("web", status("3", None, other))]))), ["web: moved"]);
}

#[test]
fn success_is_reported_once_though_the_watch_is_faster_than_the_answer() {
    let mut queue = StatusQueue::default();
    let good = Some((false, "assigned"));
    queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), good))]));
    let (web, wanted, _) = queue.next_write().unwrap();
    let seen = ServiceStatus { told: true, ..status("2", None, good) };
    assert_eq!(said(queue.turn_to(slice(&[("web", seen)]))), ["web: assigned"]);
    assert_eq!(queue.settle(&web, &wanted, &Written::Done, clock::now()).event, None);
}

#[test]
fn a_warning_is_reported_at_once_and_again_only_after_a_change() {
    let mut queue = StatusQueue::default();
    let bad = Some((true, "no free address"));
    assert_eq!(said(queue.turn_to(slice(&[("web", status("1", Some(""), bad))]))), ["web: no free address"]);
    assert_eq!(said(queue.turn_to(slice(&[("web", status("2", None, bad))]))), [""; 0]);
    queue.turn_to(slice(&[("web", status("2", None, None))]));
    assert_eq!(said(queue.turn_to(slice(&[("web", status("2", None, bad))]))), ["web: no free address"]);
}

#[test]
fn for_a_service_seen_first_only_a_warning_is_reported() {
    let mut queue = StatusQueue::default();
    let good = status("1", None, Some((false, "assigned")));
    let bad = status("1", None, Some((true, "no free address")));
    let reported = queue.turn_to(slice(&[("good", good), ("bad", bad)]));
    assert_eq!(said(reported), ["bad: no free address"]);
}

#[test]
fn a_conflict_that_no_newer_version_follows_is_retried_and_told_the_second_time() {
    let mut queue = StatusQueue::default();
    queue.turn_to(slice(&[("web", status("1", Some("192.0.2.1"), None))]));
    let mut now = clock::now();
    let mut told = Vec::new();
    for _ in 0..4 {
        let (web, wanted, _) = queue.next_write().expect("it is tried again");
        told.push(queue.settle(&web, &wanted, &overtaken(), now).refusal.is_some());
        now = queue.next_deadline().expect("it is tried again");
        queue.wake(now);
    }
    assert_eq!(
        told,
        [false, true, false, false],
        "a conflict is normal once, and a refusal of the same text is told once"
    );
    queue.turn_to(slice(&[("web", status("2", Some("192.0.2.1"), None))]));
    assert!(queue.next_write().is_some() && queue.next_deadline().is_none(), "the newer version is another write");
}

#[test]
fn addresses_are_written_before_words_and_few_words_at_once() {
    let mut queue = StatusQueue::default();
    let words = || {
        let write = StatusWrite { ingress: None, transition: false, ..writing("") };
        ServiceStatus { write: Some(write), ..status("1", None, None) }
    };
    let mut services: Vec<(String, ServiceStatus)> = (0..20).map(|n| (format!("a-{n}"), words())).collect();
    services.push(("web".to_owned(), status("1", Some("192.0.2.1"), None)));
    let services: Vec<(&str, ServiceStatus)> = services.iter().map(|(name, it)| (name.as_str(), it.clone())).collect();
    queue.turn_to(slice(&services));
    assert_eq!(queue.next_write().map(|(key, ..)| key), Some(key("web")));
    let begun: Vec<_> = std::iter::from_fn(|| queue.next_write()).collect();
    assert_eq!(begun.len(), WORDS_SIDE_BY_SIDE);
    queue.settle(&begun[0].0, &begun[0].1, &Written::Done, clock::now());
    assert!(queue.next_write().is_some() && queue.next_write().is_none(), "one for each that ended");
}

#[test]
fn what_the_condition_says_already_is_not_said_again_by_the_next_leader() {
    let mut queue = StatusQueue::default();
    let bad = ServiceStatus { told: true, ..status("1", None, Some((true, "no free address"))) };
    assert_eq!(said(queue.turn_to(slice(&[("web", bad)]))), [""; 0]);
    let other = status("2", Some("192.0.2.1"), Some((true, "another reason")));
    assert_eq!(said(queue.turn_to(slice(&[("web", other)]))), ["web: another reason"]);
}

#[test]
fn the_loss_of_an_address_is_told_before_the_write_and_once() {
    let mut queue = StatusQueue::default();
    let warning = Some(Notice { warning: true, reason: "AddressGoes".to_owned(), message: "it goes".to_owned() });
    let moving = |version: &str| ServiceStatus { warning: warning.clone(), ..status(version, Some("192.0.2.2"), None) };
    assert_eq!(said(queue.turn_to(slice(&[("web", moving("1"))]))), ["web: it goes"]);
    assert!(queue.next_write().is_some());
    assert_eq!(said(queue.turn_to(slice(&[("web", moving("2"))]))), [""; 0]);
}

fn losing(version: &str, write: Option<StatusWrite>) -> ServiceStatus {
    let notice = Notice { warning: true, reason: Notice::LOSS.to_owned(), message: "it goes".to_owned() };
    ServiceStatus { notice: Some(notice), write, ..status(version, None, None) }
}

/// Input: three hundred Services whose pool goes. Output: an Event for each, whatever else is dropped; it is told once the
/// Event and the condition are there, in either order, and the write that takes the address says it no second time.
#[test]
fn what_tells_that_an_address_goes_is_handed_out_for_each_and_settled_with_the_condition() {
    let mut queue = StatusQueue::default();
    let words = StatusWrite { ingress: None, transition: false, ..writing("") };
    let names: Vec<String> = (0..300).map(|number| format!("s{number:03}")).collect();
    let of = |status: ServiceStatus| {
        let all: Vec<(&str, ServiceStatus)> = names.iter().map(|name| (name.as_str(), status.clone())).collect();
        slice(&all)
    };
    assert_eq!(said(queue.turn_to(of(losing("1", Some(words))))), [""; 0], "none of those that may be dropped");
    let events: Vec<PendingEvent> = std::iter::from_fn(|| queue.next_removal()).collect();
    assert_eq!((events.len(), queue.take_told()), (300, Vec::new()));
    let (first, rest) = events.split_at(150);
    first.iter().for_each(|event| queue.settle_removal(event));
    assert!(queue.take_told().is_empty(), "no condition is written");
    let mut written = 0;
    while let Some((key, wanted, _)) = queue.next_write() {
        queue.settle(&key, &wanted, &Written::Done, clock::now());
        written += 1;
    }
    let told: Vec<ObjectKey> = first.iter().map(|event| event.service.clone()).collect();
    assert_eq!((written, queue.take_told()), (300, told));
    rest.iter().for_each(|event| queue.settle_removal(event));
    assert_eq!((queue.take_told().len(), queue.take_told().len()), (150, 0));

    let moving = |why: &str| {
        let warning = Some(Notice { warning: true, reason: Notice::LOSS.to_owned(), message: why.to_owned() });
        ServiceStatus { warning, ..status("2", Some("192.0.2.2"), Some((false, "assigned"))) }
    };
    for why in ["it goes", "there is another one"] {
        assert_eq!(said(queue.turn_to(of(moving(why)))), [""; 0], "it was told");
    }
}

/// Input: the next holder finds the condition that says it; a rule refuses the condition; the wish is taken back before the Event is
/// written, and comes again. Output: none is waited for in vain, and nothing is told that is not so any more.
#[test]
fn a_loss_that_the_condition_tells_or_that_cannot_be_written_is_told_and_one_that_was_taken_back_is_not() {
    let mut queue = StatusQueue::default();
    let found = ServiceStatus { told: true, ..losing("1", None) };
    queue.turn_to(slice(&[("web", found)]));
    assert_eq!((queue.next_removal(), queue.take_told()), (None, vec![key("web")]));

    let words = StatusWrite { ingress: None, transition: false, ..writing("") };
    queue.turn_to(slice(&[("api", losing("1", Some(words.clone())))]));
    let event = queue.next_removal().expect("an Event");
    queue.settle_removal(&event);
    let (api, wanted, _) = queue.next_write().expect("a condition");
    queue.settle(&api, &wanted, &refused("500 etcd is away"), clock::now());
    assert!(queue.take_told().is_empty(), "it is tried again");
    let by_rule = Written::Refused { why: "403 a policy".to_owned(), patience: Duration::ZERO, by_rule: true };
    queue.settle(&api, &wanted, &by_rule, clock::now());
    assert_eq!(queue.take_told(), [key("api")]);

    queue.turn_to(slice(&[("db", losing("1", Some(words.clone())))]));
    queue.turn_to(slice(&[("db", status("2", None, None))]));
    assert_eq!(queue.next_removal(), None, "it stays");
    queue.turn_to(slice(&[("db", losing("3", Some(words)))]));
    assert!(queue.next_removal().is_some() && queue.next_removal().is_none());
}
