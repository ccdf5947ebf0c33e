//! What operators order of agents that run: drains, chosen nodes and other files. As `agent::drain`, `crier move` and
//! `agent::reload` do it, without their files and sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crier::world::{Drain, DrainStage, Fact, Ordered};

use crate::agent::THINKING;
use crate::story::Station;
use crate::town::{Event, Town};

/// How long the other nodes may take to take all addresses: `agent::drain`.
pub const HAND_OVER: Duration = Duration::from_secs(15);

/// How often what is left is looked at meanwhile: `agent::drain`.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The drain of a node, as it stands on its disk.
#[derive(Debug, Clone)]
pub struct Draining {
    stage: DrainStage,
    /// When this stage began.
    pub since: Instant,
    /// When the flows have ended.
    flows_end: Instant,
    /// Since when this life of the agent hands over.
    hands_over_since: Option<Instant>,
}

impl Draining {
    /// It takes nothing any more.
    pub fn hands_over(&self) -> bool {
        self.stage >= DrainStage::HandingOver
    }

    pub fn is_over(&self) -> bool {
        self.stage >= DrainStage::Withdrawing
    }

    pub fn fact(&self) -> Fact {
        let (since, until) = (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH);
        let drain = Drain { stage: self.stage, ordered: Ordered::default(), since, until, timed_out: false };
        Fact::Drain(Some(Arc::new(drain)))
    }
}

impl Town {
    /// Refused where the agent knows of no other node that would serve.
    pub fn drain(&mut self, number: Station, waiting: Duration) {
        let now = self.now();
        let is_running = self.is_running(number);
        let host = &mut self.hosts[number];
        let may = host.agent.as_ref().is_some_and(|agent| agent.is_not_the_last(now));
        if !is_running || host.drain.is_some() || !may {
            return;
        }
        let stage = DrainStage::Waiting;
        host.drain = Some(Draining { stage, since: now, flows_end: now + waiting, hands_over_since: None });
        self.tell_drain(number);
        self.resume_drain(number);
    }

    pub fn undrain(&mut self, number: Station) {
        if self.is_running(number) && self.hosts[number].drain.take().is_some() {
            self.tell_drain(number);
        }
    }

    /// The drainer of an agent begins where the one before it ended.
    pub fn resume_drain(&mut self, number: Station) {
        let now = self.now();
        let Some(drain) = &mut self.hosts[number].drain else { return };
        drain.hands_over_since = None;
        let at = if drain.stage == DrainStage::Waiting { drain.flows_end } else { now };
        self.post_drain(number, at.max(now + THINKING));
    }

    /// One step of the drainer.
    pub fn go_on_draining(&mut self, number: Station) {
        let now = self.now();
        let host = &mut self.hosts[number];
        let (Some(drain), Some(agent)) = (&mut host.drain, &host.agent) else { return };
        let next = match drain.stage {
            DrainStage::Waiting if now < drain.flows_end => return,
            DrainStage::Waiting => DrainStage::HandingOver,
            DrainStage::HandingOver => {
                let since = *drain.hands_over_since.get_or_insert(now);
                if agent.has_addresses() && now < since + HAND_OVER {
                    return self.post_drain(number, now + LOOK_EVERY);
                }
                DrainStage::Withdrawing
            }
            // There are no routers here.
            DrainStage::Withdrawing => DrainStage::Drained,
            DrainStage::Drained => return,
        };
        (drain.stage, drain.since) = (next, now);
        self.tell_drain(number);
        // The plan that it looks at next knows of the stage.
        self.post_drain(number, now + THINKING);
    }

    /// `crier move`, which writes an annotation.
    pub fn choose(&mut self, address: usize, to: Option<Station>) {
        self.chosen[address] = to;
        for host in (0..self.hosts.len()).filter(|host| self.hosts[*host].sees_api).collect::<Vec<_>>() {
            self.tell(host, vec![self.service(address)]);
        }
    }

    /// An agent that does not run reads the file when it starts.
    pub fn reload(&mut self, number: Station, file: usize) {
        let now = self.now();
        self.hosts[number].file = file;
        self.events.post(now, Event::Reload(number, self.hosts[number].life));
    }

    pub fn read_file(&mut self, number: Station) {
        let now = self.now();
        let file = self.files[self.hosts[number].file].clone();
        if let Some(agent) = &mut self.hosts[number].agent {
            agent.reload(file, now);
        }
        self.attend(number);
    }

    fn tell_drain(&mut self, number: Station) {
        let fact = self.hosts[number].drain.as_ref().map_or(Fact::Drain(None), Draining::fact);
        if let Some(agent) = &mut self.hosts[number].agent {
            agent.learn(fact);
        }
        self.attend(number);
    }

    fn post_drain(&mut self, number: Station, at: Instant) {
        self.events.post(at, Event::Drain(number, self.hosts[number].life));
    }
}
