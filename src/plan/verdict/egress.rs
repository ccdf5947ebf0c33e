//! How what the pods of a Service open leaves the cluster: with which address as its source, and by which node.
//! Floor 1. The owner is the node that the announcement already has: one decision, so an address and its egress are in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Announceable, Inputs};
use crate::address::{Family, MacAddress, is_link_local_v6};
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::carriers::Carriers;
use crate::plan::context::Context;
use crate::plan::decision::{Announcement, EgressOwner, EgressVerdict, Held, L2Verdict};
use crate::plan::elect;
use crate::plan::ranking::egress_nodes;
use crate::plan::tickets::Ticket;
use crate::reason::Reason;
use crate::roster::{Eligibility, Member, Roster, Sessions, Unproved};
use crate::world::{
    Destinations, DrainStage, Egress, EgressBounds, Node, PodMark, Pulses, Service, Tenant, TrafficPolicy, World,
};

/// The part of the work that is about egress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressWork {
    /// Every pod, with how its packets leave. Packets of a pod without a way do not leave the cluster.
    pub pods: Vec<(IpAddr, Option<Way>)>,
    /// The addresses that they leave with, by whichever node.
    pub addresses: Vec<IpAddr>,
    /// Which pod has an address, where the EndpointSlices say that and do not differ.
    pub marks: BTreeMap<IpAddr, PodMark>,
    /// The destinations that this is for; `None`: all outside of the cluster.
    pub destinations: Option<Arc<Destinations>>,
    /// The Nodes or their labels decide which is the owner, so what is new of any Node concerns the Service.
    pub is_elected: bool,
    /// Of the addresses those whose owner has yet to say that packets of pods leave with them there, with that owner.
    pub awaited: BTreeMap<IpAddr, NodeName>,
}

/// How the packets of a pod leave the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By the owner of a Service's address, with that address as their source.
    Owner {
        address: IpAddr,
        owner: NodeName,
        /// This node is the owner and announces the address.
        here: bool,
        /// The owner answers for the address on a link.
        on_link: bool,
        /// The VRF of the address's pool, where this node is the owner.
        vrf: Option<InterfaceName>,
    },
    /// By the network of a Service's address, from the node that the pod is on.
    Network {
        address: IpAddr,
        /// The VRF of the address's pool.
        vrf: Option<InterfaceName>,
    },
}

/// Why this node announces no address of a Service with egress: outbound connections of its pods could leave with any address.
pub fn unguarded(inputs: &Inputs<'_>, service: &Service) -> Option<Reason> {
    let _asked_for = service.egress?;
    let why = inputs.world.egress_obstacle()?.problem.clone();
    Some(Reason::EgressUnguarded { why })
}

/// The one node that may announce each of the addresses, where outbound connections of the pods leave by it: `None` for a Service without
/// egress. An address that is on a link has its owner there. Of one that is announced over BGP alone, all nodes elect the same.
pub fn owners(
    inputs: &Inputs<'_>,
    about: &Announceable<'_>,
    on_link: &[L2Verdict],
) -> Option<Vec<Result<NodeName, Reason>>> {
    match about.service.egress? {
        Egress::ServiceAddress | Egress::Closed => {}
        Egress::Network => return None,
    }
    let owner = |(held, l2): (&&Held, &L2Verdict)| match (&l2.reason, &l2.owner) {
        (Reason::NoL2ForPool { .. }, _) => elected(inputs, about, held),
        (Reason::OwnerStillAnswers { mac, .. }, Some(owner)) if owner == inputs.me && !l2.announced => {
            Ok(still_answers(inputs, held.address, *mac).unwrap_or(owner).clone())
        }
        (_, Some(owner)) => Ok(owner.clone()),
        (reason, None) => Err(reason.clone()),
    };
    Some(about.held.iter().zip(on_link).map(owner).collect())
}

