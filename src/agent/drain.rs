//! A node leaves without breaking what goes through it: `crier drain`. Floor 3.
//!
//! Tasks: [`run`] is one, owned by the agent. How far it has come stands in the state folder, so that a restart of the agent or
//! the host goes on where it was. `crier undrain` takes it back, and the Node or the host a drain that it has asked for (`[drain]`); one
//! that began because the host shuts down ends with the boot. Cancelled, it goes on with the next start.
//!
//! | stage | what it waits for |
//! |---|---|
//! | waiting | the flows to announced addresses that were open when it began, or its time, all of it where they cannot be counted; never less than [`LEAST_WAIT`]. Not those that routers have moved to other nodes (`drain_flows`) |
//! | handing over | that other nodes have taken the addresses on the link |
//! | withdrawing | that the routers have taken the withdrawals, for [`UPTAKE`] at most |
//! | drained | an operator |
//!
//! Nothing is given up that no other node serves, unless the drain is forced: another node may have begun to leave at the same time.
//! The drain then stands still, and says so.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::drain_flows::{Awaited, GIVEN_UP, Left};
use super::order::{Command, Done, Refusal};
use super::wiring::Query;
use crate::address::Family;
use crate::clock;
use crate::kernel::bypass;
use crate::kernel::flows::{self, Flow, Open};
use crate::plan::decision::Announcement;
use crate::plan::following::{Asker, NodeSays};
use crate::some_of::some;
use crate::state_file::{self, Outlasts};
use crate::views::Snapshot;
use crate::views::drain::{Flows, Untaken, found_within, is_awaited, nobody_else, untaken};
use crate::world::{Area, Drain, DrainStage, Fact, HostProblem, Ordered};

/// Routers need time to prefer other routes, and a node that begins to leave at the same time to say so.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// How long the other nodes may take to take all addresses on the link, before a drain is said to stand still, or gives them up where
/// it is forced.
const HAND_OVER: Duration = Duration::from_secs(15);

/// How long routers may take to take what the drain sends them, before it goes on without those that read nothing.
const UPTAKE: Duration = Duration::from_secs(10);

/// How long they may take before routes are withdrawn, where the host shuts down: it does not wait for more, and with it the routes
/// would go without a word.
const UPTAKE_IN_SHUTDOWN: Duration = Duration::from_secs(1);

/// How long flows are waited for where nobody says otherwise.
const USUAL_TIMEOUT: Duration = Duration::from_secs(600);

/// How often flows are counted at most. A table that takes long to list is listed less often.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// How often a drain that the Node asks for and that was refused is tried again, and the disk that took no write.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// How long an order waits for the disk.
const DISK_ANSWERS_IN: Duration = Duration::from_secs(2);

const REMEDY: &str = "mend the disk of [state] folder (df, mount); it is written again every 30 s";

/// So many addresses are named in one sentence.
const MOST_NAMED: usize = 5;

/// The part of the time that counting may take: one in so many.
const COUNTING: u32 = 10;

/// Where the drain of this node is kept across restarts.
fn file(folder: &Path) -> PathBuf {
    folder.join("drain.json")
}

/// There while an operator has taken a drain back that the Node still asks for; with the boot in it, also one that the host asks for.
fn overruled(folder: &Path) -> PathBuf {
    folder.join("undrained")
}

/// The drain that went on when the agent ended, in this boot or an earlier one. Blocks on the disk.
///
/// A file that is there says that an operator took this node out, also where another version wrote it or the disk damaged it. Only
/// `crier undrain` takes that back.
pub(super) fn recall(folder: &Path, this_boot: &str) -> Option<Drain> {
    let file = file(folder);
    let read = state_file::read(&file).and_then(|octets| Ok(serde_json::from_slice::<Drain>(&octets)?));
    match read {
        Ok(Drain { ordered: Ordered::Host { boot, why: _ }, .. }) if boot != this_boot => {
            info!("the host has shut down, and is back: the drain is over");
            // It is over all the same.
            let _ = state_file::remove(&file);
            None
        }
        Ok(drain) => Some(drain),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            warn!(file = %file.display(), %error, "the drain of this node cannot be read; the node is taken as drained");
            let now = clock::wall_timestamp();
            let ordered = Ordered::Unreadable { file, why: error.to_string() };
            Some(Drain { stage: DrainStage::Drained, ordered, since: now, until: now, timed_out: false })
        }
    }
}

/// Everything the task owns.
pub(super) struct Drainer {
    folder: PathBuf,
    drain: Option<Drain>,
    facts: mpsc::Sender<Fact>,
    queries: mpsc::Sender<Query>,
    /// For whoever asks.
    flows: watch::Sender<Flows>,
    /// Whether the node is to leave.
    says: watch::Receiver<NodeSays>,
    boot: String,
    /// The host shuts down, and this drainer knows.
    shuts_down: bool,
    /// Whether such a shutdown need not wait any longer.
    far_enough: watch::Sender<bool>,
    /// Why a drain that the Node asks for is not begun, or one that is under way stands still, as it was told.
    refused: Option<HostProblem>,
    overruled: Overruled,
    /// Why the disk does not have what is in force, and what that means.
    unkept: Option<HostProblem>,
    /// When to write it again.
    keep_again: Option<Instant>,
    /// A write that the disk has not answered.
    writing: Option<JoinHandle<Option<HostProblem>>>,
    /// What was last told of both.
    told: Option<HostProblem>,
    /// See [`UPTAKE`].
    uptake: Duration,
}

impl Drainer {
    /// Who drains by what `folder` says.
    pub fn new(
        folder: PathBuf,
        drain: Option<Drain>,
        facts: mpsc::Sender<Fact>,
        queries: mpsc::Sender<Query>,
        flows: watch::Sender<Flows>,
        says: watch::Receiver<NodeSays>,
        (boot, far_enough): (String, watch::Sender<bool>),
    ) -> Drainer {
        let marker = state_file::read(&overruled(&folder));
        let host = marker.as_ref().is_ok_and(|of_boot| of_boot == boot.as_bytes());
        let overruled = Overruled { node: overruled(&folder).exists(), host };
        let (refused, unkept, keep_again, writing, told) = (None, None, None, None, None);
        let shuts_down = false;
        Drainer {
            folder,
            drain,
            facts,
            queries,
            flows,
            says,
            boot,
            shuts_down,
            far_enough,
            refused,
            overruled,
            unkept,
            keep_again,
            writing,
            told,
            uptake: UPTAKE,
        }
    }
}

