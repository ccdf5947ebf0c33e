//! What a running agent says of addresses on the link: the JSON behind `crier l2`. Floor 3.
//! As in `report`, fields are only ever added. The loop hands out an [`L2Snapshot`]; the rank lists are worked out from it
//! outside of the loop, by the same ranking that the plan decides by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use imbl::OrdMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::status::SCHEMA_VERSION;
use crate::claim::ConflictKind;
use crate::clock;
use crate::config::Config;
use crate::names::{InterfaceName, NodeName, ObjectKey, PoolName};
use crate::plan::Planner;
use crate::plan::context::Context;
use crate::plan::decision::{Announcement, Decision};
use crate::plan::placement::{Cause, Move, PastConflict, Placement};
use crate::plan::ranking::{RankedNode, Ranking, Score, covering};
use crate::plan::slice::L2Slice;
use crate::reason::Reason;
use crate::world::World;

/// All that the report is made of, as it stood at one moment.
#[derive(Debug, Clone)]
pub struct L2Snapshot {
    node: NodeName,
    config: Arc<Config>,
    context: Arc<Context>,
    world: World,
    decisions: OrdMap<ObjectKey, Arc<Decision>>,
    placements: OrdMap<IpAddr, Arc<Placement>>,
    answered: L2Slice,
    now: Instant,
    wall: SystemTime,
}

/// `crier l2`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct L2Report {
    pub schema_version: u32,
    /// The node that says it.
    pub node: NodeName,
    pub addresses: Vec<AddressReport>,
}

