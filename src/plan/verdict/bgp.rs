//! Which routes this node announces for the addresses of a Service, and to which peers.
//! Floor 1. What several Services say about one route is joined by `plan::route_table`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Announceable, Inputs, data_path, egress, shared};
use crate::address::{Family, host_prefix};
use crate::config::Advertisement;
use crate::names::{NodeName, ObjectKey, PeerName};
use crate::plan::context::bgp::AdvertisementContext;
use crate::plan::decision::{BgpVerdict, Carrier, Held};
use crate::plan::join;
use crate::plan::remnants::advertises;
use crate::reason::Reason;
use crate::route::RouteAttributes;
use crate::world::TrafficPolicy;

/// What this node announces over BGP for the addresses of a Service.
pub struct Answer {
    /// One for each address, in their order.
    pub verdicts: Vec<BgpVerdict>,
    pub work: Vec<Contribution>,
}

/// What one advertisement says of one route, on behalf of a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Contribution {
    pub peer: PeerName,
    pub prefix: IpNet,
    /// Which `[[bgp.advertisement]]` it is, counted from 0: where two disagree, the first in the file counts.
    pub advertisement: usize,
    pub attributes: Arc<RouteAttributes>,
}

/// `owners`: for each address the one node that may announce it, of a Service whose pods send with its addresses.
pub fn judge(inputs: &Inputs<'_>, about: &Announceable<'_>, owners: Option<&[Result<NodeName, Reason>]>) -> Answer {
    let mut answer = Answer { verdicts: Vec::new(), work: Vec::new() };
    for (place, held) in about.held.iter().enumerate() {
        let covering = covering(inputs, about, held);
        let owner = owners.and_then(|owners| owners.get(place));
        let refusal = refusal(inputs, about, held, &covering).or_else(|| not_the_owner(inputs, owner?));
        let (verdict, contributions) = match refusal {
            Some(reason) => (BgpVerdict::refused(reason), Vec::new()),
            None => announce(inputs, about, held, (&covering, owner.is_some())),
        };
        answer.verdicts.push(verdict);
        answer.work.extend(contributions);
    }
    answer
}

/// An advertisement with its number in the file and what this node has to do with it.
type Numbered<'a> = (usize, &'a Advertisement, &'a AdvertisementContext);

fn covering<'a>(inputs: &Inputs<'a>, about: &Announceable<'_>, held: &Held) -> Vec<Numbered<'a>> {
    let all = inputs.config.bgp.advertisements.iter().zip(&inputs.context.bgp.advertisements).enumerate();
    all.filter(|(_, (it, _))| advertises(inputs.config, it, &held.pool, &about.service.labels))
        .map(|(number, (it, context))| (number, it, context))
        .collect()
}

