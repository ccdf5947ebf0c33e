//! What went before with each address on the link: the history of this node with it, and who held it last.
//! Floor 1, an organ of the planner. It remembers and decides nothing. What it keeps is bounded by the addresses that are
//! announced, and by what nodes said that they held when they went.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::ordmap::DiffItem;

use crate::config::L2;
use crate::names::NodeName;
use crate::path_state::Serving;
use crate::plan::context::L2Context;
use crate::plan::holder::{Grade, History, LastHolder};
use crate::roster::{Departed, Eligibility, Holding, Holdings, Member, Roster};
use crate::world::{ApiServer, DrainStage, World};

/// How long the API server must not have been heard before this node's view counts as stale. Watches are opened anew within
/// a second or two when the API server restarts.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct HolderMemory {
    histories: BTreeMap<IpAddr, History>,
    /// How many of these say that this node grants the address to another one.
    granting: u32,
    /// The nodes that addresses were left to because they do not hear this one, with these addresses.
    doubts: BTreeMap<NodeName, BTreeSet<IpAddr>>,
    /// The deadlines of the histories.
    due: BTreeSet<(Instant, IpAddr)>,
    last_holders: BTreeMap<IpAddr, (NodeName, Departure)>,
    /// The addresses that this node held until its agent restarted, and does not answer for yet.
    kept: BTreeSet<IpAddr>,
    /// The nodes that say something of an address, each with the index of the link where it does.
    speakers: BTreeMap<IpAddr, BTreeSet<(u32, NodeName)>>,
    /// Since when this node may hold addresses: it has listened long enough, and nothing else forbids it.
    eligible_since: Option<Instant>,
    /// Since when this node has not heard the API server.
    unheard_since: Option<Instant>,
    /// This agent has heard it. Until then, all that it knows is from before its start.
    has_heard: bool,
    /// Several nodes are silent, and one of them fell silent since the last turn.
    may_have_split: bool,
    /// When what this node holds is to be announced once more, because the link may have split.
    assert_due: Option<Instant>,
    /// When the view becomes stale, while that lies ahead.
    stale_due: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Departure {
    Silent { suspect: bool },
    Left,
}

/// What a roster says that the one before did not.
#[derive(Debug, Default)]
pub struct RosterChange {
    /// Addresses about which a node says something else, or whose holder went.
    pub addresses: BTreeSet<IpAddr>,
    /// Nodes that came or went, or say something else of themselves.
    pub nodes: BTreeSet<NodeName>,
    /// This node's own listening on the link ended or began.
    pub own: bool,
    /// A node that was silent is heard again, or the first one after none was: whatever this node holds, others may have held
    /// meanwhile.
    pub returned: bool,
}

impl HolderMemory {
    pub fn history(&self, address: IpAddr) -> Option<&History> {
        self.histories.get(&address)
    }

    /// How many addresses this node grants to others now.
    pub fn granting(&self) -> u32 {
        self.granting
    }

    /// The nodes of which this one has to know whether they hear it: addresses were left to them because they do not.
    pub fn doubted(&self) -> impl Iterator<Item = &NodeName> {
        self.doubts.keys()
    }

