//! The book of the status writer: what is wanted, what is under way, what was refused, what the user was told. Floor 1.
//!
//! [`Ledger::turn_to`] takes the newest slice, [`Ledger::next_write`] hands out work, [`Ledger::settle`] takes its outcome, and
//! [`Ledger::wake`] is due at [`Ledger::next_deadline`]. All may be called at any time and in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;

use crate::names::ObjectKey;
use crate::plan::slice::{Notice, ServiceStatus, StatusSlice};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// At most one write per Service is under way, and the newest wish wins. A wish that failed is tried again until
/// another takes its place.
#[derive(Default)]
pub struct Ledger {
    wanted: StatusSlice,
    waiting: BTreeSet<ObjectKey>,
    under_way: BTreeSet<ObjectKey>,
    refused: BTreeMap<ObjectKey, Refusal>,
    /// When the refused ones are to be tried again.
    due: BTreeSet<(Instant, ObjectKey)>,
    /// What the user was last told of each Service, or need not be told.
    told: BTreeMap<ObjectKey, Notice>,
}

struct Refusal {
    wish: Arc<ServiceStatus>,
    why: String,
    delay: Duration,
    again: Instant,
}

/// One Event to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Telling {
    pub service: ObjectKey,
    pub uid: String,
    pub resource_version: String,
    pub notice: Notice,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The Service has changed meanwhile: a newer wish is on its way.
    Overtaken,
    /// The Service is gone.
    Gone,
    /// Not taken for any other reason; not before `patience` is it tried again.
    Refused {
        why: String,
        patience: Duration,
    },
}

/// What a settled write has to say.
#[derive(Debug, Default, PartialEq)]
pub struct Settled {
    pub telling: Option<Telling>,
    /// Why it was refused, where that is news.
    pub refusal: Option<String>,
}

impl Ledger {
    /// The newest slice takes the place of the one before. Costs what differs. Answers with the Events that this calls for.
    pub fn turn_to(&mut self, slice: StatusSlice) -> Vec<Telling> {
        let before = std::mem::replace(&mut self.wanted, slice);
        let wanted = self.wanted.clone();
        let mut tellings = Vec::new();
        for item in before.services.diff(&wanted.services) {
            match item {
                DiffItem::Add(key, status) => {
                    self.want(key, status);
                    tellings.extend(self.first_word(key, status));
                }
                DiffItem::Update { new: (key, status), .. } => {
                    self.want(key, status);
                    tellings.extend(self.word(key, status));
                }
                DiffItem::Remove(key, _) => {
                    self.waiting.remove(key);
                    self.told.remove(key);
                    self.forgive(key);
                }
            }
        }
        tellings
    }

    /// A write to begin now, with the wish that [`Ledger::settle`] wants back.
    pub fn next_write(&mut self) -> Option<(ObjectKey, Arc<ServiceStatus>, Vec<IpAddr>)> {
        while let Some(key) = self.waiting.pop_first() {
            let Some(status) = self.wanted.services.get(&key) else { continue };
            let Some(addresses) = &status.write else { continue };
            self.under_way.insert(key.clone());
            return Some((key, Arc::clone(status), addresses.clone()));
        }
        None
    }

    /// What became of the write of `wish`.
    pub fn settle(&mut self, key: &ObjectKey, wish: &Arc<ServiceStatus>, outcome: &Written, now: Instant) -> Settled {
        self.under_way.remove(key);
        let mut settled = Settled::default();
        let current = self.wanted.services.get(key).cloned();
        let again = current.as_ref().is_some_and(|current| !same_write(current, wish));
        match outcome {
            Written::Done => {
                self.forgive(key);
                // A good word is said when it has come true, unless something newer is to be said by now.
                let good = wish.notice.as_ref().filter(|notice| !notice.warning);
                if let Some(current) = current.filter(|current| current.notice.as_ref() == good) {
                    settled.telling = self.say(key, &current);
                }
            }
            Written::Overtaken | Written::Gone => self.forgive(key),
            Written::Refused { why, patience } if !again => {
                let before = self.forget_refusal(key);
                let delay = before.as_ref().map_or(FIRST_DELAY, |before| (before.delay * 2).min(LONGEST_DELAY));
                let again = now + delay.max((*patience).min(LONGEST_DELAY));
                if before.is_none_or(|before| before.why != *why) {
                    settled.refusal = Some(why.clone());
                }
                self.due.insert((again, key.clone()));
                self.refused.insert(key.clone(), Refusal { wish: Arc::clone(wish), why: why.clone(), delay, again });
            }
            Written::Refused { .. } => self.forgive(key),
        }
        if again {
            self.waiting.insert(key.clone());
        }
        settled
    }

