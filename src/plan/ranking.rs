//! Who may answer for the addresses of one Service on the link, in order, and why the others may not.
//! Floor 1. `verdict::l2` takes the candidates from it; `crier l2` shows the whole of it: there is no second path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::config::{Config, L2};
use crate::names::{NodeName, PoolName};
use crate::plan::context::{Context, L2Context};
use crate::plan::elect::{Candidate, Electorate, elect, ranked};
use crate::plan::holder::{Bid, Bidder, Grade};
use crate::plan::remnants::StandIn;
use crate::plan::tickets::Tickets;
use crate::reason::Reason;
use crate::selector::Selector;
use crate::world::{Egress, Endpoints, Node, Service, TrafficPolicy, World};

/// Every `[[l2]]` that covers an address of a pool, which the file may have no more, with what this node knows of the nodes there. `tenants` are all Services
/// that have the address: it moves as one, so what covers it for one of them covers it for all.
pub fn covering<'a, 'b>(
    config: &'a Config,
    context: &'a Context,
    (pool, address): (&PoolName, IpAddr),
    tenants: impl Iterator<Item = &'b Service> + Clone,
) -> Vec<(&'a L2, &'a L2Context)> {
    let stand_in = StandIn::of(config, context, pool, address);
    let of_pool = |l2: &L2, context: &L2Context| match &stand_in {
        None => l2.pools.is_empty() || l2.pools.contains(pool),
        Some(stand_in) => stand_in.is_covered_by(l2, context),
    };
    let selects = |selector: &Selector| tenants.clone().any(|service| selector.matches(&service.labels));
    let covers =
        |l2: &L2, context: &L2Context| of_pool(l2, context) && l2.service_selector.as_ref().is_none_or(selects);
    let vrf = config.pools.iter().find(|it| it.name == *pool).and_then(|it| it.vrf.as_ref());
    let within = |(l2, context): (&'a L2, &'a L2Context)| match (vrf, &l2.vrf) {
        (None, _) => Some((l2, context)),
        (Some(vrf), None) => Some((l2, context.in_vrf(vrf)?)),
        (Some(vrf), Some(of_l2)) => (vrf == of_l2).then_some((l2, context)),
    };
    config.l2.iter().zip(&context.l2).filter(|(l2, context)| covers(l2, context)).filter_map(within).collect()
}

/// What the Services that have an address say of the nodes that may answer for it.
#[derive(Debug, Clone)]
pub struct Wishes<'a> {
    /// The node that an operator chose: the one that the Services name, of several the first by name.
    chosen: Option<&'a NodeName>,
    /// Only nodes that match all of these: what the pods of the Services open leaves by the node that answers.
    selectors: Vec<&'a Selector>,
    nodes: &'a OrdMap<NodeName, Arc<Node>>,
}

impl<'a> Wishes<'a> {
    /// Those of all Services that have the address.
    pub fn of(tenants: impl Iterator<Item = &'a Service> + Clone, world: &'a World) -> Wishes<'a> {
        Wishes {
            chosen: tenants.clone().filter_map(|service| service.node.as_ref()).min(),
            selectors: tenants.filter_map(egress_nodes).collect(),
            nodes: &world.nodes,
        }
    }

    /// Why the node is not to answer; `None` where it may.
    fn refusal(&self, node: &NodeName) -> Option<Reason> {
        let labels = self.nodes.get(node).map(|node| &node.labels);
        let unmet = self.selectors.iter().find(|it| !labels.is_some_and(|labels| it.matches(labels)))?;
        Some(Reason::EgressNodeNotSelected { selector: unmet.to_string() })
    }
}

/// The nodes that alone may own the addresses of a Service, because outbound connections of its pods leave by the owner.
pub fn egress_nodes(service: &Service) -> Option<&Selector> {
    match service.egress? {
        Egress::ServiceAddress => service.egress_bounds.as_ref()?.nodes.as_ref(),
        // Every node may announce the address.
        Egress::Network | Egress::Closed => None,
    }
}

/// So few tickets are worked out anew rather than looked for.
const FEW: usize = 3;

