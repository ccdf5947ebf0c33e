//! Which addresses a Service goes on with, which it loses and which it gets. Floor 1.

use std::net::IpAddr;

use super::{
    Answer, Current, Inputs, NOTHING_ASKED, Wish, claim_of, current, given, in_place_of_own, is_of_emptied, left,
    shown, still_given, still_held, terms,
};
use crate::address::Family;
use crate::names::ObjectKey;
use crate::plan::allocate::{Applicant, may_keep, notes, pool_of, second_family, shortage, without_successor};
use crate::plan::decision::{Allocation, Held};
use crate::plan::prefixes::renumbering;
use crate::plan::verdict::renumbered::{beside, found_beside, refused_wish, wish_without};
use crate::reason::{HostUse, Reason};
use crate::world::{Request, Service};

/// The allocation as this agent decides it. What a Service holds rightly stays, also when it requests
/// something that cannot be met: then the request is the complaint.
pub(super) fn choose(inputs: &Inputs<'_>, key: &ObjectKey, service: &Service) -> Answer {
    let namespace_labels = inputs.world.namespaces.get(&key.namespace).map(|it| &**it);
    let (request, unreadable) = match &service.request {
        Ok(request) => (request, None),
        Err(error) => (&NOTHING_ASKED, Some(Reason::RequestUnreadable { text: error.to_string() })),
    };
    let wish = wish_without(service.renumber.as_deref(), &request.addresses);
    let former = inputs.world.former.get(key).map(Vec::as_slice).unwrap_or_default();
    let (terms, by_prefix) = (terms(inputs, key), false);
    let applicant = Applicant { key, service, namespace_labels, terms, former, renumber: wish.as_deref(), by_prefix };
    let current = current(inputs, &applicant);
    if inputs.book.awaits_subnets() && current.addresses.is_empty() && service.families != [Family::V6] {
        return Answer::told(Allocation::none(Reason::SubnetsUnknown), None);
    }
    if let Some(address) = unknown_before(inputs, &current.addresses, former) {
        return Answer::told(Allocation::none(Reason::PoolUnknown { address }), None);
    }
    let by_prefix = match wish {
        Some(_) => None,
        None => renumbering(&inputs.config.pools, &current.addresses, &request.addresses),
    };
    let renumber = wish.as_deref().or(by_prefix.as_ref());
    let applicant = Applicant { renumber, by_prefix: by_prefix.is_some(), ..applicant };
    let choice = Choice::sift(inputs, &applicant, request, &current);
    let leaving = renumber.map(|it| it.leaving.as_slice()).unwrap_or_default();
    let still_given = still_given(inputs, key, service, &choice.lost, leaving);
    match unreadable {
        Some(reason) => left(inputs, key, service, reason, still_given),
        None => choice.answer(still_given),
    }
}

/// What of its addresses a Service may keep and what it loses: of these the answer is made.
struct Choice<'a, 'inputs> {
    inputs: &'a Inputs<'inputs>,
    applicant: &'a Applicant<'a>,
    request: &'a Request,
    current: &'a Current,
    kept: Vec<Held>,
    lost: Vec<(IpAddr, Reason)>,
    /// What crier gave it.
    own: Vec<IpAddr>,
}

impl<'a, 'inputs> Choice<'a, 'inputs> {
    fn sift(
        inputs: &'a Inputs<'inputs>,
        applicant: &'a Applicant<'a>,
        request: &'a Request,
        current: &'a Current,
    ) -> Choice<'a, 'inputs> {
        let (pools, key) = (&inputs.config.pools, applicant.key);
        let (mut kept, mut lost): (Vec<Held>, Vec<(IpAddr, Reason)>) = (Vec::new(), Vec::new());
        let fresh = |address: &IpAddr| inputs.book.is_fresh(*address, key);
        for address in &current.addresses {
            // A foreign host, a gateway or the subnet has the address, and no client knows it yet: another address will do. An address
            // that has been in use is never exchanged, whatever is in its way.
            let is_named = request.addresses.contains(address) || inputs.book.reserved_for(*address) == Some(key);
            if (fresh(address) || !current.chosen) && !is_named && is_exchanged(inputs, key, *address) {
                continue;
            }
            let may_keep = |()| match may_keep(pools, applicant, request, *address) {
                Err(Reason::AddressLeftPools { address }) => leaves_its_pool(inputs, applicant, address),
                judged => judged,
            };
            match claim_of(inputs, key, *address).and_then(may_keep) {
                Ok(held) => kept.push(held),
                Err(reason) => lost.push((*address, reason)),
            }
        }
        lost.extend(second_family(pools, applicant, request, &mut kept));
        give_back(inputs, applicant, request, &current.addresses, &mut kept);
        lost.extend(spare(inputs, applicant, request, &mut kept));
        let own = given(inputs, key, applicant.service);
        Choice { inputs, applicant, request, current, kept, lost, own }
    }

