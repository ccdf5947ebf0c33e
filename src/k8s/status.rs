//! The status writer: makes each Service's status say what the plan wants, and tells the user why in Events. Floor 2.
//!
//! Tasks: [`run`], owned by the agent, owns the writes under way; and the Event writer ([`event::run`]), owned by `run`.
//! Cancelled, a write under way may or may not have happened; it named the version that it was meant for, so it can
//! never have undone anything newer, and the next slice says again what is wanted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::k8s::event;
use crate::k8s::ledger::{Ledger, Telling, Written};
use crate::k8s::raw::Object;
use crate::k8s::service::{self, ServiceFields};
use crate::k8s::watch::reason;
use crate::names::{NodeName, ObjectKey};
use crate::plan::slice::{ServiceStatus, StatusSlice};
use crate::world::Fact;

/// Writes under way at a time, on one connection where the API server speaks HTTP/2. Well below the hundred streams that it
/// allows, so that watches and the Lease always find room.
const SIDE_BY_SIDE: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes until the sender of the slices is gone. `node` is who tells the Events.
pub async fn run(client: Client, node: NodeName, mut slices: watch::Receiver<StatusSlice>, facts: mpsc::Sender<Fact>) {
    let (tell, tellings) = mpsc::channel(event::WAITING);
    let mut events = JoinSet::new();
    events.spawn(event::run(client.clone(), node.to_string(), tellings));
    let mut ledger = Ledger::default();
    let mut writes = FuturesUnordered::new();
    let first = slices.borrow_and_update().clone();
    pass_on(ledger.turn_to(first), &tell);
    loop {
        while writes.len() < SIDE_BY_SIDE {
            let Some((key, wanted, addresses)) = ledger.next_write() else { break };
            writes.push(write(client.clone(), key, wanted, addresses));
        }
        let due = ledger.next_deadline();
        tokio::select! {
            changed = slices.changed() => {
                if changed.is_err() {
                    return;
                }
                let slice = slices.borrow_and_update().clone();
                pass_on(ledger.turn_to(slice), &tell);
            }
            Some((key, wanted, outcome)) = writes.next() => {
                let (written, answer) = match outcome {
                    Ok(answer) => (Written::Done, answer),
                    Err(written) => (written, None),
                };
                if let Written::Refused { why, .. } = &written {
                    warn!(service = %key, why, "the status was not written; it is tried again");
                }
                let fresh = ledger.settle(&key, &wanted, &written, clock::now());
                pass_on(fresh.telling, &tell);
                let fact = match (answer, fresh.refusal) {
                    (Some(service), _) => Fact::StatusWritten(key, service),
                    (None, Some(why)) => Fact::StatusRefused(key, why),
                    (None, None) => continue,
                };
                if facts.send(fact).await.is_err() {
                    return;
                }
            }
            () = sleep_until(due.unwrap_or_else(clock::now).into()), if due.is_some() => ledger.wake(clock::now()),
        }
    }
}

fn pass_on(tellings: impl IntoIterator<Item = Telling>, tell: &mpsc::Sender<Telling>) {
    for telling in tellings {
        if let Err(error) = tell.try_send(telling) {
            debug!(%error, "an Event was dropped: too many are waiting");
        }
    }
}

/// One write, and the Service as the API server answered it.
async fn write(
    client: Client,
    key: ObjectKey,
    wanted: Arc<ServiceStatus>,
    addresses: Vec<IpAddr>,
) -> (ObjectKey, Arc<ServiceStatus>, Result<Option<Arc<crate::world::Service>>, Written>) {
    let api: Api<Object<ServiceFields>> = Api::namespaced(client, key.namespace.as_str());
    let patch = Patch::Merge(patch(&wanted, &addresses));
    let params = PatchParams { field_manager: Some("crier".to_owned()), ..PatchParams::default() };
    let outcome = match timeout(TIMEOUT, api.patch_status(&key.name, &params, &patch)).await {
        Ok(Ok(object)) => {
            debug!(service = %key, ?addresses, "status written");
            Ok(service::service(&object).ok().map(Arc::new))
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            debug!(service = %key, "the status was not written: the Service has changed meanwhile");
            Err(Written::Overtaken)
        }
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Written::Gone),
        Ok(Err(error)) => Err(Written::Refused { why: reason(&error), patience: patience(&error) }),
        Err(_) => Err(Written::Refused { why: "no answer".to_owned(), patience: Duration::ZERO }),
    };
    (key, wanted, outcome)
}

/// The uid and the version make the API server refuse the write where it would meet another object than was judged.
fn patch(wanted: &ServiceStatus, addresses: &[IpAddr]) -> serde_json::Value {
    let ingress: Vec<_> =
        addresses.iter().map(|ip| serde_json::json!({ "ip": ip.to_string(), "ipMode": "VIP" })).collect();
    serde_json::json!({
        "metadata": { "uid": wanted.uid, "resourceVersion": wanted.resource_version },
        "status": { "loadBalancer": { "ingress": ingress } },
    })
}

/// How long the API server asked us to wait.
fn patience(error: &kube::Error) -> Duration {
    let kube::Error::Api(status) = error else { return Duration::ZERO };
    Duration::from_secs(status.details.as_ref().map_or(0, |details| details.retry_after_seconds).into())
}
