//! Which node answers for the addresses of a Service on the link, and on which links this node does.
//! Floor 1. `plan::ranking` orders the nodes, `plan::holder` decides by what they say and by what went before; here the
//! situation is gathered and the outcome named with its reason.

mod courses;
mod heard;
mod parted;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use self::courses::{Case, Courses, Links};
use self::heard::names;
use self::parted::regained;
use super::{Announceable, Inputs, data_path, egress, shared};
use crate::address::{Family, MacAddress};
use crate::claim::{Acquisition, ConflictKind};
use crate::config::{L2, Subnet};
use crate::names::{InterfaceName, NodeName, ObjectKey};
use crate::path_state::Serving;
use crate::plan::context::L2Context;
use crate::plan::context::l2::describe_interfaces;
use crate::plan::context::nodes::labels_of;
use crate::plan::decision::{Decision, Held, L2Verdict};
use crate::plan::elect;
use crate::plan::holder::{Bid, Ceded, Course, History, LastHolder};
use crate::plan::placement::Cause;
use crate::plan::ranking::{Ranking, Wishes, covering};
use crate::plan::slice::Standby;
use crate::reason::{HostUse, Reason};
use crate::roster::{Holding, NodeTicket, Roster, Stage};
use crate::world::{DrainStage, Egress, Endpoints, Pulses, Service, TrafficPolicy};

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
    /// Without pulses: addresses that another node is to answer for, with where this one does if no node is found to, and its place in line.
    pub standbys: Vec<(IpAddr, Standby)>,
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
        let judged = judge_address(inputs, about, held, rank_by);
        answer.work.add(inputs, held.address, &judged);
        let Judged { verdict, cause, courses, .. } = judged;
        answer.histories.extend(courses.history.map(|history| (held.address, history)));
        answer.causes.extend(cause.map(|cause| (held.address, cause)));
        answer.verdicts.push(verdict);
    }
    answer
}

impl L2Work {
    /// What follows from the judgement of one address.
    fn add(&mut self, inputs: &Inputs<'_>, address: IpAddr, judged: &Judged) {
        let Judged {
            verdict,
            answered_on,
            standby,
            weight,
            courses,
            links_apart,
            unsure_apart,
            changes_hands,
            cause: _,
        } = judged;
        self.standbys.extend(standby.clone().map(|standby| (address, standby)));
        let Courses { course, apart, goes_on_on, history, beside: _ } = courses;
        self.owners.extend(verdict.owner.clone());
        let is_open = !matches!(course, Some(Course::Holds | Course::Watches { .. }));
        self.open |= is_open && !matches!(verdict.reason, Reason::NoEndpoints | Reason::NoL2ForPool { .. });
        // What a node is worth on such links the ranking of all does not say.
        self.open |= apart.is_some() || *unsure_apart;
        let says = |course: &Course| Some(Holding { weight: *weight, stage: stage(inputs, address, course)? });
        let said = course.as_ref().and_then(says);
        match goes_on_on {
            None => self.holdings.extend(said.map(|holding| (address, holding))),
            Some(links) => self.apart.extend(links.iter().filter_map(|link| Some(((*link, address), said?)))),
        }
        let said_apart = apart.as_ref().and_then(says);
        self.apart.extend(links_apart.iter().filter_map(|link| Some(((*link, address), said_apart?))));
        let taken = |course: &Course| acquisition(inputs, address, course, judged);
        self.acquisitions.extend(course.iter().chain(apart).filter_map(taken).map(|how| (address, how)));
        let assertions = history.as_ref().map_or(0, History::assertions);
        self.assertions.extend((answered_on.is_some() && assertions > 0).then_some((address, assertions)));
        // Whoever has it gives way about now: the link is asked at once.
        self.assertions.extend((answered_on.is_some() && *changes_hands).then_some((address, 1)));
        self.answers.extend(answered_on.iter().map(|links| (address, links.clone())));
        let Some(history) = history else { return };
        self.yields.extend(history.yielded_to().into_iter().flat_map(|holder| yields(inputs, address, holder)));
        if let Some(Ceded { node, links, rest: _ }) = &history.ceded {
            self.yields.extend(yields(inputs, address, node).filter(|((link, _), _)| links.contains(link)));
        }
    }
}

