//! `crier renumber`: what the API server is to be told so that a Service gets other addresses. Floor 1.
//! It changes nothing: whoever allocates reads the annotation and follows it.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, Snapshot};
use crate::config::duration;
use crate::k8s::annotation::{Annotate, renumbering};
use crate::names::ObjectKey;
use crate::plan::decision::Decision;
use crate::world::Renumber;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenumberRequest {
    pub service: ObjectKey,
    /// In milliseconds: how long the old addresses stay beside the new ones.
    pub overlap_millis: u64,
}

/// What was asked of the API server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenumberReport {
    pub schema_version: u32,
    pub service: ObjectKey,
    /// The addresses that the Service is to give up.
    pub leaving: Vec<IpAddr>,
    pub overlap: String,
    /// Those that share one of these and keep it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_with: Vec<ObjectKey>,
}

/// Why a Service cannot get other addresses.
#[derive(Debug, thiserror::Error)]
pub enum CannotRenumber {
    #[error("there is no Service {0} of type LoadBalancer")]
    NoService(ObjectKey),
    #[error("{0} has no address of crier's")]
    NoAddress(ObjectKey),
    #[error("{service} requests {address} itself: change its annotation or spec.loadBalancerIP instead")]
    Requested { service: ObjectKey, address: IpAddr },
    #[error("{address} is reserved for {service} ([[reservation]]): reserve another address for it, or none, before")]
    Reserved { service: ObjectKey, address: IpAddr },
    #[error("its request cannot be read: {0}")]
    Unreadable(String),
    #[error(
        "{service} is being renumbered: {under_way}; wait until that is over, or remove its annotation {}",
        Renumber::ANNOTATION
    )]
    UnderWay { service: ObjectKey, under_way: String },
    #[error("the overlap is longer than {}", duration::text(Renumber::LONGEST_OVERLAP))]
    TooLong,
    #[error(
        "this agent has no API server ([manifests]): write the annotation {} into the manifest of {service}: \"{value}\"",
        Renumber::ANNOTATION
    )]
    Standalone { service: ObjectKey, value: String },
}

/// The annotation to write, and what it means.
pub fn renumber(
    snapshot: &Snapshot,
    RenumberRequest { service: key, overlap_millis }: &RenumberRequest,
) -> Result<(Annotate, RenumberReport), CannotRenumber> {
    let service = snapshot.world.services.get(key).filter(|service| service.load_balancer);
    let service = service.ok_or_else(|| CannotRenumber::NoService(key.clone()))?;
    let overlap = Duration::from_millis(*overlap_millis);
    if overlap > Renumber::LONGEST_OVERLAP {
        return Err(CannotRenumber::TooLong);
    }
    let request = service.request.as_ref().map_err(|error| CannotRenumber::Unreadable(error.to_string()))?;
    let leaving = snapshot.plan.decisions.get(key).map(|decision| addresses(decision)).unwrap_or_default();
    // With an API server the annotation goes when the renumbering is over. In a manifest it stays.
    let is_over =
        |it: &Renumber| snapshot.config.is_standalone() && !it.leaving.iter().any(|address| leaving.contains(address));
    if let Some(under_way) = service.renumber.as_deref().filter(|it| !is_over(it)) {
        return Err(CannotRenumber::UnderWay { service: key.clone(), under_way: renumbering(under_way) });
    }
    if leaving.is_empty() {
        return Err(CannotRenumber::NoAddress(key.clone()));
    }
    if let Some(address) = leaving.iter().find(|address| request.addresses.contains(address)) {
        return Err(CannotRenumber::Requested { service: key.clone(), address: *address });
    }
    let reservations = snapshot.config.reservations.iter().filter(|reservation| reservation.service == *key);
    if let Some(address) = reservations.flat_map(|it| &it.addresses).find(|address| leaving.contains(address)) {
        return Err(CannotRenumber::Reserved { service: key.clone(), address: *address });
    }
    let shares = |decision: &Decision| decision.announcements.iter().any(|it| leaving.contains(&it.address));
    let others = snapshot.plan.decisions.iter().filter(|(other, decision)| *other != key && shares(decision));
    let shared_with = others.map(|(other, _)| other.clone()).collect();
    let value = renumbering(&Renumber { leaving: leaving.clone(), overlap });
    if snapshot.config.is_standalone() {
        return Err(CannotRenumber::Standalone { service: key.clone(), value });
    }
    let annotate = Annotate {
        service: key.clone(),
        uid: service.uid.clone(),
        resource_version: service.resource_version.clone(),
        name: Renumber::ANNOTATION,
        value: Some(value),
    };
    let (schema_version, overlap) = (SCHEMA_VERSION, duration::text(overlap));
    Ok((annotate, RenumberReport { schema_version, service: key.clone(), leaving, overlap, shared_with }))
}

/// Those that are announced: the status shows them.
fn addresses(decision: &Decision) -> Vec<IpAddr> {
    decision.announcements.iter().map(|it| it.address).collect()
}
