//! Everything crier was told: facts come in, the World is their sum. It decides nothing.
//! Floor 1. `Fact` is what the sources and actuators report; `World` is what `plan` reads.

mod answerers;
mod bfd;
mod client_certificate;
mod condition;
mod departed;
mod drain;
mod fact;
mod lease;
mod maps;
mod node_counts;
mod objects;
mod pods;
mod refusal;
mod session;
mod sum;
#[cfg(test)]
mod tests;

pub use crate::session_state::SessionState;
pub use answerers::Answerers;
pub use bfd::{BfdLoss, BfdReport, BfdSessions};
pub use client_certificate::ClientCertificate;
pub use condition::{Condition, is_of_default};
pub use drain::{Drain, DrainStage, Ordered, Shutdown};
pub use fact::{
    ApiServer, Area, ClusterConfig, Fact, Listing, PeerOrder, PeerOrders, PoolRange, PulseTrouble, Pulses,
    SessionReport,
};
pub use lease::{LeaseState, Silence};
pub use node_counts::NodeCounts;
pub use objects::{
    Conflict, DefaultRoute, Destinations, Egress, EgressBounds, EgressReach, EndpointAddresses, EndpointSlice,
    FamilyPolicy, HeldPod, HostProblem, Link, Marks, NetworkNumbers, Node, OvnGateway, PodMark, PoolsTold, Renumber,
    Request, RequestError, Service, ServicePort, Sharing, Tenant, TrafficPolicy,
};
pub use pods::{Pod, Pods};
pub use refusal::{Refusal, Trouble};
pub use session::{
    Capabilities, CarriedFamily, Direction, FormerSession, LastNotification, MessageCounts, NegotiatedReport,
    NotificationCount, RefusedSegments, SessionDetail, UnsendablePrefixes,
};
pub use sum::{Endpoints, ListedKinds, Touched, World};
