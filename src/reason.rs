//! Why a decision is as it is. The function that decides names the reason; status, Events and logs only print it.
//! Floor 0. Reasons are not errors: "no free address" is a reason.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::address::{Family, MacAddress};
use crate::names::{InterfaceName, NamespaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::path_state::PathFault;
use crate::some_of::some;

/// One reason. `Display` is the sentence for people, [`Reason::code`] the word for machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum Reason {
    // Whether the Service is ours at all.
    #[error("the Service is not of type LoadBalancer")]
    NotLoadBalancer,
    #[error("the load balancer class {} is not ours", .class.as_deref().unwrap_or("(none)"))]
    OtherClass { class: Option<String> },
    #[error(
        "the load balancer class {} is not ours any more: the Service keeps what this crier gave it until its status shows something \
         else, and gets nothing new; another crier that serves it gives it an address once status.loadBalancer is emptied",
        .class.as_deref().unwrap_or("(none)")
    )]
    ClassLeft { class: Option<String> },

    // Allocation.
    #[error("the first list of objects is not complete yet")]
    WaitingForLists,
    #[error("the agent that holds the Lease has not written an address yet")]
    WaitingForAllocator,
    #[error("the agent that allocates says: {text}")]
    ToldByAllocator {
        /// The reason of the condition in the status.
        why: String,
        text: String,
    },
    #[error("the address was chosen; the API server has not confirmed it yet")]
    WaitingForStatus,
    #[error("{text}")]
    RequestUnreadable { text: String },
    #[error("the requested address {address} is in no pool")]
    AddressOutsidePools { address: IpAddr },
    #[error("the requested address {address} is in use by {by}")]
    AddressInUse { address: IpAddr, by: ObjectKey },
    #[error("{address} of {with} is not shared with this Service: {why}")]
    AddressNotShared { address: IpAddr, with: ObjectKey, why: Box<Mismatch> },
    #[error("the address {address} is {}, but the Service is {}", Family::of(*.address), families(.wanted))]
    WrongFamily { address: IpAddr, wanted: Vec<Family> },
    #[error("{address} is in pool {actual}, but the Service asks for {}", list(.requested))]
    AddressInOtherPool { address: IpAddr, actual: PoolName, requested: Vec<PoolName> },
    #[error("pool {pool} skips {address}: avoid-network-and-broadcast is set")]
    AddressAvoided { address: IpAddr, pool: PoolName },
    #[error("pool {pool} excludes {address}: no Service gets it anew")]
    AddressExcluded { address: IpAddr, pool: PoolName },
    #[error("{address} is {what}: no Service gets it anew")]
    AddressOfHost { address: IpAddr, what: HostUse },
    #[error(
        "no link that [[l2]] names has an IPv4 address, so which addresses gateways and subnets use is not known yet: no Service gets one \
         before, for half a minute after the start at most"
    )]
    SubnetsUnknown,
    #[error("{address} is reserved for {service} by a [[reservation]]")]
    AddressReserved { address: IpAddr, service: ObjectKey },
    #[error(
        "{address} is replaced ({}): it stays until the new address has stood beside it for {overlap}",
        if *.by_prefix { "its link has another prefix" } else { "annotation crier.dev/renumber" }
    )]
    AddressRenumbered {
        address: IpAddr,
        overlap: String,
        /// Nobody asked for it: the link that the pool names by `prefix-of` has another prefix.
        #[serde(default)]
        by_prefix: bool,
    },
    #[error(
        "the Service requests {address} itself, so crier.dev/renumber does not replace it: change the request, or remove the \
         annotation"
    )]
    RenumberRequested { address: IpAddr },
    #[error("the Service already has {other} of this family, and crier did not assign {address}")]
    AddressToSpare { address: IpAddr, other: IpAddr },
    #[error("the agents found a foreign host on the link that uses {address}")]
    AddressTaken { address: IpAddr },
    #[error(
        "another station on the link answers for {address} as well, as it was with the addresses that the Service had before, one after \
         the other: it keeps this one. `crier status` on the nodes names the station: see to it, or name it in [[l2]] ignore-stations"
    )]
    ExchangedEnough { address: IpAddr },
    #[error("pool {pool} is draining (draining = true): no Service gets an address of it anew")]
    PoolDraining { pool: PoolName },
    #[error("there is no pool \"{pool}\"; there are: {}", list(.known))]
    UnknownPool { pool: PoolName, known: Vec<PoolName> },
    #[error("pool {pool} does not serve this Service: its namespaces or selectors do not match")]
    PoolNotForService { pool: PoolName },
    #[error("{address}, which is reserved for this Service, {}", reserved_note(.by.as_ref()))]
    ReservedNotHeld {
        address: IpAddr,
        /// Who has it; `None` where it is free.
        by: Option<ObjectKey>,
    },
    #[error("pool {pool} goes by the prefix of {link}, and {address} is not below it{}", instead(.present.as_ref()))]
    AddressOfOtherPrefix {
        address: IpAddr,
        pool: PoolName,
        link: InterfaceName,
        /// The address with the same host part below the present prefix; `None` while that is not known.
        present: Option<IpAddr>,
    },
    #[error("no pool with auto-assign = true serves this Service")]
    NoPoolForService,
    #[error("no free {family} address in {}{}{}", list(.pools), rest_note(*.resting), taken_note(.foreign.as_ref()))]
    NoFreeAddress {
        family: Family,
        pools: Vec<PoolName>,
        resting: usize,
        /// A Service that has addresses there which crier did not give.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        foreign: Option<ObjectKey>,
    },
    #[error("the Service requires IPv4 and IPv6, but no pool can give it {missing}")]
    NoDualStack { missing: Family },
    #[error("{address} is in no pool any more")]
    AddressLeftPools { address: IpAddr },
    #[error("{address} is in the status of {by} too, which keeps it")]
    AddressClaimedTwice { address: IpAddr, by: ObjectKey },
    #[error("the namespace {namespace} is not known (yet), and a pool is chosen by the labels of namespaces")]
    NamespaceUnknown { namespace: NamespaceName },
    #[error(
        "{address} is in no pool that is in use, and nothing of the ConfigMap that the file names is in use: the Service keeps it until that is known"
    )]
    PoolUnknown { address: IpAddr },
    #[error("{address} is given up: {why}")]
    AddressGoes { address: IpAddr, why: String },
    #[error(
        "the status shows {}, which crier did not give: another controller writes it, and crier leaves it as it is; let only \
         one of them serve this Service (spec.loadBalancerClass)", list(.shown)
    )]
    ForeignStatus { shown: Vec<String> },
    #[error(
        "another crier serves this Service, {}, and this one leaves it as it is; let only one of them serve Services without a class \
         ([kubernetes] default-class = false in the other's file). To have this one give it an address instead, also where there is no \
         such crier any more, empty status.loadBalancer and remove the condition crier.dev/Allocated: doc/services.md has the command",
        .lease.as_ref().map_or_else(|| "that of the Lease kube-system/crier (its condition crier.dev/Allocated names no other)".to_owned(), |lease| format!("that of the Lease {lease}"))
    )]
    OtherCrier { lease: Option<String> },
    #[error(
        "{} overwrote the status twice within a minute: crier does not write it for some minutes; {}",
        .by.as_ref().map_or_else(|| "another controller".to_owned(), |lease| format!("another crier, that of the Lease {lease},")),
        if .by.is_some() {
            "give all nodes of one crier the same [kubernetes] lease and classes, and two criers classes and pools of their own"
        } else {
            "let only one of them serve this Service (spec.loadBalancerClass)"
        }
    )]
    StatusOverwritten {
        /// The Lease of the crier that did, where its condition stands in the status.
        #[serde(default)]
        by: Option<String>,
    },
    #[error(
        "no {missing} address is free; the Service prefers both families and gets the other one when it can be had"
    )]
    FamilyMissing { missing: Family },
    #[error("assigned {} from {}", list(.addresses), list(.pools))]
    Assigned { addresses: Vec<IpAddr>, pools: Vec<PoolName> },

    // Announcement.
    #[error("announced by this node")]
    Announced,
    #[error("announced to no peer: {why}")]
    NotCarried { why: String },
    #[error("{owner} answers for it")]
    OwnedBy { owner: NodeName },
    #[error("the station {mac} answers for it, and is no known node's: {first} is ranked first")]
    AnsweredByStation { mac: MacAddress, first: NodeName },
    #[error("{first} ranks first for {address} but does not answer for it; run `crier l2 {address}` on {first}")]
    NotTaken { address: IpAddr, first: NodeName },
    #[error(
        "{owner} answers for it, but {} on {}, so this node answers there instead: check that link",
        if *.without_v6 { "has no link-local IPv6 address" } else { "is not heard" },
        list(.links)
    )]
    OwnerNotOnLinks {
        owner: NodeName,
        links: Vec<InterfaceName>,
        /// It is heard there.
        #[serde(default)]
        without_v6: bool,
    },
    #[error(
        "{owner} alone announces it: outbound connections of the Service's pods leave through that node (crier.dev/egress)"
    )]
    EgressOwnedBy { owner: NodeName },
    #[error(
        "no node can send out the outbound connections of the Service's pods (crier.dev/egress): none that [[bgp.advertisement]] \
         selects and that has a [[bgp.peer]] of it (nodes, shutdown) is Ready"
    )]
    NoEgressNode,
    #[error(
        "no node can send out the outbound connections of the Service's pods: none that crier.dev/egress-nodes \"{selector}\" \
         and [[bgp.advertisement]] select and that has a [[bgp.peer]] of it (nodes, shutdown) is Ready"
    )]
    NoSelectedEgressNode { selector: String },
    #[error("the annotation crier.dev/egress-nodes \"{selector}\" does not match the labels of the node")]
    EgressNodeNotSelected { selector: String },
    #[error(
        "this node cannot guard the outbound connections of the Service's pods (crier.dev/egress), so it does not announce the \
         address: {why}"
    )]
    EgressUnguarded { why: String },
    #[error(
        "no link of this node has a subnet with {address}, so this node knows no network by which packets can leave \
         (crier.dev/egress: network); give the pool a vrf, or the node an address in that network"
    )]
    NoEgressNetwork { address: IpAddr },
    #[error(
        "several networks of this node have a subnet with {address}: {} (crier.dev/egress: network); give the pool a vrf",
        list(.networks)
    )]
    SeveralEgressNetworks { address: IpAddr, networks: Vec<InterfaceName> },
    #[error(
        "the VRF {vrf} of the pool is not on this node with a link in it, or [egress] mark-mask has no value left for it \
         (crier.dev/egress)"
    )]
    NoEgressVrf { vrf: InterfaceName },
    #[error(
        "packets with {address} leave by {link} alone, which is down or has no {family} default route any more, and the main table \
         leads into another network (crier.dev/egress: service-ip); set {link} up, and add its route where that is gone: ip route \
         add default via GATEWAY dev {link} metric 200"
    )]
    EgressNetworkAway { address: IpAddr, link: InterfaceName, family: Family },
    #[error(
        "this node knows no link by which packets leave the VRF {vrf}: it has several and no {family} default route with a \
         next hop (crier.dev/egress: network)"
    )]
    NoEgressLink { vrf: InterfaceName, family: Family },
    #[error(
        "{link} has no {family} address with a subnet that packets can have as their source (crier.dev/egress: network)"
    )]
    NoEgressSource { link: InterfaceName, family: Family },
    #[error(
        "{owner} is to own {address} and does not say yet that packets of pods leave with it there (does its agent see \
         crier.dev/egress on the Service?): until then packets are held here"
    )]
    EgressOwnerNotReady { owner: NodeName, address: IpAddr },
    #[error("{owner} has no {family} address on a link of this node, so packets of pods cannot be sent there")]
    EgressOwnerNotOnLink { owner: NodeName, family: Family },
    #[error("{owner} is on no link of this node, and the tunnel there cannot be used: {why}")]
    EgressTunnelBlocked { owner: NodeName, why: String },
    #[error(
        "{owner} is on no link of this node, and there is no tunnel out of a VRF: this Node's address {address} is on {link} in \
         one"
    )]
    EgressTunnelInVrf { owner: NodeName, address: IpAddr, link: InterfaceName },
    #[error(
        "{owner} is on no link of this node, and this Node has no address of a family that {owner} has on a link of this host, \
         so no tunnel leads there"
    )]
    EgressTunnelNoSource { owner: NodeName },
    #[error(
        "more nodes own egress addresses than [egress] mark-mask has values for: packets for {owner} are held here"
    )]
    EgressMarksUsedUp { owner: NodeName },
    #[error(
        "crier.dev/egress needs a Service of type LoadBalancer, and this Service is of another type: outbound connections of its \
         pods leave as they would without egress; change the type, or remove the annotations"
    )]
    EgressNeedsLoadBalancer,
    #[error(
        "crier.dev/egress needs a Service of a load balancer class that is ours, and the class {} is not: outbound connections of its \
         pods leave as they would without egress; change the class, or remove the annotations", .class.as_deref().unwrap_or("(none)")
    )]
    EgressOfOtherClass { class: Option<String> },
    #[error("no [[l2]] covers pool {pool} and this Service")]
    NoL2ForPool { pool: PoolName },
    #[error("no [[bgp.advertisement]] covers pool {pool} and this Service")]
    NoAdvertisement { pool: PoolName },
    #[error("there is no interface {interface}")]
    NoSuchInterface { interface: InterfaceName },
    #[error("the link {interface} is down")]
    LinkDown { interface: InterfaceName },
    #[error("the link {interface} has no carrier")]
    NoCarrier { interface: InterfaceName },
    #[error("no socket for ARP and NDP can be opened on {interface}: {why}")]
    NoSocket { interface: InterfaceName, why: String },
    #[error("{interface} has no link-local IPv6 address; is IPv6 off on it?")]
    NoLinkLocalAddress { interface: InterfaceName },
    #[error(
        "no router is heard on {interface}: no Router Advertisement was received, and no router opened a BGP connection"
    )]
    NoRouterHeard { interface: InterfaceName },
    #[error("there is no default route with a next hop")]
    NoDefaultRoute,
    #[error("the routing table of the VRF {vrf} has no default route with a next hop")]
    NoDefaultRouteInVrf { vrf: InterfaceName },
    #[error("the peer is shut down: shutdown = true in its [[bgp.peer]]")]
    PeerShutDown,
    #[error("an operator shut the peer down; `crier bgp enable` with its name opens the session again")]
    PeerShutByOperator,
    #[error("the secret {path} is missing: create the file with mode 0600, then run `systemctl reload crier`")]
    SecretMissing { path: String },
    #[error(
        "the kernel took the next hop by {interface} out of the default route's nexthop object when the link failed, and no program has put \
         it back: see `ip nexthop`, and start the routing daemon anew that made the object"
    )]
    NextHopDropped { interface: InterfaceName },
    #[error("every next hop of the default route has a session of its own already")]
    NoOtherGateway,
    #[error(
        "it is the same router as peer {peer}, which is in use now, and a router can have only one session with each address of this \
         node: remove one of the two peers, or give them different nodes or source addresses"
    )]
    SameRouter { peer: PeerName },
    #[error("no [[bgp.peer]] of the advertisement is configured for this node")]
    NoPeer,
    #[error(
        "two [[bgp.advertisement]] give {prefix} to peer {peer} with different {key}: {kept} is announced, as the first \
         in the file says, and {ignored} is not"
    )]
    AdvertisementsDisagree { prefix: IpNet, peer: PeerName, key: String, kept: u32, ignored: u32 },
    #[error("no link bandwidth is announced: under external traffic policy Cluster every node reaches all endpoints")]
    LinkBandwidthNeedsLocal,
    #[error("the Service has no serving endpoint")]
    NoEndpoints,
    #[error(
        "no node has a serving endpoint of the Service (external traffic policy Local): its endpoints name no node"
    )]
    EndpointsNameNoNode,
    #[error("this node has no serving endpoint of the Service (external traffic policy Local)")]
    NoLocalEndpoint,
    #[error("no eligible node has a serving endpoint of the Service (external traffic policy Local)")]
    NoNodeWithEndpoint,
    #[error("no node is eligible: {}", list(.excluded))]
    NoEligibleNode { excluded: Vec<String> },
    #[error("the Node {node} is not known (yet)")]
    NodeUnknown { node: NodeName },
    #[error("the node selector does not match this node")]
    NodeNotSelected,
    #[error("the node serves another crier of this cluster: its file names another Lease")]
    NodeOfOtherCrier,
    #[error("the node carries the label node.kubernetes.io/exclude-from-external-load-balancers")]
    NodeExcluded,
    #[error("the node is being drained, and another node can serve")]
    NodeDraining,
    #[error("the node is drained; `crier undrain` on it returns it to service")]
    NodeDrained,
    #[error("the node's data path is bad{}, and another node serves", because(.fault.as_ref()))]
    DataPathBad { fault: Option<PathFault> },
    #[error("the node's data path was not seen good since its boot{}", because(.fault.as_ref()))]
    DataPathNotSeen { fault: Option<PathFault> },
    #[error("the node has not heard the API server for some time, and another node has")]
    NodeViewStale,
    #[error("the node's condition NetworkUnavailable is True")]
    NodeNetworkUnavailable,
    #[error("the node is not Ready")]
    NodeNotReady,
    #[error("the node is not alive: its pulses stopped")]
    NodeSilent,
    #[error("the node reports in its pulses that it receives no frames on this link")]
    NodeReceivesNothing,
    #[error("the node left the link: its agent was stopped, or the link is down there")]
    NodeLeft,
    #[error("the node has no serving endpoint of the Service (external traffic policy Local)")]
    NodeLacksEndpoint,
    #[error("no pulse of the node was heard")]
    NodeNotHeard,
    #[error("the node has just started and still listens for other nodes")]
    NodeListening,
    #[error("the node is leaving")]
    NodeLeaving,
    #[error(
        "the node says that it is not eligible, for a reason that only a later version of crier knows ({eligibility})"
    )]
    NodeIneligible { eligibility: u8 },
    #[error("this node has no usable link: {wanted}")]
    NoInterface { wanted: String },
    #[error(
        "no link on this node has an address in the subnet of {address}, which [[l2]] subnet = \"require\" asks for"
    )]
    NoLinkInSubnet { address: IpAddr },
    #[error(
        "no link of this node that would answer for {address} has a usable IPv6 address ({}): IPv6 is switched off there, or the \
         link-local address is missing or a duplicate; look at: ip -6 address; sysctl net.ipv6.conf.all.disable_ipv6",
        list(.links)
    )]
    NoIpv6OnLink { address: IpAddr, links: Vec<InterfaceName> },
    #[error(
        "no link of this node that would answer for {address} has an IPv4 address ({}), and other nodes have one there: replies to clients \
         would have no route; look at: ip -4 address, or set subnet = \"ignore\" in [[l2]] if routes of another kind lead there",
        list(.links)
    )]
    NoIpv4OnLink { address: IpAddr, links: Vec<InterfaceName> },
    #[error(
        "its pulses name no link-local IPv6 address on the link of {address}: IPv6 is switched off there, or the address is a duplicate"
    )]
    NodeWithoutIpv6 { address: IpAddr },
    #[error("without pulses only nodes with a Node address in {subnet} are candidates for its addresses")]
    NodeOutsideSubnet { subnet: IpNet },
    #[error(
        "{address} is the gateway of {interface}{}, so this node does not answer for it: give the Service another address",
        said_by(.node.as_ref())
    )]
    GatewayOfLink {
        address: IpAddr,
        interface: InterfaceName,
        /// Whose default route leads there, where it is not one of this node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeName>,
    },
    #[error("{mac} uses {address} on {link} already: this node does not answer for {address} until {mac} stops")]
    AddressOccupied { address: IpAddr, link: InterfaceName, mac: MacAddress },
    #[error(
        "{mac} of another node still answers for {address} on {link}, and this node hears no pulse of it: this node does not take the address \
         over; is UDP port 7473 open on both, does the switch pass multicast, and is the pulse key the same?"
    )]
    OwnerStillAnswers { address: IpAddr, link: InterfaceName, mac: MacAddress },
    #[error(
        "{mac} of another node answers for {address} on {link}: without pulses ([pulse] key-file) an address stays with the node that \
         answers for it until that one stops"
    )]
    OwnerKeeps { address: IpAddr, link: InterfaceName, mac: MacAddress },
    #[error(
        "announced by this node, but {mac}{} claimed {address} on {link} too, in the last five minutes",
        of_node(.node.as_ref())
    )]
    AddressContested {
        address: IpAddr,
        link: InterfaceName,
        mac: MacAddress,
        /// Whose station that is, where it is known to be a node's.
        #[serde(default)]
        node: Option<NodeName>,
    },
}

