//! The watches: Services, EndpointSlices, Nodes, Namespaces, ServiceCIDRs and, where asked for, this node's Pods of the API server, as
//! Facts. Floor 2.
//!
//! Tasks, all owned by [`run`] and ended with it; cancelling them loses nothing, because the next start lists again:
//! - one [`follow`] for each kind: owns the list and the watch of its kind, and sends the Facts;
//! - [`run`] itself: knows whether the API server answers, and reports when that changes.
//!
//! A loop of our own over kube's list and watch, instead of `kube::runtime::watcher`: the watcher of kube does not report that it
//! has resumed, never lists again when a resumption is answered with 410, and fails a whole list for one bad object.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::api::{ListParams, ObjectList, WatchEvent, WatchParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::clock;
use crate::k8s::backoff::Backoff;
use crate::k8s::barrier::Barrier;
use crate::k8s::endpoints::EndpointSliceFields;
use crate::k8s::namespace::NamespaceFields;
use crate::k8s::node::NodeFields;
use crate::k8s::pod::PodFields;
use crate::k8s::raw::{Kind, Object};
use crate::k8s::refusal::{reason, trouble};
use crate::k8s::service::ServiceFields;
use crate::k8s::service_cidr::ServiceCidrFields;
use crate::names::NodeName;
use crate::world::{ApiServer, Fact, Refusal, Trouble};

/// Objects in one page of a list, as in client-go. A whole page is in memory for a moment, but only the fields that crier reads.
const PAGE: u32 = 500;
/// How long one page of a list may take.
const LIST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a streamed list may pause. An API server before 1.27 does not know what a streamed list is: it sends all objects and
/// never says that these were all.
const PAUSE: Duration = Duration::from_secs(3);
/// What the bookmark behind the last object of a streamed list is marked with.
const LIST_ENDS: &str = "k8s.io/initial-events-end";
/// How long a watch may take to begin. With the client's pings, this is how soon a hanging API server counts as unreachable.
const WATCH_TIMEOUT: Duration = Duration::from_secs(8);
/// Seconds after which the API server is asked to end a watch. Each watch draws its own number, so they do not all end at once.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// No watch that ends as it was asked to ends sooner.
const SOONEST_END: Duration = Duration::from_secs(WATCH_SECONDS.start as u64);
/// A watch that is silent for this long is begun again. The API server sends a bookmark about every minute.
const SILENCE: Duration = Duration::from_secs(150);
/// A watch that lasted this long resets the delay before the next one.
const LIVED: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(4);
/// One failure may be a restart of the API server or a moved connection; two in a row are reported.
const FAILURES_TO_REPORT: u32 = 2;
/// So many streamed lists in a row that end before their end, and pages are asked for.
const CUT_LISTS: u32 = 2;
/// So many watches in a row that end as soon as they have begun, and something between here and the API server ends them: it is a failure.
const BARREN_WATCHES: u32 = 4;
/// After so many more of them the kind is listed again: with the longest delay, about once a minute.
const BARREN_ROUND: u32 = 20;
/// When a kind is asked for again that the API server lacks, or does not show: somebody must update it, or give rights.
const REFUSED_DELAY: Duration = Duration::from_secs(60);
/// How many outcomes may wait for [`run`]. [`run`] waits only for the receiver of the Facts, and the watches may wait with it.
const OUTCOMES: usize = 8;

/// Watches the kinds until the receiver of the Facts is gone, and waits while their channel is full. An API server that is
/// away withdraws nothing: an object counts as gone only when a watch says so or a complete list lacks it.
/// What `barrier` asks for is listed anew. `pods_of`: the node whose Pods are watched too; `None`: no Pods.
pub async fn run(client: Client, facts: mpsc::Sender<Fact>, barrier: Barrier, pods_of: Option<NodeName>) {
    let (outcomes, mut told) = mpsc::channel(OUTCOMES);
    let mut follows = JoinSet::new();
    let channels = || (facts.clone(), outcomes.clone(), barrier.clone());
    follows.spawn(follow::<ServiceFields>(client.clone(), None, channels()));
    follows.spawn(follow::<EndpointSliceFields>(client.clone(), None, channels()));
    follows.spawn(follow::<NodeFields>(client.clone(), None, channels()));
    follows.spawn(follow::<NamespaceFields>(client.clone(), None, channels()));
    let mut reach = Reach::new(follows.len());
    // Whether the API server answers is told by the kinds that every one has.
    follows.spawn(follow::<ServiceCidrFields>(client.clone(), None, channels()));
    if let Some(node) = pods_of {
        follows.spawn(follow::<PodFields>(client, Some(PodFields::of_node(&node)), channels()));
    }
    drop(outcomes);
    while let Some(outcome) = told.recv().await {
        if let Some(state) = reach.learn(outcome, clock::wall()) {
            match &state {
                ApiServer::Unreachable {
                    why, refusal: refusal @ (Refusal::Forbidden | Refusal::Anonymous), ..
                } => {
                    let remedy = match *refusal == Refusal::Anonymous {
                        true => Refusal::SEES_NOBODY,
                        false => "apply the objects of `crier rbac` again",
                    };
                    warn!(why, remedy, "the API server refuses what this agent must read; what is known stays in use")
                }
                ApiServer::Unreachable { why, .. } => {
                    warn!(why, "the API server gives no usable answer; what is known stays in use")
                }
                _ => info!("the API server answers"),
            }
            if facts.send(Fact::ApiServer(state)).await.is_err() {
                return;
            }
        }
    }
}

/// The result of a list, or of the beginning of a watch.
struct Outcome {
    /// The plural of the kind.
    of: &'static str,
    result: Result<(), Trouble>,
}

/// Whether the API server answers, from the results of all watches together.
struct Reach {
    kinds: usize,
    answered: BTreeSet<&'static str>,
    failing: BTreeMap<&'static str, Failing>,
    told: Told,
}

struct Failing {
    since: SystemTime,
    count: u32,
    cause: Trouble,
}

/// What was last reported. The failure of one kind stands for an absence, so the failures of the others are no news.
enum Told {
    Nothing,
    Reachable,
    Unreachable { of: &'static str, why: String },
}

impl Reach {
    fn new(kinds: usize) -> Reach {
        Reach { kinds, answered: BTreeSet::new(), failing: BTreeMap::new(), told: Told::Nothing }
    }

