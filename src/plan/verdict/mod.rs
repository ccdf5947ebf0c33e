//! The verdict about one Service: its addresses, and what this node does about each. The one place that decides, and so
//! the one place that names reasons.
//! Floor 1. One file for each question. Each takes the [`Inputs`] and the Service, and returns its part of the verdict and
//! its part of the work. [`judge`] asks them in turn; it changes nothing, the planner keeps what it returns.

pub mod allocation;
pub mod bgp;
mod data_path;
pub mod egress;
pub mod l2;
mod renumbered;
pub mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;

pub use self::allocation::Wish;
pub use self::bgp::Contribution;
pub use self::egress::EgressWork;
pub use self::l2::L2Work;
use crate::address::Family;
use crate::config::Config;
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::address_book::AddressBook;
use crate::plan::context::Context;
use crate::plan::decision::{Announcement, Decision, Held};
use crate::plan::holder::History;
use crate::plan::holder_memory::HolderMemory;
use crate::plan::overlaps::Overlap;
use crate::plan::placement::{Cause, Placement};
use crate::plan::restraints::Restraints;
use crate::plan::slice::Standby;
use crate::plan::tickets::Tickets;
use crate::reason::Reason;
use crate::roster::Sessions;
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
    /// Those that it would answer for if nobody did.
    pub standbys: &'a OrdMap<IpAddr, Standby>,
    /// Who has which address on the link as of the last turn.
    pub placements: &'a OrdMap<IpAddr, Arc<Placement>>,
    /// What went before with each address on the link.
    pub holders: &'a HolderMemory,
    /// What holds a change of a Service's addresses back.
    pub restraints: &'a Restraints,
    /// How the BGP sessions of this node stand, as the others hear it.
    pub sessions: Option<Sessions>,
    /// Nothing was judged before.
    pub first_turn: bool,
    pub now: Instant,
}

/// A Service that is ours, with the addresses that may be announced.
pub struct Announceable<'a> {
    pub key: &'a ObjectKey,
    pub service: &'a Service,
    /// Of IPv4, and of IPv6.
    pub endpoints: [&'a Endpoints; 2],
    pub held: Vec<&'a Held>,
}

impl<'a> Announceable<'a> {
    /// The endpoints that serve an address: those of its family.
    pub fn endpoints_of(&self, address: IpAddr) -> &'a Endpoints {
        let [v4, v6] = self.endpoints;
        if address.is_ipv4() { v4 } else { v6 }
    }
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
    /// What the status should say; `None` where it is not ours to write.
    pub status: Option<Wish>,
    /// An address is to be taken from the Service against its will, as soon as that may be.
    pub goes: bool,
    /// Which address the Service loses by what the status should say, and why.
    pub lost: Option<Reason>,
    /// The status shows addresses that are to go, and beside them those that stay.
    pub overlap: Option<Overlap>,
}

/// The part of the slices that a Service accounts for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    pub l2: L2Work,
    pub routes: Vec<Contribution>,
    pub bind: Vec<(IpAddr, InterfaceName)>,
    pub egress: EgressWork,
}

pub fn judge(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Verdict {
    let allocation::Answer { allocation, assigned, status, goes, lost, overlap } =
        allocation::judge(inputs, key, service);
    // What the API server has not confirmed is not announced: the address might still be given to another Service. What the
    // status shows is announced until it shows something else.
    let ours = !matches!(allocation.reason, Reason::NotLoadBalancer | Reason::OtherClass { .. });
    let shown: Vec<Held> = match inputs.config.is_standalone() {
        true => allocation.held.clone(),
        false if ours => allocation::shown(inputs, key, service),
        false => Vec::new(),
    };
    let held: Vec<&Held> = shown.iter().collect();
    if held.is_empty() {
        // Its pods are held before it has an address, so that none is too early.
        let (egress, held_pods) = match ours {
            true => egress::judge(inputs, key, service, &[], &[]),
            false => (None, EgressWork::default()),
        };
        let decision = Decision { allocation, announcements: Vec::new(), egress };
        let (causes, histories) = (Vec::new(), Vec::new());
        let work = Work { egress: held_pods, ..Work::default() };
        return Verdict { decision, work, assigned, causes, histories, status, goes, lost, overlap };
    }
    let [v4, v6] = &Family::BOTH.map(|family| inputs.world.endpoints(key, family));
    let about = Announceable { key, service, endpoints: [v4, v6], held };
    let l2::Answer { verdicts: on_link, work: l2, causes, histories } = l2::judge(inputs, &about);
    let owners = egress::owners(inputs, &about, &on_link);
    let bgp::Answer { verdicts: over_bgp, work: routes } = bgp::judge(inputs, &about, owners.as_deref());
    let both = about.held.iter().zip(on_link).zip(over_bgp);
    let announcements: Vec<Announcement> = both
        .map(|((held, l2), bgp)| Announcement { address: held.address, pool: held.pool.clone(), l2, bgp })
        .collect();
    let (egress, pods) = egress::judge(inputs, key, service, owners.as_deref().unwrap_or_default(), &announcements);
    let work = Work { l2, routes, bind: binds(inputs, &announcements), egress: pods };
    let decision = Decision { allocation, announcements, egress };
    Verdict { decision, work, assigned, causes, histories, status, goes, lost, overlap }
}

/// The announced addresses that this host is to accept on a link, because their pools say so. Over a restart neighbours go on
/// sending here.
fn binds(inputs: &Inputs<'_>, announcements: &[Announcement]) -> Vec<(IpAddr, InterfaceName)> {
    let pools = &inputs.config.pools;
    let pools: BTreeMap<_, _> = pools.iter().filter_map(|pool| Some((&pool.name, pool.bind.as_ref()?))).collect();
    let is_kept = |address| inputs.holders.kept().contains(&address);
    let announced =
        announcements.iter().filter(|it| it.l2.announced || !it.bgp.peers.is_empty() || is_kept(it.address));
    announced.filter_map(|it| Some((it.address, (*pools.get(&it.pool)?).clone()))).collect()
}
