//! The 19 octets before every message, and cutting a stream into messages (RFC 4271 §4.1, RFC 8654). Floor 1.
//! Not for the content of the messages.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use nom::Parser;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u16};

use super::{HeaderError, Notification, NotificationReason};

/// Octets of the marker, the length and the type.
pub const HEADER_LEN: usize = 19;
/// RFC 4271 §4.1: the longest message without RFC 8654, in octets.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// RFC 8654 §2: the longest message with it, in octets.
pub const MAX_EXTENDED_MESSAGE_LEN: usize = 65535;

const MARKER_LEN: usize = 16;

/// RFC 4271 §4.1, RFC 2918 §3: the type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    Open,
    Update,
    Notification,
    Keepalive,
    RouteRefresh,
}

impl MessageKind {
    pub const ALL: [MessageKind; 5] = [
        MessageKind::Open,
        MessageKind::Update,
        MessageKind::Notification,
        MessageKind::Keepalive,
        MessageKind::RouteRefresh,
    ];

    pub fn code(self) -> u8 {
        match self {
            MessageKind::Open => 1,
            MessageKind::Update => 2,
            MessageKind::Notification => 3,
            MessageKind::Keepalive => 4,
            MessageKind::RouteRefresh => 5,
        }
    }

    pub fn from_code(code: u8) -> Option<MessageKind> {
        MessageKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// RFC 4271 §6.1, RFC 2918 §3: the shortest message of this type, in octets, header included.
    pub fn min_len(self) -> usize {
        match self {
            MessageKind::Open => 29,
            MessageKind::Update => 23,
            MessageKind::Notification => 21,
            MessageKind::Keepalive => HEADER_LEN,
            // Longer ones carry filters (RFC 5291) after these octets; filters are never negotiated and not read.
            MessageKind::RouteRefresh => 23,
        }
    }

    /// The longest message of this type in a session that carries `negotiated` octets.
    pub fn max_len(self, negotiated: usize) -> usize {
        match self {
            // RFC 8654 §2: OPEN and KEEPALIVE keep the old limit.
            MessageKind::Open => negotiated.min(MAX_MESSAGE_LEN),
            MessageKind::Keepalive => HEADER_LEN,
            MessageKind::Update | MessageKind::Notification | MessageKind::RouteRefresh => {
                negotiated.min(MAX_EXTENDED_MESSAGE_LEN)
            }
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            MessageKind::Open => "OPEN",
            MessageKind::Update => "UPDATE",
            MessageKind::Notification => "NOTIFICATION",
            MessageKind::Keepalive => "KEEPALIVE",
            MessageKind::RouteRefresh => "ROUTE-REFRESH",
        })
    }
}

/// What is wrong with the first 19 octets of a message. The rest of the stream cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    #[error(
        "the marker of a message is {marker:02x?} and not all ones: the stream is not BGP, or message boundaries were lost"
    )]
    NotSynchronized { marker: [u8; 16] },
    #[error(
        "a message of type {type_code} claims a length of {length} octets, which is not valid for that type in this session"
    )]
    Length { type_code: u8, length: u16 },
    #[error("unknown message type {0}")]
    Type(u8),
}

impl HeaderFault {
    /// `None` for a NOTIFICATION of a bad length.
    pub fn notification(&self) -> Option<Notification> {
        let (error, data) = match self {
            HeaderFault::NotSynchronized { .. } => (HeaderError::ConnectionNotSynchronized, Vec::new()),
            // RFC 4271 §6.4: an error in a NOTIFICATION is never answered with one.
            HeaderFault::Length { type_code, .. } if *type_code == MessageKind::Notification.code() => return None,
            // RFC 4271 §6.1: "The Data field MUST contain the erroneous Length field."
            HeaderFault::Length { length, .. } => (HeaderError::BadMessageLength, length.to_be_bytes().to_vec()),
            HeaderFault::Type(code) => (HeaderError::BadMessageType, vec![*code]),
        };
        Some(Notification { reason: NotificationReason::Header(error), data })
    }
}

/// One whole message whose header is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    kind: MessageKind,
    octets: Bytes,
}

impl Frame {
    /// Takes the first message off `stream`; `None` if the message is not complete yet, and `stream` is unchanged.
    ///
    /// Judges the header as soon as its 19 octets have come, so a stream that is drained of frames after every read never
    /// holds more than `max_message_len` octets and one read. The outcome does not depend on how the octets were split
    /// into reads. After an error the stream must not be read again.
    pub fn parse(stream: &mut BytesMut, max_message_len: usize) -> Result<Option<Frame>, super::WireError> {
        let Some(header) = stream.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let (kind, len) = judge(header, max_message_len)?;
        if stream.len() < len {
            return Ok(None);
        }
        Ok(Some(Frame { kind, octets: stream.split_to(len).freeze() }))
    }

    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The whole message, header included.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
}

/// The type and the body of `octets`, which must be exactly one message.
pub(super) fn split(octets: &[u8], max_message_len: usize) -> Result<(MessageKind, &[u8]), HeaderFault> {
    let length_fault = |type_code| HeaderFault::Length { type_code, length: super::length16(octets.len()) };
    let Some((header, body)) = octets.split_first_chunk::<HEADER_LEN>() else {
        return Err(length_fault(0));
    };
    let (kind, len) = judge(header, max_message_len)?;
    if len == octets.len() { Ok((kind, body)) } else { Err(length_fault(kind.code())) }
}

