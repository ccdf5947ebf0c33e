//! The BGP speaker: as many peer tasks as the plan names peers, and the listening sockets. Floor 2.
//!
//! | task    | owner       | owns                                        | when cancelled                      |
//! |---------|-------------|---------------------------------------------|-------------------------------------|
//! | speaker | the agent   | listening sockets, the ends to every peer   | all sockets close, no NOTIFICATION   |
//! | peer    | the speaker | see `peer`                                  |                                      |
//!
//! | channel        | from, to           | depth                | when full                                              |
//! |----------------|--------------------|----------------------|--------------------------------------------------------|
//! | slices         | the agent, speaker | newest wins          | -                                                      |
//! | desired        | speaker, peer      | newest wins          | -                                                      |
//! | inbound        | speaker, peer      | `INBOUND_DEPTH`      | the connection is closed; a peer needs one at a time   |
//! | leave          | speaker, peer      | once                 | -                                                      |
//! | bfd            | BFD, every peer    | newest wins          | -                                                      |
//! | facts          | peer, the agent    | the agent's choice   | the report waits, and says the newest when there is room |

mod peer;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use self::peer::{Channels, Desired, Inbound, Leave};
use crate::address::ScopedAddress;
use crate::bgp::settings;
use crate::bgp::socket::listeners::{Arrival, Listeners, RETRY_PAUSE};
use crate::bgp::socket::{Endpoint, FAREWELL_TIME, describe};
use crate::bgp::wire::{Cease, Notification, NotificationReason};
use crate::clock;
use crate::config;
use crate::names::PeerName;
use crate::plan::slice::{BgpSlice, PeerSlice};
use crate::reason::Reason;
use crate::world::{BfdSessions, Fact, HostProblem};

/// Connections of one peer that wait to be taken.
const INBOUND_DEPTH: usize = 4;

/// After an error of a listening socket, such as too many open files, the pause before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A connection whose caller the plan does not make a peer's within this time is closed.
const WAITING_TIME: Duration = Duration::from_secs(10);

/// Unknown callers are logged this often at most.
const UNKNOWN_CALLER_PAUSE: Duration = Duration::from_secs(60);

/// Speaks BGP by the newest slice, until `shutdown` gives the text for the Cease, or no more slices can come. Every session then
/// ends with Cease / Administrative Shutdown, within about [`FAREWELL_TIME`].
///
/// `bfd` has how the BFD sessions stand: where one is lost, the session of its peer ends.
///
/// There are no sessions while the slice has no router id. Reports every session as a [`Fact::Session`].
pub async fn run(
    mut slices: watch::Receiver<BgpSlice>,
    facts: mpsc::Sender<Fact>,
    listeners: Listeners,
    bfd: watch::Receiver<BfdSessions>,
    shutdown: impl Future<Output = String>,
) {
    let mut speaker = Speaker {
        peers: BTreeMap::new(),
        tasks: JoinSet::new(),
        facts,
        bfd,
        listeners,
        nowhere: BTreeMap::new(),
        unnumbered: Vec::new(),
        waiting: None,
        problems: Vec::new(),
        unknown_callers: UnknownCallers::default(),
    };
    let newest = slices.borrow_and_update().clone();
    speaker.follow(&newest);
    speaker.tell_problems();
    let mut accept_from = clock::now();
    let mut look_at = clock::now() + RETRY_PAUSE;
    let mut shutdown = std::pin::pin!(shutdown);
    let why = loop {
        tokio::select! {
            changed = slices.changed() => match changed {
                Ok(()) => {
                    let newest = slices.borrow_and_update().clone();
                    speaker.follow(&newest);
                }
                Err(_) => break "crier has no more plan to follow".to_owned(),
            },
            accepted = accept_after(&speaker.listeners, accept_from) => match accepted {
                Ok(arrival) => speaker.hand_over(arrival),
                Err(error) => {
                    warn!(reason = describe(&error), "no BGP connection can be accepted for now");
                    accept_from = clock::now() + ACCEPT_PAUSE;
                }
            },
            () = tokio::time::sleep_until(look_at.into()), if speaker.listeners.wants_another_look() => {
                speaker.arrange_listeners();
                look_at = clock::now() + RETRY_PAUSE;
            }
            () = tokio::time::sleep_until(speaker.waiting_until().into()), if speaker.waiting.is_some() => {
                speaker.waiting = None;
            }
            Some(ended) = speaker.tasks.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "the task of a BGP peer has died");
                }
            }
            why = &mut shutdown => break why,
        }
    };
    speaker.leave(&why).await;
}

