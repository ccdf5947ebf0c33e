//! The table: what a cell can come to, and the printing.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use rack::pairing::Make;

use crate::cases::CASES;

/// What one router came to in one case.
#[derive(Debug)]
pub enum Outcome {
    Fine,
    Failed,
    /// The router cannot do its part, as was just seen, and why.
    Impossible(&'static str),
    /// This machine misses something.
    Skipped(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Fine => write!(f, "ok"),
            Outcome::Failed => write!(f, "FAILED"),
            Outcome::Impossible(why) => write!(f, "n/a: {why}"),
            Outcome::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

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
                    format!("n/a ({})", at + 1)
                }
                None => String::new(),
            };
            let _ = write!(text, "{word:10}");
        }
    }
    for (at, reason) in reasons.iter().enumerate() {
        let _ = write!(text, "\nn/a ({}): {reason}", at + 1);
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