pub(super) fn emit(kind: MessageKind, length: u16, out: &mut BytesMut) {
    out.put_bytes(0xff, MARKER_LEN);
    out.put_u16(length);
    out.put_u8(kind.code());
}

/// RFC 4271 §6.1, in the order of that section.
fn judge(header: &[u8; HEADER_LEN], max_message_len: usize) -> Result<(MessageKind, usize), HeaderFault> {
    let mut fields = (take::<_, _, ()>(MARKER_LEN), be_u16, be_u8);
    // The array is as long as the three fields together, so all of them are present.
    let Ok((_, (marker, length, type_code))) = fields.parse(header.as_slice()) else {
        return Err(HeaderFault::Length { type_code: 0, length: 0 });
    };
    if marker.iter().any(|octet| *octet != 0xff) {
        let mut copy = [0; MARKER_LEN];
        copy.copy_from_slice(marker);
        return Err(HeaderFault::NotSynchronized { marker: copy });
    }
    let len = usize::from(length);
    let length_fault = Err(HeaderFault::Length { type_code, length });
    if len < HEADER_LEN || len > max_message_len.min(MAX_EXTENDED_MESSAGE_LEN) {
        return length_fault;
    }
    let kind = MessageKind::from_code(type_code).ok_or(HeaderFault::Type(type_code))?;
    if len < kind.min_len() || len > kind.max_len(max_message_len) {
        return length_fault;
    }
    Ok((kind, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u16, type_code: u8) -> BytesMut {
        let mut octets = BytesMut::from([0xff; 16].as_slice());
        octets.put_u16(length);
        octets.put_u8(type_code);
        octets
    }

    fn answer(stream: &mut BytesMut) -> Option<Notification> {
        Frame::parse(stream, MAX_MESSAGE_LEN).expect_err("the header is bad").notification()
    }

    #[test]
    fn a_header_is_judged_before_the_body_arrives() {
        let answer = answer(&mut header(4097, 2)).expect("an UPDATE may be answered");
        assert_eq!(answer.reason, NotificationReason::Header(HeaderError::BadMessageLength));
        assert_eq!(answer.data, [0x10, 0x01]);
        assert_eq!(Frame::parse(&mut header(4096, 2), MAX_MESSAGE_LEN), Ok(None), "a good one is waited for");
    }

    #[test]
    fn every_type_has_its_shortest_length() {
        for kind in MessageKind::ALL {
            let shortest = u16::try_from(kind.min_len()).unwrap();
            assert!(Frame::parse(&mut header(shortest - 1, kind.code()), MAX_MESSAGE_LEN).is_err(), "{kind} too short");
            assert!(Frame::parse(&mut header(shortest, kind.code()), MAX_MESSAGE_LEN).is_ok(), "{kind} long enough");
        }
    }

    #[test]
    fn a_keepalive_is_nineteen_octets_whatever_was_negotiated() {
        assert!(Frame::parse(&mut header(20, 4), MAX_EXTENDED_MESSAGE_LEN).is_err());
    }

    #[test]
    fn an_extended_message_needs_the_agreement_and_open_never_is_one() {
        assert!(Frame::parse(&mut header(65535, 2), MAX_MESSAGE_LEN).is_err());
        assert_eq!(Frame::parse(&mut header(65535, 2), MAX_EXTENDED_MESSAGE_LEN), Ok(None));
        assert!(Frame::parse(&mut header(4097, 1), MAX_EXTENDED_MESSAGE_LEN).is_err());
    }

    #[test]
    fn a_marker_that_is_not_all_ones_is_not_synchronized() {
        let mut stream = header(19, 4);
        stream[15] = 0xfe;
        let answer = answer(&mut stream).expect("it may be answered");
        assert_eq!(answer.reason, NotificationReason::Header(HeaderError::ConnectionNotSynchronized));
    }

    #[test]
    fn an_unknown_type_is_told_back() {
        for code in [0, 6, 255] {
            let answer = answer(&mut header(19, code)).expect("it may be answered");
            assert_eq!(answer.reason, NotificationReason::Header(HeaderError::BadMessageType));
            assert_eq!(answer.data, [code]);
        }
    }

    #[test]
    fn a_bad_notification_is_never_answered() {
        assert_eq!(answer(&mut header(20, 3)), None);
        assert_eq!(answer(&mut header(5000, 3)), None);
    }

    #[test]
    fn frames_do_not_depend_on_how_the_stream_is_split() {
        let mut whole = header(19, 4);
        whole.extend_from_slice(&header(21, 3));
        whole.extend_from_slice(&[6, 2]);
        whole.extend_from_slice(&header(19, 4));
        for size in 1..=whole.len() {
            let mut stream = BytesMut::new();
            let mut kinds = Vec::new();
            for read in whole.chunks(size) {
                stream.extend_from_slice(read);
                while let Some(frame) = Frame::parse(&mut stream, MAX_MESSAGE_LEN).expect("all headers are good") {
                    kinds.push(frame.kind());
                }
            }
            assert_eq!(kinds, [MessageKind::Keepalive, MessageKind::Notification, MessageKind::Keepalive]);
            assert!(stream.is_empty(), "reads of {size} octets left some over");
        }
    }
}
