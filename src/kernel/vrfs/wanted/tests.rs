//! VRFs against a model of the kernel: from nothing, after every drift, and away again.

use proptest::prelude::*;

use super::*;
use crate::config;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn vrfs(text: &str) -> Vec<Vrf> {
    config::tests::good(text).vrfs
}

const RED: &str = "[[vrf]]\nname = \"red\"\ntable = 1001\ninterfaces = [\"eth1\"]\naddresses = [\"192.0.2.10/24\", \"fd02::10/64\"]\n\
     manage = true\nroutes = [{ to = \"0.0.0.0/0\", via = \"192.0.2.1\" }, { to = \"::/0\", via = \"fd02::1\" }]\n";

/// The same networks as those of RED.
const BLUE: &str = "[[vrf]]\nname = \"blue\"\ntable = 1002\ninterfaces = [\"eth2\", \"eth3\"]\naddresses = [\"192.0.2.10/24\"]\n\
     manage = true\nroutes = [{ to = \"0.0.0.0/0\", via = \"192.0.2.1\" }]\n";

/// A host with three links, one with an address of its own.
fn host() -> Found {
    let link = |index: u32, addresses: &[&str]| FoundLink {
        index,
        up: true,
        addresses: addresses.iter().map(|text| net(text)).collect(),
        ..FoundLink::default()
    };
    let links = [("eth1", link(3, &["198.51.100.7/32", "fd09::7/64"])), ("eth2", link(4, &[])), ("eth3", link(5, &[]))];
    Found {
        links: links.into_iter().map(|(name, link)| (name.into(), link)).collect(),
        families: Family::BOTH.into(),
        ..Found::default()
    }
}

fn cluster() -> BTreeSet<IpNet> {
    ["10.244.0.0/24", "10.244.1.0/24", "192.168.35.11/32", "fd44::/64"].map(net).into()
}

/// The addresses of this host's Node, which are on none of the three links.
fn own() -> BTreeSet<IpAddr> {
    ["172.31.0.11", "fd31::11"].map(|text| text.parse().unwrap()).into()
}

/// The kernel, as far as VRFs are concerned: what a change does, and what it takes along.
#[derive(Debug, Clone)]
struct Kernel {
    found: Found,
    made: Made,
    next_index: u32,
}

impl Kernel {
    fn new(found: Found) -> Kernel {
        Kernel { found, made: Made::default(), next_index: 100 }
    }

    /// Works until nothing is left to do, and answers with the problems.
    fn settle(&mut self, vrfs: &[Vrf], cluster: &BTreeSet<IpNet>) -> Vec<HostProblem> {
        let wanted = Wanted { vrfs, cluster, own: &own(), complete: true };
        for _ in 0..5 {
            let outcome = changes(&wanted, &self.found, &self.made);
            self.made.forget(&wanted, &self.found);
            outcome.steps.iter().for_each(|(_, change)| self.made.note(change));
            if outcome.steps.is_empty() {
                return outcome.problems;
            }
            outcome.steps.iter().for_each(|(_, change)| self.make(change));
        }
        panic!("no end of changes: {:?}", changes(&wanted, &self.found, &self.made).steps);
    }

    fn link(&mut self, name: &InterfaceName) -> &mut FoundLink {
        self.found.links.get_mut(name).expect("a change is about a link that is there")
    }

    /// What happens to a link that changes its VRF, or is set down.
    fn cycle(&mut self, name: &InterfaceName) {
        self.found.routes.retain(|it| !matches!(&it.route.hop, Hop::Via { link, .. } if link == name));
        self.link(name).addresses.retain(|net| net.addr().is_ipv4());
        // The kernel makes its own routes anew.
        self.link(name).unrouted.clear();
    }

