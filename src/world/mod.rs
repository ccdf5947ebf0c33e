//! All that crier was told: facts come in, the World is their sum. It has no opinions.
//! Floor 1. `Fact` is what the sources and actuators report; `World` is what `plan` reads.

mod fact;
mod objects;
mod sum;

pub use fact::{ApiServer, Fact, Listing, Pulses, SessionReport, SessionState};
pub use objects::{
    Conflict, EndpointSlice, FamilyPolicy, Link, Node, Request, RequestError, Service, ServicePort, TrafficPolicy,
};
pub use sum::{Endpoints, ListedKinds, Touched, World};
