//! Which addresses a Service has, and what its status should show.
//! Floor 1. Which address is free is `plan::allocate`'s to find.

mod choice;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use self::choice::choose;
use super::Inputs;
use super::renumbered::wish_without;
use crate::address::Family;
use crate::config::{Kubernetes, Pool, Source, lease_digest};
use crate::names::ObjectKey;
use crate::plan::allocate::{Applicant, pool_of};
use crate::plan::decision::{Allocation, Held};
use crate::plan::overlaps::Overlap;
use crate::plan::pools::withheld;
use crate::plan::prefixes::renumbering;
use crate::plan::remnants::{former_pools, of_no_pool, remnant};
use crate::plan::sharing::{Refusal, Terms};
use crate::reason::Reason;
use crate::world::{Condition, Request, Service};

/// What becomes of the addresses of a Service.
pub struct Answer {
    pub allocation: Allocation,
    /// Addresses that this agent, as the one who allocates, newly chose.
    pub assigned: Option<Vec<IpAddr>>,
    /// What the status should say; `None` where it is not ours to write.
    pub status: Option<Wish>,
    /// An address is to be taken from the Service against its will, as soon as that may be.
    pub goes: bool,
    /// Which address the Service loses by what the status should say, and why.
    pub lost: Option<Reason>,
    /// The status shows addresses that are to go, and beside them those that stay.
    pub overlap: Option<Overlap>,
}

/// What the status of a Service should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// These addresses, and that crier gave them.
    Show(Vec<IpAddr>),
    /// The addresses that it shows, whoever wrote them, and that crier gave these.
    Leave { given: Vec<IpAddr> },
    /// Nothing: crier takes back the addresses that it gave, if the status shows no others, and its condition.
    Clear { addresses: bool },
}

impl Answer {
    fn told(allocation: Allocation, status: Option<Wish>) -> Answer {
        Answer { allocation, assigned: None, status, goes: false, lost: None, overlap: None }
    }
}

