//! One agent from start to farewell. Floor 3.
//!
//! Tasks, all owned by [`run`] and ended by its farewell:
//! - the sources: `k8s::watch` and `k8s::lease`, or `manifests`; `kernel::observe`; and where peers are to be found,
//!   `kernel::routes` and `discovery::task`. Cancelled, they lose nothing: the next start lists again.
//! - the pulse, source and actuator: told to leave, it says goodbye before the others stop, so that they are replaced.
//! - the actuators: `bgp::task`, `arp::task`, `kernel::addresses`, `kernel::sysctl` and `k8s::status`. The first three
//!   are told to leave and are waited for; a status write that is cancelled is made again by whoever allocates next.
//! - the patience task: says when nothing more will be waited for.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::incarnation;
use super::l2_figures::LinkCounters;
use super::memory::Memory;
use super::readiness;
use super::turn::Loop;
use super::wiring::{self, Query, Slices};
use crate::bgp::socket::listeners::Listen;
use crate::config::{Config, Kubernetes, Manifests, PeerAddress, PulseKey, Source};
use crate::names::NodeName;
use crate::plan::verdict::is_announced;
use crate::world::{Fact, Pulses};
use crate::{arp, bgp, clock, discovery, k8s, kernel, manifests, pulse};

/// How long to wait for the first lists when there is a World of before to go on with.
const PATIENCE_WITH_MEMORY: Duration = Duration::from_secs(2);

/// And when there is none: then there is nothing to announce either way, but systemd wants to hear something.
const PATIENCE_WITHOUT_MEMORY: Duration = Duration::from_secs(20);

/// How long this node goes on answering for addresses after it said goodbye, so that nobody asks in vain meanwhile, and
/// how long it goes on accepting traffic for them: until the neighbours have heard of the next owner.
const ANSWERS_ON: Duration = Duration::from_millis(30);
const ACCEPTS_ON: Duration = Duration::from_millis(200);

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
    #[error("{0} came to an end by itself; that is a bug in crier")]
    Ended(&'static str),
}

/// Runs the agent until SIGTERM or SIGINT, and then leaves cleanly. `node` wins over the name in the configuration.
pub async fn run(config: Config, node: Option<NodeName>, queries: mpsc::Receiver<Query>) -> Result<(), Error> {
    let node = match node.or_else(|| config.node.name.clone()) {
        Some(node) => node,
        None => host_name().map_err(Error::HostName)?,
    };
    let folder = &config.state.folder;
    let memory = Memory::open(folder).map_err(|source| Error::State { folder: folder.clone(), source })?;
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
    let (stop, stopping) = watch::channel(false);
    let mut crew = Crew::default();
    let lines = Lines { slices: &slices, facts: &facts, stopping: &stopping };
    let pulse = pulse_setup(&config, &node);
    let pulses = match &pulse {
        Some(setup) => Pulses::On { authenticated: !setup.key.is_none() },
        None => Pulses::Off,
    };
    // First of all, so that the first plan knows it: there is room for it in the empty queue.
    let _ = facts.send(Fact::Pulses(pulses)).await;
    let counters = LinkCounters::default();
    crew.actuators(&config, lines, listeners, pulse, &counters);
    crew.finders(&config, lines);
    crew.sources(&config, &node, lines).await?;

    let (first_plan, plan_stands) = oneshot::channel();
    let mut turning = Loop::new(Arc::new(config), node, slices, memory, counters, first_plan);
    turning.recall();
    let patience = if turning.remembers_services() { PATIENCE_WITH_MEMORY } else { PATIENCE_WITHOUT_MEMORY };
    crew.passing.spawn(lose_patience(facts, patience));
    crew.passing.spawn(explain_hangups(hangup));
    crew.passing.spawn(async move {
        if plan_stands.await.is_ok() {
            readiness::ready("announcing");
            info!("ready");
        }
    });

    let mut incoming = incoming;
    let mut queries = queries;
    let ended = {
        let turns = turning.run(&mut incoming, &mut queries);
        tokio::pin!(turns);
        let ended = tokio::select! {
            () = &mut turns => Err(Error::Ended("the planner")),
            name = crew.one_ended() => Err(Error::Ended(name)),
            _ = terminate.recv() => Ok("SIGTERM"),
            _ = interrupt.recv() => Ok("SIGINT"),
        };
        readiness::stopping();
        if let Ok(signal) = ended {
            info!(signal, "leaving: withdrawing what is announced");
        }
        // Nobody is left to hear it only if every task is gone already.
        let _ = stop.send(true);
        // The planner turns on meanwhile, so that nobody waits for a place in its queue.
        tokio::select! {
            () = crew.leave() => {}
            () = &mut turns => {}
        }
        ended
    };
    turning.keep_now().await;
    ended.map(|_| info!("left"))
}

/// What every task is connected to.
#[derive(Clone, Copy)]
struct Lines<'a> {
    slices: &'a Slices,
    facts: &'a mpsc::Sender<Fact>,
    /// True once the agent leaves.
    stopping: &'a watch::Receiver<bool>,
}

/// The tasks of the agent. Each returns its name when it ends.
#[derive(Default)]
struct Crew {
    /// These end by themselves once they are told to stop, and have something to do before.
    leaving: JoinSet<&'static str>,
    /// These never end by themselves, and can be cancelled at any time.
    standing: JoinSet<&'static str>,
    /// These end when they have done what they are for.
    passing: JoinSet<()>,
}