    /// `still_given`: what crier gave it, where the status is left as it is.
    fn answer(mut self, still_given: Vec<IpAddr>) -> Answer {
        let Choice { inputs, applicant, request, .. } = self;
        let goes = self.goes();
        let leaves = |held: &Held| applicant.renumber.is_some_and(|it| it.leaving.contains(&held.address));
        let (leaving, stays): (Vec<Held>, Vec<Held>) = self.kept.iter().cloned().partition(leaves);
        let pools = &inputs.config.pools;
        let gives_up = self.current.chosen && self.lost.iter().any(|(_, why)| is_of_other_pool(why));
        // Nothing is given up for a list of pools of which one gives nothing.
        let whole = |stays: Vec<Held>| match shortage(pools, inputs.book, applicant, request, &stays) {
            Some(reason) if gives_up => Err(reason),
            complaint => Ok((stays, complaint)),
        };
        let found = found_beside(pools, inputs.book, applicant, request, (&leaving, &stays)).and_then(whole);
        let may_go = inputs.config.is_standalone() || inputs.restraints.may_go(applicant.key, inputs.now);
        let stays_anyway = found.is_err() && self.lost.iter().all(|it| self.stays_unmet(it));
        let takes = goes.is_some();
        if let Some((address, reason)) = goes {
            if !may_go && !stays_anyway {
                return self.not_yet(address, reason, still_given);
            }
            if let Some(reason) = reason
                && !self.lost.iter().any(|(of, _)| *of == address)
            {
                self.lost.push((address, reason));
            }
        }
        let answer = match found {
            Ok((stays, complaint)) => self.granted(leaving, stays, complaint),
            Err(reason) => self.unmet(reason),
        };
        Answer { goes: takes, ..answer }
    }

    /// An address that goes against the Service's will, and why, unless the Service may keep it.
    fn goes(&self) -> Option<(IpAddr, Option<Reason>)> {
        let Choice { inputs, applicant, request, .. } = self;
        let Applicant { key, service, .. } = **applicant;
        let is_asked = |reason: &Reason| is_asked(reason, inputs.restraints.is_accepted(key));
        let has = |address: &IpAddr| service.ingress.contains(address) || is_of_emptied(inputs, key, service, *address);
        let mut against_will = self.lost.iter().filter(|(address, reason)| has(address) && !is_asked(reason));
        if let Some((address, reason)) = against_will.next() {
            return Some((*address, Some(reason.clone())));
        }
        if !request.addresses.is_empty() || !request.pools.is_empty() {
            return None;
        }
        let replaced = replaced(inputs, applicant, &self.current.addresses);
        replaced.filter(|(_, why)| !why.as_ref().is_some_and(is_asked))
    }

    /// What is given up for a request alone stays where the request cannot be met; what somebody wrote beside that is not the Service's.
    fn stays_unmet(&self, (address, why): &(IpAddr, Reason)) -> bool {
        let is_own = self.inputs.config.is_standalone() || self.own.is_empty() || self.own.contains(address);
        is_of_other_pool(why) && is_own
    }

    /// The Service is told first that the address goes.
    fn not_yet(&self, address: IpAddr, reason: Option<Reason>, still_given: Vec<IpAddr>) -> Answer {
        let Choice { inputs, applicant: Applicant { key, service, .. }, .. } = self;
        if inputs.world.lacks_config_map() && matches!(reason, Some(Reason::AddressLeftPools { .. })) {
            return Answer::told(Allocation::kept(shown(inputs, key, service), Reason::PoolUnknown { address }), None);
        }
        let why = reason.as_ref().map_or_else(|| GIVEN_ANOTHER.to_owned(), Reason::to_string);
        let answer = left(inputs, key, service, Reason::AddressGoes { address, why }, still_given);
        // What an emptied status says that crier gave, the next holder goes by, whose file may have it.
        let is_unsaid = service.ingress.is_empty() && answer.allocation.held.is_empty();
        let status = answer.status.filter(|_| !is_unsaid);
        Answer { goes: true, status, ..answer }
    }

