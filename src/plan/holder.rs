//! Who holds one address on the link, as this node sees it and acts on it: the rules of `doc/ownership.md`.
//! Floor 1. [`History::decide`] is a pure function of what was heard, of the address's history on this node, and of `now`. It
//! names no Service and reads no configuration: `verdict::l2` gathers the situation, `holder_memory` keeps the history.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::claim::Acquisition;
use crate::names::NodeName;
use crate::plan::tickets::Ticket;
use crate::reason::Reason;

/// How long a holder waits for the node that it grants an address to, before it takes the grant back.
pub const GRANT_TIME: Duration = Duration::from_secs(1);

/// How much longer for each grant that is under way: pulses tell some hundred addresses a second, and each of them has to be
/// granted, taken and said to be held.
const GRANT_SPACING: Duration = Duration::from_millis(5);

/// How long a node to which a grant was in vain is not granted the same address again.
pub const GRANT_REST: Duration = Duration::from_secs(10);

/// How long the better of two holders goes on beside a rival that does not stop: by then the rival has missed several
/// pulses, so it does not hear this node. Together with the worse holder's answer within a pulse this keeps "one within a
/// second".
const DEAF_TIME: Duration = Duration::from_millis(600);

/// How long at least this node takes no grant of an address, and does not ask for it, after it left the address to a holder that
/// does not hear it: a link that loses most frames of one direction from time to time moves no address more often.
const DEAF_REST: Duration = Duration::from_secs(5);

/// How long a candidate waits for each candidate that is ranked before it and does not act.
pub const FALLBACK_TIME: Duration = Duration::from_secs(1);

/// How long a candidate waits for nodes that may be candidates too, by files that this node's file does not tell of, and that
/// have the lower digest: time for the pulse in which such a node asks.
pub const UNSURE_TIME: Duration = Duration::from_millis(50);

/// How long an address may be left to another node that does not take it, before that is called a problem: time for the full
/// probe, and for several candidates one after the other.
pub const OVERDUE_AFTER: Duration = Duration::from_secs(10);

/// How good a node is for an address by its own word. The greater is the better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// It is being drained: it takes nothing, and keeps what it has until a better node asks.
    Draining,
    /// Its data path is not good: it takes only what no node holds and no better one takes, and keeps what it has only while no
    /// better node asks.
    DataPathBad,
    /// It has not heard the API server for some time, while others do.
    ViewStale,
    #[default]
    Eligible,
}

/// What a node puts into the scales for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bid {
    pub grade: Grade,
    /// The sum of the weights of the preferences that match the node, by its own file.
    pub weight: u32,
}

impl Bid {
    /// Whether the node takes addresses like any other.
    fn takes(self) -> bool {
        self.grade > Grade::DataPathBad
    }

    /// Whether it takes an address that nobody holds and nobody else takes.
    fn takes_at_last(self) -> bool {
        self.grade >= Grade::DataPathBad
    }
}

/// A living node and its bid for the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bidder<'a> {
    pub node: &'a NodeName,
    pub bid: Bid,
}

/// The other nodes that may take an address that nobody holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates<'a> {
    pub known: Vec<Bidder<'a>>,
    /// Nodes with an `[[l2]]` that this node's file does not have: it may cover the address, with any weight.
    pub unsure: Vec<&'a NodeName>,
}

impl<'a> Candidates<'a> {
    fn known_that_take(self) -> impl Iterator<Item = Bidder<'a>> {
        self.known.into_iter().filter(|it| it.bid.takes())
    }
}

/// A living node that says that it holds the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder<'a> {
    pub bidder: Bidder<'a>,
    /// It says that it hands the address over to this node.
    pub grants_us: bool,
    /// It could not serve the address, by what this node knows: under policy Local it has no endpoint, or outbound
    /// connections of the pods are not to leave by it.
    pub cannot_serve: bool,
    /// It does not hear this node, as far as can be told.
    pub deaf: bool,
    /// The links where it says so, by their indices, if this node answers on another one and it does not say so there; else none.
    pub on_links: BTreeSet<u32>,
}