/// An operator has taken back a drain that these still ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Overruled {
    node: bool,
    /// A shutdown, in this boot.
    host: bool,
}

/// Who wants a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orderer {
    /// `force`: also where no other node could take over.
    Operator { force: bool },
    /// As far as `[drain]` follows it.
    Asker(Asker),
}

/// By whose word the node is drained once this one has ordered it too. An operator's word outlasts what the Node and the host ask for.
fn also_by(ordered: Ordered, orderer: Orderer) -> Ordered {
    match (ordered, orderer) {
        (ordered, Orderer::Asker(Asker::Node | Asker::Host)) | (ordered @ Ordered::Unreadable { .. }, _) => ordered,
        (ordered, Orderer::Operator { force }) => {
            Ordered::Operator { forced: ordered.is_forced() || force, reason: ordered.reason() }
        }
    }
}

/// What is known of a drain in this life of the agent alone.
struct Progress {
    /// Flows are waited for until then. By the wall clock only from a life of the agent to the next: its steps are none of the flows'
    /// affair.
    until: Instant,
    begun: Instant,
    /// The flows that were open at the first count, as far as they are open still.
    counted: Option<Awaited>,
    handing_over_since: Option<Instant>,
    withdrawing_since: Option<Instant>,
}

impl Progress {
    fn new(timeout: Duration) -> Progress {
        let begun = clock::now();
        Progress { until: begun + timeout, begun, counted: None, handing_over_since: None, withdrawing_since: None }
    }
}

/// Drains when it is ordered, until nobody can order anything.
pub(super) async fn run(mut drainer: Drainer, mut commands: mpsc::Receiver<Command>) {
    let mut progress = Progress::new(drainer.drain.as_ref().map_or(Duration::ZERO, left));
    let mut again = None;
    loop {
        let pause = drainer.go_on(&mut progress).await;
        drainer.tell_host();
        tokio::select! {
            () = follow(&mut drainer.says, again) => {
                let now = drainer.says.borrow_and_update().clone();
                drainer.obey(now, &mut progress, &mut again).await;
            }
            command = commands.recv() => match command {
                Some(Command::Drain { reason, timeout, force, answer }) => {
                    // Whoever ordered it may have gone; it is done all the same.
                    let begun = drainer.drain.is_none();
                    let _ = answer.send(drainer.begin(reason, timeout, Orderer::Operator { force }).await);
                    if begun {
                        progress = Progress::new(timeout.unwrap_or(USUAL_TIMEOUT));
                    } else if let Some(timeout) = timeout {
                        progress.until = clock::now() + timeout;
                    }
                }
                Some(Command::Undrain { answer }) => {
                    let _ = answer.send(drainer.overrule().await);
                }
                None => std::future::pending().await,
            },
            () = at(drainer.keep_again) => drainer.keep().await,
            () = sleep(pause) => {}
        }
    }
}

/// Until the Node says something new, or it is time to try again what was refused.
async fn follow(says: &mut watch::Receiver<NodeSays>, again: Option<Instant>) {
    tokio::select! {
        news = says.changed() => if news.is_err() {
            // The loop is gone, and the agent with it.
            std::future::pending().await
        },
        () = at(again) => {}
    }
}

/// `None` is never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

impl Drainer {
    /// Does what the Node and the host say.
    async fn obey(&mut self, says: NodeSays, progress: &mut Progress, again: &mut Option<Instant>) {
        *again = None;
        self.shuts_down = matches!(says, NodeSays::Out { asker: Asker::Host, .. });
        let overruled = Overruled {
            node: self.overruled.node && says != NodeSays::In,
            host: self.overruled.host && (self.shuts_down || says == NodeSays::Nothing),
        };
        if std::mem::replace(&mut self.overruled, overruled) != overruled {
            self.keep().await;
        }
        match says {
            NodeSays::Nothing => {}
            NodeSays::In => {
                self.tell_refusal(None).await;
                if self.drain.as_ref().is_some_and(|drain| drain.ordered.follows()) {
                    self.take_part(again).await;
                }
            }
            NodeSays::HostStays => {
                self.tell_refusal(None).await;
                if self.is_of_host() {
                    self.take_part(again).await;
                }
            }
            NodeSays::Out { asker: Asker::Node, .. } if self.is_of_host() && self.overruled.node => {
                self.take_part(again).await;
            }
            NodeSays::Out { asker: Asker::Node, why, .. } if self.is_of_host() => {
                // The shutdown is given up, and the Node asks for the same.
                if let Some(drain) = self.drain.clone() {
                    // Where nobody hears of it, the agent stops.
                    let _ = self.move_to(Drain { ordered: Ordered::Node { why }, ..drain }).await;
                }
            }
            NodeSays::Out { timeout, .. } if self.drain.is_some() => {
                let until = clock::now() + timeout;
                if self.shuts_down && until < progress.until {
                    progress.until = until;
                    // Where nobody hears of it, the agent stops.
                    let _ = self.begin(None, Some(timeout), Orderer::Asker(Asker::Host)).await;
                }
            }
            NodeSays::Out { asker: Asker::Host, .. } if self.overruled.host => {}
            NodeSays::Out { asker: Asker::Node, .. } if self.overruled.node => {}
            NodeSays::Out { asker, why, timeout } => {
                match self.begin(Some(why.clone()), Some(timeout), Orderer::Asker(asker)).await {
                    Ok(_) => {
                        info!(reason = why, "drain begun by what [drain] follows");
                        self.tell_refusal(None).await;
                        *progress = Progress::new(timeout);
                    }
                    Err(error) => {
                        self.tell_refusal(Some((&why, &error))).await;
                        *again = Some(clock::now() + TRY_AGAIN);
                    }
                }
            }
        }
    }

