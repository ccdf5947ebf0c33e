//! Why a BFD packet is dropped: one word for the machine, the counters and the metrics. Floor 1.

use super::packet::PacketFault;

/// A rule of RFC 5880 §6.8.6, RFC 5881 §5 or RFC 5883 §5 that a packet broke, or that no session wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Discard {
    /// It crossed more routers than it may: with a TTL other than 255 on a single hop, below `minimum-ttl` on several.
    Ttl,
    Truncated,
    Version,
    Length,
    Multiplier,
    Multipoint,
    MyDiscriminator,
    PollAndFinal,
    /// Its discriminator is that of no session here.
    UnknownDiscriminator,
    /// Its discriminator is that of a session with another address, on another link, or over another number of hops.
    OtherSender,
    /// It came to another address of this host than the one that the session with its sender is with.
    OtherAddress,
    /// It names no session, and no peer has its address.
    UnknownSender,
    /// It names no session although its state says that it should.
    YourDiscriminator,
    /// Its authentication section does not fit, or is of another type or key than the session's.
    AuthenticationType,
    /// It is not authenticated, and the session has a key.
    Unauthenticated,
    /// It is authenticated, and the session has no key.
    UnexpectedAuthentication,
    /// Its sequence number is too old or too far ahead.
    Replayed,
    /// Its digest is wrong.
    Forged,
    /// The session is held down here.
    AdminDown,
}

impl Discard {
    pub const ALL: [Discard; 19] = [
        Discard::Ttl,
        Discard::Truncated,
        Discard::Version,
        Discard::Length,
        Discard::Multiplier,
        Discard::Multipoint,
        Discard::MyDiscriminator,
        Discard::PollAndFinal,
        Discard::UnknownDiscriminator,
        Discard::OtherSender,
        Discard::OtherAddress,
        Discard::UnknownSender,
        Discard::YourDiscriminator,
        Discard::AuthenticationType,
        Discard::Unauthenticated,
        Discard::UnexpectedAuthentication,
        Discard::Replayed,
        Discard::Forged,
        Discard::AdminDown,
    ];

    /// The reason as a label of a metric.
    pub fn code(self) -> &'static str {
        match self {
            Discard::Ttl => "ttl",
            Discard::Truncated => "truncated",
            Discard::Version => "version",
            Discard::Length => "length",
            Discard::Multiplier => "multiplier",
            Discard::Multipoint => "multipoint",
            Discard::MyDiscriminator => "my-discriminator",
            Discard::PollAndFinal => "poll-and-final",
            Discard::UnknownDiscriminator => "unknown-discriminator",
            Discard::OtherSender => "other-sender",
            Discard::OtherAddress => "other-address",
            Discard::UnknownSender => "unknown-sender",
            Discard::YourDiscriminator => "your-discriminator",
            Discard::AuthenticationType => "authentication-type",
            Discard::Unauthenticated => "unauthenticated",
            Discard::UnexpectedAuthentication => "unexpected-authentication",
            Discard::Replayed => "replayed",
            Discard::Forged => "forged",
            Discard::AdminDown => "admin-down",
        }
    }

    /// The reason for an operator, in the terms of what the configuration of both ends says.
    pub fn in_words(self) -> &'static str {
        match self {
            Discard::Ttl => {
                "they crossed more routers than they may; see multihop of the peer and minimum-ttl of its profile"
            }
            Discard::Truncated | Discard::Length => "they are too short, or their length field is wrong",
            Discard::Version => "their version is not 1",
            Discard::Multiplier => "their multiplier is 0",
            Discard::Multipoint => "they are multipoint",
            Discard::MyDiscriminator => "the peer's discriminator is 0",
            Discard::PollAndFinal => "poll and final are both set",
            Discard::UnknownDiscriminator => "they are for a session that is not here; the peer will notice",
            Discard::OtherSender => "they came from another address or over another link than the session's",
            Discard::OtherAddress => "they came to another address of this node than the session's",
            Discard::UnknownSender => "they name no session, and no peer has their address",
            Discard::YourDiscriminator => "they name no session although their state is not down",
            Discard::AuthenticationType => "they are authenticated in another way, or with another key-id",
            Discard::Unauthenticated => "they are not authenticated, and the profile has a key",
            Discard::UnexpectedAuthentication => "they are authenticated, and the profile has no key",
            Discard::Replayed => "their sequence numbers are old",
            Discard::Forged => "they are authenticated with another key",
            Discard::AdminDown => "the session is held down here",
        }
    }

    /// Whether the packet was judged by its key alone: it may be the peer's, whose key is another one.
    pub(super) fn is_of_key(self) -> bool {
        matches!(
            self,
            Discard::AuthenticationType
                | Discard::Unauthenticated
                | Discard::UnexpectedAuthentication
                | Discard::Forged
        )
    }

    /// The place in [`Discard::ALL`].
    pub(super) fn place(self) -> usize {
        Discard::ALL.iter().position(|discard| *discard == self).unwrap_or(0)
    }
}

impl From<PacketFault> for Discard {
    fn from(fault: PacketFault) -> Discard {
        match fault {
            PacketFault::Truncated(_) => Discard::Truncated,
            PacketFault::Version(_) => Discard::Version,
            PacketFault::Length { .. } => Discard::Length,
            PacketFault::Multiplier => Discard::Multiplier,
            PacketFault::Multipoint => Discard::Multipoint,
            PacketFault::MyDiscriminator => Discard::MyDiscriminator,
            PacketFault::PollAndFinal => Discard::PollAndFinal,
            PacketFault::Authentication { .. } => Discard::AuthenticationType,
        }
    }
}