/// How this node takes what it does not answer for yet, on some link at least.
fn acquisition(inputs: &Inputs<'_>, address: IpAddr, course: &Course, judged: &Judged) -> Option<Acquisition> {
    let before = inputs.holders.history(address);
    match course {
        Course::Takes(acquisition) => Some(acquisition.clone()),
        // The rival had it on links where this node did not.
        Course::Holds
            if before.is_some_and(History::has_rival)
                && judged.answered_on.as_ref() != inputs.answered.get(&address) =>
        {
            Some(Acquisition::HandOver)
        }
        Course::Holds if judged.courses.goes_on_on.is_none() => {
            before?.ceded.as_ref().map(|ceded| regained(inputs, ceded))
        }
        Course::Holds
        | Course::Grants { .. }
        | Course::Asks { .. }
        | Course::Watches { .. }
        | Course::Waits { .. }
        | Course::Nobody => None,
    }
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
        Course::Takes(Acquisition::FirstUse | Acquisition::TakeOver { .. } | Acquisition::Standby { .. }) => {
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
            (announcement.address, rank_by),
        );
        ranking.winner(inputs.tickets) != Ok(owner)
    })
}

/// What is decided about one address.
struct Judged {
    verdict: L2Verdict,
    /// Where this node answers for it, in a conflict too: the responder asks again until the conflict is over.
    answered_on: Option<Arc<BTreeSet<InterfaceName>>>,
    standby: Option<Standby>,
    /// What this node gives itself for the address.
    weight: u32,
    cause: Option<Cause>,
    courses: Courses,
    /// The links where the address is held by itself, by their indices.
    links_apart: Vec<u32>,
    /// It may be so on one more.
    unsure_apart: bool,
    /// Without pulses: packets of pods leave with it, so it goes to the node that is the best for it.
    changes_hands: bool,
}

impl Judged {
    fn refused(reason: Reason) -> Judged {
        Judged {
            verdict: L2Verdict::refused(reason),
            answered_on: None,
            standby: None,
            weight: 0,
            cause: None,
            courses: Courses::default(),
            links_apart: Vec::new(),
            unsure_apart: false,
            changes_hands: false,
        }
    }
}

