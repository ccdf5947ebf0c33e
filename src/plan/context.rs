//! What every decision of a turn is based on: nodes, links and peers compared with the configuration, worked out once
//! for all Services and again only when a fact about nodes or links comes in.
//! Floor 1.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::config::{self, Config, InterfacePattern, L2, Subnet};
use crate::names::{InterfaceName, NodeName, PeerName};
use crate::plan::elect::{self, Electorate, Hearing};
use crate::reason::Reason;
use crate::roster::{Eligibility, Roster};
use crate::route::RouteAttributes;
use crate::selector::{Labels, Selector};
use crate::world::{Link, Node, Pulses, World};

/// Links that belong to containers, tunnels and virtual switches. An `[[l2]]` that names no interfaces leaves them out.
const NOT_BY_DEFAULT: [&str; 17] = [
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "nodelocaldns",
    "lxc",
    "tap",
    "podman",
    "br-",
    "vxlan",
];

/// What all decisions of this node are based on, apart from the Service itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// In the order of the `[[l2]]` tables.
    pub l2: Vec<L2Context>,
    pub pulse: PulseContext,
    /// In the order of the `[[bgp.advertisement]]` tables.
    pub advertisements: Vec<AdvertisementContext>,
    /// The peers that this node talks to.
    pub peers: Vec<Arc<config::Peer>>,
    /// Why this node may not announce over BGP at all.
    pub bgp_exclusion: Option<Reason>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct L2Context {
    pub electorate: Electorate,
    /// The same for each link by itself, with the subnets of the link, where pulses tell more than one link apart.
    by_link: Vec<(Vec<IpNet>, Electorate)>,
    /// Where this node would answer.
    pub interfaces: Arc<BTreeSet<InterfaceName>>,
    /// The subnets of those links.
    subnets: Vec<(IpNet, InterfaceName)>,
    rule: Subnet,
}

/// What this node says of itself in its pulses, apart from what it owns, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PulseContext {
    pub links: Arc<BTreeMap<u32, Link>>,
    /// `None` where there are no pulses.
    pub eligibility: Option<Eligibility>,
    /// The labels that some `[[l2]]` selects by.
    pub labels: Arc<Labels>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AdvertisementContext {
    /// The node selector lets this node take part.
    pub selected: bool,
    /// What the advertisement says of every route: one copy for all of them.
    pub attributes: Arc<RouteAttributes>,
    pub peers: Vec<PeerName>,
}

impl L2Context {
    /// Where this node would answer for an address: on the links with its subnet, as far as the rule asks for them.
    pub fn interfaces_for(&self, address: IpAddr) -> Arc<BTreeSet<InterfaceName>> {
        if self.rule == Subnet::Ignore {
            return self.interfaces.clone();
        }
        let matching = self.subnets.iter().filter(|(net, _)| net.contains(&address)).map(|(_, link)| link.clone());
        let matching: BTreeSet<InterfaceName> = matching.collect();
        let all = matching.is_empty() && self.rule == Subnet::Prefer;
        // The same set for all addresses, where it can be: it is told apart by its place.
        if all || matching.len() == self.interfaces.len() { self.interfaces.clone() } else { Arc::new(matching) }
    }

    /// Who may answer for an address: where one link alone has its subnet, those that are alive on that link.
    pub fn electorate_for(&self, address: IpAddr) -> &Electorate {
        let mut on_link = self.by_link.iter().filter(|(nets, _)| nets.iter().any(|net| net.contains(&address)));
        match (on_link.next(), on_link.next()) {
            (Some((_, electorate)), None) => electorate,
            (Some(_), Some(_)) | (None, _) => &self.electorate,
        }
    }
}

