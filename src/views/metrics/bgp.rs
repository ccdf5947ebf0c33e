//! The metrics of the BGP peers: what `crier bgp peers` shows, in the same words. Floor 1.

use jiff::Timestamp;

use super::{Metric, Series, count, counter, gauge};
use crate::names::PeerName;
use crate::views::Snapshot;
use crate::world::{Direction, NotificationCount, SessionReport, SessionState};

pub(super) const METRICS: [Metric; 12] = [
    gauge("crier_bgp_session_up", &["peer"], "1 while the session is Established.", |snapshot, series| {
        of_sessions(snapshot, series, |session| u64::from(session.state == SessionState::Established));
    }),
    counter(
        "crier_bgp_session_established_total",
        &["peer"],
        "How often the session was established.",
        |snapshot, series| of_sessions(snapshot, series, |session| session.detail.times_established),
    ),
    gauge(
        "crier_bgp_session_state_since_timestamp_seconds",
        &["peer"],
        "When the session came into its state.",
        |snapshot, series| {
            of_sessions(snapshot, series, |session| seconds(Timestamp::try_from(session.since).ok()));
        },
    ),
    gauge(
        "crier_bgp_session_last_error_timestamp_seconds",
        &["peer"],
        "When the session, or the attempt at one, last failed; 0 if it never did.",
        |snapshot, series| of_sessions(snapshot, series, |session| seconds(session.detail.last_error_at)),
    ),
    gauge("crier_bgp_prefixes_wanted", &["peer"], "Prefixes to be announced to the peer.", |snapshot, series| {
        for (name, peer) in &snapshot.plan.bgp.peers {
            series.set([name.as_str()], count(peer.routes.len()));
        }
    }),
    gauge("crier_bgp_prefixes_sent", &["peer"], "Prefixes announced to the peer.", |snapshot, series| {
        of_sessions(snapshot, series, |session| count(session.prefixes_sent));
    }),
    gauge(
        "crier_bgp_prefixes_pending",
        &["peer"],
        "Prefixes that are still to be announced to the peer or withdrawn from it.",
        |snapshot, series| of_sessions(snapshot, series, |session| count(session.detail.prefixes_pending)),
    ),
    gauge(
        "crier_bgp_prefixes_unsendable",
        &["peer"],
        "Prefixes that the session cannot carry, such as those without a next hop of the same address family.",
        |snapshot, series| of_sessions(snapshot, series, |session| count(session.prefixes_unsendable)),
    ),
    counter(
        "crier_bgp_prefixes_received_total",
        &["peer"],
        "Prefixes of this session that the peer announced. crier drops all of them.",
        |snapshot, series| of_sessions(snapshot, series, |session| session.prefixes_received),
    ),
    counter(
        "crier_bgp_messages_total",
        &["direction", "peer", "type"],
        "BGP messages, by direction and type.",
        |snapshot, series| {
            sessions(snapshot, |peer, session| {
                let (sent, received) = match session {
                    Some(session) => (session.detail.messages_sent, session.detail.messages_received),
                    None => Default::default(),
                };
                for (direction, counts) in [("sent", sent), ("received", received)] {
                    for (kind, count) in counts.by_type() {
                        series.set([direction, peer.as_str(), kind], count);
                    }
                }
            });
        },
    ),
    counter(
        "crier_bgp_notifications_total",
        &["code", "direction", "peer", "subcode"],
        "NOTIFICATIONs, by direction, code and subcode; 0/0 counts those whose code no RFC names.",
        |snapshot, series| {
            sessions(snapshot, |peer, session| {
                let notifications = session.into_iter().flat_map(|session| &session.detail.notifications);
                for NotificationCount { direction, code, subcode, count } in notifications {
                    let direction = match direction {
                        Direction::Sent => "sent",
                        Direction::Received => "received",
                    };
                    series.add([&code.to_string(), direction, peer.as_str(), &subcode.to_string()], *count);
                }
            });
        },
    ),
    counter(
        "crier_bgp_updates_malformed_total",
        &["peer"],
        "UPDATEs of this session with an error that the session survived (RFC 7606).",
        |snapshot, series| of_sessions(snapshot, series, |session| session.detail.updates_malformed),
    ),
];

/// Every peer of this node, with what its session last told.
fn sessions(snapshot: &Snapshot, mut each: impl FnMut(&PeerName, Option<&SessionReport>)) {
    for name in snapshot.plan.bgp.peers.keys() {
        each(name, snapshot.session(name));
    }
}

/// A number of each session; 0 where there is none.
fn of_sessions(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&SessionReport) -> u64) {
    sessions(snapshot, |peer, session| series.set([peer.as_str()], session.map_or(0, &read)));
}

fn seconds(at: Option<Timestamp>) -> u64 {
    at.and_then(|at| u64::try_from(at.as_second()).ok()).unwrap_or(0)
}
