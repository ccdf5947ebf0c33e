//! The ConfigMap with the cluster's part of the configuration: read once at the start, then watched. Floor 2.
//!
//! One task, [`follow`], owned by the caller. It owns the watch; cancelled, it loses nothing. An agent that may not watch the
//! ConfigMap reads it now and then.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::config::cluster::texts;
use crate::config::{Kubernetes, SourceFile};
use crate::k8s::backoff::Backoff;
use crate::k8s::client;
use crate::k8s::refusal::trouble;
use crate::names::ObjectKey;
use crate::world::Trouble;

/// How long a list, or the beginning of a watch, may take.
const TIMEOUT: Duration = Duration::from_secs(8);
/// Seconds after which the API server is asked to end a watch.
const WATCH_SECONDS: std::ops::Range<u32> = 240..290;
/// A watch that is silent for this long is begun again.
const SILENCE: Duration = Duration::from_secs(150);
/// How often a ConfigMap that may not be watched is read.
const LOOK: Duration = Duration::from_secs(30);

/// What a ConfigMap says, or why it is refused whole.
pub type Texts = Result<Vec<SourceFile>, String>;

/// What was last seen of the ConfigMap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// `None`: nothing was seen yet. `Some(None)`: there is no such ConfigMap.
    pub texts: Option<Option<Texts>>,
    /// Why it is not seen now.
    pub trouble: Option<Trouble>,
}

/// The texts of the ConfigMap; `None` where there is none.
pub async fn read(kubernetes: &Kubernetes, key: &ObjectKey) -> Result<Option<Texts>, Trouble> {
    let Kubernetes { access, servers, .. } = kubernetes;
    let (client, _) =
        client::build_for(access, servers).await.map_err(|error| Trouble::without_answer(error.to_string()))?;
    let api: Api<ConfigMap> = Api::namespaced(client, key.namespace.as_str());
    let found = in_time(api.get_opt(&key.name)).await.map_err(|error| trouble(&error))?;
    Ok(found.map(|it| texts_of(key, it)))
}

/// Tells every change of the ConfigMap until nobody listens.
pub async fn follow(client: Client, key: ObjectKey, sight: watch::Sender<Sight>) {
    let api: Api<ConfigMap> = Api::namespaced(client, key.namespace.as_str());
    let mut delays = Backoff::new(Duration::from_millis(50), Duration::from_secs(4));
    while !sight.is_closed() {
        let began = clock::now();
        let end = watched(&api, &key, &sight).await;
        if clock::now() - began > Duration::from_secs(1) {
            delays.reset();
        }
        let delay = match end {
            Ok(()) => delays.next_delay(),
            Err(error) if is_forbidden(&error) => {
                match in_time(api.get_opt(&key.name)).await {
                    Ok(found) => tell(&key, &sight, found),
                    Err(error) => note(&sight, trouble(&error)),
                }
                LOOK
            }
            Err(error) => {
                note(&sight, trouble(&error));
                delays.next_delay()
            }
        };
        sleep(delay).await;
    }
}

async fn watched(api: &Api<ConfigMap>, key: &ObjectKey, sight: &watch::Sender<Sight>) -> Result<(), kube::Error> {
    let only = format!("metadata.name={}", key.name);
    let list = in_time(api.list(&ListParams::default().fields(&only))).await?;
    tell(key, sight, list.items.into_iter().next());
    let version = list.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().fields(&only).timeout(fastrand::u32(WATCH_SECONDS));
    let mut events = pin!(in_time(api.watch(&params, &version)).await?);
    while let Ok(Some(event)) = timeout(SILENCE, events.next()).await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => tell(key, sight, Some(object)),
            WatchEvent::Deleted(_) => tell(key, sight, None),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
}

fn tell(key: &ObjectKey, sight: &watch::Sender<Sight>, found: Option<ConfigMap>) {
    let newest = Sight { texts: Some(found.map(|it| texts_of(key, it))), trouble: None };
    sight.send_if_modified(|held| {
        let differs = *held != newest;
        *held = newest;
        differs
    });
}

fn note(sight: &watch::Sender<Sight>, trouble: Trouble) {
    sight.send_if_modified(|held| {
        let differs = held.trouble.as_ref() != Some(&trouble);
        held.trouble = Some(trouble);
        differs
    });
}

fn texts_of(key: &ObjectKey, ConfigMap { data, binary_data, .. }: ConfigMap) -> Texts {
    texts(key, &data.unwrap_or_default(), binary_data.unwrap_or_default().keys())
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

async fn in_time<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(kube::Error::Service(Box::new(late))),
    }
}
