//! A session that goes from one agent to the next: its socket, with what is written down of it. Floor 2.
//! Not for where the two lie meanwhile: that is the agent's. Whatever comes back is checked, for it may be anything.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::TcpStream;

use super::{Connection, Protection, Remains, describe};
use crate::bgp::kept::{KeptFault, KeptSession, Signature};
use crate::bgp::ledger::Uncertain;
use crate::bgp::machine::negotiation::Negotiated;
use crate::bgp::wire::{Cease, Dialect, HEADER_LEN, Message, MessageKind, Notification, NotificationReason};

/// An established session whose agent has gone, or is about to.
#[derive(Debug)]
pub struct KeptConnection {
    pub state: KeptSession,
    pub socket: OwnedFd,
    /// Its agent died without a word, and the state is what its ledger says.
    pub after_crash: bool,
    /// BFD with the peer stood, and does not go on: the peer has noticed, whatever becomes of the connection.
    pub bfd_ended: bool,
}

/// Why a session cannot be taken over. Its socket is closed.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    #[error("what was written down of it is not usable: {0}")]
    State(#[from] KeptFault),
    #[error("the file descriptor that should be its connection is no TCP socket")]
    NoTcp,
    #[error("its connection has ended meanwhile: {0}")]
    Ended(String),
    #[error("the peer has ended it: {0}")]
    EndedByPeer(Notification),
    #[error("its connection is between {there:?}, and the session that was written down is between {written:?}")]
    Ends { there: Box<(SocketAddr, SocketAddr)>, written: Box<(SocketAddr, SocketAddr)> },
    #[error(transparent)]
    Uncertain(#[from] Uncertain),
    #[error("its ledger cannot be read: {0}")]
    Unreadable(String),
    #[error("the agent died within {0} s of taking it over from one that had died too")]
    Suspect(u64),
}

impl KeptError {
    /// Whether the peer goes on by our routes until the new session.
    pub fn keeps_routes(&self, negotiated: &Negotiated) -> bool {
        match self {
            // RFC 4724 §4.2, RFC 8538 §4: a session that ends by a NOTIFICATION is restarted only where both sides say so, and a Hard
            // Reset never is.
            KeptError::EndedByPeer(Notification { reason, data: _ }) => {
                let is_hard = *reason == NotificationReason::Cease(Cease::HardReset);
                negotiated.graceful_restart && negotiated.hard_reset && !is_hard
            }
            KeptError::State(_)
            | KeptError::NoTcp
            | KeptError::Ended(_)
            | KeptError::Ends { .. }
            | KeptError::Uncertain(_)
            | KeptError::Unreadable(_)
            | KeptError::Suspect(_) => negotiated.graceful_restart,
        }
    }

    /// The same error of a connection that goes no further, with what the peer has said last, where that waits to be read.
    pub(super) fn with_last_word(self, socket: &OwnedFd) -> KeptError {
        match (&self, last_word(socket)) {
            (KeptError::Ended(_), Some(notification)) => KeptError::EndedByPeer(notification),
            (_, _) => self,
        }
    }
}

/// A NOTIFICATION is the last that a peer sends. What is read before it may begin within a message.
fn last_word(socket: &OwnedFd) -> Option<Notification> {
    let stream = std::net::TcpStream::from(socket.try_clone().ok()?);
    stream.set_nonblocking(true).ok()?;
    let mut octets = Vec::new();
    // An error ends it as the end of the stream does.
    let _ = stream.take(MOST_LEFT).read_to_end(&mut octets);
    let notification = |at: usize| {
        let message = octets.get(at..)?;
        let (header, body) = message.split_at_checked(HEADER_LEN)?;
        let (marker, rest) = header.split_at_checked(16)?;
        let is_whole = marker.iter().all(|octet| *octet == 0xff)
            && rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))) == Some(message.len())
            && rest.last() == Some(&MessageKind::Notification.code());
        if is_whole { Notification::parse(body).ok() } else { None }
    };
    (0..octets.len()).rev().find_map(notification)
}

