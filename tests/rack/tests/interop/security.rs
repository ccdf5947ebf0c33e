//! TCP MD5 (RFC 2385) and GTSM (RFC 5082): with both ends alike the session comes up, with only one of them never.

use rack::eventually;
use rack::pairing::{Family, Make, Pairing};

use crate::PATIENCE;
use crate::stage::{Expect, Stage, never_established};

pub const PASSWORD: &str = "right-5fca";

/// Every segment of the session is signed.
pub fn signed(make: Make, name: &str, pairing: Pairing) {
    let pairing = Pairing { password: Some(PASSWORD.into()), ..pairing };
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(2, &pairing.families);
    // crier first: where the router takes no signed connection, its own first dial has to find crier.
    let _crier = stage.crier(&pairing);
    let router = stage.start(make, &pairing);
    router.is_established();
    router.knows(&table);
    eventually("crier has dialled with a signature", PATIENCE, || {
        let dialled = |it: &&rack::capture::BgpSegment| it.dials && it.from.ip() == pairing.crier_address();
        capture.bgp_segments().iter().find(dialled).map_or(Err("it has not dialled"), |dial| {
            assert!(dial.is_signed, "unsigned: {dial:?}");
            Ok(())
        })
    });
    // A reset that answers an unsigned or ill-timed segment comes from the kernel and not from either end.
    let from_crier: Vec<_> =
        capture.bgp_segments().into_iter().filter(|it| it.from.ip() == pairing.crier_address()).collect();
    assert!(from_crier.iter().all(|segment| segment.is_signed), "some are unsigned: {from_crier:?}");
}

pub fn wrong_password(make: Make, name: &str) {
    let with = |password: &str| Pairing { password: Some(password.into()), ..Pairing::default() };
    are_strangers(make, name, &with("wrong-8d21"), &with(PASSWORD));
}

pub fn router_without_password(make: Make, name: &str) {
    are_strangers(make, name, &Pairing::default(), &Pairing { password: Some(PASSWORD.into()), ..Pairing::default() });
}

pub fn crier_without_password(make: Make, name: &str) {
    are_strangers(make, name, &Pairing { password: Some(PASSWORD.into()), ..Pairing::default() }, &Pairing::default());
}

/// Every segment arrives with all its hops left.
pub fn near(make: Make, name: &str, pairing: Pairing) {
    let pairing = Pairing { ttl_security: true, ..pairing };
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(2, &pairing.families);
    let _crier = stage.crier(&pairing);
    let router = stage.start(make, &pairing);
    router.is_established();
    router.knows(&table);
    // Of the connection that carries the session: the kernel answers one that nobody listens for as it likes.
    let session = eventually("the capture shows the session", PATIENCE, || {
        capture.bgp().last().map(|message| (message.from, message.to)).ok_or("no message")
    });
    let all = capture.bgp_segments();
    let segments = all.iter().filter(|it| it.from.ip() == pairing.crier_address());
    let of_session = segments.filter(|it| [session, (session.1, session.0)].contains(&(it.from, it.to)));
    let hops: Vec<u8> = of_session.map(|segment| segment.hops).collect();
    assert!(!hops.is_empty() && hops.iter().all(|hops| *hops == 255), "crier sent with {hops:?} hops left");
}

/// The router sends as one does that could be anywhere, and crier does not listen.
pub fn far(make: Make, name: &str) {
    are_strangers(make, name, &Pairing::default(), &Pairing { ttl_security: true, ..Pairing::default() });
}

/// With these two configurations there is no session, though both ends try.
fn are_strangers(make: Make, name: &str, routers: &Pairing, criers: &Pairing) {
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    stage.services(1, &[Family::V4]);
    let router = stage.start(make, routers);
    let crier = stage.crier(criers);
    // Not that the router dials: one that has accepted crier's connection may wait for more to come over it.
    eventually("both ends have tried", PATIENCE, || {
        let segments = capture.bgp_segments();
        let dialled = segments.iter().any(|it| it.dials && it.from.ip() == criers.crier_address());
        let tried = segments.iter().any(|it| it.from.ip() == routers.router_address());
        if dialled && tried { Ok(()) } else { Err(format!("crier has: {dialled}, the router has: {tried}")) }
    });
    never_established(&*router, &crier);
    assert!(router.routes().is_empty(), "routes without a session: {:?}", router.routes());
}
