//! What crier keeps of each object: only what a decision reads.
//! Floor 1. The translators in `k8s` and `kernel` make these; nothing here judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{Condition, NodeCounts};
use crate::address::{Family, MacAddress, has_subnet, is_link_local_v6, is_too_wide};
use crate::claim::ConflictKind;
use crate::names::{InterfaceName, NodeName, ObjectKey, PoolName};
use crate::selector::{Labels, Selector};

/// A Service of any type. Of those that are no LoadBalancers the World keeps few: see [`Service::is_kept`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Empty for a Service from a manifest.
    pub uid: String,
    /// What a status write must name so that it never overwrites a newer object. Empty for a Service from a manifest.
    pub resource_version: String,
    pub load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    pub labels: Labels,
    /// The families of the Service, primary first; never empty for a Service of the API server.
    pub families: Vec<Family>,
    pub family_policy: FamilyPolicy,
    pub external_traffic_policy: TrafficPolicy,
    pub ports: Vec<ServicePort>,
    /// `None` where it shares its address with nobody.
    #[serde(default)]
    pub sharing: Option<Box<Sharing>>,
    /// What the annotations and `spec.loadBalancerIP` ask for, or why they cannot be read.
    pub request: Result<Request, RequestError>,
    /// `status.loadBalancer.ingress[].ip`, those that are addresses.
    pub ingress: Vec<IpAddr>,
    /// Those of them with an `ipMode` other than VIP: kube-proxy has no rules for these (KEP-1860).
    #[serde(default)]
    pub not_vip: Vec<IpAddr>,
    /// What `ip-allocated-from-pool` says.
    #[serde(default)]
    pub pools_told: PoolsTold,
    /// The other entries of `status.loadBalancer.ingress`: host names, which crier never writes.
    #[serde(default)]
    pub host_names: Vec<String>,
    /// How outbound connections of its pods leave the cluster; `None` as the host and its CNI do it.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// By which nodes, and to which destinations only; `None` by any and to all.
    #[serde(default)]
    pub egress_bounds: Option<Arc<EgressBounds>>,
    /// `spec.selector`: the labels of its pods. Kept of a Service with egress alone; `None` also where it selects none by itself.
    #[serde(default)]
    pub pod_selector: Option<Arc<Labels>>,
    /// `spec.externalIPs`: addresses that kube-proxy serves for it, of whatever type it is.
    #[serde(default)]
    pub external_ips: Vec<IpAddr>,
    /// What of `spec.externalIPs` and of the status is no address that crier can read: whether it is one of a pool nobody knows.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// `spec.clusterIPs`: addresses that kube-proxy serves for it inside of the cluster.
    #[serde(default)]
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`, as written: from where kube-proxy lets clients in. Empty: from everywhere.
    #[serde(default)]
    pub source_ranges: Vec<String>,
    /// `spec.allocateLoadBalancerNodePorts` is false.
    #[serde(default)]
    pub without_node_ports: bool,
    /// The node that goes first for its addresses on the link, whatever the preferences say: the annotation `crier.dev/node`.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// Its addresses that are to be replaced.
    #[serde(default)]
    pub renumber: Option<Box<Renumber>>,
    /// What crier says of it in its status.
    #[serde(default)]
    pub condition: Option<Arc<Condition>>,
}

/// One that asks for nothing: no LoadBalancer, of no family, with the policies that the API server gives.
impl Default for Service {
    fn default() -> Service {
        Service {
            uid: String::new(),
            resource_version: String::new(),
            load_balancer: false,
            class: None,
            labels: Labels::default(),
            families: Vec::new(),
            family_policy: FamilyPolicy::SingleStack,
            external_traffic_policy: TrafficPolicy::Cluster,
            ports: Vec::new(),
            sharing: None,
            request: Ok(Request::default()),
            ingress: Vec::new(),
            not_vip: Vec::new(),
            pools_told: PoolsTold::Nothing,
            host_names: Vec::new(),
            egress: None,
            egress_bounds: None,
            pod_selector: None,
            external_ips: Vec::new(),
            unreadable: Vec::new(),
            cluster_ips: Vec::new(),
            source_ranges: Vec::new(),
            without_node_ports: false,
            node: None,
            renumber: None,
            condition: None,
        }
    }
}

impl Service {
    /// Whether the World keeps it: a LoadBalancer, one whose status still shows addresses or crier's condition, one that has
    /// external addresses, or one that asks for egress, which needs a LoadBalancer. Of any other Service nothing is kept, because a source tells the whole object at each change,
    /// a change of type included.
    pub fn is_kept(&self) -> bool {
        let has_addresses = !self.ingress.is_empty() || !self.external_ips.is_empty() || !self.unreadable.is_empty();
        let shows = has_addresses || self.condition.is_some();
        self.load_balancer || shows || self.egress.is_some()
    }

    /// The addresses that crier gave it, as its status tells; they may have been overwritten.
    pub fn given(&self) -> Vec<IpAddr> {
        self.condition.as_ref().map(|condition| condition.addresses()).unwrap_or_default()
    }

    /// The pod with these labels is one of its pods, as far as labels tell: those of its namespace.
    pub fn selects(&self, labels: &Labels) -> bool {
        let all = |wanted: &Arc<Labels>| wanted.0.iter().all(|(key, value)| labels.0.get(key) == Some(value));
        self.pod_selector.as_ref().is_some_and(all)
    }

    /// The address is to be replaced, or crier says that it is being replaced.
    pub fn leaves(&self, address: IpAddr) -> bool {
        let wished = self.renumber.iter().any(|renumber| renumber.leaving.contains(&address));
        wished || self.condition.iter().any(|condition| condition.leaving().contains(&address))
    }
}

/// What the annotations `ip-allocated-from-pool` of crier's and of MetalLB's prefix say: crier writes the same into both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolsTold {
    /// Neither is there, or nobody read them: a manifest, or what an older version of crier remembered.
    #[default]
    Nothing,
    Same(Arc<str>),
    /// Somebody else edited or removed one of them.
    Different,
}

/// What the annotation `crier.dev/egress` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Egress {
    /// With the Service's address as its source, and not at all while that cannot be.
    ServiceAddress,
    /// By the network of the Service's address, with the address that the node of the pod has there, and not at all while that
    /// cannot be.
    Network,
    /// Not at all: the annotations cannot be read.
    Closed,
}

/// What the annotations `crier.dev/egress-nodes`, `-to` and `-except` say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressBounds {
    /// Only by nodes with such labels; `None` by any node.
    #[serde(default)]
    pub nodes: Option<Selector>,
    /// `None`: egress is for all destinations outside of the cluster.
    #[serde(default)]
    pub destinations: Option<Arc<Destinations>>,
}

/// The destinations that egress is for. What pods send elsewhere leaves as without egress.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Destinations {
    /// Empty: all.
    pub to: Vec<IpNet>,
    /// But not these.
    pub except: Vec<IpNet>,
}

impl Destinations {
    pub fn covers(&self, destination: IpAddr) -> bool {
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&destination));
        (self.to.is_empty() || is_in(&self.to)) && !is_in(&self.except)
    }

    /// No destination of the family is left, beside those in networks that egress is for in no case.
    pub fn leaves_none<'a>(&'a self, family: Family, never: impl Iterator<Item = &'a IpNet>) -> bool {
        let of_family = |net: &&IpNet| Family::of(net.addr()) == family;
        let out: Vec<IpNet> = self.except.iter().chain(never).filter(of_family).copied().collect();
        // Networks that fill another one together are one network by then, or lie in one.
        let out = IpNet::aggregate(&out);
        let whole = match family {
            Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let to = if self.to.is_empty() { std::slice::from_ref(&whole) } else { &self.to };
        to.iter().filter(of_family).all(|net| out.iter().any(|out| out.contains(net)))
    }
}

impl fmt::Display for Destinations {
    /// `192.0.2.0/24, fd00::/8 except 192.0.2.7/32`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nets: &[IpNet]| nets.iter().map(IpNet::to_string).collect::<Vec<_>>().join(", ");
        match self.to.as_slice() {
            [] => f.write_str("all")?,
            to => f.write_str(&list(to))?,
        }
        if self.except.is_empty() { Ok(()) } else { write!(f, " except {}", list(&self.except)) }
    }
}

/// `spec.ipFamilyPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FamilyPolicy {
    SingleStack,
    /// Both families where a pool offers both, else one.
    PreferDualStack,
    RequireDualStack,
}