/// What a host or a subnet uses an address for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "use", rename_all = "kebab-case")]
pub enum HostUse {
    #[error("an address of the Node {node}")]
    Node { node: NodeName },
    #[error("an address of {interface} of the host that allocates")]
    Link { interface: InterfaceName },
    #[error("the gateway of {interface}")]
    Gateway { interface: InterfaceName },
    #[error("the network address of {net}")]
    Network { net: IpNet },
    #[error("the broadcast address of {net}")]
    Broadcast { net: IpNet },
    #[error("the subnet-router anycast address of {net}")]
    SubnetRouters { net: IpNet },
    #[error("in {net}, a network that the cluster gives its ClusterIPs from (ServiceCIDR)")]
    ServiceNetwork { net: IpNet },
    /// Any of the above that another host would call otherwise.
    #[error("used by the host that allocates, its gateway or its subnet")]
    Allocator,
    /// It may be only for a moment that this is so no more.
    #[error("left alone still, because until a few minutes ago it was {was}")]
    Lately { was: Box<HostUse> },
}

impl HostUse {
    /// No tool and no kubelet says so of an address that a Service has.
    pub fn is_of_subnet(&self) -> bool {
        match self {
            HostUse::Gateway { .. }
            | HostUse::Network { .. }
            | HostUse::Broadcast { .. }
            | HostUse::SubnetRouters { .. } => true,
            HostUse::Lately { was } => was.is_of_subnet(),
            HostUse::Node { .. } | HostUse::Link { .. } | HostUse::ServiceNetwork { .. } | HostUse::Allocator => false,
        }
    }

