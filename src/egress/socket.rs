//! The kernel's side of egress: the sockets to nftables and conntrack. Floor 2.
//! What is asked and said is laid out by `packet` and `ruleset`.
//!
//! The kernel works on what is sent before the call returns, so its answer waits in the socket by then.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use socket2::{Domain, Protocol, SockFilter, SockRef, Type};

use super::earlier;
use super::keepalive;
use super::later_marks::Later;
use super::machine::Ways;
use super::packet::{self, Answer, Attributes, Batch, Connection, Ends, Verb};
use super::ruleset::{self, Bounded, Form, Hold, LastSets, WayMaps};
use super::stale::Last;
use crate::plan::slice::Mapping;
use crate::world::Destinations;

/// Asks and changes nftables and conntrack. A table that belongs to a socket belongs to this one. Needs CAP_NET_ADMIN.
pub(super) struct Netfilter {
    changes: Socket,
    questions: Socket,
    sequence: u32,
}

impl Netfilter {
    /// # Errors
    /// EPERM without the capability, EPROTONOSUPPORT where the kernel has no netfilter.
    pub(super) fn open() -> io::Result<Netfilter> {
        let changes = open()?;
        // One change may name ten thousand pods. Where the kernel refuses a larger buffer, a large change is refused.
        let _ = set_option(&changes, libc::SO_SNDBUFFORCE, LARGEST);
        Ok(Netfilter { changes, questions: open()?, sequence: 0 })
    }

