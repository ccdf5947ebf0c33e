//! Stories from seeds: what may happen to a town, one kind of trouble at a time or all at once.

use std::time::Duration;

use crier::address::Family;
use fastrand::Rng;

use crate::story::{Deed, FileText, Station, Story};

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Agents are killed and started again.
    Crash,
    /// Agents are stopped cleanly, and started again later.
    Stop,
    Restart,
    Reboot,
    Freeze,
    /// The switches lose each other, and find each other again.
    Split,
    /// An agent does not hear another that hears it.
    OneWay,
    /// A host's firewall drops pulses.
    Firewall,
    /// Switches forward no multicast of a family.
    Prune,
    /// Carrier goes and comes, and the switch forwards only later.
    Carrier,
    /// Another preference, node by node.
    Rollout,
    /// Another key, node by node.
    Keys,
    /// Policy Local, and an API server seen by some.
    Api,
    /// A station that answers every probe.
    Proxy,
    /// A foreign host uses an address.
    Foreign,
    /// kube-proxy loses its rules, or comes late after a reboot.
    Path,
    /// Frames are lost.
    Loss,
}

impl Trouble {
    pub const ALL: [Trouble; 17] = [
        Trouble::Crash,
        Trouble::Stop,
        Trouble::Restart,
        Trouble::Reboot,
        Trouble::Freeze,
        Trouble::Split,
        Trouble::OneWay,
        Trouble::Firewall,
        Trouble::Prune,
        Trouble::Carrier,
        Trouble::Rollout,
        Trouble::Keys,
        Trouble::Api,
        Trouble::Proxy,
        Trouble::Foreign,
        Trouble::Path,
        Trouble::Loss,
    ];
}

/// The story of a seed, with trouble of these kinds. One town in forty is large.
pub fn story(seed: u64, troubles: &[Trouble]) -> Story {
    let random = &mut Rng::with_seed(seed);
    let agents = if seed % 40 == 39 { random.usize(10..=50) } else { random.usize(3..=6) };
    let addresses = random.usize(2..=8);
    let mut story = Story::new(seed, agents, addresses);
    story.about = vec![format!("seed {seed}")];
    // What a story has from its beginning belongs to the kinds that may happen in it.
    let kinds = random.usize(1..=3.min(troubles.len()));
    let mut chosen: Vec<Trouble> = (0..kinds).map(|_| troubles[random.usize(0..troubles.len())]).collect();
    chosen.sort();
    chosen.dedup();
    story.local = chosen.contains(&Trouble::Api);
    if chosen.contains(&Trouble::Loss) {
        story.loss = random.u8(2..=20);
    }
    if chosen.contains(&Trouble::Rollout) {
        let prefers = |random: &mut Rng| {
            let name = crate::story::name(random.usize(0..agents), agents);
            format!("preference = [{{ nodes = \"kubernetes.io/hostname={name}\", weight = 100 }}]")
        };
        story.files = [prefers(random), prefers(random)].map(|l2| FileText { l2, key: 1, old_keys: Vec::new() }).into();
    }
    if chosen.contains(&Trouble::Keys) {
        let last = story.files.last().cloned();
        story.files.extend(last.map(|file| FileText { key: 2, old_keys: vec![1], ..file }));
    }
    let mut at = millis(random, 3500..6000);
    for _ in 0..random.usize(2..=6) {
        let trouble = chosen[random.usize(0..chosen.len())];
        let deeds = deeds(trouble, &story, random);
        story.deeds.extend(deeds.into_iter().map(|(after, deed)| (at + after, deed)));
        at += millis(random, 300..7000);
    }
    story.deeds.sort_by_key(|(at, _)| *at);
    let last = story.deeds.last().map_or(at, |(at, _)| *at);
    story.ends = last + Duration::from_secs(12);
    story
}

/// One trouble, with its end.
fn deeds(trouble: Trouble, story: &Story, random: &mut Rng) -> Vec<(Duration, Deed)> {
    let who = random.usize(0..story.agents);
    let address = random.usize(0..story.addresses);
    let later = millis(random, 300..10_000);
    let now = Duration::ZERO;
    match trouble {
        Trouble::Crash => vec![(now, Deed::Kill(who)), (later, Deed::Start(who))],
        Trouble::Stop => vec![(now, Deed::Stop(who)), (later, Deed::Start(who))],
        Trouble::Restart => vec![(now, Deed::Restart(who, None))],
        Trouble::Reboot => vec![(now, Deed::Reboot { station: who, down: later, path: Duration::ZERO })],
        Trouble::Freeze => vec![(now, Deed::Freeze(who, millis(random, 50..1000)))],
        Trouble::Split => {
            let mut parts = vec![Vec::new(), Vec::new()];
            // The agents, the client, the router and the foreign station.
            (0..story.agents + 3).for_each(|station| parts[random.usize(0..2)].push(station));
            vec![(now, Deed::Split(parts)), (later, Deed::Heal)]
        }
        Trouble::OneWay => {
            let from = (who + random.usize(1..story.agents)) % story.agents;
            let deafen = |deaf| Deed::Deafen { to: who, from, deaf };
            vec![(now, deafen(true)), (later, deafen(false))]
        }
        Trouble::Firewall => {
            let (inward, outward) = [(true, false), (false, true), (true, true)][random.usize(0..3)];
            let open = Deed::Firewall { station: who, inward: false, outward: false };
            vec![(now, Deed::Firewall { station: who, inward, outward }), (later, open)]
        }
        Trouble::Prune => {
            let family = if random.bool() { Family::V6 } else { Family::V4 };
            vec![(now, Deed::Prune(family, true)), (later, Deed::Prune(family, false))]
        }
        Trouble::Carrier => {
            vec![(now, Deed::Unplug(who)), (later, Deed::Plug(who, millis(random, 0..4000)))]
        }
        Trouble::Rollout => node_by_node(story, 1, random),
        Trouble::Keys => node_by_node(story, story.files.len() - 1, random),
        Trouble::Api => vec![
            (now, Deed::Api(who, false)),
            (later / 2, Deed::Endpoint { address, to: random.usize(0..story.agents) }),
            (later, Deed::Api(who, true)),
        ],
        Trouble::Proxy => vec![(now, Deed::Proxy(true)), (later, Deed::Proxy(false))],
        Trouble::Foreign => vec![(now, Deed::Foreign(Some(address))), (later, Deed::Foreign(None))],
        Trouble::Path if random.bool() => vec![(now, Deed::Path(who, false)), (later, Deed::Path(who, true))],
        Trouble::Path => {
            let path = millis(random, 1000..15_000);
            vec![(now, Deed::Reboot { station: who, down: later, path })]
        }
        // It is there from the beginning.
        Trouble::Loss => vec![(now, Deed::Kill(who)), (later, Deed::Start(who))],
    }
}

/// Every node is restarted with this file, one after the other.
fn node_by_node(story: &Story, file: usize, random: &mut Rng) -> Vec<(Duration, Deed)> {
    let mut order: Vec<Station> = (0..story.agents).collect();
    random.shuffle(&mut order);
    let mut at = Duration::ZERO;
    let mut deeds = Vec::new();
    for who in order {
        deeds.push((at, Deed::Restart(who, Some(file))));
        at += millis(random, 1000..6000);
    }
    deeds
}

fn millis(random: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}
