//! The planner: facts in, the whole wanted state out, at a cost that follows what changed.
//! Floor 1.
//!
//! How to drive it: call [`Planner::apply`] with every fact at hand, then [`Planner::turn`] once, hand the slices of
//! [`Planner::plan`] to the actuators, and come back with the next fact or at [`Planner::next_deadline`], whichever
//! is first. Spare turns are harmless. Time must not go backwards.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use ipnet::IpNet;

use self::memory::OCCUPIED_REST;
use crate::claim::ConflictKind;
use crate::config::Config;
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName};
use crate::plan::allocate::{AddressBook, pool_of};
use crate::plan::context::{self, Context, PulseContext};
use crate::plan::decision::Decision;
use crate::plan::join::{Contributions, Dispute, disputes_of, is_internal, join};
use crate::plan::judge::{Contribution, Fresh, Inputs, Verdict, Work};
use crate::plan::notice::notice;
use crate::plan::placement::{Handover, Placement};
use crate::plan::reach;
use crate::plan::slice::{BgpSlice, BindSlice, L2Slice, PeerSlice, PulseSlice, ServiceStatus, StatusSlice};
use crate::route::RouteAttributes;
use crate::world::{Fact, Service, Touched, World};

/// The whole wanted state of this node, and why.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub decisions: OrdMap<ObjectKey, Arc<Decision>>,
    pub l2: L2Slice,
    pub bgp: BgpSlice,
    /// Routes about which advertisements say what cannot be joined.
    pub disputes: OrdMap<(PeerName, IpNet), Arc<Vec<Dispute>>>,
    pub bind: BindSlice,
    pub pulse: PulseSlice,
    pub status: StatusSlice,
    /// Who has each address that is announced on a link, since when and why.
    pub placements: OrdMap<IpAddr, Arc<Placement>>,
}

/// What changed for one Service in a turn, for the log and the journal.
#[derive(Debug, Clone)]
pub struct Change {
    pub service: ObjectKey,
    pub before: Option<Arc<Decision>>,
    pub after: Option<Arc<Decision>>,
}

/// The outcome of a turn.
#[derive(Debug, Default)]
pub struct Turn {
    pub changes: Vec<Change>,
    /// Routes about which advertisements have begun to disagree in this turn; the Plan holds the dispute.
    pub disputed: Vec<(PeerName, IpNet)>,
    /// Addresses that have another owner on the link since this turn; those that were only found to have it are left out.
    pub handovers: Vec<Handover>,
    /// Conflicts on a link that began or changed their kind.
    pub conflicts: Vec<(IpAddr, InterfaceName, ConflictKind)>,
    /// Which slices are not what they were before the turn.
    pub moved: Moved,
}

/// One flag for each slice of the [`Plan`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    pub l2: bool,
    pub bgp: bool,
    pub bind: bool,
    pub pulse: bool,
    pub status: bool,
}

/// See the module's documentation.
pub struct Planner {
    config: Arc<Config>,
    me: NodeName,
    world: World,
    context: Arc<Context>,
    book: AddressBook,
    plan: Plan,
    moved: Moved,
    work: BTreeMap<ObjectKey, Work>,
    /// Who contributes what to a route: several Services meet in one where prefixes are aggregated.
    routes: BTreeMap<(PeerName, IpNet), Contributions>,
    shared: Shared,
    disputed: Vec<(PeerName, IpNet)>,
    handovers: Vec<Handover>,
    /// The conflicts that were told since the last turn.
    contested: BTreeSet<(IpAddr, InterfaceName)>,
    conflicts: Vec<(IpAddr, InterfaceName, ConflictKind)>,
    first_turn: bool,
    /// For how many Services each other node answers.
    owners: BTreeMap<NodeName, usize>,
    /// Addresses that this agent chose a moment ago.
    fresh: BTreeMap<IpAddr, Fresh>,
    /// Addresses that this node found taken by foreign hosts, each until when the other agents are told.
    found: BTreeMap<IpAddr, Instant>,
    occupied_moved: bool,
    /// Nodes that were still listening when this one looked last, each with when that was.
    listening: BTreeMap<NodeName, Instant>,
    to_judge: BTreeSet<ObjectKey>,
    context_moved: bool,
    peers_moved: bool,
    /// Services that wait for an address: judged again when one becomes free.
    waiting: BTreeSet<ObjectKey>,
}

