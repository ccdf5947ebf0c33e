//! What two OPEN messages add up to. Floor 1.

use std::time::Duration;

/// The outcome of an OPEN exchange that both sides accepted. Exists only from OpenConfirm on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreement {
    pub local_asn: u32,
    pub peer_asn: u32,
    pub peer_identifier: std::net::Ipv4Addr,
    /// `None`: no hold timer, no keepalives (RFC 4271 §4.2). Else at least 3 s.
    pub hold_time: Option<Duration>,
    /// `None` exactly when `hold_time` is.
    pub keepalive_time: Option<Duration>,
    /// AS numbers are four octets wide in AS_PATH (RFC 6793).
    pub four_octet_asn: bool,
    /// Both sides may exchange these families.
    pub ipv4_unicast: bool,
    pub ipv6_unicast: bool,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub ipv4_with_ipv6_next_hop: bool,
    pub route_refresh: bool,
    /// Octets, header included: 4096, or 65535 with RFC 8654.
    pub max_message_len: usize,
}

impl Agreement {
    /// Both ends are of one AS: LOCAL_PREF is sent and the AS path stays empty.
    pub fn internal(&self) -> bool {
        self.local_asn == self.peer_asn
    }
}
