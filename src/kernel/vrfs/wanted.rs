//! What VRFs are to be in the kernel, what there is of them, and the changes from the one to the other.
//! Floor 1. It asks nobody and changes nothing: `messages` reads and writes netlink, `vrfs` does the work.
//!
//! How to drive it: [`changes`] with what was found, make the changes in their order, find again, until there are none. What
//! crier is about to make is noted in [`Made`] before, so that it can take away that and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::address::{Family, is_link_local_v6};
use crate::config::Vrf;
use crate::names::InterfaceName;
use crate::world::{DefaultRoute, HostProblem};

/// What the configuration and the cluster ask for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub vrfs: &'a [Vrf],
    /// Destinations inside of the cluster: packets to them look into the main table, whatever link they came in by.
    pub cluster: &'a BTreeSet<IpNet>,
    /// The addresses of this host's Node; none where they are not known.
    pub own: &'a BTreeSet<IpAddr>,
    /// All Nodes are known: a destination that is not named is none.
    pub complete: bool,
}

/// What the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub links: BTreeMap<InterfaceName, FoundLink>,
    pub routes: BTreeSet<FoundRoute>,
    /// Those of the main table.
    pub defaults: Vec<DefaultRoute>,
    /// The destinations of rules that lead to the main table before the VRFs' rule is asked: crier's, and others'.
    pub our_rules: BTreeSet<IpNet>,
    pub other_rules: BTreeSet<IpNet>,
    /// The families with the rule that leads into the tables of VRFs.
    pub l3mdev: BTreeSet<Family>,
    /// The families that this host has.
    pub families: BTreeSet<Family>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundLink {
    /// The kernel's.
    pub index: u32,
    pub up: bool,
    /// The table, of a VRF device.
    pub table: Option<u32>,
    /// The VRF, bond or bridge that it is in.
    pub master: Option<InterfaceName>,
    /// Those without a lifetime.
    pub addresses: BTreeSet<IpNet>,
    /// All of them.
    pub carries: BTreeSet<IpAddr>,
    /// Those of all of them that have a lifetime, such as from DHCP, with their networks.
    pub leased: BTreeSet<IpNet>,
    /// Those of them whose network has no route of the kernel's in the table of the link's VRF: somebody flushed that table. Nothing can
    /// be reached by them any more, and they are not answered for.
    pub unrouted: BTreeSet<IpNet>,
}

impl FoundLink {
    /// It has the address, for a while or for ever: when one with a lifetime goes, the kernel tells.
    fn has(&self, net: &IpNet) -> bool {
        self.addresses.contains(net) || self.leased.contains(net)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundRoute {
    pub route: Route,
    /// crier made it.
    pub ours: bool,
}

/// A route in the table of a VRF.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub to: IpNet,
    pub hop: Hop,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// Behind all others: a VRF without a default route leads nowhere, and not on to the main table.
    Unreachable,
    Via {
        via: IpAddr,
        link: InterfaceName,
    },
}

/// What crier made and is to take away again, in this life or a later one. Its routes and rules carry its number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The devices with their tables.
    pub devices: BTreeMap<InterfaceName, u32>,
    /// The interfaces that it put into VRFs.
    pub ports: BTreeMap<InterfaceName, InterfaceName>,
    pub addresses: BTreeSet<(InterfaceName, IpNet)>,
    /// The tables that it put routes into.
    pub tables: BTreeSet<u32>,
}

/// One change in the kernel. Prints as the command that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    AddRule(IpNet),
    RemoveRule(IpNet),
    AddL3mdevRule(Family),
    MakeDevice {
        name: InterfaceName,
        table: u32,
    },
    RemoveDevice {
        name: InterfaceName,
    },
    SetUp {
        name: InterfaceName,
    },
    /// The kernel takes IPv6 addresses from a link that changes its VRF: those that were there are added again.
    Enslave {
        port: InterfaceName,
        vrf: InterfaceName,
        again: Vec<IpNet>,
    },
    Release {
        port: InterfaceName,
        again: Vec<IpNet>,
    },
    AddAddress {
        port: InterfaceName,
        net: IpNet,
    },
    RemoveAddress {
        port: InterfaceName,
        net: IpNet,
    },
    AddRoute(Route),
    RemoveRoute(Route),
}

