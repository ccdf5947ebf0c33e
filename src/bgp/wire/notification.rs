//! NOTIFICATION: why a session ends (RFC 4271 §4.5, RFC 4486, RFC 6608, RFC 7313, RFC 8538, RFC 9003, RFC 9384,
//! RFC 9687). Floor 1.

use std::fmt;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::number::complete::be_u8;

use super::header::{HEADER_LEN, HeaderFault};
use super::{MessageKind, length8, length16};

/// RFC 4271 §4.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub reason: NotificationReason,
    pub data: Vec<u8>,
}

/// Code and subcode together, so that a pair without a meaning cannot be written. Pairs from a peer that crier does not
/// know survive as `Unknown`; crier itself never makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationReason {
    Header(HeaderError),
    Open(OpenError),
    Update(UpdateError),
    HoldTimerExpired,
    Fsm(FsmError),
    Cease(Cease),
    RouteRefresh(RouteRefreshError),
    SendHoldTimerExpired,
    Unknown { code: u8, subcode: u8 },
}

/// Declares the subcodes of one code: the enum, its number, the way back, and the name that the RFC gives it.
macro_rules! subcodes {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $subcode:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($variant,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant,)*];

            pub fn subcode(self) -> u8 {
                match self {
                    $($name::$variant => $subcode,)*
                }
            }

            /// `None` for a subcode that is not assigned.
            pub fn from_subcode(subcode: u8) -> Option<$name> {
                match subcode {
                    $($subcode => Some($name::$variant),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($name::$variant => $text,)*
                })
            }
        }
    };
}

subcodes! {
    /// RFC 4271 §6.1.
    HeaderError {
        Unspecific = 0 "Unspecific",
        ConnectionNotSynchronized = 1 "Connection Not Synchronized",
        BadMessageLength = 2 "Bad Message Length",
        BadMessageType = 3 "Bad Message Type",
    }
}

subcodes! {
    /// RFC 4271 §6.2, RFC 5492 §5, RFC 9234 §4.2.
    OpenError {
        Unspecific = 0 "Unspecific",
        UnsupportedVersion = 1 "Unsupported Version Number",
        BadPeerAs = 2 "Bad Peer AS",
        BadBgpIdentifier = 3 "Bad BGP Identifier",
        UnsupportedOptionalParameter = 4 "Unsupported Optional Parameter",
        UnacceptableHoldTime = 6 "Unacceptable Hold Time",
        UnsupportedCapability = 7 "Unsupported Capability",
        RoleMismatch = 11 "Role Mismatch",
    }
}

subcodes! {
    /// RFC 4271 §6.3.
    UpdateError {
        MalformedAttributeList = 1 "Malformed Attribute List",
        UnrecognizedWellKnownAttribute = 2 "Unrecognized Well-known Attribute",
        MissingWellKnownAttribute = 3 "Missing Well-known Attribute",
        AttributeFlags = 4 "Attribute Flags Error",
        AttributeLength = 5 "Attribute Length Error",
        InvalidOrigin = 6 "Invalid ORIGIN Attribute",
        InvalidNextHop = 8 "Invalid NEXT_HOP Attribute",
        OptionalAttribute = 9 "Optional Attribute Error",
        InvalidNetworkField = 10 "Invalid Network Field",
        MalformedAsPath = 11 "Malformed AS_PATH",
    }
}

subcodes! {
    /// RFC 6608.
    FsmError {
        Unspecific = 0 "Unspecified",
        UnexpectedInOpenSent = 1 "Unexpected Message in OpenSent State",
        UnexpectedInOpenConfirm = 2 "Unexpected Message in OpenConfirm State",
        UnexpectedInEstablished = 3 "Unexpected Message in Established State",
    }
}

subcodes! {
    /// RFC 4486, RFC 8538, RFC 9384.
    Cease {
        MaximumPrefixesReached = 1 "Maximum Number of Prefixes Reached",
        AdministrativeShutdown = 2 "Administrative Shutdown",
        PeerDeconfigured = 3 "Peer De-configured",
        AdministrativeReset = 4 "Administrative Reset",
        ConnectionRejected = 5 "Connection Rejected",
        OtherConfigurationChange = 6 "Other Configuration Change",
        ConnectionCollision = 7 "Connection Collision Resolution",
        OutOfResources = 8 "Out of Resources",
        HardReset = 9 "Hard Reset",
        BfdDown = 10 "BFD Down",
    }
}

