//! The local API: HTTP over a Unix socket, the same JSON for every door. Floor 4.
//!
//! [`readings`] is the table of what can be read; [`server`] answers for the running agent, the commands ask through
//! [`client`], and [`filter`] is the query between the two.

pub mod client;
pub mod filter;
pub mod readings;
pub mod server;
