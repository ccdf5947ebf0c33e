//! The responder: keeps a link worker on every link that has an address to announce. It tells the World which addresses are
//! answered for, and which station conflicts with which address.
//! Floor 2. An actuator: it follows its slice of the Plan and decides nothing.
//!
//! Tasks: `run` is one, owned by the caller. It starts the teller, which turns the states of the links into facts, and a
//! thread for each link (`worker`), which owns that link's sockets and claims, so that a flood on one link delays
//! nobody on another. `run` ends all of them before it ends. Cancelled, it leaves the threads to end by themselves within
//! a frame, because their slices end with it. Nothing else has to be undone: a node gives an address up by silence. In a restart
//! the programs in the kernel answer on, for as long as the next agent may take.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;
use imbl::ordset::DiffItem as SetDiffItem;
use imbl::{OrdMap, OrdSet};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::warn;

use self::worker::{LinkSlice, Shared, Worker};
use super::counters::ByProtocol;
use super::machine::Surroundings;
use super::offload::Offload;
use super::state::{LinkState, LinkStates, SocketState};
use crate::by_link::ByLink;
use crate::claim::{Answerer, Errand};
use crate::clock;
use crate::names::InterfaceName;
use crate::plan::slice::L2Slice;
use crate::world::{Conflict, Fact, Link};

mod worker;

/// What becomes of the programs that answer in the kernel.
#[derive(Debug)]
pub enum Parting {
    /// They end with the responder.
    Leave,
    /// They answer until then, by which another agent of this node does. `keeper` takes what keeps them alive.
    Restart { back_by: Instant, keeper: oneshot::Sender<Vec<OwnedFd>> },
}

/// Answers for the addresses of the newest slice until `shutdown` completes or the sender of slices is dropped.
///
/// The worker probes an address that a slice adds to a link, as its acquisition asks, then announces it at once, repeatedly, and
/// from time to time while it is held. An address that a slice takes away is no longer answered for or announced. All addresses
/// are announced again on a link that comes up or changes its MAC. A link that vanishes while it is served is no error.
/// `counters` counts the work on each link. `facts` gets every conflict that begins, changes or ends. With an `offload_life`,
/// a kernel program answers plain requests, where the kernel accepts it, for this long after the process last ran.
pub async fn run(
    mut slices: watch::Receiver<L2Slice>,
    facts: mpsc::Sender<Fact>,
    counters: Arc<ByLink<ByProtocol>>,
    states: watch::Sender<LinkStates>,
    offload_life: Option<Duration>,
    shutdown: impl Future<Output = Parting>,
) {
    let mut teller = JoinSet::new();
    teller.spawn(tell(states.subscribe(), facts));
    let mut responder = Responder {
        served: L2Slice::default(),
        addresses: BTreeMap::new(),
        links: BTreeMap::new(),
        ending: Vec::new(),
        counters,
        states,
        offload_life,
        lacks_threads: false,
    };
    tokio::pin!(shutdown);
    let parting = loop {
        let slice = slices.borrow_and_update().clone();
        responder.serve(slice);
        tokio::select! {
            parting = &mut shutdown => break parting,
            changed = slices.changed() => if changed.is_err() { break Parting::Leave },
            () = sleep(RESTART_INTERVAL), if responder.lacks_threads => {}
        }
    };
    let programs = responder.end().await;
    match parting {
        Parting::Leave => {}
        Parting::Restart { back_by, keeper } => {
            let time = back_by.saturating_duration_since(clock::now());
            // The agent may not wait for them any more: then they end here.
            let _ = keeper.send(programs.into_iter().map(|program| program.outlive(time)).collect());
        }
    }
    teller.shutdown().await;
}

