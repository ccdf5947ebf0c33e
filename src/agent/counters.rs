//! What is counted while the agent runs. Floor 3. The threads and tasks of the links count frames and pulses; the loop
//! counts what its turns decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imbl::OrdMap;

use crate::arp::packet::Protocol;
use crate::by_link::ByLink;
use crate::claim::ConflictKind;
use crate::names::{InterfaceName, NodeName};
use crate::plan::Turn;
use crate::plan::placement::Handover;
use crate::views::counters::Direction;
use crate::views::{Counters, LinkFrames, LinkPulses};
use crate::{arp, bfd, egress, pulse};

/// The counters that the responder, the pulse, BFD and the client of the API server share with the loop.
#[derive(Debug, Clone, Default)]
pub struct LinkCounters {
    pub arp: Arc<ByLink<arp::counters::ByProtocol>>,
    pub pulse: Arc<ByLink<pulse::counters::Counters>>,
    pub bfd: Arc<bfd::counters::Counters>,
    pub api_requests: Arc<AtomicU64>,
    pub egress: Arc<egress::counters::Counters>,
}

/// The loop's own counters, beside those of the links.
#[derive(Debug, Default)]
pub struct TurnCounters {
    moves: OrdMap<(Direction, String), u64>,
    conflicts: OrdMap<(InterfaceName, ConflictKind), u64>,
}

impl TurnCounters {
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

    /// One reading of everything that is counted. Each counter is exact; they are not of one instant.
    pub fn read(&self, links: &LinkCounters) -> Counters {
        let frames = links.arp.all().into_iter().flat_map(|(link, counters)| {
            Protocol::BOTH.map(|protocol| LinkFrames {
                link: link.clone(),
                protocol,
                counts: counters.of(protocol).read(),
            })
        });
        let pulses = links.pulse.all().into_iter().map(|(link, counters)| LinkPulses { link, counts: counters.read() });
        Counters {
            moves: self.moves.clone(),
            conflicts: self.conflicts.clone(),
            frames: frames.collect(),
            pulses: pulses.collect(),
            bfd: links.bfd.read(),
            api_requests: links.api_requests.load(Ordering::Relaxed),
            egress: links.egress.all(),
            egress_table: links.egress.held(),
            egress_earlier: links.egress.earlier(),
            egress_later_marks: links.egress.later_marks(),
            egress_new_pods: links.egress.new_pods(),
            egress_removable: links.egress.is_removable(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let mut counters = TurnCounters::default();
        counters.count(&turn, &me);
        let read = counters.read(&LinkCounters::default());
        let moves: Vec<_> =
            read.moves.iter().map(|((way, cause), count)| format!("{} {cause} {count}", way.code())).collect();
        assert_eq!(moves, ["in first-use 1", "in owner-silent 2", "out better-node 2", "elsewhere owner-silent 1"]);
        assert_eq!(read.conflicts.values().copied().collect::<Vec<_>>(), [1]);
    }
}
