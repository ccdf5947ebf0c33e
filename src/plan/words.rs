//! What this crier said in the condition of Services in place of another crier's word. Floor 1.
//!
//! A crier that is gone does not say its own again. One that does lives, and keeps the word: two that serve a Service would write for
//! ever. It may go later, so the word is said anew after a time that doubles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::names::ObjectKey;
use crate::world::Condition;

const FIRST_PAUSE: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(4 * 3600);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Words {
    said: BTreeMap<ObjectKey, Word>,
    /// The Services whose word was contradicted since the last turn.
    contradicted: BTreeSet<ObjectKey>,
    /// When each contradicted word is said anew.
    due: BTreeSet<(Instant, ObjectKey)>,
}

#[derive(Debug)]
struct Word {
    /// `None`: it may be said anew.
    condition: Option<Arc<Condition>>,
    again: Option<Instant>,
    pause: Duration,
}

impl Words {
    /// The condition of a Service was another one. `lease`: of this crier.
    pub fn note(&mut self, key: &ObjectKey, was: &Condition, is: &Arc<Condition>, lease: &ObjectKey) {
        match (was.is_of(lease), is.is_of(lease)) {
            (false, true) => {
                let pause = self.forget(key).map_or(FIRST_PAUSE, |before| before.pause);
                self.said.insert(key.clone(), Word { condition: Some(is.clone()), again: None, pause });
            }
            (true, false) if self.said.contains_key(key) => drop(self.contradicted.insert(key.clone())),
            (true, false) | (true, true) | (false, false) => {}
        }
    }

    /// The condition was said in place of another crier's.
    pub fn has_said(&self, key: &ObjectKey, condition: &Condition) -> bool {
        self.said.get(key).and_then(|word| word.condition.as_ref()).is_some_and(|said| **said == *condition)
    }

    /// The Services whose word may be said anew.
    pub fn turn(&mut self, now: Instant) -> Vec<ObjectKey> {
        for key in std::mem::take(&mut self.contradicted) {
            let Some(word) = self.said.get_mut(&key).filter(|word| word.again.is_none()) else { continue };
            word.again = Some(now + word.pause);
            self.due.insert((now + word.pause, key));
        }
        let mut over = Vec::new();
        while let Some((at, key)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, key));
                break;
            }
            if let Some(word) = self.said.get_mut(&key) {
                *word = Word { condition: None, again: None, pause: (word.pause * 2).min(LONGEST_PAUSE) };
                over.push(key);
            }
        }
        over
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The Service is gone, or another one of its name is there.
    pub fn forget_service(&mut self, key: &ObjectKey) {
        self.forget(key);
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Word> {
        self.contradicted.remove(key);
        let word = self.said.remove(key)?;
        if let Some(at) = word.again {
            self.due.remove(&(at, key.clone()));
        }
        Some(word)
    }
}
