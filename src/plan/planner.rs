//! The planner: facts in, the whole wanted state out, at a cost that follows what changed.
//! Floor 1.
//!
//! How to drive it: call [`Planner::apply`] with every fact at hand, then [`Planner::turn`] once, hand the slices of
//! [`Planner::plan`] to the actuators, and come back with the next fact or at [`Planner::next_deadline`], whichever
//! is first. Spare turns are harmless. Time must not go backwards.

mod adopt;
mod claims;
mod concerned;
mod presumed;
mod slices;

pub use presumed::Presumed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use imbl::OrdMap;
use ipnet::IpNet;

use self::claims::Promise;
use crate::address::{Family, MacAddress};
use crate::claim::ConflictKind;
use crate::config::{Config, Source};
use crate::names::{InterfaceName, NodeName, ObjectKey, PeerName};
use crate::plan::address_book::AddressBook;
use crate::plan::bind_table::BindTable;
use crate::plan::context::{Context, Difference, l2};
use crate::plan::decision::Decision;
use crate::plan::doubles::{DoubleMemory, Doubles};
use crate::plan::egress_table::EgressTable;
use crate::plan::given_memory::GivenMemory;
use crate::plan::holder::History;
use crate::plan::in_force::InForce;
use crate::plan::join::Dispute;
use crate::plan::layer2::{Hearing, Layer2, Standing};
use crate::plan::new_pods::{Judged, NewPods};
use crate::plan::newcomers::{Newcomer, Newcomers};
use crate::plan::own_addresses::OwnAddresses;
use crate::plan::placement::{Handover, Placement};
use crate::plan::prefixes::{Away, Prefixes};
use crate::plan::removals::Wait;
use crate::plan::restraints::Restraints;
use crate::plan::returns::Returns;
use crate::plan::rivals::Wanted;
use crate::plan::route_table::RouteTable;
use crate::plan::slice::{
    BfdSlice, BgpSlice, BindSlice, EgressSlice, Exit, L2Slice, PulseSlice, StatusSlice, VrfSlice,
};
use crate::plan::tickets::Tickets;
use crate::plan::verdict::egress::still_translates;
use crate::plan::verdict::{Inputs, Verdict, Wish, Work, judge};
use crate::reason::Reason;
use crate::roster::Roster;
use crate::world::{Condition, Fact, Listing, Node, Touched, World};

/// The whole wanted state of this node, and why.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub decisions: OrdMap<ObjectKey, Arc<Decision>>,
    pub l2: L2Slice,
    pub bgp: BgpSlice,
    pub bfd: BfdSlice,
    /// Routes about which advertisements say what cannot be joined.
    pub disputes: OrdMap<(PeerName, IpNet), Arc<Vec<Dispute>>>,
    pub bind: BindSlice,
    pub egress: EgressSlice,
    pub vrfs: VrfSlice,
    /// Why this node cannot lead packets to owners of egress addresses, for those that it cannot reach.
    pub unreached: Arc<BTreeMap<(NodeName, Family), Reason>>,
    /// Pods of several Services with egress that want different things, with these Services: the first decides.
    pub contested_pods: Arc<BTreeMap<IpAddr, Vec<ObjectKey>>>,
    /// Addresses that are held back although no Service with egress has them any more, and that EndpointSlices list.
    pub newcomers: Arc<BTreeMap<IpAddr, Newcomer>>,
    /// Whose the addresses of this node's pods are, where new pods are held back.
    pub new_pods: Arc<Judged>,
    /// How packets leave this node by the networks of these addresses, or why they do not.
    pub exits: Arc<BTreeMap<IpAddr, Result<Exit, Reason>>>,
    /// Extra networks that no number in the marks is left for.
    pub networks_left_out: Arc<Vec<InterfaceName>>,
    /// Why packets do not leave with these addresses, although this node has them.
    pub without_network: Arc<BTreeMap<IpAddr, Reason>>,
    pub pulse: PulseSlice,
    pub status: StatusSlice,
    /// What addresses wait for that are to go and stay because the agents do not agree.
    pub removals_wait: Option<Wait>,
    /// Who has each address that is announced on a link, since when and why.
    pub placements: OrdMap<IpAddr, Arc<Placement>>,
    /// Where addresses of Services lie below a prefix that a link of this node does not have, although it has another one.
    pub prefixes_away: Arc<BTreeMap<InterfaceName, Away>>,
    /// The addresses that this node found taken by foreign hosts, with the station that has each. Kept for a time after
    /// the Service got another address.
    pub taken: OrdMap<IpAddr, MacAddress>,
    /// Addresses that several other nodes hold on one link.
    pub doubles: Arc<Doubles>,
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
    pub bfd: bool,
    pub bind: bool,
    pub egress: bool,
    pub vrfs: bool,
    pub pulse: bool,
    pub status: bool,
}

