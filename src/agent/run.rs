//! One agent from start to farewell. Floor 3.
//!
//! Tasks, all owned by [`run`]. What each does when the agent stops stands in `farewell`:
//! - the sources: `k8s::watch` and `k8s::lease`, or `manifests`; `kernel::observe`; `kernel::bypass`; `data_path::task`; and where peers are
//!   to be found, `kernel::routes` and `discovery::task`. Cancelled, they lose nothing: the next start lists again.
//! - the pulse, source and actuator.
//! - the actuators: `bgp::task`, `bfd::task`, `arp::task`, `kernel::addresses`, `kernel::blackholes`, `kernel::sysctl`,
//!   `egress::task`, `kernel::steering`, `kernel::returns`,
//!   `kernel::vrfs` and `k8s::status`. A
//!   status write that is cancelled is made again by whoever allocates next.
//! - the keepers of ledgers: `kept_sessions::entrust` and `entrust_paths`. Cancelled, they take out of systemd's store what they put there.
//! - who ends sessions of the previous agent: `kept_sessions::end`. Cancelled, their sockets are closed.
//! - the taker of orders: `orders` with the `reload`er. Cancelled, it leaves things as the last order left them.
//! - the drainer: `drain`. Cancelled, it goes on with the next start.
//! - the listener to shutdowns of the host: `shutdown`. Cancelled, it ends its programs, and holds none up.
//! - the patience task: says when nothing more will be waited for.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::cluster_config;
use super::counters::LinkCounters;
use super::drain::{self, Drainer};
use super::egress_names;
use super::farewell::{self, Stopping};
use super::fd_store;
use super::had_sessions::HadFile;
use super::incarnation;
use super::intent;
use super::kept_addresses::{self, Kept, KeptFile};
use super::kept_sessions;
use super::logging::LogControl;
use super::memory::{InUse, Memory};
use super::order::Order;
use super::orders;
use super::readiness;
use super::reload::{self, Followers, Reloader, Wanted};
use super::shutdown::{self, Programs, Watcher};
use super::turn::{Loop, Readings};
use super::unconfirmed::Unconfirmed;
use super::wiring::{self, Query, Slices};
use crate::bfd::kept::KeptPath;
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::socket::ledger::Safe;
use crate::bgp::task::Past;
use crate::config::{Config, Kubernetes, Manifests, NewPods, Source, SourceFile};
use crate::in_session::InSession;
use crate::k8s::annotate::Annotation;
use crate::k8s::lease::Terms;
use crate::names::NodeName;
use crate::plan::slice::BfdSlice;
use crate::pulse::task::Voice;
use crate::stop::{Cause, Stop};
use crate::views::drain::Flows;
use crate::views::reload::Reloads;
use crate::world::{BfdSessions, Fact};
use crate::{arp, bfd, bgp, clock, data_path, discovery, egress, k8s, kernel, manifests, plan, pulse};

/// How long to wait for the first lists if there is a last known state to use.
const PATIENCE_WITH_MEMORY: Duration = Duration::from_secs(2);

/// And when there is none: then there is nothing to announce either way, but systemd wants to hear something.
const PATIENCE_WITHOUT_MEMORY: Duration = Duration::from_secs(20);

/// How long the farewell may take in all: the routers hear it within milliseconds, or not at all.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long the farewell waits for the plan that tells the links of it.
const LINKS_TOLD: Duration = Duration::from_millis(100);

/// How long the last part of the farewell may take, where somebody waits for all others.
const LAST_FAREWELL: Duration = Duration::from_millis(500);

