//! The flows that a drain waits for, from one count to the next: which of those that were open at first are open still, and which of
//! them have fallen silent. Floor 3; pure, and asks nobody.
//!
//! A router that obeys when routes step back sends the packets of open flows to another node: they break there, and the kernel here
//! has them as open for as long as its own time says, days for TCP. What tells them is that no packet comes any more.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::kernel::flows::{Flow, Open};

/// From when on a flow counts as silent.
pub(super) const SILENT: Duration = Duration::from_secs(5);

/// How long a flow that is silent is waited for: longer than live connections are mostly without a packet (keepalives of HTTP/2, gRPC, SSH
/// and of most programs come within half a minute).
pub(super) const GIVEN_UP: Duration = Duration::from_secs(60);

/// The kernel tells whole seconds, and the list takes a moment.
const BLUR: Duration = Duration::from_millis(1500);

/// What a count found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) open: usize,
    /// Of these, the ones that routers may have moved, and through which nothing has come for [`SILENT`].
    pub(super) silent: usize,
    /// Of these, the ones that are waited for.
    pub(super) awaited: usize,
}

/// The flows of the first count that are open still.
#[derive(Debug)]
pub(super) struct Awaited(HashMap<Flow, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When the kernel forgets it, if no packet comes.
    expires: Option<Instant>,
    /// When a packet came at the latest, as far as is known.
    heard: Instant,
}

impl Awaited {
    pub(super) fn new(open: &HashMap<Flow, Open>, now: Instant) -> Awaited {
        Awaited(open.iter().map(|(flow, open)| (*flow, Seen { expires: expiry(open, now), heard: now })).collect())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// `routed`: the addresses that routers alone bring here, which may bring the packets of their flows to other nodes.
    pub(super) fn follow(&mut self, open: &HashMap<Flow, Open>, routed: &BTreeSet<IpAddr>, now: Instant) -> Left {
        let mut left = Left::default();
        self.0.retain(|flow, seen| {
            let Some(open) = open.get(flow) else { return false };
            let expires = expiry(open, now);
            let same = match (expires, seen.expires) {
                (Some(one), Some(other)) => one.max(other) - one.min(other) <= BLUR,
                // The kernel does not say.
                (None, _) | (_, None) => false,
            };
            if !same {
                *seen = Seen { expires, heard: now };
            }
            let silent = now.saturating_duration_since(seen.heard);
            let may_have_moved = routed.contains(&open.address);
            left.open += 1;
            left.silent += usize::from(may_have_moved && silent >= SILENT);
            left.awaited += usize::from(!(may_have_moved && silent >= GIVEN_UP));
            true
        });
        left
    }
}

fn expiry(open: &Open, now: Instant) -> Option<Instant> {
    open.expires_in.and_then(|time| now.checked_add(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::kernel::flows::flow_of_test;

    /// Input: three flows of five days each. The first moves to another node with the routes, the second goes on, the third
    /// is to an address on the link.
    #[test]
    fn a_flow_through_which_nothing_comes_is_silent_and_no_longer_awaited_after_a_minute_where_routers_brought_it() {
        let start = clock::now();
        let (routed, on_link): (IpAddr, IpAddr) = ([203, 0, 113, 1].into(), [192, 168, 35, 100].into());
        let full = Duration::from_secs(432_000);
        let at = |secs: u64| start + Duration::from_secs(secs);
        let table = |secs: u64| {
            let open =
                |address, heard: u64| Open { address, expires_in: Some(full - Duration::from_secs(secs - heard)) };
            HashMap::from([
                (flow_of_test(1), open(routed, 0)),
                (flow_of_test(2), open(routed, secs / 10 * 10)),
                (flow_of_test(3), open(on_link, 0)),
            ])
        };
        let of_routers = [routed].into();
        let mut awaited = Awaited::new(&table(0), start);
        assert_eq!(awaited.count(), 3);
        let mut seen = Vec::new();
        for secs in 1..=80 {
            let left = awaited.follow(&table(secs), &of_routers, at(secs));
            if seen.last().is_none_or(|(_, before)| *before != left) {
                seen.push((secs, left));
            }
        }
        let (first, last) = (seen[0], seen[seen.len() - 1]);
        assert_eq!(first, (1, Left { open: 3, silent: 0, awaited: 3 }));
        assert_eq!(seen[1], (5, Left { open: 3, silent: 2, awaited: 3 }), "the second is silent for half of the time");
        assert!(seen.contains(&(10, Left { open: 3, silent: 1, awaited: 3 })), "a packet has come: {seen:?}");
        assert_eq!(last.1.awaited, 2, "{seen:?}");
        let given_up = seen.iter().find(|(_, left)| left.awaited == 2).expect("it is given up");
        assert_eq!(given_up.0, 60);
        let mut later = table(81);
        later.remove(&flow_of_test(1));
        assert_eq!(
            awaited.follow(&later, &of_routers, at(81)),
            Left { open: 2, silent: 0, awaited: 2 },
            "it is closed"
        );
    }

    #[test]
    fn a_flow_whose_time_the_kernel_does_not_tell_is_awaited() {
        let start = clock::now();
        let address: IpAddr = [203, 0, 113, 1].into();
        let open = HashMap::from([(flow_of_test(1), Open { address, expires_in: None })]);
        let mut awaited = Awaited::new(&open, start);
        let left = awaited.follow(&open, &[address].into(), start + GIVEN_UP * 2);
        assert_eq!(left, Left { open: 1, silent: 0, awaited: 1 });
    }
}
