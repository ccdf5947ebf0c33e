//! `[[vrf]]`: VRF devices for crier to make. Floor 1. None is made yet; `vrf` of a peer names one that is there.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Check, Section, section};
use crate::config::complaint::Problem;
use crate::config::key::{MOST_U32, flag, interface, number, set, text};
use crate::config::shape::written;
use crate::config::syntax;
use crate::names::InterfaceName;

const VRF: &str = "VRFs";

section! {
    /// `[[vrf]]`
    pub struct Vrf = Section::many("vrf", "A VRF: a routing table of its own for some interfaces.").not_yet(VRF),
    written as Written;
    keys {
        pub name: InterfaceName = interface("name", "an interface name", "The name of the VRF device."), touches Restart;
        pub table: u32 = number("table", "", 1, MOST_U32, "The number of the routing table."), touches Restart;
        pub interfaces: Vec<InterfaceName> =
            set("interfaces", "interface names", |text, _| syntax::interface(text), "The interfaces in the VRF."), touches Restart;
        pub manage: bool = flag("manage", false, "Create the device and put the interfaces into it."), touches Restart;
    }
    sections {
        pub routes: Vec<VrfRoute>;
    }
}

impl Check for Written {}

section! {
    /// One entry of `routes`.
    pub struct VrfRoute = Section::many("vrf.routes", "Routes of the VRF.").not_yet(VRF), written as WrittenRoute;
    keys {
        pub to: IpNet = text("to", "a CIDR", |text, _| network(text), "The destination prefix."), touches Restart;
        pub via: IpAddr = text("via", "an IP address", |text, _| syntax::ip(text), "The next hop."), touches Restart;
    }
}

impl Check for WrittenRoute {}

fn network(text: &str) -> Result<IpNet, Problem> {
    text.parse().map_err(|_| Problem::new(format!("{} is not a CIDR", written(text)), "write \"192.0.2.0/24\""))
}
