//! Addresses of egress that one node alone announces over BGP while it has no session: outbound connections of pods leave, and no reply comes back. Floor 1,
//! a part of `egress`.

use super::Snapshot;
use crate::names::PeerName;
use crate::plan::decision::{Decision, EgressOwner};
use crate::roster::Sessions;
use crate::some_of::some;
use crate::world::Pulses;

/// The first address of each Service of which that is known.
pub(super) fn problems(snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let established = snapshot.established();
    let decisions = snapshot.plan.decisions.iter();
    let found = decisions.filter_map(move |(key, decision)| {
        let owners = decision.egress.as_ref()?.owners.iter();
        let told = owners.filter(|it| it.reason.is_none()).find_map(|owner| {
            let why = match owner.owner.as_ref()? == &snapshot.node {
                true => {
                    let peers = told_to(decision, owner)?;
                    let is_told = peers.iter().any(|peer| established.contains(peer));
                    let others = if snapshot.world.pulses == Pulses::Off { WITHOUT_PULSES } else { "" };
                    (!is_told).then(|| {
                        format!(
                            "this node, which alone announces it, has no BGP session with {}{others}; see `crier bgp peers`",
                            some(peers.iter(), MOST_NAMED)
                        )
                    })?
                }
                false => says_without(snapshot, decision, owner)?,
            };
            Some((owner.address, why))
        });
        let (address, why) = told?;
        Some(format!("{key}: no router hears of {address}, so nothing reaches it, and no reply reaches the Service's pods: {why}"))
    });
    found.take(MOST_NAMED)
}

const WITHOUT_PULSES: &str = ", and no other node learns that without pulses ([pulse] key-file)";

/// More of them tell nobody anything.
const MOST_NAMED: usize = 10;

/// The peers that the address is for, where it is on no link.
fn told_to<'a>(decision: &'a Decision, owner: &EgressOwner) -> Option<&'a [PeerName]> {
    let announcement = decision.announcements.iter().find(|it| it.address == owner.address && !it.is_on_link())?;
    (!announcement.bgp.peers.is_empty()).then_some(&*announcement.bgp.peers)
}

/// The same of another node, by its own word.
fn says_without(snapshot: &Snapshot, decision: &Decision, owner: &EgressOwner) -> Option<String> {
    let name = owner.owner.as_ref()?;
    let is_on_link = decision.announcements.iter().any(|it| it.address == owner.address && it.is_on_link());
    let mut members = snapshot.world.rosters.values().filter_map(|roster| roster.members.get(name));
    let without = members.any(|it| matches!(it.sessions, Some(Sessions::Missing | Sessions::Away)));
    (without && !is_on_link).then(|| format!("{name}, which alone announces it, says that it has no BGP session"))
}
