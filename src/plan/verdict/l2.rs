//! Which node answers for the addresses of a Service on the link, and on which links this node does.
//! Floor 1. `plan::ranking` orders the nodes, `plan::holder` decides by what they say and by what went before; here the
//! situation is gathered and the outcome named with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Announceable, Inputs, data_path, egress, shared};
use crate::address::{Family, MacAddress};
use crate::claim::{Acquisition, ConflictKind};
use crate::config::L2;
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::plan::context::L2Context;
use crate::plan::context::l2::describe_interfaces;
use crate::plan::decision::{Decision, Held, L2Verdict};
use crate::plan::elect;
use crate::plan::holder::{Bid, Bidder, Candidates, Ceded, Course, Grade, History, Holder, LastHolder, Situation};
use crate::plan::placement::Cause;
use crate::plan::ranking::{Ranking, Wishes, covering};
use crate::reason::Reason;
use crate::roster::{Eligibility, Holding, L2Number, Member, NodeTicket, Roster, Stage};
use crate::world::{ApiServer, Endpoints, Pulses, TrafficPolicy};

/// What this node does on the link about the addresses of a Service.
pub struct Answer {
    /// One for each address, in their order.
    pub verdicts: Vec<L2Verdict>,
    pub work: L2Work,
    /// Why addresses have another owner than before.
    pub causes: Vec<(IpAddr, Cause)>,
    pub histories: Vec<(IpAddr, History)>,
}

/// The part of the work that is done on the link.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct L2Work {
    /// The addresses that this node answers for, each with the links.
    pub answers: Vec<(IpAddr, Arc<BTreeSet<InterfaceName>>)>,
    /// How this node takes those of the addresses above that it does not hold yet.
    pub acquisitions: Vec<(IpAddr, Acquisition)>,
    /// Of the addresses above, those that are to be announced again: once more whenever the number grows.
    pub assertions: Vec<(IpAddr, u32)>,
    /// Addresses that this node gave up to a node that may not know that there was another holder, by the link, with that node's
    /// MAC there.
    pub yields: Vec<((u32, IpAddr), MacAddress)>,
    /// What this node says of the addresses in its pulses.
    pub holdings: Vec<(IpAddr, Holding)>,
    /// What it says instead on links where an address is held by itself.
    pub apart: Vec<((u32, IpAddr), Holding)>,
    /// The nodes that hold an address of the Service or are to take it, this one among them.
    pub owners: BTreeSet<NodeName>,
    /// Some address has no holder yet, or is about to have another: any node that comes or goes matters.
    pub open: bool,
}

pub fn judge(inputs: &Inputs<'_>, about: &Announceable<'_>) -> Answer {
    let (verdicts, causes, histories) = (Vec::new(), Vec::new(), Vec::new());
    let mut answer = Answer { verdicts, work: L2Work::default(), causes, histories };
    // All addresses of a Service move together: its first one ranks the nodes for all of them.
    let Some(first) = about.held.first().map(|held| held.address) else { return answer };
    for held in &about.held {
        let rank_by = shared::rank_by(inputs, first, held.address);
        let Judged { verdict, course, answered_on, weight, cause, history, apart, goes_on_on } =
            judge_address(inputs, about, held, rank_by);
        let (address, work) = (held.address, &mut answer.work);
        work.owners.extend(verdict.owner.clone());
        let open = !matches!(course, Some(Course::Holds | Course::Watches { .. }));
        work.open |= open && !matches!(verdict.reason, Reason::NoEndpoints | Reason::NoL2ForPool { .. });
        let says = |course: &Course| stage(inputs, address, course).map(|stage| Holding { weight, stage });
        let said = course.as_ref().and_then(says);
        match &goes_on_on {
            None => work.holdings.extend(said.map(|holding| (address, holding))),
            Some(links) => work.apart.extend(links.iter().filter_map(|link| Some(((*link, address), said?)))),
        }
        let mut courses = vec![course];
        if let Some((course, links)) = apart {
            // What a node is worth on these links the ranking of all does not say.
            work.open = true;
            let holding = says(&course);
            work.apart.extend(links.into_iter().filter_map(|link| Some(((link, address), holding?))));
            courses.push(Some(course));
        }
        for course in courses.into_iter().flatten() {
            let before = inputs.holders.history(address);
            match course {
                Course::Takes(acquisition) => work.acquisitions.push((address, acquisition)),
                // The rival had it on links where this node did not.
                Course::Holds
                    if before.is_some_and(History::has_rival)
                        && answered_on.as_ref() != inputs.answered.get(&address) =>
                {
                    work.acquisitions.push((address, Acquisition::HandOver));
                }
                Course::Holds => {
                    let ceded = before.and_then(|before| before.ceded.as_ref()).filter(|_| goes_on_on.is_none());
                    work.acquisitions.extend(ceded.map(|ceded| (address, regained(inputs, ceded))));
                }
                Course::Grants { .. }
                | Course::Asks { .. }
                | Course::Watches { .. }
                | Course::Waits { .. }
                | Course::Nobody => {}
            }
        }
        let assertions = history.as_ref().map_or(0, History::assertions);
        work.assertions.extend((answered_on.is_some() && assertions > 0).then_some((address, assertions)));
        work.answers.extend(answered_on.map(|links| (address, links)));
        let yielded_to = history.as_ref().and_then(History::yielded_to);
        work.yields.extend(yielded_to.into_iter().flat_map(|holder| yields(inputs, address, holder)));
        if let Some(Ceded { node, links, rest: _ }) = history.as_ref().and_then(|history| history.ceded.as_ref()) {
            work.yields.extend(yields(inputs, address, node).filter(|((link, _), _)| links.contains(link)));
        }
        answer.histories.extend(history.map(|history| (address, history)));
        answer.causes.extend(cause.map(|cause| (address, cause)));
        answer.verdicts.push(verdict);
    }
    answer
}