struct Speaker {
    peers: BTreeMap<PeerName, PeerHandle>,
    tasks: JoinSet<()>,
    facts: mpsc::Sender<Fact>,
    bfd: watch::Receiver<BfdSessions>,
    listeners: Listeners,
    /// Why the peers that have no task have none, as it was logged.
    nowhere: BTreeMap<PeerName, Reason>,
    /// Links whose peer may call from any link-local address, while no session with it stands in the way.
    unnumbered: Vec<u32>,
    /// The last connection from such an address, until the plan says that it is the peer's, or somebody else calls.
    waiting: Option<(Arrival, Instant)>,
    /// What keeps connections from being accepted, as the agent was told.
    problems: Vec<HostProblem>,
    unknown_callers: UnknownCallers,
}

/// The speaker's side of one peer task. Dropping it ends the task without a NOTIFICATION to the peer.
struct PeerHandle {
    settings: Arc<config::Peer>,
    address: ScopedAddress,
    router_id: Ipv4Addr,
    endpoint: Endpoint,
    /// How often operators had reset the peer when its task began.
    resets: u32,
    desired: watch::Sender<Desired>,
    inbound: mpsc::Sender<Inbound>,
    leave: oneshot::Sender<Leave>,
}

impl PeerHandle {
    /// Why the session cannot go on as the slice has the peer now, with what the peer is told.
    fn ends(&self, peer: &PeerSlice, router_id: Ipv4Addr) -> Option<(Notification, String)> {
        let changed = |why: String| Some((NotificationReason::Cease(Cease::OtherConfigurationChange).into(), why));
        let identifier = |settings: &config::Peer, router_id: Ipv4Addr| settings.router_id.unwrap_or(router_id);
        match &peer.address {
            Err(reason @ (Reason::PeerShutDown | Reason::PeerShutByOperator)) => {
                let why = reason.to_string();
                Some((Notification::administrative_shutdown(&why), why))
            }
            Err(reason) => changed(reason.to_string()),
            Ok(address) if self.address != *address => changed(format!("the peer is now {address}")),
            Ok(_) if self.resets != peer.orders.resets => {
                Some((NotificationReason::Cease(Cease::AdministrativeReset).into(), "an operator reset it".to_owned()))
            }
            Ok(_) if config::peer_touches(&self.settings, &peer.settings) >= config::Touches::Session => {
                let keys = config::differing_keys(&self.settings, &peer.settings);
                changed(format!("the settings of the peer have changed: {}", keys.join(", ")))
            }
            Ok(_) if identifier(&self.settings, self.router_id) != identifier(&peer.settings, router_id) => {
                changed(format!("the router id is now {router_id}"))
            }
            Ok(_) => None,
        }
    }

    /// Tells the task what the slice has for it now. True if its connections are to be accepted in another way.
    fn take_over(&mut self, slice: &BgpSlice, peer: &PeerSlice) -> bool {
        self.desired.send_if_modified(|desired| desired.replace_with(slice, peer));
        if self.settings == peer.settings {
            return false;
        }
        self.settings = Arc::clone(&peer.settings);
        let endpoint = settings::endpoint(&self.settings, self.address.clone());
        std::mem::replace(&mut self.endpoint, endpoint) != self.endpoint
    }
}

