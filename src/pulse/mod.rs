//! The pulse: agents on one link learn from each other who is alive, by small authenticated packets to a link-local
//! multicast group. It decides nothing about addresses: `plan::elect` does.
//! Floor 1; `socket` and `task` are floor 2.
//!
//! | file       | what it is                                                                                     |
//! |------------|------------------------------------------------------------------------------------------------|
//! | `packet`   | one pulse as octets, and the key that authenticates it                                         |
//! | `machine`  | the machine of one link: what to send when, and who is alive; `machine/peer` is one other node |
//! | `settings` | how often pulses are sent, and how many may be missed                                          |
//! | `outcome`  | what became of a received datagram                                                             |
//! | `refused`  | the senders whose pulses were refused, for log and report                                      |
//! | `counters` | what is counted on each link                                                                   |
//! | `socket`   | hears and sends pulses on one link                                                             |
//! | `task`     | a task for each link of the slice                                                              |

mod addresses;
pub mod counters;
pub mod holdings;
mod key;
pub mod machine;
pub mod outcome;
pub mod packet;
mod refused;
pub mod settings;
pub mod socket;
pub mod task;