/// Where the holder of an address is, on each link where it is heard.
fn yields<'a>(
    inputs: &Inputs<'a>,
    address: IpAddr,
    holder: &NodeName,
) -> impl Iterator<Item = ((u32, IpAddr), MacAddress)> + use<'a> {
    let holder = holder.clone();
    let rosters = inputs.world.rosters.iter();
    let mac = move |roster: &Roster| {
        let member = roster.members.get(&holder).map(|it| it.mac);
        member.or_else(|| roster.unproved.get(&holder).map(|it| it.mac))
    };
    rosters.filter_map(move |(index, roster)| Some(((*index, address), mac(roster)?)))
}

/// What this node says of the address in its pulses.
fn stage(inputs: &Inputs<'_>, address: IpAddr, course: &Course) -> Option<Stage> {
    match course {
        Course::Holds => Some(Stage::Holds),
        Course::Grants { to } => Some(Stage::Grants { to: NodeTicket::of(to) }),
        // It goes on asking until it answers: a grant to a node that asks no more is taken back, and candidates that are
        // ranked behind it wait while it asks the link. Where another station is in its way they may try.
        Course::Takes(Acquisition::HandOver) | Course::Asks { .. } => Some(Stage::Asks),
        Course::Takes(Acquisition::FirstUse | Acquisition::TakeOver { .. }) => {
            let is_free = conflict(inputs, address).is_none_or(|(kind, _)| kind == ConflictKind::Contested);
            is_free.then_some(Stage::Asks)
        }
        Course::Watches { .. } | Course::Waits { .. } | Course::Nobody => None,
    }
}

/// Without pulses: whether another node than its owner is the best for an address of the Service now. Then the Service is to
/// be judged again.
pub fn is_outranked(inputs: &Inputs<'_>, key: &ObjectKey, decision: &Decision) -> bool {
    let Some(service) = inputs.world.services.get(key) else { return false };
    let Some(first) = decision.announcements.first().map(|it| it.address) else { return false };
    let endpoints = |address| match service.external_traffic_policy {
        TrafficPolicy::Local => inputs.world.endpoints(key, Family::of(address)),
        // Which nodes have endpoints counts for nothing.
        TrafficPolicy::Cluster => Endpoints::default(),
    };
    decision.announcements.iter().any(|announcement| {
        let Some(owner) = &announcement.l2.owner else { return false };
        let tenants = shared::services(inputs, key, service, announcement.address);
        let covering =
            covering(inputs.config, inputs.context, (&announcement.pool, announcement.address), tenants.clone());
        let rank_by = shared::rank_by(inputs, first, announcement.address);
        let own = endpoints(announcement.address);
        let endpoints = shared::endpoints(inputs, key, &own, announcement.address);
        let ranking = Ranking::of(
            (service, &endpoints),
            (&covering, Wishes::of(tenants, inputs.world)),
            inputs.me,
            None,
            rank_by,
        );
        ranking.winner(inputs.tickets) != Ok(owner)
    })
}

/// What is decided about one address.
struct Judged {
    verdict: L2Verdict,
    /// `None` where no `[[l2]]` covers it, or no node may answer whatever the nodes say.
    course: Option<Course>,
    /// Where this node answers for it, in a conflict too: the responder asks again until the conflict is over.
    answered_on: Option<Arc<BTreeSet<InterfaceName>>>,
    /// What this node gives itself for the address.
    weight: u32,
    cause: Option<Cause>,
    history: Option<History>,
    /// What this node does on the links, by their indices, where the address is held by itself.
    apart: Option<(Course, Vec<u32>)>,
    /// The links that this node goes on on, where it left others to a rival.
    goes_on_on: Option<Vec<u32>>,
}

