//! What verdicts about the link are based on: for each `[[l2]]` the nodes that may answer and this node's own links, and
//! what this node says of itself in its pulses. Floor 1.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use crate::address::{Family, is_link_local_v6};
use crate::config::{Config, InterfacePattern, L2, Subnet};
use crate::names::{InterfaceName, NodeName};
use crate::path_state::Serving;
use crate::plan::elect::{self, Electorate, Hearing};
use crate::plan::holder::Grade;
use crate::plan::named_links::{is_left_out_by_default, is_named_by, is_wanted, names_link};
use crate::plan::own_addresses::OwnAddresses;
use crate::plan::slice::PulseLink;
use crate::reason::Reason;
use crate::roster::{Card, Eligibility, Ends, Given, L2Number, LinkNumber, MOST_ENDS, Member, Roster};
use crate::world::{DrainStage, Link, Node, Pulses, World};

#[derive(Debug, Clone, PartialEq)]
pub struct L2Context {
    pub electorate: Electorate,
    /// The same for each link by itself, with the subnets of the link, where pulses tell more than one link apart. Without
    /// pulses: for each subnet by itself, as the addresses of the Nodes tell which nodes have it.
    by_link: Vec<(Vec<IpNet>, Electorate)>,
    /// Where this node would answer.
    pub interfaces: Arc<BTreeSet<InterfaceName>>,
    /// Where it would too, but for a socket, each with why.
    without_socket: BTreeMap<InterfaceName, String>,
    /// The subnets of those links.
    subnets: Vec<(IpNet, InterfaceName)>,
    /// Those of them without a usable IPv6 address: the kernel takes no IPv6 packet there, or finds no neighbour.
    without_v6: BTreeSet<InterfaceName>,
    /// The same of all nodes that are heard there.
    v6: V6Ends,
    /// Those of them without any IPv4 address, where other nodes have one, with the IPv4 subnets of those: the kernel of this node dropped its
    /// routes with the last address, so what it answers for leads nowhere.
    without_v4: BTreeMap<InterfaceName, BTreeSet<IpNet>>,
    /// This node, or one that is heard, has an IPv4 address on one of the links.
    some_have_v4: bool,
    rule: Subnet,
    /// Nodes with an endpoint go first: what moves an address then is that nodes ask each other by pulses.
    pub prefers_endpoints: bool,
    /// What pulses call this `[[l2]]`.
    number: L2Number,
    /// Of this node's crier: what others call by the same number is another `[[l2]]`.
    lease: Option<u64>,
    /// The links by their indices, with their subnets.
    links: Vec<(u32, Vec<IpNet>)>,
    /// The same with only the links in a VRF, for the pools that are announced in that VRF alone.
    in_vrf: BTreeMap<InterfaceName, L2Context>,
}

/// What this node says of itself in its pulses, apart from what it owns, and where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PulseContext {
    pub links: Arc<BTreeMap<u32, PulseLink>>,
    /// `None` where there are no pulses.
    pub eligibility: Option<Eligibility>,
}

impl L2Context {
    pub(super) fn of(
        config: &Config,
        (l2, number): (&L2, L2Number),
        me: &NodeName,
        nodes: &OrdMap<NodeName, Arc<Node>>,
        own: Own<'_>,
        world: &World,
    ) -> L2Context {
        let covered = || config.pools.iter().filter(|pool| l2.pools.is_empty() || l2.pools.contains(&pool.name));
        let serves_v6 = covered().flat_map(|pool| &pool.addresses).any(|range| range.family() == Family::V6);
        let all = l2_context((l2, number), me, nodes, own, world, serves_v6);
        let vrfs: BTreeSet<&InterfaceName> =
            covered().filter_map(|pool| pool.vrf.as_ref()).filter(|_| l2.vrf.is_none()).collect();
        let within = |vrf: &InterfaceName| {
            let l2 = L2 { vrf: Some(vrf.clone()), ..l2.clone() };
            (vrf.clone(), l2_context((&l2, number), me, nodes, own, world, serves_v6))
        };
        L2Context { in_vrf: vrfs.into_iter().map(within).collect(), ..all }
    }

    /// What holds for a pool that is announced in this VRF alone.
    pub fn in_vrf(&self, vrf: &InterfaceName) -> Option<&L2Context> {
        self.in_vrf.get(vrf)
    }

