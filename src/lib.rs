//! crier: `Service type: LoadBalancer` on bare metal, one static binary per node.

pub mod address;
pub mod arp;
pub mod bgp;
pub mod clock;
pub mod community;
pub mod config;
pub mod kernel;
pub mod names;
pub mod plan;
pub mod route;
pub mod secret;
pub mod selector;
pub mod world;
