//! Keeps crier's table in nftables as the egress slice wants it, and conntrack free of what is translated otherwise. Floor 2. An
//! actuator; what it holds to be in the kernel changes only after the kernel said yes.
//!
//! | task or thread | owner     | owns                                | when cancelled                                               |
//! |----------------|-----------|-------------------------------------|--------------------------------------------------------------|
//! | `run`          | the agent | the end of the keeper               | the keeper ends as below                                     |
//! | keeper         | `run`     | the sockets, the machine, a file    | the table stays: pods go on as they were, and none is let go |
//!
//! The keeper is a thread: the kernel's answers are read as they come, and a list of all that conntrack knows takes seconds. No timer of
//! BGP, which the agent's other threads drive, waits for that.
//!
//! Where the kernel can (Linux 6.9 or later) the table belongs to the task's socket, so a flush by others passes it over. Elsewhere
//! a flush is noticed by the kernel's message and the table put back at once.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, warn};

use super::counters::Counters;
use super::keepalive::{self, Keepalives};
use super::kept::HeldFile;
use super::machine::{Guarded, Machine, Release};
use super::packet::{Connection, Ends};
use super::ruleset::{self, Content, Count, Form, Hold, Ownership, TunnelDevice};
use super::socket::{Changes, Netfilter, ToPods};
use super::stale::{Judge, Relisted, changed, judged};
use super::standing::{Absence, Standing};
use crate::clock;
use crate::config::EgressSettings;
use crate::plan::slice::EgressSlice;
use crate::world::{Area, Fact, HeldPod, HostProblem};

/// How long to wait before a refused change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The same while the guard does not count as absent yet.
const FIRST_RETRIES: Duration = Duration::from_millis(200);

/// How often the kernel's counters are read while pods are held to addresses.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// After so many readings the chains of other programs are looked at.
const LOOK_EVERY: u32 = 5;

/// Of so many pods of IPv4 conntrack is asked one by one; of more, for all its connections.
const ONE_BY_ONE: usize = 8;

/// What the configuration says of the table.
pub fn form(settings: &EgressSettings) -> Form {
    Form {
        table: settings.table.clone(),
        priority: settings.priority,
        mark_mask: settings.mark_mask,
        marks: (1..=settings.slots()).map(|slot| settings.mark(slot)).collect(),
        tunnel: settings
            .tunnel
            .as_ref()
            .map(|device| TunnelDevice { name: device.to_string(), port: settings.tunnel_port }),
    }
}

/// Takes the table away, if there is one, and ends the connections that left as it had them: for `crier cleanup`, when no agent runs. The
/// answer counts these; nothing where there is no table.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, or while an agent runs that the table belongs to.
pub fn take_away(settings: &EgressSettings) -> io::Result<Option<usize>> {
    let (form, mut kernel) = (form(settings), Netfilter::open()?);
    if !kernel.has_table(&form)? {
        return Ok(None);
    }
    if kernel.is_foreign(&form)? {
        return Err(foreign(&form));
    }
    let last = kernel.last(&form)?;
    kernel.commit(&ruleset::remove(&form))?;
    end(&mut kernel, &last.pods, |connection| last.is_over(connection)).map(Some)
}

/// Follows the slice for ever. May be dropped at any time. `filtered`: whether the table holds what keeps strangers out of the tunnel,
/// without which its device is not made.
pub async fn run(
    slices: watch::Receiver<EgressSlice>,
    settings: EgressSettings,
    facts: mpsc::Sender<Fact>,
    counters: Arc<Counters>,
    filtered: watch::Sender<bool>,
    past: Past,
) {
    let keeping = keep(slices, settings, facts.clone(), counters, filtered, past);
    // Held for as long as this is wanted.
    let (_wanted, unwanted) = oneshot::channel();
    match on_thread(keeping, unwanted) {
        // A panic, which has printed why. The agent ends with it: nobody would hold pods to their addresses.
        Ok(ended) => drop(ended.await),
        Err(error) => {
            let problem = HostProblem {
                problem: format!(
                    "no thread can be started for egress, so pods may send with addresses that are not their Service's: {error}"
                ),
                remedy: "let crier have more threads (TasksMax= of its unit, pids.max of its cgroup), and restart it"
                    .to_owned(),
            };
            warn!(%problem, "the guard of egress does not stand");
            // Nobody takes facts any more only when the agent ends.
            let _ = facts.send(Fact::Problems(Area::Egress, vec![problem])).await;
            pending().await
        }
    }
}

