//! The observer of links: what it tells when the kernel's links change.

use std::collections::BTreeMap;

use crier::kernel::observe;
use crier::world::{Fact, Link};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::namespace::{Namespace, ip};
use crate::tests;
use crate::wire::{NODE_IP, NODE_MAC, SOON, Wire};

tests!(
    every_link_is_told_before_the_list_is_called_complete,
    each_change_of_a_link_is_told_and_its_end,
    a_port_that_leaves_its_bridge_is_not_told_as_gone,
    a_burst_that_overruns_the_socket_loses_nothing,
);

struct Told {
    facts: mpsc::Receiver<Fact>,
    links: BTreeMap<u32, Link>,
}

impl Told {
    fn start() -> Told {
        let (sender, facts) = mpsc::channel(4);
        tokio::spawn(observe::run(sender));
        Told { facts, links: BTreeMap::new() }
    }

    /// Takes the next fact in; whether it says that all links are listed.
    async fn next(&mut self) -> bool {
        let fact = timeout(SOON, self.facts.recv()).await;
        match fact.unwrap_or_else(|_| panic!("nothing told; known are {:#?}", self.links)).expect("an observer") {
            Fact::Link(index, Some(link)) => drop(self.links.insert(index, link)),
            Fact::Link(index, None) => {
                assert!(self.links.remove(&index).is_some(), "the end of an unknown link {index}")
            }
            Fact::LinksListed => return true,
            other => panic!("the observer of links told {other:?}"),
        }
        false
    }

    fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name.as_str() == name)
    }

    async fn until(&mut self, mut condition: impl FnMut(&Told) -> bool) {
        while !condition(self) {
            self.next().await;
        }
    }
}

fn every_link_is_told_before_the_list_is_called_complete() {
    let wire = Wire::new();
    wire.run(async || {
        let mut told = Told::start();
        while !told.next().await {}
        let lo = told.link("lo").expect("lo");
        assert!(lo.loopback && lo.up && lo.carrier && !lo.arp && lo.mac.is_none(), "{lo:?}");
        let eth0 = told.link("eth0").expect("eth0");
        assert!(eth0.up && eth0.arp && !eth0.loopback, "{eth0:?}");
        assert_eq!((eth0.mac, eth0.master), (Some(NODE_MAC), None));
        let address = format!("{NODE_IP}/24").parse().expect("a prefix");
        assert!(eth0.addresses.contains(&address), "{eth0:?}");
    });
}

fn each_change_of_a_link_is_told_and_its_end() {
    let wire = Wire::new();
    wire.run(async || {
        let mut told = Told::start();
        told.until(|told| told.link("eth0").is_some_and(|link| link.carrier)).await;
        let index = told.link("eth0").expect("eth0").index;

        wire.node.enter(|| ip("address add fd35::1/64 dev eth0 nodad"));
        let address = "fd35::1/64".parse().expect("a prefix");
        told.until(|told| told.link("eth0").is_some_and(|link| link.addresses.contains(&address))).await;
        wire.client.enter(|| ip("link set eth0 down"));
        told.until(|told| told.link("eth0").is_some_and(|link| link.up && !link.carrier)).await;
        wire.node.enter(|| ip("link set eth0 down"));
        told.until(|told| told.link("eth0").is_some_and(|link| !link.up)).await;
        wire.node.enter(|| ip("link set eth0 name eth7"));
        told.until(|told| told.link("eth7").is_some()).await;
        assert_eq!(told.link("eth7").map(|link| link.index), Some(index));
        wire.node.enter(|| ip("link delete eth7"));
        told.until(|told| told.link("eth7").is_none()).await;
        assert_eq!(told.links.len(), 1, "only lo is left: {:#?}", told.links);
    });
}

fn a_port_that_leaves_its_bridge_is_not_told_as_gone() {
    let wire = Wire::new();
    wire.run(async || {
        let mut told = Told::start();
        wire.node.enter(|| {
            ip("link add br0 type bridge");
            ip("link set eth0 master br0");
        });
        told.until(|told| told.link("eth0").is_some_and(|link| link.master.is_some())).await;
        wire.node.enter(|| ip("link set eth0 nomaster"));
        told.until(|told| told.link("eth0").is_some_and(|link| link.master.is_none())).await;
        // What comes after this was told after whatever the port's leaving caused.
        wire.node.enter(|| ip("link add last type veth peer name plug9"));
        told.until(|told| told.link("last").is_some()).await;
        assert!(told.link("eth0").is_some());
    });
}

fn a_burst_that_overruns_the_socket_loses_nothing() {
    let namespace = Namespace::new();
    namespace.enter(|| {
        // One thread, so that nobody reads the events while the burst goes on.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut told = Told::start();
            while !told.next().await {}
            ip("link add many type veth peer name plug9");
            let file = tempfile::NamedTempFile::new().expect("a file");
            let batch: String =
                (0..4000).map(|n| format!("address add 10.1.{}.{}/32 dev many\n", n / 250, n % 250)).collect();
            std::fs::write(file.path(), batch).expect("a batch");
            ip(&format!("-batch {}", file.path().display()));
            told.until(|told| told.link("many").is_some_and(|link| link.addresses.len() == 4000)).await;
            ip("link delete many");
            told.until(|told| told.link("many").is_none()).await;
        });
    });
}