    /// Whether the drain ends with the shutdown that it was begun for.
    fn is_of_host(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| matches!(drain.ordered, Ordered::Host { .. }))
    }

    /// Nobody asks for the drain any more.
    async fn take_part(&mut self, again: &mut Option<Instant>) {
        if let Err(error) = self.take_back().await {
            warn!(%error, "nobody asks for the drain any more, but it cannot be ended");
            *again = Some(clock::now() + TRY_AGAIN);
        }
    }

    /// Once there is nothing that a shutdown would have to wait for: the node is drained, or stays as it is.
    fn tell_host(&self) {
        let goes_on = self.drain.as_ref().is_some_and(|drain| drain.stage != DrainStage::Drained);
        let far_enough = self.shuts_down && (!goes_on || self.refused.is_some());
        self.far_enough.send_if_modified(|before| std::mem::replace(before, far_enough) != far_enough);
    }

    /// An operator takes a drain back. What the Node says counts again once it says something else, and a shutdown is something else.
    async fn overrule(&mut self) -> Result<Done, Refusal> {
        self.overruled = match *self.says.borrow() {
            NodeSays::Out { asker: Asker::Host, .. } => Overruled { node: true, host: true },
            NodeSays::Out { asker: Asker::Node, .. } | NodeSays::HostStays => Overruled { node: true, host: false },
            // They may say so once they are heard.
            NodeSays::Nothing => Overruled { node: true, host: self.is_of_host() },
            NodeSays::In => self.overruled,
        };
        if self.drain.is_none() {
            self.keep().await;
        }
        let done = self.take_back().await?;
        Ok(self.with_warning(done))
    }

    /// Writes down what is in force. Where the disk takes no write the node goes on by memory, and says so: a disk that fails is a
    /// reason to drain a node.
    async fn keep(&mut self) {
        let unkept = self.write().await;
        if let Some(unkept) = unkept.as_ref().filter(|it| self.unkept.as_ref() != Some(it)) {
            warn!(%unkept, "the drain could not be saved and is kept in memory only");
        }
        self.unkept = unkept;
        self.keep_again = self.unkept.is_some().then(|| clock::now() + TRY_AGAIN);
        self.tell_problem(self.refused.clone()).await;
    }

    /// A disk that hangs is not waited for: one write is under way at a time, and the next one has what is in force then.
    async fn write(&mut self) -> Option<HostProblem> {
        let hangs = |folder: &Path| HostProblem {
            problem: format!(
                "the state of the drain is in memory alone: the disk of {} does not answer",
                folder.display()
            ),
            remedy: REMEDY.to_owned(),
        };
        if let Some(mut before) = self.writing.take()
            && timeout(DISK_ANSWERS_IN, &mut before).await.is_err()
        {
            self.writing = Some(before);
            return Some(hangs(&self.folder));
        }
        let (folder, drain) = (self.folder.clone(), self.drain.clone());
        let (overruled, boot) = (self.overruled, self.boot.clone());
        let mut writing = spawn_blocking(move || write_down(&folder, drain.as_ref(), overruled, &boot));
        match timeout(DISK_ANSWERS_IN, &mut writing).await {
            Ok(written) => written.unwrap_or_else(|_| Some(hangs(&self.folder))),
            Err(_) => {
                self.writing = Some(writing);
                Some(hangs(&self.folder))
            }
        }
    }

    fn with_warning(&self, mut done: Done) -> Done {
        done.warnings.extend(self.unkept.as_ref().map(ToString::to_string));
        done
    }

    async fn tell_refusal(&mut self, refused: Option<(&str, &Refusal)>) {
        let problem = refused.map(|(why, error)| HostProblem {
            problem: format!("{why}, and this node is not drained: {error}"),
            remedy: match self.shuts_down {
                true => "the shutdown is not held up; `crier drain --force` before it drains the node all the same",
                false => "it is tried again every 30 s; `crier drain --force` drains it all the same",
            }
            .to_owned(),
        });
        self.tell_problem(problem).await;
    }

    /// The drain goes on, or does not and keeps what this node serves.
    async fn tell_standing(&mut self, why: Option<String>) {
        let problem = why.map(|why| HostProblem {
            problem: format!("the drain of this node stands still, and the node goes on serving: {why}"),
            remedy: "bring another node back; `crier drain --force` goes on, `crier undrain` takes the drain back"
                .to_owned(),
        });
        self.tell_problem(problem).await;
    }

    async fn tell_problem(&mut self, refused: Option<HostProblem>) {
        if self.refused != refused {
            if let Some(problem) = &refused {
                warn!(%problem, "not drained");
            }
            self.refused = refused;
        }
        let problem = match (&self.refused, &self.unkept) {
            (Some(one), Some(other)) => Some(HostProblem {
                problem: format!("{}; {}", one.problem, other.problem),
                remedy: format!("{}; {}", one.remedy, other.remedy),
            }),
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        };
        if self.told != problem {
            self.told.clone_from(&problem);
            // The agent stops: nobody to tell.
            let _ = self.facts.send(Fact::Problems(Area::Drain, problem.into_iter().collect())).await;
        }
    }

    async fn begin(
        &mut self,
        reason: Option<String>,
        timeout: Option<Duration>,
        orderer: Orderer,
    ) -> Result<Done, Refusal> {
        if let Some(drain) = self.drain.clone() {
            let mut summary = match drain.stage {
                DrainStage::Drained => format!("the node is already drained, since {:.0}", drain.since),
                stage => format!("the node is already being drained ({}), since {:.0}", stage.code(), drain.since),
            };
            let ordered = also_by(drain.ordered.clone(), orderer);
            if ordered.follows() != drain.ordered.follows() {
                summary.push_str("; it stays so until `crier undrain`, whatever the Node says");
            }
            if ordered.is_forced() != drain.ordered.is_forced() {
                summary.push_str("; it goes on also where no other node serves");
            }
            let until = match (timeout, drain.stage) {
                (None, _) => drain.until,
                (Some(timeout), DrainStage::Waiting) => {
                    let until = clock::wall_timestamp_of(clock::now() + timeout);
                    summary.push_str(&format!("; flows are waited for until {until:.0}"));
                    until
                }
                (Some(_), DrainStage::HandingOver | DrainStage::Withdrawing | DrainStage::Drained) => {
                    summary.push_str("; flows are waited for no longer");
                    drain.until
                }
            };
            if (&ordered, until) != (&drain.ordered, drain.until) {
                self.move_to(Drain { ordered, until, ..drain }).await?;
            }
            return Ok(self.with_warning(Done::new(summary)));
        }
        let snapshot = self.snapshot().await?;
        let ordered = match orderer {
            Orderer::Operator { force } => Ordered::Operator { reason, forced: force },
            Orderer::Asker(Asker::Node) => Ordered::Node { why: reason.unwrap_or_default() },
            Orderer::Asker(Asker::Host) => Ordered::Host { boot: self.boot.clone(), why: reason.unwrap_or_default() },
        };
        if let Some(why) = nobody_else(&snapshot).filter(|_| !ordered.is_forced()) {
            return Err(Refusal::LastNode(why));
        }
        let since = clock::wall_timestamp();
        let until = clock::wall_timestamp_of(clock::now() + timeout.unwrap_or(USUAL_TIMEOUT));
        self.flows.send_replace(Flows::default());
        let stage = DrainStage::Waiting;
        self.move_to(Drain { stage, ordered, since, until, timed_out: false }).await?;
        let mut done = Done::new(format!("draining {}; flows are waited for until {until:.0}", snapshot.node));
        if found_within(&snapshot).is_some() && !snapshot.plan.l2.addresses.is_empty() {
            done.warnings.push(
                "no pulses are sent: this node then ceases to answer on the link, and nobody does for about 3.2 s, until another \
                 node finds that out; one node at a time, for none hears of another's drain"
                    .to_owned(),
            );
        }
        Ok(self.with_warning(done))
    }

    async fn take_back(&mut self) -> Result<Done, Refusal> {
        if self.drain.is_none() {
            return Ok(Done::new("the node is not drained"));
        }
        self.drain = None;
        self.keep().await;
        self.tell_problem(None).await;
        self.flows.send_replace(Flows::default());
        info!("the drain was taken back");
        self.tell().await?;
        Ok(Done::new("the node is back in service"))
    }

    /// One step; how long to wait before the next.
    async fn go_on(&mut self, progress: &mut Progress) -> Duration {
        let Some(drain) = self.drain.clone() else { return Duration::MAX };
        match drain.stage {
            DrainStage::Waiting => {
                let began = clock::now();
                let left = self.count(&mut progress.counted).await;
                let is_over = clock::now() >= progress.until;
                let least = (progress.begun + LEAST_WAIT).saturating_duration_since(clock::now());
                let none_awaited = left.is_some_and(|left| left.awaited == 0);
                if (none_awaited || is_over) && !least.is_zero() {
                    return least;
                }
                if none_awaited || is_over {
                    if !drain.ordered.is_forced() {
                        let Ok(snapshot) = self.snapshot().await else { return Duration::MAX };
                        let why = nobody_else(&snapshot);
                        self.tell_standing(why.clone()).await;
                        if why.is_some() {
                            return COUNT_EVERY;
                        }
                    }
                    let timed_out = !none_awaited;
                    let Left { open, silent, awaited: _ } = left.unwrap_or_default();
                    if none_awaited && open > 0 {
                        info!(
                            flows = open,
                            silent_secs = GIVEN_UP.as_secs(),
                            "flows are not waited for through which nothing comes since routers use other nodes"
                        );
                    }
                    info!(flows_left = open, flows_silent = silent, timed_out, "flows are waited for no longer");
                    let next = Drain { stage: DrainStage::HandingOver, timed_out, ..drain };
                    return self.next(next).await;
                }
                (clock::since(began) * COUNTING).max(COUNT_EVERY)
            }
            DrainStage::HandingOver => {
                let since = *progress.handing_over_since.get_or_insert_with(clock::now);
                let Ok(snapshot) = self.snapshot().await else { return Duration::MAX };
                let left: Vec<IpAddr> = snapshot.plan.l2.addresses.keys().copied().collect();
                // Whoever has not heard that other nodes are to be used would lose the routes without a word.
                let uptake = if self.shuts_down { self.uptake.min(UPTAKE_IN_SHUTDOWN) } else { self.uptake };
                if is_awaited(&snapshot, &untaken(&snapshot)) && clock::since(since) < uptake {
                    return COUNT_EVERY / 5;
                }
                if !left.is_empty() && clock::since(since) < HAND_OVER {
                    return COUNT_EVERY / 5;
                }
                // This node has ceased to answer, and another one finds that nobody does.
                if found_within(&snapshot).is_some_and(|time| clock::since(since) < time) {
                    return COUNT_EVERY / 5;
                }
                if !left.is_empty() && !drain.ordered.is_forced() {
                    self.tell_standing(Some(format!("no other node has taken {}", some(left.iter(), MOST_NAMED))))
                        .await;
                    return COUNT_EVERY;
                }
                if !left.is_empty() {
                    warn!(
                        addresses = some(left.iter(), MOST_NAMED),
                        "no other node took these addresses; they are given up, as the drain was forced"
                    );
                }
                self.tell_standing(None).await;
                progress.handing_over_since = None;
                self.next(Drain { stage: DrainStage::Withdrawing, ..drain }).await
            }
            DrainStage::Withdrawing => {
                let since = *progress.withdrawing_since.get_or_insert_with(clock::now);
                let Ok(snapshot) = self.snapshot().await else { return Duration::MAX };
                let behind = untaken(&snapshot);
                if is_awaited(&snapshot, &behind) && clock::since(since) < self.uptake {
                    return COUNT_EVERY / 5;
                }
                for Untaken { peer, routes } in behind {
                    warn!(%peer, routes, "the peer does not take its withdrawals: it has these routes until its session ends");
                }
                progress.withdrawing_since = None;
                self.next(Drain { stage: DrainStage::Drained, ..drain }).await
            }
            DrainStage::Drained => Duration::MAX,
        }
    }

    async fn next(&mut self, drain: Drain) -> Duration {
        match self.move_to(drain).await {
            Ok(()) => Duration::ZERO,
            Err(error) => {
                warn!(%error, "the drain cannot go on");
                COUNT_EVERY * 10
            }
        }
    }

    /// Keeps the stage on the disk where it takes that, and then tells everybody.
    async fn move_to(&mut self, drain: Drain) -> Result<(), Refusal> {
        self.drain = Some(drain.clone());
        self.keep().await;
        info!(
            stage = drain.stage.code(),
            reason = drain.ordered.reason().as_deref().unwrap_or("none given"),
            "drain: next stage"
        );
        self.tell().await
    }

    async fn tell(&self) -> Result<(), Refusal> {
        let fact = Fact::Drain(self.drain.clone().map(Arc::new));
        self.facts.send(fact).await.map_err(|_| Refusal::Stopping)?;
        // The answer is of a turn that knows the fact.
        self.snapshot().await.map(drop)
    }

    async fn snapshot(&self) -> Result<Snapshot, Refusal> {
        let (asked, answer) = oneshot::channel();
        self.queries.send(Query(asked)).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    /// Which of the flows that were open at the first count are open still; `None` where they cannot be counted.
    async fn count(&self, counted: &mut Option<Awaited>) -> Option<Left> {
        let snapshot = self.snapshot().await.ok()?;
        if !snapshot.plan.bgp.complete {
            // After a start: what is announced is not known yet.
            return None;
        }
        let announcements = || snapshot.plan.decisions.values().flat_map(|it| &it.announcements);
        let addresses: BTreeSet<IpAddr> = announcements().map(|it| it.address).collect();
        // A family that no node announces has no flows, and perhaps nobody who tracks them.
        let is_announced = |it: &&Announcement| it.l2.owner.is_some() || !it.bgp.peers.is_empty();
        let families = announcements().filter(is_announced).map(|it| Family::of(it.address)).collect();
        // What comes over a link as well comes here until another node has the address.
        let routed = addresses.iter().filter(|address| !snapshot.plan.l2.addresses.contains_key(*address));
        let routed: BTreeSet<IpAddr> = routed.copied().collect();
        let listed = spawn_blocking(move || open_flows(&addresses, &families)).await.ok()?;
        match listed {
            Ok(open) => {
                let now = clock::now();
                let first = counted.get_or_insert_with(|| Awaited::new(&open, now));
                let count = first.count();
                let left = first.follow(&open, &routed, now);
                self.flows.send_modify(|flows| {
                    let first = flows.first.unwrap_or(count);
                    *flows =
                        Flows { first: Some(first), left: Some(left.open), silent: Some(left.silent), trouble: None };
                });
                Some(left)
            }
            Err(error) => {
                let trouble = Some(error.to_string());
                self.flows.send_if_modified(|flows| {
                    let news = flows.trouble != trouble;
                    if news {
                        warn!(%error, "flows cannot be counted: the whole time is waited");
                    }
                    flows.trouble = trouble;
                    news
                });
                None
            }
        }
    }
}

