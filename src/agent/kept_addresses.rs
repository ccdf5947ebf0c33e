//! The addresses on the link between two agents of one node: the one writes down what it holds and by when the next one is to
//! have it again, and leaves the programs in systemd's store that answer for them in the kernel meanwhile. Floor 3.
//!
//! A file of a few lines in the state folder, read once: an agent that starts takes it away. It counts in the boot of the
//! kernel in which it was written, and until the other nodes may take the addresses over.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout_at};
use tracing::{info, warn};

use super::fd_store::{self, Stored};
use crate::clock;
use crate::kept_text;
use crate::plan::slice::PulseSlice;
use crate::state_file::{self, Outlasts};
use crate::world::Fact;

/// What the previous agent held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub addresses: Arc<BTreeSet<IpAddr>>,
    /// By then the other nodes take them over.
    pub back_by: Instant,
}

/// The file of a state folder.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    boot: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    boot: String,
    addresses: BTreeSet<IpAddr>,
    /// By the clock of the kernel, which counts from the boot.
    back_by: Duration,
}

const FORMAT: &str = "crier-addresses";
const VERSION: u32 = 1;

impl KeptFile {
    /// `boot` is the kernel's boot id; empty where the kernel tells none: then nothing is kept.
    pub fn of(folder: &Path, boot: &str) -> KeptFile {
        KeptFile { path: folder.join("addresses"), boot: boot.to_owned() }
    }

    /// Writes down what the next agent is to have.
    pub fn write(&self, Kept { addresses, back_by }: &Kept) -> io::Result<()> {
        let back_by = clock::since_boot() + back_by.saturating_duration_since(clock::now());
        let content = Content { boot: self.boot.clone(), addresses: BTreeSet::clone(addresses), back_by };
        // It counts in this boot of the kernel alone.
        let octets = kept_text::write(FORMAT, VERSION, &serde_json::to_vec(&content)?);
        state_file::replace(&self.path, octets.as_ref(), Outlasts::Agent)
    }

    /// What the previous agent held, if no other node has taken it over yet. The file is gone afterwards.
    pub fn take(&self) -> Option<Kept> {
        let content = match self.read() {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            // Nothing of it is used.
            Err(error) => {
                warn!(file = %self.path.display(), %error, "which addresses the previous agent held is not known; they are asked for on the link");
                None
            }
        };
        // What cannot be removed is not to be believed by the agent after this one.
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(file = %self.path.display(), %error, "the file of the addresses that were held was not removed; they are asked for on the link");
            return None;
        }
        let Content { boot, addresses, back_by } = content?;
        let left = back_by.checked_sub(clock::since_boot()).filter(|left| !left.is_zero())?;
        let is_of_this_boot = !boot.is_empty() && boot == self.boot;
        is_of_this_boot.then(|| Kept { addresses: Arc::new(addresses), back_by: clock::now() + left })
    }

    fn read(&self) -> io::Result<Content> {
        let text = state_file::read(&self.path)?;
        let content = kept_text::read(FORMAT, VERSION, &text).map_err(io::Error::other)?;
        Ok(serde_json::from_slice(content)?)
    }
}

/// What this node is to have again after a restart, and by when; `None` where it hands over as if it left. `before`: what it kept
/// itself over the restart before.
pub fn keeps(said: &PulseSlice, grace: Duration, before: Option<&Kept>, now: Instant) -> Option<Kept> {
    if grace.is_zero() {
        return None;
    }
    if said.eligibility.is_none() {
        // Without pulses nobody waits. With them it has planned nothing yet: what was said before it started holds.
        return before.filter(|before| before.back_by > now).cloned();
    }
    let held = said.holdings.iter().filter(|(_, holding)| holding.stage.answers()).map(|(address, _)| *address);
    let addresses: BTreeSet<IpAddr> = held.chain(said.kept.iter().copied()).collect();
    // Packets of pods leave with addresses by the node that all elect, on no link too: another is to wait for it as well.
    let is_owner = !addresses.is_empty() || said.egress.as_ref().is_some_and(|it| !it.is_empty());
    // A node of an earlier version takes over from whoever is silent.
    if !is_owner || !said.others_wait {
        return None;
    }
    // Whoever restarts again and again is not waited for any longer.
    let before = before.filter(|_| !said.kept.is_empty()).map(|before| before.back_by);
    let back_by = before.map_or(now + grace, |before| before.min(now + grace));
    (back_by > now).then(|| Kept { addresses: Arc::new(addresses), back_by })
}