/// The last holder of an address that no living node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastHolder<'a> {
    /// No node is known to have held it. A node that only should have held it does not count.
    Unknown,
    /// It fell silent. `suspect`: all nodes did at once, so it may be this node that does not hear.
    Silent { node: &'a NodeName, suspect: bool },
    /// It said goodbye.
    Left,
    /// This node, until its agent restarted: no node takes the address over before the time that it named is over.
    ThisNode,
}

/// What this node knows about one address now.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    pub me: &'a NodeName,
    /// The address that the nodes are ranked by: the first of its Service.
    pub rank_by: IpAddr,
    /// This node's bid, or why it cannot serve the address.
    pub own: Result<Bid, Reason>,
    /// This node answers for the address on some link.
    pub answers: bool,
    /// Nothing was seen yet of this node's data path since its agent started: it goes on with what it holds and takes nothing.
    pub unjudged: bool,
    /// The agent stops, and the other nodes were told.
    pub leaving: bool,
    /// This node has no link there: nobody hears what it says.
    pub without_link: bool,
    /// This node takes no IPv6 there, for an IPv6 address: the others count for nothing what it says of the address, or do not hear it.
    pub unheeded: bool,
    /// A holder keeps the address from nodes of the same grade and weight.
    pub sticky: bool,
    /// To how many addresses of this node a grant is under way.
    pub grants: u32,
    /// From when on this node may ask a holder of its own grade for the address: when the `preempt-delay` is over. `None` while it is not
    /// eligible.
    pub may_ask_from: Option<Instant>,
    /// Every page of what the living nodes hold was heard.
    pub knows_all: bool,
    /// A node on the link is heard and does not hear this one: it may take the address and never say so to this node.
    pub beside_the_deaf: bool,
    /// The node that this one left the address to because it does not hear this one ([`History::left_to_the_deaf`]) is heard, and
    /// not known to hear again.
    pub is_still_deaf: bool,
    /// A node that does not hear this one, and says that it answers for the address.
    pub deaf_holder: Option<&'a NodeName>,
    pub holders: Vec<Holder<'a>>,
    /// Nodes that ask for the address, or take it and do not answer yet.
    pub askers: Vec<Bidder<'a>>,
    /// Of these, one hears its API server, and this node does not hear its own: it knows of endpoints and nodes what this one
    /// may not.
    pub askers_know_more: bool,
    pub last: LastHolder<'a>,
}

/// What this node does about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// It answers, and goes on.
    Holds,
    /// It answers until `to` says that it holds the address.
    Grants { to: NodeName },
    /// It is to answer, once the link was asked as the acquisition wants.
    Takes(Acquisition),
    /// It does not answer, and asks the holder for the address.
    Asks { holder: NodeName },
    /// Another node holds the address.
    Watches { holder: NodeName },
    /// No node holds it, and another node is ranked before this one.
    Waits { first: NodeName },
    /// No node holds it, and no living node may.
    Nobody,
}

/// What went before, for one address on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// This node has begun to take the address, and how.
    taking: Option<Acquisition>,
    /// Since when no living node is known to hold it.
    unheld_since: Option<Instant>,
    /// Since when this node knows of a node and not of all that it holds.
    unknown_since: Option<Instant>,
    /// Until when this node waits for those that are ranked before it, or for its `preempt-delay`.
    waits_until: Option<Instant>,
    /// Since when no node holds the address and another node is to take it.
    left_since: Option<Instant>,
    /// That node has not taken it for too long.
    overdue: bool,
    /// Since when another holder is heard beside this one.
    rival_since: Option<Instant>,
    /// To whom this node grants the address.
    grant: Option<Grant>,
    /// The last node that was granted the address in vain, and until when it is not granted again.
    vain: Option<(NodeName, Instant)>,
    /// This node left the address to a holder that does not hear it. Until that one does, this node takes nothing that is granted
    /// to it, and asks nobody.
    deaf: Option<Deaf>,
    /// The holder that this node gave way to without having granted it the address: that one may not know that there was
    /// another, so it has no reason to announce anything.
    yielded_to: Option<NodeName>,
    assertions: u32,
    /// Where this node left the address to a rival, while it goes on on other links.
    pub ceded: Option<Ceded>,
    /// The same of the links where the address is held by itself, because its holder is heard on others alone.
    pub apart: Option<Box<History>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    to: NodeName,
    since: Instant,
    /// When it is taken back, as far as can be told now: later while many are under way.
    until: Instant,
}

