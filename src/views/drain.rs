//! How far a drain of this node has come: part of `crier status`, and metrics. Floor 1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::config::Config;
use crate::plan::{elect, following};
use crate::roster::Eligibility;
use crate::world::{Drain, DrainStage, Pulses};

/// What was counted of the flows of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flows {
    /// Open when they were first counted; `None` until then, and where they cannot be counted.
    pub first: Option<usize>,
    /// Of these, still open.
    pub left: Option<usize>,
    /// Why they cannot be counted.
    pub trouble: Option<String>,
}

/// The drain of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    pub stage: DrainStage,
    pub reason: Option<String>,
    pub since: Timestamp,
    /// Flows are waited for until then.
    pub until: Timestamp,
    /// Flows to the announced addresses that were open when the drain began; `None` where they cannot be counted.
    pub flows: Option<usize>,
    pub flows_left: Option<usize>,
    /// Addresses that this node still answers for on the link.
    pub addresses_left: usize,
    /// Flows were left when the time was over.
    pub timed_out: bool,
    /// The Node asked for it (`[drain]`), and takes it back.
    #[serde(default)]
    pub follows: bool,
    /// Why the flows cannot be counted: then the whole time is waited.
    pub trouble: Option<String>,
    /// Why the drain goes no further: no other node serves, or takes the addresses that are left.
    #[serde(default)]
    pub stands_still: Option<String>,
}

/// The view; `None` where this node is not drained.
pub fn drain(snapshot: &Snapshot) -> Option<DrainReport> {
    let Drain { stage, reason, since, until, timed_out, follows, forced: _ } = &**snapshot.world.drain.as_ref()?;
    let Flows { first, left, trouble } = snapshot.flows.clone();
    Some(DrainReport {
        stage: *stage,
        reason: reason.clone(),
        since: *since,
        until: *until,
        flows: first,
        flows_left: left,
        addresses_left: snapshot.plan.l2.addresses.len(),
        timed_out: *timed_out,
        follows: *follows,
        trouble,
        stands_still: snapshot.world.drain_refused.as_ref().map(|it| it.problem.clone()),
    })
}

/// Why no other node would serve what this one announces; `None` where one is known that would.
pub fn nobody_else(snapshot: &Snapshot) -> Option<String> {
    let (config, world): (&Config, _) = (&snapshot.config, &snapshot.world);
    let heard = || world.rosters.values().flat_map(|roster| roster.members.values());
    if !config.l2.is_empty() {
        if world.pulses == Pulses::Off {
            return Some("no pulses are sent, so no other node learns that it is to answer on the link".to_owned());
        }
        let takes =
            heard().any(|member| member.eligibility == Eligibility::Eligible && !member.card.weights.is_empty());
        return (!takes).then(|| "no other node on the links may take an address".to_owned());
    }
    let others = world
        .nodes
        .iter()
        .filter(|(name, node)| **name != snapshot.node && node.ready && elect::exclusion(node).is_none())
        // They leave too, or will: their agents follow the same marks.
        .filter(|(_, node)| node.marks.drain.is_none() && following::why_out(config, node).is_none());
    let ready = others.count() > 0;
    let serves = heard().any(|member| member.eligibility == Eligibility::Eligible);
    match (world.pulses == Pulses::Off, ready, serves) {
        (true, true, _) => elected_for_egress(snapshot),
        (false, _, true) => None,
        (true, false, _) => Some("no other Node is Ready and stays".to_owned()),
        (false, _, false) => Some("no other node is heard that may announce".to_owned()),
    }
}

/// Of an address by which what pods open leaves, one node is elected; without pulses no other node learns that it is to be that.
fn elected_for_egress(snapshot: &Snapshot) -> Option<String> {
    let owned = snapshot.plan.decisions.iter().find_map(|(service, decision)| {
        let mut owners = decision.egress.iter().flat_map(|egress| &egress.owners);
        let owner = owners.find(|it| it.owner.as_ref() == Some(&snapshot.node))?;
        Some((service, owner.address))
    });
    owned.map(|(service, address)| {
        format!(
            "no pulses are sent, so no other node learns that it is to announce {address} of {service}, with which its pods send \
             (crier.dev/egress)"
        )
    })
}
