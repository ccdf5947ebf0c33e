//! How long an address is without an owner when its owner is killed, by size of the town and by loss, and how often an
//! address moves although nothing happened: a table to review.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::pulses::{Town, Weather};

/// The size of a town, and how many seeds of it are tried: a large one costs more to run.
const TOWNS: [(usize, u64); 3] = [(3, 40), (10, 8), (30, 1)];

#[test]
fn the_failover_gap_is_what_the_reviewed_table_says() {
    let mut table = String::new();
    let _ =
        writeln!(table, "The owner is killed; how long nobody answers, in ms; and idle moves in all quiet minutes.\n");
    let _ = writeln!(table, "agents  loss   p50   p95   most   idle moves");
    for (agents, seeds) in TOWNS {
        for loss in [0, 10, 20, 30] {
            let mut gaps: Vec<Duration> = Vec::new();
            let mut idle_moves = 0;
            let mut quiet = Duration::ZERO;
            for seed in 0..seeds {
                let (gap, moves, time) = kill_an_owner(seed, agents, loss);
                gaps.push(gap);
                idle_moves += moves;
                quiet += time;
            }
            gaps.sort();
            let at = |part: usize| gaps[(gaps.len() * part / 100).min(gaps.len() - 1)].as_millis();
            let (half, most, minutes) = (at(50), at(100), quiet.as_secs() / 60);
            let p95 = at(95);
            let _ = writeln!(
                table,
                "{agents:>6}  {loss:>3}%  {half:>4}  {p95:>4}  {most:>5}   {idle_moves} in {minutes} min"
            );
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/town/failover.txt");
    if std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(reviewed == table, "{} says\n{reviewed}\nand now it is\n{table}", path.display());
}

/// The gap; how often an address came to somebody while nothing had happened; and for how long nothing had.
fn kill_an_owner(seed: u64, agents: usize, loss: u8) -> (Duration, usize, Duration) {
    let mut town = Town::new(seed, agents, 2, Weather { loss, doubles: 2 }, "");
    (0..agents).for_each(|agent| town.start(agent));
    town.run_for(Duration::from_secs(3));
    let settled = town.moves.len();
    let quiet = Duration::from_secs(6) + Duration::from_millis(town.random.u64(0..200));
    town.run_for(quiet);
    let idle_moves = town.moves[settled..].iter().filter(|it| it.owns).count();
    let address = town.addresses[0];
    let owners = town.owners(address);
    let killed: Instant = town.now;
    owners.iter().for_each(|owner| town.kill(*owner));
    let before = town.moves.len();
    town.run_for(Duration::from_secs(5));
    let taken = town.moves[before..].iter().find(|it| it.address == address && it.owns);
    let gap = taken.unwrap_or_else(|| panic!("seed {seed}: nobody took {address} over")).at.duration_since(killed);
    (gap, idle_moves, quiet)
}