/// See the module's documentation.
pub struct Planner {
    in_force: InForce,
    me: NodeName,
    world: World,
    context: Arc<Context>,
    book: AddressBook,
    own: OwnAddresses,
    doubles: DoubleMemory,
    given: GivenMemory,
    restraints: Restraints,
    l2: Layer2,
    tickets: Tickets,
    routes: RouteTable,
    binds: BindTable,
    egress: EgressTable,
    newcomers: Newcomers,
    new_pods: NewPods,
    returns: Returns,
    plan: Plan,
    moved: Moved,
    dirty: Dirty,
    first_turn: bool,
    /// How many judgements the last turn made.
    judged: usize,
}

/// What is to be looked at again in the next turn.
#[derive(Debug, Default)]
struct Dirty {
    services: BTreeSet<ObjectKey>,
    everything: bool,
    /// Nodes, links or rosters.
    context: bool,
    /// Links that no `[[l2]]` can use. This host's addresses and where peers are may follow from them, and nothing else.
    other_links: bool,
    /// Where BGP peers are.
    peers: bool,
    /// What prefixes of links follow from.
    prefixes: bool,
    /// This agent begins to allocate.
    leads_anew: bool,
}

impl Planner {
    pub fn new(config: Arc<Config>, me: NodeName) -> Planner {
        Planner {
            book: AddressBook::new(&config),
            restraints: Restraints::of_crier(config.lease_digest()),
            in_force: InForce::new(config),
            me,
            world: World::default(),
            context: Arc::default(),
            own: OwnAddresses::default(),
            doubles: DoubleMemory::default(),
            given: GivenMemory::default(),
            l2: Layer2::default(),
            tickets: Tickets::default(),
            routes: RouteTable::default(),
            binds: BindTable::default(),
            egress: EgressTable::default(),
            newcomers: Newcomers::default(),
            new_pods: NewPods::default(),
            returns: Returns::default(),
            plan: Plan::default(),
            moved: Moved::default(),
            dirty: Dirty { everything: true, prefixes: true, ..Dirty::default() },
            first_turn: true,
            judged: 0,
        }
    }

    /// The node that this plans for.
    pub fn node(&self) -> &NodeName {
        &self.me
    }

    /// What everything goes by: the pools have whole addresses.
    pub fn config(&self) -> &Arc<Config> {
        self.in_force.config()
    }

    /// The configuration as it was written, which other files are compared with.
    pub fn written(&self) -> &Arc<Config> {
        self.in_force.written()
    }

    /// What is known of the prefixes of links that pools name.
    pub fn prefixes(&self) -> &Prefixes {
        self.in_force.prefixes()
    }

