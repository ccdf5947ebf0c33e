//! How reloads of the configuration went: part of `crier status`, and metrics. Floor 1.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What became of the configuration since the agent started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reloads {
    /// The main file.
    pub file: PathBuf,
    /// Reloads after which the agent goes by what the files say, also where that was no difference.
    pub succeeded: u64,
    /// Reloads that were refused: the configuration before stayed in use.
    pub failed: u64,
    pub last: Option<LastReload>,
    /// Without `crier config confirm` the configuration before is put back then.
    pub unconfirmed_until: Option<Timestamp>,
    /// Why the file of what waits to be confirmed cannot be read.
    pub unreadable_promise: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    pub at: Timestamp,
    /// Why it was refused, in one line; `None` where it succeeded.
    pub failure: Option<String>,
}

impl Reloads {
    pub fn note(&mut self, at: Timestamp, failure: Option<String>) {
        match failure {
            None => self.succeeded += 1,
            Some(_) => self.failed += 1,
        }
        self.last = Some(LastReload { at, failure });
    }

    /// What somebody should look at.
    pub fn problems(&self) -> impl Iterator<Item = String> + '_ {
        let failure = self.last.iter().filter_map(|last| last.failure.as_ref());
        let failure = failure.map(|why| format!("last reload failed: {why}; the configuration before stays in use"));
        let until = self.unconfirmed_until.iter();
        let unconfirmed = until.map(|until| {
            format!("the configuration is not confirmed: it is taken back at {until:.0} without `crier config confirm`")
        });
        let unreadable = self.unreadable_promise.iter().map(|why| {
            format!(
                "what waited to be confirmed cannot be read, so nothing is taken back: {why}; `crier config confirm` keeps the \
                 configuration in use"
            )
        });
        failure.chain(unconfirmed).chain(unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_reload_is_a_problem_until_one_succeeds() {
        let mut reloads = Reloads::default();
        reloads.note(Timestamp::UNIX_EPOCH, Some("crier.toml:3: no such key".to_owned()));
        let problems: Vec<String> = reloads.problems().collect();
        assert_eq!(problems, ["last reload failed: crier.toml:3: no such key; the configuration before stays in use"]);
        reloads.note(Timestamp::UNIX_EPOCH, None);
        assert_eq!(reloads.problems().count(), 0);
        assert_eq!((reloads.succeeded, reloads.failed), (1, 1));
    }
}
