//! Who owns what on the link: which Services each node answers for, and which addresses this node answers for itself.
//! Floor 1. It keeps what `verdict::l2` decided, so that the loss of a node leads to its Services at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::address::MacAddress;
use crate::claim::Acquisition;
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::slice::Standby;
use crate::plan::verdict::L2Work;
use crate::roster::{Holding, Holdings};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Ownership {
    works: BTreeMap<ObjectKey, L2Work>,
    /// The Services whose work names each address: several where they share it.
    workers: BTreeMap<IpAddr, Vec<ObjectKey>>,
    by_owner: BTreeMap<NodeName, BTreeSet<ObjectKey>>,
    open: BTreeSet<ObjectKey>,
    answers: OrdMap<IpAddr, Arc<BTreeSet<InterfaceName>>>,
    standbys: OrdMap<IpAddr, Standby>,
    acquisitions: OrdMap<IpAddr, Acquisition>,
    assertions: OrdMap<IpAddr, u32>,
    yields: OrdMap<(u32, IpAddr), MacAddress>,
    holdings: Holdings,
    apart: OrdMap<(u32, IpAddr), Holding>,
    moved: bool,
}

impl Ownership {
    /// What was decided about a Service.
    pub fn put(&mut self, service: &ObjectKey, work: L2Work) {
        let before = self.works.get(service);
        if before == Some(&work) || (before.is_none() && work == L2Work::default()) {
            return;
        }
        self.moved = true;
        let before = self.works.remove(service).unwrap_or_default();
        self.note_worker(service, &before, &work);
        for (address, _) in &before.answers {
            self.answers.remove(address);
            self.assertions.remove(address);
        }
        for (address, _) in &before.standbys {
            self.standbys.remove(address);
        }
        for (place, _) in &before.yields {
            self.yields.remove(place);
        }
        for (address, _) in &before.holdings {
            self.holdings.remove(address);
        }
        for (place, _) in &before.apart {
            self.apart.remove(place);
        }
        // What the Service leaves, those that share it go on with.
        let others: BTreeSet<&ObjectKey> =
            addresses(&before).iter().filter_map(|address| self.workers.get(address)).flatten().collect();
        for other in others.into_iter().filter_map(|other| self.works.get(other)) {
            self.answers.extend(other.answers.iter().cloned());
            self.standbys.extend(other.standbys.iter().cloned());
            self.assertions.extend(other.assertions.iter().copied());
            self.holdings.extend(other.holdings.iter().copied());
            self.apart.extend(other.apart.iter().copied());
        }
        self.answers.extend(work.answers.iter().cloned());
        self.standbys.extend(work.standbys.iter().cloned());
        // Of Services that share an address, the one that wants it answered counts.
        let is_answered = |address: &&IpAddr| self.answers.contains_key(*address);
        let both: Vec<IpAddr> = addresses(&before).union(&addresses(&work)).filter(is_answered).copied().collect();
        both.iter().for_each(|address| drop(self.standbys.remove(address)));
        self.acquisitions.extend(work.acquisitions.iter().cloned());
        self.assertions.extend(work.assertions.iter().copied());
        self.yields.extend(work.yields.iter().copied());
        self.holdings.extend(work.holdings.iter().copied());
        self.apart.extend(work.apart.iter().copied());
        // How an address came here is kept while it is held.
        for (address, _) in before.answers.iter().filter(|(address, _)| !self.answers.contains_key(address)) {
            self.acquisitions.remove(address);
        }
        for owner in before.owners.difference(&work.owners) {
            if let Some(services) = self.by_owner.get_mut(owner) {
                services.remove(service);
                if services.is_empty() {
                    self.by_owner.remove(owner);
                }
            }
        }
        for owner in work.owners.difference(&before.owners) {
            self.by_owner.entry(owner.clone()).or_default().insert(service.clone());
        }
        match work.open {
            true => drop(self.open.insert(service.clone())),
            false => drop(self.open.remove(service)),
        }
        if work != L2Work::default() {
            self.works.insert(service.clone(), work);
        }
    }

    fn note_worker(&mut self, service: &ObjectKey, before: &L2Work, work: &L2Work) {
        let (before, after) = (addresses(before), addresses(work));
        for address in before.difference(&after) {
            if let Some(workers) = self.workers.get_mut(address) {
                workers.retain(|worker| worker != service);
                if workers.is_empty() {
                    self.workers.remove(address);
                }
            }
        }
        for address in after.difference(&before) {
            self.workers.entry(*address).or_default().push(service.clone());
        }
    }

    /// The Services of which a node owns an address.
    pub fn owned_by(&self, node: &NodeName) -> impl Iterator<Item = &ObjectKey> {
        self.by_owner.get(node).into_iter().flatten()
    }

