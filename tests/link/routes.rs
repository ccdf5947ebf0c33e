//! The observer of default routes: what it tells when the kernel's routes change, also without a word about routes.

use crier::kernel::routes;
use crier::world::{DefaultRoute, Fact};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::namespace::ip;
use crate::tests;
use crate::wire::{SOON, Wire};

tests!(default_routes_are_told_at_first_and_at_each_change);

fn default_routes_are_told_at_first_and_at_each_change() {
    let wire = Wire::new();
    wire.run(async || {
        let (sender, mut facts) = mpsc::channel(4);
        tokio::spawn(routes::run(sender));
        let mut told = async |what: &str| -> Vec<(String, u32)> {
            let fact = timeout(SOON, facts.recv()).await.unwrap_or_else(|_| panic!("nothing told: {what}"));
            let Some(Fact::DefaultRoutes(routes)) = fact else { panic!("{what}: {fact:?}") };
            let text = |DefaultRoute { family: _, gateway, link: _, metric, vrf: _, dead: _, dropped: _ }| {
                (gateway.map_or("dev".to_owned(), |gateway| gateway.to_string()), metric)
            };
            routes.into_iter().map(text).collect()
        };
        let node = |command: &str| drop(wire.node.enter(|| ip(command)));
        assert_eq!(told("at first").await, []);
        let (first, second) = (("192.168.35.2".to_owned(), 100), ("192.168.35.3".to_owned(), 50));
        node("route add default via 192.168.35.2 metric 100");
        assert_eq!(told("the first").await, std::slice::from_ref(&first));
        node("route add 10.0.0.0/8 via 192.168.35.2");
        node("route add default via 192.168.35.9 table 77");
        node("route add default via 192.168.35.3 metric 50");
        assert_eq!(told("a better one").await, [second, first.clone()]);
        node("route delete default via 192.168.35.3 metric 50");
        assert_eq!(told("the first again").await, std::slice::from_ref(&first));
        node("route add default dev eth0 metric 70");
        assert_eq!(told("one to the link itself").await, [("dev".to_owned(), 70), first.clone()]);
        node("route delete default dev eth0 metric 70");
        assert_eq!(told("without it").await, std::slice::from_ref(&first));
        // The kernel takes IPv4 routes away with their link and says nothing of them.
        node("link set eth0 down");
        assert_eq!(told("the link is down").await, []);
        node("link set eth0 up");
        node("route add default nexthop via 192.168.35.2 dev eth0 nexthop via 192.168.35.3 dev eth0");
        let hops = [("192.168.35.2".to_owned(), 0), ("192.168.35.3".to_owned(), 0)];
        assert_eq!(told("two next hops").await, hops);
        node("-6 route add default via fe80::1 dev eth0 metric 7");
        let v6 = ("fe80::1".to_owned(), 7);
        assert_eq!(told("IPv6").await, [&hops[..], std::slice::from_ref(&v6)].concat());
        // Nor with its last address.
        node("-4 address flush dev eth0");
        assert_eq!(told("the link has no IPv4 address").await, [v6]);
    });
}