impl Crew {
    fn actuators(
        &mut self,
        config: &Config,
        Lines { slices, facts, stopping }: Lines<'_>,
        listeners: bgp::socket::listeners::Listeners,
        pulse: Option<pulse::task::Setup>,
        counters: &LinkCounters,
    ) {
        let stopped = || stopped(stopping.clone());
        let stop = stopped();
        let speaker = bgp::task::run(slices.bgp.subscribe(), facts.clone(), listeners, async move {
            stop.await;
            "the agent stops".to_owned()
        });
        self.leaving.spawn(named("the BGP speaker", speaker));
        let handed_over = pulse.is_some();
        let life = arp::offload::life(pulse.as_ref().map(|setup| setup.settings.detection()));
        if let Some(setup) = pulse {
            let pulsing =
                pulse::task::run(slices.pulse.subscribe(), facts.clone(), setup, counters.pulse.clone(), stopped());
            self.leaving.spawn(named("the pulse", pulsing));
        }
        let (states, _) = watch::channel(arp::state::LinkStates::default());
        let stop = stopped();
        let answered = async move {
            stop.await;
            if handed_over {
                sleep(ANSWERS_ON).await;
            }
        };
        let (l2, offload) = (slices.l2.subscribe(), config.host.arp_offload.then_some(life));
        let responder = arp::task::run(l2, facts.clone(), counters.arp.clone(), states, offload, answered);
        self.leaving.spawn(named("the responder on the link", responder));
        let stop = stopped();
        let bound = kernel::addresses::run(slices.bind.subscribe(), async move {
            stop.await;
            if handed_over {
                sleep(ACCEPTS_ON).await;
            }
            kernel::addresses::Stop::Remove
        });
        self.leaving.spawn(named("the keeper of bound addresses", bound));
        let blackholes = kernel::blackholes::run(slices.bgp.subscribe(), stopped());
        self.leaving.spawn(named("the keeper of blackhole routes", blackholes));
        let manage = config.host.manage_sysctls;
        let keeping = kernel::sysctl::run(slices.l2.subscribe(), manage, facts.clone());
        self.standing.spawn(named("the keeper of sysctls", keeping));
        self.standing.spawn(named("the observer of links", kernel::observe::run(facts.clone())));
    }

    /// The sources that tell where peers are, as far as there are peers to be found.
    fn finders(&mut self, config: &Config, Lines { slices, facts, stopping: _ }: Lines<'_>) {
        let any = |is_it: fn(&PeerAddress) -> bool| config.bgp.peers.iter().any(|peer| is_it(&peer.address));
        if any(|address| matches!(address, PeerAddress::Interface(_))) {
            let discovering = discovery::task::run(slices.bgp.subscribe(), facts.clone());
            self.standing.spawn(named("router discovery", discovering));
        }
        if any(|address| matches!(address, PeerAddress::Gateway)) {
            self.standing.spawn(named("the observer of routes", kernel::routes::run(facts.clone())));
        }
    }

    async fn sources(
        &mut self,
        config: &Config,
        node: &NodeName,
        Lines { slices, facts, stopping }: Lines<'_>,
    ) -> Result<(), Error> {
        match &config.source {
            Source::Kubernetes(Kubernetes { access, lease, class: _, default_class: _ }) => {
                let client = k8s::client::build(access).await?;
                self.standing.spawn(named("the watch", k8s::watch::run(client.clone(), facts.clone())));
                let (identity, stopping) = (k8s::lease::identity(node), stopping.clone());
                let holding = k8s::lease::run(client.clone(), lease.clone(), identity, facts.clone(), stopping);
                self.leaving.spawn(named("the Lease", holding));
                let writing = k8s::status::run(client, node.clone(), slices.status.subscribe(), facts.clone());
                self.standing.spawn(named("the status writer", writing));
            }
            Source::Manifests(Manifests { folder }) => {
                self.standing
                    .spawn(named("the reader of manifests", manifests::folder::run(folder.clone(), facts.clone())));
            }
        }
        Ok(())
    }

    /// Waits until a task ends that should not.
    async fn one_ended(&mut self) -> &'static str {
        let ended = tokio::select! {
            Some(ended) = self.leaving.join_next() => ended,
            Some(ended) = self.standing.join_next() => ended,
        };
        // One that panicked has printed why.
        ended.unwrap_or("a task")
    }

    /// Waits for those that have something to do before they go, and cancels the others.
    async fn leave(&mut self) {
        self.passing.shutdown().await;
        let everybody = async { while self.leaving.join_next().await.is_some() {} };
        if timeout(FAREWELL, everybody).await.is_err() {
            warn!(waited_secs = FAREWELL.as_secs(), "left without the farewell of everybody");
        }
        self.leaving.shutdown().await;
        self.standing.shutdown().await;
    }
}

/// What the pulse is to work with; nothing where there is no key or nothing to announce on a link.
fn pulse_setup(config: &Config, node: &NodeName) -> Option<pulse::task::Setup> {
    let key = match &config.pulse.key {
        // The configuration was checked: the key is long enough.
        PulseKey::Shared(key) => pulse::packet::Key::of_secret(key.secret.expose())?,
        PulseKey::Unauthenticated => pulse::packet::Key::none(),
        PulseKey::Absent => return None,
    };
    if config.l2.is_empty() {
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
        key,
        peers: config.pulse.peers.clone(),
        incarnation,
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

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender is gone only when the agent is.
    let _ = stopping.wait_for(|stop| *stop).await;
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
