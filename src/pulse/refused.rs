//! The senders whose pulses were refused, and why: what to log, and what to show.
//! Floor 1. `task` says which pulses are refused; nothing is decided here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::outcome::Outcome;

/// The senders whose pulses are refused, and why. Each is logged once in a while, not with every packet, and is shown for as
/// long as it goes on.
#[derive(Debug, Default)]
pub(super) struct RefusedSenders {
    known: BTreeMap<(IpAddr, Outcome), RefusedSender>,
    moved: bool,
}

#[derive(Debug)]
struct RefusedSender {
    why: String,
    said: Instant,
    last_heard: Instant,
}

impl RefusedSenders {
    /// Notes a pulse that was refused. True if it should be logged.
    pub(super) fn is_news(
        &mut self,
        source: IpAddr,
        outcome: Outcome,
        why: impl FnOnce() -> String,
        now: Instant,
    ) -> bool {
        if let Some(sender) = self.known.get_mut(&(source, outcome)) {
            sender.last_heard = now;
            let again = now.duration_since(sender.said) >= SAY_AGAIN_AFTER;
            if again {
                sender.said = now;
            }
            return again;
        }
        self.forget(now);
        // A host that makes up source addresses must not fill memory and log.
        if self.known.len() >= MOST_REFUSED_SENDERS {
            return false;
        }
        self.known.insert((source, outcome), RefusedSender { why: why(), said: now, last_heard: now });
        self.moved = true;
        true
    }

    fn forget(&mut self, now: Instant) {
        let before = self.known.len();
        self.known.retain(|_, sender| now.duration_since(sender.last_heard) < SAY_AGAIN_AFTER);
        self.moved |= self.known.len() != before;
    }

    /// The refused senders, if they changed since the last call. One that stopped sending is forgotten in time, because this
    /// is called at least as often as this node pulses.
    pub(super) fn poll_refused(&mut self, now: Instant) -> Option<BTreeMap<IpAddr, String>> {
        self.forget(now);
        std::mem::take(&mut self.moved)
            .then(|| self.known.iter().map(|((source, _), sender)| (*source, sender.why.clone())).collect())
    }
}

/// A sender is logged again after this time, and forgotten if no pulse of it was refused for as long.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The most senders and reasons that are remembered.
const MOST_REFUSED_SENDERS: usize = 256;
