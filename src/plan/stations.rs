//! Which stations on the links belong to other nodes, as far as the plan knows, and what their pulses say to this one.
//! Floor 1. What only the link itself can tell, which station speaks from a Node's address, is the responder's to learn.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::MacAddress;
use crate::claim::{Hearing, Station, Stations};
use crate::names::NodeName;
use crate::roster::Roster;
use crate::world::World;

/// The stations of the other nodes, by what the rosters say now. `before` is the last answer: a station that is no longer
/// named by a link's roster stays a node's there, unheard, for as long as its node is known at all.
///
/// A node that says goodbye on one link may go on on another, so each link has its own. A station that is known by another link
/// alone is a node's all the same, and not heard here.
pub fn stations(before: &Stations, world: &World) -> Stations {
    let rosters = || world.rosters.values();
    let known = |node: &NodeName| {
        let gone = |roster: &Roster| roster.silent.contains_key(node) || roster.left.contains_key(node);
        world.nodes.contains_key(node) || rosters().any(|roster| gone(roster))
    };
    let former = |station: &Station, hearing| {
        let node = station.node.clone();
        known(&node).then_some(Station { node, hearing })
    };
    let own = |index: &u32, roster: &Roster| -> BTreeMap<MacAddress, Station> {
        let before = before.by_link.get(index).into_iter().flat_map(|before| &**before);
        let of_former = |station: &Station| {
            let just_left = roster.left.get(&station.node).is_some_and(|it| it.just_left);
            former(station, if just_left { Hearing::Leaving } else { Hearing::Unheard })
        };
        let before = before.filter_map(|(mac, station)| Some((*mac, of_former(station)?)));
        let unproved = roster.unproved.iter().map(|(name, it)| {
            let hearing = if it.deaf { Hearing::Deaf } else { Hearing::Unheard };
            (it.mac, Station { node: name.clone(), hearing })
        });
        let heard = roster.members.iter().flat_map(|(name, member)| {
            member.macs().map(move |mac| (mac, Station { node: name.clone(), hearing: Hearing::Heard }))
        });
        let numb = roster.receive_nothing.iter().filter_map(|name| {
            let mac = roster.silent.get(name)?.mac;
            Some((mac, Station { node: name.clone(), hearing: Hearing::ReceivesNothing }))
        });
        before.chain(unproved).chain(numb).chain(heard).collect()
    };
    let own: BTreeMap<u32, _> = world.rosters.iter().map(|(index, roster)| (*index, own(index, roster))).collect();

    let mut anywhere: BTreeMap<MacAddress, Station> = BTreeMap::new();
    let of_former = |(mac, station): (&MacAddress, &Station)| Some((*mac, former(station, Hearing::Unheard)?));
    anywhere.extend(before.anywhere.iter().filter_map(of_former));
    for hearing in [Hearing::Leaving, Hearing::ReceivesNothing, Hearing::Unheard, Hearing::Deaf, Hearing::Heard] {
        let such = own.values().flatten().filter(|(_, station)| station.hearing == hearing);
        // On another link it may receive.
        let hearing = if hearing == Hearing::ReceivesNothing { Hearing::Unheard } else { hearing };
        anywhere.extend(such.map(|(mac, station)| (*mac, Station { node: station.node.clone(), hearing })));
    }
    let with_others = |(index, mut own): (u32, BTreeMap<MacAddress, Station>)| {
        for (mac, station) in &anywhere {
            own.entry(*mac).or_insert_with(|| Station { hearing: Hearing::Unheard, ..station.clone() });
        }
        let same = before.by_link.get(&index).filter(|before| ***before == own).cloned();
        (index, same.unwrap_or_else(|| Arc::new(own)))
    };
    let by_link = own.into_iter().map(with_others).collect();
    let same = (*before.anywhere == anywhere).then(|| before.anywhere.clone());
    Stations { by_link, anywhere: same.unwrap_or_else(|| Arc::new(anywhere)) }
}

/// The internal addresses of the other Nodes.
pub fn node_addresses(me: &NodeName, world: &World) -> BTreeMap<IpAddr, NodeName> {
    let others = world.nodes.iter().filter(|(name, _)| *name != me);
    others.flat_map(|(name, node)| node.addresses.iter().map(|address| (*address, name.clone()))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::roster::{Departed, Member};

    use crate::world::{Fact, Node};

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    pub fn member() -> Member {
        Member::eligible(MAC)
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
        let mut known = Stations::default();
        let mut after = |fact: Fact| {
            world.apply(fact);
            known = stations(&known, &world);
            known.on(2).get(&MAC).map(|station| station.hearing)
        };
        let members = [(NodeName::from("b"), member())].into();
        assert_eq!(after(roster(Roster { members, ..Roster::default() })), Some(Hearing::Heard));
        let silent = [(NodeName::from("b"), departed(false))].into();
        assert_eq!(after(roster(Roster { silent, ..Roster::default() })), Some(Hearing::Unheard));
        let left = |just_left| roster(Roster { left: [("b".into(), departed(just_left))].into(), ..Roster::default() });
        assert_eq!(after(left(true)), Some(Hearing::Leaving));
        assert_eq!(after(left(false)), Some(Hearing::Unheard), "who answers now is alive");
        assert_eq!(after(roster(Roster::default())), Some(Hearing::Unheard), "it left long ago, and is a Node still");
        assert_eq!(after(Fact::Node("b".into(), None)), None);
    }

    fn departed(just_left: bool) -> Departed {
        let unheard = Duration::from_millis(300);
        Departed { mac: MAC, unheard, suspect: false, holdings: Default::default(), just_left }
    }

    /// Input: a node with two links says goodbye on one of them, and then its pulses are filtered on the other. Output:
    /// what it says there still counts, whether the two links have one MAC or two.
    #[test]
    fn a_goodbye_counts_on_the_link_where_it_was_said() {
        for other in [MAC, MacAddress([2, 0, 0, 0, 1, 2])] {
            let mut world = World::default();
            let mut known = Stations::default();
            let mut after = |link: u32, roster: Roster| {
                world.apply(Fact::Roster(link, Some(Arc::new(roster))));
                known = stations(&known, &world);
                let hearing = |link, mac| known.on(link).get(&mac).map(|station| station.hearing);
                (hearing(2, MAC), hearing(3, other), hearing(7, MAC))
            };
            let alive =
                |mac| Roster { members: [("b".into(), Member { mac, ..member() })].into(), ..Roster::default() };
            let (heard, unheard, leaving) = (Some(Hearing::Heard), Some(Hearing::Unheard), Some(Hearing::Leaving));
            after(2, alive(MAC));
            assert_eq!(after(3, alive(other)), (heard, heard, heard), "and on a link without pulses");
            let left = |just_left| Roster { left: [("b".into(), departed(just_left))].into(), ..Roster::default() };
            assert_eq!(after(3, left(true)), (heard, leaving, heard));
            let silent = Roster { silent: [("b".into(), departed(false))].into(), ..Roster::default() };
            assert_eq!(after(2, silent), (unheard, leaving, unheard));
            assert_eq!(after(3, left(false)), (unheard, unheard, unheard));
        }
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
