//! The configuration: TOML in, [`Config`] out, or every mistake at once with file, line, caret and hint.
//! Floor 1. Nothing here reads a file or a clock; only [`load`] does, which is an edge.
//!
//! `document` makes one tree of the files, `shape` holds it against the table of `options`, and `sections`, `pools`
//! and `routing` make a [`Config`] of it. All of them complain, none of them stops at the first mistake.

mod complaint;
mod document;
pub mod duration;
mod example;
pub mod load;
pub mod options;
mod pools;
mod reader;
mod routing;
mod secret_entries;
pub mod secrets;
mod sections;
mod shape;
mod show;
mod syntax;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{AddressRange, ScopedAddress};
use crate::community::Community;
use crate::names::{InterfaceName, NamespaceName, NodeName, ObjectKey, PeerName, PoolName};
use crate::selector::Selector;

pub use complaint::{Complaint, Complaints, Place, Position};
pub use example::example;
pub use secrets::{NoSecrets, SecretFile, Secrets};
pub use show::show;

/// A file of the configuration, already read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// As complaints should name it. It is not opened.
    pub path: String,
    pub text: String,
}

/// Makes a configuration of the main file and its drop-ins, in that order.
///
/// A drop-in overrides keys and appends to lists of tables. On error nothing was changed anywhere, and the complaints
/// are all that can be said at once: everything, or what is no TOML at all. The secrets that the files name are read from
/// `secrets`, so one that cannot be used is a complaint like any other.
pub fn parse(files: &[SourceFile], secrets: &dyn Secrets) -> Result<Config, Complaints> {
    let mut complaints = Vec::new();
    let mut merged = document::Table::root();
    let mut all_readable = true;
    for (number, file) in files.iter().enumerate() {
        match document::read(number, file) {
            Ok(mut table) => {
                shape::check(&mut table, &mut complaints);
                document::merge("", &mut merged, table);
            }
            Err(complaint) => {
                all_readable = false;
                complaints.push(complaint);
            }
        }
    }
    // With a file missing, references into it would be complained about as well.
    let config = if all_readable { sections::read(&merged, secrets, &mut complaints) } else { None };
    match config {
        Some(config) if complaints.is_empty() => Ok(config),
        _ => {
            reader::explain_refusal(&mut complaints, &merged.place);
            Err(Complaints::new(files, complaints))
        }
    }
}

/// The candidate that the text was most likely meant to be, if any is close: at most a third of it is different.
fn nearest<'c>(text: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.map(|candidate| (strsim::damerau_levenshtein(text, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= text.chars().count().div_ceil(3)).then_some(candidate)
}

/// A configuration that was checked whole. Every reference in it resolves, every value is in its range.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub node: Node,
    pub api: Api,
    pub state: State,
    pub source: Source,
    pub pools: Vec<Pool>,
    pub l2: Vec<L2>,
    pub pulse: Pulse,
    pub bgp: Bgp,
    pub host: Host,
    pub log: Log,
}

impl Config {
    /// Manifests instead of an API server: every agent chooses addresses, and nobody confirms them.
    pub fn is_standalone(&self) -> bool {
        matches!(self.source, Source::Manifests(_))
    }

    /// Every secret that the configuration names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretFile> {
        let of_pulse = match &self.pulse.key {
            PulseKey::Shared(key) => Some(key),
            PulseKey::Unauthenticated | PulseKey::Absent => None,
        };
        let peers = &self.bgp.peers;
        let keys = peers.iter().flat_map(|peer| &peer.tcp_ao).map(|key| &key.secret);
        peers.iter().filter_map(|peer| peer.password.as_ref()).chain(keys).chain(of_pulse)
    }
}

/// `[node]`
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// `None` is `"auto"`: the host name.
    pub name: Option<NodeName>,
    /// The label that takes nodes out of load balancing counts for nothing.
    pub ignore_exclude_label: bool,
}

/// `[api]`
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    pub socket: PathBuf,
    /// Where metrics and health are served; `None` for nowhere.
    pub listen: Option<std::net::SocketAddr>,
}

/// `[state]`
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub folder: PathBuf,
}

