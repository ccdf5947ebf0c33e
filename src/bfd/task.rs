//! BFD for the peers of the plan. Floor 2. An actuator: it follows its slice and decides nothing.
//!
//! | task or thread | owner     | owns                                         | when cancelled                              |
//! |----------------|-----------|----------------------------------------------|---------------------------------------------|
//! | `run`          | the agent | the ends of the worker                       | the worker ends as below                    |
//! | worker         | `run`     | sockets, sessions; its scheduling is its own | tells each peer AdminDown and ends          |
//! | teller         | `run`     | what the World was told                      | the World keeps what it was last told       |
//!
//! | channel  | from, to                | depth        | when full |
//! |----------|-------------------------|--------------|-----------|
//! | slices   | the agent, the worker   | newest wins  | -         |
//! | sessions | the worker, BGP, teller | newest wins  | -         |
//!
//! The worker is a thread with a priority of its own, so that neither a long turn of the loop nor a busy host makes a router take this
//! node for dead. It writes no log and waits for nobody: the teller does both.

mod worker;

use std::future::Future;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use self::worker::{Ending, Worker};
use super::counters::Counters;
use super::kept::KeptPath;
use super::ledger::Ledger;
use super::socket::Priority;
use crate::bfd_state::BfdState;
use crate::in_session::InSession;
use crate::names::PeerName;
use crate::plan::slice::BfdSlice;
use crate::world::{BfdReport, BfdSessions, Fact};

/// How BFD is to end.
#[derive(Debug)]
pub enum Parting {
    /// Every session is held down, which tells its peer that this is no failure of the path.
    HoldDown,
    /// Another agent follows: peers are asked to wait for it, and the sessions of those that agree go to this end. The others are
    /// held down.
    Rest(oneshot::Sender<Vec<KeptPath>>),
}

/// Runs a session for each peer of the newest slice until `shutdown` says how to end, or no more slices can come. It goes on with the
/// sessions of `kept` that peers of a slice have, and notes in the ledger beside them, if there is one, what a next agent needs where this
/// one dies. `sessions` always has how they stand, and `facts` hears of it. While `in_session` has the router of a session that no peer has
/// any more, the session goes on for a moment.
pub async fn run(
    slices: watch::Receiver<BfdSlice>,
    facts: mpsc::Sender<Fact>,
    counters: Arc<Counters>,
    (sessions, in_session): (watch::Sender<BfdSessions>, InSession),
    kept: (Vec<KeptPath>, Option<Ledger>),
    shutdown: impl Future<Output = Parting>,
) {
    let mut tellers = JoinSet::new();
    tellers.spawn(tell(sessions.subscribe(), facts));
    let mut seen = slices.clone();
    let mut shutdown = std::pin::pin!(shutdown);
    // Without a peer to watch there is no thread.
    tokio::select! {
        _ = &mut shutdown => return,
        asked = seen.wait_for(|slice| !slice.peers.is_empty()) => if asked.is_err() { return },
    }
    let mut worker = match Handle::start(slices, kept, counters, (sessions.clone(), in_session)) {
        Ok(worker) => worker,
        Err(error) => {
            error!(%error, "no thread could be started for BFD: no peer is watched");
            let _ = shutdown.await;
            return;
        }
    };
    let parting = loop {
        tokio::select! {
            parting = &mut shutdown => break parting,
            changed = seen.changed() => match changed {
                Ok(()) => worker.wake(),
                Err(_) => break Parting::HoldDown,
            },
            // A panic, which has printed why. The agent ends with it: sessions that nobody runs must not look alive.
            _ = &mut worker.ended => return,
        }
    };
    match parting {
        Parting::HoldDown => drop(worker.end(Ending::HoldDown).await),
        // An error: nobody takes them, and their peers wait in vain.
        Parting::Rest(to) => drop(to.send(worker.end(Ending::Rest).await)),
    }
    sessions.send_replace(BfdSessions::new());
    tellers.shutdown().await;
}

/// The worker thread as `run` sees it.
struct Handle {
    wake: UnixDatagram,
    stop: watch::Sender<Option<Ending>>,
    ended: oneshot::Receiver<Vec<KeptPath>>,
}

