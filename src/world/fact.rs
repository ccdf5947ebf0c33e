//! A Fact: one thing that crier was told. Serialisable, so that a run can be recorded and replayed.
//! Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    BfdReport, ClientCertificate, Conflict, DefaultRoute, Drain, EgressReach, EndpointSlice, HeldPod, HostProblem,
    LeaseState, Link, NetworkNumbers, Node, Pod, Refusal, Service, SessionDetail, Shutdown, Touched,
};
use crate::claim::Answerer;
use crate::config::Config;
use crate::names::{InterfaceName, NamespaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::path_state::DataPath;
use crate::roster::Roster;
use crate::selector::Labels;
use crate::session_state::SessionState;

/// One thing that crier was told. An object comes whole; `None` says that it is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    Service(ObjectKey, Option<Arc<Service>>),
    EndpointSlice(ObjectKey, Option<Arc<EndpointSlice>>),
    Node(NodeName, Option<Arc<Node>>),
    Namespace(NamespaceName, Option<Arc<Labels>>),
    /// The networks that a ServiceCIDR of this name has.
    ServiceCidr(String, Option<Arc<Vec<IpNet>>>),
    /// Why the API server does not show its ServiceCIDRs, though it has the kind; `None` where it does.
    ServiceCidrsUnseen(Option<String>),
    /// A Pod of this node, only where `[egress] new-pods` asks for it.
    Pod(ObjectKey, Option<Arc<Pod>>),
    /// Why the API server does not show the Pods of this node; `None` where it does.
    PodsUnseen(Option<String>),
    /// A source has listed every object of a kind. Any other object of that kind in the World is gone.
    Listed(Listing),
    /// Whether the API server answers, and since when it does not.
    ApiServer(ApiServer),
    /// The API server was put back to an older state: what is told from now on counts, though its versions are lower than known ones.
    WentBack,
    /// Whether this agent holds the Lease and so allocates.
    Allocates(bool),
    /// What was last seen of the Lease.
    Lease(Box<LeaseState>),
    Link(u32, Option<Link>),
    /// The kernel has listed every link.
    LinksListed,
    /// Another station uses an address that this node is to answer for on a link, or no longer does.
    Conflict(IpAddr, InterfaceName, Option<Conflict>),
    /// Why no socket for ARP and NDP can be opened on a link where this node may answer; `None` where one can again.
    NoSocket(InterfaceName, Option<String>),
    /// Which addresses this node has begun to answer for on a link, and for which it has ended to.
    Answering {
        link: InterfaceName,
        began: Vec<IpAddr>,
        ended: Vec<IpAddr>,
    },
    /// Which stations answer for addresses on a link that this node asks for there; `None`: none is known.
    Answered {
        link: InterfaceName,
        by: Vec<(IpAddr, Option<Answerer>)>,
    },
    Session(PeerName, SessionReport),
    /// How the BFD session of a peer stands; `None` where there is none any more.
    Bfd(PeerName, Option<Arc<BfdReport>>),
    /// All routers that advertise themselves on the link of this index, by link-local address, the first heard in front.
    /// Empty also when the link is no longer listened on.
    Routers(u32, Vec<Ipv6Addr>),
    /// A host with this link-local address, on the link of this index, has opened a connection to our BGP port. Valid
    /// until the link goes down.
    Caller(u32, Ipv6Addr),
    /// The next hops of this host's default routes, of the main table and of VRFs: all of them, also dead ones, the preferred one in
    /// front.
    DefaultRoutes(Vec<DefaultRoute>),
    /// Whether this agent sends and hears pulses at all.
    Pulses(Pulses),
    /// Which nodes are alive on a link, by its index, as their pulses tell; `None` where pulses are no longer heard.
    Roster(u32, Option<Arc<Roster>>),
    /// What is wrong with pulses on a link, by the link's index.
    PulseTrouble(u32, PulseTrouble),
    /// The planner chose these addresses for a Service; kept until the Service status shows them.
    Assigned(ObjectKey, Vec<IpAddr>),
    /// Standalone, a Service of this name, which is gone, had these addresses: it gets them back if nobody else has them.
    Had(ObjectKey, Vec<IpAddr>),
    /// The API server accepted a status write and returned the Service, ahead of the watch. Applied only to a Service of
    /// this key and `uid` with a smaller `resource_version` (as numbers): the Service may be gone or replaced meanwhile.
    /// Older versions that the watch tells afterwards are ignored.
    StatusWritten(ObjectKey, Arc<Service>),
    /// The status of the Service could not be written; the addresses stay reserved and the write is retried.
    StatusRefused(ObjectKey, String),
    /// It was told that an address of the Service goes: the Event and the condition that say so were written, or never will be.
    RemovalTold(ObjectKey),
    /// All that is wrong in an area; nothing where all is well again.
    Problems(Area, Vec<HostProblem>),
    /// On some link where this node may answer, the kernel answers ARP for addresses of all its links.
    ArpOpen(bool),
    /// Whether this node can serve what it announces.
    DataPath(DataPath),
    /// This agent goes by another configuration from now on. It was checked, and needs no restart. It holds secrets, so it is
    /// never written anywhere.
    #[serde(skip)]
    Config(Arc<Config>),
    /// What an operator wants of a peer of `[[bgp.peer]]`.
    Peer(PeerName, PeerOrder),
    /// All ranges of the pools of this agent's file, and of former files as long as they matter.
    Pools(Arc<BTreeSet<PoolRange>>),
    /// The Lease of this agent's file, and those of former files as long as a condition names them.
    Leases(Arc<BTreeSet<ObjectKey>>),
    /// How far this node has come with leaving; `None` where it does not.
    Drain(Option<Arc<Drain>>),
    /// What is known of shutdowns of this host.
    Shutdown(Shutdown),
    /// The client certificate that the API server knows this agent by; `None` where it is known by something else.
    ClientCertificate(Option<ClientCertificate>),
    /// How it stands with the ConfigMap of the configuration, and its texts that are in use, each with its name.
    ClusterConfig(ClusterConfig, Arc<Vec<(String, String)>>),
    /// The addresses that packets of pods leave with by this node: the kernel holds the table that gives them.
    EgressTranslated(Arc<BTreeSet<IpAddr>>),
    /// All addresses of pods that are held back for a while yet, although no Service with egress has them any more.
    EgressHeld(Arc<BTreeMap<IpAddr, HeldPod>>),
    /// The addresses that packets of pods left with when the agent started.
    EgressSources(BTreeSet<IpAddr>),
    /// How this node reaches the owners of egress addresses.
    #[serde(alias = "EgressTunnel")]
    EgressReach(EgressReach),
    /// Which numbers in the marks networks had when the agent started, by the rules in the kernel: connections carry them.
    NetworkNumbers(NetworkNumbers),
    /// The BGP identifier that the planner chose, in this life of the agent or an earlier one.
    RouterId(Ipv4Addr),
    /// The same, with the node that it was chosen for. Versions that do not know this read the one before.
    RouterIdOf(Ipv4Addr, NodeName),
    /// Wait for no list any longer: act on the last known state, even if no list was ever complete.
    FailStatic,
    /// The addresses that this node held until its agent restarted a moment ago: it goes on with them, where no other node has
    /// them. Empty once others may have taken them over.
    Kept(Arc<BTreeSet<IpAddr>>),
    /// The agent stops: this node takes nothing any more, and says nothing for what it still answers for.
    Leaving,
}

