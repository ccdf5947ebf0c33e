//! How much of a bad UPDATE is believed (RFC 7606 §2). Floor 1.

use std::fmt;

/// What RFC 7606 §2 does short of ending the session, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Treatment {
    /// The routes in question were left out, the rest stands.
    IgnoreRoutes,
    /// The attribute was left out, the rest stands.
    DiscardAttribute,
    /// No announcement of the UPDATE stands.
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