    fn make(&mut self, change: &Change) {
        match change.clone() {
            Change::AddRule(net) => drop(self.found.our_rules.insert(net)),
            Change::RemoveRule(net) => drop(self.found.our_rules.remove(&net)),
            Change::AddL3mdevRule(family) => drop(self.found.l3mdev.insert(family)),
            Change::MakeDevice { name, table } => {
                self.next_index += 1;
                let device = FoundLink { index: self.next_index, table: Some(table), up: true, ..FoundLink::default() };
                assert!(self.found.links.insert(name, device).is_none(), "the device is not there yet");
                self.found.l3mdev.extend(self.found.families.clone());
            }
            Change::RemoveDevice { name } => {
                self.found.links.remove(&name);
                let released: Vec<InterfaceName> = self.ports_of(&name);
                for port in released {
                    self.link(&port).master = None;
                    self.cycle(&port);
                }
            }
            Change::SetUp { name } => self.link(&name).up = true,
            Change::Enslave { port, vrf, again } => {
                self.link(&port).master = Some(vrf);
                self.cycle(&port);
                self.link(&port).addresses.extend(again);
            }
            Change::Release { port, again } => {
                self.link(&port).master = None;
                self.cycle(&port);
                self.link(&port).addresses.extend(again);
            }
            Change::AddAddress { port, net } => {
                assert!(self.link(&port).addresses.insert(net), "the kernel refuses an address that is there");
            }
            Change::RemoveAddress { port, net } => {
                self.link(&port).addresses.remove(&net);
                self.link(&port).unrouted.remove(&net);
            }
            Change::AddRoute(route) => {
                if let Hop::Via { link, via } = &route.hop {
                    let link = self.link(link);
                    assert!(link.up, "a route over a link that is down is refused");
                    let leads = link.addresses.difference(&link.unrouted).any(|net| net.contains(via));
                    assert!(leads, "a next hop that cannot be reached is refused");
                }
                self.found.routes.insert(FoundRoute { route, ours: true });
            }
            Change::RemoveRoute(route) => drop(self.found.routes.remove(&FoundRoute { route, ours: true })),
        }
    }

    fn ports_of(&self, vrf: &InterfaceName) -> Vec<InterfaceName> {
        let is_port = |link: &FoundLink| link.master.as_ref() == Some(vrf);
        self.found.links.iter().filter(|(_, link)| is_port(link)).map(|(name, _)| name.clone()).collect()
    }

    /// What stands in the kernel, without indices.
    fn state(&self) -> Found {
        let mut found = self.found.clone();
        found.links.values_mut().for_each(|link| link.index = 0);
        found
    }
}

#[test]
fn a_vrf_is_made_whole_and_taken_away_to_what_was_there_before() {
    let before = host();
    let mut kernel = Kernel::new(before.clone());
    assert_eq!(kernel.settle(&vrfs(RED), &cluster()), []);
    let eth1 = &kernel.found.links[&"eth1".into()];
    assert_eq!(eth1.master, Some("red".into()));
    let expected = ["192.0.2.10/24", "198.51.100.7/32", "fd02::10/64", "fd09::7/64"].map(net);
    assert_eq!(eth1.addresses, expected.into(), "its own addresses stay, that of IPv6 too");
    let rules = ["10.244.0.0/23", "192.168.35.11/32", "fd44::/64"].map(net);
    assert_eq!(kernel.found.our_rules, rules.into(), "networks that touch share a rule");
    let routes: Vec<String> = kernel.found.routes.iter().map(|it| it.route.to_string()).collect();
    let expected = [
        "unreachable 0.0.0.0/0 table 1001 metric 4278198272",
        "0.0.0.0/0 via 192.0.2.1 dev eth1 table 1001",
        "unreachable ::/0 table 1001 metric 4278198272",
        "::/0 via fd02::1 dev eth1 table 1001",
    ];
    assert_eq!(routes, expected);
    assert_eq!(kernel.settle(&[], &cluster()), []);
    assert_eq!(kernel.state().links, Kernel::new(before).state().links);
    assert!(kernel.found.routes.is_empty() && kernel.found.our_rules.is_empty() && kernel.made.is_empty());
}

#[test]
fn the_rules_of_the_cluster_stand_before_a_packet_can_be_looked_up_in_the_vrf() {
    let outcome = changes(
        &Wanted { vrfs: &vrfs(RED), cluster: &cluster(), own: &own(), complete: true },
        &host(),
        &Made::default(),
    );
    let place = |is_it: fn(&Change) -> bool| outcome.steps.iter().position(|(_, change)| is_it(change)).unwrap();
    let last_rule = outcome.steps.iter().rposition(|(_, change)| matches!(change, Change::AddRule(_))).unwrap();
    assert!(last_rule < place(|change| matches!(change, Change::MakeDevice { .. })));
}

