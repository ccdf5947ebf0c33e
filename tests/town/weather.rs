//! Stories from seeds: what may happen to a town, one kind of trouble at a time or all at once.

use std::time::Duration;

use crier::address::Family;
use fastrand::Rng;

use crate::story::{Deed, FileText, RESTART_PAUSE, Station, Story, Version};

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Agents are killed and started again.
    Crash,
    /// The same, and they are back before or just after the others notice.
    QuickReturn,
    /// Agents are stopped cleanly, and started again later.
    Stop,
    Restart,
    Reboot,
    Freeze,
    /// The switches lose each other, and find each other again.
    Split,
    /// An agent does not hear another that hears it.
    OneWay,
    /// A node receives no frame of anybody; what it sends passes.
    Numb,
    /// A host's firewall drops pulses.
    Firewall,
    /// Switches forward no multicast of a family.
    Prune,
    /// Carrier goes and comes, and the switch forwards only later.
    Carrier,
    /// Another preference, node by node.
    Rollout,
    /// Another preference that running agents read, node by node.
    Reload,
    /// Another file that asks nothing to move, read by running agents node by node.
    ReloadOfNoConsequence,
    /// Another key, node by node.
    Keys,
    /// Another key that running agents read, node by node.
    ReloadKeys,
    /// Nodes are drained, and take part again.
    Drain,
    /// An operator chooses the node for an address.
    Move,
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
    /// Frames are late, and overtake each other, while operators go on with their work.
    Slow,
    /// An agent stands still, for a moment or for long, while it hands an address over or takes one.
    FrozenHandOver,
    /// Pulses are filtered for good, and the switches lose each other for long.
    FilteredForGood,
    /// Another version of crier, node by node: one that says and reads less, or one that says more.
    Versions,
    /// Another program flushes all rules of nftables, once or again and again.
    Flush,
    /// The annotation of a Service with egress goes and comes.
    Annotation,
    /// A Service with egress is deleted, and made anew.
    Recreation,
    /// Another pod has the address of a pod with egress.
    Tenants,
}

impl Trouble {
    pub const ALL: [Trouble; 23] = [
        Trouble::Crash,
        Trouble::QuickReturn,
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
        Trouble::Reload,
        Trouble::ReloadOfNoConsequence,
        Trouble::Keys,
        Trouble::ReloadKeys,
        Trouble::Drain,
        Trouble::Move,
        Trouble::Api,
        Trouble::Proxy,
        Trouble::Foreign,
        Trouble::Path,
        Trouble::Loss,
    ];

    /// What came after the stories of the first ten thousand seeds were told.
    pub const LATER: [Trouble; 4] =
        [Trouble::Slow, Trouble::FrozenHandOver, Trouble::FilteredForGood, Trouble::Versions];

    /// What befalls what pods send, in towns with egress.
    pub const OF_EGRESS: [Trouble; 4] = [Trouble::Flush, Trouble::Annotation, Trouble::Recreation, Trouble::Tenants];

