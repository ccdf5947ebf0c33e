//! The slices of the Plan, one for each actuator: the whole wanted state, newest wins.
//! Floor 1. The maps are persistent (structure is shared between versions), so a slice is cheap to clone, and the
//! difference to the slice before costs what changed, not what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::{AddressRange, Family, LocalAddress, MacAddress, ScopedAddress};
pub use crate::claim::{Acquisition, Errand, Hearing, Manner, Station, Stations};
use crate::config;
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::reason::Reason;
use crate::roster::{Card, Eligibility, Holding, Holdings, Sessions};
use crate::route::RouteAttributes;
use crate::world::{Condition, Destinations, Link, OvnGateway, PeerOrders, PodMark};

/// For the responder on the link: which addresses this node answers for by ARP and NDP, and on which links.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct L2Slice {
    /// Every link that some address below names, as the kernel last described it.
    pub links: Arc<Vec<Link>>,
    /// The links on which this node may answer for some address, by an `[[l2]]`. Among `links` there are others.
    pub may_answer_on: Arc<BTreeSet<InterfaceName>>,
    /// The same with those where no socket can be opened: it is tried again there.
    pub would_answer_on: Arc<BTreeSet<InterfaceName>>,
    pub addresses: OrdMap<IpAddr, Arc<BTreeSet<InterfaceName>>>,
    /// Addresses that another node is to answer for, and this one if the link shows that none does.
    pub standbys: OrdMap<IpAddr, Standby>,
    /// How the addresses above came to this node, or are to come. One that is not named comes into use for the first time.
    pub acquisitions: OrdMap<IpAddr, Acquisition>,
    /// Addresses that are to be announced again: once more whenever the number grows.
    pub assertions: OrdMap<IpAddr, u32>,
    /// Addresses that this node gave up to one that may not know that there was another holder, by the link, with that node's MAC
    /// there: neighbours are told where they are now, once.
    pub yields: OrdMap<(u32, IpAddr), MacAddress>,
    /// How the addresses of some ranges are probed and announced, the first range that holds an address counts. Those in no
    /// range are probed and announced as by default.
    pub manners: Arc<Vec<(AddressRange, Arc<Manner>)>>,
    /// The MACs of the other nodes' links. Who claims an address of ours from one of them is no foreign host.
    pub stations: Arc<Stations>,
    /// Internal addresses of the other Nodes: what speaks from one of them on a link is that Node's station.
    pub node_addresses: Arc<BTreeMap<IpAddr, NodeName>>,
    /// The agent stops: it answers on for a moment and announces nothing, because other nodes take over.
    pub leaving: bool,
}

/// Where this node would answer for an address if no node did, and its place in line: 1 or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    pub links: Arc<BTreeSet<InterfaceName>>,
    pub place: u32,
}

impl L2Slice {
    /// What the responder is to do about an address.
    pub fn errand(&self, address: IpAddr) -> Errand {
        let manner = self.manners.iter().find(|(range, _)| range.contains(address)).map(|(_, manner)| manner.clone());
        Errand {
            acquisition: match self.standbys.get(&address) {
                Some(Standby { place, links: _ }) => Acquisition::Standby { place: *place },
                None => self.acquisitions.get(&address).cloned().unwrap_or_default(),
            },
            assertions: self.assertions.get(&address).copied().unwrap_or_default(),
            manner: manner.unwrap_or_default(),
        }
    }

    /// The links that the responder has to do with an address on.
    pub fn links_of(&self, address: IpAddr) -> impl Iterator<Item = &InterfaceName> {
        let standby = self.standbys.get(&address).map(|standby| &standby.links);
        self.addresses.get(&address).into_iter().chain(standby).flat_map(|links| links.iter())
    }

