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
//! | done           | peer, the next one | once                 | -                                                      |
//! | bfd            | BFD, every peer    | newest wins          | -                                                      |
//! | facts          | peer, the agent    | the agent's choice   | the report waits, and says the newest when there is room |
//! | safe           | peers, the agent   | newest wins          | -                                                      |

mod peer;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use self::peer::{Before, Channels, Desired, Handed, Inbound, Leave};
use crate::address::ScopedAddress;
use crate::bgp::machine::negotiation::{RESTART_TIME, Restart};
use crate::bgp::outbox::Routes;
use crate::bgp::settings;
use crate::bgp::socket::kept::KeptConnection;
use crate::bgp::socket::ledger::Safe;
use crate::bgp::socket::listeners::{Arrival, Listeners, RETRY_PAUSE};
use crate::bgp::socket::{Endpoint, FAREWELL_TIME, describe};
use crate::bgp::wire::{Cease, Notification, NotificationReason};
use crate::clock;
use crate::config::{self, PeerAddress};
use crate::in_session::InSession;
use crate::names::{InterfaceName, PeerName};
use crate::plan::reach::peer_of;
use crate::plan::slice::{BgpSlice, PeerSlice};
use crate::reason::Reason;
use crate::world::{Area, BfdSessions, Fact, FormerSession, HostProblem};

/// Connections of one peer that wait to be taken.
const INBOUND_DEPTH: usize = 4;

/// After an error of a listening socket, such as too many open files, the pause before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A connection whose caller the plan does not make a peer's within this time is closed.
const WAITING_TIME: Duration = Duration::from_secs(10);

/// For how long a session of the previous agent goes on whose peer is to be found and was not found yet. Router discovery takes a
/// few seconds where an advertisement is lost. Where the default route says who the peers are, the first plan that knew of the session
/// decides.
const EXPECTING_TIME: Duration = Duration::from_secs(30);

/// What a [`LogLimit`] bounds is logged this often at most.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// How the speaker is to end.
#[derive(Debug)]
pub enum Parting {
    /// Every session ends with Cease / Administrative Shutdown and this text, within about [`FAREWELL_TIME`].
    Leave(String),
    /// Another agent follows: every established session goes to this end, and its peer hears nothing. Whoever takes them closes or
    /// keeps their sockets.
    Keep(oneshot::Sender<Vec<KeptConnection>>),
}

/// What this speaker is to know of the agents before, and where it leaves the same for the one after.
#[derive(Debug, Default)]
pub struct Past {
    pub resumable: Vec<Resumable>,
    /// What peers are told of this agent at first, where graceful restart is offered.
    pub restart: Restart,
    /// Of the sessions that do not go on, why.
    pub former: BTreeMap<PeerName, FormerSession>,
    /// Where sessions are entrusted to whoever keeps them over a crash of this agent; `None` where nobody does.
    pub safe: Option<Safe>,
    /// Where it shows with which routers there are sessions: BFD outlives them.
    pub in_session: InSession,
}

/// A session that a previous agent kept, with the settings that its peer has now.
#[derive(Debug)]
pub struct Resumable {
    pub kept: KeptConnection,
    pub settings: Arc<config::Peer>,
}

