//! What this node says of its BGP sessions. Floor 1, a part of [`Planner`].

use std::collections::BTreeSet;
use std::time::Instant;

use super::Planner;
use crate::names::PeerName;
use crate::roster::{Eligibility, Member, Sessions};
use crate::world::{Pulses, SessionState};

impl Planner {
    /// True if others hear something else of it from now on.
    pub(super) fn renew_sessions(&mut self, now: Instant) -> bool {
        let lease = self.in_force.config().lease_digest();
        let has_one = |member: &Member| {
            member.sessions == Some(Sessions::Stand)
                && member.eligibility == Eligibility::Eligible
                && !member.card.is_of_other_crier(lease)
        };
        let others_stand = self.world.rosters.values().flat_map(|roster| roster.members.values()).any(has_one);
        let stands = if self.world.pulses == Pulses::Off { None } else { self.has_session() };
        self.sessions.renew(stands, others_stand, now);
        let before = std::mem::replace(&mut self.plan.pulse.sessions, self.sessions.said());
        let differs = before != self.plan.pulse.sessions;
        self.moved.pulse |= differs;
        differs
    }

    /// Whether a session is established with a peer that this node has something to announce to; `None` where there is no such peer.
    fn has_session(&self) -> Option<bool> {
        let bgp = &self.context.bgp;
        let told: BTreeSet<&PeerName> =
            bgp.advertisements.iter().filter(|it| it.selected).flat_map(|it| &it.peers).collect();
        let shut = bgp.peers.iter().filter(|peer| peer.shutdown).map(|peer| &peer.name).collect();
        let told: BTreeSet<&PeerName> = told.difference(&shut).copied().collect();
        if told.is_empty() {
            return None;
        }
        let stands = |name: &PeerName| {
            let session = self.world.sessions.get(name);
            session.is_some_and(|it| it.state == SessionState::Established) && told.contains(&bgp.peer_of(name))
        };
        Some(self.plan.bgp.peers.keys().any(stands))
    }
}
