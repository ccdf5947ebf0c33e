//! What a peer should have against what it has: state, not a queue of messages. Floor 1.
//! Its memory is bounded by the number of prefixes, however slowly the peer reads and however often routes change.
//!
//! Not for bytes (the packer and the codec) and not for when to write (the session's task).
//!
//! Gap (RFC 4271 §9.2.1.1): no MinRouteAdvertisementInterval, on purpose: the routes are this node's own, and who dampens
//! them makes a failover slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;

use super::agreement::Agreement;
pub use super::packer::{NextHopV6, NextHops, Unsendable};
use super::packer::{Packed, Packer};
use super::wire::{AfiSafi, EmitError};
use crate::address::Family;
use crate::route::RouteAttributes;

/// The routes that a peer should have, by prefix. Prefixes are networks: no bit is set behind their length.
pub type Routes = OrdMap<IpNet, Arc<RouteAttributes>>;

/// The outbound side of one session, from its first route to its last: a new session needs a new outbox.
///
/// - [`want`](Outbox::want), [`set_complete`](Outbox::set_complete) and [`refresh`](Outbox::refresh) say what the peer
///   should get. They can be called at any time, in any order, and send nothing by themselves.
/// - [`poll_message`](Outbox::poll_message) gives the next UPDATE. Call it whenever the peer can take one, until it
///   answers `None`. A message it gave counts as sent: write it, or end the session.
///
/// However these calls interleave, the messages in their order leave the peer with what was wanted last.
#[derive(Debug)]
pub struct Outbox {
    packer: Packer,
    wanted: Routes,
    pending: ByFamily<Pending>,
    /// What the peer has of each pending prefix. A pending prefix that is not in here is not at the peer; a sendable
    /// prefix that is not pending is there as it is wanted. So an idle outbox costs no memory beside the shared map.
    held: BTreeMap<IpNet, Held>,
    /// The wanted map is whole, so that its end may be told.
    complete: bool,
    sent_count: usize,
}

/// What is still to be sent of one family. No prefix is in it twice.
#[derive(Debug, Default)]
struct Pending {
    withdrawals: BTreeSet<IpNet>,
    /// By what is said about them, because an UPDATE says it once for all. No set is empty.
    announcements: BTreeMap<Arc<RouteAttributes>, BTreeSet<IpNet>>,
    /// Every family is told its End-of-RIB once.
    owes_end_of_rib: bool,
}

/// What a peer has of a prefix.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Route(Arc<RouteAttributes>),
    /// It asked for the prefix again, so nothing is like what it has.
    Outdated,
}

impl Outbox {
    pub fn new(agreement: &Agreement, next_hops: NextHops) -> Outbox {
        let packer = Packer::new(agreement, next_hops);
        let pending = |family| Pending { owes_end_of_rib: packer.negotiated(family), ..Pending::default() };
        let pending = ByFamily { v4: pending(Family::V4), v6: pending(Family::V6) };
        Outbox { packer, wanted: Routes::new(), pending, held: BTreeMap::new(), complete: false, sent_count: 0 }
    }

    /// The peer should have these routes and no others. Costs time in proportion to what differs from the last call,
    /// where the maps share their structure.
    pub fn want(&mut self, wanted: &Routes) {
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        for difference in before.diff(wanted) {
            match difference {
                DiffItem::Add(prefix, new) => self.turn(*prefix, None, Some(new)),
                DiffItem::Update { old: (prefix, old), new: (_, new) } => self.turn(*prefix, Some(old), Some(new)),
                DiffItem::Remove(prefix, old) => self.turn(*prefix, Some(old), None),
            }
        }
    }

    /// Whether the wanted map holds all there is: only then may End-of-RIB be sent, once for every negotiated family.
    pub fn set_complete(&mut self, complete: bool) {
        self.complete = complete;
    }

    /// RFC 2918 §4: the peer wants all routes of this family again. Nothing happens for a family that the session does
    /// not carry.
    pub fn refresh(&mut self, family: AfiSafi) {
        let Some(family) = family.unicast_family() else {
            return;
        };
        for (prefix, attributes) in &self.wanted {
            if Family::of(prefix.addr()) != family || self.packer.judge(family, attributes).is_err() {
                continue;
            }
            let was_pending = !self.pending.of_mut(family).announce(*prefix, attributes);
            // What is pending and not held was never sent, and what is not pending was.
            if !was_pending || self.held.contains_key(prefix) {
                self.held.insert(*prefix, Held::Outdated);
            }
        }
    }

    /// The next UPDATE, at most as long as the session carries; `None` when there is nothing to say for now.
    ///
    /// An UPDATE carries one family, and either withdrawals, which come first, or announcements with the same
    /// attributes. The only empty one is End-of-RIB. An error is a bug: the session must end, because what should have
    /// been sent is lost.
    pub fn poll_message(&mut self) -> Result<Option<Bytes>, EmitError> {
        for family in Family::BOTH {
            if let Some(message) = self.poll_withdrawal(family)? {
                return Ok(Some(message));
            }
        }
        for family in Family::BOTH {
            if let Some(message) = self.poll_announcement(family)? {
                return Ok(Some(message));
            }
            // RFC 4724 §2: after the last initial route, and also where there is none.
            let pending = self.pending.of_mut(family);
            if self.complete && pending.owes_end_of_rib {
                pending.owes_end_of_rib = false;
                return self.packer.end_of_rib(family).map(Some);
            }
        }
        Ok(None)
    }

