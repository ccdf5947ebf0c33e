//! Why a request to the API server failed: the one place that looks at its answer for that. Floor 1.

use crate::world::{Refusal, Trouble};

/// How the API server refused, and why in one line.
pub fn trouble(error: &kube::Error) -> Trouble {
    Trouble { refusal: refusal(error), why: reason(error) }
}

fn refusal(error: &kube::Error) -> Refusal {
    let kube::Error::Api(status) = error else { return Refusal::NoAnswer };
    match status.code {
        // What kube makes of an event of a watch that it does not know.
        0 => Refusal::NoAnswer,
        401 => Refusal::Unauthorized,
        403 if status.message.contains(NOBODY) => Refusal::Anonymous,
        403 => Refusal::Forbidden,
        code => Refusal::Other(code),
    }
}

/// The name in its message of one who gave no credentials.
const NOBODY: &str = "\"system:anonymous\"";

const UNKNOWN_EVENT: &str = "a watch told an event of a type that Kubernetes does not have";

/// Why a request failed, in one line, from the outermost error to its cause.
pub fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        // What kube makes of an event of a watch that it does not know.
        let is_nothing = status.code == 0 && status.message.is_empty();
        return if is_nothing { UNKNOWN_EVENT.to_owned() } else { format!("{} {}", status.code, status.message) };
    }
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = match error {
        // kube's own text around these causes says nothing about what happened.
        kube::Error::Service(cause) => Some(cause.as_ref()),
        kube::Error::HyperError(cause) => Some(cause),
        error => Some(error),
    };
    while let Some(error) = next {
        let word = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&word) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&word);
        }
        next = error.source();
    }
    text
}