    /// The rosters of the links where this node would answer for an address, by the indices of the links.
    pub fn rosters<'a>(&self, address: IpAddr, world: &'a World) -> Vec<(u32, &'a Roster)> {
        let in_subnet = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        let heard = |(index, _): &(u32, Vec<IpNet>)| world.rosters.get(index).map(|roster| (*index, &**roster));
        let near: Vec<(u32, &Roster)> =
            self.links.iter().filter(|(_, nets)| in_subnet(nets)).filter_map(heard).collect();
        if near.is_empty() { self.links.iter().filter_map(heard).collect() } else { near }
    }

    /// One of its links has the address's subnet.
    pub fn has_subnet_of(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|(net, _)| net.contains(&address))
    }

    /// Pulses name this `[[l2]]` by that number.
    pub fn is_of(&self, number: L2Number) -> bool {
        self.number == number
    }

    /// The weight that a node gives itself here; `None` where it does not serve this `[[l2]]`.
    pub fn weight_of(&self, member: &Member) -> Option<u32> {
        let card = &member.card;
        card.weights.get(&self.number).copied().filter(|_| !self.is_of_other_crier(card))
    }

    /// The node takes none of the addresses that this one announces.
    pub fn is_of_other_crier(&self, card: &Card) -> bool {
        card.is_of_other_crier(self.lease)
    }

    /// Whether a node that says this of its end of the link may answer for an address.
    pub fn admits(&self, address: IpAddr, card: &Card) -> bool {
        match self.rule {
            Subnet::Require => card.subnets.iter().any(|net| net.contains(&address)),
            Subnet::Prefer => address.is_ipv6() || !self.some_have_v4 || !card.lacks_v4(),
            Subnet::Ignore => true,
        }
    }

    /// Nothing that is heard of the node says that it cannot answer for an address because it has no usable IPv6 address on the link.
    pub fn may_have_v6(&self, node: &NodeName, address: IpAddr) -> bool {
        address.is_ipv4() || !self.v6.some_lack || self.v6.may_have(node, address)
    }

    /// Where this node would answer for an address: on the links with its subnet, as far as the rule asks for them.
    pub fn interfaces_for(&self, address: IpAddr) -> Arc<BTreeSet<InterfaceName>> {
        let links = self.interfaces_in_subnet(address);
        if address.is_ipv4() || self.without_v6.is_disjoint(&links) {
            links
        } else {
            Arc::new(&*links - &self.without_v6)
        }
    }

    /// The links of this node that have no IPv4 address, while other nodes have one there.
    pub fn without_v4(&self) -> impl Iterator<Item = &InterfaceName> {
        self.without_v4.keys()
    }

    /// The links of this node where no socket for ARP and NDP can be opened.
    pub fn without_socket(&self) -> impl Iterator<Item = &InterfaceName> {
        self.without_socket.keys()
    }

    /// Why this node answers nowhere, where a socket is what it lacks.
    pub fn lacks_socket(&self) -> Option<Reason> {
        let (interface, why) = self.without_socket.first_key_value().filter(|_| self.interfaces.is_empty())?;
        Some(Reason::NoSocket { interface: interface.clone(), why: why.clone() })
    }

    /// The links of this node that take no IPv6.
    pub fn without_v6(&self) -> &BTreeSet<InterfaceName> {
        &self.without_v6
    }

    fn interfaces_in_subnet(&self, address: IpAddr) -> Arc<BTreeSet<InterfaceName>> {
        if self.rule == Subnet::Ignore {
            return self.interfaces.clone();
        }
        let matching = self.subnets.iter().filter(|(net, _)| net.contains(&address)).map(|(_, link)| link.clone());
        let matching: BTreeSet<InterfaceName> = matching.collect();
        let all = matching.is_empty() && self.rule == Subnet::Prefer;
        if all && address.is_ipv4() && !self.without_v4.is_empty() {
            return Arc::new(self.interfaces_with_v4(address));
        }
        // The same set for all addresses, where it can be: it is told apart by its place.
        if all || matching.len() == self.interfaces.len() { self.interfaces.clone() } else { Arc::new(matching) }
    }

    /// No link has the subnet of this IPv4 address: those that have an IPv4 address, or where no node has one; none where the address is in
    /// the subnet that others have on a link without.
    fn interfaces_with_v4(&self, address: IpAddr) -> BTreeSet<InterfaceName> {
        if self.without_v4.values().flatten().any(|net| net.contains(&address)) {
            return BTreeSet::new();
        }
        self.interfaces.iter().filter(|link| !self.without_v4.contains_key(*link)).cloned().collect()
    }

    /// Every electorate of this `[[l2]]`, in an order that depends on nothing but its links.
    pub(super) fn electorates(&self) -> impl Iterator<Item = &Electorate> {
        std::iter::once(self)
            .chain(self.in_vrf.values())
            .flat_map(|it| std::iter::once(&it.electorate).chain(it.by_link.iter().map(|(_, electorate)| electorate)))
    }

    /// It covers the same links, in the same way.
    pub(super) fn has_same_links(&self, other: &L2Context) -> bool {
        self.interfaces == other.interfaces
            && self.without_socket == other.without_socket
            && self.subnets == other.subnets
            && self.without_v6 == other.without_v6
            && self.v6.is_alike(&other.v6)
            && self.without_v4 == other.without_v4
            && self.some_have_v4 == other.some_have_v4
            && self.rule == other.rule
            && self.links == other.links
            && self.by_link.iter().map(|(nets, _)| nets).eq(other.by_link.iter().map(|(nets, _)| nets))
            && self.in_vrf.len() == other.in_vrf.len()
            && self.in_vrf.iter().all(|(vrf, it)| other.in_vrf.get(vrf).is_some_and(|other| it.has_same_links(other)))
    }

    /// Who may answer for an address: where one link alone has its subnet, those that are alive on that link; without pulses
    /// those whose Node address is in its subnet.
    pub fn electorate_for(&self, address: IpAddr) -> &Electorate {
        let mut on_link = self.by_link.iter().filter(|(nets, _)| nets.iter().any(|net| net.contains(&address)));
        match (on_link.next(), on_link.next()) {
            (Some((_, electorate)), None) => electorate,
            (Some(_), Some(_)) | (None, _) => &self.electorate,
        }
    }
}

