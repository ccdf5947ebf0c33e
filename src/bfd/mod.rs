//! Bidirectional Forwarding Detection (RFC 5880 to 5883): whether packets pass between this node and a BGP peer. Floor 1;
//! `ledger`, `socket` and `task` are floor 2. Not for what follows from it: `bgp` ends the session (RFC 5882 §4.2, RFC 9384).
//!
//! | file             | floor | what it is                                                                             |
//! |------------------|-------|----------------------------------------------------------------------------------------|
//! | `packet`         | 1     | control packets as octets                                                              |
//! | `authentication` | 1     | keyed SHA-1: the digest of a packet, and which sequence numbers are accepted           |
//! | `discard`        | 1     | why a packet is dropped, as the counters name it                                       |
//! | `machine`        | 1     | the machine of one session: its state, when to send what, and when the path is down    |
//! | `kept`           | 1     | sessions between two agents, written down                                              |
//! | `ledger`         | 2     | the sessions that are up, in memory that outlives a crash                               |
//! | `settings`       | 1     | times and limits, with their reasons                                                   |
//! | `counters`       | 1     | what is counted                                                                        |
//! | `socket`         | 2     | receives for all sessions, sends for one, and waits                                    |
//! | `task`           | 2     | keeps the thread that runs all sessions, and tells the World how they stand            |
//! | `task::worker`   | 2     | the thread                                                                             |
//!
//! Gap (RFC 5880 §6.4): the echo function is not offered (Required Min Echo RX Interval is 0) and not used. It pays where a
//! forwarding chip returns the packets and the control plane is slow. Here the agent itself would send, the kernel of the peer would
//! return, and nothing is found sooner than with control packets at the same interval.
//! Gap (RFC 5880 §6.6): Demand mode is never asked for. A peer that asks for it gets it: this end sends no periodic packets and
//! answers Polls.
//! Gap (RFC 5880 §6.7.2, §6.7.3): simple passwords and MD5 are not offered: the one is sent in the clear, the other is broken.
//! Gap (RFC 5880 §6.3): a packet is taken from the address of the peer only, also where its discriminator is right.

pub mod authentication;
pub mod counters;
pub mod discard;
pub mod kept;
pub mod ledger;
pub mod machine;
pub mod packet;
pub mod settings;
mod socket;
pub mod task;
