//! The virtual clock: what is to happen when. Events of one moment happen in the order in which they were put there.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Events in the order of their time. [`Events::next_until`] moves the clock.
pub struct Events<E> {
    now: Instant,
    /// Counts the events, to order those of one moment.
    posted: u64,
    waiting: BinaryHeap<Entry<E>>,
}

impl<E> Events<E> {
    pub fn new(now: Instant) -> Events<E> {
        Events { now, posted: 0, waiting: BinaryHeap::new() }
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    /// An event in the past happens now.
    pub fn post(&mut self, at: Instant, event: E) {
        self.posted += 1;
        self.waiting.push(Entry { at: at.max(self.now), number: self.posted, event });
    }

    /// The next event, if it comes before `end` or at that moment; else the clock stands at `end`.
    pub fn next_until(&mut self, end: Instant) -> Option<E> {
        if self.waiting.peek().is_none_or(|entry| entry.at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Entry { at, event, .. } = self.waiting.pop()?;
        self.now = at;
        Some(event)
    }
}

struct Entry<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> Ord for Entry<E> {
    /// The heap gives its greatest entry first: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}