/// The nodes as they stand to the addresses of one Service.
#[derive(Debug)]
pub struct Ranking<'a> {
    me: &'a NodeName,
    /// The node that answers for the addresses now.
    holder: Option<&'a NodeName>,
    electorate: Cow<'a, Electorate>,
    /// Only nodes with one of these may answer, under external traffic policy Local.
    endpoints: Option<&'a Endpoints>,
    /// Nodes with one of these go first: `prefer-endpoints`, under external traffic policy Cluster.
    preferred: Option<&'a Endpoints>,
    /// This node goes before all preferences: see [`Wishes`].
    chosen: Option<&'a NodeName>,
    wishes: Wishes<'a>,
    /// All addresses of a Service move together: this one ranks the nodes for all of them.
    rank_by: IpAddr,
    sticky: bool,
}

/// A node in a ranking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankedNode {
    pub node: NodeName,
    pub score: Result<Score, Reason>,
}

/// What the rank of a candidate follows from, apart from MetalLB's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// The sum of the weights of the preferences that match.
    pub weight: u32,
    /// It has an endpoint of the Service, and the `[[l2]]` prefers such nodes.
    pub near: bool,
    /// An operator chose it for the Service.
    pub chosen: bool,
    /// It has the address already, and the `[[l2]]` is sticky.
    pub keeps: bool,
}

impl<'a> Ranking<'a> {
    pub fn of(
        (service, endpoints): (&Service, &'a Endpoints),
        (covering, wishes): (&[(&'a L2, &'a L2Context)], Wishes<'a>),
        me: &'a NodeName,
        holder: Option<&'a NodeName>,
        (address, rank_by): (IpAddr, IpAddr),
    ) -> Ranking<'a> {
        let local = service.external_traffic_policy == TrafficPolicy::Local;
        let prefers = covering.iter().any(|(_, context)| context.prefers_endpoints);
        let preferred = (!local && prefers).then_some(endpoints);
        let mut electorate = union(covering.iter().map(|(_, context)| context.electorate_for(rank_by)));
        if !wishes.selectors.is_empty() {
            electorate = Cow::Owned(electorate.without(|node| wishes.refusal(node)));
        }
        let is_blind = |node: &NodeName| !covering.iter().any(|(_, context)| context.may_have_v6(node, address));
        if electorate.candidates().iter().any(|it| is_blind(&it.node)) {
            let links = || covering.iter().flat_map(|(_, context)| context.without_v6()).cloned().collect();
            let why = |node: &NodeName| match node == me {
                true => Reason::NoIpv6OnLink { address, links: links() },
                false => Reason::NodeWithoutIpv6 { address },
            };
            electorate = Cow::Owned(electorate.without(|node| is_blind(node).then(|| why(node))));
        }
        let chosen = wishes.chosen;
        Ranking {
            me,
            holder,
            electorate: match (preferred, chosen) {
                (None, None) => electorate,
                _ => Cow::Owned(electorate.reweighed(|it| weigh(preferred, chosen, &it.node, it.weight))),
            },
            endpoints: local.then_some(endpoints),
            preferred,
            chosen,
            wishes,
            rank_by,
            sticky: covering.iter().any(|(l2, _)| l2.sticky),
        }
    }

    /// The best node that may answer, or why there is none.
    pub fn winner(&self, tickets: &Tickets) -> Result<&NodeName, Reason> {
        let best = match self.endpoints {
            Some(endpoints) => {
                let candidates = endpoints.by_node.keys().filter_map(|node| self.electorate.candidate(node));
                elect(candidates, self.rank_by, |candidate| self.keeps(candidate))
            }
            None => self.best_of_all(tickets),
        };
        best.ok_or_else(|| self.nobody())
    }

    /// Why no node may answer.
    pub fn nobody(&self) -> Reason {
        let nameless = self.endpoints.is_some_and(|endpoints| endpoints.by_node.is_empty());
        let able: Vec<_> = self.electorate.candidates().iter().filter(|it| self.has_endpoint(it)).collect();
        match (self.electorate.candidates().is_empty(), nameless) {
            (true, _) => no_eligible_node(&self.electorate, &[], self.me),
            (false, true) => Reason::EndpointsNameNoNode,
            (false, false) if able.is_empty() => Reason::NoNodeWithEndpoint,
            (false, false) => no_eligible_node(&self.electorate, &able, self.me),
        }
    }

    /// This node's bid, or why it may not answer.
    pub fn own_bid(&self) -> Result<Bid, Reason> {
        match self.electorate.candidate(self.me) {
            Some(candidate) if self.has_endpoint(candidate) => Ok(candidate.bid()),
            Some(_) => Err(Reason::NodeLacksEndpoint),
            None => Err(self.refusal(self.me).unwrap_or_else(|| Reason::NodeUnknown { node: self.me.clone() })),
        }
    }

    /// The other nodes that may answer.
    pub fn others(&self) -> Vec<Bidder<'_>> {
        let others = self.electorate.candidates().iter().filter(|it| it.node != *self.me && self.has_endpoint(it));
        others.map(|it| Bidder { node: &it.node, bid: it.bid() }).collect()
    }

