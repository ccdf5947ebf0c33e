//! The other end of a session in the dump bench: a bare socket that counts what it is told and holds nothing.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use rack::rest;

use super::{PEER_ASN, SPEAKER, clock};

/// Much more than a dump's bandwidth times its delay, so that the sink is in nobody's way.
const RECEIVE_BUFFER: usize = 8 << 20;
/// For how long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);

const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;

/// A session that is established but for our KEEPALIVE.
#[derive(Debug)]
pub struct Sink {
    stream: std::net::TcpStream,
    read: Vec<u8>,
    from: usize,
}

/// What came, with times on the clock of [`clock`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Dump {
    /// Our KEEPALIVE was sent: the speaker is established when it has read it.
    pub established: Duration,
    pub first: Duration,
    /// So many routes were there that less than one of a hundred was missing.
    pub nearly_all: Duration,
    /// `None` where the end was not waited for.
    pub last: Option<Duration>,
    pub end_of_rib: Option<Duration>,
    pub updates: usize,
    pub octets: usize,
}

impl Sink {
    /// Dials the speaker from `source` and goes as far as its OPEN and KEEPALIVE. Call it inside the receiver's namespace.
    /// `extended` offers extended messages.
    pub fn dial(source: Ipv4Addr, asn: u16, extended: bool) -> io::Result<Sink> {
        let socket = socket(source)?;
        let mut sink = Sink { stream: socket, read: Vec::new(), from: 0 };
        sink.stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        sink.stream.set_nodelay(true)?;
        sink.stream.write_all(&open(source, asn, extended))?;
        sink.expect(OPEN)?;
        // A speaker answers our OPEN with its KEEPALIVE; ours must wait, so it is only looked for later.
        Ok(sink)
    }

    /// Says the KEEPALIVE that establishes the session.
    pub fn establish(&mut self) -> io::Result<Duration> {
        let at = clock();
        self.stream.write_all(&message(KEEPALIVE, &[]))?;
        self.stream.set_read_timeout(Some(SILENCE))?;
        Ok(at)
    }

    pub fn writer(&self) -> io::Result<std::net::TcpStream> {
        self.stream.try_clone()
    }

    /// Waits for all others, establishes the session, and takes the dump of `count` routes, or but 99 % of it.
    pub fn take_dump(&mut self, count: usize, to_the_end: bool, together: &Barrier) -> io::Result<Dump> {
        together.wait();
        let mut dump = Dump { established: self.establish()?, ..Dump::default() };
        let mut prefixes = 0;
        while prefixes < count {
            if !to_the_end && !dump.nearly_all.is_zero() {
                return Ok(dump);
            }
            let (kind, body, len) = self.next()?;
            match kind {
                UPDATE => {
                    let announced = announced(&body);
                    dump.updates += usize::from(announced > 0);
                    dump.octets += if announced > 0 { len } else { 0 };
                    if prefixes == 0 && announced > 0 {
                        dump.first = clock();
                    }
                    prefixes += announced;
                    if dump.nearly_all.is_zero() && prefixes * 100 >= count * 99 {
                        dump.nearly_all = clock();
                    }
                    if announced == 0 {
                        dump.end_of_rib = Some(clock());
                    }
                }
                KEEPALIVE => {}
                kind => return Err(io::Error::other(format!("message {kind} within a dump: {body:02x?}"))),
            }
        }
        dump.last = Some(clock());
        self.stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        while dump.end_of_rib.is_none() {
            match self.next() {
                Ok((UPDATE, body, _)) if announced(&body) == 0 => dump.end_of_rib = Some(clock()),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(dump)
    }

    /// Waits for the next UPDATE, and says when it came.
    pub fn next_update(&mut self) -> io::Result<Duration> {
        self.stream.set_read_timeout(Some(SILENCE))?;
        loop {
            let (kind, body, _) = self.next()?;
            let at = clock();
            if kind == UPDATE && announced(&body) > 0 {
                return Ok(at);
            }
        }
    }

    /// Ends the session with Cease, so that the speaker is ready for the next at once.
    pub fn close(mut self) {
        let _ = self.stream.write_all(&message(NOTIFICATION, &[6, 4]));
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn expect(&mut self, wanted: u8) -> io::Result<()> {
        let (kind, body, _) = self.next()?;
        if kind == wanted {
            Ok(())
        } else {
            Err(io::Error::other(format!("message {kind} instead of {wanted}: {body:02x?}")))
        }
    }

    /// The next message: its type, its body, and its length with the header.
    fn next(&mut self) -> io::Result<(u8, Vec<u8>, usize)> {
        loop {
            let waiting = &self.read[self.from..];
            if waiting.len() >= 19 {
                let len = usize::from(u16::from_be_bytes([waiting[16], waiting[17]]));
                if waiting.len() >= len {
                    let found = (waiting[18], waiting[19..len].to_vec(), len);
                    self.from += len;
                    return Ok(found);
                }
            }
            self.read.drain(..self.from);
            self.from = 0;
            let have = self.read.len();
            self.read.resize(have + (256 << 10), 0);
            let count = self.stream.read(&mut self.read[have..]);
            self.read.truncate(have + count.as_ref().map_or(0, |count| *count));
            if count? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the speaker closed the session"));
            }
        }
    }
}

fn socket(source: Ipv4Addr) -> io::Result<std::net::TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(source, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(SPEAKER, 179)))?;
    Ok(socket.into())
}

