//! What verdicts about BGP are based on: the advertisements and peers of this node, its identifier and its addresses.
//! Floor 1.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};

use crate::address::{Family, LocalAddress, Stay};
use crate::community::Community;
use crate::config::{self, Config, PeerAddress};
use crate::names::{InterfaceName, NodeName, PeerName};
use crate::plan::named_links::is_of_containers;
use crate::plan::slice::Listen;
use crate::plan::{elect, reach};
use crate::reason::Reason;
use crate::route::RouteAttributes;
use crate::selector::Selector;
use crate::world::{DrainStage, Link, Node, SessionReport, SessionState, World};

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
                Some(_) if drain >= Some(DrainStage::Withdrawing) => Some(Reason::NodeDrained),
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

/// The BGP identifier where the configuration leaves it to crier: the Node's first IPv4 InternalIP; else the one that was chosen before,
/// also by an earlier life of the agent, as long as this host has it, or has no other and it was chosen for this node, or a session that was taken over carries it; else
/// [`of_host`], else a number made from the node's name (RFC 6286 §2.1 asks only that it is unique: it need not be an address).
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
    let of_name = identifier_from_name(me);
    let has = |id: &Ipv4Addr| world.links.values().any(|link| own_v4(config, link).any(|net| net.addr() == *id));
    let host = of_host(config, world);
    // An address may be away for the moment in which the agent starts, as before DHCP has answered.
    // With the disk of another node came that one's, which it has still.
    let of_me = world.router_id_of.as_ref().is_none_or(|node| node == me);
    let stays =
        |id: &Ipv4Addr| *id == of_name || has(id) || (host.is_none() && of_me) || is_carried(*id, config, world);
    Some(world.router_id.filter(stays).or(host).unwrap_or(of_name))
}

/// Whether a session has this identifier, which was chosen before. While there is none in use, only those stand that were taken over,
/// or that have the one that was set in the file before.
fn is_carried(id: Ipv4Addr, config: &Config, world: &World) -> bool {
    let has_its_own = |name: &PeerName| {
        let owner = reach::peer_of(name);
        config.bgp.peers.iter().any(|peer| (peer.name == *name || peer.name == owner) && peer.router_id.is_some())
    };
    let has_it = |report: &SessionReport| {
        let negotiated = report.detail.negotiated.as_ref();
        report.state == SessionState::Established && negotiated.is_none_or(|it| it.local_router_id == id)
    };
    world.sessions.iter().any(|(name, report)| has_it(report) && !has_its_own(name))
}

/// The IPv4 address of this host by which others know it: the one towards the gateway of the default route, else towards a peer, else
/// one of the loopback, else the first of its links. Bridges of containers have the same address on every host.
fn of_host(config: &Config, world: &World) -> Option<Ipv4Addr> {
    let first = |link: &Link| own_v4(config, link).next().map(|net| net.addr());
    let towards = |link: &Link, via: IpAddr| {
        let mut near = own_v4(config, link).filter(|net| IpNet::V4(*net).contains(&via));
        near.next().map(|net| net.addr())
    };
    let mut defaults = world.default_routes.iter().filter(|it| it.vrf.is_none() && it.family == Family::V4);
    let by_gateway = defaults.find_map(|route| {
        let link = world.links.get(&route.link)?;
        route.gateway.and_then(|gateway| towards(link, gateway)).or_else(|| first(link))
    });
    let mut peers = config.bgp.peers.iter().filter(|peer| peer.vrf.is_none()).filter_map(|peer| match &peer.address {
        PeerAddress::Fixed(address) => Some(address.ip),
        PeerAddress::Interface(_) | PeerAddress::Gateway => None,
    });
    let outside = || world.links.values().filter(|link| link.vrf.is_none());
    let by_peer = || peers.find_map(|via| outside().find_map(|link| towards(link, via)));
    let of_loopback = |link: &&Link| link.loopback || link.name.as_str().starts_with("dummy");
    let by_loopback = || outside().filter(of_loopback).find_map(first);
    let by_link = || outside().filter(|link| !is_of_containers(link)).find_map(first);
    by_gateway.or_else(by_peer).or_else(by_loopback).or_else(by_link)
}

