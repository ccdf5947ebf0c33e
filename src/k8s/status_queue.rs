//! The queue of the status writer: the desired statuses, the writes in flight, the refused writes, the reported notices.
//! Floor 1.
//!
//! [`StatusQueue::turn_to`] takes the newest slice, [`StatusQueue::next_write`] hands out a write, [`StatusQueue::settle`]
//! takes the outcome of a write, and [`StatusQueue::wake`] is due at [`StatusQueue::next_deadline`]. All may be called at
//! any time and in any order.
//!
//! An Event that tells of an address before it goes is handed out by [`StatusQueue::next_removal`], and settled by
//! [`StatusQueue::settle_removal`]: once it and the condition were written, [`StatusQueue::take_told`] says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;

use crate::names::ObjectKey;
use crate::plan::slice::{Notice, ServiceStatus, StatusSlice, StatusWrite};

const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// Writes of the condition alone that may be in flight: after an update of crier every Service may want one.
const WORDS_SIDE_BY_SIDE: usize = 8;

/// At most one write per Service is in flight, and the newest desired status wins. A refused write is retried until the
/// desired status changes.
#[derive(Default)]
pub struct StatusQueue {
    wanted: StatusSlice,
    waiting: BTreeSet<ObjectKey>,
    /// Those of which only the condition is to be written: they come last.
    waiting_words: BTreeSet<ObjectKey>,
    in_flight: BTreeSet<ObjectKey>,
    words_in_flight: BTreeSet<ObjectKey>,
    refused: BTreeMap<ObjectKey, Refusal>,
    /// When each refused write is retried.
    due: BTreeSet<(Instant, ObjectKey)>,
    /// The status with the last notice of each Service that was written as an Event, or that needs no Event.
    reported: BTreeMap<ObjectKey, Arc<ServiceStatus>>,
    /// The last warning of each Service that was told before a write.
    warned: BTreeMap<ObjectKey, Notice>,
    /// How far it was told of each Service that an address of it goes.
    removals: BTreeMap<ObjectKey, Removal>,
    removal_events: VecDeque<PendingEvent>,
    removals_told: Vec<ObjectKey>,
}

/// An address of a Service goes, and that is told first.
struct Removal {
    uid: String,
    notice: Notice,
    /// The Event was written, or never will be.
    event: bool,
    /// The condition was written, or the API server refuses it by a rule.
    condition: bool,
}