impl Judged {
    fn refused(reason: Reason) -> Judged {
        let verdict = L2Verdict::refused(reason);
        let (course, answered_on, cause, history, apart, goes_on_on) = (None, None, None, None, None, None);
        Judged { verdict, course, answered_on, weight: 0, cause, history, apart, goes_on_on }
    }
}

fn judge_address<'a>(inputs: &Inputs<'a>, about: &Announceable<'_>, held: &Held, rank_by: IpAddr) -> Judged {
    let address = held.address;
    let tenants = shared::services(inputs, about.key, about.service, address);
    let covering = covering(inputs.config, inputs.context, (&held.pool, address), tenants.clone());
    if covering.is_empty() {
        return Judged::refused(Reason::NoL2ForPool { pool: held.pool.clone() });
    }
    let Announceable { key, service, .. } = about;
    let own = about.endpoints_of(address);
    let endpoints = &*shared::endpoints(inputs, key, own, address);
    if own.is_empty() && !endpoints.is_empty() {
        // Those that share the address with it announce it.
        return Judged::refused(Reason::NoEndpoints);
    }
    let near = rosters(inputs, &covering, address);
    let there = apart(inputs, &near, address);
    let names_there = names(inputs, there.keys());
    let is_there = |link: &InterfaceName| names_there.contains(link);
    let answering = inputs.world.answering.get(&address).filter(|_| inputs.answered.contains_key(&address));
    let answers_there = answering.is_some_and(|links| links.iter().any(is_there));
    let heard = speakers(inputs, &near, address);
    let others = heard.iter().find(|(_, member)| answers_for(member, address));
    // What it answered on a link by itself it gives back to the holder that is heard there again.
    let was_apart = inputs.holders.history(address).is_some_and(|history| history.apart.is_some());
    let answers = answering.is_some_and(|links| !links.iter().all(is_there)) && !(was_apart && others.is_some());
    let holder = if answers { Some(inputs.me) } else { others.map(|(node, _)| *node) };
    let ranking = Ranking::of(
        (service, endpoints),
        (&covering, Wishes::of(tenants.clone(), inputs.world)),
        inputs.me,
        holder,
        rank_by,
    );
    let unguarded = tenants.clone().find_map(|service| egress::unguarded(inputs, service));
    let own = unguarded.clone().map_or_else(|| ranking.own_bid(), Err);
    let own = own.and_then(|bid| link_for(&covering, inputs.me, address, rank_by).map(|_| bid));
    let weight = own.as_ref().map_or(0, |bid| bid.weight);
    let (mut beside, mut on_apart, mut goes_on_on) = (false, None, None::<Vec<u32>>);
    let (course, history) = if endpoints.is_empty() {
        (None, None)
    } else if inputs.world.pulses == Pulses::Off {
        let winner = ranking.winner(inputs.tickets);
        (Some(without_pulses(winner, own.as_ref().ok(), answers, inputs.me)), None)
    } else {
        let mut history = inputs.holders.history(address).cloned().unwrap_or_default();
        let unjudged = !inputs.world.data_path.is_judged();
        let situation = |near: &Rosters<'a>, speakers: &Speakers<'a>, history: &History, answers, last| {
            let may_be_deaf = |node: &NodeName| near.values().any(|it| it.may_be_deaf(node));
            Situation {
                me: inputs.me,
                rank_by,
                own: own.clone(),
                answers,
                unjudged,
                leaving: inputs.world.leaving,
                // A node with an endpoint keeps the address from others with one.
                sticky: covering.iter().any(|(l2, _)| l2.sticky) || ranking.is_near(inputs.me),
                may_ask_from: inputs
                    .holders
                    .may_ask_from(&covering, inputs.now)
                    .filter(|_| inputs.world.drain.is_none() && !unjudged),
                grants: inputs.holders.granting(),
                knows_all: knows_all(near),
                beside_the_deaf: near.values().any(|it| it.unproved.values().any(|it| it.deaf)),
                is_still_deaf: history.left_to_the_deaf().is_some_and(may_be_deaf),
                deaf_holder: deaf_holder(near, address),
                holders: holders(inputs, &ranking, speakers, address),
                askers: askers(speakers, address),
                askers_know_more: askers_know_more(inputs, speakers, address),
                last,
            }
        };
        let candidates = |near: &Rosters<'a>, last| candidates(inputs, &ranking, &covering, near, last, address);
        let last = inputs.holders.last_holder(address);
        history.ceded.take_if(|ceded| !is_ceded(inputs, &near, ceded, address));
        let goes_on = |history: &History| {
            let here = without(&near, history.ceded.as_ref()?);
            let speakers = speakers(inputs, &here, address);
            Some((here, speakers))
        };
        let mut on_some = goes_on(&history);
        let course = loop {
            let (here, heard) = on_some.as_ref().map_or((&near, &heard), |(here, heard)| (here, heard));
            let mut all = situation(here, heard, &history, answers, last);
            if on_some.is_none() {
                say_where(inputs, &near, address, &mut all.holders);
            }
            let course = history.decide(&all, || candidates(here, last), inputs.now);
            if on_some.is_none() && history.ceded.is_some() {
                // It leaves some of the links now.
                on_some = goes_on(&history);
                continue;
            }
            beside = course == Course::Holds && !all.holders.is_empty();
            break course;
        };
        history.ceded.take_if(|_| !matches!(course, Course::Holds | Course::Grants { .. }));
        goes_on_on = on_some.filter(|_| history.ceded.is_some()).map(|(here, _)| here.into_keys().collect());
        if let Course::Watches { holder } | Course::Asks { holder } = &course
            && was_apart
            && there.is_empty()
        {
            history.give_back(holder);
        }
        let elsewhere = matches!(&course, Course::Watches { .. } | Course::Asks { .. }) && !inputs.world.leaving;
        let mut past = history.apart.take().unwrap_or_default();
        if elsewhere && !there.is_empty() {
            let last = last_there(&there, address);
            let here = situation(&there, &speakers(inputs, &there, address), &past, answers_there, last);
            on_apart = Some(past.decide(&here, || candidates(&there, last), inputs.now));
            history.apart = Some(past);
        }
        (Some(course), Some(history))
    };
    let told = (&covering[..], &ranking);
    let (verdict, answered_on) = match (&course, unguarded) {
        // Without pulses no other node learns that it is to answer.
        (Some(Course::Nobody), Some(why)) => (L2Verdict::refused(why), None),
        (Some(Course::Watches { holder }), Some(why)) if holder == inputs.me => (L2Verdict::refused(why), None),
        (course, _) => match (course, &on_apart) {
            (
                Some(Course::Watches { holder } | Course::Asks { holder }),
                Some(Course::Holds | Course::Grants { .. } | Course::Takes(_)),
            ) => {
                let links = names_there.iter().cloned().collect();
                let reason = Reason::OwnerNotOnLinks { owner: holder.clone(), links };
                judge_answered(inputs, address, holder, Arc::new(names_there.clone()), reason)
            }
            (course, _) => of_course(inputs, told, course.as_ref(), history.as_ref(), (address, rank_by), beside),
        },
    };
    let answered_on = match (answered_on, &goes_on_on) {
        (Some(links), Some(goes_on_on)) => {
            let links = &*links & &names(inputs, goes_on_on.iter());
            (!links.is_empty()).then(|| Arc::new(links))
        }
        (answered_on, _) => answered_on,
    };
    let cause = cause(inputs, address, &verdict, &ranking);
    let apart = on_apart.map(|course| (course, there.keys().copied().collect()));
    Judged { verdict, course, answered_on, weight, cause, history, apart, goes_on_on }
}