    /// What operators do. Clients notice nothing of it.
    pub const PLANNED: [Trouble; 9] = [
        Trouble::Stop,
        Trouble::Restart,
        Trouble::Rollout,
        Trouble::Reload,
        Trouble::ReloadOfNoConsequence,
        Trouble::Keys,
        Trouble::ReloadKeys,
        Trouble::Drain,
        Trouble::Move,
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
    story.files = files(&chosen, agents, random);
    let mut at = millis(random, 3500..6000);
    for _ in 0..random.usize(2..=6) {
        let trouble = chosen[random.usize(0..chosen.len())];
        let deeds = deeds(trouble, &story, random);
        story.deeds.extend(deeds.into_iter().map(|(after, deed)| (at + after, deed)));
        at += millis(random, 300..7000);
    }
    story.deeds.sort_by_key(|(at, _)| *at);
    let last = story.deeds.last().map_or(at, |(at, _)| *at);
    let calm = if chosen.contains(&Trouble::FilteredForGood) { 40 } else { 14 };
    story.ends = last + Duration::from_secs(calm);
    story
}

/// The same, but that nobody takes filters back: they last for most of the story.
pub fn filtered_for_good(story: Story) -> Story {
    let takes_back = |deed: &Deed| match deed {
        Deed::Firewall { inward, outward, .. } => !inward && !outward,
        Deed::Prune(_, pruned) => !pruned,
        Deed::Deafen { deaf, .. } => !deaf,
        Deed::Numb(_, numb) => !numb,
        _ => false,
    };
    let deeds: Vec<_> = story.deeds.into_iter().filter(|(_, deed)| !takes_back(deed)).collect();
    let ends = story.ends + Duration::from_secs(30);
    Story { deeds, ends, ..story }
}

/// The story of a seed in a town with egress: each befalls it together with what befalls all towns.
pub fn story_with_egress(seed: u64, troubles: &[Trouble]) -> Story {
    let mut story = story(seed, troubles);
    let random = &mut Rng::with_seed(!seed);
    story.egress = random.usize(1..=story.addresses.min(3));
    story.old_kernel = random.bool();
    let mut at = millis(random, 3500..6000);
    for _ in 0..random.usize(2..=5) {
        let trouble = Trouble::OF_EGRESS[random.usize(0..Trouble::OF_EGRESS.len())];
        let deeds = deeds(trouble, &story, random);
        story.deeds.extend(deeds.into_iter().map(|(after, deed)| (at + after, deed)));
        at += millis(random, 300..7000);
    }
    story.deeds.sort_by_key(|(at, _)| *at);
    let last = story.deeds.last().map_or(at, |(at, _)| *at);
    story.ends = story.ends.max(last + Duration::from_secs(14));
    story
}

/// A day of flaps in a small town: trouble of any kind every half a minute, and calm at the end of each hour.
pub fn day(seed: u64) -> Story {
    let random = &mut Rng::with_seed(seed);
    let mut story = Story::new(seed, 3, 6);
    story.interval = Duration::from_secs(1);
    story.files = files(&[Trouble::Reload, Trouble::ReloadOfNoConsequence, Trouble::ReloadKeys], story.agents, random);
    for hour in 0..24 {
        let begins = Duration::from_secs(3600 * hour);
        let mut at = begins + Duration::from_secs(60);
        while at < begins + Duration::from_secs(3000) {
            let trouble = Trouble::ALL[random.usize(0..Trouble::ALL.len())];
            let deeds = deeds(trouble, &story, random);
            story.deeds.extend(deeds.into_iter().map(|(after, deed)| (at + after, deed)));
            at += millis(random, 10_000..50_000);
        }
        let calm = calm(&story);
        story.deeds.extend(calm.into_iter().map(|deed| (begins + Duration::from_secs(3100), deed)));
    }
    story.deeds.sort_by_key(|(at, _)| *at);
    story.ends = Duration::from_secs(24 * 3600);
    story
}

/// Whatever happened, everything is as in the beginning.
fn calm(story: &Story) -> Vec<Deed> {
    let agents = || 0..story.agents;
    let mut deeds = vec![Deed::Heal, Deed::Foreign(None), Deed::Proxy(false)];
    deeds.extend([Family::V4, Family::V6].map(|family| Deed::Prune(family, false)));
    deeds.extend((0..story.addresses).map(|address| Deed::Move { address, to: None }));
    deeds.extend(agents().flat_map(|to| agents().map(move |from| Deed::Deafen { to, from, deaf: false })));
    for who in agents() {
        let open = Deed::Firewall { station: who, inward: false, outward: false };
        let plugged = Deed::Plug(who, Duration::ZERO);
        deeds.extend([open, plugged, Deed::Api(who, true), Deed::Path(who, true), Deed::Numb(who, false)]);
        deeds.extend([Deed::Start(who), Deed::Undrain(who), Deed::Reload(who, 0)]);
    }
    deeds
}

/// The files of a story: the first is there from the beginning.
fn files(chosen: &[Trouble], agents: usize, random: &mut Rng) -> Vec<FileText> {
    let has = |trouble: Trouble| chosen.contains(&trouble);
    let file = FileText::new;
    let mut files = vec![file(String::new())];
    if has(Trouble::Rollout) || has(Trouble::Reload) {
        files = vec![file(owners(agents, random)), file(owners(agents, random))];
    }
    if has(Trouble::ReloadOfNoConsequence) {
        let l2 = [files[0].l2.as_str(), OTHER_ANNOUNCEMENTS].join("; ");
        files.push(file(l2.trim_start_matches("; ").to_owned()));
    }
    if has(Trouble::Keys) || has(Trouble::ReloadKeys) {
        let last = files.last().cloned();
        files.extend(last.map(|file| FileText { key: 2, old_keys: vec![1], ..file }));
    }
    if has(Trouble::Versions) {
        let mut versions = [Version::Earlier, Version::This, Version::Later];
        random.shuffle(&mut versions);
        let [before, after, _] = versions;
        files.iter_mut().for_each(|file| file.version = before);
        let last = files.last().cloned();
        files.extend(last.map(|file| FileText { version: after, ..file }));
    }
    files
}

/// What decides who owns.
fn owners(agents: usize, random: &mut Rng) -> String {
    let name = crate::story::name(random.usize(0..agents), agents);
    let prefers = format!("preference = [{{ nodes = \"kubernetes.io/hostname={name}\", weight = 100 }}]");
    match random.u8(0..8) {
        1 => format!("nodes = \"kubernetes.io/hostname!={name}\""),
        2 => format!("preempt-delay = \"3s\"; {prefers}"),
        3 => "sticky = true".to_owned(),
        // Another number in the pulses for the same rules.
        4 => format!("pools = [\"lan\"]; {prefers}"),
        _ => prefers,
    }
}

/// What asks nothing to move.
const OTHER_ANNOUNCEMENTS: &str = "announce-again = \"1s, 3s\"";

/// One trouble, with its end.
fn deeds(trouble: Trouble, story: &Story, random: &mut Rng) -> Vec<(Duration, Deed)> {
    let who = random.usize(0..story.agents);
    let address = random.usize(0..story.addresses);
    let later = millis(random, 300..10_000);
    let now = Duration::ZERO;
    match trouble {
        Trouble::Crash => vec![(now, Deed::Kill(who)), (later, Deed::Start(who))],
        Trouble::QuickReturn => vec![(now, Deed::Kill(who)), (millis(random, 1..1500), Deed::Start(who))],
        Trouble::Stop => vec![(now, Deed::Stop(who)), (later, Deed::Start(who))],
        Trouble::Restart => {
            let pause = millis(random, 210..3000);
            let keeps = random.bool().then(|| millis(random, 200..6000));
            vec![(now, Deed::Restart { station: who, file: None, pause, keeps })]
        }
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
        Trouble::Numb => {
            let later = later * random.u32(1..4);
            vec![(now, Deed::Numb(who, true)), (later, Deed::Numb(who, false))]
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
        Trouble::Rollout => node_by_node(story, random, |who| restart(who, 1)),
        Trouble::Reload => {
            let file = random.usize(0..2);
            node_by_node(story, random, |who| Deed::Reload(who, file))
        }
        Trouble::ReloadOfNoConsequence => {
            let other = story.files.iter().position(|file| file.l2.ends_with(OTHER_ANNOUNCEMENTS)).unwrap_or_default();
            let file = if random.bool() { other } else { 0 };
            node_by_node(story, random, |who| Deed::Reload(who, file))
        }
        Trouble::Keys => node_by_node(story, random, |who| restart(who, story.files.len() - 1)),
        Trouble::ReloadKeys => node_by_node(story, random, |who| Deed::Reload(who, story.files.len() - 1)),
        Trouble::Versions => {
            let file = if random.bool() { story.files.len() - 1 } else { 0 };
            let keeps = random.bool().then(|| millis(random, 2500..6000));
            node_by_node(story, random, |who| Deed::Restart {
                station: who,
                file: Some(file),
                pause: RESTART_PAUSE,
                keeps,
            })
        }
        Trouble::Drain => drain(who, later, random),
        Trouble::Move => {
            let chosen = |to| Deed::Move { address, to };
            let back = random.bool().then_some((later, chosen(None)));
            std::iter::once((now, chosen(Some(who)))).chain(back).collect()
        }
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
        Trouble::Slow => {
            let slow = Deed::Slow(Some(millis(random, 5..100)));
            let restart = Deed::Restart { station: who, file: None, pause: RESTART_PAUSE, keeps: None };
            let moves = [Deed::Move { address, to: Some(who) }, restart];
            let during = later.mul_f64(random.f64());
            vec![(now, slow), (during, moves[random.usize(0..2)].clone()), (later, Deed::Slow(None))]
        }
        Trouble::FrozenHandOver => {
            let frozen = random.usize(0..story.agents);
            let longest = if random.bool() { 400 } else { 8000 };
            let freeze = (millis(random, 0..90), Deed::Freeze(frozen, millis(random, 20..longest)));
            let moved = match random.u8(0..3) {
                0 => Deed::Restart { station: who, file: None, pause: RESTART_PAUSE, keeps: None },
                1 => Deed::Drain(who, now),
                _ => Deed::Move { address, to: Some(who) },
            };
            let back = matches!(moved, Deed::Drain(..)).then_some((later, Deed::Undrain(who)));
            [(now, moved), freeze].into_iter().chain(back).collect()
        }
        Trouble::FilteredForGood => {
            let filter = match random.u8(0..3) {
                0 => Family::BOTH.map(|family| (now, Deed::Prune(family, true))).to_vec(),
                _ => vec![(now, Deed::Firewall { station: who, inward: true, outward: true })],
            };
            // The client and the router are on the other side, or it is a matter of the nodes alone.
            let alone = vec![who];
            let others = (0..story.agents + 3).filter(|station| *station != who).collect();
            let cut = millis(random, 1000..12_000);
            let heals = cut + millis(random, 1000..60_000);
            [filter, vec![(cut, Deed::Split(vec![alone, others])), (heals, Deed::Heal)]].concat()
        }
        Trouble::Flush => {
            let times = random.u32(1..=6);
            let pause = millis(random, 1..2000);
            (0..times).map(|time| (pause * time, Deed::Flush(who))).collect()
        }
        Trouble::Annotation => {
            let address = address % story.egress;
            vec![(now, Deed::Annotate { address, has: false }), (later, Deed::Annotate { address, has: true })]
        }
        Trouble::Recreation => {
            let address = address % story.egress;
            vec![(now, Deed::Service { address, is_there: false }), (later, Deed::Service { address, is_there: true })]
        }
        Trouble::Tenants => {
            let address = address % story.egress;
            let pod = |plain| Deed::Pod { address, host: who, plain };
            match random.bool() {
                true => vec![(now, pod(true)), (later, pod(false))],
                false => vec![(now, pod(false))],
            }
        }
        // It is there from the beginning.
        Trouble::Loss => vec![(now, Deed::Kill(who)), (later, Deed::Start(who))],
    }
}

fn restart(station: Station, file: usize) -> Deed {
    Deed::Restart { station, file: Some(file), pause: RESTART_PAUSE, keeps: None }
}

/// A drain, at times with a restart of the agent in it, and mostly taken back.
fn drain(who: Station, later: Duration, random: &mut Rng) -> Vec<(Duration, Deed)> {
    let mut deeds = vec![(Duration::ZERO, Deed::Drain(who, millis(random, 0..3000)))];
    if random.u8(0..4) == 0 {
        deeds.push((
            later / 2,
            Deed::Restart { station: who, file: None, pause: millis(random, 210..2000), keeps: None },
        ));
    }
    if random.u8(0..4) > 0 {
        deeds.push((later, Deed::Undrain(who)));
    }
    deeds
}

/// The same for every node, one after the other.
fn node_by_node(story: &Story, random: &mut Rng, deed: impl Fn(Station) -> Deed) -> Vec<(Duration, Deed)> {
    let mut order: Vec<Station> = (0..story.agents).collect();
    random.shuffle(&mut order);
    let mut at = Duration::ZERO;
    let mut deeds = Vec::new();
    for who in order {
        deeds.push((at, deed(who)));
        at += millis(random, 1000..6000);
    }
    deeds
}

fn millis(random: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}