/// Where Services come from: exactly one of `[kubernetes]` and `[manifests]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    Kubernetes(Kubernetes),
    Manifests(Manifests),
}

/// `[kubernetes]`
#[derive(Debug, Clone, PartialEq)]
pub struct Kubernetes {
    pub access: Access,
    pub class: String,
    pub default_class: bool,
    /// `namespace/name` of the Lease whose holder allocates.
    pub lease: ObjectKey,
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    Kubeconfig(PathBuf),
    /// The service account files and variables that Kubernetes gives a pod.
    InCluster,
}

/// `[manifests]`
#[derive(Debug, Clone, PartialEq)]
pub struct Manifests {
    pub folder: PathBuf,
}

/// `[[pool]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    pub name: PoolName,
    /// In the order written, which is the order they are handed out in.
    pub addresses: Vec<AddressRange>,
    pub auto_assign: bool,
    /// Skip IPv4 addresses that end in .0 or .255.
    pub avoid_network_and_broadcast: bool,
    /// Lower is asked first; `None` comes after every number.
    pub priority: Option<u32>,
    /// Empty: every namespace, unless the selector says otherwise.
    pub namespaces: Vec<NamespaceName>,
    pub namespace_selector: Option<Selector>,
    pub service_selector: Option<Selector>,
    /// How long a freed address is kept back.
    pub rest: Duration,
    pub bind: Option<InterfaceName>,
}

/// `[[l2]]`
#[derive(Debug, Clone, PartialEq)]
pub struct L2 {
    /// Empty: all pools.
    pub pools: Vec<PoolName>,
    /// Empty: every link that can do ARP and is not excluded.
    pub interfaces: Vec<InterfacePattern>,
    pub exclude_interfaces: Vec<InterfacePattern>,
    pub nodes: Option<Selector>,
    pub preference: Vec<Preference>,
    /// An address stays with its owner when a node comes back that would be better only by chance.
    pub sticky: bool,
    pub subnet: Subnet,
}

/// `[pulse]`
#[derive(Debug, Clone, PartialEq)]
pub struct Pulse {
    /// How often an owner of addresses says that it is alive: whole milliseconds.
    pub interval: Duration,
    /// After how many missing pulses an owner counts as silent.
    pub multiplier: NonZeroU8,
    pub key: PulseKey,
    /// Nodes on the same link that are sent pulses besides the multicast group.
    pub peers: Vec<IpAddr>,
}

/// What pulses are sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PulseKey {
    /// The key of the cluster, of at least [`LEAST_PULSE_KEY`] octets.
    Shared(SecretFile),
    /// Nothing, because the configuration wants it so.
    Unauthenticated,
    /// There is none, and so no pulse.
    Absent,
}

/// Octets of a key that is no password which can be guessed.
pub const LEAST_PULSE_KEY: usize = 16;

/// Whether a link must have an address of the subnet that an announced address is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subnet {
    /// Links that have one, or all where none has.
    Prefer,
    /// Only links that have one.
    Require,
    /// All links, as MetalLB does.
    Ignore,
}

/// One entry of `preference`: matching nodes score `weight` more.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    pub nodes: Selector,
    pub weight: u32,
}

/// An interface name, or its beginning with a `*` behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfacePattern {
    Exact(InterfaceName),
    StartsWith(String),
}

impl InterfacePattern {
    pub fn matches(&self, name: &InterfaceName) -> bool {
        match self {
            InterfacePattern::Exact(exact) => exact == name,
            InterfacePattern::StartsWith(start) => name.as_str().starts_with(start),
        }
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfacePattern::Exact(name) => write!(f, "{name}"),
            InterfacePattern::StartsWith(start) => write!(f, "{start}*"),
        }
    }
}

/// `[bgp]` with its peers and advertisements. Without peers the speaker does nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Bgp {
    /// `None` only where no peer needs it.
    pub asn: Option<u32>,
    /// `None` is `"auto"`.
    pub router_id: Option<Ipv4Addr>,
    /// Empty: only dials.
    pub listen: Vec<IpAddr>,
    pub port: u16,
    pub peers: Vec<Peer>,
    pub advertisements: Vec<Advertisement>,
}