#[test]
fn two_vrfs_have_the_same_networks_and_one_that_cannot_be_made_leaves_the_other() {
    let mut kernel = Kernel::new(host());
    let both = vrfs(&format!("{RED}{BLUE}"));
    assert_eq!(kernel.settle(&both, &cluster()), []);
    let gateways: Vec<u32> = kernel
        .found
        .routes
        .iter()
        .filter(|it| matches!(&it.route.hop, Hop::Via { via, .. } if via.to_string() == "192.0.2.1"))
        .map(|it| it.route.table)
        .collect();
    assert_eq!(gateways, [1001, 1002]);
    let mut without = host();
    without.links.remove(&"eth1".into());
    let mut kernel = Kernel::new(without);
    let problems = kernel.settle(&both, &cluster());
    assert_eq!(problems[0].problem, "the VRF red waits for the interface eth1");
    assert_eq!(kernel.found.links[&"eth2".into()].master, Some("blue".into()));
}

#[test]
fn a_link_with_this_nodes_address_or_the_default_route_is_put_into_no_vrf() {
    // Input: interfaces = ["eth1"] on a host whose uplink is eth1: by a slip, or where the names of the links are swapped.
    let default = DefaultRoute::via;
    // A route of IPv4 by a next hop of IPv6.
    let by_v6 = |link, metric| DefaultRoute { family: Family::V4, ..DefaultRoute::via("fe80::1", link, metric) };
    let address = "this Node's own address 172.31.0.11";
    let route = "the default route via 172.31.0.9";
    let table: [(&[&str], Vec<DefaultRoute>, Option<String>); 11] = [
        (&[], vec![by_v6(3, 0), default("192.0.2.1", 4, 200)], Some("the default route via fe80::1".to_owned())),
        (&[], vec![by_v6(4, 0), default("172.31.0.9", 3, 200)], None),
        (&["172.31.0.11"], vec![default("172.31.0.9", 3, 0)], Some(format!("{address} and {route}"))),
        // By DHCP, with a lifetime.
        (&["172.31.0.11"], vec![], Some(address.to_owned())),
        (&["192.0.2.77"], vec![default("172.31.0.9", 3, 100)], Some(route.to_owned())),
        (&[], vec![default("192.0.2.1", 3, 200), default("172.31.0.9", 4, 0)], None),
        (&[], vec![default("192.0.2.1", 3, 0), default("172.31.0.9", 4, 0)], None),
        (&[], vec![default("fe80::1", 3, 1024)], Some("the default route via fe80::1".to_owned())),
        // To the link itself.
        (&[], vec![DefaultRoute::dev(3, 0), default("192.0.2.1", 4, 200)], Some("the default route".to_owned())),
        (&[], vec![DefaultRoute::dev(4, 0), default("172.31.0.9", 3, 200)], None),
        (&[], vec![], None),
    ];
    for (carries, defaults, expected) in table {
        let mut found = host();
        found.defaults = defaults;
        let link = found.links.get_mut(&"eth1".into()).unwrap();
        link.carries = carries.iter().map(|text| text.parse().unwrap()).collect();
        let mut kernel = Kernel::new(found);
        let problems = kernel.settle(&vrfs(RED), &cluster());
        let is_in = |kernel: &Kernel| kernel.found.links[&"eth1".into()].master.is_some();
        let Some(what) = expected else {
            assert!(problems.is_empty() && is_in(&kernel), "{problems:?}");
            continue;
        };
        assert!(!is_in(&kernel), "{what}");
        assert_eq!(
            problems[0].problem,
            format!(
                "the interface eth1 carries {what}, so crier does not put it into the VRF red: that would cut this host off"
            )
        );
        assert!(
            problems[0].remedy.ends_with("if it is meant so: ip link set eth1 master red"),
            "{}",
            problems[0].remedy
        );
        // By hand.
        kernel.link(&"eth1".into()).master = Some("red".into());
        assert_eq!(kernel.settle(&vrfs(RED), &cluster()), []);
        assert!(is_in(&kernel), "what the operator did stays");
        // Without manage nobody is told to do it either.
        let found = Found { defaults: kernel.found.defaults.clone(), ..host() };
        let mut kernel = Kernel::new(found);
        kernel.link(&"eth1".into()).carries = carries.iter().map(|text| text.parse().unwrap()).collect();
        let problems = kernel.settle(&vrfs(&RED.replace("manage = true", "manage = false")), &cluster());
        assert!(problems.iter().any(|it| it.problem.contains(&what)), "{problems:?}");
        assert!(problems.iter().all(|it| !it.problem.contains("lacks") || !it.remedy.contains("eth1 master")));
    }
    let uplinks_of = |own: &[&str], routes: &[DefaultRoute]| {
        let own = own.iter().map(|text| text.parse().unwrap()).collect();
        uplinks(routes, &own).into_keys().collect::<Vec<u32>>()
    };
    let both = [default("172.31.0.9", 4, 0), default("fe80::1", 3, 1024)];
    assert_eq!(
        uplinks_of(&["172.31.0.11"], &both),
        [4],
        "an advertisement of routers on a link of a Node of IPv4 alone"
    );
    assert_eq!(uplinks_of(&["172.31.0.11", "fd31::11"], &both), [3, 4]);
    assert_eq!(uplinks_of(&[], &both), [4], "the Node is not known");
    assert_eq!(uplinks_of(&[], &both[1..]), [3]);
}

