//! TCP for BGP: how a peer is dialled, what its sockets are set to, and a connection that is read and written without ever
//! waiting for the other direction. Floor 2. It knows only the boundaries of messages; the machine reads them.
//! The sockets that accept are in `listeners`.

pub mod kept;
pub mod ledger;
pub mod listeners;
mod options;
pub mod refusals;
pub mod way;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use self::ledger::{Ledger, Safe};
pub use self::options::Progress;
use self::options::interface_index;
use crate::address::ScopedAddress;
use crate::bgp::kept::KeptSession;
use crate::bgp::wire::{Frame, WireError};
use crate::config::AoKey;
use crate::in_session::SessionMark;
use crate::names::InterfaceName;
use crate::secret::Secret;

/// How to reach a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub peer: ScopedAddress,
    pub port: u16,
    /// The address to dial from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// Routers that a packet may pass, the peer included. Without effect where `link_only` is set.
    pub ttl: u8,
    /// Only what comes from the link is taken (RFC 5082): packets leave with TTL 255, and come in with that or not at all.
    pub link_only: bool,
    /// The VRF that the peer is in, by the name of its device; any other device works too. `None`: the main routing table.
    pub device: Option<InterfaceName>,
    pub protection: Protection,
}

/// How the segments of a session are signed. The kernel drops segments that are not signed like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    None,
    /// TCP MD5, RFC 2385.
    Md5(Secret),
    /// TCP-AO, RFC 5925. The first key is the one to send with.
    Ao(Vec<AoKey>),
}

/// RFC 5082 §3: a packet that has passed no router has the greatest TTL.
pub const GTSM_TTL: u8 = 255;

/// Internetwork control, as routers mark BGP: it passes before user traffic on a full link.
const TRAFFIC_CLASS: u32 = 0xc0;

/// How much a connection takes from its socket at once, in octets.
const READ_LEN: usize = 16 * 1024;

/// Octets of routes that are handed to a connection ahead of what its socket takes. Enough to keep the socket busy, little
/// enough that what changes meanwhile is not sent as it was.
const ROUTES_AHEAD: usize = 32 * 1024;

/// Octets that the kernel takes beyond what it can send. What it has taken cannot be called back.
const UNSENT_LEN: u32 = 16 * 1024;

/// Slices that one write takes. A write costs more than all else about a short message, so many go with one.
const WRITE_SLICES: usize = 256;

/// TCP keepalives check a silent peer, also if the session has no hold time: after this long, at this interval, and this many
/// times. A peer that is gone is noticed after a minute.
const PROBE_AFTER: Duration = Duration::from_secs(20);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 4;

/// How long a last NOTIFICATION may take until the peer has closed its side.
pub const FAREWELL_TIME: Duration = Duration::from_secs(1);

impl Protection {
    /// The file of a secret is missing: nothing can be signed like this. A connection that is open keeps the keys that it has.
    pub fn lacks_secret(&self) -> bool {
        match self {
            Protection::None => false,
            Protection::Md5(password) => password.expose().is_empty(),
            Protection::Ao(keys) => keys.iter().any(|key| key.secret.is_missing()),
        }
    }

    /// Puts the keys of a peer on a socket. `vrf` is the index of the device that the socket is bound to. Where it fails, some keys
    /// may be set; the socket is not to be used for this peer then.
    pub fn set(&self, socket: BorrowedFd<'_>, peer: IpAddr, vrf: Option<u32>, connecting: bool) -> io::Result<()> {
        match self {
            // An empty password would take the one of the socket off.
            lacking if lacking.lacks_secret() => Err(io::Error::new(io::ErrorKind::NotFound, "the secret is missing")),
            Protection::None => Ok(()),
            Protection::Md5(password) => options::set_md5_key(socket, peer, vrf, password.expose())
                .map_err(|error| explain(error, "TCP MD5", "CONFIG_TCP_MD5SIG")),
            Protection::Ao(keys) => keys.iter().enumerate().try_for_each(|(n, key)| {
                options::add_ao_key(socket, peer, vrf, key, connecting && n == 0)
                    .map_err(|error| explain(error, "TCP-AO", "Linux 6.7 or later with CONFIG_TCP_AO"))
            }),
        }
    }

