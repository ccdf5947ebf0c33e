//! Which node answers for the addresses of a Service on the link, and on which links this node does.
//! Floor 1. `plan::ranking` orders the nodes; here it is decided who owns an address, and named why.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Announceable, Inputs, data_path};
use crate::claim::ConflictKind;
use crate::config::L2;
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::context::L2Context;
use crate::plan::context::l2::describe_interfaces;
use crate::plan::decision::{Decision, Held, L2Verdict};
use crate::plan::placement::Cause;
use crate::plan::ranking::{Ranking, covering};
use crate::reason::Reason;
use crate::world::{Endpoints, TrafficPolicy};

/// What this node does on the link about the addresses of a Service.
pub struct Answer {
    /// One for each address, in their order.
    pub verdicts: Vec<L2Verdict>,
    pub work: L2Work,
    /// Why addresses have another owner than before.
    pub causes: Vec<(IpAddr, Cause)>,
}

/// The part of the work that is done on the link.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct L2Work {
    /// The addresses that this node answers for, each with the links.
    pub answers: Vec<(IpAddr, Arc<BTreeSet<InterfaceName>>)>,
    /// Of the addresses above, those that this node keeps when a better node comes back.
    pub kept: Vec<IpAddr>,
    /// The nodes that own an address of the Service, this one among them.
    pub owners: BTreeSet<NodeName>,
    /// No node may answer for some address of the Service, although it has endpoints.
    pub unowned: bool,
}

pub fn judge(inputs: &Inputs<'_>, about: &Announceable<'_>) -> Answer {
    let mut answer = Answer { verdicts: Vec::new(), work: L2Work::default(), causes: Vec::new() };
    // All addresses of a Service move together: its first one ranks the nodes for all of them.
    let Some(rank_by) = about.held.first().map(|held| held.address) else { return answer };
    for held in &about.held {
        let Judged { verdict, answered_on, sticky, cause } = judge_address(inputs, about, held, rank_by);
        answer.work.owners.extend(verdict.owner.clone());
        let no_node = !matches!(verdict.reason, Reason::NoEndpoints | Reason::NoL2ForPool { .. });
        answer.work.unowned |= verdict.owner.is_none() && no_node;
        answer.work.kept.extend(answered_on.is_some().then_some(held.address).filter(|_| sticky));
        answer.work.answers.extend(answered_on.map(|links| (held.address, links)));
        answer.causes.extend(cause.map(|cause| (held.address, cause)));
        answer.verdicts.push(verdict);
    }
    answer
}

/// Whether another node than its owner is the best for an address of the Service now: then the Service is to be judged again.
pub fn is_outranked(inputs: &Inputs<'_>, key: &ObjectKey, decision: &Decision) -> bool {
    let Some(service) = inputs.world.services.get(key) else { return false };
    let Some(rank_by) = decision.announcements.first().map(|it| it.address) else { return false };
    let endpoints = match service.external_traffic_policy {
        TrafficPolicy::Local => inputs.world.endpoints(key),
        // Which nodes have endpoints counts for nothing.
        TrafficPolicy::Cluster => Endpoints::default(),
    };
    let answered_here = inputs.answered.contains_key(&rank_by);
    decision.announcements.iter().any(|announcement| {
        let Some(owner) = &announcement.l2.owner else { return false };
        let covering = covering(inputs.config, inputs.context, &announcement.pool);
        let ranking = Ranking::of((service, &endpoints), &covering, inputs.me, answered_here, rank_by);
        ranking.winner(inputs.tickets) != Ok(owner)
    })
}

/// What is decided about one address.
struct Judged {
    verdict: L2Verdict,
    /// Where this node answers for it, in a conflict too: the responder asks again until the conflict is over.
    answered_on: Option<Arc<BTreeSet<InterfaceName>>>,
    /// The owner keeps it when a better node comes back.
    sticky: bool,
    cause: Option<Cause>,
}

fn judge_address(inputs: &Inputs<'_>, about: &Announceable<'_>, held: &Held, rank_by: IpAddr) -> Judged {
    let covering = covering(inputs.config, inputs.context, &held.pool);
    if covering.is_empty() {
        let verdict = L2Verdict::refused(Reason::NoL2ForPool { pool: held.pool.clone() });
        return Judged { verdict, answered_on: None, sticky: false, cause: None };
    }
    let Announceable { service, endpoints, .. } = about;
    let ranking =
        Ranking::of((service, endpoints), &covering, inputs.me, inputs.answered.contains_key(&rank_by), rank_by);
    let best = if endpoints.is_empty() { Err(Reason::NoEndpoints) } else { ranking.winner(inputs.tickets) };
    let (verdict, answered_on) = match best {
        Err(reason) => (L2Verdict::refused(reason), None),
        Ok(owner) if owner != inputs.me => {
            let reason = Reason::OwnedBy { owner: owner.clone() };
            (L2Verdict { owner: Some(owner.clone()), announced: false, reason }, None)
        }
        Ok(_) => judge_own(inputs, &covering, held.address, rank_by),
    };
    let cause = cause(inputs, held.address, &verdict, &ranking);
    Judged { verdict, answered_on, sticky: covering.iter().any(|(l2, _)| l2.sticky), cause }
}

