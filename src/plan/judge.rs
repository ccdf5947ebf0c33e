//! The verdict about one Service: its addresses, and what this node does about each. The one place that decides,
//! and so the one place that names reasons.
//! Floor 1. `judge` reads; the planner keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;
use ipnet::IpNet;

use crate::address::{Family, host_prefix};
use crate::claim::ConflictKind;
use crate::config::{Config, L2, Pool, Source};
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName};
use crate::plan::address_book::AddressBook;
use crate::plan::allocate::{Applicant, allocate, may_keep, pool_of};
use crate::plan::context::Context;
use crate::plan::context::l2::{L2Context, describe_interfaces};
use crate::plan::decision::{Allocation, Announcement, BgpVerdict, Carrier, Decision, Held, L2Verdict};
use crate::plan::join;
use crate::plan::placement::{Cause, Placement};
use crate::plan::ranking::{Ranking, covering};
use crate::plan::slice::L2Slice;
use crate::reason::Reason;
use crate::route::RouteAttributes;
use crate::world::{Endpoints, Service, TrafficPolicy, World};

/// All that a verdict is based on.
pub struct Inputs<'a> {
    pub config: &'a Config,
    pub me: &'a NodeName,
    pub world: &'a World,
    pub context: &'a Context,
    pub book: &'a AddressBook,
    /// Services for which this agent itself chose these addresses a moment ago: nobody has used them yet.
    pub fresh: &'a BTreeMap<IpAddr, Fresh>,
    /// The addresses that this node answers for as of the last turn.
    pub answered: &'a L2Slice,
    /// Who has which address on the link as of the last turn.
    pub placements: &'a OrdMap<IpAddr, Arc<Placement>>,
    /// Nothing was judged before.
    pub first_turn: bool,
}

/// An address that was chosen a moment ago.
#[derive(Debug, Clone)]
pub struct Fresh {
    pub service: ObjectKey,
    pub until: Instant,
}

/// What this agent is to do about a Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub decision: Decision,
    pub work: Work,
    /// Addresses that this agent, as the one who allocates, newly chose.
    pub assigned: Option<Vec<IpAddr>>,
    /// Why addresses have another owner on the link than before.
    pub causes: Vec<(IpAddr, Cause)>,
    /// What the status should say; `None` where it is not ours to write, or says it already.
    pub status: Option<Vec<IpAddr>>,
}

/// The part of the slices that a Service accounts for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    pub l2: Vec<(IpAddr, Arc<BTreeSet<InterfaceName>>)>,
    pub routes: Vec<Contribution>,
    pub bind: Vec<(IpAddr, InterfaceName)>,
    /// Of the addresses above, those that this node wants to keep when a better one comes back.
    pub claims: Vec<IpAddr>,
    /// The other nodes that answer for an address of the Service.
    pub other_owners: BTreeSet<NodeName>,
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

