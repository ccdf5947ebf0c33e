//! Every time of the layer 2 claims, with its reason. Floor 1.
//!
//! Gap (RFC 5227 §1.1): probes follow each other after 35 ms instead of 1 to 2 s, without a random wait before the first,
//! and the verdict comes after 105 ms instead of 5 to 9 s. A station that needs longer to answer is found while the
//! address is in use, and within `PROBATION` this node then gives way.
//!
//! Gap (RFC 4862 §5.4.2): neither is the first solicitation for a new address delayed by a random time, nor the joining of
//! its group; many addresses are spread by the pace of frames instead.

use std::time::Duration;

use crate::claim::Acquisition;

/// How the link is asked before an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    pub probes: u8,
    /// After each probe; the last wait ends with the verdict.
    pub interval: Duration,
    /// After a deferral, until the link is probed again; doubled with each deferral in a row up to `longest_pause`.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

/// `None`: nobody is asked.
pub fn probing(acquisition: &Acquisition) -> Option<Probing> {
    match acquisition {
        // A user waits for this, so it takes a tenth of a second. Three probes, since one frame in ten lost on the way
        // there and back would leave a taken address undetected once in five with one probe, once in 150 with three.
        // The first pause is short, for whoever answers may be the owner before, which has not heard yet that it is not.
        Acquisition::FirstUse => Some(Probing {
            probes: 3,
            interval: Duration::from_millis(35),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
        }),
        // Traffic is being lost, and the owner before was silent already. One that lives answers a probe within a
        // millisecond; the second is for a lossy link. Should it be alive but unheard, its real death is found by
        // asking again, so the pause does not grow.
        Acquisition::TakeOver { from: _ } => Some(Probing {
            probes: 2,
            interval: Duration::from_micros(7500),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(1),
        }),
        Acquisition::HandOver => None,
    }
}

/// How long after its first use an address still counts as never used: who turns out to have it was there before, only
/// slower to answer than the probes waited, and this node gives way.
pub const PROBATION: Duration = Duration::from_secs(10);

/// How often an address is announced after a take-over. RFC 5227 §1.1 asks for two (ANNOUNCE_NUM), RFC 4861 §10 allows
/// three (MAX_NEIGHBOR_ADVERTISEMENT); more are for links that lose the first frames while a switch port starts to forward.
pub const ROUNDS: usize = 5;

/// The time between two announcements of one address. A Linux neighbour drops an update that comes within a second of
/// the one before (`locktime`), unless it takes it for gratuitous, so the rounds lie further apart than that; and
/// RFC 4861 §7.2.6 wants a second between advertisements (RetransTimer).
pub const ROUND_INTERVAL: Duration = Duration::from_millis(1100);

/// How often an address is announced for as long as it is held. Switches forget a station after 300 s by default
/// (IEEE 802.1Q §8.8.3), and caches of neighbours age within minutes to hours: with 130 s, two of these fall into every
/// 300 s even if each comes late by `REFRESH_SPREAD`.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(130);

/// Refreshes are moved by up to this much against each other, so that addresses that came together do not speak together.
pub const REFRESH_SPREAD: Duration = Duration::from_secs(20);

/// The least time between two announcements that defend an address (DEFEND_INTERVAL of RFC 5227 §1.1).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Another agent claims what this node holds: one of the two is about to hear that it is not the owner. Who still is
/// after this says so, for the neighbours that believed the other.
pub const MEMBER_PATIENCE: Duration = Duration::from_secs(1);

/// A claimant that was not heard for this long has given up.
pub const CONFLICT_OVER: Duration = Duration::from_secs(300);

/// How often one conflict may fill the log. One that lasts is looked up in `status`, not counted in log lines.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The average time between two frames of one link that nobody asked for, probes and announcements: 8,000 a second, which
/// is half a per cent of a gigabit and well below what switches take for a storm. A thousand addresses are announced
/// within a quarter of a second.
pub const FRAME_SPACING: Duration = Duration::from_micros(125);

/// Frames that may follow each other at once after a silence. A timer is no finer than a millisecond, so fewer would not
/// keep up with `FRAME_SPACING`; an answer waits for no more frames than these.
pub const FRAME_BURST: u32 = 32;
