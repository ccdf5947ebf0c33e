//! Events on Services: what `kubectl describe service` shows of crier's decisions. Floor 2.
//!
//! One task, [`run`], owned by the status writer. It owns the Events in flight; a cancelled task loses these and nothing
//! else. Events are best effort and never delay other work.

use std::time::Duration;

use futures::StreamExt;
use http::Request;
use kube::Client;
use serde::de::IgnoredAny;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::clock;
use crate::k8s::backoff::Backoff;
use crate::k8s::refusal::reason;
use crate::k8s::status_queue::PendingEvent;
use crate::plan::slice::Notice;

/// How many Events may wait while the API server is slow; newer ones beyond that are dropped.
pub const WAITING: usize = 4096;
/// Events in flight. Few, so that a thousand Events leave the API server free for the status writes.
const SIDE_BY_SIDE: usize = 2;
const TRIES: usize = 3;
/// About twenty seconds where the API server answers nothing at all.
const TRIES_AWAITED: usize = 7;
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest `note` that the API server accepts, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Writes Events until the last sender is gone. `instance` names the reporting agent, at most 128 bytes.
pub async fn run(client: Client, instance: String, events: mpsc::Receiver<PendingEvent>) {
    let events = futures::stream::unfold(events, |mut events| async {
        let pending = events.recv().await?;
        Some((pending, events))
    });
    let (client, instance) = (&client, &instance);
    events
        .for_each_concurrent(SIDE_BY_SIDE, |pending| async move { write(client, instance, &pending, TRIES).await })
        .await;
}

/// Writes an Event that something waits for: it is tried for longer, and handed back once it was written, or will not be.
pub async fn tell(client: Client, instance: String, pending: PendingEvent) -> PendingEvent {
    write(&client, &instance, &pending, TRIES_AWAITED).await;
    pending
}

async fn write(client: &Client, instance: &str, pending: &PendingEvent, tries: usize) {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", pending.service.namespace);
    let body = event(instance, pending, clock::wall(), fastrand::u64(..)).to_string().into_bytes();
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    for left in (0..tries).rev() {
        let request = Request::post(&path).header(http::header::CONTENT_TYPE, "application/json").body(body.clone());
        let request = match request {
            Ok(request) => request,
            Err(error) => return warn!(service = %pending.service, %error, "an Event could not be written"),
        };
        let why = match timeout(TIMEOUT, client.request::<IgnoredAny>(request)).await {
            Ok(Ok(_)) => return debug!(service = %pending.service, reason = pending.notice.reason, "Event written"),
            // The name is random and new for this Event: an earlier attempt succeeded and its answer was lost.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                return debug!(service = %pending.service, "no Event: the namespace is gone");
            }
            Ok(Err(error @ kube::Error::Api(_))) if left == 0 || !passes(&error) => {
                return warn!(service = %pending.service, why = reason(&error), "an Event could not be written");
            }
            Ok(Err(error)) => reason(&error),
            Err(_) => "no answer".to_owned(),
        };
        debug!(service = %pending.service, why, left, "an Event was not written");
        if left > 0 {
            sleep(backoff.next_delay()).await;
        }
    }
}

/// Whether the same request may succeed later.
fn passes(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429 || status.code >= 500)
}

fn event(instance: &str, pending: &PendingEvent, now: std::time::SystemTime, number: u64) -> serde_json::Value {
    let PendingEvent { service, uid, resource_version, notice: Notice { warning, reason, message } } = pending;
    let time = jiff::Timestamp::try_from(now).unwrap_or_default();
    serde_json::json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "name": format!("{}.{number:016x}", service.name), "namespace": service.namespace.as_str() },
        "eventTime": format!("{time:.6}"),
        "reportingController": "crier",
        "reportingInstance": shortened(instance, 128),
        "action": "Allocate",
        "type": if *warning { "Warning" } else { "Normal" },
        "reason": reason,
        "note": shortened(message, LONGEST_NOTE),
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": service.namespace.as_str(),
            "name": &*service.name,
            "uid": uid,
            "resourceVersion": resource_version,
        },
    })
}

/// At most `most` bytes of the text, in whole characters.
fn shortened(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::names::ObjectKey;

    fn pending(message: &str) -> PendingEvent {
        PendingEvent {
            service: ObjectKey::new("shop", "web"),
            uid: "0b6f".to_owned(),
            resource_version: "7".to_owned(),
            notice: Notice { warning: true, reason: "NoFreeAddress".to_owned(), message: message.to_owned() },
        }
    }

    #[test]
    fn an_event_has_all_that_the_api_server_asks_for() {
        let event = event("node-a", &pending("pool lan is full"), UNIX_EPOCH + Duration::from_micros(1_500_000), 0xab);
        assert_eq!(event["metadata"]["name"], "web.00000000000000ab");
        assert_eq!(event["eventTime"], "1970-01-01T00:00:01.500000Z", "exactly six decimals");
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["regarding"]["uid"], "0b6f");
        for required in ["reportingController", "reportingInstance", "action", "reason", "note"] {
            assert!(event[required].as_str().is_some_and(|text| !text.is_empty()), "{required} is required");
        }
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = "ä".repeat(600);
        let event = event("node-a", &pending(&note), UNIX_EPOCH, 0);
        assert_eq!(event["note"].as_str().map(str::len), Some(1024));
        assert_eq!(shortened("äö", 3), "ä");
    }
}