/// What this node says and does of the address, by its course.
fn of_course(
    inputs: &Inputs<'_>,
    (covering, ranking): (&[(&L2, &L2Context)], &Ranking<'_>),
    course: Option<&Course>,
    history: Option<&History>,
    (address, rank_by): (IpAddr, IpAddr),
    beside: bool,
) -> (L2Verdict, Option<Arc<BTreeSet<InterfaceName>>>) {
    let watched = |owner: &NodeName| {
        let reason = Reason::OwnedBy { owner: owner.clone() };
        (L2Verdict { owner: Some(owner.clone()), announced: false, reason }, None)
    };
    match course {
        None => (L2Verdict::refused(Reason::NoEndpoints), None),
        Some(Course::Holds | Course::Grants { .. } | Course::Takes(_)) => {
            judge_own(inputs, covering, address, rank_by, beside)
        }
        Some(Course::Asks { holder } | Course::Watches { holder }) => watched(holder),
        // It has no link there: it hears neither who answers nor whether anybody does.
        Some(Course::Waits { first }) if covering.iter().all(|(_, context)| context.interfaces.is_empty()) => {
            let reason = ranking.refusal(inputs.me).unwrap_or_else(|| Reason::OwnedBy { owner: first.clone() });
            (L2Verdict { owner: Some(first.clone()), announced: false, reason }, None)
        }
        Some(Course::Waits { first }) if history.is_some_and(History::is_overdue) => {
            let reason = Reason::NotTaken { address, first: first.clone() };
            (L2Verdict { owner: Some(first.clone()), announced: false, reason }, None)
        }
        Some(Course::Waits { first }) => watched(first),
        Some(Course::Nobody) => (L2Verdict::refused(ranking.nobody()), None),
    }
}

/// Without pulses the API server names the node that is to answer, and the wire decides: it does not begin while another
/// node's station answers, and who answers goes on while it can.
fn without_pulses(winner: Result<&NodeName, Reason>, own: Option<&Bid>, answers: bool, me: &NodeName) -> Course {
    match winner {
        _ if answers && own.is_some() => Course::Holds,
        Ok(winner) if winner == me && own.is_some() => Course::Takes(Acquisition::FirstUse),
        Ok(winner) => Course::Watches { holder: winner.clone() },
        Err(_) => Course::Nobody,
    }
}

/// The rosters of links where this node would answer for an address, by the indices of the links.
type Rosters<'a> = BTreeMap<u32, &'a Roster>;

type Speakers<'a> = BTreeMap<&'a NodeName, &'a Member>;

/// The links of these indices.
fn names<'a>(inputs: &Inputs<'_>, indices: impl Iterator<Item = &'a u32>) -> BTreeSet<InterfaceName> {
    indices.filter_map(|index| inputs.world.links.get(index)).map(|link| link.name.clone()).collect()
}

