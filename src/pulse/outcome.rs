//! What became of a datagram that the pulse received: one word for the machine, the counters, the log and the metrics.
//! Floor 1.

use super::packet::Refused;

/// What became of a datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Its sender is alive.
    Taken,
    /// Its sender was not heard before and has yet to answer this node.
    Unverified,
    /// Its sender says that it leaves.
    Left,
    /// This node sent it.
    Own,
    /// Another agent uses this node's name.
    Namesake,
    /// Its sender has the name of another host that is heard as well, and whose agent started later.
    DoubleName,
    /// It is not newer than what was heard of its sender before.
    Replayed,
    /// It was heard a moment ago over the other IP family, or its sender is heard by another of its links on the same wire.
    Repeated,
    /// More nodes are on this link than this node remembers.
    TooMany,
    /// It did not come from this link, or not from the port that agents send pulses from.
    OffLink,
    Malformed,
    /// It has a version that this node does not support.
    Version,
    /// It is authenticated with another key.
    OtherKey,
    /// It carries no authentication, and this node has a key.
    Unauthenticated,
    /// Its authentication code is wrong.
    Forged,
}

impl Outcome {
    pub const ALL: [Outcome; 15] = [
        Outcome::Taken,
        Outcome::Unverified,
        Outcome::Left,
        Outcome::Own,
        Outcome::Namesake,
        Outcome::DoubleName,
        Outcome::Replayed,
        Outcome::Repeated,
        Outcome::TooMany,
        Outcome::OffLink,
        Outcome::Malformed,
        Outcome::Version,
        Outcome::OtherKey,
        Outcome::Unauthenticated,
        Outcome::Forged,
    ];

    /// The outcome as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Outcome::Taken => "taken",
            Outcome::Unverified => "unverified",
            Outcome::Left => "left",
            Outcome::Own => "own",
            Outcome::Namesake => "namesake",
            Outcome::DoubleName => "double-name",
            Outcome::Replayed => "replayed",
            Outcome::Repeated => "repeated",
            Outcome::TooMany => "too-many",
            Outcome::OffLink => "off-link",
            Outcome::Malformed => "malformed",
            Outcome::Version => "version",
            Outcome::OtherKey => "other-key",
            Outcome::Unauthenticated => "unauthenticated",
            Outcome::Forged => "forged",
        }
    }

    /// The place in [`Outcome::ALL`].
    pub(super) fn place(self) -> usize {
        Outcome::ALL.iter().position(|outcome| *outcome == self).unwrap_or(0)
    }
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Outcome {
        match refused {
            Refused::Malformed => Outcome::Malformed,
            Refused::Version(_) => Outcome::Version,
            Refused::OtherKey => Outcome::OtherKey,
            Refused::Unauthenticated => Outcome::Unauthenticated,
            Refused::Forged => Outcome::Forged,
        }
    }
}