/// A pool, and the first and the last address of one of its ranges.
pub type PoolRange = (PoolName, IpAddr, IpAddr);

impl Fact {
    /// Whether the fact is a part of what is kept on disk: see [`World::to_remember`](super::World::to_remember).
    pub fn is_worth_remembering(&self) -> bool {
        match self {
            Fact::Service(..)
            | Fact::EndpointSlice(..)
            | Fact::Node(..)
            | Fact::Namespace(..)
            | Fact::ServiceCidr(..)
            | Fact::Listed(_)
            | Fact::StatusWritten(..)
            | Fact::Assigned(..)
            | Fact::Had(..)
            | Fact::RouterId(_)
            | Fact::RouterIdOf(..)
            | Fact::Pools(_)
            | Fact::Leases(_)
            | Fact::Peer(_, PeerOrder::Shut | PeerOrder::Enable) => true,
            Fact::ServiceCidrsUnseen(_)
            | Fact::Pod(..)
            | Fact::PodsUnseen(_)
            | Fact::ApiServer(_)
            | Fact::WentBack
            | Fact::Allocates(_)
            | Fact::Lease(_)
            | Fact::Link(..)
            | Fact::LinksListed
            | Fact::Conflict(..)
            | Fact::NoSocket(..)
            | Fact::Answering { .. }
            | Fact::Answered { .. }
            | Fact::Session(..)
            | Fact::Bfd(..)
            | Fact::Routers(..)
            | Fact::Caller(..)
            | Fact::DefaultRoutes(_)
            | Fact::Pulses(_)
            | Fact::Roster(..)
            | Fact::PulseTrouble(..)
            | Fact::StatusRefused(..)
            | Fact::RemovalTold(_)
            | Fact::Problems(..)
            | Fact::ArpOpen(_)
            | Fact::DataPath(_)
            | Fact::Config(_)
            | Fact::Drain(_)
            | Fact::Shutdown(_)
            | Fact::ClientCertificate(_)
            | Fact::Peer(_, PeerOrder::Reset | PeerOrder::Refresh)
            | Fact::ClusterConfig(..)
            | Fact::EgressTranslated(_)
            | Fact::EgressHeld(_)
            | Fact::EgressSources(_)
            | Fact::EgressReach(_)
            | Fact::NetworkNumbers(_)
            | Fact::FailStatic
            | Fact::Kept(_)
            | Fact::Leaving => false,
        }
    }
}

