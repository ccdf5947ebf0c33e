//! The configuration of a running agent changes: read, checked whole, compared, and only what differs is touched. Floor 3.
//!
//! A configuration with a mistake, or with a change that needs a restart, is refused whole; nothing of it is taken over.
//! What a difference touches stands in `config::change`; this file tells those who are concerned.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::logging::LogControl;
use super::order::{Done, Refusal, Wish};
use super::readiness;
use super::unconfirmed::{self, Unconfirmed};
use super::wiring::Query;
use crate::clock;
use crate::config::load::{self, HostSecrets, Lenience, LoadError};
use crate::config::{self, Change, Config, PeerAddress, PulseKey, Source, SourceFile, Touches};
use crate::k8s::lease::Terms;
use crate::names::PeerName;
use crate::pulse::packet::{Key, Keys};
use crate::pulse::task::Voice;
use crate::state_file;
use crate::views::Snapshot;
use crate::views::bgp::{outcome_of, refusal_of};
use crate::views::forecast;
use crate::views::reload::Reloads;
use crate::world::{Fact, PeerOrder, Pulses};

/// Two readings of the files that are alike are this far apart: an editor that writes a file in place takes less for a part of it.
const SETTLED_AFTER: Duration = Duration::from_millis(20);

/// How often the files are read until two readings are alike.
const READINGS: usize = 20;

/// How often it is tried to put files back that could not be written.
const PUT_BACK_AGAIN: Duration = Duration::from_secs(10);

const LONGEST_TO_CONFIRM: u64 = 24 * 3600;

/// Differences that are logged one by one. A pool of pools is not worth a thousand lines.
const MOST_LOGGED: usize = 20;

/// The ends of what follows the configuration while the agent runs.
pub(super) struct Followers {
    pub facts: mpsc::Sender<Fact>,
    pub queries: mpsc::Sender<Query>,
    /// Nobody listens where there are no pulses.
    pub voice: watch::Sender<Voice>,
    /// Nobody listens without an API server.
    pub terms: watch::Sender<Terms>,
    pub wanted: watch::Sender<Wanted>,
    /// `None` where the command line says what is logged.
    pub log: Option<LogControl>,
    pub report: watch::Sender<Reloads>,
    /// The first plan stands, and systemd knows.
    pub ready: watch::Receiver<bool>,
}

/// Which sources somebody needs that not every agent has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Those that tell where peers are.
    pub routers: bool,
    /// The one that tells of shutdowns of the host.
    pub shutdowns: bool,
}

impl Wanted {
    pub fn of(config: &Config) -> Wanted {
        let any = |is_it: fn(&PeerAddress) -> bool| config.bgp.peers.iter().any(|peer| is_it(&peer.address));
        let routers = any(|address| matches!(address, PeerAddress::Interface(_)));
        Wanted { routers, shutdowns: config.drain.follow_shutdown }
    }
}

/// The keys of the pulse; nothing without a key.
pub(super) fn voice(config: &Config) -> Option<Voice> {
    let key = match &config.pulse.key {
        // The configuration was checked: the key is long enough.
        PulseKey::Shared(key) => Key::of_secret(key.secret.expose())?,
        PulseKey::Unauthenticated => Key::none(),
        PulseKey::Absent => return None,
    };
    let old = config.pulse.old_keys.iter().filter_map(|key| Key::of_secret(key.secret.expose())).collect();
    let restart_grace = config.pulse.restart_grace;
    Some(Voice { keys: Keys::new(key, old), peers: config.pulse.peers.clone(), restart_grace })
}

/// Whether pulses tell who is alive: there is a key, and a link that wants them.
pub(super) fn pulses(config: &Config) -> Pulses {
    match &config.pulse.key {
        PulseKey::Absent => Pulses::Off,
        _ if config.l2.is_empty() && config.pulse.interfaces.is_empty() => Pulses::Off,
        PulseKey::Shared(_) => Pulses::On { authenticated: true },
        PulseKey::Unauthenticated => Pulses::On { authenticated: false },
    }
}

/// On what terms this agent holds the Lease.
pub(super) fn terms(config: &Config) -> Terms {
    let class = match &config.source {
        Source::Kubernetes(kubernetes) => kubernetes.classes.join(", "),
        Source::Manifests(_) => String::new(),
    };
    Terms { digest: config.allocation_digest().0, agreed: None, class, has_pools: !config.pools.is_empty() }
}