impl Inputs<'_> {
    /// The addresses that a Service claims: what its status says, and what was promised to it; nothing if it is not
    /// ours. Those outside every pool are somebody else's.
    pub fn claims(&self, key: &ObjectKey) -> Vec<IpAddr> {
        let Some(service) = self.world.services.get(key) else { return Vec::new() };
        if self.not_ours(service).is_some() {
            return Vec::new();
        }
        let promised = self.world.assigned.get(key);
        let mut claims = service.ingress.clone();
        claims.extend(promised.into_iter().flatten().filter(|address| !service.ingress.contains(address)));
        claims.retain(|address| pool_of(&self.config.pools, *address).is_some());
        claims
    }

    pub fn judge(&self, key: &ObjectKey, service: &Service) -> Verdict {
        if let Some(reason) = self.not_ours(service) {
            let ours_before = !service.load_balancer
                && !service.ingress.is_empty()
                && service.ingress.iter().all(|address| pool_of(&self.config.pools, *address).is_some());
            return Verdict {
                decision: Decision { allocation: Allocation::none(reason), announcements: Vec::new() },
                work: Work::default(),
                assigned: None,
                causes: Vec::new(),
                status: (ours_before && self.world.leader).then(Vec::new),
            };
        }
        let (allocation, assigned) = if self.allocates() {
            self.allocation(key, service)
        } else {
            (self.allocation_by_another(key, service), None)
        };
        let wanted: Vec<IpAddr> = allocation.held.iter().map(|held| held.address).collect();
        let status = (self.world.leader && self.allocates() && wanted != service.ingress).then_some(wanted);

        // What the API server has not confirmed is not announced: it might be given to another Service yet.
        let confirmed = |held: &&Held| self.config.is_standalone() || service.ingress.contains(&held.address);
        let endpoints = self.world.endpoints(key);
        let mut work = Work::default();
        // All addresses of a Service move together: its first one ranks the nodes for all of them.
        let rank_by = allocation.held.iter().find(confirmed).map(|held| held.address);
        let mut causes = Vec::new();
        let announcements = allocation.held.iter().filter(confirmed).map(|held| {
            let rank_by = rank_by.unwrap_or(held.address);
            let (announcement, cause) = self.announce(key, service, &endpoints, held, rank_by, &mut work);
            causes.extend(cause.map(|cause| (held.address, cause)));
            announcement
        });
        let announcements = announcements.collect();
        Verdict { decision: Decision { allocation, announcements }, work, assigned, causes, status }
    }

    /// This agent is the one that chooses addresses, and knows enough to do so. Standalone, a manifest that cannot be read
    /// holds the others up only until patience ends: nobody else will choose for them.
    fn allocates(&self) -> bool {
        if self.config.is_standalone() {
            self.world.listed.all() || self.world.fail_static
        } else {
            self.world.listed.all() && self.world.leader
        }
    }

    fn not_ours(&self, service: &Service) -> Option<Reason> {
        if !service.load_balancer {
            return Some(Reason::NotLoadBalancer);
        }
        let ours = match (&self.config.source, &service.class) {
            // Standalone there is nobody else whose Services these could be.
            (Source::Manifests(_), _) => true,
            (Source::Kubernetes(kubernetes), Some(class)) => *class == kubernetes.class,
            (Source::Kubernetes(kubernetes), None) => kubernetes.default_class,
        };
        (!ours).then(|| Reason::OtherClass { class: service.class.clone() })
    }

    /// The allocation as this agent decides it. What a Service holds rightly stays, also when it wishes for something
    /// that cannot be granted: then the wish is the complaint.
    fn allocation(&self, key: &ObjectKey, service: &Service) -> (Allocation, Option<Vec<IpAddr>>) {
        let pools = &self.config.pools;
        let applicant =
            Applicant { key, service, namespace_labels: self.world.namespaces.get(&key.namespace).map(|it| &**it) };
        let nothing_asked = Default::default();
        let (request, unreadable) = match &service.request {
            Ok(request) => (request, None),
            Err(error) => (&nothing_asked, Some(Reason::RequestUnreadable { text: error.to_string() })),
        };
        let current = self.world.assigned.get(key).unwrap_or(&service.ingress);
        let mut lost = None;
        let mut kept: Vec<Held> = Vec::new();
        let fresh = |address: &IpAddr| self.fresh.get(address).is_some_and(|fresh| fresh.service == *key);
        for address in current {
            // Somebody was there first, and nobody has been told this address yet: another one will do. One that has been in
            // use is never exchanged, whatever is in its way.
            if fresh(address) && self.book.is_occupied(*address) && !request.addresses.contains(address) {
                continue;
            }
            match self.claim_of(key, *address).and_then(|()| may_keep(pools, &applicant, request, *address)) {
                Ok(held) => kept.push(held),
                Err(reason) => lost = Some(reason),
            }
        }
        if let Some(reason) = unreadable {
            return (Allocation::kept(kept, reason), None);
        }
        match allocate(pools, self.book, &applicant, request, &kept) {
            Ok(held) if held == kept => (Allocation::assigned(held), None),
            Ok(held) => {
                let addresses = held.iter().map(|held| held.address).collect();
                (Allocation::assigned(held), Some(addresses))
            }
            Err(reason) => {
                // The wish alone does not take away what still lies in our pools and is nobody else's.
                let still_ours = |address: &IpAddr| {
                    let pool = pool_of(pools, *address)?;
                    self.claim_of(key, *address).ok()?;
                    Some(Held { address: *address, pool: pool.name.clone() })
                };
                let kept = match &lost {
                    Some(Reason::AddressInOtherPool { .. }) | None => current.iter().filter_map(still_ours).collect(),
                    Some(_) => kept,
                };
                (Allocation::kept(kept, reason), None)
            }
        }
    }

    /// The allocation as the status tells it, while another agent decides.
    fn allocation_by_another(&self, key: &ObjectKey, service: &Service) -> Allocation {
        let mut complaint = None;
        let mut held = Vec::new();
        for address in &service.ingress {
            let claim = self.claim_of(key, *address);
            let pool = pool_of(&self.config.pools, *address);
            match (claim, pool) {
                (Ok(()), Some(pool)) => held.push(Held { address: *address, pool: pool.name.clone() }),
                (Ok(()), None) => complaint = Some(Reason::AddressLeftPools { address: *address }),
                (Err(reason), _) => complaint = Some(reason),
            }
        }
        if held.is_empty() {
            let lists = self.world.listed.all() || self.world.fail_static;
            let waiting = if lists { Reason::WaitingForAllocator } else { Reason::WaitingForLists };
            return Allocation { held, reason: complaint.unwrap_or(waiting), complaint: None };
        }
        Allocation { complaint, ..Allocation::assigned(held) }
    }

    fn claim_of(&self, key: &ObjectKey, address: IpAddr) -> Result<(), Reason> {
        match self.book.holder(address) {
            Some(by) if by != key => Err(Reason::AddressClaimedTwice { address, by: by.clone() }),
            Some(_) | None => Ok(()),
        }
    }

    fn announce(
        &self,
        key: &ObjectKey,
        service: &Service,
        endpoints: &Endpoints,
        held: &Held,
        rank_by: IpAddr,
        work: &mut Work,
    ) -> (Announcement, Option<Cause>) {
        let (l2, cause) = self.judge_l2(service, endpoints, held, rank_by, work);
        let bgp = self.judge_bgp(key, service, endpoints, held, work);
        let pool = self.config.pools.iter().find(|pool| pool.name == held.pool);
        if let Some(link) = pool.and_then(|pool| pool.bind.as_ref())
            && (l2.announced || !bgp.peers.is_empty())
        {
            work.bind.push((held.address, link.clone()));
        }
        (Announcement { address: held.address, pool: held.pool.clone(), l2, bgp }, cause)
    }

    fn judge_l2(
        &self,
        service: &Service,
        endpoints: &Endpoints,
        held: &Held,
        rank_by: IpAddr,
        work: &mut Work,
    ) -> (L2Verdict, Option<Cause>) {
        let covering = covering(self.config, self.context, &held.pool);
        if covering.is_empty() {
            return (L2Verdict::refused(Reason::NoL2ForPool { pool: held.pool.clone() }), None);
        }
        let ranking = Ranking::of((service, endpoints), &covering, self.me, self.answered, rank_by);
        let winner = if endpoints.is_empty() { Err(Reason::NoEndpoints) } else { ranking.winner() };
        let verdict = match winner {
            Err(reason) => L2Verdict::refused(reason),
            Ok(owner) if owner != self.me => {
                work.other_owners.insert(owner.clone());
                let reason = Reason::OwnedBy { owner: owner.clone() };
                L2Verdict { owner: Some(owner.clone()), announced: false, reason }
            }
            Ok(_) => self.judge_own(&covering, held, rank_by, work),
        };
        let cause = self.cause(held.address, &verdict, &ranking);
        (verdict, cause)
    }

    /// Of an address that is this node's to answer for.
    fn judge_own(&self, covering: &[(&L2, &L2Context)], held: &Held, rank_by: IpAddr, work: &mut Work) -> L2Verdict {
        let owned = |announced, reason| L2Verdict { owner: Some(self.me.clone()), announced, reason };
        let mine = covering
            .iter()
            .filter(|(_, it)| it.electorate_for(rank_by).candidates.iter().any(|it| it.node == *self.me));
        let mut interfaces: Vec<_> = mine.map(|(_, context)| context.interfaces_for(held.address)).collect();
        let interfaces = match interfaces.len() {
            1 => interfaces.swap_remove(0),
            _ => Arc::new(interfaces.iter().flat_map(|set| set.iter().cloned()).collect::<BTreeSet<_>>()),
        };
        if interfaces.is_empty() {
            if covering.iter().any(|(_, context)| !context.interfaces.is_empty()) {
                return owned(false, Reason::NoLinkInSubnet { address: held.address });
            }
            let wanted = covering.iter().map(|(l2, _)| describe_interfaces(l2)).collect::<Vec<_>>().join("; ");
            return owned(false, Reason::NoInterface { wanted });
        }
        // In a conflict too: the responder asks again until it is over.
        work.l2.push((held.address, interfaces.clone()));
        if covering.iter().any(|(l2, _)| l2.sticky) {
            work.claims.push(held.address);
        }
        match self.conflict(held.address) {
            // Where it is served on several links, it may be free on another.
            Some((kind, reason)) => {
                owned(kind == ConflictKind::Contested || self.is_free_on_any(held.address, &interfaces), reason)
            }
            None => owned(true, Reason::Announced),
        }
    }

    /// Why the address has another owner than before; `None` where it has the same.
    fn cause(&self, address: IpAddr, verdict: &L2Verdict, ranking: &Ranking<'_>) -> Option<Cause> {
        let before = self.placements.get(&address);
        if before.is_some_and(|before| before.owner == verdict.owner) {
            return None;
        }
        // Who listens learns one by one who is there: it sees no moves.
        let listens = || ranking.refusal(self.me) == Some(Reason::NodeListening);
        // And when it has listened, others may have had it long since.
        let found_so = before.map_or(self.first_turn, |it| !it.witnessed && verdict.owner.as_ref() != Some(self.me));
        Some(match before.and_then(|before| before.owner.as_ref()) {
            _ if listens() => Cause::Learned,
            None if found_so => Cause::Learned,
            None => Cause::FirstUse,
            // Not the one who had it: nobody may have it.
            Some(_) if verdict.reason == Reason::NoEndpoints => Cause::OwnerRefused { reason: Reason::NoEndpoints },
            Some(owner) => {
                let rosters = self.world.rosters.values();
                let silence = rosters.filter_map(|roster| roster.silent.get(owner)).max().copied();
                Cause::of_refusal(ranking.refusal(owner), silence)
            }
        })
    }

    /// What is in the way of an address on a link of this node: the worst of it.
    fn conflict(&self, address: IpAddr) -> Option<(ConflictKind, Reason)> {
        let on_links = self.world.conflicts.get(&address)?;
        let (link, conflict) = on_links.iter().min_by_key(|(_, conflict)| conflict.kind == ConflictKind::Contested)?;
        let (link, mac) = (link.clone(), conflict.mac);
        let reason = match conflict.kind {
            ConflictKind::Occupied => Reason::AddressOccupied { address, link, mac },
            ConflictKind::AliveUnheard => Reason::OwnerStillAnswers { address, link, mac },
            ConflictKind::Contested => Reason::AddressContested { address, link, mac },
        };
        Some((conflict.kind, reason))
    }

    fn is_free_on_any(&self, address: IpAddr, interfaces: &BTreeSet<InterfaceName>) -> bool {
        let conflicts = self.world.conflicts.get(&address);
        let on = |link: &InterfaceName| conflicts.and_then(|on_links| on_links.get(link));
        interfaces.iter().any(|link| on(link).is_none_or(|it| it.kind == ConflictKind::Contested))
    }

    fn judge_bgp(
        &self,
        key: &ObjectKey,
        service: &Service,
        endpoints: &Endpoints,
        held: &Held,
        work: &mut Work,
    ) -> BgpVerdict {
        let refused = |reason| BgpVerdict { peers: Vec::new(), reason, routes: Vec::new(), notes: Vec::new() };
        let advertisements = self.config.bgp.advertisements.iter().zip(&self.context.bgp.advertisements).enumerate();
        let covering = advertisements.filter(|(_, (it, _))| {
            (it.pools.is_empty() || it.pools.contains(&held.pool))
                && it.service_selector.as_ref().is_none_or(|selector| selector.matches(&service.labels))
        });
        let covering: Vec<_> = covering.collect();
        if covering.is_empty() {
            return refused(Reason::NoAdvertisement { pool: held.pool.clone() });
        }
        if let Some(reason) = &self.context.bgp.exclusion {
            return refused(reason.clone());
        }
        if !covering.iter().any(|(_, (_, context))| context.selected) {
            return refused(Reason::NodeNotSelected);
        }
        if endpoints.is_empty() {
            return refused(Reason::NoEndpoints);
        }
        let local = service.external_traffic_policy == TrafficPolicy::Local;
        if local && !endpoints.by_node.contains_key(self.me) {
            let nameless = endpoints.by_node.is_empty();
            return refused(if nameless { Reason::EndpointsNameNoNode } else { Reason::NoLocalEndpoint });
        }
        let mut peers = BTreeSet::new();
        let mut routes: BTreeMap<IpNet, BTreeSet<PeerName>> = BTreeMap::new();
        let mut notes = Vec::new();
        let family = Family::of(held.address);
        let given_before = work.routes.len();
        for (number, (advertisement, context)) in covering.iter().filter(|(_, (_, context))| context.selected) {
            let length = match family {
                Family::V4 => advertisement.aggregation_length,
                Family::V6 => advertisement.aggregation_length_v6,
            };
            // The configuration was checked: the length fits the family.
            let prefix = IpNet::new(held.address, length).unwrap_or_else(|_| host_prefix(held.address)).trunc();
            let attributes = match advertisement.link_bandwidth {
                true if local => {
                    let endpoints = Some(self.world.endpoints_on(self.me, key, family));
                    Arc::new(RouteAttributes { endpoints, ..RouteAttributes::clone(&context.attributes) })
                }
                true if !notes.contains(&Reason::LinkBandwidthNeedsLocal) => {
                    notes.push(Reason::LinkBandwidthNeedsLocal);
                    context.attributes.clone()
                }
                true | false => context.attributes.clone(),
            };
            for peer in &context.peers {
                peers.insert(peer.clone());
                routes.entry(prefix).or_default().insert(peer.clone());
                let (peer, attributes) = (peer.clone(), attributes.clone());
                work.routes.push(Contribution { peer, prefix, advertisement: *number, attributes });
            }
        }
        if peers.is_empty() {
            return refused(Reason::NoPeer);
        }
        notes.extend(self.disputes(&work.routes[given_before..]));
        let carrier =
            |(prefix, peers): (IpNet, BTreeSet<PeerName>)| Carrier { prefix, peers: peers.into_iter().collect() };
        BgpVerdict {
            peers: peers.into_iter().collect(),
            reason: Reason::Announced,
            routes: routes.into_iter().map(carrier).collect(),
            notes,
        }
    }

    /// Where the advertisements of one Service cannot be joined.
    fn disputes(&self, given: &[Contribution]) -> Vec<Reason> {
        let mut disputes = Vec::new();
        for (place, first) in given.iter().enumerate() {
            let (peer, prefix) = (&first.peer, first.prefix);
            let same = |other: &&Contribution| other.peer == *peer && other.prefix == prefix;
            // Most routes are given once. Of several, the first goes through them all.
            if given.len() == 1 || given[..place].iter().any(|other| same(&other)) {
                continue;
            }
            let all: Vec<_> = given[place..].iter().filter(same).map(|it| (it.advertisement, &it.attributes)).collect();
            let internal = self.context.bgp.peers.iter().any(|it| it.name == *peer && join::is_internal(it));
            for join::Dispute { key, kept, ignored } in join::disputes(&all, internal) {
                let (peer, key) = (peer.clone(), key.to_owned());
                disputes.push(Reason::AdvertisementsDisagree { prefix, peer, key, kept, ignored });
            }
        }
        disputes
    }
}

