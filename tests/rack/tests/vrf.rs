//! Peers in a VRF: two routers of one address, one beside the main table and one in the VRF, told apart by nothing else.

use rack::bird::PairedBird;
use rack::crier::Crier;
use rack::net::connect;
use rack::pairing::{Family, NODE, Pairing, ROUTER, Router};
use rack::{Namespace, Need, Rack, eventually, eventually_equal, secs};

/// A node with a link in the main table and a link in the VRF `red`, each with the same addresses and a router at its end.
struct Fork {
    rack: Rack,
    node: Namespace,
    /// In the main table, and in the VRF.
    routers: [Namespace; 2],
}

impl Fork {
    fn for_test() -> Option<Fork> {
        let rack = Rack::for_test(&[Need::Crier, Need::Bird, Need::LinkType("vrf")])?;
        let (node, routers) = (rack.namespace("node-1"), ["main", "red"].map(|name| rack.namespace(name)));
        node.ip("link add red type vrf table 1001");
        node.ip("link set red up");
        for (router, link) in routers.iter().zip(["eth0", "eth1"]) {
            connect(&node, link, router, "eth0");
            if link == "eth1" {
                node.ip("link set eth1 down");
                node.ip("link set eth1 master red");
            }
            node.up(link, &[&format!("{}/24", NODE.0), &format!("{}/64", NODE.1)]);
            router.up("eth0", &[&format!("{}/24", ROUTER.0), &format!("{}/64", ROUTER.1)]);
        }
        Some(Fork { rack, node, routers })
    }

    /// The two sessions, each with a password of its own.
    fn pairings(&self, like: &Pairing) -> [Pairing; 2] {
        ["of-main-5fca", "of-red-8d21"].map(|password| Pairing { password: Some(password.into()), ..like.clone() })
    }

    fn agent(&self, pairings: &[Pairing; 2]) -> Crier {
        let peers = pairings.iter().zip([("main", ""), ("red", "vrf = \"red\"\n")]).map(|(pairing, (name, vrf))| {
            let file = self.rack.write(&format!("{name}.password"), pairing.password.as_deref().unwrap_or_default());
            format!(
                "[[bgp.peer]]\nname = \"{name}\"\naddress = \"{}\"\nasn = {}\nconnect-retry-time = \"1s\"\n\
                 password-file = \"{}\"\npassive = {}\n{vrf}",
                pairing.router_address(),
                pairing.router_asn,
                file.display(),
                !pairing.crier_dials,
            )
        });
        let peers: String = peers.collect();
        self.node.announcer(&format!("[bgp]\nasn = {}\n{peers}", pairings[0].crier_asn))
    }

    /// Both sessions come up, and each router has the route of its own session.
    fn is_served(&self, like: &Pairing) {
        let pairings = self.pairings(like);
        let birds: Vec<PairedBird> =
            self.routers.iter().zip(&pairings).map(|(router, pairing)| router.bird_paired(pairing)).collect();
        let agent = self.agent(&pairings);
        for bird in &birds {
            eventually("the session is Established", secs(30), || {
                let session = bird.session();
                if session.is_established() { Ok(()) } else { Err(format!("{session:?}")) }
            });
            // Over IPv6 too the next hop of an IPv4 route is the IPv4 address of the session's link.
            let table = [("203.0.113.1/32".to_owned(), [NODE.0.into()].into())].into();
            eventually_equal("the route of the Service", secs(20), &table, || bird.0.routes());
        }
        // With the VRF down, only its session ends.
        let before = birds[0].session();
        self.node.ip("link set eth1 down");
        eventually_equal("the route in the VRF", secs(60), &0, || birds[1].0.routes().len());
        assert_eq!(birds[0].session(), before, "the session in the main table");
        drop(agent);
    }
}

#[test]
fn two_routers_of_one_address_are_dialled_in_the_main_table_and_in_a_vrf() {
    let Some(fork) = Fork::for_test() else { return };
    fork.is_served(&Pairing { router_dials: false, hold_time_secs: 9, ..Pairing::default() });
}

#[test]
fn two_routers_of_one_address_dial_a_listener_in_the_main_table_and_in_a_vrf() {
    let Some(fork) = Fork::for_test() else { return };
    fork.is_served(&Pairing { crier_dials: false, hold_time_secs: 9, ..Pairing::default() });
}

#[test]
fn over_ipv6_too() {
    let Some(fork) = Fork::for_test() else { return };
    fork.is_served(&Pairing { transport: Family::V6, hold_time_secs: 9, ..Pairing::default() });
}