    /// Of [`L2Slice::yields`], those of one link.
    pub fn yields_on(&self, index: u32) -> Arc<BTreeMap<IpAddr, MacAddress>> {
        let first = (index, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let of_link = self.yields.range(first..).take_while(|((link, _), _)| *link == index);
        Arc::new(of_link.map(|((_, address), mac)| (*address, *mac)).collect())
    }
}

/// For the pulse: what this node says of itself, on which links, and whom it must not miss.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PulseSlice {
    /// Every link that pulses pass on, by its index. Empty where there are no pulses.
    pub links: Arc<BTreeMap<u32, PulseLink>>,
    /// `None` as long as there is no plan, or no pulses.
    pub eligibility: Option<Eligibility>,
    /// This node hears its API server, or needs none.
    pub hears_api_server: bool,
    /// This node answers for some address.
    pub owner: bool,
    /// The addresses that this node holds, asks for or hands over.
    pub holdings: Holdings,
    /// What it says instead on single links, by their indices.
    pub apart: OrdMap<(u32, IpAddr), Holding>,
    /// The other nodes that hold some address, or are to take it: these are not to be missed for long.
    pub expected: Arc<BTreeSet<NodeName>>,
    /// The nodes that are to be asked again and again whether they hear this one.
    pub doubted: Arc<BTreeSet<NodeName>>,
    /// Addresses that this node found taken by stations that are no agents, the newest findings first.
    pub occupied: Arc<Vec<IpAddr>>,
    /// The addresses that packets of pods leave with by this node; `None` as long as that is not known.
    pub egress: Option<Arc<BTreeSet<IpAddr>>>,
    /// The addresses that this node announces over BGP, while it hears a node that does not hear its API server.
    pub over_bgp: Option<Arc<BTreeSet<IpAddr>>>,
    /// How the BGP sessions of this node stand; `None` without pulses, and where it has no peer to announce to.
    pub sessions: Option<Sessions>,
    /// The addresses that this node held before its agent restarted, and is to have again.
    pub kept: Arc<BTreeSet<IpAddr>>,
    /// Every node that is heard waits for nodes that restart.
    pub others_wait: bool,
}

/// A link that pulses pass on, and what this node says of itself there.
#[derive(Debug, Clone, PartialEq)]
pub struct PulseLink {
    pub link: Link,
    pub card: Arc<Card>,
}

/// For the kernel: which addresses to put on which link, because nothing else on this host accepts for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BindSlice {
    pub addresses: OrdMap<IpAddr, InterfaceName>,
}

/// For the kernel: the pods whose packets leave the cluster with their Service's address or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EgressSlice {
    /// There is a plan at all.
    pub planned: bool,
    /// All objects are known: a pod that is not named is held for none.
    pub complete: bool,
    /// No node's first pulses are waited for: whoever is no owner by the plan is none.
    pub settled: bool,
    pub pods: OrdMap<IpAddr, Mapping>,
    /// The Services' addresses that pods leave with, by whichever node.
    pub addresses: OrdSet<IpAddr>,
    /// The destinations that this is for, of the pods for which not all destinations outside of the cluster are.
    pub bounded: OrdMap<IpAddr, Arc<Destinations>>,
    /// Which pod has each address, where that is known.
    pub marks: OrdMap<IpAddr, PodMark>,
    /// Addresses of pods that are held back for nobody, and that are another pod's now: each with the pod that it was held back for.
    pub let_go: Arc<BTreeMap<IpAddr, PodMark>>,
    /// How each slot's node is reached: the next hop of IPv4, and of IPv6.
    pub hops: Arc<BTreeMap<u8, [Option<Hop>; 2]>>,
    /// Of the addresses above those that another node owns, or did until a moment ago, with its slot: it may know a connection that this
    /// node does not.
    pub leads: OrdMap<IpAddr, u8>,
    /// The end of the tunnel that this node is to have; `None` where no packet of a pod comes or goes by one.
    pub tunnel: Option<Arc<TunnelEnd>>,
    /// Destinations inside of the cluster: packets to them are left alone.
    pub cluster: Arc<BTreeSet<IpNet>>,
    /// The networks of the pods of all nodes.
    pub pod_networks: Arc<BTreeSet<IpNet>>,
    /// The links of this node that packets of other nodes' pods come in by.
    pub shared_links: Arc<BTreeSet<u32>>,
    /// Of these, those that IPv4 packets of other nodes' pods come in by where all is as the Nodes say: the guard does not count on that.
    pub roads: Arc<BTreeSet<u32>>,
    /// The networks beside that of the default route: what comes in by one to a Service is answered by it.
    pub networks: Arc<Vec<ReturnNetwork>>,
    /// The addresses of Services; empty without such a network.
    pub served: OrdSet<IpAddr>,
    /// What is held back until it is known whose it is; `None`: nothing.
    pub hold: Option<Arc<HoldSlice>>,
    /// What OVN-Kubernetes says on this Node of how pods' packets leave it.
    pub ovn_gateway: Option<OvnGateway>,
}