    /// It has what it is to have: `stays`, and beside that for a while `leaving`.
    fn granted(mut self, leaving: Vec<Held>, stays: Vec<Held>, complaint: Option<Reason>) -> Answer {
        let Choice { inputs, applicant, request, .. } = self;
        let Applicant { key, service, .. } = *applicant;
        let (pools, book) = (&inputs.config.pools, inputs.book);
        let without_successor = || without_successor(pools, book, applicant, request, (&leaving, &stays));
        let complaint = complaint.or_else(without_successor);
        let (held, overlap) = beside(inputs, applicant, request, leaving, stays, &mut self.lost);
        let addresses: Vec<IpAddr> = held.iter().map(|held| held.address).collect();
        let taken = addresses.iter().copied().find(|address| is_kept_though_taken(inputs, key, *address));
        let complaint = complaint.or_else(|| taken.map(|address| Reason::ExchangedEnough { address }));
        let assigned = (held != self.kept || !self.current.chosen).then(|| addresses.clone());
        let refused = refused_wish(service, request);
        let notes = refused.into_iter().chain(notes(pools, book, applicant, request, &held)).collect();
        let lost = first_lost(service, &addresses, &self.lost);
        let allocation = Allocation { complaint, notes, ..Allocation::assigned(held) };
        Answer { allocation, assigned, status: Some(Wish::Show(addresses)), goes: false, lost, overlap }
    }

    /// What it asks for is not to be had. What it would give up for that it keeps: the request alone takes nothing away.
    fn unmet(self, reason: Reason) -> Answer {
        let Applicant { key, service, .. } = *self.applicant;
        let had = &self.current.addresses;
        let stays = |address: &&IpAddr| self.lost.iter().all(|it| it.0 != **address || self.stays_unmet(it));
        // What somebody put something else in the place of, too.
        let back = self.kept.iter().filter(|held| !had.contains(&held.address)).cloned();
        let had = had.iter().filter(stays).filter_map(|address| still_held(self.inputs, key, *address));
        let kept: Vec<Held> = had.chain(back).filter(|_| self.current.chosen).collect();
        let addresses: Vec<IpAddr> = kept.iter().map(|held| held.address).collect();
        let lost = first_lost(service, &addresses, &self.lost);
        let allocation = Allocation::kept(kept, reason);
        Answer { allocation, assigned: None, status: Some(Wish::Show(addresses)), goes: false, lost, overlap: None }
    }
}

/// It asks for another pool, and gives the address up for that.
fn is_of_other_pool(reason: &Reason) -> bool {
    matches!(reason, Reason::AddressInOtherPool { .. })
}

/// Another address is tried for one that nobody uses yet, because somebody has it; not without end where foreign hosts have each.
fn is_exchanged(inputs: &Inputs<'_>, key: &ObjectKey, address: IpAddr) -> bool {
    is_taken(inputs, address) && !is_kept_though_taken(inputs, key, address)
}

fn is_kept_though_taken(inputs: &Inputs<'_>, key: &ObjectKey, address: IpAddr) -> bool {
    let is_of_subnet = || inputs.book.own_use(address).is_some_and(HostUse::is_of_subnet);
    inputs.book.is_occupied(address) && inputs.book.has_exchanged_enough(key) && !is_of_subnet()
}

/// A foreign host, a gateway or the subnet has the address.
fn is_taken(inputs: &Inputs<'_>, address: IpAddr) -> bool {
    inputs.book.is_occupied(address) || inputs.book.own_use(address).is_some_and(HostUse::is_of_subnet)
}

