//! What was decided about one Service, each part with its reason: what `status` prints and Events quote.
//! Floor 1.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::names::{NodeName, PeerName, PoolName};
use crate::reason::Reason;

/// The verdict about one Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub allocation: Allocation,
    /// One entry for each address that may be announced.
    pub announcements: Vec<Announcement>,
    /// How outbound connections of its pods leave the cluster; `None` where the Service does not ask for that.
    #[serde(default)]
    pub egress: Option<EgressVerdict>,
}

/// What is decided about what the pods of a Service open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressVerdict {
    /// How many addresses of pods are held to the Service's addresses.
    pub pods: usize,
    /// Endpoints with the address of a node, which leave as they would without egress.
    pub host_pods: usize,
    /// The node by which packets leave with each address, or why there is none.
    pub owners: Vec<EgressOwner>,
    /// The addresses by whose networks packets leave from every node, with the node's address there; then there are no owners.
    #[serde(default)]
    pub networks: Vec<IpAddr>,
    /// Why packets leave by none of these networks from this node.
    #[serde(default)]
    pub refusal: Option<Reason>,
    /// The annotations cannot be met: no packet of the pods leaves the cluster.
    pub closed: bool,
}

/// The node through which outbound connections of the pods leave with an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressOwner {
    pub address: IpAddr,
    pub owner: Option<NodeName>,
    /// Why there is no owner.
    pub reason: Option<Reason>,
}

/// Which addresses a Service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Those it holds, each with its pool.
    pub held: Vec<Held>,
    /// How it came to hold them, or why it holds none.
    pub reason: Reason,
    /// A request that cannot be met, while the Service keeps the addresses above.
    pub complaint: Option<Reason>,
    /// What else is to be said of the addresses above, while nothing is wrong.
    #[serde(default)]
    pub notes: Vec<Reason>,
}

impl Allocation {
    /// The Service has no address, not the one it requests, or none of a family that it would like to have: an address that becomes free may help.
    pub fn is_wanting(&self) -> bool {
        let lacks_family = self.notes.iter().any(|note| matches!(note, Reason::FamilyMissing { .. }));
        self.held.is_empty() || self.complaint.is_some() || lacks_family
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub address: IpAddr,
    pub pool: PoolName,
}

/// What this node does about one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub address: IpAddr,
    pub pool: PoolName,
    pub l2: L2Verdict,
    pub bgp: BgpVerdict,
}

impl Announcement {
    /// Some `[[l2]]` covers the address.
    pub fn is_on_link(&self) -> bool {
        !matches!(self.l2.reason, Reason::NoL2ForPool { .. })
    }

    /// It is announced nowhere because the endpoints of the Service name no node: a mistake in the EndpointSlice, which needs user action.
    pub fn lacks_node_names(&self) -> bool {
        self.l2.reason == Reason::EndpointsNameNoNode || self.bgp.reason == Reason::EndpointsNameNoNode
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct L2Verdict {
    /// The node that answers for the address on the link; all agents name the same one.
    pub owner: Option<NodeName>,
    /// This node is the owner and has a link to answer on.
    pub announced: bool,
    pub reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpVerdict {
    /// The peers that this node announces the address to.
    pub peers: Vec<PeerName>,
    pub reason: Reason,
    /// The routes that carry the address, each with the peers that get it.
    #[serde(default)]
    pub routes: Vec<Carrier>,
    /// What of the advertisements could not be done, while the routes above are announced.
    #[serde(default)]
    pub notes: Vec<Reason>,
}

/// A route that this node announces for an address: the address alone, or an aggregate around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carrier {
    pub prefix: IpNet,
    pub peers: Vec<PeerName>,
}

impl BgpVerdict {
    /// Advertisements that say different things of one route: only the operator can say which is meant.
    pub fn dispute(&self) -> Option<&Reason> {
        self.notes.iter().find(|note| matches!(note, Reason::AdvertisementsDisagree { .. }))
    }
}