/// The agent could not start, or something it cannot be without came to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot find out the host name for [node] name = \"auto\": {0}; give a name with --node")]
    HostName(std::io::Error),
    #[error("cannot use the state folder {}: {source}", .folder.display())]
    State { folder: std::path::PathBuf, source: std::io::Error },
    #[error("another agent runs with the state folder {}: stop it, or give each agent its own ([state] folder)", .0.display())]
    StateInUse(std::path::PathBuf),
    #[error("cannot talk to the API server: {0}")]
    Kubernetes(#[from] k8s::client::ClientError),
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
    #[error("{0} ended by itself; that is a bug in crier")]
    Ended(&'static str),
}

/// What an agent starts with.
pub struct Start {
    /// The main file of the configuration.
    pub main: PathBuf,
    /// What the files said of which `config` was made.
    pub files: Vec<SourceFile>,
    pub config: Config,
    /// What waits to be confirmed since before.
    pub unconfirmed: Result<Option<Unconfirmed>, String>,
    /// Wins over the name in the configuration.
    pub node: Option<NodeName>,
    /// To follow the configuration; `None` where the command line says what is logged.
    pub log: Option<LogControl>,
    /// Questions, with the end that asks them: the agent asks itself too.
    pub queries: (mpsc::Sender<Query>, mpsc::Receiver<Query>),
    /// Orders, with the end that gives them: a new text of the ConfigMap is one too.
    pub orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    pub annotations: mpsc::Receiver<Annotation>,
    /// `None` without a ConfigMap.
    pub cluster: Option<cluster_config::Start>,
}

/// Runs the agent until SIGTERM or SIGINT, and then leaves cleanly.
pub async fn run(start: Start) -> Result<(), Error> {
    let mut stored = fd_store::take();
    let Start { main, files, config, unconfirmed, node, log, queries: (ask, queries), orders, annotations, cluster } =
        start;
    let (order, orders) = orders;
    let texts = cluster.as_ref().map(|cluster| cluster.texts.clone()).unwrap_or_default();
    let node = match node.or_else(|| config.node.name.clone()) {
        Some(node) => node,
        None => host_name().map_err(Error::HostName)?,
    };
    let folder = &config.state.folder;
    let boot = data_path::task::boot_id();
    let memory = Memory::open(folder, &boot).map_err(|source| Error::State { folder: folder.clone(), source })?;
    let _lock = memory.lock().map_err(|InUse| Error::StateInUse(folder.clone()))?;
    info!(%node, version = env!("CARGO_PKG_VERSION"), "starting");
    reload::warn_about(&config);
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let listeners = open_bgp(&config);

    let (facts, incoming) = wiring::facts();
    let slices = Slices::default();
    let (stop, last, stopping) = farewell::channel();
    let mut tasks = Tasks::default();
    let channels = Channels { slices: &slices, facts: &facts, stopping: &stopping };
    let (turned, turns_seen) = watch::channel(clock::now());
    let kept_file = KeptFile::of(folder, &boot);
    let held_before = kept_file.take();
    let mut counters = LinkCounters::default();
    let (voice, pulse) = pulse_setup(&config, &node, turns_seen, held_before.as_ref(), counters.arp.clone());
    // First of all, so that the first plan knows it: there is room for it in the empty queue.
    let _ = facts.send(Fact::Pulses(reload::pulses(&config))).await;
    let _ = facts.send(Fact::NetworkNumbers(kernel::returns::numbers(&config.egress).await)).await;
    // The router id, which is chosen once, and the ways of outbound connections of pods go by them from the first plan on.
    if let Some(routes) = kernel::routes::at_start().await {
        let _ = facts.send(routes).await;
    }
    let programs = kept_addresses::take_programs(&mut stored);
    tasks.finite.spawn(kept_addresses::relieve(programs, held_before.clone(), slices.pulse.subscribe()));
    if let (Some(kept), Some(setup)) = (&held_before, &pulse) {
        info!(
            addresses = kept.addresses.len(),
            "this node goes on with the addresses on the link that no other node has"
        );
        // As above.
        let _ = facts.send(Fact::Kept(kept.addresses.clone())).await;
        let until = kept_addresses::goes_on_until(kept, setup.settings.detection());
        tasks.finite.spawn(kept_addresses::end(until, facts.clone()));
    }
    // Without pulses, nothing is kept.
    let returned = kept_addresses::returned(held_before.clone().filter(|_| pulse.is_some()), slices.pulse.subscribe());
    let drained = drain::recall(folder, &boot);
    if let Some(drain) = &drained {
        warn!(stage = drain.stage.code(), "this node is drained: `crier undrain` returns it to service");
        let _ = facts.send(Fact::Drain(Some(Arc::new(drain.clone())))).await;
    }
    let path = data_path::task::setup(&config.node.data_path, config.is_standalone(), &boot, folder);
    // As above: until the path is seen good, nothing is announced.
    let _ = facts.send(path.fact()).await;
    tasks.endless.spawn(named(
        "the watcher of the data path",
        data_path::task::run(path, slices.node.subscribe(), facts.clone()),
    ));
    let had = HadFile::of(folder, &boot);
    let taken = kept_sessions::take(stored, &had.recall(), &config);
    for standing in taken.standing() {
        // As above: there are fewer than systemd keeps descriptors.
        let _ = facts.send(standing).await;
    }
    let kept_sessions::Taken { resumable, former, paths, ends } = taken;
    tasks.finite.spawn(kept_sessions::end(ends));
    slices.bfd.send_replace(kept_sessions::watched(&paths, &config));
    let safe = fd_store::is_there().then(|| tasks.entrust());
    let ledger = tasks.entrust_paths(slices.bfd.subscribe());
    let past = Past { resumable, restart: memory.past(), former, safe, in_session: InSession::default() };
    let ((keeper, kept), (path_keeper, kept_paths)) = (oneshot::channel(), oneshot::channel());
    let bgp = Bgp { listeners, past, keeper, paths: (paths, ledger), path_keeper };
    let (program_keeper, kept_programs) = oneshot::channel();
    tasks.actuators((&config, &boot), channels, bgp, pulse, &counters, program_keeper);
    let (said, spoken) = (slices.pulse.subscribe(), voice.subscribe());
    let (wanted, finding) = watch::channel(Wanted::of(&config));
    tasks.finders(finding.clone(), channels);
    let (terms, terms_seen) = watch::channel(reload::terms(&config));
    let agreement = terms.clone();
    let config_map = cluster.map(|cluster| (cluster, order));
    let of_cluster = OfCluster { terms: terms_seen, annotations, config_map };
    let (tell_recalled, recalled) = oneshot::channel();
    counters.api_requests = tasks.sources(&config, &node, of_cluster, recalled, channels).await?;

    let config = Arc::new(config);
    let (report, reports) = watch::channel(Reloads::default());
    let (is_ready, ready) = watch::channel(false);
    let (flows, flows_seen) = watch::channel(Flows::default());
    let (drains, commands) = wiring::drains();
    let (state, asking) = (config.state.folder.clone(), ask.clone());
    let says = slices.leaving.subscribe();
    let (far_enough, held_up) = watch::channel(false);
    let drainer = Drainer::new(state, drained, facts.clone(), asking, flows, says, (boot, far_enough));
    tasks.endless.spawn(named("the drainer", drain::run(drainer, commands)));
    let watcher = Watcher::new(Programs::default(), facts.clone(), held_up);
    tasks.endless.spawn(named("the listener to shutdowns", shutdown::run(watcher, finding)));
    let followers = Followers { facts: facts.clone(), queries: ask, voice, terms, wanted, log, report, ready };
    let reloader = Reloader::new(main, (files, texts), config.clone(), unconfirmed, followers);
    tasks.endless.spawn(named("the taker of orders", orders::run(reloader, hangup, orders, drains)));
    let (first_plan, plan_stands) = oneshot::channel();
    let readings = Readings { counters, reloads: reports, flows: flows_seen };
    let mut links = slices.l2.subscribe();
    let mut turning = Loop::new(config, node, slices, (memory, had), readings, first_plan, turned);
    turning.tell_agreement(agreement);
    turning.recall();
    // Nobody but the reader of manifests asks for it.
    let _ = tell_recalled.send(turning.recalled_manifests());
    let patience = if turning.remembers_services() { PATIENCE_WITH_MEMORY } else { PATIENCE_WITHOUT_MEMORY };
    let leaving = facts.clone();
    tasks.finite.spawn(lose_patience(facts, patience));
    tasks.finite.spawn(async move {
        if plan_stands.await.is_ok() {
            // Whoever restarts it next finds nothing under way: the other nodes wait for the whole time again.
            returned.await;
            readiness::ready("announcing");
            is_ready.send_replace(true);
            info!("ready");
        }
    });

    let mut incoming = incoming;
    let mut queries = queries;
    let (cause, how) = {
        let turns = turning.run(&mut incoming, &mut queries);
        tokio::pin!(turns);
        let cause = tokio::select! {
            () = &mut turns => Cause::TaskEnded("the planner"),
            name = tasks.one_ended() => Cause::TaskEnded(name),
            _ = terminate.recv() => Cause::Signal("SIGTERM"),
            _ = interrupt.recv() => Cause::Signal("SIGINT"),
        };
        let grace = spoken.borrow().restart_grace;
        let keeps = |now| kept_addresses::keeps(&said.borrow(), grace, held_before.as_ref(), now);
        let how = how_to_stop(cause, &kept_file, keeps).await;
        readiness::stopping();
        match how {
            Stop::Leave(cause) => info!(%cause, "leaving: withdrawing what is announced"),
            Stop::Restart { back_by: None } => {
                info!("restarting: BGP sessions are kept for the next agent; addresses on the link are handed over");
            }
            Stop::Restart { back_by: Some(_) } => {
                info!("restarting: BGP sessions and addresses on the link are kept for the next agent");
            }
        }
        let leave = async {
            // The planner first: it is not to defend what the other nodes take over. It fails only if the planner is gone.
            let _ = leaving.send(Fact::Leaving).await;
            // Then the links, for the same reason: an announcement that was due would take the neighbours back.
            let _ = timeout(LINKS_TOLD, links.wait_for(|slice| slice.leaving)).await;
            // Nobody is left to hear it only if every task is gone already.
            let _ = stop.send(Some(how));
            tasks.leave(last).await;
        };
        // The planner turns on meanwhile, so that nobody waits for a place in its queue.
        tokio::select! {
            () = leave => {}
            () = &mut turns => {}
        }
        (cause, how)
    };
    turning.keep_now(how).await;
    // An error: this is no restart, or other nodes have the addresses.
    kept_addresses::put(&kept_programs.await.unwrap_or_default());
    // An error: this is no restart, or the speaker is gone.
    if let Ok(sessions) = kept.await {
        // An error: there is no BFD.
        kept_sessions::put(sessions, &kept_paths.await.unwrap_or_default()).await;
    }
    match cause {
        Cause::Signal(_) => {
            info!("left");
            Ok(())
        }
        Cause::TaskEnded(name) => Err(Error::Ended(name)),
    }
}

/// Only a signal of systemd can be a restart, and only where the sessions have a place to be meanwhile.
/// `keeps`: the addresses on the link that the next agent is to have. They are written down before any other node hears of that.
async fn how_to_stop(cause: Cause, file: &KeptFile, keeps: impl FnOnce(Instant) -> Option<Kept>) -> Stop {
    match cause {
        Cause::Signal("SIGTERM") if fd_store::is_there() && intent::is_restart().await => {}
        Cause::Signal(_) | Cause::TaskEnded(_) => return Stop::Leave(cause),
    }
    let Some(kept) = keeps(clock::now()) else { return Stop::Restart { back_by: None } };
    match file.write(&kept) {
        Ok(()) => Stop::Restart { back_by: Some(kept.back_by) },
        Err(error) => {
            warn!(%error, "the addresses on the link cannot be written down for the next agent, and are handed over");
            Stop::Restart { back_by: None }
        }
    }
}

/// What the BGP speaker is given, and BFD with it.
struct Bgp {
    listeners: bgp::socket::listeners::Listeners,
    /// The sessions of the previous agent, and what peers are told of it.
    past: Past,
    /// Takes the sessions for the next agent.
    keeper: oneshot::Sender<Vec<KeptConnection>>,
    /// The same for BFD, and where its sessions are noted in case the agent dies.
    paths: (Vec<KeptPath>, Option<bfd::ledger::Ledger>),
    path_keeper: oneshot::Sender<Vec<KeptPath>>,
}

/// What the tasks that speak to the API server are given.
struct OfCluster {
    terms: watch::Receiver<Terms>,
    annotations: mpsc::Receiver<Annotation>,
    /// `None` without a ConfigMap.
    config_map: Option<(cluster_config::Start, mpsc::Sender<Order>)>,
}

/// What every task is connected to.
#[derive(Clone, Copy)]
struct Channels<'a> {
    slices: &'a Slices,
    facts: &'a mpsc::Sender<Fact>,
    stopping: &'a Stopping,
}