/// Prefixes in the NLRI field; all routes of the bench have 32 bits.
fn announced(body: &[u8]) -> usize {
    let field = |at: usize| body.get(at..at + 2).map_or(0, |two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    let withdrawn = field(0);
    let attributes = field(2 + withdrawn);
    body.len().saturating_sub(4 + withdrawn + attributes) / 5
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut octets = vec![0xff; 16];
    let len = u16::try_from(19 + body.len()).expect("a short message");
    octets.extend(len.to_be_bytes());
    octets.push(kind);
    octets.extend(body);
    octets
}

/// IPv4 unicast and four-octet AS numbers, and perhaps extended messages; a hold time that no dump reaches.
fn open(identifier: Ipv4Addr, asn: u16, extended: bool) -> Vec<u8> {
    let mut body = vec![4];
    body.extend(asn.to_be_bytes());
    body.extend(3600_u16.to_be_bytes());
    body.extend(identifier.octets());
    let [high, low] = asn.to_be_bytes();
    let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4, 0, 0, high, low];
    if extended {
        capabilities.extend([6, 0]);
    }
    let len = u8::try_from(capabilities.len()).expect("a few capabilities");
    body.extend([len + 2, 2, len]);
    body.extend(capabilities);
    message(OPEN, &body)
}

/// Announces routes to the speaker for as long as this process lives: how GoBGP gets its table, for which its own tools take
/// minutes. What is written to the answer must be whole messages.
pub fn feed(source: Ipv4Addr, asn: u16, updates: &[Vec<u8>]) -> io::Result<std::net::TcpStream> {
    let mut sink = Sink::dial(source, asn, false)?;
    sink.establish()?;
    let mut writer = sink.writer()?;
    std::thread::spawn(move || {
        while let Ok(message) = sink.next() {
            if message.0 == NOTIFICATION {
                eprintln!("the feeder was told {:02x?}", message.1);
            }
        }
    });
    for update in updates {
        writer.write_all(update)?;
    }
    let more = writer.try_clone()?;
    std::thread::spawn(move || {
        while writer.write_all(&message(KEEPALIVE, &[])).is_ok() {
            rest(Duration::from_secs(10));
        }
    });
    Ok(more)
}

/// The AS of the bare receivers.
pub fn own_asn() -> u16 {
    u16::try_from(PEER_ASN).expect("two octets")
}
