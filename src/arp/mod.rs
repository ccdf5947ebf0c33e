//! ARP (RFC 826): this node answers "who has" for the addresses it owns on a link, and says so when it takes one over.
//! Floors 1 and 2, by file. The bytes are in `packet`, the verdict on a received frame in `answer`, the schedule of
//! announcements in `claim`, the memory of other claimants in `conflict`; `socket` and `responder` touch the kernel.

pub mod answer;
pub mod claim;
pub mod conflict;
pub mod counters;
pub mod packet;
pub mod responder;
pub mod socket;