impl Change {
    /// How to see what is in the place of what this is to make.
    pub fn to_see(&self) -> String {
        match self {
            Change::AddRule(_) | Change::RemoveRule(_) | Change::AddL3mdevRule(_) => {
                "look at ip rule show, and remove the other rule".to_owned()
            }
            Change::AddRoute(Route { table, to, hop: _ }) | Change::RemoveRoute(Route { table, to, hop: _ }) => {
                let flag = Family::of(to.addr()).option_of_ip();
                format!(
                    "look at ip {flag} route show table {table} {to}, and remove the other route; or correct routes of [[vrf]]"
                )
            }
            Change::AddAddress { port, net } | Change::RemoveAddress { port, net } => {
                format!(
                    "look at ip address show dev {port}, and remove {}; or correct addresses of [[vrf]]",
                    net.addr()
                )
            }
            Change::MakeDevice { name, .. } | Change::RemoveDevice { name } | Change::SetUp { name } => {
                format!("look at ip -d link show {name}")
            }
            Change::Enslave { port, .. } | Change::Release { port, .. } => format!("look at ip -d link show {port}"),
        }
    }
}

/// A change, and the VRF that it is for; `None`: for all of them.
pub type Step = (Option<InterfaceName>, Change);

/// What is to be done, and what crier cannot or must not do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub steps: Vec<Step>,
    pub problems: Vec<HostProblem>,
}

/// The priority of the rules for destinations inside of the cluster.
pub const CLUSTER_PRIORITY: u32 = 990;

/// The priority of the kernel's rule that leads into the tables of VRFs.
pub const L3MDEV_PRIORITY: u32 = 1000;

/// What differs from what is wanted. The steps are in the order in which they can be made.
pub fn changes(wanted: &Wanted<'_>, found: &Found, made: &Made) -> Outcome {
    let mut outcome = Outcome::default();
    let managed: Vec<&Vrf> = wanted.vrfs.iter().filter(|vrf| vrf.manage).collect();
    let rules = rules(wanted, found);
    if !managed.is_empty() {
        outcome.steps.extend(rules.iter().cloned().map(|change| (None, change)));
    }
    for vrf in wanted.vrfs {
        let (changes, mut problems) = Lacking { vrf, found, made, own: wanted.own }.find();
        if vrf.manage {
            outcome.steps.extend(changes.into_iter().map(|change| (Some(vrf.name.clone()), change)));
        } else {
            // Whoever manages a VRF has the rules too.
            let changes: Vec<&Change> = changes.iter().filter(|change| change.is_asked_for()).chain(&rules).collect();
            problems.extend((!changes.is_empty()).then(|| unmanaged(vrf, &changes)));
        }
        outcome.problems.extend(problems);
    }
    outcome.steps.extend(spare(wanted, &managed, found, made).into_iter().map(|change| (None, change)));
    outcome
}

/// The rules that are missing.
fn rules(wanted: &Wanted<'_>, found: &Found) -> Vec<Change> {
    let has = |net: &IpNet| found.our_rules.contains(net) || found.other_rules.iter().any(|other| other.contains(net));
    let cluster = cluster_rules(wanted, found).into_iter().filter(|net| !has(net)).map(Change::AddRule);
    // The kernel makes it with the first VRF device.
    let has_vrf = found.links.values().any(|link| link.table.is_some());
    let l3mdev = found.families.difference(&found.l3mdev).filter(|_| has_vrf).copied().map(Change::AddL3mdevRule);
    cluster.chain(l3mdev).collect()
}

/// Few rules, for every packet passes all of them.
fn cluster_rules(wanted: &Wanted<'_>, found: &Found) -> BTreeSet<IpNet> {
    let nets: Vec<IpNet> = wanted.cluster.iter().copied().collect();
    IpNet::aggregate(&nets).into_iter().filter(|net| found.families.contains(&Family::of(net.addr()))).collect()
}

fn unmanaged(vrf: &Vrf, changes: &[&Change]) -> HostProblem {
    let commands: Vec<String> = changes.iter().map(ToString::to_string).collect();
    HostProblem {
        problem: format!(
            "the VRF {} lacks {} of what [[vrf]] says, and crier does not manage it",
            vrf.name,
            changes.len()
        ),
        remedy: format!("{}; or set manage = true in [[vrf]]", commands.join("; ")),
    }
}

/// What one VRF lacks.
struct Lacking<'a> {
    vrf: &'a Vrf,
    found: &'a Found,
    made: &'a Made,
    own: &'a BTreeSet<IpAddr>,
}

