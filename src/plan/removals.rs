//! Addresses that are to be taken from Services against their will: when that may happen. Floor 1.
//!
//! An address must go where no pool has it or serves the Service any more, or where two Services show it. That is first
//! told ([`NOTICE`] counts from the moment at which the API server has it, see [`Removals::note_said`]), and done only while the agents agree on the pools: an agent whose file is old, or new, takes nothing
//! away that the files of the others give. Silence is no agreement where the Lease names another file as the agreed one: then
//! another agent says the same as this one, or somebody confirms this file in the Lease. An address that this very file gave before goes by a change of objects, such as
//! the labels of a namespace, and needs no agreement.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;

use crate::names::{NodeName, ObjectKey};
use crate::roster::Member;
use crate::world::{Node, World};

/// How long an address stays after it was told that it goes.
pub const NOTICE: Duration = Duration::from_secs(3);

/// For how long nobody is told anything before an address goes that could not be told of. The Event writer gives up before that.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How long an agent allocates before it trusts its own file where nothing tells it what the files of the others say.
pub const TRUST: Duration = Duration::from_secs(600);

/// The Services that an address is to be taken from.
#[derive(Debug, Default)]
pub struct Removals {
    told: BTreeMap<ObjectKey, Told>,
    /// The Services whose addresses this agent, as the one who allocates, found right.
    accepted: BTreeSet<ObjectKey>,
    /// Those whose notice is not over yet.
    due: BTreeSet<(Instant, ObjectKey)>,
    /// Those of which the status writer says that they were told, until the next turn.
    newly_said: Vec<ObjectKey>,
    /// When a Service was told last.
    last_said: Option<Instant>,
    agreed: bool,
    /// All agents have this agent's file, whatever they say.
    presumed: bool,
    /// The Lease names another file as the one that was agreed on, and so did it when this agent took it with its file.
    contested: bool,
    /// Somebody wrote this agent's file into the Lease as the one that is agreed on, after it had named another one.
    confirmed: bool,
    /// Nothing of the ConfigMap that the file names is in use.
    lacks_config_map: bool,
    /// No time is waited for any more.
    waited: bool,
    /// Of the Lease of this agent's crier. Agents of another one have pools of their own, and no voice.
    lease: Option<u64>,
    /// Since when this agent allocates by its file.
    leads_since: Option<Instant>,
    /// What decides in the file, while this agent allocates.
    digest: Option<u64>,
    /// It read another file since it began to allocate.
    reloaded: bool,
    /// Since when this agent has seen these Nodes not Ready.
    not_ready: BTreeMap<NodeName, Instant>,
    /// The Nodes that this was last worked out of.
    nodes: OrdMap<NodeName, Arc<Node>>,
}

/// What the addresses that are to go wait for, where the agents do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For what the agents say, and then this agent trusts its own file.
    Until(Instant),
    /// For another agent with this agent's file, or for somebody who confirms it in the Lease, which names another one.
    Confirmation,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    /// When it was decided.
    at: Instant,
    /// When the API server had it.
    said: Option<Instant>,
    /// Its place in [`Removals::due`].
    due: Instant,
    /// The address was right by this agent's file before.
    by_objects: bool,
}

impl Removals {
    /// Of the crier whose Lease has this digest.
    pub fn of_crier(lease: Option<u64>) -> Removals {
        Removals { lease, ..Removals::default() }
    }

    /// Where all agents have the same file.
    pub fn agreed() -> Removals {
        Removals { presumed: true, ..Removals::default() }
    }

