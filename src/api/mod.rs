//! The local API: HTTP over a Unix socket, the same JSON for every door. Floor 4.
//!
//! [`server`] answers for the running agent; [`client`] is how the commands ask. [`metrics`] is the part that is
//! also served over TCP, with health.

pub mod client;
pub mod filter;
mod l2_metrics;
pub mod metrics;
pub mod server;