impl Context {
    pub fn of(config: &Config, me: &NodeName, world: &World) -> Context {
        let nodes = known_nodes(config, me, world);
        let node = nodes.get(me);
        let selects = |selector: &Option<Selector>| {
            selector.as_ref().is_none_or(|selector| node.is_some_and(|node| selector.matches(&node.labels)))
        };
        let l2: Vec<L2Context> = config.l2.iter().map(|l2| l2_context(l2, me, &nodes, world)).collect();
        let pulse = match world.pulses {
            Pulses::On { .. } => pulse_context(config, node.map(|node| &**node), &l2, world),
            Pulses::Off => PulseContext::default(),
        };
        let peers: Vec<_> =
            config.bgp.peers.iter().filter(|peer| selects(&peer.nodes)).cloned().map(Arc::new).collect();
        let advertisements = config.bgp.advertisements.iter().map(|it| AdvertisementContext {
            selected: selects(&it.nodes),
            attributes: Arc::new(RouteAttributes {
                local_preference: it.local_preference,
                med: it.med,
                prepend: it.prepend,
                communities: it.communities.clone(),
                endpoints: None,
            }),
            peers: peers
                .iter()
                .map(|peer| peer.name.clone())
                .filter(|name| it.peers.is_empty() || it.peers.contains(name))
                .collect(),
        });
        Context {
            l2,
            pulse,
            advertisements: advertisements.collect(),
            bgp_exclusion: match node {
                Some(node) => elect::exclusion(node),
                None => Some(Reason::NodeUnknown { node: me.clone() }),
            },
            peers,
        }
    }
}

/// The Nodes of the World. Standalone, with manifests that name none, this host is the only one. Where the exclude label is
/// to count for nothing, none has it.
fn known_nodes<'a>(config: &Config, me: &NodeName, world: &'a World) -> Cow<'a, OrdMap<NodeName, Arc<Node>>> {
    let alone = config.is_standalone() && world.nodes.is_empty();
    if !alone {
        let is_labelled =
            |node: &Node| config.node.ignore_exclude_label && node.labels.0.contains_key(Node::EXCLUDE_LABEL);
        let mut nodes = Cow::Borrowed(&world.nodes);
        for (name, node) in world.nodes.iter().filter(|(_, node)| is_labelled(node)) {
            let mut node = Node::clone(node);
            node.labels.0.remove(Node::EXCLUDE_LABEL);
            nodes.to_mut().insert(name.clone(), Arc::new(node));
        }
        return nodes;
    }
    let labels = Labels([("kubernetes.io/hostname".to_owned(), me.to_string())].into());
    let this = Node { labels, ready: true, network_unavailable: false, addresses: Vec::new() };
    Cow::Owned(OrdMap::unit(me.clone(), Arc::new(this)))
}

fn l2_context(l2: &L2, me: &NodeName, nodes: &OrdMap<NodeName, Arc<Node>>, world: &World) -> L2Context {
    let links: Vec<&Link> = usable_links(l2, world).collect();
    let interfaces = Arc::new(links.iter().map(|link| link.name.clone()).collect());
    let of_link = |link: &&Link| link.addresses.iter().map(|net| (*net, link.name.clone())).collect::<Vec<_>>();
    let subnets: Vec<(IpNet, InterfaceName)> = links.iter().flat_map(of_link).collect();
    let rule = l2.subnet;
    let refusal = links.is_empty().then(|| no_link(l2, world));
    let heard: Vec<(&Link, &Roster)> =
        links.iter().filter_map(|link| Some((*link, &**world.rosters.get(&link.index)?))).collect();
    let electorate = |rosters: Vec<&Roster>| {
        let hearing = Hearing { me, rosters, refusal: refusal.clone() };
        elect::electorate(l2, nodes, Some(&hearing))
    };
    match world.pulses {
        // A node that hears nothing of this `[[l2]]` only looks on: the others decide without it.
        Pulses::On { .. } if links.is_empty() => {
            let mut electorate = elect::electorate(l2, nodes, None);
            electorate.candidates.retain(|candidate| candidate.node != *me);
            electorate.excluded.extend(refusal.clone().map(|reason| (me.clone(), reason)));
            L2Context { electorate, by_link: Vec::new(), interfaces, subnets, rule }
        }
        Pulses::On { .. } => L2Context {
            electorate: electorate(heard.iter().map(|(_, roster)| *roster).collect()),
            by_link: match heard.as_slice() {
                [] | [_] => Vec::new(),
                several => {
                    several.iter().map(|(link, roster)| (link.addresses.clone(), electorate(vec![roster]))).collect()
                }
            },
            interfaces,
            subnets,
            rule,
        },
        Pulses::Off => {
            L2Context { electorate: elect::electorate(l2, nodes, None), by_link: Vec::new(), interfaces, subnets, rule }
        }
    }
}