impl Handle {
    fn start(
        slices: watch::Receiver<BfdSlice>,
        kept: (Vec<KeptPath>, Option<Ledger>),
        counters: Arc<Counters>,
        sessions: (watch::Sender<BfdSessions>, InSession),
    ) -> io::Result<Handle> {
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let (stop, stopping) = watch::channel(None);
        let (ending, ended) = oneshot::channel();
        let (prioritised, priority) = oneshot::channel();
        tokio::spawn(log_priority(priority));
        let worker = Worker::new(slices, kept, stopping, woken, counters, sessions);
        std::thread::Builder::new().name("bfd".to_owned()).spawn(move || {
            let _ = prioritised.send(super::socket::raise_priority());
            let _ = ending.send(worker.run());
        })?;
        Ok(Handle { wake, stop, ended })
    }

    fn wake(&self) {
        // No room means that the worker was woken already.
        let _ = self.wake.send(&[0]);
    }

    async fn end(self, how: Ending) -> Vec<KeptPath> {
        let _ = self.stop.send(Some(how));
        self.wake();
        // A thread that panicked has printed why.
        self.ended.await.unwrap_or_default()
    }
}

async fn log_priority(priority: oneshot::Receiver<Priority>) {
    match priority.await {
        Ok(Priority::RealTime) => info!("BFD runs with real-time priority"),
        Ok(priority @ (Priority::Nice | Priority::Plain)) => warn!(
            ?priority,
            "BFD runs without real-time priority: a busy host may end sessions with short intervals; allow it with LimitRTPRIO=1 in \
             the unit of crier"
        ),
        Err(_) => {}
    }
}

/// Turns how the sessions stand into facts and log lines, the newest of each only.
async fn tell(mut sessions: watch::Receiver<BfdSessions>, facts: mpsc::Sender<Fact>) {
    let mut told = BfdSessions::new();
    loop {
        let newest = sessions.borrow_and_update().clone();
        for (peer, report) in &newest {
            let before = told.get(peer);
            if before == Some(report) {
                continue;
            }
            log(peer, before.map(Arc::as_ref), report);
            if facts.send(Fact::Bfd(peer.clone(), Some(report.clone()))).await.is_err() {
                return;
            }
        }
        for peer in told.keys().filter(|peer| !newest.contains_key(*peer)) {
            info!(%peer, "BFD session removed");
            if facts.send(Fact::Bfd(peer.clone(), None)).await.is_err() {
                return;
            }
        }
        told = newest;
        if sessions.changed().await.is_err() {
            return;
        }
    }
}

fn log(peer: &PeerName, before: Option<&BfdReport>, after: &BfdReport) {
    let BfdReport { address, state, diagnostic, .. } = after;
    let lost = after.losses - before.map_or(0, |before| before.losses.min(after.losses));
    if lost > 0 {
        let why = after.last_loss.as_ref().map_or("", |loss| loss.why.as_str());
        warn!(%peer, %address, reason = why, times = lost, "BFD session lost");
    }
    let was = before.map(|before| before.state);
    match state {
        BfdState::Up if was != Some(BfdState::Up) || lost > 0 => {
            info!(%peer, %address, "BFD session up");
        }
        BfdState::Down if was == Some(BfdState::Up) && lost == 0 => {
            info!(%peer, %address, reason = %diagnostic, "BFD session down: the peer's operator holds it down");
        }
        BfdState::Up | BfdState::Init | BfdState::Down | BfdState::AdminDown => {}
    }
    // Once: whoever sends in the peer's name could fill the log with what is wrong next.
    let before_problem = before.and_then(|before| before.problem.as_ref());
    if let Some(problem) = after.problem.as_ref().filter(|_| before_problem.is_none()) {
        match state {
            BfdState::Up => warn!(%peer, %address, problem, "the peer's BFD does not fit that of this node"),
            BfdState::Init | BfdState::Down | BfdState::AdminDown => {
                warn!(%peer, %address, reason = problem, "BFD cannot watch the peer");
            }
        }
    }
}