/// Why the address is announced to no peer, as far as that does not depend on the peers.
fn refusal(inputs: &Inputs<'_>, about: &Announceable<'_>, held: &Held, covering: &[Numbered<'_>]) -> Option<Reason> {
    if covering.is_empty() {
        return Some(Reason::NoAdvertisement { pool: held.pool.clone() });
    }
    if let Some(reason) = &inputs.context.bgp.exclusion {
        return Some(reason.clone());
    }
    if !covering.iter().any(|(_, _, context)| context.selected) {
        return Some(Reason::NodeNotSelected);
    }
    let endpoints = about.endpoints_of(held.address);
    if endpoints.is_empty() {
        return Some(Reason::NoEndpoints);
    }
    let local = about.service.external_traffic_policy == TrafficPolicy::Local;
    if local && !endpoints.by_node.contains_key(inputs.me) {
        let nameless = endpoints.by_node.is_empty();
        return Some(if nameless { Reason::EndpointsNameNoNode } else { Reason::NoLocalEndpoint });
    }
    egress::unguarded(inputs, about.service).or_else(|| data_path::gives_way(inputs, about, held.address))
}

/// Replies to outbound connections of the pods must come to the node that knows these connections.
fn not_the_owner(inputs: &Inputs<'_>, owner: &Result<NodeName, Reason>) -> Option<Reason> {
    match owner {
        Ok(owner) if owner == inputs.me => None,
        Ok(owner) => Some(Reason::EgressOwnedBy { owner: owner.clone() }),
        Err(reason) => Some(reason.clone()),
    }
}

/// `alone`: no other node may announce the address. Other nodes announce an aggregate that holds it for other Services, so that it goes out as
/// a route of its own beside: routers use the longest prefix.
fn announce(
    inputs: &Inputs<'_>,
    about: &Announceable<'_>,
    held: &Held,
    (covering, alone): (&[Numbered<'_>], bool),
) -> (BgpVerdict, Vec<Contribution>) {
    let local = about.service.external_traffic_policy == TrafficPolicy::Local;
    let family = Family::of(held.address);
    let mut routes: BTreeMap<IpNet, BTreeSet<PeerName>> = BTreeMap::new();
    let mut notes = Vec::new();
    let mut contributions = Vec::new();
    let vrf = inputs.config.pools.iter().find(|pool| pool.name == held.pool).and_then(|pool| pool.vrf.as_ref());
    let is_within = |peer: &&PeerName| vrf.is_none_or(|vrf| inputs.context.bgp.is_in_vrf(peer, vrf));
    for (number, advertisement, context) in covering.iter().filter(|(_, _, context)| context.selected) {
        let length = match family {
            Family::V4 => advertisement.aggregation_length,
            Family::V6 => advertisement.aggregation_length_v6,
        };
        // The configuration was checked: the length fits the family.
        let own = host_prefix(held.address);
        let prefix = IpNet::new(held.address, length).unwrap_or(own).trunc();
        let prefixes = [Some(prefix), Some(own).filter(|own| alone && *own != prefix)];
        let attributes = match advertisement.link_bandwidth {
            true if local => {
                let count = |service: &ObjectKey| inputs.world.endpoints_on(inputs.me, service, family);
                // Several Services of one address have the same pods, which count once.
                let counts = shared::speaks_for_endpoints(inputs, about.key, held.address, count);
                let endpoints = counts.then(|| count(about.key));
                Arc::new(RouteAttributes { endpoints, ..RouteAttributes::clone(&context.attributes) })
            }
            true if !notes.contains(&Reason::LinkBandwidthNeedsLocal) => {
                notes.push(Reason::LinkBandwidthNeedsLocal);
                context.attributes.clone()
            }
            true | false => context.attributes.clone(),
        };
        for prefix in prefixes.into_iter().flatten() {
            for peer in context.peers.iter().filter(is_within) {
                routes.entry(prefix).or_default().insert(peer.clone());
                let (peer, attributes) = (peer.clone(), attributes.clone());
                contributions.push(Contribution { peer, prefix, advertisement: *number, attributes });
            }
        }
    }
    if routes.is_empty() {
        return (BgpVerdict::refused(Reason::NoPeer), Vec::new());
    }
    notes.extend(disputes(inputs, &contributions));
    let peers: BTreeSet<PeerName> = routes.values().flatten().cloned().collect();
    let carrier = |(prefix, peers): (IpNet, BTreeSet<PeerName>)| Carrier { prefix, peers: peers.into_iter().collect() };
    let verdict = BgpVerdict {
        peers: peers.into_iter().collect(),
        reason: Reason::Announced,
        routes: routes.into_iter().map(carrier).collect(),
        notes,
    };
    (verdict, contributions)
}

/// Where the advertisements of one Service cannot be joined.
fn disputes(inputs: &Inputs<'_>, given: &[Contribution]) -> Vec<Reason> {
    let mut disputes = Vec::new();
    for (place, first) in given.iter().enumerate() {
        let (peer, prefix) = (&first.peer, first.prefix);
        let same = |other: &&Contribution| other.peer == *peer && other.prefix == prefix;
        // Most routes are given once. Of several, the first goes through them all.
        if given.len() == 1 || given[..place].iter().any(|other| same(&other)) {
            continue;
        }
        let all: Vec<_> = given[place..].iter().filter(same).map(|it| (it.advertisement, &it.attributes)).collect();
        let internal = inputs.context.bgp.peers.iter().any(|it| it.name == *peer && it.is_internal());
        for join::Disagreement { key, kept, ignored } in join::disputes(&all, internal) {
            let (peer, key) = (peer.clone(), key.to_owned());
            disputes.push(Reason::AdvertisementsDisagree { prefix, peer, key, kept, ignored });
        }
    }
    disputes
}

impl BgpVerdict {
    /// No peer is told.
    fn refused(reason: Reason) -> BgpVerdict {
        BgpVerdict { peers: Vec::new(), reason, routes: Vec::new(), notes: Vec::new() }
    }
}
