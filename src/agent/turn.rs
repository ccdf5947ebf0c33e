//! The loop in the middle: take every fact at hand, turn once, publish what moved; hand out snapshots, and format
//! nothing. Floor 3.
//!
//! Tasks: the loop is the caller's; it owns the planner, and one blocking task at a time that writes the World to disk.
//! Cancelled, it leaves the slices as they were last published.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{info, warn};

use super::counters::{LinkCounters, TurnCounters};
use super::had_sessions::HadFile;
use super::log_changes::{log_change, log_dispute};
use super::memory::{Memory, Recalled};
use super::readiness;
use super::wiring::{Query, Slices};
use crate::clock;
use crate::config::Config;
use crate::k8s::lease::Terms;
use crate::names::NodeName;
use crate::plan::Planner;
use crate::stop::Stop;
use crate::views::Snapshot;
use crate::views::drain::Flows;
use crate::views::reload::Reloads;
use crate::world::{ApiServer, Area, Fact, HostProblem};

/// At most this many facts go into one turn, so that a flood of them does not hold back what is decided already.
const BATCH: usize = 4096;

/// How long the World may have moved on before it is written to disk again.
const KEEP_AFTER: Duration = Duration::from_secs(2);

/// How long at least from one write to the next, where the API server has it all too: a cluster in which something always changes
/// is not written without end.
const KEEP_APART: Duration = Duration::from_secs(5);

/// So much is written in a second on average, where something always changes: the whole World is written each time, and disks wear
/// out. What a crash may lose by that is lost only if the API server is away too.
const KEPT_EACH_SECOND: u64 = 32 << 10;

/// And at most so long apart.
const KEEP_APART_MOST: Duration = Duration::from_secs(300);

/// What is written to disk at once: an order of people, which nobody but this file has, and, standalone, that a Service left the
/// manifests, for otherwise the next agent would say that its file may be half written.
fn is_kept_at_once(fact: &Fact, standalone: bool) -> bool {
    let is_order = matches!(fact, Fact::Peer(..));
    let is_gone = standalone && matches!(fact, Fact::Service(_, None));
    is_order || is_gone
}

/// How long it is from one write to the next, where the last one took so many octets.
fn apart(octets: u64) -> Duration {
    Duration::from_secs(octets / KEPT_EACH_SECOND).clamp(KEEP_APART, KEEP_APART_MOST)
}

/// How long a write may take before it is told that nothing is kept.
const DISK_HANGS_AFTER: Duration = Duration::from_secs(5);

/// When a write that failed is tried again.
const KEEP_AGAIN: Duration = Duration::from_secs(10);