    /// Takes the keys of a peer off a listening socket.
    pub fn unset(&self, socket: BorrowedFd<'_>, peer: IpAddr, vrf: Option<u32>) -> io::Result<()> {
        match self {
            Protection::None => Ok(()),
            lacking if lacking.lacks_secret() => Ok(()),
            Protection::Md5(_) => options::set_md5_key(socket, peer, vrf, &[]),
            Protection::Ao(keys) => keys.iter().try_for_each(|key| options::delete_ao_key(socket, peer, vrf, key)),
        }
    }
}

/// What an operator can do about a key that cannot be set.
fn explain(error: io::Error, what: &str, needed: &str) -> io::Error {
    let text = match error.raw_os_error() {
        Some(libc::ENOPROTOOPT | libc::EOPNOTSUPP) => format!("this kernel has no {what}: it takes {needed}"),
        _ => format!("{what} key: {}", describe(&error)),
    };
    io::Error::new(error.kind(), text)
}

/// As in "the connection is ...".
impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protection::None => "not signed",
            Protection::Md5(_) => "signed with a TCP MD5 password",
            Protection::Ao(_) => "signed with TCP-AO",
        })
    }
}

impl Endpoint {
    /// Opens a connection. Dropping the future gives up the attempt.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        let peer = self.socket_address(self.peer.ip, self.port)?;
        let socket = if peer.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        let device =
            self.device.as_ref().map(|device| Ok::<_, io::Error>((device, interface_index(device)?))).transpose()?;
        if let Some((device, _)) = device {
            socket
                .bind_device(Some(device.as_str().as_bytes()))
                .map_err(|error| io::Error::new(error.kind(), format!("VRF {device}: {}", describe(&error))))?;
        }
        self.dress(&SockRef::from(&socket))?;
        self.protection.set(socket.as_fd(), self.peer.ip, device.map(|(_, index)| index), true)?;
        if self.peer.ip.is_ipv6() {
            // Where the kernel refuses, it chooses as it always does.
            let _ = options::prefer_public_source(socket.as_fd());
        }
        if let Some(source) = self.source {
            socket.bind(self.socket_address(source, 0)?).map_err(|error| {
                io::Error::new(error.kind(), format!("source address {source}: {}", describe(&error)))
            })?;
        }
        socket.connect(peer).await
    }

    /// Makes an accepted connection what a dialled one is. Its keys are those of the listening socket already.
    pub fn dress_accepted(&self, stream: &TcpStream) -> io::Result<()> {
        self.dress(&SockRef::from(stream))
    }

    /// Signs the segments of an open connection as this endpoint has it from now on, and takes no other. `before` is how they were
    /// signed. On an error the connection is signed as before, or not at all: it is not to be used.
    fn sign_anew(&self, stream: &TcpStream, before: &Protection) -> io::Result<()> {
        let vrf = self.device.as_ref().map(interface_index).transpose()?;
        match (before, &self.protection) {
            (Protection::None, Protection::None) => Ok(()),
            (Protection::None | Protection::Md5(_), Protection::Md5(_)) => {
                self.protection.set(stream.as_fd(), self.peer.ip, vrf, true)
            }
            (Protection::Md5(_), Protection::None) => before.unset(stream.as_fd(), self.peer.ip, vrf),
            // The kernel neither adds TCP-AO to an open connection nor takes it off.
            (Protection::Ao(_), _) | (_, Protection::Ao(_)) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn dress(&self, socket: &SockRef<'_>) -> io::Result<()> {
        // The last UPDATE of a batch is a short segment: it must not wait for the acknowledgement of the one before.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_LEN)?;
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
        socket.set_tcp_keepalive(&probes)?;
        let ttl = u32::from(if self.link_only { GTSM_TTL } else { self.ttl });
        match self.peer.ip {
            IpAddr::V4(_) => {
                socket.set_tos_v4(TRAFFIC_CLASS)?;
                socket.set_ttl_v4(ttl)?;
            }
            IpAddr::V6(_) => {
                socket.set_tclass_v6(TRAFFIC_CLASS)?;
                socket.set_unicast_hops_v6(ttl)?;
            }
        }
        if self.link_only {
            options::set_minimum_ttl(socket.as_fd(), self.peer.ip, GTSM_TTL)?;
        }
        Ok(())
    }

    /// A link-local address means something only together with its link.
    fn socket_address(&self, ip: IpAddr, port: u16) -> io::Result<SocketAddr> {
        match (ip, &self.peer.interface) {
            (IpAddr::V6(v6), Some(interface)) if v6.is_unicast_link_local() => {
                Ok(SocketAddr::V6(SocketAddrV6::new(v6, port, 0, interface_index(interface)?)))
            }
            (ip, _) => Ok(SocketAddr::new(ip, port)),
        }
    }

    /// Whether connections of this peer come over this device. `None`: the main routing table.
    pub fn is_over(&self, device: Option<&InterfaceName>) -> bool {
        let interface = self.peer.interface.as_ref();
        device == self.device.as_ref() || (interface.is_some() && device == interface)
    }

    /// Whether a connection from this address is one of this peer.
    pub fn is_from(&self, address: SocketAddr) -> bool {
        match (address, &self.peer.interface) {
            (SocketAddr::V6(v6), Some(interface)) if v6.ip().is_unicast_link_local() => {
                IpAddr::V6(*v6.ip()) == self.peer.ip
                    && interface_index(interface).is_ok_and(|index| index == v6.scope_id())
            }
            (address, _) => address.ip() == self.peer.ip,
        }
    }
}

/// The text of an error without the number that the standard library appends.
pub fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// One connection. Nothing in it ever waits for the peer: what the socket does not take stays queued, in order, with control messages
/// before routes.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    inbox: BytesMut,
    /// What is to leave: the message that has left in part, if any, then control messages, then routes.
    queue: VecDeque<Bytes>,
    /// Whether the first of the queue has left in part. Nothing can be put before it any more.
    first_has_started: bool,
    /// How many of the queue, behind the started one, are control messages.
    control_len: usize,
    queued_octets: usize,
    /// Writing has failed. The peer may have said why before it closed, so reading goes on until that ends too.
    writable: bool,
    /// What the next agent needs if this one dies without a word; `None` where nobody keeps it.
    ledger: Option<Ledger>,
    /// The session on it is established, and BFD is not to go before it has ended.
    mark: Option<SessionMark>,
}