    /// What a planner of what is not so goes by, see [`Planner::of_agreed`].
    pub fn presumed(&self) -> Presumed {
        Presumed { prefixes: self.prefixes().clone(), own: self.own.presumed() }
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

    /// What decides allocation in the file, while this agent allocates and all agents agree on that: by it addresses may be taken away.
    pub fn agreed(&self) -> Option<u64> {
        self.restraints.agreed_digest()
    }

    /// How many Services the last turn judged.
    pub fn judged(&self) -> usize {
        self.judged
    }

    /// Takes a fact in. Decides nothing yet.
    pub fn apply(&mut self, fact: Fact) {
        self.l2.memory.note_fact(&fact);
        self.newcomers.note_fact(&self.world, &fact);
        self.new_pods.note_fact(&fact);
        let of_other_link = self.is_about_other_link(&fact);
        if let Fact::Service(key, after) = &fact {
            let before = self.world.services.get(key);
            if before.is_some_and(|before| after.as_ref().is_none_or(|after| after.uid != before.uid)) {
                self.restraints.forget_rivals(key);
                self.book.forget_given(key);
            }
        }
        if let Fact::Service(key, Some(after)) | Fact::StatusWritten(key, after) = &fact
            && let Some(before) = self.world.services.get(key)
            && let Source::Kubernetes(kubernetes) = &self.in_force.config().source
        {
            self.restraints.note_words(key, before, after, &kubernetes.lease);
            let ours = after.load_balancer && self.in_force.config().serves_class(after.class.as_ref());
            if !self.world.is_history(key, before, after) {
                self.restraints.note_displaced(key, before, after, ours);
                self.restraints.note_stripped(key, before, after, &kubernetes.lease);
            }
        }
        match &fact {
            Fact::Roster(index, after) => {
                let before = self.world.rosters.get(index).cloned();
                self.dirty.everything |= self.world.leases.len() > 1 && leases_of(&before) != leases_of(after);
                let change = self.l2.holders.note_roster(*index, before.as_deref(), after.as_deref());
                self.doubles.note(&change.addresses);
                self.note_roster_change(change);
                if let (Some(link), Some(roster)) = (self.world.links.get(index), after) {
                    self.dirty.prefixes |= self.in_force.note_roster(&link.name, roster);
                }
            }
            Fact::Answering { link: _, began, ended } => {
                began.iter().for_each(|address| self.l2.holders.note_answered(*address));
                self.touch(began.iter().chain(ended).copied());
            }
            Fact::Service(key, Some(after)) if self.world.leader => {
                if let Some(before) =
                    self.world.services.get(key).filter(|before| !self.world.is_history(key, before, after))
                {
                    // What this agent meant to write a moment ago, and has perhaps written, is its own word still.
                    let is_own = |condition: &Arc<Condition>| self.lease().is_some_and(|lease| condition.is_of(lease));
                    let is_chosen = |address: &IpAddr| self.book.is_fresh(*address, key);
                    let is_late = after.condition.as_ref().is_some_and(is_own)
                        && after.ingress.iter().all(is_chosen)
                        && !after.ingress.is_empty();
                    let wanted = self.plan.status.services.get(key).and_then(|status| status.write.as_ref());
                    self.restraints.note(key, before, after, Wanted { write: wanted, is_late });
                }
            }
            Fact::RemovalTold(key) => self.restraints.note_said(key),
            Fact::Kept(addresses) => {
                let touched = self.l2.holders.keep(addresses);
                self.touch(touched.into_iter());
            }
            Fact::Config(config) => self.adopt(config.clone()),
            Fact::Leader(leader) if *leader != self.world.leader => {
                self.book.forget_order();
                self.dirty.prefixes = true;
                self.dirty.leads_anew |= *leader;
            }
            Fact::Link(index, after) => {
                let mut links = self.world.links.get(index).into_iter().chain(after);
                self.dirty.prefixes |= links.any(|link| self.in_force.follows(&link.name));
            }
            // Whose it is the book knows, also where the status shows another one.
            Fact::Conflict(address, ..) => self.touch(std::iter::once(*address)),
            Fact::Node(..) => self.dirty.prefixes |= !self.plan.prefixes_away.is_empty(),
            _ => {}
        }
        let all_services = matches!(fact, Fact::Listed(Listing::Services(_)));
        let promise = match &fact {
            Fact::Service(key, Some(_)) | Fact::StatusWritten(key, _) => Promise::of(&self.world, key),
            _ => None,
        };
        match self.world.apply(fact) {
            Touched::Nothing => {}
            Touched::Peers => self.dirty.peers = true,
            Touched::Services(keys) => {
                // Who shares an address announces it for all.
                self.dirty.services.extend(keys.iter().flat_map(|key| self.book.shares_with(key)).cloned());
                self.dirty.services.extend(keys);
            }
            Touched::Surroundings if of_other_link => self.dirty.other_links = true,
            Touched::Surroundings => self.dirty.context = true,
            Touched::Everything => self.dirty.everything = true,
        }
        if all_services {
            self.note_pools(true);
        }
        if let Some(promise) = promise {
            self.end_overtaken(promise);
        }
    }

    /// Pods come and go with links that nothing is done on.
    fn is_about_other_link(&self, fact: &Fact) -> bool {
        let Fact::Link(index, after) = fact else { return false };
        let mut links = self.world.links.get(index).into_iter().chain(after);
        !links.any(|link| l2::is_of_interest(self.in_force.config(), self.own_node(), link, &self.world))
    }

    fn own_node(&self) -> Option<&Node> {
        self.world.nodes.get(&self.me).map(|node| &**node)
    }

    /// Everything that this node holds is announced once more.
    fn assert_all(&mut self) {
        self.l2.assert_all();
        self.dirty.services.extend(self.l2.ownership.owned_by(&self.me).cloned());
    }

    /// When to call [`Planner::turn`] again even if no fact comes in.
    pub fn next_deadline(&self) -> Option<Instant> {
        let organs = [self.book.next_deadline(), self.restraints.next_deadline(), self.prefixes().next_deadline()];
        let more = [self.l2.holders.next_deadline(), self.given.next_deadline(), self.own.next_deadline()];
        organs.into_iter().chain(more).chain([self.egress.next_deadline()]).flatten().min()
    }

    /// Brings the plan up to date and says what changed. Before the first lists are complete there is no plan.
    pub fn turn(&mut self, now: Instant) -> Turn {
        if !self.may_decide() {
            return Turn::default();
        }
        self.renew_prefixes(now);
        // Before any Service is judged: an address that is taken now may be given up by it.
        self.renew_told(now);
        if self.book.wake(now) {
            self.dirty.services.extend(self.book.waiting().cloned());
        }
        if self.l2.holders.take_assert_due(now) {
            self.assert_all();
        }
        let due = self.l2.holders.take_due(now);
        self.touch(due.into_iter());
        self.dirty.services.extend(self.egress.take_due(now));
        let digest = self.in_force.digests().allocation();
        self.dirty.services.extend(self.restraints.turn(&self.world, &self.me, digest, now));
        let Standing { graded, hearing } = self.l2.renew_standing(&self.world, now);
        if self.in_force.config().is_standalone() {
            self.given.begin(now);
        }
        self.dirty.context |= graded | self.given.renew(now);
        match hearing {
            Hearing::AsBefore => {}
            Hearing::Lost => self.dirty.services.extend(self.l2.ownership.open().cloned()),
            Hearing::Back => self.dirty.everything = true,
        }
        let Dirty { services: _, everything, context, other_links, peers, prefixes: _, leads_anew: _ } =
            &mut self.dirty;
        let everything = std::mem::take(everything);
        let context = std::mem::take(context) || everything;
        let host = std::mem::take(other_links) || context;
        let peers = std::mem::take(peers) || host;
        // Before the context, which says what of it is a gateway.
        let renewed =
            (peers || self.own.next_deadline().is_some_and(|due| due <= now)) && self.renew_own_addresses(now);
        if context || renewed {
            self.renew_context(everything, now);
            self.l2.holders.note_eligibility(&self.world, self.context.pulse.eligibility, now);
        }
        if host {
            self.renew_host();
        }
        if peers {
            self.renew_peers();
            self.renew_bfd();
        }
        let mut changes = self.judge_dirty(now);
        if self.renew_kept() {
            changes.extend(self.judge_dirty(now));
        }
        self.renew_egress(host, peers);
        self.l2.memory.note_conflicts(&self.world, now);
        self.doubles.renew(&self.world, &self.l2.holders, now);
        if !Arc::ptr_eq(&self.plan.doubles, self.doubles.found()) {
            self.plan.doubles = self.doubles.found().clone();
        }
        self.first_turn = false;
        if self.world.listed.all() {
            self.binds.note_listed();
        }
        self.renew_slices();
        Turn {
            changes,
            disputed: self.routes.take_begun(),
            handovers: self.l2.memory.take_handovers(),
            conflicts: self.l2.memory.take_conflicts(),
            moved: std::mem::take(&mut self.moved),
        }
    }

    /// Nothing is decided on half a picture: a route that is missing because its Service was not told yet would be
    /// withdrawn from a router that holds it rightly.
    pub fn may_decide(&self) -> bool {
        (self.world.listed.all() || self.world.fail_static) && self.world.links_listed
    }

    fn renew_told(&mut self, now: Instant) {
        let answers = |address| self.l2.ownership.answers().contains_key(&address);
        let bound: Vec<(IpAddr, MacAddress)> = self.bound_by_others().collect();
        let occupied = self.l2.memory.renew_occupied(&self.world, bound.into_iter(), answers, now);
        if occupied.is_some_and(|occupied| self.book.set_occupied(occupied)) {
            // An address that nobody has used yet may be in the way, and an address that became free may help.
            self.dirty.services.extend(self.book.waiting().chain(self.book.freshly_given()).cloned());
        }
        let found = self.l2.memory.found();
        if *self.plan.pulse.occupied != found {
            self.plan.pulse.occupied = Arc::new(found);
            self.moved.pulse = true;
        }
        if self.plan.pulse.egress != self.world.egress_translated {
            self.plan.pulse.egress.clone_from(&self.world.egress_translated);
            self.moved.pulse = true;
        }
    }

    /// What this node kept over its restart and does not take now, it does not have any more. True if there is such.
    fn renew_kept(&mut self) -> bool {
        let settled = |index| self.world.rosters.get(index).is_some_and(|roster| roster.settled);
        let links = &self.context.pulse.links;
        if !links.is_empty() && links.keys().all(settled) {
            let released = self.l2.holders.release_kept();
            self.touch(released.into_iter());
        }
        if *self.plan.pulse.kept != *self.l2.holders.kept() {
            self.plan.pulse.kept = Arc::new(self.l2.holders.kept().clone());
            self.moved.pulse = true;
        }
        !self.dirty.services.is_empty()
    }

    fn renew_context(&mut self, everything: bool, now: Instant) {
        let own = l2::Own {
            grade: self.l2.grade(),
            digests: self.in_force.digests(),
            given: self.given.said(),
            addresses: &self.own,
        };
        let context = Arc::new(Context::of(self.in_force.config(), &self.me, &self.world, own));
        let difference = if everything { Difference::Everything } else { context.difference(&self.context) };
        self.context = context;
        self.tickets.set_nodes(self.context.nodes());
        self.routes.set_peers(&self.context.bgp.peers);
        let concerned = self.concerned(difference, now);
        self.dirty.services.extend(concerned);
        self.renew_frames();
    }

    fn judge_dirty(&mut self, now: Instant) -> Vec<Change> {
        self.judged = 0;
        let mut changes = Vec::new();
        // Claims first, so that nobody is given what the status of another already says.
        let mut batch = std::mem::take(&mut self.dirty.services);
        for key in &batch {
            self.claim(key, now);
        }
        batch.extend(self.book.settle());
        batch.append(&mut self.dirty.services);
        let mut batch: Vec<ObjectKey> = batch.into_iter().collect();
        // Then the requests for a certain address, so that nobody gets by chance what another asked for by name, and those that had one,
        // so that nobody gets what another one had.
        batch.sort_by_cached_key(|key| (!self.asks_for_address(key), !self.had_address(key), key.clone()));
        for key in batch {
            changes.extend(self.judge(&key, now));
        }
        // A judgement may free or take addresses that others wait for or claim.
        while let Some(key) = self.dirty.services.pop_first() {
            changes.extend(self.judge(&key, now));
        }
        changes
    }

    fn inputs(&self, now: Instant) -> Inputs<'_> {
        Inputs {
            config: self.in_force.config(),
            me: &self.me,
            world: &self.world,
            context: &self.context,
            book: &self.book,
            tickets: &self.tickets,
            restraints: &self.restraints,
            answered: self.l2.ownership.answers(),
            standbys: self.l2.ownership.standbys(),
            placements: self.l2.memory.placements(),
            holders: &self.l2.holders,
            first_turn: self.first_turn,
            now,
        }
    }