/// The tasks of the agent. Each returns its name when it ends.
#[derive(Default)]
struct Tasks {
    /// These are told when the agent stops. Each does what `farewell` says, and ends.
    farewell: JoinSet<&'static str>,
    /// These never end by themselves, and can be cancelled at any time.
    endless: JoinSet<&'static str>,
    /// These end when their work is done.
    finite: JoinSet<()>,
}

impl Tasks {
    fn actuators(
        &mut self,
        (config, boot): (&Config, &str),
        Channels { slices, facts, stopping }: Channels<'_>,
        Bgp { listeners, past, keeper, paths: kept_paths, path_keeper }: Bgp,
        pulse: Option<pulse::task::Setup>,
        counters: &LinkCounters,
        program_keeper: oneshot::Sender<Vec<OwnedFd>>,
    ) {
        let (paths, _) = watch::channel(BfdSessions::new());
        let (routes, counted) = (slices.bgp.subscribe(), counters.bfd.clone());
        let (seen, parting) = (paths.subscribe(), stopping.clone().bgp(keeper));
        let paths = (paths, past.in_session.clone());
        let speaker = bgp::task::run(routes, facts.clone(), listeners, seen, past, parting);
        let (left, has_left) = oneshot::channel();
        self.farewell.spawn(named("the BGP speaker", async move {
            speaker.await;
            // BFD may have ended.
            let _ = left.send(());
        }));
        let parting = stopping.clone().bfd(path_keeper, has_left);
        let watching = bfd::task::run(slices.bfd.subscribe(), facts.clone(), counted, paths, kept_paths, parting);
        self.farewell.spawn(named("BFD", watching));
        let handed_over = pulse.is_some();
        let life = arp::offload::life(pulse.as_ref().map(|setup| setup.settings.detection()));
        if let Some(setup) = pulse {
            let stop = stopping.clone().pulse();
            let pulsing =
                pulse::task::run(slices.pulse.subscribe(), facts.clone(), setup, counters.pulse.clone(), stop);
            self.farewell.spawn(named("the pulse", pulsing));
        }
        let (states, _) = watch::channel(arp::state::LinkStates::default());
        let stop = stopping.clone().responder(handed_over, program_keeper);
        let (l2, offload) = (slices.l2.subscribe(), config.host.arp_offload.then_some(life));
        let responder = arp::task::run(l2, facts.clone(), counters.arp.clone(), states, offload, stop);
        self.farewell.spawn(named("the responder on the link", responder));
        let stop = stopping.clone().bound_addresses(handed_over, slices.bgp.subscribe(), slices.l2.subscribe());
        let bound = kernel::addresses::run(slices.bind.subscribe(), config.number_on_host(), facts.clone(), stop);
        self.farewell.spawn(named("the keeper of bound addresses", bound));
        let stop = stopping.clone().blackholes();
        let (bgp, vrfs) = (slices.bgp.subscribe(), slices.vrfs.subscribe());
        let blackholes = kernel::blackholes::run(bgp, vrfs, config.number_on_host(), facts.clone(), stop);
        self.farewell.spawn(named("the keeper of blackhole routes", blackholes));
        let (egress, tables) = (slices.egress.subscribe(), counters.egress.clone());
        let folder = config.state.folder.clone();
        let former = egress_names::former(&folder, &config.egress);
        let (gone, is_gone) = oneshot::channel();
        let names = egress_names::take_over(folder, config.egress.clone(), former.clone(), is_gone);
        self.finite.spawn(names);
        let former = former.map(|settings| egress::task::Former { settings, gone });
        let kept = egress::kept::HeldFile::of(&config.state.folder, boot);
        let past = egress::task::Past { former, kept };
        let (filtered, is_filtered) = watch::channel(false);
        let holding = egress::task::run(egress, config.egress.clone(), facts.clone(), tables, filtered, past);
        // Neither undoes anything when the agent stops: what it held stays held.
        self.endless.spawn(named("the keeper of egress", holding));
        let (egress, settings) = (slices.egress.subscribe(), config.egress.clone());
        let steering = kernel::steering::run(egress, settings, is_filtered, facts.clone());
        self.endless.spawn(named("the keeper of routes to owners", steering));
        let returns = kernel::returns::run(slices.egress.subscribe(), config.egress.clone(), facts.clone());
        self.endless.spawn(named("the keeper of routes for replies", returns));
        let bypass = kernel::bypass::run(slices.egress.subscribe(), facts.clone());
        self.endless.spawn(named("the observer of netfilter bypasses", bypass));
        let manage = config.host.manage_sysctls;
        let crossing = kernel::reverse_path::run(slices.egress.subscribe(), manage, facts.clone());
        self.endless.spawn(named("the observer of the reverse path filter", crossing));
        let vrfs = kernel::vrfs::run(slices.vrfs.subscribe(), config.state.folder.clone(), facts.clone());
        self.endless.spawn(named("the keeper of VRFs", vrfs));
        let keeping = kernel::sysctl::run(slices.l2.subscribe(), manage, facts.clone());
        self.endless.spawn(named("the keeper of sysctls", keeping));
        self.endless.spawn(named("the observer of links", kernel::observe::run(facts.clone())));
    }

