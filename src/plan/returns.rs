//! The networks of this node beside that of its default route: replies to connections that come in by one leave by it again.
//! Floor 1. It keeps which there are, each with its number in the marks; `egress::task` marks, `kernel::returns` makes the routes.
//!
//! Such a network is a `[[vrf]]` whose device is there, or a link that has default routes in the main table, none of which is the
//! best one of its family. Families stand for themselves: a link may be the way out in one and a network beside it in the other.
//! Numbers count down from the highest, those of owners of egress addresses up from 1.
//!
//! Connections carry the numbers for as long as they live, so a number stays with its network: while the network is away, when its
//! link becomes the way out (then it is a former network, whose table stays for what is marked), and over a restart of the agent,
//! which reads them from the rules in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;
use ipnet::IpNet;

use crate::address::Family;
use crate::config::Config;
use crate::names::{InterfaceName, ObjectKey};
use crate::plan::exits::Away;
use crate::plan::slice::{ReturnNetwork, ReturnTable};
use crate::world::{DefaultRoute, Link, NetworkNumbers, World};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Returns {
    numbers: BTreeMap<InterfaceName, Number>,
    /// The networks with a number that are away or former, the one that has been so for longest in front.
    idle: Vec<InterfaceName>,
    /// What earlier lives gave is known.
    read: bool,
    networks: Arc<Vec<ReturnNetwork>>,
    /// Those that no number is left for.
    left_out: Arc<Vec<InterfaceName>>,
    /// The addresses of each Service, while replies leave by a network.
    wanted: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// How many Services have each address.
    services: BTreeMap<IpAddr, usize>,
    served: OrdSet<IpAddr>,
    /// Replies leave by the network of the request. Else the networks are there for egress alone.
    answers: bool,
    moved: bool,
}

/// What connections are marked with that came in by a network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number {
    slot: u8,
    /// In which a link was an extra network once. Its table is kept for these.
    families: BTreeSet<Family>,
    /// The subnets that it had then.
    subnets: Vec<IpNet>,
}

/// How many networks that are away keep their numbers: links that come with ever new names would take them all.
const MOST_AWAY: usize = 4;

impl Returns {
    /// Works out the networks. `egress`: pods leave by some of them. Answers whether replies leave by some now and did not before:
    /// then every Service is to be put.
    pub fn renew(&mut self, config: &Config, world: &World, egress: bool) -> bool {
        self.recall(config, world);
        let is_wanted = config.egress.symmetric_return || egress;
        let found = if is_wanted { networks(config, world, &self.numbers) } else { Vec::new() };
        let is_idle = |name: &InterfaceName| found.iter().all(|network| network.name != *name || network.former);
        self.idle.retain(is_idle);
        let more: Vec<_> =
            self.numbers.keys().filter(|name| is_idle(name) && !self.idle.contains(name)).cloned().collect();
        self.idle.extend(more);
        let mut numbered = Vec::new();
        // A former network may lose its number to one that is not.
        let (former, present): (Vec<_>, Vec<_>) = found.into_iter().partition(|network| network.former);
        let mut left_out = Vec::new();
        for network in present {
            match self.number(&network, config.egress.slots()) {
                Some(slot) => numbered.push(ReturnNetwork { slot, ..network }),
                None => left_out.push(network.name),
            }
        }
        for network in former {
            if let Some(number) = self.numbers.get(&network.name) {
                numbered.push(ReturnNetwork { slot: number.slot, ..network });
            }
        }
        self.forget_those_away(&numbered);
        numbered.sort_by(|one, other| one.name.cmp(&other.name));
        if *self.left_out != left_out {
            self.left_out = Arc::new(left_out);
        }
        let answered = self.answers;
        if *self.networks != numbered {
            self.networks = Arc::new(numbered);
            self.moved = true;
        }
        self.answers = config.egress.symmetric_return && !self.networks.is_empty();
        if !self.answers {
            self.wanted.clear();
            self.services.clear();
            self.moved |= !self.served.is_empty();
            self.served.clear();
        }
        self.answers && !answered
    }

