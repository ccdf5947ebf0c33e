//! Links: a switch (a bridge in a namespace of its own), cables from it to hosts (veth pairs), and their faults.
//!
//! Addresses, routes and neighbours are set with `namespace.ip("…")`, in the words of the `ip` command that everybody
//! knows; only what takes several steps has a function here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use crate::namespace::{Namespace, lossy};
use crate::packet::Mac;
use crate::rack::Rack;
use crate::wait::{eventually, secs};

/// States of a bridge's port, as `bridge link set` takes them.
const DISABLED: &str = "0";
const FORWARDING: &str = "3";

/// A layer 2 link: a bridge in a namespace of its own, into which hosts are plugged. It learns, floods, and does not
/// speak spanning tree.
#[derive(Clone, Debug)]
pub struct Switch {
    namespace: Namespace,
}

/// One cable: from a host's interface to a port of a switch. Dropping it does nothing: the cable stays.
#[derive(Clone, Debug)]
pub struct Port {
    switch: Namespace,
    /// The name of the port in the switch's namespace.
    port: String,
    /// The host and its interface.
    host: Namespace,
    interface: String,
}

impl Rack {
    /// A new switch without any port.
    #[track_caller]
    pub fn switch(&self, name: &str) -> Switch {
        let namespace = self.namespace(name);
        namespace.ip("link add br0 type bridge mcast_snooping 0 forward_delay 0");
        namespace.ip("link set br0 up");
        Switch { namespace }
    }
}

impl Switch {
    /// Plugs `host` in: it gets `interface`, up, with `addresses` (`"10.0.0.1/24"`, `"fd00::1/64"`).
    #[track_caller]
    pub fn plug(&self, host: &Namespace, interface: &str, addresses: &[&str]) -> Port {
        let port = format!("port{}", self.namespace.ip_json("link show master br0").as_array().map_or(0, Vec::len));
        cable(&self.namespace, &port, host, interface);
        self.namespace.ip(&format!("link set {port} master br0 up"));
        host.up(interface, addresses);
        wait_forwarding(&self.namespace, &port);
        Port { switch: self.namespace.clone(), port, host: host.clone(), interface: interface.into() }
    }

    /// The switch's own namespace: for capturing on a port, or on `br0`.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl Port {
    /// The port's interface in the switch's namespace; a capture there sees what the host sends and is sent.
    pub fn name(&self) -> &str {
        &self.port
    }

    pub fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// The hardware address of the host's end.
    pub fn mac(&self) -> Mac {
        self.host.mac(&self.interface)
    }

    /// The cable carries nothing any more and nobody is told: both ends keep their carrier, as with a broken switch.
    pub fn cut(&self) {
        self.switch.sh(&format!("bridge link set dev {} state {DISABLED}", self.port));
    }

    /// The host receives nothing more by this port, as with a dead fibre of one direction; what it sends passes.
    pub fn deafen(&self) {
        let hook = format!("type filter hook egress device {} priority 0 ;", self.port);
        self.switch.sh("nft add table netdev reception");
        self.switch.sh(&format!("nft add chain netdev reception out {{ {hook} }}"));
        self.switch.sh("nft add rule netdev reception out drop");
    }

    /// Undoes [`deafen`](Self::deafen).
    pub fn undeafen(&self) {
        self.switch.sh("nft delete table netdev reception");
    }

    /// The host receives nothing more of other hosts by this port, and now and then a frame of the switch itself, as where a filter or a
    /// VLAN is wrong there; what it sends passes.
    pub fn isolate(&self) {
        self.switch.sh("nft add table bridge isolation");
        self.switch.sh("nft add chain bridge isolation between { type filter hook forward priority 0 ; }");
        self.switch.sh(&format!("nft add rule bridge isolation between oifname {} drop", self.port));
    }

    /// Undoes [`isolate`](Self::isolate).
    pub fn unisolate(&self) {
        self.switch.sh("nft delete table bridge isolation");
    }

    /// The cable is pulled: the host sees its carrier go.
    pub fn unplug(&self) {
        self.switch.ip(&format!("link set {} down", self.port));
    }

