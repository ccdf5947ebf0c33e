//! What this node does about one address: on all of its links alike, but for those that go their own way. Floor 1. The situation is gathered
//! here; `plan::holder` decides.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::Inputs;
use super::heard::{self, Rosters, Speakers};
use super::parted::{self, Parted};
use crate::config::L2;
use crate::names::{InterfaceName, NodeName};
use crate::plan::context::L2Context;
use crate::plan::holder::{Bid, Candidates, Course, History, LastHolder, Situation};
use crate::plan::ranking::Ranking;
use crate::reason::Reason;
use crate::roster::Roster;
use crate::world::Pulses;

/// The links where this node would answer for an address, and what is said of it there.
pub struct Links<'a> {
    address: IpAddr,
    all: Rosters<'a>,
    speakers: Speakers<'a>,
    /// Those of them where the address is held by itself.
    apart: Rosters<'a>,
    /// It may be so on one more, once more is known of the nodes there.
    pub unsure_apart: bool,
    names_apart: BTreeSet<InterfaceName>,
    was_apart: bool,
    /// This node answers on a link where the address is not held by itself, and is not to give it back there.
    pub answers: bool,
    answers_apart: bool,
    /// Another node says that it answers.
    other: Option<&'a NodeName>,
}

impl<'a> Links<'a> {
    pub fn of(inputs: &Inputs<'a>, covering: &[(&L2, &L2Context)], address: IpAddr) -> Links<'a> {
        let all = heard::rosters(inputs, covering, address);
        let Parted { apart, unsure: unsure_apart } = parted::apart(inputs, &all, address);
        let names_apart = heard::names(inputs, apart.keys());
        let speakers = heard::speakers(inputs, &all, address);
        let other = speakers.iter().find(|(_, member)| heard::answers_for(member, address)).map(|(node, _)| *node);
        // What it answered on a link by itself it gives back to the holder that is heard there again.
        let was_apart = inputs.holders.history(address).is_some_and(|history| history.apart.is_some());
        let is_told = inputs.answered.contains_key(&address) || inputs.standbys.contains_key(&address);
        let answering = inputs.world.answering.get(&address).filter(|_| is_told);
        let is_apart = |link: &InterfaceName| names_apart.contains(link);
        let answers_apart = answering.is_some_and(|links| links.iter().any(is_apart));
        let answers = answering.is_some_and(|links| !links.iter().all(is_apart)) && !(was_apart && other.is_some());
        Links { address, all, speakers, apart, unsure_apart, names_apart, was_apart, answers, answers_apart, other }
    }

    /// Who answers for the address, as far as is known.
    pub fn holder(&self, me: &'a NodeName) -> Option<&'a NodeName> {
        if self.answers { Some(me) } else { self.other }
    }

    /// The address is the gateway of another node there. This node does not take it where no node is heard to hold it: the router may be
    /// silent. What it answers for itself, or a node that is not heard any more did, it leaves only where a station of no node answers too: that
    /// is the router, and no node's mistake.
    pub fn gateway_of_others(&self, inputs: &Inputs<'_>) -> Option<Reason> {
        let address = self.address;
        // The book has what any node says, and answers at once.
        if inputs.world.pulses == Pulses::Off || !inputs.book.is_occupied(address) || self.other.is_some() {
            return None;
        }
        let says = |roster: &'a Roster| roster.members.iter().find(|(_, it)| it.card.gateways.contains(&address));
        let (index, node) = self.all.iter().find_map(|(index, roster)| Some((index, says(roster)?.0)))?;
        let interface = &inputs.world.links.get(index)?.name;
        let is_held = self.answers || inputs.holders.last_holder(address) != LastHolder::Unknown;
        let contested = || heard::is_contested_by_stranger(inputs, &self.all, address);
        let reason = || Reason::GatewayOfLink { address, interface: interface.clone(), node: Some(node.clone()) };
        (!is_held || contested()).then(reason)
    }

    /// The links where the address is held by itself, by their indices.
    pub fn apart(&self) -> impl Iterator<Item = u32> {
        self.apart.keys().copied()
    }

    /// The same by their names.
    pub fn names_apart(&self) -> &BTreeSet<InterfaceName> {
        &self.names_apart
    }
}

/// One address, and what this node knows of it.
pub struct Case<'a, 'b> {
    pub inputs: &'b Inputs<'a>,
    pub address: IpAddr,
    /// The address that the nodes are ranked by.
    pub rank_by: IpAddr,
    pub covering: &'b [(&'b L2, &'b L2Context)],
    pub ranking: &'b Ranking<'a>,
    /// This node's bid, or why it cannot serve the address.
    pub own: &'b Result<Bid, Reason>,
    pub links: &'b Links<'a>,
}

/// What this node does about an address.
#[derive(Default)]
pub struct Courses {
    /// `None` where no `[[l2]]` covers it, or no node may answer whatever the nodes say.
    pub course: Option<Course>,
    /// It holds the address, and another holder is heard.
    pub beside: bool,
    /// What it does on the links where the address is held by itself.
    pub apart: Option<Course>,
    /// The links that it goes on on, by their indices, where it left others to a rival.
    pub goes_on_on: Option<Vec<u32>>,
    /// To be remembered.
    pub history: Option<History>,
}

impl Courses {
    /// This node answers on the links where the address is held by itself.
    pub fn answers_apart(&self) -> bool {
        matches!(self.apart, Some(Course::Holds | Course::Grants { .. } | Course::Takes(_)))
    }
}

impl<'a> Case<'a, '_> {
    pub fn decide(&self) -> Courses {
        let Case { inputs, address, links, .. } = *self;
        let mut history = inputs.holders.history(address).cloned().unwrap_or_default();
        history.ceded.take_if(|ceded| !parted::is_ceded(inputs, &links.all, ceded, address));
        let (course, beside, rest) = self.decide_together(&mut history);
        history.ceded.take_if(|_| !matches!(course, Course::Holds | Course::Grants { .. }));
        let goes_on_on = rest.filter(|_| history.ceded.is_some()).map(|rest| rest.into_keys().collect());
        if let Course::Watches { holder } | Course::Asks { holder } = &course
            && links.was_apart
            && links.apart.is_empty()
        {
            history.give_back(holder);
        }
        let apart = self.decide_apart(&course, &mut history);
        Courses { course: Some(course), beside, apart, goes_on_on, history: Some(history) }
    }

    /// On all links but those that this node left to a rival, or leaves to one now: what it does, whether beside another holder, and which
    /// links these are where they are not all.
    fn decide_together(&self, history: &mut History) -> (Course, bool, Option<Rosters<'a>>) {
        let Case { inputs, address, links, .. } = *self;
        let last = inputs.holders.last_holder(address);
        let rest = |history: &History| Some(parted::without(&links.all, history.ceded.as_ref()?));
        let is_beside = |course: &Course, it: &Situation<'_>| *course == Course::Holds && !it.holders.is_empty();
        let on = match rest(history) {
            Some(on) => on,
            None => {
                let mut situation = self.situation(&links.all, &links.speakers, history, links.answers, last);
                parted::say_where(inputs, &links.all, address, &mut situation.holders);
                let course = history.decide(&situation, || self.candidates(&links.all, last), inputs.now);
                let Some(on) = rest(history) else {
                    let beside = is_beside(&course, &situation);
                    return (course, beside, None);
                };
                on
            }
        };
        let speakers = heard::speakers(inputs, &on, address);
        let situation = self.situation(&on, &speakers, history, links.answers, last);
        let course = history.decide(&situation, || self.candidates(&on, last), inputs.now);
        let beside = is_beside(&course, &situation);
        (course, beside, Some(on))
    }

    /// On the links where the address is held by itself; `None` where this node has no part in that.
    fn decide_apart(&self, course: &Course, history: &mut History) -> Option<Course> {
        let Case { inputs, address, links, .. } = *self;
        let mut past = history.apart.take().unwrap_or_default();
        let is_elsewhere = matches!(course, Course::Watches { .. } | Course::Asks { .. });
        if !is_elsewhere || inputs.world.leaving || links.apart.is_empty() {
            return None;
        }
        let last = heard::last_there(&links.apart, address);
        let speakers = heard::speakers(inputs, &links.apart, address);
        let situation = self.situation(&links.apart, &speakers, &past, links.answers_apart, last);
        let course = past.decide(&situation, || self.candidates(&links.apart, last), inputs.now);
        history.apart = Some(past);
        Some(course)
    }

    fn situation<'c>(
        &'c self,
        on: &Rosters<'c>,
        speakers: &Speakers<'c>,
        history: &History,
        answers: bool,
        last: LastHolder<'c>,
    ) -> Situation<'c> {
        let Case { inputs, address, rank_by, covering, ranking, own, links: _ } = *self;
        let unjudged = !inputs.world.data_path.is_judged();
        let may_be_deaf = |node: &NodeName| on.values().any(|it| it.may_be_deaf(node));
        let may_ask_from = inputs.holders.may_ask_from(covering, inputs.now);
        Situation {
            me: inputs.me,
            rank_by,
            own: own.clone(),
            answers,
            unjudged,
            leaving: inputs.world.leaving,
            without_link: on.is_empty(),
            unheeded: address.is_ipv6() && on.keys().any(|link| heard::is_without_v6(inputs, covering, *link)),
            // A node with an endpoint keeps the address from others with one.
            sticky: covering.iter().any(|(l2, _)| l2.sticky) || ranking.is_near(inputs.me),
            may_ask_from: may_ask_from.filter(|_| inputs.world.drain.is_none() && !unjudged),
            grants: inputs.holders.granting(),
            knows_all: heard::knows_all(on),
            beside_the_deaf: on.values().any(|it| it.unproved.values().any(|it| it.deaf)),
            is_still_deaf: history.left_to_the_deaf().is_some_and(may_be_deaf),
            deaf_holder: heard::deaf_holder(on, address),
            holders: heard::holders(inputs, ranking, speakers, address),
            askers: heard::askers(speakers, address),
            askers_know_more: heard::askers_know_more(inputs, speakers, address),
            last,
        }
    }

    fn candidates<'c>(&'c self, on: &Rosters<'c>, last: LastHolder<'_>) -> Candidates<'c> {
        heard::candidates(self.inputs, self.ranking, self.covering, on, last, self.address)
    }
}