impl Planner {
    pub fn new(config: Arc<Config>, me: NodeName) -> Planner {
        Planner {
            book: AddressBook::new(&config.pools),
            config,
            me,
            world: World::default(),
            context: Arc::default(),
            plan: Plan::default(),
            moved: Moved::default(),
            work: BTreeMap::new(),
            routes: BTreeMap::new(),
            shared: Shared::default(),
            disputed: Vec::new(),
            handovers: Vec::new(),
            contested: BTreeSet::new(),
            conflicts: Vec::new(),
            first_turn: true,
            owners: BTreeMap::new(),
            fresh: BTreeMap::new(),
            found: BTreeMap::new(),
            occupied_moved: false,
            listening: BTreeMap::new(),
            to_judge: BTreeSet::new(),
            context_moved: true,
            peers_moved: false,
            waiting: BTreeSet::new(),
        }
    }

    /// The node that this plans for.
    pub fn node(&self) -> &NodeName {
        &self.me
    }

    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn book(&self) -> &AddressBook {
        &self.book
    }

    /// What the decisions of the last turn are based on.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Takes a fact in. Decides nothing yet.
    pub fn apply(&mut self, fact: Fact) {
        let may_occupy = matches!(fact, Fact::Conflict(..) | Fact::Roster(..));
        if let Fact::Conflict(address, link, _) = &fact {
            self.contested.insert((*address, link.clone()));
        }
        match self.world.apply(fact) {
            Touched::Nothing => {}
            Touched::Peers => self.peers_moved = true,
            Touched::Services(keys) => self.to_judge.extend(keys),
            Touched::Everything => self.context_moved = true,
        }
        self.occupied_moved |= may_occupy;
    }