/// The global IPv4 addresses of a link, without those of Services that are bound there.
fn own_v4<'a>(config: &'a Config, link: &'a Link) -> impl Iterator<Item = Ipv4Net> + 'a {
    link.addresses
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        })
        .filter(|net| !net.addr().is_link_local() && !net.addr().is_loopback())
        .filter(|net| !config.pools.iter().any(|pool| pool.holds(net.addr().into())))
}

fn identifier_from_name(me: &NodeName) -> Ipv4Addr {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(me.as_str());
    // A number of class A that is never 0.0.0.0, as some routers refuse others.
    Ipv4Addr::new(digest[0] % 126 + 1, digest[1], digest[2], digest[3])
}

/// Every address of this host with its link. Of the addresses of one link those that the Node object names come first, and the
/// link-local one that the kernel made, for they stay where this node is; then in the order of [`Link::addresses`].
pub fn local_addresses(me: &NodeName, world: &World) -> Vec<LocalAddress> {
    let nodes_own = world.nodes.get(me).map(|node| node.addresses.as_slice()).unwrap_or_default();
    let of_link = |link: &Link| {
        let vrf = link.vrf.and_then(|index| world.links.get(&index)).map(|device| device.name.clone());
        let is_nodes_own = |net: &IpNet| nodes_own.contains(&net.addr()) || link.kernels.contains(&net.addr());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Capabilities, DefaultRoute, Fact, NegotiatedReport};

    const PEER: &str = "[bgp]\nasn = 64513\n[[bgp.peer]]\nname = \"tor\"\naddress = \"10.0.0.1\"\nasn = 64512\n\
                        [[pool]]\nname = \"lan\"\naddresses = [\"203.0.113.0/24\"]\n";

    fn world(links: &[(u32, &str, &[&str])], routes: &[DefaultRoute]) -> World {
        let mut world = World::default();
        for (index, name, nets) in links {
            let loopback = *name == "lo";
            world.apply(Fact::Link(*index, Some(Link { loopback, ..Link::carrying(*index, name, nets) })));
        }
        world.apply(Fact::DefaultRoutes(routes.to_vec()));
        world.apply(Fact::LinksListed);
        world
    }

    fn chosen(world: &World) -> String {
        let config = config::tests::good(PEER);
        router_id(&config, &"q1".into(), world).map(|id| id.to_string()).unwrap_or_default()
    }

    /// Input: a host without a Node, whose docker0 has the first index. Output: the address by which others know this host.
    #[test]
    fn without_a_node_the_identifier_is_the_address_towards_the_gateway_or_a_peer_and_no_bridge_of_containers() {
        type Links<'a> = &'a [(u32, &'a str, &'a [&'a str])];
        let docker: (u32, &str, &[&str]) = (1, "docker0", &["172.17.0.1/16"]);
        let eth0: (u32, &str, &[&str]) = (3, "eth0", &["192.168.35.9/32", "192.168.35.11/24"]);
        let towards_peer: (u32, &str, &[&str]) = (5, "eth2", &["10.0.0.2/30"]);
        let lo: (u32, &str, &[&str]) = (2, "lo", &["127.0.0.1/8", "203.0.113.7/32", "198.51.100.1/32"]);
        let other: (u32, &str, &[&str]) = (4, "eth1", &["169.254.3.3/16", "192.0.2.10/24"]);
        let route = [DefaultRoute::via("192.168.35.1", 3, 0)];
        let table: [(Links<'_>, &[DefaultRoute], &str); 5] = [
            (&[docker, lo, eth0, other, towards_peer], &route, "192.168.35.11"),
            (&[docker, lo, eth0, other, towards_peer], &[], "10.0.0.2"),
            (&[docker, lo, other], &[], "198.51.100.1"),
            (&[docker, other], &[], "192.0.2.10"),
            (&[docker], &[], &identifier_from_name(&"q1".into()).to_string()),
        ];
        for (links, routes, expected) in table {
            assert_eq!(chosen(&world(links, routes)), expected, "{links:?} {routes:?}");
        }
    }

    #[test]
    fn the_identifier_of_an_earlier_life_stays_while_this_host_has_it() {
        let route = [DefaultRoute::via("192.168.35.1", 3, 0)];
        let mut world = world(&[(3, "eth0", &["192.168.35.11/24"]), (4, "eth1", &["192.0.2.10/24"])], &route);
        world.apply(Fact::RouterId("192.0.2.10".parse().unwrap()));
        assert_eq!(chosen(&world), "192.0.2.10", "a route or a link more is no reason to end sessions");
        let kept = world.to_remember().find(|fact| matches!(fact, Fact::RouterId(_)));
        assert!(kept.is_some_and(|fact| fact.is_worth_remembering()));
        world.apply(Fact::Link(4, None));
        assert_eq!(chosen(&world), "192.168.35.11", "another host may have it now");
    }

    /// Input: the agent restarts before DHCP has answered; the host has no IPv4 address, or has another one.
    #[test]
    fn the_identifier_of_an_earlier_life_stays_while_no_other_address_is_there_or_a_session_carries_it() {
        let mut away = world(&[(1, "docker0", &["172.17.0.1/16"]), (3, "eth0", &["fd35::11/64"])], &[]);
        assert_eq!(chosen(&away), identifier_from_name(&"q1".into()).to_string(), "there is nothing better");
        away.apply(Fact::RouterId("10.0.0.11".parse().unwrap()));
        assert_eq!(chosen(&away), "10.0.0.11");
        // The disk is a copy of another node's, or the node has a new name.
        let mut copy = away.clone();
        copy.apply(Fact::RouterIdOf("104.107.139.184".parse().unwrap(), "q0".into()));
        assert_eq!(chosen(&copy), identifier_from_name(&"q1".into()).to_string(), "the other node has that one");
        let kept: Vec<Fact> = copy.to_remember().filter(Fact::is_worth_remembering).collect();
        assert!(
            matches!(&kept[..], [Fact::RouterId(_), Fact::RouterIdOf(_, node)] if *node == "q0".into()),
            "{kept:?}"
        );
        copy.apply(Fact::RouterIdOf("10.0.0.11".parse().unwrap(), "q1".into()));
        assert_eq!(chosen(&copy), "10.0.0.11");
        let mut another = world(&[(3, "eth0", &["192.0.2.10/24"])], &[]);
        another.apply(Fact::RouterId("10.0.0.11".parse().unwrap()));
        assert_eq!(chosen(&another), "192.0.2.10");
        let session = |state| Fact::Session("tor".into(), SessionReport::new(state, std::time::SystemTime::UNIX_EPOCH));
        another.apply(session(SessionState::Active));
        assert_eq!(chosen(&another), "192.0.2.10");
        another.apply(session(SessionState::Established));
        assert_eq!(chosen(&another), "10.0.0.11", "another one would end the session that was taken over");
        // The one that was set stood in the file until now, and the one that was chosen once is away since.
        let set = |id: &str| {
            let mut report = SessionReport::new(SessionState::Established, std::time::SystemTime::UNIX_EPOCH);
            report.detail.negotiated = Some(NegotiatedReport {
                local: "10.0.0.2:179".parse().unwrap(),
                remote: None,
                local_asn: 64513,
                peer_asn: 64512,
                local_router_id: id.parse().unwrap(),
                peer_router_id: "10.0.0.1".parse().unwrap(),
                hold_time_secs: None,
                keepalive_time_millis: None,
                max_message_len: 4096,
                graceful_restart: false,
                families: Vec::new(),
                capabilities: Capabilities::default(),
            });
            Fact::Session("tor".into(), report)
        };
        another.apply(set("9.9.9.9"));
        assert_eq!(chosen(&another), "192.0.2.10", "no session carries the one that was chosen");
        another.apply(set("10.0.0.11"));
        assert_eq!(chosen(&another), "10.0.0.11");
        let node = Node { addresses: vec!["10.0.0.7".parse().unwrap()], ..Node::default() };
        another.apply(Fact::Node("q1".into(), Some(Arc::new(node))));
        assert_eq!(chosen(&another), "10.0.0.7", "the Node has the last word");
    }
}
