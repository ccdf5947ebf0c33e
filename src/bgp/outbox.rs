//! Adj-RIB-Out of one session: the routes the peer should have, and the difference to those it has. Floor 1.
//! It is state, not a queue of messages: its memory is bounded by the number of prefixes, however slowly the peer reads and
//! however often routes change.
//!
//! For a new peer the outbox walks through the wanted map once. Prefixes ahead of the walk need no state of their own. A change
//! behind the walk, or after it, is kept by prefix until it is sent.
//!
//! Not for bytes (the packer and the codec) and not for when to write (the session's task).
//!
//! Gap (RFC 4271 §9.2.1.1): no MinRouteAdvertisementInterval, on purpose: the routes are this node's own, and dampening
//! them would slow down a failover.

mod batcher;
pub mod chosen;
pub mod next_hop;
mod packer;
pub(super) mod refreshes;
pub mod sent;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;

use crate::address::Family;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::outbox::batcher::{Batch, Batcher, Walk};
use crate::bgp::outbox::packer::Packer;
pub use crate::bgp::outbox::packer::{NextHopV6, NextHops, Unsendable};
use crate::bgp::wire::{AfiSafi, EmitError};
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
    /// Those that the packer was made with.
    next_hops: NextHops,
    wanted: Routes,
    pending: ByFamily<Pending>,
    /// What the peer has of each pending prefix. The peer has no route for a pending prefix that is missing here. It has every
    /// other sendable prefix behind the first walk as wanted, and none ahead of it. So an idle outbox costs no memory beside
    /// the shared map, and a walk hardly any.
    held: BTreeMap<IpNet, Held>,
    /// The wanted map is whole, so End-of-RIB may be sent.
    complete: bool,
    sent_count: usize,
    /// Of the wanted prefixes behind the first walk, those that cannot be sent.
    unsendable_count: usize,
    /// Wanted prefixes behind the first walk.
    passed_count: usize,
}

/// What is still to be sent of one family. No prefix is in two places.
#[derive(Debug)]
struct Pending {
    /// The first walk through the wanted map: nothing ahead of it was ever sent. `None` once it is through.
    first_walk: Option<Walk>,
    /// The walk after a ROUTE-REFRESH: every route ahead of it is sent once more. `None` without one.
    second_walk: Option<Walk>,
    /// Routes that a walk has passed and no message has taken yet.
    batcher: Batcher,
    withdrawals: BTreeSet<IpNet>,
    /// Changed prefixes behind the first walk, by their attributes, because an UPDATE has one set of attributes for all its
    /// prefixes. No set is empty.
    announcements: BTreeMap<Arc<RouteAttributes>, BTreeSet<IpNet>>,
    /// End-of-RIB of the family was not sent yet.
    owes_end_of_rib: bool,
}

/// What a peer has of a prefix.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Route(Arc<RouteAttributes>),
    /// The peer requested the prefix again, so any route is a change.
    Outdated,
}

/// Which of the two walks through a family. The second begins when the first is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    First,
    Second,
}

impl Outbox {
    pub fn new(negotiated: &Negotiated, next_hops: NextHops) -> Outbox {
        let packer = Packer::new(negotiated, next_hops);
        let pending = ByFamily { v4: Pending::new(Family::V4, &packer), v6: Pending::new(Family::V6, &packer) };
        Outbox {
            packer,
            next_hops,
            wanted: Routes::new(),
            pending,
            held: BTreeMap::new(),
            complete: false,
            sent_count: 0,
            unsendable_count: 0,
            passed_count: 0,
        }
    }

    /// The peer should have these routes and no others. Costs time in proportion to what differs from the last call,
    /// where the maps share their structure; to a peer that has nothing yet it costs none.
    pub fn want(&mut self, wanted: &Routes) {
        let before = std::mem::replace(&mut self.wanted, wanted.clone());
        if self.sent_count == 0 && Family::BOTH.into_iter().all(|family| self.pending.of(family).is_empty()) {
            return self.walk_from_the_start();
        }
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
        if let Some(family) = family.unicast_family() {
            self.walk_again(family);
        }
    }