/// The node with this MAC, which had the address when it was heard last: this node alone may not hear it, and what it translates goes on.
fn still_answers<'a>(inputs: &Inputs<'a>, address: IpAddr, mac: MacAddress) -> Option<&'a NodeName> {
    let of = |roster: &'a Arc<Roster>| {
        let gone = roster.silent.iter().map(|(name, it)| (name, it.mac, it.holdings.contains_key(&address)));
        let says = |it: &Unproved| it.holdings.contains_key(&address) || it.egress.contains(&address);
        gone.chain(roster.unproved.iter().map(move |(name, it)| (name, it.mac, says(it))))
    };
    let mut all = inputs.world.rosters.values().flat_map(of);
    all.find(|(_, of_node, had_it)| *of_node == mac && *had_it).map(|(name, _, _)| name)
}

/// The lowest ticket among the nodes that could announce the address over BGP. A node is drained by its own word, as its pulses tell,
/// and its agent is dead when they end.
/// Standalone and without Nodes, a node knows only itself.
fn elected(inputs: &Inputs<'_>, about: &Announceable<'_>, held: &Held) -> Result<NodeName, Reason> {
    let (world, address) = (inputs.world, held.address);
    if world.nodes.is_empty() {
        return Ok(inputs.me.clone());
    }
    let carriers = Carriers::of(inputs.config, &held.pool, about.service);
    let endpoints = about.endpoints_of(address);
    let local = about.service.external_traffic_policy == TrafficPolicy::Local;
    let bound = egress_nodes(about.service);
    let ignores_label = inputs.config.node.ignore_exclude_label;
    let may = |(name, node): &(&NodeName, &Arc<Node>)| {
        let excluded = elect::exclusion(node).filter(|reason| !(ignores_label && *reason == Reason::NodeExcluded));
        let bound = bound.is_none_or(|nodes| nodes.matches(&node.labels));
        let gone = says_drained(inputs, name) || is_away(world, inputs.me, name, node);
        node.ready
            && excluded.is_none()
            && !gone
            && carriers.has_peer(&node.labels)
            && bound
            && (!local || endpoints.by_node.contains_key(*name))
    };
    let able = || world.nodes.iter().filter(may).map(|(name, _)| name);
    let ticket = |name: &&NodeName| Ticket::of(name, address);
    let best = able().min_by_key(ticket);
    // Who is not heard does not learn that the best has no session.
    let stands_in = |best: &NodeName, name: &NodeName| {
        let mut of_it = world.rosters.values().filter_map(|roster| roster.members.get(name));
        let learns = |member: &Member| !member.deaf || best != inputs.me;
        !says_away(inputs, name) && (name == inputs.me || of_it.any(learns))
    };
    let first = best.map(|best| match says_away(inputs, best) {
        true => able().filter(|name| stands_in(best, name)).min_by_key(ticket).unwrap_or(best),
        false => best,
    });
    let by_its_word = first.and_then(|first| match first == inputs.me {
        true => says_unheard(inputs, address),
        false => says_beside(inputs, first, address).filter(|node| able().any(|it| it == *node)),
    });
    by_its_word.or(first).cloned().ok_or_else(|| match bound {
        Some(nodes) => Reason::NoSelectedEgressNode { selector: nodes.to_string() },
        None => Reason::NoEgressNode,
    })
}

/// A node that says that packets of pods leave with the address there, and does not hear this one: it elected itself because it takes
/// this node for dead, and does not learn that it is not. So this one gives way. One that has yet to answer counts too: an agent that
/// starts in that state would announce beside it for longer.
fn says_unheard<'a>(inputs: &Inputs<'a>, address: IpAddr) -> Option<&'a NodeName> {
    let of = |roster: &'a Arc<Roster>| {
        let deaf =
            roster.members.iter().filter(|(_, it)| it.deaf).filter_map(|(name, it)| Some((name, it.egress.as_ref()?)));
        deaf.chain(roster.unproved.iter().map(|(name, it)| (name, &it.egress)))
    };
    let saying = inputs.world.rosters.values().flat_map(of).filter(|(_, egress)| egress.contains(&address));
    saying.map(|(name, _)| name).min_by_key(|name| Ticket::of(name, address))
}