/// `spec.externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    Cluster,
    Local,
}

/// What a Service says of sharing its address with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sharing {
    /// Services with the same key may have one address. Never empty.
    pub key: String,
    /// `spec.selector`: under external traffic policy Local only Services of the same pods share an address.
    pub selector: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServicePort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub port: u16,
}

/// What a Service asks for. All empty: any address of any pool with `auto-assign`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Several: an address of each. No pool twice.
    pub pools: Vec<PoolName>,
}

/// The wish that a Service gets other addresses: the annotation [`Renumber::ANNOTATION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renumber {
    /// The addresses that the Service is to have no longer. At least one.
    pub leaving: Vec<IpAddr>,
    /// How long they stay beside the new ones, once the status shows both.
    pub overlap: Duration,
}

impl Renumber {
    pub const ANNOTATION: &'static str = "crier.dev/renumber";

    /// So long at most, and more than any client keeps an address.
    pub const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);
}

/// Why the request of a Service cannot be read. The text names the annotation or field and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RequestError {
    #[error("{field} is \"{value}\": {problem}")]
    Malformed { field: String, value: String, problem: String },
    #[error("{first} and {second} ask for different things; keep one of them")]
    Contradiction { first: String, second: String },
}

/// The serving endpoints of one EndpointSlice, counted by node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSlice {
    pub service: ObjectKey,
    /// Of the endpoints' addresses; `None` where the slice does not say: then they count for both.
    #[serde(default)]
    pub family: Option<Family>,
    /// Endpoints that are ready, by the node they name: all in `serving` but those that terminate.
    #[serde(default)]
    pub ready: NodeCounts,
    /// Endpoints that are ready, or still serving while they terminate, by the node they name.
    pub serving: NodeCounts,
    /// Serving endpoints that name no node: usable with external traffic policy Cluster, not with Local.
    pub serving_without_node: u32,
    /// Endpoints that take no connections yet or any longer, by the node they name.
    #[serde(default)]
    pub unready: NodeCounts,
    /// The addresses of all endpoints, of those too that are not ready: what a pod opens does not wait for that.
    #[serde(default)]
    pub addresses: EndpointAddresses,
}