    /// Under policy Local, a node without an endpoint cannot serve.
    fn lacks_endpoint(&self, node: &NodeName) -> bool {
        self.endpoints.is_some_and(|endpoints| !endpoints.by_node.contains_key(node))
    }

    /// What this node knows of another one is that it could not serve, whatever that one says of itself.
    pub fn cannot_serve(&self, node: &NodeName) -> bool {
        self.lacks_endpoint(node) || self.wishes.refusal(node).is_some()
    }

    /// What a node with this sum of preferences puts into the scales. Other nodes hear it of this one, for the address.
    pub fn weighed(&self, node: &NodeName, weight: u32) -> u32 {
        weigh(self.preferred, self.chosen, node, weight)
    }

    /// It has an endpoint of the Service, and such nodes are preferred.
    pub fn is_near(&self, node: &NodeName) -> bool {
        self.preferred.is_some_and(|endpoints| endpoints.by_node.contains_key(node))
    }

    /// Why a node may not answer; `None` where it may.
    pub fn refusal(&self, node: &NodeName) -> Option<Reason> {
        if let Some(candidate) = self.electorate.candidate(node) {
            return self.passed_over(candidate);
        }
        let excluded = self.electorate.excluded.iter().find(|(name, _)| name == node);
        Some(excluded.map_or_else(|| Reason::NodeUnknown { node: node.clone() }, |(_, reason)| reason.clone()))
    }

    /// Every node there is: those that may answer in the order of their rank, and behind them the others by name.
    pub fn nodes(&self) -> Vec<RankedNode> {
        let candidates = self.electorate.candidates().iter().filter(|it| self.passed_over(it).is_none());
        let scored = |it: &&Candidate| RankedNode { node: it.node.clone(), score: Ok(self.score(it)) };
        let mut all: Vec<RankedNode> =
            ranked(candidates, self.rank_by, |candidate| self.keeps(candidate)).iter().map(scored).collect();
        let passed_over = self.electorate.candidates().iter().filter_map(|it| Some((&it.node, self.passed_over(it)?)));
        let excluded = self.electorate.excluded.iter().map(|(node, reason)| (node, reason.clone()));
        let mut refused: Vec<_> = passed_over.chain(excluded).collect();
        // Several `[[l2]]` may have refused the same node, and one may have taken it.
        refused.retain(|(node, _)| !all.iter().any(|it| it.node == **node));
        refused.sort_by_key(|(node, _)| *node);
        refused.dedup_by(|(a, _), (b, _)| a == b);
        all.extend(refused.into_iter().map(|(node, reason)| RankedNode { node: node.clone(), score: Err(reason) }));
        all
    }

    /// What [`elect`] says of all candidates, with as few tickets as can be: they count only among those that have the highest
    /// weight, and of these only where none keeps the address.
    fn best_of_all(&self, tickets: &Tickets) -> Option<&NodeName> {
        let electorate = &*self.electorate;
        if self.sticky {
            let keepers = electorate.best().filter(|candidate| self.keeps(candidate));
            if let Some(keeper) = elect(keepers, self.rank_by, |_| true) {
                return Some(keeper);
            }
        }
        let best = electorate.best().next()?;
        if electorate.count_best() > FEW {
            let is_candidate = |node: &NodeName| electorate.candidate(node).is_some_and(|it| it.bid() == best.bid());
            let lowest = tickets.lowest(self.rank_by, is_candidate);
            if let Some(candidate) = lowest.and_then(|node| electorate.candidate(&node)) {
                return Some(&candidate.node);
            }
        }
        elect(electorate.best(), self.rank_by, |_| false)
    }

