//! The states and diagnostics of a BFD session (RFC 5880 §4.1), as the machine, the World and every view name them. Floor 0.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a BFD session stands. Prints as `crier bfd` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BfdState {
    /// An operator holds the session down. That says nothing about the path.
    AdminDown,
    #[default]
    Down,
    /// This end hears the other, and does not know yet whether the other hears it.
    Init,
    Up,
}

impl BfdState {
    /// As the state is written in JSON, on the command line and in labels.
    pub fn code(self) -> &'static str {
        match self {
            BfdState::AdminDown => "admin-down",
            BfdState::Down => "down",
            BfdState::Init => "init",
            BfdState::Up => "up",
        }
    }
}

impl fmt::Display for BfdState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

/// Why a session last left the state Up, or last failed to get there: RFC 5880 §4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Diagnostic {
    None,
    DetectionTimeExpired,
    EchoFailed,
    NeighborSignaledDown,
    ForwardingPlaneReset,
    PathDown,
    ConcatenatedPathDown,
    AdministrativelyDown,
    ReverseConcatenatedPathDown,
    /// A code without a name: 9 to 31.
    Unknown(u8),
}

impl Diagnostic {
    /// The code on the wire; five bits.
    pub fn number(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::DetectionTimeExpired => 1,
            Diagnostic::EchoFailed => 2,
            Diagnostic::NeighborSignaledDown => 3,
            Diagnostic::ForwardingPlaneReset => 4,
            Diagnostic::PathDown => 5,
            Diagnostic::ConcatenatedPathDown => 6,
            Diagnostic::AdministrativelyDown => 7,
            Diagnostic::ReverseConcatenatedPathDown => 8,
            Diagnostic::Unknown(number) => number & 31,
        }
    }
}

/// Only the lower five bits count.
impl From<u8> for Diagnostic {
    fn from(number: u8) -> Diagnostic {
        match number & 31 {
            0 => Diagnostic::None,
            1 => Diagnostic::DetectionTimeExpired,
            2 => Diagnostic::EchoFailed,
            3 => Diagnostic::NeighborSignaledDown,
            4 => Diagnostic::ForwardingPlaneReset,
            5 => Diagnostic::PathDown,
            6 => Diagnostic::ConcatenatedPathDown,
            7 => Diagnostic::AdministrativelyDown,
            8 => Diagnostic::ReverseConcatenatedPathDown,
            other => Diagnostic::Unknown(other),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Diagnostic::None => "none",
            Diagnostic::DetectionTimeExpired => "detection time expired",
            Diagnostic::EchoFailed => "echo failed",
            Diagnostic::NeighborSignaledDown => "neighbor signaled down",
            Diagnostic::ForwardingPlaneReset => "forwarding plane reset",
            Diagnostic::PathDown => "path down",
            Diagnostic::ConcatenatedPathDown => "concatenated path down",
            Diagnostic::AdministrativelyDown => "administratively down",
            Diagnostic::ReverseConcatenatedPathDown => "reverse concatenated path down",
            Diagnostic::Unknown(number) => return f.pad(&format!("diagnostic {number}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_keeps_its_number_and_a_state_is_written_in_json_as_it_is_printed() {
        for number in 0..32 {
            assert_eq!(Diagnostic::from(number).number(), number);
        }
        for state in [BfdState::AdminDown, BfdState::Down, BfdState::Init, BfdState::Up] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
        }
    }
}