/// What leaves the cluster from these networks is held back, but for addresses that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HoldSlice {
    /// Of the pods of this node. Never empty.
    pub networks: BTreeSet<IpNet>,
    /// Addresses of pods without egress. `None` while not all Pods or not all Services are known: those of before stay.
    pub known: Option<OrdSet<IpAddr>>,
    /// Addresses of pods without egress that terminate: what they have open goes on.
    pub ending: OrdSet<IpAddr>,
}

/// A network of this node beside that of its default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnNetwork {
    /// Of the VRF device, or of the link.
    pub name: InterfaceName,
    /// Its number in the marks. No other network and no owner of an egress address has it.
    pub slot: u8,
    /// Its links by their indices. Never empty.
    pub links: BTreeMap<u32, InterfaceName>,
    pub table: ReturnTable,
    /// The link has become the way out of this node, so nothing new is marked with the number: what is marked still leaves by the table.
    pub former: bool,
}

/// The routing table that leads out by a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReturnTable {
    /// That of the VRF.
    Vrf(u32),
    /// One that crier makes for the link: the next hop of its default route of each family, `None` where that leads to the link
    /// itself, and its subnets; of a family that has always had its way out by the link, neither.
    Own { gateways: BTreeMap<Family, Option<IpAddr>>, subnets: Vec<IpNet> },
}

/// For the kernel: the VRFs of this host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VrfSlice {
    /// There is a plan at all.
    pub planned: bool,
    /// All objects are known.
    pub complete: bool,
    pub vrfs: Arc<Vec<config::Vrf>>,
    /// Destinations inside of the cluster: packets to them never look into the table of a VRF.
    pub cluster: Arc<BTreeSet<IpNet>>,
    /// The addresses of this host's Node: a link that carries one is not put into a VRF.
    pub own: Arc<BTreeSet<IpAddr>>,
}

/// How the packets of a pod leave the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// They do not.
    Held,
    /// By this node, with the Service's address as their source. `network`: the number in the marks of the extra network or VRF that the
    /// address is in; `None`: by the routes of the main table.
    Translated { address: IpAddr, network: Option<u8> },
    /// By the node of this slot.
    Steered { slot: u8 },
    /// By a link of this node, with an address that the node has there.
    Networked(Exit),
}

impl Mapping {
    /// The Service's address that packets leave this node with.
    pub fn translated(&self) -> Option<IpAddr> {
        match self {
            Mapping::Translated { address, network: _ } => Some(*address),
            Mapping::Held | Mapping::Steered { .. } | Mapping::Networked(_) => None,
        }
    }
}

/// How packets leave by a network of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The number of the network in the marks; `None` for a link that the main table leads to.
    pub slot: Option<u8>,
    /// The kernel's index of the link.
    pub link: u32,
    /// The node's address there.
    pub source: IpAddr,
}

/// How packets get to the owner of an egress address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// A next hop on a link of this node, by the kernel's index of the link.
    Link { via: IpAddr, link: u32 },
    /// By the tunnel: the addresses of the outer packets, both of one family.
    Tunnel { to: IpAddr, from: IpAddr },
}

/// This node's end of the tunnel that leads packets of pods to owners that are on no link of theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The addresses of the other Nodes: from these alone packets come out of the tunnel.
    pub peers: BTreeSet<IpAddr>,
    /// The device of the name is another program's: what is said of crier's is not to count for it.
    pub foreign: bool,
    /// The largest packet of a pod that fits; `None` while there is no device.
    pub mtu: Option<u32>,
}