/// Owns what the agent goes by.
pub struct Reloader {
    /// The main file.
    main: PathBuf,
    /// What the files said of which `config` was made.
    files: Vec<SourceFile>,
    /// The texts of the ConfigMap behind them; none without one.
    texts: Vec<SourceFile>,
    config: Arc<Config>,
    unconfirmed: Option<(Unconfirmed, Instant)>,
    /// The files of a configuration that is in use again could not be put back; and when that is tried again.
    unrestored: Option<(Unconfirmed, Instant)>,
    followers: Followers,
}

impl Reloader {
    /// `unconfirmed`: what waits to be confirmed since before the agent started, or why that is not known.
    pub(super) fn new(
        main: PathBuf,
        (files, texts): (Vec<SourceFile>, Vec<SourceFile>),
        config: Arc<Config>,
        unconfirmed: Result<Option<Unconfirmed>, String>,
        followers: Followers,
    ) -> Reloader {
        let (unconfirmed, unreadable) = match unconfirmed {
            Ok(waiting) => (waiting, None),
            Err(why) => (None, Some(why)),
        };
        let unconfirmed = unconfirmed.map(|it| {
            let left = it.left(clock::wall_timestamp());
            (it, clock::now() + left)
        });
        let reloader = Reloader { main, files, texts, config, unconfirmed, unrestored: None, followers };
        reloader.report(|reloads| {
            reloads.file.clone_from(&reloader.main);
            reloads.unreadable_promise = unreadable;
        });
        reloader
    }