/// Works on a thread of its own until `unwanted` is told or its sender is gone. The answer ends when the thread does.
fn on_thread(
    work: impl Future<Output = ()> + Send + 'static,
    unwanted: oneshot::Receiver<()>,
) -> io::Result<oneshot::Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ending, ended) = oneshot::channel();
    std::thread::Builder::new().name("egress".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                () = work => {}
                _ = unwanted => {}
            }
        });
        drop(ending);
    })?;
    Ok(ended)
}

/// What [`run`] does, on the thread of the keeper.
async fn keep(
    mut slices: watch::Receiver<EgressSlice>,
    settings: EgressSettings,
    facts: mpsc::Sender<Fact>,
    counters: Arc<Counters>,
    filtered: watch::Sender<bool>,
    Past { former, kept }: Past,
) {
    let mut keeper = Keeper {
        form: form(&settings),
        machine: Machine::new(settings.release_after),
        ownership: Ownership::Socket,
        second: false,
        counters,
        filtered,
        facts,
        standing: Standing::default(),
        told: None,
        kept,
        told_held: BTreeMap::new(),
        told_translated: None,
        ended: BTreeSet::new(),
        keepalives: Keepalives::default(),
        to_pods: ToPods::open().inspect_err(|error| debug!(%error, "pods cannot be asked for their connections")).ok(),
        judged: Arc::default(),
        rules_changed: true,
        counts: 0,
        adopted: false,
        made: false,
        former,
    };
    loop {
        let error = keeper.follow(&mut slices).await;
        keeper.counters.hold(None);
        keeper.tell_translated(None).await;
        keeper.filtered.send_replace(false);
        // Without egress nobody needs to know that this host could not do it.
        let is_unwanted = {
            let slice = slices.borrow();
            slice.pods.is_empty() && slice.networks.is_empty() && slice.hold.is_none()
        };
        if is_unwanted && keeper.machine.is_idle() {
            debug!(%error, "nftables cannot be used");
            keeper.standing.handle_unneeded();
            keeper.tell().await;
            if slices.changed().await.is_err() {
                pending::<()>().await;
            }
        } else {
            keeper.standing.handle_refused(error.to_string(), clock::now());
            keeper.tell().await;
        }
        sleep(if keeper.told.is_some() { RETRY_INTERVAL } else { FIRST_RETRIES }).await;
    }
}

struct Keeper {
    form: Form,
    machine: Machine,
    ownership: Ownership,
    /// There is a second guard, which no flush takes along: where the table does not belong to the socket.
    second: bool,
    counters: Arc<Counters>,
    filtered: watch::Sender<bool>,
    facts: mpsc::Sender<Fact>,
    standing: Standing,
    /// The absence that the World knows.
    told: Option<Absence>,
    kept: HeldFile,
    /// The addresses that the World knows to be held for nobody.
    told_held: BTreeMap<IpAddr, Release>,
    /// The addresses that the World knows to be given to packets of pods here.
    told_translated: Option<Arc<BTreeSet<IpAddr>>>,
    /// The pods that nobody asks for any more, with their connections ended.
    ended: BTreeSet<IpAddr>,
    keepalives: Keepalives,
    /// `None` where such sockets cannot be had: then pods that only listen wait.
    to_pods: Option<ToPods>,
    /// What the connections of pods were judged by the last time. It outlasts a table that others remove, and at the start it is what
    /// an earlier life guarded, with the destinations.
    judged: Arc<Content>,
    /// Somebody has changed rules since the chains of other programs were looked at.
    rules_changed: bool,
    /// How often the kernel's counters were read.
    counts: u32,
    /// The pods that an earlier life guarded are known.
    adopted: bool,
    /// The table is this task's work: whatever it lacks, somebody took away.
    made: bool,
    former: Option<Former>,
}

/// What earlier agents left.
#[derive(Debug)]
pub struct Past {
    pub former: Option<Former>,
    pub kept: HeldFile,
}