    /// When [`Ledger::wake`] has something to do; may be in the past.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Puts the refused writes whose time has come back in the queue.
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
            self.forgive(key);
            return;
        }
        // What was refused is not tried sooner because another word is to be said of it.
        let patient = self.refused.get(key).is_some_and(|refusal| same_write(&refusal.wish, status));
        // The outcome of the one under way decides whether this is still to be written.
        if !patient && !self.under_way.contains(key) {
            self.forgive(key);
            self.waiting.insert(key.clone());
        }
    }

    /// The word at first sight of a Service: a good one that needs no write was said by whoever wrote it.
    fn first_word(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<Telling> {
        let notice = status.notice.as_ref()?;
        if !notice.warning && status.write.is_none() {
            self.told.insert(key.clone(), notice.clone());
        }
        self.word(key, status)
    }

    fn word(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<Telling> {
        match &status.notice {
            None => {
                self.told.remove(key);
                None
            }
            // It waits for the write that makes it true.
            Some(notice) if !notice.warning && status.write.is_some() => None,
            Some(_) => self.say(key, status),
        }
    }

    /// The notice as an Event, unless it was the last one said.
    fn say(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<Telling> {
        let notice = status.notice.as_ref().filter(|notice| self.told.get(key) != Some(*notice))?;
        self.told.insert(key.clone(), notice.clone());
        Some(Telling {
            service: key.clone(),
            uid: status.uid.clone(),
            resource_version: status.resource_version.clone(),
            notice: notice.clone(),
        })
    }

    fn forgive(&mut self, key: &ObjectKey) {
        self.forget_refusal(key);
    }

    fn forget_refusal(&mut self, key: &ObjectKey) -> Option<Refusal> {
        let refusal = self.refused.remove(key)?;
        self.due.remove(&(refusal.again, key.clone()));
        Some(refusal)
    }
}

/// Whether two wishes ask for the same write, whatever they have to say.
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

    fn wish(version: &str, write: Option<&str>, notice: Option<(bool, &str)>) -> ServiceStatus {
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

    fn said(tellings: impl IntoIterator<Item = Telling>) -> Vec<String> {
        tellings.into_iter().map(|telling| format!("{}: {}", telling.service.name, telling.notice.message)).collect()
    }

    fn refused(why: &str) -> Written {
        Written::Refused { why: why.to_owned(), patience: Duration::ZERO }
    }

    #[test]
    fn a_wish_is_written_once() {
        let mut ledger = Ledger::default();
        let one = slice(&[("web", wish("1", Some("192.0.2.1"), None)), ("api", wish("2", None, None))]);
        ledger.turn_to(one.clone());
        let (web, wanted, addresses) = ledger.next_write().expect("web is to be written");
        assert_eq!((web.clone(), addresses), (key("web"), vec!["192.0.2.1".parse().unwrap()]));
        assert!(ledger.next_write().is_none(), "api has what it should");
        ledger.turn_to(one);
        assert!(ledger.next_write().is_none(), "it is under way");
        ledger.settle(&web, &wanted, &Written::Done, clock::now());
        assert!(ledger.next_write().is_none() && ledger.next_deadline().is_none());
    }

    #[test]
    fn a_newer_wish_waits_for_the_write_under_way_and_then_wins() {
        for outcome in [Written::Done, Written::Overtaken, Written::Gone, refused("no")] {
            let mut ledger = Ledger::default();
            ledger.turn_to(slice(&[("web", wish("1", Some("192.0.2.1"), None))]));
            let (web, first, _) = ledger.next_write().unwrap();
            ledger.turn_to(slice(&[("web", wish("2", Some("192.0.2.2"), None))]));
            ledger.turn_to(slice(&[("web", wish("3", Some("192.0.2.3"), None))]));
            assert!(ledger.next_write().is_none(), "one at a time");
            ledger.settle(&web, &first, &outcome, clock::now());
            let (_, newest, _) = ledger.next_write().expect("the newest is next");
            assert_eq!(newest.resource_version, "3", "after {outcome:?}");
            assert!(ledger.next_deadline().is_none(), "the first is not tried again");
        }
    }

    #[test]
    fn a_wish_that_is_taken_back_is_not_written() {
        let mut ledger = Ledger::default();
        ledger.turn_to(slice(&[("a", wish("1", Some(""), None)), ("b", wish("1", Some("192.0.2.1"), None))]));
        ledger.turn_to(slice(&[("a", wish("1", None, None))]));
        assert!(ledger.next_write().is_none());
    }

    #[test]
    fn a_refused_write_is_tried_again_ever_later_and_told_once() {
        let mut ledger = Ledger::default();
        ledger.turn_to(slice(&[("web", wish("1", Some("192.0.2.1"), None))]));
        let mut now = clock::now();
        for delay in [1, 2, 4, 8, 16, 30, 30] {
            let (web, wanted, _) = ledger.next_write().expect("it is tried again");
            let settled = ledger.settle(&web, &wanted, &refused("403 forbidden"), now);
            assert_eq!(settled.refusal.is_some(), delay == 1, "told at the first time only");
            assert!(ledger.next_write().is_none(), "not at once");
            assert_eq!(ledger.next_deadline(), Some(now + Duration::from_secs(delay)));
            ledger.wake(now + Duration::from_millis(900));
            assert!(ledger.next_write().is_none(), "not too early");
            now += Duration::from_secs(delay);
            ledger.wake(now);
        }
        let (web, wanted, _) = ledger.next_write().unwrap();
        let settled = ledger.settle(&web, &wanted, &refused("500 etcd is away"), now);
        assert_eq!(settled.refusal.as_deref(), Some("500 etcd is away"), "another reason is news");
        let patient = Written::Refused { why: "429".to_owned(), patience: Duration::from_secs(20) };
        ledger.turn_to(slice(&[("api", wish("1", Some("192.0.2.1"), None))]));
        assert_eq!(ledger.next_deadline(), None, "web is gone, and its tries with it");
        let (api, wanted, _) = ledger.next_write().unwrap();
        ledger.settle(&api, &wanted, &patient, now);
        assert_eq!(ledger.next_deadline(), Some(now + Duration::from_secs(20)), "as long as the API server asked for");
    }

    #[test]
    fn another_word_about_a_refused_write_does_not_hurry_it() {
        let mut ledger = Ledger::default();
        ledger.turn_to(slice(&[("web", wish("1", Some("192.0.2.1"), None))]));
        let (web, wanted, _) = ledger.next_write().unwrap();
        ledger.settle(&web, &wanted, &refused("403"), clock::now());
        let told =
            ledger.turn_to(slice(&[("web", wish("1", Some("192.0.2.1"), Some((true, "the write was refused"))))]));
        assert_eq!(said(told), ["web: the write was refused"]);
        assert!(ledger.next_write().is_none());
        ledger.turn_to(slice(&[("web", wish("2", Some("192.0.2.1"), None))]));
        assert!(ledger.next_write().is_some(), "another version is another write");
    }

    #[test]
    fn a_good_word_is_said_when_it_has_come_true() {
        let mut ledger = Ledger::default();
        let good = Some((false, "assigned"));
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("1", Some("192.0.2.1"), good))]))), [""; 0]);
        let (web, wanted, _) = ledger.next_write().unwrap();
        let refusal = ledger.settle(&web, &wanted, &refused("403"), clock::now());
        assert_eq!(refusal.telling, None, "it is not true");
        ledger.wake(clock::now() + LONGEST_DELAY);
        let (web, wanted, _) = ledger.next_write().unwrap();
        let done = ledger.settle(&web, &wanted, &Written::Done, clock::now());
        assert_eq!(said(done.telling), ["web: assigned"]);
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("2", None, good))]))), [""; 0], "once");
        let other = Some((false, "moved"));
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("3", None, other))]))), ["web: moved"]);
    }

    #[test]
    fn a_good_word_is_said_once_though_the_watch_is_faster_than_the_answer() {
        let mut ledger = Ledger::default();
        let good = Some((false, "assigned"));
        ledger.turn_to(slice(&[("web", wish("1", Some("192.0.2.1"), good))]));
        let (web, wanted, _) = ledger.next_write().unwrap();
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("2", None, good))]))), ["web: assigned"]);
        assert_eq!(ledger.settle(&web, &wanted, &Written::Done, clock::now()).telling, None);
    }

    #[test]
    fn a_bad_word_is_said_at_once_and_again_only_after_a_change() {
        let mut ledger = Ledger::default();
        let bad = Some((true, "no free address"));
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("1", Some(""), bad))]))), ["web: no free address"]);
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("2", None, bad))]))), [""; 0]);
        ledger.turn_to(slice(&[("web", wish("2", None, None))]));
        assert_eq!(said(ledger.turn_to(slice(&[("web", wish("2", None, bad))]))), ["web: no free address"]);
    }

    #[test]
    fn at_first_sight_only_what_is_wrong_is_said() {
        let mut ledger = Ledger::default();
        let good = wish("1", None, Some((false, "assigned")));
        let bad = wish("1", None, Some((true, "no free address")));
        let told = ledger.turn_to(slice(&[("good", good), ("bad", bad)]));
        assert_eq!(said(told), ["bad: no free address"]);
    }
}