    /// When the configuration before, or what is left of it, is to be put back: at [`Reloader::handle_timeout`].
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [&self.unconfirmed, &self.unrestored].into_iter().flatten().map(|(_, at)| *at).min()
    }

    /// A spare call is harmless.
    pub(super) async fn handle_timeout(&mut self) {
        let now = clock::now();
        if self.unrestored.as_ref().is_some_and(|(_, at)| *at <= now) {
            let outcome = self.restore();
            self.note(outcome.as_ref().err());
        }
        if self.unconfirmed.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.roll_back().await;
        }
    }

    pub(super) async fn carry_out(&mut self, wish: Wish) -> Result<Done, Refusal> {
        match wish {
            Wish::Apply { main, confirm_secs } => self.apply(main, confirm_secs).await,
            Wish::Confirm => {
                let done = self.confirm()?;
                let warnings = self.forget_orders().await?;
                Ok(Done { warnings, ..done })
            }
            Wish::Cluster(texts) => self.take_texts(texts).await,
            // The drainer's.
            Wish::Drain { .. } | Wish::Undrain => Err(Refusal::Stopping),
            Wish::Peer { peer, order } => {
                let peers = &self.config.bgp.peers;
                if !peers.iter().any(|it| it.name == peer) {
                    let known = peers.iter().map(|it| it.name.to_string()).collect::<Vec<_>>().join(", ");
                    return Err(Refusal::NoSuchPeer { peer, known });
                }
                // The order itself changes what there is.
                let before = self.snapshot().await?;
                if let Some(why) = refusal_of(&before, &peer, order) {
                    return Err(Refusal::NothingDone(why));
                }
                info!(%peer, ?order, "order of an operator");
                let outcome = outcome_of(&before, &peer, order);
                self.tell(Fact::Peer(peer, order)).await?;
                let mut done = Done::new(outcome.map_err(Refusal::NothingDone)?);
                match order {
                    PeerOrder::Shut | PeerOrder::Enable => {
                        let folder = self.config.state.folder.clone();
                        done.warnings.extend(blocking(move || forgotten(&folder)).await?);
                    }
                    PeerOrder::Reset | PeerOrder::Refresh => {}
                }
                Ok(done)
            }
        }
    }

    /// SIGHUP. Before the first plan stands systemd waits for something else.
    pub(super) async fn reload_for_systemd(&mut self) {
        let ready = *self.followers.ready.borrow();
        if ready {
            readiness::reloading();
        }
        let outcome = self.reload().await;
        if ready {
            match outcome {
                Ok(_) => readiness::ready("announcing"),
                Err(why) => readiness::ready(&format!("announcing; last reload failed: {}", why.short())),
            }
        }
    }

    /// Goes by what the files say, or says why not.
    async fn reload(&mut self) -> Result<Vec<Change>, Refusal> {
        let outcome = self.try_reload().await;
        self.note(outcome.as_ref().err());
        outcome
    }

    async fn try_reload(&mut self) -> Result<Vec<Change>, Refusal> {
        // Else what was taken back would be taken over again.
        self.restore()?;
        let files = self.read_settled().await?;
        let (config, changes) = self.check(files.clone(), self.texts.clone()).await?;
        self.take_over(config, files, &changes).await?;
        self.forget_orders().await?;
        Ok(changes)
    }

    /// The ConfigMap has other texts: goes by them with the files that are in use.
    async fn take_texts(&mut self, texts: Vec<SourceFile>) -> Result<Done, Refusal> {
        let files = self.files.clone();
        let (config, changes) = self.check(files.clone(), texts.clone()).await?;
        self.take_over(config, files, &changes).await?;
        self.texts = texts;
        let warnings = self.forget_orders().await?;
        Ok(Done { warnings, ..Done::new("the ConfigMap is in use") })
    }

    fn note(&self, failure: Option<&Refusal>) {
        if let Some(why) = failure {
            error!(reason = why.short(), "the configuration was not taken over; the one before stays in use");
        }
        let at = clock::wall_timestamp();
        self.report(|reloads| reloads.note(at, failure.map(Refusal::short)));
    }

    fn report(&self, change: impl FnOnce(&mut Reloads)) {
        let until = self.unconfirmed.as_ref().map(|(it, _)| it.until);
        self.followers.report.send_modify(|reloads| {
            reloads.unconfirmed_until = until;
            change(reloads);
        });
    }

    /// The files, once two readings of all of them are alike: what is just being written is not half a configuration.
    async fn read_settled(&self) -> Result<Vec<SourceFile>, Refusal> {
        let mut before = None;
        for _ in 0..READINGS {
            let main = self.main.clone();
            let now = blocking(move || load::read(&main)).await?;
            match (before.replace(now), &before) {
                (Some(Ok(was)), Some(Ok(now))) if was == *now => return Ok(was),
                // An error that lasts is one.
                (Some(Err(_)), Some(Err(_))) => break,
                (_, _) => sleep(SETTLED_AFTER).await,
            }
        }
        match before {
            Some(Err(error)) => Err(error.into()),
            Some(Ok(_)) | None => Err(Refusal::Unsettled),
        }
    }

    /// The configuration of these files and texts, with what differs from the one in use. Refuses what needs a restart. Secrets are read.
    async fn check(&self, files: Vec<SourceFile>, texts: Vec<SourceFile>) -> Result<(Config, Vec<Change>), Refusal> {
        let secrets = HostSecrets::from_environment().with(Lenience::of_running(&self.config));
        let read = blocking(move || config::parse_running(&files, &texts, &secrets)).await?;
        let config = read.map_err(LoadError::from)?;
        let changes = config::changes(&self.config, &config);
        let (restart, rest): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| change.touches == Touches::Restart);
        if !restart.is_empty() {
            return Err(Refusal::NeedsRestart(restart));
        }
        Ok((config, rest))
    }

    /// Tells everybody whom a difference concerns. When it returns, a plan by the new configuration stands.
    async fn take_over(&mut self, config: Config, files: Vec<SourceFile>, changes: &[Change]) -> Result<(), Refusal> {
        self.files = files;
        if changes.is_empty() {
            info!("the configuration was read again: no difference");
            return Ok(());
        }
        let config = Arc::new(config);
        let before = std::mem::replace(&mut self.config, config.clone());
        let touched = |touches| changes.iter().any(|change| change.touches == touches);
        if touched(Touches::Log) {
            match &self.followers.log {
                Some(log) => {
                    // The filter was checked with the configuration.
                    let _ = log.set(&config.log.level);
                }
                None => warn!("[log] level is not followed: --log on the command line goes before it"),
            }
        }
        if touched(Touches::Pulse)
            && let Some(voice) = voice(&config)
        {
            self.followers.voice.send_replace(voice);
        }
        self.followers.terms.send_if_modified(|held| {
            let newest = terms(&config);
            let differs = held.digest != newest.digest || held.has_pools != newest.has_pools;
            *held = newest;
            differs
        });
        self.followers.wanted.send_replace(Wanted::of(&config));
        if pulses(&before) != pulses(&config) {
            self.tell(Fact::Pulses(pulses(&config))).await?;
        }
        self.tell(Fact::Config(config)).await?;
        for change in changes.iter().take(MOST_LOGGED) {
            info!(%change, touches = ?change.touches, "configuration changed");
        }
        info!(changes = changes.len(), "the configuration was taken over");
        warn_about(&self.config);
        for warning in forecast::of_bfd(&before, &self.config) {
            warn!("{warning}");
        }
        Ok(())
    }

    /// What operators ordered of peers goes with the peers, as with any router's neighbors: a peer that comes back under the name some day
    /// is another one. Not while the configuration before may be put back, nor while the part of it that a ConfigMap has is not known. One
    /// line for each.
    pub(super) async fn forget_orders(&mut self) -> Result<Vec<String>, Refusal> {
        let has_config_map =
            matches!(&self.config.source, Source::Kubernetes(kubernetes) if kubernetes.config.is_some());
        if self.unconfirmed.is_some() || self.unrestored.is_some() || (has_config_map && self.texts.is_empty()) {
            return Ok(Vec::new());
        }
        let snapshot = self.snapshot().await?;
        let shut = snapshot.world.peer_orders.iter().filter(|(_, orders)| orders.shut).map(|(peer, _)| peer.clone());
        let gone: Vec<PeerName> =
            shut.filter(|peer| !self.config.bgp.peers.iter().any(|it| it.name == *peer)).collect();
        let mut told = Vec::new();
        for peer in gone {
            info!(%peer, "the peer is no longer in the configuration; the operator's shutdown of it is dropped");
            told.push(format!(
                "{peer} was shut down by an operator and is no longer in the configuration: a [[bgp.peer]] added again under this \
                 name opens a session"
            ));
            self.tell(Fact::Peer(peer, PeerOrder::Enable)).await?;
        }
        Ok(told)
    }

    /// Returns once the planner has turned with the fact.
    async fn tell(&self, fact: Fact) -> Result<(), Refusal> {
        self.followers.facts.send(fact).await.map_err(|_| Refusal::Stopping)?;
        // Facts go before questions, and the answer to one is of a later turn.
        self.snapshot().await.map(drop)
    }

    async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let (asked, answer) = oneshot::channel();
        self.followers.queries.send(Query(asked)).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    async fn apply(&mut self, text: Option<SourceFile>, confirm_secs: Option<u64>) -> Result<Done, Refusal> {
        let is_of_operator = text.is_some();
        let outcome = self.try_apply(text, confirm_secs).await;
        match &outcome {
            Err(Refusal::ConfirmTime(_)) => {}
            // Who applied it is told, and there is nothing wrong with this agent or its files.
            Err(why) if is_of_operator => warn!(reason = why.short(), "a configuration was not applied"),
            outcome => self.note(outcome.as_ref().err()),
        }
        outcome
    }

    async fn try_apply(&mut self, text: Option<SourceFile>, confirm_secs: Option<u64>) -> Result<Done, Refusal> {
        if let Some(secs) = confirm_secs.filter(|secs| !(1..=LONGEST_TO_CONFIRM).contains(secs)) {
            return Err(Refusal::ConfirmTime(secs));
        }
        if text.is_none() {
            self.restore()?;
        }
        let mut files = self.read_settled().await.or_else(|error| match &text {
            // What is to be replaced need not be readable.
            Some(_) => Ok(Vec::new()),
            None => Err(error),
        })?;
        if let Some(main) = &text {
            if files.is_empty() {
                let path = self.main.clone();
                let drop_ins = blocking(move || load::read_drop_ins(&path)).await??;
                files = std::iter::once(main.clone()).chain(drop_ins).collect();
            } else if let Some(first) = files.first_mut() {
                // Complaints name the file that the operator wrote.
                *first = main.clone();
            }
        }
        let (config, changes) = self.check(files.clone(), self.texts.clone()).await?;
        let path = self.main.display().to_string();
        if let Some(first) = files.first_mut() {
            first.path.clone_from(&path);
        }
        let earlier = self.unconfirmed.clone();
        let until = confirm_secs.map(|secs| self.promise_to_put_back(secs)).transpose()?;
        if let Some(main) = &text
            && let Err(source) = unconfirmed::replace_main(&self.main, &main.text, self.files.first())
        {
            if until.is_some() {
                // Nothing was replaced, and what was promised before is promised still. If that cannot be written either, what
                // would be put back is what is there, or what was there before.
                let _ = match &earlier {
                    Some((promise, _)) => promise.keep(&self.main),
                    None => Unconfirmed::forget(&self.main),
                };
                self.unconfirmed = earlier;
                self.report(|_| {});
            }
            return Err(Refusal::Write { path: self.main.clone(), source });
        }
        let mut warnings = load::warnings(&config);
        warnings.extend(forecast::of_bfd(&self.config, &config));
        self.take_over(config, files, &changes).await?;
        // Whoever only reads the files again, as `systemctl reload` does, has not looked at what waits.
        let is_confirmed = until.is_none() && text.is_some() && (earlier.is_some() || self.unrestored.is_some());
        if is_confirmed && let Err(error) = self.keep() {
            warnings.push(format!("it is in use, but the one before comes back at the next start: {error}"));
        }
        warnings.extend(self.forget_orders().await?);
        let until = until.or(self.unconfirmed.as_ref().map(|(it, _)| it.until));
        let count = match changes.len() {
            0 => "no difference to what was in use".to_owned(),
            1 => "1 difference".to_owned(),
            many => format!("{many} differences"),
        };
        let summary = match until {
            None if is_confirmed => format!("applied: {count}; nothing waits to be confirmed any more"),
            None => format!("applied: {count}"),
            Some(until) => {
                format!("applied: {count}; taken back at {until:.0} unless `crier config confirm` comes before")
            }
        };
        Ok(Done {
            changes: changes.iter().map(ToString::to_string).collect(),
            warnings,
            unconfirmed_until: until,
            ..Done::new(summary)
        })
    }

    /// Remembers the configuration that was last confirmed, on the disk too, before another takes its place.
    fn promise_to_put_back(&mut self, secs: u64) -> Result<jiff::Timestamp, Refusal> {
        let left = Duration::from_secs(secs);
        let until = clock::wall_timestamp_of(clock::now() + left);
        let former = match &self.unconfirmed {
            Some((earlier, _)) => earlier.former.clone(),
            None => self.files.clone(),
        };
        let promise = Unconfirmed { since: Some(clock::wall_timestamp()), until, former };
        // Where it cannot be kept, what was promised before stands.
        promise.keep(&self.main).map_err(|source| Refusal::Write { path: self.main.clone(), source })?;
        self.unconfirmed = Some((promise, clock::now() + left));
        self.unrestored = None;
        self.report(|_| {});
        Ok(until)
    }

    fn confirm(&mut self) -> Result<Done, Refusal> {
        if self.unconfirmed.is_none() && self.followers.report.borrow().unreadable_promise.is_none() {
            return Err(Refusal::NothingToConfirm);
        }
        self.keep()?;
        info!("the configuration is confirmed");
        Ok(Done::new("confirmed: the configuration stays"))
    }

    /// What the files say stays: nothing is put back any more. Where the disk does not take that, it is put back in time.
    fn keep(&mut self) -> Result<(), Refusal> {
        Unconfirmed::forget(&self.main).map_err(|source| Refusal::Write { path: self.main.clone(), source })?;
        (self.unconfirmed, self.unrestored) = (None, None);
        self.report(|reloads| reloads.unreadable_promise = None);
        Ok(())
    }

    /// Puts the files back that could not be put back before.
    fn restore(&mut self) -> Result<(), Refusal> {
        let Some((before, _)) = self.unrestored.take() else { return Ok(()) };
        self.put_back(before)
    }

    fn put_back(&mut self, before: Unconfirmed) -> Result<(), Refusal> {
        match before.put_back(&self.main) {
            Ok(files) => {
                files.iter().for_each(|file| info!(file = %file.display(), "put back"));
                Ok(())
            }
            Err(source) => {
                self.unrestored = Some((before, clock::now() + PUT_BACK_AGAIN));
                Err(Refusal::PutBack { path: self.main.clone(), source })
            }
        }
    }

    /// Nobody confirmed in time.
    async fn roll_back(&mut self) {
        let Some((before, _)) = self.unconfirmed.take() else { return };
        warn!("the configuration was not confirmed in time: the one before is put back");
        let former = before.former.clone();
        let restored = self.put_back(before);
        // Not what the files say, which may be another thing by now. It was in use before; if it is refused, a secret has gone.
        let outcome = match self.check(former.clone(), self.texts.clone()).await {
            Ok((config, changes)) => self.take_over(config, former, &changes).await,
            Err(error) => Err(error),
        };
        self.note(outcome.and(restored).as_ref().err());
    }
}

/// That an order which should outlast the agent will not, where the disk takes no write.
fn forgotten(folder: &Path) -> Option<String> {
    let error = state_file::probe(folder).err()?;
    Some(format!(
        "this is in memory alone: cannot write in {}: {error}; an agent that restarts before the disk is mended forgets the order",
        folder.display()
    ))
}

/// Says what a configuration without mistakes is most likely not meant to be.
pub(super) fn warn_about(config: &Config) {
    for warning in load::warnings(config) {
        warn!("{warning}");
    }
}

/// Files can be on a disk that hangs; nothing else is to wait for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::Stopping)
}
