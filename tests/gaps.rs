//! Keeps `doc/rfc-gaps.md` in step with the `Gap (…)` comments it is made of.
//! `CRIER_WRITE_SNAPSHOTS=1 cargo test --test gaps` writes it anew.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn the_page_of_gaps_says_what_the_comments_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut gaps = Vec::new();
    for file in sources(&root.join("src")) {
        let text = fs::read_to_string(&file).expect("a source can be read");
        let name = file.strip_prefix(root).expect("it is below the root").display().to_string();
        gaps.extend(gaps_of(&text).into_iter().map(|(section, what)| (section, what, name.clone())));
    }
    assert!(!gaps.is_empty(), "no file admits a gap: has the way of writing them changed?");
    gaps.sort();
    let mut page = String::from(
        "# What crier does not do, and an RFC or a user might expect\n\n\
         Made of the `Gap (…)` comments in the code by `tests/gaps.rs`; do not edit.\n\n\
         | of | what is missing | where |\n|---|---|---|\n",
    );
    for (section, what, file) in &gaps {
        writeln!(page, "| {section} | {what} | `{file}` |").expect("a string takes everything");
    }
    let path = root.join("doc/rfc-gaps.md");
    if std::env::var_os("CRIER_WRITE_SNAPSHOTS").is_some() {
        fs::write(&path, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "doc/rfc-gaps.md is behind the code; run: CRIER_WRITE_SNAPSHOTS=1 cargo test --test gaps");
}

/// Each `// Gap (RFC 4271 §8.1.1): what is missing`, with the comment lines that follow it.
fn gaps_of(text: &str) -> Vec<(String, String)> {
    let mut gaps = Vec::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let comment = line.trim_start_matches('/').trim_start_matches('!').trim();
        let Some(rest) = comment.strip_prefix("Gap (").filter(|_| line.starts_with("//")) else { continue };
        let Some((section, what)) = rest.split_once("):") else { panic!("write it as `Gap (RFC n §m): …`: {line}") };
        let mut what = what.trim().to_owned();
        while !what.ends_with('.') {
            let Some(more) = lines.next_if(|next| next.starts_with("//")) else { break };
            what = format!("{what} {}", more.trim_start_matches('/').trim_start_matches('!').trim());
        }
        gaps.push((section.to_owned(), what));
    }
    gaps
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("src can be read").map(|entry| entry.expect("src can be read").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    folders.iter().flat_map(|folder| sources(folder)).chain(files).collect()
}
