//! The pulse: who else on this link is alive, told by small sealed packets to a link-local multicast group.
//! Floor 1; `socket` and `task` are floor 2. The octets are in `packet`, what to send when and who is alive in `machine`, how fast
//! in `settings`, what was counted in `counters`; `socket` and `task` touch the kernel. Who owns what is not decided here but
//! in `plan::elect`.

pub mod counters;
pub mod machine;
pub mod outcome;
pub mod packet;
pub mod settings;
pub mod socket;
pub mod task;