/// What a [`Fact::Problems`] is about, in the order in which problems are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Area {
    /// The credentials for the API server that are on the disk now: they cannot be used.
    Credentials,
    /// What cannot be read of the folder of manifests.
    Manifests,
    /// Settings of this host.
    Host,
    /// What keeps BGP connections from being accepted.
    Listening,
    /// What keeps this node from holding egress pods to their Services' addresses: the guard does not stand.
    Egress,
    /// By what packets of pods bypass the host's netfilter, and so the guard.
    EgressBypass,
    /// Settings of this host by which the kernel drops packets of pods with egress, or replies to them.
    EgressFilters,
    /// What VRFs of the configuration lack on this host.
    Vrfs,
    /// Routes that the kernel refuses for replies by extra networks.
    Returns,
    /// Addresses of pools that `bind` asks for and this host does not have.
    Bind,
    /// Why blackhole routes cannot be set.
    Blackholes,
    /// Why a drain that the Node asks for is not begun, or one that is under way stands still.
    Drain,
    /// Why the Node does not show how it stands with a drain.
    NodeMark,
    /// Why the last known state is not kept on the disk.
    State,
}

impl Area {
    /// What another list of problems may change for a planner.
    pub(super) fn touches(self) -> Touched {
        match self {
            // Whether outbound connections of pods are guarded here decides what is announced.
            Area::Egress | Area::EgressBypass => Touched::Everything,
            Area::Credentials
            | Area::Manifests
            | Area::Host
            | Area::Listening
            | Area::EgressFilters
            | Area::Vrfs
            | Area::Returns
            | Area::Bind
            | Area::Blackholes
            | Area::Drain
            | Area::NodeMark
            | Area::State => Touched::Nothing,
        }
    }
}

/// How it stands with the ConfigMap of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterConfig {
    /// The configuration names none.
    #[default]
    NotUsed,
    /// Its newest text is in use.
    Current,
    /// Its newest text is good, and used from the next start on.
    Waiting { why: String },
    /// Its newest text has a mistake: what was in use before stays.
    Refused { why: String },
    /// It is not there: what was in use before stays.
    Missing,
    /// It cannot be seen: what was in use before stays.
    Unseen {
        why: String,
        #[serde(default)]
        refusal: Refusal,
    },
}

/// The keys of a complete list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listing {
    Services(BTreeSet<ObjectKey>),
    EndpointSlices(BTreeSet<ObjectKey>),
    Nodes(BTreeSet<NodeName>),
    Namespaces(BTreeSet<NamespaceName>),
    ServiceCidrs(BTreeSet<String>),
    /// Of this node.
    Pods(BTreeSet<ObjectKey>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApiServer {
    #[default]
    Connecting,
    Reachable,
    /// The last known state stays in use.
    Unreachable {
        since: SystemTime,
        why: String,
        #[serde(default)]
        refusal: Refusal,
    },
    /// Standalone: the objects come from a folder of manifests.
    Manifests,
}

/// Whether pulses tell which other nodes are alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulses {
    /// There is no key, or no link that wants pulses: a Node's Ready condition and the link decide.
    #[default]
    Off,
    On {
        /// Pulses are authenticated with a key; those without are dropped.
        authenticated: bool,
    },
}

/// What is wrong with pulses on a link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PulseTrouble {
    #[default]
    None,
    /// None is sent or heard.
    NoSockets { why: String },
    /// Those of these sources are dropped, each for a reason.
    Dropped(Arc<BTreeMap<IpAddr, String>>),
}

impl PulseTrouble {
    pub fn is_none(&self) -> bool {
        match self {
            PulseTrouble::None => true,
            PulseTrouble::NoSockets { .. } => false,
            PulseTrouble::Dropped(sources) => sources.is_empty(),
        }
    }
}

/// What an operator wants of a BGP peer. Each reset and each refresh counts, also one that was wanted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerOrder {
    /// End the session and begin it anew.
    Reset,
    /// Send all routes again.
    Refresh,
    /// Hold no session until it is enabled again. Remembered across a restart of the agent.
    Shut,
    /// Take `Shut` back.
    Enable,
}

/// What operators wanted of a peer so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerOrders {
    pub shut: bool,
    pub resets: u32,
    pub refreshes: u32,
}

/// What a BGP session reports when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    pub state: SessionState,
    pub since: SystemTime,
    /// Why the session is not established, or was last lost: a NOTIFICATION, a refused connection, a timer.
    pub last_error: Option<String>,
    /// The local end of the established connection.
    pub local_address: Option<IpAddr>,
    /// The negotiated hold time, in seconds; `None` without a session, or if the negotiated hold time is 0.
    pub hold_time_secs: Option<u16>,
    /// Prefixes announced to the peer and not withdrawn.
    pub prefixes_sent: usize,
    /// Prefixes that should be announced but cannot be sent in this session, each for a reason of `detail.unsendable`.
    pub prefixes_unsendable: usize,
    /// Prefixes that the peer announced to us: decoded, counted and dropped.
    pub prefixes_received: u64,
    #[serde(default)]
    pub detail: Box<SessionDetail>,
}

impl SessionReport {
    /// One of a session of which nothing else is known.
    pub fn new(state: SessionState, since: SystemTime) -> SessionReport {
        SessionReport {
            state,
            since,
            last_error: None,
            local_address: None,
            hold_time_secs: None,
            prefixes_sent: 0,
            prefixes_unsendable: 0,
            prefixes_received: 0,
            detail: Box::default(),
        }
    }
}
