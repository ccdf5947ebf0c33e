//! The BGP speaker: it announces, and only counts what it is told. Floor 1, with its edges on floor 2.
//!
//! | file                 | floor | what it is                                                                  |
//! |----------------------|-------|-----------------------------------------------------------------------------|
//! | `wire`               | 1     | the packets: messages as values and as octets                               |
//! | `machine`            | 1     | the machine of one peer: when to dial, and which of two connections to keep |
//! | `machine::session`   | 1     | the machine of one connection, from its socket on                           |
//! | `machine::negotiation` | 1   | the result of two OPENs                                                     |
//! | `outbox`             | 1     | what a peer should have against what it has                                 |
//! | `outbox::packer`     | 1     | full UPDATEs of it, from what `outbox::batcher` puts together               |
//! | `outbox::refreshes`  | 1     | the families that a peer has requested again                                |
//! | `outbox::next_hop`   | 1     | where the peer reaches this node                                            |
//! | `outbox::sent`       | 1     | what a peer has been sent, written down                                     |
//! | `kept`               | 1     | a session between two agents, written down                                  |
//! | `ledger`             | 1     | what an agent that dies without a word leaves of a session                  |
//! | `counters`           | 1     | what is counted and remembered of one peer                                  |
//! | `settings`           | 2     | what the configuration of a peer means to machine and sockets               |
//! | `socket`             | 2     | how a peer is dialled, and a connection                                     |
//! | `socket::listeners`  | 2     | the sockets that connections are accepted on, and the keys on them          |
//! | `socket::options`    | 2     | what no library sets on a socket: keys, the least TTL                       |
//! | `socket::kept`       | 2     | a kept session with its socket                                              |
//! | `socket::ledger`     | 2     | a ledger as it is kept, and a session rebuilt from one                      |
//! | `task`               | 2     | all peers, as the plan says, and the listening sockets                      |
//! | `task::peer`         | 2     | the task of one peer                                                        |

mod counters;
pub mod kept;
pub mod ledger;
pub mod machine;
pub mod outbox;
mod settings;
pub mod socket;
pub mod task;
pub mod wire;