/// For the BGP speaker: the peers to talk to and the routes to announce to each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BgpSlice {
    /// Absent until an identifier could be chosen; it then never changes while the agent runs.
    pub router_id: Option<Ipv4Addr>,
    /// The routes are all that there is to announce: End-of-RIB may be sent.
    pub complete: bool,
    pub peers: OrdMap<PeerName, PeerSlice>,
    /// The established sessions by a default route that were known when `peers` was made: one that `peers` lacks is not meant to be.
    pub weighed: Arc<BTreeSet<PeerName>>,
    /// This host's own addresses, of each link the best for a next hop first.
    pub local_addresses: Arc<Vec<LocalAddress>>,
    /// The links, by their index, whose routers are peers: they are listened for, and told about this node.
    pub unnumbered: Arc<BTreeMap<u32, InterfaceName>>,
    /// Where connections are accepted. `None` until there is a plan: what is open stays so.
    pub listen: Option<Arc<Listen>>,
}

/// Where BGP connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Empty: only dials.
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// For BFD: the peers to watch. Peers whose place is not known are not in here.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BfdSlice {
    pub peers: Arc<BTreeMap<PeerName, BfdPeer>>,
}

/// A peer to watch, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct BfdPeer {
    pub profile: Arc<config::BfdProfile>,
    pub address: ScopedAddress,
    /// The address to send from that the configuration gives. Sessions with one peer and different ones are different sessions.
    pub source: Option<IpAddr>,
    /// Where it gives none: that of the BGP session. `None` leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// That session stands, from there: the router knows this host by that address and no other.
    pub is_of_session: bool,
    /// The VRF that the peer is in.
    pub vrf: Option<InterfaceName>,
    /// RFC 5883: the peer may be several hops away.
    pub multihop: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct PeerSlice {
    pub settings: Arc<config::Peer>,
    /// Where the peer is now, or why that is not known: then there is no session.
    pub address: Result<ScopedAddress, Reason>,
    pub routes: OrdMap<IpNet, Arc<RouteAttributes>>,
    /// What operators want of it: the session begins anew, or all routes are sent again, whenever the number differs.
    pub orders: PeerOrders,
}

/// For the status writer: what each Service's status should say. Empty unless this agent allocates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatusSlice {
    pub services: OrdMap<ObjectKey, Arc<ServiceStatus>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    pub uid: String,
    /// The version that the decision was made on. A write that meets another version is dropped: a newer object is on its way.
    pub resource_version: String,
    /// What to write; `None` where the status says the right thing already.
    pub write: Option<StatusWrite>,
    /// What to tell the user in an Event, once for each time it changes.
    pub notice: Option<Notice>,
    /// The notice is known: the condition in the status says the same.
    pub told: bool,
    /// What to tell before the write is begun: the Service loses an address by it.
    pub warning: Option<Notice>,
}

/// One write of a status. What it does not name stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusWrite {
    /// The addresses to show.
    pub ingress: Option<Vec<IpAddr>>,
    /// The condition to show; `None`: none any more.
    pub condition: Option<Condition>,
    /// The condition's status differs from what it was, or there was none.
    pub transition: bool,
    /// The pools of the addresses to show, for the annotations.
    pub pools: Vec<PoolName>,
    /// The annotation that asks for other addresses goes with this write.
    pub renumbered: bool,
}

/// What the annotations about pools say of these.
pub fn pools_in_words(pools: &[PoolName]) -> String {
    pools.iter().map(PoolName::as_str).collect::<Vec<_>>().join(",")
}

impl Notice {
    /// The reason of the Events that tell of an address that goes.
    pub const LOSS: &str = "AddressGoes";

    pub fn is_loss(&self) -> bool {
        self.reason == Notice::LOSS
    }
}

/// An Event to be: written when it first appears or differs from the last one written for the Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub warning: bool,
    /// The Event's reason: one word in CamelCase.
    pub reason: String,
    pub message: String,
}