/// Of these addresses. Blocks. That there is none is believed only where the kernel would know.
fn open_flows(addresses: &BTreeSet<IpAddr>, families: &BTreeSet<Family>) -> io::Result<HashMap<Flow, Open>> {
    if addresses.is_empty() {
        return Ok(HashMap::new());
    }
    match bypass::unknown_flows(Path::new("/")) {
        Some(why) => Err(io::Error::other(why)),
        None => flows::open(addresses, families),
    }
}

/// How long flows are waited for yet, by the wall clock: never longer than was ordered.
fn left(drain: &Drain) -> Duration {
    let ordered = Duration::try_from(drain.until.duration_since(drain.since)).unwrap_or_default();
    let left = Duration::try_from(drain.until.duration_since(clock::wall_timestamp())).unwrap_or_default();
    left.min(ordered)
}

/// What is in force, on the disk; why it is not there. Blocks.
fn write_down(folder: &Path, in_force: Option<&Drain>, over: Overruled, boot: &str) -> Option<HostProblem> {
    let (drain, marker) = (file(folder), overruled(folder));
    let of_boot = if over.host { boot.as_bytes() } else { b"" };
    let is_overruled = match over {
        Overruled { node: false, host: false } => state_file::remove(&marker),
        _ if state_file::read(&marker).is_ok_and(|kept| kept == of_boot) => Ok(()),
        _ => state_file::replace(&marker, of_boot, Outlasts::PowerLoss),
    };
    let kept = match in_force {
        Some(drained) => keep(&drain, drained),
        None => state_file::remove(&drain),
    };
    let unkept = match (kept, is_overruled) {
        (Ok(()), Ok(())) => None,
        (Err(error), _) if in_force.is_none() => Some((drain, error, "the node is drained again")),
        (Err(error), _) if drain.exists() => Some((drain, error, "the drain goes on from an earlier step")),
        (Err(error), _) => Some((drain, error, "the node is back in service")),
        (Ok(()), Err(error)) if over != Overruled::default() => {
            Some((marker, error, "the node is drained again while its Node is cordoned or tainted"))
        }
        (Ok(()), Err(error)) => Some((marker, error, "the next drain that its Node asks for is not obeyed")),
    };
    unkept.map(|(path, error, then)| HostProblem {
        problem: format!(
            "the state of the drain is in memory alone: cannot write {}: {error}; when the agent restarts, {then}",
            path.display()
        ),
        remedy: REMEDY.to_owned(),
    })
}

