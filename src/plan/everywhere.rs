//! The other nodes as their pulses would speak of them if they had another configuration too. Floor 1; `plan::forecast` asks.
//!
//! A node's weights follow from the file and the labels of its Node. On which of its links it serves an `[[l2]]` is its own word: it
//! is taken from the `[[l2]]` of before that names the same links. Where there is none, its links are taken to be named as this
//! node's are.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;

use crate::config::{Config, L2};
use crate::names::NodeName;
use crate::plan::context::l2::numbers;
use crate::plan::elect;
use crate::plan::named_links::names_link;
use crate::roster::{Card, L2Number, Member, Roster};
use crate::world::{Link, World};

/// What would be heard if every node had `after` instead of `before`.
pub fn rosters(before: &Config, after: &Config, me: &NodeName, world: &World) -> OrdMap<u32, Arc<Roster>> {
    let files = Files { before, after, numbers: [numbers(before), numbers(after)], me, world };
    let roster = |(index, roster): (&u32, &Arc<Roster>)| {
        let link = world.links.get(index);
        let members = roster.members.iter().map(|(name, member)| {
            let weights = files.weights(name, member, link);
            let card = Arc::new(Card { weights, ..Card::clone(&member.card) });
            (name.clone(), Member { card, ..member.clone() })
        });
        (*index, Arc::new(Roster { members: members.collect(), ..Roster::clone(roster) }))
    };
    world.rosters.iter().map(roster).collect()
}

/// Both files, with what pulses call each `[[l2]]`.
struct Files<'a> {
    before: &'a Config,
    after: &'a Config,
    numbers: [Vec<L2Number>; 2],
    me: &'a NodeName,
    world: &'a World,
}

impl Files<'_> {
    fn weights(&self, name: &NodeName, member: &Member, link: Option<&Link>) -> BTreeMap<L2Number, u32> {
        let all = self.after.l2.iter().zip(&self.numbers[1]).enumerate();
        let served = all.filter(|(place, (l2, _))| self.serves(*place, l2, name, member, link));
        served.filter_map(|(place, (l2, number))| Some((*number, self.weight(place, l2, name, member)?))).collect()
    }

    /// The `[[l2]]` of before that this one takes the place of: at its own place, else the first that names the same links.
    fn former(&self, place: usize, l2: &L2) -> Option<(&L2, L2Number)> {
        let all = || self.before.l2.iter().zip(self.numbers[0].iter().copied());
        let names_same = |(it, _): &(&L2, L2Number)| it.names_links_as(l2);
        all().nth(place).filter(names_same).or_else(|| all().find(names_same))
    }

    /// The node has a link on this segment that the `[[l2]]` names.
    fn serves(&self, place: usize, l2: &L2, name: &NodeName, member: &Member, link: Option<&Link>) -> bool {
        let as_here =
            || link.is_some_and(|link| names_link(l2, self.world.nodes.get(self.me).map(|it| &**it), link, self.world));
        match self.former(place, l2) {
            Some((_, number)) if member.card.weights.contains_key(&number) => true,
            // It would have said so.
            Some((former, _)) if self.weight_by_labels(former, name).is_some() => false,
            Some(_) | None => as_here(),
        }
    }

    /// `None` where the `[[l2]]` does not select the node.
    fn weight(&self, place: usize, l2: &L2, name: &NodeName, member: &Member) -> Option<u32> {
        if self.world.nodes.contains_key(name) || (l2.nodes.is_none() && l2.preference.is_empty()) {
            return self.weight_by_labels(l2, name);
        }
        // Standalone, each node knows its own labels alone.
        let former = self.former(place, l2).and_then(|(_, number)| member.card.weights.get(&number));
        former.copied().or(Some(0))
    }

    fn weight_by_labels(&self, l2: &L2, name: &NodeName) -> Option<u32> {
        let labels = self.world.nodes.get(name).map(|node| node.labels.clone()).unwrap_or_default();
        elect::weight(l2, &labels)
    }
}