/// How this node stands, apart from any `[[l2]]`.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    pub grade: Grade,
    pub digests: &'a Digests,
    /// What it gives, as it says it, where it has no API server.
    pub given: Option<Given>,
    pub addresses: &'a OwnAddresses,
}

/// The digests of a configuration, as this node says them in its pulses. They are worked
/// out once for each configuration.
#[derive(Debug, Clone)]
pub struct Digests {
    ownership: u64,
    allocation: u64,
    lease: Option<u64>,
    /// Of each `[[l2]]`, in their order.
    l2: Vec<L2Number>,
}

impl Digests {
    pub fn of(config: &Config) -> Digests {
        let (ownership, allocation) = (config.ownership_digest().0, config.allocation_digest().0);
        let lease = config.lease_digest();
        Digests { ownership, allocation, lease, l2: numbers(config) }
    }

    /// Of all that decides who gets which address.
    pub fn allocation(&self) -> u64 {
        self.allocation
    }

    /// Tells this crier from others of the cluster.
    pub fn lease(&self) -> Option<u64> {
        self.lease
    }

    pub fn l2(&self) -> &[L2Number] {
        &self.l2
    }
}

fn l2_context(
    (l2, number): (&L2, L2Number),
    me: &NodeName,
    nodes: &OrdMap<NodeName, Arc<Node>>,
    own: Own<'_>,
    world: &World,
    serves_v6: bool,
) -> L2Context {
    let node = nodes.get(me).map(|node| &**node);
    let (lacking, links): (Vec<&Link>, Vec<&Link>) =
        usable_links(l2, node, world).partition(|link| world.without_socket.contains_key(&link.name));
    let why = |link: &&Link| Some((link.name.clone(), world.without_socket.get(&link.name)?.clone()));
    let without_socket: BTreeMap<InterfaceName, String> = lacking.iter().filter_map(why).collect();
    let interfaces = Arc::new(links.iter().map(|link| link.name.clone()).collect());
    // The kernel asks from no other address where the way to a client is (RFC 4861 §7.2.2).
    let has_v6 = |link: &&&Link| link.addresses.iter().any(|net| is_link_local_v6(net.addr()));
    let without_v6 = links.iter().filter(|link| !has_v6(link)).map(|link| link.name.clone()).collect();
    let heard: Vec<(&Link, &Roster)> =
        links.iter().filter_map(|link| Some((*link, &**world.rosters.get(&link.index)?))).collect();
    let of_v4 = |net: &&IpNet| net.addr().is_ipv4();
    let has_v4 = |link: &Link| link.addresses.iter().any(|net| net.addr().is_ipv4());
    let others_v4 = |roster: &Roster| -> BTreeSet<IpNet> {
        roster.members.values().flat_map(|member| member.card.subnets.iter().filter(of_v4)).map(IpNet::trunc).collect()
    };
    let without_v4: BTreeMap<InterfaceName, BTreeSet<IpNet>> = heard
        .iter()
        .filter(|(link, _)| !has_v4(link))
        .map(|(link, roster)| (link.name.clone(), others_v4(roster)))
        .filter(|(_, nets)| !nets.is_empty())
        .collect();
    let some_have_v4 = !without_v4.is_empty() || links.iter().any(|link| has_v4(link));
    let of_link = |link: &&Link| link.addresses.iter().map(|net| (*net, link.name.clone())).collect::<Vec<_>>();
    let subnets: Vec<(IpNet, InterfaceName)> = links.iter().flat_map(of_link).collect();
    let refusal = links.is_empty().then(|| no_link(l2, node, world));
    let drained = world.drain_stage() >= Some(DrainStage::Withdrawing);
    // Without an IPv6 address nobody asks for it.
    let v6 = if serves_v6 { V6Ends::of(me, &heard, &without_v6) } else { V6Ends::default() };
    let electorate = |rosters: Vec<&Roster>| {
        let hearing = Hearing {
            me,
            number,
            lease: own.digests.lease,
            grade: own.grade,
            drained,
            path: &world.data_path,
            rosters,
            refusal: refusal.clone(),
        };
        elect::electorate(l2, nodes, Some(&hearing))
    };
    let by_link = match (&world.pulses, heard.as_slice()) {
        (Pulses::Off, _) => by_subnet(l2, nodes, &links),
        (Pulses::On { .. }, [] | [_]) => Vec::new(),
        (Pulses::On { .. }, several) => {
            several.iter().map(|(link, roster)| (link.addresses.clone(), electorate(vec![roster]))).collect()
        }
    };
    let electorate = match world.pulses {
        // A node that hears nothing of this `[[l2]]` only looks on: the others decide without it.
        Pulses::On { .. } if links.is_empty() => {
            let others = elect::electorate(l2, nodes, None);
            let candidates = others.candidates().iter().filter(|candidate| candidate.node != *me).cloned().collect();
            let refused = refusal.clone().map(|reason| (me.clone(), reason));
            Electorate::new(candidates, others.excluded.into_iter().chain(refused).collect())
        }
        Pulses::On { .. } => electorate(heard.iter().map(|(_, roster)| *roster).collect()),
        Pulses::Off => elect::electorate(l2, nodes, None),
    };
    let links = links.iter().map(|link| (link.index, link.addresses.clone())).collect();
    let prefers_endpoints = l2.prefer_endpoints && world.pulses != Pulses::Off;
    let (rule, lease, in_vrf) = (l2.subnet, own.digests.lease, BTreeMap::new());
    L2Context {
        electorate,
        by_link,
        interfaces,
        without_socket,
        subnets,
        without_v6,
        v6,
        without_v4,
        some_have_v4,
        rule,
        prefers_endpoints,
        number,
        lease,
        links,
        in_vrf,
    }
}