    /// The link whose gateway the address is, or was until a few minutes ago.
    pub fn gateway_of(&self) -> Option<&InterfaceName> {
        match self {
            HostUse::Gateway { interface } => Some(interface),
            HostUse::Lately { was } => was.gateway_of(),
            HostUse::Node { .. }
            | HostUse::Link { .. }
            | HostUse::Network { .. }
            | HostUse::Broadcast { .. }
            | HostUse::SubnetRouters { .. }
            | HostUse::ServiceNetwork { .. }
            | HostUse::Allocator => None,
        }
    }

    /// A link has not had the address for some minutes. That may have been a virtual address.
    pub fn is_former_of_link(&self) -> bool {
        matches!(self, HostUse::Lately { was } if matches!(**was, HostUse::Link { .. }))
    }
}

/// Which rule of sharing two Services do not meet: the one that the address belongs to, and the one that is not to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Mismatch {
    /// The other Service has no sharing key.
    #[error("it has no sharing key (annotation crier.dev/share)")]
    NotShared,
    // A key can be as long as a Service.
    #[error("its sharing key is \"{other:.64}\", and the key of this Service is \"{own:.64}\"")]
    Key { own: String, other: String },
    #[error("both have port {port}/{protocol}")]
    Port { protocol: String, port: u16 },
    #[error("its external traffic policy is {other}, and that of this Service is not")]
    Policy { other: String },
    #[error("under external traffic policy Local only Services with the same pod selector share an address")]
    Selector,
    #[error("it is in another namespace, and the pool does not set share-across-namespaces = true")]
    Namespace,
    #[error("its pool {pool} gives no address to this Service")]
    Pool { pool: PoolName },
    #[error("{most} Services have the address already")]
    Full { most: usize },
    /// The address is given to nobody anew, or not to this Service.
    #[error("{why}")]
    Withheld { why: String },
}