fn rosters<'a>(inputs: &Inputs<'a>, covering: &[(&L2, &L2Context)], address: IpAddr) -> Rosters<'a> {
    covering.iter().flat_map(|(_, context)| context.rosters(address, inputs.world)).collect()
}

/// Those of the links that have lost the holder of the address, while it is heard on another: its cable is out there, or a switch cuts it
/// off. Clients there are answered by a node that is heard there.
///
/// A link where the holder was never heard has not lost it: a switch may keep the nodes there from hearing each other at all. And where
/// nobody is heard any more, it may be this node that hears nothing.
fn apart<'a>(inputs: &Inputs<'a>, near: &Rosters<'a>, address: IpAddr) -> Rosters<'a> {
    if near.len() < 2 {
        return Rosters::default();
    }
    let is_apart = |(index, roster): &(&u32, &&'a Roster)| {
        let answers = |member: &Member| answers_for(member, address);
        let elsewhere = || near.iter().filter(|(other, _)| other != index).map(|(_, roster)| roster);
        let is_holder = |node: &&NodeName| elsewhere().any(|it| it.members.get(*node).is_some_and(answers));
        let mut holders = inputs.holders.speakers(address).filter(is_holder).peekable();
        let is_gone = |node: &NodeName| {
            let is_heard = roster.members.contains_key(node) || roster.unproved.contains_key(node);
            !is_heard && (roster.silent.contains_key(node) || roster.left.contains_key(node))
        };
        let is_elsewhere = |node: &NodeName| elsewhere().any(|it| it.members.contains_key(node));
        let hears_nobody = roster.members.is_empty()
            || roster.silent.iter().any(|(node, departed)| departed.suspect && is_elsewhere(node));
        roster.settled && !hears_nobody && holders.peek().is_some() && holders.all(is_gone)
    };
    near.iter().filter(is_apart).map(|(index, roster)| (*index, *roster)).collect()
}

/// Whether what this node left to a rival on some links is that one's still: it says so, on no other link, and this node goes on on one.
fn is_ceded(inputs: &Inputs<'_>, near: &Rosters<'_>, ceded: &Ceded, address: IpAddr) -> bool {
    let heard = |on_these: bool| {
        let there = near.iter().filter(move |(index, _)| ceded.links.contains(index) == on_these);
        there.filter_map(|(_, roster)| roster.members.get(&ceded.node))
    };
    let says = |on_these| heard(on_these).any(|member| answers_for(member, address));
    let rests = inputs.now < ceded.rest && heard(true).next().is_some();
    let goes_on = near.keys().any(|index| !ceded.links.contains(index) && answers_on(inputs, *index, address));
    goes_on && !says(false) && (says(true) || rests)
}

/// The links where this node goes on.
fn without<'a>(near: &Rosters<'a>, ceded: &Ceded) -> Rosters<'a> {
    near.iter().filter(|(index, _)| !ceded.links.contains(index)).map(|(index, roster)| (*index, *roster)).collect()
}

/// How this node takes an address on the links that it had left to a rival.
fn regained(inputs: &Inputs<'_>, ceded: &Ceded) -> Acquisition {
    let is_there = |index: &u32| inputs.world.rosters.get(index).is_some_and(|it| it.members.contains_key(&ceded.node));
    match ceded.links.iter().any(is_there) {
        true => Acquisition::HandOver,
        false => Acquisition::TakeOver { from: ceded.node.clone(), suspect: false },
    }
}

/// This node answers for the address on the link.
fn answers_on(inputs: &Inputs<'_>, index: u32, address: IpAddr) -> bool {
    let name = inputs.world.links.get(&index).map(|link| &link.name);
    name.is_some_and(|name| inputs.world.answering.get(&address).is_some_and(|links| links.contains(name)))
}

