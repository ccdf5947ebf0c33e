//! ROUTE-REFRESH: a request for all routes of a family (RFC 2918), and the marks around the answer (RFC 7313). Floor 1.

use std::fmt;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::number::complete::{be_u8, be_u16};

use super::header::{self, HEADER_LEN, HeaderFault};
use super::{AfiSafi, Dialect, MessageKind, Notification, NotificationReason, RouteRefreshError, length16};

/// RFC 2918 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    pub family: AfiSafi,
    pub kind: RefreshKind,
}

/// The message subtype of RFC 7313 §3.2. Subtypes without a name survive as `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshKind {
    /// A request for all routes.
    Request,
    /// All routes follow.
    Begin,
    /// All routes were sent: a route that was not announced since the beginning is gone.
    End,
    Unknown(u8),
}

/// Why octets are not a valid ROUTE-REFRESH. The session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshFault {
    #[error(transparent)]
    Header(#[from] HeaderFault),
    #[error("a {refresh} of {len} octets; it must have four after the header (RFC 7313 §5)", len = octets.len())]
    MarkerLength {
        refresh: RouteRefresh,
        /// The whole message.
        octets: Vec<u8>,
    },
}

impl RefreshFault {
    /// Never `None`: only a NOTIFICATION has no answer.
    pub fn notification(&self) -> Option<Notification> {
        match self {
            RefreshFault::Header(fault) => fault.notification(),
            // RFC 7313 §5: "the Data field of the NOTIFICATION message MUST contain the complete ROUTE-REFRESH message."
            RefreshFault::MarkerLength { refresh: _, octets } => Some(Notification {
                reason: NotificationReason::RouteRefresh(RouteRefreshError::InvalidMessageLength),
                data: octets.clone(),
            }),
        }
    }
}

impl RefreshKind {
    fn code(self) -> u8 {
        match self {
            RefreshKind::Request => 0,
            RefreshKind::Begin => 1,
            RefreshKind::End => 2,
            RefreshKind::Unknown(code) => code,
        }
    }

    fn from_code(code: u8) -> RefreshKind {
        let known = [RefreshKind::Request, RefreshKind::Begin, RefreshKind::End];
        known.into_iter().find(|kind| kind.code() == code).unwrap_or(RefreshKind::Unknown(code))
    }
}

impl RouteRefresh {
    const LEN: usize = 4;

    /// Octets after the first four of a request belong to filters, which crier never negotiates; they are not read.
    pub fn parse(body: &[u8], dialect: &Dialect) -> Result<RouteRefresh, RefreshFault> {
        let length = length16(HEADER_LEN + body.len());
        let Ok((rest, (afi, kind, safi))) = (be_u16::<_, ()>, be_u8, be_u8).parse(body) else {
            return Err(HeaderFault::Length { type_code: MessageKind::RouteRefresh.code(), length }.into());
        };
        let refresh = RouteRefresh { family: AfiSafi { afi, safi }, kind: RefreshKind::from_code(kind) };
        match refresh.kind {
            // RFC 7313 §5: checked only if the peer offers enhanced route refresh, and only for its two subtypes.
            RefreshKind::Begin | RefreshKind::End if dialect.enhanced_refresh && !rest.is_empty() => {
                let mut octets = BytesMut::new();
                header::emit(MessageKind::RouteRefresh, length, &mut octets);
                octets.put_slice(body);
                Err(RefreshFault::MarkerLength { refresh, octets: octets.into() })
            }
            RefreshKind::Request | RefreshKind::Begin | RefreshKind::End | RefreshKind::Unknown(_) => Ok(refresh),
        }
    }

    pub fn emitted_len(&self) -> usize {
        RouteRefresh::LEN
    }

    pub fn emit(&self, out: &mut BytesMut) {
        let RouteRefresh { family, kind } = *self;
        out.put_u16(family.afi);
        out.put_u8(kind.code());
        out.put_u8(family.safi);
    }
}

impl fmt::Display for RouteRefresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ROUTE-REFRESH {}", self.family)?;
        match self.kind {
            RefreshKind::Request => Ok(()),
            RefreshKind::Begin => f.write_str(" begins"),
            RefreshKind::End => f.write_str(" ends"),
            RefreshKind::Unknown(code) => write!(f, " subtype {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::wire::{MAX_MESSAGE_LEN, Message, Parsed, WireError};

    fn enhanced() -> Dialect {
        Dialect { enhanced_refresh: true, ..Dialect::BEFORE_OPEN }
    }

    #[test]
    fn every_subtype_reads_back_what_it_writes() {
        for code in 0..=255 {
            let refresh = RouteRefresh { family: AfiSafi::IPV6_UNICAST, kind: RefreshKind::from_code(code) };
            assert_eq!(refresh.kind.code(), code);
            let mut octets = BytesMut::new();
            Message::RouteRefresh(refresh).emit(&enhanced(), &mut octets).expect("it fits");
            assert_eq!(Message::parse(&octets, &enhanced()), Ok(Parsed::RouteRefresh(refresh)));
        }
    }

    #[test]
    fn a_marker_of_another_length_is_sent_back_whole_where_markers_were_negotiated() {
        for (kind, len, refused) in [(0, 5, false), (1, 4, false), (1, 5, true), (2, 4000, true), (3, 9, false)] {
            let mut body = vec![0, 1, kind, 1];
            body.resize(len, 0);
            let mut octets = BytesMut::new();
            header::emit(MessageKind::RouteRefresh, length16(HEADER_LEN + len), &mut octets);
            octets.put_slice(&body);
            assert!(Message::parse(&octets, &Dialect::BEFORE_OPEN).is_ok(), "subtype {kind}, {len} octets: RFC 2918");
            match Message::parse(&octets, &enhanced()) {
                Ok(_) => assert!(!refused, "subtype {kind}, {len} octets"),
                Err(error) => {
                    assert!(refused && matches!(error, WireError::Refresh(_)), "subtype {kind}, {len} octets: {error}");
                    let answer = error.notification().expect("RFC 7313 §5");
                    assert_eq!((answer.reason.code(), answer.reason.subcode()), (7, 1));
                    assert_eq!(answer.data, octets);
                    assert!(answer.emitted_len(MAX_MESSAGE_LEN) + HEADER_LEN <= MAX_MESSAGE_LEN);
                }
            }
        }
    }
}