impl Reason {
    /// Another station answers for the address on the link, a foreign host's or that of a node that is not heard: an operator must look.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Reason::AddressOccupied { .. } | Reason::OwnerStillAnswers { .. } | Reason::AddressContested { .. }
        )
    }

    /// This node has no link that an `[[l2]]` asks for: what it hears of nobody says nothing of the others.
    pub fn is_of_own_link(&self) -> bool {
        matches!(
            self,
            Reason::NoInterface { .. } | Reason::LinkDown { .. } | Reason::NoCarrier { .. } | Reason::NoSocket { .. }
        )
    }

    /// A Service asks for egress that is no matter of crier's.
    pub fn is_about_egress_of_others(&self) -> bool {
        matches!(self, Reason::EgressNeedsLoadBalancer | Reason::EgressOfOtherClass { .. })
    }

    /// The same without what counts and without what only the links of this host tell: neither makes it another reason, and
    /// what agents write one after the other into an object is to be the same.
    pub fn steady(&self) -> Reason {
        match self {
            Reason::NoFreeAddress { family, pools, resting: _, foreign } => {
                Reason::NoFreeAddress { family: *family, pools: pools.clone(), resting: 0, foreign: foreign.clone() }
            }
            Reason::AddressOfHost { address, what: HostUse::Node { node } } => {
                Reason::AddressOfHost { address: *address, what: HostUse::Node { node: node.clone() } }
            }
            Reason::AddressOfHost { address, what: HostUse::ServiceNetwork { net } } => {
                Reason::AddressOfHost { address: *address, what: HostUse::ServiceNetwork { net: *net } }
            }
            Reason::AddressOfHost { address, what: HostUse::Lately { was: _ } } => {
                let what = HostUse::Lately { was: Box::new(HostUse::Allocator) };
                Reason::AddressOfHost { address: *address, what }
            }
            Reason::AddressOfHost { address, what: _ } => {
                Reason::AddressOfHost { address: *address, what: HostUse::Allocator }
            }
            other => other.clone(),
        }
    }

    /// The word for machines, in kebab-case: the same as in the JSON.
    pub fn code(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(fields)) => {
                fields.get("code").and_then(|code| code.as_str()).unwrap_or("unknown").to_owned()
            }
            // Every variant is an object with a code: the attribute on the enum says so, and a test below holds it.
            Ok(_) | Err(_) => "unknown".to_owned(),
        }
    }
}

