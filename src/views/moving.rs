//! `crier move`: what the API server is to be told so that a node takes the addresses of a Service on the link. Floor 1.
//! It changes nothing: the agents read the annotation, the chosen node asks, and the owner hands the addresses over.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::l2::{AddressFilter, AddressReport, UnknownAddress, l2};

use super::{SCHEMA_VERSION, Snapshot};
use crate::k8s::annotation;
use crate::k8s::annotation::Annotate;
use crate::names::{NodeName, ObjectKey};
use crate::world::Pulses;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRequest {
    pub service: ObjectKey,
    /// `None`: the preferences decide again.
    pub to: Option<NodeName>,
}

/// What was asked of the API server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderedMove {
    pub schema_version: u32,
    pub service: ObjectKey,
    pub to: Option<NodeName>,
    /// The addresses on the link, in order.
    pub addresses: Vec<MovingAddress>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MovingAddress {
    pub address: IpAddr,
    /// Before the move.
    pub owner: Option<NodeName>,
}

/// Why the addresses of a Service cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum CannotMove {
    #[error("there is no Service {0} of type LoadBalancer")]
    NoService(ObjectKey),
    #[error("{0} has no address of crier's")]
    NoAddress(ObjectKey),
    #[error("{service} has no address on a link: {unknown}; over BGP every node that serves it announces it")]
    NotOnLink { service: ObjectKey, unknown: Box<UnknownAddress> },
    #[error("{node} cannot answer for {address} of {service}: {why}")]
    NotEligible { service: ObjectKey, address: IpAddr, node: NodeName, why: String },
    #[error(
        "without pulses an address stays where it is until its owner stops: give all agents the same [pulse] key-file, or \
         drain the owner"
    )]
    NoPulses,
    #[error(
        "this agent has no API server ([manifests]): write the annotation {} into the manifest of {service}: \"{value}\"",
        annotation::NODE
    )]
    Standalone { service: ObjectKey, value: String },
}

/// The annotation to write, and what it means.
pub fn relocate(
    snapshot: &Snapshot,
    MoveRequest { service: key, to }: &MoveRequest,
) -> Result<(Annotate, OrderedMove), CannotMove> {
    let service = snapshot.world.services.get(key).filter(|service| service.load_balancer);
    let service = service.ok_or_else(|| CannotMove::NoService(key.clone()))?;
    let on_link = on_link(snapshot, key)?;
    if let Some(node) = to {
        if snapshot.world.pulses == Pulses::Off {
            return Err(CannotMove::NoPulses);
        }
        let mut refusals = on_link.iter().filter_map(|it| Some((it.address, refusal(it, node)?)));
        if let Some((address, why)) = refusals.next() {
            return Err(CannotMove::NotEligible { service: key.clone(), address, node: node.clone(), why });
        }
    }
    let value = to.as_ref().map(NodeName::to_string);
    if snapshot.config.is_standalone() {
        return Err(CannotMove::Standalone { service: key.clone(), value: value.unwrap_or_default() });
    }
    let annotate = Annotate {
        service: key.clone(),
        uid: service.uid.clone(),
        resource_version: service.resource_version.clone(),
        name: annotation::NODE,
        value,
    };
    let addresses = on_link.into_iter().map(|it| MovingAddress { address: it.address, owner: it.owner }).collect();
    Ok((annotate, OrderedMove { schema_version: SCHEMA_VERSION, service: key.clone(), to: to.clone(), addresses }))
}

/// The addresses of the Service that some `[[l2]]` covers. At least one.
fn on_link(snapshot: &Snapshot, key: &ObjectKey) -> Result<Vec<AddressReport>, CannotMove> {
    let announcements = snapshot.plan.decisions.get(key).map(|it| it.announcements.as_slice()).unwrap_or_default();
    let (mut found, mut unknown) = (Vec::new(), None);
    for announcement in announcements {
        match l2(snapshot, &AddressFilter { address: Some(announcement.address) }) {
            Ok(report) => found.extend(report.addresses),
            Err(error) => unknown = Some(error),
        }
    }
    match unknown {
        _ if !found.is_empty() => Ok(found),
        Some(unknown) => Err(CannotMove::NotOnLink { service: key.clone(), unknown: Box::new(unknown) }),
        None => Err(CannotMove::NoAddress(key.clone())),
    }
}

/// Why the node may not answer for the address; `None` where it may.
fn refusal(report: &AddressReport, node: &NodeName) -> Option<String> {
    match report.nodes.iter().find(|it| it.node == *node) {
        Some(it) if it.rank.is_some() => None,
        Some(it) => Some(it.summary.clone().unwrap_or_default()),
        None => Some("there is no such node".to_owned()),
    }
}
