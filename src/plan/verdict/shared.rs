//! What Services that share an address do about it together: it is announced while one of them wants it, from nodes that serve
//! one of them, and moves as one. Floor 1. Who may share an address is decided by `plan::sharing`.

use std::borrow::Cow;
use std::net::IpAddr;

use super::Inputs;
use crate::address::Family;
use crate::names::ObjectKey;
use crate::world::{Endpoints, Service};

/// The endpoints of the address's family of all Services that have it; `own` are those of `service`, one of them.
pub fn endpoints<'a>(
    inputs: &Inputs<'_>,
    service: &ObjectKey,
    own: &'a Endpoints,
    address: IpAddr,
) -> Cow<'a, Endpoints> {
    let others = inputs.book.tenants(address).iter().filter(|tenant| *tenant != service);
    joint(others.map(|tenant| inputs.world.endpoints(tenant, Family::of(address))), own)
}

/// All Services that have the address; `service` is one of them.
pub fn services<'a>(
    inputs: &Inputs<'a>,
    key: &'a ObjectKey,
    service: &'a Service,
    address: IpAddr,
) -> impl Iterator<Item = &'a Service> + Clone {
    let others = inputs.book.tenants(address).iter().filter(move |tenant| *tenant != key);
    let world = inputs.world;
    std::iter::once(service).chain(others.filter_map(|tenant| world.services.get(tenant)).map(|service| &**service))
}

/// The endpoints of several Services with the same pods.
pub fn joint(others: impl Iterator<Item = Endpoints>, own: &Endpoints) -> Cow<'_, Endpoints> {
    let mut joint = Cow::Borrowed(own);
    for Endpoints { by_node, without_node } in others {
        let joint = joint.to_mut();
        joint.without_node = joint.without_node.max(without_node);
        for (node, count) in by_node {
            let known = joint.by_node.entry(node).or_default();
            *known = count.max(*known);
        }
    }
    joint
}

/// The address that ranks the nodes for `address`: the first one of the Service with most addresses, of several the first by
/// name. So the addresses of a Service move together, and so do those of all who share them.
pub fn rank_by(inputs: &Inputs<'_>, first: IpAddr, address: IpAddr) -> IpAddr {
    let tenants = inputs.book.tenants(address);
    if tenants.len() < 2 {
        return first;
    }
    let shown = |tenant: &ObjectKey| -> Vec<IpAddr> {
        let ingress = inputs.world.services.get(tenant).map(|service| service.ingress.as_slice()).unwrap_or_default();
        let claimed = inputs.book.claimed_by(tenant);
        // Standalone there is no status.
        let shown = if ingress.is_empty() { claimed } else { ingress };
        shown.iter().copied().filter(|address| claimed.contains(address)).collect()
    };
    first_of_most(tenants.iter().map(|tenant| (tenant, shown(tenant)))).unwrap_or(first)
}

/// The first address of the Service with most of them, of several the first by name.
pub fn first_of_most<'a>(services: impl Iterator<Item = (&'a ObjectKey, Vec<IpAddr>)>) -> Option<IpAddr> {
    // Of equals the first by name is the greater one.
    let most = services
        .max_by(|(one, of_one), (other, of_other)| of_one.len().cmp(&of_other.len()).then_with(|| other.cmp(one)));
    most.and_then(|(_, addresses)| addresses.first().copied())
}

/// Of several Services with the same pods, the one that says how many there are: the first by name that has an endpoint.
pub fn speaks_for_endpoints(
    inputs: &Inputs<'_>,
    service: &ObjectKey,
    address: IpAddr,
    count: impl Fn(&ObjectKey) -> u32,
) -> bool {
    let mut before = inputs.book.tenants(address).iter().filter(|tenant| *tenant < service);
    !before.any(|tenant| count(tenant) > 0)
}