fn pulse_context(config: &Config, node: Option<&Node>, l2: &[L2Context], world: &World) -> PulseContext {
    let on_links = |link: &&Link| l2.iter().any(|context| context.interfaces.contains(&link.name));
    let links = world.links.values().filter(on_links).map(|link| (link.index, link.clone())).collect();
    let selectors = config.l2.iter().flat_map(|l2| l2.nodes.iter().chain(l2.preference.iter().map(|it| &it.nodes)));
    let keys: BTreeSet<&str> = selectors.flat_map(Selector::keys).collect();
    let labels = node.into_iter().flat_map(|node| &node.labels.0).filter(|(name, _)| keys.contains(name.as_str()));
    PulseContext {
        links: Arc::new(links),
        eligibility: Some(match node.map(elect::exclusion) {
            None => Eligibility::NodeUnknown,
            Some(None) => Eligibility::Eligible,
            Some(Some(Reason::NodeNetworkUnavailable)) => Eligibility::NetworkUnavailable,
            Some(Some(_)) => Eligibility::Excluded,
        }),
        labels: Arc::new(Labels(labels.map(|(name, value)| (name.clone(), value.clone())).collect())),
    }
}

fn usable_links<'a>(l2: &L2, world: &'a World) -> impl Iterator<Item = &'a Link> {
    world.links.values().filter(|link| is_usable(link) && is_wanted(l2, &link.name))
}

/// Why no link of this node is usable: that of the link that was asked for by name or pattern, if there is one.
fn no_link(l2: &L2, world: &World) -> Reason {
    let asked_for = |link: &&Link| !l2.interfaces.is_empty() && !link.loopback && is_wanted(l2, &link.name);
    match world.links.values().find(asked_for) {
        Some(Link { name, up: false, .. }) => Reason::LinkDown { interface: name.clone() },
        Some(Link { name, carrier: false, .. }) => Reason::NoCarrier { interface: name.clone() },
        Some(_) | None => Reason::NoInterface { wanted: describe_interfaces(l2) },
    }
}

/// Frames pass, ARP is spoken, and the link is not a part of a bond or bridge that answers in its place.
fn is_usable(link: &Link) -> bool {
    link.up && link.carrier && link.arp && !link.loopback && link.mac.is_some() && link.master.is_none()
}

fn is_wanted(l2: &L2, name: &InterfaceName) -> bool {
    let matches = |patterns: &[InterfacePattern]| patterns.iter().any(|pattern| pattern.matches(name));
    let wanted = if l2.interfaces.is_empty() {
        !NOT_BY_DEFAULT.iter().any(|start| name.as_str().starts_with(start))
    } else {
        matches(&l2.interfaces)
    };
    wanted && !matches(&l2.exclude_interfaces)
}

/// What an `[[l2]]` asks of a link, for the sentence that says that there is none.
pub fn describe_interfaces(l2: &L2) -> String {
    let texts: Vec<String> = l2
        .interfaces
        .iter()
        .map(|pattern| match pattern {
            InterfacePattern::Exact(name) => name.to_string(),
            InterfacePattern::StartsWith(start) => format!("{start}*"),
        })
        .collect();
    if texts.is_empty() { "no Ethernet link is up".to_owned() } else { format!("wanted {}", texts.join(", ")) }
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

/// Every address of this host with its link.
pub fn local_addresses(world: &World) -> Vec<(InterfaceName, IpNet)> {
    let of_link = |link: &Link| link.addresses.iter().map(|net| (link.name.clone(), *net)).collect::<Vec<_>>();
    world.links.values().flat_map(of_link).collect()
}
