//! ARP (RFC 826) and NDP (RFC 4861): this node answers "who has" for the addresses it holds on a link, asks before it
//! uses one, and says so when it takes one over.
//! Floors 1 and 2, by file. The bytes are in `packet` and `neighbor`, and `frame` is what they have in common; the verdict
//! on a received frame is `answer`'s. `claim` is the machine of every address, with `schedule`, `conflict` and `timing`.
//! `socket`, `groups`, and `bpf` with `offload` touch the kernel, `program` is what the latter puts there; `worker` serves
//! one link, `responder` keeps one for each, and `state` is what the report shows of each link.

pub mod answer;
mod bpf;
pub mod claim;
pub mod conflict;
pub mod counters;
pub mod frame;
mod groups;
pub mod neighbor;
pub mod offload;
pub mod packet;
pub mod program;
pub mod responder;
pub mod schedule;
pub mod socket;
pub mod state;
pub mod timing;
mod worker;