/// The table of an earlier agent that had another name for it.
#[derive(Debug)]
pub struct Former {
    pub settings: EgressSettings,
    /// Told once it is gone.
    pub gone: oneshot::Sender<()>,
}

fn foreign(form: &Form) -> io::Error {
    let words = format!("the table inet {} is another program's, and stays as it is", form.table);
    io::Error::new(io::ErrorKind::AlreadyExists, words)
}

impl Keeper {
    /// Works until the kernel refuses something, and answers with the error.
    async fn follow(&mut self, slices: &mut watch::Receiver<EgressSlice>) -> io::Error {
        match self.follow_slices(slices).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow_slices(
        &mut self,
        slices: &mut watch::Receiver<EgressSlice>,
    ) -> io::Result<std::convert::Infallible> {
        // Before anything is looked at, so that no change is missed.
        let mut changes = Changes::open()?;
        let mut kernel = Netfilter::open()?;
        self.adopt(&mut kernel)?;
        let sources = self.machine.former_sources();
        if !sources.is_empty() {
            // Nobody takes facts any more only when the agent ends.
            let _ = self.facts.send(Fact::EgressSources(sources)).await;
        }
        // What the kernel holds; `None` where it is not known to hold the table as a whole.
        let mut written: Option<Arc<Content>> = None;
        let mut count_at = clock::now() + COUNT_INTERVAL;
        loop {
            let slice = slices.borrow_and_update().clone();
            if slice.planned {
                self.machine.handle_plan(&slice, clock::now());
                let changed = self.write(&mut kernel, &mut written)?;
                // The nodes of other pods wait for that, and it is so by now.
                self.tell_translated(written.as_deref()).await;
                if let Some(changed) = changed {
                    self.end_connections(&mut kernel, changed)?;
                }
                self.drop_former(&mut kernel)?;
                self.counters.hold(written.clone());
                let is_filtered = written.as_ref().is_some_and(|content| content.tunnel.is_some());
                self.filtered.send_if_modified(|was| std::mem::replace(was, is_filtered) != is_filtered);
                match &written {
                    Some(_) => self.standing.handle_written(),
                    None => self.standing.handle_unneeded(),
                }
                self.kept.write(&self.machine.kept(clock::now()), clock::since_boot());
                self.tell_held().await;
            }
            self.tell().await;
            // One that is past was looked at just now.
            let calm = self.standing.next_deadline().filter(|due| *due > clock::now());
            let wake =
                self.machine.next_deadline().into_iter().chain(calm).chain(self.keepalives.next_deadline()).min();
            tokio::select! {
                changed = slices.changed() => if changed.is_err() {
                    pending::<()>().await;
                },
                changed = changes.changed() => {
                    changed?;
                    self.rules_changed = true;
                    if written.is_some() && !kernel.is_whole(&self.form)? {
                        warn!(table = %self.form.table, "another program removed rules of crier's table; they are put back");
                        self.standing.handle_removed(clock::now());
                        self.counters.hold(None);
                        written = None;
                    }
                }
                () = sleep_until(wake.unwrap_or_else(clock::now).into()), if wake.is_some() => {
                    self.machine.handle_timeout(clock::now());
                    self.ask_pods();
                }
                () = sleep_until(count_at.into()), if written.is_some() => {
                    count_at = clock::now() + COUNT_INTERVAL;
                    self.count(&mut kernel)?;
                }
            }
        }
    }

    /// What an earlier life of the agent guarded goes on being guarded.
    fn adopt(&mut self, kernel: &mut Netfilter) -> io::Result<()> {
        if self.adopted {
            return Ok(());
        }
        let former: Vec<Form> = self.former.iter().map(|former| form(&former.settings)).collect();
        let kept = self.kept.read(clock::since_boot());
        for form in former.iter().chain([&self.form]) {
            let bounded = kernel.bounded(form)?;
            for (count, set) in ruleset::counted(form) {
                if count == Count::Dropped {
                    let guarded = kernel.elements(&set)?.into_iter().map(|(pod, _)| {
                        let (destinations, kept) = (bounded.get(&pod).cloned(), kept.get(&pod).copied());
                        Guarded { pod, destinations, kept }
                    });
                    self.machine.handle_held(guarded, clock::now());
                }
            }
        }
        // The way there leads by the former numbers, where these are others.
        if former.is_empty() {
            self.machine.handle_ways(kernel.ways(&self.form)?, clock::now());
        }
        let mut judged = self.machine.content().clone();
        for form in former.iter().chain([&self.form]) {
            let hold = kernel.hold(form)?;
            if !hold.networks.is_empty() {
                judged.hold = hold.clone();
                self.machine.handle_hold(hold);
            }
        }
        self.judged = Arc::new(judged);
        self.adopted = true;
        Ok(())
    }

    /// Has the table hold what it is to hold. The answer says whose packets that concerns; nothing where all stays as it is.
    fn write(&mut self, kernel: &mut Netfilter, written: &mut Option<Arc<Content>>) -> io::Result<Option<Changed>> {
        let wanted = self.machine.content().clone();
        if self.machine.is_idle() {
            // An earlier life may have guarded pods that are held for nobody by now, or held new ones, and then nothing was written yet.
            let is_left = !self.judged.pods.is_empty() || !self.judged.hold.networks.is_empty();
            let is_there =
                written.is_some() || (is_left && kernel.has_table(&self.form)? && !kernel.is_foreign(&self.form)?);
            if is_there {
                kernel.commit(&ruleset::remove(&self.form))?;
                let second = ruleset::second(&self.form);
                if std::mem::take(&mut self.second) && kernel.has_table(&second)? {
                    kernel.commit(&ruleset::remove(&second))?;
                }
                *written = None;
                self.counters.tell_earlier(Vec::new());
                self.counters.tell_later_marks(Vec::new());
                self.forget_former(kernel, &wanted)?;
                self.judged = Arc::default();
                info!(table = %self.form.table, "no pod is held to a Service's address, and there is no extra network; the nftables table is removed");
                self.counters.read_new_pods([]);
            }
            return Ok(None);
        }
        let released: BTreeSet<IpAddr> = self.machine.released().keys().copied().collect();
        let (before, content) = (written.clone(), Arc::new(wanted));
        let known = before.clone().unwrap_or_else(|| self.judged.clone());
        if let Some(Relisted { pods, holding }) = Relisted::of(&known, &content) {
            self.put(kernel, written, Arc::new(holding))?;
            let judge = Judge { before: &self.judged, content: &content, pods: &pods, released: &released };
            forget_stale(kernel, judge, &BTreeSet::new())?;
        }
        // As the table is made, and after an error, it is not sure where its pods' packets went until now.
        let moved = keepalive::moved(&known, &content, before.is_some());
        let is_same = self.put(kernel, written, content.clone())?;
        if is_same && moved.is_empty() && released.is_subset(&self.ended) {
            return Ok(None);
        }
        let mut pods = match &before {
            Some(before) => changed(before, &content),
            None => content.pods.keys().copied().collect(),
        };
        pods.extend(&moved);
        // What waits for its way keeps its connections until it is known to wait for none.
        pods.extend(released.difference(&self.ended));
        Ok(Some(Changed { content, pods, moved, released }))
    }

    /// One change: the table holds this. Whether it does already.
    fn put(
        &mut self,
        kernel: &mut Netfilter,
        written: &mut Option<Arc<Content>>,
        content: Arc<Content>,
    ) -> io::Result<bool> {
        match written {
            Some(before) => {
                let batch = ruleset::change(&self.form, before, &content);
                if batch.is_empty() {
                    *written = Some(content);
                    return Ok(true);
                }
                kernel.commit(&batch)?;
                let second = ruleset::change(&ruleset::second(&self.form), before, &content);
                if self.second && kernel.commit(&second).is_err() {
                    self.make_second(kernel, &content);
                }
            }
            None => self.make(kernel, &content)?,
        }
        *written = Some(content);
        Ok(false)
    }

    /// Ends the connections that the table leads otherwise now, and has pods that only listen say something.
    fn end_connections(&mut self, kernel: &mut Netfilter, changed: Changed) -> io::Result<()> {
        let Changed { content, pods, moved, released } = changed;
        let judge = Judge { before: &self.judged, content: &content, pods: &pods, released: &released };
        let connections = forget_stale(kernel, judge, &moved)?;
        self.keepalives.begin(connections, clock::now());
        self.ended = released;
        self.forget_former(kernel, &content)?;
        self.judged = judged(&self.judged, content);
        Ok(())
    }

    fn forget_former(&mut self, kernel: &mut Netfilter, content: &Content) -> io::Result<()> {
        let (let_go, released) = (self.machine.take_let_go(), BTreeSet::new());
        forget_former(kernel, Judge { before: &self.judged, content, pods: &let_go, released: &released })
    }

    /// Makes the whole table in one change; one that is there is replaced in the same change.
    fn make(&mut self, kernel: &mut Netfilter, wanted: &Content) -> io::Result<()> {
        let replaces = kernel.has_table(&self.form)?;
        if !self.made && kernel.is_foreign(&self.form)? {
            return Err(foreign(&self.form));
        }
        let made = kernel.commit(&ruleset::whole(&self.form, wanted, self.ownership, replaces));
        match made {
            Err(error) if self.ownership == Ownership::Socket && error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                info!(
                    "this kernel has no tables that belong to a socket (Linux 6.9): a flush by others is mended after it was made"
                );
                self.ownership = Ownership::None;
                kernel.commit(&ruleset::whole(&self.form, wanted, self.ownership, replaces))?;
            }
            made => made?,
        }
        self.made = true;
        self.make_second(kernel, wanted);
        info!(table = %self.form.table, pods = wanted.pods.len(), "the nftables table for egress is made");
        Ok(())
    }