/// One address, as this node's plan has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddressReport {
    pub address: IpAddr,
    pub pool: PoolName,
    pub services: Vec<ObjectKey>,
    /// `None` where no node answers for it.
    pub owner: Option<NodeName>,
    /// The hardware addresses of the owner's ends of the links, as far as this node knows them.
    pub owner_macs: Vec<String>,
    /// This node answers for it.
    pub announced: bool,
    pub reason: Reason,
    /// The reason in words.
    pub summary: String,
    /// Where this node answers for it, or asks whether it may.
    pub interfaces: Vec<InterfaceName>,
    /// Since when the owner has it, or nobody does.
    pub since: Option<Timestamp>,
    /// This node saw it begin. Else it was so when this node began to look, and may be so for longer.
    pub since_is_exact: bool,
    /// `None` where the owner did not change since this node began to look.
    pub last_move: Option<MoveReport>,
    pub last_conflict: Option<LastConflictReport>,
    /// Every node: those that may answer by rank, the best in front, then those that may not.
    pub nodes: Vec<RankReport>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveReport {
    pub from: Option<NodeName>,
    pub to: Option<NodeName>,
    pub at: Option<Timestamp>,
    /// The word for machines.
    pub cause: String,
    /// How long the owner before had been silent, where that is the cause.
    pub silent_millis: Option<u64>,
    /// The cause in words.
    pub summary: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastConflictReport {
    pub link: InterfaceName,
    pub mac: String,
    /// The node whose hardware address that is, if it is one that is heard.
    pub node: Option<NodeName>,
    pub kind: ConflictKind,
    pub since: Option<Timestamp>,
    /// `None` while it lasts.
    pub over: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RankReport {
    pub node: NodeName,
    /// 1 is the best, and so the owner unless nobody may be; `None` for a node that may not answer.
    pub rank: Option<usize>,
    /// The sum of the weights of the preferences that match.
    pub weight: Option<u32>,
    /// It has the address already and keeps it: `sticky`.
    pub keeps: bool,
    /// Why it may not answer.
    pub reason: Option<Reason>,
    /// The reason in words.
    pub summary: Option<String>,
}

/// The address is none that this node's plan has on a link.
#[derive(Debug, thiserror::Error)]
pub enum UnknownAddress {
    #[error("no Service has the address {address}")]
    Free { address: IpAddr },
    #[error("{address} of {service} is not announced on any link: {reason}")]
    NotOnLink { address: IpAddr, service: ObjectKey, reason: Reason },
}

impl L2Snapshot {
    pub fn of(planner: &Planner, config: &Arc<Config>, node: &NodeName) -> L2Snapshot {
        let plan = planner.plan();
        L2Snapshot {
            node: node.clone(),
            config: config.clone(),
            context: planner.context().clone(),
            world: planner.world().clone(),
            decisions: plan.decisions.clone(),
            placements: plan.placements.clone(),
            answered: plan.l2.clone(),
            now: clock::now(),
            wall: clock::wall(),
        }
    }

    /// All addresses in their order, or the one that is asked for.
    pub fn report(&self, wanted: Option<IpAddr>) -> Result<L2Report, UnknownAddress> {
        let mut addresses: BTreeMap<IpAddr, AddressReport> = BTreeMap::new();
        let mut elsewhere = None;
        for (key, decision) in &self.decisions {
            for announcement in &decision.announcements {
                let address = announcement.address;
                if wanted.is_some_and(|wanted| wanted != address) {
                    continue;
                }
                let Some(placement) = self.placements.get(&address) else {
                    elsewhere = Some((key, &announcement.l2.reason));
                    continue;
                };
                match addresses.get_mut(&address) {
                    Some(known) => known.services.push(key.clone()),
                    None => drop(addresses.insert(address, self.address(key, decision, announcement, placement))),
                }
            }
        }
        match (wanted, elsewhere) {
            (Some(address), Some((service, reason))) if addresses.is_empty() => {
                Err(UnknownAddress::NotOnLink { address, service: service.clone(), reason: reason.clone() })
            }
            (Some(address), None) if addresses.is_empty() => Err(UnknownAddress::Free { address }),
            (Some(_) | None, _) => Ok(L2Report {
                schema_version: SCHEMA_VERSION,
                node: self.node.clone(),
                addresses: addresses.into_values().collect(),
            }),
        }
    }

    fn address(
        &self,
        key: &ObjectKey,
        decision: &Decision,
        announcement: &Announcement,
        placement: &Placement,
    ) -> AddressReport {
        let Announcement { address, pool, l2, bgp: _ } = announcement;
        let Placement { owner, since, witnessed, last_move, last_conflict } = placement;
        let interfaces = self.answered.addresses.get(address).map(|links| links.iter().cloned().collect());
        // The first address ranks the nodes for all addresses of a Service.
        let rank_by = decision.announcements.first().map_or(*address, |first| first.address);
        AddressReport {
            address: *address,
            pool: pool.clone(),
            services: vec![key.clone()],
            owner_macs: owner.as_ref().map(|owner| self.macs(owner, *address)).unwrap_or_default(),
            owner: owner.clone(),
            announced: l2.announced,
            summary: l2.reason.to_string(),
            reason: l2.reason.clone(),
            interfaces: interfaces.unwrap_or_default(),
            since: self.timestamp(*since),
            since_is_exact: *witnessed,
            last_move: last_move.as_ref().map(|it| self.moved(it)),
            last_conflict: last_conflict.as_ref().map(|it| self.conflict(it)),
            nodes: self.nodes(key, pool, rank_by),
        }
    }

    fn nodes(&self, key: &ObjectKey, pool: &PoolName, rank_by: IpAddr) -> Vec<RankReport> {
        let Some(service) = self.world.services.get(key) else { return Vec::new() };
        let endpoints = self.world.endpoints(key);
        let covering = covering(&self.config, &self.context, pool);
        let ranking = Ranking::of((service, &endpoints), &covering, &self.node, &self.answered, rank_by);
        let report = |(place, RankedNode { node, score }): (usize, RankedNode)| match score {
            Ok(Score { weight, keeps }) => {
                RankReport { node, rank: Some(place + 1), weight: Some(weight), keeps, reason: None, summary: None }
            }
            Err(reason) => {
                let summary = Some(reason.to_string());
                RankReport { node, rank: None, weight: None, keeps: false, reason: Some(reason), summary }
            }
        };
        ranking.nodes().into_iter().enumerate().map(report).collect()
    }

    fn macs(&self, owner: &NodeName, address: IpAddr) -> Vec<String> {
        let macs: Vec<String> = if *owner == self.node {
            let here = self.answered.addresses.get(&address);
            let links = self.world.links.values().filter(|link| here.is_some_and(|here| here.contains(&link.name)));
            links.filter_map(|link| link.mac).map(|mac| mac.to_string()).collect()
        } else {
            let members = self.world.rosters.values().filter_map(|roster| roster.members.get(owner));
            members.map(|member| member.mac.to_string()).collect()
        };
        macs
    }

    fn moved(&self, it: &Move) -> MoveReport {
        let Move { from, to, at, cause } = it;
        let silent_millis = match cause {
            Cause::OwnerSilent { after } => u64::try_from(after.as_millis()).ok(),
            Cause::Learned
            | Cause::FirstUse
            | Cause::OwnerRestarted
            | Cause::BetterNode
            | Cause::OwnerRefused { reason: _ } => None,
        };
        MoveReport {
            from: from.clone(),
            to: to.clone(),
            at: self.timestamp(*at),
            cause: cause.code(),
            silent_millis,
            summary: cause.to_string(),
        }
    }

    fn conflict(&self, it: &PastConflict) -> LastConflictReport {
        let PastConflict { link, conflict, over } = it;
        LastConflictReport {
            link: link.clone(),
            mac: conflict.mac.to_string(),
            node: self.answered.members.get(&conflict.mac).cloned(),
            kind: conflict.kind,
            since: Timestamp::try_from(conflict.since).ok(),
            over: over.and_then(|over| self.timestamp(over)),
        }
    }

    /// When a moment of the plan was, by the clock on the wall as it is now.
    fn timestamp(&self, at: Instant) -> Option<Timestamp> {
        let ago = self.now.saturating_duration_since(at);
        self.wall.checked_sub(ago).and_then(|at| Timestamp::try_from(at).ok())
    }
}