/// What is to be done about the ledger of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerStep {
    Nothing,
    /// There is none, and one can begin.
    Begin,
    /// Its log should begin anew, and can.
    Renew,
}

/// A connection taken apart: see [`Connection::resumed`].
struct Remains {
    socket: OwnedFd,
    unread: Vec<u8>,
    unwritten: Vec<u8>,
}

/// What happened on a connection.
#[derive(Debug)]
pub enum ConnectionEvent {
    /// A whole message came.
    Frame(Frame),
    /// What came cannot be cut into messages.
    Malformed(WireError),
    /// The socket took something.
    Sent,
    /// It is over; the text says how.
    Lost(String),
}

impl Connection {
    pub fn new(stream: TcpStream) -> Connection {
        Connection {
            stream,
            inbox: BytesMut::new(),
            queue: VecDeque::new(),
            first_has_started: false,
            control_len: 0,
            queued_octets: 0,
            writable: true,
            ledger: None,
            mark: None,
        }
    }

    /// The connection of which this is all there is beside the socket: what was read and is no whole message yet, and what is to be
    /// written before all else.
    fn resumed(stream: TcpStream, unread: &[u8], unwritten: Vec<u8>) -> Connection {
        let mut connection = Connection::new(stream);
        connection.inbox.extend_from_slice(unread);
        if !unwritten.is_empty() {
            connection.queued_octets = unwritten.len();
            connection.queue.push_back(unwritten.into());
            connection.first_has_started = true;
        }
        connection
    }

    /// The socket, and all there is beside it. An error, or `None` where writing has failed already, leaves nothing: the connection is
    /// closed.
    fn take_apart(self) -> io::Result<Option<Remains>> {
        let unwritten = self.queue.iter().flat_map(|message| message.iter().copied()).collect();
        let remains = Remains { unread: self.inbox.to_vec(), unwritten, socket: self.stream.into_std()?.into() };
        Ok(self.writable.then_some(remains))
    }

    /// There is a session on it from now on.
    pub fn mark(&mut self, mark: SessionMark) {
        self.mark = Some(mark);
    }

    /// See [`Endpoint::sign_anew`], with the endpoint's protection before.
    pub fn sign_anew(&self, endpoint: &Endpoint, before: &Protection) -> io::Result<()> {
        endpoint.sign_anew(&self.stream, before)
    }

