//! The cases, each played with every router.

use rack::pairing::{Family, Make, Pairing};
use rack::{eventually, millis, rest};

use crate::PATIENCE;
use crate::stage::{Expect, Stage};
use crate::{life, security};

/// One row of the table.
pub struct Case {
    pub name: &'static str,
    pub run: fn(Make, &str),
}

impl Case {
    const fn new(name: &'static str, run: fn(Make, &str)) -> Case {
        Case { name, run }
    }
}

pub static CASES: [Case; 26] = [
    Case::new("eBGP over IPv4", |make, name| routes_come_and_go(make, name, Pairing::default())),
    Case::new("eBGP over IPv6", |make, name| routes_come_and_go(make, name, over_v6())),
    Case::new("iBGP over IPv4", |make, name| {
        routes_come_and_go(make, name, Pairing { router_asn: 64513, ..Pairing::default() });
    }),
    Case::new("iBGP over IPv6", |make, name| {
        routes_come_and_go(make, name, Pairing { router_asn: 64513, ..over_v6() });
    }),
    Case::new("both families over IPv4", |make, name| {
        routes_come_and_go(make, name, Pairing { families: BOTH.to_vec(), ..Pairing::default() });
    }),
    Case::new("both families over IPv6", |make, name| {
        let families = BOTH.to_vec();
        routes_come_and_go(make, name, Pairing { transport: Family::V6, families, ..Pairing::default() });
    }),
    Case::new("4-octet AS numbers", |make, name| {
        let pairing = Pairing { router_asn: 4_200_000_002, crier_asn: 4_200_000_001, ..Pairing::default() };
        routes_come_and_go(make, name, pairing);
    }),
    Case::new("1,000 prefixes", services_arrive),
    Case::new("crier passive", |make, name| {
        life::only_one_dials(make, name, &Pairing { crier_dials: false, ..Pairing::default() });
    }),
    Case::new("router passive", |make, name| {
        life::only_one_dials(make, name, &Pairing { router_dials: false, ..Pairing::default() });
    }),
    Case::new("MD5 over IPv4", |make, name| security::signed(make, name, Pairing::default())),
    Case::new("MD5 over IPv6", |make, name| security::signed(make, name, over_v6())),
    Case::new("MD5, wrong password", security::wrong_password),
    Case::new("MD5, router has none", security::router_without_password),
    Case::new("MD5, crier has none", security::crier_without_password),
    Case::new("GTSM over IPv4", |make, name| security::near(make, name, Pairing::default())),
    Case::new("GTSM over IPv6", |make, name| security::near(make, name, over_v6())),
    Case::new("GTSM, router seems far", security::far),
    Case::new("route refresh", life::asked_again),
    Case::new("router stops answering", life::router_freezes),
    Case::new("crier stops answering", life::crier_freezes),
    Case::new("crier's last word", life::last_word),
    Case::new("router's last word", life::routers_last_word),
    Case::new("crier restarts", life::crier_restarts),
    Case::new("router restarts", life::router_restarts),
    Case::new("100,000 prefixes", many_arrive),
];

/// IPv6 routes over IPv6.
fn over_v6() -> Pairing {
    Pairing { transport: Family::V6, families: vec![Family::V6], ..Pairing::default() }
}

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// The session is established and stays so while Services come, change and go, and the router's table follows.
fn routes_come_and_go(make: Make, name: &str, pairing: Pairing) {
    let stage = Stage::new(name);
    let one = stage.services(1, &pairing.families);
    let router = stage.start(make, &pairing);
    let _crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&one);
    let three = stage.services(3, &pairing.families);
    router.knows(&three);
    let none = stage.services(0, &pairing.families);
    router.knows(&none);
    let session = router.session();
    assert!(session.is_established() && session.times_established == 1, "the session has flapped: {session:?}");
}

/// A thousand Services and exactly their routes.
fn services_arrive(make: Make, name: &str) {
    let stage = Stage::new(name);
    let table = stage.services(1_000, &[Family::V4]);
    let pairing = Pairing::default();
    let router = stage.start(make, &pairing);
    let _crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    assert_eq!(router.session().times_established, 1, "the session has flapped: {:?}", router.session());
}

/// A hundred thousand routes, exactly, from crier's speaker: manifests of as many Services would only take longer.
fn many_arrive(make: Make, name: &str) {
    let stage = Stage::new(name);
    let pairing = Pairing::default();
    let router = stage.start(make, &pairing);
    let (table, speaker) = stage.announce(&pairing, 100_000);
    router.is_established();
    // The whole table only once it is all there: some routers take seconds to print it.
    eventually("all routes have come", PATIENCE * 3, || {
        speaker.expect_running();
        let count = router.route_count();
        if count == table.len() {
            return Ok(());
        }
        rest(millis(100));
        Err(count)
    });
    // Not at the first look: ExaBGP's helper may still be writing the last line.
    eventually("exactly what was announced", PATIENCE, || {
        let routes = router.routes();
        let strange = routes.iter().find(|(prefix, hops)| table.get(*prefix) != Some(*hops));
        if routes == table { Ok(()) } else { Err(format!("{} routes, one not of crier: {strange:?}", routes.len())) }
    });
    assert_eq!(router.session().times_established, 1, "the session has flapped: {:?}", router.session());
}