/// The links that alone lead from the main table to the outside, each with the gateway, where there is one. `own` are the addresses of this host's Node:
/// of a family that the Node has no address of, the default route is nobody's concern.
pub fn uplinks(defaults: &[DefaultRoute], own: &BTreeSet<IpAddr>) -> BTreeMap<u32, Option<IpAddr>> {
    let of = |family: Family| {
        let of_family = defaults.iter().filter(move |it| it.vrf.is_none() && it.family == family);
        let best = of_family.clone().map(|it| it.metric).min();
        let best: Vec<&DefaultRoute> = of_family.filter(|it| Some(it.metric) == best).collect();
        let first = best.first()?;
        best.iter().all(|it| it.link == first.link).then_some((first.link, first.gateway))
    };
    let concerns = |family: &Family| match own.is_empty() {
        true => *family == Family::V4 || !defaults.iter().any(|it| it.vrf.is_none() && it.family == Family::V4),
        false => own.iter().any(|address| Family::of(*address) == *family),
    };
    let mut uplinks = BTreeMap::new();
    for (link, gateway) in Family::BOTH.into_iter().filter(concerns).filter_map(of) {
        uplinks.entry(link).or_insert(gateway);
    }
    uplinks
}

impl Lacking<'_> {
    fn find(&self) -> (Vec<Change>, Vec<HostProblem>) {
        let mut changes = Vec::new();
        let Vrf { name, table, interfaces, addresses, manage: _, routes: _ } = self.vrf;
        let make = Change::MakeDevice { name: name.clone(), table: *table };
        match self.found.links.get(name) {
            Some(FoundLink { table: Some(has), .. }) if has == table => {}
            Some(FoundLink { table: Some(has), .. }) if self.made.devices.get(name) == Some(has) => {
                changes.extend([Change::RemoveDevice { name: name.clone() }, make]);
            }
            Some(FoundLink { table: Some(has), .. }) => {
                let remedy = format!("write table = {has} in [[vrf]], or remove the device: ip link delete {name}");
                let problem = format!("the VRF device {name} has the table {has}, and [[vrf]] says {table}");
                return (Vec::new(), vec![HostProblem { problem, remedy }]);
            }
            Some(FoundLink { table: None, .. }) => {
                let remedy = "give the [[vrf]] another name".to_owned();
                return (Vec::new(), vec![HostProblem { problem: format!("{name} is a link, and no VRF"), remedy }]);
            }
            None => changes.push(make),
        }
        let is_up = self.found.links.get(name).is_some_and(|device| device.up) && changes.is_empty();
        changes.extend((!is_up).then(|| Change::SetUp { name: name.clone() }));
        let is_new = changes.iter().any(|change| matches!(change, Change::MakeDevice { .. }));
        let mut problems = Vec::new();
        let mut ports: Vec<&InterfaceName> = Vec::new();
        for port in interfaces {
            match self.port(port, is_new) {
                Ok(enslave) => {
                    changes.extend(enslave);
                    ports.push(port);
                }
                Err(problem) => problems.push(problem),
            }
        }
        let first = interfaces.first().filter(|port| ports.contains(port));
        let lacks = |port: &InterfaceName, net: &IpNet| {
            let found = self.found.links.get(port).is_some_and(|link| link.has(net));
            (!found).then(|| Change::AddAddress { port: port.clone(), net: *net })
        };
        if let Some(port) = first.filter(|_| !is_new) {
            let (again, lost) = self.unrouted(port);
            changes.extend(again);
            problems.extend(lost);
        }
        changes.extend(first.into_iter().flat_map(|port| addresses.iter().filter_map(move |net| lacks(port, net))));
        let (routes, impossible) = self.routes(&ports);
        let has = |route: &Route| !is_new && self.found.routes.iter().any(|found| found.route == *route);
        changes.extend(routes.into_iter().filter(|route| !has(route)).map(Change::AddRoute));
        problems.extend(impossible);
        (changes, problems)
    }

    /// What it takes to have the interface in the VRF, or why that cannot be. `is_new`: the device is made anew.
    fn port(&self, port: &InterfaceName, is_new: bool) -> Result<Vec<Change>, HostProblem> {
        let vrf = &self.vrf.name;
        let Some(link) = self.found.links.get(port) else {
            let remedy = "the VRF has it as soon as it appears; else correct interfaces in [[vrf]]".to_owned();
            return Err(HostProblem { problem: format!("the VRF {vrf} waits for the interface {port}"), remedy });
        };
        if let Some(what) = self.is_own(port, link).filter(|_| link.master.as_ref() != Some(vrf)) {
            let problem = format!(
                "the interface {port} carries {what}, so crier does not put it into the VRF {vrf}: that would cut this host off"
            );
            let by_hand = Change::Enslave { port: port.clone(), vrf: vrf.clone(), again: Vec::new() };
            let remedy = format!("correct interfaces of [[vrf]]; if it is meant so: {by_hand}");
            return Err(HostProblem { problem, remedy });
        }
        let again = again(link);
        match &link.master {
            Some(master) if master == vrf && !is_new && !link.up => {
                let problem = format!("the interface {port} of the VRF {vrf} is down");
                Err(HostProblem { problem, remedy: format!("ip link set {port} up") })
            }
            Some(master) if master == vrf && !is_new => Ok(Vec::new()),
            Some(master) if master != vrf && self.made.ports.get(port) != Some(master) => {
                let problem = format!("the interface {port} is a part of {master}, so it cannot be in the VRF {vrf}");
                Err(HostProblem { problem, remedy: format!("ip link set {port} nomaster; or correct [[vrf]]") })
            }
            Some(_) | None => {
                let enslave = Change::Enslave { port: port.clone(), vrf: vrf.clone(), again };
                let set_up = (!link.up).then(|| Change::SetUp { name: port.clone() });
                Ok([enslave].into_iter().chain(set_up).collect())
            }
        }
    }

    /// What of the host itself the link carries.
    fn is_own(&self, port: &InterfaceName, link: &FoundLink) -> Option<String> {
        let mut own = link.carries.intersection(self.own).filter(|it| !self.is_of_vrf(port, **it));
        let address = own.next().map(|it| format!("this Node's own address {it}"));
        let gateway = uplinks(&self.found.defaults, self.own).remove(&link.index);
        let route = gateway
            .map(|it| it.map_or_else(|| "the default route".to_owned(), |it| format!("the default route via {it}")));
        let both: Vec<String> = address.into_iter().chain(route).collect();
        (!both.is_empty()).then(|| both.join(" and "))
    }

    /// The address on the interface is meant for this VRF, which may have the networks and addresses of the main table once more: crier put
    /// it there, or the configuration names it, and a link outside of all VRFs has the Node's address as well.
    fn is_of_vrf(&self, port: &InterfaceName, address: IpAddr) -> bool {
        let Vrf { interfaces, addresses, .. } = self.vrf;
        let is_named = || interfaces.first() == Some(port) && addresses.iter().any(|net| net.addr() == address);
        let is_made = self.made.addresses.iter().any(|(on, net)| on == port && net.addr() == address);
        is_made || (is_named() && self.is_in_main_too(port, address))
    }

    /// Another link that is up has it, and is in no VRF.
    fn is_in_main_too(&self, port: &InterfaceName, address: IpAddr) -> bool {
        let is_vrf = |name: &InterfaceName| self.found.links.get(name).is_some_and(|link| link.table.is_some());
        let mut others = self.found.links.iter().filter(|(name, link)| *name != port && link.table.is_none());
        others.any(|(_, link)| link.up && link.carries.contains(&address) && !link.master.as_ref().is_some_and(is_vrf))
    }

    /// What brings back the kernel's own routes to the networks of this interface: with an address it makes them anew. An address that
    /// is not crier's is only named.
    fn unrouted(&self, port: &InterfaceName) -> (Vec<Change>, Vec<HostProblem>) {
        let Vrf { name, table, addresses, .. } = self.vrf;
        let Some(link) = self.found.links.get(port) else { return (Vec::new(), Vec::new()) };
        let unrouted = addresses.iter().copied().filter(|net| link.unrouted.contains(net));
        let is_ours = |net: &IpNet| self.made.addresses.contains(&(port.clone(), *net));
        let (ours, others): (Vec<IpNet>, Vec<IpNet>) = unrouted.partition(is_ours);
        let again = |net: IpNet| {
            let port = port.clone();
            [Change::RemoveAddress { port: port.clone(), net }, Change::AddAddress { port, net }]
        };
        let told = |net: IpNet| HostProblem {
            problem: format!("table {table} of the VRF {name} has lost the route to the network of {net} on {port}"),
            remedy: format!("ip address delete {net} dev {port}; ip address add {net} dev {port}"),
        };
        (ours.into_iter().flat_map(again).collect(), others.into_iter().map(told).collect())
    }

    /// The routes that are wanted, and why others cannot be.
    fn routes(&self, ports: &[&InterfaceName]) -> (Vec<Route>, Vec<HostProblem>) {
        let (table, vrf) = (self.vrf.table, &self.vrf.name);
        let families = Family::BOTH.into_iter().filter(|family| self.found.families.contains(family));
        let mut routes: Vec<Route> =
            families.map(|family| Route { table, to: everything(family), hop: Hop::Unreachable }).collect();
        let mut problems = Vec::new();
        for route in &self.vrf.routes {
            match self.link_to(route.via, ports) {
                Some(link) => {
                    let hop = Hop::Via { via: route.via, link: link.clone() };
                    routes.push(Route { table, to: route.to, hop });
                }
                None => problems.push(HostProblem {
                    problem: format!(
                        "the route of the VRF {vrf} to {} is missing: none of its interfaces has the subnet of the next hop {}",
                        route.to, route.via
                    ),
                    remedy: "add the address of this node in that subnet to addresses of [[vrf]]".to_owned(),
                }),
            }
        }
        (routes, problems)
    }

    /// The interface that a next hop is on: by its subnet. A link-local one is on the first.
    fn link_to<'a>(&self, via: IpAddr, ports: &[&'a InterfaceName]) -> Option<&'a InterfaceName> {
        if is_link_local_v6(via) {
            return ports.first().copied();
        }
        let first = self.vrf.interfaces.first();
        let has = |port: &InterfaceName| {
            let found = self.found.links.get(port).into_iter().flat_map(|link| &link.addresses);
            let given = self.vrf.addresses.iter().filter(|_| first == Some(port));
            found.chain(given).any(|net| net.contains(&via))
        };
        ports.iter().copied().find(|port| has(port))
    }
}

