//! What was counted on the links since the agent started: for the metrics, and the JSON of `crier status`. Floor 3.
//! The threads and tasks of the links count frames and pulses; the loop counts what its turns decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::arp::packet::Protocol;
use crate::by_link::ByLink;
use crate::claim::ConflictKind;
use crate::names::{InterfaceName, NodeName};
use crate::plan::Turn;
use crate::plan::placement::Handover;
use crate::{arp, pulse};

/// The counters that the responder and the pulse share with the loop.
#[derive(Debug, Clone, Default)]
pub struct LinkCounters {
    pub arp: Arc<ByLink<arp::counters::ByProtocol>>,
    pub pulse: Arc<ByLink<pulse::counters::Counters>>,
}

/// What the loop counts.
#[derive(Debug, Default)]
pub struct Tally {
    counters: LinkCounters,
    moves: BTreeMap<(Direction, String), u64>,
    conflicts: BTreeMap<(InterfaceName, ConflictKind), u64>,
}

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

/// The figures as they stand, part of the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct L2Figures {
    pub moves: Vec<MoveCount>,
    pub conflicts: Vec<ConflictCount>,
    /// Of every link that this node ever answered on, ARP and NDP apart.
    pub links: Vec<LinkFigures>,
    /// Of every link that this node ever pulsed on.
    pub pulses: Vec<PulseFigures>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveCount {
    pub direction: Direction,
    pub cause: String,
    pub count: u64,
}

/// Conflicts that began, not the frames of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConflictCount {
    pub link: InterfaceName,
    pub kind: ConflictKind,
    pub count: u64,
}

/// What the fields mean is said at [`arp::counters::Report`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkFigures {
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

/// What the fields mean is said at [`pulse::counters::Report`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PulseFigures {
    pub link: InterfaceName,
    pub sent: u64,
    pub octets_sent: u64,
    pub unsent: u64,
    /// What became of what was heard, by the code of its outcome.
    pub received: BTreeMap<String, u64>,
    /// How many detections took so long at most, in milliseconds; those that took longer are only in the count.
    pub detections_within_millis: Vec<(u64, u64)>,
    pub detections: u64,
    pub detections_took_millis: u64,
}

impl Tally {
    pub fn new(counters: LinkCounters) -> Tally {
        Tally { counters, ..Tally::default() }
    }

    /// Counts what a turn of the planner of `node` decided.
    pub fn count(&mut self, turn: &Turn, node: &NodeName) {
        for Handover { address: _, from, to, cause } in &turn.handovers {
            let direction = match (from.as_ref() == Some(node), to.as_ref() == Some(node)) {
                (_, true) => Direction::In,
                (true, false) => Direction::Out,
                (false, false) => Direction::Elsewhere,
            };
            *self.moves.entry((direction, cause.code())).or_default() += 1;
        }
        for (_, link, kind) in &turn.conflicts {
            *self.conflicts.entry((link.clone(), *kind)).or_default() += 1;
        }
    }

    pub fn figures(&self) -> L2Figures {
        let Tally { counters, moves, conflicts } = self;
        let links = counters.arp.all().into_iter().flat_map(|(link, counters)| {
            Protocol::BOTH.map(|protocol| link_figures(link.clone(), protocol, counters.of(protocol).read()))
        });
        let pulses = counters.pulse.all().into_iter().map(|(link, counters)| pulse_figures(link, counters.read()));
        let moves = moves.iter().map(|((direction, cause), count)| MoveCount {
            direction: *direction,
            cause: cause.clone(),
            count: *count,
        });
        let conflicts = conflicts.iter().map(|((link, kind), count)| ConflictCount {
            link: link.clone(),
            kind: *kind,
            count: *count,
        });
        L2Figures {
            moves: moves.collect(),
            conflicts: conflicts.collect(),
            links: links.collect(),
            pulses: pulses.collect(),
        }
    }
}

fn link_figures(link: InterfaceName, protocol: Protocol, figures: arp::counters::Report) -> LinkFigures {
    let arp::counters::Report { answers, gratuitous, probes, conflicts, lost, unsent, ignored } = figures;
    let ignored = ignored.into_iter().map(|(reason, count)| (reason.code().to_owned(), count)).collect();
    LinkFigures { link, protocol, answers, gratuitous, probes, claims_heard: conflicts, lost, unsent, ignored }
}

fn pulse_figures(link: InterfaceName, figures: pulse::counters::Report) -> PulseFigures {
    let pulse::counters::Report { sent, octets_sent, unsent, received, detection } = figures;
    PulseFigures {
        link,
        sent,
        octets_sent,
        unsent,
        received: received.into_iter().map(|(outcome, count)| (outcome.code().to_owned(), count)).collect(),
        detections_within_millis: detection.within.iter().map(|(bound, count)| (millis(*bound), *count)).collect(),
        detections: detection.count,
        detections_took_millis: millis(detection.sum),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::placement::Cause;

    #[test]
    fn a_move_is_counted_by_its_direction_and_cause() {
        let me = NodeName::from("a");
        let handover = |from: Option<&str>, to: Option<&str>, cause| Handover {
            address: "192.0.2.1".parse().unwrap(),
            from: from.map(NodeName::from),
            to: to.map(NodeName::from),
            cause,
        };
        let silent = Cause::OwnerSilent { after: Duration::from_millis(300) };
        let turn = Turn {
            handovers: vec![
                handover(None, Some("a"), Cause::FirstUse),
                handover(Some("b"), Some("a"), silent.clone()),
                handover(Some("b"), Some("a"), silent.clone()),
                handover(Some("a"), Some("b"), Cause::BetterNode),
                handover(Some("a"), None, Cause::BetterNode),
                handover(Some("b"), Some("c"), silent),
            ],
            conflicts: vec![("192.0.2.1".parse().unwrap(), "eth0".into(), ConflictKind::Occupied)],
            ..Turn::default()
        };
        let mut tally = Tally::default();
        tally.count(&turn, &me);
        let figures = tally.figures();
        let moves: Vec<_> =
            figures.moves.iter().map(|it| format!("{} {} {}", it.direction.code(), it.cause, it.count)).collect();
        assert_eq!(moves, ["in first-use 1", "in owner-silent 2", "out better-node 2", "elsewhere owner-silent 1"]);
        assert_eq!(figures.conflicts.iter().map(|it| it.count).collect::<Vec<_>>(), [1]);
    }
}
