//! A day of flaps: whatever happens to a small town for twenty-four hours, it holds no more in the end than after the first
//! hours. The heap is counted, of all agents and of the link between them.

use std::time::Duration;

use crate::heap;
use crate::town::Town;
use crate::weather::day;

const HOUR: Duration = Duration::from_secs(3600);

/// A whole day in release; what is not optimised takes minutes for that.
const HOURS: u32 = if cfg!(debug_assertions) { 6 } else { 24 };

/// What may differ between two hours that end alike: half-filled pages of maps, and buffers of the town itself.
const SLACK: isize = 64 * 1024;

#[test]
fn a_day_of_flaps_leaves_a_town_as_small_as_it_was() {
    let story = day(1);
    let mut town = Town::new(&story);
    town.asked = 0;
    let mut held = Vec::new();
    for hour in 1..=HOURS {
        let end = town.began() + HOUR * hour;
        town.live_until(end, |town| town.notices.clear());
        held.push(heap::held());
        for (host, sizes) in town.sizes() {
            let most = |what: &str| match what {
                "peers" => story.agents - 1,
                "stations" => story.agents + 1,
                _ => story.addresses,
            };
            for (what, size) in sizes {
                assert!(size <= most(what), "hour {hour}: n{} has {size} {what}", host + 1);
            }
        }
    }
    println!("octets of heap after each hour: {held:?}");
    let (early, late) = (held[2], held[held.len() - 1]);
    assert!(late - early < SLACK, "{} octets more after {HOURS} hours than after three: {held:?}", late - early);
}