/// Turns the states of the links into facts, the newest of each only.
async fn tell(mut states: watch::Receiver<LinkStates>, facts: mpsc::Sender<Fact>) {
    let mut told = Told::default();
    loop {
        let links: Vec<LinkState> = states.borrow_and_update().values().cloned().collect();
        for fact in told.news(&links) {
            if facts.send(fact).await.is_err() {
                return;
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// What the World knows of a link.
#[derive(Default)]
struct Told {
    conflicts: BTreeMap<(IpAddr, InterfaceName), Conflict>,
    without_socket: BTreeMap<InterfaceName, String>,
    answering: BTreeMap<InterfaceName, OrdSet<IpAddr>>,
    answerers: BTreeMap<InterfaceName, OrdMap<IpAddr, Answerer>>,
}

impl Told {
    /// The facts that the World lacks.
    fn news(&mut self, links: &[LinkState]) -> Vec<Fact> {
        let of_link = |link: &LinkState| {
            let name = link.name.clone();
            link.conflicts.iter().map(|(address, it)| ((*address, name.clone()), *it)).collect::<Vec<_>>()
        };
        let conflicts: BTreeMap<_, _> = links.iter().flat_map(of_link).collect();
        let over = self.conflicts.keys().filter(|key| !conflicts.contains_key(*key)).map(|key| (key.clone(), None));
        let begun = conflicts.iter().filter(|(key, it)| self.conflicts.get(*key) != Some(*it));
        let begun = begun.map(|(key, it)| (key.clone(), Some(*it)));
        let conflict = |((address, link), conflict)| Fact::Conflict(address, link, conflict);
        let answering: BTreeMap<InterfaceName, OrdSet<IpAddr>> =
            links.iter().map(|link| (link.name.clone(), link.answering.clone())).collect();
        let names = self.answering.keys().chain(answering.keys()).cloned().collect::<BTreeSet<_>>();
        let changed =
            names.into_iter().filter_map(|link| answers(&link, self.answering.get(&link), answering.get(&link)));
        let answerers: BTreeMap<InterfaceName, OrdMap<IpAddr, Answerer>> =
            links.iter().map(|link| (link.name.clone(), link.answerers.clone())).collect();
        let names = self.answerers.keys().chain(answerers.keys()).cloned().collect::<BTreeSet<_>>();
        let others =
            names.into_iter().filter_map(|link| answered(&link, self.answerers.get(&link), answerers.get(&link)));
        let news = over.chain(begun).map(conflict).chain(changed).chain(others).collect();
        (self.conflicts, self.answering, self.answerers) = (conflicts, answering, answerers);
        [self.sockets(links), news].concat()
    }

    /// Of links whose socket fails now, or no longer does. While it is opened for the first time, nothing is known.
    fn sockets(&mut self, links: &[LinkState]) -> Vec<Fact> {
        let failed = |link: &LinkState| match &link.socket {
            SocketState::Failed(why) => Some((link.name.clone(), why.clone())),
            SocketState::Opening | SocketState::Open => None,
        };
        let failing: BTreeMap<InterfaceName, String> = links.iter().filter_map(failed).collect();
        let over = self.without_socket.keys().filter(|link| !failing.contains_key(*link));
        let over: Vec<Fact> = over.map(|link| Fact::NoSocket(link.clone(), None)).collect();
        let begun = failing.iter().filter(|(link, why)| self.without_socket.get(*link) != Some(*why));
        let news = begun.map(|(link, why)| Fact::NoSocket(link.clone(), Some(why.clone()))).chain(over).collect();
        self.without_socket = failing;
        news
    }
}

/// What began and ended on a link since; `None`: nothing did.
fn answers(link: &InterfaceName, before: Option<&OrdSet<IpAddr>>, after: Option<&OrdSet<IpAddr>>) -> Option<Fact> {
    let none = OrdSet::new();
    let (mut began, mut ended) = (Vec::new(), Vec::new());
    for item in before.unwrap_or(&none).diff(after.unwrap_or(&none)) {
        match item {
            SetDiffItem::Add(address) => began.push(*address),
            SetDiffItem::Remove(address) => ended.push(*address),
        }
    }
    (!began.is_empty() || !ended.is_empty()).then(|| Fact::Answering { link: link.clone(), began, ended })
}

/// The same of those that other stations answer for.
fn answered(
    link: &InterfaceName,
    before: Option<&OrdMap<IpAddr, Answerer>>,
    after: Option<&OrdMap<IpAddr, Answerer>>,
) -> Option<Fact> {
    let none = OrdMap::new();
    let by = before.unwrap_or(&none).diff(after.unwrap_or(&none)).map(|item| match item {
        DiffItem::Add(address, by) | DiffItem::Update { new: (address, by), .. } => (*address, Some(by.clone())),
        DiffItem::Remove(address, _) => (*address, None),
    });
    let by: Vec<_> = by.collect();
    (!by.is_empty()).then(|| Fact::Answered { link: link.clone(), by })
}

struct Responder {
    served: L2Slice,
    /// The addresses of `served` by link. `serve` applies the difference of each slice.
    addresses: BTreeMap<InterfaceName, OrdMap<IpAddr, Errand>>,
    links: BTreeMap<u32, LinkHandle>,
    /// Threads of links that are no longer served.
    ending: Vec<JoinHandle<Option<Offload>>>,
    counters: Arc<ByLink<ByProtocol>>,
    states: watch::Sender<LinkStates>,
    offload_life: Option<Duration>,
    /// A link has none, because it could not be started: it is tried again.
    lacks_threads: bool,
}

/// The responder's end of a link worker. Dropping it ends the worker when that next wakes up.
struct LinkHandle {
    slices: watch::Sender<LinkSlice>,
    wake: UnixDatagram,
    thread: JoinHandle<Option<Offload>>,
}

impl LinkHandle {
    fn start(index: u32, slice: LinkSlice, shared: Shared) -> io::Result<LinkHandle> {
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        // The kernel keeps the first 15 octets of a thread's name.
        let name = format!("link-{}", slice.name);
        let (slices, receiver) = watch::channel(slice);
        let worker = Worker::new(index, receiver, woken, shared);
        let thread = std::thread::Builder::new().name(name).spawn(|| worker.run())?;
        Ok(LinkHandle { slices, wake, thread })
    }

    fn follow(&self, slice: LinkSlice) {
        let changed = self.slices.send_if_modified(|current| {
            let changed = *current != slice;
            *current = slice;
            changed
        });
        if changed {
            // No room means that the worker was woken already.
            let _ = self.wake.send(&[0]);
        }
    }

    /// Ends the worker, and answers the thread to wait for.
    fn end(self) -> JoinHandle<Option<Offload>> {
        let LinkHandle { slices, wake, thread } = self;
        drop(slices);
        let _ = wake.send(&[0]);
        thread
    }
}

impl Responder {
    fn serve(&mut self, slice: L2Slice) {
        let changed: BTreeSet<IpAddr> = moved(&self.served.addresses, &slice.addresses)
            .chain(moved(&self.served.standbys, &slice.standbys))
            .collect();
        for address in changed {
            let after: BTreeSet<&InterfaceName> = slice.links_of(address).collect();
            for link in self.served.links_of(address).filter(|link| !after.contains(link)) {
                give_up(&mut self.addresses, link, address);
            }
            hand_over(&mut self.addresses, &slice, address);
        }
        let acquired = self.served.acquisitions.diff(&slice.acquisitions).filter_map(|item| match item {
            DiffItem::Add(address, _) | DiffItem::Update { new: (address, _), .. } => Some(*address),
            // The claim began with this acquisition, and keeps it.
            DiffItem::Remove(..) => None,
        });
        let asserted = self.served.assertions.diff(&slice.assertions).filter_map(|item| match item {
            DiffItem::Add(address, _) | DiffItem::Update { new: (address, _), .. } => Some(*address),
            DiffItem::Remove(..) => None,
        });
        let mut changed: BTreeSet<IpAddr> = acquired.chain(asserted).collect();
        if self.served.manners != slice.manners {
            changed.extend(slice.addresses.keys().chain(slice.standbys.keys()));
        }
        for address in changed {
            hand_over(&mut self.addresses, &slice, address);
        }
        self.served = slice;

        let wanted = self.wanted();
        let unwanted: Vec<u32> = self.links.keys().filter(|index| !wanted.contains_key(index)).copied().collect();
        for index in unwanted {
            self.stop(index);
        }
        let links = &self.links;
        self.states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|index, _| wanted.contains_key(index) || links.contains_key(index));
            states.len() != before
        });
        self.ending.retain(|thread| !thread.is_finished());
        for (index, slice) in wanted {
            match self.links.get(&index) {
                Some(link) if !link.thread.is_finished() => link.follow(slice),
                Some(_) => {
                    // A bug. The panic has printed which.
                    warn!(link = %slice.name, "the link worker ended by itself; starting another");
                    self.stop(index);
                    self.start(index, slice);
                }
                None => self.start(index, slice),
            }
        }
        self.lacks_threads = self.states.borrow().keys().any(|index| !self.links.contains_key(index));
    }

    /// The slice of each link worker: one for every link that can do ARP and has an address to announce, or may have one: where its socket
    /// cannot be opened, no address is to come to this node.
    fn wanted(&self) -> BTreeMap<u32, LinkSlice> {
        let links = &self.served.links;
        let other_macs = |index| links.iter().filter(|link| link.index != index).filter_map(|link| link.mac).collect();
        let wanted = |link: &Link| {
            let yields = self.served.yields_on(link.index);
            let addresses = self.addresses.get(&link.name).cloned();
            let is_of_use = !yields.is_empty() || self.served.would_answer_on.contains(&link.name);
            let addresses = addresses.or_else(|| is_of_use.then(OrdMap::new))?;
            let mac = link.mac.filter(|_| link.arp && !link.loopback)?;
            let slice = LinkSlice {
                name: link.name.clone(),
                mac,
                up: link.up && link.carrier,
                other_macs: other_macs(link.index),
                surroundings: Surroundings {
                    mac,
                    stations: self.served.stations.on(link.index),
                    addresses: self.served.node_addresses.clone(),
                    own: link.addresses.iter().copied().collect(),
                    yields,
                    leaving: self.served.leaving,
                },
                addresses,
            };
            Some((link.index, slice))
        };
        links.iter().filter_map(wanted).collect()
    }

    fn start(&mut self, index: u32, slice: LinkSlice) {
        let LinkSlice { name, mac, .. } = slice.clone();
        let opening = LinkState {
            name: name.clone(),
            mac,
            socket: SocketState::Opening,
            offloaded: false,
            addresses: 0,
            answering: OrdSet::new(),
            answerers: OrdMap::new(),
            conflicts: BTreeMap::new(),
        };
        // What could not be started before stays so until it is.
        let failed = self.states.borrow().get(&index).is_some_and(|link| matches!(link.socket, SocketState::Failed(_)));
        if !failed {
            self.states.send_modify(|states| drop(states.insert(index, opening)));
        }
        let shared =
            Shared { counters: self.counters.of(&name), states: self.states.clone(), offload_life: self.offload_life };
        match LinkHandle::start(index, slice, shared) {
            Ok(link) => drop(self.links.insert(index, link)),
            Err(error) => {
                if !failed {
                    warn!(link = %name, %error, "no thread could be started for the link; its addresses are not answered for until one can be");
                }
                self.states.send_modify(|states| {
                    if let Some(link) = states.get_mut(&index) {
                        link.socket = SocketState::Failed(format!("no thread for the link: {error}"));
                    }
                });
            }
        }
    }

    fn stop(&mut self, index: u32) {
        if let Some(link) = self.links.remove(&index) {
            self.ending.push(link.end());
        }
        self.states.send_modify(|states| drop(states.remove(&index)));
    }

    /// Ends every link worker and waits for it. What answers in the kernel on the links that were served to the end.
    async fn end(mut self) -> Vec<Offload> {
        let links = std::mem::take(&mut self.links);
        let threads: Vec<_> = links.into_values().map(LinkHandle::end).collect();
        let ending = std::mem::take(&mut self.ending);
        let joined = tokio::task::spawn_blocking(|| {
            // A thread that panicked has printed why.
            ending.into_iter().for_each(|thread| drop(thread.join()));
            threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
        });
        let programs = joined.await.unwrap_or_default();
        self.states.send_replace(LinkStates::new());
        programs
    }
}

/// How long to wait before a thread that could not be started is tried again.
const RESTART_INTERVAL: Duration = Duration::from_secs(1);

/// Hands an address to the links that answer for it.
fn hand_over(addresses: &mut BTreeMap<InterfaceName, OrdMap<IpAddr, Errand>>, slice: &L2Slice, address: IpAddr) {
    let wanted = slice.errand(address);
    let is_named = slice.acquisitions.contains_key(&address) || slice.standbys.contains_key(&address);
    for link in slice.links_of(address) {
        let errands = addresses.entry(link.clone()).or_default();
        let mut errand = wanted.clone();
        // The claim began with its acquisition, and keeps it where none is named any more.
        if let Some(before) = errands.get(&address).filter(|_| !is_named) {
            errand.acquisition = before.acquisition.clone();
        }
        errands.insert(address, errand);
    }
}

/// The addresses of which something changed.
fn moved<V: Clone + PartialEq>(before: &OrdMap<IpAddr, V>, after: &OrdMap<IpAddr, V>) -> impl Iterator<Item = IpAddr> {
    before.diff(after).map(|item| match item {
        DiffItem::Add(address, _) | DiffItem::Remove(address, _) | DiffItem::Update { new: (address, _), .. } => {
            *address
        }
    })
}

fn give_up(addresses: &mut BTreeMap<InterfaceName, OrdMap<IpAddr, Errand>>, link: &InterfaceName, address: IpAddr) {
    if let Some(owned) = addresses.get_mut(link) {
        owned.remove(&address);
        if owned.is_empty() {
            addresses.remove(link);
        }
    }
}