    /// Makes the second guard, where a flush by others takes the table along. Without it packets pass until the table is back.
    fn make_second(&mut self, kernel: &mut Netfilter, wanted: &Content) {
        let form = ruleset::second(&self.form);
        let mut make = || {
            if kernel.is_foreign(&form)? {
                return Err(foreign(&form));
            }
            let replaces = kernel.has_table(&form)?;
            kernel.commit(&ruleset::whole(&form, wanted, Ownership::Life, replaces))
        };
        let is_removable = self.ownership == Ownership::None;
        let made = if is_removable { make() } else { Ok(()) };
        if let Err(error) = &made {
            warn!(table = %form.table, %error, "there is no second guard: while a flush by others is mended, packets of pods pass");
        }
        self.second = is_removable && made.is_ok();
        self.counters.tell_removable(is_removable && made.is_err());
    }

    /// The table of this configuration stands: that of an earlier one would go on translating, and nobody would look after it.
    fn drop_former(&mut self, kernel: &mut Netfilter) -> io::Result<()> {
        let Some(former) = &self.former else { return Ok(()) };
        let form = form(&former.settings);
        if form.table != self.form.table && kernel.has_table(&form)? && !kernel.is_foreign(&form)? {
            kernel.commit(&ruleset::remove(&form))?;
            info!(table = %form.table, "the nftables table of a former configuration is removed");
        }
        // Whoever waits may have gone with the agent.
        let _ = self.former.take().map(|former| former.gone.send(()));
        Ok(())
    }