/// `[[bgp.peer]]`, with the values of `[bgp]` filled in where it names none.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    pub name: PeerName,
    pub address: PeerAddress,
    pub asn: PeerAsn,
    /// The AS number that we show this peer: its `local-asn`, else `asn` of `[bgp]`. Never 0.
    pub local_asn: u32,
    /// `None` is no hold timer at all; else at least 3 s.
    pub hold_time: Option<Duration>,
    /// `None` is a third of the agreed hold time.
    pub keepalive_time: Option<Duration>,
    pub connect_retry_time: Duration,
    pub source_address: Option<IpAddr>,
    pub port: u16,
    /// Wait for the peer's connection, never dial.
    pub passive: bool,
    /// How many hops away the peer may be, 1 to 255: the TTL of what it is sent.
    pub multihop: u8,
    /// Take packets from the link only (RFC 5082). `multihop` is 1 then.
    pub ttl_security: bool,
    /// What both ends sign their segments with (TCP MD5, RFC 2385): 1 to [`LONGEST_PASSWORD`] octets.
    pub password: Option<SecretFile>,
    /// The keys of TCP-AO (RFC 5925), the one to send with first. Empty where there is a password, and where nothing is signed.
    pub tcp_ao: Vec<AoKey>,
    /// The device of the VRF that the peer is in.
    pub vrf: Option<InterfaceName>,
    /// The BGP identifier that this peer sees; `None`: that of `[bgp]`.
    pub router_id: Option<Ipv4Addr>,
    /// Which nodes talk to this peer; `None`: all.
    pub nodes: Option<Selector>,
}

/// One entry of `tcp-ao`: a master key tuple of RFC 5925 §3.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoKey {
    /// The KeyID that our segments carry.
    pub send_id: u8,
    /// The KeyID that the peer's segments carry.
    pub receive_id: u8,
    pub algorithm: AoAlgorithm,
    /// 1 to [`LONGEST_PASSWORD`] octets.
    pub secret: SecretFile,
}

/// The algorithms of RFC 5926, both cut to 96 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AoAlgorithm {
    HmacSha1,
    Aes128Cmac,
}

impl AoAlgorithm {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            AoAlgorithm::HmacSha1 => "hmac-sha-1-96",
            AoAlgorithm::Aes128Cmac => "aes-128-cmac-96",
        }
    }
}

/// Octets of a key of TCP MD5 or TCP-AO, `TCP_MD5SIG_MAXKEYLEN` and `TCP_AO_MAXKEYLEN` of Linux.
pub const LONGEST_PASSWORD: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAsn {
    Is(u32),
    /// Any AS number but ours.
    External,
    /// Ours.
    Internal,
}

/// Where a peer is, or how to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAddress {
    Fixed(ScopedAddress),
    /// Unnumbered: the router that is heard on this link, by its link-local address.
    Interface(InterfaceName),
    /// The next hop of this host's default route.
    Gateway,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Fixed(address) => address.fmt(f),
            PeerAddress::Interface(interface) => interface.fmt(f),
            PeerAddress::Gateway => f.write_str("gateway"),
        }
    }
}

/// `[[bgp.advertisement]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Advertisement {
    /// Empty: all pools.
    pub pools: Vec<PoolName>,
    /// Empty: all peers.
    pub peers: Vec<PeerName>,
    pub service_selector: Option<Selector>,
    pub nodes: Option<Selector>,
    /// 1 to 32.
    pub aggregation_length: u8,
    /// 1 to 128.
    pub aggregation_length_v6: u8,
    pub local_preference: Option<u32>,
    pub med: Option<u32>,
    pub prepend: u8,
    /// Aliases resolved, sorted, without repetition.
    pub communities: Vec<Community>,
    /// Weigh this node by its ready endpoints, under external traffic policy Local.
    pub link_bandwidth: bool,
}

/// `[host]`
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Set the sysctls that announcing on the link needs, instead of only saying so.
    pub manage_sysctls: bool,
    /// Plain ARP requests are answered by a small program in the kernel, where it takes one.
    pub arp_offload: bool,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A filter as RUST_LOG has it.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Text,
    Json,
}
