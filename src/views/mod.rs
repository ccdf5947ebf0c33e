//! Views: what a running agent shows, each a pure function of one snapshot of it. Floor 1.
//!
//! The loop hands out a [`Snapshot`], which costs it next to nothing, and formats nothing. Whoever asks makes the view of
//! it: [`status`], [`bgp`], [`bfd`], [`l2`], [`forecast`] and [`counters`] are the JSON behind the reading verbs, [`metrics`] is the table of
//! metrics. Nothing here decides: a view tells what the Plan holds.

mod agreement;
pub mod allocator;
pub mod bfd;
pub mod bgp;
pub mod counters;
pub mod drain;
pub mod egress;
pub mod egress_path;
mod egress_signs;
mod egress_unannounced;
pub mod forecast;
pub mod l2;
pub mod metrics;
pub mod moving;
pub mod new_pods;
mod own_node;
mod problems;
pub mod reload;
pub mod renumber;
pub mod service;
mod snapshot;
mod stations;
pub mod status;
mod unannounced;
mod words;

pub use snapshot::{Counters, LinkFrames, LinkPulses, Snapshot};

/// Of all JSON that a view gives. Fields are only ever added within one version; it grows when a field is taken away or
/// changes its meaning. Times are RFC 3339, durations are in the unit that the field names.
pub const SCHEMA_VERSION: u32 = 1;
