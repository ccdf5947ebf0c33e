//! Keeps `tests/metallb.md` in step with `tests/metallb/table.txt`, and the table with the tests that it names.
//! `CRIER_WRITE_SNAPSHOTS=1 cargo test --test metallb` writes the page anew.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// So many of MetalLB's 229 specs are about something that crier could have.
const APPLICABLE: u32 = 209;

/// The section of those that are not.
const ELSEWHERE: &str = "What cannot apply here";

struct Row {
    section: String,
    place: String,
    specs: u32,
    behaviour: String,
    held: Held,
}

/// What holds a behaviour.
enum Held {
    By(Vec<String>),
    Issue { number: u32, what: String },
    Gap(String),
    NoCounterpart { why: String, instead: Vec<String> },
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn table() -> Vec<Row> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in read("tests/metallb/table.txt").lines().filter(|line| !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("= ") {
            title.clone_into(&mut section);
            continue;
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let [place, specs, behaviour, held] = cells[..] else { panic!("not four cells: {line}") };
        let specs = specs.parse().unwrap_or_else(|_| panic!("no number of specs: {line}"));
        let (place, behaviour) = (place.to_owned(), behaviour.to_owned());
        rows.push(Row { section: section.clone(), place, specs, behaviour, held: Held::read(held, line) });
    }
    rows
}

impl Held {
    fn read(text: &str, line: &str) -> Held {
        let mut parts = text.split("; ").map(str::to_owned);
        let first = parts.next().unwrap_or_default();
        if let Some(rest) = first.strip_prefix("issue ") {
            let (number, what) = rest.split_once(": ").unwrap_or_else(|| panic!("`issue N: what`: {line}"));
            return Held::Issue { number: number.parse().expect("a number"), what: what.to_owned() };
        }
        if let Some(what) = first.strip_prefix("gap: ") {
            return Held::Gap(what.to_owned());
        }
        if let Some(why) = first.strip_prefix("no counterpart: because ") {
            let (reason, instead): (Vec<String>, Vec<String>) =
                parts.partition(|part| !part.starts_with("tests/") && !part.starts_with("src/"));
            let why = std::iter::once(why.to_owned()).chain(reason).collect::<Vec<_>>().join("; ");
            return Held::NoCounterpart { why, instead };
        }
        Held::By(std::iter::once(first).chain(parts).collect())
    }

    fn tests(&self) -> &[String] {
        match self {
            Held::By(tests) | Held::NoCounterpart { instead: tests, .. } => tests,
            Held::Issue { .. } | Held::Gap(_) => &[],
        }
    }

    fn text(&self) -> String {
        let quoted = |tests: &[String]| tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>");
        match self {
            Held::By(tests) => quoted(tests),
            Held::Issue { number, what } => format!("issue {number}: {what}"),
            Held::Gap(what) => format!("**gap**: {what}"),
            Held::NoCounterpart { why, instead } if instead.is_empty() => format!("no counterpart, because {why}"),
            Held::NoCounterpart { why, instead } => format!("no counterpart, because {why}: {}", quoted(instead)),
        }
    }
}

fn specs<'a>(rows: impl Iterator<Item = &'a Row>) -> u32 {
    rows.map(|row| row.specs).sum()
}

fn page(rows: &[Row]) -> String {
    let applicable = || rows.iter().filter(|row| row.section != ELSEWHERE);
    let count = |is: fn(&Held) -> bool| specs(applicable().filter(|row| is(&row.held)));
    let mut page = format!(
        "# MetalLB's end-to-end behaviours\n\n\
         Made of `tests/metallb/table.txt` by `tests/metallb.rs`; do not edit. Of the {APPLICABLE} specs of MetalLB's end-to-end tests that do not need \
         FRR, a webhook or a pod of its own:\n\n\
         | | specs |\n|---|---|\n\
         | held by the tests that are named | {} |\n| missing, and the matter of another issue | {} |\n\
         | missing: a gap | {} |\n| no counterpart here, on purpose | {} |\n",
        count(|held| matches!(held, Held::By(_))),
        count(|held| matches!(held, Held::Issue { .. })),
        count(|held| matches!(held, Held::Gap(_))),
        count(|held| matches!(held, Held::NoCounterpart { .. })),
    );
    let mut section = "";
    for row in rows {
        if section != row.section {
            section = &row.section;
            write!(page, "\n## {section}\n\n| place | specs | behaviour | held by |\n|---|---|---|---|\n").unwrap();
        }
        writeln!(page, "| {} | {} | {} | {} |", row.place, row.specs, row.behaviour, row.held.text()).unwrap();
    }
    page
}

#[test]
fn the_page_says_what_the_table_says() {
    let page = page(&table());
    let path = root().join("tests/metallb.md");
    if std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "tests/metallb.md is behind; run: CRIER_WRITE_SNAPSHOTS=1 cargo test --test metallb");
}

#[test]
fn every_spec_is_in_the_table_once() {
    let rows = table();
    assert_eq!(specs(rows.iter().filter(|row| row.section != ELSEWHERE)), APPLICABLE);
    assert_eq!(specs(rows.iter()), 229);
    for row in rows.iter().filter(|row| row.section == ELSEWHERE) {
        assert!(matches!(row.held, Held::NoCounterpart { .. }), "{}: {}", row.place, row.behaviour);
    }
}

#[test]
fn every_test_that_the_table_names_is_there() {
    for row in table() {
        for test in row.held.tests() {
            let Some((path, name)) = test.split_once("::") else {
                assert!(root().join(test).is_file(), "{}: there is no {test}", row.place);
                continue;
            };
            let text = read(path);
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let head = format!("fn {name}(");
            let place = lines.iter().position(|line| line.strip_prefix("async ").unwrap_or(line).starts_with(&head));
            let place = place.unwrap_or_else(|| panic!("{}: there is no {name} in {path}", row.place));
            let attributes =
                lines[..place].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
            assert!(
                attributes.clone().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")),
                "{}: {name} in {path} is no test",
                row.place
            );
            assert!(!attributes.clone().any(|line| line.starts_with("#[ignore")), "{}: {name} is ignored", row.place);
        }
    }
}