pub fn judge(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Answer {
    let writes = inputs.world.allocates && !inputs.config.is_standalone();
    if let Some(reason) = not_ours(inputs, key, service) {
        let said = service.condition.is_some() && (!service.load_balancer || is_left_behind(inputs, service));
        let given = service.given();
        let addresses = !service.ingress.is_empty() && service.ingress.iter().all(|address| given.contains(address));
        let status = (said && writes).then_some(Wish::Clear { addresses });
        let complaint = service.egress.is_some().then(|| match &reason {
            Reason::OtherClass { class } => Reason::EgressOfOtherClass { class: class.clone() },
            _ => Reason::EgressNeedsLoadBalancer,
        });
        return Answer::told(Allocation { complaint, ..Allocation::none(reason) }, status);
    }
    if let Some(note) = class_left(inputs, key, service) {
        let allocation = as_shown(inputs, key, service);
        return Answer::told(Allocation { notes: vec![note], ..allocation }, None);
    }
    if !allocates(inputs) {
        return Answer::told(as_shown(inputs, key, service), None);
    }
    if let Some(reason) = of_other_crier(inputs, service) {
        return Answer::told(Allocation::kept(shown(inputs, key, service), reason), None);
    }
    if let Some(reason) = foreign(inputs, service) {
        let wish = Wish::Leave { given: given(inputs, key, service) };
        return Answer::told(Allocation::kept(shown(inputs, key, service), reason), writes.then_some(wish));
    }
    if inputs.restraints.is_left(key) {
        let reason = Reason::StatusOverwritten { by: writer(inputs, key, service) };
        return Answer::told(Allocation::kept(shown(inputs, key, service), reason), None);
    }
    if namespace_matters(inputs, key) {
        let namespace = key.namespace.clone();
        let reason = Reason::NamespaceUnknown { namespace };
        return Answer::told(Allocation::kept(shown(inputs, key, service), reason), None);
    }
    let mut answer = choose(inputs, key, service);
    answer.status = answer.status.filter(|_| writes);
    answer
}

/// The addresses that a Service claims: what its status says, what crier gave it although the status says otherwise, what
/// was promised to it, its external addresses, and its ClusterIPs; whoever serves it. Those outside every pool are nobody's here, unless crier gave
/// them.
pub fn claims(inputs: &Inputs<'_>, key: &ObjectKey) -> Vec<IpAddr> {
    let Some(service) = inputs.world.services.get(key) else { return Vec::new() };
    let mut claims = service.ingress.clone();
    let promised = inputs.world.assigned.get(key).into_iter().flatten().copied();
    let own = own_of_emptied(inputs, key, service);
    let more = promised.chain(own.iter().copied()).chain(service.external_ips.iter().copied());
    let more = more.chain(service.cluster_ips.iter().copied());
    more.for_each(|address| {
        if !claims.contains(&address) {
            claims.push(address);
        }
    });
    let ours = not_ours(inputs, key, service).is_none();
    let of_emptied = |address: &IpAddr| {
        service.ingress.is_empty() && own.contains(address) && of_no_pool(inputs, service, *address).is_some()
    };
    let is_remnant = |address: &IpAddr| ours && (remnant(inputs, service, *address).is_some() || of_emptied(address));
    claims.retain(|address| pool_of(&inputs.config.pools, *address).is_some() || is_remnant(address));
    claims
}

/// The addresses of a Service that may be announced, those that this agent chose just now apart: what the status shows, and
/// while it shows nothing or what crier did not give, what crier gave. Of a class that the file does not name any more, only what it
/// shows of that: the rest another load balancer gave.
pub fn shown(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Vec<Held> {
    let replacing = in_place_of_own(inputs, key, service);
    let is_whole = replacing.is_empty() && !lacks_family_of_own(inputs, key, service);
    let addresses = if class_left(inputs, key, service).is_some() {
        let given = given_by_us(inputs, key, service);
        service.ingress.iter().copied().filter(|it| given.contains(it) || service.leaves(*it)).collect()
    } else if service.ingress.is_empty() || foreign(inputs, service).is_some() {
        own_of_emptied(inputs, key, service)
    } else if is_whole {
        in_own_order(service, service.ingress.clone())
    } else {
        let own = own_of_emptied(inputs, key, service);
        let rest = service.ingress.iter().filter(|it| !replacing.contains(it) && !own.contains(it)).copied();
        rest.chain(own.iter().copied()).collect()
    };
    addresses.into_iter().filter_map(|address| still_held(inputs, key, address)).collect()
}

/// What somebody wrote into the status in the place of what crier gave: addresses of a family of which it shows none that the condition
/// names, although the Service may have that one still and asks for no other.
fn in_place_of_own(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Vec<IpAddr> {
    let Some(own) = own_word(inputs, key, service) else { return Vec::new() };
    let Request { addresses, pools: _ } = service.request.as_ref().unwrap_or(&NOTHING_ASKED);
    let replaces = |address: &&IpAddr| {
        let given = || own.given.iter().filter(|own| Family::of(**own) == Family::of(**address));
        let is_new = !own.given.contains(address) && !addresses.contains(address) && !service.leaves(**address);
        is_new && given().any(|it| own.stays.contains(it)) && !given().any(|it| service.ingress.contains(it))
    };
    service.ingress.iter().filter(replaces).copied().collect()
}

/// Somebody took all of a family out of the status that crier gave: what it shows of the other family is half of what the Service has.
fn lacks_family_of_own(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> bool {
    let Some(own) = own_word(inputs, key, service) else { return false };
    let Request { addresses, pools: _ } = service.request.as_ref().unwrap_or(&NOTHING_ASKED);
    let is_wanted = |own: &IpAddr| {
        let of_family = |other: &&IpAddr| Family::of(**other) == Family::of(*own);
        let asks_other = addresses.iter().filter(of_family).any(|asked| asked != own);
        (service.families.is_empty() || service.families.contains(&Family::of(*own))) && !asks_other
    };
    let is_away = |own: &&IpAddr| !service.ingress.iter().any(|shown| Family::of(*shown) == Family::of(**own));
    own.stays.iter().filter(is_away).any(is_wanted)
}

/// What the condition of a status that shows addresses names as given, where that counts against what it shows.
struct OwnWord {
    given: Vec<IpAddr>,
    /// Those of them that the Service may have still.
    stays: Vec<IpAddr>,
}

/// What the condition names counts, for the agent that allocates only where it saw that in the status: else another load balancer may have
/// given the Service its address while there was no crier, which leaves the condition as it is. The other agents wait for that one's
/// word, unless they saw that somebody forged it.
fn own_word(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Option<OwnWord> {
    let counts =
        if allocates(inputs) { inputs.restraints.is_displaced(key) } else { !inputs.restraints.is_forged(key) };
    let Source::Kubernetes(Kubernetes { lease, .. }) = &inputs.config.source else { return None };
    let condition = service.condition.as_ref().filter(|it| counts && it.is_of(lease))?;
    let given = condition.addresses();
    let Request { addresses: _, pools } = service.request.as_ref().unwrap_or(&NOTHING_ASKED);
    let stays = |own: &IpAddr| {
        let pool = pool_of(&inputs.config.pools, *own).filter(|pool| pools.is_empty() || pools.contains(&pool.name));
        pool.is_some() && !service.leaves(*own) && claim_of(inputs, key, *own).is_ok()
    };
    let stays = given.iter().copied().filter(stays).collect();
    Some(OwnWord { given, stays })
}

/// What crier gave in the order in which it did, whatever order somebody wrote the status in: the first address ranks the nodes for all.
fn in_own_order(service: &Service, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut own = service.given();
    let mut seen = BTreeSet::new();
    own.retain(|it| addresses.contains(it) && seen.insert(*it));
    let slots = addresses.iter_mut().filter(|it| own.contains(it));
    slots.zip(&own).for_each(|(slot, own)| *slot = *own);
    addresses
}

static NOTHING_ASKED: Request = Request { addresses: Vec::new(), pools: Vec::new() };

/// Standalone there is no status: what was chosen for a Service is what it has.
fn promised(inputs: &Inputs<'_>, key: &ObjectKey) -> Vec<Held> {
    let addresses = inputs.world.assigned.get(key).into_iter().flatten();
    addresses.filter_map(|address| still_held(inputs, key, *address)).collect()
}

/// Of the claims of a Service, those that crier has no part in (of another load balancer, addresses that the Service names itself, or what
/// only this agent still knows of), and those that crier gave it: its condition says so, whatever somebody wrote into the status of
/// another one.
pub fn origins(inputs: &Inputs<'_>, key: &ObjectKey, claims: &[IpAddr]) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let Some(service) = inputs.world.services.get(key) else { return Default::default() };
    let ours = not_ours(inputs, key, service).is_none();
    let given = given(inputs, key, service);
    let (promised, is_told) = (inputs.world.assigned.get(key), service.condition.is_some());
    let has = |address: &IpAddr| {
        let promised = promised.is_some_and(|promised| promised.contains(address));
        ours && (promised || service.ingress.contains(address) || (is_told && given.contains(address)))
    };
    let those = |is: &dyn Fn(&IpAddr) -> bool| claims.iter().copied().filter(is).collect();
    (those(&|address| !has(address)), those(&|address| given.contains(address)))
}

/// On what terms a Service shares its addresses with others; `None` where it does not, or is not ours.
pub fn terms(inputs: &Inputs<'_>, key: &ObjectKey) -> Option<Terms> {
    let service = inputs.world.services.get(key)?;
    not_ours(inputs, key, service).is_none().then(|| Terms::of(service))?
}

/// Of the claims of a Service, those that it is to give up for others.
pub fn leaving(inputs: &Inputs<'_>, key: &ObjectKey, claims: &[IpAddr]) -> Vec<IpAddr> {
    let Some(service) = inputs.world.services.get(key) else { return Vec::new() };
    let requested = service.request.as_ref().map(|request| request.addresses.as_slice()).unwrap_or_default();
    let wish = wish_without(service.renumber.as_deref(), requested).map(Cow::into_owned);
    let renumber = wish.or_else(|| renumbering(&inputs.config.pools, claims, requested));
    let mut leaving = renumber.map(|renumber| renumber.leaving).unwrap_or_default();
    leaving.retain(|address| claims.contains(address));
    leaving
}

/// This agent is the one that chooses addresses, and knows enough to do so. Standalone, a manifest that cannot be read
/// holds the others up only until patience ends: nobody else will choose for them.
pub fn allocates(inputs: &Inputs<'_>) -> bool {
    if inputs.config.is_standalone() {
        inputs.world.listed.all() || inputs.world.fail_static
    } else {
        inputs.world.listed.all() && inputs.world.allocates
    }
}

fn not_ours(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Option<Reason> {
    if !service.load_balancer {
        return Some(Reason::NotLoadBalancer);
    }
    let ours = inputs.config.serves_class(service.class.as_ref()) || class_left(inputs, key, service).is_some();
    (!ours).then(|| Reason::OtherClass { class: service.class.clone() })
}

/// The file does not name the class of the Service any more, and its status shows what this crier gave it of pools that this file has, or
/// a former one had, whatever stands beside it: it keeps that until the status shows something else, for nobody else announces it. It gets
/// nothing new. With the class the Lease may have gone, which follows it: what the crier of a former file of this node gave is this one's.
fn class_left(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Option<Reason> {
    if inputs.config.serves_class(service.class.as_ref()) {
        return None;
    }
    let shown = &service.ingress;
    let given = given_by_us(inputs, key, service);
    let is_ours = |address: &IpAddr| {
        let was_given = given.contains(address) || (!given.is_empty() && service.leaves(*address));
        let has_pool = || pool_of(&inputs.config.pools, *address).is_some();
        let is_remnant = || remnant(inputs, service, *address).is_some();
        let is_others = || service.condition.as_ref().is_some_and(|it| is_served_by_others(inputs, it));
        was_given && (has_pool() || (is_remnant() && !is_others()))
    };
    shown.iter().any(is_ours).then(|| Reason::ClassLeft { class: service.class.clone() })
}

/// What this crier gave a Service, as the condition says; where somebody took that away, as it said when this agent saw it last.
fn given_by_us(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Vec<IpAddr> {
    match (&inputs.config.source, &service.condition) {
        (Source::Manifests(_), _) => Vec::new(),
        (Source::Kubernetes(_), Some(condition)) if is_own_word(inputs, condition) => condition.addresses(),
        (Source::Kubernetes(_), Some(_)) => Vec::new(),
        (Source::Kubernetes(_), None) => inputs.restraints.stripped(key).to_vec(),
    }
}

/// The crier of this file's Lease says it, or that of a former file of this node.
fn is_own_word(inputs: &Inputs<'_>, condition: &Condition) -> bool {
    let Source::Kubernetes(Kubernetes { lease, .. }) = &inputs.config.source else { return false };
    condition.is_of(lease) || inputs.world.leases.iter().any(|former| condition.is_of(former))
}

/// The crier of a former file says the condition, and an agent of it is heard. What only a former file of this node had pools for is that
/// one's to announce: the node has left it, and it goes on.
fn is_served_by_others(inputs: &Inputs<'_>, condition: &Condition) -> bool {
    let theirs = Some(lease_digest(condition.lease().unwrap_or(Condition::DEFAULT_LEASE)));
    let mut members = inputs.world.rosters.values().flat_map(|roster| roster.members.values());
    theirs != inputs.config.lease_digest() && members.any(|member| member.card.lease == theirs)
}

/// What crier says of a Service of another class stands there from when the Service was this crier's: it became another's while nobody
/// looked. A second crier, of that class, has other pools.
fn is_left_behind(inputs: &Inputs<'_>, service: &Service) -> bool {
    let pool_of_file = |address: IpAddr| pool_of(&inputs.config.pools, address).map(|pool| &pool.name);
    let (given, condition) = (service.given(), &service.condition);
    let is_ours = |address: &IpAddr| {
        let said = condition.as_ref().map(|condition| condition.pools()).unwrap_or_default();
        pool_of_file(*address).is_some_and(|pool| said.contains(pool))
    };
    let is_by_us = match (&inputs.config.source, condition) {
        (Source::Kubernetes(kubernetes), Some(condition)) => condition.is_by(&kubernetes.lease),
        (Source::Kubernetes(_), None) | (Source::Manifests(_), _) => true,
    };
    let is_empty = service.ingress.is_empty() && service.host_names.is_empty();
    is_by_us && is_empty && !given.is_empty() && given.iter().all(is_ours)
}

/// Another crier gave the Service its addresses: its condition says so. What versions wrote that did not say it is anybody's, so one that
/// would say its own takes that for its own only where its pools have the addresses, or had them. An address of our pools is ours,
/// whoever gave it: so another Lease, or another class in the file, takes nothing from Services.
fn of_other_crier(inputs: &Inputs<'_>, service: &Service) -> Option<Reason> {
    let Source::Kubernetes(Kubernetes { lease, .. }) = &inputs.config.source else { return None };
    let condition = service.condition.as_ref()?;
    if condition.is_of(lease) {
        return None;
    }
    let given = condition.addresses();
    let is_ours = |address: &IpAddr| {
        pool_of(&inputs.config.pools, *address).is_some() || former_pools(inputs, *address).next().is_some()
    };
    let other = || Reason::OtherCrier { lease: condition.lease().map(str::to_owned) };
    (!given.is_empty() && !given.iter().any(is_ours)).then(other)
}

/// The Lease of the other crier that overwrote the status with a word of its own.
fn writer(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Option<String> {
    let Source::Kubernetes(Kubernetes { lease, .. }) = &inputs.config.source else { return None };
    let condition = service.condition.as_ref().filter(|condition| !condition.is_of(lease))?;
    if !inputs.restraints.is_worded(key) {
        return None;
    }
    Some(condition.lease().map_or_else(|| Condition::DEFAULT_LEASE.to_owned(), str::to_owned))
}

/// The status shows what crier did not give. An address of our pools is taken for ours, whoever wrote it: so a Service that
/// comes from another load balancer keeps its address. One that is replaced crier gave before, also where its range has left the file.
fn foreign(inputs: &Inputs<'_>, service: &Service) -> Option<Reason> {
    if inputs.config.is_standalone() {
        return None;
    }
    let given = service.given();
    let is_leaving = |address: IpAddr| {
        let noted = service.condition.iter().any(|condition| condition.leaving().contains(&address));
        service.leaves(address) && !given.is_empty() && (noted || former_pools(inputs, address).next().is_some())
    };
    let is_foreign = |address: &&IpAddr| {
        !given.contains(address) && pool_of(&inputs.config.pools, **address).is_none() && !is_leaving(**address)
    };
    let addresses = service.ingress.iter().filter(is_foreign).map(IpAddr::to_string);
    let shown: Vec<String> = addresses.chain(service.host_names.iter().cloned()).collect();
    (!shown.is_empty()).then_some(Reason::ForeignStatus { shown })
}

/// Which pools serve the Service depends on the labels of its namespace, and these are not known.
fn namespace_matters(inputs: &Inputs<'_>, key: &ObjectKey) -> bool {
    let by_labels = |pool: &Pool| pool.namespace_selector.is_some() && !pool.namespaces.contains(&key.namespace);
    let known = inputs.config.is_standalone() || inputs.world.namespaces.contains_key(&key.namespace);
    !known && inputs.config.pools.iter().any(by_labels)
}

/// Crier gave the address, and somebody emptied the status, which takes nothing from the Service: this node knows a pool that had it, or
/// other files than this agent's may have one.
fn is_of_emptied(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service, address: IpAddr) -> bool {
    let is_own = || own_of_emptied(inputs, key, service).contains(&address) && claim_of(inputs, key, address).is_ok();
    let of_others = || inputs.world.lacks_config_map() || inputs.restraints.is_contradicted(inputs.world);
    let is_had = || of_others() || given_back(inputs, key, service, address).is_some();
    !inputs.config.is_standalone() && service.ingress.is_empty() && is_own() && is_had()
}

/// What an emptied status showed, also of a pool that the file has no more.
fn given_back(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service, address: IpAddr) -> Option<Held> {
    still_held(inputs, key, address).or_else(|| {
        claim_of(inputs, key, address).ok()?;
        of_no_pool(inputs, service, address).filter(|_| inputs.book.own_use(address).is_none())
    })
}

fn shown_or_emptied(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Vec<Held> {
    if !service.ingress.is_empty() {
        return shown(inputs, key, service);
    }
    let own = own_of_emptied(inputs, key, service).into_iter();
    own.filter_map(|address| given_back(inputs, key, service, address)).collect()
}

/// The addresses that a Service has, or had.
struct Current {
    addresses: Vec<IpAddr>,
    /// They are the Service's; else they only were, and it gets them back if they are free.
    chosen: bool,
}

fn current(inputs: &Inputs<'_>, applicant: &Applicant<'_>) -> Current {
    let Applicant { key, service, .. } = *applicant;
    let promised = inputs.world.assigned.get(key).cloned();
    let in_status = || Some(in_own_order(service, service.ingress.clone())).filter(|shown| !shown.is_empty());
    let shown = promised.or_else(in_status);
    // The status was emptied: what crier gave is the Service's still.
    let own = shown.or_else(|| Some(own_of_emptied(inputs, key, service)).filter(|given| !given.is_empty()));
    if let Some(mut addresses) = own {
        let mut seen = BTreeSet::new();
        addresses.retain(|address| seen.insert(*address));
        return Current { addresses, chosen: true };
    }
    let asks = service.request.as_ref().is_ok_and(|request| !request.pools.is_empty());
    let may_have = |address: &&IpAddr| {
        // Those that share it may have it still.
        let shared = || inputs.book.readmits(**address, key, applicant.terms.as_ref());
        // Who wrote the address into its externalIPs while it was this Service's does not have it by that.
        let external = || is_external(inputs, key, **address);
        let is_open = inputs.book.is_free_for(**address, key) || shared() || external();
        let free = !inputs.book.is_resting(**address, key) && is_open;
        let pool = pool_of(&inputs.config.pools, **address).filter(|pool| pool.auto_assign || asks);
        free && pool.is_some_and(|pool| withheld(pool, inputs.book, applicant, **address).is_none())
    };
    let reserved = inputs.book.reservations(key);
    let is_free = |address: &&IpAddr| inputs.book.is_free_for(**address, key) && !inputs.book.is_occupied(**address);
    // A reservation goes before what a Service had.
    let gives_way = |address: &&IpAddr| {
        let of_family = |it: &&IpAddr| Family::of(**it) == Family::of(**address);
        !reserved.contains(address) && reserved.iter().filter(of_family).any(|it| is_free(&it))
    };
    let former = inputs.world.former.get(key).into_iter().flatten().filter(may_have);
    let former: Vec<IpAddr> = former.filter(|address| !gives_way(address)).copied().collect();
    Current { chosen: former.is_empty(), addresses: former }
}

/// All others that claim the address name it in their externalIPs alone.
fn is_external(inputs: &Inputs<'_>, key: &ObjectKey, address: IpAddr) -> bool {
    let names_alone = |other: &ObjectKey| {
        let service = inputs.world.services.get(other);
        let names = service.is_some_and(|it| it.external_ips.contains(&address) && !it.ingress.contains(&address));
        names && !inputs.world.assigned.get(other).is_some_and(|promised| promised.contains(&address))
    };
    let claimants = inputs.book.claims().get(&address);
    claimants.is_some_and(|claimants| claimants.iter().filter(|other| *other != key).all(names_alone))
}

/// What crier gave a Service, and of an emptied status in front of it what is to leave and stood there: its overlap is not over. Where
/// the condition was removed together with all that crier gave, this agent knows it of before.
fn own_of_emptied(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Vec<IpAddr> {
    let is_stripped = || service.ingress.is_empty() || foreign(inputs, service).is_some();
    let given = match &service.condition {
        None if not_ours(inputs, key, service).is_none() && is_stripped() => given(inputs, key, service),
        _ => service.given(),
    };
    let former = inputs.world.former.get(key).filter(|_| service.ingress.is_empty() && !given.is_empty());
    let leaves = |it: &&IpAddr| service.renumber.iter().any(|renumber| renumber.leaving.contains(*it));
    let leaving = former.into_iter().flatten().filter(leaves).filter(|it| !given.contains(*it)).copied();
    leaving.chain(given.iter().copied()).collect()
}

/// The addresses that crier gave a Service. Where somebody removed the condition that tells it, what the address book has of before.
fn given(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Vec<IpAddr> {
    if service.condition.is_some() { service.given() } else { inputs.book.given_to(key).to_vec() }
}

/// What the condition names as given while the status stays as it is: nothing that stands there since crier gave the Service its
/// addresses and is another Service's, is beside them, or is to leave. Whoever allocates next goes by it.
fn still_given(
    inputs: &Inputs<'_>,
    key: &ObjectKey,
    service: &Service,
    lost: &[(IpAddr, Reason)],
    leaving: &[IpAddr],
) -> Vec<IpAddr> {
    let before = given(inputs, key, service);
    let is_of_others = |reason: &Reason| {
        matches!(
            reason,
            Reason::AddressClaimedTwice { .. } | Reason::AddressNotShared { .. } | Reason::AddressToSpare { .. }
        )
    };
    let of_others = |address: &IpAddr| lost.iter().any(|(of, why)| of == address && is_of_others(why));
    let own = |address: &&IpAddr| {
        before.contains(address) || (!of_others(address) && (before.is_empty() || !leaving.contains(address)))
    };
    let mut seen = BTreeSet::new();
    let named: Vec<IpAddr> = service.ingress.iter().filter(own).filter(|it| seen.insert(**it)).copied().collect();
    if named.is_empty() { before } else { named }
}

/// The status stays as it is, for `reason`. An emptied one gets back what it showed.
fn left(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service, reason: Reason, given: Vec<IpAddr>) -> Answer {
    let standalone = inputs.config.is_standalone();
    let held = if standalone { promised(inputs, key) } else { shown_or_emptied(inputs, key, service) };
    let addresses: Vec<IpAddr> = held.iter().map(|held| held.address).collect();
    let wish = if service.ingress.is_empty() { Wish::Show(addresses) } else { Wish::Leave { given } };
    Answer::told(Allocation::kept(held, reason), Some(wish))
}

/// The allocation as the status tells it, while another agent decides.
fn as_shown(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Allocation {
    let held = shown(inputs, key, service);
    let fault = |address: &IpAddr| match claim_of(inputs, key, *address) {
        Err(reason) => Some(reason),
        Ok(()) => match pool_of(&inputs.config.pools, *address) {
            None if !service.leaves(*address) => Some(Reason::AddressLeftPools { address: *address }),
            Some(_) | None => None,
        },
    };
    let complaint = of_other_crier(inputs, service).or_else(|| foreign(inputs, service));
    let complaint = complaint.or_else(|| service.ingress.iter().filter_map(fault).next_back());
    let complaint = complaint.or_else(|| told_by_allocator(inputs, service, held.is_empty()));
    if held.is_empty() {
        let lists = inputs.world.listed.all() || inputs.world.fail_static;
        let waiting = if lists { Reason::WaitingForAllocator } else { Reason::WaitingForLists };
        return Allocation::none(complaint.unwrap_or(waiting));
    }
    Allocation { complaint, ..Allocation::assigned(held) }
}

/// What the condition says is the matter. One that says why there is no address is old where there is one.
fn told_by_allocator(inputs: &Inputs<'_>, service: &Service, has_none: bool) -> Option<Reason> {
    let Source::Kubernetes(Kubernetes { lease, .. }) = &inputs.config.source else { return None };
    let condition = service.condition.as_ref().filter(|it| it.is_of(lease))?;
    if !has_none && condition.addresses().is_empty() {
        return None;
    }
    let text = condition.complaint()?.to_owned();
    Some(Reason::ToldByAllocator { why: condition.reason.clone(), text })
}

/// The address lies in our pools, or it did when crier gave it, and is no other Service's.
fn still_held(inputs: &Inputs<'_>, key: &ObjectKey, address: IpAddr) -> Option<Held> {
    claim_of(inputs, key, address).ok()?;
    if let Some(pool) = pool_of(&inputs.config.pools, address) {
        return Some(Held { address, pool: pool.name.clone() });
    }
    // Whoever writes statuses could put the address of a router there.
    let service = inputs.world.services.get(key).filter(|_| inputs.book.own_use(address).is_none())?;
    remnant(inputs, service, address)
}

/// Who of several has an address is for the address book to say.
fn claim_of(inputs: &Inputs<'_>, key: &ObjectKey, address: IpAddr) -> Result<(), Reason> {
    inputs.book.standing(address, key).map_err(|refusal| match refusal.clone() {
        Refusal { with, why: Some(why) } => Reason::AddressNotShared { address, with, why: Box::new(why) },
        Refusal { with, why: None } => Reason::AddressClaimedTwice { address, by: with },
    })
}

impl Allocation {
    fn none(reason: Reason) -> Allocation {
        Allocation { held: Vec::new(), reason, complaint: None, notes: Vec::new() }
    }

    fn assigned(held: Vec<Held>) -> Allocation {
        let addresses = held.iter().map(|held| held.address).collect();
        let mut pools: Vec<_> = held.iter().map(|held| held.pool.clone()).collect();
        pools.dedup();
        Allocation { held, reason: Reason::Assigned { addresses, pools }, complaint: None, notes: Vec::new() }
    }

    /// What is kept although something else was requested.
    fn kept(held: Vec<Held>, complaint: Reason) -> Allocation {
        if held.is_empty() {
            return Allocation::none(complaint);
        }
        Allocation { complaint: Some(complaint), ..Allocation::assigned(held) }
    }
}
