//! The pulse: who else on this link is alive, told by small sealed packets to a link-local multicast group.
//! Floors 1 and 2, by file. The octets are in `packet`, who is alive and what to send when in `machine`, what was counted
//! in `counters`; `socket` and `task` touch the kernel. Who owns what is not decided here but in `plan::elect`.

pub mod machine;
pub mod packet;
