//! How this node treats what a pod with egress sends. Floor 1.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Snapshot;
use crate::address::Family;
use crate::plan::slice::{Hop, Mapping};

/// What this node does with packets of the pods to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// It gives them the address and sends them.
    Local,
    /// It sends them to the owner, which gives them the address.
    Routed,
    /// It sends them to the owner by the tunnel: the owner is on no link of this node.
    Tunnel,
    /// It gives them its address in a network and sends them there.
    Network,
    /// It drops them.
    Held,
    /// The kernel does not hold the table that does what the plan says.
    Pending,
    /// There is no pod.
    NoPods,
}

impl Path {
    /// What this node does with a pod's packets, where there is a pod.
    pub const OF_PODS: [Path; 6] = [Path::Local, Path::Routed, Path::Tunnel, Path::Network, Path::Held, Path::Pending];

    /// What this node does with a pod's packets, which is what the plan says only once the kernel holds it.
    pub fn of(snapshot: &Snapshot, pod: IpAddr, mapping: &Mapping) -> Path {
        let table = snapshot.counters.egress_table.as_ref();
        if table.and_then(|table| table.pods.get(&pod)) != Some(mapping) {
            return Path::Pending;
        }
        match mapping {
            Mapping::Held => Path::Held,
            Mapping::Steered { slot } if snapshot.world.egress_reach.refused.contains_key(slot) => Path::Held,
            Mapping::Translated { .. } => Path::Local,
            Mapping::Steered { slot } => match by_tunnel(snapshot, *slot, Family::of(pod)) {
                true => Path::Tunnel,
                false => Path::Routed,
            },
            Mapping::Networked(_) => Path::Network,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Path::Local => "local",
            Path::Routed => "routed",
            Path::Tunnel => "tunnel",
            Path::Network => "network",
            Path::Held => "held",
            Path::Pending => "pending",
            Path::NoPods => "-",
        }
    }
}

fn by_tunnel(snapshot: &Snapshot, slot: u8, family: Family) -> bool {
    let hops = snapshot.plan.egress.hops.get(&slot);
    let hop = hops.and_then(|hops| Family::BOTH.iter().zip(hops).find(|(of, _)| **of == family));
    matches!(hop, Some((_, Some(Hop::Tunnel { .. }))))
}