    /// Takes in what the agents say of their files; true if that decides otherwise than before.
    pub fn renew(&mut self, world: &World, me: &NodeName, digest: u64, now: Instant) -> bool {
        self.note_nodes(world, now);
        let is_other = self.digest.is_some_and(|before| before != digest);
        if !world.allocates || is_other {
            // What was right by the former file says nothing of this one.
            self.accepted.clear();
            self.told.values_mut().for_each(|told| told.by_objects = false);
            self.leads_since = None;
            (self.contested, self.confirmed) = (false, false);
        }
        self.reloaded = world.allocates && (self.reloaded || is_other);
        self.digest = world.allocates.then_some(digest);
        if world.allocates {
            self.leads_since.get_or_insert(now);
        }
        let contested = world.allocates && world.lease.agreed.is_some_and(|agreed| agreed != digest);
        // This agent itself writes there only what it found agreed.
        let is_confirmed_now = self.contested && !self.agreed && world.lease.agreed == Some(digest);
        self.confirmed = !contested && (self.confirmed || is_confirmed_now);
        self.contested = contested;
        self.waited = self.leads_since.is_some_and(|since| now >= since + TRUST);
        let trusted = self.confirmed || (self.waited && (!contested || is_confirmed(world, me, digest, self.lease)));
        // The Lease may tell of another file than the one that was read since.
        let is_of_this = world.lease.digest.is_none_or(|of| of == digest);
        let inherited = world.lease.inherited && is_of_this && !self.reloaded;
        let lacks_config_map = world.lacks_config_map() && !self.presumed;
        let agreed = world.allocates
            && !lacks_config_map
            && (self.presumed || self.agree(world, me, digest, trusted || inherited, now));
        let is_news = (self.agreed, self.lacks_config_map) != (agreed, lacks_config_map);
        (self.agreed, self.lacks_config_map) = (agreed, lacks_config_map);
        is_news
    }

    fn note_nodes(&mut self, world: &World, now: Instant) {
        if self.nodes.ptr_eq(&world.nodes) {
            return;
        }
        self.nodes = world.nodes.clone();
        self.not_ready.retain(|name, _| world.nodes.get(name).is_some_and(|node| !node.ready));
        for (name, _) in world.nodes.iter().filter(|(_, node)| !node.ready) {
            if !self.not_ready.contains_key(name) {
                self.not_ready.insert(name.clone(), now);
            }
        }
    }

    /// Whether the others decide by the same file: no agent with another one is heard, and every Node is heard with this one. A Node that
    /// is not Ready is away, with a file that nobody knows; for [`TRUST`], and for as long as no other agent confirms this file, it counts.
    /// `trusted`: the holder before had the file, or this one has had it for so long, which stands in where that cannot be known.
    fn agree(&self, world: &World, me: &NodeName, digest: u64, trusted: bool, now: Instant) -> bool {
        let is_confirmed = is_confirmed(world, me, digest, self.lease);
        let is_gone = |name: &NodeName| self.not_ready.get(name).is_some_and(|since| now >= *since + TRUST);
        let is_lacking = |name: &&NodeName| !(is_confirmed && is_gone(name));
        others(world, digest, self.lease).next().is_none()
            && (trusted || !unheard(world, me).any(|name| is_lacking(&name)))
    }

    /// The digest that the agents agree on, as far as this one, which allocates, knows.
    pub fn agreed_digest(&self) -> Option<u64> {
        self.digest.filter(|_| self.agreed)
    }

    /// Agents are heard that go by another file than this one, which allocates, or may: their silence is no agreement.
    pub fn is_contradicted(&self, world: &World) -> bool {
        let is_open = || world.allocates && !self.agreed;
        let is_heard = |digest| others(world, digest, self.lease).next().is_some();
        self.digest.is_some_and(|digest| !self.presumed && (is_heard(digest) || is_open()))
    }

    /// Whether the Service was told long enough that an address goes, and the agents agree.
    pub fn may_go(&self, service: &ObjectKey, now: Instant) -> bool {
        self.told
            .get(service)
            .is_some_and(|told| now >= self.over_at(told) && !self.lacks_config_map && (self.agreed || told.by_objects))
    }

    /// When the notice is over: that of a Service that was not told yet moves on while others are.
    fn over_at(&self, told: &Told) -> Instant {
        match told.said {
            Some(said) => said + NOTICE,
            None => self.last_said.map_or(told.at, |last| last.max(told.at)) + SILENCE,
        }
    }

    /// The API server has taken what tells that an address of the Service goes, or never will. It counts from the next turn on.
    pub fn note_said(&mut self, service: &ObjectKey) {
        self.newly_said.push(service.clone());
    }

    fn begin_notices(&mut self, now: Instant) {
        for service in std::mem::take(&mut self.newly_said) {
            let Some(told) = self.told.get_mut(&service).filter(|told| told.said.is_none()) else { continue };
            self.due.remove(&(told.due, service.clone()));
            (told.said, told.due) = (Some(now), now + NOTICE);
            self.due.insert((told.due, service));
            self.last_said = Some(now);
        }
    }