    /// Makes the changes, all or none.
    pub(super) fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        self.changes.send(&batch.emit(), 0)?;
        let (mut done, mut refused) = (false, None);
        loop {
            match self.changes.recv_from_full() {
                Ok((octets, _)) => {
                    for (_, answer) in packet::answers(&octets) {
                        match answer {
                            Answer::Done => done = true,
                            Answer::Refused(code) => refused = refused.or(Some(code)),
                            Answer::Object(_) | Answer::Connection(_) | Answer::Other => {}
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None if done => Ok(()),
            None => Err(io::Error::other("the kernel did not answer")),
        }
    }

    /// Whether there is a table of the name.
    pub(super) fn has_table(&mut self, form: &Form) -> io::Result<bool> {
        Ok(self.object(Verb::GetTable, &ruleset::named(form), |_| ())?.is_some())
    }

    /// Whether there is a table of the name that holds something, and was not made by crier.
    pub(super) fn is_foreign(&mut self, form: &Form) -> io::Result<bool> {
        let uses = |it: &[u8]| packet::number_of(it, ruleset::TABLE_USES).unwrap_or(0);
        if self.object(Verb::GetTable, &ruleset::named(form), uses)?.is_none_or(|uses| uses == 0) {
            return Ok(false);
        }
        for chain in ruleset::marks_of_ours(form) {
            if self.object(Verb::GetChain, &chain, |_| ())?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the table is there with rules in every chain.
    pub(super) fn is_whole(&mut self, form: &Form) -> io::Result<bool> {
        for chain in ruleset::chains(form) {
            let uses =
                self.object(Verb::GetChain, &chain, |it| packet::number_of(it, ruleset::CHAIN_USES).unwrap_or(0))?;
            if uses.is_none_or(|uses| uses == 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The chains of other programs that translate sources before the table does.
    pub(super) fn earlier(&mut self, form: &Form) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for (family, name) in earlier::FAMILIES {
            let question = packet::list_chains(family, self.next());
            self.list(&question, |answer| {
                if let Answer::Object(attributes) = answer {
                    found.extend(earlier::earlier(form, name, attributes));
                }
            })?;
        }
        Ok(found)
    }

    /// The chains of other programs behind the one that marks packets, in tables with rules that mark.
    pub(super) fn later_marks(&mut self, form: &Form) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for (family, name) in earlier::FAMILIES {
            let question = packet::list_chains(family, self.next());
            let mut chains = Vec::new();
            self.list(&question, |answer| {
                if let Answer::Object(attributes) = answer {
                    chains.extend(Later::read(form, name, attributes));
                }
            })?;
            for chain in chains {
                let (question, mut marks) = (packet::list_rules(family, &chain.table, self.next()), false);
                self.list(&question, |answer| {
                    marks |= matches!(answer, Answer::Object(attributes) if packet::marks(attributes));
                })?;
                found.extend(marks.then(|| chain.in_words(name)));
            }
        }
        Ok(found)
    }

    /// The elements of a set or map with what each has counted. Nothing where there is no such set.
    pub(super) fn elements(&mut self, set: &Attributes) -> io::Result<Vec<(IpAddr, u64)>> {
        self.all_elements(set, packet::elements)
    }

    /// The destinations that egress is for, of the pods for which it is not for all. What cannot be read bounds nothing.
    pub(super) fn bounded(&mut self, form: &Form) -> io::Result<BTreeMap<IpAddr, Arc<Destinations>>> {
        let mut lists: BTreeMap<u32, Arc<Destinations>> = BTreeMap::new();
        let mut bounded = BTreeMap::new();
        for map in Bounded::maps(form) {
            for (pod, chain) in self.all_elements(&map, packet::chains)? {
                let Some(number) = Bounded::number(&chain) else { continue };
                let list = match lists.entry(number) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        let mut bounds = Vec::new();
                        for set in Bounded::sets(form, number) {
                            bounds.extend(self.all_elements(&set, packet::bounds)?);
                        }
                        new.insert(Arc::new(Bounded::list(&bounds)))
                    }
                };
                bounded.insert(pod, list.clone());
            }
        }
        Ok(bounded)
    }

    /// How the table leads packets of pods to owners, and what it gives their addresses to, by which network. What leaves by a network
    /// with the node's address is told as what is translated.
    pub(super) fn ways(&mut self, form: &Form) -> io::Result<Ways> {
        let maps = WayMaps::of(form);
        let mut ways = Ways::default();
        for map in &maps.source {
            // Who is led to an owner has its own address as the source up to there.
            let sources = self.all_elements(map, packet::pairs)?.into_iter().filter(|(pod, source)| pod != source);
            ways.pods.extend(sources.map(|(pod, address)| (pod, Mapping::Translated { address, network: None })));
        }
        for map in &maps.steer {
            for (pod, chain) in self.all_elements(map, packet::chains)? {
                if let Some(slot) = WayMaps::slot(&chain) {
                    ways.pods.insert(pod, Mapping::Steered { slot });
                } else if let Some(Mapping::Translated { network, .. }) = ways.pods.get_mut(&pod) {
                    *network = WayMaps::network(&chain);
                }
            }
        }
        for set in &maps.via {
            ways.via.extend(self.elements(set)?.into_iter().map(|(via, _)| via));
        }
        Ok(ways)
    }

    /// What the table holds back of new pods.
    pub(super) fn hold(&mut self, form: &Form) -> io::Result<Hold> {
        let (mut hold, [own, known, ending]) = (Hold::default(), Hold::sets(form));
        for set in &own {
            hold.networks.extend(LastSets::networks(&self.all_elements(set, packet::bounds)?));
        }
        for set in &known {
            hold.known.extend(self.elements(set)?.into_iter().map(|(address, _)| address));
        }
        for set in &ending {
            hold.ending.extend(self.elements(set)?.into_iter().map(|(address, _)| address));
        }
        Ok(hold)
    }

    /// What the table holds before it is taken away.
    pub(super) fn last(&mut self, form: &Form) -> io::Result<Last> {
        let (sets, mut last) = (LastSets::of(form), Last::default());
        for set in &sets.guard {
            last.pods.extend(self.elements(set)?.into_iter().map(|(pod, _)| pod));
        }
        for set in &sets.egress {
            last.addresses.extend(self.elements(set)?.into_iter().map(|(address, _)| address));
        }
        for set in &sets.cluster {
            last.cluster.extend(LastSets::networks(&self.all_elements(set, packet::bounds)?));
        }
        Ok(last)
    }

    fn all_elements<T>(&mut self, set: &Attributes, read: fn(&[u8]) -> Vec<T>) -> io::Result<Vec<T>> {
        let question = packet::question(Verb::GetElements, true, self.next(), set);
        let mut elements = Vec::new();
        match self.list(&question, |answer| {
            if let Answer::Object(attributes) = answer {
                elements.extend(read(attributes));
            }
        }) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
            listed => listed.map(|()| elements),
        }
    }

    /// The connections of a family that `is_stale` names, of one source or of all.
    pub(super) fn connections(
        &mut self,
        v6: bool,
        source: Option<IpAddr>,
        mut is_stale: impl FnMut(&Connection) -> bool,
    ) -> io::Result<Vec<Connection>> {
        let question = packet::list_connections(v6, source, self.next());
        let mut stale = Vec::new();
        self.list(&question, |answer| {
            if let Answer::Connection(attributes) = answer {
                stale.extend(packet::connection(attributes).filter(&mut is_stale));
            }
        })?;
        Ok(stale)
    }

    /// Ends what conntrack knows of connections: the next packet of each is judged as the first of a new one.
    pub(super) fn forget(&mut self, connections: &[Connection]) -> io::Result<()> {
        for some in connections.chunks(AT_ONCE) {
            let (mut octets, mut first, mut last) = (Vec::new(), None, 0);
            for connection in some {
                last = self.next();
                first.get_or_insert(last);
                packet::forget_connection(&mut octets, connection, last);
            }
            self.questions.send(&octets, 0)?;
            self.hear_forgotten(first.unwrap_or(last), some.len())?;
        }
        Ok(())
    }

    /// Waits for the answers to so many messages, from that number on.
    fn hear_forgotten(&mut self, first: u32, count: usize) -> io::Result<()> {
        let (mut answered, mut refused) = (0, None);
        while answered < count {
            let (octets, _) = self.questions.recv_from_full()?;
            for (number, answer) in packet::answers(&octets) {
                if usize::try_from(number.wrapping_sub(first)).is_ok_and(|place| place < count) {
                    answered += 1;
                    match answer {
                        // It has ended by itself.
                        Answer::Refused(libc::ENOENT) => {}
                        Answer::Refused(code) => refused = refused.or(Some(code)),
                        Answer::Done | Answer::Object(_) | Answer::Connection(_) | Answer::Other => {}
                    }
                }
            }
        }
        refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// What the kernel says of one object; `None` where it is not there.
    fn object<T>(&mut self, verb: Verb, attributes: &Attributes, read: impl Fn(&[u8]) -> T) -> io::Result<Option<T>> {
        let sequence = self.next();
        self.questions.send(&packet::question(verb, false, sequence, attributes), 0)?;
        loop {
            let (octets, _) = self.questions.recv_from_full()?;
            for (answered, answer) in packet::answers(&octets).filter(|(answered, _)| *answered == sequence) {
                debug_assert_eq!(answered, sequence);
                match answer {
                    Answer::Object(attributes) => return Ok(Some(read(attributes))),
                    Answer::Refused(libc::ENOENT) => return Ok(None),
                    Answer::Refused(code) => return Err(io::Error::from_raw_os_error(code)),
                    Answer::Done | Answer::Connection(_) | Answer::Other => {}
                }
            }
        }
    }

    fn list(&mut self, question: &[u8], mut take: impl FnMut(Answer<'_>)) -> io::Result<()> {
        let sequence = self.sequence;
        self.questions.send(question, 0)?;
        loop {
            let (octets, _) = self.questions.recv_from_full()?;
            for (_, answer) in packet::answers(&octets).filter(|(answered, _)| *answered == sequence) {
                match answer {
                    Answer::Done => return Ok(()),
                    Answer::Refused(code) => return Err(io::Error::from_raw_os_error(code)),
                    Answer::Object(_) | Answer::Connection(_) | Answer::Other => take(answer),
                }
            }
        }
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// Sends pods what is for them alone: whole packets, from whatever address. Needs CAP_NET_RAW.
pub(super) struct ToPods {
    v4: socket2::Socket,
    v6: Option<socket2::Socket>,
}

impl ToPods {
    /// # Errors
    /// EPERM without the capability.
    pub(super) fn open() -> io::Result<ToPods> {
        let open = |domain: Domain| -> io::Result<socket2::Socket> {
            let socket = socket2::Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            set_option(&socket, libc::SO_PRIORITY, ruleset::UNTRACKED)?;
            Ok(socket)
        };
        // A host may have no IPv6.
        Ok(ToPods { v4: open(Domain::IPV4)?, v6: open(Domain::IPV6).ok() })
    }

    /// # Errors
    /// The kernel's, of the way to the pod.
    pub(super) fn ask(&self, ends: Ends) -> io::Result<()> {
        let socket = if ends.pod.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let (Some(socket), Some(packet)) = (socket, keepalive::packet(ends)) else { return Ok(()) };
        socket.send_to(&packet, &std::net::SocketAddr::new(ends.pod.ip(), 0).into()).map(drop)
    }
}

/// Hears that rules have changed.
pub(super) struct Changes(TokioSocket);

impl Changes {
    /// # Errors
    /// As [`Netfilter::open`].
    pub(super) fn open() -> io::Result<Changes> {
        let mut changes = TokioSocket::new(NETLINK_NETFILTER)?;
        let socket = changes.socket_mut();
        SockRef::from(&*socket).attach_filter(&filter())?;
        socket.bind_auto()?;
        socket.add_membership(NFTABLES_GROUP)?;
        Ok(Changes(changes))
    }

    /// Waits until rules have changed since the last call. Safe to cancel.
    ///
    /// # Errors
    /// When the kernel tells no more. That more has changed than the socket could hold is a change.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        told(self.0.recv_from_full().await)?;
        loop {
            match self.0.socket_ref().recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => told(received)?,
            }
        }
    }
}

fn told<T>(received: io::Result<T>) -> io::Result<()> {
    match received {
        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// An option of a socket whose value is a number.
fn set_option(socket: &impl AsRawFd, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of `value`, which the kernel only reads; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast::<libc::c_void>(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets pass the message that ends a change, which the kernel sends by itself.
fn filter() -> [SockFilter; 4] {
    // A filter reads in network order what the kernel has written in its own.
    let generation = u32::from(packet::GENERATION.to_be());
    [
        SockFilter::new(LOAD_HALF, 0, 0, TYPE_FIELD),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, generation),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

/// So many connections are forgotten by one message. Their answers fit into the socket.
const AT_ONCE: usize = 64;

/// Room for a change of 100,000 pods, beyond the host's limit.
const LARGEST: libc::c_int = 16 * 1024 * 1024;

/// `NFNLGRP_NFTABLES`.
const NFTABLES_GROUP: u32 = 7;

/// Of a netlink header.
const TYPE_FIELD: u32 = 4;

// The kernel's constants in the types of the fields that they go into; each is far below the least maximum.
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
