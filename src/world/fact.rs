//! A Fact: one thing that crier was told. Serialisable, so that a run can be kept and replayed.
//! Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Conflict, DefaultRoute, EndpointSlice, HostProblem, Link, Node, Service, SessionDetail};
use crate::names::{InterfaceName, NamespaceName, NodeName, ObjectKey, PeerName};
use crate::roster::Roster;
use crate::selector::Labels;

/// One thing that crier was told. An object comes whole; `None` says that it is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    Service(ObjectKey, Option<Arc<Service>>),
    EndpointSlice(ObjectKey, Option<Arc<EndpointSlice>>),
    Node(NodeName, Option<Arc<Node>>),
    Namespace(NamespaceName, Option<Arc<Labels>>),
    /// A source has told every object of a kind. What the World holds beside them is gone.
    Listed(Listing),
    /// The API server answers, or since when it does not.
    ApiServer(ApiServer),
    /// This agent holds the Lease and allocates, or lost it.
    Leader(bool),
    Link(u32, Option<Link>),
    /// The kernel has told every link.
    LinksListed,
    /// Another station has an address that this node is to answer for on a link, or has it no longer.
    Conflict(IpAddr, InterfaceName, Option<Conflict>),
    Session(PeerName, SessionReport),
    /// The routers that advertise themselves on the link of this index, by their link-local addresses: all of them, the
    /// one that was heard first in front. Empty also when nobody listens on the link any more.
    Routers(u32, Vec<Ipv6Addr>),
    /// Somebody with this link-local address, on the link of this index, has opened a connection to our BGP port. It
    /// stands until the link goes down.
    Caller(u32, Ipv6Addr),
    /// The next hops of this host's default routes: all of them, the preferred one in front.
    DefaultRoutes(Vec<DefaultRoute>),
    /// Whether this agent sends and hears pulses at all.
    Pulses(Pulses),
    /// Who is there on a link, by its index, as their pulses tell; `None` where no pulses are heard any more.
    Roster(u32, Option<Arc<Roster>>),
    /// Whose pulses are not believed on a link, by its index and their source, each with why: all of them.
    PulsesRefused(u32, Arc<BTreeMap<IpAddr, String>>),
    /// The planner chose these addresses for a Service; remembered until the Service status shows them.
    Assigned(ObjectKey, Vec<IpAddr>),
    /// The API server took a status write and answered with the Service as it stands now, ahead of the watch. Only ever an
    /// update: it counts where the World holds a Service of this key and `uid` with a smaller `resource_version` (as
    /// numbers), and is no news otherwise, for the Service may be gone or replaced meanwhile. Until the watch has reached
    /// that version, what it says of older ones is no news either.
    StatusWritten(ObjectKey, Arc<Service>),
    /// The status of the Service could not be written; the addresses stay promised and are tried again.
    StatusRefused(ObjectKey, String),
    /// All that is wrong with the settings of this host.
    Host(Vec<HostProblem>),
    /// Nothing more will be waited for: act on what is known, even if no list was ever complete.
    FailStatic,
}

/// The keys of a complete list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    Services(BTreeSet<ObjectKey>),
    EndpointSlices(BTreeSet<ObjectKey>),
    Nodes(BTreeSet<NodeName>),
    Namespaces(BTreeSet<NamespaceName>),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiServer {
    Connecting,
    Reachable,
    /// The last World stands meanwhile.
    Unreachable {
        since: SystemTime,
        why: String,
    },
    /// Standalone: the objects come from a folder of manifests.
    Manifests,
}

/// Whether life and death of other nodes are told by their pulses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulses {
    /// There is no key, or nothing to announce on a link: a Node's Ready condition tells.
    #[default]
    Off,
    On {
        /// Pulses are sealed with a key, and those that are not are dropped.
        authenticated: bool,
    },
}

/// What a BGP session reports of itself when something about it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    pub state: SessionState,
    pub since: SystemTime,
    /// Why the session is not, or was last not, established: a NOTIFICATION, a refused connection, a timer.
    pub last_error: Option<String>,
    /// The local end of the established connection.
    pub local_address: Option<IpAddr>,
    /// The hold time agreed on, in seconds; `None` without a session or when the peers agreed on none.
    pub hold_time_secs: Option<u16>,
    /// Prefixes that the peer was sent and has not been told to forget.
    pub prefixes_sent: usize,
    /// Prefixes that were wanted but cannot be sent in this session, for want of a next hop of their family.
    pub prefixes_unsendable: usize,
    /// Prefixes that the peer announced to us; decoded, counted, dropped.
    pub prefixes_received: u64,
    #[serde(default)]
    pub detail: Box<SessionDetail>,
}

/// The states of RFC 4271 §8.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}
