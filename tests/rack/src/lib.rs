//! The rack: real kernels, routers, clients and a real API server in network namespaces, with which crier's system
//! tests and its demo are written.
//!
//! A rack is scaffolding: its functions do not return errors, they panic and say what was wanted, what happened, and how
//! the logs end. All traffic stays in namespaces of the rack's own; the host's network is not touched; tests run side by
//! side with the same addresses; and nothing outlives the test program, however it ends.
//!
//! A whole test, as one writes it in `tests/rack/tests/`:
//!
//! ```no_run
//! use rack::{Need, Rack, Site, bird, eventually_equal, millis, secs};
//! use std::net::SocketAddr;
//!
//! // In a test: #[test] fn a_killed_nodes_route_is_withdrawn() {
//! // `None`: this machine lacks something; a line SKIPPED has told what.
//! let needs = [Need::Bird, Need::Crier];
//! let Some(rack) = Rack::for_test(&needs) else { return };
//! // Two nodes .11 and .12, a router .1 and a client .9 on one link of both families.
//! let site = Site::new(&rack, "192.168.35.0/24", "fd35::/64", 2);
//! let tor = site.router.bird(&format!(
//!     "router id 192.168.35.1; {}
//!      protocol bgp node1 {{ local as 64512; neighbor 192.168.35.11 as 64513; ipv4 {{ import all; export none; }}; }}
//!      protocol bgp node2 {{ local as 64512; neighbor 192.168.35.12 as 64513; ipv4 {{ import all; export none; }}; }}",
//!     bird::KERNEL,
//! ));
//! let configuration = "…crier.toml; [api] and [state] are added…";
//! let agents: Vec<_> = site.nodes.iter().map(|node| node.crier(node.name(), configuration)).collect();
//! // Servers with policy Cluster on both nodes, each telling its name and the client's address.
//! let _servers: Vec<_> = site.nodes.iter().map(|node| node.serve(node.name(), &[80])).collect();
//! agents.iter().for_each(|agent| drop(agent.wait_ready(secs(10))));
//! tor.wait_established("node1", secs(10));
//!
//! let hops = |nodes: &[usize]| nodes.iter().map(|n| site.node(*n).address.into()).collect();
//! eventually_equal("the kernel of the router balances over both nodes", secs(5), &hops(&[0, 1]), || {
//!     site.router.next_hops("203.0.113.7/32")
//! });
//! let address: SocketAddr = "203.0.113.7:80".parse().unwrap();
//! let answer = site.client.get(address).expect("the Service answers through the router");
//! assert_eq!(answer.source, Some(site.client.address.into()), "the client's address arrives");
//!
//! // A client that asks every 5 ms shows how long an outage was.
//! let asking = site.client.ask_steadily(address, millis(5));
//! agents[0].kill();
//! eventually_equal("only the living node is left", secs(5), &hops(&[1]), || site.router.next_hops("203.0.113.7/32"));
//! let outcomes = asking.stop();
//! assert!(outcomes.longest_gap() < millis(500), "{outcomes}");
//! // Layer 2 is judged in the same way: who answers for an address, by whose hardware address.
//! assert_eq!(site.client.who_has("eth0", "192.168.35.100".parse().unwrap(), millis(200)), [site.node(1).port.mac()]);
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`Rack`], [`Namespace`], [`Process`] | the ground: a folder, namespaces held by descriptor, processes that die with the test |
//! | [`net`], [`site`] | switches, cables that can be cut, and a whole site of nodes, router and client |
//! | [`client`], [`server`], [`packet`], [`ndp`] | requests, steady asking, ARP and NDP; backends and pods |
//! | [`bird`], [`frr`], [`crier`](mod@crier) | routers from Debian, and the binary under test |
//! | [`booted`] | a node with a real systemd that runs the unit |
//! | [`lan`] | standalone nodes on one link, for the judges of layer 2 |
//! | [`mod@egress`] | pods that send to the outside, and what leaves |
//! | [`owners`] | who answers for many addresses, what moved on the wire, and whether clients were served |
//! | [`service`], [`manifests`] | a Service with its EndpointSlices, for an API server or a folder that agents read |
//! | [`script`] | a BGP peer whose every octet the test decides |
//! | [`pairing`], [`gobgp`], [`openbgpd`], [`exabgp`] | one session between crier and any of five routers |
//! | [`capture`] | what went over a link and when: ARP, and BGP messages out of their TCP streams |
//! | [`kubernetes`], [`certificates`] | etcd, kube-apiserver, kube-controller-manager and kube-proxy |
//! | [`metallb`], [`traefik`] | MetalLB's controller and speaker; a controller of Ingresses and Gateways |
//! | [`faults`] | an API server that closes watches, answers 410, 429 or 500, or goes away |
//!
//! To look into a rack while a test stands still: `nsenter --net=PATH`, where `{namespace:?}` shows the path.
//!
//! | variable | |
//! |---|---|
//! | `CRIER_BIN` | the crier binary, if it is not `target/dist/crier` |
//! | `CRIER_RACK_BIN` | the crier-rack binary, if Cargo did not put it beside the tests |
//! | `CRIER_RACK_KEEP` | set: keep each rack's folder with its logs |
//! | `CRIER_RACK_SKIPS` | a file that gets a line for each test that was skipped |
//! | `CRIER_RACK_STRICT` | set: a test that would be skipped fails |
//! | `CRIER_SYSTEMD_SUITE` | the release whose systemd is booted, if it is not bookworm |
//! | `KUBEBUILDER_ASSETS` | a folder with the control plane's binaries |

pub mod announcer;
pub mod bird;
pub mod booted;
pub mod capture;
pub mod certificates;
pub mod client;
pub mod cni;
pub mod crier;
pub mod egress;
pub mod exabgp;
pub mod faults;
mod folder;
pub mod frr;
pub mod gobgp;
pub mod kubernetes;
pub mod lan;
pub mod manifests;
pub mod metal;
pub mod metallb;
mod namespace;
pub mod ndp;
mod need;
pub mod net;
pub mod openbgpd;
pub mod owners;
pub mod packet;
pub mod pairing;
mod process;
mod rack;
pub mod script;
pub mod server;
pub mod service;
pub mod site;
pub mod systemd;
pub mod traefik;
pub mod uplink;
mod wait;

pub use manifests::Manifests;
pub use metal::Metal;
pub use namespace::Namespace;
pub use need::{Need, bench_can_run, enter_user_namespace_if_needed, skip};
pub use process::Process;
pub use rack::{Rack, clean_up_on_interrupt, test_name};
pub use service::Service;
pub use site::{Host, Node, Pod, Racks, Site};
pub use wait::{Deadline, eventually, eventually_equal, millis, now, rest, secs, throughout};
