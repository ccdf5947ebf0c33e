//! The loop in the middle: take every fact at hand, turn once, publish what moved; hand out snapshots, and format
//! nothing. Floor 3.
//!
//! Tasks: the loop is the caller's; it owns the planner, and one blocking task at a time that writes the World to disk.
//! Cancelled, it leaves the slices as they were last published.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::counters::{LinkCounters, TurnCounters};
use super::had_sessions::HadFile;
use super::log_changes::{log_change, log_dispute};
use super::memory::Memory;
use super::readiness;
use super::wiring::{Query, Slices};
use crate::clock;
use crate::config::Config;
use crate::names::NodeName;
use crate::plan::Planner;
use crate::stop::Stop;
use crate::views::Snapshot;
use crate::views::drain::Flows;
use crate::views::reload::Reloads;
use crate::world::Fact;

/// At most this many facts go into one turn, so that a flood of them does not hold back what is decided already.
const BATCH: usize = 4096;

/// How long the World may have moved on before it is written to disk again.
const KEEP_AFTER: Duration = Duration::from_secs(2);

/// How long at least from one write to the next, where the API server has it all too: a cluster in which something always changes
/// is not written without end.
const KEEP_APART: Duration = Duration::from_secs(5);

/// How long the loop may have nothing to do before it turns all the same, to show that it can.
const BEAT: Duration = Duration::from_secs(1);

/// What others count and tell, for whoever asks how the agent stands.
pub struct Readings {
    pub counters: LinkCounters,
    pub reloads: watch::Receiver<Reloads>,
    pub flows: watch::Receiver<Flows>,
}

/// Everything the loop owns.
pub struct Loop {
    node: NodeName,
    started: Timestamp,
    planner: Planner,
    slices: Slices,
    memory: Memory,
    counters: TurnCounters,
    readings: Readings,
    /// When to keep the World; none while the disk is up to date.
    had: HadFile,
    keep_at: Option<Instant>,
    /// When it was last kept.
    kept: Option<Instant>,
    /// The write to the disk that is under way, or was last: never two at a time.
    keeping: Option<JoinHandle<()>>,
    /// Told once, when the first plan stands.
    first_plan: Option<oneshot::Sender<()>>,
    /// When it last turned.
    turned: watch::Sender<Instant>,
    /// When to tell systemd next that it turns.
    tell_alive: Instant,
}

impl Loop {
    pub fn new(
        config: Arc<Config>,
        node: NodeName,
        slices: Slices,
        (memory, had): (Memory, HadFile),
        readings: Readings,
        first_plan: oneshot::Sender<()>,
        turned: watch::Sender<Instant>,
    ) -> Loop {
        let planner = Planner::new(config, node.clone());
        let started = Timestamp::try_from(clock::wall()).unwrap_or_default();
        Loop {
            node,
            started,
            planner,
            slices,
            memory,
            counters: TurnCounters::default(),
            readings,
            keep_at: None,
            kept: None,
            keeping: None,
            first_plan: Some(first_plan),
            turned,
            tell_alive: clock::now(),
        }
            had,
    }

    /// Takes in what was remembered from before. Promises count only where no API server keeps them.
    pub fn recall(&mut self) {
        let standalone = self.planner.config().is_standalone();
        match self.memory.recall() {
            Ok(facts) => {
                let facts = facts.into_iter().filter(|fact| standalone || !matches!(fact, Fact::Assigned(..)));
                facts.for_each(|fact| self.planner.apply(fact));
            }
            Err(error) => {
                warn!(file = %self.memory.path().display(), %error, "the last known state cannot be read; starting without it")
            }
        }
    }

    pub fn remembers_services(&self) -> bool {
        !self.planner.world().services.is_empty()
    }