/// What crier made and nobody asks for any more.
fn spare(wanted: &Wanted<'_>, managed: &[&Vrf], found: &Found, made: &Made) -> Vec<Change> {
    // What an operator took into their own hands stays.
    let is_left = |vrf: &InterfaceName| wanted.vrfs.iter().any(|it| it.name == *vrf && !it.manage);
    let of_port = |port: &InterfaceName| managed.iter().find(|vrf| vrf.interfaces.contains(port));
    let is_kept = |port: &InterfaceName| made.ports.get(port).is_some_and(is_left);
    let mut changes = Vec::new();
    for (port, net) in &made.addresses {
        let is_wanted = managed.iter().any(|vrf| vrf.interfaces.first() == Some(port) && vrf.addresses.contains(net));
        let is_there = found.links.get(port).is_some_and(|link| link.addresses.contains(net));
        if !is_wanted && is_there && !is_kept(port) {
            changes.push(Change::RemoveAddress { port: port.clone(), net: *net });
        }
    }
    let left_tables: BTreeSet<u32> = wanted.vrfs.iter().filter(|vrf| !vrf.manage).map(|vrf| vrf.table).collect();
    for FoundRoute { route, ours: _ } in found.routes.iter().filter(|found| found.ours) {
        let vrf = managed.iter().find(|vrf| vrf.table == route.table);
        let is_wanted = vrf.is_some_and(|vrf| match &route.hop {
            Hop::Unreachable => true,
            Hop::Via { via, link } => {
                vrf.interfaces.contains(link) && vrf.routes.iter().any(|it| it.to == route.to && it.via == *via)
            }
        });
        if !is_wanted && made.tables.contains(&route.table) && !left_tables.contains(&route.table) {
            changes.push(Change::RemoveRoute(route.clone()));
        }
    }
    for (port, vrf) in &made.ports {
        let link = found.links.get(port).filter(|link| link.master.as_ref() == Some(vrf));
        if let (None, Some(link), false) = (of_port(port), link, is_left(vrf)) {
            changes.push(Change::Release { port: port.clone(), again: again(link) });
        }
    }
    for (name, table) in &made.devices {
        let is_wanted = managed.iter().any(|vrf| vrf.name == *name);
        let is_there = found.links.get(name).is_some_and(|link| link.table == Some(*table));
        if !is_wanted && is_there && !is_left(name) {
            changes.push(Change::RemoveDevice { name: name.clone() });
        }
    }
    let rules = if managed.is_empty() { BTreeSet::new() } else { cluster_rules(wanted, found) };
    let spare = found.our_rules.difference(&rules).filter(|_| wanted.complete || managed.is_empty());
    changes.extend(spare.copied().map(Change::RemoveRule));
    changes
}

