//! Which keys seal the pulses of this node while the key of the cluster is changed node by node. Floor 1, a part of the
//! machine.
//!
//! - A node seals with the newest of its keys that every other node accepts. A node accepts the keys that its pulses name,
//!   and the key that they are sealed with. Who was not heard lately is not asked for; with nobody else, the newest key seals.
//! - Where the others have no key in common, each pulse is sent once for each key that is needed, so that this node goes on
//!   being heard by all of them.
//! - A node that starts knows nobody. It sends each pulse once for each of its keys, until every other node was due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::peer::{Life, Peer};
use super::{Machine, SLOW};
use crate::names::NodeName;
use crate::pulse::settings::Settings;
use crate::roster::{KeyId, KeyUse};

impl Machine {
    /// Chooses the keys that seal from now on. A node that has not been able to hear this one hears it soon.
    pub(super) fn review_keys(&mut self, now: Instant) {
        let joined = self.sealing.review(&self.peers, now);
        self.roster_moved |= self.settled && self.sealing.in_use(&self.peers, now) != self.roster.key_use;
        if joined && self.parting.is_none() {
            self.hurry(now);
        }
    }
}

#[derive(Debug)]
pub(super) struct Sealing {
    /// The keys that this node accepts, the newest in front; one at least.
    own: Vec<KeyId>,
    /// Those that the other nodes need, the newest in front; one at least.
    needed: Vec<KeyId>,
    /// Until when all of `own` are used.
    all_until: Instant,
}

impl Sealing {
    /// Without any key it is that of pulses without a key.
    pub(super) fn new(mut own: Vec<KeyId>, settings: Settings, now: Instant) -> Sealing {
        if own.is_empty() {
            own.push(KeyId::NONE);
        }
        let needed = own.iter().copied().take(1).collect();
        Sealing { own, needed, all_until: now + (settings.detection() * SLOW).min(LATELY) }
    }

    /// This node has one key only, so there is nothing to choose.
    fn has_no_choice(&self) -> bool {
        self.own.len() == 1
    }

    /// What a pulse says of the keys that this node accepts: nothing where the seal of the pulse says it.
    pub(super) fn said(&self) -> Vec<KeyId> {
        if self.has_no_choice() { Vec::new() } else { self.own.clone() }
    }

    /// The keys that a pulse is sealed with now, the newest in front; one at least.
    pub(super) fn keys(&self, now: Instant) -> &[KeyId] {
        if now < self.all_until { &self.own } else { &self.needed }
    }

    /// Chooses anew. True if a key is used now that was not: some node has not been able to hear this one.
    pub(super) fn review(&mut self, peers: &BTreeMap<NodeName, Peer>, now: Instant) -> bool {
        if self.has_no_choice() {
            return false;
        }
        let needed = self.choose(peers.values().filter(|peer| counts(peer, now)));
        let joined = needed.iter().any(|key| !self.keys(now).contains(key));
        self.needed = needed;
        joined
    }

    fn choose<'a>(&self, peers: impl Iterator<Item = &'a Peer> + Clone) -> Vec<KeyId> {
        let in_common = |key: &&KeyId| peers.clone().all(|peer| peer.accepts(**key));
        if let Some(key) = self.own.iter().find(in_common) {
            return vec![*key];
        }
        let of_each: Vec<&KeyId> = peers.filter_map(|peer| self.own.iter().find(|key| peer.accepts(**key))).collect();
        self.own.iter().filter(|key| of_each.contains(key)).copied().collect()
    }

    /// Which keys are in use, and who keeps them so; `None` without a key.
    pub(super) fn in_use(&self, peers: &BTreeMap<NodeName, Peer>, now: Instant) -> Option<KeyUse> {
        let (new, old) = self.own.split_first().filter(|(new, _)| **new != KeyId::NONE)?;
        let (mut without_new, mut seal_with_old) = (BTreeSet::new(), BTreeSet::new());
        // With one key only nobody else is heard.
        for (name, peer) in peers.iter().filter(|(_, peer)| !old.is_empty() && counts(peer, now)) {
            if !peer.accepts(*new) {
                without_new.insert(name.clone());
            } else if peer.key() != *new {
                seal_with_old.insert(name.clone());
            }
        }
        Some(KeyUse { new: *new, old: old.to_vec(), sealing: self.needed.clone(), without_new, seal_with_old })
    }
}

/// A node that is silent may be frozen or cut off, and should hear this one when it comes back.
fn counts(peer: &Peer, now: Instant) -> bool {
    peer.life == Life::Alive || now < peer.last_heard + LATELY
}

/// For how long the keys of a node that is not alive are considered.
const LATELY: Duration = Duration::from_secs(30);