/// Input: overlapping networks: eth1 is to have the Node's own address in a VRF, which eth2 has in the main table. Output:
/// it is in the VRF, after somebody deletes the device too, and where the host's own configuration gave it the address. Where eth1 alone
/// has the address, or another one of the Node's, it is left alone.
#[test]
fn a_vrf_has_the_address_of_the_node_once_more_and_comes_back() {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let overlapping = vrfs(&RED.replace("192.0.2.", "172.31.0."));
    let with = |carried: &[(&str, &str)]| {
        let mut found = host();
        for (name, net_there) in carried {
            let link = found.links.get_mut(&(*name).into()).unwrap();
            link.addresses.insert(net(net_there));
            link.carries.insert(net(net_there).addr());
        }
        found
    };
    let own = [ip("172.31.0.10")].into();
    let (cluster, made) = (cluster(), Made::default());
    let wanted = Wanted { vrfs: &overlapping, cluster: &cluster, own: &own, complete: true };
    let enslaves = |found: &Found, made: &Made| {
        let outcome = changes(&wanted, found, made);
        let is_in = outcome.steps.iter().any(|(_, change)| matches!(change, Change::Enslave { .. }));
        assert_eq!(is_in, outcome.problems.is_empty(), "{:?}", outcome.problems);
        is_in
    };
    let main = ("eth2", "172.31.0.10/24");
    assert!(enslaves(&with(&[main]), &made), "at first");
    assert!(
        enslaves(&with(&[main, ("eth1", "172.31.0.10/24")]), &made),
        "the host's configuration gave it the address"
    );
    let noted = Made { addresses: [("eth1".into(), net("172.31.0.10/24"))].into(), ..Made::default() };
    assert!(enslaves(&with(&[main, ("eth1", "172.31.0.10/24")]), &noted), "crier gave it the address");
    assert!(enslaves(&with(&[("eth1", "172.31.0.10/24")]), &noted), "while the other link has lost it");
    assert!(!enslaves(&with(&[("eth1", "172.31.0.10/24")]), &made), "the Node is on this link alone");
    let mut elsewhere = with(&[main, ("eth1", "172.31.0.10/24")]);
    elsewhere.links.get_mut(&"eth2".into()).unwrap().up = false;
    assert!(!enslaves(&elsewhere, &made), "the other link is down");
    elsewhere.links.get_mut(&"eth2".into()).unwrap().up = true;
    elsewhere.links.insert("blue".into(), FoundLink { index: 9, table: Some(1002), ..FoundLink::default() });
    elsewhere.links.get_mut(&"eth2".into()).unwrap().master = Some("blue".into());
    assert!(!enslaves(&elsewhere, &made), "the other one is in a VRF too");
    let unnamed = [ip("198.51.100.7")].into();
    let wanted = Wanted { own: &unnamed, ..wanted };
    let found = with(&[("eth1", "198.51.100.7/32"), ("eth2", "198.51.100.7/32")]);
    assert!(!changes(&wanted, &found, &made).problems.is_empty(), "[[vrf]] does not name it");
}

