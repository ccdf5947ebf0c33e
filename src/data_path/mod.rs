//! The data path: whether traffic that this node draws reaches the endpoints of its Services.
//! Floor 1; `record`, `socket` and `task` are floor 2.
//!
//! | file      | floor | what it is                                                               |
//! |-----------|-------|--------------------------------------------------------------------------|
//! | `packet`  | 1     | questions to nftables as netlink octets                                  |
//! | `machine` | 1     | what health, rules and the Node's readiness add up to                    |
//! | `socket`  | 2     | asks kube-proxy over HTTP and the kernel over netlink                    |
//! | `record`  | 2     | what was seen in this boot, on disk                                      |
//! | `task`    | 2     | the watcher                                                              |

pub mod machine;
pub mod packet;
mod record;
pub mod socket;
pub mod task;