/// The links that this node left to a holder that says so there alone, and does not hear this node there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ceded {
    pub node: NodeName,
    /// By their indices.
    pub links: BTreeSet<u32>,
    /// Until then that it holds the address no more counts for nothing.
    pub rest: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Deaf {
    node: NodeName,
    /// Until then that it hears again counts for nothing; `None` once that is over.
    rest: Option<Instant>,
}

impl History {
    /// This node grants the address to another one.
    pub fn is_granting(&self) -> bool {
        self.grant.is_some()
    }

    /// No node holds the address, and this one takes it, or does when its turn comes.
    pub fn is_to_take(&self) -> bool {
        self.unheld_since.is_some()
    }

    /// Grows whenever the holder is to announce the address again: a rival was heard, or is gone, or there may have been one.
    pub fn assertions(&self) -> u32 {
        self.apart.as_ref().map_or(0, |apart| apart.assertions).wrapping_add(self.assertions)
    }

    pub fn assert(&mut self) {
        self.assertions = self.assertions.wrapping_add(1);
    }

    /// The node that holds the address, and may not know that this one held it too.
    pub fn yielded_to(&self) -> Option<&NodeName> {
        self.yielded_to.as_ref().or_else(|| self.apart.as_ref()?.yielded_to())
    }

    /// Another holder is heard beside this one.
    pub fn has_rival(&self) -> bool {
        self.rival_since.is_some()
    }

    /// The holder that this node left the address to because it does not hear this node: it may take the address once more from
    /// whoever gives it back.
    pub fn left_to_the_deaf(&self) -> Option<&NodeName> {
        self.deaf.as_ref().map(|deaf| &deaf.node)
    }

    /// Another node is to take the address, and has not for [`OVERDUE_AFTER`].
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// When to decide anew although nothing was heard. Never later than needed, and may be past.
    pub fn next_deadline(&self) -> Option<Instant> {
        let rival = self.rival_since.map(|since| since + DEAF_TIME);
        let grant = self.grant.as_ref().map(|grant| grant.until);
        let overdue = self.left_since.filter(|_| !self.overdue).map(|since| since + OVERDUE_AFTER);
        // Whoever asks then goes on asking, and says nothing new.
        let vain = self.vain.as_ref().map(|(_, until)| *until);
        let rest = self.deaf.as_ref().and_then(|deaf| deaf.rest);
        let ceded = self.ceded.as_ref().map(|ceded| ceded.rest);
        let over = self.waits_until.into_iter().chain(ceded).chain(rival).chain(grant).chain(overdue);
        let apart = self.apart.as_ref().and_then(|apart| apart.next_deadline());
        over.chain(vain).chain(rest).chain(apart).min()
    }

