//! The memory of the link: who had each address and how it moved, and what foreign hosts have.
//! Floor 1. It remembers and decides nothing. What is remembered is bounded by the addresses that are announced and by the
//! nodes that are heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use crate::address::MacAddress;
use crate::claim::ConflictKind;
use crate::names::InterfaceName;
use crate::plan::decision::Decision;
use crate::plan::placement::{Cause, Handover, Move, PastConflict, Placement};
use crate::world::{Conflict, Fact, World};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct LinkMemory {
    placements: OrdMap<IpAddr, Arc<Placement>>,
    /// Since they were last taken.
    handovers: Vec<Handover>,
    conflicts: Vec<(IpAddr, InterfaceName, ConflictKind)>,
    /// The conflicts that were told since the last turn.
    contested: BTreeSet<(IpAddr, InterfaceName)>,
    /// Addresses that this node found taken by foreign hosts, each until when the other agents are told.
    found: BTreeMap<IpAddr, Instant>,
    /// Which station each of these was found with, and each address that a station has which answers for everything.
    stations: OrdMap<IpAddr, MacAddress>,
    /// Addresses that pulses named as taken since the last turn.
    heard: BTreeSet<IpAddr>,
    /// Addresses that pulses of other nodes named as taken, each until when it counts: a pulse names few at a time.
    told: BTreeMap<IpAddr, Instant>,
    /// Something was told that may change which addresses foreign hosts have.
    occupied_moved: bool,
}

impl LinkMemory {
    /// Takes note of a fact on its way into the World.
    pub fn note_fact(&mut self, fact: &Fact) {
        self.occupied_moved |= matches!(fact, Fact::Conflict(..) | Fact::Roster(..) | Fact::Link(..));
        match fact {
            Fact::Conflict(address, link, _) => drop(self.contested.insert((*address, link.clone()))),
            Fact::Roster(_, Some(roster)) => {
                self.heard.extend(roster.members.values().flat_map(|member| member.occupied.iter()));
            }
            _ => {}
        }
    }

    /// Who has each address that is announced on a link, since when and why.
    pub fn placements(&self) -> &OrdMap<IpAddr, Arc<Placement>> {
        &self.placements
    }

    /// The addresses that have another owner since the last call; those that were only found to have it are left out.
    pub fn take_handovers(&mut self) -> Vec<Handover> {
        std::mem::take(&mut self.handovers)
    }

    /// The conflicts that began or changed their kind since the last call.
    pub fn take_conflicts(&mut self) -> Vec<(IpAddr, InterfaceName, ConflictKind)> {
        std::mem::take(&mut self.conflicts)
    }

    /// Works out which addresses foreign hosts have: all of them where that may have changed, `None` where it did not.
    ///
    /// What this node found is told to the other agents, so that whoever allocates takes none of it. That goes on for a time
    /// after this node gave such an address up, because nobody asks for the address any more; it ends where this node
    /// answers for the address itself, which `answers` says. What others found counts here for as long, unless a node holds it.
    /// `bound`: what other programs have on links of this node, and no Service has.
    ///
    /// A station that was found with [`MOST_OF_STATION`] addresses answers for everything, or for too much to look further: what
    /// it has beside these counts as no more taken than the rest, so no other address is tried for it.
    pub fn renew_occupied(
        &mut self,
        world: &World,
        bound: impl Iterator<Item = (IpAddr, MacAddress)>,
        answers: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) -> Option<BTreeSet<IpAddr>> {
        let before = (self.found.len(), self.told.len());
        let is_over = |address: &IpAddr, until: Instant| until <= now || answers(*address);
        let bound: BTreeMap<IpAddr, MacAddress> = bound.collect();
        let asked: BTreeMap<IpAddr, MacAddress> = occupied_here(world).collect();
        self.found.retain(|address, until| {
            asked.contains_key(address) || bound.contains_key(address) || !is_over(address, *until)
        });
        self.find(&asked, now);
        self.found.extend(bound.keys().map(|address| (*address, now + OCCUPIED_REST)));
        let here = || bound.iter().chain(&asked);
        let is_kept = |address: &IpAddr| self.found.contains_key(address) || asked.contains_key(address);
        let is_same = |(address, mac): (&IpAddr, &MacAddress)| self.stations.get(address) == Some(mac);
        if !here().all(is_same) || !self.stations.keys().all(is_kept) {
            let kept = self.stations.iter().chain(here()).filter(|(address, _)| is_kept(address));
            self.stations = kept.map(|(address, mac)| (*address, *mac)).collect();
        }
        self.told.extend(std::mem::take(&mut self.heard).into_iter().map(|address| (address, now + OCCUPIED_REST)));
        self.told.retain(|address, until| !is_over(address, *until));
        let moved = std::mem::take(&mut self.occupied_moved);
        if !moved && (self.found.len(), self.told.len()) == before {
            return None;
        }
        // With what was found before: once the address is given up nobody asks for it, and the conflict is over long before
        // the status says that the address is free.
        let members = || world.rosters.values().flat_map(|roster| roster.members.values());
        let is_held = |address: &IpAddr| {
            members().any(|it| it.holdings.get(address).is_some_and(|holding| holding.stage.answers()))
        };
        if moved {
            self.told.retain(|address, _| !is_held(address));
        }
        self.forget_oldest();
        let by_others = members().flat_map(|member| member.occupied.iter().chain(&member.card.gateways).copied());
        Some(self.found.keys().chain(self.told.keys()).copied().chain(by_others).collect())
    }

