//! Router discovery (RFC 4861) on the links of unnumbered BGP peers: which routers are there, and advertising this node to them.
//! Floor 1; `socket` and `task` are floor 2.
//!
//! | file      | floor | what it is                                                      |
//! |-----------|-------|-----------------------------------------------------------------|
//! | `packet`  | 1     | router advertisements and solicitations as octets               |
//! | `machine` | 1     | the machine of one link: which routers are there, when to speak |
//! | `socket`  | 2     | hears and sends them on one link                                |
//! | `task`    | 2     | a task for each link that the plan names                        |

pub mod machine;
pub mod packet;
mod socket;
pub mod task;
