//! `[[vrf]]`: VRF devices with what belongs to them. Floor 1. `kernel::vrfs` makes them, or says what they lack.

use std::net::IpAddr;

use ipnet::IpNet;

use super::egress::BLACKHOLES;
use super::{Check, Section, Written as Value, section};
use crate::address::is_link_local_v6;
use crate::config::complaint::{Place, Problem};
use crate::config::key::{flag, interface, number, set, text};
use crate::config::reader::Reader;
use crate::config::seen::unique;
use crate::config::shape::written;
use crate::config::syntax;
use crate::names::InterfaceName;

section! {
    /// `[[vrf]]`
    pub struct Vrf = Section::many(
        "vrf",
        "A VRF of this host: interfaces with a routing table of their own, for a network that stays apart from the others. \
         [[pool]], [[l2]], [[bgp.peer]] and [[bgp.advertisement]] name it by vrf. What differs per node stands in a drop-in.",
    ),
    written as Written;
    keys {
        pub name: InterfaceName = interface("name", "an interface name", "The name of the VRF device.").set("\"red\""), touches Decisions;
        /// Never one of the kernel's own.
        pub table: u32 = number("table", "", 1, 0x7fff_ffff, "The number of the routing table, of this VRF alone.").set("1001"), touches Decisions;
        pub interfaces: Vec<InterfaceName> =
            set("interfaces", "interface names", |text, _| syntax::interface(text), "The interfaces in the VRF. One that is \
                 missing is waited for.")
            .shown("[\"eth1\"]"), touches Decisions;
        /// Of the first interface.
        pub addresses: Vec<IpNet> = set("addresses", "addresses with their prefix lengths", |text, _| address(text),
            "The addresses of the first interface, besides those that it has.")
            .shown("[\"192.0.2.10/24\"]"), touches Decisions;
        pub manage: bool = flag("manage", false, "Make the device, put the interfaces into it, add addresses, routes and \
             rules, and put back what other programs take away.")
            .trade("With false, crier changes nothing; crier status and crier doctor print the ip commands for what is \
                 missing. What crier made stays when it stops; crier cleanup removes it."), touches Decisions;
    }
    sections {
        pub routes: Vec<VrfRoute>;
    }
}

section! {
    /// One entry of `routes`.
    pub struct VrfRoute = Section::many("vrf.routes", "Routes in the table of the VRF."), written as WrittenRoute;
    keys {
        /// Without host bits.
        pub to: IpNet = text("to", "a CIDR", |text, _| network(text), "The destination.").set("\"0.0.0.0/0\""), touches Decisions;
        pub via: IpAddr = text("via", "an IP address", |text, _| syntax::ip(text), "The next hop, on a link of the VRF.")
            .set("\"192.0.2.1\""), touches Decisions;
    }
}

/// The kernel's own tables, by number.
const KERNELS: [(u32, &str); 3] = [(253, "default"), (254, "main"), (255, "local")];

impl Check for Written {
    fn check(&mut self, section: &mut Reader<'_>) {
        unique(section, "VRF", &self.name, |seen| &mut seen.vrfs);
        if self.name.value.as_ref().is_some_and(|name| name.as_str().contains('%')) {
            let message = "the kernel puts a number in the place of % in the name of a new device";
            section.complain(&self.name.place, message, "leave the % out");
        }
        if let Some(name) = self.name.value.as_ref().filter(|name| matches!(name.as_str(), "all" | "default")) {
            let message = format!("no device can have the name \"{name}\", which stands for others in sysctl");
            section.complain(&self.name.place, message, "give the VRF another name");
        }
        self.check_table(section);
        self.check_interfaces(section);
        self.check_nesting(section);
        self.check_addresses(section);
        if self.addresses.given
            && !self.addresses.empty_list
            && self.interfaces.value.as_ref().is_some_and(Vec::is_empty)
        {
            let message = "the VRF has addresses and no interface to add them to";
            section.complain(&self.addresses.place, message, "name the interface: interfaces = [\"eth1\"]");
        }
        let routes = self.routes.value.as_deref().unwrap_or_default();
        let twice = |n: usize| routes[..n].iter().any(|before| before.to == routes[n].to);
        if let Some(n) = (0..routes.len()).find(|n| twice(*n)) {
            let message = format!("two routes of the VRF lead to {}", routes[n].to);
            section.complain(&self.routes.place, message, "remove one of them");
        }
    }
}

impl Written {
    fn check_table(&self, section: &mut Reader<'_>) {
        let Some(table) = self.table.value else { return };
        if let Some((_, name)) = KERNELS.iter().find(|(number, _)| *number == table) {
            let message = format!("{table} is the kernel's table \"{name}\"");
            section.complain(&self.table.place, message, "use a number of its own: table = 1001");
            return;
        }
        if table == BLACKHOLES {
            let message = format!("{table} is the table of crier's blackhole routes");
            section.complain(&self.table.place, message, "use a number of its own: table = 1001");
        }
        let message = format!("two VRFs have the table {table}");
        taken(section, (table, &self.table), message, "give each VRF a table of its own", |seen| &mut seen.vrf_tables);
    }

