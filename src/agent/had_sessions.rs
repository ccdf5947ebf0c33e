//! Which BGP sessions stand, on disk: an agent that died without a word says nothing else of them to the next one. Floor 3.
//!
//! A file of a few lines, written whenever a session comes or goes. It is not flushed to the disk: what it is for is the death of
//! the agent and not that of the host. An agent that leaves removes it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::bfd_state::BfdState;
use crate::kept_text;
use crate::names::PeerName;
use crate::state_file::{self, Outlasts};
use crate::world::{BfdSessions, SessionReport, SessionState};

/// The sessions that the previous agent had when it was heard of last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Had {
    pub sessions: BTreeMap<PeerName, HadSession>,
    /// The kernel runs that ran then.
    pub of_this_boot: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HadSession {
    /// The router keeps the routes for a while when the connection is lost.
    pub graceful_restart: bool,
    /// BFD with it was up.
    #[serde(default)]
    pub bfd: bool,
}

/// The file of a state folder.
#[derive(Debug)]
pub struct HadFile {
    path: PathBuf,
    boot: String,
    /// What it says, if that is known.
    written: Option<BTreeMap<PeerName, HadSession>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    boot: String,
    sessions: BTreeMap<PeerName, HadSession>,
}

const FORMAT: &str = "crier-sessions";
const VERSION: u32 = 1;

impl HadFile {
    /// `boot` is the kernel's boot id.
    pub fn of(folder: &Path, boot: &str) -> HadFile {
        HadFile { path: folder.join("sessions"), boot: boot.to_owned(), written: None }
    }

    /// What the previous agent had; nothing where it left, or where the file cannot be read.
    pub fn recall(&self) -> Had {
        match self.read() {
            Ok(Content { boot, sessions }) => Had { sessions, of_this_boot: boot == self.boot },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Had::default(),
            Err(error) => {
                warn!(file = %self.path.display(), %error, "which sessions the previous agent had is not known");
                Had::default()
            }
        }
    }

    fn read(&self) -> io::Result<Content> {
        let text = state_file::read(&self.path)?;
        let content = kept_text::read(FORMAT, VERSION, &text).map_err(io::Error::other)?;
        Ok(serde_json::from_slice(content)?)
    }

    /// Writes down which sessions stand, if that is news.
    pub fn follow<'a>(&mut self, reports: impl Iterator<Item = (&'a PeerName, &'a SessionReport)>, bfd: &BfdSessions) {
        let stands = |report: &SessionReport| report.state == SessionState::Established;
        let had = |name: &PeerName, report: &SessionReport| HadSession {
            graceful_restart: report.detail.negotiated.as_ref().is_some_and(|it| it.graceful_restart),
            bfd: bfd.get(name).is_some_and(|it| it.state == BfdState::Up),
        };
        let sessions =
            reports.filter(|(_, report)| stands(report)).map(|(name, report)| (name.clone(), had(name, report)));
        let sessions: BTreeMap<PeerName, HadSession> = sessions.collect();
        if self.written.as_ref() == Some(&sessions) {
            return;
        }
        if let Err(error) = self.write(&sessions) {
            warn!(file = %self.path.display(), %error, "which sessions stand was not written down");
        }
        // Not tried again before there is more to write.
        self.written = Some(sessions);
    }

    fn write(&self, sessions: &BTreeMap<PeerName, HadSession>) -> io::Result<()> {
        let content = serde_json::to_vec(&Content { boot: self.boot.clone(), sessions: sessions.clone() })?;
        state_file::replace(&self.path, kept_text::write(FORMAT, VERSION, &content).as_ref(), Outlasts::Agent)
    }

    /// Every session has ended as it should.
    pub fn remove(&self) {
        if let Err(error) = state_file::remove(&self.path) {
            warn!(file = %self.path.display(), %error, "the file of sessions that stand was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock;

    fn report(state: SessionState) -> SessionReport {
        SessionReport::new(state, clock::wall())
    }

    #[test]
    fn the_sessions_that_stood_are_recalled_until_the_agent_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = HadFile::of(folder.path(), "first");
        assert_eq!(file.recall(), Had::default(), "no agent ran before");
        let (tor, other) = (PeerName::from("tor"), PeerName::from("other"));
        let (up, down) = (report(SessionState::Established), report(SessionState::Active));
        file.follow([(&tor, &up), (&other, &down)].into_iter(), &BfdSessions::new());
        let stood = BTreeMap::from([(tor.clone(), HadSession { graceful_restart: false, bfd: false })]);
        assert_eq!(file.recall(), Had { sessions: stood.clone(), of_this_boot: true });
        let after_a_boot = HadFile::of(folder.path(), "second").recall();
        assert_eq!(after_a_boot, Had { sessions: stood, of_this_boot: false });
        file.follow([(&tor, &down)].into_iter(), &BfdSessions::new());
        assert_eq!(file.recall().sessions, BTreeMap::new(), "it went");
        file.follow([(&tor, &up)].into_iter(), &BfdSessions::new());
        file.remove();
        assert_eq!(file.recall(), Had::default(), "the agent has left");
    }

    #[test]
    fn a_file_that_is_damaged_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = HadFile::of(folder.path(), "boot");
        let tor = PeerName::from("tor");
        file.follow([(&tor, &report(SessionState::Established))].into_iter(), &BfdSessions::new());
        let path = folder.path().join("sessions");
        let mut text = fs::read(&path).unwrap();
        *text.last_mut().unwrap() ^= 1;
        fs::write(&path, text).unwrap();
        assert_eq!(file.recall(), Had::default());
    }
}