    /// What to do about the ledger. `is_new`: no routes were queued on this connection yet. `has_news`: what the ledger began with
    /// is not how the session stands now.
    pub fn ledger_step(&self, is_new: bool, has_news: bool, now: Instant) -> LedgerStep {
        let is_through = self.queue.is_empty();
        match &self.ledger {
            None if is_through || (is_new && !self.first_has_started) => LedgerStep::Begin,
            Some(ledger) if is_through && ledger.is_due(has_news, now) => LedgerStep::Renew,
            Some(_) | None => LedgerStep::Nothing,
        }
    }

    /// When the ledger may begin anew for UPDATEs that it has in its log.
    pub fn ledger_due(&self) -> Option<Instant> {
        self.ledger.as_ref().map(Ledger::due)
    }

    /// Takes a step, with the session as it stands. On an error there is no ledger any more.
    pub fn keep_ledger(&mut self, step: LedgerStep, state: &KeptSession, safe: &Safe) -> io::Result<()> {
        match (step, self.ledger.take()) {
            (LedgerStep::Nothing, ledger) => self.ledger = ledger,
            (LedgerStep::Renew, Some(mut ledger)) => {
                ledger.renew(&self.stream, state)?;
                self.ledger = Some(ledger);
            }
            (LedgerStep::Begin | LedgerStep::Renew, _) => {
                self.ledger = Some(Ledger::begin(&self.stream, state, &self.inbox, safe)?);
            }
        }
        Ok(())
    }

    /// Our own end of the connection.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// The peer's end of the connection.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Octets wait in the kernel that were not read, or the news that there are no more.
    pub fn has_unread(&self) -> bool {
        let mut octet = [MaybeUninit::uninit()];
        SockRef::from(&self.stream).peek(&mut octet).is_ok()
    }

    /// How long ago the peer last acknowledged anything; `None` where the kernel does not tell.
    pub fn since_acknowledgement(&self) -> Option<Duration> {
        options::since_acknowledgement(self.stream.as_fd()).ok()
    }

    /// How far the peer's host is; what waits to be written here waits too. `None` where the kernel does not tell: the connection is about
    /// to end.
    pub fn progress(&self) -> Option<Progress> {
        let progress = options::progress(self.stream.as_fd()).ok()?;
        Some(Progress { waits: progress.waits || !self.queue.is_empty(), ..progress })
    }

    /// Queues a message that is not to wait behind routes. One that waits already in the same words is enough: keepalives do not pile
    /// up before a peer that does not read.
    pub fn queue_control(&mut self, message: Bytes) {
        let start = usize::from(self.first_has_started);
        let waiting = self.queue.iter().skip(start).take(self.control_len);
        if !self.writable || waiting.into_iter().any(|queued| *queued == message) {
            return;
        }
        let place = start + self.control_len;
        if let Some(ledger) = &mut self.ledger {
            ledger.note_change(self.queue.iter().take(place).map(Bytes::len).sum());
        }
        self.queued_octets += message.len();
        self.queue.insert(place, message);
        self.control_len += 1;
    }

    /// Queues a message that carries routes.
    pub fn queue_routes(&mut self, message: Bytes) {
        if self.writable {
            self.queued_octets += message.len();
            self.queue.push_back(message);
        }
    }

    /// More routes may be queued: so little is waiting that the socket could run dry.
    pub fn wants_routes(&self) -> bool {
        self.writable && self.queued_octets < ROUTES_AHEAD
    }