    /// Runs until every sender of facts is gone; cancel it to stop it.
    pub async fn run(&mut self, facts: &mut mpsc::Receiver<Fact>, queries: &mut mpsc::Receiver<Query>) {
        loop {
            let beat = self.beat();
            let wake = self.planner.next_deadline().into_iter().chain(self.keep_at).fold(beat, Instant::min);
            tokio::select! {
                biased;
                fact = facts.recv() => match fact {
                    Some(fact) => self.take(fact, facts),
                    None => return,
                },
                Some(query) = queries.recv() => self.answer(query),
                () = sleep_until(wake.into()) => {}
            }
            self.turn();
            self.keep_if_due();
        }
    }

    /// Shows that the loop turns, to whoever relies on it; when to show it next.
    fn beat(&mut self) -> Instant {
        let now = clock::now();
        self.turned.send_replace(now);
        if now >= self.tell_alive {
            self.tell_alive = now + BEAT;
            readiness::alive();
        }
        self.tell_alive
    }

    /// Writes the World to disk now, for the farewell.
    pub async fn keep_now(&mut self, how: Stop) {
        match how {
            Stop::Leave(_) => self.had.remove(),
            // The next agent has them, or says why not.
            Stop::Restart => {}
        }
        if let Some(keeping) = self.keeping.take() {
            // It has said itself what went wrong, if anything did.
            let _ = keeping.await;
        }
        if let Err(error) = self.memory.keep(self.planner.world()) {
            warn!(file = %self.memory.path().display(), %error, "the World was not kept");
        }
    }

    fn take(&mut self, first: Fact, facts: &mut mpsc::Receiver<Fact>) {
        let rest = std::iter::from_fn(|| facts.try_recv().ok()).take(BATCH - 1);
        let before = self.planner.world().changes;
        std::iter::once(first).chain(rest).for_each(|fact| self.planner.apply(fact));
        if self.planner.world().changes != before {
            self.keep_soon();
        }
    }

    /// Standalone, what is kept is the allocation itself.
    fn keep_soon(&mut self) {
        let soon = clock::now() + KEEP_AFTER;
        let apart = self.kept.filter(|_| !self.planner.config().is_standalone()).map(|kept| kept + KEEP_APART);
        self.keep_at.get_or_insert(apart.map_or(soon, |apart| apart.max(soon)));
    }

    fn turn(&mut self) {
        let turn = self.planner.turn(clock::now());
        self.slices.publish(self.planner.plan(), turn.moved);
        self.slices.publish_node(self.planner.world().nodes.get(&self.node).map(Arc::as_ref));
        self.counters.count(&turn, &self.node);
        for change in &turn.changes {
            log_change(change, &self.node, &turn.handovers);
        }
        for route in &turn.disputed {
            log_dispute(route, self.planner.plan().disputes.get(route));
        }
        let stands = self.planner.plan().bgp.complete;
        if stands && let Some(first_plan) = self.first_plan.take() {
            info!(services = self.planner.world().services.len(), "first plan made");
            // Nobody may be waiting for it any more; that is fine.
            let _ = first_plan.send(());
        self.had.follow(self.planner.world().sessions.iter());
        }
        if !turn.changes.is_empty() && self.planner.config().is_standalone() {
            self.keep_soon();
        }
    }

    fn keep_if_due(&mut self) {
        let now = clock::now();
        if self.keep_at.is_none_or(|due| due > now) {
            return;
        }
        if self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished()) {
            self.keep_at = Some(now + KEEP_AFTER);
            return;
        }
        self.keep_at = None;
        self.kept = Some(now);
        let (memory, world) = (self.memory.clone(), self.planner.world().clone());
        // The disk may be slow; the loop goes on meanwhile.
        self.keeping = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = memory.keep(&world) {
                warn!(file = %memory.path().display(), %error, "the World was not kept");
            }
        }));
    }

    fn answer(&self, Query(asked): Query) {
        let counters = self.counters.read(&self.readings.counters);
        // Whoever asked may have gone away.
        let snapshot = Snapshot::of(&self.planner, self.started, counters, clock::now(), clock::wall());
        let (reloads, flows) = (self.readings.reloads.borrow().clone(), self.readings.flows.borrow().clone());
        let _ = asked.send(Snapshot { reloads, flows, ..snapshot });
    }
}
