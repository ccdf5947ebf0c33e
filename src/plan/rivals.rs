//! Other writers of the statuses that crier writes: when to stop. Floor 1.
//!
//! Two writers that overwrite each other never end. After two overwrites within [`WITHIN`] crier leaves the status as it is
//! and says so; it tries again after a time that doubles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::names::ObjectKey;
use crate::plan::slice::StatusWrite;
use crate::world::{PoolsTold, Service};

/// Two overwrites that are further apart are no fight.
const WITHIN: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(960);

/// The Services whose status somebody else overwrote.
#[derive(Debug, Default)]
pub struct Rivals {
    /// Overwrites that were seen since the last turn.
    seen: Vec<ObjectKey>,
    fights: BTreeMap<ObjectKey, Fight>,
    /// Those whose status is still as another writer left it.
    overwritten: BTreeSet<ObjectKey>,
    /// Those from whose status what crier gave went before the eyes of this agent.
    displaced: BTreeSet<ObjectKey>,
    /// Those whose condition was changed before the eyes of this agent to name what the status does not show, while that stayed as it was.
    forged: BTreeSet<ObjectKey>,
    /// What crier gave, of those that lost the condition which said so before the eyes of this agent and show it still.
    stripped: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// Those whose last overwrite brought another condition of crier.
    worded: BTreeSet<ObjectKey>,
}

#[derive(Debug)]
struct Fight {
    last: Instant,
    /// Nothing is written before.
    until: Option<Instant>,
    pause: Duration,
}

impl Rivals {
    /// A source tells a newer version of a Service; `wanted`: what this agent means to write, and has perhaps written.
    pub fn note(&mut self, key: &ObjectKey, before: &Service, after: &Service, wanted: Wanted<'_>) {
        let changed =
            before.ingress != after.ingress || before.condition != after.condition || before.not_vip != after.not_vip;
        if !changed || before.uid != after.uid {
            return;
        }
        // Beside what crier gave, the status shows addresses that leave, for the time of a renumbering.
        let was_ours = is_consistent(before) || (names_its_own(before) && !self.overwritten.contains(key));
        // Who writes into a status does not say in the condition what crier gave; and crier ends an overlap.
        let is_less = after.ingress.iter().all(|address| before.ingress.contains(address));
        let by_crier = names_its_own(after) && (before.condition != after.condition || is_less);
        let known = self.seen.len();
        if is_consistent(before) && is_consistent(after) && after.load_balancer && !is_wanted(before, after, wanted) {
            // Another crier overwrites what this one wrote, or says otherwise of it: neither sees that the other's is not its own.
            self.seen.push(key.clone());
        }
        if is_consistent(after) || by_crier {
            self.overwritten.remove(key);
        } else if was_ours && after.load_balancer {
            self.overwritten.insert(key.clone());
            self.seen.push(key.clone());
        }
        if self.seen.len() > known {
            match after.condition.is_some() && before.condition != after.condition {
                true => drop(self.worded.insert(key.clone())),
                false => drop(self.worded.remove(key)),
            }
        }
    }

    /// Whoever overwrote the status last wrote the condition, too, as another crier does. One that merely stands there may be old.
    pub fn is_worded(&self, key: &ObjectKey) -> bool {
        self.worded.contains(key)
    }

    /// A source tells a newer version of a Service, or the answer to a write does, whoever allocates. `ours`: this crier serves it.
    pub fn note_displaced(&mut self, key: &ObjectKey, before: &Service, after: &Service, ours: bool) {
        let given = if ours { after.given() } else { Vec::new() };
        let went = |own: &IpAddr| before.ingress.contains(own) && !after.ingress.contains(own);
        // What was read from the disk has no version: what became of it meanwhile nobody saw.
        let is_seen = before.uid == after.uid && !before.resource_version.is_empty();
        if given.iter().all(|own| after.ingress.contains(own)) {
            self.displaced.remove(key);
        } else if is_seen && given.iter().any(went) {
            self.displaced.insert(key.clone());
        }
    }

    /// The same: crier writes what it gave and the addresses in one, so a condition that names others than the status is not its word.
    pub fn note_forged(&mut self, key: &ObjectKey, before: &Service, after: &Service) {
        let (said, says) = (before.given(), after.given());
        let shows = |given: &[IpAddr]| !given.is_empty() && given.iter().all(|it| after.ingress.contains(it));
        let is_seen = before.uid == after.uid && !before.resource_version.is_empty();
        if says.is_empty() || shows(&says) || !is_seen {
            self.forged.remove(key);
        } else if said != says && before.ingress == after.ingress && shows(&said) {
            self.forged.insert(key.clone());
        }
    }

