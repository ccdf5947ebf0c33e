//! Addresses that two other nodes hold on one link at a time: this node hears both, and they do not hear each other. Floor 1, an organ of
//! the planner. It remembers since when, and decides nothing: the two have yet to meet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::names::NodeName;
use crate::plan::holder_memory::HolderMemory;
use crate::roster::{Member, Stage};
use crate::world::World;

/// Each address by the index of a link, with its holders there and since when it has several.
pub type Doubles = BTreeMap<(IpAddr, u32), (BTreeSet<NodeName>, Instant)>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct DoubleMemory {
    /// Those of which something else was heard since the last turn.
    heard: BTreeSet<IpAddr>,
    found: Arc<Doubles>,
}

impl DoubleMemory {
    /// A node says something else of these.
    pub fn note(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.heard.extend(addresses);
    }

    /// Looks at what was heard. Costs what that is.
    pub fn renew(&mut self, world: &World, holders: &HolderMemory, now: Instant) {
        for address in std::mem::take(&mut self.heard) {
            let mut on_links: BTreeMap<u32, BTreeSet<NodeName>> = BTreeMap::new();
            for (link, node) in holders.speakers_on_links(address) {
                let member = world.rosters.get(link).and_then(|roster| roster.members.get(node));
                if member.is_some_and(|member| holds(member, address)) {
                    on_links.entry(*link).or_default().insert(node.clone());
                }
            }
            on_links.retain(|_, nodes| nodes.len() > 1);
            let of_address = (address, u32::MIN)..=(address, u32::MAX);
            let before: Vec<(IpAddr, u32)> = self.found.range(of_address).map(|(at, _)| *at).collect();
            if before.is_empty() && on_links.is_empty() {
                continue;
            }
            let found = Arc::make_mut(&mut self.found);
            for at in before.iter().filter(|(_, link)| !on_links.contains_key(link)) {
                found.remove(at);
            }
            for (link, nodes) in on_links {
                found.entry((address, link)).or_insert_with(|| (BTreeSet::new(), now)).0 = nodes;
            }
        }
    }

    pub fn found(&self) -> &Arc<Doubles> {
        &self.found
    }
}

/// The node answers for the address on the link where it is this member, and is about to hand it to nobody.
pub fn holds(member: &Member, address: IpAddr) -> bool {
    let is_there = !member.restarting && !member.is_without_v6(address);
    is_there && member.holdings.get(&address).is_some_and(|holding| holding.stage == Stage::Holds)
}