    /// What this node does about the address now. `candidates` are the other living nodes that could serve it; they are asked
    /// for only where nobody holds the address, or its holder is being drained or cannot serve it any more. The same situation
    /// at a later time never answers with less than the rules ask for: spare calls are harmless.
    pub fn decide<'a>(
        &mut self,
        situation: &Situation<'a>,
        candidates: impl FnOnce() -> Candidates<'a>,
        now: Instant,
    ) -> Course {
        let course = self.course(situation, candidates, now);
        let watched = |node: &NodeName| matches!(&course, Course::Watches { holder } if holder == node);
        self.yielded_to.take_if(|node| !watched(node));
        let left = matches!(course, Course::Waits { .. });
        self.left_since = left.then(|| self.left_since.unwrap_or(now));
        self.overdue = self.left_since.is_some_and(|since| now >= since + OVERDUE_AFTER);
        course
    }

    fn course<'a>(
        &mut self,
        situation: &Situation<'a>,
        candidates: impl FnOnce() -> Candidates<'a>,
        now: Instant,
    ) -> Course {
        self.vain.take_if(|(_, until)| *until <= now);
        if let Some(Deaf { node: _, rest }) = &mut self.deaf {
            rest.take_if(|until| *until <= now);
        }
        self.deaf.take_if(|deaf| deaf.rest.is_none() && !situation.is_still_deaf);
        // Once a third node had the address from it and gave it to this one, that node would take it again.
        if let Some(node) = situation.deaf_holder.filter(|_| !situation.leaving) {
            self.deaf = Some(Deaf { node: node.clone(), rest: None });
        }
        // The same of one that heard this node before. Where this node answers beside it, that it goes on tells.
        let by_deaf = situation.holders.iter().find(|it| it.deaf && !situation.answers && !situation.leaving);
        if let (Some(holder), None) = (by_deaf, &self.deaf) {
            self.deaf = Some(Deaf { node: holder.bidder.node.clone(), rest: None });
        }
        self.waits_until = None;
        // However long nobody was known to hold it: what this node has yet to hear of is waited for from now on.
        self.unknown_since = (!situation.knows_all).then(|| self.unknown_since.unwrap_or(now));
        if situation.leaving {
            return self.leave(situation);
        }
        if situation.answers {
            self.taking = None;
            self.unheld_since = None;
            return match (situation.deaf_holder, &situation.own) {
                // It cannot be told that there is another.
                (Some(deaf), _) => {
                    self.yielded_to = Some(deaf.clone());
                    self.stop(deaf)
                }
                (None, Ok(own)) => self.hold(situation, *own, candidates, now),
                (None, Err(_)) => self.give_up(situation, candidates, now),
            };
        }
        self.rival_since = None;
        self.grant = None;
        // Several holders are one in a moment; this node does not become another.
        let granted = self.deaf.is_none() && situation.holders.iter().all(|holder| holder.grants_us);
        let holder = best_holder(situation);
        if let (None, Some(deaf)) = (holder, situation.deaf_holder) {
            self.taking = None;
            self.unheld_since = None;
            return Course::Watches { holder: deaf.clone() };
        }
        match (holder, &situation.own) {
            (Some(_), Ok(_)) if granted && !situation.unjudged => self.take(Acquisition::HandOver),
            (Some(holder), own) => {
                self.taking = None;
                self.unheld_since = None;
                // The delay is for what works: a holder that does not serve as well is relieved at once.
                let relieves = own.as_ref().is_ok_and(|own| own.grade > holder.bid.grade);
                let holder = holder.node.clone();
                // It would take nothing, and another one that it left the address to may still be there and not hear it.
                let asks = self.deaf.is_none() && own.as_ref().is_ok_and(|own| would_ask(situation, *own));
                match situation.may_ask_from.filter(|_| asks) {
                    Some(from) if relieves || now >= from => Course::Asks { holder },
                    from => {
                        self.waits_until = from;
                        Course::Watches { holder }
                    }
                }
            }
            // A node whose data path is not good goes on with what it held. Else it comes last: where no node is good, bad ones
            // that were good since their boot are better than none.
            (None, Ok(own))
                if (own.takes_at_last() && !situation.unjudged) || situation.last == LastHolder::ThisNode =>
            {
                self.find_holder(situation, *own, candidates(), now)
            }
            (None, Ok(_) | Err(_)) => {
                self.taking = None;
                self.unheld_since = None;
                let first = best(situation, candidates().known_that_take());
                first.map_or(Course::Nobody, |first| Course::Waits { first: first.node.clone() })
            }
        }
    }

    /// This node answers until its agent ends, and takes nothing.
    fn leave(&mut self, situation: &Situation<'_>) -> Course {
        *self = History { assertions: self.assertions, ..History::default() };
        // Packets of pods go to the heir as soon as it is heard.
        match best_holder(situation) {
            Some(holder) => Course::Watches { holder: holder.node.clone() },
            None if situation.answers => Course::Holds,
            None => Course::Nobody,
        }
    }

    /// This node answers for the address, and can serve it.
    fn hold<'a>(
        &mut self,
        situation: &Situation<'a>,
        own: Bid,
        candidates: impl FnOnce() -> Candidates<'a>,
        now: Instant,
    ) -> Course {
        let this = Bidder { node: situation.me, bid: own };
        if let Some(taken) = self.granted_holder(situation) {
            return self.stop(taken);
        }
        let rival = best_rival(situation);
        if let Some(better) = rival.filter(|rival| compare(rival, &this, situation.rank_by) == Ordering::Greater) {
            self.yielded_to = Some(better.node.clone());
            // Where a third one has the address next, that node sees no holder while this one has it from there.
            if situation.holders.iter().any(|it| it.deaf && it.bidder.node == better.node) {
                self.deaf = Some(Deaf { node: better.node.clone(), rest: Some(now + DEAF_REST) });
            }
            return self.stop(better.node);
        }
        // A holder that granted this node the address stops as soon as it hears that this node has it.
        match rival.or_else(|| best_holder(situation)) {
            Some(other) => match self.rival_since {
                Some(since) if now >= since + DEAF_TIME => {
                    let (node, rest) = (other.node.clone(), now + DEAF_REST);
                    self.deaf = Some(Deaf { node: node.clone(), rest: Some(rest) });
                    let is_other = |holder: &&Holder<'_>| holder.bidder.node == other.node;
                    let links =
                        situation.holders.iter().find(is_other).map(|it| it.on_links.clone()).unwrap_or_default();
                    if !links.is_empty() {
                        self.rival_since = None;
                        self.grant = None;
                        self.ceded = Some(Ceded { node, links, rest });
                        return Course::Holds;
                    }
                    self.yielded_to = Some(node);
                    return self.stop(other.node);
                }
                Some(_) => {}
                None => {
                    self.rival_since = Some(now);
                    if rival.is_some() {
                        self.assert();
                    }
                }
            },
            // Whom this node grants the address to may have announced it a moment ago.
            None => {
                if self.rival_since.take().is_some() && self.grant.is_none() {
                    self.assert();
                }
            }
        }
        let grade = if situation.askers_know_more { own.grade.min(Grade::ViewStale) } else { own.grade };
        let this = Bidder { bid: Bid { grade, ..own }, ..this };
        let asking = situation.askers.iter().copied().filter(|asker| displaces(situation, asker, &this));
        let mut better: Vec<Bidder<'_>> = asking.collect();
        if own.grade == Grade::Draining && !better.is_empty() {
            // The first that asks need not be the best: the address would move twice.
            better.extend(candidates().known_that_take());
        }
        self.grant(situation, better, now).map_or(Course::Holds, |to| Course::Grants { to })
    }

    /// This node answers for an address that it cannot serve any more.
    fn give_up<'a>(
        &mut self,
        situation: &Situation<'a>,
        candidates: impl FnOnce() -> Candidates<'a>,
        now: Instant,
    ) -> Course {
        self.rival_since = None;
        let holder = self.granted_holder(situation).or_else(|| best_rival(situation).map(|rival| rival.node));
        if let Some(holder) = holder {
            return self.stop(holder);
        }
        if situation.without_link {
            // That nobody takes what is granted now would count against the node later.
            self.grant = None;
            return Course::Nobody;
        }
        if situation.unheeded {
            // They hear of no grant, and take the address once nobody answers for it.
            self.grant = None;
            let first = best(situation, candidates().known_that_take());
            return first.map_or(Course::Nobody, |first| Course::Waits { first: first.node.clone() });
        }
        let asking: Vec<_> = situation.askers.iter().copied().filter(|it| it.bid.takes()).collect();
        let successors = match asking.is_empty() {
            true => candidates().known_that_take().collect(),
            false => asking,
        };
        match self.grant(situation, successors, now) {
            Some(to) => Course::Grants { to },
            None => Course::Nobody,
        }
    }

    /// No living node holds the address, and this node could.
    fn find_holder(&mut self, situation: &Situation<'_>, own: Bid, others: Candidates<'_>, now: Instant) -> Course {
        if let Some(taking) = self.taking.clone() {
            // The node that was in the way has said goodbye.
            let is_handed_over = matches!(situation.last, LastHolder::Left | LastHolder::ThisNode);
            let is_handed_over = is_handed_over && !situation.beside_the_deaf;
            return self.take(if is_handed_over { Acquisition::HandOver } else { taking });
        }
        let since = *self.unheld_since.get_or_insert(now);
        let this = Bidder { node: situation.me, bid: own };
        // Whoever ranks before this node waits for it.
        let others = if situation.last == LastHolder::ThisNode { Candidates::default() } else { others };
        let by_digest =
            |node: &&NodeName| Ticket::of(node, situation.rank_by) < Ticket::of(situation.me, situation.rank_by);
        let unsure: Vec<&NodeName> = others.unsure.iter().copied().filter(by_digest).collect();
        let ranks_before = |it: &Bidder<'_>| compare(it, &this, situation.rank_by) == Ordering::Greater;
        let before: Vec<_> = others.known.into_iter().filter(|it| it.bid.takes_at_last() && ranks_before(it)).collect();
        let at_last = !own.takes() && situation.last != LastHolder::ThisNode;
        // One that is good may have to ask the link in full first, or wait for others itself.
        let acts_first = at_last && (before.iter().any(|it| it.bid.takes()) || !unsure.is_empty());
        let place = u32::try_from(before.len())
            .unwrap_or(u32::MAX)
            .saturating_add(u32::from(!situation.knows_all))
            .saturating_add(u32::from(situation.beside_the_deaf))
            // A data path that comes back within this time counts.
            .saturating_add(u32::from(at_last));
        // One that is ranked before and says that it takes the address acts: with many addresses that takes its time.
        let is_asking = |node: &NodeName| situation.askers.iter().any(|asker| asker.node == node);
        let acts = before.iter().map(|it| it.node).chain(unsure.iter().copied()).any(is_asking);
        let waits = FALLBACK_TIME.saturating_mul(if acts || acts_first { MOST_PLACES } else { place.min(MOST_PLACES) });
        let begins = since + waits.max(if unsure.is_empty() { Duration::ZERO } else { UNSURE_TIME });
        let begins = begins.max(self.unknown_since.map_or(begins, |since| since + FALLBACK_TIME));
        if now < begins {
            self.waits_until = Some(begins);
            let first = best(situation, before.into_iter()).map(|first| first.node);
            let first = first.or(unsure.first().copied()).unwrap_or(situation.me);
            return Course::Waits { first: first.clone() };
        }
        self.take(match situation.last {
            LastHolder::Left | LastHolder::ThisNode if place == 0 => Acquisition::HandOver,
            LastHolder::Silent { node, suspect } => Acquisition::TakeOver { from: node.clone(), suspect },
            LastHolder::Left | LastHolder::ThisNode | LastHolder::Unknown => Acquisition::FirstUse,
        })
    }

    fn take(&mut self, acquisition: Acquisition) -> Course {
        self.taking = Some(acquisition.clone());
        Course::Takes(acquisition)
    }

    /// This node answered on a link by itself, and the holder is heard there again: neighbours are told.
    pub fn give_back(&mut self, holder: &NodeName) {
        self.yielded_to = Some(holder.clone());
    }

    fn stop(&mut self, holder: &NodeName) -> Course {
        self.rival_since = None;
        self.grant = None;
        Course::Watches { holder: holder.clone() }
    }

    /// The node that was granted the address, once it says that it holds it. One that hands it over to this node has yet to hear of the
    /// grant: it stops when it hears that this node holds the address, and then nobody would.
    fn granted_holder<'a>(&self, situation: &Situation<'a>) -> Option<&'a NodeName> {
        let Grant { to, .. } = self.grant.as_ref()?;
        let goes_on = situation.holders.iter().filter(|holder| !holder.grants_us);
        goes_on.map(|holder| holder.bidder.node).find(|node| *node == to)
    }

    /// The node to grant the address to, of those that may have it. One grant at a time, each for its time.
    fn grant(&mut self, situation: &Situation<'_>, able: Vec<Bidder<'_>>, now: Instant) -> Option<NodeName> {
        let time = GRANT_TIME + GRANT_SPACING.saturating_mul(situation.grants);
        match &mut self.grant {
            Some(Grant { to, since, .. }) if now >= *since + time => {
                self.vain = Some((to.clone(), now + GRANT_REST));
                self.grant = None;
            }
            Some(Grant { to, since, until }) if able.iter().any(|it| it.node == to) => {
                *until = *since + time;
                return Some(to.clone());
            }
            // It may have announced the address and gone, so that neighbours believe it.
            Some(_) => {
                self.grant = None;
                self.assert();
            }
            None => {}
        }
        let in_vain = |it: &Bidder<'_>| self.vain.as_ref().is_some_and(|(node, _)| node == it.node);
        let to = best(situation, able.into_iter().filter(|it| !in_vain(it)))?.node.clone();
        self.grant = Some(Grant { to: to.clone(), since: now, until: now + time });
        Some(to)
    }
}