    /// Asks pods whose connections go another way now.
    fn ask_pods(&mut self) {
        let due = self.keepalives.handle_timeout(clock::now());
        for ends in due {
            if let Some(Err(error)) = self.to_pods.as_ref().map(|to_pods| to_pods.ask(ends)) {
                debug!(%error, pod = %ends.pod, "a pod cannot be asked for its connection");
            }
        }
    }

    fn count(&mut self, kernel: &mut Netfilter) -> io::Result<()> {
        for (count, set) in ruleset::counted(&self.form) {
            self.counters.read(count, kernel.elements(&set)?);
        }
        let mut held = Vec::new();
        for set in Hold::held(&self.form) {
            held.extend(kernel.elements(&set)?);
        }
        self.counters.read_new_pods(held);
        let pods = &self.machine.content().pods;
        self.counters.keep(|pod| pods.contains_key(pod));
        self.look_for_earlier(kernel);
        Ok(())
    }

    /// Looks for chains of other programs that translate before crier's does, at most every ten seconds: of some programs rules change
    /// all the time, and they have many chains.
    fn look_for_earlier(&mut self, kernel: &mut Netfilter) {
        if self.machine.content().pods.is_empty() {
            // It does not matter where nothing is guarded.
            self.counters.tell_earlier(Vec::new());
            self.counters.tell_later_marks(Vec::new());
            self.rules_changed = true;
            return;
        }
        let is_due = self.counts.is_multiple_of(LOOK_EVERY) && self.rules_changed;
        self.counts = self.counts.wrapping_add(1);
        if !is_due {
            return;
        }
        match kernel.earlier(&self.form) {
            Ok(chains) => {
                if !chains.is_empty() && *self.counters.earlier() != chains {
                    warn!(
                        ?chains,
                        "other programs translate sources before crier does: what they translate of pods with egress is dropped"
                    );
                }
                self.counters.tell_earlier(chains);
                self.rules_changed = false;
            }
            Err(error) => debug!(%error, "the chains of other programs cannot be listed"),
        }
        match kernel.later_marks(&self.form) {
            Ok(chains) => {
                if !chains.is_empty() && *self.counters.later_marks() != chains {
                    warn!(?chains, "other programs may mark packets of pods with egress anew: these are dropped then");
                }
                self.counters.tell_later_marks(chains);
            }
            Err(error) => debug!(%error, "the rules of other programs cannot be listed"),
        }
    }

