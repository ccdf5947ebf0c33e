//! What the planner remembers of the links: who had each address and how it moved, what foreign hosts have, who has just begun.
//! Floor 1, a part of the planner.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use super::Planner;
use crate::claim::ConflictKind;
use crate::names::NodeName;
use crate::plan::decision::{Announcement, Decision};
use crate::plan::judge::Work;
use crate::plan::placement::{Cause, Handover, Move, PastConflict, Placement};
use crate::plan::slice::Acquisition;
use crate::reason::Reason;
use crate::roster::Eligibility;
use crate::world::{Conflict, Pulses};

impl Planner {
    /// What foreign hosts have of the addresses that this node is to answer for.
    fn occupied_here(&self) -> impl Iterator<Item = IpAddr> {
        let is_it =
            |on_links: &OrdMap<_, Conflict>| on_links.values().any(|conflict| conflict.kind == ConflictKind::Occupied);
        self.world.conflicts.iter().filter(move |(_, on_links)| is_it(on_links)).map(|(address, _)| *address)
    }

    /// Tells the other agents what foreign hosts have, so that whoever allocates takes none of it. That goes on for a time
    /// after this node gave such an address up, for nobody asks for it any more; and ends where this node has it itself.
    pub(super) fn renew_occupied(&mut self, now: Instant) {
        let before = self.found.len();
        let here: BTreeSet<IpAddr> = self.occupied_here().collect();
        self.found.extend(here.iter().map(|address| (*address, now + OCCUPIED_REST)));
        let held = &self.plan.l2.addresses;
        self.found.retain(|address, until| *until > now && (here.contains(address) || !held.contains_key(address)));
        if std::mem::take(&mut self.occupied_moved) || self.found.len() != before {
            // With what was found before: once the address is given up nobody asks for it, and the conflict is over long before
            // the status says that it is free.
            let members = self.world.rosters.values().flat_map(|roster| roster.members.values());
            let by_others = members.flat_map(|member| member.occupied.iter().copied());
            self.book.set_occupied(self.found.keys().copied().chain(by_others).collect());
        }
        let mut newest: Vec<(Instant, IpAddr)> = self.found.iter().map(|(address, until)| (*until, *address)).collect();
        newest.sort_by(|one, other| other.cmp(one));
        // Those that are in the way now are found anew with every turn, and which of them stands first shall not change.
        let occupied: Vec<IpAddr> = newest.into_iter().map(|(_, address)| address).take(MOST_TOLD).collect();
        if *self.plan.pulse.occupied != occupied {
            self.plan.pulse.occupied = Arc::new(occupied);
            self.moved.pulse = true;
        }
    }

    pub(super) fn note_listening(&mut self, now: Instant) {
        self.listening.retain(|_, seen| now < *seen + BEGINNING);
        let members = self.world.rosters.values().flat_map(|roster| &roster.members);
        let listening = members.filter(|(_, member)| member.eligibility == Eligibility::Listening);
        self.listening.extend(listening.map(|(name, _)| (name.clone(), now)));
    }

    /// How each address came here that was not answered for before: what the one who had it is known to do now.
    pub(super) fn note_acquisitions(&mut self, before: Option<&Decision>, work: &Work, now: Instant) {
        for (address, _) in &work.l2 {
            if self.plan.l2.addresses.contains_key(address) {
                continue;
            }
            let announced = before.into_iter().flat_map(|before| &before.announcements);
            let owner = announced.filter(|it| it.address == *address).find_map(|it| it.l2.owner.as_ref());
            let silent = |owner: &NodeName| self.world.rosters.values().any(|roster| roster.silent.contains_key(owner));
            let pulses = self.world.pulses != Pulses::Off;
            let acquisition = match owner {
                Some(owner) if *owner == self.me => None,
                Some(owner) if silent(owner) => Some(Acquisition::TakeOver { from: owner.clone() }),
                // It had not used the address yet, nor asked whether a foreign host does; or it has, and found one.
                Some(owner) if self.listening.get(owner).is_some_and(|seen| now < *seen + BEGINNING) => None,
                Some(_) if self.book.is_occupied(*address) => None,
                Some(_) if pulses => Some(Acquisition::HandOver),
                Some(_) | None => None,
            };
            if let Some(acquisition) = acquisition {
                self.plan.l2.acquisitions.insert(*address, acquisition);
            }
        }
    }

    /// Who has the addresses of a Service from now on, where that is not who had them before.
    pub(super) fn note_placements(
        &mut self,
        before: Option<&Decision>,
        after: &Decision,
        causes: Vec<(IpAddr, Cause)>,
        now: Instant,
    ) {
        let on_link = |it: &Announcement| !matches!(it.l2.reason, Reason::NoL2ForPool { .. });
        for was in before.into_iter().flat_map(|before| &before.announcements) {
            if !after.announcements.iter().any(|it| it.address == was.address && on_link(it)) {
                self.plan.placements.remove(&was.address);
            }
        }
        for (address, cause) in causes {
            let announcement = after.announcements.iter().find(|it| it.address == address);
            let owner = announcement.and_then(|it| it.l2.owner.clone());
            let known = self.plan.placements.get(&address);
            let from = known.and_then(|known| known.owner.clone());
            let placement = Placement::next(known.map(|known| &**known), owner.clone(), cause, now);
            if let Some(Move { cause, .. }) =
                placement.last_move.as_ref().filter(|_| placement.witnessed && from != owner)
            {
                self.handovers.push(Handover { address, from, to: owner, cause: cause.clone() });
            }
            self.plan.placements.insert(address, Arc::new(placement));
        }
    }

    /// The last conflict about each address is remembered when it is over, too.
    pub(super) fn note_conflicts(&mut self, now: Instant) {
        for (address, link) in std::mem::take(&mut self.contested) {
            let Some(known) = self.plan.placements.get(&address) else { continue };
            let told = self.world.conflicts.get(&address).and_then(|on_links| on_links.get(&link)).copied();
            let before = known.last_conflict.as_ref().filter(|before| before.link == link && before.over.is_none());
            let last_conflict = match (told, before) {
                (Some(conflict), _) => {
                    if before.is_none_or(|before| before.conflict.kind != conflict.kind) {
                        self.conflicts.push((address, link.clone(), conflict.kind));
                    }
                    PastConflict { link, conflict, over: None }
                }
                (None, Some(before)) => PastConflict { over: Some(now), ..before.clone() },
                (None, None) => continue,
            };
            let placement = Placement { last_conflict: Some(last_conflict), ..Placement::clone(known) };
            self.plan.placements.insert(address, Arc::new(placement));
        }
    }
}

/// How long after its listening a node may still be asking for the addresses that it was the first to own. Agents that start
/// together do not finish listening together, so an address may move before anybody has used it.
const BEGINNING: Duration = Duration::from_millis(500);

/// How many occupied addresses the other agents are told of at a time: what fits into a pulse.
const MOST_TOLD: usize = 8;

/// How long an address that a foreign host had when it was freed is not handed out again.
pub(super) const OCCUPIED_REST: Duration = Duration::from_secs(600);
