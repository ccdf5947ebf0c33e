//! Which addresses this node gives to which Services where it has no API server, in a few octets: other nodes compare that with
//! what they give. Floor 1, an organ of the planner. It decides nothing.

use std::ops::BitXorAssign;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::names::ObjectKey;
use crate::plan::decision::Decision;
use crate::reason::Reason;
use crate::roster::Given;

/// How long the same must have been given before it is said: a file that goes from node to node is not everywhere at once.
pub const STANDS_AFTER: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct GivenMemory {
    /// Of every Service and each of its addresses, whatever their order.
    sum: Given,
    /// Since when that is given; `None` where there is an API server.
    since: Option<Instant>,
    said: Option<Given>,
}

impl GivenMemory {
    /// This node chooses for itself from now on.
    pub fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Another decision about a Service.
    pub fn put(&mut self, service: &ObjectKey, before: Option<&Decision>, after: Option<&Decision>, now: Instant) {
        let same = is_served(before) == is_served(after)
            && before.map(|it| &it.allocation.held) == after.map(|it| &it.allocation.held);
        if self.since.is_none() || same {
            return;
        }
        let was = self.sum;
        [before, after].into_iter().for_each(|decision| self.sum ^= of(service, decision));
        if self.sum != was {
            self.since = Some(now);
        }
    }

    /// What is to be said, once it has stood long enough.
    pub fn said(&self) -> Option<Given> {
        self.said
    }

    /// True if something else is to be said than before.
    pub fn renew(&mut self, now: Instant) -> bool {
        let said = self.since.filter(|since| now >= *since + STANDS_AFTER).map(|_| self.sum);
        std::mem::replace(&mut self.said, said) != said
    }

    /// When to call [`GivenMemory::renew`].
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.said {
            Some(said) if said == self.sum => None,
            // What is said is given no longer.
            Some(_) => self.since,
            None => self.since.map(|since| since + STANDS_AFTER),
        }
    }
}

fn is_served(decision: Option<&Decision>) -> bool {
    decision.is_some_and(|it| !matches!(it.allocation.reason, Reason::NotLoadBalancer | Reason::OtherClass { .. }))
}

fn of(service: &ObjectKey, decision: Option<&Decision>) -> Given {
    let mut sum = Given::default();
    let Some(decision) = decision.filter(|it| is_served(Some(it))) else { return sum };
    let digest = |text: String| -> u64 {
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(text).into();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    };
    sum.services = digest(service.to_string());
    for held in &decision.allocation.held {
        sum.addresses ^= digest(format!("{service} {}", held.address));
    }
    sum
}

impl BitXorAssign for Given {
    fn bitxor_assign(&mut self, other: Given) {
        self.services ^= other.services;
        self.addresses ^= other.addresses;
    }
}
