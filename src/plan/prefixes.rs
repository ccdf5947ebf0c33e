//! Pools whose IPv6 addresses are host parts below the prefix of a link (`prefix-of`): what the links of this node make of them.
//! Floor 1.
//!
//! Agents compare what is written, which is the same on all nodes; everything else goes by the whole addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

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
            link.and_then(prefix_of).or_else(|| before.0.get(name).copied())
        };
        Prefixes(named.filter_map(|name| Some((name.clone(), prefix(name)?))).collect())
    }

    /// The configuration with whole addresses.
    pub fn resolve(&self, config: &Arc<Config>) -> Arc<Config> {
        if config.pools.iter().all(|pool| pool.prefix_of.is_none()) {
            return config.clone();
        }
        let prefix = |pool: &Pool| pool.prefix_of.as_ref().and_then(|link| self.0.get(link)).copied();
        let whole = |pool: &Pool| prefix(pool).map_or_else(|| pool.clone(), |prefix| pool.below(prefix));
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

/// The first one that is not link-local: those that stay come before those that are on their way out.
fn prefix_of(link: &Link) -> Option<Ipv6Addr> {
    link.addresses.iter().find_map(|net| match net {
        IpNet::V6(net) if net.prefix_len() <= 64 && !net.addr().is_unicast_link_local() => Some(net.network()),
        IpNet::V6(_) | IpNet::V4(_) => None,
    })
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
