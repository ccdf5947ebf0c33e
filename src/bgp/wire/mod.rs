//! BGP messages as values and as bytes (RFC 4271, RFC 4760, RFC 5492, RFC 6793, RFC 7606).
//! Floor 1. Every type has `parse`, `emit`, `emitted_len` and `Display`; nothing else in crier touches BGP bytes.
//!
//! How to use it, in order:
//!
//! ```text
//! Frame::parse(&mut BytesMut, max_message_len) -> Result<Option<Frame>, WireError>   one whole message off the stream
//! Message::parse(frame.octets(), &Dialect)     -> Result<Parsed, WireError>          what it says
//! WireError::notification()                    -> Option<Notification>               what to answer; None: only close
//! Open::acceptable(&Expectation)               -> Result<u32, OpenFault>             the peer's AS number, if it may talk
//! Message::emit(&self, &Dialect, &mut BytesMut) -> Result<(), EmitError>             an error here is a bug of ours
//! Negotiated::dialect()                        -> Dialect                            before one exists: Dialect::BEFORE_OPEN
//! ```
//!
//! The session decides whether a message may come in its state: it reads [`Frame::kind`] before the body is parsed, so an
//! UPDATE in OpenSent is an FSM error whatever the UPDATE holds.

mod as_path;
mod attribute;
mod attribute_list;
mod capability;
mod dialect;
mod family;
mod header;
mod multiprotocol;
mod notification;
mod open;
mod prefix;
mod refresh;
mod treatment;
mod update;
mod update_fault;

pub use as_path::{AsPathFault, AsPathSegment};
pub use attribute::{AttributeCode, AttributeFault, Attributes, Origin, UnknownAttribute};
pub use capability::{Capability, GracefulRestart};
pub use dialect::Dialect;
pub use family::AfiSafi;
pub use header::{Frame, HEADER_LEN, HeaderFault, MAX_EXTENDED_MESSAGE_LEN, MAX_MESSAGE_LEN, MessageKind};
pub use multiprotocol::{MpReach, MpUnreach, MultiprotocolFault, NextHop};
pub use notification::{
    Cease, FsmError, HeaderError, Notification, NotificationReason, OpenError, RouteRefreshError, UpdateError,
};
pub use open::{Expectation, ExpectedAsn, Open, OpenFault};
pub use prefix::PrefixFault;
pub(super) use prefix::emitted_len as emitted_prefix_len;
pub use refresh::{RefreshFault, RefreshKind, RouteRefresh};
pub use treatment::Treatment;
pub use update::{ParsedUpdate, Update};
pub use update_fault::{Complaint, UpdateFault};

use std::fmt;

use bytes::BytesMut;

/// RFC 6793: the two-octet number that stands for a number that needs four octets.
pub const AS_TRANS: u16 = 23456;

/// One message, header excluded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a message is handed on and dropped, never kept in numbers")]
pub enum Message {
    Open(Open),
    Update(Update),
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

/// The result of [`Message::parse`]: an UPDATE comes with what was wrong in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a message is handed on and dropped, never kept in numbers")]
pub enum Parsed {
    Open(Open),
    Update(ParsedUpdate),
    Notification(Notification),
    Keepalive,
    RouteRefresh(RouteRefresh),
}

/// Why octets from a peer are not a valid message. Nothing was changed; the session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error(transparent)]
    Open(#[from] OpenFault),
    #[error(transparent)]
    Update(#[from] UpdateFault),
    #[error(transparent)]
    Refresh(#[from] RefreshFault),
}

impl WireError {
    /// What to send before closing. `None`: close without a NOTIFICATION, because the message was one itself
    /// (RFC 4271 §6.4).
    pub fn notification(&self) -> Option<Notification> {
        match self {
            WireError::Header(fault) => fault.notification(),
            WireError::Open(fault) => Some(fault.notification()),
            WireError::Update(fault) => Some(fault.notification()),
            WireError::Refresh(fault) => fault.notification(),
        }
    }
}

/// A message that cannot be written. It is a bug of the caller: nothing was written, and the session must end rather
/// than leave the message out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    #[error("{kind} would be {len} octets long, and this session carries at most {max}")]
    MessageTooLong { kind: MessageKind, len: usize, max: usize },
    #[error("capability {code} has a value of {len} octets, and its length field holds at most 255")]
    CapabilityTooLong { code: u8, len: usize },
}

impl Message {
    /// Reads one whole message, header included: `octets` as [`Frame::octets`] gives them.
    ///
    /// Never panics, whatever the octets; takes time and memory in proportion to their number.
    pub fn parse(octets: &[u8], dialect: &Dialect) -> Result<Parsed, WireError> {
        let (kind, body) = header::split(octets, dialect.max_message_len)?;
        Ok(match kind {
            MessageKind::Open => Parsed::Open(Open::parse(body)?),
            MessageKind::Update => Parsed::Update(Update::parse(body, dialect)?),
            MessageKind::Notification => Parsed::Notification(Notification::parse(body)?),
            MessageKind::Keepalive => Parsed::Keepalive,
            MessageKind::RouteRefresh => Parsed::RouteRefresh(RouteRefresh::parse(body, dialect)?),
        })
    }

    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Open(_) => MessageKind::Open,
            Message::Update(_) => MessageKind::Update,
            Message::Notification(_) => MessageKind::Notification,
            Message::Keepalive => MessageKind::Keepalive,
            Message::RouteRefresh(_) => MessageKind::RouteRefresh,
        }
    }

    /// How many octets [`Message::emit`] appends, header included.
    pub fn emitted_len(&self, dialect: &Dialect) -> usize {
        HEADER_LEN
            + match self {
                Message::Open(open) => open.emitted_len(),
                Message::Update(update) => update.emitted_len(dialect),
                Message::Notification(notification) => notification.emitted_len(dialect.max_message_len),
                Message::Keepalive => 0,
                Message::RouteRefresh(refresh) => refresh.emitted_len(),
            }
    }

    /// Appends the whole message, header included; on an error `out` is as it was.
    pub fn emit(&self, dialect: &Dialect, out: &mut BytesMut) -> Result<(), EmitError> {
        let kind = self.kind();
        let len = self.emitted_len(dialect);
        let max = kind.max_len(dialect.max_message_len);
        let length = match u16::try_from(len) {
            Ok(length) if len <= max => length,
            _ => return Err(EmitError::MessageTooLong { kind, len, max }),
        };
        if let Message::Open(open) = self {
            open.check_capabilities()?;
        }
        out.reserve(len);
        let end = out.len() + len;
        header::emit(kind, length, out);
        match self {
            Message::Open(open) => open.emit(out),
            Message::Update(update) => update.emit(dialect, out),
            Message::Notification(notification) => notification.emit(dialect.max_message_len, out),
            Message::Keepalive => {}
            Message::RouteRefresh(refresh) => refresh.emit(out),
        }
        debug_assert_eq!(out.len(), end, "emitted_len and emit of {kind} disagree");
        Ok(())
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Open(open) => open.fmt(f),
            Message::Update(update) => update.fmt(f),
            Message::Notification(notification) => write!(f, "NOTIFICATION {notification}"),
            Message::Keepalive => MessageKind::Keepalive.fmt(f),
            Message::RouteRefresh(refresh) => refresh.fmt(f),
        }
    }
}

/// A length that fits two octets, because [`Message::emit`] has compared the whole message with the limit.
fn length16(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

/// As [`length16`], for one-octet fields; the caller has split or checked longer values.
fn length8(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod round_trip;