    /// This agent, as the one who allocates, finds the addresses of the Service right.
    pub fn accept(&mut self, service: &ObjectKey) {
        self.accepted.insert(service.clone());
    }

    pub fn is_accepted(&self, service: &ObjectKey) -> bool {
        self.accepted.contains(service)
    }

    pub fn forget(&mut self, service: &ObjectKey, now: Instant) {
        self.put(service, false, now);
        self.accepted.remove(service);
    }

    /// An address of the Service is to go, or none is any more.
    pub fn put(&mut self, service: &ObjectKey, goes: bool, now: Instant) {
        match (goes, self.told.get(service)) {
            (true, None) => {
                let by_objects = self.accepted.contains(service);
                let mut told = Told { at: now, said: None, due: now, by_objects };
                told.due = self.over_at(&told);
                self.due.insert((told.due, service.clone()));
                self.told.insert(service.clone(), told);
            }
            (false, Some(told)) => {
                self.due.remove(&(told.due, service.clone()));
                self.told.remove(service);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The Services whose notice is over.
    pub fn take_due(&mut self, now: Instant) -> Vec<ObjectKey> {
        self.begin_notices(now);
        let mut over = Vec::new();
        while let Some((at, service)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, service));
                break;
            }
            let over_at = self.told.get(&service).map(|told| self.over_at(told));
            match (over_at, self.told.get_mut(&service)) {
                (Some(later), Some(told)) if later > now => {
                    told.due = later;
                    self.due.insert((later, service));
                }
                (Some(_) | None, _) => over.push(service),
            }
        }
        over
    }

    /// All Services that an address is to be taken from.
    pub fn told(&self) -> impl Iterator<Item = &ObjectKey> {
        self.told.keys()
    }

    /// What addresses wait for that stay because the agents do not agree.
    pub fn wait(&self) -> Option<Wait> {
        let since = self.leads_since.filter(|_| !self.agreed && !self.told.is_empty())?;
        Some(if self.contested { Wait::Confirmation } else { Wait::Until(since + TRUST) })
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        // Who hears an agent with this file may trust it then, although the Lease names another one.
        let trusts_at = self.leads_since.filter(|_| self.wait().is_some() && !self.waited).map(|since| since + TRUST);
        self.due.first().map(|(at, _)| *at).into_iter().chain(trusts_at).min()
    }
}

/// The agents of this crier, whose Lease has that digest, that are heard with another file.
pub fn others(world: &World, digest: u64, lease: Option<u64>) -> impl Iterator<Item = &NodeName> {
    voters(world, lease).filter(move |(_, it)| says(it).is_some_and(|other| other != digest)).map(|(node, _)| node)
}

/// Another agent is heard with this file.
fn is_confirmed(world: &World, me: &NodeName, digest: u64, lease: Option<u64>) -> bool {
    voters(world, lease).any(|(node, member)| node != me && says(member) == Some(digest))
}

fn voters(world: &World, lease: Option<u64>) -> impl Iterator<Item = (&NodeName, &Member)> {
    let members = world.rosters.values().flat_map(|roster| &roster.members);
    members.filter(move |(_, member)| !member.card.is_of_other_crier(lease))
}

/// The Nodes that could run an agent, Ready or not, and none is heard that says by which file it decides.
pub fn unheard<'a>(world: &'a World, me: &'a NodeName) -> impl Iterator<Item = &'a NodeName> {
    let is_heard = |node: &NodeName| {
        let mut heard = world.rosters.values().filter_map(|roster| roster.members.get(node));
        heard.any(|member| says(member).is_some())
    };
    world.nodes.keys().filter(move |name| *name != me && !is_heard(name))
}

