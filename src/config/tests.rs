//! The configuration as a whole: complaints held against snapshots, the example, the table, round trips, random bytes.
//! `CRIER_WRITE_SNAPSHOTS=1 cargo test config::` writes the snapshots anew; read the difference before it is committed.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::options::{Available, Default, Kind, SECTIONS, Section};
use super::*;

const EXAMPLE: &str = include_str!("../../config/crier.toml");
/// The least that is a configuration.
const LEAST: &str = "[manifests]\nfolder = \"/m\"\n";

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), text: text.to_owned() }
}

fn parse_one(text: &str) -> Result<Config, Complaints> {
    parse(&[file("crier.toml", text)])
}

/// The configuration of a text that is added to the least one.
fn good(text: &str) -> Config {
    parse_one(&format!("{LEAST}{text}")).unwrap_or_else(|complaints| panic!("{complaints}"))
}

/// The complaints about a text that is added to the least configuration.
fn bad(text: &str) -> Complaints {
    parse_one(&format!("{LEAST}{text}")).expect_err(text)
}

/// The cases in tests/config: a file, or a folder with the files of a main file and drop-ins.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        entries.filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "toml")).collect();
    cases.sort();
    cases
}

/// The files of a case, under names that do not tell where the test runs.
fn files(case: &Path) -> Vec<SourceFile> {
    let root = if case.is_dir() { case.to_owned() } else { case.parent().unwrap().to_owned() };
    let main = if case.is_dir() { case.join("crier.toml") } else { case.to_owned() };
    let mut files = if case.is_dir() {
        load::read(&main).unwrap()
    } else {
        vec![file(main.to_str().unwrap(), &fs::read_to_string(&main).unwrap())]
    };
    for file in &mut files {
        file.path = Path::new(&file.path).strip_prefix(&root).unwrap().display().to_string();
    }
    files
}

#[test]
fn each_bad_file_gets_the_complaints_of_its_snapshot() {
    let write = std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some();
    let cases = cases();
    assert!(cases.len() >= 30, "the bad files are found: {}", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let snapshot = case.with_extension("stderr");
        let complaints = match parse(&files(&case)) {
            Ok(_) => panic!("{} was accepted", case.display()),
            Err(complaints) => complaints.to_string(),
        };
        if write {
            fs::write(&snapshot, &complaints).unwrap();
        }
        let expected = fs::read_to_string(&snapshot).unwrap_or_default();
        if expected != complaints {
            wrong += &format!("{}:\n{complaints}\ninstead of\n{expected}\n", case.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