/// Notes of the holders on which links they say so, where this node answers on others too.
fn say_where(inputs: &Inputs<'_>, near: &Rosters<'_>, address: IpAddr, holders: &mut [Holder<'_>]) {
    if near.len() < 2 {
        return;
    }
    for holder in holders {
        let says = |roster: &Roster| roster.members.get(holder.bidder.node).is_some_and(|it| answers_for(it, address));
        let (on, off): (Vec<u32>, Vec<u32>) =
            near.keys().partition(|index| near.get(*index).is_some_and(|it| says(it)));
        if off.iter().any(|index| answers_on(inputs, *index, address)) {
            holder.on_links = on.into_iter().collect();
        }
    }
}

/// Who held the address last on these links.
fn last_there<'a>(there: &Rosters<'a>, address: IpAddr) -> LastHolder<'a> {
    let mut silent = there.values().flat_map(|roster| &roster.silent);
    let found = silent.find(|(_, it)| it.holdings.contains_key(&address));
    found.map_or(LastHolder::Unknown, |(node, it)| LastHolder::Silent { node, suspect: it.suspect })
}

/// Of the agents on these links, those that say something of the address; of one that says different things, that it answers. A cluster has
/// many more nodes than that.
fn speakers<'a>(inputs: &Inputs<'a>, near: &Rosters<'a>, address: IpAddr) -> Speakers<'a> {
    let mut speakers = Speakers::new();
    for roster in near.values() {
        for (node, member) in inputs.holders.speakers(address).filter_map(|node| roster.members.get_key_value(node)) {
            let said = speakers.entry(node).or_insert(member);
            if !answers_for(said, address) {
                *said = member;
            }
        }
    }
    speakers
}

/// Every page of what the agents on these links hold was heard, and none of them has yet to answer that it is no recording: an
/// agent that was frozen reads all at once that others said meanwhile, and one of them may have started anew.
fn knows_all(near: &Rosters<'_>) -> bool {
    let is_known = |roster: &&Roster| {
        roster.members.values().all(|member| member.holdings_known) && !roster.unproved.values().any(|it| it.new)
    };
    near.values().all(is_known)
}

/// A node that says that it answers for the address, and does not hear this one.
fn deaf_holder<'a>(near: &Rosters<'a>, address: IpAddr) -> Option<&'a NodeName> {
    let mut unproved = near.values().flat_map(|roster| &roster.unproved);
    unproved.find(|(_, it)| it.holdings.contains_key(&address)).map(|(node, _)| node)
}

/// The other agents on these links.
fn members<'a>(near: &Rosters<'a>) -> BTreeMap<&'a NodeName, &'a Member> {
    near.values().rev().flat_map(|roster| &roster.members).collect()
}

fn holding(member: &Member, address: IpAddr) -> Option<Holding> {
    member.holdings.get(&address).copied()
}

/// The node says that it answers for the address.
fn answers_for(member: &Member, address: IpAddr) -> bool {
    holding(member, address).is_some_and(|it| it.stage.answers())
}

/// What the node says of the address, where it asks for it.
fn asking(member: &Member, address: IpAddr) -> Option<Holding> {
    holding(member, address).filter(|it| it.stage == Stage::Asks)
}

fn holders<'a>(
    inputs: &Inputs<'_>,
    ranking: &Ranking<'_>,
    members: &BTreeMap<&'a NodeName, &'a Member>,
    address: IpAddr,
) -> Vec<Holder<'a>> {
    let me = NodeTicket::of(inputs.me);
    let holder = |(node, member): (&&'a NodeName, &&'a Member)| {
        let holding = holding(member, address).filter(|it| it.stage.answers())?;
        // A holder with an eligibility that this version does not know keeps it only while no other node can serve.
        let grade = elect::grade(member.eligibility).unwrap_or(Grade::DataPathBad);
        Some(Holder {
            bidder: Bidder { node, bid: Bid { grade, weight: holding.weight } },
            grants_us: holding.stage == Stage::Grants { to: me },
            cannot_serve: ranking.cannot_serve(node),
            on_links: BTreeSet::new(),
        })
    };
    members.iter().filter_map(holder).collect()
}

fn askers<'a>(members: &BTreeMap<&'a NodeName, &'a Member>, address: IpAddr) -> Vec<Bidder<'a>> {
    // One that restarts takes nothing before it is back.
    let members = members.iter().filter(|(_, member)| !member.restarting);
    let asker = |(node, member): (&&'a NodeName, &&'a Member)| {
        let holding = asking(member, address)?;
        Some(Bidder { node, bid: Bid { grade: elect::grade(member.eligibility)?, weight: holding.weight } })
    };
    members.filter_map(asker).collect()
}

