//! What the documents point at exists: files, headings and targets of `make`. No floor: it reads Markdown and the Makefile.

use std::fs;
use std::path::{Path, PathBuf};

/// Every document, with the path that its links start from.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("the folder exists").map(|entry| entry.expect("readable").path());
        entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect()
    };
    let paths = of(root).into_iter().chain(of(&root.join("doc")));
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("a document is UTF-8"))).collect()
}

/// The text outside blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_of_a_document_leads_to_a_file_and_a_heading_of_it() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let prose = prose(&text);
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let found = fs::read_to_string(&target).is_ok_and(|page| {
                heading.is_empty()
                    || page
                        .lines()
                        .filter(|line| line.starts_with('#'))
                        .any(|line| anchor(line.trim_matches('#')) == heading)
            });
            if !found {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn every_target_of_make_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let makefile = fs::read_to_string(root.join("Makefile")).expect("there is a Makefile");
    let mut missing = Vec::new();
    for (path, text) in documents() {
        let starts = text.lines().filter_map(|line| line.strip_prefix("make "));
        let quoted = text.split("`make ").skip(1);
        for rest in starts.chain(quoted) {
            let target: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            if !makefile.lines().any(|line| line.starts_with(&format!("{target}:"))) {
                missing.push(format!("{}: make {target}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "targets that do not exist: {missing:#?}");
}
