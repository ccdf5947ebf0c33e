//! Routes on their way from the wanted map into messages: collected by attribute set until a message is full.
//! Floor 1. The outbox decides which routes are collected, and what becomes of a route that changes meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address::Family;
use crate::bgp::wire::emitted_prefix_len;
use crate::route::RouteAttributes;

/// How many prefixes are collected before all messages are closed, full or not. It bounds the time until the first message, and the
/// cost of a table in which no two routes have the same attributes. If a table has no more attribute sets than this number divided by the
/// prefixes of one message, every message is filled, however its routes are mixed.
pub(super) const MOST_COLLECTED: usize = 1 << 17;

/// A walk through one family of the wanted map, in the order of its prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    from: Bound<IpNet>,
    to: Bound<IpNet>,
}

impl Walk {
    pub(super) fn through(family: Family) -> Walk {
        let v6 = IpNet::V6(Ipv6Net::default());
        match family {
            Family::V4 => Walk { from: Bound::Included(IpNet::V4(Ipv4Net::default())), to: Bound::Excluded(v6) },
            Family::V6 => Walk { from: Bound::Included(v6), to: Bound::Unbounded },
        }
    }

    pub(super) fn range(&self) -> (Bound<IpNet>, Bound<IpNet>) {
        (self.from, self.to)
    }

    /// Continues after this prefix.
    pub(super) fn pass(&mut self, prefix: IpNet) {
        self.from = Bound::Excluded(prefix);
    }

    /// Whether the walk has not passed a prefix of the family yet.
    pub(super) fn is_ahead(&self, prefix: &IpNet) -> bool {
        match &self.from {
            Bound::Included(first) => prefix >= first,
            Bound::Excluded(passed) => prefix > passed,
            Bound::Unbounded => true,
        }
    }

    /// The walk from the family's first prefix to the last that this walk has passed; `None` if it has passed none.
    pub(super) fn passed(&self, family: Family) -> Option<Walk> {
        match self.from {
            Bound::Excluded(passed) => Some(Walk { to: Bound::Included(passed), ..Walk::through(family) }),
            Bound::Included(_) | Bound::Unbounded => None,
        }
    }
}

/// Prefixes for one message, with the attributes of all of them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) attributes: Arc<RouteAttributes>,
    /// In ascending order.
    pub(super) prefixes: Vec<IpNet>,
    /// Octets that the prefixes take, and that a message has for them.
    octets: usize,
    room: usize,
}

/// The messages that are being filled, one for each attribute set.
#[derive(Debug, Default)]
pub(super) struct Batcher {
    batches: Vec<Batch>,
    by_attributes: BTreeMap<Arc<RouteAttributes>, usize>,
    /// The batch that took the last route. Neighbours mostly have the same attributes, and then nothing is looked up.
    last: usize,
    prefix_count: usize,
    /// Whether every batch is to leave as it is.
    closing: bool,
}

impl Batcher {
    /// Takes one route in. If its message is full, the batch of that message comes out, and the route is the first of the next.
    ///
    /// Prefixes must come in ascending order from one [`Batcher::close`] to the next. `room` is asked for once for each
    /// attribute set: the octets that its messages have for prefixes.
    pub(super) fn add(
        &mut self,
        prefix: IpNet,
        attributes: &Arc<RouteAttributes>,
        room: impl FnOnce() -> usize,
    ) -> Option<Batch> {
        let at = match self.batches.get(self.last) {
            Some(batch) if Arc::ptr_eq(&batch.attributes, attributes) => self.last,
            _ => self.find_or_open(attributes, room),
        };
        self.last = at;
        let batch = self.batches.get_mut(at)?;
        let len = emitted_prefix_len(&prefix);
        if batch.octets + len <= batch.room {
            batch.octets += len;
            batch.prefixes.push(prefix);
            self.prefix_count += 1;
            self.closing = self.prefix_count >= MOST_COLLECTED;
            return None;
        }
        let mut prefixes = Vec::with_capacity(batch.prefixes.len());
        prefixes.push(prefix);
        let next = Batch { attributes: Arc::clone(attributes), prefixes, octets: len, room: batch.room };
        let full = std::mem::replace(batch, next);
        self.prefix_count = self.prefix_count + 1 - full.prefixes.len();
        Some(full)
    }

    fn find_or_open(&mut self, attributes: &Arc<RouteAttributes>, room: impl FnOnce() -> usize) -> usize {
        if let Some(at) = self.by_attributes.get(attributes) {
            return *at;
        }
        let at = self.batches.len();
        let attributes = Arc::clone(attributes);
        self.by_attributes.insert(Arc::clone(&attributes), at);
        self.batches.push(Batch { attributes, prefixes: Vec::new(), octets: 0, room: room() });
        at
    }

    /// Whether the route waits in a batch.
    pub(super) fn has(&self, prefix: &IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        let at = self.by_attributes.get(attributes).copied();
        at.and_then(|at| self.batches.get(at)).is_some_and(|batch| batch.prefixes.binary_search(prefix).is_ok())
    }

    /// Takes a route out again. False if it was not in any batch.
    pub(super) fn remove(&mut self, prefix: &IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        let at = self.by_attributes.get(attributes).copied();
        let Some(batch) = at.and_then(|at| self.batches.get_mut(at)) else { return false };
        let Ok(place) = batch.prefixes.binary_search(prefix) else { return false };
        batch.prefixes.remove(place);
        batch.octets -= emitted_prefix_len(prefix);
        self.prefix_count -= 1;
        true
    }

    /// Takes out the routes that are not to be kept. Once none is left, others can come in any order.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&IpNet) -> bool) {
        for batch in &mut self.batches {
            batch.prefixes.retain(|prefix| keep(prefix));
            batch.octets = batch.prefixes.iter().map(emitted_prefix_len).sum();
        }
        self.prefix_count = self.batches.iter().map(|batch| batch.prefixes.len()).sum();
        if self.prefix_count == 0 {
            *self = Batcher::default();
        }
    }

    /// No more routes come: every batch is to leave.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// The next batch of those that are to leave. Once it has answered `None`, routes can be added again.
    pub(super) fn take_closed(&mut self) -> Option<Batch> {
        while self.closing {
            match self.batches.pop() {
                Some(batch) => {
                    self.by_attributes.remove(&batch.attributes);
                    self.prefix_count -= batch.prefixes.len();
                    // All of its routes may have been taken out again.
                    if !batch.prefixes.is_empty() {
                        return Some(batch);
                    }
                }
                None => self.closing = false,
            }
        }
        None
    }

    /// How many prefixes are in batches.
    pub(super) fn len(&self) -> usize {
        self.prefix_count
    }
}
