//! The BGP sessions between two agents: the one puts them into systemd's store, the other takes them out. Floor 3.
//!
//! Each session is two descriptors under names that end with the same number: its socket, and a sealed file with its state. A session
//! that stands is there with its ledger in the place of the state, for the case that the agent dies without a word. What comes back
//! is taken only if it is checked in all respects; else the socket is closed, and a new session is opened.
//!
//! Tasks, owned by the agent: [`entrust`] and [`entrust_paths`]; when they are cancelled, nothing that they stored stays there. [`end`];
//! when it is cancelled, the sockets are closed without another word.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::fd_store::{self, Stored};
use super::had_sessions::{Had, HadSession};
use crate::bfd;
use crate::bfd::kept::KeptPath;
use crate::bgp::kept;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::socket::kept::{KeptConnection, KeptError};
use crate::bgp::socket::ledger::{Entrusted, Trust};
use crate::bgp::task::Resumable;
use crate::bgp::wire::{Cease, NotificationReason};
use crate::clock;
use crate::config::{self, BfdProfile, Config};
use crate::names::PeerName;
use crate::plan::context::bgp::BgpContext;
use crate::plan::slice::{BfdPeer, BfdSlice};
use crate::world::{Fact, FormerSession, SessionReport, SessionState};

const SOCKET: &str = "bgp-socket-";
const STATE: &str = "bgp-state-";
const LIVE_SOCKET: &str = "bgp-live-socket-";
const LEDGER: &str = "bgp-live-ledger-";
const PATHS: &str = "bfd-sessions";
const LIVE_PATHS: &str = "bfd-live-ledger";

/// systemd takes in what it is sent within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Puts the sessions of BGP and of BFD into the store. Those of BGP that cannot be put there end with a Cease. Blocks.
pub async fn put(sessions: Vec<KeptConnection>, paths: &[KeptPath]) {
    if !paths.is_empty()
        && let Err(error) = put_paths(paths)
    {
        warn!(%error, "BFD sessions cannot be kept for the next agent: their peers take this node for dead soon");
    }
    let mut ends = JoinSet::new();
    let count = sessions.len();
    let mut stored = Vec::new();
    for (number, session) in sessions.into_iter().enumerate() {
        match put_one(number, &session) {
            Ok(()) => stored.push(session),
            Err(why) => {
                warn!(peer = %session.state.peer, reason = why, "the session cannot be kept for the next agent, and ends");
                ends.spawn(session.begin_anew("the agent restarts"));
            }
        }
    }
    match fd_store::settle(PATIENCE) {
        Ok(true) => {}
        Ok(false) => warn!(waited_secs = PATIENCE.as_secs(), "systemd did not say that it has stored the sessions"),
        Err(error) => warn!(%error, "systemd was not asked whether it has stored the sessions"),
    }
    info!(sessions = stored.len(), of = count, "BGP sessions stored for the next agent");
    while ends.join_next().await.is_some() {}
}

fn put_paths(paths: &[KeptPath]) -> io::Result<()> {
    let octets = bfd::kept::emit(paths).map_err(io::Error::other)?;
    fd_store::put(PATHS, fd_store::sealed("crier-bfd-sessions", &octets)?.as_fd())
}

fn put_one(number: usize, session: &KeptConnection) -> Result<(), String> {
    let octets = session.state.emit()?;
    let put = || -> io::Result<()> {
        let state = fd_store::sealed("crier-bgp-session", &octets)?;
        fd_store::put(&format!("{STATE}{number}"), state.as_fd())?;
        fd_store::put(&format!("{SOCKET}{number}"), session.socket.as_fd())
    };
    put().map_err(|error| format!("systemd's file descriptor store: {error}"))
}