fn askers_know_more(inputs: &Inputs<'_>, members: &BTreeMap<&NodeName, &Member>, address: IpAddr) -> bool {
    matches!(inputs.world.api_server, ApiServer::Unreachable { .. })
        && members.values().any(|member| member.hears_api_server && asking(member, address).is_some())
}

/// The other nodes that could take the address; one that restarts takes nothing before it is back. Where no node is known to have held
/// it, nodes that still listen count too: agents that start together share the addresses at once, instead of moving them a moment later.
fn candidates<'a>(
    inputs: &Inputs<'_>,
    ranking: &'a Ranking<'_>,
    covering: &[(&L2, &L2Context)],
    near: &Rosters<'a>,
    last: LastHolder<'_>,
    address: IpAddr,
) -> Candidates<'a> {
    let members = members(near);
    let admitted = |node: &NodeName| {
        let subnets = members.get(node).map(|member| &member.card.subnets);
        subnets.is_none_or(|subnets| covering.iter().any(|(_, context)| context.admits(address, subnets)))
    };
    let mut known: Vec<Bidder<'a>> = ranking.others();
    if last == LastHolder::Unknown {
        let listening = members
            .iter()
            .filter(|(node, member)| member.eligibility == Eligibility::Listening && !ranking.cannot_serve(node));
        known.extend(listening.filter_map(|(node, member)| {
            let weights = covering.iter().filter_map(|(_, context)| context.weight_of(member));
            let weight = ranking.weighed(node, weights.reduce(u32::saturating_add)?);
            Some(Bidder { node, bid: Bid { grade: Grade::Eligible, weight } })
        }));
    }
    let restarts = |node: &NodeName| members.get(node).is_some_and(|member| member.restarting);
    // Without a link of its own this node hears nobody, and others answer there all the same.
    let is_there = |node: &NodeName| near.is_empty() || members.contains_key(node);
    known.retain(|it| admitted(it.node) && !restarts(it.node) && is_there(it.node));
    let is_unknown = |number: &L2Number| !inputs.context.l2.iter().any(|context| context.is_of(*number));
    let unsure = members.iter().filter(|(node, member)| {
        member.eligibility == Eligibility::Eligible
            && member.card.weights.keys().any(is_unknown)
            && !covering.iter().any(|(_, context)| context.weight_of(member).is_some())
            && admitted(node)
            && !member.restarting
            && !ranking.cannot_serve(node)
    });
    Candidates { known, unsure: unsure.map(|(node, _)| *node).collect() }
}

/// Where this node would answer for the address, or why nowhere.
fn link_for(
    covering: &[(&L2, &L2Context)],
    me: &NodeName,
    address: IpAddr,
    rank_by: IpAddr,
) -> Result<Arc<BTreeSet<InterfaceName>>, Reason> {
    let mine = covering.iter().filter(|(_, it)| it.electorate_for(rank_by).candidate(me).is_some());
    let mut interfaces: Vec<_> = mine.map(|(_, context)| context.interfaces_for(address)).collect();
    let interfaces = match interfaces.len() {
        1 => interfaces.swap_remove(0),
        _ => Arc::new(interfaces.iter().flat_map(|set| set.iter().cloned()).collect::<BTreeSet<_>>()),
    };
    if !interfaces.is_empty() {
        return Ok(interfaces);
    }
    if covering.iter().any(|(_, context)| !context.interfaces.is_empty()) {
        return Err(Reason::NoLinkInSubnet { address });
    }
    let wanted = covering.iter().map(|(l2, _)| describe_interfaces(l2)).collect::<Vec<_>>().join("; ");
    Err(Reason::NoInterface { wanted })
}

/// Of an address that this node holds or takes: whether it answers, and where. `beside`: another holder is heard.
fn judge_own(
    inputs: &Inputs<'_>,
    covering: &[(&L2, &L2Context)],
    address: IpAddr,
    rank_by: IpAddr,
    beside: bool,
) -> (L2Verdict, Option<Arc<BTreeSet<InterfaceName>>>) {
    let owned = |announced, reason| L2Verdict { owner: Some(inputs.me.clone()), announced, reason };
    // Where pulses are heard such a node takes nothing; without them the others cannot know.
    if let Some(reason) = data_path::not_seen(inputs) {
        return (owned(false, reason), None);
    }
    let before = inputs.answered.get(&address);
    let interfaces = match (link_for(covering, inputs.me, address, rank_by), before) {
        // It hands the address over, or has a rival on some link, and answers where it does now until then.
        (Err(_), Some(before)) => before.clone(),
        (Ok(_), Some(before)) if beside || inputs.world.leaving => before.clone(),
        (Ok(interfaces), _) => listened_on(inputs, interfaces, before),
        (Err(reason), None) => return (owned(false, reason), None),
    };
    judge_answered(inputs, address, inputs.me, interfaces, Reason::Announced)
}