#[test]
fn what_was_there_before_is_adopted_and_stays_when_crier_goes() {
    let mut found = host();
    found.links.insert("red".into(), FoundLink { index: 9, table: Some(1001), up: true, ..FoundLink::default() });
    let eth1 = found.links.get_mut(&"eth1".into()).unwrap();
    eth1.addresses.insert(net("192.0.2.10/24"));
    eth1.master = Some("red".into());
    let to_all = Route {
        table: 1001,
        to: net("0.0.0.0/0"),
        hop: Hop::Via { via: "192.0.2.9".parse().unwrap(), link: "eth1".into() },
    };
    found.other_rules.insert(net("10.0.0.0/8"));
    let mut kernel = Kernel::new(found);
    kernel.settle(&vrfs(RED), &cluster());
    kernel.found.routes.insert(FoundRoute { route: to_all.clone(), ours: false });
    assert!(!kernel.found.our_rules.contains(&net("10.244.0.0/23")), "a wider rule of others serves as well");
    kernel.settle(&[], &cluster());
    assert_eq!(kernel.found.links[&"red".into()].table, Some(1001), "crier did not make the device");
    assert!(kernel.found.links[&"eth1".into()].addresses.contains(&net("192.0.2.10/24")));
    assert!(kernel.found.routes.contains(&FoundRoute { route: to_all, ours: false }));
    assert!(kernel.found.other_rules.contains(&net("10.0.0.0/8")));
}

#[test]
fn a_device_of_another_table_or_kind_and_a_port_of_a_bridge_are_left_alone() {
    let with = |name: &str, link: FoundLink| {
        let mut found = host();
        found.links.insert(name.into(), link);
        Kernel::new(found)
    };
    let port_of_bridge = FoundLink { master: Some("br0".into()), up: true, ..FoundLink::default() };
    let table = [
        (
            "red",
            FoundLink { table: Some(7), ..FoundLink::default() },
            "the VRF device red has the table 7, and [[vrf]] says 1001",
        ),
        ("red", FoundLink::default(), "red is a link, and no VRF"),
        ("eth1", port_of_bridge, "the interface eth1 is a part of br0, so it cannot be in the VRF red"),
    ];
    for (name, link, expected) in table {
        let mut kernel = with(name, link.clone());
        assert_eq!(kernel.settle(&vrfs(RED), &cluster())[0].problem, expected);
        assert_eq!(kernel.found.links[&name.into()], link);
    }
    // One that crier made itself follows the configuration.
    let mut kernel = Kernel::new(host());
    kernel.settle(&vrfs(RED), &cluster());
    assert_eq!(kernel.settle(&vrfs(&RED.replace("1001", "1003")), &cluster()), []);
    assert_eq!(kernel.found.links[&"red".into()].table, Some(1003));
    assert!(kernel.found.routes.iter().all(|it| it.route.table == 1003), "{:?}", kernel.found.routes);
}

#[test]
fn without_manage_nothing_is_changed_and_the_missing_commands_are_named() {
    let mut kernel = Kernel::new(host());
    let watched = vrfs(&RED.replace("manage = true", "manage = false"));
    let problems = kernel.settle(&watched, &cluster());
    assert_eq!(kernel.state(), Kernel::new(host()).state());
    assert_eq!(problems.len(), 1);
    for command in [
        "ip link add red type vrf table 1001; ",
        "ip link set red up; ",
        "ip link set eth1 master red; ",
        "ip address add 192.0.2.10/24 dev eth1; ",
        "ip route add 0.0.0.0/0 via 192.0.2.1 dev eth1 table 1001; ",
        "ip -6 route add ::/0 via fd02::1 dev eth1 table 1001; ",
        "ip rule add to 10.244.0.0/23 lookup main priority 990; ",
        "ip -6 rule add to fd44::/64 lookup main priority 990",
    ] {
        assert!(problems[0].remedy.contains(command), "{command} in {}", problems[0].remedy);
    }
    // What the commands make is enough.
    kernel.settle(&vrfs(RED), &cluster());
    kernel.found.other_rules = std::mem::take(&mut kernel.found.our_rules);
    assert_eq!(kernel.settle(&watched, &cluster()), []);
}