/// How often the disk is told that nothing has changed: so much older a state may look after a crash.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

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
    had: HadFile,
    counters: TurnCounters,
    readings: Readings,
    /// When the World was last what the API server has.
    as_of: SystemTime,
    /// When that was said to the disk.
    confirmed: Instant,
    /// Of when the last known state was, where it was too old to be used.
    outdated: Option<Timestamp>,
    /// When to keep the World; none while the disk is up to date.
    keep_at: Option<Instant>,
    /// When it was last kept.
    kept: Option<Instant>,
    /// The write to the disk that is under way, or was last: never two at a time.
    keeping: Option<JoinHandle<io::Result<Option<u64>>>>,
    /// How many octets the last one took.
    kept_octets: u64,
    /// Told once, when the first plan stands.
    first_plan: Option<oneshot::Sender<()>>,
    /// What the task of the Lease goes by: it writes there on which file the agents agree.
    terms: Option<watch::Sender<Terms>>,
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
            had,
            counters: TurnCounters::default(),
            readings,
            as_of: clock::wall(),
            confirmed: clock::now(),
            outdated: None,
            keep_at: None,
            kept: None,
            keeping: None,
            kept_octets: 0,
            first_plan: Some(first_plan),
            terms: None,
            turned,
            tell_alive: clock::now(),
        }
    }

    /// Tells the task of the Lease from now on what the agents agree on.
    pub fn tell_agreement(&mut self, terms: watch::Sender<Terms>) {
        self.terms = Some(terms);
    }

    /// Takes in what was remembered from before. Promises count only where no API server keeps them, and objects of the API server
    /// only if they are not too old.
    pub fn recall(&mut self) {
        let (standalone, max_age) = (self.planner.config().is_standalone(), self.planner.config().state.max_age);
        match self.memory.recall() {
            Ok(Recalled { facts, as_of, damaged: _ }) => {
                let age = as_of.and_then(|as_of| clock::wall().duration_since(as_of).ok()).unwrap_or_default();
                let too_old = !standalone && !max_age.is_zero() && age > max_age;
                let is_promise = |fact: &Fact| matches!(fact, Fact::Assigned(..) | Fact::Had(..));
                let counts = |fact: &Fact| {
                    matches!(fact, Fact::Peer(..))
                        || matches!(fact, Fact::Pools(_) | Fact::Leases(_) | Fact::RouterId(_) | Fact::RouterIdOf(..))
                        || !too_old && (standalone || !is_promise(fact))
                };
                self.as_of = as_of.unwrap_or(self.as_of);
                let stamp = Timestamp::try_from(self.as_of).unwrap_or_default();
                if too_old {
                    warn!(as_of = %stamp, age_secs = age.as_secs(), max_age_secs = max_age.as_secs(), "the last known state is too old and is not used: nothing is announced before the API server answers");
                    self.outdated = Some(stamp);
                } else if !facts.is_empty() {
                    info!(as_of = %stamp, facts = facts.len(), "the last known state is recalled");
                }
                facts.into_iter().filter(counts).for_each(|fact| self.planner.apply(fact));
            }
            Err(error) => {
                warn!(file = %self.memory.path().display(), %error, "the last known state cannot be read; starting without it")
            }
        }
    }

    pub fn remembers_services(&self) -> bool {
        !self.planner.world().services.is_empty()
    }

    /// What of that may be of manifests.
    pub fn recalled_manifests(&self) -> Vec<Fact> {
        match self.planner.config().is_standalone() {
            true => self.planner.world().to_remember().collect(),
            false => Vec::new(),
        }
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
            self.note_kept().await;
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
            Stop::Restart { back_by: _ } => {}
        }
        if let Some(keeping) = self.keeping.take() {
            // The World is written once more.
            let _ = keeping.await;
        }
        if let Err(error) = self.memory.keep(self.planner.world(), self.as_of) {
            warn!(file = %self.memory.path().display(), %error, "the World was not kept");
        }
    }

    fn take(&mut self, first: Fact, facts: &mut mpsc::Receiver<Fact>) {
        let rest = std::iter::from_fn(|| facts.try_recv().ok()).take(BATCH - 1);
        let (before, standalone) = (self.planner.world().changes, self.planner.config().is_standalone());
        let mut at_once = false;
        std::iter::once(first).chain(rest).for_each(|fact| {
            at_once |= is_kept_at_once(&fact, standalone);
            self.planner.apply(fact);
        });
        if self.planner.world().changes != before {
            self.keep_soon();
            if at_once {
                self.keep_at = Some(clock::now());
            }
        }
        let world = self.planner.world();
        self.had.follow(world.sessions.iter(), &world.bfd);
    }

    /// Standalone, what is kept is the allocation itself.
    fn keep_soon(&mut self) {
        let soon = clock::now() + KEEP_AFTER;
        let apart =
            self.kept.filter(|_| !self.planner.config().is_standalone()).map(|kept| kept + apart(self.kept_octets));
        self.keep_at.get_or_insert(apart.map_or(soon, |apart| apart.max(soon)));
    }

    fn turn(&mut self) {
        let turn = self.planner.turn(clock::now());
        self.slices.publish(self.planner.plan(), turn.moved);
        self.slices.publish_node(self.planner.config(), self.planner.world(), &self.node);
        if let Some(terms) = &self.terms {
            let agreed = self.planner.agreed();
            // The next renewal is early enough.
            terms.send_if_modified(|terms| {
                terms.agreed = agreed;
                false
            });
        }
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
        }
        if !turn.changes.is_empty() && self.planner.config().is_standalone() {
            self.keep_soon();
        }
    }

    fn keep_if_due(&mut self) {
        let now = clock::now();
        let world = self.planner.world();
        let is_known = match world.api_server {
            ApiServer::Reachable => world.listed.all(),
            ApiServer::Manifests => true,
            ApiServer::Connecting | ApiServer::Unreachable { .. } => false,
        };
        if is_known {
            self.as_of = clock::wall();
        }
        if self.keep_at.is_none_or(|due| due > now) {
            // What changed since the last write is not in the file.
            if is_known && self.keep_at.is_none() && now >= self.confirmed + CONFIRM_EVERY {
                self.confirm(now);
            }
            return;
        }
        if self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished()) {
            self.keep_at = Some(now + KEEP_AFTER);
            if now.saturating_duration_since(self.confirmed) >= DISK_HANGS_AFTER {
                self.tell_kept(Some("the disk does not answer".to_owned()));
            }
            return;
        }
        self.keep_at = None;
        (self.kept, self.confirmed) = (Some(now), now);
        let (memory, world, as_of) = (self.memory.clone(), self.planner.world().clone(), self.as_of);
        // The disk may be slow; the loop goes on meanwhile.
        self.keeping = Some(tokio::task::spawn_blocking(move || memory.keep(&world, as_of).map(Some)));
    }

    /// What became of the write to the disk, once it is done. One that failed is tried again.
    async fn note_kept(&mut self) {
        if !self.keeping.as_ref().is_some_and(JoinHandle::is_finished) {
            return;
        }
        let Some(keeping) = self.keeping.take() else { return };
        let outcome = keeping.await.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        if let Ok(Some(octets)) = outcome {
            self.kept_octets = octets;
        }
        let why = outcome.err().map(|error| error.to_string());
        if why.is_some() {
            self.keep_at.get_or_insert(clock::now() + KEEP_AGAIN);
        }
        self.tell_kept(why);
    }

    /// Why the World is not kept, where it is not.
    fn tell_kept(&mut self, why: Option<String>) {
        let file = self.memory.path().display();
        let problem = why.map(|why| HostProblem {
            problem: format!("the last known state is not kept in {file}: {why}"),
            remedy: "without it a restart begins with nothing while the API server is away, and without a cluster addresses are given \
                     anew: make room on the disk, and let crier write there ([state] folder)"
                .to_owned(),
        });
        if self.planner.world().problems_of(Area::State) != problem.as_slice() {
            match &problem {
                Some(problem) => warn!(%problem, "the World was not kept"),
                None => info!(%file, "the World is kept again"),
            }
            self.planner.apply(Fact::Problems(Area::State, problem.into_iter().collect()));
        }
    }

    /// Nothing has changed, and that too is worth knowing after a crash.
    fn confirm(&mut self, now: Instant) {
        self.confirmed = now;
        if self.keeping.as_ref().is_none_or(JoinHandle::is_finished) {
            let (memory, as_of) = (self.memory.clone(), self.as_of);
            self.keeping = Some(tokio::task::spawn_blocking(move || memory.confirm(as_of).map(|()| None)));
        }
    }

    fn answer(&self, Query(asked): Query) {
        let counters = self.counters.read(&self.readings.counters);
        // Whoever asked may have gone away.
        let snapshot = Snapshot::of(&self.planner, self.started, counters, clock::now(), clock::wall());
        let (reloads, flows) = (self.readings.reloads.borrow().clone(), self.readings.flows.borrow().clone());
        let _ = asked.send(Snapshot { reloads, flows, outdated: self.outdated, ..snapshot });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::names::ObjectKey;
    use crate::world::{Condition, EndpointSlice, Listing, Service};

    /// Input: an endpoint comes or goes every two seconds, by a clock that stands still while the disk is busy. Output: of
    /// all that is written to the disk so much as the pace allows, and no less than it promises. `CRIER_DAY=10000/24` counts 24 hours with
    /// so many Services, which takes minutes.
    #[tokio::test(start_paused = true)]
    async fn churn_writes_the_world_as_often_as_the_pace_allows() {
        let told = std::env::var("CRIER_DAY").ok();
        let told = told.as_deref().and_then(|told| told.split_once('/'));
        let number = |text: &str| text.parse().expect("a number");
        let (count, lasts) =
            told.map_or((250_u32, 1200), |(count, hours)| (number(count), u64::from(number(hours)) * 3600));
        let lasts = Duration::from_secs(lasts);
        let text =
            "[kubernetes]\nin-cluster = true\n[[pool]]\nname = \"public\"\naddresses = [\"198.18.0.0/15\"]\n[[l2]]\n";
        let file = SourceFile { path: "crier.toml".to_owned(), text: text.to_owned() };
        let config = Arc::new(parse(&[file], &NoSecrets).expect("it is good"));
        let folder = tempfile::tempdir().expect("a folder");
        let memory = Memory::open(folder.path(), "boot").expect("it is ours");
        let (path, had) = (memory.path().to_owned(), HadFile::of(folder.path(), "boot"));
        let readings = Readings {
            counters: LinkCounters::default(),
            reloads: watch::channel(Reloads::default()).1,
            flows: watch::channel(Flows::default()).1,
        };
        let (slices, first_plan) = (Slices::default(), oneshot::channel().0);
        let turned = watch::channel(clock::now()).0;
        let mut turning = Loop::new(config, "node-1".into(), slices, (memory, had), readings, first_plan, turned);
        let (facts, mut inbox) = mpsc::channel(64);
        let (_asking, mut queries) = mpsc::channel(1);
        let key = |number: u32| ObjectKey::new("shop", &format!("many-{number}"));
        let slice = |number: u32, serving: u32| {
            let on = |node: &str| (NodeName::from(node), serving);
            let nodes: std::collections::BTreeMap<NodeName, u32> = [on("node-1"), on("node-2"), on("node-3")].into();
            let slice = EndpointSlice {
                service: key(number),
                family: None,
                ready: nodes.clone().into(),
                serving: nodes.into(),
                serving_without_node: 0,
                unready: Default::default(),
                addresses: Default::default(),
            };
            Fact::EndpointSlice(ObjectKey::new("shop", &format!("many-{number}-x7k2p")), Some(Arc::new(slice)))
        };
        let service = |number: u32| {
            let address = std::net::IpAddr::V4((u32::from(std::net::Ipv4Addr::new(198, 18, 0, 0)) + number).into());
            let condition = Condition::given(true, "assigned", &[address], &["public".into()], None);
            let service = Service {
                uid: format!("0b1f6a52-7d53-4c1e-9d0e-{number:012}"),
                resource_version: format!("{}", 1000 + number),
                load_balancer: true,
                families: vec![crate::address::Family::V4],
                ingress: vec![address],
                condition: Some(Arc::new(condition)),
                ..Service::default()
            };
            Fact::Service(key(number), Some(Arc::new(service)))
        };
        let listed = [
            Listing::Services((0..count).map(key).collect()),
            Listing::EndpointSlices((0..count).map(|it| ObjectKey::new("shop", &format!("many-{it}-x7k2p"))).collect()),
            Listing::Nodes(Default::default()),
            Listing::Namespaces(Default::default()),
        ];
        let churn = async {
            for number in 0..count {
                facts.send(service(number)).await.expect("it runs");
                facts.send(slice(number, 1)).await.expect("it runs");
            }
            for fact in [Fact::LinksListed, Fact::ApiServer(ApiServer::Reachable)] {
                facts.send(fact).await.expect("it runs");
            }
            for listing in listed {
                facts.send(Fact::Listed(listing)).await.expect("it runs");
            }
            let (began, mut last, mut writes, mut octets) = (clock::now(), 0, 0_u64, 0_u64);
            let mut number = 0;
            while clock::now() < began + lasts {
                facts.send(slice(number % count, 2 + number / count)).await.expect("it runs");
                number += 1;
                tokio::time::sleep(Duration::from_secs(2)).await;
                // Each write is a new file.
                let Ok(written) = std::fs::metadata(&path) else { continue };
                if written.ino() != last {
                    (last, writes, octets) = (written.ino(), writes + 1, octets + written.len());
                }
            }
            (writes, octets)
        };
        let (writes, octets) = tokio::select! {
            () = turning.run(&mut inbox, &mut queries) => panic!("somebody still tells facts"),
            counted = churn => counted,
        };
        let size = octets / writes.max(1);
        println!(
            "{count} Services, {lasts:?}: {writes} writes of {size} octets, {octets} in all, every {:?}",
            apart(size)
        );
        let expected = lasts.as_secs() / apart(size).as_secs();
        assert!(writes <= expected + 2, "{writes} writes, {expected} are allowed");
        assert!(writes >= expected / 2, "{writes} writes, {expected} are expected: a crash loses more than is said");
        assert!(
            octets
                <= (lasts.as_secs() + 2 * KEEP_APART_MOST.as_secs())
                    * KEPT_EACH_SECOND.max(size / apart(size).as_secs() + 1)
        );
    }

    #[test]
    fn a_cluster_in_which_something_always_changes_wears_no_disk_out() {
        for mebibytes in [0_u64, 1, 8, 64] {
            let apart = apart(mebibytes << 20);
            let writes_a_day = Duration::from_secs(86_400).as_secs() / apart.as_secs();
            let gibibytes_a_day = (writes_a_day * mebibytes) >> 10;
            assert!(gibibytes_a_day <= 18, "{mebibytes} MiB every {apart:?}: {gibibytes_a_day} GiB a day");
            assert!(apart >= KEEP_APART && apart <= KEEP_APART_MOST, "a crash loses minutes at most: {apart:?}");
        }
        assert_eq!(apart(100 << 10), KEEP_APART, "what is small is written as it changes");
    }
}
