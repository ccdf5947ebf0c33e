//! The barrier behind the Lease: who takes it allocates only on lists that are newer than the taking. Floor 2.
//!
//! The previous agent may have written statuses that a watch has not told yet, and an address given twice is taken back from
//! one. So the kinds that decide who gets which address are listed anew after each taking.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// Between the Lease task, which asks, and the watches, which list.
#[derive(Debug, Clone)]
pub struct Barrier {
    wanted: watch::Sender<u64>,
    reached: watch::Sender<BTreeMap<&'static str, u64>>,
}

impl Barrier {
    /// `kinds` are the plurals of the kinds that have to be listed.
    pub fn new(kinds: &[&'static str]) -> Barrier {
        let reached = kinds.iter().map(|kind| (*kind, 0)).collect();
        Barrier { wanted: watch::Sender::new(0), reached: watch::Sender::new(reached) }
    }

    /// Asks for new lists; answers with what to wait for.
    pub fn ask(&self) -> u64 {
        self.wanted.send_modify(|round| *round += 1);
        *self.wanted.borrow()
    }

    /// Whether every kind was listed since [`Barrier::ask`] answered with `round`.
    pub fn is_passed(&self, round: u64) -> bool {
        self.reached.borrow().values().all(|reached| *reached >= round)
    }

    /// Waits until more was listed.
    pub async fn progress(&self) {
        let mut reached = self.reached.subscribe();
        // The sender is held here.
        let _ = reached.changed().await;
    }

    /// The round that a list of this kind, begun now, will serve; `None` where the kind is not needed.
    pub fn begin(&self, kind: &str) -> Option<u64> {
        self.reached.borrow().contains_key(kind).then(|| *self.wanted.borrow())
    }

    /// The list was told whole.
    pub fn listed(&self, kind: &'static str, round: u64) {
        self.reached.send_modify(|reached| {
            reached.insert(kind, round);
        });
    }

    /// Waits until a newer list of the kind is asked for than that of `round`.
    pub async fn is_asked(&self, round: Option<u64>) {
        let Some(round) = round else { return std::future::pending().await };
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted > round).await;
    }
}