/// Another node than the elected one says that packets of pods leave with the address there, and the elected one, which says of what
/// it does, does not: that one gave way, or has yet to begin.
fn says_beside<'a>(inputs: &Inputs<'a>, first: &NodeName, address: IpAddr) -> Option<&'a NodeName> {
    let members = || inputs.world.rosters.values().flat_map(|roster| &roster.members);
    let says = |egress: &Option<Arc<BTreeSet<IpAddr>>>| egress.as_ref().map(|it| it.contains(&address));
    let mut of_first = members().filter(|(name, _)| *name == first).map(|(_, it)| says(&it.egress)).peekable();
    if of_first.peek().is_none() || of_first.any(|says| says != Some(false)) {
        return None;
    }
    let others = members().filter(|(_, it)| says(&it.egress) == Some(true)).map(|(name, _)| name);
    others.min_by_key(|name| Ticket::of(name, address))
}

/// The node says that it has had no BGP session for some time, while another node had one.
fn says_away(inputs: &Inputs<'_>, node: &NodeName) -> bool {
    if node == inputs.me {
        return inputs.sessions == Some(Sessions::Away);
    }
    let mut heard = inputs.world.rosters.values().filter_map(|roster| roster.members.get(node));
    heard.any(|member| member.sessions == Some(Sessions::Away))
}

/// Without pulses nobody else learns of a drain, so a drained node stays the owner and holds the packets: two nodes that each send
/// them to the other would be worse.
fn says_drained(inputs: &Inputs<'_>, node: &NodeName) -> bool {
    let world = inputs.world;
    if node == inputs.me {
        return world.pulses != Pulses::Off && world.drain_stage() >= Some(DrainStage::Withdrawing);
    }
    let mut heard = world.rosters.values().filter_map(|roster| roster.members.get(node));
    heard.any(|member| member.eligibility == Eligibility::Drained)
}

/// The agent of another node left or is dead, though its Node is Ready: its pulses ended, or are missing on a link where it has an
/// address and others are heard. A node that is heard anywhere is there.
pub fn is_away(world: &World, me: &NodeName, name: &NodeName, node: &Node) -> bool {
    let mut rosters = world.rosters.values();
    if name == me || rosters.any(|it| it.members.contains_key(name) || it.unproved.contains_key(name)) {
        return false;
    }
    world.rosters.iter().any(|(index, roster)| {
        let ended = roster.left.contains_key(name) || roster.silent.get(name).is_some_and(|it| !it.suspect);
        let subnets = || world.links.get(index).into_iter().flat_map(|link| &link.addresses);
        let is_near = || subnets().any(|net| node.addresses.iter().any(|address| net.contains(address)));
        ended || (roster.settled && !roster.members.is_empty() && is_near())
    })
}

/// The owner says itself that packets of pods leave with the address there. One that was worked out here may not have heard of the
/// Service yet, or not that it has egress, and would send its pods' packets on as any others. An agent of a version that does not say
/// so says at least whether it answers for the address. Of a node without pulses nothing is known.
fn says_that_it_translates(inputs: &Inputs<'_>, owner: &NodeName, address: IpAddr, on_link: bool) -> bool {
    let answers = |member: &Member| {
        let answers = member.holdings.get(&address).is_some_and(|holding| holding.stage.answers());
        answers || !member.holdings_known || !on_link
    };
    let translates = |member: &Member| match &member.egress {
        Some(egress) => egress.contains(&address),
        None => answers(member),
    };
    let mut members = inputs.world.rosters.values().filter_map(|roster| roster.members.get(owner)).peekable();
    match members.peek() {
        Some(_) => members.any(translates),
        None => is_settled(inputs.world, inputs.context),
    }
}

