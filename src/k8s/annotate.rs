//! Writes to a Service what an operator orders of this agent. Floor 2.
//!
//! Tasks: one, owned by the caller, which makes one write at a time. Cancelled, it answers nobody any more: whoever ordered sees
//! that, and orders again.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::info;

use crate::k8s::annotation::Annotate;
use crate::k8s::raw::Object;
use crate::k8s::refusal::reason;
use crate::k8s::service::ServiceFields;

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Orders of people: a few at a time. One who comes while the queue is full waits.
pub const WAITING: usize = 4;

/// An annotation to be written, and who waits for it. The answer is why it was not.
#[derive(Debug)]
pub struct Annotation {
    pub annotate: Annotate,
    pub answer: oneshot::Sender<Result<(), String>>,
}

/// Writes until nobody can order any more.
pub async fn run(client: Client, mut annotations: mpsc::Receiver<Annotation>) {
    while let Some(Annotation { annotate, answer }) = annotations.recv().await {
        let outcome = write(&client, &annotate).await;
        if outcome.is_ok() {
            info!(service = %annotate.service, annotation = annotate.name, value = annotate.value.as_deref().unwrap_or("none"), "annotated by order");
        }
        // Whoever ordered may have gone away.
        let _ = answer.send(outcome);
    }
}

/// Annotations travel with the status, which is all of a Service that crier may write. With uid and version the API server
/// refuses the write if the Service is not the one that the order was made for.
async fn write(client: &Client, annotate: &Annotate) -> Result<(), String> {
    let Annotate { service, uid, resource_version, name, value } = annotate;
    let api: Api<Object<ServiceFields>> = Api::namespaced(client.clone(), service.namespace.as_str());
    let patch = json!({
        "metadata": { "uid": uid, "resourceVersion": resource_version, "annotations": { *name: value } },
    });
    let params = PatchParams { field_manager: Some("crier".to_owned()), ..PatchParams::default() };
    match timeout(TIMEOUT, api.patch_status(&service.name, &params, &Patch::Merge(patch))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
            Err(format!("{service} has changed in this moment; try again"))
        }
        Ok(Err(error)) => Err(format!("the API server does not take it: {}", reason(&error))),
        Err(_) => Err("the API server does not answer".to_owned()),
    }
}
