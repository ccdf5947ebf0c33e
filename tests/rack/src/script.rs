//! A BGP peer whose every octet the test decides: it dials from an address of its own, and tells what it hears. It knows
//! no more of BGP than the header, an OPEN and a NOTIFICATION's codes, and shares no code with crier.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::wait::Deadline;

const MARKER: [u8; 16] = [0xff; 16];
const HEADER_LEN: usize = 19;

pub const OPEN: u8 = 1;
pub const UPDATE: u8 = 2;
pub const NOTIFICATION: u8 = 3;
pub const KEEPALIVE: u8 = 4;
pub const ROUTE_REFRESH: u8 = 5;

/// One connection.
#[derive(Debug)]
pub struct Script {
    stream: TcpStream,
    inbox: Vec<u8>,
}

/// What a [`Script`] hears.
#[derive(Clone, PartialEq, Eq)]
pub enum Heard {
    Message {
        kind: u8,
        body: Vec<u8>,
    },
    /// The other end has closed or reset the connection.
    Closed,
    /// Nothing came in time.
    Silence,
}

impl Script {
    /// Dials from inside the calling thread's namespace: see [`Namespace::run`](crate::Namespace::run).
    pub fn dial(from: IpAddr, to: SocketAddr, within: Duration) -> io::Result<Script> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
        socket.connect_timeout(&SockAddr::from(to), within)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Script { stream: socket.into(), inbox: Vec::new() })
    }

    /// Any octets. A peer that has closed already is noticed by hearing it.
    pub fn say(&mut self, octets: &[u8]) {
        let _ = self.stream.write_all(octets);
    }

    /// The next message, at most `within` from now.
    pub fn hear(&mut self, within: Duration) -> Heard {
        let deadline = Deadline::after(within);
        loop {
            if let Some((kind, body)) = self.take_message() {
                return Heard::Message { kind, body };
            }
            // The kernel takes no time-out of zero.
            let left = deadline.left().max(Duration::from_millis(1));
            let mut buffer = [0; 65536];
            match self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut buffer)) {
                Ok(0) => return Heard::Closed,
                Ok(len) => self.inbox.extend_from_slice(&buffer[..len]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Heard::Silence;
                }
                Err(_) => return Heard::Closed,
            }
        }
    }

    fn take_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let header = self.inbox.first_chunk::<HEADER_LEN>()?;
        assert!(header.starts_with(&MARKER), "a peer that sends other markers speaks no BGP: {header:02x?}");
        let (len, kind) = (usize::from(u16::from_be_bytes([header[16], header[17]])), header[18]);
        assert!(len >= HEADER_LEN, "a message is as long as its header at least, not {len}");
        let body = self.inbox.get(HEADER_LEN..len)?.to_vec();
        self.inbox.drain(..len);
        Some((kind, body))
    }
}

/// Header and body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(HEADER_LEN + body.len()).expect("a message is not longer than its length can say");
    [&MARKER[..], &len.to_be_bytes(), &[kind], body].concat()
}

/// An OPEN of version 4. `capabilities` are whole, each with its code and length, and stand in one parameter.
pub fn open(asn: u16, hold_time: u16, identifier: [u8; 4], capabilities: &[u8]) -> Vec<u8> {
    let len = u8::try_from(capabilities.len()).expect("short capabilities");
    let parameters = [&[2, len], capabilities].concat();
    let parameters_len = u8::try_from(parameters.len()).expect("short capabilities");
    let fixed = [&[4], &asn.to_be_bytes()[..], &hold_time.to_be_bytes(), &identifier, &[parameters_len]].concat();
    message(OPEN, &[fixed, parameters].concat())
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Heard::Closed => f.write_str("closed"),
            Heard::Silence => f.write_str("silence"),
            Heard::Message { kind: NOTIFICATION, body } => {
                write!(f, "NOTIFICATION {}/{}", body.first().unwrap_or(&0), body.get(1).unwrap_or(&0))
            }
            Heard::Message { kind, body } => write!(f, "type {kind} {body:02x?}"),
        }
    }
}