struct Refusal {
    desired: Arc<ServiceStatus>,
    why: String,
    told: bool,
    /// The write was taken and undone: the version that came of it makes it due no earlier.
    altered: bool,
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
    /// Refused as a conflict: the Service has changed since the decision, and the watch brings the newer version. If it
    /// brings none, somebody else refuses with this answer, and the write is retried.
    Overtaken {
        why: String,
    },
    /// Taken, and another status stands there: somebody rewrites what is written. Retried with back-off, whatever version comes of it.
    Altered {
        why: String,
    },
    /// The Service is gone.
    Gone,
    /// Refused for any other reason; retried after `patience` at the earliest.
    Refused {
        why: String,
        patience: Duration,
        /// By a rule (403, 422): whose Service it is must know of it.
        by_rule: bool,
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
                    events.extend(self.warn(key, status));
                    self.want(key, status);
                    let event = self.first_event(key, status);
                    events.extend(self.note_loss(key, status, event));
                }
                DiffItem::Update { new: (key, status), .. } => {
                    events.extend(self.warn(key, status));
                    self.want(key, status);
                    let event = self.changed_event(key, status);
                    events.extend(self.note_loss(key, status, event));
                }
                DiffItem::Remove(key, _) => {
                    self.waiting.remove(key);
                    self.waiting_words.remove(key);
                    self.reported.remove(key);
                    self.warned.remove(key);
                    self.removals.remove(key);
                    self.clear_refusal(key);
                }
            }
        }
        events
    }

    /// The next write to begin: the Service, the desired status to pass to [`StatusQueue::settle`], and what to write.
    pub fn next_write(&mut self) -> Option<(ObjectKey, Arc<ServiceStatus>, StatusWrite)> {
        while let Some(key) = self.next_waiting() {
            let Some(status) = self.wanted.services.get(&key) else { continue };
            let Some(write) = &status.write else { continue };
            self.in_flight.insert(key.clone());
            if is_words(write) {
                self.words_in_flight.insert(key.clone());
            }
            return Some((key, Arc::clone(status), write.clone()));
        }
        None
    }

    fn next_waiting(&mut self) -> Option<ObjectKey> {
        self.waiting.pop_first().or_else(|| {
            (self.words_in_flight.len() < WORDS_SIDE_BY_SIDE).then(|| self.waiting_words.pop_first()).flatten()
        })
    }

    fn wait(&mut self, key: &ObjectKey) {
        let write = self.wanted.services.get(key).and_then(|status| status.write.as_ref());
        match write.is_some_and(is_words) {
            true => self.waiting_words.insert(key.clone()),
            false => self.waiting.insert(key.clone()),
        };
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
        self.words_in_flight.remove(key);
        let mut settled = Settled::default();
        let current = self.wanted.services.get(key).cloned();
        let same = if matches!(outcome, Written::Altered { .. }) { same_words } else { same_write };
        let again = current.as_ref().is_some_and(|current| !same(current, desired));
        if is_final(outcome) {
            self.note_condition(key, desired);
        }
        match outcome {
            Written::Done => {
                self.clear_refusal(key);
                // A notice of success is reported once the write has succeeded, unless a newer notice replaced it.
                let good = desired.notice.as_ref().filter(|notice| !notice.warning);
                if let Some(current) = current.filter(|current| current.notice.as_ref() == good) {
                    settled.event = self.unreported(key, &current);
                }
            }
            Written::Gone => drop(self.clear_refusal(key)),
            // Normally the watch brings the newer version before the write is due again.
            Written::Overtaken { why } if !again && current.is_some() => {
                settled.refusal = self.retry(key, desired, why, Duration::ZERO, false, now);
            }
            Written::Refused { why, patience, by_rule } if !again => {
                settled.refusal = self.retry(key, desired, why, *patience, true, now);
                let told = settled.refusal.as_ref().filter(|_| *by_rule);
                settled.event = told.map(|why| {
                    warning(
                        key,
                        desired,
                        "StatusRefused",
                        format!("the API server refuses the status of the Service: {why}"),
                    )
                });
            }
            Written::Altered { why } if !again && current.is_some() => {
                settled.refusal = self.retry(key, desired, why, Duration::ZERO, true, now);
                if let Some(refusal) = self.refused.get_mut(key) {
                    refusal.altered = true;
                }
                settled.event = settled.refusal.as_ref().map(|why| {
                    warning(
                        key,
                        desired,
                        "StatusAltered",
                        format!("the status of the Service is not as it was written: {why}"),
                    )
                });
            }
            Written::Overtaken { .. } | Written::Refused { .. } | Written::Altered { .. } => {
                drop(self.clear_refusal(key));
            }
        }
        if again {
            self.wait(key);
        }
        settled
    }

    /// Plans the next attempt; answers why the last one was refused, if that is news. `at_once`: the first one is news.
    fn retry(
        &mut self,
        key: &ObjectKey,
        desired: &Arc<ServiceStatus>,
        why: &str,
        patience: Duration,
        at_once: bool,
        now: Instant,
    ) -> Option<String> {
        let before = self.clear_refusal(key);
        let delay = before.as_ref().map_or(FIRST_DELAY, |before| (before.delay * 2).min(LONGEST_DELAY));
        let again = now + delay.max(patience.min(LONGEST_DELAY));
        // A newer version of the Service is new to whoever reads of it.
        let is_of_version = |before: &Refusal| before.desired.resource_version == desired.resource_version;
        let known = before.as_ref().is_some_and(|before| before.told && before.why == why && is_of_version(before));
        let told = at_once || before.is_some();
        self.due.insert((again, key.clone()));
        let (desired, text) = (Arc::clone(desired), why.to_owned());
        self.refused.insert(key.clone(), Refusal { desired, why: text, told, altered: false, delay, again });
        (told && !known).then(|| why.to_owned())
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
            self.wait(&key);
        }
    }

    fn want(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) {
        if status.write.is_none() {
            self.waiting.remove(key);
            self.waiting_words.remove(key);
            self.clear_refusal(key);
            return;
        }
        // A new notice does not make a refused write due earlier.
        let patient = self.refused.get(key).is_some_and(|refusal| {
            let same = if refusal.altered { same_words } else { same_write };
            same(&refusal.desired, status)
        });
        // The outcome of the write in flight decides whether this write is still needed.
        if !patient && !self.in_flight.contains(key) {
            self.clear_refusal(key);
            self.waiting.remove(key);
            self.waiting_words.remove(key);
            self.wait(key);
        }
    }

    /// What is to be told before the write of a status.
    fn warn(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<PendingEvent> {
        let Some(warning) = &status.warning else {
            self.warned.remove(key);
            return None;
        };
        let before = self.warned.insert(key.clone(), warning.clone());
        // It was told before the address was given up, in other words: then why it goes was known, and now there is another one.
        let says_loss = |of: &Arc<ServiceStatus>| of.notice.as_ref().is_some_and(Notice::is_loss);
        let is_told = before.as_ref() == Some(warning) || self.reported.get(key).is_some_and(says_loss);
        (!is_told).then(|| pending(key, status, warning))
    }

    /// Keeps the Event of a notice that an address goes: it is not one of many. Gives back any other.
    fn note_loss(
        &mut self,
        key: &ObjectKey,
        status: &Arc<ServiceStatus>,
        event: Option<PendingEvent>,
    ) -> Option<PendingEvent> {
        let Some(notice) = status.notice.as_ref().filter(|notice| notice.is_loss()) else {
            self.removals.remove(key);
            return event;
        };
        let is_same = |removal: &&mut Removal| removal.notice == *notice && removal.uid == status.uid;
        match self.removals.get_mut(key).filter(is_same) {
            Some(removal) => removal.condition |= status.write.is_none(),
            None => {
                let (uid, notice) = (status.uid.clone(), notice.clone());
                let removal = Removal { uid, notice, event: event.is_none(), condition: status.write.is_none() };
                self.removals.insert(key.clone(), removal);
            }
        }
        self.removal_events.extend(event);
        self.look_at_loss(key);
        None
    }

    /// The status with its condition was written, or never will be.
    fn note_condition(&mut self, key: &ObjectKey, desired: &ServiceStatus) {
        let is_of =
            |removal: &&mut Removal| desired.notice.as_ref() == Some(&removal.notice) && desired.uid == removal.uid;
        if let Some(removal) = self.removals.get_mut(key).filter(is_of) {
            removal.condition = true;
            self.look_at_loss(key);
        }
    }

    fn look_at_loss(&mut self, key: &ObjectKey) {
        if self.removals.get(key).is_some_and(|removal| removal.event && removal.condition) {
            self.removals_told.push(key.clone());
        }
    }

    /// The next Event to write that tells of an address before it goes.
    pub fn next_removal(&mut self) -> Option<PendingEvent> {
        loop {
            let event = self.removal_events.pop_front()?;
            let is_of =
                |removal: &Removal| removal.notice == event.notice && removal.uid == event.uid && !removal.event;
            if self.removals.get(&event.service).is_some_and(is_of) {
                return Some(event);
            }
        }
    }

    /// The Event was written, or never will be.
    pub fn settle_removal(&mut self, event: &PendingEvent) {
        let is_of = |removal: &&mut Removal| removal.notice == event.notice && removal.uid == event.uid;
        if let Some(removal) = self.removals.get_mut(&event.service).filter(is_of) {
            removal.event = true;
            self.look_at_loss(&event.service);
        }
    }

    /// The Services of which it was told that an address goes, since this was asked last.
    pub fn take_told(&mut self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.removals_told)
    }

    /// The Event for a Service that appears in the slice. A notice of success that needs no write was reported by the agent
    /// that wrote the status, and so was any notice that the condition tells.
    fn first_event(&mut self, key: &ObjectKey, status: &Arc<ServiceStatus>) -> Option<PendingEvent> {
        let notice = status.notice.as_ref()?;
        if status.told || !notice.warning && status.write.is_none() {
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
        Some(pending(key, status, notice))
    }

    fn clear_refusal(&mut self, key: &ObjectKey) -> Option<Refusal> {
        let refusal = self.refused.remove(key)?;
        self.due.remove(&(refusal.again, key.clone()));
        Some(refusal)
    }
}

