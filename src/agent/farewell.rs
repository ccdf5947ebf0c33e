//! What each task does when the agent stops. Floor 3. Each function is a row: it waits for the [`Stop`], and answers in the
//! terms of its task.
//!
//! | task | leave | restart |
//! |---|---|---|
//! | pulse | says goodbye on every link, so that other nodes take over at once | the same |
//! | responder | answers for [`ANSWERS_ON`] more, until the next owner does; then it is silent | the same |
//! | bound addresses | accepts for [`ACCEPTS_ON`] more what neighbours still send here, then removes the addresses | keeps those that routers send packets to |
//! | blackhole routes | are removed | stay |
//! | BFD | AdminDown to every peer: no failure of the path | has the peers agree to wait, and hands the sessions out |
//! | BGP speaker | a Cease (Administrative Shutdown) to every peer, which withdraws all routes | hands the sessions out, without a word to their peers |
//! | Lease | hands it back, so that the next agent allocates at once (`k8s::lease`) | the same |
//! | the loop | turns on until all of the above have ended, and keeps the World on disk last | the same |
//! | all others | are cancelled: they have nothing to undo | the same |

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::bfd;
use crate::bfd::kept::KeptPath;
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::task::Parting;
use crate::kernel::{addresses, blackholes};
use crate::plan::slice::BgpSlice;
use crate::stop::{Cause, Stop};

/// Until the neighbours know the next owner: every request is answered meanwhile.
const ANSWERS_ON: Duration = Duration::from_millis(30);

/// Until the neighbours send to the next owner.
const ACCEPTS_ON: Duration = Duration::from_millis(200);

/// Tells a task when and why the agent stops.
#[derive(Debug, Clone)]
pub(super) struct Stopping(watch::Receiver<Option<Stop>>);

/// The sending end, and what the tasks get.
pub(super) fn channel() -> (watch::Sender<Option<Stop>>, Stopping) {
    let (sender, receiver) = watch::channel(None);
    (sender, Stopping(receiver))
}

impl Stopping {
    pub(super) async fn pulse(self) {
        match self.stop().await {
            Stop::Leave(_) | Stop::Restart => {}
        }
    }

    /// `handed_over`: other nodes hear this one say goodbye.
    pub(super) async fn responder(self, handed_over: bool) {
        match self.stop().await {
            Stop::Leave(_) | Stop::Restart if handed_over => sleep(ANSWERS_ON).await,
            Stop::Leave(_) | Stop::Restart => {}
        }
    }

    /// `handed_over`: as above. `routes`: what routers were told.
    pub(super) async fn bound_addresses(self, handed_over: bool, routes: watch::Receiver<BgpSlice>) -> addresses::Stop {
        let stop = self.stop().await;
        if handed_over {
            sleep(ACCEPTS_ON).await;
        }
        match stop {
            Stop::Leave(_) => addresses::Stop::Remove,
            Stop::Restart => {
                let peers = &routes.borrow().peers;
                addresses::Stop::KeepIn(peers.values().flat_map(|peer| peer.routes.keys().copied()).collect())
            }
        }
    }

    pub(super) async fn blackholes(self) -> blackholes::Stop {
        match self.stop().await {
            Stop::Leave(_) => blackholes::Stop::Remove,
            Stop::Restart => blackholes::Stop::Keep,
        }
    }

    /// `keeper`: who takes the sessions at a restart.
    pub(super) async fn bfd(self, keeper: oneshot::Sender<Vec<KeptPath>>) -> bfd::task::Parting {
        match self.stop().await {
            Stop::Leave(_) => bfd::task::Parting::HoldDown,
            Stop::Restart => bfd::task::Parting::Rest(keeper),
        }
    }

    /// `keeper`: who takes the sessions at a restart.
    pub(super) async fn bgp(self, keeper: oneshot::Sender<Vec<KeptConnection>>) -> Parting {
        match self.stop().await {
            // The text of the Cease (RFC 9003).
            Stop::Leave(_) => Parting::Leave("the agent stops".to_owned()),
            Stop::Restart => Parting::Keep(keeper),
        }
    }

    /// For the Lease, which looks at it more than once.
    pub(super) fn receiver(self) -> watch::Receiver<Option<Stop>> {
        self.0
    }

    async fn stop(mut self) -> Stop {
        match self.0.wait_for(Option::is_some).await.map(|stop| *stop) {
            Ok(Some(stop)) => stop,
            // The sender is gone only when the agent is.
            Ok(None) | Err(_) => Stop::Leave(Cause::TaskEnded("the agent")),
        }
    }
}