    /// Starts who keeps sessions over a crash of this agent.
    fn entrust(&mut self) -> Safe {
        let (safe, entrusted) = Safe::new();
        self.endless.spawn(named("the keeper of ledgers", kept_sessions::entrust(entrusted)));
        safe
    }

    /// The same for BFD: where it notes its sessions, if there is a store.
    fn entrust_paths(&mut self, slices: watch::Receiver<BfdSlice>) -> Option<bfd::ledger::Ledger> {
        if !fd_store::is_there() {
            return None;
        }
        match bfd::ledger::Ledger::begin() {
            Ok((ledger, memory)) => {
                self.endless.spawn(named("the keeper of BFD's ledger", kept_sessions::entrust_paths(memory, slices)));
                Some(ledger)
            }
            Err(error) => {
                warn!(%error, "there is no memory for the ledger of BFD: a crash of the agent would end its sessions");
                None
            }
        }
    }

    /// The sources that tell where peers and networks are. The first begins when the configuration first has a peer to be found
    /// by it; default routes also say which networks there are for replies and egress.
    fn finders(&mut self, wanted: watch::Receiver<Wanted>, Channels { slices, facts, stopping: _ }: Channels<'_>) {
        let discovering = discovery::task::run(slices.bgp.subscribe(), facts.clone());
        let discovering = once_wanted(wanted, |wanted| wanted.routers, discovering);
        self.endless.spawn(named("router discovery", discovering));
        self.endless.spawn(named("the observer of routes", kernel::routes::run(facts.clone())));
    }

