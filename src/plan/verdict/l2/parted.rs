//! Links of one address that go their own way: those where it is held by itself, because its holder is heard on others alone, and those
//! that its holder left to a rival. Floor 1.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::Inputs;
use super::heard::{Rosters, answers_for};
use crate::claim::Acquisition;
use crate::names::NodeName;
use crate::plan::holder::{Ceded, Holder};
use crate::roster::{Ends, LinkNumber, Member, Roster};

/// What became of the links of an address.
#[derive(Debug, Default)]
pub struct Parted<'a> {
    /// Those where it is held by itself.
    pub apart: Rosters<'a>,
    /// One more would be, if it were sure that this node hears those there that are.
    pub unsure: bool,
}

/// Those of the links that have lost the holder of the address, while it is heard on another: its cable is out there, or a switch cuts it
/// off. Clients there are answered by a node that is heard there.
///
/// A link where the holder has no IPv6 is without it, too, for an IPv6 address.
///
/// A link where the holder was never heard has not lost it: a switch may keep the nodes there from hearing each other at all. And where
/// nobody is heard any more, it may be this node that hears nothing. But what the nodes say of themselves counts: see [`is_off`].
pub fn apart<'a>(inputs: &Inputs<'a>, near: &Rosters<'a>, address: IpAddr) -> Parted<'a> {
    let mut parted = Parted::default();
    if near.len() < 2 {
        return parted;
    }
    for (index, roster) in near {
        let answers = |member: &Member| answers_for(member, address);
        let elsewhere = || near.iter().filter(move |(other, _)| *other != index).map(|(_, roster)| roster);
        let serves = |member: &Member| answers(member) && !member.is_without_v6(address);
        let is_holder = |node: &&NodeName| elsewhere().any(|it| it.members.get(*node).is_some_and(serves));
        let mut holders = inputs.holders.speakers(address).filter(is_holder).peekable();
        let is_gone = |node: &NodeName| {
            let is_heard = roster.members.contains_key(node) || roster.unproved.contains_key(node);
            let was_heard = || roster.silent.contains_key(node) || roster.left.contains_key(node);
            let is_lost = !is_heard && (was_heard() || is_off(inputs, *index, node));
            is_lost || roster.members.get(node).is_some_and(|member| member.is_without_v6(address))
        };
        if !roster.settled || holders.peek().is_none() || !holders.all(is_gone) {
            continue;
        }
        let may_be_here =
            |node: &NodeName| elsewhere().any(|it| it.members.contains_key(node)) && !is_off(inputs, *index, node);
        let hears_nobody = roster.members.is_empty() && elsewhere().flat_map(|it| it.members.keys()).any(may_be_here)
            || roster.silent.iter().any(|(node, departed)| departed.suspect && may_be_here(node));
        match hears_nobody {
            true => parted.unsure = true,
            false => drop(parted.apart.insert(*index, roster)),
        }
    }
    parted
}

/// By its own word the node serves nothing on the link: it is heard on others, by every link that it says it serves an `[[l2]]` on. So its
/// end of this one is down, gone, or was never there, and it is no fault of this node's that it hears nothing of it.
fn is_off(inputs: &Inputs<'_>, index: u32, node: &NodeName) -> bool {
    let elsewhere = inputs.world.rosters.iter().filter(|(other, _)| **other != index);
    let there: Vec<_> = elsewhere.filter_map(|(_, roster)| roster.members.get(node)).collect();
    // The very station that fell silent here is heard there: both links of this node lie on one wire, and its own end of this one is out.
    let here = inputs.world.rosters.get(&index);
    let was = here.and_then(|roster| roster.silent.get(node).or_else(|| roster.left.get(node)));
    if was.is_some_and(|was| there.iter().any(|member| member.macs().any(|mac| mac == was.mac))) {
        return false;
    }
    let said: Vec<_> = there.iter().map(|member| member.card.ends.as_ref()).collect();
    let heard: BTreeSet<LinkNumber> = said.iter().flatten().map(|ends| ends.this).collect();
    let all_heard = |ends: &Option<&Ends>| ends.is_some_and(|ends| ends.all.is_subset(&heard));
    !said.is_empty() && said.iter().all(all_heard)
}

/// Whether what this node left to a rival on some links is that one's still: it says so, on no other link, and this node goes on on one.
pub fn is_ceded(inputs: &Inputs<'_>, near: &Rosters<'_>, ceded: &Ceded, address: IpAddr) -> bool {
    let heard = |on_these: bool| {
        let there = near.iter().filter(move |(index, _)| ceded.links.contains(index) == on_these);
        there.filter_map(|(_, roster)| roster.members.get(&ceded.node))
    };
    let says = |on_these| heard(on_these).any(|member| answers_for(member, address));
    let rests = inputs.now < ceded.rest && heard(true).next().is_some();
    let goes_on = near.keys().any(|index| !ceded.links.contains(index) && answers_on(inputs, *index, address));
    goes_on && !says(false) && (says(true) || rests)
}

/// The links where this node goes on.
pub fn without<'a>(near: &Rosters<'a>, ceded: &Ceded) -> Rosters<'a> {
    near.iter().filter(|(index, _)| !ceded.links.contains(index)).map(|(index, roster)| (*index, *roster)).collect()
}

/// How this node takes an address on the links that it had left to a rival.
pub fn regained(inputs: &Inputs<'_>, ceded: &Ceded) -> Acquisition {
    let is_there = |index: &u32| inputs.world.rosters.get(index).is_some_and(|it| it.members.contains_key(&ceded.node));
    match ceded.links.iter().any(is_there) {
        true => Acquisition::HandOver,
        false => Acquisition::TakeOver { from: ceded.node.clone(), suspect: false },
    }
}

/// This node answers for the address on the link.
pub fn answers_on(inputs: &Inputs<'_>, index: u32, address: IpAddr) -> bool {
    let name = inputs.world.links.get(&index).map(|link| &link.name);
    name.is_some_and(|name| inputs.world.answering.get(&address).is_some_and(|links| links.contains(name)))
}

/// Notes of the holders on which links they say so, where this node answers on others too.
pub fn say_where(inputs: &Inputs<'_>, near: &Rosters<'_>, address: IpAddr, holders: &mut [Holder<'_>]) {
    if near.len() < 2 {
        return;
    }
    for holder in holders {
        let says = |roster: &Roster| roster.members.get(holder.bidder.node).is_some_and(|it| answers_for(it, address));
        let (on, off): (Vec<u32>, Vec<u32>) =
            near.keys().partition(|index| near.get(*index).is_some_and(|it| says(it)));
        if off.iter().any(|index| answers_on(inputs, *index, address)) {
            holder.on_links = on.into_iter().collect();
        }
    }
}