    /// Undoes [`cut`](Self::cut) and [`unplug`](Self::unplug).
    pub fn restore(&self) {
        self.switch.ip(&format!("link set {} up", self.port));
        eventually(&format!("{} forwards again", self.port), secs(10), || {
            // Refused until the kernel has seen the carrier.
            let mut command = Command::new("bridge");
            let output = self.switch.output(command.args(["link", "set", "dev", &self.port, "state", FORWARDING]));
            if output.status.success() { Ok(()) } else { Err(lossy(&output.stderr)) }
        });
        wait_forwarding(&self.switch, &self.port);
    }
}

/// A cable between two hosts without a switch; both ends are up and have no address yet.
#[track_caller]
pub fn connect(one: &Namespace, interface: &str, other: &Namespace, other_interface: &str) {
    cable(one, interface, other, other_interface);
    one.up(interface, &[]);
    other.up(other_interface, &[]);
}

pub(crate) fn cable(one: &Namespace, interface: &str, other: &Namespace, other_interface: &str) {
    let other_path = other.path();
    one.ip(&format!("link add {interface} type veth peer name {other_interface} netns {}", other_path.display()));
}

/// Waits until a bridge's port forwards: the kernel notices a carrier a moment after the link is set up.
#[track_caller]
pub(crate) fn wait_forwarding(bridge: &Namespace, port: &str) {
    eventually(&format!("{port} of {} forwards", bridge.name()), secs(10), || {
        let shown = bridge.sh(&format!("bridge link show dev {port}"));
        if shown.contains("state forwarding") { Ok(()) } else { Err(shown) }
    });
}

impl Namespace {
    /// Sets an interface up and gives it addresses, usable at once.
    #[track_caller]
    pub fn up(&self, interface: &str, addresses: &[&str]) {
        for address in addresses {
            let no_dad = if address.contains(':') { " nodad" } else { "" };
            self.ip(&format!("address add {address} dev {interface}{no_dad}"));
        }
        self.ip(&format!("link set {interface} up"));
    }

    /// Forwards packets of both families from now on.
    pub fn forward(&self) {
        self.sysctl("net/ipv4/ip_forward", "1");
        self.sysctl("net/ipv6/conf/all/forwarding", "1");
    }

    /// A bridge in this namespace, up, with addresses: a node's pod bridge.
    #[track_caller]
    pub fn bridge(&self, name: &str, addresses: &[&str]) {
        self.ip(&format!("link add {name} type bridge mcast_snooping 0"));
        self.up(name, addresses);
    }

    /// The hardware address of an interface.
    #[track_caller]
    pub fn mac(&self, interface: &str) -> Mac {
        let link = self.ip_json(&format!("link show dev {interface}"));
        let mac = link[0]["address"].as_str().and_then(|text| text.parse().ok());
        mac.unwrap_or_else(|| panic!("{}: {interface} has no hardware address: {link}", self.name()))
    }

    /// The kernel's neighbour table: who is known under which hardware address, entries without one left out.
    pub fn neighbors(&self) -> BTreeMap<IpAddr, Mac> {
        let table = self.ip_json("neighbour show");
        let entry =
            |row: &serde_json::Value| Some((row["dst"].as_str()?.parse().ok()?, row["lladdr"].as_str()?.parse().ok()?));
        table.as_array().into_iter().flatten().filter_map(entry).collect()
    }

    /// Forgets all neighbours, so that the next packet asks again.
    pub fn forget_neighbors(&self) {
        self.ip("neighbour flush all");
    }

    /// The next hops of the kernel's route to exactly `prefix` in the main table: several if it is multipath, none if
    /// there is no such route. A route without a gateway (on the link) has none either.
    pub fn next_hops(&self, prefix: &str) -> std::collections::BTreeSet<IpAddr> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let routes = self.ip_json(&format!("{family} route show exact {prefix}"));
        let gateway = |hop: &serde_json::Value| {
            let text = hop["gateway"].as_str().or_else(|| hop["via"]["host"].as_str())?;
            text.parse().ok()
        };
        let hops = |route: &serde_json::Value| -> Vec<IpAddr> {
            match route["nexthops"].as_array() {
                Some(hops) => hops.iter().filter_map(gateway).collect(),
                None => gateway(route).into_iter().collect(),
            }
        };
        routes.as_array().into_iter().flatten().flat_map(hops).collect()
    }
}