/// The IPv6 addresses that a link loses when it changes its VRF.
fn again(link: &FoundLink) -> Vec<IpNet> {
    let is_lost = |net: &&IpNet| net.addr().is_ipv6() && !is_link_local_v6(net.addr());
    link.addresses.iter().filter(is_lost).copied().collect()
}

pub fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

impl Made {
    /// Takes in what is about to be made.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::MakeDevice { name, table } => drop(self.devices.insert(name.clone(), *table)),
            Change::Enslave { port, vrf, again: _ } => drop(self.ports.insert(port.clone(), vrf.clone())),
            Change::AddAddress { port, net } => drop(self.addresses.insert((port.clone(), *net))),
            Change::AddRoute(route) => drop(self.tables.insert(route.table)),
            Change::AddRule(_)
            | Change::RemoveRule(_)
            | Change::AddL3mdevRule(_)
            | Change::RemoveDevice { .. }
            | Change::SetUp { .. }
            | Change::Release { .. }
            | Change::RemoveAddress { .. }
            | Change::RemoveRoute(_) => {}
        }
    }

    /// Forgets what is gone from the kernel: whoever makes it again has made it.
    pub fn forget(&mut self, wanted: &Wanted<'_>, found: &Found) {
        let link = |name: &InterfaceName| found.links.get(name);
        self.devices.retain(|name, table| link(name).is_some_and(|it| it.table == Some(*table)));
        self.addresses.retain(|(port, net)| link(port).is_some_and(|it| it.addresses.contains(net)));
        self.ports.retain(|port, vrf| link(port).is_some_and(|it| it.master.as_ref() == Some(vrf)));
        let has_table = |table: &u32| wanted.vrfs.iter().any(|it| it.table == *table);
        let has_routes = |table: &u32| found.routes.iter().any(|it| it.ours && it.route.table == *table);
        self.tables.retain(|table| has_table(table) || has_routes(table));
    }

    /// There is nothing of crier's in the kernel.
    pub fn is_empty(&self) -> bool {
        *self == Made::default()
    }
}

