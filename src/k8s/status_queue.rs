//! The queue of the status writer: the desired statuses, the writes in flight, the refused writes, the reported notices.
//! Floor 1.
//!
//! [`StatusQueue::turn_to`] takes the newest slice, [`StatusQueue::next_write`] hands out a write, [`StatusQueue::settle`]
//! takes the outcome of a write, and [`StatusQueue::wake`] is due at [`StatusQueue::next_deadline`]. All may be called at
//! any time and in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;

use crate::names::ObjectKey;
use crate::plan::slice::{Notice, ServiceStatus, StatusSlice};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// At most one write per Service is in flight, and the newest desired status wins. A refused write is retried until the
/// desired status changes.
#[derive(Default)]
pub struct StatusQueue {
    wanted: StatusSlice,
    waiting: BTreeSet<ObjectKey>,
    in_flight: BTreeSet<ObjectKey>,
    refused: BTreeMap<ObjectKey, Refusal>,
    /// When each refused write is retried.
    due: BTreeSet<(Instant, ObjectKey)>,
    /// The status with the last notice of each Service that was written as an Event, or that needs no Event.
    reported: BTreeMap<ObjectKey, Arc<ServiceStatus>>,
}

struct Refusal {
    desired: Arc<ServiceStatus>,
    why: String,
    delay: Duration,
    again: Instant,
}

/// One Event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingEvent {
    pub service: ObjectKey,
    pub uid: String,
    pub resource_version: String,
    pub notice: Notice,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The Service has changed since the decision: the watch brings the newer version.
    Overtaken,
    /// The Service is gone.
    Gone,
    /// Refused for any other reason; retried after `patience` at the earliest.
    Refused {
        why: String,
        patience: Duration,
    },
}

/// What to report about a finished write.
#[derive(Debug, Default, PartialEq)]
pub struct Settled {
    pub event: Option<PendingEvent>,
    /// Why the API server refused the write, unless the same reason was reported before.
    pub refusal: Option<String>,
}

impl StatusQueue {
    /// Replaces the slice by the newest one and returns the Events to write. The cost follows the number of differences.
    pub fn turn_to(&mut self, slice: StatusSlice) -> Vec<PendingEvent> {
        let before = std::mem::replace(&mut self.wanted, slice);
        let wanted = self.wanted.clone();
        let mut events = Vec::new();
        for item in before.services.diff(&wanted.services) {
            match item {
                DiffItem::Add(key, status) => {
                    self.want(key, status);
                    events.extend(self.first_event(key, status));
                }
                DiffItem::Update { new: (key, status), .. } => {
                    self.want(key, status);
                    events.extend(self.changed_event(key, status));
                }
                DiffItem::Remove(key, _) => {
                    self.waiting.remove(key);
                    self.reported.remove(key);
                    self.clear_refusal(key);
                }
            }
        }
        events
    }

    /// The next write to begin: the Service, the desired status to pass to [`StatusQueue::settle`], and the addresses.
    pub fn next_write(&mut self) -> Option<(ObjectKey, Arc<ServiceStatus>, Vec<IpAddr>)> {
        while let Some(key) = self.waiting.pop_first() {
            let Some(status) = self.wanted.services.get(&key) else { continue };
            let Some(addresses) = &status.write else { continue };
            self.in_flight.insert(key.clone());
            return Some((key, Arc::clone(status), addresses.clone()));
        }
        None
    }

    /// Takes the outcome of the write of `desired`.
    pub fn settle(
        &mut self,
        key: &ObjectKey,
        desired: &Arc<ServiceStatus>,
        outcome: &Written,
        now: Instant,
    ) -> Settled {
        self.in_flight.remove(key);
        let mut settled = Settled::default();
        let current = self.wanted.services.get(key).cloned();
        let again = current.as_ref().is_some_and(|current| !same_write(current, desired));
        match outcome {
            Written::Done => {
                self.clear_refusal(key);
                // A notice of success is reported once the write has succeeded, unless a newer notice replaced it.
                let good = desired.notice.as_ref().filter(|notice| !notice.warning);
                if let Some(current) = current.filter(|current| current.notice.as_ref() == good) {
                    settled.event = self.unreported(key, &current);
                }
            }
            Written::Overtaken | Written::Gone => drop(self.clear_refusal(key)),
            Written::Refused { why, patience } if !again => {
                let before = self.clear_refusal(key);
                let delay = before.as_ref().map_or(FIRST_DELAY, |before| (before.delay * 2).min(LONGEST_DELAY));
                let again = now + delay.max((*patience).min(LONGEST_DELAY));
                if before.is_none_or(|before| before.why != *why) {
                    settled.refusal = Some(why.clone());
                }
                self.due.insert((again, key.clone()));
                self.refused
                    .insert(key.clone(), Refusal { desired: Arc::clone(desired), why: why.clone(), delay, again });
            }
            Written::Refused { .. } => drop(self.clear_refusal(key)),
        }
        if again {
            self.waiting.insert(key.clone());
        }
        settled
    }