fn judge_address<'a>(inputs: &Inputs<'a>, about: &Announceable<'_>, held: &Held, rank_by: IpAddr) -> Judged {
    let address = held.address;
    let tenants = shared::services(inputs, about.key, about.service, address);
    let covering = covering(inputs.config, inputs.context, (&held.pool, address), tenants.clone());
    if covering.is_empty() {
        return Judged::refused(Reason::NoL2ForPool { pool: held.pool.clone() });
    }
    // Nothing is handed over.
    let refuse = |reason: Reason| {
        let cause = match inputs.placements.get(&address).map(|before| before.owner.is_some()) {
            None => Some(Cause::Learned),
            Some(false) => None,
            Some(true) => Some(Cause::OwnerRefused { reason: reason.clone() }),
        };
        Judged { cause, ..Judged::refused(reason) }
    };
    if let Some(reason) = gateway(inputs, &covering, address) {
        return refuse(reason);
    }
    let Announceable { key, service, .. } = about;
    let own = about.endpoints_of(address);
    let endpoints = &*shared::endpoints(inputs, key, own, address);
    if own.is_empty() && !endpoints.is_empty() {
        // Those that share the address with it announce it.
        return Judged::refused(Reason::NoEndpoints);
    }
    let links = Links::of(inputs, &covering, address);
    if let Some(reason) = links.gateway_of_others(inputs) {
        return refuse(reason);
    }
    let leads = |service: &Service| service.egress == Some(Egress::ServiceAddress);
    let is_heard_of = inputs.world.pulses != Pulses::Off;
    // Every node is to know by which one the packets of pods leave: the Nodes alone say so.
    let changes_hands = !is_heard_of && tenants.clone().any(leads);
    let ranking = Ranking::of(
        (service, endpoints),
        (&covering, Wishes::of(tenants.clone(), inputs.world)),
        inputs.me,
        links.holder(inputs.me).filter(|_| !changes_hands),
        (address, rank_by),
    );
    let unguarded = tenants.clone().find_map(|service| egress::unguarded(inputs, service));
    let own = unguarded.clone().map_or_else(|| ranking.own_bid(), Err);
    let own = own.and_then(|bid| link_for(&covering, inputs.me, address, rank_by).map(|_| bid));
    // No other node hears of the drain, so there is no one to hand over to: those that stand by find that nobody answers.
    let leaves = !is_heard_of && inputs.world.drain_stage() >= Some(DrainStage::HandingOver);
    let own = own.and_then(|bid| if leaves { Err(Reason::NodeDrained) } else { Ok(bid) });
    let weight = own.as_ref().map_or(0, |bid| bid.weight);
    let courses = if endpoints.is_empty() {
        Courses::default()
    } else if !is_heard_of {
        let winner = ranking.winner(inputs.tickets);
        let goes_on = links.answers && !(changes_hands && winner.as_ref().is_ok_and(|winner| *winner != inputs.me));
        let course = without_pulses(winner, own.as_ref().ok(), goes_on, inputs.me);
        Courses { course: Some(course), ..Courses::default() }
    } else {
        let (covering, ranking, own, links) = (&covering[..], &ranking, &own, &links);
        Case { inputs, address, rank_by, covering, ranking, own, links }.decide()
    };
    let (verdict, answered_on) = match (&courses.course, unguarded, &own) {
        (Some(Course::Nobody), Some(why), _) => (L2Verdict::refused(why), None),
        // Without pulses no other node learns that it is to answer.
        (Some(Course::Watches { holder }), Some(why), _) if holder == inputs.me => (L2Verdict::refused(why), None),
        (Some(Course::Watches { holder }), None, Err(why)) if holder == inputs.me => {
            (L2Verdict { owner: Some(holder.clone()), announced: false, reason: why.clone() }, None)
        }
        (Some(Course::Watches { holder } | Course::Asks { holder }), ..) if courses.answers_apart() => {
            let names = links.names_apart();
            let mut there = links.apart().filter_map(|index| inputs.world.rosters.get(&index)?.members.get(holder));
            let without_v6 = there.any(|member| member.is_without_v6(address));
            let (owner, names_apart) = (holder.clone(), names.iter().cloned().collect());
            let reason = Reason::OwnerNotOnLinks { owner, links: names_apart, without_v6 };
            judge_answered(inputs, address, holder, Arc::new(names.clone()), reason)
        }
        _ => of_course(inputs, (&covering, &ranking), &courses, (address, rank_by)),
    };
    let answered_on = match (answered_on, &courses.goes_on_on) {
        (Some(links), Some(goes_on_on)) => {
            let links = &*links & &names(inputs, goes_on_on.iter());
            (!links.is_empty()).then(|| Arc::new(links))
        }
        (answered_on, _) => answered_on,
    };
    let standby = match (&courses.course, &own) {
        (Some(Course::Watches { holder }), Ok(_)) if holder != inputs.me && !is_heard_of && !changes_hands => {
            standby(inputs, &covering, &ranking, (address, rank_by))
        }
        _ => None,
    };
    let cause = cause(inputs, address, &verdict, &ranking);
    let (links_apart, unsure_apart) = (links.apart().collect(), links.unsure_apart);
    Judged { verdict, answered_on, standby, weight, cause, links_apart, unsure_apart, changes_hands, courses }
}

/// The address is the next hop of a default route by a link where this node would answer for it, or was until a moment ago: whoever gave
/// it, hosts on the link would lose their gateway.
fn gateway(inputs: &Inputs<'_>, covering: &[(&L2, &L2Context)], address: IpAddr) -> Option<Reason> {
    let routes = inputs.world.default_routes.iter().filter(|route| route.gateway == Some(address));
    let by_routes = routes.filter_map(|route| inputs.world.links.get(&route.link)).map(|link| &link.name);
    let used = inputs.book.own_use(address).and_then(HostUse::gateway_of);
    let mut all = by_routes.chain(used).peekable();
    all.peek()?;
    let link = all.find(|link| covering.iter().any(|(_, it)| it.interfaces_for(address).contains(*link)))?;
    Some(Reason::GatewayOfLink { address, interface: link.clone(), node: None })
}

