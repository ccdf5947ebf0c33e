//! What is heard of one address on the links where this node would answer for it. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::Inputs;
use crate::address::MacAddress;
use crate::claim::ConflictKind;
use crate::config::L2;
use crate::names::{InterfaceName, NodeName};
use crate::plan::context::L2Context;
use crate::plan::elect;
use crate::plan::holder::{Bid, Bidder, Candidates, Grade, Holder, LastHolder};
use crate::plan::ranking::Ranking;
use crate::roster::{Eligibility, Holding, L2Number, Member, NodeTicket, Roster, Stage};
use crate::world::ApiServer;

/// The rosters of links where this node would answer for an address, by the indices of the links.
pub type Rosters<'a> = BTreeMap<u32, &'a Roster>;

pub type Speakers<'a> = BTreeMap<&'a NodeName, &'a Member>;

/// The links of these indices.
pub fn names<'a>(inputs: &Inputs<'_>, indices: impl Iterator<Item = &'a u32>) -> BTreeSet<InterfaceName> {
    indices.filter_map(|index| inputs.world.links.get(index)).map(|link| link.name.clone()).collect()
}

/// Links where this node takes no IPv6 are left out while there are others: what is held there is held without it.
pub fn rosters<'a>(inputs: &Inputs<'a>, covering: &[(&L2, &L2Context)], address: IpAddr) -> Rosters<'a> {
    let mut all: Rosters<'a> =
        covering.iter().flat_map(|(_, context)| context.rosters(address, inputs.world)).collect();
    let without_v6 = |index: &u32| is_without_v6(inputs, covering, *index);
    if address.is_ipv6() && !all.keys().all(without_v6) {
        all.retain(|index, _| !without_v6(index));
    }
    all
}

/// This node takes no IPv6 on the link.
pub fn is_without_v6(inputs: &Inputs<'_>, covering: &[(&L2, &L2Context)], index: u32) -> bool {
    let link = inputs.world.links.get(&index).map(|link| &link.name);
    link.is_some_and(|link| covering.iter().any(|(_, context)| context.without_v6().contains(link)))
}

/// Of the agents on these links, those that say something of the address; of one that says different things, that it answers. A cluster has
/// many more nodes than that. One without IPv6 on a link answers for no IPv6 address there, whatever it says.
pub fn speakers<'a>(inputs: &Inputs<'a>, near: &Rosters<'a>, address: IpAddr) -> Speakers<'a> {
    let mut speakers = Speakers::new();
    for roster in near.values() {
        let said = inputs.holders.speakers(address).filter_map(|node| roster.members.get_key_value(node));
        for (node, member) in said.filter(|(_, member)| !member.is_without_v6(address)) {
            let said = speakers.entry(node).or_insert(member);
            if !answers_for(said, address) {
                *said = member;
            }
        }
    }
    speakers
}

/// Who held the address last on these links.
pub fn last_there<'a>(there: &Rosters<'a>, address: IpAddr) -> LastHolder<'a> {
    let mut silent = there.values().flat_map(|roster| &roster.silent);
    let found = silent.find(|(_, it)| it.holdings.contains_key(&address));
    found.map_or(LastHolder::Unknown, |(node, it)| LastHolder::Silent { node, suspect: it.suspect })
}

/// Every page of what the agents on these links hold was heard, and none of them has yet to answer that it is no recording: an
/// agent that was frozen reads all at once that others said meanwhile, and one of them may have started anew.
pub fn knows_all(near: &Rosters<'_>) -> bool {
    let is_known = |roster: &&Roster| {
        roster.members.values().all(|member| member.holdings_known) && !roster.unproved.values().any(|it| it.new)
    };
    near.values().all(is_known)
}

/// A node that says that it answers for the address, and does not hear this one.
pub fn deaf_holder<'a>(near: &Rosters<'a>, address: IpAddr) -> Option<&'a NodeName> {
    let mut unproved = near.values().flat_map(|roster| &roster.unproved);
    unproved.find(|(_, it)| it.holdings.contains_key(&address)).map(|(node, _)| node)
}

/// A station that is no agent's, as far as is heard, claims the address that this node answers for.
pub fn is_contested_by_stranger(inputs: &Inputs<'_>, near: &Rosters<'_>, address: IpAddr) -> bool {
    let is_agent = |roster: &Roster, mac: MacAddress| {
        roster.members.values().any(|it| it.macs().any(|its| its == mac))
            || roster.silent.values().chain(roster.left.values()).any(|it| it.mac == mac)
            || roster.unproved.values().any(|it| it.mac == mac)
    };
    let claims = inputs.world.conflicts.get(&address).into_iter().flat_map(|on_links| on_links.values());
    let mut contested = claims.filter(|it| it.kind == ConflictKind::Contested);
    contested.any(|it| !near.values().any(|roster| is_agent(roster, it.mac)))
}

/// The other agents on these links.
fn members<'a>(near: &Rosters<'a>) -> BTreeMap<&'a NodeName, &'a Member> {
    near.values().rev().flat_map(|roster| &roster.members).collect()
}

