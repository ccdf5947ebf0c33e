//! ARP (RFC 826) and NDP (RFC 4861): this node answers "who has" for the addresses it owns on a link, probes an address
//! before the first use, and announces it.
//! Floor 1; `socket`, `offload`, `state` and `task` are floor 2.
//!
//! | file       | what it is                                                                                   |
//! |------------|----------------------------------------------------------------------------------------------|
//! | `packet`   | a frame of either protocol; the bytes are in `packet/arp` and `packet/ndp`                   |
//! | `machine`  | the claims of one link; `machine/answer` judges a received frame, `machine/contest` what others  |
//! |            | claim, `machine/dispute` who of two nodes goes on, `machine/stations` which stations are nodes'  |
//! | `settings` | how often and how fast addresses are probed, announced and defended                          |
//! | `counters` | what is counted on each link                                                                 |
//! | `state`    | the state of each link, for the report                                                       |
//! | `socket`   | packet sockets, and the multicast groups in `socket/groups`                                  |
//! | `offload`  | keeps a program in the kernel that answers ARP: `offload/program`, loaded by `offload/bpf`   |
//! | `task`     | the responder, which follows the plan; `task/worker` is the thread that serves one link      |

pub mod counters;
pub mod machine;
pub mod offload;
pub mod packet;
pub mod settings;
pub mod socket;
pub mod state;
pub mod task;
