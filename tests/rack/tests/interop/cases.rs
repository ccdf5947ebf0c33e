//! The cases, each played with every router.

use rack::pairing::{Family, Make, Pairing};

use crate::stage::{Stage, is_established, knows};

/// One row of the table.
pub struct Case {
    pub name: &'static str,
    pub run: fn(Make, &str),
    /// Why crier cannot do its part, if it cannot yet.
    pub unsupported: fn() -> Option<&'static str>,
}

impl Case {
    const fn new(name: &'static str, run: fn(Make, &str)) -> Case {
        Case { name, run, unsupported: || None }
    }
}

pub static CASES: [Case; 7] = [
    Case::new("eBGP over IPv4", |make, name| routes_come_and_go(make, name, Pairing::default())),
    Case::new("eBGP over IPv6", |make, name| {
        routes_come_and_go(
            make,
            name,
            Pairing { transport: Family::V6, families: vec![Family::V6], ..Pairing::default() },
        );
    }),
    Case::new("iBGP over IPv4", |make, name| {
        routes_come_and_go(make, name, Pairing { router_asn: 64513, ..Pairing::default() });
    }),
    Case::new("iBGP over IPv6", |make, name| {
        let pairing =
            Pairing { router_asn: 64513, transport: Family::V6, families: vec![Family::V6], ..Pairing::default() };
        routes_come_and_go(make, name, pairing);
    }),
    Case::new("both families over IPv4", |make, name| {
        routes_come_and_go(make, name, Pairing { families: BOTH.to_vec(), ..Pairing::default() });
    }),
    Case::new("both families over IPv6", |make, name| {
        let pairing = Pairing { transport: Family::V6, families: BOTH.to_vec(), ..Pairing::default() };
        routes_come_and_go(make, name, pairing);
    }),
    Case::new("4-octet AS numbers", |make, name| {
        let pairing = Pairing { router_asn: 4_200_000_002, crier_asn: 4_200_000_001, ..Pairing::default() };
        routes_come_and_go(make, name, pairing);
    }),
];

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// The session is established and stays so while Services come, change and go, and the router's table follows.
fn routes_come_and_go(make: Make, name: &str, pairing: Pairing) {
    let stage = Stage::new(name);
    let one = stage.services(1, &pairing.families);
    let router = stage.start(make, &pairing);
    let _crier = stage.crier(&pairing);
    is_established(&*router);
    knows(&*router, &one);
    let three = stage.services(3, &pairing.families);
    knows(&*router, &three);
    stage.services(0, &pairing.families);
    knows(&*router, &Default::default());
    let session = router.session();
    assert!(session.is_established() && session.times_established == 1, "the session has flapped: {session:?}");
}
