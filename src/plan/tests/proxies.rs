//! Stations that answer for addresses which Services were just given: one that answers for every address, and many that have one each.

use std::collections::BTreeSet;

use super::pulses::{heard, roster};
use super::*;
use crate::address::MacAddress;
use crate::world::{Conflict, Pulses};

/// Agents that hear each other, with a station on their link that answers every probe for some addresses.
struct Link {
    agents: Vec<Story>,
    /// Which station has an address.
    station: fn(IpAddr) -> Option<MacAddress>,
    /// What each agent was told that a station has.
    told: Vec<BTreeSet<IpAddr>>,
    writes: usize,
}

impl Link {
    fn new(agents: usize, services: usize, config: &Config, station: fn(IpAddr) -> Option<MacAddress>) -> Link {
        let names = &["a", "b", "c"][..agents];
        let agents = names.iter().map(|name| {
            let mut story = Story::begin_on(name, config.clone());
            ["a", "b", "c"][names.len()..].iter().for_each(|name| story.tell(Fact::Node((*name).into(), None)));
            story.tell(Fact::Allocates(*name == "a"));
            story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
            (0..services).for_each(|number| story.endpoints(&format!("s{number}"), names));
            story
        });
        let mut link = Link { agents: agents.collect(), station, told: vec![BTreeSet::new(); names.len()], writes: 0 };
        link.hear();
        for number in 0..services {
            link.agents.iter_mut().for_each(|story| drop(story.put(&format!("s{number}"), service())));
        }
        link
    }

    /// Each agent reads what the others say in their pulses.
    fn hear(&mut self) {
        let said: Vec<_> = self
            .agents
            .iter()
            .map(|it| (it.planner.node().clone(), it.planner.plan().pulse.occupied.clone()))
            .collect();
        for story in &mut self.agents {
            let me = story.planner.node().clone();
            let others: Vec<(&str, &[&str])> =
                said.iter().filter(|it| it.0 != me).map(|it| (it.0.as_str(), &[][..])).collect();
            story.tell(heard(roster(&others, &[]), |roster| {
                for (name, member) in &mut roster.members {
                    let occupied = said.iter().find(|it| it.0 == *name).map(|it| it.1.iter().copied().collect());
                    member.occupied = Arc::new(occupied.unwrap_or_default());
                }
            }));
            story.turn();
        }
    }

    /// Each agent asks on the link for what it is to answer for.
    fn ask(&mut self) {
        for (story, told) in self.agents.iter_mut().zip(&mut self.told) {
            let asked: BTreeSet<IpAddr> = story.planner.plan().l2.addresses.keys().copied().collect();
            let found: BTreeSet<IpAddr> = asked.into_iter().filter(|it| (self.station)(*it).is_some()).collect();
            let (before, station) = (std::mem::replace(told, found.clone()), self.station);
            for address in before.union(&found) {
                let mac = station(*address).filter(|_| found.contains(address));
                let since = std::time::SystemTime::UNIX_EPOCH;
                let conflict = mac.map(|mac| Conflict { mac, kind: ConflictKind::Occupied, since });
                story.tell(Fact::Conflict(*address, "eth0".into(), conflict));
            }
            story.turn();
        }
    }

    /// The API server takes what the one that allocates wants written, and tells all.
    fn write(&mut self) {
        let wanted: Vec<ObjectKey> = {
            let services = &self.agents[0].planner.plan().status.services;
            services.iter().filter(|(_, it)| it.write.is_some()).map(|(key, _)| key.clone()).collect()
        };
        for key in wanted {
            let is_wanted = |it: &Story| it.planner.plan().status.services[&key].write.is_some();
            if !is_wanted(&self.agents[0]) {
                continue;
            }
            self.writes += 1;
            self.agents[0].confirm(&key.name);
            let written = self.agents[0].planner.world().services[&key].clone();
            for story in &mut self.agents {
                story.tell(Fact::Service(key.clone(), Some(written.clone())));
                story.turn();
            }
        }
    }

    fn run(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.write();
            self.ask();
            self.hear();
            self.agents.iter_mut().for_each(|story| story.now += Duration::from_millis(50));
        }
    }
}

const PROXY: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);

fn wide() -> Config {
    let mut config = configuration();
    config.pools =
        vec![pool("lan", &["192.168.35.100-192.168.35.180"]), pool("more", &["192.168.35.190-192.168.35.240"])];
    config
}