/// Speaks BGP by the newest slice, until `shutdown` says how to end, or no more slices can come: then every session ends with a
/// Cease.
///
/// The sessions of `past` go on at once. Until there is a slice, their peers are told nothing but that this node lives.
///
/// `bfd` has how the BFD sessions stand: where one is lost, the session of its peer ends.
///
/// There are no sessions while the slice has no router id. Reports every session as a [`Fact::Session`].
pub async fn run(
    mut slices: watch::Receiver<BgpSlice>,
    facts: mpsc::Sender<Fact>,
    listeners: Listeners,
    bfd: watch::Receiver<BfdSessions>,
    past: Past,
    shutdown: impl Future<Output = Parting>,
) {
    let Past { resumable, restart, former, safe, in_session } = past;
    let mut speaker = Speaker {
        restart,
        former,
        safe,
        in_session,
        began: clock::now(),
        peers: BTreeMap::new(),
        expect_until: None,
        tasks: JoinSet::new(),
        facts,
        bfd,
        listeners,
        nowhere: BTreeMap::new(),
        unnumbered: Arc::default(),
        waiting: None,
        problems: Vec::new(),
        unknown_callers: LogLimit::default(),
        hasty: BTreeMap::new(),
        turns: BTreeMap::new(),
        stopped: BTreeMap::new(),
    };
    resumable.into_iter().for_each(|resumable| speaker.resume(resumable));
    let newest = slices.borrow_and_update().clone();
    speaker.follow(&newest);
    speaker.tell_problems();
    let mut accept_from = clock::now();
    let mut look_at = clock::now() + RETRY_PAUSE;
    let mut shutdown = std::pin::pin!(shutdown);
    let parting = loop {
        tokio::select! {
            changed = slices.changed() => match changed {
                Ok(()) => {
                    let newest = slices.borrow_and_update().clone();
                    speaker.follow(&newest);
                }
                Err(_) => break Parting::Leave("crier has no more plan to follow".to_owned()),
            },
            () = tokio::time::sleep_until(speaker.expect_until()), if speaker.expect_until.is_some() => {
                speaker.expect_until = None;
                let newest = slices.borrow().clone();
                speaker.follow(&newest);
            }
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
            parting = &mut shutdown => break parting,
        }
    };
    match parting {
        Parting::Leave(why) => speaker.leave(&why).await,
        Parting::Keep(to) => speaker.keep(to).await,
    }
}

/// A peer that has no task.
struct Nowhere {
    reason: Reason,
    /// Where the configuration has it.
    address: Option<IpAddr>,
}

fn given_address(settings: &config::Peer) -> Option<IpAddr> {
    match &settings.address {
        config::PeerAddress::Fixed(address) => Some(address.ip),
        config::PeerAddress::Interface(_) | config::PeerAddress::Gateway => None,
    }
}

struct Speaker {
    restart: Restart,
    /// What became of the sessions of the previous agent, where that was known when it was taken out.
    former: BTreeMap<PeerName, FormerSession>,
    safe: Option<Safe>,
    in_session: InSession,
    began: Instant,
    peers: BTreeMap<PeerName, PeerHandle>,
    /// Until then, a session of the previous agent goes on although its peer, which is to be found, was not found yet.
    expect_until: Option<Instant>,
    tasks: JoinSet<()>,
    facts: mpsc::Sender<Fact>,
    bfd: watch::Receiver<BfdSessions>,
    listeners: Listeners,
    /// Why the peers that have no task have none, as it was logged.
    nowhere: BTreeMap<PeerName, Nowhere>,
    /// Links whose peer may call from any link-local address, while no session with it stands in the way.
    unnumbered: Arc<BTreeMap<u32, InterfaceName>>,
    /// The last connection from such an address, until the plan says that it is the peer's, or somebody else calls.
    waiting: Option<(Arrival, Instant)>,
    /// What keeps connections from being accepted, as the agent was told.
    problems: Vec<HostProblem>,
    /// From addresses that belong to no peer.
    unknown_callers: LogLimit,
    /// Of peers that have more connections waiting than they need.
    hasty: BTreeMap<PeerName, LogLimit>,
    /// Of peers that take turns with others that are the same router, while it does not answer.
    turns: BTreeMap<PeerName, LogLimit>,
    /// The last task of each peer that has been stopped, for the next one: see [`Before::task`].
    stopped: BTreeMap<PeerName, oneshot::Receiver<Handed>>,
}

/// The speaker's side of one peer task. Dropping it ends the task without a NOTIFICATION to the peer.
struct PeerHandle {
    settings: Arc<config::Peer>,
    address: ScopedAddress,
    router_id: Ipv4Addr,
    endpoint: Endpoint,
    /// How often operators had reset the peer when its task began.
    resets: u32,
    /// The session is that of the previous agent, and its peer is to be found yet.
    is_kept: bool,
    /// The session is that of the previous agent, and no slice has said that it may go on.
    is_resumed: bool,
    desired: watch::Sender<Desired>,
    inbound: mpsc::Sender<Inbound>,
    leave: oneshot::Sender<Leave>,
    done: oneshot::Receiver<Handed>,
}

