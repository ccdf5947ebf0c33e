//! The decisions: from the World to the Plan, each part with its reason. Floor 1: pure, `now` is an argument.
//!
//! [`Planner`] keeps the World and the Plan and re-judges what a fact touched. [`verdict`] decides about one Service, one file
//! for each question; [`context`] is what all verdicts of a turn are based on, [`allocate`] finds addresses, `pools` says which are
//! open to a Service, [`sharing`] and `partners` who may have one together, [`elect`] and
//! [`ranking`] order the nodes for an address, [`decision`] is the verdict as it is shown, `notice` the Event about it.
//! What verdicts lead to is kept by organs of the planner: [`address_book`], `route_table` (with [`join`], which makes one
//! route of what several Services want), `ownership`, `tickets`, `link_memory` (with [`placement`]), `bind_table`, `removals`,
//! `rivals`, `words` (what another crier contradicts in conditions), [`doubles`] (what two nodes hold that do not hear each other), `session_memory` (since when this node has no BGP session) and `given_memory` (what other nodes compare with what they give, where there is no API server). [`slice`] is what the actuators get; [`forecast`] is what another configuration would change, with `everywhere` for what the other nodes would say then; `own_addresses`, also those of a moment ago, no
//! Service is given; [`remnants`] are announced although no pool has them; [`carriers`] says which nodes have a BGP peer for an address; `prefixes` makes addresses of host parts; `exits` finds the network by which what pods open leaves; [`newcomers`] who has an address that is held back for nobody; `bfd` is whom BFD watches; `stations` and `manners` are what the responder on the link is told beside its addresses.
//!
//! A further question (a VRF, egress, drain) is one more file in [`verdict`], its part in `verdict::Work`, the organ
//! that keeps this part, and the slice that shows it.

pub mod address_book;
pub mod allocate;
mod bfd;
mod bind_table;
pub mod carriers;
pub mod context;
pub mod decision;
pub mod doubles;
mod egress_table;
pub mod elect;
mod everywhere;
mod exits;
pub mod following;
pub mod forecast;
pub mod given_memory;
pub mod holder;
mod holder_memory;
mod in_force;
pub mod join;
mod layer2;
mod link_memory;
mod manners;
mod named_links;
pub mod new_pods;
pub mod newcomers;
mod notice;
mod overlaps;
pub mod own_addresses;
mod ownership;
mod partners;
pub mod placement;
mod planner;
mod pools;
pub mod prefixes;
pub mod ranking;
pub mod reach;
pub mod remnants;
pub mod removals;
mod restraints;
mod returns;
mod rivals;
mod route_table;
mod session_memory;
pub mod sharing;
pub mod slice;
mod stations;
mod tickets;
mod unheld;
pub mod verdict;
mod words;

pub use planner::{Change, Moved, Plan, Planner, Presumed, Turn};

#[cfg(test)]
mod tests;
