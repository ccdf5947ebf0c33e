//! Kubernetes: its objects in, as Facts; the status of Services, Events and the Lease out.
//! Floor 1 for the translators, which serve the `manifests` too; client, watch, lease, status and events are floor 2.

// Floor 1: what of an object is read, and what it means.
pub mod annotation;
pub mod certificate;
pub mod endpoints;
pub mod event_budget;
pub mod namespace;
pub mod node;
pub mod node_kubeconfig;
pub mod pod;
pub mod raw;
pub mod refusal;
pub mod service;
pub mod service_cidr;
pub mod status_queue;

// Floor 2: the API server.
pub mod account;
pub mod annotate;
pub mod ask;
pub mod backoff;
pub mod barrier;
pub mod certificate_request;
pub mod client;
mod client_error;
pub mod config_map;
mod connection;
mod credentials;
pub mod event;
pub mod foreign;
pub mod lease;
pub mod list;
pub mod node_mark;
pub mod status;
pub mod watch;

#[cfg(test)]
mod fake;

/// Base64 as the API server and kubeconfigs write it.
fn base64(octets: &[u8]) -> String {
    let value = serde_json::to_value(k8s_openapi::ByteString(octets.to_vec())).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// What base64 with line breaks stands for; `None` where it is none.
fn of_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.split_whitespace().collect();
    serde_json::from_value::<k8s_openapi::ByteString>(text.into()).ok().map(|it| it.0)
}