/// Packets of pods still leave by a node that was the owner of the address until now: it says so, or it said goodbye a moment ago, and its
/// kernel goes on. Of one that fell silent nothing is known.
pub fn still_translates(world: &World, me: &NodeName, owner: &NodeName, address: IpAddr) -> bool {
    let contains = |it: &Option<Arc<BTreeSet<IpAddr>>>| it.as_ref().is_some_and(|it| it.contains(&address));
    if owner == me {
        return contains(&world.egress_translated);
    }
    let mut members = world.rosters.values().filter_map(|roster| roster.members.get(owner)).peekable();
    match members.peek() {
        Some(_) => members.any(|member| contains(&member.egress)),
        None => world.rosters.values().any(|roster| roster.left.contains_key(owner)),
    }
}

/// No link's first pulses are waited for: who is not heard sends none.
pub fn is_settled(world: &World, context: &Context) -> bool {
    let is_settled = |link: &u32| world.rosters.get(link).is_some_and(|roster| roster.settled);
    world.pulses == Pulses::Off || context.pulse.links.keys().all(is_settled)
}

/// Where the pods' packets go. `announcements` are those of this node.
pub fn judge(
    inputs: &Inputs<'_>,
    key: &ObjectKey,
    service: &Service,
    owners: &[Result<NodeName, Reason>],
    announcements: &[Announcement],
) -> (Option<EgressVerdict>, EgressWork) {
    let Some(egress) = service.egress else { return (None, EgressWork::default()) };
    let bounds = service.egress_bounds.as_deref();
    let refusal = refusal(inputs, egress, bounds);
    // A pod in the host's network has the node's address, as has the node itself.
    let all = inputs.world.endpoint_tenants(key);
    let (of_nodes, pods): (Vec<_>, Vec<_>) = all.partition(|(address, tenant)| is_no_pod(inputs, *address, *tenant));
    let mut pods: Vec<IpAddr> = pods.into_iter().map(|(address, _)| address).collect();
    let marks = marks(inputs, key, &pods);
    pods.sort_unstable();
    pods.dedup();
    let owner = |(announcement, owner): (&Announcement, &Result<NodeName, Reason>)| {
        let address = announcement.address;
        let not_ready = |owner: &NodeName| {
            let waits =
                owner != inputs.me && !says_that_it_translates(inputs, owner, address, announcement.is_on_link());
            waits.then(|| Reason::EgressOwnerNotReady { owner: owner.clone(), address })
        };
        match owner {
            Ok(owner) => EgressOwner { address, owner: Some(owner.clone()), reason: not_ready(owner) },
            Err(reason) => EgressOwner { address, owner: None, reason: Some(reason.clone()) },
        }
    };
    let owners: Vec<EgressOwner> = announcements.iter().zip(owners).map(owner).collect();
    let of_pod = |pod: &IpAddr, address: IpAddr| Family::of(address) == Family::of(*pod);
    let pool_of = |it: &Announcement| inputs.config.pools.iter().find(|pool| pool.name == it.pool);
    let way = |pod: &IpAddr| match egress {
        Egress::Closed => None,
        Egress::Network if refusal.is_some() => None,
        Egress::Network => {
            let announcement = announcements.iter().find(|it| of_pod(pod, it.address))?;
            Some(Way::Network { address: announcement.address, vrf: pool_of(announcement)?.vrf.clone() })
        }
        Egress::ServiceAddress => announcements.iter().zip(&owners).find_map(|(announcement, owner)| {
            let fits = owner.reason.is_none() && of_pod(pod, announcement.address);
            let owner = owner.owner.as_ref().filter(|_| fits)?;
            let here = owner == inputs.me;
            let announced = announcement.l2.announced || !announcement.bgp.peers.is_empty();
            let (address, on_link) = (announcement.address, announcement.is_on_link());
            let vrf = pool_of(announcement).filter(|_| here).and_then(|pool| pool.vrf.clone());
            (!here || announced).then(|| Way::Owner { address, owner: owner.clone(), here, on_link, vrf })
        }),
    };
    let pods: Vec<(IpAddr, Option<Way>)> = pods.into_iter().map(|pod| (pod, way(&pod))).collect();
    let addresses: Vec<IpAddr> = announcements.iter().map(|it| it.address).collect();
    let waits = |it: &EgressOwner| matches!(it.reason, Some(Reason::EgressOwnerNotReady { .. }));
    let awaited = owners.iter().filter(|it| egress == Egress::ServiceAddress && waits(it));
    let awaited = awaited.filter_map(|it| Some((it.address, it.owner.clone()?))).collect();
    let (by_owner, by_network) = match egress {
        Egress::ServiceAddress => (addresses, Vec::new()),
        Egress::Network => (Vec::new(), addresses),
        Egress::Closed => (Vec::new(), Vec::new()),
    };
    let verdict = EgressVerdict {
        pods: pods.len(),
        host_pods: of_nodes.len(),
        owners,
        networks: by_network,
        refusal,
        closed: egress == Egress::Closed,
    };
    let is_elected = announcements.iter().any(|it| matches!(it.l2.reason, Reason::NoL2ForPool { .. }));
    let is_elected = is_elected || bounds.is_some_and(|bounds| bounds.nodes.is_some());
    let destinations = bounds.and_then(|bounds| bounds.destinations.clone());
    (Some(verdict), EgressWork { pods, addresses: by_owner, marks, destinations, is_elected, awaited })
}

