//! The metrics of the links: requests and answers, owners and moves, conflicts, pulses. Floor 1.

use super::{Metric, Series, count, counter, gauge, histogram};
use crate::arp::counters::Report;
use crate::arp::machine::answer::NoAnswer;
use crate::names::InterfaceName;
use crate::plan::placement::Cause;
use crate::pulse;
use crate::roster::Roster;
use crate::views::counters::Direction;
use crate::views::{LinkFrames, LinkPulses, Snapshot, status};

pub(super) const METRICS: [Metric; 19] = [
    gauge(
        "crier_l2_addresses",
        &["interface"],
        "Addresses that this node answers for on the link.",
        |snapshot, series| {
            let answered = status::answered(snapshot);
            for link in status::links(snapshot) {
                series.set([link.name.as_str()], count(answered.get(&link.name).map_or(0, Vec::len)));
            }
        },
    ),
    counter(
        "crier_l2_requests_total",
        &["interface", "protocol"],
        "ARP requests and neighbour solicitations received that were answered or that ask for an address of others.",
        |snapshot, series| {
            frames(snapshot, series, |counts| {
                let of_others = counts.ignored.iter().filter(|(reason, _)| *reason == NoAnswer::NotOwned);
                counts.answers + of_others.map(|(_, count)| count).sum::<u64>()
            });
        },
    ),
    counter(
        "crier_l2_answers_total",
        &["interface", "protocol"],
        "ARP replies and neighbour advertisements sent in answer to requests.",
        |snapshot, series| frames(snapshot, series, |counts| counts.answers),
    ),
    counter(
        "crier_l2_ignored_total",
        &["interface", "protocol", "reason"],
        "ARP and NDP frames received and not answered, by reason.",
        |snapshot, series| {
            for LinkFrames { link, protocol, counts } in &snapshot.counters.frames {
                for (reason, count) in &counts.ignored {
                    series.add([link.as_str(), protocol.code(), reason.code()], *count);
                }
            }
        },
    ),
    counter(
        "crier_l2_gratuitous_total",
        &["interface", "protocol"],
        "Gratuitous ARP frames and unsolicited neighbour advertisements sent.",
        |snapshot, series| frames(snapshot, series, |counts| counts.gratuitous),
    ),
    counter(
        "crier_l2_probes_total",
        &["interface", "protocol"],
        "Probes sent: frames that ask whether any station uses an address.",
        |snapshot, series| frames(snapshot, series, |counts| counts.probes),
    ),
    counter(
        "crier_l2_claims_heard_total",
        &["interface", "protocol"],
        "Frames received in which another station claims an address that this node answers for.",
        |snapshot, series| frames(snapshot, series, |counts| counts.conflicts),
    ),
    counter(
        "crier_l2_frames_lost_total",
        &["interface", "protocol"],
        "Frames lost before crier read them: they came faster than it reads, and its receive ring was full.",
        |snapshot, series| frames(snapshot, series, |counts| counts.lost),
    ),
    counter(
        "crier_l2_frames_unsent_total",
        &["interface", "protocol"],
        "Frames the kernel refused to send: the link went down or its queue was full.",
        |snapshot, series| frames(snapshot, series, |counts| counts.unsent),
    ),
    counter(
        "crier_l2_moves_total",
        &["cause", "direction"],
        "Changes of the owner of an address, by direction as seen from this node, and by cause.",
        |snapshot, series| {
            // So that the first of them is seen as a change.
            for (direction, cause) in Direction::ALL.into_iter().flat_map(|it| Cause::USUAL.map(|cause| (it, cause))) {
                series.set([cause, direction.code()], 0);
            }
            for ((direction, cause), count) in &snapshot.counters.moves {
                series.set([cause, direction.code()], *count);
            }
        },
    ),
    counter(
        "crier_l2_conflicts_total",
        &["interface", "kind"],
        "Conflicts with other stations that began, by kind.",
        |snapshot, series| {
            for ((link, kind), count) in &snapshot.counters.conflicts {
                series.set([link.as_str(), kind.code()], *count);
            }
        },
    ),
    gauge(
        "crier_l2_conflicts",
        &["interface", "kind"],
        "Addresses of this node that another station uses or claims now.",
        |snapshot, series| {
            for (link, conflict) in snapshot.world.conflicts.values().flatten() {
                series.add([link.as_str(), conflict.kind.code()], 1);
            }
        },
    ),
    counter("crier_pulse_sent_total", &["interface"], "Pulses sent, one for each datagram.", |snapshot, series| {
        pulses(snapshot, series, |counts| counts.sent)
    }),
    counter(
        "crier_pulse_sent_bytes_total",
        &["interface"],
        "Octets of UDP payload of the pulses sent.",
        |snapshot, series| pulses(snapshot, series, |counts| counts.octets_sent),
    ),
    counter("crier_pulse_unsent_total", &["interface"], "Pulses the kernel refused to send.", |snapshot, series| {
        pulses(snapshot, series, |counts| counts.unsent)
    }),
    counter(
        "crier_pulse_received_total",
        &["interface", "outcome"],
        "Pulses received, by what became of each: taken, or why it was dropped.",
        |snapshot, series| {
            for LinkPulses { link, counts } in &snapshot.counters.pulses {
                for (outcome, count) in &counts.received {
                    series.add([link.as_str(), outcome.code()], *count);
                }
            }
        },
    ),
    gauge(
        "crier_pulse_nodes",
        &["interface", "state"],
        "Other nodes on the link: alive, or silent without having left.",
        |snapshot, series| {
            for (link, roster) in rosters(snapshot) {
                for (state, nodes) in NODES.into_iter().zip([roster.members.len(), roster.silent.len()]) {
                    series.set([link.as_str(), state], count(nodes));
                }
            }
        },
    ),
    gauge(
        "crier_pulse_settled",
        &["interface"],
        "1 once this node has listened on the link for long enough to own addresses there.",
        |snapshot, series| {
            for (link, roster) in rosters(snapshot) {
                series.set([link.as_str()], u64::from(roster.settled));
            }
        },
    ),
    histogram(
        "crier_pulse_detection_seconds",
        &["interface"],
        "Time from the last pulse of an owner to the verdict that it is silent.",
        |snapshot| snapshot.counters.pulses.iter().map(|it| (it.link.as_str(), &it.counts.detection)).collect(),
    ),
];

/// What another node is by its pulses.
pub(super) const NODES: [&str; 2] = ["alive", "silent"];

fn frames(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&Report) -> u64) {
    for LinkFrames { link, protocol, counts } in &snapshot.counters.frames {
        series.add([link.as_str(), protocol.code()], read(counts));
    }
}

fn pulses(snapshot: &Snapshot, series: &mut Series, read: impl Fn(&pulse::counters::Report) -> u64) {
    for LinkPulses { link, counts } in &snapshot.counters.pulses {
        series.add([link.as_str()], read(counts));
    }
}

/// Who is there on each link that has a name yet.
fn rosters(snapshot: &Snapshot) -> impl Iterator<Item = (&InterfaceName, &Roster)> {
    let world = &snapshot.world;
    world.rosters.iter().filter_map(|(index, roster)| Some((&world.links.get(index)?.name, &**roster)))
}
