//! The kernel's side of things, by rtnetlink: what links there are, and the addresses that crier binds to one.
//! Floor 2. `observe` and `routes` are sources of facts, `addresses`, `blackholes`, `steering`, `returns` and `vrfs` actuators;
//! `links` is the pure part of the first, `next_hops` reads for `netlink` what its library cannot, `marked` what `steering` and `returns`
//! share, `tunnel` the device by which `steering` reaches other links, and `led_away` what it asks of rules of other programs; `sysctl` looks
//! after the host's own settings, and `host` judges them; `bypass` sees whether packets of pods bypass netfilter, `numbers` what other
//! programs' rules share with crier's, and `reverse_path` where the kernel drops them on the way, `looks` being when; `foreign_rules` reads
//! rules of other programs for all who ask about them. Every connection lives in the network namespace of the thread that opens it.

pub mod addresses;
pub mod blackholes;
pub mod bypass;
pub mod flows;
mod foreign_rules;
mod host;
mod led_away;
mod links;
mod looks;
mod marked;
mod netlink;
mod next_hops;
pub mod numbers;
pub mod observe;
pub mod returns;
pub mod reverse_path;
pub mod routes;
pub mod steering;
pub mod sysctl;
mod tunnel;
pub mod vrfs;