    fn judge(&mut self, key: &ObjectKey, now: Instant) -> Option<Change> {
        self.judged += 1;
        let Some(service) = self.world.services.get(key).cloned() else {
            return self.forget(key, now);
        };
        let Verdict { decision, work, assigned, causes, histories, status, goes, lost, overlap } =
            judge(&self.inputs(now), key, &service);
        if let Some(addresses) = assigned {
            let held = self.book.claimed_by(key);
            let is_new = |address: &IpAddr| !held.contains(address) && !service.ingress.contains(address);
            let chosen: Vec<IpAddr> = addresses.iter().copied().filter(is_new).collect();
            self.book.note_fresh(key, chosen, now);
            self.world.apply(Fact::Assigned(key.clone(), addresses));
            self.claim(key, now);
            let concerned = self.book.settle();
            self.dirty.services.extend(concerned.into_iter().filter(|other| other != key));
            // The promise counts from here on: standalone it is the allocation itself.
            if self.in_force.config().is_standalone() {
                return self.judge(key, now);
            }
        }
        self.yield_claims(key, &decision, now);
        self.book.set_waiting(key, service.load_balancer && decision.allocation.is_wanting());
        if !goes && matches!(status, Some(Wish::Show(_))) {
            self.restraints.accept(key);
        }
        self.restraints.put(key, goes, overlap.as_ref(), now);
        self.put_status(key, &service, &decision, status, lost.as_ref());
        let before = self.plan.decisions.get(key).cloned();
        let announced = before.iter().flat_map(|before| &before.announcements).map(|it| it.address);
        let elsewhere: Vec<IpAddr> =
            announced.filter(|address| self.is_on_link_for_others(key, *address, |_| true)).collect();
        self.l2.memory.place(before.as_deref(), &decision, causes, &elsewhere, now);
        self.put_histories(key, before.as_deref(), histories);
        // The responder still answers for an address that this node had given up: no fact will say that it begins.
        let ownership = &self.l2.ownership;
        let answers_already = |address: &IpAddr| {
            let is_told = ownership.answers().contains_key(address) || ownership.standbys().contains_key(address);
            !is_told && self.world.answering.contains_key(address)
        };
        let standbys = work.l2.standbys.iter().map(|(address, _)| address);
        if work.l2.answers.iter().map(|(address, _)| address).chain(standbys).any(answers_already) {
            self.dirty.services.insert(key.clone());
        }
        self.put_work(key, work, now);
        self.returns.put(key, decision.announcements.iter().map(|it| it.address).collect());
        self.new_pods.put(key, decision.egress.is_some().then_some(&service));
        if before.as_deref() == Some(&decision) {
            return None;
        }
        self.given.put(key, before.as_deref(), Some(&decision), now);
        let after = Arc::new(decision);
        self.plan.decisions.insert(key.clone(), after.clone());
        Some(Change { service: key.clone(), before, after: Some(after) })
    }

