//! What is written into the Lease, and what is read of it. Floor 1.
//!
//! Beside the holder it says by which pools the holder allocates, in the same write that takes or renews it: agents with
//! other pools see it, and stand back.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use crate::names::NodeName;
use crate::world::LeaseState;

const DIGEST: &str = "crier.dev/allocation-digest";
const CLASS: &str = "crier.dev/class";

/// By what an agent allocates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Of all in the configuration that decides who gets which address.
    pub digest: u64,
    /// The digest that the agents agree on, as far as this agent, as the holder, knows; `None` while it knows of no agreement.
    pub agreed: Option<u64>,
    /// `[kubernetes] class`.
    pub class: String,
    /// There are pools to allocate from: an agent without one never takes the Lease.
    pub has_pools: bool,
}

/// The Lease with this holder in it.
pub fn taken(lease: Option<Lease>, name: &str, identity: &str, terms: &Terms, secs: i32, now: SystemTime) -> Lease {
    let fresh = || Lease { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec: None };
    let mut lease = lease.unwrap_or_else(fresh);
    let before = lease.spec.take().unwrap_or_default();
    let now = MicroTime(jiff::Timestamp::try_from(now).unwrap_or_default());
    let same = before.holder_identity.as_deref() == Some(identity);
    // A Lease that is made has changed hands once.
    let transitions = before.lease_transitions.unwrap_or(0);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(secs),
        acquire_time: if same { before.acquire_time.clone() } else { Some(now.clone()) },
        renew_time: Some(now),
        lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
        ..before
    });
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(DIGEST.to_owned(), digits(terms.digest));
    // What was agreed stays there until something else is: a file that one agent alone has read is no agreement.
    note_agreed(annotations, terms.agreed);
    annotations.insert(CLASS.to_owned(), terms.class.clone());
    lease.metadata.managed_fields = None;
    lease
}

/// The Lease without a holder. What the last one allocated by stays in it, and what was agreed since its last renewal.
pub fn released(mut lease: Lease, agreed: Option<u64>) -> Lease {
    note_agreed(lease.metadata.annotations.get_or_insert_default(), agreed);
    if let Some(spec) = &mut lease.spec {
        spec.holder_identity = Some(String::new());
        // The API server requires a positive duration; a Lease without a holder is free at once.
        spec.lease_duration_seconds = Some(1);
    }
    lease.metadata.managed_fields = None;
    lease
}

/// The digest of the last holder.
pub fn digest(lease: &Lease) -> Option<u64> {
    digest_in(lease, DIGEST)
}

/// The digest that the agents last agreed on, whatever the last holder had.
pub fn agreed(lease: &Lease) -> Option<u64> {
    digest_in(lease, LeaseState::AGREED)
}

fn note_agreed(annotations: &mut BTreeMap<String, String>, agreed: Option<u64>) {
    annotations.extend(agreed.map(|digest| (LeaseState::AGREED.to_owned(), digits(digest))));
}

fn digits(digest: u64) -> String {
    format!("{digest:016x}")
}

fn digest_in(lease: &Lease, name: &str) -> Option<u64> {
    u64::from_str_radix(annotation(lease, name)?, 16).ok()
}

/// The holder's identity; empty if there is none.
pub fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// How long the holder may be silent.
pub fn promised(lease: &Lease) -> Duration {
    let secs = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(secs).unwrap_or(0))
}

/// The last renewal, by the holder's clock.
pub fn last_renewal(lease: &Lease) -> Option<SystemTime> {
    lease.spec.as_ref()?.renew_time.as_ref().map(|MicroTime(at)| SystemTime::from(*at))
}

/// What is shown of it. `inherited`, `silence` and `trouble` are this agent's own to say.
pub fn state(lease: Option<&Lease>) -> LeaseState {
    let Some(lease) = lease else { return LeaseState::default() };
    let acquired = lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref());
    // The identity is the node, and what tells two lives of its agent apart.
    let node = Some(holder(lease)).filter(|holder| !holder.is_empty());
    let node = node.map(|holder| NodeName::from(holder.rsplit_once('_').map_or(holder, |(node, _)| node)));
    LeaseState {
        held_since: acquired.map(|MicroTime(at)| SystemTime::from(*at)).filter(|_| node.is_some()),
        holder: node,
        digest: digest(lease),
        class: annotation(lease, CLASS).map(str::to_owned),
        inherited: false,
        agreed: agreed(lease),
        silence: None,
        trouble: None,
    }
}

fn annotation<'a>(lease: &'a Lease, name: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}
