//! The life of a session: who dials, a refresh, silence of either end, last words, and restarts.

use rack::capture::BgpKind;
use rack::pairing::{Family, Make, Pairing};
use rack::{eventually, eventually_equal, secs};

use crate::PATIENCE;
use crate::stage::{Expect, Stage, crier_state};

const HOLD_TIME_SECS: u16 = 3;

/// What crier says when it is told to stop.
pub const LAST_WORD: &str = "the agent stops";

/// The end that is passive never dials, and the session comes up nevertheless.
pub fn only_one_dials(make: Make, name: &str, pairing: &Pairing) {
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(2, &[Family::V4]);
    // The passive end first: a router whose first dial is refused may wait two minutes before the next.
    let early = (!pairing.crier_dials).then(|| stage.crier(pairing));
    let router = stage.start(make, pairing);
    let _crier = early.unwrap_or_else(|| stage.crier(pairing));
    router.is_established();
    router.knows(&table);
    let passive = if pairing.crier_dials { pairing.router_address() } else { pairing.crier_address() };
    let dials = capture.bgp_segments().into_iter().filter(|segment| segment.dials);
    let wrong: Vec<_> = dials.filter(|dial| dial.from.ip() == passive).collect();
    assert!(wrong.is_empty(), "{passive} is passive and has dialled: {wrong:?}");
}

/// RFC 2918: each route is announced once more, and nothing is withdrawn.
pub fn asked_again(make: Make, name: &str) {
    const COUNT: u32 = 20;
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(COUNT, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let _crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    let announced = || -> Vec<usize> { table.keys().map(|prefix| capture.announcements(prefix).len()).collect() };
    // The capture may be behind the router.
    let before = eventually("every route has gone by", PATIENCE, || {
        let seen = announced();
        if seen.iter().all(|count| *count > 0) { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    router.ask_again();
    eventually("the router's ROUTE-REFRESH goes by", PATIENCE, || {
        let asked =
            capture.bgp().iter().any(|it| it.kind == BgpKind::RouteRefresh && it.from.ip() == pairing.router_address());
        if asked { Ok(()) } else { Err("none has") }
    });
    let expected: Vec<usize> = before.iter().map(|count| count + 1).collect();
    eventually_equal("each route was announced once more", PATIENCE, &expected, announced);
    let withdrawn: Vec<&String> = table.keys().filter(|prefix| !capture.withdrawals(prefix).is_empty()).collect();
    assert!(withdrawn.is_empty(), "withdrawn for a refresh: {withdrawn:?}");
    router.knows(&table);
    assert_eq!(router.session().times_established, 1, "the session has flapped: {:?}", router.session());
}

/// RFC 4271 §6.5: crier says that the hold timer expired, and the session comes back with the router.
pub fn router_freezes(make: Make, name: &str) {
    let pairing = Pairing { hold_time_secs: HOLD_TIME_SECS, ..Pairing::default() };
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(2, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    router.process().freeze();
    eventually("crier says Hold Timer Expired", PATIENCE, || {
        let expired = BgpKind::Notification { code: 4, subcode: 0 };
        let messages = capture.bgp();
        let said = messages.iter().any(|it| it.kind == expired && it.from.ip() == pairing.crier_address());
        if said { Ok(()) } else { Err(format!("crier says {}", crier_state(&crier))) }
    });
    router.process().thaw();
    eventually("crier has the session established again", PATIENCE * 2, || {
        let state = crier_state(&crier);
        if state == "Established" { Ok(()) } else { Err(state) }
    });
    router.is_established();
    router.knows(&table);
}

/// The router says that the hold timer expired, and the session comes back with crier.
pub fn crier_freezes(make: Make, name: &str) {
    let pairing = Pairing { hold_time_secs: HOLD_TIME_SECS, ..Pairing::default() };
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(2, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    crier.process().freeze();
    eventually("the router says Hold Timer Expired", PATIENCE, || {
        let messages = capture.bgp();
        let said = messages.iter().any(|it| {
            matches!(it.kind, BgpKind::Notification { code: 4, .. }) && it.from.ip() == pairing.router_address()
        });
        if said { Ok(()) } else { Err(format!("{:?}", router.session())) }
    });
    router.knows(&Default::default());
    crier.process().thaw();
    router.is_established();
    router.knows(&table);
}

/// RFC 9003: the router shows the text with which crier leaves.
pub fn last_word(make: Make, name: &str) {
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(2, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    let ended = crier.stop(secs(10));
    assert!(ended.success(), "crier ended with {ended}");
    eventually("the router has crier's text", PATIENCE, || {
        let words = router.words();
        if words.contains(LAST_WORD) {
            Ok(())
        } else {
            Err(words.lines().rev().take(20).collect::<Vec<_>>().join("\n"))
        }
    });
    router.knows(&Default::default());
    let shutdown = BgpKind::Notification { code: 6, subcode: 2 };
    assert!(capture.bgp().iter().any(|it| it.kind == shutdown), "no Cease / Administrative Shutdown went by");
}

/// RFC 9003: crier shows the text with which the router's operator ended the session.
pub fn routers_last_word(make: Make, name: &str) {
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let table = stage.services(2, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    let text = router.shut_down("change 4711");
    crier.process().wait_for_log(&text, PATIENCE);
    // A text stands in quotes, apart from the name of the subcode.
    let quoted = format!("\"{text}\"");
    eventually("the status has the router's text", PATIENCE, || {
        let status = crier.try_json("status")?;
        let error = status["peers"][0]["last_error"].as_str().unwrap_or_default().to_owned();
        if error.contains(&quoted) { Ok(()) } else { Err(error) }
    });
}

/// crier leaves and comes back, and dies and comes back: the routes go and come with it.
pub fn crier_restarts(make: Make, name: &str) {
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let table = stage.services(3, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    crier.stop(secs(10));
    router.knows(&Default::default());
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    crier.kill();
    router.knows(&Default::default());
    let _crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
}

/// The router dies and comes back: it gets all routes again, and crier has one session with it.
pub fn router_restarts(make: Make, name: &str) {
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let table = stage.services(3, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    router.process().kill();
    eventually("crier has noticed", PATIENCE, || {
        let state = crier_state(&crier);
        if state == "Established" { Err(state) } else { Ok(()) }
    });
    drop(router);
    let router = stage.start(make, &pairing);
    router.is_established();
    router.knows(&table);
    assert_eq!(crier_state(&crier), "Established");
}
