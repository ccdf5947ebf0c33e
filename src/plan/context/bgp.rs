//! What verdicts about BGP are based on: the advertisements and peers of this node, its identifier and its addresses.
//! Floor 1.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::address::{LocalAddress, Stay};
use crate::community::Community;
use crate::config::{self, Config};
use crate::names::{InterfaceName, NodeName, PeerName};
use crate::plan::slice::Listen;
use crate::plan::{elect, reach};
use crate::reason::Reason;
use crate::route::RouteAttributes;
use crate::selector::Selector;
use crate::world::{DrainStage, Link, Node, World};

/// What this node may announce, and to whom.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BgpContext {
    /// In the order of the `[[bgp.advertisement]]` tables.
    pub advertisements: Vec<AdvertisementContext>,
    /// The peers that this node talks to.
    pub peers: Vec<Arc<config::Peer>>,
    /// Why this node may not announce over BGP at all.
    pub exclusion: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AdvertisementContext {
    /// The node selector lets this node take part.
    pub selected: bool,
    /// What the advertisement says of every route: one copy for all of them.
    pub attributes: Arc<RouteAttributes>,
    pub peers: Vec<PeerName>,
}

impl BgpContext {
    /// The `[[bgp.peer]]` that a session belongs to: a gateway with several next hops has one with each.
    pub fn peer_of(&self, session: &PeerName) -> PeerName {
        match self.peers.iter().any(|peer| peer.name == *session) {
            true => session.clone(),
            false => reach::peer_of(session),
        }
    }

    /// Whether the peer is in the VRF.
    pub fn is_in_vrf(&self, peer: &PeerName, vrf: &InterfaceName) -> bool {
        self.peers.iter().any(|it| it.name == *peer && it.vrf.as_ref() == Some(vrf))
    }

    /// `node` is this node, where it is known.
    pub(super) fn of(config: &Config, me: &NodeName, node: Option<&Node>, drain: Option<DrainStage>) -> BgpContext {
        let selects = |selector: &Option<Selector>| {
            selector.as_ref().is_none_or(|selector| node.is_some_and(|node| selector.matches(&node.labels)))
        };
        let peers: Vec<_> =
            config.bgp.peers.iter().filter(|peer| selects(&peer.nodes)).cloned().map(Arc::new).collect();
        let advertisements = config.bgp.advertisements.iter().map(|it| AdvertisementContext {
            selected: selects(&it.nodes),
            attributes: Arc::new(RouteAttributes {
                // RFC 8326 §4.1: the routes say that they go, and where the peer does not heed that, they are the last choice.
                local_preference: if drain.is_some() { Some(0) } else { it.local_preference },
                med: it.med,
                prepend: it.prepend,
                communities: it
                    .communities
                    .iter()
                    .copied()
                    .chain(drain.map(|_| Community::GRACEFUL_SHUTDOWN))
                    .collect(),
                endpoints: None,
            }),
            peers: peers.iter().filter(|peer| it.reaches(peer)).map(|peer| peer.name.clone()).collect(),
        });
        BgpContext {
            advertisements: advertisements.collect(),
            exclusion: match node {
                Some(_) if drain == Some(DrainStage::Drained) => Some(Reason::NodeDrained),
                Some(node) => elect::exclusion(node),
                None => Some(Reason::NodeUnknown { node: me.clone() }),
            },
            peers,
        }
    }
}

/// Where the speaker accepts connections. Without a peer nobody has a reason to connect, and the port is left to others.
pub fn listen(config: &Config) -> Listen {
    let addresses = if config.bgp.peers.is_empty() { Vec::new() } else { config.bgp.listen.clone() };
    Listen { addresses, port: config.bgp.port }
}

/// The BGP identifier where the configuration leaves it to crier: the Node's first IPv4 InternalIP, else this host's
/// first global IPv4 address, else a number made from the node's name (RFC 6286 §2.1 asks only that it is unique).
pub fn router_id(config: &Config, me: &NodeName, world: &World) -> Option<Ipv4Addr> {
    if config.bgp.router_id.is_some() {
        return config.bgp.router_id;
    }
    let of_node = world.nodes.get(me).and_then(|node| {
        node.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        })
    });
    if of_node.is_some() {
        return of_node;
    }
    if !world.links_listed {
        return None;
    }
    let of_links =
        world.links.values().filter(|link| !link.loopback).flat_map(|link| &link.addresses).find_map(|net| {
            match net.addr() {
                IpAddr::V4(v4) if !v4.is_link_local() => Some(v4),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            }
        });
    Some(of_links.unwrap_or_else(|| identifier_from_name(me)))
}

fn identifier_from_name(me: &NodeName) -> Ipv4Addr {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(me.as_str());
    // A number of class A that is never 0.0.0.0, as some routers refuse others.
    Ipv4Addr::new(digest[0] % 126 + 1, digest[1], digest[2], digest[3])
}

/// Every address of this host with its link. Of the addresses of one link those that the Node object names come first, for they
/// stay where this node is; then in the order of [`Link::addresses`].
pub fn local_addresses(me: &NodeName, world: &World) -> Vec<LocalAddress> {
    let nodes_own = world.nodes.get(me).map(|node| node.addresses.as_slice()).unwrap_or_default();
    let of_link = |link: &Link| {
        let vrf = link.vrf.and_then(|index| world.links.get(&index)).map(|device| device.name.clone());
        let is_nodes_own = |net: &IpNet| nodes_own.contains(&net.addr());
        let (first, then): (Vec<IpNet>, Vec<IpNet>) = link.addresses.iter().copied().partition(is_nodes_own);
        let stay = |net: &IpNet| match (is_nodes_own(net), link.deprecated.contains(&net.addr())) {
            (true, _) => Stay::Nodes,
            (false, false) => Stay::Unknown,
            (false, true) => Stay::Deprecated,
        };
        let local = |net: IpNet| LocalAddress { interface: link.name.clone(), vrf: vrf.clone(), net, stay: stay(&net) };
        first.into_iter().chain(then).map(local).collect::<Vec<_>>()
    };
    world.links.values().flat_map(of_link).collect()
}
