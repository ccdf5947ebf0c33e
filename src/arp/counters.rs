//! What is counted on each link since the agent started, for status and metrics.
//! Floor 1. Nothing is decided by these counters; whether anybody is heard at all the pulse wants to know.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::machine::answer::NoAnswer;
use super::packet::Protocol;

/// The counters of one link, and whether it hears anybody. Its thread shares them with their readers.
#[derive(Debug, Default)]
pub struct ByProtocol {
    arp: Counters,
    ndp: Counters,
    hears_nobody: AtomicBool,
}

impl ByProtocol {
    pub fn of(&self, protocol: Protocol) -> &Counters {
        match protocol {
            Protocol::Arp => &self.arp,
            Protocol::Ndp => &self.ndp,
        }
    }

    /// Whether stations that have to be there were asked, and nobody was heard meanwhile.
    pub fn hears_nobody(&self) -> bool {
        self.hears_nobody.load(Ordering::Relaxed)
    }

    pub fn set_hears_nobody(&self, nobody: bool) {
        self.hears_nobody.store(nobody, Ordering::Relaxed);
    }
}

/// Counters of one protocol on one link. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    answers: AtomicU64,
    gratuitous: AtomicU64,
    probes: AtomicU64,
    conflicts: AtomicU64,
    lost: AtomicU64,
    unsent: AtomicU64,
    ignored: [AtomicU64; NoAnswer::ALL.len()],
}

/// One reading of the counters, for status and metrics. Each count is exact; they are not of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Replies sent to stations that asked.
    pub answers: u64,
    /// Gratuitous frames sent: two for each announcement by ARP, one by NDP.
    pub gratuitous: u64,
    /// Probes sent.
    pub probes: u64,
    /// Frames in which another station claimed an address of ours.
    pub conflicts: u64,
    /// Received frames dropped because the ring was full: they came faster than they were judged.
    pub lost: u64,
    /// Frames that the kernel refused to send: the link was down or its queue full.
    pub unsent: u64,
    /// Frames ignored, by reason.
    pub ignored: Vec<(NoAnswer, u64)>,
}

impl Counters {
    pub fn read(&self) -> Report {
        let Counters { answers, gratuitous, probes, conflicts, lost, unsent, ignored: _ } = self;
        Report {
            answers: answers.load(Ordering::Relaxed),
            gratuitous: gratuitous.load(Ordering::Relaxed),
            probes: probes.load(Ordering::Relaxed),
            conflicts: conflicts.load(Ordering::Relaxed),
            lost: lost.load(Ordering::Relaxed),
            unsent: unsent.load(Ordering::Relaxed),
            ignored: NoAnswer::ALL.map(|reason| (reason, self.ignored(reason).load(Ordering::Relaxed))).to_vec(),
        }
    }

    pub fn count_answer(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers that the offload in the kernel has sent.
    pub fn count_answers(&self, answers: u64) {
        self.answers.fetch_add(answers, Ordering::Relaxed);
    }

    pub fn count_gratuitous(&self) {
        self.gratuitous.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_probe(&self) {
        self.probes.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_lost(&self, frames: u64) {
        self.lost.fetch_add(frames, Ordering::Relaxed);
    }

    pub fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_unsent(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_ignored(&self, reason: NoAnswer) {
        self.ignored(reason).fetch_add(1, Ordering::Relaxed);
    }

    fn ignored(&self, reason: NoAnswer) -> &AtomicU64 {
        let [malformed, own, other_destination, no_station, not_a_request, not_owned] = &self.ignored;
        match reason {
            NoAnswer::Malformed => malformed,
            NoAnswer::Own => own,
            NoAnswer::OtherDestination => other_destination,
            NoAnswer::NoStation => no_station,
            NoAnswer::NotARequest => not_a_request,
            NoAnswer::NotOwned => not_owned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_by_itself() {
        let counters = Counters::default();
        for (times, reason) in NoAnswer::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.count_ignored(reason));
        }
        let counted: Vec<u64> = counters.read().ignored.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counted, [1, 2, 3, 4, 5, 6]);
        assert_eq!(counters.read().answers, 0);
    }
}