    fn forget(&mut self, key: &ObjectKey, now: Instant) -> Option<Change> {
        self.book.set_waiting(key, false);
        self.restraints.forget(key, now);
        self.moved.status |= self.plan.status.services.remove(key).is_some();
        self.put_work(key, Work::default(), now);
        self.returns.put(key, Vec::new());
        self.new_pods.put(key, None);
        let before = self.plan.decisions.remove(key)?;
        self.given.put(key, Some(&before), None, now);
        let gone: Vec<IpAddr> = before.announcements.iter().map(|it| it.address).collect();
        let gone = gone.into_iter().filter(|address| !self.is_on_link_for_others(key, *address, |_| true));
        self.l2.memory.forget(&gone.collect::<Vec<_>>());
        self.put_histories(key, Some(&before), Vec::new());
        Some(Change { service: key.clone(), before: Some(before), after: None })
    }

    /// Another Service that has the address announces it on a link in some way.
    fn is_on_link_for_others(&self, key: &ObjectKey, address: IpAddr, way: impl Fn(&Reason) -> bool) -> bool {
        let others = self.book.tenants(address).iter().filter(|tenant| *tenant != key);
        let announcements =
            others.filter_map(|tenant| self.plan.decisions.get(tenant)).flat_map(|it| &it.announcements);
        announcements.filter(|it| it.address == address && it.is_on_link()).any(|it| way(&it.l2.reason))
    }