/// What a Service had before is in no pool that is in use, and the ConfigMap may have one: nothing else is chosen for it.
fn unknown_before(inputs: &Inputs<'_>, has: &[IpAddr], former: &[IpAddr]) -> Option<IpAddr> {
    let is_unknown = |address: &IpAddr| pool_of(&inputs.config.pools, *address).is_none();
    let waits = inputs.world.lacks_config_map() && has.is_empty();
    former.iter().copied().filter(|_| waits).find(is_unknown)
}

/// An address that is replaced stays beside the new one for its overlap, also where its range has left the file meanwhile.
fn leaves_its_pool(inputs: &Inputs<'_>, applicant: &Applicant<'_>, address: IpAddr) -> Result<Held, Reason> {
    let wanted = &applicant.service.families;
    if !wanted.is_empty() && !wanted.contains(&Family::of(address)) {
        return Err(Reason::WrongFamily { address, wanted: wanted.clone() });
    }
    let leaves = applicant.renumber.is_some_and(|it| it.leaving.contains(&address));
    let held = still_held(inputs, applicant.key, address).filter(|_| leaves);
    held.ok_or(Reason::AddressLeftPools { address })
}

/// The addresses that crier gave a Service and its status does not show any more, of the families of which the Service may keep nothing
/// that the status shows, or only what is to leave, or stands in their place: what crier gave is the Service's still. All that crier gave
/// has the order of before, because the first address ranks the nodes for all.
fn give_back(
    inputs: &Inputs<'_>,
    applicant: &Applicant<'_>,
    request: &Request,
    shown: &[IpAddr],
    kept: &mut Vec<Held>,
) {
    let leaves = |address: &IpAddr| applicant.renumber.is_some_and(|it| it.leaving.contains(address));
    let replacing = in_place_of_own(inputs, applicant.key, applicant.service);
    let lacks = |address: &IpAddr| {
        let of_family = |other: IpAddr| Family::of(other) == Family::of(*address);
        let stays =
            |held: &Held| of_family(held.address) && !leaves(&held.address) && !replacing.contains(&held.address);
        shown.iter().any(|it| of_family(*it)) && !leaves(address) && !kept.iter().any(stays)
    };
    let given = given(inputs, applicant.key, applicant.service);
    let away = given.iter().copied().filter(|address| !shown.contains(address) && lacks(address));
    let may = |address: IpAddr| {
        claim_of(inputs, applicant.key, address).ok()?;
        may_keep(&inputs.config.pools, applicant, request, address).ok()
    };
    let back: Vec<Held> = away.filter_map(may).collect();
    if back.is_empty() {
        return;
    }
    kept.extend(back);
    let place = |held: &Held| given.iter().position(|address| *address == held.address);
    let mut own: Vec<Held> = kept.iter().filter(|held| place(held).is_some()).cloned().collect();
    own.sort_by_key(place);
    let slots = kept.iter_mut().filter(|held| place(held).is_some());
    slots.zip(own).for_each(|(slot, held)| *slot = held);
}

/// Takes from what a Service keeps the addresses beside one of the same family that crier gave it, unless it asks for both pools:
/// somebody else wrote them into the status, or they stand there since a renumbering that was taken back. What came with the Service
/// from another load balancer crier gave it when it took it over, so that stays.
fn spare(
    inputs: &Inputs<'_>,
    applicant: &Applicant<'_>,
    request: &Request,
    kept: &mut Vec<Held>,
) -> Vec<(IpAddr, Reason)> {
    let same_pool = |one: &Held, other: &Held| {
        Family::of(one.address) == Family::of(other.address) && one.pool == other.pool && one.address != other.address
    };
    let alike = |one: &Held, other: &Held| {
        let asks_both = [one, other].iter().all(|held| request.pools.contains(&held.pool));
        let other_pool = Family::of(one.address) == Family::of(other.address) && one.pool != other.pool;
        same_pool(one, other) || (other_pool && !asks_both)
    };
    let leaves = |held: &Held| applicant.renumber.is_some_and(|it| it.leaving.contains(&held.address));
    let all: Vec<Held> = kept.clone();
    let given = match inputs.config.is_standalone() {
        // Where one replaces another it stands behind it. Those that the manifest shows came together, and none replaces another.
        true => {
            let shows = |held: &Held| applicant.service.ingress.contains(&held.address);
            let is_replaced = |place: usize| {
                let mut behind = all.iter().skip(place + 1).filter(|it| same_pool(&all[place], it) && !leaves(it));
                behind.next_back().is_some_and(|last| !(shows(&all[place]) && shows(last)))
            };
            (0..all.len()).filter(|place| !is_replaced(*place)).map(|place| all[place].address).collect()
        }
        false => given(inputs, applicant.key, applicant.service),
    };
    let alike = |one: &Held, other: &Held| match inputs.config.is_standalone() {
        true => same_pool(one, other),
        false => alike(one, other),
    };
    // What the Service requests it is to have, whoever gave it, in place of what crier gave it otherwise.
    let is_asked = |held: &Held| request.addresses.contains(&held.address);
    let takes_over = |it: &&Held| is_asked(it) && !given.contains(&it.address) && !leaves(it);
    kept.retain(|held| is_asked(held) || leaves(held) || !all.iter().filter(takes_over).any(|it| alike(it, held)));
    let mut spare = Vec::new();
    kept.retain(|held| {
        let own = all.iter().find(|it| alike(held, it) && given.contains(&it.address) && !leaves(it));
        let is_spare = !given.contains(&held.address) && !leaves(held) && !is_asked(held);
        match own.filter(|_| is_spare) {
            Some(own) => {
                spare.push((held.address, Reason::AddressToSpare { address: held.address, other: own.address }));
                false
            }
            None => true,
        }
    });
    spare
}

