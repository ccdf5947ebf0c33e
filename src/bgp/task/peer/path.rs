//! What BFD says of the path to the peer, and what follows for the session. Floor 2, a part of the peer's task.

use std::time::{Duration, Instant};

use tracing::info;

use super::PeerTask;
use crate::bfd_state::BfdState;
use crate::bgp::machine::Doubt;
use crate::bgp::machine::session::PROOF_TIME;
use crate::bgp::wire::Cease;
use crate::clock;
use crate::world::{BfdLoss, BfdSessions};

/// The path as BFD has it.
#[derive(Debug, Default)]
pub(super) struct Path {
    /// How often BFD has lost it. A loss concerns the session that stood at that time, and none that came after.
    losses: u64,
    state: BfdState,
    /// When this agent established the BGP session; `None` for one of the previous agent, and without any.
    session_began: Option<Instant>,
    /// Why BFD said last that the path is lost.
    pub(super) lost: String,
}

impl Path {
    pub(super) fn begin_session(&mut self, now: Instant) {
        self.session_began = Some(now);
    }

    /// How long the peer has to prove that the BGP session goes on although BFD has lost the path; `None` where the path was this session's.
    ///
    /// What BFD heard before the session says nothing of it: a router that was started anew has begun its BFD anew as well. That the session
    /// came up says that the path was there then, and silence counts from there.
    fn patience(&self, loss: &BfdLoss, detection: Duration, now: Instant) -> Option<Duration> {
        let began = self.session_began?;
        if loss.heard.is_some_and(|heard| heard >= began) {
            return None;
        }
        Some((began + detection).saturating_duration_since(now).max(LEAST_PATIENCE))
    }
}

/// A kernel that delays its acknowledgements does so for less.
const LEAST_PATIENCE: Duration = Duration::from_millis(250);

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
            let detection =
                report.and_then(|report| report.detection_time_micros).map_or(PROOF_TIME, Duration::from_micros);
            let now = clock::now();
            let patience = loss.and_then(|loss| self.path.patience(loss, detection, now));
            self.path.lost = loss.map_or_else(|| "the path is lost".to_owned(), |loss| loss.why.clone());
            match patience {
                Some(patience) => {
                    info!(
                        peer = %self.name,
                        reason = self.path.lost,
                        "BFD lost a path that it has not heard since this session began; the session goes on if the peer acknowledges a KEEPALIVE"
                    );
                    let actions = self.peering.handle_doubt(Doubt::Path, patience, now);
                    self.carry_out(actions);
                }
                None => self.reset(connection, Cease::BfdDown, format!("BFD: {}", self.path.lost)),
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