/// The subnets of a link, and whether each node that is heard there has a usable link-local IPv6 address.
type V6Link = (Vec<IpNet>, BTreeMap<NodeName, bool>);

/// Which nodes have a usable link-local IPv6 address, for each link of this node with its subnets.
#[derive(Debug, Clone, Default, PartialEq)]
struct V6Ends {
    links: Vec<V6Link>,
    /// Otherwise all have one.
    some_lack: bool,
}

impl V6Ends {
    fn of(me: &NodeName, heard: &[(&Link, &Roster)], without_v6: &BTreeSet<InterfaceName>) -> V6Ends {
        let of_link = |(link, roster): &(&Link, &Roster)| {
            let others = roster.members.iter().map(|(node, member)| (node.clone(), !member.card.lacks_v6()));
            let own = (me.clone(), !without_v6.contains(&link.name));
            (link.addresses.clone(), others.chain([own]).collect())
        };
        let links: Vec<V6Link> = heard.iter().map(of_link).collect();
        let some_lack = links.iter().any(|(_, nodes)| nodes.values().any(|has| !has));
        V6Ends { links, some_lack }
    }

    /// What is known on both sides is the same. Who comes or goes makes no difference to the others.
    fn is_alike(&self, other: &V6Ends) -> bool {
        let same = |one: &V6Link, now: &V6Link| {
            one.0 == now.0 && one.1.iter().all(|(node, has)| now.1.get(node).is_none_or(|it| it == has))
        };
        self.links.len() == other.links.len() && self.links.iter().zip(&other.links).all(|(one, now)| same(one, now))
    }