    fn put_histories(&mut self, key: &ObjectKey, before: Option<&Decision>, histories: Vec<(IpAddr, History)>) {
        for was in before.into_iter().flat_map(|before| &before.announcements) {
            // A Service without endpoints leaves the address to those that share it.
            if !self.is_on_link_for_others(key, was.address, |reason| *reason != Reason::NoEndpoints) {
                self.l2.holders.forget(was.address);
            }
        }
        histories.into_iter().for_each(|(address, history)| self.l2.holders.put(address, history));
    }

    /// Each organ keeps its part.
    fn put_work(&mut self, key: &ObjectKey, work: Work, now: Instant) {
        let Work { l2, routes, bind, egress } = work;
        self.l2.ownership.put(key, l2);
        self.routes.put(key, routes);
        let (bind, egress) = match self.world.leaving {
            true => (self.binds.with_before(key, bind), self.egress.or_as_before(key, egress)),
            false => {
                let goes_on = |owner: &NodeName, address| still_translates(&self.world, &self.me, owner, address);
                (bind, self.egress.or_until_ready(key, egress, goes_on, now))
            }
        };
        self.binds.put(key, bind);
        self.egress.put(key, egress, now);
    }
}

/// The Leases of the criers whose agents are heard, as digests.
fn leases_of(roster: &Option<Arc<Roster>>) -> BTreeSet<u64> {
    roster.iter().flat_map(|roster| roster.members.values()).filter_map(|member| member.card.lease).collect()
}

#[cfg(test)]
impl Planner {
    /// The next turn judges every Service, whatever was told.
    pub fn judge_everything(&mut self) {
        let every: Vec<ObjectKey> = self.every_service().cloned().collect();
        self.dirty.services.extend(every);
    }

    /// All that is known, at once.
    pub fn apply_world(&mut self, world: World) {
        self.world = world;
        self.dirty.everything = true;
    }
}