/// Without the links that came back a moment ago: who holds the address there has yet to be heard.
fn listened_on(
    inputs: &Inputs<'_>,
    interfaces: Arc<BTreeSet<InterfaceName>>,
    before: Option<&Arc<BTreeSet<InterfaceName>>>,
) -> Arc<BTreeSet<InterfaceName>> {
    if interfaces.len() < 2 || inputs.world.pulses == Pulses::Off {
        return interfaces;
    }
    let index = |name: &InterfaceName| inputs.world.links.values().find(|it| it.name == *name).map(|it| it.index);
    let is_settled =
        |name: &InterfaceName| index(name).and_then(|it| inputs.world.rosters.get(&it)).is_some_and(|it| it.settled);
    let known = |name: &&InterfaceName| is_settled(name) || before.is_some_and(|it| it.contains(*name));
    let known: BTreeSet<InterfaceName> = interfaces.iter().filter(known).cloned().collect();
    if known.is_empty() || known.len() == interfaces.len() { interfaces } else { Arc::new(known) }
}

/// Of an address that this node answers for on these links: whether something is in the way.
fn judge_answered(
    inputs: &Inputs<'_>,
    address: IpAddr,
    owner: &NodeName,
    interfaces: Arc<BTreeSet<InterfaceName>>,
    reason: Reason,
) -> (L2Verdict, Option<Arc<BTreeSet<InterfaceName>>>) {
    let (announced, reason) = match conflict(inputs, address) {
        // Where the address is served on several links, it may be free on another link.
        Some((kind, reason)) => {
            (kind == ConflictKind::Contested || is_free_on_any(inputs, address, &interfaces), reason)
        }
        None => (true, reason),
    };
    (L2Verdict { owner: Some(owner.clone()), announced, reason }, Some(interfaces))
}

/// Why the address has another owner than before; `None` where it has the same.
fn cause(inputs: &Inputs<'_>, address: IpAddr, verdict: &L2Verdict, ranking: &Ranking<'_>) -> Option<Cause> {
    let before = inputs.placements.get(&address);
    if before.is_some_and(|before| before.owner == verdict.owner) {
        return None;
    }
    // A node that listens learns of the others one by one: it sees no moves.
    let listens = || ranking.refusal(inputs.me) == Some(Reason::NodeListening);
    // And when it has listened, others may have had it long since.
    let found_so = before.map_or(inputs.first_turn, |it| !it.witnessed && verdict.owner.as_ref() != Some(inputs.me));
    // It had the address before its agent restarted, and no move was seen since.
    let goes_on = || {
        let is_kept = inputs.holders.last_holder(address) == LastHolder::ThisNode;
        is_kept && verdict.owner.as_ref() == Some(inputs.me) && before.is_none_or(|before| before.last_move.is_none())
    };
    Some(match before.and_then(|before| before.owner.as_ref()) {
        _ if listens() || goes_on() => Cause::Learned,
        None if found_so => Cause::Learned,
        None => Cause::FirstUse,
        // No node may have it, the one that had it included.
        Some(_) if verdict.reason == Reason::NoEndpoints => Cause::OwnerRefused { reason: Reason::NoEndpoints },
        Some(owner) => {
            let rosters = inputs.world.rosters.values();
            let silence = rosters.filter_map(|roster| roster.silent.get(owner)).map(|departed| departed.unheard).max();
            Cause::of_refusal(ranking.refusal(owner), silence)
        }
    })
}

/// What is in the way of an address on a link of this node: the worst of it.
fn conflict(inputs: &Inputs<'_>, address: IpAddr) -> Option<(ConflictKind, Reason)> {
    let on_links = inputs.world.conflicts.get(&address)?;
    let (link, conflict) = on_links.iter().min_by_key(|(_, conflict)| conflict.kind == ConflictKind::Contested)?;
    let (link, mac) = (link.clone(), conflict.mac);
    let reason = match conflict.kind {
        ConflictKind::Occupied => Reason::AddressOccupied { address, link, mac },
        ConflictKind::AliveUnheard => Reason::OwnerStillAnswers { address, link, mac },
        ConflictKind::Contested => Reason::AddressContested { address, link, mac },
    };
    Some((conflict.kind, reason))
}

fn is_free_on_any(inputs: &Inputs<'_>, address: IpAddr, interfaces: &BTreeSet<InterfaceName>) -> bool {
    let conflicts = inputs.world.conflicts.get(&address);
    let on = |link: &InterfaceName| conflicts.and_then(|on_links| on_links.get(link));
    interfaces.iter().any(|link| on(link).is_none_or(|it| it.kind == ConflictKind::Contested))
}

impl L2Verdict {
    /// No node answers.
    fn refused(reason: Reason) -> L2Verdict {
        L2Verdict { owner: None, announced: false, reason }
    }
}