    /// When to call [`StatusQueue::wake`]; may be in the past.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Queues the refused writes whose delay is over.
    pub fn wake(&mut self, now: Instant) {
        while let Some((at, key)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, key));
                return;
            }
            self.waiting.insert(key);
        }
    }

    fn want(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) {
        if status.write.is_none() {
            self.waiting.remove(key);
            self.clear_refusal(key);
            return;
        }
        // A new notice does not make a refused write due earlier.
        let patient = self.refused.get(key).is_some_and(|refusal| same_write(&refusal.desired, status));
        // The outcome of the write in flight decides whether this write is still needed.
        if !patient && !self.in_flight.contains(key) {
            self.clear_refusal(key);
            self.waiting.insert(key.clone());
        }
    }

    /// The Event for a Service that appears in the slice. A notice of success that needs no write was reported by the agent
    /// that wrote the status.
    fn first_event(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<PendingEvent> {
        let notice = status.notice.as_ref()?;
        if !notice.warning && status.write.is_none() {
            self.reported.insert(key.clone(), Arc::clone(status));
        }
        self.changed_event(key, status)
    }

    fn changed_event(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<PendingEvent> {
        match &status.notice {
            None => {
                self.reported.remove(key);
                None
            }
            // Reported once the write has succeeded.
            Some(notice) if !notice.warning && status.write.is_some() => None,
            Some(_) => self.unreported(key, status),
        }
    }

    /// The notice as an Event, unless the notice was reported last.
    fn unreported(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<PendingEvent> {
        let notice = status.notice.as_ref()?;
        let before = self.reported.insert(key.clone(), Arc::clone(status));
        if before.is_some_and(|before| before.notice.as_ref() == Some(notice)) {
            return None;
        }
        Some(PendingEvent {
            service: key.clone(),
            uid: status.uid.clone(),
            resource_version: status.resource_version.clone(),
            notice: notice.clone(),
        })
    }

    fn clear_refusal(&mut self, key: &ObjectKey) -> Option<Refusal> {
        let refusal = self.refused.remove(key)?;
        self.due.remove(&(refusal.again, key.clone()));
        Some(refusal)
    }
}

/// Whether two desired statuses need the same write, whatever their notices.
fn same_write(one: &ServiceStatus, other: &ServiceStatus) -> bool {
    let of = |status: &ServiceStatus| (status.uid.clone(), status.resource_version.clone(), status.write.clone());
    of(one) == of(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn status(version: &str, write: Option<&str>, notice: Option<(bool, &str)>) -> ServiceStatus {
        ServiceStatus {
            uid: "u".to_owned(),
            resource_version: version.to_owned(),
            write: write.map(|addresses| addresses.split_whitespace().map(|ip| ip.parse().unwrap()).collect()),
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

    fn refused(why: &str) -> Written {
        Written::Refused { why: why.to_owned(), patience: Duration::ZERO }
    }

    #[test]
    fn a_desired_status_is_written_once() {
        let mut queue = StatusQueue::default();
        let one = slice(&[("web", status("1", Some("192.0.2.1"), None)), ("api", status("2", None, None))]);
        queue.turn_to(one.clone());
        let (web, wanted, addresses) = queue.next_write().expect("web is to be written");
        assert_eq!((web.clone(), addresses), (key("web"), vec!["192.0.2.1".parse().unwrap()]));
        assert!(queue.next_write().is_none(), "api has what it should");
        queue.turn_to(one);
        assert!(queue.next_write().is_none(), "it is in flight");
        queue.settle(&web, &wanted, &Written::Done, clock::now());
        assert!(queue.next_write().is_none() && queue.next_deadline().is_none());
    }

    #[test]
    fn a_newer_status_waits_for_the_write_in_flight_and_then_wins() {
        for outcome in [Written::Done, Written::Overtaken, Written::Gone, refused("no")] {
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
        let patient = Written::Refused { why: "429".to_owned(), patience: Duration::from_secs(20) };
        queue.turn_to(slice(&[("api", status("1", Some("192.0.2.1"), None))]));
        assert_eq!(queue.next_deadline(), None, "web is gone, and its tries with it");
        let (api, wanted, _) = queue.next_write().unwrap();
        queue.settle(&api, &wanted, &patient, now);
        assert_eq!(queue.next_deadline(), Some(now + Duration::from_secs(20)), "as long as the API server asked for");
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
        assert_eq!(said(queue.turn_to(slice(&[("web", status("2", None, good))]))), ["web: assigned"]);
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
}