    /// Starts what tells facts of the cluster. The answer counts the requests to the API server.
    async fn sources(
        &mut self,
        config: &Config,
        node: &NodeName,
        OfCluster { terms, annotations, config_map }: OfCluster,
        recalled: oneshot::Receiver<Vec<Fact>>,
        Channels { slices, facts, stopping }: Channels<'_>,
    ) -> Result<Arc<AtomicU64>, Error> {
        match &config.source {
            Source::Kubernetes(Kubernetes { access, servers, lease, classes: _, default_class: _, config: _ }) => {
                let (client, renewal) = k8s::client::build_for(access, servers).await?;
                let requests = renewal.requests();
                self.endless.spawn(named("the keeper of credentials", renewal.run(facts.clone())));
                let barrier = k8s::barrier::Barrier::new(&["services", "namespaces"]);
                let pods_of = (config.egress.new_pods == NewPods::Hold).then(|| node.clone());
                let watching = k8s::watch::run(client.clone(), facts.clone(), barrier.clone(), pods_of);
                self.endless.spawn(named("the watch", watching));
                let identity = k8s::lease::identity(node);
                let candidacy = k8s::lease::Candidacy { lease: lease.clone(), identity, terms };
                let stopping = stopping.clone().receiver();
                let holding = k8s::lease::run(client.clone(), candidacy, barrier, facts.clone(), stopping);
                self.farewell.spawn(named("the Lease", holding));
                if let Some((start, order)) = config_map {
                    let following = cluster_config::follow(client.clone(), start, order, facts.clone());
                    self.endless.spawn(named("the watch of the ConfigMap", following));
                }
                let obeying = k8s::annotate::run(client.clone(), annotations);
                self.endless.spawn(named("the writer of annotations", obeying));
                let marking = k8s::node_mark::run(client.clone(), node.clone(), slices.mark.subscribe(), facts.clone());
                self.endless.spawn(named("the writer of the Node's annotation", marking));
                let writing = k8s::status::run(client, node.clone(), slices.status.subscribe(), facts.clone());
                self.endless.spawn(named("the status writer", writing));
                Ok(requests)
            }
            Source::Manifests(Manifests { folder }) => {
                let reading = manifests::folder::run(folder.clone(), recalled, facts.clone());
                self.endless.spawn(named("the reader of manifests", reading));
                Ok(Arc::default())
            }
        }
    }