impl Change {
    /// The configuration asks for it by name; the rest is how crier does things.
    fn is_asked_for(&self) -> bool {
        !matches!(self, Change::AddRoute(Route { hop: Hop::Unreachable, .. }))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |net: &IpNet| if net.addr().is_ipv6() { "ip -6" } else { "ip" };
        match self {
            Change::AddRule(net) => write!(f, "{} rule add to {net} lookup main priority {CLUSTER_PRIORITY}", ip(net)),
            Change::RemoveRule(net) => write!(f, "{} rule delete to {net} priority {CLUSTER_PRIORITY}", ip(net)),
            Change::AddL3mdevRule(family) => {
                write!(f, "{} rule add l3mdev protocol kernel priority {L3MDEV_PRIORITY}", ip(&everything(*family)))
            }
            Change::MakeDevice { name, table } => write!(f, "ip link add {name} type vrf table {table}"),
            Change::RemoveDevice { name } => write!(f, "ip link delete {name}"),
            Change::SetUp { name } => write!(f, "ip link set {name} up"),
            Change::Enslave { port, vrf, again: _ } => write!(f, "ip link set {port} master {vrf}"),
            Change::Release { port, again: _ } => write!(f, "ip link set {port} nomaster"),
            Change::AddAddress { port, net } => write!(f, "ip address add {net} dev {port}"),
            Change::RemoveAddress { port, net } => write!(f, "ip address delete {net} dev {port}"),
            Change::AddRoute(route) => write!(f, "{} route add {route}", ip(&route.to)),
            Change::RemoveRoute(route) => write!(f, "{} route delete {route}", ip(&route.to)),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hop {
            Hop::Unreachable => write!(f, "unreachable {} table {} metric 4278198272", self.to, self.table),
            Hop::Via { via, link } => write!(f, "{} via {via} dev {link} table {}", self.to, self.table),
        }
    }
}

#[cfg(test)]
mod tests;
