//! What each task does when the agent stops. Floor 3. Each function is a row: it waits for the [`Stop`], and answers in the
//! terms of its task.
//!
//! | task | leave | restart |
//! |---|---|---|
//! | pulse | says goodbye on every link, so that other nodes take over at once | says by when the next agent is back, where the other nodes wait for that; else the same |
//! | responder | answers for [`ANSWERS_ON`] more, until the next owner does; then it is silent | answers until all others here have ended, and hands out the programs that go on in the kernel; where the nodes do not wait, the same |
//! | bound addresses | accepts for [`ACCEPTS_ON`] more what neighbours still send here, then removes the addresses | keeps those that routers send packets to, and those on the link where the other nodes wait |
//! | blackhole routes | are removed | stay |
//! | BFD | AdminDown to every peer, no failure of the path, once BGP has said its Cease: a router that is told to keep the routes when BFD goes down would keep them | has the peers agree to wait, and hands the sessions out |
//! | BGP speaker | a Cease (Administrative Shutdown) to every peer, which withdraws all routes | hands the sessions out, without a word to their peers |
//! | Lease | hands it back, so that the next agent allocates at once (`k8s::lease`) | the same |
//! | the loop | turns on until all of the above have ended, and keeps the World on disk last | the same |
//! | all others | are cancelled: they have nothing to undo | the same |

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::address::host_prefix;
use crate::arp;
use crate::bfd;
use crate::bfd::kept::KeptPath;
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::task::Parting;
use crate::kernel::{addresses, blackholes};
use crate::plan::slice::{BgpSlice, L2Slice};
use crate::pulse;
use crate::stop::{Cause, Stop};

/// Until the neighbours know the next owner: every request is answered meanwhile.
const ANSWERS_ON: Duration = Duration::from_millis(30);

/// How much earlier than the time that the other nodes wait for the kernel is silent: they ask then whether anybody has the address.
const ASKED_BEFORE: Duration = Duration::from_millis(100);

/// How long BFD waits for BGP to have left. Its Cease is written within milliseconds, or the peer reads nothing; where it is lost on the way,
/// it is sent again.
const BGP_FIRST: Duration = Duration::from_millis(2600);

/// Until the neighbours send to the next owner.
const ACCEPTS_ON: Duration = Duration::from_millis(200);

/// Tells a task when and why the agent stops.
#[derive(Debug, Clone)]
pub(super) struct Stopping {
    stop: watch::Receiver<Option<Stop>>,
    /// All tasks have ended that end by themselves.
    last: watch::Receiver<bool>,
}

/// The sending ends, the one that says that all others have ended behind, and what the tasks get.
pub(super) fn channel() -> (watch::Sender<Option<Stop>>, watch::Sender<bool>, Stopping) {
    let ((stops, stop), (lasts, last)) = (watch::channel(None), watch::channel(false));
    (stops, lasts, Stopping { stop, last })
}

impl Stopping {
    pub(super) async fn pulse(mut self) -> pulse::task::Parting {
        match self.stop().await {
            Stop::Leave(_) | Stop::Restart { back_by: None } => pulse::task::Parting::Leave,
            Stop::Restart { back_by: Some(back_by) } => pulse::task::Parting::Restart { back_by },
        }
    }

    /// `handed_over`: other nodes hear this one say goodbye. `keeper`: who takes the programs in the kernel at a restart.
    pub(super) async fn responder(
        mut self,
        handed_over: bool,
        keeper: oneshot::Sender<Vec<OwnedFd>>,
    ) -> arp::task::Parting {
        match self.stop().await {
            Stop::Leave(_) | Stop::Restart { back_by: None } => {
                if handed_over {
                    sleep(ANSWERS_ON).await;
                }
                arp::task::Parting::Leave
            }
            Stop::Restart { back_by: Some(back_by) } => {
                // The sender is gone only when the agent is.
                let _ = self.last.wait_for(|last| *last).await;
                let back_by = back_by.checked_sub(ASKED_BEFORE).unwrap_or(back_by);
                arp::task::Parting::Restart { back_by, keeper }
            }
        }
    }

    /// `handed_over`: as above. `routes`: what routers were told. `l2`: what is answered for on the link.
    pub(super) async fn bound_addresses(
        mut self,
        handed_over: bool,
        routes: watch::Receiver<BgpSlice>,
        l2: watch::Receiver<L2Slice>,
    ) -> addresses::Stop {
        let stop = self.stop().await;
        let routed = || {
            let peers = &routes.borrow().peers;
            peers.values().flat_map(|peer| peer.routes.keys().copied()).collect::<BTreeSet<_>>()
        };
        match stop {
            Stop::Leave(_) | Stop::Restart { back_by: None } if handed_over => sleep(ACCEPTS_ON).await,
            Stop::Leave(_) | Stop::Restart { .. } => {}
        }
        match stop {
            Stop::Leave(_) => addresses::Stop::Remove,
            Stop::Restart { back_by: None } => addresses::Stop::KeepIn(routed()),
            Stop::Restart { back_by: Some(_) } => {
                let mut stay = routed();
                stay.extend(l2.borrow().addresses.keys().map(|address| host_prefix(*address)));
                addresses::Stop::KeepIn(stay)
            }
        }
    }

    pub(super) async fn blackholes(mut self) -> blackholes::Stop {
        match self.stop().await {
            Stop::Leave(_) => blackholes::Stop::Remove,
            Stop::Restart { back_by: _ } => blackholes::Stop::Keep,
        }
    }

    /// `keeper`: who takes the sessions at a restart. `bgp`: BGP has left.
    pub(super) async fn bfd(
        mut self,
        keeper: oneshot::Sender<Vec<KeptPath>>,
        bgp: oneshot::Receiver<()>,
    ) -> bfd::task::Parting {
        match self.stop().await {
            Stop::Leave(_) => {
                // Either way it is time now.
                let _ = timeout(BGP_FIRST, bgp).await;
                bfd::task::Parting::HoldDown
            }
            Stop::Restart { back_by: _ } => bfd::task::Parting::Rest(keeper),
        }
    }

    /// `keeper`: who takes the sessions at a restart.
    pub(super) async fn bgp(mut self, keeper: oneshot::Sender<Vec<KeptConnection>>) -> Parting {
        match self.stop().await {
            // The text of the Cease (RFC 9003).
            Stop::Leave(_) => Parting::Leave("the agent stops".to_owned()),
            Stop::Restart { back_by: _ } => Parting::Keep(keeper),
        }
    }

    /// For the Lease, which looks at it more than once.
    pub(super) fn receiver(self) -> watch::Receiver<Option<Stop>> {
        self.stop
    }

    async fn stop(&mut self) -> Stop {
        match self.stop.wait_for(Option::is_some).await.map(|stop| *stop) {
            Ok(Some(stop)) => stop,
            // The sender is gone only when the agent is.
            Ok(None) | Err(_) => Stop::Leave(Cause::TaskEnded("the agent")),
        }
    }
}