    /// Why a candidate may not answer for these addresses. One whose data path is bad, or whose view is stale, may where no
    /// better node can.
    fn passed_over(&self, candidate: &Candidate) -> Option<Reason> {
        if !self.has_endpoint(candidate) {
            return Some(Reason::NodeLacksEndpoint);
        }
        let better = |it: &Candidate| it.grade > candidate.grade && self.has_endpoint(it);
        let reason = match candidate.grade {
            Grade::Eligible => return None,
            Grade::ViewStale => Reason::NodeViewStale,
            Grade::DataPathBad => Reason::DataPathBad { fault: None },
            Grade::Draining => Reason::NodeDraining,
        };
        self.electorate.candidates().iter().any(better).then_some(reason)
    }

    fn score(&self, candidate: &Candidate) -> Score {
        let chosen = self.chosen == Some(&candidate.node);
        // Of the chosen node the preferences count for nothing.
        let weight = match (chosen, self.preferred) {
            (true, _) => 0,
            (false, Some(_)) => candidate.weight / 2,
            (false, None) => candidate.weight,
        };
        Score { weight, near: self.is_near(&candidate.node), chosen, keeps: self.keeps(candidate) }
    }

    fn has_endpoint(&self, candidate: &Candidate) -> bool {
        !self.lacks_endpoint(&candidate.node)
    }

    fn keeps(&self, candidate: &Candidate) -> bool {
        self.sticky && self.holder == Some(&candidate.node)
    }
}

/// An endpoint counts less than any difference of the preferences: it is the lowest bit. The chosen node has all that there is.
fn weigh(preferred: Option<&Endpoints>, chosen: Option<&NodeName>, node: &NodeName, weight: u32) -> u32 {
    match preferred {
        _ if chosen == Some(node) => u32::MAX,
        Some(endpoints) => weight.saturating_mul(2).saturating_add(u32::from(endpoints.by_node.contains_key(node))),
        None => weight,
    }
}

/// Several `[[l2]]` may cover a pool: a node is a candidate under any of them, with the sum of its weights.
fn union<'a>(mut electorates: impl Iterator<Item = &'a Electorate>) -> Cow<'a, Electorate> {
    let Some(first) = electorates.next() else { return Cow::Owned(Electorate::default()) };
    let others: Vec<&Electorate> = electorates.collect();
    if others.is_empty() {
        return Cow::Borrowed(first);
    }
    let mut candidates: BTreeMap<NodeName, Candidate> = BTreeMap::new();
    let mut excluded = Vec::new();
    for electorate in std::iter::once(first).chain(others) {
        for candidate in electorate.candidates() {
            match candidates.entry(candidate.node.clone()) {
                Entry::Occupied(mut known) => {
                    known.get_mut().weight = known.get().weight.saturating_add(candidate.weight);
                }
                Entry::Vacant(place) => drop(place.insert(candidate.clone())),
            }
        }
        excluded.extend(electorate.excluded.iter().cloned());
    }
    Cow::Owned(Electorate::new(candidates.into_values().collect(), excluded))
}

/// `idle`: candidates that do not take the address.
fn no_eligible_node(electorate: &Electorate, idle: &[&Candidate], me: &NodeName) -> Reason {
    // Their reasons as `Reason`s say that another node serves.
    let flaw = |grade: Grade| match grade {
        Grade::Eligible => None,
        Grade::ViewStale => Some("the node has not heard the API server for some time"),
        Grade::DataPathBad => Some("the node's data path is bad"),
        Grade::Draining => Some("the node is being drained"),
    };
    let idle = idle.iter().filter_map(|it| Some(format!("{}: {}", it.node, flaw(it.grade)?)));
    let excluded = electorate.excluded.iter().map(|(node, reason)| format!("{node}: {reason}"));
    let excluded: Vec<String> = idle.chain(excluded).collect();
    match excluded.is_empty() {
        true => Reason::NodeUnknown { node: me.clone() },
        false => Reason::NoEligibleNode { excluded },
    }
}
