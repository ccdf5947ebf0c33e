//! What a running agent says of connections that pods open to the outside: the JSON behind `crier egress`. Floor 1.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, Snapshot};
use crate::address::Family;
use crate::egress::counters::Counts;
use crate::names::{NodeName, ObjectKey};
use crate::plan::decision::{EgressOwner, EgressVerdict};
use crate::plan::slice::Mapping;

/// `crier egress`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressReport {
    pub schema_version: u32,
    /// The node that says it.
    pub node: NodeName,
    /// One for each address of a Service with egress; one for a Service that has none.
    pub services: Vec<EgressRow>,
    /// The pods that this node still holds back although no Service asks for it any more are not among them.
    pub problems: Vec<String>,
}

/// How what the pods of a Service open leaves, as this node does it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EgressRow {
    pub service: ObjectKey,
    /// The source that packets leave with.
    pub address: Option<IpAddr>,
    /// The node by which they leave.
    pub owner: Option<NodeName>,
    /// The pods with an address of the same family, on all nodes.
    pub pods: usize,
    pub path: Path,
    /// Connections that got the address here since the agent started.
    pub translated: u64,
    /// Packets that this node held back since the agent started.
    pub dropped: u64,
    /// Why packets are held back.
    pub reason: Option<String>,
}

/// What this node does with packets of the pods to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// It gives them the address and sends them.
    Local,
    /// It sends them to the owner, which gives them the address.
    Routed,
    /// It drops them.
    Held,
    /// There is no pod.
    NoPods,
}

impl Path {
    /// What the mapping of a pod says.
    pub fn of(mapping: &Mapping) -> Path {
        match mapping {
            Mapping::Held => Path::Held,
            Mapping::Translated { .. } => Path::Local,
            Mapping::Steered { .. } => Path::Routed,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Path::Local => "local",
            Path::Routed => "routed",
            Path::Held => "held",
            Path::NoPods => "-",
        }
    }
}

/// The view.
pub fn egress(snapshot: &Snapshot) -> EgressReport {
    let counts = &snapshot.counters.egress;
    let decisions = snapshot.plan.decisions.iter();
    let with_egress = decisions.filter_map(|(key, decision)| Some((key, decision.egress.as_ref()?)));
    EgressReport {
        schema_version: SCHEMA_VERSION,
        node: snapshot.node.clone(),
        services: with_egress.flat_map(|(key, verdict)| rows(snapshot, key, verdict, counts)).collect(),
        problems: problems(snapshot),
    }
}

/// Whatever keeps packets of pods from leaving with their Service's address.
pub(super) fn problems(snapshot: &Snapshot) -> Vec<String> {
    let decisions = snapshot.plan.decisions.iter();
    let with_egress = decisions.filter_map(|(key, decision)| Some((key, decision.egress.as_ref()?)));
    let rows = with_egress.flat_map(|(key, verdict)| rows(snapshot, key, verdict, &BTreeMap::new()));
    let held = rows.filter(|row| row.path == Path::Held);
    let in_words = |row: EgressRow| {
        let reason = row.reason.unwrap_or_else(|| "it has no address yet".to_owned());
        format!("{}: what its pods open to the outside is held back on this node: {reason}", row.service)
    };
    held.map(in_words).collect()
}

fn rows(
    snapshot: &Snapshot,
    key: &ObjectKey,
    verdict: &EgressVerdict,
    counts: &BTreeMap<IpAddr, Counts>,
) -> Vec<EgressRow> {
    let pods: Vec<IpAddr> = snapshot.world.endpoint_addresses(key).collect();
    let row = |address: Option<IpAddr>, owner: Option<&EgressOwner>| {
        let of_family = |pod: &&IpAddr| address.is_none_or(|address| Family::of(address) == Family::of(**pod));
        let held = pods.iter().filter(of_family).filter_map(|pod| Some((pod, snapshot.plan.egress.pods.get(pod)?)));
        let held: Vec<(&IpAddr, &Mapping)> = held.collect();
        let path = match held.first() {
            None => Path::NoPods,
            Some((_, mapping)) => Path::of(mapping),
        };
        let sum = |count: fn(&Counts) -> u64| held.iter().filter_map(|(pod, _)| counts.get(*pod)).map(count).sum();
        EgressRow {
            service: key.clone(),
            address,
            owner: owner.and_then(|it| it.owner.clone()),
            pods: held.len(),
            path,
            translated: sum(|it| it.translated),
            dropped: sum(|it| it.dropped),
            reason: if path == Path::Held { reason(snapshot, key, verdict, owner) } else { None },
        }
    };
    match verdict.owners.as_slice() {
        [] => vec![row(None, None)],
        owners => owners.iter().map(|owner| row(Some(owner.address), Some(owner))).collect(),
    }
}

fn reason(
    snapshot: &Snapshot,
    key: &ObjectKey,
    verdict: &EgressVerdict,
    owner: Option<&EgressOwner>,
) -> Option<String> {
    if verdict.closed {
        let request = snapshot.world.services.get(key).and_then(|service| service.request.as_ref().err());
        return Some(request.map_or("its annotations cannot be met".to_owned(), ToString::to_string));
    }
    let owner = owner?;
    if let Some(reason) = &owner.reason {
        return Some(reason.to_string());
    }
    let node = owner.owner.as_ref()?;
    if *node == snapshot.node {
        let decision = snapshot.plan.decisions.get(key)?;
        let announcement = decision.announcements.iter().find(|it| it.address == owner.address)?;
        let why = if announcement.is_on_link() { &announcement.l2.reason } else { &announcement.bgp.reason };
        return Some(format!("this node is to send with {} and does not announce it: {why}", owner.address));
    }
    let obstacle = snapshot.plan.unreached.get(&(node.clone(), Family::of(owner.address)));
    obstacle
        .map(ToString::to_string)
        .or_else(|| Some("a pod of it belongs to another Service with egress too".to_owned()))
}
