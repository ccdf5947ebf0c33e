//! How long an address is without an owner when its owner dies, is cut off or freezes, over many seeds and in virtual time,
//! against the bound that `doc/benchmarks.md` holds the real agents to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::story::{Deed, Station, Story};
use crate::town::{Notice, Town};

/// Nineteen of twenty addresses have another owner within this time.
const BOUND: Duration = Duration::from_millis(450);

/// And each of them: some frames are lost where loss is played.
const WORST: Duration = Duration::from_millis(1500);

/// The size of a town, and how many seeds of it are tried for each blow: a large one costs more to run.
const TOWNS: [(usize, u64); 2] = [(3, 10), (8, 3)];

const ADDRESSES: usize = 6;

/// What befalls a station.
type Blow = fn(Station) -> Deed;

const BLOWS: [(&str, Blow); 3] = [
    ("killed", Deed::Kill),
    ("cut off", Deed::Unplug),
    ("frozen", |station| Deed::Freeze(station, Duration::from_millis(2500))),
];

#[test]
fn nineteen_of_twenty_addresses_of_an_owner_that_fails_have_another_one_within_the_bound() {
    println!("agents  loss  blow      addresses   p50   p95  worst  (ms)");
    for (agents, seeds) in TOWNS {
        for (blow, deed) in BLOWS {
            for loss in [0, 5] {
                let mut gaps: Vec<Duration> = (0..seeds).flat_map(|seed| gaps(seed, agents, loss, deed)).collect();
                gaps.sort();
                let at = |part: usize| gaps[(gaps.len() * part / 100).min(gaps.len().saturating_sub(1))];
                let (half, most, worst) = (at(50), at(95), at(100));
                println!(
                    "{agents:>6}  {loss:>3}%  {blow:<8}  {:>9}  {:>4}  {:>4}  {:>5}",
                    gaps.len(),
                    half.as_millis(),
                    most.as_millis(),
                    worst.as_millis()
                );
                assert!(most <= BOUND, "{agents} agents, {loss}% loss, {blow}: p95 is {most:?}, the bound {BOUND:?}");
                assert!(worst <= WORST, "{agents} agents, {loss}% loss, {blow}: {worst:?} without an owner");
            }
        }
    }
}

/// Of each address that the failing node held, how long nobody else answered for it.
fn gaps(seed: u64, agents: usize, loss: u8, blow: Blow) -> Vec<Duration> {
    let mut story = Story::new(seed, agents, ADDRESSES);
    story.loss = loss;
    let victim = usize::try_from(seed).unwrap() % agents;
    // At any place between two pulses.
    let at = Duration::from_millis(6000 + 37 * seed);
    story.deeds.push((at, blow(victim)));
    story.ends = at + Duration::from_secs(3);
    let mut failed: Option<Instant> = None;
    let mut held: BTreeSet<IpAddr> = BTreeSet::new();
    let mut waiting: BTreeMap<IpAddr, Option<Duration>> = BTreeMap::new();
    Town::new(&story).live(|town| {
        for notice in std::mem::take(&mut town.notices) {
            match notice {
                Notice::Deed(_) => {
                    failed = Some(town.now());
                    waiting = held.iter().map(|address| (*address, None)).collect();
                }
                Notice::Owner { address, host, answers } if host == victim => {
                    let _changed = if answers { held.insert(address) } else { held.remove(&address) };
                }
                Notice::Owner { address, host: _, answers: true } => {
                    if let (Some(failed), Some(gap @ None)) = (failed, waiting.get_mut(&address)) {
                        *gap = Some(town.now() - failed);
                    }
                }
                Notice::Owner { .. }
                | Notice::Probe { .. }
                | Notice::Announcement { .. }
                | Notice::Request { .. }
                | Notice::Leak { .. } => {}
            }
        }
    });
    let gap = |(address, gap): (IpAddr, Option<Duration>)| {
        gap.unwrap_or_else(|| panic!("seed {seed}, {agents} agents: nobody took {address} over"))
    };
    waiting.into_iter().map(gap).collect()
}