    /// Tells the World which addresses are held for nobody, where that is news.
    async fn tell_held(&mut self) {
        let released = self.machine.released();
        if self.told_held == *released {
            return;
        }
        self.told_held.clone_from(released);
        let (now, wall) = (clock::now(), clock::wall());
        let held = released.iter().map(|(address, Release { due, pod })| {
            let until = wall.checked_add(due.saturating_duration_since(now)).unwrap_or(wall);
            (*address, HeldPod { until, pod: *pod })
        });
        // Nobody takes facts any more only when the agent ends.
        let _ = self.facts.send(Fact::EgressHeld(Arc::new(held.collect()))).await;
    }

    /// Tells the World which addresses pods' packets leave with here, by a table that stands, where that is news.
    async fn tell_translated(&mut self, written: Option<&Content>) {
        let addresses = written.map(Content::translated).unwrap_or_default();
        if self.told_translated.as_deref() == Some(&addresses) {
            return;
        }
        let addresses = Arc::new(addresses);
        self.told_translated = Some(addresses.clone());
        // Nobody takes facts any more only when the agent ends.
        let _ = self.facts.send(Fact::EgressTranslated(addresses)).await;
    }

    /// Tells the World whether the guard stands, where that is news.
    async fn tell(&mut self) {
        let absence = self.standing.absence(clock::now());
        if self.told == absence {
            return;
        }
        let table = &self.form.table;
        let problem = absence.as_ref().map(|absence| match absence {
            Absence::Refused { why } => HostProblem {
                problem: format!(
                    "the nftables table {table} for egress cannot be written, so pods may send with addresses that are not \
                     their Service's: {why}"
                ),
                remedy: "give crier CAP_NET_ADMIN, load nf_tables, nft_ct and nft_nat, and choose a name that no other program uses \
                         ([egress] table), another agent on this host included"
                    .to_owned(),
            },
            Absence::Removed => HostProblem {
                problem: format!(
                    "another program removes the nftables table {table} for egress again and again, so pods may send with \
                     addresses that are not their Service's until it is put back"
                ),
                remedy: "`nft monitor` shows the program: let it flush its own tables alone. From Linux 6.9 on a flush passes \
                         crier's table over"
                    .to_owned(),
            },
        });
        match &problem {
            Some(problem) => warn!(%problem, "the guard of egress does not stand"),
            None => info!(table, "the guard of egress stands again"),
        }
        self.told = absence;
        // Nobody takes facts any more only when the agent ends.
        let _ = self.facts.send(Fact::Problems(Area::Egress, problem.into_iter().collect())).await;
    }
}

/// What the table holds since a change.
struct Changed {
    content: Arc<Content>,
    /// The pods whose connections may have to end.
    pods: BTreeSet<IpAddr>,
    /// Those that leave by another owner.
    moved: BTreeSet<IpAddr>,
    /// Those that nobody asks for any more.
    released: BTreeSet<IpAddr>,
}

