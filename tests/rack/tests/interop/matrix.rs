//! The table: what a cell can come to, which cells cannot be, and the printing.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use rack::pairing::Make;

use crate::cases::CASES;

/// What one router came to in one case.
#[derive(Debug)]
pub enum Outcome {
    Fine,
    Failed,
    /// It cannot be tried, and why: for good, or as long as crier cannot do its part.
    Impossible(String),
    /// This machine misses something.
    Skipped(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Fine => write!(f, "ok"),
            Outcome::Failed => write!(f, "FAILED"),
            Outcome::Impossible(why) => write!(f, "not possible: {why}"),
            Outcome::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

/// Why a router cannot do its part of a case; the reasons were seen, not guessed.
pub fn impossible(make: Make, case: &str) -> Option<&'static str> {
    let (_, _, why) = IMPOSSIBLE.iter().find(|(router, name, _)| *router == make && *name == case)?;
    Some(why)
}

const IMPOSSIBLE: &[(Make, &str, &str)] = &[
    (
        Make::Gobgp,
        "route refresh",
        "GoBGP never sends a ROUTE-REFRESH: its softresetin goes over what it has once more",
    ),
    (
        Make::Openbgpd,
        "MD5, crier has none",
        "OpenBGPD 7.7 on Linux puts no key on its listening socket: it takes unsigned connections from a neighbor with a key",
    ),
    (
        Make::Exabgp,
        "crier's last word",
        "ExaBGP 4.2.21 cannot read a Cease with a text (a TypeError in its notification.py) and calls it a message header error",
    ),
    (Make::Exabgp, "router's last word", "ExaBGP's teardown takes a subcode and no text"),
];

/// A row for each case, a column for each router, and the reasons below.
pub fn table(outcomes: &BTreeMap<(Make, &'static str), Outcome>) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    let width = CASES.iter().map(|case| case.name.len()).max().unwrap_or(0) + 2;
    let mut text = format!("{:width$}", "case");
    for make in Make::ALL {
        let _ = write!(text, "{:10}", make.name());
    }
    for case in &CASES {
        if !outcomes.keys().any(|(_, name)| *name == case.name) {
            continue;
        }
        let _ = write!(text, "\n{:width$}", case.name);
        for make in Make::ALL {
            let word = match outcomes.get(&(make, case.name)) {
                Some(Outcome::Fine) => "ok".to_owned(),
                Some(Outcome::Failed) => "FAILED".to_owned(),
                Some(Outcome::Skipped(_)) => "skipped".to_owned(),
                Some(Outcome::Impossible(why)) => {
                    let known = reasons.iter().position(|reason| reason == why);
                    let at = known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!("no ({})", at + 1)
                }
                None => String::new(),
            };
            let _ = write!(text, "{word:10}");
        }
    }
    for (at, reason) in reasons.iter().enumerate() {
        let _ = write!(text, "\nno ({}): not possible because {reason}", at + 1);
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