/// Until when this node goes on with what it kept: pulses that say so must have reached the others before these take over.
pub fn goes_on_until(kept: &Kept, detection: Duration) -> Instant {
    kept.back_by.checked_sub(detection).unwrap_or(kept.back_by)
}

/// Says when the time is over.
pub async fn end(until: Instant, facts: mpsc::Sender<Fact>) {
    sleep_until(until.into()).await;
    // The loop is gone: nobody to tell.
    let _ = facts.send(Fact::Kept(Arc::default())).await;
}

const PROGRAM: &str = "arp-program-";

/// Puts the programs into the store that answer in the kernel until the next agent does.
pub fn put(programs: &[OwnedFd]) {
    for (number, program) in programs.iter().enumerate() {
        if let Err(error) = fd_store::put(&format!("{PROGRAM}{number}"), program.as_fd()) {
            warn!(%error, "systemd does not store a program that answers ARP in the kernel: nobody answers until the next agent does");
        }
    }
    if !programs.is_empty() {
        info!(programs = programs.len(), "ARP is answered in the kernel until the next agent does, for a limited time");
    }
}

/// Takes the programs of the previous agent out of what came back. They are no longer in the store.
pub fn take_programs(stored: &mut Vec<Stored>) -> Vec<Stored> {
    let (programs, rest) = std::mem::take(stored).into_iter().partition(|it: &Stored| it.name.starts_with(PROGRAM));
    *stored = rest;
    let programs: Vec<Stored> = programs;
    for Stored { name, descriptor: _ } in &programs {
        if let Err(error) = fd_store::remove(name) {
            warn!(name, %error, "systemd was not told that a file descriptor was taken out of its store");
        }
    }
    programs
}

/// Removes the programs of the previous agent from their links once this agent [has](returned) what it kept. They answer no longer than
/// until `kept` is over, whatever becomes of this task.
pub async fn relieve(programs: Vec<Stored>, kept: Option<Kept>, slices: watch::Receiver<PulseSlice>) {
    returned(kept, slices).await;
    drop(programs);
}

