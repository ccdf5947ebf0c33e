//! Whether this node is alone on the link or receives nothing there, by the kernel's count of frames. Floor 1.

use std::time::{Duration, Instant};

use super::peer::{Life, Peer};
use super::{Machine, SLOW};

/// A link that received frames after the others fell silent counts as sound for so long after the last of them.
const PROVEN_FOR: Duration = Duration::from_secs(10);

/// What the kernel says of the frames that a link has received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    /// `None` where it does not say.
    frames: Option<u64>,
    since: Instant,
    counted: Instant,
    /// Some came after the others were heard last.
    is_proven: bool,
}

impl Machine {
    /// Whether [`Machine::handle_received`] is to be told how many frames the link has received so far: nobody is heard any more, and it
    /// matters whether this node is alone or receives nothing.
    pub fn wants_count(&self, now: Instant) -> bool {
        self.counts_at().is_some_and(|at| at <= now)
    }

    pub(super) fn counts_at(&self) -> Option<Instant> {
        let hears_nobody =
            self.settled && self.parting.is_none() && self.peers.values().all(|it| it.life != Life::Alive);
        let is_missed = |peer: &Peer| matches!(peer.life, Life::Silent { .. });
        let counted = self.received.map_or(self.began, |received| {
            let missed = self.peers.values().any(is_missed);
            received.counted + if missed { self.settings.interval } else { self.settings.interval * SLOW }
        });
        hears_nobody.then(|| counted.max(self.last_heard + self.settings.detection()))
    }

    /// How many frames the link has received so far, by the kernel's count; `None`: it does not say. `hears_nobody`: stations were asked by
    /// ARP and NDP meanwhile, and no frame of anybody came; a switch that sends frames of its own is not somebody. A node that is alone on a quiet link
    /// says in vain that it receives nothing: nobody is there to take over what it holds.
    pub fn handle_received(&mut self, frames: Option<u64>, hears_nobody: bool, now: Instant) {
        let before = self.received.unwrap_or(Received { frames: None, since: now, counted: now, is_proven: false });
        let same = frames.is_some() && frames == before.frames;
        // Frames come, though no pulses do: the link is sound.
        let is_proven = before.is_proven || before.frames.is_some() && !same;
        let since = if same { before.since } else { now };
        self.received = Some(Received { frames, since, counted: now, is_proven });
        let patience = if is_proven { PROVEN_FOR } else { self.settings.detection() };
        self.say_receives_nothing(hears_nobody || now >= since + patience, now);
    }

    /// Somebody is heard.
    pub(super) fn end_missing_all(&mut self, now: Instant) {
        self.received = None;
        self.say_receives_nothing(false, now);
    }

    pub(super) fn say_receives_nothing(&mut self, nothing: bool, now: Instant) {
        if std::mem::replace(&mut self.receives_nothing, nothing) != nothing {
            self.roster_moved = true;
            self.hurry(now);
        }
    }
}
