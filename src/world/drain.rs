//! How far this node has come with leaving: the words of a drain. Floor 1. `agent::drain` tells, the plan obeys.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::HostProblem;

/// This node is being drained, or is drained. Kept on the disk: only an operator takes it back, or who asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Text", into = "Text")]
pub struct Drain {
    pub stage: DrainStage,
    pub ordered: Ordered,
    pub since: Timestamp,
    /// Flows are waited for until then.
    pub until: Timestamp,
    /// Flows were left when the time was over.
    pub timed_out: bool,
}

/// By whose word a node is drained, and so by whose it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ordered {
    /// An operator's, who also ends it. `forced`: it goes on also where no other node serves.
    Operator { reason: Option<String>, forced: bool },
    /// The Node's (`[drain]`): it ends when the Node says so no more.
    Node { why: String },
    /// The host's, which shuts down in the boot of this id: it ends with that.
    Host { boot: String, why: String },
    /// Perhaps nobody's: this file says that the node is drained, and nothing else that this agent understands. An operator ends it.
    Unreadable { file: PathBuf, why: String },
}

/// An operator's who gives no reason.
impl Default for Ordered {
    fn default() -> Ordered {
        Ordered::Operator { reason: None, forced: false }
    }
}

impl Ordered {
    /// In the words of who ordered it.
    pub fn reason(&self) -> Option<String> {
        match self {
            Ordered::Operator { reason, forced: _ } => reason.clone(),
            Ordered::Node { why } | Ordered::Host { boot: _, why } => Some(why.clone()),
            Ordered::Unreadable { file, why } => Some(format!("{} cannot be read: {why}", file.display())),
        }
    }

    /// It ends when neither the Node nor the host asks for it any more.
    pub fn follows(&self) -> bool {
        match self {
            Ordered::Node { .. } | Ordered::Host { .. } => true,
            Ordered::Operator { .. } | Ordered::Unreadable { .. } => false,
        }
    }

    /// It goes on also where no other node serves.
    pub fn is_forced(&self) -> bool {
        match self {
            Ordered::Operator { forced, .. } => *forced,
            Ordered::Unreadable { .. } => true,
            Ordered::Node { .. } | Ordered::Host { .. } => false,
        }
    }
}

impl Drain {
    /// As the annotation of the Node shows it: the same text for as long as the stage lasts.
    pub fn in_words(&self) -> String {
        let Drain { stage, ordered, since, until: _, timed_out: _ } = self;
        let reason = ordered.reason().map_or(String::new(), |reason| format!(": {reason}"));
        format!("{}, since {since:.0}{reason}", stage.code())
    }
}

/// A drain as it is written down. Versions before `unreadable` wrote all but that, and read it.
#[derive(Serialize, Deserialize)]
struct Text {
    stage: DrainStage,
    reason: Option<String>,
    since: Timestamp,
    until: Timestamp,
    timed_out: bool,
    #[serde(default)]
    follows: bool,
    #[serde(default)]
    boot: Option<String>,
    #[serde(default)]
    forced: bool,
    /// The file, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<(PathBuf, String)>,
}

impl From<Text> for Drain {
    fn from(text: Text) -> Drain {
        let Text { stage, reason, since, until, timed_out, follows, boot, forced, unreadable } = text;
        let ordered = match (unreadable, follows, boot) {
            (Some((file, why)), ..) => Ordered::Unreadable { file, why },
            (None, false, _) => Ordered::Operator { reason, forced },
            (None, true, None) => Ordered::Node { why: reason.unwrap_or_default() },
            (None, true, Some(boot)) => Ordered::Host { boot, why: reason.unwrap_or_default() },
        };
        Drain { stage, ordered, since, until, timed_out }
    }
}

impl From<Drain> for Text {
    fn from(drain: Drain) -> Text {
        let Drain { stage, ordered, since, until, timed_out } = drain;
        let (reason, follows, forced) = (ordered.reason(), ordered.follows(), ordered.is_forced());
        let (boot, unreadable) = match ordered {
            Ordered::Host { boot, why: _ } => (Some(boot), None),
            Ordered::Unreadable { file, why } => (None, Some((file, why))),
            Ordered::Operator { .. } | Ordered::Node { .. } => (None, None),
        };
        Text { stage, reason, since, until, timed_out, follows, boot, forced, unreadable }
    }
}