    /// Waits until a task ends that should not.
    async fn one_ended(&mut self) -> &'static str {
        let ended = tokio::select! {
            Some(ended) = self.farewell.join_next() => ended,
            Some(ended) = self.endless.join_next() => ended,
        };
        // One that panicked has printed why.
        ended.unwrap_or("a task")
    }

    /// Waits for those that have something to do before they go, and cancels the others. `last`: who waits for all others ends then.
    async fn leave(&mut self, last: watch::Sender<bool>) {
        self.finite.shutdown().await;
        let others = async { while self.farewell.len() > 1 && self.farewell.join_next().await.is_some() {} };
        let until = clock::now() + FAREWELL;
        // Said below where somebody is late.
        let _ = timeout_at(until.into(), others).await;
        last.send_replace(true);
        let the_last = async { while self.farewell.join_next().await.is_some() {} };
        let until = until.max(clock::now() + LAST_FAREWELL);
        if timeout_at(until.into(), the_last).await.is_err() {
            warn!(waited_secs = FAREWELL.as_secs(), "stopped before all tasks had finished");
        }
        self.farewell.shutdown().await;
        self.endless.shutdown().await;
    }
}

/// Where the keys of the pulse are told, and what the pulse is to work with; nothing where there is no key.
fn pulse_setup(
    config: &Config,
    node: &NodeName,
    turned: watch::Receiver<Instant>,
    kept: Option<&Kept>,
    arp: Arc<crate::by_link::ByLink<arp::counters::ByProtocol>>,
) -> (watch::Sender<Voice>, Option<pulse::task::Setup>) {
    let nobody = || Voice { keys: pulse::packet::Key::none().into(), peers: Vec::new(), restart_grace: Duration::ZERO };
    let spoken = reload::voice(config);
    let is_absent = spoken.is_none();
    let (speaking, voice) = watch::channel(spoken.unwrap_or_else(nobody));
    if is_absent {
        return (speaking, None);
    }
    let folder = &config.state.folder;
    let incarnation = incarnation::next(folder, clock::wall()).unwrap_or_else(|error| {
        warn!(folder = %folder.display(), %error, "the incarnation cannot be saved; if the clock goes back, other nodes ignore this node's pulses until their answers have corrected it");
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
    });
    let settings = pulse::settings::Settings { interval: config.pulse.interval, multiplier: config.pulse.multiplier };
    (
        speaking,
        Some(pulse::task::Setup {
            node: node.clone(),
            settings,
            voice,
            incarnation,
            turned,
            back_by: kept.map(|kept| kept.back_by),
            hears_nobody: Box::new(move |link| arp.known(link).is_some_and(|it| it.hears_nobody())),
        }),
    )
}

fn open_bgp(config: &Config) -> bgp::socket::listeners::Listeners {
    bgp::socket::listeners::Listeners::open_what_can_be(&plan::context::bgp::listen(config))
}

/// The task, from the moment on from which somebody wants it.
async fn once_wanted(mut wanted: watch::Receiver<Wanted>, is_it: fn(&Wanted) -> bool, task: impl Future<Output = ()>) {
    let is_wanted = wanted.wait_for(is_it).await.is_ok();
    match is_wanted {
        true => task.await,
        // Nobody can want it any more.
        false => std::future::pending().await,
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// Says when to act on what is known. Too late is harmless: then the lists are complete, and it changes nothing.
async fn lose_patience(facts: mpsc::Sender<Fact>, patience: Duration) {
    sleep(patience).await;
    // The loop is gone: nobody to tell.
    let _ = facts.send(Fact::FailStatic).await;
}

fn host_name() -> std::io::Result<NodeName> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    // The kubelet registers its Node under the host name in lower case.
    Ok(NodeName::from(name.trim().to_lowercase()))
}