/// A6 of the field cases. Input: a station that answers for every address of the pools. Output: however many agents
/// and Services there are, a few addresses are tried, each Service keeps the last one that it got, and no other writer is suspected.
#[test]
fn a_station_that_answers_for_everything_costs_a_few_exchanges() {
    for (agents, services) in [(1, 6), (2, 6), (3, 3), (3, 15)] {
        let mut link = Link::new(agents, services, &wide(), |_| Some(PROXY));
        link.run(50);
        let writes = link.writes;
        // Each Service has its first address written, and each node that asks finds eight at most.
        assert!(writes <= services * 2 + 10 * agents, "{agents} agents, {services} Services: {writes} writes");
        link.run(50);
        assert_eq!(link.writes, writes, "{agents} agents, {services} Services");
        for number in 0..services {
            let decision = link.agents[0].decision(&format!("s{number}"));
            assert_eq!(decision.allocation.held.len(), 1, "{decision:?}");
            let is_of_writer = |it: &Reason| matches!(it, Reason::StatusOverwritten { .. });
            assert!(!decision.allocation.complaint.as_ref().is_some_and(is_of_writer), "{decision:?}");
        }
        let taken = |story: &Story| story.planner.plan().taken.values().filter(|mac| **mac == PROXY).count();
        assert!(link.agents.iter().any(|story| taken(story) >= 3), "the station is named");
    }
}

/// The same where each address has a station of its own, so that none of them answers for much. Output: four exchanges for each Service,
/// which says so.
#[test]
fn a_service_gets_a_few_other_addresses_and_keeps_the_last() {
    let station = |address: IpAddr| match address {
        IpAddr::V4(address) => Some(MacAddress([2, 0, 0, 0, 1, address.octets()[3]])),
        IpAddr::V6(_) => None,
    };
    for agents in [1, 2, 3] {
        let mut link = Link::new(agents, 3, &wide(), station);
        link.run(60);
        let writes = link.writes;
        // The first, four others, and that it is enough.
        assert!(writes <= 3 * 6, "{agents} agents: {writes} writes");
        link.run(50);
        assert_eq!(link.writes, writes);
        for name in ["s0", "s1", "s2"] {
            let decision = link.agents[0].decision(name);
            let complaint = decision.allocation.complaint.clone();
            assert!(matches!(complaint, Some(Reason::ExchangedEnough { .. })), "{agents} agents: {complaint:?}");
        }
    }
}

/// Input: a pulse names other addresses than before, because it has no room for all. Output: those of before count as taken for as long as
/// those that this node found itself, unless a node has them meanwhile.
#[test]
fn what_another_agent_found_taken_stays_so_though_its_pulses_name_others() {
    let hearing_of = |occupied: &[&str], holds: &[&str]| {
        heard(roster(&[("b", holds)], &[]), |roster| {
            let b = roster.members.get_mut(&NodeName::from("b")).unwrap();
            b.occupied = Arc::new(occupied.iter().map(|it| it.parse().unwrap()).collect());
        })
    };
    let mut story = Story::begin(configuration());
    story.tell(Fact::Pulses(Pulses::On { authenticated: true }));
    story.tell(hearing_of(&["192.168.35.100"], &[]));
    story.tell(hearing_of(&["192.168.35.101"], &[]));
    story.turn();
    story.tell(hearing_of(&["192.168.35.102"], &[]));
    story.put("web", service());
    assert_eq!(story.addresses("web"), ["192.168.35.103"], "also what was named between two turns");
    story.tell(hearing_of(&[], &["192.168.35.100"]));
    story.put("api", service());
    assert_eq!(story.addresses("api"), ["192.168.35.100"], "a node has it: no foreign host does");
    story.now += Duration::from_secs(600);
    story.put("mail", service());
    assert_eq!(story.addresses("mail"), ["192.168.35.101"]);
}

/// Input: an address that is reserved for a Service is taken on the link before it is used. Output: the Service keeps it, as one that it
/// names, and the agent does not choose it again and again.
#[test]
fn a_reserved_address_is_exchanged_for_no_other() {
    for mut config in [configuration(), standalone()] {
        let first: IpAddr = "192.168.35.100".parse().unwrap();
        config.reservations = vec![config::Reservation { service: key("web"), addresses: vec![first] }];
        let mut story = Story::begin(config);
        story.put("web", service());
        assert_eq!(story.addresses("web"), ["192.168.35.100"]);
        let since = std::time::SystemTime::UNIX_EPOCH;
        let conflict = Conflict { mac: PROXY, kind: ConflictKind::Occupied, since };
        story.tell(Fact::Conflict(first, "eth0".into(), Some(conflict)));
        story.turn();
        assert_eq!(story.addresses("web"), ["192.168.35.100"]);
    }
}
