//! Addresses that crier gave, that the status of their Service still shows, and that are in no pool of this file: what announces
//! them until the status shows something else. Floor 1.
//!
//! Which pool such an address was of is in the status, and where the file still has a pool of that name, what covers this pool
//! covers it. Else it is what names no pool, and on the link what has a link in the address's subnet. Only where nothing does, what
//! answers on links for other pools of the family has to do; never what belongs to a VRF, which nobody can know of it. No peer is told
//! by an advertisement that is for other pools: what no pool has never leaves by it.

use std::net::IpAddr;

use crate::address::Family;
use crate::config::{Advertisement, Config, L2, Pool, can_be_of_service};
use crate::names::PoolName;
use crate::plan::allocate::pool_of;
use crate::plan::context::{Context, L2Context};
use crate::plan::decision::Held;
use crate::plan::verdict::Inputs;
use crate::selector::Labels;
use crate::world::{PoolRange, PoolsTold, Service};

/// The address with the pool that the status names, where it is a remnant. The status is written by whoever may write it: what
/// no pool that it names had in a former file of this agent is none. One that leaves stands beside those that crier names as given.
pub fn remnant(inputs: &Inputs<'_>, service: &Service, address: IpAddr) -> Option<Held> {
    let is_shown = service.condition.is_some() && service.ingress.contains(&address);
    is_shown.then(|| of_no_pool(inputs, service, address))?
}

/// The same of what the status does not show any more. Where it does not say what crier gave either, whoever asks knows that.
pub fn of_no_pool(inputs: &Inputs<'_>, service: &Service, address: IpAddr) -> Option<Held> {
    let config = inputs.config;
    if config.is_standalone() || pool_of(&config.pools, address).is_some() || !can_be_of_service(address) {
        return None;
    }
    let Some(condition) = &service.condition else {
        return former_pools(inputs, address).next().map(|pool| Held { address, pool: pool.clone() });
    };
    let given = condition.addresses();
    let leaves = !given.is_empty() && service.leaves(address);
    if !given.contains(&address) && !leaves {
        return None;
    }
    let told = match (condition.pools(), &service.pools_told) {
        (none, PoolsTold::Same(pools)) if none.is_empty() => pools.split(',').map(PoolName::from).collect(),
        (pools, PoolsTold::Same(_) | PoolsTold::Nothing | PoolsTold::Different) => pools,
    };
    // Of one that leaves no pool need be named any more.
    let pool = former_pools(inputs, address).find(|pool| leaves || told.contains(pool))?.clone();
    Some(Held { address, pool })
}

/// The pools that had the address in this file, or in a former one of this agent.
pub fn former_pools<'a>(inputs: &Inputs<'a>, address: IpAddr) -> impl Iterator<Item = &'a PoolName> {
    let had = move |(_, first, last): &&PoolRange| (*first..=*last).contains(&address);
    inputs.world.pools.iter().filter(had).map(|(name, _, _)| name)
}

/// What of a file stands in for the pool that an address was of.
pub struct StandIn<'a> {
    config: &'a Config,
    address: IpAddr,
    every_l2: bool,
}

impl<'a> StandIn<'a> {
    /// `None` where the file has the pool.
    pub fn of(config: &'a Config, context: &Context, pool: &PoolName, address: IpAddr) -> Option<StandIn<'a>> {
        if has_pool(config, pool) {
            return None;
        }
        let near = context.l2.iter().any(|l2| l2.has_subnet_of(address));
        let by_link = !near && !config.l2.iter().any(|it| it.pools.is_empty()) && config.bgp.advertisements.is_empty();
        Some(StandIn { config, address, every_l2: by_link })
    }

    /// The `[[l2]]` covers the address.
    pub fn is_covered_by(&self, l2: &L2, context: &L2Context) -> bool {
        let of_others = || self.every_l2 && l2.vrf.is_none() && self.has_family(&l2.pools);
        l2.pools.is_empty() || context.has_subnet_of(self.address) || of_others()
    }

    /// One of these pools has the address's family, and is announced in every VRF.
    fn has_family(&self, pools: &[PoolName]) -> bool {
        let family = Family::of(self.address);
        let has = |pool: &&Pool| pool.vrf.is_none() && pool.addresses.iter().any(|range| range.family() == family);
        self.config.pools.iter().filter(has).any(|pool| pools.contains(&pool.name))
    }
}

/// The advertisement is for the addresses of a pool that a Service with these labels has.
pub fn advertises(config: &Config, it: &Advertisement, pool: &PoolName, labels: &Labels) -> bool {
    match has_pool(config, pool) {
        true => it.covers(pool, labels),
        false => it.pools.is_empty() && it.selects(labels),
    }
}

fn has_pool(config: &Config, pool: &PoolName) -> bool {
    config.pools.iter().any(|it| it.name == *pool)
}