/// More than the kernel keeps for whoever reads, as a rule.
const MOST_LEFT: u64 = 1 << 20;

impl KeptConnection {
    /// A session as an agent left it: the text, and the socket.
    pub fn open(text: &[u8], socket: OwnedFd) -> Result<KeptConnection, KeptError> {
        let state = KeptSession::parse(text)?;
        KeptConnection::check(&state, &socket)?;
        Ok(KeptConnection { state, socket, after_crash: false, bfd_ended: false })
    }

    /// Whether this is the socket of that session, and connected.
    pub(super) fn check(state: &KeptSession, socket: &OwnedFd) -> Result<(), KeptError> {
        let ends = {
            let socket = SockRef::from(socket);
            let is = |domain: Domain| domain == Domain::IPV4 || domain == Domain::IPV6;
            let tcp = socket.r#type().ok() == Some(Type::STREAM)
                && socket.domain().is_ok_and(is)
                && socket.protocol().ok().flatten() == Some(Protocol::TCP);
            if !tcp {
                return Err(KeptError::NoTcp);
            }
            let end = |address: io::Result<socket2::SockAddr>| -> Result<SocketAddr, KeptError> {
                let address = address.map_err(|error| KeptError::Ended(describe(&error)))?;
                address.as_socket().ok_or(KeptError::NoTcp)
            };
            (end(socket.local_addr())?, end(socket.peer_addr())?)
        };
        let written = (state.local, state.remote);
        if ends != written {
            return Err(KeptError::Ends { there: Box::new(ends), written: Box::new(written) });
        }
        Ok(())
    }

    /// Ends the session although a new one follows soon: the peer is told, unless it would drop our routes for that.
    pub async fn begin_anew(self, why: &str) {
        let Negotiated { graceful_restart, hard_reset, .. } = self.state.negotiated;
        // RFC 4724 §4.2: without RFC 8538, only a connection that ends without a NOTIFICATION has the peer keep them.
        if !graceful_restart || hard_reset {
            self.end(Notification::administrative_reset(why)).await;
        }
    }

    /// Ends the session with this NOTIFICATION, within [`super::FAREWELL_TIME`].
    pub async fn end(self, last_word: Notification) {
        let last_word = self.state.negotiated.last_word(last_word);
        let mut octets = BytesMut::new();
        let emitted = Message::Notification(last_word).emit(&Dialect::BEFORE_OPEN, &mut octets);
        if let (Ok(()), Ok((_, connection))) = (emitted, self.resume()) {
            connection.say_farewell(octets.freeze()).await;
        }
    }

    /// The connection, ready to be read and written where it was left.
    pub(in crate::bgp) fn resume(self) -> io::Result<(KeptSession, Connection)> {
        let KeptConnection { mut state, socket, after_crash: _, bfd_ended: _ } = self;
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true)?;
        let unwritten = std::mem::take(&mut state.unwritten);
        let connection = Connection::resumed(TcpStream::from_std(stream)?, &state.unread, unwritten);
        state.unread = Vec::new();
        Ok((state, connection))
    }
}

impl Connection {
    /// Takes the socket out, and writes into `state` what is left beside it. `None`: the connection cannot go on.
    pub(in crate::bgp) fn keep(self, mut state: KeptSession) -> Option<KeptConnection> {
        let Remains { socket, unread, unwritten } = self.take_apart().ok().flatten()?;
        (state.unread, state.unwritten) = (unread, unwritten);
        Some(KeptConnection { state, socket, after_crash: false, bfd_ended: false })
    }
}

impl From<&Protection> for Signature {
    fn from(protection: &Protection) -> Signature {
        match protection {
            Protection::None => Signature::None,
            Protection::Md5(_) => Signature::Md5,
            Protection::Ao(_) => Signature::Ao,
        }
    }
}
