//! Pools whose IPv6 addresses are host parts below the prefix of a link (`prefix-of`): what the links of this node make of them.
//! Floor 1.
//!
//! Agents compare what is written, which is the same on all nodes; everything else goes by the whole addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};

use crate::address::AddressRange;
use crate::config::{Config, Pool, Reservation, below};
use crate::names::InterfaceName;
use crate::plan::pools::pool_of;
use crate::world::{Link, Renumber, World};

/// How long a Service keeps an address below a former prefix beside the new one.
const OVERLAP: Duration = Duration::from_secs(600);

/// The prefix of each link that a pool names, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prefixes(BTreeMap<InterfaceName, Ipv6Addr>);

impl Prefixes {
    /// What the links say now. A link that has no prefix keeps the one that it had: the addresses below it are served elsewhere too.
    pub fn of(config: &Config, world: &World, before: &Prefixes) -> Prefixes {
        let named = config.pools.iter().filter_map(|pool| pool.prefix_of.as_ref());
        let prefix = |name: &InterfaceName| {
            let link = world.links.values().find(|link| link.name == *name);
            let before = before.0.get(name).copied();
            link.and_then(|link| prefix_of(link, || in_use(config, world, name), before)).or(before)
        };
        Prefixes(named.filter_map(|name| Some((name.clone(), prefix(name)?))).collect())
    }

    /// The configuration with whole addresses.
    pub fn resolve(&self, config: &Arc<Config>) -> Arc<Config> {
        if config.pools.iter().all(|pool| pool.prefix_of.is_none()) {
            return config.clone();
        }
        let prefix = |pool: &Pool| pool.prefix_of.as_ref().and_then(|link| self.0.get(link)).copied();
        // What another pool has whole is that pool's, with its rules.
        let others: Vec<AddressRange> = config
            .pools
            .iter()
            .filter(|pool| pool.prefix_of.is_none())
            .flat_map(|pool| pool.addresses.clone())
            .collect();
        let whole = |pool: &Pool| {
            let Some(prefix) = prefix(pool) else { return pool.clone() };
            let pool = pool.below(prefix);
            let addresses = pool.addresses.iter().flat_map(|range| range.without(&others)).collect();
            Pool { addresses, ..pool }
        };
        let reserved = |address: &IpAddr| match *address {
            // A reservation is written as its pool is.
            IpAddr::V6(host) => {
                let pool =
                    config.pools.iter().filter(|pool| pool.prefix_of.is_some()).find(|pool| pool.holds(*address));
                pool.and_then(prefix).map_or(*address, |prefix| below(prefix, host).into())
            }
            IpAddr::V4(_) => *address,
        };
        let reservation = |it: &Reservation| Reservation {
            service: it.service.clone(),
            addresses: it.addresses.iter().map(reserved).collect(),
        };
        Arc::new(Config {
            pools: config.pools.iter().map(whole).collect(),
            reservations: config.reservations.iter().map(reservation).collect(),
            ..(**config).clone()
        })
    }
}

/// Of several that stay, the one that most addresses of Services lie below, or else the one of before: a further prefix renumbers nobody,
/// also after a restart and when another agent allocates. Else the first that is not link-local; those that stay come before those that
/// are on their way out.
fn prefix_of(
    link: &Link,
    in_use: impl FnOnce() -> BTreeMap<Ipv6Addr, usize>,
    before: Option<Ipv6Addr>,
) -> Option<Ipv6Addr> {
    let prefixes = || {
        link.addresses.iter().filter_map(|net| match net {
            IpNet::V6(net) if net.prefix_len() <= 64 && !net.addr().is_unicast_link_local() => Some(net),
            IpNet::V6(_) | IpNet::V4(_) => None,
        })
    };
    let stays = |net: &&Ipv6Net| !link.deprecated.contains(&IpAddr::V6(net.addr()));
    let staying: Vec<Ipv6Addr> = prefixes().filter(stays).map(Ipv6Net::network).collect();
    let preferred = match staying.as_slice() {
        [] | [_] => None,
        several => {
            let in_use = in_use();
            let used =
                several.iter().filter_map(|prefix| Some((*in_use.get(prefix)?, Some(*prefix) == before, *prefix)));
            used.max().map(|(_, _, prefix)| prefix).or(before.filter(|before| several.contains(before)))
        }
    };
    preferred.or_else(|| prefixes().next().map(Ipv6Net::network))
}

/// How many addresses of Services lie below each prefix, of the pools of a link.
fn in_use(config: &Config, world: &World, link: &InterfaceName) -> BTreeMap<Ipv6Addr, usize> {
    let pools: Vec<&Pool> = config.pools.iter().filter(|pool| pool.prefix_of.as_ref() == Some(link)).collect();
    let mut counts = BTreeMap::new();
    let held = world.services.values().flat_map(|service| service.ingress.iter().copied().chain(service.given()));
    let promised = world.assigned.values().flatten().copied();
    for address in held.chain(promised) {
        if let IpAddr::V6(v6) = address
            && pools.iter().any(|pool| pool.holds_below_other_prefix(address))
        {
            *counts.entry(below(v6, Ipv6Addr::UNSPECIFIED)).or_default() += 1;
        }
    }
    counts
}

/// What is to become of the addresses of a Service that lie below a former prefix of their pool's link; `None` where none does, or
/// where the present prefix is not known. Addresses that the Service requests itself stay.
pub fn renumbering(pools: &[Pool], addresses: &[IpAddr], requested: &[IpAddr]) -> Option<Renumber> {
    let is_former = |address: &&IpAddr| {
        let pool = pool_of(pools, **address);
        !requested.contains(address) && pool.is_some_and(|pool| !pool.awaits_prefix() && !pool.holds(**address))
    };
    let leaving: Vec<IpAddr> = addresses.iter().filter(is_former).copied().collect();
    (!leaving.is_empty()).then_some(Renumber { leaving, overlap: OVERLAP })
}