/// A node whose place is worse than this waits no longer than this place does.
const MOST_PLACES: u32 = 10;

/// Which of two is the better for an address, by what both say: grade, weight, then the lower digest, as in MetalLB.
fn compare(one: &Bidder<'_>, other: &Bidder<'_>, rank_by: IpAddr) -> Ordering {
    let by_digest = || Ticket::of(other.node, rank_by).cmp(&Ticket::of(one.node, rank_by));
    one.bid.cmp(&other.bid).then_with(by_digest)
}

fn best<'a>(situation: &Situation<'_>, bidders: impl Iterator<Item = Bidder<'a>>) -> Option<Bidder<'a>> {
    bidders.max_by(|one, other| compare(one, other, situation.rank_by))
}

fn best_holder<'a>(situation: &Situation<'a>) -> Option<Bidder<'a>> {
    best(situation, situation.holders.iter().map(|holder| holder.bidder))
}

/// Another holder that does not hand the address over to this node.
fn best_rival<'a>(situation: &Situation<'a>) -> Option<Bidder<'a>> {
    best(situation, situation.holders.iter().filter(|holder| !holder.grants_us).map(|holder| holder.bidder))
}

/// This node is better than every node that holds the address.
fn would_ask(situation: &Situation<'_>, own: Bid) -> bool {
    let this = Bidder { node: situation.me, bid: own };
    let gives_way = |holder: &Holder<'_>| holder.cannot_serve || displaces(situation, &this, &holder.bidder);
    own.grade == Grade::Eligible && situation.holders.iter().all(gives_way)
}

/// Whether a node is to have the address in place of its holder. The lower digest alone does not displace where the address is
/// sticky.
fn displaces(situation: &Situation<'_>, one: &Bidder<'_>, holder: &Bidder<'_>) -> bool {
    let counts = !situation.sticky || one.bid != holder.bid;
    counts && compare(one, holder, situation.rank_by) == Ordering::Greater
}

#[cfg(test)]
mod tests;
