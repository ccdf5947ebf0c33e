//! The verdict about one Service: its addresses, and what this node does about each. The one place that decides, and so
//! the one place that names reasons.
//! Floor 1. One file for each question. Each takes the [`Inputs`] and the Service, and returns its part of the verdict and
//! its part of the work. [`judge`] asks them in turn; it changes nothing, the planner keeps what it returns.

pub mod allocation;
pub mod bgp;
mod data_path;
pub mod l2;
pub mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;

pub use self::bgp::Contribution;
pub use self::l2::L2Work;
use crate::config::{Config, Pool};
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::address_book::AddressBook;
use crate::plan::context::Context;
use crate::plan::decision::{Announcement, Decision, Held};
use crate::plan::holder::History;
use crate::plan::holder_memory::HolderMemory;
use crate::plan::placement::{Cause, Placement};
use crate::plan::tickets::Tickets;
use crate::world::{Endpoints, Service, World};

/// All that a verdict is based on, apart from the Service.
pub struct Inputs<'a> {
    pub config: &'a Config,
    pub me: &'a NodeName,
    pub world: &'a World,
    pub context: &'a Context,
    pub book: &'a AddressBook,
    pub tickets: &'a Tickets,
    /// The addresses that this node answers for as of the last turn, each with the links.
    pub answered: &'a OrdMap<IpAddr, Arc<BTreeSet<InterfaceName>>>,
    /// Who has which address on the link as of the last turn.
    pub placements: &'a OrdMap<IpAddr, Arc<Placement>>,
    /// What went before with each address on the link.
    pub holders: &'a HolderMemory,
    /// Nothing was judged before.
    pub first_turn: bool,
    pub now: Instant,
}

/// A Service that is ours, with the addresses that may be announced.
pub struct Announceable<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a Service,
    pub endpoints: &'a Endpoints,
    pub held: Vec<&'a Held>,
}

/// What this agent is to do about a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub decision: Decision,
    pub work: Work,
    /// Addresses that this agent, as the one who allocates, newly chose.
    pub assigned: Option<Vec<IpAddr>>,
    /// Why addresses have another owner on the link than before.
    pub causes: Vec<(IpAddr, Cause)>,
    /// What is to be remembered of each address on the link.
    pub histories: Vec<(IpAddr, History)>,
    /// What the status should say; `None` where it is not ours to write, or says it already.
    pub status: Option<Vec<IpAddr>>,
}

/// The part of the slices that a Service accounts for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    pub l2: L2Work,
    pub routes: Vec<Contribution>,
    pub bind: Vec<(IpAddr, InterfaceName)>,
}

pub fn judge(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Verdict {
    let allocation::Answer { allocation, assigned, status } = allocation::judge(inputs, key, service);
    // What the API server has not confirmed is not announced: the address might still be given to another Service.
    let confirmed = |held: &&Held| inputs.config.is_standalone() || service.ingress.contains(&held.address);
    let held: Vec<&Held> = allocation.held.iter().filter(confirmed).collect();
    if held.is_empty() {
        let decision = Decision { allocation, announcements: Vec::new() };
        let (causes, histories) = (Vec::new(), Vec::new());
        return Verdict { decision, work: Work::default(), assigned, causes, histories, status };
    }
    let endpoints = &inputs.world.endpoints(key);
    let about = Announceable { key, service, endpoints, held };
    let l2::Answer { verdicts: on_link, work: l2, causes, histories } = l2::judge(inputs, &about);
    let bgp::Answer { verdicts: over_bgp, work: routes } = bgp::judge(inputs, &about);
    let both = about.held.iter().zip(on_link).zip(over_bgp);
    let announcements: Vec<Announcement> = both
        .map(|((held, l2), bgp)| Announcement { address: held.address, pool: held.pool.clone(), l2, bgp })
        .collect();
    let work = Work { l2, routes, bind: binds(&inputs.config.pools, &announcements) };
    Verdict { decision: Decision { allocation, announcements }, work, assigned, causes, histories, status }
}

/// The announced addresses that this host is to accept on a link, because their pools say so.
fn binds(pools: &[Pool], announcements: &[Announcement]) -> Vec<(IpAddr, InterfaceName)> {
    let pools: BTreeMap<_, _> = pools.iter().filter_map(|pool| Some((&pool.name, pool.bind.as_ref()?))).collect();
    let announced = announcements.iter().filter(|it| it.l2.announced || !it.bgp.peers.is_empty());
    announced.filter_map(|it| Some((it.address, (*pools.get(&it.pool)?).clone()))).collect()
}

/// Whether a pool is announced over anything at all, for the warning that it is not.
pub fn is_announced(config: &Config, pool: &Pool) -> bool {
    let covers = |pools: &[crate::names::PoolName]| pools.is_empty() || pools.contains(&pool.name);
    config.l2.iter().any(|l2| covers(&l2.pools)) || config.bgp.advertisements.iter().any(|it| covers(&it.pools))
}