    /// See [`L2Context::may_have_v6`].
    fn may_have(&self, node: &NodeName, address: IpAddr) -> bool {
        let in_subnet = |(nets, _): &&(Vec<IpNet>, _)| nets.iter().any(|net| net.contains(&address));
        let says = |(_, nodes): &(_, BTreeMap<NodeName, bool>)| nodes.get(node).copied();
        let near = self.links.iter().any(|it| in_subnet(&it));
        let mut said = self.links.iter().filter(|it| !near || in_subnet(it)).filter_map(says).peekable();
        said.peek().is_none() || said.any(|has| has)
    }
}

/// Without pulses: for each subnet that some Node's address is in, which of the nodes may answer for its addresses. A node on
/// another segment would be elected, and nobody would hear it. Every agent works this out from the same Nodes. Of a subnet
/// that is on none of its own links an agent takes the length of its own for granted. A subnet that no Node's address is in is
/// not listed: there the Nodes tell nothing.
fn by_subnet(l2: &L2, nodes: &OrdMap<NodeName, Arc<Node>>, links: &[&Link]) -> Vec<(Vec<IpNet>, Electorate)> {
    if l2.subnet == Subnet::Ignore {
        return Vec::new();
    }
    let mut subnets: BTreeSet<IpNet> = links.iter().flat_map(|link| &link.addresses).map(IpNet::trunc).collect();
    let lengths: Vec<IpNet> = subnets.iter().copied().collect();
    for address in nodes.values().flat_map(|node| &node.addresses) {
        if !subnets.iter().any(|net| net.contains(address)) {
            let length = lengths.iter().find(|net| net.addr().is_ipv4() == address.is_ipv4()).map(IpNet::prefix_len);
            subnets.extend(length.and_then(|length| IpNet::new(*address, length).ok()).map(|net| net.trunc()));
        }
    }
    let electorate = |net: IpNet| {
        let (near, far): (Vec<_>, Vec<_>) =
            nodes.iter().partition(|(_, node)| node.addresses.iter().any(|address| net.contains(address)));
        if near.is_empty() {
            return None;
        }
        let near = near.into_iter().map(|(name, node)| (name.clone(), node.clone())).collect();
        let electorate = elect::electorate(l2, &near, None);
        let far = far.into_iter().map(|(name, _)| (name.clone(), Reason::NodeOutsideSubnet { subnet: net }));
        let excluded = electorate.excluded.iter().cloned().chain(far).collect();
        Some((vec![net], Electorate::new(electorate.candidates().to_vec(), excluded)))
    };
    subnets.into_iter().filter_map(electorate).collect()
}

impl PulseContext {
    /// `node` is this node, where it is known.
    pub(super) fn of(
        config: &Config,
        node: Option<&Node>,
        l2: &[L2Context],
        own: Own<'_>,
        world: &World,
    ) -> PulseContext {
        match world.pulses {
            Pulses::On { .. } => pulse_context(config, node, l2, own, world),
            Pulses::Off => PulseContext::default(),
        }
    }
}