/// The addresses of the endpoints of one slice, each with its tenant. A cluster has many of these, so an address takes what its
/// octets take, and a tenant four.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub enum EndpointAddresses {
    #[default]
    None,
    V4(Box<[(Ipv4Addr, Tenant)]>),
    V6(Box<[(Ipv6Addr, Tenant)]>),
}

impl EndpointAddresses {
    /// Those of the family of the first one: a slice has addresses of one family.
    pub fn of(addresses: &[(IpAddr, Tenant)]) -> EndpointAddresses {
        let v4 = |(address, tenant): &(IpAddr, Tenant)| match address {
            IpAddr::V4(v4) => Some((*v4, *tenant)),
            IpAddr::V6(_) => None,
        };
        let v6 = |(address, tenant): &(IpAddr, Tenant)| match address {
            IpAddr::V6(v6) => Some((*v6, *tenant)),
            IpAddr::V4(_) => None,
        };
        match addresses.first() {
            None => EndpointAddresses::None,
            Some((IpAddr::V4(_), _)) => EndpointAddresses::V4(addresses.iter().filter_map(v4).collect()),
            Some((IpAddr::V6(_), _)) => EndpointAddresses::V6(addresses.iter().filter_map(v6).collect()),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.tenants().map(|(address, _)| address)
    }

    /// The addresses, each with the pod that has it.
    pub fn tenants(&self) -> impl Iterator<Item = (IpAddr, Tenant)> + '_ {
        let (v4, v6) = match self {
            EndpointAddresses::None => (&[][..], &[][..]),
            EndpointAddresses::V4(v4) => (&v4[..], &[][..]),
            EndpointAddresses::V6(v6) => (&[][..], &v6[..]),
        };
        let v4 = v4.iter().map(|(address, tenant)| (IpAddr::V4(*address), *tenant));
        v4.chain(v6.iter().map(|(address, tenant)| (IpAddr::V6(*address), *tenant)))
    }
}