    /// The addresses that clients reach a Service at from now on. Nothing is kept where replies leave by no network.
    pub fn put(&mut self, service: &ObjectKey, addresses: Vec<IpAddr>) {
        let before = self.wanted.remove(service).unwrap_or_default();
        let addresses = if self.answers { addresses } else { Vec::new() };
        for address in &addresses {
            *self.services.entry(*address).or_default() += 1;
            self.moved |= self.served.insert(*address).is_none();
        }
        for address in before {
            let count = self.services.get(&address).copied().unwrap_or_default();
            if count > 1 {
                self.services.insert(address, count - 1);
            } else {
                self.services.remove(&address);
                self.moved |= self.served.remove(&address).is_some();
            }
        }
        if !addresses.is_empty() {
            self.wanted.insert(service.clone(), addresses);
        }
    }

    pub fn networks(&self) -> &Arc<Vec<ReturnNetwork>> {
        &self.networks
    }

    /// The networks by which nothing is answered, because no number in the marks is left for them.
    pub fn left_out(&self) -> &Arc<Vec<InterfaceName>> {
        &self.left_out
    }

    /// The links that were networks, and are none now in some family: neither beside the way out nor as the way out.
    pub fn away(&self, world: &World) -> Vec<Away> {
        let of_number = |(name, number): (&InterfaceName, &Number)| {
            let stands = |family: &Family| {
                self.networks.iter().filter(|network| network.name == *name).any(|network| match &network.table {
                    ReturnTable::Own { gateways, subnets: _ } => gateways.contains_key(family),
                    ReturnTable::Vrf(_) => true,
                })
            };
            let now = world.links.values().filter(|link| link.name == *name).flat_map(Link::in_subnets);
            let subnets: Vec<IpNet> = number.subnets.iter().chain(now).map(IpNet::trunc).collect();
            let away = |family: &Family| {
                let subnets = subnets.iter().filter(|net| Family::of(net.addr()) == *family).copied().collect();
                Away { link: name.clone(), family: *family, subnets }
            };
            number.families.iter().filter(|family| !stands(family)).map(away).collect::<Vec<_>>()
        };
        self.numbers.iter().flat_map(of_number).collect()
    }

