//! `[drain]`: what takes this node out beside an operator, and how that is shown. Floor 1.

use std::time::Duration;

use super::{Check, Section, section};
use crate::config::complaint::Problem;
use crate::config::key::{duration, flag, text};
use crate::config::shape::written;

section! {
    /// `[drain]`
    pub struct DrainSettings = Section::one(
        "drain",
        "What drains this node as `crier drain` does, and takes that back, without an operator on the node.",
    ), written as Written;
    keys {
        /// `spec.unschedulable` of the Node.
        pub follow_cordon: bool = flag("follow-cordon", false,
            "Drain this node while its Node is cordoned (`kubectl cordon`, `kubectl drain`).")
            .trade("With true, every cordon moves traffic, also one that was only to keep pods away. The last node that serves is not \
                 drained; `crier status` says so."), touches Decisions;
        /// Whatever the value and the effect of the taint are.
        pub follow_taint: Option<String> = text("follow-taint", "the key of a taint", |text, _| taint(text),
            "Drain this node while its Node has a taint with this key.")
            .optional("none")
            .shown("\"example.com/maintenance\""), touches Decisions;
        /// By systemd-logind, with a delay lock.
        pub follow_shutdown: bool = flag("follow-shutdown", false,
            "Drain this node when the host is shut down or restarted, before systemd stops anything.")
            .trade("systemd waits for that as long as InhibitDelayMaxSec in logind.conf says, 5 s if nothing else is set; of that, flows have \
                 2 s less. It needs systemd-inhibit and busctl on the host. The last node that serves holds no shutdown up."), touches Decisions;
        /// Of a drain that follows the Node or the host.
        pub timeout: Duration = duration("timeout", Duration::ZERO, Duration::from_secs(7 * 86_400),
            "How long a drain that follows the Node or the host waits for open flows.")
            .default("10m"), touches Decisions;
        /// The annotation `crier.dev/drain`.
        pub annotate_node: bool = flag("annotate-node", true,
            "Show a drain, of whatever cause, as annotation crier.dev/drain of the Node.")
            .trade("It needs the right to patch nodes/status, which `crier rbac` grants. With false, that right can be left out."), touches Decisions;
    }
}

impl Check for Written {}

fn taint(text: &str) -> Result<String, Problem> {
    let is_name = |part: &str| {
        (1..=63).contains(&part.len())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && [part.chars().next(), part.chars().last()].into_iter().flatten().all(|c| c.is_ascii_alphanumeric())
    };
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_name);
    if is_name(name) && prefix.is_none_or(is_prefix) {
        return Ok(text.to_owned());
    }
    let hint = "write the key alone, as in \"example.com/maintenance\", without value and effect";
    Err(Problem::new(format!("{} is no key of a taint", written(text)), hint))
}
