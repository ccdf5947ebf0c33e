//! What BFD says of the path to the peer, and what follows for the session. Floor 2, a part of the peer's task.

use std::time::Instant;

use tracing::info;

use super::PeerTask;
use crate::bfd_state::BfdState;
use crate::bgp::wire::Cease;
use crate::clock;
use crate::world::{BfdLoss, BfdSessions};

/// The path as BFD has it.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// How often BFD has lost it. A loss concerns the session that stood at that time, and none that came after.
    losses: u64,
    state: BfdState,
    /// The BGP session, if there is any, was established by this agent. A BFD session of the previous agent may end only because the peer was
    /// started anew.
    is_of_this_agent: bool,
}

impl Path {
    /// This agent has established a session.
    pub(super) fn begin_session(&mut self) {
        self.is_of_this_agent = true;
    }
}

impl PeerTask {
    /// BFD says something new of the path. Only a path that was up and is lost ends the session: one that never came up, or that an
    /// operator of either end holds down, says nothing (RFC 5882 §3.2, §4.2).
    pub(super) fn handle_bfd(&mut self, sessions: &BfdSessions) {
        let report = sessions.get(&self.name);
        self.path.state = report.map_or(BfdState::Down, |report| report.state);
        let is_up = self.path.state == BfdState::Up;
        let losses = report.map_or(0, |report| report.losses);
        let before = std::mem::replace(&mut self.path.losses, losses);
        if losses > before
            && let Some(connection) = self.outbound.as_ref().map(|outbound| outbound.connection)
        {
            let loss = report.and_then(|report| report.last_loss.as_ref());
            match loss {
                Some(BfdLoss { why, is_of_agent_before: true, at: _ }) if self.path.is_of_this_agent => {
                    info!(
                        peer = %self.name,
                        reason = why,
                        "the BFD session of the previous agent has ended; this session goes on if the peer acknowledges a KEEPALIVE"
                    );
                    // The path of this one may be lost with it.
                    let actions = self.peering.handle_doubt(clock::now());
                    self.carry_out(actions);
                }
                Some(BfdLoss { why, .. }) => self.reset(connection, Cease::BfdDown, format!("BFD: {why}")),
                None => self.reset(connection, Cease::BfdDown, "BFD".to_owned()),
            }
        }
        let now = clock::now();
        let actions = match is_up {
            true => self.peering.handle_path_up(now),
            false => self.peering.handle_path_down(now),
        };
        self.carry_out(actions);
        self.note_held(now);
    }

    /// What a peer without a session waits for, beside what may have ended its last one.
    pub(super) fn note_held(&mut self, now: Instant) {
        if self.peering.is_held() && self.outbound.is_none() && !self.leaving {
            let why = format!("waiting for BFD, which is {} (bfd-strict)", self.path.state);
            self.report.fail(why.into(), false, now);
        }
    }
}