    /// [`Outbox::poll_message`] would answer `None`.
    pub fn is_idle(&self) -> bool {
        let owes = |pending: &Pending| self.complete && pending.owes_end_of_rib;
        Family::BOTH
            .into_iter()
            .map(|family| self.pending.of(family))
            .all(|pending| pending.is_empty() && !owes(pending))
    }

    /// Prefixes that the peer has.
    pub fn sent_count(&self) -> usize {
        self.sent_count
    }

    /// Prefixes that are still to be announced, announced again, or withdrawn.
    pub fn pending_count(&self) -> usize {
        Family::BOTH.into_iter().map(|family| self.pending.of(family).len()).sum()
    }

    /// The wanted prefixes that are never sent on this session, each with the reason. Looks at every wanted prefix.
    pub fn unsendable(&self) -> impl Iterator<Item = (IpNet, Unsendable)> {
        self.wanted.iter().filter_map(|(prefix, attributes)| {
            let verdict = self.packer.judge(Family::of(prefix.addr()), attributes);
            verdict.err().map(|reason| (*prefix, reason))
        })
    }

    /// One prefix is wanted otherwise than before.
    fn turn(&mut self, prefix: IpNet, old: Option<&Arc<RouteAttributes>>, new: Option<&Arc<RouteAttributes>>) {
        let family = Family::of(prefix.addr());
        // What cannot be sent is not wanted here.
        let old = old.filter(|old| self.packer.judge(family, old).is_ok());
        let new = new.filter(|new| self.packer.judge(family, new).is_ok());
        let pending = self.pending.of_mut(family);
        let was_pending = match old {
            Some(old) => pending.forget_announcement(&prefix, old),
            None => pending.withdrawals.remove(&prefix),
        };
        if !was_pending && let Some(old) = old {
            self.held.insert(prefix, Held::Route(Arc::clone(old)));
        }
        match (self.held.get(&prefix), new) {
            // Back to what the peer has: nothing to say.
            (Some(Held::Route(held)), Some(new)) if self.packer.says_the_same(held, new) => {
                self.held.remove(&prefix);
            }
            (_, Some(new)) => {
                pending.announce(prefix, new);
            }
            (Some(_), None) => {
                pending.withdrawals.insert(prefix);
            }
            (None, None) => {}
        }
    }

    fn poll_withdrawal(&mut self, family: Family) -> Result<Option<Bytes>, EmitError> {
        let pending = self.pending.of_mut(family);
        if pending.withdrawals.is_empty() {
            return Ok(None);
        }
        let Some(Packed { message, prefixes }) = self.packer.withdraw(family, &mut pending.withdrawals)? else {
            return Ok(None);
        };
        for prefix in &prefixes {
            self.held.remove(prefix);
        }
        self.sent_count = self.sent_count.saturating_sub(prefixes.len());
        Ok(Some(message))
    }

    fn poll_announcement(&mut self, family: Family) -> Result<Option<Bytes>, EmitError> {
        let pending = self.pending.of_mut(family);
        let Some(mut group) = pending.announcements.first_entry() else {
            return Ok(None);
        };
        let attributes = Arc::clone(group.key());
        let Some(Packed { message, prefixes }) = self.packer.announce(family, &attributes, group.get_mut())? else {
            return Ok(None);
        };
        if group.get().is_empty() {
            group.remove();
        }
        for prefix in &prefixes {
            if self.held.remove(prefix).is_none() {
                self.sent_count += 1;
            }
        }
        Ok(Some(message))
    }
}

/// One for each family.
#[derive(Debug)]
struct ByFamily<T> {
    v4: T,
    v6: T,
}

impl<T> ByFamily<T> {
    fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl Pending {
    /// False where it was pending already.
    fn announce(&mut self, prefix: IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        match self.announcements.get_mut(attributes) {
            Some(group) => group.insert(prefix),
            None => {
                self.announcements.insert(Arc::clone(attributes), BTreeSet::from([prefix]));
                true
            }
        }
    }

    /// False where it was not pending.
    fn forget_announcement(&mut self, prefix: &IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        let Some(group) = self.announcements.get_mut(attributes) else {
            return false;
        };
        let was_pending = group.remove(prefix);
        if group.is_empty() {
            self.announcements.remove(attributes);
        }
        was_pending
    }

    fn is_empty(&self) -> bool {
        self.withdrawals.is_empty() && self.announcements.is_empty()
    }

    fn len(&self) -> usize {
        self.withdrawals.len() + self.announcements.values().map(BTreeSet::len).sum::<usize>()
    }
}
