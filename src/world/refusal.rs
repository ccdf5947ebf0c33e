//! How the API server refuses what crier asks for: what remedies and silences are decided by. Floor 1. `k8s::refusal` makes it of
//! an answer, and nobody looks into the words of one again.

use serde::{Deserialize, Serialize};

/// How the API server refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not: no answer came, or none that can be used.
    #[default]
    NoAnswer,
    /// It does not know who asks (401).
    Unauthorized,
    /// This agent lacks the right (403).
    Forbidden,
    /// The same (403) of one that it sees no credentials of: no right would help.
    Anonymous,
    /// It answered with another status.
    Other(u16),
}

impl Refusal {
    /// What to do where it is [`Anonymous`](Self::Anonymous).
    pub const SEES_NOBODY: &str = "the credentials of the kubeconfig do not reach it: look whether its user has some, and whether a \
         proxy or load balancer on the way ends TLS and drops the client certificate";

    /// It answers, and with 403.
    pub fn is_about_rights(self) -> bool {
        match self {
            Refusal::Forbidden | Refusal::Anonymous => true,
            Refusal::NoAnswer | Refusal::Unauthorized | Refusal::Other(_) => false,
        }
    }
}

/// Why the API server did not do what crier asked for, for people, and how it refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub refusal: Refusal,
    pub why: String,
}

impl Trouble {
    /// Of something that brought no answer.
    pub fn without_answer(why: impl Into<String>) -> Trouble {
        Trouble { refusal: Refusal::NoAnswer, why: why.into() }
    }
}
