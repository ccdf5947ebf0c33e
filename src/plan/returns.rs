//! The networks of this node beside that of its default route: replies to connections that come in by one leave by it again.
//! Floor 1. It keeps which there are, each with its number in the marks; `egress::task` marks, `kernel::returns` makes the routes.
//!
//! Such a network is a `[[vrf]]` whose device is there, or a link that has default routes in the main table, none of which is the
//! best one of its family. Families stand for themselves: a link may be the way out in one and a network beside it in the other.
//! Numbers count down from the highest, those of owners of egress addresses up from 1.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;

use crate::address::Family;
use crate::config::Config;
use crate::names::{InterfaceName, ObjectKey};
use crate::plan::slice::{ReturnNetwork, ReturnTable};
use crate::world::{DefaultRoute, Link, World};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Returns {
    /// A network keeps its number: connections are marked with it.
    numbers: BTreeMap<InterfaceName, u8>,
    networks: Arc<Vec<ReturnNetwork>>,
    /// The addresses of each Service, while replies leave by a network.
    wanted: BTreeMap<ObjectKey, Vec<IpAddr>>,
    /// How many Services have each address.
    services: BTreeMap<IpAddr, usize>,
    served: OrdSet<IpAddr>,
    /// Replies leave by the network of the request. Else the networks are there for egress alone.
    answers: bool,
    moved: bool,
}

impl Returns {
    /// Works out the networks. `egress`: pods leave by some of them. Answers whether replies leave by some now and did not before:
    /// then every Service is to be put.
    pub fn renew(&mut self, config: &Config, world: &World, egress: bool) -> bool {
        let is_wanted = config.egress.symmetric_return || egress;
        let found = if is_wanted { networks(config, world) } else { Vec::new() };
        self.numbers.retain(|name, _| found.iter().any(|network| network.name == *name));
        let mut numbered = Vec::new();
        for network in found {
            if let Some(slot) = self.number(&network.name, config.egress.slots()) {
                numbered.push(ReturnNetwork { slot, ..network });
            }
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

    /// The addresses of all Services.
    pub fn served(&self) -> &OrdSet<IpAddr> {
        &self.served
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// `None` where all numbers are taken.
    fn number(&mut self, name: &InterfaceName, slots: u8) -> Option<u8> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        let is_free = |number: &u8| !self.numbers.values().any(|taken| taken == number);
        let number = (1..=slots).rev().find(is_free)?;
        self.numbers.insert(name.clone(), number);
        Some(number)
    }
}

/// The networks without their numbers, in order of name.
fn networks(config: &Config, world: &World) -> Vec<ReturnNetwork> {
    let of_vrf = |vrf: &crate::config::Vrf| {
        let device = world.links.values().find(|link| link.name == vrf.name)?;
        let ports = world.links.values().filter(|link| link.vrf == Some(device.index));
        let links: BTreeMap<u32, InterfaceName> = ports.map(|link| (link.index, link.name.clone())).collect();
        let network = ReturnNetwork { name: vrf.name.clone(), slot: 0, links, table: ReturnTable::Vrf(vrf.table) };
        (!network.links.is_empty()).then_some(network)
    };
    let of_link = |link: &Link| {
        let routes = world.default_routes.iter().filter(|route| route.vrf.is_none() && route.link == link.index);
        let is_home = |family: Family| {
            let mut of_family = routes.clone().filter(|route| Family::of(route.gateway) == family);
            of_family.any(|route| is_best(route, world))
        };
        let extra: Vec<Family> = Family::BOTH.into_iter().filter(|family| !is_home(*family)).collect();
        let gateways: Vec<IpAddr> = extra.iter().filter_map(|family| best(routes.clone(), *family)).collect();
        let of_extra = link.in_subnets().filter(|net| extra.contains(&Family::of(net.addr())));
        let mut subnets: Vec<ipnet::IpNet> = of_extra.map(ipnet::IpNet::trunc).collect();
        subnets.sort_unstable();
        subnets.dedup();
        (!gateways.is_empty()).then(|| ReturnNetwork {
            name: link.name.clone(),
            slot: 0,
            links: [(link.index, link.name.clone())].into(),
            table: ReturnTable::Own { gateways, subnets },
        })
    };
    let mut all: Vec<ReturnNetwork> =
        config.vrfs.iter().filter_map(of_vrf).chain(world.links.values().filter_map(of_link)).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

fn best<'a>(routes: impl Iterator<Item = &'a DefaultRoute>, family: Family) -> Option<IpAddr> {
    // The best stand first.
    let mut of_family = routes.filter(|route| Family::of(route.gateway) == family);
    of_family.next().map(|route| route.gateway)
}

/// No default route of its family in the main table is better. Several may be the best: what leaves by any of them is at home.
fn is_best(route: &DefaultRoute, world: &World) -> bool {
    let family = Family::of(route.gateway);
    let others = world.default_routes.iter().filter(|it| it.vrf.is_none() && Family::of(it.gateway) == family);
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
        DefaultRoute { gateway: gateway.parse().unwrap(), link, metric, vrf: None }
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
            gateways: vec!["fd01::1".parse().unwrap()],
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
        assert_eq!(names(&returns), [("red".to_owned(), 15)], "pods leave by it");
        returns.put(&ObjectKey::new("shop", "web"), vec!["203.0.113.7".parse().unwrap()]);
        assert!(returns.served().is_empty(), "and replies do not");
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
}
