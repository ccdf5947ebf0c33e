//! The ARP responder: keeps a socket on every link that an address is announced on, answers, and announces take-overs.
//! Floor 2. An actuator: it follows its slice of the Plan and decides nothing. Verdicts are `answer`'s, times `claim`'s.
//!
//! Tasks: `run` is one, owned by the caller. It starts one more for each link, which owns that link's socket, claims and
//! memory of conflicts, so that a flood on one link delays nobody on another. Cancelling any of them closes its sockets;
//! nothing else has to be undone, since silence is how an address is given up.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdSet;
use imbl::ordmap::DiffItem;
use imbl::ordset::DiffItem as SetDiffItem;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, info, trace, warn};

use super::answer::{self, Claimant, Station, Verdict};
use super::claim::Claims;
use super::conflict::Conflicts;
use super::counters::Counters;
use super::packet::Packet;
use super::socket::ArpSocket;
use crate::address::MacAddress;
use crate::clock;
use crate::names::InterfaceName;
use crate::plan::slice::L2Slice;
use crate::world::Link;

/// How the responder stands on each link that it was told to serve, by the index of the link.
pub type Standing = BTreeMap<u32, LinkStanding>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStanding {
    pub name: InterfaceName,
    pub mac: MacAddress,
    pub socket: SocketStanding,
    /// How many addresses are answered for.
    pub addresses: usize,
    /// Other stations that claim addresses of ours, as last reported.
    pub conflicts: BTreeMap<Ipv4Addr, MacAddress>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketStanding {
    Opening,
    Open,
    /// It is tried again until it works or the link is no longer wanted.
    Failed(String),
}

/// Answers ARP for the addresses of the newest slice until `shutdown` is over, or until nobody can send slices anymore.
///
/// An address that a slice adds to a link is announced there at once and then repeatedly; one that it takes away is not
/// answered for from then on, and not announced. Everything is announced anew on a link that comes up or changes its
/// MAC. A link that vanishes while it is served is no error. IPv6 addresses are passed over: they are NDP's.
pub async fn run(
    mut slices: watch::Receiver<L2Slice>,
    counters: Arc<Counters>,
    standing: watch::Sender<Standing>,
    shutdown: impl Future<Output = ()>,
) {
    let mut responder = Responder {
        served: L2Slice::default(),
        addresses: BTreeMap::new(),
        links: BTreeMap::new(),
        tasks: JoinSet::new(),
        counters,
        standing,
    };
    tokio::pin!(shutdown);
    loop {
        let slice = slices.borrow_and_update().clone();
        responder.serve(slice);
        tokio::select! {
            () = &mut shutdown => break,
            changed = slices.changed() => if changed.is_err() { break },
        }
    }
    responder.tasks.shutdown().await;
    responder.standing.send_replace(Standing::new());
}

struct Responder {
    served: L2Slice,
    /// `served.addresses` the other way round, IPv4 only: what `serve` keeps in step with the difference to the last slice.
    addresses: BTreeMap<InterfaceName, OrdSet<Ipv4Addr>>,
    links: BTreeMap<u32, (AbortHandle, watch::Sender<LinkSlice>)>,
    tasks: JoinSet<()>,
    counters: Arc<Counters>,
    standing: watch::Sender<Standing>,
}

/// What one link's task works to.
#[derive(Debug, Clone, PartialEq)]
struct LinkSlice {
    name: InterfaceName,
    mac: MacAddress,
    /// Frames can pass.
    up: bool,
    other_macs: Arc<[MacAddress]>,
    addresses: OrdSet<Ipv4Addr>,
}

impl Responder {
    fn serve(&mut self, slice: L2Slice) {
        for item in self.served.addresses.diff(&slice.addresses) {
            let (address, before, after) = match item {
                DiffItem::Add(address, links) => (address, None, Some(links)),
                DiffItem::Remove(address, links) => (address, Some(links), None),
                DiffItem::Update { old: (address, before), new: (_, after) } => (address, Some(before), Some(after)),
            };
            let IpAddr::V4(address) = *address else { continue };
            for link in before.into_iter().flat_map(|links| links.iter()) {
                give_up(&mut self.addresses, link, address);
            }
            for link in after.into_iter().flat_map(|links| links.iter()) {
                self.addresses.entry(link.clone()).or_default().insert(address);
            }
        }
        self.served = slice;

        let wanted = self.wanted();
        self.links.retain(|index, (task, _)| {
            let kept = wanted.contains_key(index);
            if !kept {
                task.abort();
                self.standing.send_modify(|standing| drop(standing.remove(index)));
            }
            kept
        });
        while self.tasks.try_join_next().is_some() {}
        for (index, slice) in wanted {
            match self.links.get(&index) {
                Some((_, slices)) => {
                    slices.send_if_modified(|current| {
                        let changed = *current != slice;
                        *current = slice;
                        changed
                    });
                }
                None => self.start(index, slice),
            }
        }
    }

    /// What each link's task should know: for every link that can do ARP and has an address to announce.
    fn wanted(&self) -> BTreeMap<u32, LinkSlice> {
        let links = &self.served.links;
        let other_macs = |index| links.iter().filter(|link| link.index != index).filter_map(|link| link.mac).collect();
        let wanted = |link: &Link| {
            let addresses = self.addresses.get(&link.name)?;
            let mac = link.mac.filter(|_| link.arp && !link.loopback)?;
            let slice = LinkSlice {
                name: link.name.clone(),
                mac,
                up: link.up && link.carrier,
                other_macs: other_macs(link.index),
                addresses: addresses.clone(),
            };
            Some((link.index, slice))
        };
        links.iter().filter_map(wanted).collect()
    }

    fn start(&mut self, index: u32, slice: LinkSlice) {
        let LinkSlice { name, mac, .. } = slice.clone();
        let opening =
            LinkStanding { name, mac, socket: SocketStanding::Opening, addresses: 0, conflicts: BTreeMap::new() };
        self.standing.send_modify(|standing| drop(standing.insert(index, opening)));
        let (sender, slices) = watch::channel(slice);
        let link = LinkTask { index, counters: self.counters.clone(), standing: self.standing.clone() };
        let task = self.tasks.spawn(link.run(slices));
        self.links.insert(index, (task, sender));
    }
}

fn give_up(addresses: &mut BTreeMap<InterfaceName, OrdSet<Ipv4Addr>>, link: &InterfaceName, address: Ipv4Addr) {
    if let Some(owned) = addresses.get_mut(link) {
        owned.remove(&address);
        if owned.is_empty() {
            addresses.remove(link);
        }
    }
}

/// The task of one link.
struct LinkTask {
    index: u32,
    counters: Arc<Counters>,
    standing: watch::Sender<Standing>,
}

impl LinkTask {
    /// Serves the link until the task is aborted or its slices end.
    async fn run(self, mut slices: watch::Receiver<LinkSlice>) {
        let mut failing = false;
        loop {
            let error = match ArpSocket::open(self.index) {
                Ok(socket) => {
                    failing = false;
                    match self.serve(&socket, &mut slices).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let name = slices.borrow().name.clone();
            // A link that vanished will leave the slice as soon as the kernel's word of it has come around.
            if is(&error, libc::ENODEV) || is(&error, libc::ENETDOWN) {
                debug!(link = %name, %error, "ARP socket lost its link");
            } else if !failing {
                failing = true;
                warn!(link = %name, %error, "ARP socket failed; no answers on this link until it can be opened again");
            }
            self.report(|standing| standing.socket = SocketStanding::Failed(error.to_string()));
            tokio::select! {
                () = sleep(REOPEN_INTERVAL) => {}
                changed = slices.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Answers and announces through one socket. `Ok` when the slices have ended.
    async fn serve(&self, socket: &ArpSocket, slices: &mut watch::Receiver<LinkSlice>) -> io::Result<()> {
        let mut slice = slices.borrow_and_update().clone();
        let mut claims = Claims::default();
        let mut conflicts = Conflicts::default();
        let now = clock::now();
        slice.addresses.iter().for_each(|address| claims.handle_owned(*address, now));
        if slice.up {
            claims.handle_link_up(now);
        }
        self.report_slice(&slice, &conflicts);
        self.report(|standing| standing.socket = SocketStanding::Open);
        debug!(link = %slice.name, mac = %slice.mac, addresses = slice.addresses.len(), "ARP socket opened");

        loop {
            tokio::select! {
                // In this order, since each of the first two is over after a few frames: a flood of requests cannot
                // keep them waiting, and they keep no request waiting for long.
                biased;
                changed = slices.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let next = slices.borrow_and_update().clone();
                    follow(&slice, &next, &mut claims, &mut conflicts, clock::now());
                    slice = next;
                    self.report_slice(&slice, &conflicts);
                }
                () = reached(claims.next_deadline()) => self.announce(socket, &slice, &mut claims),
                received = socket.receive(|frame| self.handle_frame(socket, &slice, &claims, &mut conflicts, frame)) => {
                    match received {
                        Ok(()) => {}
                        // The link went down; the kernel hands the socket its frames again once it is up. The rounds
                        // start over in case it is up before any slice says that it was down.
                        Err(error) if is(&error, libc::ENETDOWN) && socket.is_bound() => {
                            if slice.up {
                                claims.handle_link_up(clock::now());
                            }
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    fn handle_frame(
        &self,
        socket: &ArpSocket,
        slice: &LinkSlice,
        claims: &Claims,
        conflicts: &mut Conflicts,
        frame: &[u8],
    ) {
        let station = Station { mac: slice.mac, other_macs: &slice.other_macs };
        match answer::judge(station, |address| claims.owns(address), frame) {
            Verdict::Answer(packet) => {
                if self.send(socket, slice, &packet) {
                    self.counters.count_answer();
                }
            }
            Verdict::Ignore(reason) => self.counters.count_ignored(reason),
            Verdict::Conflict(claimant) => {
                self.counters.count_conflict();
                if let Some(report) = conflicts.handle_claimant(claimant, clock::now()) {
                    let Claimant { address, mac } = claimant;
                    warn!(link = %slice.name, %address, claimed_by = %mac, frames = report.frames, "another station claimed an address that this node announces");
                    self.report_slice(slice, conflicts);
                }
            }
        }
    }

    fn announce(&self, socket: &ArpSocket, slice: &LinkSlice, claims: &mut Claims) {
        let now = clock::now();
        while let Some(address) = claims.poll_announcement(now) {
            for packet in Packet::announcements(address, slice.mac) {
                if self.send(socket, slice, &packet) {
                    self.counters.count_gratuitous();
                }
            }
        }
    }

    /// Whether the kernel took the frame. One that it did not take is not sent later: who asked will ask again, and
    /// announcements are repeated anyway.
    fn send(&self, socket: &ArpSocket, slice: &LinkSlice, packet: &Packet) -> bool {
        match socket.send(&packet.emit()) {
            Ok(()) => {
                trace!(link = %slice.name, %packet, "ARP sent");
                true
            }
            Err(error) => {
                self.counters.count_unsent();
                debug!(link = %slice.name, %packet, %error, "ARP not sent");
                false
            }
        }
    }

    fn report_slice(&self, slice: &LinkSlice, conflicts: &Conflicts) {
        let LinkSlice { name, mac, up: _, other_macs: _, addresses } = slice;
        self.report(|standing| {
            standing.name = name.clone();
            standing.mac = *mac;
            standing.addresses = addresses.len();
            standing.conflicts = conflicts.iter().map(|(address, conflict)| (address, conflict.mac)).collect();
        });
    }

    /// Changes what is told of this link, unless it is told of no longer.
    fn report(&self, change: impl FnOnce(&mut LinkStanding)) {
        self.standing.send_if_modified(|standing| {
            let Some(link) = standing.get_mut(&self.index) else { return false };
            let before = link.clone();
            change(link);
            *link != before
        });
    }
}

/// Takes the claims from one slice to the next.
fn follow(last: &LinkSlice, next: &LinkSlice, claims: &mut Claims, conflicts: &mut Conflicts, now: Instant) {
    for item in last.addresses.diff(&next.addresses) {
        match item {
            SetDiffItem::Add(address) => claims.handle_owned(*address, now),
            SetDiffItem::Remove(address) => {
                claims.handle_disowned(*address);
                conflicts.handle_disowned(*address);
            }
        }
    }
    if !next.up {
        claims.handle_link_down();
    } else if !last.up || last.mac != next.mac {
        info!(link = %next.name, mac = %next.mac, addresses = next.addresses.len(), "link came up or changed its MAC; announcing its addresses anew");
        claims.handle_link_up(now);
    }
}

/// Waits for a moment, or for ever where there is none to wait for.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}

/// How long to wait before a socket that failed is opened again.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);