    /// Takes note of the addresses that stations answered for now.
    fn find(&mut self, asked: &BTreeMap<IpAddr, MacAddress>, now: Instant) {
        let mut by_station: BTreeMap<MacAddress, usize> = BTreeMap::new();
        if !asked.is_empty() {
            let known = self.stations.iter().filter(|(address, _)| self.found.contains_key(address));
            known.for_each(|(_, mac)| *by_station.entry(*mac).or_default() += 1);
        }
        for (address, mac) in asked {
            let count = by_station.entry(*mac).or_default();
            if self.found.contains_key(address) || *count < MOST_OF_STATION {
                *count += usize::from(self.found.insert(*address, now + OCCUPIED_REST).is_none());
            }
        }
    }

    /// Whoever has the key of the pulses could name any number.
    fn forget_oldest(&mut self) {
        while self.told.len() > MOST_KEPT {
            let oldest = self.told.iter().min_by_key(|(_, until)| **until).map(|(address, _)| *address);
            oldest.map(|address| self.told.remove(&address));
        }
    }

    /// The addresses that this node found taken, the newest first, as many as the other agents are told of.
    pub fn found(&self) -> Vec<IpAddr> {
        let mut newest: Vec<(Instant, IpAddr)> = self.found.iter().map(|(address, until)| (*until, *address)).collect();
        // Those that are in the way now are found anew with every turn: their order shall not change.
        newest.sort_by(|one, other| other.cmp(one));
        newest.into_iter().map(|(_, address)| address).take(MOST_TOLD).collect()
    }

    /// The addresses that this node found taken, with the station that has each.
    pub fn stations(&self) -> &OrdMap<IpAddr, MacAddress> {
        &self.stations
    }

    /// Who has the addresses of a Service from now on, where that is not who had them before. Another Service has the
    /// addresses `elsewhere` too.
    pub fn place(
        &mut self,
        before: Option<&Decision>,
        after: &Decision,
        causes: Vec<(IpAddr, Cause)>,
        elsewhere: &[IpAddr],
        now: Instant,
    ) {
        let stays = |address| after.announcements.iter().any(|it| it.address == address && it.is_on_link());
        for was in before.into_iter().flat_map(|before| &before.announcements) {
            if !stays(was.address) && !elsewhere.contains(&was.address) {
                self.placements.remove(&was.address);
            }
        }
        for (address, cause) in causes {
            let announcement = after.announcements.iter().find(|it| it.address == address);
            let owner = announcement.and_then(|it| it.l2.owner.clone());
            let known = self.placements.get(&address);
            let from = known.and_then(|known| known.owner.clone());
            let placement = Placement::next(known.map(|known| &**known), owner.clone(), cause, now);
            if let Some(Move { cause, .. }) =
                placement.last_move.as_ref().filter(|_| placement.witnessed && from != owner)
            {
                self.handovers.push(Handover { address, from, to: owner, cause: cause.clone() });
            }
            self.placements.insert(address, Arc::new(placement));
        }
    }

    /// No Service has these addresses any more.
    pub fn forget(&mut self, addresses: &[IpAddr]) {
        addresses.iter().for_each(|address| drop(self.placements.remove(address)));
    }