/// Of which nobody says who has them.
impl From<Vec<IpAddr>> for EndpointAddresses {
    fn from(addresses: Vec<IpAddr>) -> EndpointAddresses {
        let unknown: Vec<_> = addresses.into_iter().map(|address| (address, Tenant::default())).collect();
        EndpointAddresses::of(&unknown)
    }
}

/// As they are kept on disk: `10.244.1.7`, and behind a space the tenant, where it is known.
impl From<EndpointAddresses> for Vec<String> {
    fn from(addresses: EndpointAddresses) -> Vec<String> {
        let text = |(address, Tenant(tenant)): (IpAddr, Tenant)| match tenant {
            0 => address.to_string(),
            _ => format!("{address} {tenant:x}"),
        };
        addresses.tenants().map(text).collect()
    }
}

impl TryFrom<Vec<String>> for EndpointAddresses {
    type Error = String;

    fn try_from(texts: Vec<String>) -> Result<EndpointAddresses, String> {
        let read = |text: &String| {
            let (address, tenant) = text.split_once(' ').unwrap_or((text, "0"));
            Some((address.parse::<IpAddr>().ok()?, Tenant(u32::from_str_radix(tenant, 16).ok()?)))
        };
        let wrong = |text: &String| format!("\"{text:.64}\" is no address of an endpoint");
        let read = texts.iter().map(|text| read(text).ok_or_else(|| wrong(text))).collect::<Result<Vec<_>, _>>()?;
        Ok(EndpointAddresses::of(&read))
    }
}

/// The pod that has the address of an endpoint, and whether it terminates. The pod is told by 31 bits of its UID: that two tenants
/// differ is certain, that they are one is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tenant(u32);

impl Tenant {
    /// `uid`: that of the pod.
    pub fn of(uid: &str, terminates: bool) -> Tenant {
        // FNV-1a: the same in every process.
        let hash = uid.bytes().fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193));
        Tenant((hash | TELLS) & !TERMINATES | u32::from(terminates))
    }

    /// `None`: the EndpointSlice does not say which pod it is.
    pub fn pod(self) -> Option<PodMark> {
        (self.0 != 0).then_some(PodMark(self.0 & !TERMINATES))
    }

    pub fn terminates(self) -> bool {
        self.0 & TERMINATES != 0
    }
}

const TERMINATES: u32 = 1;
/// Whoever is known is not 0.
const TELLS: u32 = 2;

/// A pod as [`Tenant`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodMark(u32);

/// An address that this node holds back although no Service with egress has it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPod {
    /// When it is let go.
    pub until: SystemTime,
    /// The pod that had it when a Service with egress last did, where that is known.
    pub pod: Option<PodMark>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub labels: Labels,
    /// Condition Ready is True, or absent.
    pub ready: bool,
    /// Condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// InternalIP addresses, in order.
    pub addresses: Vec<IpAddr>,
    /// ExternalIP addresses, in order: those of another network of the host, or of a translation in front of it.
    #[serde(default)]
    pub external_ips: Vec<IpAddr>,
    /// The boot of the host that its kubelet has last reported of; `None` where no kubelet reports.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// `spec.podCIDRs`: the addresses of its pods.
    #[serde(default)]
    pub pod_networks: Vec<IpNet>,
    /// How OVN-Kubernetes sends out outbound connections of pods; `None` where it does not say that, or is not there.
    #[serde(default)]
    pub ovn_gateway: Option<OvnGateway>,
    #[serde(default)]
    pub marks: Marks,
}

/// By what packets of OVN-Kubernetes' pods leave a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OvnGateway {
    /// By its own switch alone, past the host's netfilter and its routes: OpenShift's default.
    Shared,
    /// By the host (`routingViaHost`).
    Local,
}