    /// Who held an address last that no living node holds.
    pub fn last_holder(&self, address: IpAddr) -> LastHolder<'_> {
        match self.last_holders.get(&address) {
            _ if self.kept.contains(&address) => LastHolder::ThisNode,
            Some((node, Departure::Silent { suspect })) => LastHolder::Silent { node, suspect: *suspect },
            Some((_, Departure::Left)) => LastHolder::Left,
            None => LastHolder::Unknown,
        }
    }

    /// This node held these addresses until its agent restarted. The addresses that this says something new of.
    pub fn keep(&mut self, addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let before = std::mem::replace(&mut self.kept, addresses.clone());
        before.symmetric_difference(addresses).copied().collect()
    }

    /// What of it this node is to have again.
    pub fn kept(&self) -> &BTreeSet<IpAddr> {
        &self.kept
    }

    /// This node does not go on with what it is not about to take. That is answered.
    pub fn release_kept(&mut self) -> BTreeSet<IpAddr> {
        let HolderMemory { kept, histories, .. } = self;
        let goes_on = |address: &IpAddr| histories.get(address).is_some_and(History::is_to_take);
        let (stay, released) = std::mem::take(kept).into_iter().partition(goes_on);
        *kept = stay;
        released
    }

    /// From when on this node may ask a holder for an address: it has been eligible for the longest `preempt-delay` of the
    /// `[[l2]]` that cover the address. `None` while it is not eligible, and while its view is stale: then it asks no node, even
    /// where all views are stale, because the holder may have seen more before the API server went away.
    pub fn may_ask_from(&self, covering: &[(&L2, &L2Context)], now: Instant) -> Option<Instant> {
        let delay = covering.iter().map(|(l2, _)| l2.preempt_delay).max().unwrap_or_default();
        self.eligible_since.filter(|_| !self.is_stale(now)).map(|since| since + delay)
    }

    /// This node has not heard the API server for some time, or not at all since its start.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.unheard_since.is_some_and(|since| since + self.patience() <= now)
    }

    fn patience(&self) -> Duration {
        if self.has_heard { STALE_AFTER } else { Duration::ZERO }
    }

    /// Takes note of a roster on its way into the World.
    pub fn note_roster(&mut self, link: u32, before: Option<&Roster>, after: Option<&Roster>) -> RosterChange {
        let nothing = Roster::default();
        let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
        let mut change = RosterChange { own: before.settled != after.settled, ..RosterChange::default() };
        for (node, was) in before.members.iter().filter(|(node, _)| !after.members.contains_key(*node)) {
            change.nodes.insert(node.clone());
            change.addresses.extend(
                was.holdings.keys().chain(&was.card.gateways).chain(was.over_bgp.iter().flat_map(|it| it.iter())),
            );
            was.holdings.keys().for_each(|address| self.note_silence(*address, link, node));
        }
        self.note_departed(before, after, &mut change);
        change.returned = before.settled && before.members.is_empty() && !after.members.is_empty();
        note_unproved(before, after, &mut change);
        let hears_otherwise = |node: &NodeName| before.may_be_deaf(node) != after.may_be_deaf(node);
        for (_, addresses) in self.doubts.iter().filter(|(node, _)| hears_otherwise(node)) {
            change.addresses.extend(addresses);
        }
        for (node, is) in &after.members {
            let was = before.members.get(node);
            note_member(node, was, is, &mut change);
            change.returned |= before.silent.contains_key(node);
            self.note_holdings(link, node, was, is, &mut change);
        }
        change
    }

    /// Who fell silent or left, and who is back from that.
    fn note_departed(&mut self, before: &Roster, after: &Roster, change: &mut RosterChange) {
        // A node that starts again is neither gone nor a member until it has proved that it lives.
        let gone_before = before.left.keys().chain(before.silent.keys());
        let returning = gone_before.filter(|node| !after.left.contains_key(*node) && !after.silent.contains_key(*node));
        change.nodes.extend(returning.cloned());
        let departed = |of: fn(&Roster) -> &BTreeMap<NodeName, Departed>| {
            of(after).iter().filter(move |(node, _)| !of(before).contains_key(*node))
        };
        // It held something else in a life that this node was not heard in, or was not this node's fault after all.
        let otherwise = |(node, is): &(&NodeName, &Departed)| {
            let was = before.silent.get(*node);
            was.is_some_and(|was| was.suspect != is.suspect || was.holdings != is.holdings)
        };
        for (node, departed) in after.silent.iter().filter(otherwise) {
            self.note_departure(node, departed, Departure::Silent { suspect: departed.suspect }, change);
        }
        for (node, departed) in departed(|roster| &roster.silent) {
            self.note_departure(node, departed, Departure::Silent { suspect: departed.suspect }, change);
            // The link may have split, with neighbours on this side that believe a node of the other. Where all fell silent at once
            // it may be this node that does not hear: then frames that nobody needs would only be in the way.
            let may_hear = !after.members.is_empty() || !departed.suspect;
            self.may_have_split |= after.silent.len() > 1 && may_hear;
        }
        for (node, departed) in departed(|roster| &roster.left) {
            self.note_departure(node, departed, Departure::Left, change);
        }
        let has_gone = |(node, is): &(&NodeName, &Departed)| {
            let was = before.left.get(*node);
            was.is_some_and(|was| was.just_left != is.just_left)
        };
        change.nodes.extend(after.left.iter().filter(has_gone).map(|(node, _)| node.clone()));
    }

    /// What a member holds otherwise than before.
    fn note_holdings(
        &mut self,
        link: u32,
        node: &NodeName,
        was: Option<&Member>,
        is: &Member,
        change: &mut RosterChange,
    ) {
        let unsaid = Default::default();
        for item in was.map_or(&unsaid, |was| &was.holdings).diff(&is.holdings) {
            match item {
                DiffItem::Add(address, holding) | DiffItem::Update { new: (address, holding), .. } => {
                    change.addresses.insert(*address);
                    self.speakers.entry(*address).or_default().insert((link, node.clone()));
                    if holding.stage.answers() {
                        self.last_holders.remove(address);
                        self.kept.remove(address);
                    }
                }
                DiffItem::Remove(address, Holding { stage, weight: _ }) => {
                    change.addresses.insert(*address);
                    self.note_silence(*address, link, node);
                    // It is back, and does not have it again, or not in time.
                    if stage.answers() && was.is_some_and(|was| was.restarting) {
                        self.note_last_holder(*address, node, Departure::Silent { suspect: false });
                    }
                }
            }
        }
    }

    /// A node says nothing of an address any more.
    fn note_silence(&mut self, address: IpAddr, link: u32, node: &NodeName) {
        if let Some(speakers) = self.speakers.get_mut(&address) {
            speakers.remove(&(link, node.clone()));
            if speakers.is_empty() {
                self.speakers.remove(&address);
            }
        }
    }

    /// The nodes that say something of an address, on whatever link; one that does on two is named twice.
    pub fn speakers_on_links(&self, address: IpAddr) -> impl Iterator<Item = &(u32, NodeName)> {
        self.speakers.get(&address).into_iter().flatten()
    }

    /// The same wherever that is.
    pub fn speakers(&self, address: IpAddr) -> impl Iterator<Item = &NodeName> {
        self.speakers.get(&address).into_iter().flatten().map(|(_, node)| node)
    }

    fn note_departure(&mut self, node: &NodeName, departed: &Departed, how: Departure, change: &mut RosterChange) {
        change.nodes.insert(node.clone());
        for (address, _) in departed.holdings.iter().filter(|(_, holding)| holding.stage.answers()) {
            change.addresses.insert(*address);
            self.note_last_holder(*address, node, how);
        }
    }

    fn note_last_holder(&mut self, address: IpAddr, node: &NodeName, how: Departure) {
        if self.last_holders.len() < MOST_LAST_HOLDERS || self.last_holders.contains_key(&address) {
            self.last_holders.insert(address, (node.clone(), how));
        }
    }

    /// Whether what this node holds is to be announced once more now, because the link may have split a moment ago: the
    /// addresses of the silent nodes are taken over first.
    pub fn take_assert_due(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.may_have_split) {
            self.assert_due.get_or_insert(now + ASSERT_AFTER);
        }
        self.assert_due.take_if(|due| *due <= now).is_some()
    }

    /// What this node holds is to be announced once more.
    pub fn assert_all(&mut self, held: impl Iterator<Item = IpAddr>) {
        for address in held {
            if let Some(history) = self.histories.get_mut(&address) {
                history.assert();
            }
        }
    }

    /// This node answers for an address: the holder before is of no interest any more.
    pub fn note_answered(&mut self, address: IpAddr) {
        self.last_holders.remove(&address);
        self.kept.remove(&address);
    }

    /// Keeps what a verdict says of an address.
    pub fn put(&mut self, address: IpAddr, history: History) {
        self.forget(address);
        self.due.extend(history.next_deadline().map(|due| (due, address)));
        self.granting += u32::from(history.is_granting());
        if let Some(node) = history.left_to_the_deaf() {
            self.doubts.entry(node.clone()).or_default().insert(address);
        }
        self.histories.insert(address, history);
    }

    /// The address is announced on no link any more.
    pub fn forget(&mut self, address: IpAddr) {
        let Some(before) = self.histories.remove(&address) else { return };
        self.granting -= u32::from(before.is_granting());
        if let Some(node) = before.left_to_the_deaf()
            && let Some(addresses) = self.doubts.get_mut(node)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.doubts.remove(node);
            }
        }
        if let Some(due) = before.next_deadline() {
            self.due.remove(&(due, address));
        }
    }

    /// The addresses that are to be decided anew although nothing was heard.
    pub fn take_due(&mut self, now: Instant) -> Vec<IpAddr> {
        let due: Vec<_> = self.due.iter().take_while(|(due, _)| *due <= now).copied().collect();
        for it in &due {
            self.due.remove(it);
        }
        due.into_iter().map(|(_, address)| address).collect()
    }

    /// Takes note of what this node says of itself: since when it is eligible.
    pub fn note_eligibility(&mut self, world: &World, eligibility: Option<Eligibility>, now: Instant) {
        let settled = world.rosters.values().any(|roster| roster.settled);
        let eligible = settled && eligibility == Some(Eligibility::Eligible);
        self.eligible_since = eligible.then(|| self.eligible_since.unwrap_or(now));
    }

    /// Takes note of the time: since when this node has not heard the API server.
    pub fn note_time(&mut self, world: &World, now: Instant) {
        let unheard = matches!(world.api_server, ApiServer::Unreachable { .. });
        self.unheard_since = unheard.then(|| self.unheard_since.unwrap_or(now));
        self.has_heard |= world.api_server == ApiServer::Reachable;
        let patience = self.patience();
        self.stale_due = self.unheard_since.map(|since| since + patience).filter(|due| *due > now);
    }

    /// How good this node is: by its data path, and by what it knows of the cluster. Its view is stale while it has not heard the API server for some time and
    /// another agent does. Where no agent hears it, all are as good as before, so that nothing moves.
    pub fn grade(&self, world: &World, now: Instant) -> Grade {
        if world.drain_stage() >= Some(DrainStage::HandingOver) {
            return Grade::Draining;
        }
        if world.data_path.serving() == Serving::Lost {
            return Grade::DataPathBad;
        }
        let others = || world.rosters.values().flat_map(|roster| roster.members.values());
        if self.is_stale(now) && others().any(|member| member.hears_api_server) {
            Grade::ViewStale
        } else {
            Grade::Eligible
        }
    }

    /// When [`HolderMemory::take_due`] or [`HolderMemory::grade`] may answer otherwise.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due).into_iter().chain(self.stale_due).chain(self.assert_due).min()
    }
}