subcodes! {
    /// RFC 7313 §5.
    RouteRefreshError {
        InvalidMessageLength = 1 "Invalid Message Length",
    }
}

const HEADER: u8 = 1;
const OPEN: u8 = 2;
const UPDATE: u8 = 3;
const HOLD_TIMER_EXPIRED: u8 = 4;
const FSM: u8 = 5;
const CEASE: u8 = 6;
const ROUTE_REFRESH: u8 = 7;
const SEND_HOLD_TIMER_EXPIRED: u8 = 8;

impl NotificationReason {
    /// Any pair of numbers; one without a name is `Unknown`.
    pub fn from_codes(code: u8, subcode: u8) -> NotificationReason {
        let known = match (code, subcode) {
            (HEADER, _) => HeaderError::from_subcode(subcode).map(NotificationReason::Header),
            (OPEN, _) => OpenError::from_subcode(subcode).map(NotificationReason::Open),
            (UPDATE, _) => UpdateError::from_subcode(subcode).map(NotificationReason::Update),
            (HOLD_TIMER_EXPIRED, 0) => Some(NotificationReason::HoldTimerExpired),
            (FSM, _) => FsmError::from_subcode(subcode).map(NotificationReason::Fsm),
            (CEASE, _) => Cease::from_subcode(subcode).map(NotificationReason::Cease),
            (ROUTE_REFRESH, _) => RouteRefreshError::from_subcode(subcode).map(NotificationReason::RouteRefresh),
            (SEND_HOLD_TIMER_EXPIRED, 0) => Some(NotificationReason::SendHoldTimerExpired),
            _ => None,
        };
        known.unwrap_or(NotificationReason::Unknown { code, subcode })
    }

    /// Whether our OPEN was refused for the capabilities in it, or for those that it lacks (RFC 5492 §3 and §5).
    pub fn is_about_capabilities(self) -> bool {
        let (capability, parameter) = (OpenError::UnsupportedCapability, OpenError::UnsupportedOptionalParameter);
        self == NotificationReason::Open(capability) || self == NotificationReason::Open(parameter)
    }

    /// `None` for any other reason.
    pub fn cease(self) -> Option<Cease> {
        match self {
            NotificationReason::Cease(cease) => Some(cease),
            NotificationReason::Header(_)
            | NotificationReason::Open(_)
            | NotificationReason::Update(_)
            | NotificationReason::HoldTimerExpired
            | NotificationReason::Fsm(_)
            | NotificationReason::RouteRefresh(_)
            | NotificationReason::SendHoldTimerExpired
            | NotificationReason::Unknown { .. } => None,
        }
    }

    pub fn code(self) -> u8 {
        match self {
            NotificationReason::Header(_) => HEADER,
            NotificationReason::Open(_) => OPEN,
            NotificationReason::Update(_) => UPDATE,
            NotificationReason::HoldTimerExpired => HOLD_TIMER_EXPIRED,
            NotificationReason::Fsm(_) => FSM,
            NotificationReason::Cease(_) => CEASE,
            NotificationReason::RouteRefresh(_) => ROUTE_REFRESH,
            NotificationReason::SendHoldTimerExpired => SEND_HOLD_TIMER_EXPIRED,
            NotificationReason::Unknown { code, .. } => code,
        }
    }

    pub fn subcode(self) -> u8 {
        match self {
            NotificationReason::Header(error) => error.subcode(),
            NotificationReason::Open(error) => error.subcode(),
            NotificationReason::Update(error) => error.subcode(),
            NotificationReason::Fsm(error) => error.subcode(),
            NotificationReason::Cease(cease) => cease.subcode(),
            NotificationReason::RouteRefresh(error) => error.subcode(),
            NotificationReason::HoldTimerExpired | NotificationReason::SendHoldTimerExpired => 0,
            NotificationReason::Unknown { subcode, .. } => subcode,
        }
    }
}

