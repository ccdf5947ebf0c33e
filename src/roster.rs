//! Which nodes are alive on a link, as their pulses say: the words that the pulse and the plan share.
//! Floor 0. Told by `pulse::machine`, kept in the World, read by `plan::elect` and `plan::verdict::l2`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::address::{MacAddress, is_link_local_v6};
use crate::names::{InterfaceName, NodeName};

/// Every node whose pulse was heard on one link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// This node has listened long enough to know the others: it may hold addresses on this link.
    pub settled: bool,
    /// The others that are alive.
    pub members: BTreeMap<NodeName, Member>,
    /// The others that were alive and are not heard any more, although none of them said that it leaves.
    pub silent: BTreeMap<NodeName, Departed>,
    /// The others that said goodbye.
    #[serde(default)]
    pub left: BTreeMap<NodeName, Departed>,
    /// The others whose pulses are heard and have yet to be shown to be no recording, by the MAC that the pulses name.
    #[serde(default)]
    pub unproved: BTreeMap<NodeName, Unproved>,
    /// Nodes of `silent` that are heard, and say that their end of the link receives nothing: what they hold they answer for nobody, and
    /// what their stations say of addresses means nothing. This node, where it says so.
    #[serde(default)]
    pub receive_nothing: BTreeSet<NodeName>,
    /// Names that two hosts have, each with the MAC of the one whose pulses are dropped: this node's own, or another one's. What that
    /// station says of addresses is not what the node of this name does.
    #[serde(default)]
    pub doubles: BTreeMap<NodeName, MacAddress>,
    /// `None` where pulses are not authenticated.
    #[serde(default)]
    pub key_use: Option<KeyUse>,
}

impl Roster {
    /// The node is heard, and is not known to hear this one.
    pub fn may_be_deaf(&self, node: &NodeName) -> bool {
        self.members.get(node).is_some_and(|member| member.deaf) || self.unproved.contains_key(node)
    }
}

/// Names a key of pulses and says nothing else about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub u32);

impl KeyId {
    /// Pulses without a key.
    pub const NONE: KeyId = KeyId(0);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The keys that authenticate pulses on a link, and how far the nodes are with a change of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    /// The key of this node's `key-file`.
    pub new: KeyId,
    /// Those of its `old-key-files`.
    pub old: Vec<KeyId>,
    /// Those that this node seals its pulses with; more than one where the nodes have no key in common.
    pub sealing: Vec<KeyId>,
    /// The nodes that do not accept the new key.
    pub without_new: BTreeSet<NodeName>,
    /// The nodes that accept the new key and still seal with another.
    pub seal_with_old: BTreeSet<NodeName>,
}

/// What another node says of itself in its pulses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Of its end of the link.
    pub mac: MacAddress,
    /// Of other ends of the node on the same wire.
    #[serde(default)]
    pub other_macs: BTreeSet<MacAddress>,
    pub eligibility: Eligibility,
    /// The node answers for addresses.
    pub owner: bool,
    /// The node hears its API server, or needs none.
    pub hears_api_server: bool,
    /// What the node says of itself, told now and then and whenever it changes.
    pub card: Arc<Card>,
    /// The addresses that the node holds, asks for or hands over.
    pub holdings: Holdings,
    /// All of the above were heard, as of the node's newest pulse.
    pub holdings_known: bool,
    /// Addresses that the node found taken by foreign hosts.
    #[serde(default)]
    pub occupied: Arc<BTreeSet<IpAddr>>,
    /// The addresses that packets of pods leave with by the node; `None` of a version that does not say so.
    #[serde(default)]
    pub egress: Option<Arc<BTreeSet<IpAddr>>>,
    /// The addresses that the node announces over BGP, as far as it has told them. It says so only while it hears a node that does not hear
    /// its API server; `None` at other times, and of a version that does not say so.
    #[serde(default)]
    pub over_bgp: Option<Arc<BTreeSet<IpAddr>>>,
    /// How its BGP sessions stand; `None` of a node that has no peer to announce to, and of a version that does not say so.
    #[serde(default)]
    pub sessions: Option<Sessions>,
    /// Its agent restarts, and is back in a moment: the node holds what it says here until then, although nothing is heard of it.
    #[serde(default)]
    pub restarting: bool,
    /// The node waits for nodes that restart.
    #[serde(default)]
    pub waits: bool,
    /// The node does not hear this one, as far as can be told: it has not answered for long, or not since the plan doubts it.
    #[serde(default)]
    pub deaf: bool,
}