fn keep(path: &Path, drain: &Drain) -> io::Result<()> {
    state_file::replace(path, &serde_json::to_vec(drain)?, Outlasts::PowerLoss)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;

    use super::*;
    use crate::config::{NoSecrets, SourceFile, parse};
    use crate::plan::Planner;
    use crate::world::{Marks, Node, SessionReport, SessionState};

    #[test]
    fn a_drain_is_recalled_and_a_file_that_cannot_be_read_is_one() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(recall(folder.path(), "boot"), None);
        let drain = Drain {
            stage: DrainStage::Waiting,
            ordered: Ordered::Operator { reason: Some("new disk".to_owned()), forced: false },
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            timed_out: false,
        };
        keep(&file(folder.path()), &drain).unwrap();
        assert_eq!(recall(folder.path(), "boot"), Some(drain));
        for text in ["", "{\"stage\":", "{\"stage\":\"of another version\"}"] {
            fs::write(file(folder.path()), text).unwrap();
            let recalled = recall(folder.path(), "boot").expect("an operator drained this node");
            assert_eq!(recalled.stage, DrainStage::Drained);
            assert!(matches!(recalled.ordered, Ordered::Unreadable { .. }), "{text}");
            let named = file(folder.path()).display().to_string();
            assert!(recalled.ordered.reason().is_some_and(|reason| reason.starts_with(&named)), "{text}");
        }
    }

    #[test]
    fn after_a_restart_no_step_of_the_clock_makes_the_wait_longer_than_was_ordered() {
        let at = |secs: i64| clock::wall_timestamp() + jiff::SignedDuration::from_secs(secs);
        let drain = |since, until| Drain {
            stage: DrainStage::Waiting,
            ordered: Ordered::default(),
            since,
            until,
            timed_out: false,
        };
        assert_eq!(left(&drain(at(36_000), at(36_600))).as_secs(), 600, "the clock was set back by ten hours");
        assert_eq!(left(&drain(at(-36_600), at(-36_000))), Duration::ZERO);
        assert!((298..=300).contains(&left(&drain(at(-300), at(300))).as_secs()));
    }

    /// A drainer of node-1, beside which there is this Node; what it tells, and what orders it takes.
    struct Bench {
        facts: mpsc::Receiver<Fact>,
        commands: mpsc::Sender<Command>,
        says: watch::Sender<NodeSays>,
        /// Whether a shutdown of the host need not wait any longer.
        shutdown: watch::Receiver<bool>,
        folder: tempfile::TempDir,
    }

    fn ready() -> Node {
        Node { ready: true, ..Node::default() }
    }

    fn bench(other: Option<Node>) -> Bench {
        bench_with(other, |_| {})
    }

    fn bench_with(other: Option<Node>, change: impl FnOnce(&mut Drainer)) -> Bench {
        bench_beside(other, change, watch::channel(None).1)
    }

    /// So many routes wait for a peer that is known to read nothing.
    const STUCK: usize = 7777;

    /// `slow`: how many of its routes a peer of that name has not taken, where there is such a peer.
    fn bench_beside(
        other: Option<Node>,
        change: impl FnOnce(&mut Drainer),
        slow: watch::Receiver<Option<usize>>,
    ) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let (facts_tx, facts) = mpsc::channel(64);
        let (queries, mut asked) = mpsc::channel::<Query>(1);
        let (commands, orders) = mpsc::channel(1);
        let (says, seen) = watch::channel(NodeSays::Nothing);
        let (flows, _) = watch::channel(Flows::default());
        let (far_enough, shutdown) = watch::channel(false);
        let path = folder.path().to_owned();
        let mut drainer = Drainer::new(path, None, facts_tx, queries, flows, seen, ("boot".to_owned(), far_enough));
        change(&mut drainer);
        tokio::spawn(run(drainer, orders));
        tokio::spawn(async move {
            let text = "[manifests]\nfolder = \"/m\"\n[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"slow\"\n\
                        address = \"10.0.0.1\"\nasn = 64512\n"
                .to_owned();
            let config = parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good");
            let mut planner = Planner::new(Arc::new(config), "node-1".into());
            if let Some(node) = other {
                planner.apply(Fact::Node("node-2".into(), Some(Arc::new(node))));
            }
            planner.apply(Fact::LinksListed);
            planner.apply(Fact::FailStatic);
            while let Some(Query(answer)) = asked.recv().await {
                if let Some(pending) = *slow.borrow() {
                    let mut session = SessionReport::new(SessionState::Established, clock::wall());
                    session.detail.prefixes_pending = pending;
                    session.detail.reads_nothing_since = (pending == STUCK).then_some(Timestamp::UNIX_EPOCH);
                    planner.apply(Fact::Session("slow".into(), session));
                }
                planner.turn(clock::now());
                let counters = crate::views::Counters::default();
                let started = Timestamp::UNIX_EPOCH;
                let _ = answer.send(Snapshot::of(&planner, started, counters, clock::now(), clock::wall()));
            }
        });
        Bench { facts, commands, says, shutdown, folder }
    }

    impl Bench {
        async fn fact(&mut self, what: &str) -> Fact {
            let fact = tokio::time::timeout(Duration::from_secs(10), self.facts.recv()).await;
            fact.unwrap_or_else(|_| panic!("nothing is told of {what}")).expect("the drainer runs")
        }

        async fn drained(&mut self) -> Arc<Drain> {
            loop {
                match self.fact("a drain").await {
                    Fact::Drain(Some(drain)) if drain.stage == DrainStage::Drained => return drain,
                    Fact::Drain(Some(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        async fn taken_back(&mut self) {
            assert_eq!(self.fact("the end of the drain").await, Fact::Drain(None));
        }

        async fn silent(&mut self) {
            let wait = tokio::time::timeout(Duration::from_millis(300), self.facts.recv());
            assert!(wait.await.is_err(), "nothing happens");
        }

        fn out(&self) {
            self.says.send_replace(NodeSays::Out {
                asker: Asker::Node,
                why: "the Node is cordoned".to_owned(),
                timeout: Duration::ZERO,
            });
        }

        fn host_shuts_down(&self) {
            let why = "the host shuts down".to_owned();
            self.says.send_replace(NodeSays::Out { asker: Asker::Host, why, timeout: Duration::ZERO });
        }

        async fn held_up(&mut self, expected: bool) {
            let change = self.shutdown.wait_for(|far_enough| *far_enough != expected);
            let change = tokio::time::timeout(Duration::from_secs(10), change).await;
            change.unwrap_or_else(|_| panic!("held up: {}", !expected)).expect("the drainer runs");
        }

        fn back(&self) {
            self.says.send_replace(NodeSays::In);
        }

        async fn order(&self, command: impl FnOnce(oneshot::Sender<Result<Done, Refusal>>) -> Command) -> Done {
            let (answer, answered) = oneshot::channel();
            self.commands.send(command(answer)).await.expect("the drainer runs");
            answered.await.expect("it answers").expect("it is done")
        }

        async fn warned(&mut self) -> String {
            match self.fact("the disk").await {
                Fact::Problems(Area::Drain, problems) if problems.len() == 1 => problems[0].to_string(),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_node_leaves_when_its_node_says_so_and_comes_back_with_it() {
        let mut bench = bench(Some(ready()));
        bench.silent().await;
        bench.out();
        let drain = bench.drained().await;
        assert_eq!(drain.ordered, Ordered::Node { why: "the Node is cordoned".to_owned() });
        bench.back();
        bench.taken_back().await;
        assert_eq!(recall(bench.folder.path(), "boot"), None, "nothing is left on the disk");
    }

    #[tokio::test]
    async fn a_node_leaves_when_its_host_shuts_down_and_is_back_where_it_does_not_and_after_the_boot() {
        let mut bench = bench(Some(ready()));
        bench.host_shuts_down();
        let drain = bench.drained().await;
        assert!(matches!(&drain.ordered, Ordered::Host { boot, .. } if boot == "boot"), "{drain:?}");
        bench.held_up(false).await;
        let kept = recall(bench.folder.path(), "boot");
        assert_eq!(kept.as_ref(), Some(&*drain), "the agent was restarted, and the host goes on shutting down");
        bench.back();
        bench.taken_back().await;
        bench.held_up(true).await;
        bench.host_shuts_down();
        bench.drained().await;
        assert_eq!(recall(bench.folder.path(), "the next"), None);
        assert!(!file(bench.folder.path()).exists(), "the boot is over");
    }

    /// Input: an operator has the node wait for a day, and the host shuts down. Output: the wait is over; the drain outlasts the boot.
    #[tokio::test]
    async fn a_shutdown_ends_the_wait_of_an_operators_drain_which_stays_that() {
        let mut bench = bench(Some(ready()));
        let timeout = Some(Duration::from_secs(86_400));
        bench.order(|answer| Command::Drain { reason: None, timeout, force: false, answer }).await;
        bench.host_shuts_down();
        let drain = bench.drained().await;
        assert!(matches!(drain.ordered, Ordered::Operator { .. }), "{drain:?}");
        bench.held_up(false).await;
        assert_eq!(recall(bench.folder.path(), "the next").as_ref(), Some(&*drain));
        bench.order(|answer| Command::Undrain { answer }).await;
        bench.taken_back().await;
        bench.held_up(false).await;
    }

    /// Input: the node is cordoned, an operator has it serve all the same, and then the host shuts down.
    #[tokio::test]
    async fn a_shutdown_is_something_else_than_the_cordon_that_an_operator_overruled() {
        let mut bench = bench(Some(ready()));
        bench.out();
        bench.drained().await;
        bench.order(|answer| Command::Undrain { answer }).await;
        bench.taken_back().await;
        bench.host_shuts_down();
        let drain = bench.drained().await;
        assert!(matches!(&drain.ordered, Ordered::Host { boot, .. } if boot == "boot"), "{drain:?}");
        bench.held_up(false).await;
        // The shutdown is given up. The Node is cordoned still, and that was overruled.
        bench.out();
        bench.taken_back().await;
        bench.held_up(true).await;
        // An operator overrules the shutdown too, and not the next one.
        bench.host_shuts_down();
        bench.drained().await;
        bench.order(|answer| Command::Undrain { answer }).await;
        bench.taken_back().await;
        bench.held_up(false).await;
        let (why, timeout) = ("the host shuts down".to_owned(), Duration::from_secs(1));
        bench.says.send_replace(NodeSays::Out { asker: Asker::Host, why, timeout });
        bench.silent().await;
        bench.out();
        bench.silent().await;
        bench.host_shuts_down();
        bench.drained().await;
    }

    /// Input: a shutdown is given up while the API server is away; and one while the Node is cordoned.
    #[tokio::test]
    async fn what_the_host_began_ends_with_its_shutdown_whatever_is_known_of_the_node() {
        let mut bench = bench(Some(ready()));
        bench.host_shuts_down();
        bench.drained().await;
        bench.says.send_replace(NodeSays::HostStays);
        bench.taken_back().await;
        bench.host_shuts_down();
        bench.drained().await;
        bench.out();
        let drain = bench.drained().await;
        assert_eq!(drain.ordered, Ordered::Node { why: "the Node is cordoned".to_owned() });
        bench.says.send_replace(NodeSays::HostStays);
        bench.silent().await;
    }

    #[tokio::test]
    async fn the_last_node_holds_no_shutdown_up() {
        let mut bench = bench(None);
        bench.host_shuts_down();
        let told = bench.warned().await;
        assert!(told.starts_with("the host shuts down, and this node is not drained: this is the last node"), "{told}");
        assert!(told.contains("the shutdown is not held up"), "{told}");
        bench.held_up(false).await;
    }

    #[tokio::test]
    async fn an_operator_wins_over_the_node_until_it_says_something_else() {
        let mut bench = bench(Some(ready()));
        bench.out();
        bench.drained().await;
        bench.order(|answer| Command::Undrain { answer }).await;
        bench.taken_back().await;
        // Said once more, as after a restart.
        bench.says.send_replace(NodeSays::Nothing);
        bench.out();
        bench.silent().await;
        bench.back();
        while overruled(bench.folder.path()).exists() {
            tokio::task::yield_now().await;
        }
        bench.out();
        bench.drained().await;
        let summary = bench
            .order(|answer| Command::Drain { reason: None, timeout: Some(Duration::ZERO), force: false, answer })
            .await
            .summary;
        assert!(summary.contains("whatever the Node says"), "{summary}");
        assert!(!bench.drained().await.ordered.follows(), "it is the operator's now");
        bench.back();
        bench.silent().await;
    }

    /// Input: a disk that takes no write, as `drain.json` and what is written beside it cannot be replaced.
    #[tokio::test]
    async fn a_node_whose_disk_takes_no_write_is_drained_and_comes_back_and_says_what_is_not_kept() {
        let mut bench = bench(Some(ready()));
        for name in ["drain.json", "drain.json.new", "undrained.new"] {
            fs::create_dir(bench.folder.path().join(name)).unwrap();
        }
        let done = bench
            .order(|answer| Command::Drain { reason: None, timeout: Some(Duration::ZERO), force: false, answer })
            .await;
        let [warning] = done.warnings.as_slice() else { panic!("{:?}", done.warnings) };
        assert!(warning.contains("is in memory alone: cannot write ") && warning.contains("drain.json"), "{warning}");
        assert!(done.summary.starts_with("draining node-1"), "{}", done.summary);
        assert_eq!(bench.warned().await, *warning, "status says it too");
        bench.drained().await;
        let done = bench.order(|answer| Command::Undrain { answer }).await;
        let [warning] = done.warnings.as_slice() else { panic!("{:?}", done.warnings) };
        assert!(warning.contains("when the agent restarts, the node is drained again"), "{warning}");
        assert_eq!(done.summary, "the node is back in service");
        assert_eq!(bench.warned().await, *warning);
        bench.taken_back().await;
        bench.out();
        bench.silent().await;
    }

    /// Input: a write to a disk that does not answer. Output: an order is obeyed by memory and says so.
    #[tokio::test]
    async fn a_node_whose_disk_hangs_is_drained_by_memory() {
        let (answers, hangs) = std::sync::mpsc::channel::<()>();
        let mut bench = bench_with(Some(ready()), |drainer| {
            drainer.writing = Some(spawn_blocking(move || {
                let _ = hangs.recv();
                None
            }));
        });
        let done = bench
            .order(|answer| Command::Drain { reason: None, timeout: Some(Duration::ZERO), force: false, answer })
            .await;
        let [warning] = done.warnings.as_slice() else { panic!("{:?}", done.warnings) };
        assert!(
            warning.contains("is in memory alone: the disk of ") && warning.contains("does not answer"),
            "{warning}"
        );
        assert_eq!(bench.warned().await, *warning, "status says it too");
        bench.drained().await;
        assert!(!file(bench.folder.path()).exists());
        drop(answers);
    }

    /// Input: a peer reads nothing; and one that reads at last.
    #[tokio::test]
    async fn routers_are_waited_for_until_they_have_taken_their_withdrawals_or_for_a_time() {
        let now = Some(Duration::ZERO);
        let drain = |answer| Command::Drain { reason: None, timeout: now, force: false, answer };
        let (_stuck, slow) = watch::channel(Some(9999));
        let mut bench = bench_beside(Some(ready()), |drainer| drainer.uptake = Duration::from_millis(400), slow);
        let began = clock::now();
        bench.order(drain).await;
        bench.drained().await;
        let took = clock::now().duration_since(began);
        assert!(
            took >= LEAST_WAIT + Duration::from_millis(800),
            "for the community, and for the withdrawals: {took:?}"
        );
        let (reads, slow) = watch::channel(Some(9999));
        let mut bench = bench_beside(Some(ready()), |drainer| drainer.uptake = Duration::from_secs(60), slow);
        bench.order(drain).await;
        let stage = |fact| match fact {
            Fact::Drain(Some(drain)) => drain.stage,
            other => panic!("{other:?}"),
        };
        assert_eq!(stage(bench.fact("the drain").await), DrainStage::Waiting);
        assert_eq!(stage(bench.fact("the drain").await), DrainStage::HandingOver);
        bench.silent().await;
        reads.send_replace(Some(0));
        assert_eq!(stage(bench.fact("the drain").await), DrainStage::Withdrawing);
        assert_eq!(stage(bench.fact("the drain").await), DrainStage::Drained);
    }

    /// Input: a slow router, and a clock of tests, which goes on only where everybody waits. Output: it is waited for by that clock.
    #[tokio::test(start_paused = true)]
    async fn routers_are_waited_for_by_the_clock_that_timers_follow() {
        let (_stuck, slow) = watch::channel(Some(9999));
        let uptake = Duration::from_secs(5);
        let mut bench = bench_beside(Some(ready()), |drainer| drainer.uptake = uptake, slow);
        let began = clock::now();
        bench
            .order(|answer| Command::Drain { reason: None, timeout: Some(Duration::ZERO), force: false, answer })
            .await;
        bench.drained().await;
        let took = clock::since(began);
        assert!((uptake * 2..uptake * 3).contains(&took), "for the community, and for the withdrawals: {took:?}");
    }

    /// Input: a peer that is known to read nothing. Output: the others are not kept waiting for it. They were, twice.
    #[tokio::test]
    async fn a_router_that_reads_nothing_is_not_waited_for() {
        let drain = |answer| Command::Drain { reason: None, timeout: Some(Duration::ZERO), force: false, answer };
        let (_stuck, slow) = watch::channel(Some(STUCK));
        let mut bench = bench_beside(Some(ready()), |drainer| drainer.uptake = Duration::from_secs(60), slow);
        bench.order(drain).await;
        bench.drained().await;
    }

    /// Input: a slow router, and the host shuts down, which waits for seconds. Output: routes are withdrawn in that time.
    #[tokio::test]
    async fn a_host_that_shuts_down_does_not_go_before_the_routes_for_a_slow_router() {
        let (reads, slow) = watch::channel(Some(9999));
        let mut bench = bench_beside(Some(ready()), |drainer| drainer.uptake = Duration::from_secs(60), slow);
        bench.host_shuts_down();
        for expected in [DrainStage::Waiting, DrainStage::HandingOver, DrainStage::Withdrawing] {
            let fact = bench.fact("the drain").await;
            assert!(matches!(&fact, Fact::Drain(Some(drain)) if drain.stage == expected), "{expected:?}: {fact:?}");
        }
        reads.send_replace(Some(0));
        bench.drained().await;
    }

    #[tokio::test]
    async fn another_time_for_flows_is_taken_while_they_are_waited_for() {
        let mut bench = bench(Some(ready()));
        let drain = |timeout| move |answer| Command::Drain { reason: None, timeout, force: false, answer };
        let until = |fact| match fact {
            Fact::Drain(Some(drain)) if drain.stage == DrainStage::Waiting => drain.until,
            other => panic!("{other:?}"),
        };
        bench.order(drain(Some(Duration::from_secs(86_400)))).await;
        let first = until(bench.fact("the drain").await);
        assert!(!bench.order(drain(None)).await.summary.contains("until"), "nothing is new");
        let summary = bench.order(drain(Some(Duration::ZERO))).await.summary;
        assert!(summary.contains("(waiting)") && summary.contains("; flows are waited for until 2"), "{summary}");
        assert!(until(bench.fact("the new time").await) < first);
        bench.drained().await;
        let summary = bench.order(drain(Some(Duration::ZERO))).await.summary;
        assert!(summary.ends_with("; flows are waited for no longer"), "{summary}");
    }

    #[tokio::test]
    async fn the_last_node_is_not_drained_because_its_node_says_so_and_that_is_told() {
        let mut bench = bench(None);
        bench.out();
        match bench.fact("the refusal").await {
            Fact::Problems(Area::Drain, problems) if problems.len() == 1 => {
                let text = problems[0].to_string();
                assert!(text.starts_with("the Node is cordoned, and this node is not drained: "), "{text}");
                assert!(text.contains("crier drain --force"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        bench.back();
        assert_eq!(bench.fact("its end").await, Fact::Problems(Area::Drain, Vec::new()));
    }

    #[tokio::test]
    async fn a_node_that_leaves_itself_is_none_that_would_serve() {
        let marks = Marks { drain: Some("drained, since 2026-11-28T15:00:00Z".to_owned()), ..Marks::default() };
        let bench = bench(Some(Node { marks, ..ready() }));
        let (answer, answered) = oneshot::channel();
        let command = Command::Drain { reason: None, timeout: Some(Duration::ZERO), force: false, answer };
        bench.commands.send(command).await.expect("the drainer runs");
        let refused = answered.await.expect("it answers").expect_err("it is the last");
        assert!(refused.to_string().contains("no other Node is Ready and stays"), "{refused}");
    }
}