/// Waits until this agent answers for all that was kept for it, or another node has a part of it; no longer than until `kept` is over.
pub async fn returned(kept: Option<Kept>, mut slices: watch::Receiver<PulseSlice>) {
    let Some(Kept { addresses, back_by }) = kept else { return };
    let is_over = |slice: &PulseSlice| {
        let has = |address| slice.kept.contains(address) || slice.holdings.contains_key(address);
        slice.eligibility.is_some() && (slice.kept.is_empty() || !addresses.iter().all(has))
    };
    // Over, late, or nobody plans any more: each ends it.
    let _ = timeout_at(back_by.into(), slices.wait_for(is_over)).await;
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::roster::{Eligibility, Holding, Stage};

    const GRACE: Duration = Duration::from_secs(5);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn said(held: &[u8], kept: &[u8]) -> PulseSlice {
        let holding = Holding { weight: 0, stage: Stage::Holds };
        let asks = (address(99), Holding { weight: 0, stage: Stage::Asks });
        PulseSlice {
            eligibility: Some(Eligibility::Eligible),
            holdings: held.iter().map(|last| (address(*last), holding)).chain([asks]).collect(),
            kept: Arc::new(kept.iter().copied().map(address).collect()),
            others_wait: true,
            ..PulseSlice::default()
        }
    }

    #[test]
    fn what_is_written_is_taken_once_in_this_boot_and_in_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeptFile::of(folder.path(), "boot");
        assert_eq!(file.take(), None, "nothing was ever written");
        let kept = Kept { addresses: Arc::new([address(1)].into()), back_by: clock::now() + GRACE };
        file.write(&kept).unwrap();
        let taken = file.take().expect("in time");
        assert_eq!(taken.addresses, kept.addresses);
        assert!(taken.back_by <= kept.back_by + Duration::from_millis(100), "it does not grow");
        assert_eq!(file.take(), None, "a second agent has no part in it");

        file.write(&kept).unwrap();
        assert_eq!(KeptFile::of(folder.path(), "another boot").take(), None);
        let late = Kept { back_by: clock::now(), ..kept.clone() };
        file.write(&late).unwrap();
        assert_eq!(file.take(), None, "others may have them by now");

        file.write(&kept).unwrap();
        let path = folder.path().join("addresses");
        let mut text = fs::read(&path).unwrap();
        *text.last_mut().unwrap() ^= 1;
        fs::write(&path, text).unwrap();
        assert_eq!(file.take(), None, "damaged");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_answered_for_is_kept_where_all_others_wait_for_it() {
        let now = clock::now();
        let all = |kept: Option<Kept>| {
            kept.map(|kept| (kept.addresses.iter().copied().collect::<Vec<_>>(), kept.back_by - now))
        };
        assert_eq!(all(keeps(&said(&[1, 2], &[]), GRACE, None, now)), Some((vec![address(1), address(2)], GRACE)));
        assert_eq!(all(keeps(&said(&[1], &[]), Duration::ZERO, None, now)), None, "it is switched off");
        assert_eq!(all(keeps(&said(&[], &[]), GRACE, None, now)), None, "it only asks");
        let elected = PulseSlice { egress: Some(Arc::new([address(7)].into())), ..said(&[], &[]) };
        assert_eq!(all(keeps(&elected, GRACE, None, now)), Some((vec![], GRACE)), "packets of pods leave by it");
        let older = PulseSlice { others_wait: false, ..said(&[1], &[]) };
        assert_eq!(all(keeps(&older, GRACE, None, now)), None, "an earlier version would take over");
        let alone = PulseSlice { eligibility: None, ..said(&[1], &[]) };
        assert_eq!(all(keeps(&alone, GRACE, None, now)), None, "without pulses nobody is told");
        let before = Kept { addresses: Arc::default(), back_by: now + GRACE / 2 };
        let again = all(keeps(&said(&[1], &[3]), GRACE, Some(&before), now));
        assert_eq!(again, Some((vec![address(1), address(3)], GRACE / 2)), "it was still on its way back");
        let done = all(keeps(&said(&[1], &[]), GRACE, Some(&before), now));
        assert_eq!(done, Some((vec![address(1)], GRACE)), "it was back");
        let promised = Kept { addresses: Arc::new([address(4)].into()), ..before };
        let unplanned = |grace, now| all(keeps(&PulseSlice::default(), grace, Some(&promised), now));
        assert_eq!(unplanned(GRACE, now), Some((vec![address(4)], GRACE / 2)), "it has planned nothing yet");
        assert_eq!(unplanned(Duration::ZERO, now), None);
        assert_eq!(unplanned(GRACE, promised.back_by), None, "the others have it by now");
    }

    #[tokio::test]
    async fn what_was_kept_is_back_once_it_is_held_and_not_while_it_is_only_kept() {
        let kept = Kept { addresses: Arc::new([address(1), address(2)].into()), back_by: clock::now() + 60 * GRACE };
        let (slices, seen) = watch::channel(PulseSlice::default());
        let mut returned = pin!(returned(Some(kept), seen));
        let mut is_back = async || poll_fn(|context| Poll::Ready(returned.as_mut().poll(context).is_ready())).await;
        assert!(!is_back().await, "nothing is planned yet");
        for (said, what) in [(said(&[], &[1, 2]), "it listens first"), (said(&[1], &[2]), "a part of it is held")] {
            slices.send_replace(said);
            assert!(!is_back().await, "{what}");
        }
        slices.send_replace(said(&[1, 2], &[]));
        assert!(is_back().await, "all of it is held");
    }
}