/// An agent that was just heard has not said it yet.
fn says(member: &Member) -> Option<u64> {
    Some(member.card.allocation_digest).filter(|digest| *digest != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::roster::Card;

    /// The API server has what tells it.
    fn say(removals: &mut Removals, service: &ObjectKey, now: Instant) {
        removals.note_said(service);
        removals.take_due(now);
    }

    /// Input: the Events of many Services need longer than the notice, and one cannot be written. Output: each notice begins
    /// when it was told; who could not be told waits while others are, and a minute longer.
    #[test]
    fn a_notice_begins_when_it_was_told_and_who_cannot_be_told_waits_for_a_bounded_time() {
        let (mut removals, now) = (Removals { agreed: true, ..Removals::default() }, clock::now());
        let [early, late, never] = ["early", "late", "never"].map(|name| ObjectKey::new("shop", name));
        let sec = Duration::from_secs(1);
        [&early, &late, &never].into_iter().for_each(|key| removals.put(key, true, now));
        say(&mut removals, &early, now + sec);
        assert_eq!(removals.next_deadline(), Some(now + sec + NOTICE));
        assert_eq!(removals.take_due(now + sec + NOTICE), std::slice::from_ref(&early));
        assert!(removals.may_go(&early, now + sec + NOTICE) && !removals.may_go(&late, now + SILENCE));
        say(&mut removals, &late, now + sec * 40);
        assert!(!removals.may_go(&late, now + sec * 42) && removals.may_go(&late, now + sec * 43));
        say(&mut removals, &late, now + sec * 50);
        assert!(removals.take_due(now + sec * 50).is_empty(), "once is enough, and its notice is over");
        assert!(removals.take_due(now + SILENCE).is_empty() && !removals.may_go(&never, now + SILENCE));
        let at_last = now + sec * 40 + SILENCE;
        assert_eq!(removals.next_deadline(), Some(at_last));
        assert_eq!(removals.take_due(at_last), std::slice::from_ref(&never));
        assert!(removals.may_go(&never, at_last));
        removals.put(&never, false, at_last);
        removals.put(&never, true, at_last);
        assert!(!removals.may_go(&never, at_last + NOTICE), "it is another time");
    }

    #[test]
    fn an_address_goes_after_its_notice_and_only_while_the_agents_agree() {
        let (mut removals, now, key) = (Removals::default(), clock::now(), ObjectKey::new("shop", "web"));
        let mut world = World::default();
        world.allocates = true;
        world.nodes.insert("b".into(), Arc::new(Node { ready: true, ..node() }));
        assert!(!removals.renew(&world, &"a".into(), 1, now), "nothing tells what b's file says");
        removals.put(&key, true, now);
        say(&mut removals, &key, now);
        assert_eq!(removals.next_deadline(), Some(now + NOTICE));
        assert!(removals.take_due(now).is_empty());
        assert_eq!(removals.take_due(now + NOTICE), std::slice::from_ref(&key));
        assert!(!removals.may_go(&key, now + NOTICE), "no agreement");
        assert_eq!(removals.next_deadline(), Some(now + TRUST));
        assert!(removals.renew(&world, &"a".into(), 1, now + TRUST));
        assert!(removals.may_go(&key, now + TRUST));
        world.allocates = false;
        assert!(removals.renew(&world, &"a".into(), 1, now + TRUST), "who does not lead takes nothing");
        removals.put(&key, false, now);
        assert_eq!((removals.told().count(), removals.next_deadline()), (0, None));
    }

    #[test]
    fn a_holder_that_took_over_from_its_equal_or_is_alone_agrees_with_itself() {
        let mut world = World::default();
        world.allocates = true;
        let (mut removals, now) = (Removals::default(), clock::now());
        assert!(removals.renew(&world, &"a".into(), 1, now), "there is no other Node");
        world.nodes.insert("b".into(), Arc::new(node()));
        assert!(removals.renew(&world, &"a".into(), 1, now));
        assert_eq!(removals.agreed_digest(), None);
        world.lease.inherited = true;
        assert!(removals.renew(&world, &"a".into(), 1, now), "it agrees now");
    }

    /// Input: an agent that starts without its state while the ConfigMap that its file names is gone, or refused. Output: for
    /// as long as that is so, it takes nothing away, however alone it is and however long it waits, and writes no agreed digest.
    #[test]
    fn without_the_text_of_the_config_map_nothing_goes() {
        use crate::world::ClusterConfig;
        let (me, now, key) = (NodeName::from("a"), clock::now(), ObjectKey::new("shop", "web"));
        let mut world = World::default();
        (world.allocates, world.lease.inherited) = (true, true);
        let mut removals = Removals::default();
        removals.accept(&key);
        removals.put(&key, true, now);
        say(&mut removals, &key, now);
        let later = now + TRUST;
        for state in [ClusterConfig::Missing, ClusterConfig::Refused { why: "no".into() }] {
            world.cluster_config = state;
            removals.renew(&world, &me, 1, now);
            removals.renew(&world, &me, 1, later);
            assert!(!removals.may_go(&key, later));
            assert_eq!(removals.agreed_digest(), None);
        }
        world.cluster_texts = Arc::new(vec![("pools".to_owned(), String::new())]);
        assert!(removals.renew(&world, &me, 1, later), "the last good text is in use");
        assert!(removals.may_go(&key, later));
        (world.cluster_config, world.cluster_texts) = (ClusterConfig::Current, Arc::default());
        removals.renew(&world, &me, 1, later);
        assert!(removals.may_go(&key, later), "a ConfigMap without a text says nothing, and that is known");
    }

    /// Input: the other Nodes of two or three are not Ready (a reboot, a partition, the API server was away), and the
    /// holder reads another file. Output: silence is no agreement; one that is dead for long is none to wait for, where another agent
    /// says the same.
    #[test]
    fn nodes_that_are_not_ready_agree_to_nothing() {
        let (me, now) = (NodeName::from("a"), clock::now());
        let put = |world: &mut World, name: &str, ready| {
            world.nodes.insert(name.into(), Arc::new(Node { ready, ..node() }));
        };
        let says = |world: &mut World, digest| {
            let card = Card { allocation_digest: digest, ..Card::default() };
            let member = Member { card: Arc::new(card), ..crate::plan::stations::tests::member() };
            Arc::make_mut(world.rosters.entry(2).or_default()).members.insert("b".into(), member);
        };
        let mut world = World::default();
        world.allocates = true;
        ["a", "b", "c"].iter().for_each(|name| put(&mut world, name, true));
        world.lease.inherited = true;
        let mut removals = Removals::default();
        let mut agreed = |world: &World, digest, after| {
            removals.renew(world, &me, digest, now + after);
            removals.agreed_digest()
        };
        assert_eq!(agreed(&world, 1, Duration::ZERO), Some(1));
        ["b", "c"].iter().for_each(|name| put(&mut world, name, false));
        let sec = Duration::from_secs(1);
        assert_eq!(agreed(&world, 2, sec), None, "nobody else has said so");
        assert_eq!(agreed(&world, 2, TRUST), None);
        assert_eq!(agreed(&world, 2, sec + TRUST), Some(2), "not for ever");
        // Both are dead for long, and nobody confirms the next file.
        assert_eq!(agreed(&world, 3, TRUST * 3), None);
        put(&mut world, "b", true);
        says(&mut world, 3);
        assert_eq!(agreed(&world, 3, TRUST * 3 + sec), Some(3), "c is dead, b says the same");
        says(&mut world, 4);
        assert_eq!(agreed(&world, 3, TRUST * 3 + sec), None);
        assert_eq!(agreed(&world, 4, TRUST * 3 + sec), Some(4), "at once");
        // c was back meanwhile, so nobody knows its file.
        put(&mut world, "c", true);
        says(&mut world, 5);
        assert_eq!(agreed(&world, 5, TRUST * 4), None);
        put(&mut world, "c", false);
        assert_eq!(agreed(&world, 5, TRUST * 4 + sec), None);
        world.nodes.remove(&NodeName::from("c"));
        assert_eq!(agreed(&world, 5, TRUST * 4 + sec), Some(5), "its Node is deleted");
    }

    /// Input: Nodes without an agent, so silence for good, and a file that was rolled out to all agents; then another agent is heard with
    /// the former file. Output: the agents that are there decide, once time has passed; nobody waits in a circle.
    #[test]
    fn another_agent_with_the_same_file_confirms_it_against_the_lease() {
        let (mut removals, now, key) = (Removals::default(), clock::now(), ObjectKey::new("shop", "web"));
        let mut world = World::default();
        (world.allocates, world.lease.agreed) = (true, Some(1));
        ["a", "b", "c"].iter().for_each(|name| drop(world.nodes.insert((*name).into(), Arc::new(node()))));
        let says = |world: &mut World, digest| {
            let card = Card { allocation_digest: digest, ..Card::default() };
            let member = Member { card: Arc::new(card), ..crate::plan::stations::tests::member() };
            Arc::make_mut(world.rosters.entry(2).or_default()).members.insert("b".into(), member);
        };
        let agreed = |removals: &mut Removals, world: &World, after| {
            removals.renew(world, &"a".into(), 2, now + after);
            (removals.agreed_digest(), removals.wait())
        };
        says(&mut world, 1);
        removals.put(&key, true, now);
        say(&mut removals, &key, now);
        assert_eq!(agreed(&mut removals, &world, Duration::ZERO), (None, Some(Wait::Confirmation)));
        removals.take_due(now + NOTICE);
        assert_eq!(agreed(&mut removals, &world, TRUST), (None, Some(Wait::Confirmation)));
        assert_eq!(removals.next_deadline(), None, "nothing comes by time");
        says(&mut world, 2);
        assert_eq!(agreed(&mut removals, &world, TRUST), (Some(2), None));
    }

    /// Input: the agents of another crier of the cluster, with other pools by design, are heard by the same key. Output:
    /// they have no voice, and their Nodes are none that one waits for; an agent that does not say whose it is has one.
    #[test]
    fn agents_of_another_crier_have_no_voice() {
        let hears = |lease| {
            let mut world = World::default();
            world.allocates = true;
            ["a", "b"].iter().for_each(|name| drop(world.nodes.insert((*name).into(), Arc::new(node()))));
            let card = Card { allocation_digest: 2, lease, ..Card::default() };
            let member = Member { card: Arc::new(card), ..crate::plan::stations::tests::member() };
            Arc::make_mut(world.rosters.entry(2).or_default()).members.insert("b".into(), member);
            let mut removals = Removals::of_crier(Some(7));
            removals.renew(&world, &"a".into(), 1, clock::now());
            removals.agreed_digest()
        };
        assert_eq!(hears(Some(8)), Some(1));
        assert_eq!((hears(Some(7)), hears(None)), (None, None));
    }

    /// The first node of a rollout, or a slip of the operator: the others still have the former file.
    #[test]
    fn a_holder_that_reads_another_file_takes_nothing_that_it_found_right_by_the_former_one() {
        let (mut removals, now, key) = (Removals::default(), clock::now(), ObjectKey::new("shop", "web"));
        let mut world = World::default();
        (world.allocates, world.lease.inherited) = (true, true);
        world.nodes.insert("b".into(), Arc::new(node()));
        removals.renew(&world, &"a".into(), 1, now);
        removals.accept(&key);
        removals.put(&key, true, now);
        say(&mut removals, &key, now);
        assert!(removals.may_go(&key, now + NOTICE), "by a change of objects");
        removals.renew(&world, &"a".into(), 2, now);
        assert!(!removals.may_go(&key, now + NOTICE), "it was told, and now the file is another");
        removals.put(&key, false, now);
        removals.put(&key, true, now);
        say(&mut removals, &key, now);
        assert!(!removals.may_go(&key, now + TRUST - NOTICE));
        removals.renew(&world, &"a".into(), 2, now + TRUST);
        assert!(removals.may_go(&key, now + TRUST), "nobody was heard with another one");
        // The former file is back, and the file of another holder after that.
        removals.renew(&world, &"a".into(), 1, now + TRUST);
        assert!(!removals.may_go(&key, now + TRUST + NOTICE));
        world.allocates = false;
        removals.renew(&world, &"a".into(), 1, now + TRUST);
        world.allocates = true;
        removals.renew(&world, &"a".into(), 1, now + TRUST);
        assert!(removals.may_go(&key, now + TRUST + NOTICE), "it was agreed on before");
        assert_eq!(removals.agreed_digest(), Some(1));
        removals.renew(&world, &"a".into(), 2, now + TRUST);
        assert_eq!(removals.agreed_digest(), None, "a file that was read is no agreement");
        // What the Lease says concerns the file with which it was taken.
        world.allocates = false;
        removals.renew(&world, &"a".into(), 2, now + TRUST);
        (world.allocates, world.lease.digest) = (true, Some(1));
        removals.renew(&world, &"a".into(), 2, now + TRUST);
        assert_eq!(removals.agreed_digest(), None);
    }

    fn node() -> Node {
        Node { ready: true, ..Node::default() }
    }
}
