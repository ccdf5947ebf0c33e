//! How much of a bad UPDATE is used (RFC 7606 §2). Floor 1.

use std::fmt;

/// What RFC 7606 §2 does with an error that does not end the session, the weakest treatment first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// The routes in question were left out; the rest is used.
    IgnoreRoutes,
    /// The attribute was left out; the rest is used.
    DiscardAttribute,
    /// No announcement of the UPDATE is used.
    WithdrawAll,
}

impl fmt::Display for Treatment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Treatment::IgnoreRoutes => "routes ignored",
            Treatment::DiscardAttribute => "attribute discarded",
            Treatment::WithdrawAll => "treated as withdrawn",
        })
    }
}