impl Speaker {
    /// Starts, stops and instructs the peer tasks as the slice says.
    fn follow(&mut self, slice: &BgpSlice) {
        let Some(router_id) = slice.router_id else { return };
        let mut moved = slice.listen.as_ref().is_some_and(|listen| self.listeners.turn_to(listen));
        let gone: Vec<PeerName> = self.peers.keys().filter(|name| !slice.peers.contains_key(*name)).cloned().collect();
        for name in gone {
            self.stop(&name, NotificationReason::Cease(Cease::PeerDeconfigured).into(), "the peer was removed");
            moved = true;
        }
        self.unnumbered = slice.unnumbered.keys().copied().collect();
        self.nowhere.retain(|name, _| slice.peers.contains_key(name));
        for (name, peer) in &slice.peers {
            if let Some(handle) = self.peers.get_mut(name) {
                let Some((notification, why)) = handle.ends(peer, router_id) else {
                    moved |= handle.take_over(slice, peer);
                    continue;
                };
                moved = true;
                self.stop(name, notification, &why);
            }
            match &peer.address {
                Ok(address) => {
                    self.nowhere.remove(name);
                    moved = true;
                    self.start(name, peer, address.clone(), router_id, slice);
                }
                Err(reason) => {
                    if self.nowhere.insert(name.clone(), reason.clone()).as_ref() != Some(reason) {
                        info!(peer = %name, %reason, "peer not found");
                    }
                }
            }
        }
        if moved {
            self.arrange_listeners();
        }
        if let Some((arrival, since)) = self.waiting.take() {
            match self.peers.values().any(|handle| arrival.is_of(&handle.endpoint)) {
                true => self.hand_over(arrival),
                false => self.waiting = Some((arrival, since)),
            }
        }
    }

    /// When the connection that waits, if any, has waited long enough.
    fn waiting_until(&self) -> Instant {
        self.waiting.as_ref().map_or_else(clock::now, |(_, since)| *since + WAITING_TIME)
    }

    fn tell_problems(&mut self) {
        let problems = self.listeners.problems();
        // If the queue is full, they are told at the next look.
        if problems != self.problems && self.facts.try_send(Fact::Listening(problems.clone())).is_ok() {
            for HostProblem { problem, remedy } in problems.iter().filter(|problem| !self.problems.contains(problem)) {
                warn!(problem, remedy, "no BGP connections are accepted");
            }
            self.problems = problems;
        }
    }

    /// The listening sockets get the keys of exactly these peers.
    fn arrange_listeners(&mut self) {
        let peers = self.peers.iter().map(|(name, handle)| (name, &handle.endpoint));
        for (name, why) in self.listeners.follow(peers) {
            if let Some(handle) = self.peers.get(&name) {
                // A peer with so many connections waiting knows already that it can connect.
                let _ = handle.inbound.try_send(Inbound::Refused(why));
            }
        }
        self.tell_problems();
    }

    fn start(
        &mut self,
        name: &PeerName,
        peer: &PeerSlice,
        address: ScopedAddress,
        router_id: Ipv4Addr,
        slice: &BgpSlice,
    ) {
        let settings = Arc::clone(&peer.settings);
        let (desired, desired_rx) = watch::channel(Desired {
            routes: peer.routes.clone(),
            complete: slice.complete,
            local_addresses: Arc::clone(&slice.local_addresses),
            settings: Arc::clone(&settings),
            refreshes: peer.orders.refreshes,
        });
        let resets = peer.orders.resets;
        let (inbound, inbound_rx) = mpsc::channel(INBOUND_DEPTH);
        let (leave, leave_rx) = oneshot::channel();
        let channels = Channels {
            desired: desired_rx,
            inbound: inbound_rx,
            leave: leave_rx,
            facts: self.facts.clone(),
            bfd: self.bfd.clone(),
        };
        self.tasks.spawn(peer::run(name.clone(), Arc::clone(&settings), address.clone(), router_id, channels));
        let endpoint = settings::endpoint(&settings, address.clone());
        info!(peer = %name, %address, "peer started");
        self.peers.insert(
            name.clone(),
            PeerHandle { settings, address, router_id, endpoint, resets, desired, inbound, leave },
        );
    }