impl Member {
    /// A node as it is heard when it may be chosen, knows all that it has to know, and holds nothing.
    pub fn eligible(mac: MacAddress) -> Member {
        Member {
            mac,
            other_macs: BTreeSet::new(),
            eligibility: Eligibility::Eligible,
            owner: false,
            hears_api_server: true,
            card: Arc::default(),
            holdings: Holdings::new(),
            holdings_known: true,
            occupied: Arc::default(),
            egress: None,
            over_bgp: None,
            sessions: None,
            restarting: false,
            waits: true,
            deaf: false,
        }
    }

    /// All that the node has on the wire.
    pub fn macs(&self) -> impl Iterator<Item = MacAddress> {
        std::iter::once(self.mac).chain(self.other_macs.iter().copied())
    }

    /// The node's word about its end of the link is that it has no IPv6 there: whatever it holds, it does not answer there for the
    /// address.
    pub fn is_without_v6(&self, address: IpAddr) -> bool {
        address.is_ipv6() && self.card.lacks_v6()
    }
}

/// No node waits longer for one that restarts, whatever that one says.
pub const LONGEST_RESTART: Duration = Duration::from_secs(10);

/// How many subnets a card names, less its gateways: the others are not said.
pub const MOST_SUBNETS: usize = 8;

/// How many links of its node a card names: of more it names none, because a reader has to know them all.
pub const MOST_ENDS: usize = 16;

/// How many gateways a card names: one of each family. The others are not said.
pub const MOST_GATEWAYS: usize = 2;

/// What a node says of its configuration and its end of the link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its weight in each `[[l2]]` that it serves on this link. An `[[l2]]` that is not named it does not serve.
    pub weights: BTreeMap<L2Number, u32>,
    /// Its subnets on this link.
    pub subnets: BTreeSet<IpNet>,
    /// Of all in its configuration that decides who holds an address.
    pub ownership_digest: u64,
    /// Of all in its configuration that decides who gets which address.
    pub allocation_digest: u64,
    /// What it gives, once that has stood for some seconds, where it has no API server and so chooses for itself.
    #[serde(default)]
    pub given: Option<Given>,
    /// Of the Lease of its crier; `None` without an API server, and of a version that does not say so.
    #[serde(default)]
    pub lease: Option<u64>,
    /// `None` of a version that does not say so, of a node with more than [`MOST_ENDS`], and of one with a very long name.
    #[serde(default)]
    pub ends: Option<Ends>,
    /// Addresses of pools that are a gateway of its default routes by this link, or were until a moment ago: no node is to answer for one.
    #[serde(default)]
    pub gateways: BTreeSet<IpAddr>,
}

/// By which link a node says this, and on which ones it serves an `[[l2]]`: those that are usable now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub this: LinkNumber,
    pub all: BTreeSet<LinkNumber>,
}

/// A link of a node as its pulses name it: the first octets of the SHA-256 of its name. Two nodes may call two links alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkNumber(pub u32);

impl LinkNumber {
    pub fn of(link: &InterfaceName) -> LinkNumber {
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(link.as_str()).into();
        LinkNumber(u32::from_be_bytes([a, b, c, d]))
    }
}

impl Card {
    /// The node serves another crier than the one of this Lease: it has other Services and other pools, and takes none of this one's
    /// addresses.
    pub fn is_of_other_crier(&self, lease: Option<u64>) -> bool {
        self.lease.zip(lease).is_some_and(|(theirs, own)| theirs != own)
    }

    /// It says its subnets, and a link-local one of IPv6 is not among them. As many as fit do not tell of those that are left out.
    pub fn lacks_v6(&self) -> bool {
        self.says_all_subnets() && !self.subnets.iter().any(|net| is_link_local_v6(net.addr()))
    }

