//! The agent: sources tell facts, the planner turns them into a plan, actuators make it so. Floor 3.
//!
//! [`run`] is one agent from start to end, `farewell` what each task does then; [`turn`] is the loop in its middle; [`wiring`] holds every channel;
//! [`cluster_config`] takes and follows the ConfigMap of the configuration; [`memory`] keeps the World across a restart; [`readiness`]
//! speaks to systemd; [`orders`] takes what operators want, and [`reload`] changes the configuration.

pub mod cluster_config;
pub mod counters;
mod drain;
mod drain_flows;
pub mod egress_names;
mod farewell;
mod fd_store;
mod had_sessions;
pub mod heap;
mod incarnation;
mod intent;
pub mod kept_addresses;
mod kept_sessions;
mod log_changes;
pub mod logging;
pub mod memory;
pub mod order;
pub mod orders;
mod readiness;
pub mod reload;
mod run;
mod shutdown;
mod turn;
pub mod unconfirmed;
pub mod wiring;

pub use run::{Error, Start, run};