fn holding(member: &Member, address: IpAddr) -> Option<Holding> {
    member.holdings.get(&address).copied()
}

/// The node says that it answers for the address.
pub fn answers_for(member: &Member, address: IpAddr) -> bool {
    holding(member, address).is_some_and(|it| it.stage.answers())
}

/// What the node says of the address, where it asks for it.
fn asking(member: &Member, address: IpAddr) -> Option<Holding> {
    holding(member, address).filter(|it| it.stage == Stage::Asks)
}

pub fn holders<'a>(
    inputs: &Inputs<'_>,
    ranking: &Ranking<'_>,
    members: &BTreeMap<&'a NodeName, &'a Member>,
    address: IpAddr,
) -> Vec<Holder<'a>> {
    let me = NodeTicket::of(inputs.me);
    let holder = |(node, member): (&&'a NodeName, &&'a Member)| {
        let holding = holding(member, address).filter(|it| it.stage.answers())?;
        // A holder with an eligibility that this version does not know keeps it only while no other node can serve.
        let grade = elect::grade(member.eligibility).unwrap_or(Grade::DataPathBad);
        Some(Holder {
            bidder: Bidder { node, bid: Bid { grade, weight: holding.weight } },
            grants_us: holding.stage == Stage::Grants { to: me },
            cannot_serve: ranking.cannot_serve(node),
            deaf: member.deaf,
            on_links: BTreeSet::new(),
        })
    };
    members.iter().filter_map(holder).collect()
}

pub fn askers<'a>(members: &BTreeMap<&'a NodeName, &'a Member>, address: IpAddr) -> Vec<Bidder<'a>> {
    // One that restarts takes nothing before it is back.
    let members = members.iter().filter(|(_, member)| !member.restarting);
    let asker = |(node, member): (&&'a NodeName, &&'a Member)| {
        let holding = asking(member, address)?;
        Some(Bidder { node, bid: Bid { grade: elect::grade(member.eligibility)?, weight: holding.weight } })
    };
    members.filter_map(asker).collect()
}

pub fn askers_know_more(inputs: &Inputs<'_>, members: &BTreeMap<&NodeName, &Member>, address: IpAddr) -> bool {
    matches!(inputs.world.api_server, ApiServer::Unreachable { .. })
        && members.values().any(|member| member.hears_api_server && asking(member, address).is_some())
}

/// The other nodes that could take the address; one that restarts takes nothing before it is back. Where no node is known to have held
/// it, nodes that still listen count too: agents that start together share the addresses at once, instead of moving them a moment later.
pub fn candidates<'a>(
    inputs: &Inputs<'_>,
    ranking: &'a Ranking<'_>,
    covering: &[(&L2, &L2Context)],
    near: &Rosters<'a>,
    last: LastHolder<'_>,
    address: IpAddr,
) -> Candidates<'a> {
    let members = members(near);
    let admitted = |node: &NodeName| {
        let card = members.get(node).map(|member| &member.card);
        card.is_none_or(|card| covering.iter().any(|(_, context)| context.admits(address, card)))
    };
    let mut known: Vec<Bidder<'a>> = ranking.others();
    if last == LastHolder::Unknown {
        let listening = members
            .iter()
            .filter(|(node, member)| member.eligibility == Eligibility::Listening && !ranking.cannot_serve(node));
        known.extend(listening.filter_map(|(node, member)| {
            let weights = covering.iter().filter_map(|(_, context)| context.weight_of(member));
            let weight = ranking.weighed(node, weights.reduce(u32::saturating_add)?);
            Some(Bidder { node, bid: Bid { grade: Grade::Eligible, weight } })
        }));
    }
    let is_deaf_to_v6 = |node: &NodeName| {
        let mut ends = near.values().filter_map(|roster| roster.members.get(node)).peekable();
        ends.peek().is_some() && ends.all(|member| member.is_without_v6(address))
    };
    let restarts = |node: &NodeName| members.get(node).is_some_and(|member| member.restarting);
    // Without a link of its own this node hears nobody, and others answer there all the same.
    let is_there = |node: &NodeName| near.is_empty() || members.contains_key(node);
    known.retain(|it| admitted(it.node) && !restarts(it.node) && is_there(it.node) && !is_deaf_to_v6(it.node));
    let is_unknown = |number: &L2Number| !inputs.context.l2.iter().any(|context| context.is_of(*number));
    let unsure = members.iter().filter(|(node, member)| {
        member.eligibility == Eligibility::Eligible
            && member.card.weights.keys().any(is_unknown)
            && !covering.iter().any(|(_, context)| context.is_of_other_crier(&member.card))
            && !covering.iter().any(|(_, context)| context.weight_of(member).is_some())
            && admitted(node)
            && !member.restarting
            && !ranking.cannot_serve(node)
    });
    Candidates { known, unsure: unsure.map(|(node, _)| *node).collect() }
}