    /// Withdraws every route of a family that has lost its next hop, and returns these families. Other families keep their
    /// next hops until [`Outbox::change_next_hops`]. It can be called at any time.
    pub fn lose_next_hops(&mut self, negotiated: &Negotiated, next_hops: NextHops) -> Vec<Family> {
        let after = Packer::new(negotiated, next_hops);
        let is_lost = |family: &Family| self.packer.carries(*family) && !after.carries(*family);
        let lost: Vec<Family> = Family::BOTH.into_iter().filter(is_lost).collect();
        for family in &lost {
            self.withdraw_family(*family);
            self.packer.lose_next_hop(*family);
        }
        lost
    }

    /// Sends the routes of each family whose next hop is new or changed once more. Only for an idle outbox.
    pub fn change_next_hops(&mut self, negotiated: &Negotiated, next_hops: NextHops) {
        self.lose_next_hops(negotiated, next_hops);
        self.next_hops = next_hops;
        let before = std::mem::replace(&mut self.packer, Packer::new(negotiated, next_hops));
        for family in Family::BOTH {
            match (before.carries(family), self.packer.carries(family)) {
                (true, true) if self.packer.announces_like(&before, family) => {}
                (true, true) => self.walk_again(family),
                (false, true) => {
                    // The peer has none of the family, and now each can be announced.
                    let count = self.wanted.range(Walk::through(family).range()).count();
                    self.passed_count -= count;
                    self.unsendable_count -= count;
                    self.pending.of_mut(family).first_walk = Some(Walk::through(family));
                }
                (true | false, false) => {}
            }
        }
    }

