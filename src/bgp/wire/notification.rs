//! NOTIFICATION: why a session ends (RFC 4271 §4.5, RFC 4486, RFC 6608, RFC 9003, RFC 9384, RFC 9687). Floor 1.

/// RFC 4271 §4.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub reason: NotificationReason,
    pub data: Vec<u8>,
}

/// Code and subcode together, so that a pair that means nothing cannot be written. What a peer sends and we do not
/// know survives as `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationReason {
    Header(HeaderError),
    Open(OpenError),
    Update(UpdateError),
    HoldTimerExpired,
    Fsm(FsmError),
    Cease(Cease),
    SendHoldTimerExpired,
    Unknown { code: u8, subcode: u8 },
}

/// RFC 4271 §6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderError {
    Unspecific,
    ConnectionNotSynchronized,
    BadMessageLength,
    BadMessageType,
}

/// RFC 4271 §6.2, RFC 5492 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    Unspecific,
    UnsupportedVersion,
    BadPeerAs,
    BadBgpIdentifier,
    UnsupportedOptionalParameter,
    UnacceptableHoldTime,
    UnsupportedCapability,
}

/// RFC 4271 §6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateError {
    MalformedAttributeList,
    UnrecognizedWellKnownAttribute,
    MissingWellKnownAttribute,
    AttributeFlags,
    AttributeLength,
    InvalidOrigin,
    InvalidNextHop,
    OptionalAttribute,
    InvalidNetworkField,
    MalformedAsPath,
}

/// RFC 6608.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsmError {
    Unspecific,
    UnexpectedInOpenSent,
    UnexpectedInOpenConfirm,
    UnexpectedInEstablished,
}

/// RFC 4486, RFC 8538, RFC 9384.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cease {
    MaximumPrefixesReached,
    AdministrativeShutdown,
    PeerDeconfigured,
    AdministrativeReset,
    ConnectionRejected,
    OtherConfigurationChange,
    ConnectionCollision,
    OutOfResources,
    HardReset,
    BfdDown,
}