#[test]
fn an_interface_that_is_set_down_stays_down_and_is_named() {
    let mut kernel = Kernel::new(host());
    let red = vrfs(RED);
    kernel.settle(&red, &cluster());
    kernel.cycle(&"eth1".into());
    kernel.link(&"eth1".into()).up = false;
    let problems = kernel.settle(&red, &cluster());
    assert_eq!(problems[0].problem, "the interface eth1 of the VRF red is down");
    kernel.link(&"eth1".into()).up = true;
    assert_eq!(kernel.settle(&red, &cluster()), []);
}

/// Something that another program does.
#[derive(Debug, Clone)]
enum Drift {
    RemoveDevice(usize),
    Release(usize),
    RemoveAddress(usize),
    RemoveRoute(usize),
    RemoveRule(usize),
    RemoveL3mdev(usize),
    SetDeviceDown(usize),
    FlushTable(usize),
}

fn drift() -> impl Strategy<Value = Drift> {
    (0_u8..8, 0_usize..8).prop_map(|(kind, nth)| match kind {
        0 => Drift::RemoveDevice(nth),
        1 => Drift::Release(nth),
        2 => Drift::RemoveAddress(nth),
        3 => Drift::RemoveRoute(nth),
        4 => Drift::RemoveRule(nth),
        5 => Drift::RemoveL3mdev(nth),
        6 => Drift::FlushTable(nth),
        _ => Drift::SetDeviceDown(nth),
    })
}

impl Kernel {
    fn suffer(&mut self, drift: &Drift) {
        let device = |nth: usize| InterfaceName::from(["red", "blue"][nth % 2]);
        let port = |nth: usize| InterfaceName::from(["eth1", "eth2", "eth3"][nth % 3]);
        fn nth_of<T: Clone>(items: impl Iterator<Item = T>, nth: usize) -> Option<T> {
            let all: Vec<T> = items.collect();
            all.get(nth % all.len().max(1)).cloned()
        }
        match drift {
            Drift::RemoveDevice(nth) if self.found.links.contains_key(&device(*nth)) => {
                self.make(&Change::RemoveDevice { name: device(*nth) });
            }
            Drift::RemoveDevice(_) => {}
            Drift::Release(nth) => {
                self.link(&port(*nth)).master = None;
                self.cycle(&port(*nth));
            }
            Drift::FlushTable(nth) => {
                let port = port(*nth);
                self.found.routes.retain(|it| !matches!(&it.route.hop, Hop::Via { link, .. } if *link == port));
                let link = self.link(&port);
                if link.master.is_some() {
                    link.unrouted =
                        link.addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).copied().collect();
                }
            }
            // The address that eth1 had before is not crier's to put back.
            Drift::RemoveAddress(nth) => {
                self.link(&port(*nth)).addresses.retain(|net| net.prefix_len() == 32);
                self.link(&port(*nth)).unrouted.clear();
            }
            Drift::RemoveRoute(nth) => {
                if let Some(route) = nth_of(self.found.routes.iter().cloned(), *nth) {
                    self.found.routes.remove(&route);
                }
            }
            Drift::RemoveRule(nth) => {
                if let Some(rule) = nth_of(self.found.our_rules.iter().copied(), *nth) {
                    self.found.our_rules.remove(&rule);
                }
            }
            Drift::RemoveL3mdev(nth) => drop(self.found.l3mdev.remove(&Family::BOTH[nth % 2])),
            Drift::SetDeviceDown(nth) => {
                if let Some(link) = self.found.links.get_mut(&device(*nth)) {
                    link.up = false;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_another_program_takes_away_is_put_back(drifts in prop::collection::vec(drift(), 1..12)) {
        let both = vrfs(&format!("{RED}{BLUE}"));
        let mut start = host();
        // What the drifts may take away for good is not there.
        start.links.get_mut(&"eth1".into()).unwrap().addresses = [net("198.51.100.7/32")].into();
        let mut kernel = Kernel::new(start.clone());
        kernel.settle(&both, &cluster());
        let whole = kernel.state();
        for some in drifts.chunks(3) {
            some.iter().for_each(|drift| kernel.suffer(drift));
            prop_assert_eq!(kernel.settle(&both, &cluster()), []);
            prop_assert_eq!(&kernel.state(), &whole);
        }
        kernel.settle(&[], &cluster());
        prop_assert_eq!(kernel.state().links, Kernel::new(start).state().links);
        prop_assert!(kernel.found.routes.is_empty() && kernel.found.our_rules.is_empty() && kernel.made.is_empty());
    }
}