fn pulse_context(config: &Config, node: Option<&Node>, l2: &[L2Context], own: Own<'_>, world: &World) -> PulseContext {
    let of_l2 = |link: &Link| l2.iter().any(|context| context.interfaces.contains(&link.name));
    // Where this node has no socket its pulses say that it serves nothing.
    let lacks_socket = |link: &Link| l2.iter().any(|context| context.without_socket.contains_key(&link.name));
    let on_links = |link: &&Link| {
        of_l2(link) || lacks_socket(link) || (is_usable(link) && is_named_by(&config.pulse.interfaces, &link.name))
    };
    let weight = |l2: &L2| node.and_then(|node| elect::weight(l2, &node.labels));
    let number = |link: &Link| LinkNumber::of(&link.name);
    let ends: BTreeSet<LinkNumber> = world.links.values().filter(|link| of_l2(link)).map(number).collect();
    let given = |address: IpAddr| config.pools.iter().any(|pool| pool.given().iter().any(|it| it.contains(address)));
    let gateways: Vec<_> = own.addresses.gateways().filter(|(address, _)| given(*address)).collect();
    let card = |link: &Link| Card {
        weights: config
            .l2
            .iter()
            .zip(l2)
            .filter(|(_, context)| context.interfaces.contains(&link.name))
            .filter_map(|(l2, context)| Some((context.number, weight(l2)?)))
            .collect(),
        subnets: link.addresses.iter().map(IpNet::trunc).collect(),
        ownership_digest: own.digests.ownership,
        allocation_digest: own.digests.allocation,
        given: own.given,
        lease: own.digests.lease,
        ends: (ends.len() <= MOST_ENDS).then(|| Ends { this: number(link), all: ends.clone() }),
        gateways: gateways.iter().filter(|(_, of)| **of == link.name).map(|(address, _)| *address).collect(),
    };
    let pulse_link = |link: &Link| PulseLink { link: link.clone(), card: Arc::new(card(link)) };
    let links = world.links.values().filter(on_links).map(|link| (link.index, pulse_link(link))).collect();
    PulseContext {
        links: Arc::new(links),
        eligibility: Some(match (node.map(elect::exclusion), world.data_path.serving(), own.grade) {
            (None, _, _) => Eligibility::NodeUnknown,
            (Some(None), Serving::NotSinceBoot, _) => Eligibility::DataPathNotSeen,
            (Some(None), ..) if world.drain_stage() >= Some(DrainStage::Withdrawing) => Eligibility::Drained,
            (Some(None), _, Grade::Eligible) => Eligibility::Eligible,
            (Some(None), _, Grade::ViewStale) => Eligibility::ViewStale,
            (Some(None), _, Grade::DataPathBad) => Eligibility::DataPathBad,
            (Some(None), _, Grade::Draining) => Eligibility::Draining,
            (Some(Some(Reason::NodeNetworkUnavailable)), ..) => Eligibility::NetworkUnavailable,
            (Some(Some(_)), ..) => Eligibility::Excluded,
        }),
    }
}

/// Whether the link can matter to what is done on a link: some `[[l2]]` or `[pulse]` wants it, or it is not a link that
/// containers and tunnels come and go with. `node` is this node, where it is known.
pub fn is_of_interest(config: &Config, node: Option<&Node>, link: &Link, world: &World) -> bool {
    !is_left_out_by_default(node, link, world)
        || config.l2.iter().any(|l2| is_wanted(l2, node, link, world))
        || is_named_by(&config.pulse.interfaces, &link.name)
}

/// What pulses call each `[[l2]]`, in their order: a digest of the pools that it names, and which of those it is that name the
/// same. So it has the same number in two files that differ in anything else.
pub fn numbers(config: &Config) -> Vec<L2Number> {
    let mut seen: BTreeMap<String, u8> = BTreeMap::new();
    let number = |l2: &L2| {
        let mut pools: Vec<&str> = l2.pools.iter().map(|pool| pool.as_str()).collect();
        pools.sort_unstable();
        pools.dedup();
        let pools = pools.join(" ");
        let place = seen.entry(pools.clone()).or_default();
        *place = place.wrapping_add(1);
        let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(format!("{place} {pools}")).into();
        L2Number(u32::from_be_bytes([a, b, c, d]))
    };
    config.l2.iter().map(number).collect()
}

fn usable_links<'a>(l2: &L2, node: Option<&Node>, world: &'a World) -> impl Iterator<Item = &'a Link> {
    world.links.values().filter(move |link| is_usable(link) && names_link(l2, node, link, world))
}

/// Why no link of this node is usable: that of the link that was asked for by name or pattern, if there is one.
fn no_link(l2: &L2, node: Option<&Node>, world: &World) -> Reason {
    let asked_for = |link: &&Link| !l2.interfaces.is_empty() && !link.loopback && names_link(l2, node, link, world);
    let lacking = |link: &Link| Some((link.name.clone(), world.without_socket.get(&link.name)?.clone()));
    if let Some((interface, why)) = usable_links(l2, node, world).find_map(lacking) {
        return Reason::NoSocket { interface, why };
    }
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
    let links =
        if texts.is_empty() { "no Ethernet link is up".to_owned() } else { format!("wanted {}", texts.join(", ")) };
    l2.vrf.as_ref().map_or(links.clone(), |vrf| format!("{links} in VRF {vrf}"))
}