/// What a node that has not proved yet that it lives says otherwise than before.
fn note_unproved(before: &Roster, after: &Roster, change: &mut RosterChange) {
    for (node, is) in &after.unproved {
        let was = before.unproved.get(node);
        change.addresses.extend(changed(was.map(|was| &was.holdings), &is.holdings));
        let unsaid = Arc::default();
        change.addresses.extend(was.map_or(&unsaid, |was| &was.egress).symmetric_difference(&is.egress));
        // What nobody holds waits for it no longer, or its station is to be listened to otherwise.
        if was.is_some_and(|was| was.new && !is.new) || was.is_some_and(|was| was.deaf) != is.deaf {
            change.nodes.insert(node.clone());
        }
    }
    for (_, was) in before.unproved.iter().filter(|(node, _)| !after.unproved.contains_key(*node)) {
        change.addresses.extend(was.holdings.keys().chain(was.egress.iter()));
    }
}

/// What a member says of itself otherwise than before, what it holds apart.
fn note_member(node: &NodeName, was: Option<&Member>, is: &Member, change: &mut RosterChange) {
    let same = was.is_some_and(|was| {
        (was.eligibility, was.hears_api_server, was.holdings_known, was.mac)
            == (is.eligibility, is.hears_api_server, is.holdings_known, is.mac)
            && (was.restarting, was.waits) == (is.restarting, is.waits)
            && was.over_bgp.is_some() == is.over_bgp.is_some()
            && was.sessions == is.sessions
            && was.card == is.card
            && was.other_macs == is.other_macs
    });
    if !same {
        change.nodes.insert(node.clone());
        // Whether their holders listen to it may be another matter now: one that restarts is granted nothing.
        let asks = is.holdings.iter().filter(|(_, holding)| !holding.stage.answers());
        change.addresses.extend(asks.map(|(address, _)| *address));
        change.addresses.extend(is.over_bgp.iter().flat_map(|it| it.iter()));
    }
    let over_bgp = |member: &Member| member.over_bgp.clone().unwrap_or_default();
    let (told, tells) = (was.map(over_bgp).unwrap_or_default(), over_bgp(is));
    if !Arc::ptr_eq(&told, &tells) {
        change.addresses.extend(told.symmetric_difference(&tells));
    }
    if let Some(was) = was {
        change.addresses.extend(was.occupied.symmetric_difference(&is.occupied));
        change.addresses.extend(was.card.gateways.symmetric_difference(&is.card.gateways));
    } else {
        change.addresses.extend(is.occupied.iter().chain(&is.card.gateways));
    }
    let egress = |member: &Member| member.egress.clone().unwrap_or_default();
    if was.is_some_and(|was| was.deaf != is.deaf) {
        change.addresses.extend(egress(is).iter());
    }
    match was {
        Some(was) if was.egress == is.egress => {}
        Some(was) if was.egress.is_some() && is.egress.is_some() => {
            change.addresses.extend(egress(was).symmetric_difference(&egress(is)));
        }
        // That it says so at all is news of all that it holds.
        Some(_) | None => change.addresses.extend(egress(is).iter().chain(is.holdings.keys())),
    }
}

/// The addresses of which a node says something else.
fn changed<'a>(was: Option<&'a Holdings>, is: &'a Holdings) -> Vec<IpAddr> {
    let unsaid = Holdings::default();
    let items = was.unwrap_or(&unsaid).diff(is);
    let address = |item| match item {
        DiffItem::Add(address, _) | DiffItem::Update { new: (address, _), .. } | DiffItem::Remove(address, _) => {
            *address
        }
    };
    items.map(address).collect()
}

/// How long after nodes fell silent what this node holds is announced once more.
const ASSERT_AFTER: Duration = Duration::from_millis(500);

/// How many addresses of nodes that went are remembered at most.
const MOST_LAST_HOLDERS: usize = 1 << 16;
