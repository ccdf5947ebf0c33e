//! The counters as `crier status --json` shows them. Floor 1. What each counts is said at [`super::Counters`],
//! [`arp::counters::Report`] and [`pulse::counters::Report`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Counters, LinkFrames, LinkPulses};
use crate::arp::packet::Protocol;
use crate::claim::ConflictKind;
use crate::names::InterfaceName;
use crate::{arp, pulse};

/// Which way an address went, seen from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// To this node.
    In,
    /// Away from this node.
    Out,
    /// From another node to another, or to nobody.
    Elsewhere,
}

impl Direction {
    pub const ALL: [Direction; 3] = [Direction::In, Direction::Out, Direction::Elsewhere];

    /// The direction as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Elsewhere => "elsewhere",
        }
    }
}

/// The counters, part of the status.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CountersReport {
    pub moves: Vec<MoveCount>,
    pub conflicts: Vec<ConflictCount>,
    pub links: Vec<FramesReport>,
    pub pulses: Vec<PulsesReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveCount {
    pub direction: Direction,
    pub cause: String,
    pub count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConflictCount {
    pub link: InterfaceName,
    pub kind: ConflictKind,
    pub count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FramesReport {
    pub link: InterfaceName,
    pub protocol: Protocol,
    pub answers: u64,
    pub gratuitous: u64,
    pub probes: u64,
    pub claims_heard: u64,
    pub lost: u64,
    pub unsent: u64,
    /// Frames without an answer, by the code of the reason.
    pub ignored: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PulsesReport {
    pub link: InterfaceName,
    pub sent: u64,
    pub octets_sent: u64,
    pub unsent: u64,
    /// Pulses received, by the code of their outcome.
    pub received: BTreeMap<String, u64>,
    /// How many detections took this many milliseconds at most. Slower ones are only in `detections`.
    pub detections_within_millis: Vec<(u64, u64)>,
    pub detections: u64,
    pub detections_took_millis: u64,
}

/// The view.
pub fn report(counters: &Counters) -> CountersReport {
    // Those of BFD are in the view of BFD; those of egress are shown by `crier egress`.
    let Counters {
        moves,
        conflicts,
        frames,
        pulses,
        bfd: _,
        api_requests: _,
        egress: _,
        egress_table: _,
        egress_earlier: _,
        egress_later_marks: _,
        egress_new_pods: _,
        egress_removable: _,
    } = counters;
    let of_move = |((direction, cause), count): (&(Direction, String), &u64)| MoveCount {
        direction: *direction,
        cause: cause.clone(),
        count: *count,
    };
    let of_conflict = |((link, kind), count): (&(InterfaceName, ConflictKind), &u64)| ConflictCount {
        link: link.clone(),
        kind: *kind,
        count: *count,
    };
    CountersReport {
        moves: moves.iter().map(of_move).collect(),
        conflicts: conflicts.iter().map(of_conflict).collect(),
        links: frames.iter().map(of_frames).collect(),
        pulses: pulses.iter().map(of_pulses).collect(),
    }
}

fn of_frames(LinkFrames { link, protocol, counts }: &LinkFrames) -> FramesReport {
    let arp::counters::Report { answers, gratuitous, probes, conflicts, lost, unsent, ignored } = counts;
    FramesReport {
        link: link.clone(),
        protocol: *protocol,
        answers: *answers,
        gratuitous: *gratuitous,
        probes: *probes,
        claims_heard: *conflicts,
        lost: *lost,
        unsent: *unsent,
        ignored: ignored.iter().map(|(reason, count)| (reason.code().to_owned(), *count)).collect(),
    }
}

fn of_pulses(LinkPulses { link, counts }: &LinkPulses) -> PulsesReport {
    let pulse::counters::Report { sent, octets_sent, unsent, received, detection } = counts;
    PulsesReport {
        link: link.clone(),
        sent: *sent,
        octets_sent: *octets_sent,
        unsent: *unsent,
        received: received.iter().map(|(outcome, count)| (outcome.code().to_owned(), *count)).collect(),
        detections_within_millis: detection.within.iter().map(|(bound, count)| (millis(*bound), *count)).collect(),
        detections: detection.count,
        detections_took_millis: millis(detection.sum),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