    fn stop(&mut self, name: &PeerName, notification: Notification, why: &str) {
        let Some(handle) = self.peers.remove(name) else { return };
        info!(peer = %name, reason = why, "peer stopped");
        // It fails when the task has ended already, and then there is nobody to tell.
        let _ = handle.leave.send(Leave { notification, why: why.to_owned() });
    }

    /// An accepted connection goes to the peer whose address it comes from. Of several with one address, to the one in whose VRF,
    /// at whose source address and with whose key it came; then by the order of their names.
    fn hand_over(&mut self, arrival: Arrival) {
        let mut of: Vec<(&PeerName, &PeerHandle)> =
            self.peers.iter().filter(|(_, handle)| arrival.is_of(&handle.endpoint)).collect();
        of.sort_by_key(|(_, handle)| (arrival.mistrust(&handle.endpoint).is_some(), handle.endpoint.source.is_none()));
        let Some((name, handle)) = of.first() else {
            return self.note_caller(arrival);
        };
        let inbound = match arrival.mistrust(&handle.endpoint) {
            Some(why) => Inbound::Refused(why),
            None => Inbound::Connection(arrival.stream),
        };
        if handle.inbound.try_send(inbound).is_err() {
            warn!(peer = %name, "connection closed: the peer opens connections faster than they can be handled");
        }
    }

    /// A caller with a link-local address on the link of an unnumbered peer may be that peer: the plan decides.
    fn note_caller(&mut self, arrival: Arrival) {
        let from = arrival.from;
        if let SocketAddr::V6(v6) = from
            && v6.ip().is_unicast_link_local()
            && self.unnumbered.contains(&v6.scope_id())
            // If the queue is full, the caller is dropped, and calls again.
            && self.facts.try_send(Fact::Caller(v6.scope_id(), *v6.ip())).is_ok()
        {
            self.waiting = Some((arrival, clock::now()));
            return;
        }
        self.unknown_callers.note(from.ip(), clock::now());
    }

    async fn leave(mut self, why: &str) {
        let names: Vec<PeerName> = self.peers.keys().cloned().collect();
        for name in names {
            self.stop(&name, Notification::administrative_shutdown(why), why);
        }
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        // Half as long again: every task limits its own farewells to the full time.
        if tokio::time::timeout(FAREWELL_TIME * 3 / 2, all_gone).await.is_err() {
            warn!("a BGP peer got no Cease in time");
        }
    }
}

impl Desired {
    /// Whether anything has changed.
    fn replace_with(&mut self, slice: &BgpSlice, peer: &PeerSlice) -> bool {
        let same = self.complete == slice.complete
            && self.routes.ptr_eq(&peer.routes)
            && Arc::ptr_eq(&self.local_addresses, &slice.local_addresses)
            && self.settings == peer.settings
            && self.refreshes == peer.orders.refreshes;
        if !same {
            *self = Desired {
                routes: peer.routes.clone(),
                complete: slice.complete,
                local_addresses: Arc::clone(&slice.local_addresses),
                settings: Arc::clone(&peer.settings),
                refreshes: peer.orders.refreshes,
            };
        }
        !same
    }
}

/// Connections from addresses that belong to no peer.
#[derive(Debug, Default)]
struct UnknownCallers {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl UnknownCallers {
    fn note(&mut self, from: IpAddr, now: Instant) {
        if self.logged_at.is_some_and(|at| now < at + UNKNOWN_CALLER_PAUSE) {
            self.unlogged += 1;
            return;
        }
        warn!(address = %from, more_before = self.unlogged, "BGP connection closed: no peer has this address");
        *self = UnknownCallers { logged_at: Some(now), unlogged: 0 };
    }
}

async fn accept_after(listeners: &Listeners, from: Instant) -> std::io::Result<Arrival> {
    tokio::time::sleep_until(from.into()).await;
    listeners.accept().await
}

#[cfg(test)]
mod tests;