/// Ends the connections to the outside that leave with another source than they are to. The answer has the connections of TCP of the
/// pods that have moved, as far as they go on.
fn forget_stale(kernel: &mut Netfilter, judge: Judge<'_>, moved: &BTreeSet<IpAddr>) -> io::Result<Vec<Ends>> {
    let mut going_on = Vec::new();
    let ended = end(kernel, judge.pods, |connection| {
        if going_on.len() < keepalive::MOST && moved.contains(&connection.source) && judge.is_egress(connection) {
            going_on.extend(connection.tcp);
        }
        judge.is_stale(connection)
    })?;
    if ended > 0 {
        info!(connections = ended, "ended connections of pods that left with another address");
    }
    Ok(going_on)
}

/// Ends the connections to the outside of the pods that had these addresses before those that have them now.
fn forget_former(kernel: &mut Netfilter, judge: Judge<'_>) -> io::Result<()> {
    let addresses = judge.pods;
    if addresses.is_empty() {
        return Ok(());
    }
    let ended = end(kernel, addresses, |connection| judge.is_former(connection))?;
    info!(
        ?addresses,
        connections = ended,
        "released addresses that were held for no Service and belong to other pods now"
    );
    Ok(())
}

/// Ends those connections of the pods that are to end. The answer counts them.
fn end(
    kernel: &mut Netfilter,
    pods: &BTreeSet<IpAddr>,
    mut is_to_end: impl FnMut(&Connection) -> bool,
) -> io::Result<usize> {
    let of_v4 = pods.iter().filter(|pod| pod.is_ipv4());
    let mut sources: Vec<(bool, Option<IpAddr>)> = match of_v4.clone().count() {
        0..=ONE_BY_ONE => of_v4.map(|pod| (false, Some(*pod))).collect(),
        _ => vec![(false, None)],
    };
    // Asked for one source of IPv6, Linux lists the connections of all others (ctnetlink_filter_match_tuple).
    sources.extend(pods.iter().any(IpAddr::is_ipv6).then_some((true, None)));
    let mut ended = 0_usize;
    for (v6, source) in sources {
        let connections = kernel.connections(v6, source, &mut is_to_end)?;
        kernel.forget(&connections)?;
        ended += connections.len();
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::{NoSecrets, SourceFile, parse};

    /// Input: a runtime that does nothing any more, as while its threads have other work. Output: the keeper goes on, so
    /// it has none of these threads, and none of them waits for it.
    #[test]
    fn the_keeper_works_where_no_thread_of_the_agent_waits_for_it() {
        let text = "[manifests]\nfolder = \"/m\"\n[egress]\ntable = \"crier-test-of-keeper\"\n".to_owned();
        let config: Config =
            parse(&[SourceFile { path: "test.toml".to_owned(), text }], &NoSecrets).expect("it is good");
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (agent, test) = (runtime(), runtime());
        let (_slices, seen) = watch::channel(EgressSlice { planned: true, ..EgressSlice::default() });
        let (facts, mut told) = mpsc::channel(1);
        facts.try_send(Fact::LinksListed).expect("there is room for one");
        let past = Past { former: None, kept: HeldFile::of(folder.path(), "boot") };
        let (filtered, _) = watch::channel(false);
        agent.spawn(run(seen, config.egress, facts, Arc::default(), filtered, past));
        agent.block_on(tokio::task::yield_now());
        // Now nothing goes on in the agent's runtime. The keeper waits for room for what it tells.
        assert_eq!(told.blocking_recv(), Some(Fact::LinksListed));
        let next = test.block_on(async { tokio::time::timeout(Duration::from_secs(20), told.recv()).await });
        let next = next.expect("the keeper goes on").expect("it is there");
        assert!(matches!(next, Fact::EgressTranslated(_) | Fact::Problems(Area::Egress, _)), "{next:?}");
        // It ends with the task that it belongs to, and so with the agent.
        drop(agent);
        let all_told = async { while told.recv().await.is_some() {} };
        test.block_on(async { tokio::time::timeout(Duration::from_secs(20), all_told).await })
            .expect("the keeper ends");
    }
}