/// With whom a session is, and as whom.
struct Identity {
    address: ScopedAddress,
    router_id: Ipv4Addr,
    /// How often operators have reset the peer.
    resets: u32,
}

impl PeerHandle {
    /// Routers on its link are tried one after the other.
    fn is_found_on_link(&self) -> bool {
        matches!(self.settings.address, PeerAddress::Interface(_))
    }

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
            Ok(_)
                if config::peer_touches(&self.settings_at(&peer.settings), &peer.settings)
                    >= config::Touches::Session =>
            {
                let keys = config::differing_keys(&self.settings_at(&peer.settings), &peer.settings);
                changed(format!("the settings of the peer have changed: {}", keys.join(", ")))
            }
            Ok(_) if identifier(&self.settings, self.router_id) != identifier(&peer.settings, router_id) => {
                changed(format!("the router id is now {router_id}"))
            }
            Ok(_) => None,
        }
    }

    /// Those in use, with the place of the peer as the others have it: in which way the same router was found does not matter.
    fn settings_at(&self, others: &config::Peer) -> config::Peer {
        config::Peer { address: others.address.clone(), ..config::Peer::clone(&self.settings) }
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

/// What a peer is told that the slice has no more, and why. A further session may be of a peer that stays.
fn of_removed(name: &PeerName, slice: &BgpSlice) -> (Notification, String) {
    let deconfigured = |why: &str| (NotificationReason::Cease(Cease::PeerDeconfigured).into(), why.to_owned());
    match slice.peers.get(&peer_of(name)) {
        None => deconfigured("the peer was removed"),
        Some(PeerSlice { address: Err(reason @ (Reason::PeerShutDown | Reason::PeerShutByOperator)), .. }) => {
            let why = reason.to_string();
            (Notification::administrative_shutdown(&why), why)
        }
        Some(peer) if peer.settings.address == PeerAddress::Gateway => {
            deconfigured("the default route has no such next hop any more")
        }
        Some(_) => deconfigured("the peer has another address now"),
    }
}

impl Speaker {
    /// Starts, stops and instructs the peer tasks as the slice says.
    fn follow(&mut self, slice: &BgpSlice) {
        let Some(router_id) = slice.router_id else { return };
        let mut moved = slice.listen.as_ref().is_some_and(|listen| self.listeners.turn_to(listen));
        let is_gone = |(name, handle): &(&PeerName, &PeerHandle)| {
            !slice.peers.contains_key(*name) && !self.is_expected(name, handle, slice)
        };
        let gone: Vec<PeerName> = self.peers.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            let (notification, why) = of_removed(&name, slice);
            self.stop(&name, notification, why, true);
            moved = true;
        }
        self.unnumbered = Arc::clone(&slice.unnumbered);
        self.nowhere.retain(|name, _| slice.peers.contains_key(name));
        self.stopped.retain(|name, _| slice.peers.contains_key(name));
        self.hasty.retain(|name, _| slice.peers.contains_key(name));
        self.turns.retain(|name, _| slice.peers.contains_key(name));
        for (name, peer) in &slice.peers {
            let is_expected = |handle: &PeerHandle| peer.address.is_err() && self.is_expected(name, handle, slice);
            if self.peers.get(name).is_some_and(is_expected) {
                continue;
            }
            // Peers that take turns do so for as long as nobody answers.
            let mut is_logged = true;
            if let Some(handle) = self.peers.get_mut(name) {
                let Some((notification, why)) = handle.ends(peer, router_id) else {
                    (handle.is_kept, handle.is_resumed) = (false, false);
                    moved |= handle.take_over(slice, peer);
                    continue;
                };
                moved = true;
                if handle.is_resumed {
                    self.former.insert(
                        name.clone(),
                        FormerSession::Lost { why: why.clone(), routes_kept: false, bfd_ended: false },
                    );
                }
                is_logged = match &peer.address {
                    Err(Reason::SameRouter { .. }) => false,
                    Ok(address) if handle.is_found_on_link() && handle.address != *address => {
                        self.turns.entry(name.clone()).or_default().note(clock::now()).is_some()
                    }
                    Ok(_) | Err(_) => true,
                };
                let done = self.stop(name, notification, why, is_logged);
                self.stopped.extend(done.map(|done| (name.clone(), done)));
            }
            match &peer.address {
                Ok(address) => {
                    let nowhere = self.nowhere.remove(name);
                    is_logged &= !nowhere.is_some_and(|it| matches!(it.reason, Reason::SameRouter { .. }));
                    match is_logged {
                        true => info!(peer = %name, %address, "peer started"),
                        false => debug!(peer = %name, %address, "peer started"),
                    }
                    moved = true;
                    let desired = Desired::of(slice, peer);
                    let identity = Identity { address: address.clone(), router_id, resets: peer.orders.resets };
                    let before = self.stopped.remove(name);
                    self.start(name, identity, desired, None, before);
                }
                Err(reason) => {
                    let nowhere = Nowhere { reason: reason.clone(), address: given_address(&peer.settings) };
                    if self.nowhere.insert(name.clone(), nowhere).is_none_or(|before| before.reason != *reason) {
                        self.log_nowhere(name, reason);
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

    /// Peers that are one router take turns as long as it does not answer, which may be for days.
    fn log_nowhere(&mut self, name: &PeerName, reason: &Reason) {
        match reason {
            Reason::SameRouter { .. } => match self.turns.entry(name.clone()).or_default().note(clock::now()) {
                Some(more_before) => info!(peer = %name, %reason, more_before, "peer not found"),
                None => debug!(peer = %name, %reason, "peer not found"),
            },
            _ => info!(peer = %name, %reason, "peer not found"),
        }
    }

    /// When the connection that waits, if any, has waited long enough.
    fn waiting_until(&self) -> Instant {
        self.waiting.as_ref().map_or_else(clock::now, |(_, since)| *since + WAITING_TIME)
    }

    fn tell_problems(&mut self) {
        let problems = self.listeners.problems();
        // If the queue is full, they are told at the next look.
        if problems != self.problems && self.facts.try_send(Fact::Problems(Area::Listening, problems.clone())).is_ok() {
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

    /// Goes on with a session of the previous agent, if its settings let it.
    fn resume(&mut self, Resumable { kept, settings }: Resumable) {
        let (name, state) = (kept.state.peer.clone(), &kept.state);
        let mut changed = state.changed_keys(&config::session_keys(&settings));
        // In which way the same router was found does not matter. One that is to be found is compared once it is.
        let is_elsewhere =
            |place: &PeerAddress| matches!(place, PeerAddress::Fixed(address) if *address != state.address);
        changed.retain(|key| *key != "address" || is_elsewhere(&settings.address));
        if !changed.is_empty() {
            let why = format!("the settings of the peer have changed: {}", changed.join(", "));
            info!(peer = %name, reason = why, "the session of the previous agent ends");
            self.former.insert(name, FormerSession::Lost { why, routes_kept: false, bfd_ended: false });
            let notification = NotificationReason::Cease(Cease::OtherConfigurationChange).into();
            self.tasks.spawn(kept.end(notification));
            return;
        }
        let is_to_be_found = !matches!(settings.address, config::PeerAddress::Fixed(_));
        let identity = Identity { address: state.address.clone(), router_id: state.router_id, resets: 0 };
        let desired =
            Desired { routes: Routes::new(), complete: false, local_addresses: Arc::default(), settings, refreshes: 0 };
        info!(peer = %name, address = %identity.address, "peer started");
        self.start(&name, identity, desired, Some(kept), None);
        if let Some(handle) = self.peers.get_mut(&name) {
            (handle.is_kept, handle.is_resumed) = (is_to_be_found, true);
            if is_to_be_found {
                self.expect_until = Some(clock::now() + EXPECTING_TIME);
            }
        }
    }

    /// Its peer is to be found yet, its session is that of the previous agent, and the plan has not decided against it.
    fn is_expected(&self, name: &PeerName, handle: &PeerHandle, slice: &BgpSlice) -> bool {
        let peer = slice.peers.get(name).or_else(|| slice.peers.get(&peer_of(name)));
        let is_shut = |peer: &PeerSlice| matches!(peer.address, Err(Reason::PeerShutDown | Reason::PeerShutByOperator));
        let is_wanted = peer.is_some_and(|peer| !is_shut(peer));
        handle.is_kept && self.expect_until.is_some() && is_wanted && !slice.weighed.contains(name)
    }

    fn expect_until(&self) -> tokio::time::Instant {
        self.expect_until.unwrap_or_else(clock::now).into()
    }

    /// `before`: see [`Before::task`].
    fn start(
        &mut self,
        name: &PeerName,
        identity: Identity,
        desired: Desired,
        kept: Option<KeptConnection>,
        before: Option<oneshot::Receiver<Handed>>,
    ) {
        let Identity { address, router_id, resets } = identity;
        let settings = Arc::clone(&desired.settings);
        let (desired, desired_rx) = watch::channel(desired);
        let (inbound, inbound_rx) = mpsc::channel(INBOUND_DEPTH);
        let (leave, leave_rx) = oneshot::channel();
        let (done, done_rx) = oneshot::channel();
        let channels = Channels {
            desired: desired_rx,
            inbound: inbound_rx,
            leave: leave_rx,
            facts: self.facts.clone(),
            bfd: self.bfd.clone(),
            in_session: self.in_session.clone(),
            safe: self.safe.clone(),
            done,
        };
        // Whoever kept routes over the restart has dropped them by then.
        let restarting = self.restart.restarting && clock::now() < self.began + RESTART_TIME;
        let restart = Restart { restarting, ..self.restart };
        let before = Before { restart, kept, former: self.former.get(name).cloned(), task: before };
        let task = peer::run(name.clone(), Arc::clone(&settings), address.clone(), router_id, before, channels);
        self.tasks.spawn(task);
        let endpoint = settings::endpoint(&settings, address.clone());
        let (is_kept, is_resumed) = (false, false);
        self.peers.insert(
            name.clone(),
            PeerHandle {
                settings,
                address,
                router_id,
                endpoint,
                resets,
                is_kept,
                is_resumed,
                desired,
                inbound,
                leave,
                done: done_rx,
            },
        );
    }

    /// What the task that follows for the peer waits for. Not logged, it is a matter of debugging.
    fn stop(
        &mut self,
        name: &PeerName,
        notification: Notification,
        why: String,
        is_logged: bool,
    ) -> Option<oneshot::Receiver<Handed>> {
        let handle = self.peers.remove(name)?;
        match is_logged {
            true => info!(peer = %name, reason = why, "peer stopped"),
            false => debug!(peer = %name, reason = why, "peer stopped"),
        }
        // It fails when the task has ended already, and then there is nobody to tell.
        let _ = handle.leave.send(Leave::End { notification, why });
        Some(handle.done)
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
        if handle.inbound.try_send(inbound).is_err()
            && let Some(more_before) = self.hasty.entry((*name).clone()).or_default().note(clock::now())
        {
            warn!(peer = %name, more_before, "connection closed: the peer opens connections faster than they can be handled");
        }
    }

    /// A caller with a link-local address on the link of an unnumbered peer may be that peer: the plan decides.
    fn note_caller(&mut self, arrival: Arrival) {
        let from = arrival.from;
        if let SocketAddr::V6(v6) = from
            && v6.ip().is_unicast_link_local()
            && let Some(link) = self.unnumbered.get(&v6.scope_id())
            // If the queue is full, the caller is dropped, and calls again.
            && self.facts.try_send(Fact::Caller(v6.scope_id(), *v6.ip())).is_ok()
        {
            let is_there = |handle: &&PeerHandle| matches!(&handle.settings.address, config::PeerAddress::Interface(interface) if interface == link);
            for handle in self.peers.values().filter(is_there) {
                // A peer with so many connections waiting is asked by them.
                let _ = handle.inbound.try_send(Inbound::OtherOnLink);
            }
            self.waiting = Some((arrival, clock::now()));
            return;
        }
        if let Some(more_before) = self.unknown_callers.note(clock::now()) {
            let reason = self.why_unknown(&arrival);
            warn!(address = %from.ip(), more_before, reason, "BGP connection closed");
        }
    }

    /// Why a call is no peer's.
    fn why_unknown(&self, arrival: &Arrival) -> String {
        let from = arrival.from.ip();
        let mut known = self.peers.iter().filter(|(_, handle)| handle.endpoint.peer.ip == from);
        if let Some((name, handle)) = known.next() {
            let local = arrival.local;
            return match handle.endpoint.source {
                Some(source) if source != local => format!(
                    "peer {name} has source-address {source}, and this call came to {local}: change the address of this node at the peer"
                ),
                Some(_) | None => format!("peer {name} has this address in another VRF or on another link"),
            };
        }
        match self.nowhere.iter().find(|(_, nowhere)| nowhere.address == Some(from)) {
            Some((name, nowhere)) => format!("peer {name} has no session: {}", nowhere.reason),
            None => "no peer has this address".to_owned(),
        }
    }

    /// Hands the established sessions out, within about [`FAREWELL_TIME`]; all else ends.
    async fn keep(mut self, to: oneshot::Sender<Vec<KeptConnection>>) {
        let mut sessions = Vec::new();
        for handle in std::mem::take(&mut self.peers).into_values() {
            let (give, take) = oneshot::channel();
            if handle.leave.send(Leave::Keep(give)).is_ok() {
                sessions.push(take);
            }
        }
        let mut kept = Vec::new();
        for session in sessions {
            // An error: there is no established session.
            kept.extend(tokio::time::timeout(FAREWELL_TIME, session).await.ok().and_then(Result::ok));
        }
        // An error: nobody takes them, and they end with their sockets.
        let _ = to.send(kept);
        self.all_gone().await;
    }

    async fn leave(mut self, why: &str) {
        let names: Vec<PeerName> = self.peers.keys().cloned().collect();
        for name in names {
            self.stop(&name, Notification::administrative_shutdown(why), why.to_owned(), true);
        }
        self.all_gone().await;
    }

    async fn all_gone(&mut self) {
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        // Half as long again: every task limits its own farewells to twice the time.
        if tokio::time::timeout(FAREWELL_TIME * 5 / 2, all_gone).await.is_err() {
            warn!("a BGP peer got no Cease in time");
        }
    }
}

impl Desired {
    fn of(slice: &BgpSlice, peer: &PeerSlice) -> Desired {
        Desired {
            routes: peer.routes.clone(),
            complete: slice.complete,
            local_addresses: Arc::clone(&slice.local_addresses),
            settings: Arc::clone(&peer.settings),
            refreshes: peer.orders.refreshes,
        }
    }

    /// Whether anything has changed.
    fn replace_with(&mut self, slice: &BgpSlice, peer: &PeerSlice) -> bool {
        let same = self.complete == slice.complete
            && self.routes.ptr_eq(&peer.routes)
            && Arc::ptr_eq(&self.local_addresses, &slice.local_addresses)
            && self.settings == peer.settings
            && self.refreshes == peer.orders.refreshes;
        if !same {
            *self = Desired::of(slice, peer);
        }
        !same
    }
}

/// What may happen again and again, and must not fill the log: connections that are closed at once, peers that take turns.
#[derive(Debug, Default)]
struct LogLimit {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogLimit {
    /// One more. Where it is to be logged: how many were not, since the last that was.
    fn note(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now < at + LOG_PAUSE) {
            self.unlogged += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

async fn accept_after(listeners: &Listeners, from: Instant) -> std::io::Result<Arrival> {
    tokio::time::sleep_until(from.into()).await;
    listeners.accept().await
}

#[cfg(test)]
mod tests;
