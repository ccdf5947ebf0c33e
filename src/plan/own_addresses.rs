//! The addresses that hosts and subnets use themselves: of Nodes, of this host's links, of its gateways, and those that a
//! subnet sets apart. No Service is given one of them.
//! Floor 1. What foreign hosts have is found on the link instead, see `link_memory`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{Config, Pool};
use crate::names::{ObjectKey, PoolName};
use crate::reason::HostUse;
use crate::world::{Link, World};

/// Each address with its use, as far as this agent can know it.
///
/// Standalone, every agent chooses addresses by itself and all must come to the same result: there the addresses of this host's
/// own links, which the other agents do not know, count for nothing, and the link tells who has them.
pub fn own_addresses(config: &Config, world: &World) -> BTreeMap<IpAddr, HostUse> {
    uses(world, !config.is_standalone())
}

/// Of these, those that pools could give to Services if nobody used them: what an administrator may not expect. Also of this host's
/// own links where the agent is standalone. The addresses of a pool come in their order.
pub fn withheld<'a>(config: &'a Config, world: &World) -> impl Iterator<Item = (&'a PoolName, IpAddr, HostUse)> {
    let uses = uses(world, true);
    config.pools.iter().flat_map(move |pool| {
        let given = pool.given();
        let in_pool = uses.iter().filter(|(address, _)| given.iter().any(|range| range.contains(**address)));
        in_pool.map(|(address, used)| (&pool.name, *address, used.clone())).collect::<Vec<_>>()
    })
}

fn uses(world: &World, with_links: bool) -> BTreeMap<IpAddr, HostUse> {
    let mut uses = BTreeMap::new();
    let links = || world.links.values().filter(|link| !link.loopback);
    // Routers and tools put addresses of Services on links as host prefixes, as kube-proxy does in IPVS mode.
    for (link, net) in links().flat_map(|link| link.in_subnets().map(move |net| (link, net))) {
        uses.extend(set_apart(net.trunc()));
        if with_links {
            uses.insert(net.addr(), HostUse::Link { interface: link.name.clone() });
        }
    }
    for route in &world.default_routes {
        let link: Option<&Link> = world.links.get(&route.link);
        let used = |(link, gateway): (&Link, IpAddr)| (gateway, HostUse::Gateway { interface: link.name.clone() });
        uses.extend(link.zip(route.gateway).map(used));
    }
    for (name, node) in world.nodes.iter() {
        let used = || HostUse::Node { node: name.clone() };
        uses.extend(node.addresses.iter().chain(&node.external_ips).map(|address| (*address, used())));
    }
    uses
}

/// The link on which kube-proxy in IPVS mode puts the address of every Service, on every node.
pub const IPVS_LINK: &str = "kube-ipvs0";

/// An address of a pool that another program has put on a link of this host as an address of its own: a virtual address of
/// keepalived or kube-vip, or what a former tool left. The kernel answers for it on the link, whoever announces it.
pub struct Bound<'a> {
    pub address: IpAddr,
    pub link: &'a Link,
    pub pool: &'a Pool,
}

impl Bound<'_> {
    /// A Service that has the address. Looks at every Service.
    pub fn service<'a>(&self, world: &'a World) -> Option<&'a ObjectKey> {
        let has = |key: &&ObjectKey| {
            let shows = world.services.get(*key).is_some_and(|service| service.ingress.contains(&self.address));
            shows || world.assigned.get(*key).is_some_and(|addresses| addresses.contains(&self.address))
        };
        world.services.keys().find(has)
    }
}

/// All of them. Who has which is not asked here.
pub fn bound_by_others<'a>(config: &'a Config, world: &'a World) -> impl Iterator<Item = Bound<'a>> {
    // kube-proxy's own link in IPVS mode answers for nothing: it does no ARP.
    let links = world.links.values().filter(|link| !link.loopback && link.arp && link.up);
    let alone = |net: &&IpNet| net.prefix_len() == net.max_prefix_len();
    let addresses = links.flat_map(move |link| link.addresses.iter().filter(alone).map(move |net| (net.addr(), link)));
    let gives =
        |pool: &&Pool, address: IpAddr| pool.holds(address) && pool.given().iter().any(|range| range.contains(address));
    addresses.filter_map(move |(address, link)| {
        let pool = config.pools.iter().find(|pool| gives(pool, address))?;
        Some(Bound { address, link, pool })
    })
}

/// The addresses of a subnet that no host may have.
fn set_apart(net: IpNet) -> Vec<(IpAddr, HostUse)> {
    match net {
        // RFC 3021: a link of two addresses has neither.
        IpNet::V4(v4) if v4.prefix_len() < 31 => vec![
            (IpAddr::V4(v4.network()), HostUse::Network { net }),
            (IpAddr::V4(v4.broadcast()), HostUse::Broadcast { net }),
        ],
        // RFC 4291 §2.6.1; RFC 6164 turns it off on a link of two addresses.
        IpNet::V6(v6) if v6.prefix_len() < 127 => vec![(IpAddr::V6(v6.network()), HostUse::SubnetRouters { net })],
        IpNet::V4(_) | IpNet::V6(_) => Vec::new(),
    }
}
