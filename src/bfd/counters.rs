//! What BFD has counted since the agent started, for commands and metrics. Floor 1. Nothing is decided by these counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::discard::Discard;
use crate::names::PeerName;

/// The counters of this node. The thread that counts shares them with their readers. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    peers: Mutex<BTreeMap<PeerName, Arc<PeerCounters>>>,
    discarded: [AtomicU64; Discard::ALL.len()],
}

/// The counters of one peer.
#[derive(Debug, Default)]
pub struct PeerCounters {
    sent: AtomicU64,
    unsent: AtomicU64,
    received: AtomicU64,
}

/// One reading of the counters. Each count is exact; they are not of one instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub peers: BTreeMap<PeerName, PeerReport>,
    /// Packets that were dropped, of whatever sender, by the reason.
    pub discarded: Vec<(Discard, u64)>,
}

/// What was counted of one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerReport {
    pub sent: u64,
    /// Packets that the kernel refused to send.
    pub unsent: u64,
    /// Packets that were taken.
    pub received: u64,
}

impl Counters {
    /// The counters of a peer, made if there are none yet. They stay when the peer goes: counters never fall.
    pub fn of(&self, peer: &PeerName) -> Arc<PeerCounters> {
        // A panic elsewhere may poison the lock, but it cannot leave this map half changed.
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(peer) {
            Some(known) => known.clone(),
            None => peers.entry(peer.clone()).or_default().clone(),
        }
    }

    pub fn count_discarded(&self, discard: Discard) {
        if let Some(counter) = self.discarded.get(discard.place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn read(&self) -> Report {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let discarded = Discard::ALL.iter().zip(&self.discarded);
        Report {
            peers: peers.iter().map(|(name, counters)| (name.clone(), counters.read())).collect(),
            discarded: discarded.map(|(discard, count)| (*discard, count.load(Ordering::Relaxed))).collect(),
        }
    }
}

impl PeerCounters {
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_unsent(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> PeerReport {
        let PeerCounters { sent, unsent, received } = self;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PeerReport { sent: load(sent), unsent: load(unsent), received: load(received) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_discard_is_counted_by_itself_and_each_peer_too() {
        let counters = Counters::default();
        for (times, discard) in Discard::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.count_discarded(discard));
        }
        counters.of(&"tor".into()).count_sent();
        counters.of(&"tor".into()).count_received();
        counters.of(&"spine".into()).count_unsent();
        let Report { peers, discarded } = counters.read();
        let counted: Vec<u64> = discarded.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counted, (1..=Discard::ALL.len() as u64).collect::<Vec<_>>());
        assert_eq!(peers.get(&"tor".into()), Some(&PeerReport { sent: 1, unsent: 0, received: 1 }));
        assert_eq!(peers.get(&"spine".into()), Some(&PeerReport { sent: 0, unsent: 1, received: 0 }));
    }
}
