//! The metrics of BFD: what `crier bfd` shows, in the same words. Floor 1.

use super::{Metric, Series, counter, gauge};
use crate::bfd::counters::PeerReport;
use crate::bfd_state::BfdState;
use crate::names::PeerName;
use crate::views::Snapshot;
use crate::world::BfdReport;

pub(super) const METRICS: [Metric; 6] = [
    gauge("crier_bfd_session_up", &["peer"], "1 while the BFD session with the peer is Up.", |snapshot, series| {
        of_sessions(snapshot, series, |report| u64::from(report.state == BfdState::Up));
    }),
    gauge(
        "crier_bfd_detection_time_microseconds",
        &["peer"],
        "How long the peer may be silent before the session is down; 0 while the peer is not heard.",
        |snapshot, series| of_sessions(snapshot, series, |report| report.detection_time_micros.unwrap_or(0)),
    ),
    counter("crier_bfd_session_up_total", &["peer"], "How often the BFD session came up.", |snapshot, series| {
        of_sessions(snapshot, series, |report| report.times_up)
    }),
    counter(
        "crier_bfd_session_lost_total",
        &["peer"],
        "How often the BFD session was up and packets did not pass any more. A session that an operator holds down is not counted.",
        |snapshot, series| of_sessions(snapshot, series, |report| report.losses),
    ),
    counter(
        "crier_bfd_packets_total",
        &["outcome", "peer"],
        "BFD packets of the peer's session: sent, received and taken, or unsent because the kernel refused.",
        |snapshot, series| {
            for name in snapshot.plan.bfd.peers.keys() {
                let counted = snapshot.counters.bfd.peers.get(name).copied().unwrap_or_default();
                let PeerReport { sent, unsent, received } = counted;
                for (outcome, count) in OUTCOMES.into_iter().zip([sent, unsent, received]) {
                    series.set([outcome, name.as_str()], count);
                }
            }
        },
    ),
    counter(
        "crier_bfd_packets_discarded_total",
        &["reason"],
        "BFD packets that were dropped, by the rule of RFC 5880, 5881 or 5883 that they broke.",
        |snapshot, series| {
            for (discard, count) in &snapshot.counters.bfd.discarded {
                series.set([discard.code()], *count);
            }
        },
    ),
];

/// What became of a packet of a session.
pub(super) const OUTCOMES: [&str; 3] = ["sent", "unsent", "received"];

/// A number of each session; 0 where there is none yet.
fn of_sessions(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&BfdReport) -> u64) {
    let each = |name: &PeerName| snapshot.world.bfd.get(name).map_or(0, |report| read(report));
    for name in snapshot.plan.bfd.peers.keys() {
        series.set([name.as_str()], each(name));
    }
}
