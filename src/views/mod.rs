//! Views: what a running agent shows, the JSON behind the reading verbs. Floor 3.

pub mod bgp;
pub mod l2;
pub mod status;
