//! Whether this node hears anybody by ARP and NDP, where it misses the pulses of all others: frames of a switch that has something to say
//! itself come where no frame of another station does. Floor 1. The pulse says what comes of it.

use std::time::{Duration, Instant};

use super::Claims;

/// The time between two rounds of questions to stations whose pulses are missed.
const INTERVAL: Duration = Duration::from_millis(300);

/// The same once nobody answered for so many rounds as matter.
const LONG_INTERVAL: Duration = Duration::from_secs(10);

/// Rounds without a frame of anybody until this node counts as one that receives nothing.
const ROUNDS: u32 = 5;

/// The questions of a node that misses all others.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// The next round.
    due: Option<Instant>,
    /// Some question of the newest round was sent.
    asked: bool,
    /// Rounds since any other station was heard.
    unanswered: u32,
}

impl Claims {
    /// A question for a Node's address was sent.
    pub fn handle_asked(&mut self) {
        if self.missing.due.is_some() && !std::mem::replace(&mut self.missing.asked, true) {
            self.missing.unanswered = self.missing.unanswered.saturating_add(1);
        }
    }

    /// The others whose pulses are missed were asked for their Nodes' addresses again and again, and no frame of anybody was heard meanwhile.
    pub fn hears_nobody(&self) -> bool {
        self.missing.unanswered >= ROUNDS
    }

    pub(super) fn end_silence(&mut self) {
        self.missing.unanswered = 0;
    }

    pub(super) fn ask_the_missed(&mut self, now: Instant) {
        if !self.stations.misses_all() {
            self.missing = Missing::default();
            return;
        }
        if self.missing.due.is_none_or(|due| due <= now) {
            self.stations.ask_missed(now);
            let interval = if self.hears_nobody() { LONG_INTERVAL } else { INTERVAL };
            (self.missing.due, self.missing.asked) = (Some(now + interval), false);
        }
    }

    pub(super) fn next_missed(&self) -> Option<Instant> {
        self.missing.due.filter(|_| self.up)
    }
}
