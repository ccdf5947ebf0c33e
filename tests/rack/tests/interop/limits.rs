//! What a router cannot do, so that a cell of the table has to stay empty. Each limit is looked at before it is claimed:
//! where a newer version no longer has it, the case is played like any other.

use std::time::Duration;

use rack::capture::BgpKind;
use rack::pairing::{Family, Make, Pairing};
use rack::{Deadline, millis, rest, secs};

use crate::PATIENCE;
use crate::life::LAST_WORD;
use crate::security::PASSWORD;
use crate::stage::{Expect, Stage};

/// One router that cannot do its part of one case.
pub struct Limit {
    make: Make,
    case: &'static str,
    pub why: &'static str,
    /// Plays as much of the case as shows it, and says whether it does.
    pub shows: fn(make: Make, name: &str) -> bool,
}

/// The limit that this router may have in this case.
pub fn limit(make: Make, case: &str) -> Option<&'static Limit> {
    LIMITS.iter().find(|limit| limit.make == make && limit.case == case)
}

static LIMITS: [Limit; 3] = [
    Limit {
        make: Make::Gobgp,
        case: "route refresh",
        why: "GoBGP sends no ROUTE-REFRESH: its softresetin goes over what it has once more",
        shows: never_asks,
    },
    Limit {
        make: Make::Openbgpd,
        case: "MD5, crier has none",
        why: "OpenBGPD puts no key on its listening socket and takes unsigned connections from a neighbor with a key",
        shows: takes_unsigned,
    },
    Limit {
        make: Make::Exabgp,
        case: "crier's last word",
        why: "ExaBGP cannot decode a Cease with a text: it logs none of it, and answers with a message header error",
        shows: cannot_decode,
    },
];

fn never_asks(make: Make, name: &str) -> bool {
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let table = stage.services(1, &[Family::V4]);
    let router = stage.start(make, &pairing);
    let _crier = stage.crier(&pairing);
    router.is_established();
    router.knows(&table);
    router.ask_again();
    // The others ask within milliseconds.
    !happens(secs(3), || capture.bgp().iter().any(|it| it.kind == BgpKind::RouteRefresh))
}

fn takes_unsigned(make: Make, name: &str) -> bool {
    let stage = Stage::new(name);
    let router = stage.start(make, &Pairing { password: Some(PASSWORD.into()), ..Pairing::default() });
    let _crier = stage.crier(&Pairing::default());
    happens(secs(10), || router.session().is_established())
}

fn cannot_decode(make: Make, name: &str) -> bool {
    let pairing = Pairing::default();
    let stage = Stage::new(name);
    let capture = stage.router.capture("eth0");
    let router = stage.start(make, &pairing);
    let crier = stage.crier(&pairing);
    router.is_established();
    crier.stop(secs(10));
    let shutdown = BgpKind::Notification { code: 6, subcode: 2 };
    assert!(
        happens(PATIENCE, || capture.bgp().iter().any(|it| it.kind == shutdown)),
        "no Cease / Administrative Shutdown went by"
    );
    let reads = || router.words().contains(LAST_WORD);
    let fails = || router.words().contains("can not decode");
    assert!(happens(PATIENCE, || reads() || fails()), "it says nothing of a NOTIFICATION: {}", router.words());
    !reads()
}

/// Whether it comes true in time.
fn happens(within: Duration, mut look: impl FnMut() -> bool) -> bool {
    let deadline = Deadline::after(within);
    loop {
        if look() {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        rest(millis(100));
    }
}
