//! What a BGP session tells of itself beyond its state: the rest of [`super::SessionReport`], as commands and metrics show
//! it. Floor 1. No decision reads it but `plan::reach`, which reads the address, whether there was an error and whether it fails, and
//! `plan::bfd`, which reads `known_from`; so the rest may change as often as it likes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::address::{Family, ScopedAddress};

/// Counters run from the start of the agent, over all connections of the peer; the rest is of the session that stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionDetail {
    /// Only while the session is established.
    pub negotiated: Option<NegotiatedReport>,
    /// How often the session was established.
    pub times_established: u64,
    pub last_error_at: Option<Timestamp>,
    /// Attempts to have a session fail: several since the last one, or since this address of the peer was chosen.
    pub fails: bool,
    pub messages_sent: MessageCounts,
    pub messages_received: MessageCounts,
    /// UPDATEs of this session in which something was wrong that RFC 7606 lets a session survive.
    pub updates_malformed: u64,
    pub notifications: Vec<NotificationCount>,
    /// The last one of each direction that was not about two connections at once, which is nobody's error.
    pub last_notification_sent: Option<LastNotification>,
    pub last_notification_received: Option<LastNotification>,
    /// Prefixes that are still to be announced, announced again, or withdrawn.
    pub prefixes_pending: usize,
    /// Routes that were sent wait in this host: that of the peer has not acknowledged them.
    pub routes_untaken: bool,
    /// It has acknowledged them, and the peer has said nothing since: it may be stuck.
    pub routes_unheard: bool,
    /// Since when the peer takes nothing of what waits for it, where that is for 10 s or more.
    pub reads_nothing_since: Option<Timestamp>,
    /// Why prefixes cannot be sent in this session, each reason with how many there are.
    pub unsendable: Vec<UnsendablePrefixes>,
    /// Prefixes whose attributes do not fit a message of this session, [`SessionDetail::MOST_TOO_LONG`] at most.
    pub too_long: Vec<IpNet>,
    /// The address of the peer that the session, or the attempt to have one, is with.
    pub address: Option<ScopedAddress>,
    /// When the peer is dialled next, while no connection is under way.
    pub next_attempt_at: Option<Timestamp>,
    /// What the kernel has dropped for its signature while nothing that is signed right comes from the peer.
    pub refused: Option<RefusedSegments>,
    /// What became of the session that the previous agent had with the peer; `None` where it had none.
    pub former: Option<FormerSession>,
    /// Our end by which the router knows this host, of the last session.
    pub known_from: Option<IpAddr>,
}

/// TCP segments with another signature than the peer's are to have. The kernel does not tell whose they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSegments {
    pub count: u64,
    pub since: Timestamp,
}

/// What became of the session that the previous agent had with a peer, at the start of this agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormerSession {
    /// It goes on. `after_crash`: the previous agent died without a word, and its routes are sent again as far as they are not known.
    TakenOver { after_crash: bool },
    /// It does not go on, for the reason in the text. `routes_kept`: graceful restart was agreed, so the router keeps the routes for a
    /// while; without it, it drops them until the new session. `bfd_ended`: it was agreed, and BFD at the router has run out all the same,
    /// upon which most routers drop the routes.
    Lost {
        why: String,
        routes_kept: bool,
        #[serde(default)]
        bfd_ended: bool,
    },
    /// It does not go on, for the router has closed its connection without a word, and graceful restart was agreed: what the router has of
    /// the routes is not known.
    Closed { why: String },
}

/// As `crier bgp peers` shows it.
impl fmt::Display for FormerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormerSession::TakenOver { after_crash: false } => f.write_str("taken over in a restart"),
            FormerSession::TakenOver { after_crash: true } => f.write_str("taken over after a crash"),
            FormerSession::Closed { why } => write!(
                f,
                "not taken over: {why}; routes withdrawn until the new session if the router was started anew, else kept by graceful restart"
            ),
            FormerSession::Lost { why, routes_kept, bfd_ended } => {
                let routes = match (routes_kept, bfd_ended) {
                    (true, _) => "kept by graceful restart",
                    (false, true) => "withdrawn until the new session, unless the router keeps them when BFD goes down",
                    (false, false) => "withdrawn until the new session",
                };
                write!(f, "not taken over: {why}; routes {routes}")
            }
        }
    }
}

impl SessionDetail {
    pub const MOST_TOO_LONG: usize = 1000;
}

/// What both sides hold to while the session is established.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NegotiatedReport {
    /// Our end of the connection, and the peer's.
    pub local: SocketAddr,
    pub remote: Option<SocketAddr>,
    pub local_asn: u32,
    pub peer_asn: u32,
    pub local_router_id: Ipv4Addr,
    pub peer_router_id: Ipv4Addr,
    /// `None`: neither a hold timer nor keepalives.
    pub hold_time_secs: Option<u64>,
    pub keepalive_time_millis: Option<u64>,
    /// Octets, header included.
    pub max_message_len: usize,
    /// The peer keeps our routes for a while when the connection is lost (RFC 4724).
    #[serde(default)]
    pub graceful_restart: bool,
    /// IPv4 and IPv6, carried or not.
    pub families: Vec<CarriedFamily>,
    pub capabilities: Capabilities,
}

/// How routes of one family travel in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFamily {
    pub family: Family,
    /// The next hop that the peer is told.
    pub next_hop: Option<IpAddr>,
    /// Why there is none, so that no route of the family can be sent.
    pub unsendable: Option<String>,
}

/// The capabilities of both OPENs, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub sent: Vec<String>,
    pub received: Vec<String>,
    /// Those that count, because both sides have them.
    pub negotiated: Vec<String>,
}

/// Messages by their type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageCounts {
    pub open: u64,
    pub update: u64,
    pub notification: u64,
    pub keepalive: u64,
    pub route_refresh: u64,
}

impl MessageCounts {
    /// Each type by its name, as the metrics label it.
    pub fn by_type(&self) -> [(&'static str, u64); 5] {
        let MessageCounts { open, update, notification, keepalive, route_refresh } = *self;
        [
            ("open", open),
            ("update", update),
            ("notification", notification),
            ("keepalive", keepalive),
            ("route-refresh", route_refresh),
        ]
    }

    pub fn total(&self) -> u64 {
        self.by_type().into_iter().map(|(_, count)| count).sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Sent,
    Received,
}

/// NOTIFICATIONs of one kind; those without a name in any RFC are counted together, as 0/0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationCount {
    pub direction: Direction,
    pub code: u8,
    pub subcode: u8,
    pub count: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastNotification {
    pub at: Timestamp,
    pub code: u8,
    pub subcode: u8,
    /// The names that the RFCs give code and subcode, with both numbers.
    pub name: String,
    /// The shutdown communication (RFC 9003), fit for a terminal: what is not printable is escaped.
    pub text: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsendablePrefixes {
    /// The session carries no route of this family; `None` where something else is the matter.
    #[serde(default)]
    pub family: Option<Family>,
    pub reason: String,
    pub prefixes: usize,
}