/// Which pod has each of the addresses.
fn marks(inputs: &Inputs<'_>, key: &ObjectKey, pods: &[IpAddr]) -> BTreeMap<IpAddr, PodMark> {
    let mut all: BTreeMap<IpAddr, BTreeSet<Option<PodMark>>> = pods.iter().map(|pod| (*pod, BTreeSet::new())).collect();
    for (address, tenant) in inputs.world.endpoint_tenants(key) {
        if let Some(marks) = all.get_mut(&address) {
            marks.insert(tenant.pod());
        }
    }
    // One that is replaced may be told beside its successor: then nothing is certain.
    let one = |(address, marks): (IpAddr, BTreeSet<Option<PodMark>>)| {
        let mut marks = marks.into_iter();
        let first = marks.next()??;
        marks.next().is_none().then_some((address, first))
    };
    all.into_iter().filter_map(one).collect()
}

/// Something else than a pod of its own has the address, whatever an EndpointSlice says: a host, a router, a Service, or nobody can. To
/// guard it would keep from the outside what that one sends. An address of a pool may be a Service's soon, unless the EndpointSlice names
/// the pod that has it: a pool that holds the pods' network must not take the guard from all of them.
fn is_no_pod(inputs: &Inputs<'_>, address: IpAddr, tenant: Tenant) -> bool {
    let world = inputs.world;
    let of_node = || world.nodes.values().any(|node| node.addresses.contains(&address));
    let of_link = |net: &IpNet| net.addr() == address;
    // Also of the pod network: its bridge is the pods' gateway.
    let of_host = || world.links.values().flat_map(|link| &link.addresses).any(of_link);
    let of_router = || world.default_routes.iter().any(|route| route.gateway == Some(address));
    let of_pool = || tenant.pod().is_none() && inputs.config.pools.iter().any(|pool| pool.holds(address));
    let of_service = || !inputs.book.tenants(address).is_empty();
    let special = match address {
        IpAddr::V4(v4) => {
            v4.is_unspecified() || v4.is_loopback() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local()
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || is_link_local_v6(address),
    };
    special || of_node() || of_host() || of_router() || of_pool() || of_service()
}

/// Why pods on this node may not leave by a network.
fn refusal(inputs: &Inputs<'_>, egress: Egress, bounds: Option<&EgressBounds>) -> Option<Reason> {
    let nodes = bounds.and_then(|bounds| bounds.nodes.as_ref()).filter(|_| egress == Egress::Network)?;
    let labels = inputs.world.nodes.get(inputs.me).map(|node| &node.labels);
    let selected = labels.is_some_and(|labels| nodes.matches(labels));
    (!selected).then(|| Reason::EgressNodeNotSelected { selector: nodes.to_string() })
}
