//! crier against every router of [`Make`], in every case of [`cases`]: each cell of the table is a rack of its own, with
//! crier and the router on one cable. The table is printed at the end; a cell that cannot be says why, and is never
//! left out.
//!
//! `cargo test --package crier-rack --test interop -- frr` runs the cells with that word in their name, which is
//! `ROUTER: CASE`.

mod cases;
mod life;
mod limits;
mod matrix;
mod security;
mod stage;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use rack::pairing::Make;
use rack::{Need, now, skip};

use cases::{CASES, Case};
use limits::limit;
use matrix::Outcome;

/// Cells at a time, unless `--test-threads` says how many. They wait more than they work.
const THREADS: usize = 4;

/// One router in one case.
#[derive(Clone, Copy)]
struct Cell {
    make: Make,
    case: &'static Case,
}

impl Cell {
    fn name(self) -> String {
        format!("{}: {}", self.make.name(), self.case.name)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Each router is at another case than its neighbors: the same case five times at once would load the machine too much.
    let cells = (0..CASES.len()).flat_map(|step| {
        let case = move |router: usize| &CASES[(step + router * CASES.len() / Make::ALL.len()) % CASES.len()];
        Make::ALL.into_iter().enumerate().map(move |(router, make)| Cell { make, case: case(router) })
    });
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |cell: &Cell| words.is_empty() || words.iter().any(|word| cell.name().contains(word.as_str()));
    let cells: Vec<Cell> = cells.filter(chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        cells.iter().for_each(|cell| println!("{}: test", cell.name()));
        return ExitCode::SUCCESS;
    }
    let threads = arguments.iter().find_map(|argument| argument.strip_prefix("--test-threads=")?.parse().ok());
    let start = now();
    let outcomes = run(cells, threads.unwrap_or(THREADS));
    println!("\n{}", matrix::table(&outcomes));
    let count = |is: fn(&Outcome) -> bool| outcomes.values().filter(|outcome| is(outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Failed));
    println!(
        "test result: {}. {} passed; {failed} failed; {} n/a; {} skipped; finished in {:.1}s",
        if failed == 0 { "ok" } else { "FAILED" },
        count(|outcome| matches!(outcome, Outcome::Fine)),
        count(|outcome| matches!(outcome, Outcome::Impossible(_))),
        count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        start.elapsed().as_secs_f32()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs all cells, so many at a time, and tells each when it is over.
fn run(cells: Vec<Cell>, threads: usize) -> BTreeMap<(Make, &'static str), Outcome> {
    let waiting = Mutex::new(VecDeque::from(cells));
    let outcomes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(cell) = waiting.lock().expect("nobody panics holding it").pop_front() else { return };
                    let start = now();
                    let outcome = judge(cell);
                    println!("test {} ... {outcome} ({:.1} s)", cell.name(), start.elapsed().as_secs_f32());
                    outcomes.lock().expect("nobody panics holding it").insert((cell.make, cell.case.name), outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("nobody panics holding it")
}

fn judge(cell: Cell) -> Outcome {
    // What it was doing is told by the panic's own message; each cell has a rack of its own, so nothing is left half done.
    catch_unwind(AssertUnwindSafe(|| play(cell))).unwrap_or(Outcome::Failed)
}

/// # Panics
/// When the case did not go as it should, and when it would be skipped where nothing may be.
fn play(cell: Cell) -> Outcome {
    let (make, name) = (cell.make, cell.name());
    let missing = [Need::Namespaces, Need::Crier, make.need()].into_iter().find_map(|need| need.look().err());
    if let Some(missing) = missing {
        skip(&name, &missing);
        return Outcome::Skipped(missing);
    }
    if let Some(limit) = limit(make, cell.case.name)
        && (limit.shows)(make, &name)
    {
        return Outcome::Impossible(limit.why);
    }
    (cell.case.run)(make, &name);
    Outcome::Fine
}

/// How long any single step may take. Some routers dial only every few seconds, and other cells run beside.
pub const PATIENCE: Duration = rack::secs(30);
