//! Which links of this node an `[[l2]]` names, whether frames pass on them or not. Floor 1.

use ipnet::IpNet;

use crate::config::{InterfacePattern, L2};
use crate::names::InterfaceName;
use crate::world::{Link, Node, World};

/// Links that belong to containers, tunnels and virtual switches. An `[[l2]]` that names no interfaces leaves them out, unless
/// the Node's own address is on them.
const NOT_BY_DEFAULT: [&str; 17] = [
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "nodelocaldns",
    "lxc",
    "tap",
    "podman",
    "br-",
    "vxlan",
];

/// The `[[l2]]` names the link, whether frames pass or not. `node` is this node, where it is known.
pub fn names_link(l2: &L2, node: Option<&Node>, link: &Link, world: &World) -> bool {
    is_wanted(l2, node, link, world) && is_in_vrf(l2, link, world)
}

fn is_in_vrf(l2: &L2, link: &Link, world: &World) -> bool {
    let of_link = || link.vrf.and_then(|index| world.links.get(&index)).map(|device| &device.name);
    l2.vrf.as_ref().is_none_or(|vrf| of_link() == Some(vrf))
}

pub fn is_wanted(l2: &L2, node: Option<&Node>, link: &Link, world: &World) -> bool {
    let by_default = || l2.interfaces.is_empty() && !is_left_out_by_default(node, link, world);
    (by_default() || is_named_by(&l2.interfaces, &link.name)) && !is_named_by(&l2.exclude_interfaces, &link.name)
}

pub fn is_named_by(patterns: &[InterfacePattern], name: &InterfaceName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

/// A link with an address of the Node is the node's own, whatever its name: a bridge `br-ex` with the uplink as its port. One of a virtual
/// router is no node's own: with pulses from it the switch would send the router's packets to whichever node spoke last.
pub fn is_left_out_by_default(node: Option<&Node>, link: &Link, world: &World) -> bool {
    let is_own = |net: &IpNet| node.is_some_and(|node| node.addresses.contains(&net.addr()));
    let is_second = is_of_containers(link) || is_beside_its_parent(link, world);
    link.is_of_virtual_router() || is_second && !link.addresses.iter().any(is_own)
}

/// Its name says that it belongs to containers, tunnels or virtual switches.
pub fn is_of_containers(link: &Link) -> bool {
    NOT_BY_DEFAULT.iter().any(|start| link.name.as_str().starts_with(start))
}

/// A macvlan or its like: the host is on that wire by its parent already, unless it has only the macvlan for that.
fn is_beside_its_parent(link: &Link, world: &World) -> bool {
    let parent = link.parent.and_then(|index| world.links.get(&index));
    let has_subnet = |link: &Link| link.in_subnets().next().is_some();
    parent.is_some_and(|parent| has_subnet(parent) || !has_subnet(link))
}
