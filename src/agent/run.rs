//! One agent from start to farewell. Floor 3.
//!
//! Tasks, all owned by [`run`]. What each does when the agent stops stands in `farewell`:
//! - the sources: `k8s::watch` and `k8s::lease`, or `manifests`; `kernel::observe`; `data_path::task`; and where peers are
//!   to be found, `kernel::routes` and `discovery::task`. Cancelled, they lose nothing: the next start lists again.
//! - the pulse, source and actuator.
//! - the actuators: `bgp::task`, `arp::task`, `kernel::addresses`, `kernel::blackholes`, `kernel::sysctl`,
//!   `egress::task`, `kernel::steering` and `k8s::status`. A
//!   status write that is cancelled is made again by whoever allocates next.
//! - the patience task: says when nothing more will be waited for.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::counters::LinkCounters;
use super::farewell::{self, Stopping};
use super::incarnation;
use super::memory::Memory;
use super::readiness;
use super::turn::Loop;
use super::wiring::{self, Query, Slices};
use crate::bgp::socket::listeners::Listen;
use crate::config::{Config, Kubernetes, Manifests, PeerAddress, PulseKey, Source};
use crate::names::NodeName;
use crate::plan::verdict::is_announced;
use crate::stop::{Cause, Stop};
use crate::world::{Fact, Pulses};
use crate::{arp, bgp, clock, data_path, discovery, egress, k8s, kernel, manifests, pulse};

/// How long to wait for the first lists if there is a last known state to use.
const PATIENCE_WITH_MEMORY: Duration = Duration::from_secs(2);

/// And when there is none: then there is nothing to announce either way, but systemd wants to hear something.
const PATIENCE_WITHOUT_MEMORY: Duration = Duration::from_secs(20);

/// How long the farewell may take in all: the routers hear it within milliseconds, or not at all.
const FAREWELL: Duration = Duration::from_secs(3);