/// Of an address that this node owns: whether it answers, and where.
fn judge_own(
    inputs: &Inputs<'_>,
    covering: &[(&L2, &L2Context)],
    address: IpAddr,
    rank_by: IpAddr,
) -> (L2Verdict, Option<Arc<BTreeSet<InterfaceName>>>) {
    let owned = |announced, reason| L2Verdict { owner: Some(inputs.me.clone()), announced, reason };
    // Where pulses are heard such a node is no owner; without them the others cannot know.
    if let Some(reason) = data_path::not_seen(inputs) {
        return (owned(false, reason), None);
    }
    let mine = covering.iter().filter(|(_, it)| it.electorate_for(rank_by).candidate(inputs.me).is_some());
    let mut interfaces: Vec<_> = mine.map(|(_, context)| context.interfaces_for(address)).collect();
    let interfaces = match interfaces.len() {
        1 => interfaces.swap_remove(0),
        _ => Arc::new(interfaces.iter().flat_map(|set| set.iter().cloned()).collect::<BTreeSet<_>>()),
    };
    if interfaces.is_empty() {
        if covering.iter().any(|(_, context)| !context.interfaces.is_empty()) {
            return (owned(false, Reason::NoLinkInSubnet { address }), None);
        }
        let wanted = covering.iter().map(|(l2, _)| describe_interfaces(l2)).collect::<Vec<_>>().join("; ");
        return (owned(false, Reason::NoInterface { wanted }), None);
    }
    let verdict = match conflict(inputs, address) {
        // Where the address is served on several links, it may be free on another link.
        Some((kind, reason)) => {
            owned(kind == ConflictKind::Contested || is_free_on_any(inputs, address, &interfaces), reason)
        }
        None => owned(true, Reason::Announced),
    };
    (verdict, Some(interfaces))
}

/// Why the address has another owner than before; `None` where it has the same.
fn cause(inputs: &Inputs<'_>, address: IpAddr, verdict: &L2Verdict, ranking: &Ranking<'_>) -> Option<Cause> {
    let before = inputs.placements.get(&address);
    if before.is_some_and(|before| before.owner == verdict.owner) {
        return None;
    }
    // Who listens learns one by one who is there: it sees no moves.
    let listens = || ranking.refusal(inputs.me) == Some(Reason::NodeListening);
    // And when it has listened, others may have had it long since.
    let found_so = before.map_or(inputs.first_turn, |it| !it.witnessed && verdict.owner.as_ref() != Some(inputs.me));
    Some(match before.and_then(|before| before.owner.as_ref()) {
        _ if listens() => Cause::Learned,
        None if found_so => Cause::Learned,
        None => Cause::FirstUse,
        // Not the one who had it: nobody may have it.
        Some(_) if verdict.reason == Reason::NoEndpoints => Cause::OwnerRefused { reason: Reason::NoEndpoints },
        Some(owner) => {
            let rosters = inputs.world.rosters.values();
            let silence = rosters.filter_map(|roster| roster.silent.get(owner)).max().copied();
            Cause::of_refusal(ranking.refusal(owner), silence)
        }
    })
}

/// What is in the way of an address on a link of this node: the worst of it.
fn conflict(inputs: &Inputs<'_>, address: IpAddr) -> Option<(ConflictKind, Reason)> {
    let on_links = inputs.world.conflicts.get(&address)?;
    let (link, conflict) = on_links.iter().min_by_key(|(_, conflict)| conflict.kind == ConflictKind::Contested)?;
    let (link, mac) = (link.clone(), conflict.mac);
    let reason = match conflict.kind {
        ConflictKind::Occupied => Reason::AddressOccupied { address, link, mac },
        ConflictKind::AliveUnheard => Reason::OwnerStillAnswers { address, link, mac },
        ConflictKind::Contested => Reason::AddressContested { address, link, mac },
    };
    Some((conflict.kind, reason))
}

fn is_free_on_any(inputs: &Inputs<'_>, address: IpAddr, interfaces: &BTreeSet<InterfaceName>) -> bool {
    let conflicts = inputs.world.conflicts.get(&address);
    let on = |link: &InterfaceName| conflicts.and_then(|on_links| on_links.get(link));
    interfaces.iter().any(|link| on(link).is_none_or(|it| it.kind == ConflictKind::Contested))
}

impl L2Verdict {
    /// No node answers.
    fn refused(reason: Reason) -> L2Verdict {
        L2Verdict { owner: None, announced: false, reason }
    }
}
