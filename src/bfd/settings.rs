//! What a profile means to a session, and the times and limits that no profile changes. Floor 1.

use std::num::NonZeroU8;
use std::time::Duration;

use super::authentication::Key;

/// What one end of a session asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How often this end wants to send while the session is up: 10 ms to 60 s.
    pub transmit_interval: Duration,
    /// How often the peer may send at most: 10 ms to 60 s.
    pub receive_interval: Duration,
    /// After how many missing packets the peer takes this end for dead.
    pub multiplier: NonZeroU8,
    /// Send nothing before the peer was heard.
    pub passive: bool,
    pub key: Option<Key>,
    /// A former key that the peer may have still: taken as well, and used towards it while it does.
    pub old_key: Option<Key>,
}

/// RFC 5881 §4, RFC 5883 §5: the UDP ports, and the source ports of this end.
pub const SINGLE_HOP_PORT: u16 = 3784;
pub const MULTIHOP_PORT: u16 = 4784;
pub const SOURCE_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

/// RFC 5880 §6.8.3: "When bfd.SessionState is not Up, the system MUST set bfd.DesiredMinTxInterval to a value of not less than one
/// second".
pub const SLOW: Duration = Duration::from_secs(1);

/// For how long the key that a peer uses is taken still after the settings of this end have it no more.
pub const FORMER_KEY_LASTS: Duration = Duration::from_secs(600);

/// For how long peers are asked to wait while an agent is replaced: longer than a start takes, and what a node that does not come
/// back costs at most.
pub const REST: Duration = Duration::from_secs(10);

/// How long at least a peer may take to be heard after a crash: one that has noticed speaks once a second (RFC 5880 §6.8.3).
pub const HEARD_WITHIN: Duration = Duration::from_millis(1500);

/// The least time between two packets that no timer asked for: answers to Polls, and news of a state. It is below the least
/// interval of a profile, so that RFC 5880 §6.8.7 allows the limit, and a flood of Polls costs 200 answers a second.
pub const LEAST_PAUSE: Duration = Duration::from_millis(5);
