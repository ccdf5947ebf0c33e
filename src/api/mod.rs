//! The local API: HTTP over a Unix socket, the same JSON for every door. Floor 4.
//!
//! [`readings`] is the table of what can be asked for; [`server`] answers for the running agent, [`client`] is how the
//! commands ask, and [`filter`] is the query between them.

pub mod client;
pub mod filter;
pub mod readings;
pub mod server;