    /// The Services of which some address has no holder yet, or is about to have another.
    pub fn open(&self) -> impl Iterator<Item = &ObjectKey> {
        self.open.iter()
    }

    /// All nodes that own something.
    pub fn owners(&self) -> impl Iterator<Item = &NodeName> {
        self.by_owner.keys()
    }

    /// The addresses that this node answers for, each with the links.
    pub fn answers(&self) -> &OrdMap<IpAddr, Arc<BTreeSet<InterfaceName>>> {
        &self.answers
    }

    /// The addresses that another node is to answer for, and this one if the link shows that none does.
    pub fn standbys(&self) -> &OrdMap<IpAddr, Standby> {
        &self.standbys
    }

    /// How the addresses that this node answers for came to it, or are to come.
    pub fn acquisitions(&self) -> &OrdMap<IpAddr, Acquisition> {
        &self.acquisitions
    }

    /// Which of the addresses above are to be announced again.
    pub fn assertions(&self) -> &OrdMap<IpAddr, u32> {
        &self.assertions
    }

    /// Addresses that this node gave up to a node that may not know of it, by the link, with that node's MAC there.
    pub fn yields(&self) -> &OrdMap<(u32, IpAddr), MacAddress> {
        &self.yields
    }

    /// What this node says of addresses in its pulses.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// What it says instead on links where an address is held by itself.
    pub fn apart(&self) -> &OrdMap<(u32, IpAddr), Holding> {
        &self.apart
    }

    /// Whether anything changed since the last call.
    pub fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }
}

fn addresses(work: &L2Work) -> BTreeSet<IpAddr> {
    let answers = work.answers.iter().map(|(address, _)| *address);
    let standbys = work.standbys.iter().map(|(address, _)| *address);
    answers.chain(standbys).chain(work.holdings.iter().map(|(address, _)| *address)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn key() -> ObjectKey {
        ObjectKey::new("shop", "web")
    }

    fn here() -> L2Work {
        L2Work {
            answers: vec![(ADDRESS, Arc::new([InterfaceName::from("eth0")].into()))],
            acquisitions: vec![(ADDRESS, Acquisition::HandOver)],
            owners: [NodeName::from("a")].into(),
            ..L2Work::default()
        }
    }

    #[test]
    fn a_service_is_found_by_its_owner_as_long_as_it_has_that_owner() {
        let mut ownership = Ownership::default();
        ownership.put(&key(), here());
        assert_eq!(ownership.owned_by(&"a".into()).collect::<Vec<_>>(), [&key()]);
        assert_eq!((ownership.answers().len(), ownership.acquisitions().len()), (1, 1));
        let there = L2Work { owners: [NodeName::from("b")].into(), ..L2Work::default() };
        ownership.put(&key(), there);
        assert_eq!(ownership.owned_by(&"a".into()).count(), 0);
        assert_eq!(ownership.owners().collect::<Vec<_>>(), [&NodeName::from("b")]);
        assert_eq!((ownership.answers().len(), ownership.acquisitions().len()), (0, 0));
        ownership.put(&key(), L2Work { open: true, ..L2Work::default() });
        assert_eq!(ownership.open().collect::<Vec<_>>(), [&key()]);
        ownership.put(&key(), L2Work::default());
        assert!(ownership.works.is_empty() && ownership.by_owner.is_empty() && ownership.open.is_empty());
    }

    #[test]
    fn how_an_address_came_here_is_known_while_it_is_held() {
        let mut ownership = Ownership::default();
        ownership.put(&key(), here());
        ownership.put(&key(), L2Work { acquisitions: Vec::new(), ..here() });
        assert_eq!(ownership.acquisitions().get(&ADDRESS), Some(&Acquisition::HandOver));
    }

    #[test]
    fn a_shared_address_is_answered_for_until_the_last_service_that_wants_it_is_gone() {
        let mut ownership = Ownership::default();
        let other = ObjectKey::new("shop", "dns");
        ownership.put(&key(), here());
        ownership.put(&other, here());
        ownership.put(&key(), L2Work::default());
        assert_eq!((ownership.answers().len(), ownership.acquisitions().len()), (1, 1));
        ownership.put(&other, L2Work::default());
        assert_eq!((ownership.answers().len(), ownership.acquisitions().len()), (0, 0));
        assert!(ownership.workers.is_empty());
    }

    #[test]
    fn the_same_again_is_no_news() {
        let mut ownership = Ownership::default();
        ownership.put(&key(), here());
        assert!(ownership.take_moved());
        ownership.put(&key(), here());
        assert!(!ownership.take_moved());
    }
}