    /// The addresses of all Services.
    pub fn served(&self) -> &OrdSet<IpAddr> {
        &self.served
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// The lowest number that a network has, or one that is away; owners of egress addresses have those below.
    pub fn lowest(&self) -> Option<u8> {
        self.numbers.values().map(|number| number.slot).min()
    }

    /// Takes over the numbers of an earlier life of the agent.
    fn recall(&mut self, config: &Config, world: &World) {
        if std::mem::replace(&mut self.read, true) {
            return;
        }
        let NetworkNumbers { links, vrfs } = &world.network_numbers;
        let of_links = links.iter().map(|(name, (slot, families))| (name.clone(), *slot, families.clone()));
        let of_vrfs =
            config.vrfs.iter().filter_map(|vrf| Some((vrf.name.clone(), *vrfs.get(&vrf.table)?, BTreeSet::new())));
        let subnets = Vec::new;
        for (name, slot, families) in of_links.chain(of_vrfs) {
            let is_taken = self.numbers.values().any(|number| number.slot == slot);
            if !is_taken && (1..=config.egress.slots()).contains(&slot) {
                self.numbers.entry(name).or_insert(Number { slot, families, subnets: subnets() });
            }
        }
    }

    /// `None` where all numbers are taken.
    fn number(&mut self, network: &ReturnNetwork, slots: u8) -> Option<u8> {
        let (families, subnets) = match &network.table {
            ReturnTable::Own { gateways, subnets } => (gateways.keys().copied().collect(), subnets.clone()),
            ReturnTable::Vrf(_) => (BTreeSet::new(), Vec::new()),
        };
        if let Some(number) = self.numbers.get_mut(&network.name) {
            number.subnets.retain(|net| !families.contains(&Family::of(net.addr())));
            number.subnets.extend(subnets);
            number.families.extend(families);
            return Some(number.slot);
        }
        let is_free = |slot: &u8| !self.numbers.values().any(|taken| taken.slot == *slot);
        let slot = match (1..=slots).rev().find(is_free) {
            Some(slot) => slot,
            // Its connections are the oldest.
            None if !self.idle.is_empty() => self.numbers.remove(&self.idle.remove(0))?.slot,
            None => return None,
        };
        self.numbers.insert(network.name.clone(), Number { slot, families, subnets });
        Some(slot)
    }

    fn forget_those_away(&mut self, present: &[ReturnNetwork]) {
        let is_away = |name: &&InterfaceName| present.iter().all(|network| network.name != **name);
        let away: Vec<InterfaceName> = self.idle.iter().filter(is_away).cloned().collect();
        for name in &away[..away.len().saturating_sub(MOST_AWAY)] {
            self.numbers.remove(name);
            self.idle.retain(|it| it != name);
        }
    }
}

/// The networks without their numbers. `numbers`: those that were there before.
fn networks(config: &Config, world: &World, numbers: &BTreeMap<InterfaceName, Number>) -> Vec<ReturnNetwork> {
    let of_vrf = |vrf: &crate::config::Vrf| {
        let device = world.links.values().find(|link| link.name == vrf.name)?;
        let ports = world.links.values().filter(|link| link.vrf == Some(device.index));
        let links: BTreeMap<u32, InterfaceName> = ports.map(|link| (link.index, link.name.clone())).collect();
        let table = ReturnTable::Vrf(vrf.table);
        let network = ReturnNetwork { name: vrf.name.clone(), slot: 0, links, table, former: false };
        (!network.links.is_empty()).then_some(network)
    };
    let of_link = |link: &Link| {
        let routes = world.default_routes.iter().filter(|route| route.vrf.is_none() && route.link == link.index);
        let is_home = |family: &Family| {
            let mut of_family = routes.clone().filter(|route| route.family == *family);
            of_family.any(|route| is_best(route, world))
        };
        let gateways = |families: &[Family]| -> BTreeMap<Family, Option<IpAddr>> {
            families.iter().filter_map(|family| Some((*family, best(routes.clone(), *family)?))).collect()
        };
        let (home, mut families): (Vec<Family>, Vec<Family>) = Family::BOTH.into_iter().partition(is_home);
        let former = gateways(&families).is_empty();
        // What came in before the link became the way out is marked, and is answered by its table.
        families
            .extend(home.iter().filter(|it| numbers.get(&link.name).is_some_and(|known| known.families.contains(it))));
        let gateways = gateways(&families);
        let of_families = link.in_subnets().filter(|net| families.contains(&Family::of(net.addr())));
        let mut subnets: Vec<IpNet> = of_families.map(IpNet::trunc).collect();
        subnets.sort_unstable();
        subnets.dedup();
        // Packets come in by its links, not by the VRF device itself.
        let is_vrf = world.links.values().any(|it| it.vrf == Some(link.index));
        (!gateways.is_empty() && !is_vrf).then(|| ReturnNetwork {
            name: link.name.clone(),
            slot: 0,
            links: [(link.index, link.name.clone())].into(),
            table: ReturnTable::Own { gateways, subnets },
            former,
        })
    };
    config.vrfs.iter().filter_map(of_vrf).chain(world.links.values().filter_map(of_link)).collect()
}

/// The next hop of the best of the default routes, where that has one.
fn best<'a>(routes: impl Iterator<Item = &'a DefaultRoute>, family: Family) -> Option<Option<IpAddr>> {
    // The best stand first.
    let mut of_family = routes.filter(|route| route.family == family);
    of_family.next().map(|route| route.gateway)
}