impl L2Verdict {
    /// No node answers.
    fn refused(reason: Reason) -> L2Verdict {
        L2Verdict { owner: None, announced: false, reason }
    }
}

impl Allocation {
    fn none(reason: Reason) -> Allocation {
        Allocation { held: Vec::new(), reason, complaint: None }
    }

    fn assigned(held: Vec<Held>) -> Allocation {
        let addresses = held.iter().map(|held| held.address).collect();
        let mut pools: Vec<_> = held.iter().map(|held| held.pool.clone()).collect();
        pools.dedup();
        Allocation { held, reason: Reason::Assigned { addresses, pools }, complaint: None }
    }

    /// What stands although something else was wished for.
    fn kept(held: Vec<Held>, complaint: Reason) -> Allocation {
        if held.is_empty() {
            return Allocation::none(complaint);
        }
        Allocation { complaint: Some(complaint), ..Allocation::assigned(held) }
    }
}

/// Whether a pool is announced over anything at all, for the warning that it is not.
pub fn is_announced(config: &Config, pool: &Pool) -> bool {
    let covers = |pools: &[crate::names::PoolName]| pools.is_empty() || pools.contains(&pool.name);
    config.l2.iter().any(|l2| covers(&l2.pools)) || config.bgp.advertisements.iter().any(|it| covers(&it.pools))
}
