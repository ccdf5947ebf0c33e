//! How addresses are probed, announced and defended on a link: every interval and count, with its reason. Floor 1.
//!
//! Gap (RFC 5227 §1.1): probes follow each other after 35 ms instead of 1 to 2 s, without a random wait before the first,
//! and the verdict comes after 105 ms instead of 5 to 9 s. A station that needs longer to answer is found while the
//! address is in use, and within `PROBATION` this node then gives way.
//!
//! Gap (RFC 4862 §5.4.2): neither is the first solicitation for a new address delayed by a random time, nor the joining of
//! its group; many addresses are spread by the pace of frames instead.

use std::time::Duration;

use crate::claim::Acquisition;

/// How the link is probed before an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probing {
    pub probes: u8,
    /// After each probe; the last wait ends with the verdict.
    pub interval: Duration,
    /// After a deferral, until the link is probed again; doubled with each deferral in a row up to `longest_pause`.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

/// `None`: the address is announced without a probe.
pub fn probing(acquisition: &Acquisition) -> Option<Probing> {
    match acquisition {
        // A user waits for this, so it takes a tenth of a second. Three probes: where one frame in ten is lost each way, an
        // address in use would go undetected once in five with one probe, and once in 150 with three. The first pause
        // is short, because the station that answers may be the previous owner that has not heard yet of the change.
        Acquisition::FirstUse => Some(Probing {
            probes: 3,
            interval: Duration::from_millis(35),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(5),
        }),
        // Traffic is being lost, and the previous holder was silent already. If it is alive, it answers a probe within a
        // millisecond; the second probe is for a lossy link. If it is alive but not heard, probing again finds its
        // real death, so the pause does not grow.
        Acquisition::TakeOver { from: _, suspect: false } => Some(Probing {
            probes: 2,
            interval: Duration::from_micros(7500),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(1),
        }),
        // Nobody at all is heard. Either several nodes died at once, or this node does not hear: it asks with patience.
        Acquisition::TakeOver { from: _, suspect: true } => Some(Probing {
            probes: 3,
            interval: Duration::from_millis(100),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }),
        Acquisition::HandOver => None,
    }
}

/// How long after its first use an address still counts as never used. A station that turns out to have the address in this
/// time was there before and only slow to answer the probes, so this node defers to it.
pub const PROBATION: Duration = Duration::from_secs(10);

/// How often an address is announced after a take-over. RFC 5227 §1.1 asks for two (ANNOUNCE_NUM), RFC 4861 §10 allows
/// three (MAX_NEIGHBOR_ADVERTISEMENT); more are for links that lose the first frames while a switch port starts to forward.
pub const ROUNDS: usize = 5;

/// The time between two announcements of one address. A Linux neighbour drops an update that comes within a second of
/// the one before (`locktime`), unless it takes it for gratuitous, so the rounds lie further apart than that; and
/// RFC 4861 §7.2.6 wants a second between advertisements (RetransTimer).
pub const ROUND_INTERVAL: Duration = Duration::from_millis(1100);

/// How often an address is announced for as long as this node owns it. Switches forget a station after 300 s by default
/// (IEEE 802.1Q §8.8.3), and caches of neighbours age within minutes to hours: with 130 s, two of these fall into every
/// 300 s even if each comes late by `REFRESH_SPREAD`.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(130);

/// Refreshes are moved by up to this much against each other, so that addresses that came together do not speak together.
pub const REFRESH_SPREAD: Duration = Duration::from_secs(20);

/// The least time between two announcements that defend an address (DEFEND_INTERVAL of RFC 5227 §1.1).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Another agent claims an address that this node announces: one of the two is about to hear that it is not the owner. The
/// one that still is after this time announces again, for the neighbours that believed the other.
pub const MEMBER_PATIENCE: Duration = Duration::from_secs(1);

/// A conflict is over when the other station was not heard for this long.
pub const CONFLICT_OVER: Duration = Duration::from_secs(300);

/// How often one conflict may be logged. `status` shows a conflict that lasts.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The average time between two unsolicited frames (probes and announcements) on one link: 8,000 a second, which is half a
/// per cent of a gigabit and well below what switches take for a storm. A thousand addresses are announced within a quarter
/// of a second.
pub const FRAME_SPACING: Duration = Duration::from_micros(125);

/// Frames that may follow each other at once after a silence. Timers are no finer than a millisecond, so a smaller burst
/// could not keep up with `FRAME_SPACING`. An answer waits for no more frames than these.
pub const FRAME_BURST: u32 = 32;
