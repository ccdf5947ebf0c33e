//! The link of the made-up node, for the benches of the planner.

use crier::world::Link;
use ipnet::IpNet;

/// Carries frames; with these addresses.
pub fn eth0(addresses: Vec<IpNet>) -> Link {
    Link {
        index: 2,
        name: "eth0".into(),
        mac: Some("02:00:00:00:00:01".parse().expect("a MAC address")),
        up: true,
        carrier: true,
        loopback: false,
        arp: true,
        master: None,
        vrf: None,
        parent: None,
        addresses,
        deprecated: Default::default(),
        kernels: Default::default(),
    }
}