    /// It says its subnets, and none of IPv4 is among them.
    pub fn lacks_v4(&self) -> bool {
        self.says_all_subnets() && !self.subnets.iter().any(|net| net.addr().is_ipv4())
    }

    fn says_all_subnets(&self) -> bool {
        let room = MOST_SUBNETS - self.gateways.len().min(MOST_GATEWAYS);
        (1..room).contains(&self.subnets.len())
    }
}

/// Which addresses a node gives to which Services, as digests. Two nodes that give the same have the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Of the Services that it serves, whether they have an address or not.
    pub services: u64,
    /// Of the addresses, each with its Service.
    pub addresses: u64,
}

/// A node that is not heard any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    pub mac: MacAddress,
    /// How long nothing had been heard of it when it was given up; zero where it said goodbye.
    pub unheard: Duration,
    /// All other nodes fell silent with it, and there were several: it may be this node that does not hear.
    pub suspect: bool,
    /// What it held last.
    pub holdings: Holdings,
    /// It said goodbye a moment ago: what its station still says of addresses means nothing. Who answers later is alive.
    #[serde(default)]
    pub just_left: bool,
}

/// A node whose pulses are heard, and that has answered none of this node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproved {
    pub mac: MacAddress,
    /// It was asked for so long that it would have answered if it heard this node's pulses.
    pub deaf: bool,
    /// It was heard for the first time a moment ago, in this life, and has yet to answer: what it holds is not known.
    #[serde(default)]
    pub new: bool,
    /// What it answers for, as far as it says; empty where it is not deaf, for it may be a recording.
    #[serde(default)]
    pub holdings: Holdings,
    /// The addresses that packets of pods leave with by it, as far as it says.
    #[serde(default)]
    pub egress: Arc<BTreeSet<IpAddr>>,
}

/// What a node says of the addresses that it has to do with.
pub type Holdings = OrdMap<IpAddr, Holding>;

/// What a node says of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The weight that it gives itself for the address, by its own file.
    pub weight: u32,
    pub stage: Stage,
}

/// How far a node has come with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It asks the holder for it.
    Asks,
    /// It answers for it.
    Holds,
    /// It answers for it, and hands it over to this node.
    Grants { to: NodeTicket },
}

impl Stage {
    /// It answers for the address.
    pub fn answers(self) -> bool {
        match self {
            Stage::Holds | Stage::Grants { .. } => true,
            Stage::Asks => false,
        }
    }
}

/// A node's name as a number: the first octets of its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeTicket(pub u64);

impl NodeTicket {
    pub fn of(node: &NodeName) -> NodeTicket {
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = Sha256::digest(node.as_str()).into();
        NodeTicket(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// An `[[l2]]` as pulses name it: the same in two files where it names the same pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct L2Number(pub u32);

/// What a node says of its BGP sessions with the peers that it has something to announce to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sessions {
    /// One of them is established.
    Stand,
    /// None of them is. It may be back in a moment, or no other node has one either.
    Missing,
    /// None of them is, and has not been for some time, while another node had one: what one node alone announces is for others to announce.
    Away,
}

/// Whether a node may be chosen as an owner, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Eligibility {
    /// The node has just started, and listens for others before it may own anything.
    Listening,
    /// The node may be chosen.
    Eligible,
    /// Its Node is excluded from external load balancers.
    Excluded,
    /// Its Node's network is unavailable.
    NetworkUnavailable,
    /// The node does not know its own Node, so it cannot tell whether it is excluded.
    NodeUnknown,
    /// The agent stops. What the node held is free from now on.
    Leaving,
    /// The node's data path is bad: it takes nothing, and keeps what it holds only until a better node asks.
    DataPathBad,
    /// The node has not heard the API server for some time: it gives way to nodes that have.
    ViewStale,
    /// The node's data path was not seen good since its boot: it takes nothing.
    DataPathNotSeen,
    /// The node is being drained: it keeps what it holds until another node asks.
    Draining,
    /// The node was drained: it takes nothing.
    Drained,
    /// A word of a later version: the node may not be chosen.
    Unknown(u8),
}