fn of_node(node: Option<&NodeName>) -> String {
    node.map(|node| format!(" (node {node})")).unwrap_or_default()
}

fn families(wanted: &[Family]) -> String {
    list(wanted)
}

fn said_by(node: Option<&NodeName>) -> String {
    node.map(|node| format!(", says {node}")).unwrap_or_default()
}

/// So many things are named: a condition has 32,768 characters at most.
const MOST_NAMED: usize = 20;

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    some(items.iter(), MOST_NAMED)
}

/// Only of itself does a node know why.
fn because(fault: Option<&PathFault>) -> String {
    fault.map(|fault| format!(" ({fault})")).unwrap_or_default()
}

fn reserved_note(by: Option<&ObjectKey>) -> String {
    match by {
        Some(by) => format!("is in use by {by}"),
        None => "is free: `crier renumber` gives it to the Service".to_owned(),
    }
}

fn instead(present: Option<&IpAddr>) -> String {
    present.map(|present| format!(": with its host part the address is {present} now")).unwrap_or_default()
}

fn taken_note(foreign: Option<&ObjectKey>) -> String {
    let by = |by| format!("; addresses of {by} there (spec.externalIPs, or of another load balancer) count as taken");
    foreign.map(by).unwrap_or_default()
}

fn rest_note(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" ({count} freed a moment ago and still resting)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_a_code_and_a_sentence() {
        let reason = Reason::AddressInUse { address: "192.0.2.1".parse().unwrap(), by: ObjectKey::new("shop", "web") };
        assert_eq!(reason.code(), "address-in-use");
        assert_eq!(reason.to_string(), "the requested address 192.0.2.1 is in use by shop/web");
        assert_eq!(Reason::NoEndpoints.code(), "no-endpoints");
    }
}
