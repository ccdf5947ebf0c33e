//! The addresses that hosts and subnets use themselves: of Nodes, of this host's links, of its gateways, and those that a
//! subnet sets apart. No Service is given one of them.
//! Floor 1. What foreign hosts have is found on the link instead, see `link_memory`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::address::Family;
use crate::config::{Config, Pool};
use crate::names::{InterfaceName, NodeName, ObjectKey, PoolName};
use crate::plan::named_links::names_link;
use crate::reason::HostUse;
use crate::world::{Link, World};

/// What hosts and subnets use, and what they used a moment ago: an address or a route that goes away for a moment frees nothing.
#[derive(Debug, Clone, Default)]
pub struct OwnAddresses {
    used: BTreeMap<IpAddr, HostUse>,
    /// Each until when.
    lately: BTreeMap<IpAddr, (HostUse, Instant)>,
    /// When this agent began to plan.
    since: Option<Instant>,
    unknown_until: Option<Instant>,
    /// It waits for no link.
    presumed: bool,
}

/// What is new, see [`OwnAddresses::renew`].
#[derive(Debug, Default)]
pub struct Renewed {
    /// No Service gets one of these.
    pub withheld: BTreeMap<IpAddr, HostUse>,
    /// What is in use now and was not, or no more.
    pub changed: BTreeSet<IpAddr>,
    /// See [`is_unknown`].
    pub unknown: bool,
}

/// How long what hosts and subnets used is given to no Service.
pub const KEPT_FOR: Duration = Duration::from_secs(600);

/// How long an agent that has just started waits for the first address of its links.
pub const AWAITED_FOR: Duration = Duration::from_secs(30);

impl OwnAddresses {
    /// Looks at what is used now.
    pub fn renew(&mut self, config: &Config, me: &NodeName, world: &World, now: Instant) -> Renewed {
        let used = own_addresses(config, world);
        let before = std::mem::replace(&mut self.used, used);
        let differs = |address: &&IpAddr| before.get(*address) != self.used.get(*address);
        let changed = before.keys().chain(self.used.keys()).filter(differs).copied().collect();
        // A Node that has an address no more says so itself.
        let flaps = |used: &HostUse| !matches!(used, HostUse::Node { .. });
        let gone = before.into_iter().filter(|(address, used)| !self.used.contains_key(address) && flaps(used));
        self.lately.extend(gone.map(|(address, used)| (address, (used, now + KEPT_FOR))));
        self.lately.retain(|address, (_, until)| *until > now && !self.used.contains_key(address));
        let awaited = *self.since.get_or_insert(now) + AWAITED_FOR;
        let unknown = !self.presumed && now < awaited && is_unknown(config, me, world);
        self.unknown_until = unknown.then_some(awaited);
        let was = |used: &HostUse| HostUse::Lately { was: Box::new(used.clone()) };
        let lately = self.lately.iter().map(|(address, (used, _))| (*address, was(used)));
        let withheld = lately.chain(self.used.clone()).collect();
        Renewed { withheld, changed, unknown }
    }

    /// For a planner of what is not so: it knows what was used a moment ago, and an agent waits only for so long.
    pub fn presumed(&self) -> OwnAddresses {
        OwnAddresses { lately: self.lately.clone(), presumed: true, ..OwnAddresses::default() }
    }

    /// The gateways of this host's links, also those of a moment ago, each with the link.
    pub fn gateways(&self) -> impl Iterator<Item = (IpAddr, &InterfaceName)> {
        let lately = self.lately.iter().map(|(address, (used, _))| (address, used));
        self.used.iter().chain(lately).filter_map(|(address, used)| Some((*address, used.gateway_of()?)))
    }

    /// When to call [`OwnAddresses::renew`] at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lately.values().map(|(_, until)| *until).chain(self.unknown_until).min()
    }
}

/// Standalone: of the links that an `[[l2]]` names none has an address, as before DHCP has answered, so the subnets and their gateways are not known
/// yet. In a cluster the agent that allocates has reached the API server.
fn is_unknown(config: &Config, me: &NodeName, world: &World) -> bool {
    let is_v4 = |pool: &Pool| pool.addresses.iter().any(|range| range.family() == Family::V4);
    if !config.is_standalone() || config.l2.is_empty() || !config.pools.iter().any(is_v4) {
        return false;
    }
    let node = world.nodes.get(me).map(|node| &**node);
    let named = |link: &&Link| !link.loopback && config.l2.iter().any(|l2| names_link(l2, node, link, world));
    let mut links = world.links.values().filter(named).peekable();
    links.peek().is_some() && !links.any(|link| link.in_subnets().any(|net| net.addr().is_ipv4()))
}

/// Each address with its use, as far as this agent can know it.
///
/// Standalone, every agent chooses addresses by itself and all must come to the same result: there the addresses of this host's
/// own links, which the other agents do not know, count for nothing, and the link tells who has them.
pub fn own_addresses(config: &Config, world: &World) -> BTreeMap<IpAddr, HostUse> {
    uses(world, !config.is_standalone())
}

/// Everything, with the addresses of this host's own links.
pub fn all_uses(world: &World) -> BTreeMap<IpAddr, HostUse> {
    uses(world, true)
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