/// No default route of its family in the main table is better. Several may be the best: what leaves by any of them is at home.
fn is_best(route: &DefaultRoute, world: &World) -> bool {
    let others = world.default_routes.iter().filter(|it| it.vrf.is_none() && it.family == route.family);
    others.map(|it| it.metric).min() == Some(route.metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::world::Fact;

    fn link(index: u32, name: &str, vrf: Option<u32>, net: &str) -> Fact {
        Fact::Link(index, Some(Link { vrf, ..Link::carrying(index, name, &[net]) }))
    }

    fn route(gateway: &str, link: u32, metric: u32) -> DefaultRoute {
        DefaultRoute::via(gateway, link, metric)
    }

    fn world(routes: Vec<DefaultRoute>) -> World {
        let mut world = World::default();
        world.apply(link(2, "eth0", None, "10.0.0.11/24"));
        world.apply(link(3, "eth1", None, "192.0.2.10/24"));
        world.apply(Fact::DefaultRoutes(routes));
        world
    }

    fn names(returns: &Returns) -> Vec<(String, u8)> {
        returns.networks().iter().map(|network| (network.name.to_string(), network.slot)).collect()
    }

    #[test]
    fn a_link_with_a_default_route_that_is_not_the_best_is_a_network_of_its_own() {
        let config = config::tests::one_of_each();
        let backup = vec![route("10.0.0.1", 2, 0), route("10.0.0.2", 2, 500)];
        let backup_of_both = vec![route("10.0.0.1", 2, 0), route("192.0.2.1", 3, 200), route("192.0.2.2", 3, 300)];
        let table: [(&str, Vec<DefaultRoute>, &[&str]); 6] = [
            ("a second router on the main link", backup, &[]),
            ("a second router on the other link", backup_of_both, &["eth1"]),
            ("one route", vec![route("10.0.0.1", 2, 0)], &[]),
            ("a worse one", vec![route("10.0.0.1", 2, 0), route("192.0.2.1", 3, 200)], &["eth1"]),
            ("two equal ones", vec![route("10.0.0.1", 2, 0), route("192.0.2.1", 3, 0)], &[]),
            ("one of each family", vec![route("10.0.0.1", 2, 0), route("fd02::1", 3, 1024)], &[]),
        ];
        for (story, routes, expected) in table {
            let mut returns = Returns::default();
            assert_eq!(returns.renew(&config, &world(routes), false), !expected.is_empty(), "{story}");
            let found: Vec<String> = names(&returns).into_iter().map(|(name, _)| name).collect();
            assert_eq!(found, expected, "{story}");
        }
    }

    #[test]
    fn a_link_that_is_the_way_out_in_one_family_is_a_network_in_the_other_family_alone() {
        // Input: eth0 has the only default route of IPv4, and eth1 the better one of IPv6.
        let config = config::tests::one_of_each();
        let mut world = world(vec![route("10.0.0.1", 2, 0), route("fd02::1", 3, 100), route("fd01::1", 2, 1024)]);
        world.apply(link_with(2, "eth0", &["10.0.0.11/24", "fd01::11/64"]));
        let mut returns = Returns::default();
        returns.renew(&config, &world, false);
        let table = ReturnTable::Own {
            gateways: [(Family::V6, Some("fd01::1".parse().unwrap()))].into(),
            subnets: vec!["fd01::/64".parse().unwrap()],
        };
        let found: Vec<_> = returns.networks().iter().map(|it| (it.name.to_string(), it.table.clone())).collect();
        assert_eq!(found, [("eth0".to_owned(), table)], "replies of IPv4 go by the main table");
    }

    fn link_with(index: u32, name: &str, nets: &[&str]) -> Fact {
        Fact::Link(index, Some(Link::carrying(index, name, nets)))
    }

    #[test]
    fn a_network_keeps_its_number_while_others_come_and_go_and_a_vrf_is_one() {
        let mut config = config::tests::one_of_each();
        config.vrfs = config::tests::good("[[vrf]]\nname = \"red\"\ntable = 1001\n").vrfs;
        let mut world = world(vec![route("10.0.0.1", 2, 0), route("192.0.2.1", 3, 200)]);
        let mut returns = Returns::default();
        returns.renew(&config, &world, false);
        assert_eq!(names(&returns), [("eth1".to_owned(), 15)]);
        world.apply(link(7, "red", None, "127.0.0.1/8"));
        world.apply(link(4, "eth2", Some(7), "192.0.2.10/24"));
        returns.renew(&config, &world, false);
        assert_eq!(names(&returns), [("eth1".to_owned(), 15), ("red".to_owned(), 14)]);
        assert_eq!(returns.networks()[1].table, ReturnTable::Vrf(1001));
        world.apply(Fact::DefaultRoutes(vec![route("10.0.0.1", 2, 0)]));
        returns.renew(&config, &world, false);
        assert_eq!(names(&returns), [("red".to_owned(), 14)]);
        config.egress.symmetric_return = false;
        returns.renew(&config, &world, false);
        assert_eq!(names(&returns), []);
        returns.renew(&config, &world, true);
        assert_eq!(names(&returns), [("red".to_owned(), 14)], "pods leave by it");
        returns.put(&ObjectKey::new("shop", "web"), vec!["203.0.113.7".parse().unwrap()]);
        assert!(returns.served().is_empty(), "and replies do not");
    }

    /// All that stand, each with whether it is a former one.
    fn stands(returns: &Returns) -> Vec<(&str, u8, bool)> {
        returns.networks().iter().map(|it| (it.name.as_str(), it.slot, it.former)).collect()
    }

    /// Input: eth0 is the way out and eth1 an extra network; then eth0's default route gets a worse metric, as
    /// NetworkManager does when its check of the connectivity fails. Output: eth0 gets a number of its own, and eth1's table stays
    /// for what came in by it.
    #[test]
    fn a_network_whose_link_becomes_the_way_out_keeps_its_number_and_its_table() {
        let config = config::tests::one_of_each();
        let before = [route("10.0.0.1", 2, 100), route("192.0.2.1", 3, 200)];
        let mut world = world(before.to_vec());
        let mut returns = Returns::default();
        returns.renew(&config, &world, false);
        assert_eq!(stands(&returns), [("eth1", 15, false)]);
        let table = returns.networks()[0].table.clone();
        world.apply(Fact::DefaultRoutes(vec![route("192.0.2.1", 3, 200), route("10.0.0.1", 2, 20100)]));
        returns.renew(&config, &world, false);
        assert_eq!(stands(&returns), [("eth0", 14, false), ("eth1", 15, true)]);
        assert_eq!(returns.networks()[1].table, table);
        assert_eq!(returns.lowest(), Some(14), "no owner of an egress address gets one of them");
        world.apply(Fact::DefaultRoutes(before.to_vec()));
        returns.renew(&config, &world, false);
        assert_eq!(stands(&returns), [("eth0", 14, true), ("eth1", 15, false)]);
        // A former network is there no more without its default route, and its number waits.
        world.apply(Fact::DefaultRoutes(vec![route("192.0.2.1", 3, 200)]));
        returns.renew(&config, &world, false);
        assert_eq!(stands(&returns), [("eth1", 15, true)]);
        world.apply(link(4, "eth2", None, "198.51.100.10/24"));
        world.apply(Fact::DefaultRoutes(vec![route("192.0.2.1", 3, 200), route("198.51.100.1", 4, 300)]));
        returns.renew(&config, &world, false);
        assert_eq!(stands(&returns), [("eth1", 15, true), ("eth2", 13, false)]);
    }

    /// Input: eth1 was the first to be an extra network, ens9 came later; then the agent restarts.
    #[test]
    fn numbers_are_those_that_the_rules_in_the_kernel_have_and_not_dealt_anew() {
        let mut config = config::tests::one_of_each();
        config.vrfs = config::tests::good("[[vrf]]\nname = \"red\"\ntable = 1001\n").vrfs;
        let routes = vec![route("10.0.0.1", 2, 0), route("192.0.2.1", 3, 200), route("198.51.100.1", 4, 300)];
        let mut world = world(routes);
        world.apply(link(4, "ens9", None, "198.51.100.10/24"));
        world.apply(link(7, "red", None, "127.0.0.1/8"));
        world.apply(link(5, "eth5", Some(7), "192.0.2.10/24"));
        let v4 = BTreeSet::from([Family::V4]);
        let links = [("eth0", 12), ("eth1", 15), ("ens9", 14)].map(|(name, slot)| (name.into(), (slot, v4.clone())));
        world.apply(Fact::NetworkNumbers(NetworkNumbers { links: links.into(), vrfs: [(1001, 11)].into() }));
        let mut returns = Returns::default();
        returns.renew(&config, &world, false);
        let all = [("ens9", 14, false), ("eth0", 12, true), ("eth1", 15, false), ("red", 11, false)];
        assert_eq!(stands(&returns), all, "eth0 is the way out again, and its table stays");
    }

    #[test]
    fn where_numbers_are_scarce_the_network_that_is_away_for_longest_loses_its_own() {
        let config = config::tests::one_of_each();
        let home = route("10.0.0.1", 2, 0);
        let mut world = world(vec![home.clone()]);
        let mut returns = Returns::default();
        for number in 0..20 {
            let name = format!("ppp{number}");
            world.apply(link(10 + number, &name, None, "192.0.2.10/24"));
            world.apply(Fact::DefaultRoutes(vec![home.clone(), route("192.0.2.1", 10 + number, 200)]));
            returns.renew(&config, &world, false);
            let slot = returns.networks()[0].slot;
            assert!(slot >= 10, "{name} has {slot}: the numbers of owners of egress addresses stay free");
        }
    }

    /// Input: the best default route of IPv4 has a next hop of IPv6, as in unnumbered racks; or the worse one has.
    #[test]
    fn a_default_route_of_ipv4_by_a_next_hop_of_ipv6_is_one_of_ipv4() {
        let config = config::tests::one_of_each();
        let by_v6 = |link, metric| DefaultRoute { family: Family::V4, ..route("fe80::1", link, metric) };
        for (routes, gateway) in [
            (vec![by_v6(2, 0), route("192.0.2.1", 3, 200)], "192.0.2.1"),
            (vec![route("10.0.0.1", 2, 0), by_v6(3, 200)], "fe80::1"),
        ] {
            let mut returns = Returns::default();
            returns.renew(&config, &world(routes), false);
            assert_eq!(stands(&returns), [("eth1", 15, false)], "{gateway}");
            let ReturnTable::Own { gateways, .. } = &returns.networks()[0].table else { panic!("a table of its own") };
            assert_eq!(*gateways, [(Family::V4, Some(gateway.parse().unwrap()))].into());
        }
    }

    /// Input: the best default route leads to a link itself, or the worse one does; or to a VRF device.
    #[test]
    fn a_default_route_to_a_link_itself_is_home_or_an_extra_network_as_others_are() {
        let config = config::tests::one_of_each();
        for (routes, gateway) in [
            (vec![DefaultRoute::dev(2, 0), route("192.0.2.1", 3, 200)], Some("192.0.2.1")),
            (vec![route("10.0.0.1", 2, 0), DefaultRoute::dev(3, 200)], None),
        ] {
            let mut returns = Returns::default();
            returns.renew(&config, &world(routes), false);
            assert_eq!(stands(&returns), [("eth1", 15, false)], "{gateway:?}");
            let ReturnTable::Own { gateways, .. } = &returns.networks()[0].table else { panic!("a table of its own") };
            assert_eq!(*gateways, [(Family::V4, gateway.map(|it| it.parse().unwrap()))].into());
        }
        let mut world = world(vec![route("10.0.0.1", 2, 0), DefaultRoute::dev(7, 200)]);
        world.apply(link(7, "red", None, "127.0.0.1/8"));
        world.apply(link(4, "eth2", Some(7), "192.0.2.10/24"));
        let mut returns = Returns::default();
        returns.renew(&config, &world, false);
        assert_eq!(stands(&returns), [], "nothing comes in by a VRF device itself");
    }

    #[test]
    fn an_address_is_served_while_a_service_has_it_and_only_where_there_is_a_network() {
        let config = config::tests::one_of_each();
        let [one, two] = ["one", "two"].map(|name| ObjectKey::new("shop", name));
        let address: IpAddr = "203.0.113.7".parse().unwrap();
        let mut returns = Returns::default();
        returns.put(&one, vec![address]);
        assert!(returns.served().is_empty());
        returns.renew(&config, &world(vec![route("10.0.0.1", 2, 0), route("192.0.2.1", 3, 200)]), false);
        returns.put(&one, vec![address]);
        returns.put(&two, vec![address]);
        returns.put(&one, vec![]);
        assert!(returns.served().contains(&address), "two still has it");
        returns.put(&two, vec![]);
        assert!(returns.served().is_empty());
    }

    /// Input: 17 links with a default route besides the way out, and marks for 15; then 10 of them are gone.
    #[test]
    fn networks_that_no_number_is_left_for_are_named_until_there_is_one() {
        let config = config::tests::one_of_each();
        let mut world = world(vec![route("10.0.0.1", 2, 0)]);
        let links = 10..27_u32;
        for index in links.clone() {
            world.apply(link(index, &format!("eth{index}"), None, "192.0.2.10/24"));
        }
        let home = [route("10.0.0.1", 2, 0)].into_iter();
        let routes = |links: std::ops::Range<u32>| {
            Fact::DefaultRoutes(home.clone().chain(links.map(|index| route("192.0.2.1", index, 200))).collect())
        };
        world.apply(routes(links.clone()));
        let mut returns = Returns::default();
        returns.renew(&config, &world, false);
        assert_eq!(returns.networks().len(), 15);
        assert_eq!(returns.left_out().iter().map(InterfaceName::as_str).collect::<Vec<_>>(), ["eth25", "eth26"]);
        world.apply(routes(20..27));
        returns.renew(&config, &world, false);
        assert_eq!((returns.networks().len(), returns.left_out().len()), (7, 0));
    }
}