impl fmt::Display for NotificationReason {
    /// The names that other speakers log, and both numbers: `Cease, Administrative Shutdown (6/2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotificationReason::Header(error) => write!(f, "Message Header Error, {error}")?,
            NotificationReason::Open(error) => write!(f, "OPEN Message Error, {error}")?,
            NotificationReason::Update(error) => write!(f, "UPDATE Message Error, {error}")?,
            NotificationReason::HoldTimerExpired => f.write_str("Hold Timer Expired")?,
            NotificationReason::Fsm(error) => write!(f, "Finite State Machine Error, {error}")?,
            NotificationReason::Cease(cease) => write!(f, "Cease, {cease}")?,
            NotificationReason::RouteRefresh(error) => write!(f, "ROUTE-REFRESH Message Error, {error}")?,
            NotificationReason::SendHoldTimerExpired => f.write_str("Send Hold Timer Expired")?,
            // RFC 4486 §4: a Cease need not say more.
            NotificationReason::Unknown { code: CEASE, .. } => f.write_str("Cease")?,
            NotificationReason::Unknown { .. } => f.write_str("unknown reason")?,
        }
        write!(f, " ({}/{})", self.code(), self.subcode())
    }
}

impl From<NotificationReason> for Notification {
    fn from(reason: NotificationReason) -> Notification {
        Notification { reason, data: Vec::new() }
    }
}

impl Notification {
    /// Code and subcode.
    const FIXED_LEN: usize = 2;
    /// RFC 9003 §2: octets of UTF-8, because one octet counts them.
    pub const MAX_TEXT_LEN: usize = 255;

    /// RFC 9003 §2: this peer is shut down, and why. A longer text is cut between two characters so that at most
    /// [`Notification::MAX_TEXT_LEN`] octets are left; an empty one is left out.
    pub fn administrative_shutdown(text: &str) -> Notification {
        Notification { reason: NotificationReason::Cease(Cease::AdministrativeShutdown), data: communication(text) }
    }

    /// RFC 9003 §2: this session is reset, and why. The text is treated as in
    /// [`Notification::administrative_shutdown`].
    pub fn administrative_reset(text: &str) -> Notification {
        Notification { reason: NotificationReason::Cease(Cease::AdministrativeReset), data: communication(text) }
    }

    /// RFC 8538 §3.1: the peer must drop the routes, not keep them for a restart. `self` travels inside.
    pub fn into_hard_reset(self) -> Notification {
        let mut data = vec![self.reason.code(), self.reason.subcode()];
        data.extend(self.data);
        Notification { reason: NotificationReason::Cease(Cease::HardReset), data }
    }

    /// What a Hard Reset wraps; `None` for other reasons, and where there is nothing inside.
    pub fn hard_reset_cause(&self) -> Option<Notification> {
        match self.reason {
            NotificationReason::Cease(Cease::HardReset) => Notification::parse(&self.data).ok(),
            _ => None,
        }
    }