/// The status was written, or the API server does not let it be.
fn is_final(outcome: &Written) -> bool {
    match outcome {
        Written::Done | Written::Altered { .. } | Written::Refused { by_rule: true, .. } => true,
        Written::Overtaken { .. } | Written::Gone | Written::Refused { by_rule: false, .. } => false,
    }
}

/// Only the condition's words are written.
fn is_words(write: &StatusWrite) -> bool {
    write.ingress.is_none() && !write.transition
}

fn warning(key: &ObjectKey, status: &ServiceStatus, reason: &str, message: String) -> PendingEvent {
    pending(key, status, &Notice { warning: true, reason: reason.to_owned(), message })
}

fn pending(key: &ObjectKey, status: &ServiceStatus, notice: &Notice) -> PendingEvent {
    PendingEvent {
        service: key.clone(),
        uid: status.uid.clone(),
        resource_version: status.resource_version.clone(),
        notice: notice.clone(),
    }
}

/// Whether two desired statuses need the same write, whatever the version of the Service.
fn same_words(one: &ServiceStatus, other: &ServiceStatus) -> bool {
    (&one.uid, &one.write) == (&other.uid, &other.write)
}

/// Whether two desired statuses need the same write, whatever their notices.
fn same_write(one: &ServiceStatus, other: &ServiceStatus) -> bool {
    let of = |status: &ServiceStatus| (status.uid.clone(), status.resource_version.clone(), status.write.clone());
    of(one) == of(other)
}

#[cfg(test)]
mod tests;