impl OvnGateway {
    /// The annotation of a Node that says which, as JSON.
    pub const ANNOTATION: &'static str = "k8s.ovn.org/l3-gateway-config";
    /// The link that OVN-Kubernetes makes on each node, in both.
    pub const LINK: &'static str = "ovn-k8s-mp0";
}

/// What a Node says of its coming and going. Nothing is decided by it, unless `[drain]` asks for that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// `spec.unschedulable`: it is cordoned.
    pub cordoned: bool,
    /// The keys of its taints, in order, each once.
    pub taints: Vec<String>,
    /// The annotation [`Marks::DRAIN`].
    pub drain: Option<String>,
}

impl Marks {
    /// What the Node's own agent says of a drain.
    pub const DRAIN: &'static str = "crier.dev/drain";
}

impl Node {
    /// The label by which a cluster keeps a node out of external load balancers, whatever its value.
    pub const EXCLUDE_LABEL: &'static str = "node.kubernetes.io/exclude-from-external-load-balancers";
}

/// A setting of this host that prevents announcing, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostProblem {
    pub problem: String,
    /// The exact commands, and where else the cause can be removed.
    pub remedy: String,
}

impl fmt::Display for HostProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostProblem { problem, remedy } = self;
        write!(f, "{problem}; {remedy}")
    }
}

/// How this node reaches the owners of egress addresses, as the kernel has it: the device of the tunnel, and the routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressReach {
    /// The largest packet of a pod that passes the tunnel; `None` where there is no device.
    pub mtu: Option<u32>,
    /// Why there is no device although one is wanted, or why it is not as it should be.
    pub problem: Option<HostProblem>,
    /// The device of the name is another program's.
    #[serde(default)]
    pub foreign: bool,
    /// By the slots of owners, on a link or by the tunnel: why the kernel takes no route there.
    #[serde(default)]
    pub refused: BTreeMap<u8, String>,
    /// Policy rules of other programs that take packets of pods away before they are led to an owner.
    #[serde(default)]
    pub led_away: Vec<HostProblem>,
}

/// A network interface of this host, by its kernel index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub index: u32,
    pub name: InterfaceName,
    /// `None` where the link has no Ethernet address.
    pub mac: Option<MacAddress>,
    /// Administratively up.
    pub up: bool,
    /// The kernel says that frames can pass (operational state up or unknown).
    pub carrier: bool,
    pub loopback: bool,
    /// The link can broadcast and does ARP.
    pub arp: bool,
    /// The index of the bond or bridge that this link is a port of; frames go through that one.
    pub master: Option<u32>,
    /// The index of the VRF device that this link is enslaved to. Frames still go through this link.
    #[serde(default)]
    pub vrf: Option<u32>,
    /// The index of the link on whose wire this one lies too, with a MAC of its own or the same: it is a macvlan, macvtap, ipvlan or ipvtap of
    /// this network namespace.
    #[serde(default)]
    pub parent: Option<u32>,
    /// The host's own, IPv4 first. Within a family those with a subnet before host prefixes, and of those the ones that stay
    /// before leased, temporary and deprecated ones.
    pub addresses: Vec<IpNet>,
    /// Of these, the deprecated ones (RFC 4862 §5.5.4): on their way out.
    #[serde(default)]
    pub deprecated: BTreeSet<IpAddr>,
    /// Of these, the link-local ones that the kernel made for the link: nobody else has put them there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub kernels: BTreeSet<IpAddr>,
}

impl Node {
    /// The networks of its pods: its `podCIDRs` but for what is too wide for that.
    pub fn networks_of_pods(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.pod_networks.iter().filter(|net| !is_too_wide_for_pods(net)).map(IpNet::trunc)
    }

    /// Those of its `podCIDRs` that no node's pods fill: destinations there would all count as inside of the cluster.
    pub fn too_wide_for_pods(&self) -> impl Iterator<Item = &IpNet> {
        self.pod_networks.iter().filter(|net| is_too_wide_for_pods(net))
    }
}

fn is_too_wide_for_pods(net: &IpNet) -> bool {
    is_too_wide(net) || is_too_wide_for_public(net)
}