/// The agent could not start, or something it cannot be without came to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot find out the host name for [node] name = \"auto\": {0}; give a name with --node")]
    HostName(std::io::Error),
    #[error("cannot use the state folder {}: {source}", .folder.display())]
    State { folder: std::path::PathBuf, source: std::io::Error },
    #[error("cannot talk to the API server: {0}")]
    Kubernetes(#[from] k8s::client::ClientError),
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
    #[error("{0} ended by itself; that is a bug in crier")]
    Ended(&'static str),
}

/// Runs the agent until SIGTERM or SIGINT, and then leaves cleanly. `node` wins over the name in the configuration.
pub async fn run(config: Config, node: Option<NodeName>, queries: mpsc::Receiver<Query>) -> Result<(), Error> {
    let node = match node.or_else(|| config.node.name.clone()) {
        Some(node) => node,
        None => host_name().map_err(Error::HostName)?,
    };
    let folder = &config.state.folder;
    let boot = data_path::task::boot_id();
    let memory = Memory::open(folder, &boot).map_err(|source| Error::State { folder: folder.clone(), source })?;
    info!(%node, version = env!("CARGO_PKG_VERSION"), "starting");
    for pool in config.pools.iter().filter(|pool| !is_announced(&config, pool)) {
        warn!(pool = %pool.name, "no [[l2]] and no [[bgp.advertisement]] covers the pool: its addresses go nowhere");
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let listeners = open_bgp(&config);

    let (facts, incoming) = wiring::facts();
    let slices = Slices::default();
    let (stop, stopping) = farewell::channel();
    let mut tasks = Tasks::default();
    let channels = Channels { slices: &slices, facts: &facts, stopping: &stopping };
    let (turned, turns_seen) = watch::channel(clock::now());
    let pulse = pulse_setup(&config, &node, turns_seen);
    let pulses = match &pulse {
        Some(setup) => Pulses::On { authenticated: !setup.keys.is_none() },
        None => Pulses::Off,
    };
    // First of all, so that the first plan knows it: there is room for it in the empty queue.
    let _ = facts.send(Fact::Pulses(pulses)).await;
    let path = data_path::task::setup(&config.node.data_path, config.is_standalone(), &boot, folder);
    // As above: until the path is seen good, nothing is announced.
    let _ = facts.send(path.fact()).await;
    tasks.endless.spawn(named(
        "the watcher of the data path",
        data_path::task::run(path, slices.node.subscribe(), facts.clone()),
    ));
    let counters = LinkCounters::default();
    tasks.actuators(&config, channels, listeners, pulse, &counters);
    tasks.finders(&config, channels);
    tasks.sources(&config, &node, channels).await?;

    let (first_plan, plan_stands) = oneshot::channel();
    let mut turning = Loop::new(Arc::new(config), node, slices, memory, counters, first_plan, turned);
    turning.recall();
    let patience = if turning.remembers_services() { PATIENCE_WITH_MEMORY } else { PATIENCE_WITHOUT_MEMORY };
    let leaving = facts.clone();
    tasks.finite.spawn(lose_patience(facts, patience));
    tasks.finite.spawn(explain_hangups(hangup));
    tasks.finite.spawn(async move {
        if plan_stands.await.is_ok() {
            readiness::ready("announcing");
            info!("ready");
        }
    });

    let mut incoming = incoming;
    let mut queries = queries;
    let cause = {
        let turns = turning.run(&mut incoming, &mut queries);
        tokio::pin!(turns);
        let cause = tokio::select! {
            () = &mut turns => Cause::TaskEnded("the planner"),
            name = tasks.one_ended() => Cause::TaskEnded(name),
            _ = terminate.recv() => Cause::Signal("SIGTERM"),
            _ = interrupt.recv() => Cause::Signal("SIGINT"),
        };
        readiness::stopping();
        info!(%cause, "leaving: withdrawing what is announced");
        let leave = async {
            // The planner first: it is not to defend what the other nodes take over. It fails only if the planner is gone.
            let _ = leaving.send(Fact::Leaving).await;
            // Nobody is left to hear it only if every task is gone already.
            let _ = stop.send(Some(Stop::Leave(cause)));
            tasks.leave().await;
        };
        // The planner turns on meanwhile, so that nobody waits for a place in its queue.
        tokio::select! {
            () = leave => {}
            () = &mut turns => {}
        }
        cause
    };
    turning.keep_now().await;
    match cause {
        Cause::Signal(_) => {
            info!("left");
            Ok(())
        }
        Cause::TaskEnded(name) => Err(Error::Ended(name)),
    }
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
        config: &Config,
        Channels { slices, facts, stopping }: Channels<'_>,
        listeners: bgp::socket::listeners::Listeners,
        pulse: Option<pulse::task::Setup>,
        counters: &LinkCounters,
    ) {
        let speaker = bgp::task::run(slices.bgp.subscribe(), facts.clone(), listeners, stopping.clone().bgp());
        self.farewell.spawn(named("the BGP speaker", speaker));
        let handed_over = pulse.is_some();
        let life = arp::offload::life(pulse.as_ref().map(|setup| setup.settings.detection()));
        if let Some(setup) = pulse {
            let stop = stopping.clone().pulse();
            let pulsing =
                pulse::task::run(slices.pulse.subscribe(), facts.clone(), setup, counters.pulse.clone(), stop);
            self.farewell.spawn(named("the pulse", pulsing));
        }
        let (states, _) = watch::channel(arp::state::LinkStates::default());
        let stop = stopping.clone().responder(handed_over);
        let (l2, offload) = (slices.l2.subscribe(), config.host.arp_offload.then_some(life));
        let responder = arp::task::run(l2, facts.clone(), counters.arp.clone(), states, offload, stop);
        self.farewell.spawn(named("the responder on the link", responder));
        let stop = stopping.clone().bound_addresses(handed_over);
        let bound = kernel::addresses::run(slices.bind.subscribe(), stop);
        self.farewell.spawn(named("the keeper of bound addresses", bound));
        let blackholes = kernel::blackholes::run(slices.bgp.subscribe(), stopping.clone().blackholes());
        self.farewell.spawn(named("the keeper of blackhole routes", blackholes));
        let (egress, tables) = (slices.egress.subscribe(), counters.egress.clone());
        let holding = egress::task::run(egress, config.egress.clone(), facts.clone(), tables);
        // Neither undoes anything when the agent stops: what it held stays held.
        self.endless.spawn(named("the keeper of egress", holding));
        let steering = kernel::steering::run(slices.egress.subscribe(), config.egress.clone());
        self.endless.spawn(named("the keeper of routes to owners", steering));
        let manage = config.host.manage_sysctls;
        let keeping = kernel::sysctl::run(slices.l2.subscribe(), manage, facts.clone());
        self.endless.spawn(named("the keeper of sysctls", keeping));
        self.endless.spawn(named("the observer of links", kernel::observe::run(facts.clone())));
    }

    /// The sources that tell where peers are, as far as there are peers to be found.
    fn finders(&mut self, config: &Config, Channels { slices, facts, stopping: _ }: Channels<'_>) {
        let any = |is_it: fn(&PeerAddress) -> bool| config.bgp.peers.iter().any(|peer| is_it(&peer.address));
        if any(|address| matches!(address, PeerAddress::Interface(_))) {
            let discovering = discovery::task::run(slices.bgp.subscribe(), facts.clone());
            self.endless.spawn(named("router discovery", discovering));
        }
        if any(|address| matches!(address, PeerAddress::Gateway)) {
            self.endless.spawn(named("the observer of routes", kernel::routes::run(facts.clone())));
        }
    }

    async fn sources(
        &mut self,
        config: &Config,
        node: &NodeName,
        Channels { slices, facts, stopping }: Channels<'_>,
    ) -> Result<(), Error> {
        match &config.source {
            Source::Kubernetes(Kubernetes { access, lease, classes, default_class: _ }) => {
                let (client, renewal) = k8s::client::build(access).await?;
                self.endless.spawn(named("the keeper of credentials", renewal.run()));
                let barrier = k8s::barrier::Barrier::new(&["services", "namespaces"]);
                let watching = k8s::watch::run(client.clone(), facts.clone(), barrier.clone());
                self.endless.spawn(named("the watch", watching));
                let digest = config.allocation_digest().0;
                let has_pools = !config.pools.is_empty();
                let terms = k8s::lease::Terms { digest, class: classes.join(", "), has_pools };
                let identity = k8s::lease::identity(node);
                let candidacy = k8s::lease::Candidacy { lease: lease.clone(), identity, terms };
                let stopping = stopping.clone().receiver();
                let holding = k8s::lease::run(client.clone(), candidacy, barrier, facts.clone(), stopping);
                self.farewell.spawn(named("the Lease", holding));
                let writing = k8s::status::run(client, node.clone(), slices.status.subscribe(), facts.clone());
                self.endless.spawn(named("the status writer", writing));
            }
            Source::Manifests(Manifests { folder }) => {
                self.endless
                    .spawn(named("the reader of manifests", manifests::folder::run(folder.clone(), facts.clone())));
            }
        }
        Ok(())
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

    /// Waits for those that have something to do before they go, and cancels the others.
    async fn leave(&mut self) {
        self.finite.shutdown().await;
        let everybody = async { while self.farewell.join_next().await.is_some() {} };
        if timeout(FAREWELL, everybody).await.is_err() {
            warn!(waited_secs = FAREWELL.as_secs(), "left without the farewell of everybody");
        }
        self.farewell.shutdown().await;
        self.endless.shutdown().await;
    }
}

/// What the pulse is to work with; nothing where there is no key or no link that wants pulses.
fn pulse_setup(
    config: &Config,
    node: &NodeName,
    turned: watch::Receiver<std::time::Instant>,
) -> Option<pulse::task::Setup> {
    let key = match &config.pulse.key {
        // The configuration was checked: the key is long enough.
        PulseKey::Shared(key) => pulse::packet::Key::of_secret(key.secret.expose())?,
        PulseKey::Unauthenticated => pulse::packet::Key::none(),
        PulseKey::Absent => return None,
    };
    let old = &config.pulse.old_keys;
    let old = old.iter().filter_map(|key| pulse::packet::Key::of_secret(key.secret.expose())).collect();
    if config.l2.is_empty() && config.pulse.interfaces.is_empty() {
        return None;
    }
    let folder = &config.state.folder;
    let incarnation = incarnation::next(folder, clock::wall()).unwrap_or_else(|error| {
        warn!(folder = %folder.display(), %error, "the incarnation is not kept; until the clock is past it, others take this node for a recording");
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
    });
    Some(pulse::task::Setup {
        node: node.clone(),
        settings: pulse::settings::Settings { interval: config.pulse.interval, multiplier: config.pulse.multiplier },
        keys: pulse::packet::Keys::new(key, old),
        peers: config.pulse.peers.clone(),
        incarnation,
        turned,
    })
}

/// Without a peer nobody has a reason to connect, and the port is left to others.
fn open_bgp(config: &Config) -> bgp::socket::listeners::Listeners {
    let addresses = if config.bgp.peers.is_empty() { Vec::new() } else { config.bgp.listen.clone() };
    bgp::socket::listeners::Listeners::open_what_can_be(&Listen { addresses, port: config.bgp.port })
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

/// What reloads other daemons must not end this one.
async fn explain_hangups(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        warn!("SIGHUP: reloading the configuration is not available yet; restart crier to use a changed one");
    }
}

fn host_name() -> std::io::Result<NodeName> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    // The kubelet registers its Node under the host name in lower case.
    Ok(NodeName::from(name.trim().to_lowercase()))
}