/// Keeps in the store what is entrusted to it, until nobody can entrust it anything.
pub async fn entrust(mut entrusted: watch::Receiver<Entrusted>) {
    let mut live = Live::default();
    loop {
        live.follow(entrusted.borrow_and_update().clone());
        if entrusted.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What is in the store of sessions that stand, each by the number in its names.
#[derive(Debug, Default)]
struct Live {
    stored: BTreeMap<PeerName, (u64, Arc<Trust>)>,
    last: u64,
}

impl Live {
    fn follow(&mut self, entrusted: Entrusted) {
        let is_there =
            |name: &PeerName, trust: &Arc<Trust>| entrusted.get(name).is_some_and(|it| Arc::ptr_eq(it, trust));
        self.stored.retain(|name, (number, trust)| {
            let stays = is_there(name, trust);
            if !stays {
                forget(*number);
            }
            stays
        });
        for (name, trust) in entrusted {
            if self.stored.contains_key(&name) {
                continue;
            }
            self.last += 1;
            let number = self.last;
            let put = fd_store::put(&format!("{LEDGER}{number}"), trust.ledger.as_fd())
                .and_then(|()| fd_store::put(&format!("{LIVE_SOCKET}{number}"), trust.socket.as_fd()));
            match put {
                Ok(()) => drop(self.stored.insert(name, (number, trust))),
                Err(error) => {
                    warn!(peer = %name, %error, "systemd does not store the session: a crash of the agent would end it");
                    forget(number);
                }
            }
        }
    }
}

/// Before an agent that ends puts its sessions there in its own way: systemd stores no descriptor twice.
impl Drop for Live {
    fn drop(&mut self) {
        self.stored.values().for_each(|(number, _)| forget(*number));
    }
}

fn forget(number: u64) {
    for name in [format!("{LIVE_SOCKET}{number}"), format!("{LEDGER}{number}")] {
        if let Err(error) = fd_store::remove(&name) {
            warn!(name, %error, "systemd was not told that a session has ended: its connection may stay open until the agent ends");
        }
    }
}

/// Keeps the ledger of BFD in the store, from the first peer on that is watched.
pub async fn entrust_paths(memory: OwnedFd, mut slices: watch::Receiver<BfdSlice>) {
    // An error: the agent ends, and so does this task.
    let _ = slices.wait_for(|slice| !slice.peers.is_empty()).await;
    let _stored = match fd_store::put(LIVE_PATHS, memory.as_fd()) {
        Ok(()) => Some(LivePaths),
        Err(error) => {
            warn!(%error, "systemd does not store the ledger of BFD: a crash of the agent would end its sessions");
            None
        }
    };
    std::future::pending().await
}

/// The ledger of BFD is in the store.
struct LivePaths;

impl Drop for LivePaths {
    fn drop(&mut self) {
        if let Err(error) = fd_store::remove(LIVE_PATHS) {
            warn!(%error, "systemd was not told that BFD needs no ledger any more");
        }
    }
}

/// What came back of the previous agent.
#[derive(Debug, Default)]
pub struct Taken {
    /// The sessions that can go on.
    pub resumable: Vec<Resumable>,
    /// Of those that cannot, and of those that are missing, why.
    pub former: BTreeMap<PeerName, FormerSession>,
    /// The same of BFD.
    pub paths: Vec<KeptPath>,
    /// The sessions whose peers are not in the configuration any more: for [`end`].
    pub ends: Vec<KeptConnection>,
}

/// Ends these sessions, all at once: a router that hangs keeps nobody waiting.
pub async fn end(sessions: Vec<KeptConnection>) {
    let mut ends = JoinSet::new();
    for session in sessions {
        info!(peer = %session.state.peer, "a BGP session of the previous agent ends: its peer is not in the configuration any more");
        ends.spawn(session.end(NotificationReason::Cease(Cease::PeerDeconfigured).into()));
    }
    while ends.join_next().await.is_some() {}
}

/// The sessions of the previous agent that can go on, of BGP and of BFD, of all that came back. The store is empty afterwards.
/// `had`: the sessions that it is known to have had.
pub fn take(stored: Vec<Stored>, had: &Had, config: &Config) -> Taken {
    let mut taken = Taken::default();
    let mut crashed = Vec::new();
    let mut sessions: BTreeMap<(bool, String), (Option<OwnedFd>, Option<OwnedFd>)> = BTreeMap::new();
    for Stored { name, descriptor } in stored {
        if let Err(error) = fd_store::remove(&name) {
            warn!(name, %error, "systemd was not told that a file descriptor was taken out of its store");
        }
        let numbered = |prefix| name.strip_prefix(prefix).map(str::to_owned);
        if let Some(number) = numbered(SOCKET) {
            sessions.entry((false, number)).or_default().0 = Some(descriptor);
        } else if let Some(number) = numbered(STATE) {
            sessions.entry((false, number)).or_default().1 = Some(descriptor);
        } else if let Some(number) = numbered(LIVE_SOCKET) {
            sessions.entry((true, number)).or_default().0 = Some(descriptor);
        } else if let Some(number) = numbered(LEDGER) {
            sessions.entry((true, number)).or_default().1 = Some(descriptor);
        } else if name == PATHS {
            match open_paths(descriptor) {
                Ok(kept) => taken.paths.extend(kept),
                Err(why) => {
                    warn!(reason = why, "the BFD sessions of the previous agent are not taken over; new ones begin")
                }
            }
        } else if name == LIVE_PATHS {
            match bfd::ledger::recover(descriptor) {
                Ok(paths) => crashed.extend(paths),
                Err(why) => {
                    warn!(reason = why, "the BFD sessions of the agent that died are not taken over; new ones begin")
                }
            }
        } else {
            warn!(name, "a file descriptor that systemd has kept is not crier's, and is closed");
        }
    }
    let mut unusable = None;
    for ((is_live, number), (socket, state)) in sessions {
        let session = match (socket, state) {
            (Some(socket), Some(ledger)) if is_live => {
                KeptConnection::recover(ledger, socket).map_err(|(state, error)| {
                    let of_peer = state.map(|state| (former(&error, &state.negotiated), state.peer));
                    (of_peer, error.to_string())
                })
            }
            (Some(socket), Some(state)) => open(socket, state).map_err(|why| (None, why)),
            (Some(_), None) => Err((None, "its state did not come back".to_owned())),
            (None, Some(_)) => Err((None, "its connection did not come back".to_owned())),
            (None, None) => continue,
        };
        match session {
            Ok(session) => {
                let peer = session.state.peer.clone();
                match of_peer(session, config) {
                    Ok(resumable) => taken.resumable.push(resumable),
                    Err(session) => {
                        taken.ends.push(*session);
                        drop(taken.former.insert(peer, lost("the peer is not in the configuration any more", false)));
                    }
                }
            }
            Err((Some((former, peer)), _)) => drop(taken.former.insert(peer, former)),
            Err((None, why)) => {
                warn!(
                    number,
                    reason = why,
                    "a BGP session of the previous agent is not taken over: its connection is closed, and a new one is opened"
                );
                unusable = Some(why);
            }
        }
    }
    taken.take_over_crashed(crashed, clock::since_boot());
    taken.note_missing(had, unusable.as_deref());
    taken.note_bfd(had);
    for (peer, former) in &taken.former {
        warn!(%peer, %former, "the BGP session of the previous agent is not taken over; a new one is opened");
    }
    taken
}

impl Taken {
    /// That the sessions which can go on stand, and where: a plan that does not know it looks for their peers anew, and finds others.
    pub fn standing(&self) -> Vec<Fact> {
        let report = |Resumable { kept, .. }: &Resumable| {
            let mut report = SessionReport::new(SessionState::Established, clock::wall());
            report.local_address = Some(kept.state.local.ip());
            report.detail.address = Some(kept.state.address.clone());
            Fact::Session(kept.state.peer.clone(), report)
        };
        self.resumable.iter().map(report).collect()
    }

    /// BFD goes on after a crash where the peer has not surely noticed that nobody sends.
    fn take_over_crashed(&mut self, crashed: Vec<KeptPath>, now: Duration) {
        // An agent that could still have its peers wait has not died.
        let crashed = crashed.into_iter().filter(|_| self.paths.is_empty());
        let (goes_on, too_late): (Vec<_>, Vec<_>) = crashed.partition(|path| path.goes_on(now));
        for (path, is_in_time) in
            goes_on.iter().map(|path| (path, true)).chain(too_late.iter().map(|path| (path, false)))
        {
            let peers = path.peers.iter().map(PeerName::as_str).collect::<Vec<_>>().join(", ");
            let silence = path.silence.unwrap_or_default();
            let silent_millis = now.saturating_sub(silence.since_boot).as_millis();
            let detection_millis = silence.patience.as_millis();
            match is_in_time {
                true => info!(peers, silent_millis, detection_millis, "BFD session taken over after a crash"),
                false => warn!(
                    peers,
                    silent_millis,
                    detection_millis,
                    "the BFD session of the agent that died begins anew: the peer has noticed that nobody sent"
                ),
            }
        }
        self.paths.extend(goes_on);
    }

    /// Where BFD at the peer has run out as well, it decides what becomes of the routes, whatever graceful restart says.
    fn note_bfd(&mut self, had: &Had) {
        let goes_on: BTreeSet<&PeerName> = self.paths.iter().flat_map(|path| &path.peers).collect();
        let has_ended =
            |peer: &PeerName| had.sessions.get(peer).is_some_and(|session| session.bfd) && !goes_on.contains(peer);
        for (peer, former) in &mut self.former {
            if let FormerSession::Lost { routes_kept, bfd_ended, why: _ } = former
                && *routes_kept
                && has_ended(peer)
            {
                (*routes_kept, *bfd_ended) = (false, true);
            }
        }
        // Of these it may show later that they cannot go on.
        for Resumable { kept, settings: _ } in &mut self.resumable {
            kept.bfd_ended = has_ended(&kept.state.peer);
        }
    }

    /// What is said of the sessions that did not come back. `unusable`: why one that did cannot be used, whose peer is not known.
    fn note_missing(&mut self, had: &Had, unusable: Option<&str>) {
        for (peer, HadSession { graceful_restart, bfd: _ }) in &had.sessions {
            let is_there = self.resumable.iter().any(|resumable| resumable.kept.state.peer == *peer);
            if is_there || self.former.contains_key(peer) {
                continue;
            }
            let why = match (had.of_this_boot, unusable, fd_store::is_there()) {
                (false, _, _) => "the host was restarted since".to_owned(),
                (true, Some(why), _) => format!("what the previous agent left of it cannot be used: {why}"),
                (true, None, false) => "the previous agent died, and no systemd keeps its connections".to_owned(),
                (true, None, true) => {
                    "the previous agent died, and systemd did not give back its connection in a usable state (does the unit set FileDescriptorStoreMax?)".to_owned()
                }
            };
            self.former.insert(peer.clone(), lost(&why, *graceful_restart));
        }
    }
}

/// Of a session that cannot be taken over for this reason.
fn former(error: &KeptError, negotiated: &Negotiated) -> FormerSession {
    let why = error.to_string();
    match error {
        KeptError::Ended(_) if negotiated.graceful_restart => FormerSession::Closed { why },
        _ => lost(&why, error.keeps_routes(negotiated)),
    }
}

fn lost(why: &str, routes_kept: bool) -> FormerSession {
    FormerSession::Lost { why: why.to_owned(), routes_kept, bfd_ended: false }
}

/// Whom to watch until there is a plan, with the profiles that they have now.
pub fn watched(paths: &[KeptPath], config: &Config) -> BfdSlice {
    let named = peers(config);
    let of_name = |path: &KeptPath, name: &PeerName| {
        let owner = named.peer_of(name);
        let settings = named.peers.iter().find(|settings| settings.name == owner)?;
        let profile = config.bfd.iter().find(|profile| Some(&profile.name) == settings.bfd.as_ref())?;
        let peer = BfdPeer {
            profile: Arc::new(BfdProfile::clone(profile)),
            address: path.address.clone(),
            source: settings.source_address,
            from: path.from,
            is_of_session: false,
            vrf: settings.vrf.clone(),
            multihop: path.multihop,
        };
        Some((name.clone(), peer))
    };
    let all = paths.iter().flat_map(|path| path.peers.iter().filter_map(move |name| of_name(path, name)));
    BfdSlice { peers: Arc::new(all.collect()) }
}

fn open_paths(state: OwnedFd) -> Result<Vec<KeptPath>, String> {
    let octets = fd_store::unseal(state, bfd::kept::LONGEST).map_err(|error| error.to_string())?;
    bfd::kept::parse(&octets).map_err(|fault| fault.to_string())
}

fn peers(config: &Config) -> BgpContext {
    BgpContext { peers: config.bgp.peers.iter().cloned().map(Arc::new).collect(), ..BgpContext::default() }
}

fn open(socket: OwnedFd, state: OwnedFd) -> Result<KeptConnection, String> {
    let octets = fd_store::unseal(state, kept::LONGEST).map_err(|error| format!("its state: {error}"))?;
    KeptConnection::open(&octets, socket).map_err(|error| error.to_string())
}

/// With the settings of its peer; the session itself where its peer has gone out of the configuration.
fn of_peer(kept: KeptConnection, config: &Config) -> Result<Resumable, Box<KeptConnection>> {
    let peer = kept.state.peer.clone();
    let named = peers(config);
    let owner = named.peer_of(&peer);
    let is_there = |settings: &Arc<config::Peer>| match &settings.address {
        config::PeerAddress::Fixed(address) => *address == kept.state.address,
        config::PeerAddress::Interface(_) | config::PeerAddress::Gateway => true,
    };
    match named.peers.into_iter().find(|settings| settings.name == owner && is_there(settings)) {
        Some(settings) if settings.name == peer => Ok(Resumable { kept, settings }),
        // A further session of a peer has a name of its own.
        Some(settings) => {
            let settings = Arc::new(config::Peer { name: peer, ..config::Peer::clone(&settings) });
            Ok(Resumable { kept, settings })
        }
        None => Err(Box::new(kept)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::address::ScopedAddress;
    use crate::bgp::kept::tests::kept;
    use crate::bgp::socket::FAREWELL_TIME;

    /// Input: what eight routers had sessions by is not in the file any more, and none of them reads. Output: the agent goes
    /// on at once, and all eight end in the time of one.
    #[tokio::test(start_paused = true)]
    async fn routers_that_hang_hold_up_neither_the_start_nor_each_other() {
        let mut routers = Vec::new();
        let mut stored = Vec::new();
        for number in 0..8 {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
            let socket = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
            let (local, remote) = (socket.local_addr().expect("open"), socket.peer_addr().expect("open"));
            let address = ScopedAddress { ip: remote.ip(), interface: None };
            let state = kept::KeptSession {
                peer: format!("tor{number}").as_str().into(),
                local,
                remote,
                address,
                unwritten: Vec::new(),
                ..kept()
            };
            let state =
                fd_store::sealed("crier-test", &state.emit().expect("it can be written")).expect("there is room");
            stored.push(Stored { name: format!("{STATE}{number}"), descriptor: state });
            stored.push(Stored { name: format!("{SOCKET}{number}"), descriptor: socket.into() });
            routers.push(listener.accept().expect("it connected").0);
        }
        let config =
            config::tests::good("[bgp]\nasn = 64513\n[[pool]]\nname = \"lan\"\naddresses = [\"203.0.113.0/24\"]\n");
        let began = clock::now();
        let taken = take(stored, &Had::default(), &config);
        assert_eq!((taken.ends.len(), taken.former.len()), (8, 8), "{:?}", taken.former);
        end(taken.ends).await;
        let took = clock::now().saturating_duration_since(began);
        // Twice that where a router has not acknowledged yet, which the clock of this test does not wait for.
        assert!(took <= FAREWELL_TIME * 2, "{took:?}");
        for router in &mut routers {
            let mut octets = Vec::new();
            let _ = io::Read::read_to_end(router, &mut octets);
            assert!(!octets.is_empty(), "each was told");
        }
    }

    /// Input: a restart to a program that cannot read what the one before wrote of its session. Output: this is said of its peer, and
    /// not that an agent died.
    #[test]
    fn a_session_whose_state_cannot_be_read_is_told_with_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let socket = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let state = fd_store::sealed("crier-test", b"of another program").expect("there is room");
        let stored = vec![
            Stored { name: format!("{STATE}1"), descriptor: state },
            Stored { name: format!("{SOCKET}1"), descriptor: socket.into() },
        ];
        let tor = PeerName::from("tor");
        let had = Had {
            sessions: [(tor.clone(), HadSession { graceful_restart: false, bfd: false })].into(),
            of_this_boot: true,
        };
        let taken = take(stored, &had, &config::tests::good("[bgp]\nasn = 64513\n"));
        let told = taken.former[&tor].to_string();
        assert!(told.contains("what the previous agent left of it cannot be used: "), "{told}");
        assert!(!told.contains("died"), "{told}");
    }

    /// Input: an agent died that had agreed to graceful restart with two peers, of which BFD watched the one.
    #[test]
    fn that_routes_are_kept_is_not_claimed_where_bfd_at_the_peer_has_run_out() {
        let (watched, plain) = (PeerName::from("watched"), PeerName::from("plain"));
        let session = |bfd| HadSession { graceful_restart: true, bfd };
        let had = Had {
            sessions: [(watched.clone(), session(true)), (plain.clone(), session(false))].into(),
            of_this_boot: true,
        };
        let mut taken = Taken::default();
        taken.note_missing(&had, None);
        taken.note_bfd(&had);
        let told = |peer| taken.former.get(peer).map(ToString::to_string).unwrap_or_default();
        assert!(told(&plain).ends_with("routes kept by graceful restart"), "{}", told(&plain));
        let expected = "routes withdrawn until the new session, unless the router keeps them when BFD goes down";
        assert!(told(&watched).ends_with(expected), "{}", told(&watched));
    }
}