    /// The text that came with an Administrative Shutdown or Reset (RFC 9003 §2), made fit for a log: what is not
    /// printable, and octets that are not UTF-8, are escaped. `None` without a text, or with a length that does not fit.
    pub fn text(&self) -> Option<String> {
        match self.reason {
            NotificationReason::Cease(Cease::AdministrativeShutdown | Cease::AdministrativeReset) => {}
            _ => return None,
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest.get(..usize::from(*length))?;
        (!text.is_empty()).then(|| printable(text))
    }

    /// The octets after the header; every code and subcode is accepted.
    pub fn parse(body: &[u8]) -> Result<Notification, HeaderFault> {
        match (be_u8::<_, ()>, be_u8).parse(body) {
            Ok((data, (code, subcode))) => {
                Ok(Notification { reason: NotificationReason::from_codes(code, subcode), data: data.to_vec() })
            }
            Err(_) => Err(HeaderFault::Length {
                type_code: MessageKind::Notification.code(),
                length: length16(HEADER_LEN + body.len()),
            }),
        }
    }

    /// Octets that [`Notification::emit`] appends.
    pub fn emitted_len(&self, max_message_len: usize) -> usize {
        Notification::FIXED_LEN + self.emitted_data(max_message_len).len()
    }

    /// Appends the body. The data only helps to debug, so it is cut to what one message holds.
    pub fn emit(&self, max_message_len: usize, out: &mut BytesMut) {
        out.put_u8(self.reason.code());
        out.put_u8(self.reason.subcode());
        out.put_slice(self.emitted_data(max_message_len));
    }

    fn emitted_data(&self, max_message_len: usize) -> &[u8] {
        let room =
            MessageKind::Notification.max_len(max_message_len).saturating_sub(HEADER_LEN + Notification::FIXED_LEN);
        self.data.get(..room).unwrap_or(&self.data)
    }
}

impl fmt::Display for Notification {
    /// The reason, then the text in quotes, or the data in hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        if let Some(text) = self.text() {
            return write!(f, ": \"{text}\"");
        }
        if let NotificationReason::Cease(Cease::MaximumPrefixesReached) = self.reason
            && let Some((family, limit)) = prefix_limit(&self.data)
        {
            return write!(f, ": the limit is {limit} prefixes of {family}");
        }
        match self.hard_reset_cause() {
            // A peer could wrap one reset in another for as long as the message is.
            Some(Notification { reason, data }) if reason == self.reason => write!(f, ": {reason}{}", Hex(&data)),
            Some(cause) => write!(f, ": {cause}"),
            None => Hex(&self.data).fmt(f),
        }
    }
}

/// The octets of RFC 9003 §2: one that counts, then the text.
fn communication(text: &str) -> Vec<u8> {
    let cut = (0..=Notification::MAX_TEXT_LEN).rev().find_map(|len| text.get(..len));
    let text = if text.len() <= Notification::MAX_TEXT_LEN { text } else { cut.unwrap_or_default() };
    if text.is_empty() {
        return Vec::new();
    }
    let mut data = vec![length8(text.len())];
    data.extend_from_slice(text.as_bytes());
    data
}

/// The family and the upper bound that come with Maximum Number of Prefixes Reached; `None` where the length is another.
fn prefix_limit(data: &[u8]) -> Option<(String, u32)> {
    // RFC 4486 §4: an AFI of two octets, a SAFI of one, and an upper bound of four. They may be left out.
    let &[a, b, safi, w, x, y, z] = data else { return None };
    let family = match (u16::from_be_bytes([a, b]), safi) {
        (1, 1) => "IPv4 unicast".to_owned(),
        (2, 1) => "IPv6 unicast".to_owned(),
        (afi, safi) => format!("AFI {afi}, SAFI {safi}"),
    };
    Some((family, u32::from_be_bytes([w, x, y, z])))
}

/// Text from the peer, on one line and without control characters.
fn printable(octets: &[u8]) -> String {
    let mut out = String::with_capacity(octets.len());
    for chunk in octets.utf8_chunks() {
        out.extend(chunk.valid().escape_debug());
        out.extend(chunk.invalid().escape_ascii().map(char::from));
    }
    out
}