/// No single Node has so many addresses of the Internet for its pods, and others answer at most of them.
fn is_too_wide_for_public(net: &IpNet) -> bool {
    let is_private = match net {
        IpNet::V4(net) => PRIVATE_V4.iter().any(|(first, length)| {
            let private = Ipv4Net::new_assert(*first, *length);
            private.contains(net)
        }),
        // RFC 4193 §3.
        IpNet::V6(net) => net.prefix_len() >= 7 && net.addr().is_unique_local(),
    };
    !is_private && net.prefix_len() < if net.addr().is_ipv4() { 16 } else { 32 }
}

/// RFC 1918 §3 and RFC 6598 §7.
const PRIVATE_V4: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
];

impl Link {
    /// Its MAC is of a virtual router (RFC 9568 §7.3): keepalived gives it to a link on every node, and it is one node's at a time.
    pub fn is_of_virtual_router(&self) -> bool {
        self.mac.is_some_and(|mac| matches!(mac.0, [0, 0, 0x5e, 0, 1 | 2, _]))
    }

    /// Its addresses in subnets: without link-local ones, and without those of Services, which a host may have bound there.
    pub fn in_subnets(&self) -> impl Iterator<Item = &IpNet> + Clone {
        let is_in_subnet = |net: &&IpNet| has_subnet(net) && !is_link_local_v6(net.addr());
        self.addresses.iter().filter(is_in_subnet)
    }
}

#[cfg(test)]
impl Link {
    /// One over which frames pass, of no bond, bridge or VRF, and without an Ethernet address.
    pub fn carrying(index: u32, name: &str, nets: &[&str]) -> Link {
        Link {
            index,
            name: name.into(),
            mac: None,
            up: true,
            carrier: true,
            loopback: false,
            arp: true,
            master: None,
            vrf: None,
            parent: None,
            addresses: nets.iter().map(|net| net.parse().expect("an address with its prefix")).collect(),
            deprecated: BTreeSet::new(),
            kernels: BTreeSet::new(),
        }
    }
}

/// One way of a default route of this host, in the main table or in that of a VRF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRoute {
    /// Whose packets it leads: a route of IPv4 can have a next hop of IPv6 (RFC 8950 and unnumbered racks).
    pub family: Family,
    /// `None` for a route to the link itself, as those of tunnels, of PPP and of some clouds are.
    pub gateway: Option<IpAddr>,
    /// The kernel's index of the link that it goes out by.
    pub link: u32,
    /// Lower is preferred, within a family.
    pub metric: u32,
    /// The index of the VRF device whose table the route is in; `None` for the main table.
    #[serde(default)]
    pub vrf: Option<u32>,
    /// The kernel sends nothing by it: its link is down, or has no carrier.
    #[serde(default)]
    pub dead: bool,
    /// The kernel took it out of the route's nexthop object when its link failed, and nobody has put it back. Such a one is dead.
    #[serde(default)]
    pub dropped: bool,
}

/// The numbers in the marks that networks beside that of the default route have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNumbers {
    /// Of links, each with the families that it was such a network in.
    pub links: BTreeMap<InterfaceName, (u8, BTreeSet<Family>)>,
    /// Of VRFs, by the number of the table.
    pub vrfs: BTreeMap<u32, u8>,
}

#[cfg(test)]
impl DefaultRoute {
    /// One of the gateway's own family, in the main table.
    pub fn via(gateway: &str, link: u32, metric: u32) -> DefaultRoute {
        let gateway: IpAddr = gateway.parse().expect("an address");
        DefaultRoute {
            family: Family::of(gateway),
            gateway: Some(gateway),
            link,
            metric,
            vrf: None,
            dead: false,
            dropped: false,
        }
    }

    /// One of IPv4 to the link itself, in the main table.
    pub fn dev(link: u32, metric: u32) -> DefaultRoute {
        DefaultRoute { family: Family::V4, gateway: None, link, metric, vrf: None, dead: false, dropped: false }
    }
}

/// Another station uses or claims an address that this node is to answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The hardware address heard last.
    pub mac: MacAddress,
    pub kind: ConflictKind,
    pub since: SystemTime,
}
