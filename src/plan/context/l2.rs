//! What verdicts about the link are based on: for each `[[l2]]` the nodes that may answer and this node's own links, and
//! what this node says of itself in its pulses. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::config::{Config, InterfacePattern, L2, Subnet};
use crate::names::{InterfaceName, NodeName};
use crate::plan::elect::{self, Electorate, Hearing};
use crate::reason::Reason;
use crate::roster::{Eligibility, Roster};
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

impl L2Context {
    pub(super) fn of(l2: &L2, me: &NodeName, nodes: &OrdMap<NodeName, Arc<Node>>, world: &World) -> L2Context {
        l2_context(l2, me, nodes, world)
    }

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

    /// Every electorate of this `[[l2]]`, in an order that depends on nothing but its links.
    pub(super) fn electorates(&self) -> impl Iterator<Item = &Electorate> {
        std::iter::once(&self.electorate).chain(self.by_link.iter().map(|(_, electorate)| electorate))
    }

    /// It covers the same links, in the same way.
    pub(super) fn has_same_links(&self, other: &L2Context) -> bool {
        self.interfaces == other.interfaces
            && self.subnets == other.subnets
            && self.rule == other.rule
            && self.by_link.iter().map(|(nets, _)| nets).eq(other.by_link.iter().map(|(nets, _)| nets))
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
            let others = elect::electorate(l2, nodes, None);
            let candidates = others.candidates().iter().filter(|candidate| candidate.node != *me).cloned().collect();
            let refused = refusal.clone().map(|reason| (me.clone(), reason));
            let electorate = Electorate::new(candidates, others.excluded.into_iter().chain(refused).collect());
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

impl PulseContext {
    /// `node` is this node, where it is known.
    pub(super) fn of(config: &Config, node: Option<&Node>, l2: &[L2Context], world: &World) -> PulseContext {
        match world.pulses {
            Pulses::On { .. } => pulse_context(config, node, l2, world),
            Pulses::Off => PulseContext::default(),
        }
    }
}

fn pulse_context(config: &Config, node: Option<&Node>, l2: &[L2Context], world: &World) -> PulseContext {
    let on_links = |link: &&Link| l2.iter().any(|context| context.interfaces.contains(&link.name));
    let links = world.links.values().filter(on_links).map(|link| (link.index, link.clone())).collect();
    let selectors = config.l2.iter().flat_map(|l2| l2.nodes.iter().chain(l2.preference.iter().map(|it| &it.nodes)));
    let keys: BTreeSet<&str> = selectors.flat_map(Selector::keys).collect();
    let labels = node.into_iter().flat_map(|node| &node.labels.0).filter(|(name, _)| keys.contains(name));
    PulseContext {
        links: Arc::new(links),
        eligibility: Some(match node.map(elect::exclusion) {
            None => Eligibility::NodeUnknown,
            Some(None) => Eligibility::Eligible,
            Some(Some(Reason::NodeNetworkUnavailable)) => Eligibility::NetworkUnavailable,
            Some(Some(_)) => Eligibility::Excluded,
        }),
        labels: Arc::new(Labels(labels.collect())),
    }
}

/// Whether the link of this name can matter to what is done on a link: some `[[l2]]` wants it, or it is not a link that
/// containers and tunnels come and go with.
pub fn is_of_interest(config: &Config, name: &InterfaceName) -> bool {
    !is_left_out_by_default(name) || config.l2.iter().any(|l2| is_wanted(l2, name))
}

fn is_left_out_by_default(name: &InterfaceName) -> bool {
    NOT_BY_DEFAULT.iter().any(|start| name.as_str().starts_with(start))
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
    let wanted = if l2.interfaces.is_empty() { !is_left_out_by_default(name) } else { matches(&l2.interfaces) };
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
