//! Egress: what pods of a Service with `crier.dev/egress` open leaves the cluster with the Service's address, or not at all.
//! Floor 1; `socket`, `kept` and `task` are floor 2. An actuator over nftables and conntrack, which follows the egress slice.
//!
//! `packet` has netfilter's octets, `ruleset` the one table and its changes, `machine` what it is to hold over time,
//! `standing` whether it is there, `stale` which connections end with a change, `keepalive` asks pods of whose connections a new owner knows nothing, `earlier` which chains of others come first, `later_marks` which may mark packets anew, `socket` the kernel's answers, `kept` what the next agent is to know, `task` all of it together. The routes to other owners are made by `kernel::steering`.

pub mod counters;
pub mod earlier;
pub mod keepalive;
pub mod kept;
pub mod later_marks;
pub mod machine;
pub mod packet;
pub mod ruleset;
pub mod socket;
pub mod stale;
pub mod standing;
pub mod task;
