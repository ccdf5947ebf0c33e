//! What a running agent says of addresses on the link: the JSON behind `crier l2`. Floor 1.
//! The ranks are worked out by the same ranking that the plan decides by.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, Snapshot};
use crate::address::Family;
use crate::claim::{Answerer, ConflictKind};
use crate::names::{InterfaceName, NodeName, ObjectKey, PoolName};
use crate::plan::decision::{Announcement, Decision, L2Verdict};
use crate::plan::placement::{Cause, Move, PastConflict, Placement};
use crate::plan::ranking::{RankedNode, Ranking, Score, Wishes, covering};
use crate::plan::verdict::shared;
use crate::reason::Reason;
use crate::roster::{Member, Stage};
use crate::world::{Endpoints, Pulses};

/// Which address is asked for: all of them, or one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressFilter {
    pub address: Option<IpAddr>,
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
    /// Why the plan has it so. `announced` with the field `announced` false: this node still asks the link.
    pub reason: Reason,
    /// The same in words.
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
    /// It has an endpoint of the Service and is preferred for that: `prefer-endpoints`.
    #[serde(default)]
    pub near: bool,
    /// An operator chose it: `crier move`, or the annotation `crier.dev/node`.
    #[serde(default)]
    pub chosen: bool,
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

/// The view: all addresses in their order, or the one that is asked for.
pub fn l2(snapshot: &Snapshot, filter: &AddressFilter) -> Result<L2Report, UnknownAddress> {
    let wanted = filter.address;
    let mut addresses: BTreeMap<IpAddr, Vec<Tenant<'_>>> = BTreeMap::new();
    let mut elsewhere = None;
    for (key, decision) in &snapshot.plan.decisions {
        for announcement in &decision.announcements {
            let address = announcement.address;
            if wanted.is_some_and(|wanted| wanted != address) {
                continue;
            }
            match snapshot.plan.placements.contains_key(&address) {
                true => addresses.entry(address).or_default().push((key, decision, announcement)),
                false => elsewhere = Some((key, &announcement.l2.reason)),
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
            node: snapshot.node.clone(),
            addresses: addresses.values().filter_map(|tenants| address_report(snapshot, tenants)).collect(),
        }),
    }
}

/// A Service of an address, with what was decided about the two.
type Tenant<'a> = (&'a ObjectKey, &'a Decision, &'a Announcement);

/// Of an address that this node has yet to answer for.
const PROBING: &str = "this node asks the link whether the address is free, and answers for it then";

fn address_report(snapshot: &Snapshot, tenants: &[Tenant<'_>]) -> Option<AddressReport> {
    // Of Services that share it, one that has endpoints tells how it stands.
    let telling = tenants.iter().find(|(.., it)| it.l2.reason != Reason::NoEndpoints);
    let (.., Announcement { address, pool, l2, bgp: _ }) = telling.or(tenants.first())?;
    let Placement { owner, since, witnessed, last_move, last_conflict } = &**snapshot.plan.placements.get(address)?;
    // The plan says what this node is to do; that it answers, the responder says.
    let answers = l2.announced && snapshot.world.answering.contains_key(address);
    let summary = match l2.reason {
        Reason::Announced if !answers => PROBING.to_owned(),
        _ => l2.reason.to_string(),
    };
    let owner = match &l2.reason {
        // This node answers for nothing, and is told of the others all the same.
        Reason::NoSocket { .. } => told_by_pulses(snapshot, *address),
        // Where it hears nobody, who is first in rank need not answer.
        reason if reason.is_of_own_link() => owner.as_ref().filter(|owner| **owner == snapshot.node),
        _ => owner.as_ref(),
    };
    let shown = told_by_link(snapshot, *address, l2);
    let answerer = shown.as_ref().map(|(answerer, _)| *answerer);
    // What the plan knows is of the node that is ranked first.
    let is_of_plan = answerer.is_none_or(|it| it.node.as_ref() == owner);
    let (owner, owner_macs) = match answerer {
        Some(it) => (it.node.as_ref(), vec![it.mac.to_string()]),
        None => (owner, owner.map(|owner| macs(snapshot, owner, *address)).unwrap_or_default()),
    };
    let (reason, summary) = match shown {
        Some((_, reason)) => (reason.clone(), reason.to_string()),
        None => (l2.reason.clone(), summary),
    };
    let interfaces = snapshot.plan.l2.addresses.get(address).map(|links| links.iter().cloned().collect());
    Some(AddressReport {
        address: *address,
        pool: pool.clone(),
        services: tenants.iter().map(|(key, ..)| (*key).clone()).collect(),
        owner_macs,
        owner: owner.cloned(),
        announced: answers,
        summary,
        reason,
        interfaces: interfaces.unwrap_or_default(),
        since: snapshot.timestamp(*since).filter(|_| is_of_plan),
        since_is_exact: *witnessed,
        last_move: last_move.as_ref().filter(|_| is_of_plan).map(|it| move_report(snapshot, it)),
        last_conflict: last_conflict.as_ref().map(|it| conflict_report(snapshot, it)),
        nodes: ranks(snapshot, tenants, *address, pool),
    })
}

/// The node whose pulses say that it answers for the address.
fn told_by_pulses(snapshot: &Snapshot, address: IpAddr) -> Option<&NodeName> {
    let mut members = snapshot.world.rosters.values().flat_map(|roster| &roster.members);
    let holds = |member: &Member| member.holdings.get(&address).is_some_and(|it| it.stage != Stage::Asks);
    members.find(|(_, member)| holds(member)).map(|(name, _)| name)
}

/// Without pulses the link alone tells who answers: the plan knows no more than which node is ranked first. The station that answers for an
/// address in place of this node, and why this node does not; `None` where nothing of it is known.
pub(super) fn told_by_link<'a>(
    snapshot: &'a Snapshot,
    address: IpAddr,
    l2: &L2Verdict,
) -> Option<(&'a Answerer, Reason)> {
    let world = &snapshot.world;
    if world.pulses != Pulses::Off || world.answering.contains_key(&address) {
        return None;
    }
    let answerer = world.answerers.of(address)?;
    let reason = match (&l2.reason, &answerer.node) {
        (Reason::OwnedBy { owner: _ }, Some(node)) => Reason::OwnedBy { owner: node.clone() },
        (Reason::OwnedBy { owner }, None) => Reason::AnsweredByStation { mac: answerer.mac, first: owner.clone() },
        (reason, _) => reason.clone(),
    };
    Some((answerer, reason))
}