    /// Takes in an outcome; answers with the state if it is news.
    fn learn(&mut self, Outcome { of, result }: Outcome, now: SystemTime) -> Option<ApiServer> {
        let failed = result.is_err();
        match result {
            Ok(()) => {
                self.answered.insert(of);
                self.failing.remove(of);
            }
            Err(cause) => {
                let (since, count) = self.failing.get(of).map_or((now, 0), |failing| (failing.since, failing.count));
                self.failing.insert(of, Failing { since, count: count + 1, cause });
            }
        }
        let mut lasting = self.failing.iter().filter(|(_, failing)| failing.count >= FAILURES_TO_REPORT);
        let shown = match &self.told {
            Told::Unreachable { of, .. } => self.failing.get_key_value(of).or_else(|| lasting.next()),
            Told::Nothing | Told::Reachable => lasting.next(),
        };
        let Some((of, Failing { cause: Trouble { why, refusal }, .. })) = shown else {
            let all_answer = self.answered.len() == self.kinds && self.failing.is_empty();
            if !all_answer || matches!(self.told, Told::Reachable) {
                return None;
            }
            self.told = Told::Reachable;
            return Some(ApiServer::Reachable);
        };
        let same = matches!(&self.told, Told::Unreachable { of: told, why: known } if told == of && known == why);
        self.told = Told::Unreachable { of, why: why.clone() };
        // While the API server comes back, the kinds answer one after the other. Why the last ones still fail is no news.
        if same || !failed {
            return None;
        }
        let since = self.failing.values().map(|failing| failing.since).min().unwrap_or(now);
        let lacks_all = self.failing.values().all(|failing| failing.cause.refusal.is_about_rights());
        let refusal = match refusal {
            // One kind that gets no answer at all, and the API server is away.
            Refusal::Forbidden | Refusal::Anonymous if !lacks_all => Refusal::NoAnswer,
            refusal => *refusal,
        };
        Some(ApiServer::Unreachable { since, why: format!("{of}: {why}"), refusal })
    }
}

/// Why a list or a watch ended.
enum End {
    /// The receiver of the Facts is gone, so this task ends.
    NoReceiver,
    /// The watch ended without a fault. The next one continues from the version reached.
    Closed,
    /// The version is too old to continue from: list again.
    Expired,
    /// A new list is asked for.
    Asked,
    /// A streamed list ended before its end, with the reason that is known.
    CutOff(String),
    Failed(Failure),
}

struct Failure {
    trouble: Trouble,
    /// The API server asked us to wait at least this long.
    retry_after: Duration,
}

/// Facts, outcomes, and who asks for new lists.
type Channels = (mpsc::Sender<Fact>, mpsc::Sender<Outcome>, Barrier);

/// The objects of a kind that are followed.
struct Followed<K: Kind> {
    api: Api<Object<K>>,
    /// A field selector; `None`: all.
    only: Option<String>,
}

impl<K: Kind> Followed<K> {
    fn listing(&self, most: u32) -> ListParams {
        ListParams { field_selector: self.only.clone(), ..ListParams::default() }.limit(most)
    }

    fn watching(&self) -> WatchParams {
        WatchParams { field_selector: self.only.clone(), ..WatchParams::default() }
            .timeout(fastrand::u32(WATCH_SECONDS))
    }
}

/// `only`: a field selector.
async fn follow<K: Kind>(client: Client, only: Option<String>, channels: Channels) {
    let mut following: Following<K> = Following::new(client, only, channels);
    loop {
        let began = clock::now();
        let Err(end) = following.go_on().await else { continue };
        let end = following.note(end, began);
        let Some(delay) = following.told(end).await else { return };
        sleep(delay).await;
    }
}

/// How far the objects of one kind are followed.
struct Following<K: Kind> {
    api: Followed<K>,
    facts: mpsc::Sender<Fact>,
    outcomes: mpsc::Sender<Outcome>,
    barrier: Barrier,
    /// Two delays: an API server that is back should be listed at once, but one that ends every watch should not be pressed.
    pauses: Backoff,
    churn: Backoff,
    /// The version to continue from; `None`: list first.
    version: Option<String>,
    /// The watch that a streamed list goes on as.
    open: Option<Events<K>>,
    /// What the last list serves, of those that [`Barrier`] asks for.
    round: Option<u64>,
    /// Lists are streamed, as far as is known.
    streams: bool,
    /// In a row: streamed lists that ended before their end, and watches that ended as soon as they had begun.
    cut_lists: u32,
    barren: u32,
    /// The watch ended otherwise than it was asked to: the API server may be another one, or not what it was.
    broke_off: bool,
    /// Of a kind that an API server may lack: what was told of why it is not seen.
    unseen: Option<Option<String>>,
}

impl<K: Kind> Following<K> {
    fn new(client: Client, only: Option<String>, (facts, outcomes, barrier): Channels) -> Following<K> {
        let pauses = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
        Following {
            api: Followed { api: Api::all(client), only },
            facts,
            outcomes,
            barrier,
            churn: pauses.clone(),
            pauses,
            version: None,
            open: None,
            round: None,
            streams: true,
            cut_lists: 0,
            barren: 0,
            broke_off: false,
            unseen: None,
        }
    }

    /// Lists, or sees whether the API server is the one it was, or watches. `Ok` where the next of these follows at once.
    async fn go_on(&mut self) -> Result<(), End> {
        match &self.version {
            None => self.list().await,
            Some(reached) if self.broke_off => match is_behind(&self.api, reached).await? {
                false => {
                    self.broke_off = false;
                    Ok(())
                }
                true => {
                    warn!(
                        kind = K::PLURAL,
                        reached, "the API server has gone back to an older state, as from a backup; listing again"
                    );
                    (self.version, self.broke_off) = (None, false);
                    self.tell(Fact::WentBack).await
                }
            },
            Some(_) => Err(self.watch().await),
        }
    }

    async fn list(&mut self) -> Result<(), End> {
        self.round = self.barrier.begin(K::PLURAL);
        let Some(Listed { version, goes_on }) = self.list_as_may_be().await? else {
            self.streams = false;
            return Ok(());
        };
        // Where only pages pass, watches are doubted from the first.
        self.cut_lists = if goes_on.is_some() { 0 } else { self.cut_lists };
        (self.version, self.open) = (Some(version), goes_on);
        if self.unseen.take().flatten().is_some()
            && let Some(seen) = K::unseen(None)
        {
            self.tell(seen).await?;
        }
        self.round.iter().for_each(|round| self.barrier.listed(K::PLURAL, *round));
        Ok(())
    }

