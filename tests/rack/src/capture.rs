//! Packet capture: what went over an interface and when, as the kernel saw it, with ARP read and BGP messages put
//! together from their TCP streams.
//!
//! A capture on a [port of a switch](crate::net::Port) sees both directions of its host. Reads on its own, without
//! crier's parsers: it judges them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;
use crate::net::Port;
use crate::packet::{Arp, Frames, PacketSocket};
use crate::wait::{now, wall};

const BGP_PORT: u16 = 179;

/// A capture that goes on until it is dropped. What it has seen can be asked at any time.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    frames: Mutex<Vec<Frame>>,
}

/// One frame, from its Ethernet header on.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the kernel saw it.
    pub at: Instant,
    pub bytes: Vec<u8>,
}

/// The header of one TCP segment from or to BGP's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BgpSegment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// The TTL or hop limit that it had left.
    pub hops: u8,
    /// A SYN without an ACK: `from` dials `to`.
    pub dials: bool,
    /// It carries a TCP MD5 signature (RFC 2385), good or not.
    pub is_signed: bool,
    /// It carries a message authentication code of TCP-AO (RFC 5925), good or not.
    pub is_authenticated: bool,
}

/// One BGP message as it went by.
#[derive(Clone, Debug)]
pub struct BgpMessage {
    /// When its last byte went by.
    pub at: Instant,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub kind: BgpKind,
    /// All of it, header included.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BgpKind {
    Open,
    Update(Update),
    Notification {
        code: u8,
        subcode: u8,
    },
    Keepalive,
    RouteRefresh,
    /// A type that RFC 4271 and 2918 do not know, or one of theirs that makes no sense.
    Unreadable,
}

/// What an UPDATE says of unicast routes of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub announced: Vec<String>,
    pub withdrawn: Vec<String>,
    /// Path attributes by type code, as they were.
    pub attributes: BTreeMap<u8, Vec<u8>>,
}

impl Update {
    /// RFC 4724 §2: an UPDATE that says nothing, or only that it withdraws nothing of a family.
    pub fn is_end_of_rib(&self) -> bool {
        let only_unreach = self.attributes.keys().all(|code| *code == MP_UNREACH);
        self.announced.is_empty() && self.withdrawn.is_empty() && only_unreach
    }
}

impl Namespace {
    /// Captures on an interface in here from now on.
    ///
    /// # Panics
    /// When the interface cannot be listened on.
    #[track_caller]
    pub fn capture(&self, interface: &str) -> Capture {
        self.capture_only(interface, |_| true)
    }

