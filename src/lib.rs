//! crier: `Service type: LoadBalancer` on bare metal, one static binary per node.

pub mod address;
pub mod agent;
pub mod api;
pub mod arp;
pub mod bgp;
pub mod clock;
pub mod commands;
pub mod community;
pub mod config;
pub mod k8s;
pub mod kernel;
pub mod manifests;
pub mod names;
pub mod plan;
pub mod reason;
pub mod route;
pub mod secret;
pub mod selector;
pub mod world;
