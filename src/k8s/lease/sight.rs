//! The Lease as it is seen: one watch of one object. Floor 2.
//!
//! One task, [`follow`], owned by the Lease task. It owns the watch; cancelled, it loses nothing. An agent that may not watch
//! the Lease reads it now and then.

use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::is;
use crate::clock;
use crate::k8s::backoff::Backoff;
use crate::k8s::refusal::trouble;
use crate::world::Trouble;

/// How long a list, or the beginning of a watch, may take.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Seconds after which the API server is asked to end a watch.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// A watch that is silent for this long is begun again.
const SILENCE: Duration = Duration::from_secs(150);

/// What was last seen of the Lease.
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// `None`: nothing was seen yet. `Some(None)`: there is no Lease.
    pub lease: Option<Option<Lease>>,
    /// Since when it is unchanged, by the clock of this host.
    pub since: Option<Instant>,
    /// The same moment by the clock on the wall, for people.
    pub began: Option<SystemTime>,
    /// Why it is not seen now.
    pub trouble: Option<Trouble>,
}

impl Sight {
    /// Takes in what the API server says of the Lease.
    pub fn note(&mut self, lease: Option<Lease>, now: Instant, wall: SystemTime) {
        let version = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if self.lease.as_ref().map(version) != Some(version(&lease)) {
            self.since = Some(now);
            self.began = Some(wall);
        }
        self.lease = Some(lease);
        self.trouble = None;
    }
}

/// Tells `sight` of every change of the Lease until its receivers are gone. `look`: how often a Lease that may not be watched
/// is read.
pub async fn follow(api: Api<Lease>, name: String, look: Duration, sight: watch::Sender<Sight>) {
    let mut delays = Backoff::new(Duration::from_millis(50), Duration::from_secs(4));
    while !sight.is_closed() {
        let began = clock::now();
        let end = match watched(&api, &name, &sight).await {
            // The right to watch it came with a later version of crier's rights than those that the cluster has.
            Err(error) if is(&error, 403) => read(&api, &name, &sight).await.and(Err(error)),
            end => end,
        };
        if clock::now() - began > Duration::from_secs(1) {
            delays.reset();
        }
        let delay = match end {
            Ok(()) => delays.next_delay(),
            Err(error) => {
                sight.send_modify(|sight| sight.trouble = Some(trouble(&error)));
                if is(&error, 403) { look } else { delays.next_delay() }
            }
        };
        sleep(delay).await;
    }
}

async fn watched(api: &Api<Lease>, name: &str, sight: &watch::Sender<Sight>) -> Result<(), kube::Error> {
    let only = format!("metadata.name={name}");
    let list = in_time(api.list(&ListParams::default().fields(&only))).await?;
    sight.send_modify(|sight| sight.note(list.items.into_iter().next(), clock::now(), clock::wall()));
    let version = list.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(&only).timeout(fastrand::u32(WATCH_SECONDS));
    let mut events = pin!(in_time(api.watch(&params, &version)).await?);
    while let Ok(Some(event)) = timeout(SILENCE, events.next()).await {
        match event? {
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                sight.send_modify(|sight| sight.note(Some(lease), clock::now(), clock::wall()));
            }
            WatchEvent::Deleted(_) => sight.send_modify(|sight| sight.note(None, clock::now(), clock::wall())),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
}

async fn read(api: &Api<Lease>, name: &str, sight: &watch::Sender<Sight>) -> Result<(), kube::Error> {
    let lease = in_time(api.get_opt(name)).await?;
    sight.send_modify(|sight| sight.note(lease, clock::now(), clock::wall()));
    Ok(())
}

async fn in_time<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(kube::Error::Service(Box::new(late))),
    }
}