/// What systemd-logind says of shutdowns of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// One has begun; `None` where nobody has asked, or none has answered yet.
    pub begun: Option<bool>,
    /// For how long logind holds one up for this node.
    pub granted: Duration,
    /// Why none is held up, or heard of.
    pub problem: Option<HostProblem>,
}

/// In this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainStage {
    /// Routes say GRACEFUL_SHUTDOWN (RFC 8326) and have the lowest local preference, so that routers use others; everything
    /// still works. The flows that were open when the drain began are waited for.
    Waiting,
    /// The node's addresses on the link go to other nodes, each once another node takes it.
    HandingOver,
    /// Routes and what is left on the link are given up. The routers are waited for: that each has taken its withdrawals.
    Withdrawing,
    /// The node announces nothing.
    Drained,
}

impl DrainStage {
    pub const ALL: [DrainStage; 4] =
        [DrainStage::Waiting, DrainStage::HandingOver, DrainStage::Withdrawing, DrainStage::Drained];

    pub fn code(self) -> &'static str {
        match self {
            DrainStage::Waiting => "waiting",
            DrainStage::HandingOver => "handing-over",
            DrainStage::Withdrawing => "withdrawing",
            DrainStage::Drained => "drained",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(ordered: Ordered) -> Drain {
        let since = "2026-11-28T15:00:00Z".parse().unwrap();
        Drain { stage: DrainStage::Drained, ordered, since, until: since, timed_out: false }
    }

    /// What versions wrote that kept who ordered it in `follows`, `boot` and `forced`, and earlier ones that had none of these.
    #[test]
    fn drains_that_earlier_versions_wrote_down_are_read() {
        let reason = Some("new disk".to_owned());
        let why = "the Node is cordoned".to_owned();
        let table = [
            (r#""reason":"new disk""#, Ordered::Operator { reason: reason.clone(), forced: false }),
            (
                r#""reason":"new disk","follows":false,"boot":null,"forced":true"#,
                Ordered::Operator { reason, forced: true },
            ),
            (r#""reason":null,"follows":false,"boot":null,"forced":false"#, Ordered::default()),
            (
                r#""reason":"the Node is cordoned","follows":true,"boot":null,"forced":false"#,
                Ordered::Node { why: why.clone() },
            ),
            (
                r#""reason":"the Node is cordoned","follows":true,"boot":"b1","forced":false"#,
                Ordered::Host { boot: "b1".to_owned(), why },
            ),
            // An operator may say what is said of a damaged file.
            (
                r#""reason":"/x/drain.json cannot be read: EIO","follows":false,"boot":null,"forced":false"#,
                Ordered::Operator { reason: Some("/x/drain.json cannot be read: EIO".to_owned()), forced: false },
            ),
        ];
        for (text, expected) in table {
            let text = format!(
                r#"{{"stage":"drained",{text},"since":"2026-11-28T15:00:00Z","until":"2026-11-28T15:00:00Z","timed_out":false}}"#
            );
            assert_eq!(serde_json::from_str::<Drain>(&text).unwrap(), drain(expected), "{text}");
        }
    }

    #[test]
    fn a_drain_that_is_written_down_is_read_again_and_versions_before_read_it_too() {
        let table = [
            (Ordered::Operator { reason: Some("new disk".to_owned()), forced: true }, "new disk", false, None, true),
            (Ordered::Node { why: "cordoned".to_owned() }, "cordoned", true, None, false),
            (Ordered::Host { boot: "b1".to_owned(), why: "down".to_owned() }, "down", true, Some("b1"), false),
            (
                Ordered::Unreadable { file: "/x/drain.json".into(), why: "EIO".to_owned() },
                "/x/drain.json cannot be read: EIO",
                false,
                None,
                true,
            ),
        ];
        for (ordered, reason, follows, boot, forced) in table {
            let drain = drain(ordered);
            let text = serde_json::to_value(&drain).unwrap();
            assert_eq!(serde_json::from_value::<Drain>(text.clone()).unwrap(), drain);
            assert_eq!(text["reason"], reason);
            assert_eq!((&text["follows"], &text["forced"]), (&follows.into(), &forced.into()));
            assert_eq!(text["boot"].as_str(), boot);
        }
    }
}