    /// Takes note of what became of the conflicts that were told. The last conflict about each address is remembered when
    /// it is over, too.
    pub fn note_conflicts(&mut self, world: &World, now: Instant) {
        for (address, link) in std::mem::take(&mut self.contested) {
            let Some(known) = self.placements.get(&address) else { continue };
            let told = world.conflicts.get(&address).and_then(|on_links| on_links.get(&link)).copied();
            let before = known.last_conflict.as_ref().filter(|before| before.link == link && before.over.is_none());
            let last_conflict = match (told, before) {
                (Some(conflict), _) => {
                    if before.is_none_or(|before| before.conflict.kind != conflict.kind) {
                        self.conflicts.push((address, link.clone(), conflict.kind));
                    }
                    PastConflict { link, conflict, over: None }
                }
                (None, Some(before)) => PastConflict { over: Some(now), ..before.clone() },
                (None, None) => continue,
            };
            let placement = Placement { last_conflict: Some(last_conflict), ..Placement::clone(known) };
            self.placements.insert(address, Arc::new(placement));
        }
    }
}

/// The addresses that this node is to answer for and that foreign hosts have, each with one of these hosts.
fn occupied_here(world: &World) -> impl Iterator<Item = (IpAddr, MacAddress)> {
    let station = |on_links: &OrdMap<_, Conflict>| {
        on_links.values().find(|it| it.kind == ConflictKind::Occupied).map(|it| it.mac)
    };
    world.conflicts.iter().filter_map(move |(address, on_links)| Some((*address, station(on_links)?)))
}

/// How many occupied addresses the other agents are told of at a time: what fits into a pulse.
const MOST_TOLD: usize = 8;

/// From so many addresses on, a station is not believed to have them all: each further one would be tried, and none be free.
const MOST_OF_STATION: usize = 8;

/// So many addresses that other nodes found taken are kept.
const MOST_KEPT: usize = 1024;

/// How long an address that a foreign host had when it was freed is not handed out again.
pub const OCCUPIED_REST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::clock;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn occupied() -> Fact {
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let conflict = Conflict { mac, kind: ConflictKind::Occupied, since: SystemTime::UNIX_EPOCH };
        Fact::Conflict(ADDRESS, "eth0".into(), Some(conflict))
    }

    fn told(memory: &mut LinkMemory, world: &mut World, fact: Fact) {
        memory.note_fact(&fact);
        world.apply(fact);
    }

    #[test]
    fn an_address_that_was_found_taken_is_told_until_its_time_is_over_or_this_node_answers_for_it() {
        let (mut memory, mut world, now) = (LinkMemory::default(), World::default(), clock::now());
        told(&mut memory, &mut world, occupied());
        assert_eq!(memory.renew_occupied(&world, std::iter::empty(), |_| true, now), Some([ADDRESS].into()));
        assert_eq!(memory.renew_occupied(&world, std::iter::empty(), |_| true, now), None, "no news");
        told(&mut memory, &mut world, Fact::Conflict(ADDRESS, "eth0".into(), None));
        assert_eq!(
            memory.renew_occupied(&world, std::iter::empty(), |_| false, now),
            Some([ADDRESS].into()),
            "given up, and still told"
        );
        assert_eq!(memory.found(), [ADDRESS]);
        assert_eq!(memory.stations().get(&ADDRESS), Some(&"02:00:00:00:00:09".parse().unwrap()));
        assert_eq!(memory.renew_occupied(&world, std::iter::empty(), |_| false, now + OCCUPIED_REST), Some([].into()));
        assert!(memory.stations().is_empty());
        told(&mut memory, &mut world, occupied());
        memory.renew_occupied(&world, std::iter::empty(), |_| true, now);
        told(&mut memory, &mut world, Fact::Conflict(ADDRESS, "eth0".into(), None));
        assert_eq!(
            memory.renew_occupied(&world, std::iter::empty(), |_| true, now),
            Some([].into()),
            "this node answers for it"
        );
    }

    #[test]
    fn an_address_that_another_program_has_on_a_link_is_told_like_one_of_a_foreign_host() {
        let (mut memory, world, now) = (LinkMemory::default(), World::default(), clock::now());
        let bound = || std::iter::once((ADDRESS, "02:00:00:00:00:09".parse().unwrap()));
        assert_eq!(memory.renew_occupied(&world, bound(), |_| false, now), Some([ADDRESS].into()));
        assert_eq!(memory.found(), [ADDRESS]);
        assert_eq!(memory.renew_occupied(&world, bound(), |_| false, now + OCCUPIED_REST), None, "it is still there");
    }
}
