//! What the pulse has counted on each link since the agent started, for status and metrics.
//! Floor 1. Nothing is decided by these counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::outcome::Outcome;

/// The upper bounds of the classes in which detection times are counted: close together around the defaults, and up to
/// the slowest settings.
pub const DETECTION_BOUNDS: [Duration; 12] = [
    Duration::from_millis(60),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(350),
    Duration::from_millis(400),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
];

/// The counters of one link. Its task shares them with their readers. They only grow.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    octets_sent: AtomicU64,
    unsent: AtomicU64,
    received: [AtomicU64; Outcome::ALL.len()],
    /// One class for each bound, not cumulative, and one for everything above the last bound.
    detections: [AtomicU64; DETECTION_BOUNDS.len() + 1],
    detection_micros: AtomicU64,
}

/// One reading of the counters, for status and metrics. Each count is exact; they are not of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Pulses sent, one for each datagram.
    pub sent: u64,
    pub octets_sent: u64,
    /// Datagrams that the kernel refused to send.
    pub unsent: u64,
    pub received: Vec<(Outcome, u64)>,
    pub detection: Detection,
}

/// For how long owners had been silent when they were declared silent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detection {
    /// How many took at most so long, cumulative, by [`DETECTION_BOUNDS`].
    pub within: Vec<(Duration, u64)>,
    pub count: u64,
    /// Of all of them.
    pub sum: Duration,
}

impl Counters {
    pub fn read(&self) -> Report {
        let Counters { sent, octets_sent, unsent, received: _, detections, detection_micros } = self;
        let mut count = 0;
        let mut within: Vec<u64> = Vec::new();
        for class in detections {
            count += class.load(Ordering::Relaxed);
            within.push(count);
        }
        Report {
            sent: sent.load(Ordering::Relaxed),
            octets_sent: octets_sent.load(Ordering::Relaxed),
            unsent: unsent.load(Ordering::Relaxed),
            received: Outcome::ALL
                .iter()
                .zip(&self.received)
                .map(|(outcome, it)| (*outcome, it.load(Ordering::Relaxed)))
                .collect(),
            detection: Detection {
                within: DETECTION_BOUNDS.into_iter().zip(within).collect(),
                count,
                sum: Duration::from_micros(detection_micros.load(Ordering::Relaxed)),
            },
        }
    }

    pub fn count_sent(&self, octets: u64) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.octets_sent.fetch_add(octets, Ordering::Relaxed);
    }

    pub fn count_unsent(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    /// An owner was declared silent after this time without a pulse.
    pub fn count_detection(&self, after: Duration) {
        let class = DETECTION_BOUNDS.partition_point(|bound| *bound < after);
        if let Some(counter) = self.detections.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.detection_micros.fetch_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn count_received(&self, outcome: Outcome) {
        if let Some(counter) = self.received.get(outcome.place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detection_is_within_its_bound_and_every_larger_one() {
        let counters = Counters::default();
        for millis in [60, 61, 300, 303, 20_000] {
            counters.count_detection(Duration::from_millis(millis));
        }
        let Detection { within, count, sum } = counters.read().detection;
        let counts: Vec<u64> = within.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [1, 2, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]);
        assert_eq!((count, sum), (5, Duration::from_millis(20_724)));
    }

    #[test]
    fn each_outcome_is_counted_by_itself() {
        let counters = Counters::default();
        for (times, outcome) in Outcome::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.count_received(outcome));
        }
        let counted: Vec<u64> = counters.read().received.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counted, (1..=Outcome::ALL.len() as u64).collect::<Vec<_>>());
    }
}
