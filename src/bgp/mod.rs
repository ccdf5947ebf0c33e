//! The BGP speaker: it announces, and only counts what it is told. Floor 1, with its edges on floor 2.
//!
//! | file        | floor | what it is                                                                       |
//! |-------------|-------|----------------------------------------------------------------------------------|
//! | `wire`      | 1     | messages as values and as octets                                                 |
//! | `agreement` | 1     | what two OPENs add up to                                                         |
//! | `session`   | 1     | the machine of one connection, from its socket on                                |
//! | `collision` | 1     | the machine of one peer: when to dial, and which of two connections to keep      |
//! | `outbox`    | 1     | what a peer should have against what it has                                      |
//! | `packer`    | 1     | full UPDATEs of it, from what `gathering` puts together                          |
//! | `refreshes` | 1     | what a peer has asked for again                                                  |
//! | `next_hop`  | 1     | where the peer reaches this node                                                 |
//! | `tally`     | 1     | what is counted and remembered of one peer                                       |
//! | `socket_options` | 2 | what no library sets on a socket: keys, the least TTL                             |
//! | `transport` | 2     | how a peer is dialled, and a connection                                          |
//! | `listeners` | 2     | the sockets that connections are accepted on, and the keys on them               |
//! | `peer`      | 2     | the task of one peer                                                             |
//! | `speaker`   | 2     | all peers, as the plan says, and the listening sockets                           |

pub mod agreement;
pub mod collision;
mod gathering;
pub mod listeners;
pub mod next_hop;
pub mod outbox;
mod packer;
mod peer;
mod refreshes;
pub mod session;
mod settings;
mod socket_options;
pub mod speaker;
mod tally;
pub mod transport;
pub mod wire;
