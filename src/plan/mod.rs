//! The decisions: from the World to the Plan, each part with its reason. Floor 1: pure, `now` is an argument.
//!
//! [`Planner`] keeps the World and the Plan and re-judges what a fact touched; [`judge`] decides about one Service;
//! [`allocate`] finds addresses; [`elect`] and [`ranking`] name the node that answers on the link, [`placement`] is since when
//! and why; [`context`] is what all decisions of a turn are based on; [`join`] makes one route of what several say about it;
//! `notice` is the Event that a Service gets; [`slice`] is what the actuators get.

pub mod address_book;
pub mod allocate;
pub mod context;
pub mod decision;
pub mod elect;
pub mod join;
pub mod judge;
mod notice;
pub mod placement;
mod planner;
pub mod ranking;
mod reach;
pub mod slice;

pub use planner::{Change, Moved, Plan, Planner, Turn};

#[cfg(test)]
mod tests;
