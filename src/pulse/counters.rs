//! What the pulse has counted since it started, for status and metrics, and how it stands on each link.
//! Floor 1. Counts only; nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::machine::Heard;
use super::packet::Refused;

/// What became of a datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Taken,
    Unverified,
    Left,
    Own,
    Namesake,
    Replayed,
    TooMany,
    /// It did not come from this link, or not from port and address as pulses do.
    FromAfar,
    Malformed,
    Version,
    OtherKey,
    Unsealed,
    Forged,
}

impl Fate {
    pub const ALL: [Fate; 13] = [
        Fate::Taken,
        Fate::Unverified,
        Fate::Left,
        Fate::Own,
        Fate::Namesake,
        Fate::Replayed,
        Fate::TooMany,
        Fate::FromAfar,
        Fate::Malformed,
        Fate::Version,
        Fate::OtherKey,
        Fate::Unsealed,
        Fate::Forged,
    ];

    /// The fate as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Fate::Taken => "taken",
            Fate::Unverified => "unverified",
            Fate::Left => "left",
            Fate::Own => "own",
            Fate::Namesake => "namesake",
            Fate::Replayed => "replayed",
            Fate::TooMany => "too-many",
            Fate::FromAfar => "from-afar",
            Fate::Malformed => "malformed",
            Fate::Version => "version",
            Fate::OtherKey => "other-key",
            Fate::Unsealed => "unsealed",
            Fate::Forged => "forged",
        }
    }

    fn place(self) -> usize {
        Fate::ALL.iter().position(|fate| *fate == self).unwrap_or(0)
    }
}

impl From<Heard> for Fate {
    fn from(heard: Heard) -> Fate {
        match heard {
            Heard::Taken => Fate::Taken,
            Heard::Unverified => Fate::Unverified,
            Heard::Left => Fate::Left,
            Heard::Own => Fate::Own,
            Heard::Namesake => Fate::Namesake,
            Heard::Replayed => Fate::Replayed,
            Heard::TooMany => Fate::TooMany,
        }
    }
}

impl From<Refused> for Fate {
    fn from(refused: Refused) -> Fate {
        match refused {
            Refused::Malformed => Fate::Malformed,
            Refused::Version(_) => Fate::Version,
            Refused::OtherKey => Fate::OtherKey,
            Refused::Unsealed => Fate::Unsealed,
            Refused::Forged => Fate::Forged,
        }
    }
}

/// Counters that the tasks of all links share with whoever wants to read them. They only ever grow.
#[derive(Debug, Default)]
pub struct Counters {
    sent: AtomicU64,
    octets_sent: AtomicU64,
    unsent: AtomicU64,
    received: [AtomicU64; Fate::ALL.len()],
}

/// One reading of the counters. Each figure is exact; they are not of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Pulses sent, one for each datagram.
    pub sent: u64,
    pub octets_sent: u64,
    /// Datagrams that the kernel did not take.
    pub unsent: u64,
    pub received: Vec<(Fate, u64)>,
}

impl Counters {
    pub fn read(&self) -> Figures {
        let Counters { sent, octets_sent, unsent, received: _ } = self;
        Figures {
            sent: sent.load(Ordering::Relaxed),
            octets_sent: octets_sent.load(Ordering::Relaxed),
            unsent: unsent.load(Ordering::Relaxed),
            received: Fate::ALL
                .iter()
                .zip(&self.received)
                .map(|(fate, it)| (*fate, it.load(Ordering::Relaxed)))
                .collect(),
        }
    }

    pub fn count_sent(&self, octets: u64) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.octets_sent.fetch_add(octets, Ordering::Relaxed);
    }

    pub fn count_unsent(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_received(&self, fate: Fate) {
        if let Some(counter) = self.received.get(fate.place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fate_is_counted_by_itself() {
        let counters = Counters::default();
        for (times, fate) in Fate::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| counters.count_received(fate));
        }
        let counted: Vec<u64> = counters.read().received.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counted, (1..=Fate::ALL.len() as u64).collect::<Vec<_>>());
    }
}