    #[track_caller]
    fn capture_only(&self, interface: &str, wanted: fn(&[u8]) -> bool) -> Capture {
        let shared = Arc::new(Shared::default());
        let (opened, is_open) = sync_channel(1);
        let thread = self.spawn("capture", {
            let (shared, interface) = (shared.clone(), interface.to_owned());
            move || match PacketSocket::open(&interface, Frames::All, Duration::from_millis(20)) {
                Ok(socket) => {
                    let _ = opened.send(Ok(()));
                    shared.read(&socket, wanted);
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        let opened = is_open.recv().expect("the capturing thread says whether it could open its socket");
        opened.unwrap_or_else(|error| panic!("{}: could not capture on {interface}: {error}", self.name()));
        Capture { shared, thread: Some(thread) }
    }
}

impl Port {
    /// Captures what the host at this port sends and is sent.
    #[track_caller]
    pub fn capture(&self) -> Capture {
        self.switch().capture(self.name())
    }

    /// The same where much else goes by, for minutes: of all frames, ARP and BGP are kept.
    #[track_caller]
    pub fn capture_control(&self) -> Capture {
        self.switch().capture_only(self.name(), |frame| {
            let is_bgp = |it: Segment<'_>| it.from.port() == BGP_PORT || it.to.port() == BGP_PORT;
            Arp::read(frame).is_some() || Segment::read(frame).is_some_and(is_bgp)
        })
    }
}

impl Capture {
    /// All frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.frames().clone()
    }

    /// Shows all frames so far, without a copy: where pods send for minutes there are millions.
    pub fn each(&self, see: impl FnMut(&Frame)) {
        self.shared.frames().iter().for_each(see);
    }

    /// All ARP packets so far, with their times.
    pub fn arps(&self) -> Vec<(Instant, Arp)> {
        self.shared.frames().iter().filter_map(|frame| Some((frame.at, Arp::read(&frame.bytes)?))).collect()
    }

    /// The headers of all TCP segments so far from or to BGP's port.
    pub fn bgp_segments(&self) -> Vec<BgpSegment> {
        let frames = self.shared.frames();
        let segments = frames.iter().filter_map(|frame| Segment::read(&frame.bytes));
        segments
            .filter(|segment| segment.from.port() == BGP_PORT || segment.to.port() == BGP_PORT)
            .map(|segment| BgpSegment {
                from: segment.from,
                to: segment.to,
                hops: segment.hops,
                dials: segment.flags & (SYN | ACK) == SYN,
                is_signed: has_option(segment.options, MD5_SIGNATURE),
                is_authenticated: has_option(segment.options, TCP_AO),
            })
            .collect()
    }

    /// All BGP messages so far that are complete, of all sessions, in the order of their ends.
    pub fn bgp(&self) -> Vec<BgpMessage> {
        let mut streams: HashMap<(SocketAddr, SocketAddr), Stream> = HashMap::new();
        let mut messages = Vec::new();
        for frame in &*self.shared.frames() {
            let Some(segment) = Segment::read(&frame.bytes) else { continue };
            if segment.from.port() == BGP_PORT || segment.to.port() == BGP_PORT {
                streams.entry((segment.from, segment.to)).or_default().take(frame.at, &segment, &mut messages);
            }
        }
        messages
    }

    /// The UPDATEs among [`bgp`](Self::bgp) that announce `prefix`.
    pub fn announcements(&self, prefix: &str) -> Vec<BgpMessage> {
        self.updates(|update| update.announced.iter().any(|announced| announced == prefix))
    }

    /// The UPDATEs among [`bgp`](Self::bgp) that withdraw `prefix`.
    pub fn withdrawals(&self, prefix: &str) -> Vec<BgpMessage> {
        self.updates(|update| update.withdrawn.iter().any(|withdrawn| withdrawn == prefix))
    }

    fn updates(&self, wanted: impl Fn(&Update) -> bool) -> Vec<BgpMessage> {
        let is_wanted = |message: &BgpMessage| matches!(&message.kind, BgpKind::Update(update) if wanted(update));
        self.bgp().into_iter().filter(is_wanted).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn frames(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn read(&self, socket: &PacketSocket, wanted: fn(&[u8]) -> bool) {
        // Both clocks once: stamps of the one become points of the other.
        let (start, start_of_day) = (now(), wall());
        // One whole segment, as large as virtual links hand them over.
        let mut buffer = vec![0; 1 << 18];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(received) = socket.receive(&mut buffer) else { return };
            let Some((stamp, bytes)) = received else { continue };
            if !wanted(bytes) {
                continue;
            }
            let at = match stamp.duration_since(start_of_day) {
                Ok(after) => start + after,
                Err(before) => start - before.duration(),
            };
            self.frames().push(Frame { at, bytes: bytes.to_vec() });
        }
    }
}

/// One TCP segment.
struct Segment<'f> {
    from: SocketAddr,
    to: SocketAddr,
    hops: u8,
    sequence: u32,
    flags: u8,
    options: &'f [u8],
    payload: &'f [u8],
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// RFC 2385 §3: the kind of TCP option.
const MD5_SIGNATURE: u8 = 19;
const TCP_AO: u8 = 29;

/// Whether TCP options hold one of that kind.
fn has_option(mut options: &[u8], wanted: u8) -> bool {
    loop {
        match *options {
            // End of the list, or nothing left.
            [] | [0, ..] => return false,
            [kind, ..] if kind == wanted => return true,
            [1, ref rest @ ..] => options = rest,
            [_, length, ..] => match options.get(usize::from(length.max(2))..) {
                Some(rest) => options = rest,
                None => return false,
            },
            [_] => return false,
        }
    }
}

impl<'f> Segment<'f> {
    fn read(frame: &'f [u8]) -> Option<Segment<'f>> {
        const TCP: u8 = 6;
        let packet = frame.get(14..)?;
        let (from, to, hops, tcp): (IpAddr, IpAddr, u8, &[u8]) = match frame.get(12..14)? {
            [0x08, 0x00] if *packet.get(9)? == TCP => {
                let header = usize::from(packet.first()? & 15) * 4;
                let total = usize::from(number(packet, 2)?);
                let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
                // Zero on segments that the kernel has not cut yet; short frames are padded past the total.
                let end = if total == 0 { packet.len() } else { total };
                (address(12)?.into(), address(16)?.into(), *packet.get(8)?, packet.get(header..end)?)
            }
            // Extension headers do not occur on the rack's links.
            [0x86, 0xdd] if *packet.get(6)? == TCP => {
                let length = usize::from(number(packet, 4)?);
                let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
                let end = if length == 0 { packet.len() } else { 40 + length };
                (address(8)?.into(), address(24)?.into(), *packet.get(7)?, packet.get(40..end)?)
            }
            _ => return None,
        };
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Segment {
            from: SocketAddr::new(from, number(tcp, 0)?),
            to: SocketAddr::new(to, number(tcp, 2)?),
            hops,
            sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
            flags: *tcp.get(13)?,
            options: tcp.get(20..header)?,
            payload: tcp.get(header..)?,
        })
    }
}

/// One direction of one TCP connection.
#[derive(Default)]
struct Stream {
    /// The sequence number after the last byte taken; `None` before the first.
    next: Option<u32>,
    /// What came before its turn.
    early: Vec<(u32, Instant, Vec<u8>)>,
    /// Taken and not yet part of a whole message.
    buffer: Vec<u8>,
}

impl Stream {
    fn take(&mut self, at: Instant, segment: &Segment, messages: &mut Vec<BgpMessage>) {
        if segment.flags & SYN != 0 {
            // The same ports again: a new connection.
            *self = Stream { next: Some(segment.sequence.wrapping_add(1)), ..Stream::default() };
        }
        if segment.payload.is_empty() {
            return;
        }
        if self.next.is_none() && segment.payload.starts_with(&MARKER) {
            // The capture began in the middle of the connection; a message begins here.
            self.next = Some(segment.sequence);
        }
        self.early.push((segment.sequence, at, segment.payload.to_vec()));
        while let Some(next) = self.next {
            // How far a segment reaches back before `next`; more than half of all numbers back means ahead.
            let back = |sequence: u32| next.wrapping_sub(sequence);
            let due = self.early.iter().position(|(sequence, ..)| back(*sequence) < 1 << 31);
            let Some((sequence, at, bytes)) = due.map(|index| self.early.swap_remove(index)) else { return };
            let known = usize::try_from(back(sequence)).unwrap_or(usize::MAX);
            // A repetition of what was taken adds nothing.
            let Some(fresh @ [_, ..]) = bytes.get(known..) else { continue };
            self.buffer.extend(fresh);
            let length = u32::try_from(fresh.len()).unwrap_or(0);
            self.next = Some(next.wrapping_add(length));
            self.split(at, segment, messages);
        }
    }

    fn split(&mut self, at: Instant, segment: &Segment, messages: &mut Vec<BgpMessage>) {
        while let Some(length) = number(&self.buffer, 16).map(usize::from) {
            if length < HEADER || !self.buffer.starts_with(&MARKER) {
                // No BGP any more: nothing after this can be trusted.
                self.buffer.clear();
                return;
            }
            if self.buffer.len() < length {
                return;
            }
            let bytes: Vec<u8> = self.buffer.drain(..length).collect();
            let kind = BgpKind::read(&bytes);
            messages.push(BgpMessage { at, from: segment.from, to: segment.to, kind, bytes });
        }
    }
}

/// RFC 4271 §4.1: sixteen octets of ones, length, type.
const MARKER: [u8; 16] = [0xff; 16];
const HEADER: usize = 19;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;

impl BgpKind {
    fn read(message: &[u8]) -> BgpKind {
        let body = message.get(HEADER..).unwrap_or_default();
        let kind = match message.get(18) {
            Some(1) => Some(BgpKind::Open),
            Some(2) => Update::read(body).map(BgpKind::Update),
            Some(3) => match *body {
                [code, subcode, ..] => Some(BgpKind::Notification { code, subcode }),
                _ => None,
            },
            Some(4) => Some(BgpKind::Keepalive),
            Some(5) => Some(BgpKind::RouteRefresh),
            Some(_) | None => None,
        };
        kind.unwrap_or(BgpKind::Unreadable)
    }
}

impl Update {
    fn read(body: &[u8]) -> Option<Update> {
        let withdrawn_end = 2 + usize::from(number(body, 0)?);
        let attributes_end = withdrawn_end + 2 + usize::from(number(body, withdrawn_end)?);
        let mut update = Update {
            withdrawn: prefixes(body.get(2..withdrawn_end)?, Family::V4)?,
            announced: prefixes(body.get(attributes_end..)?, Family::V4)?,
            attributes: BTreeMap::new(),
        };
        let mut rest = body.get(withdrawn_end + 2..attributes_end)?;
        while let [flags, code, ..] = *rest {
            let is_extended = flags & 0x10 != 0;
            let start = if is_extended { 4 } else { 3 };
            let length = if is_extended { usize::from(number(rest, 2)?) } else { usize::from(*rest.get(2)?) };
            let value = rest.get(start..start + length)?;
            update.take_multiprotocol(code, value)?;
            update.attributes.insert(code, value.to_vec());
            rest = &rest[start + length..];
        }
        Some(update)
    }

    /// RFC 4760 §3 and §4; families other than unicast are passed over.
    fn take_multiprotocol(&mut self, code: u8, value: &[u8]) -> Option<()> {
        if code != MP_REACH && code != MP_UNREACH {
            return Some(());
        }
        let family = match value.get(..3)? {
            [0, 1, 1] => Family::V4,
            [0, 2, 1] => Family::V6,
            _ => return Some(()),
        };
        if code == MP_UNREACH {
            self.withdrawn.extend(prefixes(&value[3..], family)?);
        } else {
            // After the next hop and its length stands one reserved octet.
            self.announced.extend(prefixes(value.get(5 + usize::from(*value.get(3)?)..)?, family)?);
        }
        Some(())
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

/// RFC 4271 §4.3: a length in bits, then as many octets as hold them.
fn prefixes(mut bytes: &[u8], family: Family) -> Option<Vec<String>> {
    let mut all = Vec::new();
    while let [bits, rest @ ..] = bytes {
        let octets = usize::from(bits.div_ceil(8));
        let mut address = [0; 16];
        address.get_mut(..octets)?.copy_from_slice(rest.get(..octets)?);
        all.push(match family {
            Family::V4 => format!("{}/{bits}", Ipv4Addr::from(<[u8; 4]>::try_from(&address[..4]).ok()?)),
            Family::V6 => format!("{}/{bits}", Ipv6Addr::from(address)),
        });
        bytes = &rest[octets..];
    }
    Some(all)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl fmt::Display for BgpMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}: {:?}", self.from, self.to, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of a stream run over the end of their range on the way.
    const FIRST: u32 = u32::MAX - 10;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(HEADER + body.len()).unwrap();
        [&MARKER[..], &length.to_be_bytes(), &[kind], body].concat()
    }

    fn segment(sequence: u32, payload: &[u8]) -> Segment<'_> {
        let address = |last: u8, port: u16| SocketAddr::from(([10, 0, 0, last], port));
        Segment {
            from: address(1, 4000),
            to: address(2, BGP_PORT),
            hops: 64,
            sequence,
            flags: ACK,
            options: &[],
            payload,
        }
    }

    fn kinds(segments: &[Segment]) -> Vec<BgpKind> {
        let (mut stream, mut messages) = (Stream::default(), Vec::new());
        stream.take(now(), &Segment { flags: SYN, ..segment(FIRST.wrapping_sub(1), &[]) }, &mut messages);
        segments.iter().for_each(|segment| stream.take(now(), segment, &mut messages));
        messages.into_iter().map(|message| message.kind).collect()
    }

    #[test]
    fn messages_are_found_in_segments_out_of_order_and_repeated() {
        let stream = [message(4, &[]), message(3, &[6, 2]), message(4, &[])].concat();
        let expected = [BgpKind::Keepalive, BgpKind::Notification { code: 6, subcode: 2 }, BgpKind::Keepalive];
        let part = |range: std::ops::Range<usize>| {
            segment(FIRST.wrapping_add(u32::try_from(range.start).unwrap()), &stream[range])
        };
        assert_eq!(kinds(&[part(0..stream.len())]), expected, "in one segment");
        assert_eq!(kinds(&[part(0..5), part(5..30), part(30..59)]), expected, "in order");
        assert_eq!(kinds(&[part(0..20), part(40..59), part(20..40)]), expected, "out of order");
        assert_eq!(kinds(&[part(0..30), part(0..30), part(20..59), part(30..59)]), expected, "repeated");
    }

    #[test]
    fn a_capture_that_begins_late_begins_with_the_first_message_it_sees() {
        let (mut stream, mut messages) = (Stream::default(), Vec::new());
        for (sequence, payload) in [(100, vec![1, 2, 3]), (103, message(4, &[]))] {
            stream.take(now(), &segment(sequence, &payload), &mut messages);
        }
        assert_eq!(messages.iter().map(|m| m.kind.clone()).collect::<Vec<_>>(), [BgpKind::Keepalive]);
    }

    #[test]
    fn an_update_tells_its_prefixes_of_both_families() {
        let update = message(
            2,
            &[
                0, 5, 32, 192, 0, 2, 9, // withdrawn 192.0.2.9/32
                0, 27, // attributes
                0x40, 1, 1, 0, // ORIGIN
                0x90, 14, 0, 16, 0, 2, 1, 4, 1, 2, 3, 4, 0, 48, 0x20, 1, 0x0d, 0xb8, 0,
                1, // announced 2001:db8:1::/48
                0x80, 15, 0, // an empty MP_UNREACH, too short to name a family
                24, 10, 1, 2, // announced 10.1.2.0/24
            ],
        );
        assert_eq!(BgpKind::read(&update), BgpKind::Unreadable, "a broken attribute is told from a good one");
        let update = message(
            2,
            &[
                0, 5, 32, 192, 0, 2, 9, 0, 24, 0x40, 1, 1, 0, 0x90, 14, 0, 16, 0, 2, 1, 4, 1, 2, 3, 4, 0, 48, 0x20, 1,
                0x0d, 0xb8, 0, 1, 24, 10, 1, 2,
            ],
        );
        let BgpKind::Update(update) = BgpKind::read(&update) else { panic!("it is an UPDATE") };
        assert_eq!(update.withdrawn, ["192.0.2.9/32"]);
        assert_eq!(update.announced, ["10.1.2.0/24", "2001:db8:1::/48"]);
        assert_eq!(update.attributes[&1], [0]);
        assert!(!update.is_end_of_rib());
    }

    #[test]
    fn an_end_of_rib_of_each_family_is_seen() {
        for body in [&[0, 0, 0, 0][..], &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]] {
            let BgpKind::Update(update) = BgpKind::read(&message(2, body)) else { panic!("it is an UPDATE: {body:?}") };
            assert!(update.is_end_of_rib(), "{update:?}");
        }
    }
}