    /// When to call [`Planner::turn`] again even if no fact comes in.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.waiting.is_empty() { None } else { self.book.next_deadline() }
    }

    /// Brings the plan up to date and says what changed. Before the first lists are complete there is no plan.
    pub fn turn(&mut self, now: Instant) -> Turn {
        if !self.may_decide() {
            return Turn::default();
        }
        self.fresh.retain(|_, fresh| fresh.until > now);
        // Before anybody is judged: what is in the way now may be given up by it.
        self.renew_occupied(now);
        if self.book.wake(now) {
            self.to_judge.extend(self.waiting.iter().cloned());
        }
        if std::mem::take(&mut self.context_moved) {
            self.note_listening(now);
            self.context = Arc::new(Context::of(&self.config, &self.me, &self.world));
            self.to_judge.extend(self.world.services.keys().cloned());
            self.to_judge.extend(self.plan.decisions.keys().cloned());
            self.renew_frames();
        }
        if std::mem::take(&mut self.peers_moved) {
            self.renew_peers();
        }
        let mut changes = Vec::new();
        // Claims first, so that nobody is given what the status of another already says.
        let mut batch: Vec<ObjectKey> = std::mem::take(&mut self.to_judge).into_iter().collect();
        for key in &batch {
            self.claim(key, now);
        }
        batch.extend(std::mem::take(&mut self.to_judge));
        // Then the wishes for a certain address, so that nobody gets by chance what another asked for by name.
        batch.sort_by_key(|key| !self.asks_for_address(key));
        for key in batch {
            changes.extend(self.judge(&key, now));
        }
        // A judgement may free or take addresses that others wait for or claim.
        while let Some(key) = self.to_judge.pop_first() {
            changes.extend(self.judge(&key, now));
        }
        self.renew_pulse();
        self.note_conflicts(now);
        self.first_turn = false;
        Turn {
            changes,
            disputed: std::mem::take(&mut self.disputed),
            handovers: std::mem::take(&mut self.handovers),
            conflicts: std::mem::take(&mut self.conflicts),
            moved: std::mem::take(&mut self.moved),
        }
    }

    /// Nothing is decided on half a picture: a route that is missing because its Service was not told yet would be
    /// withdrawn from a router that holds it rightly.
    fn may_decide(&self) -> bool {
        (self.world.listed.all() || self.world.fail_static) && self.world.links_listed
    }

    fn asks_for_address(&self, key: &ObjectKey) -> bool {
        let request = self.world.services.get(key).and_then(|service| service.request.as_ref().ok());
        request.is_some_and(|request| !request.addresses.is_empty())
    }

    fn claim(&mut self, key: &ObjectKey, now: Instant) {
        let claims = self.inputs().claims(key);
        self.record_claims(key, claims, now);
    }

    fn record_claims(&mut self, key: &ObjectKey, claims: Vec<IpAddr>, now: Instant) {
        let pools = &self.config.pools;
        let occupied: Vec<IpAddr> =
            self.book.claimed_by(key).iter().copied().filter(|address| self.book.is_occupied(*address)).collect();
        let until = |address| {
            // Nobody asks on the link about an address that nobody holds, so nobody learns when the foreign host leaves.
            let least = if occupied.contains(&address) { OCCUPIED_REST } else { Duration::ZERO };
            pool_of(pools, address).map(|pool| now + pool.rest.max(least)).filter(|until| *until > now)
        };
        let freed = self.book.claimed_by(key).iter().any(|address| !claims.contains(address));
        let concerned = self.book.claim(key, claims, until);
        self.to_judge.extend(concerned.into_iter().filter(|other| other != key));
        if freed {
            self.to_judge.extend(self.waiting.iter().cloned());
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            config: &self.config,
            me: &self.me,
            world: &self.world,
            context: &self.context,
            book: &self.book,
            fresh: &self.fresh,
            answered: &self.plan.l2,
            placements: &self.plan.placements,
            first_turn: self.first_turn,
        }
    }

    fn judge(&mut self, key: &ObjectKey, now: Instant) -> Option<Change> {
        let Some(service) = self.world.services.get(key).cloned() else {
            return self.forget(key);
        };
        let Verdict { decision, work, assigned, causes, status } = self.inputs().judge(key, &service);
        if let Some(addresses) = assigned {
            let held = self.book.claimed_by(key);
            let chosen =
                addresses.iter().filter(|address| !held.contains(address) && !service.ingress.contains(address));
            let fresh = Fresh { service: key.clone(), until: now + FRESH };
            self.fresh.extend(chosen.map(|address| (*address, fresh.clone())));
            self.world.apply(Fact::Assigned(key.clone(), addresses));
            self.claim(key, now);
            // The promise counts from here on: standalone it is the allocation itself.
            if self.config.is_standalone() {
                return self.judge(key, now);
            }
        }
        if service.load_balancer && decision.allocation.is_wanting() {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
        self.put_status(key, &service, &decision, status);
        let before = self.plan.decisions.get(key).cloned();
        self.note_acquisitions(before.as_deref(), &work, now);
        self.note_placements(before.as_deref(), &decision, causes, now);
        self.put_work(key, work);
        if before.as_deref() == Some(&decision) {
            return None;
        }
        let after = Arc::new(decision);
        self.plan.decisions.insert(key.clone(), after.clone());
        Some(Change { service: key.clone(), before, after: Some(after) })
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Change> {
        self.waiting.remove(key);
        self.moved.status |= self.plan.status.services.remove(key).is_some();
        self.put_work(key, Work::default());
        self.work.remove(key);
        let before = self.plan.decisions.remove(key)?;
        before.announcements.iter().for_each(|it| drop(self.plan.placements.remove(&it.address)));
        Some(Change { service: key.clone(), before: Some(before), after: None })
    }

    /// The parts of the slices that do not belong to a single Service.
    fn renew_frames(&mut self) {
        if self.plan.bgp.router_id.is_none() {
            self.plan.bgp.router_id = context::router_id(&self.config, &self.me, &self.world);
        }
        self.plan.bgp.complete = true;
        // Facts about nodes and links are rare: no need to find out which of these two they change.
        self.moved.bgp = true;
        self.moved.l2 = true;
        let local_addresses = context::local_addresses(&self.world);
        if *self.plan.bgp.local_addresses != local_addresses {
            self.plan.bgp.local_addresses = Arc::new(local_addresses);
        }
        let PulseContext { links, eligibility, labels } = self.context.pulse.clone();
        self.plan.pulse = PulseSlice { links, eligibility, labels, ..std::mem::take(&mut self.plan.pulse) };
        self.moved.pulse = true;
        let rosters = self.world.rosters.values();
        let members: BTreeMap<_, _> =
            rosters.flat_map(|roster| &roster.members).map(|(name, member)| (member.mac, name.clone())).collect();
        if *self.plan.l2.members != members {
            self.plan.l2.members = Arc::new(members);
        }
        let links: Vec<_> = self.world.links.values().cloned().collect();
        if *self.plan.l2.links != links {
            self.plan.l2.links = Arc::new(links);
        }
        let unnumbered = reach::unnumbered_links(&self.context.peers, &self.world);
        if *self.plan.bgp.unnumbered != unnumbered {
            self.plan.bgp.unnumbered = Arc::new(unnumbered);
        }
        self.renew_peers();
    }

    /// Which peers there are, and where.
    fn renew_peers(&mut self) {
        let peers: OrdMap<PeerName, PeerSlice> = self
            .context
            .peers
            .iter()
            .map(|settings| {
                let known = self.plan.bgp.peers.get(&settings.name);
                let routes = known.map(|peer| peer.routes.clone()).unwrap_or_else(|| self.routes_of(&settings.name));
                let before = known.and_then(|peer| peer.address.as_ref().ok());
                let address = reach::address(settings, before, &self.world);
                (settings.name.clone(), PeerSlice { settings: settings.clone(), address, routes })
            })
            .collect();
        let places = |peers: &OrdMap<PeerName, PeerSlice>| {
            peers.iter().map(|(name, peer)| (name.clone(), peer.address.clone())).collect::<Vec<_>>()
        };
        self.moved.bgp |= places(&peers) != places(&self.plan.bgp.peers);
        self.plan.bgp.peers = peers;
    }

    fn routes_of(&self, peer: &PeerName) -> OrdMap<IpNet, Arc<RouteAttributes>> {
        let of_peer = self.routes.iter().filter(|((name, _), _)| name == peer);
        of_peer.filter_map(|((_, prefix), given)| Some((*prefix, join(given)?))).collect()
    }

    fn note_disputes(&mut self, route: &(PeerName, IpNet)) {
        let internal = self.context.peers.iter().any(|peer| peer.name == route.0 && is_internal(peer));
        let found = self.routes.get(route).map(|given| disputes_of(given, internal)).unwrap_or_default();
        if found.is_empty() {
            self.plan.disputes.remove(route);
            return;
        }
        if self.plan.disputes.get(route).map(|known| &**known) != Some(&found) {
            self.plan.disputes.insert(route.clone(), Arc::new(found));
            self.disputed.push(route.clone());
        }
    }

    fn put_status(&mut self, key: &ObjectKey, service: &Service, decision: &Decision, write: Option<Vec<IpAddr>>) {
        // Who is in the way of an address is told by the node that finds it there, whoever allocates.
        let in_conflict = decision.announcements.iter().any(|it| it.l2.reason.is_conflict());
        let ours = self.world.leader && (service.load_balancer || write.is_some());
        let wanted = (ours || in_conflict).then(|| ServiceStatus {
            uid: service.uid.clone(),
            resource_version: service.resource_version.clone(),
            write,
            notice: notice(service, decision),
        });
        match wanted {
            Some(status) => {
                if self.plan.status.services.get(key).map(|held| &**held) != Some(&status) {
                    self.plan.status.services.insert(key.clone(), Arc::new(status));
                    self.moved.status = true;
                }
            }
            None => self.moved.status |= self.plan.status.services.remove(key).is_some(),
        }
    }

    fn count_owner(&mut self, owner: &NodeName, count: fn(usize, usize) -> Option<usize>) {
        let services = self.owners.entry(owner.clone()).or_default();
        *services = count(*services, 1).unwrap_or(0);
        if *services == 0 {
            self.owners.remove(owner);
        }
        self.moved.pulse = true;
    }

    /// What the pulse says of what this node owns, and whom it expects to own.
    fn renew_pulse(&mut self) {
        let owner = !self.plan.l2.addresses.is_empty();
        self.moved.pulse |= self.plan.pulse.owner != owner;
        self.plan.pulse.owner = owner;
        if self.moved.pulse && !self.plan.pulse.expected.iter().eq(self.owners.keys()) {
            self.plan.pulse.expected = Arc::new(self.owners.keys().cloned().collect());
        }
    }

    fn put_work(&mut self, key: &ObjectKey, work: Work) {
        let before = self.work.get(key);
        if before == Some(&work) || (before.is_none() && work == Work::default()) {
            return;
        }
        let before = self.work.insert(key.clone(), work.clone()).unwrap_or_default();
        self.moved.l2 |= before.l2 != work.l2;
        self.moved.bind |= before.bind != work.bind;
        self.moved.bgp |= before.routes != work.routes;
        for (address, _) in &before.l2 {
            self.plan.l2.addresses.remove(address);
            if !work.l2.iter().any(|(still, _)| still == address) {
                self.plan.l2.acquisitions.remove(address);
            }
        }
        if before.claims != work.claims {
            let claims = Arc::make_mut(&mut self.plan.pulse.claims);
            claims.retain(|address| !before.claims.contains(address));
            claims.extend(&work.claims);
            self.moved.pulse = true;
        }
        if before.other_owners != work.other_owners {
            before.other_owners.iter().for_each(|owner| self.count_owner(owner, usize::checked_sub));
            work.other_owners.iter().for_each(|owner| self.count_owner(owner, usize::checked_add));
        }
        for (address, _) in &before.bind {
            self.plan.bind.addresses.remove(address);
        }
        self.plan.l2.addresses.extend(work.l2);
        self.plan.bind.addresses.extend(work.bind);
        let mut moved = BTreeSet::new();
        for Contribution { peer, prefix, .. } in before.routes {
            let route = (peer, prefix);
            if let Some(given) = self.routes.get_mut(&route) {
                given.remove(key);
            }
            moved.insert(route);
        }
        for Contribution { peer, prefix, advertisement, attributes } in work.routes {
            let route = (peer, prefix);
            let attributes = self.shared.share(attributes);
            let given = self.routes.entry(route.clone()).or_default().entry(key.clone()).or_default();
            given.push((advertisement, attributes));
            moved.insert(route);
        }
        for route in moved {
            let merged = self.routes.get(&route).and_then(join).map(|attributes| self.shared.share(attributes));
            if merged.is_none() {
                self.routes.remove(&route);
            }
            self.note_disputes(&route);
            let (name, prefix) = route;
            let Some(peer) = self.plan.bgp.peers.get_mut(&name) else { continue };
            match merged {
                Some(attributes) if peer.routes.get(&prefix) == Some(&attributes) => {}
                Some(attributes) => {
                    peer.routes.insert(prefix, attributes);
                }
                None => {
                    peer.routes.remove(&prefix);
                }
            }
        }
    }
}

/// How long a chosen address counts as not used yet. It is asked for on the link within a second of the choice.
const FRESH: Duration = Duration::from_secs(60);

/// One `Arc` for each value, so that routes that are worth the same share it.
#[derive(Debug, Default)]
struct Shared {
    known: BTreeSet<Arc<RouteAttributes>>,
    /// How many there may be before those that nobody uses any more are looked for.
    limit: usize,
}

impl Shared {
    fn share(&mut self, attributes: Arc<RouteAttributes>) -> Arc<RouteAttributes> {
        if let Some(known) = self.known.get(&attributes) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.limit = self.known.len().max(LEAST_SHARED) * 2;
        }
        self.known.insert(attributes.clone());
        attributes
    }
}

/// So few are not worth looking through.
const LEAST_SHARED: usize = 64;