    fn check_interfaces(&self, section: &mut Reader<'_>) {
        let own = self.name.value.clone();
        let interfaces: Vec<(InterfaceName, Place)> =
            section.texts("interfaces").map(|(text, place)| (text.into(), place.clone())).collect();
        for (interface, place) in interfaces {
            if own.as_ref() == Some(&interface) {
                let message = format!("the VRF \"{interface}\" cannot be an interface of itself");
                section.complain(&place, message, "name the interfaces of the network");
            }
            let first = section.seen.vrf_interfaces.iter().find(|(other, _)| *other == interface);
            if let Some((_, first)) = first.cloned() {
                // The same one twice in one list is told already.
                let message = format!("the interface \"{interface}\" is in two VRFs");
                if first.1 != self.name.value {
                    section.conflict(
                        &place,
                        message,
                        "an interface is in one VRF at most",
                        (&first.0, "the first is here"),
                    );
                }
            }
            section.seen.vrf_interfaces.push((interface, (place, own.clone())));
        }
    }

    /// The kernel refuses a VRF in a VRF.
    fn check_nesting(&self, section: &mut Reader<'_>) {
        let Some(own) = &self.name.value else { return };
        let (vrfs, interfaces) = (&section.seen.vrfs, &section.seen.vrf_interfaces);
        let is_vrf = |name: &InterfaceName| vrfs.iter().any(|(vrf, _)| vrf == name);
        // Of two VRFs the second tells it, whichever is in the other. One in itself is told already.
        let nested = interfaces.iter().find(|(name, (_, outer))| {
            let concerns_us = name == own || outer.as_ref() == Some(own);
            concerns_us && is_vrf(name) && outer.as_ref() != Some(name)
        });
        if let Some((name, (place, _))) = nested.cloned() {
            let message = format!("the interface \"{name}\" is a VRF itself");
            section.complain(&place, message, "the kernel takes no VRF into a VRF; name the links of the network");
        }
    }

    fn check_addresses(&self, section: &mut Reader<'_>) {
        let places: Vec<(IpNet, Place)> =
            section.texts("addresses").filter_map(|(text, place)| Some((address(text).ok()?, place.clone()))).collect();
        for (n, (net, place)) in places.iter().enumerate() {
            if let Some((first, other)) =
                places[..n].iter().find(|(other, _)| other != net && other.addr() == net.addr())
            {
                let message = format!("{net} is the address of {first} with another length");
                section.conflict(place, message, "remove one of them", (other, "the other is here"));
            }
        }
    }
}

/// Complains if another VRF has the value already, and takes it.
fn taken<T: PartialEq>(
    section: &mut Reader<'_>,
    (value, key): (T, &Value<T>),
    message: String,
    hint: &str,
    of: fn(&mut crate::config::seen::Seen) -> &mut Vec<(T, Place)>,
) {
    let first = of(section.seen).iter().find(|(other, _)| *other == value).map(|(_, place)| place.clone());
    if let Some(first) = first {
        section.conflict(&key.place, message, hint, (&first, "the first is here"));
    }
    of(section.seen).push((value, key.place.clone()));
}

impl Check for WrittenRoute {
    fn check(&mut self, section: &mut Reader<'_>) {
        let (Some(to), Some(via)) = (self.to.value, self.via.value) else { return };
        if to.addr().is_ipv4() != via.is_ipv4() {
            let message = format!("the next hop {via} is of another address family than {to}");
            section.complain(&self.via.place, message, "give a next hop of the family of the destination");
        } else if is_unusable(via) {
            let message = format!("{via} cannot be a next hop");
            section.complain(&self.via.place, message, "write the address of a router on a link of the VRF");
        }
    }
}

/// No host on a link can have it.
fn is_unusable(ip: IpAddr) -> bool {
    !syntax::is_unicast(ip) || ip.is_loopback()
}

fn network(text: &str) -> Result<IpNet, Problem> {
    let hint = "write the network with its prefix length: \"192.0.2.0/24\", or \"0.0.0.0/0\" for a default route";
    let net: IpNet = text.parse().map_err(|_| Problem::new(format!("{} is not a CIDR", written(text)), hint))?;
    syntax::not_mapped(net.addr())?;
    match net == net.trunc() {
        true => Ok(net),
        false => {
            let message = format!("{} has host bits set", written(text));
            Err(Problem::new(message, format!("write \"{}\"", net.trunc())))
        }
    }
}

fn address(text: &str) -> Result<IpNet, Problem> {
    let hint = "write the address with the prefix length of its network: \"192.0.2.10/24\"";
    let problem = |what: String| Problem::new(what, hint);
    let net: IpNet =
        text.parse().map_err(|_| problem(format!("{} is no address with a prefix length", written(text))))?;
    syntax::not_mapped(net.addr())?;
    let is_host = net.prefix_len() >= net.max_prefix_len() - 1;
    let is_network = !is_host && net.addr() == net.network();
    let is_broadcast = !is_host && net.addr().is_ipv4() && net.addr() == net.broadcast();
    if is_unusable(net.addr()) || is_network || is_broadcast || is_link_local_v6(net.addr()) {
        return Err(problem(format!("{} is no address that crier can give an interface", written(text))));
    }
    Ok(net)
}
