//! Which addresses of this host were chosen as next hops, beyond the moment in which they are on the link: an address that goes with a
//! flap of its link is chosen again when it is back. Floor 1. What is configured is no choice, and is not in here.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::NextHops;

/// Of one peer, over its sessions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub(super) v4: Chosen<Ipv4Addr>,
    pub(super) v6: Chosen<Ipv6Addr>,
}

/// What another agent goes on with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

/// Of one family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<A> {
    chosen: Option<A>,
    /// Which address stands in for it, and since when; `None` where none does, also while the family has none.
    stands_in: Option<(A, Instant)>,
}

/// What stands in for so long is the choice: the one before is not only away for a moment.
const MOMENT: Duration = Duration::from_secs(60);

impl Memory {
    /// Of an agent before this one.
    pub fn of(Kept { v4, v6 }: Kept) -> Memory {
        Memory { v4: Chosen { chosen: v4, stands_in: None }, v6: Chosen { chosen: v6, stands_in: None } }
    }

    pub fn kept(&self) -> Kept {
        Kept { v4: self.v4.chosen, v6: self.v6.chosen }
    }

    /// Before a choice: what has stood in for long is what was chosen.
    pub fn settle(&mut self, now: Instant) {
        self.v4.settle(now);
        self.v6.settle(now);
    }

    /// These were chosen.
    pub fn note(&mut self, found: NextHops, now: Instant) {
        self.v4.note(found.v4, now);
        self.v6.note(found.v6.map(|v6| v6.global), now);
    }
}

impl<A: Copy + PartialEq> Chosen<A> {
    /// The first of them that is on the link is chosen again.
    pub(super) fn before(&self) -> impl Iterator<Item = A> {
        self.chosen.into_iter().chain(self.stands_in.map(|(address, _)| address))
    }

    fn settle(&mut self, now: Instant) {
        if let Some((address, since)) = self.stands_in
            && now >= since + MOMENT
        {
            *self = Chosen { chosen: Some(address), stands_in: None };
        }
    }

    fn note(&mut self, found: Option<A>, now: Instant) {
        self.stands_in = match (found, self.stands_in) {
            (Some(found), _) if self.chosen.is_none_or(|chosen| chosen == found) => {
                self.chosen = Some(found);
                None
            }
            (Some(found), Some((before, since))) if before == found => Some((before, since)),
            (Some(found), _) => Some((found, now)),
            (None, _) => None,
        };
    }
}

impl<A> Default for Chosen<A> {
    fn default() -> Chosen<A> {
        Chosen { chosen: None, stands_in: None }
    }
}