fn ranks(snapshot: &Snapshot, tenants: &[Tenant<'_>], address: IpAddr, pool: &PoolName) -> Vec<RankReport> {
    let service = tenants.iter().find_map(|(key, ..)| snapshot.world.services.get(*key));
    let Some(service) = service else { return Vec::new() };
    let none = Endpoints::default();
    let endpoints =
        shared::joint(tenants.iter().map(|(key, ..)| snapshot.world.endpoints(key, Family::of(address))), &none);
    let announced = |decision: &Decision| decision.announcements.iter().map(|it| it.address).collect();
    let rank_by = shared::first_of_most(tenants.iter().map(|(key, decision, _)| (*key, announced(decision))));
    let rank_by = rank_by.unwrap_or(address);
    let services = tenants.iter().filter_map(|(key, ..)| snapshot.world.services.get(*key)).map(|service| &**service);
    let covering = covering(&snapshot.config, &snapshot.context, (pool, address), services.clone());
    let holder = snapshot.plan.placements.get(&rank_by).and_then(|placement| placement.owner.as_ref());
    let ranking = Ranking::of(
        (service, &endpoints),
        (&covering, Wishes::of(services, &snapshot.world)),
        &snapshot.node,
        holder,
        (address, rank_by),
    );
    let report = |(place, RankedNode { node, score }): (usize, RankedNode)| match score {
        Ok(Score { weight, near, chosen, keeps }) => RankReport {
            node,
            rank: Some(place + 1),
            weight: Some(weight),
            near,
            chosen,
            keeps,
            reason: None,
            summary: None,
        },
        Err(reason) => RankReport {
            node,
            rank: None,
            weight: None,
            near: false,
            chosen: false,
            keeps: false,
            summary: Some(reason.to_string()),
            reason: Some(reason),
        },
    };
    ranking.nodes().into_iter().enumerate().map(report).collect()
}

fn macs(snapshot: &Snapshot, owner: &NodeName, address: IpAddr) -> Vec<String> {
    let macs: Vec<String> = if *owner == snapshot.node {
        let here = snapshot.plan.l2.addresses.get(&address);
        let links = snapshot.world.links.values().filter(|link| here.is_some_and(|here| here.contains(&link.name)));
        links.filter_map(|link| link.mac).map(|mac| mac.to_string()).collect()
    } else {
        let members = snapshot.world.rosters.values().filter_map(|roster| roster.members.get(owner));
        members.map(|member| member.mac.to_string()).collect()
    };
    macs
}

fn move_report(snapshot: &Snapshot, it: &Move) -> MoveReport {
    let Move { from, to, at, cause } = it;
    let silent_millis = match cause {
        Cause::OwnerSilent { after } => u64::try_from(after.as_millis()).ok(),
        Cause::Learned
        | Cause::FirstUse
        | Cause::OwnerNotAnswering
        | Cause::OwnerRestarted
        | Cause::BetterNode
        | Cause::OwnerRefused { reason: _ } => None,
    };
    MoveReport {
        from: from.clone(),
        to: to.clone(),
        at: snapshot.timestamp(*at),
        cause: cause.code(),
        silent_millis,
        summary: cause.to_string(),
    }
}

fn conflict_report(snapshot: &Snapshot, it: &PastConflict) -> LastConflictReport {
    let PastConflict { link, conflict, over } = it;
    LastConflictReport {
        link: link.clone(),
        mac: conflict.mac.to_string(),
        node: snapshot.plan.l2.stations.anywhere.get(&conflict.mac).map(|station| station.node.clone()),
        kind: conflict.kind,
        since: Timestamp::try_from(conflict.since).ok(),
        over: over.and_then(|over| snapshot.timestamp(over)),
    }
}