/// What the Service itself asks for makes it lose an address; else the pools do, or another Service. Where the address was not right by
/// this very file before (`accepted`), the file may be what put it into another pool.
fn is_asked(reason: &Reason, accepted: bool) -> bool {
    match reason {
        Reason::WrongFamily { .. } => true,
        Reason::AddressInOtherPool { .. } => accepted,
        _ => false,
    }
}

/// The first address of the status that is not among the new ones, and why.
fn first_lost(service: &Service, addresses: &[IpAddr], lost: &[(IpAddr, Reason)]) -> Option<Reason> {
    let address = *service.ingress.iter().find(|address| !addresses.contains(address))?;
    let reason = lost.iter().find(|(of, _)| *of == address).map(|(_, reason)| match reason {
        Reason::AddressRenumbered { by_prefix: true, .. } => {
            "its link has another prefix, and the Service has an address below that".to_owned()
        }
        Reason::AddressRenumbered { overlap, .. } => {
            format!(
                "it is replaced (annotation crier.dev/renumber), and the new address has stood beside it for {overlap}"
            )
        }
        reason => reason.to_string(),
    });
    let asks = service.request.as_ref().is_ok_and(|it| !it.addresses.is_empty() || !it.pools.is_empty());
    let other = if asks { "the Service asks for another one" } else { GIVEN_ANOTHER };
    let why = reason.unwrap_or_else(|| other.to_owned());
    Some(Reason::AddressGoes { address, why })
}

/// Why an address goes that the Service may keep: another one was chosen for it, and its status shows the former one still.
const GIVEN_ANOTHER: &str = "crier has given the Service another one";

/// An address that crier gave, that the status shows and that is not among those chosen for the Service; and why, unless the Service may
/// keep it. Not one that leaves beside its successor, and none that a foreign host has and nobody has used yet.
fn replaced(inputs: &Inputs<'_>, applicant: &Applicant<'_>, chosen: &[IpAddr]) -> Option<(IpAddr, Option<Reason>)> {
    let Applicant { key, service, .. } = *applicant;
    if inputs.config.is_standalone() || chosen.is_empty() {
        return None;
    }
    let (pools, given) = (&inputs.config.pools, given(inputs, key, service));
    let by_prefix = renumbering(pools, &service.ingress, &[]);
    let leaves = |address: &IpAddr| {
        service.leaves(*address) || by_prefix.as_ref().is_some_and(|it| it.leaving.contains(address))
    };
    let mut own =
        service.ingress.iter().copied().filter(|it| !chosen.contains(it) && given.contains(it) && !leaves(it));
    let is_unused = |it: &IpAddr| inputs.book.is_fresh(*it, key) && is_taken(inputs, *it);
    let address = own.find(|it| !is_unused(it))?;
    let may_keep = |()| may_keep(pools, applicant, &Request::default(), address);
    Some((address, claim_of(inputs, key, address).and_then(may_keep).err()))
}
