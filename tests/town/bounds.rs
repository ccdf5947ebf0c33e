//! The bounds of the machine's documentation, held through crashes, restarts, clean stops, frozen links and partitions,
//! with a thousand seeds on a link that reorders and doubles, and again on one that loses packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::pulses::{DETECTION, FAIR, INTERVAL, LATENCY, THINKING, Town, Weather};

const LOOKS: Duration = Duration::from_millis(8);

/// How long it takes from one agent to what another does about it, and until that is seen here.
const REACTION: Duration =
    LATENCY.saturating_add(THINKING).saturating_add(Duration::from_millis(6)).saturating_add(LOOKS);

/// Two agents that can hear each other both answer for an address at most for this long. They pulse as owners, and the
/// worse yields at the first pulse of the better, or at its answer where it has to prove first that it is no recording:
/// then the question, for which it may not be time again right now, and the answer come on top, each at the least distance
/// from another pulse.
const TWO_OWNERS: Duration = INTERVAL.saturating_add(Duration::from_millis(38 + 14)).saturating_add(REACTION);

/// A node that owns nothing promises pulses at this distance; who died within three of them may be unnoticed still.
const UNNOTICED: Duration = Duration::from_millis(3100);

/// How many towns are tried: what takes seconds, or so many as CRIER_TOWN_SEEDS says.
fn seeds(usual: u64) -> u64 {
    std::env::var("CRIER_TOWN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Watches the invariants while a town runs.
struct Watch {
    /// Since when two agents both answer for an address and can hear each other.
    both: BTreeMap<(IpAddr, usize, usize), Instant>,
    /// Since when nobody of a part answers for an address although somebody could.
    nobody: BTreeMap<(IpAddr, u8), Instant>,
    /// What was done to the town, and whether somebody was lost by it without a word.
    faults: Vec<(Instant, usize)>,
    moves_seen: usize,
    looked: Instant,
    longest_both: Duration,
    longest_nobody: Duration,
}

impl Watch {
    fn new(town: &Town) -> Watch {
        Watch {
            both: BTreeMap::new(),
            nobody: BTreeMap::new(),
            faults: vec![(town.now, 0)],
            moves_seen: 0,
            looked: town.now,
            longest_both: Duration::ZERO,
            longest_nobody: Duration::ZERO,
        }
    }

    /// How long an address may be without an owner: one detection for its owner, and one for each that died unnoticed
    /// and was next in rank, and one more for a listening newcomer.
    fn patience(&self, now: Instant) -> Duration {
        let recent = self.faults.iter().filter(|(at, _)| now.duration_since(*at) <= UNNOTICED);
        let lost: usize = recent.map(|(_, lost)| lost).sum();
        let detections = u32::try_from(lost).unwrap() + 1;
        DETECTION * detections + REACTION * (detections + 1)
    }

    /// Looks whenever somebody moved, and else every few milliseconds.
    fn look(&mut self, town: &Town) {
        if self.moves_seen == town.moves.len() && town.now < self.looked + LOOKS {
            return;
        }
        self.looked = town.now;
        for address in town.addresses.clone() {
            let owners = town.owners(address);
            self.two_owners(town, address, &owners);
            self.no_owner(town, address, &owners);
        }
        for moved in &town.moves[self.moves_seen..] {
            let patience = self.patience(moved.at) + DETECTION;
            let caused = self.faults.iter().any(|(at, _)| moved.at.duration_since(*at) <= patience);
            assert!(caused, "{moved:?} without a cause: faults {:?} before now", ages(&self.faults, moved.at));
        }
        self.moves_seen = town.moves.len();
    }

    fn two_owners(&mut self, town: &Town, address: IpAddr, owners: &[usize]) {
        let mut pairs = Vec::new();
        for (place, one) in owners.iter().enumerate() {
            pairs.extend(
                owners[place + 1..].iter().filter(|other| town.connected(*one, **other)).map(|other| (*one, *other)),
            );
        }
        self.both.retain(|(known, one, other), _| *known != address || pairs.contains(&(*one, *other)));
        for (one, other) in pairs {
            let since = *self.both.entry((address, one, other)).or_insert(town.now);
            let lasted = town.now.duration_since(since);
            self.longest_both = self.longest_both.max(lasted);
            let minds = || format!("{}\n{}", town.mind_of(one), town.mind_of(other));
            assert!(lasted <= TWO_OWNERS, "{address}: {one} and {other} both answer for {lasted:?}\n{}", minds());
        }
    }

    fn no_owner(&mut self, town: &Town, address: IpAddr, owners: &[usize]) {
        for part in 0..2 {
            let could = town.agents.iter().any(|it| it.part == part && it.life.as_ref().is_some_and(|it| it.settled));
            let owned = owners.iter().any(|owner| town.agents[*owner].part == part);
            if owned || !could {
                self.nobody.remove(&(address, part));
                continue;
            }
            let since = *self.nobody.entry((address, part)).or_insert(town.now);
            let lasted = town.now.duration_since(since);
            self.longest_nobody = self.longest_nobody.max(lasted);
            let most = self.patience(town.now);
            assert!(lasted <= most, "{address}: nobody answers in part {part} for {lasted:?}, more than {most:?}");
        }
    }
}

fn ages(faults: &[(Instant, usize)], now: Instant) -> Vec<Duration> {
    faults.iter().map(|(at, _)| now.duration_since(*at)).collect()
}

/// Does something to the town, and says how many it took away without a word.
fn harm(town: &mut Town) -> usize {
    let agent = town.random.usize(0..town.agents.len());
    let alive = town.agents[agent].life.is_some();
    match (town.random.u8(0..6), alive) {
        (0 | 1, true) => {
            town.kill(agent);
            1
        }
        (2, true) => {
            town.leave(agent);
            0
        }
        (3, true) => {
            // Killed and started again at once, as a service manager does.
            town.kill(agent);
            town.start(agent);
            1
        }
        (_, false) => {
            town.start(agent);
            0
        }
        (4, true) => {
            let mut moved = 0;
            for number in 0..town.agents.len() {
                let part = town.random.u8(0..2);
                moved += usize::from(town.agents[number].part != part && town.agents[number].life.is_some());
                town.agents[number].part = part;
            }
            // Either side misses the other.
            town.agents.len().max(moved)
        }
        (_, true) => {
            town.agents.iter_mut().for_each(|agent| agent.part = 0);
            0
        }
    }
}

fn live(seed: u64, agents: usize, faults: usize) -> Watch {
    let mut town = Town::new(seed, agents, 4, FAIR, "");
    for agent in 0..agents {
        town.start(agent);
        let pause = Duration::from_millis(town.random.u64(0..200));
        town.run_for(pause);
    }
    let mut watch = Watch::new(&town);
    for _ in 0..faults {
        let pause = Duration::from_millis(town.random.u64(0..2500));
        town.run_until(town.now + pause, |town| watch.look(town));
        let lost = harm(&mut town);
        watch.faults.push((town.now, lost));
        watch.look(&town);
    }
    town.run_until(town.now + Duration::from_secs(6), |town| watch.look(town));
    watch
}

#[test]
fn the_bounds_hold_through_anything_that_happens_to_a_small_town() {
    let mut both = Duration::ZERO;
    let mut nobody = Duration::ZERO;
    for seed in 0..seeds(40) {
        let agents = 3 + usize::try_from(seed % 4).unwrap();
        let watch = std::panic::catch_unwind(|| live(seed, agents, 8)).unwrap_or_else(|_| panic!("seed {seed}"));
        both = both.max(watch.longest_both);
        nobody = nobody.max(watch.longest_nobody);
    }
    println!("two owners for at most {both:?}, nobody for at most {nobody:?}");
    assert!(nobody > DETECTION / 2, "the towns are harmed at all");
    assert!(both > Duration::ZERO, "parts that meet again have two owners for a moment");
}

#[test]
fn the_bounds_hold_in_a_town_of_fifty() {
    for seed in 0..seeds(40) / 40 {
        std::panic::catch_unwind(|| live(seed, 50, 1)).unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

/// With losses nothing comes within a certain time, but what comes still decides: no agent goes on answering once it has
/// heard the better one of the two.
#[test]
fn who_hears_a_better_owner_yields_at_once_however_much_is_lost() {
    for seed in 0..seeds(20) {
        let loss = 10 + u8::try_from(seed % 3).unwrap() * 10;
        let mut town = Town::new(seed, 5, 3, Weather { loss, doubles: 10 }, "");
        (0..5).for_each(|agent| town.start(agent));
        for _ in 0..6 {
            let pause = Duration::from_millis(town.random.u64(0..2000));
            town.run_until(town.now + pause, |town| no_stubborn_owner(town, seed));
            harm(&mut town);
        }
        town.agents.iter_mut().for_each(|agent| agent.part = 0);
        // Who said goodbye in the last moment is gone then.
        town.run_for(DETECTION);
        (0..5).for_each(|agent| {
            if town.agents[agent].life.is_none() {
                town.start(agent);
            }
        });
        // In fair weather again, the town finds its order.
        town.weather = FAIR;
        town.run_until(town.now + Duration::from_secs(5), |town| no_stubborn_owner(town, seed));
        for address in town.addresses.clone() {
            let best = (1..5).fold(0, |best, agent| town.better(best, agent, address));
            assert_eq!(town.owners(address), [best], "seed {seed}: {address} is with the best of all");
        }
    }
}

fn no_stubborn_owner(town: &Town, seed: u64) {
    for address in &town.addresses {
        let owners = town.owners(*address);
        for (place, one) in owners.iter().enumerate() {
            for other in &owners[place + 1..] {
                let better = town.better(*one, *other, *address);
                let worse = if better == *one { other } else { one };
                let heard = town.agents[*worse].life.as_ref().and_then(|life| life.heard.get(&better));
                let Some(since) = heard else { continue };
                let lasted = town.now.duration_since(*since);
                assert!(
                    lasted <= REACTION * 2 || !listens_to(town, *worse, better),
                    "seed {seed}: {address}: agent {worse} has heard agent {better} for {lasted:?} and goes on"
                );
            }
        }
    }
}

/// Whether what was heard last was not so long ago that the other may count as silent again.
fn listens_to(town: &Town, one: usize, other: usize) -> bool {
    let life = town.agents[one].life.as_ref();
    life.and_then(|life| life.last_taken.get(&other)).is_some_and(|at| town.now.duration_since(*at) < DETECTION)
}