/// What this node says and does of the address, by its course.
fn of_course(
    inputs: &Inputs<'_>,
    (covering, ranking): (&[(&L2, &L2Context)], &Ranking<'_>),
    courses: &Courses,
    (address, rank_by): (IpAddr, IpAddr),
) -> (L2Verdict, Option<Arc<BTreeSet<InterfaceName>>>) {
    let watched = |owner: &NodeName| {
        let reason = Reason::OwnedBy { owner: owner.clone() };
        (L2Verdict { owner: Some(owner.clone()), announced: false, reason }, None)
    };
    let history = courses.history.as_ref();
    match &courses.course {
        None => (L2Verdict::refused(Reason::NoEndpoints), None),
        Some(Course::Holds | Course::Grants { .. } | Course::Takes(_)) => {
            judge_own(inputs, covering, address, rank_by, courses.beside)
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
        Some(Course::Nobody) => {
            // Others may answer on the link that it lacks.
            let reason = ranking.refusal(inputs.me).filter(|_| lacks_link(inputs, covering));
            (L2Verdict::refused(reason.unwrap_or_else(|| ranking.nobody())), None)
        }
    }
}

/// This node is one of those that the `[[l2]]` are for, and has no link there.
fn lacks_link(inputs: &Inputs<'_>, covering: &[(&L2, &L2Context)]) -> bool {
    let Some(labels) = labels_of(inputs.config, inputs.me, inputs.world) else { return false };
    covering.iter().all(|(_, context)| context.interfaces.is_empty())
        && covering.iter().any(|(l2, _)| elect::weight(l2, &labels).is_some())
}

/// Without pulses the API server names the node that is to answer, and the wire decides: it does not begin while another
/// node's station answers, and who answers goes on while it can, but for an address that packets of pods leave with.
fn without_pulses(winner: Result<&NodeName, Reason>, own: Option<&Bid>, goes_on: bool, me: &NodeName) -> Course {
    match winner {
        _ if goes_on && own.is_some() => Course::Holds,
        Ok(winner) if winner == me && own.is_some() => Course::Takes(Acquisition::FirstUse),
        Ok(winner) => Course::Watches { holder: winner.clone() },
        Err(_) => Course::Nobody,
    }
}

/// Without pulses nothing but the link tells whether the agent of the best node runs. The others stand by, each in its place.
fn standby(
    inputs: &Inputs<'_>,
    covering: &[(&L2, &L2Context)],
    ranking: &Ranking<'_>,
    (address, rank_by): (IpAddr, IpAddr),
) -> Option<Standby> {
    let serves = inputs.context.path.path.serving() == Serving::Yes;
    if !serves || inputs.world.leaving || inputs.world.drain.is_some() {
        return None;
    }
    let links = link_for(covering, inputs.me, address, rank_by).ok()?;
    let place = ranking.nodes().iter().take_while(|it| it.node != *inputs.me && it.score.is_ok()).count();
    Some(Standby { links, place: u32::try_from(place).unwrap_or(u32::MAX).max(1) })
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
        let without_v6 = || covering.iter().flat_map(|(_, context)| context.without_v6()).cloned().collect();
        let without_v4 = || {
            covering
                .iter()
                .flat_map(|(l2, context)| context.without_v4().filter(|_| l2.subnet == Subnet::Prefer))
                .cloned()
                .collect()
        };
        let links: Vec<InterfaceName> = if address.is_ipv6() { without_v6() } else { without_v4() };
        return Err(match (links.is_empty(), address.is_ipv6()) {
            (true, _) => Reason::NoLinkInSubnet { address },
            (false, true) => Reason::NoIpv6OnLink { address, links },
            (false, false) => Reason::NoIpv4OnLink { address, links },
        });
    }
    if let Some(reason) = covering.iter().find_map(|(_, context)| context.lacks_socket()) {
        return Err(reason);
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
    // Without a link it sees no move: that it hears of no owner says nothing of them.
    let blind = |owner: &NodeName| owner != inputs.me && verdict.owner.is_none() && verdict.reason.is_of_own_link();
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
        Some(owner) if blind(owner) => Cause::Learned,
        // It stood by, and by the API server that node is still to answer.
        Some(owner)
            if inputs.world.pulses == Pulses::Off
                && verdict.owner.as_ref() == Some(inputs.me)
                && ranking.winner(inputs.tickets) == Ok(owner) =>
        {
            Cause::OwnerNotAnswering
        }
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
        // As it is to be: the nodes agree about nothing but what the wire tells.
        ConflictKind::AliveUnheard if inputs.world.pulses == Pulses::Off => Reason::OwnerKeeps { address, link, mac },
        ConflictKind::AliveUnheard => Reason::OwnerStillAnswers { address, link, mac },
        ConflictKind::Contested => {
            let mut members = inputs.world.rosters.values().flat_map(|roster| &roster.members);
            let node = members.find(|(_, member)| member.mac == mac).map(|(node, _)| node.clone());
            Reason::AddressContested { address, link, mac, node }
        }
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