    /// Streamed, or by pages; `None` where nothing was listed, because the API server streams no lists.
    async fn list_as_may_be(&mut self) -> Result<Option<Listed<K>>, End> {
        if !self.streams {
            return list(&self.api, &self.facts).await.map(Some);
        }
        match list_streamed(&self.api, &self.facts).await {
            // What lets no stream pass may let pages pass.
            Err(End::CutOff(why)) if self.cut_lists + 1 >= CUT_LISTS => {
                debug!(kind = K::PLURAL, why, "streamed lists end before their end; listing page by page");
                list(&self.api, &self.facts).await.map(Some)
            }
            listed => listed,
        }
    }

    async fn watch(&mut self) -> End {
        let (began, before) = (clock::now(), self.version.clone());
        let doubted = self.barren > 0 || self.cut_lists > 0;
        let version = self.version.get_or_insert_default();
        let end = tokio::select! {
            end = watch(&self.api, (self.open.take(), doubted), version, &self.facts, &self.outcomes) => end,
            () = self.barrier.is_asked(self.round) => End::Asked,
        };
        let is_barren = matches!(end, End::Closed) && clock::since(began) < LIVED && self.version == before;
        self.barren = if is_barren { self.barren + 1 } else { 0 };
        end
    }

    /// Of what began then: whether it counts as a failure, and what is to be known of it later.
    fn note(&mut self, end: End, began: Instant) -> End {
        let end = match end {
            End::Closed if self.barren >= BARREN_WATCHES => {
                if self.barren.is_multiple_of(BARREN_ROUND) {
                    self.version = None;
                }
                End::Failed(Failure::without_answer("every watch ends as soon as it has begun".to_owned()))
            }
            End::CutOff(why) => {
                self.cut_lists += 1;
                End::Failed(Failure::without_answer(why))
            }
            end => end,
        };
        let age = clock::since(began);
        self.broke_off = !matches!(end, End::Closed) || age < SOONEST_END;
        if age >= LIVED {
            self.churn.reset();
        }
        if age >= LIVED || matches!(end, End::Closed | End::Expired) {
            self.pauses.reset();
        }
        end
    }

    /// Tells it, if it is to be told. When to go on; `None`: never.
    async fn told(&mut self, end: End) -> Option<Duration> {
        match end {
            End::NoReceiver => None,
            // [`Following::note`] made a failure of it.
            End::CutOff(_) => Some(self.pauses.next_delay()),
            End::Closed => Some(self.churn.next_delay()),
            End::Asked => {
                self.version = None;
                Some(Duration::ZERO)
            }
            End::Expired => {
                debug!(kind = K::PLURAL, "the version to watch from is too old; listing again");
                self.version = None;
                Some(self.churn.next_delay())
            }
            End::Failed(Failure {
                trouble:
                    Trouble { why, refusal: refusal @ (Refusal::Forbidden | Refusal::Anonymous | Refusal::Other(404)) },
                ..
            }) if K::OPTIONAL => {
                self.version = None;
                let why_unseen = refusal.is_about_rights().then_some(why.clone());
                if self.unseen.as_ref() != Some(&why_unseen) {
                    info!(
                        kind = K::PLURAL,
                        why, "the API server does not show these objects; crier goes on without them"
                    );
                    self.unseen = Some(why_unseen.clone());
                    if let Some(fact) = K::unseen(why_unseen) {
                        self.tell(fact).await.ok()?;
                    }
                }
                Some(REFUSED_DELAY)
            }
            End::Failed(Failure { trouble, retry_after }) => {
                debug!(kind = K::PLURAL, why = trouble.why, "the watch failed");
                if !K::OPTIONAL {
                    self.outcomes.send(Outcome { of: K::PLURAL, result: Err(trouble) }).await.ok()?;
                }
                Some(self.pauses.next_delay().max(retry_after.min(LONGEST_DELAY)))
            }
        }
    }

    async fn tell(&mut self, fact: Fact) -> Result<(), End> {
        self.facts.send(fact).await.map_err(|_| End::NoReceiver)
    }
}

/// Whether the API server has not come as far as `reached`: it was restored from a backup. It would let us watch from there, and tell
/// nothing until it has come as far again; and never what was lost. Versions can be compared as numbers (KEP-5504).
async fn is_behind<K: Kind>(api: &Followed<K>, reached: &str) -> Result<bool, End> {
    let newest = page(api, &api.listing(1)).await?.metadata.resource_version;
    let number = |version: &str| version.parse::<u64>().ok();
    Ok(newest.as_deref().and_then(number).zip(number(reached)).is_some_and(|(newest, reached)| newest < reached))
}

/// Tells every object of the kind, page by page, then that the list is complete.
async fn list<K: Kind>(api: &Followed<K>, facts: &mpsc::Sender<Fact>) -> Result<Listed<K>, End> {
    let mut keys = BTreeSet::new();
    let mut params = api.listing(PAGE);
    loop {
        let page = page(api, &params).await?;
        for object in page.items {
            tell_listed(&object, &mut keys, facts).await?;
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = api.listing(PAGE).continue_token(&token),
            None => {
                let version = page.metadata.resource_version.unwrap_or_default();
                facts.send(Fact::Listed(K::listing(keys))).await.map_err(|_| End::NoReceiver)?;
                return Ok(Listed { version, goes_on: None });
            }
        }
    }
}

async fn page<K: Kind>(api: &Followed<K>, params: &ListParams) -> Result<ObjectList<Object<K>>, End> {
    match timeout(LIST_TIMEOUT, api.api.list(params)).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(error)) => Err(end_of(&error)),
        Err(_) => Err(End::Failed(Failure::without_answer(no_answer(LIST_TIMEOUT)))),
    }
}

