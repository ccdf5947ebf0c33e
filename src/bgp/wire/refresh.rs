//! ROUTE-REFRESH: the peer wants a family again (RFC 2918, RFC 7313). Floor 1.

use std::fmt;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::number::complete::{be_u8, be_u16};

use super::header::{HEADER_LEN, HeaderFault};
use super::{AfiSafi, MessageKind, length16};

/// RFC 2918 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRefresh {
    pub family: AfiSafi,
    /// RFC 7313; 0 for a plain request.
    pub subtype: u8,
}

impl RouteRefresh {
    const LEN: usize = 4;

    /// Octets behind the first four belong to filters that crier never negotiates; they are not read.
    pub fn parse(body: &[u8]) -> Result<RouteRefresh, HeaderFault> {
        match (be_u16::<_, ()>, be_u8, be_u8).parse(body) {
            Ok((_, (afi, subtype, safi))) => Ok(RouteRefresh { family: AfiSafi { afi, safi }, subtype }),
            Err(_) => Err(HeaderFault::Length {
                type_code: MessageKind::RouteRefresh.code(),
                length: length16(HEADER_LEN + body.len()),
            }),
        }
    }

    pub fn emitted_len(&self) -> usize {
        RouteRefresh::LEN
    }

    pub fn emit(&self, out: &mut BytesMut) {
        let RouteRefresh { family, subtype } = *self;
        out.put_u16(family.afi);
        out.put_u8(subtype);
        out.put_u8(family.safi);
    }
}

impl fmt::Display for RouteRefresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ROUTE-REFRESH {}", self.family)?;
        match self.subtype {
            0 => Ok(()),
            // RFC 7313 §3.2
            1 => f.write_str(" begins"),
            2 => f.write_str(" ends"),
            subtype => write!(f, " subtype {subtype}"),
        }
    }
}