    /// What the condition says was never in the status, as far as this agent saw.
    pub fn is_forged(&self, key: &ObjectKey) -> bool {
        self.forged.contains(key)
    }

    /// A source tells a newer version of a Service, whoever allocates: somebody may take away what the crier of this Lease said of it.
    pub fn note_stripped(&mut self, key: &ObjectKey, before: &Service, after: &Service, lease: &ObjectKey) {
        let said = before.condition.as_ref().filter(|condition| condition.is_of(lease));
        if let (None, Some(condition)) = (&after.condition, said) {
            self.stripped.insert(key.clone(), condition.addresses());
        }
        let shows = |given: &Vec<IpAddr>| given.iter().any(|own| after.ingress.contains(own));
        if after.condition.is_some() || before.uid != after.uid || !self.stripped.get(key).is_some_and(shows) {
            self.stripped.remove(key);
        }
    }

    /// What crier gave, where the condition that said so is gone.
    pub fn stripped(&self, key: &ObjectKey) -> &[IpAddr] {
        self.stripped.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// What crier gave went from the status, and this agent saw it there.
    pub fn is_displaced(&self, key: &ObjectKey) -> bool {
        self.displaced.contains(key)
    }

    /// The Service is gone, or another one of its name is there: whoever fought about the former has not touched this one.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.seen.retain(|seen| seen != key);
        self.overwritten.remove(key);
        self.displaced.remove(key);
        self.forged.remove(key);
        self.stripped.remove(key);
        self.worded.remove(key);
        self.fights.remove(key);
    }

    /// The same of the annotations about pools, which are no matter of the status: a fight about them holds up nothing else.
    pub fn note_pools(&mut self, key: &ObjectKey, before: &Service, after: &Service) {
        // With other addresses it is crier that writes other pools.
        let same = before.ingress == after.ingress && before.condition == after.condition;
        let was_whole = matches!(before.pools_told, PoolsTold::Same(_));
        let changed = before.pools_told != after.pools_told;
        if before.uid == after.uid && after.load_balancer && same && was_whole && changed {
            self.seen.push(key.clone());
        }
    }

    /// Takes in what was seen, and ends the pauses that are over. Answers which Services that concerns.
    pub fn turn(&mut self, now: Instant) -> Vec<ObjectKey> {
        let mut concerned: Vec<ObjectKey> = Vec::new();
        for key in std::mem::take(&mut self.seen) {
            let fresh = Fight { last: now, until: None, pause: FIRST_PAUSE };
            let fight = match self.fights.remove(&key) {
                Some(Fight { last, until: None, pause }) if now < last + WITHIN => {
                    let next = (pause * 2).min(LONGEST_PAUSE);
                    Fight { last: now, until: Some(now + pause), pause: next }
                }
                Some(Fight { last: _, until: Some(until), pause }) => Fight { last: now, until: Some(until), pause },
                Some(_) | None => fresh,
            };
            self.fights.insert(key.clone(), fight);
            concerned.push(key);
        }
        for (key, fight) in &mut self.fights {
            if fight.until.is_some_and(|until| until <= now) {
                // One more overwrite, and the next pause begins.
                (fight.until, fight.last) = (None, now);
                concerned.push(key.clone());
            }
        }
        self.fights.retain(|_, fight| fight.until.is_some() || now < fight.last + WITHIN);
        concerned
    }

    /// Whether the status of the Service is left to the other writer for now.
    pub fn is_left(&self, service: &ObjectKey) -> bool {
        self.fights.get(service).is_some_and(|fight| fight.until.is_some())
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.fights.values().filter_map(|fight| fight.until).min()
    }
}

/// What this agent means to write.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub write: Option<&'a StatusWrite>,
    /// The status shows what this agent meant to write before, and has chosen something else since.
    pub is_late: bool,
}

/// The answer to this agent's own write, told by the watch first, or after this agent has changed its mind.
fn is_wanted(before: &Service, after: &Service, Wanted { write, is_late }: Wanted<'_>) -> bool {
    let is_answer = write.is_some_and(|StatusWrite { ingress, condition, transition: _, pools: _, renumbered: _ }| {
        condition.as_ref() == after.condition.as_deref()
            && *ingress.as_ref().unwrap_or(&before.ingress) == after.ingress
    });
    is_answer || is_late
}

/// What crier writes says itself which addresses it gave.
fn is_consistent(service: &Service) -> bool {
    service.condition.is_some() && service.given() == service.ingress && service.not_vip.is_empty()
}

/// The status shows all that crier gave, and perhaps more.
fn names_its_own(service: &Service) -> bool {
    let given = service.given();
    !given.is_empty() && service.not_vip.is_empty() && given.iter().all(|address| service.ingress.contains(address))
}