/// A list that was told whole.
struct Listed<K: Kind> {
    /// The version to watch from.
    version: String,
    /// The watch that begins there, where the list was streamed.
    goes_on: Option<Events<K>>,
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<Object<K>>>>;

/// Tells the same by a watch that begins with every object there is (WatchList: Kubernetes 1.32 and 1.34 on): the API server answers
/// from its memory, and neither side holds a page. `None` where it does not stream lists.
async fn list_streamed<K: Kind>(api: &Followed<K>, facts: &mpsc::Sender<Fact>) -> Result<Option<Listed<K>>, End> {
    let not_streamed = |why: &str| {
        debug!(kind = K::PLURAL, why, "the API server streams no lists; listing page by page");
        Ok(None)
    };
    let params = api.watching().initial_events();
    let mut events = match open_watch(api, &params, "").await {
        Ok(events) => events,
        // The gate of the feature is closed there, or something in between lets no such watch pass.
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 405 | 422 | 501) => {
            return not_streamed(&reason(&kube::Error::Api(status)));
        }
        // Of an API server that has trouble, or cannot stream: what two such answers in a row mean.
        Err(error @ kube::Error::Api(_)) if trouble(&error).refusal == Refusal::Other(500) => {
            return Err(End::CutOff(reason(&error)));
        }
        Err(error) => return Err(end_of(&error)),
    };
    let mut keys = BTreeSet::new();
    loop {
        let event = match timeout(PAUSE, events.next()).await {
            Err(_) => return not_streamed("it sends objects, and no end of the list"),
            Ok(None) => return Err(End::CutOff("the list ended before its end".to_owned())),
            Ok(Some(Err(error @ kube::Error::Api(_)))) => return Err(end_of(&error)),
            Ok(Some(Err(error))) => return Err(End::CutOff(reason(&error))),
            Ok(Some(Ok(event))) => event,
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                tell_listed(&object, &mut keys, facts).await?;
            }
            WatchEvent::Deleted(object) => {
                let key = K::key(&object.metadata);
                keys.remove(&key);
                facts.send(K::gone(key)).await.map_err(|_| End::NoReceiver)?;
            }
            WatchEvent::Bookmark(bookmark) if bookmark.metadata.annotations.contains_key(LIST_ENDS) => {
                facts.send(Fact::Listed(K::listing(keys))).await.map_err(|_| End::NoReceiver)?;
                return Ok(Some(Listed { version: bookmark.metadata.resource_version, goes_on: Some(events) }));
            }
            WatchEvent::Bookmark(_) => return not_streamed("a bookmark before the end of the list"),
            WatchEvent::Error(status) => return Err(end_of(&kube::Error::Api(status))),
        }
    }
}

/// Tells one object of a list, and notes its key.
async fn tell_listed<K: Kind>(
    object: &Object<K>,
    keys: &mut BTreeSet<K::Key>,
    facts: &mpsc::Sender<Fact>,
) -> Result<(), End> {
    match K::translate(object) {
        Ok(Some(fact)) => {
            // The key is shared with the Fact.
            keys.extend(K::kept(&fact).cloned());
            facts.send(fact).await.map_err(|_| End::NoReceiver)?;
        }
        Ok(None) => {}
        Err(fault) => {
            let key = K::key(&object.metadata);
            skip::<K>(&key, &fault);
            keys.insert(key);
        }
    }
    Ok(())
}

/// Begins a watch.
async fn open_watch<K: Kind>(api: &Followed<K>, params: &WatchParams, version: &str) -> Result<Events<K>, kube::Error> {
    match timeout(WATCH_TIMEOUT, api.api.watch(params, version)).await {
        Ok(events) => Ok(events?.boxed()),
        Err(_) => Err(kube::Error::Service(no_answer(WATCH_TIMEOUT).into())),
    }
}

/// Tells each change after `version`, and keeps `version` at the last change told. `open` is the watch where it has begun. One that is `doubted`,
/// because those before ended as soon as they had begun, is an answer once it has told something, or has lasted.
async fn watch<K: Kind>(
    api: &Followed<K>,
    (open, doubted): (Option<Events<K>>, bool),
    version: &mut String,
    facts: &mpsc::Sender<Fact>,
    outcomes: &mpsc::Sender<Outcome>,
) -> End {
    let params = api.watching();
    let mut events = match open {
        Some(events) => events,
        None => match open_watch(api, &params, version).await {
            Ok(events) => events,
            Err(error) => return end_of(&error),
        },
    };
    let first = match doubted {
        true => match timeout(LIVED, tell_next(&mut events, version)).await {
            Ok(Ok(fact)) => fact,
            Ok(Err(end)) => return end,
            Err(_) => None,
        },
        false => None,
    };
    if !K::OPTIONAL && outcomes.send(Outcome { of: K::PLURAL, result: Ok(()) }).await.is_err() {
        return End::NoReceiver;
    }
    if let Some(fact) = first
        && facts.send(fact).await.is_err()
    {
        return End::NoReceiver;
    }
    loop {
        match tell_next(&mut events, version).await {
            Ok(Some(fact)) => {
                if facts.send(fact).await.is_err() {
                    return End::NoReceiver;
                }
            }
            Ok(None) => {}
            Err(end) => return end,
        }
    }
}

/// The next event of a watch as a Fact; `None` for an event that does not concern the World.
async fn tell_next<K: Kind>(events: &mut Events<K>, version: &mut String) -> Result<Option<Fact>, End> {
    let event = match timeout(SILENCE, events.next()).await {
        Err(_) | Ok(None) => return Err(End::Closed),
        Ok(Some(Err(kube::Error::SerdeError(error)))) => {
            warn!(kind = K::PLURAL, %error, "an event of the watch cannot be read and is skipped");
            return Ok(None);
        }
        Ok(Some(Err(error))) => return Err(end_of(&error)),
        Ok(Some(Ok(event))) => event,
    };
    let (object, deleted) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
        WatchEvent::Deleted(object) => (object, true),
        WatchEvent::Bookmark(bookmark) => {
            *version = bookmark.metadata.resource_version;
            return Ok(None);
        }
        WatchEvent::Error(status) => return Err(end_of(&kube::Error::Api(status))),
    };
    if let Some(reached) = &object.metadata.resource_version {
        version.clone_from(reached);
    }
    let key = K::key(&object.metadata);
    if deleted {
        return Ok(Some(K::gone(key)));
    }
    match K::translate(&object) {
        Ok(fact) => Ok(Some(fact.unwrap_or_else(|| K::gone(key)))),
        Err(fault) => {
            skip::<K>(&key, &fault);
            Ok(None)
        }
    }
}

fn skip<K: Kind>(key: &K::Key, fault: &impl std::fmt::Display) {
    warn!(kind = K::KIND, object = %key, %fault, "an object cannot be read; its last known state stays in use");
}

