//! What the kernel is asked for of a table that an earlier life of the agent made, or that is taken away. Floor 1.

use super::*;

/// The maps and the sets of the ways that packets are led, of both families, as questions.
#[derive(Debug)]
pub struct WayMaps {
    /// From a pod to the chain of its slot.
    pub steer: [Attributes; 2],
    /// From a pod to its source.
    pub source: [Attributes; 2],
    /// The next hops to owners.
    pub via: [Attributes; 2],
}

impl WayMaps {
    pub fn of(form: &Form) -> WayMaps {
        let named = |set: Set| set_named(form, set);
        WayMaps {
            steer: [Set::Steer4, Set::Steer6].map(named),
            source: [Set::Source4, Set::Source6].map(named),
            via: [Set::Via4, Set::Via6].map(named),
        }
    }

    /// The number of the slot whose chain this is.
    pub fn slot(chain: &str) -> Option<u8> {
        chain.strip_prefix(SLOT)?.parse().ok()
    }

    /// The number of the network whose chain this is.
    pub fn network(chain: &str) -> Option<u8> {
        chain.strip_prefix(returns::NETWORK)?.parse().ok()
    }
}

/// What a table that is taken away is asked for, of both families, as questions.
#[derive(Debug)]
pub struct LastSets {
    /// The pods.
    pub guard: [Attributes; 2],
    /// The Services' addresses that they leave with, by whichever node.
    pub egress: [Attributes; 2],
    /// The destinations inside of the cluster, as bounds of intervals.
    pub cluster: [Attributes; 2],
}

impl LastSets {
    pub fn of(form: &Form) -> LastSets {
        let named = |set: Set| set_named(form, set);
        LastSets {
            guard: [Set::Guard4, Set::Guard6].map(named),
            egress: [Set::Egress4, Set::Egress6].map(named),
            cluster: [Set::Cluster4, Set::Cluster6].map(named),
        }
    }

    /// The networks in these bounds, in any order.
    pub fn networks(bounds: &[(IpAddr, bool)]) -> Vec<IpNet> {
        intervals::networks(bounds)
    }
}
