//! crier makes Kubernetes `Service type: LoadBalancer` work on bare metal: one static binary per node.
//!
//! The tour, along the one-way street that everything travels (ARCHITECTURE.md draws it):
//!
//! 1. Sources tell [`world::Fact`]s: [`k8s`] from the API server, [`manifests`] from a folder, [`kernel`] about links,
//!    [`data_path`] about what this node can serve.
//! 2. The [`world::World`] is their sum, without opinions.
//! 3. The [`plan::Planner`] turns it into a [`plan::Plan`]: the whole wanted state, each part with its [`reason::Reason`].
//! 4. Actuators make it so, each from its own slice of the plan: [`arp`] and [`pulse`] on the link, [`bgp`] and [`bfd`] towards the routers,
//!    [`kernel`] on the host, [`k8s::status`] at the API server. What they see comes back as facts.
//! 5. [`agent`] is the loop around all of it. It hands out snapshots; [`views`] says what each shows, and [`api`] and
//!    [`commands`] are the doors.
//!
//! Lower floors never import upper ones, and floors 0 and 1 are pure; each file says its floor, and `tests/floors.rs` holds it to that.

// Floor 0: the words.
pub mod address;
pub mod bfd_state;
pub mod by_link;
pub mod checksum;
pub mod claim;
pub mod community;
pub mod in_session;
pub mod kept_text;
pub mod names;
pub mod path_state;
pub mod reason;
pub mod roster;
pub mod route;
pub mod secret;
pub mod selector;
pub mod session_state;
pub mod some_of;
pub mod stop;
pub mod text_map;

// Floor 1: decisions.
pub mod config;
pub mod plan;
pub mod world;

// Floors 1 and 2: protocols and translators, each with its machine and its tasks.
pub mod arp;
pub mod bfd;
pub mod bgp;
pub mod data_path;
pub mod discovery;
pub mod egress;
pub mod k8s;
pub mod manifests;
pub mod pulse;

// Floor 1: the configurations of other load balancers, translated.
pub mod migrate;

// Floor 1: what is shown of all of these.
pub mod views;

// Floor 2: the host, the only reader of clocks, datagrams, and the files of the state folder.
pub mod clock;
pub mod datagram;
pub mod kernel;
pub mod state_file;

// Floors 3 and 4: the agent and its doors.
pub mod agent;
pub mod api;
pub mod commands;