fn end_of(error: &kube::Error) -> End {
    match error {
        kube::Error::Api(status) if status.code == 410 => End::Expired,
        kube::Error::Api(status) => {
            let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
            let retry_after = Duration::from_secs(seconds.into());
            End::Failed(Failure { trouble: trouble(error), retry_after })
        }
        _ => End::Failed(Failure { trouble: trouble(error), retry_after: Duration::ZERO }),
    }
}

impl Failure {
    fn without_answer(why: String) -> Failure {
        Failure { trouble: Trouble::without_answer(why), retry_after: Duration::ZERO }
    }
}

/// In whole seconds.
pub(super) fn no_answer(within: Duration) -> String {
    format!("no answer in {:.0} s", within.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::k8s::fake::{self, Answer, CIDRS, FakeApi, Fault, NODES, PODS, SERVICES, SLICES, service};
    use crate::names::ObjectKey;
    use crate::world::Listing;

    async fn watching(api: &FakeApi) -> (mpsc::Receiver<Fact>, JoinSet<()>) {
        let (sender, facts) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(api.client().await, sender, Barrier::new(&[]), None));
        (facts, tasks)
    }

    /// Waits until the watches are all open.
    async fn reachable(facts: &mut mpsc::Receiver<Fact>) {
        fake::until(facts, "an API server that answers", |fact| {
            (*fact == Fact::ApiServer(ApiServer::Reachable)).then_some(())
        })
        .await;
    }

    async fn listed(facts: &mut mpsc::Receiver<Fact>) -> Vec<String> {
        fake::until(facts, "a list of Services", |fact| match fact {
            Fact::Listed(Listing::Services(keys)) => Some(keys.iter().map(ToString::to_string).collect()),
            _ => None,
        })
        .await
    }

    /// The next word about this Service: its version, or none where it is gone.
    async fn told(facts: &mut mpsc::Receiver<Fact>, key: &str) -> Option<String> {
        fake::until(facts, key, |fact| match fact {
            Fact::Service(of, service) if of.to_string() == key => {
                Some(service.as_ref().map(|service| service.resource_version.clone()))
            }
            _ => None,
        })
        .await
    }

    fn fault(watch: bool, answer: Answer) -> Fault {
        Fault { method: Method::GET, path: SERVICES, watch: Some(watch), answer }
    }

    #[tokio::test]
    async fn every_kind_is_listed_and_then_watched() {
        let api = FakeApi::start().await;
        let version = api.put(SERVICES, service("shop/web"));
        api.put(NODES, json!({"metadata": {"name": "node-a"}}));
        let (mut facts, _tasks) = watching(&api).await;
        let mut seen = Vec::new();
        let mut lists = 0;
        while lists < 5 {
            let fact = facts.recv().await.unwrap();
            lists += usize::from(matches!(fact, Fact::Listed(_)));
            seen.push(fact);
        }
        let service = seen.iter().find_map(|fact| match fact {
            Fact::Service(key, Some(service)) => Some((key.to_string(), service.resource_version.clone())),
            _ => None,
        });
        assert_eq!(service, Some(("shop/web".to_owned(), version)));
        assert!(seen.contains(&Fact::Listed(Listing::Services([ObjectKey::new("shop", "web")].into()))));
        assert!(seen.contains(&Fact::Listed(Listing::Nodes(["node-a".into()].into()))));

        reachable(&mut facts).await;
        let version = api.put(SERVICES, fake::service("shop/api"));
        assert_eq!(told(&mut facts, "shop/api").await, Some(version));
        api.delete(SERVICES, "shop/api");
        assert_eq!(told(&mut facts, "shop/api").await, None);
    }

    #[tokio::test]
    async fn a_long_list_comes_in_pages_and_is_told_as_one() {
        let api = FakeApi::start().await;
        for number in 0..PAGE * 2 + 1 {
            api.put(SERVICES, service(&format!("shop/web-{number:04}")));
        }
        let (mut facts, _tasks) = watching(&api).await;
        assert_eq!(listed(&mut facts).await.len(), (PAGE * 2 + 1) as usize);
        let lists = api.requests(&Method::GET, SERVICES).into_iter().filter(|seen| seen.query.contains("limit="));
        assert_eq!(lists.count(), 3, "two full pages and the rest");
    }

    #[tokio::test]
    async fn an_api_server_that_streams_lists_is_asked_for_no_page_and_the_watch_goes_on_behind_it() {
        let api = FakeApi::start().await;
        api.stream_lists();
        let mut broken = service("shop/broken");
        broken["spec"]["ports"] = json!([{"port": "http"}]);
        api.put(SERVICES, broken);
        api.put(SERVICES, service("shop/gone"));
        api.put(SERVICES, service("shop/web"));
        let (mut facts, _tasks) = watching(&api).await;
        assert_eq!(
            listed(&mut facts).await,
            ["shop/broken", "shop/gone", "shop/web"],
            "what cannot be read exists too"
        );
        reachable(&mut facts).await;
        let version = api.put(SERVICES, service("shop/api"));
        assert_eq!(told(&mut facts, "shop/api").await, Some(version));

        api.lose(SERVICES, "shop/gone");
        api.compact();
        api.end_watches();
        assert_eq!(listed(&mut facts).await, ["shop/api", "shop/broken", "shop/web"], "listed again after 410");
        let requests = api.requests(&Method::GET, SERVICES);
        let counts = ["limit=500", "sendInitialEvents=true", "watch=true"]
            .map(|word| requests.iter().filter(|seen| seen.query.contains(word)).count());
        assert_eq!(
            counts,
            [0, 2, 3],
            "no page; two lists; each goes on as a watch, and one watch was answered with 410"
        );
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_know_streamed_lists_is_listed_by_pages() {
        let api = FakeApi::start().await;
        api.put(SERVICES, service("shop/web"));
        // One before 1.27 takes the request for a watch, and sends no end of the list.
        api.fault(fault(false, Answer::Endless));
        let (mut facts, _tasks) = watching(&api).await;
        assert_eq!(listed(&mut facts).await, ["shop/web"]);
        reachable(&mut facts).await;
    }

    /// Input: a proxy before the API server ends every stream at once, with an answer 200. Output: the lists come by pages; that
    /// no watch stands is told, and not taken back while it is so; once streams pass, all is well.
    #[tokio::test]
    async fn where_no_stream_passes_the_lists_come_by_pages_and_it_is_told() {
        let api = FakeApi::start().await;
        api.stream_lists();
        api.put(SERVICES, service("shop/web"));
        api.end_streams(true);
        let (mut facts, _tasks) = watching(&api).await;
        let (mut listed, mut why) = (false, None);
        while !listed || why.is_none() {
            match facts.recv().await.unwrap() {
                Fact::Listed(Listing::Services(keys)) => listed = keys.len() == 1,
                Fact::ApiServer(ApiServer::Unreachable { why: told, .. }) => why = Some(told),
                Fact::ApiServer(ApiServer::Reachable) => panic!("no watch has stood yet"),
                _ => {}
            }
        }
        let why = why.unwrap();
        assert!(why.ends_with(": every watch ends as soon as it has begun"), "{why}");
        let streamed = api.requests(&Method::GET, SERVICES).into_iter().filter(|it| it.query.contains("sendInitial"));
        assert_eq!(streamed.count(), CUT_LISTS as usize, "then pages");
        api.end_streams(false);
        reachable(&mut facts).await;
        let version = api.put(SERVICES, service("shop/api"));
        assert_eq!(told(&mut facts, "shop/api").await, Some(version));
    }

    /// Input: streamed lists are answered with 501, or with 500 for ever, as by a proxy or an extension server. Output: pages.
    #[tokio::test]
    async fn where_streamed_lists_are_refused_the_lists_come_by_pages() {
        for (code, asked) in [(500, CUT_LISTS), (501, 1), (405, 1)] {
            let api = FakeApi::start().await;
            api.refuse_streams(code);
            api.put(SERVICES, service("shop/web"));
            let (mut facts, _tasks) = watching(&api).await;
            assert_eq!(listed(&mut facts).await, ["shop/web"], "{code}");
            reachable(&mut facts).await;
            let requests = api.requests(&Method::GET, SERVICES);
            let streamed = requests.iter().filter(|it| it.query.contains("sendInitial"));
            assert_eq!(streamed.count(), asked as usize, "{code}");
        }
    }

    #[tokio::test]
    async fn one_streamed_list_that_is_cut_off_is_streamed_again() {
        let api = FakeApi::start().await;
        api.stream_lists();
        api.put(SERVICES, service("shop/web"));
        api.fault(fault(false, Answer::Nothing));
        let (mut facts, _tasks) = watching(&api).await;
        assert_eq!(listed(&mut facts).await, ["shop/web"]);
        let requests = api.requests(&Method::GET, SERVICES);
        assert!(requests.iter().all(|seen| !seen.query.contains("limit=")), "no page: {requests:?}");
    }

    #[tokio::test]
    async fn a_watch_that_is_closed_goes_on_where_it_ended() {
        let api = FakeApi::start().await;
        let (mut facts, _tasks) = watching(&api).await;
        reachable(&mut facts).await;
        for round in 0..3 {
            let version = api.put(SERVICES, service("shop/web"));
            assert_eq!(told(&mut facts, "shop/web").await, Some(version), "round {round}");
            api.end_watches();
        }
        let lists = api.requests(&Method::GET, SERVICES).into_iter().filter(|seen| seen.query.contains("limit=500"));
        assert_eq!(lists.count(), 1, "nothing was listed again");
    }

    #[tokio::test]
    async fn a_version_too_old_is_answered_by_a_new_list_that_lacks_what_is_gone() {
        let api = FakeApi::start().await;
        api.put(SERVICES, service("shop/old"));
        api.put(SERVICES, service("shop/web"));
        let (mut facts, _tasks) = watching(&api).await;
        reachable(&mut facts).await;
        api.lose(SERVICES, "shop/old");
        api.compact();
        api.end_watches();
        assert_eq!(listed(&mut facts).await, ["shop/web"], "410 as the first event of a watch");

        reachable_again(&api, &mut facts).await;
        api.fault(fault(true, Answer::Status(410, "Gone")));
        api.end_watches();
        assert_eq!(listed(&mut facts).await, ["shop/web"], "410 as the answer to the request");
    }

    /// Input: the API server is stopped, put back to a backup, and started. Output: what it has now, and what it tells from
    /// then on; a watch from the version reached before would be accepted and stay silent.
    #[tokio::test]
    async fn an_api_server_that_was_restored_from_a_backup_is_listed_again() {
        let mut api = FakeApi::start().await;
        api.put(SERVICES, service("shop/web"));
        let backup = api.backup();
        let (mut facts, _tasks) = watching(&api).await;
        reachable(&mut facts).await;
        for _ in 0..3 {
            let version = api.put(SERVICES, service("shop/lost"));
            assert_eq!(told(&mut facts, "shop/lost").await, Some(version));
        }
        api.go_away().await;
        api.restore(backup);
        api.come_back().await;
        fake::until(&mut facts, "word of it", |fact| matches!(fact, Fact::WentBack).then_some(())).await;
        assert_eq!(listed(&mut facts).await, ["shop/web"]);
        let version = api.put(SERVICES, service("shop/new"));
        assert_eq!(told(&mut facts, "shop/new").await, Some(version), "though it is lower than what was reached");
    }

    /// Waits until a change is told by a watch.
    async fn reachable_again(api: &FakeApi, facts: &mut mpsc::Receiver<Fact>) {
        let version = api.put(SERVICES, service("shop/web"));
        while told(facts, "shop/web").await.as_ref() != Some(&version) {}
    }

    #[tokio::test]
    async fn an_api_server_that_is_busy_or_broken_is_asked_again() {
        let api = FakeApi::start().await;
        api.put(SERVICES, service("shop/web"));
        for answer in
            [Answer::Status(500, "etcd is away"), Answer::Status(429, "later"), Answer::Status(503, "starting")]
        {
            api.fault(fault(false, answer));
        }
        api.fault(fault(true, Answer::Status(429, "later")));
        let (mut facts, _tasks) = watching(&api).await;
        let why = fake::until(&mut facts, "word of the trouble", |fact| match fact {
            Fact::ApiServer(ApiServer::Unreachable { why, .. }) => Some(why.clone()),
            _ => None,
        })
        .await;
        assert_eq!(why, "services: 429 later", "what failed, and how; told at the second failure");
        assert_eq!(listed(&mut facts).await, ["shop/web"]);
        reachable(&mut facts).await;
    }

    #[tokio::test]
    async fn a_busy_api_server_is_given_the_time_that_it_asks_for() {
        let api = FakeApi::start().await;
        api.fault(fault(false, Answer::Busy(1)));
        let began = clock::now();
        let (mut facts, _tasks) = watching(&api).await;
        listed(&mut facts).await;
        assert!(clock::since(began) >= Duration::from_secs(1), "it was asked again after {:?}", clock::since(began));
    }

    #[tokio::test]
    async fn an_api_server_that_is_away_withdraws_nothing() {
        let mut api = FakeApi::start().await;
        api.put(SERVICES, service("shop/web"));
        let (mut facts, _tasks) = watching(&api).await;
        reachable(&mut facts).await;
        let left = clock::wall();
        api.go_away().await;
        let since = fake::until(&mut facts, "word of the absence", |fact| match fact {
            Fact::ApiServer(ApiServer::Unreachable { since, .. }) => Some(*since),
            Fact::Service(_, None) | Fact::Listed(_) => panic!("{fact:?} while the API server is away"),
            _ => None,
        })
        .await;
        assert!(since >= left, "since the first failure");
        let version = api.put(SERVICES, service("shop/api"));
        api.come_back().await;
        assert_eq!(told(&mut facts, "shop/api").await, Some(version), "what it missed");
        reachable(&mut facts).await;
    }

    #[tokio::test]
    async fn an_object_that_cannot_be_read_keeps_its_last_word_and_harms_no_other() {
        let api = FakeApi::start().await;
        api.put(SERVICES, service("shop/web"));
        let mut broken = service("shop/broken");
        broken["spec"]["ports"] = json!([{"port": "http"}]);
        api.put(SERVICES, broken.clone());
        let (mut facts, _tasks) = watching(&api).await;
        assert_eq!(listed(&mut facts).await, ["shop/broken", "shop/web"], "it exists, so it is not to be dropped");
        reachable(&mut facts).await;
        api.put(SERVICES, broken);
        let version = api.put(SERVICES, service("shop/web"));
        let next = fake::until(&mut facts, "a Service", |fact| match fact {
            Fact::Service(key, service) => Some((key.to_string(), service.clone())),
            _ => None,
        })
        .await;
        assert_eq!((next.0.as_str(), next.1.map(|web| web.resource_version.clone())), ("shop/web", Some(version)));
    }

    #[tokio::test]
    async fn the_networks_of_services_are_followed() {
        let api = FakeApi::start().await;
        api.put(CIDRS, json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}));
        let (mut facts, _tasks) = watching(&api).await;
        assert_eq!(cidr(&mut facts).await.as_deref(), Some("10.96.0.0/16"));
        reachable(&mut facts).await;
        api.put(CIDRS, json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.97.0.0/16"]}}));
        assert_eq!(cidr(&mut facts).await.as_deref(), Some("10.97.0.0/16"));
        api.delete(CIDRS, "kubernetes");
        assert_eq!(cidr(&mut facts).await, None);
    }

    /// The next word about a ServiceCIDR: its networks, or none where it is gone.
    async fn cidr(facts: &mut mpsc::Receiver<Fact>) -> Option<String> {
        fake::until(facts, "word of a ServiceCIDR", |fact| match fact {
            Fact::ServiceCidr(_, networks) => Some(networks.as_ref().map(|networks| networks[0].to_string())),
            _ => None,
        })
        .await
    }

    async fn watching_pods(api: &FakeApi) -> (mpsc::Receiver<Fact>, JoinSet<()>) {
        let (sender, facts) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        tasks.spawn(run(api.client().await, sender, Barrier::new(&[]), Some("node-a".into())));
        (facts, tasks)
    }

    #[tokio::test]
    async fn the_pods_of_the_node_are_followed_where_that_is_asked_for_and_no_others() {
        let api = FakeApi::start().await;
        let pod = |address: &str| json!({"metadata": {"name": "web-1", "namespace": "shop"}, "spec": {"nodeName": "node-a"}, "status": {"podIP": address}});
        api.put(PODS, pod("10.244.1.7"));
        {
            let (mut facts, _tasks) = watching(&api).await;
            reachable(&mut facts).await;
            assert!(api.requests(&Method::GET, PODS).is_empty(), "nobody asks for them");
        }
        let (mut facts, _tasks) = watching_pods(&api).await;
        let next = async |facts: &mut mpsc::Receiver<Fact>| {
            fake::until(facts, "word of a Pod", |fact| match fact {
                Fact::Pod(key, pod) => Some((key.to_string(), pod.as_ref().map(|pod| pod.addresses[0].to_string()))),
                Fact::Listed(Listing::Pods(keys)) => Some((format!("{} in all", keys.len()), None)),
                _ => None,
            })
            .await
        };
        assert_eq!(next(&mut facts).await, ("shop/web-1".to_owned(), Some("10.244.1.7".to_owned())));
        assert_eq!(next(&mut facts).await, ("1 in all".to_owned(), None));
        reachable(&mut facts).await;
        api.put(PODS, pod("10.244.1.8"));
        assert_eq!(next(&mut facts).await, ("shop/web-1".to_owned(), Some("10.244.1.8".to_owned())));
        let mut ended = pod("10.244.1.8");
        ended["status"]["phase"] = "Failed".into();
        api.put(PODS, ended);
        assert_eq!(next(&mut facts).await, ("shop/web-1".to_owned(), None), "it has ended");
        let asked = api.requests(&Method::GET, PODS);
        assert!(asked.len() >= 2, "a list and a watch: {asked:?}");
        assert!(asked.iter().all(|it| it.query.contains("fieldSelector=spec.nodeName%3Dnode-a")), "{asked:?}");
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_show_pods_counts_as_one_that_answers_and_that_is_told() {
        let api = FakeApi::start().await;
        for _ in 0..2 {
            api.fault(Fault { method: Method::GET, path: PODS, watch: None, answer: Answer::Status(403, "no") });
        }
        let (mut facts, _tasks) = watching_pods(&api).await;
        let (mut reachable, mut unseen) = (false, None);
        while !reachable || unseen.is_none() {
            fake::until(&mut facts, "an API server that answers, and word of the Pods", |fact| match fact {
                Fact::ApiServer(state) => {
                    reachable = *state == ApiServer::Reachable;
                    Some(())
                }
                Fact::PodsUnseen(why) => {
                    unseen = Some(why.clone());
                    Some(())
                }
                _ => None,
            })
            .await;
        }
        assert_eq!(unseen, Some(Some("403 no".to_owned())));
    }

    #[tokio::test]
    async fn an_api_server_without_service_cidrs_or_that_does_not_show_them_counts_as_one_that_answers() {
        for (code, expected) in [(404, None), (403, Some("403 not here".to_owned()))] {
            let api = FakeApi::start().await;
            // The streamed list and the one by pages.
            for _ in 0..2 {
                api.fault(Fault {
                    method: Method::GET,
                    path: CIDRS,
                    watch: None,
                    answer: Answer::Status(code, "not here"),
                });
            }
            let (mut facts, _tasks) = watching(&api).await;
            let (mut reachable, mut unseen) = (false, None);
            while !reachable || unseen.is_none() {
                fake::until(
                    &mut facts,
                    "an API server that answers, and word of the ServiceCIDRs",
                    |fact| match fact {
                        Fact::ApiServer(state) => {
                            assert_eq!(*state, ApiServer::Reachable, "{code}");
                            reachable = true;
                            Some(())
                        }
                        Fact::ServiceCidrsUnseen(why) => {
                            unseen = Some(why.clone());
                            Some(())
                        }
                        _ => None,
                    },
                )
                .await;
            }
            assert_eq!(unseen, Some(expected), "{code}");
        }
    }

    #[tokio::test]
    async fn a_slice_that_loses_its_service_is_gone() {
        let api = FakeApi::start().await;
        let (mut facts, _tasks) = watching(&api).await;
        reachable(&mut facts).await;
        let mut slice = json!({"metadata": {"name": "web-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"}}, "endpoints": [{"nodeName": "a"}]});
        for expected in [true, false] {
            api.put(SLICES, slice.clone());
            let there = fake::until(&mut facts, "the slice", |fact| match fact {
                Fact::EndpointSlice(_, slice) => Some(slice.is_some()),
                _ => None,
            });
            assert_eq!(there.await, expected);
            slice["metadata"]["labels"] = json!({});
        }
    }

    fn cause(why: &str) -> Trouble {
        let refusal = if why == "403 forbidden" { Refusal::Forbidden } else { Refusal::NoAnswer };
        Trouble { refusal, why: why.to_owned() }
    }

    /// Input: the right to one kind is gone, and then the API server is away as well. Output: first the refusal is told, then the
    /// absence.
    #[test]
    fn an_api_server_that_refuses_is_told_apart_from_one_that_is_away() {
        let mut reach = Reach::new(2);
        let mut learn = |of, why| {
            let told = reach.learn(Outcome { of, result: Err(cause(why)) }, SystemTime::UNIX_EPOCH);
            told.map(|state| match state {
                ApiServer::Unreachable { why, refusal, .. } => (why, refusal),
                other => panic!("{other:?} of failures"),
            })
        };
        assert_eq!(learn("nodes", "403 forbidden"), None);
        assert_eq!(learn("nodes", "403 forbidden"), Some(("nodes: 403 forbidden".to_owned(), Refusal::Forbidden)));
        assert_eq!(learn("services", "timed out"), None);
        assert_eq!(learn("nodes", "timed out"), Some(("nodes: timed out".to_owned(), Refusal::NoAnswer)));
    }

    #[test]
    fn one_failure_is_no_news_and_a_lasting_one_is_told_once() {
        let mut reach = Reach::new(2);
        let mut learn = |of, result: Result<(), &str>, secs| {
            let outcome = Outcome { of, result: result.map_err(cause) };
            reach.learn(outcome, SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
        };
        assert_eq!(learn("services", Ok(()), 0), None, "the other kind has not answered yet");
        assert_eq!(learn("nodes", Ok(()), 0), Some(ApiServer::Reachable));
        assert_eq!(learn("nodes", Err("refused"), 1), None);
        assert_eq!(learn("nodes", Ok(()), 2), None, "it had not been told as away");
        assert_eq!(learn("nodes", Err("refused"), 3), None);
        let away = ApiServer::Unreachable {
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(3),
            why: "nodes: timed out".to_owned(),
            refusal: Refusal::NoAnswer,
        };
        assert_eq!(learn("nodes", Err("timed out"), 4), Some(away));
        assert_eq!(learn("nodes", Err("timed out"), 5), None, "nothing new");
        assert_eq!(learn("services", Err("timed out"), 5), None);
        assert_eq!(learn("services", Err("timed out"), 5), None, "one failure stands for all");
        let other = learn("nodes", Err("403 forbidden"), 6);
        assert!(
            matches!(other, Some(ApiServer::Unreachable { why, .. }) if why == "nodes: 403 forbidden"),
            "another cause"
        );
        assert_eq!(learn("services", Err("403 forbidden"), 6), None);
        assert_eq!(learn("nodes", Ok(()), 7), None, "half an API server is none, and no news");
        assert_eq!(learn("nodes", Err("refused"), 7), None, "it failed but once; the services stand for it");
        assert_eq!(learn("nodes", Ok(()), 7), None);
        assert_eq!(learn("services", Ok(()), 8), Some(ApiServer::Reachable));
    }

    #[test]
    fn an_absence_that_the_kinds_notice_one_after_the_other_is_told_once_with_its_beginning() {
        let mut reach = Reach::new(2);
        let mut learn = |of, result: Result<(), &str>, secs| {
            let outcome = Outcome { of, result: result.map_err(cause) };
            reach.learn(outcome, SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
        };
        learn("services", Ok(()), 0);
        assert_eq!(learn("nodes", Ok(()), 0), Some(ApiServer::Reachable));
        assert_eq!(learn("services", Err("reset"), 1), None);
        assert_eq!(learn("nodes", Err("reset"), 2), None);
        let away = ApiServer::Unreachable {
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
            why: "nodes: refused".to_owned(),
            refusal: Refusal::NoAnswer,
        };
        assert_eq!(learn("nodes", Err("refused"), 3), Some(away), "since the first failure of any kind");
        assert_eq!(learn("services", Err("refused"), 4), None, "its failures began earlier, and are no news");
        assert_eq!(learn("services", Ok(()), 5), None);
        assert_eq!(learn("nodes", Err("refused"), 6), None, "it is still away");
        assert_eq!(learn("nodes", Ok(()), 7), Some(ApiServer::Reachable));
    }
}
