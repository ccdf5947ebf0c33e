//! What holds a change of a Service's addresses back: the notice before one is taken away, another writer of the status, and old
//! and new addresses that stand beside each other for a time. Floor 1.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::names::{NodeName, ObjectKey};
use crate::plan::overlaps::{Overlap, Overlaps};
use crate::plan::removals::{Removals, Wait};
use crate::plan::rivals::{Rivals, Wanted};
use crate::plan::words::Words;
use crate::world::{Condition, Service, World};

/// One organ for each reason.
#[derive(Debug, Default)]
pub struct Restraints {
    removals: Removals,
    rivals: Rivals,
    /// Those that write the annotations about pools.
    pool_rivals: Rivals,
    overlaps: Overlaps,
    /// What this crier said in place of another one's condition.
    words: Words,
}

impl Restraints {
    /// Of the crier whose Lease has this digest.
    pub fn of_crier(lease: Option<u64>) -> Restraints {
        Restraints { removals: Removals::of_crier(lease), ..Restraints::default() }
    }

    /// Where all agents have the same file.
    pub fn agreed() -> Restraints {
        Restraints { removals: Removals::agreed(), ..Restraints::default() }
    }

    /// A source tells a newer version of a Service; `wanted`: what this agent means to write, and has perhaps written.
    pub fn note(&mut self, key: &ObjectKey, before: &Service, after: &Service, wanted: Wanted<'_>) {
        self.rivals.note(key, before, after, wanted);
        self.pool_rivals.note_pools(key, before, after);
    }

    /// See [`Rivals::note_displaced`] and [`Rivals::note_forged`].
    pub fn note_displaced(&mut self, key: &ObjectKey, before: &Service, after: &Service, ours: bool) {
        self.rivals.note_displaced(key, before, after, ours);
        self.rivals.note_forged(key, before, after);
    }

    /// See [`Rivals::note_stripped`].
    pub fn note_stripped(&mut self, key: &ObjectKey, before: &Service, after: &Service, lease: &ObjectKey) {
        self.rivals.note_stripped(key, before, after, lease);
    }

    /// See [`Rivals::stripped`].
    pub fn stripped(&self, service: &ObjectKey) -> &[IpAddr] {
        self.rivals.stripped(service)
    }

    /// A source tells a newer version of a Service, or the answer to a write does. `lease`: of this crier.
    pub fn note_words(&mut self, key: &ObjectKey, before: &Service, after: &Service, lease: &ObjectKey) {
        if let Some((was, is)) = before.condition.as_ref().zip(after.condition.as_ref()) {
            self.words.note(key, was, is, lease);
        }
    }

    /// The condition was said in place of another crier's.
    pub fn has_said(&self, key: &ObjectKey, condition: &Condition) -> bool {
        self.words.has_said(key, condition)
    }

    /// The Service of that name is gone, or another one now.
    pub fn forget_rivals(&mut self, key: &ObjectKey) {
        self.words.forget_service(key);
        self.rivals.forget(key);
        self.pool_rivals.forget(key);
    }

    /// The digest of this agent's file, while it allocates and the agents agree on that.
    pub fn agreed_digest(&self) -> Option<u64> {
        self.removals.agreed_digest()
    }

    /// The Services that time, or what the agents say of their files, concerns.
    pub fn turn(&mut self, world: &World, me: &NodeName, digest: u64, now: Instant) -> Vec<ObjectKey> {
        let mut concerned = self.rivals.turn(now);
        concerned.extend(self.pool_rivals.turn(now));
        concerned.extend(self.words.turn(now));
        concerned.extend(self.removals.take_due(now));
        concerned.extend(self.overlaps.take_due(now));
        if self.removals.renew(world, me, digest, now) {
            concerned.extend(self.removals.told().cloned());
        }
        concerned
    }

    /// What a judgement found: an address of the Service is to go, and old and new addresses stand beside each other.
    pub fn put(&mut self, service: &ObjectKey, goes: bool, overlap: Option<&Overlap>, now: Instant) {
        self.removals.put(service, goes, now);
        self.overlaps.put(service, overlap, now);
    }

    /// See [`Removals::note_said`].
    pub fn note_said(&mut self, service: &ObjectKey) {
        self.removals.note_said(service);
    }

    /// This agent, as the one who allocates, finds the addresses of the Service right.
    pub fn accept(&mut self, service: &ObjectKey) {
        self.removals.accept(service);
    }

    /// Its addresses were right by this agent's file.
    pub fn is_accepted(&self, service: &ObjectKey) -> bool {
        self.removals.is_accepted(service)
    }

    pub fn forget(&mut self, service: &ObjectKey, now: Instant) {
        self.removals.forget(service, now);
        self.overlaps.put(service, None, now);
    }

    /// An address may be taken from the Service now.
    pub fn may_go(&self, service: &ObjectKey, now: Instant) -> bool {
        self.removals.may_go(service, now)
    }

    /// The status of the Service is left to another writer for now.
    pub fn is_left(&self, service: &ObjectKey) -> bool {
        self.rivals.is_left(service)
    }

    /// See [`Rivals::is_worded`].
    pub fn is_worded(&self, service: &ObjectKey) -> bool {
        self.rivals.is_worded(service)
    }

    /// What crier gave went from the status, and this agent saw it there.
    pub fn is_displaced(&self, service: &ObjectKey) -> bool {
        self.rivals.is_displaced(service)
    }

    /// See [`Rivals::is_forged`].
    pub fn is_forged(&self, service: &ObjectKey) -> bool {
        self.rivals.is_forged(service)
    }

    /// The annotations about pools are left to another writer for now.
    pub fn are_pools_left(&self, service: &ObjectKey) -> bool {
        self.pool_rivals.is_left(service)
    }

    /// The Service has had the address beside a new one for so long.
    pub fn is_overlap_over(&self, service: &ObjectKey, address: IpAddr, lasts: Duration, now: Instant) -> bool {
        self.overlaps.is_over(service, address, lasts, now)
    }

    /// Agents are heard that go by another file than this one, which allocates.
    pub fn is_contradicted(&self, world: &World) -> bool {
        self.removals.is_contradicted(world)
    }

    /// What addresses wait for that stay because the agents do not agree.
    pub fn removals_wait(&self) -> Option<Wait> {
        self.removals.wait()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let rivals = [self.rivals.next_deadline(), self.pool_rivals.next_deadline()];
        let deadlines = [self.removals.next_deadline(), self.overlaps.next_deadline(), self.words.next_deadline()];
        deadlines.into_iter().chain(rivals).flatten().min()
    }
}
