//! Who has an address on the link, since when, and the last time it changed: one entry for each address that is announced
//! there, so what is remembered is bounded by what is announced.
//! Floor 1. The cause of a move is the plan's own reason for what it decided: `judge` names it, the planner keeps it here,
//! and the log, the metrics and `crier l2` show it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::names::{InterfaceName, NodeName};
use crate::reason::Reason;
use crate::world::Conflict;

/// How an address stands on the link, and how it came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The node that answers for it, by this plan.
    pub owner: Option<NodeName>,
    /// Since when that is so, as far as this node knows.
    pub since: Instant,
    /// This node saw it begin. Else it found it so, and it may be so for longer.
    pub witnessed: bool,
    /// The last change of the owner that this node saw; `None` where there was none since it began to look.
    pub last_move: Option<Move>,
    /// The last other station that was in the way of this node here.
    pub last_conflict: Option<PastConflict>,
}

/// A change of the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Who had it last, if anybody did; where nobody did for a while, who had it before that.
    pub from: Option<NodeName>,
    /// Nobody, where no node may have it.
    pub to: Option<NodeName>,
    pub at: Instant,
    pub cause: Cause,
}

/// Why the owner of an address changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// Nothing changed: this node has just begun to look, or to listen on the link, and learned who has it.
    Learned,
    /// No earlier owner is known.
    FirstUse,
    /// The owner stopped responding: no pulse came for this long.
    OwnerSilent { after: Duration },
    /// Without pulses: no station on the link answered for the address any more.
    OwnerNotAnswering,
    /// The agent of the owner restarted. It owns nothing until it has proved that it lives and has listened.
    OwnerRestarted,
    /// A node that ranks before the owner is eligible.
    BetterNode,
    /// The owner may not answer any more, and why.
    OwnerRefused { reason: Reason },
}

impl Cause {
    /// The codes of the causes that clusters see every day. Any other is the code of the reason that refuses the owner, or that of
    /// [`Cause::Learned`], which is no move.
    pub const USUAL: [&str; 7] = [
        "first-use",
        "owner-silent",
        "owner-not-answering",
        "owner-restarted",
        "node-left",
        "better-node",
        "node-lacks-endpoint",
    ];

    /// The cause as a label of a metric, in kebab-case.
    pub fn code(&self) -> String {
        match self {
            Cause::Learned => "learned".to_owned(),
            Cause::FirstUse => "first-use".to_owned(),
            Cause::OwnerSilent { after: _ } => "owner-silent".to_owned(),
            Cause::OwnerNotAnswering => "owner-not-answering".to_owned(),
            Cause::OwnerRestarted => "owner-restarted".to_owned(),
            Cause::BetterNode => "better-node".to_owned(),
            Cause::OwnerRefused { reason } => reason.code(),
        }
    }

    /// What became of the owner before, by what refuses it now; `silence` is how long it was silent, where it is.
    pub(super) fn of_refusal(refusal: Option<Reason>, silence: Option<Duration>) -> Cause {
        match (refusal, silence) {
            (None, _) => Cause::BetterNode,
            (Some(Reason::NodeSilent), Some(after)) => Cause::OwnerSilent { after },
            // It was alive a moment ago, and neither fell silent nor left.
            (Some(Reason::NodeNotHeard | Reason::NodeListening), _) => Cause::OwnerRestarted,
            (Some(reason), _) => Cause::OwnerRefused { reason },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Learned => f.write_str("already so when this node began to listen"),
            Cause::FirstUse => f.write_str("no earlier owner is known"),
            Cause::OwnerSilent { after } if after.is_zero() => f.write_str("the previous owner stopped responding"),
            Cause::OwnerSilent { after } => {
                write!(f, "the previous owner stopped responding: no pulse for {} ms", after.as_millis())
            }
            Cause::OwnerNotAnswering => f.write_str("the previous owner no longer answered on the link"),
            Cause::OwnerRestarted => f.write_str("the agent of the previous owner restarted"),
            Cause::BetterNode => f.write_str("a node that ranks higher is available"),
            Cause::OwnerRefused { reason } => write!(f, "the previous owner may not answer any more: {reason}"),
        }
    }
}

/// Another station that was in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastConflict {
    pub link: InterfaceName,
    pub conflict: Conflict,
    /// When it was over; `None` while it lasts.
    pub over: Option<Instant>,
}

/// A change of the owner in one turn, with every step of it: for the log and the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    pub address: std::net::IpAddr,
    pub from: Option<NodeName>,
    pub to: Option<NodeName>,
    pub cause: Cause,
}

impl Placement {
    /// What follows when `owner` has the address from now on.
    pub(super) fn next(before: Option<&Placement>, owner: Option<NodeName>, cause: Cause, now: Instant) -> Placement {
        let last_move = before.and_then(|before| before.last_move.clone());
        let last_conflict = before.and_then(|before| before.last_conflict.clone());
        let witnessed = cause != Cause::Learned;
        let begins = Placement { owner: owner.clone(), since: now, witnessed, last_move: None, last_conflict };
        let from = before.and_then(|before| before.owner.clone());
        match (from, last_move) {
            (_, last_move) if !witnessed => Placement { last_move, ..begins },
            // Nobody had it for a while: the cause is why the one before lost it.
            (None, Some(Move { from, to: None, cause, at: _ })) if owner.is_some() => {
                Placement { last_move: Some(Move { from, to: owner, at: now, cause }), ..begins }
            }
            (None, last_move) if owner.is_none() => Placement { last_move, ..begins },
            (from, _) => Placement { last_move: Some(Move { from, to: owner, at: now, cause }), ..begins },
        }
    }
}