/// Data that crier cannot name, for a log line; nothing for no data.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        f.write_str(", data ")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_codes_survives_a_round_trip() {
        for code in 0..=255 {
            for subcode in 0..=255 {
                let reason = NotificationReason::from_codes(code, subcode);
                assert_eq!((reason.code(), reason.subcode()), (code, subcode));
            }
        }
    }

    #[test]
    fn a_code_nobody_knows_is_not_taken_for_another() {
        assert_eq!(NotificationReason::from_codes(7, 2), NotificationReason::Unknown { code: 7, subcode: 2 });
        assert_eq!(NotificationReason::from_codes(6, 11), NotificationReason::Unknown { code: 6, subcode: 11 });
        assert_eq!(NotificationReason::from_codes(2, 5), NotificationReason::Unknown { code: 2, subcode: 5 });
    }

    #[test]
    fn a_text_is_cut_between_two_characters() {
        let long = "ä".repeat(200);
        let notification = Notification::administrative_shutdown(&long);
        assert_eq!(notification.data[0], 254, "255 would cut the last letter in two");
        assert_eq!(notification.text(), Some("ä".repeat(127)));
    }

    #[test]
    fn a_text_of_255_octets_is_sent_whole() {
        let text = "x".repeat(255);
        let notification = Notification::administrative_reset(&text);
        assert_eq!((notification.data[0], notification.data.len()), (255, 256));
        assert_eq!(notification.text(), Some(text));
        assert!(Notification::administrative_reset("").data.is_empty());
    }

    #[test]
    fn a_text_cannot_touch_the_terminal() {
        let hostile = Notification::administrative_shutdown("ok\x1b[2J\nroot: \u{202e}gnp.\"");
        let shown = hostile.to_string();
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown}");
        let not_utf8 = Notification { data: vec![3, 0xff, 0xfe, b'a'], ..hostile };
        assert_eq!(not_utf8.text().as_deref(), Some("\\xff\\xfea"));
    }

    #[test]
    fn a_text_shorter_than_it_says_is_shown_as_octets() {
        let short = Notification { data: vec![200, b'a', b'b', b'c'], ..Notification::administrative_shutdown("") };
        assert_eq!(short.text(), None);
        assert_eq!(short.to_string(), "Cease, Administrative Shutdown (6/2), data c8616263");
    }

    #[test]
    fn a_limit_of_prefixes_is_told_with_its_family() {
        let shown = |data: &[u8]| {
            let reason = NotificationReason::Cease(Cease::MaximumPrefixesReached);
            Notification { reason, data: data.to_vec() }.to_string()
        };
        let head = "Cease, Maximum Number of Prefixes Reached (6/1)";
        assert_eq!(shown(&[0, 1, 1, 0, 0, 0, 5]), format!("{head}: the limit is 5 prefixes of IPv4 unicast"));
        assert_eq!(shown(&[0, 2, 1, 0, 1, 0, 0]), format!("{head}: the limit is 65536 prefixes of IPv6 unicast"));
        assert_eq!(shown(&[0, 25, 70, 0, 0, 0, 1]), format!("{head}: the limit is 1 prefixes of AFI 25, SAFI 70"));
        assert_eq!(shown(&[]), head);
        assert_eq!(shown(&[0, 1, 1, 0, 0, 5]), format!("{head}, data 000101000005"));
    }

    /// BIRD sends it when BFD says that the path is down.
    #[test]
    fn a_cease_that_says_no_more_is_one() {
        let shown = |body: &[u8]| Notification::parse(body).expect("two octets are enough").to_string();
        assert_eq!(shown(&[2, 11]), "OPEN Message Error, Role Mismatch (2/11)");
        assert_eq!(shown(&[2, 12]), "unknown reason (2/12)");
        assert_eq!(shown(&[6, 0]), "Cease (6/0)");
        assert_eq!(shown(&[6, 99]), "Cease (6/99)");
        assert_eq!(shown(&[99, 0]), "unknown reason (99/0)");
    }

    #[test]
    fn a_hard_reset_says_what_is_inside() {
        let cause = Notification::from(NotificationReason::Cease(Cease::BfdDown));
        let wrapped = cause.clone().into_hard_reset();
        assert_eq!(wrapped.data, [6, 10]);
        assert_eq!(wrapped.hard_reset_cause(), Some(cause));
        assert_eq!(wrapped.to_string(), "Cease, Hard Reset (6/9): Cease, BFD Down (6/10)");
        let twice = wrapped.into_hard_reset().to_string();
        assert!(
            twice.starts_with("Cease, Hard Reset (6/9): Cease, Hard Reset (6/9)") && twice.contains("060a"),
            "{twice}"
        );
        // RFC 9003: also in there.
        let told = Notification::administrative_shutdown("work on the switch").into_hard_reset();
        let words = "Cease, Hard Reset (6/9): Cease, Administrative Shutdown (6/2): \"work on the switch\"";
        assert_eq!(told.to_string(), words);
    }

    #[test]
    fn data_that_fills_a_message_is_cut_to_it() {
        let long = Notification { data: vec![7; 5000], ..Notification::administrative_shutdown("") };
        assert_eq!(HEADER_LEN + long.emitted_len(4096), 4096);
    }
}
