//! What a peer has been sent, written down: the outbox of a session that another process goes on with begins with it. Floor 1.
//! Not for octets: routes whose message is not written yet count as sent, and the connection keeps that message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Held, NextHops, Outbox};
use crate::address::Family;
use crate::bgp::machine::negotiation::Negotiated;
use crate::route::RouteAttributes;

/// What the peer has, and what it is still owed beside the difference to what it should have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// No prefix is named twice, and each is a network: no bit is set behind its length.
    pub routes: Vec<SentRoutes>,
    /// The next hops of these routes.
    pub next_hops: NextHops,
    /// The families whose End-of-RIB was not sent.
    pub owes_end_of_rib: BTreeSet<Family>,
    /// The families whose routes the peer has requested again, and does not have all yet.
    pub owes_refresh: BTreeSet<Family>,
    /// Prefixes that the peer has, nobody knows with what attributes: they are announced again, or withdrawn. None is in `routes`.
    #[serde(default)]
    pub outdated: Vec<IpNet>,
}

impl Sent {
    /// How many prefixes the peer has.
    pub fn count(&self) -> usize {
        self.routes.iter().map(|routes| routes.prefixes.len()).sum::<usize>() + self.outdated.len()
    }
}

/// Prefixes with the same attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRoutes {
    pub attributes: Arc<RouteAttributes>,
    pub prefixes: Vec<IpNet>,
}

/// Why no outbox can begin with what was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SentFault {
    #[error("{0} is said to have been sent twice")]
    Twice(IpNet),
    #[error("{0} is no network: a bit is set behind its length")]
    NoNetwork(IpNet),
    #[error("{0} is said to have been sent, and its family was not negotiated")]
    NotNegotiated(IpNet),
}

impl Outbox {
    /// The outbox of a session in which all this was sent, by the same next hops. It wants exactly that, and nothing is pending but
    /// withdrawals of what cannot be announced: the first [`Outbox::want`] makes the difference. What is owed as a refresh is for
    /// the caller to ask for.
    pub fn resumed(negotiated: &Negotiated, sent: &Sent) -> Result<Outbox, SentFault> {
        let mut outbox = Outbox::new(negotiated, sent.next_hops);
        for family in Family::BOTH {
            let negotiated = outbox.packer.negotiated(family);
            let pending = outbox.pending.of_mut(family);
            pending.first_walk = None;
            pending.owes_end_of_rib = negotiated && sent.owes_end_of_rib.contains(&family);
        }
        for SentRoutes { attributes, prefixes } in &sent.routes {
            prefixes.iter().try_for_each(|prefix| outbox.note_sent(*prefix, attributes))?;
        }
        outbox.passed_count = outbox.wanted.len();
        sent.outdated.iter().try_for_each(|prefix| outbox.note_outdated(*prefix))?;
        Ok(outbox)
    }

    /// It is withdrawn, unless it is wanted before that: then it is announced.
    fn note_outdated(&mut self, prefix: IpNet) -> Result<(), SentFault> {
        let family = self.carried(prefix)?;
        self.sent_count += 1;
        self.pending.of_mut(family).withdrawals.insert(prefix);
        let known = self.wanted.contains_key(&prefix) || self.held.insert(prefix, Held::Outdated).is_some();
        if known { Err(SentFault::Twice(prefix)) } else { Ok(()) }
    }

    /// The family of a prefix that was sent.
    fn carried(&self, prefix: IpNet) -> Result<Family, SentFault> {
        let family = Family::of(prefix.addr());
        if prefix.trunc() != prefix {
            return Err(SentFault::NoNetwork(prefix));
        }
        match self.packer.negotiated(family) {
            true => Ok(family),
            false => Err(SentFault::NotNegotiated(prefix)),
        }
    }

    fn note_sent(&mut self, prefix: IpNet, attributes: &Arc<RouteAttributes>) -> Result<(), SentFault> {
        let family = self.carried(prefix)?;
        self.sent_count += 1;
        let known = match self.packer.judge(family, attributes) {
            Ok(()) => self.wanted.insert(prefix, Arc::clone(attributes)).is_some(),
            // Its family lost its next hop, and the withdrawal had not left.
            Err(_) => {
                self.pending.of_mut(family).withdrawals.insert(prefix);
                self.held.insert(prefix, Held::Outdated).is_some()
            }
        };
        if known { Err(SentFault::Twice(prefix)) } else { Ok(()) }
    }

    /// What the peer has, once every message that [`Outbox::poll_message`] gave is written. Looks at every wanted prefix.
    pub fn sent(&self) -> Sent {
        let mut routes: BTreeMap<&Arc<RouteAttributes>, Vec<IpNet>> = BTreeMap::new();
        let behind = self.wanted.iter().filter(|(prefix, attributes)| self.has_as_wanted(prefix, attributes));
        for (prefix, attributes) in behind {
            routes.entry(attributes).or_default().push(*prefix);
        }
        let unknown = Arc::default();
        for (prefix, held) in &self.held {
            let attributes = match held {
                Held::Route(attributes) => attributes,
                // It is sent again whatever it is: its family owes a refresh. A prefix that is not wanted is only withdrawn.
                Held::Outdated => self.wanted.get(prefix).unwrap_or(&unknown),
            };
            routes.entry(attributes).or_default().push(*prefix);
        }
        let routes = routes.into_iter();
        Sent {
            routes: routes
                .map(|(attributes, prefixes)| SentRoutes { attributes: Arc::clone(attributes), prefixes })
                .collect(),
            next_hops: self.next_hops,
            owes_end_of_rib: Family::BOTH
                .into_iter()
                .filter(|family| self.pending.of(*family).owes_end_of_rib)
                .collect(),
            owes_refresh: Family::BOTH.into_iter().filter(|family| self.owes_refresh(*family)).collect(),
            outdated: Vec::new(),
        }
    }

    /// The peer has this wanted prefix, with these attributes, and nothing about it is pending.
    fn has_as_wanted(&self, prefix: &IpNet, attributes: &Arc<RouteAttributes>) -> bool {
        let family = Family::of(prefix.addr());
        let pending = self.pending.of(family);
        !pending.first_walk.is_some_and(|walk| walk.is_ahead(prefix))
            && !self.held.contains_key(prefix)
            && !pending.announces(prefix, attributes)
            && self.packer.judge(family, attributes).is_ok()
    }

    fn owes_refresh(&self, family: Family) -> bool {
        let outdated = |(prefix, held): (&IpNet, &Held)| *held == Held::Outdated && Family::of(prefix.addr()) == family;
        self.pending.of(family).second_walk.is_some() || self.held.iter().any(outdated)
    }
}