    /// Writes what can be written, and gives the next thing that happened. Loses nothing when it is not asked again.
    pub fn poll_event(&mut self, max_message_len: usize, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        if self.writable && !self.queue.is_empty() {
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(ConnectionEvent::Sent),
                Poll::Ready(Err(_)) => self.writable = false,
                Poll::Pending => {}
            }
        }
        self.poll_read(max_message_len, cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let mut count = 0;
        for (slice, message) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(message);
            count += 1;
        }
        if let Some(ledger) = &mut self.ledger
            && let Err(error) = ledger.note_queue(&slices[..count])
        {
            ledger.give_up(&error);
            self.ledger = None;
        }
        let mut written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]))?;
        if let Some(ledger) = &mut self.ledger {
            ledger.note_written(written);
        }
        self.queued_octets -= written;
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                if written > 0 && !std::mem::replace(&mut self.first_has_started, true) {
                    self.control_len = self.control_len.saturating_sub(1);
                }
                first.advance(written);
                break;
            }
            written -= first.len();
            self.queue.pop_front();
            if !std::mem::replace(&mut self.first_has_started, false) {
                self.control_len = self.control_len.saturating_sub(1);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, max_message_len: usize, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        loop {
            match Frame::parse(&mut self.inbox, max_message_len) {
                Ok(Some(frame)) => return Poll::Ready(ConnectionEvent::Frame(frame)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(ConnectionEvent::Malformed(error)),
            }
            let ready = ready!(self.stream.poll_read_ready(cx));
            self.inbox.reserve(READ_LEN);
            let how = match ready.and_then(|()| self.stream.try_read_buf(&mut self.inbox)) {
                Ok(0) if self.inbox.is_empty() => "closed by the peer".to_owned(),
                Ok(0) => "closed by the peer within a message".to_owned(),
                Ok(count) => {
                    if let Some(ledger) = &mut self.ledger
                        && let Err(error) = ledger.note_unread(count, &self.inbox)
                    {
                        ledger.give_up(&error);
                        self.ledger = None;
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => describe(&error),
            };
            return Poll::Ready(ConnectionEvent::Lost(how));
        }
    }

    /// Closes without a NOTIFICATION, by a reset, so that the kernel does not keep what the peer has not read.
    pub fn close(self) {
        if self.ledger.is_some() {
            // Whoever has it entrusted closes it a moment later, and the peer is not to wait for that.
            let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Both);
        }
        if !self.queue.is_empty() {
            // Where the option cannot be set, a plain close has to do.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Sends a last NOTIFICATION and closes, within [`FAREWELL_TIME`], or twice that where packets are lost on the way. Messages in the
    /// queue that were not started are left out.
    ///
    /// The write side is closed first and the peer's octets are read until it closes too: closing a socket with unread input
    /// makes the kernel send a reset, and a reset can discard the NOTIFICATION before the peer has read it.
    pub async fn say_farewell(mut self, last_word: Bytes) {
        self.ledger = None;
        let mut is_written = false;
        let said = async {
            if self.first_has_started
                && let Some(started) = self.queue.pop_front()
            {
                self.stream.write_all(&started).await?;
            }
            self.stream.write_all(&last_word).await?;
            self.stream.shutdown().await?;
            is_written = true;
            read_to_the_end(&mut self.stream).await
        };
        // A peer that has not closed its side by then is not waited for.
        let is_late = tokio::time::timeout(FAREWELL_TIME, said).await.is_err();
        if is_late && is_written && options::is_unacknowledged(self.stream.as_fd()) {
            // The kernel sends it again, later each time.
            let _ = tokio::time::timeout(FAREWELL_TIME, read_to_the_end(&mut self.stream)).await;
        }
    }
}

async fn read_to_the_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;

    use super::*;

    /// A connection on loopback whose other end reads little at a time.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let peer = TcpSocket::new_v4().unwrap();
        peer.set_recv_buffer_size(4096).unwrap();
        let (accepted, peer) = tokio::join!(listener.accept(), peer.connect(listener.local_addr().unwrap()));
        let stream = accepted.unwrap().0;
        let endpoint = Endpoint {
            peer: ScopedAddress { ip: "127.0.0.1".parse().unwrap(), interface: None },
            port: 179,
            source: None,
            ttl: 1,
            link_only: false,
            device: None,
            protection: Protection::None,
        };
        endpoint.dress_accepted(&stream).expect("options that every kernel has");
        (Connection::new(stream), peer.unwrap())
    }

    /// Writes until the socket takes no more.
    async fn block(connection: &mut Connection) {
        loop {
            connection.queue_routes(Bytes::from_static(&[b'r'; 4096]));
            let wrote = poll_fn(|cx| Poll::Ready(connection.poll_event(4096, cx).is_ready())).await;
            if !wrote {
                // Readiness of a socket is learned from the runtime.
                tokio::task::yield_now().await;
                if poll_fn(|cx| Poll::Ready(connection.poll_event(4096, cx).is_pending())).await {
                    return;
                }
            }
        }
    }

    /// D6 of the field cases: a router that lost power is noticed where no hold timer runs.
    #[tokio::test]
    async fn tcp_itself_asks_whether_a_silent_peer_is_there() {
        let (connection, _peer) = connection().await;
        let socket = SockRef::from(&connection.stream);
        assert!(socket.keepalive().unwrap(), "SO_KEEPALIVE is set");
        let found_gone = PROBE_AFTER + PROBE_EVERY * PROBES;
        assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE_AFTER);
        assert!(found_gone <= Duration::from_secs(60), "within a minute");
    }

    #[tokio::test]
    async fn an_acknowledgement_and_unread_octets_are_told_by_the_kernel() {
        let (mut connection, mut peer) = connection().await;
        assert!(!connection.has_unread(), "nothing was sent");
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.queue_control(Bytes::from_static(b"are you there"));
        assert!(matches!(poll_fn(|cx| connection.poll_event(4096, cx)).await, ConnectionEvent::Sent));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let since = connection.since_acknowledgement().expect("Linux tells");
        assert!(since < Duration::from_millis(90), "acknowledged {since:?} ago");
        peer.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(connection.has_unread());
    }

    #[tokio::test]
    async fn a_short_message_waits_for_no_acknowledgement() {
        let (connection, _peer) = connection().await;
        assert!(connection.stream.nodelay().expect("an option that every socket has"), "TCP_NODELAY is set");
    }

    #[tokio::test]
    async fn control_messages_overtake_routes_but_never_a_message_that_has_started() {
        let (mut connection, mut peer) = connection().await;
        block(&mut connection).await;
        connection.queue_routes(Bytes::from_static(b"R"));
        for control in [b"1", b"2", b"1"] {
            connection.queue_control(Bytes::from_static(control));
        }
        let read = async {
            let mut read = Vec::new();
            while !(read.contains(&b'R') && read.contains(&b'2')) {
                peer.read_buf(&mut read).await.expect("the connection is good");
            }
            read
        };
        let write = async {
            loop {
                poll_fn(|cx| connection.poll_event(4096, cx)).await;
            }
        };
        let read = tokio::select! { read = read => read, () = write => unreachable!("it writes for ever") };
        let first_control = read.iter().position(|octet| *octet == b'1').expect("it was written");
        assert_eq!(first_control % 4096, 0, "between two messages");
        assert_eq!(&read[first_control..first_control + 2], b"12", "in their order, and one of each");
        let routes = read.iter().position(|octet| *octet == b'R').expect("it was written");
        assert!(first_control < routes, "before routes that were queued earlier");
        assert_eq!(
            read.iter().filter(|octet| **octet == b'1').count(),
            1,
            "a second one of the same words waits in vain"
        );
    }

    #[tokio::test]
    async fn a_last_word_to_a_peer_that_does_not_read_takes_no_longer_than_it_may() {
        let (mut connection, peer) = connection().await;
        block(&mut connection).await;
        let started = crate::clock::now();
        connection.say_farewell(Bytes::from_static(b"bye")).await;
        assert!(crate::clock::since(started) < FAREWELL_TIME * 2);
        drop(peer);
    }

    #[tokio::test]
    async fn the_reason_is_read_even_when_writing_has_failed_before() {
        let (mut connection, mut peer) = connection().await;
        let mut keepalive = vec![0xff; 16];
        keepalive.extend([0, 19, 4]);
        peer.write_all(&keepalive).await.unwrap();
        drop(peer);
        // The first write meets a closed socket and brings a reset back; the second fails.
        for _ in 0..2 {
            connection.queue_routes(Bytes::from_static(&[b'r'; 64]));
            let event = poll_fn(|cx| connection.poll_event(4096, cx)).await;
            match event {
                ConnectionEvent::Sent => {}
                ConnectionEvent::Frame(frame) => return assert_eq!(frame.octets(), keepalive),
                other => panic!("{other:?} came before what the peer had said"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let event = poll_fn(|cx| connection.poll_event(4096, cx)).await;
        assert!(matches!(event, ConnectionEvent::Frame(_)), "not {event:?}");
    }

    #[test]
    fn a_kernel_error_is_told_in_words_without_its_number() {
        assert_eq!(describe(&io::Error::from_raw_os_error(libc::ECONNREFUSED)), "Connection refused");
        assert_eq!(describe(&io::Error::other("there is no interface eth7")), "there is no interface eth7");
    }
}
