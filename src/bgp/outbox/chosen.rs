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
    /// Of a previous agent.
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

    /// A previous agent told the peer these. What stood in for what it had chosen goes on to do so.
    pub fn go_on(&mut self, told: NextHops, now: Instant) {
        let Kept { v4, v6 } = self.kept();
        self.note(NextHops { v4: told.v4.filter(|_| v4.is_some()), v6: told.v6.filter(|_| v6.is_some()) }, now);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::outbox::NextHopV6;
    use crate::clock;

    /// Input: the agent is restarted while another address stands in for the next hop that was chosen. Output: that one is
    /// the first choice still, and the one that stands in is the second: a lower one is none.
    #[test]
    fn what_stands_in_for_a_next_hop_goes_on_to_do_so_over_a_restart() {
        let [chosen, stands_in] = ["fd35::11", "fd35::5"].map(|it| it.parse::<Ipv6Addr>().unwrap());
        let told =
            |global| NextHops { v4: Some([10, 0, 0, 11].into()), v6: Some(NextHopV6 { global, link_local: None }) };
        let (kept, now) = (Kept { v4: None, v6: Some(chosen) }, clock::now());
        let mut memory = Memory::of(kept);
        memory.go_on(told(stands_in), now);
        assert!(memory.v6.before().eq([chosen, stands_in]));
        assert_eq!(memory.kept(), kept, "the end of the session was no choice");
        memory.settle(now + MOMENT);
        assert!(memory.v6.before().eq([stands_in]), "for long");
        let mut memory = Memory::of(kept);
        memory.go_on(told(chosen), now);
        assert!(memory.v6.before().eq([chosen]));
    }
}
