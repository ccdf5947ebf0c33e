//! Which stations on the links belong to other nodes, as far as the plan knows, and what their pulses say to this one.
//! Floor 1. What only the link itself can tell, which station speaks from a Node's address, is the responder's to learn.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::MacAddress;
use crate::claim::{Hearing, Station};
use crate::names::NodeName;
use crate::world::World;

/// The stations of the other nodes, by what the rosters say now. `before` is the last answer: a station that is no longer
/// named by any roster stays a node's, unheard, for as long as its node is known at all.
pub fn stations(before: &BTreeMap<MacAddress, Station>, world: &World) -> BTreeMap<MacAddress, Station> {
    let rosters = || world.rosters.values();
    let of_former = |station: &Station| {
        let node = station.node.clone();
        let left = rosters().any(|roster| roster.left.contains_key(&node));
        let known = world.nodes.contains_key(&node) || rosters().any(|roster| roster.silent.contains_key(&node));
        let hearing = if left { Hearing::Leaving } else { Hearing::Unheard };
        (left || known).then_some(Station { node, hearing })
    };
    let former = before.iter().filter_map(|(mac, station)| Some((*mac, of_former(station)?)));
    let unproved = rosters().flat_map(|roster| &roster.unproved).map(|(name, it)| {
        let hearing = if it.deaf { Hearing::Deaf } else { Hearing::Unheard };
        (it.mac, Station { node: name.clone(), hearing })
    });
    let heard = rosters().flat_map(|roster| &roster.members);
    let heard = heard.map(|(name, member)| (member.mac, Station { node: name.clone(), hearing: Hearing::Heard }));
    former.chain(unproved).chain(heard).collect()
}

/// The internal addresses of the other Nodes.
pub fn node_addresses(me: &NodeName, world: &World) -> BTreeMap<IpAddr, NodeName> {
    let others = world.nodes.iter().filter(|(name, _)| *name != me);
    others.flat_map(|(name, node)| node.addresses.iter().map(|address| (*address, name.clone()))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::roster::{Departed, Eligibility, Member, Roster};

    use crate::world::{Fact, Node};

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    pub fn member() -> Member {
        Member {
            mac: MAC,
            eligibility: Eligibility::Eligible,
            owner: false,
            hears_api_server: true,
            card: Arc::default(),
            holdings: Default::default(),
            holdings_known: true,
            occupied: Arc::default(),
            egress: None,
            restarting: false,
            waits: true,
            deaf: false,
        }
    }

    fn node(address: &str) -> Option<Arc<Node>> {
        let addresses = vec![address.parse().unwrap()];
        Some(Arc::new(Node { ready: true, addresses, ..Node::default() }))
    }

    #[test]
    fn a_station_stays_its_nodes_when_its_pulses_are_no_longer_heard_and_for_as_long_as_the_node_exists() {
        let mut world = World::default();
        world.apply(Fact::Node("b".into(), node("192.0.2.2")));
        let roster = |roster: Roster| Fact::Roster(2, Some(Arc::new(roster)));
        let mut known = BTreeMap::new();
        let mut after = |fact: Fact| {
            world.apply(fact);
            known = stations(&known, &world);
            known.get(&MAC).map(|station| station.hearing)
        };
        let members = [(NodeName::from("b"), member())].into();
        assert_eq!(after(roster(Roster { members, ..Roster::default() })), Some(Hearing::Heard));
        let departed =
            || Departed { mac: MAC, unheard: Duration::from_millis(300), suspect: false, holdings: Default::default() };
        let silent = [(NodeName::from("b"), departed())].into();
        assert_eq!(after(roster(Roster { silent, ..Roster::default() })), Some(Hearing::Unheard));
        let left = [(NodeName::from("b"), departed())].into();
        assert_eq!(after(roster(Roster { left, ..Roster::default() })), Some(Hearing::Leaving));
        assert_eq!(after(roster(Roster::default())), Some(Hearing::Unheard), "it left long ago, and is a Node still");
        assert_eq!(after(Fact::Node("b".into(), None)), None);
    }

    #[test]
    fn the_own_addresses_of_this_node_are_not_another_nodes() {
        let mut world = World::default();
        world.apply(Fact::Node("a".into(), node("192.0.2.1")));
        world.apply(Fact::Node("b".into(), node("192.0.2.2")));
        let expected = [("192.0.2.2".parse().unwrap(), NodeName::from("b"))].into();
        assert_eq!(node_addresses(&"a".into(), &world), expected);
    }
}
