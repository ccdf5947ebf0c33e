//! The town: many agents on one link and one virtual clock. Each has the real machine of the pulse and the real planner;
//! between them is a link that loses, delays, reorders and doubles packets and falls into parts. No socket, no second.
//!
//! `cargo test --test town`; CRIER_WRITE_SNAPSHOTS=1 writes `failover.txt` anew.

mod bounds;
mod failover;
mod pulses;
