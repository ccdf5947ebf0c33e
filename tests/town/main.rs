//! The town: many agents on one link and one virtual clock, each with its real planner, pulse and claims. No socket, no
//! second. A [`story`] says what happens to it, [`weather`] makes stories from seeds, [`invariants`] says what must hold
//! whatever happens, and `stories/` keeps those that were once broken.
//!
//! [`egress`] and [`netfilter`] are what pods send, and what the kernels of the hosts do with it.
//!
//! `cargo test --test town`. CRIER_TOWN_SEEDS=10000 and CRIER_TOWN_FIRST=0 for a long run, in release: `make town`.
//! CRIER_TOWN_STORY=path tells one story in full. `failover` measures how long an address is away, over many seeds.

mod agent;
mod client;
mod day;
mod egress;
mod events;
mod failover;
mod field_cases;
mod heap;
mod invariants;
mod life;
mod link;
mod netfilter;
mod orders;
mod seeds;
mod story;
mod town;
mod weather;