    /// The next UPDATE, at most as long as the session carries; `None` when there is nothing to say for now.
    ///
    /// An UPDATE carries one family, and either withdrawals, which come first, or announcements with the same
    /// attributes. What has changed comes before the rest of a walk. The only empty UPDATE is End-of-RIB. An error is a bug:
    /// the session must end, because what should have been sent is lost.
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
        }
        for family in Family::BOTH {
            if let Some(message) = self.poll_walk(family, Round::First)? {
                return Ok(Some(message));
            }
            // RFC 4724 §2: after the last initial route, and also where there is none.
            let pending = self.pending.of_mut(family);
            if self.complete && pending.owes_end_of_rib {
                pending.owes_end_of_rib = false;
                return self.packer.end_of_rib(family).map(Some);
            }
            if let Some(message) = self.poll_walk(family, Round::Second)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// [`Outbox::poll_message`] would answer `None`.
    pub fn is_idle(&self) -> bool {
        Family::BOTH.into_iter().all(|family| {
            let pending = self.pending.of(family);
            let mut walks = pending.first_walk.iter().chain(&pending.second_walk);
            let owes_end_of_rib = self.complete && pending.owes_end_of_rib;
            pending.is_empty() && !owes_end_of_rib && !walks.any(|walk| self.has_sendable(family, walk))
        })
    }

    fn has_sendable(&self, family: Family, walk: &Walk) -> bool {
        self.wanted.range(walk.range()).any(|(_, attributes)| self.packer.judge(family, attributes).is_ok())
    }

    /// Prefixes that the peer has.
    pub fn sent_count(&self) -> usize {
        self.sent_count
    }

    /// Prefixes still to be announced or withdrawn. A prefix that the peer requested again counts once the second walk reaches
    /// it. A prefix that cannot be sent counts until the first walk has passed it.
    pub fn pending_count(&self) -> usize {
        let pending = Family::BOTH.into_iter().map(|family| self.pending.of(family).len());
        self.wanted.len() - self.passed_count + pending.sum::<usize>()
    }

    /// Wanted prefixes behind the first walk that cannot be sent on this session: all of them when nothing is pending.
    pub fn unsendable_count(&self) -> usize {
        self.unsendable_count
    }

    /// The wanted prefixes that cannot be sent on this session, each with the reason. Looks at every wanted prefix.
    pub fn unsendable(&self) -> impl Iterator<Item = (IpNet, Unsendable)> {
        self.wanted.iter().filter_map(|(prefix, attributes)| {
            let verdict = self.packer.judge(Family::of(prefix.addr()), attributes);
            verdict.err().map(|reason| (*prefix, reason))
        })
    }

    /// Nothing was sent or is pending: every prefix is ahead of the first walk.
    fn walk_from_the_start(&mut self) {
        self.passed_count = 0;
        for family in Family::BOTH {
            let pending = self.pending.of_mut(family);
            pending.second_walk = None;
            pending.first_walk = self.packer.carries(family).then_some(Walk::through(family));
            if pending.first_walk.is_none() {
                self.passed_count += self.wanted.range(Walk::through(family).range()).count();
            }
        }
        self.unsendable_count = self.passed_count;
    }

    /// Withdraws every route that the peer has of the family. The packer still has the former next hops.
    fn withdraw_family(&mut self, family: Family) {
        let Outbox { packer, wanted, pending, held, passed_count, unsendable_count, .. } = self;
        let pending = pending.of_mut(family);
        let first_walk = pending.first_walk.take();
        pending.second_walk = None;
        let announcements = std::mem::take(&mut pending.announcements);
        let mut unsent: BTreeSet<IpNet> = announcements.into_values().flatten().collect();
        pending.batcher.retain(|prefix| {
            unsent.insert(*prefix);
            false
        });
        unsent.retain(|prefix| !held.contains_key(prefix));
        for (prefix, attributes) in wanted.range(Walk::through(family).range()) {
            if first_walk.is_some_and(|walk| walk.is_ahead(prefix)) {
                *passed_count += 1;
                *unsendable_count += 1;
            } else if packer.judge(family, attributes).is_ok() {
                *unsendable_count += 1;
                if !unsent.contains(prefix) {
                    held.insert(*prefix, Held::Outdated);
                    pending.withdrawals.insert(*prefix);
                }
            }
        }
    }

    fn walk_again(&mut self, family: Family) {
        let pending = self.pending.of_mut(family);
        pending.second_walk = match &pending.first_walk {
            Some(first_walk) => first_walk.passed(family),
            None => {
                // The new walk passes the routes that a second walk has batched again, so they leave the batches. Routes that
                // the first walk has batched are not held yet: they are sent before.
                let held = &mut self.held;
                pending.batcher.retain(|prefix| held.remove(prefix).is_none());
                Some(Walk::through(family))
            }
        };
    }

    /// One prefix has another wanted route, has one now, or has none any more.
    fn turn(&mut self, prefix: IpNet, old: Option<&Arc<RouteAttributes>>, new: Option<&Arc<RouteAttributes>>) {
        let family = Family::of(prefix.addr());
        let pending = self.pending.of_mut(family);
        if pending.first_walk.is_some_and(|walk| walk.is_ahead(&prefix)) {
            // It was never sent. The walk will find its route of then.
            return;
        }
        self.passed_count = self.passed_count + usize::from(new.is_some()) - usize::from(old.is_some());
        // A route that cannot be sent counts as none.
        let sendable = |route: &&Arc<RouteAttributes>| self.packer.judge(family, route).is_ok();
        let (was_wanted, is_wanted) = (old.is_some(), new.is_some());
        let (old, new) = (old.filter(sendable), new.filter(sendable));
        self.unsendable_count += usize::from(is_wanted && new.is_none());
        self.unsendable_count -= usize::from(was_wanted && old.is_none());
        let was_pending = match old {
            Some(old) => pending.forget_announcement(&prefix, old),
            None => pending.withdrawals.remove(&prefix),
        };
        if !was_pending && let Some(old) = old {
            self.held.insert(prefix, Held::Route(Arc::clone(old)));
        }
        match (self.held.get(&prefix), new) {
            // The peer has this route already: nothing to send.
            (Some(Held::Route(held)), Some(new)) if self.packer.says_the_same(held, new) => {
                self.held.remove(&prefix);
            }
            (_, Some(new)) => pending.announce(prefix, new),
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
        let prefixes = self.packer.take_withdrawals(family, &mut pending.withdrawals);
        for prefix in &prefixes {
            self.held.remove(prefix);
        }
        self.sent_count = self.sent_count.saturating_sub(prefixes.len());
        self.packer.withdraw(family, prefixes).map(Some)
    }

    fn poll_announcement(&mut self, family: Family) -> Result<Option<Bytes>, EmitError> {
        let pending = self.pending.of_mut(family);
        let Some(mut group) = pending.announcements.first_entry() else {
            return Ok(None);
        };
        let attributes = Arc::clone(group.key());
        let prefixes = self.packer.take_announcements(family, &attributes, group.get_mut());
        if group.get().is_empty() {
            group.remove();
        }
        self.announce(family, &attributes, prefixes)
    }

    /// Continues a walk until a message is full or the walk is through. Nothing else of the family may be pending.
    fn poll_walk(&mut self, family: Family, round: Round) -> Result<Option<Bytes>, EmitError> {
        loop {
            let pending = self.pending.of_mut(family);
            if let Some(Batch { attributes, prefixes, .. }) = pending.batcher.take_closed() {
                return self.announce(family, &attributes, prefixes);
            }
            let unfinished = match round {
                Round::First => &mut pending.first_walk,
                Round::Second => &mut pending.second_walk,
            };
            let Some(mut walk) = *unfinished else { return Ok(None) };
            let mut full = None;
            let mut is_through = true;
            let mut passed = None;
            for (prefix, attributes) in self.wanted.range(walk.range()) {
                passed = Some(*prefix);
                let sendable = self.packer.judge(family, attributes).is_ok();
                match round {
                    Round::First => {
                        self.passed_count += 1;
                        self.unsendable_count += usize::from(!sendable);
                    }
                    Round::Second if sendable => drop(self.held.insert(*prefix, Held::Outdated)),
                    Round::Second => {}
                }
                if !sendable {
                    continue;
                }
                full = pending.batcher.add(*prefix, attributes, || self.packer.room_for_routes(family, attributes));
                if full.is_some() || pending.batcher.is_closing() {
                    is_through = false;
                    break;
                }
            }
            if let Some(passed) = passed {
                walk.pass(passed);
            }
            *unfinished = if is_through { None } else { Some(walk) };
            if is_through {
                pending.batcher.close();
            }
            if let Some(Batch { attributes, prefixes, .. }) = full {
                return self.announce(family, &attributes, prefixes);
            }
        }
    }

    fn announce(
        &mut self,
        family: Family,
        attributes: &RouteAttributes,
        prefixes: Vec<IpNet>,
    ) -> Result<Option<Bytes>, EmitError> {
        // On a first walk nothing is held, and a million look-ups are saved.
        let known = match self.held.is_empty() {
            true => 0,
            false => prefixes.iter().filter(|prefix| self.held.remove(prefix).is_some()).count(),
        };
        self.sent_count += prefixes.len() - known;
        self.packer.announce(family, attributes, prefixes)
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
    fn new(family: Family, packer: &Packer) -> Pending {
        Pending {
            first_walk: packer.carries(family).then_some(Walk::through(family)),
            second_walk: None,
            batcher: Batcher::default(),
            withdrawals: BTreeSet::new(),
            announcements: BTreeMap::new(),
            owes_end_of_rib: packer.negotiated(family),
        }
    }

    fn announce(&mut self, prefix: IpNet, attributes: &Arc<RouteAttributes>) {
        match self.announcements.get_mut(attributes) {
            Some(group) => drop(group.insert(prefix)),
            None => drop(self.announcements.insert(Arc::clone(attributes), BTreeSet::from([prefix]))),
        }
    }

    fn announces(&self, prefix: &IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        self.announcements.get(attributes).is_some_and(|group| group.contains(prefix))
            || self.batcher.has(prefix, attributes)
    }

    /// False if it was not pending.
    fn forget_announcement(&mut self, prefix: &IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        let Some(group) = self.announcements.get_mut(attributes) else {
            return self.batcher.remove(prefix, attributes);
        };
        let was_pending = group.remove(prefix);
        if group.is_empty() {
            self.announcements.remove(attributes);
        }
        was_pending || self.batcher.remove(prefix, attributes)
    }

    /// Apart from what is ahead of a walk.
    fn is_empty(&self) -> bool {
        self.withdrawals.is_empty() && self.announcements.is_empty() && self.batcher.len() == 0
    }

    fn len(&self) -> usize {
        let announcements = self.announcements.values().map(BTreeSet::len).sum::<usize>();
        self.withdrawals.len() + announcements + self.batcher.len()
    }
}
